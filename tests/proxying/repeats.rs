//! Messages that come again (RFC 3261 §17): absorbed, answered as before, never forwarded twice.

use std::time::Duration;

use sipring::base::id::Transport;

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab, Placement, user_of};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

struct Scene {
    lab: Lab,
    core: Phone,
    client: Phone,
    uri: String,
}

fn scene(at: Placement, client: Transport) -> Scene {
    let mut lab = Lab::new(at.shards, lab::config());
    let user = user_of(at.owner, at.shards, 0);
    let client = Phone::connect(&mut lab, at.flow, client, "203.0.113.5:40001");
    client.register(&mut lab, &user, "<sip:a@10.0.0.9>");
    let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
    Scene { lab, core, client, uri: format!("sip:{user}@example.com") }
}

#[test]
fn a_repeated_invite_is_answered_by_what_was_said_last() {
    for at in lab::placements() {
        let Scene { mut lab, core, client, uri } = scene(at, Transport::Wss);
        let invite = request(&core, "INVITE", &uri, "i");
        core.send(&mut lab, &invite.text());
        let got = client.take_method(&mut lab, "INVITE");
        for shard in 0..at.shards {
            // The kernel may give the repeat to any shard.
            core.at_shard(shard).send(&mut lab, &invite.text());
        }
        let answers = core.take(&mut lab);
        assert_eq!(answers.len(), 1 + usize::from(at.shards));
        assert!(answers.iter().all(|answer| answer.status() == 100));
        client.send(&mut lab, &got.response(180, "c", &[]));
        core.take_status(&mut lab, 180);
        core.send(&mut lab, &invite.text());
        core.take_status(&mut lab, 180);
        client.send(&mut lab, &got.response(486, "c", &[]));
        core.take_status(&mut lab, 486);
        client.take_method(&mut lab, "ACK");
        core.send(&mut lab, &invite.text());
        core.take_status(&mut lab, 486);
        client.heard_nothing(&mut lab);
        core.send(&mut lab, &invite.method("ACK").text());
        core.heard_nothing(&mut lab);
        lab.finish();
        core.heard_nothing(&mut lab);
    }
}

#[test]
fn a_final_to_invite_is_repeated_until_its_ack_comes() {
    for at in lab::placements() {
        let Scene { mut lab, core, client, uri } = scene(at, Transport::Wss);
        let invite = request(&core, "INVITE", &uri, "i");
        core.send(&mut lab, &invite.text());
        let got = client.take_method(&mut lab, "INVITE");
        client.send(&mut lab, &got.response(486, "c", &[]));
        client.take_method(&mut lab, "ACK");
        assert_eq!(core.take(&mut lab).len(), 2, "100 and 486");
        for wait in [500, 1000, 2000, 4000, 4000] {
            lab.pass(ms(wait - 1));
            core.heard_nothing(&mut lab);
            lab.pass(ms(1));
            core.take_status(&mut lab, 486);
        }
        core.at_shard(at.flow).send(&mut lab, &invite.method("ACK").text());
        lab.pass(ms(30_000));
        core.heard_nothing(&mut lab);
        lab.finish();
    }
}

#[test]
fn a_final_whose_ack_never_comes_is_given_up() {
    for at in lab::placements() {
        let Scene { mut lab, core, client, uri } = scene(at, Transport::Wss);
        core.send(&mut lab, &request(&core, "INVITE", &uri, "i").text());
        let got = client.take_method(&mut lab, "INVITE");
        client.send(&mut lab, &got.response(486, "c", &[]));
        client.take_method(&mut lab, "ACK");
        lab.pass(ms(32_000));
        assert_eq!(core.take(&mut lab).len(), 2 + 10, "RFC 3261 §17.2.1, timers G and H");
        lab.finish();
        core.heard_nothing(&mut lab);
    }
}

#[test]
fn an_ack_goes_out_for_every_copy_of_a_final() {
    for at in lab::placements() {
        let Scene { mut lab, core, client, uri } = scene(at, Transport::Udp);
        let invite = request(&core, "INVITE", &uri, "i");
        core.send(&mut lab, &invite.text());
        let got = client.take_method(&mut lab, "INVITE");
        for shard in 0..at.shards {
            client.at_shard(shard).send(&mut lab, &got.response(486, "c", &[]));
            let ack = client.take_method(&mut lab, "ACK");
            assert_eq!(ack.header("Via"), got.header("Via"));
        }
        let answers = core.take(&mut lab);
        assert_eq!(answers.len(), 2, "100 and one 486: {answers:#?}");
        core.send(&mut lab, &invite.method("ACK").text());
        lab.finish();
    }
}

