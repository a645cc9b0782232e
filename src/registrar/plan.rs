//! What a REGISTER is going to change (RFC 3261 §10.3 steps 6 and 7): made while everything can still be refused,
//! then carried out without a way to fail. Absent on purpose: the answer.

use std::time::Duration;

use smallvec::SmallVec;

use crate::base::config::Registrar;
use crate::base::id::{FlowId, FlowRef};
use crate::base::limits::VALUES_MAX;
use crate::base::slab::SlabKey;
use crate::sip::{HeaderName, Scheme, Uri};

use super::answer::number_line;
use super::binding::{BINDING_BYTES_MAX, Binding, DraftParts, Facts, Way};
use super::contact::{ContactError, Wanted, canonical_contact};
use super::location::Location;
use super::register::{Registered, Reject, Sender, reject};

/// Expiries above this are granted up to a tenth shorter, so that clients that came at once do not return at once.
const SPREAD_ABOVE_SECONDS: u64 = 600;
/// Retry-After of a table that is full, in seconds.
const RETRY_AFTER_SECONDS: u64 = 30;
/// Requests for less than this may be refused as too brief (RFC 3261 §10.3 step 7).
const BRIEF_SECONDS: u64 = 3600;

/// The changes of one REGISTER.
#[derive(Default)]
pub(super) struct Plan<'a> {
    changes: SmallVec<[Change<'a>; 2]>,
    /// Bindings that go without a Contact of their own (`*`).
    removals: SmallVec<[SlabKey; 2]>,
}

/// One Contact value's effect.
struct Change<'a> {
    wanted: Wanted<'a>,
    /// Granted; 0 removes.
    seconds: u64,
    /// The bindings that it means, claimed by no other change.
    meant: SmallVec<[SlabKey; 2]>,
}

impl<'a> Plan<'a> {
    /// `Contact: *`.
    pub(super) fn remove_all(
        sender: &Sender<'a>,
        location: &Location,
        out: &mut Registered,
    ) -> Result<Plan<'a>, Reject> {
        let mut plan = Plan::default();
        let mut is_late = false;
        for (key, binding) in location.of_aor(&out.aor) {
            is_late |= binding.is_live(sender.context.now) && !sender.may_change(binding);
            plan.removals.push(key);
        }
        if is_late { Err(out_of_order(sender, out)) } else { Ok(plan) }
    }

    /// Contact values.
    pub(super) fn of_contacts(
        sender: &Sender<'a>,
        location: &Location,
        out: &mut Registered,
    ) -> Result<Plan<'a>, Reject> {
        let settings = &sender.context.config.registrar;
        let values_max = (settings.contacts_max.max(1) * 2).min(VALUES_MAX);
        let mut plan = Plan::default();
        for (index, value) in sender.request.values(HeaderName::Contact).enumerate() {
            if index == values_max {
                return Err(reject(sender.context, 400, "Too many Contacts", out));
            }
            let wanted = read_contact(sender, value.text, out)?;
            let seconds = grant(sender, &wanted, out)?;
            if seconds > 0 && (sender.context.names_us)(&wanted.uri) {
                return Err(reject(sender.context, 400, "Contact names this server", out));
            }
            plan.changes.retain(|earlier| !earlier.wanted.repeats(&wanted));
            plan.add(sender, location, wanted, seconds, out)?;
        }
        plan.check(sender, location, out)?;
        Ok(plan)
    }

    /// Whether a reg-id was understood in it.
    pub(super) fn has_reg_id(&self) -> bool {
        self.changes.iter().any(|change| change.wanted.reg_id != 0)
    }

    fn add(
        &mut self,
        sender: &Sender<'a>,
        location: &Location,
        wanted: Wanted<'a>,
        seconds: u64,
        out: &mut Registered,
    ) -> Result<(), Reject> {
        let mut meant = SmallVec::new();
        let mut is_late = false;
        for (key, binding) in location.of_aor(&out.aor) {
            if !binding.is_live(sender.context.now) || !wanted.means(binding) {
                continue;
            }
            is_late |= !sender.may_change(binding);
            if !self.changes.iter().any(|earlier| earlier.meant.contains(&key)) {
                meant.push(key);
            }
        }
        if is_late {
            return Err(out_of_order(sender, out));
        }
        self.changes.push(Change { wanted, seconds, meant });
        Ok(())
    }

    /// The rules about all Contacts together.
    fn check(
        &self,
        sender: &Sender<'a>,
        location: &Location,
        out: &mut Registered,
    ) -> Result<(), Reject> {
        let context = sender.context;
        let lasting = || self.changes.iter().filter(|change| change.seconds > 0);
        if lasting().count() > 1 && lasting().any(|change| change.wanted.reg_id != 0) {
            return Err(reject(context, 400, "More than one Contact with a reg-id", out));
        }
        let new = lasting().filter(|change| change.meant.is_empty()).count();
        if new == 0 {
            return Ok(());
        }
        let live = location.lookup(&out.aor, context.now).count();
        let gone: usize = self.changes.iter().map(|change| change.meant.len()).sum();
        if live - gone + lasting().count() > context.config.registrar.contacts_max {
            return Err(reject(context, 403, "Too many bindings", out));
        }
        if location.room() < new {
            number_line("Retry-After", RETRY_AFTER_SECONDS, &mut out.headers);
            return Err(reject(context, 500, "Location table full", out));
        }
        Ok(())
    }

    /// Makes the changes.
    pub(super) fn commit(self, sender: &Sender<'_>, location: &mut Location, out: &mut Registered) {
        let mut former: SmallVec<[FlowId; 2]> = SmallVec::new();
        let meant = self.changes.iter().flat_map(|change| change.meant.iter());
        for key in meant.chain(&self.removals) {
            former.extend(location.get(*key).stream());
        }
        for key in self.removals {
            remove(location, key, out);
        }
        for change in &self.changes {
            let mut meant = change.meant.iter().copied();
            if change.seconds > 0 {
                keep(sender, location, change, meant.next(), out);
            }
            for key in meant {
                remove(location, key, out);
            }
        }
        former.sort_unstable();
        former.dedup();
        former.retain(|flow| !location.holds_flow(*flow));
        out.released = former;
    }
}

