//! A client with a flow to each of two edges, and the registrar behind them (RFC 5626 §3.3, §5.3,
//! §7): all three are ours, each a lab of its own, with datagrams between them. A flow that failed
//! is found out by the 430 of its edge, and the request takes the other.

use std::net::SocketAddr;

use sipring::base::config::{Config, Route, RouteTo};
use sipring::base::event::CloseReason;
use sipring::base::id::{DatagramPath, Transport};
use sipring::engine::Input;

use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, Lab, listener_of, user_of};

const REGISTRAR: &str = "192.0.2.1:5060";
const EDGES: [&str; 2] = ["198.51.100.1:5060", "198.51.100.2:5060"];
const INSTANCE: &str = "+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000a95a0e128>\"";

/// An edge sends all that it has no flow for to the registrar, REGISTER included.
fn edge(address: &str) -> Config {
    lab::config_with(|config| {
        let at: SocketAddr = address.parse().expect("an address");
        config.listeners.iter_mut().for_each(|it| it.address.set_ip(at.ip()));
        config.upstreams[0].targets = vec![lab::target(Transport::Udp, REGISTRAR)];
        config.upstreams[0].from = vec!["192.0.2.1/32".parse().expect("a network")];
        let domain = Some("example.com".into());
        let to = RouteTo::Upstream(0);
        config.routes = vec![Route { user: None, domain, methods: Vec::new(), to }];
    })
}

/// The two edges and the registrar, whose network the edges are of.
struct Town {
    labs: [Lab; 3],
    user: String,
    /// The client's flows, one to each edge.
    flows: [Phone; 2],
    /// Of the registrar.
    caller: Phone,
}

const HOME: usize = 2;

impl Town {
    fn new(shards: u16) -> Town {
        let [one, two] = EDGES.map(|address| Lab::new(shards, edge(address)));
        let mut labs = [one, two, Lab::new(shards, lab::config())];
        let flows = [0, 1].map(|at| {
            let remote = format!("203.0.113.5:4000{at}");
            Phone::connect(&mut labs[at], shards - 1, Transport::Wss, &remote)
        });
        let caller = Phone::connect(&mut labs[HOME], 0, Transport::Wss, "203.0.113.9:40009");
        let user = user_of(shards - 1, shards, 0);
        Town { labs, user, flows, caller }
    }

    /// Everything that the three send each other arrives.
    fn settle(&mut self) {
        let addresses = [EDGES[0], EDGES[1], REGISTRAR].map(|it| it.parse().expect("an address"));
        let mut is_busy = true;
        while is_busy {
            is_busy = false;
            for at in 0..self.labs.len() {
                for (path, mut bytes) in self.labs[at].datagrams.split_off(0) {
                    let to = addresses.iter().position(|it: &SocketAddr| *it == path.remote);
                    let to = to.unwrap_or_else(|| panic!("a datagram to {}", path.remote));
                    let listener = listener_of(Transport::Udp);
                    let path = DatagramPath { listener, local: path.remote, remote: addresses[at] };
                    self.labs[to].input(0, Input::Datagram { path, bytes: &mut bytes });
                    is_busy = true;
                }
            }
        }
    }

    /// REGISTERs on the flow to that edge; its 200 as it came.
    fn register(&mut self, edge: usize, expires: u32) -> Sip {
        let (phone, name) = (self.flows[edge], format!("r{edge}{expires}"));
        let to = format!("<sip:{}@example.com>", self.user);
        let contact = format!("<sip:a@aa{edge}.invalid;transport=ws;ob>");
        let draft = request(&phone, "REGISTER", "sip:example.com", &name)
            .from(&format!("{to};tag=r"))
            .to(&to)
            .line(&format!("Contact: {contact};reg-id={};expires={expires};{INSTANCE}", edge + 1))
            .line("Supported: path, outbound");
        phone.send(&mut self.labs[edge], &draft.text());
        self.settle();
        phone.take_status(&mut self.labs[edge], 200)
    }

    fn caller_sends(&mut self, draft: &Draft) {
        self.caller.send(&mut self.labs[HOME], &draft.text());
        self.settle();
    }

    fn draft(&self, method: &str, name: &str) -> Draft {
        let uri = format!("sip:{}@example.com", self.user);
        request(&self.caller, method, &uri, name).line("Contact: <sip:c@cc.invalid;transport=ws>")
    }

    fn caller_hears(&mut self, status: u16) -> Sip {
        self.caller.take_status(&mut self.labs[HOME], status)
    }

    fn hears(&mut self, edge: usize, method: &str) -> Sip {
        self.flows[edge].take_method(&mut self.labs[edge], method)
    }

    fn says(&mut self, edge: usize, message: &str) {
        self.flows[edge].send(&mut self.labs[edge], message);
        self.settle();
    }

    /// The flow to that edge is gone; nobody tells the registrar.
    fn lose(&mut self, edge: usize) {
        self.flows[edge].leave(&mut self.labs[edge], CloseReason::Reset);
        self.settle();
    }

