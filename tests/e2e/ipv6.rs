//! The same over IPv6.

use super::support::call::within;
use super::support::{Phone, Setup, Transport, call, still};

#[test]
fn everything_works_over_ipv6() {
    for shards in [1, 2] {
        let server = Setup::new().ipv6().shards(shards).start();
        for (from, to) in [
            (Transport::Udp, Transport::Wss),
            (Transport::Wss, Transport::Udp),
            (Transport::Tls, Transport::Ws),
            (Transport::Ws, Transport::Tcp),
            (Transport::Tcp, Transport::Tls),
        ] {
            let mut alice = Phone::connect(from, &server, "alice");
            let mut bob = Phone::connect(to, &server, "bob");
            assert!(alice.local.is_ipv6() && bob.local.is_ipv6());
            alice.register_self();
            bob.register_self();
            let contact = bob.contact.clone();
            let mut up = call(&mut alice, "sip:bob@example.com", &mut bob, &contact);
            within(&mut up.caller, "INFO", &mut alice, &mut bob);
            within(&mut up.callee, "BYE", &mut bob, &mut alice);
            still(&mut [&mut alice, &mut bob]);
            for phone in [&mut alice, &mut bob] {
                let unregister = phone.register_draft("*").with("Expires", "0");
                assert_eq!(phone.ask(&unregister).status(), 200);
            }
        }
    }
}
