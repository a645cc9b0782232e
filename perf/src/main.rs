//! Load for sipring: many SIP clients over secure WebSocket (RFC 7118), all of them on one thread.
//! One module a noun: `sip` and `ws` make and read bytes, `tls` trusts any certificate, `client` is
//! one connection, `event_loop` waits for all of them. Each subcommand is a kind of load; results
//! go to standard output, one JSON object a line.

mod client;
mod event_loop;
mod sip;
mod tls;
mod ws;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(version, about)]
struct Command {
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Opens WSS connections, registers a user on each and holds them, answering pings.
    Idle(Idle),
}

/// Which clients, and to where.
#[derive(Args, Clone)]
pub struct Population {
    /// The proxy's WSS listener.
    #[arg(long, default_value = "127.0.0.1:8443")]
    server: SocketAddr,
    /// Number of clients.
    #[arg(long)]
    connections: usize,
    /// Number of the first user; user N is `userNNNNN`.
    #[arg(long, default_value_t = 0)]
    first: usize,
    /// Domain of the users' addresses of record.
    #[arg(long, default_value = "example.com")]
    domain: String,
    /// Loopback source addresses to spread over, from 127.0.0.1 on; one has some 28,000 ports.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=200))]
    sources: u8,
    /// Clients that may be connecting at a time.
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// Seconds until every client must be registered.
    #[arg(long, default_value_t = 120)]
    deadline: u64,
}

#[derive(Args)]
struct Idle {
    #[command(flatten)]
    population: Population,
    /// Seconds to hold the connections after the last registration.
    #[arg(long, default_value_t = 600)]
    hold: u64,
}

fn main() -> Result<()> {
    match Command::parse().load {
        Load::Idle(idle) => run_idle(&idle),
    }
}

fn run_idle(idle: &Idle) -> Result<()> {
    let mut clients = event_loop::Clients::new(idle.population.clone())?;
    let took = clients.register_all()?;
    println!(
        r#"{{"event":"registered","connections":{},"seconds":{:.3}}}"#,
        idle.population.connections,
        took.as_secs_f64()
    );
    let totals = clients.hold(Duration::from_secs(idle.hold))?;
    println!(
        r#"{{"event":"held","connections":{},"closed":{},"pings":{}}}"#,
        idle.population.connections, totals.closed, totals.pings
    );
    Ok(())
}
