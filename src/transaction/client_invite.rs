//! INVITE client transaction (RFC 3261 §17.1.1 as changed by RFC 6026 §8.4): resends the INVITE,
//! acknowledges non-2xx, lets 2xx through for a while. Absent on purpose: the messages, timer C,
//! CANCEL, the ACK to a 2xx.
//!
//! ```text
//!                                     |INVITE from TU
//!                   Timer A fires     |INVITE sent      Timer B fires
//!                   Reset A,          V                 or Transport Err.
//!                   INVITE sent +-----------+           inform TU
//!                     +---------|           |--------------------------+
//!                     |         |  Calling  |                          |
//!                     +-------->|           |-----------+              |
//!    300-699                    +-----------+ 2xx       |              |
//!    ACK sent                      |  |       2xx to TU |              |
//!    resp. to TU                   |  |1xx              |              |
//!    +-----------------------------+  |1xx to TU        |              |
//!    |                                |                 |              |
//!    |                1xx             V                 |              |
//!    |                1xx to TU +-----------+           |              |
//!    |                +---------|           |           |              |
//!    |                |         |Proceeding |           |              |
//!    |                +-------->|           |           |              |
//!    |                          +-----------+ 2xx       |              |
//!    |         300-699             |    |     2xx to TU |              |
//!    |         ACK sent,  +--------+    +---------------+              |
//!    |         resp. to TU|                             |              |
//!    |                    |                             |              |
//!    |                    V                             V              |
//!    |              +-----------+                   +----------+       |
//!    +------------->|           |Transport Err.     |          |       |
//!                   | Completed |Inform TU          | Accepted |       |
//!                +--|           |-------+           |          |-+     |
//!        300-699 |  +-----------+       |           +----------+ |     |
//!        ACK sent|    ^  |              |               |  ^     |     |
//!                |    |  |              |               |  |     |     |
//!                +----+  |              |               |  +-----+     |
//!                        |Timer D fires |  Timer M fires|    2xx       |
//!                        |-             |             - |    2xx to TU |
//!                        +--------+     |   +-----------+              |
//!                                 V     V   V                          |
//!                                +------------+                        |
//!                                | Terminated |<-----------------------+
//!                                +------------+
//! ```
//!
//! Its arrows, each with its test:
//!
//! ```text
//! → Calling: request of the TU       calling_sends_the_invite
//! Calling: A                         calling_resends_on_a_with_doubling_intervals
//! Calling → Terminated: B            calling_gives_up_on_b
//! Calling → Terminated: transport    calling_ends_on_transport_error
//! Calling → Proceeding: 1xx          calling_1xx_proceeding_and_stops_resending
//! Calling → Accepted: 2xx            calling_2xx_accepted
//! Calling → Completed: 300-699       calling_300_to_699_completed_with_ack
//! Proceeding: 1xx                    proceeding_passes_every_1xx_up
//! Proceeding → Accepted: 2xx         proceeding_2xx_accepted
//! Proceeding → Completed: 300-699    proceeding_300_to_699_completed_with_ack
//! Completed: 300-699                 completed_repeats_the_ack_and_passes_nothing_up
//! Completed → Terminated: transport  completed_ends_on_transport_error_of_the_ack
//! Completed → Terminated: D          completed_ends_on_d
//! Accepted: 2xx                      accepted_passes_every_2xx_up
//! Accepted → Terminated: M           accepted_ends_on_m
//! ```

use crate::base::config::Timers;

use super::step::{Step, Steps};
use super::timer::{Interval, Timer};

/// One INVITE that we sent.
///
/// Events: [`ClientInvite::start`], [`ClientInvite::on_response`], [`ClientInvite::on_timer`],
/// [`ClientInvite::on_transport_failed`]. Getters: [`ClientInvite::is_calling`],
/// [`ClientInvite::is_proceeding`], [`ClientInvite::is_accepted`].
#[derive(Clone, Copy, Debug)]
pub struct ClientInvite {
    state: State,
    reliable: bool,
    /// Last value of timer A; without meaning when `reliable`.
    resend: Interval,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Calling,
    Proceeding,
    Accepted,
    Completed,
    Terminated,
}

impl ClientInvite {
    /// Event: the core has an INVITE to send over a transport that is `reliable` or not.
    pub fn start(reliable: bool, timers: &Timers) -> (ClientInvite, Steps) {
        let first = Timer::A.first(timers, reliable);
        let machine =
            ClientInvite { state: State::Calling, reliable, resend: Interval::new(first) };
        let mut steps = Steps::of(&[Step::SendRequest]);
        if !reliable {
            steps = steps.then(Step::Arm(Timer::A, first));
        }
        (machine, steps.then(Step::Arm(Timer::B, Timer::B.first(timers, reliable))))
    }

