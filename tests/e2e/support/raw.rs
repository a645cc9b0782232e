//! HTTP upgrades and WebSocket frames written by hand, for what a well-behaved client never sends.

use std::io::{ErrorKind, Read, Write};

use super::link::{Io, Transport, connect_tcp};
use super::phone::{From, PHONES};
use super::server::Server;
use super::{certificates, sip};

/// A connection whose every byte the test chooses.
pub struct Raw {
    io: Io,
    pending: Vec<u8>,
}

/// One frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// First byte: FIN, reserved bits, opcode.
    pub head: u8,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Raw {
    /// Connects to the WS or WSS listener.
    pub fn connect(transport: Transport, server: &Server) -> Raw {
        let local = From::host(PHONES).local;
        let tcp = connect_tcp(local, server.address(transport), false).expect("connect");
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let tls = transport.is_secure().then(|| certificates::client(&versions));
        Raw { io: Io::connect(tcp, tls).expect("handshake"), pending: Vec::new() }
    }

    /// Connects and upgrades.
    pub fn upgraded(transport: Transport, server: &Server) -> Raw {
        let mut raw = Raw::connect(transport, server);
        raw.write(upgrade("/", &[]).as_bytes());
        let (status, head, _) = raw.http_response();
        assert_eq!(status, 101, "{head}");
        raw
    }

    /// Writes bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).and_then(|()| self.io.flush()).expect("write");
    }

    /// Writes bytes; a peer that closed already is no fault.
    pub fn try_write(&mut self, bytes: &[u8]) {
        let _ = self.io.write_all(bytes).and_then(|()| self.io.flush());
    }

    /// Reads an HTTP response: status, header section, body by Content-Length.
    #[track_caller]
    pub fn http_response(&mut self) -> (u16, String, String) {
        let end = loop {
            if let Some(end) = sip::find(&self.pending, b"\r\n\r\n") {
                break end;
            }
            assert!(
                self.read_more(),
                "no HTTP response: {:?}",
                String::from_utf8_lossy(&self.pending)
            );
        };
        let head = String::from_utf8(self.pending.drain(..end + 4).collect()).expect("ASCII");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("status");
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, length)| length.trim().parse().expect("length"));
        while self.pending.len() < length {
            assert!(self.read_more(), "body of {head}");
        }
        let body = self.pending.drain(..length).collect();
        (status, head, String::from_utf8(body).expect("UTF-8"))
    }

    /// Reads one frame; `None` at the end of the connection.
    pub fn frame(&mut self) -> Option<RawFrame> {
        loop {
            if let Some(frame) = take_frame(&mut self.pending) {
                return Some(frame);
            }
            if !self.read_more() {
                return None;
            }
        }
    }

    /// The next frame must be a close with that code, and then the connection ends.
    #[track_caller]
    pub fn closed(&mut self, code: u16) {
        let frame = self.frame().unwrap_or_else(|| panic!("a close frame with {code}"));
        assert_eq!(frame.head, 0x88, "a close frame: {frame:?}");
        let given = frame.payload.get(..2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        assert_eq!(given, Some(code), "{frame:?}");
        self.ended();
    }

    /// The server closes the connection without more bytes.
    #[track_caller]
    pub fn ended(&mut self) {
        let more = self.frame();
        assert!(more.is_none() && self.pending.is_empty(), "{more:?} {:?}", self.pending);
    }

    /// The server closes the connection, whatever it says before.
    pub fn closes(&mut self) {
        while self.read_more() {}
    }

    /// False at the end of the connection. Panics when nothing comes at all.
    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 16384];
        match self.io.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                self.pending.extend_from_slice(&buffer[..length]);
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the server neither answers nor closes")
            }
            Err(_) => false,
        }
    }
}

fn take_frame(pending: &mut Vec<u8>) -> Option<RawFrame> {
    let (&head, &second) = (pending.first()?, pending.get(1)?);
    assert_eq!(second & 0x80, 0, "a server never masks (RFC 6455 §5.1)");
    let (length, start) = match second {
        126 => (usize::from(u16::from_be_bytes(pending.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(pending.get(2..10)?.try_into().ok()?) as usize, 10),
        short => (usize::from(short), 2),
    };
    if pending.len() < start + length {
        return None;
    }
    let payload = pending[start..start + length].to_vec();
    pending.drain(..start + length);
    Some(RawFrame { head, payload })
}

/// An upgrade request with everything that RFC 6455 §4.1 and RFC 7118 §4 demand. `changes` replace
/// header fields by name; an empty value removes one.
pub fn upgrade(path: &str, changes: &[(&str, &str)]) -> String {
    let mut headers = vec![
        ("Host", "edge.example.com:443"),
        ("Upgrade", "websocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Protocol", "sip"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
    ];
    for (name, value) in changes {
        headers.retain(|(known, _)| known != name);
        if !value.is_empty() {
            headers.push((name, value));
        }
    }
    let lines: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\n{lines}\r\n")
}

/// A masked frame as a client sends it.
pub fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![head];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    out
}
