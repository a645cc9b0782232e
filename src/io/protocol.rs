//! What the driver drives: the engine's methods as a trait, so that the driver can be tried with a
//! protocol that is simpler than SIP. See [`crate::engine`] for the contract.

use std::ops::Range;

use crate::base::metrics::{Counters, Gauges};
use crate::base::time::Time;
use crate::engine::{Engine, Input, Output, Setup};

/// One shard's protocol. Each method is the one of the same name of [`Engine`].
pub trait Protocol: Sized {
    /// A fresh one.
    fn new(now: Time, setup: Setup) -> Self;
    /// Event: something happened.
    fn handle(&mut self, now: Time, input: Input<'_>);
    /// Event: a deadline may have passed.
    fn handle_timeout(&mut self, now: Time);
    /// Getter: when that is wanted.
    fn next_deadline(&self) -> Option<Time>;
    /// Poll: the next thing to do.
    fn pop_output(&mut self) -> Option<Output>;
    /// Getter: bytes that an output named.
    fn bytes(&self, range: Range<usize>) -> &[u8];
    /// Getter: what was counted.
    fn counters(&self) -> &Counters;
    /// Getter: how full the tables are.
    fn gauges(&self) -> Gauges;
    /// Getter: how many requests wait for an answer: at none a draining process may end.
    fn unanswered(&self) -> u64;
}

impl Protocol for Engine {
    fn new(now: Time, setup: Setup) -> Engine {
        Engine::new(now, setup)
    }
    fn handle(&mut self, now: Time, input: Input<'_>) {
        self.handle(now, input);
    }
    fn handle_timeout(&mut self, now: Time) {
        self.handle_timeout(now);
    }
    fn next_deadline(&self) -> Option<Time> {
        self.next_deadline()
    }
    fn pop_output(&mut self) -> Option<Output> {
        self.pop_output()
    }
    fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.bytes(range)
    }
    fn counters(&self) -> &Counters {
        self.counters()
    }
    fn gauges(&self) -> Gauges {
        self.gauges()
    }
    fn unanswered(&self) -> u64 {
        self.unanswered()
    }
}
