//! Phones over UDP lose no flow with the process (RFC 5626 §5.3: the flow is a pair of addresses): the
//! tokens of their dialogs lead to them in the next run, and to nobody who proves less than before.

use std::time::Duration;

use sipring::base::config::Persistence;
use sipring::base::id::Transport;

use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, CORE, Lab, user_of};

const PHONE: &str = "203.0.113.5:40001";
const CONTACT: &str = "sip:a@10.0.0.7:5070";

/// A call to a registered phone over UDP, in the run that ends.
struct Before {
    lab: Lab,
    invite: Sip,
    answer: Sip,
}

fn config() -> sipring::base::config::Config {
    lab::config_with(|config| config.registrar.persistence = Persistence::Delayed)
}

fn answered(shards: u16, by: Transport, remote: &str) -> Before {
    let mut lab = Lab::new(shards, config());
    let user = user_of(0, shards, 0);
    let phone = Phone::connect(&mut lab, shards - 1, Transport::Udp, PHONE);
    phone.register(&mut lab, &user, &format!("<{CONTACT}>"));
    let caller = Phone::connect(&mut lab, 0, by, remote);
    let draft = request(&caller, "INVITE", &format!("sip:{user}@example.com"), "call")
        .line("Contact: <sip:c@c.invalid;transport=ws>");
    caller.send(&mut lab, &draft.text());
    let invite = phone.take_method(&mut lab, "INVITE");
    let contact = format!("Contact: <{CONTACT}>");
    phone.send(&mut lab, &invite.response(200, "t", &[&contact]));
    let mut answers = caller.take(&mut lab);
    answers.retain(|it| it.status() == 200);
    let answer = answers.pop().expect("200");
    Before { lab, invite, answer }
}

impl Before {
    fn next_run(&self, shards: u16) -> (Lab, Phone) {
        let mut lab = Lab::with_epoch(shards, config(), 2);
        lab.restore(&self.lab, Duration::from_secs(3));
        assert_eq!(lab.count(|it| it.bindings_restored), 1);
        let phone = Phone::connect(&mut lab, 0, Transport::Udp, PHONE);
        (lab, phone)
    }

    fn by_caller(&self, caller: &Phone, method: &str) -> Draft {
        let mut route = self.answer.record_route();
        route.reverse();
        request(caller, method, CONTACT, "call")
            .branch(caller, method)
            .to(&format!("{};tag=t", self.invite.header("To")))
            .cseq(2)
            .route(&route)
    }

    fn by_phone(&self, phone: &Phone, method: &str) -> Draft {
        request(phone, method, "sip:c@c.invalid;transport=ws", "call")
            .branch(phone, &format!("{method}back"))
            .from(&format!("{};tag=t", self.invite.header("To")))
            .to(self.invite.header("From"))
            .cseq(7)
            .route(&self.invite.record_route())
    }
}

const RUNS: [(u16, u16); 3] = [(1, 1), (1, 3), (3, 2)];

#[test]
fn a_bye_finds_the_phone_in_the_next_run() {
    for (before, after) in RUNS {
        for (by, remote) in [
            (Transport::Udp, CORE),
            (Transport::Udp, "203.0.113.9:5060"),
            (Transport::Wss, "203.0.113.9:40009"),
        ] {
            println!("{before} {after} {by:?} {remote}");
            let former = answered(before, by, remote);
            let (mut lab, phone) = former.next_run(after);
            let caller = Phone::connect(&mut lab, after - 1, by, remote);
            for method in ["INFO", "BYE"] {
                caller.send(&mut lab, &former.by_caller(&caller, method).text());
                let got = phone.take_method(&mut lab, method);
                assert_eq!((got.uri(), got.find("Route")), (CONTACT, None));
                phone.send(&mut lab, &got.response(200, "", &[]));
                caller.take_status(&mut lab, 200);
            }
            lab.finish();
        }
    }
}

/// Between two phones either finds the other; one whose address has changed is not led back to it.
#[test]
fn a_phone_is_never_led_back_to_what_it_left() {
    for (before, after) in RUNS {
        let former = answered(before, Transport::Udp, "203.0.113.9:5060");
        let (mut lab, phone) = former.next_run(after);
        let caller = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.9:5060");
        phone.send(&mut lab, &former.by_phone(&phone, "INFO").text());
        let got = caller.take_method(&mut lab, "INFO");
        caller.send(&mut lab, &got.response(200, "", &[]));
        phone.take_status(&mut lab, 200);
        lab.finish();

        let former = answered(before, Transport::Wss, "203.0.113.9:40009");
        let (mut lab, left) = former.next_run(after);
        let moved = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.5:40002");
        moved.send(&mut lab, &former.by_phone(&moved, "INFO").text());
        left.heard_nothing(&mut lab);
        let status = moved.take_one(&mut lab).status();
        assert!(matches!(status, 403 | 480), "{status}");
        lab.finish();
    }
}

/// Another Call-ID, or no dialog at all: the token opens nothing (RFC 5626 §5.3).
#[test]
fn a_token_of_another_run_is_good_for_its_dialog_alone() {
    for (before, after) in RUNS {
        let former = answered(before, Transport::Wss, "203.0.113.9:40009");
        let (mut lab, phone) = former.next_run(after);
        let thief = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.66:40066");
        let other = former.by_caller(&thief, "INFO").call_id("other@lab");
        thief.send(&mut lab, &other.text());
        thief.take_status(&mut lab, 403);
        let fresh = former.by_caller(&thief, "MESSAGE").to(&format!("<{CONTACT}>"));
        thief.send(&mut lab, &fresh.text());
        thief.take_status(&mut lab, 480);
        phone.heard_nothing(&mut lab);
        lab.finish();
    }
}
