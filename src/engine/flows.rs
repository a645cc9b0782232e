//! Flows come, speak and go: plaintext becomes whole SIP messages here, by the layers of each
//! transport.

use memchr::memmem;

use crate::base::event::{CloseReason, Event};
use crate::base::id::{ClientKey, DatagramPath, FlowId, FlowKey, FlowRef, StreamPath, Transport};
use crate::base::limits::MEASURE_INTERVAL;
use crate::base::time::Time;
use crate::flow::arrival::{Arrival, Standing};
use crate::flow::keepalive;
use crate::flow::layers::Layer;
use crate::flow::stun;
use crate::flow::table::Flow;
use crate::proxy::Reject;
use crate::proxy::route::Sender;
use crate::sip::frame::{self, Frame, FrameError, Scan};
use crate::sip::{self, Message};
use crate::ws::assemble::{Event as WsEvent, Receiver};
use crate::ws::frame::{CloseCode, Opcode, write_close, write_frame};

use super::alarm::Alarm;
use super::input::Origin;
use super::output::Output;
use super::{Deferred, Engine};

/// The lone CRLF that answers a ping (RFC 5626 §3.5.1).
const PONG: &[u8] = b"\r\n";

impl Engine {
    pub(super) fn on_opened(&mut self, name: FlowId, key: FlowKey, origin: Origin) {
        let (path, waiters) = match origin {
            Origin::Accepted(listener) => {
                self.counters.flows_accepted += 1;
                let settings = self.config.listener(listener);
                let terminated = key.transport == Transport::Ws
                    && settings
                        .tls_terminated_from
                        .iter()
                        .any(|net| net.contains(&key.remote.ip()));
                let transport = if terminated { Transport::Wss } else { key.transport };
                (StreamPath { flow: name, transport, listener }, Vec::new())
            }
            Origin::Connected(connect) => {
                self.counters.flows_opened += 1;
                self.path_of_connection(name, connect, key.remote)
            }
        };
        let accepted = matches!(origin, Origin::Accepted(_));
        let mut flow = Flow::new(path, key.local, key.remote, accepted, self.now);
        flow.trunk = Sender::upstream(&self.config, &flow.arrival()).is_some();
        let look = keepalive::first_look(&flow, &self.config.limits);
        let look = if key.transport.is_websocket() { look } else { look.min(MEASURE_INTERVAL) };
        flow.timer = Some(self.wheel.arm(self.now + look, Alarm::Flow(name)));
        let is_open = !matches!(flow.layer, Layer::Upgrade(_));
        self.flows.insert(flow);
        if is_open {
            self.flow_is_open(path, key.remote);
            self.measure(name);
        }
        self.release_waiters(path, waiters);
    }

    /// The flow can carry messages.
    pub(super) fn flow_is_open(&mut self, path: StreamPath, remote: std::net::SocketAddr) {
        let event = Event::FlowOpened { flow: path.flow, transport: path.transport, remote };
        self.outputs.push_back(Output::Event(event));
        if self.flows.get(path.flow).is_some_and(|flow| flow.accepted) {
            self.index_flow(path, remote, true);
        }
    }

    pub(super) fn on_data(&mut self, name: FlowId, bytes: &mut [u8]) {
        let Some(flow) = self.flows.get_mut(name) else { return };
        flow.heard_at = self.now;
        flow.awaits_pong = false;
        let mut layer = flow.layer.lend();
        let going_on = match &mut layer {
            Layer::Upgrade(_) => self.upgrade(name, &mut layer, bytes),
            Layer::WebSocket { receiver, text } => self.read_frames(name, receiver, text, bytes),
            Layer::Stream { scan, held } => self.read_stream(name, scan, held, bytes),
            Layer::Lent { .. } => true,
        };
        match self.flows.get_mut(name) {
            Some(flow) if going_on => {
                let partial = layer.is_partial();
                flow.layer = layer;
                if partial {
                    self.watch_partial(name);
                }
            }
            _ => layer.release(&mut self.pool),
        }
    }

