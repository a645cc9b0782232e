//! The process ends in the middle of calls and the next run finds its bindings in the store: the
//! flows of clients that had proved who they are were lost with it, and what is for them waits as for
//! any flow that was lost.

use std::time::Duration;

use sipring::base::config::{Config, Persistence};
use sipring::base::id::Transport;
use sipring::engine::Input;

use crate::client::{Client, GRACE, config, of_user, pair, users_of};
use crate::lab::Lab;
use crate::lab::loss::{End, KNOWN, Known};
use crate::talk::{Talk, invite};

/// How long nobody runs.
const DOWN: Duration = Duration::from_secs(3);

fn stored(users: &[String; 2]) -> Config {
    let mut config = config(&[&users[0], &users[1]]);
    config.registrar.persistence = Persistence::Delayed;
    config
}

/// Two users, and a call between them that is up.
fn answered(shards: u16, known: Known) -> (Lab, Talk, [String; 2]) {
    let users = users_of(shards);
    let mut lab = Lab::new(shards, stored(&users));
    let [caller, callee] = pair(&mut lab, &users, known);
    let mut talk = Talk::ring(&mut lab, caller, callee);
    talk.answer(&mut lab);
    (lab, talk, users)
}

/// The next run, with what the former one left. The slots of before are taken by others.
fn next_run(former: &Lab, shards: u16, users: &[String; 2]) -> (Lab, Vec<Client>) {
    let mut lab = Lab::with_epoch(shards, stored(users), 2);
    lab.restore(former, DOWN);
    assert_eq!(lab.count(|it| it.bindings_restored), 2);
    let by = Transport::Wss;
    let stranger = |shard| Client::offline(&mut lab, shard, "nobody", Known::ByContact, by);
    let strangers = (0..shards).map(stranger).collect();
    (lab, strangers)
}

fn back(lab: &mut Lab, client: &mut Client, shard: u16) {
    client.connect(lab, shard, client.phone.transport);
    client.log_in(lab);
}

const RUNS: [(u16, u16); 4] = [(1, 1), (1, 3), (3, 2), (2, 2)];

#[test]
fn a_call_goes_on_in_the_next_run_whoever_was_away() {
    for (before, after) in RUNS {
        for known in KNOWN {
            for away in [None, Some(true), Some(false)] {
                let (mut former, mut talk, users) = answered(before, known);
                if let Some(is_caller) = away {
                    let lost = if is_caller { &talk.caller } else { &talk.callee };
                    lost.lose(&mut former, End::Fin);
                    former.pass(Duration::from_secs(1));
                }
                let (mut lab, strangers) = next_run(&former, after, &users);
                back(&mut lab, &mut talk.caller, after - 1);
                talk.caller.take(&mut lab);
                // The callee is not there yet.
                let early = talk.by_caller(&mut lab, "INFO");
                talk.caller.send(&mut lab, &early.text());
                talk.caller.heard_nothing(&mut lab);
                back(&mut lab, &mut talk.callee, 0);
                let got = talk.callee.take_method(&mut lab, "INFO");
                talk.callee.send(&mut lab, &got.response(200, "", &[]));
                talk.caller.take_status(&mut lab, 200);
                for method in ["INVITE", "INFO", "MESSAGE"] {
                    talk.exchange(&mut lab, method, true);
                    talk.exchange(&mut lab, method, false);
                }
                // In this run it is lost and found as in any other.
                talk.callee.lose(&mut lab, End::Reset);
                let info = talk.by_caller(&mut lab, "INFO");
                talk.caller.send(&mut lab, &info.text());
                talk.callee.come_back(&mut lab, after - 1, End::Reset);
                let got = talk.callee.take_method(&mut lab, "INFO");
                talk.callee.send(&mut lab, &got.response(200, "", &[]));
                talk.caller.take_status(&mut lab, 200);
                talk.exchange(&mut lab, "BYE", false);
                for user in &users {
                    assert_eq!(lab.shelf.count_of(&format!("{user}@example.com")), 1);
                }
                strangers.iter().for_each(|it| it.heard_nothing(&mut lab));
                lab.finish();
            }
        }
    }
}

#[test]
fn a_new_request_waits_for_a_client_of_the_run_before() {
    for (before, after) in RUNS {
        for known in KNOWN {
            for method in ["INVITE", "MESSAGE"] {
                let (former, mut talk, users) = answered(before, known);
                let (mut lab, strangers) = next_run(&former, after, &users);
                back(&mut lab, &mut talk.caller, 0);
                talk.caller.take(&mut lab);
                let draft = match method {
                    "INVITE" => invite(&talk.caller, &talk.callee, "n"),
                    _ => of_user(&talk.caller, method, &users[1], "n"),
                };
                talk.caller.send(&mut lab, &draft.text());
                lab.pass(Duration::from_secs(2));
                back(&mut lab, &mut talk.callee, after - 1);
                let got = talk.callee.take_method(&mut lab, method);
                assert_eq!(got.uri(), talk.callee.contact);
                let contact = format!("Contact: <{}>", talk.callee.contact);
                talk.callee.send(&mut lab, &got.response(200, "t", &[&contact]));
                let answers = talk.caller.take(&mut lab);
                assert_eq!(answers.last().map(|it| it.status()), Some(200), "{answers:#?}");
                strangers.iter().for_each(|it| it.heard_nothing(&mut lab));
                lab.finish();
            }
        }
    }
}

