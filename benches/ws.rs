//! WebSocket: headers, masking, UTF-8, and a client's frame from bytes to message.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sipring::base::buf::Pool;
use sipring::ws::assemble::{Event, Receiver};
use sipring::ws::frame::{HeaderBytes, Opcode, decode_header};
use sipring::ws::mask::unmask;

/// A keep-alive, a typical SIP message, the largest.
const SIZES: [usize; 3] = [64, 650, 64 * 1024];

/// A client's text frame. Its mask is zero, which costs what any mask costs and leaves the frame as
/// it is, so that it can be fed again.
fn frame(payload_len: usize) -> Vec<u8> {
    let mut frame = HeaderBytes::new(Opcode::Text, payload_len).as_bytes().to_vec();
    frame[1] |= 0x80;
    frame.extend_from_slice(&[0; 4]);
    frame.extend((0..payload_len).map(|i| b' ' + (i % 90) as u8));
    frame
}

fn header(c: &mut Criterion) {
    let mut group = c.benchmark_group("ws/header");
    for size in SIZES {
        let frame = frame(size);
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("decode", size), |b| {
            b.iter(|| decode_header(black_box(&frame)));
        });
    }
    group.finish();
}

fn mask(c: &mut Criterion) {
    let mut group = c.benchmark_group("ws/unmask");
    for size in SIZES {
        let mut bytes = vec![7; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| unmask(black_box([1, 2, 3, 4]), 0, black_box(&mut bytes)));
        });
    }
    group.finish();
}

fn utf8(c: &mut Criterion) {
    let mut group = c.benchmark_group("ws/utf8");
    for size in SIZES {
        let frame = frame(size);
        let text = &frame[frame.len() - size..];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| simdutf8::basic::from_utf8(black_box(text)).is_ok());
        });
    }
    group.finish();
}

/// From bytes to a message: the frame at once, and cut in two as by the end of a TLS record.
fn receive(c: &mut Criterion) {
    let mut group = c.benchmark_group("ws/receive");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        for (name, cut) in [("whole", 0), ("cut", size / 2)] {
            let (mut pool, mut receiver, mut bytes) = (Pool::new(), Receiver::new(), frame(size));
            group.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter(|| {
                    let (one, two) = bytes.split_at_mut(cut);
                    feed(&mut receiver, &mut pool, one) + feed(&mut receiver, &mut pool, two)
                });
            });
        }
    }
    group.finish();
}

fn feed(receiver: &mut Receiver, pool: &mut Pool, mut bytes: &mut [u8]) -> usize {
    let mut total = 0;
    while let Ok(Some(event)) = receiver.next(pool, 128 * 1024, &mut bytes) {
        if let Event::Message { payload, .. } = event {
            total += black_box(&*payload).len();
            payload.give_back(pool);
        }
    }
    total
}

criterion_group!(benches, header, mask, utf8, receive);
criterion_main!(benches);
