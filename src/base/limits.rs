//! Every bound of the program, in one place. What an operator may move is a field of [`Limits`];
//! what only a developer may move is a constant. Relations between bounds are asserted at compile
//! time.

mod adjustable;

use std::time::Duration;

use super::allowance::Rate;

pub use adjustable::Limits;

/// Header fields in one message; more is answered 400.
pub const HEADERS_MAX: usize = 256;
/// Header fields that forwarding adds to a message at most: Via, two Record-Route, Route,
/// Max-Forwards, Max-Breadth, Content-Length.
pub const HEADERS_ADDED_MAX: usize = 8;
/// Values of one comma-separated header kind that are walked (Via, Route, Contact …).
pub const VALUES_MAX: usize = 128;
/// Branches that one request begins at a time; targets of equal preference beyond that follow when
/// these have ended.
pub const BRANCHES_MAX: usize = 16;
/// Targets of one request, alternatives included; what the location service has beyond that is left
/// out, the oldest first.
pub const TARGETS_MAX: usize = 64;
/// Max-Breadth of a request that names none, and the most that one may name (RFC 5393 §5.3.3).
pub const BREADTH_MAX: u8 = 60;
/// Unfinished target sets kept for reuse.
pub const SEARCHES_KEPT: usize = 1024;
/// Bytes of a 401 or 407 with the challenges of other branches added; what does not fit is left out.
pub const CHALLENGES_BYTES_MAX: usize = 16 * 1024;
/// Requests of one client's flow that may wait for their final response; more get 480 with
/// Retry-After. No more than what its queue takes if all are answered at once.
pub const FLOW_REQUESTS_MAX: usize = 256;
/// Bindings that one flow may carry: what ends with it ends at once; more get 480 with Retry-After.
pub const FLOW_BINDINGS_MAX: usize = 1024;
/// Requests and responses that may wait for one client that lost its flow; more are answered as if
/// it did not come back. Half of what the queue of its next flow takes at once.
pub const WAITERS_OF_CLIENT_MAX: usize = 32;
/// Bytes of these, if there is more than one; likewise less than that queue takes.
pub const WAITER_BYTES_OF_CLIENT_MAX: usize = 48 * 1024;
/// Requests and responses that may wait for the clients that one shard owns.
pub const WAITERS_MAX: usize = 16 * 1024;
/// Bytes of these.
pub const WAITER_BYTES_MAX: usize = 64 << 20;
/// ACKs and responses without a transaction that a shard keeps while they wait.
pub const HELD_MAX: usize = 8 * 1024;
/// Requests other than INVITE wait no longer for a client that lost its flow, so that their sender
/// hears of it before it gives up (RFC 3261 §17.1.2.2, Timer F).
pub const WAIT_BRIEF: Duration = Duration::from_secs(5);
/// Most that `grace` may be: less than Timer B (RFC 3261 §17.1.1.2), which runs meanwhile.
pub const GRACE_MAX: Duration = Duration::from_secs(30);
/// Time that an old flow has to answer when its client registers on a new one.
pub const PROBE_TIME: Duration = Duration::from_secs(1);
/// Completions handled in one turn before sends are flushed.
pub const COMPLETIONS_A_TURN: usize = 256;
/// Bytes of a WebSocket upgrade request.
pub const UPGRADE_BYTES_MAX: usize = 8 * 1024;
/// Header fields of a WebSocket upgrade request.
pub const UPGRADE_HEADERS_MAX: usize = 64;
/// Requests that wait for one outgoing connection; more get 480 with Retry-After.
pub const CONNECT_WAITERS_MAX: usize = 1024;
/// Targets of one upstream.
pub const UPSTREAM_TARGETS_MAX: usize = 32;
/// Time that a target which failed is tried after all others.
pub const TARGET_REST: Duration = Duration::from_secs(30);
/// Longest Retry-After of a target's 503 that is heeded.
pub const TARGET_REST_MAX: Duration = Duration::from_secs(300);
/// Time that a connection may take of which a large request could do without (RFC 3261 §18.1.1).
pub const STREAM_PATIENCE: Duration = Duration::from_millis(500);
/// Time for which a peer that took no connection gets large requests by UDP.
pub const STREAM_REFUSED_TIME: Duration = Duration::from_secs(300);
/// Such peers that a shard remembers; more are tried anew with each large request.
pub const STREAM_REFUSED_MAX: usize = 1024;
/// Accepted TLS flows of upstreams that a shard sends requests on (RFC 5923).
pub const ALIASES_MAX: usize = 1024;
/// How far beyond its bound a flow's queue may grow by responses and frames, which are not refused
/// one by one.
pub const DUTY_FACTOR: usize = 4;
/// How much more than a client's flow one of a configured server may have queued: a turn's messages
/// of all users may be for it.
pub const TRUNK_FACTOR: usize = 64;
/// Bindings that one alarm looks at; the rest follow at once.
pub const EXPIRIES_A_TURN: usize = 256;
/// Alarms that ring in one turn; the rest do in the next.
pub const ALARMS_A_TURN: usize = 256;
/// Transactions of flows that are gone which hear of it within one of these intervals; the rest do
/// in the next.
pub const LOSSES_AN_INTERVAL: usize = 64;
/// See [`LOSSES_AN_INTERVAL`].
pub const LOSSES_INTERVAL: Duration = Duration::from_millis(1);
/// Entries of the work lane of one link (new requests; full: 500 with Retry-After).
pub const LINK_WORK_ENTRIES: usize = 1024;
/// Entries of the duty lane of one link (responses, writes, closes); what does not fit waits in a
/// queue.
pub const LINK_DUTY_ENTRIES: usize = 4096;
/// Size classes of pooled blocks, in bytes. Few small ones, so that what crosses to another shard in
/// one comes back in the same; many large ones, so that what waits in one takes little more than its
/// length.
pub const BLOCK_CLASSES: [usize; 16] = [
    256,
    1 << 10,
    2 << 10,
    4 << 10,
    5 << 10,
    6 << 10,
    8 << 10,
    10 << 10,
    12 << 10,
    16 << 10,
    20 << 10,
    24 << 10,
    32 << 10,
    40 << 10,
    48 << 10,
    64 << 10,
];
/// Blocks of each class that a shard keeps for reuse: 40 MB of all of them.
pub const BLOCKS_KEPT: [usize; 16] =
    [4096, 4096, 4096, 1024, 256, 256, 256, 128, 128, 128, 64, 64, 64, 32, 32, 64];
