//! Timers of a shard: a hierarchical wheel with ticks of one millisecond. Arming and cancelling are
//! O(1) and allocate nothing once the table has grown. Absent on purpose: clocks and callbacks.
//!
//! A tick is a number of [`DIGITS`] digits of 6 bits. A timer stands on the level of the highest
//! digit in which its tick differs from the current one, in the slot of that digit's value. So on
//! every level all timers stand in slots after the current digit, lower levels are due before
//! higher ones, a timer's place follows from its tick alone, and timers of one tick always share a
//! list, in the order in which they were armed.

use std::num::NonZeroU32;

use super::slab::{Slab, SlabKey};
use super::time::Time;

const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
/// 48 bits of milliseconds, more than a [`Time`] can express.
const DIGITS: usize = 8;
const NANOS_A_TICK: u64 = 1_000_000;
const TICK_MAX: u64 = u64::MAX / NANOS_A_TICK;

const _: () = assert!(TICK_MAX >> (DIGIT_BITS * DIGITS as u32) == 0);

/// The name of one armed timer; of no use once it fired or was cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimerId {
    index: u32,
    generation: NonZeroU32,
}

/// Armed timers, each with a value of `T` that says what is due.
pub struct Wheel<T: Copy> {
    /// Everything due before this tick has been popped.
    current: u64,
    nodes: Slab<Node<T>>,
    /// By level: bit s is set when the list of slot s is not empty.
    occupied: [u64; DIGITS],
    lists: Box<[[List; SLOTS]; DIGITS]>,
}

struct Node<T> {
    tick: u64,
    what: T,
    previous: Link,
    next: Link,
}

#[derive(Clone, Copy)]
struct List {
    first: Link,
    last: Link,
}

/// A slot of `nodes` plus one, or [`Link::NONE`]. It is never zero so that an empty slab entry
/// costs no tag.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Link(NonZeroU32);

impl Link {
    const NONE: Link = Link(NonZeroU32::MAX);

    fn to(index: u32) -> Link {
        Link(NonZeroU32::new(index + 1).expect("the slab's bound is below the largest index"))
    }

    fn index(self) -> Option<u32> {
        (self != Link::NONE).then(|| self.0.get() - 1)
    }
}

impl<T: Copy> Wheel<T> {
    /// A wheel without timers at time `now`.
    pub fn new(now: Time) -> Wheel<T> {
        const EMPTY: List = List { first: Link::NONE, last: Link::NONE };
        Wheel {
            current: now.as_millis(),
            nodes: Slab::new(u32::MAX as usize - 2),
            occupied: [0; DIGITS],
            lists: Box::new([[EMPTY; SLOTS]; DIGITS]),
        }
    }

    /// Arms a timer: `what` is popped at the first tick at or after `at`; what is already past is
    /// popped next.
    pub fn arm(&mut self, at: Time, what: T) -> TimerId {
        let tick = at.as_nanos().div_ceil(NANOS_A_TICK).min(TICK_MAX).max(self.current);
        let node = Node { tick, what, previous: Link::NONE, next: Link::NONE };
        let key = self.nodes.insert(node).expect("fewer timers than 32 bits can name");
        self.append(key.index, tick);
        let generation = NonZeroU32::new(key.generation).expect("generations begin at 1");
        TimerId { index: key.index, generation }
    }

