//! What the log is told of a transaction, built once at its end, and of a message that was dropped.
//! Texts go to the arena, so that nobody pays for a line that is not written.

use std::ops::Range;

use crate::base::event::{Event, TransactionEvent};
use crate::base::id::FlowRef;
use crate::base::limits::{LOG_CALL_ID_MAX, LOG_METHOD_MAX, LOG_URI_MAX};
use crate::base::slab::SlabKey;
use crate::flow::arrival::Arrival;
use crate::sip::Message;

use super::Engine;
use super::output::Output;

impl Engine {
    /// One line a transaction, when its final response is decided.
    pub(super) fn report_end(&mut self, tx: SlabKey, message: Message<'_>, status: u16) {
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        if std::mem::replace(&mut transaction.reported, true) || message.bytes().is_empty() {
            return;
        }
        let took = self.now.saturating_since(transaction.started).as_millis();
        let (source, target) =
            (transaction.arrival.source, transaction.best.as_ref().and_then(|it| it.target));
        let took_ms = u32::try_from(took).unwrap_or(u32::MAX);
        self.report_request(message, source, target, status, took_ms);
    }

    /// The same of a request that had no transaction.
    pub(super) fn report_answer(&mut self, arrival: &Arrival, message: Message<'_>, status: u16) {
        self.report_request(message, arrival.source, None, status, 0);
    }

    fn report_request(
        &mut self,
        message: Message<'_>,
        source: FlowRef,
        target: Option<FlowRef>,
        status: u16,
        took_ms: u32,
    ) {
        let method = self.note(message.method().as_bytes(), LOG_METHOD_MAX);
        let uri = self.note(message.uri(), LOG_URI_MAX);
        let call_id = self.note(message.call_id().unwrap_or_default(), LOG_CALL_ID_MAX);
        let event = TransactionEvent {
            text: method.start..call_id.end,
            method_len: method.len() as u16,
            uri_len: uri.len() as u16,
            source,
            target,
            status,
            took_ms,
        };
        self.outputs.push_back(Output::Event(Event::Transaction(event)));
    }

    /// Tells the log of a discarded message.
    pub(super) fn report_drop(&mut self, source: FlowRef, why: &'static str, message: Message<'_>) {
        let call_id = self.note(message.call_id().unwrap_or_default(), LOG_CALL_ID_MAX);
        self.outputs.push_back(Output::Event(Event::Dropped { source, why, call_id }));
    }

    /// Puts the bytes, cut at `max`, where outputs find them.
    fn note(&mut self, bytes: &[u8], max: usize) -> Range<usize> {
        let start = self.arena.len();
        self.arena.extend_from_slice(&bytes[..bytes.len().min(max)]);
        start..self.arena.len()
    }
}
