//! The search for somebody who answers (RFC 3261 §16.5, §16.6): groups of targets one after the
//! other, and alternatives in the place of branches that failed. Absent on purpose: which response
//! is the best (`proxy/context`), and how a copy is made (`fork`).
//!
//! What was not tried yet stands beside the server transaction, in a box that is used again, and
//! only while there is something left to try. It goes with the final response, a 6xx, a CANCEL, or
//! the loss of the sender: from then on there are no new branches (§16.7 step 5).

use crate::base::limits::SEARCHES_KEPT;
use crate::base::slab::SlabKey;
use crate::base::wheel::TimerId;
use crate::proxy::breadth;
use crate::proxy::route::Sender;
use crate::proxy::target::TargetSet;
use crate::sip::Message;

use super::Engine;
use super::alarm::Alarm;
use super::transactions::{Cancel, ClientTransaction};

/// What is left to try for one request, and what every further copy needs.
#[derive(Debug)]
pub(super) struct Search {
    pub targets: TargetSet,
    pub sender: Sender,
    /// Leading Route values that every copy loses.
    pub popped: usize,
    pub loop_hash: u32,
    /// Max-Breadth that no branch holds (RFC 5393 §5.3.3).
    free: u8,
    /// Targets in their order that were begun.
    begun: usize,
    /// Number of the group that was begun last; the first is 1.
    group: u8,
    /// Branches of that group that have not ended.
    running: u16,
    /// Ends the patience with that group, while another waits.
    timer: Option<TimerId>,
}

/// What a branch was begun as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Index in the target set.
    pub target: u8,
    /// Its group; 0 for what no search began.
    pub group: u8,
    /// Max-Breadth that it holds.
    pub breadth: u8,
}

impl Default for Search {
    fn default() -> Search {
        Search {
            targets: TargetSet::default(),
            sender: Sender::Stranger,
            popped: 0,
            loop_hash: 0,
            free: 0,
            begun: 0,
            group: 0,
            running: 0,
            timer: None,
        }
    }
}

impl Search {
    /// Whether a group waits that may begin: nothing of the one before runs, and the breadth is
    /// there.
    fn is_next_due(&self) -> bool {
        let next = self.targets.group(self.begun);
        self.running == 0 && !next.is_empty() && next.len() <= usize::from(self.free)
    }

    /// Whether all that may ever be tried is under way.
    fn is_exhausted(&self) -> bool {
        self.begun == self.targets.ordered() && !self.targets.has_alternatives()
    }
}

impl Engine {
    /// A search over the targets that were found; they are taken out of the scratch.
    pub(super) fn new_search(
        &mut self,
        sender: Sender,
        popped: usize,
        loop_hash: u32,
        breadth: u8,
    ) -> Box<Search> {
        let mut search = self.searches_kept.pop().unwrap_or_default();
        std::mem::swap(&mut search.targets, &mut self.scratch.targets);
        let targets = std::mem::take(&mut search.targets);
        *search = Search { targets, sender, popped, loop_hash, free: breadth, ..Search::default() };
        search
    }

    /// Begins the search for a request that is at hand. False when there was no room for any
    /// branch.
    pub(super) fn begin_search(
        &mut self,
        tx: SlabKey,
        message: Message<'_>,
        mut search: Box<Search>,
    ) -> bool {
        let is_begun = self.begin_groups(tx, message, &mut search);
        self.keep_search(tx, search);
        is_begun
    }

    /// Begins the next group of which a branch can be begun. False when there is none.
    fn begin_groups(&mut self, tx: SlabKey, message: Message<'_>, search: &mut Search) -> bool {
        while search.is_next_due() {
            self.begin_group(tx, message, search);
            if search.running > 0 {
                return true;
            }
        }
        false
    }

    fn begin_group(&mut self, tx: SlabKey, message: Message<'_>, search: &mut Search) {
        if let Some(timer) = search.timer.take() {
            self.wheel.cancel(timer);
        }
        let places = search.targets.group(search.begun);
        let (parallel, waiting) = (places.len(), search.targets.ordered() - places.end);
        let free = search.free;
        search.begun = places.end;
        search.group += 1;
        for (position, place) in places.enumerate() {
            let target = search.targets.index_of(place);
            let breadth = breadth::share(free, parallel, waiting, position);
            let place = Place { target: target as u8, group: search.group, breadth };
            if self.start_branch(tx, message, search, place) {
                search.running += 1;
                search.free -= breadth;
            }
        }
        if waiting > 0 {
            let at = self.now + self.config.registrar.serial_ring;
            search.timer = Some(self.wheel.arm(at, Alarm::Group(tx)));
        }
    }

