//! Runs of the scenarios that measure one kind of exchange: users are registered, the load warms
//! up, is measured, and ends.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::load::{Load, Scenario};
use crate::network::Network;
use crate::options::{Measure, Server};
use crate::report::{self, Setting, Window};
use crate::roster::Roster;
use crate::scenario::ask::Ask;
use crate::scenario::call::Call;
use crate::scenario::register::{Proof, Refresh};
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
    /// Bytes of a body: 100 of a message; 2000 of a browser's call, and of another as many as it
    /// needs.
    #[arg(long)]
    body: Option<usize>,
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
    let body = pairs.body.unwrap_or(100);
    let scenario = Relay::new(method, transports[0], domain, body, senders, receivers);
    let load = Load::new(roster, pairs.measure.flights(1)?, scenario);
    finish(name, load, network, users, &pairs.server, &pairs.measure, &transports)
}

/// Calls from one side to the other.
pub fn call(pairs: &Pairs, default: [Transport; 2]) -> Result<()> {
    let transports = pairs.transports(default);
    let mut network = pairs.server.network(false)?;
    let mut roster = pairs.server.roster();
    let [callers, called] = pairs.sides(&mut roster, &mut network, transports);
    ensure!(!callers.is_empty() && !called.is_empty(), "nobody calls, or nobody is called");
    let is_web = transports.iter().any(|transport| transport.is_web());
    let body = pairs.body.unwrap_or(if is_web { 2000 } else { 0 });
    let users = callers.start..called.end;
    let scenario = Call::new(transports, &pairs.server.domain, body, callers, called);
    let load = Load::new(roster, pairs.measure.flights(1)?, scenario);
    finish("call", load, network, users, &pairs.server, &pairs.measure, &transports)
}

/// What users do without each other.
#[derive(Args, Clone, Debug)]
pub struct Side {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    measure: Measure,
    /// Transport of the clients.
    #[arg(long, default_value = "wss")]
    from: Transport,
}

/// Users who register again.
#[derive(Args, Clone, Debug)]
pub struct Again {
    #[command(flatten)]
    side: Side,
    /// Answer with the nonce of the first challenge, counting its uses, instead of being asked
    /// each time; needs --password.
    #[arg(long)]
    keep_nonce: bool,
}

/// REGISTER again.
pub fn register(again: &Again) -> Result<()> {
    let Again { side, keep_nonce } = again;
    let (network, mut roster, users) = side.users()?;
    ensure!(side.measure.in_flight() <= users.len(), "more in flight than users");
    let proof = match (&side.server.password, keep_nonce) {
        (None, true) => bail!("--keep-nonce needs --password"),
        (None, false) => Proof::None,
        (Some(_), false) => Proof::Asked,
        (Some(_), true) => Proof::Kept,
    };
    if *keep_nonce {
        roster.keep_nonces();
    }
    let load = Load::new(roster, side.measure.flights(1)?, Refresh::new(users.clone(), proof));
    finish("register", load, network, users, &side.server, &side.measure, &[side.from])
}

/// OPTIONS to the server.
pub fn ask(side: &Side) -> Result<()> {
    let (network, roster, users) = side.users()?;
    let scenario = Ask::new(side.from, &side.server.domain, users.clone());
    let load = Load::new(roster, side.measure.flights(1)?, scenario);
    finish("options", load, network, users, &side.server, &side.measure, &[side.from])
}

impl Side {
    fn users(&self) -> Result<(Network, Roster, Range<usize>)> {
        let mut network = self.server.network(false)?;
        let mut roster = self.server.roster();
        let users = roster.add(&mut network, self.from, self.measure.count(self.from));
        ensure!(!users.is_empty(), "nobody asks");
        Ok((network, roster, users))
    }
}

/// Registers the users, measures, and prints the report.
fn finish<S: Scenario>(
    name: &'static str,
    mut load: Load<S>,
    mut network: Network,
    users: Range<usize>,
    server: &Server,
    measured: &Measure,
    transports: &[Transport],
) -> Result<()> {
    let setting = measured.setting(server, name, transports, users.len());
    server.register(&mut load, &mut network, users.clone())?;
    let report = measure(&mut load, &mut network, measured, &setting)?;
    load.leave(&mut network, users)?;
    report::print(&report, server.json);
    Ok(())
}

/// Warms up and measures. Errors are those of all that was started from then on.
pub fn measure<S: Scenario>(
    load: &mut Load<S>,
    network: &mut Network,
    measure: &Measure,
    setting: &Setting,
) -> Result<Map<String, Value>> {
    load.run(network, Duration::from_secs_f64(measure.warmup))?;
    load.flights.reset();
    let window = Window::open(network, &setting.pids)?;
    load.run(network, Duration::from_secs_f64(measure.seconds))?;
    let used = window.close(network, &setting.pids)?;
    let mut report = report::make(setting, &load.flights, &used);
    load.drain(network)?;
    report.insert("errors".into(), json!(load.flights.errors));
    Ok(report)
}
