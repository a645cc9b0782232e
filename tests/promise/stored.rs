//! The process ends, in whatever way, and another run finds the bindings in the store: who needs no
//! connection gets his requests as before, of the others it is known that they exist. Where the
//! configuration wants it, a REGISTER is answered when its change is durable (RFC 3261 §10.3).

use std::time::Duration;

use sipring::base::config::{Config, Persistence};
use sipring::base::event::CloseReason;
use sipring::base::id::Transport;
use sipring::base::limits::{STORE_WAIT_MAX, STORE_WAITERS_MAX};
use sipring::engine::Input;

use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab, user_of};

const BROWSER: &str = "203.0.113.5:40001";
const INSTANCE: &str = "+sip.instance=\"<urn:uuid:1>\"";

fn config(persistence: Persistence) -> Config {
    lab::config_with(|config| config.registrar.persistence = persistence)
}

fn delayed(shards: u16) -> Lab {
    Lab::new(shards, config(Persistence::Delayed))
}

/// The next run of the process, with as many shards as it likes.
fn next_run(former: &Lab, shards: u16, down: u64) -> Lab {
    let mut lab = Lab::with_epoch(shards, config(Persistence::Delayed), 2);
    lab.restore(former, Duration::from_secs(down));
    lab
}

/// A REGISTER of one client, whose Call-ID outlives a run.
fn registration(phone: &Phone, user: &str, contact: &str, cseq: u32) -> Draft {
    request(phone, "REGISTER", "sip:example.com", &format!("reg{user}{cseq}"))
        .to(&format!("<sip:{user}@example.com>"))
        .call_id(&format!("call-{user}"))
        .cseq(cseq)
        .line(&format!("Contact: {contact}"))
        .line("Supported: path, outbound, gruu")
}

/// What the core gets for a MESSAGE to `uri` that nobody receives.
fn refusal(lab: &mut Lab, core: &Phone, uri: &str) -> u16 {
    let serial = lab.serial();
    core.send(lab, &request(core, "MESSAGE", uri, &format!("m{serial}")).text());
    core.take_one(lab).status()
}

#[test]
fn a_datagram_client_gets_its_requests_after_a_restart() {
    for (before, after) in [(1, 1), (1, 3), (3, 2)] {
        for contact in ["sip:a@203.0.113.5:40001", "sip:a@10.0.0.7:5060", "sip:a@10.0.0.7;ob"] {
            let mut lab = delayed(before);
            let user = user_of(0, after, 3);
            let phone = Phone::connect(&mut lab, 0, Transport::Udp, BROWSER);
            phone.register(&mut lab, &user, &format!("<{contact}>;q=0.5;x=\"y z\""));
            let mut lab = next_run(&lab, after, 5);
            assert_eq!(lab.count(|it| it.bindings_restored), 1);
            let core = Phone::connect(&mut lab, after - 1, Transport::Udp, CORE);
            let uri = format!("sip:{user}@example.com");
            core.send(&mut lab, &request(&core, "MESSAGE", &uri, "m1").text());
            let got = phone.take_method(&mut lab, "MESSAGE");
            assert_eq!(got.uri(), contact);
            phone.send(&mut lab, &got.response(200, "t", &[]));
            core.take_status(&mut lab, 200);
            // In a dialog, by its Contact alone.
            let inside = request(&core, "INFO", contact, "i1").to(&format!("<{uri}>;tag=t"));
            core.send(&mut lab, &inside.text());
            assert_eq!(phone.take_method(&mut lab, "INFO").uri(), contact);
            // It is listed as it was.
            let query = request(&core, "REGISTER", "sip:example.com", "q1");
            core.send(&mut lab, &query.to(&format!("<{uri}>")).text());
            let listed = core.take_status(&mut lab, 200).header("Contact").to_owned();
            let start = format!("<{contact}>;x=\"y z\";q=0.5;expires=");
            let left: u64 = listed.strip_prefix(&start).expect(&listed).parse().unwrap();
            assert!((3_235..=3_595).contains(&left), "{listed}");
        }
    }
}

