//! Two tabs of one browser with one identity, instance or Contact: who answers keeps its dialogs, and
//! no request reaches both.

use std::time::Duration;

use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::client::{Client, of_user, two};
use crate::lab::Lab;
use crate::lab::loss::{End, KNOWN, Known};
use crate::lab::phone::masked_frame;
use crate::talk::Talk;

/// Longer than a flow has to answer a probe.
const PROBE: Duration = Duration::from_millis(1100);

struct Scene {
    lab: Lab,
    talk: Talk,
    shards: u16,
}

/// A call whose callee has one tab.
fn scene(shards: u16, known: Known) -> Scene {
    scene_by(Transport::Wss, shards, known)
}

/// The same, the tab connected by that.
fn scene_by(by: Transport, shards: u16, known: Known) -> Scene {
    let (mut lab, caller, mut callee) = two(shards, known);
    if callee.phone.transport != by {
        callee.phone.leave(&mut lab, CloseReason::Peer);
        callee.connect(&mut lab, 0, by);
        callee.log_in(&mut lab);
        callee.take(&mut lab);
    }
    let mut talk = Talk::ring(&mut lab, caller, callee);
    talk.answer(&mut lab);
    Scene { lab, talk, shards }
}

impl Scene {
    /// Another tab of the callee, connected.
    fn tab(&mut self, shard: u16) -> Client {
        let mut tab = self.talk.callee.twin(&mut self.lab);
        tab.connect(&mut self.lab, shard, Transport::Wss);
        tab
    }

    /// Another tab of the callee by what its first came by, registered and asked for nothing yet.
    fn rival(&mut self) -> Client {
        let mut tab = self.talk.callee.twin(&mut self.lab);
        tab.connect(&mut self.lab, 0, self.talk.callee.phone.transport);
        tab.log_in(&mut self.lab);
        tab.take(&mut self.lab);
        tab
    }

    /// A new request for the callee; who of these gets it, the only one.
    fn reached(&mut self, tabs: &[&Client]) -> usize {
        let Scene { lab, talk, .. } = self;
        let name = format!("new{}", lab.serial());
        let draft = of_user(&talk.caller, "MESSAGE", &talk.callee.user, &name);
        talk.caller.send(lab, &draft.text());
        let got: Vec<_> = tabs.iter().map(|tab| tab.take(lab)).collect();
        let counts: Vec<usize> = got.iter().map(Vec::len).collect();
        assert_eq!(counts.iter().sum::<usize>(), 1, "{got:#?}");
        let at = counts.iter().position(|count| *count == 1).expect("one of them");
        tabs[at].send(lab, &got[at][0].response(200, "t", &[]));
        talk.caller.take_status(lab, 200);
        at
    }
}

fn each(test: impl Fn(Scene)) {
    for shards in [1, 2, 3] {
        for known in KNOWN {
            test(scene(shards, known));
        }
    }
}

/// The first tab does not answer: within the time of the probe its dialogs are its own, then they
/// are the second one's; what it did not answer is written once more, and no more than that.
#[test]
fn a_tab_that_does_not_answer_gives_its_dialogs_to_the_other() {
    each(|mut scene| {
        let mut second = scene.tab(0);
        let Scene { lab, talk, .. } = &mut scene;
        talk.callee.lose(lab, End::Silent);
        second.log_in(lab);
        second.take(lab);
        lab.pass(Duration::from_millis(900));
        let draft = talk.by_caller(lab, "INFO");
        talk.caller.send(lab, &draft.text());
        let first = talk.callee.take_method(lab, "INFO");
        second.heard_nothing(lab);
        lab.pass(Duration::from_millis(200));
        assert_eq!(lab.closed(talk.callee.flow()), Some(CloseReason::Pong));
        let again = second.take_method(lab, "INFO");
        assert_eq!(again.header("Via"), first.header("Via"), "the same transaction");
        second.send(lab, &again.response(200, "", &[]));
        talk.caller.take_status(lab, 200);
        talk.callee = second;
        talk.exchange(lab, "INVITE", true);
        talk.exchange(lab, "INFO", false);
        talk.exchange(lab, "BYE", true);
        lab.finish();
    });
}

