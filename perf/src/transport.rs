//! The five transports of SIP (RFC 3261 §18, RFC 7118), by what differs for a client.

use clap::ValueEnum;

/// A way to send SIP; the order is that of [`Places::servers`](crate::network::Places::servers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A plain connection.
    Tcp,
    /// A secure connection.
    Tls,
    /// WebSocket over a plain connection.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Transport {
    /// As the sent-protocol of a Via names it (RFC 3261 §20.42, RFC 7118 §5).
    pub fn token(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
            Transport::Ws => "WS",
            Transport::Wss => "WSS",
        }
    }

    /// The URI parameter that names it; `ws` for both kinds of WebSocket (RFC 7118 §5.2.2).
    pub fn parameter(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Ws | Transport::Wss => "ws",
        }
    }

    /// Whether it begins with a TLS handshake.
    pub fn has_tls(self) -> bool {
        matches!(self, Transport::Tls | Transport::Wss)
    }

    /// Whether messages come in WebSocket frames.
    pub fn is_web(self) -> bool {
        matches!(self, Transport::Ws | Transport::Wss)
    }

    /// Whether a message may be lost on the way.
    pub fn is_datagram(self) -> bool {
        self == Transport::Udp
    }
}
