//! An address translator gives the port of a client that left to another one (RFC 4787 §4.3): over
//! UDP the binding of the first leads to the second, which must not hear what is for the first.

use std::time::Duration;

use sipring::base::config::{Config, Persistence};
use sipring::base::id::Transport;

use crate::lab::digest::{Challenge, Response, Settings, with_digest};
use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, CORE, Lab, user_of};

pub const ADDRESS: &str = "203.0.113.1:4000";
/// Contacts of two phones behind one address, and what each may call itself.
pub const ONE: &str = "10.0.0.1:5070";
pub const TWO: &str = "10.0.0.2:5070";

/// A configuration in which users 0 to 99 have the password `secret`.
pub fn guarded() -> Config {
    let users: String = (0..100).map(|n| format!("user{n}:secret\n")).collect();
    with_digest(lab::config(), &Settings { users: &users, ..Settings::default() })
}

/// A REGISTER of a user whose Contact is at `place`; `more` are further parameters of it.
fn registration(phone: &Phone, user: &str, (place, more): (&str, &str), cseq: u32) -> Draft {
    let aor = format!("sip:{user}@example.com");
    request(phone, "REGISTER", "sip:example.com", &format!("r{user}{cseq}"))
        .call_id(&format!("{user}-{place}"))
        .from(&format!("<{aor}>;tag=f"))
        .to(&format!("<{aor}>"))
        .cseq(cseq)
        .line(&format!("Contact: <sip:{user}@{place}>{more}"))
}

pub fn authorization(challenge: &Challenge, user: &str, nc: u32) -> String {
    let login = (user, "secret");
    let response = Response::new(challenge, login, "REGISTER", "sip:example.com").nc(nc);
    format!("Authorization: {}", response.value())
}

/// Sends a request and gives back the one message that comes.
pub fn ask(lab: &mut Lab, phone: &Phone, draft: &Draft) -> Sip {
    phone.send(lab, &draft.text());
    phone.take_one(lab)
}

/// Registers as a phone does that knows no nonce yet.
pub fn log_in(lab: &mut Lab, phone: &Phone, user: &str, contact: (&str, &str)) -> Challenge {
    let cseq = 2 * lab.serial();
    let first = registration(phone, user, contact, cseq);
    let challenge = Challenge::last(&ask(lab, phone, &first));
    let again = registration(phone, user, contact, cseq + 1);
    let again = again.line(&authorization(&challenge, user, 1));
    assert_eq!(ask(lab, phone, &again).status(), 200);
    challenge
}

/// What becomes of a request for `user`: its status when it is refused, 0 when `phone` has it.
fn outcome(lab: &mut Lab, at: u16, user: &str, phone: &Phone) -> u16 {
    let core = Phone::connect(lab, at, Transport::Udp, CORE);
    let serial = lab.serial();
    let uri = format!("sip:{user}@example.com");
    core.send(lab, &request(&core, "MESSAGE", &uri, &format!("m{serial}")).text());
    let (mut heard, mut told) = (phone.take(lab), core.take(lab));
    match (heard.pop(), told.pop()) {
        (Some(request), None) if heard.is_empty() => {
            phone.send(lab, &request.response(200, "t", &[]));
            core.take_status(lab, 200);
            0
        }
        (None, Some(answer)) if told.is_empty() => answer.status(),
        other => panic!("{other:#?}"),
    }
}

