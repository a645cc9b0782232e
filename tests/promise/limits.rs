//! Deadlines and bounds of flows: idle, half a message, half an upgrade, a peer that does not read;
//! and the end of the process.

use std::time::Duration;

use sipring::base::config::Config;
use sipring::base::event::CloseReason;
use sipring::base::id::Transport;
use sipring::engine::Input;

use crate::lab::draft::request;
use crate::lab::phone::{Phone, masked_frame};
use crate::lab::{self, CORE, Lab, user_of};

const ADDRESS: &str = "203.0.113.5:40001";

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Whoever is silent for that long is idle, whatever it has proved.
fn idle_after(time: Duration) -> Config {
    lab::config_with(|it| {
        it.limits.idle_timeout = time;
        it.limits.prove_deadline = seconds(86_400);
    })
}

#[test]
fn a_plain_stream_is_closed_when_idle_and_kept_while_a_call_rings() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut lab = Lab::new(1, idle_after(seconds(60)));
        let idle = Phone::connect(&mut lab, 0, transport, ADDRESS);
        let callee = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.6:40002");
        callee.register(&mut lab, "callee", "<sip:z@zz.invalid;transport=ws>");
        let busy = Phone::connect(&mut lab, 0, transport, "203.0.113.7:40003");
        busy.send(&mut lab, &request(&busy, "INVITE", "sip:callee@example.com", "i").text());
        let invite = callee.take_method(&mut lab, "INVITE");
        callee.send(&mut lab, &invite.response(180, "z", &[]));
        lab.pass(seconds(59));
        assert_eq!(lab.closed(idle.flow.expect("one")), None);
        lab.pass(seconds(2));
        assert_eq!(lab.closed(idle.flow.expect("one")), Some(CloseReason::Idle));
        lab.pass(seconds(30));
        assert_eq!(lab.closed(busy.flow.expect("one")), None);
        callee.send(&mut lab, &invite.response(486, "z", &[]));
        lab.finish();
        assert_eq!(lab.closed(busy.flow.expect("one")), Some(CloseReason::Idle));
        assert_eq!(lab.count(|it| it.flows_closed_idle), 2);
    }
}

#[test]
fn keep_alives_keep_a_stream_and_are_answered() {
    for transport in [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss] {
        let mut lab = Lab::new(1, idle_after(seconds(60)));
        let client = Phone::connect(&mut lab, 0, transport, ADDRESS);
        let flow = client.flow.expect("one");
        for _ in 0..5 {
            lab.pass(seconds(40));
            if transport.is_websocket() {
                lab.data(flow, &masked_frame(0x1, b"\r\n\r\n"));
            } else {
                lab.data(flow, b"\r\n\r\n");
            }
            assert!(lab.wires[&flow].bytes.ends_with(b"\r\n"));
            lab.wire(flow).bytes.clear();
        }
        assert_eq!(lab.closed(flow), None);
    }
}

#[test]
fn a_message_that_does_not_end_closes_its_flow() {
    for transport in [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss] {
        let mut lab = Lab::new(1, lab::config());
        let client = Phone::connect(&mut lab, 0, transport, ADDRESS);
        let flow = client.flow.expect("one");
        let text = request(&client, "OPTIONS", "sip:192.0.2.1", "o").text();
        let bytes = match transport.is_websocket() {
            true => masked_frame(0x1, text.as_bytes()),
            false => text.into_bytes(),
        };
        let (start, end) = bytes.split_at(30);
        lab.data(flow, start);
        lab.pass(seconds(9));
        lab.data(flow, end);
        client.take_status(&mut lab, 200);
        lab.pass(seconds(5));
        assert_eq!(lab.closed(flow), None, "it was in time");
        lab.data(flow, start);
        for byte in &end[..12] {
            lab.pass(seconds(1));
            if lab.closed(flow).is_none() {
                lab.data(flow, &[*byte]);
            }
        }
        lab.pass(seconds(9));
        assert_eq!(lab.closed(flow), Some(CloseReason::Timeout), "{transport:?}");
        lab.finish();
    }
}

