//! What must work: both versions, every chunking, resumption, the choice of certificates, key
//! updates.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use super::*;

#[test]
fn both_versions_work_in_every_chunking_with_a_buffered_peer() {
    let world = World::new();
    for (version, name) in VERSIONS {
        for chunk in CHUNKS {
            let mut server = world.context().accept(WSS);
            let mut client = world.buffered(version, "localhost");
            let got = meet(&mut server, &mut client, chunk);
            assert_eq!(got, b"", "{name} {chunk}");
            assert_eq!((server.version(), server.sni()), (Some(name), Some("localhost")));
            assert!(!server.is_handshaking() && !client.is_handshaking());

            client.writer().write_all(b"REGISTER").unwrap();
            let mut out = Vec::new();
            server.seal(b"200 OK", &mut out).unwrap();
            assert_eq!(to_client(&mut client, &out), b"200 OK");
            assert_eq!(meet(&mut server, &mut client, chunk), b"REGISTER", "{name} {chunk}");
            assert_eq!(server.held.capacity(), 0, "an idle session holds no block");
        }
    }
}

#[test]
fn our_client_and_our_server_understand_each_other() {
    let world = World::new();
    let context = world.context();
    for (target, sni) in
        [("localhost", Some("localhost")), ("127.0.0.1", None), ("[::1]", None), ("", None)]
    {
        for chunk in CHUNKS {
            let mut pair = Pair::new(&context, target);
            assert_eq!(
                pair.shake(chunk),
                (Progress::Established, Progress::Established),
                "{target}"
            );
            assert_eq!(pair.server.sni(), sni);
            let (up, down) = (noise(700, 1), noise(700, 2));
            assert_eq!(pair.up(&up, chunk), up);
            assert_eq!(pair.down(&down, chunk), down);
        }
    }
}

#[test]
fn big_payloads_cross_in_odd_pieces_both_ways() {
    let world = World::new();
    let context = world.context();
    for chunk in [4097, 16_384 + 22, 65_537, usize::MAX] {
        let mut pair = Pair::new(&context, "example.com");
        pair.shake(usize::MAX);
        let (up, down) = (noise(200_000, 3), noise(200_001, 4));
        assert_eq!(pair.up(&up, chunk), up);
        assert_eq!(pair.down(&down, chunk), down);
        assert_eq!(pair.server.held_bytes() + pair.client.held_bytes(), 0);
    }
}

#[test]
fn a_client_resumes_at_another_shard() {
    let world = World::new();
    for (version, name) in VERSIONS {
        let config = world.client_config(version);
        let shards = [world.context(), world.context()];
        for (context, resumed) in [(&shards[0], false), (&shards[1], true), (&shards[0], true)] {
            let mut server = context.accept(WSS);
            let mut client = connect(&config, "localhost");
            meet(&mut server, &mut client, usize::MAX);
            assert_eq!(server.is_resumed(), resumed, "{name}");
            assert_eq!(server.sni(), Some("localhost"));
            assert_eq!(client.tls13_tickets_received(), u32::from(name == "TLSv1.3"));
        }
    }
}

#[test]
fn tickets_outlive_one_rotation_and_a_reload_that_keeps_them() {
    let mut world = World::new();
    let config = world.client_config(&TLS13);
    let resumed = |world: &World| {
        let mut server = world.context().accept(WSS);
        meet(&mut server, &mut connect(&config, "localhost"), usize::MAX);
        server.is_resumed()
    };
    assert!(!resumed(&world));
    world.material.rotate_tickets().unwrap();
    assert!(resumed(&world));
    let mut reloaded = TlsMaterial::load(&world.files, Some(&world.ca)).unwrap();
    reloaded.keep_tickets_of(&world.material);
    world.material = reloaded;
    assert!(resumed(&world));
    world.material.rotate_tickets().unwrap();
    world.material.rotate_tickets().unwrap();
    assert!(!resumed(&world));
}

#[test]
fn the_certificate_follows_the_name_asked_for() {
    let world = World::new();
    let context = world.context();
    // Listener 0 shows `edge` by default, listener 1 `main`.
    for (listener, asked, shown) in [
        (ListenerId(0), "edge.test", 0),
        (ListenerId(1), "edge.test", 0),
        (ListenerId(1), "any.wild.test", 0),
        (ListenerId(1), "localhost", 1),
        (ListenerId(1), "127.0.0.1", 1),
        (ListenerId(0), "localhost", 1),
    ] {
        let mut client = world.buffered(&TLS13, asked);
        meet(&mut context.accept(listener), &mut client, usize::MAX);
        let own = &client.peer_certificates().unwrap()[0];
        assert_eq!(own, &world.material.certificates[shown].key.cert[0], "{listener:?} {asked}");
    }
}

