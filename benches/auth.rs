//! What a password costs: one check of credentials (right, wrong, and of a user whom nobody knows:
//! the last two must not be told apart), one challenge, a whole REGISTER with and without, the
//! reading of a large users file, and a token that is new. The aim: 1 µs more for MD5.

mod cpu;
#[path = "../tests/lab/mod.rs"]
mod lab;
mod stage;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use lab::digest::{Challenge, Response, Settings, with_digest};
use lab::jwt::{ISSUED, Signer, bearer, claims};
use sipring::auth::users::{self, Rules};
use sipring::auth::{self, Circumstances, Verdict, Verifier, jwt};
use sipring::base::config::Config;
use sipring::base::id::{FlowId, FlowRef, ListenerId, ShardId, StreamPath, Transport};
use sipring::base::time::Time;
use sipring::base::users::Algorithm;
use sipring::sip::{HeaderName, Parsed, parse};
use stage::password::{Passwords, Proof};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Users in the file.
const USERS: usize = 10_000;
/// Registered clients, one after the other.
const CLIENTS: usize = 1000;

fn source() -> FlowRef {
    let flow = FlowId::new(ShardId(0), 1, 1);
    FlowRef::Stream(StreamPath { flow, transport: Transport::Wss, listener: ListenerId(0) })
}

fn now() -> Time {
    Time::ZERO + Duration::from_secs(100)
}

fn challenge(verifier: &Verifier, config: &Config, message: &[u8]) -> Vec<u8> {
    let mut parsed = Parsed::default();
    parse(message, &mut parsed).expect("a message");
    let digest = config.auth.digest().expect("it is on");
    let name = HeaderName::WwwAuthenticate;
    let about = auth::Challenge { name, stale: false, now: now(), random: 7, to: source() };
    let mut lines = Vec::new();
    verifier.challenge(config, digest, parsed.view(message), &about, &mut lines);
    lines
}

/// A REGISTER of `user` with credentials for the algorithm.
fn request(lines: &[u8], user: &str, password: &str, algorithm: &str) -> Vec<u8> {
    let answer = [b"SIP/2.0 401 Unauthorized\r\n", lines, b"\r\n"].concat();
    let challenges = Challenge::all(&lab::text::Sip::read(&answer));
    let challenge = challenges.into_iter().find(|it| it.algorithm == algorithm);
    let challenge = challenge.expect("it is offered");
    let response = Response::new(&challenge, (user, password), "REGISTER", "sip:example.com");
    let line = format!("Authorization: {}\r\nExpires:", response.value());
    stage::script::register()
        .replace("Expires:", &line)
        .replace("{a}", user)
        .replace("{n}", "1000000000")
        .into_bytes()
}

fn checks(c: &mut Criterion) {
    let users: String = (0..USERS).map(|user| format!("user{user:05}:secret\n")).collect();
    let config = with_digest(lab::config(), &Settings { users: &users, ..Settings::default() });
    let digest = config.auth.digest().expect("it is on");
    let mut verifier = Verifier::new(&[9; 32], 1, Time::ZERO);
    let circumstances =
        Circumstances { unix: 0, now: now(), source: source(), shared: false, put_off: false };
    let plain = request(&challenge(&verifier, &config, PLAIN), "user00042", "secret", "MD5");
    let lines = challenge(&verifier, &config, &plain);
    for algorithm in ["MD5", "SHA-256"] {
        let mut group = c.benchmark_group(format!("check/{algorithm}"));
        for (name, user, password) in [
            ("right", "user00042", "secret"),
            ("wrong password", "user00042", "guess!"),
            ("unknown user", "nobody042", "secret"),
        ] {
            let message = request(&lines, user, password, algorithm);
            let mut parsed = Parsed::default();
            parse(&message, &mut parsed).expect("a message");
            let view = parsed.view(&message);
            let expected = name == "right";
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                cpu::iter(b, || {
                    let (verdict, _) =
                        verifier.judge(&config, digest, black_box(view), &circumstances);
                    assert_eq!(matches!(verdict, Verdict::Proven(..)), expected);
                    assert!(expected || verdict == Verdict::Refused);
                })
            });
        }
        group.finish();
    }
    let mut parsed = Parsed::default();
    parse(&plain, &mut parsed).expect("a message");
    let name = HeaderName::WwwAuthenticate;
    let about = auth::Challenge { name, stale: false, now: now(), random: 7, to: source() };
    let mut lines = Vec::new();
    c.bench_function("challenge", |b| {
        cpu::iter(b, || {
            lines.clear();
            verifier.challenge(&config, digest, parsed.view(&plain), black_box(&about), &mut lines);
        })
    });
}

/// Whoever is challenged first says who it is only by its To.
const PLAIN: &[u8] = b"REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/WSS h;branch=z9hG4bK1\r\n\
    From: <sip:a@example.com>;tag=1\r\nTo: <sip:a@example.com>\r\nCall-ID: 1\r\n\
    CSeq: 1 REGISTER\r\n\r\n";

fn registrations(c: &mut Criterion) {
    for shards in [1, 2] {
        let mut group = c.benchmark_group(format!("register again/{shards}"));
        for (name, proof) in [
            ("nobody asks", Proof::None),
            ("flow", Proof::Flow),
            ("MD5", Proof::Digest(1)),
            ("SHA-256", Proof::Digest(0)),
            ("token", Proof::Token),
        ] {
            let mut play = Passwords::new(shards, CLIENTS, proof);
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                cpu::iter(b, || play.round())
            });
        }
        group.finish();
    }
}

/// Users of the large file.
const MANY: usize = 100_000;

/// The file as `[auth]` reads it at start: with passwords, which are hashed for each algorithm and
/// form of the username, and with the hashes in their place.
fn files(c: &mut Criterion) {
    let ha1 = ["0123456789abcdef"; 2].concat();
    let hashes = format!("example.com:{ha1}:{ha1}{ha1}");
    let domains = ["example.com".to_owned()];
    let algorithms = ["SHA-256", "MD5"].map(|it| Algorithm::of_name(it.as_bytes()).expect("one"));
    let rules = Rules { domains: &domains, realm: None, algorithms: &algorithms };
    let mut group = c.benchmark_group("users file");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for (name, secret) in [("passwords", "a long enough password"), ("hashes", &hashes)] {
        let text: String =
            (0..MANY).map(|user| format!("user{user:06}@example.com:{secret}\n")).collect();
        group.bench_function(BenchmarkId::new(name, MANY), |b| {
            cpu::iter(b, || {
                let (users, faults) = users::parse(black_box(&text), &rules);
                assert_eq!((users.len(), faults.len()), (MANY, 0));
            })
        });
    }
    group.finish();
}

/// A token that nobody has seen before: what it says, and its signature.
fn tokens(c: &mut Criterion) {
    let mut group = c.benchmark_group("token");
    for (algorithm, signer) in
        [("EdDSA", Signer::ed25519()), ("ES256", Signer::p256()), ("RS256", Signer::rsa())]
    {
        let settings = bearer(&format!("{{\"keys\":[{}]}}", signer.jwk("k")));
        let token = signer.sign(algorithm, "k", &claims("alice", ISSUED + 100));
        let config = lab::config();
        group.bench_function(BenchmarkId::from_parameter(algorithm), |b| {
            cpu::iter(b, || {
                let found = jwt::read(black_box(token.as_bytes()), &settings, &config, ISSUED);
                assert!(found.is_ok_and(|found| found.is_signed()));
            })
        });
    }
    group.finish();
}

criterion_group!(benches, checks, registrations, files, tokens);
criterion_main!(benches);
