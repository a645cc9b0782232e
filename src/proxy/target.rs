//! The target set (RFC 3261 §16.5): where a request may go. Filled by the room that knows
//! (location, upstreams, tokens), emptied by forwarding; its storage is used again for the next
//! request.
//!
//! Its shape: *targets* in the order of their preference, each with a chain of *alternatives*.
//! Targets of equal q are a group, tried in parallel; groups are tried one after the other (§16.6).
//! An alternative is another way to the same client or server: it is tried only when the way before
//! it failed, in the place of its branch and with a new branch, and never beside it. So the flows of
//! one instance are one target with alternatives (RFC 5626 §7), as are the addresses of one server
//! (RFC 3263 §4.3); a way that comes up late is an alternative added late.

use std::net::SocketAddr;
use std::ops::Range;

use crate::base::config::{Config, Route, RouteTo};
use crate::base::host::same;
use crate::base::id::{ClientKey, FlowRef, StreamPath, Transport};
use crate::base::limits::{BRANCHES_MAX, TARGETS_MAX};
use crate::sip::{Message, Scheme, Uri, unescape_into};

/// Preference of a target for which nobody named one, in thousandths: the highest.
pub const Q_MAX: u16 = 1000;

/// One place to send a copy to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// How to get there.
    pub hop: Hop,
    /// Who is there, if it is a client that proved that.
    pub client: ClientKey,
    /// Preference in thousandths (RFC 3261 §20.10); an alternative's means nothing.
    q: u16,
    /// What is tried when this way fails.
    alternative: Option<u8>,
    /// New Request-URI: bytes of the set's text; empty keeps the request's own.
    uri: Range<usize>,
    /// Route values to put on top (the binding's Path): bytes of the set's text.
    route: Range<usize>,
    /// Who is there.
    pub peer: Peer,
}

/// Who is at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client, on a flow that it opened.
    Client,
    /// A client that is dialled at the address that it registered.
    Phone,
    /// A server that the configuration names.
    Server,
    /// One of several that the same name means: a dialog has to stay with it.
    OneOfServers,
}

impl Peer {
    /// Whether the configuration names it.
    pub fn is_server(self) -> bool {
        matches!(self, Peer::Server | Peer::OneOfServers)
    }

    /// Whether the URIs of a dialog do not lead back to where it was dialled.
    pub fn needs_token(self) -> bool {
        matches!(self, Peer::Phone | Peer::OneOfServers)
    }
}

/// The next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Exactly this flow: a client of ours.
    Client(FlowRef),
    /// A client of ours whose flow, this one, is gone: the next one it has, when it has one.
    Lost(StreamPath),
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
            Hop::Lost(path) => path.transport,
            Hop::Dial { transport, .. } => *transport,
        }
    }
}

/// All targets of one request and their alternatives, at most [`TARGETS_MAX`] together.
#[derive(Debug, Default)]
pub struct TargetSet {
    list: Vec<Target>,
    /// The targets that are no alternatives, by falling q; equal ones as they came.
    order: Vec<u8>,
    text: Vec<u8>,
    /// Whether the sender named the flow itself, by a token or an address, so that it may hear that
    /// the flow is gone (430) instead of that the user is (480).
    pub names_flow: bool,
    /// Whether the Route value that comes after ours is of a strict router (RFC 3261 §16.6 step 6).
    pub strict: bool,
}

impl TargetSet {
    /// Forgets everything, keeps the storage.
    pub fn clear(&mut self) {
        self.list.clear();
        self.order.clear();
        self.text.clear();
        self.names_flow = false;
        self.strict = false;
    }

    /// Adds a target of the highest preference; beyond the bound it is left out and `false`
    /// returned.
    pub fn push(&mut self, hop: Hop, uri: &[u8], route: &[u8]) -> bool {
        self.add(hop, uri, route, Q_MAX).is_some()
    }

    /// Adds a target of preference `q` and tells its index; beyond the bound it is left out.
    pub fn add(&mut self, hop: Hop, uri: &[u8], route: &[u8], q: u16) -> Option<usize> {
        let index = self.append(hop, uri, route, q)?;
        let place = self.order.partition_point(|at| self.list[usize::from(*at)].q >= q);
        self.order.insert(place, index);
        Some(usize::from(index))
    }

