//! In steady state a transaction allocates nothing: tables, blocks and lists have grown to what the
//! load needs and are used again; and clients that come and go leave nothing behind. Counted by an
//! allocator of this test's own.

#![allow(unsafe_code, reason = "an allocator is unsafe by its nature")]

#[path = "../tests/reconnect/client.rs"]
#[allow(dead_code, reason = "a part of it is enough here")]
mod client;
#[path = "../tests/lab/mod.rs"]
mod lab;
#[path = "../benches/stage/mod.rs"]
mod stage;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use lab::loss::{End, KNOWN, Known};
use sipring::base::config::{Config, Persistence};
use sipring::base::limits::{BLOCK_CLASSES, HANDOVERS_KEPT};
use stage::Stage;
use stage::password::{Passwords, Proof};
use stage::script::{Act, Play};
use stage::scripts;

struct Counting;

thread_local! {
    /// Allocations of this thread.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Those of them that are pooled blocks.
    static BLOCKS: Cell<u64> = const { Cell::new(0) };
    /// Bytes that this thread has allocated and not freed.
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

fn count(allocations: u64, bytes: i64) {
    ALLOCATIONS.set(ALLOCATIONS.get() + allocations);
    let is_block = BLOCK_CLASSES.iter().any(|size| bytes == *size as i64);
    BLOCKS.set(BLOCKS.get() + u64::from(is_block));
    LIVE.set(LIVE.get() + bytes);
}

// SAFETY: the system's allocator does the work; counting touches nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUNDS: u32 = 1000;
/// Virtual time of a round.
const STEP: Duration = Duration::from_millis(20);

/// Allocations of [`ROUNDS`] rounds, after `warm_up` rounds.
fn allocations(shards: u16, warm_up: u32, script: &[Act]) -> u64 {
    let (blocks, others) = counted(shards, warm_up, script);
    blocks + others
}

/// The same, pooled blocks apart.
fn counted(shards: u16, warm_up: u32, script: &[Act]) -> (u64, u64) {
    let mut play = Play::new(Stage::new(shards), 20, script);
    play.stage.step = STEP;
    for _ in 0..warm_up {
        play.round();
    }
    let before = (BLOCKS.get(), ALLOCATIONS.get());
    for _ in 0..ROUNDS {
        play.round();
    }
    let blocks = BLOCKS.get() - before.0;
    (blocks, ALLOCATIONS.get() - before.1 - blocks)
}

#[test]
fn the_counter_counts() {
    let (before, live) = (ALLOCATIONS.get(), LIVE.get());
    let bytes = std::hint::black_box(vec![1u8; 100]);
    assert_eq!((ALLOCATIONS.get() - before, LIVE.get() - live), (1, 100));
    drop(bytes);
    assert_eq!((ALLOCATIONS.get() - before, LIVE.get() - live), (1, 0));
}

#[test]
fn a_message_between_clients_allocates_nothing() {
    for shards in [1, 2] {
        assert_eq!(allocations(shards, ROUNDS, &scripts::message()), 0, "{shards} shards");
    }
}

#[test]
fn a_registration_that_is_refreshed_allocates_nothing() {
    for shards in [1, 2] {
        assert_eq!(allocations(shards, ROUNDS, &scripts::register_again()), 0, "{shards} shards");
    }
}

#[test]
fn a_registration_that_is_stored_allocates_nothing() {
    for shards in [1, 2] {
        let delayed = |config: &mut Config| config.registrar.persistence = Persistence::Delayed;
        let stage = Stage::with(shards, lab::config_with(delayed));
        let mut play = Play::new(stage, 20, &scripts::register_again());
        play.stage.step = STEP;
        for _ in 0..ROUNDS {
            play.round();
        }
        let (before, stored) = (ALLOCATIONS.get(), play.stage.stored);
        for _ in 0..ROUNDS {
            play.round();
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{shards} shards");
        assert!(play.stage.stored > stored);
    }
}

#[test]
fn a_digest_or_a_token_that_is_checked_allocates_nothing() {
    for proof in [Proof::Flow, Proof::Digest(0), Proof::Digest(1), Proof::Token] {
        for shards in [1, 2] {
            let mut play = Passwords::new(shards, 20, proof);
            play.stage.step = STEP;
            for _ in 0..ROUNDS {
                play.round();
            }
            let before = ALLOCATIONS.get();
            for _ in 0..ROUNDS {
                play.round();
            }
            assert_eq!(ALLOCATIONS.get() - before, 0, "{proof:?}, {shards} shards");
        }
    }
}

/// Over UDP transactions linger for 32 seconds (Timer J): the tables are full only after that.
#[test]
fn what_comes_by_udp_allocates_nothing_once_as_many_end_as_begin() {
    const LINGER: u32 = 4000;
    for (name, script) in [("NOTIFY", scripts::notify()), ("OPTIONS", scripts::options())] {
        assert_eq!(allocations(1, LINGER, &script), 0, "{name}");
    }
}

/// What one of them costs meanwhile: its response at its length, its name and deadline, and its
/// share of tables that have just doubled.
#[test]
fn an_answered_request_by_udp_keeps_little_until_timer_j() {
    const BYTES_MAX: i64 = 1024;
    let each = lingering(&scripts::notify());
    println!("{each} bytes a request that lingers");
    assert!((1..=BYTES_MAX).contains(&each), "{each}");
}

/// What an accepted call costs until Timers L and M, and its BYE: two entries, where the INVITE went at
/// its length, and no block of its own for either, the least of which is 256 bytes more.
#[test]
fn an_accepted_call_keeps_none_of_its_messages() {
    const BYTES_MAX: i64 = 1792;
    let each = lingering(&scripts::call());
    println!("{each} bytes a call that lingers");
    assert!((1..=BYTES_MAX).contains(&each), "{each}");
}

/// A large request that waits for its answer keeps its body once, in the copy that is sent once more
/// if the client comes back on another flow; all else of it fits beside.
#[test]
fn a_request_that_waits_keeps_its_body_once() {
    for body in [4000, 14_000, 60_000] {
        let script = scripts::unanswered(body);
        let each = waiting(&script);
        println!("{each} bytes a request with {body} that waits");
        let bytes = body as i64 + HEAD_BYTES;
        assert!((bytes..=2 * bytes).contains(&each), "{each} for {bytes}");
    }
}

/// The rest of such a request.
const HEAD_BYTES: i64 = 450;

/// Bytes that each of many requests keeps to which there is no answer yet.
fn waiting(script: &[Act]) -> i64 {
    const REQUESTS: u32 = 2048;
    let mut play = Play::new(Stage::new(1), 64, script);
    play.stage.step = Duration::from_micros(1);
    let before = LIVE.get();
    for _ in 0..REQUESTS {
        play.round();
    }
    (LIVE.get() - before) / i64::from(REQUESTS)
}

/// Bytes that each of many plays leaves behind that end before any timer that waits for repeats.
fn lingering(script: &[Act]) -> i64 {
    const REQUESTS: u32 = 8000;
    let mut play = Play::new(Stage::new(1), 20, script);
    play.stage.step = Duration::from_millis(1);
    for _ in 0..ROUNDS {
        play.round();
    }
    let before = LIVE.get();
    for _ in 0..REQUESTS {
        play.round();
    }
    (LIVE.get() - before) / i64::from(REQUESTS)
}

/// A call and all that lingers of it: the accepted INVITE (Timer L), the BYE (Timer J). A block that
/// a request crosses in stays in the pool of the callee's shard, here always the same of two, and
/// not as many of its size come back: at most two a call are new.
#[test]
fn a_call_allocates_nothing_but_blocks_that_stay_where_callees_are() {
    const LINGER: u32 = 4000;
    assert_eq!(counted(1, LINGER, &scripts::call()), (0, 0));
    let (blocks, others) = counted(2, LINGER, &scripts::call());
    println!("two shards: {blocks} blocks in {ROUNDS} calls");
    assert!(others == 0 && blocks <= u64::from(2 * ROUNDS), "{blocks} {others}");
}

#[test]
fn a_miss_allocates_nothing() {
    assert_eq!(allocations(1, ROUNDS, &scripts::miss()), 0);
}

/// Idle clients whose connections are all lost and who all come back cost what they did before,
/// however often, once what is kept for reuse has been filled and tables of names that change have
/// found their size, which may be the next larger one.
#[test]
fn clients_that_come_back_cost_what_they_did() {
    for shards in [1, 2] {
        for known in KNOWN {
            let [before, after, later] = [0, 24, 36].map(|rounds| held(shards, known, rounds));
            println!("{shards} shards, {known:?}: {before} bytes, {after}, {later}");
            assert!(after - before < i64::from(shards) * KEPT_BYTES, "{before} {after}");
            assert_eq!(later, after, "after thirty-six rounds and after twenty-four");
        }
    }
}

const CLIENTS: i64 = 100;
/// What a shard keeps for reuse and its larger tables: most of it handovers.
const KEPT_BYTES: i64 = 1024 * HANDOVERS_KEPT as i64;

/// Bytes that the engines hold after so many rounds.
fn held(shards: u16, known: Known, rounds: u16) -> i64 {
    let users: Vec<String> = (0..CLIENTS).map(|n| format!("user{n}")).collect();
    let names: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut lab = client::lab_of(shards, &names);
    let mut clients: Vec<client::Client> = (0..)
        .zip(&names)
        .map(|(n, user)| client::Client::new(&mut lab, n % shards, user, known))
        .collect();
    for round in 1..=rounds {
        let end = if round % 2 == 0 { End::Fin } else { End::Reset };
        clients.iter().for_each(|it| it.lose(&mut lab, end));
        lab.pass(Duration::from_secs(1));
        for (n, client) in (round..).zip(&mut clients) {
            client.come_back(&mut lab, n % shards, end);
        }
    }
    lab.pass(Duration::from_secs(40));
    let all = LIVE.get();
    drop(std::mem::take(&mut lab.engines));
    all - LIVE.get()
}
