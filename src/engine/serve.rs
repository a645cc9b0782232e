//! A request that opens a transaction: what is asked (RFC 3261 §16.3, §16.4, §9.2)?

use std::net::{IpAddr, SocketAddr};

use smallvec::SmallVec;

use crate::base::config::RouteTo;
use crate::base::host::parse_ip;
use crate::base::id::{DatagramPath, FlowRef, Transport};
use crate::base::limits::FLOW_REQUESTS_MAX;
use crate::base::slab::SlabKey;
use crate::flow::arrival::Arrival;
use crate::proxy::branch::{has_looped, loop_hash};
use crate::proxy::context::ResponseContext;
use crate::proxy::route::{self, Sender};
use crate::proxy::source::Source;
use crate::proxy::{Reject, naming, target, validate};
use crate::sip::{HeaderName, Message, Method, Parsed, Scheme, Uri, Via};
use crate::transaction::ServerKey;
use crate::transaction::{Server, ServerInvite, Steps, merge_key};

use super::Engine;
use super::admit::Errand;
use super::recall::Recall;
use super::transactions::{Armed, CancelReason, ServerMachine, ServerName, ServerTransaction};

/// What a request says of the way back.
#[derive(Clone, Copy, Debug)]
pub(super) struct WayBack {
    pub source: Source,
    /// To which port of the sender's address responses go: by datagram; or by a connection of ours
    /// when the sender's is gone. Absent: only by the flow that it came on.
    pub port: Option<(Transport, u16)>,
}

impl Engine {
    /// Makes the server transaction and serves its request.
    pub(super) fn open(
        &mut self,
        arrival: &Arrival,
        bytes: &[u8],
        parsed: &mut Parsed,
        key: ServerKey,
        back: WayBack,
    ) {
        let message = parsed.view(bytes);
        if self.answer_options(arrival, message) {
            return;
        }
        if message.method() != Method::Cancel && self.has_too_many(arrival) {
            let full = Reject::retry_after(480, 5, "Too many requests wait");
            return self.answer_stateless(arrival, message, &full);
        }
        let has_room = self.make_room();
        let is_invite = message.method() == Method::Invite;
        let timers = &self.config.timers;
        let reliable = arrival.transport().is_reliable();
        let (machine, steps) = if is_invite {
            (ServerMachine::Invite(ServerInvite::new(reliable, timers)), Steps::NONE)
        } else {
            let (machine, steps) = Server::start(reliable, timers);
            (ServerMachine::Other(machine), steps)
        };
        let transaction = ServerTransaction {
            machine,
            key,
            request: None,
            arrival: arrival.clone(),
            secure: arrival.transport().is_secure(),
            source: back.source,
            port_back: back.port,
            last: Vec::new(),
            best: None,
            context: ResponseContext::default(),
            branches: SmallVec::new(),
            search: None,
            cancel_reason: CancelReason::None,
            timers: Armed::default(),
            started: self.now,
            mark: None,
            is_invite,
            orphaned: false,
            lost: false,
            recall: Recall::default(),
            merge: None,
            reported: false,
        };
        let opened = if has_room { self.transactions.open(transaction) } else { None };
        let Some(tx) = opened else {
            let full = Reject::retry_after(500, 5, "Too many transactions");
            return self.answer_stateless(arrival, message, &full);
        };
        if let Some(flow) = arrival.source.stream() {
            let mark = self.transactions.by_source.add(flow, tx);
            self.transactions.server.get_mut(tx).expect("just made").mark = Some(mark);
        }
        self.serve_from(tx, bytes, parsed, steps);
    }

    /// Where responses to a request go, by its topmost Via and the way it came.
    pub(super) fn way_back(&self, arrival: &Arrival, message: Message<'_>) -> WayBack {
        // Of a WebSocket client's nothing counts (RFC 7118 §5).
        let is_read = !arrival.transport().is_websocket();
        let via = if is_read { message.top_via().ok() } else { None };
        match &via {
            Some(via) => {
                WayBack { source: Source::of(via, arrival), port: self.port_back(arrival, via) }
            }
            None => WayBack { source: Source::default(), port: None },
        }
    }

