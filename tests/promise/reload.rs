//! Another configuration while calls, flows and bindings live: what has begun goes on, what is new
//! follows the new rules.

use std::time::Duration;

use sipring::base::config::{RouteTo, Strangers};
use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::lab::call::Call;
use crate::lab::draft::request;
use crate::lab::phone::{Phone, frames};
use crate::lab::{self, CORE, Lab, config_with, user_of};

const BROWSER: &str = "203.0.113.5:40001";

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn a_call_that_is_being_set_up_goes_on_and_a_new_one_follows_the_new_route() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config());
        let user = user_of(at.owner, at.shards, 0);
        let uri = format!("sip:{user}@example.com");
        let browser = Phone::connect(&mut lab, at.flow, Transport::Wss, BROWSER);
        browser.register(&mut lab, &user, "<sip:a@aa.invalid;transport=ws>");
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        let invite = request(&core, "INVITE", &uri, "i");
        core.send(&mut lab, &invite.text());
        let heard = browser.take_method(&mut lab, "INVITE");
        core.take_status(&mut lab, 100);
        lab.reload(config_with(|config| config.routes[1].to = RouteTo::Reject(403)));
        browser.send(&mut lab, &heard.response(180, "c", &[]));
        core.take_status(&mut lab, 180);
        browser.send(&mut lab, &heard.response(200, "c", &["Contact: <sip:a@aa.invalid>"]));
        let answer = core.take_status(&mut lab, 200);
        let mut route = answer.record_route();
        route.reverse();
        let to = format!("<{uri}>;tag=c");
        for (cseq, method) in [(1, "ACK"), (2, "BYE")] {
            let draft = request(&core, method, "sip:a@aa.invalid", "i").branch(&core, method);
            core.send(&mut lab, &draft.to(&to).route(&route).cseq(cseq).text());
            let got = browser.take_method(&mut lab, method);
            if method == "BYE" {
                browser.send(&mut lab, &got.response(200, "", &[]));
                core.take_status(&mut lab, 200);
            }
        }
        core.send(&mut lab, &request(&core, "MESSAGE", &uri, "m").text());
        core.take_status(&mut lab, 403);
        lab.finish();
    }
}

#[test]
fn a_dialog_outlives_the_domain_that_it_was_made_in() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config());
        let user = user_of(at.owner, at.shards, 0);
        let browser = Phone::connect(&mut lab, at.flow, Transport::Wss, BROWSER);
        browser.register(&mut lab, &user, "<sip:a@aa.invalid;transport=ws>");
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        let contacts = ("sip:core@198.51.100.7", "sip:a@aa.invalid;transport=ws");
        let uri = format!("sip:{user}@example.com");
        let mut call = Call::establish(&mut lab, &core, &browser, &uri, contacts, "c");
        lab.reload(config_with(|config| config.node.domains = vec!["example.net".into()]));
        let bye = call.by_caller(&core, "INFO");
        Call::exchange(&mut lab, &core, &browser, &bye);
        let bye = call.by_callee(&browser, "BYE");
        Call::exchange(&mut lab, &browser, &core, &bye);
        let draft = request(&core, "MESSAGE", &uri, "m");
        core.send(&mut lab, &draft.text());
        assert!(matches!(core.take_one(&mut lab).status(), 403 | 404));
        lab.finish();
    }
}

#[test]
fn timers_that_run_keep_their_times_and_new_ones_take_the_new() {
    let mut lab = Lab::new(1, lab::config());
    let callee = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.5:40001");
    callee.register(&mut lab, "user0", "<sip:a@203.0.113.5:40001>");
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let send = |lab: &mut Lab, name: &str| {
        let draft = request(&core, "MESSAGE", "sip:user0@example.com", name);
        core.send(lab, &draft.text());
        callee.take_method(lab, "MESSAGE");
    };
    send(&mut lab, "old");
    lab.reload(config_with(|config| config.timers.t1 = ms(1000)));
    lab.pass(ms(500));
    assert_eq!(callee.take(&mut lab).len(), 1, "timer E was armed at 500 ms");
    lab.pass(ms(40_000));
    callee.take(&mut lab);
    send(&mut lab, "new");
    lab.pass(ms(999));
    callee.heard_nothing(&mut lab);
    lab.pass(ms(1));
    assert_eq!(callee.take(&mut lab).len(), 1);
    lab.finish();
}

