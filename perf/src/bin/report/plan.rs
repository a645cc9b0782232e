//! What is measured: a list of cells, each a load with its number of connections, and the servers
//! that it is put on. How the load generator is told to make it stands here and nowhere else.

/// A server that can be measured; `perf/peers/start` knows its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name there.
    pub name: String,
    /// Its column in tables and its line in plots, two shards told apart.
    pub label: String,
    /// How many shards it has.
    pub shards: usize,
    /// On how many CPUs, from the first.
    pub cpus: usize,
}

impl Server {
    /// A server on one CPU.
    pub fn single(name: &str) -> Server {
        Server { name: name.to_owned(), label: name.to_owned(), shards: 1, cpus: 1 }
    }

    /// Two shards of sipring on that many CPUs.
    pub fn two_shards(cpus: usize) -> Server {
        let label = match cpus {
            1 => CROSSING,
            _ => "sipring, 2 shards",
        };
        Server { name: "sipring".to_owned(), label: label.to_owned(), shards: 2, cpus }
    }
}

/// Two shards that take turns on one CPU: what crossing costs, and going from thread to thread.
pub const CROSSING: &str = "sipring, 2 shards on 1 CPU";

/// What a cell is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// CPU time of the server for a transaction.
    Cost,
    /// Latency at a given rate.
    Latency,
    /// Memory of idle clients.
    Memory,
    /// CPU time with one shard and with two.
    Shards,
    /// CPU time of REGISTER with digest: nothing for the floor.
    Digest,
    /// What becomes of those who go on when many are lost, gone or slow: once, of the proxies.
    Event,
}

/// One load.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Its name in results.
    pub measure: &'static str,
    /// Its title in tables.
    pub title: &'static str,
    /// What it is for.
    pub kind: Kind,
    /// Connections, or users where there are none.
    pub connections: usize,
    /// Transactions a second; `None`: as many as go.
    pub rate: Option<usize>,
    /// Scenario of the load generator and its options.
    pub load: &'static [&'static str],
    /// Seconds before what is measured, and of it; of all cells the same when it is `None`.
    pub seconds: Option<[f64; 2]>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// All of it, in a quarter of an hour.
    Full,
    /// The small cells, in two minutes.
    Quick,
}

/// One row of a table: a load at several numbers of connections.
struct Row {
    measure: &'static str,
    title: &'static str,
    connections: &'static [usize],
    load: &'static [&'static str],
}

const ROWS: [Row; 13] = [
    Row {
        measure: "relay",
        title: "MESSAGE WSS to WSS",
        connections: &[100, 1_000, 5_000, 15_000],
        load: &["relay"],
    },
    Row {
        measure: "notify",
        title: "NOTIFY UDP to WSS",
        connections: &[100, 1_000, 15_000],
        load: &["notify"],
    },
    Row { measure: "call-wss", title: "call WSS to UDP", connections: &[100], load: &["call"] },
    Row {
        measure: "call-udp",
        title: "call UDP to UDP",
        connections: &[100],
        load: &["call", "--from", "udp"],
    },
    Row {
        measure: "register",
        title: "re-REGISTER over WSS",
        connections: &[1_000],
        load: &["register"],
    },
    Row {
        measure: "register-udp",
        title: "re-REGISTER over UDP",
        connections: &[1_000],
        load: &["register", "--from", "udp", "--peers", "1000"],
    },
    Row {
        measure: "options-udp",
        title: "OPTIONS answered, UDP",
        connections: &[100],
        load: &["options", "--from", "udp"],
    },
    Row {
        measure: "options-tls",
        title: "OPTIONS answered, TLS",
        connections: &[100],
        load: &["options", "--from", "tls"],
    },
    Row {
        measure: "options-wss",
        title: "OPTIONS answered, WSS",
        connections: &[100],
        load: &["options", "--from", "wss"],
    },
    Row {
        measure: "handshake",
        title: "TLS handshake, upgrade, REGISTER, close",
        connections: &[100],
        load: &["handshake"],
    },
    Row {
        measure: "resume",
        title: "the same with TLS resumed",
        connections: &[100],
        load: &["handshake", "--resume"],
    },
    Row {
        measure: "relay-ws",
        title: "MESSAGE WS to WS",
        connections: &[1_000],
        load: &["relay", "--from", "ws", "--to", "ws"],
    },
    Row {
        measure: "relay-tcp",
        title: "MESSAGE TCP to TCP",
        connections: &[100],
        load: &["relay", "--from", "tcp", "--to", "tcp"],
    },
];

