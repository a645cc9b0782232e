//! What the client machines want done (RFC 3261 §17.1), and the events that reach them.

use std::time::Duration;

use crate::base::id::{FlowRef, StreamPath};
use crate::base::slab::SlabKey;
use crate::flow::arrival::Arrival;
use crate::proxy::branch::BranchId;
use crate::sip::{self, HeaderName, Message, Method};
use crate::transaction::{Client, Step, Steps, Timer};

use super::accepted::Accepted;
use super::alarm::Alarm;
use super::mesh::Recipient;
use super::search::Place;
use super::transactions::{Armed, Cancel, CancelReason, ClientMachine, ClientTransaction, Way};
use super::{Deferred, Engine};

/// Why a branch could not reach its target. The world's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The flow is closed, or was never there.
    Gone,
    /// The flow's queue is full: its client does not read.
    Full,
    /// The connection could not be made.
    Connect,
    /// It was cancelled before there was a connection to send it on.
    Cancelled,
    /// The message is larger than a datagram can be.
    TooLarge,
}

impl Failure {
    /// What the sender hears when a server behind us cannot be reached (RFC 3261 §16.9 with §16.7
    /// step 6).
    pub const UNREACHABLE: u16 = 500;
}

impl Engine {
    /// A response whose branch names a client transaction of this shard.
    pub(super) fn on_response(
        &mut self,
        arrival: &Arrival,
        message: Message<'_>,
        branch: BranchId,
    ) {
        let Some(client) = self.matching(message, branch) else {
            let is_ours = self.on_ping_response(arrival, message, branch)
                || self.on_recall_answer(arrival, message, branch);
            if !is_ours {
                self.drop_stray(arrival, message);
            }
            return;
        };
        let transaction = self.transactions.client.get_mut(client).expect("it matched");
        let next = next_flow(transaction, arrival);
        if !came_from(transaction, arrival) && next.is_none() {
            self.counters.dropped_foreign_response += 1;
            return self.report_drop(arrival.source, "foreign_response", message);
        }
        // Only a CANCEL is ours alone: all else has its sender's Via below ours.
        if transaction.server.is_some() && !message.has_many(HeaderName::Via) {
            self.counters.dropped_response_without_via += 1;
            return self.report_drop(arrival.source, "response_without_via", message);
        }
        transaction.heard = true;
        if let Some(path) = next {
            self.move_branch(client, path);
        }
        let Some(transaction) = self.transactions.client.get_mut(client) else { return };
        let timers = self.config.timers;
        let status = message.status();
        if let Some(id) = transaction.silence.take() {
            self.wheel.cancel(id);
        }
        let steps = match &mut transaction.machine {
            ClientMachine::Invite(machine) => machine.on_response(status, &timers),
            ClientMachine::Other(machine) => machine.on_response(status, &timers),
        };
        let is_invite = matches!(transaction.machine, ClientMachine::Invite(_));
        self.run_client_steps(client, Some(message), &steps);
        if is_invite && status < 200 {
            self.on_ringing(client, status);
        }
    }

    /// Branch and CSeq method (RFC 3261 §17.1.3); the branch's secret stands for the rest of it.
    /// The response to a CANCEL of ours carries the branch of its INVITE.
    fn matching(&self, message: Message<'_>, branch: BranchId) -> Option<SlabKey> {
        let transaction = self.transactions.client.get(branch.client)?;
        if transaction.secret != branch.secret {
            return None;
        }
        let method = message.cseq().ok()?.method;
        match (&transaction.machine, method) {
            (ClientMachine::Invite(_), Method::Invite) => Some(branch.client),
            (ClientMachine::Invite(_), Method::Cancel) => match transaction.cancel {
                Cancel::Sent(cancel) => {
                    cancel.filter(|it| self.transactions.client.get(*it).is_some())
                }
                _ => None,
            },
            (ClientMachine::Other(_), Method::Invite | Method::Cancel | Method::Ack) => None,
            (ClientMachine::Other(_), _) => Some(branch.client),
            (ClientMachine::Invite(_), _) => None,
        }
    }

