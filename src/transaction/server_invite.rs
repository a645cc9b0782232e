//! INVITE server transaction (RFC 3261 §17.2.1 as changed by RFC 6026 §8.6): repeats the last
//! response, resends a non-2xx until its ACK comes. Absent on purpose: the messages, when to send
//! 100, resending 2xx (the UAS does).
//!
//! ```text
//!                                       |INVITE
//!                                       |pass INV to TU
//!                    INVITE             V send 100 if TU won't in 200 ms
//!                    send response+------------+
//!                        +--------|            |--------+ 101-199 from TU
//!                        |        |            |        | send response
//!                        +------->|            |<-------+
//!                                 | Proceeding |
//!                                 |            |--------+ Transport Err.
//!                                 |            |        | Inform TU
//!                                 |            |<-------+
//!                                 +------------+
//!                    300-699 from TU |    |2xx from TU
//!                    send response   |    |send response
//!                     +--------------+    +------------+
//!                     |                                |
//!    INVITE           V          Timer G fires         |
//!    send response +-----------+ send response         |
//!         +--------|           |--------+              |
//!         |        |           |        |              |
//!         +------->| Completed |<-------+      INVITE  |  Transport Err.
//!                  |           |               -       |  Inform TU
//!         +--------|           |----+          +-----+ |  +---+
//!         |        +-----------+    | ACK      |     | v  |   v
//!         |          ^   |          | -        |  +------------+
//!         |          |   |          |          |  |            |---+ ACK
//!         +----------+   |          |          +->|  Accepted  |   | to TU
//!         Transport Err. |          |             |            |<--+
//!         Inform TU      |          V             +------------+
//!                        |      +-----------+        |  ^     |
//!                        |      | Confirmed |        |  +-----+
//!                        |      +-----------+        |  2xx from TU
//!          Timer H fires |          |                |  send response
//!          Inform TU     |          | Timer I fires  |
//!                        |          | -              | Timer L fires
//!                        |          V                | -
//!                        |        +------------+     |
//!                        +------->| Terminated |<----+
//!                                 +------------+
//! ```
//!
//! The figure of RFC 6026 shows no action at timer H; the text of RFC 3261 §17.2.1, which it left
//! standing, demands that the core be told.
//!
//! Its arrows, each with its test:
//!
//! ```text
//! → Proceeding: INVITE                       proceeding_waits_for_the_tu
//! Proceeding: INVITE                         proceeding_repeats_the_last_response_to_an_invite
//! Proceeding: 101-199 of the TU              proceeding_sends_1xx
//! Proceeding: transport                      proceeding_survives_a_transport_error
//! Proceeding → Accepted: 2xx of the TU       proceeding_2xx_accepted
//! Proceeding → Completed: 300-699 of the TU  proceeding_300_to_699_completed
//! Completed: INVITE                          completed_repeats_the_response_to_an_invite
//! Completed: G                               completed_resends_on_g
//! Completed: transport                       completed_survives_a_transport_error
//! Completed → Confirmed: ACK                 completed_ack_confirmed
//! Completed → Terminated: H                  completed_gives_up_on_h
//! Confirmed → Terminated: I                  confirmed_ends_on_i
//! Accepted: INVITE                           accepted_absorbs_the_invite_without_repeating
//! Accepted: transport                        accepted_survives_a_transport_error
//! Accepted: ACK                              accepted_passes_every_ack_up
//! Accepted: 2xx of the TU                    accepted_sends_every_2xx_of_the_core
//! Accepted → Terminated: L                   accepted_ends_on_l
//! ```

use crate::base::config::Timers;

use super::step::{Step, Steps};
use super::timer::{Interval, Timer};

