//! Clients of a registrar behind us: whom it did not accept gets nothing, and nobody waits longer
//! than the grace.

use std::time::Duration;

use sipring::base::config::Persistence;
use sipring::base::id::Transport;

use crate::client::GRACE;
use crate::edge::{Call, Guest, config, heard};
use crate::lab::draft::request;
use crate::lab::loss::{End, KNOWN, Known};
use crate::lab::phone::Phone;
use crate::lab::{CORE, Lab, user_of};

fn answered(lab: &mut Lab, shards: u16, known: Known, is_caller: bool) -> Call {
    let core = Phone::connect(lab, 0, Transport::Udp, CORE);
    let guest = Guest::offline(lab, shards - 1, &user_of(0, shards, 0), known);
    let mut call = Call::ring(lab, guest, core, is_caller);
    call.say_200(lab);
    call.acknowledge(lab);
    call
}

/// The client is away; somebody who is not it comes; what the core sends is not for them.
fn gets_nothing(pretend: impl Fn(&mut Lab, &Call) -> Guest) {
    for shards in [1, 2] {
        for known in KNOWN {
            for is_caller in [true, false] {
                let mut lab = Lab::new(shards, config());
                let mut call = answered(&mut lab, shards, known, is_caller);
                call.guest.lose(&mut lab, End::Reset);
                let impostor = pretend(&mut lab, &call);
                impostor.take(&mut lab);
                let info = call.next(&mut lab, "INFO", false);
                call.core.send(&mut lab, &info.text());
                lab.pass(Duration::from_secs(6));
                impostor.heard_nothing(&mut lab);
                assert_eq!(heard(&call.core, &mut lab)[0].status(), 430);
                let core = call.core;
                call.guest.come_back(&mut lab, &core, 0, End::Reset);
                call.exchange(&mut lab, "INFO", false);
                impostor.heard_nothing(&mut lab);
                lab.finish();
            }
        }
    }
}

#[test]
fn another_user_of_the_core_with_the_same_instance() {
    gets_nothing(|lab, call| {
        let mut it = call.guest.twin(lab, Transport::Wss);
        it.user = format!("{}other", it.user);
        it.register(lab, &call.core, 600);
        it
    });
}

#[test]
fn whom_the_core_refuses() {
    for status in [401, 403, 500] {
        gets_nothing(|lab, call| {
            let mut it = call.guest.twin(lab, Transport::Wss);
            let got = it.ask(lab, &call.core, 600);
            call.core.send(lab, &got.response(status, "core", &[]));
            it
        });
    }
}

/// Whoever accepts a REGISTER and lists another Contact has not accepted this one (RFC 3261 §10.3
/// step 8).
#[test]
fn whom_the_core_does_not_list() {
    gets_nothing(|lab, call| {
        let mut it = call.guest.twin(lab, Transport::Wss);
        let got = it.ask(lab, &call.core, 600);
        let line = "Contact: <sip:else@y.invalid>;expires=600";
        call.core.send(lab, &got.response(200, "core", &[line]));
        it
    });
}

/// What was promised to go over TLS never leaves in the clear (RFC 3261 §26.2).
#[test]
fn a_flow_without_tls_inherits_nothing_of_the_core() {
    gets_nothing(|lab, call| {
        let mut it = call.guest.twin(lab, Transport::Ws);
        it.register(lab, &call.core, 600);
        it
    });
}

/// The old flow answers the probe and keeps its dialogs.
#[test]
fn a_living_tab_of_the_core_keeps_its_dialogs() {
    for shards in [1, 2] {
        let mut lab = Lab::new(shards, config());
        let mut call = answered(&mut lab, shards, Known::ByRegId, false);
        let mut second = call.guest.twin(&mut lab, Transport::Wss);
        second.register(&mut lab, &call.core, 600);
        second.take(&mut lab);
        lab.pass(Duration::from_secs(2));
        assert_eq!(lab.closed(call.guest.phone.flow.expect("a stream")), None);
        assert_eq!(lab.count(|it| it.flows_probed), 1);
        for by_guest in [true, false] {
            call.exchange(&mut lab, "INFO", by_guest);
        }
        second.heard_nothing(&mut lab);
        lab.finish();
    }
}

