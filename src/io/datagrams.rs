//! The UDP sockets of one shard: one multishot receive each, into buffers of its own that hold the
//! largest datagram whole; sends are entries of the ring, bounded in number. On wildcard sockets
//! the kernel tells to which local address a datagram came (IP_PKTINFO), and answers leave from
//! there (RFC 3581 §4).
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::RawFd;

use io_uring::{opcode, squeue, types};
use socket2::SockAddr;

use super::buffers::Buffers;
use super::protocol::Protocol;
use super::ring::{Completion, Op, Ring, Tag};
use super::turn::Turn;
use crate::base::config::Config;
use crate::base::id::{DatagramPath, ListenerId};
use crate::base::limits::{
    ACCEPT_PAUSE, DATAGRAM_BUFFER_BYTES, DATAGRAM_BUFFERS, DATAGRAM_SENDS_MAX, WRITER_BYTES_KEPT,
};
use crate::base::time::Time;
use crate::engine::Input;

/// Bytes of control data: one packet-info message of either family.
const CONTROL_BYTES: usize = 40;
/// Bytes of the header that the kernel writes before a received datagram (`struct
/// io_uring_recvmsg_out`).
const HEADER_BYTES: usize = 16;
const NAME_BYTES: usize = size_of::<libc::sockaddr_in6>();
/// The first byte of the payload in a receive buffer.
const PAYLOAD_AT: usize = HEADER_BYTES + NAME_BYTES + CONTROL_BYTES;

/// Every UDP socket of a shard.
pub struct Datagrams {
    sockets: Vec<Socket>,
    /// Position in `sockets` by listener.
    by_listener: Vec<Option<u16>>,
    // Boxed, because the kernel has pointers into them while the list grows.
    #[allow(clippy::vec_box)]
    sends: Vec<Box<Send>>,
    free: Vec<u32>,
    /// Lengths of name and control data, as the armed receives were told.
    template: Box<libc::msghdr>,
}

struct Socket {
    listener: ListenerId,
    fd: RawFd,
    address: SocketAddr,
    buffers: Buffers,
    is_armed: bool,
    /// When to try again after the receive failed.
    resume_at: Option<Time>,
}

/// One datagram on its way out; does not move while the kernel has it.
struct Send {
    header: libc::msghdr,
    vector: libc::iovec,
    name: SockAddr,
    control: Control,
    payload: Vec<u8>,
}

#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

impl Datagrams {
    /// Tables for the given sockets (`config` names them by position; they stay open as long as the
    /// ring lives).
    pub fn new(
        ring: &Ring,
        config: &Config,
        sockets: impl Iterator<Item = (ListenerId, RawFd)>,
    ) -> io::Result<Datagrams> {
        // SAFETY: all-zero is a valid msghdr: no pointers.
        let mut template: Box<libc::msghdr> = Box::new(unsafe { zeroed() });
        template.msg_namelen = NAME_BYTES as libc::socklen_t;
        template.msg_controllen = CONTROL_BYTES as _;
        let mut datagrams = Datagrams {
            sockets: Vec::new(),
            by_listener: vec![None; config.listeners.len()],
            sends: Vec::new(),
            free: Vec::new(),
            template,
        };
        for (listener, fd) in sockets {
            let position = datagrams.sockets.len() as u16;
            datagrams.by_listener[listener.index()] = Some(position);
            let (count, size) = (DATAGRAM_BUFFERS, DATAGRAM_BUFFER_BYTES);
            datagrams.sockets.push(Socket {
                listener,
                fd,
                address: config.listener(listener).address,
                buffers: Buffers::new(ring, position + 1, count, size)?,
                is_armed: false,
                resume_at: None,
            });
        }
        Ok(datagrams)
    }

    /// When a receive must be armed again.
    pub fn next_deadline(&self) -> Option<Time> {
        self.sockets.iter().filter_map(|socket| socket.resume_at).min()
    }

