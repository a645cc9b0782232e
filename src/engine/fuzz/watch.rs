//! What must hold of every output and after every step, and of the books when all is quiet.

use std::time::Duration;

use crate::base::event::CloseReason;
use crate::base::id::{ConnectId, FlowId, ShardId, Transport};
use crate::base::limits::{DUTY_FACTOR, TRUNK_FACTOR};
use crate::base::metrics::Counters;
use crate::engine::{Engine, Output};
use crate::sip::{Message, Parsed, parse};

use super::net::{Net, State};
use super::settings::CORE;

/// Longer than any transaction lives: Timer C, its CANCEL, and the waits after both.
const QUIET: Duration = Duration::from_secs(185 + 32 + 32 + 32);
/// Longer than any binding lasts.
const EXPIRY: Duration = Duration::from_secs(7300);

impl Net {
    /// Takes all outputs of a shard.
    pub(super) fn watch(&mut self, shard: usize) {
        while let Some(output) = self.engines[shard].pop_output() {
            self.take(shard, output);
        }
    }

    fn take(&mut self, shard: usize, output: Output) {
        match output {
            Output::Write { flow, range } => {
                let bytes = self.engines[shard].bytes(range).to_vec();
                let at = self.open_flow(shard, flow);
                self.written(at, &bytes);
            }
            Output::WriteTo { path, range } => {
                let bytes = self.engines[shard].bytes(range).to_vec();
                assert_eq!(path.listener.index(), Transport::Udp.index());
                assert!(!bytes.is_empty(), "an empty datagram");
                if bytes[0] >= 4 {
                    is_sip(&bytes, Transport::Udp);
                    self.hear(Err(path.remote), &bytes);
                }
            }
            Output::Open { connect, target } => {
                let asked: (ShardId, ConnectId) = (self.born[shard].shard, connect);
                let is_known = self.opens.iter().any(|(by, it, _)| (*by, *it) == asked);
                assert!(!is_known, "{connect:?} twice");
                self.opens.push((asked.0, connect, *target));
            }
            Output::Measure { flow } => {
                self.open_flow(shard, flow);
            }
            Output::Close { flow, .. } => {
                let at = self.open_flow(shard, flow);
                self.closed(at);
            }
            Output::Link { to, message } => {
                assert!(to.index() != shard && to.index() < self.engines.len(), "a link to {to:?}");
                let lane = usize::from(message.is_work());
                self.links[shard * self.engines.len() + to.index()][lane].push_back(message);
            }
            Output::Store { serial, id, change } => self.store(shard, serial, id, change),
            Output::Event(event) => {
                self.engines[shard].bytes(event.text());
            }
        }
    }

    /// The flow that an output names: of that shard, and open.
    fn open_flow(&self, shard: usize, flow: FlowId) -> usize {
        let at = *self.by_name.get(&flow).unwrap_or_else(|| panic!("{flow} never was"));
        assert_eq!(flow.shard().index(), shard, "{flow} is another shard's");
        assert_eq!(self.wires[at].state, State::Open, "output for {flow}");
        at
    }

    /// Bytes on a stream: an HTTP answer first and then whole frames, or SIP and keep-alives.
    fn written(&mut self, at: usize, bytes: &[u8]) {
        let wire = &mut self.wires[at];
        assert!(!bytes.is_empty(), "an empty write");
        wire.pending.push_back(bytes.len() as u32);
        let transport = wire.transport;
        let message = if !transport.is_websocket() {
            bytes
        } else if !wire.upgraded {
            assert!(bytes.starts_with(b"HTTP/1.1 ") && contains(bytes, b"\r\n\r\n"));
            wire.upgraded = bytes.starts_with(b"HTTP/1.1 101 ");
            return;
        } else {
            match server_frame(bytes) {
                (0x1 | 0x2, payload) => payload,
                (0x9, payload) => {
                    wire.pinged = Some(payload.to_vec());
                    return;
                }
                (opcode, _) => return assert!(matches!(opcode, 0x8 | 0xa), "opcode {opcode}"),
            }
        };
        // The ping and the answer to one (RFC 5626 §4.4.1).
        if !matches!(message, b"\r\n" | b"\r\n\r\n") {
            is_sip(message, transport);
            self.hear(Ok(at), message);
        }
    }

