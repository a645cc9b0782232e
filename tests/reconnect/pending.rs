//! What is under way when the flow is lost, and what comes while the client is away.

use std::time::Duration;

use crate::client::{Client, GRACE, of_user, two};
use crate::lab::CORE;
use crate::lab::draft::request;
use crate::lab::loss::{ENDS, End, KNOWN, Known};
use crate::lab::text::Sip;
use crate::talk::{Talk, invite, obey, ringing};
use sipring::base::id::Transport;

#[test]
fn a_new_request_waits_for_a_client_that_was_lost() {
    for shards in [1, 2] {
        for known in KNOWN {
            for method in ["INVITE", "MESSAGE"] {
                let (mut lab, caller, mut callee) = two(shards, known);
                callee.lose(&mut lab, End::Reset);
                let draft = match method {
                    "INVITE" => invite(&caller, &callee, "n"),
                    _ => of_user(&caller, method, &callee.user, "n"),
                };
                caller.send(&mut lab, &draft.text());
                lab.pass(Duration::from_secs(3));
                let waits: Vec<u16> = caller.take(&mut lab).iter().map(|it| it.status()).collect();
                assert_eq!(waits, if method == "INVITE" { vec![100] } else { vec![] });
                callee.come_back(&mut lab, 0, End::Reset);
                let got = callee.take_method(&mut lab, method);
                assert_eq!(got.uri(), callee.contact);
                callee.send(&mut lab, &got.response(486, "t", &[]));
                caller.take_status(&mut lab, 486);
                if method == "INVITE" {
                    callee.take_method(&mut lab, "ACK");
                    caller.send(&mut lab, &draft.method("ACK").text());
                }
                lab.finish();
            }
        }
    }
}

/// A page that was loaded anew has another Contact, if it has no instance of its own; with one it
/// is the same client under its new Contact.
#[test]
fn a_request_that_waited_asks_for_the_contact_of_now() {
    let (mut lab, caller, mut callee) = two(2, Known::ByRegId);
    callee.lose(&mut lab, End::Fin);
    caller.send(&mut lab, &of_user(&caller, "MESSAGE", &callee.user, "n").text());
    callee.contact = "sip:other@z.invalid;transport=ws".into();
    callee.come_back(&mut lab, 1, End::Fin);
    let got = callee.take_method(&mut lab, "MESSAGE");
    assert_eq!(got.uri(), callee.contact);
    callee.send(&mut lab, &got.response(200, "t", &[]));
    caller.take_status(&mut lab, 200);
    lab.finish();
}

#[test]
fn nobody_waits_longer_than_the_grace() {
    for shards in [1, 2] {
        let (mut lab, caller, callee) = two(shards, Known::ByRegId);
        callee.lose(&mut lab, End::Fin);
        caller.send(&mut lab, &of_user(&caller, "MESSAGE", &callee.user, "m").text());
        let invite = invite(&caller, &callee, "i");
        caller.send(&mut lab, &invite.text());
        lab.pass(Duration::from_millis(4_900));
        caller.take_status(&mut lab, 100);
        lab.pass(Duration::from_millis(200));
        caller.take_status(&mut lab, 480);
        lab.pass(Duration::from_millis(4_700));
        caller.heard_nothing(&mut lab);
        lab.pass(Duration::from_millis(300));
        let refused = caller.take_status(&mut lab, 480);
        caller.send(&mut lab, &invite.method("ACK").to(refused.header("To")).text());
        // From here on it is known that nobody is there.
        caller.send(&mut lab, &of_user(&caller, "MESSAGE", &callee.user, "late").text());
        caller.take_status(&mut lab, 480);
        lab.finish();
        assert_eq!(lab.engines.iter().map(|it| it.gauges().bindings).sum::<u64>(), 1);
    }
}

/// Who unregistered is gone at once.
#[test]
fn who_left_in_order_is_not_waited_for() {
    let (mut lab, caller, mut callee) = two(2, Known::ByRegId);
    callee.leave(&mut lab);
    callee.lose(&mut lab, End::Fin);
    caller.send(&mut lab, &of_user(&caller, "MESSAGE", &callee.user, "m").text());
    caller.take_status(&mut lab, 480);
    lab.finish();
}

