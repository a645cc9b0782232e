//! The promise as a table: every client transport × form of Contact × request × sender × placement
//! of flow, owner and arrival on one to three shards. Delivered once, on the flow that registered,
//! equal but for the declared edits; the answer returns to the sender with our Via taken off.
//!
//! Cells of one placement share their engines and the decoys; each has parties, names and flows of
//! its own, on slots that were used before.

mod lab;

use lab::phone::Phone;
use lab::text::Sip;
use lab::{CORE, Lab, Placement};
use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

/// The form of the Contact that a client registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    TransportWs,
    TransportWss,
    Sips,
    NoTransport,
    Invalid,
    RealAddress,
    Outbound,
}

const FORMS: [Form; 7] = [
    Form::TransportWs,
    Form::TransportWss,
    Form::Sips,
    Form::NoTransport,
    Form::Invalid,
    Form::RealAddress,
    Form::Outbound,
];

/// Who sends the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    UdpServer,
    TcpServer,
    TlsServer,
    WssClient,
}

const SENDERS: [From; 4] = [From::UdpServer, From::TcpServer, From::TlsServer, From::WssClient];
const METHODS: [&str; 4] = ["NOTIFY", "MESSAGE", "OPTIONS", "INVITE"];
const CLIENT: &str = "203.0.113.5:40001";

/// One cell of the table.
#[derive(Clone, Copy, Debug)]
struct Cell {
    client: Transport,
    form: Form,
    method: &'static str,
    from: From,
    at: Placement,
}

/// What must come of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Delivered,
    /// A `sips:` Contact on a flow without TLS: nothing may be sent there (RFC 5630 §5.3).
    SipsRequired,
}

fn verdict(cell: &Cell) -> Verdict {
    match cell.form {
        Form::Sips if !cell.client.is_secure() => Verdict::SipsRequired,
        _ => Verdict::Delivered,
    }
}

/// Every cell of the placements on `shards` shards with the flow on one of those.
fn play(shards: u16, flows: std::ops::Range<u16>) {
    let mut cells = 0;
    let here = |at: &Placement| at.shards == shards && flows.contains(&at.flow);
    for at in lab::placements().filter(here) {
        let mut scene = Scene::new(at);
        for client in Transport::ALL {
            for form in FORMS {
                for method in METHODS {
                    for from in SENDERS {
                        scene = Run::new(Cell { client, form, method, from, at }, scene).play();
                        cells += 1;
                    }
                }
            }
        }
        scene.lab.finish();
    }
    let placements = flows.len() * usize::from(shards * shards);
    assert_eq!(cells, placements * 5 * 7 * 4 * 4);
}

#[test]
fn every_cell_on_one_shard_keeps_the_promise() {
    play(1, 0..1);
}

#[test]
fn every_cell_on_two_shards_keeps_the_promise() {
    play(2, 0..2);
}

#[test]
fn every_cell_on_three_shards_with_the_flow_on_the_first_keeps_the_promise() {
    play(3, 0..1);
}

#[test]
fn every_cell_on_three_shards_with_the_flow_on_the_second_keeps_the_promise() {
    play(3, 1..2);
}

#[test]
fn every_cell_on_three_shards_with_the_flow_on_the_third_keeps_the_promise() {
    play(3, 2..3);
}

/// What the cells of one placement share.
struct Scene {
    lab: Lab,
    /// Registered clients of every transport that must never hear anything.
    decoys: Vec<Phone>,
    user: String,
}

impl Scene {
    fn new(at: Placement) -> Scene {
        let mut lab = Lab::new(at.shards, lab::config());
        let connect = |(n, transport): (usize, Transport)| {
            let remote = format!("203.0.113.77:{}", 41000 + n);
            let decoy = Phone::connect(&mut lab, n as u16 % at.shards, transport, &remote);
            decoy.register(&mut lab, &format!("decoy{n}"), &format!("<sip:d@{remote}>"));
            decoy
        };
        let decoys = Transport::ALL.into_iter().enumerate().map(connect).collect();
        Scene { lab, decoys, user: lab::user_of(at.owner, at.shards, 0) }
    }
}

struct Run {
    cell: Cell,
    lab: Lab,
    client: Phone,
    sender: Phone,
    decoys: Vec<Phone>,
    user: String,
    /// What its branches and Call-ID begin with.
    name: String,
}

