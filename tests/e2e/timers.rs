//! What happens when a client does not answer (RFC 3261 §17, RFC 4320).

use std::time::Duration;

use super::support::phone::PATIENCE;
use super::support::{Incoming, Message, Phone, Setup, Transport, still};

/// Everything that comes within `time`.
fn collect(phone: &mut Phone, time: Duration) -> Vec<Message> {
    let deadline = std::time::Instant::now() + time;
    let mut heard = Vec::new();
    while let Some(incoming) =
        phone.incoming(deadline.saturating_duration_since(std::time::Instant::now()))
    {
        match incoming {
            Incoming::Message(message) => heard.push(message),
            other => panic!("{other:?}"),
        }
    }
    heard
}

/// T1 of 20 ms: timers B and F after 1.28 s.
fn brief() -> Setup {
    Setup::new().timer("t1", "\"20ms\"").timer("t2", "\"80ms\"").timer("t4", "\"100ms\"")
}

#[test]
fn a_request_that_nobody_answers_is_repeated_over_udp_only_and_expires_in_silence() {
    let server = brief().start();
    let mut alice = Phone::connect(Transport::Tcp, &server, "alice");
    for (transport, copies) in [(Transport::Udp, 5..), (Transport::Tcp, 1..), (Transport::Wss, 1..)]
    {
        let mut bob = Phone::connect(transport, &server, &format!("bob-{}", transport.name()));
        bob.register_self();
        alice.send(&alice.draft("MESSAGE", &bob.aor()).build());
        let heard = collect(&mut bob, Duration::from_millis(1500));
        let tried = collect(&mut alice, Duration::from_millis(100));
        let all_100 = tried.iter().all(|response| response.status() == 100);
        assert!(all_100 && tried.len() <= 1, "RFC 4320 §4.1: {tried:?}");
        assert!(copies.contains(&heard.len()), "{transport:?}: {}", heard.len());
        assert!(heard.iter().all(|copy| copy.raw == heard[0].raw), "all alike");
        if transport != Transport::Udp {
            assert_eq!(heard.len(), 1, "never repeated over {transport:?}");
        }
    }
    server.wait_metric("sipring_transactions_expired_total", 3, PATIENCE);
    still(&mut [&mut alice]);
}

#[test]
fn an_invite_that_nobody_answers_ends_with_408() {
    let server = brief().start();
    let mut alice = Phone::connect(Transport::Wss, &server, "alice");
    for transport in [Transport::Udp, Transport::Wss] {
        let mut bob = Phone::connect(transport, &server, &format!("bob-{}", transport.name()));
        bob.register_self();
        let invite = alice.draft("INVITE", &bob.aor());
        alice.send(&invite.build());
        alice.status(100);
        let answer = alice.status(408);
        let ack = invite.set("CSeq", "1 ACK").set("To", answer.one("to"));
        let start = ack.start.replacen("INVITE", "ACK", 1);
        alice.send(&super::support::Draft { start, ..ack }.build());
        let heard = collect(&mut bob, Duration::from_millis(100));
        let invites = heard.iter().filter(|message| message.method() == "INVITE").count();
        match transport {
            Transport::Udp => assert!(invites > 3, "repeated by timer A: {invites}"),
            _ => assert_eq!(invites, 1),
        }
    }
    still(&mut [&mut alice]);
}

#[test]
fn a_failure_response_is_repeated_over_udp_until_it_is_acknowledged() {
    let core = Phone::core(Transport::Udp);
    let server = brief().start();
    let mut core = core.connect(&server, "core");
    let mut bob = Phone::connect(Transport::Wss, &server, "bob");
    bob.register_self();
    let invite = core.draft("INVITE", &bob.aor());
    core.send(&invite.build());
    let heard = bob.request("INVITE");
    core.status(100);
    bob.answer(&heard, 486);
    bob.request("ACK");
    let first = core.status(486);
    let again = core.status(486);
    assert_eq!(first.raw, again.raw, "timer G repeats it");
    let ack = invite.set("CSeq", "1 ACK").set("To", first.one("to"));
    let start = ack.start.replacen("INVITE", "ACK", 1);
    core.send(&super::support::Draft { start, ..ack }.build());
    // What was under way may still come, before the answer to what was said after the ACK; then
    // there is silence.
    let options = core.draft("OPTIONS", "sip:example.com");
    core.send(&options.build());
    loop {
        let heard = core.next();
        if heard.one("call-id") == options.value("Call-ID") {
            break;
        }
        assert_eq!(heard.raw, first.raw);
    }
    core.silent();
    still(&mut [&mut bob, &mut core]);
}
