//! What must fail, and how: garbage, truncation, forgery, closing, servers that are not who they
//! should be.

use std::io::Write;

use rustls::AlertDescription;

use super::*;
use crate::base::limits::TLS_HELD_BYTES_MAX;

#[test]
fn what_is_no_tls_fails_with_an_alert_and_stays_failed() {
    let world = World::new();
    let http = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n".to_vec();
    let bad_hello = [&[22, 3, 1, 0, 8, 1, 0, 0, 4][..], &[0xff; 4]].concat();
    // A second whole message behind the broken one: rustls remembers where it lay.
    let two_messages = [&[22, 3, 1, 0, 12, 1, 0, 0, 4][..], &[0xff; 4], &[20, 0, 0, 0]].concat();
    let oversized = vec![22, 3, 1, 0xff, 0xff, 1];
    for garbage in [http, noise(64, 9), bad_hello, two_messages, oversized] {
        for chunk in CHUNKS {
            let mut server = world.context().accept(WSS);
            let mut out = Vec::new();
            let progress = feed(&mut server, &garbage, chunk, &mut out, &mut Vec::new());
            let Progress::Failed(error) = progress else { panic!("{garbage:?}: {progress:?}") };
            assert!(matches!(error, TlsError::Malformed | TlsError::Misbehaved), "{error:?}");
            assert_eq!((out[0], out.len()), (21, 7), "one alert");
            assert_eq!(feed(&mut server, &garbage, chunk, &mut out, &mut Vec::new()), progress);
            assert_eq!(server.seal(b"x", &mut out), Err(error));
            server.close_notify(&mut out);
            assert_eq!((out.len(), server.held.capacity()), (7, 0));
        }
    }
}

#[test]
fn every_broken_byte_of_a_handshake_is_survived() {
    let world = World::new();
    let context = world.context();
    for (version, _) in VERSIONS {
        let hello = sent(&mut world.buffered(version, "localhost"));
        for position in 0..hello.len() {
            let mut broken = hello.clone();
            broken[position] ^= 0x55;
            let mut server = context.accept(WSS);
            let mut out = Vec::new();
            let progress = feed(&mut server, &broken, 64, &mut out, &mut Vec::new());
            assert_ne!(progress, Progress::Established, "{position}");
        }
    }
}

#[test]
fn a_truncated_handshake_waits_and_nothing_can_be_sealed() {
    let world = World::new();
    let context = world.context();
    let hello = sent(&mut world.buffered(&TLS13, "localhost"));
    for length in 0..hello.len() {
        let mut server = context.accept(WSS);
        let mut out = Vec::new();
        let progress = feed(&mut server, &hello[..length], usize::MAX, &mut out, &mut Vec::new());
        assert_eq!((progress, out.len(), server.held_bytes()), (Progress::Handshaking, 0, length));
        assert_eq!(server.seal(b"x", &mut out), Err(TlsError::Handshaking));
        server.close_notify(&mut out);
        assert_eq!(out, b"");
    }
}

#[test]
fn a_handshake_message_in_endless_pieces_is_refused() {
    let world = World::new();
    let mut server = world.context().accept(WSS);
    let mut out = Vec::new();
    let mut progress = server.receive(&mut [22, 3, 1, 0, 4, 1, 0, 0xff, 0], &mut out, &mut |_| {});
    let mut fed = 9;
    while progress == Progress::Handshaking {
        assert!(fed <= TLS_HELD_BYTES_MAX + 6);
        progress = server.receive(&mut [22, 3, 1, 0, 1, 0], &mut out, &mut |_| {});
        fed += 6;
    }
    assert_eq!(progress, Progress::Failed(TlsError::TooLarge));
}

