//! Flows on which several users have registered, as phones with two lines do, or pages that let
//! another user in. Few have any, so they stand apart from the flows. Absent on purpose: which of the
//! users sends a message.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::base::hash::BuildHashed;
use crate::base::id::{ClientKey, FlowId};
use crate::base::limits::FLOW_CLIENTS_MAX;

/// The clients of such flows, the first of each user.
#[derive(Default)]
pub struct Lines {
    by_flow: HashMap<u64, SmallVec<[ClientKey; 4]>, BuildHashed>,
}

impl Lines {
    /// A client registered on a flow on which `first` had before. Whether the flow has several users
    /// by that. Who is known stays the client that it was; of too many the one that came last makes
    /// room.
    pub fn note(&mut self, flow: FlowId, first: ClientKey, client: ClientKey) -> bool {
        if self.find(flow, first, client.of_aor()).is_some() {
            return self.by_flow.contains_key(&flow.to_bits());
        }
        let others = self.by_flow.entry(flow.to_bits()).or_default();
        others.truncate(FLOW_CLIENTS_MAX - 2);
        others.push(client);
        true
    }

    /// The client of the user whose address of record has that hash (see [`ClientKey::of_aor`]).
    pub fn find(&self, flow: FlowId, first: ClientKey, aor: u32) -> Option<ClientKey> {
        let others = self.by_flow.get(&flow.to_bits()).into_iter().flatten().copied();
        std::iter::once(first).chain(others).find(|it| it.of_aor() == aor)
    }

    /// The flow has ended.
    pub fn forget(&mut self, flow: FlowId) {
        self.by_flow.remove(&flow.to_bits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::ShardId;

    fn key(aor: u64, own: u64) -> ClientKey {
        ClientKey::new(aor << 32, own)
    }

    fn flow(slot: u32) -> FlowId {
        FlowId::new(ShardId(0), slot, 1)
    }

    #[test]
    fn each_user_has_the_client_that_came_first() {
        let mut lines = Lines::default();
        let first = key(1, 1);
        assert!(!lines.note(flow(1), first, key(1, 2)));
        assert!(lines.note(flow(1), first, key(2, 3)));
        assert!(lines.note(flow(1), first, key(2, 4)) && lines.note(flow(1), first, key(1, 2)));
        let found = |aor| lines.find(flow(1), first, aor);
        assert_eq!([1, 2, 3].map(found), [Some(first), Some(key(2, 3)), None]);
        assert_eq!(lines.find(flow(2), first, 2), None);
        lines.forget(flow(1));
        assert_eq!(lines.find(flow(1), first, 2), None);
    }

    #[test]
    fn of_too_many_users_the_last_makes_room() {
        let mut lines = Lines::default();
        let most = FLOW_CLIENTS_MAX as u64;
        (2..=most + 2).for_each(|aor| assert!(lines.note(flow(1), key(1, 1), key(aor, 1))));
        for aor in 1..=most + 2 {
            let is_known = aor < most || aor == most + 2;
            let found = lines.find(flow(1), key(1, 1), aor as u32);
            assert_eq!(found.is_some(), is_known, "{aor}");
        }
    }
}
