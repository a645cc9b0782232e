//! The results: what the load generator printed for each run, and what is made of it: medians, and
//! ratios of servers within a round. They are kept as one JSON file, from which tables and plots
//! are drawn.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// One report.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Where and of what.
    pub machine: Machine,
    /// All runs, in the order in which they were made.
    pub runs: Vec<Run>,
}

/// One run of the load generator on one server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// What was measured.
    pub measure: String,
    /// Its title.
    pub title: String,
    /// Connections of the cell.
    pub connections: usize,
    /// Transactions a second that were asked for.
    pub rate: Option<usize>,
    /// The server's label.
    pub server: String,
    /// Runs of one round follow each other: machine and neighbours are the same for them.
    pub round: usize,
    /// What the load generator found out.
    pub measured: Option<Measured>,
    /// Each shard's part of the messages, where there are several.
    #[serde(default)]
    pub shares: Vec<f64>,
    /// Each shard's part of their CPU time, likewise.
    #[serde(default)]
    pub work: Vec<f64>,
    /// Why it did not.
    pub failure: Option<String>,
}

/// The load generator's own words, as far as they are used here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// Transactions that ended well.
    pub transactions: u64,
    /// Of them a second.
    pub rate: f64,
    /// Seconds that were measured.
    pub seconds: f64,
    /// The server's cost.
    pub server: ServerCost,
    /// The load's own.
    pub client: ClientCost,
    /// Microseconds.
    pub latency_us: Latency,
    /// Bytes of a transaction on the load's sockets.
    pub bytes: Bytes,
    /// Of the server.
    pub memory: Memory,
    /// Its proportional set size in bytes at each number of idle connections.
    pub pss: Option<BTreeMap<String, u64>>,
    /// What was wrong, and how often.
    pub errors: BTreeMap<String, u64>,
    /// Those who went on, while many came back.
    pub storm: Option<Storm>,
    /// Those who went on, while others were gone or slow.
    pub meanwhile: Option<Meanwhile>,
    /// The requests for those others.
    pub apart: Option<Apart>,
}

/// Many lost their connection and came back.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Storm {
    /// Until the last was registered again.
    pub seconds: f64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// Of the server and of the load.
    pub busy: Busy,
    /// Of the messages of the others, microseconds.
    pub latency_us: Latency,
}

/// Others were gone or slow.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Meanwhile {
    /// Of the messages of those who went on, microseconds.
    pub latency_us: Latency,
    /// The latency of 99 % of them without and with the others, of each round.
    pub rounds_p99_us: Vec<[f64; 2]>,
    /// CPU time of the server for a message, those for the others included.
    pub us_per_message: Option<f64>,
    /// Of the server and of the load.
    pub busy: Busy,
}

impl Meanwhile {
    /// The medians of [`Meanwhile::rounds_p99_us`]; none when there are no rounds.
    pub fn p99_us(&self) -> Option<[f64; 2]> {
        let median = |at: usize| {
            let mut all: Vec<f64> = self.rounds_p99_us.iter().map(|round| round[at]).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied()
        };
        Some([median(0)?, median(1)?])
    }
}

/// Requests for those who are gone or slow.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Apart {
    /// Final responses by status.
    pub answers: BTreeMap<String, u64>,
    /// Without one in time.
    pub unanswered: u64,
}

/// Parts of the time that passed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Busy {
    pub server: Option<f64>,
    pub client: f64,
}

/// CPU time of the server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerCost {
    /// In user space.
    pub cpu_user_us: f64,
    /// In the kernel.
    pub cpu_sys_us: f64,
    /// Both, of one transaction; none when there was none.
    pub us_per_transaction: Option<f64>,
}

/// CPU time of the load generator.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientCost {
    /// Of one transaction.
    pub cpu_us_per_transaction: Option<f64>,
    /// Part of its CPU that it used; near 1 it is the limit, not the server.
    pub busy: f64,
}

/// Latencies of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// Bytes of one transaction.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Bytes {
    pub out_per_transaction: Option<f64>,
    pub in_per_transaction: Option<f64>,
}