/// Reads a Contact value and drops a reg-id that does not count (RFC 5626 §6).
fn read_contact<'a>(
    sender: &Sender<'a>,
    text: &'a [u8],
    out: &mut Registered,
) -> Result<Wanted<'a>, Reject> {
    let context = sender.context;
    let mut wanted = Wanted::parse(text).map_err(|error| {
        let why = match error {
            ContactError::Syntax(error) => error.kind.phrase(),
            ContactError::Q => "Malformed q in Contact",
        };
        reject(context, 400, why, out)
    })?;
    if wanted.reg_id != 0 && !sender.takes_outbound {
        if sender.supports_outbound {
            return Err(reject(context, 439, "First hop lacks outbound support", out));
        }
        wanted.reg_id = 0;
    }
    let bytes = out.aor.len() + out.path.len() + text.len() + sender.call_id.len();
    // One byte for the semicolon that parameters may lack before them.
    if bytes + 1 > BINDING_BYTES_MAX {
        return Err(reject(context, 400, "Contact, Call-ID and Path too long", out));
    }
    Ok(wanted)
}

/// The seconds that a Contact is granted; 0 when it is to be removed.
fn grant(sender: &Sender<'_>, wanted: &Wanted<'_>, out: &mut Registered) -> Result<u64, Reject> {
    let context = sender.context;
    let Registrar { expires_default, expires_min, expires_max, .. } = context.config.registrar;
    let requested = match wanted.expires.or(sender.expires) {
        Some(seconds) => u64::from(seconds),
        None => expires_default.as_secs(),
    };
    if requested == 0 {
        return Ok(0);
    }
    if requested < expires_min.as_secs() && requested < BRIEF_SECONDS {
        number_line("Min-Expires", expires_min.as_secs(), &mut out.headers);
        return Err(reject(context, 423, "Expiry too brief", out));
    }
    let granted = requested.min(expires_max.as_secs().max(1));
    if granted <= SPREAD_ABOVE_SECONDS {
        return Ok(granted);
    }
    Ok(granted - context.random % (granted / 10 + 1))
}

fn out_of_order(sender: &Sender<'_>, out: &mut Registered) -> Reject {
    reject(sender.context, 500, "CSeq not higher than before", out)
}

