//! Runs seeds on all processors, and says of one that fails what it was and how to see it again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::check::Figures;
use crate::checker::{Checker, Violation};
use crate::mutation::Fault;
use crate::profile::Profile;
use crate::script;

/// What came of one seed.
pub struct Outcome {
    pub violations: Vec<Violation>,
    pub figures: Figures,
    pub events: u64,
    pub hash: u64,
    pub elapsed: Duration,
}

/// What came of many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Total {
    pub seeds: u64,
    pub events: u64,
    pub elapsed: Duration,
    pub figures: Figures,
}

/// One seed, with so many acts instead of its own number.
pub fn profile(seed: u64, acts: Option<usize>) -> Profile {
    let mut profile = Profile::of(seed);
    profile.acts = acts.unwrap_or(profile.acts);
    profile
}

/// A panic of an engine is a violation like any other.
pub fn run(profile: &Profile, fault: Option<Fault>, shown: bool) -> Outcome {
    let run = || script::run(profile.clone(), fault, shown);
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(world) => Outcome {
            violations: world.books.violations().to_vec(),
            figures: world.books.figures,
            events: world.trace.events(),
            hash: world.trace.hash(),
            elapsed: world.elapsed(),
        },
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or(panic.downcast_ref::<&str>().map(|it| (*it).into()));
            let text = text.unwrap_or_default();
            Outcome {
                violations: vec![Violation { checker: Checker::Panic, text }],
                figures: Figures::default(),
                events: 0,
                hash: 0,
                elapsed: Duration::ZERO,
            }
        }
    }
}

/// Runs seeds, which `seed_of` gives by number, while `goes_on` says so of the next number; panics
/// with the first that fails.
pub fn run_many(
    seed_of: impl Fn(u64) -> u64 + Sync,
    acts: Option<usize>,
    goes_on: impl Fn(u64) -> bool + Sync,
) -> Total {
    let next = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let total = Mutex::new(Total::default());
    let failure = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if failed.load(Ordering::Relaxed) || !goes_on(at) {
                        break;
                    }
                    let profile = profile(seed_of(at), acts);
                    let outcome = run(&profile, None, false);
                    total.lock().expect("no panic holds it").add(&outcome);
                    if let Some(violation) = outcome.violations.into_iter().next() {
                        failed.store(true, Ordering::Relaxed);
                        let mut failure = failure.lock().expect("no panic holds it");
                        failure.get_or_insert((profile, violation));
                    }
                }
            });
        }
    });
    if let Some((profile, violation)) = failure.into_inner().expect("no panic holds it") {
        panic!("{}", describe(&profile, &violation, acts));
    }
    total.into_inner().expect("no panic holds it")
}

fn describe(profile: &Profile, violation: &Violation, acts: Option<usize>) -> String {
    let wanted = acts.map(|acts| format!("SIM_ACTS={acts} ")).unwrap_or_default();
    let Profile { seed, .. } = profile;
    let Violation { checker, text } = violation;
    format!(
        "seed {seed}: {checker:?}: {text}\n{profile:#?}\n\
replay: SEED={seed} {wanted}cargo test --test sim replay -- --nocapture\n\
once mended, in tests/sim/seeds.rs: ({seed}, {acts:?}, \"what it found\"),"
    )
}

impl Total {
    fn add(&mut self, outcome: &Outcome) {
        let Figures { calls, answered_calls, messages, registers } = outcome.figures;
        self.seeds += 1;
        self.events += outcome.events;
        self.elapsed += outcome.elapsed;
        self.figures.calls += calls;
        self.figures.answered_calls += answered_calls;
        self.figures.messages += messages;
        self.figures.registers += registers;
    }
}
