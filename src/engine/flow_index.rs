//! Finds all transactions of one flow when it closes: lists by flow, adding and removing in
//! constant time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::base::hash::{KeyedHash, NameHash};
use crate::base::id::{FlowId, ShardId};
use crate::base::slab::{Slab, SlabKey};

/// One entry of the index, to be given back when the transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowMark(SlabKey);

#[derive(Debug)]
struct Node {
    flow: FlowId,
    what: SlabKey,
    previous: Option<SlabKey>,
    next: Option<SlabKey>,
}

/// Lists of transactions by flow.
pub(super) struct FlowIndex {
    nodes: Slab<Node>,
    heads: HashMap<FlowId, Head, NameHash>,
}

/// The first entry of a flow's list, and how many there are.
#[derive(Clone, Copy, Debug)]
struct Head {
    first: SlabKey,
    count: usize,
}

impl FlowIndex {
    /// An empty index for at most `max` transactions.
    pub fn new(max: usize, hash: &KeyedHash) -> FlowIndex {
        let heads = HashMap::with_hasher(NameHash::new(hash));
        FlowIndex { nodes: Slab::new(max), heads }
    }

    /// Moves the bound. What is beyond a lower one stays until it is taken out.
    pub fn set_max(&mut self, max: usize) {
        self.nodes.set_max(max);
    }

    /// Adds a transaction to the flow's list.
    pub fn add(&mut self, flow: FlowId, what: SlabKey) -> FlowMark {
        let head = self.heads.entry(flow);
        let next = match &head {
            Entry::Occupied(head) => Some(head.get().first),
            Entry::Vacant(_) => None,
        };
        let node = Node { flow, what, previous: None, next };
        let key = self.nodes.insert(node).expect("the index is bounded by its transactions");
        if let Some(next) = next.and_then(|next| self.nodes.get_mut(next)) {
            next.previous = Some(key);
        }
        let head = head.or_insert(Head { first: key, count: 0 });
        *head = Head { first: key, count: head.count + 1 };
        FlowMark(key)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, mark: FlowMark) {
        let Some(node) = self.nodes.remove(mark.0) else { return };
        if let Some(next) = node.next.and_then(|next| self.nodes.get_mut(next)) {
            next.previous = node.previous;
        }
        let previous = node.previous.and_then(|previous| self.nodes.get_mut(previous));
        let is_first = previous.is_none();
        if let Some(previous) = previous {
            previous.next = node.next;
        }
        let Entry::Occupied(mut head) = self.heads.entry(node.flow) else { return };
        head.get_mut().count -= 1;
        match node.next {
            Some(next) if is_first => head.get_mut().first = next,
            None if is_first => {
                head.remove();
            }
            _ => {}
        }
    }

    /// Takes the flow's last transaction out; its mark is of no use any more.
    pub fn take_one(&mut self, flow: FlowId) -> Option<SlabKey> {
        let first = self.heads.get(&flow)?.first;
        let what = self.nodes.get(first)?.what;
        self.remove(FlowMark(first));
        Some(what)
    }

    /// Appends every flow of that shard that has any.
    pub fn flows_of(&self, shard: ShardId, out: &mut Vec<FlowId>) {
        out.extend(self.heads.keys().filter(|flow| flow.shard() == shard));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// How many the flow has.
    pub fn count(&self, flow: FlowId) -> usize {
        self.heads.get(&flow).map_or(0, |head| head.count)
    }

    /// Whether the flow has any.
    pub fn has(&self, flow: FlowId) -> bool {
        self.heads.contains_key(&flow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(slot: u32) -> FlowId {
        FlowId::new(ShardId(0), slot, 1)
    }

    fn listed(index: &FlowIndex, of: FlowId) -> Vec<u64> {
        let mut bits = Vec::new();
        let mut at = index.heads.get(&of).map(|head| head.first);
        while let Some(node) = at.and_then(|key| index.nodes.get(key)) {
            bits.push(node.what.to_bits());
            at = node.next;
        }
        bits.sort_unstable();
        bits
    }

    #[test]
    fn entries_leave_from_any_place_and_the_last_one_leaves_nothing() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            let mut index = FlowIndex::new(16, &KeyedHash::new([7; 16]));
            let marks: Vec<FlowMark> =
                (1..=3).map(|n| index.add(flow(5), SlabKey::from_bits(n))).collect();
            index.add(flow(6), SlabKey::from_bits(9));
            assert_eq!(listed(&index, flow(5)), [1, 2, 3]);
            let mut left = vec![1u64, 2, 3];
            for at in order {
                index.remove(marks[at]);
                left.retain(|n| *n != at as u64 + 1);
                assert_eq!(listed(&index, flow(5)), left);
                assert_eq!(index.count(flow(5)), left.len());
            }
            assert!(!index.has(flow(5)) && index.has(flow(6)));
        }
    }

    #[test]
    fn who_takes_them_one_by_one_gets_all_and_their_marks_harm_nobody() {
        let mut index = FlowIndex::new(16, &KeyedHash::new([7; 16]));
        let marks: Vec<FlowMark> =
            (1..=3).map(|n| index.add(flow(5), SlabKey::from_bits(n))).collect();
        index.remove(marks[1]);
        let taken: Vec<u64> =
            std::iter::from_fn(|| index.take_one(flow(5))).map(SlabKey::to_bits).collect();
        assert_eq!(taken, [3, 1]);
        assert_eq!((index.take_one(flow(6)).is_none(), index.len()), (true, 0));
        index.add(flow(6), SlabKey::from_bits(4));
        marks.into_iter().for_each(|mark| index.remove(mark));
        assert_eq!(listed(&index, flow(6)), [4]);
    }
}
