//! Clients that come back: whose flows were whose, which of them ended, and who registered again.
//! From that follows where a request may go once more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sipring::base::id::Transport;
use sipring::base::time::Time;

use crate::check::{Asked, Books, Peer};
use crate::checker::{Checker, Violation};
use crate::message::Sip;
use crate::registrar::Wish;
use crate::world::End;

/// What alarms and the ways between shards add to a time that somebody waits.
pub const WAIT_SLACK: Duration = Duration::from_millis(250);

/// One REGISTER that was granted, and did not take the binding out.
struct Granted {
    phone: usize,
    /// Until when at least.
    until: Time,
    /// What tells the client from others: its instance or its Contact.
    key: String,
    end: End,
    /// When it came, and when its answer left.
    asked: Time,
    at: Time,
}

/// What the proxy heard of one branch.
#[derive(Clone, Copy, Default)]
pub struct Heard {
    /// Something, by whom it was asked, or on a flow that surely was the same client's.
    pub first: Option<Time>,
    /// A final response, be it from whom it may.
    pub last: Option<Time>,
}

/// Where clients were and are.
#[derive(Default)]
pub struct Ways {
    grace: Duration,
    /// Clients behind address translation are asked whether they are there.
    pub has_pings: bool,
    /// A planted fault: nobody may wait.
    pub is_impatient: bool,
    owners: BTreeMap<End, usize>,
    /// Flows over TLS.
    secure: BTreeSet<End>,
    pub ended: BTreeMap<End, Time>,
    granted: Vec<Granted>,
    /// Who asked when on which flow, and lost it before the answer: granted or not.
    unheard: Vec<(usize, Time, End)>,
    /// Who asked when to be taken out. Whether or not the answer still found them.
    removals: Vec<(usize, Time)>,
    /// When something might not wait for want of room.
    refused: Vec<Time>,
    pub heard: BTreeMap<String, Heard>,
    pub cancelled: BTreeMap<String, Time>,
}

impl Ways {
    /// Clients are known again for so long; zero: never.
    pub fn keep(&mut self, grace: Duration) {
        self.grace = grace;
    }

    pub fn grace(&self) -> Duration {
        self.grace
    }

    pub fn are_kept(&self) -> bool {
        !self.grace.is_zero()
    }

    pub fn opened(&mut self, end: End, transport: Transport) {
        if self.are_kept() && transport.is_secure() {
            self.secure.insert(end);
        }
    }

    /// Whether what was for `end` may go to `next` as far as TLS is concerned.
    pub fn is_as_secure(&self, end: End, next: End) -> bool {
        !self.secure.contains(&end) || self.secure.contains(&next)
    }

    /// Whether what was for `end`, a flow of that client, goes to one of its flows that is less
    /// secure.
    pub fn is_lowered(&self, end: End, phone: Option<usize>, to: Peer) -> bool {
        phone.is_some() && to.phone == phone && !self.is_as_secure(end, to.end)
    }

    pub fn note_owner(&mut self, to: Peer) {
        if let Some(phone) = to.phone.filter(|_| self.are_kept()) {
            self.owners.insert(to.end, phone);
        }
    }

    pub fn owner(&self, end: End) -> Option<usize> {
        self.owners.get(&end).copied()
    }

    pub fn ended(&mut self, end: End, now: Time) {
        if self.are_kept() {
            self.ended.insert(end, now);
        }
    }

    /// A REGISTER reached the proxy.
    pub fn asked(&mut self, phone: usize, wish: &Wish, now: Time) {
        if self.are_kept() && wish.expires == 0 {
            self.removals.push((phone, now));
        }
    }

    /// A REGISTER that came then on that flow was granted.
    pub fn registered(&mut self, phone: usize, wish: &Wish, from: (Time, End), at: Time) {
        if !self.are_kept() || wish.expires == 0 {
            return;
        }
        let key = wish.instance.clone().unwrap_or_else(|| wish.contact.clone());
        let (asked, end) = from;
        // A late answer changes nothing that a later REGISTER has made.
        let is_later = |it: &Granted| it.phone == phone && it.key == key && it.asked > asked;
        if self.granted.iter().any(is_later) {
            return;
        }
        let until = asked + Duration::from_secs(u64::from(wish.expires) * 9 / 10);
        self.granted.push(Granted { phone, until, key, end, asked, at });
    }

