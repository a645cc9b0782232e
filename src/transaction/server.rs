//! Non-INVITE server transaction (RFC 3261 §17.2.2, RFC 4320, RFC 6026 §8.8): repeats the last
//! response, says 100 when the core is slow, never sends 408. Absent on purpose: the messages; how
//! long the core may take.
//!
//! ```text
//!                                   |Request received
//!                                   |pass to TU
//!                                   V
//!         Request             +-----------+
//!         -           +-------|           |
//!                     |       | Trying    |-------------+
//!                     +------>|           |             |
//!                             +-----------+             |200-699 from TU
//!                  E would be T2    |                   |send response,
//!                  send 100         |100 from TU        |a 408 not
//!                                   |send response      |
//!                Request            V      100 from TU  |
//!                send response+-----------+send response|
//!                    +--------|           |--------+    |
//!     Trnsprt Err    |        | Proceeding|        |    |
//!     Inform TU      +------->|           |<-------+    |
//!     (all states)            +-----------+             |
//!                                   |                   |
//!                                   |200-699 from TU    |
//!                                   |send response,     |
//!                Request            V a 408 not         |
//!                send response+-----------+             |
//!                    +--------|           |             |
//!                    |        | Completed |<------------+
//!                    +------->|           |
//!                             +-----------+
//!                                   |Timer J fires
//!                                   |-
//!                                   V
//!                             +-----------+
//!                             | Terminated|
//!                             +-----------+
//! ```
//!
//! Its arrows, each with its test:
//!
//! ```text
//! → Trying: request                          trying_waits_for_the_tu
//! Trying: request                            trying_absorbs_the_request
//! Trying: transport                          trying_survives_a_transport_error
//! Trying → Proceeding: E would be T2         trying_says_100_when_e_would_be_t2
//! Trying → Proceeding: 100 of the TU         trying_sends_100_of_the_core_over_a_reliable_transport_only
//! Trying → Completed: 200-699 of the TU      trying_200_to_699_completed
//! Proceeding: request                        proceeding_repeats_the_100_to_a_request
//! Proceeding: 100 of the TU                  proceeding_sends_another_100
//! Proceeding: transport                      proceeding_survives_a_transport_error
//! Proceeding → Completed: 200-699 of the TU  proceeding_200_to_699_completed
//! Completed: request                         completed_repeats_the_response_to_a_request
//! Completed: transport                       completed_survives_a_transport_error
//! Completed → Terminated: J                  completed_ends_on_j
//! ```

use crate::base::config::Timers;

use super::step::{Step, Steps};
use super::timer::Timer;

/// One request other than INVITE and ACK that we received.
///
/// Events: [`Server::start`], [`Server::on_request_again`], [`Server::on_timer`],
/// [`Server::on_transport_failed`]. Command: [`Server::on_respond`]. Getter:
/// [`Server::is_answered`].
#[derive(Clone, Copy, Debug)]
pub struct Server {
    state: State,
    reliable: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Trying,
    Proceeding,
    Completed,
    /// Completed by a 408, which is not sent (RFC 4320 §4.2): nothing to repeat.
    Expired,
    Terminated,
}

impl Server {
    /// Event: a request came over a transport that is `reliable` or not. The caller passes it to
    /// the core.
    pub fn start(reliable: bool, timers: &Timers) -> (Server, Steps) {
        let machine = Server { state: State::Trying, reliable };
        let wait = Timer::Trying.first(timers, reliable);
        (machine, Steps::of(&[Step::Arm(Timer::Trying, wait)]))
    }

    /// Event: the same request once more.
    pub fn on_request_again(&mut self) -> Steps {
        match self.state {
            State::Proceeding | State::Completed => Steps::of(&[Step::Absorb, Step::SendResponse]),
            State::Trying | State::Expired | State::Terminated => Steps::of(&[Step::Absorb]),
        }
    }

    /// Command: the core answers with `status`. [`Step::SendResponse`] means that response, which
    /// the caller has stored; without it the response ends here: provisional ones but a 100 that is
    /// due, 408, and what comes after a final one.
    pub fn on_respond(&mut self, status: u16, timers: &Timers) -> Steps {
        match (self.state, status) {
            (State::Trying, 100) if self.reliable => {
                self.state = State::Proceeding;
                Steps::of(&[Step::Cancel(Timer::Trying), Step::SendResponse])
            }
            (State::Proceeding, 100) => Steps::of(&[Step::SendResponse]),
            (State::Trying | State::Proceeding, 200..) => {
                let mut steps = Steps::NONE;
                if self.state == State::Trying {
                    steps = steps.then(Step::Cancel(Timer::Trying));
                }
                let wait = Timer::J.first(timers, self.reliable);
                let is_sent = status != 408;
                self.state = match (wait.is_zero(), is_sent) {
                    (true, _) => State::Terminated,
                    (false, true) => State::Completed,
                    (false, false) => State::Expired,
                };
                let what = if is_sent { Step::SendResponse } else { Step::Absorb };
                steps.then(what).then_linger(Timer::J, wait)
            }
            _ => Steps::of(&[Step::Absorb]),
        }
    }

    /// Event: a timer of ours fired. One that no longer means anything is ignored.
    pub fn on_timer(&mut self, timer: Timer, _timers: &Timers) -> Steps {
        match (self.state, timer) {
            (State::Trying, Timer::Trying) => {
                self.state = State::Proceeding;
                Steps::of(&[Step::SendTrying])
            }
            (State::Completed | State::Expired, Timer::J) => {
                self.state = State::Terminated;
                Steps::of(&[Step::Ended])
            }
            _ => Steps::NONE,
        }
    }

