//! Via values (RFC 3261 §20.42, §18.2; RFC 3581): where a response goes, and which transaction it
//! belongs to.

use std::net::IpAddr;

use super::cursor::Cursor;
use super::errors::{ParseError, ParseErrorKind};
use super::grammar::{HOST, LWS, TOKEN, is, number};
use super::message::Span;
use super::param::{Param, next_param};
use crate::base::host::parse_ip;

/// One Via value. Of a parameter that occurs twice the first one counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Via<'a> {
    /// The transport as written: `UDP`, `wss` …
    pub transport: &'a [u8],
    /// Host of the sent-by; an IPv6 address has its brackets.
    pub sent_by_host: &'a [u8],
    /// Port of the sent-by.
    pub sent_by_port: Option<u16>,
    /// The branch parameter.
    pub branch: Option<&'a [u8]>,
    /// The received parameter.
    pub received: Option<&'a [u8]>,
    /// The rport parameter (RFC 3581): `Some(None)` asks for it.
    pub rport: Option<Option<&'a [u8]>>,
    /// The maddr parameter.
    pub maddr: Option<&'a [u8]>,
    /// The ttl parameter, when it is a number up to 255.
    pub ttl: Option<u8>,
    /// The alias parameter (RFC 5923 §8.1).
    pub alias: bool,
    /// This value, in the message or in the text that was parsed.
    pub span: Span,
    /// Offset after the last parameter (or the sent-by): where a parameter can be appended.
    pub params_end: u32,
    /// The rport parameter with its value, without the semicolon.
    pub rport_span: Option<Span>,
    /// The received parameter with its value, without the semicolon.
    pub received_span: Option<Span>,
}

