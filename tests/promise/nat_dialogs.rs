//! The dialogs of a datagram client whose port an address translator gave to another one (RFC 4787
//! §4.3): what is sent within them is not for the second.

use std::time::Duration;

use sipring::base::config::Config;
use sipring::base::id::Transport;

use crate::lab::call::Call;
use crate::lab::digest::{Challenge, Response};
use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, CORE, Lab, user_of};

use super::nat_ports::{ADDRESS, ONE, TWO, ask, guarded, log_in, stored};

const ELSEWHERE: &str = "203.0.113.1:4001";
const SERVER: &str = "sip:core@198.51.100.7:5060";

/// A server calls a user, who answers.
fn called(lab: &mut Lab, core: &Phone, phone: &Phone, user: &str, place: &str) -> Call {
    let (uri, name) = (format!("sip:{user}@example.com"), format!("call{}", lab.serial()));
    let contacts = (SERVER, format!("sip:{user}@{place}"));
    Call::establish(lab, core, phone, &uri, (contacts.0, &contacts.1), &name)
}

/// What becomes of a request of the server within a dialog: its status when it is refused, 0 when
/// `phone` has it.
fn outcome(lab: &mut Lab, core: &Phone, draft: &Draft, phone: &Phone) -> u16 {
    core.send(lab, &draft.text());
    let (mut heard, mut told) = (phone.take(lab), core.take(lab));
    match (heard.pop(), told.pop()) {
        (Some(request), None) if heard.is_empty() => {
            phone.send(lab, &request.response(200, "", &[]));
            core.take_status(lab, 200);
            0
        }
        (None, Some(answer)) if told.is_empty() => answer.status(),
        other => panic!("{other:#?}"),
    }
}

/// A user's call to a server, with its password.
fn call_server(lab: &mut Lab, phone: &Phone, user: &str, core: &Phone) -> (Sip, Draft) {
    const URI: &str = "sip:900@example.com";
    let name = format!("out{}", lab.serial());
    let invite = |branch: &str| {
        request(phone, "INVITE", URI, &name)
            .branch(phone, branch)
            .from(&format!("<sip:{user}@example.com>;tag=f"))
            .line(&format!("Contact: <sip:{user}@{ONE}>"))
    };
    let challenge = Challenge::last(&ask(lab, phone, &invite("i1")));
    phone.send(lab, &invite("i1").method("ACK").text());
    let response = Response::new(&challenge, (user, "secret"), "INVITE", URI);
    let again = invite("i2").line(&format!("Proxy-Authorization: {}", response.value())).cseq(2);
    phone.send(lab, &again.text());
    let got = core.take_method(lab, "INVITE");
    phone.take_status(lab, 100);
    core.send(lab, &got.response(200, "s", &[&format!("Contact: <{SERVER}>")]));
    let answer = phone.take_status(lab, 200);
    let mut route = answer.record_route();
    route.reverse();
    let ack = request(phone, "ACK", SERVER, &name).branch(phone, "i3").cseq(2).route(&route);
    let ack = ack.from(&format!("<sip:{user}@example.com>;tag=f")).to(&format!("<{URI}>;tag=s"));
    phone.send(lab, &ack.text());
    core.take_method(lab, "ACK");
    let bye = request(core, "INFO", &format!("sip:{user}@{ONE}"), &name)
        .from(&format!("<{URI}>;tag=s"))
        .to(&format!("<sip:{user}@example.com>;tag=f"))
        .route(&got.record_route());
    (got, bye)
}

#[test]
fn who_got_the_port_hears_nothing_of_the_calls_of_who_had_it() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, guarded());
        let (alice, bob) = (user_of(at.owner, at.shards, 0), user_of(at.flow, at.shards, 1));
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        let phone = Phone::connect(&mut lab, at.flow, Transport::Udp, ADDRESS);
        log_in(&mut lab, &phone, &alice, (ONE, ""));
        let mut call = called(&mut lab, &core, &phone, &alice, ONE);
        let (_, asked) = call_server(&mut lab, &phone, &alice, &core);
        let info = call.by_caller(&core, "INFO");
        assert_eq!(outcome(&mut lab, &core, &info, &phone), 0, "{at:?}");
        lab.pass(Duration::from_secs(60));
        log_in(&mut lab, &phone, &bob, (TWO, ""));
        let mut his = called(&mut lab, &core, &phone, &bob, TWO);
        let info = call.by_caller(&core, "INFO");
        assert_eq!(outcome(&mut lab, &core, &info, &phone), 430, "as callee, {at:?}");
        assert_eq!(outcome(&mut lab, &core, &asked, &phone), 430, "as caller, {at:?}");
        let ack = call.by_caller(&core, "ACK");
        core.send(&mut lab, &ack.text());
        phone.heard_nothing(&mut lab);
        let info = his.by_caller(&core, "INFO");
        assert_eq!(outcome(&mut lab, &core, &info, &phone), 0, "{at:?}");
        // She has the port again, and it is he who left.
        lab.pass(Duration::from_secs(60));
        log_in(&mut lab, &phone, &alice, (ONE, ""));
        let info = call.by_caller(&core, "INFO");
        assert_eq!(outcome(&mut lab, &core, &info, &phone), 0, "{at:?}");
        let info = his.by_caller(&core, "INFO");
        assert_eq!(outcome(&mut lab, &core, &info, &phone), 430, "{at:?}");
        lab.finish();
    }
}

