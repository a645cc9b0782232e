//! The clock of the process: the one place that reads time for the engines.

use std::time::{Duration, Instant, SystemTime};

use crate::base::time::Time;

/// A monotonic clock. Copies share one origin, so that shards agree about the time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose origin lies one second back: no time that it shows is [`Time::ZERO`].
    pub fn start() -> Clock {
        let now = Instant::now();
        Clock { origin: now.checked_sub(Duration::from_secs(1)).unwrap_or(now) }
    }

    /// The time since the origin.
    pub fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    /// The time since 1970 by the wall clock, which may be set forward and back.
    pub fn since_1970(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_agree_and_time_moves_on() {
        let clock = Clock::start();
        let copy = clock;
        let first = clock.now();
        assert!(first > Time::ZERO);
        assert!(copy.now() >= first);
    }
}
