//! Turns what shards report into log lines, on the control thread: the one place that formats them,
//! so that a shard never waits for a log.

use std::borrow::Cow;
use std::net::SocketAddr;

use tracing::level_filters::LevelFilter;
use tracing::{debug, error, info};

use super::tls::TlsError;
use crate::base::event::{Event, TransactionEvent};
use crate::base::id::FlowRef;
use crate::base::limits::LOG_MISHAP_BYTES_MAX;
use crate::engine::Mishap;

/// Something that a shard wants in the log.
#[derive(Debug)]
pub enum Report {
    /// The engine's, with the bytes that it names.
    Event {
        /// What happened; boxed, since reports wait in a ring for thousands.
        event: Box<Event>,
        /// The bytes at [`Event::text`].
        text: Box<[u8]>,
    },
    /// A TLS handshake or session failed; one of a flow that the engine knows ends in an event,
    /// too.
    TlsFailed {
        /// The peer.
        remote: SocketAddr,
        /// Whether we connected.
        is_outgoing: bool,
        /// What was wrong.
        error: TlsError,
    },
    /// An outgoing connection failed below TLS.
    ConnectFailed {
        /// The peer.
        remote: SocketAddr,
        /// The system's error number.
        errno: i32,
    },
}

/// Whether the log shows such events at its level: if not, nobody need be told.
pub fn is_wanted(event: &Event) -> bool {
    let level = match event {
        Event::Transaction(_) => LevelFilter::INFO,
        Event::FlowOpened { .. } | Event::FlowClosed { .. } | Event::Dropped { .. } => {
            LevelFilter::DEBUG
        }
    };
    level <= LevelFilter::current()
}

/// Writes that a shard failed and was started anew.
pub fn write_mishap(shard: u16, mishap: &Mishap, lost: u64) {
    let why = &mishap.words;
    let message = shown_head(&mishap.message);
    error!(shard, %why, lost, ?message, "shard failed: its flows ended, it was started anew");
}

/// The head of a message without its credentials (RFC 3261 §22), cut at
/// [`LOG_MISHAP_BYTES_MAX`]. The body is nobody's business.
fn shown_head(message: &[u8]) -> String {
    let end = memchr::memmem::find(message, b"\r\n\r\n").unwrap_or(message.len());
    let head = String::from_utf8_lossy(&message[..end.min(LOG_MISHAP_BYTES_MAX)]);
    let mut shown = String::with_capacity(head.len());
    let mut is_secret = false;
    for line in head.split_inclusive('\n') {
        let is_continued = line.starts_with([' ', '\t']);
        let name = line.split(':').next().unwrap_or_default().trim();
        if !is_continued {
            is_secret = ["Authorization", "Proxy-Authorization"]
                .iter()
                .any(|secret| name.eq_ignore_ascii_case(secret));
        }
        match is_secret {
            true if is_continued => {}
            true => shown.extend([name, ": …\r\n"]),
            false => shown.push_str(line),
        }
    }
    shown
}

/// Writes one line.
pub fn write(shard: u16, report: &Report) {
    match report {
        Report::Event { event, text } => write_event(shard, event, text),
        Report::TlsFailed { remote, is_outgoing, error } => {
            let direction = if *is_outgoing { "out" } else { "in" };
            debug!(shard, %remote, direction, why = error.name(), "TLS failed: {error}");
        }
        Report::ConnectFailed { remote, errno } => {
            let why = std::io::Error::from_raw_os_error(*errno);
            debug!(shard, %remote, why = %why, "connect failed");
        }
    }
}

fn write_event(shard: u16, event: &Event, text: &[u8]) {
    match event {
        Event::FlowOpened { flow, transport, remote } => {
            debug!(shard, %flow, transport = transport.name(), %remote, "flow opened");
        }
        Event::FlowClosed { flow, why } => {
            debug!(shard, %flow, why = why.name(), "flow closed");
        }
        Event::Dropped { source, why, .. } => {
            let call_id = word(text);
            debug!(shard, %call_id, flow = %source, why, "dropped");
        }
        Event::Transaction(transaction) => write_transaction(shard, transaction, text),
    }
}

fn write_transaction(shard: u16, event: &TransactionEvent, text: &[u8]) {
    let TransactionEvent { method_len, uri_len, source, target, status, took_ms, .. } = event;
    let (method, text) = text.split_at(usize::from(*method_len));
    let (uri, call_id) = text.split_at(usize::from(*uri_len));
    let [method, uri, call_id] = [method, uri, call_id].map(word);
    let to = target.map(display);
    let to = to.as_deref().unwrap_or("-");
    info!(shard, %call_id, flow = %source, to, %method, %uri, status, took_ms, "transaction");
}

