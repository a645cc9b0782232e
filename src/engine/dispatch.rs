//! A message came in whole: which shard is it for, which transaction does it belong to (RFC 3261
//! §17.1.3, §17.2.3, §18.1.2, §18.2.1)?

use crate::base::config::Config;
use crate::base::hash::KeyedHash;
use crate::base::id::{ShardId, Transport};
use crate::base::limits::HANDOVERS_KEPT;
use crate::flow::arrival::Arrival;
use crate::proxy::branch::BranchId;
use crate::proxy::route::Sender;
use crate::proxy::{Reject, naming, place, received};
use crate::sip::{
    self, HeaderName, Message, Method, NameAddr, ParseError, ParseErrorKind, Parsed, Uri,
};
use crate::transaction::{ServerKey, server_key};

use super::Engine;
use super::blame::blaming;
use super::mesh::{Handover, LinkMessage, Visit};
use super::output::Output;
use super::transactions::ServerName;

impl Engine {
    /// One whole SIP message: header section and body.
    pub(super) fn on_message(&mut self, arrival: &Arrival, bytes: &[u8]) {
        let mut parsed = self.take_parsed();
        let outcome = sip::parse(bytes, &mut parsed)
            .and_then(|()| settle_body(arrival.transport(), bytes, &mut parsed))
            .and_then(|()| parsed.view(bytes).check());
        let bytes = &bytes[..(parsed.view(bytes).body_span().end as usize).min(bytes.len())];
        match outcome {
            Ok(()) if parsed.view(bytes).is_request() => {
                self.counters.requests_received += 1;
                blaming(bytes, || match received::may_differ(parsed.view(bytes)) {
                    true => self.place_rewritten(arrival, bytes, &mut parsed),
                    false => self.place(arrival, bytes, &mut parsed),
                });
            }
            Ok(()) => {
                self.counters.responses_received += 1;
                blaming(bytes, || self.place_response(arrival, bytes, &mut parsed));
            }
            Err(fault) => self.on_unparsable(arrival, parsed.view(bytes), fault.kind),
        }
        self.keep_parsed(parsed);
    }

    /// RFC 3261 §16.3 step 1 and §21.4.1: answered when the sender can recognise the answer, never
    /// an ACK.
    fn on_unparsable(&mut self, arrival: &Arrival, message: Message<'_>, fault: ParseErrorKind) {
        if is_answerable(message) {
            self.counters.requests_received += 1;
            let status = if fault == ParseErrorKind::Version { 505 } else { 400 };
            let reject = match status {
                505 => Reject::new(505),
                _ => Reject::phrase(400, fault.phrase()),
            };
            self.answer_stateless(arrival, message, &reject);
        } else {
            self.counters.dropped_malformed += 1;
            self.report_drop(arrival.source, "malformed", message);
        }
    }

    /// Places a request whose Request-URI may say more than where it is for.
    fn place_rewritten(&mut self, arrival: &Arrival, bytes: &[u8], parsed: &mut Parsed) {
        let mut block = self.pool.take(bytes.len() + 256);
        let edits = &mut self.scratch.edits;
        let message = parsed.view(bytes);
        if !received::rewrite(&self.config, message, arrival, edits, &mut block) {
            self.place(arrival, bytes, parsed);
        } else if sip::parse(&block, parsed).is_ok() {
            self.place(arrival, &block, parsed);
        } else {
            self.on_unparsable(arrival, parsed.view(&block), ParseErrorKind::Uri);
        }
        self.pool.put(block);
    }

    /// Hands a request to the shard that serves it.
    fn place(&mut self, arrival: &Arrival, bytes: &[u8], parsed: &mut Parsed) {
        let message = parsed.view(bytes);
        let (standing, answers) = self.identify(arrival, message);
        let mut arrival = Arrival { standing, answers, ..*arrival };
        if arrival.has_lines {
            arrival.client = self.client_of(&arrival, message);
        }
        let arrival = &arrival;
        let home = self.home(message);
        if home == self.shard {
            self.on_request(arrival, bytes, parsed, Visit::Home);
        } else {
            self.hand_over(home, arrival, bytes, parsed, Visit::Home);
        }
    }

