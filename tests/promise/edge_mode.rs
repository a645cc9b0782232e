//! The registrar is in the core: REGISTER goes there with a Path of ours, and the core's requests
//! come back by it (RFC 3327, RFC 5626 §5.3).

use std::time::Duration;

use sipring::base::config::{Config, Route, RouteTo, Strangers};
use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, CORE, Lab, Placement, user_of};

/// Everything goes to the upstream.
pub fn routes() -> Vec<Route> {
    let register = Route {
        user: None,
        domain: Some("example.com".into()),
        methods: vec!["REGISTER".into()],
        to: RouteTo::Upstream(0),
    };
    vec![register]
}

/// Registers through us and returns the Path value that the core got.
pub fn registered(lab: &mut Lab, client: &Phone, core: &Phone, user: &str) -> String {
    let draft = request(client, "REGISTER", "sip:example.com", &format!("r{user}"))
        .to(&format!("<sip:{user}@example.com>"))
        .from(&format!("<sip:{user}@example.com>;tag=r"))
        .line("Contact: <sip:a@aa.invalid;transport=ws>")
        .line("Supported: path, outbound");
    client.send(lab, &draft.text());
    let got = core.take_method(lab, "REGISTER");
    let path = got.header("Path").to_string();
    core.send(lab, &got.response(200, "core", &[&format!("Path: {path}")]));
    client.take_status(lab, 200);
    path
}

#[test]
fn the_path_leads_to_the_flow_that_registered() {
    for at in lab::placements() {
        for transport in Transport::ALL {
            let mut lab = Lab::new(at.shards, lab::config_with(|config| config.routes = routes()));
            let client = Phone::connect(&mut lab, at.flow, transport, "203.0.113.5:40001");
            let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
            let path = registered(&mut lab, &client, &core, "alice");
            assert!(path.starts_with("<sip:ft.") && path.ends_with("@192.0.2.1:5060;lr;ob>"));
            for method in ["MESSAGE", "OPTIONS", "NOTIFY"] {
                let draft = request(&core, method, "sip:a@aa.invalid;transport=ws", method)
                    .route(std::slice::from_ref(&path));
                core.send(&mut lab, &draft.text());
                let got = client.take_method(&mut lab, method);
                assert_eq!(got.uri(), "sip:a@aa.invalid;transport=ws");
                assert_eq!(got.find("Route"), None);
                client.send(&mut lab, &got.response(200, "c", &[]));
                core.take_status(&mut lab, 200);
            }
            lab.finish();
        }
    }
}

#[test]
fn who_cannot_do_without_path_asks_for_it_on_both_sides() {
    for at in lab::placements() {
        for transport in Transport::ALL {
            let config = lab::config_with(|config| {
                config.routes = routes();
                config.registrar.require_path = true;
            });
            let mut lab = Lab::new(at.shards, config);
            let client = Phone::connect(&mut lab, at.flow, transport, "203.0.113.5:40001");
            let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
            for supported in
                ["Supported: outbound, gruu", "Proxy-Require:", "Supported: pathfinder"]
            {
                let name = format!("r{}", lab.serial());
                let draft = request(&client, "REGISTER", "sip:example.com", &name)
                    .line("Contact: <sip:a@aa.invalid;transport=ws>")
                    .line(supported);
                client.send(&mut lab, &draft.text());
                let answer = client.take_status(&mut lab, 421);
                assert_eq!(answer.header("Require"), "path", "RFC 3261 §21.4.15");
                core.heard_nothing(&mut lab);
            }
            let draft = request(&client, "REGISTER", "sip:example.com", "r")
                .line("Contact: <sip:a@aa.invalid;transport=ws>")
                .line("Supported: gruu")
                .line("Supported: outbound,PATH");
            client.send(&mut lab, &draft.text());
            let got = core.take_method(&mut lab, "REGISTER");
            assert_eq!(got.header("Require"), "path", "RFC 3327 §5.2");
            assert!(got.header("Path").contains(";lr"));
            core.send(&mut lab, &got.response(200, "core", &[]));
            client.take_status(&mut lab, 200);
            lab.finish();
        }
    }
}

