//! Names that several rooms need: shards, flows, transports, addresses of record, listeners.

use std::fmt;
use std::net::SocketAddr;

/// Largest number of shards in one process (10 bits in a [`FlowId`]).
pub const SHARDS_MAX: u16 = 1 << 10;
/// Largest number of flow slots in one shard (22 bits in a [`FlowId`]).
pub const FLOW_SLOTS_MAX: u32 = 1 << 22;

/// One worker thread of the process: its number, from 0.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The number as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

/// The name of one stream flow (RFC 5626 §2): shard 10 bits, slot 22 bits, generation 32 bits whose
/// top 8 are the shard's incarnation. A slot that is used again has another generation, so a stale
/// name finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(u64);

impl FlowId {
    /// Builds a name. Panics when `slot` or `shard` exceeds its field: the caller allocates both.
    pub fn new(shard: ShardId, slot: u32, generation: u32) -> FlowId {
        assert!(shard.0 < SHARDS_MAX && slot < FLOW_SLOTS_MAX);
        FlowId((u64::from(shard.0) << 54) | (u64::from(slot) << 32) | u64::from(generation))
    }

    /// Names no flow, now and ever: what a token of another run of the process says.
    pub const NOWHERE: FlowId = FlowId(u64::MAX);

    /// The name that [`FlowId::to_bits`] gave. Any value is well formed; whether it names a living
    /// flow is for that shard's table to say.
    pub const fn from_bits(bits: u64) -> FlowId {
        FlowId(bits)
    }

    /// The name as one number, for tokens and links.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The shard that owns the flow.
    pub const fn shard(self) -> ShardId {
        ShardId((self.0 >> 54) as u16)
    }

    /// The slot in that shard's flow table.
    pub const fn slot(self) -> u32 {
        (self.0 >> 32) as u32 & (FLOW_SLOTS_MAX - 1)
    }

    /// Which use of the slot is meant.
    pub const fn generation(self) -> u32 {
        self.0 as u32
    }

    /// How often its shard had been started anew when the flow came.
    pub const fn incarnation(self) -> u8 {
        (self.generation() >> 24) as u8
    }
}

impl fmt::Debug for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{}.{}.{:x}", self.shard().0, self.slot(), self.generation())
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Names a client over its connections: the keyed hash of its address of record, identity, instance
/// and reg-id (RFC 5626 §4.2), or Contact. Equal in every shard and every run of an installation.
/// Its upper half is that of the hash of the address of record, whose owner knows where the client
/// is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ClientKey(u64);

impl ClientKey {
    const USER_ONLY: u32 = 1;
    /// Of a client that did not prove who it is, or need not be found again.
    pub const NONE: ClientKey = ClientKey(0);

    /// From the upper half of the hash of the address of record and the lower half of the client's
    /// own. Never [`ClientKey::NONE`].
    pub const fn new(aor_hash: u64, client_hash: u64) -> ClientKey {
        let own = client_hash as u32;
        let own = if own <= ClientKey::USER_ONLY { ClientKey::USER_ONLY + 1 } else { own };
        ClientKey(aor_hash >> 32 << 32 | own as u64)
    }

    /// Of a client of which only the user is known, from the hash of the address of record: by it
    /// nobody is found, but told from others.
    pub const fn of_user(aor_hash: u64) -> ClientKey {
        ClientKey(aor_hash >> 32 << 32 | ClientKey::USER_ONLY as u64)
    }

    /// The key that [`ClientKey::to_bits`] gave.
    pub const fn from_bits(bits: u64) -> ClientKey {
        ClientKey(bits)
    }

    /// The key as one number, for tokens.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Whether it names somebody.
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// Whether it names one client of its user, who can be found by it.
    pub const fn is_of_client(self) -> bool {
        self.0 as u32 > ClientKey::USER_ONLY
    }

    /// The half that decides the owner.
    pub const fn of_aor(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// How SIP is carried. `Ws` and `Wss` are different values although a URI names both `transport=ws`
/// (RFC 7118 §4): confusing the two is the fault that this project exists to end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Transport {
    /// RFC 3261 §18 over datagrams.
    Udp,
    /// RFC 3261 §18 over a stream.
    Tcp,
    /// RFC 3261 §26.2 over TLS.
    Tls,
    /// RFC 7118 over a plain WebSocket.
    Ws,
    /// RFC 7118 over a WebSocket over TLS.
    Wss,
}

impl Transport {
    /// Every transport, in the order of their numbers.
    pub const ALL: [Transport; 5] =
        [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];

    /// The protocol name in a Via (RFC 3261 §20.42, RFC 7118 §4.1).
    pub const fn via_name(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
            Transport::Ws => "WS",
            Transport::Wss => "WSS",
        }
    }

