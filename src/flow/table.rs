//! The flows of one shard (RFC 5626 §2): found by name only, in constant time. A name whose slot
//! has another generation by now finds nothing. Absent on purpose: what the bytes mean (`layers`),
//! when to ping (`keepalive`).

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use crate::base::allowance::Allowance;
use crate::base::id::{ClientKey, FlowId, FlowRef, ShardId, StreamPath};
use crate::base::identity::Identity;
use crate::base::limits::{DUTY_FACTOR, Limits, TRUNK_FACTOR};
use crate::base::metrics::{RoundTrip, RoundTrips};
use crate::base::time::Time;
use crate::base::wheel::TimerId;

use super::arrival::{Arrival, Standing};
use super::layers::Layer;
use super::lines::Lines;
use super::vouched::Vouched;

/// Slots that are allocated together.
const PAGE: usize = 256;

/// One stream flow.
pub struct Flow {
    /// Its name, transport and listener.
    pub path: StreamPath,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// The peer connected to us.
    pub accepted: bool,
    /// Who the client at the other end proved to be last.
    pub identity: Option<Identity>,
    /// What is left of the wrong tokens that it may show.
    pub tokens: Allowance,
    /// Whose it is by the word of a registrar behind us: a hash of the address of record that was
    /// registered on it last. 0: nobody's.
    vouched: u32,
    /// The client that registered on it first, having proved who it is.
    client: ClientKey,
    /// Other users proved to be there, too.
    has_lines: bool,
    /// The peer is a server that the configuration names: the traffic of many users shares it.
    pub trunk: bool,
    /// What is between its bytes and SIP messages.
    pub layer: Layer,
    /// Bytes written and not yet taken by the kernel.
    queued_bytes: u32,
    /// Writes, likewise.
    queued_writes: u32,
    /// Writes that the kernel has taken, for telling a slow peer from a dead one.
    pub sent_writes: u32,
    /// Messages and keep-alives received whole, for telling a slow message from the next one.
    pub whole_in: u32,
    /// When it was opened.
    pub opened_at: Time,
    /// When something was last received.
    pub heard_at: Time,
    /// A ping is out, nothing came since.
    pub awaits_pong: bool,
    /// It was asked whether it lives, and has not answered that. What else came since may have been
    /// on its way when the peer vanished.
    is_probed: bool,
    /// A client of it has registered on another flow since: what lives here may be its old network.
    is_followed: bool,
    /// Its client has registered, or had a request accepted, or was sent one.
    pub proved: bool,
    /// When the last ping left of which no pong came, in microseconds modulo 2^32; 0: none.
    pinged_us: u32,
    /// How long its round trip took last.
    round_trip: Option<RoundTrip>,
    /// When the last message came, in milliseconds since the flow was opened; 0: none.
    asked_ms: u32,
    /// The keep-alive or handshake alarm.
    pub timer: Option<TimerId>,
    /// The alarm that watches the expiry of the token that its client came by.
    pub token_timer: Option<TimerId>,
    /// The alarm that watches pending writes.
    pub write_timer: Option<TimerId>,
    /// The alarm that watches an unfinished message.
    pub partial_timer: Option<TimerId>,
    /// Bit n: a shard whose number modulo 64 is n may hold transactions or bindings of this flow.
    shards: u64,
}

impl Flow {
    /// A flow that was just opened.
    pub fn new(
        path: StreamPath,
        local: SocketAddr,
        remote: SocketAddr,
        accepted: bool,
        now: Time,
    ) -> Flow {
        Flow {
            path,
            local,
            remote,
            accepted,
            identity: None,
            tokens: Allowance::default(),
            vouched: 0,
            client: ClientKey::NONE,
            has_lines: false,
            trunk: false,
            layer: Layer::of(path.transport, accepted),
            queued_bytes: 0,
            queued_writes: 0,
            sent_writes: 0,
            whole_in: 0,
            opened_at: now,
            heard_at: now,
            awaits_pong: false,
            is_probed: false,
            is_followed: false,
            proved: false,
            pinged_us: 0,
            round_trip: None,
            asked_ms: 0,
            timer: None,
            token_timer: None,
            write_timer: None,
            partial_timer: None,
            shards: 0,
        }
    }

