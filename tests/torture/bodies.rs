//! Bodies are bytes: every value, what looks like a message, and sizes up to the limits, untouched
//! between any two transports (RFC 3261 §7.4, §18.3; RFC 7118 §4.2).

use sipring::base::id::Transport;
use sipring::base::limits::{DATAGRAM_BYTES_MAX, Limits};

use crate::lab::phone::{Phone, frames};
use crate::lab::text::Sip;
use crate::lab::{self, Lab};

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;

/// A request with that body, Content-Length included.
fn message(sender: &Phone, name: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "MESSAGE sip:bob@example.com SIP/2.0\r\n{}\r\nMax-Forwards: 70\r\nFrom: <sip:a@example.org>\
;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: {name}\r\nCSeq: 1 MESSAGE\r\nDate: whenever\r\n\
Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
        sender.via(name),
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The SIP messages that came for a phone, with the opcode of their frame.
fn taken(lab: &mut Lab, phone: &Phone) -> Vec<(u8, Sip)> {
    let Some(flow) = phone.flow.filter(|_| phone.transport.is_websocket()) else {
        return phone.take(lab).into_iter().map(|message| (0, message)).collect();
    };
    let bytes = std::mem::take(&mut lab.wire(flow).bytes);
    let read = |(opcode, payload): (u8, Vec<u8>)| (opcode, Sip::read(&payload));
    frames(&bytes).into_iter().map(read).collect()
}

#[track_caller]
fn one(lab: &mut Lab, phone: &Phone) -> (u8, Sip) {
    let mut messages = taken(lab, phone);
    assert_eq!(messages.len(), 1, "{phone:?}");
    messages.remove(0)
}

fn bodies() -> Vec<Vec<u8>> {
    let every: Vec<u8> = (0..=255).collect();
    vec![
        b"".to_vec(),
        every.clone(),
        every.iter().rev().copied().collect(),
        b"\0".to_vec(),
        b"\0\0\0\0".repeat(300),
        b"\r\n\r\n".to_vec(),
        b"\r\n\r\nMESSAGE sip:x@example.com SIP/2.0\r\nContent-Length: 0\r\n\r\n".to_vec(),
        b"SIP/2.0 200 OK\r\n\r\n".to_vec(),
        b"\xff\xfe\xfd".to_vec(),
        b"\xc3\x28 \xe2\x82 \xf0\x9f\x98".to_vec(),
        b"\xed\xa0\x80".to_vec(),
        "Grüße, 大停電".as_bytes().to_vec(),
        b"\x81\x05hello\x88\x00".to_vec(),
    ]
}

#[test]
fn every_body_between_any_two_transports_and_back() {
    for from in Transport::ALL {
        for to in Transport::ALL {
            let mut lab = Lab::new(2, lab::config());
            let bob = Phone::connect(&mut lab, 1, to, "203.0.113.9:40009");
            bob.register(&mut lab, "bob", "<sip:b@bb.invalid>");
            let sender = Phone::connect(&mut lab, 0, from, "203.0.113.5:40001");
            for (number, body) in bodies().iter().enumerate() {
                let text = std::str::from_utf8(body).is_ok();
                let request = message(&sender, &format!("m{number}"), body);
                sender.send_bytes(&mut lab, &request);
                let (opcode, got) = one(&mut lab, &bob);
                assert_eq!(&got.body, body, "{from:?} to {to:?}");
                assert_eq!(got.header("Content-Length"), body.len().to_string());
                assert_eq!(got.header("Date"), "whenever");
                // Bob speaks text: what can be text is.
                let expected = if text { TEXT } else { BINARY };
                assert!(!to.is_websocket() || opcode == expected, "{opcode} {body:?}");
                let head = got.response(200, "b", &[]);
                let head = head.replace(
                    "Content-Length: 0\r\n\r\n",
                    &format!("Content-Length: {}\r\n\r\n", body.len()),
                );
                let answer = [head.as_bytes(), body].concat();
                match text {
                    true => bob.send(&mut lab, std::str::from_utf8(&answer).expect("text")),
                    false => bob.send_bytes(&mut lab, &answer),
                }
                let (opcode, got) = one(&mut lab, &sender);
                assert_eq!((got.status(), &got.body), (200, body), "{from:?} to {to:?}");
                // The sender spoke binary.
                assert!(!from.is_websocket() || opcode == BINARY);
                // Bob speaks text again.
                bob.send(
                    &mut lab,
                    &lab::draft::request(&bob, "OPTIONS", "sip:example.com", &format!("o{number}"))
                        .text(),
                );
                assert_eq!(one(&mut lab, &bob).1.status(), 200);
            }
            lab.finish();
        }
    }
}

/// What a transport carries at most: a datagram its 65,507 bytes, all else `message_bytes_max`.
#[test]
fn large_bodies_pass_up_to_what_the_transports_carry() {
    for from in Transport::ALL {
        for to in Transport::ALL {
            let mut lab = Lab::new(2, lab::config());
            let bob = Phone::connect(&mut lab, 1, to, "203.0.113.9:40009");
            bob.register(&mut lab, "bob", "<sip:b@bb.invalid>");
            let sender = Phone::connect(&mut lab, 0, from, "203.0.113.5:40001");
            for (number, size) in [16_384, 60_000, 64 * 1024, 100_000].into_iter().enumerate() {
                let body = vec![b'x'; size];
                let request = message(&sender, &format!("m{number}"), &body);
                if from == Transport::Udp && request.len() > DATAGRAM_BYTES_MAX {
                    continue;
                }
                for part in request.chunks(if from == Transport::Udp { usize::MAX } else { 1400 }) {
                    match sender.flow.filter(|_| from.is_websocket()) {
                        Some(_) => break,
                        None => sender.send_bytes(&mut lab, part),
                    }
                }
                if from.is_websocket() {
                    sender.send_bytes(&mut lab, &request);
                }
                if to == Transport::Udp && size >= 64 * 1024 {
                    let (_, refused) = one(&mut lab, &sender);
                    assert_eq!(refused.status(), 513, "no datagram carries it");
                    assert!(refused.header("Warning").contains("datagram"), "{refused:#?}");
                    bob.heard_nothing(&mut lab);
                    continue;
                }
                let (_, got) = one(&mut lab, &bob);
                assert!(got.body == body, "{from:?} to {to:?}, {size}");
                bob.send(&mut lab, &got.response(200, "b", &[]));
                assert_eq!(one(&mut lab, &sender).1.status(), 200);
            }
            lab.finish();
        }
    }
}

/// A response that no datagram carries is dropped and counted; the transaction ends all the same.
#[test]
fn a_response_larger_than_a_datagram_is_dropped_and_counted() {
    let mut lab = Lab::new(1, lab::config());
    let bob = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.9:40009");
    bob.register(&mut lab, "bob", "<sip:b@bb.invalid>");
    let sender = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.5:40001");
    sender.send_bytes(&mut lab, &message(&sender, "m", b"hi"));
    let (_, got) = one(&mut lab, &bob);
    let answer = got.response(200, "b", &[]).replace(
        "Content-Length: 0\r\n\r\n",
        &format!("Content-Length: 70000\r\n\r\n{}", "x".repeat(70_000)),
    );
    bob.send(&mut lab, &answer);
    sender.heard_nothing(&mut lab);
    assert_eq!(lab.count(|it| it.dropped_too_large), 1);
    lab.finish();
}

/// One byte beyond the bound: 513 and the end on a stream (RFC 3261 §21.5.7), 1009 on WebSocket
/// (RFC 6455 §7.4.1); up to it everything passes.
#[test]
fn the_bounds_of_a_message_are_exact() {
    let limits = Limits::default();
    for transport in [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss] {
        for beyond in [0, 1] {
            let mut lab = Lab::new(1, lab::config());
            let bob = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.9:40009");
            bob.register(&mut lab, "bob", "<sip:b@bb.invalid>");
            let sender = Phone::connect(&mut lab, 0, transport, "203.0.113.5:40001");
            let head = message(&sender, "m", &[0; 100_000]).len() - 100_000;
            // The Content-Length has six digits either way.
            let body = vec![b'x'; limits.message_bytes_max - head + beyond];
            let request = message(&sender, "m", &body);
            assert_eq!(request.len(), limits.message_bytes_max + beyond);
            sender.send_bytes(&mut lab, &request);
            let flow = sender.flow.expect("a stream");
            if beyond == 0 {
                let (_, got) = one(&mut lab, &bob);
                assert!(got.body == body && lab.closed(flow).is_none());
                continue;
            }
            bob.heard_nothing(&mut lab);
            assert!(lab.closed(flow).is_some());
            if transport.is_websocket() {
                let close = frames(&lab.wire(flow).bytes).remove(0);
                assert_eq!((close.0, &close.1[..2]), (0x8, &1009u16.to_be_bytes()[..]));
            } else {
                assert_eq!(sender.take_one(&mut lab).status(), 513);
            }
            lab.finish();
        }
    }
}
