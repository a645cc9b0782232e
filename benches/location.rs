//! What a binding costs: the look-up of an address of record, the refresh of its registration
//! (parsed already), in CPU time of this thread, and memory, by the allocator's books; from a
//! thousand bindings to a million, which ends with a table of all that was measured. The aims: a
//! look-up of 0.2 µs and a refresh that do not grow with the table, 600 bytes for each binding.
//! Beside each time stands its floor: what the memory of this machine takes for as many bindings in
//! as many lists when a binding is one record and nothing else is done.

mod heap;

use std::collections::HashMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sipring::base::config::{Auth, Config, Node, Registrar, Timers};
use sipring::base::hash::{BuildHashed, KeyedHash};
use sipring::base::id::{FlowId, FlowRef, ListenerId, ShardId, StreamPath, Transport};
use sipring::base::limits::Limits;
use sipring::base::rng::Rng;
use sipring::base::time::Time;
use sipring::base::users::UserMark;
use sipring::registrar::{GruuKey, Location, RegisterContext, Registered, register};
use sipring::sip::{Parsed, parse};

#[global_allocator]
static ALLOCATOR: heap::Counted = heap::Counted;

const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// REGISTERs that are written ahead, unmeasured.
const BATCH: usize = 256;
/// Users that are looked up in turn, at most: what is read for so many exceeds the caches.
const USERS_MAX: usize = 1 << 18;
/// Shorter samples say more of the clock than of what they time.
const ROUNDS_MIN: u64 = 1024;
/// The key of both hashes, so that floor and table meet the same collisions.
const HASH_KEY: [u8; 16] = [7; 16];
/// No further record.
const END: u32 = u32::MAX;

/// What the bindings are like. Each has an instance.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One of each user, on a WSS flow of its own, as JsSIP registers it.
    Flow,
    /// Ten of each user, who all came through one edge proxy: each has its Path.
    Path,
}

impl Shape {
    const ALL: [Shape; 2] = [Shape::Flow, Shape::Path];

    fn name(self) -> &'static str {
        match self {
            Shape::Flow => "flow",
            Shape::Path => "path",
        }
    }

    /// Bindings of one user.
    fn each(self) -> usize {
        match self {
            Shape::Flow => 1,
            Shape::Path => 10,
        }
    }

    /// The address of record that the binding of that number belongs to.
    fn aor(self, binding: usize) -> String {
        format!("user{:07}@example.com", binding / self.each())
    }

    /// What an edge proxy before us adds.
    fn edge(self) -> &'static str {
        match self {
            Shape::Flow => "",
            Shape::Path => {
                "Via: SIP/2.0/TCP 192.0.2.7:5060;branch=z9hG4bKnashds8\r\n\
                 Path: <sip:ft.EBQ9BpewAAAAAAAAAAIBAAEBfwEavBP25_qzqq9oXl9Ob1Ii@192.0.2.7:5060;\
                 transport=tcp;lr;ob>\r\n"
            }
        }
    }

    /// A REGISTER for that binding as JsSIP writes it.
    fn message(self, binding: usize, cseq: u32) -> (Vec<u8>, Parsed) {
        let (aor, edge) = (format!("sip:{}", self.aor(binding)), self.edge());
        let text = format!(
            "REGISTER sip:example.com SIP/2.0\r\n{edge}\
             Via: SIP/2.0/WSS 4fd93jspl0qk.invalid;branch=z9hG4bK5601932\r\nMax-Forwards: 69\r\n\
             To: <{aor}>\r\nFrom: \"User\" <{aor}>;tag=dlio2jf9q4\r\n\
             Call-ID: p6vmcj1cjt4qn{binding:07}\r\nCSeq: {cseq} REGISTER\r\n\
             Contact: <sip:q{binding:07}@4fd93jspl0qk.invalid;transport=ws>;+sip.ice;reg-id=1;\
             +sip.instance=\"<urn:uuid:f81d4fae-7dec-11d0-a765-{binding:012}>\";expires=600\r\n\
             Expires: 600\r\nAllow: INVITE,ACK,CANCEL,BYE,UPDATE,MESSAGE,OPTIONS,REFER,INFO,NOTIFY\r\n\
             Supported: path,gruu,outbound\r\nUser-Agent: JsSIP 3.13.0\r\nContent-Length: 0\r\n\r\n"
        );
        let mut parsed = Parsed::default();
        parse(text.as_bytes(), &mut parsed).expect("a well-formed REGISTER");
        (text.into_bytes(), parsed)
    }
}

/// A table of so many bindings, of users who have proved who they are: their clients are known again.
struct Table {
    location: Location,
    hash: KeyedHash,
    config: Config,
    gruus: GruuKey,
    out: Registered,
}

