//! URIs that are escaped, odd or of another kind, and IPv6 wherever a host can stand (RFC 3261
//! §19.1, §25.1; RFC 3966; RFC 5118).

use std::net::SocketAddr;

use sipring::base::config::{Config, Listener};
use sipring::base::id::{FlowKey, ListenerId, Transport};

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, Lab};

#[test]
fn an_address_of_record_is_found_however_it_is_written() {
    // Registered; asked for; whether that is the same (RFC 3261 §10.3 step 5, §19.1.4).
    let table = [
        ("sip:alice@example.com", "sip:%61lice@example.com", 0),
        ("sip:alice@example.com", "sip:%61%6C%69%63%65@example.com", 0),
        ("sip:%41lice@example.com", "sip:Alice@example.com", 0),
        ("sip:alice@example.com", "sip:Alice@example.com", 480),
        ("sip:alice@example.com", "sip:alice@EXAMPLE.Com", 0),
        ("sip:alice@example.com", "SIP:alice@example.com", 0),
        ("sip:alice@example.com", "sip:alice@example.com:5060;transport=tcp;x=%41", 0),
        ("sip:alice@example.com", "sip:alice:secret@example.com", 0),
        ("sip:alice:one@example.com", "sip:alice:other@example.com", 0),
        ("sip:alice@example.com", "sip:alice:@example.com", 0),
        ("sip:alice@example.com", "sip:alice%00@example.com", 480),
        ("sip:a%00b@example.com", "sip:a%00b@example.com", 0),
        ("sip:a%00b@example.com", "sip:a@example.com", 480),
        ("sip:a%0D%0Ab@example.com", "sip:a%0d%0ab@example.com", 0),
        ("sip:a%2541@example.com", "sip:aA@example.com", 480),
        ("sip:a%2541@example.com", "sip:a%2541@example.com", 0),
        ("sip:alice@example.com", "sip:alice%40example.com@example.com", 480),
        ("sip:a&=+$,;?/b@example.com", "sip:a&=+$,;?/b@example.com", 0),
        ("sip:a;b@example.com", "sip:a%3Bb@example.com", 0),
        ("sip:-_.!~*'()@example.com", "sip:-_.!~*'()@example.com", 0),
        ("sip:*21#@example.com", "sip:*21%23@example.com", 0),
        ("sip:\u{fc}@example.com", "sip:%C3%BC@example.com", 0),
    ];
    for (registered, asked, status) in table {
        for shards in [1, 3] {
            let mut lab = Lab::new(shards, lab::config());
            let bob = Phone::connect(&mut lab, shards - 1, Transport::Wss, "203.0.113.9:40009");
            let register = request(&bob, "REGISTER", "sip:example.com", "r")
                .to(&format!("<{registered}>"))
                .line("Contact: <sip:b@bb.invalid>");
            bob.send(&mut lab, &register.text());
            bob.take_status(&mut lab, 200);
            let sender = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.5:40001");
            sender.send(&mut lab, &request(&sender, "MESSAGE", asked, "m").text());
            if status == 0 {
                let got = bob.take_method(&mut lab, "MESSAGE");
                assert_eq!(got.uri(), "sip:b@bb.invalid");
                assert_eq!(got.header("To"), format!("<{asked}>"), "as it was written");
                bob.send(&mut lab, &got.response(200, "b", &[]));
                sender.take_status(&mut lab, 200);
            } else {
                let answers = sender.take(&mut lab);
                let statuses: Vec<u16> = answers.iter().map(Sip::status).collect();
                assert_eq!(statuses, [status], "{registered} {asked}");
            }
            lab.finish();
        }
    }
}

