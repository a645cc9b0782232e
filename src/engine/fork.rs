//! Copies of a request for its targets, each with a client transaction (RFC 3261 §16.6), and ACKs,
//! which have none.

use std::net::SocketAddr;

use crate::base::id::{DatagramPath, FlowRef, ListenerId, Transport};
use crate::base::slab::SlabKey;
use crate::flow::arrival::Arrival;
use crate::proxy::branch::{BranchId, loop_hash};
use crate::proxy::forward::{Onward, forward};
use crate::proxy::route::{self, Sender};
use crate::proxy::target::{Hop, TargetSet};
use crate::proxy::{Reject, naming};
use crate::sip::{HeaderName, Message, Method, Uri};
use crate::transaction::{Client, ClientInvite, Timer};

use super::Engine;
use super::client::Failure;
use super::connect::Waiter;
use super::transactions::{Armed, Cancel, ClientMachine, ClientTransaction, Way};

/// Max-Breadth of a request that names none (RFC 5393 §5.3.3).
const BREADTH_DEFAULT: u32 = 60;

impl Engine {
    /// Sends one copy to each target found.
    pub(super) fn fork(
        &mut self,
        tx: SlabKey,
        message: Message<'_>,
        arrival: &Arrival,
        sender: Sender,
        popped: usize,
        hash: u32,
    ) -> Result<(), Reject> {
        let targets = std::mem::take(&mut self.scratch.targets);
        let outcome = self.fork_to(&targets, tx, message, arrival, sender, popped, hash);
        self.scratch.targets = targets;
        outcome
    }

    #[expect(clippy::too_many_arguments, reason = "one call, all of it needed by every copy")]
    fn fork_to(
        &mut self,
        targets: &TargetSet,
        tx: SlabKey,
        message: Message<'_>,
        arrival: &Arrival,
        sender: Sender,
        popped: usize,
        hash: u32,
    ) -> Result<(), Reject> {
        let breadth = breadth(message);
        let count = targets.len().min(breadth as usize);
        if count == 0 {
            return Err(Reject::new(440));
        }
        let share = breadth / count as u32;
        let says = message.header(HeaderName::MaxBreadth).is_some() || count > 1;
        let mut is_started = false;
        for at in 0..count {
            let hop = targets.at(at).0.hop;
            let onward = Onward {
                caller: client_end(arrival, sender),
                callee: callee(hop),
                breadth: says.then_some(share),
                ..self.onward(targets, at, popped, hash, sender)
            };
            let gone = gone_status(hop, targets.names_flow && sender.is_upstream());
            is_started |= self.start_branch(tx, message, arrival, hop, gone, onward);
        }
        match is_started {
            true => Ok(()),
            false => Err(Reject::retry_after(500, 5, "Too many transactions")),
        }
    }

    /// False when there is no room for its transaction.
    fn start_branch(
        &mut self,
        tx: SlabKey,
        message: Message<'_>,
        arrival: &Arrival,
        hop: Hop,
        gone: u16,
        mut onward: Onward<'_>,
    ) -> bool {
        let timers = self.config.timers;
        let reliable = onward.transport.is_reliable();
        let (machine, steps) = if message.method() == Method::Invite {
            let (machine, steps) = ClientInvite::start(reliable, &timers);
            (ClientMachine::Invite(machine), steps)
        } else {
            let (machine, steps) = Client::start(reliable, &timers);
            (ClientMachine::Other(machine), steps)
        };
        let way = self.way(hop, onward.egress);
        let transaction = ClientTransaction {
            machine,
            server: Some(tx),
            secret: onward.branch.secret,
            hop: way,
            dialled: dialled(hop),
            block: Vec::new(),
            timers: Armed::default(),
            mark: None,
            cancel: Cancel::No,
            gone,
            authoritative: onward.uri.is_some(),
            trusted: matches!(hop, Hop::Dial { .. }),
            ended: false,
        };
        let Some(server) = self.transactions.server.get_mut(tx) else { return false };
        let Some(client) = self.transactions.client.insert(transaction) else { return false };
        server.branches.push(client);
        server.context.live += 1;
        onward.branch.client = client;
        let mut block = self.pool.take(message.bytes().len() + 512);
        let edits = &mut self.scratch.edits;
        forward(&self.config, &self.tokens, message, arrival, &onward, edits, &mut block);
        self.transactions.client.get_mut(client).expect("just made").block = block;
        self.counters.requests_forwarded += 1;
        if message.method() == Method::Invite {
            self.arm_client(client, Timer::C, timers.c);
        }
        match way {
            Way::Flow(_) => self.mark_target(client),
            Way::Connecting => self.connect_for(Waiter::Client(client), hop),
        }
        self.run_client_steps(client, None, &steps);
        true
    }

