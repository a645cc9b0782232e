//! What a shard tells the log: one row an event, values only. The driver turns them into lines; the
//! engine never formats text for a log, and allocates nothing for it: texts lie where the bytes of
//! a write do.

use super::id::{FlowId, FlowRef, Transport};
use std::net::SocketAddr;
use std::ops::Range;

/// Something worth a log line. Transactions are `info`, flows and drops are `debug`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A flow is usable (TLS and WebSocket handshakes done). Debug.
    FlowOpened {
        /// Which.
        flow: FlowId,
        /// What it speaks.
        transport: Transport,
        /// The peer.
        remote: SocketAddr,
    },
    /// A flow ended. Debug.
    FlowClosed {
        /// Which.
        flow: FlowId,
        /// Why, in the words of [`CloseReason`].
        why: CloseReason,
    },
    /// A transaction that we served ended. Info: one line a transaction.
    Transaction(TransactionEvent),
    /// A message was discarded for a reason that has a counter. Debug.
    Dropped {
        /// Where it came from.
        source: FlowRef,
        /// The counter's name without its prefix.
        why: &'static str,
        /// Where the Call-ID lies, when there was one to read (cut at 128 bytes).
        call_id: Range<usize>,
    },
}

impl Event {
    /// Where the bytes lie that it names; empty when it names none.
    pub fn text(&self) -> Range<usize> {
        match self {
            Event::Transaction(event) => event.text.clone(),
            Event::Dropped { call_id, .. } => call_id.clone(),
            Event::FlowOpened { .. } | Event::FlowClosed { .. } => 0..0,
        }
    }
}

/// The end of one server transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct TransactionEvent {
    /// Where method, Request-URI and Call-ID lie, one after the other.
    pub text: Range<usize>,
    /// Bytes of the method, at most 32.
    pub method_len: u16,
    /// Bytes of the Request-URI, at most 256; the rest is the Call-ID, at most 128.
    pub uri_len: u16,
    /// Who sent the request.
    pub source: FlowRef,
    /// Where the branch that answered went to, if any.
    pub target: Option<FlowRef>,
    /// Final status; 0 when none was sent (expired).
    pub status: u16,
    /// From the request to the final response, in milliseconds.
    pub took_ms: u32,
}

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The peer closed in order (FIN, close frame, close_notify).
    Peer,
    /// The peer reset it or the network failed.
    Reset,
    /// A ping was not answered in time.
    Pong,
    /// A write was pending too long, or the queue toward it overflowed.
    Slow,
    /// Nothing was received for the idle time.
    Idle,
    /// Its client neither registered nor had a request accepted in time.
    Unproven,
    /// The token that its client came by has expired, and no other one came.
    Expired,
    /// A handshake or message took too long.
    Timeout,
    /// The peer broke a protocol.
    Protocol,
    /// A table or descriptor limit.
    Limit,
    /// We are shutting down.
    Drain,
    /// The shard that owned it failed.
    Shard,
}

impl CloseReason {
    /// The word for logs.
    pub const fn name(self) -> &'static str {
        match self {
            CloseReason::Peer => "peer",
            CloseReason::Reset => "reset",
            CloseReason::Pong => "pong",
            CloseReason::Slow => "slow",
            CloseReason::Idle => "idle",
            CloseReason::Unproven => "unproven",
            CloseReason::Expired => "expired",
            CloseReason::Timeout => "timeout",
            CloseReason::Protocol => "protocol",
            CloseReason::Limit => "limit",
            CloseReason::Drain => "drain",
            CloseReason::Shard => "shard",
        }
    }
}
