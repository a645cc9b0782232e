//! What shards say to each other. New work may be refused when its lane is full; duty is never
//! lost. Bytes travel as blocks that the receiver keeps or pools.

use crate::base::event::CloseReason;
use crate::base::id::{ClientKey, FlowId, StreamPath};
use crate::base::slab::SlabKey;
use crate::flow::arrival::Arrival;
use crate::sip::Parsed;

use super::index::Entry;
use super::seek::{Found, Seek};

/// One message between shards.
#[derive(Debug)]
pub enum LinkMessage {
    /// Work: serve this request.
    Request(Box<Handover>),
    /// Duty: this response belongs to a client transaction of yours.
    Response(Box<Handover>),
    /// Duty: your storage back; what it says is over.
    Return(Box<Handover>),
    /// Duty: write this SIP message to a flow of yours.
    Deliver {
        /// The flow.
        path: StreamPath,
        /// The message.
        block: Vec<u8>,
        /// The client transaction that must hear when it cannot be written (requests).
        origin: Option<SlabKey>,
        /// Whose next flow may have it when the flow is gone (all but requests with an origin).
        client: ClientKey,
    },
    /// Duty: what you wanted delivered was refused, although its flow lives: its queue is full.
    Undelivered {
        /// The client transaction that sent it.
        origin: SlabKey,
    },
    /// Duty: that flow is gone; you had sent to it or bound to it.
    FlowClosed {
        /// The flow.
        flow: FlowId,
        /// Why.
        why: CloseReason,
    },
    /// Duty: that client registered on a flow of yours.
    Client {
        /// The flow.
        flow: FlowId,
        /// Who.
        client: ClientKey,
    },
    /// Duty: the client of a flow of yours has registered on another one; close it unless it lives.
    Probe {
        /// The flow.
        flow: FlowId,
    },
    /// Duty: where is this client, which you own?
    Seek(Seek),
    /// Duty: there, or nowhere.
    Found(Found),
    /// Duty: I was started anew, and know nothing of what was before.
    Restarted {
        /// How often, now.
        incarnation: u8,
    },
    /// Duty: an entry of the index that you hold is to be added or removed.
    Index(Box<IndexChange>),
}

/// A message with all that its next shard needs to go on without parsing again.
#[derive(Debug)]
pub struct Handover {
    /// How it came in.
    pub arrival: Arrival,
    /// Its bytes.
    pub block: Vec<u8>,
    /// Its spans.
    pub parsed: Parsed,
    /// It missed at the shard that it belongs to first, and is now where it belongs second.
    pub second: bool,
}

/// One change of the index by host and port.
#[derive(Debug)]
pub struct IndexChange {
    pub(super) host: Box<[u8]>,
    pub(super) entry: Entry,
    pub(super) add: bool,
}

impl LinkMessage {
    /// Whether it is new work, which may be refused when its lane is full; all else is duty and
    /// never lost.
    pub fn is_work(&self) -> bool {
        matches!(self, LinkMessage::Request(_))
    }
}

const _: () = assert!(size_of::<LinkMessage>() <= 64);
