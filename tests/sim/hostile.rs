//! What clients send that they should not: garbage, tokens that are not theirs, answers to requests
//! that they never got.

use crate::check::Aim;
use crate::client::{Purpose, Request};
use crate::lab::phone::masked_frame;
use crate::message::{Sip, response};
use crate::network::Mark;
use crate::phone::{Phone, PhoneId};
use crate::profile::Chance;
use crate::script::Destination;
use crate::world::{End, World};

/// How tags of who uses another's token begin.
pub const CAPTURED: &str = "cap";

impl World {
    /// Bytes that are no message, or none that can be served.
    pub fn send_garbage(&mut self, phone: PhoneId) {
        if !self.is_online(phone) {
            return;
        }
        let via = self.phones[phone].via("z9hG4bK-g");
        let head = format!("MESSAGE sip:nobody@example.com SIP/2.0\r\nVia: {via}\r\n");
        let kind = self.mood.below(8);
        let bytes: Vec<u8> = match kind {
            0 => self.mood.bytes().to_vec(),
            1 => format!("{head}\r\n").into_bytes(),
            2 => format!(
                "{head}From: <sip:x@y>;tag=1\r\nTo: <sip:x@y>\r\nCall-ID: g\r\n\
CSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
            )
            .into_bytes(),
            3 => format!("{head}X: {}\r\n\r\n", "x".repeat(40_000)).into_bytes(),
            4 => format!("{head}Content-Length: 70000\r\n\r\nnot so long").into_bytes(),
            5 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            6 => format!("SIP/2.0 200 OK\r\nVia: {via}\r\n\r\n").into_bytes(),
            _ => format!("{head}From: \"\0é").into_bytes(),
        };
        let it = &self.phones[phone];
        match it.conn {
            Some(conn) if it.transport.is_websocket() && kind != 0 => {
                self.push(conn, &masked_frame(0x2, &bytes), Mark::None);
            }
            Some(conn) => {
                self.conns[conn].tainted = true;
                self.push(conn, &bytes, Mark::None);
            }
            None => {
                let from = it.address();
                self.send_datagram(from, &bytes);
            }
        }
    }

    /// Somebody tries what is another's.
    pub fn forge(&mut self, phone: PhoneId) {
        if !self.is_online(phone) {
            return;
        }
        match self.mood.below(4) {
            0 => self.forge_response(phone),
            1 => {
                let other = self.mood.below(self.phones.len() as u64) as usize;
                if other != phone && !self.phones[other].is_server() {
                    let uri = self.phones[other].contact();
                    self.ask_plain(phone, "MESSAGE", &Destination::new(&uri, Aim::Nobody), "");
                }
            }
            kind => self.forge_token(phone, kind == 2),
        }
    }

    /// A route set of somebody's dialog in another one, or with another token.
    fn forge_token(&mut self, phone: PhoneId, bend: bool) {
        let mut dialogs = self.phones.iter().flat_map(|it| it.dialogs.values());
        let Some(dialog) = dialogs.find(|it| !it.route.is_empty()) else { return };
        let mut route = dialog.route.clone();
        if bend {
            let value = &route[0];
            let at = value.find("sip").map_or(9, |at| at + 20).min(value.len() - 1);
            let letter = if &value[at..=at] == "A" { "B" } else { "A" };
            route[0].replace_range(at..=at, letter);
        }
        self.next_call += 1;
        let number = self.next_call;
        let request = Request {
            method: "INFO",
            uri: "sip:victim@h.invalid;transport=ws".into(),
            from: format!("<{}>;tag=x{number}", self.phones[phone].aor()),
            to: "<sip:victim@example.com>;tag=y".into(),
            call_id: format!("forged{number}"),
            cseq: 1,
            route,
            more: String::new(),
            body: String::new(),
            attempts: 0,
        };
        self.ask(phone, &request, Aim::Forbidden, Purpose::Plain);
    }

    /// Somebody heard of a dialog's tokens, and uses them for a new request, in another dialog, or with
    /// a letter that is another; a party of the dialog may try as well.
    pub fn capture_token(&mut self, phone: PhoneId) {
        let known = |it: &Phone| -> Vec<(PhoneId, u32)> {
            let dialogs = it.dialogs.iter().filter(|(_, dialog)| !dialog.route.is_empty());
            dialogs.map(|(id, _)| (it.id, *id)).collect()
        };
        let all: Vec<(PhoneId, u32)> = self.phones.iter().flat_map(known).collect();
        if all.is_empty() {
            return;
        }
        let (party, id) = all[self.mood.below(all.len() as u64) as usize];
        let may_try = !self.phones[party].is_server() && self.is_online(party);
        let sender = if may_try && self.mood.happens(Chance(600)) { party } else { phone };
        self.next_call += 1;
        let number = self.next_call;
        let dialog = &self.phones[party].dialogs[&id];
        let (to, mut route) = (dialog.remote.clone(), dialog.route.clone());
        let (plain, call_id) = (untagged(&to).to_string(), dialog.call_id.clone());
        let uri = dialog.target.clone();
        let (method, to, call_id) = match self.mood.below(3) {
            0 => ("MESSAGE", plain, call_id),
            1 => ("INFO", to, format!("{call_id}.{number}")),
            _ => {
                let at = self.mood.below(20) as usize;
                bend_token(&mut route[0], at);
                ("INFO", to, call_id)
            }
        };
        let request = Request {
            method,
            uri,
            from: format!("<{}>;tag={CAPTURED}{number}", self.phones[sender].aor()),
            to,
            call_id,
            cseq: 1,
            route,
            more: String::new(),
            body: String::new(),
            attempts: 0,
        };
        self.ask(sender, &request, Aim::Forbidden, Purpose::Plain);
    }

    /// An answer, by another flow, to a request that went to a stream.
    fn forge_response(&mut self, phone: PhoneId) {
        let own = self.place_of(phone, None);
        let pick = self.mood.below(1 << 20) as usize;
        let Some((branch, serial, end)) = self.books.some_branch(pick) else { return };
        let is_own = matches!(own, Aim::Peer(mine, _) if mine == end);
        let to_stream = matches!(end, End::Flow(_));
        let Some(asked) = self.books.asked(serial) else { return };
        // Clients that came back may answer by their next flow.
        let is_own = is_own || self.books.ways.owner(end) == Some(phone);
        if is_own || !to_stream || asked.sip.method() == "ACK" {
            return;
        }
        let number = self.books.next_answer();
        let text = response(&asked.sip, 200, "forged", &format!("X-Sim: a{number}\r\n"), "");
        let ours = format!("\r\nVia: SIP/2.0/TCP 192.0.2.1:5060;branch={branch}\r\nVia: ");
        let text = text.replacen("\r\nVia: ", &ours, 1);
        let sip = Sip::read(text.as_bytes()).expect("an answer as it should be");
        self.books.answers(serial, sip, true);
        self.transmit(phone, None, &text, Mark::None);
    }
}

/// A To or From value without its tag.
fn untagged(value: &str) -> &str {
    value.split_once(";tag=").map_or(value, |(rest, _)| rest)
}

/// Changes one letter of the token in a Route value.
fn bend_token(value: &mut String, at: usize) {
    let Some(start) = value.find("ft.") else { return };
    let at = start + 3 + at;
    let letter = if &value[at..=at] == "A" { "B" } else { "A" };
    value.replace_range(at..=at, letter);
}
