//! Tokens in requests (RFC 8898): who is believed, who is asked, what passes on.

use std::time::Duration;

use sipring::base::config::{Config, Route};
use sipring::base::event::CloseReason;
use sipring::base::id::Transport;
use sipring::engine::Input;

use crate::client::{ask, authorization, of_user, register, two_of, users};
use crate::lab::digest::{Challenge, Settings, with_digest};
use crate::lab::jwt::{ISSUED, Issuer, Signer, bearer, claims, with_bearer};
use crate::lab::phone::{Phone, frames};
use crate::lab::text::Sip;
use crate::lab::{self, CORE, Lab};

const ADDRESS: &str = "203.0.113.5:40001";
/// How long the tokens of these tests are good, and how much longer they are taken.
const LIFE: u64 = 100;
const LEEWAY: u64 = 30;
const GRACE: u64 = 20;
const END: u64 = ISSUED + LIFE;

pub fn lab_with(shards: u16, config: Config) -> Lab {
    let mut lab = Lab::new(shards, config);
    tell_time(&mut lab, ISSUED);
    lab
}

pub fn tell_time(lab: &mut Lab, unix: u64) {
    for shard in 0..lab.shards() {
        lab.input(shard, Input::WallClock(Duration::from_secs(unix)));
    }
}

fn lab_of(shards: u16, issuer: &Issuer) -> Lab {
    lab_with(shards, with_bearer(lab::config(), issuer))
}