    /// Event: a response to the INVITE (branch and CSeq method match, RFC 3261 §17.1.3).
    pub fn on_response(&mut self, status: u16, timers: &Timers) -> Steps {
        match (self.state, status) {
            (State::Calling, 0..200) => {
                self.state = State::Proceeding;
                self.stop_calling().then(Step::PassUp)
            }
            (State::Proceeding, 0..200) => Steps::of(&[Step::PassUp]),
            (State::Calling | State::Proceeding, 200..300) => {
                let steps = self.stop_calling().then(Step::PassUp);
                self.state = State::Accepted;
                steps.then(Step::Arm(Timer::M, Timer::M.first(timers, self.reliable)))
            }
            (State::Calling | State::Proceeding, _) => {
                let steps = self.stop_calling().then(Step::PassUp).then(Step::SendAck);
                let wait = Timer::D.first(timers, self.reliable);
                self.state = if wait.is_zero() { State::Terminated } else { State::Completed };
                steps.then_linger(Timer::D, wait)
            }
            (State::Accepted, 200..300) => Steps::of(&[Step::PassUp]),
            (State::Completed, 300..) => Steps::of(&[Step::Absorb, Step::SendAck]),
            (State::Accepted | State::Completed | State::Terminated, _) => {
                Steps::of(&[Step::Absorb])
            }
        }
    }

    /// Event: a timer of ours fired. One that no longer means anything is ignored.
    pub fn on_timer(&mut self, timer: Timer, _timers: &Timers) -> Steps {
        match (self.state, timer) {
            (State::Calling, Timer::A) => {
                Steps::of(&[Step::SendRequest, Step::Arm(Timer::A, self.resend.double())])
            }
            (State::Calling, Timer::B) => {
                self.state = State::Terminated;
                Steps::of(&[Step::TimedOut, Step::Ended])
            }
            (State::Completed, Timer::D) | (State::Accepted, Timer::M) => {
                self.state = State::Terminated;
                Steps::of(&[Step::Ended])
            }
            _ => Steps::NONE,
        }
    }

    /// Event: the INVITE or the ACK could not be sent, or the flow it was sent on is gone (RFC 3261
    /// §17.1.4). In state Accepted nothing of ours is under way: nothing changes.
    pub fn on_transport_failed(&mut self) -> Steps {
        match self.state {
            State::Calling | State::Proceeding | State::Completed => {
                self.state = State::Terminated;
                Steps::of(&[Step::TransportFailed, Step::Ended])
            }
            State::Accepted | State::Terminated => Steps::NONE,
        }
    }

    /// Getter: no response has come; a CANCEL has to wait for one (RFC 3261 §9.1).
    pub fn is_calling(&self) -> bool {
        self.state == State::Calling
    }

    /// Getter: a provisional response has come and no final one.
    pub fn is_proceeding(&self) -> bool {
        self.state == State::Proceeding
    }

    /// Getter: a 2xx has come; its repeats are passed up.
    pub fn is_accepted(&self) -> bool {
        self.state == State::Accepted
    }

