//! Connections that come and go: TCP, TLS, the WebSocket upgrade, REGISTER and its 200, and the
//! client closes. With resumption the ticket of an earlier connection spares the certificate
//! (RFC 8446 §2.2).

use std::ops::Range;

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::json;

use crate::load::{Load, Scenario, Stage};
use crate::options::{Measure, Server};
use crate::roster::Standing;
use crate::scenario::register::next_idle;
use crate::scenario::run;
use crate::sip::Head;
use crate::transport::Transport;

/// The run.
#[derive(Args, Clone, Debug)]
pub struct Handshake {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    measure: Measure,
    /// Transport of the clients.
    #[arg(long, default_value = "wss")]
    from: Transport,
    /// Resume TLS sessions.
    #[arg(long)]
    resume: bool,
}

impl Handshake {
    /// Measures and prints.
    pub fn run(&self) -> Result<()> {
        ensure!(!self.from.is_datagram(), "UDP has no connections");
        let mut network = self.server.network(self.resume)?;
        let mut roster = self.server.roster();
        let users = roster.add(&mut network, self.from, self.measure.connections);
        let in_flight = self.measure.in_flight();
        ensure!(in_flight <= users.len(), "more in flight than users");
        let scenario = Coming {
            next: users.start,
            exchanges: vec![u64::MAX; users.len()],
            users: users.clone(),
            resumed: 0,
            arrived: 0,
        };
        let mut load = Load::new(roster, self.measure.flights(1)?, scenario);
        load.begin();
        let setting = self.measure.setting(&self.server, "handshake", &[self.from], users.len());
        let mut report = run::measure(&mut load, &mut network, &self.measure, &setting)?;
        let Coming { resumed, arrived, .. } = load.scenario;
        report.insert("resumed".into(), json!(resumed as f64 / arrived.max(1) as f64));
        crate::report::print(&report, self.server.json);
        Ok(())
    }
}

struct Coming {
    users: Range<usize>,
    next: usize,
    /// The exchange that each user is in.
    exchanges: Vec<u64>,
    resumed: u64,
    arrived: u64,
}

impl Coming {
    fn leave(&self, stage: &mut Stage<'_>, end: usize) {
        stage.network.close(end);
        stage.roster.set_standing(end, Standing::Away);
    }
}

impl Scenario for Coming {
    fn start(&mut self, mut stage: Stage<'_>, slot: usize) -> Result<()> {
        let end = next_idle(&mut self.next, &self.users, &self.exchanges, &stage);
        let flight = stage.flights.slot(slot);
        flight.from = end;
        self.exchanges[end - self.users.start] = flight.id;
        self.leave(&mut stage, end);
        stage.network.open(end)
    }

    fn on_registered(&mut self, mut stage: Stage<'_>, end: usize) -> Result<()> {
        let is_resumed = stage.network.stream(end).is_some_and(|stream| stream.is_resumed());
        self.arrived += 1;
        self.resumed += u64::from(is_resumed);
        if let Some(slot) = stage.flights.find(self.exchanges[end - self.users.start]) {
            stage.flights.finish(slot);
        }
        self.leave(&mut stage, end);
        Ok(())
    }

    fn on_message(
        &mut self,
        stage: Stage<'_>,
        _end: usize,
        _head: &Head<'_>,
        _message: &[u8],
    ) -> Result<()> {
        stage.flights.count("a message of no exchange");
        Ok(())
    }

    fn on_closed(&mut self, stage: Stage<'_>, end: usize) -> Result<bool> {
        if let Some(slot) = stage.flights.find(self.exchanges[end - self.users.start]) {
            stage.flights.fail(slot, "a connection that did not come to be");
        }
        Ok(false)
    }
}
