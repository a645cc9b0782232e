//! A request whose target lost its flow, as it goes out on the next one: the same bytes but for the
//! token that names the target (RFC 5626 §5.3), and for the Contact if that is another by now.

use crate::base::id::{FlowRef, StreamPath};
use crate::flow::token::TokenKey;
use crate::sip::{Edits, HeaderName, Message, NameAddr, Span, Uri};

/// Record-Route values that are ours: one, or one for each side (RFC 5658 §5).
const OWN_VALUES: usize = 2;

/// Appends the copy `sent` as it is for `next` instead of `lost`. `contact` replaces the
/// Request-URI, but not its scheme.
pub fn renew(
    tokens: &TokenKey,
    sent: Message<'_>,
    lost: StreamPath,
    next: StreamPath,
    contact: Option<&[u8]>,
    edits: &mut Edits,
    out: &mut Vec<u8>,
) {
    edits.clear();
    if let Some(contact) = contact {
        replace_target(sent, contact, edits);
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

/// Where a part of the message stands in it.
fn span_of(message: Message<'_>, part: &[u8]) -> Span {
    let start = part.as_ptr().addr() - message.bytes().as_ptr().addr();
    Span::new(start, start + part.len())
}
