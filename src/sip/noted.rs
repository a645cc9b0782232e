//! What the index of a message keeps of its From and To (RFC 3261 §20.20, §20.39), which a dozen rules
//! ask for: where the parts are, so that each is read once. Absent on purpose: reading them the first
//! time (`address`), and their tags, which few ask for.

use std::cell::Cell;

use super::address::NameAddr;
use super::errors::{ParseError, ParseErrorKind};
use super::header::HeaderName;
use super::message::{Message, Span};

/// Parts of an address, for the bytes that it was read from, once it was.
#[derive(Clone, Default, Debug)]
pub(super) struct NotedAddress {
    parts: Cell<Parts>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Parts {
    display: Span,
    /// Empty: none was read.
    uri: Span,
    params: Span,
}

impl NotedAddress {
    /// Of an address that was read from `bytes`.
    pub(super) fn note(&self, address: &NameAddr<'_>, bytes: &[u8]) {
        let place = |part: &[u8]| {
            if part.is_empty() {
                return Span::default();
            }
            let start = part.as_ptr().addr() - bytes.as_ptr().addr();
            Span::new(start, start + part.len())
        };
        self.parts.set(Parts {
            display: place(address.display),
            uri: address.uri_span,
            params: place(address.params_raw),
        });
    }

    /// The address, if it was read.
    pub(super) fn read<'a>(&self, bytes: &'a [u8]) -> Option<NameAddr<'a>> {
        let Parts { display, uri, params } = self.parts.get();
        (!uri.is_empty()).then(|| NameAddr {
            display: display.of(bytes),
            uri: uri.of(bytes),
            uri_span: uri,
            params_raw: params.of(bytes),
        })
    }

    pub(super) fn clear(&self) {
        self.parts.set(Parts::default());
    }
}

impl<'a> Message<'a> {
    /// The address of that name, which is read once and then noted.
    pub(super) fn name_addr(
        self,
        noted: &NotedAddress,
        name: HeaderName,
        absent: ParseErrorKind,
    ) -> Result<NameAddr<'a>, ParseError> {
        if let Some(address) = noted.read(self.bytes) {
            return Ok(address);
        }
        let line = self.line(name).ok_or_else(|| self.missing(absent))?;
        let address = NameAddr::parse_at(self.bytes, line.value)?;
        // A response is asked for them once.
        if self.is_request() {
            noted.note(&address, self.bytes);
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Parsed, parse};

    #[test]
    fn what_was_read_once_is_read_again_the_same() {
        for (from, to) in [
            ("sip:a@b", "<sip:a@b>"),
            ("\"A, <b>\" <sip:a@b?x=y>;tag=1;x", "A b <sip:a@b;lr> ; tag = \"2\" "),
            ("<tel:+1>;tag=", "sip:a@b;x=y"),
        ] {
            let text = format!(
                "OPTIONS sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nf: {from}\r\nTo: {to}\r\ni: c\r\n\
                 CSeq: 1 OPTIONS\r\n\r\n"
            );
            let mut parsed = Parsed::default();
            parse(text.as_bytes(), &mut parsed).unwrap();
            let message = parsed.view(text.as_bytes());
            let first = (message.from().unwrap(), message.to().unwrap());
            let again = (message.from().unwrap(), message.to().unwrap());
            assert_eq!(first, again, "{from} {to}");
            assert_eq!((first.0.tag(), first.1.tag()), (again.0.tag(), again.1.tag()));
            assert_ne!(first.0, first.1);
            // An error, and the index is there all the same.
            const BARE: &[u8] = b"OPTIONS sip:h SIP/2.0\r\n\r\n";
            let _ = parse(BARE, &mut parsed);
            let message = parsed.view(BARE);
            assert!(message.from().is_err() && message.to().is_err(), "another message");
        }
    }
}