    /// A provisional response to an INVITE: a CANCEL that waited goes out (RFC 3261 §9.1), Timer C
    /// starts anew (§16.7 step 2). A 100 does not prolong it, but takes Timer B away: from then on
    /// nothing else ends the branch of a callee that says no more.
    fn on_ringing(&mut self, client: SlabKey, status: u16) {
        let Some(transaction) = self.transactions.client.get(client) else { return };
        if transaction.cancel == Cancel::Wanted {
            return self.send_cancel(client);
        }
        let is_due = status != 100 || !transaction.timers.has(Timer::C);
        if is_due && transaction.cancel == Cancel::No {
            self.arm_client(client, Timer::C, self.config.timers.c);
        }
    }

    pub(super) fn run_client_steps(
        &mut self,
        client: SlabKey,
        response: Option<Message<'_>>,
        steps: &Steps,
    ) {
        for step in steps.iter() {
            match *step {
                Step::SendRequest => self.send_request(client),
                Step::SendAck => {
                    if let Some(response) = response {
                        self.send_ack(client, response);
                    }
                }
                Step::PassUp => {
                    let server = self.transactions.client.get(client).and_then(|it| it.server);
                    match (server, response) {
                        (Some(server), Some(response)) => {
                            self.on_branch_response(server, client, response);
                        }
                        _ => self.counters.responses_absorbed += 1,
                    }
                }
                Step::Absorb => self.counters.responses_absorbed += 1,
                Step::Arm(Timer::M, after) => {
                    self.end_later(Accepted::Client(client), after);
                    self.abridge_accepted(client);
                }
                Step::Arm(timer, after) => self.arm_client(client, timer, after),
                Step::Cancel(timer) => self.disarm_client(client, timer),
                Step::Ended => self.end_client(client),
                _ => {}
            }
        }
    }

    pub(super) fn arm_client(&mut self, client: SlabKey, timer: Timer, after: Duration) {
        let id = self.wheel.arm(self.now + after, Alarm::Client(client, timer));
        let transaction = self.transactions.client.get_mut(client);
        if let Some(old) = transaction.and_then(|it| it.timers.put(timer, id)) {
            self.wheel.cancel(old);
        }
    }

    pub(super) fn disarm_client(&mut self, client: SlabKey, timer: Timer) {
        let transaction = self.transactions.client.get_mut(client);
        if let Some(id) = transaction.and_then(|it| it.timers.take(timer)) {
            self.wheel.cancel(id);
        }
    }

    /// Sends the stored request, or leaves that to the connection that is being made.
    pub(super) fn send_request(&mut self, client: SlabKey) {
        let Some(transaction) = self.transactions.client.get_mut(client) else { return };
        let Way::Flow(flow) = transaction.hop else { return };
        let block = std::mem::take(&mut transaction.block);
        let sent = self.deliver(flow, &block, Some(client), Recipient::NOBODY);
        if let Some(transaction) = self.transactions.client.get_mut(client) {
            transaction.block = block;
            transaction.sends = transaction.sends.saturating_add(u8::from(sent.is_ok()));
        }
        match sent {
            Ok(()) => {}
            Err(Failure::Gone) => self.lose_target(client),
            Err(failure) => self.deferred.push_back(Deferred::Failed(client, failure)),
        }
    }

    /// Cancels the branches that still wait, except one, and begins no more.
    pub(super) fn cancel_branches(
        &mut self,
        tx: SlabKey,
        except: Option<SlabKey>,
        reason: CancelReason,
    ) {
        self.end_search(tx);
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        transaction.cancel_reason = reason;
        let branches = transaction.branches.clone();
        for client in branches.into_iter().filter(|it| Some(*it) != except) {
            self.cancel_branch(client);
        }
    }

    /// Cancels one branch, unless that was done or it is not an INVITE: at once when something was
    /// heard of it, else when something is (RFC 3261 §9.1). What was never sent just ends.
    pub(super) fn cancel_branch(&mut self, client: SlabKey) {
        let Some(branch) = self.transactions.client.get_mut(client) else { return };
        if branch.ended || branch.cancel != Cancel::No {
            return;
        }
        let is_lost = matches!(branch.hop, Way::Lost(_));
        match &branch.machine {
            ClientMachine::Invite(machine) if machine.is_proceeding() && !is_lost => {
                self.send_cancel(client);
            }
            ClientMachine::Invite(machine) if machine.is_proceeding() || machine.is_calling() => {
                branch.cancel = Cancel::Wanted;
                if branch.hop == Way::Connecting || is_lost && !branch.heard {
                    self.deferred.push_back(Deferred::Failed(client, Failure::Cancelled));
                }
            }
            ClientMachine::Other(_) if is_lost && !branch.heard => {
                self.deferred.push_back(Deferred::Failed(client, Failure::Cancelled));
            }
            _ => {}
        }
    }