#[test]
fn a_message_has_its_time_also_when_a_keep_alive_came_in_two_pieces_before() {
    for transport in [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss] {
        let mut lab = Lab::new(1, lab::config());
        let client = Phone::connect(&mut lab, 0, transport, ADDRESS);
        let flow = client.flow.expect("one");
        let text = request(&client, "OPTIONS", "sip:192.0.2.1", "o").text();
        let (keep_alive, message) = match transport.is_websocket() {
            true => (masked_frame(0xa, b""), masked_frame(0x1, text.as_bytes())),
            false => (b"\r\n".to_vec(), text.into_bytes()),
        };
        let (start, end) = keep_alive.split_at(keep_alive.len() - 1);
        lab.data(flow, start);
        lab.data(flow, end);
        lab.pass(seconds(9));
        let (start, end) = message.split_at(30);
        lab.data(flow, start);
        lab.pass(seconds(9));
        lab.data(flow, end);
        client.take_status(&mut lab, 200);
        lab.finish();
    }
}

#[test]
fn what_is_refused_half_way_gives_its_block_back() {
    for frames in [
        masked_frame(0x1, b"MESSAGE \xff"),
        masked_frame(0x8, &1000_u16.to_be_bytes()),
        masked_frame(0x8, b"x"),
    ] {
        let mut lab = Lab::new(1, lab::config());
        let client = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
        let flow = client.flow.expect("one");
        let (start, end) = frames.split_at(4);
        lab.data(flow, start);
        assert_eq!(lab.engines[0].resources().blocks, 1);
        lab.data(flow, end);
        assert!(lab.closed(flow).is_some());
        lab.finish();
    }
}

#[test]
fn a_refusal_without_a_transaction_takes_its_ack() {
    let config = lab::config_with(|config| config.limits.transactions_max = 1);
    let mut lab = Lab::new(1, config);
    let browser = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    browser.register(&mut lab, "alice", "<sip:a@aa.invalid;transport=ws>");
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let first = request(&core, "INVITE", "sip:alice@example.com", "i1");
    core.send(&mut lab, &first.text());
    core.take_status(&mut lab, 100);
    browser.take_method(&mut lab, "INVITE");
    let second = request(&core, "INVITE", "sip:alice@example.com", "i2");
    core.send(&mut lab, &second.text());
    let refusal = core.take_status(&mut lab, 500);
    let ack = second.method("ACK").to(refusal.header("To"));
    core.send(&mut lab, &ack.text());
    browser.heard_nothing(&mut lab);
    assert_eq!(lab.count(|counters| counters.acks_forwarded), 0);
    lab.finish();
}

#[test]
fn an_upgrade_that_does_not_come_closes_its_flow() {
    for transport in [Transport::Ws, Transport::Wss] {
        for start in [b"".as_slice(), b"GET / HTTP/1.1\r\nHost: x\r\n"] {
            let mut lab = Lab::new(1, lab::config());
            let flow = lab.connect(0, transport, ADDRESS.parse().expect("an address"));
            if !start.is_empty() {
                lab.data(flow, start);
            }
            lab.pass(Duration::from_millis(9_900));
            assert_eq!(lab.closed(flow), None);
            lab.pass(Duration::from_millis(200));
            assert_eq!(lab.closed(flow), Some(CloseReason::Timeout));
        }
    }
}

#[test]
fn a_client_whose_queue_is_full_gets_no_more_and_its_callers_480() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config_with(small_queue));
        let user = user_of(at.owner, at.shards, 0);
        let client = Phone::connect(&mut lab, at.flow, Transport::Wss, ADDRESS);
        client.register(&mut lab, &user, "<sip:a@aa.invalid;transport=ws>");
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        let flow = client.flow.expect("one");
        lab.wire(flow).stuck = true;
        let uri = format!("sip:{user}@example.com");
        let mut refused = 0;
        for n in 0..12 {
            core.send(&mut lab, &request(&core, "MESSAGE", &uri, &format!("m{n}")).text());
            for answer in core.take(&mut lab) {
                assert_eq!(answer.status(), 480);
                assert!(answer.find("Retry-After").is_some(), "{answer:#?}");
                refused += 1;
            }
        }
        assert_eq!(refused, 12 - 8, "{at:?}");
        assert_eq!(client.take(&mut lab).len(), 8);
        lab.finish();
        assert_eq!(lab.closed(flow), Some(CloseReason::Slow));
    }
}

fn small_queue(config: &mut Config) {
    config.limits.flow_queue_messages_max = 8;
}

