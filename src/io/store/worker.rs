//! The store's thread: takes what lies on the shelves, makes one commit of it, tells the shards, and
//! reads the file for shards that start. When a commit fails it tries again until it succeeds;
//! meanwhile the shards gather.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use super::super::clock::Clock;
use super::batch::Batch;
use super::records::{Records, RecordsError};
use super::shelf::Shelf;
use super::tally::{Tally, unix_ms};
use crate::base::hash::KeyedHash;
use crate::base::limits::{STORE_PAGE_RECORDS, STORE_REPORT_INTERVAL, STORE_RETRY_INTERVAL};
use crate::base::time::Time;
use crate::proxy::place::owner_of;
use crate::registrar::aor_of;

/// What the thread is asked.
pub enum Request {
    /// Something lies on a shelf.
    Look,
    /// A shard wants the records of its addresses of record, from the next [`Request::Begin`] on.
    Read {
        /// Which.
        shard: usize,
        /// Where they go. It closes behind the last.
        pages: SyncSender<Page>,
    },
    /// Read for all shards that asked.
    Begin,
    /// Write what is there, and end.
    End,
}

/// Some records of the file.
pub type Page = Vec<Kept>;

/// One record of the file.
pub struct Kept {
    /// Its name.
    pub id: u64,
    /// When its binding expires, by the engines' clock.
    pub expires_at: Time,
    /// The record.
    pub record: Box<[u8]>,
}

/// What the thread works with.
pub struct Worker {
    pub records: Records,
    pub shelves: Vec<Arc<Shelf>>,
    pub inbox: Receiver<Request>,
    pub clock: Clock,
    /// Decides who owns an address of record, as it does for the engines.
    pub placement: KeyedHash,
    pub tally: Arc<Tally>,
}

impl Worker {
    /// Until it is told to end.
    pub fn run(mut self) {
        let mut readers: Vec<Option<SyncSender<Page>>> =
            self.shelves.iter().map(|_| None).collect();
        // Whoever could ask is gone when the other end is.
        while let Ok(request) = self.inbox.recv() {
            match request {
                Request::Look => {}
                Request::Read { shard, pages } => readers[shard] = Some(pages),
                Request::Begin => {
                    // What a shard that failed had gathered has to be read, too.
                    self.write(false);
                    self.read(std::mem::take(&mut readers));
                    readers = self.shelves.iter().map(|_| None).collect();
                }
                Request::End => return self.write(true),
            }
            self.write(false);
        }
    }

    /// Writes what lies on the shelves, however long it takes; at the end of the process it is
    /// tried once more only.
    fn write(&mut self, is_last: bool) {
        let mut batches: Vec<(usize, Box<Batch>)> = Vec::new();
        for (shard, shelf) in self.shelves.iter().enumerate() {
            batches.extend(shelf.take().map(|batch| (shard, batch)));
        }
        if batches.is_empty() {
            return;
        }
        let changes = batches.iter().map(|(_, batch)| batch.len()).sum();
        self.tally.on_taken(changes);
        let mut report = Report::default();
        while let Err(error) = self.commit(&batches, changes) {
            self.tally.on_error();
            report.failed(&error, changes);
            if is_last && report.failures > 1 {
                return;
            }
            std::thread::sleep(STORE_RETRY_INTERVAL);
            if let Err(error) = self.records.reopen(&self.tally) {
                self.tally.on_error();
                report.failed(&RecordsError::from(error), changes);
            }
        }
        report.succeeded(changes);
        for (shard, batch) in batches {
            self.shelves[shard].give_back(batch);
        }
    }

    fn commit(
        &mut self,
        batches: &[(usize, Box<Batch>)],
        changes: usize,
    ) -> Result<(), RecordsError> {
        let (begin, now, wall) = (Instant::now(), self.clock.now(), unix_ms());
        let to_wall = |at: Time| {
            let left = at.saturating_since(now).as_millis();
            wall.saturating_add(u64::try_from(left).unwrap_or(u64::MAX))
        };
        let records = self.records.commit(batches.iter().map(|(_, batch)| &**batch), to_wall)?;
        self.tally.on_commit(changes, records, begin.elapsed());
        Ok(())
    }

    /// Reads the whole file once for all that asked.
    fn read(&mut self, readers: Vec<Option<SyncSender<Page>>>) {
        let mut desk = Desk { readers, shelves: &self.shelves, pages: Vec::new() };
        desk.pages.resize_with(self.shelves.len(), Vec::new);
        let shards = u16::try_from(self.shelves.len()).unwrap_or(u16::MAX);
        let (now, wall) = (self.clock.now(), unix_ms());
        let outcome = self.records.read(|id, expires_ms, record| {
            // A record that is not understood is for somebody to count and to remove.
            let owner =
                aor_of(record).map_or(0, |aor| owner_of(&self.placement, aor, shards).index());
            let expires_at = now + Duration::from_millis(expires_ms.saturating_sub(wall));
            desk.add(owner, Kept { id, expires_at, record: record.into() });
        });
        desk.finish();
        if let Err(error) = outcome {
            self.tally.on_error();
            tracing::error!(%error, "the store could not be read to its end");
        }
    }
}

/// Pages in the making.
struct Desk<'a> {
    readers: Vec<Option<SyncSender<Page>>>,
    shelves: &'a [Arc<Shelf>],
    pages: Vec<Page>,
}

impl Desk<'_> {
    fn add(&mut self, shard: usize, record: Kept) {
        if self.readers[shard].is_none() {
            return;
        }
        self.pages[shard].push(record);
        if self.pages[shard].len() == STORE_PAGE_RECORDS {
            self.send(shard);
        }
    }

    fn send(&mut self, shard: usize) {
        let page = std::mem::take(&mut self.pages[shard]);
        let Some(reader) = &self.readers[shard] else { return };
        // A shard that failed meanwhile asks again.
        if reader.send(page).is_err() {
            self.readers[shard] = None;
        }
        self.shelves[shard].bell().ring();
    }

    fn finish(mut self) {
        for shard in 0..self.pages.len() {
            if !self.pages[shard].is_empty() {
                self.send(shard);
            }
            if self.readers[shard].take().is_some() {
                self.shelves[shard].bell().ring();
            }
        }
    }
}

/// What the log is told of failing commits: the first at once, then now and then.
#[derive(Default)]
struct Report {
    failures: u32,
    told_at: Option<Instant>,
}

impl Report {
    fn failed(&mut self, error: &RecordsError, changes: usize) {
        self.failures += 1;
        if self.told_at.is_none_or(|at| at.elapsed() >= STORE_REPORT_INTERVAL) {
            self.told_at = Some(Instant::now());
            tracing::error!(%error, changes, "bindings cannot be stored; trying again");
        }
    }

    fn succeeded(&self, changes: usize) {
        if self.failures > 0 {
            tracing::warn!(failures = self.failures, changes, "bindings are stored again");
        }
    }
}
