//! What a shard knows of the servers behind us: those that failed of late rest, and are tried after
//! all others (RFC 3263 §4.3, RFC 3261 §21.5.4).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::hash::KeyedHash;
use crate::base::id::Transport;
use crate::base::time::Time;

use super::connect::Peer;

/// The servers that rest. Only targets of upstreams come here, so that the configuration bounds it.
#[derive(Debug)]
pub(super) struct Standing {
    until: HashMap<Peer, Time, KeyedHash>,
}

impl Standing {
    pub fn new(hash: KeyedHash) -> Standing {
        Standing { until: HashMap::with_hasher(hash) }
    }

    /// Has a server rest; what has rested is forgotten.
    pub fn rest(&mut self, peer: Peer, rest: Duration, now: Time) {
        self.until.retain(|_, until| *until > now);
        let until = self.until.entry(peer).or_insert(now);
        *until = (*until).max(now + rest);
    }

    /// How many rest.
    pub fn resting(&self, now: Time) -> u64 {
        self.until.values().filter(|until| **until > now).count() as u64
    }

    /// Whether a server rests.
    pub fn rests(&self, transport: Transport, remote: SocketAddr, now: Time) -> bool {
        self.until.get(&(transport, remote)).is_some_and(|until| *until > now)
    }
}
