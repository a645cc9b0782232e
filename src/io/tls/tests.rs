//! Whole sessions in memory: ours against ours, and ours against rustls' buffered connections and against OpenSSL,
//! which know nothing of this room.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use super::context::PROVIDER;
use super::session::HELD_BYTES_MAX;
use super::*;
use crate::base::config::{Auth, Config, Listener, Node, Strangers};
use crate::base::id::{ListenerId, Transport};

const WSS: ListenerId = ListenerId(1);
const VERSIONS: [(&SupportedProtocolVersion, &str); 2] = [(&TLS12, "TLSv1.2"), (&TLS13, "TLSv1.3")];
const CHUNKS: [usize; 4] = [1, 7, 2048, usize::MAX];
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

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
        assert!(fed <= HELD_BYTES_MAX + 6);
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
        assert_eq!(heard, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
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
fn servers_with_the_wrong_ca_or_name_are_refused() {
    let world = World::new();
    let strangers = World::new();
    for (context, target, error, alert) in [
        (strangers.context(), "localhost", TlsError::UnknownIssuer, 48),
        (world.context(), "elsewhere.test", TlsError::WrongName, 42),
        (world.context(), "127.0.0.2", TlsError::WrongName, 42),
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
        let Progress::Failed(TlsError::Alert(number)) = heard else { panic!("{heard:?}") };
        assert!(number == alert || number == 46, "{number}");
    }
}

#[test]
fn what_cannot_be_connected_to_is_said_at_once() {
    let world = World::new();
    for name in ["a b", "-", "sip:example.com", "[::1", "x..y"] {
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

/// Two certificates of one CA in files, and the material made from them: `edge` (edge.test, *.wild.test) and `main`.
struct World {
    material: TlsMaterial,
    files: Vec<CertificateFiles>,
    ca: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = rcgen::CertifiedIssuer::self_signed(ca, ca_key).unwrap();
        let files = vec![
            issue(folder.path(), "edge", &["edge.test", "*.wild.test"], &issuer),
            issue(folder.path(), "main", &SELF_SIGNED_HOSTS, &issuer),
        ];
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, issuer.pem()).unwrap();
        let material = TlsMaterial::load(&files, Some(&ca)).unwrap();
        assert_eq!(material.warnings(), []);
        World { material, files, ca, _folder: folder }
    }

    fn context(&self) -> TlsContext {
        let listeners = [(Transport::Tls, None), (Transport::Wss, Some("main"))];
        TlsContext::new(&self.material, &config(&listeners)).unwrap()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca).unwrap()).unwrap();
        roots
    }

    fn client_config(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(8);
        Arc::new(config)
    }

    fn buffered(&self, version: &'static SupportedProtocolVersion, name: &str) -> ClientConnection {
        connect(&self.client_config(version), name)
    }
}

fn issue(
    folder: &Path,
    name: &str,
    hosts: &[&str],
    issuer: &rcgen::Issuer<'_, rcgen::KeyPair>,
) -> CertificateFiles {
    let hosts: Vec<String> = hosts.iter().map(|host| host.to_string()).collect();
    let signing_key = rcgen::KeyPair::generate().unwrap();
    let cert =
        rcgen::CertificateParams::new(hosts).unwrap().signed_by(&signing_key, issuer).unwrap();
    let files = CertificateFiles {
        name: name.into(),
        cert: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    };
    std::fs::write(&files.cert, cert.pem()).unwrap();
    std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    files
}

fn config(listeners: &[(Transport, Option<&str>)]) -> Config {
    let listener = |&(transport, certificate): &(Transport, Option<&str>)| Listener {
        transport,
        address: (LOCAL, 0).into(),
        advertise: None,
        path: "/".into(),
        origins: Vec::new(),
        certificate: certificate.map(String::from),
        tls_terminated_from: Vec::new(),
    };
    Config {
        node: Node { name: "edge".into(), domains: Vec::new() },
        listeners: listeners.iter().map(listener).collect(),
        registrar: Default::default(),
        auth: Auth { strangers: Strangers::Route },
        upstreams: Vec::new(),
        routes: Vec::new(),
        timers: Default::default(),
        limits: Default::default(),
    }
}

fn connect(config: &Arc<ClientConfig>, name: &str) -> ClientConnection {
    let name = ServerName::try_from(name).unwrap().to_owned();
    ClientConnection::new(Arc::clone(config), name).unwrap()
}

/// Both of our ends.
struct Pair {
    server: Session,
    client: Session,
}

impl Pair {
    fn new(context: &TlsContext, target: &str) -> Pair {
        Pair { server: context.accept(WSS), client: context.connect(target, LOCAL).unwrap() }
    }

    fn shake(&mut self, chunk: usize) -> (Progress, Progress) {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        let mut states = (Progress::Handshaking, self.client.start(&mut up));
        while !up.is_empty() || !down.is_empty() {
            let arrived = std::mem::take(&mut up);
            states.0 = feed(&mut self.server, &arrived, chunk, &mut down, &mut Vec::new());
            let arrived = std::mem::take(&mut down);
            states.1 = feed(&mut self.client, &arrived, chunk, &mut up, &mut Vec::new());
        }
        states
    }

    fn up(&mut self, data: &[u8], chunk: usize) -> Vec<u8> {
        exchange(&mut self.client, &mut self.server, data, chunk)
    }

    fn down(&mut self, data: &[u8], chunk: usize) -> Vec<u8> {
        exchange(&mut self.server, &mut self.client, data, chunk)
    }
}

fn exchange(from: &mut Session, to: &mut Session, data: &[u8], chunk: usize) -> Vec<u8> {
    let (mut sealed, mut out, mut got) = (Vec::new(), Vec::new(), Vec::new());
    from.seal(data, &mut sealed).unwrap();
    assert_eq!(feed(to, &sealed, chunk, &mut out, &mut got), Progress::Established);
    assert_eq!(out, b"");
    got
}

/// Feeds `bytes` in chunks.
fn feed(
    session: &mut Session,
    bytes: &[u8],
    chunk: usize,
    out: &mut Vec<u8>,
    got: &mut Vec<u8>,
) -> Progress {
    let mut progress = session.receive(&mut [], out, &mut |_| panic!("plaintext from nothing"));
    for piece in bytes.chunks(chunk) {
        progress = session.receive(&mut piece.to_vec(), out, &mut |plain| {
            got.extend_from_slice(plain);
            // As unmasking does: what is handed out may be written to.
            plain.fill(0xaa);
        });
    }
    progress
}

/// Carries bytes between a session and a buffered client until both are silent; returns what the session read.
fn meet(server: &mut Session, client: &mut ClientConnection, chunk: usize) -> Vec<u8> {
    let mut got = Vec::new();
    loop {
        let up = sent(client);
        let mut down = Vec::new();
        feed(server, &up, chunk, &mut down, &mut got);
        if up.is_empty() && down.is_empty() {
            return got;
        }
        to_client(client, &down);
    }
}

fn sent(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

fn to_client(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut got = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        let state = client.process_new_packets().unwrap();
        let start = got.len();
        got.resize(start + state.plaintext_bytes_to_read(), 0);
        client.reader().read_exact(&mut got[start..]).unwrap();
    }
    got
}

/// Bytes that do not repeat.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}
