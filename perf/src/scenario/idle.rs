//! Registered connections that do nothing but answer pings: what memory the server keeps for each,
//! between two numbers of them, so that what it needs at all is not in it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::flights::{Flights, Pace};
use crate::load::{Load, Scenario, Stage};
use crate::network::Network;
use crate::options::Server;
use crate::report;
use crate::sip::Head;
use crate::transport::Transport;
use crate::usage;

/// Readings that differ by no more are the same.
const NOISE: u64 = 16 * 1024;
/// Time for the server's memory to come to rest.
const SETTLING_MAX: Duration = Duration::from_secs(30);

/// The run.
#[derive(Args, Clone, Debug)]
pub struct Idle {
    #[command(flatten)]
    server: Server,
    /// Transport of the clients.
    #[arg(long, default_value = "wss")]
    from: Transport,
    /// Numbers of connections at which memory is read, rising.
    #[arg(long, value_delimiter = ',', default_values_t = [2500, 10_000])]
    steps: Vec<usize>,
    /// Seconds between two readings, of which the last two must agree.
    #[arg(long, default_value_t = 1.0)]
    interval: f64,
    /// Seconds to hold the connections after the last reading.
    #[arg(long, default_value_t = 0.0)]
    hold: f64,
}

impl Idle {
    /// Measures and prints.
    pub fn run(&self) -> Result<()> {
        ensure!(self.steps.is_sorted_by(|a, b| a < b), "--steps must rise");
        let mut network = self.server.network(false)?;
        let roster = self.server.roster();
        let pace = Pace { in_flight: 1, rate: None, patience: SETTLING_MAX };
        let mut load = Load::new(roster, Flights::new(pace, 1), Silence);
        let mut readings = vec![(0, self.settled(&mut load, &mut network)?)];
        let mut last = 0;
        for &step in &self.steps {
            let users = load.roster.add(&mut network, self.from, step - last);
            self.server.register(&mut load, &mut network, users)?;
            last = step;
            readings.push((step, self.settled(&mut load, &mut network)?));
        }
        let end = Instant::now() + Duration::from_secs_f64(self.hold);
        while Instant::now() < end {
            load.step(&mut network)?;
        }
        report::print(&self.report(&readings, &load.flights, &network), self.server.json);
        Ok(())
    }

    /// The server's memory, once it has come to rest.
    fn settled(&self, load: &mut Load<Silence>, network: &mut Network) -> Result<Option<u64>> {
        if self.server.pids.is_empty() {
            return Ok(None);
        }
        let started = Instant::now();
        let mut last = usage::memory(&self.server.pids)?;
        loop {
            let next = Instant::now() + Duration::from_secs_f64(self.interval);
            while Instant::now() < next {
                load.step(network)?;
            }
            let memory = usage::memory(&self.server.pids)?;
            if memory.abs_diff(last) <= NOISE || started.elapsed() > SETTLING_MAX {
                return Ok(Some(memory));
            }
            last = memory;
        }
    }

    fn report(
        &self,
        readings: &[(usize, Option<u64>)],
        flights: &Flights,
        network: &Network,
    ) -> Map<String, Value> {
        let mut report = Map::new();
        let (connections, after) = readings[readings.len() - 1];
        report.insert("scenario".into(), json!("idle"));
        report.insert("transports".into(), json!(self.from.token().to_lowercase()));
        report.insert("connections".into(), json!(connections));
        if let [.., (fewer, Some(before)), (more, Some(after))] = *readings {
            let each = (after as f64 - before as f64) / (more - fewer) as f64;
            let figures = json!({
                "pss_before": readings[0].1,
                "pss_after": after,
                "per_connection": report::round(each),
            });
            report.insert("memory".into(), figures);
        }
        let figures: Map<String, Value> =
            readings.iter().map(|(count, pss)| (count.to_string(), json!(pss))).collect();
        report.insert("pss".into(), if after.is_some() { figures.into() } else { Value::Null });
        report.insert("pings".into(), json!(network.pings()));
        report.insert("errors".into(), json!(flights.errors));
        report
    }
}

/// Nothing is sent, and nothing may come.
struct Silence;

impl Scenario for Silence {
    fn start(&mut self, _stage: Stage<'_>, _slot: usize) -> Result<()> {
        anyhow::bail!("an idle run starts no exchanges")
    }

    fn on_message(
        &mut self,
        stage: Stage<'_>,
        _end: usize,
        _head: &Head<'_>,
        _message: &[u8],
    ) -> Result<()> {
        stage.flights.count("a message that nobody asked for");
        Ok(())
    }
}
