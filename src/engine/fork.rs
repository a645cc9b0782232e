//! Copies of a request for its targets, each with a client transaction (RFC 3261 §16.6). Absent on
//! purpose: which target is next (`search`), and ACKs, which have no transaction (`ack`).

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::config::Timers;
use crate::base::id::{ClientKey, DatagramPath, FlowRef, ListenerId, Transport};
use crate::base::slab::SlabKey;
use crate::flow::arrival::Arrival;
use crate::proxy::branch::BranchId;
use crate::proxy::forward::{Onward, forward, opens_dialog};
use crate::proxy::identity::Border;
use crate::proxy::route::{self, Sender};
use crate::proxy::source::Source;
use crate::proxy::target::{Hop, Peer, TargetSet};
use crate::proxy::{Reject, breadth, naming};
use crate::sip::{Message, Method};
use crate::transaction::{Client, ClientInvite, Steps, Timer};

use super::client::Failure;
use super::connect::Waiter;
use super::search::{Place, Search};
use super::seek::Asker;
use super::transactions::{Armed, Cancel, ClientMachine, ClientTransaction, Way};
use super::{Deferred, Engine};

impl Engine {
    /// Sends copies to the first of the targets found; the others wait for their turn.
    pub(super) fn fork(
        &mut self,
        tx: SlabKey,
        message: Message<'_>,
        sender: Sender,
        popped: usize,
        hash: u32,
    ) -> Result<(), Reject> {
        let breadth = breadth::incoming(message);
        if usize::from(breadth) < self.scratch.targets.widest() {
            return Err(Reject::new(440));
        }
        let search = self.new_search(sender, popped, hash, breadth);
        match self.begin_search(tx, message, search) {
            true => Ok(()),
            false => Err(Reject::retry_after(500, 5, "Too many transactions")),
        }
    }

    /// Sends a copy to one target. False when there is no room for its transaction.
    pub(super) fn start_branch(
        &mut self,
        tx: SlabKey,
        message: Message<'_>,
        search: &mut Search,
        place: Place,
    ) -> bool {
        let Some(server) = self.transactions.server.get(tx) else { return false };
        let (sender, at) = (search.sender, usize::from(place.target));
        let (arrival, source) = (server.arrival.clone(), server.source);
        let target = search.targets.at(at).0;
        let (direct, peer) = (target.hop, target.peer);
        let key = target.client;
        let mut onward = Onward {
            source,
            caller: client_end(&arrival, sender),
            caller_key: self.caller(message, &arrival),
            callee: callee(direct),
            callee_key: key,
            registrant: self.registrant(message, &arrival, sender),
            dialled: dialled(direct).filter(|_| peer.needs_token()),
            breadth: place.breadth,
            popped: search.popped,
            ..self.onward(&search.targets, at, search.loop_hash, &arrival, sender)
        };
        let (reliable, timers) = (onward.transport.is_reliable(), self.config.timers);
        let (machine, mut steps) = start_machine(message.method(), reliable, &timers);
        let transaction = ClientTransaction {
            machine,
            server: Some(tx),
            secret: onward.branch.secret,
            hop: Way::Connecting,
            client: key,
            secure: false,
            heard: false,
            sends: 0,
            dialled: None,
            block: Vec::new(),
            way: None,
            timers: Armed::default(),
            silence: None,
            mark: None,
            cancel: Cancel::No,
            place,
            gone: gone_status(peer, search.targets.names_flow && sender.is_upstream()),
            authoritative: onward.uri.is_some(),
            trusted: peer.is_server(),
            is_large: false,
            given_up: false,
            abandoned: false,
            ended: false,
        };
        let Some(server) = self.transactions.server.get_mut(tx) else { return false };
        let Some(client) = self.transactions.client.insert(transaction) else { return false };
        server.branches.push(client);
        server.context.live += 1;
        onward.branch.client = client;
        let mut block = self.pool.take(message.bytes().len() + 512);
        let streamed = self.write_copy(message, &arrival, &mut onward, direct, &mut block);
        let egress = onward.egress;
        let hop = streamed.unwrap_or(direct);
        if streamed.is_some() {
            let is_large = search.targets.insert_alternative(at, direct);
            let transaction = self.transactions.client.get_mut(client).expect("just made");
            transaction.is_large = is_large;
            (transaction.machine, steps) = start_machine(message.method(), true, &timers);
        }
        let has_more = search.targets.alternative(at).is_some();
        self.send_copy(client, hop, egress, block, &steps);
        if has_more {
            self.watch_silence(client);
        }
        true
    }

    /// Writes the copy for a hop. One too large for datagrams is written for a stream to the same
    /// address: that hop is returned (RFC 3261 §18.1.1).
    pub(super) fn write_copy(
        &mut self,
        message: Message<'_>,
        arrival: &Arrival,
        onward: &mut Onward<'_>,
        hop: Hop,
        block: &mut Vec<u8>,
    ) -> Option<Hop> {
        let edits = &mut self.scratch.edits;
        forward(&self.config, &self.tokens, message, arrival, onward, edits, block);
        let Hop::Dial { transport: Transport::Udp, remote } = hop else { return None };
        let is_small = block.len() <= route::udp_max(&self.config, remote);
        if is_small || self.connects.refuses(remote, self.now) {
            return None;
        }
        let streamed = Hop::Dial { transport: Transport::Tcp, remote };
        onward.transport = Transport::Tcp;
        onward.egress = self.egress(streamed);
        onward.dialled = onward.dialled.map(|_| (Transport::Tcp, remote));
        block.clear();
        let edits = &mut self.scratch.edits;
        forward(&self.config, &self.tokens, message, arrival, onward, edits, block);
        Some(streamed)
    }

