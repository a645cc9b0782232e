//! One datagram socket, connected to the server: what a turn sends leaves at its end, in order.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::Result;
use socket2::{Domain, Protocol, Socket, Type};

use crate::stream::{Traffic, would_wait};

/// Bytes of the kernel's that hold what was not read yet, so that a turn's pause loses nothing.
const KERNEL_BYTES: usize = 8 * 1024 * 1024;

/// The socket and what waits to be sent.
pub struct Datagrams {
    socket: UdpSocket,
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

impl Datagrams {
    /// A socket that sends to `server` from `source`, or from any address.
    pub fn open(server: SocketAddr, source: Option<SocketAddr>) -> Result<Datagrams> {
        let socket = Socket::new(Domain::for_address(server), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(KERNEL_BYTES)?;
        socket.set_send_buffer_size(KERNEL_BYTES)?;
        let any = match server {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        socket.bind(&source.unwrap_or(SocketAddr::new(any, 0)).into())?;
        socket.connect(&server.into())?;
        Ok(Datagrams { socket: socket.into(), bytes: Vec::new(), lengths: Vec::new() })
    }

    /// The socket.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Queues one datagram.
    pub fn push(&mut self, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.lengths.push(datagram.len());
    }

    /// Sends what is queued, as far as the kernel takes it.
    pub fn flush(&mut self, traffic: &mut Traffic) -> Result<()> {
        let (mut count, mut start) = (0, 0);
        for length in &self.lengths {
            match self.socket.send(&self.bytes[start..start + length]) {
                Ok(sent) => traffic.sent += sent as u64,
                Err(error) if would_wait(&error) => break,
                Err(error) => return Err(error.into()),
            }
            count += 1;
            start += length;
        }
        self.lengths.drain(..count);
        self.bytes.drain(..start);
        Ok(())
    }

    /// The next datagram: its length, or `None` when there is none.
    pub fn receive(&mut self, buffer: &mut [u8], traffic: &mut Traffic) -> Result<Option<usize>> {
        match self.socket.recv(buffer) {
            Ok(length) => {
                traffic.received += length as u64;
                Ok(Some(length))
            }
            Err(error) if would_wait(&error) => Ok(None),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                Err(anyhow::anyhow!("nobody listens at the server's UDP address"))
            }
            Err(error) => Err(error.into()),
        }
    }
}
