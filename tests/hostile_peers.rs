//! Peers that break the rules on purpose: nobody else pays for it, nothing stays behind, and what
//! they send reaches nobody whom they may not reach.

mod lab;

use std::time::Duration;

use lab::phone::Phone;
use lab::text::Sip;
use lab::{CORE, Lab};
use sipring::base::config::Config;
use sipring::base::event::CloseReason;
use sipring::base::id::Transport;
use sipring::base::limits::{FLOW_BINDINGS_MAX, FLOW_REQUESTS_MAX};

const ALICE: &str = "203.0.113.5:40001";
const BOB: &str = "203.0.113.6:40002";

/// A request with what every request needs.
fn request(from: &Phone, method: &str, uri: &str, name: &str, more: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\n{}\r\nMax-Forwards: 70\r\nFrom: <sip:alice@example.com>;tag=a\r\n\
To: <{uri}>\r\nCall-ID: {name}\r\nCSeq: 1 {method}\r\n{more}Content-Length: 0\r\n\r\n",
        from.via(name)
    )
}

fn invite_bob(from: &Phone, name: &str) -> String {
    let contact = "Contact: <sip:a@aa.invalid;transport=ws>\r\n";
    request(from, "INVITE", "sip:bob@example.com", name, contact)
}

/// Two browsers, both registered.
fn pair(lab: &mut Lab, shards: u16) -> (Phone, Phone) {
    let alice = Phone::connect(lab, 0, Transport::Wss, ALICE);
    let bob = Phone::connect(lab, shards - 1, Transport::Wss, BOB);
    alice.register(lab, "alice", "<sip:a@aa.invalid;transport=ws>");
    bob.register(lab, "bob", "<sip:b@bb.invalid;transport=ws>");
    (alice, bob)
}

/// Lets time pass while browsers answer their pings, so that their flows live.
fn pass_alive(lab: &mut Lab, phones: &[&Phone], seconds: u64) -> Vec<Vec<Sip>> {
    let mut seen = vec![Vec::new(); phones.len()];
    for _ in 0..seconds.div_ceil(5) {
        lab.pass(Duration::from_secs(5));
        for (phone, seen) in phones.iter().zip(&mut seen) {
            seen.extend(phone.take(lab));
        }
    }
    seen
}

fn expect_no_transactions(lab: &Lab) {
    for engine in &lab.engines {
        let gauges = engine.gauges();
        assert_eq!((gauges.server_transactions, gauges.client_transactions), (0, 0));
    }
}

/// RFC 3261 §16.6 step 11: Timer C runs although there was no ringing that could start it anew.
#[test]
fn a_callee_that_says_trying_and_nothing_more_is_given_up() {
    for shards in 1..=3 {
        let mut lab = Lab::new(shards, lab::config());
        let (alice, bob) = pair(&mut lab, shards);
        alice.send(&mut lab, &invite_bob(&alice, "c1"));
        let invite = bob.take_one(&mut lab);
        alice.take(&mut lab);
        bob.send(&mut lab, &invite.response(100, "", &[]));
        let seen = pass_alive(&mut lab, &[&alice, &bob], 400);
        assert_eq!(seen[0].iter().map(Sip::status).collect::<Vec<_>>(), [408]);
        assert_eq!(seen[1].iter().map(Sip::method).collect::<Vec<_>>(), ["CANCEL"]);
        expect_no_transactions(&lab);
    }
}

/// RFC 3261 §16.7 step 3: without our Via no Via is left, so it cannot be for the caller.
#[test]
fn a_response_that_lacks_the_callers_via_leaves_nothing_behind() {
    for status in [180, 200, 486] {
        for method in ["INVITE", "MESSAGE"] {
            let mut lab = Lab::new(2, lab::config());
            let (alice, bob) = pair(&mut lab, 2);
            alice.send(&mut lab, &request(&alice, method, "sip:bob@example.com", "c1", ""));
            let mut forwarded = bob.take_one(&mut lab);
            alice.take(&mut lab);
            let via = forwarded.headers.iter().rposition(|(name, _)| name == "Via");
            forwarded.headers.remove(via.expect("the caller's Via"));
            bob.send(&mut lab, &forwarded.response(status, "b", &[]));
            let seen = pass_alive(&mut lab, &[&alice, &bob], 400);
            let finals: Vec<u16> =
                seen[0].iter().map(Sip::status).filter(|it| *it >= 200).collect();
            assert_eq!(
                finals.len(),
                usize::from(method == "INVITE"),
                "{method} {status} {finals:?}"
            );
            expect_no_transactions(&lab);
        }
    }
}