#[test]
fn a_call_by_the_path_gets_dialog_tokens() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config_with(|config| config.routes = routes()));
        let client = Phone::connect(&mut lab, at.flow, Transport::Wss, "203.0.113.5:40001");
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        let path = registered(&mut lab, &client, &core, "alice");
        let uri = "sip:a@aa.invalid;transport=ws";
        let draft = request(&core, "INVITE", uri, "i")
            .line("Contact: <sip:core@198.51.100.7>")
            .route(&[path]);
        core.send(&mut lab, &draft.text());
        let invite = client.take_method(&mut lab, "INVITE");
        core.take_status(&mut lab, 100);
        client.send(&mut lab, &invite.response(200, "c", &[&format!("Contact: <{uri}>")]));
        let answer = core.take_status(&mut lab, 200);
        let mut route = answer.record_route();
        route.reverse();
        let in_dialog = |method: &str, cseq: u32, branch: &str| {
            draft
                .clone()
                .branch(&core, branch)
                .method(method)
                .cseq(cseq)
                .to(&format!("<{uri}>;tag=c"))
                .route(&route)
        };
        core.send(&mut lab, &in_dialog("ACK", 1, "k").text());
        client.take_method(&mut lab, "ACK");
        core.send(&mut lab, &in_dialog("BYE", 2, "b").text());
        let bye = client.take_method(&mut lab, "BYE");
        client.send(&mut lab, &bye.response(200, "c", &[]));
        core.take_status(&mut lab, 200);
        lab.finish();
    }
}

#[test]
fn a_path_whose_flow_is_gone_is_430_for_the_core() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config_with(|config| config.routes = routes()));
        let client = Phone::connect(&mut lab, at.flow, Transport::Wss, "203.0.113.5:40001");
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        let path = registered(&mut lab, &client, &core, "alice");
        client.leave(&mut lab, CloseReason::Reset);
        let next = Phone::connect(&mut lab, at.flow, Transport::Wss, "203.0.113.5:40001");
        for method in ["MESSAGE", "INVITE"] {
            let draft = request(&core, method, "sip:a@aa.invalid;transport=ws", method)
                .route(std::slice::from_ref(&path));
            core.send(&mut lab, &draft.text());
            let answers = core.take(&mut lab);
            assert_eq!(answers.last().expect("an answer").status(), 430, "{answers:#?}");
            if method == "INVITE" {
                core.send(&mut lab, &draft.method("ACK").text());
            }
        }
        next.heard_nothing(&mut lab);
        lab.finish();
    }
}

#[test]
fn a_430_for_a_binding_behind_another_edge_is_480_for_who_called() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config());
        let user = user_of(at.owner, at.shards, 0);
        let edge = Phone::connect(&mut lab, at.flow, Transport::Udp, "198.51.100.8:5060");
        let caller = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.5:40001");
        let path = "<sip:token@198.51.100.8;lr;ob>";
        let below = "Via: SIP/2.0/WSS x.invalid;branch=z9hG4bKbelow";
        let register = request(&edge, "REGISTER", "sip:example.com", "r")
            .vias(&[&edge.via("r"), below])
            .to(&format!("<sip:{user}@example.com>"))
            .line("Contact: <sip:a@aa.invalid;transport=ws>")
            .line(&format!("Path: {path}"))
            .line("Supported: path");
        edge.send(&mut lab, &register.text());
        edge.take_status(&mut lab, 200);
        let uri = format!("sip:{user}@example.com");
        for (status, expected) in [(200, 200), (430, 480), (486, 486)] {
            let draft = request(&caller, "MESSAGE", &uri, &format!("m{status}"));
            caller.send(&mut lab, &draft.text());
            let got = edge.take_method(&mut lab, "MESSAGE");
            assert_eq!((got.header("Route"), got.uri()), (path, "sip:a@aa.invalid;transport=ws"));
            edge.send(&mut lab, &got.response(status, "e", &[]));
            caller.take_status(&mut lab, expected);
        }
        lab.finish();
    }
}