/// A new request by the Path of the flow that was lost waits as well, and no longer than it may.
#[test]
fn a_new_request_by_the_old_path_waits_for_the_client() {
    for shards in [1, 2] {
        for known in KNOWN {
            for returns in [true, false] {
                let mut lab = Lab::new(shards, config());
                let mut call = answered(&mut lab, shards, known, true);
                call.guest.lose(&mut lab, End::Reset);
                let core = call.core;
                let uri = call.guest.contact.clone();
                let invite = request(&core, "INVITE", &uri, "new")
                    .line("Contact: <sip:far@198.51.100.7>")
                    .route(std::slice::from_ref(&call.guest.path));
                core.send(&mut lab, &invite.text());
                if returns {
                    lab.pass(Duration::from_secs(2));
                    call.guest.come_back(&mut lab, &core, 0, End::Reset);
                    let got = call.guest.take(&mut lab);
                    assert_eq!(got.len(), 1, "{got:#?}");
                    assert_eq!((got[0].method(), got[0].uri()), ("INVITE", uri.as_str()));
                    call.guest.phone.send(&mut lab, &got[0].response(486, "busy", &[]));
                }
                lab.pass(GRACE - Duration::from_millis(if returns { 2_000 } else { 100 }));
                let mut answers = heard(&core, &mut lab);
                if !returns {
                    assert!(answers.is_empty(), "{answers:#?}");
                    lab.pass(Duration::from_millis(200));
                    answers = heard(&core, &mut lab);
                }
                let expected = if returns { 486 } else { 430 };
                assert_eq!(answers[0].status(), expected, "{answers:#?}");
                let ack = invite.method("ACK").to(answers[0].header("To"));
                core.send(&mut lab, &ack.text());
                lab.pass(Duration::from_secs(40));
                lab.finish();
            }
        }
    }
}

/// Who was unregistered at the core is not waited for.
#[test]
fn nobody_waits_for_who_left_the_core() {
    for shards in [1, 2] {
        let mut lab = Lab::new(shards, config());
        let mut call = answered(&mut lab, shards, Known::ByRegId, false);
        let core = call.core;
        call.guest.register(&mut lab, &core, 0);
        call.guest.lose(&mut lab, End::Fin);
        let info = call.next(&mut lab, "INFO", false);
        core.send(&mut lab, &info.text());
        assert_eq!(heard(&core, &mut lab)[0].status(), 430);
        assert_eq!(lab.count(|it| it.bindings_suspended), 0);
        lab.finish();
    }
}

/// Who left and came back before the core had answered is there, in whatever order the two answers
/// come (RFC 3261 §10.3 step 7: what has the lower CSeq is older).
#[test]
fn a_late_answer_to_who_left_takes_out_nobody_who_is_back() {
    for shards in [1, 2, 3] {
        for known in KNOWN {
            for is_star in [false, true] {
                let mut lab = Lab::new(shards, config());
                let mut call = answered(&mut lab, shards, known, false);
                let core = call.core;
                let mut text = call.guest.registration(0).text();
                if is_star {
                    text = text.replace(&call.guest.listed(0), "Contact: *\r\nExpires: 0");
                }
                call.guest.phone.send(&mut lab, &text);
                let left = core.take_method(&mut lab, "REGISTER");
                call.guest.lose(&mut lab, End::Fin);
                call.guest.come_back(&mut lab, &core, 0, End::Fin);
                core.send(&mut lab, &left.response(200, "core", &[]));
                lab.pass(Duration::from_millis(100));
                call.exchange(&mut lab, "INFO", true);
                call.guest.lose(&mut lab, End::Reset);
                let info = call.next(&mut lab, "INFO", false);
                core.send(&mut lab, &info.text());
                assert!(heard(&core, &mut lab).is_empty(), "it waits");
                call.guest.come_back(&mut lab, &core, shards - 1, End::Reset);
                call.finish(&mut lab, info, "INFO", false);
                lab.finish();
            }
        }
    }
}

/// With a store the next run of the process knows the clients of the core, too; without one it finds
/// those that have registered again.
#[test]
fn a_call_through_the_core_goes_on_in_the_next_run() {
    for (before, after) in [(1, 1), (1, 3), (3, 2)] {
        for persistence in [Persistence::None, Persistence::Delayed] {
            for is_caller in [true, false] {
                let mut settings = config();
                settings.registrar.persistence = persistence;
                let mut former = Lab::new(before, settings.clone());
                let mut call = answered(&mut former, before, Known::ByRegId, is_caller);
                let mut lab = Lab::with_epoch(after, settings, 2);
                lab.restore(&former, Duration::from_secs(3));
                let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
                call.core = core;
                let is_stored = persistence == Persistence::Delayed;
                let info = call.next(&mut lab, "INFO", false);
                if is_stored {
                    core.send(&mut lab, &info.text());
                    assert!(heard(&core, &mut lab).is_empty());
                }
                call.guest.come_back(&mut lab, &core, after - 1, End::Fin);
                if is_stored {
                    call.finish(&mut lab, info, "INFO", false);
                } else {
                    call.guest.heard_nothing(&mut lab);
                }
                call.exchange(&mut lab, "INVITE", true);
                call.exchange(&mut lab, "BYE", false);
                lab.finish();
            }
        }
    }
}
