//! A whole call (RFC 3261 §13, §15): INVITE, 180 and 200 from the called side, ACK along the route
//! set, BYE and its 200. It has ended well when both the ACK has arrived and the BYE is answered.
//! Absent: retransmissions of our own; what UDP loses is an unanswered call.

use std::ops::Range;

use anyhow::Result;

use crate::load::{Scenario, Stage};
use crate::network::Network;
use crate::random::Random;
use crate::scenario::relay::{NO_BODY, find, is_own_via};
use crate::scenario::sdp;
use crate::sip::{self, Head};
use crate::template::{Template, Values};
use crate::transport::Transport;

/// The INVITE arrived.
const INVITED: u32 = 1;
/// The caller heard it ring.
const RINGING: u32 = 1 << 1;
/// The caller has the 200.
const ANSWERED: u32 = 1 << 2;
/// The called side has the ACK.
const ACKNOWLEDGED: u32 = 1 << 3;
/// The called side has the BYE.
const ENDED: u32 = 1 << 4;
/// The caller has the 200 to the BYE.
const CONFIRMED: u32 = 1 << 5;

/// A request within the dialog: what comes before and after what the other side chose.
struct Within {
    method: &'static str,
    before: Template,
    after: Template,
}

/// Who calls whom, and what they say.
pub struct Call {
    callers: Range<usize>,
    called: Range<usize>,
    next_caller: usize,
    random: Random,
    domain: String,
    sdp: Template,
    /// INVITE of each caller.
    invites: Vec<Option<Template>>,
    /// Contact and Content-Type lines of each called user.
    contacts: Vec<Option<Vec<u8>>>,
    ack: Within,
    bye: Within,
    out: Vec<u8>,
}

impl Call {
    /// Between these users; `transport` is the callers'. Descriptions have about `body` bytes.
    pub fn new(
        transport: Transport,
        domain: &str,
        body: usize,
        callers: Range<usize>,
        called: Range<usize>,
    ) -> Call {
        Call {
            next_caller: callers.start,
            random: Random::default(),
            domain: domain.to_owned(),
            sdp: sdp::template(body),
            invites: vec![None; callers.len()],
            contacts: vec![None; called.len()],
            ack: Within::new("ACK", "a", 1, transport, domain),
            bye: Within::new("BYE", "b", 2, transport, domain),
            out: Vec::new(),
            callers,
            called,
        }
    }

    /// The called side.
    fn on_request(
        &mut self,
        stage: Stage<'_>,
        end: usize,
        head: &Head<'_>,
        message: &[u8],
    ) -> Result<()> {
        let Some((slot, id)) = find(&stage, head) else {
            stage.flights.count("a request of no call");
            return Ok(());
        };
        let number = stage.network.number(end);
        let is_datagram = stage.network.transport(end).is_datagram();
        let flight = stage.flights.slot(slot);
        if flight.to != end || head.target() != Some(number) {
            stage.flights.count("a request at the wrong client");
            return Ok(());
        }
        let (bit, before) = match head.method() {
            b"INVITE" => (INVITED, 0),
            b"ACK" => (ACKNOWLEDGED, INVITED),
            b"BYE" => (ENDED, INVITED),
            _ => (0, 0),
        };
        let phase = flight.phase;
        flight.phase |= bit;
        if bit == 0 || phase & before != before {
            stage.flights.count("a request that no one sent");
        } else if phase & bit != 0 {
            let what = if is_datagram { "a request again, over UDP" } else { "a request twice" };
            stage.flights.count(what);
        }
        match bit {
            INVITED => return self.answer(stage, end, id, head, message),
            ENDED => {
                sip::write_response(message, "200 OK", "c", NO_BODY, &mut self.out);
                stage.network.send(end, &self.out);
            }
            _ => finish_if_over(stage, slot),
        }
        Ok(())
    }

    /// 180 and 200 to an INVITE.
    fn answer(
        &mut self,
        stage: Stage<'_>,
        end: usize,
        id: u64,
        head: &Head<'_>,
        message: &[u8],
    ) -> Result<()> {
        let body = self.sdp.fill(&Values { id, ..Values::default() });
        if body != head.body {
            stage.flights.count("a body that was changed");
        }
        let contact = &mut self.contacts[end - self.called.start];
        let contact = match contact {
            Some(contact) => contact,
            None => contact.insert(
                format!(
                    "Contact: <{}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n",
                    contact_uri(stage.network, end)?,
                    body.len()
                )
                .into_bytes(),
            ),
        };
        sip::write_response(message, "180 Ringing", "c", NO_BODY, &mut self.out);
        stage.network.send(end, &self.out);
        sip::write_response(message, "200 OK", "c", contact, &mut self.out);
        self.out.extend_from_slice(body);
        stage.network.send(end, &self.out);
        Ok(())
    }

