//! What is going to happen, in its order.

use std::cmp::Ordering;
use std::net::SocketAddr;

use sipring::base::event::CloseReason;
use sipring::base::id::{ConnectId, FlowId, ShardId};
use sipring::base::time::Time;
use sipring::engine::LinkMessage;

use crate::network::ConnId;
use crate::phone::{Alarm, PhoneId};

/// One thing that is going to happen.
pub enum Happening {
    /// A client's connection is accepted, or one of the proxy's made.
    Opened {
        conn: ConnId,
    },
    ConnectFailed {
        shard: ShardId,
        connect: ConnectId,
    },
    /// What a client wrote arrives at the proxy.
    Arrive {
        conn: ConnId,
    },
    /// What a client wrote before it vanished is read.
    Late {
        conn: ConnId,
        bytes: Vec<u8>,
    },
    /// What the proxy wrote arrives at the client.
    Read {
        conn: ConnId,
    },
    Sent {
        conn: ConnId,
        bytes: u32,
        writes: u16,
    },
    /// The proxy hears that a flow is gone, or its client does.
    Hangup {
        conn: ConnId,
        why: CloseReason,
    },
    Lost {
        conn: ConnId,
    },
    DatagramIn {
        remote: SocketAddr,
        bytes: Vec<u8>,
    },
    DatagramOut {
        remote: SocketAddr,
        bytes: Vec<u8>,
    },
    Linked {
        from: ShardId,
        to: ShardId,
        message: LinkMessage,
    },
    /// A client's own alarm.
    Rings {
        phone: PhoneId,
        alarm: Alarm,
    },
    /// The script goes on.
    Act,
    Restart {
        shard: u16,
    },
    /// What a shard gave to the store is durable.
    Stored {
        shard: ShardId,
        incarnation: u8,
        serial: u64,
    },
    /// A shard is told of what it had before it failed.
    Restore {
        shard: ShardId,
    },
    /// What a flow's client proved itself with is over, and the grace after it.
    TokenEnds {
        flow: FlowId,
    },
    Reload,
    Drain,
}

/// With its time; what is for the same moment happens in the order of the numbers.
pub struct Entry {
    pub at: Time,
    pub number: u64,
    pub what: Happening,
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}
