//! Requests of the simulator's clients: client transactions with their own timers (RFC 3261 §17.1),
//! CANCEL, and what an answer means to them.

use std::time::Duration;

use sipring::base::id::Transport;

use crate::agenda::Happening;
use crate::check::{Aim, serial_of};
use crate::message::Sip;
use crate::network::{ConnId, Mark};
use crate::phone::{Alarm, PhoneId};
use crate::world::World;

pub const T1: Duration = Duration::from_millis(500);
pub const T2: Duration = Duration::from_secs(4);
/// Timers B, F, H, J, L and M.
pub const PATIENCE: Duration = Duration::from_secs(32);

/// Why a request was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    Register,
    Plain,
    Invite,
    Reinvite(u32),
    InDialog(u32),
    Bye(u32),
    Cancel,
    Ack,
}

/// A request in the making.
#[derive(Clone)]
pub struct Request {
    pub method: &'static str,
    pub uri: String,
    pub from: String,
    pub to: String,
    pub call_id: String,
    pub cseq: u32,
    pub route: Vec<String>,
    pub more: String,
    pub body: String,
    /// Challenges that it has answered.
    pub attempts: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Calling,
    Proceeding,
    Done,
}

/// One request that waits for its answer.
pub struct ClientTx {
    text: String,
    pub sip: Sip,
    /// What it was made of, for another one with a proof.
    request: Option<(Request, Aim)>,
    state: State,
    interval: Duration,
    purpose: Purpose,
    pub conn: Option<ConnId>,
    /// The caller does not want it any more; the number of its CANCEL.
    unwanted: bool,
    cancel: Option<u32>,
    ack: Option<(String, u32)>,
}

impl World {
    /// Sends a request with a number of its own, and watches over it.
    pub fn ask(&mut self, phone: PhoneId, request: &Request, aim: Aim, purpose: Purpose) -> u32 {
        let serial = self.books.next_serial();
        let branch = format!("z9hG4bK-s{serial}");
        let proof = self.credentials(phone, request);
        let text = self.write_request(phone, request, &branch, Some(serial), &proof);
        let known = self.profile.house.digest.then(|| (request.clone(), aim.clone()));
        self.track(phone, serial, text, aim, purpose);
        if let Some(tx) = self.phones[phone].clients.get_mut(&serial) {
            tx.request = known;
        }
        serial
    }

    fn track(&mut self, phone: PhoneId, serial: u32, text: String, aim: Aim, purpose: Purpose) {
        let sip = Sip::read(text.as_bytes()).expect("a request as it should be");
        self.books.asks(phone, sip.clone(), aim);
        self.transmit(phone, None, &text, Mark::Request(serial));
        if purpose == Purpose::Ack {
            return;
        }
        let it = &self.phones[phone];
        let (conn, is_udp) = (it.conn, it.transport == Transport::Udp);
        let tx = ClientTx {
            text,
            sip,
            request: None,
            state: State::Calling,
            interval: T1,
            purpose,
            conn,
            unwanted: false,
            cancel: None,
            ack: None,
        };
        self.phones[phone].clients.insert(serial, tx);
        if is_udp {
            self.after(T1, Happening::Rings { phone, alarm: Alarm::Resend(serial) });
        }
        self.after(PATIENCE, Happening::Rings { phone, alarm: Alarm::GiveUp(serial) });
    }

