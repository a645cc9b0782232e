//! Nonces: fresh, on their own flow, once where senders may look alike. What is not is asked for
//! again with `stale=true`, never believed and never 403 (RFC 7616 §3.3, §5.4).

use std::time::Duration;

use sipring::base::id::Transport;

use crate::client::{ask, authorization, lab_of, lab_with, log_in, register, users};
use crate::lab::digest::{Challenge, Response, Settings, with_digest};
use crate::lab::phone::Phone;
use crate::lab::{self, Lab};

const ADDRESS: &str = "203.0.113.5:40001";

/// SIP.js sends the same header again when it refreshes and when it leaves.
#[test]
fn the_same_header_on_the_same_stream_is_the_same_client() {
    for transport in [Transport::Wss, Transport::Ws, Transport::Tls, Transport::Tcp] {
        let mut lab = lab_of(2, &["alice"]);
        let phone = Phone::connect(&mut lab, 0, transport, ADDRESS);
        let proof = authorization(&log_in(&mut lab, &phone, "alice"), "alice");
        for cseq in 1..4 {
            let draft = register(&phone, "alice", "again", cseq).line(&proof);
            assert_eq!(ask(&mut lab, &phone, &draft).status(), 200, "{transport:?}");
        }
        lab.finish();
    }
}

#[test]
fn a_header_from_another_flow_is_stale() {
    for transport in [Transport::Ws, Transport::Tcp, Transport::Udp] {
        let mut lab = lab_of(2, &["alice"]);
        let phone = Phone::connect(&mut lab, 0, transport, ADDRESS);
        let proof = authorization(&log_in(&mut lab, &phone, "alice"), "alice");
        for (shard, address) in [(0, "203.0.113.5:40009"), (1, "203.0.113.66:40001")] {
            let thief = Phone::connect(&mut lab, shard, transport, address);
            let draft = register(&thief, "alice", address, 1).line(&proof);
            let answer = ask(&mut lab, &thief, &draft);
            assert_eq!(answer.status(), 401, "{transport:?}");
            assert!(Challenge::last(&answer).stale, "{answer:#?}");
        }
        assert_eq!(lab.count(|it| it.registrations), 1);
        lab.finish();
    }
}

/// The client that reconnects with an old header is let in by the fresh nonce.
#[test]
fn whoever_knows_the_password_gets_in_by_the_fresh_nonce() {
    let mut lab = lab_of(1, &["alice"]);
    let first = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let old = log_in(&mut lab, &first, "alice");
    let second = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let draft = register(&second, "alice", "b", 1).line(&authorization(&old, "alice"));
    let fresh = Challenge::last(&ask(&mut lab, &second, &draft));
    assert!(fresh.stale && fresh.nonce != old.nonce);
    let draft = register(&second, "alice", "b", 2).line(&authorization(&fresh, "alice"));
    assert_eq!(ask(&mut lab, &second, &draft).status(), 200);
    lab.finish();
}

#[test]
fn over_udp_a_count_is_taken_once() {
    let mut lab = lab_of(1, &["alice"]);
    let phone = Phone::connect(&mut lab, 0, Transport::Udp, ADDRESS);
    let challenge = log_in(&mut lab, &phone, "alice");
    let count = |nc| {
        let login = ("alice", "secret");
        let response = Response::new(&challenge, login, "REGISTER", "sip:example.com").nc(nc);
        format!("Authorization: {}", response.value())
    };
    for (cseq, nc, status) in
        [(1, 1, 401), (2, 2, 200), (3, 2, 401), (4, 5, 200), (5, 4, 200), (6, 4, 401), (7, 0, 401)]
    {
        let draft = register(&phone, "alice", "n", cseq).line(&count(nc));
        let answer = ask(&mut lab, &phone, &draft);
        assert_eq!(answer.status(), status, "{nc}");
        assert!(status == 200 || Challenge::last(&answer).stale, "{nc}");
    }
    lab.finish();
}

#[test]
fn a_retransmission_is_no_replay() {
    let mut lab = lab_of(2, &["alice"]);
    let phone = Phone::connect(&mut lab, 1, Transport::Udp, ADDRESS);
    let challenge = Challenge::last(&ask(&mut lab, &phone, &register(&phone, "alice", "a", 1)));
    let again = register(&phone, "alice", "a", 2).line(&authorization(&challenge, "alice"));
    for _ in 0..3 {
        assert_eq!(ask(&mut lab, &phone, &again).status(), 200);
    }
    assert_eq!(lab.count(|it| it.registrations), 1);
    assert_eq!(lab.count(|it| it.credentials_stale), 0);
    lab.finish();
}

