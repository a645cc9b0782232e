//! What shards say to each other. New work may be refused when its lane is full; duty is never
//! lost. Bytes travel as blocks that the receiver keeps or pools.

use crate::base::event::CloseReason;
use crate::base::id::{ClientKey, FlowId, FlowRef, StreamPath};
use crate::base::slab::SlabKey;
use crate::base::time::Time;
use crate::flow::arrival::Arrival;
use crate::registrar::PathClaim;
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
        /// Who must hear when it cannot be written.
        concern: Concern,
    },
    /// Duty: what you wanted delivered was refused, although its flow lives: its queue is full.
    Undelivered {
        /// The client transaction that sent it.
        origin: ClientName,
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
        /// When I ended: flows that are younger have nothing at my former self.
        at: Time,
    },
    /// Duty: a registrar behind us said whose that flow of yours is.
    Vouched {
        /// The flow.
        flow: FlowId,
        /// The upper half of the hash of the canonical address of record, under the key that all
        /// shards have.
        aor: u32,
        /// It is not so any more.
        ended: bool,
    },
    /// Duty: a client of mine is where one of yours may have been.
    PathTaken(Box<PathClaim>),
    /// Duty: a binding of mine ended by that claim.
    PathLeft {
        /// Who came.
        claim: Box<PathClaim>,
        /// Who left: the upper half of the hash of the canonical address of record.
        aor: u32,
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
    /// Why it comes to this shard.
    pub visit: Visit,
}

/// Who is concerned when a message cannot be delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Concern {
    /// The client transaction that sent it (requests).
    Sender(ClientName),
    /// The client that it is for, whose next flow may have it (all else).
    Receiver(Recipient),
}

/// The client that a response or an ACK is for, on whichever flow it is by then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recipient {
    /// Who.
    pub(super) client: ClientKey,
    /// Only a flow over TLS will do: what it belongs to began over TLS.
    pub(super) secure: bool,
}

impl Recipient {
    /// None that could come back.
    pub(super) const NOBODY: Recipient = Recipient { client: ClientKey::NONE, secure: false };

    /// The client of that flow.
    pub(super) fn on(flow: FlowRef, client: ClientKey) -> Recipient {
        Recipient { client, secure: flow.transport().is_secure() }
    }
}

/// A client transaction's name outside its shard. The incarnation keeps it apart from those of a
/// shard that was started anew, whose keys begin again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientName {
    pub(super) key: SlabKey,
    pub(super) incarnation: u8,
}

/// Why a request is at a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visit {
    /// It belongs here.
    Home,
    /// It missed at home, and belonged here before the configuration changed.
    Former,
    /// It missed there, too, and is home again.
    Back,
    /// It missed at home, and here is known who is at an address.
    Address,
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
