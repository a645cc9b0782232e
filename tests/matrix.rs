//! The promise as a table: every client transport × form of Contact × request × sender × placement
//! of flow, owner and arrival on one to three shards. Delivered once, on the flow that registered,
//! equal but for the declared edits; the answer returns to the sender with our Via taken off.

mod lab;

use lab::phone::Phone;
use lab::text::Sip;
use lab::{CORE, Lab};
use sipring::base::hash::{KeyedHash, derive_key};
use sipring::base::id::Transport;
use sipring::proxy::place::owner_of;

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
    shards: u16,
    flow_shard: u16,
    owner: u16,
    arrival: u16,
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

#[test]
fn every_cell_of_the_matrix_keeps_the_promise() {
    let mut cells = 0;
    for shards in 1..=3u16 {
        for placement in 0..shards * shards * shards {
            let (flow_shard, owner, arrival) =
                (placement % shards, placement / shards % shards, placement / shards / shards);
            for client in Transport::ALL {
                for form in FORMS {
                    for method in METHODS {
                        for from in SENDERS {
                            let cell = Cell {
                                client,
                                form,
                                method,
                                from,
                                shards,
                                flow_shard,
                                owner,
                                arrival,
                            };
                            Run::new(cell).play();
                            cells += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(cells, (1 + 8 + 27) * 5 * 7 * 4 * 4);
}

/// A user whose owner is that shard.
fn user_of(owner: u16, shards: u16) -> String {
    let placement = KeyedHash::new(derive_key(&[9; 32], "placement"));
    (0..)
        .map(|n| format!("user{n}"))
        .find(|user| {
            owner_of(&placement, format!("{user}@example.com").as_bytes(), shards).0 == owner
        })
        .expect("every shard owns somebody")
}

struct Run {
    cell: Cell,
    lab: Lab,
    client: Phone,
    sender: Phone,
    decoys: Vec<Phone>,
    user: String,
}

impl Run {
    fn new(cell: Cell) -> Run {
        let mut lab = Lab::new(cell.shards, lab::config());
        let client = Phone::connect(&mut lab, cell.flow_shard, cell.client, CLIENT);
        let (transport, remote) = match cell.from {
            From::UdpServer => (Transport::Udp, CORE),
            From::TcpServer => (Transport::Tcp, "198.51.100.8:33001"),
            From::TlsServer => (Transport::Tls, "198.51.100.9:33002"),
            From::WssClient => (Transport::Wss, "203.0.113.99:33003"),
        };
        let sender = Phone::connect(&mut lab, cell.arrival, transport, remote);
        let decoys = Transport::ALL
            .into_iter()
            .enumerate()
            .map(|(at, transport)| {
                let remote = format!("203.0.113.77:{}", 41000 + at);
                let decoy = Phone::connect(&mut lab, at as u16 % cell.shards, transport, &remote);
                decoy.register(&mut lab, &format!("decoy{at}"), &format!("<sip:d@{remote}>"));
                decoy
            })
            .collect();
        let user = user_of(cell.owner, cell.shards);
        Run { cell, lab, client, sender, decoys, user }
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

    fn play(mut self) {
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
    }

    fn request(&self) -> String {
        let Cell { method, .. } = self.cell;
        let via = self.sender.via("m1");
        let contact = format!("<sip:s@{};transport=tcp>", self.sender.remote);
        format!(
            "{method} sip:{}@example.com SIP/2.0\r\n{via}\r\nmax-forwards: 70\r\n\
f: \"Core, \\\"A\\\"\" <sip:core@example.com>;tag=c\r\nTo: <sip:{}@example.com>\r\nCall-ID: m1@core\r\n\
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
        assert_eq!(got.header("max-forwards"), "69");
        let untouched = |sip: &Sip| -> Vec<(String, String)> {
            let edited = ["Via", "Max-Forwards", "Record-Route", "Route"];
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
        assert!(answer.header("Via").contains("branch=z9hG4bKm"), "{:?}", self.cell);
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
        let ack = self.in_dialog("ACK", 7, &route, "m2");
        self.sender.send(&mut self.lab, &ack);
        let got = self.client.take_one(&mut self.lab);
        assert_eq!((got.method(), got.find("Route")), ("ACK", None), "{:?}", self.cell);
        let bye = self.in_dialog("BYE", 8, &route, "m3");
        self.sender.send(&mut self.lab, &bye);
        let got = self.client.take_one(&mut self.lab);
        assert_eq!((got.method(), got.find("Route")), ("BYE", None), "{:?}", self.cell);
        self.client.send(&mut self.lab, &got.response(200, "", &[]));
        self.answered(200, "t");
    }

    fn in_dialog(&self, method: &str, cseq: u32, route: &[String], branch: &str) -> String {
        let via = self.sender.via(branch);
        format!(
            "{method} {} SIP/2.0\r\n{via}\r\nMax-Forwards: 70\r\nRoute: {}\r\nFrom: <sip:core@example.com>;tag=c\r\n\
To: <sip:{}@example.com>;tag=t\r\nCall-ID: m1@core\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
            self.contact_uri(),
            route.join(", "),
            self.user
        )
    }

    /// No byte for anybody but the two parties.
    fn nobody_else_heard(&mut self) {
        for decoy in self.decoys.clone() {
            let heard = decoy.take(&mut self.lab);
            assert!(heard.is_empty(), "{:?} {heard:#?}", self.cell);
        }
        assert!(self.client.take(&mut self.lab).is_empty(), "{:?}", self.cell);
        assert!(self.sender.take(&mut self.lab).is_empty(), "{:?}", self.cell);
        assert!(self.lab.datagrams.is_empty() && self.lab.opens.is_empty(), "{:?}", self.cell);
    }
}
