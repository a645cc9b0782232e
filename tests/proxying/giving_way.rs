//! The table of transactions is full: REGISTERs that our registrar has answered give way before Timer
//! J (RFC 3261 §17.2.2), and a copy of one that comes late is answered and changes nothing.

use std::time::Duration;

use sipring::base::config::{Config, Persistence, Route, RouteTo};
use sipring::base::id::Transport;
use sipring::base::limits::REGISTERS_LINGERING_MAX;

use crate::lab::digest::{Challenge, Response, Settings, with_digest};
use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab};

/// Transactions that the table holds.
const ROOM: usize = 16;
const ADDRESS: &str = "203.0.113.5:40001";
const CONTACT: &str = "<sip:a@203.0.113.5:40001>";

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn config() -> Config {
    lab::config_with(|config| config.limits.transactions_max = ROOM)
}

fn alice(lab: &mut Lab) -> Phone {
    Phone::connect(lab, 0, Transport::Udp, ADDRESS)
}

/// A REGISTER of `user`; all of one Call-ID have one From tag.
fn register(phone: &Phone, user: &str, call: &str, cseq: u32, contact: &str) -> Draft {
    let aor = format!("sip:{user}@example.com");
    request(phone, "REGISTER", "sip:example.com", &format!("{call}{cseq}"))
        .from(&format!("<{aor}>;tag={call}"))
        .to(&format!("<{aor}>"))
        .call_id(call)
        .cseq(cseq)
        .line(&format!("Contact: {contact}"))
        .line("Supported: path, outbound")
}

/// Other users fill the table with answered REGISTERs, so that all that were there give way.
fn press(lab: &mut Lab) {
    let other = Phone::connect(lab, 0, Transport::Udp, "203.0.113.99:40099");
    for _ in 0..ROOM {
        let call = format!("other{}", lab.serial());
        other.send(lab, &register(&other, &call, &call, 1, "<sip:o@203.0.113.99:40099>").text());
        assert!(matches!(other.take_one(lab).status(), 200 | 401));
    }
}

/// What the bindings of a user are, without their expiry.
fn contacts(lab: &mut Lab, user: &str) -> Vec<String> {
    let core = Phone::connect(lab, 0, Transport::Udp, CORE);
    let name = format!("q{}", lab.serial());
    let query = request(&core, "REGISTER", "sip:example.com", &name);
    core.send(lab, &query.to(&format!("<sip:{user}@example.com>")).text());
    let answer = core.take_status(lab, 200);
    let uri = |value: &str| value.split('>').next().map(|uri| format!("{uri}>"));
    answer.all("Contact").filter_map(uri).collect()
}

#[test]
fn answered_registers_give_way_and_nobody_is_refused() {
    let mut lab = Lab::new(1, config());
    let phone = alice(&mut lab);
    for n in 0..10 * ROOM as u32 {
        phone.send(&mut lab, &register(&phone, "alice", "c", n + 1, CONTACT).text());
        phone.take_status(&mut lab, 200);
        let living = lab.engines[0].gauges().server_transactions;
        assert!(living <= ROOM as u64, "{living}");
        assert!(lab.engines[0].resources().transaction_keys <= 2 * ROOM);
    }
    assert_eq!(lab.count(|it| it.registers_gave_way), 9 * ROOM as u64);
    // So they do for a request of any kind.
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    core.send(&mut lab, &request(&core, "MESSAGE", "sip:alice@example.com", "m").text());
    let got = phone.take_method(&mut lab, "MESSAGE");
    phone.send(&mut lab, &got.response(200, "a", &[]));
    core.take_status(&mut lab, 200);
    assert_eq!(lab.count(|it| it.registers_gave_way), 9 * ROOM as u64 + 1);
    lab.finish();
}

/// However many transactions there may be: the answers of the newest suffice for those who ask again
/// after T1, and all would fit in no cache.
#[test]
fn more_registers_than_are_kept_give_way_before_the_table_is_full() {
    let mut lab = Lab::new(1, lab::config());
    let phone = alice(&mut lab);
    let draft = register(&phone, "alice", "c", 1, CONTACT);
    phone.send(&mut lab, &draft.text());
    let first = phone.take_status(&mut lab, 200);
    let other = |lab: &mut Lab, n: usize| {
        phone.send(lab, &register(&phone, "bob", "d", n as u32, CONTACT).text());
        phone.take_status(lab, 200);
    };
    for n in 1..REGISTERS_LINGERING_MAX {
        other(&mut lab, n);
    }
    phone.send(&mut lab, &draft.text());
    assert_eq!(phone.take_one(&mut lab), first, "the oldest that is kept");
    assert_eq!(lab.count(|it| it.registers_gave_way), 0);
    other(&mut lab, REGISTERS_LINGERING_MAX);
    phone.send(&mut lab, &draft.text());
    assert_ne!(phone.take_status(&mut lab, 200), first, "it was answered anew");
    assert_eq!(lab.count(|it| it.registrations_repeated), 1);
    // The copy is one of them again.
    assert_eq!(lab.count(|it| it.registers_gave_way), 2);
    lab.finish();
}

