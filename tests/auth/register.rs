//! REGISTER: 401 until somebody proves to be the owner (RFC 3261 §10.3, §22.2).

use sipring::base::id::Transport;

use crate::client::{ask, authorization, lab_of, lab_with, log_in, register, two_of, users};
use crate::lab::digest::{Challenge, Response, Settings};
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, user_of};

const ADDRESS: &str = "203.0.113.5:40001";

#[test]
fn a_browser_registers_refreshes_and_leaves_wherever_its_shards_are() {
    for at in lab::placements() {
        let user = user_of(at.owner, at.shards, 0);
        let mut lab = lab_of(at.shards, &[&user]);
        let browser = Phone::connect(&mut lab, at.flow, Transport::Wss, ADDRESS);
        log_in(&mut lab, &browser, &user);
        let refresh = register(&browser, &user, "again", 1);
        let answer = ask(&mut lab, &browser, &refresh);
        assert_eq!(answer.status(), 200, "the flow has proved who it is: {answer:#?}");
        let leave = register(&browser, &user, "again", 2).line("Expires: 0");
        assert_eq!(ask(&mut lab, &browser, &leave).find("Contact"), None);
        assert_eq!(lab.count(|it| it.requests_challenged), 1);
        assert_eq!(lab.count(|it| it.credentials_accepted), 1);
        lab.finish();
    }
}

#[test]
fn every_transport_takes_a_password() {
    for transport in Transport::ALL {
        let mut lab = lab_of(2, &["alice"]);
        let phone = Phone::connect(&mut lab, 1, transport, ADDRESS);
        log_in(&mut lab, &phone, "alice");
        lab.finish();
    }
}

#[test]
fn challenges_come_in_the_configured_order_and_each_can_be_answered() {
    let names = ["SHA-512-256", "SHA-256", "SHA-256-sess", "MD5-sess", "MD5"];
    let users = users(&["alice"]);
    let settings = Settings { users: &users, algorithms: &names, ..Settings::default() };
    for (nth, name) in names.iter().enumerate() {
        let mut lab = lab_with(1, &settings);
        let phone = Phone::connect(&mut lab, 0, Transport::Tls, ADDRESS);
        let answer = ask(&mut lab, &phone, &register(&phone, "alice", "a", 1));
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.find("Proxy-Authenticate"), None);
        let challenges = Challenge::all(&answer);
        let order: Vec<&str> = challenges.iter().map(|it| it.algorithm.as_str()).collect();
        assert_eq!(order, names);
        assert!(challenges.iter().all(|it| it.realm == "example.com" && it.qop == "auth"));
        assert!(challenges.iter().all(|it| !it.stale));
        let proof = authorization(&challenges[nth], "alice");
        let again = register(&phone, "alice", "a", 2).line(&proof);
        assert_eq!(ask(&mut lab, &phone, &again).status(), 200, "{name}");
        lab.finish();
    }
}

#[test]
fn a_user_with_domain_may_log_in_by_it() {
    let mut lab = lab_of(1, &["alice"]);
    let phone = Phone::connect(&mut lab, 0, Transport::Tcp, ADDRESS);
    let challenge = Challenge::last(&ask(&mut lab, &phone, &register(&phone, "alice", "a", 1)));
    let login = ("alice@example.com", "secret");
    let response = Response::new(&challenge, login, "REGISTER", "sip:example.com");
    let line = format!("Authorization: {}", response.value());
    let again = register(&phone, "alice", "a", 2).line(&line);
    assert_eq!(ask(&mut lab, &phone, &again).status(), 200);
    lab.finish();
}