#[test]
fn a_binding_behind_another_proxy_comes_back_with_its_path() {
    let mut lab = delayed(2);
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let path = "<sip:198.51.100.7;lr>";
    let draft = registration(&core, "alice", "<sip:a@10.0.0.9>", 1).line(&format!("Path: {path}"));
    core.send(&mut lab, &draft.text());
    core.take_status(&mut lab, 200);
    let mut lab = next_run(&lab, 1, 5);
    let sender = Phone::connect(&mut lab, 0, Transport::Tcp, "203.0.113.9:1");
    let draft = request(&sender, "MESSAGE", "sip:alice@example.com", "m1");
    sender.send(&mut lab, &draft.text());
    let got = core.take_method(&mut lab, "MESSAGE");
    assert_eq!((got.uri(), got.header("Route")), ("sip:a@10.0.0.9", path));
}

#[test]
fn a_client_that_can_be_dialled_is_dialled() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut lab = delayed(1);
        let phone = Phone::connect(&mut lab, 0, transport, BROWSER);
        phone.register(&mut lab, "alice", "<sip:a@203.0.113.5:5070>");
        let mut lab = next_run(&lab, 2, 5);
        let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
        let draft = request(&core, "MESSAGE", "sip:alice@example.com", "m1");
        core.send(&mut lab, &draft.text());
        let (_, _, target) = &lab.opens[0];
        assert_eq!(target.remote, "203.0.113.5:5070".parse().unwrap());
        assert_eq!(target.secure, transport == Transport::Tls);
    }
}

#[test]
fn a_client_of_a_stream_is_known_until_it_registers_again() {
    for transport in [Transport::Ws, Transport::Wss, Transport::Tcp, Transport::Tls] {
        let contact = format!("<sip:a@df7jal23ls0d.invalid>;reg-id=1;{INSTANCE}");
        let mut lab = delayed(1);
        let phone = Phone::connect(&mut lab, 0, transport, BROWSER);
        phone.send(&mut lab, &registration(&phone, "alice", &contact, 1).text());
        let answer = phone.take_status(&mut lab, 200);
        let (_, gruu) = answer.header("Contact").split_once("temp-gruu=\"").expect("a GRUU");
        let gruu = gruu.split_once('"').expect("a quote").0.to_owned();

        let mut lab = next_run(&lab, 2, 5);
        let core = Phone::connect(&mut lab, 1, Transport::Udp, CORE);
        assert_eq!(refusal(&mut lab, &core, "sip:nobody@example.com"), 404);
        assert_eq!(refusal(&mut lab, &core, "sip:alice@example.com"), 480, "{transport:?}");
        assert_eq!(refusal(&mut lab, &core, &gruu), 480, "valid, but not here");
        let query = request(&core, "REGISTER", "sip:example.com", "q1");
        core.send(&mut lab, &query.to("<sip:alice@example.com>").text());
        assert_eq!(core.take_status(&mut lab, 200).find("Contact"), None, "it cannot be reached");

        let phone = Phone::connect(&mut lab, 0, transport, "203.0.113.5:40002");
        phone.send(&mut lab, &registration(&phone, "alice", &contact, 2).text());
        let answer = phone.take_status(&mut lab, 200);
        assert_eq!(answer.all("Contact").count(), 1);
        core.send(&mut lab, &request(&core, "MESSAGE", &gruu, "again").text());
        let got = phone.take_method(&mut lab, "MESSAGE");
        assert_eq!(got.uri(), "sip:a@df7jal23ls0d.invalid", "a GRUU of the former run");
        assert_eq!(lab.shelf.count_of("alice@example.com"), 1);
    }
}

