//! What the handlers of completions may touch besides their own tables, for the length of one turn.

use rtrb::Producer;

use super::clock::Clock;
use super::log_line::Report;
use super::ring::Ring;
use crate::base::metrics::Counters;
use crate::base::time::Time;

/// The surroundings of one turn.
pub struct Turn<'a, P> {
    /// Where operations go.
    pub ring: &'a mut Ring,
    /// Who is told.
    pub protocol: &'a mut P,
    /// What the driver counts itself; the engine counts the rest.
    pub counters: &'a mut Counters,
    /// What goes to the log.
    pub reports: &'a mut Producer<Report>,
    /// The time of the present completion; never goes back.
    pub now: Time,
    /// For what must be measured.
    pub clock: Clock,
}

impl<P> Turn<'_, P> {
    /// Hands something to the log; it is dropped and counted when the log cannot keep up.
    pub fn report(&mut self, report: Report) {
        if self.reports.push(report).is_err() {
            self.counters.events_dropped += 1;
        }
    }
}