impl Run {
    fn new(cell: Cell, scene: Scene) -> Run {
        let Scene { mut lab, decoys, user } = scene;
        let client = Phone::connect(&mut lab, cell.at.flow, cell.client, CLIENT);
        let (transport, remote) = match cell.from {
            From::UdpServer => (Transport::Udp, CORE),
            From::TcpServer => (Transport::Tcp, "198.51.100.8:33001"),
            From::TlsServer => (Transport::Tls, "198.51.100.9:33002"),
            From::WssClient => (Transport::Wss, "203.0.113.99:33003"),
        };
        let sender = Phone::connect(&mut lab, cell.at.arrival, transport, remote);
        let name = format!("m{}x", lab.serial());
        Run { cell, lab, client, sender, decoys, user, name }
    }

    /// The parties leave; the binding of a datagram client does not go with a flow.
    fn clear(mut self) -> Scene {
        let user = self.user.clone();
        let contact = format!("{};expires=0", self.contact());
        self.client.register(&mut self.lab, &user, &contact);
        for party in [self.client, self.sender] {
            if party.flow.is_some() {
                party.leave(&mut self.lab, CloseReason::Peer);
            }
        }
        Scene { lab: self.lab, decoys: self.decoys, user }
    }

    fn contact_uri(&self) -> String {
        match self.cell.form {
            Form::TransportWs => "sip:u7@10.0.0.9:5070;transport=ws".into(),
            Form::TransportWss => "sip:u7@10.0.0.9:5070;transport=wss".into(),
            Form::Sips => "sips:u7@10.0.0.9:5070;transport=ws".into(),
            Form::NoTransport => "sip:u7@10.0.0.9".into(),
            Form::Invalid => "sip:u7@df7jal23ls0d.invalid;transport=ws".into(),
            Form::RealAddress => {
                format!("sip:u7@{CLIENT};transport={}", self.cell.client.uri_name())
            }
            Form::Outbound => "sip:u7@df7jal23ls0d.invalid;transport=ws;ob".into(),
        }
    }

    fn contact(&self) -> String {
        let params = match self.cell.form {
            Form::Outbound => {
                ";reg-id=1;+sip.instance=\"<urn:uuid:8f3c2a10-1111-4222-8333-444455556666>\""
            }
            _ => "",
        };
        format!("<{}>{params}", self.contact_uri())
    }

    fn play(mut self) -> Scene {
        let contact = self.contact();
        let user = self.user.clone();
        self.client.register(&mut self.lab, &user, &contact);
        let request = self.request();
        self.sender.send(&mut self.lab, &request);
        match verdict(&self.cell) {
            Verdict::Delivered if self.cell.method == "INVITE" => self.call(&request),
            Verdict::Delivered => self.transaction(&request),
            Verdict::SipsRequired => {
                let answers = self.sender.take(&mut self.lab);
                let last = answers.last().expect("an answer");
                assert_eq!(last.status(), 480, "{:?}", self.cell);
                assert!(last.header("Warning").starts_with("381 "), "{:?}", self.cell);
            }
        }
        self.nobody_else_heard();
        self.clear()
    }

    fn request(&self) -> String {
        let Cell { method, .. } = self.cell;
        let (name, via) = (&self.name, self.sender.via(&format!("{}1", self.name)));
        let contact = format!("<sip:s@{};transport=tcp>", self.sender.remote);
        format!(
            "{method} sip:{}@example.com SIP/2.0\r\n{via}\r\nmax-forwards: 70\r\n\
f: \"Core, \\\"A\\\"\" <sip:core@example.com>;tag=c\r\nTo: <sip:{}@example.com>\r\nCall-ID: {name}@core\r\n\
CSeq: 7 {method}\r\nContact: {contact}\r\nX-Odd!Name:  a ,b\r\nEvent: x\r\nContent-Type: text/plain\r\n\
Content-Length: 5\r\n\r\nh\u{e9}\r\n",
            self.user, self.user
        )
    }

