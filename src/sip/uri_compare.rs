//! Comparison of URIs (RFC 3261 §19.1.4). Absent on purpose: comparison of schemes that sipring
//! does not route, which is byte for byte.

use super::uri::{Scheme, Uri, escaped};

/// URI parameters that, when only one URI has them, make the two differ.
const SIGNIFICANT: [&str; 5] = ["transport", "user", "ttl", "method", "maddr"];

pub(super) fn equivalent(one: &Uri<'_>, other: &Uri<'_>) -> bool {
    // Also where a parameter stands twice, which §19.1.1 forbids and has no comparison for.
    if one.raw == other.raw {
        return true;
    }
    match (one.scheme, other.scheme) {
        (Scheme::Sip, Scheme::Sip) | (Scheme::Sips, Scheme::Sips) => {}
        (Scheme::Tel, Scheme::Tel) => return same_number(one, other),
        _ => return one.raw == other.raw,
    }
    same_optional(one.user, other.user)
        && same_optional(one.password, other.password)
        && one.port == other.port
        && same_host(one, other)
        && params_agree(one, other)
        && params_agree(other, one)
        && same_headers(one.headers_raw, other.headers_raw)
}

/// RFC 3966 §4: digits without visual separators, in any case, and equal parameters in any order.
fn same_number(one: &Uri<'_>, other: &Uri<'_>) -> bool {
    let digits = |text: Option<&'_ [u8]>| -> usize { text.map_or(0, <[u8]>::len) };
    if digits(one.user) == 0 || digits(other.user) == 0 {
        return false;
    }
    let plain = |text: &'_ [u8], at: &mut usize| -> Option<u8> {
        while let Some(&byte) = text.get(*at) {
            *at += 1;
            if !b"-.()".contains(&byte) {
                return Some(byte.to_ascii_lowercase());
            }
        }
        None
    };
    let (left, right) = (one.user.unwrap_or_default(), other.user.unwrap_or_default());
    let (mut at_left, mut at_right) = (0, 0);
    loop {
        match (plain(left, &mut at_left), plain(right, &mut at_right)) {
            (None, None) => break,
            (a, b) if a != b => return false,
            _ => {}
        }
    }
    let covers = |a: &Uri<'_>, b: &Uri<'_>| {
        a.params().all(|(name, _)| match (find(a, name), find(b, name)) {
            (Some(value), Some(found)) => same_value(value, found),
            _ => false,
        })
    };
    covers(one, other) && covers(other, one)
}

fn same_host(one: &Uri<'_>, other: &Uri<'_>) -> bool {
    if one.host.eq_ignore_ascii_case(other.host) {
        return true;
    }
    one.host.first() == Some(&b'[') && one.host_ip() == other.host_ip()
}

fn same_optional(one: Option<&[u8]>, other: Option<&[u8]>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Unescaped(one).eq(Unescaped(other)),
        (None, None) => true,
        _ => false,
    }
}

/// Whether every parameter of `one` has its like in `other`, or may be absent there. Of a parameter
/// that occurs twice, which it must not, the first one counts.
fn params_agree(one: &Uri<'_>, other: &Uri<'_>) -> bool {
    one.params().all(|(name, _)| match find(other, name) {
        Some(found) => find(one, name).is_some_and(|value| same_value(value, found)),
        None => !SIGNIFICANT.iter().any(|known| same_text(name, known.as_bytes())),
    })
}

fn find<'a>(uri: &Uri<'a>, name: &[u8]) -> Option<Option<&'a [u8]>> {
    uri.params().find(|(found, _)| same_text(found, name)).map(|(_, value)| value)
}

fn same_value(one: Option<&[u8]>, other: Option<&[u8]>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => same_text(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// In any case, escapes resolved.
fn same_text(one: &[u8], other: &[u8]) -> bool {
    let lower =
        |unit: u16| if unit < 0x80 { u16::from((unit as u8).to_ascii_lowercase()) } else { unit };
    Unescaped(one).map(lower).eq(Unescaped(other).map(lower))
}

/// Header components are never ignored; their order does not count.
fn same_headers(one: &[u8], other: &[u8]) -> bool {
    if one == other {
        return true;
    }
    let covers = |a: &[u8], b: &[u8]| {
        components(a).all(|component| components(b).any(|found| same_text(component, found)))
    };
    components(one).count() == components(other).count() && covers(one, other) && covers(other, one)
}

fn components(headers: &[u8]) -> impl Iterator<Item = &[u8]> {
    headers
        .strip_prefix(b"?")
        .unwrap_or_default()
        .split(|&byte| byte == b'&')
        .filter(|c| !c.is_empty())
}

/// The characters of a text: an escaped one equals its plain form unless that is reserved (RFC 3986
/// §2.2), in which case it is told apart by its high bits.
struct Unescaped<'a>(&'a [u8]);

impl Iterator for Unescaped<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        let (&first, rest) = self.0.split_first()?;
        let Some(byte) = escaped(self.0) else {
            self.0 = rest;
            return Some(u16::from(first));
        };
        self.0 = &self.0[3..];
        let reserved = b";/?:@&=+$,%".contains(&byte);
        Some(u16::from(byte) | if reserved { 0x100 } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: &str, other: &str) -> bool {
        let one = Uri::parse(one.as_bytes()).expect(one);
        let other = Uri::parse(other.as_bytes()).expect(other);
        let same = one.equivalent(&other);
        assert_eq!(same, other.equivalent(&one), "symmetric");
        same
    }

    /// The examples of RFC 3261 §19.1.4, and some of ours.
    #[test]
    fn equivalent_ones() {
        let cases = [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),
            ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
            (
                "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
                "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
            ),
            (
                "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
                "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
            ),
            ("sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0::1]"),
            ("sip:a@[2001:db8:::192.0.2.1]", "sip:a@[2001:db8::192.0.2.1]"),
            ("sip:a@b;user=x;user=y", "sip:a@b;user=x;user=y"),
            ("tel:+1-201-555", "tel:+1201.555"),
            ("urn:service:sos", "urn:service:sos"),
            // Nothing differs from itself, whatever its faults.
            ("sip:a@b;x=1;x=2", "sip:a@b;x=1;x=2"),
            ("tel:+1201;x=1;x=2", "tel:+1201;x=1;x=2"),
        ];
        for (one, other) in cases {
            assert!(same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn different_ones() {
        let cases = [
            ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
            ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
            ("sip:a@b", "sips:a@b"),
            ("sip:a@b", "sip:b"),
            ("sip:a:x@b", "sip:a@b"),
            ("sip:a%3bb@c", "sip:a;b@c"),
            ("sip:a@b;maddr=1.2.3.4", "sip:a@b"),
            ("sip:a@b;lr", "sip:a@b;lr=on"),
            ("tel:+1201", "tel:1201"),
            ("tel:+1201;ext=1", "tel:+1201"),
            ("tel:+1201", "sip:+1201@b"),
        ];
        for (one, other) in cases {
            assert!(!same(one, other), "{one} {other}");
        }
    }
}
