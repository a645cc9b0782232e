//! The first line of a message (RFC 3261 §7.1, §7.2, §25.1). One space is one space: what is
//! liberal here would be ambiguous for the next hop.

use super::address::has_scheme;
use super::errors::{ParseError, ParseErrorKind};
use super::grammar::{TOKEN, URI, all, number, run};
use super::message::{Parsed, Span};

/// Reads the start line, which is without its CRLF; what was understood before a fault is kept.
pub(super) fn start_line(line: &[u8], into: &mut Parsed) -> Result<(), ParseError> {
    if line.len() > 4 && line[..4].eq_ignore_ascii_case(b"SIP/") {
        status_line(line, into)
    } else {
        request_line(line, into)
    }
}

fn request_line(line: &[u8], into: &mut Parsed) -> Result<(), ParseError> {
    let first =
        memchr::memchr(b' ', line).ok_or(ParseError::new(ParseErrorKind::StartLine, line.len()))?;
    if !all(TOKEN, &line[..first]) {
        return Err(ParseError::new(ParseErrorKind::Method, 0));
    }
    into.method = Span::new(0, first);
    let last = memchr::memrchr(b' ', line).unwrap_or(first);
    if last == first {
        return Err(ParseError::new(ParseErrorKind::StartLine, line.len()));
    }
    version(&line[last + 1..], last + 1)?;
    let start = first + 1;
    let uri = &line[start..last];
    let good = run(URI, uri);
    if good < uri.len() {
        return Err(ParseError::new(ParseErrorKind::RequestUri, start + good));
    }
    if !has_scheme(uri) {
        return Err(ParseError::new(ParseErrorKind::RequestUri, start));
    }
    into.target = Span::new(start, last);
    Ok(())
}

fn status_line(line: &[u8], into: &mut Parsed) -> Result<(), ParseError> {
    // Any status makes it a response, also one that is not understood.
    into.status = u16::MAX;
    let space = memchr::memchr(b' ', line).unwrap_or(line.len());
    version(&line[..space], 0)?;
    let rest = line.get(space + 1..).unwrap_or_default();
    let code = &rest[..memchr::memchr(b' ', rest).unwrap_or(rest.len())];
    let status = number(code).filter(|status| code.len() == 3 && (100..700).contains(status));
    let status = status.ok_or(ParseError::new(ParseErrorKind::Status, space + 1))?;
    into.status = status as u16;
    let reason = (space + 1 + code.len() + 1).min(line.len());
    into.target = Span::new(reason, line.len());
    Ok(())
}

/// `SIP/2.0` in any case; the fault tells another version from none.
fn version(text: &[u8], at: usize) -> Result<(), ParseError> {
    if text == b"SIP/2.0" || text.eq_ignore_ascii_case(b"SIP/2.0") {
        return Ok(());
    }
    let numbers = text.get(4..).unwrap_or_default();
    let dot = memchr::memchr(b'.', numbers);
    let other = text.len() > 4
        && text[..4].eq_ignore_ascii_case(b"SIP/")
        && dot.is_some_and(|dot| {
            number(&numbers[..dot]).is_some() && number(&numbers[dot + 1..]).is_some()
        });
    let kind = if other { ParseErrorKind::Version } else { ParseErrorKind::StartLine };
    Err(ParseError::new(kind, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_lines() {
        use ParseErrorKind::*;
        let cases: &[(&str, Result<(), ParseErrorKind>)] = &[
            ("X sip:a SIP/2.0", Ok(())),
            ("X sip:a sip/2.0", Ok(())),
            ("X tel:+1 SIP/2.0", Ok(())),
            ("SIP/2.0 200 OK", Ok(())),
            ("SIP/2.0 200 ", Ok(())),
            ("SIP/2.0 200", Ok(())),
            ("SIP/2.0 699 \u{e9}\t;", Ok(())),
            ("SIP/2.0  200 OK", Err(Status)),
            ("SIP/2.0 20 OK", Err(Status)),
            ("SIP/2.0 099 OK", Err(Status)),
            ("SIP/2.0 700 OK", Err(Status)),
            ("SIP/3.0 200 OK", Err(Version)),
            ("SIP/2 200 OK", Err(StartLine)),
            ("X sip:a SIP/2.10", Err(Version)),
            ("X sip:a HTTP/1.1", Err(StartLine)),
            ("X sip:a SIP/2.0 ", Err(StartLine)),
            ("X sip:a", Err(StartLine)),
            ("X", Err(StartLine)),
            (" X sip:a SIP/2.0", Err(Method)),
            ("X@ sip:a SIP/2.0", Err(Method)),
            ("X  sip:a SIP/2.0", Err(RequestUri)),
            ("X a SIP/2.0", Err(RequestUri)),
            ("X sip:a b SIP/2.0", Err(RequestUri)),
        ];
        for (line, expected) in cases {
            let read = start_line(line.as_bytes(), &mut Parsed::default());
            assert_eq!(read.map_err(|fault| fault.kind), *expected, "{line:?}");
        }
    }
}
