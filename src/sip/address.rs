//! Addresses with parameters (RFC 3261 §20.10, §25.1 `name-addr`, `addr-spec`): From, To, Contact,
//! Route, Record-Route, Path and their kin.

use super::cursor::Cursor;
use super::errors::{ParseError, ParseErrorKind};
use super::grammar::{DISPLAY, LWS, SCHEME, URI, all, is, number, quoted_end};
use super::message::Span;
use super::param::{Params, next_param};

/// One address: a URI, perhaps with a name, and header field parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NameAddr<'a> {
    /// The display name as written, with its quotes; empty when there is none.
    pub display: &'a [u8],
    /// The URI: what is between the angle brackets, or the addr-spec.
    pub uri: &'a [u8],
    /// Where the URI is, in the message or in the text that was parsed.
    pub uri_span: Span,
    /// The header field parameters from the first semicolon on; empty when there are none.
    pub params_raw: &'a [u8],
}

impl<'a> NameAddr<'a> {
    /// Parses one value; spans are relative to `text`.
    pub fn parse(text: &'a [u8]) -> Result<NameAddr<'a>, ParseError> {
        NameAddr::parse_at(text, Span::new(0, text.len()))
    }

    /// Parses the value at `span`; the spans of the result are those of `bytes`.
    pub fn parse_at(bytes: &'a [u8], span: Span) -> Result<NameAddr<'a>, ParseError> {
        NameAddr::read(bytes, span, |_, _| {})
    }

    /// Parses one value and shows each header field parameter as [`NameAddr::params`] would: who
    /// wants them all reads them once.
    pub fn parse_with(
        text: &'a [u8],
        each: impl FnMut(&'a [u8], Option<&'a [u8]>),
    ) -> Result<NameAddr<'a>, ParseError> {
        NameAddr::read(text, Span::new(0, text.len()), each)
    }

    #[inline(always)]
    fn read(
        bytes: &'a [u8],
        span: Span,
        mut each: impl FnMut(&'a [u8], Option<&'a [u8]>),
    ) -> Result<NameAddr<'a>, ParseError> {
        let mut cursor = Cursor::new(bytes, span);
        cursor.skip_lws();
        let display = display_name(&mut cursor)?;
        let uri_span = if cursor.eat(b'<') {
            let uri = bracketed(&cursor)?;
            cursor.pos = uri.end as usize + 1;
            uri
        } else {
            addr_spec(&mut cursor)?
        };
        cursor.skip_lws();
        let params = cursor.pos;
        let mut params_end = params;
        while let Some(param) = next_param(&mut cursor)? {
            params_end = param.span.end as usize;
            each(param.name, param.value);
        }
        cursor.skip_lws();
        if !cursor.at_end() {
            return Err(cursor.fault(ParseErrorKind::Address));
        }
        let uri = uri_span.of(bytes);
        Ok(NameAddr { display, uri, uri_span, params_raw: &bytes[params..params_end] })
    }

    /// The header field parameter of that name, in any case: `None` absent, `Some(None)` without a
    /// value. Quotes around a value are removed, escapes within are left.
    pub fn param(&self, name: &str) -> Option<Option<&'a [u8]>> {
        self.params().find(name)
    }

    /// All header field parameters.
    pub fn params(&self) -> Params<'a> {
        Params::new(self.params_raw)
    }

    /// The tag (RFC 3261 §19.3).
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.param("tag").flatten()
    }

    /// The q parameter of a Contact in thousandths (RFC 3261 §20.10), `None` when absent or
    /// malformed.
    pub fn q(&self) -> Option<u16> {
        let text = self.param("q").flatten()?;
        let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
            Some(dot) => (&text[..dot], &text[dot + 1..]),
            None => (text, &b""[..]),
        };
        let whole = if whole.is_empty() { 0 } else { number(whole)? };
        let mut thousandths = 0;
        for place in 0..3 {
            let digit = fraction.get(place).copied().unwrap_or(b'0');
            thousandths = thousandths * 10 + number(&[digit])?;
        }
        let q = whole.saturating_mul(1000).saturating_add(thousandths);
        (fraction.len() <= 3 && q <= 1000).then_some(q as u16)
    }

    /// The expires parameter of a Contact in seconds: `Some(None)` when malformed (RFC 3261 §10.3
    /// takes the default then); what is beyond 32 bits is the largest number.
    pub fn expires(&self) -> Option<Option<u32>> {
        let value = self.param("expires")?;
        Some(value.and_then(number).map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)))
    }
}

