//! One TCP connection of the floor: what it speaks, whose it is, and what waits in it. It keeps no
//! buffers while nothing is under way.

use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use socket2::SockRef;

use crate::tls::Session;
use crate::ws;

/// What is spoken above TCP and TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// WebSocket that waits for its upgrade request.
    Upgrade,
    /// WebSocket.
    Frames,
    /// Messages one after the other (RFC 3261 §18.3).
    Stream,
}

/// A connection.
pub struct Connection {
    socket: OwnedFd,
    /// What it speaks.
    pub layer: Layer,
    /// TLS, if it has that.
    pub session: Option<Session>,
    /// Whose it is, once it has said so.
    pub number: Option<u32>,
    /// Plaintext of a message that is not whole yet.
    pub input: Vec<u8>,
    /// Plaintext that goes out with the end of the turn, or after the send before it.
    pub output: Vec<u8>,
    /// TLS records of the handshake, which go before it.
    pub sealed: Vec<u8>,
    /// Whether its receive is armed.
    pub is_receiving: bool,
    /// Whether the kernel has a send of it.
    pub is_sending: bool,
    /// Whether it is in the list of those that have something to send.
    pub is_dirty: bool,
    /// It ends once its output is sent.
    pub is_closing: bool,
    /// TLS has been closed in order.
    has_said_goodbye: bool,
    /// It has ended, and waits for the kernel to let go of it.
    pub is_gone: bool,
}

impl Connection {
    /// A connection that was accepted, not receiving yet.
    pub fn new(socket: OwnedFd, layer: Layer, session: Option<Session>) -> Connection {
        Connection {
            socket,
            layer,
            session,
            number: None,
            input: Vec::new(),
            output: Vec::new(),
            sealed: Vec::new(),
            is_receiving: false,
            is_sending: false,
            is_dirty: false,
            is_closing: false,
            has_said_goodbye: false,
            is_gone: false,
        }
    }

    /// Its descriptor.
    pub fn socket(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Makes its receive end.
    pub fn shut(&self) {
        // The peer may be gone already.
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Both);
    }

    /// Whether messages are framed by WebSocket.
    pub fn is_websocket(&self) -> bool {
        self.layer != Layer::Stream
    }

    /// Adds a message to the output.
    pub fn write(&mut self, parts: &[&[u8]]) {
        if self.is_websocket() {
            let length = parts.iter().map(|part| part.len()).sum();
            ws::write_header(ws::TEXT, length, &mut self.output);
        }
        parts.iter().for_each(|part| self.output.extend_from_slice(part));
    }

    /// Moves what waits into `flight`, sealed. False: the session is broken.
    pub fn fill(&mut self, flight: &mut Vec<u8>) -> bool {
        flight.append(&mut self.sealed);
        let is_last = self.is_closing && !self.has_said_goodbye;
        let Some(session) = &mut self.session else {
            flight.append(&mut self.output);
            return true;
        };
        if self.output.is_empty() && !is_last {
            return true;
        }
        self.has_said_goodbye |= is_last;
        let sealed = session.seal(&self.output, is_last, flight);
        self.output.clear();
        sealed.is_ok()
    }
}
