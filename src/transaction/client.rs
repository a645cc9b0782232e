//! Non-INVITE client transaction (RFC 3261 §17.1.2): resends the request, passes the final response
//! up once. Absent on purpose: the messages. A timeout is not a 408 (RFC 4320 §4.2): the core
//! decides what it means.
//!
//! ```text
//!                                    |Request from TU
//!                                    |send request
//!                Timer E             V
//!                send request  +-----------+
//!                    +---------|           |-------------------+
//!                    |         |  Trying   |  Timer F          |
//!                    +-------->|           |  or Transport Err.|
//!                              +-----------+  inform TU        |
//!                 200-699         |  |                         |
//!                 resp. to TU     |  |1xx                      |
//!                 +---------------+  |resp. to TU              |
//!                 |                  |                         |
//!                 |   Timer E        V       Timer F           |
//!                 |   send req +-----------+ or Transport Err. |
//!                 |  +---------|           | inform TU         |
//!                 |  |         |Proceeding |------------------>|
//!                 |  +-------->|           |-----+             |
//!                 |            +-----------+     |1xx          |
//!                 |              |      ^        |resp to TU   |
//!                 | 200-699      |      +--------+             |
//!                 | resp. to TU  |                             |
//!                 |              |                             |
//!                 |              V                             |
//!                 |            +-----------+                   |
//!                 |            |           |                   |
//!                 |            | Completed |                   |
//!                 |            |           |                   |
//!                 |            +-----------+                   |
//!                 |              ^   |                         |
//!                 |              |   | Timer K                 |
//!                 +--------------+   | -                       |
//!                                    V                         |
//!                              +-----------+                   |
//!                              | Terminated|<------------------+
//!                              +-----------+
//! ```
//!
//! Its arrows, each with its test:
//!
//! ```text
//! → Trying: request of the TU         trying_sends_the_request
//! Trying: E                           trying_resends_on_e_capped_at_t2
//! Trying → Terminated: F              trying_gives_up_on_f
//! Trying → Terminated: transport      trying_ends_on_transport_error
//! Trying → Proceeding: 1xx            trying_1xx_proceeding
//! Trying → Completed: 200-699         trying_200_to_699_completed
//! Proceeding: E                       proceeding_resends_on_e_every_t2
//! Proceeding → Terminated: F          proceeding_gives_up_on_f
//! Proceeding → Terminated: transport  proceeding_ends_on_transport_error
//! Proceeding: 1xx                     proceeding_passes_every_1xx_up
//! Proceeding → Completed: 200-699     proceeding_200_to_699_completed
//! Completed → Terminated: K           completed_ends_on_k
//! ```

use crate::base::config::Timers;

use super::step::{Step, Steps};
use super::timer::{Interval, Timer};

/// One request other than INVITE and ACK that we sent.
///
/// Events: [`Client::start`], [`Client::on_response`], [`Client::on_timer`],
/// [`Client::on_transport_failed`].
#[derive(Clone, Copy, Debug)]
pub struct Client {
    state: State,
    reliable: bool,
    /// Last value of timer E; without meaning when `reliable`.
    resend: Interval,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Trying,
    Proceeding,
    Completed,
    Terminated,
}

impl Client {
    /// Event: the core has a request to send over a transport that is `reliable` or not.
    pub fn start(reliable: bool, timers: &Timers) -> (Client, Steps) {
        let first = Timer::E.first(timers, reliable);
        let machine = Client { state: State::Trying, reliable, resend: Interval::new(first) };
        let mut steps = Steps::of(&[Step::SendRequest]);
        if !reliable {
            steps = steps.then(Step::Arm(Timer::E, first));
        }
        (machine, steps.then(Step::Arm(Timer::F, Timer::F.first(timers, reliable))))
    }

    /// Event: a response to the request (branch and CSeq method match, RFC 3261 §17.1.3).
    pub fn on_response(&mut self, status: u16, timers: &Timers) -> Steps {
        match (self.state, status) {
            (State::Trying | State::Proceeding, 0..200) => {
                self.state = State::Proceeding;
                Steps::of(&[Step::PassUp])
            }
            (State::Trying | State::Proceeding, _) => {
                let wait = Timer::K.first(timers, self.reliable);
                self.state = if wait.is_zero() { State::Terminated } else { State::Completed };
                self.stop_trying().then(Step::PassUp).then_linger(Timer::K, wait)
            }
            (State::Completed | State::Terminated, _) => Steps::of(&[Step::Absorb]),
        }
    }

    /// Event: a timer of ours fired. One that no longer means anything is ignored.
    pub fn on_timer(&mut self, timer: Timer, timers: &Timers) -> Steps {
        match (self.state, timer) {
            (State::Trying, Timer::E) => {
                let again = self.resend.double_to(timers.t2);
                Steps::of(&[Step::SendRequest, Step::Arm(Timer::E, again)])
            }
            (State::Proceeding, Timer::E) => {
                Steps::of(&[Step::SendRequest, Step::Arm(Timer::E, timers.t2)])
            }
            (State::Trying | State::Proceeding, Timer::F) => {
                self.state = State::Terminated;
                Steps::of(&[Step::TimedOut, Step::Ended])
            }
            (State::Completed, Timer::K) => {
                self.state = State::Terminated;
                Steps::of(&[Step::Ended])
            }
            _ => Steps::NONE,
        }
    }

