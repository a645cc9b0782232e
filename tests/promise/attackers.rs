//! Attackers who name another client's address and port, in every place where an address can stand:
//! not one byte on that client's connection, no datagram and no connection to it, and exactly one
//! final answer for the attacker.

use std::collections::HashSet;

use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::lab::call::Call;
use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab};

/// URIs of every scheme and transport that name an address.
fn uris_at(address: &str) -> Vec<String> {
    let params = [
        "",
        ";transport=udp",
        ";transport=tcp",
        ";transport=tls",
        ";transport=ws",
        ";transport=wss",
    ];
    let mut uris = Vec::new();
    for scheme in ["sip", "sips"] {
        for param in params {
            uris.push(format!("{scheme}:v@{address}{param}"));
        }
    }
    uris
}

struct Scene {
    lab: Lab,
    victims: Vec<Phone>,
    mallory: Phone,
    serial: u32,
}

/// A victim on every transport, registered with its own address, and one attacker.
fn scene(shards: u16, transport: Transport) -> Scene {
    let mut lab = Lab::new(shards, lab::config());
    let mut victims = Vec::new();
    for (at, of) in Transport::ALL.into_iter().enumerate() {
        let remote = format!("203.0.113.{}:{}", 5 + at, 40_001 + at);
        let victim = Phone::connect(&mut lab, at as u16 % shards, of, &remote);
        let contact = format!("<sip:v@{remote};transport={}>", of.uri_name());
        victim.register(&mut lab, &format!("victim{at}"), &contact);
        victims.push(victim);
    }
    let mallory = Phone::connect(&mut lab, shards - 1, transport, "203.0.113.66:50000");
    Scene { lab, victims, mallory, serial: 0 }
}

fn every_scene(mut each: impl FnMut(&mut Scene)) {
    for shards in 1..=3 {
        for transport in Transport::ALL {
            let mut scene = scene(shards, transport);
            each(&mut scene);
            scene.lab.finish();
        }
    }
}

impl Scene {
    fn name(&mut self) -> String {
        self.serial += 1;
        format!("x{}", self.serial)
    }

    /// Every address that belongs to somebody else.
    fn addresses(&self) -> Vec<String> {
        self.victims.iter().map(|victim| victim.remote.to_string()).collect()
    }

    /// What came to the attacker's host, on whatever port.
    fn answers(&mut self) -> Vec<u16> {
        let ip = self.mallory.remote.ip();
        if self.mallory.flow.is_some() {
            return self.mallory.take(&mut self.lab).iter().map(|it| it.status()).collect();
        }
        let ports: HashSet<_> = self.lab.datagrams.iter().map(|(path, _)| path.remote).collect();
        let mine = ports.into_iter().filter(|remote| remote.ip() == ip);
        mine.flat_map(|remote| self.lab.datagrams_to(remote)).map(|it| it.status()).collect()
    }

    /// Sends it; one final answer comes, and nobody else hears anything.
    fn attack(&mut self, draft: &Draft) {
        let text = draft.text();
        self.mallory.send(&mut self.lab, &text);
        let answers = self.answers();
        let finals = answers.iter().filter(|status| **status >= 200).count();
        assert_eq!(finals, 1, "{answers:?} for {text}");
        assert!(answers.iter().all(|status| *status < 200 || *status >= 300), "{answers:?} {text}");
        self.silence(&text);
    }

    fn silence(&mut self, text: &str) {
        for victim in &self.victims {
            victim.heard_nothing(&mut self.lab);
        }
        assert!(self.lab.opens.is_empty(), "{:?} for {text}", self.lab.opens);
        assert!(self.lab.datagrams.is_empty(), "{:?} for {text}", self.lab.datagrams);
    }

    fn register(&mut self, user: &str, contact: &str, lines: &[&str]) -> u16 {
        let name = self.name();
        let mut draft = request(&self.mallory, "REGISTER", "sip:example.com", &name)
            .to(&format!("<sip:{user}@example.com>"))
            .from(&format!("<sip:{user}@example.com>;tag=r"))
            .line(&format!("Contact: {contact}"));
        for line in lines {
            draft = draft.line(line);
        }
        self.mallory.send(&mut self.lab, &draft.text());
        let answers = self.answers();
        assert_eq!(answers.len(), 1, "{}", draft.text());
        answers[0]
    }
}

