//! L5: what operators and their tools ask over HTTP: `/metrics`, `/healthz`, `/readyz`. Runs on the
//! control thread; the numbers come from whoever implements [`Source`]. Absent on purpose:
//! authentication (it listens on loopback) and everything that changes the process.

mod http;
mod metrics;

use std::io;
use std::net::TcpListener;
use std::rc::Rc;

use crate::base::metrics::{Counters, Gauges, StoreNumbers};

pub use metrics::render;

/// What the process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not all shards listen yet.
    Starting,
    /// Serving.
    Ready,
    /// Ending: living transactions are finished, new work is refused.
    Draining,
}

/// How often the configuration was read again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reloads {
    /// What was read is in force.
    pub taken: u64,
    /// It had a fault: what was in force still is.
    pub refused: u64,
    /// When what is in force was read, in seconds since the epoch.
    pub last: f64,
}

/// Where the numbers come from.
pub trait Source {
    /// What each shard published last, in the order of their numbers.
    fn shards(&self) -> Vec<(Counters, Gauges)>;
    /// What the process is doing.
    fn phase(&self) -> Phase;
    /// When the process started, in seconds since the epoch.
    fn started(&self) -> f64;
    /// What the store has done, if bindings are stored.
    fn store(&self) -> Option<StoreNumbers>;
    /// Log lines that found no room.
    fn log_lines_dropped(&self) -> u64;
    /// How often the configuration was read again.
    fn reloads(&self) -> Reloads;
}

/// Serves on `listener` until dropped. Runs inside a [`tokio::task::LocalSet`], as tokio-uring's
/// runtime has it.
pub async fn serve(listener: TcpListener, source: Rc<dyn Source>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    http::accept(listener, source).await
}
