//! What a client could make the servers behind us do (RFC 3327 §6): they trust us, so that a Path or
//! Route which leads through them to a host of the client's choice would make them its relay.
//!
//! A Path is a server's to add. From anybody else it is refused, with every binding that it would
//! make: even one that names nobody but our own upstream would have the upstream send whatever is
//! for the user to the Contact, which is any host. In a dialog of ours a Route may lead to the
//! upstream and behind it: these are the servers that the upstream recorded, and what the sender
//! may add there it may send to the upstream without us, who are no more than its caller.

use sipring::base::id::Transport;

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab, user_of};

fn register(lab: &mut Lab, sender: &Phone, user: &str, contact: &str, path: &str) -> u16 {
    let serial = lab.serial();
    let to = format!("<sip:{user}@example.com>");
    let draft = request(sender, "REGISTER", "sip:example.com", &format!("r{serial}"))
        .to(&to)
        .from(&format!("{to};tag=1"))
        .line(&format!("Contact: <{contact}>"))
        .line("Supported: path, outbound")
        .line(&format!("Path: {path}"));
    sender.send(lab, &draft.text());
    sender.take_one(lab).status()
}

#[test]
fn a_stranger_cannot_have_requests_relayed_by_our_upstream() {
    for at in lab::placements() {
        for transport in Transport::ALL {
            let mut lab = Lab::new(at.shards, lab::config());
            let user = user_of(at.owner, at.shards, 0);
            let mallory = Phone::connect(&mut lab, at.flow, transport, "203.0.113.66:50000");
            let caller = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.5:40001");
            let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
            for (contact, path) in [
                ("sip:m@mm.invalid", "<sip:198.51.100.7;lr>, <sip:victim.test;lr>"),
                ("sip:victim@victim.test", "<sip:198.51.100.7;lr>"),
                ("sip:m@203.0.113.66:50000", "<sip:198.51.100.7:5060;lr;ob>"),
                ("sip:m@mm.invalid", "<sip:victim.test;lr>"),
                ("sip:m@mm.invalid", "<sip:example.com;lr>"),
            ] {
                assert_eq!(register(&mut lab, &mallory, &user, contact, path), 403, "{path}");
                let name = format!("m{}", lab.serial());
                let draft = request(&caller, "MESSAGE", &format!("sip:{user}@example.com"), &name);
                caller.send(&mut lab, &draft.text());
                caller.take_status(&mut lab, 480);
                core.heard_nothing(&mut lab);
            }
            lab.finish();
        }
    }
}

#[test]
fn a_path_of_an_upstream_is_followed_whatever_it_names_behind_it() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config());
        let user = user_of(at.owner, at.shards, 0);
        let caller = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.5:40001");
        let core = Phone::connect(&mut lab, at.flow, Transport::Udp, CORE);
        let path = "<sip:198.51.100.7;lr>, <sip:edge.inner.test;lr>";
        assert_eq!(register(&mut lab, &core, &user, "sip:u@10.1.1.1", path), 200);
        let draft = request(&caller, "MESSAGE", &format!("sip:{user}@example.com"), "m");
        caller.send(&mut lab, &draft.text());
        let got = core.take_method(&mut lab, "MESSAGE");
        assert_eq!((got.uri(), got.header("Route")), ("sip:u@10.1.1.1", path));
        core.send(&mut lab, &got.response(200, "c", &[]));
        caller.take_status(&mut lab, 200);
        // Its first hop is a server that the configuration names, or there is no way.
        let path = "<sip:victim.test;lr>, <sip:198.51.100.7;lr>";
        assert_eq!(register(&mut lab, &core, &user, "sip:u@10.1.1.1", path), 200);
        let draft = request(&caller, "MESSAGE", &format!("sip:{user}@example.com"), "n");
        caller.send(&mut lab, &draft.text());
        caller.take_status(&mut lab, 480);
        lab.finish();
    }
}

#[test]
fn without_a_dialog_of_ours_a_route_leads_nowhere() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config());
        let mallory = Phone::connect(&mut lab, at.flow, Transport::Wss, "203.0.113.66:50000");
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        for (uri, route) in [
            ("sip:v@victim.test", vec!["<sip:198.51.100.7;lr>"]),
            ("sip:v@victim.test", vec!["<sip:example.com;lr>", "<sip:198.51.100.7;lr>"]),
            ("sip:911@example.com", vec!["<sip:198.51.100.7;lr>", "<sip:victim.test;lr>"]),
            ("sip:911@example.com", vec!["<sip:victim.test;lr>"]),
            ("sip:v@198.51.100.7", vec![]),
        ] {
            for to in ["<sip:v@victim.test>", "<sip:v@victim.test>;tag=made-up"] {
                let route: Vec<String> = route.iter().map(|value| (*value).into()).collect();
                let name = format!("m{}", lab.serial());
                let draft = request(&mallory, "MESSAGE", uri, &name).to(to).route(&route);
                mallory.send(&mut lab, &draft.text());
                mallory.take_status(&mut lab, 403);
                core.heard_nothing(&mut lab);
            }
        }
        lab.finish();
    }
}
