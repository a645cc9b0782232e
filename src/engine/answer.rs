//! Responses toward the sender of a request: our own, and those of branches (RFC 3261 §16.7).

use crate::base::slab::SlabKey;
use crate::flow::arrival::Arrival;
use crate::proxy::context::{Consequence, Verdict};
use crate::proxy::identity::Border;
use crate::proxy::route::Sender;
use crate::proxy::source::Source;
use crate::proxy::{Reject, naming, response};
use crate::sip::{self, Message, Method, ResponseParts};

use super::Engine;
use super::mesh::Recipient;
use super::seek::HeldWhat;
use super::serve::reply_to;
use super::transactions::{CancelReason, ServerMachine};

/// Length of a tag of ours.
const TAG_LEN: usize = 16;

impl Engine {
    /// Answers with a status of our own and ends the search for a better one.
    pub(super) fn answer(
        &mut self,
        tx: SlabKey,
        message: Message<'_>,
        status: u16,
        phrase: Option<&str>,
        lines: &[u8],
    ) {
        if let Some(block) = self.compose(tx, message, status, phrase, lines) {
            self.answer_with(tx, message, status, block);
        }
    }

    /// Answers with a response of our own that was [composed](Engine::compose).
    pub(super) fn answer_with(
        &mut self,
        tx: SlabKey,
        message: Message<'_>,
        status: u16,
        block: Vec<u8>,
    ) {
        if status >= 200 {
            self.counters.requests_answered += 1;
        }
        self.respond(tx, message, status, block);
    }

    /// Makes a response of our own. `None`: the transaction is gone.
    pub(super) fn compose(
        &mut self,
        tx: SlabKey,
        message: Message<'_>,
        status: u16,
        phrase: Option<&str>,
        lines: &[u8],
    ) -> Option<Vec<u8>> {
        let transaction = self.transactions.server.get(tx)?;
        let via_params = transaction.source.params(&transaction.arrival);
        let tag = (status != 100).then(|| tag_text(self.new_tag(message)));
        // A block that had to grow would leave its class for a larger one with every answer.
        let mut block = self.pool.take(sip::response_room(message, lines.len()));
        let parts = ResponseParts {
            status,
            reason: phrase,
            to_tag: tag.as_ref().map(<[u8; TAG_LEN]>::as_slice),
            extra: lines,
            body: &[],
            via_params,
        };
        sip::response(message, &parts, &mut block);
        Some(block)
    }

    /// 100 Trying, sent at once so that the sender stops repeating (RFC 3261 §16.2, §17.2.1).
    pub(super) fn answer_trying(&mut self, tx: SlabKey, message: Message<'_>) {
        self.answer(tx, message, 100, None, &[]);
    }

    /// Answers with what was found wrong.
    pub(super) fn answer_reject(&mut self, tx: SlabKey, message: Message<'_>, reject: &Reject) {
        let is_token_refused = reject.status == 403 && reject.warning.is_some();
        self.counters.requests_token_refused += u64::from(is_token_refused);
        self.answer_uncounted(tx, message, reject);
    }

    /// The same for what its finder has counted.
    pub(super) fn answer_uncounted(&mut self, tx: SlabKey, message: Message<'_>, reject: &Reject) {
        let mut lines = std::mem::take(&mut self.scratch.lines);
        lines.clear();
        write_lines(&self.config.node.name, reject, &mut lines);
        self.answer(tx, message, reject.status, reject.phrase, &lines);
        self.scratch.lines = lines;
    }

    /// Answers with what was found wrong, without a transaction: the request was too broken, or
    /// there was no room, to open one.
    pub(super) fn answer_stateless(
        &mut self,
        arrival: &Arrival,
        message: Message<'_>,
        reject: &Reject,
    ) {
        let mut lines = std::mem::take(&mut self.scratch.lines);
        lines.clear();
        write_lines(&self.config.node.name, reject, &mut lines);
        self.say_stateless(arrival, message, reject.status, reject.phrase, &lines);
        self.scratch.lines = lines;
    }

