//! Route pre-processing (RFC 3261 §16.4): who the sender is, which leading Route values are ours
//! and removed, and what their flow tokens say (RFC 5626 §5.3). A token names a flow; an address
//! never does.

use std::net::SocketAddr;

use crate::base::config::{Config, Listener, Upstream, UpstreamTarget};
use crate::base::host::parse_ip;
use crate::base::id::{ClientKey, DatagramPath, FlowRef, ListenerId, Transport};
use crate::base::limits::VALUES_MAX;
use crate::flow::arrival::Arrival;
use crate::flow::token::{Claims, TokenError, TokenKey, TokenKind};
use crate::sip::{HeaderName, Message, NameAddr, ParseErrorKind, Scheme, Uri, unescape_into};

use super::naming;
use super::validate::Reject;

/// In which role a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A SIP server that the configuration names: its position there.
    Upstream(usize),
    /// Somebody who proved to be a user of ours.
    User,
    /// Anybody else.
    Stranger,
}

impl Sender {
    /// Finds the role from the address that a message came from, else from what its sender proved,
    /// if that still holds.
    pub fn of(config: &Config, arrival: &Arrival) -> Sender {
        let user = || arrival.aor(config).map(|_| Sender::User);
        let upstream = Sender::upstream(config, arrival).map(Sender::Upstream);
        upstream.or_else(user).unwrap_or(Sender::Stranger)
    }

    /// The upstream that a message came from: its source is one that `from` lists; without `from`,
    /// exactly a target's address (a connection that we opened to it, or its datagrams).
    pub fn upstream(config: &Config, arrival: &Arrival) -> Option<usize> {
        config.upstreams.iter().position(|upstream| is_from(upstream, arrival))
    }

    /// Whether it is an upstream.
    pub fn is_upstream(self) -> bool {
        matches!(self, Sender::Upstream(_))
    }
}

fn is_from(upstream: &Upstream, arrival: &Arrival) -> bool {
    if !upstream.from.is_empty() {
        return upstream.from.iter().any(|network| network.contains(&arrival.remote.ip()));
    }
    // What we send by TCP for its size alone comes from there, too.
    let is_same = |target: &UpstreamTarget| {
        let pair = (target.transport, arrival.transport());
        target.address == arrival.remote
            && (pair.0 == pair.1 || pair == (Transport::Udp, Transport::Tcp))
    };
    !arrival.accepted && upstream.targets.iter().any(is_same)
}

/// What the Route header fields decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routing {
    /// How many leading Route values are ours and are removed.
    pub popped: usize,
    /// The value behind them is of a strict router: it lacks `lr` (RFC 3261 §16.6 step 6).
    pub strict: bool,
    /// Where they lead.
    pub way: Way,
    /// A dialog token names the sender: it is one of those between whom the dialog is.
    pub is_party: bool,
    /// The one client that a dialog token names, if the sender, who is no server, showed it first:
    /// the sender says by it that it is that client, as one does whose flow has changed. It is the
    /// upper half of the hash of its address of record.
    pub owner: Option<u32>,
}

/// Where the tokens of our own Route values lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// No token: the request is judged as an initial one, also with a To tag.
    Initial,
    /// A valid dialog token that selects nothing: the request leaves by its next Route or its
    /// Request-URI.
    Outgoing,
    /// A dialog token of another run of this process: whom it named is gone, what it permitted is
    /// not.
    Stale,
    /// This end, whatever the URIs say.
    Flow(End, TokenKind),
    /// Where a connection of ours to this address leads, unless the URIs name a server that the
    /// configuration names, too.
    Dialled(Transport, SocketAddr),
}

/// One end of a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The flow that it had when the token was made.
    pub flow: FlowRef,
    /// Which client it is, over its connections.
    pub client: ClientKey,
}

impl End {
    /// Whether a message came from there: on its flow, or on one that its client proved to be its
    /// own and that is no less secure.
    fn is_sender(&self, arrival: &Arrival) -> bool {
        let is_client = self.client.is_some() && self.client == arrival.client;
        let is_secure = !self.flow.transport().is_secure() || arrival.transport().is_secure();
        self.flow.same_peer(arrival.source) || is_client && is_secure
    }
}

/// The caller's and the callee's end.
fn ends(claims: &Claims) -> [Option<End>; 2] {
    let end = |flow: Option<FlowRef>, client| flow.map(|flow| End { flow, client });
    [end(claims.caller, claims.caller_key), end(claims.callee, claims.callee_key)]
}