/// A request for which no branch can be made is answered, whatever filled the table.
#[test]
fn a_full_table_of_branches_answers_and_empties() {
    let mut config = lab::config();
    config.limits.transactions_max = 4;
    let mut lab = Lab::new(1, config);
    let alice = Phone::connect(&mut lab, 0, Transport::Wss, ALICE);
    for device in 0..9 {
        let bob =
            Phone::connect(&mut lab, 0, Transport::Tcp, &format!("203.0.113.6:{}", 41000 + device));
        bob.register(&mut lab, "bob", &format!("<sip:b@bb{device}.invalid>"));
    }
    for call in 0..3 {
        alice.send(&mut lab, &invite_bob(&alice, &format!("c{call}")));
    }
    let statuses: Vec<u16> = alice.take(&mut lab).iter().map(Sip::status).collect();
    assert_eq!(statuses, [100, 100, 500, 100, 500]);
    pass_alive(&mut lab, &[&alice], 100);
    expect_no_transactions(&lab);
}

/// A Path is a server's to write: from a stranger it makes no binding, wherever it leads.
#[test]
fn a_path_does_not_make_us_a_relay() {
    for host in ["10.0.0.5:5060", "127.0.0.1:9090", "198.51.100.7"] {
        let mut lab = Lab::new(2, lab::config());
        let mallory = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.66:5060");
        let lines =
            format!("Contact: <sip:b@192.0.2.200>\r\nPath: <sip:{host};lr>\r\nSupported: path\r\n");
        let register = request(&mallory, "REGISTER", "sip:mallory@example.com", "r1", &lines);
        mallory.send(&mut lab, &register);
        mallory.take_status(&mut lab, 403);
        let message = request(&mallory, "MESSAGE", "sip:mallory@example.com", "m1", "");
        mallory.send(&mut lab, &message);
        mallory.take_status(&mut lab, 480);
        assert!(lab.datagrams.is_empty() && lab.opens.is_empty(), "{host}");
    }
}

/// RFC 3261 §26.2.2: a `sips:` request goes over TLS or not at all.
#[test]
fn a_sips_request_never_leaves_without_tls() {
    let with_target = |transport: Transport| -> Config {
        let mut config = lab::config();
        config.upstreams[0].targets = vec![lab::target(transport, CORE)];
        config
    };
    for (transport, leaves) in
        [(Transport::Udp, false), (Transport::Tcp, false), (Transport::Tls, true)]
    {
        let mut lab = Lab::new(2, with_target(transport));
        let alice = Phone::connect(&mut lab, 0, Transport::Wss, ALICE);
        alice.send(&mut lab, &request(&alice, "MESSAGE", "sips:900@example.com", "m1", ""));
        assert!(lab.datagrams.is_empty());
        assert_eq!(lab.opens.len(), usize::from(leaves), "{transport:?}");
        let answers: Vec<u16> = alice.take(&mut lab).iter().map(Sip::status).collect();
        assert_eq!(answers, if leaves { vec![] } else { vec![480] }, "{transport:?}");
    }
}

/// A client that comes back on a new flow before the old one is missed is found on the new one.
#[test]
fn a_contact_that_moved_to_another_flow_is_found_there() {
    for shards in 1..=3 {
        let mut lab = Lab::new(shards, lab::config());
        let contact = "<sip:x7@df7jal23ls0d.invalid;transport=ws>";
        let old = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        old.register(&mut lab, "alice", contact);
        let new = Phone::connect(&mut lab, shards - 1, Transport::Wss, "203.0.113.5:40009");
        new.register(&mut lab, "alice", contact);
        lab.close(old.flow.expect("a stream"), CloseReason::Peer);
        let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
        let uri = "sip:x7@df7jal23ls0d.invalid;transport=ws";
        let bye = request(&core, "BYE", uri, "b1", "")
            .replace("To: <", "To: <sip:alice@example.com>;tag=x;y=<");
        let bye = bye.replace(&format!(";y=<{uri}>"), "");
        core.send(&mut lab, &bye);
        assert_eq!(new.take_one(&mut lab).method(), "BYE", "{shards}");
    }
}

