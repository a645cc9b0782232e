//! What must be true of one message that the proxy writes: whether it may go there, is what came in
//! but for the declared edits, and is the one outcome that its request may have.

use sipring::base::id::Transport;
use sipring::base::time::Time;

use crate::check::{Aim, Asked, Books, Peer, serial_of};
use crate::checker::{Checker, Violation};
use crate::edits;
use crate::message::Sip;

impl Books {
    /// May this copy be written there, and is it a copy?
    pub fn judge_request(
        &self,
        asked: &Asked,
        sip: &Sip,
        to: Peer,
        now: Time,
    ) -> Result<(), Violation> {
        let wrong = |checker, why: &str| {
            let text = format!("{why}: {} #{:?} to {to:?}", sip.start(), sip.number());
            Err(Violation { checker, text })
        };
        let Some((reached, _)) = asked.reached else {
            return wrong(Checker::OneOutcome, "before it came");
        };
        let is_sips = asked.sip.uri().starts_with("sips:");
        if is_sips && !to.transport.is_secure() {
            return wrong(Checker::Downgraded, "sips by a plain transport");
        }
        match self.aim_of(asked) {
            Aim::User(user) => {
                // A repeat of what was refused for want of room is served as if it were the first.
                // What waits for a client may go to whoever is there by then.
                let again = asked.forgotten || self.lenient && asked.copies_in > 1;
                let again = again || self.ways.are_kept();
                let until = if again { now } else { reached + self.slack };
                let bound: Vec<_> = self.registrar.may_get(*user, reached, until).collect();
                let Some(mine) = bound.iter().find(|it| it.end == to.end) else {
                    let all_secure = !bound.is_empty() && bound.iter().all(|it| it.wish.secure);
                    let checker = match all_secure && !to.transport.is_secure() {
                        true => Checker::Downgraded,
                        false => Checker::WrongClient,
                    };
                    return wrong(checker, "not registered there");
                };
                if to.transport.is_secure() != mine.wish.secure {
                    return wrong(Checker::Downgraded, "another transport than registered");
                }
                if !bound.iter().any(|it| it.end == to.end && names(&it.wish.contact, sip.uri())) {
                    return wrong(Checker::Edits, "another Contact than registered");
                }
                let has_waited = mine.since() > reached + self.slack && asked.copies_in == 1;
                // What was written in the clear before was promised to nobody over TLS.
                let mut before = asked.written.iter().filter(|(_, branch)| branch == sip.branch());
                let was_plain = before.any(|(end, _)| self.ways.is_as_secure(*end, to.end));
                let is_lower = self.registrar.was_secure(mine) && !mine.wish.secure;
                if has_waited && is_lower && !was_plain {
                    return wrong(Checker::Lowered, "what waited for a client over TLS");
                }
                if !again && asked.written.iter().any(|(end, _)| *end == to.end) {
                    return wrong(Checker::OneOutcome, "a second copy for one client");
                }
            }
            Aim::Peer(end, _) if *end == to.end => {}
            Aim::Peer(end, phone) if self.ways.follows(*end, Some(*phone), to) => {}
            // Of a client that calls itself and answers on the flow that it called on, which end it
            // speaks for nobody knows.
            Aim::Peer(_, phone) if *phone == asked.sender && to.phone == Some(*phone) => {}
            Aim::Peer(end, phone) | Aim::Path(end, phone)
                if self.ways.is_lowered(*end, Some(*phone), to) =>
            {
                return wrong(Checker::Lowered, "in a dialog or by a Path of a flow over TLS");
            }
            Aim::Path(end, phone) => {
                let is_there = *end == to.end || self.ways.follows(*end, Some(*phone), to);
                if !is_there || !names(asked.sip.uri(), sip.uri()) {
                    return wrong(Checker::Path, "not by that Path");
                }
            }
            Aim::Register(_) if to.is_server => self.judge_enrolment(sip, to)?,
            Aim::Gruu(phone) if to.phone == Some(*phone) => {}
            Aim::Forbidden => {
                return wrong(Checker::Captured, "by a token that is not good for it");
            }
            Aim::Server(phone) if to.is_server && to.phone == Some(*phone) => {}
            _ => return wrong(Checker::WrongClient, "nobody's business there"),
        }
        edits::compare_request(&asked.sip, sip)
    }

    /// To whom it may go. The ACK of a refusal whose transaction went with its shard is taken for
    /// one of a 2xx (RFC 3261 §16.11): it may go where its INVITE could. So is, in a dialog, that of
    /// one without room for a transaction, whose To tag is the dialog's and not the proxy's.
    fn aim_of<'a>(&'a self, asked: &'a Asked) -> &'a Aim {
        let is_ack = asked.sip.method() == "ACK" && matches!(asked.aim, Aim::Hop);
        let invite = serial_of(asked.sip.branch()).filter(|_| is_ack);
        match invite.and_then(|serial| self.asked(serial)) {
            Some(invite) if invite.forgotten => &invite.aim,
            Some(invite) if invite.final_status == 500 && !invite.sip.tag("To").is_empty() => {
                &invite.aim
            }
            _ => &asked.aim,
        }
    }