/// Reads the leading Route values that name us. A token that is forged, belongs to another Call-ID,
/// or stands in a request that it is not for, is 403 and never followed.
pub fn preprocess(
    config: &Config,
    tokens: &TokenKey,
    message: Message<'_>,
    arrival: &Arrival,
    sender: Sender,
) -> Result<Routing, Reject> {
    let mut routing =
        Routing { popped: 0, strict: false, way: Way::Initial, is_party: false, owner: None };
    for value in message.values(HeaderName::Route).take(VALUES_MAX) {
        let Ok(address) = NameAddr::parse(value.text) else {
            return Err(Reject::phrase(400, "Bad Route"));
        };
        let Ok(uri) = Uri::parse(address.uri) else {
            return Err(Reject::phrase(400, "Bad Route URI"));
        };
        if !names_us(config, &uri, arrival) {
            routing.strict = uri.param("lr").is_none();
            break;
        }
        routing.popped += 1;
        let mut plain = Vec::new();
        let user = match uri.user {
            Some(user) if user.contains(&b'%') => {
                unescape_into(user, &mut plain);
                plain.as_slice()
            }
            Some(user) => user,
            None => continue,
        };
        follow(config, tokens, message, user, arrival, sender, &mut routing)?;
    }
    // More would be looked at by nobody, and followed by the next hop.
    if routing.popped == VALUES_MAX {
        return Err(Reject::phrase(400, ParseErrorKind::TooManyValues.phrase()));
    }
    Ok(routing)
}

/// A listener on every address is named by the one that a flow came in on, too.
fn names_us(config: &Config, uri: &Uri<'_>, arrival: &Arrival) -> bool {
    let came_to = || {
        let host = parse_ip(naming::next_host(uri));
        host == Some(arrival.local.ip()) && uri.port == Some(arrival.local.port())
    };
    let is_listener = arrival.accepted || arrival.transport() == Transport::Udp;
    naming::is_our_uri(config, uri) || is_listener && came_to()
}

fn follow(
    config: &Config,
    tokens: &TokenKey,
    message: Message<'_>,
    user: &[u8],
    arrival: &Arrival,
    sender: Sender,
    routing: &mut Routing,
) -> Result<(), Reject> {
    let call_id = message.call_id().unwrap_or_default();
    let is_first = routing.way == Way::Initial && !sender.is_upstream();
    let claims = match tokens.decode(user, call_id) {
        Ok(claims) => claims,
        Err(TokenError::NotAToken) => return Ok(()),
        Err(TokenError::Forged) => return Err(Reject::because(403, "Flow token refused")),
        Err(TokenError::Epoch(claims)) => {
            match outdated_path(config, &claims, sender) {
                Some(end) => routing.way = Way::Flow(end, TokenKind::Path),
                None => {
                    routing.owner = routing.owner.or(owner(&claims, arrival).filter(|_| is_first));
                    follow_outdated(config, &claims, message, (arrival, sender), routing);
                }
            }
            return Ok(());
        }
    };
    match claims.kind {
        TokenKind::Path if sender.is_upstream() => match registrant(&claims) {
            Some(end) => routing.way = Way::Flow(end, TokenKind::Path),
            None => return Err(Reject::because(403, "Flow token refused")),
        },
        TokenKind::Path => return Err(Reject::because(403, "Path tokens are for servers")),
        TokenKind::Dialog => {
            // A token of the dialog before this one has passed the same.
            let has_passed = matches!(routing.way, Way::Outgoing | Way::Flow(_, TokenKind::Dialog));
            if !has_passed && message.to().ok().and_then(|to| to.tag()).is_none() {
                return Err(Reject::because(403, "Flow token outside its dialog"));
            }
            routing.owner = routing.owner.or(owner(&claims, arrival).filter(|_| is_first));
            let dialled = Some((arrival.transport(), arrival.remote));
            routing.is_party |= ends(&claims).iter().flatten().any(|end| end.is_sender(arrival))
                || !arrival.accepted && claims.dialled == dialled;
            routing.way = select(&claims, arrival, sender, routing.way)?;
        }
    }
    Ok(())
}

/// Whose a token is that names one client, not the sender's if that is who was dialled.
fn owner(claims: &Claims, arrival: &Arrival) -> Option<u32> {
    let ([Some(end), None] | [None, Some(end)]) = ends(claims) else { return None };
    let is_dialled = claims.dialled.is_some_and(|peer| is_dialled_peer(peer, arrival, true));
    (end.client.is_some() && !is_dialled).then(|| end.client.of_aor())
}

