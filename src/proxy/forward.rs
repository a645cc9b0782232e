//! Request forwarding (RFC 3261 §16.6): the copy for one target, as edits of the bytes that came
//! in. Declared edits: Request-URI, Via, Max-Forwards, Route, Record-Route, Path, Max-Breadth,
//! Content-Length when absent, identity header fields (RFC 3325 §5), and Proxy-Authorization for
//! ourselves (RFC 3261 §22.3).

use std::sync::Arc;

use std::net::SocketAddr;

use crate::base::config::Config;
use crate::base::id::{ClientKey, FlowRef, ListenerId, Transport};
use crate::flow::arrival::Arrival;
use crate::flow::token::{Claims, TokenKey, TokenKind};
use crate::sip::{Edits, HeaderName, Message, Method, NameAddr, Uri, split_first};

use super::branch::BranchId;
use super::identity::{self, Border};
use super::naming;
use super::response::add_content_length;
use super::source::Source;

/// What one copy needs besides the request.
#[derive(Debug)]
pub struct Onward<'a> {
    /// What the request's own Via has to say of its sender.
    pub source: Source,
    /// New Request-URI, if it changes.
    pub uri: Option<&'a [u8]>,
    /// Route values to put on top, without the header's name; may be empty.
    pub route: &'a [u8],
    /// Leading Route values to remove.
    pub popped: usize,
    /// The listener whose name the next hop sees.
    pub egress: ListenerId,
    /// What the next hop speaks.
    pub transport: Transport,
    /// Our Via's branch.
    pub branch: BranchId,
    /// The sender if it is a client of ours (not an upstream), for the dialog token.
    pub caller: Option<FlowRef>,
    /// Which client that is, over its connections.
    pub caller_key: ClientKey,
    /// The target if it is a client of ours.
    pub callee: Option<FlowRef>,
    /// Which client that is, over its connections.
    pub callee_key: ClientKey,
    /// Which client a REGISTER says that its sender is; the registrar behind us judges that.
    pub registrant: ClientKey,
    /// The address that is dialled, if later requests of the dialog need to be told.
    pub dialled: Option<(Transport, SocketAddr)>,
    /// The first Route value that stays is of a strict router (RFC 3261 §16.6 step 6).
    pub strict: bool,
    /// Max-Breadth of this copy (RFC 5393 §5.3.3).
    pub breadth: u8,
    /// Who may assert identities (RFC 3325 §4).
    pub border: Border,
    /// The sender's own address of record, canonical, when the next hop is to be told.
    pub asserted: Option<Arc<[u8]>>,
}

/// Whether a request may open a dialog, so that Record-Route keeps us in it (RFC 3261 §16.6 step
/// 4).
pub fn opens_dialog(message: Message<'_>) -> bool {
    matches!(message.method(), Method::Invite | Method::Subscribe | Method::Refer)
        && message.to().ok().and_then(|to| to.tag()).is_none()
}

/// Appends the copy of `message` for one target.
pub fn forward(
    config: &Config,
    tokens: &TokenKey,
    message: Message<'_>,
    arrival: &Arrival,
    onward: &Onward<'_>,
    edits: &mut Edits,
    out: &mut Vec<u8>,
) {
    edits.clear();
    let (first, rest) = strict_route(onward.route);
    match (first, onward.uri) {
        (Some(first), _) => edits.replace(message.uri_span(), first),
        (None, Some(uri)) => edits.replace(message.uri_span(), uri),
        (None, None) => {}
    }
    edits.insert_with(message.first_header_start(), |out| {
        via(config, onward, out);
        if message.header(HeaderName::MaxBreadth).is_none() {
            write_breadth(onward.breadth, out);
        }
        if opens_dialog(message) {
            record_route(config, tokens, message, arrival, onward, out);
        } else if message.method() == Method::Register {
            path(config, tokens, message, onward, out);
        }
        if !rest.is_empty() {
            out.extend_from_slice(b"Route: ");
            out.extend_from_slice(rest);
            out.extend_from_slice(b"\r\n");
        }
    });
    onward.source.tell(arrival, edits);
    max_forwards(message, edits);
    max_breadth(message, onward.breadth, edits);
    for value in message.values(HeaderName::Route).take(onward.popped) {
        edits.remove_value(&value);
    }
    if first.is_some() {
        last_route(onward.uri.unwrap_or(message.uri()), message, edits);
    } else if onward.strict && onward.route.is_empty() {
        tighten(message, onward, edits);
    }
    identity::withhold(message, onward.border, edits);
    if let Some(aor) = &onward.asserted {
        identity::assert(message, aor, edits);
    }
    if !onward.border.from_trusted {
        identity::remove_credentials(config, message, edits);
    }
    add_content_length(message, onward.transport, edits);
    edits.write_to(message.bytes(), out);
}

