//! Flows on which a registrar behind us has registered several users, as phones with two lines do.
//! Few have any, so they stand apart from the flows, which know the last one themselves.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::base::hash::BuildHashed;
use crate::base::id::FlowId;
use crate::base::limits::FLOW_CLIENTS_MAX;

/// The users of such flows but the last to come, as hashes of their addresses of record.
#[derive(Default)]
pub struct Vouched {
    by_flow: HashMap<u64, SmallVec<[u32; 4]>, BuildHashed>,
}

impl Vouched {
    /// `last` came after `before`. Of too many the earliest makes room.
    pub fn came(&mut self, flow: FlowId, before: u32, last: u32) {
        let others = self.by_flow.entry(flow.to_bits()).or_default();
        others.retain(|it| *it != last);
        if others.len() >= FLOW_CLIENTS_MAX - 1 {
            others.remove(0);
        }
        others.push(before);
    }

    /// The last one left: who is it now?
    pub fn last_left(&mut self, flow: FlowId) -> Option<u32> {
        let next = self.by_flow.get_mut(&flow.to_bits())?.pop();
        self.tidy(flow);
        next
    }

    /// One of them left, who is not the last.
    pub fn left(&mut self, flow: FlowId, aor: u32) {
        if let Some(others) = self.by_flow.get_mut(&flow.to_bits()) {
            others.retain(|it| *it != aor);
        }
        self.tidy(flow);
    }

    /// The users of the flow but the last; none of most flows.
    pub fn others(&self, flow: FlowId) -> &[u32] {
        self.by_flow.get(&flow.to_bits()).map_or(&[], |others| others)
    }

    /// The flow has ended.
    pub fn forget(&mut self, flow: FlowId) {
        self.by_flow.remove(&flow.to_bits());
    }

    fn tidy(&mut self, flow: FlowId) {
        if self.others(flow).is_empty() {
            self.forget(flow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::ShardId;

    fn flow(slot: u32) -> FlowId {
        FlowId::new(ShardId(0), slot, 1)
    }

    #[test]
    fn each_stays_until_it_leaves() {
        let mut vouched = Vouched::default();
        vouched.came(flow(1), 1, 2);
        vouched.came(flow(1), 2, 3);
        assert_eq!(vouched.others(flow(1)), [1, 2]);
        vouched.came(flow(1), 3, 1);
        assert_eq!(vouched.others(flow(1)), [2, 3], "1 is the last again");
        vouched.left(flow(1), 3);
        vouched.left(flow(1), 7);
        assert_eq!(vouched.last_left(flow(1)), Some(2));
        assert_eq!((vouched.last_left(flow(1)), vouched.by_flow.len()), (None, 0));
        assert_eq!(vouched.last_left(flow(2)), None);
    }

    #[test]
    fn of_too_many_the_earliest_makes_room() {
        let mut vouched = Vouched::default();
        let most = FLOW_CLIENTS_MAX as u32;
        (1..=most).for_each(|aor| vouched.came(flow(1), aor, aor + 1));
        let others = vouched.others(flow(1));
        assert_eq!((others.len(), others[0]), (FLOW_CLIENTS_MAX - 1, 2));
        vouched.forget(flow(1));
        assert!(vouched.others(flow(1)).is_empty());
    }
}
