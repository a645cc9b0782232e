//! Bindings in a file, so that they survive the process: each shard gathers what changed in a
//! [`Batch`], leaves it on a [`Shelf`], and one thread of the process writes what lies there, a
//! commit for all shards at a time. No shard ever waits for the disk.
//!
//! The file is a redb database: one file, whose commits replace the root of a tree of checked pages
//! and are found whole or not at all after a crash. Absent on purpose: what a record means
//! (`registrar/record`), and stores that several processes share.

mod batch;
mod keeper;
mod records;
mod shelf;
mod tally;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::clock::Clock;
use super::link::Doorbell;
use crate::base::hash::{KeyedHash, derive_key};
use crate::base::limits::STORE_END_TIME;

pub use keeper::Keeper;
pub use records::{Records, StoreError, inspect};
pub use tally::Tally;
pub use worker::Kept;

use shelf::Shelf;
use worker::{Request, Worker};

/// What `store_delay` is by default.
pub const STORE_DELAY: Duration = Duration::from_millis(200);

/// The settings of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFile {
    /// Where it is.
    pub path: PathBuf,
    /// How long changes are gathered before they are written; zero: no longer than the commit
    /// before takes.
    pub delay: Duration,
}

/// A store whose file is open and whose thread does not run yet.
pub struct Store {
    records: Records,
    delay: Duration,
    tally: Arc<Tally>,
}

/// A store at work.
pub struct Running {
    thread: JoinHandle<()>,
    requests: Sender<Request>,
    is_over: std::sync::mpsc::Receiver<()>,
}

impl Store {
    /// Opens the file, and makes it when there is none. A damaged one is set aside and reported.
    pub fn open(settings: &StoreFile) -> Result<Store, StoreError> {
        let tally = Arc::new(Tally::default());
        let records = Records::open(&settings.path, &tally)?;
        Ok(Store::new(records, settings.delay, tally))
    }

    pub(super) fn new(records: Records, delay: Duration, tally: Arc<Tally>) -> Store {
        Store { records, delay, tally }
    }

    /// Its numbers.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Starts its thread, which begins with reading. One keeper a shard, in the order of their
    /// bells.
    pub(super) fn start(
        self,
        clock: Clock,
        secret: &[u8; 32],
        bells: &[Arc<Doorbell>],
    ) -> io::Result<(Running, Vec<Keeper>)> {
        let (requests, inbox) = channel();
        let (over, is_over) = channel();
        let is_awaited = self.delay.is_zero();
        let shelves: Vec<Arc<Shelf>> =
            bells.iter().map(|bell| Arc::new(Shelf::new(Arc::clone(bell), is_awaited))).collect();
        self.tally.watch(&shelves);
        let worker = Worker {
            records: self.records,
            shelves: shelves.clone(),
            inbox,
            clock,
            placement: KeyedHash::new(derive_key(secret, "placement")),
            tally: self.tally,
        };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            worker.run();
            // Whoever waits has given up otherwise.
            let _ = over.send(());
        })?;
        let keepers = shelves.into_iter().enumerate().map(|(shard, shelf)| {
            let requests = Sender::clone(&requests);
            Keeper::new(shard, shelf, self.delay, requests)
        });
        let mut keepers: Vec<Keeper> = keepers.collect();
        keepers.iter_mut().for_each(Keeper::ask_for_records);
        // All at once: the file is read but once.
        let _ = requests.send(Request::Begin);
        Ok((Running { thread, requests, is_over }, keepers))
    }
}

impl Running {
    /// Writes what the shards have left, once they have ended, and ends. What cannot be written in
    /// time is lost, which the log tells.
    pub(super) fn end(self) {
        let _ = self.requests.send(Request::End);
        match self.is_over.recv_timeout(STORE_END_TIME) {
            Ok(()) => {
                let _ = self.thread.join();
            }
            Err(_) => tracing::error!("the last changes of bindings could not be stored in time"),
        }
    }
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
