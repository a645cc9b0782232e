//! One run: users are registered, exchanges are started as the pace wants it, and what happens is
//! handed to the scenario. Every scenario runs on this.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::flights::{Flight, Flights};
use crate::network::{Application, Network};
use crate::roster::{Roster, Standing};
use crate::sip::Head;

/// Time between two looks for what has waited too long.
const SWEEP: Duration = Duration::from_millis(100);
/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_millis(500);

/// What a scenario acts on.
pub struct Stage<'a> {
    /// The sockets.
    pub network: &'a mut Network,
    /// The users.
    pub roster: &'a mut Roster,
    /// The exchanges.
    pub flights: &'a mut Flights,
}

/// What is done with each exchange.
pub trait Scenario {
    /// Sends the first message of the exchange in a slot.
    fn start(&mut self, stage: Stage<'_>, slot: usize) -> Result<()>;

    /// Takes a message that is not a registration's.
    fn on_message(
        &mut self,
        stage: Stage<'_>,
        end: usize,
        head: &Head<'_>,
        message: &[u8],
    ) -> Result<()>;

    /// What it is called when an exchange does not end.
    fn unanswered(&self, _flight: &Flight) -> &'static str {
        "no answer"
    }

    /// A connection ended, or its registration was refused, while the load ran. True: that was to
    /// be expected.
    fn on_closed(&mut self, _stage: Stage<'_>, _end: usize) -> Result<bool> {
        Ok(false)
    }

    /// A user is registered, and the load runs.
    fn on_registered(&mut self, _stage: Stage<'_>, _end: usize) -> Result<()> {
        Ok(())
    }

    /// Once a turn, before it waits.
    fn on_turn(&mut self, _stage: Stage<'_>) -> Result<()> {
        Ok(())
    }
}

/// A run.
pub struct Load<S> {
    /// The users.
    pub roster: Roster,
    /// The exchanges.
    pub flights: Flights,
    /// What is done.
    pub scenario: S,
    has_begun: bool,
    next_sweep: Instant,
    next_progress: Instant,
    shows_progress: bool,
}

impl<S: Scenario> Load<S> {
    /// Nobody is registered yet.
    pub fn new(roster: Roster, flights: Flights, scenario: S) -> Load<S> {
        let now = Instant::now();
        let shows_progress = std::io::stderr().is_terminal();
        Load {
            roster,
            flights,
            scenario,
            has_begun: false,
            next_sweep: now,
            next_progress: now,
            shows_progress,
        }
    }

    /// Opens these ends, a window at a time, and waits until their users are registered: how long that
    /// took.
    pub fn register(
        &mut self,
        network: &mut Network,
        ends: std::ops::Range<usize>,
        window: usize,
        deadline: Duration,
    ) -> Result<Duration> {
        let started = Instant::now();
        let (before, all) = (self.roster.ready_count(), ends.len());
        let mut opened = ends.start;
        self.has_begun = false;
        loop {
            let ready = self.roster.ready_count() - before;
            if ready == all {
                break;
            }
            while opened < ends.end && opened - ends.start - ready < window {
                network.open(opened)?;
                if network.transport(opened).is_datagram() {
                    self.roster.register(network, opened)?;
                }
                opened += 1;
            }
            ensure!(started.elapsed() < deadline, "{ready} of {all} registered in {deadline:?}");
            self.step(network)?;
            self.progress(|| format!("{ready} of {all} registered"));
        }
        self.has_begun = true;
        self.clear_progress();
        Ok(started.elapsed())
    }

    /// Lets the load run for that long.
    pub fn run(&mut self, network: &mut Network, time: Duration) -> Result<()> {
        self.flights.set_now(Instant::now());
        self.flights.go();
        let started = Instant::now();
        let mut last = (started, self.done());
        while started.elapsed() < time {
            self.step(network)?;
            let now = self.flights.now();
            if self.shows_progress && now >= self.next_progress {
                let done = self.done();
                let rate = (done.saturating_sub(last.1)) as f64 / (now - last.0).as_secs_f64();
                let left = time.saturating_sub(started.elapsed()).as_secs();
                let errors: u64 = self.flights.errors.values().sum();
                self.progress(|| format!("{rate:.0}/s, {errors} errors, {left} s left"));
                last = (now, done);
            }
        }
        self.clear_progress();
        Ok(())
    }

