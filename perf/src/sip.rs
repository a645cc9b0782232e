//! Of the messages that arrive only as much as the load checks and answers (RFC 3261 §7): one pass
//! over the header lines, and nothing is copied. Absent: compact names, folded lines and several
//! values on a line, which no server makes of what the load sends.

use anyhow::{Result, ensure};
use memchr::{memchr, memmem};

/// Bytes of a line's end.
pub const CRLF: usize = 2;

/// Longest message that is waited for.
const MESSAGE_MAX: usize = 128 * 1024;

/// What the load looks at in a message; what the message lacks is empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head<'a> {
    /// Request line or status line.
    pub start: &'a [u8],
    /// Status of a response; 0: a request.
    pub status: u16,
    /// The topmost Via.
    pub via: &'a [u8],
    /// Number of Vias.
    pub vias: usize,
    /// To.
    pub to: &'a [u8],
    /// Call-ID.
    pub call_id: &'a [u8],
    /// CSeq.
    pub cseq: &'a [u8],
    /// The first Contact.
    pub contact: &'a [u8],
    /// The last WWW-Authenticate, as JsSIP and SIP.js read it.
    pub challenge: &'a [u8],
    /// What follows the header section.
    pub body: &'a [u8],
}

impl<'a> Head<'a> {
    /// Reads a whole message.
    pub fn read(message: &'a [u8]) -> Option<Head<'a>> {
        let end = memchr(b'\r', message)?;
        let mut head = Head { start: &message[..end], ..Head::default() };
        if let Some(rest) = head.start.strip_prefix(b"SIP/2.0 ") {
            head.status = decimal(rest.get(..3)?)?.try_into().ok()?;
        }
        let mut lines = Lines { rest: message.get(end + CRLF..)? };
        for (name, value) in lines.by_ref() {
            let slot = match name {
                b"Via" => {
                    head.vias += 1;
                    if head.vias > 1 {
                        continue;
                    }
                    &mut head.via
                }
                b"To" => &mut head.to,
                b"Call-ID" => &mut head.call_id,
                b"CSeq" => &mut head.cseq,
                b"Contact" if head.contact.is_empty() => &mut head.contact,
                b"WWW-Authenticate" => &mut head.challenge,
                _ => continue,
            };
            *slot = value;
        }
        head.body = lines.rest.strip_prefix(b"\r\n")?;
        Some(head)
    }

    /// The method that CSeq names.
    pub fn method(&self) -> &'a [u8] {
        let space = memchr(b' ', self.cseq).map_or(self.cseq.len(), |at| at + 1);
        &self.cseq[space..]
    }

    /// The number of the user that the Request-URI names.
    pub fn target(&self) -> Option<u32> {
        let at = memchr(b':', self.start)?;
        number(self.start.get(at + 1..)?)
    }
}

/// The header lines of a message, name and value.
pub struct Lines<'a> {
    rest: &'a [u8],
}

/// The header lines of a whole message.
pub fn lines(message: &[u8]) -> Lines<'_> {
    let start = memchr(b'\n', message).map_or(message.len(), |at| at + 1);
    Lines { rest: &message[start..] }
}

impl<'a> Iterator for Lines<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let end = memchr(b'\r', self.rest)?;
        let line = &self.rest[..end];
        let colon = memchr(b':', line)?;
        self.rest = self.rest.get(end + CRLF..)?;
        Some((line[..colon].trim_ascii_end(), line[colon + 1..].trim_ascii_start()))
    }
}

/// The number of a user: `u` and seven digits.
pub fn number(user: &[u8]) -> Option<u32> {
    decimal(user.strip_prefix(b"u")?.get(..7)?)
}

fn decimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |sum, digit| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u32::from(digit - b'0')),
        _ => None,
    })
}

/// A parameter's value, quotes taken off.
pub fn parameter<'a>(value: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut from = 0;
    while let Some(at) = memmem::find(&value[from..], name.as_bytes()).map(|at| at + from) {
        let rest = &value[at + name.len()..];
        let is_whole = at == 0 || !value[at - 1].is_ascii_alphanumeric();
        match rest {
            [b'=', b'"', rest @ ..] if is_whole => return Some(&rest[..memchr(b'"', rest)?]),
            [b'=', rest @ ..] if is_whole => {
                let end = rest.iter().position(|byte| b",; ".contains(byte));
                return Some(&rest[..end.unwrap_or(rest.len())]);
            }
            _ => from = at + name.len(),
        }
    }
    None
}

/// The URI between the angle brackets of a Contact or a Record-Route.
pub fn uri(value: &[u8]) -> Option<&[u8]> {
    let start = memchr(b'<', value)? + 1;
    let length = memchr(b'>', &value[start..])?;
    Some(&value[start..start + length])
}