    /// How a message on it came in.
    pub fn arrival(&self) -> Arrival {
        Arrival {
            source: FlowRef::Stream(self.path),
            local: self.local,
            remote: self.remote,
            accepted: self.accepted,
            standing: Standing::Unknown,
            answers: None,
            client: self.client,
            has_lines: self.has_lines,
        }
    }

    /// A whole message came.
    pub fn on_message(&mut self, now: Time) {
        self.whole_in = self.whole_in.wrapping_add(1);
        self.asked_ms = (now.saturating_since(self.opened_at).as_millis() as u32).max(1);
    }

    /// How long ago the last message came; `None` when none did.
    pub fn since_message(&self, now: Time) -> Option<Duration> {
        let age = now.saturating_since(self.opened_at);
        let asked = Duration::from_millis(u64::from(self.asked_ms));
        (self.asked_ms != 0).then(|| age.saturating_sub(asked))
    }

    /// A ping leaves. Its payload, by which its pong is known (RFC 6455 §5.5.3).
    pub fn on_ping_sent(&mut self, now: Time) -> [u8; 4] {
        self.awaits_pong = true;
        self.pinged_us = now.wrapping_micros().max(1);
        self.pinged_us.to_be_bytes()
    }

    /// A ping leaves that asks whether it lives, since its client is on another flow.
    pub fn on_probe_sent(&mut self, now: Time) -> [u8; 4] {
        self.is_probed = true;
        self.is_followed = true;
        self.on_ping_sent(now)
    }

    /// Whether it owes the answer to that.
    pub fn is_probed(&self) -> bool {
        self.is_probed
    }

    /// Whether a request that is written to it asks once more whether it lives.
    pub fn is_doubtful(&self) -> bool {
        self.is_followed && !self.is_probed
    }

    /// The answer of a plain stream: half a ping (RFC 5626 §3.5.1).
    pub fn on_crlf(&mut self) {
        self.is_probed = false;
    }

    /// Writes pending.
    pub fn queued_writes(&self) -> usize {
        self.queued_writes as usize
    }

    /// Notes that a shard may hold something of this flow.
    pub fn touch(&mut self, shard: ShardId) {
        self.shards |= 1 << (shard.0 % 64);
    }

    /// Whether a shard may hold something of this flow.
    pub fn is_touched_by(&self, shard: ShardId) -> bool {
        self.shards >> (shard.0 % 64) & 1 == 1
    }

    /// The kernel took some of what was written.
    pub fn on_sent(&mut self, bytes: usize, writes: usize) {
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes as u32);
        self.queued_writes = self.queued_writes.saturating_sub(writes as u32);
        self.sent_writes = self.sent_writes.wrapping_add(writes as u32);
    }

    /// Whether one more write fits. Requests are refused at the bound; all else at a multiple of
    /// it. An empty queue takes a message of any size.
    fn admits(&self, len: usize, is_request: bool, limits: &Limits) -> Result<(), Refused> {
        if self.queued_writes == 0 {
            return Ok(());
        }
        let share = if self.trunk { TRUNK_FACTOR } else { 1 };
        let over = |factor: usize| {
            let factor = factor * share;
            self.queued_bytes as usize + len > limits.flow_queue_bytes_max * factor
                || self.queued_writes() >= limits.flow_queue_messages_max * factor
        };
        if over(DUTY_FACTOR) {
            Err(Refused::Overflow)
        } else if is_request && over(1) {
            Err(Refused::Full)
        } else {
            Ok(())
        }
    }

    fn note_write(&mut self, range: &Range<usize>) {
        self.queued_bytes = self.queued_bytes.saturating_add(range.len() as u32);
        self.queued_writes += 1;
    }
}

/// Whether a response shows that a request of its receiver was accepted: it is on its way, or done.
/// What everybody hears from the proxy itself, an answer to OPTIONS, shows nothing.
fn is_acceptance(message: &[u8]) -> bool {
    const VERSION: &[u8] = b"SIP/2.0 ";
    let status = message.strip_prefix(VERSION).and_then(|rest| rest.first());
    matches!(status, Some(b'1' | b'2')) && !is_of_options(message)
}

