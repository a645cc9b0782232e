//! TLS between the socket and the protocol: handshakes, which may take a quarter of a turn, and
//! records, which are opened in the receive buffer.

use super::closing::{Departed, Farewell};
use super::log_line::Report;
use super::protocol::Protocol;
use super::ring::Op;
use super::slots::{State, marks};
use super::streams::Streams;
use super::tls::Progress;
use super::turn::Turn;
use crate::base::event::CloseReason;
use crate::base::limits::{ENDS_A_TURN, HANDSHAKE_BYTES_MAX, HANDSHAKE_SHARE, TURN_TIME};
use crate::engine::{Input, Origin};

impl Streams {
    /// A new turn has all of its time for handshakes and ends.
    pub fn begin_turn(&mut self) {
        self.handshake_spent = std::time::Duration::ZERO;
        self.ends_left = ENDS_A_TURN;
    }

    /// Whether handshakes wait for time.
    pub fn has_put_off(&self) -> bool {
        !self.put_off.is_empty()
    }

    /// Bytes of a handshake: handled now while the turn has time for it, else put off.
    pub(super) fn shake_hands<P: Protocol>(
        &mut self,
        turn: &mut Turn<'_, P>,
        index: u32,
        bytes: &mut [u8],
    ) {
        let slot = self.slots.at(index);
        let is_behind = slot.has(marks::PUT_OFF);
        if !is_behind && self.handshake_spent < TURN_TIME / HANDSHAKE_SHARE {
            return self.unseal(turn, index, bytes);
        }
        let birth = slot.birth.as_mut().expect("a handshaking slot has its birth");
        if birth.pending.len() + bytes.len() > HANDSHAKE_BYTES_MAX {
            return self.end(turn, index, CloseReason::Protocol, Farewell::Abort);
        }
        birth.pending.extend_from_slice(bytes);
        if !is_behind {
            slot.set(marks::PUT_OFF);
            let tag = slot.tag(Op::Receive, index);
            self.put_off.push_back(tag);
            turn.counters.handshakes_deferred += 1;
        }
    }

    /// Handles handshakes that were put off: within the turn's share, or for a whole turn when
    /// nothing else waits.
    pub fn resume_handshakes<P: Protocol>(&mut self, turn: &mut Turn<'_, P>, is_idle: bool) {
        let allowed = if is_idle { TURN_TIME } else { TURN_TIME / HANDSHAKE_SHARE };
        while self.handshake_spent < allowed {
            let Some(tag) = self.put_off.pop_front() else { return };
            let Some(slot) = self.slots.of_tag(tag) else { continue };
            slot.clear(marks::PUT_OFF);
            if slot.state == State::Handshaking
                && let Some(birth) = &mut slot.birth
            {
                let mut pending = std::mem::take(&mut birth.pending);
                self.unseal(turn, tag.index(), &mut pending);
                self.settle(tag.index());
            }
        }
    }

    /// Feeds received bytes to the session of a flow and the plaintext to the protocol.
    pub(super) fn unseal<P: Protocol>(
        &mut self,
        turn: &mut Turn<'_, P>,
        index: u32,
        bytes: &mut [u8],
    ) {
        let flow = self.slots.flow(index);
        let slot = self.slots.at(index);
        let mut session = slot.session.take().expect("a secure slot has its session");
        let mut birth = slot.birth.take();
        let started = birth.is_some().then(|| turn.clock.now());
        let mut sealed = std::mem::take(&mut self.scratch);
        let (protocol, now) = (&mut *turn.protocol, turn.now);
        let progress = session.receive(bytes, &mut sealed, &mut |plain| {
            // The first data may arrive in one piece with the end of the handshake.
            if let Some(birth) = birth.take() {
                let (key, origin) = (birth.key, birth.origin);
                protocol.handle(now, Input::Opened { flow, key, origin });
            }
            if !plain.is_empty() {
                protocol.handle(now, Input::Data { flow, bytes: plain });
            }
        });
        if progress == Progress::Established
            && let Some(birth) = birth.take()
        {
            let (key, origin) = (birth.key, birth.origin);
            turn.protocol.handle(turn.now, Input::Opened { flow, key, origin });
        }
        let is_open = birth.is_none();
        let slot = self.slots.at(index);
        slot.session = Some(session);
        slot.birth = birth;
        if let Some(started) = started {
            self.handshake_spent += turn.clock.now() - started;
            if is_open {
                slot.state = State::Open;
                self.watches.cancel(&mut slot.watch);
                turn.counters.tls_handshakes += 1;
            }
        }
        if !sealed.is_empty() {
            self.write_sealed(turn, index, &sealed);
            sealed.clear();
        }
        self.scratch = sealed;
        self.follow(turn, index, progress);
    }

    /// What a session's end means for its flow.
    fn follow<P: Protocol>(&mut self, turn: &mut Turn<'_, P>, index: u32, progress: Progress) {
        let is_alive = matches!(self.slots.at(index).state, State::Open | State::Handshaking);
        match progress {
            _ if !is_alive => {}
            Progress::Handshaking | Progress::Established => {}
            Progress::PeerClosed => {
                let tag = self.slots.at(index).tag(Op::Receive, index);
                self.depart(turn, Departed { tag, why: CloseReason::Peer });
            }
            Progress::Failed(error) => {
                let slot = self.slots.at(index);
                let key = slot.birth.as_ref().map(|birth| (birth.key.remote, birth.origin));
                if let Some((remote, origin)) = key {
                    let is_outgoing = matches!(origin, Origin::Connected(_));
                    turn.report(Report::TlsFailed { remote, is_outgoing, error });
                }
                // The alert that says why is queued already.
                self.end(turn, index, CloseReason::Protocol, Farewell::Flush);
            }
        }
    }
}
