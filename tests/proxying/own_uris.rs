//! Which URIs mean this proxy (RFC 3261 §16.4, §19.1.2, RFC 3263 §4): every listener and every name,
//! in every form; and `maddr`, which says where a request goes whatever the host is.

use sipring::base::config::{Config, HostPort, Listener, Route, RouteTo};
use sipring::base::id::Transport;

use crate::lab::call::Call;
use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab, listener_address};

/// Besides the usual listeners one behind a name, one behind an address, one for IPv6.
fn config() -> Config {
    lab::config_with(|config| {
        let like = |transport: Transport, address: &str, advertise: Option<(&str, Option<u16>)>| {
            let listener = config.listeners[transport.index()].clone();
            let advertise = advertise.map(|(host, port)| HostPort { host: host.into(), port });
            Listener { address: address.parse().expect("an address"), advertise, ..listener }
        };
        let more = [
            like(Transport::Wss, "10.0.0.1:9443", Some(("edge.example.net", Some(443)))),
            like(Transport::Udp, "10.0.0.1:5060", Some(("203.0.113.200", None))),
            like(Transport::Tls, "10.0.0.2:5061", Some(("[2001:db8::7]", Some(5081)))),
            like(Transport::Udp, "[2001:db8::1]:5060", None),
            like(Transport::Tcp, "0.0.0.0:5070", Some(("edge2.example.net", None))),
        ];
        config.listeners.extend(more);
    })
}

/// Whether a request with that URI in Route is taken as one for us.
fn is_ours(lab: &mut Lab, uri: &str) -> bool {
    let client = Phone::connect(lab, 0, Transport::Wss, "203.0.113.5:40001");
    let bob = Phone::connect(lab, 0, Transport::Wss, "203.0.113.6:40002");
    bob.register(lab, "bob", "<sip:b@bb.invalid;transport=ws>");
    let name = format!("m{}", lab.serial());
    let draft =
        request(&client, "MESSAGE", "sip:bob@example.com", &name).route(&[format!("<{uri};lr>")]);
    client.send(lab, &draft.text());
    let copies = bob.take(lab);
    for got in &copies {
        assert_eq!(got.find("Route"), None, "{uri}");
        bob.send(lab, &got.response(200, "b", &[]));
    }
    let status = client.take_one(lab).status();
    assert_eq!(status, if copies.is_empty() { 403 } else { 200 }, "{uri}");
    !copies.is_empty()
}

#[test]
fn every_listener_is_known_by_address_and_name_in_every_form() {
    let config = config();
    let mut lab = Lab::new(1, config.clone());
    for listener in &config.listeners {
        let transport = listener.transport.uri_name();
        let mut hosts = vec![listener.address.to_string()];
        if let Some(HostPort { host, port }) = &listener.advertise {
            let port = port.unwrap_or(listener.transport.default_port());
            hosts.push(format!("{host}:{port}"));
            hosts.push(format!("{}:{port}", host.to_uppercase()));
            if host.ends_with(".net") {
                hosts.push(format!("{host}.:{port}"));
                hosts.push(host.clone());
            }
        }
        for host in hosts.iter().filter(|host| !host.starts_with("0.0.0.0")) {
            for (scheme, user, params) in [
                ("sip", "", ""),
                ("SIP", "", ""),
                ("sips", "", ""),
                ("sip", "", &*format!(";transport={transport}")),
                ("sip", "", &*format!(";Transport={}", transport.to_uppercase())),
                ("sip", "someone@", ""),
                ("sip", "a%2Db:pw@", ";user=phone"),
            ] {
                let uri = format!("{scheme}:{user}{host}{params}");
                assert!(is_ours(&mut lab, &uri), "{uri}");
            }
        }
    }
}

#[test]
fn forms_that_leave_something_out() {
    let mut lab = Lab::new(1, config());
    for (uri, ours) in [
        ("sip:192.0.2.1", true),
        ("sips:192.0.2.1", true),
        ("sip:192.0.2.1;transport=tls", true),
        ("sip:192.0.2.1;transport=tcp", true),
        ("sip:example.com", true),
        ("sip:EXAMPLE.com.", true),
        ("sips:example.com.:5061", true),
        ("sip:[2001:DB8:0:0::1]", true),
        ("sip:[2001:db8::1]:5060;transport=udp", true),
        ("sip:203.0.113.200", true),
        ("sip:edge2.example.net", true),
        ("sip:127.0.0.1:5070", true),
        // Not the ports that we listen on there.
        ("sip:192.0.2.1:5070", false),
        ("sip:192.0.2.1;transport=ws", false),
        ("sip:10.0.0.2", false),
        ("sip:[2001:db8::7]", false),
        ("sip:[2001:db8::1]:5061", false),
        ("sip:edge.example.net:5090", false),
        ("sip:example.com:5090", false),
        // Not we.
        ("sip:192.0.2.10", false),
        ("sip:example.com.org", false),
        ("sip:xexample.com", false),
        ("sip:[2001:db8::2]", false),
    ] {
        assert_eq!(is_ours(&mut lab, uri), ours, "{uri}");
    }
}

#[test]
fn a_user_is_found_however_the_request_uri_spells_our_name() {
    let mut lab = Lab::new(1, config());
    let client = Phone::connect(&mut lab, 0, Transport::Tcp, "203.0.113.5:40001");
    let bob = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.6:40002");
    bob.register(&mut lab, "bob", "<sip:b@bb.invalid;transport=ws>");
    for uri in [
        "sip:bob@Example.COM.",
        "sip:%62o%62@example.com:5060",
        "SIP:bob@example.com;transport=tcp",
        "sip:bob@example.com:8443;transport=ws",
    ] {
        let name = format!("m{}", lab.serial());
        client.send(&mut lab, &request(&client, "MESSAGE", uri, &name).text());
        let got = bob.take_method(&mut lab, "MESSAGE");
        bob.send(&mut lab, &got.response(200, "b", &[]));
        client.take_status(&mut lab, 200);
    }
}

