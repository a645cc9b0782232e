//! The bounds that an operator may move.

use std::time::Duration;

/// Bounds that an operator may move: the `[limits]` table, one key a field.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of one SIP message on a stream or in a WebSocket message; more: 513, then close
    /// (1009).
    pub message_bytes_max: usize,
    /// Bytes of a message's header section; more on a stream: 513 and close.
    pub header_bytes_max: usize,
    /// Flows of one shard; beyond it connections are closed as soon as they are accepted.
    pub flows_max: usize,
    /// Server transactions of one shard. Beyond it, or beyond [`super::REGISTERS_LINGERING_MAX`] of them,
    /// REGISTERs over UDP that we have answered give way, the oldest first; where there are none, new
    /// requests get 500 with Retry-After.
    pub transactions_max: usize,
    /// Bindings of one shard; beyond it a REGISTER that adds gets 500 with Retry-After.
    pub bindings_max: usize,
    /// Bytes queued toward one flow; beyond it requests for that flow get 480 with Retry-After.
    pub flow_queue_bytes_max: usize,
    /// Messages queued toward one flow, likewise.
    pub flow_queue_messages_max: usize,
    /// Time for TLS and WebSocket handshakes together.
    pub handshake_timeout: Duration,
    /// Time from the first byte of a message on a stream to its last.
    pub message_timeout: Duration,
    /// Time that one write may be pending before its flow is closed.
    pub write_timeout: Duration,
    /// Time between WebSocket pings.
    pub ping_interval: Duration,
    /// Time that a flow has to answer a ping before it is closed.
    pub pong_timeout: Duration,
    /// TCP and TLS flows without traffic for this long are closed; re-armed by every message or
    /// keep-alive.
    pub idle_timeout: Duration,
    /// Time that an accepted flow has to register or to have a request accepted before it is
    /// closed.
    pub prove_deadline: Duration,
    /// STUN binding requests of one source address that a shard answers in a second (RFC 5626
    /// §4.4.2); more are dropped. A client sends one in about 25 s.
    pub stun_answers_max: usize,
    /// Wrong passwords of one source address that a shard looks at in a minute, at least 1. With more
    /// no password from there is looked at until time has paid for them.
    pub wrong_passwords_max: usize,
    /// Time for an outgoing connection to be established, TLS included.
    pub connect_timeout: Duration,
    /// Time that living transactions get after SIGTERM before the process ends.
    pub drain_timeout: Duration,
    /// Time over which flows are closed at the end, so that their clients do not come back in one
    /// wave; a thousand flows of a shard take no more than a second of it.
    pub drain_spread: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_bytes_max: 128 * 1024,
            header_bytes_max: 32 * 1024,
            flows_max: 1 << 20,
            transactions_max: 200_000,
            bindings_max: 2_000_000,
            flow_queue_bytes_max: 64 * 1024,
            flow_queue_messages_max: 64,
            handshake_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(900),
            prove_deadline: Duration::from_secs(60),
            stun_answers_max: 100,
            wrong_passwords_max: 100,
            connect_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(5),
            drain_spread: Duration::from_secs(10),
        }
    }
}