/// One INVITE that we received.
///
/// Events: [`ServerInvite::on_invite_again`], [`ServerInvite::on_ack`], [`ServerInvite::on_timer`],
/// [`ServerInvite::on_transport_failed`]. Command: [`ServerInvite::on_respond`]. Getter:
/// [`ServerInvite::is_answered`].
#[derive(Clone, Copy, Debug)]
pub struct ServerInvite {
    state: State,
    reliable: bool,
    /// Whether there is a last response to repeat.
    has_response: bool,
    /// Last value of timer G; without meaning when `reliable`.
    resend: Interval,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Proceeding,
    Accepted,
    Completed,
    Confirmed,
    Terminated,
}

impl ServerInvite {
    /// A machine for an INVITE that came over a transport that is `reliable` or not. The caller
    /// passes the INVITE to the core, which has 200 ms to answer anything before a 100 is due.
    pub fn new(reliable: bool, timers: &Timers) -> ServerInvite {
        let resend = Interval::new(Timer::G.first(timers, reliable));
        ServerInvite { state: State::Proceeding, reliable, has_response: false, resend }
    }

    /// Event: the same INVITE once more.
    pub fn on_invite_again(&mut self) -> Steps {
        match self.state {
            State::Proceeding | State::Completed if self.has_response => {
                Steps::of(&[Step::Absorb, Step::SendResponse])
            }
            _ => Steps::of(&[Step::Absorb]),
        }
    }

    /// Command: the core answers with `status`. [`Step::SendResponse`] means that response, which
    /// the caller has stored; without it the response ends here.
    pub fn on_respond(&mut self, status: u16, timers: &Timers) -> Steps {
        match (self.state, status) {
            (State::Proceeding, 0..200) => {
                self.has_response = true;
                Steps::of(&[Step::SendResponse])
            }
            (State::Proceeding, 200..300) => {
                self.state = State::Accepted;
                let wait = Timer::L.first(timers, self.reliable);
                Steps::of(&[Step::SendResponse, Step::Arm(Timer::L, wait)])
            }
            (State::Proceeding, _) => {
                self.state = State::Completed;
                self.has_response = true;
                let mut steps = Steps::of(&[Step::SendResponse]);
                if !self.reliable {
                    steps = steps.then(Step::Arm(Timer::G, Timer::G.first(timers, false)));
                }
                steps.then(Step::Arm(Timer::H, Timer::H.first(timers, self.reliable)))
            }
            (State::Accepted, 200..300) => Steps::of(&[Step::SendResponse]),
            _ => Steps::of(&[Step::Absorb]),
        }
    }

    /// Event: an ACK that matches this INVITE (RFC 3261 §17.2.3).
    pub fn on_ack(&mut self, timers: &Timers) -> Steps {
        match self.state {
            State::Accepted => Steps::of(&[Step::PassUp]),
            State::Completed => {
                let wait = Timer::I.first(timers, self.reliable);
                let mut steps = Steps::of(&[Step::Absorb]);
                if wait.is_zero() {
                    self.state = State::Terminated;
                    return steps.then(Step::Ended);
                }
                self.state = State::Confirmed;
                if !self.reliable {
                    steps = steps.then(Step::Cancel(Timer::G));
                }
                steps.then(Step::Cancel(Timer::H)).then(Step::Arm(Timer::I, wait))
            }
            State::Proceeding | State::Confirmed | State::Terminated => Steps::of(&[Step::Absorb]),
        }
    }

    /// Event: a timer of ours fired. One that no longer means anything is ignored.
    pub fn on_timer(&mut self, timer: Timer, timers: &Timers) -> Steps {
        match (self.state, timer) {
            (State::Completed, Timer::G) => {
                let again = self.resend.double_to(timers.t2);
                Steps::of(&[Step::SendResponse, Step::Arm(Timer::G, again)])
            }
            (State::Completed, Timer::H) => {
                self.state = State::Terminated;
                Steps::of(&[Step::TimedOut, Step::Ended])
            }
            (State::Confirmed, Timer::I) | (State::Accepted, Timer::L) => {
                self.state = State::Terminated;
                Steps::of(&[Step::Ended])
            }
            _ => Steps::NONE,
        }
    }

