//! Passwords over real sockets (RFC 3261 §22).

use super::support::digest::{again, answer, log_in};
use super::support::phone::PATIENCE;
use super::support::{Phone, Server, Setup, Transport};

const USERS: &str = "alice:wonderland\nbob:builder\n";

fn start() -> Server {
    Setup::new().shards(2).users(USERS, "").start()
}

#[test]
fn phones_with_a_password_register_and_call_over_every_transport() {
    let server = start();
    for callee in [Transport::Wss, Transport::Tcp, Transport::Udp] {
        let mut bob = Phone::connect(callee, &server, "bob");
        log_in(&mut bob, "builder");
        for caller in Transport::ALL {
            let mut alice = Phone::connect(caller, &server, "alice");
            let draft = alice.draft("MESSAGE", "sip:bob@example.com").body("text/plain", "hi");
            let refused = alice.ask(&draft);
            assert_eq!(refused.status(), 407, "{refused:?}");
            alice.send(&again(&alice, &draft, &refused, "wonderland").build());
            let got = bob.request("MESSAGE");
            assert!(got.all("proxy-authorization").next().is_none(), "{got:?}");
            bob.send(&super::support::sip::response_to(&got, 200, "b").build());
            alice.status(200);
        }
        let leave = bob.register_draft("*").with("Expires", "0");
        let left = bob.ask(&leave);
        match callee {
            Transport::Udp => assert_eq!(left.status(), 401, "{left:?}"),
            _ => assert_eq!(left.status(), 200, "{left:?}"),
        }
    }
    server.wait_metric("sipring_credentials_accepted_total", 18, PATIENCE);
}

#[test]
fn without_the_password_nothing_is_bound_and_nothing_is_sent() {
    let server = start();
    let mut bob = Phone::connect(Transport::Wss, &server, "bob");
    let proof = log_in(&mut bob, "builder");
    let mut thief = Phone::connect(Transport::Wss, &server, "bob");
    for value in [&*proof, "Digest realm=\"example.com\"", "Digest x=\"y", "Basic Ym9i"] {
        let draft = thief.register_draft("<sip:thief@x.invalid>").with("Authorization", value);
        let refused = thief.ask(&draft);
        assert!([400, 401].contains(&refused.status()), "{value}: {refused:?}");
    }
    let draft = thief.register_draft("<sip:thief@x.invalid>");
    let refused = thief.ask(&draft);
    let guess = answer(&refused, "bob", "guess", "REGISTER", "sip:example.com");
    let draft = thief.register_draft("<sip:thief@x.invalid>").with("Authorization", &guess);
    assert_eq!(thief.ask(&draft).status(), 401);
    let query = bob.register_draft("");
    let listed = bob.ask(&query);
    let contacts: Vec<&str> = listed.all("contact").collect();
    assert!(contacts.len() == 1 && contacts[0].contains(&bob.contact), "{listed:?}");
}

/// Credentials that a web service makes; its secret and the users change without a signal.
#[test]
fn time_limited_credentials_and_files_that_change() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("secret.txt");
    std::fs::write(&file, "north wind and sun\n").expect("write secret");
    let auth = format!("shared_secret_file = \"{}\"", file.display());
    let server = Setup::new().shards(2).users(USERS, &auth).start();
    // Both of `openssl dgst -sha1 -hmac 'north wind and sun' -binary | base64`.
    let (late, early) = ("4102444800:carol", "1577836800:carol");
    let status = |phone: &mut Phone, name: &str, password: &str| {
        let draft = phone.register_draft(&format!("<{}>", phone.contact));
        let refused = phone.ask(&draft);
        if refused.status() != 401 {
            return refused.status();
        }
        let value = answer(&refused, name, password, "REGISTER", "sip:example.com");
        let draft = phone.register_draft("<sip:c@x.invalid>").with("Authorization", &value);
        phone.ask(&draft).status()
    };
    for transport in Transport::ALL {
        let mut carol = Phone::connect(transport, &server, "carol");
        assert_eq!(status(&mut carol, early, "avphEL6czRCOpHwGnj/dtHkG058="), 401);
        assert_eq!(status(&mut carol, late, "bJa18N7QbAACfm+wsj9xiD9XxPA="), 200);
    }
    std::fs::write(&file, "the next one to come\n").expect("write secret");
    std::fs::write(server.folder().join("users.txt"), "bob:builder\n").expect("write users");
    let mut carol = Phone::connect(Transport::Wss, &server, "carol");
    let deadline = std::time::Instant::now() + 3 * PATIENCE;
    while status(&mut carol, late, "bJa18N7QbAACfm+wsj9xiD9XxPA=") != 401 {
        assert!(std::time::Instant::now() < deadline, "{}", server.log());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let mut alice = Phone::connect(Transport::Wss, &server, "alice");
    assert_eq!(status(&mut alice, "alice", "wonderland"), 401);
    let mut bob = Phone::connect(Transport::Wss, &server, "bob");
    log_in(&mut bob, "builder");
}

/// Not at the lowest level, whatever is dropped or refused.
#[test]
fn the_log_has_no_credentials() {
    let mut server = Setup::new().users(USERS, "").log_level("trace").start();
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut alice = Phone::connect(transport, &server, "alice");
        let proof = log_in(&mut alice, "wonderland");
        let draft = alice.register_draft("").with("Authorization", &proof).without("To");
        alice.send(&draft.build());
        let draft = alice.draft("MESSAGE", "sip:nobody@example.com");
        let refused = alice.ask(&draft);
        if refused.status() == 407 {
            let draft = again(&alice, &draft, &refused, "wonderland");
            assert_eq!(alice.ask(&draft).status(), 404);
        }
    }
    server.terminate();
    assert!(server.wait_exit(PATIENCE).is_some_and(|status| status.success()));
    let log = server.log();
    assert!(log.contains("nobody@example.com"), "{log}");
    for part in ["Digest", "nonce", "response", "wonderland", "c0ffee"] {
        assert!(!log.contains(part), "{part} is in\n{log}");
    }
}
