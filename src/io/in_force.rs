//! The configuration, certificates and ticket keys in force, on the control thread: read again when
//! asked, changed when old, and told to every shard.

use std::sync::Arc;
use std::time::SystemTime;

use tracing::{error, info, warn};

use super::commands::{Command, Inbox};
use super::reload::{Fresh, Reload};
use super::supervisor::StartError;
use super::sys;
use super::systemd;
use super::tls::TlsMaterial;
use super::tls::ticket::ROTATE_EVERY;
use crate::base::config::Config;
use crate::base::limits::{DEPARTED_LISTS_MAX, DESCRIPTORS_SPARE, Limits};
use crate::base::time::Time;
use crate::base::users::Departed;

/// What every shard has, or is to have.
pub struct InForce {
    /// Ports resolved.
    config: Arc<Config>,
    tls: Arc<TlsMaterial>,
    /// Which shards have yet to be told of the two.
    is_behind: Vec<bool>,
    /// By shard: users who departed since it was told of a configuration last.
    departed: Vec<Vec<Departed>>,
    /// `None`: there is no file to read again.
    reload: Option<Reload>,
    reloads: Reloads,
    /// When the keys of session tickets are to be changed.
    rotate_at: Time,
}

/// How often the configuration was read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    /// What was read is in force.
    pub taken: u64,
    /// It had a fault: what was in force still is.
    pub refused: u64,
    /// When the last one was taken.
    pub last: Option<SystemTime>,
}