    pub(super) fn read_frames(
        &mut self,
        name: FlowId,
        receiver: &mut Receiver,
        text: &mut bool,
        mut bytes: &mut [u8],
    ) -> bool {
        loop {
            let max = self.config.limits.message_bytes_max;
            let event = match receiver.next(&mut self.pool, max, &mut bytes) {
                Ok(Some(event)) => event,
                Ok(None) => return true,
                Err(fault) => {
                    self.write_raw(name, |out| write_close(out, fault.close_code(), ""));
                    return self.end(name, CloseReason::Protocol);
                }
            };
            match event {
                WsEvent::Message { text: is_text, payload } => {
                    *text = is_text;
                    let Some(flow) = self.flows.get_mut(name) else { return false };
                    if let Layer::Lent { text, .. } = &mut flow.layer {
                        *text = Some(is_text);
                    }
                    flow.on_message(self.now);
                    let arrival = flow.arrival();
                    self.on_websocket_message(&arrival, &payload);
                    payload.give_back(&mut self.pool);
                }
                WsEvent::Ping(payload) => {
                    self.counters.keepalives_received += 1;
                    self.write_raw(name, |out| write_frame(out, Opcode::Pong, &payload));
                    payload.give_back(&mut self.pool);
                    if !receiver.is_partial() {
                        self.count_whole(name);
                    }
                }
                WsEvent::Pong(payload) => {
                    self.counters.keepalives_received += 1;
                    self.flows.on_pong(name, &payload, self.now);
                    payload.give_back(&mut self.pool);
                    if !receiver.is_partial() {
                        self.count_whole(name);
                    }
                }
                WsEvent::Close { code } => {
                    let code = code.unwrap_or(CloseCode::NORMAL);
                    self.write_raw(name, |out| write_close(out, code, ""));
                    return self.end(name, CloseReason::Peer);
                }
            }
            if !self.flows.has(name) {
                return false;
            }
        }
    }

    /// A keep-alive between messages is whole by itself: what is unfinished later began after it.
    /// Between fragments it gives their message no more time.
    fn count_whole(&mut self, name: FlowId) {
        if let Some(flow) = self.flows.get_mut(name) {
            flow.whole_in = flow.whole_in.wrapping_add(1);
        }
    }