/// She is given other ports, and registers from there: what is within her dialogs follows, whoever
/// has the port that she had.
#[test]
fn whoever_moved_is_found_where_she_is() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, guarded());
        let (alice, bob) = (user_of(at.owner, at.shards, 0), user_of(at.flow, at.shards, 1));
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        let phone = Phone::connect(&mut lab, at.flow, Transport::Udp, ADDRESS);
        let moved = Phone::connect(&mut lab, at.arrival, Transport::Udp, ELSEWHERE);
        log_in(&mut lab, &phone, &alice, (ONE, ""));
        let mut call = called(&mut lab, &core, &phone, &alice, ONE);
        for step in 0..9 {
            let (there, gone) = if step % 2 == 0 { (&moved, &phone) } else { (&phone, &moved) };
            log_in(&mut lab, there, &alice, (ONE, ""));
            let info = call.by_caller(&core, "INFO");
            assert_eq!(outcome(&mut lab, &core, &info, there), 0, "{at:?}");
            gone.heard_nothing(&mut lab);
        }
        log_in(&mut lab, &phone, &bob, (TWO, ""));
        let info = call.by_caller(&core, "INFO");
        assert_eq!(outcome(&mut lab, &core, &info, &moved), 0, "{at:?}");
        phone.heard_nothing(&mut lab);
        // Two steps away, and then her last port is another's, too.
        let third = Phone::connect(&mut lab, at.arrival, Transport::Udp, "203.0.113.1:4002");
        log_in(&mut lab, &third, &alice, (ONE, ""));
        let info = call.by_caller(&core, "INFO");
        assert_eq!(outcome(&mut lab, &core, &info, &third), 0, "{at:?}");
        log_in(&mut lab, &third, &bob, (TWO, ""));
        let bye = call.by_caller(&core, "BYE");
        assert_eq!(outcome(&mut lab, &core, &bye, &third), 430, "{at:?}");
        lab.finish();
    }
}

/// Two users of one phone keep each its dialogs.
#[test]
fn calls_of_two_users_of_one_phone_go_on() {
    for shards in [1, 3] {
        let mut lab = Lab::new(shards, guarded());
        let (alice, bob) = (user_of(0, shards, 0), user_of(shards - 1, shards, 1));
        let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
        let phone = Phone::connect(&mut lab, shards - 1, Transport::Udp, ADDRESS);
        log_in(&mut lab, &phone, &alice, (ONE, ""));
        let mut call = called(&mut lab, &core, &phone, &alice, ONE);
        log_in(&mut lab, &phone, &bob, (ONE, ""));
        let bye = call.by_caller(&core, "BYE");
        assert_eq!(outcome(&mut lab, &core, &bye, &phone), 0);
        lab.finish();
    }
}

/// The binding of a former run says who was there, and so does its token.
#[test]
fn a_call_of_a_former_run_is_told_apart_too() {
    for (before, after) in [(1, 1), (1, 3), (3, 1)] {
        let config: fn() -> Config = stored;
        let mut former = Lab::new(before, config());
        let (alice, bob) = (user_of(0, after, 0), user_of(after - 1, after, 1));
        let phone = Phone::connect(&mut former, 0, Transport::Udp, ADDRESS);
        let core = Phone::connect(&mut former, 0, Transport::Udp, CORE);
        log_in(&mut former, &phone, &alice, (ONE, ""));
        let mut call = called(&mut former, &core, &phone, &alice, ONE);
        let mut lab = Lab::with_epoch(after, config(), 2);
        lab.restore(&former, Duration::from_secs(5));
        let info = call.by_caller(&core, "INFO");
        assert_eq!(outcome(&mut lab, &core, &info, &phone), 0);
        log_in(&mut lab, &phone, &bob, (TWO, ""));
        let bye = call.by_caller(&core, "BYE");
        assert_eq!(outcome(&mut lab, &core, &bye, &phone), 430);
    }
}