/// Behind another proxy the flow is that proxy's: it vouches for nobody, and a neighbour who read a
/// header cannot use it.
#[test]
fn behind_another_proxy_nothing_is_pinned_and_counts_are_taken_once() {
    let mut lab = lab_of(1, &["alice"]);
    let proxy = Phone::connect(&mut lab, 0, Transport::Tcp, ADDRESS);
    let relayed = |draft: lab::draft::Draft, branch: &str| {
        let own = proxy.via(branch);
        draft.vias(&[&own, "Via: SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bKinner"])
    };
    let first = relayed(register(&proxy, "alice", "a", 1), "p1");
    let challenge = Challenge::last(&ask(&mut lab, &proxy, &first));
    let proof = authorization(&challenge, "alice");
    let second = relayed(register(&proxy, "alice", "a", 2).line(&proof), "p2");
    assert_eq!(ask(&mut lab, &proxy, &second).status(), 200);
    let replay = relayed(register(&proxy, "alice", "b", 1).line(&proof), "p3");
    let answer = ask(&mut lab, &proxy, &replay);
    assert!(answer.status() == 401 && Challenge::last(&answer).stale);
    for (nth, vias) in [true, false].into_iter().enumerate() {
        let bare = register(&proxy, "alice", &format!("c{nth}"), 1);
        let bare = if vias { relayed(bare, "p4") } else { bare };
        assert_eq!(ask(&mut lab, &proxy, &bare).status(), 401, "{vias}");
    }
    lab.finish();
}

#[test]
fn an_old_nonce_is_stale_and_so_is_one_of_another_run() {
    let users = users(&["alice"]);
    let nonce_lifetime = Duration::from_secs(60);
    let settings = Settings { users: &users, nonce_lifetime, ..Settings::default() };
    let mut lab = lab_with(1, &settings);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let challenge = log_in(&mut lab, &phone, "alice");
    let proof = authorization(&challenge, "alice");
    lab.pass(Duration::from_secs(60));
    let draft = register(&phone, "alice", "b", 1).line(&proof);
    assert_eq!(ask(&mut lab, &phone, &draft).status(), 200, "still good");
    lab.pass(Duration::from_secs(1));
    let answer = ask(&mut lab, &phone, &register(&phone, "alice", "b", 2).line(&proof));
    assert!(answer.status() == 401 && Challenge::last(&answer).stale, "{answer:#?}");
    lab.finish();

    let mut lab = Lab::with_epoch(1, with_digest(lab::config(), &settings), 2);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let answer = ask(&mut lab, &phone, &register(&phone, "alice", "b", 1).line(&proof));
    assert!(answer.status() == 401 && Challenge::last(&answer).stale, "{answer:#?}");
    lab.finish();
}

/// Whoever does not know the password learns nothing from an old nonce.
#[test]
fn a_wrong_password_is_never_told_that_its_nonce_is_old() {
    let mut lab = lab_of(1, &["alice"]);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let mut challenge = log_in(&mut lab, &phone, "alice");
    challenge.nonce = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned();
    for (cseq, password, stale) in [(1, "guess", false), (2, "secret", true)] {
        let response =
            Response::new(&challenge, ("alice", password), "REGISTER", "sip:example.com");
        let line = format!("Authorization: {}", response.value());
        let answer = ask(&mut lab, &phone, &register(&phone, "alice", "b", cseq).line(&line));
        assert_eq!(answer.status(), 401);
        assert_eq!(Challenge::last(&answer).stale, stale);
    }
    lab.finish();
}

/// A slot is used again by another client: what the first one proved is not its.
#[test]
fn what_a_flow_proved_ends_with_it() {
    let mut lab = lab_of(1, &["alice"]);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    log_in(&mut lab, &phone, "alice");
    phone.leave(&mut lab, sipring::base::event::CloseReason::Peer);
    let next = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    assert_eq!(next.flow.map(|it| it.slot()), phone.flow.map(|it| it.slot()));
    assert_eq!(ask(&mut lab, &next, &register(&next, "alice", "b", 1)).status(), 401);
    lab.finish();
}

/// What a shard that failed had counted is lost with it: no use of a nonce that is older is taken
/// for the first.
#[test]
fn a_shard_that_was_started_anew_takes_no_count_again() {
    let mut lab = lab_of(1, &["alice"]);
    let phone = Phone::connect(&mut lab, 0, Transport::Udp, ADDRESS);
    lab.pass(Duration::from_secs(5));
    let challenge = Challenge::last(&ask(&mut lab, &phone, &register(&phone, "alice", "a", 1)));
    let proof = authorization(&challenge, "alice");
    let login = register(&phone, "alice", "a", 2).line(&proof);
    assert_eq!(ask(&mut lab, &phone, &login).status(), 200);
    lab.pass(Duration::from_secs(40));
    let users = users(&["alice"]);
    let settings = Settings { users: &users, ..Settings::default() };
    lab.restart(0, with_digest(lab::config(), &settings));
    let answer = ask(&mut lab, &phone, &login);
    assert_eq!(answer.status(), 401, "it was used before");
    let fresh = Challenge::last(&answer);
    assert!(fresh.stale);
    let again = register(&phone, "alice", "a", 3).line(&authorization(&fresh, "alice"));
    assert_eq!(ask(&mut lab, &phone, &again).status(), 200);
    lab.finish();
}