    /// The flow of a REGISTER that came then ended before its answer.
    pub fn unheard(&mut self, phone: usize, wish: &Wish, from: (Time, End)) {
        if self.are_kept() && wish.expires > 0 {
            self.unheard.push((phone, from.0, from.1));
        }
    }

    /// Something was not let wait, as it would have been one too many.
    pub fn refused(&mut self, now: Time) {
        self.refused.push(now);
    }

    /// The proxy cancels a branch.
    pub fn cancelled(&mut self, branch: &str, now: Time) {
        if self.are_kept() {
            self.cancelled.entry(branch.into()).or_insert(now);
        }
    }

    /// Whether what was for `end` may go there: it is the same client, that flow is no more, and
    /// this one is as secure. A client of datagrams is where it registered last, whether or not it
    /// hears at its former address.
    pub fn follows(&self, end: End, phone: Option<usize>, to: Peer) -> bool {
        let is_same = phone.is_some() && to.phone == phone;
        if let (End::Datagram(_), End::Datagram(_)) = (end, to.end) {
            return is_same;
        }
        let is_stream = matches!(to.end, End::Flow(_));
        is_stream && is_same && self.ended.contains_key(&end) && self.is_as_secure(end, to.end)
    }

    /// Whether it is a flow of the same client, as secure, which may answer there what it was asked
    /// on its older one.
    pub fn is_same_client(&self, end: End, to: Peer) -> bool {
        let phone = self.owner(end);
        phone.is_some() && to.phone == phone && self.is_as_secure(end, to.end)
    }

    /// When the client with that flow was granted another that is as secure, at the earliest from
    /// `since` on, and which.
    pub fn backs(&self, phone: usize, end: End, since: Time) -> impl Iterator<Item = (Time, End)> {
        let nexts = self.nexts(phone, end, since).map(|it| (it.at, it.end));
        nexts.filter(move |(_, next)| self.is_as_secure(end, *next))
    }

    /// Whether it came at some time without TLS after a flow with it: then nobody waits for it any
    /// longer.
    pub fn wavered(&self, phone: usize, end: End, since: Time) -> bool {
        self.nexts(phone, end, since).any(|it| !self.is_as_secure(end, it.end))
            || self.tries(phone, end, since).any(|(_, next)| !self.is_as_secure(end, next))
    }

    /// When and where else than at `end` a client asked since, and did not hear what became of it.
    pub fn tries(&self, phone: usize, end: End, since: Time) -> impl Iterator<Item = (Time, End)> {
        let mine = self.unheard.iter().filter(move |it| it.0 == phone && it.1 >= since);
        mine.map(|it| (it.1, it.2)).filter(move |it| it.1 != end)
    }

    /// What the client with that flow was granted on others since.
    fn nexts(&self, phone: usize, end: End, since: Time) -> impl Iterator<Item = &Granted> {
        let mine = move || self.granted.iter().filter(move |it| it.phone == phone);
        let key = mine().find(|it| it.end == end).map(|it| &it.key);
        mine().filter(move |it| it.end != end && it.at >= since && Some(&it.key) == key)
    }

    /// When a client that was on `end` registered on another flow that is as secure, to stay: then,
    /// or when it falls silent later, the proxy asks whether that one lives. `None` as well when its
    /// binding may have been out by then.
    pub fn left_behind(&self, phone: usize, end: End) -> Option<Time> {
        let mine = || self.granted.iter().filter(|it| it.phone == phone);
        let key = mine().find(|it| it.end == end).map(|it| &it.key)?;
        let same: Vec<&Granted> = mine().filter(|it| it.key == *key).collect();
        let at = same.iter().rposition(|it| it.end == end)?;
        let (last, next) = (same[at], same.get(at + 1)?);
        let is_out = |at: Time| at >= last.asked && at <= next.at;
        let went = self.removals.iter().any(|(whose, at)| *whose == phone && is_out(*at));
        let is_moved = last.until > next.at && !went;
        (is_moved && self.is_as_secure(end, next.end)).then_some(next.at)
    }

