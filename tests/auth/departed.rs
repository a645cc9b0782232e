//! Who is taken out of the users file, or gets another password, is called no more; calls go on.

use std::time::Duration;

use sipring::base::config::{Config, Persistence};
use sipring::base::event::CloseReason;
use sipring::base::id::Transport;
use sipring::base::limits::DEPARTED_A_TURN;
use sipring::engine::Input;

use crate::client::{ask, lab_of, log_in, of_user, proxy_authorization, register, two_of, users};
use crate::lab::call::Call;
use crate::lab::digest::{Challenge, Response, Settings, with_digest};
use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab};

const ADDRESS: &str = "203.0.113.5:40001";

fn config(users: &str) -> Config {
    with_digest(lab::config(), &Settings { users, ..Settings::default() })
}

/// What a server behind us is answered when it sends to a user.
fn status_of(lab: &mut Lab, core: &Phone, user: &str) -> u16 {
    let name = format!("m{}", lab.serial());
    let uri = format!("sip:{user}@example.com");
    ask(lab, core, &request(core, "MESSAGE", &uri, &name)).status()
}

/// A server behind us reaches a user's phone.
fn reaches(lab: &mut Lab, core: &Phone, phone: &Phone, user: &str) {
    let name = format!("m{}", lab.serial());
    let draft = request(core, "MESSAGE", &format!("sip:{user}@example.com"), &name);
    Call::exchange(lab, core, phone, &draft);
}

#[test]
fn nobody_calls_who_is_gone_or_has_another_password() {
    for at in lab::placements() {
        let (alice, bob) = two_of(at.owner, at.shards);
        let others = format!("{bob}:secret\n");
        let changed = format!("{alice}:changed\n{bob}:secret\n");
        for (next, status) in [(others, 404), (changed, 480)] {
            for transport in [Transport::Wss, Transport::Tcp, Transport::Udp] {
                let mut lab = lab_of(at.shards, &[&alice, &bob]);
                let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
                let phone = Phone::connect(&mut lab, at.flow, transport, ADDRESS);
                let other = Phone::connect(&mut lab, at.flow, transport, "203.0.113.6:40001");
                log_in(&mut lab, &phone, &alice);
                log_in(&mut lab, &other, &bob);
                reaches(&mut lab, &core, &phone, &alice);
                lab.reload(config(&next));
                assert_eq!(status_of(&mut lab, &core, &alice), status, "{at:?} {transport:?}");
                reaches(&mut lab, &core, &other, &bob);
                assert_eq!(lab.count(|it| it.bindings_user_gone), 1);
                assert_eq!(ask(&mut lab, &phone, &register(&phone, &alice, "b", 9)).status(), 401);
                let is_stream = transport != Transport::Udp;
                assert_eq!(lab.count(|it| it.credentials_outlived), u64::from(is_stream));
                phone.heard_nothing(&mut lab);
                lab.finish();
            }
        }
    }
}

/// With the new password everything is as before.
#[test]
fn who_registers_again_stays() {
    let mut lab = lab_of(2, &["alice"]);
    let core = Phone::connect(&mut lab, 1, Transport::Udp, CORE);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    log_in(&mut lab, &phone, "alice");
    lab.reload(config("alice:changed\n"));
    assert_eq!(status_of(&mut lab, &core, "alice"), 480);
    let challenge = Challenge::last(&ask(&mut lab, &phone, &register(&phone, "alice", "c", 1)));
    let response = Response::new(&challenge, ("alice", "changed"), "REGISTER", "sip:example.com");
    let line = format!("Authorization: {}", response.value());
    let again = register(&phone, "alice", "c", 2).line(&line);
    assert_eq!(ask(&mut lab, &phone, &again).status(), 200);
    reaches(&mut lab, &core, &phone, "alice");
    lab.reload(config("alice:changed\nbob:secret\n"));
    reaches(&mut lab, &core, &phone, "alice");
    assert_eq!(lab.count(|it| it.bindings_user_gone), 1);
    lab.finish();
}

/// Other algorithms are no other password: clients are asked again, and are called meanwhile. Where
/// nobody is asked any more, nobody is gone.
#[test]
fn settings_that_are_no_passwords_end_nothing() {
    let mut lab = lab_of(1, &["alice"]);
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    log_in(&mut lab, &phone, "alice");
    let users = users(&["alice"]);
    let settings = Settings { users: &users, algorithms: &["MD5"], ..Settings::default() };
    lab.reload(with_digest(lab::config(), &settings));
    reaches(&mut lab, &core, &phone, "alice");
    lab.reload(lab::config());
    reaches(&mut lab, &core, &phone, "alice");
    assert_eq!(lab.count(|it| it.bindings_user_gone), 0);
    lab.finish();
}

