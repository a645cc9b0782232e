//! Where a request may go (RFC 3261 §16.5): by token, by address, by the routing rules, by the
//! location service.

use std::net::SocketAddr;

use crate::base::config::RouteTo;
use crate::base::id::{ClientKey, FlowId, FlowRef, Transport};
use crate::flow::arrival::Arrival;
use crate::flow::token::TokenKind;
use crate::proxy::route::{self, End, Routing, Sender, Way};
use crate::proxy::target::{self, Hop};
use crate::proxy::{Reject, naming, place};
use crate::registrar::{Binding, BindingFlow};
use crate::sip::{HeaderName, Message, Method, NameAddr, Scheme, Uri};

use super::Engine;
use super::pick::{Choice, SIPS_NOT_ALLOWED, Warning};

impl Engine {
    /// Fills the target set, or says why there is none.
    pub(super) fn find_targets(
        &mut self,
        message: Message<'_>,
        uri: &Uri<'_>,
        arrival: &Arrival,
        sender: Sender,
        routing: Routing,
    ) -> Result<(), Reject> {
        self.scratch.targets.clear();
        self.scratch.targets.strict = routing.strict;
        let next = message.values(HeaderName::Route).nth(routing.popped);
        let found = match routing.way {
            Way::Flow(end, _) if self.aim_at_instance(uri, end.flow) => Ok(()),
            Way::Flow(end, kind) => self.aim_at_end(uri, end, kind, sender),
            Way::Dialled(transport, remote) => {
                self.aim_at_dialled(next.map(|value| value.text), uri, (transport, remote))
            }
            Way::Outgoing | Way::Stale => match next {
                Some(value) => self.aim_at_route(value.text),
                None => self.aim_at_remote_target(message, uri, arrival, sender, routing.way),
            },
            Way::Initial if next.is_some() => Err(Reject::because(403, "Route to a foreign host")),
            Way::Initial => self.aim_at_request_uri(message, uri, sender),
        };
        found.and_then(|()| self.check_security(uri))
    }

    /// RFC 3261 §26.2.2: wherever the target came from, what was asked for by `sips:` goes over
    /// TLS.
    fn check_security(&self, uri: &Uri<'_>) -> Result<(), Reject> {
        let targets = &self.scratch.targets;
        let is_secure = |at: usize| targets.at(at).0.hop.transport().is_secure();
        if uri.scheme != Scheme::Sips || (0..targets.len()).all(is_secure) {
            return Ok(());
        }
        Err(Reject::warn(480, SIPS_NOT_ALLOWED.0, SIPS_NOT_ALLOWED.1))
    }

    /// A token named the flow. Its security may not be less than the URI demands. When it is known
    /// to be gone its client may be back on another.
    fn aim_at_end(
        &mut self,
        uri: &Uri<'_>,
        end: End,
        kind: TokenKind,
        sender: Sender,
    ) -> Result<(), Reject> {
        let End { flow, client } = end;
        if uri.scheme == Scheme::Sips && !flow.transport().is_secure() {
            return Err(Reject::warn(480, SIPS_NOT_ALLOWED.0, SIPS_NOT_ALLOWED.1));
        }
        let hop = match flow {
            FlowRef::Datagram(path) if client.is_some() => {
                match self.tenants.find(path, client.of_aor()) {
                    Some(path) => Hop::Client(FlowRef::Datagram(path)),
                    None => {
                        return Err(self.gone(kind == TokenKind::Path || sender.is_upstream()));
                    }
                }
            }
            FlowRef::Stream(path) if self.is_known_gone(path.flow) => {
                if !self.may_seek(client) {
                    return Err(self.gone(kind == TokenKind::Path || sender.is_upstream()));
                }
                Hop::Lost(path)
            }
            _ => Hop::Client(flow),
        };
        self.scratch.targets.push(hop, &[], &[]);
        self.scratch.targets.name_last(client);
        self.scratch.targets.names_flow = true;
        Ok(())
    }

    /// Whether it needs no other shard to say that a flow is gone.
    fn is_known_gone(&self, flow: FlowId) -> bool {
        let is_ours = flow.shard() == self.shard;
        is_ours && !self.flows.has(flow) || flow.shard().0 >= self.shards
    }

    /// A request in a dialog whose remote target is a GRUU: the client's Contact replaces it (RFC
    /// 5627 §6.1). The flow that the token names comes first, then the newest of the instance that
    /// is no less secure. False when none is here.
    fn aim_at_instance(&mut self, uri: &Uri<'_>, named: FlowRef) -> bool {
        if uri.param("gr").is_none() || !naming::is_our_uri(&self.config, uri) {
            return false;
        }
        let mut aor = Vec::new();
        let Some(gruu) = self.gruus.read(uri, &mut aor) else { return false };
        let is_secure = uri.scheme == Scheme::Sips || named.transport().is_secure();
        let meant = self.location.lookup(&aor, self.now).filter(|it| self.gruus.is_of(&gruu, it));
        let mut best = None;
        for binding in meant {
            let Some(hop) = hop_of_flow(binding) else { continue };
            if matches!(hop, Hop::Client(flow) if flow.same_peer(named)) {
                best = Some((hop, binding));
                break;
            }
            let is_better =
                best.is_none_or(|(best, _)| matches!((best, hop), (Hop::Lost(_), Hop::Client(_))));
            if is_better && (!is_secure || hop.transport().is_secure()) {
                best = Some((hop, binding));
            }
        }
        let Some((hop, binding)) = best else { return false };
        self.scratch.targets.push(hop, binding.contact(), &[]);
        self.scratch.targets.name_last(binding.client());
        self.scratch.targets.names_flow = true;
        true
    }

