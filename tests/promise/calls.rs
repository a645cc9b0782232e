//! The plain cases: a request from a server to a browser, and a call between two browsers.

use sipring::base::id::Transport;

use crate::lab::call::Call;
use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab, user_of};

#[test]
fn a_server_notifies_a_browser() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config());
        let user = user_of(at.owner, at.shards, 0);
        let browser = Phone::connect(&mut lab, at.flow, Transport::Wss, "203.0.113.5:40001");
        browser.register(&mut lab, &user, "<sip:x7@df7jal23ls0d.invalid;transport=ws>");
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        let uri = format!("sip:{user}@example.com");
        core.send(&mut lab, &request(&core, "NOTIFY", &uri, "n1").body("hi").text());
        let notify = browser.take_method(&mut lab, "NOTIFY");
        assert_eq!(notify.uri(), "sip:x7@df7jal23ls0d.invalid;transport=ws");
        assert!(notify.header("Via").starts_with("SIP/2.0/WSS 192.0.2.1:8443;branch=z9hG4bK"));
        browser.send(&mut lab, &notify.response(200, "b", &[]));
        let answer = core.take_status(&mut lab, 200);
        assert_eq!(answer.all("Via").count(), 1, "{answer:#?}");
        lab.finish();
    }
}

#[test]
fn a_call_between_two_browsers_keeps_its_way_by_token() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config());
        let user = user_of(at.owner, at.shards, 0);
        let alice = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.5:40001");
        let bob = Phone::connect(&mut lab, at.flow, Transport::Wss, "203.0.113.6:40002");
        bob.register(&mut lab, &user, "<sip:b@bb.invalid;transport=ws>");
        let contacts = ("sip:a@aa.invalid;transport=ws;ob", "sip:b@bb.invalid;transport=ws");
        let uri = format!("sip:{user}@example.com");
        let mut call = Call::establish(&mut lab, &alice, &bob, &uri, contacts, "c1");
        assert_eq!(call.caller_route().len(), 1, "one listener, one value");
        let info = call.by_caller(&alice, "INFO");
        Call::exchange(&mut lab, &alice, &bob, &info);
        let bye = call.by_callee(&bob, "BYE");
        Call::exchange(&mut lab, &bob, &alice, &bye);
        lab.finish();
    }
}

#[test]
fn how_the_request_uri_is_written_does_not_matter() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config());
        let user = user_of(at.owner, at.shards, 0);
        let browser = Phone::connect(&mut lab, at.flow, Transport::Wss, "203.0.113.5:40001");
        browser.register(&mut lab, &user, "<sip:b@bb.invalid;transport=ws>");
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        let escaped = user.replacen('u', "%75", 1);
        for uri in [
            format!("sip:{user}@example.com;transport=udp"),
            format!("sip:{user}@EXAMPLE.com:5060;transport=tcp;user=phone"),
            format!("sip:{escaped}@example.com;transport=ws"),
            format!("sip:{user}:secret@Example.Com"),
        ] {
            let name = format!("m{}", lab.serial());
            core.send(&mut lab, &request(&core, "MESSAGE", &uri, &name).text());
            let got = browser.take_method(&mut lab, "MESSAGE");
            browser.send(&mut lab, &got.response(200, "b", &[]));
            core.take_status(&mut lab, 200);
        }
        lab.finish();
    }
}