impl Table {
    fn new(shape: Shape, bindings: usize) -> Table {
        let hash = KeyedHash::new(HASH_KEY);
        let location = Location::new(hash.clone(), bindings);
        let gruus = GruuKey::new(&[5; 32]);
        let out = Registered::default();
        let mut table = Table { location, hash, config: config(), gruus, out };
        for binding in 0..bindings {
            let (text, parsed) = shape.message(binding, 1);
            table.register(binding, &text, &parsed);
        }
        assert_eq!(table.location.len(), bindings);
        assert_eq!(table.location.aors(), bindings / shape.each());
        table
    }

    fn register(&mut self, binding: usize, text: &[u8], parsed: &Parsed) {
        let flow = FlowId::new(ShardId(0), binding as u32, 1);
        let path = StreamPath { flow, transport: Transport::Wss, listener: ListenerId(0) };
        let context = RegisterContext {
            now: Time::from_nanos(1_000_000_000),
            source: FlowRef::Stream(path),
            source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            config: &self.config,
            names_us: &|_| false,
            random: binding as u64,
            longest: None,
            answers: None,
            user: UserMark::NONE,
            client_hash: Some(&self.hash),
            gruu_key: &self.gruus,
            flow_timer: None,
            is_repeated: false,
        };
        let done = register(&mut self.location, parsed.view(text), &context, &mut self.out);
        assert!(done.is_ok(), "{done:?}");
    }
}

/// The least that can be read to find the same bindings: a map under the same hash, and of each
/// binding one record, in the order in which the table was filled.
struct Floor {
    hash: KeyedHash,
    heads: HashMap<u64, u32, BuildHashed>,
    records: Vec<Record>,
}

/// As much as a processor fetches at once, at most: two lines.
#[repr(align(128))]
struct Record {
    flow: u64,
    cseq: u32,
    next: u32,
}

const _: () = assert!(size_of::<Record>() == 128);

impl Floor {
    fn new(shape: Shape, bindings: usize) -> Floor {
        let hash = KeyedHash::new(HASH_KEY);
        let mut heads: HashMap<u64, u32, BuildHashed> = HashMap::default();
        let mut records = Vec::with_capacity(bindings);
        for binding in 0..bindings {
            let head = heads.entry(hash.of(shape.aor(binding).as_bytes())).or_insert(END);
            records.push(Record { flow: binding as u64, cseq: 1, next: *head });
            *head = binding as u32;
        }
        assert_eq!(heads.len(), bindings / shape.each());
        Floor { hash, heads, records }
    }

    fn head(&self, aor: &[u8]) -> u32 {
        self.heads.get(&self.hash.of(aor)).copied().unwrap_or(END)
    }

    /// Looks up users as [`Row::lookups`] does.
    fn lookups<'a>(&self, aors: impl Iterator<Item = &'a String>) -> usize {
        let mut found = 0;
        for aor in aors {
            let mut at = self.head(black_box(aor.as_bytes()));
            while let Some(record) = self.records.get(at as usize) {
                black_box(record.flow);
                at = record.next;
                found += 1;
            }
        }
        found
    }

    /// Looks up users and writes to the last binding of each, one after the other: as with a
    /// REGISTER between them, nothing of the next is fetched before the former is written.
    fn refreshes(&mut self, aors: &[String], from: usize, rounds: usize) -> usize {
        // Nobody but us knows that it is none.
        let nothing = black_box(0);
        let (mut found, mut waited) = (0, 0);
        for round in 0..rounds {
            let aor = &aors[(from + round + waited) % aors.len()];
            let (mut at, mut last) = (self.head(black_box(aor.as_bytes())), END);
            while let Some(record) = self.records.get(at as usize) {
                (last, at) = (at, record.next);
                waited = record.flow as usize & nothing;
                found += 1;
            }
            self.records[last as usize].cseq += 1;
        }
        found
    }
}

/// Time in nanoseconds of one round: the best sample of the table's and of its floor's.
struct Best {
    table: u128,
    floor: u128,
}

impl Best {
    const NONE: Best = Best { table: u128::MAX, floor: u128::MAX };

    fn take(&mut self, rounds: u64, table: Duration, floor: Duration) {
        if rounds >= ROUNDS_MIN {
            self.table = self.table.min(table.as_nanos() / u128::from(rounds));
            self.floor = self.floor.min(floor.as_nanos() / u128::from(rounds));
        }
    }

    /// As cells of a table: the time, the floor, and how often the floor is in the time.
    fn cells(&self) -> String {
        let Best { table, floor } = *self;
        if table == u128::MAX {
            return "- | - | -".to_owned();
        }
        format!("{table} | {floor} | {:.1}", table as f64 / floor.max(1) as f64)
    }
}

/// One size of one shape, and a line of what is printed in the end.
struct Row {
    shape: Shape,
    bindings: usize,
    table: Option<(Table, Floor)>,
    /// Users in the order in which they are looked up, and which is the next.
    aors: Vec<String>,
    next: usize,
    rng: Rng,
    cseq: u32,
    /// Bytes on the heap for each binding.
    asked: isize,
    given: isize,
    lookup: Best,
    refresh: Best,
}

