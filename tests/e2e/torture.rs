//! The messages of RFC 4475 and RFC 5118 over real sockets, by the table that the parser and the
//! engine are run by, too: the same answer, and a program that serves the next one.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::support::phone::{From, PATIENCE};
use super::support::{Incoming, Message, Phone, Server, Setup, Transport, still};

#[path = "../torture/table.rs"]
mod table;

use table::{DOMAINS, Outcome, SAMPLES, Sample, users};

/// An address of its own for senders, at which the ports of SIP are free.
fn sender_address(transport: Transport) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 + transport as u8, high, low.clamp(1, 254))
}

/// One server with one sender and one callee. Messages of one transaction never meet here.
struct Scene {
    transport: Transport,
    callee: Phone,
    control: Phone,
    /// For datagrams: a socket for each port that a Via names.
    ports: BTreeMap<u16, Phone>,
    drops: HashMap<&'static str, u64>,
    /// Last, so that it ends after its clients.
    server: Server,
}

impl Scene {
    fn new(transport: Transport, samples: &[&Sample]) -> Scene {
        let mut setup = Setup::new().limit("message_timeout", "\"500ms\"");
        for domain in &DOMAINS[1..] {
            setup = setup.domain(domain);
        }
        let server = setup.start();
        let mut callee = Phone::connect(Transport::Wss, &server, "callee");
        for (number, user) in users().into_iter().enumerate() {
            let contact = format!("<sip:c{number}@{};transport=ws>", callee.sent_by);
            let draft = callee.register_draft(&contact).set("To", format!("<sip:{user}>"));
            let draft = draft.set("From", format!("<sip:{user}>;tag=r"));
            assert_eq!(callee.ask(&draft).status(), 200, "{user}");
        }
        let mut ports: BTreeMap<u16, Phone> = BTreeMap::new();
        if transport == Transport::Udp {
            for port in samples.iter().map(|sample| sample.reply_port).chain([5060]) {
                let connect = || connect(transport, &server, port);
                ports.entry(port).or_insert_with(connect);
            }
        }
        let control = Phone::connect(Transport::Tcp, &server, "control");
        Scene { transport, callee, control, ports, drops: HashMap::new(), server }
    }

    /// Sends it, wants what the table says, and that the server goes on.
    fn run(&mut self, sample: &Sample, outcome: Outcome) {
        eprintln!("{} of {}, {:?}", sample.name, sample.section, self.transport);
        let mut fresh = None;
        if self.transport == Transport::Udp {
            self.ports.get_mut(&5060).expect("bound").send(&sample.bytes());
        } else {
            let phone = fresh.insert(connect(self.transport, &self.server, 0));
            phone.send(&sample.bytes());
        }
        let mut sender = match fresh {
            Some(phone) => phone,
            None => self.ports.remove(&sample.reply_port).expect("bound"),
        };
        self.expect(&mut sender, outcome);
        still(&mut [&mut self.control]);
        if self.transport == Transport::Udp {
            self.ports.insert(sample.reply_port, sender);
        }
    }

    fn expect(&mut self, sender: &mut Phone, outcome: Outcome) {
        match outcome {
            Outcome::Forwarded(_) => self.forwarded(sender),
            Outcome::ForwardedThenClosed(_) => {
                closed(sender);
                let heard = self.callee.next();
                self.callee.answer(&heard, 200);
                self.dropped("not_sip");
            }
            Outcome::Answered(status) => answered(sender, status, None),
            Outcome::AnsweredBothThenClosed(first, second) => {
                answered(sender, first, None);
                answered(sender, second, None);
                closed(sender);
                self.dropped("not_sip");
            }
            Outcome::Refused(phrase) => answered(sender, 400, Some(phrase)),
            Outcome::RefusedAndClosed(phrase) => {
                answered(sender, 400, Some(phrase));
                closed(sender);
            }
            Outcome::Dropped(name) => self.dropped(name),
            Outcome::Unfinished => closed(sender),
        }
    }

    fn forwarded(&mut self, sender: &mut Phone) {
        let heard = self.callee.next();
        assert!(heard.uri().contains(&self.callee.sent_by), "{heard:?}");
        self.callee.answer(&heard, 200);
        assert_eq!(sender.final_response().status(), 200);
    }

    fn dropped(&mut self, name: &'static str) {
        let count = self.drops.entry(name).or_default();
        *count += 1;
        let metric = format!("sipring_dropped_{name}_total");
        assert_eq!(self.server.wait_metric(&metric, *count, PATIENCE), *count, "{metric}");
    }
}

fn connect(transport: Transport, server: &Server, port: u16) -> Phone {
    let local = SocketAddr::new(IpAddr::V4(sender_address(transport)), port);
    let from = From { local, ..From::host("127.0.0.1") };
    Phone::connect_from(transport, server, "sender", from)
}

#[track_caller]
fn answered(sender: &mut Phone, status: u16, phrase: Option<&str>) {
    let answer: Message = sender.final_response();
    assert_eq!(answer.status(), status, "{answer:?}");
    if let Some(phrase) = phrase {
        assert_eq!(answer.start, format!("SIP/2.0 400 {phrase}"));
    }
}

#[track_caller]
fn closed(sender: &mut Phone) {
    loop {
        match sender.incoming(PATIENCE) {
            Some(Incoming::Message(message)) if message.status() == 100 => {}
            Some(Incoming::Closed) => return,
            other => panic!("{sender:?} hears {other:?}"),
        }
    }
}

/// The samples in rounds, so that no two of a round are one transaction, with those last that add
/// bindings.
fn rounds() -> Vec<Vec<&'static Sample>> {
    let mut rounds: Vec<Vec<&Sample>> = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    for sample in SAMPLES {
        let round = seen.entry(sample.key()).or_default();
        if rounds.len() == *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(sample);
        *round += 1;
    }
    for round in &mut rounds {
        round.sort_by_key(|sample| sample.is("REGISTER"));
    }
    rounds
}

fn run(transport: Transport, outcome: impl Fn(&Sample) -> Outcome) {
    for round in rounds() {
        let mut scene = Scene::new(transport, &round);
        for sample in round {
            scene.run(sample, outcome(sample));
        }
        assert_eq!(scene.server.metric("sipring_shard_restarts_total"), 0);
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
fn every_message_over_websocket() {
    run(Transport::Ws, |sample| sample.web);
}
