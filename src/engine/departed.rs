//! Users who are gone from the users file, or have another password: what they registered ends (RFC
//! 3261 §10.3 step 3 would refuse it), a bounded number of users at a time, so that a file in which
//! everybody is another delays nobody. Their flows stay open, since their calls go on; what was proved
//! on them has ended with the file (`admit`). Absent on purpose: comparing files, which takes time
//! by their length and is not for a shard to do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::base::id::ClientKey;
use crate::base::limits::DEPARTED_A_TURN;
use crate::base::users::Departed;

use super::Engine;
use super::alarm::Alarm;
use super::registrations::indexed;

/// Those whose bindings have yet to end. Each shard goes through all of them: it knows by a look-up
/// which are its own.
#[derive(Debug, Default)]
pub(super) struct Departing {
    lists: VecDeque<Departed>,
    /// How many of the first list are done.
    done: usize,
}

impl Departing {
    fn pop(&mut self) -> Option<Arc<[u8]>> {
        let first = self.lists.front()?;
        let aor = first.get(self.done).map(Arc::clone);
        self.done += 1;
        if self.done >= first.len() {
            self.lists.pop_front();
            self.done = 0;
        }
        aor
    }
}

impl Engine {
    /// These are not in the configuration in force any more, or stand otherwise in it.
    pub(super) fn on_departed(&mut self, departed: Departed) {
        let is_waiting = !self.departing.lists.is_empty();
        if !departed.is_empty() {
            self.departing.lists.push_back(departed);
        }
        if !is_waiting {
            self.end_departed();
        }
    }

    /// Ends the bindings of the next few.
    pub(super) fn end_departed(&mut self) {
        for _ in 0..DEPARTED_A_TURN {
            let Some(aor) = self.departing.pop() else { break };
            self.end_user(&aor);
        }
        self.store_changes();
        if !self.departing.lists.is_empty() {
            self.wheel.arm(self.now + Duration::from_millis(1), Alarm::Departed);
        }
    }

    fn end_user(&mut self, aor: &[u8]) {
        let mark = self.config.auth.mark_of(aor);
        let mut gone = Vec::new();
        let mut left: SmallVec<[ClientKey; 4]> = SmallVec::new();
        let ended = self.location.end_user(aor, mark, |binding| {
            left.push(binding.client());
            // What is away left the index with its flow.
            gone.extend(indexed(binding).filter(|_| !binding.is_away()));
        });
        self.counters.bindings_user_gone += ended as u64;
        self.forget_contacts(gone);
        left.retain(|client| client.is_some());
        self.await_no_longer(&left);
    }
}