    /// RFC 5626 §5.3.1: 430 to those who keep flows of their own, 480 to endpoints (§11.5).
    fn gone(&mut self, sender_is_server: bool) -> Reject {
        self.counters.requests_flow_gone += 1;
        Reject::because(if sender_is_server { 430 } else { 480 }, "The flow is gone")
    }

    /// A foreign Route behind our token.
    fn aim_at_route(&mut self, value: &[u8]) -> Result<(), Reject> {
        let address = NameAddr::parse(value).map_err(|_| Reject::phrase(400, "Bad Route"))?;
        let uri = Uri::parse(address.uri).map_err(|_| Reject::phrase(400, "Bad Route URI"))?;
        match route::dial(&self.config, &uri, None) {
            Some(dial) => {
                let hop = Hop::Dial { transport: dial.transport, remote: dial.remote };
                self.scratch.targets.push(hop, &[], &[]);
                Ok(())
            }
            None => Err(Reject::because(403, "Route to a foreign host")),
        }
    }

    /// A token named whom we had dialled. A server is found by the URIs, the dialled one among
    /// those of its name; a client where it was.
    fn aim_at_dialled(
        &mut self,
        next: Option<&[u8]>,
        uri: &Uri<'_>,
        known: (Transport, SocketAddr),
    ) -> Result<(), Reject> {
        let address = next.and_then(|value| NameAddr::parse(value).ok());
        let next = address.and_then(|address| Uri::parse(address.uri).ok());
        let dial = route::dial(&self.config, next.as_ref().unwrap_or(uri), Some(known));
        match dial {
            Some(route::Dial { transport, remote, .. }) => {
                self.scratch.targets.push(Hop::Dial { transport, remote }, &[], &[]);
            }
            None => {
                let (transport, remote) = known;
                self.scratch.targets.push_phone(Hop::Dial { transport, remote });
            }
        }
        Ok(())
    }

    /// In a dialog of ours, no Route left: the Request-URI is the peer's Contact.
    fn aim_at_remote_target(
        &mut self,
        message: Message<'_>,
        uri: &Uri<'_>,
        arrival: &Arrival,
        sender: Sender,
        way: Way,
    ) -> Result<(), Reject> {
        if naming::is_our_uri(&self.config, uri) {
            return self.aim_by_rules(message, uri, sender);
        }
        if let Some(dial) = route::dial(&self.config, uri, None) {
            let hop = Hop::Dial { transport: dial.transport, remote: dial.remote };
            self.scratch.targets.push(hop, &[], &[]);
            return Ok(());
        }
        if let Some(flow) = self.by_address(message, uri, sender) {
            let end = End { flow, client: ClientKey::NONE };
            return self.aim_at_end(uri, end, TokenKind::Dialog, sender);
        }
        match way {
            Way::Stale => Err(self.gone(sender.is_upstream())),
            _ if arrival.transport() == Transport::Udp && sender.is_upstream() => {
                Err(self.gone(true))
            }
            _ => Err(Reject::because(403, "Relaying to a foreign host")),
        }
    }

    fn aim_at_request_uri(
        &mut self,
        message: Message<'_>,
        uri: &Uri<'_>,
        sender: Sender,
    ) -> Result<(), Reject> {
        let ours = uri.scheme == Scheme::Tel || naming::is_our_uri(&self.config, uri);
        if ours {
            return self.aim_by_rules(message, uri, sender);
        }
        if let Some(flow) = self.by_address(message, uri, sender) {
            let end = End { flow, client: ClientKey::NONE };
            return self.aim_at_end(uri, end, TokenKind::Dialog, sender);
        }
        match target::first_route(&self.config, message, uri) {
            Some(RouteTo::Upstream(at)) => {
                let at = *at;
                self.aim_at_upstream(message, at)
            }
            Some(RouteTo::Reject(status)) => Err(Reject::new(*status)),
            _ if sender.is_upstream() => Err(Reject::new(404)),
            _ => Err(Reject::because(403, "Relaying to a foreign host")),
        }
    }

