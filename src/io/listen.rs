//! Binding: every listener gets one socket a shard on the same port (SO_REUSEPORT), so that the
//! kernel spreads flows and nothing is shared. The supervisor binds before any shard starts: what
//! cannot be bound is told at once, and a shard that is started anew finds its sockets as they
//! were.
#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::sys;
use crate::base::config::{Config, HostPort, Listener};
use crate::base::id::{ListenerId, Transport};
use crate::base::limits::{DATAGRAM_SOCKET_BYTES, LISTEN_BACKLOG};

/// The listening sockets of one shard, by listener.
#[derive(Debug, Default)]
pub struct ShardSockets {
    sockets: Vec<(ListenerId, Transport, OwnedFd)>,
}

impl ShardSockets {
    /// The stream sockets.
    pub fn streams(&self) -> impl Iterator<Item = (ListenerId, RawFd)> + '_ {
        self.pick(|transport| transport != Transport::Udp)
    }

    /// The UDP sockets.
    pub fn datagrams(&self) -> impl Iterator<Item = (ListenerId, RawFd)> + '_ {
        self.pick(|transport| transport == Transport::Udp)
    }

    fn pick(&self, is_meant: fn(Transport) -> bool) -> impl Iterator<Item = (ListenerId, RawFd)> {
        let meant = self.sockets.iter().filter(move |(_, transport, _)| is_meant(*transport));
        meant.map(|(id, _, fd)| (*id, fd.as_raw_fd()))
    }
}

/// A listener that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {transport} {address}: {reason}{hint}", hint = hint(.reason, *.address))]
pub struct BindError {
    /// What it speaks.
    pub transport: &'static str,
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    pub reason: io::Error,
}

fn hint(reason: &io::Error, address: SocketAddr) -> &'static str {
    match reason.kind() {
        io::ErrorKind::AddrInUse => " (another process has it: `ss -lnptu` shows which)",
        io::ErrorKind::AddrNotAvailable => " (no interface of this machine has that address)",
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            " (ports below 1024 need CAP_NET_BIND_SERVICE)"
        }
        _ => "",
    }
}

/// Binds every listener for every shard. A port 0 is replaced in `config` by the one that the
/// system chose, and a wildcard that advertises nothing gets a name that peers can use.
pub fn bind_all(config: &mut Config, shards: u16) -> Result<Vec<ShardSockets>, BindError> {
    let mut sets: Vec<ShardSockets> = (0..shards).map(|_| ShardSockets::default()).collect();
    for (position, listener) in config.listeners.iter_mut().enumerate() {
        let id = ListenerId(position as u16);
        let (transport, address) = (listener.transport, listener.address);
        let failed = |reason| BindError { transport: transport.name(), address, reason };
        if address.port() != 0 {
            refuse_sharing(listener).map_err(failed)?;
        }
        for set in &mut sets {
            let socket = bind(listener).map_err(failed)?;
            let bound = socket.local_addr().map_err(failed)?.as_socket();
            listener.address = bound.expect("an internet socket has an internet address");
            set.sockets.push((id, transport, socket.into()));
        }
        name_wildcard(listener);
    }
    Ok(sets)
}

/// `0.0.0.0` or `::` in a Via or Record-Route leads nowhere: without `advertise` such a listener
/// shows the address from which this machine reaches the world, or loopback when it reaches nobody.
pub(super) fn name_wildcard(listener: &mut Listener) {
    if listener.advertise.is_some() || !listener.address.ip().is_unspecified() {
        return;
    }
    let ip = outward_address(listener.address.is_ipv6());
    let host = match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    listener.advertise = Some(HostPort { host, port: Some(listener.address.port()) });
}

/// Asks the routing table by connecting a datagram socket to a documentation address (RFC 5737,
/// RFC 3849): nothing is sent.
fn outward_address(is_v6: bool) -> IpAddr {
    let (any, far, loopback): (SocketAddr, SocketAddr, IpAddr) = if is_v6 {
        let far = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        ((Ipv6Addr::UNSPECIFIED, 0).into(), (far, 9).into(), Ipv6Addr::LOCALHOST.into())
    } else {
        let far = Ipv4Addr::new(192, 0, 2, 1);
        ((Ipv4Addr::UNSPECIFIED, 0).into(), (far, 9).into(), Ipv4Addr::LOCALHOST.into())
    };
    let asked = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(far)?;
        socket.local_addr()
    });
    asked.map_or(loopback, |local| local.ip())
}

