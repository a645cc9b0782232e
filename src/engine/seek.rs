//! A client lost its flow. Whatever is under way to it asks the shard that owns its address of
//! record where it is now (see `wait`), and stays in the shard where it lives until the answer
//! comes: so CANCELs, ACKs and repeats find their transactions as ever. Absent on purpose: who is
//! the same client (`registrar/client`), and how long anybody waits.
//!
//! A request that was written to the lost flow and of which nothing was heard is written once more,
//! with its branch; of one that was heard of only the rest of its responses is taken from the next
//! flow. Final responses and ACKs, which no transaction repeats over a stream, wait as they are. A
//! provisional response does not: its transaction sends the last one again (see `recall`), and one
//! that waited in another shard could come after the final one.

use crate::base::id::{ClientKey, FlowId, FlowRef, StreamPath};
use crate::base::limits::HELD_MAX;
use crate::base::slab::{Slab, SlabKey};
use crate::proxy::place;
use crate::proxy::renew::{Move, renew};
use crate::sip;

use super::client::Failure;
use super::mesh::{LinkMessage, Recipient};
use super::output::Output;
use super::recall::is_provisional;
use super::transactions::{Cancel, CancelReason, ClientMachine, Way};
use super::{Deferred, Engine};

/// How often a request is sent toward flows of its client when none is heard of: that it was written
/// to one that died, nobody knows.
const SENDS_MAX: u8 = 2;

/// What waits for a client that lost its flow. Names something of the shard that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// The request of a client transaction, or its responses.
    Client(SlabKey),
    /// The sender of the request of a server transaction.
    Server(SlabKey),
    /// A message without a transaction.
    Held(SlabKey),
}

/// A question to the owner of a client's address of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seek {
    pub(super) client: ClientKey,
    /// The flow that it had.
    pub(super) lost: FlowId,
    /// What asks.
    pub(super) asker: Asker,
    /// What waits meanwhile.
    pub(super) bytes: u32,
    /// Only a flow over TLS will do: what asks began over TLS.
    pub(super) secure: bool,
    /// A request whose sender does not wait long.
    pub(super) brief: bool,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub(super) client: ClientKey,
    pub(super) asker: Asker,
    /// Its flow, if it has one.
    pub(super) path: Option<StreamPath>,
}

/// A message without a transaction, toward a client that lost its flow.
#[derive(Debug)]
pub(super) struct Held {
    block: Vec<u8>,
    recipient: Recipient,
    lost: StreamPath,
    what: HeldWhat,
}

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeldWhat {
    /// A response.
    Response,
    /// An ACK; what becomes of it is what became of all its copies, if it `counts`.
    Ack {
        /// It is the one of them.
        counts: bool,
    },
}

/// What became of a message without a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It was written.
    Now,
    /// It waits for its client.
    Later,
}

/// The messages without a transaction that wait.
pub(super) type HeldTable = Slab<Held>;

/// An empty table of them.
pub(super) fn held_table() -> HeldTable {
    Slab::new(HELD_MAX)
}

impl Engine {
    /// Whether what is for that client may wait for its next flow.
    pub(super) fn may_seek(&self, client: ClientKey) -> bool {
        client.is_of_client() && !self.config.registrar.grace.is_zero()
    }

    /// The flow that a request went to is gone.
    pub(super) fn lose_target(&mut self, client: SlabKey) {
        let Some(transaction) = self.transactions.client.get(client) else { return };
        let key = transaction.client;
        let again = transaction.sends >= SENDS_MAX && !transaction.heard;
        let path = match transaction.flow() {
            Some(FlowRef::Stream(path)) if self.may_seek(key) && !again => path,
            _ => return self.deferred.push_back(Deferred::Failed(client, Failure::Gone)),
        };
        let transaction = self.transactions.client.get_mut(client).expect("just seen");
        transaction.hop = Way::Lost(path);
        let is_spent = transaction.cancel == Cancel::Wanted && !transaction.heard;
        if let Some(mark) = transaction.mark.take() {
            self.transactions.by_target.remove(mark);
        }
        self.deferred.push_back(match is_spent {
            true => Deferred::Failed(client, Failure::Cancelled),
            false => Deferred::Seek(Asker::Client(client)),
        });
    }

