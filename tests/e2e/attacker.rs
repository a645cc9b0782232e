//! An attacker names another client's address and port wherever SIP has room for an address. Not
//! one byte may reach that client, and the attacker gets his answer.

use super::support::phone::{ATTACKERS, From};
use super::support::sip::unique;
use super::support::{Draft, Phone, Server, Setup, Transport, fence, still};

const PARAMS: [&str; 7] = [
    "",
    ";transport=udp",
    ";transport=tcp",
    ";transport=tls",
    ";transport=ws",
    ";transport=wss",
    ";lr",
];
const SCHEMES: [&str; 2] = ["sip", "sips"];

struct Scene {
    victims: Vec<Phone>,
    core: Phone,
    server: Server,
}

fn scene(shards: usize) -> Scene {
    let core = Phone::core(Transport::Udp);
    let server = Setup::new().shards(shards).start();
    let core = core.connect(&server, "core");
    let victims = Transport::ALL.iter().map(|&transport| {
        let mut victim = Phone::connect(transport, &server, &unique("victim"));
        let contact = format!("<sip:{0}@{0}.invalid;transport=ws>", unique("v"));
        victim.register(&contact);
        victim
    });
    Scene { victims: victims.collect(), core, server }
}

fn attacker(transport: Transport, server: &Server) -> Phone {
    Phone::connect_from(transport, server, &unique("mallory"), From::host(ATTACKERS))
}

/// Sends a request and returns its final status; what comes back to the attacker himself, he
/// answers.
fn attack(attacker: &mut Phone, draft: &Draft) -> u16 {
    attacker.send(&draft.build());
    loop {
        let heard = attacker.next();
        if heard.is_request() {
            attacker.answer(&heard, 200);
        } else if heard.one("call-id") == draft.value("Call-ID") && heard.status() >= 200 {
            return heard.status();
        }
    }
}

/// Runs `attack_one` for every attacker's and victim's transport, then shows that the victim heard
/// nothing.
fn everywhere(attack_one: impl Fn(&mut Phone, &Phone)) {
    for shards in [1, 2] {
        let Scene { server, mut victims, mut core } = scene(shards);
        for transport in Transport::ALL {
            let mut mallory = attacker(transport, &server);
            for victim in &mut victims {
                attack_one(&mut mallory, victim);
                victim.untouched();
                fence(&mut core, &mut [victim]);
            }
        }
        still(&mut victims.iter_mut().collect::<Vec<_>>());
    }
}

fn targets(victim: &Phone) -> Vec<String> {
    let target = |scheme: &str, param: &str| format!("{scheme}:x@{}{param}", victim.local);
    SCHEMES.iter().flat_map(|scheme| PARAMS.map(|param| target(scheme, param))).collect()
}

#[test]
fn a_request_uri_at_a_clients_address_reaches_nobody() {
    everywhere(|mallory, victim| {
        for uri in targets(victim) {
            let outside = mallory.draft("MESSAGE", &uri).body("text/plain", "attack");
            let status = attack(mallory, &outside);
            assert!((400..700).contains(&status) && status != 477, "{status} for {uri}");
            let inside = mallory.draft("BYE", &uri).set("To", format!("<{uri}>;tag=guessed"));
            let status = attack(mallory, &inside);
            assert!((400..700).contains(&status) && status != 477, "{status} for {uri}");
        }
    });
}

#[test]
fn a_route_at_a_clients_address_reaches_nobody() {
    everywhere(|mallory, victim| {
        for uri in targets(victim) {
            let draft = mallory
                .draft("MESSAGE", "sip:nobody@example.com")
                .with("Route", format!("<{uri};lr>"));
            let status = attack(mallory, &draft);
            assert!((400..700).contains(&status) && status != 477, "{status} for Route {uri}");
            let proxy = mallory.proxy;
            let behind = mallory
                .draft("BYE", "sip:nobody@example.com")
                .set("To", "<sip:nobody@example.com>;tag=guessed")
                .with("Route", format!("<sip:{proxy};lr>, <{uri};lr>"));
            let status = attack(mallory, &behind);
            assert!((400..700).contains(&status) && status != 477, "{status} for Route {uri}");
        }
    });
}