    /// An ACK that no transaction of ours waits for goes on by its Route, without a transaction
    /// (RFC 3261 §16.11).
    pub(super) fn forward_ack(&mut self, arrival: &Arrival, message: Message<'_>) {
        let sender = Sender::of(&self.config, arrival);
        let hash = loop_hash(&self.placement, message, sender, &mut self.scratch.key);
        let spent = message.max_forwards().ok().flatten() == Some(0);
        let routed = route::preprocess(&self.config, &self.tokens, message, arrival, sender)
            .and_then(|routing| {
                let uri = Uri::parse(message.uri()).map_err(|_| Reject::new(400))?;
                self.find_targets(message, &uri, arrival, sender, routing)?;
                Ok(routing.popped)
            });
        let (Ok(popped), false) = (routed, spent) else { return self.drop_ack(arrival, message) };
        let targets = std::mem::take(&mut self.scratch.targets);
        let mut went = Went::Nowhere;
        for at in 0..targets.len() {
            let hop = targets.at(at).0.hop;
            let onward = self.onward(&targets, at, popped, hash, sender);
            let counts = went < Went::Waiting;
            went = went.max(self.send_ack_copy(message, arrival, hop, &onward, counts));
        }
        self.scratch.targets = targets;
        match went {
            Went::Nowhere => self.drop_ack(arrival, message),
            Went::Out => self.counters.acks_forwarded += 1,
            Went::Waiting => {}
        }
    }

    fn send_ack_copy(
        &mut self,
        message: Message<'_>,
        arrival: &Arrival,
        hop: Hop,
        onward: &Onward<'_>,
        counts: bool,
    ) -> Went {
        let way = self.way(hop, onward.egress);
        let mut block = self.pool.take(message.bytes().len() + 256);
        let edits = &mut self.scratch.edits;
        forward(&self.config, &self.tokens, message, arrival, onward, edits, &mut block);
        let went = match way {
            Way::Connecting => {
                self.connect_for(Waiter::Ack { block, counts }, hop);
                Went::Waiting
            }
            Way::Flow(flow) => {
                let sent = self.deliver(flow, &block, None).is_ok();
                self.pool.put(block);
                if sent { Went::Out } else { Went::Nowhere }
            }
        };
        self.counters.requests_forwarded += u64::from(went != Went::Nowhere);
        went
    }

    fn drop_ack(&mut self, arrival: &Arrival, message: Message<'_>) {
        self.counters.dropped_ack += 1;
        self.report_drop(arrival.source, "ack", message);
    }

    /// What every copy needs; an ACK needs no more, since it opens no dialog and is not forked.
    fn onward<'a>(
        &mut self,
        targets: &'a TargetSet,
        at: usize,
        popped: usize,
        hash: u32,
        sender: Sender,
    ) -> Onward<'a> {
        let (target, uri, route) = targets.at(at);
        Onward {
            uri,
            route,
            popped,
            egress: self.egress(target.hop),
            transport: target.hop.transport(),
            branch: self.next_branch(hash),
            caller: None,
            callee: None,
            breadth: None,
            trusted: sender.is_upstream(),
        }
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
            Hop::Dial { transport, remote, .. } => {
                naming::egress_or_any(&self.config, transport, remote.ip())
            }
        }
    }

    /// The flow for a hop, or that one has to be opened.
    fn way(&mut self, hop: Hop, egress: ListenerId) -> Way {
        match hop {
            Hop::Client(flow) => Way::Flow(flow),
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

/// What became of a copy of an ACK.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Went {
    /// There was no way.
    Nowhere,
    /// It was written.
    Out,
    /// It waits for a connection, which counts the first that does.
    Waiting,
}

/// The sender, as the end of a dialog token: a client of ours, not a server behind us.
fn client_end(arrival: &Arrival, sender: Sender) -> Option<FlowRef> {
    (!sender.is_upstream()).then_some(arrival.source)
}

fn dialled(hop: Hop) -> Option<(Transport, SocketAddr)> {
    match hop {
        Hop::Dial { transport, remote } => Some((transport, remote)),
        Hop::Client(_) => None,
    }
}

fn callee(hop: Hop) -> Option<FlowRef> {
    match hop {
        Hop::Client(flow) => Some(flow),
        Hop::Dial { .. } => None,
    }
}

/// RFC 5626 §5.3.1 and §11.5: 430 tells a server that the flow it asked for is gone; all others
/// hear 480.
fn gone_status(hop: Hop, asked_by_server: bool) -> u16 {
    match hop {
        Hop::Dial { .. } => Failure::UNREACHABLE,
        Hop::Client(_) if asked_by_server => 430,
        Hop::Client(_) => 480,
    }
}

fn breadth(message: Message<'_>) -> u32 {
    message
        .header(HeaderName::MaxBreadth)
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
        .unwrap_or(BREADTH_DEFAULT)
}
