//! Frames (RFC 6455 §5.2): headers in and out, faults and close codes. We are the server: every
//! frame from the peer must be masked, none of ours is. Absent on purpose: extensions (no reserved
//! bit has a meaning here) and everything that spans frames (`assemble`).

/// The longest header: two bytes, a 64-bit length, a mask.
pub const HEADER_MAX: usize = 14;
/// Bytes of a control frame's payload (RFC 6455 §5.5).
pub const CONTROL_MAX: usize = 125;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const CONTROL: u8 = 0x08;
const LEN_16: u8 = 126;
const LEN_64: u8 = 127;

/// What a frame is (RFC 6455 §5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Opcode {
    /// The next part of a fragmented message.
    Continuation = 0x0,
    /// UTF-8, or the first part of it.
    Text = 0x1,
    /// Any bytes, or the first part of them.
    Binary = 0x2,
    /// §5.5.1.
    Close = 0x8,
    /// §5.5.2.
    Ping = 0x9,
    /// §5.5.3.
    Pong = 0xa,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return None,
        })
    }

    /// Whether it may come between the fragments of a message, and may not be fragmented itself.
    pub const fn is_control(self) -> bool {
        self as u8 & CONTROL != 0
    }
}

/// Why a connection ends, as its close frame says (RFC 6455 §7.4.1 and the registry of §11.7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose was fulfilled.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The server goes down.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL: CloseCode = CloseCode(1002);
    /// A message whose bytes do not fit its type: text that is not UTF-8.
    pub const INVALID_DATA: CloseCode = CloseCode(1007);
    /// Not welcome, for no reason that another code expresses.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// A message beyond the limit.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// A fault of ours.
    pub const INTERNAL: CloseCode = CloseCode(1011);
    /// The server restarts: come back, after a random delay.
    pub const SERVICE_RESTART: CloseCode = CloseCode(1012);
    /// Overload: come back later.
    pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);

    /// Whether a peer may send it: defined for use in frames, or of the ranges for libraries and
    /// applications (RFC 6455 §7.4.2). 1004 to 1006 and 1015 never travel.
    pub const fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// What a peer did wrong: each is a sentence of RFC 6455. The connection is failed with
/// [`Fault::close_code`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// A reserved bit is set and no extension was negotiated (§5.2).
    ReservedBit,
    /// An opcode without meaning (§5.2).
    ReservedOpcode,
    /// A frame from a client that is not masked (§5.1).
    Unmasked,
    /// A length in more bytes than it needs, or with its top bit set (§5.2).
    Length,
    /// A control frame in fragments (§5.5).
    FragmentedControl,
    /// A control frame of more than 125 bytes (§5.5).
    LongControl,
    /// A continuation with nothing to continue (§5.4).
    UnexpectedContinuation,
    /// A new message before the last one was complete (§5.4).
    ExpectedContinuation,
    /// A close frame with one byte, or with a code that must not travel (§5.5.1, §7.4).
    CloseFrame,
    /// Text, or the reason in a close frame, that is not UTF-8 (§8.1).
    Utf8,
    /// A message beyond our limit.
    TooBig,
}

impl Fault {
    /// The code to close with.
    pub const fn close_code(self) -> CloseCode {
        match self {
            Fault::Utf8 => CloseCode::INVALID_DATA,
            Fault::TooBig => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL,
        }
    }

    /// The word for logs and for the reason in the close frame.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::ReservedBit => "reserved bit",
            Fault::ReservedOpcode => "reserved opcode",
            Fault::Unmasked => "unmasked frame",
            Fault::Length => "bad length",
            Fault::FragmentedControl => "fragmented control frame",
            Fault::LongControl => "long control frame",
            Fault::UnexpectedContinuation => "unexpected continuation",
            Fault::ExpectedContinuation => "expected continuation",
            Fault::CloseFrame => "bad close frame",
            Fault::Utf8 => "text is not UTF-8",
            Fault::TooBig => "message too big",
        }
    }
}

/// The outcome of reading something of which only a part may be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsing<T> {
    /// It is whole.
    Done(T),
    /// So far without fault, but not whole.
    NeedMore,
}

/// The header of a frame from the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Whether the message ends here.
    pub fin: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// To be applied to the payload.
    pub mask: [u8; 4],
    /// Bytes behind the header, below 2^63.
    pub payload_len: u64,
    /// Bytes of the header itself, 6 to 14.
    pub header_len: usize,
}

