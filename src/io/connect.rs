//! Outgoing connections: socket, connect on the ring, TLS, then the flow is like any other. One
//! deadline covers all of it.
#![allow(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddr};

use io_uring::{opcode, types};
use socket2::{Domain, Protocol as IpProtocol, SockAddr, Socket, Type};

use super::closing::Farewell;
use super::log_line::Report;
use super::protocol::Protocol;
use super::ring::{Completion, Op};
use super::slots::{Birth, State, marks};
use super::streams::{Later, Streams, delay_acknowledgements};
use super::sys;
use super::turn::Turn;
use super::watch::Awaited;
use crate::base::event::CloseReason;
use crate::base::id::{ConnectId, FlowKey, Transport};
use crate::engine::{ConnectTarget, Input, Origin};

/// Stands for the local address until there is one.
const UNKNOWN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Streams {
    /// Command: the protocol wants a connection. It hears of it later, whatever happens.
    pub fn connect<P: Protocol>(
        &mut self,
        turn: &mut Turn<'_, P>,
        connect: ConnectId,
        target: &ConnectTarget,
    ) {
        if let Err(report) = self.try_connect(turn, connect, target) {
            turn.report(report);
            self.later.push_back(Later::ConnectFailed(connect));
        }
    }

    fn try_connect<P: Protocol>(
        &mut self,
        turn: &mut Turn<'_, P>,
        connect: ConnectId,
        target: &ConnectTarget,
    ) -> Result<(), Report> {
        let remote = target.remote;
        let failed = |errno| Report::ConnectFailed { remote, errno };
        let session = if target.secure {
            let session = self.tls.connect(&target.server_name, remote.ip());
            let failed = |error| Report::TlsFailed { remote, is_outgoing: true, error };
            Some(Box::new(session.map_err(failed)?))
        } else {
            None
        };
        let socket = Socket::new(Domain::for_address(remote), Type::STREAM, Some(IpProtocol::TCP))
            .map_err(|error| failed(error.raw_os_error().unwrap_or(libc::EIO)))?;
        // Without it we are only slower.
        let _ = socket.set_tcp_nodelay(true);
        let fd = socket.into();
        if !self.has_room_for(&fd) {
            return Err(failed(libc::EMFILE));
        }
        let transport = if target.secure { Transport::Tls } else { Transport::Tcp };
        let birth = Box::new(Birth {
            key: FlowKey { transport, local: UNKNOWN, remote },
            origin: Origin::Connected(connect),
            address: Some(SockAddr::from(remote)),
            pending: Vec::new(),
        });
        let index = self.slots.insert(fd, State::Connecting, Some(birth));
        let index = index.ok_or_else(|| failed(libc::EMFILE))?;
        let slot = self.slots.at(index);
        slot.session = session;
        slot.watch = self.watches.arm(turn.now, Awaited::Connect, index);
        slot.set(marks::CONNECTING);
        let (fd, tag) = (types::Fd(slot.fd()), slot.tag(Op::Connect, index));
        let birth = slot.birth.as_ref().expect("given above");
        let address = birth.address.as_ref().expect("given above");
        let entry = opcode::Connect::new(fd, address.as_ptr().cast(), address.len())
            .build()
            .user_data(tag.to_user_data());
        // SAFETY: the slot keeps address and descriptor until CONNECTING is cleared.
        unsafe { turn.ring.push(entry) };
        Ok(())
    }

    /// Event: a connect has ended.
    pub fn on_connected<P: Protocol>(&mut self, turn: &mut Turn<'_, P>, completion: Completion) {
        let index = completion.tag.index();
        let Some(slot) = self.slots.of_tag(completion.tag) else {
            turn.counters.completions_stale += 1;
            return;
        };
        slot.clear(marks::CONNECTING);
        if slot.state == State::Ending {
            slot.birth = None;
            return self.settle(index);
        }
        let fd = slot.fd();
        let birth = slot.birth.as_mut().expect("a connecting slot has its birth");
        birth.address = None;
        let (remote, origin) = (birth.key.remote, birth.origin);
        let local = sys::with_socket(fd, |socket| socket.local_addr().ok()?.as_socket());
        let (Some(local), 0) = (local, completion.result) else {
            turn.report(Report::ConnectFailed { remote, errno: -completion.result });
            return self.end(turn, index, CloseReason::Reset, Farewell::Abort);
        };
        birth.key.local = local;
        delay_acknowledgements(fd);
        if let Some(session) = &mut slot.session {
            slot.state = State::Handshaking;
            let mut sealed = std::mem::take(&mut self.scratch);
            session.start(&mut sealed);
            self.arm_receive(turn.ring, index);
            self.write_sealed(turn, index, &sealed);
            sealed.clear();
            self.scratch = sealed;
            return;
        }
        slot.state = State::Open;
        let key = birth.key;
        slot.birth = None;
        self.watches.cancel(&mut slot.watch);
        let flow = self.slots.flow(index);
        turn.protocol.handle(turn.now, Input::Opened { flow, key, origin });
        self.arm_receive(turn.ring, index);
    }
}