    /// The caller.
    fn on_response(&mut self, stage: Stage<'_>, end: usize, head: &Head<'_>, message: &[u8]) {
        let Some((slot, id)) = find(&stage, head) else {
            stage.flights.count("a response of no call");
            return;
        };
        let number = stage.network.number(end);
        let flight = stage.flights.slot(slot);
        let phase = flight.phase;
        if flight.from != end {
            stage.flights.count("a response at the wrong client");
        } else if head.vias != 1 || !is_own_via(head.via, number, id) {
            stage.flights.fail(slot, "a response with another Via");
        } else if head.status >= 300 {
            let method = String::from_utf8_lossy(head.method()).into_owned();
            stage.flights.fail(slot, &format!("status {} to {method}", head.status));
        } else if head.status < 200 {
            flight.phase |= if head.status == 180 { RINGING } else { 0 };
        } else if head.method() == b"BYE" {
            flight.phase |= CONFIRMED;
            match phase & ENDED {
                0 => stage.flights.fail(slot, "a 200 that nobody sent"),
                _ => finish_if_over(stage, slot),
            }
        } else if phase & (INVITED | RINGING) != INVITED | RINGING {
            stage.flights.fail(slot, "a 200 without 180");
        } else if head.body != self.sdp.fill(&Values { id, ..Values::default() }) {
            stage.flights.fail(slot, "a body that was changed");
        } else if phase & ANSWERED != 0 {
            stage.flights.count("a 200 again");
        } else {
            flight.phase |= ANSWERED;
            self.acknowledge_and_end(stage, slot, end, head, message);
        }
    }

    fn acknowledge_and_end(
        &mut self,
        stage: Stage<'_>,
        slot: usize,
        end: usize,
        head: &Head<'_>,
        message: &[u8],
    ) {
        let Some(target) = sip::uri(head.contact) else {
            stage.flights.fail(slot, "a 200 without Contact");
            return;
        };
        let flight = stage.flights.slot(slot);
        let values = Values { from: stage.network.number(end), id: flight.id, ..Values::default() };
        write_routes(message, &mut flight.memory);
        for request in [&mut self.ack, &mut self.bye] {
            request.write(target, &flight.memory, head.to, &values, &mut self.out);
            stage.network.send(end, &self.out);
        }
    }
}

impl Scenario for Call {
    fn start(&mut self, stage: Stage<'_>, slot: usize) -> Result<()> {
        let from = self.next_caller;
        self.next_caller = if from + 1 == self.callers.end { self.callers.start } else { from + 1 };
        let to = self.random.other_than(&self.called, from);
        let invite = &mut self.invites[from - self.callers.start];
        let invite = match invite {
            Some(invite) => invite,
            None => invite.insert(Template::new(&invite_text(
                stage.network.transport(from),
                &self.domain,
                &contact_uri(stage.network, from)?,
                self.sdp.fill(&Values::default()).len(),
            ))),
        };
        let flight = stage.flights.slot(slot);
        (flight.from, flight.to) = (from, to);
        let (from_number, to_number) = (stage.network.number(from), stage.network.number(to));
        let values = Values { from: from_number, to: to_number, id: flight.id, cseq: 0 };
        self.out.clear();
        self.out.extend_from_slice(invite.fill(&values));
        self.out.extend_from_slice(self.sdp.fill(&values));
        stage.network.send(from, &self.out);
        Ok(())
    }

    fn on_message(
        &mut self,
        stage: Stage<'_>,
        end: usize,
        head: &Head<'_>,
        message: &[u8],
    ) -> Result<()> {
        if head.status == 0 {
            return self.on_request(stage, end, head, message);
        }
        self.on_response(stage, end, head, message);
        Ok(())
    }

    fn unanswered(&self, flight: &crate::flights::Flight) -> &'static str {
        match flight.phase {
            0 => "an INVITE that did not arrive",
            phase if phase & ANSWERED == 0 => "an INVITE without answer",
            phase if phase & ACKNOWLEDGED == 0 => "an ACK that did not arrive",
            _ => "a BYE without answer",
        }
    }
}

impl Within {
    fn new(
        method: &'static str,
        letter: &str,
        cseq: u32,
        transport: Transport,
        domain: &str,
    ) -> Within {
        let token = transport.token();
        Within {
            method,
            before: Template::new(&format!(
                " SIP/2.0\r\nVia: SIP/2.0/{token} \
                 u{{from}}.invalid;branch=z9hG4bK{{id}}{letter};rport\r\nMax-Forwards: 69\r\n"
            )),
            after: Template::new(&format!(
                "From: \"User {{from}}\" <sip:u{{from}}@{domain}>;tag={{id}}\r\n\
                 Call-ID: t{{id}}\r\nCSeq: {cseq} {method}\r\nUser-Agent: sipring-perf\r\n\
                 Supported: outbound\r\nContent-Length: 0\r\n\r\n"
            )),
        }
    }