#[test]
fn who_got_the_port_of_another_client_hears_nothing_of_its_requests() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, guarded());
        let (alice, bob) = (user_of(at.owner, at.shards, 0), user_of(at.flow, at.shards, 1));
        let phone = Phone::connect(&mut lab, at.arrival, Transport::Udp, ADDRESS);
        log_in(&mut lab, &phone, &alice, (ONE, ""));
        assert_eq!(outcome(&mut lab, at.arrival, &alice, &phone), 0);
        lab.pass(Duration::from_secs(60));
        log_in(&mut lab, &phone, &bob, (TWO, ""));
        assert_eq!(outcome(&mut lab, at.arrival, &alice, &phone), 480);
        assert_eq!(outcome(&mut lab, at.arrival, &bob, &phone), 0);
        assert_eq!(lab.count(|it| it.bindings_path_taken), 1);
        // Somewhere else she is there again, and takes nothing from him.
        let other = Phone::connect(&mut lab, at.flow, Transport::Udp, "203.0.113.1:4001");
        log_in(&mut lab, &other, &alice, (ONE, ""));
        assert_eq!(outcome(&mut lab, at.arrival, &alice, &other), 0);
        assert_eq!(outcome(&mut lab, at.arrival, &bob, &phone), 0);
        assert_eq!(lab.count(|it| it.bindings_path_taken), 1);
        lab.finish();
    }
}

/// By its Contact alone a server finds who was there no more, and by the other's the other.
#[test]
fn a_contact_of_who_was_there_leads_nowhere() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, guarded());
        let (alice, bob) = (user_of(at.owner, at.shards, 0), user_of(at.flow, at.shards, 1));
        let phone = Phone::connect(&mut lab, at.arrival, Transport::Udp, ADDRESS);
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        log_in(&mut lab, &phone, &alice, (ONE, ""));
        log_in(&mut lab, &phone, &bob, (TWO, ""));
        for (user, place, is_found) in [(&alice, ONE, false), (&bob, TWO, true)] {
            let to = format!("<sip:{user}@example.com>;tag=t");
            let inside = request(&core, "INFO", &format!("sip:{user}@{place}"), user).to(&to);
            core.send(&mut lab, &inside.text());
            assert_eq!(!phone.take(&mut lab).is_empty(), is_found, "{place}");
            assert_eq!(core.take(&mut lab).is_empty(), is_found, "{place}");
        }
    }
}

/// Which pairs of Contacts are two devices, and which may be one.
#[test]
fn only_what_evidently_is_another_device_ends_a_binding() {
    const A: &str = ";+sip.instance=\"<urn:uuid:A>\"";
    const A_LOWER: &str = ";+sip.instance=\"<urn:uuid:a>\"";
    const B: &str = ";+sip.instance=\"<urn:uuid:B>\"";
    for (first, second, is_ended) in [
        ((ONE, ""), (TWO, ""), true),
        ((ONE, ""), ("10.0.0.1:5080", ""), true),
        ((ONE, A), (TWO, B), true),
        ((ONE, A), (TWO, ""), true),
        ((ONE, ";ob"), (TWO, ""), true),
        (("pc1.home.example", ""), ("pc2.home.example", ""), true),
        // Two users of one phone.
        ((ONE, ""), (ONE, ""), false),
        ((ONE, A), (TWO, A_LOWER), false),
        (("10.0.0.1", ""), ("10.0.0.1:5060", ""), false),
        (("pc1.home.example", ""), ("PC1.Home.Example", ""), false),
        // A server with many users that says what their phones call themselves.
        ((ONE, A), (ONE, B), false),
        // A phone that has learnt its address, of one user sooner than of the other.
        ((ADDRESS, ""), (TWO, ""), false),
        ((ONE, ""), (ADDRESS, B), false),
        ((ADDRESS, A), (TWO, B), true),
        ((ONE, A), (ADDRESS, B), true),
    ] {
        for shards in [1, 3] {
            let mut lab = Lab::new(shards, guarded());
            let (alice, bob) = (user_of(0, shards, 0), user_of(shards - 1, shards, 1));
            let phone = Phone::connect(&mut lab, 0, Transport::Udp, ADDRESS);
            log_in(&mut lab, &phone, &alice, first);
            log_in(&mut lab, &phone, &bob, second);
            let expected = if is_ended { 480 } else { 0 };
            let case = format!("{first:?} {second:?} {shards}");
            assert_eq!(outcome(&mut lab, 0, &alice, &phone), expected, "{case}");
            assert_eq!(outcome(&mut lab, 0, &bob, &phone), 0, "{case}");
            assert_eq!(lab.count(|it| it.bindings_path_taken), u64::from(is_ended), "{case}");
        }
    }
}

