//! A call between two clients whose flows come and go.

use super::client::Client;
use crate::support::call::{self, SDP};
use crate::support::check::{forwarded, returned};
use crate::support::link::Transport;
use crate::support::phone::Phone;
use crate::support::sip::{Draft, Message};
use crate::support::{Dialog, still};

/// What holds a call (RFC 3264 §8.4).
const HOLD: &str = "a=sendonly\r\n";

/// One side of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Caller,
    Callee,
}

pub const SIDES: [Side; 2] = [Side::Caller, Side::Callee];

impl Side {
    pub fn other(self) -> Side {
        if self == Side::Caller { Side::Callee } else { Side::Caller }
    }
}

/// A call from one to the other.
pub struct Talk {
    pub caller: Client,
    pub callee: Client,
    /// As the caller sent it.
    invite: Message,
    /// As the callee got it.
    heard: Message,
    dialogs: Option<[Dialog; 2]>,
}

/// A request that was sent, and to whom.
pub struct Asked {
    draft: Draft,
    from: Side,
}

impl Asked {
    /// Its Call-ID.
    pub fn call_id(&self) -> &str {
        self.draft.value("Call-ID")
    }
}

impl Talk {
    /// INVITE and 180.
    #[track_caller]
    pub fn ring(caller: Client, callee: Client) -> Talk {
        let (mut caller, mut callee) = (caller, callee);
        let draft = caller.phone.draft("INVITE", &callee.phone.aor());
        let draft = draft.body("application/sdp", SDP);
        caller.phone.send(&draft.build());
        let invite = draft.message();
        let heard = callee.phone.request("INVITE");
        forwarded(&invite, &heard, Transport::Wss, &callee.phone.contact);
        caller.phone.status(100);
        let mut talk = Talk { caller, callee, invite, heard, dialogs: None };
        talk.say(180);
        talk.hear(180);
        talk
    }

    /// 200 and ACK.
    #[track_caller]
    pub fn answer(&mut self) {
        self.say(200);
        self.acknowledge();
    }

    /// The callee answers, on the flow that it has.
    #[track_caller]
    pub fn say(&mut self, status: u16) {
        let response = self.response(status);
        self.callee.phone.respond(&self.heard, &response);
    }

    /// What the callee answers, always the same bytes.
    pub fn response(&self, status: u16) -> Draft {
        let response = self.callee.phone.response(&self.heard, status);
        if status == 200 { response.body("application/sdp", SDP) } else { response }
    }

    /// The caller gets that answer next.
    #[track_caller]
    pub fn hear(&mut self, status: u16) -> Message {
        let got = self.caller.phone.status(status);
        returned(&self.invite, &self.response(status).message(), &got);
        got
    }

    /// The caller gets the 200 and acknowledges it.
    #[track_caller]
    pub fn acknowledge(&mut self) {
        let ok = self.hear(200);
        let mut caller = Dialog::of_caller(&ok);
        let callee = Dialog::of_callee(&self.heard, &self.response(200).message());
        let ack = caller.draft(&self.caller.phone, "ACK");
        self.caller.phone.send(&ack.build());
        let got = self.callee.phone.request("ACK");
        forwarded(&ack.message(), &got, Transport::Wss, &caller.target);
        self.dialogs = Some([caller, callee]);
    }

    pub fn side(&mut self, side: Side) -> &mut Client {
        match side {
            Side::Caller => &mut self.caller,
            Side::Callee => &mut self.callee,
        }
    }

    /// That side's view of the dialog.
    pub fn dialog(&mut self, side: Side) -> &mut Dialog {
        self.parts(side).0
    }

    /// That side's dialog, its phone and the other one's.
    fn parts(&mut self, from: Side) -> (&mut Dialog, &mut Phone, &mut Phone) {
        let [of_caller, of_callee] = self.dialogs.as_mut().expect("it was answered");
        let (caller, callee) = (&mut self.caller.phone, &mut self.callee.phone);
        match from {
            Side::Caller => (of_caller, caller, callee),
            Side::Callee => (of_callee, callee, caller),
        }
    }

    /// One request in that direction, its answer, and the ACK of an INVITE.
    #[track_caller]
    pub fn exchange(&mut self, from: Side, method: &str) {
        let asked = self.ask(from, method);
        self.serve(&asked);
    }

    /// That side puts the call on hold.
    #[track_caller]
    pub fn hold(&mut self, from: Side) {
        let (dialog, phone, _) = self.parts(from);
        let draft = dialog.offer(phone, &format!("{SDP}{HOLD}"));
        phone.send(&draft.build());
        self.serve(&Asked { draft, from });
    }

    /// That side sends a request in the dialog.
    #[track_caller]
    pub fn ask(&mut self, from: Side, method: &str) -> Asked {
        let (dialog, phone, _) = self.parts(from);
        Asked { draft: call::ask(dialog, method, phone), from }
    }

    /// The other side gets that request next, unchanged, and answers it 200.
    #[track_caller]
    pub fn serve(&mut self, asked: &Asked) {
        let (dialog, from, to) = self.parts(asked.from);
        call::serve(dialog, &asked.draft, from, to);
    }

    /// A request outside the dialog, by address of record.
    #[track_caller]
    pub fn exchange_apart(&mut self, from: Side, method: &str) {
        let (_, from, to) = self.parts(from);
        let contact = to.contact.clone();
        let draft = from.draft(method, &to.aor()).body("text/plain", "apart");
        call::deliver(&draft, from, to, &contact);
    }

    /// Neither side has anything unread.
    #[track_caller]
    pub fn still(&mut self) {
        still(&mut [&mut self.caller.phone, &mut self.callee.phone]);
    }
}