impl Row {
    fn new(shape: Shape, bindings: usize) -> Row {
        Row {
            shape,
            bindings,
            table: None,
            aors: Vec::new(),
            next: 0,
            rng: Rng::new([9; 32]),
            cseq: 1,
            asked: 0,
            given: 0,
            lookup: Best::NONE,
            refresh: Best::NONE,
        }
    }

    /// Makes the table for the measurement that is asked for first.
    fn fill(&mut self) {
        if self.table.is_some() {
            return;
        }
        let before = heap::live();
        let table = Table::new(self.shape, self.bindings);
        let after = heap::live();
        self.asked = (after.asked - before.asked) / self.bindings as isize;
        self.given = (after.given - before.given) / self.bindings as isize;
        self.table = Some((table, Floor::new(self.shape, self.bindings)));
        let users = (self.bindings / self.shape.each()).min(USERS_MAX);
        self.aors = (0..users).map(|_| self.shape.aor(self.any_binding())).collect();
    }

    /// Drops the table: one large one at a time is enough.
    fn clear(&mut self) {
        self.table = None;
        self.aors = Vec::new();
    }

    fn any_binding(&mut self) -> usize {
        self.rng.below(self.bindings as u64) as usize
    }

    /// Looks up users, all bindings of each.
    fn lookups(&mut self, rounds: u64) -> Duration {
        let (table, floor) = self.table.as_ref().expect("it was filled");
        let (first, then) = self.aors.split_at(self.next);
        let aors = || then.iter().chain(first).cycle().take(rounds as usize);
        let mut found = 0;
        let begun = cpu_time();
        for aor in aors() {
            for binding in table.location.lookup(black_box(aor.as_bytes()), Time::ZERO) {
                black_box(binding.flow());
                found += 1;
            }
        }
        let spent = cpu_time() - begun;
        assert_eq!(found, rounds as usize * self.shape.each());
        let begun = cpu_time();
        let least = floor.lookups(aors());
        self.lookup.take(rounds, spent, cpu_time() - begun);
        assert_eq!(least, found);
        self.turn(rounds);
        spent
    }

    /// Refreshes bindings by REGISTERs that are parsed already.
    fn refreshes(&mut self, rounds: u64) -> Duration {
        let mut spent = Duration::ZERO;
        for begin in (0..rounds).step_by(BATCH) {
            let batch = begin..rounds.min(begin + BATCH as u64);
            let messages: Vec<_> = batch.map(|_| self.next_message()).collect();
            let (table, _) = self.table.as_mut().expect("it was filled");
            let begun = cpu_time();
            for (binding, (text, parsed)) in &messages {
                table.register(*binding, text, parsed);
            }
            spent += cpu_time() - begun;
        }
        let (_, floor) = self.table.as_mut().expect("it was filled");
        let begun = cpu_time();
        let least = floor.refreshes(&self.aors, self.next, rounds as usize);
        self.refresh.take(rounds, spent, cpu_time() - begun);
        assert_eq!(least, rounds as usize * self.shape.each());
        self.turn(rounds);
        spent
    }

    /// The next sample begins with other users.
    fn turn(&mut self, rounds: u64) {
        self.next = (self.next + rounds as usize) % self.aors.len();
    }

    fn next_message(&mut self) -> (usize, (Vec<u8>, Parsed)) {
        let binding = self.any_binding();
        self.cseq += 1;
        (binding, self.shape.message(binding, self.cseq))
    }

    fn print(&self) {
        let (name, bindings, users) =
            (self.shape.name(), self.bindings, self.bindings / self.shape.each());
        let (asked, given) = (self.asked, self.given);
        let (lookup, refresh) = (self.lookup.cells(), self.refresh.cells());
        println!("| {name} | {bindings} | {users} | {asked} | {given} | {lookup} | {refresh} |");
    }
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
    let mut rows = Vec::new();
    for shape in Shape::ALL {
        let mut group = c.benchmark_group(format!("location/{}", shape.name()));
        for bindings in SIZES {
            let mut row = Row::new(shape, bindings);
            // Filled outside of what is timed: rounds are planned by the time that the first took.
            group.bench_function(BenchmarkId::new("lookup", bindings), |b| {
                row.fill();
                b.iter_custom(|rounds| row.lookups(rounds))
            });
            group.bench_function(BenchmarkId::new("refresh", bindings), |b| {
                row.fill();
                b.iter_custom(|rounds| row.refreshes(rounds))
            });
            row.clear();
            rows.push(row);
        }
        group.finish();
    }
    println!(
        "| | bindings | users | bytes asked for | bytes given | look-up, ns | floor | ratio | \
         refresh, ns | floor | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    rows.iter().filter(|row| row.asked > 0).for_each(Row::print);
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

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2));
    targets = bench
}
criterion_main!(benches);
