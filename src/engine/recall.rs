//! Does a caller that came back on another flow still know its INVITE? Clients that keep their
//! transactions take the answer from the next flow. Others, JsSIP among them, forget all of them with
//! the connection, and the other side would ring until Timer C for a caller that is waiting for
//! nothing. So the caller is asked in its early dialog, by an INFO without a body (RFC 6086 §4), which
//! changes nothing where the dialog is known and is answered 481 where it is not (RFC 3261 §12.2.2);
//! OPTIONS would not do, since many a client answers it 200 outside any dialog.
//!
//! The last provisional response goes out before it once more: the old flow may have swallowed it, and
//! with it the dialog that is asked for; a 100, too, without which the caller would give up (Timer B,
//! RFC 3261 §17.1.1.2). The CSeq number is 0, so
//! that the next request of the callee has a higher one (RFC 3261 §12.2.2); a caller that heard from
//! the callee before refuses it with 500, and so knows the dialog. Absent on purpose: transactions,
//! timers and retransmissions. The flow is a stream, one question is asked for each INVITE and each
//! next flow, and what is not answered changes nothing.

use crate::base::id::{FlowRef, StreamPath};
use crate::base::slab::SlabKey;
use crate::flow::arrival::Arrival;
use crate::proxy::branch::BranchId;
use crate::proxy::naming;
use crate::sip::{self, HeaderName, Message, Method, NameAddr, Scheme, Uri};

use super::Engine;
use super::mesh::Recipient;
use super::transactions::{CancelReason, ServerTransaction};

/// Whether the sender of an INVITE knows that it waits for an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Recall {
    /// As far as anybody can see.
    #[default]
    Sure,
    /// It is on another flow and is to be asked once there is a dialog to ask for.
    Unsure,
    /// It was asked.
    Asked,
}

impl Engine {
    /// The sender of a request has another flow: one that has heard nothing final of its INVITE is
    /// asked now, or when there is a dialog.
    pub(super) fn recall(&mut self, tx: SlabKey) {
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        if !transaction.is_invite || transaction.context.sent != 0 {
            return;
        }
        transaction.recall = Recall::Unsure;
        if is_provisional(&transaction.last) {
            self.counters.retransmissions_sent += 1;
            self.with_request(tx, |engine, invite| {
                engine.send_last(tx);
                engine.ask_caller(tx, invite);
            });
        }
    }

    /// Asks the sender of an INVITE, of whom we are not sure, whether it knows the dialog of the
    /// provisional response that it was just sent. Without a Contact in that it may know none
    /// (RFC 3261 §12.1.1).
    pub(super) fn ask_caller(&mut self, tx: SlabKey, invite: Message<'_>) {
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        let (FlowRef::Stream(path), Recall::Unsure) = (transaction.reply_to(), transaction.recall)
        else {
            return;
        };
        if transaction.context.sent != 0 || transaction.lost || !has_rung(transaction) {
            return;
        }
        let last = std::mem::take(&mut transaction.last);
        let mut parsed = self.take_parsed();
        let mut block = self.pool.take(last.len() + 256);
        let is_written = sip::parse(&last, &mut parsed).is_ok()
            && self.write_question(tx, invite, parsed.view(&last), path, &mut block);
        self.keep_parsed(parsed);
        if let Some(transaction) = self.transactions.server.get_mut(tx) {
            transaction.last = last;
            if is_written {
                transaction.recall = Recall::Asked;
            }
        }
        if is_written {
            self.counters.callers_asked += 1;
            // One that is lost with its flow is asked again on the next.
            let _ = self.deliver(FlowRef::Stream(path), &block, None, Recipient::NOBODY);
        }
        self.pool.put(block);
    }

