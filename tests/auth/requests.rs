//! Requests other than REGISTER: 407 for whoever speaks in the name of a user of ours and has not
//! proved to be it (RFC 3261 §22.3).

use sipring::base::config::{AuthMethod, Config, Strangers};
use sipring::base::id::Transport;
use sipring::engine::Input;

use crate::client::{ask, log_in, of_user, proxy_authorization, two_of, users};
use crate::lab::digest::{Challenge, Response, Settings, with_digest};
use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab};

const ADDRESS: &str = "203.0.113.5:40001";
const OTHER: &str = "203.0.113.6:40002";

/// A lab where the users have passwords and the second is registered, over WSS.
fn with_callee(
    at: lab::Placement,
    change: impl FnOnce(&mut Config),
) -> (Lab, String, String, Phone) {
    let (alice, bob) = two_of(at.owner, at.shards);
    let users = users(&[&alice, &bob]);
    let mut config = with_digest(lab::config(), &Settings { users: &users, ..Settings::default() });
    change(&mut config);
    let mut lab = Lab::new(at.shards, config);
    let callee = Phone::connect(&mut lab, at.flow, Transport::Wss, OTHER);
    log_in(&mut lab, &callee, &bob);
    (lab, alice, bob, callee)
}

fn one_shard() -> lab::Placement {
    lab::Placement { shards: 1, flow: 0, owner: 0, arrival: 0 }
}

#[test]
fn an_invite_is_challenged_once_and_then_goes_through() {
    for at in lab::placements() {
        let (mut lab, alice, bob, callee) = with_callee(at, |_| {});
        let caller = Phone::connect(&mut lab, at.arrival, Transport::Wss, ADDRESS);
        let uri = format!("sip:{bob}@example.com");
        let invite = of_user(&caller, &alice, "INVITE", &uri, "i1");
        let refused = ask(&mut lab, &caller, &invite);
        assert_eq!(refused.status(), 407);
        assert_eq!(refused.find("WWW-Authenticate"), None);
        let tag = refused.tag("To").expect("a tag");
        let ack = invite.clone().method("ACK").to(&format!("<{uri}>;tag={tag}"));
        caller.send(&mut lab, &ack.text());
        let proof = proxy_authorization(&Challenge::last(&refused), &alice, "INVITE", &uri);
        let again = invite.branch(&caller, "i2").cseq(2).line(&proof);
        caller.send(&mut lab, &again.text());
        let got = callee.take_method(&mut lab, "INVITE");
        assert_eq!(got.find("Proxy-Authorization"), None, "it was for us");
        caller.take_status(&mut lab, 100);
        let cancel = again.clone().method("CANCEL");
        assert_eq!(ask(&mut lab, &caller, &cancel).status(), 200, "never challenged");
        callee.send(&mut lab, &got.response(487, "b", &[]));
        caller.take_status(&mut lab, 487);
        // The flow has proved who it is: no further challenge.
        let message = of_user(&caller, &alice, "MESSAGE", &uri, "m1");
        caller.send(&mut lab, &message.text());
        callee.take(&mut lab);
        assert_eq!(lab.count(|it| it.requests_challenged), 2);
        lab.finish();
    }
}

#[test]
fn datagrams_prove_it_each_time() {
    let (mut lab, alice, bob, callee) = with_callee(one_shard(), |_| {});
    let caller = Phone::connect(&mut lab, 0, Transport::Udp, ADDRESS);
    log_in(&mut lab, &caller, &alice);
    let uri = format!("sip:{bob}@example.com");
    let refused = ask(&mut lab, &caller, &of_user(&caller, &alice, "MESSAGE", &uri, "m1"));
    assert_eq!(refused.status(), 407);
    let challenge = Challenge::last(&refused);
    for (nth, nc) in [1, 2].into_iter().enumerate() {
        let response = Response::new(&challenge, (&alice, "secret"), "MESSAGE", &uri).nc(nc);
        let line = format!("Proxy-Authorization: {}", response.value());
        let draft = of_user(&caller, &alice, "MESSAGE", &uri, &format!("n{nth}")).line(&line);
        caller.send(&mut lab, &draft.text());
        let got = callee.take_method(&mut lab, "MESSAGE");
        callee.send(&mut lab, &got.response(200, "b", &[]));
        caller.take_status(&mut lab, 200);
    }
    lab.finish();
}

