//! The names of REGISTERs that our registrar accepted and whose transactions gave way before their
//! time: what RFC 3261 §10.3 step 7 cannot tell of a copy that comes late, since a binding that is
//! gone took its Call-ID and CSeq along. Absent on purpose: their answers, which the registrar makes
//! anew from the bindings that there are.

use crate::base::limits::{REGISTERS_REMEMBERED, REMEMBERED_BYTES_MAX};
use crate::base::time::Time;
use crate::transaction::MergeKey;

/// So many that chance rarely fills one set long before the others.
const WAYS: usize = 16;
const SETS: usize = REGISTERS_REMEMBERED / WAYS;

/// A half of a name, and the millisecond at which it is over; 0: a free place.
type Name = [u64; 2];

const _: () = assert!(SETS * WAYS * size_of::<Name>() <= REMEMBERED_BYTES_MAX, "it is bounded");

/// A cache of [`REGISTERS_REMEMBERED`] names by the other half of them: a full set forgets the one
/// that would be over first.
#[derive(Default)]
pub(super) struct Remembered {
    /// Empty before the first: most shards never need it.
    names: Vec<Name>,
}

impl Remembered {
    /// Remembers a name until then.
    pub fn put(&mut self, key: MergeKey, until: Time) {
        if self.names.is_empty() {
            self.names = vec![Name::default(); SETS * WAYS];
        }
        let (start, half) = place(key);
        let set = &mut self.names[start..start + WAYS];
        let first = set.iter_mut().min_by_key(|[it, end]| (*it != half, *end));
        *first.expect("a set has places") = [half, until.as_millis()];
    }

    /// Whether a name is remembered.
    pub fn has(&self, key: MergeKey, now: Time) -> bool {
        let (start, half) = place(key);
        let set = self.names.get(start..start + WAYS).unwrap_or_default();
        set.iter().any(|[it, end]| *it == half && *end > now.as_millis())
    }
}

/// Where the set of a name begins, and what of the name stands in it.
fn place(key: MergeKey) -> (usize, u64) {
    let bits = key.to_bits();
    (bits as u64 as usize % SETS * WAYS, (bits >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    /// The n-th name of a set.
    fn name(set: u64, n: u64) -> MergeKey {
        MergeKey::from_bits(u128::from(n) << 64 | u128::from(set))
    }

    #[test]
    fn a_name_is_remembered_until_its_time() {
        let mut names = Remembered::default();
        assert!(!names.has(name(1, 1), at(0)));
        assert!(names.names.is_empty(), "nothing before the first");
        names.put(name(1, 1), at(32));
        assert!(names.has(name(1, 1), at(31)));
        assert!(!names.has(name(1, 1), at(32)));
        assert!(!names.has(name(1, 2), at(31)));
        assert!(!names.has(name(2, 1), at(31)));
        names.put(name(1, 1), at(40));
        assert!(names.has(name(1, 1), at(39)));
    }

    #[test]
    fn a_full_set_forgets_the_one_that_ends_first() {
        let mut names = Remembered::default();
        for n in 0..=WAYS as u64 {
            names.put(name(7, n), at(100 - n));
        }
        let has = |n: usize| names.has(name(7, n as u64), at(0));
        assert!((0..WAYS - 1).all(has) && has(WAYS));
        assert!(!has(WAYS - 1), "it would have ended first");
    }

    #[test]
    fn as_many_as_come_take_no_more_room() {
        let mut names = Remembered::default();
        let mix = 0x9e37_79b9_7f4a_7c15_u64;
        for n in 0..3 * REGISTERS_REMEMBERED as u64 {
            names.put(name(n.wrapping_mul(mix) >> 20, n), at(32 + n));
        }
        assert_eq!(names.names.len(), REGISTERS_REMEMBERED);
        assert!(names.names.capacity() * size_of::<Name>() <= REMEMBERED_BYTES_MAX);
    }
}