/// A phone that leaves its Wi-Fi registers by the other network first, while the old connection still
/// answers. When that falls silent, the next request for it finds that out, not the end of a
/// keep-alive half a minute later.
#[test]
fn a_tab_that_falls_silent_later_is_found_out_by_the_next_request() {
    each(|mut scene| {
        let mut second = scene.tab(0);
        let Scene { lab, talk, .. } = &mut scene;
        second.log_in(lab);
        second.take(lab);
        lab.pass(PROBE);
        talk.exchange(lab, "INFO", true);
        second.heard_nothing(lab);
        lab.pass(PROBE);
        assert_eq!(lab.closed(talk.callee.flow()), None, "it answers");
        talk.callee.lose(lab, End::Silent);
        for method in ["INFO", "BYE"] {
            let draft = talk.by_caller(lab, method);
            talk.caller.send(lab, &draft.text());
            lab.pass(PROBE);
            let got = second.take_method(lab, method);
            second.send(lab, &got.response(200, "", &[]));
            talk.caller.take_status(lab, 200);
        }
        assert_eq!(lab.closed(talk.callee.flow()), Some(CloseReason::Pong));
        lab.finish();
    });
}

/// What a client said before it vanished may be read after the probe has left, when its shard was
/// busy: a response once more, a keep-alive, the pong to a ping of before. None of that answers.
#[test]
fn what_was_said_before_is_no_answer() {
    for by in [Transport::Wss, Transport::Tls] {
        for (shards, known) in [(1, Known::ByContact), (2, Known::ByRegId)] {
            for late in ["response", "keep-alive", "pong"] {
                let mut scene = scene_by(by, shards, known);
                let first = scene.talk.callee.flow();
                scene.talk.callee.lose(&mut scene.lab, End::Silent);
                let second = scene.rival();
                let Scene { lab, talk, .. } = &mut scene;
                match (late, by) {
                    ("response", _) => {
                        talk.say_200(lab);
                        talk.caller.take_status(lab, 200);
                    }
                    ("keep-alive", _) => talk.callee.send(lab, "\r\n\r\n"),
                    (_, Transport::Wss) => lab.data(first, &masked_frame(0xa, b"")),
                    // Nothing tells the pongs of a plain stream apart (RFC 5626 §3.5.1).
                    _ => continue,
                }
                lab.pass(PROBE);
                assert_eq!(lab.closed(first), Some(CloseReason::Pong), "{by:?}: {late}");
                talk.callee = second;
                talk.exchange(lab, "INFO", true);
                talk.exchange(lab, "BYE", true);
                lab.finish();
            }
        }
    }
}

/// A pong answers, whatever comes with it.
#[test]
fn a_pong_answers_by_every_stream() {
    for by in [Transport::Wss, Transport::Tls] {
        let mut scene = scene_by(by, 2, Known::ByContact);
        let second = scene.rival();
        let Scene { lab, talk, .. } = &mut scene;
        assert_eq!(lab.wire(talk.callee.flow()).pings, 1, "{by:?}");
        lab.pass(PROBE);
        assert_eq!(lab.closed(talk.callee.flow()), None, "{by:?}");
        talk.exchange(lab, "INFO", true);
        second.heard_nothing(lab);
        talk.exchange(lab, "BYE", true);
        lab.finish();
    }
}

