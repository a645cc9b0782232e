//! The timers of RFC 3261 §17 (table 4) and RFC 6026 by their letters, and how long each runs at
//! first.

use std::time::Duration;

use crate::base::config::Timers;

/// A timer's letter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Timer {
    /// INVITE request retransmit, unreliable only.
    A,
    /// INVITE client transaction timeout.
    B,
    /// Proxy INVITE transaction timeout (RFC 3261 §16.6 step 11): armed by the proxy, not by a
    /// machine.
    C,
    /// Wait for response retransmits after a non-2xx to INVITE.
    D,
    /// Non-INVITE request retransmit, unreliable only.
    E,
    /// Non-INVITE client transaction timeout.
    F,
    /// INVITE response retransmit, unreliable only.
    G,
    /// Wait for ACK receipt.
    H,
    /// Wait for ACK retransmits.
    I,
    /// Wait for non-INVITE request retransmits.
    J,
    /// Wait for non-INVITE response retransmits.
    K,
    /// Wait for accepted INVITE request retransmits (RFC 6026 §8.11).
    L,
    /// Wait for retransmits of 2xx and for 2xx of other branches (RFC 6026 §8.11).
    M,
    /// A non-INVITE request without any response gets its 100 (RFC 4320 §4.1, which gave it no
    /// letter).
    Trying,
}

impl Timer {
    /// How long it runs when it is armed first. Zero for the waits that reliable transports do not
    /// need.
    pub fn first(self, timers: &Timers, reliable: bool) -> Duration {
        match self {
            Timer::A | Timer::E | Timer::G => timers.t1,
            Timer::B | Timer::F | Timer::H | Timer::L | Timer::M => timers.t1 * 64,
            Timer::C => timers.c,
            Timer::D | Timer::I | Timer::J | Timer::K if reliable => Duration::ZERO,
            Timer::D => (timers.t1 * 64).max(Duration::from_secs(32)),
            Timer::J => timers.t1 * 64,
            Timer::I | Timer::K => timers.t4,
            Timer::Trying => until_e_is_t2(timers),
        }
    }
}

/// A retransmit interval, kept in milliseconds so that a machine stays small. Doubles up to a cap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Interval(u32);

impl Interval {
    /// The interval `first`; T1 is configured in milliseconds, so nothing is lost.
    pub(super) fn new(first: Duration) -> Interval {
        Interval(u32::try_from(first.as_millis()).unwrap_or(u32::MAX))
    }

    /// Twice as long from now on.
    pub(super) fn double(&mut self) -> Duration {
        self.0 = self.0.saturating_mul(2);
        Duration::from_millis(u64::from(self.0))
    }

    /// Twice as long from now on, but at most `cap`.
    pub(super) fn double_to(&mut self, cap: Duration) -> Duration {
        *self = Interval::new(self.double().min(cap));
        Duration::from_millis(u64::from(self.0))
    }
}

/// From the request until a client's timer E is set to T2: 3.5 s with the default values.
fn until_e_is_t2(timers: &Timers) -> Duration {
    let mut interval = timers.t1.max(Duration::from_millis(1));
    let mut elapsed = interval;
    while interval * 2 < timers.t2 {
        interval *= 2;
        elapsed += interval;
    }
    elapsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_durations_are_those_of_table_4() {
        let timers = Timers::default();
        let ms = |timer: Timer, reliable| timer.first(&timers, reliable).as_millis();
        for (timer, udp, tcp) in [
            (Timer::A, 500, 500),
            (Timer::B, 32_000, 32_000),
            (Timer::C, 185_000, 185_000),
            (Timer::D, 32_000, 0),
            (Timer::E, 500, 500),
            (Timer::F, 32_000, 32_000),
            (Timer::G, 500, 500),
            (Timer::H, 32_000, 32_000),
            (Timer::I, 5_000, 0),
            (Timer::J, 32_000, 0),
            (Timer::K, 5_000, 0),
            (Timer::L, 32_000, 32_000),
            (Timer::M, 32_000, 32_000),
            (Timer::Trying, 3_500, 3_500),
        ] {
            assert_eq!((ms(timer, false), ms(timer, true)), (udp, tcp), "{timer:?}");
        }
    }

    #[test]
    fn every_timer_follows_the_values_that_are_configured() {
        let s = Duration::from_secs;
        let timers = Timers { t1: s(1), t2: s(8), t4: s(10), c: s(200) };
        for (timer, udp, tcp) in [
            (Timer::A, 1, 1),
            (Timer::B, 64, 64),
            (Timer::C, 200, 200),
            (Timer::D, 64, 0),
            (Timer::E, 1, 1),
            (Timer::F, 64, 64),
            (Timer::G, 1, 1),
            (Timer::H, 64, 64),
            (Timer::I, 10, 0),
            (Timer::J, 64, 0),
            (Timer::K, 10, 0),
            (Timer::L, 64, 64),
            (Timer::M, 64, 64),
            (Timer::Trying, 7, 7),
        ] {
            let both = (timer.first(&timers, false), timer.first(&timers, true));
            assert_eq!(both, (s(udp), s(tcp)), "{timer:?}");
        }
    }

    #[test]
    fn timer_d_is_never_below_32_seconds() {
        let timers = Timers { t1: Duration::from_millis(10), ..Timers::default() };
        assert_eq!(Timer::D.first(&timers, false), Duration::from_secs(32));
        let timers = Timers { t1: Duration::from_secs(1), ..Timers::default() };
        assert_eq!(Timer::D.first(&timers, false), Duration::from_secs(64));
    }

    #[test]
    fn intervals_double_up_to_their_cap() {
        let mut interval = Interval::new(Duration::from_millis(500));
        let cap = Duration::from_secs(4);
        let seen: Vec<u128> = (0..5).map(|_| interval.double_to(cap).as_millis()).collect();
        assert_eq!(seen, [1_000, 2_000, 4_000, 4_000, 4_000]);
        let mut huge = Interval::new(Duration::from_secs(u64::MAX));
        assert_eq!(huge.double(), Duration::from_millis(u64::from(u32::MAX)));
    }

    #[test]
    fn a_t1_of_zero_ends() {
        let timers = Timers { t1: Duration::ZERO, ..Timers::default() };
        assert!(Timer::Trying.first(&timers, false) > Duration::ZERO);
    }
}
