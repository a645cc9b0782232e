//! From bytes to the index of a message (RFC 3261 §7, §25.1): start line, header lines with folds,
//! what must be there exactly once, numbers. One pass; a fault is noted and the pass goes on, so
//! that a 400 finds its Via, From, To, Call-ID and CSeq. Absent on purpose: values that only some
//! messages need, which [`Message`] reads when asked.

use super::errors::{ParseError, ParseErrorKind};
use super::grammar::{LWS, TOKEN, all, is, number, word};
use super::header::HeaderName;
use super::lines::{after_line, line_end, split_line};
use super::message::{Line, Message, Parsed, Span, bit};
use super::start_line::start_line;
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

struct Pass<'a> {
    bytes: &'a [u8],
    into: &'a mut Parsed,
    /// The first fault.
    fault: Option<ParseError>,
}

impl Pass<'_> {
    #[cold]
    fn blame(&mut self, fault: ParseError) {
        self.fault.get_or_insert(fault);
    }

    /// Reads the start line; returns where the header fields start.
    fn start_line(&mut self) -> usize {
        let bytes = self.bytes;
        let (end, next) = match line_end(bytes, 0, 0) {
            Ok(end) => (end, (end + 2).min(bytes.len())),
            Err(fault) => {
                self.blame(fault);
                (fault.at as usize, after_line(bytes, fault.at as usize))
            }
        };
        let line = &bytes[..end];
        if let Err(fault) = start_line(line, self.into) {
            self.blame(fault);
        }
        next
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
                Err(fault) => {
                    self.blame(fault);
                    return Some(after_line(bytes, fault.at as usize));
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
        let bytes = &self.bytes[..end];
        let first = word(self.bytes, start);
        let Some((name_len, value_start)) = split_line(bytes, start, first) else {
            return self.blame(ParseError::new(ParseErrorKind::HeaderName, start));
        };
        let name_text = &bytes[start..start + name_len];
        let index = self.into.lines.len();
        if index == HEADERS_MAX {
            return self.blame(ParseError::new(ParseErrorKind::TooManyHeaders, start));
        }
        let name = HeaderName::classify_word(first, name_text);
        if name == HeaderName::Other && !all(TOKEN, name_text) {
            return self.blame(ParseError::new(ParseErrorKind::HeaderName, start));
        }
        let value_end = value_start + trimmed_len(&bytes[value_start..]);
        self.into.lines.push(Line {
            span: Span::new(start, next),
            value: Span::new(value_start, value_end),
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
            self.blame(ParseError::new(kind, start));
        }
    }

    /// Notes where the header section ends, at `at`, and the body starts.
    fn sections(&mut self, at: usize) {
        let bytes = self.bytes;
        let mut body = at + 2;
        if !bytes[at..].starts_with(b"\r\n") {
            self.blame(ParseError::new(ParseErrorKind::Unterminated, at));
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
                self.blame(ParseError::new(*kind, at));
            }
        }
    }

    /// CSeq, Max-Forwards, Content-Length and an empty Call-ID.
    fn scalars(&mut self) {
        if let Err(fault) = self.cseq() {
            self.blame(fault);
        }
        let message = Message { bytes: self.bytes, parsed: self.into };
        let faults = [message.max_forwards().err(), message.content_length().err()];
        let nameless = message.line(HeaderName::CallId).filter(|line| line.value.is_empty());
        let nameless = nameless
            .map(|line| ParseError { kind: ParseErrorKind::MissingCallId, at: line.span.start });
        for fault in faults.into_iter().chain([nameless]).flatten() {
            self.blame(fault);
        }
    }

    fn cseq(&mut self) -> Result<(), ParseError> {
        let message = Message { bytes: self.bytes, parsed: self.into };
        let Some(line) = message.line(HeaderName::CSeq) else { return Ok(()) };
        let start = line.value.start as usize;
        let text = line.value.of(self.bytes);
        let fault = ParseError::new(ParseErrorKind::CSeq, start);
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
            return Err(ParseError::new(ParseErrorKind::CSeqMethod, start));
        }
        Ok(())
    }
}

