//! A report as Markdown: a line about the machine, a table of costs with ratios and their spread, and
//! tables of bytes, latency, memory and shards where they were measured.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::events;
use crate::plan::{Kind, aim, kind};
use crate::results::{CellRuns, Figure, Measured, Report, Run, Spread, cost};

/// What all is compared with.
const FLOOR: &str = "floor";
/// What is compared.
const OURS: &str = "sipring";

/// Bytes of an idle client that are aimed at, and with how many it is looked at.
const IDLE_AIM: f64 = 6144.0;
const IDLE_AIMED: usize = 10_000;

/// Where and of what a report is.
pub fn machine(report: &Report) -> String {
    let it = &report.machine;
    let rounds = report.runs.iter().map(|run| run.round + 1).max().unwrap_or(0);
    let rounds = if rounds == 1 { "One round".to_owned() } else { format!("{rounds} rounds") };
    let peers: Vec<String> = it.peers.iter().map(|peer| format!("{peer}.\n")).collect();
    format!(
        "{}, {} CPUs, Linux {}; {}, commit {}, load average {:.1} before the run.\n\
         {rounds} by `{}`.\n{}",
        it.processor,
        it.cpus,
        it.kernel,
        it.day,
        it.commit,
        it.load_average,
        it.command,
        peers.concat()
    )
}

/// The costs alone: what the readme shows.
pub fn costs(report: &Report) -> String {
    let is_cost = |run: &Run| shows_cost(&run.measure);
    let servers = report.servers(is_cost);
    let peers: Vec<&str> =
        servers.iter().copied().filter(|server| ![FLOOR, OURS].contains(server)).collect();
    let mut out = String::from("| measure | clients | floor | sipring | sipring / floor | aim |");
    let mut rule = String::from("|---|---|---|---|---|---|");
    for peer in &peers {
        let _ = write!(out, " {peer} | {peer} / sipring |");
        rule.push_str("---|---|");
    }
    let _ = writeln!(out, "\n{rule}");
    for cell in report.cells(shows_cost) {
        let _ = write!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            cell.title,
            grouped(cell.connections as f64),
            value(&cell, FLOOR, cost),
            value(&cell, OURS, cost),
            ratio(&cell, OURS, FLOOR),
            aim(cell.measure).map_or(String::new(), |aim| {
                let median = cell.ratio(OURS, FLOOR, cost).map(|spread| spread.median);
                verdict(&format!("{aim}"), median.map(|ratio| ratio <= aim))
            })
        );
        for peer in &peers {
            let _ = write!(out, " {} | {} |", value(&cell, peer, cost), ratio(&cell, peer, OURS));
        }
        out.push('\n');
    }
    out
}

/// Whether a measure is one of CPU time, for servers of one shard.
fn shows_cost(measure: &str) -> bool {
    matches!(kind(measure), Some(Kind::Cost | Kind::Digest))
}

/// An aim, and whether it is reached.
pub fn verdict(aim: &str, is_reached: Option<bool>) -> String {
    match is_reached {
        None => aim.to_owned(),
        Some(true) => format!("{aim}: reached"),
        Some(false) => format!("{aim}: **missed**"),
    }
}

/// Everything.
pub fn whole(report: &Report) -> String {
    let mut out = machine(report);
    let _ = write!(
        out,
        "\nCPU time of the server for a transaction, in microseconds: medians; behind a ratio its least and\n\
         greatest value, each of one round. A cell with † had faults, which stand below.\n\n{}",
        costs(report)
    );
    for (title, text) in [
        ("Bytes of a transaction on the load's sockets, out and in:", bytes(report)),
        ("Latency in microseconds against load, median and 99 %:", latency(report)),
        (
            "Memory of an idle registered client, in bytes (PSS), and of the whole server in MB:",
            memory(report),
        ),
        (
            "The same since the server was empty, at each number of clients:",
            memory_by_clients(report),
        ),
        ("What digest adds to the REGISTER without it:", events::digest(report)),
        (
            "10 seconds of back-off at most, 1,000 messages a second among those who stay:",
            events::storm(report),
        ),
        (
            "Clients that are slow or gone, 1,000 messages a second, latency of the others' in microseconds:",
            events::apart(report),
        ),
        ("Steady state, µs of CPU:", events::steady(report)),
        (
            "One shard and two, CPU of both, and each shard's part of the messages and of the CPU time:",
            shards(report),
        ),
        ("Faults:", faults(report)),
    ] {
        if !text.is_empty() {
            let _ = write!(out, "\n{title}\n\n{text}");
        }
    }
    out
}

