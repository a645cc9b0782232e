//! Clients that cannot be reached among clients that can: gone without a word, or connected and
//! not reading. The living ones send to each other, first alone, then with a share of the requests
//! going to the others: what becomes of those, and what it does to the rest.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::json;
use socket2::SockRef;

use crate::flights::Flight;
use crate::load::{Load, Scenario, Stage};
use crate::network::Network;
use crate::options::{Measure, Server};
use crate::report::{self, Used, Window};
use crate::roster::Standing;
use crate::scenario::relay::{Method, Relay, find};
use crate::sip::Head;
use crate::transport::Transport;
use crate::usage;

/// Classes of exchanges, after that of the living alone: to those apart, and among the living at
/// that time.
const APART: usize = 1;
const MEANWHILE: usize = 2;
/// Windows with the living alone and windows with the others, in turn: what disturbs the machine for a
/// moment then decides nothing.
const ROUNDS: usize = 5;
/// Bytes of the kernel's for a client that does not read.
const RECEIVE_BUFFER: usize = 4096;

/// How a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Gone {
    /// Its process ends: the connection is closed, nobody unregisters.
    Closed,
    /// The connection is reset.
    Reset,
    /// It freezes: the connection stays, and nothing is read or answered.
    Mute,
}

/// What both runs have.
#[derive(Args, Clone, Debug)]
struct Common {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    measure: Measure,
    /// Transport of the clients.
    #[arg(long, default_value = "wss")]
    from: Transport,
    /// Number of clients that cannot be reached, besides --connections.
    #[arg(long, default_value_t = 50)]
    apart: usize,
    /// Share of the requests that goes to them.
    #[arg(long, default_value_t = 0.1)]
    part: f64,
    /// Bytes of a message's body.
    #[arg(long, default_value_t = 100)]
    body: usize,
}

/// The run with clients that are gone.
#[derive(Args, Clone, Debug)]
pub struct Dead {
    #[command(flatten)]
    common: Common,
    /// How they go.
    #[arg(long, value_enum, default_value_t = Gone::Closed)]
    gone: Gone,
}

/// The run with clients that do not read. Needs --rate: a loop that waits for them would not load
/// the others.
#[derive(Args, Clone, Debug)]
pub struct Slow {
    #[command(flatten)]
    common: Common,
}

impl Dead {
    /// Measures and prints.
    pub fn run(&self) -> Result<()> {
        self.common.run("dead", self.gone, None)
    }
}

impl Slow {
    /// Measures and prints.
    pub fn run(&self) -> Result<()> {
        ensure!(self.common.measure.rate.is_some(), "--rate must be given");
        self.common.run("slow", Gone::Mute, Some(RECEIVE_BUFFER))
    }
}

impl Common {
    fn run(&self, name: &'static str, gone: Gone, receive_buffer: Option<usize>) -> Result<()> {
        let Common { server, measure, from, apart, part, body } = self;
        ensure!(!from.is_datagram(), "UDP has no connections");
        ensure!((0.0..=1.0).contains(part), "--part is a share between 0 and 1");
        ensure!(measure.connections > 1 && *apart > 0, "nobody to send to");
        let mut network = server.network(false)?;
        let mut roster = server.roster();
        let living = roster.add(&mut network, *from, measure.connections);
        let others = roster.add(&mut network, *from, *apart);
        if let Some(bytes) = receive_buffer {
            others.clone().for_each(|end| network.shrink(end, bytes));
        }
        let relay = Relay::new(
            Method::Message,
            *from,
            &server.domain,
            *body,
            living.clone(),
            living.clone(),
        );
        let scenario = Apart {
            relay,
            others: others.clone(),
            part: *part,
            sent: 0.0,
            asked: 0,
            answers: BTreeMap::new(),
            late: 0,
        };
        let mut load = Load::new(roster, measure.flights(3)?, scenario);
        server.register(&mut load, &mut network, living.start..others.end)?;

        let connections = measure.connections + apart;
        let setting = measure.setting(server, name, &[*from], connections);
        let part = Duration::from_secs_f64(measure.seconds / ROUNDS as f64);
        load.run(&mut network, Duration::from_secs_f64(measure.warmup))?;
        load.flights.reset();
        let (mut alone, mut beside, mut rounds) = (Used::default(), Used::default(), Vec::new());
        let mut pss_before = 0;
        for round in 0..ROUNDS {
            let (used, without) = load.window(&mut network, &setting.pids, 0, part)?;
            alone.add(&used);
            if round == 0 {
                pss_before = memory(&setting.pids)?;
                others.clone().try_for_each(|end| leave(&mut load, &mut network, end, gone))?;
            }
            let (used, with) = load.window(&mut network, &setting.pids, MEANWHILE, part)?;
            beside.add(&used);
            rounds.push([without, with]);
        }
        let pss_after = memory(&setting.pids)?;
        let mut report = report::make(&setting, &load.flights, &alone);
        load.drain(&mut network)?;
        let tallies = &load.flights.tallies;
        let done = tallies[MEANWHILE].done;
        let meanwhile = json!({
            "transactions": done,
            "rate": report::round(done as f64 / beside.time.as_secs_f64()),
            "latency_us": report::latency(&tallies[MEANWHILE].latency),
            "rounds_p99_us": rounds,
            "us_per_message": beside.server_us(done + load.scenario.asked),
            "busy": report::busy(&beside),
        });
        let unreachable = json!({
            "clients": apart,
            "how": gone.to_possible_value().context("it has a name")?.get_name(),
            "answers": load.scenario.answers,
            "unanswered": load.flights.errors.remove(UNANSWERED).unwrap_or(0),
            "refused_later": load.scenario.late,
            "latency_us": report::latency(&tallies[APART].latency),
        });
        report.insert("meanwhile".into(), meanwhile);
        report.insert("apart".into(), unreachable);
        let figures = json!({ "pss_before": pss_before, "pss_after": pss_after });
        report.insert("memory".into(), figures);
        report.insert("errors".into(), json!(load.flights.errors));
        report::print(&report, server.json);
        Ok(())
    }
}

