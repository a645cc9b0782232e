//! REGISTER at the shard that owns the address of record, and what the other rooms must know of its
//! bindings: when the next one expires, and at which host and port its client can be found.

use std::time::Duration;

use smallvec::SmallVec;

use crate::base::config::Registrar;
use crate::base::hash::KeyedHash;
use crate::base::id::{ClientKey, FlowId, FlowRef, ShardId, Transport};
use crate::base::limits::Limits;
use crate::base::slab::SlabKey;
use crate::base::users::UserMark;
use crate::flow::arrival::{Arrival, Standing};
use crate::proxy::route::Sender;
use crate::proxy::{Reject, admission, naming, place};
use crate::registrar::{
    Binding, Came, Grace, PathClaim, RegisterContext, Registered, claimed_client, register, shadow,
};
use crate::sip::{HeaderName, Message, Method, Uri};

use super::Engine;
use super::alarm::Alarm;
use super::index::Entry;
use super::mesh::LinkMessage;
use super::output::Output;

/// Who came and who left by a REGISTER that a registrar behind us accepted.
pub(super) struct Moves {
    /// Where they came. The transaction may be gone with its answer.
    source: FlowRef,
    came: SmallVec<[Came; 1]>,
    left: SmallVec<[ClientKey; 1]>,
}

impl Engine {
    /// RFC 3261 §10.3, the domain being ours.
    pub(super) fn register(&mut self, tx: SlabKey, message: Message<'_>) -> Result<(), Reject> {
        let Some(transaction) = self.transactions.server.get(tx) else { return Ok(()) };
        let arrival = transaction.arrival.clone();
        let lingering = &self.transactions.lingering;
        let is_repeated = transaction.merge.is_some_and(|it| lingering.has_accepted(it, self.now));
        self.check_store_room()?;
        let (is_known, longest) = (self.may_be_lost(&arrival), self.longest(&arrival));
        let config = &*self.config;
        let names_us = |uri: &Uri<'_>| naming::is_our_listener(config, uri.host, uri.port);
        let context = RegisterContext {
            now: self.now,
            source: arrival.source,
            source_ip: arrival.remote.ip(),
            config,
            names_us: &names_us,
            random: self.rng.next_u64(),
            longest,
            answers: arrival.answers,
            user: arrival.mark(),
            client_hash: is_known.then_some(&self.placement),
            gruu_key: &self.gruus,
            flow_timer: flow_timer(arrival.transport(), &config.limits),
            is_repeated,
        };
        let mut outcome = std::mem::take(&mut self.scratch.registered);
        let result = register(&mut self.location, message, &context, &mut outcome);
        match result {
            Ok(()) => {
                self.counters.registrations += u64::from(!is_repeated);
                self.counters.registrations_repeated += u64::from(is_repeated);
                self.index_contacts(arrival.source, &outcome);
                self.on_came(arrival.source, &outcome.came);
                self.take_path(outcome.claim.take());
                let stored = self.store_changes();
                self.answer_when_stored(tx, message, outcome.headers(), stored);
                self.wake(arrival.source, &outcome.came);
                self.await_no_longer(&outcome.left);
                self.arm_expiry();
                self.arm_pings();
            }
            Err(reject) if reject.status == 401 => {
                self.challenge_again(tx, message, arrival.source);
            }
            Err(reject) => {
                self.answer(tx, message, reject.status, reject.phrase, outcome.headers());
            }
        }
        self.scratch.registered = outcome;
        Ok(())
    }

