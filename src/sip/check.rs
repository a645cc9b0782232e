//! The values that decide about a message, read at once (RFC 3261 §16.3 step 1). Absent on purpose:
//! values that a proxy passes on without looking.

use super::address::NameAddr;
use super::errors::{ParseError, ParseErrorKind};
use super::header::HeaderName;
use super::message::Message;
use super::uri::{Scheme, Uri};
use crate::base::limits::{HEADERS_ADDED_MAX, HEADERS_MAX, VALUES_MAX};

impl Message<'_> {
    /// Reads every value that decides about a request or response: Request-URI of the schemes sip
    /// and sips, topmost Via, whose sent-by and branch it notes, From, To and all Contacts.
    /// [`super::parse`] has checked the rest. There must be room for the header fields that a proxy
    /// adds, since what it sends it reads again.
    pub fn check(self) -> Result<(), ParseError> {
        if self.parsed.lines.len() > HEADERS_MAX - HEADERS_ADDED_MAX {
            return Err(self.missing(ParseErrorKind::TooManyHeaders));
        }
        if self.is_request() {
            self.check_uri()?;
        }
        self.note_top(&self.top_via()?);
        self.from()?;
        self.to()?;
        let mut contacts = 0;
        for value in self.values(HeaderName::Contact) {
            contacts += 1;
            if value.text != b"*" {
                NameAddr::parse_at(self.bytes, value.span)?;
            } else if contacts > 1 || !value.last_in_line {
                return Err(ParseError { kind: ParseErrorKind::Address, at: value.span.start });
            }
        }
        if contacts == VALUES_MAX {
            return Err(self.missing(ParseErrorKind::TooManyValues));
        }
        Ok(())
    }

    fn check_uri(self) -> Result<(), ParseError> {
        let start = self.uri_span().start;
        let moved = |fault: ParseError| ParseError { at: fault.at + start, ..fault };
        let uri = Uri::parse(self.uri()).map_err(moved)?;
        if matches!(uri.scheme, Scheme::Sip | Scheme::Sips) && !uri.headers_raw.is_empty() {
            return Err(ParseError { kind: ParseErrorKind::RequestUriHeaders, at: start });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Parsed, parse};
    use super::*;

    const REQUEST: &str = "REGISTER sip:h SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nf: <sip:a@b>;tag=1\r\n\
        To: <sip:a@b>\r\ni: c\r\nCSeq: 1 REGISTER\r\nm: <sip:c>\r\n\r\n";

    fn check(from: &str, to: &str) -> Result<(), ParseErrorKind> {
        let text = REQUEST.replace(from, to);
        let mut parsed = Parsed::default();
        parse(text.as_bytes(), &mut parsed).unwrap();
        parsed.view(text.as_bytes()).check().map_err(|fault| fault.kind)
    }

    #[test]
    fn what_decides_is_read() {
        use ParseErrorKind::*;
        let cases = [
            ("sip:h ", "sip:h ", Ok(())),
            ("sip:h ", "tel:+1 ", Ok(())),
            ("sip:h ", "x:y ", Ok(())),
            ("sip:h ", "sip:h?a=b ", Err(RequestUriHeaders)),
            ("sip:h ", "sip:h:x ", Err(Port)),
            ("TCP h", "TCP", Err(Via)),
            ("f: <", "f: x, y <", Err(DisplayName)),
            ("To: <sip:a@b>", "To: \"<sip:a@b>", Err(Quote)),
            ("<sip:c>", "<sip:c>;;", Err(Parameter)),
            ("<sip:c>", "sip:c?d=e", Err(Brackets)),
            ("<sip:c>", "<sip:c>, ", Err(Address)),
        ];
        for (from, to, expected) in cases {
            assert_eq!(check(from, to), expected, "{to}");
        }
    }

    #[test]
    fn a_star_stands_alone() {
        assert_eq!(check("<sip:c>", "*"), Ok(()));
        assert_eq!(check("<sip:c>", "*, <sip:a>"), Err(ParseErrorKind::Address));
        assert_eq!(check("<sip:c>", "<sip:a>\r\nm: *"), Err(ParseErrorKind::Address));
        let many = vec!["<sip:a>"; VALUES_MAX].join(",");
        assert_eq!(check("<sip:c>", &many), Err(ParseErrorKind::TooManyValues));
    }
}
