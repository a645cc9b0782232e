//! What belongs to a transaction finds it, on whatever way it comes: by another shard, on another
//! connection, under another configuration, and by a shard that was started anew; with the magic
//! cookie and without (RFC 3261 §17.2.3).

use std::time::Duration;

use sipring::base::config::Config;
use sipring::base::id::Transport;

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, Lab, config_with, user_of};

/// Where the transaction lives, where its request came in, and the third.
const HOLDER: u16 = 0;
const FIRST: u16 = 1;
const OTHER: u16 = 2;
const CALLER: &str = "203.0.113.9:40009";
const CALLEE: &str = "203.0.113.5:40001";

/// The way that the second message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Same,
    OtherShard,
    NewConnection,
    AfterReload,
    AfterReloadByOtherShard,
    AfterRestart,
}

const WAYS: [Way; 6] = [
    Way::Same,
    Way::OtherShard,
    Way::NewConnection,
    Way::AfterReload,
    Way::AfterReloadByOtherShard,
    Way::AfterRestart,
];

/// How a peer writes its Via.
#[derive(Clone, Copy, Debug)]
enum Branch {
    Cookie,
    /// RFC 2543: any branch.
    Plain,
    /// RFC 2543: a client need not write one.
    None,
}

const BRANCHES: [Branch; 3] = [Branch::Cookie, Branch::Plain, Branch::None];

/// A request on its way to a callee who has heard it.
struct Scene {
    lab: Lab,
    caller: Phone,
    callee: Phone,
    branch: Branch,
    uri: String,
    name: String,
    heard: Sip,
}

impl Scene {
    fn new(transport: Transport, branch: Branch, method: &str, name: &str) -> Scene {
        let mut lab = Lab::new(3, lab::config());
        let user = user_of(HOLDER, 3, 0);
        let callee = Phone::connect(&mut lab, HOLDER, Transport::Wss, CALLEE);
        callee.register(&mut lab, &user, "<sip:a@aa.invalid;transport=ws>");
        let caller = Phone::connect(&mut lab, FIRST, transport, CALLER);
        let uri = format!("sip:{user}@example.com");
        let name = name.to_owned();
        let heard = Sip { start: String::new(), headers: Vec::new(), body: Vec::new() };
        let mut scene = Scene { lab, caller, callee, branch, uri, name, heard };
        let text = scene.text(method, "");
        scene.caller.send(&mut scene.lab, &text);
        scene.heard = scene.callee.take_method(&mut scene.lab, method);
        if method == "INVITE" {
            scene.caller.take_status(&mut scene.lab, 100);
        }
        scene
    }

    /// A request of the transaction; `tag` is the To tag that it repeats.
    fn text(&self, method: &str, tag: &str) -> String {
        let to = if tag.is_empty() { String::new() } else { format!(";tag={tag}") };
        let draft = request(&self.caller, method, &self.uri, &self.name);
        let text = draft.to(&format!("<{}>{to}", self.uri)).text();
        match self.branch {
            Branch::Cookie => text,
            Branch::Plain => text.replace(";branch=z9hG4bK", ";branch="),
            Branch::None => text.replace(&format!(";branch=z9hG4bK{}", self.name), ""),
        }
    }

    /// The phone that the next message comes from.
    fn on(&mut self, way: Way) -> Phone {
        let (caller, transport) = (self.caller, self.caller.transport);
        let mut connect = |shard, remote| Phone::connect(&mut self.lab, shard, transport, remote);
        match way {
            Way::Same => caller,
            Way::OtherShard => connect(OTHER, CALLER),
            Way::NewConnection => connect(FIRST, "203.0.113.9:50009"),
            Way::AfterReload => {
                self.lab.reload(other_domain());
                caller
            }
            Way::AfterReloadByOtherShard => {
                self.lab.reload(other_domain());
                Phone::connect(&mut self.lab, OTHER, transport, CALLER)
            }
            Way::AfterRestart => {
                self.lab.restart(OTHER, lab::config());
                Phone::connect(&mut self.lab, OTHER, transport, CALLER)
            }
        }
    }

    fn respond(&mut self, status: u16) {
        let heard = self.heard.clone();
        self.callee.send(&mut self.lab, &heard.response(status, "callee", &[]));
    }
}

/// The callee's address is no longer ours: new requests for it would have another home.
fn other_domain() -> Config {
    config_with(|config| config.node.domains = vec!["example.net".into()])
}

/// Every combination; with several Call-IDs, so that they fall on every shard.
fn for_each(work: impl Fn(Transport, Branch, Way, &str)) {
    for transport in Transport::ALL {
        for branch in BRANCHES {
            for way in WAYS {
                for name in ["i", "j", "k", "l"] {
                    work(transport, branch, way, name);
                }
            }
        }
    }
}

#[test]
fn a_cancel_finds_its_invite() {
    for_each(|transport, branch, way, name| {
        let mut scene = Scene::new(transport, branch, "INVITE", name);
        scene.respond(180);
        scene.caller.take_status(&mut scene.lab, 180);
        let from = scene.on(way);
        let cancel = scene.text("CANCEL", "");
        from.send(&mut scene.lab, &cancel);
        let context = format!("{transport:?} {branch:?} {way:?} {name}");
        let answers = from.take(&mut scene.lab);
        let ok = answers.iter().find(|answer| answer.header("CSeq") == "1 CANCEL");
        assert_eq!(ok.map(Sip::status), Some(200), "{context}: {answers:#?}");
        let cancel = scene.callee.take_method(&mut scene.lab, "CANCEL");
        let callee = scene.callee;
        callee.send(&mut scene.lab, &cancel.response(200, "callee", &[]));
        scene.respond(487);
        callee.take_method(&mut scene.lab, "ACK");
    });
}