    /// Event: a response could not be sent. The machine stays where it is, so that repeats of the
    /// request are still absorbed (RFC 6026 §8.8, which changed RFC 3261 §17.2.4 and with it figure
    /// 8).
    pub fn on_transport_failed(&mut self) -> Steps {
        match self.state {
            State::Terminated => Steps::NONE,
            _ => Steps::of(&[Step::TransportFailed]),
        }
    }

    /// Getter: a final response was given.
    pub fn is_answered(&self) -> bool {
        !matches!(self.state, State::Trying | State::Proceeding)
    }
}

#[cfg(test)]
mod tests {
    use super::super::transcript::{Machine, Transcript};
    use super::*;

    #[test]
    fn trying_waits_for_the_tu() {
        for mut machine in [udp(), tcp()] {
            assert!(!machine.machine.is_answered());
            machine.until(3_499).expect(&[]);
        }
    }

    #[test]
    fn trying_absorbs_the_request() {
        udp().until(500).event(again).expect(&["at 500ms: Absorb"]);
    }

    #[test]
    fn trying_says_100_when_e_would_be_t2() {
        for mut machine in [udp(), tcp()] {
            machine.until(99_000).expect(&["at 3500ms: SendTrying"]);
            assert!(!machine.machine.is_answered());
        }
    }

    #[test]
    fn trying_sends_100_of_the_core_over_a_reliable_transport_only() {
        tcp().event(respond(100)).until(99_000).expect(&["at 0ms: SendResponse"]);
        let early = &["at 0ms: Absorb", "at 3500ms: SendTrying"];
        udp().event(respond(100)).until(99_000).expect(early);
    }

    #[test]
    fn no_provisional_but_100_is_sent() {
        for mut machine in [udp(), tcp()] {
            machine.event(respond(183)).until(4_000).skip().event(respond(180));
            machine.expect(&["at 4000ms: Absorb"]);
        }
    }

    #[test]
    fn trying_200_to_699_completed() {
        for status in [200, 404, 603] {
            let mut machine = udp();
            machine.until(40).event(respond(status)).until(99_000);
            machine.expect(&["at 40ms: SendResponse", "at 32040ms: Ended"]);
        }
    }

    #[test]
    fn trying_survives_a_transport_error() {
        udp().event(failed).event(again).expect(&["at 0ms: TransportFailed", "at 0ms: Absorb"]);
    }

    #[test]
    fn proceeding_repeats_the_100_to_a_request() {
        let mut machine = udp();
        machine.until(3_500).skip().until(7_500).event(again);
        machine.expect(&["at 7500ms: Absorb", "at 7500ms: SendResponse"]);
    }

    #[test]
    fn proceeding_sends_another_100() {
        let mut machine = tcp();
        machine.event(respond(100)).skip().event(respond(100));
        machine.expect(&["at 0ms: SendResponse"]);
    }

    #[test]
    fn proceeding_200_to_699_completed() {
        let mut machine = udp();
        machine.until(4_000).skip().event(respond(200)).until(99_000);
        machine.expect(&["at 4000ms: SendResponse", "at 36000ms: Ended"]);
    }

    #[test]
    fn proceeding_survives_a_transport_error() {
        let mut machine = tcp();
        machine.event(respond(100)).skip().event(failed);
        machine.expect(&["at 0ms: TransportFailed"]);
    }

    #[test]
    fn completed_repeats_the_response_to_a_request() {
        let mut machine = udp();
        machine.event(respond(200)).skip().until(500).event(again);
        machine.expect(&["at 500ms: Absorb", "at 500ms: SendResponse"]);
        assert!(machine.machine.is_answered());
    }

    #[test]
    fn completed_discards_other_final_responses() {
        let mut machine = udp();
        machine.event(respond(200)).skip().event(respond(500)).expect(&["at 0ms: Absorb"]);
    }

    #[test]
    fn completed_survives_a_transport_error() {
        let mut machine = udp();
        machine.event(respond(200)).skip().event(failed).until(99_000);
        machine.expect(&["at 0ms: TransportFailed", "at 32000ms: Ended"]);
    }

    #[test]
    fn completed_ends_on_j() {
        let mut machine = udp();
        machine.event(respond(200)).skip().until(31_999).event(again).skip();
        machine.until(32_000).expect(&["at 32000ms: Ended"]);
    }

    #[test]
    fn completed_does_not_linger_over_a_reliable_transport() {
        tcp().event(respond(200)).expect(&["at 0ms: SendResponse", "at 0ms: Ended"]);
    }

    #[test]
    fn a_408_is_never_sent() {
        let mut machine = udp();
        machine.event(respond(408)).until(500).event(again).until(99_000);
        machine.expect(&["at 0ms: Absorb", "at 500ms: Absorb", "at 32000ms: Ended"]);
        tcp().event(respond(408)).expect(&["at 0ms: Absorb", "at 0ms: Ended"]);
    }

    impl Machine for Server {
        fn fire(&mut self, timer: Timer, timers: &Timers) -> Steps {
            self.on_timer(timer, timers)
        }
    }

    fn udp() -> Transcript<Server> {
        Transcript::new(|timers| Server::start(false, timers))
    }

    fn tcp() -> Transcript<Server> {
        Transcript::new(|timers| Server::start(true, timers))
    }

    fn respond(status: u16) -> impl Fn(&mut Server, &Timers) -> Steps {
        move |machine, timers| machine.on_respond(status, timers)
    }

    fn again(machine: &mut Server, _: &Timers) -> Steps {
        machine.on_request_again()
    }

    fn failed(machine: &mut Server, _: &Timers) -> Steps {
        machine.on_transport_failed()
    }
}
