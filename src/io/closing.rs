//! The end of a flow. Closing the descriptor is the last step, never the first: close(2) ends
//! neither a multishot receive nor a pending send, and a descriptor closed too early is given to
//! the next connection.
//!
//! In order: send what is queued ([`CLOSE_TIME`]) → shut our side → await the peer's
//! ([`LINGER_TIME`], so that our last bytes are not destroyed by a reset) → shut both, await the
//! last completions → close. A flow that overstays is cancelled by force, and counted.
//!
//! Flows whose peers are gone, or that overstay, are ended after the work of the living, and only
//! [`ENDS_A_TURN`] a turn: thousands may be lost at once.
//!
//! [`ENDS_A_TURN`]: crate::base::limits::ENDS_A_TURN
//! [`CLOSE_TIME`]: crate::base::limits::CLOSE_TIME
//! [`LINGER_TIME`]: crate::base::limits::LINGER_TIME

use std::net::Shutdown;
use std::time::Duration;

use super::protocol::Protocol;
use super::ring::{Op, Ring, Tag};
use super::slots::{State, marks};
use super::streams::Streams;
use super::sys;
use super::turn::Turn;
use super::watch::Awaited;
use crate::base::event::CloseReason;
use crate::base::id::FlowId;
use crate::base::time::Time;
use crate::engine::{Input, Origin};

/// How a flow is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// What was written goes out first.
    Flush,
    /// At once; what was written is dropped, and the peer sees a reset if it did not end the flow
    /// itself.
    Abort,
}

/// A flow whose peer is gone.
#[derive(Clone, Copy, Debug)]
pub struct Departed {
    /// An operation of that use of its slot.
    pub tag: Tag,
    /// Whether it has ended the flow, or reset it.
    pub why: CloseReason,
}

impl Streams {
    /// Whether flows wait to be ended.
    pub fn has_departed(&self) -> bool {
        !self.departed.is_empty()
    }

    /// Event: a flow's peer is gone. It is ended once the living have been served, or in a turn to
    /// come.
    pub(super) fn depart<P: Protocol>(&mut self, turn: &mut Turn<'_, P>, departed: Departed) {
        let Some(slot) = self.slots.of_tag(departed.tag) else { return };
        if slot.is_closing() {
            self.end_departed(turn, departed);
        } else if !slot.has(marks::DEPARTED) {
            slot.set(marks::DEPARTED);
            self.departed.push_back(departed);
        }
    }

    /// Ends flows whose peers are gone, as many as this turn may.
    pub fn end_some<P: Protocol>(&mut self, turn: &mut Turn<'_, P>) {
        while self.ends_left > 0
            && let Some(departed) = self.departed.pop_front()
        {
            if let Some(slot) = self.slots.of_tag(departed.tag) {
                slot.clear(marks::DEPARTED);
                self.ends_left -= 1;
                self.end_departed(turn, departed);
            }
        }
    }

    fn end_departed<P: Protocol>(&mut self, turn: &mut Turn<'_, P>, departed: Departed) {
        let Departed { tag, why } = departed;
        let how = if why == CloseReason::Reset { Farewell::Abort } else { Farewell::Flush };
        self.end(turn, tag.index(), why, how);
        self.settle(tag.index());
    }

    /// Command: the protocol closes a flow, which it has forgotten already.
    pub fn close(&mut self, now: Time, flow: FlowId) {
        if self.slots.of_flow(flow).is_some_and(|slot| slot.state == State::Open) {
            self.begin_flush(now, flow.slot());
        }
    }

    /// Ends every flow, because the shard is to stop.
    pub fn close_all<P: Protocol>(&mut self, turn: &mut Turn<'_, P>) {
        for index in self.slots.indices() {
            let how = match self.slots.at(index).state {
                State::Open => Farewell::Flush,
                State::Connecting | State::Handshaking => Farewell::Abort,
                State::Free | State::Flushing | State::Lingering | State::Ending => continue,
            };
            self.end(turn, index, CloseReason::Drain, how);
        }
    }

