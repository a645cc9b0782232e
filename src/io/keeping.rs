//! What a shard's loop does for the store: records of former runs go in before it takes traffic,
//! changes go out at the end of a turn. Absent on purpose: the file and its thread (`store`).

use std::time::Duration;

use super::driver::Driver;
use super::protocol::Protocol;
use super::store::{Keeper, Kept};
use crate::base::time::Time;
use crate::engine::{Input, StoreChange};

/// How long a shard that reads the store looks at nothing but it: other shards may want to say
/// something about what they have read.
const PATIENCE: Duration = Duration::from_millis(5);

impl<P: Protocol> Driver<P> {
    /// Takes what former runs left, before there is traffic. Waits for the disk.
    pub fn restore(&mut self) {
        while let Some(keeper) = &mut self.station.keeper {
            let page = keeper.await_page(PATIENCE);
            self.now = self.station.clock.now();
            if let Ok(Some(page)) = &page {
                self.take_page(page);
            }
            self.take_linked();
            self.station.links.flush();
            if page.is_err() {
                return;
            }
        }
    }

    /// At the beginning of a turn: a page of what comes back after a failure, and what has become
    /// durable. True: there may be more.
    pub(super) fn hear_of_store(&mut self) -> bool {
        let Some(keeper) = &mut self.station.keeper else { return false };
        let (page, durable) = (keeper.next_page(), keeper.take_durable());
        if let Some(serial) = durable {
            self.has_news();
            self.protocol.handle(self.now, Input::Stored { serial });
            self.perform_outputs();
        }
        if let Some(page) = &page {
            self.has_news();
            self.take_page(page);
        }
        page.is_some()
    }

    fn take_page(&mut self, page: &[Kept]) {
        for Kept { id, expires_at, record } in page {
            let (id, expires_at) = (*id, *expires_at);
            self.protocol.handle(self.now, Input::Restored { id, expires_at, record });
            self.perform_outputs();
        }
    }

    /// Notes a change for the store.
    pub(super) fn store(&mut self, serial: u64, id: u64, change: StoreChange) {
        let Some(keeper) = &mut self.station.keeper else { return };
        match change {
            StoreChange::Put { is_new, expires_at, range } => {
                let record = self.protocol.bytes(range);
                keeper.put(self.now, serial, id, is_new, expires_at, record);
            }
            StoreChange::Remove => keeper.remove(self.now, serial, id),
        }
    }

    /// At the end of a turn: gives the store what is due.
    pub(super) fn hand_over(&mut self) {
        if let Some(keeper) = &mut self.station.keeper {
            keeper.hand_over(self.now);
        }
    }

    /// When that has to be.
    pub(super) fn store_deadline(&self) -> Option<Time> {
        self.station.keeper.as_ref().and_then(Keeper::next_deadline)
    }
}