/// A flow that has proved who it is is not asked again by sipring; a datagram is, each time.
const DIGEST: [Row; 2] = [
    Row {
        measure: "register-kept",
        title: "re-REGISTER over WSS, digest with a kept nonce",
        connections: &[1_000],
        load: &["register", "--password", "secret", "--keep-nonce"],
    },
    Row {
        measure: "register-asked",
        title: "re-REGISTER over UDP, digest: 401 and again",
        connections: &[1_000],
        load: &["register", "--from", "udp", "--peers", "1000", "--password", "secret"],
    },
];

const EVENTS: [Row; 6] = [
    Row {
        measure: "storm",
        title: "100 of 200 clients lost",
        connections: &[100],
        load: &["storm", "--lost", "100", "--back-off", "0.5"],
    },
    Row {
        measure: "storm",
        title: "10,000 of 11,001 clients lost",
        connections: &[1_001],
        load: &["storm", "--lost", "10000", "--back-off", "10"],
    },
    Row {
        measure: "slow",
        title: "10 of 110 clients do not read, half of the messages of 4 KB is theirs",
        connections: &[100],
        load: &["slow", "--apart", "10", "--part", "0.5", "--body", "4000", "--patience", "2"],
    },
    Row {
        measure: "dead",
        title: "50 of 150 clients have closed, a tenth of the messages is theirs",
        connections: &[100],
        load: &["dead", "--patience", "2"],
    },
    Row {
        measure: "mute",
        title: "50 of 150 clients have frozen, a tenth of the messages is theirs",
        connections: &[100],
        load: &["dead", "--gone", "mute", "--patience", "2"],
    },
    Row {
        measure: "steady",
        title: "NOTIFY UDP to WSS, transactions ending as fast as they begin",
        connections: &[1_000],
        load: &["notify"],
    },
];

const MEMORY: [Row; 3] = [
    Row {
        measure: "idle",
        title: "memory of idle registered WSS clients",
        connections: &[10_000],
        load: &["idle", "--steps", "2500,10000"],
    },
    Row {
        measure: "idle",
        title: "memory of idle registered WSS clients",
        connections: &[15_000],
        load: &["idle", "--steps", "5000,15000"],
    },
    Row {
        measure: "idle",
        title: "memory of idle registered WSS clients",
        connections: &[1_000],
        load: &["idle", "--steps", "100,1000"],
    },
];

const SHARDS: [Row; 2] = [
    Row {
        measure: "shards",
        title: "MESSAGE WSS to WSS by shards",
        connections: &[1_000],
        load: &["relay"],
    },
    Row {
        measure: "upstream",
        title: "NOTIFY from one UDP socket to WSS by shards",
        connections: &[1_000],
        load: &["notify", "--peers", "1"],
    },
];

/// Transactions a second among those who go on while others are lost, gone or slow.
const EVENT_RATE: usize = 1_000;
/// Transactions a second of the steady cell, which lasts longer than they linger (RFC 3261 §17.2.2).
const STEADY_RATE: usize = 2_000;
const STEADY_SECONDS: [f64; 2] = [34.0, 4.0];
/// Users whom a server knows that wants digest, on each side.
pub const DIGEST_USERS: usize = 1_000;

