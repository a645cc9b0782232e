//! Route and Request-URI as real clients send them (RFC 3261 §16.4).

use super::support::call::{deliver, within};
use super::support::{Dialog, Draft, Phone, Setup, Transport, call, forwarded, still};

#[test]
fn a_preloaded_route_that_names_the_proxy_is_removed() {
    let server = Setup::new().start();
    let mut bob = Phone::connect(Transport::Wss, &server, "bob");
    bob.register_self();
    let contact = bob.contact.clone();
    for transport in Transport::ALL {
        let mut alice = Phone::connect(transport, &server, "alice");
        let proxy = alice.proxy;
        for route in [
            format!("<sip:{proxy};lr>"),
            format!("<sip:{proxy};transport={};lr=on>", transport.uri()),
            format!("<sip:{proxy};lr>, <sip:{proxy};lr>"),
        ] {
            let draft = alice.draft("MESSAGE", "sip:bob@example.com").with("Route", route);
            let heard = deliver(&draft, &mut alice, &mut bob, &contact);
            assert_eq!(heard.all("route").count(), 0, "{heard:?}");
        }
    }
}

#[test]
fn parameters_of_the_request_uri_do_not_matter_for_the_look_up() {
    let server = Setup::new().start();
    let mut bob = Phone::connect(Transport::Wss, &server, "bob");
    bob.register_self();
    let contact = bob.contact.clone();
    let mut alice = Phone::connect(Transport::Tcp, &server, "alice");
    for uri in [
        "sip:bob@example.com;transport=udp",
        "sip:bob@EXAMPLE.com;transport=tcp;user=phone",
        "sip:%62ob@example.com;transport=ws",
    ] {
        let draft = alice.draft("MESSAGE", uri);
        deliver(&draft, &mut alice, &mut bob, &contact);
    }
}

#[test]
fn unknown_methods_and_header_fields_pass() {
    let server = Setup::new().start();
    let mut bob = Phone::connect(Transport::Wss, &server, "bob");
    bob.register_self();
    let contact = bob.contact.clone();
    let mut alice = Phone::connect(Transport::Udp, &server, "alice");
    for method in ["SUBSCRIBE", "PUBLISH", "REFER", "NEWMETHOD", "x.y-z!"] {
        let draft = alice.draft(method, "sip:bob@example.com").with("Event", "presence");
        deliver(&draft, &mut alice, &mut bob, &contact);
    }
}

#[test]
fn a_client_may_call_itself_on_another_connection() {
    let server = Setup::new().start();
    let mut one = Phone::connect(Transport::Wss, &server, "alice");
    one.register_self();
    let mut two = Phone::connect(Transport::Ws, &server, "alice");
    let contact = one.contact.clone();
    let mut up = call(&mut two, "sip:alice@example.com", &mut one, &contact);
    within(&mut up.callee, "BYE", &mut one, &mut two);
    still(&mut [&mut one, &mut two]);
}

#[test]
fn a_second_invite_in_the_dialog_follows_the_route() {
    for shards in [1, 2] {
        let server = Setup::new().shards(shards).start();
        let mut alice = Phone::connect(Transport::Wss, &server, "alice");
        let mut bob = Phone::connect(Transport::Ws, &server, "bob");
        alice.register_self();
        bob.register_self();
        let contact = bob.contact.clone();
        let mut up = call(&mut alice, "sip:bob@example.com", &mut bob, &contact);
        let again = up.callee.draft(&bob, "INVITE").with("Contact", format!("<{}>", bob.contact));
        bob.send(&again.build());
        let heard = alice.request("INVITE");
        forwarded(&again.message(), &heard, Transport::Wss, &up.callee.target);
        bob.status(100);
        alice.answer(&heard, 200);
        let ok = bob.status(200);
        let number = up.callee.cseq;
        let mut refreshed = Dialog { cseq: number, ..up.callee.clone() };
        assert_eq!(ok.cseq().0, number);
        bob.send(&refreshed.draft(&bob, "ACK").build());
        alice.request("ACK");
        within(&mut up.caller, "BYE", &mut alice, &mut bob);
        still(&mut [&mut alice, &mut bob]);
    }
}

#[test]
fn a_route_may_refuse() {
    let server =
        Setup::new().route("user = \"^8\"\nmethods = [\"INVITE\"]\nto = \"reject:603\"").start();
    let mut alice = Phone::connect(Transport::Wss, &server, "alice");
    let invite = alice.draft("INVITE", "sip:8000@example.com");
    let answer = alice.ask(&invite);
    assert_eq!(answer.status(), 603, "{answer:?}");
    let ack = invite.set("CSeq", "1 ACK").set("To", answer.one("to"));
    let start = ack.start.replacen("INVITE", "ACK", 1);
    alice.send(&Draft { start, ..ack }.build());
    let answer = alice.ask(&alice.draft("MESSAGE", "sip:8000@example.com"));
    assert_eq!(answer.status(), 480, "the route is for INVITE: {answer:?}");
    still(&mut [&mut alice]);
}