#[test]
fn who_is_a_server_is_decided_by_the_new_configuration() {
    let mut lab = Lab::new(2, config_with(|config| config.auth.strangers = Strangers::Reject));
    let user = user_of(0, 2, 0);
    let core = Phone::connect(&mut lab, 1, Transport::Udp, CORE);
    let ask = |lab: &mut Lab, name: &str| {
        core.send(lab, &request(&core, "MESSAGE", &format!("sip:{user}@example.com"), name).text());
        core.take_one(lab).status()
    };
    assert_eq!(ask(&mut lab, "trusted"), 404);
    lab.reload(config_with(|config| {
        config.auth.strangers = Strangers::Reject;
        config.upstreams[0].from = vec!["192.0.2.0/24".parse().expect("a network")];
    }));
    assert_eq!(ask(&mut lab, "stranger"), 403);
    lab.finish();
}

#[test]
fn lower_bounds_refuse_the_new_and_spare_the_old() {
    let mut lab = Lab::new(1, lab::config());
    let phones: Vec<Phone> = (0..3)
        .map(|n| Phone::connect(&mut lab, 0, Transport::Wss, &format!("203.0.113.{n}:40001")))
        .collect();
    for (n, phone) in phones.iter().enumerate() {
        phone.register(&mut lab, &format!("user{n}"), &format!("<sip:a@a{n}.invalid>"));
    }
    lab.reload(config_with(|config| config.limits.bindings_max = 2));
    assert_eq!(lab.engines[0].gauges().bindings, 3);
    let late = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.9:40001");
    let register = request(&late, "REGISTER", "sip:example.com", "r")
        .to("<sip:user9@example.com>")
        .line("Contact: <sip:a@a9.invalid>");
    late.send(&mut lab, &register.text());
    late.take_status(&mut lab, 500);
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    core.send(&mut lab, &request(&core, "MESSAGE", "sip:user2@example.com", "m").text());
    phones[2].take_method(&mut lab, "MESSAGE");
}

#[test]
fn clients_become_known_by_address_when_a_server_may_look_there() {
    let lookup = |on: bool| config_with(|config| config.upstreams[0].address_lookup = on);
    for shards in 1..=3 {
        let mut lab = Lab::new(shards, lookup(false));
        let browser = Phone::connect(&mut lab, shards - 1, Transport::Wss, BROWSER);
        let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
        let uri = format!("sip:a@{BROWSER};transport=ws");
        for (round, on) in [false, true, false, true].into_iter().enumerate() {
            lab.reload(lookup(on));
            core.send(&mut lab, &request(&core, "MESSAGE", &uri, &format!("m{round}")).text());
            let got = browser.take(&mut lab);
            assert_eq!(got.len(), usize::from(on), "round {round}");
            match got.first() {
                Some(got) => {
                    browser.send(&mut lab, &got.response(200, "c", &[]));
                    core.take_status(&mut lab, 200);
                }
                None => assert!(core.take_one(&mut lab).status() >= 400),
            }
        }
        lab.finish();
    }
}

#[test]
fn at_the_end_flows_are_closed_a_few_at_a_time_and_browsers_hear_why() {
    let mut lab = Lab::new(1, lab::config());
    let phones: Vec<Phone> = [Transport::Wss, Transport::Tcp, Transport::Ws, Transport::Tls]
        .iter()
        .enumerate()
        .map(|(n, t)| Phone::connect(&mut lab, 0, *t, &format!("203.0.113.{n}:40001")))
        .collect();
    // Not upgraded yet: there is nobody to tell.
    let fresh = lab.connect(0, Transport::Wss, "203.0.113.9:40001".parse().expect("an address"));
    let flows: Vec<_> = phones.iter().filter_map(|phone| phone.flow).chain([fresh]).collect();
    let closed = |lab: &Lab| flows.iter().filter(|flow| lab.closed(**flow).is_some()).count();
    lab.input(0, sipring::engine::Input::Drain);
    assert_eq!(closed(&lab), 0);
    for (most, expected) in [(1, 1), (2, 3), (0, 3), (9, 5), (9, 5)] {
        lab.input(0, sipring::engine::Input::Dismiss { most });
        assert_eq!(closed(&lab), expected);
    }
    for (flow, is_told) in flows.iter().zip([true, false, true, false, false]) {
        assert_eq!(lab.closed(*flow), Some(CloseReason::Drain));
        let bytes = &lab.wires[flow].bytes;
        match is_told {
            true => assert_eq!(frames(bytes), [(0x8, 1012_u16.to_be_bytes().to_vec())]),
            false => assert!(bytes.is_empty()),
        }
    }
}
