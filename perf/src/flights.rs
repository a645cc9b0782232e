//! The exchanges in flight, by name: a slot and a serial number that is never used again, so that
//! what comes late or twice is known. Here is decided when the next one starts: as soon as one has
//! ended (closed loop), or at a fixed rate (open loop). With a rate latency counts from the time at
//! which the exchange was to start, so that a slow server cannot hide behind a load that waits for
//! it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;

use crate::report;

/// Bits of a name that say the slot.
const SLOT_BITS: u32 = 20;

/// One exchange.
#[derive(Clone, Debug)]
pub struct Flight {
    /// Its name; of the slot's next one when there is none.
    pub id: u64,
    /// The end that sends first.
    pub from: usize,
    /// The end that is to receive.
    pub to: usize,
    /// What has happened, in the scenario's own bits.
    pub phase: u32,
    /// Which of the scenario's kinds of exchange it is; each has its latencies.
    pub class: usize,
    intended: Instant,
    started: Instant,
    is_open: bool,
    /// What of the other side's messages is needed again, reused from exchange to exchange.
    pub memory: Vec<u8>,
}

/// When exchanges start.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Exchanges that may be in flight.
    pub in_flight: usize,
    /// Exchanges a second; `None`: one starts when one ends.
    pub rate: Option<f64>,
    /// After so long without its end an exchange counts as unanswered.
    pub patience: Duration,
}

/// What was counted since the last [`Flights::reset`], for each class.
pub struct Tally {
    /// Latencies of what ended, in nanoseconds.
    pub latency: Histogram<u64>,
    /// What ended well.
    pub done: u64,
}

/// All of them.
pub struct Flights {
    slots: Vec<Flight>,
    free: Vec<usize>,
    pace: Pace,
    next_due: Instant,
    is_stopped: bool,
    /// By class.
    pub tallies: Vec<Tally>,
    /// What went wrong, by kind.
    pub errors: BTreeMap<String, u64>,
    now: Instant,
}

impl Flights {
    /// None in flight; stopped.
    pub fn new(pace: Pace, classes: usize) -> Flights {
        let now = Instant::now();
        let first = first_serial() << SLOT_BITS;
        let slot = |index| Flight {
            id: first | index as u64,
            from: 0,
            to: 0,
            phase: 0,
            class: 0,
            intended: now,
            started: now,
            is_open: false,
            memory: Vec::new(),
        };
        Flights {
            slots: (0..pace.in_flight).map(slot).collect(),
            free: (0..pace.in_flight).rev().collect(),
            pace,
            next_due: now,
            is_stopped: true,
            tallies: (0..classes).map(|_| Tally::new()).collect(),
            errors: BTreeMap::new(),
            now,
        }
    }

    /// Tells the time, once a turn.
    pub fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// The time of this turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Lets exchanges start from now on.
    pub fn go(&mut self) {
        if std::mem::take(&mut self.is_stopped) {
            self.next_due = self.now;
        }
    }

    /// Lets no more start.
    pub fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// Forgets what was counted.
    pub fn reset(&mut self) {
        self.tallies.iter_mut().for_each(|tally| *tally = Tally::new());
        self.errors.clear();
    }

    /// Exchanges in flight.
    pub fn open_count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How long nothing needs to start.
    pub fn idle_time(&self) -> Duration {
        const REST: Duration = Duration::from_millis(50);
        match self.pace.rate {
            Some(_) if !self.is_stopped && !self.free.is_empty() => {
                self.next_due.saturating_duration_since(self.now).min(REST)
            }
            _ => REST,
        }
    }

    /// A slot for the exchange that is due, if one is: its name. The caller sets ends and class.
    pub fn next(&mut self) -> Option<usize> {
        if self.is_stopped || self.pace.rate.is_some() && self.next_due > self.now {
            return None;
        }
        let slot = self.free.pop()?;
        let flight = &mut self.slots[slot];
        (flight.is_open, flight.phase, flight.class) = (true, 0, 0);
        flight.started = self.now;
        flight.intended = self.now;
        flight.memory.clear();
        if let Some(rate) = self.pace.rate {
            flight.intended = self.next_due;
            self.next_due += Duration::from_secs_f64(1.0 / rate);
        }
        Some(slot)
    }

    /// The exchange in a slot.
    pub fn slot(&mut self, slot: usize) -> &mut Flight {
        &mut self.slots[slot]
    }

