//! What other shards say, and what they must be told (see `mesh` for the words).

use std::net::SocketAddr;

use crate::base::event::CloseReason;
use crate::base::id::{FlowId, ShardId, StreamPath};
use crate::base::time::Time;
use crate::flow::table::Flow;
use crate::proxy::{Reject, naming, place};

use super::blame::blaming;
use super::client::Failure;
use super::index::Entry;
use super::mesh::{Concern, Handover, IndexChange, LinkMessage};
use super::output::Output;
use super::seek::HeldWhat;
use super::{Deferred, Engine};

impl Engine {
    pub(super) fn on_linked(&mut self, from: ShardId, message: LinkMessage) {
        match message {
            LinkMessage::Request(mut handover) => {
                let Handover { arrival, block, parsed, visit } = &mut *handover;
                let block = &**block;
                blaming(block, || self.on_request(arrival, block, parsed, *visit));
                self.unpack(from, handover);
            }
            LinkMessage::Response(handover) => {
                blaming(&handover.block, || self.on_linked_response(&handover));
                self.unpack(from, handover);
            }
            LinkMessage::Return(handover) => self.take_back(handover),
            LinkMessage::Deliver { path, block, concern } => {
                self.on_deliver(from, path, &block, concern);
                self.pool.put(block);
            }
            LinkMessage::Client { flow, client } => self.flows.note_client(flow, client),
            LinkMessage::Probe { flow } => self.probe(flow),
            LinkMessage::Seek(seek) => self.on_seek(from, seek),
            LinkMessage::Found(found) => self.on_found(found),
            LinkMessage::Undelivered { origin } if origin.incarnation == self.incarnation => {
                self.deferred.push_back(Deferred::Failed(origin.key, Failure::Full));
            }
            LinkMessage::Undelivered { .. } => self.counters.link_messages_stale += 1,
            LinkMessage::FlowClosed { flow, .. } => self.on_flow_gone(flow),
            LinkMessage::Restarted { incarnation, at } => {
                self.on_restarted(from, incarnation, at);
            }
            LinkMessage::Vouched { flow, aor, ended } => self.on_vouched(flow, aor, ended),
            LinkMessage::PathTaken(claim) => self.on_path_taken(&claim),
            LinkMessage::PathLeft { claim, aor } => {
                self.note_tenant(&claim);
                self.tenants.leave(&claim, aor);
            }
            LinkMessage::Index(change) => self.change_index(*change),
        }
    }

    /// The work lane was full: the request gets its answer here, where it came in.
    pub(super) fn on_link_refused(&mut self, message: LinkMessage) {
        let LinkMessage::Request(mut handover) = message else { return };
        self.counters.refused_link_full += 1;
        let view = handover.parsed.view(&handover.block);
        if view.method() == crate::sip::Method::Ack {
            self.counters.dropped_ack += 1;
        } else {
            let reject = Reject::retry_after(500, 1, "A shard is busy");
            self.answer_stateless(&handover.arrival, view, &reject);
        }
        self.pool.put(std::mem::take(&mut handover.block));
        self.take_back(handover);
    }

    /// Writes for another shard. When the flow is gone that shard hears it, so that whatever it
    /// holds of the flow ends: transactions and bindings alike.
    fn on_deliver(&mut self, from: ShardId, path: StreamPath, block: &[u8], concern: Concern) {
        let flow = path.flow;
        if let Some(flow) = self.flows.get_mut(flow) {
            flow.touch(from);
        }
        match self.write_message(flow, block, matches!(concern, Concern::Sender(_))) {
            Ok(()) => {}
            Err(Failure::Full) => {
                if let Concern::Sender(origin) = concern {
                    let message = LinkMessage::Undelivered { origin };
                    self.outputs.push_back(Output::Link { to: from, message });
                }
            }
            Err(_) => {
                if let Concern::Receiver(recipient) = concern
                    && !self.hold(recipient, path, block, HeldWhat::Response)
                {
                    self.counters.dropped_response_flow_gone += 1;
                }
                let message = LinkMessage::FlowClosed { flow, why: CloseReason::Peer };
                self.outputs.push_back(Output::Link { to: from, message });
            }
        }
    }

    /// Tells every shard that may hold something of a flow that it is gone.
    pub(super) fn tell_flow_closed(&mut self, flow: &Flow, why: CloseReason) {
        for shard in (0..self.shards).map(ShardId) {
            if shard != self.shard && flow.is_touched_by(shard) {
                let message = LinkMessage::FlowClosed { flow: flow.path.flow, why };
                self.outputs.push_back(Output::Link { to: shard, message });
            }
        }
    }

    /// Another shard failed and was started anew. Its flows are gone. It has forgotten the bindings
    /// that it owned: flows of ours that it may have bound are closed, so that their clients come
    /// back and register again, which takes them seconds instead of an expiry.
    fn on_restarted(&mut self, shard: ShardId, incarnation: u8, at: Time) {
        let is_gone = |flow: FlowId| flow.shard() == shard && flow.incarnation() != incarnation;
        let mut gone = Vec::new();
        self.transactions.by_target.flows_of(shard, &mut gone);
        self.transactions.by_source.flows_of(shard, &mut gone);
        self.location.flows_of(shard, &mut gone);
        gone.retain(|flow| is_gone(*flow));
        gone.sort_unstable();
        gone.dedup();
        self.deferred.extend(gone.into_iter().map(Deferred::Gone));
        self.forget_questions(shard);
        self.index.forget(is_gone, |aor| place::shard_of(aor, self.shards) == shard);
        for flow in self.flows.touched_by(shard, at) {
            self.send_away(flow, CloseReason::Shard);
        }
    }

    /// Adds an accepted flow to the directory, or takes it out, while some server may look up
    /// addresses.
    pub(super) fn index_flow(&mut self, path: StreamPath, remote: SocketAddr, add: bool) {
        if self.looks_up_addresses() {
            self.write_directory(path, remote, add);
        }
    }

    /// Whether some server may find clients by their address.
    pub(super) fn looks_up_addresses(&self) -> bool {
        self.config.upstreams.iter().any(|upstream| upstream.address_lookup)
    }

    /// Adds an accepted flow to the directory, or takes it out.
    pub(super) fn write_directory(&mut self, path: StreamPath, remote: SocketAddr, add: bool) {
        let mut host = Vec::new();
        naming::write_address(remote, &mut host);
        self.change_index_at(host, Entry::Accepted(path), add);
    }

    /// Changes the index at the shard that holds it.
    pub(super) fn change_index_at(&mut self, host: Vec<u8>, entry: Entry, add: bool) {
        let to = place::owner_of(&self.placement, &host, self.shards);
        let change = IndexChange { host: host.into(), entry, add };
        if to == self.shard {
            self.change_index(change);
        } else {
            let message = LinkMessage::Index(Box::new(change));
            self.outputs.push_back(Output::Link { to, message });
        }
    }

    fn change_index(&mut self, change: IndexChange) {
        let IndexChange { host, entry, add } = change;
        if add {
            self.index.add(&host, entry);
        } else {
            self.index.remove(&host, &entry);
        }
    }
}