    /// RFC 3261 §18.2.2 for TCP and TLS: the source address and the port of sent-by, if an upstream
    /// is there. Never for WebSocket, which nobody can dial.
    fn port_back(&self, arrival: &Arrival, via: &Via<'_>) -> Option<(Transport, u16)> {
        let transport = arrival.transport();
        if let FlowRef::Datagram(path) = reply_to(arrival, via) {
            return Some((transport, path.remote.port()));
        }
        if !arrival.accepted || !matches!(transport, Transport::Tcp | Transport::Tls) {
            return None;
        }
        let port = via.sent_by_port.unwrap_or(transport.default_port());
        let remote = SocketAddr::new(arrival.remote.ip(), port);
        route::may_dial(&self.config, transport, remote).then_some((transport, port))
    }

    /// Whether a client's flow has as many requests waiting as one may: the table is for all.
    fn has_too_many(&self, arrival: &Arrival) -> bool {
        let waiting = |flow| self.transactions.by_source.count(flow) >= FLOW_REQUESTS_MAX;
        arrival.source.stream().is_some_and(waiting)
            && Sender::upstream(&self.config, arrival).is_none()
    }

    /// Serves with the request outside its transaction, then puts it there.
    fn serve_from(&mut self, tx: SlabKey, bytes: &[u8], parsed: &mut Parsed, steps: Steps) {
        let mut request = self.requests_kept.pop().unwrap_or_default();
        request.block = self.pool.copy(bytes);
        std::mem::swap(&mut request.parsed, parsed);
        let message = request.parsed.view(&request.block);
        self.run_server_steps(tx, message, &steps);
        if let Err(reject) = self.serve(tx, message) {
            self.answer_reject(tx, message, &reject);
        }
        self.keep_request(tx, request);
    }

    fn serve(&mut self, tx: SlabKey, message: Message<'_>) -> Result<(), Reject> {
        if message.method() == Method::Cancel {
            return self.serve_cancel(tx, message);
        }
        let transaction = self.transactions.server.get(tx).expect("just made");
        let arrival = transaction.arrival.clone();
        let sender = Sender::of(&self.config, &arrival);
        if sender.is_upstream() && arrival.accepted {
            self.learn_alias(&arrival, message);
        }
        let uri =
            Uri::parse(message.uri()).map_err(|fault| Reject::phrase(400, fault.kind.phrase()))?;
        let ours = naming::is_our_uri(&self.config, &uri);
        let errand = self.errand(message, &uri, ours);
        let for_us = is_for_us(errand);
        // What ends here and was sent here by its maker has not been here before.
        let is_first = for_us && !message.has_many(HeaderName::Via);
        let hash = match is_first {
            true => 0,
            false => loop_hash(&self.placement, message, sender, &mut self.scratch.key),
        };
        validate::validate(message, &uri, for_us, !is_first && has_looped(message, hash))?;
        if for_us {
            self.refuse_merged(tx, message)?;
        }
        let in_dialog = || message.to().ok().and_then(|to| to.tag()).is_some();
        if self.draining && !in_dialog() {
            return Err(Reject::retry_after(503, 5, "Shutting down"));
        }
        let routing = route::preprocess(&self.config, &self.tokens, message, &arrival, sender)?;
        let errand = errand.ok_or(Reject::new(404))?;
        match errand {
            Errand::Register => {
                self.check_registrable(message)?;
                check_path(message, sender)?;
            }
            Errand::RegisterElsewhere => {
                check_path(message, sender)?;
                if self.config.registrar.require_path {
                    path_supported(message)?;
                }
            }
            Errand::Request { .. } => {}
        }
        if !self.admit(tx, message, &arrival, sender, &routing, errand) {
            return Ok(());
        }
        if errand == Errand::Register {
            return self.register(tx, message);
        }
        self.find_targets(message, &uri, &arrival, sender, routing)?;
        if message.method() == Method::Invite {
            self.answer_trying(tx, message);
        }
        self.fork(tx, message, sender, routing.popped, hash)
    }

    /// RFC 3261 §8.2.2.2: the same request that came by another way is answered 482 where it ends
    /// here.
    fn refuse_merged(&mut self, tx: SlabKey, message: Message<'_>) -> Result<(), Reject> {
        let Some(key) = merge_key(&self.placement, message) else { return Ok(()) };
        if self.transactions.merged.contains_key(&key) {
            return Err(Reject::because(482, "Merged request"));
        }
        self.transactions.merged.insert(key, ServerName::Living(tx));
        if let Some(transaction) = self.transactions.server.get_mut(tx) {
            transaction.merge = Some(key);
        }
        Ok(())
    }

    /// What a request wants of us; `None` when no rule says which registrar its REGISTER is for.
    fn errand(&self, message: Message<'_>, uri: &Uri<'_>, ours: bool) -> Option<Errand> {
        if !ours || message.method() != Method::Register {
            return Some(Errand::Request { to_us: ours });
        }
        match target::first_route(&self.config, message, uri)? {
            RouteTo::Location => Some(Errand::Register),
            _ => Some(Errand::RegisterElsewhere),
        }
    }

