//! Bytes of streams as clients see them: the upgrade, frames and messages, cut where they end, by
//! code that shares nothing with the proxy's.

use sipring::base::id::Transport;

use crate::message::{find, value_of};

pub const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
Sec-WebSocket-Protocol: sip\r\n\r\n";

/// The same with a token, where browsers can show one, or where others do (RFC 6750 §2).
pub fn upgrade_with(token: &str, in_query: bool) -> Vec<u8> {
    let text = String::from_utf8_lossy(UPGRADE);
    let text = match in_query {
        true => text.replacen("GET / ", &format!("GET /?access_token={token} "), 1),
        false => text.replacen("Host: ", &format!("Authorization: Bearer {token}\r\nHost: "), 1),
    };
    text.into_bytes()
}

/// Something whole that a client read.
pub enum Heard {
    Upgraded,
    Message(Vec<u8>),
    /// With the payload that its answer has, too.
    Ping(Vec<u8>),
    /// A close frame, or something that is none of this.
    End,
}

/// What one connection's client has read.
pub struct Reader {
    websocket: bool,
    upgraded: bool,
    held: Vec<u8>,
}

impl Reader {
    pub fn new(transport: Transport) -> Reader {
        Reader { websocket: transport.is_websocket(), upgraded: false, held: Vec::new() }
    }

    /// Everything that is whole with these bytes.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<Heard> {
        self.held.extend_from_slice(bytes);
        let mut heard = Vec::new();
        while let Some((used, what)) = self.next() {
            self.held.drain(..used);
            heard.extend(what);
        }
        heard
    }

    fn next(&mut self) -> Option<(usize, Option<Heard>)> {
        let bytes = &self.held;
        if self.websocket && !self.upgraded {
            let end = find(bytes, b"\r\n\r\n")? + 4;
            self.upgraded = bytes.starts_with(b"HTTP/1.1 101 ");
            let heard = if self.upgraded { Heard::Upgraded } else { Heard::End };
            return Some((end, Some(heard)));
        }
        if self.websocket {
            let (opcode, start, end) = frame(bytes)?;
            let heard = match opcode {
                0x1 | 0x2 => Some(Heard::Message(bytes[start..end].to_vec())),
                0x9 => Some(Heard::Ping(bytes[start..end].to_vec())),
                0xa => None,
                _ => Some(Heard::End),
            };
            return Some((end, heard));
        }
        if bytes.starts_with(b"\r\n\r\n") {
            return Some((4, Some(Heard::Ping(Vec::new()))));
        }
        if bytes.starts_with(b"\r\n") {
            return Some((2, None));
        }
        let end = message_end(bytes)?;
        Some((end, Some(Heard::Message(bytes[..end].to_vec()))))
    }
}

/// The SIP message in one write of the proxy, if it is one.
pub fn written(transport: Transport, bytes: &[u8]) -> Option<&[u8]> {
    let message = if transport.is_websocket() && !bytes.starts_with(b"HTTP/") {
        let (opcode, start, end) = frame(bytes)?;
        matches!(opcode, 0x1 | 0x2).then(|| &bytes[start..end])?
    } else {
        bytes
    };
    find(message, b"SIP/2.0").map(|_| message)
}

/// A server's frame: opcode, where its payload starts and ends.
fn frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (len, start) = match second {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10),
        len => (usize::from(len), 2),
    };
    (bytes.len() >= start + len).then_some((first & 0xf, start, start + len))
}

fn message_end(bytes: &[u8]) -> Option<usize> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]);
    let length = text.split("\r\n").find_map(|line| value_of(line, "Content-Length"));
    let end = head + length.and_then(|it| it.parse::<usize>().ok()).unwrap_or(0);
    (bytes.len() >= end).then_some(end)
}