    /// Answers without a transaction (RFC 3261 §8.2.7).
    pub(super) fn say_stateless(
        &mut self,
        arrival: &Arrival,
        message: Message<'_>,
        status: u16,
        phrase: Option<&str>,
        lines: &[u8],
    ) {
        let tag = tag_text(self.own_tag(message));
        let via = message.top_via().ok();
        let source = via.as_ref().map(|via| Source::of(via, arrival)).unwrap_or_default();
        let parts = ResponseParts {
            status,
            reason: phrase,
            to_tag: Some(&tag),
            extra: lines,
            body: &[],
            via_params: source.params(arrival),
        };
        let mut block = self.pool.take(sip::response_room(message, lines.len()));
        sip::response(message, &parts, &mut block);
        self.counters.requests_answered += 1;
        let to = via.map_or(arrival.source, |via| reply_to(arrival, &via));
        let sender = Recipient::on(arrival.source, arrival.client);
        if self.deliver_or_hold(to, sender, &block, HeldWhat::Response).is_none() {
            self.counters.dropped_response_flow_gone += 1;
        }
        self.pool.put(block);
    }

    /// The To tag of a response of our own. A CANCEL hears that of its INVITE (RFC 3261 §9.2).
    fn new_tag(&mut self, message: Message<'_>) -> u64 {
        match message.method() {
            Method::Invite | Method::Cancel => self.own_tag(message),
            _ => self.rng.next_u64(),
        }
    }

    /// The To tag of what we say ourselves to an INVITE, and to anything without a transaction:
    /// equal whenever it is asked for (RFC 3261 §8.2.7), so that the ACK shows whom it is for.
    pub(super) fn own_tag(&mut self, message: Message<'_>) -> u64 {
        let key = &mut self.scratch.key;
        key.clear();
        key.extend_from_slice(b"tag ");
        key.extend_from_slice(message.call_id().unwrap_or_default());
        key.push(b' ');
        let from = message.from().ok();
        key.extend_from_slice(from.and_then(|from| from.tag()).unwrap_or_default());
        self.placement.of(key)
    }

    /// Whether an ACK is for an answer of ours, although no transaction waits for it (any more).
    pub(super) fn acknowledges_us(&mut self, ack: Message<'_>) -> bool {
        let tag = ack.to().ok().and_then(|to| to.tag());
        let Some(tag) = tag.filter(|tag| tag.len() == TAG_LEN) else { return false };
        *tag == tag_text(self.own_tag(ack))
    }

    /// Gives a response to the server machine, which sends it or not.
    fn respond(&mut self, tx: SlabKey, message: Message<'_>, status: u16, block: Vec<u8>) {
        let timers = self.config.timers;
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        let old = std::mem::replace(&mut transaction.last, block);
        if status >= 200 {
            transaction.context.sent = status;
        }
        let steps = match &mut transaction.machine {
            ServerMachine::Invite(machine) => machine.on_respond(status, &timers),
            ServerMachine::Other(machine) => machine.on_respond(status, &timers),
        };
        // Repeats of a 2xx follow the caller as long as it can be missing one.
        let is_followed = transaction.is_invite && transaction.arrival.client.is_some();
        let is_over = status >= 200 && !is_followed;
        let mark = if is_over { transaction.mark.take() } else { None };
        if let Some(mark) = mark {
            self.transactions.by_source.remove(mark);
        }
        self.pool.put(old);
        if status >= 200 {
            self.end_search(tx);
            self.report_end(tx, message, status);
        }
        self.run_server_steps(tx, message, &steps);
        if status >= 200 {
            self.forget_answered(tx, status);
        }
    }

    /// What was the best is of no use once a final response was sent. After a 2xx to INVITE only
    /// repeats are absorbed: its bytes are not needed for that (RFC 6026 §7.1).
    fn forget_answered(&mut self, tx: SlabKey, status: u16) {
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        let best = transaction.best.take();
        if transaction.is_invite && status < 300 {
            let last = std::mem::take(&mut transaction.last);
            self.pool.put(last);
        }
        self.discard_best(best);
    }