const CONTACT: &str = "<sip:a@203.0.113.5:40001;transport=ws>";
const ALICE: &str = "203.0.113.5:40001";

/// A client, the core, and the registrations that pass between them.
struct Edge {
    lab: Lab,
    client: Phone,
    core: Phone,
    user: String,
    cseq: u32,
}

impl Edge {
    fn new(at: Placement, transport: Transport, change: impl Fn(&mut Config)) -> Edge {
        let config = lab::config_with(|config| {
            config.routes = routes();
            change(config);
        });
        let mut lab = Lab::new(at.shards, config);
        let client = Phone::connect(&mut lab, at.flow, transport, ALICE);
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        Edge { lab, client, core, user: user_of(at.owner, at.shards, 0), cseq: 0 }
    }

    /// A REGISTER with these Contacts; returns what the core got of it.
    fn ask(&mut self, contacts: &[&str]) -> Sip {
        self.cseq += 1;
        let aor = format!("<sip:{}@example.com>", self.user);
        let mut draft = request(&self.client, "REGISTER", "sip:example.com", "reg")
            .branch(&self.client, &format!("reg{}", self.cseq))
            .cseq(self.cseq)
            .to(&aor)
            .from(&format!("{aor};tag=r"))
            .line("Supported: path, outbound");
        for contact in contacts {
            draft = draft.line(&format!("Contact: {contact}"));
        }
        self.client.send(&mut self.lab, &draft.text());
        self.core.take_method(&mut self.lab, "REGISTER")
    }

    /// The same, which the core accepts with these header fields.
    fn register(&mut self, contacts: &[&str], answer: &[&str]) {
        let got = self.ask(contacts);
        self.core.send(&mut self.lab, &got.response(200, "core", answer));
        self.client.take_status(&mut self.lab, 200);
    }

    fn bindings(&self) -> u64 {
        self.lab.engines.iter().map(|engine| engine.gauges().bindings).sum()
    }

    /// What the core hears when it sends a request in a dialog to the Contact, by no Route of ours.
    fn bye(&mut self) -> u16 {
        let serial = self.lab.serial();
        let uri = CONTACT.trim_matches(['<', '>']);
        let draft = request(&self.core, "BYE", uri, &format!("bye{serial}"));
        let draft = draft.to(&format!("{CONTACT};tag=c"));
        self.core.send(&mut self.lab, &draft.text());
        for bye in self.client.take(&mut self.lab) {
            self.client.send(&mut self.lab, &bye.response(200, "c", &[]));
        }
        self.core.take_one(&mut self.lab).status()
    }
}

#[test]
fn a_shadow_lives_as_long_as_the_registrar_says() {
    let listed = format!("Contact: {CONTACT};expires=600");
    for at in lab::placements() {
        for transport in Transport::ALL {
            let mut edge = Edge::new(at, transport, |_| {});
            edge.register(&[&format!("{CONTACT};expires=3600")], &[&listed]);
            assert_eq!((edge.bindings(), edge.bye()), (1, 200), "{at:?} {transport:?}");
            // A refresh is the same binding.
            edge.lab.pass(Duration::from_secs(500));
            edge.register(&[CONTACT], &[&listed]);
            edge.lab.pass(Duration::from_secs(500));
            assert_eq!((edge.bindings(), edge.bye()), (1, 200));
            edge.lab.pass(Duration::from_secs(120));
            assert_eq!(edge.bindings(), 0);
            assert_ne!(edge.bye(), 200);
            edge.lab.finish();
        }
    }
}