/// Each flow's end makes the next one overflow: the ends are told one after the other, a bounded
/// number at a time, however many there are.
#[test]
fn a_chain_of_slow_flows_ends_without_depth() {
    const FLOWS: usize = 600;
    let run = || {
        let mut config = lab::config();
        config.limits.flow_queue_messages_max = 2;
        let mut lab = Lab::new(1, config);
        let address = |n: usize| format!("203.0.113.9:{}", 10_000 + n);
        let phones: Vec<Phone> =
            (0..FLOWS).map(|n| Phone::connect(&mut lab, 0, Transport::Tcp, &address(n))).collect();
        for (n, phone) in phones.iter().enumerate() {
            phone.register(&mut lab, &format!("u{n}"), &format!("<sip:u@h{n}.invalid>"));
        }
        for (n, phone) in phones.iter().enumerate().take(FLOWS - 1) {
            let uri = format!("sip:u{}@example.com", n + 1);
            phone.send(&mut lab, &request(phone, "INVITE", &uri, &format!("c{n}"), ""));
            let callee = &phones[n + 1];
            let invite = callee.take(&mut lab).pop().expect("the call");
            callee.send(&mut lab, &invite.response(180, "b", &[]));
        }
        for phone in &phones {
            lab.wires.get_mut(&phone.flow.expect("a stream")).expect("its wire").stuck = true;
        }
        for (n, phone) in phones.iter().enumerate().skip(1) {
            for ask in 0..8 {
                let name = format!("o{n}-{ask}");
                phone.send(&mut lab, &request(phone, "OPTIONS", "sip:192.0.2.1:5060", &name, ""));
            }
        }
        let closed = |lab: &Lab| {
            let why = |phone: &Phone| lab.wires[&phone.flow.expect("a stream")].closed;
            phones.iter().filter(|phone| why(phone) == Some(CloseReason::Slow)).count()
        };
        lab.close(phones[0].flow.expect("a stream"), CloseReason::Peer);
        assert!((1..100).contains(&closed(&lab)), "{}", closed(&lab));
        lab.pass(Duration::from_millis(100));
        assert_eq!(closed(&lab), FLOWS - 1);
    };
    let small = std::thread::Builder::new().stack_size(512 * 1024);
    small.spawn(run).expect("a thread").join().expect("no overflow");
}

/// One connection carries the calls of all users to a server: what a turn brings for it is no sign
/// that it does not read.
#[test]
fn a_burst_toward_a_server_is_delivered() {
    let mut config = lab::config();
    config.upstreams[0].targets[0].transport = Transport::Tcp;
    let mut lab = Lab::new(1, config);
    let alice = Phone::connect(&mut lab, 0, Transport::Udp, ALICE);
    alice.send(&mut lab, &request(&alice, "MESSAGE", "sip:900@example.com", "m", ""));
    let trunk = lab.complete_open(0);
    lab.wires.get_mut(&trunk).expect("its wire").stuck = true;
    for n in 0..1000 {
        let name = format!("m{n}");
        alice.send(&mut lab, &request(&alice, "MESSAGE", "sip:900@example.com", &name, ""));
    }
    let core = Phone { transport: Transport::Tcp, flow: Some(trunk), ..alice };
    assert_eq!(core.take(&mut lab).len(), 1001);
    assert!(lab.wires[&trunk].closed.is_none() && alice.take(&mut lab).is_empty());
}

/// RFC 4320 §4.1: a request other than INVITE hears no provisional response but 100, and a repeat
/// of it no other than the first.
#[test]
fn ringing_for_a_message_goes_no_further() {
    let mut lab = Lab::new(2, lab::config());
    let alice = Phone::connect(&mut lab, 0, Transport::Udp, ALICE);
    let bob = Phone::connect(&mut lab, 1, Transport::Wss, BOB);
    bob.register(&mut lab, "bob", "<sip:b@bb.invalid;transport=ws>");
    let message = request(&alice, "MESSAGE", "sip:bob@example.com", "m1", "");
    alice.send(&mut lab, &message);
    let forwarded = bob.take_one(&mut lab);
    lab.pass(Duration::from_secs(4));
    assert_eq!(alice.take_one(&mut lab).status(), 100);
    bob.send(&mut lab, &forwarded.response(183, "b", &[]));
    alice.send(&mut lab, &message);
    assert_eq!(alice.take_one(&mut lab).status(), 100);
    bob.send(&mut lab, &forwarded.response(200, "b", &[]));
    assert_eq!(alice.take_one(&mut lab).status(), 200);
}

