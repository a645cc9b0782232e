//! Tokens in WebSocket upgrades (RFC 6750 §2, RFC 7118 §6): the flow is its user's from the start.

use std::time::Duration;

use sipring::base::bearer::UpgradeToken;
use sipring::base::config::Config;
use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::bearer::{counted, lab_with, log_in};
use crate::client::{ask, register, speaks_for, two_of};
use crate::lab::jwt::{ISSUED, Issuer, with_bearer};
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab};

const ADDRESS: &str = "203.0.113.5:40001";
const END: u64 = ISSUED + 100;

fn config(issuer: &Issuer, upgrade: UpgradeToken) -> Config {
    let mut config = with_bearer(lab::config(), issuer);
    config.auth.bearer.as_mut().expect("it is on").upgrade = upgrade;
    config
}

/// A flow whose upgrade has that target and those header lines, and the answer's head.
fn upgrade(lab: &mut Lab, shard: u16, target: &str, lines: &str) -> (Phone, String) {
    let remote = ADDRESS.parse().expect("an address");
    let flow = lab.connect(shard, Transport::Wss, remote);
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: sip\r\n{lines}\r\n"
    );
    lab.data(flow, request.as_bytes());
    let answer = String::from_utf8(std::mem::take(&mut lab.wire(flow).bytes)).expect("text");
    (Phone { transport: Transport::Wss, remote, shard, flow: Some(flow) }, answer)
}

fn status(answer: &str) -> u16 {
    answer[9..12].parse().expect("a status")
}

/// In the query, in Authorization, and in the cookie: no further challenge, wherever the flow and
/// the owner of the address are.
#[test]
fn a_token_binds_the_flow_to_its_user() {
    let issuer = Issuer::default();
    for at in lab::placements() {
        let (alice, bob) = two_of(at.owner, at.shards);
        let token = issuer.token(&alice, END);
        for (target, lines) in [
            (format!("/?x=1&access_token={token}"), String::new()),
            ("/".to_owned(), format!("Authorization: Bearer {token}\r\n")),
            ("/".to_owned(), format!("Cookie: a=b; session={token}\r\n")),
            (format!("/?access_token={token}"), "Cookie: session=stale\r\n".to_owned()),
        ] {
            let mut lab = lab_with(at.shards, config(&issuer, UpgradeToken::Required));
            let (phone, answer) = upgrade(&mut lab, at.flow, &target, &lines);
            assert_eq!(status(&answer), 101, "{answer}");
            let registered = ask(&mut lab, &phone, &register(&phone, &alice, "a", 1));
            assert_eq!(registered.status(), 200);
            let other = ask(&mut lab, &phone, &register(&phone, &bob, "b", 1));
            assert_eq!(other.status(), 401, "her own address of record only");
            let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
            speaks_for(&mut lab, &phone, &core, &alice, &bob);
            assert_eq!(counted(&lab, "upgrades_by_token"), 1);
            lab.finish();
        }
    }
}

