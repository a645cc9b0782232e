//! Streams cut anywhere: what arrives in two reads, or byte by byte, or together with others, is
//! what arrived.

use std::sync::LazyLock;

use sipring::base::config::Config;
use sipring::base::id::Transport;

use crate::lab::phone::{Phone, masked_frame};
use crate::lab::{self, CORE, Lab};
use crate::table::{Outcome, SAMPLES};

const STREAMS: [Transport; 4] = [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];

/// Messages that end by themselves on a stream and as a WebSocket message with the same outcome, one
/// of each outcome, and one with a body of all byte values.
fn corpus() -> Vec<Vec<u8>> {
    let (mut corpus, mut outcomes): (Vec<Vec<u8>>, Vec<Outcome>) = Default::default();
    for sample in SAMPLES.iter().filter(|sample| sample.stream == sample.web) {
        let bytes = sample.bytes();
        if bytes.len() < 600 && !outcomes.contains(&sample.stream) {
            corpus.push(bytes);
            outcomes.push(sample.stream);
        }
    }
    let every: Vec<u8> = (0..=255).collect();
    let head = "MESSAGE sip:user@example.com SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKb\r\n\
From: <sip:a@b>;tag=1\r\nTo: <sip:user@example.com>\r\nCall-ID: b\r\nCSeq: 1 MESSAGE\r\n\
Content-Length: 256\r\n\r\n";
    corpus.push([head.as_bytes(), &every].concat());
    corpus
}

/// What the proxy writes anywhere when these pieces come one after the other, and whether it
/// closes.
fn effect(transport: Transport, pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>, Vec<Vec<u8>>, bool) {
    static CONFIG: LazyLock<Config> = LazyLock::new(lab::config);
    let mut lab = Lab::new(1, CONFIG.clone());
    let bob = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.9:40009");
    bob.register(&mut lab, "user", "<sip:b@bb.invalid;transport=ws>");
    let sender = Phone::connect(&mut lab, 0, transport, "203.0.113.5:5060");
    let flow = sender.flow.expect("a stream");
    for piece in pieces {
        if lab.closed(flow).is_none() {
            lab.data(flow, piece);
        }
    }
    let own = std::mem::take(&mut lab.wire(flow).bytes);
    let theirs = std::mem::take(&mut lab.wire(bob.flow.expect("a stream")).bytes);
    let datagrams = lab.datagrams.drain(..).map(|(_, bytes)| bytes).collect();
    (own, theirs, datagrams, lab.closed(flow).is_some())
}

/// The bytes of these messages on the wire of that transport.
fn wire(transport: Transport, message: &[u8]) -> Vec<u8> {
    match transport.is_websocket() {
        true => masked_frame(if std::str::from_utf8(message).is_ok() { 1 } else { 2 }, message),
        false => message.to_vec(),
    }
}

fn cut_everywhere(transport: Transport) {
    let (mut heard, mut forwarded) = (0, 0);
    for message in corpus() {
        let bytes = wire(transport, &message);
        let whole = effect(transport, &[&bytes]);
        heard += usize::from(!whole.0.is_empty());
        forwarded += usize::from(!whole.1.is_empty());
        for cut in 1..bytes.len() {
            let (before, after) = bytes.split_at(cut);
            let text = String::from_utf8_lossy(&message);
            assert!(effect(transport, &[before, after]) == whole, "cut at {cut}: {text}");
        }
    }
    assert!(heard > 12 && forwarded >= 2, "{heard} {forwarded}");
}

#[test]
fn a_cut_of_a_stream_at_any_offset_changes_nothing() {
    cut_everywhere(Transport::Tcp);
}

#[test]
fn a_cut_of_frames_at_any_offset_changes_nothing() {
    cut_everywhere(Transport::Wss);
}

#[test]
fn byte_by_byte_is_the_same() {
    for transport in STREAMS {
        for message in corpus() {
            let bytes = wire(transport, &message);
            let bits: Vec<&[u8]> = bytes.chunks(1).collect();
            let text = String::from_utf8_lossy(&message);
            assert!(effect(transport, &bits) == effect(transport, &[&bytes]), "{text}");
        }
    }
}

/// Several messages and keep-alives in one read, and the same cut at every offset.
#[test]
fn many_messages_may_come_in_one_segment() {
    for transport in [Transport::Tcp, Transport::Wss] {
        let mut all = Vec::new();
        for number in 0..2 {
            let request = format!(
                "MESSAGE sip:user@example.com SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKm{number}\
\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:user@example.com>\r\nCall-ID: m{number}\r\n\
CSeq: 1 MESSAGE\r\nContent-Length: 4\r\n\r\n\r\n\r\n"
            );
            all.extend_from_slice(&wire(transport, request.as_bytes()));
            all.extend_from_slice(&wire(transport, b"\r\n\r\n"));
        }
        let whole = effect(transport, &[&all]);
        let text = String::from_utf8_lossy(&whole.1);
        assert_eq!(text.matches("MESSAGE sip:b@bb.invalid;transport=ws SIP/2.0").count(), 2);
        assert_eq!(text.matches("Content-Length: 4\r\n\r\n\r\n\r\n").count(), 2);
        let pong: &[u8] = if transport.is_websocket() { b"\x81\x02\r\n" } else { b"\r\n" };
        assert_eq!(whole.0, pong.repeat(2));
        for cut in 1..all.len() {
            let (before, after) = all.split_at(cut);
            assert!(effect(transport, &[before, after]) == whole, "{transport:?} cut at {cut}");
        }
    }
}

/// The same toward a server: what a trunk writes is read wherever it is cut.
#[test]
fn responses_of_a_server_may_be_cut_anywhere() {
    let run = |cut: usize| {
        let mut lab = Lab::new(1, lab::config_by(Transport::Tcp));
        let sender = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.5:5060");
        let request = lab::draft::request(&sender, "MESSAGE", "sip:900@example.com", "m");
        sender.send(&mut lab, &request.text());
        let trunk = lab.complete_open(0);
        let core = Phone {
            transport: Transport::Tcp,
            flow: Some(trunk),
            remote: CORE.parse().expect("an address"),
            shard: 0,
        };
        let answer = core.take_method(&mut lab, "MESSAGE").response(200, "core", &["X: y"]);
        let cut = cut.min(answer.len());
        lab.data(trunk, &answer.as_bytes()[..cut]);
        if cut < answer.len() {
            lab.data(trunk, &answer.as_bytes()[cut..]);
        }
        (sender.take_status(&mut lab, 200), answer.len())
    };
    let (whole, length) = run(usize::MAX);
    for cut in 1..length {
        assert_eq!(run(cut).0, whole, "cut at {cut}");
    }
}
