//! Connections that a server behind us made and lets us use (RFC 5923): TLS, `alias` in its Via, its
//! own address; nothing else.

use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, Lab, user_of};

/// The server speaks first, on its own connection, to a user of every shard, so that all of them
/// know it.
fn introduced(lab: &mut Lab, shards: u16, server: &Phone, sent_by: &str, params: &str) {
    for shard in 0..shards {
        let serial = lab.serial();
        let name = server.transport.via_name();
        let via = format!("Via: SIP/2.0/{name} {sent_by};branch=z9hG4bKs{serial}{params}");
        let uri = format!("sip:{}@example.com", user_of(shard, shards, 0));
        let draft = request(server, "MESSAGE", &uri, &format!("s{serial}")).vias(&[&via]);
        server.send(lab, &draft.text());
        assert_eq!(server.take(lab).len(), 1);
    }
}

/// Whether a request toward the upstream is written to the server's own connection.
fn is_used(lab: &mut Lab, client: &Phone, server: &Phone) -> bool {
    let name = format!("m{}", lab.serial());
    let draft = request(client, "MESSAGE", "sip:911@example.com", &name);
    client.send(lab, &draft.text());
    let got = server.take(lab);
    for request in &got {
        server.send(lab, &request.response(200, "s", &[]));
        client.take_status(lab, 200);
    }
    if got.is_empty() {
        assert_eq!(lab.opens.len(), 1);
        lab.refuse_open(0);
        client.take_status(lab, 500);
    }
    !got.is_empty()
}

#[test]
fn a_connection_is_used_both_ways_when_all_speaks_for_it() {
    for shards in 1..=3 {
        for flow in 0..shards {
            for (transport, remote, sent_by, params, used) in [
                (Transport::Tls, "198.51.100.7:40000", "198.51.100.7:5060", ";alias", true),
                (Transport::Tls, "198.51.100.7:40000", "core.test:5060", ";ALIAS;x=1", true),
                // Not asked for, another port, another host of the network.
                (Transport::Tls, "198.51.100.7:40000", "198.51.100.7:5060", "", false),
                (Transport::Tls, "198.51.100.7:40000", "198.51.100.7:5099", ";alias", false),
                (Transport::Tls, "198.51.100.8:40000", "198.51.100.7:5060", ";alias", false),
                // No upstream, no TLS.
                (Transport::Tls, "203.0.113.66:40000", "198.51.100.7:5060", ";alias", false),
                (Transport::Tcp, "198.51.100.7:40000", "198.51.100.7:5060", ";alias", false),
                (Transport::Wss, "198.51.100.7:40000", "198.51.100.7:5060", ";alias", false),
            ] {
                let by = if transport == Transport::Tcp { transport } else { Transport::Tls };
                let mut lab = Lab::new(shards, lab::config_by(by));
                let client = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
                let server = Phone::connect(&mut lab, flow, transport, remote);
                introduced(&mut lab, shards, &server, sent_by, params);
                assert_eq!(is_used(&mut lab, &client, &server), used, "{sent_by}{params}");
                lab.finish();
            }
        }
    }
}

#[test]
fn a_connection_that_ends_is_forgotten() {
    for shards in 1..=3 {
        let mut lab = Lab::new(shards, lab::config_by(Transport::Tls));
        let client = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        let server = Phone::connect(&mut lab, shards - 1, Transport::Tls, "198.51.100.7:40000");
        introduced(&mut lab, shards, &server, "198.51.100.7:5060", ";alias");
        assert!(is_used(&mut lab, &client, &server));
        server.leave(&mut lab, CloseReason::Peer);
        let draft = request(&client, "MESSAGE", "sip:911@example.com", "after");
        client.send(&mut lab, &draft.text());
        assert_eq!(lab.opens.len(), 1, "one of ours is made");
        lab.finish();
    }
}