    /// The request at the client, checked against what was sent.
    fn delivered(&mut self, sent: &str) -> Sip {
        let got = self.client.take(&mut self.lab);
        assert_eq!(got.len(), 1, "delivered once: {:?} {got:#?}", self.cell);
        let got = got.into_iter().next().expect("one");
        let sent = Sip::read(sent.as_bytes());
        let expected = match self.cell.form {
            Form::Sips => self.contact_uri().replacen("sips:", "sip:", 1),
            _ => self.contact_uri(),
        };
        assert_eq!(got.uri(), expected, "{:?}", self.cell);
        let vias: Vec<&str> = got.all("Via").collect();
        let ours = format!(
            "SIP/2.0/{} {};branch=z9hG4bK",
            self.cell.client.via_name(),
            lab::listener_address(self.cell.client)
        );
        assert_eq!(vias.len(), 2, "{:?}", self.cell);
        assert!(vias[0].starts_with(&ours), "{:?} {}", self.cell, vias[0]);
        assert_eq!((got.header("max-forwards"), got.header("max-breadth")), ("69", "60"));
        let untouched = |sip: &Sip| -> Vec<(String, String)> {
            let edited = ["Via", "Max-Forwards", "Max-Breadth", "Record-Route", "Route"];
            sip.headers
                .iter()
                .filter(|(name, _)| !edited.iter().any(|it| it.eq_ignore_ascii_case(name)))
                .cloned()
                .collect()
        };
        assert_eq!(untouched(&got), untouched(&sent), "{:?}", self.cell);
        assert_eq!(got.body, sent.body);
        got
    }

    fn transaction(&mut self, sent: &str) {
        let request = self.delivered(sent);
        self.client.send(&mut self.lab, &request.response(200, "t", &["X-Back: 1"]));
        self.answered(200, "t");
    }

    fn answered(&mut self, status: u16, tag: &str) -> Sip {
        let answer = self.sender.take_one(&mut self.lab);
        assert_eq!(answer.status(), status, "{:?}", self.cell);
        assert_eq!(answer.all("Via").count(), 1, "{:?}", self.cell);
        assert!(
            answer.header("Via").contains(&format!("branch=z9hG4bK{}", self.name)),
            "{:?}",
            self.cell
        );
        assert_eq!(answer.tag("To"), Some(tag), "{:?}", self.cell);
        answer
    }

    fn call(&mut self, sent: &str) {
        let invite = self.delivered(sent);
        assert_eq!(self.sender.take_one(&mut self.lab).status(), 100, "{:?}", self.cell);
        self.client.send(&mut self.lab, &invite.response(180, "t", &[]));
        self.answered(180, "t");
        let contact = format!("Contact: <{}>", self.contact_uri());
        self.client.send(&mut self.lab, &invite.response(200, "t", &[&contact]));
        let answer = self.answered(200, "t");
        let mut route = answer.record_route();
        route.reverse();
        let ack = self.in_dialog("ACK", 7, &route, "2");
        self.sender.send(&mut self.lab, &ack);
        let got = self.client.take_one(&mut self.lab);
        assert_eq!((got.method(), got.find("Route")), ("ACK", None), "{:?}", self.cell);
        let bye = self.in_dialog("BYE", 8, &route, "3");
        self.sender.send(&mut self.lab, &bye);
        let got = self.client.take_one(&mut self.lab);
        assert_eq!((got.method(), got.find("Route")), ("BYE", None), "{:?}", self.cell);
        self.client.send(&mut self.lab, &got.response(200, "", &[]));
        self.answered(200, "t");
    }

    fn in_dialog(&self, method: &str, cseq: u32, route: &[String], branch: &str) -> String {
        let (name, via) = (&self.name, self.sender.via(&format!("{}{branch}", self.name)));
        format!(
            "{method} {} SIP/2.0\r\n{via}\r\nMax-Forwards: 70\r\nRoute: {}\r\n\
From: <sip:core@example.com>;tag=c\r\n\
To: <sip:{}@example.com>;tag=t\r\nCall-ID: {name}@core\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
            self.contact_uri(),
            route.join(", "),
            self.user
        )
    }

    /// No byte for anybody but the two parties.
    fn nobody_else_heard(&mut self) {
        for decoy in self.decoys.iter().filter_map(|decoy| decoy.flow) {
            assert!(self.lab.wires[&decoy].bytes.is_empty(), "{:?}", self.cell);
        }
        assert!(self.client.take(&mut self.lab).is_empty(), "{:?}", self.cell);
        assert!(self.sender.take(&mut self.lab).is_empty(), "{:?}", self.cell);
        assert!(self.lab.datagrams.is_empty() && self.lab.opens.is_empty(), "{:?}", self.cell);
    }
}