fn bytes(report: &Report) -> String {
    let rows = |measured: &Measured| measured.bytes.out_per_transaction.is_some();
    let has_bytes = |run: &Run| run.rate.is_none() && run.measured.as_ref().is_some_and(rows);
    let servers = report.servers(has_bytes);
    let mut lines = Lines::new("measure | clients", &servers);
    let is_shown = |it: &str| report.runs.iter().any(|run| run.measure == it && has_bytes(run));
    for cell in report.cells(is_shown).into_iter().filter(|cell| cell.rate.is_none()) {
        let row = format!("{} | {}", cell.title, grouped(cell.connections as f64));
        lines.add(&row, &servers, |server| {
            let out = cell.figure(server, |it| it.bytes.out_per_transaction)?;
            let back = cell.figure(server, |it| it.bytes.in_per_transaction)?;
            Some(format!("{:.0}, {:.0}", out.median, back.median))
        });
    }
    lines.text
}

fn latency(report: &Report) -> String {
    let servers = report.servers(|run| run.measure == "latency");
    let mut lines = Lines::new("transactions a second", &servers);
    for cell in report.cells(|it| it == "latency") {
        let Some(asked) = cell.rate else { continue };
        lines.add(&grouped(asked as f64), &servers, |server| {
            let half = cell.figure(server, |it| Some(it.latency_us.p50))?;
            let most = cell.figure(server, |it| Some(it.latency_us.p99))?;
            Some(format!(
                "{}, {}{}",
                grouped(half.median),
                grouped(most.median),
                mark(&cell, server)
            ))
        });
    }
    lines.text
}

fn memory(report: &Report) -> String {
    let servers = report.servers(|run| run.measure == "idle");
    let mut lines = Lines::new("clients", &servers);
    for cell in report.cells(|it| it == "idle") {
        lines.add(&grouped(cell.connections as f64), &servers, |server| {
            let each = cell.figure(server, |it| it.memory.per_connection)?;
            let all = cell.figure(server, |it| Some(it.memory.pss_after as f64 / 1e6))?;
            let is_ours = server == OURS && cell.connections == IDLE_AIMED;
            let aim = match is_ours {
                true => verdict(" (6,144", Some(each.median <= IDLE_AIM)) + ")",
                false => String::new(),
            };
            Some(format!("{}{aim}, {:.0}{}", grouped(each.median), all.median, mark(&cell, server)))
        });
    }
    lines.text
}

fn memory_by_clients(report: &Report) -> String {
    let servers = report.servers(|run| run.measure == "idle");
    let counts: BTreeSet<u64> =
        servers.iter().flat_map(|server| report.idle_memory(server).into_keys()).collect();
    let mut lines = Lines::new("clients", &servers);
    for count in counts.into_iter().filter(|count| *count > 0) {
        lines.add(&grouped(count as f64), &servers, |server| {
            let of_server = report.idle_memory(server);
            let (empty, full) = (*of_server.get(&0)? as f64, *of_server.get(&count)? as f64);
            let each = (full - empty) / count as f64;
            Some(format!("{}, {:.0}", grouped(each), full / 1e6))
        });
    }
    lines.text
}

fn shards(report: &Report) -> String {
    let servers = report.servers(|run| kind(&run.measure) == Some(Kind::Shards));
    let mut lines = Lines::new("measure", &servers);
    for cell in report.cells(|it| kind(it) == Some(Kind::Shards)) {
        lines.add(cell.title, &servers, |server| {
            let parts = cell.shares(server).map_or(String::new(), |(messages, time)| {
                format!(" ({}; {})", percents(messages), percents(time))
            });
            Some(value(&cell, server, cost) + &parts)
        });
    }
    lines.text
}

fn percents(parts: &[f64]) -> String {
    let each: Vec<String> = parts.iter().map(|part| format!("{:.0} %", part * 100.0)).collect();
    each.join(", ")
}

fn faults(report: &Report) -> String {
    let mut out = String::new();
    for cell in report.cells(|_| true) {
        for server in report.servers(|run| run.measure == cell.measure) {
            for fault in cell.faults(server) {
                let rate = cell.rate.map_or(String::new(), |rate| format!(" at {rate}/s"));
                let (title, clients) = (cell.title, cell.connections);
                let _ = writeln!(out, "- {title}, {clients} clients{rate}, {server}: {fault}");
            }
        }
    }
    out
}

