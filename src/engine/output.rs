//! What a shard's engine wants done. Outputs are queued in the order they were decided and never
//! searched for.

use std::ops::Range;

use crate::base::event::{CloseReason, Event};
use crate::base::id::{ConnectId, DatagramPath, FlowId, ShardId};

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
    /// Tell the log. Its text is bytes of the arena; valid until the next input.
    Event(Event),
}
