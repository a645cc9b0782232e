//! One user on two clients (RFC 3261 §16.7): who wins, who is cancelled, what the caller hears.

use std::time::Duration;

use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, Lab, Placement, user_of};

const ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";

struct Scene {
    lab: Lab,
    caller: Phone,
    one: Phone,
    two: Phone,
    invite: Draft,
    at_one: Sip,
    at_two: Sip,
}

/// The caller has sent an INVITE, both clients have it, nobody has said anything.
fn scene(at: Placement, by: Transport) -> Scene {
    let mut lab = Lab::new(at.shards, lab::config());
    let user = user_of(at.owner, at.shards, 0);
    let one = Phone::connect(&mut lab, at.flow, Transport::Wss, "203.0.113.5:40001");
    let two = Phone::connect(&mut lab, at.arrival, Transport::Udp, "203.0.113.6:40002");
    one.register(&mut lab, &user, "<sip:one@aa.invalid;transport=ws>");
    two.register(&mut lab, &user, "<sip:two@10.0.0.7>");
    let remote = if by == Transport::Udp { lab::CORE } else { "203.0.113.9:40009" };
    let caller = Phone::connect(&mut lab, at.arrival, by, remote);
    let invite = request(&caller, "INVITE", &format!("sip:{user}@example.com"), "i");
    caller.send(&mut lab, &invite.text());
    caller.take_status(&mut lab, 100);
    let at_one = one.take_method(&mut lab, "INVITE");
    let at_two = two.take_method(&mut lab, "INVITE");
    Scene { lab, caller, one, two, invite, at_one, at_two }
}

fn every_scene(mut each: impl FnMut(&mut Scene)) {
    for at in lab::placements() {
        for by in [Transport::Udp, Transport::Wss] {
            let mut scene = scene(at, by);
            each(&mut scene);
            scene.lab.finish();
            scene.caller.heard_nothing(&mut scene.lab);
        }
    }
}

impl Scene {
    fn ring(&mut self, client: Phone, status: u16) {
        let invite = if client.remote == self.one.remote { &self.at_one } else { &self.at_two };
        client.send(&mut self.lab, &invite.response(status, "t", &[]));
    }

    fn cancelled(&mut self, client: Phone, reason: Option<&str>) {
        let cancel = client.take_method(&mut self.lab, "CANCEL");
        let invite = if client.remote == self.one.remote { &self.at_one } else { &self.at_two };
        assert_eq!(cancel.find("Reason"), reason);
        for same in ["Via", "From", "To", "Call-ID"] {
            let told = invite.find(same).or(invite.find("f")).expect("it has it");
            assert_eq!(cancel.header(same), told, "RFC 3261 §9.1");
        }
        assert_eq!((cancel.uri(), cancel.header("CSeq")), (invite.uri(), "1 CANCEL"));
        client.send(&mut self.lab, &cancel.response(200, "t", &[]));
        self.ring(client, 487);
        let ack = client.take_method(&mut self.lab, "ACK");
        assert_eq!(ack.header("CSeq"), "1 ACK");
    }

    fn cancel(&mut self, lines: &[&str]) {
        let mut cancel = self.invite.clone().method("CANCEL");
        for line in lines {
            cancel = cancel.line(line);
        }
        self.caller.send(&mut self.lab, &cancel.text());
        let answer = self.caller.take_status(&mut self.lab, 200);
        assert_eq!(answer.header("CSeq"), "1 CANCEL");
    }

    fn ack(&mut self) {
        self.caller.send(&mut self.lab, &self.invite.clone().method("ACK").text());
    }
}

#[test]
fn the_first_2xx_wins_and_the_other_hears_why() {
    every_scene(|scene| {
        let (one, two) = (scene.one, scene.two);
        scene.ring(two, 180);
        scene.caller.take_status(&mut scene.lab, 180);
        scene.ring(one, 200);
        scene.caller.take_status(&mut scene.lab, 200);
        scene.cancelled(two, Some(ELSEWHERE));
        scene.caller.heard_nothing(&mut scene.lab);
    });
}