#[test]
fn what_waits_for_its_client_takes_nobodys_place() {
    let mut config = config(Persistence::Delayed);
    config.registrar.contacts_max = 1;
    let mut lab = Lab::new(1, config.clone());
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, BROWSER);
    phone.register(&mut lab, "alice", "<sip:old@df7jal23ls0d.invalid>");
    let mut next = Lab::with_epoch(1, config, 2);
    next.restore(&lab, Duration::from_secs(1));
    let phone = Phone::connect(&mut next, 0, Transport::Wss, BROWSER);
    let answer = phone.register(&mut next, "alice", "<sip:new@df7jal23ls0d.invalid>");
    assert_eq!(answer.all("Contact").count(), 1);
    let more = registration(&phone, "alice", "<sip:third@df7jal23ls0d.invalid>", 1);
    phone.send(&mut next, &more.text());
    phone.take_status(&mut next, 403);
    // A client that comes back with its old Contact needs a place like any other.
    let back = registration(&phone, "alice", "<sip:old@df7jal23ls0d.invalid>", 2);
    phone.send(&mut next, &back.text());
    phone.take_status(&mut next, 403);
}

#[test]
fn what_expired_meanwhile_does_not_come_back() {
    let mut lab = delayed(1);
    let phone = Phone::connect(&mut lab, 0, Transport::Udp, BROWSER);
    phone.register(&mut lab, "short", "<sip:a@203.0.113.5:40001>;expires=60");
    phone.register(&mut lab, "long", "<sip:a@203.0.113.5:40001>;expires=600");
    let mut lab = next_run(&lab, 1, 60);
    let of = |lab: &Lab| {
        (lab.count(|it| it.bindings_restored), lab.count(|it| it.bindings_not_restored))
    };
    assert_eq!(of(&lab), (1, 1));
    assert_eq!(lab.shelf.records.len(), 1, "and the store forgets it");
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    assert_eq!(refusal(&mut lab, &core, "sip:short@example.com"), 404);
    lab.pass(Duration::from_secs(550));
    assert_eq!(refusal(&mut lab, &core, "sip:long@example.com"), 480, "its time is over");
    assert!(lab.shelf.records.is_empty());
    // A clock that was set back does not make a binding eternal.
    let mut config = config(Persistence::Delayed);
    config.registrar.expires_max = Duration::from_secs(100);
    let mut former = delayed(1);
    phone.register(&mut former, "long", "<sip:a@203.0.113.5:40001>;expires=3600");
    let mut lab = Lab::with_epoch(1, config, 2);
    lab.restore(&former, Duration::ZERO);
    lab.pass(Duration::from_secs(110));
    assert_eq!(lab.engines[0].gauges().bindings, 0);
}

#[test]
fn the_store_has_what_the_table_has() {
    let mut lab = delayed(2);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, BROWSER);
    let other = Phone::connect(&mut lab, 1, Transport::Udp, "203.0.113.6:40002");
    for user in ["alice", "bob"] {
        phone.register(&mut lab, user, "<sip:a@df7jal23ls0d.invalid>");
        other.register(&mut lab, user, "<sip:b@10.0.0.7>");
        other.register(&mut lab, user, "<sip:b@10.0.0.7>");
    }
    assert_eq!(lab.shelf.records.len(), 4);
    other.register(&mut lab, "bob", "<sip:b@10.0.0.7>;expires=0");
    assert_eq!(lab.shelf.count_of("bob@example.com"), 1);
    phone.leave(&mut lab, CloseReason::Peer);
    assert_eq!(lab.shelf.count_of("alice@example.com"), 1);
    assert_eq!(lab.shelf.records.len(), 1);
    lab.pass(Duration::from_secs(7_300));
    assert!(lab.shelf.records.is_empty());
}

#[test]
fn the_end_of_a_process_does_not_forget_whom_it_knew() {
    let mut lab = delayed(1);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, BROWSER);
    phone.register(&mut lab, "alice", "<sip:a@df7jal23ls0d.invalid>");
    lab.input(0, Input::Drain);
    phone.leave(&mut lab, CloseReason::Peer);
    assert_eq!(lab.shelf.count_of("alice@example.com"), 1);
    let mut lab = next_run(&lab, 1, 5);
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    assert_eq!(refusal(&mut lab, &core, "sip:alice@example.com"), 480);
}

