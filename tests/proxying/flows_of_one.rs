//! Several flows of one instance (RFC 5626 §7): one gets a copy, the next when that one fails, and
//! none when the instance has answered.

use std::time::Duration;

use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, CORE, Lab, Placement, user_of};

const INSTANCE: &str = "+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-AABBCCDDEEFF>\"";

struct Scene {
    lab: Lab,
    caller: Phone,
    /// The older flow and the newer one.
    flows: [Phone; 2],
    uri: String,
}

fn scene(at: Placement, transport: Transport) -> Scene {
    let mut lab = Lab::new(at.shards, lab::config());
    let user = user_of(at.owner, at.shards, 0);
    let flows = [(1, at.arrival), (2, at.flow)].map(|(n, shard)| {
        let flow = Phone::connect(&mut lab, shard, transport, &format!("203.0.113.5:4000{n}"));
        let instance = if n == 1 { INSTANCE.to_owned() } else { INSTANCE.to_lowercase() };
        let contact = format!("<sip:a@aa{n}.invalid;ob>;reg-id={n};{instance}");
        flow.register(&mut lab, &user, &contact);
        flow
    });
    let caller = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.9:40009");
    Scene { lab, caller, flows, uri: format!("sip:{user}@example.com") }
}

fn every_scene(mut each: impl FnMut(&mut Scene)) {
    for at in lab::placements() {
        for transport in [Transport::Wss, Transport::Tcp] {
            let mut scene = scene(at, transport);
            each(&mut scene);
            scene.lab.finish();
            scene.caller.heard_nothing(&mut scene.lab);
        }
    }
}

impl Scene {
    /// The request is at the newer flow alone.
    fn send(&mut self, method: &str) -> (Draft, Sip) {
        let draft = request(&self.caller, method, &self.uri, "m");
        self.caller.send(&mut self.lab, &draft.text());
        if method == "INVITE" {
            self.caller.take_status(&mut self.lab, 100);
        }
        self.flows[0].heard_nothing(&mut self.lab);
        let got = self.flows[1].take_method(&mut self.lab, method);
        assert_eq!(got.uri(), "sip:a@aa2.invalid;ob");
        (draft, got)
    }

    /// The older flow got it, too; nobody told the caller.
    fn tried_again(&mut self, method: &str, first: &Sip) -> Sip {
        self.caller.heard_nothing(&mut self.lab);
        let again = self.flows[0].take_method(&mut self.lab, method);
        assert_eq!(again.uri(), "sip:a@aa1.invalid;ob");
        assert_ne!(again.header("Via"), first.header("Via"), "another branch");
        assert_eq!(again.header("Max-Breadth"), first.header("Max-Breadth"));
        again
    }

    fn refused(&mut self, at: usize, got: &Sip, status: u16) {
        self.flows[at].send(&mut self.lab, &got.response(status, "t", &[]));
        if got.method() == "INVITE" {
            self.flows[at].take_method(&mut self.lab, "ACK");
        }
    }

    fn hears(&mut self, draft: &Draft, status: u16) {
        self.caller.take_status(&mut self.lab, status);
        if draft.text().starts_with("INVITE") && status >= 300 {
            self.caller.send(&mut self.lab, &draft.clone().method("ACK").text());
        }
    }
}

#[test]
fn the_next_flow_gets_what_was_pending_on_one_that_ends() {
    for method in ["INVITE", "MESSAGE"] {
        every_scene(|scene| {
            let (draft, first) = scene.send(method);
            scene.flows[1].leave(&mut scene.lab, CloseReason::Reset);
            let again = scene.tried_again(method, &first);
            scene.flows[0].send(&mut scene.lab, &again.response(200, "t", &[]));
            scene.hears(&draft, 200);
            assert_eq!(scene.lab.count(|it| it.requests_flow_gone), 0, "nobody was told so");
        });
        every_scene(|scene| {
            let (draft, first) = scene.send(method);
            scene.flows[1].leave(&mut scene.lab, CloseReason::Reset);
            scene.tried_again(method, &first);
            scene.flows[0].leave(&mut scene.lab, CloseReason::Peer);
            scene.hears(&draft, 480);
        });
    }
}

#[test]
fn a_430_or_408_leads_to_the_next_flow_and_no_other_answer_does() {
    for method in ["INVITE", "MESSAGE"] {
        for status in [408, 430] {
            every_scene(|scene| {
                let (draft, first) = scene.send(method);
                scene.refused(1, &first, status);
                let again = scene.tried_again(method, &first);
                scene.refused(0, &again, 486);
                scene.hears(&draft, 486);
            });
        }
        for status in [302, 404, 480, 487, 500, 503, 600] {
            every_scene(|scene| {
                let (draft, first) = scene.send(method);
                scene.refused(1, &first, status);
                scene.hears(&draft, if status == 503 { 500 } else { status });
                scene.flows[0].heard_nothing(&mut scene.lab);
            });
        }
    }
    every_scene(|scene| {
        let (draft, first) = scene.send("INVITE");
        scene.refused(1, &first, 430);
        let again = scene.tried_again("INVITE", &first);
        scene.refused(0, &again, 430);
        scene.hears(&draft, 480);
    });
}

