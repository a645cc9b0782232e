//! Messages that peers bent at random, on every kind of flow and on several shards: nothing
//! panics, no flow but the sender's is closed, and in the end nothing is left. Seeded, so that a
//! failure comes again.

mod lab;

use std::collections::VecDeque;
use std::time::Duration;

use lab::phone::{Phone, frames, masked_frame};
use lab::text::Sip;
use lab::{CORE, Lab};
use sipring::base::id::{DatagramPath, Transport};
use sipring::base::rng::Rng;

/// What gets into the middle of messages.
const SPICE: [&str; 34] = [
    "\r\n",
    "\r\n ",
    ",",
    ";",
    "<",
    ">",
    "\"",
    "\\",
    "\0",
    "\x7f",
    ":",
    "@",
    " ",
    "=",
    "?",
    "%00",
    "%",
    "[::1]",
    "65536",
    "4294967296",
    "-1",
    ";rport",
    ";received=1.2.3.4",
    ";maddr=10.0.0.1",
    ";branch=z9hG4bK",
    ";tag=",
    ";lr",
    ";ob",
    "sips:",
    "Route: <sip:192.0.2.1:5060;lr>\r\n",
    "Max-Forwards: 0\r\n",
    "Max-Breadth: 0\r\n",
    "ft.AAAA",
    "é",
];

