//! Bindings that outlive the process: what changed in the table goes out as records, comes back
//! after a start, and, where the configuration wants it so, a REGISTER is answered 200 (RFC 3261
//! §10.3 step 8) when what it changed is durable. Absent on purpose: files (`io/store`).

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::base::config::{Config, Persistence};
use crate::base::id::FlowRef;
use crate::base::limits::{RESTORE_CLAIMS_MAX, RESTORE_TIME, STORE_WAIT_MAX, STORE_WAITERS_MAX};
use crate::base::slab::SlabKey;
use crate::base::time::Time;
use crate::base::wheel::TimerId;
use crate::proxy::Reject;
use crate::proxy::target::Hop;
use crate::registrar::{Binding, BindingFlow, PathClaim, canonical_contact, restore};
use crate::sip::{HeaderName, Message, Uri};

use super::Engine;
use super::alarm::Alarm;
use super::output::{Output, StoreChange};
use super::pick;

/// Retry-After of a REGISTER that the store is too slow for, in seconds.
const RETRY_AFTER_SECONDS: u32 = 5;

/// What waits for the store.
pub(super) struct Storing {
    persistence: Persistence,
    /// Number of the last change that went out. Each incarnation of the shard counts in a range of
    /// its own: what was durable for another one is not for this.
    serial: u64,
    /// Number of the last change that is durable.
    durable: u64,
    /// REGISTERs that wait, by serial and by time.
    held: VecDeque<Held>,
    alarm: Option<TimerId>,
    /// Who showed lately to be at an address, for bindings that are not back yet. Empty where none
    /// come back beside traffic.
    claims: VecDeque<PathClaim>,
    /// When all are back.
    claims_until: Time,
}

/// A REGISTER that is answered once the change of that serial is durable.
struct Held {
    serial: u64,
    tx: SlabKey,
    answer: Vec<u8>,
    until: Time,
}

impl Storing {
    pub(super) fn new(persistence: Persistence, incarnation: u8, now: Time) -> Storing {
        let serial = u64::from(incarnation) << 56;
        // Only a shard that failed reads the store while it serves.
        let reads = incarnation > 0 && persistence != Persistence::None;
        Storing {
            persistence,
            serial,
            durable: serial,
            held: VecDeque::new(),
            alarm: None,
            claims: VecDeque::new(),
            claims_until: if reads { now + RESTORE_TIME } else { now },
        }
    }

    /// Somebody is at an address: bindings that come back later are judged by that, too.
    pub(super) fn note_claim(&mut self, claim: &PathClaim, now: Time) {
        if now >= self.claims_until {
            self.claims = VecDeque::new();
            return;
        }
        if self.claims.len() == RESTORE_CLAIMS_MAX {
            self.claims.pop_front();
        }
        self.claims.push_back(claim.clone());
    }

    /// The change that must be durable before a REGISTER is answered that made the `stored` one.
    fn awaited(&self, message: Message<'_>, stored: Option<u64>) -> Option<u64> {
        if self.persistence != Persistence::Synchronous {
            return None;
        }
        let is_pending =
            || self.serial > self.durable && message.header(HeaderName::Contact).is_some();
        stored.or_else(|| is_pending().then_some(self.serial))
    }

    /// How many REGISTERs wait.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}

impl Engine {
    /// Tells the store what has changed in the table; the number of the last change, if there was
    /// any.
    pub(super) fn store_changes(&mut self) -> Option<u64> {
        let first = self.storing.serial;
        for (change, binding) in self.location.changes() {
            self.storing.serial += 1;
            let put = binding.map(|binding| {
                let start = self.arena.len();
                let listener = self.config.listeners.get(binding.listener().index());
                let address = listener.map_or(NO_ADDRESS, |listener| listener.address);
                binding.record_into(address, &mut self.arena);
                StoreChange::Put {
                    is_new: change.is_new,
                    expires_at: binding.expires_at(),
                    range: start..self.arena.len(),
                }
            });
            let (serial, id) = (self.storing.serial, change.id);
            let change = put.unwrap_or(StoreChange::Remove);
            self.outputs.push_back(Output::Store { serial, id, change });
        }
        self.location.forget_changes();
        self.counters.store_changes += self.storing.serial - first;
        (self.storing.serial > first).then_some(self.storing.serial)
    }

    /// Bindings ended, with their flow or because nobody came back. While the process ends that is our
    /// doing, and the next run remembers whom it knew.
    pub(super) fn store_losses(&mut self) {
        if self.draining {
            self.location.forget_changes();
        } else {
            self.store_changes();
        }
    }

