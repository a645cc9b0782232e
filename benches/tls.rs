//! What TLS costs: the server's CPU time of a full and of a resumed handshake, of sealing and
//! opening one record of 650 bytes, and (printed first) the memory of an idle established server
//! session, AWS-LC's part included.

#![allow(missing_docs)]

use std::hint::black_box;
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use sipring::base::config::{Auth, Config, Listener, Node};
use sipring::base::id::{ListenerId, Transport};
use sipring::io::tls::{Session, TlsContext, TlsMaterial};

const MESSAGE_BYTES: usize = 650;
/// Records between two looks at the clock.
const BATCH: usize = 64;
const IDLE_SESSIONS: usize = 1000;
const WSS: ListenerId = ListenerId(0);

fn handshakes(c: &mut Criterion) {
    let world = World::new();
    let mut group = c.benchmark_group("tls_handshake_server");
    for (version, name) in [(&TLS13, "1.3"), (&TLS12, "1.2")] {
        for (kind, resumption) in
            [("full", Resumption::disabled()), ("resumed", Resumption::in_memory_sessions(8))]
        {
            let client = world.client(version, resumption);
            world.handshake(&client);
            group.bench_function(format!("{kind}_{name}"), |b| {
                b.iter_custom(|rounds| (0..rounds).map(|_| world.handshake(&client).1).sum());
            });
            let (server, _, _) = world.handshake(&client);
            assert_eq!(server.is_resumed(), kind == "resumed");
        }
    }
    group.finish();
}

fn records(c: &mut Criterion) {
    let world = World::new();
    let client = world.client(&TLS13, Resumption::disabled());
    let message = [b'x'; MESSAGE_BYTES];
    let mut group = c.benchmark_group("tls_record_650");
    group.throughput(Throughput::Elements(1));

    let (mut server, _, mut client) = world.handshake(&client);
    let mut out = Vec::new();
    group.bench_function("seal", |b| {
        b.iter_custom(|rounds| {
            let begun = cpu_time();
            for _ in 0..rounds {
                out.clear();
                server.seal(black_box(&message), &mut out).unwrap();
            }
            cpu_time() - begun
        });
    });

    group.bench_function("open", |b| {
        b.iter_custom(|rounds| {
            let (mut spent, mut opened, mut out) = (Duration::ZERO, 0, Vec::new());
            // In batches, because asking for the CPU time costs as much as opening a record.
            let mut left = rounds as usize;
            while left > 0 {
                let mut batch: Vec<Vec<u8>> = (0..left.min(BATCH))
                    .map(|_| {
                        let mut record = Vec::new();
                        client.writer().write_all(&message).unwrap();
                        client.write_tls(&mut record).unwrap();
                        record
                    })
                    .collect();
                left -= batch.len();
                let begun = cpu_time();
                for record in &mut batch {
                    server.receive(record, &mut out, &mut |plain| opened += plain.len());
                }
                spent += cpu_time() - begun;
            }
            assert_eq!(opened, MESSAGE_BYTES * rounds as usize);
            spent
        });
    });
    group.finish();
}

fn memory(_: &mut Criterion) {
    let world = World::new();
    for (version, name) in [(&TLS13, "1.3"), (&TLS12, "1.2")] {
        let client = world.client(version, Resumption::disabled());
        let mut sessions: Vec<Session> = Vec::with_capacity(2 * IDLE_SESSIONS);
        let mut fill = || {
            // The clients' ends are dropped at once, so that only ours are counted.
            sessions.extend((0..IDLE_SESSIONS).map(|_| world.handshake(&client).0));
            in_use()
        };
        let before = fill();
        let bytes = (fill() - before) / IDLE_SESSIONS;
        let inline = size_of::<Session>();
        println!("idle server session, TLS {name}: {bytes} bytes on the heap + {inline} inline");
    }
}

/// What this thread has computed, whatever else the machine does.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[allow(unsafe_code)]
    // SAFETY: the pointer is to a timespec that lives through the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Bytes that the C library's allocator has given out.
fn in_use() -> usize {
    #[allow(unsafe_code)]
    // SAFETY: mallinfo2 has no preconditions; it reads the allocator's own counters.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

struct World {
    context: TlsContext,
    roots: Arc<RootCertStore>,
}

impl World {
    fn new() -> World {
        let made = TlsMaterial::self_signed("default", &[]).unwrap();
        let pem = made.certificate_pem().unwrap().as_bytes().to_vec();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
        let listener = Listener {
            transport: Transport::Wss,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            advertise: None,
            path: "/".into(),
            origins: Vec::new(),
            certificate: None,
            tls_terminated_from: Vec::new(),
        };
        let config = Config {
            node: Node { name: "edge".into(), domains: Vec::new() },
            listeners: vec![listener],
            registrar: Default::default(),
            auth: Auth::default(),
            upstreams: Vec::new(),
            routes: Vec::new(),
            timers: Default::default(),
            limits: Default::default(),
        };
        let context = TlsContext::new(&made, &config).unwrap();
        World { context, roots: Arc::new(roots) }
    }

    fn client(
        &self,
        version: &'static SupportedProtocolVersion,
        resumption: Resumption,
    ) -> Arc<ClientConfig> {
        let provider = CryptoProvider {
            kx_groups: vec![kx_group::X25519],
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ],
            ..default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.resumption = resumption;
        Arc::new(config)
    }

    /// One handshake, and the time that our side of it took.
    fn handshake(&self, config: &Arc<ClientConfig>) -> (Session, Duration, ClientConnection) {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
        let begun = cpu_time();
        let mut server = self.context.accept(WSS);
        let mut spent = cpu_time() - begun;
        loop {
            let (mut up, mut down) = (Vec::new(), Vec::new());
            while client.wants_write() {
                client.write_tls(&mut up).unwrap();
            }
            let begun = cpu_time();
            server.receive(&mut up, &mut down, &mut |_| {});
            spent += cpu_time() - begun;
            if up.is_empty() && down.is_empty() {
                assert!(!server.is_handshaking());
                return (server, spent, client);
            }
            let mut arrived = &down[..];
            while !arrived.is_empty() {
                client.read_tls(&mut arrived).unwrap();
                client.process_new_packets().unwrap();
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1));
    targets = memory, handshakes, records
}
criterion_main!(benches);