    /// Ends a flow for a reason that the protocol must hear, unless the flow is ending already and
    /// in order.
    pub(super) fn end<P: Protocol>(
        &mut self,
        turn: &mut Turn<'_, P>,
        index: u32,
        why: CloseReason,
        how: Farewell,
    ) {
        let flow = self.slots.flow(index);
        let slot = self.slots.at(index);
        let state = slot.state;
        if matches!(state, State::Ending | State::Free) {
            return;
        }
        let origin = slot.birth.as_ref().map(|birth| birth.origin);
        match (state, origin) {
            (State::Open, _) => turn.protocol.handle(turn.now, Input::Closed { flow, why }),
            (State::Connecting | State::Handshaking, Some(Origin::Connected(connect))) => {
                turn.protocol.handle(turn.now, Input::ConnectFailed { connect });
            }
            _ => {}
        }
        if state == State::Handshaking {
            turn.counters.tls_handshakes_failed += 1;
        }
        match how {
            Farewell::Abort => self.abort(turn.ring, turn.now, index),
            Farewell::Flush if !self.slots.at(index).is_closing() => {
                self.begin_flush(turn.now, index);
            }
            Farewell::Flush => {}
        }
    }

    fn begin_flush(&mut self, now: Time, index: u32) {
        let slot = self.slots.at(index);
        slot.state = State::Flushing;
        slot.birth = None;
        let is_sending = slot.has(marks::SENDING);
        self.await_end(now, Awaited::Close, index);
        if !is_sending {
            self.mark_dirty(index);
        }
    }

    /// Everything went out: shuts our side.
    pub(super) fn shut_write<P: Protocol>(&mut self, turn: &mut Turn<'_, P>, index: u32) {
        let slot = self.slots.at(index);
        // A peer that is gone leaves nothing to shut.
        let _ = sys::with_socket(slot.fd(), |socket| socket.shutdown(Shutdown::Write));
        if slot.has(marks::RECEIVING | marks::STARVED) {
            slot.state = State::Lingering;
            self.await_end(turn.now, Awaited::Linger, index);
        } else {
            slot.state = State::Ending;
            self.settle(index);
        }
    }

    /// Lets the kernel end everything that it has of a flow.
    fn abort(&mut self, ring: &mut Ring, now: Time, index: u32) {
        let slot = self.slots.at(index);
        slot.state = State::Ending;
        let _ = sys::with_socket(slot.fd(), |socket| {
            // A reset on close, so that the kernel keeps nothing for a peer that does not read.
            let _ = socket.set_linger(Some(Duration::ZERO));
            socket.shutdown(Shutdown::Both)
        });
        if !slot.has(marks::CONNECTING) {
            slot.birth = None;
        }
        if let Some(writer) = &mut slot.writer {
            writer.drop_waiting();
        }
        for (mark, op) in IN_KERNEL {
            if slot.has(mark) {
                ring.cancel(slot.tag(op, index));
            }
        }
        self.await_end(now, Awaited::Close, index);
        self.settle(index);
    }

    /// Frees a slot that is ending, once the kernel has nothing of it any more.
    pub(super) fn settle(&mut self, index: u32) {
        let slot = self.slots.at(index);
        if slot.state != State::Ending && !self.has_peer_ended(index) {
            return;
        }
        let slot = self.slots.at(index);
        if slot.has(marks::IN_KERNEL) {
            return;
        }
        slot.state = State::Ending;
        self.watches.cancel(&mut slot.watch);
        self.release_writer(index);
        self.slots.remove(index);
    }

    /// Whether a lingering flow has seen its peer's end.
    fn has_peer_ended(&mut self, index: u32) -> bool {
        let slot = self.slots.at(index);
        slot.state == State::Lingering && !slot.has(marks::RECEIVING | marks::STARVED)
    }

    /// Event: `now` may have passed a deadline. What this turn may not end any more is still due in
    /// the next.
    pub fn on_deadlines<P: Protocol>(&mut self, turn: &mut Turn<'_, P>) {
        while self.ends_left > 0
            && let Some((awaited, index)) = self.watches.expired(turn.now)
        {
            self.ends_left -= 1;
            match awaited {
                Awaited::Handshake | Awaited::Connect => {
                    self.end(turn, index, CloseReason::Timeout, Farewell::Abort);
                }
                Awaited::Write => self.end(turn, index, CloseReason::Slow, Farewell::Abort),
                Awaited::Close => {
                    turn.counters.closes_forced += 1;
                    self.abort(turn.ring, turn.now, index);
                }
                Awaited::Linger => self.abort(turn.ring, turn.now, index),
            }
        }
        self.resume_accepting(turn.ring, turn.now);
    }

    fn await_end(&mut self, now: Time, awaited: Awaited, index: u32) {
        let slot = self.slots.at(index);
        self.watches.cancel(&mut slot.watch);
        slot.watch = self.watches.arm(now, awaited, index);
    }
}

