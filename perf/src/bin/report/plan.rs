//! What is measured: a list of cells, each a load with its number of connections, and the servers
//! that it is put on. How the load generator is told to make it stands here and nowhere else.

/// A server that can be measured; `perf/peers/start` knows its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name there.
    pub name: String,
    /// Its column in tables and its line in plots, two shards told apart.
    pub label: String,
    /// How many threads it has, and CPUs.
    pub shards: usize,
}

impl Server {
    /// A server on one CPU.
    pub fn single(name: &str) -> Server {
        Server { name: name.to_owned(), label: name.to_owned(), shards: 1 }
    }

    /// sipring on so many CPUs.
    pub fn shards(shards: usize) -> Server {
        let label = format!("sipring, {shards} shards");
        Server { name: "sipring".to_owned(), label, shards }
    }
}

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

const ROWS: [Row; 12] = [
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

/// Rates at which latency is measured, transactions a second.
const RATES: [usize; 5] = [500, 1_000, 2_000, 5_000, 10_000];
/// Connections of the quick run at most.
const QUICK_CONNECTIONS_MAX: usize = 1_000;

/// The cells, those first that matter most should time run out.
pub fn cells(size: Size) -> Vec<Cell> {
    let is_quick = size == Size::Quick;
    let rows = ROWS.iter().flat_map(|row| {
        row.connections.iter().map(|&connections| Cell {
            measure: row.measure,
            title: row.title,
            kind: Kind::Cost,
            connections,
            rate: None,
            load: row.load,
        })
    });
    let mut cells: Vec<Cell> = rows.collect();
    cells.extend(RATES.iter().map(|&rate| Cell {
        measure: "latency",
        title: "latency of MESSAGE WSS to WSS",
        kind: Kind::Latency,
        connections: 1_000,
        rate: Some(rate),
        load: &["relay"],
    }));
    cells.push(Cell {
        measure: "idle",
        title: "memory of idle registered WSS clients",
        kind: Kind::Memory,
        connections: 10_000,
        rate: None,
        load: &["idle", "--steps", "2500,10000"],
    });
    cells.push(Cell {
        measure: "shards",
        title: "MESSAGE WSS to WSS by shards",
        kind: Kind::Shards,
        connections: 1_000,
        rate: None,
        load: &["relay"],
    });
    if is_quick {
        cells.retain(|cell| cell.connections <= QUICK_CONNECTIONS_MAX);
    }
    cells
}

/// The servers of a cell, in the order in which they take turns.
pub fn servers(cell: &Cell, all: &[Server], cpus: usize) -> Vec<Server> {
    match cell.kind {
        Kind::Shards if cpus < 2 => Vec::new(),
        Kind::Shards => vec![Server::single("sipring"), Server::shards(2)],
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
        for kind in [Kind::Cost, Kind::Latency, Kind::Shards] {
            assert!(quick.iter().any(|cell| cell.kind == kind), "{kind:?}");
        }
        assert!(quick.len() < cells(Size::Full).len());
    }
}
