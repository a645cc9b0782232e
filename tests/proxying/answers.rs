//! Answers that the proxy gives itself: status, phrase, header fields, and that exactly one comes.

use sipring::base::config::Strangers;
use sipring::base::id::Transport;

use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, CORE, Lab};

/// What `draft` is answered, by a client of every transport and by the server behind us.
fn answers(make: impl Fn(&Phone) -> Draft, check: impl Fn(&Phone, &Sip)) {
    for shards in 1..=3 {
        let mut lab = Lab::new(shards, lab::config());
        let mut phones: Vec<Phone> = Transport::ALL
            .into_iter()
            .enumerate()
            .map(|(at, transport)| {
                let remote = format!("203.0.113.5:{}", 40_001 + at);
                Phone::connect(&mut lab, at as u16 % shards, transport, &remote)
            })
            .collect();
        phones.push(Phone::connect(&mut lab, 0, Transport::Udp, CORE));
        for phone in phones {
            // Each request is one of its own, not the same one that came by another way.
            let tag = format!("<sip:sender@example.org>;tag=f{}", phone.remote.port());
            let draft = make(&phone).from(&tag);
            phone.send(&mut lab, &draft.text());
            let answer = phone.take_one(&mut lab);
            check(&phone, &answer);
            assert!(answer.status() == 481 || answer.tag("To").is_some(), "{answer:#?}");
            if draft.text().starts_with("INVITE") {
                phone.send(&mut lab, &draft.method("ACK").text());
            }
            phone.heard_nothing(&mut lab);
        }
        lab.finish();
    }
}

fn is_upstream(phone: &Phone) -> bool {
    phone.remote == CORE.parse().expect("an address")
}

const METHODS: [&str; 4] = ["INVITE", "MESSAGE", "OPTIONS", "PRIVATE"];

#[test]
fn max_forwards_0_is_483_but_for_ourselves() {
    for method in METHODS {
        for uri in ["sip:alice@example.com", "sip:911@example.com", "tel:911"] {
            answers(
                |phone| request(phone, method, uri, "m").max_forwards(Some(0)),
                |_, answer| assert_eq!(answer.status(), 483),
            );
        }
    }
    for uri in ["sip:192.0.2.1", "sip:example.com", "sip:192.0.2.1:8443;transport=ws"] {
        answers(
            |phone| request(phone, "OPTIONS", uri, "m").max_forwards(Some(0)),
            |_, answer| {
                assert_eq!(answer.status(), 200);
                for name in ["Allow", "Accept", "Supported"] {
                    assert!(answer.find(name).is_some(), "{answer:#?}");
                }
            },
        );
    }
}

#[test]
fn every_unknown_proxy_require_is_named_in_a_420() {
    for method in METHODS {
        answers(
            |phone| {
                request(phone, method, "sip:alice@example.com", "m")
                    .line("Proxy-Require: one, two")
                    .line("proxy-require: three")
            },
            |_, answer| {
                assert_eq!(answer.status(), 420);
                let all: Vec<&str> = answer.all("Unsupported").collect();
                assert_eq!(all.join(", "), "one, two, three");
            },
        );
    }
}

#[test]
fn a_scheme_that_is_not_routed_is_416() {
    for uri in
        ["mailto:alice@example.com", "http://example.com/", "im:alice@example.com", "urn:a:b"]
    {
        answers(
            |phone| request(phone, "MESSAGE", uri, "m").to("<sip:alice@example.com>"),
            |_, answer| assert_eq!(answer.status(), 416),
        );
    }
}

#[test]
fn who_is_unknown_or_offline_is_told_to_servers_alone() {
    answers(
        |phone| request(phone, "MESSAGE", "sip:nobody@example.com", "m"),
        |phone, answer| assert_eq!(answer.status(), if is_upstream(phone) { 404 } else { 480 }),
    );
    for upstream in [true, false] {
        let mut lab = Lab::new(2, lab::config());
        let alice = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        alice.register(&mut lab, "alice", "<sip:a@aa.invalid;transport=ws>");
        alice.leave(&mut lab, sipring::base::event::CloseReason::Peer);
        let remote = if upstream { CORE } else { "203.0.113.9:5060" };
        let sender = Phone::connect(&mut lab, 1, Transport::Udp, remote);
        sender.send(&mut lab, &request(&sender, "MESSAGE", "sip:alice@example.com", "m").text());
        sender.take_status(&mut lab, 480);
        lab.finish();
    }
}

