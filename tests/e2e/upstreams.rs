//! Servers behind us over sockets: requests too large for datagrams (RFC 3261 §18.1.1), and several
//! targets of which some do not answer (RFC 3263 §4.3).

use std::net::UdpSocket;

use super::support::call::deliver;
use super::support::phone::PATIENCE;
use super::support::{Draft, Message, Phone, Server, Setup, Transport, still};

fn large(alice: &Phone) -> Draft {
    alice.draft("MESSAGE", "sip:9000@example.com").body("text/plain", "Grüße ".repeat(300))
}

/// The core hears the request over its transport, and alice its answer.
fn served(alice: &mut Phone, core: &mut Phone, draft: &Draft) -> Message {
    deliver(draft, alice, core, "sip:9000@example.com")
}

#[test]
fn a_large_request_goes_by_tcp_to_a_server_that_listens_there() {
    for shards in [1, 2] {
        let core = Phone::core(Transport::Tcp);
        let datagrams = UdpSocket::bind(core.address).expect("the same port over UDP");
        datagrams.set_nonblocking(true).expect("nonblocking");
        let target = format!("sip:{};transport=udp", core.address);
        let server = Setup::new().shards(shards).target(target).start();
        let mut core = core.connect(&server, "9000");
        for transport in Transport::ALL {
            let mut alice = Phone::connect(transport, &server, "alice");
            for _ in 0..3 {
                let draft = large(&alice);
                served(&mut alice, &mut core, &draft);
            }
            still(&mut [&mut alice, &mut core]);
        }
        let nothing = datagrams.recv(&mut [0; 1]).expect_err("nothing came by UDP");
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
        assert_eq!(server.metric("sipring_connects_failed_total"), 0);
    }
}

#[test]
fn a_large_request_goes_by_udp_to_a_server_that_takes_no_connection() {
    let core = Phone::core(Transport::Udp);
    let server = Setup::new().target(core.target()).start();
    let mut core = core.connect(&server, "9000");
    let mut alice = Phone::connect(Transport::Wss, &server, "alice");
    for _ in 0..5 {
        let draft = large(&alice);
        served(&mut alice, &mut core, &draft);
    }
    // Refused once, and remembered by the shard that serves requests to this user.
    assert_eq!(server.wait_metric("sipring_connects_failed_total", 1, PATIENCE), 1);
    still(&mut [&mut alice, &mut core]);
}

/// A proxy with two targets, the first of which is `first`.
fn with_first(first: String, second: String) -> Server {
    Setup::new().target(first).target(second).core("timeout = \"2s\"").start()
}

#[test]
fn a_target_that_is_not_there_is_passed_over() {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        // Over UDP it exists and says nothing; a connection to the others is refused.
        let first = Phone::core(transport);
        let target = first.target();
        let kept = (transport == Transport::Udp).then_some(first);
        let core = Phone::core(transport);
        let server = with_first(target, core.target());
        let mut core = core.connect(&server, "9000");
        let mut alice = Phone::connect(Transport::Wss, &server, "alice");
        for _ in 0..3 {
            let draft = alice.draft("MESSAGE", "sip:9000@example.com").body("text/plain", "hi");
            served(&mut alice, &mut core, &draft);
        }
        let resting = server.wait_metric("sipring_targets_resting", 1, PATIENCE);
        assert_eq!(resting, 1, "{transport:?}");
        still(&mut [&mut alice, &mut core]);
        drop(kept);
    }
}

#[test]
fn a_target_that_refuses_service_is_passed_over() {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let (first, core) = (Phone::core(transport), Phone::core(transport));
        let server = with_first(first.target(), core.target());
        let mut first = first.connect(&server, "9000");
        let mut core = core.connect(&server, "9000");
        let mut alice = Phone::connect(Transport::Wss, &server, "alice");
        for _ in 0..2 {
            let draft = alice.draft("MESSAGE", "sip:9000@example.com").body("text/plain", "hi");
            alice.send(&draft.build());
            let refused = first.request("MESSAGE");
            first.answer(&refused, 503);
            let heard = core.request("MESSAGE");
            assert_ne!(heard.values("via")[0], refused.values("via")[0], "a new branch");
            core.answer(&heard, 200);
            alice.status(200);
        }
        server.wait_metric("sipring_requests_relayed_total", 2, PATIENCE);
        still(&mut [&mut alice, &mut core, &mut first]);
    }
}
