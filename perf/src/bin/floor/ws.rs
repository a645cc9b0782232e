//! WebSocket as the floor needs it (RFC 6455): the answer to an upgrade, the header of a frame that
//! comes masked, the header of one that goes. Absent on purpose: fragments, which the load does not
//! send, and every judgement about the upgrade but its key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::{memchr, memmem};
use sha1::{Digest, Sha1};

use crate::text;

/// What a frame is, among those that the floor knows.
pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;

/// A frame at the front of the input, whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    /// Where its payload begins and ends; it is masked by `key`.
    pub start: usize,
    pub end: usize,
    pub key: [u8; 4],
}

/// What the input begins with.
#[derive(Debug, PartialEq, Eq)]
pub enum Front {
    /// A whole frame.
    Frame(Frame),
    /// A part of one.
    Incomplete,
    /// Nothing that the load sends: fragments, unmasked or too long.
    Foreign,
}

/// Looks at the front of the input.
pub fn front(input: &[u8]) -> Front {
    const LAST: u8 = 0x80;
    const MASKED: u8 = 0x80;
    let &[first, second, ref rest @ ..] = input else { return Front::Incomplete };
    let (length, header) = match second.wrapping_sub(MASKED) {
        short @ 0..=125 => (usize::from(short), 2),
        126 if rest.len() >= 2 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), 4),
        127 if rest.len() >= 8 => match rest[..8] {
            [0, 0, 0, 0, 0, high, middle, low] => {
                (usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low), 10)
            }
            _ => return Front::Foreign,
        },
        126 | 127 => return Front::Incomplete,
        _ => return Front::Foreign,
    };
    if first & LAST == 0 || length > text::MESSAGE_MAX {
        return Front::Foreign;
    }
    let (start, end) = (header + 4, header + 4 + length);
    match input.get(header..start) {
        Some(&[a, b, c, d]) if input.len() >= end => {
            Front::Frame(Frame { opcode: first & 0x0f, start, end, key: [a, b, c, d] })
        }
        _ => Front::Incomplete,
    }
}

/// Takes the mask off, eight bytes at a time.
pub fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    rest.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
}

/// Appends the header of an unmasked frame.
pub fn write_header(opcode: u8, length: usize, out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match length {
        0..126 => out.push(length as u8),
        126..0x1_0000 => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// An upgrade request at the front of the input.
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade<'a> {
    /// Its bytes.
    pub length: usize,
    /// The number of the user, if its target names one.
    pub number: Option<u32>,
    key: &'a [u8],
}

/// Looks for an upgrade request: `None` while it is incomplete, an error when it has no key.
pub fn upgrade(input: &[u8]) -> Result<Option<Upgrade<'_>>, NoUpgrade> {
    const KEY: &[u8] = b"\r\nsec-websocket-key:";
    let Some(end) = memmem::find(input, b"\r\n\r\n") else { return Ok(None) };
    let head = &input[..end + 2];
    let at = head
        .windows(KEY.len())
        .position(|window| window.eq_ignore_ascii_case(KEY))
        .ok_or(NoUpgrade)?;
    let value = &head[at + KEY.len()..];
    let key = value[..memchr(b'\r', value).ok_or(NoUpgrade)?].trim_ascii();
    let line = &head[..memchr(b'\r', head).ok_or(NoUpgrade)?];
    let number = line.windows(8).find_map(text::number);
    Ok(Some(Upgrade { length: end + 4, number, key }))
}

/// An HTTP request that asks for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoUpgrade;

/// Appends the answer to an upgrade.
pub fn accept(upgrade: &Upgrade<'_>, out: &mut Vec<u8>) {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = Sha1::new().chain_update(upgrade.key).chain_update(GUID).finalize();
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(STANDARD.encode(digest).as_bytes());
    out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: sip\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let request = b"GET /u0000042 HTTP/1.1\r\nHost: a\r\n\
            SEC-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nrest";
        let found = upgrade(request).unwrap().unwrap();
        assert_eq!((found.length, found.number), (request.len() - 4, Some(42)));
        let mut out = Vec::new();
        accept(&found, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{text}");
        for end in 0..request.len() - 4 {
            assert_eq!(upgrade(&request[..end]), Ok(None));
        }
        assert_eq!(upgrade(b"GET / HTTP/1.1\r\n\r\n"), Err(NoUpgrade));
    }

    #[test]
    fn frames_of_every_length_form_are_read_and_unmasked() {
        for length in [0, 1, 125, 126, 0xffff, 0x1_0000] {
            let mut bytes = Vec::new();
            write_header(TEXT, length, &mut bytes);
            bytes[1] |= 0x80;
            bytes.extend([1, 2, 3, 4]);
            bytes.extend((0..length).map(|at| b'x' ^ [1, 2, 3, 4][at % 4]));
            let Front::Frame(frame) = front(&bytes) else { panic!("{length}") };
            assert_eq!((frame.opcode, frame.end), (TEXT, bytes.len()));
            for end in [0, 1, 2, frame.start.min(bytes.len() - 1), bytes.len() - 1] {
                assert_eq!(front(&bytes[..end]), Front::Incomplete, "{length} {end}");
            }
            let payload = &mut bytes[frame.start..];
            unmask(payload, frame.key);
            assert!(payload.iter().all(|byte| *byte == b'x'));
        }
    }

    #[test]
    fn fragments_and_unmasked_frames_are_foreign() {
        for bytes in
            [&[0x01, 0x80, 0, 0, 0, 0][..], &[0x81, 0x00], &[0x81, 0xff, 1, 0, 0, 0, 0, 0, 0, 0]]
        {
            assert_eq!(front(bytes), Front::Foreign, "{bytes:x?}");
        }
    }
}
