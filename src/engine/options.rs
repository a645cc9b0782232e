//! An OPTIONS that is for us (RFC 3261 §11.2): what this proxy is able to do, and whether it takes
//! new work.

use crate::base::slab::SlabKey;
use crate::proxy::Reject;
use crate::sip::Message;

use super::Engine;

const ABILITIES: &[u8] =
    b"Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, MESSAGE, NOTIFY, SUBSCRIBE, \
INFO, UPDATE, PRACK, REFER, PUBLISH\r\nAccept: application/sdp\r\nSupported: path, outbound\r\n";

impl Engine {
    pub(super) fn answer_options(
        &mut self,
        tx: SlabKey,
        message: Message<'_>,
    ) -> Result<(), Reject> {
        if self.draining {
            return Err(Reject::retry_after(503, 5, "Shutting down"));
        }
        self.answer(tx, message, 200, None, ABILITIES);
        Ok(())
    }
}
