//! What a seed decides: how many take part, and how likely each fault is. Every probability has a
//! name and is printed with the seed.

use std::fmt;
use std::time::Duration;

use sipring::base::rng::Rng;

use crate::house::House;

/// Draws everything that is left to chance, from one seed.
pub struct Dice(Rng);

impl Dice {
    pub fn new(seed: u64, purpose: u8) -> Dice {
        let mut bytes = [purpose; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Dice(Rng::new(bytes))
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0.below(n)
    }

    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.fill(&mut bytes);
        bytes
    }

    /// Whether something of that probability happens.
    pub fn happens(&mut self, chance: Chance) -> bool {
        chance.0 > 0 && self.below(1000) < u64::from(chance.0)
    }

    /// Between two durations, to the microsecond.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_micros() as u64;
        least + Duration::from_micros(self.below(span + 1))
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// A probability in thousandths.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Chance(pub u16);

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}%", self.0 / 10, self.0 % 10)
    }
}

pub const NEVER: Chance = Chance(0);

/// One run's circumstances.
#[derive(Clone, Debug)]
pub struct Profile {
    pub seed: u64,
    pub shards: u16,
    /// Clients, besides the two servers behind the proxy.
    pub phones: usize,
    /// Users that they share: several phones of one user are a fork.
    pub users: usize,
    /// Things that somebody does.
    pub acts: usize,
    /// Longest time between two of them.
    pub pause: Duration,
    pub datagram_loss: Chance,
    pub datagram_twice: Chance,
    /// A datagram takes this much longer than the usual.
    pub datagram_late: Chance,
    pub late: Duration,
    pub latency: Duration,
    pub stream_split: Chance,
    /// By act: somebody's connection is reset, or closed in order, or is gone without a word.
    pub reset: Chance,
    pub hang_up: Chance,
    pub vanish: Chance,
    /// By act: somebody stops reading, for a while or for good.
    pub stall: Chance,
    /// By act: something that is no proper SIP, or a token of another's.
    pub garbage: Chance,
    pub forgery: Chance,
    /// By answer: its Via is wrong.
    pub wrong_via: Chance,
    /// By INVITE: the callee says nothing, only 100, only 180, or no.
    pub deaf: Chance,
    pub only_trying: Chance,
    pub only_ringing: Chance,
    pub refuses: Chance,
    /// By INVITE: the caller changes its mind while it rings.
    pub cancels: Chance,
    /// By call: both ends re-INVITE at the same time.
    pub glare: Chance,
    /// By 2xx: its ACK comes late.
    pub late_ack: Chance,
    /// Longest way of a message between shards.
    pub link_latency: Duration,
    /// Entries of a work lane.
    pub link_entries: usize,
    /// Shards that fail, and the drain at the end.
    pub restarts: usize,
    pub drains: bool,
    /// Limits so small that they are reached.
    pub tight: bool,
    /// Queues so short that a client that does not read misses requests, and nothing else is short.
    pub narrow: bool,
    /// A REGISTER's expiry.
    pub expires: u32,
    pub house: House,
}

impl Profile {
    /// What this seed stands for. One in four is calm: nothing is lost and nobody misbehaves.
    pub fn of(seed: u64) -> Profile {
        let mut dice = Dice::new(seed, 1);
        let users = 2 + dice.below(5) as usize;
        let mut profile = Profile {
            seed,
            shards: 1 + dice.below(4) as u16,
            phones: users + dice.below(6) as usize,
            users,
            acts: 20 + dice.below(30) as usize,
            pause: Duration::from_millis(50 + dice.below(900)),
            latency: Duration::from_millis(1 + dice.below(40)),
            link_latency: Duration::from_micros(20 + dice.below(400)),
            expires: dice.pick(&[60, 120, 300, 600]),
            house: House::of(seed),
            ..Profile::calm(seed)
        };
        if !seed.is_multiple_of(4) {
            profile.disturb(&mut dice);
        }
        if profile.house.moves() && seed % 5 == 3 {
            // Calls that ring for long, so that their callers leave meanwhile.
            profile.only_ringing = Chance(300);
        }
        profile
    }

    /// Nothing fails.
    pub fn calm(seed: u64) -> Profile {
        Profile {
            seed,
            shards: 1,
            phones: 4,
            users: 4,
            acts: 0,
            pause: Duration::from_millis(500),
            datagram_loss: NEVER,
            datagram_twice: NEVER,
            datagram_late: NEVER,
            late: Duration::ZERO,
            latency: Duration::from_millis(10),
            stream_split: Chance(100),
            reset: NEVER,
            hang_up: NEVER,
            vanish: NEVER,
            stall: NEVER,
            garbage: NEVER,
            forgery: NEVER,
            wrong_via: NEVER,
            deaf: NEVER,
            only_trying: NEVER,
            only_ringing: NEVER,
            refuses: Chance(100),
            cancels: Chance(150),
            glare: Chance(100),
            late_ack: NEVER,
            link_latency: Duration::from_micros(100),
            link_entries: 1024,
            restarts: 0,
            drains: false,
            tight: false,
            narrow: false,
            expires: 300,
            house: House::open(),
        }
    }

    fn disturb(&mut self, dice: &mut Dice) {
        let mut up_to = |most: u64| match dice.below(3) {
            0 => NEVER,
            _ => Chance(dice.below(most + 1) as u16),
        };
        self.datagram_loss = up_to(200);
        self.datagram_twice = up_to(100);
        self.datagram_late = up_to(100);
        self.stream_split = up_to(700);
        self.reset = up_to(60);
        self.hang_up = up_to(60);
        self.vanish = up_to(40);
        self.stall = up_to(60);
        self.garbage = up_to(60);
        self.forgery = up_to(100);
        self.wrong_via = up_to(60);
        self.deaf = up_to(100);
        self.only_trying = up_to(100);
        self.only_ringing = up_to(100);
        self.refuses = up_to(300);
        self.cancels = up_to(400);
        self.glare = up_to(400);
        self.late_ack = up_to(200);
        self.late = Duration::from_millis(200 + dice.below(2500));
        if dice.below(4) == 0 {
            self.link_latency = Duration::from_millis(1 + dice.below(60));
        }
        if dice.below(5) == 0 {
            self.link_entries = 1 + dice.below(4) as usize;
        }
        self.restarts = if dice.below(5) == 0 { 1 + dice.below(3) as usize } else { 0 };
        self.drains = dice.below(10) == 0;
        self.tight = dice.below(6) == 0;
        self.narrow = dice.below(5) == 0;
    }

    /// Longest time until every shard knows what one of them was told.
    pub fn slack(&self) -> Duration {
        if self.shards == 1 { Duration::ZERO } else { self.link_latency * 4 }
    }

    /// Whether the proxy may be short of something.
    pub fn is_short(&self) -> bool {
        self.tight || self.link_entries < 1024
    }
}
