//! From bytes to the index of a message (RFC 3261 §7, §25.1): start line, header lines with folds,
//! what must be there exactly once, numbers. One pass; a fault is noted and the pass goes on, so
//! that a 400 finds its Via, From, To, Call-ID and CSeq. Absent on purpose: values that only some
//! messages need, which [`Message`] reads when asked.

use super::address::has_scheme;
use super::errors::{ParseError, ParseErrorKind};
use super::grammar::{LWS, TOKEN, URI, all, is, number, quoted_end};
use super::header::HeaderName;
use super::message::{Line, Message, Parsed, Span, bit};
use crate::base::limits::HEADERS_MAX;

/// What every message has (RFC 3261 §8.1.1; Max-Forwards is forgiven, RFC 2543 has none).
const MANDATORY: [(HeaderName, ParseErrorKind); 5] = [
    (HeaderName::Via, ParseErrorKind::MissingVia),
    (HeaderName::From, ParseErrorKind::MissingFrom),
    (HeaderName::To, ParseErrorKind::MissingTo),
    (HeaderName::CallId, ParseErrorKind::MissingCallId),
    (HeaderName::CSeq, ParseErrorKind::MissingCSeq),
];

/// What no message has twice.
const SINGLE: [(HeaderName, ParseErrorKind); 6] = [
    (HeaderName::From, ParseErrorKind::DuplicateFrom),
    (HeaderName::To, ParseErrorKind::DuplicateTo),
    (HeaderName::CallId, ParseErrorKind::DuplicateCallId),
    (HeaderName::CSeq, ParseErrorKind::DuplicateCSeq),
    (HeaderName::MaxForwards, ParseErrorKind::DuplicateMaxForwards),
    (HeaderName::ContentLength, ParseErrorKind::DuplicateContentLength),
];

const MANDATORY_BITS: u64 = bits_of(&MANDATORY);
const SINGLE_BITS: u64 = bits_of(&SINGLE);

const fn bits_of(names: &[(HeaderName, ParseErrorKind)]) -> u64 {
    let mut bits = 0;
    let mut at = 0;
    while at < names.len() {
        bits |= bit(names[at].0);
        at += 1;
    }
    bits
}

/// Parses one whole message: header section, and as its body the rest of `bytes` (see
/// [`super::datagram_body`] and [`super::websocket_body`] for the rules of Content-Length). On
/// error `into` holds what was understood, without the lines at fault; the error is the first one.
pub fn parse(bytes: &[u8], into: &mut Parsed) -> Result<(), ParseError> {
    into.clear();
    if u32::try_from(bytes.len()).is_err() {
        return Err(ParseError::new(ParseErrorKind::TooManyHeaders, 0));
    }
    let mut pass = Pass { bytes, into, fault: None };
    let mut at = pass.start_line();
    pass.into.headers_start = at as u32;
    while let Some(next) = pass.header_line(at) {
        at = next;
    }
    pass.sections(at);
    pass.cardinality();
    pass.scalars();
    match pass.fault {
        None => Ok(()),
        Some(fault) => Err(fault),
    }
}

/// Feeds arbitrary bytes to everything that reads a message; nothing may panic.
pub fn fuzz_message(bytes: &[u8]) {
    let mut parsed = Parsed::default();
    let accepted = parse(bytes, &mut parsed).is_ok();
    let message = parsed.view(bytes);
    let checked = message.check().is_ok();
    for header in message.headers() {
        for value in message.values(header.name) {
            let _ = super::Via::parse(value.text);
            if let Ok(address) = super::NameAddr::parse(value.text) {
                let _ = (address.tag(), address.q(), address.expires());
                fuzz_uri(address.uri);
            }
        }
    }
    let _ = (message.max_forwards(), message.expires(), message.content_length());
    let _ = super::datagram_body(&mut parsed.clone(), bytes);
    if accepted && checked {
        assert!(message.cseq().is_ok() && message.top_via().is_ok());
        let parts = super::ResponseParts { status: 400, to_tag: Some(b"t"), ..Default::default() };
        super::response(message, &parts, &mut Vec::new());
    }
}