    fn write_request(
        &self,
        phone: PhoneId,
        request: &Request,
        branch: &str,
        serial: Option<u32>,
        proof: &str,
    ) -> String {
        let via = self.phones[phone].via(branch);
        let Request { method, uri, from, to, call_id, cseq, route, more, body, .. } = request;
        let routes: String = route.iter().map(|value| format!("Route: {value}\r\n")).collect();
        let number = serial.map(|it| format!("X-Sim: {it}\r\n")).unwrap_or_default();
        let asserted = match self.profile.house.digest && serial.is_some_and(|it| it % 3 == 0) {
            true => "sip:boss@example.com".into(),
            false => self.phones[phone].aor(),
        };
        let identity = format!("P-Asserted-Identity: <{asserted}>\r\n");
        let identity = if *method == "MESSAGE" { identity } else { String::new() };
        format!(
            "{method} {uri} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\n{routes}From: {from}\r\n\
To: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n{number}{identity}{proof}{more}\
Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Timers A and E.
    pub fn resend(&mut self, phone: PhoneId, serial: u32) {
        let Some(tx) = self.phones[phone].clients.get_mut(&serial) else { return };
        let is_invite = tx.sip.method() == "INVITE";
        if tx.state == State::Done || is_invite && tx.state == State::Proceeding {
            return;
        }
        tx.interval = match (is_invite, tx.state) {
            (true, _) => tx.interval * 2,
            (false, State::Proceeding) => T2,
            (false, _) => (tx.interval * 2).min(T2),
        };
        let (text, wait) = (tx.text.clone(), tx.interval);
        self.transmit(phone, None, &text, Mark::Request(serial));
        self.after(wait, Happening::Rings { phone, alarm: Alarm::Resend(serial) });
    }

    /// Timers B and F. An INVITE that rings is not given up: the proxy ends it.
    pub fn give_up(&mut self, phone: PhoneId, serial: u32) {
        let Some(tx) = self.phones[phone].clients.get(&serial) else { return };
        if tx.state == State::Done || tx.sip.method() == "INVITE" && tx.state == State::Proceeding {
            return;
        }
        let purpose = tx.purpose;
        self.phones[phone].clients.remove(&serial);
        self.on_outcome(phone, purpose, 0, None);
    }

    pub fn on_response(&mut self, phone: PhoneId, sip: &Sip) {
        let Some(mut serial) = serial_of(sip.branch()) else { return };
        let clients = &mut self.phones[phone].clients;
        if sip.cseq().1 == "CANCEL" {
            let cancel = clients.get(&serial).and_then(|tx| tx.cancel);
            let Some(cancel) = cancel else { return };
            serial = cancel;
        }
        let Some(tx) = clients.get_mut(&serial) else { return };
        let status = sip.status();
        if tx.sip.method() == "INVITE" {
            return self.on_invite_response(phone, serial, status, sip);
        }
        if status < 200 {
            tx.state = State::Proceeding;
        } else if tx.state != State::Done {
            tx.state = State::Done;
            let purpose = tx.purpose;
            let request = clients.remove(&serial).and_then(|tx| tx.request);
            if !self.is_challenged(phone, request, purpose, sip) {
                self.on_outcome(phone, purpose, status, Some(sip));
            }
        }
    }

    fn on_invite_response(&mut self, phone: PhoneId, serial: u32, status: u16, sip: &Sip) {
        let Some(tx) = self.phones[phone].clients.get_mut(&serial) else { return };
        let purpose = tx.purpose;
        match status {
            0..200 => {
                let wants = tx.state == State::Calling && tx.unwanted;
                if tx.state == State::Calling {
                    tx.state = State::Proceeding;
                }
                if wants {
                    self.cancel(phone, serial);
                }
            }
            200..300 => {
                let first = tx.state != State::Done;
                tx.state = State::Done;
                let unwanted = tx.unwanted || !first;
                self.accepted(phone, serial, purpose, sip, unwanted);
                if first {
                    let alarm = Alarm::Forget(serial);
                    self.after(PATIENCE * 2, Happening::Rings { phone, alarm });
                }
            }
            _ => self.on_refused(phone, serial, sip),
        }
    }

    /// A final response other than 2xx gets its ACK, however often it comes.
    fn on_refused(&mut self, phone: PhoneId, serial: u32, sip: &Sip) {
        let Some(tx) = self.phones[phone].clients.get_mut(&serial) else { return };
        let is_first = tx.state != State::Done;
        tx.state = State::Done;
        let purpose = tx.purpose;
        let request = tx.request.take().filter(|_| !tx.unwanted);
        let known = tx.ack.clone();
        match known {
            Some((ack, number)) => self.transmit(phone, None, &ack, Mark::Request(number)),
            None => self.refuse_back(phone, serial, sip.header("To")),
        }
        if is_first {
            let alarm = Alarm::Forget(serial);
            self.after(PATIENCE, Happening::Rings { phone, alarm });
            if !self.is_challenged(phone, request, purpose, sip) {
                self.on_outcome(phone, purpose, sip.status(), Some(sip));
            }
        }
    }

    /// Whether somebody wanted a proof and has got it.
    fn is_challenged(
        &mut self,
        phone: PhoneId,
        request: Option<(Request, Aim)>,
        purpose: Purpose,
        sip: &Sip,
    ) -> bool {
        let is_challenge = matches!(sip.status(), 401 | 407);
        let Some((request, aim)) = request.filter(|_| is_challenge) else { return false };
        self.answer_challenge(phone, &request, &aim, purpose, sip)
    }

    /// The ACK of a refusal ends at the next hop. In a dialog a hop that keeps no transaction
    /// cannot tell it from that of a 2xx and may send it on.
    fn refuse_back(&mut self, phone: PhoneId, serial: u32, to: &str) {
        let number = self.books.next_serial();
        let is_initial = |invite: &Sip| invite.tag("To").is_empty();
        let aim = self.books.asked(serial).filter(|it| !is_initial(&it.sip));
        let aim = aim.map_or(Aim::Hop, |it| it.aim.clone());
        let Some(tx) = self.phones[phone].clients.get_mut(&serial) else { return };
        let text = hop_request("ACK", &tx.sip, to, &format!("X-Sim: {number}\r\n"));
        tx.ack = Some((text.clone(), number));
        self.track(phone, number, text, aim, Purpose::Ack);
    }

    /// The caller changed its mind: CANCEL as soon as something came back (RFC 3261 §9.1).
    pub fn cancel(&mut self, phone: PhoneId, serial: u32) {
        let number = self.books.next_serial();
        let Some(tx) = self.phones[phone].clients.get_mut(&serial) else { return };
        if tx.state == State::Done || tx.cancel.is_some() {
            return;
        }
        tx.unwanted = true;
        if tx.state == State::Calling {
            return;
        }
        tx.cancel = Some(number);
        let more = format!("X-Sim: {number}\r\n");
        let text = hop_request("CANCEL", &tx.sip, tx.sip.header("To"), &more);
        self.track(phone, number, text, Aim::Hop, Purpose::Cancel);
    }

    /// What came of a request; status 0: nothing.
    fn on_outcome(&mut self, phone: PhoneId, purpose: Purpose, status: u16, sip: Option<&Sip>) {
        match purpose {
            Purpose::Register => self.on_registered(phone, status, sip),
            Purpose::Reinvite(dialog) => self.on_reinvited(phone, dialog, status),
            Purpose::InDialog(dialog) if matches!(status, 0 | 403 | 408 | 430 | 480 | 481) => {
                self.phones[phone].dialogs.remove(&dialog);
            }
            Purpose::Bye(dialog) => {
                self.phones[phone].dialogs.remove(&dialog);
            }
            _ => {}
        }
    }
}

/// CANCEL of an INVITE, or ACK of its refusal: same branch, same Route (RFC 3261 §9.1, §17.1.1.3).
fn hop_request(method: &str, invite: &Sip, to: &str, more: &str) -> String {
    let routes: String = invite.all("Route").map(|value| format!("Route: {value}\r\n")).collect();
    format!(
        "{method} {} SIP/2.0\r\nVia: {}\r\nMax-Forwards: 70\r\n{routes}From: {}\r\nTo: {to}\r\n\
Call-ID: {}\r\nCSeq: {} {method}\r\n{more}Content-Length: 0\r\n\r\n",
        invite.uri(),
        invite.header("Via"),
        invite.header("From"),
        invite.call_id(),
        invite.cseq().0,
    )
}
