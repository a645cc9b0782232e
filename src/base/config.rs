//! The configuration as the engine sees it: checked, resolved, immutable. Reading and judging TOML
//! is `io/config_file`; this file only says what there is to configure.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use regex::Regex;

use super::bearer::Bearer;
use super::host;
use super::id::{ListenerId, Transport};
use super::identity::{Guest, Identity, SharedSecrets};
use super::limits::Limits;
use super::users::{Algorithm, Departed, UserMark, Users};

/// Everything that decides what happens to a message.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who we are.
    pub node: Node,
    /// Where we listen; a [`ListenerId`] is a position in this list.
    pub listeners: Vec<Listener>,
    /// Registrar settings.
    pub registrar: Registrar,
    /// Who may do what.
    pub auth: Auth,
    /// SIP servers behind us.
    pub upstreams: Vec<Upstream>,
    /// Routing rules; the first match wins, no match is 404.
    pub routes: Vec<Route>,
    /// Timer values of RFC 3261 §17.
    pub timers: Timers,
    /// Bounds.
    pub limits: Limits,
}

/// The `[node]` table.
#[derive(Clone, Debug)]
pub struct Node {
    /// Shown in Warning header fields and logs.
    pub name: String,
    /// Domains that we are responsible for, lower case. The first is the default for bare users.
    pub domains: Vec<String>,
}

/// One `[[listen]]` entry.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What it speaks.
    pub transport: Transport,
    /// Where it is bound.
    pub address: SocketAddr,
    /// What Via, Record-Route and Path show; without it the local address of the flow.
    pub advertise: Option<HostPort>,
    /// Request path of the WebSocket upgrade, without query.
    pub path: String,
    /// Allowed values of Origin, lower case; empty allows any.
    pub origins: Vec<String>,
    /// Name of the certificate (TLS, WSS).
    pub certificate: Option<String>,
    /// WS only: load balancers that speak TLS to the client; flows from them count as WSS.
    pub tls_terminated_from: Vec<IpNet>,
}

/// A host with an optional port, as in a Via sent-by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address; an IPv6 address stands in brackets.
    pub host: String,
    /// Absent: the transport's default.
    pub port: Option<u16>,
}

/// The `[registrar]` table.
#[derive(Clone, Debug)]
pub struct Registrar {
    /// Granted when the client asks for nothing.
    pub expires_default: Duration,
    /// Less is answered 423 (RFC 3261 §10.3 step 7).
    pub expires_min: Duration,
    /// More is cut to this.
    pub expires_max: Duration,
    /// Bindings of one AOR.
    pub contacts_max: usize,
    /// Time that bindings of equal q have to answer while bindings of a lower q wait (RFC 3261
    /// §16.6): then those are tried, and the INVITEs of these are cancelled.
    pub serial_ring: Duration,
    /// Time between two OPTIONS to a UDP client behind address translation; zero: none are sent.
    pub nat_ping: Duration,
    /// Unanswered ones in a row after which its binding is removed; 0: it stays until it expires.
    pub nat_ping_misses: usize,
    /// How long a client that proved who it is may take to come back after its flow was lost, before
    /// it counts as gone; zero: it is gone at once.
    pub grace: Duration,
    /// Contacts on another host than their source are resolved instead of delivered on the flow.
    pub foreign_contacts: bool,
    /// Values of Service-Route in the answer to a REGISTER (RFC 3608): what the client is to put in
    /// Route. Each is a name-addr with `lr`.
    pub service_route: Vec<String>,
    /// A `sips:` request may be delivered to a `sip:` Contact over WSS or TLS.
    pub sips_to_sip_contact: bool,
    /// A REGISTER for a registrar behind us is sent on with `Require: path`, and refused with 421 when
    /// its client does not say that it supports Path (RFC 3327 §5.2). Otherwise it gets our Path
    /// without a word.
    pub require_path: bool,
    /// Whether bindings outlive the process. The same in one run: a new configuration does not
    /// change it.
    pub persistence: Persistence,
}

/// The `store` and `store_sync` settings, as far as a shard needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Bindings are in memory only.
    None,
    /// Changes are written soon after the REGISTER was answered.
    Delayed,
    /// A REGISTER is answered 200 when what it changed is durable.
    Synchronous,
}

