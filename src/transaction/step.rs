//! What a machine wants done: a short inline list, no heap.

use std::ops::Deref;
use std::time::Duration;

use super::timer::Timer;

/// One thing that the owner of a machine has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Send the stored request (the first time or again).
    SendRequest,
    /// Send the stored response: the one just given to the machine, or the last one again.
    SendResponse,
    /// Build a 100 (Trying), store it as the last response and send it (RFC 4320 §4.1).
    SendTrying,
    /// Build and send the ACK for the non-2xx that came in (RFC 3261 §17.1.1.3); for a repeat, once
    /// more.
    SendAck,
    /// The message that came in goes up to the proxy core.
    PassUp,
    /// The message that came in (or the response that was given) ends here: count it.
    Absorb,
    /// Start the timer; a running one of the same letter is replaced.
    Arm(Timer, Duration),
    /// Stop the timer.
    Cancel(Timer),
    /// Tell the core that what the transaction waited for did not come: a client transaction's
    /// final response (INVITE: treat as 408; others: expired, RFC 4320 §4.2), a server
    /// transaction's ACK (timer H).
    TimedOut,
    /// Tell the core that the transport failed.
    TransportFailed,
    /// The machine is in state Terminated: forget it and all its timers.
    Ended,
}

/// Most steps that one event takes: a reliable client INVITE that gets its 3xx–6xx while calling.
const STEPS_MAX: usize = 5;

/// The steps of one event, in the order in which they are to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Steps {
    items: [Step; STEPS_MAX],
    len: u8,
}

impl Steps {
    /// Nothing to do.
    pub const NONE: Steps = Steps { items: [Step::Ended; STEPS_MAX], len: 0 };

    /// The list of these steps.
    pub(super) fn of(steps: &[Step]) -> Steps {
        let mut list = Steps::NONE;
        list.items[..steps.len()].copy_from_slice(steps);
        list.len = steps.len() as u8;
        list
    }

    /// One step more at the end.
    pub(super) fn then(mut self, step: Step) -> Steps {
        self.items[usize::from(self.len)] = step;
        self.len += 1;
        self
    }

    /// The end of a machine that now only waits: armed, or ended at once when there is nothing to
    /// wait for (the RFC's zero seconds over reliable transports).
    pub(super) fn then_linger(self, timer: Timer, wait: Duration) -> Steps {
        self.then(if wait.is_zero() { Step::Ended } else { Step::Arm(timer, wait) })
    }
}

impl Deref for Steps {
    type Target = [Step];
    fn deref(&self) -> &[Step] {
        &self.items[..usize::from(self.len)]
    }
}
