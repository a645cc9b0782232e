//! One client's connection: the socket, its TLS session, and what of a message or a record has come
//! so far. It moves bytes; what they mean is for others. Absent: waiting of any kind.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use anyhow::{Result, ensure};
use rustls::ClientConfig;
use socket2::{Domain, Protocol, Socket, Type};

use crate::tls::Session;

/// Bytes that may wait for a server that does not read.
const UNSENT_MAX: usize = 4 * 1024 * 1024;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for TCP.
    Connecting,
    /// It waits for TLS.
    Securing,
    /// It waits for the answer to the WebSocket upgrade.
    Upgrading,
    /// SIP may be spoken.
    Open,
}

/// What one read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Bytes; there may be more.
    Some,
    /// Bytes, and no more for the time being.
    Last,
    /// Nothing for the time being.
    Nothing,
    /// The peer has ended the connection.
    End,
}

/// Buffers that all connections of a thread share.
#[derive(Default)]
pub struct Scratch {
    /// What a read fills.
    pub input: Vec<u8>,
    /// What a write sends.
    pub output: Vec<u8>,
}

/// A connection.
pub struct Stream {
    socket: TcpStream,
    tls: Option<Session>,
    /// How far it has come.
    pub state: State,
    /// The beginning of a TLS record.
    sealed: Vec<u8>,
    /// The beginning of a frame or a message.
    pub rest: Vec<u8>,
    unsent: Vec<u8>,
}

/// Bytes that a socket took or gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes read.
    pub received: u64,
    /// Bytes written.
    pub sent: u64,
}

impl Stream {
    /// A connection under way from `source` (any address: port 0). `receive_buffer`: bytes that the
    /// kernel may hold for it, when that shall be few.
    pub fn connect(
        server: SocketAddr,
        source: Option<SocketAddr>,
        tls: Option<&Arc<ClientConfig>>,
        receive_buffer: Option<usize>,
    ) -> Result<Stream> {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(source) = source {
            socket.bind(&source.into())?;
        }
        match socket.connect(&server.into()) {
            Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(error.into()),
            _ => {}
        }
        let tls = tls.map(|config| Session::new(config.clone(), server.ip())).transpose()?;
        Ok(Stream {
            socket: socket.into(),
            tls,
            state: State::Connecting,
            sealed: Vec::new(),
            rest: Vec::new(),
            unsent: Vec::new(),
        })
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether its TLS session was resumed.
    pub fn is_resumed(&self) -> bool {
        self.tls.as_ref().is_some_and(Session::is_resumed)
    }

    /// Goes on after TCP is there: the first record of TLS is sent. True: there is no TLS to wait
    /// for.
    pub fn connected(&mut self, scratch: &mut Scratch, traffic: &mut Traffic) -> Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error.into());
        }
        let Some(tls) = &mut self.tls else { return Ok(true) };
        self.state = State::Securing;
        scratch.output.clear();
        tls.take_in(&mut [], &mut Vec::new(), &mut scratch.output)?;
        self.write(&scratch.output, traffic)?;
        Ok(false)
    }

    /// Whether TLS is there, or is not wanted.
    pub fn is_secured(&self) -> bool {
        self.tls.as_ref().is_none_or(Session::is_open)
    }

    /// Reads once, and adds what came to `plain`.
    pub fn read(
        &mut self,
        plain: &mut Vec<u8>,
        scratch: &mut Scratch,
        traffic: &mut Traffic,
    ) -> Result<Taken> {
        let kept = self.sealed.len();
        scratch.input[..kept].copy_from_slice(&self.sealed);
        let space = scratch.input.len() - kept;
        let count = match self.socket.read(&mut scratch.input[kept..]) {
            Ok(0) => return Ok(Taken::End),
            Ok(count) => count,
            Err(error) if would_wait(&error) => return Ok(Taken::Nothing),
            Err(error) => return Err(error.into()),
        };
        traffic.received += count as u64;
        let input = &mut scratch.input[..kept + count];
        let taken = if count < space { Taken::Last } else { Taken::Some };
        let Some(tls) = &mut self.tls else {
            plain.extend_from_slice(input);
            return Ok(taken);
        };
        scratch.output.clear();
        let (used, is_ended) = tls.take_in(input, plain, &mut scratch.output)?;
        keep(&mut self.sealed, &input[used..]);
        self.write(&scratch.output, traffic)?;
        Ok(if is_ended { Taken::End } else { taken })
    }

    /// Sends `plain`, sealed where TLS wants it.
    pub fn send(
        &mut self,
        plain: &[u8],
        scratch: &mut Scratch,
        traffic: &mut Traffic,
    ) -> Result<()> {
        let Some(tls) = &mut self.tls else { return self.write(plain, traffic) };
        scratch.output.clear();
        tls.seal(plain, &mut scratch.output)?;
        self.write(&scratch.output, traffic)
    }

    /// Sends what the socket did not take before.
    pub fn resume(&mut self, traffic: &mut Traffic) -> Result<()> {
        let unsent = std::mem::take(&mut self.unsent);
        self.write(&unsent, traffic)
    }

    fn write(&mut self, mut bytes: &[u8], traffic: &mut Traffic) -> Result<()> {
        while !bytes.is_empty() && self.unsent.is_empty() {
            match self.socket.write(bytes) {
                Ok(count) => {
                    traffic.sent += count as u64;
                    bytes = &bytes[count..];
                }
                Err(error) if would_wait(&error) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.unsent.extend_from_slice(bytes);
        ensure!(self.unsent.len() <= UNSENT_MAX, "the server does not read");
        Ok(())
    }
}

/// Leaves `bytes` in `buffer`, and no memory when there are none.
pub fn keep(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.clear();
    match bytes {
        [] if buffer.capacity() > 0 => *buffer = Vec::new(),
        _ => buffer.extend_from_slice(bytes),
    }
}

/// Whether a socket wants to be asked again when it is ready; a connecting one says so in its own
/// way.
pub fn would_wait(error: &io::Error) -> bool {
    use ErrorKind::{Interrupted, NotConnected, WouldBlock};
    matches!(error.kind(), WouldBlock | NotConnected | Interrupted)
}

/// `connect(2)` on a non-blocking socket: under way.
const EINPROGRESS: i32 = 115;
