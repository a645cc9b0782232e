//! From bytes to messages (RFC 6455 §5.4 to §5.6, §8.1): frames that arrive in pieces, messages
//! that arrive in frames, control frames in between. Absent on purpose: answers (the caller pongs
//! and closes) and deadlines.
//!
//! A whole message within the bytes given is unmasked in place and never copied. Anything less is
//! kept in one pooled block: first the payload of the message's complete fragments, then the frame
//! that is still incomplete, as it came.

use std::ops::{Deref, DerefMut};

use crate::base::buf::Pool;

use super::frame::{
    CONTROL_MAX, CloseCode, Fault, HEADER_MAX, Header, Opcode, Parsing, decode_header,
};
use super::mask::unmask;

/// What one peer sent. Idle it holds no memory but itself.
///
/// After a [`Fault`], and after [`Event::Close`], nothing more may be given to it (§5.5.1, §7.1.7):
/// release it.
#[derive(Default)]
pub struct Receiver {
    /// Payload of complete fragments, unmasked, then an incomplete frame, masked, header included.
    held: Vec<u8>,
    /// How much of `held` is payload of complete fragments.
    message_len: u32,
    /// Whether a fragmented message is under way, and whether it is text.
    message: Option<IsText>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct IsText(bool);

/// Millions of idle flows have one each.
const _: () = assert!(size_of::<Receiver>() == 32);
/// What may stand in a block beside a message's payload: its last header, and a control frame in
/// between.
pub(super) const OVERHEAD: usize = HEADER_MAX + HEADER_MAX + CONTROL_MAX;

/// One thing that the peer said.
#[derive(Debug)]
pub enum Event<'a> {
    /// A whole message; valid UTF-8 when it is text.
    Message {
        /// Whether it came as text.
        text: bool,
        /// What it says, at most the limit.
        payload: Payload<'a>,
    },
    /// To be answered by a pong with the same payload, at most 125 bytes.
    Ping(Payload<'a>),
    /// The answer to a ping of ours, or unasked for.
    Pong(Payload<'a>),
    /// The peer closes; to be answered by a close frame unless we sent one.
    Close {
        /// Why, if it said so.
        code: Option<CloseCode>,
    },
}

/// The bytes of an event: where they arrived, or in a block of the pool.
#[derive(Debug)]
pub enum Payload<'a> {
    /// Within the bytes that were given.
    Input(&'a mut [u8]),
    /// Collected; [`Payload::give_back`] when done.
    Pooled(Vec<u8>),
}

impl Payload<'_> {
    /// Returns the block, if it is one.
    pub fn give_back(self, pool: &mut Pool) {
        if let Payload::Pooled(block) = self {
            pool.put(block);
        }
    }
}

impl Deref for Payload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Payload::Input(bytes) => bytes,
            Payload::Pooled(block) => block,
        }
    }
}

impl DerefMut for Payload<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Payload::Input(bytes) => bytes,
            Payload::Pooled(block) => block,
        }
    }
}

impl Receiver {
    /// A receiver to which nothing was said yet.
    pub fn new() -> Receiver {
        Receiver::default()
    }

