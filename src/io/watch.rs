//! Deadlines of flows below the engine: handshakes, connects, writes, closes. All entries of one
//! kind wait equally long, so a list a kind is in order by itself: arming, cancelling and finding
//! the next cost O(1).

use std::time::Duration;

use crate::base::limits::{CLOSE_TIME, LINGER_TIME, Limits};
use crate::base::time::Time;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Awaited {
    /// The TLS handshake of an accepted flow.
    Handshake,
    /// An outgoing connection, its TLS handshake included.
    Connect,
    /// The kernel, to take a write.
    Write,
    /// The last writes of a closing flow, or its last completions.
    Close,
    /// The peer, to close its side.
    Linger,
}

const KINDS: usize = 5;
/// No entry: the value for a slot without a deadline.
pub const NONE: u32 = u32::MAX;

/// All deadlines of a shard's flows.
#[derive(Debug)]
pub struct Watches {
    entries: Vec<Entry>,
    free: u32,
    lists: [List; KINDS],
}

#[derive(Clone, Copy, Debug)]
struct List {
    wait: Duration,
    head: u32,
    tail: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: Time,
    slot: u32,
    kind: Awaited,
    previous: u32,
    /// The next of its list, or of the free list.
    next: u32,
}

impl Watches {
    /// None armed; the times are the operator's.
    pub fn new(limits: &Limits) -> Watches {
        let list = |wait| List { wait, head: NONE, tail: NONE };
        Watches {
            entries: Vec::new(),
            free: NONE,
            lists: [
                list(limits.handshake_timeout),
                list(limits.connect_timeout),
                list(limits.write_timeout),
                list(CLOSE_TIME),
                list(LINGER_TIME),
            ],
        }
    }

    /// Takes other times. What is armed keeps its deadline, but waits no longer than the new time
    /// from `now`, so that each list stays in order.
    pub fn set_times(&mut self, now: Time, limits: &Limits) {
        let times = [limits.handshake_timeout, limits.connect_timeout, limits.write_timeout];
        for (list, wait) in self.lists.iter_mut().zip(times) {
            list.wait = wait;
            let mut index = list.head;
            while index != NONE {
                let entry = &mut self.entries[index as usize];
                entry.deadline = entry.deadline.min(now + wait);
                index = entry.next;
            }
        }
    }

    /// Arms a deadline for a slot. At most one a slot: the caller keeps the answer in it and
    /// cancels it there.
    pub fn arm(&mut self, now: Time, kind: Awaited, slot: u32) -> u32 {
        let list = self.lists[kind as usize];
        let entry =
            Entry { deadline: now + list.wait, slot, kind, previous: list.tail, next: NONE };
        let index = match self.free {
            NONE => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
            free => {
                self.free = self.entries[free as usize].next;
                self.entries[free as usize] = entry;
                free
            }
        };
        match list.tail {
            NONE => self.lists[kind as usize].head = index,
            tail => self.entries[tail as usize].next = index,
        }
        self.lists[kind as usize].tail = index;
        index
    }

    /// Cancels what [`Watches::arm`] answered and resets it to [`NONE`]; nothing happens when it is
    /// that already.
    pub fn cancel(&mut self, watch: &mut u32) {
        let index = std::mem::replace(watch, NONE);
        if index == NONE {
            return;
        }
        let entry = self.entries[index as usize];
        match entry.previous {
            NONE => self.lists[entry.kind as usize].head = entry.next,
            previous => self.entries[previous as usize].next = entry.next,
        }
        match entry.next {
            NONE => self.lists[entry.kind as usize].tail = entry.previous,
            next => self.entries[next as usize].previous = entry.previous,
        }
        self.entries[index as usize].next = self.free;
        self.free = index;
    }

    /// When the first deadline passes.
    pub fn next_deadline(&self) -> Option<Time> {
        let heads = self.lists.iter().filter(|list| list.head != NONE);
        heads.map(|list| self.entries[list.head as usize].deadline).min()
    }

    /// A slot whose deadline has passed, and which. It stays armed: the caller cancels or re-arms
    /// it.
    pub fn expired(&self, now: Time) -> Option<(Awaited, u32)> {
        let heads = self.lists.iter().filter(|list| list.head != NONE);
        let mut heads = heads.map(|list| self.entries[list.head as usize]);
        heads.find(|entry| entry.deadline <= now).map(|entry| (entry.kind, entry.slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_in_order_and_cancelled_ones_never() {
        let limits = Limits { write_timeout: Duration::from_secs(2), ..Limits::default() };
        let mut watches = Watches::new(&limits);
        let start = Time::from_nanos(1);
        let mut armed: Vec<u32> =
            (0..10).map(|slot| watches.arm(start, Awaited::Write, slot)).collect();
        let mut linger = watches.arm(start, Awaited::Linger, 100);
        assert_eq!(watches.next_deadline(), Some(start + LINGER_TIME));
        assert_eq!(watches.expired(start + LINGER_TIME), Some((Awaited::Linger, 100)));
        watches.cancel(&mut linger);
        assert_eq!(linger, NONE);
        for slot in [0, 9, 4] {
            watches.cancel(&mut armed[slot]);
        }
        let late = start + Duration::from_secs(2);
        let mut seen = Vec::new();
        while let Some((kind, slot)) = watches.expired(late) {
            assert_eq!(kind, Awaited::Write);
            seen.push(slot);
            watches.cancel(&mut armed[slot as usize]);
        }
        assert_eq!(seen, [1, 2, 3, 5, 6, 7, 8]);
        assert_eq!(watches.next_deadline(), None);
    }

    #[test]
    fn entries_are_used_again() {
        let mut watches = Watches::new(&Limits::default());
        for slot in 0..1000 {
            let mut watch = watches.arm(Time::from_nanos(slot), Awaited::Close, slot as u32);
            watches.cancel(&mut watch);
        }
        assert_eq!(watches.entries.len(), 1);
    }
}