#[test]
fn a_refresh_that_comes_again_is_answered_alike_and_changes_nothing() {
    let contact = "<sip:a@10.0.0.9>;reg-id=1;+sip.instance=\"<urn:uuid:1>\";expires=600";
    let mut lab = Lab::new(1, config());
    let phone = alice(&mut lab);
    let draft = register(&phone, "alice", "c", 1, contact);
    phone.send(&mut lab, &draft.text());
    let first = phone.take_status(&mut lab, 200);
    assert_eq!(first.header("Require"), "outbound");
    lab.pass(ms(500));
    phone.send(&mut lab, &draft.text());
    assert_eq!(phone.take_one(&mut lab), first, "before: the very answer");
    press(&mut lab);
    lab.pass(ms(500));
    let changes = lab.count(|it| it.registrations);
    phone.send(&mut lab, &draft.text());
    let mut again = phone.take_status(&mut lab, 200);
    assert_eq!(again.header("Contact"), first.header("Contact").replace("=600", "=599"));
    // But for the tag and the time that is left it is the same.
    for name in ["Contact", "To"] {
        let value = first.header(name).to_owned();
        let line = again.headers.iter_mut().find(|(it, _)| it == name);
        line.expect("it is there").1 = value;
    }
    assert_eq!(again, first);
    assert_eq!(lab.count(|it| it.registrations), changes);
    assert_eq!(lab.count(|it| it.registrations_repeated), 1);
    lab.finish();
}

#[test]
fn a_late_register_does_not_bring_back_what_was_removed() {
    for removal in ["<sip:a@203.0.113.5:40001>;expires=0", "*\r\nExpires: 0"] {
        let mut lab = Lab::new(1, config());
        let phone = alice(&mut lab);
        let (old, gone) = (
            register(&phone, "alice", "c", 1, CONTACT),
            register(&phone, "alice", "c", 2, removal),
        );
        for draft in [&old, &gone] {
            phone.send(&mut lab, &draft.text());
            phone.take_status(&mut lab, 200);
        }
        press(&mut lab);
        for draft in [&gone, &old, &gone] {
            phone.send(&mut lab, &draft.text());
            assert_eq!(phone.take_status(&mut lab, 200).find("Contact"), None);
            assert!(contacts(&mut lab, "alice").is_empty());
        }
        lab.finish();
    }
}

/// Another Call-ID would let RFC 3261 §10.3 step 7 take it for newer than what there is.
#[test]
fn a_late_removal_does_not_touch_what_was_registered_since() {
    for removal in ["<sip:a@203.0.113.5:40001>;expires=0", "*\r\nExpires: 0"] {
        let mut lab = Lab::new(1, config());
        let phone = alice(&mut lab);
        let gone = register(&phone, "alice", "before", 7, removal);
        phone.send(&mut lab, &gone.text());
        phone.take_status(&mut lab, 200);
        phone.send(&mut lab, &register(&phone, "alice", "after", 1, CONTACT).text());
        phone.take_status(&mut lab, 200);
        press(&mut lab);
        phone.send(&mut lab, &gone.text());
        phone.take_status(&mut lab, 200);
        assert_eq!(contacts(&mut lab, "alice"), [CONTACT]);
        lab.finish();
    }
}

#[test]
fn after_timer_j_it_is_a_request_like_any_other() {
    let mut lab = Lab::new(1, config());
    let phone = alice(&mut lab);
    let draft = register(&phone, "alice", "c", 1, CONTACT);
    phone.send(&mut lab, &draft.text());
    phone.take_status(&mut lab, 200);
    press(&mut lab);
    lab.pass(ms(31_999));
    phone.send(&mut lab, &draft.text());
    phone.take_status(&mut lab, 200);
    // That one lingers in its turn.
    lab.pass(ms(32_000));
    phone.send(&mut lab, &draft.text());
    phone.take_status(&mut lab, 500);
    lab.finish();
}

#[test]
fn one_that_was_refused_is_judged_once_more() {
    let mut lab = Lab::new(1, config());
    let phone = alice(&mut lab);
    let draft = register(&phone, "alice", "c", 1, "<sip:a@10.0.0.9>;expires=1");
    phone.send(&mut lab, &draft.text());
    phone.take_status(&mut lab, 423);
    press(&mut lab);
    phone.send(&mut lab, &draft.text());
    phone.take_status(&mut lab, 423);
    assert_eq!(lab.count(|it| it.registrations_repeated), 0);
    lab.finish();
}