    /// Shows the kernel the buffers that were read and arms the receives that are due, all of them
    /// at the start.
    pub fn arm(&mut self, ring: &mut Ring, now: Time) {
        for (index, socket) in self.sockets.iter_mut().enumerate() {
            socket.buffers.publish();
            if socket.is_armed || socket.resume_at.is_some_and(|resume| resume > now) {
                continue;
            }
            socket.resume_at = None;
            socket.is_armed = true;
            let tag = Tag::new(Op::DatagramIn, 0, index as u32);
            let fd = types::Fd(socket.fd);
            let group = socket.buffers.group();
            let entry = opcode::RecvMsgMulti::new(fd, &raw const *self.template, group)
                .build()
                .user_data(tag.to_user_data());
            // SAFETY: template, buffers and descriptor outlive the ring's operations.
            unsafe { ring.push(entry) };
        }
    }

    /// Event: a datagram, or the end of a receive.
    pub fn on_datagram<P: Protocol>(&mut self, turn: &mut Turn<'_, P>, completion: Completion) {
        let socket = &mut self.sockets[completion.tag.index() as usize];
        if !completion.has_more() {
            socket.is_armed = false;
            let is_normal = completion.result >= 0 || completion.result == -libc::ENOBUFS;
            socket.resume_at = (!is_normal).then(|| turn.now + ACCEPT_PAUSE);
        }
        if completion.result == -libc::ENOBUFS {
            turn.counters.receives_starved += 1;
        }
        let Some(id) = completion.buffer() else { return };
        // SAFETY: the completion names it, and it is given back below, after the last use.
        let buffer = unsafe { socket.buffers.bytes(id, socket.buffers.size()) };
        match Arrival::parse(buffer, &self.template, socket.address) {
            Ok(Arrival { local, remote, length }) => {
                let path = DatagramPath { listener: socket.listener, local, remote };
                let bytes = &mut buffer[PAYLOAD_AT..PAYLOAD_AT + length];
                turn.protocol.handle(turn.now, Input::Datagram { path, bytes });
            }
            Err(Unreadable::Truncated) => turn.counters.datagrams_truncated += 1,
            Err(Unreadable::NoAddress) => turn.counters.dropped_malformed += 1,
        }
        socket.buffers.give_back(id);
    }

    /// Command: sends one datagram from that listener's socket, or drops it when too many are on
    /// their way.
    pub fn send(
        &mut self,
        ring: &mut Ring,
        path: &DatagramPath,
        payload: &[u8],
    ) -> Result<(), NotSent> {
        let position = self.by_listener.get(path.listener.index()).copied().flatten();
        let socket = &self.sockets[usize::from(position.ok_or(NotSent)?)];
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.sends.len() < DATAGRAM_SENDS_MAX => {
                self.sends.push(Box::new(Send::empty()));
                (self.sends.len() - 1) as u32
            }
            None => return Err(NotSent),
        };
        let source = socket.address.ip().is_unspecified().then_some(path.local.ip());
        let send = &mut self.sends[index as usize];
        send.prepare(path.remote, source, payload);
        let tag = Tag::new(Op::DatagramOut, 0, index);
        let entry = send.entry(types::Fd(socket.fd)).user_data(tag.to_user_data());
        // SAFETY: the boxed send is not touched before its completion frees it; the descriptor
        // outlives the ring.
        unsafe { ring.push(entry) };
        Ok(())
    }

    /// Event: the kernel took a datagram, or refused it.
    pub fn on_sent<P: Protocol>(&mut self, turn: &mut Turn<'_, P>, completion: Completion) {
        let index = completion.tag.index();
        let payload = &mut self.sends[index as usize].payload;
        payload.clear();
        payload.shrink_to(WRITER_BYTES_KEPT);
        self.free.push(index);
        turn.counters.datagrams_unsent += u64::from(completion.result < 0);
    }

    /// Whether sends are with the kernel.
    pub fn has_sends(&self) -> bool {
        self.free.len() < self.sends.len()
    }

    /// Ends without the ring's consent: what the kernel may still touch is never freed.
    pub fn leak(self) {
        self.sockets.into_iter().for_each(|socket| socket.buffers.leak());
        std::mem::forget((self.sends, self.template));
    }
}

