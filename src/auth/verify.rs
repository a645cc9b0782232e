//! Digests against users (RFC 3261 §22.4, RFC 7616 §3.4.6, RFC 8760 §2.6), and the challenges
//! that ask for them. One [`Verifier`] a shard.
//!
//! A user that does not exist and a password that is wrong take the same steps, with the same
//! answer. The `uri` of credentials need not equal the Request-URI: clients and proxies differ
//! about it, RFC 8760 §2.6 item 6 permits it, and the replay that it would stop is stopped by the
//! nonce. Absent on purpose: where credentials are needed, and what a proven user may do.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::base::bearer::TokenFault;
use crate::base::config::{Config, Digest};
use crate::base::hash::is_equal_in_constant_time;
use crate::base::id::FlowRef;
use crate::base::identity::{Guest, Identity, SharedSecrets, is_user_name};
use crate::base::limits::CREDENTIALS_CHECKED_MAX;
use crate::base::time::Time;
use crate::base::users::Algorithm;
use crate::sip::{HeaderName, Message, Method, Uri};

use super::bearer::token_of;
use super::credentials::{Credentials, unescape_into};
use super::digest::{Exchange, Hash, Qop, read_hex, response};
use super::nonce::{NonceKey, Uses};
use super::ticket::{Password, Ticket};

/// What a request's credentials came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There are none for us.
    Absent,
    /// It is this one; if a digest says so, with the second of the process' clock at which the
    /// nonce was made that it answers.
    Proven(Identity, Option<u32>),
    /// It would be one, but the nonce is old, of another flow, or was used before.
    Stale,
    /// Somebody unknown, or a wrong password, or a digest that we did not ask for.
    Refused,
    /// A token that proves nothing.
    BadToken(TokenFault),
    /// There is a token, but too many have to be checked.
    Busy,
    /// There is a digest, but those of its source are not looked at.
    PutOff,
    /// They cannot be read.
    Malformed,
}

/// Checks credentials and makes challenges.
pub struct Verifier {
    nonces: NonceKey,
    uses: Uses,
    /// Canonical addresses of record, one at a time.
    scratch: Vec<u8>,
}

/// Where a request came from, and whether its sender may be one of several who look alike.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// When it came.
    pub now: Time,
    /// The same in seconds since 1970.
    pub unix: u64,
    /// On what.
    pub source: FlowRef,
    /// No stream flow of the client's own vouches for it: uses of nonces are counted.
    pub shared: bool,
    /// Too many digests of its source were wrong: none is looked at.
    pub put_off: bool,
}

/// What a challenge says besides the settings.
#[derive(Clone, Copy, Debug)]
pub struct Challenge {
    /// WWW-Authenticate or Proxy-Authenticate.
    pub name: HeaderName,
    /// The password was right.
    pub stale: bool,
    /// The time.
    pub now: Time,
    /// A random number.
    pub random: u64,
    /// The flow that is challenged.
    pub to: FlowRef,
}

impl Verifier {
    /// From the secret of the installation and the number of the run. What was used before `now`
    /// nobody remembers.
    pub fn new(secret: &[u8; 32], epoch: u32, now: Time) -> Verifier {
        Verifier {
            nonces: NonceKey::new(secret, epoch),
            uses: Uses::since(now),
            scratch: Vec::new(),
        }
    }

    /// Checks the digests of a request that are for our realm: those of Proxy-Authorization,
    /// and of a REGISTER also those of Authorization. Says, too, how many were guesses: wrong, and not
    /// of the user who proved to be there. Clients send one an algorithm, and not all of them are
    /// known of every user.
    pub fn judge(
        &mut self,
        config: &Config,
        digest: &Digest,
        message: Message<'_>,
        circumstances: &Circumstances,
    ) -> (Verdict, usize) {
        let mut verdict = Verdict::Absent;
        let names = match message.method() {
            Method::Register => &[HeaderName::Authorization, HeaderName::ProxyAuthorization][..],
            _ => &[HeaderName::ProxyAuthorization],
        };
        if names.iter().all(|name| message.header(*name).is_none()) {
            return (verdict, 0);
        }
        let domain = domain_of(config, message);
        let realm = digest.realm.as_deref().unwrap_or(domain).as_bytes();
        let (mut checked, mut wrong) = (0, SmallVec::<[&[u8]; CREDENTIALS_CHECKED_MAX]>::new());
        for name in names {
            for header in message.headers().filter(|header| header.name == *name) {
                let found = match Credentials::parse(header.value) {
                    Ok(Some(found)) if found.realm == realm => found,
                    Ok(_) => continue,
                    Err(_) => {
                        verdict = verdict.or(Verdict::Malformed);
                        continue;
                    }
                };
                checked += 1;
                if checked > CREDENTIALS_CHECKED_MAX {
                    return (verdict, wrong.len());
                }
                let this = self.check(config, digest, domain, message, &found, circumstances);
                match this {
                    Verdict::Proven(..) => {
                        wrong.retain(|user| *user != found.username);
                        return (this, wrong.len());
                    }
                    Verdict::Refused => wrong.push(found.username),
                    _ => {}
                }
                verdict = verdict.or(this);
            }
        }
        (verdict, wrong.len())
    }