/// Bytes of a body from which on a request that waits, and of which no further copy will be made, is
/// kept without it.
pub const WAITING_BODY_BYTES_MAX: usize = 1024;
/// Bytes of one block of last responses that answer repeated requests (RFC 3261 §17.2.2).
pub const TRAIL_BLOCK_BYTES: usize = BLOCK_CLASSES[BLOCK_CLASSES.len() - 1];
/// Such blocks of each queue of a shard; beyond them each such response, or way of an accepted
/// INVITE, keeps a block of its own.
pub const TRAIL_BLOCKS_MAX: usize = 4 * 1024;
/// REGISTERs over UDP of which a shard keeps the answer until Timer J (RFC 3261 §17.2.2); beyond them
/// the oldest give way as if the table were full. Until T1, when a client whose answer was lost asks
/// again, it is as many as 65,000 a second make; 200,000 would not fit in the caches.
pub const REGISTERS_LINGERING_MAX: usize = 32 * 1024;
/// REGISTERs of which a shard remembers, for the rest of Timer J (RFC 3261 §17.2.2), that they were
/// accepted, although their transactions gave way: 26 s of 40,000 a second.
pub const REGISTERS_REMEMBERED: usize = 1 << 20;
/// Bytes that they take at most; nothing before the first.
pub const REMEMBERED_BYTES_MAX: usize = 8 << 20;
/// Entries of a shard's submission queue.
pub const RING_SUBMISSIONS: u32 = 4096;
/// Entries of a shard's completion queue; halved while memory is short.
pub const RING_COMPLETIONS: u32 = 32 * 1024;
/// Least entries of a completion queue; less memory than that: no start.
pub const RING_COMPLETIONS_MIN: u32 = 4096;
/// Enters in a row that run the kernel's deferred work before completions are handled.
pub const DEFERRED_ENTERS_MAX: usize = 64;
/// Time of one turn, after which sends are flushed although completions are left.
pub const TURN_TIME: Duration = Duration::from_millis(1);
/// A turn that took longer was kept from its CPU, and has not heard yet what came meanwhile.
pub const TURN_TIME_KEPT: Duration = Duration::from_millis(20);
/// Part of a turn that TLS handshakes may take: one in so many.
pub const HANDSHAKE_SHARE: u32 = 4;
/// Flows whose peers are gone, and flows that overstay their end, that are ended in one turn: each
/// takes 10 to 30 µs until its socket is closed. The others have to wait, so that thousands that go
/// at once do not hold up those who stay.
pub const ENDS_A_TURN: usize = 16;
/// Receive buffers of one shard for all its streams.
pub const STREAM_BUFFERS: u16 = 1024;
/// Bytes of one of them.
pub const STREAM_BUFFER_BYTES: usize = 2048;
/// Receive buffers of one UDP socket.
pub const DATAGRAM_BUFFERS: u16 = 256;
/// Bytes of one of them: the largest datagram and what the kernel writes before it, in whole pages.
pub const DATAGRAM_BUFFER_BYTES: usize = 68 * 1024;
/// Largest payload of a UDP datagram over IPv4. A request that would be larger is answered 513, a
/// response dropped.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Datagrams that one shard may have in flight to the kernel; more are dropped.
pub const DATAGRAM_SENDS_MAX: usize = 1024;
/// Bytes that one flow's TLS handshake may have waiting for its turn.
pub const HANDSHAKE_BYTES_MAX: usize = 64 * 1024;
/// Output buffers of streams that a shard keeps for reuse.
pub const WRITERS_KEPT: usize = 4096;
/// A kept output buffer larger than this is given back to the allocator.
pub const WRITER_BYTES_KEPT: usize = 16 * 1024;
/// Time that a closing flow has to take what was written to it, and to end after it was told to.
pub const CLOSE_TIME: Duration = Duration::from_secs(5);
/// Time that the peer of a closed flow has to close its side before it is cut off.
pub const LINGER_TIME: Duration = Duration::from_secs(1);
/// Pause of a listener that found no descriptor or memory for a connection.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Descriptors kept free for everything that is not a flow.
pub const DESCRIPTORS_SPARE: u64 = 64;
/// Time that flows have to close in order when the process ends.
pub const STOP_TIME: Duration = Duration::from_secs(2);
/// Time between two flows that one shard closes at the end of the process, when there are few:
/// more of them are closed within `drain_spread`.
pub const DRAIN_FLOW_TIME: Duration = Duration::from_millis(1);
/// Interval at which flows are closed at the end of the process.
pub const DRAIN_INTERVAL: Duration = Duration::from_millis(10);
/// Interval at which a shard publishes its counters.
pub const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);
/// Least time between two turns of a shard's guests.
pub const GUEST_INTERVAL: Duration = Duration::from_millis(50);
/// Interval at which control collects log events and looks after the shards.
pub const CONTROL_INTERVAL: Duration = Duration::from_millis(50);
/// Messages of other shards handled in one turn.
pub const LINK_MESSAGES_A_TURN: usize = 256;
/// Least entries of a link's lane, however many shards there are.
pub const LINK_ENTRIES_MIN: usize = 64;
/// Log events that a shard may have waiting for control.
pub const EVENTS_ENTRIES: usize = 8192;
/// Commands that control may have waiting for a shard.
pub const COMMANDS_ENTRIES: usize = 64;
/// Panics of one shard within [`SHARD_RESTARTS_TIME`] that it is started anew after; one more ends
/// the process.
pub const SHARD_RESTARTS_MAX: usize = 16;
/// The time in which these panics count.
pub const SHARD_RESTARTS_TIME: Duration = Duration::from_secs(3600);
/// Bytes of the message that a shard panicked on that the log shows.
pub const LOG_MISHAP_BYTES_MAX: usize = 4096;
/// Connections that wait to be accepted, for each listener of each shard.
pub const LISTEN_BACKLOG: i32 = 4096;