    /// What leaving Calling takes; nothing in any other state.
    fn stop_calling(&self) -> Steps {
        match self.state {
            State::Calling if self.reliable => Steps::of(&[Step::Cancel(Timer::B)]),
            State::Calling => Steps::of(&[Step::Cancel(Timer::A), Step::Cancel(Timer::B)]),
            _ => Steps::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::transcript::{Machine, Transcript};
    use super::*;

    #[test]
    fn calling_sends_the_invite() {
        for mut machine in [udp(), tcp()] {
            assert!(machine.machine.is_calling());
            machine.expect(&["at 0ms: SendRequest"]);
        }
    }

    #[test]
    fn calling_resends_on_a_with_doubling_intervals() {
        udp().until(31_999).expect(&[
            "at 0ms: SendRequest",
            "at 500ms: SendRequest",
            "at 1500ms: SendRequest",
            "at 3500ms: SendRequest",
            "at 7500ms: SendRequest",
            "at 15500ms: SendRequest",
            "at 31500ms: SendRequest",
        ]);
    }

    #[test]
    fn calling_is_silent_over_a_reliable_transport() {
        tcp().until(31_999).expect(&["at 0ms: SendRequest"]);
    }

    #[test]
    fn calling_gives_up_on_b() {
        for mut machine in [udp(), tcp()] {
            machine.until(31_999).skip().until(99_000);
            machine.expect(&["at 32000ms: TimedOut", "at 32000ms: Ended"]);
        }
    }

    #[test]
    fn calling_ends_on_transport_error() {
        let failed = &["at 0ms: TransportFailed", "at 0ms: Ended"];
        udp().skip().event(|machine, _| machine.on_transport_failed()).expect(failed);
    }

    #[test]
    fn calling_1xx_proceeding_and_stops_resending() {
        let mut machine = udp();
        assert!(machine.machine.is_calling());
        machine.until(700).skip().event(response(100)).until(99_000);
        machine.expect(&["at 700ms: PassUp"]);
        assert!(machine.machine.is_proceeding());
    }

    #[test]
    fn proceeding_passes_every_1xx_up() {
        let mut machine = tcp();
        machine.event(response(100)).skip().until(10).event(response(180)).event(response(183));
        machine.expect(&["at 10ms: PassUp", "at 10ms: PassUp"]);
    }

    #[test]
    fn calling_2xx_accepted() {
        udp()
            .skip()
            .event(response(200))
            .until(99_000)
            .expect(&["at 0ms: PassUp", "at 32000ms: Ended"]);
    }

    #[test]
    fn proceeding_2xx_accepted() {
        let mut machine = tcp();
        machine.event(response(180)).until(60_000).skip().event(response(200)).until(99_000);
        machine.expect(&["at 60000ms: PassUp", "at 92000ms: Ended"]);
    }

    #[test]
    fn accepted_passes_every_2xx_up() {
        let mut machine = udp();
        machine.event(response(200)).skip().until(500).event(response(200));
        machine.until(900).event(response(202)).expect(&["at 500ms: PassUp", "at 900ms: PassUp"]);
    }

    #[test]
    fn accepted_absorbs_what_is_no_2xx() {
        let mut machine = udp();
        machine.event(response(200)).skip().event(response(180)).event(response(486));
        machine.event(|machine, _| machine.on_transport_failed());
        machine.expect(&["at 0ms: Absorb", "at 0ms: Absorb"]);
    }

    #[test]
    fn calling_300_to_699_completed_with_ack() {
        for status in [300, 404, 503, 603, 699] {
            let mut machine = udp();
            machine.until(100).skip().event(response(status)).until(99_000);
            machine.expect(&["at 100ms: PassUp", "at 100ms: SendAck", "at 32100ms: Ended"]);
        }
    }

    #[test]
    fn proceeding_300_to_699_completed_with_ack() {
        let mut machine = udp();
        machine.event(response(183)).skip().event(response(486)).until(99_000);
        machine.expect(&["at 0ms: PassUp", "at 0ms: SendAck", "at 32000ms: Ended"]);
    }

    #[test]
    fn completed_repeats_the_ack_and_passes_nothing_up() {
        let mut machine = udp();
        machine.event(response(486)).skip().until(500).event(response(486));
        machine.event(response(180)).event(response(200)).expect(&[
            "at 500ms: Absorb",
            "at 500ms: SendAck",
            "at 500ms: Absorb",
            "at 500ms: Absorb",
        ]);
    }

    #[test]
    fn completed_ends_on_d() {
        let mut machine = udp();
        machine.until(100).event(response(486)).skip().until(32_099).expect(&[]);
        machine.until(32_100).expect(&["at 32100ms: Ended"]);
    }

    #[test]
    fn accepted_ends_on_m() {
        for mut machine in [udp(), tcp()] {
            machine.event(response(200)).skip().until(5_000).event(response(200)).skip();
            machine.until(31_999).expect(&[]);
            machine.until(32_000).expect(&["at 32000ms: Ended"]);
        }
    }

    #[test]
    fn completed_does_not_linger_over_a_reliable_transport() {
        let mut machine = tcp();
        machine.skip().event(response(486));
        machine.expect(&["at 0ms: PassUp", "at 0ms: SendAck", "at 0ms: Ended"]);
    }

    #[test]
    fn completed_ends_on_transport_error_of_the_ack() {
        let mut machine = udp();
        machine.event(response(486)).skip().event(|machine, _| machine.on_transport_failed());
        machine.expect(&["at 0ms: TransportFailed", "at 0ms: Ended"]);
    }

    impl Machine for ClientInvite {
        fn fire(&mut self, timer: Timer, timers: &Timers) -> Steps {
            self.on_timer(timer, timers)
        }
    }

    fn udp() -> Transcript<ClientInvite> {
        Transcript::new(|timers| ClientInvite::start(false, timers))
    }

    fn tcp() -> Transcript<ClientInvite> {
        Transcript::new(|timers| ClientInvite::start(true, timers))
    }

    fn response(status: u16) -> impl Fn(&mut ClientInvite, &Timers) -> Steps {
        move |machine, timers| machine.on_response(status, timers)
    }
}
