//! Servers behind us that are reached by TCP or TLS (RFC 3261 §18.1.1): connections are opened when
//! they are needed, shared while they live, and their end is heard at once.

use sipring::base::event::CloseReason;
use sipring::base::id::{FlowId, Transport};

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab};

struct Scene {
    lab: Lab,
    client: Phone,
}

fn scene(shards: u16, transport: Transport) -> Scene {
    let mut lab = Lab::new(shards, lab::config_by(transport));
    let client = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
    Scene { lab, client }
}

fn every_scene(mut each: impl FnMut(&mut Scene, u16)) {
    for shards in 1..=3 {
        for transport in [Transport::Tcp, Transport::Tls] {
            let mut scene = scene(shards, transport);
            each(&mut scene, shards);
            scene.lab.finish();
        }
    }
}

impl Scene {
    fn send(&mut self, method: &str, name: &str) -> lab::draft::Draft {
        // One Call-ID and user: all of them are served by one shard.
        let draft = request(&self.client, method, "sip:911@example.com", name).call_id("one");
        self.client.send(&mut self.lab, &draft.text());
        draft
    }

    /// The server's end of a connection that was just made.
    fn open(&mut self) -> Phone {
        assert_eq!(self.lab.opens.len(), 1, "one connection is asked for");
        let target = self.lab.opens[0].2.clone();
        assert_eq!(target.remote, CORE.parse().expect("an address"));
        let flow: FlowId = self.lab.complete_open(0);
        let transport = if target.secure { Transport::Tls } else { Transport::Tcp };
        Phone { transport, remote: target.remote, shard: flow.shard().0, flow: Some(flow) }
    }
}

#[test]
fn requests_wait_for_one_connection_and_later_ones_use_it() {
    every_scene(|scene, _| {
        for name in ["a", "b", "c"] {
            scene.send("MESSAGE", name);
        }
        let server = scene.open();
        let got = server.take(&mut scene.lab);
        assert_eq!(got.len(), 3);
        for message in &got {
            assert!(message.find("Content-Length").is_some());
            let via = message.header("Via");
            assert!(via.starts_with(&format!("SIP/2.0/{} ", server.transport.via_name())), "{via}");
            server.send(&mut scene.lab, &message.response(200, "s", &[]));
            scene.client.take_status(&mut scene.lab, 200);
        }
        scene.send("MESSAGE", "d");
        let got = server.take_method(&mut scene.lab, "MESSAGE");
        server.send(&mut scene.lab, &got.response(200, "s", &[]));
        scene.client.take_status(&mut scene.lab, 200);
        assert!(scene.lab.opens.is_empty());
    });
}

#[test]
fn a_connection_that_cannot_be_made_is_500_for_all_that_wait() {
    every_scene(|scene, _| {
        for name in ["a", "b", "c"] {
            scene.send("MESSAGE", name);
        }
        let invite = scene.send("INVITE", "i");
        scene.client.take_status(&mut scene.lab, 100);
        scene.lab.refuse_open(0);
        let answers = scene.client.take(&mut scene.lab);
        assert_eq!(answers.len(), 4);
        assert!(answers.iter().all(|answer| answer.status() == 500), "{answers:#?}");
        scene.client.send(&mut scene.lab, &invite.method("ACK").text());
        scene.send("MESSAGE", "again");
        let server = scene.open();
        let got = server.take_method(&mut scene.lab, "MESSAGE");
        server.send(&mut scene.lab, &got.response(200, "s", &[]));
        scene.client.take_status(&mut scene.lab, 200);
    });
}

