//! Making the runs: a server is started alone on its CPU, the load generator on another, and both
//! end before the next begin. A round is every server on every cell once; servers take turns within
//! a cell, so that what changes about the machine changes for all of them. Rounds follow until time
//! is up, at least one.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write, stderr};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::plan::{Cell, DIGEST_USERS, Kind, Server, servers};
use crate::results::{Measured, Run};

/// Load comes before what is measured: this part of its time.
const WARMUP_PART: f64 = 4.0;

/// Memory that is touched before a server starts: more than one takes in a run.
const WARM_BYTES: usize = 256 << 20;

/// How the runs are made.
pub struct Setup {
    /// The folder `perf`.
    pub perf: PathBuf,
    /// The load generator.
    pub generator: PathBuf,
    /// Servers that are compared.
    pub servers: Vec<Server>,
    /// Seconds that one run measures.
    pub seconds: f64,
    /// When no further run is to begin.
    pub deadline: Instant,
    /// Rounds at most.
    pub rounds: usize,
    /// CPUs of this machine.
    pub cpus: usize,
    /// The first of the ports that servers listen on.
    pub port: u16,
}

impl Setup {
    /// Makes the runs of all cells, and tells `keep` of them as they come.
    pub fn measure(&self, cells: &[Cell], mut keep: impl FnMut(Run) -> Result<()>) -> Result<()> {
        for round in 0..self.rounds {
            for (position, cell) in cells.iter().enumerate() {
                let contestants = servers(cell, &self.servers, self.cpus);
                // The last of a round may not always be the same.
                let turn = (round + position) % contestants.len().max(1);
                for server in contestants[turn..].iter().chain(&contestants[..turn]) {
                    if round > 0 && Instant::now() >= self.deadline {
                        return Ok(());
                    }
                    // What memory is taken does not change from round to round, and events take long.
                    if round == 0 || !matches!(cell.kind, Kind::Memory | Kind::Event) {
                        keep(self.run(cell, server, round))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn run(&self, cell: &Cell, server: &Server, round: usize) -> Run {
        let mut run = Run {
            measure: cell.measure.to_owned(),
            title: cell.title.to_owned(),
            connections: cell.connections,
            rate: cell.rate,
            server: server.label.clone(),
            round,
            measured: None,
            shares: Vec::new(),
            work: Vec::new(),
            failure: None,
        };
        let started = Instant::now();
        match self.try_run(cell, server) {
            Ok((measured, parts)) => {
                run.measured = Some(measured);
                (run.shares, run.work) = parts.unwrap_or_default();
            }
            Err(error) => run.failure = Some(format!("{error:#}")),
        }
        tell(&run, started.elapsed());
        run
    }

    /// What the load found out, and each shard's part where there are two.
    fn try_run(&self, cell: &Cell, server: &Server) -> Result<(Measured, Option<Parts>)> {
        let users = if cell.kind == Kind::Digest { DIGEST_USERS } else { 0 };
        let mut running = Running::start(self, server, users)?;
        let text = self.load(cell, server, &running.pids);
        let parts = (server.shards > 1).then(|| self.parts(&running.pids)).transpose();
        let ended = running.stop();
        let measured = serde_json::from_str(&text?).context("what the load printed")?;
        ended.with_context(|| format!("ending {}", server.label))?;
        Ok((measured, parts?))
    }

    fn parts(&self, pids: &[String]) -> Result<Parts> {
        Ok((shares(&self.metrics()?), work(pids)?))
    }

    /// What sipring's admin page says.
    fn metrics(&self) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port + 9)).context("admin page")?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: perf\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Runs the load generator: what it prints.
    fn load(&self, cell: &Cell, server: &Server, pids: &[String]) -> Result<String> {
        // With two CPUs a server on both shares one with the load.
        let cpu = self.cpus.saturating_sub(1).min(server.cpus);
        let mut command = Command::new("taskset");
        command.args(["-c", &cpu.to_string()]).arg(&self.generator).args(cell.load).arg("--json");
        for (transport, offset) in [("udp", 0), ("tcp", 0), ("tls", 1), ("ws", 2), ("wss", 3)] {
            let address = format!("127.0.0.1:{}", self.port + offset);
            command.args([&format!("--{transport}"), &address]);
        }
        if cell.kind != Kind::Memory {
            command.args(["--connections", &cell.connections.to_string()]);
            let usual = [self.seconds / WARMUP_PART, self.seconds];
            let [warmup, seconds] = cell.seconds.unwrap_or(usual);
            command.args(["--seconds", &seconds.to_string()]);
            command.args(["--warmup", &warmup.to_string()]);
        }
        cell.rate.iter().for_each(|rate| {
            command.args(["--rate", &rate.to_string()]);
        });
        pids.iter().for_each(|pid| {
            command.args(["--server-pid", pid]);
        });
        let output = command.stdin(Stdio::null()).output().context("starting the load")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        ensure!(output.status.success(), "the load ended with {}: {last}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn tell(run: &Run, took: Duration) {
    let what = match (&run.measured, &run.failure) {
        (Some(measured), _) => format!(
            "{:8.2} µs {:9.0}/s, load at {:3.0} %",
            measured.server.us_per_transaction.unwrap_or(f64::NAN),
            measured.rate,
            measured.client.busy * 100.0
        ),
        (None, failure) => failure.clone().unwrap_or_default(),
    };
    let rate = run.rate.map_or(String::new(), |rate| format!(" at {rate}/s"));
    let _ = writeln!(
        stderr(),
        "{:2} {:12} {:6}{rate:11} {:18} {what} ({:.0} s)",
        run.round + 1,
        run.measure,
        run.connections,
        run.server,
        took.as_secs_f64()
    );
}

/// Each shard's part of the SIP messages that were received, as the metrics have them.
fn shares(metrics: &str) -> Vec<f64> {
    let mut counts: Vec<f64> = Vec::new();
    for line in metrics.lines() {
        let Some((name, rest)) = line.split_once("{shard=\"") else { continue };
        if !["sipring_requests_received_total", "sipring_responses_received_total"].contains(&name)
        {
            continue;
        }
        let Some((shard, value)) = rest.split_once("\"} ") else { continue };
        let (Ok(shard), Ok(value)) = (shard.parse::<usize>(), value.parse::<f64>()) else {
            continue;
        };
        counts.resize(counts.len().max(shard + 1), 0.0);
        counts[shard] += value;
    }
    let sum: f64 = counts.iter().sum();
    counts.into_iter().map(|count| count / sum).collect()
}

/// Each shard's part of the CPU time of all shards, in the order of their numbers.
fn work(pids: &[String]) -> Result<Vec<f64>> {
    let mut used: Vec<(usize, f64)> = Vec::new();
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task")).context("the server's threads")? {
            let task = task?.path();
            let name = fs::read_to_string(task.join("comm"))?;
            let Some(shard) = name.trim().strip_prefix("shard-") else { continue };
            let times = fs::read_to_string(task.join("schedstat"))?;
            let nanoseconds = times.split(' ').next().unwrap_or_default();
            used.push((shard.parse()?, nanoseconds.parse()?));
        }
    }
    used.sort_by_key(|(shard, _)| *shard);
    let sum: f64 = used.iter().map(|(_, time)| time).sum();
    Ok(used.into_iter().map(|(_, time)| time / sum).collect())
}

/// Each shard's part of the messages received, and of the CPU time.
type Parts = (Vec<f64>, Vec<f64>);

/// A server that runs.
struct Running {
    script: Child,
    /// Its processes that are the parents of all others.
    pids: Vec<String>,
}

impl Running {
    fn start(setup: &Setup, server: &Server, users: usize) -> Result<Running> {
        warm_memory();
        let cpus = match server.cpus {
            1 => "0".to_owned(),
            cpus => format!("0-{}", cpus - 1),
        };
        let mut script = Command::new(setup.perf.join("peers/start"))
            .args([&server.name, "127.0.0.1", &setup.port.to_string(), &cpus])
            .arg(server.shards.to_string())
            .env("USERS", users.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", server.label))?;
        let mut line = String::new();
        BufReader::new(script.stdout.take().expect("piped")).read_line(&mut line)?;
        let Some(pids) = line.trim().strip_prefix("ready ") else {
            let mut said = String::new();
            script.stderr.take().expect("piped").read_to_string(&mut said)?;
            script.wait()?;
            bail!("{} does not start: {}", server.label, said.trim());
        };
        // The generator finds children itself.
        let pids = pids.split(' ').take(1).map(str::to_owned).collect();
        Ok(Running { script, pids })
    }

    /// Ends the server, and waits until it has.
    fn stop(&mut self) -> Result<()> {
        let pid = self.script.id().to_string();
        let status = Command::new("kill").arg(&pid).status()?;
        ensure!(status.success(), "kill {pid}");
        self.script.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.script.try_wait(), Ok(None)) {
            // It ended neither in order nor by itself: nothing is to be told to anybody.
            let _ = self.stop();
        }
    }
}

/// Takes memory from the system and gives it back. On a virtual machine the first touch of a page
/// may be the host's to serve, at ten times the cost of any later one, and would be counted as the
/// server's whose tables grow.
fn warm_memory() {
    drop(std::hint::black_box(vec![1u8; WARM_BYTES]));
}

/// Where a program of the release build is.
pub fn built(root: &Path, name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    target.join("release").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_requests_and_responses() {
        let text = "# TYPE sipring_requests_received counter\n\
                    sipring_requests_received_total{shard=\"0\"} 10\n\
                    sipring_requests_received_total{shard=\"1\"} 20\n\
                    sipring_responses_received_total{shard=\"0\"} 20\n\
                    sipring_responses_received_total{shard=\"1\"} 50\n\
                    sipring_upgrades_total{shard=\"1\"} 7\n";
        assert_eq!(shares(text), [0.3, 0.7]);
        assert!(shares("nothing").is_empty());
    }
}
