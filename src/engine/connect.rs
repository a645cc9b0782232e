//! Connections that we open: one a target and shard, kept and used again (RFC 3261 §18.1.1).
//! Requests wait here until theirs is made.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::base::hash::KeyedHash;
use crate::base::id::{ConnectId, FlowId, FlowRef, ListenerId, StreamPath, Transport};
use crate::base::limits::{
    ALIASES_MAX, CONNECT_WAITERS_MAX, STREAM_REFUSED_MAX, STREAM_REFUSED_TIME,
};
use crate::base::slab::SlabKey;
use crate::base::time::Time;
use crate::proxy::naming;
use crate::proxy::target::Hop;

use super::client::Failure;
use super::input::ConnectTarget;
use super::mesh::Recipient;
use super::output::Output;
use super::transactions::Way;
use super::{Deferred, Engine};

/// Where a connection leads.
pub(super) type Peer = (Transport, SocketAddr);

/// The connections that this shard opened or is opening.
#[derive(Debug)]
pub(super) struct Connects {
    opened: HashMap<Peer, StreamPath, KeyedHash>,
    pending: HashMap<Peer, Pending, KeyedHash>,
    by_id: HashMap<ConnectId, Peer, KeyedHash>,
    /// Accepted flows that their peer wants to be used like opened ones (RFC 5923 §8.1).
    aliases: HashMap<Peer, StreamPath, KeyedHash>,
    /// Who took no connection for a large request, and until when that is believed.
    refusing: HashMap<SocketAddr, Time, KeyedHash>,
    next: u32,
}

#[derive(Debug)]
struct Pending {
    waiters: Vec<Waiter>,
}

/// What goes out once a connection is open.
#[derive(Debug)]
pub(super) enum Waiter {
    /// The request of this client transaction.
    Client(SlabKey),
    /// A copy of an ACK to a 2xx, which has no transaction.
    Ack {
        /// The copy.
        block: Vec<u8>,
        /// What becomes of it is what became of the ACK: one of all copies that wait.
        counts: bool,
    },
    /// A response whose own connection is gone.
    Response(Vec<u8>),
}

impl Connects {
    pub fn new(hash: KeyedHash) -> Connects {
        Connects {
            opened: HashMap::with_hasher(hash.clone()),
            pending: HashMap::with_hasher(hash.clone()),
            by_id: HashMap::with_hasher(hash.clone()),
            aliases: HashMap::with_hasher(hash.clone()),
            refusing: HashMap::with_hasher(hash),
            next: 0,
        }
    }

    /// The living connection to a peer, if there is one: ours before its own.
    pub fn opened(&self, transport: Transport, remote: SocketAddr) -> Option<StreamPath> {
        let peer = (transport, remote);
        self.opened.get(&peer).or_else(|| self.aliases.get(&peer)).copied()
    }

    /// Takes an accepted flow for one that leads to `peer`.
    pub fn add_alias(&mut self, peer: Peer, path: StreamPath) {
        if self.aliases.len() < ALIASES_MAX || self.aliases.contains_key(&peer) {
            self.aliases.insert(peer, path);
        }
    }

    /// An accepted flow is gone.
    pub fn forget_alias(&mut self, flow: FlowId) {
        if !self.aliases.is_empty() {
            self.aliases.retain(|_, path| path.flow != flow);
        }
    }

    /// Remembers that a peer took no connection.
    pub fn refuse(&mut self, remote: SocketAddr, now: Time) {
        if self.refusing.len() >= STREAM_REFUSED_MAX {
            self.refusing.retain(|_, until| *until > now);
        }
        if self.refusing.len() < STREAM_REFUSED_MAX || self.refusing.contains_key(&remote) {
            self.refusing.insert(remote, now + STREAM_REFUSED_TIME);
        }
    }

    /// Whether a peer took no connection of late.
    pub fn refuses(&self, remote: SocketAddr, now: Time) -> bool {
        self.refusing.get(&remote).is_some_and(|until| *until > now)
    }

    /// Connections that live, and connections that are being made.
    pub fn len(&self) -> (usize, usize) {
        (self.opened.len(), self.pending.len().max(self.by_id.len()))
    }

    /// A connection was made: its peer and who waited for it.
    fn made(&mut self, id: ConnectId) -> Option<(Peer, Vec<Waiter>)> {
        let peer = self.by_id.remove(&id)?;
        let pending = self.pending.remove(&peer)?;
        Some((peer, pending.waiters))
    }

