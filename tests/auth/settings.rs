//! Realms: one for all, or the domain of each user.

use sipring::base::id::Transport;

use crate::client::{ask, authorization, register};
use crate::lab::digest::{Challenge, Settings, with_digest};
use crate::lab::phone::Phone;
use crate::lab::{self, Lab};

const ADDRESS: &str = "203.0.113.5:40001";

fn two_domains(realm: Option<&str>) -> Lab {
    let mut config = lab::config();
    config.node.domains.push("example.org".into());
    config.routes[1].domain = None;
    let users = "alice@example.com:secret\nalice@example.org:secret\n";
    Lab::new(1, with_digest(config, &Settings { users, realm, ..Settings::default() }))
}

#[test]
fn the_realm_is_the_domain_of_the_user_or_one_for_all() {
    for (realm, of_org) in [(None, "example.org"), (Some("Our SIP"), "Our SIP")] {
        let mut lab = two_domains(realm);
        let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
        for (domain, expected) in
            [("example.com", realm.unwrap_or("example.com")), ("example.org", of_org)]
        {
            let draft = |cseq| {
                let aor = format!("<sip:alice@{domain}>");
                register(&phone, "alice", domain, cseq).to(&aor).from(&format!("{aor};tag=1"))
            };
            let challenge = Challenge::last(&ask(&mut lab, &phone, &draft(1)));
            assert_eq!(challenge.realm, expected);
            let again = draft(2).line(&authorization(&challenge, "alice"));
            assert_eq!(ask(&mut lab, &phone, &again).status(), 200, "{domain}");
        }
        lab.finish();
    }
}

/// Without a common realm, who is alice in one domain is nobody in the other.
#[test]
fn a_password_is_good_in_its_domain_only() {
    let mut lab = two_domains(None);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let challenge = Challenge::last(&ask(&mut lab, &phone, &register(&phone, "alice", "a", 1)));
    let aor = "<sip:alice@example.org>";
    let theft = register(&phone, "alice", "b", 1)
        .to(aor)
        .from(&format!("{aor};tag=1"))
        .line(&authorization(&challenge, "alice"));
    let answer = ask(&mut lab, &phone, &theft);
    assert_eq!((answer.status(), Challenge::last(&answer).realm.as_str()), (401, "example.org"));
    lab.finish();
}

/// With method "none" nothing of all this happens: credentials are just header fields.
#[test]
fn without_a_method_nobody_is_asked() {
    let mut lab = Lab::new(1, lab::config());
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let draft = register(&phone, "alice", "a", 1).line("Authorization: Digest x");
    assert_eq!(ask(&mut lab, &phone, &draft).status(), 200);
    lab.finish();
}

/// A domain with the dot of the root behind it is the same domain (RFC 1034 §3.1).
#[test]
fn the_dot_of_the_root_makes_no_other_realm() {
    let mut lab = two_domains(None);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let draft = |cseq| {
        let aor = "<sip:alice@Example.org.>";
        register(&phone, "alice", "dot", cseq).to(aor).from(&format!("{aor};tag=1"))
    };
    let challenge = Challenge::last(&ask(&mut lab, &phone, &draft(1)));
    assert_eq!(challenge.realm, "example.org");
    let again = draft(2).line(&authorization(&challenge, "alice"));
    assert_eq!(ask(&mut lab, &phone, &again).status(), 200);
    lab.finish();
}