    /// The next event in `bytes`, which shrink to what was not looked at; call until `None`, then
    /// all was taken. A message may have `message_bytes_max` bytes; more is known from a header
    /// before any memory is taken.
    pub fn next<'a>(
        &mut self,
        pool: &mut Pool,
        message_bytes_max: usize,
        bytes: &mut &'a mut [u8],
    ) -> Result<Option<Event<'a>>, Fault> {
        let max = message_bytes_max.min(u32::MAX as usize - OVERHEAD);
        while !bytes.is_empty() {
            let event = if self.held.len() > self.message_len() {
                self.resume(pool, max, bytes)?
            } else {
                self.begin(pool, max, bytes)?
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Whether a message or frame has begun and not ended: its deadline runs.
    pub fn is_partial(&self) -> bool {
        self.message.is_some() || !self.held.is_empty()
    }

    /// Bytes of memory that are held for an unfinished message.
    pub fn held_bytes(&self) -> usize {
        self.held.capacity()
    }

    /// Forgets whatever was unfinished and returns its block. To be called when the flow goes.
    pub fn release(&mut self, pool: &mut Pool) {
        pool.put(std::mem::take(&mut self.held));
        *self = Receiver::default();
    }

    /// At the start of a frame.
    fn begin<'a>(
        &mut self,
        pool: &mut Pool,
        max: usize,
        bytes: &mut &'a mut [u8],
    ) -> Result<Option<Event<'a>>, Fault> {
        let header = match decode_header(bytes)? {
            Parsing::Done(header) => header,
            Parsing::NeedMore => return Ok(self.hold_all(pool, max, bytes)),
        };
        let payload_len = self.check(&header, max)?;
        if bytes.len() - header.header_len < payload_len {
            return Ok(self.hold_all(pool, max, bytes));
        }
        let frame = take(bytes, header.header_len + payload_len);
        let payload = &mut frame[header.header_len..];
        unmask(header.mask, 0, payload);
        match header.opcode {
            Opcode::Text | Opcode::Binary if header.fin => {
                let text = header.opcode == Opcode::Text;
                check_text(text, payload)?;
                Ok(Some(Event::Message { text, payload: Payload::Input(payload) }))
            }
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                self.hold(pool, max, payload);
                self.end_fragment(&header)
            }
            Opcode::Ping => Ok(Some(Event::Ping(Payload::Input(payload)))),
            Opcode::Pong => Ok(Some(Event::Pong(Payload::Input(payload)))),
            _ => Ok(Some(Event::Close { code: close_code(payload)? })),
        }
    }

    /// In the middle of a frame.
    fn resume<'a>(
        &mut self,
        pool: &mut Pool,
        max: usize,
        bytes: &mut &'a mut [u8],
    ) -> Result<Option<Event<'a>>, Fault> {
        let header = loop {
            match decode_header(&self.held[self.message_len()..])? {
                Parsing::Done(header) => break header,
                Parsing::NeedMore if bytes.is_empty() => return Ok(None),
                Parsing::NeedMore => self.hold(pool, max, take(bytes, 1)),
            }
        };
        let payload_len = self.check(&header, max)?;
        let end = self.message_len() + header.header_len + payload_len;
        let missing = end - self.held.len();
        let available = missing.min(bytes.len());
        self.hold(pool, max, take(bytes, available));
        if available < missing {
            return Ok(None);
        }
        let payload_start = end - payload_len;
        unmask(header.mask, 0, &mut self.held[payload_start..]);
        if header.opcode.is_control() {
            let event = match header.opcode {
                Opcode::Close => Event::Close { code: close_code(&self.held[payload_start..])? },
                opcode => {
                    let copy = Payload::Pooled(pool.copy(&self.held[payload_start..]));
                    if opcode == Opcode::Ping { Event::Ping(copy) } else { Event::Pong(copy) }
                }
            };
            self.held.truncate(self.message_len());
            if self.held.is_empty() {
                pool.put(std::mem::take(&mut self.held));
            }
            return Ok(Some(event));
        }
        self.held.drain(self.message_len()..payload_start);
        self.end_fragment(&header)
    }

    /// Whether this frame may come now, and how long its payload is.
    fn check(&self, header: &Header, max: usize) -> Result<usize, Fault> {
        if header.opcode.is_control() {
            return Ok(header.payload_len as usize);
        }
        match (header.opcode, self.message) {
            (Opcode::Continuation, None) => return Err(Fault::UnexpectedContinuation),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Fault::ExpectedContinuation),
            _ => {}
        }
        let room = max.saturating_sub(self.message_len());
        usize::try_from(header.payload_len).ok().filter(|len| *len <= room).ok_or(Fault::TooBig)
    }

    /// A data frame's payload now stands at the end of `held`.
    fn end_fragment<'a>(&mut self, header: &Header) -> Result<Option<Event<'a>>, Fault> {
        let IsText(text) = match self.message {
            Some(kind) => kind,
            None => IsText(header.opcode == Opcode::Text),
        };
        if !header.fin {
            self.message = Some(IsText(text));
            self.message_len = self.held.len() as u32;
            return Ok(None);
        }
        // What is refused stays held, so that its block is given back with the flow.
        check_text(text, &self.held)?;
        self.message = None;
        self.message_len = 0;
        let payload = Payload::Pooled(std::mem::take(&mut self.held));
        Ok(Some(Event::Message { text, payload }))
    }

    fn hold_all<'a>(
        &mut self,
        pool: &mut Pool,
        max: usize,
        bytes: &mut &'a mut [u8],
    ) -> Option<Event<'a>> {
        self.hold(pool, max, take(bytes, bytes.len()));
        None
    }

    fn hold(&mut self, pool: &mut Pool, max: usize, bytes: &[u8]) {
        pool.grow(&mut self.held, bytes.len(), max + OVERHEAD);
        self.held.extend_from_slice(bytes);
    }

    fn message_len(&self) -> usize {
        self.message_len as usize
    }
}

