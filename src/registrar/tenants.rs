//! Who has had an address for datagrams before who is there by now: every shard's own notes of what
//! clients showed ([`PathClaim`]). A dialog token names the address that its client had when the
//! dialog began (RFC 5626 §5.2), and the owner of its address of record need not be the shard that
//! serves the request. Absent on purpose: bindings, which their owners end.

use std::collections::{HashMap, VecDeque};

use smallvec::SmallVec;

use crate::base::hash::KeyedHash;
use crate::base::id::DatagramPath;
use crate::base::limits::{PATH_USERS_HERE_MAX, PATH_USERS_LEFT_MAX, PATHS_NOTED_MAX};

use super::moves::Moves;
use super::paths::PathClaim;

/// The upper half of the hash of a canonical address of record.
type User = u32;

/// What is known of one address.
struct Place {
    /// The last one to come.
    newest: PathClaim,
    /// The users of its device.
    here: SmallVec<[User; 2]>,
    /// Users of other devices, who were there before it; the last ones.
    left: SmallVec<[User; 2]>,
    /// When it was noted: its entry in the order.
    stamp: u64,
}

impl Place {
    fn come(&mut self, claim: &PathClaim, user: User) {
        let is_other = self.newest.is_other_than(claim);
        if claim.heard() < self.newest.heard() {
            if is_other && !self.here.contains(&user) {
                self.leave(user);
            }
            return;
        }
        if is_other {
            for former in std::mem::take(&mut self.here) {
                self.leave(former);
            }
        }
        self.left.retain(|it| *it != user);
        // Of one that is not noted nobody will say that it left.
        if !self.here.contains(&user) && self.here.len() < PATH_USERS_HERE_MAX {
            self.here.push(user);
        }
        self.newest = claim.clone();
    }

    fn leave(&mut self, user: User) {
        self.left.retain(|it| *it != user);
        if self.left.len() == PATH_USERS_LEFT_MAX {
            self.left.remove(0);
        }
        self.left.push(user);
    }
}

/// The addresses at which clients showed last, [`PATHS_NOTED_MAX`] of them.
pub struct Tenants {
    places: HashMap<DatagramPath, Place, KeyedHash>,
    /// In the order of their stamps; one that was noted again stands there more than once.
    order: VecDeque<(u64, DatagramPath)>,
    stamp: u64,
    moves: Moves,
}

impl Tenants {
    /// Nobody anywhere.
    pub fn new(hash: KeyedHash) -> Tenants {
        let moves = Moves::new(hash.clone());
        Tenants { places: HashMap::with_hasher(hash), order: VecDeque::new(), stamp: 0, moves }
    }

    /// Event: a user's client is at the address of its claim. Whoever is evidently another device
    /// has left it.
    pub fn note(&mut self, claim: &PathClaim, user: u32) {
        let path = claim.path();
        self.moves.note(claim.former(), path, user);
        self.stamp += 1;
        let stamp = self.stamp;
        match self.places.get_mut(&path) {
            Some(place) => {
                place.come(claim, user);
                place.stamp = stamp;
            }
            None => {
                let (newest, here) = (claim.clone(), SmallVec::from_slice(&[user]));
                let place = Place { newest, here, left: SmallVec::new(), stamp };
                self.places.insert(path, place);
            }
        }
        self.order.push_back((stamp, path));
        self.forget();
    }

    /// Event: the binding of a user that led there ended by a claim.
    pub fn leave(&mut self, claim: &PathClaim, user: u32) {
        let place = self.places.get_mut(&claim.path());
        if let Some(place) = place.filter(|place| !place.here.contains(&user)) {
            place.leave(user);
        }
    }

    /// Where a user's client is that was at that address; `None` if it left, and the address is
    /// another's by now. Of what was forgotten nobody knows: it is there still.
    pub fn find(&self, path: DatagramPath, user: u32) -> Option<DatagramPath> {
        let path = self.moves.follow(path, user);
        let place = self.places.get(&path);
        (!place.is_some_and(|place| place.left.contains(&user))).then_some(path)
    }