/// Reads up to the `<`, or nothing when an addr-spec comes.
fn display_name<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], ParseError> {
    let start = cursor.pos;
    let mut end = start;
    match cursor.peek() {
        Some(b'<') => return Ok(b""),
        Some(b'"') => {
            end = quoted_end(cursor.bytes, start, cursor.bytes.len())
                .ok_or_else(|| cursor.fault(ParseErrorKind::Quote))?;
            cursor.pos = end;
            cursor.skip_lws();
        }
        _ => {
            while !cursor.take(DISPLAY).is_empty() {
                end = cursor.pos;
                cursor.skip_lws();
            }
        }
    }
    match cursor.peek() {
        Some(b'<') => Ok(&cursor.bytes[start..end]),
        Some(b':') if cursor.pos == end => {
            cursor.pos = start;
            Ok(b"")
        }
        Some(_) if end > start && memchr::memchr(b'<', cursor.rest()).is_some() => {
            Err(cursor.fault(ParseErrorKind::DisplayName))
        }
        _ => Err(cursor.fault(ParseErrorKind::Address)),
    }
}

/// The URI between the brackets; the cursor is after the opening one.
#[inline]
fn bracketed(cursor: &Cursor<'_>) -> Result<Span, ParseError> {
    let mut inside = *cursor;
    let uri = inside.take(URI);
    if inside.peek() != Some(b'>') {
        return Err(inside.fault(ParseErrorKind::Uri));
    }
    if !has_scheme(uri) {
        return Err(cursor.fault(ParseErrorKind::Uri));
    }
    Ok(Span::new(cursor.pos, inside.pos))
}

/// A URI without brackets: semicolons start header field parameters; a comma or question mark needs
/// brackets (RFC 3261 §20.10).
fn addr_spec(cursor: &mut Cursor<'_>) -> Result<Span, ParseError> {
    let start = cursor.pos;
    while let Some(byte) = cursor.peek() {
        match byte {
            b';' => break,
            b'?' | b',' => return Err(cursor.fault(ParseErrorKind::Brackets)),
            _ if is(URI, byte) => cursor.pos += 1,
            _ if is(LWS, byte) => break,
            _ => return Err(cursor.fault(ParseErrorKind::Uri)),
        }
    }
    if has_scheme(&cursor.bytes[start..cursor.pos]) {
        Ok(Span::new(start, cursor.pos))
    } else {
        Err(ParseError::new(ParseErrorKind::Uri, start))
    }
}

