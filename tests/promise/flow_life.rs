//! The life of a flow: what it must prove, how long its pings take, and how the way to clients
//! behind address translation stays open.

use std::net::SocketAddr;
use std::time::Duration;

use sipring::base::config::Config;
use sipring::base::event::CloseReason;
use sipring::base::id::Transport;
use sipring::engine::Input;

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
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

/// How many flows of that transport have a round trip of at most so many milliseconds; none of
/// another has any.
fn within(lab: &Lab, transport: Transport, ms: u64) -> u64 {
    let mut all = lab.engines.iter().flat_map(|engine| {
        let others = Transport::ALL.into_iter().filter(|it| *it != transport);
        let gauges = engine.gauges().round_trips;
        others.map(move |other| gauges[other.index()].flows())
    });
    assert!(all.all(|flows| flows == 0));
    let mine = lab.engines.iter().map(|engine| engine.gauges().round_trips[transport.index()]);
    mine.map(|it| it.within(Duration::from_millis(ms))).sum()
}

#[test]
fn the_round_trip_of_a_ping_is_known_while_its_flow_lives() {
    for transport in [Transport::Ws, Transport::Wss] {
        let within = |lab: &Lab, ms| within(lab, transport, ms);
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
            let pong = lab.wire(flow).pong.clone();
            lab.data(flow, &pong);
            assert_eq!((within(&lab, least), within(&lab, least / 2)), (1, 0), "{ms}");
        }
        phone.leave(&mut lab, CloseReason::Peer);
        assert_eq!(within(&lab, 2000), 0);
    }
}

/// Nothing is sent for it: the kernel knows it from the segments that there are.
#[test]
fn the_round_trip_of_a_plain_stream_is_asked_for_now_and_then() {
    for (transport, is_asked) in STREAMS.into_iter().zip([true, true, false, false]) {
        let mut lab = Lab::new(1, lab::config());
        let phone = Phone::connect(&mut lab, 0, transport, ADDRESS);
        let flow = phone.flow.expect("a connection");
        assert_eq!(lab.wire(flow).measured, usize::from(is_asked), "{transport:?}");
        phone.register(&mut lab, "alice", "<sip:a@aa.invalid>");
        lab.pass(seconds(300));
        let expected = if is_asked { 6 } else { 0 };
        assert_eq!(lab.wire(flow).measured, expected, "once a minute");
        assert_eq!(phone.take(&mut lab).len(), 0, "and it costs no traffic");
        if is_asked {
            for (took, least) in [(40, 50), (150, 200)] {
                let took = Duration::from_millis(took);
                lab.input(0, Input::RoundTrip { flow, took });
                let counts = [least, least / 2].map(|ms| within(&lab, transport, ms));
                assert_eq!(counts, [1, 0]);
            }
        }
        phone.leave(&mut lab, CloseReason::Peer);
        assert_eq!(within(&lab, transport, 2000), 0);
        lab.input(0, Input::RoundTrip { flow, took: seconds(1) });
        assert_eq!(within(&lab, transport, 2000), 0, "it came too late");
    }
}

#[test]
fn the_round_trip_of_a_pinged_binding_is_known_while_it_lives() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, pinging(0));
        let user = user_of(at.owner, at.shards, 0);
        let phone = Phone::connect(&mut lab, at.flow, Transport::Udp, ADDRESS);
        let answering = phone.at_shard(at.arrival);
        phone.register(&mut lab, &user, BEHIND_NAT);
        let mut last = None;
        for (ms, least) in [(40, 50), (150, 200)] {
            let ping = next_ping(&mut lab, &phone);
            lab.pass(Duration::from_millis(ms));
            answering.send(&mut lab, &ping.response(200, "a", &[]));
            let counts = [least, least / 2].map(|ms| within(&lab, Transport::Udp, ms));
            assert_eq!(counts, [1, 0], "{at:?}");
            last = Some(ping);
        }
        // A refresh is no other flow; one from another address is.
        phone.register(&mut lab, &user, BEHIND_NAT);
        assert_eq!(within(&lab, Transport::Udp, 200), 1);
        let moved = Phone::connect(&mut lab, at.flow, Transport::Udp, "203.0.113.5:40009");
        moved.register(&mut lab, &user, BEHIND_NAT);
        assert_eq!(within(&lab, Transport::Udp, 2000), 0);
        // What the former address says of it counts for nothing.
        let late = last.expect("a ping").response(200, "a", &[]);
        answering.send(&mut lab, &late);
        assert_eq!(within(&lab, Transport::Udp, 2000), 0);
        let ping = next_ping(&mut lab, &moved);
        moved.send(&mut lab, &ping.response(200, "a", &[]));
        assert_eq!(within(&lab, Transport::Udp, 1), 1);
        moved.register(&mut lab, &user, &BEHIND_NAT.replace("3600", "0"));
        assert_eq!(within(&lab, Transport::Udp, 2000), 0);
        lab.finish();
    }
}

