//! REGISTER again, as clients do it before their binding expires: without credentials, and then
//! with them when the server asks, as JsSIP does each time, or with the nonce of the first
//! challenge and a count that rises (RFC 2617 §3.2.2). The exchange ends with the 200.

use std::ops::Range;

use anyhow::{Result, ensure};

use crate::load::{Scenario, Stage};
use crate::sip::{self, Head};

/// The challenge came, and was answered.
const CHALLENGED: u32 = 1;
/// A challenge said that a nonce is stale.
const STALE: u32 = 2;

/// How users prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The server asks nobody.
    None,
    /// It asks each time: a 200 without that is an error.
    Asked,
    /// By a nonce that was kept: to be asked again is an error.
    Kept,
}

/// Who registers again, each in turn.
pub struct Refresh {
    users: Range<usize>,
    proof: Proof,
    next: usize,
    /// The exchange that each user is in.
    exchanges: Vec<u64>,
}

impl Refresh {
    /// These users.
    pub fn new(users: Range<usize>, proof: Proof) -> Refresh {
        Refresh { next: users.start, exchanges: vec![u64::MAX; users.len()], users, proof }
    }
}

impl Scenario for Refresh {
    fn start(&mut self, stage: Stage<'_>, slot: usize) -> Result<()> {
        let end = next_idle(&mut self.next, &self.users, &self.exchanges, &stage);
        let has_nonce = stage.roster.has_nonce(end);
        ensure!(has_nonce == (self.proof == Proof::Kept), "a nonce is kept: {has_nonce}");
        let flight = stage.flights.slot(slot);
        flight.from = end;
        self.exchanges[end - self.users.start] = flight.id;
        stage.roster.send_register(stage.network, end, None)
    }

    fn on_message(
        &mut self,
        stage: Stage<'_>,
        end: usize,
        head: &Head<'_>,
        _message: &[u8],
    ) -> Result<()> {
        let slot = stage.flights.find(self.exchanges[end - self.users.start]);
        let Some(slot) = slot.filter(|_| head.status > 0) else {
            stage.flights.count("a message of no exchange");
            return Ok(());
        };
        let number = stage.network.number(end);
        let phase = stage.flights.slot(slot).phase;
        let (was_asked, was_stale) = (phase & CHALLENGED != 0, phase & STALE != 0);
        // Whose nonce the server had to forget is asked once more (RFC 7616 §3.3).
        let is_stale = memchr::memmem::find(head.challenge, b"stale=true").is_some();
        let cseq = format!("{} REGISTER", stage.roster.cseq(end));
        let space = memchr::memchr(b' ', head.via).map_or(0, |at| at + 1);
        if head.cseq != cseq.as_bytes() {
            stage.flights.count("a response to an earlier REGISTER");
        } else if head.vias != 1 || sip::number(&head.via[space..]) != Some(number) {
            stage.flights.fail(slot, "a response with another Via");
        } else if head.status == 401 && self.proof == Proof::Kept {
            stage.flights.fail(slot, "a nonce that was kept is refused");
        } else if head.status == 401 && (!was_asked || is_stale && !was_stale) {
            let again = if is_stale { STALE } else { 0 };
            stage.flights.slot(slot).phase |= CHALLENGED | again;
            stage.roster.send_register(stage.network, end, Some(head.challenge))?;
        } else if head.status == 200 && sip::uri(head.contact).is_none() {
            stage.flights.fail(slot, "a 200 without Contact");
        } else if head.status == 200 && was_asked != (self.proof == Proof::Asked) {
            stage.flights.fail(slot, "a 200 without a challenge");
        } else if head.status == 200 {
            stage.flights.finish(slot);
        } else if head.status > 200 {
            stage.flights.fail(slot, &format!("status {}", head.status));
        }
        Ok(())
    }
}

/// The next user who is in no exchange; there are more users than exchanges.
pub fn next_idle(
    next: &mut usize,
    users: &Range<usize>,
    exchanges: &[u64],
    stage: &Stage<'_>,
) -> usize {
    loop {
        let end = *next;
        *next = if end + 1 == users.end { users.start } else { end + 1 };
        if stage.flights.find(exchanges[end - users.start]).is_none() {
            return end;
        }
    }
}
