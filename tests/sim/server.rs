//! Requests that the simulator's clients get: server transactions with their own timers (RFC 3261
//! §17.2), and what a callee does, behaving or not.

use std::time::Duration;

use sipring::base::id::Transport;

use crate::agenda::Happening;
use crate::client::{PATIENCE, T1, T2};
use crate::message::{Sip, response};
use crate::network::{ConnId, Mark};
use crate::phone::{Alarm, PhoneId};
use crate::profile::Chance;
use crate::world::World;

/// One step of answering.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Provisional(u16),
    Final(u16),
}

/// One request, and the answer so far.
pub struct ServerTx {
    pub request: Sip,
    last: String,
    /// The number of that answer.
    mark: Mark,
    pub status: u16,
    pub conn: Option<ConnId>,
    /// The tag of this callee.
    tag: String,
    /// A 2xx is repeated until its ACK comes, whatever the transport.
    pub is_acked: bool,
    pub dialog: Option<u32>,
    started: sipring::base::time::Time,
}

/// CANCEL and ACK share the branch of their INVITE.
pub fn key_of(sip: &Sip) -> String {
    let kind = match sip.cseq().1 {
        "CANCEL" => "c",
        _ => "",
    };
    format!("{kind}{}", sip.branch())
}

impl World {
    pub fn on_request(&mut self, phone: PhoneId, conn: Option<ConnId>, sip: &Sip) {
        let key = key_of(sip);
        if sip.method() == "ACK" {
            return self.on_ack(phone, &key, sip);
        }
        if let Some(tx) = self.phones[phone].servers.get(&key) {
            let (last, mark, conn) = (tx.last.clone(), tx.mark, tx.conn);
            if !last.is_empty() {
                self.transmit(phone, conn, &last, mark);
            }
            return;
        }
        let tx = ServerTx {
            request: sip.clone(),
            last: String::new(),
            mark: Mark::None,
            status: 0,
            conn,
            tag: format!("t{phone}x{}", self.phones[phone].servers.len() + self.next_call as usize),
            is_acked: false,
            dialog: None,
            started: self.now,
        };
        if sip.tag("To").is_empty() {
            let place = self.place_of(phone, conn);
            self.ends.insert((sip.call_id().into(), tx.tag.clone()), place);
        }
        self.phones[phone].servers.insert(key.clone(), tx);
        // Beyond any repeat of the request.
        let wait = PATIENCE * 8;
        let alarm = Alarm::ForgetServer(key.clone());
        self.after(wait, Happening::Rings { phone, alarm });
        match sip.method() {
            "REGISTER" => self.enrol(phone, &key),
            "INVITE" if sip.tag("To").is_empty() => self.ring_callee(phone, &key),
            "INVITE" => self.on_reinvite(phone, &key),
            "CANCEL" => self.on_cancel(phone, &key),
            "INFO" if sip.number().is_none() => self.on_question(phone, &key),
            "OPTIONS" if sip.number().is_none() => self.answer(phone, &key, 200),
            _ if !sip.tag("To").is_empty() => self.on_dialog_request(phone, &key),
            _ => self.answer_plain(phone, &key),
        }
    }

    /// MESSAGE, NOTIFY and the like outside of dialogs.
    fn answer_plain(&mut self, phone: PhoneId, key: &str) {
        if self.mood.happens(self.profile.deaf) {
            return;
        }
        let refuses = self.mood.happens(Chance(self.profile.refuses.0 / 2));
        let status = if refuses { self.mood.pick(&[404, 480, 486, 500, 503, 603]) } else { 200 };
        let wait = self.mood.between(Duration::ZERO, Duration::from_millis(300));
        let is_slow = self.mood.happens(self.profile.only_trying);
        let wait = if is_slow { wait * 40 } else { wait };
        self.plan(phone, key, wait, Step::Final(status));
    }

    /// A call comes in: it rings, and then whatever this callee does.
    fn ring_callee(&mut self, phone: PhoneId, key: &str) {
        let profile = self.profile.clone();
        if self.mood.happens(profile.deaf) {
            return;
        }
        let mut wait = Duration::from_millis(5);
        if self.mood.happens(Chance(500)) {
            self.plan(phone, key, wait, Step::Provisional(100));
        }
        if self.mood.happens(profile.only_trying) {
            return;
        }
        for _ in 0..=self.mood.below(2) {
            wait += self.mood.between(Duration::from_millis(5), Duration::from_millis(800));
            let status = self.mood.pick(&[180, 180, 183]);
            self.plan(phone, key, wait, Step::Provisional(status));
        }
        if self.mood.happens(profile.only_ringing) {
            return;
        }
        wait += self.mood.between(Duration::from_millis(5), Duration::from_secs(4));
        let refuses = self.mood.happens(profile.refuses);
        let status =
            if refuses { self.mood.pick(&[302, 404, 480, 486, 488, 500, 503, 603]) } else { 200 };
        self.plan(phone, key, wait, Step::Final(status));
    }

    pub fn plan(&mut self, phone: PhoneId, key: &str, wait: Duration, step: Step) {
        self.after(wait, Happening::Rings { phone, alarm: Alarm::Answer(key.into(), step) });
    }