fn shown(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// What comes of a REGISTER with that token.
pub fn log_in(lab: &mut Lab, phone: &Phone, user: &str, token: &str) -> Sip {
    let name = format!("login{}", lab.serial());
    ask(lab, phone, &register(phone, user, &name, 1).line(&shown(token)))
}

pub fn counted(lab: &Lab, name: &str) -> u64 {
    let rows = sipring::base::metrics::Counters::ROWS;
    let at = rows.iter().position(|(it, _)| *it == name).expect("a counter");
    lab.engines.iter().map(|engine| engine.counters().values()[at]).sum()
}

/// RFC 8898 §2.2 and §4: the challenge, and what follows it, whatever the transport.
#[test]
fn a_token_answers_the_challenge() {
    let issuer = Issuer::default();
    for transport in Transport::ALL {
        let mut lab = lab_of(2, &issuer);
        let phone = Phone::connect(&mut lab, 1, transport, ADDRESS);
        let refused = ask(&mut lab, &phone, &register(&phone, "alice", "a", 1));
        assert_eq!(refused.status(), 401);
        let asked: Vec<&str> = refused.all("WWW-Authenticate").collect();
        let expected = "Bearer realm=\"example.com\", authz_server=\"https://id.example.com\", \
                        scope=\"phone\"";
        assert_eq!(asked, [expected]);
        let token = issuer.token("alice", END);
        assert_eq!(log_in(&mut lab, &phone, "alice", &token).status(), 200);
        let again = ask(&mut lab, &phone, &register(&phone, "alice", "b", 1));
        let is_own_flow = transport != Transport::Udp;
        assert_eq!(again.status(), if is_own_flow { 200 } else { 401 }, "{transport:?}");
        let answer = log_in(&mut lab, &phone, "alice", &token);
        assert_eq!((answer.status(), counted(&lab, "tokens_verified")), (200, 1));
        assert_eq!(counted(&lab, "tokens_accepted"), 2);
        assert_eq!(log_in(&mut lab, &phone, "bob", &token).status(), 403, "not hers");
        lab.finish();
    }
}

/// The token with another signature of the same length.
fn bent(token: &str) -> String {
    let at = token.len() - 20;
    let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
    format!("{}{other}{}", &token[..at], &token[at + 1..])
}

/// RFC 8725 §2 and §3: each way in which a token can be bad, counted under its own name.
#[test]
fn bad_tokens_prove_nothing() {
    let (ed, p256, rsa) = (Signer::ed25519(), Signer::p256(), Signer::rsa());
    let keys = [ed.jwk("e"), p256.jwk("p"), rsa.jwk("r")].join(",");
    let mut config = lab::config();
    config.auth.bearer = Some(Box::new(bearer(&format!("{{\"keys\":[{keys}]}}"))));
    let good = claims("alice", END);
    let with = |from: &str, to: &str| good.replacen(from, to, 1);
    let signed = |claims: &str| ed.sign("EdDSA", "e", claims);
    let token = signed(&good);
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    // Signed by HMAC with the public key as its secret (RFC 8725 §2.1).
    let hmac = {
        let text = rsa.sign("HS256", "r", &good);
        let message = text.rsplit_once('.').expect("three parts").0.to_owned();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, rsa.jwk("r").as_bytes());
        let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
        use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
    };
    let rows = [
        (ed.sign("none", "e", &good), "algorithm"),
        (
            format!("{}.", ed.sign("none", "e", &good).rsplit_once('.').expect("parts").0),
            "algorithm",
        ),
        (hmac, "algorithm"),
        (ed.sign("EdDSA", "nobody", &good), "key"),
        (ed.sign("ES256", "e", &good), "key"),
        (p256.sign("RS256", "p", &good), "key"),
        (Signer::ed25519().sign("EdDSA", "e", &good), "signature"),
        (ed.sign("ES256", "p", &good), "signature"),
        (bent(&rsa.sign("RS256", "r", &good)), "signature"),
        (bent(&rsa.sign("PS256", "r", &good)), "signature"),
        (bent(&p256.sign("ES256", "p", &good)), "signature"),
        (format!("{message}.{}", &signature[..40]), "signature"),
        (format!("{message}."), "signature"),
        (signed(&claims("alice", ISSUED - LEEWAY)), "expired"),
        (signed(&with("\"exp\"", "\"iat\"")), "expired"),
        (signed(&with("{", "{\"nbf\":1800000031,")), "early"),
        (signed(&with("id.example.com", "id.example.org")), "foreign"),
        (signed(&with("\"sip\"", "\"sips\"")), "foreign"),
        (signed(&with("\"aud\"", "\"azp\"")), "foreign"),
        (signed(&with("\"alice\"", "\"alice@example.net\"")), "user"),
        (signed(&with("\"sub\"", "\"jti\"")), "user"),
        (signed(&with("phone", "fax")), "scope"),
        (message.to_owned(), "malformed"),
        (token[..token.len() / 3].to_owned(), "malformed"),
        ("garbage".to_owned(), "malformed"),
        (format!("{token}.{token}"), "malformed"),
        (format!("{token}{}", "A".repeat(8000)), "malformed"),
    ];
    for (token, counter) in rows {
        let mut lab = lab_with(1, config.clone());
        let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
        let refused = log_in(&mut lab, &phone, "alice", &token);
        assert_eq!(refused.status(), 401, "{counter}: {token}");
        let error = if counter == "scope" { "invalid_scope" } else { "invalid_token" };
        let expected = format!(", error=\"{error}\"");
        assert!(refused.header("WWW-Authenticate").ends_with(&expected), "{refused:#?}");
        assert_eq!(counted(&lab, &format!("tokens_{counter}")), 1, "{counter}: {token}");
        let checked = u64::from(counter == "signature");
        assert_eq!(counted(&lab, "tokens_verified"), checked, "{counter}: {token}");
        assert_eq!(counted(&lab, "credentials_refused"), 1);
        lab.finish();
    }
    let good = [
        token.clone(),
        p256.sign("ES256", "p", &good),
        rsa.sign("RS256", "r", &good),
        rsa.sign("PS256", "r", &good),
        signed(&claims("alice", ISSUED - LEEWAY + 1)),
    ];
    for token in good {
        let mut lab = lab_with(1, config.clone());
        let phone = Phone::connect(&mut lab, 0, Transport::Tcp, ADDRESS);
        assert_eq!(log_in(&mut lab, &phone, "alice", &token).status(), 200, "{token}");
        lab.finish();
    }
}

#[test]
fn without_a_clock_no_token_is_good() {
    let issuer = Issuer::default();
    let mut lab = Lab::new(1, with_bearer(lab::config(), &issuer));
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    assert_eq!(log_in(&mut lab, &phone, "alice", &issuer.token("alice", END)).status(), 401);
    lab.finish();
}

/// RFC 8898 §2.2: each method has a challenge of its own; a client answers the one that it knows.
#[test]
fn passwords_and_tokens_at_once() {
    let issuer = Issuer::default();
    let config = with_bearer(lab::config(), &issuer);
    let settings = Settings { users: &users(&["bob"]), ..Settings::default() };
    let mut lab = lab_with(2, with_digest(config, &settings));
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let refused = ask(&mut lab, &phone, &register(&phone, "bob", "a", 1));
    let schemes: Vec<&str> = refused
        .all("WWW-Authenticate")
        .map(|line| line.split(' ').next().expect("a scheme"))
        .collect();
    assert_eq!(schemes, ["Bearer", "Digest", "Digest"], "browsers keep the last");
    let challenge = Challenge::last(&refused);
    let again = register(&phone, "bob", "a", 2).line(&authorization(&challenge, "bob"));
    assert_eq!(ask(&mut lab, &phone, &again).status(), 200);
    let token = issuer.token("alice", END);
    assert_eq!(log_in(&mut lab, &phone, "alice", &token).status(), 200);
    let wrong = log_in(&mut lab, &phone, "alice", "x.y.z");
    assert_eq!((wrong.status(), wrong.all("WWW-Authenticate").count()), (401, 3));
    lab.finish();
}

