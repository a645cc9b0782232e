//! A parsed message: an index without bytes ([`Parsed`]) and its view over them ([`Message`]) (RFC
//! 3261 §7). Values are read when they are asked for; those that every message needs are in the
//! index.

use std::cell::Cell;

use super::address::NameAddr;
use super::errors::{ParseError, ParseErrorKind};
use super::grammar::number;
use super::header::HeaderName;
use super::method::Method;
use super::noted::NotedAddress;
use super::top_via::TopVia;
use super::values::Values;
use super::via::Via;
use crate::base::limits::HEADERS_MAX;

/// A range of bytes of one buffer.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset after the last byte.
    pub end: u32,
}

impl Span {
    /// `start..end`; both fit, since no message is beyond 4 GiB.
    pub fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    /// What it spans in `bytes`.
    #[inline]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }

    /// In bytes.
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it spans nothing.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// One header field of the index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// From the name to the final CRLF.
    pub span: Span,
    /// Without the white space around it.
    pub value: Span,
    pub name_len: u16,
    pub name: HeaderName,
}

/// The index of one message: start line, header fields, body; no bytes, no lifetime. Reused from
/// message to message, it allocates only when a message has more header fields than any before.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub(super) lines: Vec<Line>,
    /// A bit for each known name that occurs.
    pub(super) present: u64,
    /// A bit for each known name that occurs more than once.
    pub(super) repeated: u64,
    /// The first line of each name in `present`; what stands for the others means nothing.
    pub(super) first: [u8; HeaderName::KNOWN],
    /// 0: a request.
    pub(super) status: u16,
    /// Of the request line, or of the CSeq of a response.
    pub(super) method: Span,
    /// Request-URI or reason phrase.
    pub(super) target: Span,
    /// Whether `cseq` and `cseq_method` were understood.
    pub(super) cseq_known: bool,
    pub(super) cseq: u32,
    pub(super) cseq_method: Span,
    pub(super) headers_start: u32,
    pub(super) headers_end: u32,
    pub(super) body: Span,
    /// Where the parts of the topmost Via are, once it was looked at.
    pub(super) top: Cell<TopVia>,
    from: NotedAddress,
    to: NotedAddress,
}

const _: () = {
    assert!(HEADERS_MAX <= 256, "an index of a line is one byte");
    assert!(size_of::<Parsed>() <= 232);
};

impl Default for Parsed {
    fn default() -> Parsed {
        Parsed {
            lines: Vec::new(),
            present: 0,
            repeated: 0,
            first: [0; HeaderName::KNOWN],
            status: 0,
            method: Span::default(),
            target: Span::default(),
            cseq_known: false,
            cseq: 0,
            cseq_method: Span::default(),
            headers_start: 0,
            headers_end: 0,
            body: Span::default(),
            top: Cell::default(),
            from: NotedAddress::default(),
            to: NotedAddress::default(),
        }
    }
}

impl Parsed {
    /// Joins the index with the bytes that it was made from.
    #[inline]
    pub fn view<'a>(&'a self, bytes: &'a [u8]) -> Message<'a> {
        Message { bytes: &bytes[..self.body.end as usize], parsed: self }
    }

    /// From here on it is the index of the same message without its body; where that began.
    pub fn leave_body_out(&mut self) -> usize {
        self.body.end = self.body.start;
        self.body.start as usize
    }

    /// Whether it has storage that the next message can use.
    pub fn has_storage(&self) -> bool {
        self.lines.capacity() > 0
    }

    /// Whether there may be more than one line of that name.
    pub(super) fn may_repeat(&self, name: HeaderName) -> bool {
        name == HeaderName::Other || self.repeated & bit(name) != 0
    }

    pub(super) fn clear(&mut self) {
        self.lines.clear();
        self.present = 0;
        self.repeated = 0;
        self.status = 0;
        self.method = Span::default();
        self.target = Span::default();
        self.cseq_known = false;
        self.headers_start = 0;
        self.headers_end = 0;
        self.body = Span::default();
        self.top.set(TopVia::default());
        self.from.clear();
        self.to.clear();
    }
}

/// One message: bytes and their index.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) parsed: &'a Parsed,
}

/// What tells one hop's transactions from another's (RFC 3261 §17.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PreviousHop<'a> {
    /// Host of the sent-by; an IPv6 address has its brackets.
    pub host: &'a [u8],
    /// Port of the sent-by.
    pub port: Option<u16>,
    /// The branch parameter; empty when there is none.
    pub branch: &'a [u8],
}

