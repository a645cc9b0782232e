//! The parts of a forwarded request that are neither parsing nor tables: the edits, our token and
//! branch, the name of the server transaction. The aims: 0.15 µs for the edits, 0.5 µs for the MACs
//! of token and branch.

mod cpu;
#[path = "../tests/lab/mod.rs"]
mod lab;

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sipring::base::hash::KeyedHash;
use sipring::base::id::{ClientKey, FlowId, FlowRef, ShardId, StreamPath, Transport};
use sipring::base::slab::SlabKey;
use sipring::flow::arrival::{Arrival, Standing};
use sipring::flow::token::{Claims, TokenKey, TokenKind};
use sipring::proxy::branch::{BranchId, has_looped, loop_hash};
use sipring::proxy::forward::{Onward, forward};
use sipring::proxy::identity::Border;
use sipring::proxy::response;
use sipring::proxy::route::Sender;
use sipring::proxy::source::Source;
use sipring::sip::{Edits, Parsed, parse};
use sipring::transaction::server_key;

fn request(method: &str) -> Vec<u8> {
    format!(
        "{method} sip:bob@example.com SIP/2.0\r\n\
         Via: SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bK5601932\r\n\
         Max-Forwards: 69\r\nTo: <sip:bob@example.com>\r\n\
         From: \"Alice\" <sip:alice@example.com>;tag=f3k9vq1l0s\r\n\
         Call-ID: 7k1m5qf2s9dlio2jf9\r\nCSeq: 4711 {method}\r\n\
         Contact: <sip:alice@df7jal23ls0d.invalid;transport=ws;ob>\r\n\
         Allow: INVITE,ACK,CANCEL,BYE,UPDATE,MESSAGE,OPTIONS,REFER,INFO,NOTIFY\r\n\
         Supported: outbound\r\nUser-Agent: Example Browser 3.13.0\r\n\
         Content-Type: text/plain\r\nContent-Length: 66\r\n\r\n\
         Watson, come here. I want to see you, if it is not too much asked."
    )
    .into_bytes()
}

fn client(slot: u32) -> FlowRef {
    FlowRef::Stream(StreamPath {
        flow: FlowId::new(ShardId(0), slot, 1),
        transport: Transport::Wss,
        listener: lab::listener_of(Transport::Wss),
    })
}

fn branch() -> BranchId {
    let client = SlabKey::from_bits(0x0000_0007_0000_1234);
    BranchId { shard: ShardId(1), client, secret: 0x0123_4567_89ab_cdef, loop_hash: 0xdead_beef }
}

fn forwarding(c: &mut Criterion) {
    let config = lab::config();
    let tokens = TokenKey::new(&[9; 32], 1);
    let arrival = Arrival {
        source: client(1),
        local: lab::listener_address(Transport::Wss),
        remote: SocketAddr::new([203, 0, 113, 5].into(), 40_001),
        accepted: true,
        standing: Standing::Unknown,
        answers: None,
        client: ClientKey::NONE,
        has_lines: false,
    };
    let onward = Onward {
        source: Source::default(),
        uri: Some(b"sip:bob@mf8k2l1s7d0f.invalid;transport=ws"),
        route: b"",
        popped: 0,
        egress: lab::listener_of(Transport::Wss),
        transport: Transport::Wss,
        branch: branch(),
        caller: Some(client(1)),
        callee: Some(client(2)),
        caller_key: ClientKey::NONE,
        callee_key: ClientKey::NONE,
        registrant: ClientKey::NONE,
        breadth: 60,
        dialled: None,
        strict: false,
        border: Border { from_trusted: false, to_trusted: false },
        asserted: None,
    };
    let mut group = c.benchmark_group("forward");
    for (name, method) in [("request", "MESSAGE"), ("request with Record-Route", "INVITE")] {
        let bytes = request(method);
        let mut parsed = Parsed::default();
        parse(&bytes, &mut parsed).expect("a good sample");
        let message = parsed.view(&bytes);
        let (mut edits, mut out) = (Edits::default(), Vec::new());
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| {
            cpu::iter(b, || {
                out.clear();
                let message = black_box(message);
                forward(&config, &tokens, message, &arrival, &onward, &mut edits, &mut out);
            });
        });
    }
    let bytes = b"SIP/2.0 200 OK\r\n\
        Via: SIP/2.0/WSS 192.0.2.1:8443;branch=z9hG4bKAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n\
        Via: SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bK5601932\r\n\
        To: <sip:bob@example.com>;tag=8dk3l1hg7f\r\n\
        From: \"Alice\" <sip:alice@example.com>;tag=f3k9vq1l0s\r\n\
        Call-ID: 7k1m5qf2s9dlio2jf9\r\nCSeq: 4711 MESSAGE\r\nContent-Length: 0\r\n\r\n";
    let mut parsed = Parsed::default();
    parse(bytes, &mut parsed).expect("a good sample");
    let message = parsed.view(bytes);
    let (mut edits, mut out) = (Edits::default(), Vec::new());
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("response", |b| {
        cpu::iter(b, || {
            out.clear();
            assert!(response::forward(
                black_box(message),
                Transport::Wss,
                Border { from_trusted: true, to_trusted: false },
                &mut edits,
                &mut out
            ));
        });
    });
    group.finish();
}

fn naming(c: &mut Criterion) {
    let mut group = c.benchmark_group("naming");
    let call_id = b"7k1m5qf2s9dlio2jf9";
    let tokens = TokenKey::new(&[9; 32], 1);
    let (caller, callee) = (Some(client(1)), Some(client(2)));
    let (caller_key, callee_key) = (ClientKey::NONE, ClientKey::NONE);
    let claims =
        Claims { kind: TokenKind::Dialog, caller, callee, dialled: None, caller_key, callee_key };
    let mut text = Vec::new();
    group.bench_function("token made", |b| {
        cpu::iter(b, || {
            text.clear();
            tokens.encode(black_box(&claims), call_id, &mut text);
        });
    });
    group.bench_function("token read", |b| {
        cpu::iter(b, || assert!(tokens.decode(black_box(&text), call_id).is_ok()));
    });
    group.bench_function("branch made", |b| {
        cpu::iter(b, || {
            text.clear();
            black_box(branch()).encode(&mut text);
        });
    });
    group.bench_function("branch read", |b| {
        cpu::iter(b, || assert!(BranchId::decode(black_box(&text)).is_some()));
    });
    let hash = KeyedHash::new([7; 16]);
    let bytes = request("MESSAGE");
    let mut parsed = Parsed::default();
    parse(&bytes, &mut parsed).expect("a good sample");
    let message = parsed.view(&bytes);
    group.bench_function("server key", |b| {
        cpu::iter(b, || {
            let key = server_key(&hash, black_box(message), message.method());
            assert!(key.is_some());
        });
    });
    let mut scratch = Vec::new();
    group.bench_function("loop", |b| {
        cpu::iter(b, || {
            let value = loop_hash(&hash, black_box(message), Sender::Stranger, &mut scratch);
            assert!(!has_looped(message, value));
        });
    });
    group.finish();
}

criterion_group!(benches, forwarding, naming);
criterion_main!(benches);
