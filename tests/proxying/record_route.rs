//! Staying in the dialog (RFC 3261 §16.6 step 4, RFC 5658): what Record-Route shows each side, and
//! that every later request finds its way, in both directions.

use sipring::base::config::UpstreamTarget;
use sipring::base::id::Transport;

use crate::lab::call::Call;
use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab, listener_address, user_of};

/// re-INVITE: 100, 200 and ACK.
fn reinvite(lab: &mut Lab, from: &Phone, to: &Phone, draft: lab::draft::Draft, cseq: u32) {
    from.send(lab, &draft.text());
    let got = to.take_method(lab, "INVITE");
    assert_eq!(got.find("Record-Route"), None, "the route set is fixed (RFC 3261 §12.2)");
    from.take_status(lab, 100);
    to.send(lab, &got.response(200, "", &[]));
    from.take_status(lab, 200);
    let ack = draft.branch(from, &format!("ack{cseq}{}", from.remote.port())).method("ACK");
    from.send(lab, &ack.text());
    to.take_method(lab, "ACK");
}

fn whole_dialog(lab: &mut Lab, mut call: Call, caller: &Phone, callee: &Phone) {
    for (n, method) in ["INFO", "UPDATE", "NOTIFY", "PRIVATE"].into_iter().enumerate() {
        let draft = call.by_caller(caller, method);
        Call::exchange(lab, caller, callee, &draft);
        let draft = call.by_callee(callee, method);
        Call::exchange(lab, callee, caller, &draft);
        let draft = call.by_caller(caller, "INVITE");
        reinvite(lab, caller, callee, draft, n as u32 * 2);
        let draft = call.by_callee(callee, "INVITE");
        reinvite(lab, callee, caller, draft, n as u32 * 2 + 1);
    }
    let draft = call.by_callee(callee, "BYE");
    Call::exchange(lab, callee, caller, &draft);
    lab.finish();
}

#[test]
fn dialogs_between_clients_of_every_transport() {
    for at in lab::placements() {
        for from in Transport::ALL {
            for to in Transport::ALL {
                let mut lab = Lab::new(at.shards, lab::config());
                let user = user_of(at.owner, at.shards, 0);
                let caller = Phone::connect(&mut lab, at.arrival, from, "203.0.113.5:40001");
                let callee = Phone::connect(&mut lab, at.flow, to, "203.0.113.6:40002");
                callee.register(&mut lab, &user, "<sip:b@bb.invalid;transport=ws>");
                let contacts = ("sip:a@aa.invalid", "sip:b@bb.invalid;transport=ws");
                let uri = format!("sip:{user}@example.com");
                let call = Call::establish(&mut lab, &caller, &callee, &uri, contacts, "c");
                let route = call.callee_route();
                assert_eq!(route.len(), if from == to { 1 } else { 2 }, "{route:?}");
                let shows = |value: &str, transport: Transport| {
                    let host = listener_address(transport);
                    assert!(value.contains(&format!("@{host}")), "{value}");
                    assert!(value.starts_with("<sip:ft.") && value.contains(";lr"), "{value}");
                };
                shows(&route[0], to);
                shows(route.last().expect("one"), from);
                whole_dialog(&mut lab, call, &caller, &callee);
            }
        }
    }
}

#[test]
fn dialogs_with_the_server_behind_us() {
    for at in lab::placements() {
        for transport in Transport::ALL {
            for to_server in [true, false] {
                let mut lab = Lab::new(at.shards, lab::config());
                let user = user_of(at.owner, at.shards, 0);
                let client = Phone::connect(&mut lab, at.flow, transport, "203.0.113.5:40001");
                client.register(&mut lab, &user, "<sip:b@bb.invalid;transport=ws>");
                let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
                let (own, far) = ("sip:b@bb.invalid;transport=ws", "sip:9@198.51.100.7:5060");
                let (caller, callee, uri, contacts) = if to_server {
                    (client, core, "sip:9@example.com".to_string(), (own, far))
                } else {
                    (core, client, format!("sip:{user}@example.com"), (far, own))
                };
                let call = Call::establish(&mut lab, &caller, &callee, &uri, contacts, "c");
                let toward_core = if to_server { call.callee_route() } else { call.caller_route() };
                assert!(!toward_core[0].contains("transport=ws"), "{toward_core:?}");
                whole_dialog(&mut lab, call, &caller, &callee);
            }
        }
    }
}

