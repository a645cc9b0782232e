//! What shards show of themselves: each writes numbers of its own that control and the admin page
//! read. One writer, relaxed: a reader sees values of slightly different moments.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::base::metrics::{Counters, Gauges, RoundTrips};

const GAUGES: usize = 10 + 5 * RoundTrips::BUCKETS;

/// One shard's published numbers, on cache lines of their own.
#[repr(align(128))]
#[derive(Debug)]
pub struct Published {
    counters: [AtomicU64; Counters::COUNT],
    gauges: [AtomicU64; GAUGES],
    is_quiet: AtomicBool,
}

impl Default for Published {
    fn default() -> Published {
        Published {
            counters: [const { AtomicU64::new(0) }; Counters::COUNT],
            gauges: [const { AtomicU64::new(0) }; GAUGES],
            is_quiet: AtomicBool::new(false),
        }
    }
}

impl Published {
    /// For the shard: replaces everything.
    pub fn publish(&self, counters: &[u64; Counters::COUNT], gauges: &Gauges, is_quiet: bool) {
        for (cell, value) in self.counters.iter().zip(counters) {
            cell.store(*value, Ordering::Relaxed);
        }
        for (cell, value) in self.gauges.iter().zip(flatten(gauges)) {
            cell.store(value, Ordering::Relaxed);
        }
        self.is_quiet.store(is_quiet, Ordering::Release);
    }

    /// Every counter, in the order of [`Counters::ROWS`].
    pub fn counters(&self) -> [u64; Counters::COUNT] {
        std::array::from_fn(|index| self.counters[index].load(Ordering::Relaxed))
    }

    /// Every gauge.
    pub fn gauges(&self) -> Gauges {
        gather(std::array::from_fn(|index| self.gauges[index].load(Ordering::Relaxed)))
    }

    /// Whether the shard drains and has no transaction left.
    pub fn is_quiet(&self) -> bool {
        self.is_quiet.load(Ordering::Acquire)
    }

    /// The sums over all shards.
    pub fn total(all: &[Arc<Published>]) -> ([u64; Counters::COUNT], Gauges) {
        let mut counters = [0; Counters::COUNT];
        let mut gauges = [0; GAUGES];
        for one in all {
            counters.iter_mut().zip(one.counters()).for_each(|(sum, value)| *sum += value);
            gauges.iter_mut().zip(flatten(&one.gauges())).for_each(|(sum, value)| *sum += value);
        }
        (counters, gather(gauges))
    }
}

fn flatten(gauges: &Gauges) -> [u64; GAUGES] {
    let Gauges {
        flows,
        bindings,
        aors,
        server_transactions: server,
        client_transactions: client,
        targets_resting,
        round_trips,
    } = *gauges;
    let single = [bindings, aors, server, client, targets_resting];
    let mut all =
        flows.into_iter().chain(single).chain(round_trips.into_iter().flat_map(|it| it.flows));
    std::array::from_fn(|_| all.next().expect("as many as there are"))
}

fn gather(values: [u64; GAUGES]) -> Gauges {
    let mut all = values.into_iter();
    let mut next = || all.next().expect("as many as there are");
    Gauges {
        flows: std::array::from_fn(|_| next()),
        bindings: next(),
        aors: next(),
        server_transactions: next(),
        client_transactions: next(),
        targets_resting: next(),
        round_trips: std::array::from_fn(|_| RoundTrips { flows: std::array::from_fn(|_| next()) }),
    }
}

/// What the process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not every shard is up.
    Starting,
    /// Open for traffic.
    Ready,
    /// Asked to end: no new work.
    Draining,
}

/// The phase, shared with the admin page (`/readyz`).
#[derive(Debug, Default)]
pub struct RunState(AtomicU8);

impl RunState {
    /// What the process is doing now.
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read_and_summed() {
        let all = [Arc::new(Published::default()), Arc::new(Published::default())];
        let counters = Counters { flows_accepted: 3, timers_fired: 7, ..Counters::default() };
        let gauges = Gauges {
            flows: [0, 1, 2, 3, 4],
            bindings: 5,
            aors: 6,
            server_transactions: 7,
            client_transactions: 8,
            round_trips: [20, 40, 60, 80, 100]
                .map(|first| RoundTrips { flows: std::array::from_fn(|at| first + at as u64) }),
            targets_resting: 9,
        };
        for one in &all {
            one.publish(&counters.values(), &gauges, true);
            assert_eq!(one.counters(), counters.values());
            assert_eq!(one.gauges(), gauges);
            assert!(one.is_quiet());
        }
        let (sums, total) = Published::total(&all);
        assert_eq!(sums[0], 6);
        assert_eq!((total.flows[4], total.client_transactions), (8, 16));
    }

    #[test]
    fn the_phase_moves_on() {
        let state = RunState::default();
        assert_eq!(state.phase(), Phase::Starting);
        for phase in [Phase::Ready, Phase::Draining] {
            state.enter(phase);
            assert_eq!(state.phase(), phase);
        }
    }
}
