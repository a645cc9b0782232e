//! The WebSocket upgrade, byte by byte (RFC 6455 §4.2, RFC 7118 §4).

use super::support::raw::{Raw, frame, upgrade};
use super::support::{Message, Phone, Server, Setup, Transport};

/// Header fields that are not as usual: name and value; an empty value leaves the field out.
type Changes = [(&'static str, &'static str)];

const WEB: [Transport; 2] = [Transport::Ws, Transport::Wss];

fn ask(server: &Server, transport: Transport, request: &str) -> (u16, String, String) {
    let mut raw = Raw::connect(transport, server);
    raw.write(request.as_bytes());
    raw.http_response()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

#[test]
fn a_good_upgrade_is_accepted() {
    let server = Setup::new().start();
    let rows: [(&str, &Changes); 8] = [
        ("/", &[]),
        ("/?access_token=abc.def", &[]),
        ("/", &[("Sec-WebSocket-Protocol", "msrp, sip, x")]),
        ("/", &[("Sec-WebSocket-Protocol", "msrp,sip")]),
        ("/", &[("Upgrade", "WebSocket")]),
        ("/", &[("Connection", "upgrade")]),
        ("/", &[("Origin", "https://anything.example")]),
        ("/", &[("Sec-WebSocket-Extensions", "")]),
    ];
    for transport in WEB {
        for (path, changes) in rows {
            let (status, head, _) = ask(&server, transport, &upgrade(path, changes));
            assert_eq!(status, 101, "{path} {changes:?}: {head}");
            assert_eq!(header(&head, "Sec-WebSocket-Protocol"), Some("sip"), "{head}");
            let accept = header(&head, "Sec-WebSocket-Accept");
            assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "RFC 6455 §1.3: {head}");
            assert_eq!(header(&head, "Sec-WebSocket-Extensions"), None, "{head}");
            assert!(header(&head, "Upgrade").is_some_and(|u| u.eq_ignore_ascii_case("websocket")));
        }
    }
    server.wait_metric("sipring_upgrades_total", 16, super::support::phone::PATIENCE);
}

#[test]
fn a_bad_upgrade_is_refused_and_told_why() {
    let server = Setup::new().start();
    let rows: [(&Changes, &str); 7] = [
        (&[("Sec-WebSocket-Protocol", "")], "sip"),
        (&[("Sec-WebSocket-Protocol", "msrp, sips, SIPX")], "sip"),
        (&[("Sec-WebSocket-Version", "8")], "13"),
        (&[("Sec-WebSocket-Version", "")], ""),
        (&[("Sec-WebSocket-Key", "")], "Key"),
        (&[("Sec-WebSocket-Key", "dG9vc2hvcnQ=")], "Key"),
        (&[("Upgrade", "")], ""),
    ];
    for transport in WEB {
        for (changes, word) in rows {
            let (status, head, body) = ask(&server, transport, &upgrade("/", changes));
            assert!([400, 426].contains(&status), "{changes:?}: {head}");
            assert!(!body.is_empty(), "a body that says what is wrong: {head}");
            assert!(body.to_lowercase().contains(&word.to_lowercase()), "{changes:?}: {body}");
            if changes[0] == ("Sec-WebSocket-Version", "8") {
                assert_eq!(header(&head, "Sec-WebSocket-Version"), Some("13"), "{head}");
            }
        }
    }
    server.wait_metric("sipring_upgrades_refused_total", 14, super::support::phone::PATIENCE);
}

#[test]
fn path_and_origin_are_checked() {
    let server = Setup::new().path("/sip").origins(&["https://app.example.com"]).start();
    let good = [("Origin", "https://app.example.com")];
    let bad = [("Origin", "https://evil.example")];
    for transport in WEB {
        assert_eq!(ask(&server, transport, &upgrade("/sip", &good)).0, 101);
        assert_eq!(ask(&server, transport, &upgrade("/sip?x=1", &good)).0, 101);
        for path in ["/", "/sip/", "/SIP", "/sipx"] {
            assert_eq!(ask(&server, transport, &upgrade(path, &good)).0, 404, "{path}");
        }
        let (status, head, body) = ask(&server, transport, &upgrade("/sip", &bad));
        assert!(status == 403 && !body.is_empty(), "{head}");
    }
}

#[test]
fn health_is_asked_by_plain_http() {
    let server = Setup::new().start();
    for transport in WEB {
        let (status, head, _) =
            ask(&server, transport, "GET /healthz HTTP/1.1\r\nHost: lb.example\r\n\r\n");
        assert_eq!(status, 200, "{head}");
    }
}

#[test]
fn what_is_not_an_upgrade_does_no_harm() {
    let server = Setup::new().start();
    for bytes in ["POST / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let (status, head, _) = ask(&server, Transport::Ws, bytes);
        assert!((400..500).contains(&status), "{head}");
    }
    // More than any upgrade needs, and bytes that are no HTTP: refused or closed.
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(20_000));
    for bytes in
        [endless.as_bytes(), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 no TLS here\r\n\r\n"]
    {
        let mut raw = Raw::connect(Transport::Ws, &server);
        raw.try_write(bytes);
        raw.closes();
    }
    Phone::connect(Transport::Ws, &server, "alice").register_self();
}

#[test]
fn a_frame_may_follow_the_upgrade_in_the_same_bytes() {
    let server = Setup::new().start();
    for transport in WEB {
        let phone = Phone::connect(transport, &server, "alice");
        let options = phone.draft("OPTIONS", "sip:example.com");
        for cut in [1, 3, 7, 40] {
            let mut raw = Raw::connect(transport, &server);
            let mut bytes = upgrade("/", &[]).into_bytes();
            let message = frame(0x81, &options.clone().set("Via", phone.via()).build());
            bytes.extend_from_slice(&message[..cut]);
            raw.write(&bytes);
            assert_eq!(raw.http_response().0, 101);
            raw.write(&message[cut..]);
            let answer = raw.frame().expect("an answer");
            assert_eq!(answer.head, 0x81);
            assert_eq!(Message::parse(&answer.payload).expect("SIP").status(), 200);
        }
    }
}
