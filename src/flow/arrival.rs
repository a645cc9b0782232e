//! Who sent a message: what the shard that received it knows, carried along to the shard that
//! serves it.

use std::net::SocketAddr;

use crate::base::id::{FlowRef, ListenerId, Transport};

/// The way a message came in. Small and `Copy`: it travels with the message across shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The flow that it came on; answers go there.
    pub source: FlowRef,
    /// Our address.
    pub local: SocketAddr,
    /// The sender's address.
    pub remote: SocketAddr,
    /// The sender connected to us (streams); false for flows that we opened, and for datagrams.
    pub accepted: bool,
}

impl Arrival {
    /// What the flow speaks.
    pub fn transport(&self) -> Transport {
        self.source.transport()
    }

    /// The listener that it came in by, or whose name the flow shows.
    pub fn listener(&self) -> ListenerId {
        self.source.listener()
    }
}
