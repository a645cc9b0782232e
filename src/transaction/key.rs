//! Which server transaction a request belongs to (RFC 3261 §17.2.3), as keyed hashes of fixed size.
//! Absent on purpose: the table; matching of responses, whose branch is ours and says where to look
//! (§17.1.3).

use std::hash::{BuildHasher, Hasher};

use crate::base::hash::KeyedHash;
use crate::sip::{Message, Method, NameAddr, PreviousHop, has_magic_cookie};

/// A server transaction's name: 128 bits that nobody can aim at without the hash's key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ServerKey(u128);

/// What merged requests have in common (RFC 3261 §8.2.2.2): From tag, Call-ID and CSeq.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MergeKey(u128);

impl MergeKey {
    /// The key as one number.
    pub const fn to_bits(self) -> u128 {
        self.0
    }

    /// The key that [`MergeKey::to_bits`] gave.
    pub const fn from_bits(bits: u128) -> MergeKey {
        MergeKey(bits)
    }
}

impl ServerKey {
    /// The key as one number, for placement and for links.
    pub const fn to_bits(self) -> u128 {
        self.0
    }

    /// The key that [`ServerKey::to_bits`] gave.
    pub const fn from_bits(bits: u128) -> ServerKey {
        ServerKey(bits)
    }
}

/// The key of the server transaction that `request` belongs to or would create, were its method
/// `as_method`: the request's own method in general; [`Method::Invite`] for the INVITE that a
/// CANCEL is about (§9.2). ACK always means its INVITE. `None` when a field that counts is missing
/// or malformed.
///
/// With the magic cookie these are branch, sent-by with its port, and method. Without it (RFC 2543
/// peers) the Request-URI, From tag, Call-ID, CSeq number, method and top Via count, and the To tag
/// unless it is about an INVITE: the To tag of its ACK is the one of our response, which the INVITE
/// could not have.
pub fn server_key(
    hash: &KeyedHash,
    request: Message<'_>,
    as_method: Method<'_>,
) -> Option<ServerKey> {
    let method = if as_method == Method::Ack { Method::Invite } else { as_method };
    let PreviousHop { host, port, branch } = request.previous_hop()?;
    let is_unique = has_magic_cookie(branch);
    let mut fields = Fields::new(hash, if is_unique { 1 } else { 2 });
    fields.push(method.as_bytes());
    fields.push_sent_by(host, port);
    fields.push(branch);
    if !is_unique {
        fields.push_lower(request.top_via().ok()?.transport);
        fields.push(request.uri());
        fields.push_tag(request.from().ok()?);
        fields.push(request.call_id()?);
        fields.push_number(request.cseq().ok()?.number);
        if method != Method::Invite {
            fields.push_tag(request.to().ok()?);
        }
    }
    Some(ServerKey(fields.finish()))
}

/// The key that requests share which reached us on different ways from one fork (RFC 3261
/// §8.2.2.2). `None` when a field is missing or malformed, and for requests without a From tag,
/// which cannot be told apart.
pub fn merge_key(hash: &KeyedHash, request: Message<'_>) -> Option<MergeKey> {
    let cseq = request.cseq().ok()?;
    let mut fields = Fields::new(hash, 3);
    fields.push(request.from().ok()?.tag()?);
    fields.push(request.call_id()?);
    fields.push_number(cseq.number);
    fields.push(cseq.method.as_bytes());
    Some(MergeKey(fields.finish()))
}

/// The key that an INVITE shares with an ACK for its 2xx whose sender kept the Request-URI, as one
/// does that heeds neither Contact nor Record-Route. `None` when a field is missing or malformed.
pub fn ack_key(hash: &KeyedHash, request: Message<'_>) -> Option<MergeKey> {
    let mut fields = Fields::new(hash, 4);
    fields.push(request.from().ok()?.tag()?);
    fields.push(request.call_id()?);
    fields.push_number(request.cseq().ok()?.number);
    fields.push(request.uri());
    Some(MergeKey(fields.finish()))
}

/// A hash over fields, each with its length, so that bytes cannot move from one to the next. They
/// are gathered first: one long stretch costs a fraction of many short ones.
struct Fields {
    hasher: <KeyedHash as BuildHasher>::Hasher,
    gathered: [u8; 192],
    len: usize,
}

