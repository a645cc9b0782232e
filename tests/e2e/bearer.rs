//! Tokens over sockets (RFC 8898): in requests on every transport, and in WebSocket upgrades.

use std::time::{Duration, Instant, SystemTime};

use super::jwt::Issuer;
use super::support::phone::PATIENCE;
use super::support::raw::{Raw, frame, upgrade};
use super::support::sip::unique;
use super::support::{Draft, Message, Phone, Server, Setup, Transport};

const WEB: [Transport; 2] = [Transport::Ws, Transport::Wss];
const PAGE: &str = "https://app.example.com";
/// Far longer than a test takes.
const LONG: u64 = 3600;

fn unix() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

fn token(issuer: &Issuer, user: &str, life: u64) -> String {
    issuer.token(user, unix() + life)
}

/// A WebSocket whose upgrade has that target and those header fields, and its status.
fn connect(
    server: &Server,
    transport: Transport,
    target: &str,
    changes: &[(&str, &str)],
) -> (Raw, u16) {
    let mut raw = Raw::connect(transport, server);
    raw.write(upgrade(target, changes).as_bytes());
    let (status, head, _) = raw.http_response();
    assert_eq!(status == 401, head.contains("WWW-Authenticate: Bearer realm="), "{head}");
    (raw, status)
}

/// The status of a REGISTER on it, without credentials.
fn register_on(raw: &mut Raw, user: &str) -> u16 {
    let aor = format!("<sip:{user}@example.com>");
    let draft = Draft::new("REGISTER sip:example.com SIP/2.0")
        .with("Via", format!("SIP/2.0/WSS x.invalid;branch={}", unique("z9hG4bK")))
        .with("Max-Forwards", "70")
        .with("From", format!("{aor};tag=1"))
        .with("To", aor)
        .with("Call-ID", unique("reg"))
        .with("CSeq", "1 REGISTER")
        .with("Contact", format!("<sip:{}@x.invalid;transport=ws>", unique("c")));
    raw.write(&frame(0x81, &draft.build()));
    let answer = raw.frame().expect("an answer");
    Message::parse(&answer.payload).expect("SIP").status()
}

#[test]
fn a_token_answers_the_challenge_on_every_transport() {
    let issuer = Issuer::default();
    let server = Setup::new().shards(2).bearer(&issuer.jwks(), "").start();
    for transport in Transport::ALL {
        let mut alice = Phone::connect(transport, &server, "alice");
        let draft = alice.register_draft(&format!("<{}>", alice.contact));
        let refused = alice.ask(&draft);
        assert_eq!(refused.status(), 401);
        let expected = "Bearer realm=\"example.com\", authz_server=\"https://id.example.com\"";
        assert_eq!(refused.one("www-authenticate"), expected);
        let with = |phone: &mut Phone, token: &str| {
            let contact = format!("<{}>", phone.contact);
            let draft = phone.register_draft(&contact);
            phone.ask(&draft.with("Authorization", format!("Bearer {token}")))
        };
        let expired = issuer.token("alice", unix() - 1);
        let refused = with(&mut alice, &expired);
        assert_eq!(refused.status(), 401);
        assert!(refused.one("www-authenticate").ends_with(", error=\"invalid_token\""));
        assert_eq!(with(&mut alice, &token(&issuer, "alice", LONG)).status(), 200);
        assert_eq!(with(&mut alice, &token(&issuer, "bob", LONG)).status(), 403);
    }
    server.wait_metric("sipring_tokens_expired_total", 5, PATIENCE);
    server.wait_metric("sipring_tokens_accepted_total", 10, PATIENCE);
}

