//! Slots: one a stream socket, in pages that never move. A slot that is used again has another
//! generation; it is freed, and its descriptor closed, only after the kernel's last completion for
//! it, because a descriptor that is closed earlier can be given to another connection, which then
//! receives what was queued for this one.
//!
//!   Connecting ─connected→ Handshaking ─TLS done→ Open ─close→ Flushing ─written→ Lingering
//!        │                   ↑ accepted, TLS      ↑ accepted                         │ peer's end,
//!        └────any failure────┴────────────────────┴──────────────→ Ending ←──────────┘ deadline
//!                                                                           └──last completion──→ Free

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::ring::{GENERATION_MASK, Op, Tag};
use super::tls::Session;
use super::watch;
use super::writer::Writer;
use crate::base::id::{FLOW_SLOTS_MAX, FlowId, FlowKey, ShardId};
use crate::engine::Origin;

/// Where a slot stands. See the module's diagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Names nothing.
    Free,
    /// An outgoing connect is with the kernel.
    Connecting,
    /// TLS is being negotiated; the engine does not know the flow.
    Handshaking,
    /// The engine's.
    Open,
    /// Closing: what was written goes out.
    Flushing,
    /// Closing: our side is shut, the peer's is awaited.
    Lingering,
    /// Closing: shut down, the last completions are awaited.
    Ending,
}

/// What of a slot is with the kernel, and marks of lists that it is in.
pub mod marks {
    /// A multishot receive is armed.
    pub const RECEIVING: u8 = 1;
    /// A send is pending.
    pub const SENDING: u8 = 2;
    /// A connect is pending.
    pub const CONNECTING: u8 = 4;
    /// Any of the three: the descriptor must stay open.
    pub const IN_KERNEL: u8 = RECEIVING | SENDING | CONNECTING;
    /// In the list of flows with something to send.
    pub const DIRTY: u8 = 8;
    /// In the queue of handshakes that were put off.
    pub const PUT_OFF: u8 = 16;
    /// Our close_notify was sealed.
    pub const NOTIFIED: u8 = 32;
    /// Its receive waits for buffers.
    pub const STARVED: u8 = 64;
    /// In the queue of flows whose peers are gone.
    pub const DEPARTED: u8 = 128;
}

/// One stream socket.
pub struct Slot {
    fd: Option<OwnedFd>,
    /// Which use of the slot this is: 24 bits, never 0 while in use.
    generation: u32,
    /// Its deadline in the watches.
    pub watch: u32,
    /// The next free slot.
    next_free: u32,
    /// Where it stands.
    pub state: State,
    /// See [`marks`].
    pub marks: u8,
    /// The TLS session, on secure flows.
    pub session: Option<Box<Session>>,
    /// What is to be written, while there is something.
    pub writer: Option<Box<Writer>>,
    /// What matters only until the flow is open.
    pub birth: Option<Box<Birth>>,
}

/// What a slot needs to know until its flow is open.
#[derive(Debug)]
pub struct Birth {
    /// Between whom. Of an outgoing flow the local address is known only once it is connected.
    pub key: FlowKey,
    /// Who asked for it.
    pub origin: Origin,
    /// The peer's address as the kernel reads it, until the connect has completed.
    pub address: Option<socket2::SockAddr>,
    /// Bytes of a handshake that was put off.
    pub pending: Vec<u8>,
}

impl Slot {
    const EMPTY: Slot = Slot {
        fd: None,
        generation: 0,
        watch: watch::NONE,
        next_free: NO_SLOT,
        state: State::Free,
        marks: 0,
        session: None,
        writer: None,
        birth: None,
    };

    /// The descriptor. Only of a slot in use.
    pub fn fd(&self) -> RawFd {
        self.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// The tag of an operation of this use of the slot.
    pub fn tag(&self, op: Op, index: u32) -> Tag {
        Tag::new(op, self.generation, index)
    }

    /// Whether any of `marks` is set.
    pub fn has(&self, marks: u8) -> bool {
        self.marks & marks != 0
    }

    /// Sets `marks`.
    pub fn set(&mut self, marks: u8) {
        self.marks |= marks;
    }

    /// Clears `marks`.
    pub fn clear(&mut self, marks: u8) {
        self.marks &= !marks;
    }

    /// Whether it is on its way to its end.
    pub fn is_closing(&self) -> bool {
        matches!(self.state, State::Flushing | State::Lingering | State::Ending)
    }
}

const NO_SLOT: u32 = u32::MAX;
const PAGE: usize = 1024;

/// Every slot of a shard.
pub struct Slots {
    shard: ShardId,
    incarnation: u8,
    pages: Vec<Box<[Slot]>>,
    free: u32,
    used: usize,
}

impl Slots {
    /// None yet; pages come as they are needed.
    pub fn new(shard: ShardId, incarnation: u8) -> Slots {
        Slots { shard, incarnation, pages: Vec::new(), free: NO_SLOT, used: 0 }
    }

    /// Slots in use, those that are ending included.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Takes a slot for a socket. `None`, and the socket is closed: all names are taken.
    pub fn insert(&mut self, fd: OwnedFd, state: State, birth: Option<Box<Birth>>) -> Option<u32> {
        if self.free == NO_SLOT {
            self.add_page()?;
        }
        let index = self.free;
        let slot = self.at(index);
        let (next_free, generation) = (slot.next_free, slot.generation);
        *slot = Slot { fd: Some(fd), generation: generation + 1, state, birth, ..Slot::EMPTY };
        self.free = next_free;
        self.used += 1;
        Some(index)
    }