    /// Event: a response could not be sent. The machine stays where it is, so that repeats of the
    /// INVITE are still absorbed (RFC 6026 §7.1).
    pub fn on_transport_failed(&mut self) -> Steps {
        match self.state {
            State::Proceeding | State::Accepted | State::Completed => {
                Steps::of(&[Step::TransportFailed])
            }
            State::Confirmed | State::Terminated => Steps::NONE,
        }
    }

    /// Getter: a final response was given; a CANCEL has no effect any more (RFC 3261 §9.2).
    pub fn is_answered(&self) -> bool {
        self.state != State::Proceeding
    }
}

#[cfg(test)]
mod tests {
    use super::super::transcript::{Machine, Transcript};
    use super::*;

    #[test]
    fn proceeding_waits_for_the_tu() {
        for mut machine in [udp(), tcp()] {
            assert!(!machine.machine.is_answered());
            machine.until(99_000).expect(&[]);
        }
    }

    #[test]
    fn proceeding_sends_1xx() {
        let mut machine = udp();
        machine.event(respond(100)).event(respond(180)).until(99_000);
        machine.expect(&["at 0ms: SendResponse", "at 0ms: SendResponse"]);
        assert!(!machine.machine.is_answered());
    }

    #[test]
    fn proceeding_repeats_the_last_response_to_an_invite() {
        let mut machine = udp();
        machine.event(again).expect(&["at 0ms: Absorb"]);
        machine.event(respond(100)).skip().until(500).event(again);
        machine.expect(&["at 500ms: Absorb", "at 500ms: SendResponse"]);
    }

    #[test]
    fn proceeding_survives_a_transport_error() {
        let mut machine = udp();
        machine.event(failed).event(respond(180));
        machine.expect(&["at 0ms: TransportFailed", "at 0ms: SendResponse"]);
    }

    #[test]
    fn proceeding_absorbs_an_ack() {
        udp().event(ack).expect(&["at 0ms: Absorb"]);
    }

    #[test]
    fn proceeding_2xx_accepted() {
        for mut machine in [udp(), tcp()] {
            machine.until(3_000).event(respond(200)).until(99_000);
            machine.expect(&["at 3000ms: SendResponse", "at 35000ms: Ended"]);
        }
    }

    #[test]
    fn accepted_absorbs_the_invite_without_repeating() {
        let mut machine = udp();
        machine.event(respond(100)).event(respond(200)).skip().event(again);
        machine.expect(&["at 0ms: Absorb"]);
        assert!(machine.machine.is_answered());
    }

    #[test]
    fn accepted_sends_every_2xx_of_the_core() {
        let mut machine = tcp();
        machine.event(respond(200)).skip().until(500).event(respond(200)).event(respond(486));
        machine.expect(&["at 500ms: SendResponse", "at 500ms: Absorb"]);
    }

    #[test]
    fn accepted_passes_every_ack_up() {
        let mut machine = tcp();
        machine.event(respond(200)).skip().event(ack).event(ack);
        machine.expect(&["at 0ms: PassUp", "at 0ms: PassUp"]);
    }

    #[test]
    fn accepted_survives_a_transport_error() {
        let mut machine = tcp();
        machine.event(respond(200)).skip().event(failed).event(again);
        machine.expect(&["at 0ms: TransportFailed", "at 0ms: Absorb"]);
    }

    #[test]
    fn proceeding_300_to_699_completed() {
        for status in [300, 404, 503, 699] {
            let mut machine = udp();
            machine.until(40).event(respond(status)).expect(&["at 40ms: SendResponse"]);
            assert!(machine.machine.is_answered());
        }
    }

