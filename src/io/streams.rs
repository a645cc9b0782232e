//! The stream sockets of one shard: accepting and receiving. Writing is in `sending`, TLS in
//! `secure`, outgoing connections in `connect`, the end of a flow in `closing`. Absent on purpose:
//! what the bytes mean.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::buffers::Buffers;
use super::closing::Departed;
use super::protocol::Protocol;
use super::ring::{Completion, Op, Ring, Tag};
use super::slots::{Birth, Slots, State, marks};
use super::sys;
use super::tls::TlsContext;
use super::turn::Turn;
use super::watch::{Awaited, Watches};
use super::writer::WriterPool;
use crate::base::config::Config;
use crate::base::event::CloseReason;
use crate::base::id::{ConnectId, FlowId, FlowKey, ListenerId, ShardId, Transport};
use crate::base::limits::{
    ACCEPT_PAUSE, DESCRIPTORS_SPARE, STARVED_TURNS_MAX, STREAM_BUFFER_BYTES, STREAM_BUFFERS,
};
use crate::base::time::Time;
use crate::engine::{Input, Origin};

/// Every stream socket of a shard.
pub struct Streams {
    pub(super) config: Arc<Config>,
    pub(super) slots: Slots,
    pub(super) watches: Watches,
    pub(super) writers: WriterPool,
    pub(super) tls: TlsContext,
    /// Flows with something to send or to finish at the end of the turn; each carries
    /// [`marks::DIRTY`].
    pub(super) dirty: Vec<u32>,
    /// Flows whose handshake waits for a turn with time for it; each carries [`marks::PUT_OFF`].
    pub(super) put_off: VecDeque<Tag>,
    /// Flows whose peers are gone and that wait for a turn to be ended in, and how.
    pub(super) departed: VecDeque<Departed>,
    /// How many flows this turn may still end.
    pub(super) ends_left: usize,
    /// Time that this turn spent on handshakes.
    pub(super) handshake_spent: Duration,
    /// What the protocol must hear once its outputs are drained.
    pub(super) later: VecDeque<Later>,
    /// Where TLS puts what it has to send.
    pub(super) scratch: Vec<u8>,
    buffers: Buffers,
    /// Flows whose receive found no buffer; each carries [`marks::STARVED`].
    starved: VecDeque<Tag>,
    /// Turns for which they have waited.
    starved_turns: u32,
    listeners: Vec<Listening>,
    is_accepting: bool,
    /// Descriptors from this number on are refused, so that accept never fails for want of one.
    descriptors_max: u64,
}

/// What came up while outputs were drained, when nobody may be told anything.
#[derive(Debug, PartialEq, Eq)]
pub enum Later {
    /// A connection could not even be tried.
    ConnectFailed(ConnectId),
    /// The protocol wrote more than a flow may have queued.
    Overflowed(FlowId),
    /// What it wanted to know of a flow: its round-trip time.
    Measured(FlowId, Duration),
}

/// One listening socket.
struct Listening {
    id: ListenerId,
    fd: RawFd,
    transport: Transport,
    address: SocketAddr,
    is_armed: bool,
    /// When to try again after accept failed.
    resume_at: Option<Time>,
}

impl Streams {
    /// The tables of a fresh shard, with the listening sockets that it shall accept from (`config`
    /// names them by position; the sockets stay open as long as the ring lives).
    pub fn new(
        ring: &Ring,
        shard: ShardId,
        incarnation: u8,
        config: Arc<Config>,
        tls: TlsContext,
        listeners: impl Iterator<Item = (ListenerId, RawFd)>,
    ) -> io::Result<Streams> {
        let listening = |(id, fd): (ListenerId, RawFd)| {
            let listener = config.listener(id);
            let (transport, address) = (listener.transport, listener.address);
            Listening { id, fd, transport, address, is_armed: false, resume_at: None }
        };
        let (soft, _) = sys::descriptor_limits()?;
        Ok(Streams {
            listeners: listeners.map(listening).collect(),
            slots: Slots::new(shard, incarnation),
            watches: Watches::new(&config.limits),
            buffers: Buffers::new(ring, 0, STREAM_BUFFERS, STREAM_BUFFER_BYTES)?,
            writers: WriterPool::default(),
            dirty: Vec::new(),
            put_off: VecDeque::new(),
            departed: VecDeque::new(),
            ends_left: 0,
            starved: VecDeque::new(),
            starved_turns: 0,
            later: VecDeque::new(),
            scratch: Vec::new(),
            handshake_spent: Duration::ZERO,
            is_accepting: true,
            descriptors_max: soft.saturating_sub(DESCRIPTORS_SPARE),
            config,
            tls,
        })
    }

    /// Takes another configuration with the same listeners, and certificates for connections to
    /// come; flows that are there keep their sessions.
    pub fn reconfigure(&mut self, now: Time, config: Arc<Config>, tls: TlsContext) {
        self.watches.set_times(now, &config.limits);
        self.config = config;
        self.tls = tls;
    }

