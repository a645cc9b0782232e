//! Contacts of unequal q (RFC 3261 §16.5, §16.6): who is tried when, and when the next one's turn
//! comes.

use std::time::Duration;

use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, Lab, Placement, user_of};

/// The patience with one group.
const RING: Duration = Duration::from_secs(20);

struct Scene {
    lab: Lab,
    caller: Phone,
    /// By falling q; the first registered last.
    phones: Vec<Phone>,
    draft: Draft,
}

/// `qs` are those of the phones, falling. The caller has sent one request to all of them.
fn scene(at: Placement, method: &str, qs: &[&str], more: &[&str]) -> Scene {
    scene_with(at, method, qs, |draft| more.iter().fold(draft, |draft, line| draft.line(line)))
}

fn scene_with(
    at: Placement,
    method: &str,
    qs: &[&str],
    change: impl FnOnce(Draft) -> Draft,
) -> Scene {
    let mut lab = Lab::new(at.shards, lab::config());
    let user = user_of(at.owner, at.shards, 0);
    let mut phones = Vec::new();
    for (n, q) in qs.iter().enumerate().rev() {
        let transport = if n % 2 == 0 { Transport::Wss } else { Transport::Udp };
        let shard = if n == 0 { at.flow } else { at.arrival };
        let phone = Phone::connect(&mut lab, shard, transport, &format!("203.0.113.{n}:40001"));
        phone.register(&mut lab, &user, &format!("<sip:p{n}@10.0.0.{n}>;q={q}"));
        phones.insert(0, phone);
    }
    let caller = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.9:40009");
    let draft = change(request(&caller, method, &format!("sip:{user}@example.com"), "i"));
    caller.send(&mut lab, &draft.text());
    if method == "INVITE" {
        caller.take_status(&mut lab, 100);
    }
    Scene { lab, caller, phones, draft }
}

fn every_scene(method: &str, qs: &[&str], mut each: impl FnMut(&mut Scene)) {
    for at in lab::placements() {
        let mut scene = scene(at, method, qs, &[]);
        each(&mut scene);
        scene.lab.finish();
        scene.caller.take(&mut scene.lab).iter().for_each(|it| assert!(it.status() < 200));
    }
}

impl Scene {
    fn take(&mut self, phone: usize, method: &str) -> Sip {
        self.phones[phone].take_method(&mut self.lab, method)
    }

    fn silent(&mut self, phone: usize) {
        self.phones[phone].heard_nothing(&mut self.lab);
    }

    fn answer(&mut self, phone: usize, got: &Sip, status: u16) {
        self.phones[phone].send(&mut self.lab, &got.response(status, &format!("t{phone}"), &[]));
    }

    /// Answers an INVITE with a final other than 2xx, whose ACK comes.
    fn refuse(&mut self, phone: usize, got: &Sip, status: u16) {
        self.answer(phone, got, status);
        self.take(phone, "ACK");
    }

    /// The phone gets a CANCEL and obeys.
    fn is_cancelled(&mut self, phone: usize, invite: &Sip) {
        let cancel = self.take(phone, "CANCEL");
        self.answer(phone, &cancel, 200);
        self.refuse(phone, invite, 487);
    }

    fn hears(&mut self, status: u16) -> Sip {
        self.caller.take_status(&mut self.lab, status)
    }

    fn ack(&mut self) {
        self.caller.send(&mut self.lab, &self.draft.clone().method("ACK").text());
    }
}

/// However large it is, and whoever refused it before.
#[test]
fn every_group_gets_the_whole_body() {
    let body = "x".repeat(9000);
    for at in lab::placements() {
        let mut scene = scene_with(at, "MESSAGE", &["1", "0.5", "0.1"], |it| it.body(&body));
        for (phone, status) in [(0, 480), (1, 486), (2, 200)] {
            let got = scene.take(phone, "MESSAGE");
            assert_eq!(got.body, body.as_bytes());
            scene.answer(phone, &got, status);
        }
        scene.hears(200);
        scene.lab.finish();
    }
}

