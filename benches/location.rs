//! What a binding costs: the look-up of an address of record, the refresh of its registration
//! (parsed already), and memory; CPU time of this thread. The aims: a look-up of 0.2 µs, 600 bytes
//! for each binding.

use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sipring::base::config::{Auth, Config, Node, Registrar, Timers};
use sipring::base::hash::KeyedHash;
use sipring::base::id::{FlowId, FlowRef, ListenerId, ShardId, StreamPath, Transport};
use sipring::base::limits::Limits;
use sipring::base::rng::Rng;
use sipring::base::time::Time;
use sipring::registrar::{GruuKey, Location, RegisterContext, Registered, register};
use sipring::sip::{Parsed, parse};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
/// REGISTERs that are written ahead, unmeasured.
const BATCH: usize = 256;

/// A table with one binding of each user, on a WSS flow of its own.
struct Table {
    location: Location,
    config: Config,
    gruus: GruuKey,
    out: Registered,
}

impl Table {
    fn new(users: usize) -> Table {
        let hash = KeyedHash::new([7; 16]);
        let location = Location::new(hash, users);
        let gruus = GruuKey::new(&[5; 32]);
        let mut table = Table { location, config: config(), gruus, out: Registered::default() };
        for user in 0..users {
            let (text, parsed) = message(user, 1);
            table.register(user, &text, &parsed);
        }
        table
    }

    fn register(&mut self, user: usize, text: &[u8], parsed: &Parsed) {
        let flow = FlowId::new(ShardId(0), user as u32, 1);
        let path = StreamPath { flow, transport: Transport::Wss, listener: ListenerId(0) };
        let context = RegisterContext {
            now: Time::from_nanos(1_000_000_000),
            source: FlowRef::Stream(path),
            source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            config: &self.config,
            names_us: &|_| false,
            random: user as u64,
            client_hash: None,
            gruu_key: &self.gruus,
            flow_timer: None,
        };
        let done = register(&mut self.location, parsed.view(text), &context, &mut self.out);
        assert!(done.is_ok(), "{done:?}");
    }
}

/// A REGISTER as JsSIP writes it.
fn message(user: usize, cseq: u32) -> (Vec<u8>, Parsed) {
    let aor = format!("sip:user{user:07}@example.com");
    let text = format!(
        "REGISTER sip:example.com SIP/2.0\r\n\
         Via: SIP/2.0/WSS 4fd93jspl0qk.invalid;branch=z9hG4bK5601932\r\nMax-Forwards: 69\r\n\
         To: <{aor}>\r\nFrom: \"User\" <{aor}>;tag=dlio2jf9q4\r\nCall-ID: p6vmcj1cjt4qn{user:07}\r\n\
         CSeq: {cseq} REGISTER\r\n\
         Contact: <sip:q{user:07}@4fd93jspl0qk.invalid;transport=ws>;+sip.ice;reg-id=1;\
         +sip.instance=\"<urn:uuid:f81d4fae-7dec-11d0-a765-{user:012}>\";expires=600\r\n\
         Expires: 600\r\nAllow: INVITE,ACK,CANCEL,BYE,UPDATE,MESSAGE,OPTIONS,REFER,INFO,NOTIFY\r\n\
         Supported: path,gruu,outbound\r\nUser-Agent: JsSIP 3.13.0\r\nContent-Length: 0\r\n\r\n"
    );
    let mut parsed = Parsed::default();
    parse(text.as_bytes(), &mut parsed).expect("a well-formed REGISTER");
    (text.into_bytes(), parsed)
}

fn config() -> Config {
    Config {
        node: Node { name: "edge".to_owned(), domains: vec!["example.com".to_owned()] },
        listeners: Vec::new(),
        registrar: Registrar { expires_max: Duration::from_secs(600), ..Registrar::default() },
        auth: Auth::default(),
        upstreams: Vec::new(),
        routes: Vec::new(),
        timers: Timers::default(),
        limits: Limits::default(),
    }
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("location");
    for users in SIZES {
        // Made by the first measurement that is asked for.
        let mut table = None;
        let mut rng = Rng::new([9; 32]);
        group.bench_function(BenchmarkId::new("lookup", users), |b| {
            let table = table.get_or_insert_with(|| filled(users));
            let aors: Vec<Vec<u8>> = (0..4096)
                .map(|_| format!("user{:07}@example.com", rng.below(users as u64)).into_bytes())
                .collect();
            let mut next = 0;
            b.iter_custom(|rounds| {
                let begun = cpu_time();
                for _ in 0..rounds {
                    next = (next + 1) % aors.len();
                    let mut found = table.location.lookup(black_box(&aors[next]), Time::ZERO);
                    black_box(found.next().map(|binding| binding.flow()));
                }
                cpu_time() - begun
            });
        });
        let mut cseq = 1;
        group.bench_function(BenchmarkId::new("refresh", users), |b| {
            let table = table.get_or_insert_with(|| filled(users));
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for begin in (0..rounds).step_by(BATCH) {
                    let messages: Vec<_> = (begin..rounds.min(begin + BATCH as u64))
                        .map(|_| rng.below(users as u64) as usize)
                        .map(|user| {
                            cseq += 1;
                            (user, message(user, cseq))
                        })
                        .collect();
                    let begun = cpu_time();
                    for (user, (text, parsed)) in &messages {
                        table.register(*user, text, parsed);
                    }
                    spent += cpu_time() - begun;
                }
                spent
            });
        });
    }
    group.finish();
}

/// A table of that many users; says what it takes in memory.
fn filled(users: usize) -> Table {
    let before = resident_bytes();
    let table = Table::new(users);
    let grown = resident_bytes().saturating_sub(before);
    println!("{users} bindings: {} bytes resident for each", grown / users);
    table
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

/// Resident memory of this process.
fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("a Linux /proc");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("statm has numbers") * 4096
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2));
    targets = bench
}
criterion_main!(benches);
