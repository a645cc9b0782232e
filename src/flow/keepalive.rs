//! When to ping a flow and when to give it up (RFC 5626 §4.4, RFC 6455 §5.5.2): decided from what
//! was heard and when. Absent on purpose: the alarms themselves and the bytes of a ping.

use std::time::Duration;

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
    match flow.layer {
        Layer::Upgrade(_) => limits.handshake_timeout,
        Layer::WebSocket { .. } => limits.ping_interval,
        _ => limits.idle_timeout,
    }
}

/// What a flow needs now. WebSocket flows are pinged when nothing was heard for the interval, and
/// given up when nothing is heard in the time for a pong; an upgrade has its deadline; plain
/// streams may be silent for the idle time, unless `busy` (a transaction of theirs lives).
pub fn look(flow: &Flow, busy: bool, now: Time, limits: &Limits) -> Duty {
    let silent = now.saturating_since(flow.heard_at);
    match flow.layer {
        Layer::Upgrade(_) => Duty::Close(CloseReason::Timeout),
        Layer::WebSocket { .. } if flow.awaits_pong => Duty::Close(CloseReason::Pong),
        Layer::WebSocket { .. } if silent >= limits.ping_interval => {
            Duty::Ping(limits.pong_timeout)
        }
        Layer::WebSocket { .. } => Duty::Wait(limits.ping_interval - silent),
        _ if busy => Duty::Wait(limits.idle_timeout),
        _ if silent >= limits.idle_timeout => Duty::Close(CloseReason::Idle),
        _ => Duty::Wait(limits.idle_timeout - silent),
    }
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
        assert_eq!(look(&flow, false, at(10), &limits), Duty::Close(CloseReason::Timeout));
    }

    #[test]
    fn a_silent_websocket_is_pinged_and_then_given_up() {
        let limits = Limits::default();
        let mut flow = flow(Transport::Wss);
        flow.layer = Layer::WebSocket { receiver: Receiver::new(), text: true };
        flow.heard_at = at(5);
        assert_eq!(look(&flow, false, at(25), &limits), Duty::Wait(Duration::from_secs(5)));
        assert_eq!(look(&flow, false, at(30), &limits), Duty::Ping(limits.pong_timeout));
        flow.awaits_pong = true;
        assert_eq!(look(&flow, true, at(40), &limits), Duty::Close(CloseReason::Pong));
    }

    #[test]
    fn a_plain_stream_ends_by_silence_only_when_nothing_runs_on_it() {
        let limits = Limits::default();
        let flow = flow(Transport::Tcp);
        assert_eq!(look(&flow, true, at(900), &limits), Duty::Wait(limits.idle_timeout));
        assert_eq!(look(&flow, false, at(900), &limits), Duty::Close(CloseReason::Idle));
    }
}
