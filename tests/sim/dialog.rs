//! Dialogs of the simulator's clients (RFC 3261 §12): ACK to 2xx, requests in both directions by
//! the route set, re-INVITE and its glare (§14), BYE.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::agenda::Happening;
use crate::check::Aim;
use crate::client::{Purpose, Request};
use crate::message::Sip;
use crate::network::Mark;
use crate::phone::{Alarm, PhoneId};
use crate::profile::Chance;
use crate::script::Destination;
use crate::server::Step;
use crate::world::World;

/// One end's view of a dialog.
pub struct Dialog {
    pub call_id: String,
    pub local_tag: String,
    pub remote_tag: String,
    local: String,
    pub remote: String,
    pub route: Vec<String>,
    pub target: String,
    cseq: u32,
    /// The INVITE that made it, if this end sent it.
    invite: Option<u32>,
    /// ACKs by the CSeq of their INVITE, once sent.
    acks: BTreeMap<u32, (String, u32)>,
    /// CSeq of the INVITE whose ACK is due.
    unacknowledged: u32,
    /// An INVITE of this end waits for its answer.
    inviting: bool,
    talks: u32,
}

impl World {
    /// A call to somebody.
    pub fn call(&mut self, phone: PhoneId, to: &Destination) {
        let Destination { uri, route, aim } = to.clone();
        self.next_call += 1;
        let number = self.next_call;
        let it = &self.phones[phone];
        let (aor, contact) = (it.aor(), it.contact());
        let tag = format!("f{number}");
        let request = Request {
            method: "INVITE",
            from: format!("<{aor}>;tag={tag}"),
            to: format!("<{uri}>"),
            uri,
            call_id: format!("call{number}"),
            cseq: 1,
            route,
            more: format!("Contact: <{contact}>\r\nContent-Type: application/sdp\r\n"),
            body: "v=0\r\no=- 1 1 IN IP4 203.0.113.1\r\ns=→\r\n".into(),
            attempts: 0,
        };
        let place = self.place_of(phone, None);
        self.ends.insert((request.call_id.clone(), tag), place);
        let serial = self.ask(phone, &request, aim, Purpose::Invite);
        if self.mood.happens(self.profile.cancels) {
            let wait = self.mood.between(Duration::ZERO, Duration::from_secs(5));
            self.after(wait, Happening::Rings { phone, alarm: Alarm::Cancel(serial) });
        } else {
            self.will_cancel(phone, serial);
        }
    }

    /// A 2xx to an INVITE of this phone, perhaps once more.
    pub fn accepted(
        &mut self,
        phone: PhoneId,
        serial: u32,
        purpose: Purpose,
        sip: &Sip,
        unwanted: bool,
    ) {
        let tag = sip.tag("To");
        let dialogs = &self.phones[phone].dialogs;
        let known = match purpose {
            Purpose::Reinvite(dialog) => dialogs.contains_key(&dialog).then_some(dialog),
            _ => dialogs
                .iter()
                .find(|(_, it)| it.invite == Some(serial) && it.remote_tag == tag)
                .map(|(id, _)| *id),
        };
        let cseq = sip.cseq().0;
        let again = known.and_then(|id| dialogs[&id].acks.get(&cseq).cloned());
        if let Some((ack, number)) = again {
            return self.transmit(phone, None, &ack, Mark::Request(number));
        }
        let id = match (known, purpose) {
            (Some(id), _) => id,
            (None, Purpose::Reinvite(_)) => return,
            (None, _) => self.open_dialog(phone, serial, sip, unwanted),
        };
        let dialog = self.phones[phone].dialogs.get_mut(&id).expect("it is there");
        dialog.inviting = false;
        if dialog.unacknowledged == cseq {
            return;
        }
        dialog.unacknowledged = cseq;
        let is_late = self.mood.happens(self.profile.late_ack);
        let most = if is_late { Duration::from_secs(20) } else { Duration::from_millis(5) };
        let wait = self.mood.between(Duration::ZERO, most);
        self.after(wait, Happening::Rings { phone, alarm: Alarm::Ack(id) });
    }

