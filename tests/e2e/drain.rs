//! SIGTERM: what lives may finish, what is new is refused, and the process ends in time with status
//! 0.

use std::time::{Duration, Instant};

use super::support::phone::{From, PATIENCE, PHONES};
use super::support::raw::Raw;
use super::support::{Incoming, Phone, Setup, Transport, returned};

#[test]
fn an_idle_proxy_ends_at_once() {
    for shards in [1, 2] {
        let mut server = Setup::new().shards(shards).limit("drain_timeout", "\"30s\"").start();
        let mut phone = Phone::connect(Transport::Wss, &server, "alice");
        phone.register_self();
        server.terminate();
        let status = server.wait_exit(PATIENCE).expect("the end, long before the drain timeout");
        assert!(status.success(), "{status}\n{}", server.log());
        assert!(matches!(phone.incoming(PATIENCE), Some(Incoming::Closed)));
    }
}

#[test]
fn a_living_transaction_may_finish_while_new_work_is_refused() {
    for shards in [1, 2] {
        let core = Phone::core(Transport::Udp);
        let mut server = Setup::new().shards(shards).limit("drain_timeout", "\"20s\"").start();
        let mut core = core.connect(&server, "core");
        let mut alice = Phone::connect(Transport::Wss, &server, "alice");
        alice.register_self();
        let invite = core.draft("INVITE", "sip:alice@example.com");
        core.send(&invite.build());
        let heard = alice.request("INVITE");
        core.status(100);
        alice.answer(&heard, 180);
        core.status(180);
        server.terminate();
        let status = until_draining(&mut alice);
        assert_eq!(status, 503);
        let busy = alice.response(&heard, 486);
        alice.respond(&heard, &busy);
        let ack = alice.request("ACK");
        assert_eq!(ack.one("cseq"), "1 ACK");
        let got = core.status(486);
        returned(&invite.message(), &busy.message(), &got);
        let ack = invite.clone().set("CSeq", "1 ACK").set("To", got.one("to")).without("Contact");
        let start = ack.start.replacen("INVITE", "ACK", 1);
        core.send(&super::support::Draft { start, ..ack }.build());
        let status = server.wait_exit(Duration::from_secs(20)).expect("the end");
        assert!(status.success(), "{status}\n{}", server.log());
    }
}

/// The signal takes a moment: asks until the answer is another.
fn until_draining(phone: &mut Phone) -> u16 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = phone.ask(&phone.draft("OPTIONS", "sip:example.com")).status();
        if status != 200 || Instant::now() > deadline {
            return status;
        }
    }
}

#[test]
fn what_does_not_finish_is_cut_at_the_drain_timeout() {
    let core = Phone::core(Transport::Udp);
    let mut server = Setup::new().limit("drain_timeout", "\"1s\"").start();
    let mut core = core.connect(&server, "core");
    let mut alice = Phone::connect(Transport::Wss, &server, "alice");
    alice.register_self();
    core.send(&core.draft("INVITE", "sip:alice@example.com").build());
    let heard = alice.request("INVITE");
    alice.answer(&heard, 180);
    let started = Instant::now();
    server.terminate();
    let status = server.wait_exit(PATIENCE).expect("the end, long before that of the call");
    let took = started.elapsed();
    assert!(status.success(), "{status}\n{}", server.log());
    assert!(took > Duration::from_millis(800), "{took:?}");
}

#[test]
fn at_the_end_browsers_hear_1012_and_streams_get_all_that_was_written() {
    const MESSAGES: u64 = 30;
    for shards in [1, 2] {
        let mut server = Setup::new().shards(shards).start();
        let mut core = Phone::core(Transport::Udp).connect(&server, "core");
        let mut web = [Transport::Ws, Transport::Wss].map(|t| Raw::upgraded(t, &server));
        let mut phones: Vec<Phone> = Vec::new();
        for transport in [Transport::Tcp, Transport::Tls] {
            let from = From { slow: true, ..From::host(PHONES) };
            let mut phone = Phone::connect_from(transport, &server, transport.name(), from);
            phone.register_self();
            phones.push(phone);
        }
        let before = server.metric("sipring_requests_forwarded_total");
        for phone in &phones {
            for _ in 0..MESSAGES {
                let draft = core.draft("MESSAGE", &phone.aor()).body("text/plain", "x".repeat(900));
                core.send(&draft.build());
            }
        }
        let sent = before + 2 * MESSAGES;
        server.wait_metric("sipring_requests_forwarded_total", sent, PATIENCE);
        server.terminate();
        for phone in &mut phones {
            for _ in 0..MESSAGES {
                phone.request("MESSAGE");
            }
            let end = phone.incoming(PATIENCE);
            assert!(matches!(end, Some(Incoming::Closed)), "{end:?}");
        }
        web.iter_mut().for_each(|raw| raw.closed(1012));
        let status = server.wait_exit(PATIENCE).expect("the end");
        assert!(status.success(), "{status}\n{}", server.log());
    }
}

#[test]
fn flows_end_one_after_the_other_so_that_their_clients_do_not_come_back_at_once() {
    const CLIENTS: usize = 300;
    let mut server = Setup::new().start();
    let connect = |_| Raw::upgraded(Transport::Ws, &server);
    let mut clients: Vec<Raw> = (0..CLIENTS).map(connect).collect();
    server.terminate();
    clients[0].closed(1012);
    let first = Instant::now();
    clients[1..].iter_mut().for_each(|client| client.closed(1012));
    let took = first.elapsed();
    assert!(took >= Duration::from_millis(250), "a millisecond each: {took:?}");
    let status = server.wait_exit(PATIENCE).expect("the end");
    assert!(status.success(), "{status}\n{}", server.log());
}

#[test]
fn without_a_spread_all_flows_end_at_once() {
    let mut server = Setup::new().limit("drain_spread", "\"0s\"").start();
    let mut clients: Vec<Raw> = (0..50).map(|_| Raw::upgraded(Transport::Ws, &server)).collect();
    server.terminate();
    clients.iter_mut().for_each(|client| client.closed(1012));
    let status = server.wait_exit(PATIENCE).expect("the end");
    assert!(status.success(), "{status}\n{}", server.log());
}
