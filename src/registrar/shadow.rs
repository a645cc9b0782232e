//! Shadow bindings: what a registrar behind us has accepted, kept beside the flow that it was asked
//! on (RFC 3327 §5.2, RFC 5626 §5.1). They make us know whose flow it is, how long, and where its
//! Contact is found; which Contacts there are at all is the registrar's to say. Absent on purpose:
//! rules of registration, which are that registrar's, and the answer, which is its own.

use smallvec::SmallVec;

use crate::base::limits::{BINDING_BYTES_MAX, VALUES_MAX};
use crate::sip::{HeaderName, Message};

use super::contact::{EXPIRES_IF_MALFORMED, Wanted};
use super::location::Location;
use super::plan::{Change, Plan};
use super::register::{RegisterContext, Registered, Sender};

/// How many Contacts of a REGISTER that a registrar behind us accepted could be kept, and how many
/// found no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shadowed {
    /// Bindings that are new, or are reached on another flow than before.
    pub added: usize,
    /// Contacts that the table, or the share of one flow in it, had no room for.
    pub refused: usize,
}

/// Takes over what the 2xx `response` says of the Contacts of its REGISTER: each that the response
/// lists stays as long as that says, each that it does not list is gone, with `*` all are (RFC 3261
/// §10.2.2, §10.2.4). Contacts that other requests registered are left alone: their own responses
/// may have overtaken this one, and so may those of later REGISTERs of the same Contact (§10.3 step
/// 7). A REGISTER that came through another proxy leaves nothing, since
/// its flow is not its client's.
pub fn shadow(
    location: &mut Location,
    request: Message<'_>,
    response: Message<'_>,
    context: &RegisterContext<'_>,
    out: &mut Registered,
) -> Shadowed {
    out.clear();
    let mut shadowed = Shadowed::default();
    let Some(sender) = Sender::of_shadow(request, context, out) else { return shadowed };
    out.aor_hash = location.owner(&out.aor).hash;
    let is_all = request.values(HeaderName::Contact).any(|value| value.text == b"*");
    let plan = match is_all {
        true => Plan::of_all(&sender, location, out),
        false => plan(&sender, response, location, out, &mut shadowed),
    };
    plan.commit(&sender, location, out);
    shadowed
}

fn plan<'a>(
    sender: &Sender<'a>,
    response: Message<'_>,
    location: &Location,
    out: &Registered,
    shadowed: &mut Shadowed,
) -> Plan<'a> {
    let listed = Listed::read(response);
    let mut plan = Plan::default();
    let flow = sender.context.source.stream();
    for value in sender.request.values(HeaderName::Contact).take(VALUES_MAX) {
        let Ok(wanted) = Wanted::parse(value.text) else { continue };
        let seconds = listed.seconds(&wanted).unwrap_or_default();
        plan.forget_repeated(&wanted);
        let meant = plan.unclaimed(location, &wanted, out);
        if meant.iter().any(|key| sender.is_overtaken(location.get(*key))) {
            continue;
        }
        let is_new = meant.is_empty();
        let has_room = |added: usize| {
            location.room() > added
                && flow.is_none_or(|flow| location.has_flow_room(flow, added + 1))
        };
        let bytes = out.aor.len() + value.text.len() + sender.call_id.len();
        if seconds > 0 && (bytes + 1 > BINDING_BYTES_MAX || is_new && !has_room(shadowed.added)) {
            shadowed.refused += 1;
            continue;
        }
        let is_elsewhere = || meant.iter().all(|key| location.get(*key).stream() != flow);
        shadowed.added += usize::from(seconds > 0 && (is_new || is_elsewhere()));
        plan.push(Change { wanted, seconds, meant });
    }
    plan
}

/// The Contacts of a 2xx to REGISTER.
struct Listed<'a> {
    contacts: SmallVec<[Wanted<'a>; 4]>,
    /// Of the Expires header field, for Contacts without a parameter (RFC 3261 §10.2.4).
    expires: u32,
}

impl<'a> Listed<'a> {
    fn read(response: Message<'a>) -> Listed<'a> {
        let values = response.values(HeaderName::Contact).take(VALUES_MAX);
        let contacts = values.filter_map(|value| Wanted::parse(value.text).ok()).collect();
        let expires = response.expires().ok().flatten().unwrap_or(EXPIRES_IF_MALFORMED);
        Listed { contacts, expires }
    }

    /// How long the registrar keeps that Contact; `None` when it does not.
    fn seconds(&self, wanted: &Wanted<'_>) -> Option<u64> {
        let found = self.contacts.iter().find(|listed| listed.repeats(wanted))?;
        Some(u64::from(found.expires.unwrap_or(self.expires)))
    }
}