/// The `[auth]` table.
#[derive(Clone, Debug)]
pub struct Auth {
    /// How users prove who they are by a password.
    pub method: AuthMethod,
    /// How they do by a token, beside a password or instead of it.
    pub bearer: Option<Box<Bearer>>,
    /// What senders who are neither users nor upstreams may do.
    pub strangers: Strangers,
    /// A user's requests must be in its own name, or get 403.
    pub pin_identity: bool,
}

/// What the `method` of `[auth]` says of passwords, with the settings that belong to it.
#[derive(Clone, Debug)]
pub enum AuthMethod {
    /// Nobody has one. Without tokens everybody may register.
    None,
    /// By a digest of their password (RFC 8760).
    Digest(Box<Digest>),
}

/// Digest authentication.
#[derive(Clone, Debug)]
pub struct Digest {
    /// What challenges name; absent: the domain of the user.
    pub realm: Option<String>,
    /// One challenge each, in this order.
    pub algorithms: Vec<Algorithm>,
    /// `auth-int` is offered beside `auth`: the digest covers the body, too.
    pub auth_int: bool,
    /// How long a nonce is good for.
    pub nonce_lifetime: Duration,
    /// Everybody who has a password.
    pub users: Arc<Users>,
    /// What time-limited credentials are computed with; absent: there are none.
    pub shared_secrets: Option<Arc<SharedSecrets>>,
}

/// The `strangers` setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strangers {
    /// Their requests are routed like any other.
    Route,
    /// Their initial requests get 403.
    Reject,
}

impl Default for Auth {
    fn default() -> Auth {
        Auth {
            method: AuthMethod::None,
            bearer: None,
            strangers: Strangers::Route,
            pin_identity: true,
        }
    }
}

impl Auth {
    /// The settings of digest authentication, when it is on.
    pub fn digest(&self) -> Option<&Digest> {
        match &self.method {
            AuthMethod::None => None,
            AuthMethod::Digest(digest) => Some(digest),
        }
    }

    /// The settings of tokens, when they are taken.
    pub fn bearer(&self) -> Option<&Bearer> {
        self.bearer.as_deref()
    }

    /// Whether anybody is asked who it is.
    pub fn has_method(&self) -> bool {
        self.digest().is_some() || self.bearer.is_some()
    }

    /// Everybody who has a password.
    pub fn users(&self) -> Option<&Users> {
        self.digest().map(|digest| &*digest.users)
    }

    /// Whose password is good no more when `next` takes this one's place. Takes time by the users of
    /// both. Where nobody is asked for one from then on, nobody departs.
    pub fn departed(&self, next: &Auth) -> Departed {
        match (self.users(), next.users()) {
            (Some(users), Some(next)) if std::ptr::eq(users, next) => Departed::default(),
            (Some(users), next_users) if next.has_method() => users.departed(next_users),
            _ => Departed::default(),
        }
    }

    /// As what the user with that canonical address of record is known; `None`: there is none.
    pub fn mark_of(&self, aor: &[u8]) -> Option<UserMark> {
        self.users()?.by_aor(aor).map(|user| user.id.mark())
    }

    /// The canonical address of record of who proved to be that; `None` once the user is gone or
    /// has another password, or the key that vouched for a guest is gone.
    pub fn aor_of<'a>(&'a self, identity: &'a Identity) -> Option<&'a Arc<[u8]>> {
        match identity {
            Identity::Listed(id) => self.users()?.aor_of(*id),
            Identity::Guest(guest) => self.has_key(guest).then_some(&guest.aor),
        }
    }

    /// In which second since 1970 that ends which a token gave: its time and the grace; `None` for
    /// who came by no token.
    pub fn token_end(&self, identity: &Identity) -> Option<u64> {
        let Identity::Guest(guest) = identity else { return None };
        let grace = self.bearer().map_or(Duration::ZERO, |bearer| bearer.grace);
        guest.by_token.then(|| guest.until.saturating_add(grace.as_secs()))
    }

