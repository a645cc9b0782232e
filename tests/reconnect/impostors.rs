//! Who is not the client that was lost gets nothing of what is for it.

use std::time::Duration;

use sipring::base::id::Transport;

use crate::client::{Client, lab_of, of_user, pair, users_of};
use crate::lab::Lab;
use crate::lab::loss::{End, Known};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::talk::{Talk, invite};

const NAMES: usize = 3;

fn three(shards: u16) -> (Lab, [String; NAMES]) {
    let names = users_of(shards);
    let lab = lab_of(shards, &[&names[0], &names[1], &names[2]]);
    (lab, names)
}

fn answered(lab: &mut Lab, names: &[String; NAMES]) -> Talk {
    let [caller, callee] = pair(lab, names, Known::ByRegId);
    let mut talk = Talk::ring(lab, caller, callee);
    talk.answer(lab);
    talk
}

/// The callee is away; somebody registers who is not it; a request of its dialog is not for them.
fn gets_nothing(shards: u16, pretend: impl Fn(&mut Lab, &Talk, &[String; NAMES]) -> Client) {
    let (mut lab, names) = three(shards);
    let mut talk = answered(&mut lab, &names);
    talk.callee.lose(&mut lab, End::Reset);
    let impostor = pretend(&mut lab, &talk, &names);
    impostor.take(&mut lab);
    let draft = talk.by_caller(&mut lab, "INFO");
    talk.caller.send(&mut lab, &draft.text());
    lab.pass(Duration::from_secs(6));
    impostor.heard_nothing(&mut lab);
    talk.caller.take_status(&mut lab, 480);
    // Nor may they speak in it.
    let bye = talk.by_callee(&mut lab, "BYE").branch(&impostor.phone, "steal");
    impostor.send(&mut lab, &bye.text());
    talk.caller.heard_nothing(&mut lab);
    let status = impostor.take_one(&mut lab).status();
    assert!(matches!(status, 403 | 407), "{status}");
    // The client itself still gets what is for it.
    talk.callee.come_back(&mut lab, 0, End::Reset);
    talk.exchange(&mut lab, "INFO", true);
    lab.finish();
}

#[test]
fn another_user_with_the_same_instance() {
    for shards in [1, 2] {
        gets_nothing(shards, |lab, talk, names| {
            let mut it = Client::offline(lab, 0, &names[2], Known::ByRegId, Transport::Wss);
            it.params = talk.callee.params.clone();
            it.contact = talk.callee.contact.clone();
            it.log_in(lab);
            it
        });
    }
}

#[test]
fn a_wrong_password() {
    for shards in [1, 2] {
        gets_nothing(shards, |lab, talk, _| {
            let mut it = talk.callee.twin(lab);
            it.password = "guessed".into();
            it.connect(lab, 0, Transport::Wss);
            assert_eq!(it.try_log_in(lab).status(), 401);
            it
        });
    }
}

/// What was promised to go over TLS never leaves in the clear (RFC 3261 §26.2), to the same user.
#[test]
fn a_flow_without_tls_inherits_nothing_of_one_with() {
    for shards in [1, 2] {
        gets_nothing(shards, |lab, talk, _| {
            let mut it = talk.callee.twin(lab);
            it.connect(lab, 0, Transport::Ws);
            it.log_in(lab);
            it
        });
    }
}

/// Two tabs with one identity: the old one answers the probe and keeps its dialogs; what is new
/// goes to the new one.
#[test]
fn a_living_tab_keeps_its_dialogs() {
    for shards in [1, 2] {
        let (mut lab, names) = three(shards);
        let mut talk = answered(&mut lab, &names);
        let mut second = talk.callee.twin(&mut lab);
        second.connect(&mut lab, 0, Transport::Wss);
        second.log_in(&mut lab);
        second.take(&mut lab);
        lab.pass(Duration::from_secs(2));
        assert_eq!(lab.closed(talk.callee.flow()), None);
        assert_eq!(lab.count(|it| it.flows_probed), 1);
        talk.exchange(&mut lab, "INFO", true);
        talk.exchange(&mut lab, "INFO", false);
        second.heard_nothing(&mut lab);
        talk.caller.send(&mut lab, &of_user(&talk.caller, "MESSAGE", &names[1], "new").text());
        let got = second.take_method(&mut lab, "MESSAGE");
        second.send(&mut lab, &got.response(200, "t", &[]));
        talk.caller.take_status(&mut lab, 200);
        talk.callee.heard_nothing(&mut lab);
        lab.finish();
    }
}