    /// Appends the INFO. False when there is no dialog to ask for, or its other end is not on the
    /// flow but behind another proxy there.
    fn write_question(
        &mut self,
        tx: SlabKey,
        invite: Message<'_>,
        provisional: Message<'_>,
        path: StreamPath,
        out: &mut Vec<u8>,
    ) -> bool {
        let is_direct = !invite.has_many(HeaderName::Via);
        let has_tags = provisional.to().is_ok_and(|to| to.tag().is_some())
            && invite.from().is_ok_and(|from| from.tag().is_some());
        let opens_dialog = has_tags && provisional.header(HeaderName::Contact).is_some();
        let (Some(contact), true, true) = (contact_of(invite), is_direct, opens_dialog) else {
            return false;
        };
        let (shard, secret) = (self.shard, self.recall_secret(tx));
        let branch = BranchId { shard, client: tx, secret, loop_hash: self.rng.next_u64() as u32 };
        let field = |message: Message<'_>, name| message.header(name).map(|it| it.value.to_vec());
        let local = field(provisional, HeaderName::To).unwrap_or_default();
        let remote = field(invite, HeaderName::From).unwrap_or_default();
        let via_name = path.transport.via_name().as_bytes();
        out.extend([b"INFO ", contact, b" SIP/2.0\r\nVia: SIP/2.0/", via_name, b" "].concat());
        naming::write_sent_by(&self.config, path.listener, out);
        out.extend_from_slice(b";branch=");
        branch.encode(out);
        let call_id = invite.call_id().unwrap_or_default();
        out.extend([b"\r\nMax-Forwards: 70\r\nFrom: ", &*local, b"\r\nTo: ", &*remote].concat());
        out.extend([b"\r\nCall-ID: ", call_id, b"\r\nCSeq: 0 INFO\r\n"].concat());
        out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        true
    }

    /// A response whose branch names no client transaction: is it the answer to such a question?
    /// 481 ends the caller's part of the call, 404 (nobody has the Contact of the INVITE any more) all
    /// of its dialog (RFC 5057 §5.1): the other side is told so. Any other leaves things as they are.
    pub(super) fn on_recall_answer(
        &mut self,
        arrival: &Arrival,
        message: Message<'_>,
        branch: BranchId,
    ) -> bool {
        let is_info = message.cseq().is_ok_and(|cseq| cseq.method == Method::Info);
        if !is_info || branch.secret != self.recall_secret(branch.client) {
            return false;
        }
        self.counters.responses_absorbed += 1;
        let tx = branch.client;
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return true };
        let is_asked = transaction.recall == Recall::Asked && transaction.context.sent == 0;
        if is_asked && transaction.arrival.source == arrival.source && message.status() >= 200 {
            transaction.recall = Recall::Sure;
            if matches!(message.status(), 404 | 481) {
                self.counters.callers_forgot += 1;
                self.cancel_branches(tx, None, CancelReason::CallerGone);
            }
        }
        true
    }

    /// What only we and who was asked know.
    fn recall_secret(&self, tx: SlabKey) -> u64 {
        let mut text = [0; 14];
        text[..6].copy_from_slice(b"recall");
        text[6..].copy_from_slice(&tx.to_bits().to_be_bytes());
        self.placement.of(&text)
    }
}

/// Whether a message is a provisional response.
pub(super) fn is_provisional(message: &[u8]) -> bool {
    message.starts_with(b"SIP/2.0 1")
}

/// Whether the last thing said was a provisional response other than 100.
fn has_rung(transaction: &ServerTransaction) -> bool {
    is_provisional(&transaction.last) && !transaction.last.starts_with(b"SIP/2.0 100")
}

/// The URI under which the sender of an INVITE wants to be asked.
fn contact_of(invite: Message<'_>) -> Option<&[u8]> {
    let value = invite.values(HeaderName::Contact).next()?;
    let uri = NameAddr::parse(value.text).ok()?.uri;
    let scheme = Uri::parse(uri).ok()?.scheme;
    matches!(scheme, Scheme::Sip | Scheme::Sips).then_some(uri)
}