/// Whether the CSeq line names OPTIONS. Looked at until the flow has proved something, no longer.
fn is_of_options(message: &[u8]) -> bool {
    memchr::memmem::find_iter(message, b" OPTIONS\r\n").any(|at| {
        let line = memchr::memrchr(b'\n', &message[..at]).map_or(0, |end| end + 1);
        message[line..at].get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"cseq:"))
    })
}

// There may be millions, most of them idle.
const _: () = assert!(size_of::<Flow>() <= 256);

/// Why a write was not taken. The world's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No such flow, or it is not open for messages yet or any more.
    Gone,
    /// Its peer does not read: the bound for requests is reached.
    Full,
    /// Its peer does not read: not even responses fit; close it.
    Overflow,
}

/// All flows of a shard.
#[derive(Default)]
pub struct FlowTable {
    pages: Vec<Vec<Option<Box<Flow>>>>,
    by_transport: [u64; 5],
    round_trips: [RoundTrips; 5],
    lines: Lines,
    vouched: Vouched,
}

impl FlowTable {
    /// Adds a flow under its own name. Panics when the slot is taken: the caller allocates slots.
    pub fn insert(&mut self, flow: Flow) {
        let slot = flow.path.flow.slot() as usize;
        while self.pages.len() <= slot / PAGE {
            self.pages.push(Vec::new());
        }
        let page = &mut self.pages[slot / PAGE];
        if page.is_empty() {
            page.resize_with(PAGE, || None);
        }
        let place = &mut page[slot % PAGE];
        assert!(place.is_none(), "a slot holds one flow at a time");
        self.by_transport[flow.path.transport.index()] += 1;
        *place = Some(Box::new(flow));
    }

    /// The flow of that name.
    pub fn get(&self, name: FlowId) -> Option<&Flow> {
        let slot = name.slot() as usize;
        let place = self.pages.get(slot / PAGE)?.get(slot % PAGE)?;
        place.as_deref().filter(|flow| flow.path.flow == name)
    }

    /// The flow of that name.
    pub fn get_mut(&mut self, name: FlowId) -> Option<&mut Flow> {
        let slot = name.slot() as usize;
        let place = self.pages.get_mut(slot / PAGE)?.get_mut(slot % PAGE)?;
        place.as_deref_mut().filter(|flow| flow.path.flow == name)
    }

    /// Whether the flow lives.
    pub fn has(&self, name: FlowId) -> bool {
        self.get(name).is_some()
    }

    /// Takes a flow out.
    pub fn remove(&mut self, name: FlowId) -> Option<Flow> {
        self.get(name)?;
        let slot = name.slot() as usize;
        let flow = self.pages[slot / PAGE][slot % PAGE].take()?;
        self.by_transport[flow.path.transport.index()] -= 1;
        self.round_trips[flow.path.transport.index()].replace(flow.round_trip, None);
        if flow.has_lines {
            self.lines.forget(name);
        }
        self.vouched.forget(name);
        Some(*flow)
    }

    /// A client registered on a flow and proved who it is.
    pub fn note_client(&mut self, name: FlowId, client: ClientKey) {
        let Some(flow) = self.get_mut(name) else { return };
        flow.is_followed = false;
        if !flow.client.is_some() {
            flow.client = client;
        }
        let first = flow.client;
        if first == client {
            return;
        }
        let has_lines = self.lines.note(name, first, client);
        self.get_mut(name).expect("just seen").has_lines |= has_lines;
    }

    /// The user whose address of record has that hash proved to be at the other end of a flow,
    /// registered there or not: from then on nobody passes for the client that did.
    pub fn note_user(&mut self, name: FlowId, aor: u32) {
        let Some(flow) = self.get_mut(name) else { return };
        flow.has_lines |= flow.client.is_some() && flow.client.of_aor() != aor;
    }

    /// The client on a flow that is of the user whose address of record has that hash.
    pub fn client_of(&self, name: FlowId, aor: u32) -> Option<ClientKey> {
        self.lines.find(name, self.get(name)?.client, aor)
    }

    /// A registrar behind us has registered the user whose address of record has that hash on a
    /// flow.
    pub fn vouch(&mut self, name: FlowId, aor: u32) {
        let Some(flow) = self.get_mut(name) else { return };
        let before = std::mem::replace(&mut flow.vouched, aor);
        if before != 0 && before != aor {
            self.vouched.came(name, before, aor);
        }
    }

