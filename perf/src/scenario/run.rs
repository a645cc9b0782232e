//! Runs of the scenarios that measure one kind of exchange: users are registered, the load warms
//! up, is measured, and ends.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::load::{Load, Scenario};
use crate::network::Network;
use crate::options::{Measure, Server};
use crate::report::{self, Setting, Window};
use crate::roster::Roster;
use crate::scenario::relay::{Method, Relay};
use crate::transport::Transport;

/// Exchanges between users of two sides.
#[derive(Args, Clone, Debug)]
pub struct Pairs {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    measure: Measure,
    /// Transport of those who send first; by default that of the scenario.
    #[arg(long)]
    from: Option<Transport>,
    /// Transport of those who receive; by default that of the scenario.
    #[arg(long)]
    to: Option<Transport>,
    /// Bytes of a message's body.
    #[arg(long, default_value_t = 100)]
    body: usize,
}

impl Pairs {
    fn transports(&self, default: [Transport; 2]) -> [Transport; 2] {
        [self.from.unwrap_or(default[0]), self.to.unwrap_or(default[1])]
    }

    /// Both sides' users; one population when both have a connection of the same kind.
    fn sides(
        &self,
        roster: &mut Roster,
        network: &mut Network,
        [from, to]: [Transport; 2],
    ) -> [Range<usize>; 2] {
        let senders = roster.add(network, from, self.measure.count(from));
        match from == to && !from.is_datagram() {
            true => [senders.clone(), senders],
            false => [senders, roster.add(network, to, self.measure.count(to))],
        }
    }
}

/// Requests from one side to the other.
pub fn relay(
    name: &'static str,
    method: Method,
    pairs: &Pairs,
    default: [Transport; 2],
) -> Result<()> {
    let transports = pairs.transports(default);
    let mut network = pairs.server.network(false)?;
    let mut roster = pairs.server.roster();
    let [senders, receivers] = pairs.sides(&mut roster, &mut network, transports);
    ensure!(!senders.is_empty() && !receivers.is_empty(), "nobody sends, or nobody receives");
    let domain = &pairs.server.domain;
    let users = senders.start..receivers.end;
    let scenario = Relay::new(method, transports[0], domain, pairs.body, senders, receivers);
    let mut load = Load::new(roster, pairs.measure.flights(1)?, scenario);
    pairs.server.register(&mut load, &mut network, users.clone())?;
    let setting = pairs.measure.setting(&pairs.server, name, &transports, users.len());
    measure(&mut load, &mut network, &pairs.measure, &setting, pairs.server.json)
}

/// Warms up, measures, and prints the report.
pub fn measure<S: Scenario>(
    load: &mut Load<S>,
    network: &mut Network,
    measure: &Measure,
    setting: &Setting,
    as_json: bool,
) -> Result<()> {
    load.run(network, Duration::from_secs_f64(measure.warmup))?;
    load.flights.reset();
    let window = Window::open(network, &setting.pids)?;
    load.run(network, Duration::from_secs_f64(measure.seconds))?;
    let used = window.close(network, &setting.pids)?;
    let mut report = report::make(setting, &load.flights, &used);
    load.drain(network)?;
    report.insert("errors".into(), serde_json::json!(load.flights.errors));
    report::print(&report, as_json);
    Ok(())
}