#[test]
fn a_forged_record_fails_with_an_alert_that_the_peer_understands() {
    let world = World::new();
    for (version, name) in VERSIONS {
        let (mut server, mut client) =
            (world.context().accept(WSS), world.buffered(version, "localhost"));
        meet(&mut server, &mut client, usize::MAX);
        client.writer().write_all(b"first").unwrap();
        let good = sent(&mut client);
        client.writer().write_all(b"second").unwrap();
        let mut forged = sent(&mut client);
        *forged.last_mut().unwrap() ^= 1;
        let (mut out, mut got) = (Vec::new(), Vec::new());
        let progress = feed(&mut server, &[good, forged].concat(), usize::MAX, &mut out, &mut got);
        assert_eq!(
            (progress, &got[..]),
            (Progress::Failed(TlsError::Decrypt), &b"first"[..]),
            "{name}"
        );
        client.read_tls(&mut &out[..]).unwrap();
        let heard = client.process_new_packets().unwrap_err();
        assert_eq!(heard, Error::AlertReceived(AlertDescription::BadRecordMac));
    }
}

#[test]
fn close_notify_of_the_peer_ends_reading_only() {
    let world = World::new();
    for (version, _) in VERSIONS {
        for chunk in CHUNKS {
            let (mut server, mut client) =
                (world.context().accept(WSS), world.buffered(version, "localhost"));
            meet(&mut server, &mut client, chunk);
            client.writer().write_all(b"BYE").unwrap();
            client.send_close_notify();
            let (mut out, mut got) = (Vec::new(), Vec::new());
            let bytes = [sent(&mut client), noise(50, 5)].concat();
            assert_eq!(feed(&mut server, &bytes, chunk, &mut out, &mut got), Progress::PeerClosed);
            assert_eq!((&got[..], out.len(), server.held_bytes()), (&b"BYE"[..], 0, 0));

            server.seal(b"200 OK", &mut out).unwrap();
            server.close_notify(&mut out);
            assert_eq!(server.seal(b"late", &mut out), Err(TlsError::Closed));
            let length = out.len();
            server.close_notify(&mut out);
            assert_eq!(out.len(), length, "close_notify is sent once");
            assert_eq!(to_client(&mut client, &out), b"200 OK");
            assert!(client.process_new_packets().unwrap().peer_has_closed());
        }
    }
}

#[test]
fn nothing_is_read_after_our_close_notify() {
    let world = World::new();
    let (mut server, mut client) =
        (world.context().accept(WSS), world.buffered(&TLS13, "localhost"));
    meet(&mut server, &mut client, usize::MAX);
    let mut out = Vec::new();
    server.close_notify(&mut out);
    let mut got = Vec::new();
    assert_eq!(feed(&mut server, &noise(99, 6), 10, &mut out, &mut got), Progress::PeerClosed);
    assert_eq!(got, b"");
}

#[test]
fn sealing_amid_a_record_that_has_not_arrived_whole_works() {
    let world = World::new();
    let (mut server, mut client) =
        (world.context().accept(WSS), world.buffered(&TLS13, "localhost"));
    meet(&mut server, &mut client, usize::MAX);
    client.writer().write_all(b"question").unwrap();
    let bytes = sent(&mut client);
    for cut in 0..bytes.len() {
        let (mut out, mut got) = (Vec::new(), Vec::new());
        if cut == 0 {
            continue;
        }
        feed(&mut server, &bytes[cut - 1..cut], usize::MAX, &mut out, &mut got);
        assert_eq!((got.len(), server.held_bytes()), (0, cut));
        server.seal(b"answer", &mut out).unwrap();
        assert_eq!(to_client(&mut client, &out), b"answer");
    }
    let (mut out, mut got) = (Vec::new(), Vec::new());
    feed(&mut server, &bytes[bytes.len() - 1..], usize::MAX, &mut out, &mut got);
    assert_eq!(got, b"question");
}

