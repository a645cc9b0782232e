//! Our own names: which hosts and ports mean this proxy, and what it calls itself toward others
//! (RFC 3261 §16.4, §18.1.1, RFC 5658).

use std::net::{IpAddr, SocketAddr};

use crate::base::config::{Config, Listener};
use crate::base::host::parse_ip;
use crate::base::id::{ListenerId, Transport};
use crate::sip::{Scheme, Uri};

pub use crate::base::decimal::write_number;
pub use crate::base::host::write_ip;

/// Whether host and port name one of our listeners, by address or advertised name; domains do not
/// count. Without a port the default ports of SIP are meant (RFC 3261 §19.1.2).
pub fn is_our_listener(config: &Config, host: &[u8], port: Option<u16>) -> bool {
    let ip = parse_ip(host);
    config.listeners.iter().any(|listener| {
        let named = shows_host(listener, host, ip);
        named
            && port.map_or_else(|| listener_has_default_port(listener), |p| shows_port(listener, p))
    })
}

/// Whether the address is one that we listen on with a stream or datagram socket: never to be
/// dialled.
pub fn is_our_socket(config: &Config, address: SocketAddr) -> bool {
    config.listeners.iter().any(|listener| {
        let bound = listener.address;
        bound.port() == address.port()
            && (bound.ip() == address.ip()
                || (bound.ip().is_unspecified() && address.ip().is_loopback()))
    })
}

/// Whether the URI is a SIP or SIPS URI that leads to this proxy: `maddr`, else its host, is a
/// domain of ours, or an address or name of a listener; the port, if there is one, is a listener's.
/// The host of an upstream that shares our address differs by its port.
pub fn is_our_uri(config: &Config, uri: &Uri<'_>) -> bool {
    matches!(uri.scheme, Scheme::Sip | Scheme::Sips) && is_ours(config, next_host(uri), uri)
}

/// Whether the same hosts and ports mean this proxy under both configurations.
pub fn has_same_names(one: &Config, other: &Config) -> bool {
    let shown = |listener: &Listener| (listener.address, listener.advertise.clone());
    one.node.domains == other.node.domains
        && one.listeners.iter().map(shown).eq(other.listeners.iter().map(shown))
}

/// Whether a host alone is one that we are responsible for: a domain of ours, or an address or name
/// of a listener (RFC 3261 §16.4, of `maddr`).
pub fn is_our_host(config: &Config, host: &[u8]) -> bool {
    let ip = parse_ip(host);
    is_our_domain(config, host, ip) || config.listeners.iter().any(|l| shows_host(l, host, ip))
}

/// The host that a request for the URI is sent to: `maddr` goes before the host (RFC 3263 §4).
pub fn next_host<'a>(uri: &Uri<'a>) -> &'a [u8] {
    maddr(uri).unwrap_or(uri.domain())
}

/// The value of `maddr`, if there is one.
pub fn maddr<'a>(uri: &Uri<'a>) -> Option<&'a [u8]> {
    if uri.params_raw.is_empty() { None } else { uri.param("maddr").flatten() }
}

/// The transport that the URI names, else its scheme's (RFC 3263 §4.1); none when nobody speaks it.
/// Of `ws` it cannot be told whether TLS is below it: it is WSS for `sips:`.
pub fn uri_transport(uri: &Uri<'_>) -> Option<Transport> {
    let secure = uri.scheme == Scheme::Sips;
    let named = match uri.param("transport").flatten() {
        None => return Some(if secure { Transport::Tls } else { Transport::Udp }),
        Some(name) => name,
    };
    let transport =
        Transport::ALL.into_iter().find(|it| it.name().as_bytes().eq_ignore_ascii_case(named))?;
    Some(match (transport, secure) {
        (Transport::Tcp, true) => Transport::Tls,
        (Transport::Ws, true) => Transport::Wss,
        (transport, _) => transport,
    })
}

fn is_ours(config: &Config, host: &[u8], uri: &Uri<'_>) -> bool {
    let ip = parse_ip(host);
    let is_ours_at = |port: u16| config.listeners.iter().any(|it| shows_port(it, port));
    // A domain is ours at the default ports of SIP whatever we listen on; an address is not: a
    // server beside us may have that port.
    let in_domain = || {
        let is_default = |port: u16| matches!(port, 5060 | 5061) && ip.is_none();
        uri.port.is_none_or(|port| is_ours_at(port) || is_default(port))
            && is_our_domain(config, host, ip)
    };
    let shows = |listener: &Listener| {
        let port_fits = match uri.port {
            Some(port) => shows_port(listener, port),
            // A name is looked up, and may lead to any port (RFC 3263 §4.2).
            None => ip.is_none() || implied_ports(uri).iter().any(|it| shows_port(listener, *it)),
        };
        port_fits && shows_host(listener, host, ip)
    };
    in_domain() || config.listeners.iter().any(shows)
}

