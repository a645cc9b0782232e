//! URIs (RFC 3261 §19.1, RFC 3966): SIP and SIPS in parts, tel as a number, any other scheme as it
//! is.

use std::io::Write;
use std::net::IpAddr;

use super::address::has_scheme;
use super::errors::{ParseError, ParseErrorKind};
use super::grammar::{HOST, URI, USER, all, hex, is, number, run};
use super::uri_compare;
use crate::base::host::parse_ip;

/// The scheme of a URI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme<'a> {
    /// `sip`.
    Sip,
    /// `sips` (RFC 5630).
    Sips,
    /// `tel` (RFC 3966).
    Tel,
    /// Any other, as written.
    Other(&'a [u8]),
}

/// One URI. Of schemes other than sip, sips and tel only `scheme` and `raw` are filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uri<'a> {
    /// The whole of it.
    pub raw: &'a [u8],
    /// The scheme.
    pub scheme: Scheme<'a>,
    /// The user as written, escapes included; of a tel URI the number.
    pub user: Option<&'a [u8]>,
    /// The password as written.
    pub password: Option<&'a [u8]>,
    /// The host; an IPv6 address has its brackets. Empty for tel.
    pub host: &'a [u8],
    /// The port.
    pub port: Option<u16>,
    /// The URI parameters from the first semicolon on.
    pub params_raw: &'a [u8],
    /// The header fields from the question mark on.
    pub headers_raw: &'a [u8],
}

impl<'a> Uri<'a> {
    /// Parses a whole URI.
    pub fn parse(text: &'a [u8]) -> Result<Uri<'a>, ParseError> {
        let scheme_end = match text {
            [b's', b'i', b'p', b':', ..] => 3,
            _ if has_scheme(text) => memchr::memchr(b':', text).unwrap_or(0),
            _ => return Err(ParseError::new(ParseErrorKind::Uri, 0)),
        };
        let scheme = Scheme::parse(&text[..scheme_end]);
        let uri = Uri {
            raw: text,
            scheme,
            user: None,
            password: None,
            host: b"",
            port: None,
            params_raw: b"",
            headers_raw: b"",
        };
        match scheme {
            Scheme::Sip | Scheme::Sips => sip_parts(uri, scheme_end + 1),
            Scheme::Tel => tel_parts(uri, scheme_end + 1),
            Scheme::Other(_) => {
                let fault = text.iter().position(|&byte| !is(URI, byte));
                fault.map_or(Ok(uri), |at| Err(ParseError::new(ParseErrorKind::Uri, at)))
            }
        }
    }

    /// The URI parameter of that name, in any case: `None` absent, `Some(None)` without a value.
    pub fn param(&self, name: &str) -> Option<Option<&'a [u8]>> {
        self.params()
            .find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// All URI parameters, as written.
    pub fn params(&self) -> UriParams<'a> {
        UriParams { rest: self.params_raw }
    }

    /// The host without the dot of the root behind it (RFC 1034 §3.1).
    pub fn domain(&self) -> &'a [u8] {
        self.host.strip_suffix(b".").unwrap_or(self.host)
    }

    /// The host as an address, when it is one.
    pub fn host_ip(&self) -> Option<IpAddr> {
        parse_ip(self.host)
    }

    /// Appends the canonical address of record (RFC 3261 §10.3 step 5): `user@host`, the user
    /// unescaped with its case kept, the host in lower case; without scheme, password, port,
    /// parameters and the dot of the root. Without a user it is the host alone. Of a tel URI it is
    /// the number without visual separators and `@`.
    pub fn aor_into(&self, out: &mut Vec<u8>) {
        if self.scheme == Scheme::Tel {
            let number = self.user.unwrap_or_default();
            out.extend(number.iter().filter(|byte| !b"-.()".contains(byte)));
            out.push(b'@');
            return;
        }
        if let Some(user) = self.user {
            unescape_into(user, out);
            out.push(b'@');
        }
        match self.host_ip() {
            Some(IpAddr::V6(address)) => {
                // A Vec takes everything.
                let _ = write!(out, "[{address}]");
            }
            _ => out.extend(self.domain().iter().map(u8::to_ascii_lowercase)),
        }
    }

    /// Whether both name the same (RFC 3261 §19.1.4).
    pub fn equivalent(&self, other: &Uri<'_>) -> bool {
        uri_compare::equivalent(self, other)
    }
}

impl<'a> Scheme<'a> {
    fn parse(text: &'a [u8]) -> Scheme<'a> {
        match text.len() {
            3 if text.eq_ignore_ascii_case(b"sip") => Scheme::Sip,
            4 if text.eq_ignore_ascii_case(b"sips") => Scheme::Sips,
            3 if text.eq_ignore_ascii_case(b"tel") => Scheme::Tel,
            _ => Scheme::Other(text),
        }
    }
}

/// Iterates over URI parameters; empty ones are passed over.
#[derive(Clone, Debug)]
pub struct UriParams<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for UriParams<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let text = &self.rest[1..];
            let end = memchr::memchr(b';', text).unwrap_or(text.len());
            self.rest = &text[end..];
            let param = &text[..end];
            match memchr::memchr(b'=', param) {
                _ if param.is_empty() => {}
                Some(equals) => return Some((&param[..equals], Some(&param[equals + 1..]))),
                None => return Some((param, None)),
            }
        }
        None
    }
}

