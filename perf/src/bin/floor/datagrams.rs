//! The UDP socket of the floor (IPv4): one multishot receive into buffers that hold the largest
//! datagram, and sends as entries of the ring.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use io_uring::{opcode, types};

use crate::ring::{Buffers, Completion, Op, Ring};

const BUFFERS: u16 = 256;
/// The largest datagram and what the kernel writes before it, in whole pages.
const BUFFER_BYTES: usize = 68 * 1024;
/// Datagrams that may be on their way to the kernel; more are dropped.
const SENDS_MAX: usize = 1024;
/// The group of the receive buffers.
const GROUP: u16 = 1;

/// The socket and its sends.
pub struct Datagrams {
    socket: UdpSocket,
    buffers: Buffers,
    is_armed: bool,
    /// Lengths of name and control data, as the armed receive was told.
    template: Box<libc::msghdr>,
    // Boxed, because the kernel has pointers into them while the list grows.
    #[allow(clippy::vec_box)]
    sends: Vec<Box<Send>>,
    free: Vec<u32>,
    /// Datagrams that found [`SENDS_MAX`] on their way.
    pub dropped: u64,
}

/// One datagram on its way out.
struct Send {
    header: libc::msghdr,
    vector: libc::iovec,
    name: libc::sockaddr_in,
    payload: Vec<u8>,
}

impl Datagrams {
    /// Tables for a bound socket.
    pub fn new(ring: &Ring, socket: UdpSocket) -> io::Result<Datagrams> {
        // SAFETY: all-zero is a valid msghdr: no pointers.
        let mut template: Box<libc::msghdr> = Box::new(unsafe { zeroed() });
        template.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        Ok(Datagrams {
            socket,
            buffers: Buffers::new(ring, GROUP, BUFFERS, BUFFER_BYTES)?,
            is_armed: false,
            template,
            sends: Vec::new(),
            free: Vec::new(),
            dropped: 0,
        })
    }

    /// Shows the kernel the buffers that were read, and arms the receive if it has ended.
    pub fn arm(&mut self, ring: &mut Ring) {
        self.buffers.publish();
        if self.is_armed {
            return;
        }
        self.is_armed = true;
        let socket = types::Fd(self.socket.as_raw_fd());
        let entry = opcode::RecvMsgMulti::new(socket, &raw const *self.template, GROUP)
            .build()
            .user_data(Ring::tag(Op::DatagramIn, 0));
        // SAFETY: template, buffers and socket live as long as the ring.
        unsafe { ring.push(entry) };
    }

    /// A datagram that came, and where from; give it back by [`Datagrams::give_back`].
    ///
    /// # Safety
    /// The bytes are not used after that.
    pub unsafe fn take<'a>(
        &mut self,
        completion: &Completion,
    ) -> Option<(SocketAddrV4, &'a mut [u8])> {
        self.is_armed &= completion.has_more();
        let id = completion.buffer()?;
        // SAFETY: the completion names it; the caller's promise does the rest.
        let buffer = unsafe { self.buffers.bytes(id) };
        let parsed = types::RecvMsgOut::parse(buffer, &self.template).ok();
        let parsed = parsed.filter(|out| !out.is_payload_truncated());
        let Some((name, length)) = parsed.and_then(|out| {
            let name: [u8; 8] = out.name_data().get(..8)?.try_into().ok()?;
            Some((name, out.payload_data().len()))
        }) else {
            self.buffers.give_back(id);
            return None;
        };
        let port = u16::from_be_bytes([name[2], name[3]]);
        let address = Ipv4Addr::new(name[4], name[5], name[6], name[7]);
        let start = PAYLOAD_AT;
        Some((SocketAddrV4::new(address, port), &mut buffer[start..start + length]))
    }

    /// Returns the buffer of a datagram that [`Datagrams::take`] gave.
    pub fn give_back(&mut self, completion: &Completion) {
        completion.buffer().into_iter().for_each(|id| self.buffers.give_back(id));
    }

    /// Sends one datagram, the parts in a row.
    pub fn send(&mut self, ring: &mut Ring, to: SocketAddrV4, parts: &[&[u8]]) {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.sends.len() < SENDS_MAX => {
                self.sends.push(Box::new(Send::empty()));
                (self.sends.len() - 1) as u32
            }
            None => {
                self.dropped += 1;
                return;
            }
        };
        let send = &mut self.sends[index as usize];
        send.prepare(to, parts);
        let socket = types::Fd(self.socket.as_raw_fd());
        let entry = opcode::SendMsg::new(socket, &raw const send.header)
            .flags(libc::MSG_NOSIGNAL as u32)
            .build()
            .user_data(Ring::tag(Op::DatagramOut, index));
        // SAFETY: the boxed send is not touched before its completion frees it.
        unsafe { ring.push(entry) };
    }

    /// Event: the kernel took a datagram.
    pub fn on_sent(&mut self, completion: &Completion) {
        self.free.push(completion.index);
    }
}

/// What the kernel writes before a payload: its header and the name.
const PAYLOAD_AT: usize = 16 + size_of::<libc::sockaddr_in>();

impl Send {
    fn empty() -> Send {
        // SAFETY: all-zero is valid for the three: no pointers, no lengths.
        let (header, vector, name) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Send { header, vector, name, payload: Vec::new() }
    }

    /// Fills in everything; the pointers are into `self`, which is boxed and stays where it is.
    fn prepare(&mut self, to: SocketAddrV4, parts: &[&[u8]]) {
        self.payload.clear();
        parts.iter().for_each(|part| self.payload.extend_from_slice(part));
        self.name.sin_family = libc::AF_INET as libc::sa_family_t;
        self.name.sin_port = to.port().to_be();
        self.name.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
        self.vector.iov_base = self.payload.as_mut_ptr().cast();
        self.vector.iov_len = self.payload.len();
        self.header.msg_name = (&raw mut self.name).cast();
        self.header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        self.header.msg_iov = &raw mut self.vector;
        self.header.msg_iovlen = 1;
    }
}