    fn write(
        &mut self,
        target: &[u8],
        routes: &[u8],
        to: &[u8],
        values: &Values,
        out: &mut Vec<u8>,
    ) {
        out.clear();
        let before = self.before.fill(values);
        let after = self.after.fill(values);
        for part in
            [self.method.as_bytes(), b" ", target, before, routes, b"To: ", to, b"\r\n", after]
        {
            out.extend_from_slice(part);
        }
    }
}

fn finish_if_over(stage: Stage<'_>, slot: usize) {
    const OVER: u32 = ACKNOWLEDGED | CONFIRMED;
    if stage.flights.slot(slot).phase & OVER == OVER {
        stage.flights.finish(slot);
    }
}

/// The route set of the caller: the Record-Routes of the 200, the last one first (RFC 3261
/// §12.1.2).
fn write_routes(response: &[u8], out: &mut Vec<u8>) {
    out.clear();
    for (name, value) in sip::lines(response) {
        if name == b"Record-Route" {
            let line = [b"Route: ", value, b"\r\n"].concat();
            out.splice(0..0, line);
        }
    }
}

/// Where requests within the dialog reach the user.
fn contact_uri(network: &Network, end: usize) -> Result<String> {
    let (number, transport) = (network.number(end), network.transport(end));
    let host = match transport.is_web() {
        true => format!("u{number:07}.invalid"),
        false => network.local_address(end)?.to_string(),
    };
    let outbound = if transport.is_datagram() { "" } else { ";ob" };
    Ok(format!("sip:u{number:07}@{host};transport={}{outbound}", transport.parameter()))
}

fn invite_text(transport: Transport, domain: &str, contact: &str, body: usize) -> String {
    let token = transport.token();
    format!(
        "INVITE sip:u{{to}}@{domain} SIP/2.0\r\n\
         Via: SIP/2.0/{token} u{{from}}.invalid;branch=z9hG4bK{{id}}i;rport\r\n\
         Max-Forwards: 69\r\n\
         To: <sip:u{{to}}@{domain}>\r\n\
         From: \"User {{from}}\" <sip:u{{from}}@{domain}>;tag={{id}}\r\n\
         Call-ID: t{{id}}\r\n\
         CSeq: 1 INVITE\r\n\
         Contact: <{contact}>\r\n\
         Content-Type: application/sdp\r\n\
         Allow: INVITE,ACK,CANCEL,BYE,UPDATE,MESSAGE,OPTIONS,REFER,INFO,NOTIFY,SUBSCRIBE\r\n\
         Supported: ice,replaces,outbound\r\n\
         User-Agent: sipring-perf\r\n\
         Content-Length: {body}\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_set_is_reversed() {
        let response = b"SIP/2.0 200 OK\r\nVia: a\r\nRecord-Route: <sip:one;lr>\r\n\
            Record-Route: <sip:two;lr>\r\nContent-Length: 0\r\n\r\n";
        let mut out = Vec::new();
        write_routes(response, &mut out);
        assert_eq!(out, b"Route: <sip:two;lr>\r\nRoute: <sip:one;lr>\r\n");
    }

    #[test]
    fn a_request_within_the_dialog_goes_where_the_200_says() {
        let mut bye = Within::new("BYE", "b", 2, Transport::Wss, "example.com");
        let values = Values { from: 3, id: 77, ..Values::default() };
        let mut out = Vec::new();
        let to = b"<sip:u0000004@example.com>;tag=c";
        bye.write(b"sip:u0000004@x", b"Route: <sip:a;lr>\r\n", to, &values, &mut out);
        let head = Head::read(&out).unwrap();
        assert_eq!((head.method(), head.target(), head.to), (&b"BYE"[..], Some(4), &to[..]));
        assert!(is_own_via(head.via, 3, 77));
        assert_eq!(sip::message_length(&out).unwrap(), Some(out.len()));
        assert!(sip::lines(&out).any(|(name, value)| name == b"Route" && value == b"<sip:a;lr>"));
    }

    #[test]
    fn an_invite_is_whole() {
        let mut sdp = sdp::template(2000);
        let values = Values { from: 1, to: 2, id: 3, cseq: 0 };
        let length = sdp.fill(&values).len();
        let text = invite_text(Transport::Udp, "example.com", "sip:u0000001@127.0.0.1:9", length);
        let message = [Template::new(&text).fill(&values), sdp.fill(&values)].concat();
        assert_eq!(sip::message_length(&message).unwrap(), Some(message.len()));
        let head = Head::read(&message).unwrap();
        assert_eq!(
            (head.target(), sip::uri(head.contact)),
            (Some(2), Some(&b"sip:u0000001@127.0.0.1:9"[..]))
        );
    }
}
