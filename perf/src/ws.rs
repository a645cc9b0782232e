//! WebSocket from the client's side (RFC 6455): the upgrade request and its answer, masked frames
//! out, unmasked frames in. Fragments are absent: the program under test sends one frame a message.

use anyhow::{Result, bail, ensure};

/// Sec-WebSocket-Key of every client, and the Sec-WebSocket-Accept that must answer it (RFC 6455
/// §4.2.2).
const KEY: &str = "c2lwcmluZy1sb2FkLWdlbg==";
const ACCEPT: &str = "Ye6wAad3ffrWrH0lweJ50qpMMDM=";

/// Longest payload that is read; more is an error.
const PAYLOAD_MAX: usize = 128 * 1024;

/// Longest answer to an upgrade.
const UPGRADE_MAX: usize = 8 * 1024;

/// What a frame is (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A SIP message as text.
    Text,
    /// A SIP message as bytes.
    Binary,
    /// The peer closes.
    Close,
    /// To be answered by a pong with the same payload.
    Ping,
    /// The answer to a ping.
    Pong,
}

impl Opcode {
    const ALL: [(u8, Opcode); 5] = [
        (0x1, Opcode::Text),
        (0x2, Opcode::Binary),
        (0x8, Opcode::Close),
        (0x9, Opcode::Ping),
        (0xa, Opcode::Pong),
    ];

    fn code(self) -> u8 {
        Opcode::ALL.iter().find(|(_, opcode)| *opcode == self).map_or(0, |(code, _)| *code)
    }
}

/// A frame at the front of the input.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub opcode: Opcode,
    /// Where its payload lies.
    pub payload: std::ops::Range<usize>,
}

/// Writes the upgrade request; the number of the user is in its query, for servers that want it.
pub fn write_upgrade(host: &str, number: u32, out: &mut Vec<u8>) {
    let request = format!(
        "GET /?u{number:07} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Origin: https://{host}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Protocol: sip\r\n\r\n"
    );
    out.extend_from_slice(request.as_bytes());
}

/// Reads the answer to the upgrade: its length once it is complete, or an error unless it is a good
/// 101.
pub fn read_upgrade(input: &[u8]) -> Result<Option<usize>> {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
        ensure!(input.len() <= UPGRADE_MAX, "upgrade: the answer does not end");
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&input[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1.1 101 "), "upgrade: {status}");
    let has = |name: &str, value: &str| {
        lines.clone().filter_map(|line| line.split_once(':')).any(|(found, text)| {
            found.eq_ignore_ascii_case(name) && text.trim().eq_ignore_ascii_case(value)
        })
    };
    ensure!(has("Sec-WebSocket-Accept", ACCEPT), "upgrade: wrong Sec-WebSocket-Accept");
    ensure!(has("Sec-WebSocket-Protocol", "sip"), "upgrade: the sip subprotocol is not echoed");
    Ok(Some(end + 4))
}

/// Writes one masked frame.
pub fn write_frame(opcode: Opcode, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    const MASKED: u8 = 0x80;
    out.push(0x80 | opcode.code());
    match payload.len() {
        length @ 0..126 => out.push(MASKED | length as u8),
        length @ 126..0x1_0000 => {
            out.push(MASKED | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    let half = u64::from(u32::from_ne_bytes(mask));
    let key = half << 32 | half;
    let (words, rest) = out[start..].as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ key).to_ne_bytes();
    }
    rest.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
}

/// The frame at the front of `input`, or `None` while it is incomplete.
pub fn read_frame(input: &[u8]) -> Result<Option<Frame>> {
    let [first, second, ..] = *input else { return Ok(None) };
    let Some(&(_, opcode)) = Opcode::ALL.iter().find(|(code, _)| 0x80 | code == first) else {
        bail!("frame: first byte {first:#04x}");
    };
    let (length, at) = match second {
        length @ 0..126 => (usize::from(length), 2),
        126 => {
            let Some(bytes) = input.get(2..4) else { return Ok(None) };
            (usize::from(u16::from_be_bytes([bytes[0], bytes[1]])), 4)
        }
        127 => {
            let Some(bytes) = input.get(2..10) else { return Ok(None) };
            let length = bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
            (usize::try_from(length)?, 10)
        }
        _ => bail!("frame: masked by the server"),
    };
    ensure!(length <= PAYLOAD_MAX, "frame: {length} bytes");
    if input.len() < at + length {
        return Ok(None);
    }
    Ok(Some(Frame { opcode, payload: at..at + length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as a server sends it: unmasked.
    fn server_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut masked = Vec::new();
        write_frame(opcode, payload, [0; 4], &mut masked);
        let header = masked.len() - payload.len() - 4;
        let mut bytes = [&masked[..header], payload].concat();
        bytes[1] &= 0x7f;
        bytes
    }

    #[test]
    fn frames_of_every_length_form_are_read_back() {
        for length in [0, 1, 125, 126, 0xffff, 0x1_0000] {
            let payload = vec![b'x'; length];
            let bytes = server_frame(Opcode::Binary, &payload);
            let frame = read_frame(&bytes).unwrap().unwrap();
            assert_eq!(frame.opcode, Opcode::Binary);
            assert_eq!(frame.payload, bytes.len() - length..bytes.len());
        }
    }

    #[test]
    fn every_truncation_of_a_frame_waits_for_more() {
        for payload in [&b"hello"[..], &[b'x'; 300]] {
            let bytes = server_frame(Opcode::Text, payload);
            for end in 0..bytes.len() {
                assert_eq!(read_frame(&bytes[..end]).unwrap(), None);
            }
        }
    }

    #[test]
    fn payload_is_masked() {
        let mut bytes = Vec::new();
        write_frame(Opcode::Pong, b"abcde", [1, 2, 3, 4], &mut bytes);
        assert_eq!(bytes[..6], [0x8a, 0x85, 1, 2, 3, 4]);
        assert_eq!(bytes[6..], [b'a' ^ 1, b'b' ^ 2, b'c' ^ 3, b'd' ^ 4, b'e' ^ 1]);
    }

    #[test]
    fn what_a_server_must_not_send_is_refused() {
        for bytes in [&[0x82, 0x81, 0, 0, 0, 0, 0][..], &[0x02, 0], &[0xc1, 0], &[0x83, 0]] {
            assert!(read_frame(bytes).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn an_upgrade_needs_accept_and_subprotocol() {
        let good = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
             sec-websocket-accept: {ACCEPT}\r\nSec-WebSocket-Protocol: sip\r\n\r\n"
        );
        assert_eq!(read_upgrade(good.as_bytes()).unwrap(), Some(good.len()));
        for end in 0..good.len() {
            assert_eq!(read_upgrade(&good.as_bytes()[..end]).unwrap(), None);
        }
        assert!(read_upgrade(good.replace("sip", "other").as_bytes()).is_err());
        assert!(read_upgrade(good.replace(ACCEPT, "AAAA").as_bytes()).is_err());
        assert!(read_upgrade(b"HTTP/1.1 404 Not Found\r\n\r\n").is_err());
    }
}
