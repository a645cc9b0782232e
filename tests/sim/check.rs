//! The books: every request that somebody sent, what became of it at the proxy's edge, and what
//! must be true of each message that the proxy writes. The invariants are those of the promise:
//! reached, one outcome, never another client, never downgraded, bounded, balanced; and that a
//! forwarded message differs by the declared edits only.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sipring::base::id::Transport;
use sipring::base::time::Time;

use crate::bearer::Bearers;
use crate::checker::{Checker, Violation};
use crate::claims::Claims;
use crate::edge::Edge;
use crate::message::Sip;
use crate::registrar::{Registrar, Wish};
use crate::ways::Ways;
use crate::world::End;

/// How long a repeat of an answered request is known as such: timers J and L.
const TRANSACTION_TIME: Duration = Duration::from_secs(32);
/// A request that has no outcome by then has none because its sender left.
pub const OUTCOME_TIME: Duration = Duration::from_secs(185 + 32 * 3);

/// To whom a request may go.
#[derive(Clone, Debug)]
pub enum Aim {
    /// Whoever registered that user.
    User(usize),
    /// One peer and whose it is: the other end of a dialog.
    Peer(End, usize),
    /// Whoever registered by that Path: the flow, and whose it is.
    Path(End, usize),
    /// One client by the name that the registrar gave it (RFC 5627).
    Gruu(usize),
    /// A server behind the proxy, by whatever connection.
    Server(usize),
    /// The proxy itself.
    Proxy,
    /// The registrar.
    Register(Wish),
    /// Nobody: it names a token that was never given to its sender.
    Nobody,
    /// Nobody: it bears a token that is not good for it, which its sender is told.
    Forbidden,
    /// Hop by hop: CANCEL and ACK of an INVITE.
    Hop,
}

/// One request, and what came of it.
pub struct Asked {
    pub sender: usize,
    pub sip: Sip,
    pub aim: Aim,
    /// When and whence the proxy got it whole, and how often.
    pub reached: Option<(Time, End)>,
    pub copies_in: u32,
    /// The first final response, and how many there were.
    pub final_status: u16,
    pub finals: u32,
    /// Its copies: to whom, under which branch.
    pub written: Vec<(End, String)>,
    /// Nobody knows what the proxy took it for, or the shard that served it may have failed.
    pub excused: bool,
    /// Its sender's flow ended.
    pub left_at: Option<Time>,
    /// Its proof had been said before.
    pub replayed: bool,
    /// It, or its flow by then, bore a token that was good.
    pub proved: bool,
    /// And so it was when its last copy came: one before that may have found no room.
    pub proves: bool,
    pub final_at: Time,
    /// A shard failed since it came, or its transaction is over (RFC 6026 §7.1: timer L runs
    /// 64·T1): what repeats it may be new to the proxy.
    pub forgotten: bool,
}

/// One answer of a client.
pub struct Answer {
    pub to: u32,
    pub sip: Sip,
    pub forged: bool,
}

/// A peer as the proxy sees it, with what the simulator knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub end: End,
    /// Whose it is.
    pub phone: Option<usize>,
    pub is_server: bool,
    pub transport: Transport,
}

#[derive(Default)]
pub struct Books {
    /// Requests by number, from the first that is not forgotten.
    pub(crate) asked: VecDeque<Asked>,
    first: u32,
    /// So many are remembered; 0: all.
    pub kept: usize,
    pub answers: Vec<Answer>,
    /// Branches that the proxy made, by request.
    pub(crate) branches: BTreeMap<String, (u32, End)>,
    /// CANCELs by the number of their INVITE.
    cancels: BTreeMap<u32, u32>,
    /// Transactions that ended without any response, by Call-ID and method.
    pub expired: BTreeMap<(String, String), u32>,
    pub registrar: Registrar,
    pub claims: Claims,
    pub bearers: Bearers,
    pub ways: Ways,
    pub edge: Edge,
    pub slack: Duration,
    /// The proxy may be short of room, or a shard failed: requests for registered clients may be
    /// refused.
    pub lenient: bool,
    /// When the proxy was told to take no new work.
    pub drained_at: Option<Time>,
    /// A run ends with the first; the last look at everything may find several.
    violations: Vec<Violation>,
    pub figures: Figures,
}