#[test]
fn two_users_of_one_phone_refresh_in_peace() {
    for shards in [1, 3] {
        let mut lab = Lab::new(shards, guarded());
        let (alice, bob) = (user_of(0, shards, 0), user_of(shards - 1, shards, 1));
        let phone = Phone::connect(&mut lab, 0, Transport::Udp, ADDRESS);
        for _ in 0..5 {
            for user in [&alice, &bob] {
                log_in(&mut lab, &phone, user, (ONE, ""));
                assert_eq!(outcome(&mut lab, 0, user, &phone), 0);
            }
            lab.pass(Duration::from_secs(600));
        }
        assert_eq!(lab.count(|it| it.bindings_path_taken), 0);
    }
}

/// One user's two devices are its own to sort out: both stay.
#[test]
fn another_device_of_the_same_user_ends_nothing() {
    let mut lab = Lab::new(1, guarded());
    let phone = Phone::connect(&mut lab, 0, Transport::Udp, ADDRESS);
    log_in(&mut lab, &phone, "user1", (ONE, ""));
    log_in(&mut lab, &phone, "user1", (TWO, ""));
    assert_eq!(lab.count(|it| it.bindings_path_taken), 0);
    assert_eq!(lab.engines[0].gauges().bindings, 2);
}

/// Who shows nothing, or not that it hears what is sent to its source, takes nothing from others.
#[test]
fn without_a_nonce_that_was_answered_nothing_ends() {
    for shards in [1, 3] {
        let mut lab = Lab::new(shards, lab::config());
        let (alice, bob) = (user_of(0, shards, 0), user_of(shards - 1, shards, 1));
        let phone = Phone::connect(&mut lab, 0, Transport::Udp, ADDRESS);
        for (user, contact) in [(&alice, (ONE, "")), (&bob, (TWO, ""))] {
            let draft = registration(&phone, user, contact, 1);
            assert_eq!(ask(&mut lab, &phone, &draft).status(), 200);
        }
        assert_eq!(outcome(&mut lab, 0, &alice, &phone), 0);
        // A nonce of another association is no answer from this one.
        let mut lab = Lab::new(shards, guarded());
        let phone = Phone::connect(&mut lab, 0, Transport::Udp, ADDRESS);
        let away = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.9:4000");
        log_in(&mut lab, &phone, &alice, (ONE, ""));
        let challenge = log_in(&mut lab, &away, &bob, (TWO, ""));
        let forged = registration(&phone, &bob, (TWO, ""), 900);
        let forged = forged.line(&authorization(&challenge, &bob, 2));
        assert_eq!(ask(&mut lab, &phone, &forged).status(), 401);
        assert_eq!(outcome(&mut lab, 0, &alice, &phone), 0);
        assert_eq!(lab.count(|it| it.bindings_path_taken), 0);
    }
}

/// What comes by another proxy shows who is at that proxy's end of the association, not who is at
/// the client's.
#[test]
fn a_registration_by_another_proxy_ends_nothing() {
    let mut lab = Lab::new(1, guarded());
    let phone = Phone::connect(&mut lab, 0, Transport::Udp, ADDRESS);
    log_in(&mut lab, &phone, "user1", (ONE, ""));
    let relayed = |draft: Draft, branch: &str| {
        draft.vias(&[&phone.via(branch), "Via: SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bKinner"])
    };
    let first = relayed(registration(&phone, "user2", (TWO, ""), 1), "p1");
    let challenge = Challenge::last(&ask(&mut lab, &phone, &first));
    let again = registration(&phone, "user2", (TWO, ""), 2);
    let again = relayed(again.line(&authorization(&challenge, "user2", 1)), "p2");
    assert_eq!(ask(&mut lab, &phone, &again).status(), 200);
    assert_eq!(outcome(&mut lab, 0, "user1", &phone), 0);
    assert_eq!(lab.count(|it| it.bindings_path_taken), 0);
}

