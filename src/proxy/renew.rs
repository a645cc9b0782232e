//! A request whose target lost its flow, as it goes out on the next one: the same bytes but for the
//! token that names the target (RFC 5626 §5.3), for the Contact if that is another by now, and for
//! what the Via says of the way if that is (RFC 3261 §18.1.1).

use super::naming;
use crate::base::config::Config;
use crate::base::id::{FlowRef, StreamPath};
use crate::flow::token::TokenKey;
use crate::sip::{Edits, HeaderName, Message, NameAddr, Span, Uri};

/// Record-Route values that are ours: one, or one for each side (RFC 5658 §5).
const OWN_VALUES: usize = 2;

/// From where to where a target has moved.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    /// The flow that is gone.
    pub lost: StreamPath,
    /// The one in its place.
    pub next: StreamPath,
    /// Replaces the Request-URI, but not its scheme.
    pub contact: Option<&'a [u8]>,
}

/// Appends the copy `sent` as it is for a target that has moved.
pub fn renew(
    config: &Config,
    tokens: &TokenKey,
    sent: Message<'_>,
    moved: Move<'_>,
    edits: &mut Edits,
    out: &mut Vec<u8>,
) {
    let Move { lost, next, contact } = moved;
    edits.clear();
    if let Some(contact) = contact {
        replace_target(sent, contact, edits);
    }
    if (lost.transport, lost.listener) != (next.transport, next.listener) {
        replace_way(config, sent, next, edits);
    }
    for value in sent.values(HeaderName::RecordRoute).take(OWN_VALUES) {
        let Ok(address) = NameAddr::parse(value.text) else { break };
        let Ok(Uri { user: Some(user), .. }) = Uri::parse(address.uri) else { break };
        let call_id = sent.call_id().unwrap_or_default();
        let Ok(claims) = tokens.decode(user, call_id) else { break };
        if claims.callee == Some(FlowRef::Stream(lost)) {
            let callee = Some(FlowRef::Stream(next));
            let claims = crate::flow::token::Claims { callee, ..claims };
            edits.replace_with(span_of(sent, user), |out| tokens.encode(&claims, call_id, out));
        }
    }
    edits.write_to(sent.bytes(), out);
}

/// A `sip:` request keeps its scheme, whatever that of the Contact is (RFC 5630 §5.3).
fn replace_target(sent: Message<'_>, contact: &[u8], edits: &mut Edits) {
    let after_scheme = |uri: &[u8]| memchr::memchr(b':', uri).map_or(0, |colon| colon + 1);
    let rest = &contact[after_scheme(contact)..];
    let span = sent.uri_span();
    let start = after_scheme(sent.uri());
    if rest != &sent.uri()[start..] {
        edits.replace(Span::new(span.start as usize + start, span.end as usize), rest);
    }
}

/// The Via of ours names the transport and the listener of the flow; its branch stays.
fn replace_way(config: &Config, sent: Message<'_>, next: StreamPath, edits: &mut Edits) {
    let Ok(via) = sent.top_via() else { return };
    let start = span_of(sent, via.transport).start as usize;
    let value = &sent.bytes()[start..via.span.end as usize];
    let end = start + memchr::memchr(b';', value).unwrap_or(value.len());
    edits.replace_with(Span::new(start, end), |out| {
        out.extend_from_slice(next.transport.via_name().as_bytes());
        out.push(b' ');
        naming::write_sent_by(config, next.listener, out);
    });
}

/// Where a part of the message stands in it.
fn span_of(message: Message<'_>, part: &[u8]) -> Span {
    let start = part.as_ptr().addr() - message.bytes().as_ptr().addr();
    Span::new(start, start + part.len())
}