fn fuzz_uri(text: &[u8]) {
    if let Ok(uri) = super::Uri::parse(text) {
        uri.aor_into(&mut Vec::new());
        assert!(uri.equivalent(&uri));
    }
}

struct Pass<'a> {
    bytes: &'a [u8],
    into: &'a mut Parsed,
    /// The first fault.
    fault: Option<ParseError>,
}

impl Pass<'_> {
    #[cold]
    fn blame(&mut self, kind: ParseErrorKind, at: usize) {
        self.fault.get_or_insert(ParseError::new(kind, at));
    }

    /// Reads the start line; returns where the header fields start.
    fn start_line(&mut self) -> usize {
        let bytes = self.bytes;
        let (end, next) = match line_end(bytes, 0, 0) {
            Ok(end) => (end, (end + 2).min(bytes.len())),
            Err((kind, at)) => {
                self.blame(kind, at);
                (at, after_line(bytes, at))
            }
        };
        let line = &bytes[..end];
        let read = if line.len() > 4 && line[..4].eq_ignore_ascii_case(b"SIP/") {
            self.status_line(line)
        } else {
            self.request_line(line)
        };
        if let Err((kind, at)) = read {
            self.blame(kind, at);
        }
        next
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), (ParseErrorKind, usize)> {
        let first = memchr::memchr(b' ', line).ok_or((ParseErrorKind::StartLine, line.len()))?;
        if !all(TOKEN, &line[..first]) {
            return Err((ParseErrorKind::Method, 0));
        }
        self.into.method = Span::new(0, first);
        let last = memchr::memrchr(b' ', line).unwrap_or(first);
        if last == first {
            return Err((ParseErrorKind::StartLine, line.len()));
        }
        version(&line[last + 1..], last + 1)?;
        let start = first + 1;
        let uri = &line[start..last];
        if let Some(at) = uri.iter().position(|&byte| !is(URI, byte)) {
            return Err((ParseErrorKind::RequestUri, start + at));
        }
        if !has_scheme(uri) {
            return Err((ParseErrorKind::RequestUri, start));
        }
        self.into.target = Span::new(start, last);
        Ok(())
    }

    fn status_line(&mut self, line: &[u8]) -> Result<(), (ParseErrorKind, usize)> {
        // Any status makes it a response, also one that is not understood.
        self.into.status = u16::MAX;
        let space = memchr::memchr(b' ', line).unwrap_or(line.len());
        version(&line[..space], 0)?;
        let rest = line.get(space + 1..).unwrap_or_default();
        let code = &rest[..memchr::memchr(b' ', rest).unwrap_or(rest.len())];
        let status = number(code).filter(|status| code.len() == 3 && (100..700).contains(status));
        let status = status.ok_or((ParseErrorKind::Status, space + 1))?;
        self.into.status = status as u16;
        let reason = (space + 1 + code.len() + 1).min(line.len());
        self.into.target = Span::new(reason, line.len());
        Ok(())
    }

    /// Reads the header field at `start`; returns where the next one starts, `None` when there is
    /// none.
    #[inline]
    fn header_line(&mut self, start: usize) -> Option<usize> {
        let bytes = self.bytes;
        if start >= bytes.len() || bytes[start..].starts_with(b"\r\n") {
            return None;
        }
        let mut from = start;
        let (end, next) = loop {
            match line_end(bytes, start, from) {
                Ok(end) => match bytes.get(end + 2) {
                    Some(b' ' | b'\t') => from = end + 3,
                    _ => break (end, end + 2),
                },
                Err((kind, at)) => {
                    self.blame(kind, at);
                    return Some(after_line(bytes, at));
                }
            }
        };
        self.note_line(start, end, next);
        Some(next)
    }

    /// Puts the header field into the index: name and colon from `start`, value up to `end`, its
    /// CRLF up to `next`.
    #[inline]
    fn note_line(&mut self, start: usize, end: usize, next: usize) {
        let line = &self.bytes[start..end];
        let Some((name_len, value_start)) = split_line(line) else {
            return self.blame(ParseErrorKind::HeaderName, start);
        };
        let index = self.into.lines.len();
        if index == HEADERS_MAX {
            return self.blame(ParseErrorKind::TooManyHeaders, start);
        }
        let name = HeaderName::classify(&line[..name_len]);
        if name == HeaderName::Other && !all(TOKEN, &line[..name_len]) {
            return self.blame(ParseErrorKind::HeaderName, start);
        }
        let value_end = value_start + trimmed_len(&line[value_start..]);
        self.into.lines.push(Line {
            span: Span::new(start, next),
            value: Span::new(start + value_start, start + value_end),
            name_len: name_len as u16,
            name,
        });
        if name == HeaderName::Other {
            return;
        }
        let bit = bit(name);
        if self.into.present & bit == 0 {
            self.into.present |= bit;
            self.into.first[name as usize] = index as u8;
            return;
        }
        self.into.repeated |= bit;
        if bit & SINGLE_BITS != 0 {
            let (_, kind) = SINGLE[SINGLE.iter().position(|(n, _)| *n == name).unwrap_or(0)];
            self.blame(kind, start);
        }
    }

    /// Notes where the header section ends, at `at`, and the body starts.
    fn sections(&mut self, at: usize) {
        let bytes = self.bytes;
        let mut body = at + 2;
        if !bytes[at..].starts_with(b"\r\n") {
            self.blame(ParseErrorKind::Unterminated, at);
            body = bytes.len();
        }
        self.into.headers_end = at as u32;
        self.into.body = Span::new(body, bytes.len());
    }

    fn cardinality(&mut self) {
        let absent = MANDATORY_BITS & !self.into.present;
        if absent != 0 {
            let at = self.into.headers_end as usize;
            for (_, kind) in MANDATORY.iter().filter(|(name, _)| absent & bit(*name) != 0) {
                self.blame(*kind, at);
            }
        }
    }

    /// CSeq, Max-Forwards, Content-Length and an empty Call-ID.
    fn scalars(&mut self) {
        if let Err((kind, at)) = self.cseq() {
            self.blame(kind, at);
        }
        let message = Message { bytes: self.bytes, parsed: self.into };
        let faults = [message.max_forwards().err(), message.content_length().err()];
        let nameless = message.line(HeaderName::CallId).filter(|line| line.value.is_empty());
        let nameless = nameless.map(|line| (ParseErrorKind::MissingCallId, line.span.start));
        for fault in faults.into_iter().flatten() {
            self.blame(fault.kind, fault.at as usize);
        }
        if let Some((kind, at)) = nameless {
            self.blame(kind, at as usize);
        }
    }

    fn cseq(&mut self) -> Result<(), (ParseErrorKind, usize)> {
        let message = Message { bytes: self.bytes, parsed: self.into };
        let Some(line) = message.line(HeaderName::CSeq) else { return Ok(()) };
        let start = line.value.start as usize;
        let text = line.value.of(self.bytes);
        let fault = (ParseErrorKind::CSeq, start);
        let digits = text.iter().position(|byte| !byte.is_ascii_digit()).ok_or(fault)?;
        let number = number(&text[..digits]).and_then(|number| u32::try_from(number).ok());
        let space = text[digits..].iter().position(|&byte| !is(LWS, byte)).ok_or(fault)?;
        let method = &text[digits + space..];
        if space == 0 || !all(TOKEN, method) {
            return Err(fault);
        }
        let end = line.value.end;
        self.into.cseq = number.ok_or(fault)?;
        self.into.cseq_method = Span::new(start + digits + space, end as usize);
        self.into.cseq_known = true;
        if self.into.status != 0 {
            self.into.method = self.into.cseq_method;
        } else if !self.into.method.is_empty() && self.into.method.of(self.bytes) != method {
            return Err((ParseErrorKind::CSeqMethod, start));
        }
        Ok(())
    }
}