/// Sources of STUN requests, and of wrong passwords, that a shard tells apart; others share what one
/// may have.
pub const SOURCE_CELLS: usize = 4096;
/// The time in which `wrong_passwords_max` of one source are looked at.
pub const WRONG_PASSWORDS_TIME: Duration = Duration::from_secs(60);
/// Retry-After of what was not looked at, in seconds.
pub const WRONG_PASSWORDS_PAUSE: u32 = 10;
/// Attributes that the answer to a STUN request names as unknown (RFC 8489 §14.13).
pub const STUN_UNKNOWN_MAX: usize = 8;
/// Most time between two looks at the round-trip time of a TCP or TLS flow.
pub const MEASURE_INTERVAL: Duration = Duration::from_secs(60);
/// Time between two steps of the walk over bindings that need pings.
pub const PING_TICK: Duration = Duration::from_millis(100);
/// Bytes that one binding may keep: address of record, Contact, Call-ID, parameters and Path
/// together.
pub const BINDING_BYTES_MAX: usize = 8 * 1024;
/// REGISTERs of one shard that may wait until what they changed is durable; more get 500 with
/// Retry-After.
pub const STORE_WAITERS_MAX: usize = 16 * 1024;
/// Time that a REGISTER waits until what it changed is durable; then it gets 500 with Retry-After.
/// Well below the 32 s after which its client gives up (RFC 3261 §17.1.2.2, Timer F).
pub const STORE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Time in which a shard that failed has read all of its bindings again, while it serves.
pub const RESTORE_TIME: Duration = Duration::from_secs(60);
/// Clients that show in that time, at addresses for datagrams where they were not before, by which
/// bindings that come back are judged: the last ones.
pub const RESTORE_CLAIMS_MAX: usize = 1024;
/// Records that are read from the store at a time.
pub const STORE_PAGE_RECORDS: usize = 256;
/// Pages of them that wait for one shard; then reading waits.
pub const STORE_PAGES: usize = 2;
/// Bytes of the store's file that are kept in memory.
pub const STORE_CACHE_BYTES: usize = 32 << 20;
/// Time from a failed write to the store to the next attempt.
pub const STORE_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two log lines about a store that cannot be written.
pub const STORE_REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// Time that the end of the process waits for the last write to the store.
pub const STORE_END_TIME: Duration = Duration::from_secs(5);
/// Bytes of the store's file above which it is made smaller at the start, if most of it is empty.
pub const STORE_COMPACT_BYTES: u64 = 64 << 20;
/// Bytes of batches that a shard keeps for reuse.
pub const STORE_BATCH_BYTES_KEPT: usize = 1 << 20;
/// Bindings of one canonical Contact that are looked at before it counts as ambiguous.
pub const CONTACT_CANDIDATES_MAX: usize = 32;
/// Age of a nonce that shows who is at an address for datagrams: as long as a request may take (RFC
/// 3261 §17.1.2.2, Timer F). Who is new there with an older one is challenged again.
pub const NONCE_FRESH: Duration = Duration::from_secs(32);
/// Bindings at one address for datagrams that are looked at, newest first, when somebody new is
/// there. Those behind them were looked at when these came.
pub const PATH_CANDIDATES_MAX: usize = 256;
/// Addresses for datagrams of which a shard remembers which clients were there before the last one,
/// some 400 bytes each; of more the oldest are forgotten.
pub const PATHS_NOTED_MAX: usize = 32 * 1024;
/// Moves of one client from such an address to another that are followed, one after the other.
pub const MOVES_FOLLOWED_MAX: usize = 8;
/// Users of the device that is at one of them who are told from those that left.
pub const PATH_USERS_HERE_MAX: usize = 64;
/// Users of other devices who left it that are remembered, the last ones.
pub const PATH_USERS_LEFT_MAX: usize = 16;
/// Bytes of an Authorization or Proxy-Authorization value; more is malformed.
pub const CREDENTIALS_BYTES_MAX: usize = 4 * 1024;
/// Parameters in it.
pub const CREDENTIALS_PARAMS_MAX: usize = 32;
/// Credentials for our realm in one request that are checked; clients send one an algorithm.
pub const CREDENTIALS_CHECKED_MAX: usize = 4;
/// Nonces of which a shard remembers how they were used, where requests of several senders may look
/// alike (datagrams, or through another proxy). Those that it had to forget are stale. At 100,000
/// fresh ones a second each is remembered for 2.6 s on average.
pub const NONCES_REMEMBERED: usize = 256 * 1024;
/// Bytes that they take at most; nothing before the first.
pub const NONCE_MEMORY_MAX: usize = 6_656 * 1024;
/// Secrets for time-limited credentials that are good at one time: the one in use, and the next.
pub const SHARED_SECRETS_MAX: usize = 2;
/// Characters of such a secret at least.
pub const SHARED_SECRET_BYTES_MIN: usize = 16;
/// Bytes of the file of such secrets.
pub const SECRETS_FILE_BYTES_MAX: u64 = 16 * 1024;
/// Characters of a bearer token.
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Bytes of the claims in it, decoded, and of its header.
pub const TOKEN_CLAIMS_BYTES_MAX: usize = 3 * 1024;
/// Keys that may sign tokens.
pub const TOKEN_KEYS_MAX: usize = 64;
/// Bytes of the file of such keys.
pub const KEYS_FILE_BYTES_MAX: u64 = 256 * 1024;
/// Bits of an RSA key that may sign tokens, at least and at most (RFC 7518 §3.3).
pub const TOKEN_RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Tokens that a shard remembers as good, so that their signature is not checked again; those seen
/// longest ago are forgotten.
pub const TOKENS_REMEMBERED: usize = 16 * 1024;
/// Signatures that a shard checks for streams: a check takes 16 to 52 µs with the usual keys, so a
/// sixth of its time at most. More tokens are refused with 500 and Retry-After, upgrades with 503.
pub const TOKEN_CHECKS: Rate = Rate { interval: Duration::from_micros(300), burst: 32 };
/// Signatures that it checks for datagrams, whose sources may be forged, and for what comes through
/// another proxy, where no flow is one sender's.
pub const TOKEN_CHECKS_SHARED: Rate = Rate { interval: Duration::from_millis(1), burst: 8 };
/// Wrong tokens of one flow that are looked at.
pub const TOKEN_FAULTS_OF_FLOW: Rate = Rate { interval: Duration::from_secs(5), burst: 8 };
/// Users of one flow whose clients are known again on another; of more, the last to come is.
pub const FLOW_CLIENTS_MAX: usize = 64;
/// Longest wait until the expiry of a flow's token is looked at again: the wall clock may be set.
pub const TOKEN_LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// How often the files of users, secrets and keys are looked at.
pub const USERS_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Users who are gone or have another password whose bindings one alarm ends; the rest follow a
/// millisecond later.
pub const DEPARTED_A_TURN: usize = 512;
/// Reloads whose departed users a shard may have yet to be told of: with more nothing is read again.
pub const DEPARTED_LISTS_MAX: usize = 16;
/// How often a shard looks at the wall clock, by which credentials expire.
pub const WALL_CLOCK_INTERVAL: Duration = Duration::from_secs(5);
/// Users in the users file.
pub const USERS_MAX: usize = 1_000_000;
/// Bytes of one line of the users file.
pub const USER_LINE_BYTES_MAX: usize = 1024;
/// Bytes of the users file.
pub const USERS_FILE_BYTES_MAX: u64 = 256 << 20;
/// Faults of the users file that one check tells of.
pub const USERS_FAULTS_MAX: usize = 20;
/// Entries of the index of clients under one host and port; more are not indexed, which costs a
/// look-up without token a miss.
pub const INDEX_ENTRIES_MAX: usize = 64;
/// Parsed messages kept for reuse.
pub const PARSED_KEPT: usize = 1024;
/// Boxes for messages to other shards, likewise.
pub const HANDOVERS_KEPT: usize = 64;
/// Bytes of a Call-ID that a log line shows.
pub const LOG_CALL_ID_MAX: usize = 128;
/// Bytes of a URI that a log line shows.
pub const LOG_URI_MAX: usize = 256;
/// Bytes of a method that a log line shows.
pub const LOG_METHOD_MAX: usize = 32;
/// Connections to the admin port served at a time; one more is closed at once.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;
/// Bytes of the head of a request to the admin port.
pub const ADMIN_REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Header fields of a request to the admin port.
pub const ADMIN_HEADERS_MAX: usize = 64;
/// Time for one request to the admin port to arrive and its response to leave.
pub const ADMIN_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that the compiled pattern of one route may take.
pub const PATTERN_BYTES_MAX: usize = 256 * 1024;
/// Log lines that may wait to be written; more are dropped and counted.
pub const LOG_LINES_MAX: usize = 4096;
/// Bytes of one log line; the rest is cut off.
pub const LOG_LINE_BYTES_MAX: usize = 16 * 1024;
/// Time that the end of the process waits for the last log lines.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of incomplete records and handshake messages that a TLS session holds; more ends it.
pub const TLS_HELD_BYTES_MAX: usize = BLOCK_CLASSES[BLOCK_CLASSES.len() - 1];
/// Blocks for incomplete TLS records that a shard keeps for reuse.
pub const TLS_BLOCKS_KEPT: usize = 64;
/// Capacity of such a block that is worth keeping: the largest record that TLS 1.2 allows, rounded
/// up.
pub const TLS_BLOCK_KEPT_BYTES_MAX: usize = 20 * 1024;
/// Turns after which starved flows are armed again although completions wait: on a shard that is
/// never idle they would be deaf, and closed for it.
pub const STARVED_TURNS_MAX: u32 = 16;
/// Receive and send buffer of a UDP socket, as far as the system's limit (net.core.rmem_max)
/// permits.
pub const DATAGRAM_SOCKET_BYTES: usize = 4 << 20;

