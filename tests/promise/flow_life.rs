//! The life of a flow: what it must prove, how long its pings take, and how the way to clients
//! behind address translation stays open.

use std::time::Duration;

use sipring::base::config::Config;
use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::lab::draft::request;
use crate::lab::phone::{Phone, masked_frame};
use crate::lab::{self, Lab, user_of};

const ADDRESS: &str = "203.0.113.5:40001";
const STREAMS: [Transport; 4] = [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn closed(lab: &Lab, phone: &Phone) -> Option<CloseReason> {
    lab.closed(phone.flow.expect("a connection"))
}

#[test]
fn who_proves_nothing_is_closed_whatever_it_asks_of_us() {
    for transport in STREAMS {
        let mut lab = Lab::new(1, lab::config());
        let silent = Phone::connect(&mut lab, 0, transport, ADDRESS);
        let scanner = Phone::connect(&mut lab, 0, transport, "203.0.113.6:40002");
        let guesser = Phone::connect(&mut lab, 0, transport, "203.0.113.7:40003");
        for n in 0..5 {
            let draft = request(&scanner, "OPTIONS", "sip:192.0.2.1", &format!("o{n}"));
            scanner.send(&mut lab, &draft.text());
            scanner.take_status(&mut lab, 200);
            let uri = format!("sip:{n}@example.com");
            let draft = request(&guesser, "MESSAGE", &uri, &format!("m{n}"));
            guesser.send(&mut lab, &draft.text());
            guesser.take_status(&mut lab, 480);
            lab.pass(seconds(11));
        }
        assert_eq!([&silent, &scanner, &guesser].map(|it| closed(&lab, it)), [None; 3]);
        lab.pass(seconds(6));
        assert_eq!(closed(&lab, &silent), Some(CloseReason::Unproven), "{transport:?}");
        // What was asked last might be answered yet, and no longer than that.
        lab.pass(seconds(32));
        for phone in [&scanner, &guesser] {
            assert_eq!(closed(&lab, phone), Some(CloseReason::Unproven), "{transport:?}");
        }
        assert_eq!(lab.count(|it| it.flows_closed_unproven), 3);
        lab.finish();
    }
}

#[test]
fn who_registered_or_was_served_stays() {
    for at in lab::placements() {
        for transport in STREAMS {
            let mut lab = Lab::new(at.shards, lab::config());
            let user = user_of(at.owner, at.shards, 0);
            let uri = format!("sip:{user}@example.com");
            let callee = Phone::connect(&mut lab, at.flow, transport, ADDRESS);
            callee.register(&mut lab, &user, "<sip:z@zz.invalid;transport=ws>");
            let caller = Phone::connect(&mut lab, at.arrival, transport, "203.0.113.6:40002");
            lab.pass(seconds(50));
            caller.send(&mut lab, &request(&caller, "MESSAGE", &uri, "m").text());
            let message = callee.take_method(&mut lab, "MESSAGE");
            // Its request lives beyond the deadline, at whichever shard.
            lab.pass(seconds(20));
            assert_eq!(closed(&lab, &caller), None, "{at:?}");
            callee.take(&mut lab);
            callee.send(&mut lab, &message.response(200, "z", &[]));
            let answers = caller.take(&mut lab);
            assert_eq!(answers.last().expect("an answer").status(), 200);
            lab.pass(seconds(300));
            assert_eq!(closed(&lab, &caller), None, "{at:?} {transport:?}");
            assert_eq!(closed(&lab, &callee), None, "{at:?} {transport:?}");
            lab.finish();
        }
    }
}

#[test]
fn a_server_behind_us_proves_nothing() {
    let mut lab = Lab::new(1, lab::config());
    let core = Phone::connect(&mut lab, 0, Transport::Tcp, "198.51.100.7:40001");
    lab.pass(seconds(300));
    assert_eq!(closed(&lab, &core), None);
}

#[test]
fn the_round_trip_of_a_ping_is_known_while_its_flow_lives() {
    let within = |lab: &Lab, ms| {
        let all = lab.engines.iter().map(|engine| engine.gauges().round_trips);
        all.map(|it| it.within(Duration::from_millis(ms))).sum::<u64>()
    };
    for transport in [Transport::Ws, Transport::Wss] {
        let mut lab = Lab::new(2, lab::config());
        let phone = Phone::connect(&mut lab, 1, transport, ADDRESS);
        phone.register(&mut lab, "alice", "<sip:a@aa.invalid;transport=ws>");
        let flow = phone.flow.expect("a connection");
        lab.wire(flow).silent = true;
        for (ms, least) in [(40, 50), (150, 200)] {
            let heard = lab.wire(flow).pings;
            for _ in 0..60_000 {
                if lab.wire(flow).pings > heard {
                    break;
                }
                lab.pass(Duration::from_millis(1));
            }
            assert_eq!(lab.wire(flow).pings, heard + 1);
            lab.pass(Duration::from_millis(ms));
            lab.data(flow, &masked_frame(0xa, b""));
            assert_eq!((within(&lab, least), within(&lab, least / 2)), (1, 0), "{ms}");
        }
        phone.leave(&mut lab, CloseReason::Peer);
        assert_eq!(within(&lab, 2000), 0);
    }
}

fn pinging(misses_max: usize) -> Config {
    lab::config_with(|it| {
        it.registrar.nat_ping = seconds(30);
        it.registrar.nat_ping_misses = misses_max;
    })
}

const BEHIND_NAT: &str = "<sip:a@10.0.0.1:5070>;expires=3600";

#[test]
fn a_udp_client_behind_address_translation_hears_options() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, pinging(0));
        let user = user_of(at.owner, at.shards, 0);
        let phone = Phone::connect(&mut lab, at.flow, Transport::Udp, ADDRESS);
        phone.register(&mut lab, &user, BEHIND_NAT);
        for (round, status) in [200, 404, 501].into_iter().enumerate() {
            lab.pass(seconds(31));
            let ping = phone.take_method(&mut lab, "OPTIONS");
            assert_eq!(ping.uri(), "sip:a@10.0.0.1:5070");
            assert!(ping.header("Via").contains("192.0.2.1:5060;branch=z9hG4bK"));
            let answer = ping.response(status, "a", &[]);
            // Nobody else answers for it, and it answers wherever its datagram comes in.
            let other = Phone { remote: "203.0.113.9:9".parse().expect("an address"), ..phone };
            other.send(&mut lab, &answer);
            phone.at_shard(at.arrival).send(&mut lab, &answer);
            let counts = lab.count(|it| it.pings_answered * 1000 + it.dropped_stray_response);
            assert_eq!(counts, (round as u64 + 1) * 1001);
        }
        lab.finish();
    }
}

