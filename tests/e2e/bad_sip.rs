//! What is wrong is answered with the status that says so, or dropped and counted.

use super::support::phone::PATIENCE;
use super::support::sip::{split_values, unique};
use super::support::{Draft, Message, Phone, Setup, Transport, still};

fn with_start(draft: Draft, start: &str) -> Draft {
    Draft { start: start.to_string(), ..draft }
}

/// Sends bytes and wants that status; the dialog identifiers come back.
#[track_caller]
fn refused(phone: &mut Phone, draft: &Draft, status: u16) -> Message {
    phone.send(&draft.build());
    let answer = phone.next();
    assert_eq!(answer.status(), status, "{phone:?}, {draft:?}: {answer:?}");
    assert_eq!(answer.one("call-id"), draft.value("Call-ID"), "{answer:?}");
    answer
}

#[test]
fn requests_with_a_fault_get_the_status_that_names_it() {
    let server = Setup::new().start();
    for transport in Transport::ALL {
        let mut phone = Phone::connect(transport, &server, "alice");
        let message = |phone: &Phone| phone.draft("MESSAGE", "sip:alice@example.com");
        let rows = [
            (
                "a version of the future",
                with_start(message(&phone), "MESSAGE sip:alice@example.com SIP/3.0"),
                505,
            ),
            ("no hops left", message(&phone).set("Max-Forwards", "0"), 483),
            (
                "a scheme for browsers",
                with_start(message(&phone), "MESSAGE http://example.com/ SIP/2.0"),
                416,
            ),
            (
                "a number and no route",
                with_start(message(&phone), "MESSAGE tel:+1-201-555-0123 SIP/2.0"),
                404,
            ),
            (
                "a domain of others",
                with_start(message(&phone), "MESSAGE sip:bob@elsewhere.example SIP/2.0"),
                403,
            ),
            ("CSeq of another method", message(&phone).set("CSeq", "1 NOTIFY"), 400),
            ("CSeq that is no number", message(&phone).set("CSeq", "one MESSAGE"), 400),
            ("CSeq out of range", message(&phone).set("CSeq", "99999999999999999999 MESSAGE"), 400),
            ("hops that are no number", message(&phone).set("Max-Forwards", "many"), 400),
            ("a URI that is none", with_start(message(&phone), "MESSAGE sip: SIP/2.0"), 400),
            ("an unclosed Route", message(&phone).with("Route", "<sip:edge.example.com"), 400),
            ("NUL in a header field", message(&phone).with("X-Odd", "a\0b"), 400),
            ("CR in a header field", message(&phone).with("X-Odd", "a\rb"), 400),
        ];
        for (what, draft, status) in rows {
            eprintln!("{what}");
            refused(&mut phone, &draft, status);
        }
        let demanding = message(&phone).with("Proxy-Require", "teleport, time-travel");
        let answer = refused(&mut phone, &demanding, 420);
        let unsupported: Vec<String> = answer.all("unsupported").flat_map(split_values).collect();
        assert_eq!(unsupported, ["teleport", "time-travel"], "{answer:?}");
        still(&mut [&mut phone]);
    }
}

#[test]
fn strangers_cannot_tell_who_exists_but_servers_can() {
    let core = Phone::core(Transport::Udp);
    let server = Setup::new().start();
    let mut core = core.connect(&server, "core");
    let mut known = Phone::connect(Transport::Wss, &server, "known");
    known.register_self();
    let unregister = known.register_draft("*").with("Expires", "0");
    assert_eq!(known.ask(&unregister).status(), 200);
    for (user, for_core) in [("known", 480), ("nobody", 404)] {
        let uri = format!("sip:{user}@example.com");
        assert_eq!(core.ask(&core.draft("MESSAGE", &uri)).status(), for_core, "{user}");
        assert_eq!(known.ask(&known.draft("MESSAGE", &uri)).status(), 480, "{user}");
    }
}

#[test]
fn two_content_lengths_are_refused() {
    let server = Setup::new().start();
    for transport in Transport::ALL {
        let mut phone = Phone::connect(transport, &server, "alice");
        let draft = phone.draft("OPTIONS", "sip:example.com").with("Content-Length", "5");
        refused(&mut phone, &draft, 400);
    }
}

#[test]
fn a_datagram_shorter_than_it_says_is_refused() {
    let server = Setup::new().start();
    let mut phone = Phone::connect(Transport::Udp, &server, "alice");
    let draft =
        phone.draft("OPTIONS", "sip:example.com").without_length().with("Content-Length", "5");
    let mut bytes = draft.build();
    bytes.extend_from_slice(b"four");
    phone.send(&bytes);
    assert_eq!(phone.next().status(), 400);
}

#[test]
fn an_ack_is_never_answered() {
    let server = Setup::new().start();
    for transport in Transport::ALL {
        let mut phone = Phone::connect(transport, &server, "alice");
        let ack = phone.draft("ACK", "sip:alice@example.com");
        for draft in [
            ack.clone(),
            ack.clone().set("CSeq", "1 INVITE"),
            ack.clone().set("Max-Forwards", "0"),
            ack.clone().with("Proxy-Require", "teleport"),
            with_start(ack.clone(), "ACK sip:x@192.0.2.1 SIP/2.0"),
            with_start(ack.clone(), "ACK http://example.com SIP/2.0"),
        ] {
            phone.send(&draft.set("Via", phone.via()).build());
        }
        still(&mut [&mut phone]);
    }
}

