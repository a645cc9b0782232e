//! A call between two clients.

use crate::client::{Client, of_user};
use crate::lab::Lab;
use crate::lab::draft::{Draft, request};
use crate::lab::text::Sip;

/// A call from one to the other.
pub struct Talk {
    pub caller: Client,
    pub callee: Client,
    name: String,
    pub invite: Sip,
    answer: Option<Sip>,
    cseq: u32,
}

impl Talk {
    /// INVITE and 180.
    pub fn ring(lab: &mut Lab, caller: Client, callee: Client) -> Talk {
        let name = format!("call{}", lab.serial());
        let draft = invite(&caller, &callee, &name);
        caller.send(lab, &draft.text());
        let invite = callee.take_method(lab, "INVITE");
        caller.take_status(lab, 100);
        callee.send(lab, &ringing(&invite, &callee, "callee"));
        caller.take_status(lab, 180);
        Talk { caller, callee, name, invite, answer: None, cseq: 1 }
    }

    /// The caller, back on another flow, is told again that it rings and asked whether it knows
    /// that: gives back the question.
    pub fn take_question(&self, lab: &mut Lab) -> Sip {
        let mut got = self.caller.take(lab);
        let what: Vec<_> = got.iter().map(|it| (it.status(), it.method())).collect();
        assert_eq!(what, [(180, ""), (0, "INFO")], "{got:#?}");
        got.remove(1)
    }

    /// Its Call-ID and branch are made of this.
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// 200 and ACK.
    pub fn answer(&mut self, lab: &mut Lab) {
        self.say_200(lab);
        self.acknowledge(lab);
    }

    pub fn say_200(&self, lab: &mut Lab) {
        let contact = format!("Contact: <{}>", self.callee.contact);
        self.callee.send(lab, &self.invite.response(200, "callee", &[&contact]));
    }

    pub fn acknowledge(&mut self, lab: &mut Lab) {
        self.answer = Some(self.caller.take_status(lab, 200));
        let ack = self.by_caller(lab, "ACK").cseq(1);
        self.caller.send(lab, &ack.text());
        self.callee.take_method(lab, "ACK");
    }

    /// The next request of the caller.
    pub fn by_caller(&mut self, lab: &mut Lab, method: &str) -> Draft {
        self.cseq += 1;
        let answer = self.answer.as_ref().expect("it was answered");
        let mut route = answer.record_route();
        route.reverse();
        let user = &self.caller.user;
        request(&self.caller.phone, method, &self.callee.contact, &self.name)
            .branch(&self.caller.phone, &format!("c{}", lab.serial()))
            .from(&format!("<sip:{user}@example.com>;tag=f{}", self.name))
            .to(&format!("<sip:{}@example.com>;tag=callee", self.callee.user))
            .route(&route)
            .cseq(self.cseq)
    }

    /// The next request of the callee.
    pub fn by_callee(&mut self, lab: &mut Lab, method: &str) -> Draft {
        self.cseq += 1;
        let user = &self.caller.user;
        request(&self.callee.phone, method, &self.caller.contact, &self.name)
            .branch(&self.callee.phone, &format!("d{}", lab.serial()))
            .from(&format!("<sip:{}@example.com>;tag=callee", self.callee.user))
            .to(&format!("<sip:{user}@example.com>;tag=f{}", self.name))
            .route(&self.invite.record_route())
            .cseq(self.cseq)
    }

    /// One request in that direction and its 200; a re-INVITE with its ACK.
    pub fn exchange(&mut self, lab: &mut Lab, method: &str, from_caller: bool) {
        let draft = match from_caller {
            true => self.by_caller(lab, method),
            false => self.by_callee(lab, method),
        };
        let (from, to) = match from_caller {
            true => (self.caller.clone(), self.callee.clone()),
            false => (self.callee.clone(), self.caller.clone()),
        };
        from.send(lab, &draft.text());
        let got = to.take_method(lab, method);
        let contact = format!("Contact: <{}>", to.contact);
        to.send(lab, &got.response(200, "", &[&contact]));
        let mut answers: Vec<u16> = from.take(lab).iter().map(Sip::status).collect();
        answers.retain(|status| *status != 100);
        assert_eq!(answers, [200], "{method}");
        if method == "INVITE" {
            let ack = draft.method("ACK").branch(&from.phone, &format!("a{}", lab.serial()));
            from.send(lab, &ack.text());
            to.take_method(lab, "ACK");
        }
    }
}

/// 180 of a callee, which opens an early dialog (RFC 3261 §12.1.1).
pub fn ringing(invite: &Sip, callee: &Client, tag: &str) -> String {
    invite.response(180, tag, &[&format!("Contact: <{}>", callee.contact)])
}

/// An INVITE for a client's user.
pub fn invite(caller: &Client, callee: &Client, name: &str) -> Draft {
    of_user(caller, "INVITE", &callee.user, name).line(&format!("Contact: <{}>", caller.contact))
}

/// The CANCEL came that a caller leaves behind: the callee obeys.
pub fn obey(lab: &mut Lab, callee: &Client, invite: &Sip, tag: &str) {
    let cancel = callee.take_method(lab, "CANCEL");
    assert_eq!(cancel.header("Reason"), "SIP;cause=487;text=\"The caller is gone\"");
    callee.send(lab, &cancel.response(200, tag, &[]));
    callee.send(lab, &invite.response(487, tag, &[]));
    callee.take_method(lab, "ACK");
}