#[test]
fn an_ack_to_a_failure_ends_at_its_invite() {
    for_each(|transport, branch, way, name| {
        let mut scene = Scene::new(transport, branch, "INVITE", name);
        scene.respond(486);
        scene.callee.take_method(&mut scene.lab, "ACK");
        scene.caller.take_status(&mut scene.lab, 486);
        let from = scene.on(way);
        let before = scene.lab.count(|it| it.retransmissions_absorbed);
        let ack = scene.text("ACK", "callee");
        from.send(&mut scene.lab, &ack);
        let context = format!("{transport:?} {branch:?} {way:?} {name}");
        let absorbed = scene.lab.count(|it| it.retransmissions_absorbed);
        assert_eq!(absorbed, before + 1, "{context}");
        scene.callee.heard_nothing(&mut scene.lab);
        from.heard_nothing(&mut scene.lab);
        scene.lab.pass(Duration::from_secs(4));
        from.heard_nothing(&mut scene.lab);
    });
}

#[test]
fn a_repeated_request_is_forwarded_once() {
    for_each(|transport, branch, way, name| {
        for method in ["INVITE", "MESSAGE"] {
            let mut scene = Scene::new(transport, branch, method, name);
            let from = scene.on(way);
            let before = scene.lab.count(|it| it.retransmissions_absorbed);
            let again = scene.text(method, "");
            from.send(&mut scene.lab, &again);
            let context = format!("{transport:?} {branch:?} {way:?} {name} {method}");
            let absorbed = scene.lab.count(|it| it.retransmissions_absorbed);
            assert_eq!(absorbed, before + 1, "{context}");
            scene.callee.heard_nothing(&mut scene.lab);
            let forwarded = scene.lab.count(|it| it.requests_forwarded);
            scene.respond(486);
            // What the caller hears by now is the failure, and before it only 100s.
            let answers = scene.caller.take(&mut scene.lab);
            assert_eq!(answers.last().map(Sip::status), Some(486), "{context}: {answers:#?}");
            assert!(answers[..answers.len() - 1].iter().all(|answer| answer.status() == 100));
            assert_eq!(scene.lab.count(|it| it.requests_forwarded), forwarded, "{context}");
        }
    });
}

#[test]
fn when_its_own_shard_failed_everything_is_answered_as_new_and_counted() {
    for branch in BRANCHES {
        for transport in Transport::ALL {
            let mut scene = Scene::new(transport, branch, "INVITE", "i");
            scene.lab.restart(HOLDER, lab::config());
            // The shard of the caller closed its flow: the failed one may have held bindings of it.
            let from = Phone::connect(&mut scene.lab, OTHER, transport, "203.0.113.9:50009");
            let answered = scene.lab.count(|it| it.requests_answered);
            let cancel = scene.text("CANCEL", "");
            from.send(&mut scene.lab, &cancel);
            assert_eq!(from.take_one(&mut scene.lab).status(), 481, "{transport:?} {branch:?}");
            let invite = scene.text("INVITE", "");
            from.send(&mut scene.lab, &invite);
            // A new transaction: nobody is registered since.
            assert!(matches!(from.take_one(&mut scene.lab).status(), 404 | 480));
            assert_eq!(scene.lab.count(|it| it.requests_answered), answered + 2);
            let ack = scene.text("ACK", "callee");
            let absorbed = scene.lab.count(|it| it.retransmissions_absorbed + it.dropped_ack);
            from.send(&mut scene.lab, &ack);
            let counted = scene.lab.count(|it| it.retransmissions_absorbed + it.dropped_ack);
            assert_eq!(counted, absorbed + 1, "{transport:?} {branch:?}");
        }
    }
}

#[test]
fn an_ack_of_rfc_2543_is_for_the_response_whose_to_tag_it_repeats() {
    for (branch, tag, is_ours) in [
        (Branch::Plain, "callee", true),
        (Branch::Plain, "somebody", false),
        (Branch::None, "callee", true),
        (Branch::None, "", false),
        // With the cookie the branch says it all.
        (Branch::Cookie, "somebody", true),
    ] {
        let mut scene = Scene::new(Transport::Udp, branch, "INVITE", "i");
        scene.respond(486);
        scene.callee.take_method(&mut scene.lab, "ACK");
        scene.caller.take_status(&mut scene.lab, 486);
        let ack = scene.text("ACK", tag);
        scene.caller.send(&mut scene.lab, &ack);
        scene.lab.pass(Duration::from_millis(500));
        let again = scene.caller.take(&mut scene.lab).len();
        assert_eq!(again, usize::from(!is_ours), "{branch:?} {tag}: timer G stops with the ACK");
    }
}

#[test]
fn the_port_of_sent_by_tells_two_clients_apart() {
    let mut scene = Scene::new(Transport::Udp, Branch::Cookie, "MESSAGE", "i");
    let text = scene.text("MESSAGE", "");
    let other = text.replace("203.0.113.9:40009", "203.0.113.9:40010");
    assert_ne!(text, other);
    scene.caller.send(&mut scene.lab, &other);
    scene.callee.take_method(&mut scene.lab, "MESSAGE");
    assert_eq!(scene.lab.count(|it| it.retransmissions_absorbed), 0);
}
