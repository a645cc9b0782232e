//! Dialogs as user agents keep them (RFC 3261 §12), and a call through the proxy from INVITE to
//! BYE.

use super::check::{forwarded, returned};
use super::phone::Phone;
use super::sip::{Draft, Message, uri_of};

/// One side's view of a dialog.
#[derive(Clone, Debug)]
pub struct Dialog {
    /// From of what this side sends.
    pub local: String,
    /// To of what this side sends.
    pub remote: String,
    /// Remote target: Request-URI of what this side sends.
    pub target: String,
    /// Route set, next hop first.
    pub routes: Vec<String>,
    /// Call-ID.
    pub call_id: String,
    /// Last CSeq that this side sent.
    pub cseq: u32,
}

impl Dialog {
    /// The caller's side (§12.1.2): the route set is the response's Record-Route, reversed.
    #[track_caller]
    pub fn of_caller(response: &Message) -> Dialog {
        Dialog {
            local: response.one("from").to_string(),
            remote: response.one("to").to_string(),
            target: uri_of(response.one("contact")).to_string(),
            routes: response.values("record-route").into_iter().rev().collect(),
            call_id: response.one("call-id").to_string(),
            cseq: response.cseq().0,
        }
    }

    /// The callee's side (§12.1.1): the route set is the request's Record-Route, in order.
    #[track_caller]
    pub fn of_callee(request: &Message, answered: &Message) -> Dialog {
        Dialog {
            local: answered.one("to").to_string(),
            remote: answered.one("from").to_string(),
            target: uri_of(request.one("contact")).to_string(),
            routes: request.values("record-route"),
            call_id: request.one("call-id").to_string(),
            cseq: 0,
        }
    }

    /// A request within the dialog (§12.2.1.1). An ACK has the number of its INVITE.
    pub fn draft(&mut self, phone: &Phone, method: &str) -> Draft {
        if method != "ACK" {
            self.cseq += 1;
        }
        let mut draft = Draft::new(format!("{method} {} SIP/2.0", self.target))
            .with("Via", phone.via())
            .with("Max-Forwards", "70");
        for route in &self.routes {
            draft = draft.with("Route", route);
        }
        draft
            .with("From", &self.local)
            .with("To", &self.remote)
            .with("Call-ID", &self.call_id)
            .with("CSeq", format!("{} {method}", self.cseq))
    }

    /// A re-INVITE that offers that session (§14.1).
    pub fn offer(&mut self, phone: &Phone, sdp: &str) -> Draft {
        let contact = format!("<{}>", phone.contact);
        self.draft(phone, "INVITE").with("Contact", contact).body("application/sdp", sdp)
    }

    /// The next hop is the proxy's listener that this phone talks to: host and port of the topmost
    /// route.
    #[track_caller]
    pub fn next_hop_is_proxy(&self, phone: &Phone) {
        let top = uri_of(self.routes.first().expect("a route set"));
        let proxy = phone.proxy.to_string();
        let host = top.split_once('@').map_or(top, |(_, host)| host);
        assert!(host.starts_with(&proxy), "{phone:?} is sent to {top}");
        assert!(top.contains(";lr"), "{top}");
        let transport = super::sip::param(top, "transport");
        match phone.transport.is_web() {
            true => assert_eq!(transport, Some("ws"), "{top}"),
            false => assert_ne!(transport, Some("ws"), "{top}"),
        }
    }
}

/// A call that is up: both sides' dialogs.
pub struct Call {
    pub caller: Dialog,
    pub callee: Dialog,
}

/// A session description.
pub const SDP: &str = "\
v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\n\
c=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

/// `caller` calls `uri`; `callee` hears it under `contact`, rings, answers. Every message is
/// checked.
#[track_caller]
pub fn call(caller: &mut Phone, uri: &str, callee: &mut Phone, contact: &str) -> Call {
    let invite = caller.draft("INVITE", uri);
    call_by(caller, invite, callee, contact)
}

/// The same with an INVITE of the caller's making.
#[track_caller]
pub fn call_by(caller: &mut Phone, invite: Draft, callee: &mut Phone, contact: &str) -> Call {
    let invite = invite.with("X-Custom", "a,  b ;c").body("application/sdp", SDP);
    caller.send(&invite.build());
    let sent = invite.message();
    let heard = callee.request("INVITE");
    forwarded(&sent, &heard, callee.transport, contact);
    let trying = caller.status(100);
    assert!(trying.values("via").len() == 1 && trying.one("cseq") == sent.one("cseq"));
    let ringing = callee.response(&heard, 180);
    callee.respond(&heard, &ringing);
    returned(&sent, &ringing.message(), &caller.status(180));
    let ok = callee.response(&heard, 200).body("application/sdp", SDP);
    callee.respond(&heard, &ok);
    let answer = caller.status(200);
    returned(&sent, &ok.message(), &answer);
    let mut dialog = Dialog::of_caller(&answer);
    dialog.next_hop_is_proxy(caller);
    let ack = dialog.draft(caller, "ACK");
    caller.send(&ack.build());
    let acked = callee.request("ACK");
    forwarded(&ack.message(), &acked, callee.transport, &dialog.target);
    assert_eq!(acked.all("route").count(), 0, "our routes are popped: {acked:?}");
    let callee_dialog = Dialog::of_callee(&heard, &ok.message());
    callee_dialog.next_hop_is_proxy(callee);
    Call { caller: dialog, callee: callee_dialog }
}

/// A request within the call from one side to the other, answered 200; an INVITE is acknowledged.
#[track_caller]
pub fn within(dialog: &mut Dialog, method: &str, from: &mut Phone, to: &mut Phone) {
    let asked = ask(dialog, method, from);
    serve(dialog, &asked, from, to);
}

/// That side sends a request within the call.
#[track_caller]
pub fn ask(dialog: &mut Dialog, method: &str, from: &mut Phone) -> Draft {
    let draft = match method {
        "INVITE" => dialog.offer(from, SDP),
        _ => dialog.draft(from, method),
    };
    from.send(&draft.build());
    draft
}

/// The other side gets that request next, unchanged, and answers it 200.
#[track_caller]
pub fn serve(dialog: &mut Dialog, asked: &Draft, from: &mut Phone, to: &mut Phone) {
    let sent = asked.message();
    let heard = to.request(sent.method());
    forwarded(&sent, &heard, to.transport, sent.uri());
    assert_eq!(heard.all("route").count(), 0, "our routes are popped: {heard:?}");
    let ok = to.response(&heard, 200);
    to.respond(&heard, &ok);
    returned(&sent, &ok.message(), &from.final_response());
    if sent.method() == "INVITE" {
        let ack = dialog.draft(from, "ACK");
        from.send(&ack.build());
        let got = to.request("ACK");
        forwarded(&ack.message(), &got, to.transport, sent.uri());
    }
}

/// A request outside any call reaches a phone under that Contact, unchanged, and is answered 200. As
/// it arrived.
#[track_caller]
pub fn deliver(draft: &Draft, from: &mut Phone, to: &mut Phone, contact: &str) -> Message {
    let sent = draft.message();
    from.send(&draft.build());
    let heard = to.request(sent.method());
    forwarded(&sent, &heard, to.transport, contact);
    let ok = to.response(&heard, 200);
    to.respond(&heard, &ok);
    returned(&sent, &ok.message(), &from.final_response());
    heard
}