#[inline]
fn trimmed_len(text: &[u8]) -> usize {
    text.iter().rposition(|&byte| !is(LWS, byte)).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &str = "Via: SIP/2.0/UDP h\r\nFrom: <sip:a>\r\nTo: <sip:b>\r\nCall-ID: c\r\n";

    fn kind_of(text: &str) -> Result<(), ParseErrorKind> {
        parse(text.as_bytes(), &mut Parsed::default()).map_err(|fault| fault.kind)
    }

    #[test]
    fn header_lines() {
        use ParseErrorKind::*;
        let quoted_nul = "X: \"a\\\0\" b";
        let cases: &[(&str, Result<(), ParseErrorKind>)] = &[
            ("X:", Ok(())),
            ("X \t: y\r\n\tz\r\n ", Ok(())),
            ("-.!%*_+`'~: y", Ok(())),
            (quoted_nul, Ok(())),
            ("X: a\\\0", Err(Nul)),
            ("X: \"a\\\\\0\"", Err(Nul)),
            ("X: \"a\" \\\0", Err(Nul)),
            ("X: a\0", Err(Nul)),
            ("X: a\rb", Err(BareCr)),
            ("X: a\nb", Err(BareLf)),
            ("X: a\r\r\n y", Err(BareCr)),
            ("no colon", Err(HeaderName)),
            ("no\r\nX: y", Err(HeaderName)),
            (": y", Err(HeaderName)),
            ("X y: z", Err(HeaderName)),
            ("X@: z", Err(HeaderName)),
            ("From: <sip:a>", Err(DuplicateFrom)),
            ("t: <sip:a>", Err(DuplicateTo)),
            ("i: d", Err(DuplicateCallId)),
            ("cSEQ: 1 X", Err(DuplicateCSeq)),
            ("Max-Forwards: 1\r\nMax-Forwards: 1", Err(DuplicateMaxForwards)),
            ("l: 0\r\nContent-Length: 0", Err(DuplicateContentLength)),
            ("Max-Forwards: 255", Ok(())),
            ("Max-Forwards: 256", Err(MaxForwards)),
            ("Max-Forwards: ", Err(MaxForwards)),
            ("l: 4294967296", Err(ContentLength)),
            ("l: five", Err(ContentLength)),
        ];
        for (lines, expected) in cases {
            let text = format!("X sip:a SIP/2.0\r\n{REST}CSeq: 1 X\r\n{lines}\r\n\r\n");
            let mut parsed = Parsed::default();
            let found = parse(text.as_bytes(), &mut parsed).map_err(|fault| fault.kind);
            assert_eq!(found, *expected, "{lines:?}");
            // Whatever the fault, what an answer needs was understood.
            assert_eq!(parsed.present & MANDATORY_BITS, MANDATORY_BITS, "{lines:?}");
            let after = lines.contains('\n') || parsed.view(text.as_bytes()).body().is_empty();
            assert!(after, "{lines:?}");
        }
    }

    #[test]
    fn what_must_be_there() {
        use ParseErrorKind::*;
        let lines = [
            ("Via: SIP/2.0/UDP h\r\n", MissingVia),
            ("From: <sip:a>\r\n", MissingFrom),
            ("To: <sip:b>\r\n", MissingTo),
            ("Call-ID: c\r\n", MissingCallId),
            ("CSeq: 1 X\r\n", MissingCSeq),
        ];
        let whole = format!("X sip:a SIP/2.0\r\n{REST}CSeq: 1 X\r\n\r\n");
        assert_eq!(kind_of(&whole), Ok(()));
        for (line, kind) in lines {
            assert_eq!(kind_of(&whole.replace(line, "")), Err(kind));
        }
        assert_eq!(kind_of(&whole.replace("Call-ID: c", "Call-ID: ")), Err(MissingCallId));
        assert_eq!(kind_of(&whole.replace("\r\n", "\n")), Err(BareLf));
        assert_eq!(kind_of(&whole[..whole.len() - 2]), Err(Unterminated));
    }

    #[test]
    fn cseqs() {
        use ParseErrorKind::*;
        let cases: &[(&str, Result<(), ParseErrorKind>)] = &[
            ("0009 \r\n\t X", Ok(())),
            ("4294967295 X", Ok(())),
            ("4294967296 X", Err(CSeq)),
            ("1", Err(CSeq)),
            ("1X", Err(CSeq)),
            ("X", Err(CSeq)),
            ("1 X Y", Err(CSeq)),
            ("-1 X", Err(CSeq)),
            ("", Err(CSeq)),
            ("1 x", Err(CSeqMethod)),
            ("1 Y", Err(CSeqMethod)),
        ];
        for (cseq, expected) in cases {
            let text = format!("X sip:a SIP/2.0\r\n{REST}CSeq: {cseq}\r\n\r\n");
            assert_eq!(kind_of(&text), *expected, "{cseq:?}");
        }
    }

    #[test]
    fn no_more_header_fields_than_the_limit() {
        let with = |more: usize| {
            let text =
                format!("X sip:a SIP/2.0\r\n{REST}CSeq: 1 X\r\n{}\r\n", "X: y\r\n".repeat(more));
            kind_of(&text)
        };
        assert_eq!(with(HEADERS_MAX - 5), Ok(()));
        assert_eq!(with(HEADERS_MAX - 4), Err(ParseErrorKind::TooManyHeaders));
    }
}