/// Its digest was taken, so that it is challenged once more, and no oftener.
#[test]
fn a_client_with_a_password_ends_registered() {
    let settings = Settings { users: "alice:secret\n", ..Settings::default() };
    let mut lab = Lab::new(1, with_digest(config(), &settings));
    let phone = alice(&mut lab);
    let signed = |cseq: u32, challenge: &Challenge| {
        let login = ("alice", "secret");
        let response = Response::new(challenge, login, "REGISTER", "sip:example.com");
        register(&phone, "alice", "c", cseq, CONTACT)
            .line(&format!("Authorization: {}", response.value()))
    };
    let unsigned = register(&phone, "alice", "c", 1, CONTACT);
    phone.send(&mut lab, &unsigned.text());
    phone.take_status(&mut lab, 401);
    press(&mut lab);
    phone.send(&mut lab, &unsigned.text());
    let challenge = Challenge::last(&phone.take_status(&mut lab, 401));
    phone.send(&mut lab, &signed(2, &challenge).text());
    // The answer is lost.
    phone.take_status(&mut lab, 200);
    press(&mut lab);
    phone.send(&mut lab, &signed(2, &challenge).text());
    let stale = Challenge::last(&phone.take_status(&mut lab, 401));
    assert!(stale.stale && stale.nonce != challenge.nonce);
    assert_eq!(contacts(&mut lab, "alice"), [CONTACT]);
    phone.send(&mut lab, &signed(3, &stale).text());
    phone.take_status(&mut lab, 200);
    assert_eq!(contacts(&mut lab, "alice"), [CONTACT]);
    lab.finish();
}

#[test]
fn one_that_waits_for_the_store_lives_and_does_not_give_way() {
    let mut config = config();
    config.registrar.persistence = Persistence::Synchronous;
    let mut lab = Lab::new(1, config);
    let phone = alice(&mut lab);
    let last = ROOM as u32;
    for n in 0..last {
        phone.send(&mut lab, &register(&phone, &format!("u{n}"), "c", n + 1, CONTACT).text());
    }
    phone.heard_nothing(&mut lab);
    let one_more = register(&phone, "more", "c", 99, CONTACT);
    phone.send(&mut lab, &one_more.text());
    let answer = phone.take_status(&mut lab, 500);
    assert!(answer.find("Retry-After").is_some());
    lab.make_durable();
    assert_eq!(phone.take(&mut lab).len(), ROOM);
    phone.send(&mut lab, &one_more.text());
    lab.make_durable();
    phone.take_status(&mut lab, 200);
    assert_eq!(lab.count(|it| it.registers_gave_way), 1);
    // The first one's copy has nothing to wait for.
    phone.send(&mut lab, &register(&phone, "u0", "c", 1, CONTACT).text());
    phone.take_status(&mut lab, 200);
    assert_eq!(lab.count(|it| it.registrations_repeated), 1);
    lab.finish();
}

/// A copy would reach its next hop, which may be another one, or would be delivered twice.
#[test]
fn what_was_forwarded_does_not_give_way() {
    let mut config = config();
    let register_there = Route {
        user: None,
        domain: Some("example.com".into()),
        methods: vec!["REGISTER".into()],
        to: RouteTo::Upstream(0),
    };
    config.routes.insert(0, register_there);
    let mut lab = Lab::new(1, config);
    let (phone, core) = (alice(&mut lab), Phone::connect(&mut lab, 0, Transport::Udp, CORE));
    for n in 0..ROOM as u32 {
        phone.send(&mut lab, &register(&phone, "alice", "c", n + 1, CONTACT).text());
        let got = core.take_method(&mut lab, "REGISTER");
        core.send(&mut lab, &got.response(200, "core", &[]));
        phone.take_status(&mut lab, 200);
    }
    phone.send(&mut lab, &register(&phone, "alice", "c", 99, CONTACT).text());
    phone.take_status(&mut lab, 500);
    phone.send(&mut lab, &register(&phone, "alice", "c", 1, CONTACT).text());
    phone.take_status(&mut lab, 200);
    core.heard_nothing(&mut lab);
    assert_eq!(lab.count(|it| it.registers_gave_way), 0);
    lab.finish();
}

#[test]
fn a_lower_bound_is_reached_by_and_by() {
    let mut lab = Lab::new(1, config());
    let phone = alice(&mut lab);
    let mut cseq = 0;
    let mut ask = |lab: &mut Lab| {
        cseq += 1;
        phone.send(lab, &register(&phone, "alice", "c", cseq, CONTACT).text());
        phone.take_status(lab, 200);
        lab.engines[0].gauges().server_transactions
    };
    for _ in 0..ROOM {
        ask(&mut lab);
    }
    lab.reload(lab::config_with(|config| config.limits.transactions_max = ROOM - 4));
    let left: Vec<u64> = (0..6).map(|_| ask(&mut lab)).collect();
    let room = ROOM as u64;
    assert_eq!(left, [room - 1, room - 2, room - 3, room - 4, room - 4, room - 4]);
    lab.finish();
}