/// Reads the header at the front of `bytes`. A fault is found as soon as its byte is there.
pub fn decode_header(bytes: &[u8]) -> Result<Parsing<Header>, Fault> {
    let Some(&first) = bytes.first() else {
        return Ok(Parsing::NeedMore);
    };
    if first & RESERVED != 0 {
        return Err(Fault::ReservedBit);
    }
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(Fault::ReservedOpcode)?;
    let fin = first & FIN != 0;
    if opcode.is_control() && !fin {
        return Err(Fault::FragmentedControl);
    }
    let Some(&second) = bytes.get(1) else {
        return Ok(Parsing::NeedMore);
    };
    if second & MASKED == 0 {
        return Err(Fault::Unmasked);
    }
    let short_len = second & !MASKED;
    if opcode.is_control() && usize::from(short_len) > CONTROL_MAX {
        return Err(Fault::LongControl);
    }
    let Some((payload_len, len_end)) = payload_len(short_len, bytes)? else {
        return Ok(Parsing::NeedMore);
    };
    let Some(mask) = bytes[len_end..].first_chunk() else {
        return Ok(Parsing::NeedMore);
    };
    Ok(Parsing::Done(Header { fin, opcode, mask: *mask, payload_len, header_len: len_end + 4 }))
}

/// The payload's length and where its field ends; `None` when the field is not whole.
fn payload_len(short_len: u8, bytes: &[u8]) -> Result<Option<(u64, usize)>, Fault> {
    let (len, end, least) = match short_len {
        LEN_16 => match bytes[2..].first_chunk() {
            Some(field) => (u64::from(u16::from_be_bytes(*field)), 4, u64::from(LEN_16)),
            None => return Ok(None),
        },
        LEN_64 => match bytes[2..].first_chunk() {
            Some(field) => (u64::from_be_bytes(*field), 10, 1 << 16),
            None => return Ok(None),
        },
        len => (u64::from(len), 2, 0),
    };
    if len < least || len >> 63 != 0 {
        return Err(Fault::Length);
    }
    Ok(Some((len, end)))
}

/// The header of a frame of ours, ready to write.
#[derive(Clone, Copy, Debug)]
pub struct HeaderBytes {
    bytes: [u8; 10],
    len: u8,
}

