//! Every counter, defined once: name, help. The engine and the driver count in plain `u64`; the
//! driver publishes them to the shard's atomics; `admin/metrics` shows them. One row a counter;
//! everything else derives from it.

use std::num::NonZeroU8;
use std::time::Duration;

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $field:ident;)+) => {
        /// Monotonic counters of one shard, plain numbers with a single writer.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $help])+ pub $field: u64,)+
        }

        impl Counters {
            /// Number of counters.
            pub const COUNT: usize = [$(stringify!($field)),+].len();

            /// Name and help text of every counter, in the order of [`Counters::values`].
            pub const ROWS: [(&'static str, &'static str); Counters::COUNT] =
                [$((stringify!($field), concat!($($help),+))),+];

            /// Every value, in the order of [`Counters::ROWS`].
            pub fn values(&self) -> [u64; Counters::COUNT] {
                [$(self.$field),+]
            }

            /// The counters that have these [`Counters::values`].
            pub fn from_values(values: [u64; Counters::COUNT]) -> Counters {
                let [$($field),+] = values;
                Counters { $($field),+ }
            }
        }
    };
}

counters! {
    /// Flows accepted on our listeners.
    flows_accepted;
    /// Flows that we opened.
    flows_opened;
    /// Flows that ended, whatever the reason.
    flows_closed;
    /// Flows closed because a ping was not answered in time.
    flows_closed_pong;
    /// Flows closed because a write was pending too long or its queue overflowed.
    flows_closed_slow;
    /// Flows closed because their client neither registered nor had a request accepted in time.
    flows_closed_unproven;
    /// Flows closed because the token that their client came by has expired.
    flows_closed_expired;
    /// Flows closed because nothing came from them for the idle time.
    flows_closed_idle;
    /// Flows closed because the peer broke a protocol (framing, WebSocket, handshake).
    flows_closed_protocol;
    /// Connections refused because the flow table was full or descriptors were short.
    flows_refused;
    /// Outgoing connections that failed.
    connects_failed;
    /// TLS handshakes that failed or timed out.
    tls_handshakes_failed;
    /// TLS handshakes completed.
    tls_handshakes;
    /// WebSocket upgrades accepted.
    upgrades;
    /// WebSocket upgrades refused.
    upgrades_refused;
    /// SIP requests received.
    requests_received;
    /// SIP responses received.
    responses_received;
    /// Keep-alives received (CRLF, STUN binding, WebSocket ping or pong).
    keepalives_received;
    /// Copies of requests written to a next hop, ACKs among them.
    requests_forwarded;
    /// Responses written to the sender of the request.
    responses_forwarded;
    /// Requests that got a final response which we made ourselves.
    requests_answered;
    /// Requests that got the final response of a next hop.
    requests_relayed;
    /// ACKs that went on to a next hop.
    acks_forwarded;
    /// Requests absorbed by a transaction: retransmissions, and ACKs to a final response other than
    /// 2xx.
    retransmissions_absorbed;
    /// Responses that end here: 100, answers to our CANCELs, retransmissions, and what branches say
    /// that do not win.
    responses_absorbed;
    /// Requests or responses sent again by a timer.
    retransmissions_sent;
    /// Non-INVITE transactions that ended at Timer F without a final response (RFC 4320 §4.2: no
    /// answer).
    transactions_expired;
    /// Messages dropped: not SIP.
    dropped_not_sip;
    /// Datagrams dropped: STUN, but neither a well-formed binding request nor an indication.
    dropped_stun;
    /// Datagrams dropped: STUN binding requests beyond what one source may have answered in a
    /// second.
    dropped_stun_excess;
    /// Messages dropped: broken beyond an answer.
    dropped_malformed;
    /// Messages dropped: too large.
    dropped_too_large;
    /// Responses dropped: no client transaction waits for them.
    dropped_stray_response;
    /// Responses dropped: they came on another flow than their request went to.
    dropped_foreign_response;
    /// Responses dropped: behind our Via there was none of the request's sender.
    dropped_response_without_via;
    /// Responses dropped: the flow of the request's sender is gone.
    dropped_response_flow_gone;
    /// ACKs dropped: nowhere to go.
    dropped_ack;
    /// Messages dropped: a link's duty queue had no room (a fault of ours).
    dropped_link_full;
    /// Messages dropped: they named a transaction of a shard that was started anew.
    link_messages_stale;
    /// Work handed to another shard and refused because its lane was full.
    refused_link_full;
    /// Messages handed to another shard.
    crossings;
    /// Requests answered because their flow was dead when they arrived or died under them.
    requests_flow_gone;
    /// Requests refused because their token was forged, foreign or out of place.
    requests_token_refused;
    /// Requests answered 401 or 407: their sender must prove who it is.
    requests_challenged;
    /// Requests whose credentials proved who sent them.
    credentials_accepted;
    /// Requests with the right password for a nonce that was old, of another flow, or used before.
    credentials_stale;
    /// Requests with wrong or unreadable credentials.
    credentials_refused;
    /// Requests whose password was not looked at, since too many of their source were wrong.
    credentials_put_off;
    /// Challenges to clients whose proof held for their flow until their user was gone, had another
    /// password, or the key that vouched for them was taken away.
    credentials_outlived;
    /// Tokens that proved who showed them, of requests and of upgrades.
    tokens_accepted;
    /// Signatures of tokens that were checked: tokens that were seen before need none.
    tokens_verified;
    /// Tokens refused: no signed JWT, or too long.
    tokens_malformed;
    /// Tokens refused: an algorithm or an extension that is not ours.
    tokens_algorithm;
    /// Tokens refused: no key of ours is the one that they name.
    tokens_key;
    /// Tokens refused: the signature is wrong.
    tokens_signature;
    /// Tokens refused: they have expired, or never would.
    tokens_expired;
    /// Tokens refused: they are not valid yet.
    tokens_early;
    /// Tokens refused: of another issuer, or for another audience.
    tokens_foreign;
    /// Tokens refused: they name no user of our domains.
    tokens_user;
    /// Tokens refused: they lack the scope that is asked for.
    tokens_scope;
    /// Tokens not looked at: too many came that had to be checked.
    tokens_put_off;
    /// Flows whose WebSocket upgrade showed a token that was good.
    upgrades_by_token;
    /// Requests refused because they were in another name than their sender's own.
    identities_refused;
    /// REGISTER requests answered 200.
    registrations;
    /// Answered REGISTER requests whose transactions gave way to new requests before Timer J.
    registers_gave_way;
    /// REGISTER requests answered 200 once more, changing nothing, after their transactions gave
    /// way.
    registrations_repeated;
    /// Bindings of registrars behind us that we keep a shadow of, counted when they are new or on
    /// another flow.
    bindings_shadowed;
    /// Bindings of registrars behind us of which no shadow is kept: no room, or too long.
    shadows_refused;
    /// Bindings that ended by expiry.
    bindings_expired;
    /// Bindings removed because their client answered no pings.
    bindings_unanswered;
    /// Bindings over UDP that ended because another device proved to be at their address.
    bindings_path_taken;
    /// Bindings that ended because their user is gone from the users file or has another password.
    bindings_user_gone;
    /// OPTIONS sent to keep the way to a client open.
    pings_sent;
    /// Answers to them.
    pings_answered;
    /// Bindings that ended with their flow.
    bindings_flow_closed;
    /// Bindings kept for the grace after their flow was lost.
    bindings_suspended;
    /// Flows asked whether they live because their client registered on another one.
    flows_probed;
    /// Requests and responses that waited for a client that had lost its flow.
    waits;
    /// Requests and responses that found their client on its next flow.
    waits_found;
    /// Requests and responses that could not wait: too many, or too large.
    waits_refused;
    /// Requests written once more, on the next flow of a client that lost one before it said
    /// anything.
    requests_moved;
    /// INVITEs whose sender was asked, on its next flow, whether it still knows them.
    callers_asked;
    /// INVITEs cancelled because their sender said that it does not.
    callers_forgot;
    /// Bindings that came back from the store after a start.
    bindings_restored;
    /// Bindings in the store that did not come back: out of force, in a domain that is no longer
    /// ours, of a user who is gone, replaced, without room, or of a form that is not understood.
    bindings_not_restored;
    /// Changes of bindings given to the store.
    store_changes;
    /// REGISTERs answered 500 because what they changed was not durable in time, or too many
    /// waited.
    registrations_not_stored;
    /// Timer wheel entries that fired.
    timers_fired;
    /// Times that a flow had to wait because all receive buffers were in use.
    receives_starved;
    /// Flows whose orderly close took too long and was forced.
    closes_forced;
    /// Turns of the shard's loop, each from its waking to its next look for work.
    turns;
    /// Turns that took longer than 2 ms: all flows of the shard waited meanwhile.
    turns_over_2ms;
    /// Turns that took longer than 10 ms.
    turns_over_10ms;
    /// Turns that took longer than 50 ms.
    turns_over_50ms;
    /// TLS handshake steps put off to a later turn so that living flows go first.
    handshakes_deferred;
    /// Datagrams dropped because they were larger than a receive buffer.
    datagrams_truncated;
    /// Datagrams not sent: too many in flight, or the kernel refused them.
    datagrams_unsent;
    /// Log events dropped because the log could not keep up.
    events_dropped;
    /// Completions that named a slot which had ended (a fault of ours).
    completions_stale;
    /// Times that this shard was started anew after a panic.
    shard_restarts;
    /// Requests that a failing shard left without an answer.
    requests_lost;
    /// Configurations taken while running.
    reconfigured;
}

