//! REGISTER over the wire (RFC 3261 §10.3).

use std::time::{Duration, Instant};

use super::support::phone::PATIENCE;
use super::support::sip::{param, unique, uri_of};
use super::support::{Draft, Message, Phone, Server, Setup, Transport, still};

/// One of each kind: frames, a stream, datagrams.
const TRIO: [Transport; 3] = [Transport::Wss, Transport::Tcp, Transport::Udp];

fn start() -> Server {
    let setup = Setup::new().registrar("expires_min", "\"5s\"").registrar("expires_max", "\"2h\"");
    setup.registrar("expires_default", "\"10m\"").registrar("contacts_max", "3").start()
}

/// The bindings that a 200 lists: URI and seconds, sorted.
pub fn bindings(response: &Message) -> Vec<(String, u32)> {
    let expires = |value: &str| -> u32 {
        param(value, "expires").expect("expires in a 200").parse().expect("seconds")
    };
    let of = |value: &String| (uri_of(value).to_string(), expires(value));
    let mut list: Vec<_> = response.values("contact").iter().map(of).collect();
    list.sort();
    list
}

fn uris(response: &Message) -> Vec<String> {
    bindings(response).into_iter().map(|(uri, _)| uri).collect()
}

/// A REGISTER without Contact: who is bound?
#[track_caller]
fn query(phone: &mut Phone) -> Vec<String> {
    let draft = phone.register_draft("");
    let response = phone.ask(&draft);
    assert_eq!(response.status(), 200, "{response:?}");
    uris(&response)
}

#[track_caller]
fn refused(phone: &mut Phone, draft: &Draft, statuses: &[u16]) -> Message {
    let response = phone.ask(draft);
    assert!(statuses.contains(&response.status()), "one of {statuses:?}: {response:?}");
    response
}

#[test]
fn contacts_are_added_refreshed_listed_and_removed() {
    let server = start();
    for transport in Transport::ALL {
        let mut phone = Phone::connect(transport, &server, &unique("user"));
        let (one, two) = ("sip:one@one.invalid;transport=ws", "sip:two@two.invalid");
        let added = phone.register(&format!("<{one}>;expires=300"));
        let granted = bindings(&added);
        assert!(granted.len() == 1 && granted[0].0 == one, "{added:?}");
        assert!((299..=300).contains(&granted[0].1), "{added:?}");
        assert_eq!(query(&mut phone), [one]);
        let refreshed = phone.register(&format!("<{one}>;expires=900"));
        let granted = bindings(&refreshed)[0].1;
        assert!((800..=900).contains(&granted), "long ones are spread: {refreshed:?}");
        let both = phone.register(&format!("<{two}>;q=0.5;expires=60"));
        assert_eq!(uris(&both), [one, two]);
        let left = phone.register(&format!("<{one}>;expires=0"));
        assert_eq!(uris(&left), [two]);
        let draft = phone.register_draft(&format!("<{two}>")).with("Expires", "0");
        let none = phone.ask(&draft);
        assert!(none.status() == 200 && bindings(&none).is_empty(), "{none:?}");
        assert!(query(&mut phone).is_empty());
    }
    server.wait_metric("sipring_registrations_total", 5 * 7, PATIENCE);
}

#[test]
fn expires_is_default_cut_or_too_brief() {
    let server = start();
    for transport in TRIO {
        let mut phone = Phone::connect(transport, &server, &unique("user"));
        let draft = phone.register_draft("<sip:a@a.invalid>");
        let response = phone.ask(&draft);
        assert!((599..=600).contains(&bindings(&response)[0].1), "the default: {response:?}");
        let response = phone.register("<sip:a@a.invalid>;expires=999999");
        assert!((6400..=7200).contains(&bindings(&response)[0].1), "the most: {response:?}");
        for expires in ["1", "4"] {
            let draft = phone.register_draft(&format!("<sip:a@a.invalid>;expires={expires}"));
            let response = refused(&mut phone, &draft, &[423]);
            assert_eq!(response.one("min-expires"), "5");
        }
        let response = phone.register("<sip:a@a.invalid>;expires=5");
        assert!((4..=5).contains(&bindings(&response)[0].1), "{response:?}");
    }
}

#[test]
fn a_binding_ends_by_expiry() {
    let core = Phone::core(Transport::Udp);
    let server = Setup::new().registrar("expires_min", "\"1s\"").start();
    let mut core = core.connect(&server, "core");
    for transport in TRIO {
        let mut phone = Phone::connect(transport, &server, &unique("brief"));
        phone.register("<sip:b@b.invalid>;expires=1");
        let deadline = Instant::now() + PATIENCE;
        while !query(&mut phone).is_empty() {
            assert!(Instant::now() < deadline, "still bound");
            assert!(phone.incoming(Duration::from_millis(50)).is_none());
        }
        let answer = core.ask(&core.draft("MESSAGE", &phone.aor()));
        assert_eq!(answer.status(), 480, "{answer:?}");
        still(&mut [&mut phone]);
    }
}