/// One header field.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// Which it is.
    pub name: HeaderName,
    /// The name as written.
    pub raw_name: &'a [u8],
    /// The value without the white space around it; folds within are as written.
    pub value: &'a [u8],
    /// From the name to the final CRLF, folded lines included.
    pub line: Span,
    /// Where `value` is.
    pub value_span: Span,
}

/// The value of a CSeq header field (RFC 3261 §20.16).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CSeq<'a> {
    /// The sequence number.
    pub number: u32,
    /// The method.
    pub method: Method<'a>,
}

impl<'a> Message<'a> {
    /// The whole message, up to the end of its body.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Whether it has a request line.
    pub fn is_request(self) -> bool {
        self.parsed.status == 0
    }

    /// Of the request line; of a response that of the CSeq.
    #[inline]
    pub fn method(self) -> Method<'a> {
        Method::parse(self.parsed.method.of(self.bytes))
    }

    /// The Request-URI; empty for responses.
    pub fn uri(self) -> &'a [u8] {
        self.uri_span().of(self.bytes)
    }

    /// Where the Request-URI is.
    pub fn uri_span(self) -> Span {
        if self.is_request() { self.parsed.target } else { Span::default() }
    }

    /// The status code; 0 for requests.
    pub fn status(self) -> u16 {
        self.parsed.status
    }

    /// The reason phrase; empty for requests.
    pub fn reason(self) -> &'a [u8] {
        if self.is_request() { b"" } else { self.parsed.target.of(self.bytes) }
    }

    /// The body.
    pub fn body(self) -> &'a [u8] {
        self.parsed.body.of(self.bytes)
    }

    /// Where the body is.
    pub fn body_span(self) -> Span {
        self.parsed.body
    }

    /// Offset of the empty line: where a header field can be appended.
    pub fn headers_end(self) -> u32 {
        self.parsed.headers_end
    }

    /// Offset after the start line: where a header field can be put in front.
    pub fn first_header_start(self) -> u32 {
        self.parsed.headers_start
    }

    /// All header fields in their order.
    pub fn headers(self) -> impl Iterator<Item = Header<'a>> + Clone {
        self.parsed.lines.iter().map(move |line| self.header_of(line))
    }

    /// The first header field of that name.
    #[inline]
    pub fn header(self, name: HeaderName) -> Option<Header<'a>> {
        self.line(name).map(|line| self.header_of(line))
    }

    /// How many header fields there are of that name, whatever the number of values.
    pub fn count(self, name: HeaderName) -> usize {
        if name != HeaderName::Other && self.parsed.repeated & bit(name) == 0 {
            return usize::from(self.parsed.present & bit(name) != 0);
        }
        self.parsed.lines.iter().filter(|line| line.name == name).count()
    }

    /// The comma-separated values of all header fields of that name, quotes and angle brackets
    /// respected; at most `VALUES_MAX`. Not for names whose commas mean something else (Date,
    /// Authorization …).
    #[inline]
    pub fn values(self, name: HeaderName) -> Values<'a> {
        Values::new(self, name)
    }

    /// Whether there is more than one value of that name.
    pub fn has_many(self, name: HeaderName) -> bool {
        if name != HeaderName::Other && self.parsed.repeated & bit(name) != 0 {
            let is_filled = |line: &&Line| line.name == name && !line.value.is_empty();
            let from = usize::from(self.parsed.first[name as usize]);
            if self.parsed.lines[from..].iter().filter(is_filled).nth(1).is_some() {
                return true;
            }
        }
        let may_have = match self.line(name) {
            None => false,
            Some(_) if name == HeaderName::Other || self.parsed.repeated & bit(name) != 0 => true,
            Some(line) => memchr::memchr(b',', line.value.of(self.bytes)).is_some(),
        };
        may_have && self.values(name).nth(1).is_some()
    }

    /// The Call-ID.
    pub fn call_id(self) -> Option<&'a [u8]> {
        self.line(HeaderName::CallId).map(|line| line.value.of(self.bytes))
    }

    /// The CSeq.
    pub fn cseq(self) -> Result<CSeq<'a>, ParseError> {
        if !self.parsed.cseq_known {
            return Err(match self.line(HeaderName::CSeq) {
                Some(line) => ParseError { kind: ParseErrorKind::CSeq, at: line.value.start },
                None => self.missing(ParseErrorKind::MissingCSeq),
            });
        }
        let method = Method::parse(self.parsed.cseq_method.of(self.bytes));
        Ok(CSeq { number: self.parsed.cseq, method })
    }

    /// The branch of the topmost Via, if that can be read and has one.
    pub fn top_branch(self) -> Option<&'a [u8]> {
        let top = self.parsed.top.get();
        if top.is_known() { top.branch(self.bytes) } else { self.top_via().ok()?.branch }
    }

    /// Who sent it here, if its topmost Via can be read.
    pub fn previous_hop(self) -> Option<PreviousHop<'a>> {
        let top = self.parsed.top.get();
        let ((host, port), branch) = if top.is_known() {
            (top.sent_by(self.bytes), top.branch(self.bytes))
        } else {
            let via = self.top_via().ok()?;
            ((via.sent_by_host, via.sent_by_port), via.branch)
        };
        Some(PreviousHop { host, port, branch: branch.unwrap_or_default() })
    }

    /// Notes what [`Message::top_via`] tells from then on without reading it again.
    pub(super) fn note_top(self, via: &Via<'a>) {
        self.parsed.top.set(TopVia::of(via, self.bytes, self.is_request()));
    }

    /// The topmost Via value.
    pub fn top_via(self) -> Result<Via<'a>, ParseError> {
        if let Some(via) = self.parsed.top.get().read(self.bytes) {
            return Ok(via);
        }
        match self.line(HeaderName::Via) {
            Some(line) if !line.value.is_empty() => Via::first_at(self.bytes, line.value),
            // An empty field has no value: the next one may have.
            _ => match self.values(HeaderName::Via).next() {
                Some(value) => Via::parse_at(self.bytes, value.span),
                None => Err(self.missing(ParseErrorKind::MissingVia)),
            },
        }
    }

    /// The From.
    pub fn from(self) -> Result<NameAddr<'a>, ParseError> {
        self.name_addr(&self.parsed.from, HeaderName::From, ParseErrorKind::MissingFrom)
    }

    /// The To.
    pub fn to(self) -> Result<NameAddr<'a>, ParseError> {
        self.name_addr(&self.parsed.to, HeaderName::To, ParseErrorKind::MissingTo)
    }

    /// The Max-Forwards (RFC 3261 §20.22), `None` when absent.
    pub fn max_forwards(self) -> Result<Option<u8>, ParseError> {
        self.number(HeaderName::MaxForwards, ParseErrorKind::MaxForwards, u64::from(u8::MAX))
            .map(|found| found.map(|value| value as u8))
    }

    /// The Expires header field in seconds (RFC 3261 §20.19); what is beyond 32 bits is the largest
    /// number.
    pub fn expires(self) -> Result<Option<u32>, ParseError> {
        self.number(HeaderName::Expires, ParseErrorKind::Expires, u64::MAX)
            .map(|found| found.map(|value| u32::try_from(value).unwrap_or(u32::MAX)))
    }

    /// The Content-Length in bytes, `None` when absent. More than one is an error.
    pub fn content_length(self) -> Result<Option<u32>, ParseError> {
        if self.parsed.repeated & bit(HeaderName::ContentLength) != 0 {
            let kind = ParseErrorKind::DuplicateContentLength;
            let at = self.line(HeaderName::ContentLength).map_or(0, |line| line.span.start);
            return Err(ParseError { kind, at });
        }
        let kind = ParseErrorKind::ContentLength;
        self.number(HeaderName::ContentLength, kind, u64::from(u32::MAX))
            .map(|found| found.map(|value| value as u32))
    }

    fn number(
        self,
        name: HeaderName,
        kind: ParseErrorKind,
        max: u64,
    ) -> Result<Option<u64>, ParseError> {
        let Some(line) = self.line(name) else { return Ok(None) };
        match number(line.value.of(self.bytes)) {
            Some(value) if value <= max => Ok(Some(value)),
            _ => Err(ParseError { kind, at: line.value.start }),
        }
    }

    #[inline]
    pub(super) fn line(self, name: HeaderName) -> Option<&'a Line> {
        if name == HeaderName::Other {
            return self.parsed.lines.iter().find(|line| line.name == name);
        }
        if self.parsed.present & bit(name) == 0 {
            return None;
        }
        self.parsed.lines.get(usize::from(self.parsed.first[name as usize]))
    }

    fn header_of(self, line: &Line) -> Header<'a> {
        let start = line.span.start as usize;
        Header {
            name: line.name,
            raw_name: &self.bytes[start..start + usize::from(line.name_len)],
            value: line.value.of(self.bytes),
            line: line.span,
            value_span: line.value,
        }
    }

    pub(super) fn missing(self, kind: ParseErrorKind) -> ParseError {
        ParseError { kind, at: self.parsed.headers_end }
    }
}

