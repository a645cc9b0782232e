//! A scripted client on one flow of the lab, over any transport.

use std::net::SocketAddr;

use sipring::base::event::CloseReason;
use sipring::base::id::{FlowId, Transport};

use super::Lab;
use super::text::Sip;

/// One client: a flow, or for UDP an address.
#[derive(Clone, Copy, Debug)]
pub struct Phone {
    pub transport: Transport,
    pub remote: SocketAddr,
    /// The shard that gets its connection or datagrams.
    pub shard: u16,
    pub flow: Option<FlowId>,
}

impl Phone {
    /// Connects, and upgrades where the transport asks for it.
    pub fn connect(lab: &mut Lab, shard: u16, transport: Transport, remote: &str) -> Phone {
        let remote: SocketAddr = remote.parse().expect("an address");
        let flow = (transport != Transport::Udp).then(|| lab.connect(shard, transport, remote));
        let phone = Phone { transport, remote, shard, flow };
        phone.upgrade(lab);
        phone
    }

    /// The WebSocket upgrade on a fresh flow.
    pub fn upgrade(&self, lab: &mut Lab) {
        let Some(flow) = self.flow.filter(|_| self.transport.is_websocket()) else { return };
        lab.data(
            flow,
            b"GET / HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
Sec-WebSocket-Protocol: sip\r\n\r\n",
        );
        let answer = std::mem::take(&mut lab.wires.get_mut(&flow).expect("its wire").bytes);
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{:?}", String::from_utf8_lossy(&answer));
    }

    /// Sends one SIP message.
    pub fn send(&self, lab: &mut Lab, message: &str) {
        match self.flow {
            None => lab.datagram(self.shard, self.remote, message.as_bytes()),
            Some(flow) if self.transport.is_websocket() => {
                lab.data(flow, &masked_frame(0x1, message.as_bytes()));
            }
            Some(flow) => lab.data(flow, message.as_bytes()),
        }
    }

    /// Sends one SIP message of bytes, over WebSocket as a binary frame.
    pub fn send_bytes(&self, lab: &mut Lab, message: &[u8]) {
        match self.flow {
            None => lab.datagram(self.shard, self.remote, message),
            Some(flow) if self.transport.is_websocket() => {
                lab.data(flow, &masked_frame(0x2, message));
            }
            Some(flow) => lab.data(flow, message),
        }
    }

    /// The same peer, heard by another shard (datagrams only).
    pub fn at_shard(&self, shard: u16) -> Phone {
        assert!(self.flow.is_none(), "a connection stays with its shard");
        Phone { shard, ..*self }
    }

    /// Leaves: FIN, or whatever `why` says.
    pub fn leave(&self, lab: &mut Lab, why: CloseReason) {
        lab.close(self.flow.expect("a connection"), why);
    }

    /// Takes every SIP message that came, in order.
    pub fn take(&self, lab: &mut Lab) -> Vec<Sip> {
        let Some(flow) = self.flow else { return lab.datagrams_to(self.remote) };
        let bytes = std::mem::take(&mut lab.wires.get_mut(&flow).expect("its wire").bytes);
        if !self.transport.is_websocket() {
            return split_stream(&bytes);
        }
        let mut messages = Vec::new();
        for (opcode, payload) in frames(&bytes) {
            match opcode {
                0x1 | 0x2 => messages.push(Sip::read(&payload)),
                0x8 | 0xa => {}
                other => panic!("opcode {other}"),
            }
        }
        messages
    }

    /// Every SIP message that came, in order; they are not taken.
    pub fn peek(&self, lab: &mut Lab) -> Vec<Sip> {
        let flow = self.flow.expect("a connection");
        let bytes = lab.wires[&flow].bytes.clone();
        let all = self.take(lab);
        lab.wire(flow).bytes = bytes;
        all
    }

