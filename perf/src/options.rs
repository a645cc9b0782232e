//! The command line, and what a run is made of by it.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::flights::{Flights, Pace};
use crate::load::{Load, Scenario};
use crate::network::{Network, Places};
use crate::report::Setting;
use crate::roster::{Realm, Roster};
use crate::tls;
use crate::transport::Transport;

/// Exchanges in flight in a closed loop, and the fewest when a rate is kept.
const IN_FLIGHT: usize = 64;
/// Exchanges in flight at most.
const IN_FLIGHT_MAX: usize = 1 << 20;

/// Which server, and how the clients come to it.
#[derive(Args, Clone, Debug)]
pub struct Server {
    /// The server's WSS listener.
    #[arg(long, default_value = "127.0.0.1:8443")]
    pub wss: SocketAddr,
    /// The server's WS listener.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub ws: SocketAddr,
    /// The server's TLS listener.
    #[arg(long, default_value = "127.0.0.1:5061")]
    pub tls: SocketAddr,
    /// The server's TCP listener.
    #[arg(long, default_value = "127.0.0.1:5060")]
    pub tcp: SocketAddr,
    /// The server's UDP listener.
    #[arg(long, default_value = "127.0.0.1:5060")]
    pub udp: SocketAddr,
    /// A process of the server, whose CPU time and memory are measured with all its children; may
    /// be repeated.
    #[arg(long = "server-pid")]
    pub pids: Vec<u32>,
    /// Loopback source addresses to spread over, from 127.0.0.1 on; one has some 28,000 ports.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=200))]
    pub sources: u8,
    /// Domain of the users' addresses of record.
    #[arg(long, default_value = "example.com")]
    pub domain: String,
    /// Everybody's password, for a server that wants digest.
    #[arg(long)]
    pub password: Option<String>,
    /// Number of the first user; user N is `u` and seven digits.
    #[arg(long, default_value_t = 0)]
    pub first: u32,
    /// Clients that may be connecting at a time.
    #[arg(long, default_value_t = 64)]
    pub window: usize,
    /// Seconds until every client must be registered.
    #[arg(long, default_value_t = 120.0)]
    pub deadline: f64,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// How much, and how long.
#[derive(Args, Clone, Debug)]
pub struct Measure {
    /// Number of clients with a connection.
    #[arg(long, default_value_t = 100)]
    pub connections: usize,
    /// Number of users on each side that speaks UDP.
    #[arg(long, default_value_t = 4)]
    pub peers: usize,
    /// Exchanges in flight at most; 64 without --rate, and with one as many as it needs.
    #[arg(long)]
    pub in_flight: Option<usize>,
    /// Exchanges to start a second, whether or not earlier ones have ended; latency then counts
    /// from the time at which each was to start.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds of load before that.
    #[arg(long, default_value_t = 2.0)]
    pub warmup: f64,
    /// Seconds after which an exchange counts as unanswered.
    #[arg(long, default_value_t = 5.0)]
    pub patience: f64,
}

impl Server {
    /// Where the listeners are.
    pub fn places(&self) -> Places {
        let servers = [self.udp, self.tcp, self.tls, self.ws, self.wss];
        Places { servers, sources: self.sources }
    }

    /// Sockets, none open yet.
    pub fn network(&self, resumes: bool) -> Result<Network> {
        Network::new(self.places(), tls::config(resumes)?)
    }

    /// Users, none yet.
    pub fn roster(&self) -> Roster {
        let realm = Realm { domain: self.domain.clone(), password: self.password.clone() };
        Roster::new(realm, self.first)
    }

    /// Registers these users.
    pub fn register<S: Scenario>(
        &self,
        load: &mut Load<S>,
        network: &mut Network,
        ends: Range<usize>,
    ) -> Result<Duration> {
        load.register(network, ends, self.window, Duration::from_secs_f64(self.deadline))
    }
}

impl Measure {
    /// Exchanges in flight at most.
    pub fn in_flight(&self) -> usize {
        // With a rate as many as start while one is waited for, and half as many again.
        let waiting = (self.rate.unwrap_or(0.0) * self.patience * 1.5) as usize;
        self.in_flight.unwrap_or(waiting.clamp(IN_FLIGHT, IN_FLIGHT_MAX))
    }

    /// Nothing in flight.
    pub fn flights(&self, classes: usize) -> Result<Flights> {
        let in_flight = self.in_flight();
        ensure!((1..=IN_FLIGHT_MAX).contains(&in_flight), "--in-flight {in_flight}");
        ensure!(self.rate.is_none_or(|rate| rate > 0.0), "--rate must be positive");
        let patience = Duration::from_secs_f64(self.patience);
        Ok(Flights::new(Pace { in_flight, rate: self.rate, patience }, classes))
    }

    /// Number of users on a side of that transport.
    pub fn count(&self, transport: Transport) -> usize {
        if transport.is_datagram() { self.peers } else { self.connections }
    }

    /// What the report says of it.
    pub fn setting(
        &self,
        server: &Server,
        scenario: &'static str,
        transports: &[Transport],
        connections: usize,
    ) -> Setting {
        let names: Vec<String> =
            transports.iter().map(|transport| transport.token().to_lowercase()).collect();
        Setting {
            scenario,
            transports: names.join("-"),
            connections,
            in_flight: self.in_flight(),
            target_rate: self.rate,
            pids: server.pids.clone(),
        }
    }
}