    /// One WebSocket message is one SIP message (RFC 7118 §5), or a keep-alive of CRLFs (RFC 5626
    /// §3.5.1).
    fn on_websocket_message(&mut self, arrival: &Arrival, payload: &[u8]) {
        if payload.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            self.counters.keepalives_received += 1;
            if payload == b"\r\n\r\n" {
                // A full queue closes the flow; an answer to a keep-alive is not missed then.
                if let Some(flow) = arrival.source.stream() {
                    let _ = self.write_message(flow, PONG, false);
                }
            }
            return;
        }
        self.on_message(arrival, payload);
    }

    fn read_stream(
        &mut self,
        name: FlowId,
        scan: &mut Scan,
        held: &mut Vec<u8>,
        bytes: &mut [u8],
    ) -> bool {
        if held.is_empty() {
            let Some(used) = self.read_messages(name, scan, bytes) else { return false };
            if used < bytes.len() {
                self.pool.grow(held, bytes.len() - used, self.config.limits.message_bytes_max);
                held.extend_from_slice(&bytes[used..]);
            }
            return true;
        }
        self.pool.grow(held, bytes.len(), self.config.limits.message_bytes_max);
        held.extend_from_slice(bytes);
        let Some(used) = self.read_messages(name, scan, held) else { return false };
        if used == held.len() {
            let block = std::mem::take(held);
            self.pool.put(block);
        } else {
            held.drain(..used);
        }
        true
    }

    /// Serves the whole messages at the front; returns how many bytes they took, `None` when the
    /// flow ended.
    fn read_messages(&mut self, name: FlowId, scan: &mut Scan, bytes: &[u8]) -> Option<usize> {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            match frame::next(rest, &self.config.limits, scan) {
                Ok(Frame::NeedMore { .. }) => break,
                Ok(Frame::Ping) => {
                    used += 4;
                    self.count_whole(name);
                    self.on_stream_ping(name);
                }
                Ok(Frame::Crlf) => {
                    used += 2;
                    self.count_whole(name);
                    if let Some(flow) = self.flows.get_mut(name) {
                        flow.on_crlf();
                    }
                    if scan.completes_ping() {
                        self.on_stream_ping(name);
                    }
                }
                Ok(Frame::Message { len }) => {
                    used += len;
                    let flow = self.flows.get_mut(name)?;
                    flow.on_message(self.now);
                    let arrival = flow.arrival();
                    self.on_message(&arrival, &rest[..len]);
                }
                Err(fault) => {
                    self.on_lost_framing(name, rest, fault);
                    return None;
                }
            }
            if !self.flows.has(name) {
                return None;
            }
        }
        Some(used)
    }

    fn on_stream_ping(&mut self, name: FlowId) {
        self.counters.keepalives_received += 1;
        // On a connection that we opened, two CRLFs may be two pongs: only its opener pings (RFC
        // 5626 §4.4.1).
        if self.flows.get(name).is_some_and(|flow| flow.accepted) {
            self.write_raw(name, |out| out.extend_from_slice(PONG));
        }
    }

    /// Where the next message starts is not known any more: an answer if one can be made, then the
    /// end.
    fn on_lost_framing(&mut self, name: FlowId, rest: &[u8], fault: FrameError) {
        let (status, phrase) = match fault {
            FrameError::HeaderTooLarge | FrameError::MessageTooLarge => (513, None),
            FrameError::MissingLength => (400, Some("Missing Content-Length")),
            FrameError::BadLength => (400, Some("Bad Content-Length")),
            FrameError::DoubleLength => (400, Some("Two Content-Lengths")),
            FrameError::NotSip => (0, None),
        };
        let is_answered = match self.flows.get(name).map(Flow::arrival) {
            Some(arrival) if status != 0 => {
                let reject = Reject { phrase, ..Reject::new(status) };
                self.answer_head(&arrival, rest, &reject)
            }
            _ => false,
        };
        match status {
            _ if is_answered => {}
            0 => self.counters.dropped_not_sip += 1,
            513 => self.counters.dropped_too_large += 1,
            _ => self.counters.dropped_malformed += 1,
        }
        self.end(name, CloseReason::Protocol);
    }

    /// Answers from the header lines that are whole, an end of the section put where none came;
    /// says whether it could.
    fn answer_head(&mut self, arrival: &Arrival, rest: &[u8], reject: &Reject) -> bool {
        let lines = match memmem::find(rest, b"\r\n\r\n") {
            Some(end) => &rest[..end + 2],
            None => &rest[..memmem::rfind(rest, b"\r\n").map_or(0, |end| end + 2)],
        };
        let mut head = self.pool.copy(lines);
        head.extend_from_slice(b"\r\n");
        let mut parsed = self.take_parsed();
        // What is wrong with it is known already.
        let _ = sip::parse(&head, &mut parsed);
        let message: Message<'_> = parsed.view(&head);
        let is_answerable = super::dispatch::is_answerable(message);
        if is_answerable {
            self.counters.requests_received += 1;
            self.answer_stateless(arrival, message, reject);
        }
        self.keep_parsed(parsed);
        self.pool.put(head);
        is_answerable
    }

    pub(super) fn on_datagram(&mut self, path: DatagramPath, bytes: &mut [u8]) {
        if stun::is_stun(bytes) {
            return self.on_stun(path, bytes);
        }
        if bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            self.counters.keepalives_received += 1;
            return;
        }
        if !sip::looks_like_sip(bytes) {
            self.counters.dropped_not_sip += 1;
            return;
        }
        let arrival = Arrival {
            source: FlowRef::Datagram(path),
            local: path.local,
            remote: path.remote,
            accepted: false,
            standing: Standing::Unknown,
            answers: None,
            client: ClientKey::NONE,
            has_lines: false,
        };
        self.on_message(&arrival, bytes);
    }

    /// Queues bytes that are no SIP message. False when the flow takes none.
    pub(super) fn write_raw(&mut self, name: FlowId, put: impl FnOnce(&mut Vec<u8>)) -> bool {
        let limits = &self.config.limits;
        let Ok(range) = self.flows.write_raw(name, limits, &mut self.arena, put) else {
            return false;
        };
        self.watch_writes(name);
        self.outputs.push_back(Output::Write { flow: name, range });
        true
    }

    pub(super) fn on_sent(&mut self, name: FlowId, bytes: u32, writes: u16) {
        if let Some(flow) = self.flows.get_mut(name) {
            flow.on_sent(bytes as usize, usize::from(writes));
        }
    }

    pub(super) fn on_closed(&mut self, name: FlowId, why: CloseReason) {
        if let Some(flow) = self.flows.remove(name) {
            self.forget_flow(flow, why);
        }
    }

    /// Closes a flow from our side.
    pub(super) fn close(&mut self, name: FlowId, why: CloseReason) {
        let Some(flow) = self.flows.remove(name) else { return };
        self.outputs.push_back(Output::Close { flow: name, why });
        self.forget_flow(flow, why);
    }

    pub(super) fn end(&mut self, name: FlowId, why: CloseReason) -> bool {
        self.close(name, why);
        false
    }

    fn forget_flow(&mut self, flow: Flow, why: CloseReason) {
        let Flow { path, remote, accepted, .. } = flow;
        let timers = [flow.timer, flow.token_timer, flow.write_timer, flow.partial_timer];
        for id in timers.into_iter().flatten() {
            self.wheel.cancel(id);
        }
        self.count_close(why);
        self.tell_flow_closed(&flow, why);
        if accepted {
            self.index_flow(path, remote, false);
        } else {
            self.forget_connection(path, remote);
        }
        flow.layer.release(&mut self.pool);
        self.outputs.push_back(Output::Event(Event::FlowClosed { flow: path.flow, why }));
        self.deferred.push_back(Deferred::Gone(path.flow));
    }

    fn count_close(&mut self, why: CloseReason) {
        self.counters.flows_closed += 1;
        match why {
            CloseReason::Pong => self.counters.flows_closed_pong += 1,
            CloseReason::Slow => self.counters.flows_closed_slow += 1,
            CloseReason::Idle => self.counters.flows_closed_idle += 1,
            CloseReason::Unproven => self.counters.flows_closed_unproven += 1,
            CloseReason::Expired => self.counters.flows_closed_expired += 1,
            CloseReason::Protocol => self.counters.flows_closed_protocol += 1,
            _ => {}
        }
    }

    /// Looks after a write that stays pending.
    pub(super) fn watch_writes(&mut self, name: FlowId) {
        let at: Time = self.now + self.config.limits.write_timeout;
        let Some(flow) = self.flows.get_mut(name) else { return };
        if flow.queued_writes() > 0 && flow.write_timer.is_none() {
            let mark = flow.sent_writes;
            flow.write_timer = Some(self.wheel.arm(at, Alarm::Write(name, mark)));
        }
    }

    /// Looks after a message that has begun.
    fn watch_partial(&mut self, name: FlowId) {
        let at = self.now + self.config.limits.message_timeout;
        let Some(flow) = self.flows.get_mut(name) else { return };
        if flow.partial_timer.is_none() && !matches!(flow.layer, Layer::Upgrade(_)) {
            let mark = flow.whole_in;
            flow.partial_timer = Some(self.wheel.arm(at, Alarm::Partial(name, mark)));
        }
    }
}
