//! What extensions of REGISTER promise, over the wire: Path (RFC 3327), Service-Route (RFC 3608),
//! outbound (RFC 5626), GRUUs (RFC 5627), push parameters (RFC 8599).

use std::collections::BTreeSet;

use super::registrar::bindings;
use super::support::sip::{unique, uri_of};
use super::support::{Message, Phone, Server, Setup, Transport, still};

/// One of each kind: frames, a stream, datagrams.
const TRIO: [Transport; 3] = [Transport::Wss, Transport::Tcp, Transport::Udp];

/// The value of an instance parameter, new each time.
fn instance() -> String {
    format!("+sip.instance=\"<urn:uuid:{}>\"", unique("i"))
}

/// The one listed Contact of a phone, header parameters included.
#[track_caller]
fn listed(response: &Message) -> String {
    let values = response.values("contact");
    assert_eq!(values.len(), 1, "{response:?}");
    values[0].clone()
}

/// A MESSAGE to `uri` reaches `callee` under its Contact, and its 200 comes back.
#[track_caller]
fn reaches(core: &mut Phone, uri: &str, callee: &mut Phone) {
    core.send(&core.draft("MESSAGE", uri).build());
    assert_eq!(callee.serve("MESSAGE").uri(), callee.contact);
    core.status(200);
}

#[test]
fn a_path_is_stored_returned_and_used() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let core = Phone::core(transport);
        let path = format!("<sip:p1@{};transport={};lr>", core.address, transport.uri());
        let server = Setup::new().start();
        let mut edge = core.connect(&server, &unique("user"));
        // It does not say that it can do without (RFC 3327 §5.3).
        let draft = edge.register_draft("<sip:u@10.1.1.1>").with("Path", &path);
        let refused = edge.ask(&draft.clone().set("Supported", "outbound"));
        assert_eq!(refused.status(), 420, "{refused:?}");
        assert_eq!(refused.one("unsupported"), "path");
        let behind = "<sip:p2.inner.test;lr>";
        let draft = edge.register_draft("<sip:u@10.1.1.1>").with("Path", &path);
        let answer = edge.ask(&draft.with("Path", behind));
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert_eq!(answer.values("path"), [path.as_str(), behind], "as they came");
        for caller in TRIO {
            let mut alice = Phone::connect(caller, &server, &unique("alice"));
            alice.send(&alice.draft("MESSAGE", &edge.aor()).build());
            let heard = edge.request("MESSAGE");
            assert_eq!(heard.uri(), "sip:u@10.1.1.1");
            assert_eq!(heard.values("route"), [path.as_str(), behind]);
            edge.answer(&heard, 200);
            alice.status(200);
            // The edge has lost the flow; endpoints never hear 430 (RFC 5626 §11.5).
            alice.send(&alice.draft("MESSAGE", &edge.aor()).build());
            let heard = edge.request("MESSAGE");
            edge.answer(&heard, 430);
            assert_eq!(alice.final_response().status(), 480);
        }
    }
}

#[test]
fn a_clients_own_path_is_refused() {
    let server = Setup::new().start();
    for transport in TRIO {
        let mut phone = Phone::connect(transport, &server, &unique("user"));
        for path in ["<sip:127.0.0.9;lr>", "<sip:victim.test;lr>"] {
            let contact = format!("<{}>", phone.contact);
            let draft = phone.register_draft(&contact).with("Path", path);
            assert_eq!(phone.ask(&draft).status(), 403, "{path}");
        }
        let query = phone.register_draft("");
        assert_eq!(phone.ask(&query).all("contact").count(), 0);
    }
}

#[test]
fn what_is_required_and_unknown_is_named() {
    let server = Setup::new().start();
    for transport in TRIO {
        let mut phone = Phone::connect(transport, &server, &unique("user"));
        let draft = phone.register_draft("<sip:a@a.invalid>").with("Require", "path, pref, foo");
        let refused = phone.ask(&draft);
        assert_eq!(refused.status(), 420, "{refused:?}");
        assert_eq!(refused.values("unsupported"), ["pref", "foo"], "{refused:?}");
        let known = phone.register_draft("<sip:a@a.invalid>").with("Require", "path, outbound");
        assert_eq!(phone.ask(&known).status(), 200);
    }
}

