//! Alarms: everything that happens because time passed.

use crate::base::event::CloseReason;
use crate::base::id::FlowId;
use crate::base::limits::{ALARMS_A_TURN, EXPIRIES_A_TURN, MEASURE_INTERVAL};
use crate::base::slab::SlabKey;
use crate::flow::keepalive::{self, Duty};
use crate::transaction::Timer;
use crate::ws::frame::{Opcode, write_frame};

use super::Engine;
use super::lingering::Patience;
use super::output::Output;

/// What an entry of the timer wheel is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Alarm {
    /// A timer of a server transaction.
    Server(SlabKey, Timer),
    /// A timer of a client transaction.
    Client(SlabKey, Timer),
    /// The target of a client transaction has been silent for long enough to try another.
    Silence(SlabKey),
    /// A group of a server transaction's targets has rung long enough.
    Group(SlabKey),
    /// Keep-alive of a flow, or the deadline of its upgrade.
    Flow(FlowId),
    /// The token that the flow's client came by may have expired.
    Token(FlowId),
    /// A write of the flow is pending; so many were taken when the alarm was set.
    Write(FlowId, u32),
    /// A message on the flow is unfinished; so many were whole when the alarm was set.
    Partial(FlowId, u32),
    /// Bindings may have expired.
    Expiry,
    /// Something has waited long enough for a client that lost its flow.
    Wait(SlabKey),
    /// A flow was asked whether it lives.
    Probe(FlowId),
    /// The REGISTER that waits longest for the store has waited long enough.
    Store,
    /// The next step of the walk over bindings that need pings.
    Pings,
    /// The answered request that waits longest for repeats may have waited long enough.
    Lingering(Patience),
    /// The same of an accepted INVITE.
    Accepted,
    /// There are more users who are gone.
    Departed,
    /// Flows that are gone have left more transactions.
    Losses,
}

impl Engine {
    /// Runs the alarms that are due, of many the first: the others are due still.
    pub(super) fn run_alarms(&mut self) {
        for _ in 0..ALARMS_A_TURN {
            let Some(alarm) = self.wheel.pop_expired(self.now) else { return };
            self.counters.timers_fired += 1;
            match alarm {
                Alarm::Server(tx, timer) => self.on_server_timer(tx, timer),
                Alarm::Client(client, timer) => self.on_client_timer(client, timer),
                Alarm::Silence(client) => self.on_silence(client),
                Alarm::Group(tx) => self.on_group_timer(tx),
                Alarm::Flow(flow) => self.on_keepalive(flow),
                Alarm::Token(flow) => self.on_token_alarm(flow),
                Alarm::Write(flow, mark) => self.on_write_alarm(flow, mark),
                Alarm::Partial(flow, mark) => self.on_partial_alarm(flow, mark),
                Alarm::Expiry => self.on_expiry(),
                Alarm::Wait(waiter) => self.on_wait_over(waiter),
                Alarm::Probe(flow) => self.on_probe_over(flow),
                Alarm::Store => self.on_store_alarm(),
                Alarm::Pings => self.on_ping_alarm(),
                Alarm::Lingering(patience) => self.on_linger_alarm(patience),
                Alarm::Accepted => self.on_accepted_alarm(),
                Alarm::Departed => self.end_departed(),
                Alarm::Losses => self.on_losses_alarm(),
            }
        }
    }

    fn on_keepalive(&mut self, name: FlowId) {
        let index = &self.transactions;
        let busy = index.by_source.has(name) || index.by_target.has(name);
        let config = &self.config;
        let Some(flow) = self.flows.get_mut(name) else { return };
        flow.timer = None;
        let after = match keepalive::look(flow, busy, self.now, &config.limits, &config.timers) {
            Duty::Wait(after) => after,
            Duty::Close(why) => return self.close(name, why),
            Duty::Ping(after) => {
                let payload = flow.on_ping_sent(self.now);
                self.write_raw(name, |out| write_frame(out, Opcode::Ping, &payload));
                after
            }
        };
        let after = if self.measure(name) { after.min(MEASURE_INTERVAL) } else { after };
        let id = self.wheel.arm(self.now + after, Alarm::Flow(name));
        if let Some(flow) = self.flows.get_mut(name) {
            flow.timer = Some(id);
        }
    }

    /// Asks for the round-trip time of a flow that we do not ping ourselves; false for the others.
    pub(super) fn measure(&mut self, name: FlowId) -> bool {
        let flow = self.flows.get(name);
        let is_unpinged = flow.is_some_and(|flow| !flow.path.transport.is_websocket());
        if is_unpinged {
            self.outputs.push_back(Output::Measure { flow: name });
        }
        is_unpinged
    }

    /// A write that made no way in all that time: the peer does not read.
    fn on_write_alarm(&mut self, name: FlowId, mark: u32) {
        let Some(flow) = self.flows.get_mut(name) else { return };
        flow.write_timer = None;
        if flow.queued_writes() == 0 {
            return;
        }
        if flow.sent_writes == mark {
            return self.close(name, CloseReason::Slow);
        }
        let mark = flow.sent_writes;
        let at = self.now + self.config.limits.write_timeout;
        flow.write_timer = Some(self.wheel.arm(at, Alarm::Write(name, mark)));
    }

    /// The same message is still unfinished: its sender trickles.
    fn on_partial_alarm(&mut self, name: FlowId, mark: u32) {
        let Some(flow) = self.flows.get_mut(name) else { return };
        flow.partial_timer = None;
        if !flow.layer.is_partial() {
            return;
        }
        if flow.whole_in == mark {
            return self.close(name, CloseReason::Timeout);
        }
        let mark = flow.whole_in;
        let at = self.now + self.config.limits.message_timeout;
        flow.partial_timer = Some(self.wheel.arm(at, Alarm::Partial(name, mark)));
    }

    /// Removes a bounded number of expired bindings and comes back for the rest.
    fn on_expiry(&mut self) {
        self.expiry_alarm = None;
        self.expire_bindings(EXPIRIES_A_TURN);
        self.arm_expiry();
    }
}