/// Nor is who is taken out while it is away, by another device of its user or by a new binding in its
/// place: what waits for it is answered at once (RFC 3261 §10.2.2).
#[test]
fn who_is_unregistered_while_away_is_waited_for_no_longer() {
    for shards in [1, 2] {
        for is_star in [true, false] {
            let (mut lab, caller, callee) = two(shards, Known::ByContact);
            let mut other = callee.twin(&mut lab);
            other.contact = "sip:other@y.invalid".into();
            other.connect(&mut lab, 0, Transport::Wss);
            other.log_in(&mut lab);
            other.take(&mut lab);
            callee.lose(&mut lab, End::Reset);
            other.leave(&mut lab);
            let invite = invite(&caller, &callee, "i");
            caller.send(&mut lab, &invite.text());
            caller.send(&mut lab, &of_user(&caller, "MESSAGE", &callee.user, "m").text());
            lab.pass(Duration::from_secs(1));
            caller.take_status(&mut lab, 100);
            let aor = format!("<sip:{}@example.com>", callee.user);
            let contact = if is_star { "*".into() } else { format!("<{}>", callee.contact) };
            let leave = request(&other.phone, "REGISTER", "sip:example.com", "out")
                .from(&format!("{aor};tag=f"))
                .to(&aor)
                .line(&format!("Contact: {contact}"))
                .line("Expires: 0");
            other.send(&mut lab, &leave.text());
            let mut told: Vec<u16> = caller.take(&mut lab).iter().map(Sip::status).collect();
            told.sort_unstable();
            assert_eq!(told, [480, 480], "{contact}");
            lab.finish();
        }
    }
}

/// A request that was written and never heard of is written once more, with its branch; one that
/// was heard of is not.
#[test]
fn a_request_is_repeated_only_when_nothing_was_heard_of_it() {
    for shards in [1, 2, 3] {
        for end in ENDS {
            for is_heard in [false, true] {
                let (mut lab, caller, mut callee) = two(shards, Known::ByRegId);
                let draft = invite(&caller, &callee, "n");
                caller.send(&mut lab, &draft.text());
                let first = callee.take_method(&mut lab, "INVITE");
                caller.take_status(&mut lab, 100);
                if is_heard {
                    callee.send(&mut lab, &first.response(100, "", &[]));
                }
                callee.lose(&mut lab, end);
                callee.come_back(&mut lab, 0, end);
                let again = callee.take(&mut lab);
                if is_heard {
                    assert!(again.is_empty(), "{again:#?}");
                } else {
                    assert_eq!(again.len(), 1, "{again:#?}");
                    assert_eq!(again[0].header("Via"), first.header("Via"));
                    assert_eq!(again[0].uri(), first.uri());
                    assert_ne!(again[0].record_route(), first.record_route(), "another flow");
                }
                let contact = format!("Contact: <{}>", callee.contact);
                callee.send(&mut lab, &first.response(200, "t", &[&contact]));
                caller.take_status(&mut lab, 200);
                lab.finish();
            }
        }
    }
}

/// The caller's page is gone: the callee must not ring for nobody, but may for the grace.
#[test]
fn a_caller_that_does_not_come_back_stops_the_ringing() {
    for shards in [1, 2, 3] {
        for end in [End::Fin, End::Reset] {
            let (mut lab, caller, callee) = two(shards, Known::ByContact);
            let talk = Talk::ring(&mut lab, caller, callee);
            talk.caller.lose(&mut lab, end);
            lab.pass(GRACE - Duration::from_millis(100));
            talk.callee.heard_nothing(&mut lab);
            lab.pass(Duration::from_millis(200));
            obey(&mut lab, &talk.callee, &talk.invite, "callee");
            lab.finish();
        }
    }
}

/// Nor must it begin to ring: who has said nothing yet is cancelled as soon as it says that it rings
/// (RFC 3261 §9.1).
#[test]
fn a_callee_that_rings_after_the_caller_is_gone_is_cancelled() {
    for shards in [1, 2, 3] {
        let (mut lab, caller, callee) = two(shards, Known::ByContact);
        caller.send(&mut lab, &invite(&caller, &callee, "n").text());
        let request = callee.take_method(&mut lab, "INVITE");
        caller.lose(&mut lab, End::Reset);
        lab.pass(GRACE + Duration::from_secs(1));
        callee.heard_nothing(&mut lab);
        callee.send(&mut lab, &ringing(&request, &callee, "callee"));
        obey(&mut lab, &callee, &request, "callee");
        lab.finish();
    }
}

