//! The store of the lab: records by name, as durable as the test likes, and given back to another
//! run.

use std::collections::BTreeMap;
use std::time::Duration;

use sipring::base::hash::{KeyedHash, derive_key};
use sipring::base::time::Time;
use sipring::engine::{Input, StoreChange};
use sipring::proxy::place::owner_of;
use sipring::registrar::aor_of;

use super::{Lab, SECRET};

/// What shards gave to the store.
#[derive(Clone, Default)]
pub struct Shelf {
    /// Expiry and record of each name.
    pub records: BTreeMap<u64, (Time, Vec<u8>)>,
    /// By shard, the last change that nobody was told to be durable.
    awaited: BTreeMap<usize, u64>,
}

impl Shelf {
    /// How many records there are of an address of record.
    pub fn count_of(&self, aor: &str) -> usize {
        let mine = |record: &[u8]| aor_of(record).expect("a record of ours") == aor.as_bytes();
        self.records.values().filter(|(_, record)| mine(record)).count()
    }

    /// The last change that the shard gave.
    pub fn last_of(&self, shard: usize) -> u64 {
        self.awaited[&shard]
    }

    /// The shard is started anew, and counts from another number on.
    pub(super) fn forget_shard(&mut self, shard: u16) {
        self.awaited.remove(&usize::from(shard));
    }
}

impl Lab {
    /// Takes a change, and looks at it as a store would.
    pub(super) fn store(&mut self, shard: usize, serial: u64, id: u64, change: StoreChange) {
        let last = self.shelf.awaited.insert(shard, serial);
        assert!(last.is_none_or(|last| last + 1 == serial), "change {serial} after {last:?}");
        match change {
            StoreChange::Put { is_new, expires_at, range } => {
                let record = self.engines[shard].bytes(range).to_vec();
                let old = self.shelf.records.insert(id, (expires_at, record));
                assert_eq!(old.is_none(), is_new, "binding {id:x}");
            }
            StoreChange::Remove => {
                self.shelf.records.remove(&id);
            }
        }
    }

    /// Everything that the shards gave so far is durable.
    pub fn make_durable(&mut self) {
        for (shard, serial) in self.shelf.awaited.clone() {
            self.input(shard as u16, Input::Stored { serial });
        }
    }

    /// Gives this run what another one left, after `down` has passed.
    pub fn restore(&mut self, former: &Lab, down: Duration) {
        self.shelf.records = former.shelf.records.clone();
        for (id, (expires_at, record)) in &former.shelf.records {
            let left = expires_at.saturating_since(former.now).saturating_sub(down);
            let (id, expires_at) = (*id, self.now + left);
            self.input(self.owner_of(record), Input::Restored { id, expires_at, record });
        }
    }

    /// Gives a shard that was started anew what it had then.
    pub fn restore_shard(&mut self, shard: u16, had: &Shelf) {
        for (id, (expires_at, record)) in &had.records {
            let (id, expires_at) = (*id, *expires_at);
            if self.owner_of(record) == shard {
                self.input(shard, Input::Restored { id, expires_at, record });
            }
        }
    }

    fn owner_of(&self, record: &[u8]) -> u16 {
        let placement = KeyedHash::new(derive_key(&SECRET, "placement"));
        aor_of(record).map_or(0, |aor| owner_of(&placement, aor, self.shards()).0)
    }
}