impl HeaderBytes {
    /// The header of a whole, unmasked frame with so many bytes of payload.
    pub fn new(opcode: Opcode, payload_len: usize) -> HeaderBytes {
        let mut bytes = [0; 10];
        bytes[0] = FIN | opcode as u8;
        let len = match payload_len {
            0..126 => {
                bytes[1] = payload_len as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = LEN_16;
                bytes[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = LEN_64;
                bytes[2..].copy_from_slice(&(payload_len as u64).to_be_bytes());
                10
            }
        };
        HeaderBytes { bytes, len }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Appends one whole frame. Panics when a control frame's payload exceeds [`CONTROL_MAX`]: it is
/// ours.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    assert!(!opcode.is_control() || payload.len() <= CONTROL_MAX);
    out.extend_from_slice(HeaderBytes::new(opcode, payload.len()).as_bytes());
    out.extend_from_slice(payload);
}

/// Appends a message as one frame: text when `as_text` and when it is UTF-8, else binary (RFC 7118
/// §4.2: a browser fails the connection when text is not UTF-8, RFC 6455 §8.1).
pub fn write_message(out: &mut Vec<u8>, as_text: bool, payload: &[u8]) {
    let is_text = as_text && simdutf8::basic::from_utf8(payload).is_ok();
    write_frame(out, if is_text { Opcode::Text } else { Opcode::Binary }, payload);
}

/// Appends a close frame with a code and a reason of at most 123 bytes.
pub fn write_close(out: &mut Vec<u8>, code: CloseCode, reason: &str) {
    let [high, low] = code.0.to_be_bytes();
    out.extend_from_slice(HeaderBytes::new(Opcode::Close, 2 + reason.len()).as_bytes());
    assert!(2 + reason.len() <= CONTROL_MAX);
    out.extend_from_slice(&[high, low]);
    out.extend_from_slice(reason.as_bytes());
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ws::mask::unmask;

    /// A frame as a client writes it.
    pub fn client_frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut out = HeaderBytes::new(opcode, payload.len()).as_bytes().to_vec();
        out[0] = out[0] & !FIN | if fin { FIN } else { 0 };
        out[1] |= MASKED;
        out.extend_from_slice(&mask);
        let start = out.len();
        out.extend_from_slice(payload);
        unmask(mask, 0, &mut out[start..]);
        out
    }

    #[test]
    fn every_length_form_is_read_and_needs_all_its_bytes() {
        for len in [0, 1, 125, 126, 127, 0xffff, 0x1_0000] {
            let frame = client_frame(true, Opcode::Binary, &vec![0; len]);
            let Parsing::Done(header) = decode_header(&frame).unwrap() else { panic!() };
            assert_eq!(header.header_len + len, frame.len());
            assert_eq!(header.payload_len, len as u64);
            assert_eq!(header.mask, [0x37, 0xfa, 0x21, 0x3d]);
            assert!(header.fin && header.opcode == Opcode::Binary);
            for cut in 0..header.header_len {
                assert_eq!(decode_header(&frame[..cut]), Ok(Parsing::NeedMore));
            }
        }
    }

    #[test]
    fn every_first_byte_has_its_verdict() {
        for first in 0..=255_u8 {
            let expected = match (first & 0x70, first & 0x0f, first & 0x80) {
                (1.., _, _) => Err(Fault::ReservedBit),
                (0, 3..=7 | 11.., _) => Err(Fault::ReservedOpcode),
                (0, 8..=10, 0) => Err(Fault::FragmentedControl),
                _ => Ok(Parsing::NeedMore),
            };
            assert_eq!(decode_header(&[first]), expected, "{first:#x}");
        }
    }

    #[test]
    fn broken_headers_are_refused() {
        let cases: [(&[u8], Fault); 8] = [
            (&[0x81, 0x05], Fault::Unmasked),
            (&[0x89, 0x80 | 126], Fault::LongControl),
            (&[0x88, 0x80 | 127], Fault::LongControl),
            (&[0x81, 0x80 | 126, 0, 0], Fault::Length),
            (&[0x81, 0x80 | 126, 0, 125], Fault::Length),
            (&[0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Fault::Length),
            (&[0x81, 0x80 | 127, 0x80, 0, 0, 0, 0, 1, 0, 0], Fault::Length),
            (&[0x81, 0x80 | 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Fault::Length),
        ];
        for (bytes, fault) in cases {
            assert_eq!(decode_header(bytes), Err(fault), "{bytes:x?}");
            assert_eq!(fault.close_code(), CloseCode::PROTOCOL);
        }
        let largest = [&[0x82, 0xff, 0x7f][..], &[0xff; 7], &[0; 4]].concat();
        let Ok(Parsing::Done(header)) = decode_header(&largest) else { panic!() };
        assert_eq!(header.payload_len, u64::MAX >> 1);
    }

    #[test]
    fn our_frames_are_minimal_and_unmasked() {
        for (len, head) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (0xffff, &[0x82, 126, 0xff, 0xff]),
            (0x1_0000, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = vec![1, 2];
            write_frame(&mut out, Opcode::Binary, &vec![7; len]);
            assert_eq!(&out[2..2 + head.len()], head);
            assert_eq!(out[2 + head.len()..], vec![7; len]);
        }
    }

    #[test]
    fn a_message_is_text_only_when_asked_and_valid() {
        let cases: [(bool, &[u8], u8); 4] = [
            (true, b"caf\xc3\xa9", 0x81),
            (true, b"\xff", 0x82),
            (false, b"a", 0x82),
            (true, b"", 0x81),
        ];
        for (as_text, payload, first) in cases {
            let mut out = Vec::new();
            write_message(&mut out, as_text, payload);
            assert_eq!((out[0], &out[2..]), (first, payload));
        }
        let mut out = Vec::new();
        write_close(&mut out, CloseCode::SERVICE_RESTART, "restart");
        assert_eq!(out, b"\x88\x09\x03\xf4restart");
    }

    #[test]
    fn codes_that_must_not_travel_are_known() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            assert!(!CloseCode(code).is_sendable(), "{code}");
        }
        for code in [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999] {
            assert!(CloseCode(code).is_sendable(), "{code}");
        }
    }
}
