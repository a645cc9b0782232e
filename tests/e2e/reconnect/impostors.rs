//! Who is not the client that was lost gets nothing of what is for it, and can say nothing in its
//! name.

use std::time::{Duration, Instant};

use super::client::{Client, Lost, Place, setup};
use super::talk::{Side, Talk};
use crate::loss::{End, Known};
use crate::support::digest::{again, try_log_in};
use crate::support::link::{Incoming, Transport};
use crate::support::phone::{PATIENCE, Phone};
use crate::support::server::Server;
use crate::support::sip::{Draft, unique};
use crate::support::still;

const WEAK_PASSWORD: &str = "guessed";
/// A little longer than a flow has to answer a probe.
const PROBE: Duration = Duration::from_millis(1300);

struct Scene {
    talk: Talk,
    server: Server,
}

/// A call between two clients that are known by instance and reg-id.
fn scene() -> Scene {
    let users = ["alice", "bob", "mallory"].map(str::to_string);
    let server = setup(&users).start();
    let caller = Client::new(&server, "alice", Known::ByRegId);
    let callee = Client::new(&server, "bob", Known::ByRegId);
    let mut talk = Talk::ring(caller, callee);
    talk.answer();
    Scene { talk, server }
}

/// What becomes of a request that waits for the callee when somebody else comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// It waits for the callee.
    On,
    /// The user is somewhere else by now, where it must not go.
    Refused,
}

/// The callee is away; somebody who is not it comes; what is for it is for it alone.
fn gets_nothing(waiting: Waiting, come: impl Fn(&Scene) -> Client) {
    let mut scene = scene();
    let lost = scene.talk.side(Side::Callee).lose(&scene.server, End::Reset);
    let asked = scene.talk.ask(Side::Caller, "INFO");
    still(&mut [&mut scene.talk.caller.phone]);
    let mut impostor = come(&scene);
    still(&mut [&mut impostor.phone]);
    if waiting == Waiting::Refused {
        let refused = scene.talk.caller.phone.final_response();
        assert_eq!((refused.status(), refused.one("call-id")), (480, asked.call_id()));
    }
    speaks_to_nobody(&mut scene, &mut impostor);
    come_back(&mut scene, &lost);
    if waiting == Waiting::On {
        scene.talk.serve(&asked);
    }
    scene.talk.exchange(Side::Caller, "INFO");
    scene.talk.exchange(Side::Callee, "INFO");
    scene.talk.exchange(Side::Caller, "BYE");
    scene.talk.still();
    still(&mut [&mut impostor.phone]);
}

fn come_back(scene: &mut Scene, lost: &Lost) {
    scene.talk.callee.come_back(&scene.server, Place::OtherShard, lost);
}

/// It cannot end the call in the name of the one that it pretends to be.
fn speaks_to_nobody(scene: &mut Scene, impostor: &mut Client) {
    let bye = scene.talk.dialog(Side::Callee).clone().draft(&impostor.phone, "BYE");
    let refused = impostor.phone.ask(&bye);
    assert!(matches!(refused.status(), 403 | 407), "{refused:?}");
    if refused.status() == 407 {
        let bye = again(&impostor.phone, &bye, &refused, WEAK_PASSWORD);
        let status = impostor.phone.ask(&bye).status();
        assert!(matches!(status, 403 | 407), "{status}");
    }
    still(&mut [&mut scene.talk.caller.phone]);
}

#[test]
fn another_user_with_the_same_instance_gets_nothing() {
    gets_nothing(Waiting::On, |scene| {
        let mut it = Client::connected(&scene.server, "mallory", Known::ByRegId, Transport::Wss);
        it.phone.contact.clone_from(&scene.talk.callee.phone.contact);
        it.binding.clone_from(&scene.talk.callee.binding);
        it.log_in();
        it
    });
}