impl Counters {
    /// Counts a turn that took so long.
    pub fn count_turn(&mut self, took: Duration) {
        self.turns += 1;
        if took > Duration::from_millis(2) {
            self.turns_over_2ms += 1;
            self.turns_over_10ms += u64::from(took > Duration::from_millis(10));
            self.turns_over_50ms += u64::from(took > Duration::from_millis(50));
        }
    }
}

/// What the store has done since the start, of the whole process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StoreNumbers {
    /// Commits that are durable.
    pub commits: u64,
    /// Records written or removed by them.
    pub changes: u64,
    /// Seconds that they took together.
    pub commit_seconds: f64,
    /// Seconds that the longest took.
    pub commit_seconds_max: f64,
    /// Attempts that failed.
    pub errors: u64,
    /// Files that were damaged and set aside.
    pub set_aside: u64,
    /// Records in the file.
    pub records: u64,
    /// Changes that are not durable yet.
    pub pending: u64,
    /// When the last commit became durable, in seconds since the epoch; 0 before the first.
    pub durable_at: f64,
}

/// About how long a round trip takes: in one byte, since each of millions of flows has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip(NonZeroU8);

impl RoundTrip {
    /// The one that a measured time falls under.
    pub fn of(took: Duration) -> RoundTrip {
        let bounds = RoundTrips::BOUNDS_MS;
        let bucket = bounds.partition_point(|bound| Duration::from_millis(*bound) < took);
        RoundTrip(NonZeroU8::MIN.saturating_add(bucket as u8))
    }

