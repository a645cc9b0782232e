//! Every message of the table as a datagram, as bytes of a stream and as a WebSocket message.

use std::time::Duration;

use sipring::base::config::{Config, Route, RouteTo};
use sipring::base::id::Transport;

use crate::lab::phone::{Phone, frames, masked_frame};
use crate::lab::text::Sip;
use crate::lab::{self, Lab};
use crate::table::{DOMAINS, Outcome, SAMPLES, Sample, users};

/// Serves every domain of the table.
fn config() -> Config {
    lab::config_with(|config| {
        config.node.domains = DOMAINS.iter().map(|domain| domain.to_string()).collect();
        config.routes = DOMAINS
            .iter()
            .map(|domain| Route {
                user: None,
                domain: Some(domain.to_string()),
                methods: Vec::new(),
                to: RouteTo::Location,
            })
            .collect();
    })
}

struct Scene {
    lab: Lab,
    sender: Phone,
    callee: Phone,
}

impl Scene {
    fn new(transport: Transport) -> Scene {
        let mut lab = Lab::new(1, config());
        let callee = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.9:40009");
        let users = users();
        assert!(users.len() > 8);
        for (number, user) in users.into_iter().enumerate() {
            let register = format!(
                "REGISTER sip:example.com SIP/2.0\r\n{}\r\nTo: <sip:{user}>\r\n\
From: <sip:{user}>;tag=r\r\nCall-ID: callee{number}\r\nCSeq: 1 REGISTER\r\n\
Contact: <sip:c{number}@cc.invalid;transport=ws>\r\nContent-Length: 0\r\n\r\n",
                callee.via(&format!("callee{number}"))
            );
            callee.send(&mut lab, &register);
            callee.take_status(&mut lab, 200);
        }
        let sender = Phone::connect(&mut lab, 0, transport, "203.0.113.5:5060");
        Scene { lab, sender, callee }
    }

    fn is_closed(&self) -> bool {
        self.sender.flow.is_some_and(|flow| self.lab.closed(flow).is_some())
    }

    fn drops(&self, name: &str) -> u64 {
        self.lab.count(|it| match name {
            "malformed" => it.dropped_malformed,
            "stray_response" => it.dropped_stray_response,
            "not_sip" => it.dropped_not_sip,
            other => panic!("no counter {other}"),
        })
    }

    /// All final responses that came, over UDP to the port that the Via says.
    fn finals(&mut self, sample: &Sample) -> Vec<Sip> {
        let mut phone = self.sender;
        if phone.flow.is_none() {
            phone.remote.set_port(sample.reply_port);
        }
        let mut answers = phone.take(&mut self.lab);
        answers.retain(|answer| answer.status() >= 200);
        answers
    }

    /// What the callee was sent, its WebSocket frames taken off.
    fn forwarded(&mut self) -> Vec<Vec<u8>> {
        let wire = self.lab.wire(self.callee.flow.expect("a WebSocket"));
        let bytes = std::mem::take(&mut wire.bytes);
        frames(&bytes).into_iter().map(|(_, payload)| payload).collect()
    }
}

/// Header lines, folds included, that a proxy passes on untouched (RFC 3261 §16.6), as they stand.
fn kept(message: &[u8]) -> Vec<String> {
    const EDITED: [&str; 8] =
        ["via", "v", "max-forwards", "max-breadth", "route", "record-route", "content-length", "l"];
    let head = &message[..message.windows(4).position(|at| at == b"\r\n\r\n").expect("an end")];
    let text: String = head.iter().map(|&byte| char::from(byte)).collect();
    let text = text.replace("\r\n ", "\u{100}").replace("\r\n\t", "\u{101}");
    let is_kept = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().trim_end_matches([' ', '\u{100}']);
        !EDITED.contains(&name.to_ascii_lowercase().as_str())
    };
    text.split("\r\n").skip(1).filter(is_kept).map(String::from).collect()
}

/// 200 with all header lines of the request as they stand but those about a body.
fn ok_to(request: &[u8]) -> Vec<u8> {
    let mut answer = b"SIP/2.0 200 OK\r\n".to_vec();
    for line in request.split_inclusive(|&byte| byte == b'\n').skip(1) {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default().trim_ascii_end();
        match name.to_ascii_lowercase().as_slice() {
            b"" => break,
            b"content-length" | b"l" | b"content-type" | b"c" => {}
            _ => answer.extend_from_slice(line),
        }
    }
    answer.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    answer
}

/// What came is what was sent but for the edits of a proxy; it is answered, and the answer comes
/// back.
#[track_caller]
fn expect_forwarded(scene: &mut Scene, sample: &Sample) {
    let sent = sample.bytes();
    let mut got = scene.forwarded();
    assert_eq!(got.len(), 1, "one copy for the callee: {}", scene.finals(sample).len());
    let got = got.remove(0);
    assert_eq!(kept(&got), kept(&sent));
    let read = Sip::read(&got);
    assert!(read.uri().ends_with("@cc.invalid;transport=ws"), "{read:#?}");
    let hops = Sip::read(&sent).find("Max-Forwards").and_then(|hops| hops.parse::<u8>().ok());
    assert_eq!(read.header("Max-Forwards"), hops.map_or(70, |hops| hops - 1).to_string());
    assert_eq!(read.header("Max-Breadth"), "60");
    assert!(Sip::read(&sent).body.starts_with(&read.body), "the body is the sender's");
    let answer = ok_to(&got);
    if scene.is_closed() {
        return;
    }
    scene.callee.send_bytes(&mut scene.lab, &answer);
    let finals: Vec<u16> = scene.finals(sample).iter().map(Sip::status).collect();
    assert_eq!(finals, [200], "{}", String::from_utf8_lossy(&answer));
}