#[test]
fn garbage_datagrams_are_dropped_and_counted() {
    let server = Setup::new().start();
    let mut phone = Phone::connect(Transport::Udp, &server, "alice");
    let garbage: [&[u8]; 6] = [
        b"hello",
        b"\x00\x01\x02\x03\xff\xfe",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0xff; 1400],
        b"SIP",
        b"OPTIONS sip:example.com",
    ];
    for bytes in garbage {
        phone.send(bytes);
    }
    phone.send(b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKnobody\r\n\r\n");
    still(&mut [&mut phone]);
    let names = ["not_sip", "malformed", "stray_response"];
    let names = names.map(|name| format!("sipring_dropped_{name}_total"));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(server.wait_metrics(&names, 7, PATIENCE), 7, "each is counted once");
    assert!(server.metric("sipring_dropped_not_sip_total") >= 4);
}

#[test]
fn options_for_the_proxy_are_answered_by_the_proxy() {
    let server = Setup::new().start();
    for transport in Transport::ALL {
        let mut phone = Phone::connect(transport, &server, "alice");
        let proxy = phone.proxy;
        for uri in ["sip:example.com".to_string(), format!("sip:{proxy}")] {
            for hops in ["70", "0"] {
                let draft = phone.draft("OPTIONS", &uri).set("Max-Forwards", hops);
                let answer = refused(&mut phone, &draft, 200);
                for name in ["allow", "accept", "supported"] {
                    assert_eq!(answer.all(name).count(), 1, "{name}: {answer:?}");
                }
                assert!(super::support::sip::param(answer.one("to"), "tag").is_some());
            }
        }
    }
}

#[test]
fn a_retransmission_is_absorbed_and_its_response_repeated() {
    let core = Phone::core(Transport::Udp);
    let server = Setup::new().start();
    let mut core = core.connect(&server, "core");
    let mut phone = Phone::connect(Transport::Wss, &server, "alice");
    phone.register_self();
    let bytes = core.draft("MESSAGE", "sip:alice@example.com").body("text/plain", "x").build();
    core.send(&bytes);
    let heard = phone.request("MESSAGE");
    core.send(&bytes);
    still(&mut [&mut phone, &mut core]);
    phone.answer(&heard, 200);
    let first = core.status(200);
    core.send(&bytes);
    assert_eq!(core.status(200).raw, first.raw);
    still(&mut [&mut phone, &mut core]);
    server.wait_metric("sipring_retransmissions_absorbed_total", 2, PATIENCE);
}

#[test]
fn a_loop_is_found() {
    let core = Phone::core(Transport::Udp);
    let server = Setup::new().target(core.target()).start();
    let mut core = core.connect(&server, "core");
    let mut alice = Phone::connect(Transport::Wss, &server, "alice");
    let draft = alice.draft("MESSAGE", "sip:9000@example.com");
    alice.send(&draft.build());
    let heard = core.request("MESSAGE");
    // The server sends it back as it came, as a proxy does, whatever comes: from it, too, the
    // request is new once.
    let mut again = heard.clone();
    let mut rounds = 0;
    let answer = loop {
        rounds += 1;
        assert!(rounds < 4, "the proxy has seen this: {again:?}");
        core.send(&passed_on(&core, &again).build());
        match core.next() {
            message if message.is_request() => again = message,
            message => break message,
        }
    };
    assert_eq!(answer.status(), 482, "{answer:?}");
    core.answer(&heard, 482);
    assert_eq!(alice.next().status(), 482);
}

#[test]
fn identifiers_are_free_of_each_other() {
    let server = Setup::new().start();
    let mut phone = Phone::connect(Transport::Tcp, &server, "alice");
    let draft = phone.draft("OPTIONS", "sip:example.com");
    let same = unique("z9hG4bK");
    for method in ["OPTIONS", "MESSAGE"] {
        // One branch for two methods: two transactions (RFC 3261 §17.2.3).
        let via = format!("SIP/2.0/TCP {};branch={same}", phone.sent_by);
        let start = format!(
            "{method} sip:{}example.com SIP/2.0",
            if method == "MESSAGE" { "x@" } else { "" }
        );
        let draft =
            with_start(draft.clone(), &start).set("Via", via).set("CSeq", format!("1 {method}"));
        let status = phone.ask(&draft).status();
        assert_eq!(status, if method == "OPTIONS" { 200 } else { 480 });
    }
}

/// A request as another proxy passes it on: its Via on top, all else unchanged.
fn passed_on(core: &Phone, heard: &Message) -> Draft {
    let mut back = Draft::new(heard.start.clone()).with("Via", core.via());
    for header in heard.headers.iter().filter(|h| h.name != "content-length") {
        let name = String::from_utf8_lossy(&header.line);
        let name = name.split(':').next().unwrap_or("").to_string();
        back = back.with(&name, &header.value);
    }
    back
}