    fn bucket(self) -> usize {
        usize::from(self.0.get()) - 1
    }
}

/// How many flows have which round-trip time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundTrips {
    /// By the bound of [`RoundTrips::BOUNDS_MS`] that is the first not to be less; the last holds
    /// all above.
    pub flows: [u64; RoundTrips::BUCKETS],
}

impl RoundTrips {
    /// Upper bounds in milliseconds, rising.
    pub const BOUNDS_MS: [u64; 11] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000];
    /// One more than there are bounds.
    pub const BUCKETS: usize = RoundTrips::BOUNDS_MS.len() + 1;

    /// What was known of a flow is replaced by what is known of it from here on; `None`: nothing.
    pub fn replace(&mut self, old: Option<RoundTrip>, new: Option<RoundTrip>) {
        if let Some(old) = old {
            self.flows[old.bucket()] -= 1;
        }
        if let Some(new) = new {
            self.flows[new.bucket()] += 1;
        }
    }

    /// How many flows have a known time.
    pub fn flows(&self) -> u64 {
        self.flows.iter().sum()
    }

    /// How many flows have a time of at most `bound`, which is one of the bounds.
    pub fn within(&self, bound: Duration) -> u64 {
        let up_to = |(at, _): &(usize, &u64)| {
            RoundTrips::BOUNDS_MS.get(*at).is_some_and(|ms| Duration::from_millis(*ms) <= bound)
        };
        self.flows.iter().enumerate().filter(up_to).map(|(_, flows)| flows).sum()
    }
}

/// Values that go up and down, of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Living flows by transport, indexed by [`super::id::Transport::index`] (UDP has none).
    pub flows: [u64; 5],
    /// Bindings whose owner is this shard.
    pub bindings: u64,
    /// Addresses of record with at least one binding.
    pub aors: u64,
    /// Living server transactions.
    pub server_transactions: u64,
    /// Living client transactions.
    pub client_transactions: u64,
    /// Living flows of each transport by round-trip time, indexed likewise. UDP: bindings that are
    /// pinged.
    pub round_trips: [RoundTrips; 5],
    /// Targets of upstreams that failed of late and are tried last.
    pub targets_resting: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_counts_under_the_least_bound_that_is_not_less() {
        let mut all = RoundTrips::default();
        for (ms, least) in [(0, 1), (1, 1), (2, 2), (3, 5), (1999, 2000), (2000, 2000)] {
            let took = Some(RoundTrip::of(Duration::from_millis(ms)));
            all.replace(None, took);
            assert_eq!(all.within(Duration::from_millis(least)), 1, "{ms}");
            assert_eq!(all.within(Duration::from_millis(least / 2)), 0, "{ms}");
            all.replace(took, None);
        }
        all.replace(None, Some(RoundTrip::of(Duration::MAX)));
        assert_eq!((all.within(Duration::from_millis(2000)), all.flows()), (0, 1));
        assert_eq!(size_of::<Option<RoundTrip>>(), 1);
    }

    #[test]
    fn a_turn_counts_under_each_bound_that_it_exceeds() {
        let mut counters = Counters::default();
        for ms in [0, 2, 3, 10, 11, 50, 51, 1000] {
            counters.count_turn(Duration::from_millis(ms));
        }
        let Counters { turns, turns_over_2ms, turns_over_10ms, turns_over_50ms, .. } = counters;
        assert_eq!([turns, turns_over_2ms, turns_over_10ms, turns_over_50ms], [8, 6, 4, 2]);
    }

    #[test]
    fn values_come_back_as_the_same_counters() {
        let values = std::array::from_fn(|position| position as u64);
        let counters = Counters::from_values(values);
        assert_eq!(counters.values(), values);
        assert_eq!(counters.flows_opened, 1);
    }
}
