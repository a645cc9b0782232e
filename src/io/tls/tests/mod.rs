//! Whole sessions in memory: ours against ours, and ours against rustls' buffered connections and
//! against OpenSSL, which know nothing of this room. Here: what these tests have in common.

mod faults;
mod handshake;

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::client::Resumption;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, RootCertStore,
    SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use super::context::PROVIDER;
use super::*;
use crate::base::config::{Auth, Config, Listener, Node};
use crate::base::id::{ListenerId, Transport};

const WSS: ListenerId = ListenerId(1);
const VERSIONS: [(&SupportedProtocolVersion, &str); 2] = [(&TLS12, "TLSv1.2"), (&TLS13, "TLSv1.3")];
const CHUNKS: [usize; 4] = [1, 7, 2048, usize::MAX];
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Two certificates of one CA in files, and the material made from them: `edge` (edge.test,
/// *.wild.test) and `main`.
struct World {
    material: TlsMaterial,
    files: Vec<CertificateFiles>,
    ca: PathBuf,
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

    /// An established TLS 1.3 server session, and the client's keys.
    fn with_raw_client(&self) -> (Session, RawClient) {
        let mut config = (*self.client_config(&TLS13)).clone();
        config.enable_secret_extraction = true;
        let mut server = self.context().accept(WSS);
        let mut client = connect(&Arc::new(config), "localhost");
        meet(&mut server, &mut client, usize::MAX);
        let secrets = client.dangerous_extract_secrets().unwrap();
        (server, RawClient { up: Direction::new(secrets.tx), down: Direction::new(secrets.rx) })
    }

    fn buffered(&self, version: &'static SupportedProtocolVersion, name: &str) -> ClientConnection {
        connect(&self.client_config(version), name)
    }
}

/// A client that makes its TLS 1.3 records by hand (RFC 8446 §5.2), so that it can cut them as no
/// library would.
struct RawClient {
    up: Direction,
    down: Direction,
}

struct Direction {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl RawClient {
    fn seal(&mut self, content_type: u8, content: &[u8]) -> Vec<u8> {
        let mut inner = [content, &[content_type]].concat();
        let header = [23, 3, 3, 0, (inner.len() + AES_128_GCM.tag_len()) as u8];
        let nonce = self.up.nonce();
        self.up.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut inner).unwrap();
        [&header[..], &inner].concat()
    }

    /// The data in records of application data.
    fn open(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut got = Vec::new();
        while let Some((header, rest)) = bytes.split_first_chunk::<5>() {
            let (record, rest) = rest.split_at(usize::from(header[4]));
            let (mut record, nonce) = (record.to_vec(), self.down.nonce());
            let inner = self.down.key.open_in_place(nonce, Aad::from(header), &mut record).unwrap();
            got.extend_from_slice(inner.strip_suffix(&[23]).unwrap());
            bytes = rest;
        }
        got
    }
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Direction {
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
            panic!("our first suite is AES-128-GCM");
        };
        let key = UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap();
        Direction { key: LessSafeKey::new(key), iv: iv.as_ref().try_into().unwrap(), sequence }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, counter) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= counter;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
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
    let mut params = rcgen::CertificateParams::new(hosts).unwrap();
    // Another name than the issuer's, or OpenSSL takes it for self-signed.
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let cert = params.signed_by(&signing_key, issuer).unwrap();
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
        auth: Auth::default(),
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

/// Carries bytes between a session and a buffered client until both are silent; returns what the
/// session read.
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
