//! A user with two contacts (RFC 3261 §16.7): one answer for the caller, CANCEL for the others.

use super::support::call::within;
use super::support::{
    Dialog, Draft, Message, Phone, Server, Setup, Transport, forwarded, returned, still,
};

struct Scene {
    core: Phone,
    wss: Phone,
    tcp: Phone,
    invite: Draft,
    at_wss: Message,
    at_tcp: Message,
    _server: Server,
}

/// A server calls Alice, who has a browser and a phone; both ring.
fn ringing(shards: usize) -> Scene {
    let core = Phone::core(Transport::Udp);
    let server = Setup::new().shards(shards).start();
    let mut core = core.connect(&server, "core");
    let mut wss = Phone::connect(Transport::Wss, &server, "alice");
    let mut tcp = Phone::connect(Transport::Tcp, &server, "alice");
    wss.register_self();
    tcp.contact = "sip:alice@192.0.2.9:5070;transport=tcp".to_string();
    tcp.register_self();
    let invite = core.draft("INVITE", "sip:alice@example.com").body("application/sdp", "v=0\r\n");
    core.send(&invite.build());
    core.status(100);
    let (at_wss, at_tcp) = (wss.request("INVITE"), tcp.request("INVITE"));
    forwarded(&invite.message(), &at_wss, Transport::Wss, &wss.contact);
    forwarded(&invite.message(), &at_tcp, Transport::Tcp, &tcp.contact);
    for (phone, request, tag) in [(&mut wss, &at_wss, "wss"), (&mut tcp, &at_tcp, "tcp")] {
        let ringing = answer(phone, request, 180, tag);
        returned(&invite.message(), &ringing.message(), &core.status(180));
    }
    Scene { core, wss, tcp, invite, at_wss, at_tcp, _server: server }
}

/// Each branch has a To tag of its own.
fn answer(phone: &mut Phone, request: &Message, status: u16, tag: &str) -> Draft {
    let response = phone.response(request, status);
    let to = format!("{};tag={tag}", request.one("to"));
    let response = response.set("To", to);
    phone.respond(request, &response);
    response
}

/// The losing side of a fork: CANCEL for its INVITE, 200 for that, 487 and the proxy's ACK.
#[track_caller]
fn is_cancelled(phone: &mut Phone, invite: &Message, tag: &str) -> Message {
    let cancel = phone.request("CANCEL");
    assert_eq!(cancel.uri(), invite.uri(), "RFC 3261 §9.1: {cancel:?}");
    assert_eq!(cancel.values("via"), [invite.values("via")[0].clone()], "one Via, the branch's");
    for name in ["from", "to", "call-id"] {
        assert_eq!(cancel.one(name), invite.one(name));
    }
    assert_eq!(cancel.one("cseq"), "1 CANCEL");
    phone.answer(&cancel, 200);
    acknowledged(phone, invite, 487, tag);
    cancel
}

/// A failure response, and the proxy's ACK for it (RFC 3261 §17.1.1.3).
#[track_caller]
fn acknowledged(phone: &mut Phone, invite: &Message, status: u16, tag: &str) {
    let response = answer(phone, invite, status, tag);
    let ack = phone.request("ACK");
    assert_eq!(ack.uri(), invite.uri());
    assert_eq!(ack.values("via"), [invite.values("via")[0].clone()]);
    assert_eq!(ack.one("to"), response.value("To"));
    assert_eq!(ack.one("cseq"), "1 ACK");
}

/// The caller's ACK for a failure: same branch, the response's To.
fn ack_failure(core: &mut Phone, invite: &Draft, response: &Message) {
    let ack = invite.clone().set("CSeq", "1 ACK").set("To", response.one("to"));
    let mut ack = ack.without("Contact").without("Content-Type");
    ack.start = ack.start.replacen("INVITE", "ACK", 1);
    ack.body.clear();
    core.send(&ack.build());
}

