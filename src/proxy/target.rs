//! The target set (RFC 3261 §16.5): where a request may go. Filled by the room that knows
//! (location, upstreams, tokens), emptied by forwarding; its storage is used again for the next
//! request.

use std::net::SocketAddr;
use std::ops::Range;

use crate::base::config::{Config, Route, RouteTo};
use crate::base::host::same;
use crate::base::id::{FlowRef, Transport};
use crate::base::limits::BRANCHES_MAX;
use crate::sip::{Message, Scheme, Uri};

/// One place to send a copy to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// How to get there.
    pub hop: Hop,
    /// New Request-URI: bytes of the set's text; empty keeps the request's own.
    uri: Range<usize>,
    /// Route values to put on top (the binding's Path): bytes of the set's text.
    route: Range<usize>,
}

/// The next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Exactly this flow: a client of ours.
    Client(FlowRef),
    /// An address that may be dialled: an upstream, or a Path's first hop.
    Dial {
        /// UDP, TCP or TLS.
        transport: Transport,
        /// Where.
        remote: SocketAddr,
    },
}

impl Hop {
    /// What will be spoken there.
    pub fn transport(&self) -> Transport {
        match self {
            Hop::Client(flow) => flow.transport(),
            Hop::Dial { transport, .. } => *transport,
        }
    }
}

/// All targets of one request, at most [`BRANCHES_MAX`].
#[derive(Debug, Default)]
pub struct TargetSet {
    list: Vec<Target>,
    text: Vec<u8>,
    /// Whether the sender named the flow itself, by a token or an address, so that it may hear that
    /// the flow is gone (430) instead of that the user is (480).
    pub names_flow: bool,
}

impl TargetSet {
    /// Forgets everything, keeps the storage.
    pub fn clear(&mut self) {
        self.list.clear();
        self.text.clear();
        self.names_flow = false;
    }

    /// Adds a target; beyond the bound it is left out and `false` returned.
    pub fn push(&mut self, hop: Hop, uri: &[u8], route: &[u8]) -> bool {
        if self.list.len() == BRANCHES_MAX {
            return false;
        }
        let uri = self.keep(uri);
        let route = self.keep(route);
        self.list.push(Target { hop, uri, route });
        true
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The target at a position, with its new Request-URI (if any) and its Route values. Panics
    /// beyond [`TargetSet::len`].
    pub fn at(&self, index: usize) -> (&Target, Option<&[u8]>, &[u8]) {
        let target = &self.list[index];
        let uri = &self.text[target.uri.clone()];
        (target, (!uri.is_empty()).then_some(uri), &self.text[target.route.clone()])
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        start..self.text.len()
    }
}

/// The first `[[route]]` that matches the request (first match wins).
pub fn first_route<'c>(
    config: &'c Config,
    message: Message<'_>,
    uri: &Uri<'_>,
) -> Option<&'c RouteTo> {
    config.routes.iter().find(|route| matches(route, message, uri)).map(|route| &route.to)
}

fn matches(route: &Route, message: Message<'_>, uri: &Uri<'_>) -> bool {
    let method = message.method();
    let method_fits = route.methods.is_empty()
        || route.methods.iter().any(|name| name.as_bytes() == method.as_bytes());
    let domain_fits = match &route.domain {
        None => true,
        Some(domain) if uri.scheme == Scheme::Tel => domain == "none",
        Some(domain) => same(uri.host, domain.as_bytes()),
    };
    method_fits && domain_fits && user_fits(route, uri)
}

/// The expression sees the user as it stands in the URI, the number of a `tel:` URI without its
/// visual separators (RFC 3966 §5.1.1); bytes that are not UTF-8 match nothing.
fn user_fits(route: &Route, uri: &Uri<'_>) -> bool {
    let Some(expression) = &route.user else { return true };
    let user = uri.user.unwrap_or_default();
    let is_separator = |byte: &u8| matches!(byte, b'-' | b'.' | b'(' | b')');
    if uri.scheme == Scheme::Tel && user.iter().any(is_separator) {
        let number: Vec<u8> = user.iter().copied().filter(|byte| !is_separator(byte)).collect();
        return std::str::from_utf8(&number).is_ok_and(|user| expression.is_match(user));
    }
    std::str::from_utf8(user).is_ok_and(|user| expression.is_match(user))
}
