//! What the server machines want done (RFC 3261 §17.2), and the events that reach them.

use std::net::SocketAddr;

use crate::base::id::{FlowRef, Transport};
use crate::base::limits::{PARSED_KEPT, WAITING_BODY_BYTES_MAX};
use crate::base::slab::SlabKey;
use crate::proxy::target::Hop;
use crate::sip::{self, Message, Method, Parsed};
use crate::transaction::{Step, Steps, Timer};

use super::Engine;
use super::accepted::Accepted;
use super::alarm::Alarm;
use super::connect::Waiter;
use super::mesh::Recipient;
use super::seek::HeldWhat;
use super::transactions::{ServerMachine, ServerName, ServerTransaction, StoredRequest};

impl Engine {
    /// The same request once more: absorbed, the last response repeated.
    pub(super) fn on_request_again(&mut self, tx: SlabKey) {
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        let steps = match &mut transaction.machine {
            ServerMachine::Invite(machine) => machine.on_invite_again(),
            ServerMachine::Other(machine) => machine.on_request_again(),
        };
        self.counters.retransmissions_absorbed += 1;
        self.run_stored_server_steps(tx, &steps);
    }

    /// An ACK whose branch is that of an INVITE of ours. False when it is for the other side: the
    /// INVITE was accepted, and its sender used the same branch again.
    pub(super) fn on_ack(&mut self, tx: SlabKey, ack: Message<'_>) -> bool {
        if !self.repeats_our_tag(tx, ack) {
            return false;
        }
        let timers = self.config.timers;
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return false };
        let ServerMachine::Invite(machine) = &mut transaction.machine else { return false };
        let steps = machine.on_ack(&timers);
        let for_us = !steps.contains(&Step::PassUp);
        self.counters.retransmissions_absorbed += u64::from(for_us);
        self.run_stored_server_steps(tx, &steps);
        for_us
    }

    /// Without the magic cookie an ACK is for the response whose To tag it has (RFC 3261 §17.2.3).
    fn repeats_our_tag(&mut self, tx: SlabKey, ack: Message<'_>) -> bool {
        if ack.top_via().is_ok_and(|via| via.has_magic_cookie()) {
            return true;
        }
        let mut parsed = self.take_parsed();
        let is_same = self.transactions.server.get(tx).is_some_and(|transaction| {
            let last = &transaction.last;
            let is_read = sip::parse(last, &mut parsed).is_ok();
            match (parsed.view(last).to(), ack.to()) {
                (Ok(ours), Ok(theirs)) => is_read && ours.tag() == theirs.tag(),
                _ => false,
            }
        });
        self.keep_parsed(parsed);
        is_same
    }

    /// A timer of a server transaction fired.
    pub(super) fn on_server_timer(&mut self, tx: SlabKey, timer: Timer) {
        let timers = self.config.timers;
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        transaction.timers.take(timer);
        let steps = match &mut transaction.machine {
            ServerMachine::Invite(machine) => machine.on_timer(timer, &timers),
            ServerMachine::Other(machine) => machine.on_timer(timer, &timers),
        };
        if steps.contains(&Step::SendResponse) {
            self.counters.retransmissions_sent += 1;
        }
        self.run_stored_server_steps(tx, &steps);
    }

    /// Does the steps of a transaction whose request is in the table.
    pub(super) fn run_stored_server_steps(&mut self, tx: SlabKey, steps: &Steps) {
        self.with_request(tx, |engine, message| engine.run_server_steps(tx, message, steps));
    }

    /// Lends the stored request to `work`, which may change the transaction and the engine.
    pub(super) fn with_request(
        &mut self,
        tx: SlabKey,
        work: impl FnOnce(&mut Engine, Message<'_>),
    ) {
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        match transaction.request.take() {
            Some(request) => {
                work(self, request.parsed.view(&request.block));
                self.keep_request(tx, request);
            }
            None => work(self, Parsed::default().view(b"")),
        }
    }

    /// Puts a request into its transaction, as long as that has no final response. What no branch
    /// will be made of any more is kept without a large body: each copy that waits has it, too.
    pub(super) fn keep_request(&mut self, tx: SlabKey, mut request: Box<StoredRequest>) {
        let transaction = self.transactions.server.get_mut(tx);
        let Some(transaction) = transaction.filter(|it| it.context.sent == 0) else {
            return self.discard_request(request);
        };
        let StoredRequest { block, parsed } = &mut *request;
        let body = parsed.view(block).body().len();
        if body > WAITING_BODY_BYTES_MAX && transaction.search.is_none() {
            let head = self.pool.copy(&block[..parsed.leave_body_out()]);
            self.pool.put(std::mem::replace(block, head));
        }
        transaction.request = Some(request);
    }

    fn discard_request(&mut self, mut request: Box<StoredRequest>) {
        self.pool.put(std::mem::take(&mut request.block));
        if self.requests_kept.len() < PARSED_KEPT {
            self.requests_kept.push(request);
        }
    }

    pub(super) fn run_server_steps(&mut self, tx: SlabKey, message: Message<'_>, steps: &Steps) {
        for step in steps.iter() {
            match *step {
                Step::SendResponse => {
                    self.send_last(tx);
                    self.ask_caller(tx, message);
                }
                Step::SendTrying if message.method() != Method::Invite => {
                    self.answer_trying(tx, message);
                }
                Step::Arm(Timer::J, after) if self.let_linger(tx, self.now + after) => {}
                Step::Arm(Timer::L, after) => self.end_later(Accepted::Server(tx), after),
                Step::Arm(timer, after) => {
                    let id = self.wheel.arm(self.now + after, Alarm::Server(tx, timer));
                    let transaction = self.transactions.server.get_mut(tx);
                    if let Some(old) = transaction.and_then(|it| it.timers.put(timer, id)) {
                        self.wheel.cancel(old);
                    }
                }
                Step::Cancel(timer) => {
                    let transaction = self.transactions.server.get_mut(tx);
                    if let Some(id) = transaction.and_then(|it| it.timers.take(timer)) {
                        self.wheel.cancel(id);
                    }
                }
                Step::Ended => self.end_server(tx),
                _ => {}
            }
        }
    }

    /// Sends the last response once more, or for the first time.
    pub(super) fn send_last(&mut self, tx: SlabKey) {
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        let last = std::mem::take(&mut transaction.last);
        let (to, fallback, gone) =
            (transaction.reply_to(), transaction.fallback(), transaction.orphaned);
        let (lost, sender) = (transaction.lost, transaction.sender());
        let is_sent = match to {
            _ if last.is_empty() => true,
            _ if gone => false,
            FlowRef::Stream(path) if lost => self.hold(sender, path, &last, HeldWhat::Response),
            _ => self.deliver_or_hold(to, sender, &last, HeldWhat::Response).is_some(),
        };
        if !is_sent {
            self.send_elsewhere(fallback, &last);
        }
        if let Some(transaction) = self.transactions.server.get_mut(tx) {
            transaction.last = last;
        }
    }

    /// The sender's connection is gone: its response takes one of ours, if it may, or is lost and
    /// counted.
    fn send_elsewhere(&mut self, fallback: Option<(Transport, SocketAddr)>, response: &[u8]) {
        let Some((transport, remote)) = fallback else {
            self.counters.dropped_response_flow_gone += 1;
            return;
        };
        match self.connects.opened(transport, remote) {
            Some(path) => {
                let sent =
                    self.deliver(FlowRef::Stream(path), response, None, Recipient::NOBODY).is_ok();
                self.counters.dropped_response_flow_gone += u64::from(!sent);
            }
            None => {
                let block = self.pool.copy(response);
                self.connect_for(Waiter::Response(block), Hop::Dial { transport, remote });
            }
        }
    }

    /// Forgets a server transaction. Branches that still run end by themselves.
    pub(super) fn end_server(&mut self, tx: SlabKey) {
        let Some(transaction) = self.transactions.server.remove(tx) else { return };
        let name = ServerName::Living(tx);
        self.transactions.forget(name, transaction.key, transaction.merge);
        self.discard_server(transaction);
    }

    /// Gives back what a server transaction held that is in no table any more.
    pub(super) fn discard_server(&mut self, transaction: ServerTransaction) {
        let ServerTransaction { request, last, best, search, mut timers, mark, .. } = transaction;
        if let Some(mark) = mark {
            self.transactions.by_source.remove(mark);
        }
        for id in timers.drain() {
            self.wheel.cancel(id);
        }
        self.discard_best(best);
        if let Some(search) = search {
            self.discard_search(search);
        }
        self.pool.put(last);
        if let Some(request) = request {
            self.discard_request(request);
        }
    }
}
