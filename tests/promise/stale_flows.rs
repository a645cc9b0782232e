//! A client is gone: by FIN, by reset, or silent until its ping deadline passed. What is for it is
//! answered at once; who gets its slot or its address hears nothing of it.

use std::time::Duration;

use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::lab::call::Call;
use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab, Placement, user_of};

const ADDRESS: &str = "203.0.113.5:40001";
const CONTACT: &str = "sip:a@aa.invalid;transport=ws";

#[derive(Clone, Copy, Debug)]
enum End {
    Fin,
    Reset,
    Silent,
    CloseFrame,
}

const ENDS: [End; 4] = [End::Fin, End::Reset, End::Silent, End::CloseFrame];

struct Scene {
    lab: Lab,
    client: Phone,
    core: Phone,
    other: Phone,
    uri: String,
    at: Placement,
}

fn scene(at: Placement) -> Scene {
    let mut lab = Lab::new(at.shards, lab::config());
    let user = user_of(at.owner, at.shards, 0);
    let client = Phone::connect(&mut lab, at.flow, Transport::Wss, ADDRESS);
    client.register(&mut lab, &user, &format!("<{CONTACT}>"));
    let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
    let other = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.9:40009");
    Scene { lab, client, core, other, uri: format!("sip:{user}@example.com"), at }
}

impl Scene {
    /// The client goes; another one comes to its slot, from its address.
    fn end(&mut self, end: End) -> Phone {
        let flow = self.client.flow.expect("a connection");
        match end {
            End::Fin => self.client.leave(&mut self.lab, CloseReason::Peer),
            End::Reset => self.client.leave(&mut self.lab, CloseReason::Reset),
            End::CloseFrame => {
                self.lab.data(flow, &lab::phone::masked_frame(0x8, &1001u16.to_be_bytes()));
            }
            End::Silent => {
                self.lab.wire(flow).silent = true;
                self.lab.pass(Duration::from_secs(36));
                assert_eq!(self.lab.closed(flow), Some(CloseReason::Pong));
            }
        }
        let next = Phone::connect(&mut self.lab, self.at.flow, Transport::Wss, ADDRESS);
        let new = next.flow.expect("a connection");
        assert_eq!(new.slot(), flow.slot(), "the slot is used again");
        next
    }
}

#[test]
fn a_request_for_somebody_who_left_gets_480_at_once() {
    for at in lab::placements() {
        for end in ENDS {
            let mut scene = scene(at);
            let next = scene.end(end);
            for (sender, method) in [
                (scene.core, "NOTIFY"),
                (scene.core, "MESSAGE"),
                (scene.core, "INVITE"),
                (scene.other, "MESSAGE"),
            ] {
                let name = format!("n{method}{}", sender.remote.port());
                let draft = request(&sender, method, &scene.uri, &name);
                sender.send(&mut scene.lab, &draft.text());
                sender.take_status(&mut scene.lab, 480);
                if method == "INVITE" {
                    sender.send(&mut scene.lab, &draft.method("ACK").text());
                }
            }
            next.heard_nothing(&mut scene.lab);
            scene.lab.finish();
            next.heard_nothing(&mut scene.lab);
        }
    }
}

#[test]
fn in_dialog_requests_by_token_get_430_upstream_and_480_at_an_endpoint() {
    for at in lab::placements() {
        for end in ENDS {
            for (upstream, status) in [(true, 430), (false, 480)] {
                let mut scene = scene(at);
                let peer = if upstream { scene.core } else { scene.other };
                let contacts = ("sip:p@198.51.100.7", CONTACT);
                let uri = scene.uri.clone();
                let client = scene.client;
                let mut call = Call::establish(&mut scene.lab, &peer, &client, &uri, contacts, "c");
                let next = scene.end(end);
                for method in ["INFO", "BYE"] {
                    peer.send(&mut scene.lab, &call.by_caller(&peer, method).text());
                    peer.take_status(&mut scene.lab, status);
                }
                next.heard_nothing(&mut scene.lab);
                scene.lab.finish();
            }
        }
    }
}

