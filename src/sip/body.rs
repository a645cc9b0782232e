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