    /// The load has begun without anybody registered: what happens to connections is the
    /// scenario's.
    pub fn begin(&mut self) {
        self.has_begun = true;
    }

    /// Starts nothing more, and waits for what is in flight to end or to be given up.
    pub fn drain(&mut self, network: &mut Network) -> Result<()> {
        self.flights.stop();
        while self.flights.open_count() > 0 {
            self.step(network)?;
        }
        Ok(())
    }

    /// Ends the bindings of users without connection; the server ends the others'.
    pub fn leave(&mut self, network: &mut Network, users: std::ops::Range<usize>) -> Result<()> {
        for end in users {
            if network.transport(end).is_datagram() {
                self.roster.unregister(network, end)?;
            }
        }
        network.flush(self)
    }

    /// One turn: what has arrived is handled, what is due is started, and all of it is sent.
    pub fn step(&mut self, network: &mut Network) -> Result<()> {
        let Load { roster, flights, scenario, .. } = self;
        scenario.on_turn(Stage { network, roster, flights })?;
        let patience = self.flights.idle_time();
        network.turn(self, patience)?;
        self.flights.set_now(Instant::now());
        while let Some(slot) = self.flights.next() {
            let Load { roster, flights, scenario, .. } = self;
            scenario.start(Stage { network, roster, flights }, slot)?;
        }
        network.flush(self)?;
        if self.flights.now() >= self.next_sweep {
            self.next_sweep = self.flights.now() + SWEEP;
            let scenario = &self.scenario;
            self.flights.sweep(|flight| scenario.unanswered(flight));
        }
        Ok(())
    }

    /// Lets the load run until all of these users are registered: false when that takes longer
    /// than `deadline`.
    pub fn run_until_ready(
        &mut self,
        network: &mut Network,
        ends: std::ops::Range<usize>,
        deadline: Duration,
    ) -> Result<bool> {
        let started = Instant::now();
        while started.elapsed() < deadline {
            if ends.clone().all(|end| self.roster.standing(end) == Standing::Ready) {
                return Ok(true);
            }
            self.step(network)?;
        }
        Ok(false)
    }

    fn on_registration(
        &mut self,
        network: &mut Network,
        end: usize,
        head: &Head<'_>,
    ) -> Result<()> {
        match self.roster.on_response(network, end, head) {
            Err(error) if self.has_begun => {
                network.close(end);
                self.on_closed(network, end, &error)
            }
            Ok(true) if self.has_begun => {
                let Load { roster, flights, scenario, .. } = self;
                scenario.on_registered(Stage { network, roster, flights }, end)
            }
            result => result.map(drop),
        }
    }

    fn done(&self) -> u64 {
        self.flights.tallies.iter().map(|tally| tally.done).sum()
    }

    fn progress(&mut self, line: impl FnOnce() -> String) {
        if self.shows_progress && Instant::now() >= self.next_progress {
            self.next_progress = Instant::now() + PROGRESS;
            eprint!("\r\x1b[K{}", line());
        }
    }

    fn clear_progress(&self) {
        if self.shows_progress {
            eprint!("\r\x1b[K");
        }
    }
}

impl<S: Scenario> Application for Load<S> {
    fn on_open(&mut self, network: &mut Network, end: usize) -> Result<()> {
        self.roster.register(network, end)
    }

    fn on_message(&mut self, network: &mut Network, end: usize, message: &[u8]) -> Result<()> {
        let Some(head) = Head::read(message) else {
            self.flights.count("not SIP");
            return Ok(());
        };
        self.flights.set_now(Instant::now());
        if self.roster.standing(end) == Standing::Registering && head.call_id.starts_with(b"r") {
            return self.on_registration(network, end, &head);
        }
        let Load { roster, flights, scenario, .. } = self;
        scenario.on_message(Stage { network, roster, flights }, end, &head, message)
    }

    fn on_closed(&mut self, network: &mut Network, end: usize, why: &anyhow::Error) -> Result<()> {
        if !self.has_begun {
            bail!("user {} while registering: {why:#}", network.number(end));
        }
        self.roster.set_standing(end, Standing::Away);
        let Load { roster, flights, scenario, .. } = self;
        if !scenario.on_closed(Stage { network, roster, flights }, end)? {
            flights.count(&format!("connection lost: {why:#}"));
        }
        Ok(())
    }
}