/// The word of who got the port is late: she has registered there anew meanwhile.
#[test]
fn a_later_registration_is_not_ended_by_an_earlier_one() {
    let mut lab = Lab::new(2, guarded());
    let (alice, bob) = (user_of(0, 2, 0), user_of(1, 2, 1));
    let at_home = Phone::connect(&mut lab, 0, Transport::Udp, ADDRESS);
    let phone = at_home.at_shard(1);
    let first = registration(&phone, &bob, (TWO, ""), 1);
    let challenge = Challenge::last(&ask(&mut lab, &phone, &first));
    let again = |lab: &mut Lab, is_held: bool| {
        lab.hold = is_held;
        let draft = registration(&phone, &bob, (TWO, ""), 2);
        let draft = draft.line(&authorization(&challenge, &bob, 1));
        assert_eq!(ask(lab, &phone, &draft).status(), 200);
    };
    again(&mut lab, true);
    lab.pass(Duration::from_secs(60));
    let draft = registration(&at_home, &alice, (ONE, ""), 1);
    let challenge = Challenge::last(&ask(&mut lab, &at_home, &draft));
    let draft = registration(&at_home, &alice, (ONE, ""), 2);
    let draft = draft.line(&authorization(&challenge, &alice, 1));
    assert_eq!(ask(&mut lab, &at_home, &draft).status(), 200);
    lab.release();
    assert_eq!(outcome(&mut lab, 0, &alice, &at_home), 0);
    // What she said reached him after that, and ends what he had.
    assert_eq!(outcome(&mut lab, 0, &bob, &at_home), 480);
    assert_eq!(lab.count(|it| it.bindings_path_taken), 1);
}

/// Who comes back to a port with the nonce that it was sent there long ago shows nothing: another may
/// have it by now. It is challenged again, and then shows it.
#[test]
fn an_old_nonce_shows_nobody() {
    for shards in [1, 3] {
        let mut lab = Lab::new(shards, guarded());
        let (alice, bob) = (user_of(0, shards, 0), user_of(shards - 1, shards, 1));
        let phone = Phone::connect(&mut lab, 0, Transport::Udp, ADDRESS);
        let old = log_in(&mut lab, &phone, &bob, (TWO, ""));
        lab.pass(Duration::from_secs(600));
        log_in(&mut lab, &phone, &alice, (ONE, ""));
        lab.pass(Duration::from_secs(600));
        let again = registration(&phone, &bob, (TWO, ""), 900);
        let answer = ask(&mut lab, &phone, &again.line(&authorization(&old, &bob, 2)));
        let fresh = Challenge::last(&answer);
        assert!(fresh.stale && fresh.nonce != old.nonce);
        assert_eq!(outcome(&mut lab, 0, &alice, &phone), 0);
        lab.pass(Duration::from_secs(30));
        let again = registration(&phone, &bob, (TWO, ""), 901);
        let again = again.line(&authorization(&fresh, &bob, 1));
        assert_eq!(ask(&mut lab, &phone, &again).status(), 200);
        assert_eq!(outcome(&mut lab, 0, &alice, &phone), 480);
        assert_eq!(outcome(&mut lab, 0, &bob, &phone), 0);
        // Where it is, it refreshes with a nonce of any age.
        lab.pass(Duration::from_secs(600));
        let again = registration(&phone, &bob, (TWO, ""), 902);
        let again = again.line(&authorization(&fresh, &bob, 2));
        assert_eq!(ask(&mut lab, &phone, &again).status(), 200);
        assert_eq!(lab.count(|it| it.bindings_path_taken), 2);
        lab.finish();
    }
}