    /// It has not any more.
    pub fn vouch_no_longer(&mut self, name: FlowId, aor: u32) {
        let Some(flow) = self.get(name) else { return };
        if flow.vouched != aor {
            return self.vouched.left(name, aor);
        }
        let next = self.vouched.last_left(name).unwrap_or(0);
        self.get_mut(name).expect("just seen").vouched = next;
    }

    /// Whose a flow is by the word of a registrar behind us: of several users the one that `named`
    /// tells, else the last.
    pub fn vouched(&self, name: FlowId, named: impl FnOnce() -> Option<u32>) -> Option<u32> {
        let last = Some(self.get(name)?.vouched).filter(|aor| *aor != 0)?;
        let others = self.vouched.others(name);
        if others.is_empty() {
            return Some(last);
        }
        Some(named().filter(|aor| others.contains(aor)).unwrap_or(last))
    }

    /// A pong came: what the ping and it took is the flow's round-trip time, if it is that of the last
    /// ping.
    pub fn on_pong(&mut self, name: FlowId, payload: &[u8], now: Time) {
        let Some(flow) = self.get_mut(name) else { return };
        if flow.pinged_us == 0 || payload != flow.pinged_us.to_be_bytes() {
            return;
        }
        flow.is_probed = false;
        let sent = std::mem::take(&mut flow.pinged_us);
        let took = now.wrapping_micros().wrapping_sub(sent);
        self.on_round_trip(name, Duration::from_micros(u64::from(took)));
    }

    /// A flow's round-trip time was measured.
    pub fn on_round_trip(&mut self, name: FlowId, took: Duration) {
        let Some(flow) = self.get_mut(name) else { return };
        let new = Some(RoundTrip::of(took));
        let old = std::mem::replace(&mut flow.round_trip, new);
        let transport = flow.path.transport;
        self.round_trips[transport.index()].replace(old, new);
    }

    /// Living flows by transport and round-trip time, those of which it is known.
    pub fn round_trips(&self) -> [RoundTrips; 5] {
        self.round_trips
    }

    /// The flows of which a shard may have held something at that time.
    pub fn touched_by(&self, shard: ShardId, at: Time) -> Vec<FlowId> {
        let flows = self.pages.iter().flatten().flatten().map(|flow| &**flow);
        let held = |flow: &&Flow| flow.opened_at <= at && flow.is_touched_by(shard);
        flows.filter(held).map(|flow| flow.path.flow).collect()
    }

