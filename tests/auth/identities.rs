//! In whose name (RFC 3325): From and P-Preferred-Identity are the sender's own, and servers behind
//! us are told who it is.

use sipring::base::id::Transport;

use crate::client::{ask, lab_of, log_in, of_user, proxy_authorization, users};
use crate::lab::digest::{Challenge, Settings, with_digest};
use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, CORE, Lab};

const ADDRESS: &str = "203.0.113.5:40001";
/// Goes to the server behind us.
const NUMBER: &str = "sip:900@example.com";

/// What reaches the server behind us.
fn at_core(lab: &mut Lab, phone: &Phone, core: &Phone, draft: &Draft) -> Sip {
    phone.send(lab, &draft.text());
    let got = core.take_one(lab);
    core.send(lab, &got.response(200, "c", &[]));
    phone.take_status(lab, 200);
    got
}

#[test]
fn nobody_speaks_in_anothers_name() {
    let mut lab = lab_of(2, &["alice", "bob"]);
    let phone = Phone::connect(&mut lab, 1, Transport::Wss, ADDRESS);
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let challenge = log_in(&mut lab, &phone, "alice");
    let message = |from: &str, name: &str| {
        request(&phone, "MESSAGE", NUMBER, name).from(&format!("<{from}>;tag=1"))
    };
    // Another user of ours: asked to prove it, and refused with her own proof.
    let as_bob = message("sip:bob@example.com", "b1");
    let refused = ask(&mut lab, &phone, &as_bob);
    assert_eq!(refused.status(), 407);
    let proof = proxy_authorization(&challenge, "alice", "MESSAGE", NUMBER);
    let as_bob = message("sip:bob@example.com", "b2").line(&proof);
    let answer = ask(&mut lab, &phone, &as_bob);
    assert_eq!((answer.status(), answer.header("Warning")), (403, "399 lab \"Not your identity\""));
    let proof = proxy_authorization(&Challenge::last(&refused), "bob", "MESSAGE", NUMBER);
    let got = at_core(&mut lab, &phone, &core, &message("sip:bob@example.com", "b3").line(&proof));
    assert_eq!(got.header("P-Asserted-Identity"), "<sip:bob@example.com>");
    // The last proof holds for the flow.
    for (nth, from) in ["sip:x@example.org", "tel:+1555", "sips:x@example.org"].iter().enumerate() {
        let answer = ask(&mut lab, &phone, &message(from, &format!("f{nth}")));
        assert_eq!(answer.status(), 403, "{from}");
    }
    for (nth, from) in
        ["sip:bob@example.com:5060;x=y", "sips:bob@EXAMPLE.com", "sip:%62ob@example.com"]
            .iter()
            .enumerate()
    {
        at_core(&mut lab, &phone, &core, &message(from, &format!("o{nth}")));
    }
    core.heard_nothing(&mut lab);
    assert_eq!(lab.count(|it| it.identities_refused), 4);
    lab.finish();
}

#[test]
fn a_preferred_identity_must_be_ones_own_and_stays_here() {
    let mut lab = lab_of(1, &["alice", "bob"]);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let hidden = |name: &str, preferred: &str| {
        request(&phone, "MESSAGE", NUMBER, name)
            .from("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1")
            .line("Privacy: id")
            .line(&format!("P-Preferred-Identity: {preferred}"))
    };
    let alice = "\"A\" <sip:alice@example.com>";
    assert_eq!(ask(&mut lab, &phone, &hidden("h1", alice)).status(), 407, "whose name is it?");
    log_in(&mut lab, &phone, "alice");
    let got = at_core(&mut lab, &phone, &core, &hidden("h2", alice));
    assert_eq!(got.header("P-Asserted-Identity"), "<sip:alice@example.com>");
    assert_eq!(got.find("P-Preferred-Identity"), None);
    assert_eq!(got.header("Privacy"), "id", "for the server to respect");
    for (name, preferred) in [("h3", "<sip:x@example.org>"), ("h4", "<tel:+1555>"), ("h5", "<")] {
        assert_eq!(ask(&mut lab, &phone, &hidden(name, preferred)).status(), 403, "{preferred}");
    }
    assert_eq!(ask(&mut lab, &phone, &hidden("h6", "<sip:bob@example.com>")).status(), 407);
    lab.finish();
}