    /// On which other flow than `end` its client surely was the whole time, which was from `time.0`
    /// to `time.1`: it registered there as the same before, and did not take itself out.
    pub fn surely_at(
        &self,
        phone: usize,
        end: End,
        time: (Time, Time),
        slack: Duration,
    ) -> Option<End> {
        let slack = slack * 2 + WAIT_SLACK;
        let (from, until) = time;
        let mine = || self.granted.iter().filter(|it| it.phone == phone);
        let old = mine().find(|it| it.end == end)?;
        // The last one; what came at about that time, before or after, is sure of nothing.
        let next = mine().rfind(|it| it.at <= until && it.key == old.key)?;
        let is_out = |at: Time| at + slack >= old.asked && at <= until;
        let went = self.removals.iter().any(|(whose, at)| *whose == phone && is_out(*at));
        let is_there = next.end != end && next.at + slack < from && next.until > until && !went;
        (is_there && self.is_as_secure(end, next.end)).then_some(next.end)
    }

    pub fn was_known(&self, phone: usize, end: End, at: Time) -> bool {
        let is_it = |it: &Granted| it.phone == phone && it.end == end && it.at <= at;
        self.granted.iter().any(is_it)
    }

    /// Whether a client had registered on `next` by then, under a name that it has on `end`: with
    /// another Contact and without an instance it is another client (RFC 5626 §4.2).
    fn is_known_as(&self, phone: usize, end: End, next: End, at: Time) -> bool {
        let on =
            |end: End| self.granted.iter().filter(move |it| it.phone == phone && it.end == end);
        on(next).any(|it| it.at <= at && on(end).any(|old| old.key == it.key))
    }

    /// Whether a client took itself out after it had registered last before `left_at`, and before
    /// `back_at`. What comes by two shards within the `slack` may overtake.
    pub fn went(&self, phone: usize, left_at: Time, back_at: Time, slack: Duration) -> bool {
        let before = self.granted.iter().filter(|it| it.phone == phone && it.at <= left_at);
        let Some(since) = before.map(|it| it.asked).max() else { return false };
        let is_within = |at: Time| at + slack >= since && at <= left_at.max(back_at) + slack;
        self.removals.iter().any(|(whose, at)| *whose == phone && is_within(*at))
    }

    /// Whether a client that left then had a binding that lasts at least until it was back: nobody is
    /// waited for longer, and none is granted for longer than a token is good.
    pub fn lasts(&self, phone: usize, left_at: Time, back_at: Time) -> bool {
        let is_it = |it: &Granted| it.phone == phone && it.at <= left_at && it.until > back_at;
        self.granted.iter().any(is_it)
    }

    /// Whether there was room for all that waited between these times.
    pub fn had_room(&self, left_at: Time, back_at: Time, slack: Duration) -> bool {
        let is_within = |at: &Time| *at >= left_at && *at <= left_at.max(back_at) + slack;
        !self.refused.iter().any(is_within)
    }
}

impl Books {
    /// An answer of a client arrived at the proxy.
    pub fn on_answer_in(&mut self, number: u32, from: End, now: Time) {
        let Some(answer) = self.answers.get(number as usize) else { return };
        // What lacks a Via is nobody's answer.
        let vias = |sip: &Sip| sip.all("Via").count();
        let is_whole = self.asked(answer.to).is_some_and(|it| vias(&it.sip) < vias(&answer.sip));
        if !self.ways.are_kept() || answer.forged || !is_whole {
            return;
        }
        let branch = answer.sip.branch();
        let end = self.branches.get(branch).map(|(_, end)| *end);
        // Who has not yet registered there again is a stranger.
        let since = Time::from_nanos(now.as_nanos().saturating_sub(self.slack.as_nanos() as u64));
        let is_known = end.is_some_and(|end| {
            let phone = self.ways.owner(end);
            phone.is_some_and(|phone| self.ways.is_known_as(phone, end, from, since))
                && self.ways.is_as_secure(end, from)
        });
        let heard = self.ways.heard.entry(branch.into()).or_default();
        if end == Some(from) || is_known {
            heard.first.get_or_insert(now);
        }
        if answer.sip.status() >= 200 {
            heard.last.get_or_insert(now);
        }
    }