#[test]
fn who_has_not_answered_at_all_is_cancelled_at_its_first_provisional() {
    every_scene(|scene| {
        let (one, two) = (scene.one, scene.two);
        scene.ring(one, 200);
        scene.caller.take_status(&mut scene.lab, 200);
        two.heard_nothing(&mut scene.lab);
        scene.ring(two, 100);
        scene.cancelled(two, Some(ELSEWHERE));
        scene.caller.heard_nothing(&mut scene.lab);
    });
}

#[test]
fn when_nobody_takes_the_call_the_best_response_goes_up() {
    let table = [
        (486, 603, 603),
        (486, 480, 486),
        (408, 486, 486),
        (404, 401, 401),
        (503, 486, 486),
        (503, 503, 500),
        (302, 486, 302),
        (600, 302, 600),
    ];
    for (first, second, best) in table {
        every_scene(|scene| {
            let (one, two) = (scene.one, scene.two);
            scene.ring(one, first);
            one.take_method(&mut scene.lab, "ACK");
            if first >= 600 {
                scene.ring(two, 100);
                two.take_method(&mut scene.lab, "CANCEL");
            }
            scene.caller.heard_nothing(&mut scene.lab);
            scene.ring(two, second);
            two.take_method(&mut scene.lab, "ACK");
            scene.caller.take_status(&mut scene.lab, best);
            scene.ack();
        });
    }
}

#[test]
fn a_6xx_cancels_the_others() {
    every_scene(|scene| {
        let (one, two) = (scene.one, scene.two);
        scene.ring(two, 180);
        scene.caller.take_status(&mut scene.lab, 180);
        scene.ring(one, 603);
        one.take_method(&mut scene.lab, "ACK");
        scene.cancelled(two, None);
        scene.caller.take_status(&mut scene.lab, 603);
        scene.ack();
    });
}

#[test]
fn the_callers_cancel_waits_for_a_provisional_of_each() {
    for reason in [None, Some("Q.850;cause=16;text=\"gone\"")] {
        every_scene(|scene| {
            let (one, two) = (scene.one, scene.two);
            scene.ring(one, 180);
            scene.caller.take_status(&mut scene.lab, 180);
            let line = reason.map(|reason| format!("Reason: {reason}"));
            scene.cancel(&line.iter().map(String::as_str).collect::<Vec<_>>());
            two.heard_nothing(&mut scene.lab);
            scene.cancelled(one, reason);
            scene.caller.heard_nothing(&mut scene.lab);
            scene.ring(two, 180);
            let _ = scene.caller.take(&mut scene.lab);
            scene.cancelled(two, reason);
            scene.caller.take_status(&mut scene.lab, 487);
            scene.ack();
        });
    }
}

#[test]
fn a_cancel_of_nothing_is_481_and_one_too_late_is_200_without_effect() {
    every_scene(|scene| {
        let (one, two) = (scene.one, scene.two);
        let stray = scene.invite.clone().method("CANCEL").branch(&scene.caller, "other");
        scene.caller.send(&mut scene.lab, &stray.text());
        scene.caller.take_status(&mut scene.lab, 481);
        scene.ring(two, 180);
        scene.caller.take_status(&mut scene.lab, 180);
        scene.ring(one, 200);
        scene.caller.take_status(&mut scene.lab, 200);
        scene.cancelled(two, Some(ELSEWHERE));
        scene.cancel(&[]);
        one.heard_nothing(&mut scene.lab);
        two.heard_nothing(&mut scene.lab);
    });
}