/// Writes the response to a request (RFC 3261 §8.2.6): `status` with its phrase, the To tag `tag`
/// where the request has none, `more` whole header lines, no body.
pub fn write_response(request: &[u8], status: &str, tag: &str, more: &[u8], out: &mut Vec<u8>) {
    out.clear();
    for part in [b"SIP/2.0 ", status.as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
    for (name, value) in lines(request) {
        if !matches!(name, b"Via" | b"From" | b"To" | b"Call-ID" | b"CSeq" | b"Record-Route") {
            continue;
        }
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        if name == b"To" && memmem::find(value, b";tag=").is_none() {
            out.extend_from_slice(b";tag=");
            out.extend_from_slice(tag.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(more);
}

/// Length of the message, or of the line of a keep-alive, at the front of a stream, once it is
/// there whole (RFC 3261 §18.3).
pub fn message_length(bytes: &[u8]) -> Result<Option<usize>> {
    if bytes.starts_with(b"\r\n") {
        return Ok(Some(CRLF));
    }
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        ensure!(bytes.len() <= MESSAGE_MAX, "a message does not end");
        return Ok(None);
    };
    let header = &bytes[..end + CRLF];
    let value = lines(header).find(|(name, _)| name.eq_ignore_ascii_case(b"Content-Length"));
    let body = value.and_then(|(_, value)| decimal(value.trim_ascii_end()));
    let Some(body) = body.map(|body| body as usize) else {
        anyhow::bail!("a message on a stream without Content-Length");
    };
    ensure!(body <= MESSAGE_MAX, "a body of {body} bytes");
    let length = end + 2 * CRLF + body;
    Ok((bytes.len() >= length).then_some(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"MESSAGE sip:u0000456@example.com SIP/2.0\r\n\
        Via: SIP/2.0/WSS edge;branch=z9hG4bKserver\r\n\
        Via: SIP/2.0/WSS u0000123.invalid;branch=z9hG4bKours\r\n\
        Record-Route: <sip:token@edge;lr>\r\n\
        From: <sip:u0000123@example.com>;tag=1\r\nTo: <sip:u0000456@example.com>\r\n\
        Call-ID: t1\r\nCSeq: 7 MESSAGE\r\nContent-Length: 5\r\n\r\nhello";

    #[test]
    fn a_request_is_read() {
        let head = Head::read(REQUEST).unwrap();
        assert_eq!((head.status, head.target(), head.vias), (0, Some(456), 2));
        assert_eq!(head.via, b"SIP/2.0/WSS edge;branch=z9hG4bKserver");
        assert_eq!(
            (head.method(), head.call_id, head.body),
            (&b"MESSAGE"[..], &b"t1"[..], &b"hello"[..])
        );
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        let header = REQUEST.len() - b"hello".len();
        for end in 0..header {
            assert!(Head::read(&REQUEST[..end]).is_none(), "{end}");
        }
    }

    #[test]
    fn a_response_repeats_what_it_must() {
        let mut out = Vec::new();
        write_response(REQUEST, "200 OK", "t", b"Content-Length: 0\r\n\r\n", &mut out);
        let text = str::from_utf8(&out).unwrap();
        assert!(text.starts_with("SIP/2.0 200 OK\r\nVia: SIP/2.0/WSS edge;"), "{text}");
        assert!(text.contains("\r\nTo: <sip:u0000456@example.com>;tag=t\r\n"), "{text}");
        assert!(text.contains("\r\nRecord-Route: <sip:token@edge;lr>\r\n"), "{text}");
        let head = Head::read(&out).unwrap();
        assert_eq!((head.status, head.vias, head.cseq), (200, 2, &b"7 MESSAGE"[..]));
        let mut again = Vec::new();
        let answered = [b"X sip:a SIP/2.0\r\n", &out[b"SIP/2.0 200 OK\r\n".len()..]].concat();
        write_response(&answered, "200 OK", "other", b"\r\n", &mut again);
        assert!(!str::from_utf8(&again).unwrap().contains("other"));
    }

    #[test]
    fn messages_are_cut_out_of_a_stream() {
        for end in 0..REQUEST.len() {
            assert_eq!(message_length(&REQUEST[..end]).unwrap(), None, "{end}");
        }
        let two = [REQUEST, REQUEST].concat();
        assert_eq!(message_length(&two).unwrap(), Some(REQUEST.len()));
        assert_eq!(message_length(b"\r\n\r\n").unwrap(), Some(CRLF));
        assert!(message_length(b"A sip:b SIP/2.0\r\nVia: c\r\n\r\n").is_err());
    }

    #[test]
    fn parameters_and_uris_are_found() {
        let value = br#"Digest cnonce="no", nonce="yes", algorithm=MD5,qop="auth""#;
        assert_eq!(parameter(value, "nonce"), Some(&b"yes"[..]));
        assert_eq!(parameter(value, "algorithm"), Some(&b"MD5"[..]));
        assert_eq!(parameter(value, "opaque"), None);
        assert_eq!(uri(b"\"a\" <sip:b@c;ob>;q=1"), Some(&b"sip:b@c;ob"[..]));
        assert_eq!(uri(b"sip:b@c"), None);
    }

    #[test]
    fn numbers_are_seven_digits() {
        assert_eq!(number(b"u0000042@x"), Some(42));
        for text in [&b"u000042@x"[..], b"v0000042", b"u00000", b""] {
            assert_eq!(number(text), None);
        }
    }
}
