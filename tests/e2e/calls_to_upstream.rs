//! Clients call servers behind the proxy, over every transport on both sides.

use super::support::call::within;
use super::support::phone::PATIENCE;
use super::support::{Phone, Setup, Transport, call, forwarded, returned, still};

const CORES: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

#[test]
fn a_call_to_an_upstream_is_routed_and_hung_up_by_either_side() {
    for core_transport in CORES {
        for shards in [1, 2] {
            let core = Phone::core(core_transport);
            let server = Setup::new().shards(shards).target(core.target()).start();
            let mut core = core.connect(&server, "9000");
            for transport in Transport::ALL {
                let mut alice = Phone::connect(transport, &server, "alice");
                alice.register_self();
                let uri = "sip:9000@example.com";
                let mut up = call(&mut alice, uri, &mut core, uri);
                within(&mut up.callee, "INFO", &mut core, &mut alice);
                within(&mut up.caller, "BYE", &mut alice, &mut core);
                let mut up = call(&mut alice, uri, &mut core, uri);
                within(&mut up.caller, "INFO", &mut alice, &mut core);
                within(&mut up.callee, "BYE", &mut core, &mut alice);
                still(&mut [&mut alice, &mut core]);
                let unregister = alice.register_draft("*").with("Expires", "0");
                assert_eq!(alice.ask(&unregister).status(), 200);
            }
        }
    }
}

#[test]
fn one_connection_to_an_upstream_serves_many_requests() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let core = Phone::core(transport);
        let server = Setup::new().target(core.target()).start();
        let mut core = core.connect(&server, "9000");
        let mut alice = Phone::connect(Transport::Wss, &server, "alice");
        for _ in 0..20 {
            let draft = alice.draft("MESSAGE", "sip:9000@example.com");
            alice.send(&draft.build());
            let heard = core.request("MESSAGE");
            forwarded(&draft.message(), &heard, transport, "sip:9000@example.com");
            let ok = core.response(&heard, 200);
            core.respond(&heard, &ok);
            returned(&draft.message(), &ok.message(), &alice.status(200));
        }
        server.wait_metric("sipring_flows_opened_total", 1, PATIENCE);
        assert_eq!(server.metric("sipring_flows_opened_total"), 1, "kept and used again");
    }
}

#[test]
fn an_upstream_that_is_not_there_is_an_answer() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let core = Phone::core(transport);
        let target = core.target();
        drop(core);
        let server = Setup::new().target(target).start();
        let mut alice = Phone::connect(Transport::Wss, &server, "alice");
        let answer = alice.ask(&alice.draft("MESSAGE", "sip:9000@example.com"));
        assert!((480..600).contains(&answer.status()), "{answer:?}");
        server.wait_metric("sipring_connects_failed_total", 1, PATIENCE);
        still(&mut [&mut alice]);
    }
}

#[test]
fn an_upstream_whose_certificate_is_for_another_name_is_not_trusted() {
    let core = Phone::core(Transport::Tls);
    let port = core.address.port();
    // The connection goes to the right server, which cannot prove to be 127.0.0.1.
    let forwarder = Forwarder::to(core.address);
    let server = Setup::new().target(forwarder.target()).start();
    let mut core = core.connect(&server, "9000");
    let mut alice = Phone::connect(Transport::Wss, &server, "alice");
    alice.send(&alice.draft("MESSAGE", "sip:9000@example.com").build());
    assert!(core.incoming(std::time::Duration::from_millis(500)).is_none(), "port {port}");
    let answer = alice.final_response();
    assert!((480..600).contains(&answer.status()), "{answer:?}");
    server.wait_metric("sipring_connects_failed_total", 1, PATIENCE);
}

/// Passes one TCP connection on to another address.
struct Forwarder {
    address: std::net::SocketAddr,
}

impl Forwarder {
    fn to(target: std::net::SocketAddr) -> Forwarder {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        std::thread::spawn(move || {
            let Ok((mut near, _)) = listener.accept() else { return };
            let Ok(mut far) = std::net::TcpStream::connect(target) else { return };
            let (mut near_too, mut far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut far_too, &mut near_too));
            let _ = std::io::copy(&mut near, &mut far);
            let _ = far.shutdown(std::net::Shutdown::Both);
        });
        Forwarder { address }
    }

    fn target(&self) -> String {
        format!("sip:{};transport=tls", self.address)
    }
}
