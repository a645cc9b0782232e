//! A request as all later rules expect it (RFC 3261 §16.4): what a strict router made of our
//! Record-Route value is turned back into loose form, and a `maddr` that only says how the request
//! came here is taken off. Done before placement, so that every retransmission, CANCEL and ACK is
//! judged in the same form. Absent on purpose: what our Route values mean (`route`).

use crate::base::config::Config;
use crate::flow::arrival::Arrival;
use crate::flow::token::PREFIX;
use crate::sip::{Edits, HeaderName, Message, NameAddr, Scheme, Uri, unescape_into};

use super::naming;

/// Whether the Request-URI may need a change: a look at its bytes, for the many that need none.
pub fn may_differ(message: Message<'_>) -> bool {
    let uri = message.uri();
    let user = memchr::memchr(b':', uri).map_or(uri, |colon| &uri[colon + 1..]);
    let params = || memchr::memchr(b';', user).map_or(&b""[..], |at| &user[at..]);
    user.starts_with(PREFIX) || memchr::memchr(b'%', user).is_some() || names_maddr(params())
}

fn names_maddr(params: &[u8]) -> bool {
    let name = |param: &[u8]| param.get(..5).is_some_and(|it| it.eq_ignore_ascii_case(b"maddr"));
    !params.is_empty() && params.split(|byte| *byte == b';').any(name)
}

/// Appends the request in the form that the rules expect; false, with nothing appended, when it
/// has that form.
pub fn rewrite(
    config: &Config,
    message: Message<'_>,
    arrival: &Arrival,
    edits: &mut Edits,
    out: &mut Vec<u8>,
) -> bool {
    let Ok(uri) = Uri::parse(message.uri()) else { return false };
    edits.clear();
    let differs = if names_a_token(config, &uri) {
        loosen(message, edits)
    } else {
        strip_maddr(config, message, &uri, arrival, edits)
    };
    if differs {
        edits.write_to(message.bytes(), out);
    }
    differs
}

/// Only Record-Route and Path values of ours have a token for a user.
fn names_a_token(config: &Config, uri: &Uri<'_>) -> bool {
    let Some(user) = uri.user else { return false };
    let mut plain = Vec::new();
    let user = match memchr::memchr(b'%', user) {
        Some(_) => {
            unescape_into(user, &mut plain);
            plain.as_slice()
        }
        None => user,
    };
    user.starts_with(PREFIX) && naming::is_our_uri(config, uri)
}

/// RFC 3261 §16.4: the last Route value is the Request-URI that the sender meant. Ours goes on top
/// of Route, where the sender would have left it had it known of loose routing.
fn loosen(message: Message<'_>, edits: &mut Edits) -> bool {
    let Some(last) = message.values(HeaderName::Route).last() else { return false };
    let Ok(target) = NameAddr::parse(last.text) else { return false };
    edits.replace(message.uri_span(), target.uri);
    edits.remove_value(&last);
    edits.insert_with(message.first_header_start(), |out| {
        out.extend_from_slice(b"Route: <");
        out.extend_from_slice(message.uri());
        out.extend_from_slice(b">\r\n");
    });
    true
}

/// RFC 3261 §16.4: a `maddr` of ours, the request having come by the port and transport that the
/// Request-URI says, goes with them.
fn strip_maddr(
    config: &Config,
    message: Message<'_>,
    uri: &Uri<'_>,
    arrival: &Arrival,
    edits: &mut Edits,
) -> bool {
    let is_ours = naming::maddr(uri).is_some_and(|host| naming::is_our_host(config, host));
    if !is_ours || !came_as_said(config, uri, arrival) {
        return false;
    }
    edits.replace_with(message.uri_span(), |out| {
        let scheme: &[u8] = if uri.scheme == Scheme::Sips { b"sips:" } else { b"sip:" };
        out.extend_from_slice(scheme);
        if let Some(user) = uri.user {
            out.extend_from_slice(user);
            if let Some(password) = uri.password {
                out.push(b':');
                out.extend_from_slice(password);
            }
            out.push(b'@');
        }
        out.extend_from_slice(uri.host);
        let is_how = |name: &[u8]| {
            [&b"maddr"[..], b"transport"].iter().any(|how| name.eq_ignore_ascii_case(how))
        };
        for (name, value) in uri.params().filter(|(name, _)| !is_how(name)) {
            out.push(b';');
            out.extend_from_slice(name);
            if let Some(value) = value {
                out.push(b'=');
                out.extend_from_slice(value);
            }
        }
        out.extend_from_slice(uri.headers_raw);
    });
    true
}

/// Whether the request came by the transport and port that the URI says, or implies by saying none.
/// A URI names WS and WSS both `ws` (RFC 7118 §4.2).
fn came_as_said(config: &Config, uri: &Uri<'_>, arrival: &Arrival) -> bool {
    let Some(said) = naming::uri_transport(uri) else { return false };
    let came = arrival.transport();
    let port = uri.port.unwrap_or(match said.is_websocket() {
        true => came.default_port(),
        false => said.default_port(),
    });
    let listener = config.listener(arrival.listener());
    let advertised = listener.advertise.as_ref().map(|name| name.port);
    let is_port = port == listener.address.port()
        || advertised.is_some_and(|it| it.unwrap_or(came.default_port()) == port);
    let is_transport = said == came || said.is_websocket() && came.is_websocket();
    is_transport && is_port
}