/// Who registered by a Path.
fn registrant(claims: &Claims) -> Option<End> {
    let [caller, callee] = ends(claims);
    caller.or(callee)
}

/// Where a server's request goes by a Path of another run: to a datagram client, or to the client
/// that has the key.
fn outdated_path(config: &Config, claims: &Claims, sender: Sender) -> Option<End> {
    if claims.kind != TokenKind::Path || !sender.is_upstream() {
        return None;
    }
    outlived(config, registrant(claims)?)
}

/// What is left of an end that another run named: a datagram flow is its address and ours and has
/// not ended with the process, as long as we have that address; of a stream, the client that had it.
fn outlived(config: &Config, end: End) -> Option<End> {
    let FlowRef::Datagram(path) = end.flow else {
        return Some(end).filter(|it| it.client.is_of_client());
    };
    let has_address = |it: &Listener| {
        let is_wildcard = it.address.ip().is_unspecified()
            && it.address.is_ipv4() == path.local.is_ipv4()
            && it.address.port() == path.local.port();
        it.transport == Transport::Udp && (it.address == path.local || is_wildcard)
    };
    let listener = config.listeners.iter().position(has_address)?;
    let listener = ListenerId(u16::try_from(listener).ok()?);
    Some(End { flow: FlowRef::Datagram(DatagramPath { listener, ..path }), ..end })
}

/// A token of another run: no stream flow that it names is followed, but clients are found by their
/// keys when they have registered again, and datagram clients where they were.
fn follow_outdated(
    config: &Config,
    claims: &Claims,
    message: Message<'_>,
    (arrival, sender): (&Arrival, Sender),
    routing: &mut Routing,
) {
    let has_tag = message.to().ok().and_then(|to| to.tag()).is_some();
    let in_dialog = has_tag && claims.kind == TokenKind::Dialog;
    let ends = ends(claims).map(|end| end.map(|end| outlived(config, end).unwrap_or(end)));
    let is_sender = |end: &Option<End>| end.is_some_and(|end| end.is_sender(arrival));
    // The first token that a client shows may be its own, from an address that it left.
    let may_be_own = routing.way == Way::Initial && !sender.is_upstream();
    let other = match ends {
        _ if !in_dialog => None,
        [caller, callee] if is_sender(&caller) => callee,
        [caller, callee] if is_sender(&callee) => caller,
        [Some(end), None] | [None, Some(end)] => {
            Some(end).filter(|end| end.client.is_of_client() || !may_be_own)
        }
        _ => None,
    };
    routing.is_party |= in_dialog && ends.iter().any(is_sender);
    match other.and_then(|end| outlived(config, end)) {
        Some(end) => routing.way = Way::Flow(end, TokenKind::Dialog),
        None if routing.way == Way::Initial => routing.way = Way::Stale,
        None => {}
    }
}

/// The other end than the sender's. A token of which the sender holds no end selects its only end;
/// with two ends the sender is no party of the dialog. The first token that a client shows is its
/// own also when its flow has changed: it never leads back to what it left.
fn select(claims: &Claims, arrival: &Arrival, sender: Sender, so_far: Way) -> Result<Way, Reject> {
    let source = arrival.source;
    let is_source = |end: Option<End>| end.is_some_and(|end| end.is_sender(arrival));
    let is_near = |end: Option<End>| end.is_some_and(|end| same_host(end.flow, source));
    let [caller, callee] = ends(claims);
    let other = if is_source(caller) {
        callee
    } else if is_source(callee) {
        caller
    } else if caller.is_none() || callee.is_none() {
        let is_dialled = claims.dialled.is_some_and(|end| is_dialled_peer(end, arrival, true));
        let is_own = so_far == Way::Initial && !sender.is_upstream() && !is_dialled;
        caller.or(callee).filter(|_| !is_own)
    } else if is_near(caller) != is_near(callee) {
        if is_near(caller) { callee } else { caller }
    } else {
        return Err(Reject::because(403, "Not a party of this dialog"));
    };
    // Whoever holds an end is not the other, even on one host.
    let has_end = is_source(caller) || is_source(callee);
    let is_first = so_far == Way::Initial && !sender.is_upstream();
    let by_own = is_first && !has_end;
    let dialled = claims.dialled.filter(|end| !is_dialled_peer(*end, arrival, by_own));
    Ok(match (other, dialled, so_far) {
        (Some(end), ..) => Way::Flow(end, TokenKind::Dialog),
        (None, Some((transport, remote)), _) => Way::Dialled(transport, remote),
        (None, None, Way::Flow(..) | Way::Dialled(..)) => so_far,
        (None, None, _) => Way::Outgoing,
    })
}