/// Proportional set size of the server, in bytes, with few idle connections and with many.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Memory {
    pub pss_before: u64,
    pub pss_after: u64,
    pub per_connection: Option<f64>,
}

/// A median with the least and the greatest value behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median; of an even number of values the mean of the middle two.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
    /// How many.
    pub count: usize,
}

impl Spread {
    /// Of those values, if there are any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (&least, &greatest) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Spread { median, least, greatest, count: values.len() })
    }
}

/// A figure of a run, if it has that.
pub type Figure = fn(&Measured) -> Option<f64>;

/// CPU time of the server for a transaction, in microseconds.
pub fn cost(measured: &Measured) -> Option<f64> {
    measured.server.us_per_transaction
}

/// The runs of one measure with one number of connections and one rate.
pub struct CellRuns<'a> {
    /// As in every one of its runs.
    pub measure: &'a str,
    pub title: &'a str,
    pub connections: usize,
    pub rate: Option<usize>,
    runs: Vec<&'a Run>,
}

impl Report {
    /// The server's memory in bytes (PSS) at each number of idle clients at which it was read.
    pub fn idle_memory(&self, server: &str) -> BTreeMap<u64, u64> {
        let runs = self.runs.iter().filter(|run| run.server == server);
        let readings = runs.filter_map(|run| run.measured.as_ref()?.pss.as_ref()).flatten();
        readings.filter_map(|(count, pss)| Some((count.parse().ok()?, *pss))).collect()
    }

    /// The cells of the measures that are wanted, in the order in which they were measured.
    pub fn cells(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<CellRuns<'_>> {
        let mut cells: Vec<CellRuns<'_>> = Vec::new();
        for run in self.runs.iter().filter(|run| is_wanted(&run.measure)) {
            match cells.iter_mut().find(|cell| cell.has(run)) {
                Some(cell) => cell.runs.push(run),
                None => cells.push(CellRuns {
                    measure: &run.measure,
                    title: &run.title,
                    connections: run.connections,
                    rate: run.rate,
                    runs: vec![run],
                }),
            }
        }
        cells
    }

    /// The cell of a measure with so many connections, at that rate if there is one.
    pub fn cell(
        &self,
        measure: &str,
        connections: usize,
        rate: Option<usize>,
    ) -> Option<CellRuns<'_>> {
        let mut cells = self.cells(|it| it == measure).into_iter();
        cells.find(|cell| (cell.connections, cell.rate) == (connections, rate))
    }

    /// The servers that were measured, as `wanted` picks runs: the floor, sipring, its peers.
    pub fn servers(&self, wanted: impl Fn(&Run) -> bool) -> Vec<&str> {
        let mut servers: Vec<&str> = Vec::new();
        for run in self.runs.iter().filter(|run| wanted(run)) {
            if !servers.contains(&run.server.as_str()) {
                servers.push(&run.server);
            }
        }
        let rank = |server: &str| ["floor", "sipring"].iter().position(|it| *it == server);
        servers.sort_by_key(|server| (rank(server).unwrap_or(usize::MAX), *server));
        servers
    }
}

impl<'a> CellRuns<'a> {
    fn has(&self, run: &Run) -> bool {
        self.measure == run.measure && self.connections == run.connections && self.rate == run.rate
    }

    /// A figure of one server over all rounds.
    pub fn figure(&self, server: &str, figure: Figure) -> Option<Spread> {
        Spread::of(self.good(server).filter_map(|(_, measured)| figure(measured)))
    }

    /// A figure of one server as a multiple of another's in the same round.
    pub fn ratio(&self, server: &str, to: &str, figure: Figure) -> Option<Spread> {
        Spread::of(self.good(server).filter_map(|(round, measured)| {
            let (_, other) = self.good(to).find(|(other, _)| *other == round)?;
            Some(figure(measured)? / figure(other)?)
        }))
    }