#[test]
fn who_needs_no_ping_gets_none() {
    for (transport, contact) in [
        (Transport::Udp, "<sip:a@203.0.113.5:40001>"),
        (Transport::Udp, "<sip:a@10.0.0.1:5070;ob>"),
        (Transport::Udp, "<sip:a@10.0.0.1:5070>;reg-id=1;+sip.instance=\"<urn:uuid:1>\""),
        (Transport::Wss, "<sip:a@aa.invalid;transport=ws>"),
    ] {
        let mut lab = Lab::new(1, pinging(1));
        let phone = Phone::connect(&mut lab, 0, transport, ADDRESS);
        phone.register(&mut lab, "alice", contact);
        lab.pass(seconds(200));
        phone.heard_nothing(&mut lab);
        assert_eq!(lab.count(|it| it.pings_sent + it.bindings_unanswered), 0, "{contact}");
        lab.finish();
    }
}

#[test]
fn a_binding_that_answers_no_pings_goes_only_where_configured() {
    for (misses_max, pings, left) in [(0, 10, 1), (3, 3, 0)] {
        let mut lab = Lab::new(1, pinging(misses_max));
        let phone = Phone::connect(&mut lab, 0, Transport::Udp, ADDRESS);
        phone.register(&mut lab, "alice", BEHIND_NAT);
        lab.pass(seconds(305));
        assert_eq!(phone.take(&mut lab).len(), pings);
        assert_eq!(lab.engines[0].gauges().bindings, left, "{misses_max}");
        assert_eq!(lab.count(|it| it.bindings_unanswered), 1 - left);
        // One answer, however late, starts the count anew; a REGISTER does as well.
        phone.register(&mut lab, "alice", BEHIND_NAT);
        assert_eq!(lab.engines[0].gauges().bindings, 1);
        lab.finish();
    }
}

/// As many as there are, all of them are reached within one interval, and not at one moment.
#[test]
fn pings_are_spread_over_the_interval() {
    let mut lab = Lab::new(1, pinging(0));
    for n in 0..600 {
        let remote = format!("203.0.{}.{}:40001", 113 + n / 200, 1 + n % 200);
        let phone = Phone::connect(&mut lab, 0, Transport::Udp, &remote);
        phone.register(&mut lab, &format!("user{n}"), BEHIND_NAT);
    }
    lab.pass(seconds(31));
    lab.datagrams.clear();
    let mut most = 0;
    for _ in 0..300 {
        let before = lab.datagrams.len();
        lab.pass(Duration::from_millis(100));
        most = most.max(lab.datagrams.len() - before);
    }
    assert!((1..=2).contains(&most), "{most} at one moment");
    let reached: std::collections::HashSet<_> =
        lab.datagrams.iter().map(|(path, _)| path.remote).collect();
    assert_eq!((lab.datagrams.len(), reached.len()), (600, 600));
}