/// Cuts `len` bytes off the front.
fn take<'a>(bytes: &mut &'a mut [u8], len: usize) -> &'a mut [u8] {
    bytes.split_off_mut(..len).expect("the caller looked at the length")
}

/// RFC 6455 §5.6: text is UTF-8.
fn check_text(text: bool, payload: &[u8]) -> Result<(), Fault> {
    match text && simdutf8::basic::from_utf8(payload).is_err() {
        true => Err(Fault::Utf8),
        false => Ok(()),
    }
}

/// RFC 6455 §5.5.1: nothing, or a code and a reason in UTF-8.
fn close_code(payload: &[u8]) -> Result<Option<CloseCode>, Fault> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Fault::CloseFrame) };
    };
    let code = CloseCode(u16::from_be_bytes(*code));
    if !code.is_sendable() {
        return Err(Fault::CloseFrame);
    }
    std::str::from_utf8(reason).map_err(|_| Fault::Utf8)?;
    Ok(Some(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::frame::tests::client_frame;
    use crate::ws::fuzz::{Told, transcript};

    const MAX: usize = 1000;

    fn text(payload: &[u8]) -> Told {
        Told::Message { text: true, payload: payload.to_vec() }
    }

    fn binary(payload: &[u8]) -> Told {
        Told::Message { text: false, payload: payload.to_vec() }
    }

    /// Streams of frames and what they say: one row a case.
    fn samples() -> Vec<(Vec<Vec<u8>>, Vec<Told>)> {
        use Opcode::{Binary, Close, Continuation, Ping, Pong, Text};
        let frame = client_frame;
        let long = vec![b'x'; MAX];
        vec![
            (vec![frame(true, Text, b"REGISTER")], vec![text(b"REGISTER")]),
            (
                vec![
                    frame(true, Binary, b"\xff\0"),
                    frame(true, Text, b""),
                    frame(true, Text, b"a"),
                ],
                vec![binary(b"\xff\0"), text(b""), text(b"a")],
            ),
            (vec![frame(true, Text, &long)], vec![text(&long)]),
            (
                vec![
                    frame(false, Text, b"caf\xc3"),
                    frame(true, Ping, b"now"),
                    frame(false, Continuation, b""),
                    frame(true, Pong, &[7; CONTROL_MAX]),
                    frame(true, Continuation, b"\xa9!"),
                    frame(true, Binary, b"next"),
                ],
                vec![
                    Told::Ping(b"now".to_vec()),
                    Told::Pong(vec![7; CONTROL_MAX]),
                    text("café!".as_bytes()),
                    binary(b"next"),
                ],
            ),
            (
                vec![
                    frame(false, Binary, b""),
                    frame(true, Ping, b""),
                    frame(true, Continuation, b""),
                ],
                vec![Told::Ping(vec![]), binary(b"")],
            ),
            (
                vec![frame(false, Binary, &long[..400]), frame(true, Continuation, &long[400..])],
                vec![binary(&long)],
            ),
            (vec![frame(true, Close, b"")], vec![Told::Close(None)]),
            (
                vec![frame(true, Close, b"\x03\xe9bye"), frame(true, Text, b"late")],
                vec![Told::Close(Some(CloseCode::GOING_AWAY))],
            ),
            (
                vec![
                    frame(false, Text, b"a"),
                    frame(true, Continuation, b"b"),
                    frame(true, Continuation, b"c"),
                ],
                vec![text(b"ab"), Told::Fault(Fault::UnexpectedContinuation)],
            ),
        ]
    }

    /// Streams that end in a fault; a message before it is still told.
    fn faults() -> Vec<(Vec<Vec<u8>>, Fault)> {
        use Opcode::{Binary, Close, Continuation, Ping, Text};
        let frame = client_frame;
        let long = vec![b'x'; MAX];
        vec![
            (vec![frame(true, Continuation, b"a")], Fault::UnexpectedContinuation),
            (vec![frame(false, Text, b"a"), frame(true, Text, b"b")], Fault::ExpectedContinuation),
            (vec![frame(false, Text, b""), frame(false, Binary, b"")], Fault::ExpectedContinuation),
            (vec![frame(false, Ping, b"")], Fault::FragmentedControl),
            (vec![frame(true, Ping, &[0; 126])], Fault::LongControl),
            (vec![frame(true, Text, b"\xc3")], Fault::Utf8),
            (vec![frame(false, Text, b"\xc3"), frame(true, Continuation, b"\xc3")], Fault::Utf8),
            (vec![frame(true, Close, b"\x03")], Fault::CloseFrame),
            (vec![frame(true, Close, b"\x03\xed")], Fault::CloseFrame),
            (vec![frame(true, Close, b"\x03\xe8\xff")], Fault::Utf8),
            (vec![frame(true, Binary, &[&long[..], b"x"].concat())], Fault::TooBig),
            (vec![frame(false, Text, &long), frame(true, Continuation, b"x")], Fault::TooBig),
        ]
    }

    #[test]
    fn the_same_is_told_at_every_cut() {
        for (frames, expected) in samples() {
            let bytes = frames.concat();
            assert_eq!(transcript(&bytes, MAX, |_| usize::MAX), expected);
            for size in 1..bytes.len() {
                assert_eq!(transcript(&bytes, MAX, |_| size), expected, "pieces of {size}");
                let two = |at| if at == 0 { size } else { usize::MAX };
                assert_eq!(transcript(&bytes, MAX, two), expected, "cut at {size}");
            }
        }
    }

    #[test]
    fn a_truncated_stream_tells_no_more_than_its_whole_frames() {
        for (frames, expected) in samples() {
            let bytes = frames.concat();
            for cut in 0..bytes.len() {
                let told = transcript(&bytes[..cut], MAX, |_| usize::MAX);
                assert!(expected.starts_with(&told));
            }
        }
    }

    #[test]
    fn each_fault_is_found_at_every_cut() {
        for (frames, fault) in faults() {
            let bytes = [client_frame(true, Opcode::Text, b"before"), frames.concat()].concat();
            let expected = vec![text(b"before"), Told::Fault(fault)];
            for size in (1..40).chain([usize::MAX]) {
                assert_eq!(transcript(&bytes, MAX, |_| size), expected, "pieces of {size}");
            }
        }
        assert_eq!(Fault::Utf8.close_code(), CloseCode(1007));
        assert_eq!(Fault::TooBig.close_code(), CloseCode(1009));
        assert_eq!(Fault::ExpectedContinuation.close_code(), CloseCode(1002));
    }

    #[test]
    fn a_length_beyond_the_limit_takes_no_memory() {
        let mut pool = Pool::new();
        let mut receiver = Receiver::new();
        let mut header = [&[0x82, 0xff, 0x7f][..], &[0xff; 7], &[0; 4]].concat();
        let result = receiver.next(&mut pool, MAX, &mut header.as_mut_slice());
        assert_eq!(result.unwrap_err(), Fault::TooBig);
        assert_eq!((receiver.held_bytes(), pool.allocated()), (0, 0));
        // Nor does an announced length take more than what has arrived needs.
        let mut part = client_frame(true, Opcode::Binary, &[0; 100_000])[..50].to_vec();
        assert!(receiver.next(&mut pool, 1 << 20, &mut part.as_mut_slice()).unwrap().is_none());
        assert!(receiver.is_partial() && receiver.held_bytes() == 256);
        receiver.release(&mut pool);
        assert!(!receiver.is_partial() && pool.kept_bytes() == 256);
    }

    #[test]
    fn a_whole_message_is_told_where_it_arrived() {
        let mut pool = Pool::new();
        let mut receiver = Receiver::new();
        let mut bytes = client_frame(true, Opcode::Text, b"hello");
        let expected = bytes[6..].as_ptr();
        let mut rest = bytes.as_mut_slice();
        let event = receiver.next(&mut pool, MAX, &mut rest).unwrap();
        let Some(Event::Message { payload: Payload::Input(payload), .. }) = event else { panic!() };
        assert_eq!((payload.as_ptr(), &*payload), (expected, &b"hello"[..]));
        assert_eq!((rest.len(), pool.allocated(), receiver.held_bytes()), (0, 0, 0));
    }

    #[test]
    fn blocks_come_home() {
        let mut pool = Pool::new();
        let mut receiver = Receiver::new();
        for round in 0..50 {
            for (frames, _) in samples() {
                for piece in frames.concat().chunks_mut(11) {
                    let mut rest = piece;
                    while let Ok(Some(event)) = receiver.next(&mut pool, MAX, &mut rest) {
                        Told::event(event, &mut pool);
                    }
                }
                receiver.release(&mut pool);
            }
            assert!(round == 0 || pool.allocated() <= 4);
        }
    }
}