    /// Slots in use, ending ones included.
    pub fn used(&self) -> usize {
        self.slots.used()
    }

    /// Command: the protocol asks what the kernel knows of a flow's round-trip time.
    pub fn measure(&mut self, flow: FlowId) {
        let slot = self.slots.of_flow(flow).filter(|slot| slot.state == State::Open);
        if let Some(took) = slot.and_then(|slot| sys::round_trip(slot.fd())) {
            self.later.push_back(Later::Measured(flow, took));
        }
    }

    /// What the protocol must hear next, after its outputs were drained.
    pub fn pop_later(&mut self) -> Option<Later> {
        self.later.pop_front()
    }

    /// When something of this must be looked at, whatever completes.
    pub fn next_deadline(&self) -> Option<Time> {
        let resumes = self.listeners.iter().filter_map(|listening| listening.resume_at);
        resumes.chain(self.watches.next_deadline()).min()
    }

    /// Arms accepts that are due: all at the start, later those that had to pause.
    pub fn resume_accepting(&mut self, ring: &mut Ring, now: Time) {
        if !self.is_accepting {
            return;
        }
        for (index, listening) in self.listeners.iter_mut().enumerate() {
            let is_due = listening.resume_at.is_none_or(|resume| resume <= now);
            if !listening.is_armed && is_due {
                listening.resume_at = None;
                listening.is_armed = true;
                ring.accept(listening.fd, Tag::new(Op::Accept, 0, index as u32));
            }
        }
    }

    /// Ends accepting for good: connections are refused by the kernel from here on.
    pub fn cease_accepting(&mut self, ring: &mut Ring) {
        self.is_accepting = false;
        for (index, listening) in self.listeners.iter_mut().enumerate() {
            listening.resume_at = None;
            // A listener that is gone already needs no shutdown.
            let _ =
                sys::with_socket(listening.fd, |socket| socket.shutdown(std::net::Shutdown::Both));
            ring.cancel(Tag::new(Op::Accept, 0, index as u32));
        }
    }

    /// Event: a listener has a connection, or its accept has failed.
    pub fn on_accept<P: Protocol>(&mut self, turn: &mut Turn<'_, P>, completion: Completion) {
        let listening = &mut self.listeners[completion.tag.index() as usize];
        if !completion.has_more() {
            listening.is_armed = false;
            // At a limit accept fails at once, again and again: pause. At the end it fails as well.
            let resumes = completion.result < 0 && self.is_accepting;
            listening.resume_at = resumes.then(|| turn.now + ACCEPT_PAUSE);
        }
        if completion.result >= 0 {
            self.claim(turn, completion.tag.index(), sys::own(completion.result));
        } else if matches!(-completion.result, libc::EMFILE | libc::ENFILE | libc::ENOMEM) {
            turn.counters.flows_refused += 1;
        }
        self.resume_accepting(turn.ring, turn.now);
    }

    /// Event: the listener at that position had accepted a connection.
    pub fn claim<P: Protocol>(&mut self, turn: &mut Turn<'_, P>, listening: u32, fd: OwnedFd) {
        if self.is_accepting && self.has_room_for(&fd) {
            self.adopt(turn, listening as usize, fd);
        } else {
            turn.counters.flows_refused += 1;
        }
    }

    pub(super) fn has_room_for(&self, fd: &OwnedFd) -> bool {
        self.slots.used() < self.config.limits.flows_max
            && (fd.as_raw_fd() as u64) < self.descriptors_max
    }

    fn adopt<P: Protocol>(&mut self, turn: &mut Turn<'_, P>, listening: usize, fd: OwnedFd) {
        let Listening { id, transport, address, .. } = self.listeners[listening];
        // A peer that is gone already has no name: nothing is lost.
        let Some((local, remote)) = addresses(&fd, address) else { return };
        delay_acknowledgements(fd.as_raw_fd());
        let is_terminated = transport == Transport::Ws
            && self
                .config
                .listener(id)
                .tls_terminated_from
                .iter()
                .any(|net| net.contains(&remote.ip().to_canonical()));
        let named = if is_terminated { Transport::Wss } else { transport };
        let key = FlowKey { transport: named, local, remote };
        let origin = Origin::Accepted(id);
        if !transport.is_secure() {
            let Some(index) = self.slots.insert(fd, State::Open, None) else {
                turn.counters.flows_refused += 1;
                return;
            };
            let flow = self.slots.flow(index);
            turn.protocol.handle(turn.now, Input::Opened { flow, key, origin });
            self.arm_receive(turn.ring, index);
            return;
        }
        let birth = Box::new(Birth { key, origin, address: None, pending: Vec::new() });
        let Some(index) = self.slots.insert(fd, State::Handshaking, Some(birth)) else {
            turn.counters.flows_refused += 1;
            return;
        };
        let slot = self.slots.at(index);
        slot.session = Some(Box::new(self.tls.accept(id)));
        slot.watch = self.watches.arm(turn.now, Awaited::Handshake, index);
        self.arm_receive(turn.ring, index);
    }

