//! What control tells a shard: another configuration, a guest, the drain and the end.

use std::sync::Arc;
use std::time::Duration;

use rtrb::Producer;

use super::driver::Driver;
use super::guests::Guest;
use super::link::{Doorbell, spill_max};
use super::pace::Pace;
use super::protocol::Protocol;
use super::tls::{TlsContext, TlsMaterial};
use crate::base::config::Config;
use crate::base::limits::{DRAIN_INTERVAL, STOP_TIME};
use crate::base::users::Departed;
use crate::engine::Input;

/// What control tells a shard.
pub enum Command {
    /// No new work: listeners close, the protocol refuses.
    Drain,
    /// Close every flow, over this time, and end.
    Stop {
        /// The time; zero: at once.
        spread: Duration,
    },
    /// Take another configuration, with the same listeners, and other certificates and ticket keys.
    Configure {
        /// The configuration.
        config: Arc<Config>,
        /// Certificates for every listener of it.
        tls: Arc<TlsMaterial>,
        /// Whose passwords are good no more by it.
        departed: Vec<Departed>,
    },
    /// Host this task.
    Host(Guest),
}

/// The control side of a shard's inbox.
pub(super) struct Inbox {
    commands: Producer<Command>,
    bell: Arc<Doorbell>,
}

impl Inbox {
    /// The shard that reads the other end hears the bell.
    pub(super) fn new(commands: Producer<Command>, bell: Arc<Doorbell>) -> Inbox {
        Inbox { commands, bell }
    }

    /// False: too many commands wait.
    pub(super) fn send(&mut self, command: Command) -> bool {
        let is_taken = self.commands.push(command).is_ok();
        self.bell.ring();
        is_taken
    }
}

impl<P: Protocol> Driver<P> {
    pub(super) fn obey(&mut self) {
        while let Ok(command) = self.station.inbox.pop() {
            match command {
                Command::Drain => self.begin_drain(),
                Command::Stop { spread } => self.begin_stop(spread),
                Command::Configure { config, tls, departed } => {
                    self.reconfigure(config, tls);
                    for users in departed {
                        self.protocol.handle(self.now, Input::Departed(users));
                    }
                }
                Command::Host(guest) => {
                    // No eventfd: the guest is dropped, which its owner notices.
                    let _ = self.guests.invite(&mut self.ring, guest);
                }
            }
            self.perform_outputs();
        }
    }

    pub(super) fn begin_drain(&mut self) {
        self.station.is_draining = true;
        self.streams.cease_accepting(&mut self.ring);
        self.protocol.handle(self.now, Input::Drain);
        self.publish_at = Some(self.now);
    }

    fn reconfigure(&mut self, config: Arc<Config>, tls: Arc<TlsMaterial>) {
        let context = TlsContext::new(&tls, &config).expect("control has made the same context");
        self.station.links.set_spill_max(spill_max(&config.limits));
        self.streams.reconfigure(self.now, Arc::clone(&config), context);
        self.protocol.handle(self.now, Input::Config(Arc::clone(&config)));
        (self.station.config, self.station.tls) = (config, tls);
        self.counters.reconfigured += 1;
        self.has_news();
    }

    fn begin_stop(&mut self, spread: Duration) {
        self.streams.cease_accepting(&mut self.ring);
        let flows = self.protocol.gauges().flows.iter().sum();
        self.pace = Some((Pace::new(self.now, spread, flows), self.now));
        self.close_some();
    }

    /// Closes the flows that are due at the end of the process; after the last of them those that
    /// the protocol does not know.
    pub(super) fn close_some(&mut self) {
        let Some((pace, at)) = &mut self.pace else { return };
        let due = pace.due(self.now);
        *at = self.now + DRAIN_INTERVAL;
        let most = due.unwrap_or(usize::MAX);
        self.protocol.handle(self.now, Input::Dismiss { most });
        self.perform_outputs();
        if due.is_none() {
            self.pace = None;
            self.stop_at = Some(self.now + STOP_TIME);
            let (mut turn, streams, _) = self.parts();
            streams.close_all(&mut turn);
        }
    }

    /// Counts what ends without an answer because this incarnation failed.
    pub fn count_lost(&mut self) -> u64 {
        let lost = self.protocol.unanswered() + self.refused.len() as u64;
        self.counters.requests_lost += lost;
        lost
    }
}