    /// Adds another way to the target at `index`, the last one to be tried; beyond the bound it is
    /// left out and `false` returned.
    pub fn add_alternative(&mut self, index: usize, hop: Hop, uri: &[u8], route: &[u8]) -> bool {
        let Some(added) = self.append(hop, uri, route, 0) else { return false };
        let mut last = index;
        while let Some(next) = self.alternative(last) {
            last = next;
        }
        self.list[last].alternative = Some(added);
        true
    }

    /// Adds another way to the target at `index`, the next one to be tried; beyond the bound it is
    /// left out and `false` returned.
    pub fn insert_alternative(&mut self, index: usize, hop: Hop) -> bool {
        if self.list.len() == TARGETS_MAX {
            return false;
        }
        let inserted = Target { hop, ..self.list[index].clone() };
        self.list[index].alternative = Some(self.list.len() as u8);
        self.list.push(inserted);
        true
    }

    /// Leaves out the next way to be tried after the one at `index`.
    pub fn drop_alternative(&mut self, index: usize) {
        let next = self.alternative(index).and_then(|next| self.list[next].alternative);
        self.list[index].alternative = next;
    }

    /// Adds one of several servers that may do as well, as a target or as the last alternative of
    /// the one at `first`; tells the index of the target.
    pub fn push_server(&mut self, hop: Hop, first: Option<usize>) -> Option<usize> {
        let added = match first {
            None => self.add(hop, &[], &[], Q_MAX),
            Some(index) => self.add_alternative(index, hop, &[], &[]).then_some(index),
        };
        if let Some(last) = self.list.last_mut().filter(|_| added.is_some()) {
            last.peer = Peer::OneOfServers;
        }
        added.or(first)
    }

    /// Adds the client that a dialog token says was dialled.
    pub fn push_phone(&mut self, hop: Hop) {
        self.push(hop, &[], &[]);
        self.list.last_mut().expect("just added").peer = Peer::Phone;
    }

    fn append(&mut self, hop: Hop, uri: &[u8], route: &[u8], q: u16) -> Option<u8> {
        if self.list.len() == TARGETS_MAX {
            return None;
        }
        let peer = match hop {
            Hop::Client(_) | Hop::Lost(_) => Peer::Client,
            Hop::Dial { .. } if !uri.is_empty() && route.is_empty() => Peer::Phone,
            Hop::Dial { .. } => Peer::Server,
        };
        let uri = self.keep(uri);
        let route = self.keep(route);
        let client = ClientKey::NONE;
        self.list.push(Target { hop, client, q, alternative: None, uri, route, peer });
        Some((self.list.len() - 1) as u8)
    }

    /// Says which client the target is that was added last.
    pub fn name_last(&mut self, client: ClientKey) {
        if let Some(last) = self.list.last_mut() {
            last.client = client;
        }
    }

    /// How many there are, alternatives included.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The target at an index, with its new Request-URI (if any) and its Route values. Panics
    /// beyond [`TargetSet::len`].
    pub fn at(&self, index: usize) -> (&Target, Option<&[u8]>, &[u8]) {
        let target = &self.list[index];
        let uri = &self.text[target.uri.clone()];
        (target, (!uri.is_empty()).then_some(uri), &self.text[target.route.clone()])
    }

    /// The index of the way to be tried when the one at `index` failed.
    pub fn alternative(&self, index: usize) -> Option<usize> {
        self.list[index].alternative.map(usize::from)
    }

    /// Whether any target has an alternative.
    pub fn has_alternatives(&self) -> bool {
        self.order.len() < self.list.len()
    }

    /// How many targets there are without alternatives: the length of the order.
    pub fn ordered(&self) -> usize {
        self.order.len()
    }

    /// The index of the target at a place in the order. Panics beyond [`TargetSet::ordered`].
    pub fn index_of(&self, place: usize) -> usize {
        usize::from(self.order[place])
    }