/// The bit of a known name in [`Parsed::present`] and [`Parsed::repeated`].
#[inline(always)]
pub(super) const fn bit(name: HeaderName) -> u64 {
    1 << (name as u8 & 63)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const REQUEST: &[u8] = b"REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/TCP h\r\n\
        X-Custom_1.!~ : a, b\r\nf: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\ni: id@h\r\n\
        cseq: 4294967295 REGISTER\r\nm: <sip:c>\r\nContact: <sip:d>\r\n\
        Expires: 99999999999\r\n\r\nbody";

    #[test]
    fn a_request_by_parts() {
        let mut parsed = Parsed::default();
        parse(REQUEST, &mut parsed).unwrap();
        let message = parsed.view(REQUEST);
        assert!(message.is_request() && message.bytes() == REQUEST);
        assert_eq!((message.method(), message.uri()), (Method::Register, &b"sip:example.com"[..]));
        assert_eq!((message.status(), message.reason()), (0, &b""[..]));
        assert_eq!(message.first_header_start(), 34);
        assert_eq!(&REQUEST[message.headers_end() as usize..], b"\r\nbody");
        assert_eq!((message.body(), message.call_id()), (&b"body"[..], Some(&b"id@h"[..])));
        assert_eq!(message.cseq(), Ok(CSeq { number: u32::MAX, method: Method::Register }));
        assert_eq!((message.max_forwards(), message.content_length()), (Ok(None), Ok(None)));
        assert_eq!(message.expires(), Ok(Some(u32::MAX)));
        let counts = [HeaderName::Contact, HeaderName::Via, HeaderName::Route, HeaderName::Other];
        assert_eq!(counts.map(|name| message.count(name)), [2, 1, 0, 1]);
        let custom = message.header(HeaderName::Other).unwrap();
        assert_eq!((custom.raw_name, custom.value), (&b"X-Custom_1.!~"[..], &b"a, b"[..]));
        assert_eq!(custom.line.of(REQUEST), b"X-Custom_1.!~ : a, b\r\n");
        assert_eq!(message.headers().count(), 9);
        let joined: Vec<u8> =
            message.headers().flat_map(|header| header.line.of(REQUEST).to_vec()).collect();
        assert_eq!(joined, &REQUEST[34..message.headers_end() as usize]);
        assert_eq!(message.from().unwrap().uri_span.of(REQUEST), b"sip:a@b");
        assert_eq!(message.top_via().unwrap().span.of(REQUEST), b"SIP/2.0/TCP h");
    }

    #[test]
    fn a_response_by_parts() {
        let bytes = b"sip/2.0 404 Not  Here\r\nv: SIP/2.0/TCP h\r\nf: <sip:a>\r\nt: <sip:b>\r\n\
            i: c\r\nCSeq: 1 FOO\r\n\r\n";
        let mut parsed = Parsed::default();
        parse(bytes, &mut parsed).unwrap();
        let message = parsed.view(bytes);
        assert!(!message.is_request() && message.uri().is_empty());
        assert_eq!((message.status(), message.reason()), (404, &b"Not  Here"[..]));
        assert_eq!(message.method(), Method::Other(b"FOO"));
    }

    #[test]
    fn many_values_are_told_from_one() {
        for (lines, many) in [
            ("", false),
            ("m: <sip:c>\r\n", false),
            ("m: \"a, b\" <sip:c,d>\r\n", false),
            ("m: <sip:c>, <sip:d>\r\n", true),
            ("m: <sip:c>\r\nm:\r\n", false),
            ("m:\r\nm: <sip:c>\r\n", false),
            ("m:\r\nm: <sip:c>, <sip:d>\r\n", true),
            ("m: <sip:c>\r\nContact: <sip:d>\r\n", true),
        ] {
            let text = format!("SIP/2.0 200 OK\r\nv: SIP/2.0/TCP h\r\n{lines}\r\n");
            let mut parsed = Parsed::default();
            assert!(parse(text.as_bytes(), &mut parsed).is_err());
            assert_eq!(parsed.view(text.as_bytes()).has_many(HeaderName::Contact), many, "{lines}");
        }
    }

    #[test]
    fn the_branch_is_that_of_the_message_at_hand() {
        let mut parsed = Parsed::default();
        for (via, branch) in [
            ("SIP/2.0/TCP h;rport;branch=z9hG4bK1;x", Some(&b"z9hG4bK1"[..])),
            ("SIP/2.0/TCP h;branch=\"q\", SIP/2.0/TCP i;branch=2", Some(b"q")),
            ("SIP/2.0/TCP h", None),
            ("SIP/2.0/TCP h;branch=", Some(b"")),
        ] {
            let text = format!(
                "OPTIONS sip:a SIP/2.0\r\nv: {via}\r\nf: <sip:a>\r\nt: <sip:b>\r\n\
                i: c\r\nCSeq: 1 OPTIONS\r\n\r\n"
            );
            parse(text.as_bytes(), &mut parsed).unwrap();
            let message = parsed.view(text.as_bytes());
            assert_eq!(message.top_branch(), branch, "{via}");
            assert_eq!(message.check(), Ok(()));
            assert_eq!(message.top_branch(), branch, "{via}");
        }
    }

    #[test]
    fn the_topmost_via_is_the_first_value_of_all() {
        for vias in [
            "v: SIP/2.0/TCP h;branch=1\r\n",
            "v: SIP/2.0/TCP h;branch=1 ,\r\n SIP/2.0/TCP i;branch=2\r\n",
            "v: SIP/2.0/TCP h:5;x=\"a,\\\",b\";branch=1, SIP/2.0/UDP i\r\n",
            "v: SIP/2.0/TCP h;x=\"a, SIP/2.0/TCP i\r\n",
            "v: SIP/2.0/TCP h;x=<a,b>, SIP/2.0/TCP i\r\n",
            "v: SIP/2.0/TCP h \"a,b\", SIP/2.0/TCP i\r\n",
            "v: , SIP/2.0/TCP i;branch=2\r\n",
            "v:\r\nVia: SIP/2.0/TCP i;branch=2, SIP/2.0/TCP j\r\n",
            "v: SIP/2.0/TCP h,\r\n",
            "v: SIP/2.0/TCP [2001:db8::1]:5061;branch=1;rport ;received=192.0.2.1 , x\r\n",
            "v:\r\n",
        ] {
            let text = format!(
                "OPTIONS sip:a SIP/2.0\r\n{vias}f: <sip:a>\r\nt: <sip:b>\r\n\
                i: c\r\nCSeq: 1 OPTIONS\r\n\r\n"
            );
            let mut parsed = Parsed::default();
            parse(text.as_bytes(), &mut parsed).unwrap();
            let message = parsed.view(text.as_bytes());
            let first = message.values(HeaderName::Via).next();
            let expected = first.map(|it| Via::parse_at(text.as_bytes(), it.span));
            assert_eq!(message.top_via().ok(), expected.and_then(Result::ok), "{vias}");
            let hop = message.top_via().ok().map(|via| PreviousHop {
                host: via.sent_by_host,
                port: via.sent_by_port,
                branch: via.branch.unwrap_or_default(),
            });
            assert_eq!(message.previous_hop(), hop, "{vias}");
            assert_eq!(message.check().is_ok(), hop.is_some(), "{vias}");
            assert_eq!(message.previous_hop(), hop, "{vias}");
        }
    }

    #[test]
    fn an_index_is_reused_without_leftovers() {
        let mut parsed = Parsed::default();
        parse(REQUEST, &mut parsed).unwrap();
        let capacity = parsed.lines.capacity();
        let other = b"SIP/2.0 200 OK\r\nv: SIP/2.0/TCP h\r\nf: <sip:a>\r\nt: <sip:b>\r\ni: c\r\n\
            CSeq: 1 ACK\r\n\r\n";
        parse(other, &mut parsed).unwrap();
        let message = parsed.view(other);
        assert_eq!(message.count(HeaderName::Contact), 0);
        assert!(message.header(HeaderName::Expires).is_none() && message.body().is_empty());
        assert_eq!(parsed.lines.capacity(), capacity);
        assert!(parse(b"", &mut parsed).is_err());
        assert!(parsed.view(b"").headers().next().is_none());
    }
}