    /// The slot of the exchange of that name, while it is in flight.
    pub fn find(&self, id: u64) -> Option<usize> {
        let slot = (id & ((1 << SLOT_BITS) - 1)) as usize;
        let flight = self.slots.get(slot)?;
        (flight.id == id && flight.is_open).then_some(slot)
    }

    /// The exchange has ended well.
    pub fn finish(&mut self, slot: usize) {
        let flight = &self.slots[slot];
        let latency = self.now.saturating_duration_since(flight.intended);
        let tally = &mut self.tallies[flight.class];
        tally.latency.saturating_record(latency.as_nanos() as u64);
        tally.done += 1;
        self.release(slot);
    }

    /// The exchange has ended otherwise.
    pub fn fail(&mut self, slot: usize, kind: &str) {
        self.count(kind);
        self.release(slot);
    }

    /// Counts what is wrong.
    pub fn count(&mut self, kind: &str) {
        match self.errors.get_mut(kind) {
            Some(count) => *count += 1,
            None => drop(self.errors.insert(kind.to_owned(), 1)),
        }
    }

    fn release(&mut self, slot: usize) {
        let flight = &mut self.slots[slot];
        flight.is_open = false;
        flight.id = flight.id.wrapping_add(1 << SLOT_BITS);
        self.free.push(slot);
    }

    /// Gives up what has waited too long: each as the error that `kind` makes of it.
    pub fn sweep(&mut self, kind: impl Fn(&Flight) -> &'static str) {
        for slot in 0..self.slots.len() {
            let flight = &self.slots[slot];
            if flight.is_open && self.now.duration_since(flight.started) > self.pace.patience {
                self.fail(slot, kind(flight));
            }
        }
    }
}

impl Tally {
    fn new() -> Tally {
        Tally { latency: report::histogram(), done: 0 }
    }
}

/// The microsecond of the start: no run uses a name that a server may still remember from an
/// earlier one, since a slot uses less than one a microsecond.
pub fn first_serial() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn flights(in_flight: usize, rate: Option<f64>) -> Flights {
        let mut flights = Flights::new(Pace { in_flight, rate, patience: PATIENCE }, 1);
        flights.go();
        flights
    }

    #[test]
    fn a_closed_loop_starts_one_when_one_ends() {
        let mut flights = flights(2, None);
        let first = flights.next().unwrap();
        flights.next().unwrap();
        assert_eq!(flights.next(), None);
        flights.finish(first);
        assert_eq!((flights.next(), flights.tallies[0].done), (Some(first), 1));
    }

    #[test]
    fn a_name_is_never_used_again() {
        let mut flights = flights(1, None);
        let slot = flights.next().unwrap();
        let id = flights.slot(slot).id;
        assert_eq!(flights.find(id), Some(slot));
        flights.finish(slot);
        assert_eq!(flights.find(id), None);
        flights.next().unwrap();
        assert_eq!(flights.find(id), None);
        assert_ne!(flights.slot(slot).id, id);
    }

    #[test]
    fn latency_counts_from_the_time_that_was_intended() {
        let mut flights = flights(1, Some(1000.0));
        let start = flights.now();
        let slot = flights.next().unwrap();
        assert_eq!(flights.next(), None);
        flights.set_now(start + Duration::from_millis(10));
        flights.finish(slot);
        let slot = flights.next().unwrap();
        flights.finish(slot);
        let latency = &flights.tallies[0].latency;
        assert!(latency.min() >= 8_900_000, "the second was due at 1 ms and ended at 10 ms");
        assert!(latency.max() >= 9_900_000);
        assert_eq!(flights.idle_time(), Duration::ZERO);
    }

    #[test]
    fn what_is_not_answered_is_an_error_of_its_kind() {
        let mut flights = flights(1, None);
        let slot = flights.next().unwrap();
        flights.sweep(|_| "no answer");
        assert_eq!(flights.open_count(), 1);
        let start = flights.now();
        flights.set_now(start + PATIENCE + Duration::from_millis(1));
        let id = flights.slot(slot).id;
        flights.sweep(|_| "no answer");
        assert_eq!((flights.open_count(), flights.errors["no answer"]), (0, 1));
        assert_eq!((flights.find(id), flights.tallies[0].done), (None, 0));
    }

    #[test]
    fn nothing_starts_when_stopped() {
        let mut flights = flights(1, None);
        flights.stop();
        assert_eq!(flights.next(), None);
    }
}