    /// A branch failed: the next way to the same target, if there is one, takes its place. Only
    /// what nobody cancelled is tried again.
    pub(super) fn try_alternative(&mut self, tx: SlabKey, client: SlabKey) -> bool {
        let failed = self.transactions.client.get(client);
        let Some(mut place) = failed.filter(|it| !it.is_cancelled()).map(|it| it.place) else {
            return false;
        };
        let Some(mut search) = self.take_search(tx) else { return false };
        let mut is_started = false;
        self.with_request(tx, |engine, message| {
            while !is_started
                && let Some(next) = search.targets.alternative(usize::from(place.target))
            {
                place.target = next as u8;
                is_started = engine.start_branch(tx, message, &mut search, place);
            }
            engine.keep_search(tx, search);
        });
        if is_started && let Some(transaction) = self.transactions.server.get_mut(tx) {
            transaction.context.on_replaced();
        }
        is_started
    }

    /// A branch ended: its breadth is free, and its group has one less.
    pub(super) fn leave_group(&mut self, tx: SlabKey, client: SlabKey) {
        let Some(ended) = self.transactions.client.get(client) else { return };
        let (place, is_given_up) = (ended.place, ended.given_up);
        let transaction = self.transactions.server.get_mut(tx);
        let Some(search) = transaction.and_then(|it| it.search.as_mut()) else { return };
        search.free += place.breadth;
        if place.group == search.group && !is_given_up {
            search.running -= 1;
        }
    }

    /// Begins the next group if it is due. False when nothing new was begun.
    pub(super) fn begin_next_group(&mut self, tx: SlabKey) -> bool {
        let transaction = self.transactions.server.get(tx);
        let is_due = transaction
            .and_then(|it| it.search.as_ref())
            .is_some_and(|search| search.is_next_due());
        if !is_due {
            return false;
        }
        let Some(mut search) = self.take_search(tx) else { return false };
        let mut is_begun = false;
        self.with_request(tx, |engine, message| {
            is_begun = engine.begin_groups(tx, message, &mut search);
            engine.keep_search(tx, search);
        });
        is_begun
    }

    /// Whoever rings has rung long enough: the next group begins. INVITEs of this one are
    /// cancelled; other requests cannot be, and whoever answers first wins.
    pub(super) fn on_group_timer(&mut self, tx: SlabKey) {
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        let branches = transaction.branches.clone();
        let Some(search) = transaction.search.as_mut() else { return };
        search.timer = None;
        search.running = 0;
        let group = search.group;
        for client in branches {
            let Some(branch) = self.transactions.client.get_mut(client) else { continue };
            if branch.place.group == group && !branch.ended {
                branch.given_up = true;
                self.cancel_branch(client);
            }
        }
        self.begin_next_group(tx);
    }

    /// There will be no further branches.
    pub(super) fn end_search(&mut self, tx: SlabKey) {
        if let Some(search) = self.take_search(tx) {
            self.discard_search(search);
        }
    }

    fn take_search(&mut self, tx: SlabKey) -> Option<Box<Search>> {
        self.transactions.server.get_mut(tx)?.search.take()
    }

    /// Puts the search beside its transaction if there is anything left to try: before the request
    /// goes back there, which may lose its body otherwise.
    fn keep_search(&mut self, tx: SlabKey, search: Box<Search>) {
        match self.transactions.server.get_mut(tx) {
            Some(transaction) if !search.is_exhausted() => transaction.search = Some(search),
            _ => self.discard_search(search),
        }
    }

    pub(super) fn discard_search(&mut self, mut search: Box<Search>) {
        if let Some(timer) = search.timer.take() {
            self.wheel.cancel(timer);
        }
        if self.searches_kept.len() < SEARCHES_KEPT {
            self.searches_kept.push(search);
        }
    }
}

impl ClientTransaction {
    /// Whether somebody wants it cancelled or gave it up.
    fn is_cancelled(&self) -> bool {
        self.given_up || self.cancel != Cancel::No
    }
}