impl InForce {
    /// What all shards are started with.
    pub fn new(
        config: &Arc<Config>,
        tls: &Arc<TlsMaterial>,
        shards: u16,
        reload: Option<Reload>,
        now: Time,
    ) -> InForce {
        InForce {
            config: Arc::clone(config),
            tls: Arc::clone(tls),
            is_behind: vec![false; usize::from(shards)],
            departed: vec![Vec::new(); usize::from(shards)],
            reload,
            reloads: Reloads::default(),
            rotate_at: now + ROTATE_EVERY,
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What came of reading it again.
    pub fn reloads(&self) -> Reloads {
        self.reloads
    }

    /// Reads the configuration again if that is asked, changes ticket keys when they are old, and
    /// tells the shards. Never waits.
    pub fn look_after(&mut self, now: Time, is_asked: bool, inboxes: &mut [Inbox]) {
        if is_asked {
            match &mut self.reload {
                Some(reload) => {
                    systemd::reloading();
                    reload.ask();
                }
                None => warn!("there is no configuration file to read again"),
            }
        }
        let is_heard = self.departed.iter().all(|lists| lists.len() < DEPARTED_LISTS_MAX);
        if let Some(reload) = self.reload.as_mut().filter(|_| is_heard)
            && let Some(outcome) = reload.poll(now, &self.config, &self.tls)
        {
            self.take(outcome);
            systemd::ready();
        }
        if now >= self.rotate_at {
            self.rotate_at = now + ROTATE_EVERY;
            self.rotate_tickets();
        }
        self.tell_shards_behind(inboxes);
    }

    /// What was read is in force from here on, if it can be.
    fn take(&mut self, outcome: Result<Fresh, Vec<String>>) {
        match outcome {
            Err(faults) => {
                self.reloads.refused += 1;
                for fault in &faults {
                    error!("reload: {fault}");
                }
                error!(faults = faults.len(), "reload: refused; what was in force still is");
            }
            Ok(fresh) => {
                self.reloads.taken += 1;
                self.reloads.last = Some(SystemTime::now());
                for warning in &fresh.warnings {
                    warn!("reload: {warning}");
                }
                if fresh.config.limits.flows_max != self.config.limits.flows_max
                    && let Err(error) =
                        look_after_descriptors(&fresh.config, self.is_behind.len() as u16)
                {
                    warn!("reload: {error}");
                }
                if let Some(reload) = &mut self.reload {
                    reload.on_taken(&fresh);
                }
                if !fresh.departed.is_empty() {
                    info!(
                        users = fresh.departed.len(),
                        "reload: users are gone or have another password"
                    );
                    for lists in &mut self.departed {
                        lists.push(Arc::clone(&fresh.departed));
                    }
                }
                self.put_in_force(fresh.config, fresh.tls);
                info!("reload: in force");
            }
        }
    }

    fn rotate_tickets(&mut self) {
        let mut tls = TlsMaterial::clone(&self.tls);
        match tls.rotate_tickets() {
            Ok(()) => self.put_in_force(Arc::clone(&self.config), Arc::new(tls)),
            Err(error) => error!(%error, "the keys of session tickets stay as they are"),
        }
    }

    fn put_in_force(&mut self, config: Arc<Config>, tls: Arc<TlsMaterial>) {
        (self.config, self.tls) = (config, tls);
        self.is_behind.fill(true);
    }

    /// A shard whose inbox is full is told later.
    fn tell_shards_behind(&mut self, inboxes: &mut [Inbox]) {
        let shards = self.is_behind.iter_mut().zip(&mut self.departed);
        for (inbox, (is_behind, lists)) in inboxes.iter_mut().zip(shards) {
            if *is_behind {
                let (config, tls) = (Arc::clone(&self.config), Arc::clone(&self.tls));
                let departed = lists.clone();
                *is_behind = !inbox.send(Command::Configure { config, tls, departed });
                if !*is_behind {
                    lists.clear();
                }
            }
        }
    }
}

/// Raises the limit of open descriptors; an error when not even the listeners fit, a word in the log
/// when not all flows do.
pub(super) fn look_after_descriptors(config: &Config, shards: u16) -> Result<(), StartError> {
    let limit = sys::raise_descriptor_limit()
        .map_err(|error| StartError::System { what: "limit of open descriptors", error })?;
    let sockets = config.listeners.len() as u64 * u64::from(shards);
    let needed = sockets + DESCRIPTORS_SPARE;
    if limit < needed {
        return Err(StartError::Descriptors { limit, needed });
    }
    let wanted = config.limits.flows_max as u64 * u64::from(shards) + needed;
    let advice = "the limit of open descriptors allows fewer flows than limits.flows_max: raise it \
                  (`ulimit -n`, systemd: LimitNOFILE=) or lower flows_max";
    if limit >= wanted {
        return Ok(());
    }
    // Who set a number wants it; the default is only a bound.
    if config.limits.flows_max == Limits::default().flows_max {
        info!(limit, wanted, "{advice}");
    } else {
        warn!(limit, wanted, "{advice}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::link::mesh;
    use super::super::testing;
    use super::*;
    use crate::base::id::Transport;
    use rtrb::RingBuffer;

    #[test]
    fn ticket_keys_change_in_time_and_a_busy_shard_hears_of_it_later() {
        let config = Arc::new(testing::config(&[(Transport::Tls, "127.0.0.1:0")]));
        let tls = Arc::new(TlsMaterial::self_signed("test", &[]).unwrap());
        let links = mesh::<()>(2, 1).unwrap();
        let (mut inboxes, mut ends) = (Vec::new(), Vec::new());
        for link in &links {
            let (commands, end) = RingBuffer::new(1);
            inboxes.push(Inbox::new(commands, Arc::clone(link.bell())));
            ends.push(end);
        }
        let mut in_force = InForce::new(&config, &tls, 2, None, Time::ZERO);
        let almost = Time::ZERO + ROTATE_EVERY / 2;
        in_force.look_after(almost, false, &mut inboxes);
        assert!(ends.iter().all(|end| end.is_empty()));
        assert!(inboxes[1].send(Command::Drain), "its inbox is full from here on");
        in_force.look_after(Time::ZERO + ROTATE_EVERY, false, &mut inboxes);
        let told = |command: Command| match command {
            Command::Configure { tls, .. } => tls,
            _ => panic!("another command"),
        };
        let new = told(ends[0].pop().unwrap());
        assert!(!Arc::ptr_eq(&new, &tls));
        assert!(matches!(ends[1].pop(), Ok(Command::Drain)));
        in_force.look_after(Time::ZERO + ROTATE_EVERY, false, &mut inboxes);
        assert!(ends[0].is_empty(), "it knows");
        assert!(Arc::ptr_eq(&new, &told(ends[1].pop().unwrap())));
    }
}
