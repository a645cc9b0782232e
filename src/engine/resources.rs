//! What a shard holds besides what its gauges tell: a leak shows here. Absent on purpose: what is
//! kept for reuse, which is bounded.

use super::Engine;

/// Entries of a shard's inner tables, counted as they are. All are zero in a shard without flows,
/// transactions and bindings, and the same again whenever a load has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Timers that are armed.
    pub timers: usize,
    /// Server transactions by key, and requests for ourselves by what makes them equal.
    pub transaction_keys: usize,
    /// Transactions by the flow of their sender or target.
    pub flow_marks: usize,
    /// Connections that this shard opened.
    pub connections: usize,
    /// Connections that it is making.
    pub connects: usize,
    /// Hosts and ports in its part of the index.
    pub index_hosts: usize,
    /// Bindings that are found by their client.
    pub clients: usize,
    /// Questions of any shard for a client of ours that lost its flow.
    pub waits: usize,
    /// Bytes that wait anywhere for the answers to them.
    pub wait_bytes: usize,
    /// Messages without a transaction that wait here for their client, each in a block.
    pub held: usize,
    /// REGISTERs whose answers wait for the store, each in a block.
    pub stored: usize,
    /// Pooled blocks in use. They travel between shards: only the sum over all shards counts.
    pub blocks: i64,
}

impl Engine {
    /// Getter: what the inner tables hold. Takes constant time.
    pub fn resources(&self) -> Resources {
        let transactions = &self.transactions;
        let (connections, connects) = self.connects.len();
        Resources {
            timers: self.wheel.len(),
            transaction_keys: transactions.by_key.len() + transactions.merged.len(),
            flow_marks: transactions.by_source.len() + transactions.by_target.len(),
            connections,
            connects,
            index_hosts: self.index.len(),
            clients: self.location.clients(),
            waits: self.waiting.len(),
            wait_bytes: self.waiting.bytes(),
            held: self.held.len(),
            stored: self.storing.len(),
            blocks: self.pool.lent(),
        }
    }
}