#[test]
fn a_connection_that_ends_fails_what_is_pending_and_the_next_request_opens_another() {
    for why in [CloseReason::Peer, CloseReason::Reset, CloseReason::Idle] {
        every_scene(|scene, _| {
            scene.send("MESSAGE", "m");
            let server = scene.open();
            let invite = scene.send("INVITE", "i");
            assert_eq!(server.take(&mut scene.lab).len(), 2);
            scene.client.take_status(&mut scene.lab, 100);
            server.leave(&mut scene.lab, why);
            let answers = scene.client.take(&mut scene.lab);
            assert_eq!(answers.len(), 2, "{answers:#?}");
            assert!(answers.iter().all(|answer| answer.status() == 500), "{answers:#?}");
            scene.client.send(&mut scene.lab, &invite.method("ACK").text());
            scene.send("MESSAGE", "again");
            let server = scene.open();
            let got = server.take_method(&mut scene.lab, "MESSAGE");
            server.send(&mut scene.lab, &got.response(200, "s", &[]));
            scene.client.take_status(&mut scene.lab, 200);
        });
    }
}

#[test]
fn an_ack_waits_for_its_connection_too() {
    every_scene(|scene, shards| {
        let invite = scene.send("INVITE", "i");
        let server = scene.open();
        let got = server.take_method(&mut scene.lab, "INVITE");
        scene.client.take_status(&mut scene.lab, 100);
        let contact = format!("Contact: <sip:9@{CORE};transport={}>", server.transport.uri_name());
        server.send(&mut scene.lab, &got.response(200, "s", &[&contact]));
        let mut route = scene.client.take_status(&mut scene.lab, 200).record_route();
        route.reverse();
        for fails in [true, false] {
            let flow = if fails { server.flow } else { None };
            if let Some(flow) = flow {
                scene.lab.close(flow, CloseReason::Peer);
            }
            let ack = invite
                .clone()
                .method("ACK")
                .uri(&contact[10..contact.len() - 1])
                .branch(&scene.client, "k")
                .to("<sip:911@example.com>;tag=s")
                .route(&route);
            scene.client.send(&mut scene.lab, &ack.text());
            if fails {
                scene.lab.refuse_open(0);
            } else {
                let server = scene.open();
                server.take_method(&mut scene.lab, "ACK");
            }
        }
        assert_eq!(scene.lab.count(|it| it.dropped_ack), 1, "{shards}");
        assert_eq!(scene.lab.count(|it| it.acks_forwarded), 1, "{shards}");
    });
}

#[test]
fn a_cancel_before_the_connection_is_made_ends_the_call() {
    every_scene(|scene, _| {
        let invite = scene.send("INVITE", "i");
        scene.client.take_status(&mut scene.lab, 100);
        scene.client.send(&mut scene.lab, &invite.clone().method("CANCEL").text());
        let answers = scene.client.take(&mut scene.lab);
        let statuses: Vec<(u16, &str)> =
            answers.iter().map(|it| (it.status(), it.header("CSeq"))).collect();
        assert_eq!(statuses, [(200, "1 CANCEL"), (487, "1 INVITE")]);
        scene.client.send(&mut scene.lab, &invite.method("ACK").text());
        let server = scene.open();
        assert!(server.take(&mut scene.lab).is_empty(), "it was never sent, so it never rings");
    });
}

#[test]
fn a_request_of_the_server_comes_on_a_connection_that_we_opened() {
    every_scene(|scene, shards| {
        scene.client.register(&mut scene.lab, "alice", "<sip:a@aa.invalid;transport=ws>");
        scene.send("MESSAGE", "m");
        let server = scene.open();
        let got = server.take_method(&mut scene.lab, "MESSAGE");
        server.send(&mut scene.lab, &got.response(200, "s", &[]));
        scene.client.take_status(&mut scene.lab, 200);
        server
            .send(&mut scene.lab, &request(&server, "NOTIFY", "sip:alice@example.com", "n").text());
        let got = scene.client.take_method(&mut scene.lab, "NOTIFY");
        scene.client.send(&mut scene.lab, &got.response(200, "c", &[]));
        server.take_status(&mut scene.lab, 200);
        assert!(scene.lab.opens.is_empty(), "{shards}");
    });
}