#[test]
fn a_domain_without_a_route_is_404_and_a_foreign_one_403_for_strangers() {
    answers(
        |phone| request(phone, "MESSAGE", "sip:nobody@192.0.2.1", "m"),
        |_, answer| assert_eq!(answer.status(), 404),
    );
    answers(
        |phone| request(phone, "MESSAGE", "sip:bob@example.net", "m"),
        |phone, answer| assert_eq!(answer.status(), if is_upstream(phone) { 404 } else { 403 }),
    );
    answers(
        |phone| request(phone, "REGISTER", "sip:example.com", "m").to("<sip:a@example.net>"),
        |_, answer| assert_eq!(answer.status(), 404),
    );
}

#[test]
fn strangers_may_be_refused_as_a_whole() {
    let mut lab = Lab::new(2, lab::config_with(|config| config.auth.strangers = Strangers::Reject));
    let stranger = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
    let core = Phone::connect(&mut lab, 1, Transport::Udp, CORE);
    stranger.send(&mut lab, &request(&stranger, "INVITE", "sip:9@example.com", "m").text());
    stranger.take_status(&mut lab, 403);
    core.send(&mut lab, &request(&core, "MESSAGE", "sip:nobody@example.com", "n").text());
    core.take_status(&mut lab, 404);
    lab.finish();
}

#[test]
fn a_fault_is_named_in_the_phrase_of_a_400() {
    let table: [(&str, &str, &str); 9] = [
        ("CSeq: 1 MESSAGE", "CSeq: 1 INVITE", "CSeq Method Mismatch"),
        ("CSeq: 1 MESSAGE", "CSeq: x MESSAGE", "Malformed CSeq"),
        ("Max-Forwards: 70", "Max-Forwards: 256", "Malformed Max-Forwards"),
        ("Max-Forwards: 70", "Max-Forwards: 1\r\nMax-Forwards: 2", "Multiple Max-Forwards"),
        ("Max-Forwards: 70", "Max-Forwards 70", "Malformed Header Field Name"),
        ("Max-Forwards: 70", "Max-Forwards: 70\r\nX: a\rb", "Bare CR in Header"),
        ("Max-Forwards: 70", "Max-Forwards: 70\r\nX: a\0b", "NUL in Header"),
        ("Max-Forwards: 70", "Max-Forwards: 70\r\nFrom: <sip:b@b>;tag=b", "Multiple From"),
        (
            "sip:alice@example.com SIP/2.0",
            "sip:alice@example.com?a=b SIP/2.0",
            "Header Fields in Request-URI",
        ),
    ];
    for (from, to, phrase) in table {
        for transport in [Transport::Udp, Transport::Wss, Transport::Tcp] {
            let mut lab = Lab::new(2, lab::config());
            let phone = Phone::connect(&mut lab, 0, transport, "203.0.113.5:40001");
            let text = request(&phone, "MESSAGE", "sip:alice@example.com", "m").text();
            assert!(text.contains(from));
            phone.send(&mut lab, &text.replacen(from, to, 1));
            let answer = phone.take_one(&mut lab);
            assert_eq!(answer.start, format!("SIP/2.0 400 {phrase}"), "{transport:?}");
            phone.send(&mut lab, &text.replacen(from, to, 1).replace("MESSAGE", "ACK"));
            phone.heard_nothing(&mut lab);
            lab.finish();
        }
    }
}

#[test]
fn another_version_is_505_and_what_nobody_could_answer_is_dropped() {
    for transport in [Transport::Udp, Transport::Wss] {
        let mut lab = Lab::new(2, lab::config());
        let phone = Phone::connect(&mut lab, 0, transport, "203.0.113.5:40001");
        let text = request(&phone, "MESSAGE", "sip:alice@example.com", "m").text();
        phone.send(&mut lab, &text.replacen("SIP/2.0\r\n", "SIP/7.0\r\n", 1));
        phone.take_status(&mut lab, 505);
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            phone.send(&mut lab, &text.replacen(&format!("\r\n{name}: "), "\r\nX: ", 1));
            phone.heard_nothing(&mut lab);
        }
        assert_eq!(lab.count(|it| it.dropped_malformed), 5);
        lab.finish();
    }
}