#[test]
fn a_request_uri_or_route_at_a_clients_address_leads_nowhere() {
    every_scene(|scene| {
        for registered in [false, true] {
            if registered {
                assert_eq!(scene.register("mallory", "<sip:m@mm.invalid>", &[]), 200);
            }
            for address in scene.addresses() {
                for uri in uris_at(&address) {
                    for tag in ["", ";tag=x"] {
                        let name = scene.name();
                        let method = if tag.is_empty() { "MESSAGE" } else { "BYE" };
                        let to = format!("<{uri}>{tag}");
                        let draft = request(&scene.mallory, method, &uri, &name).to(&to);
                        scene.attack(&draft);
                        let name = scene.name();
                        let route = vec![format!("<{uri};lr>")];
                        let aimed = "sip:victim9@example.com";
                        let draft =
                            request(&scene.mallory, method, aimed, &name).to(&to).route(&route);
                        scene.attack(&draft);
                        let name = scene.name();
                        let via_us = vec!["<sip:192.0.2.1;lr>".into(), route[0].clone()];
                        let draft = request(&scene.mallory, method, &uri, &name);
                        scene.attack(&draft.to(&to).route(&via_us));
                    }
                }
            }
        }
    });
}

#[test]
fn an_invite_or_cancel_or_ack_at_a_clients_address_leads_nowhere() {
    every_scene(|scene| {
        for address in scene.addresses() {
            for uri in uris_at(&address) {
                let name = scene.name();
                let invite = request(&scene.mallory, "INVITE", &uri, &name);
                scene.attack(&invite);
                let ack = invite.clone().method("ACK").text();
                scene.mallory.send(&mut scene.lab, &ack);
                assert!(scene.answers().is_empty());
                let name = scene.name();
                let cancel = request(&scene.mallory, "CANCEL", &uri, &name);
                scene.attack(&cancel);
                let name = scene.name();
                let ack = request(&scene.mallory, "ACK", &uri, &name).to(&format!("<{uri}>;tag=x"));
                scene.mallory.send(&mut scene.lab, &ack.text());
                assert!(scene.answers().is_empty());
                scene.silence("ACK");
            }
        }
    });
}

#[test]
fn a_via_that_names_a_client_brings_it_no_answer() {
    every_scene(|scene| {
        let name_of = scene.mallory.transport.via_name();
        for address in scene.addresses() {
            let (host, port) = address.split_once(':').expect("an address with a port");
            let vias = [
                format!("Via: SIP/2.0/{name_of} {address};branch=z9hG4bK"),
                format!("Via: SIP/2.0/{name_of} {address};rport;branch=z9hG4bK"),
                format!(
                    "Via: SIP/2.0/{name_of} {address};rport={port};received={host};branch=z9hG4bK"
                ),
                format!("Via: SIP/2.0/{name_of} x.invalid;received={host};branch=z9hG4bK"),
                format!("Via: SIP/2.0/{name_of} x.invalid:{port};maddr={host};branch=z9hG4bK"),
                format!("Via: SIP/2.0/{name_of} {address};maddr={host};ttl=1;branch=z9hG4bK"),
                format!("Via: SIP/2.0/UDP {address};maddr={host};branch=z9hG4bK"),
                format!("Via: SIP/2.0/WSS {address};branch=z9hG4bK"),
            ];
            for via in vias {
                for uri in ["sip:nobody@example.com", "sip:192.0.2.1"] {
                    let name = scene.name();
                    let via = format!("{via}{name}");
                    let draft = request(&scene.mallory, "INVITE", uri, &name);
                    let draft =
                        draft.vias(&[&via, "Via: SIP/2.0/UDP 203.0.113.5:40001;branch=z9hG4bKb"]);
                    scene.attack(&draft);
                    scene.lab.pass(std::time::Duration::from_millis(600));
                    let _ = scene.answers();
                    scene.silence(&via);
                }
            }
        }
        // Unacknowledged finals are repeated for 32 s: to the attacker's own host only.
        scene.lab.pass(std::time::Duration::from_secs(40));
        let _ = scene.answers();
        scene.silence("repeats");
    });
}

#[test]
fn a_registered_contact_that_names_a_client_is_the_attackers_own_flow() {
    every_scene(|scene| {
        let caller = Phone::connect(&mut scene.lab, 0, Transport::Wss, "203.0.113.99:45000");
        for address in scene.addresses() {
            for uri in uris_at(&address) {
                assert_eq!(scene.register("mallory", &format!("<{uri}>;expires=60"), &[]), 200);
                let name = scene.name();
                let draft = request(&caller, "MESSAGE", "sip:mallory@example.com", &name);
                caller.send(&mut scene.lab, &draft.text());
                let copies = scene.mallory.take(&mut scene.lab);
                scene.silence(&uri);
                for copy in copies {
                    scene.mallory.send(&mut scene.lab, &copy.response(200, "m", &[]));
                }
                let answer = caller.take_one(&mut scene.lab);
                assert!(matches!(answer.status(), 200 | 480), "{answer:#?}");
                assert_eq!(scene.register("mallory", "*", &["Expires: 0"]), 200);
            }
        }
    });
}