fn bend(rng: &mut Rng, message: &str, seen: &[String]) -> String {
    let mut bytes = message.as_bytes().to_vec();
    for _ in 0..rng.below(4) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(6) {
            0 => {
                bytes.truncate(at);
            }
            1 => {
                let end = (at + rng.below(40) as usize).min(bytes.len());
                bytes.drain(at..end);
            }
            2 => {
                let spice = SPICE[rng.below(SPICE.len() as u64) as usize];
                bytes.splice(at..at, spice.bytes());
            }
            3 => {
                let end = (at + rng.below(60) as usize).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            4 if !seen.is_empty() => {
                // A piece of what the proxy wrote itself: branches, tokens, tags.
                let other = seen[rng.below(seen.len() as u64) as usize].as_bytes();
                let from = rng.below(other.len() as u64) as usize;
                let end = (from + rng.below(200) as usize).min(other.len());
                let piece = other[from..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ if at < bytes.len() => bytes[at] = rng.below(256) as u8,
            _ => {}
        }
    }
    // The lab speaks text; one byte more or less is what this is about anyway.
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A request of some kind to somebody.
fn request(rng: &mut Rng, from: &Phone, name: usize, routes: &[String]) -> String {
    const METHODS: [&str; 8] =
        ["INVITE", "INVITE", "MESSAGE", "OPTIONS", "REGISTER", "BYE", "ACK", "CANCEL"];
    const URIS: [&str; 8] = [
        "sip:u0@example.com",
        "sip:u1@example.com",
        "sip:u2@example.com",
        "sips:u1@example.com",
        "sip:900@example.com",
        "sip:example.com",
        "sip:x1@df7jal23ls0d.invalid;transport=ws",
        "tel:+49900",
    ];
    let method = METHODS[rng.below(8) as usize];
    let uri = URIS[rng.below(8) as usize];
    let user = rng.below(3);
    let tag = if rng.below(3) == 0 { ";tag=b" } else { "" };
    let route = match rng.below(3) {
        0 if !routes.is_empty() => {
            format!("Route: {}\r\n", routes[rng.below(routes.len() as u64) as usize])
        }
        _ => String::new(),
    };
    let path = if rng.below(8) == 0 { "Path: <sip:198.51.100.7;lr>\r\n" } else { "" };
    format!(
        "{method} {uri} SIP/2.0\r\n{}\r\nMax-Forwards: 70\r\n{route}From: <sip:u{user}@example.com>;tag=a\r\n\
To: <sip:u{user}@example.com>{tag}\r\nCall-ID: c{}\r\nCSeq: {} {method}\r\nContact: \
<sip:x{user}@df7jal23ls0d.invalid;transport=ws>\r\n\
Supported: path, outbound\r\nExpires: {}\r\n{path}Content-Length: 0\r\n\r\n",
        from.via(&format!("m{}", name - rng.below(4.min(name as u64 + 1)) as usize)),
        name / 4,
        1 + rng.below(9),
        [0, 60, 600][rng.below(3) as usize],
    )
}

fn phone(lab: &mut Lab, rng: &mut Rng, shards: u16, number: usize) -> Phone {
    let transport = Transport::ALL[rng.below(5) as usize];
    let shard = rng.below(u64::from(shards)) as u16;
    let remote = format!("203.0.113.{}:{}", 1 + number % 5, 40_000 + number);
    let remote = if number.is_multiple_of(7) { CORE.to_string() } else { remote };
    Phone::connect(lab, shard, transport, &remote)
}

/// What came for a phone, read without demands: what was bent comes out bent.
fn taken(lab: &mut Lab, phone: &Phone) -> Vec<Sip> {
    let Some(flow) = phone.flow else {
        let remote = phone.remote;
        let (mine, others) = lab.datagrams.drain(..).partition(|(path, _)| path.remote == remote);
        lab.datagrams = others;
        let mine: VecDeque<(DatagramPath, Vec<u8>)> = mine;
        return mine.iter().filter_map(|(_, bytes)| read(bytes)).collect();
    };
    let bytes = std::mem::take(&mut lab.wires.get_mut(&flow).expect("its wire").bytes);
    if !phone.transport.is_websocket() {
        return bytes.split_inclusive_at(b"\r\n\r\n").iter().filter_map(|it| read(it)).collect();
    }
    let mut messages = Vec::new();
    for (opcode, payload) in frames(&bytes) {
        match opcode {
            0x1 | 0x2 => messages.extend(read(&payload)),
            0x9 => lab.data(flow, &masked_frame(0xa, &payload)),
            _ => {}
        }
    }
    messages
}

trait SplitInclusiveAt {
    fn split_inclusive_at(&self, end: &[u8]) -> Vec<&[u8]>;
}

impl SplitInclusiveAt for [u8] {
    fn split_inclusive_at(&self, end: &[u8]) -> Vec<&[u8]> {
        let (mut parts, mut rest) = (Vec::new(), self);
        while let Some(at) = rest.windows(end.len()).position(|it| it == end) {
            let (part, after) = rest.split_at(at + end.len());
            parts.push(part);
            rest = after;
        }
        parts
    }
}

fn read(bytes: &[u8]) -> Option<Sip> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let start = lines.next().filter(|it| it.contains("SIP/2.0"))?.to_string();
    let header = |line: &str| {
        line.split_once(':')
            .map(|(name, value)| (name.trim().to_string(), value.trim().to_string()))
    };
    let headers = lines.filter_map(header).collect();
    Some(Sip { start, headers, body: body.into() })
}

fn run(seed: u8, rounds: usize) {
    let mut rng = Rng::new([seed; 32]);
    let shards = 1 + u16::from(seed % 3);
    let mut config = lab::config();
    config.upstreams[0].address_lookup = seed.is_multiple_of(2);
    let mut lab = Lab::new(shards, config);
    let mut phones: Vec<Phone> = Vec::new();
    let (mut seen, mut routes) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let is_open = |lab: &Lab, phone: &Phone| {
            phone.flow.is_none_or(|flow| lab.wires.get(&flow).is_some_and(|it| it.closed.is_none()))
        };
        phones.retain(|phone| is_open(&lab, phone));
        while phones.len() < 6 {
            let number = round * 8 + phones.len();
            let fresh = phone(&mut lab, &mut rng, shards, number);
            let user = rng.below(3);
            let via = fresh.via(&format!("r{number}"));
            let contact = format!("sip:x{user}@h{number}.invalid");
            fresh.send(
                &mut lab,
                &format!(
                    "REGISTER sip:example.com SIP/2.0\r\n{via}\r\nTo: <sip:u{user}@example.com>\r\n\
From: <sip:u{user}@example.com>;tag=r\r\nCall-ID: r{number}\r\nCSeq: 1 REGISTER\r\nContact: <{contact}>\r\n\
Expires: 600\r\nContent-Length: 0\r\n\r\n"
                ),
            );
            phones.push(fresh);
        }
        let sender = phones[rng.below(phones.len() as u64) as usize];
        let whole = request(&mut rng, &sender, round, &routes);
        let bent = if rng.below(2) == 0 { bend(&mut rng, &whole, &seen) } else { whole };
        sender.send(&mut lab, &bent);
        for phone in phones.clone() {
            for message in taken(&mut lab, &phone) {
                seen.push(format!("{message:?}").replace("\\r\\n", "\r\n"));
                if message.find("Record-Route").is_some() {
                    routes.extend(message.record_route());
                }
                if message.status() != 0 || message.method() == "ACK" || rng.below(4) == 0 {
                    continue;
                }
                let status = [100, 180, 200, 200, 302, 404, 486, 503, 603][rng.below(9) as usize];
                let answer = message.response(status, "b", &["Contact: <sip:y@yy.invalid>"]);
                let is_bent = rng.below(3) == 0;
                let answer = if is_bent { bend(&mut rng, &answer, &seen) } else { answer };
                if is_open(&lab, &phone) {
                    phone.send(&mut lab, &answer);
                }
            }
        }
        seen.truncate(64);
        routes.truncate(64);
        lab.datagrams.clear();
        lab.opens.clear();
        match rng.below(20) {
            0 => lab.pass(Duration::from_millis(rng.below(40_000))),
            1 => {
                let gone = phones.swap_remove(rng.below(phones.len() as u64) as usize);
                if let Some(flow) = gone.flow.filter(|_| is_open(&lab, &gone)) {
                    lab.close(flow, sipring::base::event::CloseReason::Reset);
                }
            }
            _ => {}
        }
    }
    for phone in phones {
        if let Some(flow) = phone.flow.filter(|flow| lab.wires[flow].closed.is_none()) {
            lab.close(flow, sipring::base::event::CloseReason::Reset);
        }
    }
    // The longest that a binding may last.
    lab.pass(Duration::from_secs(7300));
    for engine in &lab.engines {
        let gauges = engine.gauges();
        let left = (gauges.server_transactions, gauges.client_transactions, gauges.bindings);
        assert_eq!(left, (0, 0, 0), "seed {seed}");
        assert_eq!(gauges.flows, [0; 5], "seed {seed}");
    }
}

#[test]
fn bent_messages_break_nothing_and_leave_nothing() {
    let seeds = std::env::var("MUTATION_SEEDS").ok().and_then(|it| it.parse().ok()).unwrap_or(20);
    for seed in 0..seeds {
        run(seed, 600);
    }
}