    /// Arms the receive of a flow; the entry goes to the kernel after this turn's buffers were
    /// published.
    pub(super) fn arm_receive(&mut self, ring: &mut Ring, index: u32) {
        let slot = self.slots.at(index);
        assert!(!slot.has(marks::RECEIVING) && slot.state != State::Free);
        slot.set(marks::RECEIVING);
        ring.receive(slot.fd(), self.buffers.group(), slot.tag(Op::Receive, index));
    }

    /// Event: bytes, the peer's end, or a failure.
    pub fn on_receive<P: Protocol>(&mut self, turn: &mut Turn<'_, P>, completion: Completion) {
        let Completion { tag, result, .. } = completion;
        let index = tag.index();
        let Some(slot) = self.slots.of_tag(tag) else {
            turn.counters.completions_stale += 1;
            completion.buffer().into_iter().for_each(|id| self.buffers.give_back(id));
            return;
        };
        if !completion.has_more() {
            slot.clear(marks::RECEIVING);
        }
        if result > 0 {
            let id = completion.buffer().expect("data comes in a buffer");
            // SAFETY: the completion names it, and it is given back right after.
            let bytes = unsafe { self.buffers.bytes(id, result as usize) };
            self.take_in(turn, index, bytes);
            self.buffers.give_back(id);
        } else if result == -libc::ENOBUFS {
            turn.counters.receives_starved += 1;
        } else if result == 0 {
            self.depart(turn, Departed { tag, why: CloseReason::Peer });
        } else {
            self.depart(turn, Departed { tag, why: CloseReason::Reset });
        }
        // A multishot may end while it carries data, and for want of buffers.
        if !completion.has_more() && (result > 0 || result == -libc::ENOBUFS) {
            self.starve(tag);
        }
        self.settle(index);
    }

    fn take_in<P: Protocol>(&mut self, turn: &mut Turn<'_, P>, index: u32, bytes: &mut [u8]) {
        let slot = self.slots.at(index);
        match slot.state {
            State::Open if slot.session.is_none() => {
                let flow = self.slots.flow(index);
                turn.protocol.handle(turn.now, Input::Data { flow, bytes });
            }
            State::Open => self.unseal(turn, index, bytes),
            State::Handshaking => self.shake_hands(turn, index, bytes),
            // What a closing flow still sends is read, so that its end is seen, and discarded.
            State::Free
            | State::Connecting
            | State::Flushing
            | State::Lingering
            | State::Ending => {}
        }
    }

    fn starve(&mut self, tag: Tag) {
        if let Some(slot) = self.slots.of_tag(tag)
            && slot.state != State::Ending
        {
            slot.set(marks::STARVED);
            self.starved.push_back(tag);
        }
    }

    /// Shows the kernel the buffers that were read, and re-arms flows whose receive has ended; not
    /// while completions wait, because these hold the buffers that would be found missing again,
    /// but never put off for long.
    pub fn publish_buffers(&mut self, ring: &mut Ring) {
        self.buffers.publish();
        if self.starved.is_empty() {
            return;
        }
        self.starved_turns += 1;
        if ring.has_completions() && self.starved_turns < STARVED_TURNS_MAX {
            return;
        }
        self.starved_turns = 0;
        for _ in 0..self.starved.len().min(usize::from(STREAM_BUFFERS) / 2) {
            let Some(tag) = self.starved.pop_front() else { break };
            let Some(slot) = self.slots.of_tag(tag) else { continue };
            if slot.has(marks::STARVED) {
                slot.clear(marks::STARVED);
                if slot.state != State::Ending && !slot.has(marks::RECEIVING) {
                    self.arm_receive(ring, tag.index());
                }
            }
        }
    }

    /// Whether flows wait to be armed again.
    pub fn has_starved(&self) -> bool {
        !self.starved.is_empty()
    }

    /// Ends without the ring's consent: what the kernel may still write to or read from is never
    /// freed.
    pub fn leak(self) {
        self.buffers.leak();
        self.slots.leak();
    }
}

/// Local and remote address of an accepted socket; the local one is asked for only when the
/// listener's is a wildcard.
fn addresses(fd: &OwnedFd, listener: SocketAddr) -> Option<(SocketAddr, SocketAddr)> {
    sys::with_socket(fd.as_raw_fd(), |socket| {
        let remote = socket.peer_addr().ok()?.as_socket()?;
        let local = if listener.ip().is_unspecified() {
            socket.local_addr().ok()?.as_socket()?
        } else {
            listener
        };
        Some((local, remote))
    })
}

/// Acknowledgements ride on answers from the first segment on; saves a fifth of the CPU time of a
/// message. A refusal costs nothing but that.
pub(super) fn delay_acknowledgements(fd: RawFd) {
    let _ = sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 0);
}
