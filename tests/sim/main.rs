//! The simulator.
mod check;
mod client;
mod dialog;
mod edits;
mod hostile;
#[path = "../lab/mod.rs"]
mod lab;
mod mesh;
mod message;
mod mutation;
mod network;
mod phone;
mod profile;
mod registrar;
mod runner;
mod script;
mod server;
mod trace;
mod wire;
mod world;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|it| it.parse().ok())
}

#[test]
fn some_hundred_seeds_break_nothing() {
    let first = number("SIM_FIRST_SEED").unwrap_or(0);
    let seeds = number("SIM_SEEDS").unwrap_or(200);
    let total = runner::run_many(first, number("SIM_ACTS").map(|it| it as usize), |at| at < seeds);
    println!("{total:?}");
}

#[test]
fn replay() {
    let seed = number("SEED").unwrap_or(0);
    let profile = runner::profile(seed, number("SIM_ACTS").map(|it| it as usize));
    let outcome = runner::run(&profile, None, true);
    println!("{:?} {:?}", outcome.violation, outcome.figures);
}
