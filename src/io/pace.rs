//! How fast flows are closed at the end of the process: evenly over a time that the operator
//! chooses, and no slower than the clients can come back without a wave.

use std::time::Duration;

use crate::base::limits::{DRAIN_FLOW_TIME, DRAIN_INTERVAL};
use crate::base::time::Time;

/// The closing of a number of flows over a time.
#[derive(Debug)]
pub struct Pace {
    start: Time,
    time: Duration,
    total: u64,
    done: u64,
}

impl Pace {
    /// Closes `total` flows from `now` on, over `spread`, or sooner when they are few.
    pub fn new(now: Time, spread: Duration, total: u64) -> Pace {
        let least = DRAIN_FLOW_TIME.saturating_mul(u32::try_from(total).unwrap_or(u32::MAX));
        Pace { start: now, time: spread.min(least), total, done: 0 }
    }

    /// How many more flows are to be closed now; asked every [`DRAIN_INTERVAL`]. `None`: all that
    /// are left.
    pub fn due(&mut self, now: Time) -> Option<usize> {
        let elapsed = now.saturating_since(self.start) + DRAIN_INTERVAL;
        if elapsed >= self.time {
            return None;
        }
        let share = u128::from(self.total) * elapsed.as_nanos() / self.time.as_nanos();
        let due = (share as u64).saturating_sub(self.done);
        self.done += due;
        Some(due as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every interval's share, the last of them `None`.
    fn shares(spread: Duration, total: u64) -> Vec<Option<usize>> {
        let mut pace = Pace::new(Time::ZERO, spread, total);
        let mut now = Time::ZERO;
        let mut shares = Vec::new();
        loop {
            let due = pace.due(now);
            shares.push(due);
            if due.is_none() {
                return shares;
            }
            now += DRAIN_INTERVAL;
        }
    }

    #[test]
    fn many_flows_take_the_whole_time_in_even_shares() {
        let shares = shares(Duration::from_secs(2), 50_000);
        assert_eq!(shares.len(), 200);
        assert!(shares[..199].iter().all(|share| *share == Some(250)), "{shares:?}");
    }

    #[test]
    fn few_flows_take_a_millisecond_each() {
        for (total, intervals) in [(0, 1), (1, 1), (10, 1), (100, 10), (1000, 100)] {
            assert_eq!(shares(Duration::from_secs(10), total).len(), intervals, "{total}");
        }
    }

    #[test]
    fn without_a_time_all_go_at_once() {
        assert_eq!(shares(Duration::ZERO, 1_000_000), [None]);
    }
}
