//! What a proxy does (RFC 3261 §16), on engines without I/O: forks, retransmissions, answers of its
//! own, record-routing, connections to servers, edits.

#[path = "../lab/mod.rs"]
mod lab;

mod answers;
mod connections;
mod edits;
mod fork;
mod gruu;
mod loops;
mod record_route;
mod repeats;
mod timers;
