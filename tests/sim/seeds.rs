//! Seeds that find a fault which the engine once had, when it is put in again, or that a checker once
//! laid on it. A seed says the same only as long as the simulator does; each fault has a scenario test
//! of its own besides, or a test beside its checker.

/// Seed, acts where not its own, and the fault.
pub const FOUND: [(u64, Option<usize>, &str); 14] = [
    (2, None, "the ACK of a refusal without a transaction went on to the callees"),
    (26, None, "a keep-alive in two pieces took the next message's time"),
    (37, None, "what a client said on a new flow came back to its old one"),
    (86, None, "Contacts of a failed shard's bindings stayed in the index"),
    (101, None, "a refused request to another shard did not give its block back"),
    (315, Some(320), "the answer of a client that had another Contact counted as its own"),
    (675, Some(320), "a caller that has a secure flow besides a plain one counted as gone"),
    (838, None, "what a client had said before it vanished counted as the answer to a probe"),
    (1099, None, "a CANCEL without room for its transaction was not sent"),
    (5450, None, "a grant whose answer was lost counted as none, and the one before as the last"),
    (1_795_413_685_494, None, "a REGISTER behind a request, in one segment, counted as before it"),
    (
        1_795_476_685_070,
        None,
        "a call that began in the clear was held to TLS by a flow in between",
    ),
    (1_795_478_011_671, None, "a late answer of the core took out who was back by then"),
    (1_795_478_346_263, None, "a secure flow was not asked when its client came on a plain one"),
];
