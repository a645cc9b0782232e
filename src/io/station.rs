//! What a shard owns for as long as the process runs; its driver works on it, and its next driver
//! takes it over when one fails.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rtrb::{Consumer, Producer};

use super::clock::Clock;
use super::commands::Command;
use super::link::Links;
use super::listen::ShardSockets;
use super::log_line::Report;
use super::publish::Published;
use super::store::Keeper;
use super::tls::TlsMaterial;
use crate::base::config::Config;
use crate::base::time::Time;
use crate::engine::LinkMessage;

/// What belongs to a shard and outlives a panic of its driver.
pub struct Station {
    /// Its ends of the links.
    pub links: Links<LinkMessage>,
    /// Commands of control; whoever pushes one rings the doorbell.
    pub inbox: Consumer<Command>,
    /// Reports for the log.
    pub reports: Producer<Report>,
    /// Where its numbers are shown.
    pub published: Arc<Published>,
    /// Its listening sockets.
    pub sockets: ShardSockets,
    /// The time.
    pub clock: Clock,
    /// Its end of the store, if there is one.
    pub keeper: Option<Keeper>,
    /// The configuration in force, ports resolved.
    pub config: Arc<Config>,
    /// Certificates and ticket keys in force.
    pub tls: Arc<TlsMaterial>,
    /// Whether control asked it to drain.
    pub is_draining: bool,
    /// When the former incarnation ended.
    pub ended_at: Option<Time>,
    /// Connections that it had accepted and not looked at, by the position of their listener.
    pub unclaimed: Vec<(u32, OwnedFd)>,
}
