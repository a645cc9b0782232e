//! The transactions that live in one shard: what the machines of `transaction/` do not hold
//! (messages, timers, flows) and the indexes that find them.

use std::collections::HashMap;
use std::net::SocketAddr;

use smallvec::SmallVec;

use crate::base::hash::{BuildHashed, KeyedHash};
use crate::base::id::{ClientKey, FlowRef, StreamPath, Transport};
use crate::base::slab::{Slab, SlabKey};
use crate::base::time::Time;
use crate::base::trail::Stretch;
use crate::base::wheel::TimerId;
use crate::flow::arrival::Arrival;
use crate::proxy::context::ResponseContext;
use crate::proxy::source::Source;
use crate::sip::Parsed;
use crate::transaction::Client;
use crate::transaction::ClientInvite;
use crate::transaction::Server;
use crate::transaction::ServerInvite;
use crate::transaction::Timer;
use crate::transaction::{MergeKey, ServerKey};

use super::accepted::Endings;
use super::best::Best;
use super::flow_index::{FlowIndex, FlowMark};
use super::lingering::{LingerId, Lingering};
use super::mesh::Recipient;
use super::recall::Recall;
use super::search::{Place, Search};

/// The machine of a server transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum ServerMachine {
    Invite(ServerInvite),
    Other(Server),
}

/// The machine of a client transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum ClientMachine {
    Invite(ClientInvite),
    Other(Client),
}

/// Which server transaction a key names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ServerName {
    /// One with an entry of its own.
    Living(SlabKey),
    /// One of which only the response is left.
    Lingering(LingerId),
}

impl ServerName {
    /// The entry of one that has one.
    pub fn living(self) -> Option<SlabKey> {
        match self {
            ServerName::Living(tx) => Some(tx),
            ServerName::Lingering(_) => None,
        }
    }
}

/// A request as it came, in a box that is used again.
#[derive(Debug, Default)]
pub(super) struct StoredRequest {
    pub block: Vec<u8>,
    pub parsed: Parsed,
}

/// One request that we received and have to answer.
#[derive(Debug)]
pub(super) struct ServerTransaction {
    pub machine: ServerMachine,
    pub key: ServerKey,
    /// The request as it came, but for a large body that no copy will need. Absent while it is being
    /// served, and once it was answered: only the answer is repeated.
    pub request: Option<Box<StoredRequest>>,
    pub arrival: Arrival,
    /// It came over TLS, and so do its responses go, wherever the sender is by then.
    pub secure: bool,
    /// What the topmost Via has to say of the sender.
    pub source: Source,
    /// What its topmost Via said of the way back.
    pub port_back: Option<(Transport, u16)>,
    /// The last response that we sent, for repeats. Empty before the first.
    pub last: Vec<u8>,
    /// The best final response so far; absent before the first, and once one was sent.
    pub best: Option<Box<Best>>,
    pub context: ResponseContext,
    pub branches: SmallVec<[SlabKey; 2]>,
    /// What is left to try; absent when that is nothing.
    pub search: Option<Box<Search>>,
    /// What CANCELs of its branches say.
    pub cancel_reason: CancelReason,
    pub timers: Armed,
    pub started: Time,
    pub mark: Option<FlowMark>,
    pub is_invite: bool,
    /// The sender of the request is gone: no response can be delivered.
    pub orphaned: bool,
    /// The sender's flow is gone, and responses wait for its next one.
    pub lost: bool,
    /// Whether the sender, back on another flow, still waits for an answer.
    pub recall: Recall,
    /// Its entry in [`Transactions::merged`].
    pub merge: Option<MergeKey>,
    /// The log was told of its end.
    pub reported: bool,
}

impl ServerTransaction {
    /// Who gets the responses.
    pub fn sender(&self) -> Recipient {
        Recipient { client: self.arrival.client, secure: self.secure }
    }

    /// Where responses go (RFC 3261 §18.2.2, RFC 3581 §4).
    pub fn reply_to(&self) -> FlowRef {
        match (self.arrival.source, self.port_back) {
            (FlowRef::Datagram(mut path), Some((_, port))) => {
                path.remote.set_port(port);
                FlowRef::Datagram(path)
            }
            (source, _) => source,
        }
    }

