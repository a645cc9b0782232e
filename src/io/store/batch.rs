//! Changes of bindings that wait to be written, the last one of each binding only.
//!
//! How many there can be while nothing is written: a binding that comes and goes meanwhile leaves
//! nothing behind, so that all others are in the table now, or were when a batch was last handed
//! over. That is at most twice as many as the table holds, however long it takes.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;

use crate::base::limits::STORE_BATCH_BYTES_KEPT;
use crate::base::time::Time;

/// Changes by the name of their binding. Storage is used again.
#[derive(Default, Debug)]
pub struct Batch {
    changes: HashMap<u64, Entry>,
    bytes: Vec<u8>,
    /// Bytes that no change names any more.
    dead: usize,
    serial: u64,
}

/// What becomes of one binding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write<'a> {
    /// It has this record until then.
    Put(Time, &'a [u8]),
    /// It is gone.
    Remove,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The file cannot have it.
    is_new: bool,
    /// Where its record is; `None`: it is gone.
    record: Option<(Time, usize, usize)>,
}

impl Batch {
    /// Notes that a binding has come or changed, by the change of that number.
    pub fn put(&mut self, serial: u64, id: u64, is_new: bool, expires_at: Time, record: &[u8]) {
        self.serial = serial;
        match self.changes.entry(id) {
            Place::Vacant(place) => {
                let record = Some((expires_at, self.bytes.len(), record.len()));
                place.insert(Entry { is_new, record });
            }
            Place::Occupied(mut place) => match &mut place.get_mut().record {
                // A refresh: nothing moves.
                Some((at, start, length)) if *length == record.len() => {
                    *at = expires_at;
                    self.bytes[*start..*start + *length].copy_from_slice(record);
                    return;
                }
                old => {
                    self.dead += old.map_or(0, |(_, _, length)| length);
                    *old = Some((expires_at, self.bytes.len(), record.len()));
                }
            },
        }
        self.bytes.extend_from_slice(record);
        self.tidy();
    }

    /// Notes that a binding is gone, by the change of that number.
    pub fn remove(&mut self, serial: u64, id: u64) {
        self.serial = serial;
        let old = match self.changes.entry(id) {
            Place::Occupied(place) if place.get().is_new => place.remove().record,
            Place::Occupied(mut place) => place.get_mut().record.take(),
            Place::Vacant(place) => {
                place.insert(Entry { is_new: false, record: None });
                None
            }
        };
        self.dead += old.map_or(0, |(_, _, length)| length);
        self.tidy();
    }

    /// Takes over what a later batch says.
    pub fn absorb(&mut self, later: &Batch) {
        let mut changes: Vec<_> = later.changes.iter().collect();
        changes.sort_unstable_by_key(|(id, _)| **id);
        for (id, entry) in changes {
            match entry.record {
                Some((at, start, length)) => {
                    let record = &later.bytes[start..start + length];
                    self.put(later.serial, *id, entry.is_new, at, record);
                }
                None => self.remove(later.serial, *id),
            }
        }
        self.serial = self.serial.max(later.serial);
    }

    /// Every change, by name.
    pub fn writes(&self) -> Vec<(u64, Write<'_>)> {
        let mut writes: Vec<_> =
            self.changes.iter().map(|(id, entry)| (*id, self.write(entry))).collect();
        // Neighbours share pages of the file.
        writes.sort_unstable_by_key(|(id, _)| *id);
        writes
    }

    fn write(&self, entry: &Entry) -> Write<'_> {
        match entry.record {
            Some((at, start, length)) => Write::Put(at, &self.bytes[start..start + length]),
            None => Write::Remove,
        }
    }

    /// How many bindings change.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there is nothing to be said, not even that a change came to nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.serial == 0
    }

    /// The number of the last change.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Empties it. What is very large is given back.
    pub fn clear(&mut self) {
        if self.bytes.capacity() > STORE_BATCH_BYTES_KEPT {
            *self = Batch::default();
            return;
        }
        self.changes.clear();
        self.bytes.clear();
        (self.dead, self.serial) = (0, 0);
    }

    /// Throws dead bytes away when they are most.
    fn tidy(&mut self) {
        if self.dead < TIDY_BYTES || self.dead * 2 < self.bytes.len() {
            return;
        }
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.dead);
        for (_, start, length) in self.changes.values_mut().filter_map(|it| it.record.as_mut()) {
            let begin = bytes.len();
            bytes.extend_from_slice(&self.bytes[*start..*start + *length]);
            *start = begin;
        }
        (self.bytes, self.dead) = (bytes, 0);
    }
}

/// Fewer dead bytes are not worth a copy.
const TIDY_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn the_last_change_of_a_binding_counts() {
        let mut batch = Batch::default();
        batch.put(1, 7, true, at(1), b"first");
        batch.put(2, 7, false, at(2), b"other");
        batch.put(3, 7, false, at(3), b"longer one");
        batch.put(4, 5, false, at(4), b"five");
        batch.remove(5, 9);
        let expected = [
            (5, Write::Put(at(4), &b"five"[..])),
            (7, Write::Put(at(3), b"longer one")),
            (9, Write::Remove),
        ];
        assert_eq!(batch.writes(), expected);
        assert_eq!((batch.len(), batch.serial()), (3, 5));
        batch.clear();
        assert!(batch.is_empty() && batch.writes().is_empty());
    }

    #[test]
    fn what_came_and_went_leaves_its_number_only() {
        let mut batch = Batch::default();
        batch.put(1, 7, true, at(1), b"x");
        batch.remove(2, 7);
        assert_eq!(batch.len(), 0);
        assert!(!batch.is_empty(), "somebody may wait for change 2");
        batch.put(3, 8, false, at(1), b"known");
        batch.remove(4, 8);
        batch.put(5, 8, false, at(2), b"again");
        assert_eq!(batch.writes(), [(8, Write::Put(at(2), &b"again"[..]))]);
    }

    #[test]
    fn churn_while_nothing_is_written_stays_bounded() {
        let mut batch = Batch::default();
        let mut serial = 0;
        for id in 0..200_000_u64 {
            serial += 2;
            batch.put(serial, id, true, at(id), &[id as u8; 200]);
            // A hundred live at a time.
            if let Some(old) = id.checked_sub(100) {
                batch.remove(serial + 1, old);
            }
        }
        assert_eq!(batch.len(), 100);
        assert!(batch.bytes.len() < 200 * 200 + TIDY_BYTES, "{}", batch.bytes.len());
        for (id, write) in batch.writes() {
            assert_eq!(write, Write::Put(at(id), &[id as u8; 200][..]));
        }
    }

    #[test]
    fn a_later_batch_wins() {
        let mut batch = Batch::default();
        batch.put(1, 1, true, at(1), b"one");
        batch.put(2, 2, false, at(1), b"two");
        let mut later = Batch::default();
        later.remove(3, 1);
        later.put(4, 2, false, at(2), b"zwei");
        later.put(5, 3, true, at(3), b"drei");
        batch.absorb(&later);
        let expected = [(2, Write::Put(at(2), &b"zwei"[..])), (3, Write::Put(at(3), &b"drei"[..]))];
        assert_eq!(batch.writes(), expected);
        assert_eq!(batch.serial(), 5);
    }
}