    /// CANCEL of one branch, as a transaction of its own (RFC 3261 §9.1). If no final response
    /// follows in 64·T1, the branch counts as cancelled.
    pub(super) fn send_cancel(&mut self, client: SlabKey) {
        let timers = self.config.timers;
        let Some(transaction) = self.transactions.client.get(client) else { return };
        let Some(flow) = transaction.flow() else { return };
        let (dialled, next, secure) = (transaction.dialled, transaction.client, transaction.secure);
        let server = transaction.server.and_then(|server| self.transactions.server.get(server));
        let reason = server.and_then(|server| server.cancel_reason.value());
        let mut parsed = self.parsed_kept.pop().unwrap_or_default();
        let mut block = self.pool.take(1024);
        let built = sip::parse(&transaction.block, &mut parsed).is_ok();
        if built {
            sip::cancel(parsed.view(&transaction.block), reason, &mut block);
        }
        self.keep_parsed(parsed);
        if !built || self.transactions.client.is_full() {
            if built {
                // Without room for its transaction it goes out once: better than to ring on.
                let _ = self.deliver(flow, &block, None, Recipient::NOBODY);
            }
            self.pool.put(block);
            return self.cancel_is_sent(client, None);
        }
        let (machine, steps) = Client::start(flow.transport().is_reliable(), &timers);
        let cancel = self.transactions.client.insert(ClientTransaction {
            machine: ClientMachine::Other(machine),
            server: None,
            // Its branch is that of the INVITE: no response names it by this.
            secret: self.rng.next_u64(),
            hop: Way::Flow(flow),
            client: next,
            secure,
            heard: false,
            sends: 0,
            dialled,
            block,
            way: None,
            timers: Armed::default(),
            silence: None,
            mark: None,
            cancel: Cancel::No,
            place: Place::default(),
            is_large: false,
            given_up: false,
            abandoned: false,
            gone: 0,
            authoritative: false,
            trusted: false,
            ended: false,
        });
        self.cancel_is_sent(client, cancel);
        if let Some(cancel) = cancel {
            self.mark_target(cancel);
            self.run_client_steps(cancel, None, &steps);
        }
    }

    fn cancel_is_sent(&mut self, client: SlabKey, cancel: Option<SlabKey>) {
        if let Some(transaction) = self.transactions.client.get_mut(client) {
            transaction.cancel = Cancel::Sent(cancel);
        }
        self.arm_client(client, Timer::C, self.config.timers.t1 * 64);
    }

    /// A timer of a client transaction fired.
    pub(super) fn on_client_timer(&mut self, client: SlabKey, timer: Timer) {
        let timers = self.config.timers;
        let Some(transaction) = self.transactions.client.get_mut(client) else { return };
        transaction.timers.take(timer);
        if timer == Timer::C {
            return self.on_timer_c(client);
        }
        let steps = match &mut transaction.machine {
            ClientMachine::Invite(machine) => machine.on_timer(timer, &timers),
            ClientMachine::Other(machine) => machine.on_timer(timer, &timers),
        };
        if steps.contains(&Step::SendRequest) {
            self.counters.retransmissions_sent += 1;
        }
        if steps.contains(&Step::TimedOut) {
            // RFC 4320: whoever sent another request than INVITE has given it up by now.
            match transaction.machine {
                ClientMachine::Invite(_) => _ = self.fail_branch(client, 408, "No answer in time"),
                ClientMachine::Other(_) => self.end_branch(client, 0, "No answer in time"),
            }
        }
        self.run_client_steps(client, None, &steps);
    }

    /// RFC 3261 §16.8: the INVITE rang too long. It is cancelled; a branch that never said anything,
    /// or was cancelled and still says nothing, is given up.
    fn on_timer_c(&mut self, client: SlabKey) {
        let Some(transaction) = self.transactions.client.get(client) else { return };
        let ClientMachine::Invite(machine) = &transaction.machine else { return };
        if transaction.ended {
            return;
        }
        if transaction.cancel == Cancel::No && machine.is_proceeding() {
            return self.send_cancel(client);
        }
        self.end_branch(client, 408, "No answer in time");
        self.end_client(client);
    }

