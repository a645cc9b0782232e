//! When to ping a flow and when to give it up (RFC 5626 §4.4, RFC 6455 §5.5.2): decided from what
//! was heard and when. Absent on purpose: the alarms themselves and the bytes of a ping.

use std::time::Duration;

use crate::base::config::Timers;
use crate::base::event::CloseReason;
use crate::base::limits::Limits;
use crate::base::time::Time;

use super::layers::Layer;
use super::table::Flow;

/// What the keep-alive alarm of a flow is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Nothing yet: look again after this long.
    Wait(Duration),
    /// Send a ping and look again after this long.
    Ping(Duration),
    /// Give the flow up.
    Close(CloseReason),
}

/// How long after opening a flow is looked at first.
pub fn first_look(flow: &Flow, limits: &Limits) -> Duration {
    let after = match flow.layer {
        Layer::Upgrade(_) => return limits.handshake_timeout,
        Layer::WebSocket { .. } => limits.ping_interval,
        _ => limits.idle_timeout,
    };
    if must_prove(flow) { after.min(limits.prove_deadline) } else { after }
}

/// What a flow needs now. WebSocket flows are pinged when nothing was heard for the interval, and
/// given up when nothing is heard in the time for a pong; an upgrade has its deadline; plain
/// streams may be silent for the idle time, unless `busy` (a transaction of theirs lives). A client
/// that has proved nothing by its deadline is not kept.
pub fn look(flow: &Flow, busy: bool, now: Time, limits: &Limits, timers: &Timers) -> Duty {
    let silent = now.saturating_since(flow.heard_at);
    let left = proof_left(flow, busy, now, limits, timers);
    let duty = match flow.layer {
        Layer::Upgrade(_) => Duty::Close(CloseReason::Timeout),
        _ if left.is_some_and(|left| left.is_zero()) => Duty::Close(CloseReason::Unproven),
        Layer::WebSocket { .. } if flow.awaits_pong => Duty::Close(CloseReason::Pong),
        Layer::WebSocket { .. } if silent >= limits.ping_interval => {
            Duty::Ping(limits.pong_timeout)
        }
        Layer::WebSocket { .. } => Duty::Wait(limits.ping_interval - silent),
        _ if busy => Duty::Wait(limits.idle_timeout),
        _ if silent >= limits.idle_timeout => Duty::Close(CloseReason::Idle),
        _ => Duty::Wait(limits.idle_timeout - silent),
    };
    match (duty, left) {
        (Duty::Wait(after), Some(left)) => Duty::Wait(after.min(left)),
        _ => duty,
    }
}

/// Servers that the configuration names, and whom we connected to, owe us no proof.
fn must_prove(flow: &Flow) -> bool {
    flow.accepted && !flow.trunk && !flow.proved
}

/// How long a flow may go on without having proved anything; `None`: as long as it likes. What it
/// asked last may still be answered elsewhere, for as long as a request lives (RFC 3261 §17.1.2.2),
/// but asking again and again prolongs nothing.
fn proof_left(
    flow: &Flow,
    busy: bool,
    now: Time,
    limits: &Limits,
    timers: &Timers,
) -> Option<Duration> {
    if !must_prove(flow) {
        return None;
    }
    let deadline = limits.prove_deadline;
    if busy {
        return Some(deadline);
    }
    let age = now.saturating_since(flow.opened_at);
    let lifetime = timers.t1 * 64;
    let answer_due = flow.since_message(now).map(|since| lifetime.saturating_sub(since));
    let last = (deadline + lifetime).saturating_sub(age);
    let left = deadline.saturating_sub(age);
    Some(answer_due.map_or(left, |due| left.max(due.min(last))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{FlowId, ListenerId, ShardId, StreamPath, Transport};
    use crate::ws::assemble::Receiver;

    fn flow(transport: Transport) -> Flow {
        let flow = FlowId::new(ShardId(0), 0, 1);
        let path = StreamPath { flow, transport, listener: ListenerId(0) };
        let address = "127.0.0.1:5060".parse().expect("an address");
        Flow::new(path, address, address, true, Time::ZERO)
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn an_upgrade_that_does_not_come_ends_the_flow() {
        let limits = Limits::default();
        let flow = flow(Transport::Wss);
        assert_eq!(first_look(&flow, &limits), limits.handshake_timeout);
        assert_eq!(
            look(&flow, false, at(10), &limits, &Timers::default()),
            Duty::Close(CloseReason::Timeout)
        );
    }

    #[test]
    fn a_silent_websocket_is_pinged_and_then_given_up() {
        let limits = Limits::default();
        let mut flow = flow(Transport::Wss);
        flow.layer = Layer::WebSocket { receiver: Receiver::new(), text: true };
        flow.heard_at = at(5);
        assert_eq!(
            look(&flow, false, at(25), &limits, &Timers::default()),
            Duty::Wait(Duration::from_secs(5))
        );
        assert_eq!(
            look(&flow, false, at(30), &limits, &Timers::default()),
            Duty::Ping(limits.pong_timeout)
        );
        flow.awaits_pong = true;
        assert_eq!(
            look(&flow, true, at(40), &limits, &Timers::default()),
            Duty::Close(CloseReason::Pong)
        );
    }

    #[test]
    fn a_plain_stream_ends_by_silence_only_when_nothing_runs_on_it() {
        let limits = Limits::default();
        let mut flow = flow(Transport::Tcp);
        flow.proved = true;
        assert_eq!(
            look(&flow, true, at(900), &limits, &Timers::default()),
            Duty::Wait(limits.idle_timeout)
        );
        assert_eq!(
            look(&flow, false, at(900), &limits, &Timers::default()),
            Duty::Close(CloseReason::Idle)
        );
    }

    #[test]
    fn who_proves_nothing_is_closed_at_the_deadline() {
        let limits = Limits::default();
        let seconds = |seconds| Duty::Wait(Duration::from_secs(seconds));
        let judge = |flow: &Flow, busy, now| look(flow, busy, at(now), &limits, &Timers::default());
        let mut stranger = flow(Transport::Tcp);
        assert_eq!(first_look(&stranger, &limits), limits.prove_deadline);
        assert_eq!(judge(&stranger, false, 20), seconds(40));
        assert_eq!(judge(&stranger, false, 60), Duty::Close(CloseReason::Unproven));
        assert_eq!(judge(&stranger, true, 60), seconds(60));
        // What it asked just before may be answered yet; asking again and again does not help.
        stranger.on_message(at(59));
        assert_eq!(judge(&stranger, false, 60), seconds(31));
        assert_eq!(judge(&stranger, false, 91), Duty::Close(CloseReason::Unproven));
        stranger.on_message(at(90));
        assert_eq!(judge(&stranger, false, 91), seconds(1));
        assert_eq!(judge(&stranger, false, 92), Duty::Close(CloseReason::Unproven));
        for excuse in [
            |flow: &mut Flow| flow.proved = true,
            |flow: &mut Flow| flow.trunk = true,
            |flow: &mut Flow| flow.accepted = false,
        ] {
            let mut flow = flow(Transport::Tcp);
            excuse(&mut flow);
            assert_eq!(judge(&flow, false, 60), seconds(840));
        }
    }
}