impl<'a> Via<'a> {
    /// Parses one value; spans are relative to `text`.
    pub fn parse(text: &'a [u8]) -> Result<Via<'a>, ParseError> {
        Via::parse_at(text, Span::new(0, text.len()))
    }

    /// Parses the value at `span`; the spans of the result are those of `bytes`.
    pub fn parse_at(bytes: &'a [u8], span: Span) -> Result<Via<'a>, ParseError> {
        let mut cursor = Cursor::new(bytes, span);
        let via = Via::read(&mut cursor)?;
        if cursor.at_end() { Ok(via) } else { Err(cursor.fault(ParseErrorKind::Via)) }
    }

    /// Parses the first value of the list at `span`. A comma that is not in quotes ends it, and
    /// nothing but quotes could hide one: no part of a Via has angle brackets.
    pub(super) fn first_at(bytes: &'a [u8], span: Span) -> Result<Via<'a>, ParseError> {
        let mut cursor = Cursor::new(bytes, span);
        let via = Via::read(&mut cursor)?;
        match cursor.peek() {
            None | Some(b',') => Ok(via),
            Some(_) => Err(cursor.fault(ParseErrorKind::Via)),
        }
    }

    /// Reads up to what is no part of a value any more.
    #[inline(always)]
    fn read(cursor: &mut Cursor<'a>) -> Result<Via<'a>, ParseError> {
        cursor.skip_lws();
        let start = cursor.pos;
        let transport = sent_protocol(cursor)?;
        let (sent_by_host, sent_by_port) = sent_by(cursor)?;
        let mut via = Via {
            transport,
            sent_by_host,
            sent_by_port,
            branch: None,
            received: None,
            rport: None,
            maddr: None,
            ttl: None,
            alias: false,
            span: Span::new(start, cursor.pos),
            params_end: cursor.pos as u32,
            rport_span: None,
            received_span: None,
        };
        while let Some(param) = next_param(cursor)? {
            via.take(&param);
        }
        via.span.end = via.params_end;
        cursor.skip_lws();
        Ok(via)
    }

    #[inline]
    fn take(&mut self, param: &Param<'a>) {
        self.params_end = param.span.end;
        let named = |name: &str| param.name.eq_ignore_ascii_case(name.as_bytes());
        match param.name.len() {
            6 if named("branch") => self.branch = self.branch.or(param.value),
            5 if named("rport") && self.rport.is_none() => {
                self.rport = Some(param.value.filter(|value| !value.is_empty()));
                self.rport_span = Some(param.span);
            }
            8 if named("received") && self.received_span.is_none() => {
                self.received = param.value;
                self.received_span = Some(param.span);
            }
            5 if named("alias") => self.alias = true,
            5 if named("maddr") => self.maddr = self.maddr.or(param.value),
            3 if named("ttl") => {
                let value = param.value.and_then(number).and_then(|ttl| u8::try_from(ttl).ok());
                self.ttl = self.ttl.or(value);
            }
            _ => {}
        }
    }

    /// Whether it has a branch of which [`has_magic_cookie`] is true.
    pub fn has_magic_cookie(&self) -> bool {
        self.branch.is_some_and(has_magic_cookie)
    }

    /// The sent-by host as an address, when it is one.
    pub fn sent_by_ip(&self) -> Option<IpAddr> {
        parse_ip(self.sent_by_host)
    }
}

/// Whether a branch starts with the cookie of RFC 3261 §8.1.1.7 and has something after it.
pub fn has_magic_cookie(branch: &[u8]) -> bool {
    branch.len() > 7 && branch[..7].eq_ignore_ascii_case(b"z9hG4bK")
}

/// `SIP / 2.0 / transport`. Another version is no fault here: the response to it (505) needs the
/// Via.
fn sent_protocol<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], ParseError> {
    if cursor.rest().starts_with(b"SIP/2.0/") {
        cursor.pos += 8;
        cursor.skip_lws();
    } else {
        for _ in 0..2 {
            cursor.expect(TOKEN, ParseErrorKind::Via)?;
            if !cursor.eat_separator(b'/') {
                return Err(cursor.fault(ParseErrorKind::Via));
            }
        }
    }
    let transport = cursor.expect(TOKEN, ParseErrorKind::Via)?;
    if !cursor.peek().is_some_and(|byte| is(LWS, byte)) {
        return Err(cursor.fault(ParseErrorKind::Via));
    }
    cursor.skip_lws();
    Ok(transport)
}

fn sent_by<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a [u8], Option<u16>), ParseError> {
    let host = if cursor.peek() == Some(b'[') {
        let rest = cursor.rest();
        let close = memchr::memchr(b']', rest).ok_or_else(|| cursor.fault(ParseErrorKind::Via))?;
        let host = &rest[..=close];
        parse_ip(host).ok_or_else(|| cursor.fault(ParseErrorKind::Via))?;
        cursor.pos += host.len();
        host
    } else {
        cursor.expect(HOST, ParseErrorKind::Via)?
    };
    let end = cursor.pos;
    if !cursor.eat_separator(b':') {
        cursor.pos = end;
        return Ok((host, None));
    }
    let start = cursor.pos;
    while cursor.peek().is_some_and(|byte| byte.is_ascii_digit()) {
        cursor.pos += 1;
    }
    let port = number(&cursor.bytes[start..cursor.pos]).and_then(|port| u16::try_from(port).ok());
    match port {
        Some(port) => Ok((host, Some(port))),
        None => Err(ParseError::new(ParseErrorKind::Port, start)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_forms() {
        let via = Via::parse(b"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKx;rport;ttl=16").unwrap();
        assert_eq!((via.transport, via.sent_by_host), (&b"UDP"[..], &b"192.0.2.1"[..]));
        assert_eq!((via.sent_by_port, via.branch), (Some(5060), Some(&b"z9hG4bKx"[..])));
        assert_eq!((via.rport, via.received, via.ttl), (Some(None), None, Some(16)));
        assert!(via.has_magic_cookie());
        assert_eq!(via.sent_by_ip(), Some("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn white_space_wherever_the_grammar_has_it() {
        let text =
            b" SIP / 2.0\r\n /\tTLS  [2001:DB8::1] : 5061 ; hidden ;\r\n branch = z9hG4bKa ; \
                     rport = 7; received=2001:db8::2 ; maddr=m.example ";
        let via = Via::parse(text).unwrap();
        assert_eq!((via.transport, via.sent_by_host), (&b"TLS"[..], &b"[2001:DB8::1]"[..]));
        assert_eq!((via.sent_by_port, via.rport), (Some(5061), Some(Some(&b"7"[..]))));
        assert_eq!(via.rport_span.unwrap().of(text), b"rport = 7");
        assert_eq!(via.received_span.unwrap().of(text), b"received=2001:db8::2");
        assert_eq!(via.maddr, Some(&b"m.example"[..]));
        assert_eq!(via.params_end as usize, text.len() - 1);
        assert_eq!(via.span, Span::new(1, text.len() - 1));
    }

    #[test]
    fn absent_parts() {
        let via = Via::parse(b"SIP/7.0/X host").unwrap();
        assert_eq!((via.branch, via.sent_by_port, via.has_magic_cookie()), (None, None, false));
        assert_eq!(via.params_end, 14);
        let bare = Via::parse(b"SIP/2.0/UDP a;branch=z9hG4bK;rport=").unwrap();
        assert_eq!((bare.has_magic_cookie(), bare.rport), (false, Some(None)));
    }

    #[test]
    fn faults() {
        let cases: &[(&str, ParseErrorKind)] = &[
            ("", ParseErrorKind::Via),
            ("SIP/2.0", ParseErrorKind::Via),
            ("SIP/2.0/UDP", ParseErrorKind::Via),
            ("SIP/2.0/UDP;branch=a", ParseErrorKind::Via),
            ("SIP/2.0/UDP ;branch=a", ParseErrorKind::Via),
            ("SIP/2.0/UDP [::1;branch=a", ParseErrorKind::Via),
            ("SIP/2.0/UDP [zz]", ParseErrorKind::Via),
            ("SIP/2.0/UDP a:70000", ParseErrorKind::Port),
            ("SIP/2.0/UDP a:", ParseErrorKind::Port),
            ("SIP/2.0/UDP a;;b", ParseErrorKind::Parameter),
            ("SIP/2.0/UDP a b", ParseErrorKind::Via),
            ("SIP/2.0/UDP a;b=\"c", ParseErrorKind::Quote),
            ("SIP/2.0/UDP a,b", ParseErrorKind::Via),
        ];
        for (text, kind) in cases {
            assert_eq!(Via::parse(text.as_bytes()).map_err(|f| f.kind), Err(*kind), "{text}");
        }
    }

    #[test]
    fn truncations() {
        let text = b"SIP/2.0/UDP [2001:db8::1]:5060;branch=z9hG4bKx;received=\"q\";rport=1";
        for len in 0..text.len() {
            if let Ok(via) = Via::parse(&text[..len]) {
                assert!(via.params_end as usize <= len);
            }
        }
    }
}