    /// A branch cannot reach its target: its machine ends, the response context hears why.
    pub(super) fn on_branch_failed(&mut self, client: SlabKey, failure: Failure) {
        let Some(transaction) = self.transactions.client.get_mut(client) else { return };
        let steps = match &mut transaction.machine {
            ClientMachine::Invite(machine) => machine.on_transport_failed(),
            ClientMachine::Other(machine) => machine.on_transport_failed(),
        };
        if !steps.contains(&Step::TransportFailed) {
            return;
        }
        let gone = transaction.gone;
        let (status, why) = match failure {
            Failure::Gone => (gone, "The flow is gone"),
            Failure::Full => (480, "The client does not read"),
            Failure::Connect if transaction.trusted => {
                (Failure::UNREACHABLE, "The server behind cannot be reached")
            }
            // RFC 3261 §21.4.18: it is the client's own address that does not answer.
            Failure::Connect => (480, "The client cannot be reached"),
            Failure::Cancelled => (487, "Cancelled"),
            Failure::TooLarge => (513, "Larger than a datagram"),
        };
        let is_replaced = self.fail_branch(client, status, why);
        self.counters.requests_flow_gone += u64::from(failure == Failure::Gone && !is_replaced);
        self.run_client_steps(client, None, &steps);
    }

    /// A branch failed on its way: an alternative takes its place, or it ends with that status. True
    /// when there was an alternative.
    fn fail_branch(&mut self, client: SlabKey, status: u16, why: &'static str) -> bool {
        let Some(transaction) = self.transactions.client.get(client) else { return false };
        let server = transaction.server.filter(|_| !transaction.ended);
        if server.is_some() {
            self.note_failure(client);
        }
        if !server.is_some_and(|server| self.try_alternative(server, client)) {
            self.end_branch(client, status, why);
            return false;
        }
        if let Some(transaction) = self.transactions.client.get_mut(client) {
            transaction.ended = true;
        }
        true
    }

    /// Tells the response context, once, that a branch ended without a response.
    pub(super) fn end_branch(&mut self, client: SlabKey, status: u16, why: &'static str) {
        let Some(transaction) = self.transactions.client.get_mut(client) else { return };
        if std::mem::replace(&mut transaction.ended, true) {
            return;
        }
        let given_up = transaction.given_up && status == 487;
        if let Some(server) = transaction.server {
            self.on_branch_ended(server, client, if given_up { 408 } else { status }, why);
        }
    }

    /// Forgets a client transaction.
    pub(super) fn end_client(&mut self, client: SlabKey) {
        let Some(mut transaction) = self.transactions.client.remove(client) else { return };
        if let Some(mark) = transaction.mark {
            self.transactions.by_target.remove(mark);
        }
        for id in transaction.timers.drain().chain(transaction.silence) {
            self.wheel.cancel(id);
        }
        self.pool.put(transaction.block);
        let server = transaction.server.and_then(|server| self.transactions.server.get_mut(server));
        if let Some(server) = server {
            server.branches.retain(|it| *it != client);
        }
    }
}

/// A response is taken only from the flow that its request went to; a datagram's source may differ
/// (RFC 3261 §18.1.2: the branch decides). A server that we dialled may use another connection of
/// ours to it, as one does that gets the requests of one call on two of them.
fn came_from(transaction: &ClientTransaction, arrival: &Arrival) -> bool {
    let peer = Some((arrival.transport(), arrival.remote));
    match transaction.hop {
        Way::Flow(FlowRef::Stream(_)) if !arrival.accepted && transaction.dialled == peer => true,
        Way::Flow(FlowRef::Stream(path)) => arrival.source.stream() == Some(path.flow),
        Way::Flow(FlowRef::Datagram(_)) => matches!(arrival.source, FlowRef::Datagram(_)),
        Way::Connecting | Way::Lost(_) => false,
    }
}

/// The flow that a response came on, when it is another one of the client that its request went to,
/// and over TLS if that one was.
fn next_flow(transaction: &ClientTransaction, arrival: &Arrival) -> Option<StreamPath> {
    let former = match transaction.hop {
        Way::Flow(FlowRef::Stream(path)) | Way::Lost(path) => path,
        _ => return None,
    };
    let FlowRef::Stream(path) = arrival.source else { return None };
    let is_client = transaction.client.is_some() && transaction.client == arrival.client;
    let is_secure = !transaction.secure || path.transport.is_secure();
    (is_client && is_secure && path.flow != former.flow).then_some(path)
}
