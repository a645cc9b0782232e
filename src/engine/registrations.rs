//! REGISTER at the shard that owns the address of record, and what the other rooms must know of its
//! bindings: when the next one expires, and at which host and port its client can be found.

use std::time::Duration;

use crate::base::id::FlowRef;
use crate::base::slab::SlabKey;
use crate::proxy::route::Sender;
use crate::proxy::{Reject, naming, place};
use crate::registrar::{Binding, RegisterContext, Registered, register};
use crate::sip::{HeaderName, Message, Uri};

use super::Engine;
use super::alarm::Alarm;
use super::index::Entry;

impl Engine {
    /// RFC 3261 §10.3, the domain being ours.
    pub(super) fn register(&mut self, tx: SlabKey, message: Message<'_>) -> Result<(), Reject> {
        let Some(transaction) = self.transactions.server.get(tx) else { return Ok(()) };
        let arrival = transaction.arrival;
        self.check_store_room()?;
        if message.header(HeaderName::Path).is_some()
            && !Sender::of(&self.config, &arrival).is_upstream()
        {
            // The route and Contact of such a binding would have the servers behind us, who trust
            // us, send requests wherever the client likes (RFC 3327 §6).
            return Err(Reject::because(403, "Paths are for servers"));
        }
        let config = std::sync::Arc::clone(&self.config);
        let names_us = |uri: &Uri<'_>| naming::is_our_listener(&config, uri.host, uri.port);
        let keeps_alive = arrival.transport().is_websocket();
        let context = RegisterContext {
            now: self.now,
            source: arrival.source,
            source_ip: arrival.remote.ip(),
            config: &config,
            names_us: &names_us,
            random: self.rng.next_u64(),
            gruu_key: &self.gruus,
            flow_timer: keeps_alive.then(|| flow_timer(&config.limits)),
        };
        let mut outcome = std::mem::take(&mut self.scratch.registered);
        let result = register(&mut self.location, message, &context, &mut outcome);
        match result {
            Ok(()) => {
                self.counters.registrations += 1;
                self.index_contacts(arrival.source, &outcome);
                let stored = self.store_changes();
                self.answer_when_stored(tx, message, outcome.headers(), stored);
                self.arm_expiry();
            }
            Err(reject) => {
                self.answer(tx, message, reject.status, reject.phrase, outcome.headers());
            }
        }
        self.scratch.registered = outcome;
        Ok(())
    }

    /// Keeps the index by host and port in step with the bindings.
    fn index_contacts(&mut self, source: FlowRef, outcome: &Registered) {
        if self.config.upstreams.is_empty() {
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

    /// The flow is gone, and with it the bindings that need it.
    pub(super) fn unbind_flow(&mut self, flow: crate::base::id::FlowId) {
        let mut gone = Vec::new();
        let removed = self.location.remove_flow(flow, |binding| gone.extend(indexed(binding)));
        self.counters.bindings_flow_closed += removed as u64;
        self.store_lost_flow();
        self.forget_contacts(gone);
    }

    /// Removes at most `max` bindings whose time is over.
    pub(super) fn expire_bindings(&mut self, max: usize) {
        let mut gone = Vec::new();
        let removed = self.location.expire(self.now, max, |binding| gone.extend(indexed(binding)));
        self.counters.bindings_expired += removed as u64;
        self.store_changes();
        self.forget_contacts(gone);
    }

    fn forget_contacts(&mut self, gone: Vec<Gone>) {
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
struct Gone {
    contact: Vec<u8>,
    aor: Vec<u8>,
}

fn indexed(binding: &Binding) -> Option<Gone> {
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

/// RFC 5626 §4.4.1: how long a client may stay silent: our own pings are the keep-alive, so
/// generously.
fn flow_timer(limits: &crate::base::limits::Limits) -> u32 {
    let seconds = (limits.ping_interval + limits.pong_timeout).as_secs();
    u32::try_from(seconds).unwrap_or(u32::MAX).max(30)
}
