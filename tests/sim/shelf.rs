//! The store: records by name, each durable after a while. A shard that failed is told what it had.

use std::collections::BTreeMap;

use sipring::base::config::Persistence;
use sipring::base::hash::{KeyedHash, derive_key};
use sipring::base::id::ShardId;
use sipring::base::time::Time;
use sipring::engine::{Input, StoreChange};
use sipring::proxy::place::owner_of;
use sipring::registrar::aor_of;

use crate::agenda::Happening;
use crate::checker::Checker;
use crate::message::find;
use crate::mutation::Fault;
use crate::world::{SECRET, World};

/// What shards gave to the store.
#[derive(Default)]
pub struct Shelf {
    /// Expiry and record of each name.
    records: BTreeMap<u64, (Time, Vec<u8>)>,
    last: BTreeMap<(ShardId, u8), u64>,
}

impl World {
    fn owner_of(&self, aor: &[u8]) -> ShardId {
        let placement = KeyedHash::new(derive_key(&SECRET, "placement"));
        owner_of(&placement, aor, self.profile.shards)
    }

    /// Takes a change.
    pub fn store(&mut self, shard: ShardId, serial: u64, id: u64, change: StoreChange) {
        let incarnation = self.incarnations[shard.index()];
        let last = self.shelf.last.insert((shard, incarnation), serial);
        if last.is_some_and(|last| last + 1 != serial) {
            let text = format!("change {serial} of {shard:?} after {last:?}");
            self.books.fail(Checker::Durable, text);
        }
        let is_lost = self.fault == Some(Fault::LoseRecord);
        match change {
            StoreChange::Put { expires_at, range, .. } if !is_lost => {
                let record = self.engines[shard.index()].bytes(range).to_vec();
                self.shelf.records.insert(id, (expires_at, record));
            }
            StoreChange::Put { .. } => {}
            StoreChange::Remove => {
                self.shelf.records.remove(&id);
            }
        }
        let wait = self.profile.house.store_delay;
        self.after(wait, Happening::Stored { shard, incarnation, serial });
    }

    /// A shard is about to fail: what it has promised to keep is in the store.
    pub fn check_durable(&mut self, shard: u16) {
        if self.profile.house.persistence != Persistence::Synchronous || self.is_draining {
            return;
        }
        let missed = self.books.registrar.all_sure(self.now).find(|it| {
            let aor = format!("u{}@example.com", it.wish.user);
            let is_kept = |record: &[u8]| find(record, it.wish.contact.as_bytes()).is_some();
            self.owner_of(aor.as_bytes()) == ShardId(shard)
                && !self.shelf.records.values().any(|(_, record)| is_kept(record))
        });
        if let Some(missed) = missed {
            let text = format!("{missed:?}");
            self.books.fail(Checker::Durable, text);
        }
    }

    /// Tells a shard what the one in its place had.
    pub fn restore(&mut self, shard: ShardId) {
        let is_its = |record: &[u8]| aor_of(record).is_ok_and(|it| self.owner_of(it) == shard);
        let all = self.shelf.records.iter();
        let mine: Vec<(u64, Time, Vec<u8>)> = all
            .filter(|(_, (expires_at, record))| *expires_at > self.now && is_its(record))
            .map(|(id, (expires_at, record))| (*id, *expires_at, record.clone()))
            .collect();
        for (id, expires_at, record) in mine {
            let record = record.as_slice();
            self.input(shard.index(), Input::Restored { id, expires_at, record });
        }
    }
}
