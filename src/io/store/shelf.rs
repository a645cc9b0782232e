//! Where a shard leaves its batch and the store's thread finds it: a swap of one pointer under a
//! lock that nobody holds longer than that, and that the shard only tries.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::super::link::Doorbell;
use super::batch::Batch;

/// Between one shard and the store's thread.
#[derive(Debug)]
pub struct Shelf {
    full: Mutex<Option<Box<Batch>>>,
    /// Emptied by the thread, for the shard to use again.
    spare: Mutex<Option<Box<Batch>>>,
    /// Number of the last change that is durable.
    durable: AtomicU64,
    /// Changes that the shard has gathered.
    gathered: AtomicU64,
    /// Changes that lie here.
    lying: AtomicU64,
    bell: Arc<Doorbell>,
    /// The shard found no room.
    is_wanted: AtomicBool,
    /// The shard waits for its changes to be durable.
    is_awaited: bool,
}

impl Shelf {
    pub fn new(bell: Arc<Doorbell>, is_awaited: bool) -> Shelf {
        Shelf {
            full: Mutex::default(),
            spare: Mutex::default(),
            durable: AtomicU64::new(0),
            gathered: AtomicU64::new(0),
            lying: AtomicU64::new(0),
            bell,
            is_wanted: AtomicBool::new(false),
            is_awaited,
        }
    }

    /// For the shard: leaves the batch and takes an empty one. False: the one before lies there
    /// still; the bell rings when it does not.
    pub fn leave(&self, batch: &mut Box<Batch>) -> bool {
        // Whoever takes what lies here after this sees it.
        self.is_wanted.store(true, Ordering::SeqCst);
        let mut full = match self.full.try_lock() {
            Ok(full) => full,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        if full.is_some() {
            return false;
        }
        self.is_wanted.store(false, Ordering::SeqCst);
        self.lying.store(batch.len() as u64, Ordering::Relaxed);
        let spare = self.spare.try_lock().ok().and_then(|mut spare| spare.take());
        *full = Some(std::mem::replace(batch, spare.unwrap_or_default()));
        true
    }

    /// For a shard that ends, in whatever way: leaves the batch on top of what lies there.
    pub fn leave_all(&self, batch: &mut Batch) {
        let mut full = lock(&self.full);
        match full.as_mut() {
            Some(earlier) => earlier.absorb(batch),
            None => *full = Some(Box::new(std::mem::take(batch))),
        }
        let count = full.as_ref().map_or(0, |batch| batch.len());
        self.lying.store(count as u64, Ordering::Relaxed);
        batch.clear();
    }

    /// For the shard, before it sleeps: whether a batch could be left.
    pub fn has_room(&self) -> bool {
        self.full.try_lock().is_ok_and(|full| full.is_none())
    }

    /// For the shard: the last change that is durable.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// For the shard: how many changes it has gathered.
    pub fn note_gathered(&self, count: usize) {
        self.gathered.store(count as u64, Ordering::Relaxed);
    }

    /// How many changes have been gathered and left that nobody has taken.
    pub fn waiting(&self) -> u64 {
        self.gathered.load(Ordering::Relaxed) + self.lying.load(Ordering::Relaxed)
    }

    /// For the store: takes what lies there.
    pub fn take(&self) -> Option<Box<Batch>> {
        let batch = lock(&self.full).take();
        if batch.is_some() {
            self.lying.store(0, Ordering::Relaxed);
            if self.is_wanted.swap(false, Ordering::SeqCst) {
                self.bell.ring();
            }
        }
        batch
    }

    /// For the store: the batch is durable.
    pub fn give_back(&self, mut batch: Box<Batch>) {
        self.durable.store(batch.serial(), Ordering::Release);
        batch.clear();
        *lock(&self.spare) = Some(batch);
        if self.is_awaited {
            self.bell.ring();
        }
    }

    pub fn bell(&self) -> &Doorbell {
        &self.bell
    }
}

/// A pointer is whole whatever became of the thread that swapped it last.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
