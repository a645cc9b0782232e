//! Content-Length as peers get it wrong (RFC 3261 §18.3, §20.14; RFC 7118 §5). On a stream it is
//! the framing, and a wrong one ends the connection; a datagram and a WebSocket message have an end
//! of their own.

use sipring::base::id::Transport;

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab};

/// What becomes of a request with a body of five bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Forwarded with this body.
    Passes(&'static str),
    /// 400 with this phrase.
    Refused(&'static str),
    /// This status and phrase, then the end of the connection.
    Closed(u16, &'static str),
    /// Nothing: the rest is waited for.
    Waits,
}

use Fate::*;

const MALFORMED: Fate = Refused("Malformed Content-Length");
const BAD: Fate = Closed(400, "Bad Content-Length");
const SHORT: Fate = Refused("Body Shorter Than Content-Length");
const DIFFERS: Fate = Refused("Content-Length Differs From Body");
const TWICE: Fate = Refused("Multiple Content-Length");
const TOO_LARGE: Fate = Closed(513, "Message Too Large");

/// Header lines; as a datagram, on a stream, as a WebSocket message.
#[rustfmt::skip]
const TABLE: &[(&str, Fate, Fate, Fate)] = &[
    ("Content-Length: 5", Passes("hello"), Passes("hello"), Passes("hello")),
    ("l:5", Passes("hello"), Passes("hello"), Passes("hello")),
    ("CONTENT-LENGTH \t:  5  ", Passes("hello"), Passes("hello"), Passes("hello")),
    ("Content-Length:\r\n 5\r\n\t", Passes("hello"), Passes("hello"), Passes("hello")),
    ("Content-Length: 0005", Passes("hello"), Passes("hello"), Passes("hello")),
    ("Content-Length: 00000000000000000000005", Passes("hello"), Passes("hello"), Passes("hello")),
    ("X: y", Passes("hello"), Closed(400, "Missing Content-Length"), Passes("hello")),
    ("X: y\r\n Content-Length: 5", Passes("hello"), Closed(400, "Missing Content-Length"),
        Passes("hello")),
    ("Content-Length: 5\r\nContent-Length: 5", TWICE, Closed(400, "Two Content-Lengths"), TWICE),
    ("Content-Length: 5\r\nl: 5", TWICE, Closed(400, "Two Content-Lengths"), TWICE),
    ("l: 0\r\nl: 5", TWICE, Closed(400, "Two Content-Lengths"), TWICE),
    ("Content-Length: 5, 5", MALFORMED, BAD, MALFORMED),
    ("Content-Length: -1", MALFORMED, BAD, MALFORMED),
    ("Content-Length: -5", MALFORMED, BAD, MALFORMED),
    ("Content-Length: +5", MALFORMED, BAD, MALFORMED),
    ("Content-Length: 5;x", MALFORMED, BAD, MALFORMED),
    ("Content-Length: 5 5", MALFORMED, BAD, MALFORMED),
    ("Content-Length: 0x5", MALFORMED, BAD, MALFORMED),
    ("Content-Length: 5.0", MALFORMED, BAD, MALFORMED),
    ("Content-Length: \"5\"", MALFORMED, BAD, MALFORMED),
    ("Content-Length: five", MALFORMED, BAD, MALFORMED),
    ("Content-Length: \u{665}", MALFORMED, BAD, MALFORMED),
    ("Content-Length:", MALFORMED, BAD, MALFORMED),
    ("Content-Length: 2147483647", SHORT, TOO_LARGE, DIFFERS),
    ("Content-Length: 2147483648", SHORT, TOO_LARGE, DIFFERS),
    ("Content-Length: 4294967295", SHORT, TOO_LARGE, DIFFERS),
    ("Content-Length: 4294967296", MALFORMED, BAD, MALFORMED),
    ("Content-Length: 4294967301", MALFORMED, BAD, MALFORMED),
    ("Content-Length: 18446744073709551615", MALFORMED, BAD, MALFORMED),
    ("Content-Length: 18446744073709551616", MALFORMED, BAD, MALFORMED),
    ("Content-Length: 18446744073709551621", MALFORMED, BAD, MALFORMED),
    ("Content-Length: 99999999999999999999", MALFORMED, BAD, MALFORMED),
    ("Content-Length: 6", SHORT, Waits, DIFFERS),
    ("Content-Length: 4", Passes("hell"), Passes("hell"), DIFFERS),
    ("Content-Length: 0", Passes(""), Passes(""), DIFFERS),
];

fn play(transport: Transport, lines: &str, fate: Fate) {
    let mut lab = Lab::new(2, lab::config());
    let bob = Phone::connect(&mut lab, 1, Transport::Wss, "203.0.113.9:40009");
    bob.register(&mut lab, "bob", "<sip:b@bb.invalid;transport=ws>");
    let sender = Phone::connect(&mut lab, 0, transport, "203.0.113.5:40001");
    let text = request(&sender, "MESSAGE", "sip:bob@example.com", "m").body("hello").text();
    let text = text.replacen("Content-Length: 5", lines, 1);
    assert!(text.contains(lines));
    sender.send(&mut lab, &text);
    let is_closed = sender.flow.is_some_and(|flow| lab.closed(flow).is_some());
    match fate {
        Passes(body) => {
            let got = bob.take_method(&mut lab, "MESSAGE");
            assert_eq!(String::from_utf8_lossy(&got.body), body);
            // What is beyond the body is on a stream the beginning of the next message.
            assert!(!is_closed);
            bob.send(&mut lab, &got.response(200, "b", &[]));
            sender.take_status(&mut lab, 200);
        }
        Refused(phrase) => {
            assert_eq!(sender.take_one(&mut lab).start, format!("SIP/2.0 400 {phrase}"));
            assert!(!is_closed);
        }
        Closed(status, phrase) => {
            assert_eq!(sender.take_one(&mut lab).start, format!("SIP/2.0 {status} {phrase}"));
            assert!(is_closed);
        }
        Waits => {
            sender.heard_nothing(&mut lab);
            assert!(!is_closed);
            sender.send(&mut lab, "!");
            let got = bob.take_method(&mut lab, "MESSAGE");
            assert_eq!(got.body, b"hello!");
            bob.send(&mut lab, &got.response(200, "b", &[]));
            sender.take_status(&mut lab, 200);
        }
    }
    bob.heard_nothing(&mut lab);
    lab.finish();
}

#[test]
fn every_content_length_on_every_transport() {
    for (lines, datagram, stream, web) in TABLE {
        for transport in Transport::ALL {
            eprintln!("{transport:?} {lines:?}");
            let fate = match transport {
                Transport::Udp => datagram,
                Transport::Tcp | Transport::Tls => stream,
                Transport::Ws | Transport::Wss => web,
            };
            play(transport, lines, *fate);
        }
    }
}

/// A broken response has nobody to be told: it is dropped and counted, and its whole repeat counts
/// (RFC 3261 §18.3).
#[test]
fn responses_with_a_wrong_length_are_dropped() {
    for lines in ["Content-Length: 1", "Content-Length: -1", "Content-Length: 0\r\nl: 0"] {
        let mut lab = Lab::new(2, lab::config());
        let alice = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        let core = Phone::connect(&mut lab, 1, Transport::Udp, CORE);
        alice.send(&mut lab, &request(&alice, "MESSAGE", "sip:9@example.com", "m").text());
        let answer = core.take_method(&mut lab, "MESSAGE").response(200, "c", &[]);
        core.send(&mut lab, &answer.replacen("Content-Length: 0", lines, 1));
        alice.heard_nothing(&mut lab);
        assert_eq!(lab.count(|it| it.dropped_malformed), 1, "{lines}");
        core.send(&mut lab, &answer);
        alice.take_status(&mut lab, 200);
        lab.finish();
    }
}