/// How much was simulated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub calls: u64,
    pub answered_calls: u64,
    pub messages: u64,
    pub registers: u64,
}

impl Books {
    /// A request is about to be sent; the number that it carries.
    pub fn next_serial(&self) -> u32 {
        self.first + self.asked.len() as u32
    }

    pub fn asks(&mut self, sender: usize, sip: Sip, aim: Aim) {
        let serial = self.next_serial();
        match sip.method() {
            "INVITE" if sip.tag("To").is_empty() && sip.cseq().0 == 1 => self.figures.calls += 1,
            "REGISTER" => self.figures.registers += 1,
            "CANCEL" => {
                self.cancels.insert(serial_of(sip.branch()).unwrap_or(0), serial);
            }
            _ => {}
        }
        while self.kept > 0 && self.asked.len() >= self.kept {
            self.close_account(0);
            self.asked.pop_front();
            self.first += 1;
        }
        self.asked.push_back(Asked {
            sender,
            sip,
            aim,
            reached: None,
            copies_in: 0,
            final_status: 0,
            finals: 0,
            written: Vec::new(),
            excused: false,
            left_at: None,
            replayed: false,
            proved: false,
            proves: false,
            final_at: Time::ZERO,
            forgotten: false,
        });
    }

    /// The number that the next answer carries.
    pub fn next_answer(&self) -> u32 {
        self.answers.len() as u32
    }

    pub fn answers(&mut self, to: u32, sip: Sip, forged: bool) {
        self.answers.push(Answer { to, sip, forged });
    }

    pub fn asked(&self, serial: u32) -> Option<&Asked> {
        self.asked.get(serial.checked_sub(self.first)? as usize)
    }

    fn asked_mut(&mut self, serial: u32) -> Option<&mut Asked> {
        self.asked.get_mut(serial.checked_sub(self.first)? as usize)
    }

    /// One of the branches that the proxy made.
    pub fn some_branch(&self, pick: usize) -> Option<(String, u32, End)> {
        let at = pick % self.branches.len().max(1);
        let (branch, (serial, end)) = self.branches.iter().nth(at)?;
        Some((branch.clone(), *serial, *end))
    }

    /// The proxy has got a request whole.
    pub fn on_request_in(&mut self, serial: u32, from: End, now: Time) {
        let at = serial.wrapping_sub(self.first) as usize;
        let Some(asked) = self.asked.get_mut(at) else { return };
        if asked.copies_in == 0 {
            asked.replayed = self.claims.is_said_before(from, &asked.sip);
        }
        asked.copies_in += 1;
        let heard = self.bearers.hear(asked.sender, from, &asked.sip, now);
        asked.proves = heard.is_some();
        asked.proved |= asked.proves;
        asked.forgotten |= asked.final_status != 0 && now >= asked.final_at + TRANSACTION_TIME;
        // A registrar that lost its memory cannot tell a late copy from a new REGISTER.
        let is_new = asked.reached.is_none();
        if !is_new && !asked.forgotten {
            return;
        }
        if is_new {
            asked.reached = Some((now, from));
        }
        if let Aim::Register(wish) = &mut asked.aim {
            // No binding outlives what its client came by.
            wish.expires = heard.map_or(wish.expires, |left| wish.expires.min(left));
            let (wish, sender) = (wish.clone(), asked.sender);
            self.registrar.asked(serial, &wish, from, now);
            self.ways.asked(sender, &wish, now);
        }
    }

    /// Nobody knows what the proxy took it for.
    pub fn excuse(&mut self, serial: u32) {
        if let Some(asked) = self.asked_mut(serial) {
            asked.excused = true;
        }
    }

