//! What a shard's engine wants done. Outputs are queued in the order they were decided and never
//! searched for.

use std::ops::Range;

use crate::base::event::{CloseReason, Event};
use crate::base::id::{ConnectId, DatagramPath, FlowId, ShardId};
use crate::base::time::Time;

use super::input::ConnectTarget;
use super::mesh::LinkMessage;

/// One thing to do.
#[derive(Debug)]
pub enum Output {
    /// Write these bytes of the arena (see [`super::Engine::bytes`]) to the flow, after what was
    /// written before. Answered by `Input::Sent` once the kernel took them.
    Write {
        /// Where to.
        flow: FlowId,
        /// Which bytes; valid until the next input.
        range: Range<usize>,
    },
    /// Send one datagram from that listener's socket; not answered.
    WriteTo {
        /// Between whom.
        path: DatagramPath,
        /// Which bytes; valid until the next input.
        range: Range<usize>,
    },
    /// Tell what the kernel knows of the round-trip time of this TCP or TLS flow; answered by
    /// `Input::RoundTrip` when it knows any.
    Measure {
        /// Which flow.
        flow: FlowId,
    },
    /// Connect; answered by `Input::Opened` with `Origin::Connected` or by `Input::ConnectFailed`.
    Open {
        /// The engine's name for this attempt.
        connect: ConnectId,
        /// Where to.
        target: Box<ConnectTarget>,
    },
    /// Close the flow once everything written before has gone out (bounded by a deadline). The
    /// engine has forgotten the flow already.
    Close {
        /// Which flow.
        flow: FlowId,
        /// Why.
        why: CloseReason,
    },
    /// Hand this to another shard. A work message that finds its lane full comes back as
    /// `Input::LinkRefused`; a duty message is never lost.
    Link {
        /// To whom, never ourselves.
        to: ShardId,
        /// What; [`LinkMessage::is_work`] tells the lane.
        message: LinkMessage,
    },
    /// Change a binding in the store. Only when the configuration has one; answered by
    /// `Input::Stored` once this and all before it is durable.
    Store {
        /// One more than that of the change before.
        serial: u64,
        /// The binding's name in the store, unique among all shards and runs.
        id: u64,
        /// What becomes of it.
        change: StoreChange,
    },
    /// Tell the log. Its text is bytes of the arena; valid until the next input.
    Event(Event),
}

/// What becomes of a binding in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChange {
    /// It has this record.
    Put {
        /// The store does not have it yet.
        is_new: bool,
        /// When it expires.
        expires_at: Time,
        /// Bytes of the arena; valid until the next input.
        range: Range<usize>,
    },
    /// It is gone.
    Remove,
}