#[test]
fn a_wrong_password_gets_nothing() {
    gets_nothing(Waiting::On, |scene| {
        let mut it = scene.talk.callee.twin(&scene.server, Transport::Wss);
        let (_, answer) = try_log_in(&mut it.phone, &it.binding.clone(), WEAK_PASSWORD);
        assert_eq!(answer.status(), 401, "{answer:?}");
        it
    });
}

/// What was promised to go over TLS never leaves in the clear (RFC 3261 §26.2), to the same user.
#[test]
fn a_flow_without_tls_inherits_nothing_of_one_with() {
    gets_nothing(Waiting::Refused, |scene| {
        let mut it = scene.talk.callee.twin(&scene.server, Transport::Ws);
        it.log_in();
        it
    });
}

/// Two tabs with one identity: the first answers the probe and keeps its dialogs; what is new goes
/// to the second.
#[test]
fn a_living_tab_keeps_its_dialogs() {
    let Scene { mut talk, server } = scene();
    let mut second = talk.callee.twin(&server, Transport::Wss);
    second.log_in();
    answer_pings(&mut talk.callee.phone, PROBE);
    server.wait_metric("sipring_flows_probed_total", 1, PATIENCE);
    assert_eq!(server.metric("sipring_flows_closed_pong_total"), 0);
    for from in [Side::Caller, Side::Callee] {
        talk.exchange(from, "INFO");
    }
    still(&mut [&mut second.phone]);
    let caller = &mut talk.caller.phone;
    let draft = caller.draft("MESSAGE", &second.phone.aor());
    caller.send(&draft.build());
    second.phone.serve("MESSAGE");
    talk.caller.phone.status(200);
    talk.exchange(Side::Caller, "BYE");
    talk.still();
    still(&mut [&mut second.phone]);
}

/// Nothing but pings comes for so long, and they are answered.
fn answer_pings(phone: &mut Phone, time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let heard = phone.incoming(left.max(Duration::from_millis(1)));
        assert!(matches!(heard, None | Some(Incoming::KeepAlive)), "{heard:?}");
    }
}

/// A token is of one dialog: its holder cannot use it to reach the other side for anything else,
/// neither while it is away nor when it is back.
#[test]
fn a_captured_token_opens_nothing() {
    let mut scene = scene();
    let lost = scene.talk.side(Side::Caller).lose(&scene.server, End::Reset);
    misuse(&mut scene.talk);
    scene.talk.caller.come_back(&scene.server, Place::OtherShard, &lost);
    misuse(&mut scene.talk);
    scene.talk.exchange(Side::Callee, "INFO");
    scene.talk.exchange(Side::Caller, "BYE");
    scene.talk.still();
}

/// The callee tries the route of its dialog for a request without a To tag, and with another
/// Call-ID.
fn misuse(talk: &mut Talk) {
    let mut dialog = talk.dialog(Side::Callee).clone();
    let phone = &mut talk.callee.phone;
    for method in ["MESSAGE", "INFO", "INVITE"] {
        let draft = dialog.draft(phone, method);
        let contact = format!("<{}>", phone.contact);
        let is_invite = method == "INVITE";
        let draft = if is_invite { draft.with("Contact", contact) } else { draft };
        let outside = draft.clone().set("To", format!("<{}>", dialog.target));
        let other = draft.set("Via", phone.via()).set("Call-ID", unique("other"));
        for wrong in [outside, other] {
            let refused = phone.ask(&wrong);
            assert_eq!(refused.status(), 403, "{wrong:?}: {refused:?}");
            if is_invite {
                phone.send(&ack_of(&wrong, refused.one("to")).build());
            }
        }
    }
}

/// The ACK of a refusal (RFC 3261 §17.1.1.3).
fn ack_of(invite: &Draft, to: &str) -> Draft {
    let start = invite.start.replacen("INVITE", "ACK", 1);
    let cseq = invite.value("CSeq").replace("INVITE", "ACK");
    let ack = Draft { start, ..invite.clone() };
    ack.without("Contact").set("CSeq", cseq).set("To", to)
}