    pub fn answer_step(&mut self, phone: PhoneId, key: &str, step: Step) {
        let Some(tx) = self.phones[phone].servers.get(key) else { return };
        if tx.status >= 200 {
            return;
        }
        let is_invite = tx.request.method() == "INVITE";
        let (Step::Provisional(status) | Step::Final(status)) = step;
        if is_invite && (200..300).contains(&status) {
            self.accept(phone, key);
        }
        self.answer(phone, key, status);
    }

    /// Answers now.
    pub fn answer(&mut self, phone: PhoneId, key: &str, status: u16) {
        let Some(tx) = self.phones[phone].servers.get(key) else { return };
        let (request, tag, conn) = (tx.request.clone(), tx.tag.clone(), tx.conn);
        let number = self.books.next_answer();
        let contact = match request.method() {
            "REGISTER" if status < 300 => self.list_enrolled(&request),
            "REGISTER" => String::new(),
            _ => format!("Contact: <{}>\r\n", self.phones[phone].contact()),
        };
        let more = format!("X-Sim: a{number}\r\n{contact}");
        let body =
            if status == 200 && request.method() == "INVITE" { "v=0\r\ns=ö\r\n" } else { "" };
        let tag = if status == 100 { "" } else { tag.as_str() };
        let text = response(&request, status, tag, &more, body);
        let text = self.bend_vias(text);
        let sip = Sip::read(text.as_bytes()).expect("an answer as it should be");
        let asked = request.number().and_then(|it| it.parse().ok()).unwrap_or(u32::MAX);
        self.books.answers(asked, sip, false);
        let Some(tx) = self.phones[phone].servers.get_mut(key) else { return };
        tx.status = status;
        tx.last.clone_from(&text);
        tx.mark = Mark::Answer(number);
        self.transmit(phone, conn, &text, Mark::Answer(number));
        let is_udp = self.phones[phone].transport == Transport::Udp;
        if request.method() == "INVITE" && status >= 200 && (is_udp || status < 300) {
            let alarm = Alarm::Repeat(key.into(), T1);
            self.after(T1, Happening::Rings { phone, alarm });
        }
    }

    /// Some answers have a wrong Via: another branch, or not those below it.
    fn bend_vias(&mut self, text: String) -> String {
        if !self.mood.happens(self.profile.wrong_via) {
            return text;
        }
        if self.mood.happens(Chance(500)) {
            return text.replacen("branch=", "branch=z9hG4bKx", 1);
        }
        let mut is_first = true;
        let keeps = |line: &&str| !line.starts_with("Via: ") || std::mem::take(&mut is_first);
        text.split("\r\n").filter(keeps).collect::<Vec<_>>().join("\r\n")
    }

    /// Timer G, and the repeats of a 2xx (RFC 3261 §13.3.1.4).
    pub fn repeat(&mut self, phone: PhoneId, key: String, wait: Duration) {
        let Some(tx) = self.phones[phone].servers.get(&key) else { return };
        if tx.is_acked {
            return;
        }
        if self.now.saturating_since(tx.started) > PATIENCE * 3 {
            if let Some(dialog) = tx.dialog {
                self.bye(phone, dialog);
            }
            return;
        }
        let (last, mark, conn) = (tx.last.clone(), tx.mark, tx.conn);
        self.transmit(phone, conn, &last, mark);
        let wait = (wait * 2).min(T2);
        self.after(wait, Happening::Rings { phone, alarm: Alarm::Repeat(key, wait) });
    }

    /// An ACK of a refusal has the branch of its INVITE; that of a 2xx is found by its dialog.
    fn on_ack(&mut self, phone: PhoneId, key: &str, sip: &Sip) {
        let tag = sip.tag("To");
        let number = sip.cseq().0;
        for (other, tx) in &mut self.phones[phone].servers {
            let is_mine = other == key
                || tx.request.method() == "INVITE"
                    && tx.request.cseq().0 == number
                    && tx.request.call_id() == sip.call_id()
                    && (tx.tag == tag || tx.request.tag("To") == tag);
            tx.is_acked |= is_mine && tx.status >= 200;
        }
    }

    /// The proxy asks a caller that came back whether it knows the call (RFC 3261 §12.2.2).
    fn on_question(&mut self, phone: PhoneId, key: &str) {
        let it = &self.phones[phone];
        let Some(question) = it.servers.get(key).map(|tx| &tx.request) else { return };
        let is_mine =
            |call_id: &str, tag: &str| call_id == question.call_id() && tag == question.tag("To");
        let knows = it
            .clients
            .values()
            .any(|tx| tx.sip.method() == "INVITE" && is_mine(tx.sip.call_id(), tx.sip.tag("From")));
        let has_dialog = it.dialogs.values().any(|it| is_mine(&it.call_id, &it.local_tag));
        self.answer(phone, key, if knows || has_dialog { 200 } else { 481 });
    }

    fn on_cancel(&mut self, phone: PhoneId, key: &str) {
        let invite = key.trim_start_matches('c').to_string();
        let Some(tx) = self.phones[phone].servers.get(&invite) else {
            return self.answer(phone, key, 481);
        };
        let is_waiting = tx.status < 200;
        self.answer(phone, key, 200);
        if is_waiting {
            self.answer(phone, &invite, 487);
        }
    }

    pub fn tag_of(&self, phone: PhoneId, key: &str) -> String {
        self.phones[phone].servers.get(key).map(|tx| tx.tag.clone()).unwrap_or_default()
    }
}