/// The next OPTIONS at a moment when it has just been sent.
fn next_ping(lab: &mut Lab, phone: &Phone) -> Sip {
    for _ in 0..31_000 {
        if let Some(ping) = phone.take(lab).pop() {
            assert_eq!(ping.method(), "OPTIONS");
            return ping;
        }
        lab.pass(Duration::from_millis(1));
    }
    panic!("no ping");
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

/// A binding request, with that transaction and these attributes (RFC 8489 §5).
fn stun_request(transaction: &[u8; 12], attributes: &[u8]) -> Vec<u8> {
    let length = (attributes.len() as u16).to_be_bytes();
    [&[0, 1], &length[..], &[0x21, 0x12, 0xa4, 0x42], transaction, attributes].concat()
}

fn stun_answers(lab: &mut Lab, from: &str) -> Vec<Vec<u8>> {
    let from: SocketAddr = from.parse().expect("an address");
    let all = lab.datagrams.drain(..).map(|(path, bytes)| {
        assert_eq!(path.remote, from, "to nobody else");
        bytes
    });
    all.collect()
}

#[test]
fn a_stun_keep_alive_is_answered_and_what_it_must_not_say_is_refused() {
    let mut lab = Lab::new(1, lab::config());
    let transaction = b"twelve bytes";
    for (attributes, kind, length) in [
        (&[][..], [1, 1], 32),
        (&[0x80, 0x22, 0, 1, b'x', 0, 0, 0], [1, 1], 32),
        // CHANGE-REQUEST would have us answer from elsewhere (RFC 5780 §7.2).
        (&[0, 3, 0, 4, 0, 0, 0, 6], [1, 0x11], 36),
    ] {
        let request = stun_request(transaction, attributes);
        lab.datagram(0, ADDRESS.parse().expect("an address"), &request);
        let answers = stun_answers(&mut lab, ADDRESS);
        let [answer] = &answers[..] else { panic!("{answers:x?}") };
        assert_eq!((answer[..2].to_vec(), answer.len()), (kind.to_vec(), length));
        assert_eq!(answer[4..20], request[4..20]);
    }
    let mut indication = stun_request(transaction, &[]);
    indication[1] = 0x11;
    let mut success = indication.clone();
    success[..2].copy_from_slice(&[1, 1]);
    let half = &stun_request(transaction, &[0, 3, 0, 4, 0, 0, 0, 6])[..24];
    for silent in [&indication[..], &success, half] {
        lab.datagram(0, ADDRESS.parse().expect("an address"), silent);
    }
    assert!(lab.datagrams.is_empty());
    assert_eq!(lab.count(|it| it.keepalives_received), 4);
    assert_eq!(lab.count(|it| it.dropped_stun), 2);
}

#[test]
fn a_source_of_stun_requests_gets_so_many_answers_a_second_whatever_its_ports() {
    const MOST: usize = 20;
    let mut lab = Lab::new(1, lab::config_with(|it| it.limits.stun_answers_max = MOST));
    for second in 0..3 {
        for n in 0..3 * MOST {
            let flood = SocketAddr::new([203, 0, 113, 5].into(), 40_000 + n as u16);
            lab.datagram(0, flood, &stun_request(b"abcdefghijkl", &[]));
        }
        assert_eq!(lab.datagrams.len(), MOST, "second {second}");
        lab.datagrams.clear();
        let other = "203.0.113.6:40001";
        let request = stun_request(b"mnopqrstuvwx", &[]);
        lab.datagram(0, other.parse().expect("an address"), &request);
        assert_eq!(stun_answers(&mut lab, other).len(), 1, "nobody else is hurt");
        lab.pass(seconds(1));
    }
    assert_eq!(lab.count(|it| it.dropped_stun_excess), 3 * 2 * MOST as u64);
    assert_eq!(lab.count(|it| it.keepalives_received), 3 * (MOST as u64 + 1));
}