/// The call goes on in both directions; a new one in the user's name does not begin.
#[test]
fn calls_of_who_is_gone_go_on() {
    let mut lab = lab_of(2, &["alice", "bob"]);
    let core = Phone::connect(&mut lab, 1, Transport::Udp, CORE);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    log_in(&mut lab, &phone, "alice");
    let contacts = ("sip:900@198.51.100.7", "sip:alice@df7jal23ls0d.invalid;transport=ws");
    let uri = "sip:alice@example.com";
    let mut call = Call::establish(&mut lab, &core, &phone, uri, contacts, "call");
    lab.reload(config("bob:secret\n"));
    assert_eq!(status_of(&mut lab, &core, "alice"), 404);
    let info = call.by_caller(&core, "INFO");
    Call::exchange(&mut lab, &core, &phone, &info);
    let info = call.by_callee(&phone, "INFO");
    Call::exchange(&mut lab, &phone, &core, &info);
    let invite = of_user(&phone, "alice", "INVITE", "sip:900@example.com", "new");
    let refused = ask(&mut lab, &phone, &invite);
    assert_eq!(refused.status(), 407);
    let tag = refused.tag("To").expect("a tag");
    let ack = invite.clone().method("ACK").to(&format!("<sip:900@example.com>;tag={tag}"));
    phone.send(&mut lab, &ack.text());
    let proof =
        proxy_authorization(&Challenge::last(&refused), "alice", "MESSAGE", "sip:900@example.com");
    let message = of_user(&phone, "alice", "MESSAGE", "sip:900@example.com", "m").line(&proof);
    assert_eq!(ask(&mut lab, &phone, &message).status(), 407);
    let bye = call.by_caller(&core, "BYE");
    Call::exchange(&mut lab, &core, &phone, &bye);
    assert_eq!(lab.closed(phone.flow.expect("a stream")), None);
    lab.finish();
}

/// What waits for a client that lost its flow waits no more when its user is gone.
#[test]
fn nobody_waits_for_who_is_gone() {
    let mut lab = Lab::new(2, {
        let mut config = config(&users(&["alice"]));
        config.registrar.grace = Duration::from_secs(10);
        config
    });
    let core = Phone::connect(&mut lab, 1, Transport::Udp, CORE);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    log_in(&mut lab, &phone, "alice");
    phone.leave(&mut lab, CloseReason::Peer);
    core.send(&mut lab, &request(&core, "MESSAGE", "sip:alice@example.com", "w").text());
    core.heard_nothing(&mut lab);
    let mut next = config("bob:secret\n");
    next.registrar.grace = Duration::from_secs(10);
    lab.reload(next);
    core.take_status(&mut lab, 480);
    assert_eq!(status_of(&mut lab, &core, "alice"), 404);
    lab.finish();
}

/// Who has a time-limited password for the same address of record does not depend on the file.
#[test]
fn what_others_registered_for_the_same_address_stays() {
    let secrets = "north wind and sun";
    let listed = users(&["alice"]);
    let settings = Settings { users: &listed, secrets, ..Settings::default() };
    let mut lab = Lab::new(1, with_digest(lab::config(), &settings));
    lab.input(0, Input::WallClock(Duration::from_secs(1_893_455_000)));
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let challenge = Challenge::last(&ask(&mut lab, &phone, &register(&phone, "alice", "t", 1)));
    // See `tickets`.
    let login = ("1893456000:alice", "o1ZMqPhnNag3G6xUCfxHlDJahrA=");
    let response = Response::new(&challenge, login, "REGISTER", "sip:example.com");
    let line = format!("Authorization: {}", response.value());
    let again = register(&phone, "alice", "t", 2).line(&line);
    assert_eq!(ask(&mut lab, &phone, &again).status(), 200);
    let settings = Settings { users: "bob:secret\n", secrets, ..Settings::default() };
    lab.reload(with_digest(lab::config(), &settings));
    reaches(&mut lab, &core, &phone, "alice");
    assert_eq!(lab.count(|it| it.bindings_user_gone), 0);
    lab.finish();
}

/// A file in which everybody is another one delays nobody: so many at a time, in order.
#[test]
fn many_who_are_gone_take_more_than_one_turn() {
    let all = 3 * DEPARTED_A_TURN;
    let names: Vec<String> = (0..all).map(|n| format!("u{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut lab = lab_of(1, &names);
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let (first, last) = (names[0], names[all - 1]);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let other = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.6:40001");
    log_in(&mut lab, &phone, first);
    log_in(&mut lab, &other, last);
    lab.reload(config("bob:secret\n"));
    assert_eq!(status_of(&mut lab, &core, first), 404);
    reaches(&mut lab, &core, &other, last);
    lab.pass(Duration::from_millis(1));
    reaches(&mut lab, &core, &other, last);
    lab.pass(Duration::from_millis(1));
    assert_eq!(status_of(&mut lab, &core, last), 404);
    assert_eq!(lab.count(|it| it.bindings_user_gone), 2);
    lab.finish();
}

/// A binding of a former run is its user's, too: it does not come back when that one is gone, and ends
/// with the password.
#[test]
fn what_a_former_run_knew_ends_as_well() {
    let of = |users: &str| {
        let mut config = config(users);
        config.registrar.persistence = Persistence::Delayed;
        config
    };
    let mut former = Lab::new(1, of(&users(&["alice", "bob"])));
    for (user, address) in [("alice", ADDRESS), ("bob", "203.0.113.6:40001")] {
        let phone = Phone::connect(&mut former, 0, Transport::Udp, address);
        log_in(&mut former, &phone, user);
    }
    let mut lab = Lab::with_epoch(1, of("alice:secret\n"), 2);
    lab.restore(&former, Duration::from_secs(1));
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    assert_eq!(lab.count(|it| it.bindings_not_restored), 1);
    assert_eq!(status_of(&mut lab, &core, "bob"), 404);
    let phone = Phone::connect(&mut lab, 0, Transport::Udp, ADDRESS);
    reaches(&mut lab, &core, &phone, "alice");
    lab.reload(of("alice:changed\n"));
    assert_eq!(status_of(&mut lab, &core, "alice"), 480);
    assert_eq!(lab.shelf.records.len(), 0, "and the store forgets them");
    lab.finish();
}
