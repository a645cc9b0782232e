//! Keep-alives of datagrams: STUN binding requests are answered, and OPTIONS go to clients behind
//! address translation that registered by UDP and promised no keep-alive of their own (RFC 5626 §4.4
//! is for those who do): the way in stays open while something passes it. Absent on purpose:
//! transactions and retransmissions. The next ping follows anyway, and an answer of any status says
//! all that is asked.

use std::time::Duration;

use crate::base::id::{DatagramPath, FlowRef};
use crate::base::limits::PING_TICK;
use crate::base::slab::SlabKey;
use crate::flow::arrival::Arrival;
use crate::flow::stun::Stun;
use crate::proxy::branch::BranchId;
use crate::proxy::naming;
use crate::registrar::BindingFlow;
use crate::sip::{Message, Method};

use super::Engine;
use super::alarm::Alarm;
use super::mesh::Recipient;
use super::output::Output;

/// How far the walk over the bindings is.
#[derive(Debug, Default)]
pub(super) struct Pings {
    next: u32,
    /// What is owed of the walk: bindings, each as long as the interval.
    credit: Duration,
    is_armed: bool,
    due: Vec<SlabKey>,
}

impl Engine {
    /// Has the next step of the walk come, if there is anybody to ping.
    pub(super) fn arm_pings(&mut self) {
        let is_wanted = !self.config.registrar.nat_ping.is_zero() && self.location.pinged() > 0;
        if is_wanted && !self.pings.is_armed {
            self.pings.is_armed = true;
            self.wheel.arm(self.now + PING_TICK, Alarm::Pings);
        }
    }

    /// One step: as many bindings as make the whole walk take the interval, often none.
    pub(super) fn on_ping_alarm(&mut self) {
        self.pings.is_armed = false;
        let mut due = std::mem::take(&mut self.pings.due);
        due.clear();
        let max = self.pings.share(self.location.len(), self.config.registrar.nat_ping);
        if max > 0 {
            self.pings.next = self.location.to_ping(self.pings.next, max, self.now, &mut due);
        }
        for key in due.drain(..) {
            self.ping(key);
        }
        self.pings.due = due;
        self.arm_pings();
    }

    fn ping(&mut self, key: SlabKey) {
        let missed = self.location.on_ping_sent(key);
        let misses_max = self.config.registrar.nat_ping_misses;
        if misses_max > 0 && usize::from(missed) >= misses_max {
            return self.end_unanswered(key);
        }
        let Some(path) = self.pinged_path(key) else { return };
        let mut block = self.pool.take(512);
        self.write_ping(key, path, &mut block);
        self.counters.pings_sent += 1;
        // A datagram that cannot be sent is a ping that is not answered.
        let _ = self.deliver(FlowRef::Datagram(path), &block, None, Recipient::NOBODY);
        self.pool.put(block);
    }

    fn write_ping(&mut self, key: SlabKey, path: DatagramPath, out: &mut Vec<u8>) {
        let random = self.rng.next_u64();
        let secret = self.ping_secret(key);
        // A ping is no proxied request that could loop: its branch says when it was sent instead. Who
        // changes that lies about its own round trip alone.
        let sent = self.now.wrapping_micros();
        let branch = BranchId { shard: self.shard, client: key, secret, loop_hash: sent };
        let Some(binding) = self.location.find(key) else { return };
        let contact = binding.contact();
        let sent_by = |out: &mut Vec<u8>| naming::write_sent_by(&self.config, path.listener, out);
        let id = format!("{random:016x}");
        out.extend([b"OPTIONS ", contact, b" SIP/2.0\r\nVia: SIP/2.0/UDP "].concat());
        sent_by(out);
        out.extend_from_slice(b";branch=");
        branch.encode(out);
        out.extend_from_slice(b";rport\r\nMax-Forwards: 70\r\nFrom: <sip:");
        sent_by(out);
        out.extend([b">;tag=", id.as_bytes(), b"\r\nTo: <", contact, b">\r\nCall-ID: "].concat());
        out.extend([id.as_bytes(), b"\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"].concat());
    }

    /// A response whose branch names no transaction: is it the answer to a ping?
    pub(super) fn on_ping_response(
        &mut self,
        arrival: &Arrival,
        message: Message<'_>,
        branch: BranchId,
    ) -> bool {
        let is_options = message.cseq().is_ok_and(|cseq| cseq.method == Method::Options);
        if !is_options || branch.secret != self.ping_secret(branch.client) {
            return false;
        }
        let path = self.pinged_path(branch.client);
        if path.is_none_or(|path| path.remote != arrival.remote) {
            return false;
        }
        let took = self.now.wrapping_micros().wrapping_sub(branch.loop_hash);
        self.location.on_ping_answered(branch.client, Duration::from_micros(u64::from(took)));
        self.counters.pings_answered += 1;
        self.counters.responses_absorbed += 1;
        true
    }

    /// A STUN binding request on the SIP port (RFC 5626 §4.4.2) hears its reflexive address, unless
    /// too many came from there.
    pub(super) fn on_stun(&mut self, path: DatagramPath, bytes: &[u8]) {
        let request = match Stun::read(bytes) {
            Some(Stun::Request(request)) => request,
            Some(Stun::Indication) => {
                self.counters.keepalives_received += 1;
                return;
            }
            None => {
                self.counters.dropped_stun += 1;
                return;
            }
        };
        let most = self.config.limits.stun_answers_max;
        if !self.sources.give(path.remote.ip(), most, self.now) {
            self.counters.dropped_stun_excess += 1;
            return;
        }
        self.counters.keepalives_received += 1;
        let start = self.arena.len();
        request.write_answer(path.remote, &mut self.arena);
        let range = start..self.arena.len();
        self.outputs.push_back(Output::WriteTo { path, range });
    }

    fn pinged_path(&self, key: SlabKey) -> Option<DatagramPath> {
        match self.location.find(key)?.flow() {
            BindingFlow::Flow(FlowRef::Datagram(path)) => Some(path),
            _ => None,
        }
    }

    /// What only we and who got the ping know.
    fn ping_secret(&self, key: SlabKey) -> u64 {
        let mut text = [0; 12];
        text[..4].copy_from_slice(b"ping");
        text[4..].copy_from_slice(&key.to_bits().to_be_bytes());
        self.placement.of(&text)
    }
}

impl Pings {
    /// How many of `bindings` are looked at in this step, so that all are seen once in an interval.
    fn share(&mut self, bindings: usize, interval: Duration) -> usize {
        if interval.is_zero() {
            return 0;
        }
        let bindings = u32::try_from(bindings).unwrap_or(u32::MAX);
        self.credit += PING_TICK.saturating_mul(bindings);
        let share = self.credit.as_nanos() / interval.as_nanos();
        let share = u32::try_from(share).unwrap_or(u32::MAX).min(bindings);
        self.credit = self.credit.saturating_sub(interval.saturating_mul(share)).min(interval);
        share as usize
    }
}
