//! What the index of a message keeps of its topmost Via (RFC 3261 §20.42), which whoever receives,
//! answers or forwards it asks for: where its parts are, so that it is read once. Absent on purpose:
//! the other Vias; reading it the first time (`via`).

use super::message::Span;
use super::via::Via;

/// A part's start and end, from the value's start; both 0: there is none. No part begins where the
/// value does but its protocol's name, which is none of them.
type Part = [u16; 2];

/// Parts of the topmost Via, for the bytes that it was read from. Without a host: none was read.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct TopVia {
    /// Where the value starts.
    start: u32,
    end: u16,
    params_end: u16,
    transport: Part,
    host: Part,
    branch: Part,
    received: Part,
    received_param: Part,
    rport: Part,
    rport_param: Part,
    maddr: Part,
    port: Option<u16>,
    ttl: Option<u8>,
    alias: bool,
    /// All of it was noted.
    is_whole: bool,
}

impl TopVia {
    /// Of a Via that was read from `bytes`; nothing of one that is longer than any should be. Of a
    /// response's nobody asks for more than host, port and branch: only those if not `is_whole`.
    pub(super) fn of(via: &Via<'_>, bytes: &[u8], is_whole: bool) -> TopVia {
        if via.span.len() > usize::from(u16::MAX) {
            return TopVia::default();
        }
        let start = via.span.start;
        let base = bytes.as_ptr().addr() + start as usize;
        let part = |text: &[u8]| {
            let from = text.as_ptr().addr() - base;
            [from as u16, (from + text.len()) as u16]
        };
        let of_text = |text: Option<&[u8]>| text.map_or([0; 2], part);
        let hop = TopVia {
            start,
            host: part(via.sent_by_host),
            branch: of_text(via.branch),
            port: via.sent_by_port,
            ..TopVia::default()
        };
        if !is_whole {
            return hop;
        }
        let of_span = |span: Option<Span>| {
            span.map_or([0; 2], |it| [(it.start - start) as u16, (it.end - start) as u16])
        };
        TopVia {
            end: (via.span.end - start) as u16,
            params_end: (via.params_end - start) as u16,
            transport: part(via.transport),
            received: of_text(via.received),
            received_param: of_span(via.received_span),
            rport: of_text(via.rport.flatten()),
            rport_param: of_span(via.rport_span),
            maddr: of_text(via.maddr),
            ttl: via.ttl,
            alias: via.alias,
            is_whole,
            ..hop
        }
    }

    /// Whether host, port and branch were noted.
    pub(super) fn is_known(&self) -> bool {
        self.host != [0; 2]
    }

    /// Host and port of the sent-by.
    pub(super) fn sent_by<'a>(&self, bytes: &'a [u8]) -> (&'a [u8], Option<u16>) {
        (self.span(self.host).of(bytes), self.port)
    }

    /// The branch, if it has one.
    pub(super) fn branch<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.text(self.branch, bytes)
    }

    /// The Via, if all of it was noted.
    pub(super) fn read<'a>(&self, bytes: &'a [u8]) -> Option<Via<'a>> {
        if !self.is_whole {
            return None;
        }
        let at = |part: Part| (part != [0; 2]).then(|| self.span(part));
        let (sent_by_host, sent_by_port) = self.sent_by(bytes);
        let rport_span = at(self.rport_param);
        Some(Via {
            transport: self.span(self.transport).of(bytes),
            sent_by_host,
            sent_by_port,
            branch: self.branch(bytes),
            received: self.text(self.received, bytes),
            rport: rport_span.map(|_| self.text(self.rport, bytes)),
            maddr: self.text(self.maddr, bytes),
            ttl: self.ttl,
            alias: self.alias,
            span: self.span([0, self.end]),
            params_end: self.start + u32::from(self.params_end),
            rport_span,
            received_span: at(self.received_param),
        })
    }

    fn span(&self, part: Part) -> Span {
        let [start, end] = part.map(|at| self.start + u32::from(at));
        Span { start, end }
    }

    fn text<'a>(&self, part: Part, bytes: &'a [u8]) -> Option<&'a [u8]> {
        (part != [0; 2]).then(|| self.span(part).of(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Parsed, parse};
    use super::*;

    #[test]
    fn what_was_read_once_is_read_again_the_same() {
        let long = format!("SIP/2.0/UDP h;x={};branch=z9hG4bK1", "y".repeat(30_000));
        for via in [
            "SIP/2.0/UDP h",
            "SIP / 2.0 / TCP  [2001:db8::1] : 5070 ;branch = z9hG4bKx ; rport",
            "SIP/2.0/UDP h:1;rport=5;received=\"192.0.2.1\";maddr=m;ttl=9;alias;branch=",
            "SIP/2.0/UDP h;rport=;received;branch=z9hG4bK1;branch=2;rport=7",
            "SIP/2.0/UDP h;ttl=900;x;branch=z9hG4bK1 , SIP/2.0/TCP i;alias",
            "SIP/2.0/UDP h;branch\r\n ;rport\r\n\t",
            &long,
        ] {
            let text = format!(
                "OPTIONS sip:h SIP/2.0\r\nv: {via}\r\nf: <sip:a@b>;tag=1\r\n\
                To: <sip:a@b>\r\ni: c\r\nCSeq: 1 OPTIONS\r\n\r\n"
            );
            let mut parsed = Parsed::default();
            parse(text.as_bytes(), &mut parsed).unwrap();
            let message = parsed.view(text.as_bytes());
            let first = message.top_via().unwrap();
            assert!(!parsed.top.get().is_known(), "nobody noted it");
            message.check().unwrap();
            assert!(parsed.top.get().is_known());
            assert_eq!(message.top_via().unwrap(), first, "{via}");
            assert_eq!(message.top_branch(), first.branch, "{via}");
            let hop = message.previous_hop().unwrap();
            assert_eq!((hop.host, hop.port), (first.sent_by_host, first.sent_by_port), "{via}");
        }
    }

    #[test]
    fn of_a_response_the_hop_is_noted() {
        const TEXT: &[u8] = b"SIP/2.0 200 OK\r\nv: SIP/2.0/TCP h:9;rport;branch=z9hG4bK1\r\n\
            f: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\ni: c\r\nCSeq: 1 OPTIONS\r\n\r\n";
        let mut parsed = Parsed::default();
        parse(TEXT, &mut parsed).unwrap();
        let message = parsed.view(TEXT);
        message.check().unwrap();
        assert!(parsed.top.get().is_known());
        assert_eq!(parsed.top.get().sent_by(TEXT), (&b"h"[..], Some(9)));
        assert_eq!(message.top_branch(), Some(&b"z9hG4bK1"[..]));
        assert!(message.top_via().unwrap().rport.is_some(), "it is read again");
    }

    #[test]
    fn one_that_is_too_long_to_be_noted_is_read_each_time() {
        let via = format!("SIP/2.0/UDP h;x={}", "y".repeat(70_000));
        let read = Via::parse(via.as_bytes()).unwrap();
        assert!(!TopVia::of(&read, via.as_bytes(), true).is_known());
    }
}