    /// Row 3 and 4b of the look-up: only servers that the configuration names find a client by its
    /// Contact or address, and only when the Contact is exactly one binding's, or the server may
    /// look up addresses.
    fn by_address(
        &mut self,
        message: Message<'_>,
        uri: &Uri<'_>,
        sender: Sender,
    ) -> Option<FlowRef> {
        let Sender::Upstream(at) = sender else { return None };
        let mut key = std::mem::take(&mut self.scratch.key);
        key.clear();
        place::index_key(uri, &mut key);
        let in_dialog = message.to().ok().and_then(|to| to.tag()).is_some();
        let contact = if in_dialog {
            let mut canonical = Vec::new();
            crate::registrar::canonical_contact(uri, &mut canonical);
            self.index.contact(&key, &canonical)
        } else {
            None
        };
        let accepted =
            || self.config.upstreams[at].address_lookup.then(|| self.index.accepted(&key, uri))?;
        let found = contact.or_else(accepted);
        self.scratch.key = key;
        found
    }

    /// `[[route]]`: the first match wins; none is 404. What names us and no user, and is for no
    /// server behind us, is for ourselves.
    fn aim_by_rules(
        &mut self,
        message: Message<'_>,
        uri: &Uri<'_>,
        sender: Sender,
    ) -> Result<(), Reject> {
        let names_nobody = uri.user.is_none();
        match target::first_route(&self.config, message, uri) {
            Some(RouteTo::Location) | None if names_nobody => Err(as_server(message)),
            Some(RouteTo::Location) => self.aim_at_location(uri, sender),
            Some(RouteTo::Upstream(at)) => {
                let at = *at;
                self.aim_at_upstream(message, at)
            }
            Some(RouteTo::Reject(status)) => Err(Reject::new(*status)),
            None => Err(Reject::new(404)),
        }
    }

    /// The bindings of the address of record, one copy a client (RFC 3261 §16.5, RFC 5626 §7).
    fn aim_at_location(&mut self, uri: &Uri<'_>, sender: Sender) -> Result<(), Reject> {
        let mut aor = std::mem::take(&mut self.scratch.key);
        aor.clear();
        let picked = self.pick_bindings(uri, &mut aor);
        let found = match picked {
            Err(reject) => Err(reject),
            Ok(_) if !self.scratch.targets.is_empty() => Ok(()),
            Ok(Some((code, why))) => Err(Reject::warn(480, code, why)),
            // Strangers are not told who exists.
            Ok(None) if sender != Sender::Stranger && !self.is_known(&aor) => Err(Reject::new(404)),
            Ok(None) => Err(Reject::new(480)),
        };
        self.scratch.key = aor;
        found
    }

    /// Whether there is, or was, such a user.
    fn is_known(&self, aor: &[u8]) -> bool {
        let is_user = || self.config.auth.users().is_some_and(|it| it.by_aor(aor).is_some());
        self.location.was_known(aor) || is_user()
    }

    /// Adds the bindings that `uri` stands for and that fit; says why one did not. `aor` becomes
    /// the canonical address of record.
    fn pick_bindings(
        &mut self,
        uri: &Uri<'_>,
        aor: &mut Vec<u8>,
    ) -> Result<Option<Warning>, Reject> {
        let gruu = match uri.param("gr") {
            Some(_) => Some(self.gruus.read(uri, aor).ok_or(Reject::new(404))?),
            None => None,
        };
        if gruu.is_none() {
            uri.aor_into(aor);
        }
        let choice = Choice {
            users: self.config.auth.has_method().then_some(&self.placement),
            sips: uri.scheme == Scheme::Sips,
            sips_to_sip: self.config.registrar.sips_to_sip_contact,
        };
        let all = self.location.remembered(aor, self.now);
        let meant = all.filter(|it| gruu.as_ref().is_none_or(|gruu| self.gruus.is_of(gruu, it)));
        let mut bindings = meant.peekable();
        // Only the last registration's temporary GRUUs are valid (RFC 5627 §5.1, §5.3).
        if gruu.as_ref().is_some_and(|gruu| gruu.is_outdated(bindings.peek().copied())) {
            return Err(Reject::because(404, "The GRUU is not valid any more"));
        }
        let reachable = bindings.filter(|binding| !self.location.is_gone(binding, self.now));
        Ok(choice.pick(reachable, &self.config, &mut self.scratch.targets))
    }
}

/// The flow of a binding that has one, be it lost.
pub(super) fn hop_of_flow(binding: &Binding) -> Option<Hop> {
    match binding.flow() {
        BindingFlow::Flow(flow) => Some(Hop::Client(flow)),
        BindingFlow::Suspended(path) => Some(Hop::Lost(path)),
        BindingFlow::Path | BindingFlow::Dial | BindingFlow::Lost => None,
    }
}

/// What a user agent server that keeps no dialogs, and serves OPTIONS and REGISTER elsewhere, says
/// to all else (RFC 3261 §8.2.1, §12.2.2, §21.5.2).
#[cold]
fn as_server(message: Message<'_>) -> Reject {
    match message.method() {
        _ if message.to().is_ok_and(|to| to.tag().is_some()) => Reject::new(481),
        Method::Other(_) => Reject::new(501),
        _ => Reject::new(405).with_header(b"Allow: OPTIONS, REGISTER"),
    }
}