    /// A response of a branch, of which the transaction layer says that the core shall see it.
    pub(super) fn on_branch_response(
        &mut self,
        tx: SlabKey,
        client: SlabKey,
        message: Message<'_>,
    ) {
        let status = message.status();
        if !self.revive(tx, client, status) {
            self.counters.responses_absorbed += 1;
            return;
        }
        let Some(branch) = self.transactions.client.get_mut(client) else { return };
        let again = branch.ended;
        branch.ended |= status >= 200;
        let (target, trusted) = (branch.flow(), branch.trusted);
        let authoritative = branch.authoritative;
        let is_ours_alone = match status {
            // RFC 5626 §5.3.1: 430 is for us, who know the bindings.
            430 if authoritative => Some((480, "The flow is gone")),
            487 if branch.given_up => Some((408, "No answer in time")),
            _ => None,
        };
        let Some(transaction) = self.transactions.server.get_mut(tx) else {
            self.counters.responses_absorbed += 1;
            return;
        };
        if status < 200 || again {
            let verdict = match status {
                // RFC 4320 §4.1: a 100 is sent when it is due, and nothing else is.
                0..200 if !transaction.is_invite => Verdict::Drop,
                0..200 => transaction.context.on_provisional(status),
                _ => transaction.context.on_success_again(),
            };
            return match verdict {
                Verdict::Forward => self.forward_up(tx, message, trusted),
                _ => self.counters.responses_absorbed += 1,
            };
        }
        // RFC 5626 §7: after these two the next flow of the instance may be tried, after no other;
        // after a 503 the next server (RFC 3263 §4.3).
        let is_next_due = if authoritative { matches!(status, 408 | 430) } else { status == 503 };
        if is_next_due && self.try_alternative(tx, client) {
            self.note_refusal(client, message);
            self.counters.responses_absorbed += 1;
            return;
        }
        if let Some((status, why)) = is_ours_alone {
            self.counters.responses_absorbed += 1;
            return self.on_branch_ended(tx, client, status, why);
        }
        self.leave_group(tx, client);
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        let then = transaction.context.on_final(status, transaction.is_invite);
        let accepts = authoritative && transaction.is_invite;
        if matches!(then.verdict, Verdict::Forward | Verdict::Keep)
            && let Some(best) = self.best_of(tx)
        {
            best.target = target;
        }
        match then.verdict {
            Verdict::Forward => self.with_request(tx, |engine, request| {
                if accepts {
                    engine.expect_ack(tx, request);
                }
                let moves = match trusted && request.method() == Method::Register {
                    true => engine.keep_shadow(tx, request, message),
                    false => None,
                };
                engine.forward_with(tx, request, message, trusted);
                if let Some(moves) = moves {
                    engine.follow_moves(&moves);
                }
            }),
            Verdict::Gather => self.gather(tx, message),
            Verdict::Keep => {
                let copy = self.pool.copy(message.bytes());
                if let Some(best) = self.best_of(tx) {
                    best.trusted = trusted;
                    let old = std::mem::replace(&mut best.block, copy);
                    self.discard_response(old);
                }
            }
            Verdict::Drop => self.counters.responses_absorbed += 1,
        }
        self.follow(tx, Some(client), then);
    }

    /// A branch ended with a status that we made up for it; 0: with none that may be shown.
    pub(super) fn on_branch_ended(
        &mut self,
        tx: SlabKey,
        client: SlabKey,
        status: u16,
        why: &'static str,
    ) {
        self.leave_group(tx, client);
        if status == 0 {
            self.end_search(tx);
        }
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        let then = if status == 0 {
            transaction.context.on_silent_end()
        } else {
            transaction.context.on_final(status, transaction.is_invite)
        };
        if then.verdict == Verdict::Keep
            && let Some(best) = self.best_of(tx)
        {
            best.reason = Some(why);
            let old = std::mem::take(&mut best.block);
            self.discard_response(old);
        }
        self.follow(tx, Some(client), then);
    }

