//! Writing to flows: what the protocol writes in a turn goes out in one send a flow; while a send
//! is with the kernel, more waits as plaintext.
#![allow(unsafe_code)]

use io_uring::{opcode, types};

use super::closing::Farewell;
use super::protocol::Protocol;
use super::ring::{Completion, Op};
use super::slots::{Slot, State, marks};
use super::streams::{Later, Streams};
use super::tls::TlsError;
use super::turn::Turn;
use super::watch::{self, Awaited};
use super::writer::WriterPool;
use crate::base::event::CloseReason;
use crate::base::id::FlowId;
use crate::base::limits::{DUTY_FACTOR, HANDSHAKE_BYTES_MAX, TRUNK_FACTOR};
use crate::engine::Input;

impl Streams {
    /// Command: the protocol's write. It goes out with the end of the turn, or when the send before
    /// it is done.
    pub fn write(&mut self, flow: FlowId, bytes: &[u8]) {
        let limits = &self.config.limits;
        // The protocol keeps within its own bounds, of which this is the largest; more is a fault,
        // or a peer that found one.
        let queue_max = DUTY_FACTOR * TRUNK_FACTOR * limits.flow_queue_bytes_max;
        let bytes_max = queue_max + 2 * limits.message_bytes_max;
        let Some(slot) = self.slots.of_flow(flow) else { return };
        if slot.state != State::Open {
            return;
        }
        let writer = slot.writer.get_or_insert_with(|| self.writers.take());
        if !writer.write(bytes, bytes_max) {
            self.later.push_back(Later::Overflowed(flow));
        } else if !slot.has(marks::SENDING) {
            self.mark_dirty(flow.slot());
        }
    }

    /// Event: a flow's queue overflowed.
    pub fn on_overflow<P: Protocol>(&mut self, turn: &mut Turn<'_, P>, flow: FlowId) {
        if self.slots.of_flow(flow).is_some_and(|slot| slot.state == State::Open) {
            self.end(turn, flow.slot(), CloseReason::Slow, Farewell::Abort);
        }
    }

    /// Queues bytes that TLS made. A peer that makes us answer without reading is cut off.
    pub(super) fn write_sealed<P: Protocol>(
        &mut self,
        turn: &mut Turn<'_, P>,
        index: u32,
        bytes: &[u8],
    ) {
        let slot = self.slots.at(index);
        let writer = slot.writer.get_or_insert_with(|| self.writers.take());
        if writer.sealed.len() + bytes.len() > HANDSHAKE_BYTES_MAX {
            self.end(turn, index, CloseReason::Slow, Farewell::Abort);
            return;
        }
        writer.sealed.extend_from_slice(bytes);
        if !slot.has(marks::SENDING) {
            self.mark_dirty(index);
        }
    }

    pub(super) fn mark_dirty(&mut self, index: u32) {
        let slot = self.slots.at(index);
        if !slot.has(marks::DIRTY) {
            slot.set(marks::DIRTY);
            self.dirty.push(index);
        }
    }

    /// Makes sends of what was written. False: there was nothing to do.
    pub fn flush<P: Protocol>(&mut self, turn: &mut Turn<'_, P>) -> bool {
        if self.dirty.is_empty() {
            return false;
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let slot = self.slots.at(index);
            // The mark tells whether it is still the flow that was meant.
            if slot.has(marks::DIRTY) {
                slot.clear(marks::DIRTY);
                self.send(turn, index);
            }
        }
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
        true
    }

    fn send<P: Protocol>(&mut self, turn: &mut Turn<'_, P>, index: u32) {
        let slot = self.slots.at(index);
        let may_send = matches!(slot.state, State::Handshaking | State::Open | State::Flushing);
        if !may_send || slot.has(marks::SENDING) {
            return;
        }
        match fill_flight(slot, &mut self.writers) {
            Ok(true) => {}
            Ok(false) => {
                self.release_writer(index);
                if self.slots.at(index).state == State::Flushing {
                    self.shut_write(turn, index);
                }
                return;
            }
            // Sealing fails only when the keys are used up or the session is broken.
            Err(_) => return self.end(turn, index, CloseReason::Protocol, Farewell::Abort),
        }
        if slot.state == State::Open && slot.watch == watch::NONE {
            slot.watch = self.watches.arm(turn.now, Awaited::Write, index);
        }
        slot.set(marks::SENDING);
        let (fd, tag) = (types::Fd(slot.fd()), slot.tag(Op::Send, index));
        let flight = &slot.writer.as_ref().expect("filled above").flight;
        let entry = opcode::Send::new(fd, flight.as_ptr(), flight.len() as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .user_data(tag.to_user_data());
        // SAFETY: `flight` is not touched, and the slot keeps writer and descriptor, until SENDING
        // is cleared.
        unsafe { turn.ring.push(entry) };
    }

    /// Event: the kernel took a send, or did not.
    pub fn on_sent<P: Protocol>(&mut self, turn: &mut Turn<'_, P>, completion: Completion) {
        let index = completion.tag.index();
        let Some(slot) = self.slots.of_tag(completion.tag) else {
            turn.counters.completions_stale += 1;
            return;
        };
        slot.clear(marks::SENDING);
        let writer = slot.writer.as_mut().expect("a send has a writer");
        let is_whole = usize::try_from(completion.result) == Ok(writer.flight.len());
        let count = std::mem::take(&mut writer.flight_count);
        let is_idle = writer.is_idle();
        writer.flight.clear();
        if slot.state == State::Ending {
            return self.settle(index);
        }
        if !is_whole {
            return self.end(turn, index, CloseReason::Reset, Farewell::Abort);
        }
        let state = slot.state;
        if state == State::Open {
            self.watches.cancel(&mut slot.watch);
            if count.writes > 0 {
                let flow = self.slots.flow(index);
                let (bytes, writes) = (count.bytes, count.writes);
                turn.protocol.handle(turn.now, Input::Sent { flow, bytes, writes });
            }
        }
        if is_idle {
            self.release_writer(index);
        }
        if !is_idle || state == State::Flushing {
            self.mark_dirty(index);
        }
    }

    pub(super) fn release_writer(&mut self, index: u32) {
        let slot = self.slots.at(index);
        assert!(!slot.has(marks::SENDING));
        if let Some(writer) = slot.writer.take() {
            self.writers.give_back(writer);
        }
    }
}

/// Moves what waits into the flight, sealed. False: nothing waits.
fn fill_flight(slot: &mut Slot, writers: &mut WriterPool) -> Result<bool, TlsError> {
    let is_secure = slot.session.is_some();
    let says_goodbye = is_secure && slot.state == State::Flushing && !slot.has(marks::NOTIFIED);
    if slot.writer.is_none() && !says_goodbye {
        return Ok(false);
    }
    let writer = slot.writer.get_or_insert_with(|| writers.take());
    let has_plain = writer.begin(is_secure);
    if let Some(session) = &mut slot.session {
        if has_plain {
            session.seal(&writer.plain, &mut writer.flight)?;
            writer.plain.clear();
        }
        if says_goodbye {
            session.close_notify(&mut writer.flight);
            slot.marks |= marks::NOTIFIED;
        }
    }
    Ok(!writer.flight.is_empty())
}
