//! Messages on TCP and TLS: wherever the network cuts them, and however many come at once (RFC 3261
//! §18.3, RFC 5626 §3.5.1).

use super::support::call::deliver;
use super::support::phone::PATIENCE;
use super::support::{Incoming, Phone, Setup, Transport, still};

const STREAMS: [Transport; 2] = [Transport::Tcp, Transport::Tls];

#[test]
fn a_message_may_be_cut_anywhere() {
    let server = Setup::new().start();
    for transport in STREAMS {
        let mut phone = Phone::connect(transport, &server, "alice");
        let length =
            phone.draft("OPTIONS", "sip:example.com").body("text/plain", "body").build().len();
        for cut in 1..length {
            let draft = phone.draft("OPTIONS", "sip:example.com").body("text/plain", "body");
            let bytes = draft.build();
            let cut = cut.min(bytes.len() - 1);
            phone.send(&bytes[..cut]);
            phone.send(&bytes[cut..]);
            let answer = phone.next();
            assert_eq!(answer.status(), 200, "cut at {cut}: {answer:?}");
            assert_eq!(answer.one("call-id"), draft.value("Call-ID"));
        }
        for byte in phone.draft("OPTIONS", "sip:example.com").body("text/plain", "body").build() {
            phone.send(&[byte]);
        }
        phone.status(200);
    }
}

#[test]
fn many_messages_may_come_in_one_segment() {
    let server = Setup::new().start();
    for transport in STREAMS {
        let mut phone = Phone::connect(transport, &server, "alice");
        let drafts: Vec<_> = (0..60)
            .map(|_| phone.draft("OPTIONS", "sip:example.com").body("text/plain", "b"))
            .collect();
        let mut bytes: Vec<u8> = drafts.iter().flat_map(|draft| draft.build()).collect();
        let rest = bytes.split_off(bytes.len() - 10);
        phone.send(&bytes);
        phone.send(&rest);
        for draft in &drafts {
            assert_eq!(phone.status(200).one("call-id"), draft.value("Call-ID"), "in order");
        }
    }
}

#[test]
fn a_keep_alive_is_answered_between_messages() {
    let server = Setup::new().start();
    for transport in STREAMS {
        let mut phone = Phone::connect(transport, &server, "alice");
        let options = phone.draft("OPTIONS", "sip:example.com").build();
        phone.send(&[b"\r\n\r\n", &options[..]].concat());
        assert!(matches!(phone.incoming(PATIENCE), Some(Incoming::KeepAlive)));
        phone.status(200);
        // A single CRLF before a message is no ping (RFC 3261 §7.5).
        let options = phone.draft("OPTIONS", "sip:example.com").build();
        phone.send(&[b"\r\n", &options[..]].concat());
        phone.status(200);
        phone.send(b"\r\n\r\n");
        assert!(matches!(phone.incoming(PATIENCE), Some(Incoming::KeepAlive)));
        still(&mut [&mut phone]);
    }
}

#[test]
fn a_message_that_is_too_large_is_refused_and_the_connection_closed() {
    let limits = Setup::new().limit("message_bytes_max", "16384").limit("header_bytes_max", "8192");
    let server = limits.start();
    for transport in STREAMS {
        let mut phone = Phone::connect(transport, &server, "alice");
        let announced = phone.draft("OPTIONS", "sip:example.com").without_length();
        phone.send(&announced.with("Content-Length", "999999").build());
        phone.status(513);
        assert!(matches!(phone.incoming(PATIENCE), Some(Incoming::Closed)));
        let mut phone = Phone::connect(transport, &server, "alice");
        let long = phone.draft("OPTIONS", "sip:example.com").with("X-Long", "x".repeat(9000));
        phone.send(&long.build());
        phone.status(513);
        assert!(matches!(phone.incoming(PATIENCE), Some(Incoming::Closed)));
    }
}

#[test]
fn what_is_not_sip_closes_the_connection() {
    let server = Setup::new().start();
    for transport in STREAMS {
        for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\x00\x01\x02\x03\r\n\r\n"] {
            let mut phone = Phone::connect(transport, &server, "alice");
            phone.send(bytes);
            let end = phone.incoming(PATIENCE);
            assert!(matches!(end, Some(Incoming::Closed)), "{end:?}");
        }
    }
    let mut phone = Phone::connect(Transport::Tls, &server, "alice");
    still(&mut [&mut phone]);
}

#[test]
fn folded_lines_and_compact_names_pass_unchanged() {
    let server = Setup::new().start();
    let mut bob = Phone::connect(Transport::Wss, &server, "bob");
    bob.register_self();
    let contact = bob.contact.clone();
    for transport in STREAMS {
        let mut alice = Phone::connect(transport, &server, "alice");
        let mut draft = alice
            .draft("MESSAGE", "sip:bob@example.com")
            .with("X-Folded", "one\r\n two\r\n\tthree")
            .with("s", "compact subject")
            .with("c", "text/plain")
            .with("P-Weird!%*_+`'~", "every token character");
        draft.body = b"hello".to_vec();
        for (long, short) in [("From", "f"), ("To", "t"), ("Call-ID", "i")] {
            let header = draft.headers.iter_mut().find(|(name, _)| name == long).expect("header");
            header.0 = short.to_string();
        }
        deliver(&draft, &mut alice, &mut bob, &contact);
    }
}

#[test]
fn tls_1_2_clients_are_served() {
    let server = Setup::new().start();
    for transport in [Transport::Tls, Transport::Wss] {
        let from = super::support::phone::From {
            tls12: true,
            ..super::support::phone::From::host(super::support::phone::PHONES)
        };
        let mut phone = Phone::connect_from(transport, &server, "old", from);
        phone.register_self();
        still(&mut [&mut phone]);
    }
}