#[test]
fn a_2xx_comes_again_to_the_caller_and_its_ack_passes_each_time() {
    for at in lab::placements() {
        let Scene { mut lab, core, client, uri } = scene(at, Transport::Udp);
        let invite = request(&core, "INVITE", &uri, "i");
        core.send(&mut lab, &invite.text());
        let got = client.take_method(&mut lab, "INVITE");
        core.take_status(&mut lab, 100);
        for n in 0..3 {
            client.send(&mut lab, &got.response(200, "c", &["Contact: <sip:a@10.0.0.9>"]));
            let answer = core.take_status(&mut lab, 200);
            let mut route = answer.record_route();
            route.reverse();
            let ack = invite.clone().method("ACK").uri("sip:a@10.0.0.9").route(&route);
            // Some send the branch of the INVITE again.
            let ack = if n == 0 { ack } else { ack.branch(&core, "k") };
            let ack = ack.to(&format!("<{uri}>;tag=c"));
            core.send(&mut lab, &ack.text());
            client.take_method(&mut lab, "ACK");
        }
        core.send(&mut lab, &invite.text());
        core.heard_nothing(&mut lab);
        client.heard_nothing(&mut lab);
        lab.finish();
    }
}

#[test]
fn a_repeated_request_gets_the_same_answer_again() {
    for at in lab::placements() {
        let Scene { mut lab, core, client, uri } = scene(at, Transport::Wss);
        let message = request(&core, "MESSAGE", &uri, "m");
        core.send(&mut lab, &message.text());
        let got = client.take_method(&mut lab, "MESSAGE");
        core.send(&mut lab, &message.text());
        core.heard_nothing(&mut lab);
        client.send(&mut lab, &got.response(202, "c", &[]));
        let first = core.take_status(&mut lab, 202);
        for shard in 0..at.shards {
            core.at_shard(shard).send(&mut lab, &message.text());
            assert_eq!(core.take_one(&mut lab), first);
        }
        client.heard_nothing(&mut lab);
        lab.finish();
    }
}

#[test]
fn an_answer_of_our_own_is_repeated_too() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config());
        let user = user_of(at.owner, at.shards, 0);
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        let message = request(&core, "MESSAGE", &format!("sip:{user}@example.com"), "m");
        core.send(&mut lab, &message.text());
        let first = core.take_status(&mut lab, 404);
        core.at_shard(at.flow).send(&mut lab, &message.text());
        assert_eq!(core.take_one(&mut lab), first);
        lab.finish();
    }
}

/// RFC 3261 §8.2.7: without state the answer, its To tag included, is a function of the request.
#[test]
fn an_options_for_us_is_answered_alike_again_and_leaves_nothing() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config());
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        for name in ["o1", "o2"] {
            let options = request(&core, "OPTIONS", "sip:example.com", name);
            core.send(&mut lab, &options.text());
            let first = core.take_status(&mut lab, 200);
            assert!(first.tag("To").is_some(), "{first:#?}");
            for shard in 0..at.shards {
                core.at_shard(shard).send(&mut lab, &options.text());
                assert_eq!(core.take_one(&mut lab), first);
            }
            assert_eq!(left(&lab), (0, 0, 0));
        }
        assert_eq!(lab.ended().count(), 2 * (1 + usize::from(at.shards)), "one line an answer");
        lab.finish();
    }
}

/// Timer J (RFC 3261 §17.2.2): until then the response is all that is kept, many in one block.
#[test]
fn of_an_answered_request_the_response_stays_for_timer_j() {
    for at in lab::placements() {
        let Scene { mut lab, core, client, uri } = scene(at, Transport::Wss);
        let before = left(&lab);
        let message = request(&core, "MESSAGE", &uri, "m");
        let ask = |lab: &mut Lab, name: &str| {
            core.send(lab, &request(&core, "MESSAGE", &uri, name).text());
            let got = client.take_method(lab, "MESSAGE");
            client.send(lab, &got.response(202, "c", &[]));
            core.take_status(lab, 202)
        };
        let first = ask(&mut lab, "m");
        for n in 0..49 {
            lab.pass(ms(1));
            ask(&mut lab, &format!("n{n}"));
        }
        let (servers, keys, blocks) = left(&lab);
        let more = (servers - before.0, keys - before.1, blocks - before.2);
        assert_eq!(more, (50, 50, 1), "fifty responses in one block");
        lab.pass(ms(31_999 - 49));
        core.send(&mut lab, &message.text());
        assert_eq!(core.take_one(&mut lab), first);
        client.heard_nothing(&mut lab);
        lab.pass(ms(1));
        assert_eq!(left(&lab).0, before.0 + 49, "Timer J fired for the first");
        core.send(&mut lab, &message.text());
        client.take_method(&mut lab, "MESSAGE");
        lab.finish();
        assert_eq!(left(&lab), before);
    }
}

/// Server transactions, their keys, and pooled blocks, of all shards.
fn left(lab: &Lab) -> (u64, usize, i64) {
    let each = lab.engines.iter().map(|engine| (engine.gauges(), engine.resources()));
    each.fold((0, 0, 0), |(servers, keys, blocks), (gauges, resources)| {
        (
            servers + gauges.server_transactions,
            keys + resources.transaction_keys,
            blocks + resources.blocks,
        )
    })
}