/// The parts of a sip or sips URI after its scheme.
fn sip_parts(mut uri: Uri<'_>, start: usize) -> Result<Uri<'_>, ParseError> {
    let text = uri.raw;
    let mut host_start = start;
    // Most have a user without a password, which one pass finds; `@` and `:` are no part of it.
    let plain = run(USER, &text[start..]);
    if plain > 0 && text.get(start + plain) == Some(&b'@') {
        let user = &text[start..start + plain];
        escapes(user, start)?;
        uri.user = Some(user);
        host_start = start + plain + 1;
    } else if let Some(at) = memchr::memchr(b'@', &text[start..]) {
        let userinfo = &text[start..start + at];
        host_start = start + at + 1;
        let colon = memchr::memchr(b':', userinfo);
        let user = &userinfo[..colon.unwrap_or(at)];
        user_part(user, start)?;
        uri.user = Some(user);
        if let Some(colon) = colon {
            let password = &userinfo[colon + 1..];
            if !password.is_empty() {
                user_part(password, start + colon + 1)?;
            }
            uri.password = Some(password);
        }
    }
    let host_end = host(&mut uri, host_start)?;
    if host_end == text.len() {
        return Ok(uri);
    }
    let params_end = memchr::memchr(b'?', &text[host_end..]).map_or(text.len(), |at| host_end + at);
    uri.params_raw = &text[host_end..params_end];
    uri.headers_raw = &text[params_end..];
    if uri.params_raw.first().is_some_and(|&byte| byte != b';') {
        return Err(ParseError::new(ParseErrorKind::UriHost, host_end));
    }
    tail(text, host_end)?;
    Ok(uri)
}

/// Reads host and port; returns where they end.
#[inline]
fn host(uri: &mut Uri<'_>, start: usize) -> Result<usize, ParseError> {
    let rest = &uri.raw[start..];
    let fault = || ParseError::new(ParseErrorKind::UriHost, start);
    let length = if rest.first() == Some(&b'[') {
        let close = memchr::memchr(b']', rest).ok_or_else(fault)?;
        parse_ip(&rest[..=close]).ok_or_else(fault)?;
        close + 1
    } else {
        run(HOST, rest)
    };
    if length == 0 {
        return Err(fault());
    }
    uri.host = &rest[..length];
    if rest.get(length) != Some(&b':') {
        return Ok(start + length);
    }
    let digits = &rest[length + 1..];
    let digits = &digits[..digits.iter().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len())];
    let port = number(digits).and_then(|port| u16::try_from(port).ok());
    uri.port = Some(port.ok_or(ParseError::new(ParseErrorKind::Port, start + length + 1))?);
    Ok(start + length + 1 + digits.len())
}

#[inline]
fn user_part(text: &[u8], start: usize) -> Result<(), ParseError> {
    if !all(USER, text) {
        return Err(ParseError::new(ParseErrorKind::UriUser, start));
    }
    escapes(text, start)
}

/// Parameters and headers: characters of a URI, no second `@`, whole escapes.
#[inline]
fn tail(text: &[u8], start: usize) -> Result<(), ParseError> {
    let rest = &text[start..];
    let good = run(URI, rest);
    let at = memchr::memchr(b'@', &rest[..good]).unwrap_or(good);
    if at < rest.len() {
        return Err(ParseError::new(ParseErrorKind::Uri, start + at));
    }
    escapes(rest, start)
}

fn escapes(text: &[u8], start: usize) -> Result<(), ParseError> {
    let mut from = 0;
    while let Some(found) = memchr::memchr(b'%', &text[from..]) {
        let at = from + found;
        let digits = text.get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(ParseError::new(ParseErrorKind::Escape, start + at));
        }
        from = at + 3;
    }
    Ok(())
}