    fn check(
        &mut self,
        config: &Config,
        digest: &Digest,
        domain: &str,
        message: Message<'_>,
        found: &Credentials<'_>,
        circumstances: &Circumstances,
    ) -> Verdict {
        let Circumstances { now, source, shared, put_off, .. } = *circumstances;
        if put_off {
            return Verdict::PutOff;
        }
        let nonce = self.nonces.read(found.nonce, found.realm, source);
        // Whoever sends in another's name knows no nonce that was made for it, and a wrong password
        // counts against its source.
        if nonce.is_none() && source.stream().is_none() {
            return Verdict::Stale;
        }
        let Some((algorithm, exchange, nc)) = read(digest, message, found) else {
            return Verdict::Refused;
        };
        let shown = read_hex(algorithm.function, found.response);
        let is_right = |ha1: Hash| {
            let expected = response(algorithm, ha1, &exchange);
            shown.is_some_and(|it| is_equal_in_constant_time(it.as_bytes(), expected.as_bytes()))
        };
        let ticket = digest.shared_secrets.as_deref().zip(Ticket::read(found.username));
        let identity = match ticket {
            Some((shared, ticket)) if ticket.until > circumstances.unix => {
                let hash = |password: &[u8]| {
                    Hash::of(algorithm.function, &[found.username, found.realm, password])
                };
                self.check_ticket(config, shared, ticket, found, |it| is_right(hash(it)))
            }
            Some(_) => None,
            None => self.check_password(config, digest, domain, algorithm, found, is_right),
        };
        let Some(identity) = identity else { return Verdict::Refused };
        match nonce {
            Some(nonce)
                if nonce.age_secs(now) <= digest.nonce_lifetime.as_secs()
                    && (!shared || self.uses.take(nonce, nc)) =>
            {
                Verdict::Proven(identity, Some(nonce.made_in_second()))
            }
            _ => Verdict::Stale,
        }
    }

    /// Who it is by the users file. A user that does not exist costs as much as one that does.
    fn check_password(
        &mut self,
        config: &Config,
        digest: &Digest,
        domain: &str,
        algorithm: Algorithm,
        found: &Credentials<'_>,
        is_right: impl Fn(Hash) -> bool,
    ) -> Option<Identity> {
        let with_domain = self.name_user(config, domain, found.username);
        let user = digest.users.by_aor(&self.scratch);
        let secret = user.and_then(|user| user.secret(algorithm.function, with_domain));
        let ha1 = Hash::from_bytes(algorithm.function, *secret.unwrap_or(&[0; 32]));
        let is_right = is_right(ha1);
        let (user, _) = user.zip(secret).filter(|_| is_right)?;
        Some(Identity::Listed(user.id))
    }

    /// Who it is by a secret that we share with who made the password. A user without a domain is
    /// of our first one, whatever the request is about.
    fn check_ticket(
        &mut self,
        config: &Config,
        shared: &SharedSecrets,
        ticket: Ticket<'_>,
        found: &Credentials<'_>,
        is_right: impl Fn(&[u8]) -> bool,
    ) -> Option<Identity> {
        let secret = shared.secrets.iter().find(|secret| {
            is_right(Password::of(shared.hmac, secret, found.username).as_bytes())
        })?;
        let aor = guest_aor(config, std::str::from_utf8(ticket.user).ok()?)?;
        Some(Identity::Guest(Arc::new(Guest {
            aor,
            until: ticket.until,
            key: secret.id,
            by_token: false,
        })))
    }

    /// Puts the canonical address of record that a username means into `scratch`; says whether it
    /// came with its domain.
    fn name_user(&mut self, config: &Config, domain: &str, username: &[u8]) -> bool {
        let aor = &mut self.scratch;
        aor.clear();
        unescape_into(username, aor);
        let at = memchr::memrchr(b'@', aor).filter(|at| config.is_our_domain(&aor[at + 1..]));
        match at {
            Some(at) => aor[at + 1..].make_ascii_lowercase(),
            None => {
                aor.push(b'@');
                aor.extend_from_slice(domain.as_bytes());
            }
        }
        at.is_some()
    }

