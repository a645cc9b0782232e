//! Strict routers before and behind us (RFC 3261 §16.4, §16.6 step 6): their form of a request is
//! understood, and used where they ask for it by leaving out `lr`.

use sipring::base::id::Transport;

use crate::lab::call::Call;
use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab, user_of};

const OWN: &str = "sip:b@bb.invalid;transport=ws";
const FAR: &str = "sip:9@198.51.100.7:5060";

/// What a strict router makes of a request with that route set: its first value is the Request-URI,
/// the remote target the last Route value.
fn strict(draft: Draft, route: &[String], target: &str) -> Draft {
    let first = route[0].trim_start_matches('<').trim_end_matches('>');
    let mut rest = route[1..].to_vec();
    rest.push(format!("<{target}>"));
    draft.uri(first).route(&rest)
}

fn every_call(mut each: impl FnMut(&mut Lab, &mut Call, &Phone, &Phone)) {
    for at in lab::placements() {
        for transport in Transport::ALL {
            let mut lab = Lab::new(at.shards, lab::config());
            let client = Phone::connect(&mut lab, at.flow, transport, "203.0.113.5:40001");
            let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
            let contacts = (OWN, FAR);
            let uri = "sip:9@example.com";
            let mut call = Call::establish(&mut lab, &client, &core, uri, contacts, "c");
            each(&mut lab, &mut call, &client, &core);
            lab.finish();
        }
    }
}

#[test]
fn a_request_that_a_strict_router_formed_goes_where_its_last_route_value_says() {
    every_call(|lab, call, client, core| {
        for method in ["INFO", "BYE"] {
            let draft = call.by_callee(core, method);
            let got = Call::exchange(lab, core, client, &strict(draft, call.callee_route(), OWN));
            assert_eq!(got.uri(), OWN);
        }
    });
}

#[test]
fn a_client_may_form_its_requests_like_a_strict_router() {
    every_call(|lab, call, client, core| {
        for method in ["INFO", "BYE"] {
            let draft = call.by_caller(client, method);
            let got = Call::exchange(lab, client, core, &strict(draft, call.caller_route(), FAR));
            assert_eq!(got.uri(), FAR);
        }
    });
}

#[test]
fn a_cancel_in_strict_form_finds_its_invite() {
    every_call(|lab, call, client, core| {
        let draft = call.by_callee(core, "INVITE");
        let invite = strict(draft, call.callee_route(), OWN);
        core.send(lab, &invite.text());
        let got = client.take_method(lab, "INVITE");
        core.take_status(lab, 100);
        client.send(lab, &got.response(180, "", &[]));
        core.take_status(lab, 180);
        core.send(lab, &invite.clone().method("CANCEL").text());
        core.take_status(lab, 200);
        let cancel = client.take_method(lab, "CANCEL");
        assert_eq!((cancel.uri(), cancel.header("Via")), (OWN, got.header("Via")));
        client.send(lab, &cancel.response(200, "", &[]));
        client.send(lab, &got.response(487, "", &[]));
        core.take_status(lab, 487);
        client.take_method(lab, "ACK");
        core.send(lab, &invite.method("ACK").text());
        client.heard_nothing(lab);
    });
}

#[test]
fn a_token_in_the_request_uri_is_no_more_believed_than_one_in_route() {
    every_call(|lab, call, client, core| {
        let draft = call.by_callee(core, "INFO").call_id("another");
        core.send(lab, &strict(draft, call.callee_route(), OWN).text());
        core.take_status(lab, 403);
        let draft = call.by_caller(client, "INFO");
        let foreign = "sip:v@203.0.113.99:5060";
        client.send(lab, &strict(draft, call.caller_route(), foreign).text());
        client.take_status(lab, 403);
        core.heard_nothing(lab);
    });
}

#[test]
fn a_next_hop_without_lr_gets_the_strict_form() {
    every_call(|lab, call, client, core| {
        let far = "sip:9@10.9.9.9;x=y";
        let mut route = call.caller_route().to_vec();
        route.push(format!("<sip:{CORE}>"));
        route.push("<sip:inner.invalid;lr>".into());
        let invite = call.by_caller(client, "INVITE").uri(far).route(&route);
        client.send(lab, &invite.text());
        let got = core.take_method(lab, "INVITE");
        client.take_status(lab, 100);
        let formed = |got: &lab::text::Sip| {
            assert_eq!(got.uri(), format!("sip:{CORE}"));
            let route: Vec<&str> = got.all("Route").collect();
            assert_eq!(route, ["<sip:inner.invalid;lr>", "<sip:9@10.9.9.9;x=y>"]);
        };
        formed(&got);
        core.send(lab, &got.response(180, "", &[]));
        client.take_status(lab, 180);
        client.send(lab, &invite.clone().method("CANCEL").text());
        client.take_status(lab, 200);
        let cancel = core.take_method(lab, "CANCEL");
        formed(&cancel);
        core.send(lab, &cancel.response(200, "", &[]));
        core.send(lab, &got.response(487, "", &[]));
        formed(&core.take_method(lab, "ACK"));
        client.take_status(lab, 487);
        client.send(lab, &invite.method("ACK").text());
    });
}

#[test]
fn a_path_that_begins_with_a_strict_router_is_followed_in_its_form() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config());
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        let client = Phone::connect(&mut lab, at.flow, Transport::Wss, "203.0.113.5:40001");
        let user = user_of(at.owner, at.shards, 0);
        for (path, uri, route) in [
            ("<sip:198.51.100.7>", "sip:198.51.100.7", vec!["<sip:b@10.1.1.1>"]),
            (
                "<sip:198.51.100.7>, <sip:p2.invalid;lr>",
                "sip:198.51.100.7",
                vec!["<sip:p2.invalid;lr>", "<sip:b@10.1.1.1>"],
            ),
            (
                "<sip:198.51.100.7;lr>, <sip:p2.invalid>",
                "sip:b@10.1.1.1",
                vec!["<sip:198.51.100.7;lr>, <sip:p2.invalid>"],
            ),
        ] {
            let serial = lab.serial();
            let to = format!("<sip:{user}@example.com>");
            let draft = request(&core, "REGISTER", "sip:example.com", &format!("r{serial}"))
                .to(&to)
                .from(&format!("{to};tag=1"))
                .line("Contact: <sip:b@10.1.1.1>")
                .line("Supported: path")
                .line(&format!("Path: {path}"));
            core.send(&mut lab, &draft.text());
            core.take_status(&mut lab, 200);
            let name = format!("m{serial}");
            let draft = request(&client, "MESSAGE", &format!("sip:{user}@example.com"), &name);
            client.send(&mut lab, &draft.text());
            let got = core.take_method(&mut lab, "MESSAGE");
            assert_eq!(got.uri(), uri);
            assert_eq!(got.all("Route").collect::<Vec<_>>(), route);
            core.send(&mut lab, &got.response(200, "c", &[]));
            client.take_status(&mut lab, 200);
        }
        lab.finish();
    }
}