#[test]
fn another_configuration_takes_what_it_can() {
    let mut lab = delayed(1);
    let phone = Phone::connect(&mut lab, 0, Transport::Udp, BROWSER);
    phone.register(&mut lab, "alice", "<sip:a@10.0.0.7>");
    // Another port: the binding is reached from there. Another order: by address, not position.
    let mut moved = config(Persistence::Delayed);
    moved.listeners[0].address.set_port(5062);
    let mut third = moved.clone();
    third.listeners.rotate_left(2);
    for (config, place) in [(moved, 0), (third, 3)] {
        let mut next = Lab::with_epoch(1, config, 2);
        next.restore(&lab, Duration::ZERO);
        let sender = next.connect_at(
            0,
            sipring::base::id::ListenerId(place + 1),
            sipring::base::id::FlowKey {
                transport: Transport::Tcp,
                local: lab::listener_address(Transport::Tcp),
                remote: "203.0.113.9:1".parse().unwrap(),
            },
        );
        next.data(
            sender,
            b"MESSAGE sip:alice@example.com SIP/2.0\r\nVia: SIP/2.0/TCP 203.0.113.9:1;\
branch=z9hG4bK1\r\nMax-Forwards: 70\r\nFrom: <sip:b@example.org>;tag=1\r\n\
To: <sip:alice@example.com>\r\nCall-ID: 1\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n",
        );
        let (path, _) = next.datagrams.pop_front().expect("a datagram");
        assert_eq!((path.listener.0, path.local.port()), (place, 5062));
    }
    // Not our domain any more, and nobody to send datagrams.
    let mut foreign = config(Persistence::Delayed);
    foreign.node.domains = vec!["example.net".into()];
    let mut next = Lab::with_epoch(1, foreign, 2);
    next.restore(&lab, Duration::ZERO);
    assert_eq!(next.count(|it| it.bindings_not_restored), 1);
    let mut deaf = config(Persistence::Delayed);
    deaf.listeners.remove(0);
    let mut next = Lab::with_epoch(1, deaf, 2);
    next.restore(&lab, Duration::ZERO);
    assert_eq!(next.count(|it| it.bindings_restored), 1, "known, though out of reach");
}

#[test]
fn whoever_registered_meanwhile_is_not_overwritten() {
    let mut former = delayed(1);
    let old = Phone::connect(&mut former, 0, Transport::Udp, BROWSER);
    old.register(&mut former, "alice", &format!("<sip:a@10.0.0.7>;reg-id=1;{INSTANCE}"));
    old.register(&mut former, "bob", "<sip:b@10.0.0.7>");
    let mut lab = Lab::with_epoch(1, config(Persistence::Delayed), 2);
    let new = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.6:40002");
    new.register(&mut lab, "alice", &format!("<sip:n@10.0.0.8>;reg-id=1;{INSTANCE}"));
    new.register(&mut lab, "bob", "<sip:b@10.0.0.7>");
    let meanwhile = lab.shelf.records.clone();
    lab.restore(&former, Duration::ZERO);
    assert_eq!(lab.count(|it| it.bindings_not_restored), 2);
    assert!(lab.shelf.records.is_empty(), "what the file had is removed");
    assert_eq!(meanwhile.len(), 2);
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    let draft = request(&core, "MESSAGE", "sip:alice@example.com", "m1");
    core.send(&mut lab, &draft.text());
    assert_eq!(new.take_method(&mut lab, "MESSAGE").uri(), "sip:n@10.0.0.8");
}