#[test]
fn a_registered_contact_is_not_dialled_when_the_attackers_flow_is_gone() {
    for shards in 1..=3 {
        for transport in Transport::ALL.into_iter().filter(|it| *it != Transport::Udp) {
            let mut scene = scene(shards, transport);
            let caller = Phone::connect(&mut scene.lab, 0, Transport::Wss, "203.0.113.99:45000");
            for address in scene.addresses() {
                scene.mallory = Phone::connect(&mut scene.lab, 0, transport, "203.0.113.66:50000");
                for uri in uris_at(&address).into_iter().take(4) {
                    assert_eq!(scene.register("mallory", &format!("<{uri}>"), &[]), 200);
                }
                scene.mallory.leave(&mut scene.lab, CloseReason::Peer);
                let name = scene.name();
                let draft = request(&caller, "MESSAGE", "sip:mallory@example.com", &name);
                caller.send(&mut scene.lab, &draft.text());
                caller.take_status(&mut scene.lab, 480);
                scene.silence(&address);
            }
            scene.lab.finish();
        }
    }
}

#[test]
fn a_registered_path_that_names_a_client_leads_nowhere() {
    every_scene(|scene| {
        let caller = Phone::connect(&mut scene.lab, 0, Transport::Wss, "203.0.113.99:45000");
        for address in scene.addresses() {
            for uri in uris_at(&address) {
                let path = format!("Path: <{uri};lr>");
                scene.register("mallory", "<sip:m@mm.invalid>", &[&path, "Supported: path"]);
                let name = scene.name();
                let draft = request(&caller, "MESSAGE", "sip:mallory@example.com", &name);
                caller.send(&mut scene.lab, &draft.text());
                scene.silence(&path);
                caller.take_status(&mut scene.lab, 480);
                let name = scene.name();
                let draft = request(&caller, "OPTIONS", "sip:mallory@example.com", &name);
                caller.send(&mut scene.lab, &draft.text());
                scene.silence(&path);
                caller.take_status(&mut scene.lab, 480);
            }
        }
    });
}

#[test]
fn a_valid_token_of_ones_own_opens_no_way_to_others() {
    every_scene(|scene| {
        let mallory = scene.mallory;
        let core = Phone::connect(&mut scene.lab, 0, Transport::Udp, CORE);
        let accomplice = Phone::connect(&mut scene.lab, 0, Transport::Wss, "203.0.113.67:50001");
        accomplice.register(&mut scene.lab, "accomplice", "<sip:y@yy.invalid;transport=ws>");
        for (peer, uri, contact) in [
            (core, "sip:9@example.com", "sip:9@198.51.100.7:5060"),
            (accomplice, "sip:accomplice@example.com", "sip:y@yy.invalid;transport=ws"),
        ] {
            for address in scene.addresses() {
                let name = scene.name();
                let lie = format!("sip:v@{address};transport=ws");
                let contacts = (lie.as_str(), contact);
                let mut call =
                    Call::establish(&mut scene.lab, &mallory, &peer, uri, contacts, &name);
                for uri in uris_at(&address) {
                    for with_route in [false, true] {
                        let mut draft = call.by_caller(&mallory, "INFO").uri(&uri);
                        if with_route {
                            let mut route = call.caller_route().to_vec();
                            route.push(format!("<{uri};lr>"));
                            draft = draft.route(&route);
                        }
                        mallory.send(&mut scene.lab, &draft.text());
                        // A token may lead to the peer of the call, whatever the URIs say.
                        for got in peer.take(&mut scene.lab) {
                            peer.send(&mut scene.lab, &got.response(481, "", &[]));
                        }
                        let answers = scene.answers();
                        assert_eq!(answers.len(), 1, "{answers:?} for {}", draft.text());
                        scene.silence(&uri);
                    }
                }
                // The peer believes the lie; its requests still go to who told it.
                let bye = call.by_callee(&peer, "BYE");
                Call::exchange(&mut scene.lab, &peer, &mallory, &bye);
                scene.silence("BYE");
            }
        }
    });
}
