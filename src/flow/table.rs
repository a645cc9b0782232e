//! The flows of one shard (RFC 5626 §2): found by name only, in constant time. A name whose slot
//! has another generation by now finds nothing. Absent on purpose: what the bytes mean (`layers`),
//! when to ping (`keepalive`).

use std::net::SocketAddr;
use std::ops::Range;

use crate::base::id::{FlowId, FlowRef, ShardId, StreamPath};
use crate::base::identity::Identity;
use crate::base::limits::{DUTY_FACTOR, Limits, TRUNK_FACTOR};
use crate::base::time::Time;
use crate::base::wheel::TimerId;

use super::arrival::{Arrival, Standing};
use super::layers::Layer;

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
    /// The peer is a server that the configuration names: the traffic of many users shares it.
    pub trunk: bool,
    /// What is between its bytes and SIP messages.
    pub layer: Layer,
    /// Bytes written and not yet taken by the kernel.
    queued_bytes: usize,
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
    /// The keep-alive or handshake alarm.
    pub timer: Option<TimerId>,
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
            trunk: false,
            layer: Layer::of(path.transport, accepted),
            queued_bytes: 0,
            queued_writes: 0,
            sent_writes: 0,
            whole_in: 0,
            opened_at: now,
            heard_at: now,
            awaits_pong: false,
            timer: None,
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
        }
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
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
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
            self.queued_bytes + len > limits.flow_queue_bytes_max * factor
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
        self.queued_bytes += range.len();
        self.queued_writes += 1;
    }
}

// There may be millions, most of them idle.
const _: () = assert!(size_of::<Flow>() <= 216);

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
        Some(*flow)
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
