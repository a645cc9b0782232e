//! The links between shards: each has a lane for work and one for duty. A lane keeps its order and
//! takes its time; the two lanes of a link are not ordered against each other.

use std::collections::BTreeMap;

use sipring::base::id::ShardId;
use sipring::base::time::Time;
use sipring::engine::LinkMessage;

#[derive(Default)]
struct Lane {
    /// When its last message arrives: no later one does before.
    last: Time,
    waiting: usize,
}

/// All lanes, by sender, receiver and kind.
pub struct Lanes(BTreeMap<(ShardId, ShardId, bool), Lane>);

impl Lanes {
    pub fn new(shards: u16) -> Lanes {
        let all = (0..shards).flat_map(|from| (0..shards).map(move |to| (from, to)));
        let lanes = all.flat_map(|(from, to)| {
            [false, true].map(|work| ((ShardId(from), ShardId(to), work), Lane::default()))
        });
        Lanes(lanes.collect())
    }

    /// When the message arrives that would like to at `at`; `None` when a work lane has no room.
    pub fn send(
        &mut self,
        from: ShardId,
        to: ShardId,
        message: &LinkMessage,
        at: Time,
        entries: usize,
    ) -> Option<Time> {
        let lane = self.0.get_mut(&(from, to, message.is_work())).expect("a lane of every kind");
        if message.is_work() && lane.waiting >= entries {
            return None;
        }
        lane.waiting += 1;
        lane.last = lane.last.max(at);
        Some(lane.last)
    }

    pub fn taken(&mut self, from: ShardId, to: ShardId, message: &LinkMessage) {
        let lane = self.0.get_mut(&(from, to, message.is_work())).expect("a lane of every kind");
        lane.waiting -= 1;
    }
}