#[test]
fn outbound_is_promised_where_it_was_asked_for() {
    let brief = Setup::new().limit("idle_timeout", "\"60s\"").start();
    let usual = Setup::new().start();
    let register = |server: &Server, transport, contact: &str, supported: &str| {
        let mut phone = Phone::connect(transport, server, &unique("user"));
        let draft = phone.register_draft(contact).set("Supported", supported);
        phone.ask(&draft)
    };
    for (transport, timer, brief_timer) in [
        (Transport::Wss, Some("35"), Some("35")),
        (Transport::Ws, Some("35"), Some("35")),
        // Its usual interval is up to 120 s (RFC 5626 §4.4.1).
        (Transport::Tcp, None, Some("48")),
        (Transport::Tls, None, Some("48")),
        // STUN (§4.4.2) tells it what it needs to know.
        (Transport::Udp, None, None),
    ] {
        let contact = format!("<sip:o@o.invalid;ob>;reg-id=1;{}", instance());
        for (server, timer) in [(&usual, timer), (&brief, brief_timer)] {
            let answer = register(server, transport, &contact, "path, outbound");
            assert_eq!(answer.status(), 200, "{answer:?}");
            assert_eq!(answer.values("require"), ["outbound"], "{transport:?}");
            assert_eq!(answer.all("flow-timer").next(), timer, "{transport:?}");
        }
        for (contact, supported) in [
            (contact.as_str(), "path"),
            ("<sip:o@o.invalid>;reg-id=1", "path, outbound"),
            ("<sip:o@o.invalid>", "path, outbound"),
        ] {
            let answer = register(&usual, transport, contact, supported);
            assert_eq!(answer.status(), 200, "{answer:?}");
            assert_eq!(answer.all("require").count(), 0, "{contact} {supported}");
            assert_eq!(answer.all("flow-timer").count(), 0, "{contact} {supported}");
        }
    }
}

/// RFC 5626 §6: only where the client insists on a flow that the hop before us does not keep.
#[test]
fn a_first_hop_without_outbound_is_refused_only_when_it_must_be() {
    let server = Setup::new().start();
    for transport in TRIO {
        let reg_id = format!("<sip:o@o.invalid;ob>;reg-id=1;{}", instance());
        for (contact, supported, status) in [
            (reg_id.as_str(), "path, outbound", 439),
            (reg_id.as_str(), "path", 200),
            ("<sip:o@o.invalid>", "path, outbound", 200),
        ] {
            let mut phone = Phone::connect(transport, &server, &unique("user"));
            let draft = phone.register_draft(contact).set("Supported", supported);
            let draft = draft.with("Via", "SIP/2.0/TCP below.test;branch=z9hG4bKbelow");
            let answer = phone.ask(&draft);
            assert_eq!(answer.status(), status, "{contact} {supported}: {answer:?}");
            assert_eq!(answer.all("require").count(), 0);
        }
    }
}

#[test]
fn the_service_route_is_told_to_every_client() {
    let routes = ["<sip:one.example.com;lr>", "<sip:two.example.com;transport=tcp;lr>"];
    let server = Setup::new().registrar("service_route", &format!("{routes:?}")).start();
    for transport in TRIO {
        let mut phone = Phone::connect(transport, &server, &unique("user"));
        assert_eq!(phone.register_self().values("service-route"), routes, "{transport:?}");
    }
}

/// The values of `pub-gruu` and `temp-gruu` in a listed Contact.
#[track_caller]
fn gruus(listed: &str) -> [String; 2] {
    ["pub-gruu", "temp-gruu"].map(|name| {
        let value =
            listed.split_once(&format!(";{name}=\"")).and_then(|(_, it)| it.split_once('"'));
        value.unwrap_or_else(|| panic!("{name} in {listed}")).0.to_string()
    })
}