/// The URI of the first value if it is a strict router's, and the values that stay in Route then;
/// all of them if it is not.
fn strict_route(route: &[u8]) -> (Option<&[u8]>, &[u8]) {
    if route.is_empty() {
        return (None, route);
    }
    let (first, rest) = split_first(route);
    let Ok(address) = NameAddr::parse(first) else { return (None, route) };
    match Uri::parse(address.uri) {
        Ok(uri) if uri.param("lr").is_none() => (Some(address.uri), rest),
        _ => (None, route),
    }
}

/// RFC 3261 §16.6 step 6 for a strict router: its URI becomes the Request-URI, whose place is at
/// the end of Route.
fn tighten(message: Message<'_>, onward: &Onward<'_>, edits: &mut Edits) {
    let Some(first) = message.values(HeaderName::Route).nth(onward.popped) else { return };
    let Ok(address) = NameAddr::parse(first.text) else { return };
    edits.replace(message.uri_span(), address.uri);
    edits.remove_value(&first);
    last_route(onward.uri.unwrap_or(message.uri()), message, edits);
}

fn last_route(uri: &[u8], message: Message<'_>, edits: &mut Edits) {
    edits.insert_with(message.headers_end(), |out| {
        out.extend_from_slice(b"Route: <");
        out.extend_from_slice(uri);
        out.extend_from_slice(b">\r\n");
    });
}

/// RFC 3261 §16.6 step 8; `rport` asks for an answer to the source port (RFC 3581 §3).
fn via(config: &Config, onward: &Onward<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Via: SIP/2.0/");
    out.extend_from_slice(onward.transport.via_name().as_bytes());
    out.push(b' ');
    naming::write_sent_by(config, onward.egress, out);
    out.extend_from_slice(b";branch=");
    onward.branch.encode(out);
    if onward.transport == Transport::Udp {
        out.extend_from_slice(b";rport");
    }
    out.extend_from_slice(b"\r\n");
}

/// One value when both sides see the same listener, its token naming both clients; else one a side,
/// the one that faces the next hop on top (RFC 5658 §5).
fn record_route(
    config: &Config,
    tokens: &TokenKey,
    message: Message<'_>,
    arrival: &Arrival,
    onward: &Onward<'_>,
    out: &mut Vec<u8>,
) {
    let sips = Uri::parse(message.uri()).is_ok_and(|uri| uri.scheme == crate::sip::Scheme::Sips);
    let call_id = message.call_id().unwrap_or_default();
    let mut line =
        |listener, transport, caller: Option<FlowRef>, callee: Option<FlowRef>, dialled| {
            let caller_key = caller.map_or(ClientKey::NONE, |_| onward.caller_key);
            let callee_key = callee.map_or(ClientKey::NONE, |_| onward.callee_key);
            let claims =
                Claims { kind: TokenKind::Dialog, caller, callee, dialled, caller_key, callee_key };
            out.extend_from_slice(b"Record-Route: <");
            let facing = Facing { listener, transport, sips };
            own_uri(config, tokens, &claims, call_id, facing, out);
            out.extend_from_slice(b">\r\n");
        };
    let (near, far) = (arrival.listener(), onward.egress);
    let (near_transport, far_transport) = (arrival.transport(), onward.transport);
    if near == far {
        line(far, far_transport, onward.caller, onward.callee, onward.dialled);
    } else {
        line(far, far_transport, None, onward.callee, onward.dialled);
        line(near, near_transport, onward.caller, None, None);
    }
}