const _: () = {
    assert!(BLOCK_CLASSES.len() == BLOCKS_KEPT.len());
    assert!(TRAIL_BLOCK_BYTES >= DATAGRAM_BYTES_MAX && TRAIL_BLOCK_BYTES <= u32::MAX as usize);
    assert!(LINK_WORK_ENTRIES.is_power_of_two() && LINK_DUTY_ENTRIES.is_power_of_two());
    assert!(COMPLETIONS_A_TURN <= RING_COMPLETIONS_MIN as usize);
    assert!(RING_COMPLETIONS.is_power_of_two() && RING_SUBMISSIONS <= RING_COMPLETIONS_MIN);
    assert!(STREAM_BUFFERS.is_power_of_two() && DATAGRAM_BUFFERS.is_power_of_two());
    assert!(DATAGRAM_BUFFER_BYTES >= DATAGRAM_BYTES_MAX + 128);
    assert!(BRANCHES_MAX <= BREADTH_MAX as usize && TARGETS_MAX <= u8::MAX as usize);
    // Each of them may get one way more, and their positions are bits.
    assert!(UPSTREAM_TARGETS_MAX * 2 <= TARGETS_MAX && UPSTREAM_TARGETS_MAX <= 64);
    assert!(LINK_ENTRIES_MIN <= LINK_WORK_ENTRIES && LINK_ENTRIES_MIN <= LINK_DUTY_ENTRIES);
};
