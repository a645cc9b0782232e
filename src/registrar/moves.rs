//! Where clients went that were at an address for datagrams and registered from another one: the
//! dialogs that they had follow (RFC 5626 §5.3 for a flow that has no name but its addresses). Absent
//! on purpose: who is at an address, and who left it to others (`tenants`).

use std::collections::{HashMap, VecDeque};

use crate::base::hash::KeyedHash;
use crate::base::id::DatagramPath;
use crate::base::limits::{MOVES_FOLLOWED_MAX, PATHS_NOTED_MAX};

/// An address and, of the canonical address of record of who was there, the upper half of the hash.
type Name = (DatagramPath, u32);

/// The last [`PATHS_NOTED_MAX`] moves.
pub(super) struct Moves {
    to: HashMap<Name, (DatagramPath, u64), KeyedHash>,
    /// In the order of their stamps; one that was replaced stands there still.
    order: VecDeque<(u64, Name)>,
    stamp: u64,
}

impl Moves {
    /// Nobody has moved.
    pub fn new(hash: KeyedHash) -> Moves {
        Moves { to: HashMap::with_hasher(hash), order: VecDeque::new(), stamp: 0 }
    }

    /// Event: a user's client is there, and was at the `former` address before.
    pub fn note(&mut self, former: Option<DatagramPath>, path: DatagramPath, user: u32) {
        self.to.remove(&(path, user));
        let Some(former) = former.filter(|former| *former != path) else { return };
        self.stamp += 1;
        self.to.insert((former, user), (path, self.stamp));
        self.order.push_back((self.stamp, (former, user)));
        while self.to.len() > PATHS_NOTED_MAX || self.order.len() > 2 * PATHS_NOTED_MAX {
            let Some((stamp, name)) = self.order.pop_front() else { return };
            if self.to.get(&name).is_some_and(|(_, noted)| *noted == stamp) {
                self.to.remove(&name);
            }
        }
    }

    /// Where a user's client is by now that was at that address, as far as anybody knows.
    pub fn follow(&self, mut path: DatagramPath, user: u32) -> DatagramPath {
        for _ in 0..MOVES_FOLLOWED_MAX {
            let Some((next, _)) = self.to.get(&(path, user)) else { break };
            path = *next;
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::datagram;
    use super::*;
    use crate::base::id::FlowRef;

    fn path(port: usize) -> DatagramPath {
        match datagram(&format!("10.0.{}.{}:5060", port >> 8, port & 255)) {
            FlowRef::Datagram(path) => path,
            FlowRef::Stream(_) => panic!("a datagram's"),
        }
    }

    fn moves() -> Moves {
        Moves::new(KeyedHash::new([5; 16]))
    }

    #[test]
    fn every_step_is_followed_and_a_way_back_is_none() {
        let mut moves = moves();
        moves.note(None, path(1), 7);
        moves.note(Some(path(1)), path(2), 7);
        moves.note(Some(path(2)), path(3), 7);
        moves.note(Some(path(3)), path(3), 7);
        assert_eq!(moves.follow(path(1), 7), path(3));
        assert_eq!(moves.follow(path(1), 8), path(1), "of another user nothing is known");
        moves.note(Some(path(3)), path(1), 7);
        for port in 1..=3 {
            assert_eq!(moves.follow(path(port), 7), path(1), "{port}");
        }
    }

    #[test]
    fn who_moves_often_is_followed_a_bounded_way() {
        let mut moves = moves();
        for port in 0..2 * MOVES_FOLLOWED_MAX {
            moves.note(Some(path(port)), path(port + 1), 7);
        }
        assert_eq!(moves.follow(path(0), 7), path(MOVES_FOLLOWED_MAX));
    }

    #[test]
    fn the_oldest_moves_are_forgotten() {
        let mut moves = moves();
        for user in 0..=PATHS_NOTED_MAX as u32 {
            moves.note(Some(path(1)), path(2), user);
        }
        assert_eq!(moves.to.len(), PATHS_NOTED_MAX);
        assert_eq!(moves.follow(path(1), 0), path(1));
        assert_eq!(moves.follow(path(1), 1), path(2));
        for turn in 0..4 * PATHS_NOTED_MAX {
            moves.note(Some(path(turn % 2)), path(1 - turn % 2), 7);
        }
        assert!(moves.order.len() <= 2 * PATHS_NOTED_MAX);
    }
}
