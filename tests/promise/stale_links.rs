//! The flow ends while something about it is on its way between shards.

use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab, Placement, user_of};

const ADDRESS: &str = "203.0.113.5:40001";

/// In which order what was held arrives.
const ORDERS: [fn(&mut Lab); 2] = [Lab::release, Lab::release_duty_first];

fn crossing_placements() -> impl Iterator<Item = Placement> {
    lab::placements().filter(|at| at.shards > 1)
}

fn register_text(client: &Phone, user: &str) -> String {
    request(client, "REGISTER", "sip:example.com", "r")
        .to(&format!("<sip:{user}@example.com>"))
        .line("Contact: <sip:a@aa.invalid;transport=ws>")
        .text()
}

#[test]
fn a_flow_that_ends_while_its_register_is_on_the_link_leaves_no_binding() {
    for at in crossing_placements() {
        for order in ORDERS {
            let mut lab = Lab::new(at.shards, lab::config());
            let user = user_of(at.owner, at.shards, 0);
            let client = Phone::connect(&mut lab, at.flow, Transport::Wss, ADDRESS);
            let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
            lab.hold = true;
            client.send(&mut lab, &register_text(&client, &user));
            client.leave(&mut lab, CloseReason::Reset);
            let next = Phone::connect(&mut lab, at.flow, Transport::Wss, ADDRESS);
            order(&mut lab);
            let bound: u64 = lab.engines.iter().map(|engine| engine.gauges().bindings).sum();
            assert_eq!(bound, 0, "{at:?}");
            let uri = format!("sip:{user}@example.com");
            core.send(&mut lab, &request(&core, "NOTIFY", &uri, "n").text());
            let status = core.take_one(&mut lab).status();
            assert_eq!(status, 480, "{at:?}");
            next.heard_nothing(&mut lab);
            lab.finish();
            next.heard_nothing(&mut lab);
        }
    }
}

#[test]
fn a_flow_that_ends_while_a_request_for_it_is_on_the_link_is_answered() {
    for at in crossing_placements() {
        for order in ORDERS {
            for method in ["MESSAGE", "INVITE"] {
                let mut lab = Lab::new(at.shards, lab::config());
                let user = user_of(at.owner, at.shards, 0);
                let client = Phone::connect(&mut lab, at.flow, Transport::Wss, ADDRESS);
                client.register(&mut lab, &user, "<sip:a@aa.invalid;transport=ws>");
                let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
                lab.hold = true;
                let draft = request(&core, method, &format!("sip:{user}@example.com"), "n");
                core.send(&mut lab, &draft.text());
                let reached = !lab.wires[&client.flow.expect("one")].bytes.is_empty();
                client.leave(&mut lab, CloseReason::Reset);
                let next = Phone::connect(&mut lab, at.flow, Transport::Wss, ADDRESS);
                order(&mut lab);
                let answers = core.take(&mut lab);
                let last = answers.last().expect("an answer at once").status();
                assert_eq!(last, 480, "{at:?} {reached}");
                if method == "INVITE" {
                    core.send(&mut lab, &draft.method("ACK").text());
                }
                next.heard_nothing(&mut lab);
                lab.finish();
                next.heard_nothing(&mut lab);
            }
        }
    }
}

#[test]
fn a_caller_that_ends_while_its_invite_is_on_the_link_leaves_nobody_ringing() {
    for at in crossing_placements() {
        for order in ORDERS {
            let mut lab = Lab::new(at.shards, lab::config());
            let user = user_of(at.owner, at.shards, 0);
            let callee = Phone::connect(&mut lab, at.flow, Transport::Wss, ADDRESS);
            callee.register(&mut lab, &user, "<sip:a@aa.invalid;transport=ws>");
            let caller = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.9:40009");
            lab.hold = true;
            let draft = request(&caller, "INVITE", &format!("sip:{user}@example.com"), "n");
            caller.send(&mut lab, &draft.text());
            caller.leave(&mut lab, CloseReason::Reset);
            let next = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.9:40009");
            order(&mut lab);
            for invite in callee.take(&mut lab) {
                assert_eq!(invite.method(), "INVITE");
                callee.send(&mut lab, &invite.response(180, "c", &[]));
                let cancel = callee.take_method(&mut lab, "CANCEL");
                callee.send(&mut lab, &cancel.response(200, "c", &[]));
                callee.send(&mut lab, &invite.response(487, "c", &[]));
                callee.take_method(&mut lab, "ACK");
            }
            next.heard_nothing(&mut lab);
            lab.finish();
            next.heard_nothing(&mut lab);
        }
    }
}

#[test]
fn work_that_a_busy_shard_refuses_is_answered_where_it_came_in() {
    for at in crossing_placements().filter(|at| at.owner != at.arrival) {
        let mut lab = Lab::new(at.shards, lab::config());
        let user = user_of(at.owner, at.shards, 0);
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        lab.hold = true;
        let draft = request(&core, "INVITE", &format!("sip:{user}@example.com"), "n");
        core.send(&mut lab, &draft.text());
        core.send(&mut lab, &draft.clone().method("ACK").text());
        lab.refuse_work();
        let answer = core.take_status(&mut lab, 500);
        assert_eq!(answer.header("Retry-After"), "1");
        lab.finish();
    }
}