/// A token is of one dialog: its holder cannot use it to reach the other side for anything else.
#[test]
fn a_captured_token_opens_nothing() {
    for shards in [1, 2] {
        let (mut lab, names) = three(shards);
        let mut talk = answered(&mut lab, &names);
        talk.caller.lose(&mut lab, End::Reset);
        let route = talk.invite.record_route();
        let callee = talk.callee.clone();
        let contact = talk.caller.contact.clone();
        let request = |method: &str, name: &str| {
            crate::lab::draft::request(&callee.phone, method, &contact, name)
                .from(&format!("<sip:{}@example.com>;tag=x", callee.user))
                .route(&route)
        };
        callee.send(&mut lab, &request("MESSAGE", "fresh").text());
        callee.take_status(&mut lab, 403);
        let other = request("INFO", "other").to("<sip:a@b>;tag=1");
        callee.send(&mut lab, &other.text());
        callee.take_status(&mut lab, 403);
        talk.caller.come_back(&mut lab, 0, End::Reset);
        talk.caller.heard_nothing(&mut lab);
        talk.exchange(&mut lab, "BYE", true);
        lab.finish();
    }
}

/// Whoever gets an INVITE reads its branch, and may be anywhere: a known client's is cancelled by
/// that client (RFC 3261 §22.1), be it on its next flow.
#[test]
fn nobody_else_cancels_an_invite() {
    for shards in [1, 2] {
        for comes_back in [false, true] {
            let (mut lab, names) = three(shards);
            let [caller, callee] = pair(&mut lab, &names, Known::ByRegId);
            let mut talk = Talk::ring(&mut lab, caller, callee);
            let cancel = invite(&talk.caller, &talk.callee, &talk.name()).method("CANCEL").text();
            let other = Phone::connect(&mut lab, shards - 1, Transport::Tcp, "203.0.113.66:6");
            other.send(&mut lab, &cancel);
            other.take_status(&mut lab, 481);
            talk.callee.heard_nothing(&mut lab);
            talk.caller.heard_nothing(&mut lab);
            if comes_back {
                talk.caller.lose(&mut lab, End::Reset);
                talk.caller.phone =
                    Phone::connect(&mut lab, shards - 1, Transport::Wss, "198.18.0.1:7");
                talk.caller.log_in(&mut lab);
                talk.caller.take(&mut lab);
            }
            talk.caller.send(&mut lab, &cancel);
            talk.callee.take_method(&mut lab, "CANCEL");
            talk.callee.send(&mut lab, &talk.invite.response(487, "callee", &[]));
            let told: Vec<u16> = talk.caller.take(&mut lab).iter().map(Sip::status).collect();
            assert_eq!(told, [200, 487]);
        }
    }
}

/// Without authentication nobody is known again: all is answered at once.
#[test]
fn without_authentication_there_is_no_grace() {
    let mut config = crate::lab::config();
    config.registrar.grace = crate::client::GRACE;
    let mut lab = Lab::new(1, config);
    let mut callee = Client::offline(&mut lab, 0, "bob", Known::ByRegId, Transport::Wss);
    callee.log_in(&mut lab);
    callee.take(&mut lab);
    let caller = Client::offline(&mut lab, 0, "alice", Known::ByRegId, Transport::Wss);
    callee.lose(&mut lab, End::Reset);
    caller.send(&mut lab, &of_user(&caller, "MESSAGE", "bob", "m").text());
    caller.take_status(&mut lab, 480);
    assert_eq!(lab.count(|it| it.bindings_suspended), 0);
    lab.finish();
}
