//! How much each source of datagrams gets in a second, where a sender may use another's address (RFC
//! 8489 §16.1.2: an answer goes to whoever is named as the source). Absent on purpose: what it is
//! that is given.
//!
//! A table of fixed size, whatever the number of sources: who shares a cell shares its allowance, and
//! who that is nobody outside can tell, since the hash is keyed.

use std::net::IpAddr;

use crate::base::hash::KeyedHash;
use crate::base::limits::ALLOWANCE_CELLS;
use crate::base::time::Time;

/// What was given in the present second.
pub struct Allowance {
    hash: KeyedHash,
    cells: Box<[Cell]>,
}

#[derive(Clone, Copy, Default)]
struct Cell {
    /// In which second of the clock, modulo 2^32.
    second: u32,
    given: u32,
}

impl Allowance {
    /// Nothing was given yet.
    pub fn new(hash: KeyedHash) -> Allowance {
        Allowance { hash, cells: vec![Cell::default(); ALLOWANCE_CELLS].into() }
    }

    /// Gives `source` one more; false when it had `most` in this second.
    pub fn give(&mut self, source: IpAddr, most: usize, now: Time) -> bool {
        let at = self.cell_of(source);
        let cell = &mut self.cells[at];
        let second = now.as_secs() as u32;
        if cell.second != second {
            *cell = Cell { second, given: 0 };
        }
        let is_due = (cell.given as usize) < most;
        cell.given += u32::from(is_due);
        is_due
    }

    /// A host with IPv6 has a network of 64 bits to choose its addresses from.
    fn cell_of(&self, source: IpAddr) -> usize {
        let hash = match source {
            IpAddr::V4(ip) => self.hash.of(&ip.octets()),
            IpAddr::V6(ip) => self.hash.of(&ip.octets()[..8]),
        };
        hash as usize % ALLOWANCE_CELLS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_source_has_its_own_and_each_second_anew() {
        let mut allowance = Allowance::new(KeyedHash::new([7; 16]));
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        assert_ne!(allowance.cell_of(one), allowance.cell_of(other));
        for second in [0, 1, 5, 1 << 32] {
            let now = Time::ZERO + Duration::from_secs(second);
            for source in [one, other] {
                let given = (0..9).filter(|_| allowance.give(source, 3, now)).count();
                assert_eq!(given, 3, "{source} at {second}");
            }
        }
    }

    #[test]
    fn addresses_of_one_network_share_theirs() {
        let mut allowance = Allowance::new(KeyedHash::new([7; 16]));
        let give = |allowance: &mut Allowance, host: u16| {
            allowance.give(address(&format!("2001:db8:1:2::{host:x}")), 5, Time::ZERO)
        };
        assert_eq!((0..100).filter(|host| give(&mut allowance, *host)).count(), 5);
        assert!(allowance.give(address("2001:db8:1:3::1"), 5, Time::ZERO));
    }

    #[test]
    fn however_many_sources_there_are_all_together_have_a_bound() {
        let mut allowance = Allowance::new(KeyedHash::new([7; 16]));
        let sources = (0..4 * ALLOWANCE_CELLS as u32).map(|n| IpAddr::V4(n.into()));
        let given = sources.filter(|source| allowance.give(*source, 1, Time::ZERO)).count();
        assert!((ALLOWANCE_CELLS * 9 / 10..=ALLOWANCE_CELLS).contains(&given), "{given}");
    }
}