/// Who has answered a probe is looked after as before: it is pinged when it is silent, and given up
/// when it does not answer that. Only then its dialogs are the other's.
#[test]
fn a_tab_that_answered_is_looked_after_as_before() {
    each(|mut scene| {
        let mut second = scene.tab(0);
        let Scene { lab, talk, .. } = &mut scene;
        second.log_in(lab);
        second.take(lab);
        lab.pass(PROBE);
        talk.exchange(lab, "INFO", true);
        let pings = lab.wire(talk.callee.flow()).pings;
        assert_eq!(pings, 2, "the probe, and one with the request");
        lab.pass(Duration::from_secs(60));
        assert!(lab.wire(talk.callee.flow()).pings > pings, "it is pinged");
        assert_eq!(lab.closed(talk.callee.flow()), None);
        talk.exchange(lab, "INFO", true);
        talk.callee.lose(lab, End::Silent);
        lab.pass(Duration::from_secs(60));
        assert_eq!(lab.closed(talk.callee.flow()), Some(CloseReason::Pong));
        talk.callee = second;
        talk.exchange(lab, "INFO", true);
        talk.exchange(lab, "BYE", false);
        lab.finish();
    });
}

/// Tabs that take turns at registering both live, and new requests go to the last one.
#[test]
fn tabs_that_take_turns_both_live() {
    each(|mut scene| {
        let mut second = scene.tab(0);
        for _ in 0..3 {
            for is_second in [true, false] {
                let Scene { lab, talk, .. } = &mut scene;
                let tab = if is_second { &mut second } else { &mut talk.callee };
                tab.log_in(lab);
                tab.take(lab);
                lab.pass(PROBE);
                talk.exchange(lab, "INFO", true);
                talk.exchange(lab, "INFO", false);
                let first = scene.talk.callee.clone();
                assert_eq!(scene.reached(&[&first, &second]), usize::from(is_second));
            }
        }
        let Scene { lab, talk, .. } = &mut scene;
        // Each time that it registers the other is asked, and the first with each request, too, while
        // the second has the binding.
        assert_eq!(lab.count(|it| it.flows_probed), 6 + 3);
        for tab in [&talk.callee, &second] {
            assert_eq!(lab.closed(tab.flow()), None);
        }
        talk.exchange(lab, "BYE", true);
        second.heard_nothing(lab);
        lab.finish();
    });
}

/// The flow is lost, and two tabs come at once, before either can be asked whether it lives. What
/// waited arrives once, at one of them; both live on.
#[test]
fn two_tabs_that_register_at_once_get_each_request_once() {
    for duty_first in [false, true] {
        each(|mut scene| {
            let (mut first, mut second) = (scene.tab(0), scene.tab(scene.shards - 1));
            let Scene { lab, talk, .. } = &mut scene;
            talk.callee.lose(lab, End::Reset);
            let info = talk.by_caller(lab, "INFO");
            let message = of_user(&talk.caller, "MESSAGE", &talk.callee.user, "waits");
            talk.caller.send(lab, &info.text());
            talk.caller.send(lab, &message.text());
            let proofs = [&mut first, &mut second].map(|tab| tab.prove(lab));
            lab.hold = true;
            first.send(lab, &proofs[0].text());
            second.send(lab, &proofs[1].text());
            if duty_first {
                lab.release_duty_first()
            } else {
                lab.release()
            }
            let mut got = Vec::new();
            for tab in [&first, &second] {
                got.extend(tab.take(lab).into_iter().map(|it| (tab, it)));
            }
            let mut methods: Vec<&str> = got.iter().map(|(_, it)| it.method()).collect();
            methods.sort_unstable();
            assert_eq!(methods, ["INFO", "MESSAGE"], "{got:#?}");
            for (tab, request) in &got {
                tab.send(lab, &request.response(200, "t", &[]));
            }
            let answers: Vec<u16> = talk.caller.take(lab).iter().map(|it| it.status()).collect();
            assert_eq!(answers, [200, 200]);
            lab.pass(PROBE);
            for tab in [&first, &second] {
                assert_eq!(lab.closed(tab.flow()), None);
                tab.heard_nothing(lab);
            }
            let last = scene.reached(&[&first, &second]);
            let Scene { lab, talk, .. } = &mut scene;
            talk.callee = [first, second].into_iter().nth(last).expect("it");
            talk.exchange(lab, "INFO", true);
            talk.exchange(lab, "BYE", true);
            lab.finish();
        });
    }
}