    /// After every step: tables are within their limits, and the engines know the flows that there
    /// are.
    pub(super) fn look(&self) {
        for (shard, engine) in self.engines.iter().enumerate() {
            let (gauges, (bindings, transactions)) = (engine.gauges(), self.tables_max);
            assert!(gauges.bindings as usize <= bindings);
            assert!(gauges.server_transactions as usize <= transactions);
            assert!(gauges.client_transactions as usize <= 2 * transactions);
            let mine = || self.wires.iter().filter(move |it| it.id.shard().index() == shard);
            let mut flows = [0; 5];
            for wire in mine().filter(|wire| wire.state == State::Open) {
                flows[wire.transport.index()] += 1;
            }
            assert_eq!(gauges.flows, flows, "living flows by transport");
            let counters = engine.counters();
            let living = counters.flows_accepted + counters.flows_opened - counters.flows_closed;
            assert_eq!(living, flows.iter().sum::<u64>(), "flows by their counters");
        }
        for wire in &self.wires {
            let share = if wire.remote.ip() == CORE.ip() { TRUNK_FACTOR } else { 1 };
            let most = self.queue_max * DUTY_FACTOR * share;
            assert!(wire.pending.len() <= most.max(1), "{} writes wait", wire.pending.len());
        }
    }

    /// The end of a run: once everything is quiet, nothing is left and the books balance.
    pub(super) fn end(&mut self) {
        self.behave();
        self.pass(QUIET);
        self.behave();
        self.look();
        self.is_over();
        if self.restarts == 0 {
            self.balance();
        }
        for flow in 0..self.flows() {
            self.close(flow, CloseReason::Peer);
        }
        self.behave();
        self.pass(EXPIRY);
        self.look();
        for engine in &self.engines {
            let gauges = engine.gauges();
            assert_eq!((gauges.bindings, gauges.aors), (0, 0), "bindings beyond their expiry");
            assert_eq!(engine.next_deadline(), None, "an alarm for nothing");
        }
    }

    /// No transaction lives.
    fn is_over(&self) {
        for engine in &self.engines {
            let gauges = engine.gauges();
            let left = (gauges.server_transactions, gauges.client_transactions);
            assert_eq!(left, (0, 0), "transactions of server and client after the quiet time");
            assert!(engine.is_quiet());
        }
    }

    /// Every message that came in has one outcome.
    fn balance(&self) {
        let count = |of: fn(&Counters) -> u64| -> u64 {
            self.engines.iter().map(Engine::counters).map(of).sum()
        };
        let requests = [
            ("answered", count(|it| it.requests_answered)),
            ("relayed", count(|it| it.requests_relayed)),
            ("expired", count(|it| it.transactions_expired)),
            ("absorbed", count(|it| it.retransmissions_absorbed)),
            ("acks forwarded", count(|it| it.acks_forwarded)),
            ("acks dropped", count(|it| it.dropped_ack)),
        ];
        let sum: u64 = requests.iter().map(|(_, count)| count).sum();
        assert_eq!(count(|it| it.requests_received), sum, "requests and {requests:?}");
        let responses = [
            ("forwarded", count(|it| it.responses_forwarded)),
            ("absorbed", count(|it| it.responses_absorbed)),
            ("stray", count(|it| it.dropped_stray_response)),
            ("foreign", count(|it| it.dropped_foreign_response)),
            ("without Via", count(|it| it.dropped_response_without_via)),
        ];
        let sum: u64 = responses.iter().map(|(_, count)| count).sum();
        assert_eq!(count(|it| it.responses_received), sum, "responses and {responses:?}");
    }
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    memchr::memmem::find(bytes, what).is_some()
}

/// One whole, unmasked, final frame (RFC 6455 §5.2): its opcode and payload.
fn server_frame(bytes: &[u8]) -> (u8, &[u8]) {
    assert_eq!(bytes[0] & 0xf0, 0x80, "final, no reserved bits");
    let (len, at) = match bytes[1] {
        len @ 0..126 => (usize::from(len), 2),
        126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
        other => panic!("length byte {other}"),
    };
    assert_eq!(bytes.len(), at + len, "one frame a write");
    (bytes[0] & 0x0f, &bytes[at..])
}