    fn finish(mut self) {
        self.settle();
        self.labs.iter_mut().for_each(Lab::finish);
    }
}

fn every_town(mut each: impl FnMut(&mut Town)) {
    for shards in 1..=3 {
        let mut town = Town::new(shards);
        for edge in [1, 0] {
            let answer = town.register(edge, 600);
            assert_eq!(answer.header("Require"), "outbound", "RFC 5626 §6");
            let path = answer.header("Path").to_owned();
            assert!(path.contains(EDGES[edge]) && path.ends_with(";lr;ob>"), "{path}");
        }
        each(&mut town);
        town.finish();
    }
}

#[test]
fn a_flow_that_failed_at_one_edge_leads_to_the_other() {
    every_town(|town| {
        for method in ["MESSAGE", "INVITE"] {
            // While both live the one that registered last gets it.
            let draft = town.draft(method, &format!("a{method}"));
            town.caller_sends(&draft);
            let got = town.hears(0, method);
            town.says(0, &got.response(486, "t", &[]));
            let heard = town.caller.take(&mut town.labs[HOME]);
            assert_eq!(heard.last().expect("an answer").status(), 486);
            if method == "INVITE" {
                town.hears(0, "ACK");
                town.caller_sends(&draft.method("ACK"));
            }
        }
        town.flows[1].heard_nothing(&mut town.labs[1]);
        town.lose(0);
        let draft = town.draft("MESSAGE", "m");
        town.caller_sends(&draft);
        let got = town.hears(1, "MESSAGE");
        assert_eq!(got.uri(), "sip:a@aa1.invalid;transport=ws;ob");
        assert_eq!(got.find("Route"), None, "edges take their own values off");
        assert_eq!(town.labs[0].count(|it| it.requests_flow_gone), 1, "its edge said 430");
        town.caller.heard_nothing(&mut town.labs[HOME]);
        town.says(1, &got.response(200, "t", &[]));
        town.caller_hears(200);
    });
}

#[test]
fn a_call_over_the_other_edge_stays_there_to_its_end() {
    every_town(|town| {
        town.lose(0);
        let draft = town.draft("INVITE", "c");
        town.caller_sends(&draft);
        town.caller_hears(100);
        let invite = town.hears(1, "INVITE");
        let contact = invite.uri().to_owned();
        town.says(1, &invite.response(200, "t", &[&format!("Contact: <{contact}>")]));
        let mut route = town.caller_hears(200).record_route();
        route.reverse();
        let within = |method: &str, cseq: u32, phone: &Phone| {
            draft
                .clone()
                .branch(phone, &format!("{method}{cseq}"))
                .method(method)
                .uri(&contact)
                .cseq(cseq)
                .route(&route)
        };
        let to = format!("<sip:{}@example.com>;tag=t", town.user);
        town.caller_sends(&within("ACK", 1, &town.caller).to(&to));
        town.hears(1, "ACK");
        let info = within("INFO", 2, &town.caller).to(&to);
        town.caller_sends(&info);
        let got = town.hears(1, "INFO");
        town.says(1, &got.response(200, "", &[]));
        town.caller_hears(200);
        let bye = request(&town.flows[1], "BYE", "sip:c@cc.invalid;transport=ws", "bye")
            .call_id("c@lab")
            .from(&to)
            .to("<sip:sender@example.org>;tag=fc")
            .route(&invite.record_route());
        town.says(1, &bye.text());
        let got = town.caller.take_method(&mut town.labs[HOME], "BYE");
        town.caller.send(&mut town.labs[HOME], &got.response(200, "", &[]));
        town.settle();
        town.flows[1].take_status(&mut town.labs[1], 200);
    });
}

#[test]
fn when_both_flows_failed_the_caller_hears_that_the_user_is_away() {
    every_town(|town| {
        town.lose(0);
        town.lose(1);
        let draft = town.draft("MESSAGE", "m");
        town.caller_sends(&draft);
        town.caller_hears(480);
        // No client ever hears 430 (RFC 5626 §11.5), and both edges said it.
        for edge in [0, 1] {
            assert_eq!(town.labs[edge].count(|it| it.requests_flow_gone), 1);
        }
    });
}

#[test]
fn a_client_that_comes_back_to_its_edge_takes_its_place_again() {
    every_town(|town| {
        town.lose(0);
        let shard = town.labs[0].shards() - 1;
        town.flows[0] =
            Phone::connect(&mut town.labs[0], shard, Transport::Wss, "203.0.113.5:41000");
        let answer = town.register(0, 601);
        assert_eq!(answer.all("Contact").count(), 2, "reg-id 1 is replaced, not added");
        let draft = town.draft("MESSAGE", "m");
        town.caller_sends(&draft);
        let got = town.hears(0, "MESSAGE");
        town.says(0, &got.response(200, "t", &[]));
        town.caller_hears(200);
        town.flows[1].heard_nothing(&mut town.labs[1]);
    });
}