#[test]
fn an_escaped_token_is_a_token() {
    for shards in 1..=3 {
        let mut lab = Lab::new(shards, lab::config());
        let client = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        let core = Phone::connect(&mut lab, shards - 1, Transport::Udp, CORE);
        let contacts = ("sip:b@bb.invalid;transport=ws", "sip:9@198.51.100.7:5060");
        let uri = "sip:9@example.com";
        let mut call = Call::establish(&mut lab, &client, &core, uri, contacts, "c");
        let escape = |values: &[String]| -> Vec<String> {
            values.iter().map(|value| value.replace("ft.", "f%74%2e")).collect()
        };
        let bye = call.by_callee(&core, "BYE").route(&escape(call.callee_route()));
        Call::exchange(&mut lab, &core, &client, &bye);
    }
}

#[test]
fn a_maddr_that_says_how_the_request_came_is_taken_off() {
    for shards in 1..=3 {
        for transport in Transport::ALL {
            let mut lab = Lab::new(shards, lab::config());
            let client = Phone::connect(&mut lab, 0, transport, "203.0.113.5:40001");
            let core = Phone::connect(&mut lab, shards - 1, Transport::Udp, CORE);
            let (here, how) = (listener_address(transport), transport.uri_name());
            for (host, more) in [("example.com", ""), ("EXAMPLE.com", ";user=phone;x=1")] {
                let port = here.port();
                let uri = format!("sip:911@{host}:{port};maddr={};transport={how}", here.ip());
                let name = format!("m{}", lab.serial());
                let draft = request(&client, "MESSAGE", &format!("{uri}{more}"), &name);
                client.send(&mut lab, &draft.text());
                let got = core.take_method(&mut lab, "MESSAGE");
                assert_eq!(got.uri(), format!("sip:911@{host}{more}"));
                core.send(&mut lab, &got.response(200, "c", &[]));
                client.take_status(&mut lab, 200);
            }
            // What is left is no address of record of ours.
            let uri = format!("sip:v@foreign.test:{};maddr={}", here.port(), here.ip());
            let draft = request(&client, "MESSAGE", &format!("{uri};transport={how}"), "foreign");
            client.send(&mut lab, &draft.text());
            client.take_status(&mut lab, 403);
            lab.finish();
        }
    }
}

#[test]
fn a_foreign_maddr_is_where_the_request_goes_if_that_is_permitted() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config());
        let client = Phone::connect(&mut lab, at.flow, Transport::Wss, "203.0.113.5:40001");
        let other = Phone::connect(&mut lab, at.owner, Transport::Udp, "203.0.113.6:5060");
        other.register(&mut lab, "other", "<sip:o@203.0.113.6:5060>");
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        let contacts = ("sip:b@bb.invalid;transport=ws", "sip:9@anywhere.test;maddr=198.51.100.7");
        let uri = "sip:9@example.com";
        let mut call = Call::establish(&mut lab, &client, &core, uri, contacts, "c");
        let info = call.by_caller(&client, "INFO");
        let got = Call::exchange(&mut lab, &client, &core, &info);
        assert_eq!(got.uri(), "sip:9@anywhere.test;maddr=198.51.100.7", "kept: it is not ours");
        for stolen in ["sip:9@198.51.100.7;maddr=203.0.113.6", "sip:o@x.test;maddr=203.0.113.6"] {
            let info = call.by_caller(&client, "INFO").uri(stolen);
            client.send(&mut lab, &info.text());
            client.take_status(&mut lab, 403);
            let mut route = call.caller_route().to_vec();
            route.push(format!("<{stolen};lr>"));
            let info = call.by_caller(&client, "INFO").route(&route);
            client.send(&mut lab, &info.text());
            client.take_status(&mut lab, 403);
        }
        for stolen in ["sip:bob@example.com;maddr=203.0.113.6", "sip:o@x.test;maddr=198.51.100.7"] {
            let name = format!("m{}", lab.serial());
            client.send(&mut lab, &request(&client, "MESSAGE", stolen, &name).text());
            client.take_status(&mut lab, 403);
        }
        other.heard_nothing(&mut lab);
        core.heard_nothing(&mut lab);
        lab.finish();
    }
}

/// Escapes make no other URI (RFC 3261 §19.1.4), and no other rule.
#[test]
fn a_rule_is_not_evaded_by_escapes() {
    let mut config = lab::config();
    let user = |text: &str| Some(regex::Regex::new(text).expect("an expression"));
    let premium =
        Route { user: user("^900"), to: RouteTo::Reject(603), ..config.routes[0].clone() };
    config.routes.insert(0, premium);
    let mut lab = Lab::new(1, config);
    let client = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    for (nth, name) in ["900", "%3900", "9%300", "9%30%30%31", "900%FF", "900\u{e9}", "%39%30%30"]
        .iter()
        .enumerate()
    {
        let uri = format!("sip:{name}@example.com");
        client.send(&mut lab, &request(&client, "MESSAGE", &uri, &format!("e{nth}")).text());
        client.take_status(&mut lab, 603);
        core.heard_nothing(&mut lab);
    }
    client.send(&mut lab, &request(&client, "MESSAGE", "sip:%3911@example.com", "ok").text());
    let got = core.take_method(&mut lab, "MESSAGE");
    assert_eq!(got.uri(), "sip:%3911@example.com", "as it was written");
    core.send(&mut lab, &got.response(200, "c", &[]));
    client.take_status(&mut lab, 200);
    lab.finish();
}
