//! The response context of one forwarded request (RFC 3261 §16.7): how many branches still live,
//! which response is the best so far, what to do with the one that just came. Absent on purpose:
//! bytes, flows, timers.

/// One forwarded request's view of its responses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseContext {
    /// Branches that have not ended.
    pub live: u16,
    /// Status of the best final response so far; 0 before the first.
    pub best: u16,
    /// Final status that went to the sender; 0 before it.
    pub sent: u16,
}

/// What to do with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it to the sender of the request now.
    Forward,
    /// Keep it: the best so far.
    Keep,
    /// Add its challenges to the best so far, which is a challenge, too (§16.7 step 7).
    Gather,
    /// Nobody needs it.
    Drop,
}

/// What follows from a final response or the end of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consequence {
    /// For the response itself.
    pub verdict: Verdict,
    /// CANCEL the branches that still wait (RFC 3261 §16.7 step 10).
    pub cancel_others: bool,
    /// Every branch has ended: the best response is to be sent now (§16.7 step 6).
    pub finish: bool,
}

impl ResponseContext {
    /// A provisional response other than 100 (RFC 3261 §16.7 step 5: 100 goes one hop only).
    pub fn on_provisional(&self, status: u16) -> Verdict {
        if status == 100 || self.sent != 0 { Verdict::Drop } else { Verdict::Forward }
    }

    /// A final response ended its branch. `invite` tells that further 2xx are forwarded too (§16.7
    /// step 5).
    pub fn on_final(&mut self, status: u16, invite: bool) -> Consequence {
        self.live = self.live.saturating_sub(1);
        if (200..300).contains(&status) {
            return self.on_success(status, invite);
        }
        if self.sent != 0 {
            return Consequence { verdict: Verdict::Drop, cancel_others: false, finish: false };
        }
        let verdict = if is_better(status, self.best) {
            self.best = status;
            Verdict::Keep
        } else if is_challenge(status) && is_challenge(self.best) {
            Verdict::Gather
        } else {
            Verdict::Drop
        };
        let global = status >= 600;
        Consequence { verdict, cancel_others: global, finish: self.live == 0 }
    }

    /// A branch failed and another took its place: nothing is known of the target yet.
    pub fn on_replaced(&mut self) {
        self.live = self.live.saturating_sub(1);
    }

    /// One more 2xx of a branch that had one already (RFC 6026 §7.2): the sender gets it too.
    pub fn on_success_again(&self) -> Verdict {
        if (200..300).contains(&self.sent) { Verdict::Forward } else { Verdict::Drop }
    }

    fn on_success(&mut self, status: u16, invite: bool) -> Consequence {
        let first = self.sent == 0;
        let forward = first || (invite && (200..300).contains(&self.sent));
        if first {
            self.sent = status;
        }
        Consequence {
            verdict: if forward { Verdict::Forward } else { Verdict::Drop },
            cancel_others: first,
            finish: false,
        }
    }

    /// A branch ended without any response that may be shown (RFC 4320 §4.2).
    pub fn on_silent_end(&mut self) -> Consequence {
        self.live = self.live.saturating_sub(1);
        Consequence {
            verdict: Verdict::Drop,
            cancel_others: false,
            finish: self.live == 0 && self.sent == 0,
        }
    }
}

/// RFC 3261 §16.7 step 6: any 6xx before all else, then the lowest class; within 4xx those that
/// tell the sender how to try again; last of their class are those that tell the least: 408, 503,
/// and 487, which a CANCEL of ours brought about.
fn is_better(status: u16, best: u16) -> bool {
    best == 0 || rank(status) < rank(best)
}

fn is_challenge(status: u16) -> bool {
    matches!(status, 401 | 407)
}

fn rank(status: u16) -> (u16, u16) {
    let class = if status >= 600 { 0 } else { status / 100 };
    let within = match status {
        401 | 407 | 415 | 420 | 484 => 0,
        408 | 487 | 503 => 3,
        480 | 430 => 2,
        _ => 1,
    };
    (class, within)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(live: u16) -> ResponseContext {
        ResponseContext { live, ..ResponseContext::default() }
    }

    #[test]
    fn best_response_follows_the_class_and_then_the_use() {
        for (finals, expected) in [
            (vec![404, 486, 503], 404),
            (vec![486, 407, 404], 407),
            (vec![500, 302, 404], 302),
            (vec![408, 480], 480),
            (vec![503, 500], 500),
            (vec![404, 603], 603),
            (vec![487, 486], 486),
            (vec![503, 407, 501, 404], 407),
            (vec![415, 401], 415),
        ] {
            let mut it = context(finals.len() as u16);
            let mut finished = false;
            for status in &finals {
                finished = it.on_final(*status, true).finish;
            }
            assert_eq!((it.best, finished), (expected, true), "{finals:?}");
        }
    }

    #[test]
    fn challenges_are_gathered_while_a_challenge_is_the_best() {
        use Verdict::{Drop, Gather, Keep};
        for (finals, expected) in [
            (vec![401, 407, 401], vec![Keep, Gather, Gather]),
            (vec![404, 407, 401], vec![Keep, Keep, Gather]),
            (vec![302, 401], vec![Keep, Drop]),
            (vec![420, 401, 407], vec![Keep, Drop, Drop]),
            (vec![401, 603, 407], vec![Keep, Keep, Drop]),
        ] {
            let mut it = context(finals.len() as u16);
            let verdicts: Vec<Verdict> =
                finals.iter().map(|status| it.on_final(*status, true).verdict).collect();
            assert_eq!(verdicts, expected, "{finals:?}");
        }
    }

    #[test]
    fn a_success_is_forwarded_at_once_and_ends_the_others() {
        let mut it = context(2);
        assert_eq!(it.on_final(404, true).verdict, Verdict::Keep);
        let won = it.on_final(200, true);
        assert_eq!((won.verdict, won.cancel_others), (Verdict::Forward, true));
        assert_eq!(it.on_provisional(180), Verdict::Drop);
    }

    #[test]
    fn every_2xx_of_an_invite_is_forwarded_but_only_one_of_another_method() {
        for (invite, second) in [(true, Verdict::Forward), (false, Verdict::Drop)] {
            let mut it = context(2);
            it.on_final(200, invite);
            assert_eq!(it.on_final(202, invite).verdict, second);
        }
    }

    #[test]
    fn a_6xx_cancels_and_waits_for_the_rest() {
        let mut it = context(2);
        let global = it.on_final(603, true);
        assert_eq!((global.cancel_others, global.finish), (true, false));
        assert!(it.on_final(487, true).finish);
        assert_eq!(it.best, 603);
    }

    #[test]
    fn branches_that_end_in_silence_leave_the_request_unanswered() {
        let mut it = context(1);
        assert!(it.on_silent_end().finish);
        assert_eq!(it.best, 0);
    }
}
