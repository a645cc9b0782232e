//! ACKs: our own for an INVITE that was refused (RFC 3261 §17.1.1.3), and those that no transaction
//! of ours waits for. These go on without one (§16.11), by their Route, or to whoever accepted the
//! INVITE.

use crate::base::config::RouteTo;
use crate::base::id::FlowRef;
use crate::base::slab::SlabKey;
use crate::flow::arrival::Arrival;
use crate::proxy::branch::loop_hash;
use crate::proxy::forward::Onward;
use crate::proxy::route::{self, Routing, Sender};
use crate::proxy::source::Source;
use crate::proxy::target::{self, Hop};
use crate::proxy::{Reject, breadth, naming};
use crate::sip::{self, HeaderName, Message, Uri};
use crate::transaction::ack_key;

use super::Engine;
use super::connect::Waiter;
use super::mesh::Recipient;
use super::seek::{HeldWhat, Sent};
use super::transactions::{ClientMachine, ClientTransaction, ServerName, Way};

/// What became of a copy of an ACK.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Went {
    /// There was no way.
    Nowhere,
    /// It was written.
    Out,
    /// It waits for a connection, which counts the first that does.
    Waiting,
}

impl Engine {
    /// Forwards an ACK, or drops and counts it. One for an answer that we gave without a
    /// transaction ends here (RFC 3261 §8.2.7).
    pub(super) fn forward_ack(&mut self, arrival: &Arrival, message: Message<'_>, source: Source) {
        if self.acknowledges_us(message) {
            self.counters.retransmissions_absorbed += 1;
            return;
        }
        let sender = Sender::of(&self.config, arrival);
        let hash = loop_hash(&self.placement, message, sender, &mut self.scratch.key);
        let spent = message.max_forwards().ok().flatten() == Some(0);
        let routed = route::preprocess(&self.config, &self.tokens, message, arrival, sender)
            .and_then(|routing| {
                let uri = Uri::parse(message.uri()).map_err(|_| Reject::new(400))?;
                let names_user = self.names_user(message, &uri, routing);
                let is_found = names_user && self.aim_at_accepted(message);
                // A GRUU names one instance, whoever else there is (RFC 5627 §6.1).
                if !names_user || !is_found && uri.param("gr").is_some() {
                    self.find_targets(message, &uri, arrival, sender, routing)?;
                }
                Ok(routing.popped)
            });
        let (Ok(popped), false) = (routed, spent) else { return self.drop_ack(arrival, message) };
        let targets = std::mem::take(&mut self.scratch.targets);
        let breadth = breadth::incoming(message);
        let count = targets.ordered().min(usize::from(breadth));
        let mut went = Went::Nowhere;
        for place in 0..count {
            let at = targets.index_of(place);
            let (hop, client) = (targets.at(at).0.hop, targets.at(at).0.client);
            let breadth = breadth::share(breadth, count, 0, place);
            let onward = Onward {
                source,
                popped,
                breadth,
                callee_key: client,
                ..self.onward(&targets, at, hash, arrival, sender)
            };
            let counts = went < Went::Waiting;
            went = went.max(self.send_ack_copy(message, arrival, hop, onward, counts));
        }
        self.scratch.targets = targets;
        match went {
            Went::Nowhere => self.drop_ack(arrival, message),
            Went::Out => self.counters.acks_forwarded += 1,
            Went::Waiting => {}
        }
    }

    /// Whether an ACK names a registered user, as no ACK in a dialog with a Contact and a route set
    /// does, but those of senders that take neither from the 2xx.
    fn names_user(&self, message: Message<'_>, uri: &Uri<'_>, routing: Routing) -> bool {
        routing.way == route::Way::Initial
            && message.values(HeaderName::Route).nth(routing.popped).is_none()
            && naming::is_our_uri(&self.config, uri)
            && target::first_route(&self.config, message, uri) == Some(&RouteTo::Location)
    }

    /// The branches of the ACK's INVITE that answered 2xx, as long as these are repeated. To every
    /// binding of the user would be wrong: the others never heard of the dialog. False when there
    /// is none.
    fn aim_at_accepted(&mut self, message: Message<'_>) -> bool {
        let targets = &mut self.scratch.targets;
        targets.clear();
        let invite = ack_key(&self.placement, message)
            .and_then(|key| self.transactions.merged.get(&key))
            .and_then(|name| self.transactions.server.get(name.living()?));
        let Some(invite) = invite else { return false };
        for client in &invite.branches {
            let Some(branch) = self.transactions.client.get(*client) else { continue };
            let Some(hop) = accepted_by(branch) else { continue };
            // Of the INVITE only its way is left.
            let way = self.transactions.endings.way(branch);
            let Some(at) = memchr::memchr(b'\n', way) else { continue };
            targets.push(hop, &way[..at], &way[at + 1..]);
            targets.name_last(branch.client);
        }
        !self.scratch.targets.is_empty()
    }

