//! Two users of one phone, both registered by a server behind us, on one connection: each may speak,
//! for as long as it is registered there, though we have no password of theirs.

use sipring::base::config::{Route, RouteTo};
use sipring::base::id::Transport;

use crate::client::{ask, of_user, users};
use crate::lab::digest::{Settings, with_digest};
use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab};

const CONTACT: &str = "<sip:a@aa.invalid;transport=ws>";

/// All that is for our domain goes to the server behind us.
fn lab_at(at: lab::Placement) -> Lab {
    let users = users(&["mallory"]);
    let settings = Settings { users: &users, ..Settings::default() };
    let mut config = with_digest(lab::config(), &settings);
    let domain = Some("example.com".into());
    config.routes =
        vec![Route { user: None, domain, methods: Vec::new(), to: RouteTo::Upstream(0) }];
    Lab::new(at.shards, config)
}

/// Registers at the server behind us, or leaves it.
fn register(lab: &mut Lab, phone: &Phone, core: &Phone, user: &str, seconds: u32) {
    let serial = lab.serial();
    let draft = request(phone, "REGISTER", "sip:example.com", &format!("r{user}"))
        .branch(phone, &format!("r{serial}"))
        .cseq(serial)
        .to(&format!("<sip:{user}@example.com>"))
        .from(&format!("<sip:{user}@example.com>;tag=r"))
        .line(&format!("Contact: {CONTACT};expires={seconds}"));
    phone.send(lab, &draft.text());
    let got = core.take_method(lab, "REGISTER");
    let listed = format!("Contact: {CONTACT};expires={seconds}");
    let lines: &[&str] = if seconds == 0 { &[] } else { &[&listed] };
    core.send(lab, &got.response(200, "core", lines));
    phone.take_status(lab, 200);
}

/// Whether the phone may speak in the user's name without a password of ours.
fn speaks(lab: &mut Lab, phone: &Phone, core: &Phone, user: &str) -> bool {
    let name = format!("m{}", lab.serial());
    let draft = of_user(phone, user, "MESSAGE", "sip:900@example.com", &name);
    phone.send(lab, &draft.text());
    match core.take(lab).first() {
        Some(got) => {
            core.send(lab, &got.response(200, "c", &[]));
            phone.take_status(lab, 200);
            true
        }
        None => {
            phone.take_status(lab, 407);
            false
        }
    }
}

#[test]
fn each_speaks_while_it_is_registered() {
    for at in lab::placements() {
        for first_leaves in [true, false] {
            let mut lab = lab_at(at);
            let phone = Phone::connect(&mut lab, at.flow, Transport::Tls, "203.0.113.5:40001");
            let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
            register(&mut lab, &phone, &core, "alice", 600);
            register(&mut lab, &phone, &core, "bob", 600);
            let may_speak = |lab: &mut Lab, expected: [bool; 3]| {
                for (user, expected) in ["alice", "bob", "mallory"].into_iter().zip(expected) {
                    assert_eq!(speaks(lab, &phone, &core, user), expected, "{user}, {at:?}");
                }
            };
            may_speak(&mut lab, [true, true, false]);
            register(&mut lab, &phone, &core, if first_leaves { "alice" } else { "bob" }, 0);
            may_speak(&mut lab, [!first_leaves, first_leaves, false]);
            register(&mut lab, &phone, &core, if first_leaves { "bob" } else { "alice" }, 0);
            may_speak(&mut lab, [false; 3]);
            // Who comes on another flow of the same address has proved nothing.
            register(&mut lab, &phone, &core, "alice", 600);
            let other = Phone::connect(&mut lab, at.flow, Transport::Tls, "203.0.113.5:40002");
            let draft = of_user(&other, "alice", "MESSAGE", "sip:900@example.com", "other");
            assert_eq!(ask(&mut lab, &other, &draft).status(), 407);
            lab.finish();
        }
    }
}
