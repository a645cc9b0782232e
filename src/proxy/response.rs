//! Response forwarding (RFC 3261 §16.7 steps 3, 7 and 9): our Via comes off; but for identities
//! that are not to be believed, and for challenges of other branches that are added, all else stays
//! as it is.

use crate::base::id::Transport;
use crate::base::limits::{CHALLENGES_BYTES_MAX, HEADERS_MAX};
use crate::sip::{Edits, HeaderName, Message};

use super::identity::{self, Border};
use super::naming;

/// Appends the response as it goes to the sender of the request. A Content-Length is added where
/// the next hop is a stream and there was none (RFC 3261 §18.3); identities stay behind as `border`
/// says. Returns false when no Via would be left: the response was
/// ours alone.
pub fn forward(
    message: Message<'_>,
    toward: Transport,
    border: Border,
    edits: &mut Edits,
    out: &mut Vec<u8>,
) -> bool {
    let Some(ours) = message.values(HeaderName::Via).next() else { return false };
    if !message.has_many(HeaderName::Via) {
        return false;
    }
    edits.clear();
    edits.remove_value(&ours);
    identity::withhold(message, border, edits);
    add_content_length(message, toward, edits);
    edits.write_to(message.bytes(), out);
    true
}

/// Appends the 401 or 407 `best` with the challenges of `other` behind its own header fields, so that
/// its sender can answer all of them at once (RFC 3261 §16.7 step 7). Returns false when that would
/// exceed [`CHALLENGES_BYTES_MAX`] or [`HEADERS_MAX`], or there is none.
pub fn gather(best: Message<'_>, other: Message<'_>, edits: &mut Edits, out: &mut Vec<u8>) -> bool {
    edits.clear();
    let (mut added, mut lines) = (0, best.headers().count());
    for header in other.headers() {
        if matches!(header.name, HeaderName::WwwAuthenticate | HeaderName::ProxyAuthenticate) {
            let line = &other.bytes()[header.line.start as usize..header.line.end as usize];
            (added, lines) = (added + line.len(), lines + 1);
            edits.insert(best.headers_end(), line);
        }
    }
    let is_small = best.bytes().len() + added <= CHALLENGES_BYTES_MAX && lines <= HEADERS_MAX;
    if added == 0 || !is_small {
        return false;
    }
    edits.write_to(best.bytes(), out);
    true
}

/// Adds the Content-Length that a stream needs when the message has none.
pub(super) fn add_content_length(message: Message<'_>, toward: Transport, edits: &mut Edits) {
    if toward == Transport::Udp || message.header(HeaderName::ContentLength).is_some() {
        return;
    }
    edits.insert_with(message.headers_end(), |out| {
        out.extend_from_slice(b"Content-Length: ");
        naming::write_number(message.body().len() as u64, out);
        out.extend_from_slice(b"\r\n");
    });
}