#[test]
fn two_2xx_both_reach_the_caller() {
    every_scene(|scene| {
        let (one, two) = (scene.one, scene.two);
        scene.ring(two, 180);
        scene.caller.take_status(&mut scene.lab, 180);
        scene.ring(one, 200);
        scene.caller.take_status(&mut scene.lab, 200);
        two.take_method(&mut scene.lab, "CANCEL");
        scene.ring(two, 200);
        scene.caller.take_status(&mut scene.lab, 200);
        scene.ring(two, 200);
        scene.caller.take_status(&mut scene.lab, 200);
    });
}

#[test]
fn a_2xx_after_the_callers_cancel_still_reaches_the_caller() {
    every_scene(|scene| {
        let (one, two) = (scene.one, scene.two);
        for client in [one, two] {
            scene.ring(client, 180);
            scene.caller.take_status(&mut scene.lab, 180);
        }
        scene.cancel(&[]);
        one.take_method(&mut scene.lab, "CANCEL");
        scene.ring(one, 200);
        scene.caller.take_status(&mut scene.lab, 200);
        scene.cancelled(two, None);
    });
}

#[test]
fn a_provisional_that_its_2xx_overtook_brings_no_cancel() {
    every_scene(|scene| {
        let (one, two) = (scene.one, scene.two);
        scene.cancel(&[]);
        scene.ring(one, 200);
        scene.caller.take_status(&mut scene.lab, 200);
        scene.ring(one, 180);
        one.heard_nothing(&mut scene.lab);
        scene.ring(two, 180);
        scene.cancelled(two, Some(ELSEWHERE));
    });
}

#[test]
fn a_caller_that_is_gone_leaves_nobody_ringing() {
    for at in lab::placements() {
        let mut scene = scene(at, Transport::Wss);
        let (one, two) = (scene.one, scene.two);
        scene.ring(one, 180);
        scene.caller.take_status(&mut scene.lab, 180);
        scene.caller.leave(&mut scene.lab, CloseReason::Reset);
        scene.cancelled(one, None);
        scene.ring(two, 180);
        scene.cancelled(two, None);
        scene.lab.finish();
    }
}

#[test]
fn a_forked_message_has_one_final_answer() {
    let table = [(200, 200, 200), (486, 200, 200), (404, 486, 404), (480, 603, 603)];
    for at in lab::placements() {
        for (first, second, best) in table {
            let mut scene = scene(at, Transport::Wss);
            let (one, two) = (scene.one, scene.two);
            let message = scene.invite.clone().method("MESSAGE").cseq(2);
            let message = message.branch(&scene.caller, "m");
            scene.caller.send(&mut scene.lab, &message.text());
            let at_one = one.take_method(&mut scene.lab, "MESSAGE");
            let at_two = two.take_method(&mut scene.lab, "MESSAGE");
            one.send(&mut scene.lab, &at_one.response(183, "t", &[]));
            one.send(&mut scene.lab, &at_one.response(first, "t", &[]));
            two.send(&mut scene.lab, &at_two.response(second, "t", &[]));
            scene.caller.take_status(&mut scene.lab, best);
            scene.lab.pass(Duration::from_secs(3));
            let _ = two.take(&mut scene.lab);
            scene.caller.leave(&mut scene.lab, CloseReason::Peer);
            scene.lab.finish();
        }
    }
}

#[test]
fn a_response_that_lost_the_callers_via_answers_nobody_and_leaves_nothing() {
    for status in [180, 200, 486] {
        every_scene(|scene| {
            let (one, two) = (scene.one, scene.two);
            let text = scene.at_one.response(status, "t", &[]);
            let mut lines: Vec<&str> = text.split("\r\n").collect();
            let at = lines.iter().rposition(|line| line.starts_with("Via")).expect("a Via");
            lines.remove(at);
            one.send(&mut scene.lab, &lines.join("\r\n"));
            scene.caller.heard_nothing(&mut scene.lab);
            scene.ring(one, 486);
            one.take_method(&mut scene.lab, "ACK");
            scene.ring(two, 486);
            two.take_method(&mut scene.lab, "ACK");
            scene.caller.take_status(&mut scene.lab, 486);
            scene.ack();
        });
    }
}
