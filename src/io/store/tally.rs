//! What the store has done, for the metrics: written by its thread and the shards, read by control.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::shelf::Shelf;
use crate::base::metrics::StoreNumbers;

/// The numbers of one store.
#[derive(Default, Debug)]
pub struct Tally {
    commits: AtomicU64,
    changes: AtomicU64,
    nanos: AtomicU64,
    nanos_max: AtomicU64,
    errors: AtomicU64,
    set_aside: AtomicU64,
    records: AtomicU64,
    in_flight: AtomicU64,
    durable_at_ms: AtomicU64,
    shelves: OnceLock<Vec<Arc<Shelf>>>,
}

impl Tally {
    /// All of them.
    pub fn numbers(&self) -> StoreNumbers {
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let waiting = self.shelves.get().into_iter().flatten().map(|shelf| shelf.waiting());
        StoreNumbers {
            commits: load(&self.commits),
            changes: load(&self.changes),
            commit_seconds: load(&self.nanos) as f64 / 1e9,
            commit_seconds_max: load(&self.nanos_max) as f64 / 1e9,
            errors: load(&self.errors),
            set_aside: load(&self.set_aside),
            records: load(&self.records),
            pending: waiting.sum::<u64>() + load(&self.in_flight),
            durable_at: load(&self.durable_at_ms) as f64 / 1e3,
        }
    }

    pub(super) fn watch(&self, shelves: &[Arc<Shelf>]) {
        // A store is started once.
        let _ = self.shelves.set(shelves.to_vec());
    }

    pub(super) fn on_taken(&self, changes: usize) {
        self.in_flight.store(changes as u64, Ordering::Relaxed);
    }

    pub(super) fn on_commit(&self, changes: usize, records: u64, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.changes.fetch_add(changes as u64, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.nanos_max.fetch_max(nanos, Ordering::Relaxed);
        self.records.store(records, Ordering::Relaxed);
        self.in_flight.store(0, Ordering::Relaxed);
        self.durable_at_ms.store(unix_ms(), Ordering::Relaxed);
    }

    pub(super) fn on_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn on_set_aside(&self) {
        self.set_aside.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn on_records(&self, records: u64) {
        self.records.store(records, Ordering::Relaxed);
    }
}

/// The wall clock, in milliseconds since the epoch.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
