//! A binding comes back from a store that outlived a former run (RFC 3261 §10: it is in force until
//! it expires). Absent on purpose: the store, and clocks: whoever asks tells the engine's time of
//! its expiry.

use std::net::SocketAddr;

use crate::base::config::Config;
use crate::base::hash::KeyedHash;
use crate::base::id::{ClientKey, DatagramPath, ListenerId, Transport};
use crate::base::time::Time;
use crate::base::users::UserMark;
use crate::sip::Uri;

use super::binding::{Binding, Draft, Facts, Tenure, Way};
use super::canonical_contact;
use super::client::client_key;
use super::location::Location;
use super::record::{Record, RecordError, Recorded};

/// Why a binding does not come back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotRestored {
    /// Its record is not understood.
    Record(RecordError),
    /// It is out of force.
    Expired,
    /// Its domain is not ours any more.
    Domain,
    /// Who registered it is not in the users file any more.
    User,
    /// Its client has registered again meanwhile.
    Superseded,
    /// The table is full.
    Full,
}

/// Puts the binding of a record back into the table that owns its address of record, under its name
/// in the store. What went by a stream flow is remembered without one. `clients` makes the keys of
/// clients that had proved who they are, if such are awaited.
pub fn restore<'a>(
    location: &'a mut Location,
    config: &Config,
    clients: Option<&KeyedHash>,
    now: Time,
    (id, expires_at): (u64, Time),
    bytes: &[u8],
) -> Result<&'a Binding, NotRestored> {
    let record = Record::read(bytes).map_err(NotRestored::Record)?;
    let expires_at = expires_at.min(now + config.registrar.expires_max);
    if expires_at <= now {
        return Err(NotRestored::Expired);
    }
    let host = record.aor.rsplit(|byte| *byte == b'@').next().unwrap_or_default();
    if !config.is_our_domain(host) {
        return Err(NotRestored::Domain);
    }
    let auth = &config.auth;
    if record.listed && auth.has_method() && auth.mark_of(record.aor).is_none() {
        return Err(NotRestored::User);
    }
    if location.of_aor(location.owner(record.aor)).any(|(_, ours)| is_same(ours, &record)) {
        return Err(NotRestored::Superseded);
    }
    let mut draft = Draft::default();
    draft.fill(&record.parts());
    let facts = facts(location, config, clients, (id, expires_at), &record);
    let key = location.restore(&draft, facts).ok_or(NotRestored::Full)?;
    Ok(location.get(key))
}

fn is_same(ours: &Binding, record: &Record<'_>) -> bool {
    let instance = record.instance.map(|(from, to)| &record.params[from..to]);
    match instance.filter(|_| record.reg_id != 0) {
        Some(instance) => ours.is_of_instance(instance, record.reg_id),
        None => ours.reg_id() == 0 && ours.contact() == record.contact,
    }
}

/// The client behind the flow that was lost: the key that it gets when it registers again.
fn client(hash: &KeyedHash, record: &Record<'_>) -> ClientKey {
    let instance = record.instance.filter(|_| record.reg_id != 0);
    let flow = instance.map(|(from, to)| (&record.params[from..to], record.reg_id));
    client_key(hash, record.aor, flow, record.contact)
}

fn facts(
    location: &Location,
    config: &Config,
    clients: Option<&KeyedHash>,
    (id, expires_at): (u64, Time),
    record: &Record<'_>,
) -> Facts {
    let listener = listener(config, record);
    let way = match (record.way, listener) {
        (Recorded::Path, _) => Way::Path,
        (Recorded::Dial, Some(_)) => Way::Dial,
        (Recorded::Datagram { local, remote }, Some(listener)) => {
            let bound = config.listener(listener).address;
            let local = if bound.ip().is_unspecified() { local } else { bound };
            Way::Datagram(Box::new(DatagramPath { listener, local, remote }))
        }
        (Recorded::Lost, _) | (_, None) => Way::Lost,
    };
    let uri = Uri::parse(record.contact).expect("a sound record has a Contact");
    let mut canonical = Vec::new();
    let is_indexed = way != Way::Lost
        && !config.is_our_domain(uri.host)
        && canonical_contact(&uri, &mut canonical);
    // Without a listener of its kind nobody can come back as it was.
    let is_awaited = way == Way::Lost && record.proved && listener.is_some();
    let client = clients.filter(|_| is_awaited).map(|hash| client(hash, record));
    Facts {
        client: client.unwrap_or_default(),
        id,
        aor_hash: location.owner(record.aor).hash,
        contact_hash: is_indexed.then(|| location.contact_hash(&canonical)),
        expires_at,
        bucket: 0,
        way,
        cseq: record.cseq,
        since: 0,
        registration: record.registration,
        reg_id: record.reg_id,
        q: record.q,
        listener: listener.unwrap_or(ListenerId(0)),
        transport: record.transport,
        ob: record.ob,
        tenure: if record.shadow { Tenure::Shadow } else { Tenure::Bound },
        missed: 0,
        user: if record.listed { UserMark::FORMER } else { UserMark::NONE },
    }
}

/// The listener that takes the place of the one that the REGISTER came to: of its transport, at its
/// address, else with its IP address, else of its family.
fn listener(config: &Config, record: &Record<'_>) -> Option<ListenerId> {
    let was = record.listener;
    let likeness = |is: SocketAddr| match () {
        () if is == was => 3,
        () if is.ip() == was.ip() => 2,
        () => u8::from(is.is_ipv4() == was.is_ipv4()),
    };
    let all = config.listeners.iter().enumerate();
    let fit = all.filter(|(_, it)| speaks(it.transport, record.transport));
    let rated = fit.map(|(at, it)| (likeness(it.address), at)).filter(|(rate, _)| *rate > 0);
    // The first of the best.
    let (_, at) = rated.max_by_key(|(rate, at)| (*rate, usize::MAX - at))?;
    u16::try_from(at).ok().map(ListenerId)
}

/// Whether a listener is one that a binding of that transport can have come to. Behind a load
/// balancer that ends TLS a WS listener has WSS bindings.
fn speaks(listener: Transport, binding: Transport) -> bool {
    listener == binding || (listener, binding) == (Transport::Ws, Transport::Wss)
}