#[test]
fn strangers_and_servers_are_not_challenged() {
    for (strangers, status) in [(Strangers::Route, 200), (Strangers::Reject, 403)] {
        let (mut lab, alice, bob, callee) =
            with_callee(one_shard(), |config| config.auth.strangers = strangers);
        let uri = format!("sip:{bob}@example.com");
        let stranger = Phone::connect(&mut lab, 0, Transport::Tcp, ADDRESS);
        stranger.send(&mut lab, &request(&stranger, "MESSAGE", &uri, "s1").text());
        if status == 200 {
            let got = callee.take_method(&mut lab, "MESSAGE");
            callee.send(&mut lab, &got.response(200, "b", &[]));
        }
        stranger.take_status(&mut lab, status);
        // In the name of a user they are asked, whatever strangers may do.
        let draft = of_user(&stranger, &alice, "MESSAGE", &uri, "s2");
        assert_eq!(ask(&mut lab, &stranger, &draft).status(), 407);
        let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
        core.send(&mut lab, &of_user(&core, &alice, "MESSAGE", &uri, "u1").text());
        let got = callee.take_method(&mut lab, "MESSAGE");
        callee.send(&mut lab, &got.response(200, "b", &[]));
        core.take_status(&mut lab, 200);
        // What is for ourselves is answered before all that.
        let options = of_user(&stranger, &alice, "OPTIONS", "sip:example.com", "o1");
        assert_eq!(ask(&mut lab, &stranger, &options).status(), 200);
        lab.finish();
    }
}

/// RFC 3261 §26.3.2.4: whoever forges a source has no more sent there than he sends himself.
#[test]
fn a_challenge_is_not_repeated_by_a_timer() {
    let (mut lab, alice, bob, _) = with_callee(one_shard(), |_| {});
    let caller = Phone::connect(&mut lab, 0, Transport::Udp, ADDRESS);
    let uri = format!("sip:{bob}@example.com");
    let invite = of_user(&caller, &alice, "INVITE", &uri, "i1");
    let first = ask(&mut lab, &caller, &invite);
    assert_eq!(first.status(), 407);
    lab.pass(std::time::Duration::from_secs(20));
    caller.heard_nothing(&mut lab);
    let again = ask(&mut lab, &caller, &invite);
    assert_eq!(again, first, "the same request gets the same answer");
    lab.finish();
}

/// The message's body goes into the digest when `auth-int` is offered and taken.
#[test]
fn auth_int_covers_the_body() {
    let users = users(&["alice", "bob"]);
    let settings = Settings { users: &users, auth_int: true, ..Settings::default() };
    let mut lab = Lab::new(1, with_digest(lab::config(), &settings));
    let callee = Phone::connect(&mut lab, 0, Transport::Wss, OTHER);
    log_in(&mut lab, &callee, "bob");
    let caller = Phone::connect(&mut lab, 0, Transport::Ws, ADDRESS);
    let uri = "sip:bob@example.com";
    let draft = of_user(&caller, "alice", "MESSAGE", uri, "m1").body("hello");
    let challenge = Challenge::last(&ask(&mut lab, &caller, &draft));
    assert_eq!(challenge.qop, "auth,auth-int");
    let mut response = Response::new(&challenge, ("alice", "secret"), "MESSAGE", uri);
    (response.qop, response.body) = ("auth-int".to_owned(), "hello".to_owned());
    let line = format!("Proxy-Authorization: {}", response.value());
    let changed = of_user(&caller, "alice", "MESSAGE", uri, "m2").body("hallo").line(&line);
    assert_eq!(ask(&mut lab, &caller, &changed).status(), 407);
    let whole = of_user(&caller, "alice", "MESSAGE", uri, "m3").body("hello").line(&line);
    caller.send(&mut lab, &whole.text());
    let got = callee.take_method(&mut lab, "MESSAGE");
    callee.send(&mut lab, &got.response(200, "b", &[]));
    caller.take_status(&mut lab, 200);
    lab.finish();
}