    fn open_dialog(&mut self, phone: PhoneId, serial: u32, sip: &Sip, unwanted: bool) -> u32 {
        let mut route = sip.record_route();
        route.reverse();
        let dialog = Dialog {
            call_id: sip.call_id().into(),
            local_tag: sip.tag("From").into(),
            remote_tag: sip.tag("To").into(),
            local: sip.header("From").into(),
            remote: sip.header("To").into(),
            route,
            target: sip.contact().into(),
            cseq: sip.cseq().0,
            invite: Some(serial),
            acks: BTreeMap::new(),
            unacknowledged: 0,
            inviting: false,
            talks: if unwanted { 0 } else { self.mood.below(6) as u32 },
        };
        self.next_call += 1;
        let id = self.next_call;
        self.phones[phone].dialogs.insert(id, dialog);
        let wait = Duration::from_millis(if unwanted { 30 } else { 300 });
        self.after(wait, Happening::Rings { phone, alarm: Alarm::Talk(id) });
        id
    }

    /// ACK to a 2xx: a request of the dialog (RFC 3261 §13.2.2.4).
    pub fn acknowledge(&mut self, phone: PhoneId, id: u32) {
        let Some(dialog) = self.phones[phone].dialogs.get(&id) else { return };
        let cseq = dialog.unacknowledged;
        if dialog.acks.contains_key(&cseq) || !self.is_online(phone) {
            return;
        }
        let serial = self.ask_in(phone, id, "ACK", cseq, Purpose::Ack);
        let text = match self.books.asked(serial) {
            Some(asked) => String::from_utf8_lossy(asked.sip.bytes()).into_owned(),
            None => return,
        };
        let dialog = self.phones[phone].dialogs.get_mut(&id).expect("it was there");
        dialog.acks.insert(cseq, (text, serial));
    }

    /// A request of the dialog, by its route set.
    fn ask_in(
        &mut self,
        phone: PhoneId,
        id: u32,
        method: &'static str,
        cseq: u32,
        purpose: Purpose,
    ) -> u32 {
        let dialog = &self.phones[phone].dialogs[&id];
        let key = (dialog.call_id.clone(), dialog.remote_tag.clone());
        let aim = self.ends.get(&key).cloned().unwrap_or(Aim::Nobody);
        let contact = format!("Contact: <{}>\r\n", self.phones[phone].contact());
        let request = Request {
            method,
            uri: dialog.target.clone(),
            from: dialog.local.clone(),
            to: dialog.remote.clone(),
            call_id: dialog.call_id.clone(),
            cseq,
            route: dialog.route.clone(),
            more: if method == "INVITE" { contact } else { String::new() },
            body: if method == "INFO" { "Signal=5\r\n".into() } else { String::new() },
            attempts: 0,
        };
        self.ask(phone, &request, aim, purpose)
    }

    fn next_cseq(&mut self, phone: PhoneId, id: u32) -> u32 {
        let dialog = self.phones[phone].dialogs.get_mut(&id).expect("the caller looked");
        dialog.cseq += 1;
        dialog.cseq
    }

    /// The dialog goes on: a request within it, or its end.
    pub fn talk(&mut self, phone: PhoneId, id: u32) {
        let Some(dialog) = self.phones[phone].dialogs.get_mut(&id) else { return };
        if dialog.talks == 0 || self.is_over {
            return self.bye(phone, id);
        }
        dialog.talks -= 1;
        let (call_id, tag) = (dialog.call_id.clone(), dialog.remote_tag.clone());
        if self.mood.happens(self.profile.glare) {
            self.reinvite(phone, id);
            let other = self.phones.iter().find_map(|it| {
                let is_it = |dialog: &Dialog| dialog.call_id == call_id && dialog.local_tag == tag;
                it.dialogs.iter().find(|(_, dialog)| is_it(dialog)).map(|(id, _)| (it.id, *id))
            });
            if let Some((other, dialog)) = other {
                self.reinvite(other, dialog);
            }
        } else if self.mood.happens(Chance(250)) {
            self.reinvite(phone, id);
        } else if self.is_online(phone) {
            let cseq = self.next_cseq(phone, id);
            self.ask_in(phone, id, "INFO", cseq, Purpose::InDialog(id));
        }
        let wait = self.mood.between(Duration::from_millis(100), Duration::from_secs(6));
        self.after(wait, Happening::Rings { phone, alarm: Alarm::Talk(id) });
    }