#[test]
fn a_name_of_one_client_is_never_taken_for_anothers() {
    let world = World::new();
    let context = world.context();
    let mut named = context.accept(WSS);
    let mut nameless = context.accept(WSS);
    let mut out = Vec::new();
    let mut first = sent(&mut world.buffered(&TLS13, "localhost"));
    let mut second = sent(&mut world.buffered(&TLS13, "127.0.0.1"));
    let (head, tail) = second.split_at_mut(40);
    nameless.receive(head, &mut out, &mut |_| {});
    named.receive(&mut first, &mut out, &mut |_| {});
    nameless.receive(tail, &mut out, &mut |_| {});
    assert_eq!((named.sni(), nameless.sni()), (Some("localhost"), None));
}

#[test]
fn a_hello_that_is_cut_into_many_records_is_put_together() {
    let world = World::new();
    for (version, name) in VERSIONS {
        for chunk in CHUNKS {
            let mut config = (*world.client_config(version)).clone();
            config.max_fragment_size = Some(40);
            let mut server = world.context().accept(WSS);
            let mut client = connect(&Arc::new(config), "localhost");
            client.writer().write_all(&noise(300, 7)).unwrap();
            let got = meet(&mut server, &mut client, chunk);
            assert_eq!(got, noise(300, 7), "{name} {chunk}");
            assert_eq!((server.sni(), server.held_bytes()), (Some("localhost"), 0));
        }
    }
}

#[test]
fn clients_with_any_alpn_or_none_are_served() {
    let world = World::new();
    for offer in
        [&[][..], &["http/1.1"], &["http/1.1", "h2"], &["h2", "http/1.1"], &["sip"], &["sip/2"]]
    {
        let mut config = (*world.client_config(&TLS13)).clone();
        config.alpn_protocols = offer.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut server = world.context().accept(WSS);
        meet(&mut server, &mut connect(&Arc::new(config), "localhost"), usize::MAX);
        assert!(!server.is_handshaking(), "{offer:?}");
    }
}

#[test]
fn a_client_that_offers_another_group_first_is_served() {
    let world = World::new();
    for group in &PROVIDER.kx_groups {
        let mut provider = (**PROVIDER).clone();
        provider.kx_groups = vec![*group];
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(world.roots())
            .with_no_client_auth();
        let mut server = world.context().accept(WSS);
        meet(&mut server, &mut connect(&Arc::new(config), "localhost"), 100);
        assert!(!server.is_handshaking(), "{:?}", group.name());
    }
}

#[test]
fn a_key_update_is_followed_and_answered_in_front_of_the_next_data() {
    let world = World::new();
    for chunk in CHUNKS {
        let (mut server, mut client) =
            (world.context().accept(WSS), world.buffered(&TLS13, "localhost"));
        meet(&mut server, &mut client, usize::MAX);
        for round in 0..3 {
            client.refresh_traffic_keys().unwrap();
            client.writer().write_all(b"after").unwrap();
            assert_eq!(meet(&mut server, &mut client, chunk), b"after", "{round}");
            let mut out = Vec::new();
            server.seal(b"answer", &mut out).unwrap();
            assert!(out.len() > 6 + 22, "the answer rides in front");
            assert_eq!(to_client(&mut client, &out), b"answer");
        }
    }
}

#[test]
#[ignore = "runs the openssl command"]
fn openssl_connects_with_both_versions_and_resumes() {
    let world = World::new();
    let context = world.context();
    for (flag, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let ticket = world.ca.with_file_name(format!("ticket{flag}"));
        for (session, resumed) in [("-sess_out", false), ("-sess_in", true)] {
            let listener = TcpListener::bind((LOCAL, 0)).unwrap();
            let mut openssl = Command::new("openssl")
                .args([
                    "s_client",
                    "-quiet",
                    "-verify_return_error",
                    "-servername",
                    "localhost",
                    flag,
                ])
                .arg("-CAfile")
                .arg(&world.ca)
                .arg(session)
                .arg(&ticket)
                .args(["-connect", &listener.local_addr().unwrap().to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            openssl.stdin.as_mut().unwrap().write_all(b"ping").unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let (mut server, mut got) = (context.accept(WSS), Vec::new());
            while got != b"ping" {
                let (mut bytes, mut out) = ([0; 2048], Vec::new());
                let read = stream.read(&mut bytes).unwrap();
                assert_ne!(read, 0, "{name}");
                feed(&mut server, &bytes[..read], usize::MAX, &mut out, &mut got);
                stream.write_all(&out).unwrap();
            }
            let mut out = Vec::new();
            server.seal(b"pong", &mut out).unwrap();
            server.close_notify(&mut out);
            stream.write_all(&out).unwrap();
            drop(openssl.stdin.take());
            assert_eq!(openssl.wait_with_output().unwrap().stdout, b"pong");
            assert_eq!((server.version(), server.is_resumed()), (Some(name), resumed));
        }
    }
}