    fn forget(&mut self, peer: Peer, flow: FlowId) {
        if self.opened.get(&peer).is_some_and(|path| path.flow == flow) {
            self.opened.remove(&peer);
        }
    }
}

impl Engine {
    /// Lets something wait for a connection to its hop, which is begun unless it is under way.
    pub(super) fn connect_for(&mut self, waiter: Waiter, hop: Hop) {
        let Hop::Dial { transport, remote } = hop else { return };
        let peer = (transport, remote);
        if let Some(pending) = self.connects.pending.get_mut(&peer) {
            if pending.waiters.len() < CONNECT_WAITERS_MAX {
                pending.waiters.push(waiter);
            } else {
                self.give_up(waiter, Failure::Full);
            }
            return;
        }
        let connect = ConnectId(self.connects.next);
        self.connects.next = self.connects.next.wrapping_add(1);
        self.connects.pending.insert(peer, Pending { waiters: vec![waiter] });
        self.connects.by_id.insert(connect, peer);
        let target = ConnectTarget {
            secure: transport.is_secure(),
            remote,
            server_name: self.server_name(remote),
        };
        self.outputs.push_back(Output::Open { connect, target: Box::new(target) });
    }

    /// The name that the peer's certificate must show: that of the upstream's target, else its
    /// address.
    fn server_name(&self, remote: SocketAddr) -> Box<str> {
        self.config
            .upstreams
            .iter()
            .flat_map(|upstream| &upstream.targets)
            .find(|target| target.address == remote)
            .map_or_else(|| remote.ip().to_string().into(), |target| target.host.as_str().into())
    }

    /// The flow's own path, once a connection of ours is open: it shows the name of our listener of
    /// its transport.
    pub(super) fn path_of_connection(
        &mut self,
        flow: FlowId,
        connect: ConnectId,
        remote: SocketAddr,
    ) -> (StreamPath, Vec<Waiter>) {
        let (peer, waiters) =
            self.connects.made(connect).unwrap_or(((Transport::Tcp, remote), Vec::new()));
        let listener: ListenerId = naming::egress_or_any(&self.config, peer.0, remote.ip());
        let path = StreamPath { flow, transport: peer.0, listener };
        self.connects.opened.insert(peer, path);
        (path, waiters)
    }

    /// Sends what waited for the connection.
    pub(super) fn release_waiters(&mut self, path: StreamPath, waiters: Vec<Waiter>) {
        for waiter in waiters {
            let client = match waiter {
                Waiter::Client(client) => client,
                Waiter::Ack { block, counts } => {
                    let sent = self
                        .deliver(FlowRef::Stream(path), &block, None, Recipient::NOBODY)
                        .is_ok();
                    self.counters.acks_forwarded += u64::from(counts && sent);
                    self.counters.dropped_ack += u64::from(counts && !sent);
                    self.pool.put(block);
                    continue;
                }
                Waiter::Response(block) => {
                    let sent = self
                        .deliver(FlowRef::Stream(path), &block, None, Recipient::NOBODY)
                        .is_ok();
                    self.counters.dropped_response_flow_gone += u64::from(!sent);
                    self.pool.put(block);
                    continue;
                }
            };
            let Some(transaction) = self.transactions.client.get_mut(client) else { continue };
            transaction.hop = Way::Flow(FlowRef::Stream(path));
            self.on_branch_connected(client);
            self.mark_target(client);
            self.send_request(client);
        }
    }

    pub(super) fn on_connect_failed(&mut self, connect: ConnectId) {
        self.counters.connects_failed += 1;
        let Some((_, waiters)) = self.connects.made(connect) else { return };
        for waiter in waiters {
            self.give_up(waiter, Failure::Connect);
        }
    }

    fn give_up(&mut self, waiter: Waiter, failure: Failure) {
        match waiter {
            Waiter::Client(client) => self.deferred.push_back(Deferred::Failed(client, failure)),
            Waiter::Ack { block, counts } => {
                self.counters.dropped_ack += u64::from(counts);
                self.pool.put(block);
            }
            Waiter::Response(block) => {
                self.counters.dropped_response_flow_gone += 1;
                self.pool.put(block);
            }
        }
    }

    /// A connection that we had opened is gone; the next request opens another.
    pub(super) fn forget_connection(&mut self, path: StreamPath, remote: SocketAddr) {
        self.connects.forget((path.transport, remote), path.flow);
    }
}