#[test]
fn a_uri_that_is_none_is_400_wherever_it_is_read() {
    const ALIKE: [(&str, &str); 13] = [
        ("sip:al%zzice@example.com", "Malformed Escape in URI"),
        ("sip:alice%4@example.com", "Malformed Escape in URI"),
        ("sip:alice%@example.com", "Malformed Escape in URI"),
        ("sip:alice@example.com;x=%zz", "Malformed Escape in URI"),
        ("sip:@example.com", "Malformed User in URI"),
        ("sip::secret@example.com", "Malformed User in URI"),
        ("sip:alice@", "Malformed Host in URI"),
        ("sip:alice@%65xample.com", "Malformed Host in URI"),
        ("sip:alice@example.com:0x5", "Malformed Host in URI"),
        ("sip:alice@example.com:", "Malformed Port"),
        ("sip:alice@example.com:65536", "Malformed Port"),
        ("sip:alice@[fe80::1%25eth0]", "Malformed Host in URI"),
        ("sip:alice@[2001:db8::1", "Malformed Host in URI"),
    ];
    for (uri, phrase) in ALIKE {
        let mut lab = Lab::new(1, lab::config());
        let phone = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        let draft = request(&phone, "MESSAGE", uri, "m").to("<sip:alice@example.com>");
        phone.send(&mut lab, &draft.text());
        assert_eq!(phone.take_one(&mut lab).start, format!("SIP/2.0 400 {phrase}"), "{uri}");
        // Only a server may register with a Path.
        let core = Phone::connect(&mut lab, 0, Transport::Udp, lab::CORE);
        for (name, value, phone) in
            [("To", "x", &phone), ("Contact", uri, &phone), ("Path", uri, &core)]
        {
            let to = if name == "To" { uri } else { "sip:alice@example.com" };
            let draft = request(phone, "REGISTER", "sip:example.com", name)
                .to(&format!("<{to}>"))
                .line(&format!("{}: <{value}>", if name == "To" { "X" } else { name }))
                .line(if name == "Contact" { "X: y" } else { "Contact: <sip:a@a.invalid>" })
                .line("Supported: path");
            phone.send(&mut lab, &draft.text());
            assert_eq!(phone.take_one(&mut lab).status(), 400, "{name} {uri}");
        }
        phone.send(
            &mut lab,
            &request(&phone, "MESSAGE", "sip:9@example.com", "o")
                .route(&[format!("<{uri}>")])
                .text(),
        );
        assert_eq!(phone.take_one(&mut lab).start, "SIP/2.0 400 Bad Route URI", "{uri}");
        lab.finish();
    }
}

#[test]
fn methods_that_nobody_knows_are_forwarded_and_answered() {
    for method in ["FOO", "invite", "RE%47IST%45R", "-.!%*_+`'~", &"M".repeat(2000)] {
        let mut lab = Lab::new(2, lab::config());
        let bob = Phone::connect(&mut lab, 1, Transport::Wss, "203.0.113.9:40009");
        bob.register(&mut lab, "bob", "<sip:b@bb.invalid>");
        let sender = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.5:40001");
        sender.send(&mut lab, &request(&sender, method, "sip:bob@example.com", "m").text());
        let got = bob.take_method(&mut lab, method);
        bob.send(&mut lab, &got.response(200, "b", &[]));
        let answer = sender.take_status(&mut lab, 200);
        assert_eq!(answer.header("CSeq"), format!("1 {method}"));
        lab.finish();
    }
}

/// RFC 3261 §8.2.1, §12.2.2, §21.5.2: what names the proxy itself and no user.
#[test]
fn what_is_for_ourselves_and_not_served_is_told_so() {
    let known = ["INVITE", "MESSAGE", "SUBSCRIBE", "NOTIFY", "PUBLISH", "REFER", "INFO", "BYE"];
    for uri in ["sip:example.com", "sip:192.0.2.1", "sip:192.0.2.1:8443;transport=ws"] {
        for method in known.into_iter().chain(["FOO", "options"]) {
            let mut lab = Lab::new(2, lab::config());
            let phone = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
            let draft = request(&phone, method, uri, "m");
            phone.send(&mut lab, &draft.text());
            let answer = phone.take_one(&mut lab);
            let (status, allow) = match known.contains(&method) {
                true => (405, Some("OPTIONS, REGISTER")),
                false => (501, None),
            };
            assert_eq!((answer.status(), answer.find("Allow")), (status, allow), "{method} {uri}");
            if method == "INVITE" {
                phone.send(&mut lab, &draft.clone().method("ACK").text());
            }
            let draft = draft.branch(&phone, "again").to(&format!("<{uri}>;tag=x"));
            phone.send(&mut lab, &draft.text());
            phone.take_status(&mut lab, 481);
            lab.finish();
        }
    }
}

/// A server behind us may be who serves the domain itself.
#[test]
fn a_domain_that_is_routed_is_not_ourselves() {
    let config = lab::config_with(|config| config.routes[0].user = None);
    let mut lab = Lab::new(1, config);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
    phone.send(&mut lab, &request(&phone, "PUBLISH", "sip:example.com", "m").text());
    let core = Phone::connect(&mut lab, 0, Transport::Udp, lab::CORE);
    core.take_method(&mut lab, "PUBLISH");
    lab.finish();
}

const EDGE: &str = "2001:db8::5";
const CLIENT: &str = "[2001:db8::99]:40001";
const SERVER: &str = "[2001:db8::7]:5060";

