//! What flows that are gone leave behind: the transactions that they carried. These hear of it a
//! bounded number at a time, however many flows end at once, so that thousands of refusals delay
//! nobody who has a message to carry.

use std::collections::BTreeSet;

use crate::base::id::FlowId;
use crate::base::limits::{LOSSES_AN_INTERVAL, LOSSES_INTERVAL};
use crate::base::time::Time;

use super::Engine;
use super::alarm::Alarm;

/// Flows that are gone and whose transactions have not all heard of it.
#[derive(Default)]
pub(super) struct Losses {
    flows: BTreeSet<FlowId>,
    /// When the present interval ends.
    until: Time,
    /// How many transactions may still hear of it in this interval.
    left: usize,
}

impl Engine {
    /// A flow, here or at another shard, is gone: branches on it fail, requests from it are
    /// orphans, bindings go; or they wait for the next flow of its client.
    pub(super) fn on_flow_gone(&mut self, flow: FlowId) {
        if !self.lose_some(flow) {
            if self.losses.flows.is_empty() {
                self.wheel.arm(self.now + LOSSES_INTERVAL, Alarm::Losses);
            }
            self.losses.flows.insert(flow);
        }
        self.connects.forget_alias(flow);
        self.unbind_flow(flow);
    }

    /// Goes on with the flows that are gone.
    pub(super) fn on_losses_alarm(&mut self) {
        while let Some(flow) = self.losses.flows.first().copied() {
            if !self.lose_some(flow) {
                self.wheel.arm(self.now + LOSSES_INTERVAL, Alarm::Losses);
                return;
            }
            self.losses.flows.remove(&flow);
        }
    }

    /// Tells transactions that their flow is gone, as many as this interval may; whether all know.
    fn lose_some(&mut self, flow: FlowId) -> bool {
        if self.now >= self.losses.until {
            self.losses.until = self.now + LOSSES_INTERVAL;
            self.losses.left = LOSSES_AN_INTERVAL;
        }
        while self.losses.left > 0 {
            if let Some(client) = self.transactions.by_target.take_one(flow) {
                self.lose_target(client);
            } else if let Some(tx) = self.transactions.by_source.take_one(flow) {
                self.lose_source(tx);
            } else {
                return true;
            }
            self.losses.left -= 1;
        }
        !self.transactions.by_target.has(flow) && !self.transactions.by_source.has(flow)
    }
}
