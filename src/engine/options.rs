//! An OPTIONS that is for us (RFC 3261 §11.2): what this proxy is able to do, and whether it takes
//! new work. It is answered without a transaction (§8.2.7): a repeated one gets the same answer once
//! more, and nothing of it stays. Absent on purpose: merged requests (§8.2.2.2), which nobody can
//! tell who keeps no state.

use crate::flow::arrival::Arrival;
use crate::proxy::branch::{has_looped, loop_hash};
use crate::proxy::route::Sender;
use crate::proxy::{Reject, naming, validate};
use crate::sip::{Message, Method, Uri};

use super::Engine;

const ABILITIES: &[u8] =
    b"Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, MESSAGE, NOTIFY, SUBSCRIBE, \
INFO, UPDATE, PRACK, REFER, PUBLISH\r\nAccept: application/sdp\r\nSupported: path, outbound\r\n";

impl Engine {
    /// Answers an OPTIONS that names us without a user. False for every other request, and while
    /// there is no room for new work, which it is to be told.
    pub(super) fn answer_options(&mut self, arrival: &Arrival, message: Message<'_>) -> bool {
        if message.method() != Method::Options || self.transactions.is_full() {
            return false;
        }
        let Ok(uri) = Uri::parse(message.uri()) else { return false };
        if uri.user.is_some() || !naming::is_our_uri(&self.config, &uri) {
            return false;
        }
        let sender = Sender::of(&self.config, arrival);
        if sender.is_upstream() && arrival.accepted {
            self.learn_alias(arrival, message);
        }
        let hash = loop_hash(&self.placement, message, sender, &mut self.scratch.key);
        let judged = validate::validate(message, &uri, true, has_looped(message, hash));
        let judged = match judged {
            Ok(()) if self.draining => Err(Reject::retry_after(503, 5, "Shutting down")),
            judged => judged,
        };
        let status = judged.as_ref().err().map_or(200, |reject| reject.status);
        match judged {
            Ok(()) => self.say_stateless(arrival, message, 200, None, ABILITIES),
            Err(reject) => self.answer_stateless(arrival, message, &reject),
        }
        self.report_answer(arrival, message, status);
        true
    }
}