/// Adds the binding of a Contact or changes the one that it means.
fn keep(
    sender: &Sender<'_>,
    location: &mut Location,
    change: &Change<'_>,
    meant: Option<SlabKey>,
    out: &mut Registered,
) {
    fill_draft(sender, &change.wanted, out);
    let start = out.contacts.len();
    let is_indexed = !sender.context.config.is_our_domain(change.wanted.uri.host)
        && canonical_contact(&change.wanted.uri, &mut out.contacts);
    let contact = start..out.contacts.len();
    let contact_hash = is_indexed.then(|| location.hash_of(&out.contacts[contact.clone()]));
    let facts = facts(sender, change, location.hash_of(&out.aor), contact_hash);
    if let Some(flow) = facts.way.stream() {
        out.bound = Some(flow);
    }
    let is_same = match meant {
        Some(key) => {
            let former = location.get(key);
            let is_same = former.facts.contact_hash == contact_hash;
            if !is_same {
                note_removed(former, out);
            }
            location.update(key, &out.draft, facts);
            is_same
        }
        None => {
            location.add(&out.draft, facts).expect("room was checked");
            false
        }
    };
    if is_same {
        out.contacts.truncate(start);
    } else if is_indexed {
        out.added.push(contact);
    }
}

fn remove(location: &mut Location, key: SlabKey, out: &mut Registered) {
    note_removed(location.get(key), out);
    location.remove(key);
}

fn note_removed(binding: &Binding, out: &mut Registered) {
    if !binding.is_indexed() {
        return;
    }
    let start = out.contacts.len();
    let uri = Uri::parse(binding.contact()).expect("it was parsed when it was registered");
    canonical_contact(&uri, &mut out.contacts);
    out.removed.push(start..out.contacts.len());
}

fn fill_draft(sender: &Sender<'_>, wanted: &Wanted<'_>, out: &mut Registered) {
    out.params.clear();
    let instance = wanted.params_into(&mut out.params);
    out.draft.fill(&DraftParts {
        aor: &out.aor,
        contact: wanted.address.uri,
        call_id: sender.call_id,
        params: &out.params,
        instance,
        path: &out.path,
    });
}

fn facts(
    sender: &Sender<'_>,
    change: &Change<'_>,
    aor_hash: u64,
    contact_hash: Option<u64>,
) -> Facts {
    let wanted = &change.wanted;
    let ob = wanted.uri.param("ob").is_some();
    let (way, dialable) = way(sender, wanted, ob);
    let context = sender.context;
    Facts {
        aor_hash,
        contact_hash,
        expires_at: context.now + Duration::from_secs(change.seconds),
        bucket: 0,
        way,
        cseq: sender.cseq,
        reg_id: wanted.reg_id,
        q: wanted.q,
        listener: context.source.listener(),
        transport: context.source.transport(),
        ob,
        dialable,
    }
}

/// How requests get to a Contact, and whether it can be dialled when its stream flow has ended. A Contact on
/// another host than its source is delivered on the flow all the same, unless the configuration wants it
/// resolved: address translation is the rule. What was registered through another hop is never delivered on
/// that hop's flow.
fn way(sender: &Sender<'_>, wanted: &Wanted<'_>, ob: bool) -> (Way, bool) {
    let context = sender.context;
    if sender.has_path || !sender.is_direct {
        return (Way::Path, false);
    }
    let keeps_flow = wanted.reg_id != 0 || ob;
    let is_own = wanted.uri.host_ip() == Some(context.source_ip);
    let is_websocket = context.source.transport().is_websocket();
    let is_foreign = context.config.registrar.foreign_contacts && is_resolvable(&wanted.uri);
    if is_foreign && !is_own && !keeps_flow && !is_websocket {
        return (Way::Path, false);
    }
    match context.source {
        FlowRef::Stream(stream) => {
            (Way::Stream(stream.flow), is_own && !keeps_flow && !is_websocket)
        }
        FlowRef::Datagram(_) if is_own && !keeps_flow && is_sent_by_source(sender) => {
            (Way::Dial, false)
        }
        FlowRef::Datagram(path) => (Way::Datagram(Box::new(path)), false),
    }
}

/// Whether a Contact can be meant to be resolved at all.
fn is_resolvable(uri: &Uri<'_>) -> bool {
    const INVALID: &[u8] = b".invalid";
    let is_sip = matches!(uri.scheme, Scheme::Sip | Scheme::Sips);
    let start = uri.host.len().saturating_sub(INVALID.len());
    let is_websocket = uri.param("transport").flatten().is_some_and(|transport| {
        transport.eq_ignore_ascii_case(b"ws") || transport.eq_ignore_ascii_case(b"wss")
    });
    is_sip && !is_websocket && !uri.host[start..].eq_ignore_ascii_case(INVALID)
}

/// Whether the client's Via names the address that its datagram came from: no translation in between.
fn is_sent_by_source(sender: &Sender<'_>) -> bool {
    let via = sender.request.top_via();
    via.is_ok_and(|via| via.sent_by_ip() == Some(sender.context.source_ip))
}
