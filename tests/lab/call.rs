//! A call through the lab: INVITE, 180, 200, ACK, and the requests of its dialog in both
//! directions.

use super::Lab;
use super::draft::{Draft, request};
use super::phone::Phone;
use super::text::Sip;

/// An established dialog.
pub struct Call {
    name: String,
    /// The INVITE as the callee saw it.
    pub invite: Sip,
    caller_route: Vec<String>,
    callee_route: Vec<String>,
    caller_contact: String,
    callee_contact: String,
    target: String,
    cseq: u32,
}

impl Call {
    /// `caller` calls `uri`, `callee` answers with its Contact.
    pub fn establish(
        lab: &mut Lab,
        caller: &Phone,
        callee: &Phone,
        uri: &str,
        contacts: (&str, &str),
        name: &str,
    ) -> Call {
        let contact = format!("Contact: <{}>", contacts.0);
        let draft = request(caller, "INVITE", uri, name).line(&contact);
        caller.send(lab, &draft.text());
        let invite = callee.take_method(lab, "INVITE");
        caller.take_status(lab, 100);
        callee.send(lab, &invite.response(180, "callee", &[]));
        caller.take_status(lab, 180);
        let contact = format!("Contact: <{}>", contacts.1);
        callee.send(lab, &invite.response(200, "callee", &[&contact]));
        let answer = caller.take_status(lab, 200);
        let mut caller_route = answer.record_route();
        caller_route.reverse();
        let mut call = Call {
            name: name.into(),
            callee_route: invite.record_route(),
            invite,
            caller_route,
            caller_contact: contacts.0.into(),
            callee_contact: contacts.1.into(),
            target: uri.into(),
            cseq: 1,
        };
        let ack = call.by_caller(caller, "ACK").cseq(1);
        caller.send(lab, &ack.text());
        callee.take_method(lab, "ACK");
        call
    }

    /// The Route of the caller's requests.
    pub fn caller_route(&self) -> &[String] {
        &self.caller_route
    }

    /// The Route of the callee's requests.
    pub fn callee_route(&self) -> &[String] {
        &self.callee_route
    }

    /// The next request of the caller.
    pub fn by_caller(&mut self, caller: &Phone, method: &str) -> Draft {
        self.cseq += 1;
        request(caller, method, &self.callee_contact, &self.name)
            .branch(caller, &format!("{}{}c", self.name, self.cseq))
            .to(&format!("<{}>;tag=callee", self.target))
            .route(&self.caller_route)
            .cseq(self.cseq)
    }

    /// The next request of the callee.
    pub fn by_callee(&mut self, callee: &Phone, method: &str) -> Draft {
        self.cseq += 1;
        request(callee, method, &self.caller_contact, &self.name)
            .branch(callee, &format!("{}{}d", self.name, self.cseq))
            .from(&format!("<{}>;tag=callee", self.target))
            .to(&format!("<sip:sender@example.org>;tag=f{}", self.name))
            .route(&self.callee_route)
            .cseq(self.cseq)
    }

    /// One request in either direction, other than INVITE, and its 200.
    pub fn exchange(lab: &mut Lab, from: &Phone, to: &Phone, draft: &Draft) -> Sip {
        from.send(lab, &draft.text());
        let got = to.take_one(lab);
        assert_eq!(got.find("Route"), None, "{got:#?}");
        to.send(lab, &got.response(200, "", &[]));
        let answer = from.take_status(lab, 200);
        assert_eq!(answer.all("Via").count(), 1, "{answer:#?}");
        got
    }
}
