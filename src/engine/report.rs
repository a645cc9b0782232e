//! What the log is told of a transaction, built once at its end.

use crate::base::event::{Event, TransactionEvent};
use crate::base::slab::SlabKey;
use crate::sip::Message;

use super::Engine;
use super::output::Output;

/// Bytes of a Call-ID that a log line shows.
pub(super) const CALL_ID_MAX: usize = 128;
/// Bytes of a URI that a log line shows.
pub(super) const URI_MAX: usize = 256;
/// Bytes of a method that a log line shows.
const METHOD_MAX: usize = 32;

/// The bytes as text, cut at `max`.
pub(super) fn text(bytes: &[u8], max: usize) -> Box<str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(max)]).into()
}

impl Engine {
    /// One line a transaction, when its final response is decided.
    pub(super) fn report_end(&mut self, tx: SlabKey, message: Message<'_>, status: u16) {
        let Some(transaction) = self.transactions.server.get_mut(tx) else { return };
        if std::mem::replace(&mut transaction.reported, true) || message.bytes().is_empty() {
            return;
        }
        let took = self.now.saturating_since(transaction.started).as_millis();
        let event = TransactionEvent {
            method: text(message.method().as_bytes(), METHOD_MAX),
            uri: text(message.uri(), URI_MAX),
            call_id: text(message.call_id().unwrap_or_default(), CALL_ID_MAX),
            source: transaction.arrival.source,
            target: transaction.target,
            status,
            took_ms: u32::try_from(took).unwrap_or(u32::MAX),
        };
        self.outputs.push_back(Output::Event(Event::Transaction(Box::new(event))));
    }
}