    /// Lower-case name, for configuration, logs and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Ws => "ws",
            Transport::Wss => "wss",
        }
    }

    /// The value of a URI's `transport` parameter: `ws` for both WebSocket transports (RFC 7118
    /// §4.2).
    pub const fn uri_name(self) -> &'static str {
        match self {
            Transport::Wss => "ws",
            other => other.name(),
        }
    }

    /// Whether SIP retransmits over it: everything but UDP is reliable.
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Transport::Udp)
    }

    /// Whether it runs over TLS, as `sips:` demands (RFC 3261 §26.2.2).
    pub const fn is_secure(self) -> bool {
        matches!(self, Transport::Tls | Transport::Wss)
    }

    /// Whether messages travel in WebSocket frames.
    pub const fn is_websocket(self) -> bool {
        matches!(self, Transport::Ws | Transport::Wss)
    }

    /// Default port (RFC 3261 §19.1.2, RFC 7118 §5 by way of RFC 6455 §3).
    pub const fn default_port(self) -> u16 {
        match self {
            Transport::Udp | Transport::Tcp => 5060,
            Transport::Tls => 5061,
            Transport::Ws => 80,
            Transport::Wss => 443,
        }
    }

    /// Position in tables with one entry a transport.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Which `[[listen]]` entry: its position in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ListenerId(pub u16);

impl ListenerId {
    /// The position as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A connection that the engine asked for and that is not open yet; unique within its shard while
/// pending.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectId(pub u32);

/// The protocol-aware key under which a flow can be found by address. The answer to a look-up is a
/// [`FlowId`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowKey {
    /// What it speaks; WS and WSS to the same address are two keys.
    pub transport: Transport,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
}

/// The association of two datagram addresses. It needs no slot: a spoofed source costs nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DatagramPath {
    /// The UDP listener whose socket is used.
    pub listener: ListenerId,
    /// The local address that the datagram came in on (IP_PKTINFO), used as source of answers (RFC
    /// 3581 §4).
    pub local: SocketAddr,
    /// The peer.
    pub remote: SocketAddr,
}

/// A stream flow with what every shard needs to know of it, so that a request can be made for a
/// flow that another shard owns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StreamPath {
    /// Its name.
    pub flow: FlowId,
    /// What it speaks to the client (a WS flow behind a TLS load balancer counts as WSS).
    pub transport: Transport,
    /// The listener that accepted it, or whose name it shows when we opened it.
    pub listener: ListenerId,
}

/// Where a message came from or goes to: a stream flow by name, or a datagram association by value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FlowRef {
    /// A TCP, TLS, WS or WSS flow.
    Stream(StreamPath),
    /// UDP.
    Datagram(DatagramPath),
}

impl FlowRef {
    /// The stream flow's name, if it is one.
    pub const fn stream(self) -> Option<FlowId> {
        match self {
            FlowRef::Stream(path) => Some(path.flow),
            FlowRef::Datagram(_) => None,
        }
    }

    /// What it speaks.
    pub const fn transport(self) -> Transport {
        match self {
            FlowRef::Stream(path) => path.transport,
            FlowRef::Datagram(_) => Transport::Udp,
        }
    }

    /// The listener whose name it shows.
    pub const fn listener(self) -> ListenerId {
        match self {
            FlowRef::Stream(path) => path.listener,
            FlowRef::Datagram(path) => path.listener,
        }
    }

    /// Whether both lead to the same peer: the same stream flow, or the same datagram addresses.
    pub fn same_peer(self, other: FlowRef) -> bool {
        match (self, other) {
            (FlowRef::Stream(a), FlowRef::Stream(b)) => a.flow == b.flow,
            (FlowRef::Datagram(a), FlowRef::Datagram(b)) => {
                a.remote == b.remote && a.listener == b.listener
            }
            _ => false,
        }
    }
}

impl fmt::Display for FlowRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlowRef::Stream(path) => fmt::Debug::fmt(&path.flow, f),
            FlowRef::Datagram(path) => write!(f, "udp:{}", path.remote),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_id_keeps_its_three_parts() {
        for (shard, slot, generation) in
            [(0, 0, 0), (1023, FLOW_SLOTS_MAX - 1, u32::MAX), (5, 77, 0x0100_0001)]
        {
            let flow = FlowId::new(ShardId(shard), slot, generation);
            assert_eq!(
                (flow.shard(), flow.slot(), flow.generation()),
                (ShardId(shard), slot, generation)
            );
            assert_eq!(FlowId::from_bits(flow.to_bits()), flow);
        }
    }

    #[test]
    fn ws_and_wss_share_a_uri_name_and_nothing_else() {
        assert_eq!(Transport::Ws.uri_name(), Transport::Wss.uri_name());
        assert_ne!(Transport::Ws.via_name(), Transport::Wss.via_name());
        assert!(Transport::Wss.is_secure() && !Transport::Ws.is_secure());
    }
}
