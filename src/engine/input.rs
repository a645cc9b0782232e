//! What a shard's engine is told. Whoever calls it (the driver, a test, the simulator) does the
//! I/O.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::config::Config;
use crate::base::event::CloseReason;
use crate::base::id::{ConnectId, DatagramPath, FlowId, FlowKey, ListenerId, ShardId};
use crate::base::time::Time;
use crate::base::users::Departed;

use super::mesh::LinkMessage;

/// One thing that happened, plaintext from here on: TLS is below the engine.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection is usable: accepted or connected, and its TLS handshake done. The caller
    /// allocated `flow` (its shard is this engine's) and names it until [`Input::Closed`].
    Opened {
        /// Its name.
        flow: FlowId,
        /// What it speaks and between whom.
        key: FlowKey,
        /// How it came to be.
        origin: Origin,
    },
    /// Bytes arrived, decrypted. The engine unmasks and parses in place; nothing of it is kept
    /// after the call.
    Data {
        /// On which flow.
        flow: FlowId,
        /// What arrived, at least one byte.
        bytes: &'a mut [u8],
    },
    /// Writes of this flow were taken by the kernel.
    Sent {
        /// Which flow.
        flow: FlowId,
        /// How many of the bytes that `Output::Write` named.
        bytes: u32,
        /// How many whole `Output::Write`s.
        writes: u16,
    },
    /// The flow is gone. Ignored when the engine asked for the close itself.
    Closed {
        /// Which flow.
        flow: FlowId,
        /// Why.
        why: CloseReason,
    },
    /// What `Output::Measure` asked for.
    RoundTrip {
        /// Of which flow.
        flow: FlowId,
        /// How long a segment and its acknowledgement take.
        took: Duration,
    },
    /// A connection that `Output::Open` asked for could not be made (refused, timed out,
    /// certificate refused).
    ConnectFailed {
        /// Which request.
        connect: ConnectId,
    },
    /// A datagram arrived.
    Datagram {
        /// Between whom.
        path: DatagramPath,
        /// The payload; nothing of it is kept after the call.
        bytes: &'a mut [u8],
    },
    /// A message of another shard.
    Linked {
        /// Who sent it.
        from: ShardId,
        /// What it says.
        message: LinkMessage,
    },
    /// The work lane to `to` was full: here is the message back.
    LinkRefused {
        /// The shard that it was for.
        to: ShardId,
        /// The message.
        message: LinkMessage,
    },
    /// A binding that a former run had; to the shard that owns its address of record, at the start.
    Restored {
        /// Its name in the store.
        id: u64,
        /// When it expires.
        expires_at: Time,
        /// What `Output::Store` wrote.
        record: &'a [u8],
    },
    /// Everything that `Output::Store` wrote up to this serial number is durable.
    Stored {
        /// The last of it.
        serial: u64,
    },
    /// Another configuration; listeners keep their positions, addresses and transports.
    Config(Arc<Config>),
    /// Whose passwords are good no more by the configuration that was given before this (see
    /// [`crate::base::config::Auth::departed`]).
    Departed(Departed),
    /// What the wall clock shows: the time since 1970. Credentials expire by it; it may be set
    /// forward and back. To be told at the start, and every few seconds while anything comes.
    WallClock(Duration),
    /// No new dialogs or registrations from here on: the process is ending (OPTIONS to us: 503).
    Drain,
    /// The drain is over: flows are closed in order, a few at a time. The rest stays open and
    /// served.
    Dismiss {
        /// How many flows at most.
        most: usize,
    },
}

/// How a flow came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A peer connected to this listener.
    Accepted(ListenerId),
    /// We connected, because of this request.
    Connected(ConnectId),
}

/// Where an outgoing connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectTarget {
    /// TCP or TLS.
    pub secure: bool,
    /// The peer.
    pub remote: SocketAddr,
    /// The name that its certificate must show (TLS). Empty: the address itself.
    pub server_name: Box<str>,
}