    fn follow(&mut self, tx: SlabKey, client: Option<SlabKey>, then: Consequence) {
        if then.cancel_others {
            let won = self
                .transactions
                .server
                .get(tx)
                .is_some_and(|it| (200..300).contains(&it.context.sent));
            let reason = if won { CancelReason::Elsewhere } else { CancelReason::None };
            self.cancel_branches(tx, client, reason);
        }
        if !self.begin_next_group(tx) && then.finish {
            self.with_request(tx, |engine, message| engine.finish(tx, message));
        }
    }

    /// RFC 3261 §16.7 step 6 to 9: every branch has ended, the best final response goes to the
    /// sender. A 503 of a server behind us is not ours to say (step 6).
    pub(super) fn finish(&mut self, tx: SlabKey, message: Message<'_>) {
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        if transaction.context.sent != 0 {
            return;
        }
        let status = transaction.context.best;
        let (best, why, trusted) = match &mut transaction.best {
            Some(best) => (std::mem::take(&mut best.block), best.reason, best.trusted),
            None => (Vec::new(), None, false),
        };
        match status {
            0 => self.expire(tx, message),
            408 if !transaction.is_invite => self.expire(tx, message),
            503 => {
                let reject = Reject::because(500, "The server behind is not available");
                self.answer_reject(tx, message, &reject);
            }
            _ if best.is_empty() => {
                let reject = match status {
                    480 | 500 => Reject::retry_after(status, 1, why.unwrap_or("Unavailable")),
                    _ => Reject { warning: why.map(|why| (399, why)), ..Reject::new(status) },
                };
                self.answer_reject(tx, message, &reject);
            }
            _ => {
                let mut parsed = self.take_parsed();
                if sip::parse(&best, &mut parsed).is_ok() {
                    self.forward_with(tx, message, parsed.view(&best), trusted);
                }
                self.keep_parsed(parsed);
                return self.pool.put(best);
            }
        }
        self.discard_response(best);
    }

    /// RFC 4320 §4.2: a non-INVITE request that nobody answered in time is not answered by us
    /// either.
    fn expire(&mut self, tx: SlabKey, message: Message<'_>) {
        self.counters.transactions_expired += 1;
        self.report_end(tx, message, 0);
        self.respond(tx, message, 408, Vec::new());
    }

    fn forward_up(&mut self, tx: SlabKey, message: Message<'_>, trusted: bool) {
        self.with_request(tx, |engine, request| {
            engine.forward_with(tx, request, message, trusted);
        });
    }

    /// Sends a branch's response on, our Via taken off.
    fn forward_with(
        &mut self,
        tx: SlabKey,
        request: Message<'_>,
        message: Message<'_>,
        trusted: bool,
    ) {
        let Some(transaction) = self.transactions.server.get(tx) else { return };
        let toward = transaction.arrival.transport();
        let to_trusted = Sender::upstream(&self.config, &transaction.arrival).is_some();
        let border = Border { from_trusted: trusted, to_trusted };
        let mut block = self.pool.take(message.bytes().len());
        let edits = &mut self.scratch.edits;
        if !response::forward(message, toward, border, edits, &mut block) {
            self.pool.put(block);
            self.counters.dropped_response_without_via += 1;
            return;
        }
        self.counters.responses_forwarded += 1;
        let is_first = message.status() >= 200 && !transaction.reported;
        self.counters.requests_relayed += u64::from(is_first);
        self.respond(tx, request, message.status(), block);
    }
}

fn write_lines(node: &str, reject: &Reject, lines: &mut Vec<u8>) {
    lines.extend_from_slice(&reject.headers);
    if let Some((code, why)) = reject.warning {
        lines.extend_from_slice(b"Warning: ");
        naming::write_number(u64::from(code), lines);
        lines.push(b' ');
        lines.extend_from_slice(node.as_bytes());
        lines.extend_from_slice(b" \"");
        lines.extend_from_slice(why.as_bytes());
        lines.extend_from_slice(b"\"\r\n");
    }
}

/// A tag as text: hexadecimal digits.
fn tag_text(tag: u64) -> [u8; TAG_LEN] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|at| DIGITS[(tag >> (60 - 4 * at)) as usize & 15])
}