    /// A registrar behind us answered a REGISTER with 2xx: what it says of the client's Contacts is
    /// kept beside the flow that they were registered on, and whose the flow is. Returns who came
    /// and who left by that: what waits for them goes on when they have heard the answer.
    pub(super) fn keep_shadow(
        &mut self,
        tx: SlabKey,
        request: Message<'_>,
        response: Message<'_>,
    ) -> Option<Moves> {
        let transaction = self.transactions.server.get(tx)?;
        let arrival = transaction.arrival.clone();
        let is_away = transaction.orphaned || transaction.lost;
        let sender = Sender::of(&self.config, &arrival);
        if is_away || sender.is_upstream() {
            return None;
        }
        let is_known = self.may_register_elsewhere(&arrival, sender);
        let config = std::sync::Arc::clone(&self.config);
        let context = RegisterContext {
            now: self.now,
            source: arrival.source,
            source_ip: arrival.remote.ip(),
            config: &config,
            names_us: &|_| false,
            random: self.rng.next_u64(),
            gruu_key: &self.gruus,
            longest: None,
            answers: None,
            user: UserMark::NONE,
            client_hash: is_known.then_some(&self.placement),
            flow_timer: None,
            is_repeated: false,
        };
        let mut outcome = std::mem::take(&mut self.scratch.registered);
        let kept = shadow(&mut self.location, request, response, &context, &mut outcome);
        self.counters.bindings_shadowed += kept.added as u64;
        self.counters.shadows_refused += kept.refused as u64;
        if kept.added > 0 {
            let aor = admission::vouched(&self.placement, outcome.aor());
            self.vouch(arrival.source, aor);
        } else if let Some(flow) = arrival.source.stream() {
            self.disown(flow, outcome.aor());
        }
        self.index_contacts(arrival.source, &outcome);
        self.on_came(arrival.source, &outcome.came);
        self.store_changes();
        let moves = Moves {
            source: arrival.source,
            came: std::mem::take(&mut outcome.came),
            left: std::mem::take(&mut outcome.left),
        };
        self.scratch.registered = outcome;
        self.arm_expiry();
        self.arm_pings();
        Some(moves)
    }

    /// The clients of a REGISTER have heard its answer.
    pub(super) fn follow_moves(&mut self, moves: &Moves) {
        self.wake(moves.source, &moves.came);
        self.await_no_longer(&moves.left);
    }

    /// Which client a REGISTER for a registrar behind us says that its sender is.
    pub(super) fn registrant(
        &mut self,
        message: Message<'_>,
        arrival: &Arrival,
        sender: Sender,
    ) -> ClientKey {
        let is_register = message.method() == Method::Register;
        let is_own = is_register && !message.has_many(HeaderName::Via);
        if !is_own || !self.may_register_elsewhere(arrival, sender) {
            return ClientKey::NONE;
        }
        let to = message.to().ok().and_then(|to| Uri::parse(to.uri).ok());
        let Some(uri) = to else { return ClientKey::NONE };
        let aor = &mut self.scratch.key;
        aor.clear();
        uri.aor_into(aor);
        claimed_client(&self.placement, aor, message)
    }

    /// Whether it is a client on a flow that it can lose, and is given time to come back, if a
    /// registrar behind us says who it is.
    fn may_register_elsewhere(&self, arrival: &Arrival, sender: Sender) -> bool {
        let has_flow = arrival.accepted && arrival.source.stream().is_some();
        has_flow && !sender.is_upstream() && !self.config.registrar.grace.is_zero()
    }

    /// Whose a flow is by the word of a registrar behind us. A datagram's source proves nothing.
    fn vouch(&mut self, source: FlowRef, aor: u32) {
        let Some(flow) = source.stream() else { return };
        self.tell_vouched(flow, aor, false);
    }

    /// The registrar behind us has, on that flow, no Contact of the address of record any more.
    fn disown(&mut self, flow: FlowId, aor: &[u8]) {
        let has_one = |binding: &Binding| binding.stream() == Some(flow);
        if !self.location.lookup(aor, self.now).any(has_one) {
            self.tell_vouched(flow, admission::vouched(&self.placement, aor), true);
        }
    }

    fn tell_vouched(&mut self, flow: FlowId, aor: u32, ended: bool) {
        if flow.shard() == self.shard {
            return self.on_vouched(flow, aor, ended);
        }
        let message = LinkMessage::Vouched { flow, aor, ended };
        self.outputs.push_back(Output::Link { to: flow.shard(), message });
    }

    pub(super) fn on_vouched(&mut self, flow: FlowId, aor: u32, ended: bool) {
        match ended {
            false => self.flows.vouch(flow, aor),
            true => self.flows.vouch_no_longer(flow, aor),
        }
    }