/// The bytes as one word of text. White space and control characters, which none of these fields
/// has by its grammar, would let a peer write fields and lines of its own.
fn word(bytes: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(bytes);
    let is_foreign = |it: char| it.is_control() || it.is_whitespace();
    if text.contains(is_foreign) {
        return text.replace(is_foreign, "\u{fffd}").into();
    }
    text
}

fn display(flow: FlowRef) -> String {
    flow.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Sink;
    use super::*;

    #[test]
    fn the_message_of_a_mishap_shows_neither_credentials_nor_body() {
        let message = b"INVITE sip:b SIP/2.0\r\nauthorization : Digest x,\r\n\ty=\"z\"\r\n\
            Call-ID: 1\r\nProxy-Authorization:Bearer t\r\n\r\nsecret";
        let expected = "INVITE sip:b SIP/2.0\r\nauthorization: …\r\nCall-ID: 1\r\n\
            Proxy-Authorization: …\r\n";
        assert_eq!(shown_head(message), expected);
        assert_eq!(shown_head(&vec![b'a'; 99_999]).len(), LOG_MISHAP_BYTES_MAX);
        assert_eq!(shown_head(b"no \xff SIP"), "no \u{fffd} SIP");
    }

    use crate::base::event::CloseReason;
    use crate::base::id::{FlowId, ListenerId, ShardId, StreamPath, Transport};

    fn lines(reports: &[Report]) -> String {
        let (sink, subscriber) = Sink::subscriber();
        tracing::subscriber::with_default(subscriber, || {
            reports.iter().for_each(|report| write(1, report));
        });
        sink.text()
    }

    fn stream(flow: FlowId) -> FlowRef {
        let (transport, listener) = (Transport::Wss, ListenerId(0));
        FlowRef::Stream(StreamPath { flow, transport, listener })
    }

    #[test]
    fn a_peer_writes_no_lines_or_fields_of_its_own() {
        for (bytes, expected) in [
            (b"abc@host".as_slice(), "abc@host"),
            (b"a status=200", "a\u{fffd}status=200"),
            (b"a\r\n b\x1b[2J\x7f", "a\u{fffd}\u{fffd}\u{fffd}b\u{fffd}[2J\u{fffd}"),
            ("a\u{2028}b\u{9b}".as_bytes(), "a\u{fffd}b\u{fffd}"),
            (b"\xff", "\u{fffd}"),
        ] {
            assert_eq!(word(bytes), expected);
        }
    }

    #[test]
    fn a_transaction_is_one_line_at_info_with_all_fields() {
        let flow = stream(FlowId::new(ShardId(1), 7, 3));
        let event = Box::new(Event::Transaction(TransactionEvent {
            text: 100..134,
            method_len: 7,
            uri_len: 19,
            source: flow,
            target: None,
            status: 200,
            took_ms: 12,
        }));
        let text = b"MESSAGEsip:bob@example.comabc@host".as_slice().into();
        let line = lines(&[Report::Event { event, text }]);
        assert_eq!(line.lines().count(), 1);
        let wanted = [
            "INFO",
            "call_id=abc@host",
            "flow=f1.7.3",
            "method=MESSAGE",
            "status=200",
            "uri=sip:bob@example.com",
            "took_ms=12",
            "to=\"-\"",
        ];
        for field in wanted {
            assert!(line.contains(field), "{field} missing in {line}");
        }
    }

    #[test]
    fn flows_and_drops_are_debug() {
        let flow = FlowId::new(ShardId(1), 7, 3);
        let remote = "192.0.2.1:5060".parse().unwrap();
        let event = |event| Report::Event { event: Box::new(event), text: b"x".as_slice().into() };
        let text = lines(&[
            event(Event::FlowOpened { flow, transport: Transport::Wss, remote }),
            event(Event::FlowClosed { flow, why: CloseReason::Slow }),
            event(Event::Dropped { source: stream(flow), why: "malformed", call_id: 0..1 }),
            Report::TlsFailed { remote, is_outgoing: false, error: TlsError::Malformed },
            Report::ConnectFailed { remote, errno: libc::ECONNREFUSED },
        ]);
        assert_eq!(text.lines().filter(|line| line.contains("DEBUG")).count(), 5);
        assert!(text.contains("why=\"slow\"") && text.contains("transport=\"wss\""));
        assert!(text.contains("why=\"malformed\"") && text.contains("refused"));
    }
}