    /// The flow that a request came on is gone. Its responses wait for the sender's next one, if it
    /// may have one; else an INVITE must not ring on when nobody can be answered. A server that can
    /// be dialled still waits.
    pub(super) fn lose_source(&mut self, tx: SlabKey) {
        let Some(transaction) = self.transactions.server.get(tx) else { return };
        let client = transaction.arrival.client;
        if !self.may_seek(client) || transaction.fallback().is_some() {
            return self.orphan(tx);
        }
        let transaction = self.transactions.server.get_mut(tx).expect("just seen");
        transaction.lost = true;
        if let Some(mark) = transaction.mark.take() {
            self.transactions.by_source.remove(mark);
        }
        self.deferred.push_back(Deferred::Seek(Asker::Server(tx)));
    }

    fn orphan(&mut self, tx: SlabKey) {
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        transaction.orphaned = true;
        let is_ringing = transaction.is_invite && transaction.context.sent == 0;
        let (has_fallback, client) = (transaction.fallback().is_some(), transaction.arrival.client);
        if is_ringing && !has_fallback {
            let was_awaited = self.may_seek(client);
            let reason = if was_awaited { CancelReason::CallerGone } else { CancelReason::None };
            self.cancel_branches(tx, None, reason);
        }
    }

    /// Sends a message that nobody repeats; when its flow is gone it waits for the client's next
    /// one. `None`: it can do neither.
    pub(super) fn deliver_or_hold(
        &mut self,
        to: FlowRef,
        recipient: Recipient,
        message: &[u8],
        what: HeldWhat,
    ) -> Option<Sent> {
        if self.deliver(to, message, None, recipient).is_ok() {
            return Some(Sent::Now);
        }
        match to {
            FlowRef::Stream(lost) if self.hold(recipient, lost, message, what) => Some(Sent::Later),
            _ => None,
        }
    }

    /// Keeps a message until its client is back, unless its transaction does so. False when that
    /// cannot be.
    pub(super) fn hold(
        &mut self,
        recipient: Recipient,
        lost: StreamPath,
        message: &[u8],
        what: HeldWhat,
    ) -> bool {
        if !self.may_seek(recipient.client) {
            return false;
        }
        if what == HeldWhat::Response && is_provisional(message) {
            return true;
        }
        if self.held.len() == HELD_MAX {
            self.counters.waits_refused += 1;
            return false;
        }
        let block = self.pool.copy(message);
        let held = self.held.insert(Held { block, recipient, lost, what }).expect("there is room");
        self.deferred.push_back(Deferred::Seek(Asker::Held(held)));
        true
    }

    /// Asks where the client is by now.
    pub(super) fn seek(&mut self, asker: Asker) {
        let Some(seek) = self.question(asker) else { return };
        let owner = place::owner_of_client(seek.client, self.shards);
        if owner == self.shard {
            self.on_seek(self.shard, seek);
        } else {
            self.counters.crossings += 1;
            self.outputs.push_back(Output::Link { to: owner, message: LinkMessage::Seek(seek) });
        }
    }

    /// What is asked for; nothing when the asker is gone or does not wait.
    fn question(&self, asker: Asker) -> Option<Seek> {
        let (Recipient { client, secure }, lost, bytes, brief) = match asker {
            Asker::Client(client) => {
                let transaction = self.transactions.client.get(client)?;
                let Way::Lost(path) = transaction.hop else { return None };
                let brief = matches!(transaction.machine, ClientMachine::Other(_));
                (transaction.target(), path, transaction.block.len(), brief)
            }
            Asker::Server(tx) => {
                let transaction = self.transactions.server.get(tx).filter(|it| it.lost)?;
                let FlowRef::Stream(path) = transaction.arrival.source else { return None };
                (transaction.sender(), path, 0, false)
            }
            Asker::Held(held) => {
                let held = self.held.get(held)?;
                (held.recipient, held.lost, held.block.len(), held.what != HeldWhat::Response)
            }
        };
        Some(Seek { client, lost: lost.flow, asker, bytes: bytes as u32, secure, brief })
    }

    /// The owner's answer.
    pub(super) fn on_found(&mut self, found: Found) {
        let Found { client, asker, path } = found;
        // A shard that was started anew uses its names again.
        if self.question(asker).is_none_or(|question| question.client != client) {
            return;
        }
        match (asker, path) {
            (Asker::Client(client), Some(path)) => self.move_branch(client, path),
            (Asker::Client(client), None) => self.give_up_branch(client),
            (Asker::Server(tx), Some(path)) => self.move_source(tx, path),
            (Asker::Server(tx), None) => {
                if let Some(transaction) = self.transactions.server.get_mut(tx) {
                    transaction.lost = false;
                }
                self.orphan(tx);
            }
            (Asker::Held(held), path) => self.release(held, path),
        }
    }

