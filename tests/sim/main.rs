//! The simulator: engines of one to four shards, the network between them and their clients, and
//! the clients, on one clock that a seed drives. All that goes wrong in the world goes wrong here,
//! by named probabilities; what must hold whatever happens is checked at each message and at the
//! end. Public interface of the crate only.
//!
//! ```text
//! cargo test --test sim                                          # some hundred seeds
//! SEED=7 cargo test --test sim replay -- --nocapture             # one, an event a line
//! SIM_SECONDS=60 cargo test --test sim fresh -- --ignored --nocapture     # seeds never seen
//! tests/run sim                                  # optimized: the large runs, the same each time
//! tests/run fresh                                # optimized: seeds never seen, for SIM_SECONDS
//! ```
//!
//! `SIM_FIRST_SEED` is where fresh seeds start (the clock otherwise), `SIM_ACTS` how much happens in
//! one. A failure prints its seed, what that stands for, the command that shows it again, and its
//! line for `seeds`. Whatever is checked of every change has seeds that are fixed: what fails there
//! is the change's own.
//!
//! Where what is: `profile` and `house` (what a seed decides), `world` and `agenda` (engines,
//! clock, what comes), `network`, `closing`, `late`, `datagrams`, `mesh`, `wire` and `shelf` (bytes on
//! their way and kept), `phone`, `client`, `server`, `dialog`, `proof` and `bearer` (who sends and
//! answers, and who that is), `hostile` (who should not), `script` and `household` (what happens
//! when), `edge` (a registrar behind the proxy), `endurance` (long runs), `registrar` (who may get
//! a request, in its simplest form), `check`, `checker`, `judge`, `edits`, `claims`, `listing` and
//! `ways`, `absent` (the invariants), `mutation` (faults that prove that checkers can fail), `seeds` (what
//! was found), `runner` and `trace`.

mod absent;
mod agenda;
mod bearer;
mod check;
mod checker;
mod claims;
mod client;
mod closing;
mod datagrams;
mod dialog;
mod edge;
mod edits;
mod endurance;
mod hostile;
mod house;
mod household;
mod judge;
#[path = "../lab/mod.rs"]
mod lab;
mod late;
mod listing;
mod mesh;
mod message;
mod mutation;
mod network;
mod phone;
mod profile;
mod proof;
mod registrar;
mod runner;
mod script;
mod seeds;
mod server;
mod shelf;
mod trace;
mod ways;
mod wire;
mod world;

use std::time::{Duration, Instant, SystemTime};

/// Things that happen in a seed of the large run.
const ACTS_OF_LARGE: usize = 320;
/// Seeds of the normal run.
const SEEDS: u64 = 240;
/// Seeds of the run that only the optimized simulator has time for.
const SEEDS_OF_LARGE: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|it| it.parse().unwrap_or_else(|_| panic!("{name}={it}")))
}

fn acts() -> Option<usize> {
    number("SIM_ACTS").map(|acts| acts as usize)
}

#[test]
fn some_hundred_seeds_break_nothing() {
    let first = number("SIM_FIRST_SEED").unwrap_or(0);
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let total = runner::run_many(|at| first.wrapping_add(at), acts(), |at| at < seeds);
    println!("{total:?}");
    assert!(total.figures.answered_calls > 0, "{total:?}");
}

#[test]
fn seeds_that_found_something_find_nothing() {
    for (seed, acts, what) in seeds::FOUND {
        let outcome = runner::run(&runner::profile(seed, acts), None, false);
        assert!(outcome.violations.is_empty(), "seed {seed}, {what}: {:?}", outcome.violations);
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 2, 3, 5, 8, 13, 21] {
        let profile = runner::profile(seed, None);
        let (one, other) = (runner::run(&profile, None, false), runner::run(&profile, None, false));
        assert_eq!((one.hash, one.events), (other.hash, other.events), "seed {seed}");
        let next = runner::run(&runner::profile(seed + 100, None), None, false);
        assert_ne!(one.hash, next.hash);
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "long: of the part sim, which is optimized")]
fn every_checker_catches_its_fault() {
    for (fault, checker) in mutation::FAULTS {
        // Short seeds show most of them.
        let short = (0..500).map(|seed| (seed, None));
        let all = short.chain((0..100).map(|seed| (seed, Some(ACTS_OF_LARGE))));
        let mut seeds = all.filter(|(seed, _)| checker.is_at_home(&house::House::of(*seed)));
        let caught = seeds.find(|(seed, acts)| {
            let outcome = runner::run(&runner::profile(*seed, *acts), Some(fault), false);
            outcome.violations.iter().any(|violation| violation.checker == checker)
        });
        println!("{fault:?} is seen by {checker:?} in seed {caught:?}");
        assert!(caught.is_some(), "{checker:?} does not see {fault:?}");
    }
}

#[test]
fn idle_clients_leave_nothing_behind() {
    let thin = cfg!(debug_assertions);
    let (of_each, hours) = if thin { (4, 12) } else { (200, 12) };
    let world = endurance::idle(of_each, hours);
    println!("{} events in {:?}", world.trace.events(), world.elapsed());
}

#[test]
fn registers_leave_nothing_behind() {
    let thin = cfg!(debug_assertions);
    let (of_each, count) = if thin { (10, 10_000) } else { (80, 1_000_000) };
    let world = endurance::registers(of_each, count);
    println!("{:?} in {:?}", world.books.figures, world.elapsed());
}

/// One seed with all that happens in it: `SEED=7`.
#[test]
fn replay() {
    let profile = runner::profile(number("SEED").unwrap_or(0), acts());
    let outcome = runner::run(&profile, None, number("SEED").is_some());
    println!("{:?}\n{profile:#?}", outcome.figures);
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
}

/// Seeds that nobody has seen, for `SIM_SECONDS`.
#[test]
#[ignore = "takes SIM_SECONDS"]
fn fresh_seeds_break_nothing() {
    let seconds = Duration::from_secs(number("SIM_SECONDS").unwrap_or(10));
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let first = number("SIM_FIRST_SEED").unwrap_or(since.as_secs() * 1000);
    let started = Instant::now();
    let total =
        runner::run_many(|at| first.wrapping_add(at), acts(), |_| started.elapsed() < seconds);
    println!("from seed {first}: {total:?}");
    assert!(total.seeds > 0);
}

/// As many as a minute of two processors has room for in the release profile, whatever the clock
/// says; none is one of the normal run.
#[test]
#[ignore = "a minute of two processors in the release profile"]
fn thousands_of_seeds_break_nothing() {
    let total = runner::run_many(|at| SEEDS + at, acts(), |at| at < SEEDS_OF_LARGE);
    println!("{total:?}");
    assert_eq!(total.seeds, SEEDS_OF_LARGE);
}

/// A hundred thousand calls over more than a thousand seeds.
#[test]
#[ignore = "a minute of two processors in the release profile"]
fn a_hundred_thousand_calls_break_nothing() {
    let started = Instant::now();
    let total = runner::run_many(|at| at, Some(ACTS_OF_LARGE), |at| at < 1024);
    println!("{total:?} in {:?}", started.elapsed());
    assert!(total.figures.calls >= 100_000, "{total:?}");
}
