//! One connection or datagram socket of a test client: bytes in and out with a deadline, WebSocket
//! by tungstenite, TLS by rustls. It reads only when asked, so that a client that nobody asks is a
//! client that hangs.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use socket2::{Domain, SockRef, Socket, Type};
use tungstenite::{ClientRequestBuilder, Error, WebSocket};

use super::sip::{Frame, Message};

/// How a client talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
    Ws,
    Wss,
}

impl Transport {
    pub const ALL: [Transport; 5] =
        [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];

    /// As in a Via.
    pub fn via(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
            Transport::Ws => "WS",
            Transport::Wss => "WSS",
        }
    }

    /// As in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Ws => "ws",
            Transport::Wss => "wss",
        }
    }

    /// As in a URI (RFC 7118 knows `ws` for both).
    pub fn uri(self) -> &'static str {
        if self == Transport::Wss { "ws" } else { self.name() }
    }

    pub fn is_secure(self) -> bool {
        matches!(self, Transport::Tls | Transport::Wss)
    }

    pub fn is_web(self) -> bool {
        matches!(self, Transport::Ws | Transport::Wss)
    }
}

/// What came.
#[derive(Debug)]
pub enum Incoming {
    /// A SIP message.
    Message(Message),
    /// CRLF.
    KeepAlive,
    /// The end of the connection, or a WebSocket close frame.
    Closed,
}

/// A byte stream, perhaps encrypted.
pub enum Io {
    Plain(TcpStream),
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Io {
    /// The socket below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Io::Plain(tcp) => tcp,
            Io::Client(tls) => &tls.sock,
            Io::Server(tls) => &tls.sock,
        }
    }

    /// A connected stream with the TLS handshake done, if there is to be one. The certificate must
    /// be good for the server's address.
    pub fn connect(tcp: TcpStream, tls: Option<Arc<ClientConfig>>) -> io::Result<Io> {
        let Some(config) = tls else { return Ok(Io::Plain(tcp)) };
        let name = ServerName::from(tcp.peer_addr()?.ip());
        let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut tcp = tcp;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        Ok(Io::Client(Box::new(StreamOwned::new(connection, tcp))))
    }

    /// The server's side of an accepted connection.
    pub fn accepted(tcp: TcpStream, tls: Option<Arc<ServerConfig>>) -> Io {
        match tls {
            None => Io::Plain(tcp),
            Some(config) => {
                let connection = ServerConnection::new(config).expect("server connection");
                Io::Server(Box::new(StreamOwned::new(connection, tcp)))
            }
        }
    }
}

impl Read for Io {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Io::Plain(tcp) => tcp.read(buffer),
            Io::Client(tls) => tls.read(buffer),
            Io::Server(tls) => tls.read(buffer),
        }
    }
}

impl Write for Io {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Io::Plain(tcp) => tcp.write(bytes),
            Io::Client(tls) => tls.write(bytes),
            Io::Server(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Io::Plain(tcp) => tcp.flush(),
            Io::Client(tls) => tls.flush(),
            Io::Server(tls) => tls.flush(),
        }
    }
}

/// A TCP connection from `local` (port 0: any; a port in use by a dead connection may be used
/// again).
pub fn connect_tcp(local: SocketAddr, remote: SocketAddr, slow: bool) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(remote), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if slow {
        socket.set_recv_buffer_size(4096)?;
        socket.set_tcp_mss(536)?;
    }
    socket.bind(&local.into())?;
    socket.connect_timeout(&remote.into(), Duration::from_secs(5))?;
    let tcp: TcpStream = socket.into();
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    tcp.set_write_timeout(Some(Duration::from_secs(10)))?;
    Ok(tcp)
}

/// One way to the proxy.
pub enum Link {
    Udp { socket: UdpSocket, peer: SocketAddr },
    Stream { io: Io, pending: Vec<u8> },
    Web(Box<WebSocket<Io>>),
}

impl Link {
    /// A link over an open byte stream.
    pub fn stream(io: Io) -> Link {
        Link::Stream { io, pending: Vec::new() }
    }

    /// A WebSocket over an open byte stream: the upgrade, with subprotocol `sip`, which tungstenite
    /// insists to see again in the answer.
    pub fn upgrade(io: Io, path: &str, origin: Option<&str>) -> Link {
        let remote = io.tcp().peer_addr().expect("peer");
        let scheme = if matches!(io, Io::Plain(_)) { "ws" } else { "wss" };
        let uri = format!("{scheme}://{remote}{path}").parse().expect("URI");
        let mut request = ClientRequestBuilder::new(uri).with_sub_protocol("sip");
        if let Some(origin) = origin {
            request = request.with_header("Origin", origin);
        }
        match tungstenite::client(request, io) {
            Ok((socket, _)) => Link::Web(Box::new(socket)),
            Err(error) => panic!("WebSocket upgrade at {remote}: {error}"),
        }
    }

