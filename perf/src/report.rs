//! What a run found, for people and for programs.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::flights::Flights;
use crate::network::Network;
use crate::stream::Traffic;
use crate::usage::Cpu;

/// The readings at the beginning of what is measured.
pub struct Window {
    started: Instant,
    server: Option<Cpu>,
    client: Cpu,
    traffic: Traffic,
}

/// What was used between the readings.
#[derive(Default)]
pub struct Used {
    /// Time that passed.
    pub time: Duration,
    server: Option<Cpu>,
    client: Cpu,
    traffic: Traffic,
}

impl Window {
    /// Begins. `pids` are the server's.
    pub fn open(network: &Network, pids: &[u32]) -> Result<Window> {
        Ok(Window {
            server: read_server(pids)?,
            client: Cpu::of(&[std::process::id()])?,
            traffic: network.traffic(),
            started: Instant::now(),
        })
    }

    /// Ends.
    pub fn close(&self, network: &Network, pids: &[u32]) -> Result<Used> {
        let time = self.started.elapsed();
        let server = read_server(pids)?;
        let traffic = network.traffic();
        Ok(Used {
            time,
            server: server.zip(self.server).map(|(after, before)| after.since(&before)),
            client: Cpu::of(&[std::process::id()])?.since(&self.client),
            traffic: Traffic {
                received: traffic.received - self.traffic.received,
                sent: traffic.sent - self.traffic.sent,
            },
        })
    }
}

impl Used {
    /// Adds what another window used.
    pub fn add(&mut self, other: &Used) {
        self.time += other.time;
        self.client.add(&other.client);
        if let Some(server) = &other.server {
            self.server.get_or_insert_default().add(server);
        }
        self.traffic.received += other.traffic.received;
        self.traffic.sent += other.traffic.sent;
    }

    /// CPU time of the server for each of so many messages, in microseconds.
    pub fn server_us(&self, messages: u64) -> Option<f64> {
        let total = self.server.as_ref().filter(|_| messages > 0)?.total;
        Some(round(total.as_secs_f64() * 1e6 / messages as f64))
    }
}

fn read_server(pids: &[u32]) -> Result<Option<Cpu>> {
    if pids.is_empty() { Ok(None) } else { Cpu::of(pids).map(Some) }
}

/// What a run was asked to do.
pub struct Setting {
    /// The subcommand.
    pub scenario: &'static str,
    /// Which transports, as `wss-wss`.
    pub transports: String,
    /// Number of sockets.
    pub connections: usize,
    /// Exchanges in flight at most.
    pub in_flight: usize,
    /// Exchanges a second, when that was asked for.
    pub target_rate: Option<f64>,
    /// Processes of the server.
    pub pids: Vec<u32>,
}

/// The report of what was measured: class 0 of the exchanges, and the errors of all.
pub fn make(setting: &Setting, flights: &Flights, used: &Used) -> Map<String, Value> {
    let done = flights.tallies[0].done;
    let seconds = used.time.as_secs_f64();
    let each =
        |amount: f64| if done == 0 { Value::Null } else { json!(round(amount / done as f64)) };
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let client = micros(used.client.total);
    let (client_user, client_system) = used.client.split();
    let mut report = Map::new();
    report.insert("scenario".into(), json!(setting.scenario));
    report.insert("transports".into(), json!(setting.transports));
    report.insert("connections".into(), json!(setting.connections));
    report.insert("in_flight".into(), json!(setting.in_flight));
    report.insert("target_rate".into(), json!(setting.target_rate));
    report.insert("seconds".into(), json!(round(seconds)));
    report.insert("transactions".into(), json!(done));
    report.insert("rate".into(), json!(round(done as f64 / seconds)));
    if let Some(server) = &used.server {
        let (user, system) = server.split();
        let figures = json!({
            "pid": setting.pids,
            "cpu_user_us": round(micros(user)),
            "cpu_sys_us": round(micros(system)),
            "us_per_transaction": each(micros(server.total)),
            "busy": round(server.total.as_secs_f64() / seconds),
        });
        report.insert("server".into(), figures);
    }
    let share = used.server.as_ref().map(|server| round(client / micros(server.total).max(1.0)));
    let figures = json!({
        "cpu_us_per_transaction": each(client),
        "cpu_user_us": round(micros(client_user)),
        "cpu_sys_us": round(micros(client_system)),
        "share": share,
        "busy": round(used.client.total.as_secs_f64() / seconds),
    });
    report.insert("client".into(), figures);
    report.insert("latency_us".into(), latency(&flights.tallies[0].latency));
    let figures = json!({
        "out_per_transaction": each(used.traffic.sent as f64),
        "in_per_transaction": each(used.traffic.received as f64),
    });
    report.insert("bytes".into(), figures);
    report.insert("errors".into(), json!(flights.errors));
    report
}

/// Shares of the time that passed in which the server and the load were busy.
pub fn busy(used: &Used) -> Value {
    let share = |cpu: &Cpu| round(cpu.total.as_secs_f64() / used.time.as_secs_f64());
    json!({ "server": used.server.as_ref().map(share), "client": share(&used.client) })
}

/// Percentiles, in microseconds.
pub fn latency(histogram: &Histogram<u64>) -> Value {
    let at = |quantile| round(histogram.value_at_quantile(quantile) as f64 / 1e3);
    json!({
        "p50": at(0.5),
        "p90": at(0.9),
        "p99": at(0.99),
        "p999": at(0.999),
        "max": round(histogram.max() as f64 / 1e3),
    })
}

/// Latencies from a microsecond to a minute, in nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("the bounds are in order")
}

/// Three places behind the point.
pub fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Prints a report: one JSON object, or one line a figure.
pub fn print(report: &Map<String, Value>, as_json: bool) {
    if as_json {
        println!("{}", Value::Object(report.clone()));
        return;
    }
    for (name, value) in report {
        match value {
            Value::Object(parts) => {
                let parts: Vec<String> =
                    parts.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
                println!("{name:<14} {}", parts.join(", "));
            }
            Value::Null => {}
            value => println!("{name:<14} {}", plain(value)),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        value => value.to_string(),
    }
}
