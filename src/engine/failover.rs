//! Servers behind us of which some do not do what they should: in which order they are tried, which
//! failure makes us try the next, and what becomes of the branch before (RFC 3263 §4.3, RFC 3261
//! §16.7 step 6, §18.1.1). Also the connections that servers made and let us use (RFC 5923). Absent
//! on purpose: how the next way is begun (`search`), and the choice itself (`proxy/upstream`).

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::config::UpstreamTarget;
use crate::base::id::{FlowRef, Transport};
use crate::base::limits::{STREAM_PATIENCE, TARGET_REST, TARGET_REST_MAX};
use crate::base::slab::SlabKey;
use crate::flow::arrival::Arrival;
use crate::proxy::target::Hop;
use crate::proxy::upstream::{Tried, choose};
use crate::proxy::{Reject, route};
use crate::sip::{HeaderName, Message};
use crate::transaction::Timer;

use super::Engine;
use super::alarm::Alarm;
use super::transactions::{Cancel, ClientMachine, Way};

impl Engine {
    /// The target that is due, the others as its alternatives (RFC 3263 §4.3). Requests of one
    /// Call-ID meet one target, so that it knows its own challenges and dialogs.
    pub(super) fn aim_at_upstream(
        &mut self,
        message: Message<'_>,
        at: usize,
    ) -> Result<(), Reject> {
        let upstream = &self.config.upstreams[at];
        let targets = &mut self.scratch.targets;
        let hop = |target: &UpstreamTarget| {
            let UpstreamTarget { transport, address: remote, .. } = *target;
            Hop::Dial { transport, remote }
        };
        if let [only] = upstream.targets.as_slice() {
            targets.push(hop(only), &[], &[]);
            return Ok(());
        }
        // The low half of the hash has chosen the shard.
        let random = self.placement.of(message.call_id().unwrap_or_default()) >> 32;
        let rests = |target: &UpstreamTarget| {
            self.standing.rests(target.transport, target.address, self.now)
        };
        let (mut tried, mut first) = (Tried::default(), None);
        while let Some(next) = choose(&upstream.targets, tried, rests, random) {
            tried = tried.and(next);
            first = targets.push_server(hop(&upstream.targets[next]), first);
        }
        match first {
            Some(_) => Ok(()),
            None => Err(Reject::because(500, "The upstream has no target")),
        }
    }

    /// Has an alarm ring when a server has said nothing for the time that its upstream gives it, or
    /// when a connection that a large request could do without takes too long.
    pub(super) fn watch_silence(&mut self, client: SlabKey) {
        let Some(transaction) = self.transactions.client.get_mut(client) else { return };
        let Some((_, remote)) = transaction.dialled.filter(|_| transaction.trusted) else { return };
        let is_connecting = transaction.is_large && transaction.hop == Way::Connecting;
        let patience = match route::upstream_at(&self.config, remote) {
            _ if is_connecting => STREAM_PATIENCE,
            Some(upstream) => upstream.timeout,
            None => return,
        };
        let alarm = self.wheel.arm(self.now + patience, Alarm::Silence(client));
        if let Some(old) = transaction.silence.replace(alarm) {
            self.wheel.cancel(old);
        }
    }

    /// The connection that a branch waited for is there. A large request needs no other way to the
    /// same server any more; the server has its time from here on.
    pub(super) fn on_branch_connected(&mut self, client: SlabKey) {
        let Some(transaction) = self.transactions.client.get_mut(client) else { return };
        let Some(alarm) = transaction.silence.take() else { return };
        self.wheel.cancel(alarm);
        let (is_large, at) = (transaction.is_large, usize::from(transaction.place.target));
        let server = transaction.server.and_then(|server| self.transactions.server.get_mut(server));
        let Some(search) = server.and_then(|server| server.search.as_mut()) else { return };
        if is_large {
            search.targets.drop_alternative(at);
        }
        if search.targets.alternative(at).is_some() {
            self.watch_silence(client);
        }
    }