#[test]
fn a_cancel_goes_out_also_when_no_transaction_has_room_for_it() {
    let mut lab = Lab::new(1, lab::config_with(|it| it.limits.transactions_max = 2));
    let phones = ["203.0.113.5:40001", "203.0.113.6:40001"].map(|address| {
        let phone = Phone::connect(&mut lab, 0, Transport::Wss, address);
        phone.register(&mut lab, "alice", &format!("<sip:a@{}.invalid>", &address[10..11]));
        phone
    });
    let core = Phone::connect(&mut lab, 0, Transport::Tcp, "198.51.100.7:33000");
    let mut rings = Vec::new();
    for name in ["i1", "i2"] {
        core.send(&mut lab, &request(&core, "INVITE", "sip:alice@example.com", name).text());
        core.take_status(&mut lab, 100);
        rings.push(phones.map(|phone| {
            let invite = phone.take_method(&mut lab, "INVITE");
            phone.send(&mut lab, &invite.response(180, "callee", &[]));
            core.take_status(&mut lab, 180);
            invite
        }));
    }
    assert_eq!(lab.engines[0].gauges().client_transactions, 4, "there is room for four");
    phones[0].send(&mut lab, &rings[0][0].response(200, "callee", &[]));
    core.take_status(&mut lab, 200);
    phones[1].take_method(&mut lab, "CANCEL");
    lab.finish();
}

#[test]
fn a_write_that_stays_pending_closes_its_flow() {
    for pending in [1, 2, 5] {
        for transport in [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss] {
            let mut lab = Lab::new(1, lab::config());
            let client = Phone::connect(&mut lab, 0, transport, ADDRESS);
            client.register(&mut lab, "alice", "<sip:a@aa.invalid;transport=ws>");
            let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
            let flow = client.flow.expect("one");
            lab.wire(flow).stuck = true;
            for n in 0..pending {
                let name = format!("m{n}");
                let draft = request(&core, "MESSAGE", "sip:alice@example.com", &name);
                core.send(&mut lab, &draft.text());
            }
            lab.pass(seconds(9));
            assert_eq!(lab.closed(flow), None);
            // The alarm may have been set before: then it looks twice.
            lab.pass(seconds(11));
            assert_eq!(lab.closed(flow), Some(CloseReason::Slow), "{transport:?} {pending}");
            let answers = core.take(&mut lab);
            assert_eq!(answers.iter().filter(|it| it.status() == 480).count(), pending);
            lab.finish();
        }
    }
}

/// What waited for clients that do not read is told little by little: who has a message to carry
/// meanwhile does not wait for thousands of refusals.
#[test]
fn many_requests_that_fail_at_once_are_answered_by_and_by() {
    const EACH: usize = 60;
    let mut lab = Lab::new(1, lab::config());
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let clients: Vec<Phone> = (1..=16)
        .map(|n| Phone::connect(&mut lab, 0, Transport::Wss, &format!("203.0.113.{n}:40001")))
        .collect();
    for (n, client) in clients.iter().enumerate() {
        client.register(&mut lab, &format!("u{n}"), "<sip:a@aa.invalid;transport=ws>");
        lab.wire(client.flow.expect("one")).stuck = true;
        for message in 0..EACH {
            let uri = format!("sip:u{n}@example.com");
            let draft = request(&core, "MESSAGE", &uri, &format!("m{n}x{message}"));
            core.send(&mut lab, &draft.text());
        }
    }
    let early = core.take(&mut lab);
    assert!(early.is_empty(), "{:#?}", early[0]);
    let all = EACH * clients.len();
    let refused = |lab: &Lab| lab.count(|it| it.requests_flow_gone) as usize;
    let (mut told, mut most, mut first) = (0, 0, None);
    while told < all {
        let at = lab.engines[0].next_deadline().expect("somebody still waits");
        lab.pass(at.saturating_since(lab.now));
        let now_told = refused(&lab);
        if now_told > 0 {
            first.get_or_insert(at);
        }
        (most, told) = (most.max(now_told - told), now_told);
    }
    assert!(most <= 64, "{most} in one go");
    let took = lab.now.saturating_since(first.expect("some were told"));
    assert!(took <= Duration::from_millis(50), "the last had to wait for {took:?}");
    assert_eq!(core.take(&mut lab).iter().filter(|it| it.status() == 480).count(), all);
    lab.finish();
}