#[test]
fn a_star_removes_everything_or_is_refused() {
    let server = start();
    for transport in TRIO {
        let mut phone = Phone::connect(transport, &server, &unique("user"));
        phone.register("<sip:a@a.invalid>, <sip:b@b.invalid>");
        for (contact, expires) in
            [("*", "60"), ("*, <sip:c@c.invalid>", "0"), ("*;expires=0, *", "0"), ("*", "")]
        {
            let mut draft = phone.register_draft(contact);
            if !expires.is_empty() {
                draft = draft.with("Expires", expires);
            }
            refused(&mut phone, &draft, &[400]);
            assert_eq!(query(&mut phone).len(), 2, "{contact} with Expires {expires}");
        }
        let draft = phone.register_draft("*").with("Expires", "0");
        let response = phone.ask(&draft);
        assert!(response.status() == 200 && bindings(&response).is_empty(), "{response:?}");
        assert!(query(&mut phone).is_empty());
    }
}

#[test]
fn an_older_request_of_the_same_call_changes_nothing() {
    let server = start();
    for transport in TRIO {
        let mut phone = Phone::connect(transport, &server, &unique("user"));
        let first = phone.register_draft("<sip:a@a.invalid>").with("Expires", "600");
        assert_eq!(phone.ask(&first).status(), 200);
        let second = phone.register_draft("<sip:a@a.invalid>").with("Expires", "0");
        for cseq in ["1 REGISTER", "0 REGISTER"] {
            let late = second.clone().set("CSeq", cseq).set("Via", phone.via());
            let response = phone.ask(&late);
            assert!(response.status() >= 400, "RFC 3261 §10.3 step 7: {response:?}");
            assert_eq!(query(&mut phone), ["sip:a@a.invalid"]);
        }
        let other_call = second.set("CSeq", "1 REGISTER").set("Call-ID", unique("other"));
        let response = phone.ask(&other_call.set("Via", phone.via()));
        assert_eq!(response.status(), 200, "another Call-ID counts by itself: {response:?}");
        assert!(query(&mut phone).is_empty());
    }
}

#[test]
fn all_contacts_change_or_none() {
    let server = start();
    for transport in TRIO {
        let mut phone = Phone::connect(transport, &server, &unique("user"));
        phone.register("<sip:a@a.invalid>");
        let draft = phone
            .register_draft("<sip:b@b.invalid>;expires=60, <sip:a@a.invalid>;expires=0")
            .with("Contact", "<sip:c@c.invalid>;expires=1");
        refused(&mut phone, &draft, &[423]);
        assert_eq!(query(&mut phone), ["sip:a@a.invalid"]);
        let draft = phone.register_draft(
            "<sip:b@b.invalid>, <sip:c@c.invalid>, <sip:d@d.invalid>, <sip:a@a.invalid>",
        );
        let response = refused(&mut phone, &draft, &[403]);
        assert!(response.all("warning").count() > 0, "contacts_max says why: {response:?}");
        assert_eq!(query(&mut phone), ["sip:a@a.invalid"]);
    }
}

#[test]
fn what_is_not_for_this_registrar_is_refused() {
    let server = start();
    for transport in TRIO {
        let mut phone = Phone::connect(transport, &server, &unique("user"));
        let contact = "<sip:a@a.invalid>";
        let elsewhere = "<sip:alice@elsewhere.example>";
        let foreign = Draft {
            start: "REGISTER sip:elsewhere.example SIP/2.0".to_string(),
            ..phone.register_draft(contact).set("To", elsewhere)
        };
        refused(&mut phone, &foreign, &[403, 404]);
        let foreign_to = phone.register_draft(contact).set("To", elsewhere);
        refused(&mut phone, &foreign_to, &[403, 404]);
        let demanding = phone.register_draft(contact).with("Require", "teleport, path");
        let response = refused(&mut phone, &demanding, &[420]);
        assert!(response.values("unsupported").contains(&"teleport".to_string()), "{response:?}");
        let ours = format!("<sip:{}@{}>", phone.user, phone.proxy);
        let ours = phone.register_draft(&ours);
        refused(&mut phone, &ours, &[400]);
        assert!(query(&mut phone).is_empty());
    }
}

#[test]
fn outbound_replaces_by_instance_and_flow() {
    let core = Phone::core(Transport::Udp);
    let server = Setup::new().start();
    let mut core = core.connect(&server, "core");
    let outbound = |host: &str| {
        format!(
            "<sip:o@{host}.invalid;transport=ws;ob>;reg-id=1;\
             +sip.instance=\"<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>\""
        )
    };
    for transport in TRIO {
        let user = unique("user");
        let mut old = Phone::connect(transport, &server, &user);
        let response = old.register(&outbound("first"));
        assert!(response.values("require").contains(&"outbound".to_string()), "{response:?}");
        let mut new = Phone::connect(transport, &server, &user);
        new.register(&outbound("second"));
        assert_eq!(query(&mut new), ["sip:o@second.invalid;transport=ws;ob"]);
        let draft = core.draft("MESSAGE", &new.aor());
        core.send(&draft.build());
        assert_eq!(new.serve("MESSAGE").uri(), "sip:o@second.invalid;transport=ws;ob");
        core.status(200);
        still(&mut [&mut old, &mut new, &mut core]);
    }
}