const IN_KERNEL: [(u8, Op); 3] =
    [(marks::RECEIVING, Op::Receive), (marks::SENDING, Op::Send), (marks::CONNECTING, Op::Connect)];

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::sync::Arc;

    use super::*;
    use crate::base::id::{ListenerId, ShardId, Transport};
    use crate::base::limits::{CLOSE_TIME, ENDS_A_TURN};
    use crate::base::metrics::Counters;
    use crate::engine::Setup;
    use crate::io::clock::Clock;
    use crate::io::ring::Wait;
    use crate::io::testing::{Echo, config};
    use crate::io::tls::{TlsContext, TlsMaterial};

    const FLOWS: usize = 2 * ENDS_A_TURN + 3;
    /// How many flows have ended after the first turn, the second and the third.
    const ENDED: [usize; 3] = [ENDS_A_TURN, 2 * ENDS_A_TURN, FLOWS];

    /// Runs `work` with the streams of a shard that has taken [`FLOWS`] connections.
    fn with_flows(work: impl FnOnce(&mut Streams, &mut Turn<'_, Echo>)) {
        let config = Arc::new(config(&[(Transport::Tcp, "127.0.0.1:0")]));
        let material = TlsMaterial::self_signed("test", &[]).unwrap();
        let tls = TlsContext::new(&material, &config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners = [(ListenerId(0), listener.as_raw_fd())].into_iter();
        let (mut ring, clock) = (Ring::new().unwrap(), Clock::start());
        let shard = ShardId(0);
        let mut streams =
            Streams::new(&ring, shard, 0, Arc::clone(&config), tls, listeners).unwrap();
        let (epoch, seed, secret) = (1, [1; 32], [2; 32]);
        let setup = Setup { shard, shards: 1, incarnation: 0, epoch, seed, secret, config };
        let (mut reports, _log) = rtrb::RingBuffer::new(1);
        let mut turn = Turn {
            ring: &mut ring,
            protocol: &mut Echo::new(Time::ZERO, setup),
            counters: &mut Counters::default(),
            reports: &mut reports,
            now: Time::ZERO,
            clock,
        };
        let peers: Vec<TcpStream> = (0..FLOWS)
            .map(|_| {
                let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                streams.claim(&mut turn, 0, listener.accept().unwrap().0.into());
                peer
            })
            .collect();
        assert_eq!(streams.used(), FLOWS);
        work(&mut streams, &mut turn);
        drop(peers);
    }

    #[test]
    fn a_turn_ends_only_some_of_many_flows_whose_peers_are_gone() {
        with_flows(|streams, turn| {
            streams.begin_turn();
            for index in streams.slots.indices() {
                let tag = streams.slots.at(index).tag(Op::Receive, index);
                for why in [CloseReason::Peer, CloseReason::Reset] {
                    streams.depart(turn, Departed { tag, why });
                }
            }
            assert_eq!(turn.protocol.counters().flows_closed, 0, "the living go first");
            for ended in ENDED {
                assert!(streams.has_departed());
                streams.begin_turn();
                streams.end_some(turn);
                assert_eq!(turn.protocol.counters().flows_closed, ended as u64);
            }
            assert!(!streams.has_departed());
        });
    }

    /// Else the shard of a draining process would look at it again and again without end.
    #[test]
    fn a_listener_that_has_ceased_is_not_waited_for() {
        with_flows(|streams, turn| {
            streams.resume_accepting(turn.ring, turn.now);
            turn.ring.enter(Wait::No).unwrap();
            streams.cease_accepting(turn.ring);
            let mut has_ended = false;
            while !has_ended {
                turn.ring.enter(Wait::Forever).unwrap();
                turn.ring.run_deferred();
                while let Some(completion) = turn.ring.next_completion() {
                    if completion.tag.op() == Some(Op::Accept) {
                        has_ended |= !completion.has_more();
                        streams.on_accept(turn, completion);
                    }
                }
            }
            assert_eq!(streams.next_deadline(), None);
        });
    }

    #[test]
    fn a_turn_forces_only_some_of_many_flows_that_overstay() {
        with_flows(|streams, turn| {
            for index in streams.slots.indices() {
                let flow = streams.slots.flow(index);
                streams.close(turn.now, flow);
            }
            turn.now += CLOSE_TIME;
            for ended in ENDED {
                assert_eq!(streams.next_deadline(), Some(turn.now), "some are due");
                streams.begin_turn();
                streams.on_deadlines(turn);
                assert_eq!(turn.counters.closes_forced, ended as u64);
            }
            assert!(streams.next_deadline() > Some(turn.now));
        });
    }
}