/// Without translation the Contact is dialled at its own address, which is given to another machine,
/// or to a translator with many behind it.
#[test]
fn an_address_that_is_dialled_may_become_another_devices() {
    const A: &str = ";+sip.instance=\"<urn:uuid:A>\"";
    const B: &str = ";+sip.instance=\"<urn:uuid:B>\"";
    for shards in [1, 3] {
        for (first, second, status) in [(A, B, 480), (A, A, 0), ("", "", 0)] {
            let mut lab = Lab::new(shards, guarded());
            let (alice, bob) = (user_of(0, shards, 0), user_of(shards - 1, shards, 1));
            let phone = Phone::connect(&mut lab, 0, Transport::Udp, ADDRESS);
            log_in(&mut lab, &phone, &alice, (ADDRESS, first));
            assert_eq!(outcome(&mut lab, 0, &alice, &phone), 0);
            log_in(&mut lab, &phone, &bob, (TWO, second));
            assert_eq!(outcome(&mut lab, 0, &alice, &phone), status, "{first} {second}");
        }
    }
}

pub fn stored() -> Config {
    let mut config = guarded();
    config.registrar.persistence = Persistence::Delayed;
    config
}

#[test]
fn a_binding_of_a_former_run_is_told_apart_too() {
    for (before, after) in [(1, 1), (1, 3), (3, 1)] {
        for place in [ONE, ADDRESS] {
            let mut former = Lab::new(before, stored());
            let (alice, bob) = (user_of(0, after, 0), user_of(after - 1, after, 1));
            let phone = Phone::connect(&mut former, 0, Transport::Udp, ADDRESS);
            let one = (place, ";+sip.instance=\"<urn:uuid:A>\"");
            log_in(&mut former, &phone, &alice, one);
            let mut lab = Lab::with_epoch(after, stored(), 2);
            lab.restore(&former, Duration::from_secs(5));
            assert_eq!(outcome(&mut lab, 0, &alice, &phone), 0);
            log_in(&mut lab, &phone, &bob, (TWO, ";+sip.instance=\"<urn:uuid:B>\""));
            assert_eq!(outcome(&mut lab, 0, &alice, &phone), 480);
            assert_eq!(lab.shelf.count_of(&format!("{alice}@example.com")), 0);
            assert_eq!(lab.shelf.count_of(&format!("{bob}@example.com")), 1);
        }
    }
}

/// A shard failed, and its bindings come back while there is traffic: who is at a port by then was
/// told before the binding of who was there is known again.
#[test]
fn a_binding_that_comes_back_after_who_got_its_port_leads_nowhere() {
    for (shards, owner) in [(1, 0), (2, 0), (2, 1)] {
        for place in [ONE, ADDRESS] {
            let mut lab = Lab::new(shards, stored());
            let (alice, bob) = (user_of(0, shards, 0), user_of(owner, shards, 1));
            let phone = Phone::connect(&mut lab, shards - 1, Transport::Udp, ADDRESS);
            log_in(&mut lab, &phone, &alice, (place, ";+sip.instance=\"<urn:uuid:A>\""));
            let had = lab.shelf.clone();
            lab.restart(0, stored());
            log_in(&mut lab, &phone, &bob, (TWO, ";+sip.instance=\"<urn:uuid:B>\""));
            lab.restore_shard(0, &had);
            assert_eq!(outcome(&mut lab, 0, &alice, &phone), 480);
            assert_eq!(outcome(&mut lab, 0, &bob, &phone), 0);
            assert_eq!(lab.count(|it| it.bindings_path_taken), 1);
            assert_eq!(lab.shelf.count_of(&format!("{alice}@example.com")), 0);
            assert_eq!(lab.shelf.count_of(&format!("{bob}@example.com")), 1);
        }
    }
}