#[test]
fn a_gruu_reaches_its_instance_and_no_other() {
    let core = Phone::core(Transport::Udp);
    let server = Setup::new().start();
    let mut core = core.connect(&server, "core");
    for transport in TRIO {
        let user = unique("user");
        let mut phones = [0, 1].map(|_| Phone::connect(transport, &server, &user));
        let [mine, other] = phones.each_mut().map(|phone| {
            let contact = format!("<{}>;reg-id=1;{}", phone.contact, instance());
            let draft = phone.register_draft(&contact).set("Supported", "path, outbound, gruu");
            let answer = phone.ask(&draft);
            assert_eq!(answer.status(), 200, "{answer:?}");
            let values = answer.values("contact");
            let own = values.iter().find(|value| uri_of(value) == phone.contact);
            gruus(own.unwrap_or_else(|| panic!("{answer:?}")))
        });
        assert!(mine[0].starts_with(&format!("sip:{user}@example.com;gr=")), "{mine:?}");
        assert!(mine[1].ends_with(";gr") && !mine[1].contains(&user), "it hides who: {mine:?}");
        let [one, two] = &mut phones;
        for (uri, callee) in [(&mine[0], 0), (&mine[1], 0), (&other[0], 1), (&other[1], 1)] {
            let callee = if callee == 0 { &mut *one } else { &mut *two };
            reaches(&mut core, uri, callee);
        }
        still(&mut [one, two]);
        let unknown = format!("sip:{user}@example.com;gr=urn:uuid:nobody");
        let forged = mine[1].replacen("sip:tgruu.", "sip:tgruu.A", 1);
        let empty = format!("sip:{user}@example.com;gr");
        for (uri, status) in [(&unknown, 480), (&forged, 404), (&empty, 404)] {
            let answer = core.ask(&core.draft("MESSAGE", uri));
            assert_eq!(answer.status(), status, "{uri}");
        }
        // Without being asked for it is not told.
        let contact = format!("<{}>;reg-id=1;{}", one.contact, instance());
        let draft = one.register_draft(&contact);
        let answer = one.ask(&draft);
        assert!(!answer.raw.windows(4).any(|text| text == b"gruu"), "{answer:?}");
    }
}

/// RFC 8599 §4: they are part of the Contact URI, and a request carries them to whom they wake.
#[test]
fn push_parameters_come_back_and_are_part_of_the_request_uri() {
    let core = Phone::core(Transport::Udp);
    let server = Setup::new().start();
    let mut core = core.connect(&server, "core");
    for transport in TRIO {
        let mut phone = Phone::connect(transport, &server, &unique("user"));
        let push = ";pn-provider=webpush;pn-param=key%3Dvalue;pn-prid=https%3A%2F%2Fpush.test%2F1";
        phone.contact += push;
        let answer = phone.register_self();
        assert_eq!(uri_of(&listed(&answer)), phone.contact, "{answer:?}");
        let aor = phone.aor();
        reaches(&mut core, &aor, &mut phone);
    }
}

/// Clients that come at once, as after a restart, do not come back at once.
#[test]
fn long_expiries_are_granted_spread() {
    let server = Setup::new().start();
    for transport in TRIO {
        let mut phone = Phone::connect(transport, &server, "user");
        let mut granted = |seconds: u32| -> BTreeSet<u32> {
            let grant = |n| {
                phone.user = format!("user{n}{}", transport.name());
                let contact = format!("<{}>;expires={seconds}", phone.contact);
                bindings(&phone.register(&contact))[0].1
            };
            (0..20).map(grant).collect()
        };
        let long = granted(3600);
        assert!(long.len() > 5, "{long:?}");
        assert!(long.iter().all(|it| (3239..=3600).contains(it)), "{long:?}");
        let short = granted(600);
        assert!(short.iter().all(|it| (599..=600).contains(it)), "exactly: {short:?}");
    }
}
