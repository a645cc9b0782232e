//! The rules of the house: whether clients have passwords, how long they may take to come back, what
//! outlives a shard, and who comes with bad intent. The other seeds have an open house, where
//! nobody proves anything and a lost flow is lost.

use std::fmt::Write;
use std::time::Duration;

use sipring::base::config::{Config, Persistence, RouteTo};

use crate::bearer::Terms;
use crate::lab::digest::{Settings, with_digest};
use crate::profile::{Chance, Dice, NEVER};

/// The rules of one run.
#[derive(Clone, Debug)]
pub struct House {
    /// Clients have passwords (RFC 8760).
    pub digest: bool,
    /// Which of the servers behind the proxy is the registrar, if one is.
    pub edge: Option<usize>,
    pub nonce_lifetime: Duration,
    /// Half of them have tokens instead (RFC 8898).
    pub tokens: Option<Terms>,
    /// How long a client may take to come back.
    pub grace: Duration,
    pub persistence: Persistence,
    /// Until a change is durable.
    pub store_delay: Duration,
    /// Between pings of clients behind address translation.
    pub nat_ping: Duration,
    /// Clients that say to be who they are not.
    pub liars: usize,
    /// How often the configuration changes.
    pub reloads: usize,
    /// By proof: the count of the one before, once more.
    pub replays: Chance,
    /// By act: somebody speaks in another's name; opens a second tab; registers a Contact that is
    /// refused beside one that is not.
    pub masquerades: Chance,
    pub tabs: Chance,
    pub half_bad: Chance,
    /// Somebody uses a token of a dialog that it heard of; is back on another connection, if by
    /// connection it is not secure where the one before was.
    pub captures: Chance,
    pub careless: Chance,
}

impl House {
    /// Nobody has a password.
    pub fn open() -> House {
        House {
            digest: false,
            edge: None,
            nonce_lifetime: Duration::from_secs(3600),
            tokens: None,
            grace: Duration::ZERO,
            persistence: Persistence::None,
            store_delay: Duration::ZERO,
            nat_ping: Duration::ZERO,
            liars: 0,
            reloads: 0,
            replays: NEVER,
            masquerades: NEVER,
            tabs: NEVER,
            half_bad: NEVER,
            captures: NEVER,
            careless: NEVER,
        }
    }

    /// That of a seed: two in five have passwords, some of them tokens as well; one in five has its
    /// registrar behind the proxy.
    pub fn of(seed: u64) -> House {
        if matches!(seed % 20, 7 | 9 | 11 | 16) {
            return House::behind(seed);
        }
        if !matches!(seed % 5, 0 | 3) {
            return House::open();
        }
        let mut dice = Dice::new(seed, 5);
        let seconds = |of: &[u64], dice: &mut Dice| Duration::from_secs(dice.pick(of));
        let persistence =
            [Persistence::None, Persistence::None, Persistence::Delayed, Persistence::Synchronous];
        let mut house = House {
            digest: true,
            edge: None,
            nonce_lifetime: seconds(&[15, 60, 3600], &mut dice),
            tokens: None,
            grace: seconds(&[0, 5, 10, 10, 10, 30], &mut dice),
            persistence: dice.pick(&persistence),
            store_delay: Duration::from_millis(1 + dice.below(400)),
            nat_ping: seconds(&[0, 0, 20], &mut dice),
            liars: dice.below(5) as usize,
            reloads: dice.below(3) as usize,
            replays: Chance(dice.below(200) as u16),
            masquerades: Chance(dice.below(60) as u16),
            tabs: Chance(dice.below(40) as u16),
            half_bad: Chance(dice.below(60) as u16),
            captures: Chance(dice.below(60) as u16),
            careless: Chance(dice.below(400) as u16),
        };
        house.tokens = dice.happens(Chance(400)).then(|| Terms::of(&mut dice));
        house
    }

    /// The registrar is behind the proxy, and knows who is who.
    fn behind(seed: u64) -> House {
        let mut dice = Dice::new(seed, 6);
        House {
            edge: Some(dice.below(2) as usize),
            grace: Duration::from_secs(dice.pick(&[0, 5, 10, 10, 30])),
            nat_ping: Duration::from_secs(dice.pick(&[0, 0, 20])),
            liars: dice.below(4) as usize,
            reloads: dice.below(3) as usize,
            masquerades: Chance(dice.below(100) as u16),
            tabs: Chance(dice.below(60) as u16),
            ..House::open()
        }
    }

    /// Whether clients are known again on another flow.
    pub fn moves(&self) -> bool {
        (self.digest || self.edge.is_some()) && !self.grace.is_zero()
    }

    /// The configuration under these rules. `others` are so many users besides: in another version
    /// of the users file everybody has another place in it.
    pub fn furnish(&self, mut config: Config, users: usize, others: usize) -> Config {
        config.registrar.grace = self.grace;
        config.registrar.persistence = self.persistence;
        config.registrar.nat_ping = self.nat_ping;
        if let (Some(core), Some(last)) = (self.edge, config.routes.last_mut()) {
            last.to = RouteTo::Upstream(core);
        }
        if !self.digest {
            return config;
        }
        let mut text = String::new();
        for other in 0..others {
            writeln!(text, "other{other}:{other}").expect("a String takes everything");
        }
        for user in 0..users {
            writeln!(text, "u{user}:{}", password(user)).expect("a String takes everything");
        }
        config.auth.bearer = self.tokens.map(|terms| Box::new(terms.settings()));
        let nonce_lifetime = self.nonce_lifetime;
        with_digest(config, &Settings { users: &text, nonce_lifetime, ..Settings::default() })
    }
}

/// What a user knows.
pub fn password(user: usize) -> String {
    format!("secret {user}")
}