    /// Event: the request could not be sent, or the flow it was sent on is gone (RFC 3261 §17.1.4).
    /// In state Completed nothing of ours is under way: nothing changes.
    pub fn on_transport_failed(&mut self) -> Steps {
        match self.state {
            State::Trying | State::Proceeding => {
                self.state = State::Terminated;
                Steps::of(&[Step::TransportFailed, Step::Ended])
            }
            State::Completed | State::Terminated => Steps::NONE,
        }
    }

    fn stop_trying(&self) -> Steps {
        if self.reliable {
            Steps::of(&[Step::Cancel(Timer::F)])
        } else {
            Steps::of(&[Step::Cancel(Timer::E), Step::Cancel(Timer::F)])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::transcript::{Machine, Transcript};
    use super::*;

    #[test]
    fn trying_sends_the_request() {
        for mut machine in [udp(), tcp()] {
            machine.expect(&["at 0ms: SendRequest"]);
        }
    }

    #[test]
    fn trying_resends_on_e_capped_at_t2() {
        udp().until(31_999).expect(&[
            "at 0ms: SendRequest",
            "at 500ms: SendRequest",
            "at 1500ms: SendRequest",
            "at 3500ms: SendRequest",
            "at 7500ms: SendRequest",
            "at 11500ms: SendRequest",
            "at 15500ms: SendRequest",
            "at 19500ms: SendRequest",
            "at 23500ms: SendRequest",
            "at 27500ms: SendRequest",
            "at 31500ms: SendRequest",
        ]);
    }

    #[test]
    fn trying_is_silent_over_a_reliable_transport() {
        tcp().until(31_999).expect(&["at 0ms: SendRequest"]);
    }

    #[test]
    fn trying_gives_up_on_f() {
        for mut machine in [udp(), tcp()] {
            machine.until(31_999).skip().until(99_000);
            machine.expect(&["at 32000ms: TimedOut", "at 32000ms: Ended"]);
        }
    }

    #[test]
    fn trying_ends_on_transport_error() {
        let mut machine = tcp();
        machine.skip().event(|machine, _| machine.on_transport_failed());
        machine.expect(&["at 0ms: TransportFailed", "at 0ms: Ended"]);
    }

    #[test]
    fn trying_1xx_proceeding() {
        let mut machine = tcp();
        machine.skip().until(5).event(response(100)).expect(&["at 5ms: PassUp"]);
    }

    #[test]
    fn trying_200_to_699_completed() {
        for status in [200, 302, 408, 699] {
            let mut machine = udp();
            machine.skip().event(response(status)).until(99_000);
            machine.expect(&["at 0ms: PassUp", "at 5000ms: Ended"]);
        }
    }

    #[test]
    fn proceeding_resends_on_e_every_t2() {
        let mut machine = udp();
        machine.until(100).event(response(100)).skip().until(9_000).expect(&[
            "at 500ms: SendRequest",
            "at 4500ms: SendRequest",
            "at 8500ms: SendRequest",
        ]);
    }

    #[test]
    fn proceeding_passes_every_1xx_up() {
        let mut machine = tcp();
        machine.event(response(100)).skip().event(response(100)).expect(&["at 0ms: PassUp"]);
    }

    #[test]
    fn proceeding_gives_up_on_f() {
        let mut machine = tcp();
        machine.event(response(100)).skip().until(99_000);
        machine.expect(&["at 32000ms: TimedOut", "at 32000ms: Ended"]);
    }

    #[test]
    fn proceeding_ends_on_transport_error() {
        let mut machine = udp();
        machine.event(response(100)).skip().event(|machine, _| machine.on_transport_failed());
        machine.expect(&["at 0ms: TransportFailed", "at 0ms: Ended"]);
    }

    #[test]
    fn proceeding_200_to_699_completed() {
        let mut machine = udp();
        machine.event(response(100)).until(1_000).skip().event(response(481)).until(99_000);
        machine.expect(&["at 1000ms: PassUp", "at 6000ms: Ended"]);
    }

    #[test]
    fn completed_absorbs_responses() {
        let mut machine = udp();
        machine.event(response(200)).skip().until(500).event(response(200)).event(response(100));
        machine.event(|machine, _| machine.on_transport_failed());
        machine.expect(&["at 500ms: Absorb", "at 500ms: Absorb"]);
    }

    #[test]
    fn completed_ends_on_k() {
        let mut machine = udp();
        machine.event(response(200)).skip().until(4_999).event(response(200)).skip();
        machine.until(5_000).expect(&["at 5000ms: Ended"]);
    }

    #[test]
    fn completed_does_not_linger_over_a_reliable_transport() {
        let mut machine = tcp();
        machine.skip().event(response(200)).expect(&["at 0ms: PassUp", "at 0ms: Ended"]);
    }

    impl Machine for Client {
        fn fire(&mut self, timer: Timer, timers: &Timers) -> Steps {
            self.on_timer(timer, timers)
        }
    }

    fn udp() -> Transcript<Client> {
        Transcript::new(|timers| Client::start(false, timers))
    }

    fn tcp() -> Transcript<Client> {
        Transcript::new(|timers| Client::start(true, timers))
    }

    fn response(status: u16) -> impl Fn(&mut Client, &Timers) -> Steps {
        move |machine, timers| machine.on_response(status, timers)
    }
}
