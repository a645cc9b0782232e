//! Numbers that look random and are the same in every run.

use std::ops::Range;

/// SplitMix64: a counter, scattered.
#[derive(Clone, Debug, Default)]
pub struct Random(u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// One of the range, evenly.
    pub fn within(&mut self, range: &Range<usize>) -> usize {
        range.start + ((u128::from(self.next()) * range.len() as u128) >> 64) as usize
    }

    /// One of the range, but not `not`, where there are two.
    pub fn other_than(&mut self, range: &Range<usize>, not: usize) -> usize {
        let found = self.within(range);
        match found == not {
            true if found + 1 < range.end => found + 1,
            true => range.start,
            false => found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_range_and_nothing_else_comes() {
        let mut random = Random::default();
        let mut seen = [0; 5];
        for _ in 0..1000 {
            seen[random.within(&(2..5))] += 1;
        }
        assert_eq!(seen[..2], [0, 0]);
        assert!(seen[2..].iter().all(|count| *count > 250), "{seen:?}");
    }

    #[test]
    fn nobody_meets_itself() {
        let mut random = Random::default();
        for not in 0..3 {
            assert!((0..100).all(|_| random.other_than(&(0..3), not) != not));
        }
        assert_eq!(random.other_than(&(4..5), 4), 4);
    }
}
