//! Clients that are away: how long anything may wait for them, what they must hear when they come
//! back in time, and what must not go on when they do not.

use std::time::Duration;

use sipring::base::limits::WAIT_BRIEF;
use sipring::base::time::Time;

use crate::check::{Aim, Asked, Books, OUTCOME_TIME};
use crate::checker::{Checker, Violation};
use crate::ways::WAIT_SLACK;

/// Longest that a request other than INVITE goes without outcome (Timer F), with its wait.
const BRIEF_OUTCOME: Duration = Duration::from_secs(32 + 10);

impl Books {
    /// What waits for a client that is away does so for the grace if it is an INVITE, else briefly;
    /// then it goes out or is answered.
    pub fn judge_wait(&self, asked: &Asked, now: Time) -> Result<(), Violation> {
        let Some((reached, _)) = asked.reached else { return Ok(()) };
        let is_aimed =
            matches!(asked.aim, Aim::User(_) | Aim::Peer(..) | Aim::Path(..) | Aim::Gruu(_))
                && asked.sip.method() != "ACK";
        let is_first = asked.written.is_empty() && asked.final_status == 0 && !asked.forgotten;
        // The answer to who left as well waits for them.
        let is_there = asked.left_at.is_none();
        let is_judged = self.ways.are_kept() || matches!(asked.aim, Aim::Path(..));
        if !is_aimed || !is_first || !is_there || self.lenient || !is_judged {
            return Ok(());
        }
        let grace = self.ways.grace();
        let is_invite = asked.sip.method() == "INVITE";
        let most = if is_invite { grace } else { grace.min(WAIT_BRIEF) };
        let most = if self.ways.is_impatient { Duration::ZERO } else { most };
        let waited = now.saturating_since(reached);
        if waited <= most + self.slack * 2 + WAIT_SLACK {
            return Ok(());
        }
        let text = format!("{} waited for {waited:?}", asked.sip.start());
        Err(Violation { checker: Checker::Held, text })
    }

    /// Whether who asked came back in time and stayed, on the next flow or on one after it: then it
    /// must have its outcome.
    pub fn is_back(&self, asked: &Asked) -> bool {
        let (Some((reached, from)), Some(mut left_at)) = (asked.reached, asked.left_at) else {
            return false;
        };
        let ways = &self.ways;
        let was_known = ways.are_kept() && ways.was_known(asked.sender, from, reached);
        if !was_known || self.lenient || ways.wavered(asked.sender, from, reached) {
            return false;
        }
        let is_invite = asked.sip.method() == "INVITE";
        let outcome = reached + if is_invite { OUTCOME_TIME } else { BRIEF_OUTCOME };
        let slack = self.slack * 2 + WAIT_SLACK;
        for (back_at, end) in ways.backs(asked.sender, from, reached) {
            let is_awaited = back_at + slack < left_at + ways.grace()
                && !ways.went(asked.sender, left_at, back_at, slack)
                && ways.lasts(asked.sender, left_at, back_at + slack)
                && ways.had_room(left_at, back_at, slack);
            if !is_awaited {
                return false;
            }
            match ways.ended.get(&end).filter(|ended| **ended <= outcome) {
                // It is awaited since the end of the flow where it is registered, even if it called
                // on an older one that lived longer.
                Some(ended) => left_at = *ended,
                None => return true,
            }
        }
        false
    }

    /// At the end: no call rang on for a caller that did not come back.
    pub fn close_call(&mut self, at: usize) {
        let asked = &self.asked[at];
        let (Some((reached, from)), Some(left_at)) = (asked.reached, asked.left_at) else { return };
        let is_call = asked.sip.method() == "INVITE" && asked.sip.tag("To").is_empty();
        let is_over = asked.final_status != 0 && asked.final_at <= left_at;
        // A server is reached by another connection (RFC 3261 §18.2.2).
        let is_client = self.ways.was_known(asked.sender, from, reached);
        if !is_call
            || !is_client
            || is_over
            || asked.excused
            || self.lenient
            || !self.ways.are_kept()
        {
            return;
        }
        let ways = &self.ways;
        let came = ways.backs(asked.sender, from, reached);
        let tried = ways.tries(asked.sender, from, reached);
        let tried = tried.filter(|(_, end)| ways.is_as_secure(from, *end));
        let is_in_time = |at: Time| at <= left_at + ways.grace() + self.slack * 2;
        if came.chain(tried).any(|(at, _)| is_in_time(at)) {
            return;
        }
        let end = left_at + self.ways.grace();
        let due = end + self.slack * 2 + WAIT_SLACK;
        let rings_on = asked.written.iter().find(|(to, branch)| {
            let Some(heard) = self.ways.heard.get(branch) else { return false };
            let is_alive = !self.ways.ended.contains_key(to);
            let rang = heard.first.is_some_and(|first| first <= end);
            let is_over = heard.last.is_some_and(|last| last <= due);
            let is_cancelled = self.ways.cancelled.get(branch).is_some_and(|at| *at <= due);
            is_alive && rang && !is_over && !is_cancelled
        });
        if let Some((to, branch)) = rings_on {
            let (start, call_id) = (asked.sip.start(), asked.sip.call_id());
            let text = format!("{start} [{call_id}] left at {left_at:?}: {branch} at {to:?}");
            self.fail(Checker::Rings, text);
        }
    }
}