/// All listeners and the server on IPv6.
fn config() -> Config {
    lab::config_with(|config| {
        for listener in &mut config.listeners {
            listener.address.set_ip(EDGE.parse().expect("an address"));
        }
        let upstream = &mut config.upstreams[0];
        upstream.targets[0].address = SERVER.parse().expect("an address");
        upstream.targets[0].host = "[2001:db8::7]".into();
        upstream.from = vec!["2001:db8::7/128".parse().expect("a network")];
    })
}

#[test]
fn a_via_over_ipv6_says_where_it_came_from() {
    let table = [
        ("[2001:db8::99]:40001;branch=z9hG4bKa", "[2001:db8::99]:40001;branch=z9hG4bKa"),
        ("[2001:DB8:0:0::99]:40001;branch=z9hG4bKa", "[2001:DB8:0:0::99]:40001;branch=z9hG4bKa"),
        ("[2001:db8::1];branch=z9hG4bKa", "[2001:db8::1];branch=z9hG4bKa;received=2001:db8::99"),
        (
            "[2001:db8::1];received=[2001:db8::6];branch=z9hG4bKa",
            "[2001:db8::1];received=2001:db8::99;branch=z9hG4bKa",
        ),
        (
            "[2001:db8::1];received=2001:db8::6;branch=z9hG4bKa",
            "[2001:db8::1];received=2001:db8::99;branch=z9hG4bKa",
        ),
        (
            "h.invalid;rport;branch=z9hG4bKa",
            "h.invalid;rport=40001;branch=z9hG4bKa;received=2001:db8::99",
        ),
        (
            "[::ffff:192.0.2.9]:5060;branch=z9hG4bKa",
            "[::ffff:192.0.2.9]:5060;branch=z9hG4bKa;received=2001:db8::99",
        ),
        (
            "[2001:db8:::192.0.2.1];branch=z9hG4bKa",
            "[2001:db8:::192.0.2.1];branch=z9hG4bKa;received=2001:db8::99",
        ),
    ];
    for (sent, seen) in table {
        let mut lab = Lab::new(2, config());
        let client = Phone::connect(&mut lab, 0, Transport::Tcp, CLIENT);
        let core = Phone::connect(&mut lab, 1, Transport::Udp, SERVER);
        let draft = request(&client, "MESSAGE", "sip:9@example.com", "m");
        let via = format!("Via: SIP/2.0/TCP {sent}");
        client.send(&mut lab, &draft.vias(&[&via]).text());
        let got = core.take_method(&mut lab, "MESSAGE");
        let vias: Vec<&str> = got.all("Via").collect();
        assert!(vias[0].starts_with("SIP/2.0/UDP [2001:db8::5]:5060;branch=z9hG4bK"), "{vias:?}");
        assert_eq!(vias[1], format!("SIP/2.0/TCP {seen}"));
        core.send(&mut lab, &got.response(200, "c", &[]));
        client.take_status(&mut lab, 200);
        lab.finish();
    }
}

#[test]
fn a_sent_by_that_is_no_address_is_refused() {
    for sent in [
        "2001:db8::99;branch=z9hG4bKa",
        "[2001:db8::99;branch=z9hG4bKa",
        "[fe80::1%25eth0]:5060;branch=z9hG4bKa",
        "[fe80::1%eth0];branch=z9hG4bKa",
        "[192.0.2.1];branch=z9hG4bKa",
        "[];branch=z9hG4bKa",
        "[2001:db8:::1];branch=z9hG4bKa",
    ] {
        let mut lab = Lab::new(1, config());
        let client = Phone::connect(&mut lab, 0, Transport::Udp, CLIENT);
        let draft = request(&client, "MESSAGE", "sip:9@example.com", "m");
        let via = format!("Via: SIP/2.0/UDP {sent}");
        client.send(&mut lab, &draft.vias(&[&via]).text());
        let answer = client.take_status(&mut lab, 400);
        let phrase = &answer.start[12..];
        assert!(["Malformed Via", "Malformed Port"].contains(&phrase), "{sent} {phrase}");
        lab.finish();
    }
}

