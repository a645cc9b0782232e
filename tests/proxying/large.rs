//! Requests too large for datagrams (RFC 3261 §18.1.1): to a server behind us they go by TCP, and by
//! UDP only when no connection can be had there.

use std::time::Duration;

use sipring::base::id::Transport;

use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, CORE, Lab};

const LARGE: usize = 1400;

struct Scene {
    lab: Lab,
    client: Phone,
    /// The server, by UDP.
    core: Phone,
}

fn every_scene(mut each: impl FnMut(&mut Scene)) {
    for shards in 1..=3 {
        let mut lab = Lab::new(shards, lab::config());
        let client = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        let core = Phone::connect(&mut lab, shards - 1, Transport::Udp, CORE);
        let mut scene = Scene { lab, client, core };
        each(&mut scene);
        scene.lab.finish();
    }
}

impl Scene {
    fn send(&mut self, method: &str, name: &str, body: usize) -> Draft {
        let draft = request(&self.client, method, "sip:911@example.com", name)
            .call_id("one")
            .line("Contact: <sip:b@bb.invalid;transport=ws>")
            .body(&"x".repeat(body));
        self.client.send(&mut self.lab, &draft.text());
        draft
    }

    /// The server's end of the connection that is asked for.
    fn open(&mut self) -> Phone {
        assert_eq!(self.lab.opens.len(), 1, "one connection is asked for");
        let target = self.lab.opens[0].2.clone();
        assert!(!target.secure);
        assert_eq!(target.remote, self.core.remote);
        let flow = self.lab.complete_open(0);
        Phone { transport: Transport::Tcp, shard: flow.shard().0, flow: Some(flow), ..self.core }
    }

    /// What the server got by UDP, its answer 200, and that the client has it.
    fn served_by_udp(&mut self, method: &str) -> Sip {
        let got = self.core.take_method(&mut self.lab, method);
        assert!(got.header("Via").starts_with("SIP/2.0/UDP "), "{got:#?}");
        self.core.send(&mut self.lab, &got.response(200, "s", &[]));
        self.client.take_status(&mut self.lab, 200);
        got
    }
}

#[test]
fn a_large_request_goes_by_tcp_and_its_answer_comes_back_there() {
    every_scene(|scene| {
        scene.send("MESSAGE", "a", LARGE);
        let server = scene.open();
        scene.core.heard_nothing(&mut scene.lab);
        for name in ["b", "c"] {
            let got = server.take_method(&mut scene.lab, "MESSAGE");
            assert!(got.header("Via").starts_with("SIP/2.0/TCP "), "{got:#?}");
            assert_eq!(got.all("Content-Length").collect::<Vec<_>>(), [LARGE.to_string()]);
            server.send(&mut scene.lab, &got.response(200, "s", &[]));
            scene.client.take_status(&mut scene.lab, 200);
            scene.send("MESSAGE", name, LARGE);
        }
        assert!(scene.lab.opens.is_empty(), "the connection is used again");
        server.take(&mut scene.lab);
        scene.send("MESSAGE", "small", 10);
        scene.served_by_udp("MESSAGE");
    });
}

#[test]
fn the_bound_is_the_size_with_all_that_we_add() {
    every_scene(|scene| {
        scene.send("MESSAGE", "p", 100);
        let got = scene.core.take_method(&mut scene.lab, "MESSAGE");
        scene.core.send(&mut scene.lab, &got.response(200, "s", &[]));
        let answer = scene.client.take_status(&mut scene.lab, 200);
        assert_eq!(answer.status(), 200);
        let wire: usize = got.start.len()
            + 2
            + got.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>()
            + 2
            + got.body.len();
        // One digit more of Content-Length for a body of four.
        let fits = 100 + (1300 - wire);
        assert!((100..1000).contains(&fits), "{fits}");
        scene.send("MESSAGE", "q", fits);
        scene.served_by_udp("MESSAGE");
        scene.send("MESSAGE", "r", fits + 1);
        assert_eq!(scene.lab.opens.len(), 1);
        scene.core.heard_nothing(&mut scene.lab);
    });
}