    pub fn reinvite(&mut self, phone: PhoneId, id: u32) {
        let Some(dialog) = self.phones[phone].dialogs.get_mut(&id) else { return };
        if dialog.inviting {
            return;
        }
        dialog.inviting = true;
        let cseq = self.next_cseq(phone, id);
        self.ask_in(phone, id, "INVITE", cseq, Purpose::Reinvite(id));
    }

    /// A re-INVITE was refused (or nothing came). After 491 it is tried again (RFC 3261 §14.1).
    pub fn on_reinvited(&mut self, phone: PhoneId, id: u32, status: u16) {
        let Some(dialog) = self.phones[phone].dialogs.get_mut(&id) else { return };
        dialog.inviting = false;
        match status {
            491 if !self.is_over => {
                let wait = self.mood.between(Duration::from_millis(10), Duration::from_secs(4));
                self.after(wait, Happening::Rings { phone, alarm: Alarm::Reinvite(id) });
            }
            0 | 403 | 408 | 430 | 480 | 481 => {
                self.phones[phone].dialogs.remove(&id);
            }
            _ => {}
        }
    }

    pub fn bye(&mut self, phone: PhoneId, id: u32) {
        if !self.phones[phone].dialogs.contains_key(&id) || !self.is_online(phone) {
            return;
        }
        let cseq = self.next_cseq(phone, id);
        self.ask_in(phone, id, "BYE", cseq, Purpose::Bye(id));
    }

    /// This callee takes the call.
    pub fn accept(&mut self, phone: PhoneId, key: &str) {
        let tag = self.tag_of(phone, key);
        let Some(tx) = self.phones[phone].servers.get_mut(key) else { return };
        let sip = tx.request.clone();
        if !sip.tag("To").is_empty() {
            return;
        }
        self.next_call += 1;
        let id = self.next_call;
        tx.dialog = Some(id);
        let dialog = Dialog {
            call_id: sip.call_id().into(),
            local_tag: tag.clone(),
            remote_tag: sip.tag("From").into(),
            local: format!("{};tag={tag}", sip.header("To")),
            remote: sip.header("From").into(),
            route: sip.record_route(),
            target: sip.contact().into(),
            cseq: 0,
            invite: None,
            acks: BTreeMap::new(),
            unacknowledged: 0,
            inviting: false,
            talks: 1 + self.mood.below(6) as u32,
        };
        self.phones[phone].dialogs.insert(id, dialog);
        let wait = self.mood.between(Duration::from_millis(500), Duration::from_secs(8));
        self.after(wait, Happening::Rings { phone, alarm: Alarm::Talk(id) });
    }

    fn dialog_of(&self, phone: PhoneId, sip: &Sip) -> Option<u32> {
        let (local, remote) = (sip.tag("To"), sip.tag("From"));
        let is_it = |dialog: &Dialog| {
            dialog.call_id == sip.call_id()
                && dialog.local_tag == local
                && dialog.remote_tag == remote
        };
        self.phones[phone].dialogs.iter().find(|(_, it)| is_it(it)).map(|(id, _)| *id)
    }

    pub fn on_reinvite(&mut self, phone: PhoneId, key: &str) {
        let Some(request) = self.phones[phone].servers.get(key).map(|tx| tx.request.clone()) else {
            return;
        };
        let Some(id) = self.dialog_of(phone, &request) else {
            return self.answer(phone, key, 481);
        };
        if self.phones[phone].dialogs[&id].inviting {
            return self.answer(phone, key, 491);
        }
        if let Some(tx) = self.phones[phone].servers.get_mut(key) {
            tx.dialog = Some(id);
        }
        let wait = self.mood.between(Duration::ZERO, Duration::from_millis(200));
        self.plan(phone, key, wait, Step::Final(200));
    }

    /// INFO, BYE and the like.
    pub fn on_dialog_request(&mut self, phone: PhoneId, key: &str) {
        let Some(request) = self.phones[phone].servers.get(key).map(|tx| tx.request.clone()) else {
            return;
        };
        let Some(id) = self.dialog_of(phone, &request) else {
            return self.answer(phone, key, 481);
        };
        self.answer(phone, key, 200);
        if request.method() == "BYE" {
            self.phones[phone].dialogs.remove(&id);
        }
    }
}
