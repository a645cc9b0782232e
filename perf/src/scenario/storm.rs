//! Many clients lose their connection at once, and come back after a random time each, longer after
//! each failure (RFC 5626 §4.5), while others go on: how long until all are registered again, and
//! what the others notice.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;

use crate::load::{Load, Scenario, Stage};
use crate::options::{Measure, Server};
use crate::random::Random;
use crate::report::{self, Window};
use crate::roster::Standing;
use crate::scenario::relay::{Method, Relay};
use crate::sip::Head;
use crate::transport::Transport;

/// The class of exchanges during the storm; the other one is before it.
const DURING: usize = 1;
/// Failures after which the time to wait grows no more.
const DOUBLINGS_MAX: u32 = 5;
/// Connections that are lost between two turns of the load: to close a socket takes it 10 to 20 µs, in
/// which it sends and reads nothing.
const LOST_A_TURN: usize = 32;

/// The run. --connections go on, exchanging messages; --rate is their rate.
#[derive(Args, Clone, Debug)]
pub struct Storm {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    measure: Measure,
    /// Transport of the clients.
    #[arg(long, default_value = "wss")]
    from: Transport,
    /// Number of clients that lose their connection.
    #[arg(long, default_value_t = 1000)]
    lost: usize,
    /// Seconds over which their first attempts are spread.
    #[arg(long, default_value_t = 2.0)]
    back_off: f64,
    /// Bytes of a message's body.
    #[arg(long, default_value_t = 100)]
    body: usize,
}

impl Storm {
    /// Measures and prints.
    pub fn run(&self) -> Result<()> {
        let Storm { server, measure, from, lost, back_off, body } = self;
        ensure!(!from.is_datagram(), "UDP has no connections");
        ensure!(measure.connections > 1 && *lost > 0, "nobody to send to, or nobody to lose");
        let mut network = server.network(false)?;
        let mut roster = server.roster();
        let living = roster.add(&mut network, *from, measure.connections);
        let stormy = roster.add(&mut network, *from, *lost);
        let relay = Relay::new(
            Method::Message,
            *from,
            &server.domain,
            *body,
            living.clone(),
            living.clone(),
        );
        let scenario = Reconnects::new(relay, stormy.clone(), *back_off);
        let mut load = Load::new(roster, measure.flights(2)?, scenario);
        server.register(&mut load, &mut network, living.start..stormy.end)?;

        let setting = measure.setting(server, "storm", &[*from], measure.connections + lost);
        load.run(&mut network, Duration::from_secs_f64(measure.warmup))?;
        load.flights.reset();
        let window = Window::open(&network, &setting.pids)?;
        load.run(&mut network, Duration::from_secs_f64(measure.seconds))?;
        let used = window.close(&network, &setting.pids)?;
        let mut report = report::make(&setting, &load.flights, &used);

        let window = Window::open(&network, &setting.pids)?;
        load.scenario.relay.class = DURING;
        load.scenario.started = Instant::now();
        load.scenario.next_lost = stormy.start;
        for end in stormy.clone() {
            load.roster.set_standing(end, Standing::Away);
        }
        let deadline = Duration::from_secs_f64(server.deadline);
        let is_over = load.run_until_ready(&mut network, stormy, deadline)?;
        let took = load.scenario.started.elapsed();
        let used = window.close(&network, &setting.pids)?;
        load.drain(&mut network)?;
        let Reconnects { times, failures, .. } = &load.scenario;
        let storm = json!({
            "clients": lost,
            "back_off_s": back_off,
            "all_are_back": is_over,
            "seconds": report::round(took.as_secs_f64()),
            "failed_attempts": failures,
            "busy": report::busy(&used),
            "time_to_be_back_us": report::latency(times),
            "transactions": load.flights.tallies[DURING].done,
            "latency_us": report::latency(&load.flights.tallies[DURING].latency),
        });
        report.insert("storm".into(), storm);
        report.insert("errors".into(), json!(load.flights.errors));
        report::print(&report, server.json);
        ensure!(is_over, "not all clients came back within {deadline:?}");
        Ok(())
    }
}

/// Who comes back when.
struct Reconnects {
    relay: Relay,
    users: Range<usize>,
    /// The next of them to lose its connection.
    next_lost: usize,
    back_off: f64,
    plans: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Failures in a row of each user.
    failed: Vec<u32>,
    failures: u64,
    started: Instant,
    times: Histogram<u64>,
    random: Random,
}

impl Reconnects {
    fn new(relay: Relay, users: Range<usize>, back_off: f64) -> Reconnects {
        Reconnects {
            relay,
            next_lost: users.end,
            back_off,
            plans: BinaryHeap::new(),
            failed: vec![0; users.len()],
            failures: 0,
            started: Instant::now(),
            times: report::histogram(),
            random: Random::default(),
            users,
        }
    }

    fn plan(&mut self, end: usize, now: Instant) {
        let failed = self.failed[end - self.users.start].min(DOUBLINGS_MAX);
        let share = self.random.within(&(0..1_000_000)) as f64 / 1e6;
        let wait = Duration::from_secs_f64(self.back_off * f64::from(1 << failed) * share);
        self.plans.push(Reverse((now + wait, end)));
    }
}

impl Scenario for Reconnects {
    fn start(&mut self, stage: Stage<'_>, slot: usize) -> Result<()> {
        self.relay.start(stage, slot)
    }

    fn on_message(
        &mut self,
        stage: Stage<'_>,
        end: usize,
        head: &Head<'_>,
        message: &[u8],
    ) -> Result<()> {
        self.relay.on_message(stage, end, head, message)
    }

    fn on_turn(&mut self, stage: Stage<'_>) -> Result<()> {
        for _ in 0..LOST_A_TURN.min(self.users.end - self.next_lost) {
            stage.network.close(self.next_lost);
            self.plan(self.next_lost, Instant::now());
            self.next_lost += 1;
        }
        while let Some(&Reverse((due, end))) = self.plans.peek()
            && due <= Instant::now()
        {
            self.plans.pop();
            stage.network.open(end)?;
        }
        Ok(())
    }

    fn on_registered(&mut self, _stage: Stage<'_>, end: usize) -> Result<()> {
        if self.users.contains(&end) {
            self.failed[end - self.users.start] = 0;
            self.times.saturating_record(self.started.elapsed().as_nanos() as u64);
        }
        Ok(())
    }

    fn on_closed(&mut self, stage: Stage<'_>, end: usize) -> Result<bool> {
        if !self.users.contains(&end) {
            return Ok(false);
        }
        self.failed[end - self.users.start] += 1;
        self.failures += 1;
        self.plan(end, stage.flights.now());
        Ok(true)
    }
}