#[test]
fn a_sips_dialog_stays_sips() {
    for at in lab::placements() {
        for (from, to) in [
            (Transport::Wss, Transport::Wss),
            (Transport::Tls, Transport::Wss),
            (Transport::Wss, Transport::Tls),
        ] {
            let mut lab = Lab::new(at.shards, lab::config());
            let user = user_of(at.owner, at.shards, 0);
            let caller = Phone::connect(&mut lab, at.arrival, from, "203.0.113.5:40001");
            let callee = Phone::connect(&mut lab, at.flow, to, "203.0.113.6:40002");
            callee.register(&mut lab, &user, "<sips:b@bb.invalid;transport=ws>");
            let contacts = ("sips:a@aa.invalid;transport=ws", "sips:b@bb.invalid;transport=ws");
            let uri = format!("sips:{user}@example.com");
            let call = Call::establish(&mut lab, &caller, &callee, &uri, contacts, "c");
            assert!(call.callee_route().iter().all(|value| value.starts_with("<sips:ft.")));
            whole_dialog(&mut lab, call, &caller, &callee);
        }
    }
}

#[test]
fn a_server_under_our_own_domain_name_at_another_port_is_reached() {
    for shards in 1..=3 {
        let address = "198.51.100.7:5090";
        let config = lab::config_with(|config| {
            config.upstreams[0].targets[0] = UpstreamTarget {
                host: "example.com".into(),
                ..lab::target(Transport::Udp, address)
            };
        });
        let mut lab = Lab::new(shards, config);
        let client = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        let core = Phone::connect(&mut lab, shards - 1, Transport::Udp, address);
        let contacts = ("sip:b@bb.invalid;transport=ws", "sip:9@example.com:5090");
        let call = Call::establish(&mut lab, &client, &core, "sip:9@example.com", contacts, "c");
        whole_dialog(&mut lab, call, &client, &core);
    }
}

#[test]
fn a_udp_client_whose_port_changes_stays_in_its_dialog() {
    for shards in 1..=3 {
        for to_server in [true, false] {
            let mut lab = Lab::new(shards, lab::config());
            let client = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.5:40001");
            let core = Phone::connect(&mut lab, shards - 1, Transport::Udp, CORE);
            let browser = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.6:40002");
            browser.register(&mut lab, "bob", "<sip:b@bb.invalid;transport=ws>");
            let (peer, uri, contact) = if to_server {
                (core, "sip:9@example.com", "sip:9@198.51.100.7:5060")
            } else {
                (browser, "sip:bob@example.com", "sip:b@bb.invalid;transport=ws")
            };
            let contacts = ("sip:a@10.0.0.9", contact);
            let mut call = Call::establish(&mut lab, &client, &peer, uri, contacts, "c");
            let moved = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.5:40777");
            let bye = call.by_caller(&moved, "BYE");
            Call::exchange(&mut lab, &moved, &peer, &bye);
            client.heard_nothing(&mut lab);
            lab.finish();
        }
    }
}

#[test]
fn only_requests_that_open_dialogs_are_recorded() {
    let mut lab = Lab::new(1, lab::config());
    let client = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    for (method, recorded) in [
        ("INVITE", true),
        ("SUBSCRIBE", true),
        ("REFER", true),
        ("MESSAGE", false),
        ("OPTIONS", false),
        ("PUBLISH", false),
    ] {
        client.send(&mut lab, &request(&client, method, "sip:9@example.com", method).text());
        let got = core.take_method(&mut lab, method);
        assert_eq!(got.find("Record-Route").is_some(), recorded, "{method}");
        core.send(&mut lab, &got.response(486, "c", &[]));
        let _ = (core.take(&mut lab), client.take(&mut lab));
    }
    lab.finish();
}
