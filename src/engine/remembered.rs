//! The names of REGISTERs that our registrar accepted and whose transactions gave way before their
//! time: what RFC 3261 §10.3 step 7 cannot tell of a copy that comes late, since a binding that is
//! gone took its Call-ID and CSeq along. Absent on purpose: their answers, which the registrar makes
//! anew from the bindings that there are.

use crate::base::limits::{REGISTERS_REMEMBERED, REMEMBERED_BYTES_MAX};
use crate::base::time::Time;
use crate::transaction::MergeKey;

/// As many as one cache line holds: each REGISTER looks at a set, most of which are in no cache.
const WAYS: usize = 8;
const SETS: usize = REGISTERS_REMEMBERED / WAYS;
/// Seconds of a tick, by which it is counted when a name is over: 20 bits of them come round in 97 days.
const TICK: u64 = 8;
const TICKS: u64 = (1 << 20) - 1;
/// Ticks that a name is remembered at most: Timer J of the longest T1 that can be configured, 64
/// minutes, and one more. Whatever seems to have more left was over before the ticks came round.
const LONGEST: u64 = 64 * 60 / TICK + 1;

/// 44 bits of a name, of which the lowest is set, and the tick at which it is over; 0: a free place.
#[derive(Clone, Copy, Default)]
struct Name(u64);

#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Set([Name; WAYS]);

const _: () = {
    assert!(size_of::<Set>() == WAYS * size_of::<Name>(), "nothing is lost to its alignment");
    assert!(SETS * size_of::<Set>() <= REMEMBERED_BYTES_MAX, "it is bounded");
};

/// A cache of [`REGISTERS_REMEMBERED`] names by another part of them: a full set forgets the one that
/// would be over first. A look finds another name by chance once in 10^12 times.
#[derive(Default)]
pub(super) struct Remembered {
    /// Empty before the first: most shards never need it.
    sets: Vec<Set>,
}

impl Remembered {
    /// Remembers a name until then, or up to a tick longer.
    pub fn put(&mut self, key: MergeKey, until: Time, now: Time) {
        if self.sets.is_empty() {
            self.sets = vec![Set::default(); SETS];
        }
        let (set, name) = place(key);
        let end = (tick(until) + 1).min(tick(now) + LONGEST) & TICKS;
        let first = self.sets[set].0.iter_mut().min_by_key(|it| (!it.is(name), it.left(now)));
        *first.expect("a set has places") = Name(name | end);
    }

    /// Whether a name is remembered.
    pub fn has(&self, key: MergeKey, now: Time) -> bool {
        let (set, name) = place(key);
        let set = self.sets.get(set).map_or(&[][..], |set| &set.0);
        set.iter().any(|it| it.is(name) && it.left(now) > 0)
    }
}

impl Name {
    fn is(self, name: u64) -> bool {
        self.0 & !TICKS == name
    }

    /// Ticks until it is over; 0 when it is.
    fn left(self, now: Time) -> u64 {
        let left = self.0.wrapping_sub(tick(now)) & TICKS;
        if left > LONGEST || self.0 == 0 { 0 } else { left }
    }
}

fn tick(at: Time) -> u64 {
    at.as_secs() / TICK
}

/// The set of a name, and what of the name stands in it.
fn place(key: MergeKey) -> (usize, u64) {
    let bits = key.to_bits();
    let name = (bits >> 64) as u64 | (TICKS + 1);
    (bits as u64 as usize % SETS, name & !TICKS)
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
        MergeKey::from_bits(u128::from(n) << 85 | u128::from(set))
    }

    #[test]
    fn a_name_is_remembered_until_its_time() {
        let mut names = Remembered::default();
        assert!(!names.has(name(1, 1), at(0)));
        assert!(names.sets.is_empty(), "nothing before the first");
        names.put(name(1, 1), at(32), at(0));
        assert!(names.has(name(1, 1), at(32)));
        assert!(!names.has(name(1, 1), at(40)));
        assert!(!names.has(name(1, 2), at(31)));
        assert!(!names.has(name(2, 1), at(31)));
        names.put(name(1, 1), at(40), at(8));
        assert!(names.has(name(1, 1), at(40)));
        assert_eq!(names.sets[1].0.iter().filter(|it| it.0 != 0).count(), 1);
    }

    #[test]
    fn a_full_set_forgets_the_one_that_ends_first() {
        let mut names = Remembered::default();
        for n in 0..=WAYS as u64 {
            names.put(name(7, n), at(200 - TICK * n), at(0));
        }
        let has = |n: usize| names.has(name(7, n as u64), at(0));
        assert!((0..WAYS - 1).all(has) && has(WAYS));
        assert!(!has(WAYS - 1), "it would have ended first");
    }

    #[test]
    fn what_is_over_takes_no_place_however_long_ago_that_was() {
        const ROUND: u64 = TICK << 20;
        for later in [40, 5_000, ROUND / 2, ROUND - 4_000, ROUND + 40, 100 * ROUND + 5_000] {
            let mut names = Remembered::default();
            for n in 0..WAYS as u64 {
                names.put(name(7, n), at(32), at(0));
            }
            let now = at(later);
            assert!((0..WAYS as u64).all(|n| !names.has(name(7, n), now)), "{later}");
            for n in 0..WAYS as u64 {
                names.put(name(7, 100 + n), now + Duration::from_secs(32), now);
            }
            assert!((0..WAYS as u64).all(|n| names.has(name(7, 100 + n), now)), "{later}");
        }
    }

    #[test]
    fn the_longest_timer_j_counts_in_full() {
        let mut names = Remembered::default();
        names.put(name(1, 1), at(64 * 60), at(0));
        names.put(name(1, 2), at(u64::from(u32::MAX)), at(0));
        for n in [1, 2] {
            assert!(names.has(name(1, n), at(64 * 60)));
            assert!(!names.has(name(1, n), at(64 * 60 + TICK)));
        }
    }

    #[test]
    fn as_many_as_come_take_no_more_room() {
        let mut names = Remembered::default();
        let mix = 0x9e37_79b9_7f4a_7c15_u64;
        for n in 0..3 * REGISTERS_REMEMBERED as u64 {
            names.put(name(n.wrapping_mul(mix) >> 20, n), at(32 + n), at(n));
        }
        assert_eq!(names.sets.len(), SETS);
        assert!(names.sets.capacity() * size_of::<Set>() <= REMEMBERED_BYTES_MAX);
    }
}
