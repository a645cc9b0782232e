//! One client: a connection, its TLS session and its place on the way TCP → TLS → WebSocket →
//! registered. It acts when the event loop says that its socket is ready, and never waits.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::sip::{self, Arrival, User};
use crate::ws::{self, Opcode};

/// Expiry that is asked for, in seconds: longer than any run.
const EXPIRES: u32 = 7200;

/// Frames are masked as the RFC wants it; nothing on loopback depends on the key being secret.
const MASK: [u8; 4] = [0x5a, 0xa5, 0x3c, 0xc3];

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for TCP, TLS and the answer to the WebSocket upgrade.
    Upgrading,
    /// It waits for the 200 to its REGISTER.
    Registering,
    /// It waits for nothing, and answers pings.
    Registered,
    /// The connection has ended.
    Closed,
}

/// One connection and its user.
pub struct Client {
    socket: TcpStream,
    tls: ClientConnection,
    user: User,
    state: State,
    input: Vec<u8>,
    pings: u64,
}

impl Client {
    /// A client on a socket that is connecting to `server`; the upgrade goes out as soon as TLS
    /// lets it.
    pub fn new(
        socket: TcpStream,
        server: SocketAddr,
        config: Arc<ClientConfig>,
        user: User,
    ) -> Result<Client> {
        let mut tls = ClientConnection::new(config, ServerName::from(server.ip()))?;
        let mut upgrade = Vec::new();
        ws::write_upgrade(&server.to_string(), &mut upgrade);
        tls.writer().write_all(&upgrade)?;
        Ok(Client { socket, tls, user, state: State::Upgrading, input: Vec::new(), pings: 0 })
    }

    /// The socket, to be registered with the poll.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// How far it has come.
    pub fn state(&self) -> State {
        self.state
    }

    /// Pings answered so far.
    pub fn pings(&self) -> u64 {
        self.pings
    }

    /// Reads and writes until the socket has no more to give or take. An error means that the peer,
    /// or the way to it, is broken; an ordinary end of the connection is the state
    /// [`State::Closed`].
    pub fn ready(&mut self) -> Result<()> {
        self.flush()?;
        while self.state != State::Closed {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => self.state = State::Closed,
                Ok(_) => self.received()?,
                Err(error) if would_wait(&error) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            self.flush()?;
        }
        self.trim();
        Ok(())
    }

    fn received(&mut self) -> Result<()> {
        let waiting = self.tls.process_new_packets()?.plaintext_bytes_to_read();
        let start = self.input.len();
        self.input.resize(start + waiting, 0);
        self.tls.reader().read_exact(&mut self.input[start..])?;
        let mut used = 0;
        while let Some(length) = self.unwrap_one(used)? {
            used += length;
        }
        self.input.drain(..used);
        Ok(())
    }

    /// Handles what is complete at `from` of the input: its length, or `None` when more must come
    /// first.
    fn unwrap_one(&mut self, from: usize) -> Result<Option<usize>> {
        if self.state == State::Upgrading {
            let Some(length) = ws::read_upgrade(&self.input[from..])? else { return Ok(None) };
            self.state = State::Registering;
            let register = self.user.register(1, EXPIRES);
            self.send(Opcode::Text, register.as_bytes())?;
            return Ok(Some(length));
        }
        let Some(frame) = ws::read_frame(&self.input[from..])? else { return Ok(None) };
        let length = frame.payload.end;
        let payload = self.input[from + frame.payload.start..from + length].to_vec();
        match frame.opcode {
            Opcode::Text | Opcode::Binary => self.message(&payload)?,
            Opcode::Ping => {
                self.pings += 1;
                self.send(Opcode::Pong, &payload)?;
            }
            Opcode::Pong => {}
            Opcode::Close => self.state = State::Closed,
        }
        Ok(Some(length))
    }

    fn message(&mut self, message: &[u8]) -> Result<()> {
        match (self.state, sip::look(message)) {
            (State::Registering, Arrival::Response(200)) => self.state = State::Registered,
            (State::Registering, Arrival::Response(100..200)) => {}
            (State::Registering, Arrival::Response(status)) => bail!("REGISTER: {status}"),
            (_, Arrival::Request) => bail!("a request came, and none was sent"),
            (_, Arrival::Response(_) | Arrival::Other) => {}
        }
        Ok(())
    }

    fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<()> {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        ws::write_frame(opcode, payload, MASK, &mut frame);
        let written = self.tls.writer().write(&frame)?;
        ensure!(written == frame.len(), "the peer does not read");
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if would_wait(&error) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Thousands of idle clients keep no buffers.
    fn trim(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 0 {
            self.input = Vec::new();
        }
    }
}

/// Whether a socket wants to be asked again when it is ready; a connecting one says so in its own
/// way.
fn would_wait(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}
