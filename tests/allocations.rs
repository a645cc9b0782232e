//! In steady state a transaction allocates nothing: tables, blocks and lists have grown to what the
//! load needs and are used again. Counted by an allocator of this test's own.

#![allow(unsafe_code, reason = "an allocator is unsafe by its nature")]

#[path = "../tests/lab/mod.rs"]
mod lab;
#[path = "../benches/stage/mod.rs"]
mod stage;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use sipring::base::config::{Config, Persistence};
use stage::Stage;
use stage::password::{Passwords, Proof};
use stage::script::{Act, Play};
use stage::scripts;

struct Counting;

thread_local! {
    /// Allocations of this thread.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work; counting touches nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
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
    let mut play = Play::new(Stage::new(shards), 20, script);
    play.stage.step = STEP;
    for _ in 0..warm_up {
        play.round();
    }
    let before = ALLOCATIONS.get();
    for _ in 0..ROUNDS {
        play.round();
    }
    ALLOCATIONS.get() - before
}

#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![1u8]));
    assert_eq!(ALLOCATIONS.get() - before, 1);
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
fn a_digest_that_is_checked_allocates_nothing() {
    for proof in [Proof::Flow, Proof::Digest(0), Proof::Digest(1)] {
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

#[test]
fn a_miss_allocates_nothing() {
    assert_eq!(allocations(1, ROUNDS, &scripts::miss()), 0);
}