    /// Frees a slot and closes its descriptor. Nothing of it may be with the kernel or armed. A
    /// slot whose generations are used up names nothing any more: the names of its first flows may
    /// still stand in tokens, and peers decide how fast it gets there.
    pub fn remove(&mut self, index: u32) {
        let next_free = self.free;
        let slot = self.at(index);
        assert!(slot.state == State::Ending && !slot.has(marks::IN_KERNEL));
        assert!(slot.watch == watch::NONE && slot.writer.is_none());
        let generation = slot.generation;
        *slot = Slot { generation, next_free, ..Slot::EMPTY };
        if generation < GENERATION_MASK {
            self.free = index;
        }
        self.used -= 1;
    }

    /// The slot at an index that is known to be in use. Panics on one that never was.
    pub fn at(&mut self, index: u32) -> &mut Slot {
        &mut self.pages[index as usize / PAGE][index as usize % PAGE]
    }

    /// The slot that a completion is of; `None` when that use of it has ended.
    pub fn of_tag(&mut self, tag: Tag) -> Option<&mut Slot> {
        let page = self.pages.get_mut(tag.index() as usize / PAGE)?;
        let slot = &mut page[tag.index() as usize % PAGE];
        (slot.state != State::Free && slot.generation == tag.generation()).then_some(slot)
    }

    /// The slot of a flow; `None` when it has ended or was another incarnation's.
    pub fn of_flow(&mut self, flow: FlowId) -> Option<&mut Slot> {
        let is_ours =
            flow.shard() == self.shard && flow.generation() >> 24 == u32::from(self.incarnation);
        is_ours.then(|| self.of_tag(Tag::new(Op::Receive, flow.generation(), flow.slot())))?
    }

    /// The name of the flow in a slot.
    pub fn flow(&mut self, index: u32) -> FlowId {
        let generation = (u32::from(self.incarnation) << 24) | self.at(index).generation;
        FlowId::new(self.shard, index, generation)
    }

    /// Every slot in use.
    pub fn indices(&self) -> Vec<u32> {
        let slots = self.pages.iter().flat_map(|page| page.iter());
        let used = slots.enumerate().filter(|(_, slot)| slot.state != State::Free);
        used.map(|(index, _)| index as u32).collect()
    }

    /// Keeps the memory that sends in flight read for ever: for a ring that would not let go of it.
    pub fn leak(self) {
        std::mem::forget(self.pages);
    }

    fn add_page(&mut self) -> Option<()> {
        let first = (self.pages.len() * PAGE) as u32;
        if first >= FLOW_SLOTS_MAX {
            return None;
        }
        let slot = |offset: usize| {
            let is_last = offset + 1 == PAGE;
            let next_free = if is_last { NO_SLOT } else { first + offset as u32 + 1 };
            Slot { next_free, ..Slot::EMPTY }
        };
        self.pages.push((0..PAGE).map(slot).collect());
        self.free = first;
        Some(())
    }
}

const _: () = assert!(size_of::<Slot>() <= 64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sys;

    fn slots() -> Slots {
        Slots::new(ShardId(3), 9)
    }

    fn insert(slots: &mut Slots) -> u32 {
        slots.insert(sys::event_fd().unwrap(), State::Open, None).unwrap()
    }

    #[test]
    fn a_slot_that_is_used_again_has_another_name() {
        let mut slots = slots();
        let index = insert(&mut slots);
        let flow = slots.flow(index);
        assert_eq!((flow.shard(), flow.slot(), flow.generation() >> 24), (ShardId(3), index, 9));
        assert!(slots.of_flow(flow).is_some());
        slots.at(index).state = State::Ending;
        slots.remove(index);
        assert!(slots.of_flow(flow).is_none());
        assert_eq!(insert(&mut slots), index);
        assert!(slots.of_flow(flow).is_none());
        assert_ne!(slots.flow(index), flow);
        assert_eq!(slots.used(), 1);
    }

    #[test]
    fn names_of_other_shards_and_incarnations_find_nothing() {
        let mut slots = slots();
        let index = insert(&mut slots);
        let flow = slots.flow(index);
        let generation = flow.generation();
        assert!(slots.of_flow(FlowId::new(ShardId(4), index, generation)).is_none());
        assert!(slots.of_flow(FlowId::new(ShardId(3), index, generation ^ (1 << 24))).is_none());
        assert!(slots.of_flow(FlowId::new(ShardId(3), 99_999, generation)).is_none());
    }

    #[test]
    fn pages_are_added_as_needed() {
        let mut slots = slots();
        let indices: Vec<u32> = (0..PAGE + 10).map(|_| insert(&mut slots)).collect();
        assert_eq!(slots.pages.len(), 2);
        assert_eq!(slots.indices().len(), PAGE + 10);
        let distinct: std::collections::BTreeSet<u32> = indices.iter().copied().collect();
        assert_eq!(distinct.len(), indices.len());
    }

    #[test]
    fn a_slot_whose_generations_are_used_up_is_not_used_again() {
        let mut slots = slots();
        let index = insert(&mut slots);
        slots.at(index).generation = GENERATION_MASK;
        slots.at(index).state = State::Ending;
        slots.remove(index);
        assert_ne!(insert(&mut slots), index);
        assert_eq!(slots.used(), 1);
    }
}