/// Whatever leaves can be read. A request is without fault, and its Via says what it travels by
/// (RFC 3261 §18.1.1, RFC 7118 §5.2); on a stream its length is known (RFC 3261 §18.3). A response
/// may show the faults of the request that it answers.
fn is_sip(bytes: &[u8], transport: Transport) {
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    let mut parsed = Parsed::default();
    let outcome = parse(bytes, &mut parsed);
    let message: Message<'_> = parsed.view(bytes);
    if !message.is_request() {
        return assert!(bytes.starts_with(b"SIP/2.0 "), "{}", shown());
    }
    assert_eq!(outcome.and_then(|()| message.check()), Ok(()), "{}", shown());
    let via = message.top_via().expect("it was checked");
    assert_eq!(via.transport, transport.via_name().as_bytes(), "{}", shown());
    let length = message.content_length().expect("it was checked");
    let is_needed = !matches!(transport, Transport::Udp);
    assert!(length.is_some() || !is_needed, "{}", shown());
    assert!(length.is_none_or(|length| length as usize == message.body().len()), "{}", shown());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::choices::Choices;
    use crate::base::time::Time;
    use crate::engine::LinkMessage;
    use crate::engine::fuzz::settings::REMOTES;
    use crate::engine::fuzz::speech;

    fn caught(what: &str, plant: impl FnOnce(&mut Net) + std::panic::UnwindSafe) {
        let fault = std::panic::catch_unwind(|| {
            let mut net = Net::new(2, 0, 0);
            let flow = net.connect(ShardId(0), Transport::Wss, REMOTES[0]);
            net.say(flow, speech::UPGRADE.to_vec());
            plant(&mut net);
        });
        let fault = fault.expect_err(what);
        let text = fault.downcast_ref::<String>().cloned();
        let text = text.or_else(|| fault.downcast_ref::<&str>().map(|text| (*text).into()));
        assert!(text.unwrap_or_default().contains(what), "another fault than {what:?}");
    }

    fn write(net: &mut Net, flow: FlowId) {
        net.take(0, Output::Write { flow, range: 0..0 });
    }

    #[test]
    fn planted_faults_are_caught() {
        caught("never was", |net| write(net, FlowId::from_bits(77)));
        caught("output for", |net| {
            net.close(0, CloseReason::Peer);
            write(net, net.wires[0].id);
        });
        caught("another shard's", |net| {
            let other = net.connect(ShardId(1), Transport::Tcp, REMOTES[1]);
            write(net, net.wires[other].id);
        });
        caught("an empty write", |net| write(net, net.wires[0].id));
        caught("final, no reserved bits", |net| net.written(0, &[0x01, 0]));
        caught("one frame a write", |net| net.written(0, &[0x81, 5, b'x']));
        caught("MissingVia", |net| {
            let text = b"OPTIONS sip:a SIP/2.0\r\n\r\n";
            net.written(0, &[&[0x81, text.len() as u8], &text[..]].concat());
        });
        caught("a link to", |net| {
            let message = LinkMessage::Restarted { incarnation: 1, at: Time::ZERO };
            net.take(0, Output::Link { to: ShardId(0), message });
        });
        caught("living flows", |net| {
            net.closed(0);
            net.look();
        });
        caught("writes wait", |net| {
            net.wires[0].pending.extend([1; 10_000]);
            net.look();
        });
        caught("after the quiet time", |net| {
            let mut choices = Choices::new(b"\x01");
            let invite = speech::request(&mut choices, Transport::Wss, REMOTES[0], net.heard());
            assert!(invite.starts_with(b"INVITE "));
            let bytes = net.framed(0, &invite, 0);
            net.say(0, bytes);
            net.is_over();
        });
        caught("requests and", |net| {
            net.engines[0].counters.requests_received += 1;
            net.balance();
        });
        caught("responses and", |net| {
            net.engines[1].counters.responses_absorbed += 1;
            net.balance();
        });
    }
}
