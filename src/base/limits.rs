//! Every bound of the program, in one place. What an operator may move is a field of [`Limits`]; what only a
//! developer may move is a constant. Relations between bounds are asserted at compile time.

use std::time::Duration;

/// Header fields in one message; more is answered 400.
pub const HEADERS_MAX: usize = 256;
/// Values of one comma-separated header kind that are walked (Via, Route, Contact …).
pub const VALUES_MAX: usize = 128;
/// Branches that one request may have at a time; more targets are cut off by q.
pub const BRANCHES_MAX: usize = 16;
/// Messages that one flow may have handled in a turn before others get theirs.
pub const FLOW_MESSAGES_A_TURN: usize = 16;
/// Completions handled in one turn before sends are flushed.
pub const COMPLETIONS_A_TURN: usize = 256;
/// Bytes of a WebSocket upgrade request.
pub const UPGRADE_BYTES_MAX: usize = 8 * 1024;
/// Header fields of a WebSocket upgrade request.
pub const UPGRADE_HEADERS_MAX: usize = 64;
/// Requests that wait for one outgoing connection; more get 480 with Retry-After.
pub const CONNECT_WAITERS_MAX: usize = 1024;
/// Bindings that one alarm looks at; the rest follow at once.
pub const EXPIRIES_A_TURN: usize = 256;
/// Entries of the work lane of one link (new requests; full: 500 with Retry-After).
pub const LINK_WORK_ENTRIES: usize = 1024;
/// Entries of the duty lane of one link (responses, writes, closes); what does not fit waits in a queue.
pub const LINK_DUTY_ENTRIES: usize = 4096;
/// Size classes of pooled blocks, in bytes.
pub const BLOCK_CLASSES: [usize; 5] = [1 << 10, 2 << 10, 4 << 10, 16 << 10, 64 << 10];
/// Blocks of each class that a shard keeps for reuse.
pub const BLOCKS_KEPT: [usize; 5] = [4096, 4096, 1024, 256, 64];

/// Bounds that an operator may move: the `[limits]` table, one key a field.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of one SIP message on a stream or in a WebSocket message; more: 513, then close (1009).
    pub message_bytes_max: usize,
    /// Bytes of a message's header section; more on a stream: 513 and close.
    pub header_bytes_max: usize,
    /// Flows of one shard; beyond it connections are closed as soon as they are accepted.
    pub flows_max: usize,
    /// Server transactions of one shard; beyond it new requests get 500 with Retry-After.
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
    /// TCP and TLS flows without traffic for this long are closed; re-armed by every message or keep-alive.
    pub idle_timeout: Duration,
    /// Time for an outgoing connection to be established, TLS included.
    pub connect_timeout: Duration,
    /// Time that living transactions get after SIGTERM before the process ends.
    pub drain_timeout: Duration,
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
            connect_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

const _: () = {
    assert!(BLOCK_CLASSES.len() == BLOCKS_KEPT.len());
    assert!(LINK_WORK_ENTRIES.is_power_of_two() && LINK_DUTY_ENTRIES.is_power_of_two());
    assert!(FLOW_MESSAGES_A_TURN <= COMPLETIONS_A_TURN);
};