impl Load<Apart> {
    /// Lets the load run for that long, what it starts among the living counted as `class`: what was
    /// used, and the latency of 99 % of that, in microseconds.
    fn window(
        &mut self,
        network: &mut Network,
        pids: &[u32],
        class: usize,
        time: Duration,
    ) -> Result<(Used, f64)> {
        self.scenario.relay.class = class;
        let before = self.flights.tallies[class].latency.clone();
        let window = Window::open(network, pids)?;
        self.run(network, time)?;
        let used = window.close(network, pids)?;
        let mut latency = self.flights.tallies[class].latency.clone();
        latency.subtract(&before)?;
        Ok((used, report::round(latency.value_at_quantile(0.99) as f64 / 1e3)))
    }
}

/// The server's memory, in bytes; none when it is unknown which processes it has.
fn memory(pids: &[u32]) -> Result<u64> {
    if pids.is_empty() { Ok(0) } else { usage::memory(pids) }
}

/// What a request for those apart is called that got no answer in time.
const UNANSWERED: &str = "no answer for a client apart";

fn leave(load: &mut Load<Apart>, network: &mut Network, end: usize, gone: Gone) -> Result<()> {
    match gone {
        Gone::Mute => network.pause(end),
        Gone::Closed | Gone::Reset => {
            let Some(stream) = network.stream(end) else { bail!("a client has left by itself") };
            if gone == Gone::Reset {
                SockRef::from(stream.socket()).set_linger(Some(Duration::ZERO))?;
            }
            network.close(end);
            load.roster.set_standing(end, Standing::Away);
        }
    }
    Ok(())
}

struct Apart {
    relay: Relay,
    others: Range<usize>,
    part: f64,
    /// Requests to those apart that are due, less those that were sent.
    sent: f64,
    /// How many were sent.
    asked: u64,
    /// By status.
    answers: BTreeMap<u16, u64>,
    /// Refusals of exchanges that had been given up.
    late: u64,
}

impl Scenario for Apart {
    fn start(&mut self, stage: Stage<'_>, slot: usize) -> Result<()> {
        if self.relay.class == MEANWHILE {
            self.sent += self.part;
            if self.sent >= 1.0 {
                self.sent -= 1.0;
                self.asked += 1;
                self.relay.class = APART;
                self.relay.start_to(stage, slot, &self.others);
                self.relay.class = MEANWHILE;
                return Ok(());
            }
        }
        self.relay.start(stage, slot)
    }

    fn on_message(
        &mut self,
        stage: Stage<'_>,
        end: usize,
        head: &Head<'_>,
        message: &[u8],
    ) -> Result<()> {
        let found = find(&stage, head);
        // A 100 says that the server still tries (RFC 4320 §4.1), which may be after the load gave up.
        if head.status == 100 && found.is_none() {
            return Ok(());
        }
        // The server may give a client up later than the load gave up the exchange.
        if head.status >= 400 && found.is_none() {
            self.late += 1;
            return Ok(());
        }
        if head.status > 0
            && let Some((slot, _)) = found
            && stage.flights.slot(slot).class == APART
            && stage.flights.slot(slot).from == end
        {
            if head.status >= 200 {
                *self.answers.entry(head.status).or_default() += 1;
                stage.flights.finish(slot);
            }
            return Ok(());
        }
        self.relay.on_message(stage, end, head, message)
    }

    fn unanswered(&self, flight: &Flight) -> &'static str {
        if flight.class == APART { UNANSWERED } else { "no answer" }
    }

    fn on_closed(&mut self, _stage: Stage<'_>, end: usize) -> Result<bool> {
        Ok(self.others.contains(&end))
    }
}