/// `+1-201-555-0123;phone-context=…` (RFC 3966 §3).
fn tel_parts(mut uri: Uri<'_>, start: usize) -> Result<Uri<'_>, ParseError> {
    let text = &uri.raw[start..];
    let end = memchr::memchr(b';', text).unwrap_or(text.len());
    let number = &text[..end];
    let digit = |byte: &u8| byte.is_ascii_hexdigit() || b"*#-.()".contains(byte);
    let digits = number.strip_prefix(b"+").unwrap_or(number);
    if !digits.iter().all(digit) || !digits.iter().any(|byte| !b"-.()".contains(byte)) {
        return Err(ParseError::new(ParseErrorKind::UriUser, start));
    }
    tail(uri.raw, start + end)?;
    uri.user = Some(number);
    uri.params_raw = &text[end..];
    Ok(uri)
}

/// Appends `text` with its escapes resolved, once (RFC 3986 §2.4).
pub fn unescape_into(text: &[u8], out: &mut Vec<u8>) {
    let mut from = 0;
    while let Some(found) = memchr::memchr(b'%', &text[from..]) {
        let at = from + found;
        out.extend_from_slice(&text[from..at]);
        match escaped(&text[at..]) {
            Some(byte) => {
                out.push(byte);
                from = at + 3;
            }
            None => {
                out.push(b'%');
                from = at + 1;
            }
        }
    }
    out.extend_from_slice(&text[from..]);
}

/// The byte that `%HH` at the start of `text` stands for.
pub(super) fn escaped(text: &[u8]) -> Option<u8> {
    match text {
        [b'%', high, low, ..] => Some(hex(*high)? << 4 | hex(*low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aor(text: &str) -> String {
        let mut out = Vec::new();
        Uri::parse(text.as_bytes()).expect(text).aor_into(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn parts() {
        let text = b"SIPS:al%69ce:se=cret@[2001:db8::1]:5061;Transport=tcp;lr?Subject=a&b=c";
        let uri = Uri::parse(text).unwrap();
        assert_eq!((uri.scheme, uri.user), (Scheme::Sips, Some(&b"al%69ce"[..])));
        assert_eq!((uri.password, uri.host), (Some(&b"se=cret"[..]), &b"[2001:db8::1]"[..]));
        assert_eq!((uri.port, uri.headers_raw), (Some(5061), &b"?Subject=a&b=c"[..]));
        assert_eq!(uri.param("transport"), Some(Some(&b"tcp"[..])));
        assert_eq!((uri.param("LR"), uri.param("maddr")), (Some(None), None));
        assert_eq!(uri.host_ip(), Some("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn separators_may_be_part_of_the_user() {
        let uri = Uri::parse(b"sip:user;par=u%40example.net@example.com").unwrap();
        assert_eq!((uri.user, uri.params_raw), (Some(&b"user;par=u%40example.net"[..]), &b""[..]));
        let uri = Uri::parse(b"sip:example.com;;a=b;").unwrap();
        assert_eq!((uri.user, uri.host), (None, &b"example.com"[..]));
        assert_eq!(uri.params().collect::<Vec<_>>(), [(&b"a"[..], Some(&b"b"[..]))]);
        assert!(Uri::parse(b"sip:*21#@example.com").is_ok());
    }

    #[test]
    fn other_schemes() {
        let tel = Uri::parse(b"tel:+1-201-555-0123;phone-context=x").unwrap();
        assert_eq!((tel.scheme, tel.user), (Scheme::Tel, Some(&b"+1-201-555-0123"[..])));
        assert_eq!(tel.param("phone-context"), Some(Some(&b"x"[..])));
        let urn = Uri::parse(b"urn:service:sos").unwrap();
        assert_eq!((urn.scheme, urn.host), (Scheme::Other(b"urn"), &b""[..]));
    }

    #[test]
    fn faults() {
        use ParseErrorKind as Kind;
        let cases: &[(&str, Kind)] = &[
            ("", Kind::Uri),
            ("sip", Kind::Uri),
            ("sip:", Kind::UriHost),
            ("1x:y", Kind::Uri),
            ("sips:", Kind::Uri),
            ("sip:@b", Kind::UriUser),
            ("sip::p@b", Kind::UriUser),
            ("sip:a@", Kind::UriHost),
            ("sip:a@b:", Kind::Port),
            ("sip:a@b:99999", Kind::Port),
            ("sip:a@b:5060x", Kind::UriHost),
            ("sip:a@b@c", Kind::UriHost),
            ("sip:a%4@b", Kind::Escape),
            ("sip:a@b;x=%zz", Kind::Escape),
            ("sip:a b@c", Kind::UriUser),
            ("sip:a@b c", Kind::UriHost),
            ("sip:a@[::1", Kind::UriHost),
            ("sip:a@[1.2.3.4]", Kind::UriHost),
            ("sip:a@b;x=<", Kind::Uri),
            ("tel:", Kind::Uri),
            ("tel:+", Kind::UriUser),
            ("tel:bob@host", Kind::UriUser),
            ("x:a b", Kind::Uri),
        ];
        for (text, kind) in cases {
            assert_eq!(Uri::parse(text.as_bytes()).map_err(|f| f.kind), Err(*kind), "{text}");
        }
    }

    #[test]
    fn addresses_of_record() {
        let cases = [
            ("sip:Alice@Example.COM:5060;transport=ws", "Alice@example.com"),
            ("sips:%41lice:pw@example.com?x=y", "Alice@example.com"),
            ("sip:null-%00-null@example.com", "null-\0-null@example.com"),
            ("sip:a%2541@example.com", "a%41@example.com"),
            ("sip:Example.com", "example.com"),
            ("sip:a@[2001:DB8:0::1]", "a@[2001:db8::1]"),
            ("tel:+1-(201).555;ext=1", "+1201555@"),
        ];
        for (text, expected) in cases {
            assert_eq!(aor(text), expected);
        }
    }

    #[test]
    fn truncations() {
        let text = b"sips:al%69ce:se=cret@[2001:db8::1]:5061;transport=tcp;lr?Subject=a%20b";
        for len in 0..text.len() {
            if let Ok(uri) = Uri::parse(&text[..len]) {
                assert!(uri.equivalent(&uri));
            }
        }
    }
}