/// The greatest ratio to the floor that is aimed at.
pub fn aim(measure: &str) -> Option<f64> {
    Some(match measure {
        "relay" | "relay-ws" | "relay-tcp" => 1.5,
        "notify" | "call-wss" | "call-udp" | "register" | "register-udp" => 1.6,
        "options-udp" | "options-tls" | "options-wss" => 1.5,
        "handshake" | "resume" => 1.25,
        _ => return None,
    })
}

/// What a measure is for, of those of any size.
pub fn kind(measure: &str) -> Option<Kind> {
    cells(Size::Full).into_iter().find(|cell| cell.measure == measure).map(|cell| cell.kind)
}

/// Rates at which latency is measured, transactions a second.
const RATES: [usize; 5] = [500, 1_000, 2_000, 5_000, 10_000];
/// Connections of the quick run at most.
const QUICK_CONNECTIONS_MAX: usize = 1_000;

/// The cells, those first that matter most should time run out.
pub fn cells(size: Size) -> Vec<Cell> {
    let is_quick = size == Size::Quick;
    let cell = |kind, row: &Row, connections| Cell {
        measure: row.measure,
        title: row.title,
        kind,
        connections,
        rate: None,
        load: row.load,
        seconds: None,
    };
    let all = |kind, rows: &'static [Row]| {
        rows.iter().flat_map(move |row| row.connections.iter().map(move |&n| cell(kind, row, n)))
    };
    let mut cells: Vec<Cell> = all(Kind::Cost, &ROWS).chain(all(Kind::Digest, &DIGEST)).collect();
    cells.extend(all(Kind::Event, &EVENTS).map(|mut cell| {
        let is_steady = cell.measure == "steady";
        cell.rate = Some(if is_steady { STEADY_RATE } else { EVENT_RATE });
        cell.seconds = Some(match (is_steady, is_quick) {
            (true, false) => STEADY_SECONDS,
            (_, false) => [1.0, 4.0],
            (_, true) => [0.3, 1.0],
        });
        cell
    }));
    cells.extend(RATES.iter().map(|&rate| Cell {
        measure: "latency",
        title: "latency of MESSAGE WSS to WSS",
        kind: Kind::Latency,
        connections: 1_000,
        rate: Some(rate),
        load: &["relay"],
        seconds: None,
    }));
    cells.extend(all(Kind::Memory, &MEMORY));
    cells.extend(all(Kind::Shards, &SHARDS));
    if is_quick {
        cells.retain(|cell| cell.connections <= QUICK_CONNECTIONS_MAX && cell.measure != "steady");
    }
    cells
}

/// The servers of a cell, in the order in which they take turns.
pub fn servers(cell: &Cell, all: &[Server], cpus: usize) -> Vec<Server> {
    match cell.kind {
        Kind::Shards if cpus < 2 => Vec::new(),
        Kind::Shards => {
            vec![Server::single("sipring"), Server::two_shards(1), Server::two_shards(2)]
        }
        Kind::Digest | Kind::Event => {
            all.iter().filter(|server| server.name != "floor").cloned().collect()
        }
        Kind::Cost | Kind::Latency | Kind::Memory => all.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_cells_are_the_same() {
        for size in [Size::Full, Size::Quick] {
            let cells = cells(size);
            let key = |cell: &Cell| (cell.measure, cell.connections, cell.rate);
            let keys: HashSet<_> = cells.iter().map(key).collect();
            assert_eq!(keys.len(), cells.len());
        }
    }

    #[test]
    fn a_quick_run_has_every_kind_that_needs_no_thousands() {
        let quick = cells(Size::Quick);
        for kind in [Kind::Cost, Kind::Latency, Kind::Shards, Kind::Digest, Kind::Event] {
            assert!(quick.iter().any(|cell| cell.kind == kind), "{kind:?}");
        }
        let digest = quick.iter().filter(|cell| cell.kind == Kind::Digest);
        assert!(digest.into_iter().all(|cell| cell.connections <= DIGEST_USERS));
        assert!(quick.len() < cells(Size::Full).len());
    }
}