/// The ports that a URI with an address and no port may mean (RFC 3261 §19.1.2, RFC 7118 §5).
fn implied_ports(uri: &Uri<'_>) -> &'static [u16] {
    match uri_transport(uri) {
        Some(Transport::Tls) => &[5061],
        Some(Transport::Ws) => &[80, 443],
        Some(Transport::Wss) => &[443],
        _ => &[5060],
    }
}

fn is_our_domain(config: &Config, host: &[u8], ip: Option<IpAddr>) -> bool {
    match ip {
        None => config.is_our_domain(host),
        Some(_) => config.node.domains.iter().any(|it| parse_ip(it.as_bytes()) == ip),
    }
}

/// A listener on every address is known by loopback, too; its other addresses are advertised.
fn shows_host(listener: &Listener, host: &[u8], ip: Option<IpAddr>) -> bool {
    let advertised = listener.advertise.as_ref().map(|name| name.host.as_bytes());
    let Some(ip) = ip else {
        let host = host.strip_suffix(b".").unwrap_or(host);
        return advertised.is_some_and(|name| name.eq_ignore_ascii_case(host));
    };
    let bound = listener.address.ip();
    bound == ip
        || bound.is_unspecified() && bound.is_ipv4() == ip.is_ipv4() && ip.is_loopback()
        || advertised.and_then(parse_ip) == Some(ip)
}

/// An advertised name without a port stands for the default one.
fn shows_port(listener: &Listener, port: u16) -> bool {
    let advertised = listener.advertise.as_ref().map(|name| name.port);
    listener.address.port() == port
        || advertised.is_some_and(|it| it.unwrap_or(listener.transport.default_port()) == port)
}

fn listener_has_default_port(listener: &Listener) -> bool {
    let default = listener.transport.default_port();
    match &listener.advertise {
        Some(name) => name.port.is_none_or(|port| port == default),
        None => listener.address.port() == default,
    }
}

/// Appends the sent-by of a listener: its advertised name, or its address.
pub fn write_sent_by(config: &Config, listener: ListenerId, out: &mut Vec<u8>) {
    let listener = config.listener(listener);
    match &listener.advertise {
        Some(name) => {
            out.extend_from_slice(name.host.as_bytes());
            if let Some(port) = name.port {
                write_port(port, out);
            }
        }
        None => write_address(listener.address, out),
    }
}

/// Appends `ip:port`, an IPv6 address in brackets.
pub fn write_address(address: SocketAddr, out: &mut Vec<u8>) {
    write_ip(address.ip(), true, out);
    write_port(address.port(), out);
}

fn write_port(port: u16, out: &mut Vec<u8>) {
    out.push(b':');
    write_number(u64::from(port), out);
}

/// The listener from which we speak to `remote` over `transport`, and whose name we show there: the
/// same transport and address family, loopback to loopback; `None` when no listener of that
/// transport and family exists.
pub fn egress(config: &Config, transport: Transport, remote: IpAddr) -> Option<ListenerId> {
    let fits = |listener: &Listener| {
        listener.transport == transport && listener.address.is_ipv4() == remote.is_ipv4()
    };
    let near = |listener: &Listener| {
        let ip = listener.address.ip();
        ip.is_unspecified() || ip.is_loopback() == remote.is_loopback()
    };
    let position = config
        .listeners
        .iter()
        .position(|l| fits(l) && near(l))
        .or_else(|| config.listeners.iter().position(fits))?;
    Some(ListenerId(u16::try_from(position).expect("listeners are counted by u16")))
}

/// The listener whose name an outgoing connection shows: as [`egress`], else any stream listener of
/// that family, else the first listener at all (a proxy without one does not start).
pub fn egress_or_any(config: &Config, transport: Transport, remote: IpAddr) -> ListenerId {
    egress(config, transport, remote)
        .or_else(|| egress(config, Transport::Tcp, remote))
        .or_else(|| egress(config, Transport::Udp, remote))
        .unwrap_or(ListenerId(0))
}
