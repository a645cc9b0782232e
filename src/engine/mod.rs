//! L4: one shard's whole protocol, from plaintext up, without I/O.
//!
//! **Contract: feed any number of inputs, then drain outputs to `None`, then wait for the earlier of I/O and
//! [`Engine::next_deadline`].** Inputs run to completion: no await, no callback, no re-entry. Time never goes back.

pub mod input;
pub mod mesh;
pub mod output;

use std::ops::Range;
use std::sync::Arc;

use crate::base::config::Config;
use crate::base::id::ShardId;
use crate::base::metrics::{Counters, Gauges};
use crate::base::time::Time;

pub use input::{ConnectTarget, Input, Origin};
pub use mesh::LinkMessage;
pub use output::Output;

/// What an engine is made with. `secret` and `epoch` are equal in all shards of one process.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which shard this is.
    pub shard: ShardId,
    /// How many there are, 1 to [`crate::base::id::SHARDS_MAX`].
    pub shards: u16,
    /// How often this shard was started anew; the top 8 bits of its flows' generations.
    pub incarnation: u8,
    /// Which run of the process this is: a token of another run never names a slot.
    pub epoch: u32,
    /// Seed of this shard's random numbers (tags, branches, hash keys).
    pub seed: [u8; 32],
    /// Key of tokens, owner placement and branches.
    pub secret: [u8; 32],
    /// The configuration in force.
    pub config: Arc<Config>,
}

/// One shard's protocol state. See the module's contract.
pub struct Engine {
    counters: Counters,
}

impl Engine {
    /// A fresh shard at time `now`.
    pub fn new(_now: Time, _setup: Setup) -> Engine {
        Engine { counters: Counters::default() }
    }

    /// Event: something happened.
    pub fn handle(&mut self, _now: Time, _input: Input<'_>) {}

    /// Event: `now` may have passed [`Engine::next_deadline`].
    pub fn handle_timeout(&mut self, _now: Time) {}

    /// Getter: when [`Engine::handle_timeout`] wants to be called; `None` when nothing is armed.
    pub fn next_deadline(&self) -> Option<Time> {
        None
    }

    /// Poll: the next thing to do.
    pub fn pop_output(&mut self) -> Option<Output> {
        None
    }

    /// Getter: bytes that an output named; valid until the next input.
    pub fn bytes(&self, _range: Range<usize>) -> &[u8] {
        &[]
    }

    /// Getter: what was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Getter: how full the tables are.
    pub fn gauges(&self) -> Gauges {
        Gauges::default()
    }

    /// Getter: whether no transaction lives, so that a draining process may end.
    pub fn is_quiet(&self) -> bool {
        true
    }
}