/// Wherever the flow, the owner of the address and the server are; and nobody else gets the token.
#[test]
fn servers_are_told_who_it_is_and_not_by_what() {
    let issuer = Issuer::default();
    for at in lab::placements() {
        let mut lab = lab_of(at.shards, &issuer);
        let (alice, bob) = two_of(at.owner, at.shards);
        let phone = Phone::connect(&mut lab, at.flow, Transport::Wss, ADDRESS);
        let token = issuer.token(&alice, END);
        let core = Phone::connect(&mut lab, at.owner, Transport::Udp, CORE);
        for (name, field) in [("m", "Authorization"), ("n", "Proxy-Authorization")] {
            let message = of_user(&phone, &alice, "MESSAGE", "sip:900@example.com", name)
                .line(&format!("{field}: Bearer {token}"))
                .line("P-Asserted-Identity: <sip:boss@example.com>");
            phone.send(&mut lab, &message.text());
            let got = core.take_one(&mut lab);
            let asserted: Vec<&str> = got.all("P-Asserted-Identity").collect();
            assert_eq!(asserted, [format!("<sip:{alice}@example.com>")]);
            assert!(!format!("{got:?}").contains(&token), "{got:#?}");
            core.send(&mut lab, &got.response(200, "c", &[]));
            phone.take_status(&mut lab, 200);
        }
        let as_bob = of_user(&phone, &bob, "MESSAGE", "sip:900@example.com", "b");
        let refused = ask(&mut lab, &phone, &as_bob);
        assert_eq!(refused.status(), 407, "her flow, not her name");
        assert!(refused.header("Proxy-Authenticate").starts_with("Bearer "));
        let with_hers = as_bob.line(&format!("Proxy-Authorization: Bearer {token}"));
        let with_hers = with_hers.branch(&phone, "b2");
        assert_eq!(ask(&mut lab, &phone, &with_hers).status(), 403);
        lab.finish();
    }
}

/// What a token proved ends with it: the client is asked again, and in the end its flow is closed
/// (RFC 6455 §7.4.1, 1008), unless it shows another one.
#[test]
fn a_flow_ends_after_its_token_unless_a_fresh_one_comes() {
    let issuer = Issuer::default();
    for (transport, is_renewed) in
        [(Transport::Wss, false), (Transport::Wss, true), (Transport::Tls, false)]
    {
        let mut lab = lab_of(2, &issuer);
        let phone = Phone::connect(&mut lab, 0, transport, ADDRESS);
        let flow = phone.flow.expect("a connection");
        let granted = log_in(&mut lab, &phone, "alice", &issuer.token("alice", END));
        let expires = |answer: &Sip| {
            let contact = answer.header("Contact").to_owned();
            let (_, rest) = contact.split_once("expires=").expect("an expiry");
            rest.split(';').next().and_then(|text| text.parse::<u64>().ok()).expect("a number")
        };
        assert_eq!(expires(&granted), LIFE + LEEWAY + GRACE, "no binding outlives its token");
        lab.pass(Duration::from_secs(LIFE + LEEWAY - 1));
        let kept = ask(&mut lab, &phone, &register(&phone, "alice", "b", 1));
        assert_eq!((kept.status(), expires(&kept)), (200, GRACE + 1));
        lab.pass(Duration::from_secs(1));
        let asked = ask(&mut lab, &phone, &register(&phone, "alice", "b", 2));
        assert_eq!(asked.status(), 401, "it has expired");
        if is_renewed {
            let fresh = issuer.token("alice", END + 3600);
            assert_eq!(log_in(&mut lab, &phone, "alice", &fresh).status(), 200);
        }
        lab.pass(Duration::from_secs(GRACE - 1));
        assert_eq!(lab.closed(flow), None);
        lab.pass(Duration::from_secs(1));
        if is_renewed {
            assert_eq!(lab.closed(flow), None);
            lab.pass(Duration::from_secs(3600 - 1));
            assert_eq!(lab.closed(flow), None, "for as long as the fresh one is good");
            lab.pass(Duration::from_secs(1));
        }
        assert_eq!(lab.closed(flow), Some(CloseReason::Expired), "{transport:?}");
        assert_eq!(counted(&lab, "flows_closed_expired"), 1);
        if transport.is_websocket() {
            let (opcode, payload) = frames(&lab.wire(flow).bytes).pop().expect("a close frame");
            assert_eq!((opcode, &payload[..2]), (8, &1008u16.to_be_bytes()[..]));
            assert_eq!(&payload[2..], b"token expired");
        }
        lab.finish();
    }
}