    fn hand_over(
        &mut self,
        to: ShardId,
        arrival: &Arrival,
        bytes: &[u8],
        parsed: &mut Parsed,
        visit: Visit,
    ) {
        self.counters.crossings += 1;
        let flow = arrival.source.stream().and_then(|flow| self.flows.get_mut(flow));
        if let Some(flow) = flow {
            flow.touch(to);
        }
        let handover = self.pack(arrival, bytes, parsed, visit);
        self.outputs.push_back(Output::Link { to, message: LinkMessage::Request(handover) });
    }

    /// Copies a message for another shard.
    fn pack(
        &mut self,
        arrival: &Arrival,
        bytes: &[u8],
        parsed: &mut Parsed,
        visit: Visit,
    ) -> Box<Handover> {
        let block = self.pool.copy(bytes);
        let fresh = self.take_parsed();
        let parsed = std::mem::replace(parsed, fresh);
        let handover = Handover { arrival: arrival.clone(), block, parsed, visit };
        match self.handovers_kept.pop() {
            Some(mut kept) => {
                *kept = handover;
                kept
            }
            None => Box::new(handover),
        }
    }

    /// Keeps the storage of a message from another shard for our own. Its block is ours, since a
    /// block goes back with the answer; boxes and indexes go home when there are more than enough,
    /// since one shard may hand over far more than it is handed.
    pub(super) fn unpack(&mut self, from: ShardId, mut handover: Box<Handover>) {
        self.pool.put(std::mem::take(&mut handover.block));
        if self.handovers_kept.len() < HANDOVERS_KEPT {
            self.take_back(handover);
        } else {
            let message = LinkMessage::Return(handover);
            self.outputs.push_back(Output::Link { to: from, message });
        }
    }

    /// Keeps a box and its index for the next message to another shard.
    pub(super) fn take_back(&mut self, mut handover: Box<Handover>) {
        self.keep_parsed(std::mem::take(&mut handover.parsed));
        if self.handovers_kept.len() < HANDOVERS_KEPT {
            self.handovers_kept.push(handover);
        }
    }

    /// A request, at the shard that serves it.
    pub(super) fn on_request(
        &mut self,
        arrival: &Arrival,
        bytes: &[u8],
        parsed: &mut Parsed,
        visit: Visit,
    ) {
        let message = parsed.view(bytes);
        let method = message.method();
        let Some(key) = server_key(&self.placement, message, method) else {
            let reject = Reject::phrase(400, ParseErrorKind::Via.phrase());
            return self.answer_stateless(arrival, message, &reject);
        };
        let back = self.way_back(arrival, message);
        let found = self.transactions.by_key.get(&key).copied();
        match (method, found) {
            (Method::Ack, Some(ServerName::Living(tx))) if self.on_ack(tx, message) => {}
            (Method::Ack, _) => match self.next_place(arrival, message, visit) {
                Some((to, visit)) => self.hand_over(to, arrival, bytes, parsed, visit),
                None => self.forward_ack(arrival, message, back.source),
            },
            (_, Some(ServerName::Living(tx))) => self.on_request_again(tx),
            (_, Some(ServerName::Lingering(id))) => self.on_request_after_answer(id),
            (_, None) => match self.next_place(arrival, message, visit) {
                Some((to, visit)) => self.hand_over(to, arrival, bytes, parsed, visit),
                None => self.open(arrival, bytes, parsed, key, back),
            },
        }
    }

    /// Where a request is looked for that matches nothing here; `None`: nowhere else, it is new.
    fn next_place(
        &mut self,
        arrival: &Arrival,
        message: Message<'_>,
        visit: Visit,
    ) -> Option<(ShardId, Visit)> {
        if self.shards == 1 || visit == Visit::Address {
            return None;
        }
        // A CANCEL is new to us, but belongs where its INVITE is.
        if message.method() == Method::Cancel
            && let Some(key) = self.cancelled_key(message)
            && self.transactions.by_key.contains_key(&key)
        {
            return None;
        }
        if visit == Visit::Former {
            // While a configuration spreads, this shard may not have it: then home is here.
            let home = self.home(message);
            return (home != self.shard).then_some((home, Visit::Back));
        }
        if visit == Visit::Home
            && let Some(to) = self.former_home(message)
        {
            return Some((to, Visit::Former));
        }
        let (hash, shards, scratch) = (&self.placement, self.shards, &mut self.scratch.key);
        let mut place =
            |config: &Config| address_place(config, hash, arrival, message, shards, scratch);
        let place = place(&self.config).or_else(|| place(self.former.as_deref()?));
        place.filter(|to| *to != self.shard).map(|to| (to, Visit::Address))
    }