/// Whether the sender is who was dialled: at that address, or, where that may be, by a connection of
/// its own from there.
fn is_dialled_peer(end: (Transport, SocketAddr), arrival: &Arrival, by_own: bool) -> bool {
    let (transport, remote) = end;
    let is_own = by_own && arrival.accepted && arrival.remote.ip() == remote.ip();
    is_own || transport == arrival.transport() && remote == arrival.remote
}

/// Datagrams of one host whose NAT changed the port in the middle of a dialog.
fn same_host(end: FlowRef, source: FlowRef) -> bool {
    match (end, source) {
        (FlowRef::Datagram(a), FlowRef::Datagram(b)) => a.remote.ip() == b.remote.ip(),
        _ => false,
    }
}

/// A next hop by address, permitted: an upstream's own target, or an address inside its `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial<'a> {
    /// UDP, TCP or TLS.
    pub transport: Transport,
    /// Where.
    pub remote: SocketAddr,
    /// The name that a certificate must show.
    pub host: &'a str,
}

/// The address that a Route or Request-URI names, if it belongs to an upstream; `None` for
/// everything else, and for our own sockets. `sips:` goes by TLS only. `maddr` stands for the host
/// (RFC 3263 §4). A name leads to the target that is `known` from before, if it has several; with
/// neither port nor transport to any target of that name, which stands for what DNS would say (RFC
/// 3263 §4.1).
pub fn dial<'a>(
    config: &'a Config,
    uri: &Uri<'_>,
    known: Option<(Transport, SocketAddr)>,
) -> Option<Dial<'a>> {
    let transport = naming::uri_transport(uri).filter(|it| !it.is_websocket())?;
    if uri.scheme == Scheme::Sips && !transport.is_secure() {
        return None;
    }
    let host = naming::next_host(uri);
    let port = uri.port.unwrap_or(transport.default_port());
    let is_open = uri.port.is_none() && uri.param("transport").is_none();
    let named = || {
        let targets = config.upstreams.iter().flat_map(|upstream| &upstream.targets);
        targets.filter(|it| it.host.as_bytes().eq_ignore_ascii_case(host))
    };
    let exact = || named().filter(|it| it.transport == transport && it.address.port() == port);
    let open = || named().filter(|it| is_open && (uri.scheme == Scheme::Sip || it.is_secure()));
    let is_known = |it: &&UpstreamTarget| known.is_some_and(|(_, address)| address == it.address);
    let by_name = (exact().find(is_known).or_else(|| exact().next()))
        .or_else(|| open().find(is_known))
        .or_else(|| open().next());
    if let Some(target) = by_name {
        let UpstreamTarget { transport, address, .. } = *target;
        return Some(Dial { transport, remote: address, host: &target.host });
    }
    let remote = SocketAddr::new(parse_ip(host)?, port);
    may_dial(config, transport, remote).then_some(Dial { transport, remote, host: "" })
}

/// Whether an address may be dialled without a binding that asks for it: an upstream's target, or
/// inside an upstream's `from`; never our own sockets.
pub fn may_dial(config: &Config, transport: Transport, remote: SocketAddr) -> bool {
    !naming::is_our_socket(config, remote)
        && config.upstreams.iter().any(|upstream| {
            upstream.from.iter().any(|network| network.contains(&remote.ip()))
                || upstream.targets.iter().any(|t| t.transport == transport && t.address == remote)
        })
}

/// The upstream whose target or network an address is.
pub fn upstream_at(config: &Config, remote: SocketAddr) -> Option<&Upstream> {
    config.upstreams.iter().find(|upstream| {
        upstream.targets.iter().any(|target| target.address == remote)
            || upstream.from.iter().any(|network| network.contains(&remote.ip()))
    })
}

/// Bytes of a request above which it does not go to that address by UDP (RFC 3261 §18.1.1). This is
/// for servers. A phone that registered over UDP gets requests of any size by UDP: its flow is its
/// binding (RFC 5626 §5.3), behind a NAT nothing else reaches it, and an address that it wrote is
/// not dialled for it.
pub fn udp_max(config: &Config, remote: SocketAddr) -> usize {
    upstream_at(config, remote).map_or(Upstream::UDP_MAX, |upstream| upstream.udp_max)
}
