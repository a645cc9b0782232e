//! A request from one user to another and its 200: MESSAGE (RFC 3428) or NOTIFY (RFC 6665). What
//! arrives is checked: at whom it was for, once, unchanged, and the answer at whom asked.

use std::ops::Range;

use anyhow::Result;
use memchr::memmem;

use crate::load::{Scenario, Stage};
use crate::random::Random;
use crate::sip::{self, Head};
use crate::template::{Template, Values, read_id};
use crate::transport::Transport;

/// The request arrived and was answered.
const ARRIVED: u32 = 1;

/// Which request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A text.
    Message,
    /// A change of state, outside a dialog.
    Notify,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::Message => "MESSAGE",
            Method::Notify => "NOTIFY",
        }
    }
}

/// What is sent, and by whom to whom.
pub struct Relay {
    template: Template,
    method: Method,
    senders: Range<usize>,
    receivers: Range<usize>,
    random: Random,
    next_sender: usize,
    /// What follows the name of the exchange in every body.
    filler: Vec<u8>,
    answer: Vec<u8>,
    /// The kind of exchange that is counted.
    pub class: usize,
}

impl Relay {
    /// Between these users. The body has `body` bytes, and never less than the name of the exchange.
    pub fn new(
        method: Method,
        transport: Transport,
        domain: &str,
        body: usize,
        senders: Range<usize>,
        receivers: Range<usize>,
    ) -> Relay {
        let filler = filler(body);
        Relay {
            template: template(method, transport, domain, &filler),
            method,
            next_sender: senders.start,
            senders,
            receivers,
            random: Random::default(),
            filler: filler.into_bytes(),
            answer: Vec::new(),
            class: 0,
        }
    }

    /// Sends the request of an exchange to one of `receivers`.
    pub fn start_to(&mut self, stage: Stage<'_>, slot: usize, receivers: &Range<usize>) {
        let from = self.next_sender;
        self.next_sender = if from + 1 == self.senders.end { self.senders.start } else { from + 1 };
        let to = self.random.other_than(receivers, from);
        let flight = stage.flights.slot(slot);
        (flight.from, flight.to, flight.class) = (from, to, self.class);
        let (from, to, id) = (stage.network.number(from), stage.network.number(to), flight.id);
        let end = flight.from;
        stage.network.send(end, self.template.fill(&Values { from, to, id, cseq: 0 }));
    }

    /// Takes a request: it must be in flight, new, for this end and unchanged.
    fn on_request(&mut self, stage: Stage<'_>, end: usize, head: &Head<'_>, message: &[u8]) {
        let Some((slot, id)) = find(&stage, head) else {
            stage.flights.count("a request of no exchange");
            return;
        };
        let flight = stage.flights.slot(slot);
        let fault = if flight.to != end || head.target() != Some(stage.network.number(end)) {
            "a request at the wrong client"
        } else if head.method() != self.method.name().as_bytes() {
            "a request of another method"
        } else if flight.phase & ARRIVED != 0 {
            match stage.network.transport(end).is_datagram() {
                true => "a request again, over UDP",
                false => "a request twice",
            }
        } else if read_id(head.body) != Some(id) || head.body[16..] != self.filler {
            "a body that was changed"
        } else {
            ""
        };
        if !fault.is_empty() {
            stage.flights.count(fault);
        }
        stage.flights.slot(slot).phase |= ARRIVED;
        sip::write_response(message, "200 OK", "a", NO_BODY, &mut self.answer);
        stage.network.send(end, &self.answer);
    }

    fn on_response(&mut self, stage: Stage<'_>, end: usize, head: &Head<'_>) {
        let Some((slot, id)) = find(&stage, head) else {
            stage.flights.count("a response of no exchange");
            return;
        };
        let flight = stage.flights.slot(slot);
        let (from, phase) = (flight.from, flight.phase);
        if from != end {
            stage.flights.count("a response at the wrong client");
        } else if head.vias != 1 || !is_own_via(head.via, stage.network.number(end), id) {
            stage.flights.fail(slot, "a response with another Via");
        } else if head.status >= 300 {
            stage.flights.fail(slot, &format!("status {}", head.status));
        } else if head.status < 200 {
            // A provisional response is none of this exchange's ends.
        } else if phase & ARRIVED == 0 {
            stage.flights.fail(slot, "a 200 that the receiver did not send");
        } else {
            stage.flights.finish(slot);
        }
    }
}

impl Scenario for Relay {
    fn start(&mut self, stage: Stage<'_>, slot: usize) -> Result<()> {
        let receivers = self.receivers.clone();
        self.start_to(stage, slot, &receivers);
        Ok(())
    }

    fn on_message(
        &mut self,
        stage: Stage<'_>,
        end: usize,
        head: &Head<'_>,
        message: &[u8],
    ) -> Result<()> {
        match head.status {
            0 => self.on_request(stage, end, head, message),
            _ => self.on_response(stage, end, head),
        }
        Ok(())
    }
}