/// A CANCEL while the callee is away reaches it when it is back and rings.
#[test]
fn a_cancel_waits_with_what_it_cancels() {
    for shards in [1, 2] {
        let (mut lab, caller, callee) = two(shards, Known::ByRegId);
        let mut talk = Talk::ring(&mut lab, caller, callee);
        talk.callee.lose(&mut lab, End::Reset);
        let cancel = invite(&talk.caller, &talk.callee, &talk.name()).method("CANCEL");
        talk.caller.send(&mut lab, &cancel.text());
        talk.caller.take_status(&mut lab, 200);
        talk.callee.come_back(&mut lab, 0, End::Reset);
        let got = talk.callee.take_method(&mut lab, "CANCEL");
        talk.callee.send(&mut lab, &got.response(200, "callee", &[]));
        talk.callee.send(&mut lab, &talk.invite.response(487, "callee", &[]));
        talk.callee.take_method(&mut lab, "ACK");
        talk.caller.take_status(&mut lab, 487);
        talk.caller.send(&mut lab, &cancel.method("ACK").text());
        lab.finish();
    }
}

/// Other branches of a fork are not delayed, and a 2xx does not wait for who is away.
#[test]
fn a_client_that_is_away_delays_no_other() {
    for shards in [1, 2] {
        let (mut lab, caller, callee) = two(shards, Known::ByContact);
        let user = callee.user.clone();
        let by = Transport::Wss;
        let mut second = Client::offline(&mut lab, 0, &user, Known::ByContact, by);
        second.contact = "sip:second@y.invalid".into();
        second.log_in(&mut lab);
        second.take(&mut lab);
        callee.lose(&mut lab, End::Fin);
        for (method, status) in [("MESSAGE", 200), ("MESSAGE", 603), ("INVITE", 200)] {
            let name = format!("{method}{status}");
            let draft = match method {
                "INVITE" => invite(&caller, &callee, &name),
                _ => of_user(&caller, method, &user, &name),
            };
            caller.send(&mut lab, &draft.text());
            let got = second.take_method(&mut lab, method);
            second.send(&mut lab, &got.response(status, "t", &["Contact: <sip:second@y.invalid>"]));
            let answers: Vec<u16> = caller.take(&mut lab).iter().map(|it| it.status()).collect();
            assert_eq!(*answers.last().expect("an answer"), status, "{method}");
        }
        lab.finish();
    }
}

/// The server behind sends a request in a dialog of a client that is away: it waits, too.
#[test]
fn a_server_behind_us_reaches_a_client_on_its_next_flow() {
    for shards in [1, 2] {
        let (mut lab, mut caller, _) = two(shards, Known::ByRegId);
        let core = crate::lab::phone::Phone::connect(&mut lab, 0, Transport::Udp, CORE);
        let draft =
            of_user(&caller, "INVITE", "900", "up").line(&format!("Contact: <{}>", caller.contact));
        caller.send(&mut lab, &draft.text());
        let got = core.take_method(&mut lab, "INVITE");
        core.send(&mut lab, &got.response(200, "s", &["Contact: <sip:900@198.51.100.7>"]));
        caller.take(&mut lab);
        caller.lose(&mut lab, End::Reset);
        let bye = request(&core, "BYE", &caller.contact, "up")
            .branch(&core, "bye")
            .from("<sip:900@example.com>;tag=s")
            .to(&format!("<sip:{}@example.com>;tag=fup", caller.user))
            .route(&got.record_route())
            .cseq(7);
        core.send(&mut lab, &bye.text());
        caller.come_back(&mut lab, shards - 1, End::Reset);
        let got = caller.take_method(&mut lab, "BYE");
        caller.send(&mut lab, &got.response(200, "", &[]));
        core.take_status(&mut lab, 200);
        lab.finish();
    }
}

/// What the proxy itself says to a request waits for its sender as what others say does.
#[test]
fn an_answer_of_ours_waits_for_its_sender() {
    let mut waited = 0;
    for n in 0..8 {
        let (mut lab, mut caller, _) = two(2, Known::ByRegId);
        lab.hold = true;
        let name = format!("o{n}");
        caller.send(&mut lab, &request(&caller.phone, "OPTIONS", "sip:example.com", &name).text());
        waited += usize::from(!lab.links.is_empty());
        let at_once = caller.take(&mut lab);
        caller.lose(&mut lab, End::Reset);
        lab.release();
        caller.come_back(&mut lab, 0, End::Reset);
        let answers = at_once.into_iter().chain(caller.take(&mut lab));
        assert_eq!(answers.map(|it| it.status()).collect::<Vec<_>>(), [200]);
        lab.finish();
    }
    assert!(waited > 0, "no request crossed");
}