    /// The places in the order that belong to the group which begins at `place`: targets of equal
    /// q, at most [`BRANCHES_MAX`]. Empty behind the last.
    pub fn group(&self, place: usize) -> Range<usize> {
        let q = |at: &u8| self.list[usize::from(*at)].q;
        let rest = &self.order[place..];
        let first = rest.first().map(q);
        let count = rest.iter().take(BRANCHES_MAX).take_while(|at| Some(q(at)) == first).count();
        place..place + count
    }

    /// How many targets the largest group has.
    pub fn widest(&self) -> usize {
        let (mut place, mut widest) = (0, 0);
        while place < self.order.len() {
            let group = self.group(place);
            widest = widest.max(group.len());
            place = group.end;
        }
        widest
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
        Some(domain) => same(uri.domain(), domain.as_bytes()),
    };
    method_fits && domain_fits && user_fits(route, uri)
}

/// The expression sees the user without escapes, since URIs that differ in those are equal (RFC 3261
/// §19.1.4), the number of a `tel:` URI without its visual separators (RFC 3966 §5.1.1), and of
/// bytes that are not UTF-8 that something was there.
fn user_fits(route: &Route, uri: &Uri<'_>) -> bool {
    let Some(expression) = &route.user else { return true };
    let user = uri.user.unwrap_or_default();
    let is_separator = |byte: &u8| matches!(byte, b'-' | b'.' | b'(' | b')');
    if uri.scheme == Scheme::Tel && user.iter().any(is_separator) {
        let number: Vec<u8> = user.iter().copied().filter(|byte| !is_separator(byte)).collect();
        return expression.is_match(&String::from_utf8_lossy(&number));
    }
    if user.contains(&b'%') {
        let mut plain = Vec::new();
        unescape_into(user, &mut plain);
        return expression.is_match(&String::from_utf8_lossy(&plain));
    }
    expression.is_match(&String::from_utf8_lossy(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(port: u16) -> Hop {
        Hop::Dial { transport: Transport::Tcp, remote: ([192, 0, 2, 1], port).into() }
    }

    fn groups(set: &TargetSet) -> Vec<Vec<usize>> {
        let mut groups = Vec::new();
        let mut place = 0;
        while place < set.ordered() {
            let group = set.group(place);
            place = group.end;
            groups.push(group.map(|place| set.index_of(place)).collect());
        }
        groups
    }

    #[test]
    fn groups_go_from_high_to_low_q_and_keep_the_order_within() {
        let mut set = TargetSet::default();
        for (port, q) in [500, 1000, 0, 500, 1000].into_iter().enumerate() {
            set.add(hop(port as u16), b"", b"", q);
        }
        assert_eq!(groups(&set), [vec![1, 4], vec![0, 3], vec![2]]);
        assert_eq!((set.widest(), set.has_alternatives()), (2, false));
        set.clear();
        assert_eq!((set.widest(), set.group(0)), (0, 0..0));
    }

    #[test]
    fn alternatives_follow_each_other_and_stand_in_no_group() {
        let mut set = TargetSet::default();
        let first = set.add(hop(1), b"sip:a", b"", 10).unwrap();
        let other = set.add(hop(2), b"sip:b", b"", 20).unwrap();
        assert!(set.add_alternative(first, hop(3), b"sip:c", b"<sip:r>"));
        assert!(set.add_alternative(first, hop(4), b"sip:d", b""));
        assert_eq!(groups(&set), [vec![other], vec![first]]);
        let second = set.alternative(first).unwrap();
        assert_eq!(set.at(second).1, Some(&b"sip:c"[..]));
        let third = set.alternative(second).unwrap();
        assert_eq!((set.at(third).0.hop, set.alternative(third)), (hop(4), None));
        assert_eq!(set.alternative(other), None);
    }

    #[test]
    fn both_bounds_hold() {
        let mut set = TargetSet::default();
        for port in 0..TARGETS_MAX {
            assert!(set.push(hop(port as u16), b"", b""));
        }
        assert!(!set.push(hop(0), b"", b"") && !set.add_alternative(0, hop(0), b"", b""));
        assert_eq!((set.widest(), groups(&set).len()), (BRANCHES_MAX, TARGETS_MAX / BRANCHES_MAX));
    }
}