/// Nobody waits longer than the grace, which began with the run; who comes later is still known.
#[test]
fn nobody_waits_for_the_run_before_longer_than_the_grace() {
    for (before, after) in RUNS {
        let (former, mut talk, users) = answered(before, Known::ByRegId);
        let (mut lab, _) = next_run(&former, after, &users);
        back(&mut lab, &mut talk.caller, 0);
        talk.caller.take(&mut lab);
        lab.pass(Duration::from_secs(2));
        let message = |name: &str| of_user(&talk.caller, "MESSAGE", &users[1], name);
        talk.caller.send(&mut lab, &message("brief").text());
        let invite = invite(&talk.caller, &talk.callee, "i");
        talk.caller.send(&mut lab, &invite.text());
        lab.pass(Duration::from_millis(5_100));
        let answers: Vec<u16> = talk.caller.take(&mut lab).iter().map(|it| it.status()).collect();
        assert_eq!(answers, [100, 480]);
        lab.pass(GRACE - Duration::from_millis(7_100 + 50));
        talk.caller.heard_nothing(&mut lab);
        lab.pass(Duration::from_millis(100));
        let refused = talk.caller.take_status(&mut lab, 480);
        talk.caller.send(&mut lab, &invite.method("ACK").to(refused.header("To")).text());
        talk.caller.send(&mut lab, &message("late").text());
        talk.caller.take_status(&mut lab, 480);
        let left: u64 = lab.engines.iter().map(|it| it.gauges().bindings).sum();
        assert_eq!(left, 2, "its binding lives as long as it was registered for");
        assert_eq!(lab.shelf.records.len(), 2);
        back(&mut lab, &mut talk.callee, 0);
        talk.callee.take(&mut lab);
        talk.exchange(&mut lab, "INFO", true);
        lab.finish();
    }
}

/// What was promised to go over TLS waits for no flow without it, nor for who proved nothing.
#[test]
fn nobody_else_gets_what_waits_for_the_run_before() {
    for (before, after) in RUNS {
        let (former, mut talk, users) = answered(before, Known::ByRegId);
        let (mut lab, _) = next_run(&former, after, &users);
        back(&mut lab, &mut talk.caller, 0);
        talk.caller.take(&mut lab);
        let info = talk.by_caller(&mut lab, "INFO");
        talk.caller.send(&mut lab, &info.text());
        let mut guesser = talk.callee.twin(&mut lab);
        guesser.password = "guessed".into();
        guesser.connect(&mut lab, 0, Transport::Wss);
        assert_eq!(guesser.try_log_in(&mut lab).status(), 401);
        guesser.take(&mut lab);
        talk.caller.heard_nothing(&mut lab);
        let mut plain = talk.callee.twin(&mut lab);
        plain.connect(&mut lab, 0, Transport::Ws);
        plain.log_in(&mut lab);
        talk.caller.take_status(&mut lab, 480);
        for impostor in [&guesser, &plain] {
            impostor.heard_nothing(&mut lab);
        }
        lab.finish();
    }
}

/// Without authentication nobody is known again: all is answered at once.
#[test]
fn who_proved_nothing_is_not_waited_for() {
    let mut config = crate::lab::config();
    config.registrar.grace = GRACE;
    config.registrar.persistence = Persistence::Delayed;
    let mut former = Lab::new(1, config.clone());
    let mut callee = Client::offline(&mut former, 0, "bob", Known::ByRegId, Transport::Wss);
    callee.log_in(&mut former);
    let mut lab = Lab::with_epoch(1, config, 2);
    lab.restore(&former, DOWN);
    let caller = Client::offline(&mut lab, 0, "alice", Known::ByRegId, Transport::Wss);
    caller.send(&mut lab, &of_user(&caller, "MESSAGE", "bob", "m").text());
    caller.take_status(&mut lab, 480);
    lab.finish();
}

/// While the process ends nobody can come back to it: what is for who was sent away is answered at
/// once. The next run awaits them all, and who was lost shortly before, however long the end took.
#[test]
fn the_end_in_order_forgets_nobody() {
    for known in KNOWN {
        for is_lost_before in [false, true] {
            let (mut former, mut talk, users) = answered(2, known);
            if is_lost_before {
                talk.callee.lose(&mut former, End::Reset);
                former.pass(Duration::from_secs(1));
            }
            for shard in 0..2 {
                former.input(shard, Input::Drain);
            }
            former.input(1, Input::Dismiss { most: 10 });
            if !is_lost_before {
                let info = talk.by_caller(&mut former, "INFO");
                talk.caller.send(&mut former, &info.text());
                talk.caller.take_status(&mut former, 480);
            }
            former.pass(Duration::from_secs(20));
            former.input(0, Input::Dismiss { most: 10 });
            former.pass(Duration::from_secs(20));
            for user in &users {
                assert_eq!(former.shelf.count_of(&format!("{user}@example.com")), 1, "{user}");
            }
            let (mut lab, _) = next_run(&former, 2, &users);
            back(&mut lab, &mut talk.caller, 1);
            talk.caller.take(&mut lab);
            let info = talk.by_caller(&mut lab, "INFO");
            talk.caller.send(&mut lab, &info.text());
            talk.caller.heard_nothing(&mut lab);
            back(&mut lab, &mut talk.callee, 0);
            let got = talk.callee.take_method(&mut lab, "INFO");
            talk.callee.send(&mut lab, &got.response(200, "", &[]));
            talk.caller.take_status(&mut lab, 200);
            talk.exchange(&mut lab, "BYE", false);
            lab.finish();
        }
    }
}