/// Answers over UDP: to the source's address with the port of sent-by, or to the source itself with
/// `rport` (RFC 3261 §18.2.2, RFC 3581 §4).
#[test]
fn answers_over_ipv6_go_where_the_via_says() {
    for (sent, to) in [
        ("[2001:db8::99]:40001;branch=z9hG4bKa", "[2001:db8::99]:40001"),
        ("[2001:db8::1];branch=z9hG4bKa", "[2001:db8::99]:5060"),
        ("[2001:db8::1]:5099;branch=z9hG4bKa", "[2001:db8::99]:5099"),
        ("[2001:db8::1]:5099;branch=z9hG4bKa;rport", "[2001:db8::99]:40001"),
        ("[2001:db8::1];branch=z9hG4bKa;maddr=[2001:DB8::0:99]", "[2001:db8::99]:5060"),
        ("[2001:db8::1];branch=z9hG4bKa;rport;maddr=[2001:db8::6]", "[2001:db8::99]:40001"),
    ] {
        let mut lab = Lab::new(1, config());
        let client = Phone::connect(&mut lab, 0, Transport::Udp, CLIENT);
        let draft = request(&client, "OPTIONS", "sip:example.com", "m");
        client.send(&mut lab, &draft.vias(&[&format!("Via: SIP/2.0/UDP {sent}")]).text());
        let to: SocketAddr = to.parse().expect("an address");
        let answers = lab.datagrams_to(to);
        assert_eq!(answers.len(), 1, "{sent}: {:?}", lab.datagrams);
        assert_eq!(answers[0].status(), 200);
        lab.finish();
    }
}

/// Record-Route of an IPv6 listener comes back as Route, in any spelling, and Contacts with IPv6
/// hosts are what they are.
#[test]
fn a_dialog_over_ipv6_finds_its_way_by_our_record_route() {
    for respelled in [false, true] {
        let mut lab = Lab::new(2, config());
        let alice = Phone::connect(&mut lab, 0, Transport::Wss, CLIENT);
        let bob = Phone::connect(&mut lab, 1, Transport::Tcp, "[2001:db8::98]:40002");
        let contact = "sip:bob@[2001:db8::98]:40002;transport=tcp";
        bob.register(&mut lab, "bob", &format!("<{contact}>"));
        let mut call = lab::call::Call::establish(
            &mut lab,
            &alice,
            &bob,
            "sip:bob@example.com",
            ("sip:a@aa.invalid;transport=ws", contact),
            "c",
        );
        assert_eq!(call.invite.uri(), contact);
        let routes = call.invite.record_route();
        assert!(routes.iter().all(|route| route.contains("@[2001:db8::5]:")), "{routes:?}");
        let spell = |route: &String| match respelled {
            true => route.replace("[2001:db8::5]", "[2001:DB8:0:0:0::5]"),
            false => route.clone(),
        };
        let route: Vec<String> = call.callee_route().iter().map(spell).collect();
        let draft = call.by_callee(&bob, "BYE").route(&route);
        lab::call::Call::exchange(&mut lab, &bob, &alice, &draft);
        lab.finish();
    }
}

/// One side on IPv4, the other on IPv6: each sees the listener of its own family (RFC 5658 §5).
#[test]
fn a_dialog_between_families_shows_each_side_its_own() {
    for v6_calls in [true, false] {
        let local: SocketAddr = "[2001:db8::5]:5060".parse().expect("an address");
        let config = lab::config_with(|config| {
            let tcp = config.listeners[Transport::Tcp.index()].clone();
            config.listeners.push(Listener { address: local, ..tcp });
        });
        let listener = ListenerId(config.listeners.len() as u16 - 1);
        let mut lab = Lab::new(1, config);
        let remote: SocketAddr = CLIENT.parse().expect("an address");
        let key = FlowKey { transport: Transport::Tcp, local, remote };
        let flow = Some(lab.connect_at(0, listener, key));
        let six = Phone { transport: Transport::Tcp, remote, shard: 0, flow };
        let four = Phone::connect(&mut lab, 0, Transport::Tcp, "203.0.113.9:40009");
        let (caller, callee) = if v6_calls { (six, four) } else { (four, six) };
        callee.register(&mut lab, "bob", "<sip:b@bb.invalid>");
        let contacts = ("sip:a@aa.invalid", "sip:b@bb.invalid");
        let uri = "sip:bob@example.com";
        let mut call = lab::call::Call::establish(&mut lab, &caller, &callee, uri, contacts, "c");
        let shown = |phone: &Phone| match phone.remote.is_ipv6() {
            true => "@[2001:db8::5]:5060;",
            false => "@192.0.2.1:5060;",
        };
        let route = call.callee_route();
        assert_eq!(route.len(), 2);
        assert!(
            route[0].contains(shown(&callee)) && route[1].contains(shown(&caller)),
            "{route:?}"
        );
        let top = call.invite.header("Via");
        assert_eq!(top.contains("[2001:db8::5]"), callee.remote.is_ipv6(), "{top}");
        let draft = call.by_caller(&caller, "INFO");
        lab::call::Call::exchange(&mut lab, &caller, &callee, &draft);
        let draft = call.by_callee(&callee, "BYE");
        lab::call::Call::exchange(&mut lab, &callee, &caller, &draft);
        lab.finish();
    }
}
