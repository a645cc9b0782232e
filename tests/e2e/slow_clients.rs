//! Clients that never read cost their own connections only.

use std::time::{Duration, Instant};

use super::support::phone::{From, PATIENCE, PHONES};
use super::support::{Incoming, Phone, Setup, Transport};

const SLOW: usize = 20;
const MESSAGES: usize = 2000;
/// All messages together are 27 MiB.
const BODY: usize = 14_000;
/// Long before any write is given up.
const AT_ONCE: Duration = Duration::from_secs(10);
/// Each slow client has a queue of 64 KiB, twice because one half is with the kernel, and up to a
/// dozen requests in its queue and socket, of which a block of 16 KiB is kept as it went, and the
/// head alone as it came.
const GROWTH_MAX: u64 = 12 << 20;

#[test]
fn twenty_clients_that_never_read_do_not_fill_the_memory_or_hold_up_others() {
    let core = Phone::core(Transport::Tcp);
    let server = Setup::new().limit("write_timeout", "\"60s\"").start();
    let mut core = core.connect(&server, "core");
    let from = From { slow: true, ..From::host(PHONES) };
    let mut slow: Vec<Phone> = (0..SLOW)
        .map(|number| {
            let user = format!("slow{number}");
            let mut phone = Phone::connect_from(Transport::Wss, &server, &user, from);
            phone.register_self();
            phone
        })
        .collect();
    let mut good = Phone::connect(Transport::Wss, &server, "good");
    good.register_self();
    // Buffers and tables that every load touches first are not what is measured.
    for _ in 0..500 {
        deliver(&mut core, &mut good);
    }
    let before = server.memory();
    let (mut refused, mut most) = (0, before);
    let body = "x".repeat(BODY);
    for number in 0..MESSAGES {
        let uri = format!("sip:slow{}@example.com", number % SLOW);
        core.send(&core.draft("MESSAGE", &uri).body("text/plain", body.clone()).build());
        if number % SLOW == SLOW - 1 {
            refused += deliver(&mut core, &mut good);
            most = most.max(server.memory());
        }
    }
    assert!(refused > 0, "full queues refuse");
    assert!(refused <= MESSAGES);
    let growth = most - before;
    println!("{refused} of {MESSAGES} refused, memory grew by {} KiB", growth >> 10);
    assert!(growth < GROWTH_MAX, "memory grew by {growth} bytes");
    assert_eq!(server.metric("sipring_flows_closed_slow_total"), 0, "slow is not yet dead");
    // The slow ones were not cut: what was queued is there, whole and in order.
    for phone in &mut slow {
        let heard = phone.request("MESSAGE");
        assert_eq!(heard.body, body.as_bytes());
    }
}

/// A message to the good client in the middle of it all: it arrives and is answered at once.
/// Returns how many 480s the sender heard meanwhile.
fn deliver(core: &mut Phone, good: &mut Phone) -> usize {
    let draft = core.draft("MESSAGE", "sip:good@example.com").body("text/plain", "for the good");
    let sent = Instant::now();
    core.send(&draft.build());
    let heard = good.request("MESSAGE");
    assert_eq!(heard.body, b"for the good");
    good.answer(&heard, 200);
    let mut refused = 0;
    loop {
        let answer = core.next();
        if answer.one("call-id") == draft.value("Call-ID") {
            assert_eq!(answer.status(), 200, "{answer:?}");
            break;
        }
        if answer.status() == 100 {
            continue;
        }
        assert_eq!(answer.status(), 480, "{answer:?}");
        assert!(answer.all("retry-after").count() == 1, "{answer:?}");
        refused += 1;
    }
    let took = sent.elapsed();
    assert!(took < AT_ONCE, "the good client waited {took:?}");
    refused
}

#[test]
fn a_write_that_never_ends_closes_its_flow_and_its_requests_are_answered() {
    let core = Phone::core(Transport::Tcp);
    let server = Setup::new().limit("write_timeout", "\"500ms\"").start();
    let mut core = core.connect(&server, "core");
    let from = From { slow: true, ..From::host(PHONES) };
    let mut slow = Phone::connect_from(Transport::Wss, &server, "slow", from);
    slow.register_self();
    let body = "x".repeat(8000);
    let (mut sent, mut answered) = (0, 0);
    let started = Instant::now();
    while server.metric("sipring_flows_closed_slow_total") == 0 {
        assert!(started.elapsed() < PATIENCE, "{sent} sent, {answered} refused");
        for _ in 0..10 {
            let draft =
                core.draft("MESSAGE", "sip:slow@example.com").body("text/plain", body.clone());
            core.send(&draft.build());
            sent += 1;
        }
        while let Some(incoming) = core.incoming(Duration::from_millis(10)) {
            answered += is_480(&incoming);
        }
    }
    while answered < sent {
        let incoming = core.incoming(PATIENCE);
        answered += is_480(&incoming.unwrap_or_else(|| panic!("{answered} of {sent} answered")));
    }
    let answer = core.ask(&core.draft("MESSAGE", "sip:slow@example.com"));
    assert_eq!(answer.status(), 480, "{answer:?}");
}

/// 1 for a 480, 0 for a 100, and nothing else.
fn is_480(incoming: &Incoming) -> usize {
    match incoming {
        Incoming::Message(message) if message.status() == 100 => 0,
        Incoming::Message(message) if message.status() == 480 => 1,
        other => panic!("{other:?}"),
    }
}