#[test]
fn each_upstream_has_its_own_bound() {
    for (udp_max, streamed) in [(4000, false), (300, true)] {
        let config = lab::config_with(|config| config.upstreams[0].udp_max = udp_max);
        let mut lab = Lab::new(1, config);
        let client = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        let draft = request(&client, "MESSAGE", "sip:911@example.com", "m").body(&"x".repeat(1400));
        client.send(&mut lab, &draft.text());
        assert_eq!(lab.opens.len(), usize::from(streamed));
        assert_eq!(lab.datagrams.len(), usize::from(!streamed));
    }
}

#[test]
fn a_server_that_takes_no_connection_gets_it_by_udp_and_is_remembered() {
    every_scene(|scene| {
        let before = scene.lab.count(|it| it.requests_forwarded);
        scene.send("MESSAGE", "a", LARGE);
        scene.lab.refuse_open(0);
        let got = scene.served_by_udp("MESSAGE");
        assert_eq!(got.body.len(), LARGE);
        assert!(scene.lab.count(|it| it.requests_forwarded) > before);
        scene.send("MESSAGE", "b", LARGE);
        assert!(scene.lab.opens.is_empty(), "remembered");
        scene.served_by_udp("MESSAGE");
        scene.lab.pass(Duration::from_secs(299));
        scene.client.take(&mut scene.lab);
        scene.send("MESSAGE", "c", LARGE);
        assert!(scene.lab.opens.is_empty(), "remembered for five minutes");
        scene.served_by_udp("MESSAGE");
        scene.lab.pass(Duration::from_secs(2));
        scene.send("MESSAGE", "d", LARGE);
        let server = scene.open();
        let got = server.take_method(&mut scene.lab, "MESSAGE");
        server.send(&mut scene.lab, &got.response(200, "s", &[]));
        scene.client.take_status(&mut scene.lab, 200);
    });
}

#[test]
fn a_connection_that_takes_half_a_second_is_not_waited_for() {
    every_scene(|scene| {
        scene.send("INVITE", "a", LARGE);
        scene.client.take_status(&mut scene.lab, 100);
        scene.lab.pass(Duration::from_millis(499));
        scene.core.heard_nothing(&mut scene.lab);
        scene.lab.pass(Duration::from_millis(1));
        let got = scene.core.take_method(&mut scene.lab, "INVITE");
        assert!(got.header("Via").starts_with("SIP/2.0/UDP "), "{got:#?}");
        assert!(!got.record_route()[0].contains("transport=tcp"), "{got:#?}");
        // The connection comes late, and nothing is sent on it.
        let server = scene.open();
        assert!(server.take(&mut scene.lab).is_empty());
        scene.core.send(&mut scene.lab, &got.response(200, "s", &["Contact: <sip:198.51.100.7>"]));
        scene.client.take_status(&mut scene.lab, 200);
    });
}

/// CANCEL and the ACK to a failure are part of the transaction: same branch, same way (RFC 3261
/// §9.1, §17.1.1.3).
fn cancelled(scene: &mut Scene, server: Phone, invite: &Draft) {
    let got = server.take_method(&mut scene.lab, "INVITE");
    server.send(&mut scene.lab, &got.response(180, "s", &[]));
    scene.client.take_status(&mut scene.lab, 180);
    scene.client.send(&mut scene.lab, &invite.clone().method("CANCEL").body("").text());
    scene.client.take_status(&mut scene.lab, 200);
    let cancel = server.take_method(&mut scene.lab, "CANCEL");
    assert_eq!(cancel.header("Via"), got.header("Via"));
    server.send(&mut scene.lab, &cancel.response(200, "s", &[]));
    server.send(&mut scene.lab, &got.response(487, "s", &[]));
    let ack = server.take_method(&mut scene.lab, "ACK");
    assert_eq!(ack.header("Via"), got.header("Via"));
    scene.client.take_status(&mut scene.lab, 487);
    scene.client.send(&mut scene.lab, &invite.clone().method("ACK").body("").text());
}

#[test]
fn cancel_and_ack_go_the_way_that_the_invite_went() {
    every_scene(|scene| {
        let invite = scene.send("INVITE", "a", LARGE);
        scene.client.take_status(&mut scene.lab, 100);
        let server = scene.open();
        cancelled(scene, server, &invite);
        scene.core.heard_nothing(&mut scene.lab);
    });
    every_scene(|scene| {
        let invite = scene.send("INVITE", "a", LARGE);
        scene.client.take_status(&mut scene.lab, 100);
        scene.lab.refuse_open(0);
        cancelled(scene, scene.core, &invite);
    });
}

