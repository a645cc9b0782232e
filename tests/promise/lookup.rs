//! Requests of servers that lost or rewrote what we gave them: by one binding's Contact, and by a
//! client's address where the configuration permits it. Never from a client.

use sipring::base::id::Transport;

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab, user_of};

const ADDRESS: &str = "203.0.113.5:40001";

fn with_lookup() -> sipring::base::config::Config {
    lab::config_with(|config| config.upstreams[0].address_lookup = true)
}

/// `server` reaches `client` by `uri` alone.
fn reaches(lab: &mut Lab, server: &Phone, client: &Phone, uri: &str, name: &str, tag: &str) {
    let draft = request(server, "INFO", uri, name).to(&format!("<{uri}>{tag}"));
    server.send(lab, &draft.text());
    let got = client.take_method(lab, "INFO");
    assert_eq!(got.uri(), uri);
    client.send(lab, &got.response(200, "c", &[]));
    server.take_status(lab, 200);
}

#[test]
fn a_server_reaches_exactly_one_binding_by_its_contact_in_a_dialog() {
    for at in lab::placements() {
        for transport in Transport::ALL {
            for contact in [
                "sip:u7@df7jal23ls0d.invalid;transport=ws",
                "sip:u7@10.0.0.9:5070;transport=ws",
                "sip:u7@10.0.0.9",
                "sips:u7@df7jal23ls0d.invalid;transport=ws",
            ] {
                if contact.starts_with("sips") && !transport.is_secure() {
                    continue;
                }
                let mut lab = Lab::new(at.shards, lab::config());
                let user = user_of(at.owner, at.shards, 0);
                let client = Phone::connect(&mut lab, at.flow, transport, ADDRESS);
                client.register(&mut lab, &user, &format!("<{contact}>"));
                let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
                reaches(&mut lab, &core, &client, contact, "a", ";tag=x");
                // Not outside a dialog, and not by somebody else.
                let draft = request(&core, "INFO", contact, "b");
                core.send(&mut lab, &draft.text());
                core.take_status(&mut lab, 404);
                let mallory = Phone::connect(&mut lab, at.arrival, Transport::Tcp, "203.0.113.9:1");
                let draft = request(&mallory, "INFO", contact, "d");
                mallory.send(&mut lab, &draft.to(&format!("<{contact}>;tag=x")).text());
                mallory.take_status(&mut lab, 403);
                // Two users have it.
                let second = Phone::connect(&mut lab, at.owner, transport, "203.0.113.7:40007");
                second.register(&mut lab, "somebody", &format!("<{contact}>"));
                let draft = request(&core, "INFO", contact, "c").to(&format!("<{contact}>;tag=x"));
                core.send(&mut lab, &draft.text());
                let status = core.take_one(&mut lab).status();
                assert!(status == 430 || status == 404, "{status}");
                client.heard_nothing(&mut lab);
                second.heard_nothing(&mut lab);
                lab.finish();
            }
        }
    }
}

#[test]
fn the_contact_of_a_binding_that_ended_leads_nowhere() {
    for at in lab::placements() {
        for transport in Transport::ALL {
            let mut lab = Lab::new(at.shards, lab::config());
            let user = user_of(at.owner, at.shards, 0);
            let client = Phone::connect(&mut lab, at.flow, transport, ADDRESS);
            let contact = format!("sip:u7@{ADDRESS}");
            client.register(&mut lab, &user, &format!("<{contact}>;expires=60"));
            let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
            reaches(&mut lab, &core, &client, &contact, "a", ";tag=x");
            lab.pass(std::time::Duration::from_secs(70));
            let draft = request(&core, "INFO", &contact, "b").to(&format!("<{contact}>;tag=x"));
            core.send(&mut lab, &draft.text());
            let status = core.take_one(&mut lab).status();
            assert!(status == 430 || status == 404, "{transport:?} {status}");
            client.heard_nothing(&mut lab);
            lab.finish();
        }
    }
}

#[test]
fn a_server_may_look_up_addresses_where_the_configuration_permits_it() {
    let table: [(&str, &[Transport]); 6] = [
        ("sip:u7@203.0.113.5:40001;transport=ws", &[Transport::Ws, Transport::Wss]),
        ("sip:u7@203.0.113.5:40001;transport=wss", &[Transport::Wss]),
        ("sips:u7@203.0.113.5:40001;transport=ws", &[Transport::Wss]),
        ("sips:u7@203.0.113.5:40001;transport=wss", &[Transport::Wss]),
        ("sip:u7@203.0.113.5:40001;transport=tcp", &[Transport::Tcp]),
        ("sip:u7@203.0.113.5:40001;transport=tls", &[Transport::Tls]),
    ];
    for at in lab::placements() {
        for transport in Transport::ALL.into_iter().filter(|it| *it != Transport::Udp) {
            for (uri, found) in table {
                for permitted in [true, false] {
                    let config = if permitted { with_lookup() } else { lab::config() };
                    let mut lab = Lab::new(at.shards, config);
                    let client = Phone::connect(&mut lab, at.flow, transport, ADDRESS);
                    let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
                    if permitted && found.contains(&transport) {
                        reaches(&mut lab, &core, &client, uri, "a", "");
                        reaches(&mut lab, &core, &client, uri, "b", ";tag=x");
                    } else {
                        core.send(&mut lab, &request(&core, "INFO", uri, "a").text());
                        let status = core.take_one(&mut lab).status();
                        assert!(status >= 400, "{transport:?} {uri} {status}");
                    }
                    for stranger in Transport::ALL {
                        let mallory =
                            Phone::connect(&mut lab, at.arrival, stranger, "203.0.113.9:44444");
                        for tag in ["", ";tag=x"] {
                            let name = format!("m{}{}", stranger.name(), tag.len());
                            let draft = request(&mallory, "INFO", uri, &name);
                            mallory.send(&mut lab, &draft.to(&format!("<{uri}>{tag}")).text());
                            mallory.take_status(&mut lab, 403);
                        }
                    }
                    client.heard_nothing(&mut lab);
                    assert!(lab.opens.is_empty());
                    lab.finish();
                }
            }
        }
    }
}

#[test]
fn ws_is_looked_for_before_wss() {
    for shards in 1..=3 {
        let mut lab = Lab::new(shards, with_lookup());
        let wss = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
        let ws = Phone::connect(&mut lab, shards - 1, Transport::Ws, ADDRESS);
        let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
        reaches(&mut lab, &core, &ws, &format!("sip:u7@{ADDRESS};transport=ws"), "a", "");
        reaches(&mut lab, &core, &wss, &format!("sip:u7@{ADDRESS};transport=wss"), "b", "");
        ws.leave(&mut lab, sipring::base::event::CloseReason::Peer);
        reaches(&mut lab, &core, &wss, &format!("sip:u7@{ADDRESS};transport=ws"), "c", "");
        lab.finish();
    }
}