    fn give_up_branch(&mut self, client: SlabKey) {
        let Some(transaction) = self.transactions.client.get(client) else { return };
        let is_wanted = transaction.cancel == Cancel::No;
        let failure = if is_wanted { Failure::Gone } else { Failure::Cancelled };
        self.deferred.push_back(Deferred::Failed(client, failure));
    }

    /// The target has another flow.
    pub(super) fn move_branch(&mut self, client: SlabKey, path: StreamPath) {
        let Some(transaction) = self.transactions.client.get_mut(client) else { return };
        let former = std::mem::replace(&mut transaction.hop, Way::Flow(FlowRef::Stream(path)));
        let (heard, cancel) = (transaction.heard, transaction.cancel);
        if let Some(mark) = transaction.mark.take() {
            self.transactions.by_target.remove(mark);
        }
        self.mark_target(client);
        match former {
            _ if heard && cancel == Cancel::Wanted => self.send_cancel(client),
            Way::Lost(lost) if !heard => {
                self.renew_request(client, lost, path);
                self.send_request(client);
            }
            _ => {}
        }
    }

    fn renew_request(&mut self, client: SlabKey, lost: StreamPath, next: StreamPath) {
        let Some(transaction) = self.transactions.client.get_mut(client) else { return };
        transaction.secure |= next.transport.is_secure();
        let key = transaction.client;
        let is_ours = transaction.authoritative;
        let sent = std::mem::take(&mut transaction.block);
        let binding = self.location.of_client(key, self.now).filter(|_| is_ours);
        let contact = binding.map(|binding| binding.contact());
        let mut parsed = self.parsed_kept.pop().unwrap_or_default();
        let mut block = self.pool.take(sent.len() + contact.map_or(0, <[u8]>::len));
        if sip::parse(&sent, &mut parsed).is_ok() {
            let (message, edits) = (parsed.view(&sent), &mut self.scratch.edits);
            let moved = Move { lost, next, contact };
            renew(&self.config, &self.tokens, message, moved, edits, &mut block);
        }
        self.counters.requests_moved += 1;
        self.keep_parsed(parsed);
        self.pool.put(sent);
        if let Some(transaction) = self.transactions.client.get_mut(client) {
            transaction.block = block;
        }
    }

    /// The sender of a request has another flow: responses go there from here on.
    fn move_source(&mut self, tx: SlabKey, path: StreamPath) {
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        transaction.lost = false;
        transaction.arrival.source = FlowRef::Stream(path);
        if transaction.mark.is_none() {
            let mark = self.transactions.by_source.add(path.flow, tx);
            self.transactions.server.get_mut(tx).expect("just seen").mark = Some(mark);
        }
        self.recall(tx);
    }

    /// A flow that is gone by now, here or at its shard, is one more that the message waits for.
    fn release(&mut self, held: SlabKey, path: Option<StreamPath>) {
        let Some(Held { block, recipient, what, .. }) = self.held.remove(held) else { return };
        let next = path.map(FlowRef::Stream);
        match next.and_then(|next| self.deliver_or_hold(next, recipient, &block, what)) {
            Some(Sent::Later) => {}
            sent => self.count_held(what, sent.is_some()),
        }
        self.pool.put(block);
    }

    /// What became of a message that was held, or could not be.
    pub(super) fn count_held(&mut self, what: HeldWhat, sent: bool) {
        match what {
            HeldWhat::Response => self.counters.dropped_response_flow_gone += u64::from(!sent),
            HeldWhat::Ack { counts } => {
                self.counters.acks_forwarded += u64::from(counts && sent);
                self.counters.dropped_ack += u64::from(counts && !sent);
            }
        }
    }

    /// A shard was started anew, and with it went the questions that it had: nobody will answer.
    pub(super) fn forget_questions(&mut self, owner: crate::base::id::ShardId) {
        let clients = self.transactions.client.iter().map(|(key, _)| Asker::Client(key));
        let servers = self.transactions.server.iter().map(|(key, _)| Asker::Server(key));
        let held = self.held.iter().map(|(key, _)| Asker::Held(key));
        let unanswered: Vec<Found> = clients
            .chain(servers)
            .chain(held)
            .filter_map(|asker| self.question(asker))
            .filter(|it| place::owner_of_client(it.client, self.shards) == owner)
            .map(|it| Found { client: it.client, asker: it.asker, path: None })
            .collect();
        for found in unanswered {
            self.on_found(found);
        }
    }
}