    /// A flow ended at the proxy: whoever asked on it may hear nothing.
    pub fn on_ended(&mut self, end: End, now: Time) {
        self.registrar.ended(end, now, self.slack, self.ways.grace());
        self.ways.ended(end, now);
        self.edge.ended(end);
        self.bearers.ended(end);
        for asked in &mut self.asked {
            let in_time = |at: Time| now <= at + OUTCOME_TIME;
            if asked.reached.is_some_and(|(at, from)| from == end && in_time(at)) {
                asked.left_at = Some(now);
            }
            if let (Aim::Register(wish), Some(from), 0) =
                (&asked.aim, asked.reached.filter(|it| it.1 == end), asked.final_status)
            {
                self.ways.unheard(asked.sender, wish, from);
            }
        }
    }

    /// A shard failed: what is unanswered may stay so.
    pub fn on_restart(&mut self, now: Time) {
        self.registrar.doubt(None, now);
        self.lenient = true;
        for asked in &mut self.asked {
            asked.excused = true;
            asked.forgotten = true;
        }
    }

    /// The proxy writes a SIP message.
    pub fn on_out(&mut self, sip: &Sip, to: Peer, now: Time) {
        self.figures.messages += 1;
        match (sip.status(), sip.number()) {
            (0, None) => self.own_request_out(sip, to, now),
            (0, Some(number)) => match number.parse() {
                Ok(serial) => self.request_out(sip, serial, to, now),
                Err(_) => self.fail(Checker::Edits, format!("X-Sim {number}")),
            },
            (status, number) => {
                let answer = number.map(|number| number.trim_start_matches('a').parse::<usize>());
                self.response_out(sip, status, answer.and_then(Result::ok), to, now);
            }
        }
    }

    /// CANCEL and ACK that the proxy makes go where their INVITE went.
    fn own_request_out(&mut self, sip: &Sip, to: Peer, now: Time) {
        let is_question = self.is_question(sip, to) || self.is_nat_ping(sip, to);
        if !matches!(sip.method(), "CANCEL" | "ACK") {
            if !is_question {
                self.fail(Checker::Edits, format!("without its number: {}", sip.start()));
            }
            return;
        }
        if sip.method() == "CANCEL" {
            self.ways.cancelled(sip.branch(), now);
        }
        match self.branches.get(sip.branch()) {
            Some((serial, end))
                if *end != to.end
                    && !self.is_same_server(*serial, to)
                    && !self.ways.is_same_client(*end, to) =>
            {
                let text = format!("{} for {end:?} to {to:?}", sip.start());
                let is_lowered = self.ways.is_lowered(*end, self.ways.owner(*end), to);
                let checker = if is_lowered { Checker::Lowered } else { Checker::WrongClient };
                self.fail(checker, text);
            }
            Some(_) => {}
            None => {
                self.fail(Checker::WrongClient, format!("{} of no INVITE", sip.start()));
            }
        }
    }

    fn is_same_server(&self, serial: u32, to: Peer) -> bool {
        to.is_server && self.asked(serial).is_some_and(|it| matches!(it.aim, Aim::Server(_)))
    }

    fn request_out(&mut self, sip: &Sip, serial: u32, to: Peer, now: Time) {
        self.ways.note_owner(to);
        let Some(asked) = self.asked(serial) else {
            return self.fail(Checker::Edits, format!("#{serial} was never sent"));
        };
        let branch = sip.branch().to_string();
        let again = self
            .branches
            .get(&branch)
            .is_some_and(|(first, end)| *first == serial && (*end == to.end || to.is_server));
        if again && asked.sip.method() != "ACK" {
            return;
        }
        let judged = self.judge_names(asked, sip, to);
        let judged = judged.and_then(|()| self.judge_move(asked, &branch, to, now));
        let judged = judged.and_then(|()| self.judge_request(asked, sip, to, now));
        let judged = judged.and_then(|()| self.judge_wait(asked, now));
        if let Err(violation) = judged {
            return self.fail(violation.checker, violation.text);
        }
        let asked = self.asked_mut(serial).expect("it was judged");
        if asked.sip.method() != "ACK" {
            asked.written.push((to.end, branch.clone()));
        }
        self.branches.insert(branch, (serial, to.end));
    }