/// SO_REUSEPORT would let a second process of the same user take half of our flows without an
/// error: look first.
fn refuse_sharing(listener: &Listener) -> io::Result<()> {
    let socket = open(listener)?;
    socket.bind(&listener.address.into())
}

fn open(listener: &Listener) -> io::Result<Socket> {
    let domain = Domain::for_address(listener.address);
    let is_datagram = listener.transport == Transport::Udp;
    let (kind, protocol) =
        if is_datagram { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    if listener.address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if !is_datagram {
        // Connections of a former process in TIME_WAIT do not hold the port.
        socket.set_reuse_address(true)?;
    }
    Ok(socket)
}

fn bind(listener: &Listener) -> io::Result<Socket> {
    let socket = open(listener)?;
    sys::set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    if listener.transport == Transport::Udp {
        // Smaller buffers lose more in a burst, no more than that.
        let _ = socket.set_recv_buffer_size(DATAGRAM_SOCKET_BYTES);
        let _ = socket.set_send_buffer_size(DATAGRAM_SOCKET_BYTES);
        if listener.address.ip().is_unspecified() {
            ask_for_local_address(&socket, listener.address)?;
        }
        socket.bind(&listener.address.into())?;
    } else {
        // Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&listener.address.into())?;
        socket.listen(LISTEN_BACKLOG)?;
    }
    Ok(socket)
}

fn ask_for_local_address(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    let (level, name) = if address.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    };
    sys::set_option(socket.as_raw_fd(), level, name, 1)
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn all_shards_share_the_port_that_the_first_got() {
        let listeners = [
            (Transport::Udp, "127.0.0.1:0"),
            (Transport::Tcp, "127.0.0.1:0"),
            (Transport::Wss, "[::1]:0"),
            (Transport::Udp, "[::]:0"),
        ];
        let mut config = testing::config(&listeners);
        let sets = bind_all(&mut config, 3).unwrap();
        assert_eq!(sets.len(), 3);
        for set in &sets {
            assert_eq!((set.streams().count(), set.datagrams().count()), (2, 2));
            for (id, fd) in set.streams().chain(set.datagrams()) {
                let bound = sys::with_socket(fd, |socket| socket.local_addr()).unwrap();
                assert_eq!(bound.as_socket(), Some(config.listener(id).address));
                assert_ne!(config.listener(id).address.port(), 0);
            }
        }
    }

    #[test]
    fn a_port_of_another_process_is_an_error_that_names_it() {
        for transport in [Transport::Udp, Transport::Tcp] {
            let mut config = testing::config(&[(transport, "127.0.0.1:0")]);
            let first = bind_all(&mut config, 2).unwrap();
            let error = bind_all(&mut config.clone(), 1).unwrap_err();
            let text = error.to_string();
            let address = config.listeners[0].address.to_string();
            assert!(text.contains(&address) && text.contains("in use"), "{text}");
            assert!(text.contains(transport.name()));
            drop(first);
            bind_all(&mut config, 1).unwrap();
        }
    }

    #[test]
    fn a_wildcard_shows_an_address_that_peers_can_use() {
        let listeners = [(Transport::Udp, "0.0.0.0:0"), (Transport::Tcp, "[::]:0")];
        let mut config = testing::config(&listeners);
        bind_all(&mut config, 1).unwrap();
        for listener in &config.listeners {
            let shown = listener.advertise.as_ref().unwrap();
            let host = shown.host.trim_matches(['[', ']']);
            assert!(!host.parse::<IpAddr>().unwrap().is_unspecified());
            assert_eq!(shown.port, Some(listener.address.port()));
        }
    }

    #[test]
    fn an_address_of_nobody_is_an_error_that_says_so() {
        let mut config = testing::config(&[(Transport::Tcp, "192.0.2.1:0")]);
        let text = bind_all(&mut config, 1).unwrap_err().to_string();
        assert!(text.contains("no interface"), "{text}");
    }
}
