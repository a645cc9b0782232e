//! Bindings by the flow that they go with, over UDP by the address that they are at. Absent on purpose:
//! what becomes of them when the flow ends (`lose`), and who is at an address (`paths`).

use std::net::{IpAddr, SocketAddr};

use crate::base::id::{FlowId, ShardId};
use crate::base::limits::FLOW_BINDINGS_MAX;
use crate::base::slab::SlabKey;

use super::links::{END, List, push, walk};
use super::location::{Location, leave};

impl Location {
    /// Appends every flow of that shard that bindings go with, as often as they do.
    pub fn flows_of(&self, shard: ShardId, out: &mut Vec<FlowId>) {
        let flows = self.bindings.iter().filter_map(|(_, binding)| binding.stream());
        out.extend(flows.filter(|flow| flow.shard() == shard));
    }

    /// Whether a binding of this table goes with `flow`.
    pub fn holds_flow(&self, flow: FlowId) -> bool {
        let head = self.flow_head(flow);
        walk(&self.bindings, List::Flow, head).any(|(_, binding)| binding.stream() == Some(flow))
    }

    /// Whether `flow` may carry `more` bindings.
    pub(super) fn has_flow_room(&self, flow: FlowId, more: usize) -> bool {
        let head = self.flow_head(flow);
        let carried = walk(&self.bindings, List::Flow, head)
            .filter(|(_, binding)| binding.stream() == Some(flow))
            .take(FLOW_BINDINGS_MAX);
        carried.count() + more <= FLOW_BINDINGS_MAX
    }

    pub(super) fn flow_head(&self, flow: FlowId) -> SlabKey {
        self.by_flow.get(&self.flow_hash(flow)).copied().unwrap_or(END)
    }

    /// Under what a binding stands in the lists of flows: a stream's name, or the address that
    /// its datagrams go to.
    fn flow_hash_of(&self, key: SlabKey) -> Option<u64> {
        let binding = self.get(key);
        match binding.stream() {
            Some(flow) => Some(self.flow_hash(flow)),
            None => binding.datagrams_to().map(|remote| self.remote_hash(remote)),
        }
    }

    fn flow_hash(&self, flow: FlowId) -> u64 {
        self.hash.of(&flow.to_bits().to_le_bytes())
    }

    fn remote_hash(&self, remote: SocketAddr) -> u64 {
        let mut bytes = [0; 18];
        let ip = match remote.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        bytes[..16].copy_from_slice(&ip.octets());
        bytes[16..].copy_from_slice(&remote.port().to_le_bytes());
        self.hash.of(&bytes)
    }

    /// The newest binding whose datagrams go to that address, or one that shares its list.
    pub(super) fn remote_head(&self, remote: SocketAddr) -> SlabKey {
        self.by_flow.get(&self.remote_hash(remote)).copied().unwrap_or(END)
    }

    pub(super) fn enter_flow(&mut self, key: SlabKey) {
        let Some(hash) = self.flow_hash_of(key) else { return };
        let head = self.by_flow.entry(hash).or_insert(END);
        *head = push(&mut self.bindings, List::Flow, *head, key);
    }

    pub(super) fn leave_flow(&mut self, key: SlabKey) {
        let Some(hash) = self.flow_hash_of(key) else { return };
        leave(&mut self.by_flow, &mut self.bindings, List::Flow, hash, key);
    }
}