/// RFC 3261 §22.3: credentials for others pass untouched.
#[test]
fn credentials_for_another_realm_pass() {
    let (mut lab, alice, bob, callee) = with_callee(one_shard(), |_| {});
    let caller = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let challenge = log_in(&mut lab, &caller, &alice);
    let uri = format!("sip:{bob}@example.com");
    let theirs =
        "Digest username=\"a\", realm=\"elsewhere\", nonce=\"n\", uri=\"u\", response=\"0\"";
    let draft = of_user(&caller, &alice, "MESSAGE", &uri, "m1")
        .line(&format!("Proxy-Authorization: {theirs}"))
        .line(&proxy_authorization(&challenge, &alice, "MESSAGE", &uri))
        .line("Authorization: Digest x=\"y\"");
    caller.send(&mut lab, &draft.text());
    let got = callee.take_method(&mut lab, "MESSAGE");
    assert_eq!(got.all("Proxy-Authorization").collect::<Vec<_>>(), [theirs]);
    assert_eq!(got.header("Authorization"), "Digest x=\"y\"", "for whom it may be");
    callee.send(&mut lab, &got.response(200, "b", &[]));
    caller.take_status(&mut lab, 200);
    lab.finish();
}

/// Known but offline is 480, unknown 404; strangers are told neither (no enumeration).
#[test]
fn who_exists_is_told_to_users_and_servers_only() {
    let (mut lab, alice, _, _) = with_callee(one_shard(), |_| {});
    let user = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    log_in(&mut lab, &user, &alice);
    user.send(
        &mut lab,
        &crate::client::register(&user, &alice, "out", 1).line("Expires: 0").text(),
    );
    user.take_status(&mut lab, 200);
    let stranger = Phone::connect(&mut lab, 0, Transport::Tcp, "203.0.113.9:40009");
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let offline = format!("sip:{alice}@example.com");
    let unknown = "sip:nobody@example.com";
    for (nth, (phone, uri, status)) in [
        (&user, offline.as_str(), 480),
        (&user, unknown, 404),
        (&core, &offline, 480),
        (&core, unknown, 404),
        (&stranger, &offline, 480),
        (&stranger, unknown, 480),
    ]
    .into_iter()
    .enumerate()
    {
        let draft = request(phone, "MESSAGE", uri, &format!("m{nth}"));
        let draft = if phone.flow == user.flow {
            draft.from(&format!("<sip:{alice}@example.com>;tag=1"))
        } else {
            draft
        };
        assert_eq!(ask(&mut lab, phone, &draft).status(), status, "{nth}");
    }
    lab.finish();
}

/// A user who is taken out of the file, or gets another password, has to prove it again.
#[test]
fn what_was_proved_ends_with_the_password() {
    let proven = users(&["alice"]);
    for users in ["bob:secret\n", "alice:changed\n"] {
        let settings = Settings { users: &proven, ..Settings::default() };
        let mut lab = Lab::new(1, with_digest(lab::config(), &settings));
        let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
        log_in(&mut lab, &phone, "alice");
        for (cseq, users, status) in [(1, &*proven, 200), (2, users, 401), (3, &proven, 200)] {
            let settings = Settings { users, ..Settings::default() };
            let config = with_digest(lab::config(), &settings);
            assert!(matches!(config.auth.method, AuthMethod::Digest(_)));
            lab.input(0, Input::Config(std::sync::Arc::new(config)));
            let draft = crate::client::register(&phone, "alice", "r", cseq);
            assert_eq!(ask(&mut lab, &phone, &draft).status(), status, "{users}");
        }
        lab.finish();
    }
}
