//! May this sender say that (RFC 3261 §22, RFC 3325 §5)? In whose name a request speaks, and
//! whether it is admitted, challenged or refused. A decision only: proof was judged where the
//! request arrived, and challenges are written by whoever answers.

use crate::base::config::{Auth, Config, Strangers};
use crate::base::hash::KeyedHash;
use crate::base::limits::WRONG_PASSWORDS_PAUSE;
use crate::flow::arrival::Standing;
use crate::sip::{HeaderName, Message, NameAddr, ParseErrorKind, Scheme, Uri};

use super::validate::Reject;

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may go on.
    Admitted,
    /// Its sender must prove who it is; `stale` tells it that its password was right.
    Challenged {
        /// See RFC 7616 §3.3.
        stale: bool,
    },
    /// It is answered so.
    Refused(Reject),
}

/// The host of a From that hides who it is (RFC 3323 §4.1, RFC 3325 §9.2).
const ANONYMOUS: &[u8] = b"anonymous.invalid";

/// Whether a REGISTER for an address of record of ours may go on: only its owner changes it (RFC
/// 3261 §10.3 steps 3 and 4). `aor` is the sender's own, if it proved one.
pub fn register(
    config: &Config,
    message: Message<'_>,
    standing: &Standing,
    aor: Option<&[u8]>,
) -> Admission {
    if !config.auth.has_method() {
        return stranger(&config.auth);
    }
    let is_own = |uri: Uri<'_>| aor.is_some_and(|aor| is_aor(&uri, aor));
    let to = message.to().ok().and_then(|to| Uri::parse(to.uri).ok());
    match (standing, aor) {
        (_, Some(_)) if to.is_some_and(is_own) => Admission::Admitted,
        (Standing::Proven(_), Some(_)) => {
            Admission::Refused(Reject::because(403, "Not your address of record"))
        }
        _ => challenge(standing),
    }
}

/// Whether any other request may go on, of which no dialog token says so. Whoever shows the token of
/// one client, and `is_claimed` by it to be that one, proves it, although its From names another.
/// `hash` is the one that [`Standing::Vouched`] speaks of. Where passwords are asked for by a
/// registrar behind us alone, it is for the servers there to say in whose name its clients may
/// speak.
pub fn request(
    config: &Config,
    message: Message<'_>,
    standing: &Standing,
    aor: Option<&[u8]>,
    is_claimed: bool,
    hash: &KeyedHash,
) -> Admission {
    let auth = &config.auth;
    if !auth.has_method() {
        let is_known = matches!(standing, Standing::Vouched(_));
        return if is_known { Admission::Admitted } else { stranger(auth) };
    }
    let Some(names) = Names::read(config, message) else {
        return Admission::Refused(Reject::phrase(400, ParseErrorKind::Uri.phrase()));
    };
    let Some(aor) = aor else {
        return match standing {
            Standing::Vouched(owner) if names.are_all_of(message, *owner, hash) => {
                Admission::Admitted
            }
            Standing::Stale
            | Standing::Refused
            | Standing::BadToken(_)
            | Standing::Busy
            | Standing::PutOff
            | Standing::Malformed => challenge(standing),
            _ if names.is_ours || is_claimed => challenge(standing),
            _ => stranger(auth),
        };
    };
    if !auth.pin_identity || names.are_all(message, aor) {
        return Admission::Admitted;
    }
    match standing {
        // The client may be able to prove this name as well.
        Standing::Pinned(_) if names.is_ours => challenge(standing),
        _ => Admission::Refused(Reject::because(403, "Not your identity")),
    }
}

/// What [`Standing::Vouched`] says of a canonical address of record; never 0.
pub fn vouched(hash: &KeyedHash, aor: &[u8]) -> u32 {
    ((hash.of(aor) >> 32) as u32).max(1)
}

fn challenge(standing: &Standing) -> Admission {
    match standing {
        Standing::Malformed => Admission::Refused(Reject::phrase(400, "Malformed credentials")),
        Standing::Busy => {
            Admission::Refused(Reject::retry_after(500, 1, "Too many tokens to check"))
        }
        Standing::PutOff => {
            let why = "Too many wrong passwords from your address";
            Admission::Refused(Reject::retry_after(500, WRONG_PASSWORDS_PAUSE, why))
        }
        _ => Admission::Challenged { stale: *standing == Standing::Stale },
    }
}

fn stranger(auth: &Auth) -> Admission {
    match auth.strangers {
        Strangers::Route => Admission::Admitted,
        Strangers::Reject => Admission::Refused(Reject::because(403, "Strangers are not served")),
    }
}

/// In whose name a request speaks.
struct Names {
    /// One of the names is in a domain of ours: only its owner may bear it.
    is_ours: bool,
    /// From says nothing, on purpose.
    is_anonymous: bool,
}

impl Names {
    /// `None` when From cannot be read: who gets it might read a name of ours.
    fn read(config: &Config, message: Message<'_>) -> Option<Names> {
        let from = from(message)?;
        let is_here = |uri: &Uri<'_>| config.is_our_domain(uri.host);
        Some(Names {
            is_ours: is_here(&from) || preferred(message).flatten().any(|uri| is_here(&uri)),
            is_anonymous: from.host.eq_ignore_ascii_case(ANONYMOUS),
        })
    }

    /// Whether From names the address of record with that hash, and nobody else is preferred.
    fn are_all_of(&self, message: Message<'_>, owner: u32, hash: &KeyedHash) -> bool {
        let mut aor = Vec::new();
        let Some(from) = from(message) else { return false };
        from.aor_into(&mut aor);
        vouched(hash, &aor) == owner && self.are_all(message, &aor)
    }

    /// Whether every name is that address of record (RFC 3325 §9.2 for the preferred one).
    fn are_all(&self, message: Message<'_>, aor: &[u8]) -> bool {
        let is_own = |uri: Option<Uri<'_>>| uri.is_some_and(|uri| is_aor(&uri, aor));
        (self.is_anonymous || is_own(from(message))) && preferred(message).all(is_own)
    }
}

fn from<'a>(message: Message<'a>) -> Option<Uri<'a>> {
    message.from().ok().and_then(|from| Uri::parse(from.uri).ok())
}

/// The URIs of P-Preferred-Identity; `None` for what cannot be read.
fn preferred<'a>(message: Message<'a>) -> impl Iterator<Item = Option<Uri<'a>>> {
    message.values(HeaderName::PPreferredIdentity).map(|value| {
        let address = NameAddr::parse(value.text).ok()?;
        Uri::parse(address.uri).ok()
    })
}

/// Whether the URI's address of record is `aor`, in canonical form.
fn is_aor(uri: &Uri<'_>, aor: &[u8]) -> bool {
    if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
        return false;
    }
    let (Some(user), Some(at)) = (uri.user, memchr::memrchr(b'@', aor)) else { return false };
    let is_plain = !user.contains(&b'%');
    if is_plain && user == &aor[..at] && uri.host.eq_ignore_ascii_case(&aor[at + 1..]) {
        return true;
    }
    // Escapes: rare, so that the comparison above spares most requests the copy.
    let mut canonical = Vec::new();
    uri.aor_into(&mut canonical);
    canonical == aor
}