    /// Drops the oldest, and what stands in the order for no place any more.
    fn forget(&mut self) {
        while self.places.len() > PATHS_NOTED_MAX || self.order.len() > 2 * PATHS_NOTED_MAX {
            let Some((stamp, path)) = self.order.pop_front() else { return };
            if self.places.get(&path).is_some_and(|place| place.stamp == stamp) {
                self.places.remove(&path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::paths::claim;
    use super::*;

    const HERE: &str = "203.0.113.1:4000";

    fn tenants() -> Tenants {
        Tenants::new(KeyedHash::new([7; 16]))
    }

    fn left(tenants: &Tenants, user: u32) -> bool {
        tenants.find(claim(HERE, 0, 0, "x").path(), user).is_none()
    }

    #[test]
    fn who_comes_from_another_device_sends_the_former_away() {
        let mut tenants = tenants();
        tenants.note(&claim(HERE, 1, 10, "10.0.0.1"), 1);
        tenants.note(&claim(HERE, 2, 11, "10.0.0.1"), 2);
        assert!(!left(&tenants, 1) && !left(&tenants, 2), "two users of one device");
        tenants.note(&claim(HERE, 3, 12, "10.0.0.3"), 3);
        assert!(left(&tenants, 1) && left(&tenants, 2) && !left(&tenants, 3));
        assert!(!left(&tenants, 4), "of whom nothing is known");
        tenants.note(&claim(HERE, 1, 13, "10.0.0.1"), 1);
        assert!(!left(&tenants, 1) && left(&tenants, 2) && left(&tenants, 3));
        let elsewhere = claim("203.0.113.1:4001", 0, 0, "x").path();
        assert_eq!(tenants.find(elsewhere, 3), Some(elsewhere));
    }

    #[test]
    fn a_word_that_comes_late_sends_nobody_away_but_its_own() {
        let mut tenants = tenants();
        tenants.note(&claim(HERE, 1, 20, "10.0.0.1"), 1);
        tenants.note(&claim(HERE, 2, 10, "10.0.0.2"), 2);
        assert!(!left(&tenants, 1) && left(&tenants, 2));
        tenants.note(&claim(HERE, 3, 10, "10.0.0.1"), 3);
        assert!(!left(&tenants, 3));
    }

    #[test]
    fn whose_binding_ended_has_left_unless_it_is_there() {
        let mut tenants = tenants();
        let second = claim(HERE, 2, 10, "10.0.0.2");
        tenants.leave(&second, 1);
        assert!(!left(&tenants, 1), "nobody is known to be there");
        tenants.note(&second, 2);
        tenants.leave(&second, 1);
        tenants.leave(&second, 2);
        assert!(left(&tenants, 1) && !left(&tenants, 2));
    }

    #[test]
    fn every_list_is_bounded() {
        let mut tenants = tenants();
        for user in 0..=PATH_USERS_HERE_MAX as u32 {
            tenants.note(&claim(HERE, user, 1, "10.0.0.1"), user);
        }
        tenants.note(&claim(HERE, 999, 2, "10.0.0.2"), 999);
        let place = tenants.places.values().next().unwrap();
        assert_eq!((place.here.len(), place.left.len()), (1, PATH_USERS_LEFT_MAX));
        assert!(left(&tenants, PATH_USERS_HERE_MAX as u32 - 1), "the last that was noted");
        assert!(!left(&tenants, PATH_USERS_HERE_MAX as u32), "it was not");
        for again in 0..3 * PATHS_NOTED_MAX {
            tenants.note(&claim(HERE, 1, 3 + again as u32, "10.0.0.1"), 1);
        }
        assert_eq!(tenants.places.len(), 1);
        assert!(tenants.order.len() <= 2 * PATHS_NOTED_MAX);
        for host in 0..=PATHS_NOTED_MAX {
            let address = format!("10.{}.{}.{}:5060", host >> 16, host >> 8 & 255, host & 255);
            tenants.note(&claim(&address, 1, 1, "x"), 1);
        }
        assert_eq!(tenants.places.len(), PATHS_NOTED_MAX);
        assert!(!left(&tenants, 999), "the oldest is forgotten");
    }
}