    /// Writes one message.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Link::Udp { socket, peer } => socket.send_to(bytes, *peer).map(|_| ()),
            Link::Stream { io, .. } => io.write_all(bytes).and_then(|()| io.flush()),
            Link::Web(socket) => {
                let message = match std::str::from_utf8(bytes) {
                    Ok(text) => tungstenite::Message::text(text),
                    Err(_) => tungstenite::Message::binary(bytes.to_vec()),
                };
                socket.send(message).map_err(io::Error::other)
            }
        }
    }

    /// The next thing that comes before `deadline`.
    pub fn receive(&mut self, deadline: Instant) -> Option<Incoming> {
        match self {
            Link::Udp { socket, peer } => receive_datagram(socket, *peer, deadline),
            Link::Stream { io, pending } => receive_stream(io, pending, deadline),
            Link::Web(socket) => receive_web(socket, deadline),
        }
    }

    /// The socket, for streams.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Link::Udp { .. } => None,
            Link::Stream { io, .. } => Some(io.tcp()),
            Link::Web(socket) => Some(socket.get_ref().tcp()),
        }
    }

    /// The certificate that the proxy showed (DER), over TLS.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        let io = match self {
            Link::Udp { .. } => return None,
            Link::Stream { io, .. } => io,
            Link::Web(socket) => socket.get_ref(),
        };
        let Io::Client(tls) = io else { return None };
        tls.conn.peer_certificates()?.first().map(|shown| shown.clone().into_owned())
    }

    /// Bytes that wait unread in the socket's buffer right now (datagrams: of the first one).
    pub fn unread(&self) -> usize {
        let mut buffer = [0; 65536];
        let peeked = match self {
            Link::Udp { socket, .. } => {
                socket.set_nonblocking(true).expect("nonblocking");
                let peeked = socket.peek(&mut buffer);
                socket.set_nonblocking(false).expect("blocking");
                peeked
            }
            _ => {
                let tcp = self.tcp().expect("stream");
                tcp.set_nonblocking(true).expect("nonblocking");
                let peeked = tcp.peek(&mut buffer);
                tcp.set_nonblocking(false).expect("blocking");
                peeked
            }
        };
        match peeked {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("peek: {error}"),
        }
    }

    /// Ends the sending direction (FIN).
    pub fn finish(&self) {
        if let Some(tcp) = self.tcp() {
            tcp.shutdown(Shutdown::Write).expect("shutdown");
        }
    }

    /// Ends the connection by RST.
    pub fn reset(self) {
        if let Some(tcp) = self.tcp() {
            SockRef::from(tcp).set_linger(Some(Duration::ZERO)).expect("linger");
        }
    }
}

/// Sets what is left until `deadline` as read timeout; false when nothing is left.
fn time_left(deadline: Instant) -> Option<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero()).then(|| left.max(Duration::from_millis(1)))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// What breaks TLS at a client came from the proxy. At a server it may be a client that refuses it.
fn is_tls_fault(io: &Io, error: &io::Error) -> bool {
    matches!(io, Io::Client(_)) && error.kind() == io::ErrorKind::InvalidData
}

fn receive_datagram(socket: &UdpSocket, peer: SocketAddr, deadline: Instant) -> Option<Incoming> {
    let mut buffer = vec![0; 65536];
    socket.set_read_timeout(Some(time_left(deadline)?)).expect("timeout");
    match socket.recv_from(&mut buffer) {
        Ok((length, from)) => {
            assert_eq!(from, peer, "datagrams come from the proxy's listener");
            if &buffer[..length] == b"\r\n" {
                return Some(Incoming::KeepAlive);
            }
            let message = Message::parse(&buffer[..length]).unwrap_or_else(|why| {
                panic!("{why}: {:?}", String::from_utf8_lossy(&buffer[..length]))
            });
            Some(Incoming::Message(message))
        }
        Err(error) if is_timeout(&error) => None,
        Err(error) => panic!("UDP receive: {error}"),
    }
}

fn receive_stream(io: &mut Io, pending: &mut Vec<u8>, deadline: Instant) -> Option<Incoming> {
    loop {
        if pending.starts_with(b"\r\n") {
            pending.drain(..2);
            return Some(Incoming::KeepAlive);
        }
        match Message::take(pending) {
            Ok(Some(message)) => return Some(Incoming::Message(message)),
            Ok(None) => {}
            Err(why) => panic!("{why} in {:?}", String::from_utf8_lossy(pending)),
        }
        io.tcp().set_read_timeout(Some(time_left(deadline)?)).expect("timeout");
        let mut buffer = [0; 16384];
        match io.read(&mut buffer) {
            Ok(0) => return Some(Incoming::Closed),
            Ok(length) => pending.extend_from_slice(&buffer[..length]),
            Err(error) if is_timeout(&error) => return None,
            Err(error) if is_tls_fault(io, &error) => panic!("TLS: {error}"),
            Err(_) => return Some(Incoming::Closed),
        }
    }
}

fn receive_web(socket: &mut WebSocket<Io>, deadline: Instant) -> Option<Incoming> {
    loop {
        socket.get_ref().tcp().set_read_timeout(Some(time_left(deadline)?)).expect("timeout");
        let (bytes, frame) = match socket.read() {
            Ok(tungstenite::Message::Text(text)) if text.as_str() == "\r\n" => {
                return Some(Incoming::KeepAlive);
            }
            Ok(tungstenite::Message::Text(text)) => (text.as_bytes().to_vec(), Frame::Text),
            Ok(tungstenite::Message::Binary(bytes)) => (bytes.to_vec(), Frame::Binary),
            Ok(tungstenite::Message::Close(_)) => return Some(Incoming::Closed),
            Ok(_) => continue,
            Err(Error::Io(error)) if is_timeout(&error) => return None,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                panic!("TLS: {error}")
            }
            Err(Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed) => {
                return Some(Incoming::Closed);
            }
            Err(Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => return Some(Incoming::Closed),
            Err(error) => panic!("WebSocket: {error}"),
        };
        let mut message = Message::parse(&bytes)
            .unwrap_or_else(|why| panic!("{why}: {:?}", String::from_utf8_lossy(&bytes)));
        message.frame = frame;
        return Some(Incoming::Message(message));
    }
}