/// Unknown user and wrong password: the same status and the same header fields, whose nonces and
/// tags alone differ.
#[test]
fn a_wrong_password_and_an_unknown_user_look_alike() {
    let mut lab = lab_of(1, &["alice"]);
    let mut answers = Vec::new();
    for (user, password, port) in [("alice", "guess", 1), ("nobody", "secret", 2)] {
        let address = format!("203.0.113.5:4000{port}");
        let phone = Phone::connect(&mut lab, 0, Transport::Wss, &address);
        let challenge = Challenge::last(&ask(&mut lab, &phone, &register(&phone, user, "a", 1)));
        let response = Response::new(&challenge, (user, password), "REGISTER", "sip:example.com");
        let line = format!("Authorization: {}", response.value());
        let answer = ask(&mut lab, &phone, &register(&phone, user, "a", 2).line(&line));
        assert_eq!(answer.status(), 401);
        assert!(Challenge::all(&answer).iter().all(|it| !it.stale));
        let nonce = Challenge::last(&answer).nonce;
        assert_ne!(nonce, challenge.nonce);
        let strip = |text: &str| text.replace(&nonce, "N").replace(user, "U");
        let shape: Vec<(String, String)> = answer
            .headers
            .iter()
            .filter(|(name, _)| name != "To")
            .map(|(name, value)| (name.clone(), strip(value)))
            .collect();
        answers.push((answer.start.clone(), shape));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(lab.count(|it| it.credentials_refused), 2);
    assert_eq!(lab.count(|it| it.registrations), 0);
    lab.finish();
}

#[test]
fn nobody_registers_for_somebody_else() {
    for at in lab::placements() {
        let (alice, bob) = two_of(at.owner, at.shards);
        let mut lab = lab_of(at.shards, &[&alice, &bob]);
        let phone = Phone::connect(&mut lab, at.flow, Transport::Wss, ADDRESS);
        let challenge = log_in(&mut lab, &phone, &alice);
        let proof = authorization(&challenge, &alice);
        let theft = register(&phone, &bob, "theft", 1).line(&proof);
        let answer = ask(&mut lab, &phone, &theft);
        assert_eq!(answer.status(), 403, "{answer:#?}");
        assert_eq!(answer.header("Warning"), "399 lab \"Not your address of record\"");
        assert_eq!(answer.find("Contact"), None);
        // Without proof for him she is asked for it: the client may know both passwords.
        let answer = ask(&mut lab, &phone, &register(&phone, &bob, "theft", 2));
        let challenge = Challenge::last(&answer);
        let proof = authorization(&challenge, &bob);
        let answer = ask(&mut lab, &phone, &register(&phone, &bob, "theft", 3).line(&proof));
        assert_eq!(answer.status(), 200);
        assert_eq!(lab.count(|it| it.identities_refused), 1);
        lab.finish();
    }
}

#[test]
fn what_was_not_offered_is_refused_and_what_cannot_be_read_is_400() {
    let mut lab = lab_of(1, &["alice"]);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let challenge = Challenge::last(&ask(&mut lab, &phone, &register(&phone, "alice", "a", 1)));
    let good = Response::new(&challenge, ("alice", "secret"), "REGISTER", "sip:example.com");
    let named = |algorithm: &str| {
        let mut other = good.clone();
        other.challenge.algorithm = algorithm.to_owned();
        other.value()
    };
    let with_body = Response { qop: "auth-int".to_owned(), ..good.clone() };
    let plain = good.value();
    let cut = |part: &str| plain.replace(part, "");
    let forged = good.digest();
    let digit = if forged.starts_with('0') { "1" } else { "0" };
    let cases = [
        (named("MD5-sess"), 401),
        (named("SHA-512-256"), 401),
        (plain.replace("algorithm=MD5", "algorithm=SHA-256"), 401),
        (plain.replace("algorithm=MD5", "algorithm=CRC"), 401),
        (with_body.value(), 401),
        (cut(", qop=auth"), 401),
        (cut(", nc=00000001"), 401),
        (cut(", cnonce=\"0a4f113b\""), 401),
        (plain.replace("nc=00000001", "nc=1"), 401),
        (plain.replace("nc=00000001", "nc=+0000001"), 401),
        (plain.replace(&forged, &format!("{digit}{}", &forged[1..])), 401),
        (plain.replace(&forged, &forged[1..]), 401),
        (plain.replace(&forged, ""), 401),
        (plain.replace("username=\"alice\"", "username=\"\""), 401),
        (plain.replace("example.com\", nonce", "example.org\", nonce"), 401),
        (plain.replace("Digest", "Basic"), 401),
        (cut(&format!(", response=\"{forged}\"")), 400),
        (format!("{plain}, nc=00000002"), 400),
        (format!("{plain}, username=\"bob\""), 400),
        (plain[..plain.len() - 20].to_owned(), 400),
        (plain.replace("cnonce=\"0a4f113b\"", "cnonce=\"0a4f113b"), 400),
    ];
    for (nth, (value, status)) in cases.into_iter().enumerate() {
        let line = format!("Authorization: {value}");
        let draft = register(&phone, "alice", "a", 2 + nth as u32).line(&line);
        let answer = ask(&mut lab, &phone, &draft);
        assert_eq!(answer.status(), status, "{value}");
        if status == 401 {
            assert!(Challenge::all(&answer).iter().all(|it| !it.stale), "{value}");
        }
    }
    assert_eq!(lab.count(|it| it.registrations), 0);
    // The parameters in another order, with other quotes, are the same.
    let (_, params) = plain.split_once(' ').expect("a scheme");
    let mut params: Vec<&str> = params.split(", ").collect();
    params.reverse();
    let line = format!("Authorization: digest {}", params.join(" ,\r\n\t"))
        .replace("algorithm=MD5", "Algorithm = \"md5\"");
    let draft = register(&phone, "alice", "a", 99).line(&line);
    assert_eq!(ask(&mut lab, &phone, &draft).status(), 200, "{line}");
    lab.finish();
}

#[test]
fn of_several_credentials_for_us_one_must_be_right() {
    let mut lab = lab_of(1, &["alice"]);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let challenges = Challenge::all(&ask(&mut lab, &phone, &register(&phone, "alice", "a", 1)));
    let mut foreign = challenges[0].clone();
    foreign.realm = "elsewhere".to_owned();
    let mut wrong = challenges[0].clone();
    wrong.nonce = "wrong".to_owned();
    let draft = register(&phone, "alice", "a", 2)
        .line(&authorization(&foreign, "alice"))
        .line(&authorization(&wrong, "nobody"))
        .line(&authorization(&challenges[1], "alice"));
    assert_eq!(ask(&mut lab, &phone, &draft).status(), 200);
    lab.finish();
}

#[test]
fn a_server_behind_us_and_its_own_registrar_are_left_alone() {
    let users = users(&["alice"]);
    let settings = Settings { users: &users, ..Settings::default() };
    let mut config = lab::digest::with_digest(lab::config(), &settings);
    config.routes.insert(
        0,
        sipring::base::config::Route {
            user: None,
            domain: None,
            methods: vec!["REGISTER".into()],
            to: sipring::base::config::RouteTo::Upstream(0),
        },
    );
    let mut lab = lab::Lab::new(1, config);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let theirs = "Authorization: Digest username=\"alice\", realm=\"example.com\", nonce=\"n\", \
        uri=\"sip:example.com\", response=\"0\"";
    phone.send(&mut lab, &register(&phone, "alice", "a", 1).line(theirs).text());
    let got = core.take_method(&mut lab, "REGISTER");
    assert_eq!(format!("Authorization: {}", got.header("Authorization")), theirs);
    let challenge = "WWW-Authenticate: Digest realm=\"core\", nonce=\"x\"";
    core.send(&mut lab, &got.response(401, "c", &[challenge]));
    let answer = phone.take_status(&mut lab, 401);
    assert_eq!(answer.header("WWW-Authenticate"), "Digest realm=\"core\", nonce=\"x\"");
    lab.finish();
}