#[test]
fn a_cancel_before_the_connection_is_made_leaves_nothing_to_send() {
    every_scene(|scene| {
        let invite = scene.send("INVITE", "a", LARGE);
        scene.client.take_status(&mut scene.lab, 100);
        scene.client.send(&mut scene.lab, &invite.clone().method("CANCEL").body("").text());
        let answers: Vec<u16> = scene.client.take(&mut scene.lab).iter().map(Sip::status).collect();
        assert_eq!(answers, [200, 487]);
        scene.client.send(&mut scene.lab, &invite.method("ACK").body("").text());
        scene.lab.refuse_open(0);
        scene.core.heard_nothing(&mut scene.lab);
    });
}

#[test]
fn the_dialog_of_a_large_invite_is_recorded_for_tcp_and_goes_on() {
    every_scene(|scene| {
        let invite = scene.send("INVITE", "a", LARGE);
        scene.client.take_status(&mut scene.lab, 100);
        let server = scene.open();
        let got = server.take_method(&mut scene.lab, "INVITE");
        let recorded = got.record_route();
        assert!(recorded[0].contains(";transport=tcp"), "{recorded:?}");
        let contact = format!("Contact: <sip:9@{CORE}>");
        server.send(&mut scene.lab, &got.response(200, "s", &[&contact]));
        let mut route = scene.client.take_status(&mut scene.lab, 200).record_route();
        route.reverse();
        let in_dialog = |method: &str, cseq: u32, body: usize| {
            invite
                .clone()
                .method(method)
                .uri(&contact[10..contact.len() - 1])
                .branch(&scene.client, &format!("k{cseq}{method}"))
                .to("<sip:911@example.com>;tag=s")
                .route(&route)
                .cseq(cseq)
                .body(&"y".repeat(body))
                .text()
        };
        let (ack, large_ack, bye) =
            (in_dialog("ACK", 1, 0), in_dialog("ACK", 1, LARGE), in_dialog("BYE", 2, 0));
        scene.client.send(&mut scene.lab, &ack);
        scene.core.take_method(&mut scene.lab, "ACK");
        scene.client.send(&mut scene.lab, &large_ack);
        let ack = server.take_method(&mut scene.lab, "ACK");
        assert!(ack.header("Via").starts_with("SIP/2.0/TCP "), "{ack:#?}");
        // The server's requests come by the connection, as its Record-Route says.
        let draft = request(&server, "INFO", "sip:b@bb.invalid;transport=ws", "i")
            .call_id("one")
            .from("<sip:911@example.com>;tag=s")
            .to("<sip:sender@example.org>;tag=fa")
            .route(&recorded);
        server.send(&mut scene.lab, &draft.text());
        let info = scene.client.take_method(&mut scene.lab, "INFO");
        scene.client.send(&mut scene.lab, &info.response(200, "", &[]));
        server.take_status(&mut scene.lab, 200);
        scene.client.send(&mut scene.lab, &bye);
        scene.served_by_udp("BYE");
    });
}

#[test]
fn a_phone_that_registered_by_udp_gets_requests_of_any_size_there() {
    for shards in 1..=3 {
        let mut lab = Lab::new(shards, lab::config());
        let client = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        let phone = Phone::connect(&mut lab, shards - 1, Transport::Udp, "203.0.113.6:5060");
        for contact in ["<sip:p@203.0.113.6:5060>", "<sip:p@10.0.0.6>"] {
            phone.register(&mut lab, "phone", contact);
            let name = format!("m{}", lab.serial());
            let draft = request(&client, "MESSAGE", "sip:phone@example.com", &name);
            client.send(&mut lab, &draft.body(&"x".repeat(3000)).text());
            assert!(lab.opens.is_empty(), "its flow is its binding");
            for got in phone.take(&mut lab) {
                assert_eq!(got.body.len(), 3000);
                phone.send(&mut lab, &got.response(200, "p", &[]));
            }
            client.take_status(&mut lab, 200);
        }
        lab.finish();
    }
}