#[test]
fn a_lower_q_waits_until_all_of_a_higher_one_have_refused() {
    every_scene("INVITE", &["1.0", "1.0", "0.5", "0.1"], |scene| {
        let (one, two) = (scene.take(0, "INVITE"), scene.take(1, "INVITE"));
        scene.refuse(0, &one, 486);
        scene.answer(1, &two, 180);
        scene.hears(180);
        scene.silent(2);
        scene.refuse(1, &two, 480);
        let three = scene.take(2, "INVITE");
        scene.silent(3);
        scene.refuse(2, &three, 404);
        let four = scene.take(3, "INVITE");
        scene.caller.heard_nothing(&mut scene.lab);
        scene.refuse(3, &four, 488);
        scene.hears(486);
        scene.ack();
    });
    every_scene("MESSAGE", &["0.9", "0.8"], |scene| {
        let one = scene.take(0, "MESSAGE");
        scene.silent(1);
        scene.answer(0, &one, 415);
        let two = scene.take(1, "MESSAGE");
        scene.answer(1, &two, 202);
        scene.hears(202);
    });
}

#[test]
fn after_a_2xx_a_6xx_or_the_callers_cancel_nobody_else_is_tried() {
    for status in [200, 603] {
        every_scene("INVITE", &["1", "0.5"], |scene| {
            let one = scene.take(0, "INVITE");
            scene.answer(0, &one, status);
            if status == 603 {
                scene.take(0, "ACK");
            }
            scene.hears(status);
            if status == 603 {
                scene.ack();
            }
            scene.lab.pass(RING * 2);
            scene.silent(1);
        });
    }
    every_scene("INVITE", &["1", "0.5"], |scene| {
        let one = scene.take(0, "INVITE");
        scene.answer(0, &one, 180);
        scene.hears(180);
        scene.caller.send(&mut scene.lab, &scene.draft.clone().method("CANCEL").text());
        scene.hears(200);
        scene.is_cancelled(0, &one);
        scene.hears(487);
        scene.ack();
        scene.silent(1);
    });
    for at in lab::placements() {
        let mut scene = scene(at, "INVITE", &["1", "0.5"], &[]);
        let one = scene.take(0, "INVITE");
        scene.answer(0, &one, 180);
        scene.caller.leave(&mut scene.lab, CloseReason::Reset);
        scene.is_cancelled(0, &one);
        scene.silent(1);
        scene.lab.finish();
    }
}

#[test]
fn who_rings_too_long_is_cancelled_and_the_next_rings_at_once() {
    every_scene("INVITE", &["1", "0.5"], |scene| {
        let one = scene.take(0, "INVITE");
        scene.answer(0, &one, 180);
        scene.hears(180);
        scene.lab.pass(RING - Duration::from_millis(100));
        scene.silent(0);
        scene.silent(1);
        scene.lab.pass(Duration::from_millis(200));
        let two = scene.take(1, "INVITE");
        scene.is_cancelled(0, &one);
        scene.answer(1, &two, 180);
        scene.hears(180);
        scene.lab.pass(RING * 2);
        scene.silent(1);
        scene.refuse(1, &two, 480);
        let answer = scene.hears(480);
        assert_eq!(answer.tag("To"), Some("t1"), "not the 487 that our CANCEL brought about");
        scene.ack();
    });
}

#[test]
fn nobody_answered_is_408_when_the_last_was_never_reached() {
    every_scene("INVITE", &["1", "0.5"], |scene| {
        let one = scene.take(0, "INVITE");
        scene.answer(0, &one, 180);
        scene.hears(180);
        scene.lab.pass(RING);
        let two = scene.take(1, "INVITE");
        scene.is_cancelled(0, &one);
        scene.lab.pass(Duration::from_secs(33));
        let copies = scene.phones[1].take(&mut scene.lab);
        assert!(copies.iter().all(|copy| copy.header("Via") == two.header("Via")));
        scene.hears(408);
        scene.ack();
    });
}

#[test]
fn a_200_that_crosses_the_cancel_wins() {
    every_scene("INVITE", &["1", "0.5"], |scene| {
        let one = scene.take(0, "INVITE");
        scene.answer(0, &one, 180);
        scene.hears(180);
        scene.lab.pass(RING);
        scene.take(0, "CANCEL");
        let two = scene.take(1, "INVITE");
        scene.answer(1, &two, 180);
        scene.hears(180);
        scene.answer(0, &one, 200);
        scene.hears(200);
        scene.is_cancelled(1, &two);
        scene.caller.heard_nothing(&mut scene.lab);
    });
}

#[test]
fn the_last_answer_waits_for_who_was_given_up() {
    every_scene("INVITE", &["1", "0.5"], |scene| {
        let one = scene.take(0, "INVITE");
        scene.answer(0, &one, 180);
        scene.hears(180);
        scene.lab.pass(RING);
        scene.take(0, "CANCEL");
        let two = scene.take(1, "INVITE");
        scene.refuse(1, &two, 486);
        scene.caller.heard_nothing(&mut scene.lab);
        scene.answer(0, &one, 200);
        scene.hears(200);
    });
}