/// RFC 3327 §5.2: the registrar behind us sends requests for this client back by it. `ob` says that
/// the client is at the other end of the flow, nobody between (RFC 5626 §5.1).
fn path(
    config: &Config,
    tokens: &TokenKey,
    message: Message<'_>,
    onward: &Onward<'_>,
    out: &mut Vec<u8>,
) {
    let (caller_key, callee_key) = (onward.registrant, ClientKey::NONE);
    let (kind, caller) = (TokenKind::Path, onward.caller);
    let claims = Claims { kind, caller, callee: None, dialled: None, caller_key, callee_key };
    out.extend_from_slice(b"Path: <");
    let facing = Facing { listener: onward.egress, transport: onward.transport, sips: false };
    own_uri(config, tokens, &claims, b"", facing, out);
    let is_first_hop = !message.has_many(HeaderName::Via);
    out.extend_from_slice(if is_first_hop { b";ob>\r\n" } else { b">\r\n" });
    if config.registrar.require_path {
        out.extend_from_slice(b"Require: path\r\n");
    }
}

#[derive(Clone, Copy)]
struct Facing {
    listener: ListenerId,
    transport: Transport,
    sips: bool,
}

fn own_uri(
    config: &Config,
    tokens: &TokenKey,
    claims: &Claims,
    call_id: &[u8],
    facing: Facing,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(if facing.sips { b"sips:" } else { b"sip:" });
    tokens.encode(claims, call_id, out);
    out.push(b'@');
    naming::write_sent_by(config, facing.listener, out);
    let transport = shown_transport(config, facing);
    if transport != Transport::Udp && !(facing.sips && transport == Transport::Tls) {
        out.extend_from_slice(b";transport=");
        out.extend_from_slice(transport.uri_name().as_bytes());
    }
    out.extend_from_slice(b";lr");
}

/// What the next hop may speak to the listener that is shown: where we dialled over a transport
/// that we do not listen on, the listener's own (RFC 3261 §16.6 step 4).
fn shown_transport(config: &Config, facing: Facing) -> Transport {
    let listener = config.listener(facing.listener).transport;
    if facing.transport.is_websocket() || listener.is_websocket() {
        facing.transport
    } else {
        listener
    }
}

/// RFC 3261 §16.6 step 3. A request without one gets 70.
fn max_forwards(message: Message<'_>, edits: &mut Edits) {
    match (message.header(HeaderName::MaxForwards), message.max_forwards()) {
        (Some(header), Ok(Some(hops))) => edits.replace_with(header.value_span, |out| {
            naming::write_number(u64::from(hops.saturating_sub(1)), out);
        }),
        _ => edits.insert(message.first_header_start(), b"Max-Forwards: 70\r\n"),
    }
}

/// RFC 5393 §5.3.3: every copy has exactly one. Who has none gets it with our Via.
fn max_breadth(message: Message<'_>, breadth: u8, edits: &mut Edits) {
    let Some(first) = message.header(HeaderName::MaxBreadth) else { return };
    edits.replace_with(first.value_span, |out| naming::write_number(u64::from(breadth), out));
    for more in message.headers().filter(|header| header.name == HeaderName::MaxBreadth).skip(1) {
        edits.remove(more.line);
    }
}

fn write_breadth(breadth: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Max-Breadth: ");
    naming::write_number(u64::from(breadth), out);
    out.extend_from_slice(b"\r\n");
}