    /// Nothing came in time: the next way is tried, if there is one.
    pub(super) fn on_silence(&mut self, client: SlabKey) {
        let Some(transaction) = self.transactions.client.get_mut(client) else { return };
        transaction.silence = None;
        let Some(server) = transaction.server.filter(|_| !transaction.ended) else { return };
        self.note_failure(client);
        if self.try_alternative(server, client) {
            self.abandon(client);
        }
    }

    /// A branch that another one replaced although its server may yet answer. Nothing more is sent
    /// but a CANCEL, once it shows that it got the INVITE (RFC 3261 §9.1).
    fn abandon(&mut self, client: SlabKey) {
        let Some(transaction) = self.transactions.client.get_mut(client) else { return };
        transaction.ended = true;
        if transaction.hop == Way::Connecting {
            return self.end_client(client);
        }
        transaction.abandoned = true;
        if matches!(transaction.machine, ClientMachine::Invite(_)) {
            transaction.cancel = Cancel::Wanted;
        }
        for timer in [Timer::A, Timer::E, Timer::C] {
            if let Some(id) = transaction.timers.take(timer) {
                self.wheel.cancel(id);
            }
        }
    }

    /// Whether a response matters. A server that was given up may have accepted all the same: then
    /// its branch counts again, since nobody else would tell the sender (RFC 3261 §16.7 step 5).
    pub(super) fn revive(&mut self, tx: SlabKey, client: SlabKey, status: u16) -> bool {
        let Some(branch) = self.transactions.client.get_mut(client) else { return true };
        if !branch.abandoned {
            return true;
        }
        let Some(server) = self.transactions.server.get_mut(tx) else { return true };
        if !(200..300).contains(&status) {
            return false;
        }
        (branch.abandoned, branch.ended) = (false, false);
        server.context.live += 1;
        true
    }

    /// A branch failed without a response: what it tells of the peer is kept for later requests.
    pub(super) fn note_failure(&mut self, client: SlabKey) {
        let Some(transaction) = self.transactions.client.get(client) else { return };
        let Some(peer) = transaction.dialled.filter(|_| transaction.trusted) else { return };
        if transaction.is_large && transaction.hop == Way::Connecting {
            self.connects.refuse(peer.1, self.now);
        } else {
            self.standing.rest(peer, TARGET_REST, self.now);
        }
    }

    /// A server answered 503: with Retry-After it is left alone for so long (RFC 3261 §21.5.4).
    pub(super) fn note_refusal(&mut self, client: SlabKey, response: Message<'_>) {
        let Some(transaction) = self.transactions.client.get(client) else { return };
        let Some(peer) = transaction.dialled.filter(|_| transaction.trusted) else { return };
        let Some(header) = response.header(HeaderName::RetryAfter) else { return };
        let digits = header.value.split(|byte| !byte.is_ascii_digit()).next().unwrap_or_default();
        let seconds = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        if let Some(seconds) = seconds {
            let rest = Duration::from_secs(seconds).min(TARGET_REST_MAX);
            self.standing.rest(peer, rest, self.now);
        }
    }

    /// RFC 5923 §8.1 for servers that the configuration names: a TLS connection whose requests say
    /// `alias` leads to its source address and the port of sent-by. Not TCP, where nothing tells
    /// who made it (§10). The source is what the upstream is known by; nobody can claim another.
    pub(super) fn learn_alias(&mut self, arrival: &Arrival, message: Message<'_>) {
        let FlowRef::Stream(path) = arrival.source else { return };
        let Ok(via) = message.top_via() else { return };
        if path.transport != Transport::Tls || !via.alias {
            return;
        }
        let port = via.sent_by_port.unwrap_or(path.transport.default_port());
        let remote = SocketAddr::new(arrival.remote.ip(), port);
        if route::may_dial(&self.config, path.transport, remote) {
            self.connects.add_alias((path.transport, remote), path);
        }
    }
}