/// `SIP/2.0` in any case; the fault tells another version from none.
fn version(text: &[u8], at: usize) -> Result<(), (ParseErrorKind, usize)> {
    if text.eq_ignore_ascii_case(b"SIP/2.0") {
        return Ok(());
    }
    let numbers = text.get(4..).unwrap_or_default();
    let dot = memchr::memchr(b'.', numbers);
    let other = text.len() > 4
        && text[..4].eq_ignore_ascii_case(b"SIP/")
        && dot.is_some_and(|dot| {
            number(&numbers[..dot]).is_some() && number(&numbers[dot + 1..]).is_some()
        });
    Err((if other { ParseErrorKind::Version } else { ParseErrorKind::StartLine }, at))
}

/// Where the line ends that is looked through from `from` and belongs to the header field at
/// `start`: the offset of its CRLF. The fault is a bare CR or LF or a NUL, or that there is no end.
#[inline]
fn line_end(bytes: &[u8], start: usize, from: usize) -> Result<usize, (ParseErrorKind, usize)> {
    let mut pos = from;
    loop {
        let Some(found) = memchr::memchr3(b'\r', b'\n', 0, &bytes[pos..]) else {
            return Err((ParseErrorKind::Unterminated, bytes.len()));
        };
        let at = pos + found;
        match bytes[at] {
            b'\r' if bytes.get(at + 1) == Some(&b'\n') => return Ok(at),
            b'\r' if at + 1 == bytes.len() => return Err((ParseErrorKind::Unterminated, at)),
            b'\r' => return Err((ParseErrorKind::BareCr, at)),
            b'\n' => return Err((ParseErrorKind::BareLf, at)),
            _ if is_quoted_pair(&bytes[start..=at]) => pos = at + 1,
            _ => return Err((ParseErrorKind::Nul, at)),
        }
    }
}

