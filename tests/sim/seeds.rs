//! Seeds that found a fault of the engine, with what it was. A seed says the same only as long as
//! the simulator does; each fault has a scenario test of its own besides.

/// Seed, acts, and what it found.
pub const FOUND: [(u64, Option<usize>, &str); 0] = [];