/// Timers that fire at the same time do so a bounded number at a time, too.
#[test]
fn many_timers_that_fire_at_once_leave_room_for_others() {
    const ALL: usize = 1_000;
    let mut lab = Lab::new(1, lab::config());
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    for n in 0..ALL / 100 {
        let address = format!("203.0.113.{n}:40001");
        let client = Phone::connect(&mut lab, 0, Transport::Tcp, &address);
        client.register(&mut lab, &format!("u{n}"), "<sip:a@aa.invalid>");
        for message in 0..100 {
            let uri = format!("sip:u{n}@example.com");
            let draft = request(&core, "MESSAGE", &uri, &format!("m{n}x{message}"));
            core.send(&mut lab, &draft.text());
        }
    }
    let mut most = 0;
    let fired = |lab: &Lab| lab.engines[0].counters().timers_fired;
    while lab.count(|it| it.transactions_expired) < ALL as u64 {
        let at = lab.engines[0].next_deadline().expect("somebody still waits");
        lab.now = lab.now.max(at);
        let before = fired(&lab);
        let now = lab.now;
        lab.engines[0].handle_timeout(now);
        most = most.max(fired(&lab) - before);
        lab.pass(Duration::ZERO);
    }
    assert!(most <= 256, "{most} in one go");
    lab.finish();
}

#[test]
fn a_full_transaction_table_answers_500_and_recovers() {
    for shards in 1..=3 {
        let mut lab = Lab::new(shards, lab::config_with(|it| it.limits.transactions_max = 4));
        let client = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
        client.register(&mut lab, "alice", "<sip:a@aa.invalid;transport=ws>");
        lab.pass(seconds(40));
        let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
        for n in 0..4 {
            let draft = request(&core, "MESSAGE", "sip:alice@example.com", &format!("m{n}"));
            core.send(&mut lab, &draft.text());
        }
        assert_eq!(client.take(&mut lab).len(), 4);
        core.send(&mut lab, &request(&core, "MESSAGE", "sip:alice@example.com", "more").text());
        let answer = core.take_status(&mut lab, 500);
        assert!(answer.find("Retry-After").is_some(), "{answer:#?}");
        lab.finish();
        assert!(core.take(&mut lab).iter().all(|answer| answer.status() == 100));
        core.send(&mut lab, &request(&core, "MESSAGE", "sip:alice@example.com", "again").text());
        let got = client.take_method(&mut lab, "MESSAGE");
        client.send(&mut lab, &got.response(200, "c", &[]));
        core.take_status(&mut lab, 200);
        lab.finish();
    }
}

#[test]
fn a_fork_for_which_there_is_no_room_is_answered() {
    for method in ["MESSAGE", "INVITE"] {
        let mut lab = Lab::new(1, lab::config_with(|it| it.limits.transactions_max = 4));
        for n in 0..4 {
            let remote = format!("203.0.113.5:{}", 40_000 + n);
            let phone = Phone::connect(&mut lab, 0, Transport::Wss, &remote);
            phone.register(&mut lab, "alice", &format!("<sip:a@a{n}.invalid;transport=ws>"));
        }
        lab.pass(seconds(40));
        let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
        for n in 0..3 {
            let draft = request(&core, method, "sip:alice@example.com", &format!("m{n}"));
            core.send(&mut lab, &draft.text());
        }
        let answers = core.take(&mut lab);
        let last = answers.last().expect("an answer");
        assert_eq!(last.status(), 500, "{answers:#?}");
        assert!(last.find("Retry-After").is_some());
        lab.finish();
    }
}

#[test]
fn a_draining_process_takes_nothing_new_and_ends_what_it_has() {
    for shards in 1..=3 {
        let mut lab = Lab::new(shards, lab::config());
        let client = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
        client.register(&mut lab, "alice", "<sip:a@aa.invalid;transport=ws>");
        let core = Phone::connect(&mut lab, shards - 1, Transport::Udp, CORE);
        core.send(&mut lab, &request(&core, "INVITE", "sip:alice@example.com", "i").text());
        let invite = client.take_method(&mut lab, "INVITE");
        core.take_status(&mut lab, 100);
        for shard in 0..shards {
            lab.input(shard, Input::Drain);
        }
        assert!(lab.engines.iter().any(|engine| !engine.is_quiet()));
        for (method, uri) in [
            ("MESSAGE", "sip:alice@example.com"),
            ("OPTIONS", "sip:192.0.2.1"),
            ("REGISTER", "sip:example.com"),
        ] {
            core.send(&mut lab, &request(&core, method, uri, method).text());
            let answer = core.take_status(&mut lab, 503);
            assert!(answer.find("Retry-After").is_some(), "{answer:#?}");
        }
        client.send(&mut lab, &invite.response(200, "c", &[]));
        core.take_status(&mut lab, 200);
        assert!(lab.engines.iter().all(sipring::engine::Engine::is_quiet));
        lab.finish();
    }
}