/// What we add to a request may not make it one that we cannot read again: its ACK and CANCEL are
/// made from it.
#[test]
fn an_invite_with_as_many_header_fields_as_there_may_be_is_acknowledged() {
    for more in 230..=260 {
        let mut lab = Lab::new(1, lab::config());
        let (alice, bob) = pair(&mut lab, 1);
        let lines = "X: y\r\n".repeat(more);
        alice.send(&mut lab, &request(&alice, "INVITE", "sip:bob@example.com", "c1", &lines));
        let answers: Vec<u16> = alice.take(&mut lab).iter().map(Sip::status).collect();
        let forwarded = bob.take(&mut lab);
        if forwarded.is_empty() {
            assert_eq!(answers, [400], "{more}");
            continue;
        }
        bob.send(&mut lab, &forwarded[0].response(486, "b", &[]));
        assert_eq!(bob.take_one(&mut lab).method(), "ACK", "{more}");
    }
}

#[test]
fn a_client_with_too_many_waiting_requests_is_refused_and_nobody_else_is() {
    for shards in 1..=2 {
        let mut lab = Lab::new(shards, lab::config());
        let (alice, bob) = pair(&mut lab, shards);
        let carol = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.7:40003");
        for number in 0..FLOW_REQUESTS_MAX {
            let name = format!("w{number}");
            alice.send(&mut lab, &request(&alice, "MESSAGE", "sip:bob@example.com", &name, ""));
        }
        assert!(alice.take(&mut lab).is_empty(), "all of them wait for bob");
        alice.send(&mut lab, &request(&alice, "MESSAGE", "sip:bob@example.com", "over", ""));
        let refused = alice.take_one(&mut lab);
        assert_eq!((refused.status(), refused.find("Retry-After").is_some()), (480, true));
        assert_eq!(bob.take(&mut lab).len(), FLOW_REQUESTS_MAX);
        carol.send(&mut lab, &request(&carol, "MESSAGE", "sip:bob@example.com", "other", ""));
        let message = bob.take_one(&mut lab);
        bob.send(&mut lab, &message.response(200, "b", &[]));
        assert_eq!(carol.take_one(&mut lab).status(), 200);
        pass_alive(&mut lab, &[&alice, &bob, &carol], 40);
        expect_no_transactions(&lab);
        alice.send(&mut lab, &request(&alice, "MESSAGE", "sip:bob@example.com", "again", ""));
        assert_eq!(bob.take_one(&mut lab).method(), "MESSAGE");
    }
}

#[test]
fn a_flow_carries_so_many_bindings_and_no_more() {
    let mut lab = Lab::new(1, lab::config());
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ALICE);
    let register = |number: usize| {
        let uri = format!("sip:u{number}@example.com");
        let contact = format!("Contact: <sip:c{number}@cc.invalid;transport=ws>\r\n");
        request(&phone, "REGISTER", "sip:example.com", &format!("r{number}"), &contact)
            .replace("To: <sip:example.com>", &format!("To: <{uri}>"))
            .replace("tag=a", &format!("tag=a{number}"))
    };
    for number in 0..FLOW_BINDINGS_MAX {
        phone.send(&mut lab, &register(number));
        assert_eq!(phone.take_one(&mut lab).status(), 200);
    }
    phone.send(&mut lab, &register(FLOW_BINDINGS_MAX));
    let refused = phone.take_one(&mut lab);
    assert_eq!((refused.status(), refused.find("Retry-After").is_some()), (480, true));
    assert_eq!(lab.engines[0].gauges().bindings, FLOW_BINDINGS_MAX as u64);
    lab.close(phone.flow.expect("a stream"), CloseReason::Peer);
    assert_eq!(lab.engines[0].gauges().bindings, 0);
}
