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

/// The bytes as one word of text, cut at `max`. White space and control characters, which none of
/// these fields has by its grammar, would let a peer write fields and lines of its own.
pub(super) fn text(bytes: &[u8], max: usize) -> Box<str> {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(max)]);
    let is_foreign = |it: char| it.is_control() || it.is_whitespace();
    if text.contains(is_foreign) {
        return text.replace(is_foreign, "\u{fffd}").into();
    }
    text.into()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_writes_no_lines_or_fields_of_its_own() {
        for (bytes, expected) in [
            (b"abc@host".as_slice(), "abc@host"),
            (b"a status=200", "a\u{fffd}status=200"),
            (b"a\r\n b\x1b[2J\x7f", "a\u{fffd}\u{fffd}\u{fffd}b\u{fffd}[2J\u{fffd}"),
            ("a\u{2028}b\u{9b}".as_bytes(), "a\u{fffd}b\u{fffd}"),
            (b"\xff", "\u{fffd}"),
        ] {
            assert_eq!(&*text(bytes, 64), expected);
        }
        assert_eq!(&*text(b"abcdef", 3), "abc");
    }
}
