//! Carrying out what a REGISTER changes (RFC 3261 §10.3 step 7, RFC 5626 §6, RFC 5627 §5.1): bindings
//! that come, stay or go, and what the engine has to know of that. Absent on purpose: whether they may,
//! which `plan` has found out before the first of them changes.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::base::id::{ClientKey, Transport};
use crate::base::slab::SlabKey;
use crate::sip::Uri;

use super::binding::{Binding, BindingFlow, DraftParts, Facts, Tenure, Way, is_same_instance};
use super::contact::{Wanted, canonical_contact};
use super::location::{Location, Owner};
use super::lose::former;
use super::paths::seconds;
use super::plan::Change;
use super::register::{Came, Registered, Sender};
use super::way::way;

/// Adds the binding of a Contact or changes the one that it means. Whether its client is at an
/// address for datagrams at which the binding was not before.
pub(super) fn keep(
    sender: &Sender<'_>,
    location: &mut Location,
    change: &Change<'_>,
    meant: Option<SlabKey>,
    out: &mut Registered,
) -> bool {
    fill_draft(sender, &change.wanted, out);
    let contact_hash = contact_hash(sender, &change.wanted, location, meant, out);
    let (registration, ends_others) = registration(sender, &change.wanted, location, out.owner());
    if ends_others && let Some(instance) = change.wanted.instance {
        location.renumber(out.owner(), instance, registration);
    }
    let facts = facts(sender, change, out.aor_hash, contact_hash, registration);
    let facts = Facts { client: client(sender, &change.wanted, &facts.way, &out.aor), ..facts };
    if let Some(flow) = facts.way.stream() {
        out.bound = Some(flow);
    }
    if facts.client.is_some() {
        let former = meant.and_then(|key| former(location.get(key), &facts));
        out.came.push(Came { client: facts.client, former });
    }
    // What a Path leads to is never reached by the flow of its REGISTER.
    let has_path = matches!(facts.way, Way::Path);
    let is_by_datagrams = !has_path && facts.transport == Transport::Udp;
    let is_there = |key| location.get(key).is_reached_as(&facts.way, &out.draft);
    let is_elsewhere = is_by_datagrams && !meant.is_some_and(is_there);
    let is_same = match meant {
        Some(key) => {
            let former = location.get(key);
            let flow = former.flow();
            let is_other = former.facts.contact_hash != contact_hash;
            if is_other || has_path && flow != BindingFlow::Path {
                note_removed(former, out);
            }
            location.update(key, &out.draft, facts);
            !is_other && location.get(key).flow() == flow
        }
        None => {
            location.add(&out.draft, facts).expect("room was checked");
            false
        }
    };
    if !is_same && contact_hash.is_some() && !has_path {
        let start = out.contacts.len();
        canonical_contact(&change.wanted.uri, &mut out.contacts);
        out.added.push(start..out.contacts.len());
    }
    is_elsewhere
}

/// The hash under which a Contact can be found; `None` when it cannot. What was hashed before is not
/// hashed again.
fn contact_hash(
    sender: &Sender<'_>,
    wanted: &Wanted<'_>,
    location: &Location,
    meant: Option<SlabKey>,
    out: &mut Registered,
) -> Option<NonZeroU64> {
    if sender.context.config.is_our_domain(wanted.uri.host) {
        return None;
    }
    let former = meant.map(|key| location.get(key));
    let hashed = former.filter(|it| it.contact() == wanted.address.uri);
    if let Some(hash) = hashed.and_then(|former| former.facts.contact_hash) {
        return Some(hash);
    }
    let start = out.contacts.len();
    let is_sip = canonical_contact(&wanted.uri, &mut out.contacts);
    let hash = is_sip.then(|| location.contact_hash(&out.contacts[start..]));
    out.contacts.truncate(start);
    hash
}

/// Who registers, if it is the client itself, on a flow, and has proved it.
fn client(sender: &Sender<'_>, wanted: &Wanted<'_>, way: &Way, aor: &[u8]) -> ClientKey {
    let (Some(hash), Way::Stream(_)) = (sender.context.client_hash, way) else {
        return ClientKey::NONE;
    };
    wanted.client(hash, aor)
}

pub(super) fn remove(location: &mut Location, key: SlabKey, out: &mut Registered) {
    note_removed(location.get(key), out);
    out.left.extend(Some(location.get(key).client()).filter(|client| client.is_some()));
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

/// The number that all bindings of one instance share while the Call-IDs of its flows stay (RFC 5627
/// §4.1, §5.1), be it since a former run; and whether it is another than the instance had.
fn registration(
    sender: &Sender<'_>,
    wanted: &Wanted<'_>,
    location: &Location,
    owner: Owner<'_>,
) -> (u32, bool) {
    let Some(instance) = wanted.instance else { return (0, false) };
    let same = |binding: &&Binding| {
        binding.instance().is_some_and(|ours| is_same_instance(ours, instance))
    };
    let is_flow = |binding: &&Binding| wanted.reg_id == 0 || binding.reg_id() == wanted.reg_id;
    let mut newest = None;
    let mut all = location.live(owner, sender.context.now).filter(same);
    let former = all.find(|binding| {
        newest.get_or_insert(*binding);
        is_flow(binding)
    });
    let fresh = (sender.context.random >> 32) as u32;
    match (former, newest) {
        (Some(former), _) if former.call_id() != sender.call_id => (fresh, true),
        (Some(one), _) | (None, Some(one)) => (one.registration(), false),
        (None, None) => (fresh, false),
    }
}

fn facts(
    sender: &Sender<'_>,
    change: &Change<'_>,
    aor_hash: u64,
    contact_hash: Option<NonZeroU64>,
    registration: u32,
) -> Facts {
    let wanted = &change.wanted;
    let ob = wanted.uri.param("ob").is_some();
    let (way, dialable) = way(sender, wanted, ob);
    let context = sender.context;
    Facts {
        id: 0,
        aor_hash,
        contact_hash,
        expires_at: context.now + Duration::from_secs(change.seconds),
        bucket: 0,
        way,
        client: ClientKey::NONE,
        cseq: sender.cseq,
        since: seconds(context.now),
        registration,
        reg_id: wanted.reg_id,
        q: wanted.q,
        listener: context.source.listener(),
        transport: context.source.transport(),
        ob,
        tenure: match (sender.shadow, dialable) {
            (true, _) => Tenure::Shadow,
            (false, true) => Tenure::Dialable,
            (false, false) => Tenure::Bound,
        },
        missed: 0,
        user: context.user,
    }
}