/// RFC 6750 §3: a bad token is refused at once, a missing one as the settings say.
#[test]
fn bad_and_missing_tokens() {
    use UpgradeToken::{Ignored, Optional, Required};
    let (issuer, forger) = (Issuer::default(), Issuer::default());
    let good = format!("/?access_token={}", issuer.token("alice", END));
    let forged = format!("/?access_token={}", forger.token("alice", END));
    let expired = format!("/?access_token={}", issuer.token("alice", ISSUED - 30));
    let cookie = format!("Cookie: session={}\r\n", forger.token("alice", END));
    let rows: [(UpgradeToken, &str, &str, u16, u16); 15] = [
        (Optional, &good, "", 101, 200),
        (Optional, "/", "", 101, 401),
        (Optional, "/?access_token=", "Cookie: session=\r\n", 101, 401),
        (Optional, &forged, "", 401, 0),
        (Optional, &expired, "", 401, 0),
        (Optional, "/", &cookie, 401, 0),
        (Optional, "/", "Cookie: sessions=x\r\n", 101, 401),
        (Required, &good, "", 101, 200),
        (Required, "/", "", 401, 0),
        (Required, "/", "Authorization: Basic YTpi\r\n", 401, 0),
        (Required, &forged, "", 401, 0),
        (Required, &expired, "", 401, 0),
        (Required, "/?access_token=a.b.c", "", 401, 0),
        (Ignored, &good, "", 101, 401),
        (Ignored, &forged, &cookie, 101, 401),
    ];
    for (policy, target, lines, expected, registered) in rows {
        let mut lab = lab_with(1, config(&issuer, policy));
        let (phone, answer) = upgrade(&mut lab, 0, target, lines);
        assert_eq!(status(&answer), expected, "{policy:?} {target} {lines}");
        if expected == 101 {
            let answer = ask(&mut lab, &phone, &register(&phone, "alice", "a", 1));
            assert_eq!(answer.status(), registered, "{policy:?} {target} {lines}");
        } else {
            let challenge = "\r\nWWW-Authenticate: Bearer realm=\"example.com\", authz_server=";
            assert!(answer.contains(challenge), "{answer}");
            let is_missing = !target.contains("token") && lines != cookie;
            assert_eq!(answer.contains("error=\"invalid_token\""), !is_missing, "{answer}");
            assert!(!answer.contains("Sec-WebSocket-Accept"), "{answer}");
            assert!(lab.closed(phone.flow.expect("a connection")).is_some());
            assert_eq!(counted(&lab, "upgrades_refused"), 1);
        }
        lab.finish();
    }
}

/// A client that was lost comes back with another token, and is the same one (RFC 5626 §4.2).
#[test]
fn a_client_comes_back_with_a_fresh_token() {
    let issuer = Issuer::default();
    let mut config = config(&issuer, UpgradeToken::Required);
    config.registrar.grace = Duration::from_secs(10);
    let mut lab = lab_with(2, config);
    let first = format!("/?access_token={}", issuer.token("alice", END));
    let (phone, _) = upgrade(&mut lab, 0, &first, "");
    assert_eq!(ask(&mut lab, &phone, &register(&phone, "alice", "a", 1)).status(), 200);
    phone.leave(&mut lab, CloseReason::Reset);
    let core = Phone::connect(&mut lab, 1, Transport::Udp, CORE);
    let waiting = lab::draft::request(&core, "MESSAGE", "sip:alice@example.com", "w");
    core.send(&mut lab, &waiting.text());
    core.heard_nothing(&mut lab);
    let (stranger, _) =
        upgrade(&mut lab, 1, &format!("/?access_token={}", issuer.token("bob", END)), "");
    assert_eq!(ask(&mut lab, &stranger, &register(&stranger, "bob", "b", 1)).status(), 200);
    stranger.heard_nothing(&mut lab);
    let second = format!("/?access_token={}", issuer.token("alice", END + 50));
    let (phone, _) = upgrade(&mut lab, 1, &second, "");
    phone.send(&mut lab, &register(&phone, "alice", "a", 2).text());
    let got = phone.take(&mut lab);
    let (registered, message) = (&got[0], &got[1]);
    assert_eq!((registered.status(), message.method(), got.len()), (200, "MESSAGE", 2));
    phone.send(&mut lab, &message.response(200, "p", &[]));
    core.take_status(&mut lab, 200);
    lab.finish();
}

/// What one flow's token proved is good for its own flow; a fresh one in a REGISTER prolongs it.
#[test]
fn an_upgrade_ends_with_its_token() {
    let issuer = Issuer::default();
    for is_renewed in [false, true] {
        let mut lab = lab_with(1, config(&issuer, UpgradeToken::Required));
        let target = format!("/?access_token={}", issuer.token("alice", END));
        let (phone, _) = upgrade(&mut lab, 0, &target, "");
        let flow = phone.flow.expect("a connection");
        assert_eq!(ask(&mut lab, &phone, &register(&phone, "alice", "a", 1)).status(), 200);
        lab.pass(Duration::from_secs(100 + 30));
        assert_eq!(ask(&mut lab, &phone, &register(&phone, "alice", "a", 2)).status(), 401);
        if is_renewed {
            let fresh = issuer.token("alice", END + 500);
            assert_eq!(log_in(&mut lab, &phone, "alice", &fresh).status(), 200);
        }
        lab.pass(Duration::from_secs(20));
        assert_eq!(lab.closed(flow).is_none(), is_renewed);
        lab.finish();
    }
}