    fn response_out(&mut self, sip: &Sip, status: u16, answer: Option<usize>, to: Peer, now: Time) {
        let Some(mut serial) = serial_of(sip.branch()) else { return };
        if sip.cseq().1 == "ACK" {
            // Only behind garbage, as a part of which it is no ACK any more.
            return;
        }
        if sip.cseq().1 == "CANCEL" {
            serial = self.cancels.get(&serial).copied().unwrap_or(u32::MAX);
        }
        let Some(asked) = self.asked(serial) else {
            return self.fail(Checker::WrongClient, format!("to no request: {}", sip.start()));
        };
        let judged = self.judge_response(asked, serial, sip, answer, to);
        let judged = judged.and_then(|()| self.judge_outcome(asked, status, to.transport));
        let judged = judged.and_then(|()| self.judge_reached(asked, status, answer, sip, now));
        let judged = judged.and_then(|()| self.judge_told(asked, status, answer, sip, now));
        let judged = judged.and_then(|()| self.judge_refusal(asked, status, answer));
        let judged = judged.and_then(|()| self.judge_proof(asked, status, answer));
        let judged = judged.and_then(|()| self.judge_grant(asked, status));
        let judged = judged.and_then(|()| self.judge_listing(asked, sip, now));
        let is_final = status >= 200;
        let judged =
            judged.and_then(|()| if is_final { self.judge_wait(asked, now) } else { Ok(()) });
        if let Err(violation) = judged {
            return self.fail(violation.checker, violation.text);
        }
        if status >= 200 {
            self.note_final(serial, status, now);
        }
    }

    fn note_final(&mut self, serial: u32, status: u16, now: Time) {
        let asked = self.asked_mut(serial).expect("it was judged");
        asked.finals += 1;
        let is_first = asked.final_status == 0;
        if is_first {
            asked.final_status = status;
            asked.final_at = now;
        }
        let is_call = asked.sip.method() == "INVITE" && asked.sip.tag("To").is_empty();
        let wish = if let Aim::Register(wish) = &asked.aim { Some(wish.clone()) } else { None };
        let (sender, from) = (asked.sender, asked.reached);
        if let (Some(wish), Some(from), 200..300) = (&wish, from, status) {
            self.ways.registered(sender, wish, from, now);
        }
        let asked = self.asked_mut(serial).expect("it was judged");
        let is_again = !is_first && asked.final_status < 300 && !asked.forgotten;
        self.figures.answered_calls += u64::from(is_first && is_call && status < 300);
        // A 2xx that is repeated changes nothing again. A refusal for want of room says nothing of
        // the repeats of the same REGISTER.
        let counts = !is_again && (status < 300 || !self.lenient);
        if let Some(wish) = wish.filter(|_| counts) {
            self.registrar.answered(serial, &wish, status, now, self.slack);
        }
    }

    /// At the end: whatever reached the proxy has its outcome.
    pub fn finish(&mut self) {
        (0..self.asked.len()).for_each(|at| self.close_account(at));
        (0..self.asked.len()).for_each(|at| self.close_call(at));
    }

    fn close_account(&mut self, at: usize) {
        let asked = &self.asked[at];
        let is_open = asked.finals == 0 && asked.reached.is_some() && !asked.excused;
        let has_left = asked.left_at.is_some() && !self.is_back(asked);
        if !is_open || has_left || asked.sip.method() == "ACK" {
            return;
        }
        let key = (asked.sip.call_id().to_string(), asked.sip.method().to_string());
        match self.expired.get_mut(&key) {
            Some(left) if *left > 0 && asked.sip.method() != "INVITE" => *left -= 1,
            _ => {
                let number = self.first as usize + at;
                let text = format!("#{number} {} has no outcome", asked.sip.start());
                self.fail(Checker::OneOutcome, text);
            }
        }
    }

    pub fn fail(&mut self, checker: Checker, text: String) {
        self.violations.push(Violation { checker, text });
    }

    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    pub fn violation(&self) -> Option<&Violation> {
        self.violations.first()
    }
}

/// The request that a branch of the simulator's clients belongs to.
pub fn serial_of(branch: &str) -> Option<u32> {
    branch.strip_prefix("z9hG4bK-s")?.parse().ok()
}