/// Whether the last byte of `line` is the second one of a quoted pair within a quoted string, where
/// alone the grammar has NUL.
#[cold]
fn is_quoted_pair(line: &[u8]) -> bool {
    let last = line.len() - 1;
    if last == 0 || line[last - 1] != b'\\' {
        return false;
    }
    let mut from = 0;
    while let Some(open) = memchr::memchr(b'"', &line[from..last]) {
        match quoted_end(line, from + open, last) {
            Some(end) => from = end,
            None => {
                let inside = &line[from + open + 1..last];
                return inside.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1;
            }
        }
    }
    false
}

/// Where the line after the fault at `at` starts: after the next CRLF that is no fold.
#[cold]
fn after_line(bytes: &[u8], at: usize) -> usize {
    let mut pos = at;
    while let Some(found) = memchr::memchr(b'\n', &bytes[pos..]) {
        let end = pos + found;
        pos = end + 1;
        let folded = matches!(bytes.get(pos), Some(b' ' | b'\t'));
        if end > at && bytes[end - 1] == b'\r' && !folded {
            return pos;
        }
    }
    bytes.len()
}

/// Splits a header line: length of its name, offset of its value. White space may stand before the
/// colon (RFC 3261 §7.3.1 `HCOLON`).
#[inline]
fn split_line(line: &[u8]) -> Option<(usize, usize)> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let mut name_len = colon;
    while name_len > 0 && matches!(line[name_len - 1], b' ' | b'\t') {
        name_len -= 1;
    }
    if name_len == 0 || name_len > usize::from(u16::MAX) {
        return None;
    }
    let rest = &line[colon + 1..];
    let space = rest.iter().position(|&byte| !is(LWS, byte)).unwrap_or(rest.len());
    Some((name_len, colon + 1 + space))
}

#[inline]
fn trimmed_len(text: &[u8]) -> usize {
    text.iter().rposition(|&byte| !is(LWS, byte)).map_or(0, |last| last + 1)
}