    /// How long a binding may be granted at most to who came by a token.
    fn longest(&self, arrival: &Arrival) -> Option<Duration> {
        match &arrival.standing {
            Standing::Proven(identity) | Standing::Pinned(identity) => self.token_left(identity),
            _ => None,
        }
    }

    /// Whether it is somebody who proved who it is and is given time to come back.
    fn may_be_lost(&self, arrival: &Arrival) -> bool {
        let is_user = matches!(Sender::of(&self.config, arrival), Sender::User);
        is_user && arrival.accepted && !self.config.registrar.grace.is_zero()
    }

    /// Keeps the index by host and port in step with the bindings.
    fn index_contacts(&mut self, source: FlowRef, outcome: &Registered) {
        let is_same = outcome.added().next().is_none() && outcome.removed().next().is_none();
        if is_same || self.config.upstreams.is_empty() {
            return;
        }
        let owner = self.placement.of(outcome.aor());
        for contact in outcome.removed() {
            self.index_contact(contact, owner, None);
        }
        for contact in outcome.added() {
            self.index_contact(contact, owner, Some(source));
        }
    }

    /// Notes where the Contact can be reached now; without a flow: nowhere.
    pub(super) fn index_contact(&mut self, contact: &[u8], owner: u64, flow: Option<FlowRef>) {
        let Some(host) = index_host(contact) else { return };
        let entry = Entry::Contact { contact: contact.into(), owner, flow };
        self.change_index_at(host, entry, flow.is_some());
    }

    /// A client that answers no pings is not there any more.
    pub(super) fn end_unanswered(&mut self, key: SlabKey) {
        let mut gone = Vec::new();
        self.location.give_up(key, |binding| gone.extend(indexed(binding)));
        self.counters.bindings_unanswered += 1;
        self.store_changes();
        self.forget_contacts(gone);
    }

    /// A client shows that it is at the other end of an association on which it was not before:
    /// whoever was there is told apart at every shard, since each owns other addresses of record.
    fn take_path(&mut self, claim: Option<PathClaim>) {
        let Some(claim) = claim else { return };
        for to in (0..self.shards).map(ShardId).filter(|to| *to != self.shard) {
            let message = LinkMessage::PathTaken(Box::new(claim.clone()));
            self.outputs.push_back(Output::Link { to, message });
        }
        self.end_others(&claim);
    }

    /// The same, said by the shard that owns that client's address of record.
    pub(super) fn on_path_taken(&mut self, claim: &PathClaim) {
        self.end_others(claim);
        self.store_changes();
    }

    fn end_others(&mut self, claim: &PathClaim) {
        self.note_tenant(claim);
        self.storing.note_claim(claim, self.now);
        self.end_claimed(claim);
    }

    /// Somebody is at an address for datagrams.
    pub(super) fn note_tenant(&mut self, claim: &PathClaim) {
        self.tenants.note(claim, user_of(&self.placement, claim.aor()));
    }

    /// Ends the bindings of this shard that lead to the client of a claim, who is not meant. Every
    /// shard is told whose they were: it may have forgotten that they were there, or not know yet.
    pub(super) fn end_claimed(&mut self, claim: &PathClaim) {
        let (mut gone, mut left) = (Vec::new(), Vec::new());
        let (now, hash) = (self.now, &self.placement);
        let ended = self.location.end_others(claim, now, |it| {
            gone.extend(indexed(it));
            left.push(user_of(hash, it.aor()));
        });
        self.counters.bindings_path_taken += ended as u64;
        self.forget_contacts(gone);
        for aor in left {
            self.tenants.leave(claim, aor);
            for to in (0..self.shards).map(ShardId).filter(|to| *to != self.shard) {
                let message = LinkMessage::PathLeft { claim: Box::new(claim.clone()), aor };
                self.outputs.push_back(Output::Link { to, message });
            }
        }
    }