#[test]
fn a_shadow_ends_with_its_registration_or_its_flow() {
    let listed = format!("Contact: {CONTACT};expires=600");
    let other = "Contact: <sip:other@192.0.2.77>;expires=60";
    for at in lab::placements() {
        for (contacts, answer) in [
            (vec![format!("{CONTACT};expires=0")], vec![]),
            (vec![format!("{CONTACT};expires=0")], vec![other]),
            // Not listed: the registrar has other plans than its client.
            (vec![CONTACT.to_owned()], vec![other]),
            (vec!["*".to_owned()], vec![]),
        ] {
            let mut edge = Edge::new(at, Transport::Wss, |_| {});
            edge.register(&[CONTACT], &[&listed, other]);
            assert_eq!((edge.bindings(), edge.bye()), (1, 200));
            let contacts: Vec<_> = contacts.iter().map(String::as_str).collect();
            edge.register(&contacts, &answer);
            assert_eq!(edge.bindings(), 0, "{contacts:?} {answer:?}");
            assert_ne!(edge.bye(), 200);
            edge.lab.finish();
        }
        let mut edge = Edge::new(at, Transport::Wss, |_| {});
        edge.register(&[CONTACT], &[&listed]);
        // A query changes nothing.
        edge.register(&[], &[]);
        assert_eq!(edge.bindings(), 1);
        edge.client.leave(&mut edge.lab, CloseReason::Reset);
        assert_eq!(edge.bindings(), 0);
        edge.lab.finish();
    }
}

#[test]
fn a_challenge_passes_both_ways_and_leaves_nothing() {
    const CHALLENGE: &str = "WWW-Authenticate: Digest realm=\"core\", nonce=\"n\"";
    for at in lab::placements() {
        let mut edge = Edge::new(at, Transport::Wss, |_| {});
        for status in [401, 407, 403, 503] {
            let got = edge.ask(&[CONTACT]);
            edge.core.send(&mut edge.lab, &got.response(status, "core", &[CHALLENGE]));
            let heard = edge.client.take_one(&mut edge.lab);
            assert_eq!(heard.status(), if status == 503 { 500 } else { status });
            let is_told = heard.find("WWW-Authenticate").is_some();
            assert_eq!(is_told, status != 503, "{status}");
            assert_eq!(edge.bindings(), 0);
        }
        edge.lab.finish();
    }
}

#[test]
fn a_new_flow_of_an_instance_replaces_the_old_one() {
    let contact = format!("{CONTACT};reg-id=1;+sip.instance=\"<urn:uuid:1>\"");
    let listed = format!("Contact: {contact};expires=600");
    for at in lab::placements() {
        let mut edge = Edge::new(at, Transport::Wss, |_| {});
        edge.register(&[&contact], &[&listed]);
        let old = edge.client;
        edge.client = Phone::connect(&mut edge.lab, at.arrival, Transport::Wss, "203.0.113.6:2");
        edge.register(&[&contact], &[&listed]);
        assert_eq!((edge.bindings(), edge.bye()), (1, 200));
        old.heard_nothing(&mut edge.lab);
        old.leave(&mut edge.lab, CloseReason::Reset);
        assert_eq!((edge.bindings(), edge.bye()), (1, 200));
        edge.lab.finish();
    }
}

#[test]
fn a_core_without_path_finds_the_client_by_its_address() {
    for at in lab::placements() {
        for lookup in [false, true] {
            let mut edge = Edge::new(at, Transport::Wss, |config| {
                config.upstreams[0].address_lookup = lookup;
            });
            edge.register(&[CONTACT], &[&format!("Contact: {CONTACT};expires=600")]);
            let uri = CONTACT.trim_matches(['<', '>']);
            let draft = request(&edge.core, "MESSAGE", uri, "m");
            edge.core.send(&mut edge.lab, &draft.text());
            if lookup {
                let got = edge.client.take_method(&mut edge.lab, "MESSAGE");
                edge.client.send(&mut edge.lab, &got.response(200, "c", &[]));
            }
            edge.core.take_status(&mut edge.lab, if lookup { 200 } else { 404 });
            edge.lab.finish();
        }
    }
}

