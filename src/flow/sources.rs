//! How much each source address gets in a time: answers where a sender may use another's address (RFC
//! 8489 §16.1.2: an answer goes to whoever is named as the source), tries of passwords. Absent on
//! purpose: what it is that is given, and how a rate is kept (`base/allowance`).
//!
//! A table of fixed size, whatever the number of sources: who shares a cell shares its allowance, and
//! who that is nobody outside can tell, since the hash is keyed.

use std::net::IpAddr;
use std::time::Duration;

use crate::base::allowance::{Allowance, Rate};
use crate::base::hash::KeyedHash;
use crate::base::limits::SOURCE_CELLS;
use crate::base::time::Time;

/// What sources were given.
pub struct Sources {
    hash: KeyedHash,
    cells: Box<[Allowance]>,
}

impl Sources {
    /// Nothing was given yet.
    pub fn new(hash: KeyedHash) -> Sources {
        Sources { hash, cells: vec![Allowance::default(); SOURCE_CELLS].into() }
    }

    /// Gives `source` one more; false when it had its `most` of a second.
    pub fn give(&mut self, source: IpAddr, most: usize, now: Time) -> bool {
        let Some(rate) = rate(most, Duration::from_secs(1)) else { return false };
        let cell = self.cell_of(source);
        let is_due = cell.has(now, rate);
        if is_due {
            cell.take(now, rate);
        }
        is_due
    }

    /// Whether `source` has yet to have its `most` of that time.
    pub fn has(&mut self, source: IpAddr, most: usize, time: Duration, now: Time) -> bool {
        rate(most, time).is_some_and(|rate| self.cell_of(source).has(now, rate))
    }

    /// Counts one that `source` had.
    pub fn take(&mut self, source: IpAddr, most: usize, time: Duration, now: Time) {
        if let Some(rate) = rate(most, time) {
            self.cell_of(source).take(now, rate);
        }
    }

    /// A host with IPv6 has a network of 64 bits to choose its addresses from.
    fn cell_of(&mut self, source: IpAddr) -> &mut Allowance {
        let at = self.place_of(source);
        &mut self.cells[at]
    }

    fn place_of(&self, source: IpAddr) -> usize {
        let hash = match source {
            IpAddr::V4(ip) => self.hash.of(&ip.octets()),
            IpAddr::V6(ip) => self.hash.of(&ip.octets()[..8]),
        };
        hash as usize % SOURCE_CELLS
    }
}

/// So many in that time; `None`: none at all.
fn rate(most: usize, time: Duration) -> Option<Rate> {
    let burst = u32::try_from(most).unwrap_or(u32::MAX);
    Some(Rate { interval: time.checked_div(burst)?, burst })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_source_has_its_own_and_each_second_anew() {
        let mut sources = Sources::new(KeyedHash::new([7; 16]));
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        assert_ne!(sources.place_of(one), sources.place_of(other));
        for second in [0, 1, 5, 1 << 32] {
            let now = Time::ZERO + Duration::from_secs(second);
            for source in [one, other] {
                let given = (0..9).filter(|_| sources.give(source, 3, now)).count();
                assert_eq!(given, 3, "{source} at {second}");
            }
        }
    }

    #[test]
    fn nobody_gets_any_of_nothing() {
        let mut sources = Sources::new(KeyedHash::new([7; 16]));
        assert!(!sources.give(address("192.0.2.1"), 0, Time::ZERO));
    }

    #[test]
    fn addresses_of_one_network_share_theirs() {
        let mut sources = Sources::new(KeyedHash::new([7; 16]));
        let give = |sources: &mut Sources, host: u16| {
            sources.give(address(&format!("2001:db8:1:2::{host:x}")), 5, Time::ZERO)
        };
        assert_eq!((0..100).filter(|host| give(&mut sources, *host)).count(), 5);
        assert!(sources.give(address("2001:db8:1:3::1"), 5, Time::ZERO));
    }

    #[test]
    fn however_many_sources_there_are_all_together_have_a_bound() {
        let mut sources = Sources::new(KeyedHash::new([7; 16]));
        let all = (0..4 * SOURCE_CELLS as u32).map(|n| IpAddr::V4(n.into()));
        let given = all.filter(|source| sources.give(*source, 1, Time::ZERO)).count();
        assert!((SOURCE_CELLS * 9 / 10..=SOURCE_CELLS).contains(&given), "{given}");
    }
}