    fn home(&mut self, message: Message<'_>) -> ShardId {
        let (config, hash, gruus) = (&self.config, &self.placement, &self.gruus);
        place::home(config, hash, message, gruus, self.shards, &mut self.scratch.key)
    }

    /// The shard to which a request belonged before our names changed: a transaction that is older
    /// lives there, whatever the configuration says by now.
    fn former_home(&mut self, message: Message<'_>) -> Option<ShardId> {
        let former = self.former.as_deref()?;
        let (hash, gruus) = (&self.placement, &self.gruus);
        let to = place::home(former, hash, message, gruus, self.shards, &mut self.scratch.key);
        (to != self.shard).then_some(to)
    }

    /// Hands a response to the shard where its client transaction lives (its branch says which).
    fn place_response(&mut self, arrival: &Arrival, bytes: &[u8], parsed: &mut Parsed) {
        let message = parsed.view(bytes);
        let branch = message.top_branch().and_then(BranchId::decode);
        match branch {
            Some(branch) if branch.shard == self.shard => {
                self.on_response(arrival, message, branch);
            }
            Some(branch) if branch.shard.0 < self.shards => {
                self.counters.crossings += 1;
                let handover = self.pack(arrival, bytes, parsed, Visit::Home);
                let message = LinkMessage::Response(handover);
                self.outputs.push_back(Output::Link { to: branch.shard, message });
            }
            _ => self.drop_stray(arrival, message),
        }
    }

    /// A response that another shard received for us.
    pub(super) fn on_linked_response(&mut self, handover: &Handover) {
        let message = handover.parsed.view(&handover.block);
        match message.top_branch().and_then(BranchId::decode) {
            Some(branch) => self.on_response(&handover.arrival, message, branch),
            None => self.drop_stray(&handover.arrival, message),
        }
    }

    /// RFC 6026 §7.3: a response that no client transaction waits for goes nowhere.
    pub(super) fn drop_stray(&mut self, arrival: &Arrival, message: Message<'_>) {
        self.counters.dropped_stray_response += 1;
        self.report_drop(arrival.source, "stray_response", message);
    }

    /// The key under which the INVITE that a CANCEL means is found.
    pub(super) fn cancelled_key(&self, message: Message<'_>) -> Option<ServerKey> {
        server_key(&self.placement, message, Method::Invite)
    }
}

/// A request of a server that names its target by address alone belongs to the shard that knows who
/// is there.
fn address_place(
    config: &Config,
    hash: &KeyedHash,
    arrival: &Arrival,
    message: Message<'_>,
    shards: u16,
    scratch: &mut Vec<u8>,
) -> Option<ShardId> {
    Sender::upstream(config, arrival)?;
    let uri = Uri::parse(message.uri()).ok()?;
    if naming::is_our_uri(config, &uri) || has_own_route(config, message) {
        return None;
    }
    Some(place::index_shard(hash, &uri, shards, scratch))
}

/// Whether the topmost Route names us.
fn has_own_route(config: &Config, message: Message<'_>) -> bool {
    message
        .values(HeaderName::Route)
        .next()
        .and_then(|value| NameAddr::parse(value.text).ok())
        .and_then(|address| Uri::parse(address.uri).ok())
        .is_some_and(|uri| naming::is_our_uri(config, &uri))
}

/// Where the body ends, by the rules of the transport (RFC 3261 §18.3, RFC 7118 §5); streams were
/// framed by it.
fn settle_body(transport: Transport, bytes: &[u8], parsed: &mut Parsed) -> Result<(), ParseError> {
    match transport {
        Transport::Udp => sip::datagram_body(parsed, bytes),
        Transport::Ws | Transport::Wss => sip::websocket_body(parsed, bytes),
        Transport::Tcp | Transport::Tls => Ok(()),
    }
}

/// Whether the sender of a broken request would recognise an answer; an ACK never has one.
pub(super) fn is_answerable(message: Message<'_>) -> bool {
    message.is_request()
        && message.method() != Method::Ack
        && [HeaderName::Via, HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq]
            .into_iter()
            .all(|name| message.header(name).is_some())
}
