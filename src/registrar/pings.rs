//! Which bindings need pings, and which of them answer: clients behind address translation that
//! registered by UDP and promised no keep-alive of their own (RFC 5626 §4.4.2). Absent on purpose:
//! the pings, and when they are sent.

use std::time::Duration;

use crate::base::metrics::{RoundTrip, RoundTrips};
use crate::base::slab::SlabKey;
use crate::base::time::Time;

use super::binding::Binding;
use super::location::Location;

impl Location {
    /// How many bindings need pings of ours.
    pub fn pinged(&self) -> usize {
        self.pinged
    }

    /// Appends those bindings in force that need pings among the next `max` of a walk over all of
    /// them, and returns where the walk goes on; 0 when it begins anew.
    pub fn to_ping(&self, from: u32, max: usize, now: Time, out: &mut Vec<SlabKey>) -> u32 {
        let mut next = 0;
        for (seen, (key, binding)) in self.bindings.iter_from(from).enumerate() {
            if seen == max {
                return next;
            }
            next = key.index + 1;
            if binding.facts.needs_pings() && binding.is_live(now) {
                out.push(key);
            }
        }
        0
    }

    /// Event: a ping leaves. Returns how many before it have not been answered.
    pub fn on_ping_sent(&mut self, key: SlabKey) -> u8 {
        let Some(binding) = self.bindings.get_mut(key) else { return 0 };
        let missed = binding.facts.missed;
        binding.facts.missed = missed.saturating_add(1);
        missed
    }

    /// Event: a ping was answered, so long after it was sent.
    pub fn on_ping_answered(&mut self, key: SlabKey, took: Duration) {
        let Some(binding) = self.bindings.get_mut(key) else { return };
        let new = Some(RoundTrip::of(took));
        let old = std::mem::replace(&mut binding.round_trip, new);
        binding.facts.missed = 0;
        self.round_trips.replace(old, new);
    }

    /// Bindings that are pinged, by what their last ping and its answer took.
    pub fn round_trips(&self) -> RoundTrips {
        self.round_trips
    }

    /// Event: a binding's client answers no pings. It is shown to `gone` and removed.
    pub fn give_up(&mut self, key: SlabKey, gone: impl FnOnce(&Binding)) {
        if let Some(binding) = self.bindings.get(key) {
            gone(binding);
            self.remove(key);
        }
    }
}
