//! One shard's loop. A turn: run what the kernel deferred, handle completions (at most so many, or
//! a millisecond), feed the protocol, perform its outputs, then submit every send with the next
//! enter, which waits for the earlier of a completion and the next deadline. Absent on purpose:
//! SIP, and anything shared with other shards but the links.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{opcode, types};

use super::datagrams::Datagrams;
use super::guests::Guests;
use super::link::SendError;
use super::log_line::{self, Report};
use super::pace::Pace;
use super::protocol::Protocol;
use super::ring::{Completion, Op, Ring, RingError, Tag, Wait};
use super::station::Station;
use super::store::Keeper;
use super::streams::{Later, Streams};
use super::sys;
use super::tls::{TlsContext, TlsContextError};
use super::turn::Turn;
use crate::base::id::ShardId;
use crate::base::limits::{
    COMPLETIONS_A_TURN, LINK_MESSAGES_A_TURN, PUBLISH_INTERVAL, TURN_TIME, TURN_TIME_KEPT,
    WALL_CLOCK_INTERVAL,
};
use crate::base::metrics::{Counters, Gauges};
use crate::base::time::Time;
use crate::engine::{Input, LinkMessage, Output, Setup};

/// Why a driver could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// No ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// No certificate for a listener.
    #[error(transparent)]
    Tls(#[from] TlsContextError),
    /// No buffers.
    #[error("receive buffers cannot be registered: {0}")]
    Buffers(#[from] io::Error),
}

/// One incarnation of a shard.
pub struct Driver<P> {
    pub(super) ring: Ring,
    pub(super) protocol: P,
    pub(super) streams: Streams,
    datagrams: Datagrams,
    pub(super) guests: Guests,
    pub(super) station: Station,
    /// Messages of ours that found the work lane full.
    pub(super) refused: VecDeque<(ShardId, LinkMessage)>,
    /// What the driver itself counts.
    pub(super) counters: Counters,
    /// What former incarnations counted.
    carried: [u64; Counters::COUNT],
    pub(super) now: Time,
    /// When the protocol is to hear next what the wall clock shows.
    wall_clock_at: Time,
    /// When the numbers are to be published; `None` while nothing has happened since.
    pub(super) publish_at: Option<Time>,
    /// How flows are closed at the end, and when the next of them are; `None` while running, and
    /// once all are.
    pub(super) pace: Option<(Pace, Time)>,
    /// When to end although flows are left; `None` before all were closed.
    pub(super) stop_at: Option<Time>,
    /// Deadlines wait for the next turn, and no longer.
    puts_off: bool,
    is_bell_armed: bool,
    bell_value: Box<u64>,
}

impl<P: Protocol> Driver<P> {
    /// A driver on the calling thread, which is the one that must run it.
    pub fn new(setup: Setup, station: Station) -> Result<Driver<P>, (DriverError, Box<Station>)> {
        match Driver::<P>::tables(&setup, &station) {
            Ok((ring, streams, datagrams)) => {
                let now = station.clock.now();
                let is_new = setup.incarnation == 0;
                let counters =
                    Counters { shard_restarts: u64::from(!is_new), ..Counters::default() };
                let carried = station.published.counters();
                let mut driver = Driver {
                    protocol: P::new(station.ended_at.unwrap_or(now), setup),
                    ring,
                    streams,
                    datagrams,
                    guests: Guests::default(),
                    station,
                    refused: VecDeque::new(),
                    counters,
                    carried,
                    now,
                    wall_clock_at: now,
                    publish_at: Some(now),
                    pace: None,
                    stop_at: None,
                    puts_off: false,
                    is_bell_armed: false,
                    bell_value: Box::new(0),
                };
                if driver.station.is_draining {
                    driver.begin_drain();
                }
                Ok(driver)
            }
            Err(error) => Err((error, Box::new(station))),
        }
    }

    fn tables(setup: &Setup, station: &Station) -> Result<(Ring, Streams, Datagrams), DriverError> {
        let ring = Ring::new()?;
        let config = Arc::clone(&setup.config);
        let tls = TlsContext::new(&station.tls, &config)?;
        let udp = station.sockets.datagrams();
        let datagrams = Datagrams::new(&ring, &config, udp)?;
        let (shard, incarnation) = (setup.shard, setup.incarnation);
        let listening = station.sockets.streams();
        let streams = Streams::new(&ring, shard, incarnation, config, tls, listening)?;
        Ok((ring, streams, datagrams))
    }

    /// Runs until control says stop. Errors are the ring's: there is no going on.
    pub async fn run(&mut self) -> io::Result<()> {
        self.streams.resume_accepting(&mut self.ring, self.now);
        for (listening, fd) in std::mem::take(&mut self.station.unclaimed) {
            let (mut turn, streams, _) = self.parts();
            streams.claim(&mut turn, listening, fd);
        }
        let mut woke_at = self.station.clock.now();
        while !self.is_stopped() {
            let is_busy = self.turn();
            let ended_at = self.station.clock.now();
            self.counters.count_turn(ended_at.saturating_since(woke_at));
            let idle = self.idle_time(is_busy, ended_at);
            if self.guests.next_deadline().is_some_and(|due| due <= self.now) {
                self.guests.host(&mut self.ring, self.now, idle.unwrap_or(Duration::MAX)).await?;
            } else {
                self.ring.enter(match idle {
                    Some(Duration::ZERO) => Wait::No,
                    Some(idle) => Wait::Most(idle),
                    None => Wait::Forever,
                })?;
            }
            woke_at = self.station.clock.now();
            self.station.links.bell().wake_up();
            self.ring.run_deferred();
        }
        self.publish();
        Ok(())
    }

    /// Ends this incarnation, whatever state it is in, and gives back what the next one needs.
    pub fn dismantle(mut self) -> Station {
        self.show(&Gauges::default());
        let has_let_go = self.ring.cancel_all();
        self.keep_unclaimed();
        drop(self.ring);
        if !has_let_go {
            self.streams.leak();
            self.datagrams.leak();
            std::mem::forget(self.bell_value);
        }
        self.station
    }

    /// Keeps what accept had made when the turn ended in a panic: nobody else knows these
    /// descriptors, and behind each is a client that waits.
    fn keep_unclaimed(&mut self) {
        self.ring.run_deferred();
        while let Some(completion) = self.ring.next_completion() {
            if completion.tag.op() == Some(Op::Accept) && completion.result >= 0 {
                let accepted = (completion.tag.index(), sys::own(completion.result));
                self.station.unclaimed.push(accepted);
            }
        }
    }

    /// One turn. True: there is more to do at once.
    fn turn(&mut self) -> bool {
        self.now = self.station.clock.now();
        let end = self.now + TURN_TIME;
        self.streams.begin_turn();
        self.look_at_wall_clock();
        self.obey();
        let mut is_busy = self.take_linked();
        is_busy |= self.hear_of_store();
        let mut handled = 0;
        while handled < COMPLETIONS_A_TURN {
            let Some(completion) = self.ring.next_completion() else { break };
            self.on_completion(completion);
            self.perform_outputs();
            handled += 1;
            // Reading the clock for each would cost as much as a look-up.
            if handled % CLOCK_EVERY == 0 {
                self.now = self.station.clock.now();
                if self.now >= end {
                    break;
                }
            }
        }
        self.now = self.station.clock.now();
        is_busy |= self.judge(end);
        let is_idle = !is_busy && !self.ring.has_completions();
        let (mut turn, streams, _) = self.parts();
        streams.resume_handshakes(&mut turn, is_idle);
        streams.end_some(&mut turn);
        self.finish_outputs();
        self.hand_over();
        is_busy |= !self.station.links.flush();
        self.arm();
        is_busy || self.ring.has_completions()
    }

    /// Tells the protocol what the wall clock shows, if it was not told lately.
    fn look_at_wall_clock(&mut self) {
        if self.now >= self.wall_clock_at {
            self.wall_clock_at = self.now + WALL_CLOCK_INTERVAL;
            let unix = self.station.clock.since_1970();
            self.protocol.handle(self.now, Input::WallClock(unix));
        }
    }

    fn on_completion(&mut self, completion: Completion) {
        let op = completion.tag.op().expect("every entry of ours names its operation");
        self.has_news();
        let (mut turn, streams, datagrams) = self.parts();
        match op {
            Op::Receive => streams.on_receive(&mut turn, completion),
            Op::Send => streams.on_sent(&mut turn, completion),
            Op::Accept => streams.on_accept(&mut turn, completion),
            Op::Connect => streams.on_connected(&mut turn, completion),
            Op::DatagramIn => datagrams.on_datagram(&mut turn, completion),
            Op::DatagramOut => datagrams.on_sent(&mut turn, completion),
            Op::Cancel => {}
            Op::Wake => self.is_bell_armed = false,
        }
    }

    /// Drains the protocol's outputs, and what came up meanwhile.
    pub(super) fn perform_outputs(&mut self) {
        loop {
            while let Some(output) = self.protocol.pop_output() {
                self.perform(output);
            }
            if let Some(later) = self.streams.pop_later() {
                let (mut turn, streams, _) = self.parts();
                match later {
                    Later::ConnectFailed(connect) => {
                        turn.protocol.handle(turn.now, Input::ConnectFailed { connect });
                    }
                    Later::Overflowed(flow) => streams.on_overflow(&mut turn, flow),
                    Later::Measured(flow, took) => {
                        turn.protocol.handle(turn.now, Input::RoundTrip { flow, took });
                    }
                }
            } else if let Some((to, message)) = self.refused.pop_front() {
                self.protocol.handle(self.now, Input::LinkRefused { to, message });
            } else {
                return;
            }
        }
    }

    /// The same at the end of a turn, when sends are made, which may tell the protocol more.
    fn finish_outputs(&mut self) {
        loop {
            self.perform_outputs();
            let (mut turn, streams, _) = self.parts();
            if !streams.flush(&mut turn) {
                return;
            }
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Write { flow, range } => self.streams.write(flow, self.protocol.bytes(range)),
            Output::WriteTo { path, range } => {
                let bytes = self.protocol.bytes(range);
                if self.datagrams.send(&mut self.ring, &path, bytes).is_err() {
                    self.counters.datagrams_unsent += 1;
                }
            }
            Output::Open { connect, target } => {
                let (mut turn, streams, _) = self.parts();
                streams.connect(&mut turn, connect, &target);
            }
            Output::Measure { flow } => self.streams.measure(flow),
            Output::Close { flow, why: _ } => self.streams.close(self.now, flow),
            Output::Link { to, message } => {
                let is_work = message.is_work();
                match self.station.links.send(to, message, is_work) {
                    Ok(()) => {}
                    Err(SendError::Refused(message)) => self.refused.push_back((to, message)),
                    Err(SendError::Lost) => self.counters.dropped_link_full += 1,
                }
            }
            Output::Store { serial, id, change } => self.store(serial, id, change),
            Output::Event(event) if log_line::is_wanted(&event) => {
                let text = self.protocol.bytes(event.text()).into();
                self.parts().0.report(Report::Event { event: Box::new(event), text });
            }
            Output::Event(_) => {}
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop_at.is_some_and(|stop_at| {
            let is_empty = self.streams.used() == 0 && !self.datagrams.has_sends();
            is_empty || self.now >= stop_at
        })
    }

    /// Messages of other shards. True: some are left.
    pub(super) fn take_linked(&mut self) -> bool {
        for _ in 0..LINK_MESSAGES_A_TURN {
            let Some((from, message)) = self.station.links.pop() else { return false };
            self.has_news();
            self.protocol.handle(self.now, Input::Linked { from, message });
            self.perform_outputs();
        }
        self.station.links.has_incoming()
    }

    /// Attends to deadlines. Not when the turn lasted so much longer than it was to that much may
    /// have come since its start which would meet them: true, they are judged in the next turn.
    fn judge(&mut self, end: Time) -> bool {
        let was_kept = self.now.saturating_since(end) >= TURN_TIME_KEPT;
        self.puts_off = was_kept && !self.puts_off;
        if !self.puts_off {
            self.on_deadlines();
        }
        self.puts_off
    }

    fn on_deadlines(&mut self) {
        let now = self.now;
        let is_due = |deadline: Option<Time>| deadline.is_some_and(|deadline| deadline <= now);
        if is_due(self.protocol.next_deadline()) {
            self.has_news();
            self.protocol.handle_timeout(now);
            self.perform_outputs();
        }
        if is_due(self.streams.next_deadline()) {
            self.has_news();
            let (mut turn, streams, _) = self.parts();
            streams.on_deadlines(&mut turn);
            self.perform_outputs();
        }
        if is_due(self.pace.as_ref().map(|(_, at)| *at)) {
            self.close_some();
        }
        if is_due(self.publish_at) {
            self.publish();
        }
    }

    fn arm(&mut self) {
        self.datagrams.arm(&mut self.ring, self.now);
        self.streams.publish_buffers(&mut self.ring);
        if !self.is_bell_armed {
            self.is_bell_armed = true;
            let fd = types::Fd(self.station.links.bell().event().as_raw_fd());
            let entry = opcode::Read::new(fd, (&raw mut *self.bell_value).cast(), 8)
                .build()
                .user_data(Tag::new(Op::Wake, 0, 0).to_user_data());
            // SAFETY: value and descriptor outlive the ring's operations (see `dismantle`).
            unsafe { self.ring.push(entry) };
        }
    }

    /// How long to wait from `now` on: zero not at all, `None` without end. The bell is to be rung
    /// from here on.
    fn idle_time(&mut self, is_busy: bool, now: Time) -> Option<Duration> {
        let streams = &self.streams;
        if is_busy || streams.has_put_off() || streams.has_starved() || streams.has_departed() {
            return Some(Duration::ZERO);
        }
        let Station { keeper, links, inbox, .. } = &mut self.station;
        let is_quiet = || {
            let has_news = keeper.as_mut().is_some_and(Keeper::has_news);
            !links.has_incoming() && inbox.is_empty() && !has_news
        };
        if !links.bell().fall_asleep(is_quiet) {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.protocol.next_deadline(),
            self.streams.next_deadline(),
            self.datagrams.next_deadline(),
            self.guests.next_deadline(),
            self.store_deadline(),
            self.publish_at,
            self.pace.as_ref().map(|(_, at)| *at),
            self.stop_at,
        ];
        let next = deadlines.into_iter().flatten().min()?;
        match next.saturating_since(now) {
            Duration::ZERO => Some(Duration::ZERO),
            idle => Some(idle.max(IDLE_MIN)),
        }
    }

    /// Something may be counted now: it is published soon. An idle shard publishes nothing and
    /// sleeps.
    pub(super) fn has_news(&mut self) {
        self.publish_at.get_or_insert(self.now + PUBLISH_INTERVAL);
    }

    fn publish(&mut self) {
        self.show(&self.protocol.gauges());
        // While draining control waits for the end; otherwise the next news are published.
        let goes_on = self.station.is_draining;
        self.publish_at = goes_on.then(|| self.now + PUBLISH_INTERVAL);
    }

    fn show(&self, gauges: &Gauges) {
        let (own, engine) = (self.counters.values(), self.protocol.counters().values());
        let values = std::array::from_fn(|index| self.carried[index] + own[index] + engine[index]);
        let is_quiet = self.station.is_draining && self.protocol.unanswered() == 0;
        self.station.published.publish(&values, gauges, is_quiet);
    }

    pub(super) fn parts(&mut self) -> (Turn<'_, P>, &mut Streams, &mut Datagrams) {
        let turn = Turn {
            ring: &mut self.ring,
            protocol: &mut self.protocol,
            counters: &mut self.counters,
            reports: &mut self.station.reports,
            now: self.now,
            clock: self.station.clock,
        };
        (turn, &mut self.streams, &mut self.datagrams)
    }
}

/// The shortest wait: timers a few microseconds apart would cost an enter each.
const IDLE_MIN: Duration = Duration::from_millis(1);
/// Completions between two looks at the clock.
const CLOCK_EVERY: usize = 16;
