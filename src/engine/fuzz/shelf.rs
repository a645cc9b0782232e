//! The store of a run: records by name, durable when the run says so, and given back to a shard that
//! failed, whole or not.

use std::collections::{BTreeMap, VecDeque};

use crate::base::choices::Choices;
use crate::base::config::Persistence;
use crate::base::time::Time;
use crate::engine::{Input, StoreChange};

use super::net::Net;

/// Records that were never ours have names from here on.
const FOREIGN: u64 = 1 << 62;

/// What shards gave to the store.
#[derive(Default)]
pub(super) struct Shelf {
    /// By name: the shard, the expiry, the record.
    records: BTreeMap<u64, (usize, Time, Vec<u8>)>,
    /// By shard and time, changes that nobody was told to be durable.
    waiting: VecDeque<(usize, u64)>,
    foreign: u64,
}

impl Net {
    /// Takes a change.
    pub(super) fn store(&mut self, shard: usize, serial: u64, id: u64, change: StoreChange) {
        let has_store = self.born[shard].config.registrar.persistence != Persistence::None;
        assert!(has_store || id >= FOREIGN, "no store is configured");
        match change {
            StoreChange::Put { expires_at, range, .. } => {
                let record = self.engines[shard].bytes(range).to_vec();
                assert!(!record.is_empty(), "an empty record");
                self.shelf.records.insert(id, (shard, expires_at, record));
            }
            StoreChange::Remove => {
                self.shelf.records.remove(&id);
            }
        }
        self.shelf.waiting.push_back((shard, serial));
    }

    /// So many changes are durable.
    pub(super) fn make_durable(&mut self, most: usize) {
        for _ in 0..most.min(self.shelf.waiting.len()) {
            let Some((shard, serial)) = self.shelf.waiting.pop_front() else { break };
            self.tell(shard, Input::Stored { serial });
        }
    }

    /// A shard that was started anew hears what it had.
    pub(super) fn restore(&mut self, shard: usize) {
        self.shelf.waiting.retain(|(of, _)| *of != shard);
        let all = self.shelf.records.iter().filter(|(_, (of, ..))| *of == shard);
        let mine: Vec<_> = all.map(|(id, (_, at, record))| (*id, *at, record.clone())).collect();
        for (id, expires_at, record) in mine {
            let record = record.as_slice();
            self.tell(shard, Input::Restored { id, expires_at, record });
        }
    }

    /// A record that a disk or another version made of one of ours.
    pub(super) fn restore_bent(&mut self, shard: usize, choices: &mut Choices<'_>) {
        let pick = usize::from(choices.byte());
        let mut all = self.shelf.records.values();
        let known = pick.checked_rem(all.len()).and_then(|at| all.nth(at));
        let mut record = known.map_or_else(Vec::new, |(_, _, record)| record.clone());
        let len = choices.below(16);
        let at = choices.below(256).min(record.len());
        let end = (at + len).min(record.len());
        record.splice(at..end, choices.take(len).iter().copied());
        self.shelf.foreign += 1;
        let id = FOREIGN + self.shelf.foreign;
        let expires_at = self.now + std::time::Duration::from_secs(60);
        let record = record.as_slice();
        self.tell(shard, Input::Restored { id, expires_at, record });
    }
}