    /// Every flow, in the order of their slots.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Flow> {
        self.pages.iter_mut().flatten().flatten().map(|flow| &mut **flow)
    }

    /// The first flows in the order of their slots, at most so many.
    pub fn first(&self, most: usize) -> Vec<FlowId> {
        let flows = self.pages.iter().flatten().flatten();
        flows.map(|flow| flow.path.flow).take(most).collect()
    }

    /// Living flows by transport.
    pub fn by_transport(&self) -> [u64; 5] {
        self.by_transport
    }

    /// Wraps a SIP message for the flow and appends it to `arena`.
    pub fn write(
        &mut self,
        name: FlowId,
        message: &[u8],
        is_request: bool,
        limits: &Limits,
        arena: &mut Vec<u8>,
    ) -> Result<Range<usize>, Refused> {
        let flow = self.get_mut(name).ok_or(Refused::Gone)?;
        flow.admits(message.len(), is_request, limits)?;
        let start = arena.len();
        if !flow.layer.wrap(message, arena) {
            return Err(Refused::Gone);
        }
        let range = start..arena.len();
        flow.note_write(&range);
        if !flow.proved {
            flow.proved = is_request || is_acceptance(message);
        }
        Ok(range)
    }

    /// Appends bytes that are no SIP message (frames of the WebSocket itself, keep-alives) to
    /// `arena`.
    pub fn write_raw(
        &mut self,
        name: FlowId,
        limits: &Limits,
        arena: &mut Vec<u8>,
        put: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Range<usize>, Refused> {
        let flow = self.get_mut(name).ok_or(Refused::Gone)?;
        flow.admits(0, false, limits)?;
        let start = arena.len();
        put(arena);
        let range = start..arena.len();
        flow.note_write(&range);
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{ListenerId, Transport};

    fn flow(slot: u32, generation: u32) -> Flow {
        let flow = FlowId::new(ShardId(0), slot, generation);
        let path = StreamPath { flow, transport: Transport::Tcp, listener: ListenerId(0) };
        let address = "127.0.0.1:5060".parse().expect("an address");
        Flow::new(path, address, address, true, Time::ZERO)
    }

    #[test]
    fn a_stale_name_finds_nothing_once_its_slot_is_used_again() {
        let mut table = FlowTable::default();
        let old = flow(300, 1).path.flow;
        table.insert(flow(300, 1));
        assert!(table.has(old));
        assert!(table.remove(old).is_some());
        table.insert(flow(300, 2));
        assert!(!table.has(old) && table.remove(old).is_none());
        let refused = table.write(old, b"x", true, &Limits::default(), &mut Vec::new());
        assert_eq!(refused, Err(Refused::Gone));
    }

    #[test]
    fn a_round_trip_counts_once_while_its_flow_lives() {
        let mut table = FlowTable::default();
        table.insert(flow(0, 1));
        let name = flow(0, 1).path.flow;
        let at = |ms: u64| Time::ZERO + Duration::from_millis(ms);
        table.on_pong(name, &[0; 4], at(5));
        let of = |table: &FlowTable| table.round_trips()[Transport::Tcp.index()];
        assert_eq!(of(&table).flows(), 0, "no ping was out");
        for (sent, heard, bucket) in [(10, 13, 5), (100, 190, 100), (200, 203, 5)] {
            let payload = table.get_mut(name).expect("it lives").on_ping_sent(at(sent));
            table.on_pong(name, b"", at(sent));
            table.on_pong(name, &payload, at(heard));
            table.on_pong(name, &payload, at(heard + 500));
            let within = |ms| of(&table).within(Duration::from_millis(ms));
            assert_eq!((within(bucket), within(bucket / 2)), (1, 0));
            assert_eq!(of(&table).flows(), 1);
        }
        table.on_round_trip(name, Duration::ZERO);
        assert_eq!(of(&table).within(Duration::from_millis(1)), 1, "too short to be told apart");
        table.remove(name);
        assert_eq!(table.round_trips(), [RoundTrips::default(); 5]);
    }

    #[test]
    fn what_is_accepted_proves_a_flow_and_what_everybody_hears_does_not() {
        for (message, proves) in [
            ("SIP/2.0 100 Trying\r\nCSeq: 1 INVITE\r\n\r\n", true),
            ("SIP/2.0 200 OK\r\nCSeq: 1 REGISTER\r\n\r\n", true),
            ("SIP/2.0 200 OK\r\nSubject: 1 OPTIONS\r\nCSeq: 1 MESSAGE\r\n\r\n", true),
            ("SIP/2.0 200 OK\r\nCSeq: 1 OPTIONS\r\n\r\n", false),
            ("SIP/2.0 401 Unauthorized\r\nCSeq: 1 REGISTER\r\n\r\n", false),
            ("SIP/2.0 404 Not Found\r\nCSeq: 1 INVITE\r\n\r\n", false),
        ] {
            assert_eq!(is_acceptance(message.as_bytes()), proves, "{message}");
        }
    }

    #[test]
    fn requests_are_refused_before_responses_and_those_before_the_flow_is() {
        let limits = Limits { flow_queue_messages_max: 2, ..Limits::default() };
        let mut table = FlowTable::default();
        table.insert(flow(0, 1));
        let name = flow(0, 1).path.flow;
        let mut arena = Vec::new();
        let mut write = |is_request| table.write(name, b"m", is_request, &limits, &mut arena);
        assert!(write(true).is_ok() && write(true).is_ok());
        assert_eq!(write(true), Err(Refused::Full));
        for _ in 2..2 * DUTY_FACTOR {
            assert!(write(false).is_ok());
        }
        assert_eq!(write(false), Err(Refused::Overflow));
        table.get_mut(name).expect("it lives").on_sent(100, 100);
        assert!(table.write(name, b"m", true, &limits, &mut arena).is_ok());
    }
}
