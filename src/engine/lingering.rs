//! What is left of a request by datagram once it was answered: its name, and the response for those
//! who ask again (RFC 3261 §17.2.2, Timer J; state Completed). Everything else of the transaction is
//! gone. All wait equally long, so that they end in the order in which they came, by one alarm for
//! the first. Absent on purpose: INVITE, which has more to do after its final response (RFC 6026),
//! and streams, over which nothing is asked again.
//!
//! While the table is full, or they are as many as fit in the caches, REGISTERs that our registrar
//! has answered give way to new requests before Timer J, the oldest first. Of one that was accepted
//! From tag, Call-ID and CSeq stay in `remembered` for the rest of it: a copy that comes late is
//! answered with the bindings that there are and changes nothing, so that it can neither bring back
//! what was removed since nor remove what was added since. A copy of one that was refused or
//! challenged is judged once more, which had changed nothing. So is one whose name had to be
//! forgotten: then RFC 3261 §10.3 step 7 alone tells its order, by the CSeq of bindings that are
//! still there. Where passwords are asked for, a copy whose digest was taken is challenged first,
//! by a new nonce (`stale=true`). Requests that went on to somebody else never give way: a copy
//! would be delivered twice.

use std::collections::VecDeque;

use crate::base::buf::Pool;
use crate::base::id::{DatagramPath, FlowRef};
use crate::base::limits::{REGISTERS_LINGERING_MAX, TRAIL_BLOCKS_MAX};
use crate::base::slab::SlabKey;
use crate::base::time::Time;
use crate::base::trail::{Stretch, Trail};
use crate::transaction::{MergeKey, ServerKey};

use super::Engine;
use super::alarm::Alarm;
use super::mesh::Recipient;
use super::remembered::Remembered;
use super::transactions::ServerName;

/// Whether an answered request stays for Timer J whatever comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Patience {
    /// It does.
    Stays,
    /// It gives way while the table is full.
    GivesWay,
}

/// The name of one of them: its number, in 32 bits that come round, since there are never that many at
/// a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LingerId {
    patience: Patience,
    number: u32,
}

/// An answered request.
#[derive(Debug)]
struct Linger {
    key: ServerKey,
    merge: Option<MergeKey>,
    until: Time,
    to: DatagramPath,
    /// The last response. Empty: none was sent (RFC 4320 §4.2), and repeats are only absorbed.
    last: Stretch,
    /// The last response was a 2xx.
    is_accepted: bool,
}

/// Those of one patience, the first to end in front.
struct Queue {
    queue: VecDeque<Linger>,
    /// Number of the one in front.
    first: u32,
    trail: Trail,
    /// An alarm is set for the one in front, or for one that was there.
    is_awaited: bool,
}

impl Queue {
    fn new() -> Queue {
        let trail = Trail::new(TRAIL_BLOCKS_MAX);
        Queue { queue: VecDeque::new(), first: 0, trail, is_awaited: false }
    }

    /// The response of one that is not over, and where it goes.
    fn answer(&self, number: u32) -> Option<(DatagramPath, &[u8])> {
        let linger = self.queue.get(number.wrapping_sub(self.first) as usize)?;
        Some((linger.to, self.trail.bytes(linger.last)))
    }

    /// Puts one at the end. One that would be over before those in front of it, since the timers
    /// were configured anew, stays until they are.
    fn push(&mut self, mut linger: Linger) -> u32 {
        if let Some(before) = self.queue.back() {
            linger.until = linger.until.max(before.until);
        }
        self.queue.push_back(linger);
        self.first.wrapping_add(self.queue.len() as u32 - 1)
    }

    /// Takes the first one if `is_due`.
    fn pop(&mut self, is_due: impl FnOnce(&Linger) -> bool) -> Option<(u32, Linger)> {
        let linger = self.queue.pop_front_if(|it| is_due(it))?;
        let number = self.first;
        self.first = self.first.wrapping_add(1);
        Some((number, linger))
    }

    fn release(&mut self, pool: &mut Pool) {
        self.trail.release(self.queue.front().map(|it| it.last), pool);
    }
}

/// All of a shard.
pub(super) struct Lingering {
    staying: Queue,
    yielding: Queue,
    /// Accepted REGISTERs that gave way.
    accepted: Remembered,
}

impl Lingering {
    /// None.
    pub fn new() -> Lingering {
        let accepted = Remembered::default();
        Lingering { staying: Queue::new(), yielding: Queue::new(), accepted }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.staying.queue.len() + self.yielding.queue.len()
    }