/// Whether `uri` starts with a scheme and has something after it.
pub(super) fn has_scheme(uri: &[u8]) -> bool {
    if let [b's', b'i', b'p', b':', _, ..] = uri {
        return true;
    }
    let Some(colon) = uri.iter().position(|&byte| byte == b':') else { return false };
    uri[0].is_ascii_alphabetic() && all(SCHEME, &uri[..colon]) && colon + 1 < uri.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text, display, URI, parameters.
    const GOOD: &[(&str, &str, &str, &str)] = &[
        ("<sip:a@b>", "", "sip:a@b", ""),
        ("sip:a@b;tag=1", "", "sip:a@b", ";tag=1"),
        (" sip:a@b ; tag = 1 ", "", "sip:a@b", "; tag = 1"),
        (
            "\"A, \\\"B\\\" <x>\" <sip:a@b;lr?x=y>;q=1",
            "\"A, \\\"B\\\" <x>\"",
            "sip:a@b;lr?x=y",
            ";q=1",
        ),
        ("A  B <tel:+1>", "A  B", "tel:+1", ""),
        ("caller<sip:c@d>;tag=3", "caller", "sip:c@d", ";tag=3"),
        ("Zo\u{eb} \r\n <sip:z@d>\r\n\t;tag=3", "Zo\u{eb}", "sip:z@d", ";tag=3"),
        ("<sip:a@[::1]:5060>", "", "sip:a@[::1]:5060", ""),
        ("<urn:service:sos>", "", "urn:service:sos", ""),
    ];

    #[test]
    fn both_forms() {
        for (text, display, uri, params) in GOOD {
            let address = NameAddr::parse(text.as_bytes()).expect(text);
            assert_eq!(address.display, display.as_bytes(), "{text}");
            assert_eq!(address.uri, uri.as_bytes(), "{text}");
            assert_eq!(address.uri_span.of(text.as_bytes()), uri.as_bytes(), "{text}");
            assert_eq!(address.params_raw, params.as_bytes(), "{text}");
        }
    }

    #[test]
    fn faults() {
        use ParseErrorKind::*;
        let cases: &[(&str, ParseErrorKind)] = &[
            ("", Address),
            ("abc", Address),
            ("a b", Address),
            ("*", Address),
            ("\"abc", Quote),
            ("\"abc\"", Address),
            ("\"abc\" sip:a@b", Address),
            ("a b:c@d", Uri),
            ("Bell, A <sip:a@b>", DisplayName),
            ("< sip:a@b >", Uri),
            ("<>", Uri),
            ("<sip>", Uri),
            ("<sip:>", Uri),
            ("<sip:a@b", Uri),
            ("<sip:a@b> x", Address),
            ("<sip:a@b>, <sip:c@d>", Address),
            ("sip:a@b?x=y", Brackets),
            ("sip:a,c@b", Brackets),
            ("sip:a@b;;", Parameter),
            ("<sip:a@b>;x=\"", Quote),
        ];
        for (text, kind) in cases {
            assert_eq!(NameAddr::parse(text.as_bytes()).map_err(|f| f.kind), Err(*kind), "{text}");
        }
    }

    #[test]
    fn parameters() {
        let text =
            b"<sip:a@b>;TAG=x;+sip.instance=\"<urn:uuid:1>\";reg-id=1;ob;q=0.5;expires=99999999999";
        let address = NameAddr::parse(text).unwrap();
        assert_eq!(address.tag(), Some(&b"x"[..]));
        assert_eq!(address.param("+sip.instance"), Some(Some(&b"<urn:uuid:1>"[..])));
        assert_eq!((address.param("ob"), address.param("nope")), (Some(None), None));
        assert_eq!((address.q(), address.expires()), (Some(500), Some(Some(u32::MAX))));
        assert_eq!(address.params().count(), 6);
        let mut shown = Vec::new();
        let again = NameAddr::parse_with(text, |name, value| shown.push((name, value))).unwrap();
        assert_eq!((again, shown), (address, address.params().collect::<Vec<_>>()));
    }

    #[test]
    fn q_values() {
        let cases: &[(&str, Option<u16>)] = &[
            ("1", Some(1000)),
            ("0", Some(0)),
            ("0.7", Some(700)),
            ("0.123", Some(123)),
            (".5", Some(500)),
            ("1.0", Some(1000)),
            ("1.1", None),
            ("0.1234", None),
            ("x", None),
            ("0.x", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in cases {
            let text = format!("<sip:a>;q={text}");
            assert_eq!(NameAddr::parse(text.as_bytes()).unwrap().q(), *expected, "{text}");
        }
    }

    #[test]
    fn truncations() {
        for (text, ..) in GOOD {
            for len in 0..text.len() {
                if let Ok(address) = NameAddr::parse(&text.as_bytes()[..len]) {
                    assert!(address.uri_span.end as usize <= len);
                }
            }
        }
    }
}