    /// The flow is gone, and with it the bindings that need it. To a process that ends nobody comes
    /// back.
    pub(super) fn unbind_flow(&mut self, flow: FlowId) {
        let mut gone = Vec::new();
        let Registrar { grace, contacts_max, .. } = self.config.registrar;
        let until = self.now + grace;
        let is_awaited = !grace.is_zero() && !self.draining;
        let grace = is_awaited.then_some(Grace { now: self.now, until, most: contacts_max });
        let lost = self.location.remove_flow(flow, grace, |binding| gone.extend(indexed(binding)));
        self.counters.bindings_flow_closed += lost.removed as u64;
        self.counters.bindings_suspended += lost.suspended as u64;
        self.store_losses();
        self.forget_contacts(gone);
        if lost.suspended > 0 {
            self.arm_expiry();
        }
    }

    /// Removes at most `max` bindings whose time is over.
    pub(super) fn expire_bindings(&mut self, max: usize) {
        let mut gone = Vec::new();
        let mut lost = 0;
        let mut disowned = Vec::new();
        let removed = self.location.expire(self.now, max, |binding| {
            if let Some(flow) = binding.stream().filter(|_| binding.is_shadow()) {
                disowned.push((flow, binding.aor().to_vec()));
            }
            match binding.is_suspended() {
                // It left the index with its flow.
                true => lost += 1,
                false => gone.extend(indexed(binding)),
            }
        });
        self.counters.bindings_expired += removed as u64 - lost;
        self.counters.bindings_flow_closed += lost;
        self.store_losses();
        self.forget_contacts(gone);
        for (flow, aor) in disowned {
            self.disown(flow, &aor);
        }
    }

    pub(super) fn forget_contacts(&mut self, gone: Vec<Gone>) {
        if self.config.upstreams.is_empty() {
            return;
        }
        for Gone { contact, aor } in gone {
            let owner = self.placement.of(&aor);
            self.index_contact(&contact, owner, None);
        }
    }

    /// Has the alarm ring when the next binding expires.
    pub(super) fn arm_expiry(&mut self) {
        let Some(next) = self.location.next_expiry() else { return };
        // What is left of a bounded look comes with the next call, not within this one.
        let at = next.max(self.now + Duration::from_millis(1));
        if self.expiry_alarm.is_some_and(|(armed, _)| armed <= at) {
            return;
        }
        if let Some((_, id)) = self.expiry_alarm.take() {
            self.wheel.cancel(id);
        }
        self.expiry_alarm = Some((at, self.wheel.arm(at, Alarm::Expiry)));
    }
}

/// What the index knew of a binding that is gone.
pub(super) struct Gone {
    contact: Vec<u8>,
    aor: Vec<u8>,
}

fn user_of(hash: &KeyedHash, aor: &[u8]) -> u32 {
    ClientKey::of_user(hash.of(aor)).of_aor()
}

pub(super) fn indexed(binding: &Binding) -> Option<Gone> {
    if !binding.is_indexed() {
        return None;
    }
    let uri = Uri::parse(binding.contact()).ok()?;
    let mut contact = Vec::new();
    crate::registrar::canonical_contact(&uri, &mut contact);
    Some(Gone { contact, aor: binding.aor().to_vec() })
}

/// `host:port` of a canonical contact, as the index is keyed.
fn index_host(contact: &[u8]) -> Option<Vec<u8>> {
    let text = [b"sip:", contact].concat();
    let uri = Uri::parse(&text).ok()?;
    let mut host = Vec::new();
    place::index_key(&uri, &mut host);
    Some(host)
}

/// RFC 5626 §4.4: how long a client may stay silent. Over WebSocket our own pings are the
/// keep-alive, so generously. Over TCP and TLS it needs to be told only when its usual interval of
/// up to 120 s would be too long for us: a fifth is for delays on the way.
fn flow_timer(transport: Transport, limits: &Limits) -> Option<u32> {
    const USUAL: Duration = Duration::from_secs(120);
    let idle = limits.idle_timeout * 4 / 5;
    let (time, least) = match transport {
        Transport::Udp => return None,
        Transport::Ws | Transport::Wss => (limits.ping_interval + limits.pong_timeout, 30),
        Transport::Tcp | Transport::Tls if idle >= USUAL => return None,
        Transport::Tcp | Transport::Tls => (idle, 1),
    };
    Some(u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(least))
}
