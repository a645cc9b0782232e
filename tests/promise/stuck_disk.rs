//! With `store_sync` a REGISTER is answered 200 (RFC 3261 §10.3 step 8) when what it says is durable,
//! and not by what is in memory alone: in order, whatever the disk is doing.

use sipring::base::config::{Config, Persistence};
use sipring::base::id::Transport;
use sipring::base::limits::STORE_WAIT_MAX;
use sipring::engine::Input;

use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::{self, Lab};

const PHONE: &str = "203.0.113.5:40001";
const CONTACT: &str = "<sip:a@10.0.0.7>";
const GONE: &str = "<sip:a@10.0.0.7>;expires=0";

fn config() -> Config {
    lab::config_with(|config| config.registrar.persistence = Persistence::Synchronous)
}

fn start() -> (Lab, Phone) {
    let mut lab = Lab::new(1, config());
    let phone = Phone::connect(&mut lab, 0, Transport::Udp, PHONE);
    (lab, phone)
}

fn registration(phone: &Phone, user: &str, contact: &str, cseq: u32) -> Draft {
    request(phone, "REGISTER", "sip:example.com", &format!("reg{user}{cseq}"))
        .to(&format!("<sip:{user}@example.com>"))
        .call_id(&format!("call-{user}"))
        .cseq(cseq)
        .line(&format!("Contact: {contact}"))
}

/// Sends it; the number of the last change that the store was given by then.
fn send(lab: &mut Lab, phone: &Phone, draft: &Draft) -> u64 {
    phone.send(lab, &draft.text());
    phone.heard_nothing(lab);
    lab.shelf.last_of(0)
}

/// Up to that change all is durable: the one REGISTER that is answered then.
fn answered(lab: &mut Lab, phone: &Phone, serial: u64) -> String {
    lab.input(0, Input::Stored { serial });
    phone.take_status(lab, 200).header("CSeq").to_owned()
}

#[test]
fn answers_go_out_in_order_each_with_its_own_change() {
    let (mut lab, phone) = start();
    let all: Vec<(u32, u64)> = (1..=5)
        .map(|n| {
            let draft = registration(&phone, &format!("user{n}"), CONTACT, n);
            (n, send(&mut lab, &phone, &draft))
        })
        .collect();
    for (n, serial) in all {
        assert_eq!(answered(&mut lab, &phone, serial), format!("{n} REGISTER"));
        phone.heard_nothing(&mut lab);
    }
    lab.finish();
}

/// What is in memory already is not durable for that.
#[test]
fn a_refresh_is_not_answered_before_the_registration() {
    let (mut lab, phone) = start();
    let first = send(&mut lab, &phone, &registration(&phone, "alice", CONTACT, 1));
    let second = send(&mut lab, &phone, &registration(&phone, "alice", CONTACT, 2));
    assert!(first < second, "a refresh is a change");
    assert_eq!(answered(&mut lab, &phone, first), "1 REGISTER");
    phone.heard_nothing(&mut lab);
    assert_eq!(answered(&mut lab, &phone, second), "2 REGISTER");
    lab.finish();
}

/// A REGISTER that finds nothing left to change, since an earlier one did it, promises what that one
/// promises: if the process failed now, the binding would be there again.
#[test]
fn a_removal_of_what_is_removed_waits_for_the_removal() {
    let all = |phone: &Phone| registration(phone, "alice", "*", 3).line("Expires: 0");
    let again = |phone: &Phone| registration(phone, "alice", GONE, 3);
    for later in [&all as &dyn Fn(&Phone) -> Draft, &again] {
        let (mut lab, phone) = start();
        let added = send(&mut lab, &phone, &registration(&phone, "alice", CONTACT, 1));
        answered(&mut lab, &phone, added);
        let removed = send(&mut lab, &phone, &registration(&phone, "alice", GONE, 2));
        let last = send(&mut lab, &phone, &later(&phone));
        assert_eq!(last, removed, "nothing changed");
        // A query asks what is in force.
        let query = request(&phone, "REGISTER", "sip:example.com", "query");
        phone.send(&mut lab, &query.to("<sip:alice@example.com>").text());
        assert_eq!(phone.take_status(&mut lab, 200).find("Contact"), None);
        lab.input(0, Input::Stored { serial: removed });
        let heard = phone.take(&mut lab);
        let answers: Vec<_> = heard.iter().map(|it| (it.status(), it.header("CSeq"))).collect();
        assert_eq!(answers, [(200, "2 REGISTER"), (200, "3 REGISTER")]);
        // Nothing is on its way to the disk any more.
        let idle = registration(&phone, "alice", GONE, 4);
        phone.send(&mut lab, &idle.text());
        phone.take_status(&mut lab, 200);
        lab.finish();
    }
}

/// A disk that takes nothing: nobody hears 200, everybody 500 in the end; when it takes what it was
/// given, no answer comes a second time.
#[test]
fn a_disk_that_fails_is_told_to_everybody() {
    let (mut lab, phone) = start();
    send(&mut lab, &phone, &registration(&phone, "alice", CONTACT, 1));
    send(&mut lab, &phone, &registration(&phone, "alice", GONE, 2));
    send(&mut lab, &phone, &registration(&phone, "alice", GONE, 3));
    lab.pass(STORE_WAIT_MAX);
    let mut heard = phone.take(&mut lab);
    heard.retain(|it| it.status() != 100);
    let answers: Vec<_> = heard.iter().map(|it| (it.status(), it.header("CSeq"))).collect();
    assert_eq!(answers, [(500, "1 REGISTER"), (500, "2 REGISTER"), (500, "3 REGISTER")]);
    assert!(heard.iter().all(|it| it.find("Retry-After").is_some()), "{heard:#?}");
    assert_eq!(lab.count(|it| it.registrations_not_stored), 3);
    lab.make_durable();
    phone.heard_nothing(&mut lab);
    lab.finish();
}