#[test]
fn what_strangers_and_users_assert_is_taken_off() {
    let mut lab = lab_of(1, &["alice", "bob"]);
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let alice = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let bob = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.6:40002");
    let stranger = Phone::connect(&mut lab, 0, Transport::Tcp, "203.0.113.7:40003");
    log_in(&mut lab, &alice, "alice");
    log_in(&mut lab, &bob, "bob");
    let claim = "P-Asserted-Identity: <sip:boss@example.com>";
    let got = at_core(
        &mut lab,
        &alice,
        &core,
        &of_user(&alice, "alice", "MESSAGE", NUMBER, "1").line(claim),
    );
    assert_eq!(got.all("P-Asserted-Identity").collect::<Vec<_>>(), ["<sip:alice@example.com>"]);
    let got = at_core(
        &mut lab,
        &stranger,
        &core,
        &request(&stranger, "MESSAGE", NUMBER, "2").line(claim),
    );
    assert_eq!(got.find("P-Asserted-Identity"), None);
    // Between users nothing is asserted: a client is nobody to trust (RFC 3325 §5).
    alice.send(&mut lab, &of_user(&alice, "alice", "MESSAGE", "sip:bob@example.com", "3").text());
    let got = bob.take_method(&mut lab, "MESSAGE");
    assert_eq!(got.find("P-Asserted-Identity"), None);
    bob.send(&mut lab, &got.response(200, "b", &[]));
    alice.take_status(&mut lab, 200);
    lab.finish();
}

#[test]
fn what_a_server_asserts_reaches_clients_unless_it_is_private() {
    let mut lab = lab_of(1, &["bob"]);
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let bob = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    log_in(&mut lab, &bob, "bob");
    let claim = "P-Asserted-Identity: <sip:boss@example.com>";
    for (name, privacy, shown) in
        [("1", "Privacy: none", true), ("2", "Privacy: header; ID", false)]
    {
        let draft =
            request(&core, "MESSAGE", "sip:bob@example.com", name).line(claim).line(privacy);
        core.send(&mut lab, &draft.text());
        let got = bob.take_method(&mut lab, "MESSAGE");
        assert_eq!(got.find("P-Asserted-Identity").is_some(), shown, "{privacy}");
        bob.send(&mut lab, &got.response(200, "b", &[claim]));
        let answer = core.take_status(&mut lab, 200);
        assert_eq!(answer.find("P-Asserted-Identity"), None, "a client asserts nothing");
        bob.send(&mut lab, &of_user(&bob, "bob", "MESSAGE", NUMBER, &format!("up{name}")).text());
        let got = core.take_method(&mut lab, "MESSAGE");
        core.send(&mut lab, &got.response(200, "c", &[claim, privacy]));
        let answer = bob.take_status(&mut lab, 200);
        assert_eq!(answer.find("P-Asserted-Identity").is_some(), shown, "{privacy}");
    }
    lab.finish();
}

#[test]
fn identities_need_not_be_pinned() {
    let users = users(&["alice"]);
    let settings = Settings { users: &users, ..Settings::default() };
    let mut config = with_digest(lab::config(), &settings);
    config.auth.pin_identity = false;
    let mut lab = Lab::new(1, config);
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    let sales = |name: &str| of_user(&phone, "sales", "MESSAGE", NUMBER, name);
    assert_eq!(ask(&mut lab, &phone, &sales("1")).status(), 407, "nobody yet");
    log_in(&mut lab, &phone, "alice");
    let got = at_core(&mut lab, &phone, &core, &sales("2"));
    assert_eq!(got.header("P-Asserted-Identity"), "<sip:alice@example.com>", "who it really is");
    lab.finish();
}

/// A name that cannot be read is nobody's, and no stranger's either: a callee may read it as one of
/// ours.
#[test]
fn a_from_that_cannot_be_read_is_refused() {
    let mut lab = lab_of(1, &["alice", "bob"]);
    let bob = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.6:40002");
    log_in(&mut lab, &bob, "bob");
    let alice = Phone::connect(&mut lab, 0, Transport::Wss, ADDRESS);
    log_in(&mut lab, &alice, "alice");
    let stranger = Phone::connect(&mut lab, 0, Transport::Tcp, "203.0.113.7:40003");
    for phone in [stranger, alice] {
        for (nth, from) in [
            "sip:alice@example.com:99999",
            "sip:alice@example.com:",
            "sip:alice@example.com;x=@y",
            "sip:alice@example.com;x=%zz",
            "sip:alice@@example.com",
            "sip:al%6@example.com",
            "sips:alice@[example.com]",
        ]
        .iter()
        .enumerate()
        {
            let name = format!("u{nth}{}", phone.remote.port());
            let message = request(&phone, "MESSAGE", "sip:bob@example.com", &name)
                .from(&format!("\"Alice\" <{from}>;tag=1"));
            assert_eq!(ask(&mut lab, &phone, &message).status(), 400, "{from}");
            bob.heard_nothing(&mut lab);
        }
    }
    lab.finish();
}
