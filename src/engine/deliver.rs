//! Bytes toward a flow: wrapped and written here when the flow is ours, handed to its shard when
//! not. The name of the flow decides; no address is ever looked at.

use crate::base::event::CloseReason;
use crate::base::id::{FlowId, FlowRef};
use crate::base::limits::DATAGRAM_BYTES_MAX;
use crate::base::slab::SlabKey;
use crate::flow::table::{Flow, Refused};

use super::Engine;
use super::client::Failure;
use super::mesh::{ClientName, Concern, LinkMessage, Recipient};
use super::output::Output;

impl Engine {
    /// Sends one SIP message. `origin` is the client transaction that must hear of a failure that
    /// shows only at another shard; without it the message is a response or an ACK, which a full
    /// queue does not stop, and which that shard keeps for the next flow of `recipient`.
    pub(super) fn deliver(
        &mut self,
        to: FlowRef,
        message: &[u8],
        origin: Option<SlabKey>,
        recipient: Recipient,
    ) -> Result<(), Failure> {
        match to {
            // No datagram carries it, however often it is sent (RFC 3261 §18.1.1).
            FlowRef::Datagram(_) if message.len() > DATAGRAM_BYTES_MAX => {
                if origin.is_some() {
                    return Err(Failure::TooLarge);
                }
                self.counters.dropped_too_large += 1;
                Ok(())
            }
            FlowRef::Datagram(path) => {
                let start = self.arena.len();
                self.arena.extend_from_slice(message);
                let range = start..self.arena.len();
                self.outputs.push_back(Output::WriteTo { path, range });
                Ok(())
            }
            FlowRef::Stream(path) if path.flow.shard() == self.shard => {
                self.write_message(path.flow, message, origin.is_some())
            }
            FlowRef::Stream(path) => {
                let to = path.flow.shard();
                if to.0 >= self.shards {
                    return Err(Failure::Gone);
                }
                self.counters.crossings += 1;
                let block = self.pool.copy(message);
                let concern = match origin {
                    Some(key) => Concern::Sender(ClientName { key, incarnation: self.incarnation }),
                    None => Concern::Receiver(recipient),
                };
                let message = LinkMessage::Deliver { path, block, concern };
                self.outputs.push_back(Output::Link { to, message });
                Ok(())
            }
        }
    }

    /// Writes one SIP message to a flow of this shard, in the frame that its client understands. A
    /// request to a client that has another flow, too, asks whether it is still on this one.
    pub(super) fn write_message(
        &mut self,
        flow: FlowId,
        message: &[u8],
        is_request: bool,
    ) -> Result<(), Failure> {
        let limits = &self.config.limits;
        match self.flows.write(flow, message, is_request, limits, &mut self.arena) {
            Ok(range) => {
                self.watch_writes(flow);
                self.outputs.push_back(Output::Write { flow, range });
                if is_request && self.flows.get(flow).is_some_and(Flow::is_doubtful) {
                    self.probe(flow);
                }
                Ok(())
            }
            Err(Refused::Gone) => Err(Failure::Gone),
            Err(Refused::Full) => Err(Failure::Full),
            Err(Refused::Overflow) => {
                self.close(flow, CloseReason::Slow);
                Err(Failure::Gone)
            }
        }
    }
}