    pub fn judge_response(
        &self,
        asked: &Asked,
        serial: u32,
        sip: &Sip,
        answer: Option<usize>,
        to: Peer,
    ) -> Result<(), Violation> {
        let wrong = |checker, why: &str| {
            let text =
                format!("{why}: {} of #{serial} {} to {to:?}", sip.start(), asked.sip.start());
            Err(Violation { checker, text })
        };
        let Some((_, from)) = asked.reached else {
            return wrong(Checker::OneOutcome, "answered before it came");
        };
        let is_there = from == to.end || to.is_server;
        let has_moved = self.ways.follows(from, Some(asked.sender), to);
        let is_sender = to.phone == Some(asked.sender) && (is_there || has_moved);
        if !is_sender {
            let is_lowered = self.ways.is_lowered(from, Some(asked.sender), to);
            let checker = if is_lowered { Checker::Lowered } else { Checker::WrongClient };
            return wrong(checker, "not to its sender");
        }
        edits::compare_vias(&asked.sip, sip)?;
        let Some(answer) = answer else { return Ok(()) };
        match self.answers.get(answer) {
            Some(answer) if answer.forged => wrong(Checker::WrongClient, "forged"),
            Some(answer) if answer.to != serial => {
                wrong(Checker::WrongClient, "of another request")
            }
            Some(answer) => edits::compare_response(&answer.sip, sip),
            None => wrong(Checker::Edits, "never answered so"),
        }
    }

    /// Exactly one outcome: a final response, or 2xx ones of an INVITE; repeated only where the
    /// request was, or over UDP.
    pub fn judge_outcome(
        &self,
        asked: &Asked,
        status: u16,
        by: Transport,
    ) -> Result<(), Violation> {
        let first = asked.final_status;
        let is_invite = asked.sip.method() == "INVITE";
        let is_2xx = |status: u16| (200..300).contains(&status);
        let is_for_us = asked.sip.start().starts_with("OPTIONS sip:example.com ");
        let fits = match (first, status) {
            (0, _) => true,
            _ if asked.forgotten => true,
            // Who has no room keeps no transaction: a repeat may fare otherwise.
            _ if self.lenient && by == Transport::Udp && asked.copies_in > 1 => true,
            // Nothing stays of it (RFC 3261 §8.2.7): a repeat may hear of a drain that began since.
            (200, 503) if is_for_us && by == Transport::Udp && self.drained_at.is_some() => {
                asked.finals < asked.copies_in && self.drained_at >= Some(asked.final_at)
            }
            _ if is_invite && is_2xx(first) => is_2xx(status),
            _ if is_invite => first == status && by == Transport::Udp,
            _ => first == status && asked.finals < asked.copies_in,
        };
        if fits {
            return Ok(());
        }
        let request = asked.sip.start();
        let text = format!("{status} after {} times {first} for {request}", asked.finals);
        Err(Violation { checker: Checker::OneOutcome, text })
    }

    /// A refusal of the proxy's own while the user was surely registered: every client of theirs
    /// must have got its copy.
    pub fn judge_reached(
        &self,
        asked: &Asked,
        status: u16,
        answer: Option<usize>,
        sip: &Sip,
        now: Time,
    ) -> Result<(), Violation> {
        let Aim::User(user) = asked.aim else { return Ok(()) };
        // What garbage before it made of a request (400), or a drain (503), is another matter.
        let is_refusal = matches!(status, 403 | 404 | 408 | 430 | 480 | 481 | 500)
            || status == 503 && self.drained_at.is_none();
        let warning = sip.header("Warning");
        // Who does not read, or shows one wrong token or password after the other, is put off.
        let is_put_off = ["does not read", "Too many tokens"].iter().any(|it| warning.contains(it))
            || warning.contains("Too many wrong passwords") && self.claims.guesses(asked.sender);
        if !is_refusal || answer.is_some() || self.lenient || is_put_off {
            return Ok(());
        }
        let Some((reached, _)) = asked.reached else { return Ok(()) };
        let is_sips = asked.sip.uri().starts_with("sips:");
        let fits = |contact: &str| !is_sips || contact.starts_with("sips:");
        let mut sure = self.registrar.must_get(user, reached, now);
        let missed = sure.find(|it| {
            fits(&it.wish.contact)
                && !asked.written.iter().any(|(end, _)| *end == it.end)
                && !self.registrar.was_crowded(it.end, reached)
        });
        match missed {
            None => Ok(()),
            Some(missed) => {
                let request = asked.sip.start();
                let text = format!("{status} {warning} for {request}, not written: {missed:?}");
                Err(Violation { checker: Checker::Reached, text })
            }
        }
    }
}

impl Books {
    /// A token that is not good for its request is refused (RFC 5626 §5.3), whoever bears it, unless
    /// the proxy has no room or takes nothing new.
    pub fn judge_refusal(
        &self,
        asked: &Asked,
        status: u16,
        answer: Option<usize>,
    ) -> Result<(), Violation> {
        let is_forbidden = matches!(asked.aim, Aim::Forbidden) && status >= 200;
        let is_full = self.lenient && matches!(status, 480 | 500);
        let is_draining = status == 503 && self.drained_at.is_some();
        if !is_forbidden || status == 403 || is_full || is_draining || asked.excused {
            return Ok(());
        }
        let text = format!("{status} by {answer:?} for {}", asked.sip.start());
        Err(Violation { checker: Checker::Captured, text })
    }
}

/// The Request-URI is the Contact, `sips:` perhaps replaced (RFC 5630 §5.3).
fn names(contact: &str, uri: &str) -> bool {
    contact == uri || contact.strip_prefix("sips:") == uri.strip_prefix("sip:")
}