    /// Appends the challenges: one header line an algorithm in the configured order, which is that
    /// of preference (RFC 8760 §2.3), all with one nonce.
    pub fn challenge(
        &self,
        config: &Config,
        digest: &Digest,
        message: Message<'_>,
        challenge: &Challenge,
        out: &mut Vec<u8>,
    ) {
        let realm = digest.realm.as_deref().unwrap_or(domain_of(config, message)).as_bytes();
        let Challenge { name, stale, now, random, to } = *challenge;
        let nonce = self.nonces.make(now, random, realm, to);
        let qop: &[u8] = if digest.auth_int { b"auth,auth-int" } else { b"auth" };
        for algorithm in &digest.algorithms {
            for part in [
                name.as_str().as_bytes(),
                b": Digest realm=\"",
                realm,
                b"\", nonce=\"",
                &nonce,
                b"\", algorithm=",
                algorithm.name().as_bytes(),
                b", qop=\"",
                qop,
                if stale { b"\", stale=true\r\n" } else { b"\"\r\n" },
            ] {
                out.extend_from_slice(part);
            }
        }
    }
}

impl Verdict {
    /// Of several credentials in one request the best counts: a client that knows the password of
    /// an old nonce may try again.
    pub fn or(self, other: Verdict) -> Verdict {
        let rank = |verdict: &Verdict| match verdict {
            Verdict::Proven(..) => 5,
            Verdict::Stale => 4,
            Verdict::Busy | Verdict::PutOff => 3,
            Verdict::Refused | Verdict::BadToken(_) => 2,
            Verdict::Malformed => 1,
            Verdict::Absent => 0,
        };
        if rank(&other) > rank(&self) { other } else { self }
    }
}

/// What the client hashed, if it is what we asked for: an algorithm and a qop that we offer, and
/// the count that goes with it.
fn read<'a>(
    digest: &Digest,
    message: Message<'a>,
    found: &Credentials<'a>,
) -> Option<(Algorithm, Exchange<'a>, u32)> {
    let algorithm = Algorithm::of_name(found.algorithm.unwrap_or(b"MD5"))?;
    let qop = match found.qop? {
        b"auth" => Qop::Auth,
        b"auth-int" if digest.auth_int => Qop::AuthInt(message.body()),
        _ => return None,
    };
    let (nc, cnonce) = (found.nc?, found.cnonce?);
    if !digest.algorithms.contains(&algorithm) || nc.len() != 8 || cnonce.is_empty() {
        return None;
    }
    let is_hex = nc.iter().all(u8::is_ascii_hexdigit);
    let count = u32::from_str_radix(std::str::from_utf8(nc).ok()?, 16).ok().filter(|_| is_hex)?;
    let method = message.method().as_bytes();
    let exchange = Exchange { method, uri: found.uri, nonce: found.nonce, nc, cnonce, qop };
    Some((algorithm, exchange, count))
}

/// The canonical address of record that a credential names, `user` or `user@domain`; `None` when
/// nobody can have it here.
pub(super) fn guest_aor(config: &Config, name: &str) -> Option<Arc<[u8]>> {
    let (user, domain) = match name.rsplit_once('@') {
        Some((user, domain)) if config.is_our_domain(domain.as_bytes()) => {
            (user, domain.trim_end_matches('.').to_ascii_lowercase())
        }
        Some(_) => return None,
        None => (name, config.node.domains.first()?.clone()),
    };
    is_user_name(user).then(|| format!("{user}@{domain}").into_bytes().into())
}

/// The domain whose user somebody wants to be: of the address of record that a REGISTER is for, of
/// the From of all else; the first of ours when it is foreign.
pub(super) fn domain_of<'c>(config: &'c Config, message: Message<'_>) -> &'c str {
    let address = match message.method() {
        Method::Register => message.to(),
        _ => message.from(),
    };
    let domains = &config.node.domains;
    let host = address.ok().and_then(|it| Uri::parse(it.uri).ok()).map(|uri| uri.domain());
    let ours = host.and_then(|host| {
        domains.iter().find(|domain| domain.as_bytes().eq_ignore_ascii_case(host))
    });
    ours.or(domains.first()).map_or("", String::as_str)
}

/// Whether an Authorization or Proxy-Authorization value answers a challenge of ours: such are not
/// for the next hop (RFC 3261 §22.3). A token names no realm: where we ask for tokens each is ours,
/// since whoever else gets one can use it.
pub fn is_for_us(config: &Config, name: HeaderName, value: &[u8]) -> bool {
    if config.auth.bearer().is_some() && token_of(value).is_some() {
        return true;
    }
    let is_proxys = name == HeaderName::ProxyAuthorization;
    let Some(digest) = config.auth.digest().filter(|_| is_proxys) else { return false };
    is_our_realm(config, digest, value)
}

fn is_our_realm(config: &Config, digest: &Digest, value: &[u8]) -> bool {
    let Ok(Some(found)) = Credentials::parse(value) else { return false };
    match &digest.realm {
        Some(realm) => found.realm == realm.as_bytes(),
        None => config.node.domains.iter().any(|domain| domain.as_bytes() == found.realm),
    }
}