    fn has_key(&self, guest: &Guest) -> bool {
        let id = guest.key;
        if guest.by_token {
            return self.bearer().is_some_and(|bearer| bearer.keys.has(id));
        }
        let shared = self.digest().and_then(|digest| digest.shared_secrets.as_ref());
        shared.is_some_and(|shared| shared.secrets.iter().any(|secret| secret.id == id))
    }
}

/// One `[[upstream]]` entry.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Unique name, used by routes.
    pub name: String,
    /// Where requests for it go, at most [`super::limits::UPSTREAM_TARGETS_MAX`]: by priority and
    /// weight, those that fail last.
    pub targets: Vec<UpstreamTarget>,
    /// Sources that count as this upstream; empty: the targets' own addresses and ports.
    pub from: Vec<IpNet>,
    /// Its requests may find accepted client flows by address (cores that rewrite Contacts).
    pub address_lookup: bool,
    /// UDP requests larger than this many bytes go by TCP (RFC 3261 §18.1.1).
    pub udp_max: usize,
    /// How long a target may be silent before the next one is tried.
    pub timeout: Duration,
}

impl Upstream {
    /// Silence of a target after which the next one is tried, unless configured.
    pub const TIMEOUT: Duration = Duration::from_secs(3);
    /// Bytes of a request that goes by UDP, unless configured (RFC 3261 §18.1.1).
    pub const UDP_MAX: usize = 1300;
}

/// One target of an upstream, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTarget {
    /// UDP, TCP or TLS.
    pub transport: Transport,
    /// Where to send.
    pub address: SocketAddr,
    /// The name in the target's URI: verified in its certificate (TLS).
    pub host: String,
    /// Lower ones are tried first (RFC 2782).
    pub priority: u16,
    /// Share of the requests among targets of one priority (RFC 2782).
    pub weight: u16,
}

impl UpstreamTarget {
    /// Whether it is spoken to over TLS.
    pub fn is_secure(&self) -> bool {
        self.transport.is_secure()
    }
}

/// One `[[route]]` entry.
#[derive(Clone, Debug)]
pub struct Route {
    /// Matches the Request-URI's user; absent matches all.
    pub user: Option<Regex>,
    /// Matches the Request-URI's host (lower case); `Some("none")` matches `tel:` URIs; absent
    /// matches all.
    pub domain: Option<String>,
    /// Methods; empty matches all.
    pub methods: Vec<String>,
    /// Where to.
    pub to: RouteTo,
}

/// The `to` of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTo {
    /// The registered contacts of the Request-URI.
    Location,
    /// An upstream: its position in [`Config::upstreams`].
    Upstream(usize),
    /// Answer with this status.
    Reject(u16),
}

/// Timer values (RFC 3261 §17.1.1.1, table 4). Everything else follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Round-trip time estimate.
    pub t1: Duration,
    /// Longest retransmit interval of non-INVITE requests and INVITE responses.
    pub t2: Duration,
    /// Longest time that a message stays in the network.
    pub t4: Duration,
    /// Timer C: an INVITE without final response (RFC 3261 §16.6 step 11: more than 3 minutes).
    pub c: Duration,
}

impl Default for Timers {
    fn default() -> Timers {
        Timers {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            c: Duration::from_secs(185),
        }
    }
}

impl Default for Registrar {
    fn default() -> Registrar {
        Registrar {
            expires_default: Duration::from_secs(3600),
            expires_min: Duration::from_secs(30),
            expires_max: Duration::from_secs(7200),
            contacts_max: 10,
            serial_ring: Duration::from_secs(20),
            nat_ping: Duration::ZERO,
            nat_ping_misses: 0,
            grace: Duration::ZERO,
            foreign_contacts: false,
            service_route: Vec::new(),
            sips_to_sip_contact: false,
            require_path: false,
            persistence: Persistence::None,
        }
    }
}

impl Config {
    /// Whether `host` (compared without case and the root's dot) is a domain that we are responsible for.
    pub fn is_our_domain(&self, host: &[u8]) -> bool {
        let host = host.strip_suffix(b".").unwrap_or(host);
        self.node.domains.iter().any(|domain| host::same(host, domain.as_bytes()))
    }

    /// The listener under that id. Panics on an id that this configuration never gave out.
    pub fn listener(&self, id: ListenerId) -> &Listener {
        &self.listeners[id.index()]
    }
}
