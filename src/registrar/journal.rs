//! What changed in the table of bindings since somebody last looked, for a store that outlives the
//! process. Absent on purpose: the store, and what is written there (`record`).

use crate::base::slab::SlabKey;

/// A binding came, changed or went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// Its name in the store.
    pub id: u64,
    /// It came: the store does not have it yet.
    pub is_new: bool,
    pub(super) key: SlabKey,
}

/// The changes, if anybody wants to know. Whoever does takes them after each event of the table:
/// there are no more than that event made.
#[derive(Default, Debug)]
pub(super) struct Journal {
    is_kept: bool,
    changes: Vec<Change>,
}

impl Journal {
    pub(super) fn keep(&mut self) {
        self.is_kept = true;
    }

    pub(super) fn note(&mut self, change: Change) {
        if self.is_kept {
            self.changes.push(change);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Change> {
        self.changes.iter().copied()
    }

    pub(super) fn clear(&mut self) {
        self.changes.clear();
    }
}