#[test]
fn an_upgrade_with_a_token_needs_no_challenge() {
    let issuer = Issuer::default();
    let auth = "upgrade_cookie = \"sip_token\"\nupgrade_token = \"required\"";
    let setup = Setup::new().shards(2).origins(&[PAGE]);
    let server = setup.bearer(&issuer.jwks(), auth).start();
    let good = token(&issuer, "alice", LONG);
    let (query, cookie) = (format!("/?access_token={good}"), format!("a=b; sip_token={good}"));
    let bad = format!("/?access_token={}", token(&Issuer::default(), "alice", LONG));
    for transport in WEB {
        let origin = ("Origin", PAGE);
        for (target, changes) in [
            (&*query, &[origin][..]),
            ("/", &[origin, ("Cookie", &cookie)]),
            ("/", &[origin, ("Authorization", &format!("Bearer {good}"))]),
        ] {
            let (mut raw, status) = connect(&server, transport, target, changes);
            assert_eq!(status, 101, "{target} {changes:?}");
            assert_eq!(register_on(&mut raw, "alice"), 200);
        }
        for (target, changes, expected) in [
            ("/", &[origin][..], 401),
            (&*bad, &[origin], 401),
            ("/", &[origin, ("Cookie", "sip_token=a.b.c")], 401),
            ("/", &[("Cookie", &*cookie)], 403),
            ("/", &[("Origin", "https://evil.example"), ("Cookie", &cookie)], 403),
        ] {
            let (_, status) = connect(&server, transport, target, changes);
            assert_eq!(status, expected, "{target} {changes:?}");
        }
    }
    server.wait_metric("sipring_upgrades_by_token_total", 6, PATIENCE);
}

/// RFC 6455 §7.4.1: 1008, with a reason.
#[test]
fn the_flow_ends_soon_after_its_token() {
    let issuer = Issuer::default();
    let server = Setup::new().bearer(&issuer.jwks(), "token_grace = \"1s\"").start();
    let mut flows = WEB.map(|transport| {
        let target = format!("/?access_token={}", token(&issuer, "alice", 4));
        let (mut raw, status) = connect(&server, transport, &target, &[]);
        assert_eq!(status, 101);
        assert_eq!(register_on(&mut raw, "alice"), 200);
        raw
    });
    flows.iter_mut().for_each(|raw| raw.closed(1008));
    server.wait_metric("sipring_flows_closed_expired_total", 2, PATIENCE);
}

/// Without a signal: the file is looked at every few seconds.
#[test]
fn keys_that_change_are_taken() {
    let (old, new) = (Issuer::default(), Issuer::default());
    let server = Setup::new().shards(2).bearer(&old.jwks(), "").start();
    let status = |issuer: &Issuer| {
        let target = format!("/?access_token={}", token(issuer, "alice", LONG));
        connect(&server, Transport::Ws, &target, &[]).1
    };
    assert_eq!((status(&old), status(&new)), (101, 401));
    std::fs::write(server.folder().join("jwks.json"), new.jwks()).expect("write keys");
    let deadline = Instant::now() + 3 * PATIENCE;
    while status(&new) != 101 {
        assert!(Instant::now() < deadline, "{}", server.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(status(&old), 401);
}

/// Not at the lowest level, whatever is refused.
#[test]
fn the_log_has_no_tokens() {
    let issuer = Issuer::default();
    let setup = Setup::new().origins(&[PAGE]).log_level("trace");
    let auth = "upgrade_cookie = \"sip_token\"";
    let mut server = setup.bearer(&issuer.jwks(), auth).start();
    let (good, bad) = (token(&issuer, "alice", LONG), token(&Issuer::default(), "eve", LONG));
    for shown in [&good, &bad] {
        let cookie = format!("sip_token={shown}");
        let changes = [("Origin", PAGE), ("Cookie", &*cookie)];
        connect(&server, Transport::Wss, &format!("/?access_token={shown}"), &changes);
        connect(&server, Transport::Ws, "/", &changes);
        let mut phone = Phone::connect(Transport::Udp, &server, "alice");
        let draft = phone.draft("MESSAGE", "sip:nobody@example.com");
        phone.ask(&draft.with("Authorization", format!("Bearer {shown}")));
        let draft = phone.register_draft("").without("To");
        phone.send(&draft.with("Authorization", format!("Bearer {shown}")).build());
    }
    server.terminate();
    assert!(server.wait_exit(PATIENCE).is_some_and(|status| status.success()));
    let log = server.log();
    assert!(log.contains("nobody@example.com"), "{log}");
    let payload = |token: &str| token.split('.').nth(1).expect("three parts").to_owned();
    for part in [&*payload(&good), &*payload(&bad), "Bearer", "access_token", "sip_token"] {
        assert!(!log.contains(part), "{part} is in\n{log}");
    }
}