    /// Each shard's part of the messages and of the CPU time, in the last run that has it.
    pub fn shares(&self, server: &str) -> Option<(&'a [f64], &'a [f64])> {
        let runs = self.runs.iter().copied().filter(|run| run.server == server);
        let mut parts = runs.map(|run| (run.shares.as_slice(), run.work.as_slice()));
        parts.rfind(|(shares, _)| !shares.is_empty())
    }

    /// What was measured last of a server.
    pub fn last(&self, server: &str) -> Option<&'a Measured> {
        let runs = self.runs.iter().copied().filter(|run| run.server == server);
        runs.filter_map(|run| run.measured.as_ref()).next_back()
    }

    /// What went wrong with a server, each thing once.
    pub fn faults(&self, server: &str) -> Vec<String> {
        let mut faults: Vec<String> = Vec::new();
        for run in self.runs.iter().filter(|run| run.server == server) {
            let errors = run.measured.iter().flat_map(|measured| &measured.errors);
            let errors = errors.filter(|(_, count)| **count > 0).map(|(kind, _)| kind.clone());
            for fault in run.failure.iter().cloned().chain(errors) {
                if !faults.contains(&fault) {
                    faults.push(fault);
                }
            }
        }
        faults
    }

    fn good<'b>(&'b self, server: &'b str) -> impl Iterator<Item = (usize, &'b Measured)> {
        let runs = self.runs.iter().filter(move |run| run.server == server);
        runs.filter_map(|run| Some((run.round, run.measured.as_ref()?)))
    }
}

#[cfg(test)]
pub mod samples {
    use super::*;

    /// A report of one cell: floor 10, 12, 11 µs; sipring half as much again.
    pub fn report() -> Report {
        let mut report = Report { machine: Machine::default(), runs: Vec::new() };
        for (round, floor) in [10.0, 12.0, 11.0].into_iter().enumerate() {
            for (server, factor) in [("floor", 1.0), ("sipring", 1.5), ("kamailio", 4.0)] {
                for connections in [100, 1_000] {
                    report.runs.push(run(server, round, connections, floor * factor));
                }
            }
        }
        report
    }

    fn run(server: &str, round: usize, connections: usize, cost: f64) -> Run {
        let server_cost = ServerCost { us_per_transaction: Some(cost), ..ServerCost::default() };
        Run {
            measure: "relay".to_owned(),
            title: "MESSAGE WSS to WSS".to_owned(),
            connections,
            rate: None,
            server: server.to_owned(),
            round,
            shares: Vec::new(),
            work: Vec::new(),
            measured: Some(Measured { server: server_cost, ..Measured::default() }),
            failure: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_in_the_middle() {
        let odd = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.least, odd.median, odd.greatest, odd.count), (1.0, 2.0, 3.0, 3));
        assert_eq!(Spread::of([4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
    }

    #[test]
    fn ratios_are_of_one_round() {
        let report = samples::report();
        let cell = report.cell("relay", 100, None).expect("measured");
        assert_eq!(cell.figure("floor", cost).unwrap().median, 11.0);
        let ratio = cell.ratio("sipring", "floor", cost).unwrap();
        assert_eq!((ratio.least, ratio.median, ratio.greatest), (1.5, 1.5, 1.5));
        assert_eq!(cell.ratio("sipring", "opensips", cost), None);
    }

    #[test]
    fn what_went_wrong_is_told_once() {
        let mut report = samples::report();
        for run in &mut report.runs {
            run.failure = Some("it fell over".to_owned());
        }
        assert_eq!(
            report.cell("relay", 100, None).expect("measured").faults("floor"),
            ["it fell over"]
        );
    }

    #[test]
    fn what_the_load_prints_is_read_whatever_it_leaves_out() {
        let text = r#"{"scenario":"relay","transactions":10,"server":{"pid":[1],"us_per_transaction":9.5},
            "client":{"cpu_us_per_transaction":null,"share":null},"errors":{"lost":1}}"#;
        let measured: Measured = serde_json::from_str(text).unwrap();
        assert_eq!((measured.transactions, cost(&measured)), (10, Some(9.5)));
        assert_eq!(measured.errors["lost"], 1);
    }
}
