//! Random numbers of a shard: ChaCha8 from a seed, so that a run can be repeated from it. Absent on
//! purpose: the system's randomness (whoever makes the seed reads it).

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng};

/// A deterministic stream of unpredictable numbers: whoever does not know the seed cannot guess the
/// next one.
#[derive(Clone)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream of this seed.
    pub fn new(seed: [u8; 32]) -> Rng {
        Rng(ChaCha8Rng::from_seed(seed))
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 32 uniform bits.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A uniform number in `0..n`. Panics when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0);
        // The high half of a 128-bit product is uniform once the low halves that some results have
        // one more of are refused (Lemire 2019).
        let refused = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= refused {
                return (product >> 64) as u64;
            }
        }
    }

    /// Fills `bytes` with uniform ones.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_stream() {
        let (mut one, mut same, mut other) =
            (Rng::new([1; 32]), Rng::new([1; 32]), Rng::new([2; 32]));
        let mut bytes = [[0; 33]; 3];
        one.fill(&mut bytes[0]);
        same.fill(&mut bytes[1]);
        other.fill(&mut bytes[2]);
        assert_eq!(bytes[0], bytes[1]);
        assert_ne!(bytes[0], bytes[2]);
        assert_eq!((one.next_u64(), one.next_u32()), (same.next_u64(), same.next_u32()));
    }

    #[test]
    fn below_stays_below_and_reaches_every_value() {
        let mut rng = Rng::new([3; 32]);
        for n in [1, 2, 3, 10, 64] {
            let mut seen = vec![false; n as usize];
            for _ in 0..2_000 {
                seen[rng.below(n) as usize] = true;
            }
            assert!(seen.iter().all(|s| *s), "{n}");
        }
        // A bound that refuses almost half of the raw numbers.
        assert!((0..100).all(|_| rng.below((1 << 63) + 1) <= 1 << 63));
    }
}