    /// RFC 3261 §10.3 step 5: the address of record must lie in a domain of ours. One that is no SIP
    /// URI could not (§10.2, RFC 4475 §3.3.4).
    fn check_registrable(&self, message: Message<'_>) -> Result<(), Reject> {
        let to = message.to().and_then(|to| Uri::parse(to.uri));
        let uri = to.map_err(|fault| Reject::phrase(400, fault.kind.phrase()))?;
        if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
            return Err(Reject::phrase(400, "To Needs a SIP URI"));
        }
        if uri.user.is_some() && self.config.is_our_domain(uri.host) {
            return Ok(());
        }
        Err(Reject::because(404, "No such address of record here"))
    }

    /// RFC 3261 §9.2 and §16.10: 200 at once when there is something to cancel, 481 otherwise.
    fn serve_cancel(&mut self, tx: SlabKey, message: Message<'_>) -> Result<(), Reject> {
        let key = self.cancelled_key(message);
        let found =
            key.and_then(|key| self.transactions.by_key.get(&key)).and_then(|name| name.living());
        let invite = found.and_then(|invite| self.transactions.server.get(invite));
        let cancel = self.transactions.server.get(tx);
        let Some(invite) =
            invite.filter(|invite| cancel.is_some_and(|it| may_cancel(invite, &it.arrival)))
        else {
            return Err(Reject::new(481));
        };
        let answered = invite.context.sent != 0;
        self.answer(tx, message, 200, None, &[]);
        if !answered {
            let reason = match message.header(HeaderName::Reason) {
                Some(header) => CancelReason::Said(header.value.into()),
                None => CancelReason::None,
            };
            self.cancel_branches(found.expect("found above"), None, reason);
        }
        Ok(())
    }
}

/// A CANCEL is never challenged, but should come from where its INVITE came from (RFC 3261 §22.1).
/// That can be asked of a client that is known and there: whoever else it is may have another
/// address by now.
fn may_cancel(invite: &ServerTransaction, arrival: &Arrival) -> bool {
    let sender = &invite.arrival;
    let is_there = sender.client.is_some() && !invite.lost && !invite.orphaned;
    !is_there
        || sender.client == arrival.client
        || sender.source == arrival.source
        || sender.remote.ip() == arrival.remote.ip()
}

/// A REGISTER that no other registrar judges.
fn is_for_us(errand: Option<Errand>) -> bool {
    matches!(errand, None | Some(Errand::Register))
}

/// RFC 3327 §6: a Path is for the servers behind us, who trust us, to send requests by. A client's
/// would lead them wherever it likes.
fn check_path(message: Message<'_>, sender: Sender) -> Result<(), Reject> {
    match message.header(HeaderName::Path) {
        Some(_) if !sender.is_upstream() => Err(Reject::because(403, "Paths are for servers")),
        _ => Ok(()),
    }
}

/// RFC 3327 §5.2: who cannot do without Path asks for clients that know it (RFC 3261 §21.4.15).
fn path_supported(message: Message<'_>) -> Result<(), Reject> {
    let mut tags = message.values(HeaderName::Supported);
    match tags.any(|value| value.text.eq_ignore_ascii_case(b"path")) {
        true => Ok(()),
        false => Err(Reject::new(421).with_header(b"Require: path")),
    }
}

/// Where responses go: the flow itself; for datagrams `maddr`, else with `rport` the source, else
/// the source address with the port of sent-by (RFC 3261 §18.2.2, RFC 3581 §4).
pub(super) fn reply_to(arrival: &Arrival, via: &Via<'_>) -> FlowRef {
    let FlowRef::Datagram(path) = arrival.source else { return arrival.source };
    let port = via.sent_by_port.unwrap_or(arrival.transport().default_port());
    let remote = match via.maddr.and_then(parse_ip) {
        Some(ip) if is_near(ip, path.remote.ip()) => SocketAddr::new(ip, port),
        _ if via.rport.is_some() => path.remote,
        _ => SocketAddr::new(path.remote.ip(), port),
    };
    FlowRef::Datagram(DatagramPath { remote, ..path })
}

/// A `maddr` may not turn us into a reflector toward third parties: only the sender's own address
/// is taken.
fn is_near(maddr: IpAddr, source: IpAddr) -> bool {
    maddr == source
}