    /// Whether an accepted REGISTER of that name gave way and may still be repeated.
    pub fn has_accepted(&self, merge: MergeKey, now: Time) -> bool {
        self.accepted.has(merge, now)
    }

    fn queue(&mut self, patience: Patience) -> &mut Queue {
        match patience {
            Patience::Stays => &mut self.staying,
            Patience::GivesWay => &mut self.yielding,
        }
    }
}

impl Engine {
    /// A server transaction was answered for good and only repeats its response until `until`. False
    /// when it cannot do that without its entry.
    pub(super) fn let_linger(&mut self, tx: SlabKey, until: Time) -> bool {
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return false };
        let FlowRef::Datagram(to) = transaction.reply_to() else { return false };
        let (key, merge) = (transaction.key, transaction.merge);
        // Of all but INVITEs, our registrar's alone are looked for by what merged requests share.
        let patience = if merge.is_some() { Patience::GivesWay } else { Patience::Stays };
        let queue = self.transactions.lingering.queue(patience);
        let Some(last) = queue.trail.push(&transaction.last, &mut self.pool) else {
            return false;
        };
        let is_accepted = (200..300).contains(&transaction.context.sent);
        let number = queue.push(Linger { key, merge, until, to, last, is_accepted });
        let id = LingerId { patience, number };
        if !std::mem::replace(&mut queue.is_awaited, true) {
            self.wheel.arm(until, Alarm::Lingering(patience));
        }
        if let Some(name) = self.transactions.by_key.get_mut(&key) {
            *name = ServerName::Lingering(id);
        }
        if let Some(name) = merge.and_then(|merge| self.transactions.merged.get_mut(&merge)) {
            *name = ServerName::Lingering(id);
        }
        if let Some(transaction) = self.transactions.server.remove(tx) {
            self.discard_server(transaction);
        }
        if self.transactions.lingering.yielding.queue.len() > REGISTERS_LINGERING_MAX {
            self.give_way();
        }
        true
    }

    /// The same request once more, after its final response: absorbed, the response repeated.
    pub(super) fn on_request_after_answer(&mut self, id: LingerId) {
        self.counters.retransmissions_absorbed += 1;
        let queue = self.transactions.lingering.queue(id.patience);
        let Some((to, last)) = queue.answer(id.number) else { return };
        if last.is_empty() {
            return;
        }
        let block = self.pool.copy(last);
        // A datagram is never refused.
        let _ = self.deliver(FlowRef::Datagram(to), &block, None, Recipient::NOBODY);
        self.pool.put(block);
    }

    /// Whether one more server transaction may begin, if need be in the place of a REGISTER that gives
    /// way; of two while there are more than may be, since the bound was lowered.
    pub(super) fn make_room(&mut self) -> bool {
        if !self.transactions.is_full() {
            return true;
        }
        let has_room = self.give_way();
        if has_room && self.transactions.is_full() {
            self.give_way();
        }
        has_room
    }

    /// The oldest REGISTER that our registrar has answered gives way, if there is one.
    fn give_way(&mut self) -> bool {
        let yielding = &mut self.transactions.lingering.yielding;
        let Some((number, linger)) = yielding.pop(|_| true) else { return false };
        yielding.release(&mut self.pool);
        self.counters.registers_gave_way += 1;
        let name = ServerName::Lingering(LingerId { patience: Patience::GivesWay, number });
        self.transactions.forget(name, linger.key, linger.merge);
        if let Some(merge) = linger.merge.filter(|_| linger.is_accepted) {
            self.transactions.lingering.accepted.put(merge, linger.until, self.now);
        }
        true
    }

    /// The first of them may be over.
    pub(super) fn on_linger_alarm(&mut self, patience: Patience) {
        let now = self.now;
        let pop = |it: &mut Queue| it.pop(|first| first.until <= now);
        while let Some((number, linger)) = pop(self.transactions.lingering.queue(patience)) {
            let name = ServerName::Lingering(LingerId { patience, number });
            self.transactions.forget(name, linger.key, linger.merge);
        }
        let queue = self.transactions.lingering.queue(patience);
        queue.release(&mut self.pool);
        let next = queue.queue.front().map(|it| it.until);
        queue.is_awaited = next.is_some();
        if let Some(until) = next {
            self.wheel.arm(until, Alarm::Lingering(patience));
        }
    }
}