    #[test]
    fn completed_resends_on_g() {
        udp().event(respond(486)).skip().until(31_999).expect(&[
            "at 500ms: SendResponse",
            "at 1500ms: SendResponse",
            "at 3500ms: SendResponse",
            "at 7500ms: SendResponse",
            "at 11500ms: SendResponse",
            "at 15500ms: SendResponse",
            "at 19500ms: SendResponse",
            "at 23500ms: SendResponse",
            "at 27500ms: SendResponse",
            "at 31500ms: SendResponse",
        ]);
    }

    #[test]
    fn completed_gives_up_on_h() {
        for mut machine in [udp(), tcp()] {
            machine.event(respond(486)).until(31_999).skip().until(99_000);
            machine.expect(&["at 32000ms: TimedOut", "at 32000ms: Ended"]);
        }
    }

    #[test]
    fn completed_does_not_resend_over_a_reliable_transport() {
        tcp().event(respond(503)).until(99_000).expect(&[
            "at 0ms: SendResponse",
            "at 32000ms: TimedOut",
            "at 32000ms: Ended",
        ]);
    }

    #[test]
    fn completed_repeats_the_response_to_an_invite() {
        let mut machine = tcp();
        machine.event(respond(404)).skip().event(again).event(respond(200));
        machine.expect(&["at 0ms: Absorb", "at 0ms: SendResponse", "at 0ms: Absorb"]);
    }

    #[test]
    fn completed_survives_a_transport_error() {
        let mut machine = tcp();
        machine.event(respond(404)).skip().event(failed).until(99_000);
        machine.expect(&["at 0ms: TransportFailed", "at 32000ms: TimedOut", "at 32000ms: Ended"]);
    }

    #[test]
    fn completed_ack_confirmed() {
        let mut machine = udp();
        machine.event(respond(404)).until(600).skip().event(ack).until(5_599);
        machine.expect(&["at 600ms: Absorb"]);
    }

    #[test]
    fn confirmed_ends_on_i() {
        let mut machine = udp();
        machine.event(respond(404)).until(600).event(ack).until(3_000).event(ack).skip();
        machine.until(99_000).expect(&["at 5600ms: Ended"]);
    }

    #[test]
    fn accepted_ends_on_l() {
        for mut machine in [udp(), tcp()] {
            machine.event(respond(200)).until(9_000).event(respond(200)).event(ack).skip();
            machine.until(31_999).expect(&[]);
            machine.until(32_000).expect(&["at 32000ms: Ended"]);
        }
    }

    #[test]
    fn confirmed_absorbs_acks_and_invites() {
        let mut machine = udp();
        machine.event(respond(404)).event(ack).skip().event(ack).event(again).event(failed);
        machine.expect(&["at 0ms: Absorb", "at 0ms: Absorb"]);
    }

    #[test]
    fn confirmed_does_not_linger_over_a_reliable_transport() {
        let mut machine = tcp();
        machine.event(respond(404)).skip().event(ack);
        machine.expect(&["at 0ms: Absorb", "at 0ms: Ended"]);
    }

    impl Machine for ServerInvite {
        fn fire(&mut self, timer: Timer, timers: &Timers) -> Steps {
            self.on_timer(timer, timers)
        }
    }

    fn udp() -> Transcript<ServerInvite> {
        Transcript::new(|timers| (ServerInvite::new(false, timers), Steps::NONE))
    }

    fn tcp() -> Transcript<ServerInvite> {
        Transcript::new(|timers| (ServerInvite::new(true, timers), Steps::NONE))
    }

    fn respond(status: u16) -> impl Fn(&mut ServerInvite, &Timers) -> Steps {
        move |machine, timers| machine.on_respond(status, timers)
    }

    fn again(machine: &mut ServerInvite, _: &Timers) -> Steps {
        machine.on_invite_again()
    }

    fn ack(machine: &mut ServerInvite, timers: &Timers) -> Steps {
        machine.on_ack(timers)
    }

    fn failed(machine: &mut ServerInvite, _: &Timers) -> Steps {
        machine.on_transport_failed()
    }
}