    /// Whether one more REGISTER may wait for the store.
    pub(super) fn check_store_room(&mut self) -> Result<(), Reject> {
        if self.storing.held.len() < STORE_WAITERS_MAX {
            return Ok(());
        }
        self.counters.registrations_not_stored += 1;
        Err(too_slow())
    }

    /// Answers a REGISTER 200: at once, or when its change is durable. One that found nothing left
    /// to change waits for those who changed it; a query does not.
    pub(super) fn answer_when_stored(
        &mut self,
        tx: SlabKey,
        message: Message<'_>,
        lines: &[u8],
        stored: Option<u64>,
    ) {
        let Some(serial) = self.storing.awaited(message, stored) else {
            return self.answer(tx, message, 200, None, lines);
        };
        let Some(answer) = self.compose(tx, message, 200, None, lines) else { return };
        let until = self.now + STORE_WAIT_MAX;
        self.storing.held.push_back(Held { serial, tx, answer, until });
        self.arm_store();
    }

    /// Everything up to that change is durable.
    pub(super) fn on_stored(&mut self, serial: u64) {
        self.storing.durable = self.storing.durable.max(serial);
        while self.storing.held.front().is_some_and(|held| held.serial <= serial) {
            let Some(held) = self.storing.held.pop_front() else { break };
            if self.transactions.server.get(held.tx).is_none() {
                self.pool.put(held.answer);
                continue;
            }
            self.with_request(held.tx, |engine, message| {
                engine.answer_with(held.tx, message, 200, held.answer);
            });
        }
        if self.storing.held.is_empty()
            && let Some(id) = self.storing.alarm.take()
        {
            self.wheel.cancel(id);
        }
    }

    /// Those that have waited too long are told to come again: what they changed is in force, but
    /// nobody can promise that it lasts.
    pub(super) fn on_store_alarm(&mut self) {
        self.storing.alarm = None;
        while self.storing.held.front().is_some_and(|held| held.until <= self.now) {
            let Some(held) = self.storing.held.pop_front() else { break };
            self.pool.put(held.answer);
            self.counters.registrations_not_stored += 1;
            self.with_request(held.tx, |engine, message| {
                engine.answer_reject(held.tx, message, &too_slow());
            });
        }
        self.arm_store();
    }

    fn arm_store(&mut self) {
        if self.storing.alarm.is_some() {
            return;
        }
        if let Some(first) = self.storing.held.front() {
            self.storing.alarm = Some(self.wheel.arm(first.until, Alarm::Store));
        }
    }

    /// A binding of a former run.
    pub(super) fn on_restored(&mut self, id: u64, expires_at: Time, record: &[u8]) {
        let (config, now) = (&self.config, self.now);
        let grace = config.registrar.grace;
        let clients = (!grace.is_zero()).then_some(&self.placement);
        self.location.await_lost(now + grace);
        match restore(&mut self.location, config, clients, now, (id, expires_at), record) {
            Ok(binding) => {
                self.counters.bindings_restored += 1;
                let indexed = flow_of(binding, config)
                    .zip(canonical(binding))
                    .filter(|_| binding.is_indexed() && !config.upstreams.is_empty());
                let owner = self.placement.of(binding.aor());
                let taken = self.storing.claims.iter().find(|it| it.ends(binding)).cloned();
                if let Some((flow, contact)) = indexed {
                    self.index_contact(&contact, owner, Some(flow));
                }
                if let Some(claim) = taken {
                    self.end_claimed(&claim);
                    self.store_changes();
                }
                self.arm_expiry();
            }
            Err(_) => {
                self.counters.bindings_not_restored += 1;
                self.storing.serial += 1;
                let (serial, change) = (self.storing.serial, StoreChange::Remove);
                self.outputs.push_back(Output::Store { serial, id, change });
            }
        }
    }
}

/// Of a listener that the configuration does not have.
const NO_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

fn too_slow() -> Reject {
    Reject::retry_after(500, RETRY_AFTER_SECONDS, "The store is too slow")
}

/// Where a request for the Contact of a restored binding goes that names no address of record: its
/// datagram association. Streams are gone.
fn flow_of(binding: &Binding, config: &Config) -> Option<FlowRef> {
    match binding.flow() {
        BindingFlow::Flow(flow) => Some(flow),
        BindingFlow::Dial => match pick::dial(binding, config)? {
            Hop::Client(flow) => Some(flow),
            Hop::Dial { .. } | Hop::Lost(_) => None,
        },
        BindingFlow::Path | BindingFlow::Suspended(_) | BindingFlow::Lost => None,
    }
}

fn canonical(binding: &Binding) -> Option<Vec<u8>> {
    let uri = Uri::parse(binding.contact()).ok()?;
    let mut contact = Vec::new();
    canonical_contact(&uri, &mut contact).then_some(contact)
}
