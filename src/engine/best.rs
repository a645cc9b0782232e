//! The best final response so far of a request whose branches have not all ended (RFC 3261 §16.7
//! step 6). One that was answered has none any more, so that it is kept apart from transactions, which
//! stay on.
//! Absent on purpose: which response is the best (`proxy/context`), and when it is sent (`answer`).

use crate::base::id::FlowRef;
use crate::base::limits::PARSED_KEPT;
use crate::base::slab::SlabKey;
use crate::proxy::response;
use crate::sip::{self, Message};

use super::Engine;

/// A final response that may be sent if none is better (RFC 3261 §16.7 step 6), in a box that is
/// used again.
#[derive(Debug, Default)]
pub(super) struct Best {
    /// Its bytes. Empty: `context.best` was made by ourselves, or the response goes on at once.
    pub block: Vec<u8>,
    /// Who gave it may assert identities.
    pub trusted: bool,
    /// Why it is what it is, when we made it ourselves.
    pub reason: Option<&'static str>,
    /// Where the branch that gave it went to.
    pub target: Option<FlowRef>,
}

impl Engine {
    /// The place for the best response to a request.
    pub(super) fn best_of(&mut self, tx: SlabKey) -> Option<&mut Best> {
        let best = &mut self.transactions.server.get_mut(tx)?.best;
        Some(best.get_or_insert_with(|| self.bests_kept.pop().unwrap_or_default()))
    }

    /// One more challenge: the best response, which is one, tells its sender of all (RFC 3261 §16.7
    /// step 7).
    pub(super) fn gather(&mut self, tx: SlabKey, message: Message<'_>) {
        self.counters.responses_absorbed += 1;
        let best = self.transactions.server.get_mut(tx).and_then(|it| it.best.as_mut());
        let best = best.map(|best| std::mem::take(&mut best.block)).unwrap_or_default();
        let mut parsed = self.parsed_kept.pop().unwrap_or_default();
        let mut block = self.pool.take(best.len() + message.bytes().len());
        let is_added = sip::parse(&best, &mut parsed).is_ok()
            && response::gather(parsed.view(&best), message, &mut self.scratch.edits, &mut block);
        self.keep_parsed(parsed);
        let (kept, spare) = if is_added { (block, best) } else { (best, block) };
        self.pool.put(spare);
        match self.transactions.server.get_mut(tx).and_then(|it| it.best.as_mut()) {
            Some(best) => best.block = kept,
            None => self.pool.put(kept),
        }
    }

    /// Gives back what was kept of the best response and is not needed any more.
    pub(super) fn discard_best(&mut self, best: Option<Box<Best>>) {
        let Some(mut best) = best else { return };
        self.discard_response(std::mem::take(&mut best.block));
        if self.bests_kept.len() < PARSED_KEPT {
            *best = Best::default();
            self.bests_kept.push(best);
        }
    }

    /// Gives back the storage of a response that was kept and goes nowhere.
    pub(super) fn discard_response(&mut self, response: Vec<u8>) {
        self.counters.responses_absorbed += u64::from(!response.is_empty());
        self.pool.put(response);
    }
}
