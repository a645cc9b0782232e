//! Guesses of passwords: so many of one address are looked at, then none, of whomever (RFC 3261
//! §22.4, §20.33). The address pays, not the user whose password is guessed at.

use std::time::Duration;

use sipring::base::id::Transport;

use crate::client::{ask, lab_of, log_in, register};
use crate::lab::Lab;
use crate::lab::digest::{Challenge, Response};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;

const ADDRESS: &str = "203.0.113.5:40001";
const NEIGHBOUR: &str = "203.0.113.6:40001";
/// By default.
const MOST: u32 = 100;

fn credentials(challenge: &Challenge, user: &str, password: &str) -> String {
    let response = Response::new(challenge, (user, password), "REGISTER", "sip:example.com");
    format!("Authorization: {}", response.value())
}

fn try_password(lab: &mut Lab, phone: &Phone, challenge: &Challenge, password: &str) -> Sip {
    let name = format!("g{}", lab.serial());
    let line = credentials(challenge, "alice", password);
    ask(lab, phone, &register(phone, "alice", &name, 1).line(&line))
}

fn challenged(lab: &mut Lab, phone: &Phone) -> Challenge {
    let name = format!("c{}", lab.serial());
    Challenge::last(&ask(lab, phone, &register(phone, "alice", &name, 1)))
}

/// Guesses until no more is looked at; how many were.
fn exhaust(lab: &mut Lab, phone: &Phone) -> u32 {
    let mut tried = 0;
    loop {
        let challenge = challenged(lab, phone);
        match try_password(lab, phone, &challenge, "wrong").status() {
            401 => tried += 1,
            500 => return tried,
            status => panic!("{status} after {tried}"),
        }
        assert!(tried <= MOST, "there is a bound");
    }
}

#[test]
fn with_too_many_wrong_ones_even_the_right_one_is_not_looked_at() {
    for transport in Transport::ALL {
        let mut lab = lab_of(1, &["alice"]);
        let phone = Phone::connect(&mut lab, 0, transport, ADDRESS);
        assert_eq!(exhaust(&mut lab, &phone), MOST, "{transport:?}");
        let challenge = challenged(&mut lab, &phone);
        let wrong = try_password(&mut lab, &phone, &challenge, "wrong");
        let right = try_password(&mut lab, &phone, &challenge, "secret");
        for answer in [&wrong, &right] {
            assert_eq!(answer.status(), 500);
            assert_eq!(answer.header("Retry-After"), "10");
        }
        assert_eq!(lab.count(|it| it.credentials_put_off), 3);
        assert_eq!(lab.count(|it| it.credentials_accepted), 0);
        lab.pass(Duration::from_secs(5));
        let challenge = challenged(&mut lab, &phone);
        assert_eq!(try_password(&mut lab, &phone, &challenge, "secret").status(), 200);
        lab.finish();
    }
}

#[test]
fn the_user_is_not_locked_out_and_what_was_proved_stands() {
    let mut lab = lab_of(1, &["alice", "bob"]);
    let browser = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let challenge = log_in(&mut lab, &browser, "bob");
    let guesser = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40002");
    exhaust(&mut lab, &guesser);
    let elsewhere = Phone::connect(&mut lab, 0, Transport::Wss, NEIGHBOUR);
    log_in(&mut lab, &elsewhere, "alice");
    let again = register(&browser, "bob", "again", 1).line(&credentials(&challenge, "bob", "x"));
    assert_eq!(ask(&mut lab, &browser, &again).status(), 200, "the flow has proved who it is");
    lab.finish();
}

#[test]
fn an_account_of_ones_own_does_not_pay_for_guesses_at_others() {
    let mut lab = lab_of(1, &["alice", "mallory"]);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let challenge = challenged(&mut lab, &phone);
    let several = |user: &str, passwords: &[&str], last: &str, serial: usize| {
        let draft = register(&phone, "alice", &format!("s{serial}"), 1);
        let draft = passwords
            .iter()
            .fold(draft, |draft, password| draft.line(&credentials(&challenge, user, password)));
        draft.line(&credentials(&challenge, last, "secret"))
    };
    for serial in 0..MOST as usize {
        let own = several("mallory", &["a", "b"], "mallory", serial);
        assert_eq!(ask(&mut lab, &phone, &own).status(), 403, "not mallory's address of record");
    }
    let mut tried = 0;
    loop {
        let guesses = several("alice", &["a", "b"], "mallory", 1000 + tried);
        match ask(&mut lab, &phone, &guesses).status() {
            403 => tried += 1,
            401 => break,
            status => panic!("{status} after {tried}"),
        }
        assert!(tried <= MOST as usize / 2, "two a request");
    }
    assert_eq!(tried, MOST as usize / 2);
    let right = try_password(&mut lab, &phone, &challenge, "secret");
    assert_eq!(right.status(), 401, "the flow is mallory's, and nothing else is looked at");
    lab.finish();
}

/// Who sends datagrams in another's name hears no challenge, and cannot use up what that other has.
#[test]
fn a_forged_source_pays_for_nothing() {
    let mut lab = lab_of(1, &["alice"]);
    let victim = Phone::connect(&mut lab, 0, Transport::Udp, ADDRESS);
    let mallory = Phone::connect(&mut lab, 0, Transport::Udp, NEIGHBOUR);
    let overheard = challenged(&mut lab, &mallory);
    for _ in 0..2 * MOST {
        let answer = try_password(&mut lab, &victim, &overheard, "wrong");
        assert_eq!(answer.status(), 401);
        assert!(Challenge::last(&answer).stale, "a nonce of another flow says nothing");
    }
    log_in(&mut lab, &victim, "alice");
    lab.finish();
}
