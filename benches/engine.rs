//! What a transaction costs without TLS and sockets: from frame or datagram in to frame or datagram
//! out (rooms 3 to 9). The aim: 3 µs for a forwarded transaction. Two shards run in this one
//! thread, so that their figure is the sum of both.

mod cpu;
#[path = "../tests/lab/mod.rs"]
mod lab;
mod stage;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use stage::Stage;
use stage::script::Play;
use stage::scripts;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Registered clients, a pair a transaction, one pair after the other.
const CLIENTS: usize = 1000;

fn transactions(c: &mut Criterion) {
    for shards in [1, 2] {
        let mut group = c.benchmark_group(format!("engine/{shards}"));
        for (name, script) in scripts::KINDS {
            let mut play = Play::new(Stage::new(shards), CLIENTS, &script());
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                cpu::iter(b, || play.round())
            });
        }
        group.finish();
    }
}

criterion_group!(benches, transactions);
criterion_main!(benches);