#[test]
fn a_contact_at_a_clients_address_brings_requests_to_the_one_who_registered_it() {
    everywhere(|mallory, victim| {
        for uri in targets(victim) {
            mallory.user = unique("mallory");
            let register = mallory.register_draft(&format!("<{uri}>")).set("Expires", "600");
            let register = register.set("Call-ID", unique("reg"));
            let registered = attack(mallory, &register);
            assert!((200..700).contains(&registered));
            let draft = mallory.draft("MESSAGE", &mallory.aor()).body("text/plain", "attack");
            let status = attack(mallory, &draft);
            assert!((200..700).contains(&status) && status != 477, "{status} for {uri}");
        }
    });
}

#[test]
fn a_via_at_a_clients_address_brings_no_response_there() {
    everywhere(|mallory, victim| {
        let (ip, port) = (victim.local.ip(), victim.local.port());
        let own = mallory.local.ip();
        for name in ["UDP", "TCP", "TLS", "WS", "WSS"] {
            let mut vias = vec![
                format!("SIP/2.0/{name} {ip}:{port};rport"),
                format!("SIP/2.0/{name} {ip}:{port};rport;received={ip}"),
                format!("SIP/2.0/{name} {ip}:{port};received={ip};rport={port}"),
            ];
            // RFC 3261 §18.2.2 wants a UDP response at maddr: a datagram, which is on nobody's
            // connection.
            if mallory.transport != Transport::Udp {
                vias.push(format!("SIP/2.0/{name} {own}:{port};maddr={ip}"));
                vias.push(format!("SIP/2.0/{name} {ip}:{port}"));
            }
            for via in vias {
                let via = format!("{via};branch={}", unique("z9hG4bK"));
                let draft = mallory.draft("OPTIONS", "sip:nobody@example.com").set("Via", via);
                let status = attack(mallory, &draft);
                assert!((400..700).contains(&status), "{status}");
            }
        }
    });
}

#[test]
fn a_udp_via_without_rport_brings_no_bytes_to_a_connection_of_that_port() {
    let Scene { server, mut victims, mut core } = scene(1);
    let mut mallory = attacker(Transport::Udp, &server);
    for victim in victims.iter_mut().filter(|victim| victim.transport != Transport::Udp) {
        let (ip, port) = (victim.local.ip(), victim.local.port());
        for name in ["UDP", "TCP", "TLS", "WS", "WSS"] {
            for tail in ["".to_string(), format!(";maddr={ip}"), format!(";received={ip}")] {
                let via = format!("SIP/2.0/{name} {ip}:{port}{tail};branch={}", unique("z9hG4bK"));
                let draft = mallory.draft("OPTIONS", "sip:nobody@example.com").set("Via", via);
                mallory.send(&draft.build());
            }
        }
        still(&mut [&mut mallory]);
        victim.untouched();
        fence(&mut core, &mut [victim]);
    }
}

#[test]
fn a_response_whose_sender_is_gone_does_not_look_for_his_via() {
    for shards in [1, 2] {
        let Scene { server, mut victims, mut core } = scene(shards);
        let mut bob = Phone::connect(Transport::Wss, &server, "bob");
        bob.register_self();
        for transport in [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss] {
            for victim in &mut victims {
                let mut mallory = attacker(transport, &server);
                let via = format!(
                    "SIP/2.0/{} {};received={};branch={}",
                    transport.via(),
                    victim.local,
                    victim.local.ip(),
                    unique("z9hG4bK")
                );
                let draft = mallory.draft("MESSAGE", "sip:bob@example.com").set("Via", via);
                let closed = server.metric("sipring_flows_closed_total");
                mallory.send(&draft.build());
                let heard = bob.request("MESSAGE");
                mallory.reset();
                server.wait_metric(
                    "sipring_flows_closed_total",
                    closed + 1,
                    super::support::phone::PATIENCE,
                );
                bob.answer(&heard, 200);
                still(&mut [&mut bob]);
                victim.untouched();
                fence(&mut core, &mut [victim]);
            }
        }
    }
}
