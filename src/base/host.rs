//! Hosts that are IP addresses, as they stand in URIs, Via values and the configuration (RFC 3261
//! §25.1 `IPv4address`, `IPv6reference`). Zone identifiers (RFC 6874) are refused: no grammar of SIP
//! has them, and they mean something on one machine only.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest IPv4 address in text, and a dot.
const IPV4_TEXT_MAX: usize = 16;
/// The longest IPv6 address in text, and a colon.
const IPV6_TEXT_MAX: usize = 46;

/// Reads an IPv4 address, or an IPv6 address in brackets.
pub fn parse_ip(host: &[u8]) -> Option<IpAddr> {
    match host {
        [b'[', address @ .., b']'] => parse_ipv6(address).map(IpAddr::V6),
        [first, ..] if first.is_ascii_digit() => parse_ipv4(host).map(IpAddr::V4),
        _ => None,
    }
}

/// Appends an IP address; IPv6 in brackets when asked (sent-by and URIs want them, `received` does
/// not).
pub fn write_ip(ip: IpAddr, brackets: bool, out: &mut Vec<u8>) {
    // Writing to a Vec does not fail.
    let _ = match ip {
        IpAddr::V4(ip) => return write_ipv4(ip, out),
        IpAddr::V6(ip) if brackets => write!(out, "[{ip}]"),
        IpAddr::V6(ip) => write!(out, "{ip}"),
    };
}

/// Every Via that we add has one, unless a name is advertised, and what we answer by UDP: formatting
/// costs ten times as much.
fn write_ipv4(ip: Ipv4Addr, out: &mut Vec<u8>) {
    let mut text = [0; IPV4_TEXT_MAX];
    let mut len = 0;
    for octet in ip.octets() {
        let digits = [octet / 100, octet / 10 % 10, octet % 10];
        let leading = usize::from(octet < 100) + usize::from(octet < 10);
        for digit in &digits[leading..] {
            text[len] = b'0' + digit;
            len += 1;
        }
        text[len] = b'.';
        len += 1;
    }
    out.extend_from_slice(&text[..len - 1]);
}

/// Four numbers up to 255 without leading zeros, as the standard library wants them: a quarter of its
/// time.
fn parse_ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let (mut at, mut digits, mut octet) = (0, 0, 0_u16);
    for byte in text {
        match byte.wrapping_sub(b'0') {
            _ if *byte == b'.' && digits > 0 && at < 3 => {
                octets[at] = octet as u8;
                (at, digits, octet) = (at + 1, 0, 0);
            }
            digit @ 0..10 if digits == 0 || octet > 0 => {
                octet = octet * 10 + u16::from(digit);
                digits += 1;
                if octet > 255 {
                    return None;
                }
            }
            _ => return None,
        }
    }
    octets[3] = octet as u8;
    (at == 3 && digits > 0).then(|| octets.into())
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
    fn ipv4_addresses_are_those_of_the_standard_library() {
        let octets =
            ["0", "1", "9", "10", "99", "100", "255", "256", "01", "00", "1000", "", "x", "+1"];
        for octet in octets {
            for text in [
                format!("{octet}.0.0.1"),
                format!("10.{octet}.30.4"),
                format!("1.2.{octet}.255"),
                format!("1.2.3.{octet}"),
                format!("1.2.3.4.{octet}"),
                format!("1.2.{octet}"),
                format!("65536.2.3.{octet}"),
            ] {
                let expected = text.parse().ok();
                assert_eq!(parse_ipv4(text.as_bytes()), expected, "{text}");
                if let Some(ip) = expected {
                    let mut out = b"x".to_vec();
                    write_ip(IpAddr::V4(ip), true, &mut out);
                    assert_eq!(out, format!("x{text}").as_bytes());
                }
            }
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
