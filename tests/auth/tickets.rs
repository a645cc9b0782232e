//! Time-limited credentials: a username with an expiry, a password that a shared secret makes of it
//! (draft-uberti-behave-turn-rest §2.2).

use std::sync::Arc;
use std::time::Duration;

use sipring::auth::ticket::{Password, parse_secrets};
use sipring::base::config::Config;
use sipring::base::id::Transport;
use sipring::base::identity::HmacFunction;
use sipring::engine::Input;

use crate::client::{ask, register, speaks_for, two_of};
use crate::lab::digest::{Challenge, Response, Settings, with_digest};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, CORE, Lab};

const ADDRESS: &str = "203.0.113.5:40001";
const SECRET: &str = "north wind and sun";
const NEXT: &str = "the next one to come";
/// When the credentials of these tests expire.
const EXPIRY: u64 = 1_893_456_000;
/// Of `printf %s 1893456000:alice | openssl dgst -sha1 -hmac 'north wind and sun' -binary | base64`.
const ALICE: (&str, &str) = ("1893456000:alice", "o1ZMqPhnNag3G6xUCfxHlDJahrA=");

fn config(secrets: &str) -> Config {
    with_digest(lab::config(), &Settings { secrets, ..Settings::default() })
}

/// A lab where the credentials are good for that many seconds.
fn lab_before(shards: u16, seconds: u64) -> Lab {
    let mut lab = Lab::new(shards, config(SECRET));
    tell_time(&mut lab, EXPIRY - seconds);
    lab
}

fn tell_time(lab: &mut Lab, unix: u64) {
    for shard in 0..lab.shards() {
        lab.input(shard, Input::WallClock(Duration::from_secs(unix)));
    }
}

/// Username and password for a user, by that secret.
fn ticket(secret: &str, user: &str) -> (String, String) {
    let secret = &parse_secrets(secret).expect("a secret")[0];
    let name = format!("{EXPIRY}:{user}");
    let password = Password::of(HmacFunction::Sha1, secret, name.as_bytes());
    let password = String::from_utf8(password.as_bytes().to_vec()).expect("base64");
    (name, password)
}

/// What comes of a REGISTER with that username and password.
fn try_login(lab: &mut Lab, phone: &Phone, user: &str, login: (&str, &str)) -> Sip {
    let name = format!("login{}", lab.serial());
    let challenge = Challenge::last(&ask(lab, phone, &register(phone, user, &name, 1)));
    let response = Response::new(&challenge, login, "REGISTER", "sip:example.com");
    let line = format!("Authorization: {}", response.value());
    ask(lab, phone, &register(phone, user, &name, 2).line(&line))
}

#[test]
fn a_guest_is_nobody_any_more_once_the_credentials_have_expired() {
    let mut lab = lab_before(2, 100);
    let phone = Phone::connect(&mut lab, 1, Transport::Wss, ADDRESS);
    assert_eq!(try_login(&mut lab, &phone, "alice", ALICE).status(), 200);
    lab.pass(Duration::from_secs(99));
    assert_eq!(ask(&mut lab, &phone, &register(&phone, "alice", "b", 1)).status(), 200);
    lab.pass(Duration::from_secs(1));
    let answer = ask(&mut lab, &phone, &register(&phone, "alice", "b", 2));
    assert_eq!(answer.status(), 401);
    let answer = try_login(&mut lab, &phone, "alice", ALICE);
    assert_eq!(answer.status(), 401);
    assert!(!Challenge::last(&answer).stale, "a fresh nonce would not help");
    tell_time(&mut lab, EXPIRY - 10);
    let answer = ask(&mut lab, &phone, &register(&phone, "alice", "b", 3));
    assert_eq!(answer.status(), 200, "the clock was wrong");
    lab.finish();
}

#[test]
fn without_a_clock_nothing_is_believed_that_can_expire() {
    let mut lab = Lab::new(1, config(SECRET));
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    assert_eq!(try_login(&mut lab, &phone, "alice", ALICE).status(), 401);
    lab.finish();
}

#[test]
fn what_the_secret_did_not_make_is_refused() {
    let mut lab = lab_before(1, 100);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let (foreign, password) = ticket(SECRET, "alice@example.org");
    let (odd, odd_password) = ticket(SECRET, "al ice");
    for login in [
        ("1893456001:alice", ALICE.1),
        (ALICE.0, "o1ZMqPhnNag3G6xUCfxHlDJahrB="),
        (ALICE.0, ""),
        ("alice", ALICE.1),
        (&ticket(NEXT, "alice").0, &ticket(NEXT, "alice").1),
        (&foreign, &password),
        (&odd, &odd_password),
    ] {
        assert_eq!(try_login(&mut lab, &phone, "alice", login).status(), 401, "{login:?}");
    }
    let answer = try_login(&mut lab, &phone, "bob", ALICE);
    assert_eq!(answer.status(), 403, "her own address of record only: {answer:#?}");
    let (name, password) = ticket(SECRET, "bob@EXAMPLE.com");
    assert_eq!(try_login(&mut lab, &phone, "bob", (&name, &password)).status(), 200);
    lab.finish();
}

/// Both are good while they change, and what the old one proved ends with it.
#[test]
fn secrets_change_without_a_restart() {
    let mut lab = lab_before(2, 100);
    let phone = Phone::connect(&mut lab, 0, Transport::Tls, ADDRESS);
    assert_eq!(try_login(&mut lab, &phone, "alice", ALICE).status(), 200);
    let (name, password) = ticket(NEXT, "bob");
    let other = Phone::connect(&mut lab, 1, Transport::Tls, "203.0.113.6:40001");
    assert_eq!(try_login(&mut lab, &other, "bob", (&name, &password)).status(), 401);
    let set = |lab: &mut Lab, secrets: &str| {
        for shard in 0..lab.shards() {
            lab.input(shard, Input::Config(Arc::new(config(secrets))));
        }
    };
    set(&mut lab, &format!("{SECRET}\n{NEXT}\n"));
    assert_eq!(ask(&mut lab, &phone, &register(&phone, "alice", "b", 1)).status(), 200);
    assert_eq!(try_login(&mut lab, &other, "bob", (&name, &password)).status(), 200);
    set(&mut lab, NEXT);
    assert_eq!(ask(&mut lab, &phone, &register(&phone, "alice", "b", 2)).status(), 401);
    assert_eq!(ask(&mut lab, &other, &register(&other, "bob", "c", 1)).status(), 200);
    lab.finish();
}

/// Wherever the flow, the owner of the address and the server are.
#[test]
fn servers_are_told_who_a_guest_is() {
    for at in lab::placements() {
        let mut lab = lab_before(at.shards, 100);
        let (alice, bob) = two_of(at.owner, at.shards);
        let phone = Phone::connect(&mut lab, at.flow, Transport::Wss, ADDRESS);
        let (name, password) = ticket(SECRET, &alice);
        assert_eq!(try_login(&mut lab, &phone, &alice, (&name, &password)).status(), 200);
        let core = Phone::connect(&mut lab, at.owner, Transport::Udp, CORE);
        speaks_for(&mut lab, &phone, &core, &alice, &bob);
        lab.finish();
    }
}
