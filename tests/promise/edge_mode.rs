//! The registrar is in the core: REGISTER goes there with a Path of ours, and the core's requests
//! come back by it (RFC 3327, RFC 5626 §5.3).

use sipring::base::config::{Route, RouteTo};
use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab};

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
        let user = lab::user_of(at.owner, at.shards, 0);
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