    /// An INVITE was accepted: its ACK may come without a Route.
    pub(super) fn expect_ack(&mut self, tx: SlabKey, request: Message<'_>) {
        let Some(key) = ack_key(&self.placement, request) else { return };
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        if transaction.merge.is_none() {
            transaction.merge = Some(key);
            self.transactions.merged.insert(key, ServerName::Living(tx));
        }
    }

    /// ACK for a non-2xx, hop by hop (RFC 3261 §17.1.1.3). It takes the place of the INVITE, of which
    /// nothing else is needed, and goes once more with every repeat of the response (§17.1.1.2).
    pub(super) fn send_ack(&mut self, client: SlabKey, response: Message<'_>) {
        let Some(transaction) = self.transactions.client.get_mut(client) else { return };
        let Some(flow) = transaction.flow() else { return };
        let mut block = std::mem::take(&mut transaction.block);
        if !block.starts_with(b"ACK ") {
            let sent = std::mem::replace(&mut block, self.pool.take(1024));
            let mut parsed = self.take_parsed();
            // With what we added it may be more than is read of one message.
            if sip::parse(&sent, &mut parsed).is_ok() {
                sip::ack(parsed.view(&sent), response, &mut block);
            }
            self.keep_parsed(parsed);
            self.pool.put(sent);
        }
        if !block.is_empty() {
            // The response came on this flow; when it is gone nobody waits for the ACK.
            let _ = self.deliver(flow, &block, None, Recipient::NOBODY);
        }
        if let Some(transaction) = self.transactions.client.get_mut(client) {
            transaction.block = block;
        }
    }

    fn send_ack_copy(
        &mut self,
        message: Message<'_>,
        arrival: &Arrival,
        hop: Hop,
        mut onward: Onward<'_>,
        counts: bool,
    ) -> Went {
        let mut block = self.pool.take(message.bytes().len() + 256);
        // If no connection can be made for a large one, its repetition goes by UDP.
        let streamed = self.write_copy(message, arrival, &mut onward, hop, &mut block);
        let hop = streamed.unwrap_or(hop);
        let went = match self.way(hop, onward.egress) {
            Way::Connecting => {
                self.connect_for(Waiter::Ack { block, counts }, hop);
                Went::Waiting
            }
            Way::Flow(flow) => {
                let what = HeldWhat::Ack { counts };
                let callee = Recipient::on(flow, onward.callee_key);
                let sent = self.deliver_or_hold(flow, callee, &block, what);
                self.pool.put(block);
                match sent {
                    Some(Sent::Now) => Went::Out,
                    Some(Sent::Later) => Went::Waiting,
                    None => Went::Nowhere,
                }
            }
            Way::Lost(path) => {
                let what = HeldWhat::Ack { counts };
                let callee = Recipient::on(FlowRef::Stream(path), onward.callee_key);
                let is_held = self.hold(callee, path, &block, what);
                self.pool.put(block);
                if is_held { Went::Waiting } else { Went::Nowhere }
            }
        };
        self.counters.requests_forwarded += u64::from(went != Went::Nowhere);
        went
    }

    fn drop_ack(&mut self, arrival: &Arrival, message: Message<'_>) {
        self.counters.dropped_ack += 1;
        self.report_drop(arrival.source, "ack", message);
    }
}

/// Where a branch went that answered 2xx.
fn accepted_by(branch: &ClientTransaction) -> Option<Hop> {
    match (&branch.machine, branch.dialled, branch.hop) {
        (ClientMachine::Invite(machine), _, _) if !machine.is_accepted() => None,
        (ClientMachine::Other(_), _, _) => None,
        (_, Some((transport, remote)), _) => Some(Hop::Dial { transport, remote }),
        (_, None, Way::Flow(flow)) => Some(Hop::Client(flow)),
        (_, None, Way::Lost(path)) => Some(Hop::Lost(path)),
        (_, None, Way::Connecting) => None,
    }
}