#[test]
fn sealing_amid_a_handshake_message_that_goes_on_in_the_next_record_works() {
    let world = World::new();
    let (mut server, mut client) = world.with_raw_client();
    // A KeyUpdate (RFC 8446 §4.6.3) cut after its type and the first byte of its length.
    let (head, tail) = (client.seal(22, &[24, 0]), client.seal(22, &[0, 1, 0]));
    let (mut out, mut got) = (Vec::new(), Vec::new());
    let progress = feed(&mut server, &head, 9, &mut out, &mut got);
    assert_eq!((progress, server.held_bytes()), (Progress::Established, head.len()));
    server.seal(b"amid", &mut out).unwrap();
    let progress = feed(&mut server, &tail, 9, &mut out, &mut got);
    assert_eq!((progress, server.held_bytes()), (Progress::Established, 0));
    server.seal(b" and after", &mut out).unwrap();
    assert_eq!(client.open(&out), b"amid and after");
}

#[test]
fn data_between_the_parts_of_a_handshake_message_ends_the_session() {
    let world = World::new();
    let (mut server, mut client) = world.with_raw_client();
    let bytes = [client.seal(22, &[24, 0]), client.seal(23, b"data")].concat();
    let (mut out, mut got) = (Vec::new(), Vec::new());
    let progress = feed(&mut server, &bytes, 9, &mut out, &mut got);
    assert_eq!((progress, &got[..]), (Progress::Failed(TlsError::Misbehaved), &b""[..]));
    assert_eq!((server.held_bytes(), server.seal(b"x", &mut out)), (0, Err(TlsError::Misbehaved)));
}

#[test]
fn servers_with_the_wrong_ca_or_name_are_refused() {
    let world = World::new();
    let strangers = World::new();
    let elsewhere = TlsMaterial::self_signed("main", &["localhost".into()]).unwrap();
    let elsewhere = TlsContext::new(&elsewhere, &config(&[(Transport::Tls, None); 2])).unwrap();
    for (context, target, error) in [
        (strangers.context(), "localhost", TlsError::UnknownIssuer),
        (elsewhere, "localhost", TlsError::UnknownIssuer),
        (world.context(), "elsewhere.test", TlsError::WrongName),
        (world.context(), "127.0.0.2", TlsError::WrongName),
    ] {
        let mut server = context.accept(WSS);
        let mut client = world.context().connect(target, LOCAL).unwrap();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        client.start(&mut up);
        server.receive(&mut up, &mut down, &mut |_| {});
        up.clear();
        let progress = client.receive(&mut down, &mut up, &mut |_| {});
        assert_eq!(progress, Progress::Failed(error), "{target}");
        let heard = server.receive(&mut up, &mut down, &mut |_| {});
        assert!(matches!(heard, Progress::Failed(TlsError::Alert(_))), "{heard:?}");
    }
}

#[test]
fn what_cannot_be_connected_to_is_said_at_once() {
    let world = World::new();
    for name in ["a b", "-", "sip:example.com", "[::1", "x..y", "."] {
        assert_eq!(
            world.context().connect(name, LOCAL).err(),
            Some(TlsError::BadServerName),
            "{name}"
        );
    }
    let mut rootless = World::new();
    rootless.material.roots = Arc::new(RootCertStore::empty());
    assert_eq!(rootless.context().connect("localhost", LOCAL).err(), Some(TlsError::NoRoots));
}

#[test]
fn a_context_needs_the_certificates_that_its_listeners_name() {
    let world = World::new();
    let error = |material: &TlsMaterial, certificate: Option<&str>| {
        let config = config(&[(Transport::Udp, None), (Transport::Wss, certificate)]);
        TlsContext::new(material, &config).err().map(|error| error.to_string())
    };
    assert_eq!(error(&world.material, Some("main")), None);
    assert_eq!(error(&world.material, None), None);
    assert!(error(&world.material, Some("none")).unwrap().contains("named \"none\""));
    let empty = TlsMaterial::load(&[], Some(&world.ca)).unwrap();
    assert!(error(&empty, None).unwrap().contains("needs a certificate"));
}