/// What a response without body ends with.
pub const NO_BODY: &[u8] = b"Content-Length: 0\r\n\r\n";

/// The exchange that a Call-ID names, while it is in flight.
pub fn find(stage: &Stage<'_>, head: &Head<'_>) -> Option<(usize, u64)> {
    let id = read_id(head.call_id.strip_prefix(b"t")?)?;
    Some((stage.flights.find(id)?, id))
}

/// Whether a Via is the one that this user put on top for this exchange; a server may have put
/// `received` and `rport` anywhere behind the name (RFC 3581 §4).
pub fn is_own_via(via: &[u8], number: u32, id: u64) -> bool {
    const BRANCH: &[u8] = b";branch=z9hG4bK";
    let Some(space) = memchr::memchr(b' ', via) else { return false };
    let name = &via[space + 1..];
    let branch = memmem::find(name, BRANCH).map(|at| &name[at + BRANCH.len()..]);
    sip::number(name) == Some(number) && branch.and_then(read_id) == Some(id)
}

/// Text that makes a body so long, the name of the exchange included.
fn filler(body: usize) -> String {
    const TEXT: &str = " It is a long way to the right client, and shorter to the wrong one. ÄÖÜ.";
    let length = body.saturating_sub(16);
    let mut out = String::new();
    for letter in TEXT.chars().cycle() {
        if out.len() + letter.len_utf8() > length {
            break;
        }
        out.push(letter);
    }
    out.extend(std::iter::repeat_n('.', length - out.len()));
    out
}

fn template(method: Method, transport: Transport, domain: &str, filler: &str) -> Template {
    let (name, token) = (method.name(), transport.token());
    let specific = match method {
        Method::Message => "Content-Type: text/plain;charset=utf-8\r\n",
        Method::Notify => {
            "Event: message-summary\r\nSubscription-State: active;expires=3600\r\n\
             Content-Type: application/simple-message-summary\r\n"
        }
    };
    Template::new(&format!(
        "{name} sip:u{{to}}@{domain} SIP/2.0\r\n\
         Via: SIP/2.0/{token} u{{from}}.invalid;branch=z9hG4bK{{id}};rport\r\n\
         Max-Forwards: 69\r\n\
         To: <sip:u{{to}}@{domain}>\r\n\
         From: \"User {{from}}\" <sip:u{{from}}@{domain}>;tag={{id}}\r\n\
         Call-ID: t{{id}}\r\n\
         CSeq: 1001 {name}\r\n\
         {specific}\
         Allow: INVITE,ACK,CANCEL,BYE,UPDATE,MESSAGE,OPTIONS,REFER,INFO,NOTIFY,SUBSCRIBE\r\n\
         Supported: outbound\r\n\
         User-Agent: sipring-perf\r\n\
         Content-Length: {}\r\n\r\n{{id}}{filler}",
        16 + filler.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_it_is() {
        for (method, body) in [(Method::Message, 16), (Method::Message, 100), (Method::Notify, 500)]
        {
            let filler = filler(body);
            let mut template = template(method, Transport::Udp, "example.com", &filler);
            let values = Values { from: 9_000_000, to: 12, id: 0x5_0003, cseq: 0 };
            let text = template.fill(&values);
            let head = Head::read(text).unwrap();
            assert_eq!((head.target(), head.method()), (Some(12), method.name().as_bytes()));
            assert_eq!(
                (head.body.len(), sip::message_length(text).unwrap()),
                (body, Some(text.len()))
            );
            assert!(is_own_via(head.via, 9_000_000, 0x5_0003));
            assert!(!is_own_via(head.via, 9_000_000, 0x5_0004));
            assert!(!is_own_via(head.via, 9_000_001, 0x5_0003));
            assert_eq!(read_id(&head.call_id[1..]), Some(0x5_0003));
            let stamped =
                b"SIP/2.0/UDP u0000001.invalid;received=::1;branch=z9hG4bK0000000000000002b";
            assert!(
                is_own_via(stamped, 1, 2) && !is_own_via(b"SIP/2.0/UDP u0000001.invalid", 1, 2)
            );
        }
    }

    #[test]
    fn a_via_may_be_added_to_wherever_a_server_likes() {
        let via = b"SIP/2.0/WSS u0000123.invalid;received=127.0.0.1;\
            branch=z9hG4bK0000000000050003;rport=40752";
        assert!(is_own_via(via, 123, 0x5_0003));
        assert!(!is_own_via(via, 124, 0x5_0003) && !is_own_via(via, 123, 0x5_0004));
        assert!(!is_own_via(b"SIP/2.0/WSS u0000123.invalid;received=127.0.0.1", 123, 0x5_0003));
        assert!(!is_own_via(b"SIP/2.0/WSS u00", 123, 0x5_0003));
    }
}
