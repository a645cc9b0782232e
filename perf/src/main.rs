//! Load for any SIP server: clients over WSS, WS, TLS, TCP and UDP, all of them on one thread, and
//! every message checked while it counts. One module a noun: `transport`, `tls`, `ws`, `stream` and
//! `datagram` move bytes, `network` has all sockets and the event loop; `sip` reads, `template`
//! writes; `roster` has the users, `flights` the exchanges in flight, `load` runs them for one of
//! the kinds of `scenario`; `usage` measures processes, `report` prints.

mod datagram;
mod flights;
mod load;
mod network;
mod options;
mod random;
mod report;
mod roster;
mod scenario;
mod sip;
mod stream;
mod template;
mod tls;
mod transport;
mod usage;
mod ws;

use anyhow::Result;
use clap::{Parser, Subcommand};

use scenario::relay::Method;

/// Thousands of short-lived buffers a second; the proxy uses it, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(version, about)]
struct Command {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// MESSAGE from client to client, and its 200.
    Relay(scenario::run::Pairs),
    /// NOTIFY from servers to clients, and its 200.
    Notify(scenario::run::Pairs),
    /// INVITE, 100, 180, 200, ACK, BYE, 200.
    Call(scenario::run::Pairs),
    /// REGISTER again on living connections, with digest when there is a --password.
    Register(scenario::run::Again),
    /// OPTIONS that the server answers itself.
    Options(scenario::run::Side),
    /// Connections come, register and go.
    Handshake(scenario::handshake::Handshake),
    /// Registered connections that do nothing: the server's memory for each.
    Idle(scenario::idle::Idle),
    /// Requests for clients that are gone, among requests for living ones.
    Dead(scenario::apart::Dead),
    /// Clients that do not read, among clients that do.
    Slow(scenario::apart::Slow),
    /// Many clients lose their connection at once, and come back.
    Storm(scenario::storm::Storm),
}

fn main() -> Result<()> {
    use transport::Transport::{Udp, Wss};
    match Command::parse().kind {
        Kind::Relay(pairs) => scenario::run::relay("relay", Method::Message, &pairs, [Wss, Wss]),
        Kind::Notify(pairs) => scenario::run::relay("notify", Method::Notify, &pairs, [Udp, Wss]),
        Kind::Call(pairs) => scenario::run::call(&pairs, [Wss, Udp]),
        Kind::Register(again) => scenario::run::register(&again),
        Kind::Options(side) => scenario::run::ask(&side),
        Kind::Handshake(handshake) => handshake.run(),
        Kind::Idle(idle) => idle.run(),
        Kind::Dead(dead) => dead.run(),
        Kind::Slow(slow) => slow.run(),
        Kind::Storm(storm) => storm.run(),
    }
}