#[test]
fn strangers_may_register_at_the_core_and_are_none_afterwards() {
    for at in lab::placements() {
        let mut edge = Edge::new(at, Transport::Wss, |config| {
            config.auth.strangers = Strangers::Reject;
            config.routes.push(Route {
                user: None,
                domain: Some("example.com".into()),
                methods: Vec::new(),
                to: RouteTo::Upstream(0),
            });
        });
        let message = |edge: &Edge, name: &str| {
            request(&edge.client, "MESSAGE", "sip:bob@example.com", name).text()
        };
        let text = message(&edge, "before");
        edge.client.send(&mut edge.lab, &text);
        edge.client.take_status(&mut edge.lab, 403);
        edge.register(&[CONTACT], &[&format!("Contact: {CONTACT};expires=600")]);
        let text = message(&edge, "after");
        edge.client.send(&mut edge.lab, &text);
        let got = edge.core.take_method(&mut edge.lab, "MESSAGE");
        edge.core.send(&mut edge.lab, &got.response(200, "b", &[]));
        edge.client.take_status(&mut edge.lab, 200);
        // One of two Contacts is still a registration; none is none, by whose will ever.
        const SECOND: &str = "<sip:second@aa.invalid;transport=ws>";
        let both =
            |seconds: u32| format!("Contact: {CONTACT};expires={seconds}, {SECOND};expires=60");
        edge.register(&[CONTACT, SECOND], &[&both(600)]);
        for (name, is_known) in [("left", true), ("expired", false)] {
            match is_known {
                true => edge.register(&[&format!("{CONTACT};expires=0")], &[]),
                false => edge.lab.pass(Duration::from_secs(70)),
            }
            let text = message(&edge, name);
            edge.client.send(&mut edge.lab, &text);
            for got in edge.core.take(&mut edge.lab) {
                edge.core.send(&mut edge.lab, &got.response(200, "b", &[]));
            }
            edge.client.take_status(&mut edge.lab, if is_known { 200 } else { 403 });
        }
        edge.register(&[CONTACT], &[&format!("Contact: {CONTACT};expires=600")]);
        let text = message(&edge, "again");
        edge.client.send(&mut edge.lab, &text);
        let got = edge.core.take_method(&mut edge.lab, "MESSAGE");
        edge.core.send(&mut edge.lab, &got.response(200, "b", &[]));
        edge.client.take_status(&mut edge.lab, 200);
        edge.register(&[&format!("{CONTACT};expires=0")], &[]);
        let text = message(&edge, "gone");
        edge.client.send(&mut edge.lab, &text);
        edge.client.take_status(&mut edge.lab, 403);
        // Another flow of the same address proves nothing.
        let other = Phone::connect(&mut edge.lab, at.flow, Transport::Wss, "203.0.113.5:40002");
        let draft = request(&other, "MESSAGE", "sip:bob@example.com", "other");
        other.send(&mut edge.lab, &draft.text());
        other.take_status(&mut edge.lab, 403);
        edge.lab.finish();
    }
}

/// RFC 5626 §5.1: who is not the first hop does not speak for the client's flow; RFC 3327 §6: a
/// client's own Path would lead the core anywhere.
#[test]
fn a_register_through_another_proxy_leaves_no_shadow() {
    let mut edge = Edge::new(lab::placements().next().expect("one"), Transport::Tcp, |_| {});
    let below = "Via: SIP/2.0/WSS x.invalid;branch=z9hG4bKbelow";
    let draft = request(&edge.client, "REGISTER", "sip:example.com", "r")
        .vias(&[&edge.client.via("r"), below])
        .to("<sip:alice@example.com>")
        .line(&format!("Contact: {CONTACT}"));
    edge.client.send(&mut edge.lab, &draft.text());
    let got = edge.core.take_method(&mut edge.lab, "REGISTER");
    assert!(got.header("Path").ends_with(";lr>"), "{}", got.header("Path"));
    let listed = format!("Contact: {CONTACT};expires=600");
    edge.core.send(&mut edge.lab, &got.response(200, "core", &[&listed]));
    edge.client.take_status(&mut edge.lab, 200);
    assert_eq!(edge.bindings(), 0);
    let own = request(&edge.client, "REGISTER", "sip:example.com", "own")
        .line(&format!("Contact: {CONTACT}"))
        .line("Path: <sip:192.0.2.200;lr>");
    edge.client.send(&mut edge.lab, &own.text());
    edge.client.take_status(&mut edge.lab, 403);
    edge.core.heard_nothing(&mut edge.lab);
    edge.lab.finish();
}
