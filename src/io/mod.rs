//! L5: sockets, threads, clocks, TLS. The only folder with I/O, async or unsafe.
//!
//! One shard, from the inside out: `ring` and `buffers` (the kernel), `slots`, `watch`, `writer`
//! (tables), `streams` with `sending`, `secure`, `connect`, `closing` (stream sockets), `datagrams`
//! (UDP), `link` (other shards), `driver` (the turn), `keeping` (the store), `commands`, `pace`,
//! `guests`, `shard` (the thread). Around the
//! shards: `listen` (sockets), `publish` (numbers), `log_line`, `supervisor` (start, signals, end),
//! `in_force`, `reload` and `config_file` (what to do), `store` (bindings in a file), `systemd` (who
//! is told).

mod buffers;
mod clock;
mod closing;
mod commands;
pub mod config_file;
mod connect;
mod datagrams;
mod driver;
mod guests;
mod in_force;
mod keeping;
mod link;
mod listen;
pub mod log;
mod log_line;
mod pace;
mod protocol;
mod publish;
pub mod reload;
mod ring;
pub mod secret;
mod secure;
mod sending;
mod shard;
mod slots;
mod station;
pub mod store;
mod streams;
mod supervisor;
mod sys;
pub mod systemd;
pub mod tls;
mod turn;
mod user_files;
mod watch;
mod writer;

#[cfg(test)]
mod failing;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use clock::Clock;
pub use guests::Guest;
pub use in_force::Reloads;
pub use listen::BindError;
pub use publish::{Phase, Published, RunState};
pub use ring::RingError;
pub use shard::shard_count;
pub use supervisor::{Runtime, Start, StartError, run};
