//! Servers and clients that do not answer (RFC 3261 §17.1, §16.8, RFC 4320), by virtual time.

use std::time::Duration;

use sipring::base::id::Transport;

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

struct Scene {
    lab: Lab,
    caller: Phone,
    core: Phone,
}

/// A browser that calls numbers behind the upstream.
fn scene(shards: u16) -> Scene {
    let mut lab = Lab::new(shards, lab::config());
    let caller = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
    let core = Phone::connect(&mut lab, shards - 1, Transport::Udp, CORE);
    Scene { lab, caller, core }
}

/// When copies of a request came, in milliseconds, within that time.
fn copies(lab: &mut Lab, core: &Phone, within: u64) -> Vec<u64> {
    let mut came = Vec::new();
    for at in (0..=within).step_by(100) {
        for copy in core.take(lab) {
            assert_eq!(copy.status(), 0);
            came.push(at);
        }
        lab.pass(ms(100));
    }
    came
}

#[test]
fn an_invite_is_repeated_and_then_408() {
    for shards in 1..=3 {
        let Scene { mut lab, caller, core } = scene(shards);
        let invite = request(&caller, "INVITE", "sip:911@example.com", "i");
        caller.send(&mut lab, &invite.text());
        caller.take_status(&mut lab, 100);
        let came = copies(&mut lab, &core, 31_800);
        assert_eq!(came, [0, 500, 1500, 3500, 7500, 15_500, 31_500]);
        caller.heard_nothing(&mut lab);
        lab.pass(ms(200));
        caller.take_status(&mut lab, 408);
        caller.send(&mut lab, &invite.method("ACK").text());
        lab.finish();
        core.heard_nothing(&mut lab);
    }
}

#[test]
fn a_request_is_repeated_and_then_nobody_is_told() {
    for shards in 1..=3 {
        let Scene { mut lab, caller, core } = scene(shards);
        caller.send(&mut lab, &request(&caller, "MESSAGE", "sip:911@example.com", "m").text());
        let came = copies(&mut lab, &core, 32_000);
        let expected = [0, 500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500];
        assert_eq!(came, expected, "RFC 3261 §17.1.2.2, timer E");
        let answers = caller.take(&mut lab);
        let statuses: Vec<u16> = answers.iter().map(|it| it.status()).collect();
        assert!(statuses.iter().all(|status| *status == 100), "never 408: {statuses:?}");
        assert_eq!(lab.count(|it| it.transactions_expired), 1);
        let logged: Vec<u16> = lab.ended().map(|it| it.status).collect();
        assert_eq!(logged, [0], "no status was sent");
        lab.finish();
        caller.heard_nothing(&mut lab);
    }
}

#[test]
fn a_408_of_the_server_is_not_passed_on_but_for_invite() {
    for shards in 1..=3 {
        for (method, expected) in [("MESSAGE", None), ("INVITE", Some(408))] {
            let Scene { mut lab, caller, core } = scene(shards);
            let draft = request(&caller, method, "sip:911@example.com", "m");
            caller.send(&mut lab, &draft.text());
            let got = core.take_method(&mut lab, method);
            core.send(&mut lab, &got.response(408, "c", &[]));
            let mut finals = caller.take(&mut lab).into_iter().map(|it| it.status());
            assert_eq!(finals.find(|status| *status >= 200), expected);
            lab.finish();
        }
    }
}

#[test]
fn repeats_stop_at_a_provisional_and_timer_c_cancels() {
    for shards in 1..=3 {
        for status in [100, 180, 183] {
            let Scene { mut lab, caller, core } = scene(shards);
            let invite = request(&caller, "INVITE", "sip:911@example.com", "i");
            caller.send(&mut lab, &invite.text());
            let got = core.take_method(&mut lab, "INVITE");
            core.send(&mut lab, &got.response(status, "c", &[]));
            let _ = caller.take(&mut lab);
            lab.pass(ms(184_000));
            core.heard_nothing(&mut lab);
            lab.pass(ms(2_000));
            let cancels = core.take(&mut lab);
            let cancel = cancels.first().expect("timer C, RFC 3261 §16.8");
            assert_eq!(cancel.method(), "CANCEL");
            core.send(&mut lab, &cancel.response(200, "c", &[]));
            core.send(&mut lab, &got.response(487, "c", &[]));
            core.take_method(&mut lab, "ACK");
            caller.take_status(&mut lab, 487);
            caller.send(&mut lab, &invite.method("ACK").text());
            lab.finish();
        }
    }
}

#[test]
fn every_provisional_but_100_starts_timer_c_anew() {
    let Scene { mut lab, caller, core } = scene(1);
    caller.send(&mut lab, &request(&caller, "INVITE", "sip:911@example.com", "i").text());
    let got = core.take_method(&mut lab, "INVITE");
    for _ in 0..5 {
        core.send(&mut lab, &got.response(180, "c", &[]));
        lab.pass(ms(150_000));
        core.heard_nothing(&mut lab);
    }
    core.send(&mut lab, &got.response(200, "c", &[]));
    assert_eq!(caller.take(&mut lab).last().expect("an answer").status(), 200);
    lab.finish();
}

#[test]
fn a_branch_that_ignores_its_cancel_is_given_up() {
    for shards in 1..=3 {
        let Scene { mut lab, caller, core } = scene(shards);
        let invite = request(&caller, "INVITE", "sip:911@example.com", "i");
        caller.send(&mut lab, &invite.text());
        let got = core.take_method(&mut lab, "INVITE");
        core.send(&mut lab, &got.response(180, "c", &[]));
        let _ = caller.take(&mut lab);
        caller.send(&mut lab, &invite.clone().method("CANCEL").text());
        caller.take_status(&mut lab, 200);
        lab.pass(ms(33_000));
        let status = caller.take_one(&mut lab).status();
        assert!(matches!(status, 408 | 487), "{status}");
        caller.send(&mut lab, &invite.method("ACK").text());
        lab.finish();
    }
}

#[test]
fn a_slow_server_makes_us_say_100_to_a_request() {
    for shards in 1..=3 {
        let Scene { mut lab, caller, core } = scene(shards);
        caller.send(&mut lab, &request(&caller, "MESSAGE", "sip:911@example.com", "m").text());
        let got = core.take_method(&mut lab, "MESSAGE");
        lab.pass(ms(3_400));
        caller.heard_nothing(&mut lab);
        lab.pass(ms(200));
        caller.take_status(&mut lab, 100);
        let _ = core.take(&mut lab);
        core.send(&mut lab, &got.response(200, "c", &[]));
        caller.take_status(&mut lab, 200);
        lab.finish();
    }
}
