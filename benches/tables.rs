//! What a message costs in the tables that every one of them passes, from a thousand entries to a
//! million: the server transaction of a request (name and look-up), the timers of a transaction,
//! and those that fire, in CPU time of this thread. Neither may grow with the table, apart from
//! what memory far away costs.

mod cpu;

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sipring::base::hash::{BuildHashed, KeyedHash};
use sipring::base::rng::Rng;
use sipring::base::slab::{Slab, SlabKey};
use sipring::base::time::Time;
use sipring::base::wheel::{TimerId, Wheel};
use sipring::sip::{Parsed, parse};
use sipring::transaction::{ServerKey, server_key};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Of a server transaction in the engine.
const TRANSACTION_BYTES: usize = 784;
/// How long a transaction lingers: Timers B, F, H and J, of 64·T1 (RFC 3261 §17).
const LINGER: Duration = Duration::from_secs(32);

/// The request of one phone of many; its branch has that number at a place that is returned, too.
fn request() -> (Vec<u8>, usize) {
    let text = "MESSAGE sip:bob@example.com SIP/2.0\r\n\
        Via: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bK00000000;rport\r\n\
        Max-Forwards: 70\r\nTo: <sip:bob@example.com>\r\nFrom: <sip:a@example.com>;tag=as58f4ae2b\r\n\
        Call-ID: 1b6aa6c0@198.51.100.7\r\nCSeq: 102 MESSAGE\r\nContent-Length: 0\r\n\r\n";
    (text.into(), text.find("00000000").expect("it is there"))
}

fn name(bytes: &mut [u8], at: usize, number: usize) {
    bytes[at..at + 8].copy_from_slice(format!("{number:08}").as_bytes());
}

/// RFC 3261 §17.2.3: a request's name, and its transaction by that; what is known, and what is new.
fn matching(c: &mut Criterion) {
    let hash = KeyedHash::new([7; 16]);
    let mut group = c.benchmark_group("match");
    for size in SIZES {
        let mut by_key: HashMap<ServerKey, SlabKey, BuildHashed> = HashMap::default();
        let mut transactions = Slab::new(size);
        let (mut bytes, at) = request();
        let mut parsed = Parsed::default();
        parse(&bytes, &mut parsed).expect("a good request");
        let mut key = |number: usize| {
            name(&mut bytes, at, number);
            let message = parsed.view(&bytes);
            server_key(&hash, message, message.method()).expect("it has a name")
        };
        for number in 0..size {
            let tx = transactions.insert([0u8; TRANSACTION_BYTES]).expect("there is room");
            by_key.insert(key(number), tx);
        }
        let mut rng = Rng::new([9; 32]);
        for (what, from, found) in [("known", 0, true), ("new", size, false)] {
            let keys: Vec<ServerKey> =
                (0..4096).map(|_| key(from + rng.below(size as u64) as usize)).collect();
            let mut keys = keys.iter().cycle();
            group.bench_function(BenchmarkId::new(what, size), |b| {
                cpu::iter(b, || {
                    let key = keys.next().expect("a cycle has no end");
                    let tx = by_key.get(black_box(key)).and_then(|tx| transactions.get(*tx));
                    assert_eq!(tx.map(|it| it[0]), found.then_some(0));
                });
            });
        }
    }
    group.finish();
}

/// Timers of which so many are armed: one armed and cancelled at once, as by an answer in time; and
/// one that fires, with the step of the clock and the new one in its place.
fn timers(c: &mut Criterion) {
    let mut group = c.benchmark_group("wheel");
    group.throughput(Throughput::Elements(1));
    for size in SIZES {
        let mut wheel: Wheel<u64> = Wheel::new(Time::ZERO);
        let mut rng = Rng::new([9; 32]);
        let step = LINGER / size as u32;
        let mut now = Time::ZERO;
        for number in 0..size as u64 {
            now += step;
            wheel.arm(now + LINGER, number);
        }
        group.bench_function(BenchmarkId::new("arm and cancel", size), |b| {
            cpu::iter(b, || {
                let after = Duration::from_micros(rng.below(LINGER.as_micros() as u64));
                let id: TimerId = wheel.arm(black_box(now + after), 1);
                assert!(wheel.cancel(id));
            });
        });
        let mut fired = 0u64;
        group.bench_function(BenchmarkId::new("fire and arm", size), |b| {
            cpu::iter(b, || {
                now += step;
                while let Some(number) = wheel.pop_expired(now) {
                    fired += 1;
                    wheel.arm(now + LINGER, number);
                }
            });
        });
        assert!(fired > 0, "the clock passed all of them");
    }
    group.finish();
}

criterion_group!(benches, matching, timers);
criterion_main!(benches);