fn expect(scene: &mut Scene, sample: &Sample, outcome: Outcome) {
    let is_closed = scene.is_closed();
    match outcome {
        Outcome::Forwarded(_) => {
            expect_forwarded(scene, sample);
            assert!(!is_closed);
        }
        Outcome::ForwardedThenClosed(_) => {
            expect_forwarded(scene, sample);
            assert!(is_closed && scene.drops("not_sip") == 1);
        }
        Outcome::Answered(status) => {
            expect_answers(scene, sample, &[(status, None)]);
            assert!(!is_closed);
        }
        Outcome::AnsweredBothThenClosed(first, second) => {
            expect_answers(scene, sample, &[(first, None), (second, None)]);
            assert!(is_closed && scene.drops("not_sip") == 1);
        }
        Outcome::Refused(phrase) => {
            expect_answers(scene, sample, &[(400, Some(phrase))]);
            assert!(!is_closed);
        }
        Outcome::RefusedAndClosed(phrase) => {
            expect_answers(scene, sample, &[(400, Some(phrase))]);
            assert!(is_closed);
        }
        Outcome::Dropped(name) => {
            expect_answers(scene, sample, &[]);
            assert!(!is_closed && scene.drops(name) == 1, "dropped_{name}");
        }
        Outcome::Unfinished => {
            expect_answers(scene, sample, &[]);
            assert!(!is_closed);
            scene.lab.pass(config().limits.message_timeout + Duration::from_secs(1));
            assert!(scene.is_closed(), "nobody may hold half a message for ever");
        }
    }
}

fn expect_answers(scene: &mut Scene, sample: &Sample, expected: &[(u16, Option<&str>)]) {
    assert!(scene.forwarded().is_empty());
    let answers = scene.finals(sample);
    let statuses: Vec<u16> = answers.iter().map(Sip::status).collect();
    assert_eq!(statuses, expected.iter().map(|it| it.0).collect::<Vec<_>>(), "{answers:#?}");
    for (answer, (_, phrase)) in answers.iter().zip(expected) {
        if let Some(phrase) = phrase {
            assert_eq!(&answer.start[12..], *phrase);
        }
    }
}

fn run(transport: Transport, outcome: impl Fn(&Sample) -> Outcome) {
    for sample in SAMPLES {
        eprintln!("{} of {}, {transport:?}: {}", sample.name, sample.section, sample.why);
        let mut scene = Scene::new(transport);
        let (sender, bytes) = (scene.sender, sample.bytes());
        match sender.flow.filter(|_| transport.is_websocket()) {
            Some(flow) => {
                let opcode = if std::str::from_utf8(&bytes).is_ok() { 1 } else { 2 };
                scene.lab.data(flow, &masked_frame(opcode, &bytes));
            }
            None => sender.send_bytes(&mut scene.lab, &bytes),
        }
        expect(&mut scene, sample, outcome(sample));
        if !scene.is_closed() {
            // Whatever that was, the next request is served.
            let options = lab::draft::request(&sender, "OPTIONS", "sip:example.com", "next");
            sender.send(&mut scene.lab, &options.text());
            sender.take_status(&mut scene.lab, 200);
        }
        scene.lab.finish();
    }
}

#[test]
fn every_message_as_a_datagram() {
    run(Transport::Udp, |sample| sample.datagram);
}

#[test]
fn every_message_on_a_stream() {
    run(Transport::Tcp, |sample| sample.stream);
}

#[test]
fn every_message_on_an_encrypted_stream() {
    run(Transport::Tls, |sample| sample.stream);
}

#[test]
fn every_message_over_websocket() {
    run(Transport::Ws, |sample| sample.web);
    run(Transport::Wss, |sample| sample.web);
}

#[test]
fn a_list_of_bindings_tells_contact_parameters_from_uri_parameters() {
    let contacts = [
        ("cparam01", "<sip:+19725552222@gw1.example.net>;"),
        ("cparam02", "<sip:+19725552222@gw1.example.net;unknownparam>;"),
        ("regescrt", "<sip:user@example.com?Route=%3Csip:sip.example.com%3E>;"),
        ("escnull", "<sip:%00@host5.example.com>;"),
        ("escnull", "<sip:%00%00@host5.example.com>;"),
    ];
    for (name, contact) in contacts {
        let sample = SAMPLES.iter().find(|sample| sample.name == name).expect("in the table");
        let mut lab = Lab::new(1, config());
        let phone = Phone::connect(&mut lab, 0, Transport::Tcp, "203.0.113.5:5060");
        phone.send_bytes(&mut lab, &sample.bytes());
        let answer = phone.take_status(&mut lab, 200);
        let listed: Vec<&str> = answer.all("Contact").collect();
        assert!(listed.iter().any(|it| it.starts_with(contact)), "{name}: {listed:?}");
        assert!(!listed.iter().any(|it| it.ends_with("unknownparam")), "{name}: {listed:?}");
    }
}