    /// A request that the proxy asks for itself: does a caller that came back know its call?
    pub fn is_question(&self, sip: &Sip, to: Peer) -> bool {
        let is_info = sip.method() == "INFO" && sip.cseq().0 == 0 && self.ways.are_kept();
        is_info
            && self.asked.iter().any(|it| {
                it.sip.method() == "INVITE"
                    && it.sip.call_id() == sip.call_id()
                    && it.sip.tag("From") == sip.tag("To")
                    && to.phone == Some(it.sender)
                    && it.reached.is_some_and(|(_, from)| self.ways.is_as_secure(from, to.end))
            })
    }

    /// Or is a client behind address translation there?
    pub fn is_nat_ping(&self, sip: &Sip, to: Peer) -> bool {
        let by_datagram = matches!(to.end, End::Datagram(_));
        sip.method() == "OPTIONS" && by_datagram && self.ways.has_pings && !to.is_server
    }

    /// A branch goes to another flow only when its own is gone and nothing was heard of it, to the
    /// same client, and once.
    pub fn judge_move(
        &self,
        asked: &Asked,
        branch: &str,
        to: Peer,
        now: Time,
    ) -> Result<(), Violation> {
        let is_ack = asked.sip.method() == "ACK";
        let (Some((_, end)), true) = (self.branches.get(branch), self.ways.are_kept() && !is_ack)
        else {
            return Ok(());
        };
        if *end == to.end || to.is_server {
            return Ok(());
        }
        let copies = asked.written.iter().filter(|(_, it)| it == branch).count();
        // An answer that is still on its way between two shards was not heard by the one that asks.
        let heard = self.ways.heard.get(branch).and_then(|it| it.first);
        let is_heard = heard.is_some_and(|at| at + self.slack < now);
        let is_known = self.ways.follows(*end, self.ways.owner(*end), to);
        if is_known && copies == 1 && !is_heard {
            return Ok(());
        }
        let text = format!(
            "{} from {end:?} to {to:?}: its own {is_known}, heard {is_heard}, copies {copies}",
            asked.sip.start()
        );
        let is_lowered = self.ways.is_lowered(*end, self.ways.owner(*end), to);
        let checker = if is_lowered { Checker::Lowered } else { Checker::Moved };
        Err(Violation { checker, text })
    }
}

#[test]
fn who_has_a_secure_flow_among_several_is_back() {
    let at = |millis| Time::ZERO + Duration::from_millis(millis);
    let flow = |port: u16| End::Datagram(([203, 0, 113, 2], port).into());
    let mut ways = Ways::default();
    ways.keep(Duration::from_secs(10));
    let mut come = |port: u16, transport: Transport, contact: &str| {
        let wish = Wish {
            user: 0,
            contact: contact.into(),
            instance: None,
            expires: 60,
            secure: transport.is_secure(),
            dialable: false,
        };
        ways.opened(flow(port), transport);
        ways.registered(2, &wish, (at(u64::from(port)), flow(port)), at(u64::from(port)));
    };
    come(1, Transport::Wss, "sip:c@h.invalid");
    come(2, Transport::Ws, "sip:c@h.invalid");
    come(3, Transport::Wss, "sip:other@h.invalid");
    come(4, Transport::Wss, "sip:c@h.invalid");
    assert_eq!(ways.backs(2, flow(1), at(1)).next(), Some((at(4), flow(4))));
    assert_eq!(ways.backs(2, flow(2), at(2)).next(), Some((at(4), flow(4))));
    assert!(ways.wavered(2, flow(1), at(1)) && !ways.wavered(2, flow(1), at(3)));
    assert!(ways.is_known_as(2, flow(1), flow(4), at(4)));
    assert!(!ways.is_known_as(2, flow(1), flow(3), at(4)), "another Contact");
    let on =
        |port, transport| Peer { end: flow(port), phone: Some(2), is_server: false, transport };
    assert!(ways.is_lowered(flow(1), Some(2), on(2, Transport::Ws)));
    assert!(!ways.is_lowered(flow(2), Some(2), on(4, Transport::Wss)));
}