/// A table with a column for each server, empty until something is added.
pub struct Lines {
    head: String,
    /// What it has so far.
    pub text: String,
}

impl Lines {
    /// Titles of the first columns, and the servers.
    pub fn new(first: &str, servers: &[&str]) -> Lines {
        let columns = first.split('|').count() + servers.len();
        let head = format!("| {first} | {} |\n|{}\n", servers.join(" | "), "---|".repeat(columns));
        Lines { head, text: String::new() }
    }

    /// Adds a row: `cell` says what stands under a server.
    pub fn add(&mut self, first: &str, servers: &[&str], cell: impl Fn(&str) -> Option<String>) {
        if self.text.is_empty() {
            self.text.push_str(&self.head);
        }
        let _ = write!(self.text, "| {first} |");
        for server in servers {
            let _ = write!(self.text, " {} |", cell(server).unwrap_or_default());
        }
        self.text.push('\n');
    }
}

/// A median.
pub fn value(cell: &CellRuns<'_>, server: &str, figure: Figure) -> String {
    let shown =
        cell.figure(server, figure).map_or(String::new(), |spread| significant(spread.median));
    shown + mark(cell, server)
}

/// The sign of faults.
pub fn mark(cell: &CellRuns<'_>, server: &str) -> &'static str {
    if cell.faults(server).is_empty() { "" } else { "†" }
}

fn ratio(cell: &CellRuns<'_>, server: &str, to: &str) -> String {
    let Some(Spread { median, least, greatest, count }) = cell.ratio(server, to, cost) else {
        return String::new();
    };
    if count == 1 {
        return format!("{median:.2}");
    }
    format!("{median:.2} ({least:.2} to {greatest:.2})")
}

/// Three digits or so: 9.61, 35.2, 178.
fn significant(value: f64) -> String {
    match value {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => grouped(value),
    }
}

/// A whole number with its thousands set off.
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::samples;

    #[test]
    fn a_row_has_medians_and_ratios_with_their_spread() {
        let text = costs(&samples::report());
        let row = "| MESSAGE WSS to WSS | 1,000 | 11.0 | 16.5 | 1.50 (1.50 to 1.50) | 1.5: reached \
                   | 44.0 | 2.67 (2.67 to 2.67) |";
        assert!(text.contains(row), "{text}");
        let widths: Vec<usize> = text.lines().map(|line| line.matches('|').count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }

    #[test]
    fn a_server_that_failed_has_a_mark_and_a_line() {
        let mut report = samples::report();
        for run in report.runs.iter_mut().filter(|run| run.server == "kamailio") {
            (run.measured, run.failure) = (None, Some("no answer".to_owned()));
        }
        let text = whole(&report);
        assert!(text.contains(" | † |  |\n"), "{text}");
        assert!(text.contains("- MESSAGE WSS to WSS, 100 clients, kamailio: no answer\n"));
    }

    #[test]
    fn memory_is_shown_at_each_number_of_clients() {
        let mut report = samples::report();
        for run in report.runs.iter_mut().filter(|run| run.server == "floor") {
            run.measure = "idle".to_owned();
            let readings = [("0", 20), ("1000", 25), ("10000", 70)];
            let pss = readings.iter().map(|(count, mb)| (count.to_string(), mb * 1_000_000));
            run.measured.as_mut().unwrap().pss = Some(pss.collect());
        }
        let text = memory_by_clients(&report);
        assert!(text.ends_with("| 1,000 | 5,000, 25 |\n| 10,000 | 5,000, 70 |\n"), "{text}");
    }

    #[test]
    fn tables_that_have_nothing_are_left_out() {
        let text = whole(&samples::report());
        for title in ["Latency", "Memory", "One shard", "Faults"] {
            assert!(!text.contains(&format!("\n{title}")), "{text}");
        }
    }

    #[test]
    fn numbers_are_shown_with_three_digits_or_in_thousands() {
        let shown: Vec<String> =
            [9.614, 35.25, 178.2, 12_345.6].into_iter().map(significant).collect();
        assert_eq!(shown, ["9.61", "35.2", "178", "12,346"]);
    }
}
