//! A client loses its flow in the middle of something and comes back on another (RFC 5626 §4.2: it
//! is the same by its instance and reg-id; without these by its Contact): on engines without I/O.

#[path = "../lab/mod.rs"]
mod lab;

mod bounds;
mod client;
mod crossings;
mod datagrams;
mod edge;
mod edge_rules;
mod forgotten;
mod impostors;
mod lines;
mod matrix;
mod memory;
mod moments;
mod pending;
mod restarts;
mod stored;
mod tabs;
mod talk;
mod transports;