#[test]
fn a_register_is_answered_when_its_change_is_durable() {
    for shards in [1, 3] {
        let mut lab = Lab::new(shards, config(Persistence::Synchronous));
        let (user, other) = (user_of(shards - 1, shards, 0), user_of(0, shards, 1));
        let phone = Phone::connect(&mut lab, 0, Transport::Wss, BROWSER);
        let mate = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.6:40002");
        let register = registration(&phone, &user, "<sip:a@df7jal23ls0d.invalid>", 1);
        phone.send(&mut lab, &register.text());
        mate.send(&mut lab, &registration(&mate, &other, "<sip:b@10.0.0.7>", 1).text());
        phone.heard_nothing(&mut lab);
        mate.heard_nothing(&mut lab);
        // Nothing else waits: the binding is in force, a query shows it.
        let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
        let uri = format!("sip:{user}@example.com");
        core.send(&mut lab, &request(&core, "MESSAGE", &uri, "m1").text());
        let got = phone.take_method(&mut lab, "MESSAGE");
        phone.send(&mut lab, &got.response(200, "t", &[]));
        core.take_status(&mut lab, 200);
        let query = request(&core, "REGISTER", "sip:example.com", "q1");
        core.send(&mut lab, &query.to(&format!("<{uri}>")).text());
        assert_eq!(core.take_status(&mut lab, 200).all("Contact").count(), 1);
        // A repeat is absorbed (RFC 3261 §17.2.2).
        lab.pass(Duration::from_secs(2));
        phone.send(&mut lab, &register.text());
        lab.make_durable();
        let answer = phone.take_status(&mut lab, 200);
        assert!(answer.header("Contact").starts_with("<sip:a@df7jal23ls0d.invalid>;"));
        mate.take_status(&mut lab, 200);
        // So does a removal.
        let gone = registration(&phone, &user, "<sip:a@df7jal23ls0d.invalid>;expires=0", 2);
        phone.send(&mut lab, &gone.text());
        phone.heard_nothing(&mut lab);
        lab.make_durable();
        assert_eq!(phone.take_status(&mut lab, 200).find("Contact"), None);
        // What is refused changes nothing.
        let late = registration(&mate, &other, "<sip:b@10.0.0.7>", 1)
            .branch(&mate, "late")
            .from("<sip:sender@example.org>;tag=late");
        mate.send(&mut lab, &late.text());
        mate.take_status(&mut lab, 500);
    }
}

#[test]
fn a_store_that_takes_too_long_is_told_to_the_client() {
    let mut lab = Lab::new(1, config(Persistence::Synchronous));
    let phone = Phone::connect(&mut lab, 0, Transport::Udp, BROWSER);
    phone.send(&mut lab, &registration(&phone, "alice", "<sip:a@10.0.0.7>", 1).text());
    lab.pass(STORE_WAIT_MAX / 2);
    phone.send(&mut lab, &registration(&phone, "bob", "<sip:b@10.0.0.7>", 1).text());
    lab.pass(STORE_WAIT_MAX / 2);
    // Between them 100, as RFC 4320 §4.1 has it.
    let heard = phone.take(&mut lab);
    let [trying, more, answer] = &heard[..] else { panic!("{heard:#?}") };
    assert_eq!((trying.status(), more.status(), answer.status()), (100, 100, 500));
    assert_eq!(answer.header("To").split(';').next(), Some("<sip:alice@example.com>"));
    assert!(answer.find("Retry-After").is_some());
    assert_eq!(lab.count(|it| it.registrations_not_stored), 1);
    // The other is durable in time; it comes again.
    lab.make_durable();
    phone.take_status(&mut lab, 200);
    phone.send(&mut lab, &registration(&phone, "alice", "<sip:a@10.0.0.7>", 2).text());
    lab.make_durable();
    phone.take_status(&mut lab, 200);
    lab.finish();
}

#[test]
fn only_so_many_wait_for_the_store() {
    let mut lab = Lab::new(1, config(Persistence::Synchronous));
    let phone = Phone::connect(&mut lab, 0, Transport::Udp, BROWSER);
    for user in 0..STORE_WAITERS_MAX {
        let draft = registration(&phone, &format!("u{user}"), "<sip:a@10.0.0.7>", 1);
        phone.send(&mut lab, &draft.text());
    }
    phone.heard_nothing(&mut lab);
    phone.send(&mut lab, &registration(&phone, "late", "<sip:a@10.0.0.7>", 1).text());
    let answer = phone.take_status(&mut lab, 500);
    assert!(answer.find("Retry-After").is_some());
    assert_eq!(lab.shelf.records.len(), STORE_WAITERS_MAX, "and nothing changed");
    lab.make_durable();
    assert_eq!(phone.take(&mut lab).len(), STORE_WAITERS_MAX);
    phone.send(&mut lab, &registration(&phone, "late", "<sip:a@10.0.0.7>", 2).text());
    lab.make_durable();
    phone.take_status(&mut lab, 200);
}