#[test]
fn who_never_said_anything_is_cancelled_when_it_does() {
    every_scene("INVITE", &["1", "0.5"], |scene| {
        let one = scene.take(0, "INVITE");
        scene.lab.pass(RING);
        scene.silent(0);
        let two = scene.take(1, "INVITE");
        scene.answer(0, &one, 180);
        scene.hears(180);
        scene.is_cancelled(0, &one);
        scene.answer(1, &two, 200);
        scene.hears(200);
    });
}

#[test]
fn a_message_that_nobody_takes_reaches_the_next_while_its_sender_still_waits() {
    every_scene("MESSAGE", &["1", "0.5"], |scene| {
        scene.take(0, "MESSAGE");
        scene.lab.pass(RING);
        let two = scene.take(1, "MESSAGE");
        let early: Vec<u16> = scene.caller.take(&mut scene.lab).iter().map(Sip::status).collect();
        assert!(early.iter().all(|status| *status == 100), "{early:?}");
        scene.answer(1, &two, 200);
        scene.hears(200);
        scene.phones[0].take(&mut scene.lab);
    });
    every_scene("MESSAGE", &["1", "0.5", "0.1"], |scene| {
        scene.take(0, "MESSAGE");
        scene.lab.pass(Duration::from_secs(33));
        scene.phones[1].take(&mut scene.lab);
        scene.lab.pass(Duration::from_secs(33));
        scene.silent(2);
    });
}

#[test]
fn the_time_to_ring_is_the_configurations() {
    let config = lab::config_with(|it| it.registrar.serial_ring = Duration::from_secs(3));
    let mut lab = Lab::new(1, config);
    let phones = ["1", "0.5"].map(|q| {
        let phone =
            Phone::connect(&mut lab, 0, Transport::Wss, &format!("203.0.113.5:4000{}", q.len()));
        phone.register(&mut lab, "alice", &format!("<sip:a@q{}.invalid>;q={q}", q.len()));
        phone
    });
    let caller = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.9:40009");
    caller.send(&mut lab, &request(&caller, "INVITE", "sip:alice@example.com", "i").text());
    phones[0].take_method(&mut lab, "INVITE");
    lab.pass(Duration::from_millis(2900));
    phones[1].heard_nothing(&mut lab);
    lab.pass(Duration::from_millis(200));
    phones[1].take_method(&mut lab, "INVITE");
    lab.finish();
}

#[test]
fn breadth_is_shared_in_a_group_and_given_back_to_the_next() {
    for at in lab::placements() {
        let mut scene = scene(at, "INVITE", &["1", "1", "0.5"], &["Max-Breadth: 10"]);
        let (one, two) = (scene.take(0, "INVITE"), scene.take(1, "INVITE"));
        let mut shares = [one.header("Max-Breadth"), two.header("Max-Breadth")];
        shares.sort_unstable();
        assert_eq!(shares, ["4", "5"], "one is left for who waits");
        scene.refuse(0, &one, 486);
        scene.refuse(1, &two, 486);
        let three = scene.take(2, "INVITE");
        assert_eq!(three.header("Max-Breadth"), "10");
        scene.refuse(2, &three, 486);
        scene.hears(486);
        scene.ack();
        scene.lab.finish();
    }
}

#[test]
fn without_breadth_the_next_waits_for_the_end_of_who_was_cancelled() {
    for at in lab::placements() {
        let mut scene = scene(at, "INVITE", &["1", "0.5"], &["Max-Breadth: 1"]);
        let one = scene.take(0, "INVITE");
        assert_eq!(one.header("Max-Breadth"), "1");
        scene.answer(0, &one, 180);
        scene.hears(180);
        scene.lab.pass(RING);
        scene.silent(1);
        scene.is_cancelled(0, &one);
        let two = scene.take(1, "INVITE");
        assert_eq!(two.header("Max-Breadth"), "1");
        scene.refuse(1, &two, 486);
        scene.hears(486);
        scene.ack();
        scene.lab.finish();
    }
}

#[test]
fn a_flow_that_is_gone_makes_room_for_the_next_group_at_once() {
    for at in lab::placements() {
        let mut scene = scene(at, "INVITE", &["1", "0.5"], &[]);
        let one = scene.take(0, "INVITE");
        scene.answer(0, &one, 180);
        scene.hears(180);
        scene.phones[0].leave(&mut scene.lab, CloseReason::Reset);
        let two = scene.take(1, "INVITE");
        scene.answer(1, &two, 200);
        scene.hears(200);
        scene.lab.finish();
    }
}