    /// Starts a client transaction, whose copy is written.
    fn send_copy(
        &mut self,
        client: SlabKey,
        hop: Hop,
        egress: ListenerId,
        block: Vec<u8>,
        steps: &Steps,
    ) {
        let way = self.way(hop, egress);
        let transaction = self.transactions.client.get_mut(client).expect("just made");
        (transaction.hop, transaction.dialled, transaction.block) = (way, dialled(hop), block);
        transaction.secure = way.is_secure();
        let is_invite = matches!(transaction.machine, ClientMachine::Invite(_));
        self.counters.requests_forwarded += 1;
        if is_invite {
            self.arm_client(client, Timer::C, self.config.timers.c);
        }
        match way {
            Way::Flow(_) => self.mark_target(client),
            Way::Connecting => self.connect_for(Waiter::Client(client), hop),
            Way::Lost(_) => self.deferred.push_back(Deferred::Seek(Asker::Client(client))),
        }
        self.run_client_steps(client, None, steps);
    }

    /// What a copy needs of its target; an ACK needs little more, since it opens no dialog.
    pub(super) fn onward<'a>(
        &mut self,
        targets: &'a TargetSet,
        at: usize,
        hash: u32,
        arrival: &Arrival,
        sender: Sender,
    ) -> Onward<'a> {
        let (target, uri, route) = targets.at(at);
        let border =
            Border { from_trusted: sender.is_upstream(), to_trusted: target.peer.is_server() };
        let is_told = sender == Sender::User && border.to_trusted;
        let asserted = arrival.aor(&self.config).filter(|_| is_told).map(Arc::clone);
        Onward {
            source: Source::default(),
            uri,
            route,
            popped: 0,
            egress: self.egress(target.hop),
            transport: target.hop.transport(),
            branch: self.next_branch(hash),
            caller: None,
            caller_key: ClientKey::NONE,
            callee: None,
            callee_key: ClientKey::NONE,
            registrant: ClientKey::NONE,
            dialled: None,
            strict: targets.strict,
            breadth: 0,
            border,
            asserted,
        }
    }

    /// Which client opens a dialog; of one that cannot be found again its user, if it has proved who
    /// that is.
    fn caller(&self, message: Message<'_>, arrival: &Arrival) -> ClientKey {
        if arrival.client.is_some() || !opens_dialog(message) {
            return arrival.client;
        }
        let aor = arrival.aor(&self.config);
        aor.map_or(ClientKey::NONE, |aor| ClientKey::of_user(self.placement.of(aor)))
    }

    /// A branch value for a request to come; its transaction is filled in when there is one.
    fn next_branch(&mut self, loop_hash: u32) -> BranchId {
        let secret = self.rng.next_u64();
        let client = SlabKey::from_bits(u64::MAX);
        BranchId { shard: self.shard, client, secret, loop_hash }
    }

    /// The listener whose name the next hop sees.
    fn egress(&self, hop: Hop) -> ListenerId {
        match hop {
            Hop::Client(flow) => flow.listener(),
            Hop::Lost(path) => path.listener,
            Hop::Dial { transport, remote, .. } => {
                naming::egress_or_any(&self.config, transport, remote.ip())
            }
        }
    }

    /// The flow for a hop, or that one has to be opened.
    pub(super) fn way(&mut self, hop: Hop, egress: ListenerId) -> Way {
        match hop {
            Hop::Client(flow) => Way::Flow(flow),
            Hop::Lost(path) => Way::Lost(path),
            Hop::Dial { transport: Transport::Udp, remote, .. } => {
                let local = self.config.listener(egress).address;
                Way::Flow(FlowRef::Datagram(DatagramPath { listener: egress, local, remote }))
            }
            Hop::Dial { transport, remote, .. } => self
                .connects
                .opened(transport, remote)
                .map_or(Way::Connecting, |path| Way::Flow(FlowRef::Stream(path))),
        }
    }

    /// Notes which flow a client transaction depends on.
    pub(super) fn mark_target(&mut self, client: SlabKey) {
        let Some(transaction) = self.transactions.client.get_mut(client) else { return };
        if let Way::Flow(FlowRef::Stream(path)) = transaction.hop {
            transaction.mark = Some(self.transactions.by_target.add(path.flow, client));
        }
    }
}

fn start_machine(method: Method<'_>, reliable: bool, timers: &Timers) -> (ClientMachine, Steps) {
    if method == Method::Invite {
        let (machine, steps) = ClientInvite::start(reliable, timers);
        (ClientMachine::Invite(machine), steps)
    } else {
        let (machine, steps) = Client::start(reliable, timers);
        (ClientMachine::Other(machine), steps)
    }
}

/// The sender, as the end of a dialog token: a client of ours, not a server behind us.
fn client_end(arrival: &Arrival, sender: Sender) -> Option<FlowRef> {
    (!sender.is_upstream()).then_some(arrival.source)
}

fn dialled(hop: Hop) -> Option<(Transport, SocketAddr)> {
    match hop {
        Hop::Dial { transport, remote } => Some((transport, remote)),
        Hop::Client(_) | Hop::Lost(_) => None,
    }
}

pub(super) fn callee(hop: Hop) -> Option<FlowRef> {
    match hop {
        Hop::Client(flow) => Some(flow),
        Hop::Lost(path) => Some(FlowRef::Stream(path)),
        Hop::Dial { .. } => None,
    }
}

/// RFC 5626 §5.3.1 and §11.5: 430 tells a server that the flow it asked for is gone; all others
/// hear 480.
fn gone_status(peer: Peer, asked_by_server: bool) -> u16 {
    match peer {
        Peer::Server | Peer::OneOfServers => Failure::UNREACHABLE,
        Peer::Client if asked_by_server => 430,
        Peer::Client | Peer::Phone => 480,
    }
}