/// A key that the issuer withdraws vouches for nobody any more.
#[test]
fn keys_change_without_a_restart() {
    let (old, new) = (Issuer::default(), Issuer::default());
    let mut lab = lab_of(2, &old);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let token = old.token("alice", END);
    assert_eq!(log_in(&mut lab, &phone, "alice", &token).status(), 200);
    lab.reload(with_bearer(lab::config(), &new));
    assert_eq!(ask(&mut lab, &phone, &register(&phone, "alice", "b", 1)).status(), 401);
    assert_eq!(log_in(&mut lab, &phone, "alice", &token).status(), 401);
    assert_eq!(counted(&lab, "tokens_signature"), 1, "of another key by the same name");
    assert_eq!(log_in(&mut lab, &phone, "alice", &new.token("alice", END)).status(), 200);
    lab.finish();
}

/// What strangers can have checked is bounded: by flow, and by shard and time.
#[test]
fn checks_of_signatures_are_bounded() {
    let (issuer, forger) = (Issuer::default(), Issuer::default());
    let mut lab = lab_of(1, &issuer);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let mut statuses = Vec::new();
    for n in 0..20 {
        let forged = forger.token(&format!("u{n}"), END);
        statuses.push(log_in(&mut lab, &phone, &format!("u{n}"), &forged).status());
    }
    let checked = statuses.iter().filter(|status| **status == 401).count();
    assert_eq!((checked, counted(&lab, "tokens_verified")), (8, 8), "{statuses:?}");
    assert_eq!(counted(&lab, "tokens_put_off"), 12);
    let answer = log_in(&mut lab, &phone, "alice", &issuer.token("alice", END));
    assert_eq!((answer.status(), answer.header("Retry-After")), (500, "1"));
    lab.pass(Duration::from_secs(5));
    let answer = log_in(&mut lab, &phone, "alice", &issuer.token("alice", END));
    assert_eq!(answer.status(), 200, "in time it is heard again");
    let mut over = Vec::new();
    for n in 0..200 {
        let other = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.9:5060");
        let forged = forger.token(&format!("v{n}"), END);
        over.push(log_in(&mut lab, &other, &format!("v{n}"), &forged).status());
    }
    assert!(over[..8].iter().all(|status| *status == 401), "{over:?}");
    assert!(over[8..].iter().all(|status| *status == 500), "{over:?}");
    let honest = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.6:40001");
    let answer = log_in(&mut lab, &honest, "bob", &issuer.token("bob", END));
    assert_eq!(answer.status(), 200, "datagrams take nothing from streams");
    lab.finish();
}

/// Nor do those who say that they speak for others: a second Via costs nothing, and no flow of
/// theirs bounds them.
#[test]
fn who_comes_through_another_proxy_takes_no_checks_from_clients() {
    let (issuer, forger) = (Issuer::default(), Issuer::default());
    let mut lab = lab_of(1, &issuer);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let mut checked = 0;
    for n in 0..200 {
        let user = format!("u{n}");
        let forged = register(&phone, &user, &user, 1)
            .vias(&[&phone.via(&user), "Via: SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bKinner"])
            .line(&shown(&forger.token(&user, END)));
        checked += usize::from(ask(&mut lab, &phone, &forged).status() == 401);
    }
    assert!((1..=8).contains(&checked), "{checked}");
    let honest = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.6:40001");
    let answer = log_in(&mut lab, &honest, "bob", &issuer.token("bob", END));
    assert_eq!(answer.status(), 200);
    lab.finish();
}

/// What a REGISTER shows to the registrar behind us is for that one, whoever could read it.
#[test]
fn a_token_for_a_registrar_behind_us_goes_there() {
    let issuer = Issuer::default();
    let mut config = with_bearer(lab::config(), &issuer);
    let methods = vec!["REGISTER".to_owned()];
    let route = Route { user: None, methods, ..config.routes[0].clone() };
    config.routes.insert(0, route);
    let mut lab = lab_with(1, config);
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    for token in [issuer.token("alice", END), Issuer::default().token("alice", END)] {
        let name = format!("e{}", lab.serial());
        phone.send(&mut lab, &register(&phone, "alice", &name, 1).line(&shown(&token)).text());
        let got = core.take_method(&mut lab, "REGISTER");
        assert_eq!(got.header("Authorization"), format!("Bearer {token}"));
        core.send(&mut lab, &got.response(403, "c", &[]));
        phone.take_status(&mut lab, 403);
    }
    lab.finish();
}
