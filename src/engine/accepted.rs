//! What is kept of accepted INVITEs, and until when (RFC 6026 §8.6, Timer L of the server transaction
//! and Timer M of the client transaction). Both wait 64·T1, and nothing stops them: they end in the
//! order in which they began, by one alarm for the first. Absent on purpose: repeats of the 2xx
//! (`answer`), and its ACK (`ack`).

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::buf::Pool;
use crate::base::limits::TRAIL_BLOCKS_MAX;
use crate::base::slab::SlabKey;
use crate::base::time::Time;
use crate::base::trail::{Stretch, Trail};
use crate::sip;
use crate::transaction::Timer;

use super::Engine;
use super::alarm::Alarm;
use super::transactions::{Cancel, ClientTransaction};

/// One transaction of an accepted INVITE.
#[derive(Clone, Copy, Debug)]
pub(super) enum Accepted {
    /// Of its sender: Timer L.
    Server(SlabKey),
    /// Of a target: Timer M.
    Client(SlabKey),
}

/// All of a shard, the first to end in front: as many as the tables of transactions hold, since
/// each is there until its turn.
pub(super) struct Endings {
    queue: VecDeque<(Time, Accepted)>,
    /// [Where the INVITEs went](sip::way_of) whose ACK may have to go there, in the order of the queue.
    ways: Trail,
    /// An alarm is set for the one in front.
    is_awaited: bool,
}

impl Endings {
    /// None.
    pub fn new() -> Endings {
        let ways = Trail::new(TRAIL_BLOCKS_MAX);
        Endings { queue: VecDeque::new(), ways, is_awaited: false }
    }

    /// Where the INVITE of an accepted branch went.
    pub fn way<'a>(&'a self, branch: &'a ClientTransaction) -> &'a [u8] {
        branch.way.map_or(&branch.block, |way| self.ways.bytes(way))
    }

    /// What lies before that way is over, and all of them when nothing waits.
    fn release(&mut self, ended: Option<Stretch>, pool: &mut Pool) {
        if self.queue.is_empty() {
            self.ways.release(None, pool);
        } else if ended.is_some() {
            self.ways.release(ended, pool);
        }
    }
}

impl Engine {
    /// An INVITE was accepted: its transaction ends after that time. One that would end before those
    /// that wait, since the timers were configured anew, ends with the last of them.
    pub(super) fn end_later(&mut self, what: Accepted, after: Duration) {
        let endings = &mut self.transactions.endings;
        let last = endings.queue.back().map_or(Time::ZERO, |(until, _)| *until);
        let until = (self.now + after).max(last);
        endings.queue.push_back((until, what));
        if !std::mem::replace(&mut endings.is_awaited, true) {
            self.wheel.arm(until, Alarm::Accepted);
        }
    }

    /// After a 2xx the transaction resends, acknowledges and cancels nothing (RFC 6026 §8.4, RFC 3261
    /// §9.1): of its INVITE only [where it went](sip::way_of) is needed, by ACKs that name the user.
    pub(super) fn abridge_accepted(&mut self, client: SlabKey) {
        self.disarm_client(client, Timer::C);
        let Some(transaction) = self.transactions.client.get_mut(client) else { return };
        if transaction.cancel == Cancel::Wanted {
            transaction.cancel = Cancel::No;
        }
        let sent = std::mem::take(&mut transaction.block);
        if transaction.authoritative {
            let way = &mut self.scratch.lines;
            way.clear();
            sip::way_of(&sent, way);
            transaction.way = self.transactions.endings.ways.push(way, &mut self.pool);
            if transaction.way.is_none() {
                transaction.block = self.pool.copy(way);
            }
        }
        self.pool.put(sent);
    }

    /// The first of them may be over.
    pub(super) fn on_accepted_alarm(&mut self) {
        let now = self.now;
        let mut ended = None;
        while let Some((_, what)) =
            self.transactions.endings.queue.pop_front_if(|(until, _)| *until <= now)
        {
            match what {
                Accepted::Server(tx) => self.on_server_timer(tx, Timer::L),
                Accepted::Client(client) => {
                    let way = self.transactions.client.get(client).and_then(|it| it.way);
                    ended = way.or(ended);
                    self.on_client_timer(client, Timer::M);
                }
            }
        }
        let endings = &mut self.transactions.endings;
        endings.release(ended, &mut self.pool);
        let next = endings.queue.front().map(|(until, _)| *until);
        endings.is_awaited = next.is_some();
        if let Some(until) = next {
            self.wheel.arm(until, Alarm::Accepted);
        }
    }
}
