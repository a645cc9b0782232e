//! The end of a flow. Closing the descriptor is the last step, never the first: close(2) ends
//! neither a multishot receive nor a pending send, and a descriptor closed too early is given to
//! the next connection.
//!
//! In order: send what is queued ([`CLOSE_TIME`]) → shut our side → await the peer's
//! ([`LINGER_TIME`], so that our last bytes are not destroyed by a reset) → shut both, await the
//! last completions → close. A flow that overstays is cancelled by force, and counted.
//!
//! [`CLOSE_TIME`]: crate::base::limits::CLOSE_TIME
//! [`LINGER_TIME`]: crate::base::limits::LINGER_TIME

use std::net::Shutdown;
use std::time::Duration;

use super::protocol::Protocol;
use super::ring::{Op, Ring};
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

impl Streams {
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

    /// Event: `now` may have passed a deadline.
    pub fn on_deadlines<P: Protocol>(&mut self, turn: &mut Turn<'_, P>) {
        while let Some((awaited, index)) = self.watches.expired(turn.now) {
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
