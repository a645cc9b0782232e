//! Bodies are bytes: what no text frame can carry goes in a binary frame (RFC 7118 §4.2), and
//! nothing is lost.

use super::support::call::deliver;
use super::support::sip::Frame;
use super::support::{Phone, Setup, Transport, fence, forwarded, returned};

#[test]
fn a_body_that_is_not_utf8_reaches_a_websocket_client_in_a_binary_frame() {
    let core = Phone::core(Transport::Udp);
    let server = Setup::new().start();
    let mut core = core.connect(&server, "core");
    for transport in [Transport::Ws, Transport::Wss] {
        let mut phone = Phone::connect(transport, &server, "alice");
        phone.register_self();
        let contact = phone.contact.clone();
        let bytes: Vec<u8> = (0..=255).collect();
        let bodies = [b"\xff".to_vec(), bytes, b"\xf0\x9f\x98".to_vec(), b"\xed\xa0\x80".to_vec()];
        for body in bodies {
            let draft = core.draft("MESSAGE", "sip:alice@example.com");
            let draft = draft.body("application/octet-stream", body.clone());
            core.send(&draft.build());
            let heard = phone.request("MESSAGE");
            assert_eq!((heard.frame, &heard.body), (Frame::Binary, &body));
            forwarded(&draft.message(), &heard, transport, &contact);
            // And back: a binary answer.
            let answer = phone.response(&heard, 200).body("application/octet-stream", body);
            phone.respond(&heard, &answer);
            returned(&draft.message(), &answer.message(), &core.status(200));
        }
        fence(&mut core, &mut [&mut phone]);
        let unregister = phone.register_draft("*").with("Expires", "0");
        assert_eq!(phone.ask(&unregister).status(), 200);
    }
}

#[test]
fn large_bodies_pass_between_stream_clients() {
    let server = Setup::new().start();
    let mut bob = Phone::connect(Transport::Wss, &server, "bob");
    bob.register_self();
    let contact = bob.contact.clone();
    for transport in [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss] {
        let mut alice = Phone::connect(transport, &server, "alice");
        for size in [0, 1, 1300, 4096, 16_384, 60_000, 100_000] {
            let body: String = (0..size).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
            let draft = alice.draft("MESSAGE", "sip:bob@example.com").body("text/plain", body);
            deliver(&draft, &mut alice, &mut bob, &contact);
        }
    }
}

/// All byte values, as many as fit: a datagram takes less than the rest.
#[test]
fn every_byte_in_bulk_between_any_two_transports() {
    let server = Setup::new().start();
    for to in Transport::ALL {
        let mut bob = Phone::connect(to, &server, &format!("bob-{}", to.name()));
        bob.register_self();
        let contact = bob.contact.clone();
        for from in Transport::ALL {
            let mut alice = Phone::connect(from, &server, "alice");
            let is_datagram = from == Transport::Udp || to == Transport::Udp;
            let size = if is_datagram { 60_000 } else { 64 * 1024 };
            let body: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let draft = alice.draft("MESSAGE", &bob.aor());
            let draft = draft.body("application/octet-stream", body.clone());
            alice.send(&draft.build());
            let heard = bob.request("MESSAGE");
            forwarded(&draft.message(), &heard, to, &contact);
            let answer = bob.response(&heard, 200).body("application/octet-stream", body);
            bob.respond(&heard, &answer);
            returned(&draft.message(), &answer.message(), &alice.status(200));
        }
    }
}

/// RFC 3261 §18.1.1: what no datagram carries is refused, whether it came as a larger one or grew
/// by our own Via, and the next message passes.
#[test]
fn what_is_larger_than_a_datagram_is_told_so() {
    let server = Setup::new().start();
    let mut bob = Phone::connect(Transport::Udp, &server, "bob");
    bob.register_self();
    for from in Transport::ALL {
        let mut alice = Phone::connect(from, &server, "alice");
        let sized = |alice: &Phone, size: usize| {
            alice.draft("MESSAGE", "sip:bob@example.com").body("text/plain", "x".repeat(size))
        };
        let head = sized(&alice, 10_000).build().len() - 10_000;
        let size = if from == Transport::Udp { 65_507 - head } else { 64 * 1024 };
        assert_eq!(alice.ask(&sized(&alice, size)).status(), 513, "{from:?}");
        fence(&mut alice, &mut [&mut bob]);
    }
}

#[test]
fn a_datagram_is_cut_at_content_length() {
    let core = Phone::core(Transport::Udp);
    let server = Setup::new().start();
    let mut core = core.connect(&server, "core");
    let mut bob = Phone::connect(Transport::Wss, &server, "bob");
    bob.register_self();
    let contact = bob.contact.clone();
    let draft = core.draft("MESSAGE", "sip:bob@example.com").body("text/plain", "exactly this");
    let mut bytes = draft.build();
    bytes.extend_from_slice(b"\r\nand padding (RFC 3261 \xa718.3)");
    core.send(&bytes);
    let heard = bob.request("MESSAGE");
    forwarded(&draft.message(), &heard, Transport::Wss, &contact);
    bob.answer(&heard, 200);
    core.status(200);
}

#[test]
fn content_length_appears_where_a_stream_needs_it() {
    let core = Phone::core(Transport::Udp);
    let server = Setup::new().start();
    let mut core = core.connect(&server, "core");
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut bob = Phone::connect(transport, &server, "bob");
        bob.register("<sip:bob@bob.invalid>");
        let mut sent = core.draft("MESSAGE", "sip:bob@example.com").body("text/plain", "no length");
        sent.length = false;
        core.send(&sent.build());
        let heard = bob.request("MESSAGE");
        forwarded(&sent.message(), &heard, transport, "sip:bob@bob.invalid");
        bob.answer(&heard, 200);
        core.status(200);
        let unregister = bob.register_draft("*").with("Expires", "0");
        assert_eq!(bob.ask(&unregister).status(), 200);
    }
}
