//! Flow tokens that are forged, foreign or out of place are refused with 403 and never followed
//! (RFC 5626 §5.3).

use sipring::base::id::Transport;

use crate::lab::call::Call;
use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab};

const CONTACTS: (&str, &str) = ("sip:a@aa.invalid;transport=ws", "sip:b@bb.invalid;transport=ws");

struct Scene {
    lab: Lab,
    alice: Phone,
    bob: Phone,
    call: Call,
}

/// Alice and Bob are in a call.
fn scene(shards: u16) -> Scene {
    let mut lab = Lab::new(shards, lab::config());
    let alice = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
    let bob = Phone::connect(&mut lab, shards - 1, Transport::Wss, "203.0.113.6:40002");
    bob.register(&mut lab, "bob", "<sip:b@bb.invalid;transport=ws>");
    let call = Call::establish(&mut lab, &alice, &bob, "sip:bob@example.com", CONTACTS, "c1");
    Scene { lab, alice, bob, call }
}

impl Scene {
    /// Somebody sends a request with such a Route and gets exactly this; nobody else hears of it.
    fn refused(&mut self, mallory: &Phone, draft: &lab::draft::Draft, status: u16) {
        mallory.send(&mut self.lab, &draft.text());
        mallory.take_status(&mut self.lab, status);
        let others = [self.alice, self.bob];
        for other in others.iter().filter(|it| it.remote != mallory.remote) {
            other.heard_nothing(&mut self.lab);
        }
        assert!(self.lab.opens.is_empty() && self.lab.datagrams.is_empty());
    }
}

fn every_stranger(lab: &mut Lab, shards: u16) -> Vec<Phone> {
    let connect = |(at, transport): (usize, Transport)| {
        let remote = format!("203.0.113.66:{}", 50_000 + at);
        Phone::connect(lab, at as u16 % shards, transport, &remote)
    };
    Transport::ALL.into_iter().enumerate().map(connect).collect()
}

#[test]
fn a_token_of_another_dialog_or_changed_in_any_way_is_refused() {
    for shards in 1..=3 {
        let mut scene = scene(shards);
        let token = scene.call.caller_route()[0].clone();
        let end = token.find('@').expect("a user part");
        let flip = |at: usize| {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            String::from_utf8(bytes).expect("still text")
        };
        let start = token.find("ft.").expect("a token") + 3;
        let mut bad: Vec<String> = (start..end).step_by(7).map(flip).collect();
        bad.push(format!("{}{}", &token[..end - 4], &token[end..]));
        bad.push(format!("{}{}", &token[..start], &token[end..]));
        bad.push(format!("{}AAAA{}", &token[..end], &token[end..]));
        for mallory in every_stranger(&mut scene.lab, shards) {
            for (n, route) in bad.iter().enumerate() {
                let name = format!("f{n}{}", mallory.remote.port());
                let draft = scene
                    .call
                    .by_caller(&mallory, "BYE")
                    .branch(&mallory, &name)
                    .route(std::slice::from_ref(route));
                scene.refused(&mallory, &draft, 403);
            }
            let draft = scene.call.by_caller(&mallory, "BYE").call_id("another");
            scene.refused(&mallory, &draft, 403);
            let draft = scene.call.by_caller(&mallory, "BYE");
            scene.refused(&mallory, &draft, 403);
            let new = scene.call.by_caller(&mallory, "MESSAGE").to("<sip:bob@example.com>");
            scene.refused(&mallory, &new, 403);
        }
        let alice = scene.alice;
        let new = scene.call.by_caller(&alice, "MESSAGE").to("<sip:bob@example.com>");
        scene.refused(&alice, &new, 403);
        scene.lab.finish();
    }
}

#[test]
fn a_path_token_of_a_client_is_refused() {
    for shards in 1..=3 {
        let config = lab::config_with(|config| config.routes = crate::edge_mode::routes());
        let mut lab = Lab::new(shards, config);
        let victim = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        let core = Phone::connect(&mut lab, shards - 1, Transport::Udp, CORE);
        let path = crate::edge_mode::registered(&mut lab, &victim, &core, "alice");
        for mallory in every_stranger(&mut lab, shards) {
            for tag in ["", ";tag=x"] {
                let name = format!("p{}{}", mallory.remote.port(), tag.len());
                let draft = request(&mallory, "MESSAGE", "sip:a@aa.invalid;transport=ws", &name)
                    .to(&format!("<sip:alice@example.com>{tag}"))
                    .route(std::slice::from_ref(&path));
                mallory.send(&mut lab, &draft.text());
                mallory.take_status(&mut lab, 403);
                victim.heard_nothing(&mut lab);
            }
        }
        lab.finish();
    }
}

#[test]
fn a_token_of_another_run_of_the_process_names_nobody() {
    let mut scene = scene(1);
    let bye = scene.call.by_caller(&scene.alice, "BYE");
    let mut later = Lab::with_epoch(1, lab::config(), 2);
    let alice = Phone::connect(&mut later, 0, Transport::Wss, "203.0.113.5:40001");
    let bob = Phone::connect(&mut later, 0, Transport::Wss, "203.0.113.6:40002");
    assert_eq!(bob.flow, scene.bob.flow, "the same slot, and the same generation by chance");
    alice.send(&mut later, &bye.text());
    alice.take_status(&mut later, 480);
    bob.heard_nothing(&mut later);
    later.finish();
}
