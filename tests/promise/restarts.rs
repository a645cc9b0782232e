//! A shard fails: what it knew is gone, and nobody waits for it.

use std::time::Duration;

use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::lab::draft::request;
use crate::lab::phone::{Phone, frames};
use crate::lab::{self, CORE, Lab, user_of};

const BROWSER: &str = "203.0.113.5:40001";

#[test]
fn a_branch_toward_a_flow_of_the_failed_shard_ends_at_once() {
    let mut lab = Lab::new(2, lab::config());
    let user = user_of(0, 2, 0);
    let browser = Phone::connect(&mut lab, 1, Transport::Wss, BROWSER);
    browser.register(&mut lab, &user, "<sip:a@aa.invalid;transport=ws>");
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let uri = format!("sip:{user}@example.com");
    core.send(&mut lab, &request(&core, "MESSAGE", &uri, "m1").text());
    assert_eq!(browser.take_one(&mut lab).method(), "MESSAGE");
    lab.restart(1, lab::config());
    assert_eq!(core.take_one(&mut lab).status(), 480, "its flow died under it");
    assert_eq!(lab.engines[0].gauges().bindings, 0);
    core.send(&mut lab, &request(&core, "MESSAGE", &uri, "m2").text());
    assert_eq!(core.take_one(&mut lab).status(), 480);
}

#[test]
fn clients_whose_bindings_the_failed_shard_owned_are_sent_back_to_register() {
    let mut lab = Lab::new(2, lab::config());
    let (lost, kept) = (user_of(1, 2, 0), user_of(0, 2, 0));
    let first = Phone::connect(&mut lab, 0, Transport::Wss, BROWSER);
    first.register(&mut lab, &lost, "<sip:a@aa.invalid;transport=ws>");
    let second = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.6:40002");
    second.register(&mut lab, &kept, "<sip:b@bb.invalid;transport=ws>");
    lab.restart(1, lab::config());
    let flow = first.flow.expect("a stream");
    assert_eq!(lab.wires[&flow].closed, Some(CloseReason::Shard));
    assert_eq!(frames(&lab.wires[&flow].bytes), [(0x8, 1012_u16.to_be_bytes().to_vec())]);
    let again = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40009");
    again.register(&mut lab, &lost, "<sip:a@aa.invalid;transport=ws>");
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    for (user, phone) in [(&lost, again), (&kept, second)] {
        let uri = format!("sip:{user}@example.com");
        core.send(&mut lab, &request(&core, "MESSAGE", &uri, &format!("to{user}")).text());
        assert_eq!(phone.take_one(&mut lab).method(), "MESSAGE", "{user}");
    }
}

#[test]
fn contacts_whose_bindings_the_failed_shard_owned_leave_the_index() {
    for index_at in 0..8 {
        let mut lab = Lab::new(3, lab::config());
        let user = user_of(1, 3, 0);
        let phone = Phone::connect(&mut lab, 2, Transport::Udp, BROWSER);
        phone.register(&mut lab, &user, &format!("<sip:a@10.0.0.{index_at}:5060>"));
        let hosts = |lab: &Lab| -> Vec<usize> {
            lab.engines.iter().map(|engine| engine.resources().index_hosts).collect()
        };
        assert_eq!(hosts(&lab).iter().sum::<usize>(), 1);
        lab.restart(1, lab::config());
        assert_eq!(hosts(&lab), [0, 0, 0]);
    }
}

#[test]
fn what_the_failed_shard_had_under_way_is_not_taken_for_a_transaction_of_the_new_one() {
    let full = || lab::config_with(|config| config.limits.flow_queue_messages_max = 1);
    let mut lab = Lab::new(2, full());
    let user = user_of(0, 2, 0);
    let browser = Phone::connect(&mut lab, 1, Transport::Wss, BROWSER);
    lab.wire(browser.flow.expect("a stream")).stuck = true;
    browser.register(&mut lab, &user, "<sip:a@aa.invalid;transport=ws>");
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    lab.hold = true;
    let lost = request(&core, "MESSAGE", &format!("sip:{user}@example.com"), "m1");
    core.send(&mut lab, &lost.text());
    lab.restart(0, full());
    // Its first client transaction has the name that the lost one had. An owner of ours, so that
    // it needs no other shard.
    let number = (0..).map(|n| format!("9{n}")).find(|number| is_owned(number)).expect("one");
    let phone = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.8:5060");
    let living = request(&phone, "MESSAGE", &format!("sip:{number}@example.com"), "m2");
    phone.send(&mut lab, &living.text());
    let got = core.take_method(&mut lab, "MESSAGE");
    lab.release();
    assert_eq!(lab.count(|it| it.link_messages_stale), 1, "the browser's queue was full");
    phone.heard_nothing(&mut lab);
    core.send(&mut lab, &got.response(200, "c", &[]));
    phone.take_status(&mut lab, 200);
}

fn is_owned(number: &str) -> bool {
    lab::owner(&format!("{number}@example.com"), 2) == 0
}

#[test]
fn a_client_that_came_back_before_the_others_heard_of_the_failure_stays() {
    let mut lab = Lab::new(2, lab::config());
    let user = user_of(1, 2, 0);
    let before = Phone::connect(&mut lab, 0, Transport::Wss, BROWSER);
    before.register(&mut lab, &user, "<sip:a@aa.invalid;transport=ws>");
    lab.pass(Duration::from_millis(5));
    lab.hold = true;
    lab.restart(1, lab::config());
    lab.pass(Duration::from_millis(1));
    let after = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40009");
    let register = request(&after, "REGISTER", "sip:example.com", "r")
        .to(&format!("<sip:{user}@example.com>"))
        .line("Contact: <sip:b@bb.invalid;transport=ws>");
    after.send(&mut lab, &register.text());
    lab.release();
    assert_eq!(lab.closed(before.flow.expect("a stream")), Some(CloseReason::Shard));
    assert_eq!(lab.closed(after.flow.expect("a stream")), None);
    after.take_status(&mut lab, 200);
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let uri = format!("sip:{user}@example.com");
    core.send(&mut lab, &request(&core, "MESSAGE", &uri, "m").text());
    after.take_method(&mut lab, "MESSAGE");
}