    /// Nothing came, not one byte.
    pub fn heard_nothing(&self, lab: &mut Lab) {
        match self.flow {
            Some(flow) => {
                let bytes = &lab.wires[&flow].bytes;
                assert!(bytes.is_empty(), "{self:?}: {}", String::from_utf8_lossy(bytes));
            }
            None => {
                let got = lab.datagrams_to(self.remote);
                assert!(got.is_empty(), "{self:?}: {got:#?}");
            }
        }
    }

    /// The one message that came, a response with that status.
    pub fn take_status(&self, lab: &mut Lab, status: u16) -> Sip {
        let answer = self.take_one(lab);
        assert_eq!(answer.status(), status, "{answer:#?}");
        answer
    }

    /// The one message that came, a request with that method.
    pub fn take_method(&self, lab: &mut Lab, method: &str) -> Sip {
        let request = self.take_one(lab);
        assert_eq!(request.method(), method, "{request:#?}");
        request
    }

    /// The one message that came.
    pub fn take_one(&self, lab: &mut Lab) -> Sip {
        let mut messages = self.take(lab);
        assert_eq!(messages.len(), 1, "one message for {self:?}: {messages:#?}");
        messages.remove(0)
    }

    /// The Via that this client writes.
    pub fn via(&self, branch: &str) -> String {
        let name = self.transport.via_name();
        if self.transport.is_websocket() {
            format!("Via: SIP/2.0/{name} df7jal23ls0d.invalid;branch=z9hG4bK{branch}")
        } else {
            format!("Via: SIP/2.0/{name} {};branch=z9hG4bK{branch};rport", self.remote)
        }
    }

    /// REGISTERs `user` with that Contact and expects 200.
    pub fn register(&self, lab: &mut Lab, user: &str, contact: &str) -> Sip {
        self.register_with(lab, user, contact, "path, outbound")
    }

    /// The same, with those option tags in Supported.
    pub fn register_with(&self, lab: &mut Lab, user: &str, contact: &str, supported: &str) -> Sip {
        let serial = lab.serial();
        let via = self.via(&format!("reg{serial}"));
        self.send(
            lab,
            &format!(
                "REGISTER sip:example.com SIP/2.0\r\n{via}\r\nMax-Forwards: 70\r\n\
To: <sip:{user}@example.com>\r\nFrom: <sip:{user}@example.com>;tag=r\r\nCall-ID: reg{serial}\r\n\
CSeq: 1 REGISTER\r\nContact: {contact}\r\nSupported: {supported}\r\nContent-Length: 0\r\n\r\n"
            ),
        );
        let answer = self.take_one(lab);
        assert_eq!(answer.status(), 200, "{answer:#?}");
        answer
    }
}

/// A client's frame (RFC 6455 §5.2), masked.
pub fn masked_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    frame
}

/// The server's frames in `bytes`: opcode and payload. Panics on anything but whole, unmasked,
/// final frames.
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[0] & 0xf0, 0x80, "final, no reserved bits");
        assert_eq!(bytes[1] & 0x80, 0, "servers do not mask");
        let (len, at) = match bytes[1] {
            126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
            127 => (u64::from_be_bytes(bytes[2..10].try_into().expect("eight")) as usize, 10),
            len => (usize::from(len), 2),
        };
        frames.push((bytes[0] & 0xf, bytes[at..at + len].to_vec()));
        bytes = &bytes[at + len..];
    }
    frames
}

/// The messages in a stream, by Content-Length.
fn split_stream(mut bytes: &[u8]) -> Vec<Sip> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        if let Some(rest) = bytes.strip_prefix(b"\r\n") {
            bytes = rest;
            continue;
        }
        let head =
            bytes.windows(4).position(|at| at == b"\r\n\r\n").expect("an end of headers") + 4;
        let length: usize = Sip::read(&bytes[..head])
            .header("Content-Length")
            .parse()
            .expect("a Content-Length on a stream");
        messages.push(Sip::read(&bytes[..head + length]));
        bytes = &bytes[head + length..];
    }
    messages
}
