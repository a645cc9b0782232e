//! L2: the transaction layer (RFC 3261 §17, RFC 6026, RFC 4320): four machines, their timers, and
//! the keys by which requests find them.
//!
//! A machine is a pure value of a few bytes. It holds no message: its owner keeps the request and
//! the last response and does what the returned [`Steps`] say, in their order. Absent on purpose:
//! sockets, clocks, tables, routing, dialogs, and timer C, which belongs to the proxy (RFC 3261
//! §16.6 step 11).

#[cfg(test)]
mod arrows;
mod client;
mod client_invite;
mod key;
mod server;
mod server_invite;
mod step;
mod timer;
#[cfg(test)]
mod transcript;

pub use client::Client;
pub use client_invite::ClientInvite;
pub use key::{MergeKey, ServerKey, ack_key, merge_key, server_key};
pub use server::Server;
pub use server_invite::ServerInvite;
pub use step::{Step, Steps};
pub use timer::Timer;

const _: () = {
    assert!(size_of::<ClientInvite>() <= 8 && size_of::<Client>() <= 8);
    assert!(size_of::<ServerInvite>() <= 8 && size_of::<Server>() <= 8);
};