    /// Disarms a timer. False when it had fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> bool {
        let key = SlabKey { index: id.index, generation: id.generation.get() };
        if self.nodes.get(key).is_none() {
            return false;
        }
        self.unlink(id.index);
        self.nodes.remove(key);
        true
    }

    /// When [`Wheel::pop_expired`] wants to be called next; `None` when nothing is armed. Exact for
    /// the next 64 ms; early, never late, for what is farther off: each such call brings the next
    /// one closer to the truth.
    pub fn next_deadline(&self) -> Option<Time> {
        let (_, _, tick) = self.next_place()?;
        Some(Time::from_nanos(tick * NANOS_A_TICK))
    }

    /// The next timer that is due at `now`: by tick, then in the order of arming. Call until
    /// `None`.
    pub fn pop_expired(&mut self, now: Time) -> Option<T> {
        let now = now.as_millis();
        while let Some((level, slot, tick)) = self.next_place().filter(|place| place.2 <= now) {
            self.current = tick;
            let first = self.lists[level][slot].first.index().expect("an occupied slot");
            if level == 0 {
                self.unlink(first);
                return self.nodes.remove(self.nodes.key_at(first)).map(|node| node.what);
            }
            self.spread(level, slot);
        }
        self.current = self.current.max(now);
        None
    }

    /// How many timers are armed.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none is armed.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Level, slot and first tick of the earliest list.
    fn next_place(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|slots| *slots != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let shift = DIGIT_BITS * level as u32;
        let above = self.current >> (shift + DIGIT_BITS) << (shift + DIGIT_BITS);
        Some((level, slot, above | (slot as u64) << shift))
    }

    /// Level and slot of `tick`, which is not before the current one.
    fn place_of(&self, tick: u64) -> (usize, usize) {
        let differs = (tick ^ self.current) | 1;
        let level = (differs.ilog2() / DIGIT_BITS) as usize;
        (level, (tick >> (DIGIT_BITS * level as u32)) as usize % SLOTS)
    }

    /// Moves the timers of a list, whose first tick is the current one now, to the levels below.
    fn spread(&mut self, level: usize, slot: usize) {
        let mut next = self.lists[level][slot].first;
        self.lists[level][slot] = List { first: Link::NONE, last: Link::NONE };
        self.occupied[level] &= !(1 << slot);
        while let Some(index) = next.index() {
            let node = self.nodes.at_mut(index);
            let tick = node.tick;
            next = std::mem::replace(&mut node.next, Link::NONE);
            node.previous = Link::NONE;
            self.append(index, tick);
        }
    }

    fn append(&mut self, index: u32, tick: u64) {
        let (level, slot) = self.place_of(tick);
        self.occupied[level] |= 1 << slot;
        let list = &mut self.lists[level][slot];
        let last = std::mem::replace(&mut list.last, Link::to(index));
        match last.index() {
            None => list.first = Link::to(index),
            Some(before) => {
                self.nodes.at_mut(before).next = Link::to(index);
                self.nodes.at_mut(index).previous = last;
            }
        }
    }

    fn unlink(&mut self, index: u32) {
        let &Node { tick, previous, next, .. } = self.nodes.at(index);
        let (level, slot) = self.place_of(tick);
        match previous.index() {
            Some(before) => self.nodes.at_mut(before).next = next,
            None => self.lists[level][slot].first = next,
        }
        match next.index() {
            Some(after) => self.nodes.at_mut(after).previous = previous,
            None => self.lists[level][slot].last = previous,
        }
        if self.lists[level][slot].first == Link::NONE {
            self.occupied[level] &= !(1 << slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rng::Rng;
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    const DAY: u64 = 24 * 3600 * 1000;

    fn millis(millis: u64) -> Time {
        Time::from_nanos(millis.saturating_mul(NANOS_A_TICK))
    }

    #[test]
    fn a_timer_never_fires_early_and_fires_on_its_tick() {
        for nanos in [0, 1, 999_999, 1_000_000, 1_000_001, 64_000_000, 4_096_000_001] {
            let mut wheel = Wheel::new(Time::ZERO);
            wheel.arm(Time::from_nanos(nanos), ());
            if nanos > 0 {
                assert_eq!(wheel.pop_expired(Time::from_nanos(nanos - 1)), None, "{nanos}");
            }
            let tick = nanos.div_ceil(NANOS_A_TICK);
            assert_eq!(wheel.pop_expired(millis(tick)), Some(()), "{nanos}");
            assert!(wheel.is_empty() && wheel.next_deadline().is_none());
        }
    }

    #[test]
    fn the_end_of_time_can_be_armed_and_reached() {
        let mut wheel = Wheel::new(millis(5));
        let id = wheel.arm(Time::from_nanos(u64::MAX), 1);
        assert_eq!(wheel.pop_expired(millis(1000 * DAY)), None);
        assert!(wheel.cancel(id) && !wheel.cancel(id));
        wheel.arm(Time::from_nanos(u64::MAX) + Duration::MAX, 2);
        assert_eq!(wheel.pop_expired(Time::from_nanos(u64::MAX)), Some(2));
    }

    #[test]
    fn following_the_deadlines_costs_one_call_a_level() {
        for distance in [1, 63, 64, 4_095, 32_000, 900_000, 30 * DAY] {
            let mut wheel = Wheel::new(millis(12_345));
            wheel.arm(millis(12_345 + distance), ());
            let mut calls = 0;
            let fired_at = loop {
                let deadline = wheel.next_deadline().unwrap();
                calls += 1;
                if wheel.pop_expired(deadline).is_some() {
                    break deadline;
                }
                assert!(wheel.next_deadline().unwrap() > deadline);
            };
            assert_eq!(fired_at, millis(12_345 + distance));
            assert!(calls <= DIGITS, "{distance}: {calls}");
        }
    }

    #[test]
    fn a_stale_id_cancels_nothing() {
        let mut wheel = Wheel::new(Time::ZERO);
        let fired = wheel.arm(millis(1), 1);
        assert_eq!(wheel.pop_expired(millis(1)), Some(1));
        let reused = wheel.arm(millis(2), 2);
        assert_eq!(reused.index, fired.index);
        assert!(!wheel.cancel(fired));
        assert!(wheel.cancel(reused));
        assert_eq!(wheel.pop_expired(millis(9)), None);
    }

    #[test]
    fn an_id_and_a_node_are_small() {
        assert_eq!(size_of::<Option<TimerId>>(), 8);
        assert_eq!(size_of::<Option<Node<u64>>>(), 24);
    }

    /// The wheel beside an ordered map: random arms, cancels and jumps of time, from nothing to
    /// months.
    #[test]
    fn it_behaves_as_an_ordered_map() {
        for seed in 0..20 {
            let mut rng = Rng::new([seed; 32]);
            let start = rng.below(1 << 45);
            let mut run = Run::new(Time::from_nanos(start));
            for _ in 0..3_000 {
                match rng.below(10) {
                    0..5 => run.arm(&mut rng),
                    5..8 => run.cancel(&mut rng),
                    _ => run.jump(&mut rng),
                }
                run.check();
            }
            run.now = millis(TICK_MAX);
            run.drain(&mut rng);
            assert!(run.wheel.is_empty());
        }
    }

    struct Run {
        now: Time,
        /// Mirrors the wheel's: the last tick popped or drained to.
        current: u64,
        wheel: Wheel<u64>,
        model: BTreeMap<(u64, u64), TimerId>,
        armed: u64,
        live_most: usize,
    }

    impl Run {
        fn new(now: Time) -> Run {
            let wheel = Wheel::new(now);
            let (current, model) = (now.as_millis(), BTreeMap::new());
            Run { now, current, wheel, model, armed: 0, live_most: 0 }
        }

        fn distance(rng: &mut Rng) -> Duration {
            let bits = rng.below(54);
            Duration::from_nanos(rng.below(1 << bits))
        }

        fn arm(&mut self, rng: &mut Rng) {
            let at = match rng.below(20) {
                0 => Time::from_nanos(rng.below(self.now.as_nanos() + 1)),
                1 => millis(self.now.as_millis() + rng.below(3)),
                _ => self.now + Self::distance(rng),
            };
            self.armed += 1;
            let id = self.wheel.arm(at, self.armed);
            let tick = at.as_nanos().div_ceil(NANOS_A_TICK).clamp(self.current, TICK_MAX);
            self.model.insert((tick, self.armed), id);
            self.live_most = self.live_most.max(self.model.len());
        }

        fn cancel(&mut self, rng: &mut Rng) {
            if self.model.is_empty() {
                return;
            }
            let nth = rng.below(self.model.len() as u64) as usize;
            let key = *self.model.keys().nth(nth).unwrap();
            let id = self.model.remove(&key).unwrap();
            assert!(self.wheel.cancel(id));
            assert!(!self.wheel.cancel(id));
        }

        fn jump(&mut self, rng: &mut Rng) {
            self.now += Self::distance(rng);
            self.drain(rng);
        }

        fn drain(&mut self, rng: &mut Rng) {
            while let Some(what) = self.wheel.pop_expired(self.now) {
                let ((tick, expected), id) = self.model.pop_first().unwrap();
                assert_eq!(what, expected);
                assert!(millis(tick) <= self.now);
                assert!(!self.wheel.cancel(id));
                self.current = tick;
                if rng.below(4) == 0 {
                    self.arm(rng);
                }
            }
            self.current = self.now.as_millis();
        }

        fn check(&self) {
            assert_eq!(self.wheel.len(), self.model.len());
            let deadline = self.wheel.next_deadline();
            let first = self.model.first_key_value().map(|(key, _)| millis(key.0));
            assert_eq!(deadline.is_some(), first.is_some());
            assert!(deadline <= first);
            // Slots are used again: the table is no larger than the most timers there ever were at
            // a time.
            let slots = self.wheel.nodes.iter().map(|(key, _)| key.index as usize + 1).max();
            assert!(slots.unwrap_or(0) <= self.live_most);
        }
    }
}
