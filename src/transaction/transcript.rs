//! Tests only: a virtual clock that drives one machine, honours Arm and Cancel, and writes down
//! every step.

use std::time::Duration;

use crate::base::config::Timers;

use super::step::{Step, Steps};
use super::timer::Timer;

/// A machine under test: what the clock needs to know of it.
pub(super) trait Machine {
    /// The timer fired.
    fn fire(&mut self, timer: Timer, timers: &Timers) -> Steps;
}

/// One machine, its armed timers, and what has been seen so far.
pub(super) struct Transcript<M> {
    pub(super) machine: M,
    pub(super) timers: Timers,
    now: Duration,
    armed: Vec<(Duration, Timer)>,
    ended: bool,
    lines: Vec<String>,
}

impl<M: Machine> Transcript<M> {
    /// Starts the clock at zero with what the machine wanted when it was made.
    pub(super) fn new(start: impl FnOnce(&Timers) -> (M, Steps)) -> Transcript<M> {
        let timers = Timers::default();
        let (machine, steps) = start(&timers);
        let mut transcript = Transcript {
            machine,
            timers,
            now: Duration::ZERO,
            armed: Vec::new(),
            ended: false,
            lines: Vec::new(),
        };
        transcript.take(steps);
        transcript
    }

    /// Lets `event` happen now.
    pub(super) fn event(&mut self, event: impl FnOnce(&mut M, &Timers) -> Steps) -> &mut Self {
        assert!(!self.ended, "event after Ended");
        let timers = self.timers;
        let steps = event(&mut self.machine, &timers);
        self.take(steps);
        self
    }

    /// Lets time pass, firing what is due in order, up to `ms` milliseconds after the start.
    pub(super) fn until(&mut self, ms: u64) -> &mut Self {
        let end = Duration::from_millis(ms);
        while let Some(position) = self.next_due(end) {
            let (at, timer) = self.armed.remove(position);
            self.now = at;
            let timers = self.timers;
            let steps = self.machine.fire(timer, &timers);
            self.take(steps);
        }
        self.now = end;
        self
    }

    /// Forgets what was seen so far: the lines that lead up to the arrow under test.
    pub(super) fn skip(&mut self) -> &mut Self {
        self.lines.clear();
        self
    }

    /// Compares what was seen with `expected`, a line a step. Arm and Cancel are not written down:
    /// that they were honoured shows in the times.
    #[track_caller]
    pub(super) fn expect(&mut self, expected: &[&str]) {
        assert_eq!(self.lines, expected);
        assert!(!self.ended || self.armed.is_empty());
        self.lines.clear();
    }

    fn next_due(&self, end: Duration) -> Option<usize> {
        let (position, (at, _)) = self.armed.iter().enumerate().min_by_key(|(_, entry)| **entry)?;
        (*at <= end).then_some(position)
    }

    fn take(&mut self, steps: Steps) {
        for step in steps.iter() {
            match *step {
                Step::Arm(timer, after) => {
                    self.armed.retain(|entry| entry.1 != timer);
                    self.armed.push((self.now + after, timer));
                    continue;
                }
                Step::Cancel(timer) => {
                    let before = self.armed.len();
                    self.armed.retain(|entry| entry.1 != timer);
                    assert!(self.armed.len() < before, "{timer:?} cancelled but not armed");
                    continue;
                }
                Step::Ended => {
                    self.ended = true;
                    self.armed.clear();
                }
                _ => {}
            }
            self.lines.push(format!("at {}ms: {step:?}", self.now.as_millis()));
        }
    }
}
