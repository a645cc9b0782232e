//! What a proxy does (RFC 3261 §16), on engines without I/O: forks, retransmissions, answers of its
//! own, record-routing, connections to servers, edits.

#[path = "../lab/mod.rs"]
mod lab;

mod acks;
mod aliases;
mod amplification;
mod answers;
mod connections;
mod dialled;
mod edits;
mod failover;
mod flows_of_one;
mod fork;
mod gathering;
mod giving_way;
mod gruu;
mod large;
mod loops;
mod own_uris;
mod paths;
mod record_route;
mod repeats;
mod serial;
mod strict;
mod timers;