impl Fields {
    /// `kind` keeps keys of different make-up apart.
    fn new(hash: &KeyedHash, kind: u8) -> Fields {
        let mut gathered = [0; 192];
        gathered[0] = kind;
        Fields { hasher: hash.build_hasher(), gathered, len: 1 }
    }

    fn push(&mut self, field: &[u8]) {
        self.push_number(field.len() as u32);
        self.gather(field);
    }

    fn push_number(&mut self, number: u32) {
        self.gather(&number.to_le_bytes());
    }

    fn gather(&mut self, bytes: &[u8]) {
        if bytes.len() > self.gathered.len() - self.len {
            self.flush();
        }
        match self.gathered[self.len..].get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.hasher.write(bytes),
        }
    }

    fn flush(&mut self) {
        self.hasher.write(&self.gathered[..self.len]);
        self.len = 0;
    }

    fn push_lower(&mut self, field: &[u8]) {
        self.push_number(field.len() as u32);
        let mut lower = [0; 64];
        for chunk in field.chunks(lower.len()) {
            let lower = &mut lower[..chunk.len()];
            lower.copy_from_slice(chunk);
            lower.make_ascii_lowercase();
            self.gather(lower);
        }
    }

    fn push_sent_by(&mut self, host: &[u8], port: Option<u16>) {
        self.push_lower(host);
        // An absent port and an explicit default one differ: a client repeats what it wrote.
        self.push_number(port.map_or(u32::MAX, u32::from));
    }

    fn push_tag(&mut self, address: NameAddr<'_>) {
        self.push(address.tag().unwrap_or_default());
    }

    /// Two outputs of the 64-bit hash over inputs that differ in one byte.
    fn finish(mut self) -> u128 {
        self.flush();
        let low = self.hasher.finish();
        self.hasher.write_u8(0);
        (u128::from(self.hasher.finish()) << 64) | u128::from(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Parsed, parse};

    const INVITE: &str = "INVITE sip:b@example.com SIP/2.0\r\n\
        Via: SIP/2.0/UDP Host.example.com:5070;branch=z9hG4bKabc\r\n\
        From: <sip:a@example.com>;tag=1\r\nTo: <sip:b@example.com>\r\n\
        Call-ID: c1\r\nCSeq: 7 INVITE\r\n\r\n";

    #[test]
    fn with_cookie_branch_sent_by_and_method_count() {
        for (from, to, is_same) in [
            ("", "", true),
            ("branch=z9hG4bKabc", "branch=z9hG4bKabd", false),
            ("Host.example.com", "host.EXAMPLE.com", true),
            ("Host.example.com", "host.example.org", false),
            (":5070", ":5071", false),
            (":5070", "", false),
            ("SIP/2.0/UDP", "SIP/2.0/TCP", true),
            (";branch=", ";rport;received=192.0.2.1;branch=", true),
            ("INVITE", "MESSAGE", false),
            ("tag=1", "tag=2", true),
            ("Call-ID: c1", "Call-ID: c2", true),
            ("CSeq: 7", "CSeq: 8", true),
            ("sip:b@example.com SIP", "sip:c@example.com SIP", true),
        ] {
            assert_eq!(is_same_key(INVITE, from, to), is_same, "{from} -> {to}");
        }
    }

    #[test]
    fn without_cookie_the_fields_of_rfc_2543_count() {
        let old = INVITE.replace("z9hG4bKabc", "1");
        for (from, to, is_same) in [
            ("branch=1", "branch=2", false),
            ("branch=1", "maddr=h", false),
            ("SIP/2.0/UDP", "SIP/2.0/udp", true),
            ("SIP/2.0/UDP", "SIP/2.0/TCP", false),
            ("Host.example.com", "host.EXAMPLE.com", true),
            (":5070", "", false),
            ("tag=1", "tag=2", false),
            (";tag=1", "", false),
            ("Call-ID: c1", "Call-ID: c2", false),
            ("CSeq: 7", "CSeq: 8", false),
            ("sip:b@example.com SIP", "sip:c@example.com SIP", false),
            ("To: <sip:b@example.com>", "To: <sip:b@example.com>;tag=9", true),
            ("INVITE", "ACK", true),
            ("INVITE", "MESSAGE", false),
        ] {
            assert_eq!(is_same_key(&old, from, to), is_same, "{from} -> {to}");
        }
        let message = old.replace("INVITE", "MESSAGE");
        assert!(!is_same_key(&message, "To: <sip:b@example.com>", "To: <sip:b@example.com>;tag=9"));
    }

    #[test]
    fn an_ack_finds_its_invite_and_a_cancel_stands_alone() {
        for sample in [INVITE.to_owned(), INVITE.replace("z9hG4bKabc", "1")] {
            let invite = key(&sample, None);
            assert_eq!(key(&sample.replace("INVITE", "ACK"), None), invite);
            let cancel = sample.replace("INVITE", "CANCEL");
            assert_ne!(key(&cancel, None), invite);
            assert_eq!(key(&cancel, Some(Method::Invite)), invite);
        }
    }

    #[test]
    fn fields_of_any_length_count_whole() {
        for len in [1, 100, 191, 192, 193, 1000] {
            let branch = |last: char| format!("branch=z9hG4bK{}{last}", "x".repeat(len));
            let one = INVITE.replace("branch=z9hG4bKabc", &branch('a'));
            let other = INVITE.replace("branch=z9hG4bKabc", &branch('b'));
            assert_ne!(key(&one, None), key(&other, None), "{len}");
            assert_eq!(key(&one, None), key(&one.replace("tag=1", "tag=2"), None), "{len}");
        }
    }

    #[test]
    fn the_key_of_another_hash_is_another() {
        let mut parsed = Parsed::default();
        parse(INVITE.as_bytes(), &mut parsed).unwrap();
        let request = parsed.view(INVITE.as_bytes());
        let keys = [1, 2]
            .map(|seed| server_key(&KeyedHash::new([seed; 16]), request, Method::Invite).unwrap());
        assert_ne!(keys[0], keys[1]);
        assert_eq!(ServerKey::from_bits(keys[0].to_bits()), keys[0]);
    }

    #[test]
    fn merged_requests_share_from_tag_call_id_and_cseq() {
        let hash = KeyedHash::new([1; 16]);
        let merge = |text: &str| {
            let mut parsed = Parsed::default();
            parse(text.as_bytes(), &mut parsed).unwrap();
            merge_key(&hash, parsed.view(text.as_bytes()))
        };
        let original = merge(INVITE).unwrap();
        for (from, to, is_same) in [
            ("branch=z9hG4bKabc", "branch=z9hG4bKabd", true),
            ("tag=1", "tag=2", false),
            ("Call-ID: c1", "Call-ID: c2", false),
            ("CSeq: 7", "CSeq: 8", false),
            ("INVITE", "MESSAGE", false),
        ] {
            let other = merge(&INVITE.replace(from, to)).unwrap();
            assert_eq!(other == original, is_same, "{from} -> {to}");
        }
        assert_eq!(merge(&INVITE.replace(";tag=1", "")), None);
    }

    #[test]
    fn an_ack_that_keeps_the_request_uri_has_the_key_of_its_invite() {
        let hash = KeyedHash::new([1; 16]);
        let key = |text: &str| {
            let mut parsed = Parsed::default();
            parse(text.as_bytes(), &mut parsed).unwrap();
            ack_key(&hash, parsed.view(text.as_bytes()))
        };
        let original = key(INVITE).unwrap();
        let uri = INVITE.split(' ').nth(1).unwrap();
        for (from, to, is_same) in [
            ("branch=z9hG4bKabc", "branch=z9hG4bKabd", true),
            ("INVITE", "ACK", true),
            (uri, "sip:other@example.net", false),
            ("tag=1", "tag=2", false),
            ("Call-ID: c1", "Call-ID: c2", false),
            ("CSeq: 7", "CSeq: 8", false),
        ] {
            assert_eq!(key(&INVITE.replace(from, to)).unwrap() == original, is_same, "{to}");
        }
        assert_eq!(key(&INVITE.replace(";tag=1", "")), None);
    }

    #[track_caller]
    fn is_same_key(original: &str, from: &str, to: &str) -> bool {
        assert!(original.contains(from));
        key(original, None) == key(&original.replace(from, to), None)
    }

    fn key(text: &str, as_method: Option<Method<'static>>) -> ServerKey {
        let mut parsed = Parsed::default();
        parse(text.as_bytes(), &mut parsed).unwrap();
        let request = parsed.view(text.as_bytes());
        let method = as_method.unwrap_or(request.method());
        server_key(&KeyedHash::new([1; 16]), request, method).unwrap()
    }
}
