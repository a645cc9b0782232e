//! How often something may be done: so many times at once, and then once an interval (the generic
//! cell rate algorithm, ITU-T I.371). Eight bytes, so that every flow can have one. Absent on purpose:
//! what is refused, and how.

use std::time::Duration;

use super::time::Time;

/// A bound in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// When everything that was taken is paid for.
    paid_at: Time,
}

/// What an [`Allowance`] allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time that pays for one.
    pub interval: Duration,
    /// How many at once.
    pub burst: u32,
}

impl Allowance {
    /// Whether one more may be taken now.
    pub fn has(&self, now: Time, rate: Rate) -> bool {
        self.paid_at.saturating_since(now) <= rate.interval * rate.burst.saturating_sub(1)
    }

    /// Takes one, allowed or not.
    pub fn take(&mut self, now: Time, rate: Rate) {
        self.paid_at = self.paid_at.max(now) + rate.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_an_interval() {
        let rate = Rate { interval: Duration::from_secs(10), burst: 3 };
        let mut allowance = Allowance::default();
        let mut now = Time::ZERO + Duration::from_secs(1000);
        let take = |allowance: &mut Allowance, now: Time| {
            let has = allowance.has(now, rate);
            if has {
                allowance.take(now, rate);
            }
            has
        };
        let taken = (0..10).filter(|_| take(&mut allowance, now)).count();
        assert_eq!(taken, 3);
        now += Duration::from_secs(9);
        assert!(!take(&mut allowance, now));
        now += Duration::from_secs(1);
        assert!(take(&mut allowance, now) && !take(&mut allowance, now));
        now += Duration::from_secs(3600);
        let taken = (0..10).filter(|_| take(&mut allowance, now)).count();
        assert_eq!(taken, 3, "what was not taken is not saved up");
    }
}
