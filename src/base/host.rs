//! Hosts that are IP addresses, as they stand in URIs, Via values and the configuration (RFC 3261
//! §25.1 `IPv4address`, `IPv6reference`). Zone identifiers (RFC 6874) are refused: no grammar of SIP
//! has them, and they mean something on one machine only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest IPv6 address in text, and a colon.
const IPV6_TEXT_MAX: usize = 46;

/// Reads an IPv4 address, or an IPv6 address in brackets.
pub fn parse_ip(host: &[u8]) -> Option<IpAddr> {
    match host {
        [b'[', address @ .., b']'] => parse_ipv6(address).map(IpAddr::V6),
        [first, ..] if first.is_ascii_digit() => {
            std::str::from_utf8(host).ok()?.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
        }
        _ => None,
    }
}

/// Whether two hosts are the same: names in any case, IPv6 addresses in any spelling.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    one == other
        || one.eq_ignore_ascii_case(other)
        || one.first() == Some(&b'[') && parse_ip(one).is_some_and(|ip| parse_ip(other) == Some(ip))
}

fn parse_ipv6(address: &[u8]) -> Option<Ipv6Addr> {
    let text = std::str::from_utf8(address).ok()?;
    text.parse().ok().or_else(|| without_third_colon(text)?.parse().ok())
}

/// The grammar of RFC 3261 asks for `2001:db8:::192.0.2.1`, with one colon more than the address
/// has: both are to be understood (RFC 5118 §4.10).
#[cold]
fn without_third_colon(text: &str) -> Option<String> {
    let (before, after) = text.split_once(":::").filter(|_| text.len() <= IPV6_TEXT_MAX)?;
    after.parse::<Ipv4Addr>().ok()?;
    Some(format!("{before}::{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let cases = [
            ("192.0.2.1", Some("192.0.2.1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[::ffff:192.0.2.1]", Some("::ffff:192.0.2.1")),
            ("[2001:db8::192.0.2.1]", Some("2001:db8::c000:201")),
            ("[2001:db8:::192.0.2.1]", Some("2001:db8::c000:201")),
            ("[:::192.0.2.1]", Some("::c000:201")),
            ("[2001:db8:::1]", None),
            ("[2001:db8::::192.0.2.1]", None),
            ("[2001:::db8:::192.0.2.1]", None),
            ("[fe80::1%25eth0]", None),
            ("[fe80::1%eth0]", None),
            ("[192.0.2.1]", None),
            ("2001:db8::1", None),
            ("192.0.2", None),
            ("192.0.2.1.", None),
            ("example.com", None),
            ("", None),
        ];
        for (host, expected) in cases {
            let expected = expected.map(|ip| ip.parse().expect("an address"));
            assert_eq!(parse_ip(host.as_bytes()), expected, "{host}");
        }
    }

    #[test]
    fn sameness() {
        assert!(same(b"Example.com", b"example.COM"));
        assert!(same(b"[2001:DB8::0:1]", b"[2001:db8::1]"));
        assert!(!same(b"[2001:db8::1]", b"[2001:db8::2]"));
        assert!(!same(b"[", b"example.com") && !same(b"[x]", b"[y]"));
    }
}