    /// Where a response goes by a connection of ours when the sender's is gone (RFC 3261 §18.2.2).
    pub fn fallback(&self) -> Option<(Transport, SocketAddr)> {
        let (transport, port) = self.port_back.filter(|(it, _)| *it != Transport::Udp)?;
        Some((transport, SocketAddr::new(self.arrival.remote.ip(), port)))
    }
}

/// One request that we sent.
#[derive(Debug)]
pub(super) struct ClientTransaction {
    pub machine: ClientMachine,
    /// The server transaction that it works for; absent for a CANCEL of ours.
    pub server: Option<SlabKey>,
    pub secret: u64,
    pub hop: Way,
    /// Who is there, if it is a client that proved that.
    pub client: ClientKey,
    /// It was meant for a flow over TLS or went over one: so does all that follows.
    pub secure: bool,
    /// A response has come.
    pub heard: bool,
    /// How often it was sent toward a flow.
    pub sends: u8,
    /// The peer, if we dialled it: it may answer on any connection that we opened to it.
    pub dialled: Option<(Transport, SocketAddr)>,
    /// The request as sent. Of an INVITE that was refused the ACK; of an accepted one nothing, or its
    /// way when there was no room among the others'.
    pub block: Vec<u8>,
    /// Where an accepted INVITE went, if an ACK can need that.
    pub way: Option<Stretch>,
    pub timers: Armed,
    /// Ends the patience with a target that says nothing, while there is another.
    pub silence: Option<TimerId>,
    pub mark: Option<FlowMark>,
    pub cancel: Cancel,
    /// What it is in the search of its server transaction.
    pub place: Place,
    /// What the sender of the request hears when the flow is gone: 430 or 480.
    pub gone: u16,
    /// It was sent for an address of record of ours, to one of its bindings.
    pub authoritative: bool,
    /// It went to a server behind us, which may assert identities (RFC 3325 §4).
    pub trusted: bool,
    /// It goes by TCP because it is too large for UDP (RFC 3261 §18.1.1).
    pub is_large: bool,
    /// The next group of targets began while it still rang: its 487 means that nobody answered.
    pub given_up: bool,
    /// Another target was tried instead, since this one said nothing; only its 2xx still counts.
    pub abandoned: bool,
    /// A final response or failure was reported to the response context.
    pub ended: bool,
}

impl ClientTransaction {
    /// Who is to get it.
    pub fn target(&self) -> Recipient {
        Recipient { client: self.client, secure: self.secure }
    }

    /// The flow that its request went to, once known.
    pub fn flow(&self) -> Option<FlowRef> {
        match self.hop {
            Way::Flow(flow) => Some(flow),
            Way::Connecting | Way::Lost(_) => None,
        }
    }
}

/// How a client transaction's request leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// On this flow.
    Flow(FlowRef),
    /// Once a connection is open.
    Connecting,
    /// Once the client that had this flow has another.
    Lost(StreamPath),
}

impl Way {
    /// Over TLS, as far as it is known by now.
    pub fn is_secure(self) -> bool {
        match self {
            Way::Flow(flow) => flow.transport().is_secure(),
            Way::Lost(path) => path.transport.is_secure(),
            Way::Connecting => false,
        }
    }
}

/// The Reason of CANCELs (RFC 3326), which may have to wait for a provisional response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CancelReason {
    /// None is said.
    None,
    /// Another branch won.
    Elsewhere,
    /// Who sent the INVITE lost its flow and did not come back.
    CallerGone,
    /// The value that the sender's CANCEL had.
    Said(Box<[u8]>),
}

impl CancelReason {
    /// The value of the header field.
    pub fn value(&self) -> Option<&[u8]> {
        match self {
            CancelReason::None => None,
            CancelReason::Elsewhere => Some(b"SIP;cause=200;text=\"Call completed elsewhere\""),
            CancelReason::CallerGone => Some(b"SIP;cause=487;text=\"The caller is gone\""),
            CancelReason::Said(value) => Some(value),
        }
    }
}