#[test]
fn a_body_that_is_not_as_long_as_it_says_is_400() {
    let table = [
        (Transport::Udp, "9", Some(400)),
        (Transport::Udp, "3", Some(404)),
        (Transport::Wss, "9", Some(400)),
        (Transport::Wss, "3", Some(400)),
        (Transport::Wss, "5", Some(480)),
        (Transport::Udp, "5\r\nl: 5", Some(400)),
        (Transport::Wss, "5\r\nl: 5", Some(400)),
    ];
    for (transport, length, status) in table {
        let mut lab = Lab::new(1, lab::config());
        let remote = if transport == Transport::Udp { CORE } else { "203.0.113.5:40001" };
        let phone = Phone::connect(&mut lab, 0, transport, remote);
        let text = request(&phone, "MESSAGE", "sip:alice@example.com", "m").body("hello").text();
        let length = format!("Content-Length: {length}");
        phone.send(&mut lab, &text.replacen("Content-Length: 5", &length, 1));
        assert_eq!(phone.take(&mut lab).first().map(Sip::status), status, "{transport:?} {length}");
        lab.finish();
    }
}

#[test]
fn a_stream_whose_framing_is_lost_is_answered_and_closed() {
    let table = [
        ("Content-Length: 0", "X: y", 400, "Missing Content-Length"),
        ("Content-Length: 0", "Content-Length: x", 400, "Bad Content-Length"),
        ("Content-Length: 0", "Content-Length: 0\r\nl: 0", 400, "Two Content-Lengths"),
        ("Content-Length: 0", "Content-Length: 99999999", 513, "Message Too Large"),
    ];
    for (from, to, status, phrase) in table {
        for transport in [Transport::Tcp, Transport::Tls] {
            let mut lab = Lab::new(1, lab::config());
            let phone = Phone::connect(&mut lab, 0, transport, "203.0.113.5:40001");
            let text = request(&phone, "MESSAGE", "sip:alice@example.com", "m").text();
            phone.send(&mut lab, &text.replacen(from, to, 1));
            let answer = phone.take_one(&mut lab);
            assert_eq!((answer.status(), &answer.start[12..]), (status, phrase));
            assert!(lab.closed(phone.flow.expect("one")).is_some());
            let dropped = lab.count(|it| it.dropped_malformed + it.dropped_too_large);
            assert_eq!(dropped, 0, "it was answered, so it was not dropped");
            lab.finish();
        }
    }
}

#[test]
fn headers_that_are_too_large_for_a_stream_are_513() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut lab = Lab::new(1, lab::config());
        let phone = Phone::connect(&mut lab, 0, transport, "203.0.113.5:40001");
        let long = format!("X-Long: {}", "x".repeat(40_000));
        let text = request(&phone, "MESSAGE", "sip:alice@example.com", "m").line(&long).text();
        for part in text.as_bytes().chunks(1400) {
            let flow = phone.flow.expect("one");
            if lab.closed(flow).is_none() {
                lab.data(flow, part);
            }
        }
        phone.take_status(&mut lab, 513);
        assert!(lab.closed(phone.flow.expect("one")).is_some());
        lab.finish();
    }
}

#[test]
fn a_breadth_that_is_used_up_is_440() {
    answers(
        |phone| request(phone, "MESSAGE", "sip:911@example.com", "m").line("Max-Breadth: 0"),
        |_, answer| assert_eq!(answer.status(), 440),
    );
    let mut lab = Lab::new(1, lab::config());
    for n in 0..3 {
        let remote = format!("203.0.113.5:{}", 40_000 + n);
        let phone = Phone::connect(&mut lab, 0, Transport::Wss, &remote);
        phone.register(&mut lab, "alice", &format!("<sip:a@a{n}.invalid;transport=ws>"));
    }
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let draft = request(&core, "MESSAGE", "sip:alice@example.com", "m").line("Max-Breadth: 2");
    core.send(&mut lab, &draft.text());
    let status = core.take(&mut lab).first().map(Sip::status);
    let copies = lab.wires.values().filter(|wire| !wire.bytes.is_empty()).count();
    assert!(status == Some(440) || copies == 2, "{status:?} {copies}");
    lab.finish();
}

#[test]
fn tel_is_routed_by_its_number() {
    let numbers = regex::Regex::new(r"^(911|\+4930911)$").expect("an expression");
    for uri in ["tel:911", "tel:9-1-1", "tel:+4930911"] {
        let config = lab::config_with(|config| {
            config.routes[0].domain = Some("none".into());
            config.routes[0].user = Some(numbers.clone());
        });
        let mut lab = Lab::new(2, config);
        let phone = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        let core = Phone::connect(&mut lab, 1, Transport::Udp, CORE);
        phone.send(&mut lab, &request(&phone, "MESSAGE", uri, "m").text());
        let got = core.take_method(&mut lab, "MESSAGE");
        assert_eq!(got.uri(), uri);
        core.send(&mut lab, &got.response(200, "c", &[]));
        phone.take_status(&mut lab, 200);
        lab.finish();
    }
}