#[test]
fn an_invite_that_a_flow_never_answers_goes_to_the_next() {
    every_scene(|scene| {
        let (draft, first) = scene.send("INVITE");
        scene.lab.pass(Duration::from_millis(31_900));
        scene.flows[0].heard_nothing(&mut scene.lab);
        scene.lab.pass(Duration::from_millis(200));
        let again = scene.tried_again("INVITE", &first);
        scene.flows[0].send(&mut scene.lab, &again.response(200, "t", &[]));
        scene.hears(&draft, 200);
    });
}

#[test]
fn a_flow_that_does_not_read_is_passed_over() {
    for at in lab::placements() {
        let mut scene = scene(at, Transport::Wss);
        let newer = scene.flows[1].flow.expect("one");
        scene.lab.wire(newer).stuck = true;
        let core = Phone::connect(&mut scene.lab, at.arrival, Transport::Udp, CORE);
        let mut came = [0, 0];
        for n in 0..70 {
            let draft = request(&core, "MESSAGE", &scene.uri, &format!("m{n}"));
            core.send(&mut scene.lab, &draft.text());
            for (flow, came) in scene.flows.iter().zip(&mut came) {
                for got in flow.take(&mut scene.lab) {
                    *came += 1;
                    flow.send(&mut scene.lab, &got.response(200, "t", &[]));
                }
            }
            core.take_status(&mut scene.lab, 200);
        }
        assert_eq!(came, [6, 64]);
        scene.lab.finish();
    }
}

#[test]
fn after_the_callers_cancel_no_further_flow_is_tried() {
    every_scene(|scene| {
        let (draft, first) = scene.send("INVITE");
        scene.flows[1].send(&mut scene.lab, &first.response(180, "t", &[]));
        scene.caller.take_status(&mut scene.lab, 180);
        scene.caller.send(&mut scene.lab, &draft.clone().method("CANCEL").text());
        scene.caller.take_status(&mut scene.lab, 200);
        scene.flows[1].leave(&mut scene.lab, CloseReason::Reset);
        scene.hears(&draft, 480);
        scene.flows[0].heard_nothing(&mut scene.lab);
    });
}

#[test]
fn another_instance_rings_beside_and_is_not_disturbed() {
    every_scene(|scene| {
        let other = Phone::connect(&mut scene.lab, 0, Transport::Wss, "203.0.113.6:40001");
        let user = scene.uri["sip:".len()..].split('@').next().expect("a user").to_owned();
        other.register(&mut scene.lab, &user, "<sip:b@bb.invalid>;reg-id=1;+sip.instance=\"<x>\"");
        let (draft, first) = scene.send("INVITE");
        let beside = other.take_method(&mut scene.lab, "INVITE");
        other.send(&mut scene.lab, &beside.response(180, "o", &[]));
        scene.caller.take_status(&mut scene.lab, 180);
        scene.flows[1].leave(&mut scene.lab, CloseReason::Reset);
        let again = scene.tried_again("INVITE", &first);
        other.heard_nothing(&mut scene.lab);
        scene.refused(0, &again, 486);
        scene.caller.heard_nothing(&mut scene.lab);
        other.send(&mut scene.lab, &beside.response(200, "o", &[]));
        scene.hears(&draft, 200);
    });
}

#[test]
fn a_430_of_one_edge_leads_to_the_instances_flow_behind_another() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config());
        let user = user_of(at.owner, at.shards, 0);
        let edges = [(1, at.flow), (2, at.arrival)].map(|(n, shard)| {
            let remote = format!("198.51.100.{n}:5060");
            let edge = Phone::connect(&mut lab, shard, Transport::Udp, &remote);
            let below = format!("Via: SIP/2.0/WSS x.invalid;branch=z9hG4bKbelow{n}");
            let register = request(&edge, "REGISTER", "sip:example.com", &format!("r{n}"))
                .vias(&[&edge.via(&format!("r{n}")), &below])
                .to(&format!("<sip:{user}@example.com>"))
                .line(&format!("Contact: <sip:a@aa.invalid>;reg-id={n};{INSTANCE}"))
                .line(&format!("Path: <sip:token{n}@198.51.100.{n};lr;ob>"))
                .line("Supported: path, outbound");
            edge.send(&mut lab, &register.text());
            edge.take_status(&mut lab, 200);
            edge
        });
        let caller = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.9:40009");
        let uri = format!("sip:{user}@example.com");
        caller.send(&mut lab, &request(&caller, "MESSAGE", &uri, "m").text());
        for (edge, n) in [(edges[1], 2), (edges[0], 1)] {
            let got = edge.take_method(&mut lab, "MESSAGE");
            assert_eq!(got.header("Route"), format!("<sip:token{n}@198.51.100.{n};lr;ob>"));
            edge.send(&mut lab, &got.response(430, "e", &[]));
        }
        caller.take_status(&mut lab, 480);
        lab.finish();
    }
}
