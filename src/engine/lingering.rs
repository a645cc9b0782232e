//! What is left of a request by datagram once it was answered: its name, and the response for those
//! who ask again (RFC 3261 §17.2.2, Timer J; state Completed). Everything else of the transaction is
//! gone. All wait equally long, so that they end in the order in which they came, by one alarm for
//! the first. Absent on purpose: INVITE, which has more to do after its final response (RFC 6026),
//! and streams, over which nothing is asked again.

use std::collections::VecDeque;

use crate::base::buf::Pool;
use crate::base::id::{ClientKey, DatagramPath, FlowRef};
use crate::base::limits::TRAIL_BLOCKS_MAX;
use crate::base::slab::SlabKey;
use crate::base::time::Time;
use crate::base::trail::{Stretch, Trail};
use crate::transaction::{MergeKey, ServerKey};

use super::Engine;
use super::alarm::Alarm;
use super::transactions::ServerName;

/// The number of one of them, in 32 bits that come round: there are never that many at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LingerId(u32);

/// An answered request.
#[derive(Debug)]
struct Linger {
    key: ServerKey,
    merge: Option<MergeKey>,
    until: Time,
    to: DatagramPath,
    /// The last response. Empty: none was sent (RFC 4320 §4.2), and repeats are only absorbed.
    last: Stretch,
}

/// All of a shard, the first to end in front.
pub(super) struct Lingering {
    queue: VecDeque<Linger>,
    /// Number of the one in front.
    first: u32,
    trail: Trail,
    /// An alarm is set for the one in front.
    is_awaited: bool,
}

impl Lingering {
    /// None.
    pub fn new() -> Lingering {
        let trail = Trail::new(TRAIL_BLOCKS_MAX);
        Lingering { queue: VecDeque::new(), first: 0, trail, is_awaited: false }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// The response of one that is not over, and where it goes.
    fn answer(&self, id: LingerId) -> Option<(DatagramPath, &[u8])> {
        let linger = self.queue.get(id.0.wrapping_sub(self.first) as usize)?;
        Some((linger.to, self.trail.bytes(linger.last)))
    }

    /// Puts one at the end. One that would be over before those in front of it, since the timers
    /// were configured anew, stays until they are.
    fn push(&mut self, mut linger: Linger) -> LingerId {
        if let Some(before) = self.queue.back() {
            linger.until = linger.until.max(before.until);
        }
        self.queue.push_back(linger);
        LingerId(self.first.wrapping_add(self.queue.len() as u32 - 1))
    }

    /// Takes the first one if it is over.
    fn pop(&mut self, now: Time) -> Option<(LingerId, Linger)> {
        let linger = self.queue.pop_front_if(|it| it.until <= now)?;
        let id = LingerId(self.first);
        self.first = self.first.wrapping_add(1);
        Some((id, linger))
    }

    fn release(&mut self, pool: &mut Pool) {
        self.trail.release(self.queue.front().map(|it| it.last), pool);
    }
}

impl Engine {
    /// A server transaction was answered for good and only repeats its response until `until`. False
    /// when it cannot do that without its entry.
    pub(super) fn let_linger(&mut self, tx: SlabKey, until: Time) -> bool {
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return false };
        let FlowRef::Datagram(to) = transaction.reply_to else { return false };
        let lingering = &mut self.transactions.lingering;
        let Some(last) = lingering.trail.push(&transaction.last, &mut self.pool) else {
            return false;
        };
        let (key, merge) = (transaction.key, transaction.merge);
        let id = lingering.push(Linger { key, merge, until, to, last });
        if !std::mem::replace(&mut lingering.is_awaited, true) {
            self.wheel.arm(until, Alarm::Lingering);
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
        true
    }

    /// The same request once more, after its final response: absorbed, the response repeated.
    pub(super) fn on_request_after_answer(&mut self, id: LingerId) {
        self.counters.retransmissions_absorbed += 1;
        let Some((to, last)) = self.transactions.lingering.answer(id) else { return };
        if last.is_empty() {
            return;
        }
        let block = self.pool.copy(last);
        // A datagram is never refused.
        let _ = self.deliver(FlowRef::Datagram(to), &block, None, ClientKey::NONE);
        self.pool.put(block);
    }

    /// The first of them may be over.
    pub(super) fn on_linger_alarm(&mut self) {
        while let Some((id, linger)) = self.transactions.lingering.pop(self.now) {
            let name = ServerName::Lingering(id);
            self.transactions.forget(name, linger.key, linger.merge);
        }
        let lingering = &mut self.transactions.lingering;
        lingering.release(&mut self.pool);
        let next = lingering.queue.front().map(|it| it.until);
        lingering.is_awaited = next.is_some();
        if let Some(until) = next {
            self.wheel.arm(until, Alarm::Lingering);
        }
    }
}
