//! Where a body ends when the transport keeps messages apart (RFC 3261 §18.3, RFC 7118 §5), and
//! what is SIP at all.

use super::errors::{ParseError, ParseErrorKind};
use super::header::HeaderName;
use super::message::Parsed;

/// The rule of datagrams (RFC 3261 §18.3): a Content-Length below what came cuts the body (the rest
/// is discarded), above it is an error, absent it takes the rest. `bytes` is what `parsed` was made
/// from.
pub fn datagram_body(parsed: &mut Parsed, bytes: &[u8]) -> Result<(), ParseError> {
    let Some(length) = parsed.view(bytes).content_length()? else { return Ok(()) };
    if length as usize > parsed.body.len() {
        return Err(at_length(parsed, bytes, ParseErrorKind::BodyShort));
    }
    parsed.body.end = parsed.body.start + length;
    Ok(())
}

/// The rule of WebSocket messages (RFC 7118 §5): a Content-Length must be that of the body; absent
/// is fine.
pub fn websocket_body(parsed: &Parsed, bytes: &[u8]) -> Result<(), ParseError> {
    match parsed.view(bytes).content_length()? {
        Some(length) if length as usize != parsed.body.len() => {
            Err(at_length(parsed, bytes, ParseErrorKind::BodyLength))
        }
        _ => Ok(()),
    }
}

fn at_length(parsed: &Parsed, bytes: &[u8], kind: ParseErrorKind) -> ParseError {
    let header = parsed.view(bytes).header(HeaderName::ContentLength);
    ParseError { kind, at: header.map_or(0, |header| header.value_span.start) }
}

/// Whether `bytes` start like a SIP message: a first line that begins with `SIP/`, or that has
/// `SIP/` and a version at its end, of whatever number (another one is answered 505). What does not
/// is dropped without an answer.
pub fn looks_like_sip(bytes: &[u8]) -> bool {
    let end = memchr::memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len());
    let line = bytes[..end].trim_ascii_end();
    let starts = |text: &[u8]| text.len() > 4 && text[..4].eq_ignore_ascii_case(b"SIP/");
    if starts(line) {
        return true;
    }
    let last = memchr::memrchr(b' ', line).map_or(line, |space| &line[space + 1..]);
    starts(last) && last[4].is_ascii_digit() && last.len() < line.len()
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn message(length: &str) -> Vec<u8> {
        let head = "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nf: <sip:a>\r\nt: <sip:b>\r\n\
                    i: c\r\nCSeq: 1 OPTIONS\r\n";
        format!("{head}{length}\r\nbody").into_bytes()
    }

    #[test]
    fn content_length_against_what_came() {
        use ParseErrorKind::{BodyLength, BodyShort};
        type Datagram = Result<&'static [u8], ParseErrorKind>;
        type WebSocket = Result<(), ParseErrorKind>;
        let cases: &[(&str, Datagram, WebSocket)] = &[
            ("", Ok(b"body"), Ok(())),
            ("l: 4\r\n", Ok(b"body"), Ok(())),
            ("l: 2\r\n", Ok(b"bo"), Err(BodyLength)),
            ("l: 0\r\n", Ok(b""), Err(BodyLength)),
            ("l: 5\r\n", Err(BodyShort), Err(BodyLength)),
            ("l: 4294967295\r\n", Err(BodyShort), Err(BodyLength)),
        ];
        for (length, datagram, web_socket) in cases {
            let bytes = message(length);
            let mut parsed = Parsed::default();
            parse(&bytes, &mut parsed).unwrap();
            let found = websocket_body(&parsed, &bytes).map_err(|fault| fault.kind);
            assert_eq!(found, *web_socket, "{length}");
            let found = datagram_body(&mut parsed, &bytes).map_err(|fault| fault.kind);
            assert_eq!(found.map(|()| parsed.view(&bytes).body()), *datagram, "{length}");
        }
    }

    #[test]
    fn what_is_sip() {
        let cases: &[(&[u8], bool)] = &[
            (b"SIP/2.0 200 OK\r\n", true),
            (b"sip/7.0 200 OK", true),
            (b"INVITE sip:a SIP/2.0\r\n", true),
            (b"INVITE sip:a SIP/7.0\n", true),
            (b"INVITE sip:a SIP/2.0  \r\n", true),
            (b"INVITE sip:a SIP/", false),
            (b"GET / HTTP/1.1\r\n\r\n", false),
            (b"\r\n\r\n", false),
            (b"", false),
            (b"\0\x01\0\0", false),
            (b"x\r\nINVITE sip:a SIP/2.0\r\n", false),
            (b"\x16\x03\x01", false),
        ];
        for (bytes, expected) in cases {
            assert_eq!(looks_like_sip(bytes), *expected, "{bytes:?}");
        }
    }
}