#[test]
fn what_is_pending_on_a_flow_that_ends_is_answered_at_once() {
    for at in lab::placements() {
        for end in ENDS {
            for method in ["MESSAGE", "INVITE"] {
                for (upstream, ringing) in [(true, false), (true, true), (false, true)] {
                    if method == "MESSAGE" && matches!(end, End::Silent) {
                        // Timer F passes before the ping deadline.
                        continue;
                    }
                    let mut scene = scene(at);
                    let sender = if upstream { scene.core } else { scene.other };
                    let draft = request(&sender, method, &scene.uri, "p");
                    sender.send(&mut scene.lab, &draft.text());
                    let got = scene.client.take_method(&mut scene.lab, method);
                    if ringing {
                        scene.client.send(&mut scene.lab, &got.response(180, "c", &[]));
                    }
                    if matches!(end, End::Silent) && !ringing {
                        continue;
                    }
                    let _ = sender.take(&mut scene.lab);
                    let next = scene.end(end);
                    let answers = sender.take(&mut scene.lab);
                    let last = answers.last().expect("an answer at once").status();
                    assert_eq!(last, 480, "{at:?} {end:?} {method} {ringing}");
                    if method == "INVITE" {
                        sender.send(&mut scene.lab, &draft.method("ACK").text());
                    }
                    next.send(&mut scene.lab, &got.response(200, "c", &[]));
                    assert!(sender.take(&mut scene.lab).is_empty(), "not the one that was asked");
                    next.heard_nothing(&mut scene.lab);
                    scene.lab.finish();
                }
            }
        }
    }
}

#[test]
fn an_answer_for_somebody_who_left_goes_to_nobody() {
    for at in lab::placements() {
        for method in ["MESSAGE", "INVITE"] {
            let mut scene = scene(at);
            let callee =
                Phone::connect(&mut scene.lab, at.arrival, Transport::Wss, "203.0.113.8:1");
            callee.register(&mut scene.lab, "callee", "<sip:z@zz.invalid;transport=ws>");
            let draft = request(&scene.client, method, "sip:callee@example.com", "q");
            scene.client.send(&mut scene.lab, &draft.text());
            let got = callee.take_method(&mut scene.lab, method);
            let next = scene.end(End::Reset);
            callee.send(&mut scene.lab, &got.response(180, "z", &[]));
            callee.send(&mut scene.lab, &got.response(200, "z", &[]));
            next.heard_nothing(&mut scene.lab);
            let gone = scene.lab.count(|it| it.dropped_response_flow_gone);
            assert!(gone > 0, "it is counted");
            let _ = callee.take(&mut scene.lab);
            scene.lab.finish();
            next.heard_nothing(&mut scene.lab);
        }
    }
}

#[test]
fn a_client_that_registers_again_from_a_new_flow_is_found_there() {
    for at in lab::placements() {
        for close_first in [false, true] {
            let mut scene = scene(at);
            let old = scene.client;
            if close_first {
                old.leave(&mut scene.lab, CloseReason::Reset);
            }
            let new =
                Phone::connect(&mut scene.lab, at.arrival, Transport::Wss, "203.0.113.5:40002");
            let user = user_of(at.owner, at.shards, 0);
            new.register(&mut scene.lab, &user, &format!("<{CONTACT}>"));
            if !close_first {
                old.leave(&mut scene.lab, CloseReason::Reset);
            }
            let core = scene.core;
            core.send(&mut scene.lab, &request(&core, "MESSAGE", &scene.uri, "m").text());
            let got = new.take_method(&mut scene.lab, "MESSAGE");
            new.send(&mut scene.lab, &got.response(200, "n", &[]));
            core.take_status(&mut scene.lab, 200);
            // By its Contact alone, as servers do that lost the route set.
            let draft = request(&core, "INFO", CONTACT, "i").to(&format!("<{CONTACT}>;tag=x"));
            core.send(&mut scene.lab, &draft.text());
            let got = new.take_method(&mut scene.lab, "INFO");
            new.send(&mut scene.lab, &got.response(200, "n", &[]));
            core.take_status(&mut scene.lab, 200);
            scene.lab.finish();
        }
    }
}

#[test]
fn what_a_client_says_on_a_new_flow_never_comes_back_to_its_old_one() {
    const AGAIN: &str = "203.0.113.5:40002";
    for at in lab::placements() {
        let Scene { mut lab, client, core, uri, .. } = scene(at);
        let contacts = ("sip:core@198.51.100.7:5060", CONTACT);
        let mut call = Call::establish(&mut lab, &core, &client, &uri, contacts, "c1");
        let again = Phone::connect(&mut lab, at.arrival, Transport::Wss, AGAIN);
        let bye = call.by_callee(&again, "BYE");
        Call::exchange(&mut lab, &again, &core, &bye);
        client.heard_nothing(&mut lab);
        lab.finish();
    }
}