/// A datagram was dropped instead of sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSent;

impl Send {
    fn empty() -> Send {
        // SAFETY: all-zero is valid for both: no pointers, no lengths.
        let (header, vector) = unsafe { (zeroed(), zeroed()) };
        let name = SockAddr::from(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
        Send { header, vector, name, control: Control([0; CONTROL_BYTES]), payload: Vec::new() }
    }

    /// Fills in everything; the pointers are into `self`, which is boxed and stays where it is.
    fn prepare(&mut self, remote: SocketAddr, source: Option<IpAddr>, payload: &[u8]) {
        self.payload.clear();
        self.payload.extend_from_slice(payload);
        self.name = SockAddr::from(remote);
        self.vector.iov_base = self.payload.as_mut_ptr().cast();
        self.vector.iov_len = self.payload.len();
        self.header.msg_name = self.name.as_ptr().cast_mut().cast();
        self.header.msg_namelen = self.name.len();
        self.header.msg_iov = &raw mut self.vector;
        self.header.msg_iovlen = 1;
        let length = match source {
            Some(IpAddr::V4(source)) if !source.is_unspecified() => self.control.set_v4(source),
            Some(IpAddr::V6(source)) if !source.is_unspecified() => {
                self.control.set_v6(source, remote)
            }
            _ => 0,
        };
        self.header.msg_controllen = length as _;
        self.header.msg_control =
            if length == 0 { std::ptr::null_mut() } else { self.control.0.as_mut_ptr().cast() };
    }

    /// The entry that sends what was filled in. Without control data it names payload and address
    /// themselves, which spares the kernel the header and the vector.
    fn entry(&self, fd: types::Fd) -> squeue::Entry {
        if self.header.msg_controllen > 0 {
            return opcode::SendMsg::new(fd, &raw const self.header)
                .flags(libc::MSG_NOSIGNAL as u32)
                .build();
        }
        opcode::Send::new(fd, self.payload.as_ptr(), self.payload.len() as u32)
            .dest_addr(self.name.as_ptr().cast())
            .dest_addr_len(self.name.len())
            .flags(libc::MSG_NOSIGNAL)
            .build()
    }
}

impl Control {
    fn set_v4(&mut self, source: Ipv4Addr) -> usize {
        let info = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        self.set(libc::IPPROTO_IP, libc::IP_PKTINFO, info)
    }