/// CANCEL of one branch (RFC 3261 §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancel {
    /// Nobody asked.
    No,
    /// To be sent when the first provisional response comes.
    Wanted,
    /// Sent: its client transaction.
    Sent(Option<SlabKey>),
}

/// The timers of one transaction that run now: few, so a list.
#[derive(Clone, Debug, Default)]
pub(super) struct Armed(SmallVec<[(Timer, TimerId); 3]>);

impl Armed {
    /// Notes a running timer; gives back one of the same letter that it replaces.
    pub fn put(&mut self, timer: Timer, id: TimerId) -> Option<TimerId> {
        let old = self.take(timer);
        self.0.push((timer, id));
        old
    }

    /// Whether a timer of that letter runs.
    pub fn has(&self, timer: Timer) -> bool {
        self.0.iter().any(|(letter, _)| *letter == timer)
    }

    /// Forgets a timer.
    pub fn take(&mut self, timer: Timer) -> Option<TimerId> {
        let at = self.0.iter().position(|(letter, _)| *letter == timer)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Forgets all of them.
    pub fn drain(&mut self) -> impl Iterator<Item = TimerId> + '_ {
        self.0.drain(..).map(|(_, id)| id)
    }
}

/// The tables of one shard.
pub(super) struct Transactions {
    pub server: Slab<ServerTransaction>,
    pub client: Slab<ClientTransaction>,
    /// Server transactions that only repeat their response.
    pub lingering: Lingering,
    /// When the transactions of accepted INVITEs end.
    pub endings: Endings,
    /// Most server transactions, those that linger included.
    max: usize,
    /// Server transactions by key.
    pub by_key: HashMap<ServerKey, ServerName, BuildHashed>,
    /// Server transactions for ourselves by what makes merged requests equal (RFC 3261 §8.2.2.2), and
    /// accepted INVITEs by what their ACK repeats.
    pub merged: HashMap<MergeKey, ServerName, BuildHashed>,
    /// Server transactions without a final response by the stream flow that their request came
    /// on.
    pub by_source: FlowIndex,
    /// Client transactions by the stream flow that their request went to.
    pub by_target: FlowIndex,
}

impl Transactions {
    /// Empty tables for at most `max` server transactions.
    pub fn new(max: usize, hash: &KeyedHash) -> Transactions {
        Transactions {
            server: Slab::new(max),
            client: Slab::new(max.saturating_mul(2)),
            lingering: Lingering::new(),
            endings: Endings::new(),
            max,
            by_key: HashMap::default(),
            merged: HashMap::default(),
            by_source: FlowIndex::new(max, hash),
            by_target: FlowIndex::new(max.saturating_mul(2), hash),
        }
    }

    /// Moves the bound of server transactions. Those beyond a lower one live on until they end.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
        self.server.set_max(max);
        self.by_source.set_max(max);
        self.client.set_max(max.saturating_mul(2));
        self.by_target.set_max(max.saturating_mul(2));
    }

    /// How many server transactions there are.
    pub fn servers(&self) -> usize {
        self.server.len() + self.lingering.len()
    }

    /// Whether there are as many as there may be.
    pub fn is_full(&self) -> bool {
        self.servers() >= self.max
    }

    /// Adds a server transaction, for which [room was made](super::Engine::make_room). `None`: as many live
    /// as there may be.
    pub fn open(&mut self, transaction: ServerTransaction) -> Option<SlabKey> {
        let key = transaction.key;
        let tx = self.server.insert(transaction)?;
        self.by_key.insert(key, ServerName::Living(tx));
        Some(tx)
    }

    /// Takes the keys back that still name the transaction.
    pub fn forget(&mut self, name: ServerName, key: ServerKey, merge: Option<MergeKey>) {
        if self.by_key.get(&key) == Some(&name) {
            self.by_key.remove(&key);
        }
        if let Some(merge) = merge
            && self.merged.get(&merge) == Some(&name)
        {
            self.merged.remove(&merge);
        }
    }
}
