//! Our own names: which hosts and ports mean this proxy, and what it calls itself toward others
//! (RFC 3261 §16.4, §18.1.1, RFC 5658).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::base::config::{Config, Listener};
use crate::base::host::parse_ip;
use crate::base::id::{ListenerId, Transport};
use crate::sip::{Scheme, Uri};

/// Whether host and port name this proxy: a domain of ours or an address that we listen on or
/// advertise, and no port or one of ours. The host of an upstream that shares our address differs
/// by its port.
pub fn is_ours(config: &Config, host: &[u8], port: Option<u16>) -> bool {
    let shown = port.is_none_or(|port| config.listeners.iter().any(|l| shows_port(l, port)));
    // A domain is ours at the default ports of SIP whatever we listen on; an address is not: a
    // server beside us may have that port.
    let is_default =
        port.is_some_and(|port| matches!(port, 5060 | 5061)) && parse_ip(host).is_none();
    (shown || is_default) && config.is_our_domain(host) || shown && is_our_host(config, host, port)
}

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

/// Whether the URI is a SIP or SIPS URI that names this proxy.
pub fn is_our_uri(config: &Config, uri: &Uri<'_>) -> bool {
    matches!(uri.scheme, Scheme::Sip | Scheme::Sips) && is_ours(config, uri.host, uri.port)
}

/// Whether the same hosts and ports mean this proxy under both configurations.
pub fn has_same_names(one: &Config, other: &Config) -> bool {
    let shown = |listener: &Listener| (listener.address, listener.advertise.clone());
    one.node.domains == other.node.domains
        && one.listeners.iter().map(shown).eq(other.listeners.iter().map(shown))
}

fn is_our_host(config: &Config, host: &[u8], port: Option<u16>) -> bool {
    let ip = parse_ip(host);
    config.listeners.iter().any(|listener| {
        shows_host(listener, host, ip) && (port.is_some() || listener_has_default_port(listener))
    })
}

fn shows_host(listener: &Listener, host: &[u8], ip: Option<IpAddr>) -> bool {
    if let Some(name) = &listener.advertise
        && name.host.as_bytes().eq_ignore_ascii_case(host)
    {
        return true;
    }
    ip.is_some_and(|ip| listener.address.ip() == ip)
}

fn shows_port(listener: &Listener, port: u16) -> bool {
    listener.address.port() == port
        || listener.advertise.as_ref().is_some_and(|name| name.port == Some(port))
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

/// Appends an IP address; IPv6 in brackets when asked (sent-by and URIs want them, `received` does
/// not).
pub fn write_ip(ip: IpAddr, brackets: bool, out: &mut Vec<u8>) {
    use std::io::Write;
    // Writing to a Vec does not fail.
    let _ = match ip {
        IpAddr::V4(ip) => return write_ipv4(ip, out),
        IpAddr::V6(ip) if brackets => write!(out, "[{ip}]"),
        IpAddr::V6(ip) => write!(out, "{ip}"),
    };
}

/// Every Via that we add has one, unless a name is advertised: formatting costs ten times as much.
fn write_ipv4(ip: Ipv4Addr, out: &mut Vec<u8>) {
    for (position, octet) in ip.octets().into_iter().enumerate() {
        if position > 0 {
            out.push(b'.');
        }
        write_number(u64::from(octet), out);
    }
}

fn write_port(port: u16, out: &mut Vec<u8>) {
    out.push(b':');
    write_number(u64::from(port), out);
}

/// Appends a decimal number.
pub fn write_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
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