    fn set_v6(&mut self, source: Ipv6Addr, remote: SocketAddr) -> usize {
        let scope = match remote {
            SocketAddr::V6(remote) => remote.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        let info = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
            ipi6_ifindex: scope,
        };
        self.set(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
    }

    /// Writes one message and answers how long the control data is.
    fn set<T>(&mut self, level: i32, kind: i32, value: T) -> usize {
        const { assert!(size_of::<libc::cmsghdr>() + size_of::<T>() <= CONTROL_BYTES) };
        const { assert!(size_of::<libc::cmsghdr>().is_multiple_of(8)) };
        let length = size_of::<libc::cmsghdr>() + size_of::<T>();
        // SAFETY: header and value lie within the aligned array (asserted above); cmsghdr has no
        // invalid values.
        unsafe {
            let mut header: libc::cmsghdr = zeroed();
            header.cmsg_len = length as _;
            header.cmsg_level = level;
            header.cmsg_type = kind;
            let start = self.0.as_mut_ptr();
            start.cast::<libc::cmsghdr>().write(header);
            start.add(size_of::<libc::cmsghdr>()).cast::<T>().write_unaligned(value);
        }
        length.next_multiple_of(8)
    }
}

/// Where a datagram came from and to.
struct Arrival {
    local: SocketAddr,
    remote: SocketAddr,
    length: usize,
}

enum Unreadable {
    Truncated,
    NoAddress,
}

impl Arrival {
    fn parse(
        buffer: &[u8],
        template: &libc::msghdr,
        bound: SocketAddr,
    ) -> Result<Arrival, Unreadable> {
        let Ok(out) = types::RecvMsgOut::parse(buffer, template) else {
            return Err(Unreadable::NoAddress);
        };
        if out.is_payload_truncated() {
            return Err(Unreadable::Truncated);
        }
        let remote = parse_name(out.name_data()).ok_or(Unreadable::NoAddress)?;
        let to = parse_control(out.control_data());
        let local = match to {
            Some(ip) if bound.ip().is_unspecified() => SocketAddr::new(ip, bound.port()),
            _ => bound,
        };
        Ok(Arrival { local, remote, length: out.payload_data().len() })
    }
}

fn parse_name(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(name.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(name.get(2..4)?.try_into().ok()?);
    match i32::from(family) {
        libc::AF_INET => {
            let ip: [u8; 4] = name.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::V4(SocketAddrV4::new(ip.into(), port)))
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = name.get(8..24)?.try_into().ok()?;
            let flow = u32::from_ne_bytes(name.get(4..8)?.try_into().ok()?);
            let scope = u32::from_ne_bytes(name.get(24..28)?.try_into().ok()?);
            Some(SocketAddr::V6(SocketAddrV6::new(ip.into(), port, flow, scope)))
        }
        _ => None,
    }
}

/// The local address in the packet-info message, which is the only one that we ask for.
fn parse_control(control: &[u8]) -> Option<IpAddr> {
    const AT: usize = size_of::<libc::cmsghdr>();
    const LEVEL_AT: usize = size_of::<usize>();
    let number = |at: usize| -> Option<i32> {
        Some(i32::from_ne_bytes(control.get(at..at + 4)?.try_into().ok()?))
    };
    match (number(LEVEL_AT)?, number(LEVEL_AT + 4)?) {
        // Interface index, then the local address to answer from, then the address in the header.
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            let ip: [u8; 4] = control.get(AT + 4..AT + 8)?.try_into().ok()?;
            Some(IpAddr::V4(ip.into()))
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let ip: [u8; 16] = control.get(AT..AT + 16)?.try_into().ok()?;
            Some(IpAddr::V6(ip.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_data_that_we_write_is_what_we_read() {
        let mut control = Control([0xaa; CONTROL_BYTES]);
        let v4 = Ipv4Addr::new(192, 0, 2, 7);
        let length = control.set_v4(v4);
        assert_eq!(parse_control(&control.0[..length]), Some(IpAddr::V4(v4)));
        let v6 = "2001:db8::7".parse().unwrap();
        let length = control.set_v6(v6, "[2001:db8::1]:5060".parse().unwrap());
        assert_eq!(parse_control(&control.0[..length]), Some(IpAddr::V6(v6)));
        for cut in 0..32 {
            parse_control(&control.0[..cut]);
        }
        assert_eq!(parse_control(&[]), None);
    }

    #[test]
    fn names_of_both_families_are_read() {
        for text in ["192.0.2.1:5060", "[2001:db8::1]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            let raw = SockAddr::from(address);
            // SAFETY: the name is `len` bytes long.
            let bytes = unsafe {
                std::slice::from_raw_parts(raw.as_ptr().cast::<u8>(), raw.len() as usize)
            };
            assert_eq!(parse_name(bytes), Some(address));
            for cut in 0..bytes.len().min(8) {
                assert_eq!(parse_name(&bytes[..cut]), None);
            }
        }
    }

    #[test]
    fn source_addresses_are_given_only_when_known() {
        let remote: SocketAddr = "192.0.2.1:5060".parse().unwrap();
        let mut send = Box::new(Send::empty());
        send.prepare(remote, None, b"x");
        assert_eq!(send.header.msg_controllen, 0);
        send.prepare(remote, Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), b"x");
        assert_eq!(send.header.msg_controllen, 0);
        send.prepare(remote, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), b"x");
        assert_eq!(send.header.msg_controllen, 32);
    }
}
