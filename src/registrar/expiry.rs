//! When bindings end (RFC 3261 §10.3): lists of those that end in the same few seconds, so that the
//! table need not be searched, and many that end at once are removed step by step. Absent on purpose:
//! clocks.

use std::time::Duration;

use crate::base::slab::SlabKey;
use crate::base::time::Time;

use super::binding::Binding;
use super::links::{END, List, push, unlink};
use super::location::Location;

/// Width of an expiry bucket. A binding is out of force at its very moment; it leaves the table at
/// most this much later.
const BUCKET: Duration = Duration::from_secs(8);

impl Location {
    /// Event: `now` may have passed [`Location::next_expiry`]. Looks at no more than `max`
    /// bindings; each that is out of force is shown to `gone` and removed. Returns how many were;
    /// [`Location::next_expiry`] stays in the past while there is more to do.
    pub fn expire(&mut self, now: Time, max: usize, mut gone: impl FnMut(&Binding)) -> usize {
        let mut removed = 0;
        for _ in 0..max {
            let Some((&bucket, &key)) = self.by_expiry.first_key_value() else { break };
            if end_of(bucket) > now {
                break;
            }
            let binding = self.bindings.get(key).expect("a bucket holds living bindings");
            if binding.is_live(now) {
                let later = bucket_of(binding.expires_at());
                self.leave_bucket(key);
                self.enter_bucket(key, later);
            } else {
                gone(binding);
                self.remove(key);
                removed += 1;
            }
        }
        removed
    }

    /// When [`Location::expire`] wants to be called next. May be early, never late by more than 8
    /// seconds.
    pub fn next_expiry(&self) -> Option<Time> {
        self.by_expiry.first_key_value().map(|(&bucket, _)| end_of(bucket))
    }

    pub(super) fn enter_bucket(&mut self, key: SlabKey, bucket: u32) {
        let head = self.by_expiry.entry(bucket).or_insert(END);
        *head = push(&mut self.bindings, List::Expiry, *head, key);
        self.bindings.get_mut(key).expect("a living binding").facts.bucket = bucket;
    }

    pub(super) fn leave_bucket(&mut self, key: SlabKey) {
        let bucket = self.get(key).facts.bucket;
        let head = self.by_expiry.get_mut(&bucket).expect("a binding stands in a bucket");
        *head = unlink(&mut self.bindings, List::Expiry, *head, key);
        if *head == END {
            self.by_expiry.remove(&bucket);
        }
    }
}

/// The bucket in which a binding that ends at `at` is looked at.
pub(super) fn bucket_of(at: Time) -> u32 {
    // The last bucket is a thousand years away.
    u32::try_from(at.as_secs() / BUCKET.as_secs()).unwrap_or(u32::MAX)
}

/// The moment when everything in `bucket` that was not refreshed is out of force.
fn end_of(bucket: u32) -> Time {
    Time::ZERO + BUCKET * bucket.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::super::harness::{Desk, stream};
    use super::*;
    use crate::base::hash::KeyedHash;
    use crate::base::id::Transport;
    use crate::base::rng::Rng;

    const ALICE: &str = "sip:alice@example.com";

    #[test]
    fn bindings_end_on_time_and_leave_soon_after() {
        let mut desk = Desk::new();
        desk.register(ALICE, ("c", 1), "Contact: <sip:a@h>;expires=60, <sip:b@h>;expires=90\n")
            .unwrap();
        desk.pass(59);
        assert_eq!(desk.contacts(ALICE).len(), 2);
        desk.pass(1);
        assert_eq!(desk.contacts(ALICE), ["sip:b@h"]);
        let due = desk.location.next_expiry().unwrap();
        assert!(due > desk.now && due <= desk.now + BUCKET);
        assert_eq!(desk.location.expire(desk.now, 100, |_| panic!("not yet")), 0);
        assert_eq!(desk.location.expire(due, 100, |_| {}), 1);
        assert_eq!((desk.location.len(), desk.location.aors()), (1, 1));
        // What is out of force neither blocks nor orders a new registration.
        desk.pass(40);
        desk.register(ALICE, ("c", 1), "Contact: <sip:b@h>\n").unwrap();
        assert_eq!(desk.listed().len(), 1);
    }

    #[test]
    fn a_refreshed_binding_stays() {
        let mut desk = Desk::new();
        desk.register(ALICE, ("c", 1), "Contact: <sip:a@h>;expires=60\n").unwrap();
        let first = desk.location.next_expiry().unwrap();
        desk.pass(50);
        desk.register(ALICE, ("c", 2), "Contact: <sip:a@h>;expires=60\n").unwrap();
        assert_eq!(desk.location.expire(first, 100, |_| panic!("it was refreshed")), 0);
        assert!(desk.location.next_expiry().unwrap() > first);
        // An earlier end is seen at once.
        desk.register(ALICE, ("c", 3), "Contact: <sip:a@h>;expires=30\n").unwrap();
        desk.pass(30);
        assert_eq!(desk.location.expire(desk.now + BUCKET, 100, |_| {}), 1);
        assert_eq!(desk.location.next_expiry(), None);
    }

    #[test]
    fn ten_thousand_bindings_expire_in_bounded_steps() {
        let mut desk = Desk::new();
        desk.location = Location::new(KeyedHash::new([1; 16]), 10_000);
        let mut rng = Rng::new([5; 32]);
        let mut ends: Vec<Time> = Vec::new();
        for user in 0..10_000 {
            let seconds = 60 + rng.below(540);
            ends.push(desk.now + Duration::from_secs(seconds));
            desk.source = stream(user % 100, Transport::Wss);
            let line = format!("Contact: <sip:{user}@x.invalid>;expires={seconds}\n");
            desk.register(&format!("sip:{user}@example.com"), ("c", 1), &line).unwrap();
        }
        assert_eq!(desk.location.aors(), 10_000);
        let mut now = desk.now;
        while let Some(due) = desk.location.next_expiry() {
            now = now.max(due);
            let mut seen = 0;
            let removed = desk.location.expire(now, 64, |binding| {
                assert!(!binding.is_live(now) && binding.expires_at() + BUCKET >= due);
                seen += 1;
            });
            assert!(removed == seen && seen <= 64);
            if desk.location.next_expiry().is_none_or(|next| next > now) {
                let left = ends.iter().filter(|end| **end > now).count();
                assert!(desk.location.len() >= left && left + 200 > desk.location.len());
            }
        }
        assert!(desk.location.is_empty());
        assert!(desk.location.by_flow.is_empty() && desk.location.by_contact.is_empty());
        assert_eq!(desk.location.by_aor.len(), 10_000);
    }
}
