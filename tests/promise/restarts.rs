//! A shard fails: what it knew is gone, and nobody waits for it.

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