#[test]
fn one_answers_and_the_other_is_cancelled() {
    for shards in [1, 2] {
        let Scene { _server, mut core, mut wss, mut tcp, invite, at_wss, at_tcp } = ringing(shards);
        let ok = answer(&mut tcp, &at_tcp, 200, "tcp");
        let got = core.status(200);
        returned(&invite.message(), &ok.message(), &got);
        let cancel = is_cancelled(&mut wss, &at_wss, "wss");
        let reason = cancel.one("reason");
        assert!(reason.starts_with("SIP") && reason.contains("cause=200"), "{cancel:?}");
        let mut dialog = Dialog::of_caller(&got);
        core.send(&dialog.draft(&core, "ACK").build());
        tcp.request("ACK");
        within(&mut dialog, "BYE", &mut core, &mut tcp);
        still(&mut [&mut wss, &mut tcp, &mut core]);
    }
}

#[test]
fn a_caller_may_cancel() {
    for shards in [1, 2] {
        let Scene { _server, mut core, mut wss, mut tcp, invite, at_wss, at_tcp } = ringing(shards);
        let mut cancel = invite.clone().set("CSeq", "1 CANCEL").without("Contact");
        cancel = cancel.without("Content-Type").with("Reason", "SIP;cause=600;text=\"enough\"");
        cancel.start = cancel.start.replacen("INVITE", "CANCEL", 1);
        cancel.body.clear();
        core.send(&cancel.build());
        let ok = core.status(200);
        assert_eq!(ok.one("cseq"), "1 CANCEL");
        for (phone, invite, tag) in [(&mut wss, &at_wss, "wss"), (&mut tcp, &at_tcp, "tcp")] {
            let cancel = is_cancelled(phone, invite, tag);
            assert_eq!(cancel.one("reason"), "SIP;cause=600;text=\"enough\"", "copied");
        }
        let got = core.status(487);
        assert_eq!(got.one("cseq"), "1 INVITE");
        ack_failure(&mut core, &invite, &got);
        still(&mut [&mut wss, &mut tcp, &mut core]);
    }
}

#[test]
fn a_decline_everywhere_ends_the_others() {
    let Scene { _server, mut core, mut wss, mut tcp, invite, at_wss, at_tcp } = ringing(1);
    acknowledged(&mut wss, &at_wss, 603, "wss");
    is_cancelled(&mut tcp, &at_tcp, "tcp");
    let got = core.status(603);
    ack_failure(&mut core, &invite, &got);
    still(&mut [&mut wss, &mut tcp, &mut core]);
}

#[test]
fn one_refusal_waits_for_the_others_and_the_best_is_returned() {
    let Scene { _server, mut core, mut wss, mut tcp, invite, at_wss, at_tcp } = ringing(1);
    acknowledged(&mut wss, &at_wss, 486, "wss");
    still(&mut [&mut core]);
    acknowledged(&mut tcp, &at_tcp, 500, "tcp");
    let got = core.status(486);
    ack_failure(&mut core, &invite, &got);
    still(&mut [&mut wss, &mut tcp, &mut core]);
}

#[test]
fn a_contact_that_dies_while_ringing_does_not_fail_the_other() {
    let Scene { _server, mut core, wss, mut tcp, invite, at_wss: _, at_tcp } = ringing(1);
    wss.reset();
    still(&mut [&mut core]);
    let ok = answer(&mut tcp, &at_tcp, 200, "tcp");
    let got = core.status(200);
    returned(&invite.message(), &ok.message(), &got);
    let mut dialog = Dialog::of_caller(&got);
    core.send(&dialog.draft(&core, "ACK").build());
    tcp.request("ACK");
    within(&mut dialog, "BYE", &mut core, &mut tcp);
}

#[test]
fn a_late_cancel_and_a_foreign_one_find_nothing() {
    let Scene { _server, mut core, mut wss, mut tcp, invite, at_wss, at_tcp } = ringing(1);
    let mut foreign = invite.clone().set("CSeq", "1 CANCEL").set("Via", core.via());
    foreign.start = foreign.start.replacen("INVITE", "CANCEL", 1);
    let answer_to_foreign = core.ask(&foreign);
    assert_eq!(answer_to_foreign.status(), 481, "another branch: {answer_to_foreign:?}");
    still(&mut [&mut wss, &mut tcp]);
    acknowledged(&mut wss, &at_wss, 486, "wss");
    acknowledged(&mut tcp, &at_tcp, 486, "tcp");
    let got = core.status(486);
    ack_failure(&mut core, &invite, &got);
}
