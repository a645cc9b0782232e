//! The ACK to a 2xx of a caller that heeds neither Contact nor Record-Route: it names the user, and
//! goes to who accepted.

use std::time::Duration;

use sipring::base::id::Transport;

use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, CORE, Lab, Placement, user_of};

struct Scene {
    lab: Lab,
    caller: Phone,
    phones: [Phone; 2],
    invites: [Sip; 2],
    invite: Draft,
}

fn scene(at: Placement, by: Transport) -> Scene {
    let mut lab = Lab::new(at.shards, lab::config());
    let user = user_of(at.owner, at.shards, 0);
    let one = Phone::connect(&mut lab, at.flow, Transport::Wss, "203.0.113.5:40001");
    let two = Phone::connect(&mut lab, at.arrival, Transport::Udp, "203.0.113.6:40002");
    one.register(&mut lab, &user, "<sip:one@aa.invalid;transport=ws>");
    two.register(&mut lab, &user, "<sip:two@10.0.0.7>");
    let remote = if by == Transport::Udp { CORE } else { "203.0.113.9:40009" };
    let caller = Phone::connect(&mut lab, at.arrival, by, remote);
    let invite = request(&caller, "INVITE", &format!("sip:{user}@example.com"), "i");
    caller.send(&mut lab, &invite.text());
    caller.take_status(&mut lab, 100);
    let invites = [one, two].map(|phone| phone.take_method(&mut lab, "INVITE"));
    Scene { lab, caller, phones: [one, two], invites, invite }
}

fn every_scene(mut each: impl FnMut(&mut Scene)) {
    for at in lab::placements() {
        for by in [Transport::Udp, Transport::Wss] {
            let mut scene = scene(at, by);
            each(&mut scene);
            scene.lab.finish();
        }
    }
}

impl Scene {
    fn answer(&mut self, at: usize, status: u16) {
        let text = self.invites[at].response(status, &format!("t{at}"), &[]);
        self.phones[at].send(&mut self.lab, &text);
    }

    /// The ACK as sipp's stock caller sends it: Request-URI of the INVITE, no Route.
    fn ack(&mut self, branch: &str) -> String {
        let to = format!("<{}>;tag=t0", self.invites[0].header("To").trim_matches(['<', '>']));
        self.invite.clone().method("ACK").branch(&self.caller, branch).to(&to).text()
    }
}

#[test]
fn an_ack_that_names_the_user_goes_to_who_accepted_alone() {
    for branch in ["i", "ack"] {
        every_scene(|scene| {
            scene.answer(1, 180);
            scene.answer(0, 200);
            scene.caller.take(&mut scene.lab);
            scene.phones[1].take_method(&mut scene.lab, "CANCEL");
            let ack = scene.ack(branch);
            for _ in 0..2 {
                scene.caller.send(&mut scene.lab, &ack);
                let got = scene.phones[0].take_method(&mut scene.lab, "ACK");
                assert_eq!(got.uri(), "sip:one@aa.invalid;transport=ws");
                assert_eq!((got.find("Route"), got.header("Max-Breadth")), (None, "60"));
                scene.phones[1].heard_nothing(&mut scene.lab);
            }
            scene.answer(1, 487);
            scene.phones[1].take_method(&mut scene.lab, "ACK");
            assert_eq!(scene.lab.count(|it| it.acks_forwarded), 2);
        });
    }
}

#[test]
fn when_two_accepted_both_get_it() {
    every_scene(|scene| {
        scene.answer(0, 200);
        scene.answer(1, 200);
        scene.caller.take(&mut scene.lab);
        let ack = scene.ack("ack");
        scene.caller.send(&mut scene.lab, &ack);
        for (phone, invite) in scene.phones.into_iter().zip(&scene.invites) {
            let ack = phone.take_method(&mut scene.lab, "ACK");
            assert_eq!((ack.uri(), ack.header("Max-Breadth")), (invite.uri(), "30"));
        }
    });
}

#[test]
fn an_ack_of_a_call_that_nobody_accepted_is_dropped_and_counted() {
    every_scene(|scene| {
        let ack = scene.ack("ack");
        scene.caller.send(&mut scene.lab, &ack);
        scene.answer(0, 200);
        scene.answer(1, 486);
        scene.phones[1].take_method(&mut scene.lab, "ACK");
        scene.caller.take(&mut scene.lab);
        let foreign = ack.replace("tag=fi", "tag=other");
        scene.caller.send(&mut scene.lab, &foreign);
        scene.lab.pass(Duration::from_secs(64));
        scene.caller.send(&mut scene.lab, &ack);
        for phone in scene.phones {
            phone.heard_nothing(&mut scene.lab);
        }
        assert_eq!(scene.lab.count(|it| it.dropped_ack), 3);
    });
}

#[test]
fn an_ack_goes_by_the_path_that_the_invite_took() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config());
        let user = user_of(at.owner, at.shards, 0);
        let edge = Phone::connect(&mut lab, at.flow, Transport::Udp, "198.51.100.8:5060");
        let path = "<sip:token@198.51.100.8;lr;ob>";
        let register = request(&edge, "REGISTER", "sip:example.com", "r")
            .vias(&[&edge.via("r"), "Via: SIP/2.0/WSS x.invalid;branch=z9hG4bKbelow"])
            .to(&format!("<sip:{user}@example.com>"))
            .line("Contact: <sip:a@aa.invalid;transport=ws>")
            .line(&format!("Path: {path}, <sip:second@198.51.100.9;lr>"))
            .line("Supported: path");
        edge.send(&mut lab, &register.text());
        edge.take_status(&mut lab, 200);
        let caller = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.5:40001");
        let invite = request(&caller, "INVITE", &format!("sip:{user}@example.com"), "i");
        caller.send(&mut lab, &invite.text());
        let got = edge.take_method(&mut lab, "INVITE");
        let route = got.header("Route");
        assert_eq!(route, format!("{path}, <sip:second@198.51.100.9;lr>"), "RFC 3327 §5.3");
        edge.send(&mut lab, &got.response(200, "e", &[]));
        caller.send(&mut lab, &invite.method("ACK").text());
        let ack = edge.take_method(&mut lab, "ACK");
        assert_eq!((ack.uri(), ack.header("Route")), (got.uri(), route));
        lab.finish();
    }
}

#[test]
fn an_ack_to_the_callees_gruu_reaches_it_without_a_route() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config());
        let user = user_of(at.owner, at.shards, 0);
        let callee = Phone::connect(&mut lab, at.flow, Transport::Wss, "203.0.113.5:40001");
        let other = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.6:40002");
        let contact =
            |n: u8| format!("<sip:a@aa{n}.invalid>;reg-id=1;+sip.instance=\"<urn:x:{n}>\"");
        other.register(&mut lab, &user, &contact(2));
        let answer = callee.register_with(&mut lab, &user, &contact(1), "outbound, path, gruu");
        let mine = answer.all("Contact").find(|it| it.contains("aa1")).expect("its own");
        let gruu = mine.split("pub-gruu=\"").nth(1).expect("a GRUU").split('"').next().unwrap();
        let caller = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        let ack = request(&caller, "ACK", gruu, "a").to(&format!("<{gruu}>;tag=t"));
        caller.send(&mut lab, &ack.text());
        let got = callee.take_method(&mut lab, "ACK");
        assert_eq!(got.uri(), "sip:a@aa1.invalid");
        other.heard_nothing(&mut lab);
        lab.finish();
    }
}
