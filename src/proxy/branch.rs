//! The branch of our Via: which shard, which client transaction, an unguessable secret, and the
//! loop hash (RFC 3261 §8.1.1.7, §16.6 step 8, §16.3 step 4). A response finds its transaction
//! without any table.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::base::hash::KeyedHash;
use crate::base::id::{SHARDS_MAX, ShardId};
use crate::base::slab::SlabKey;
use crate::sip::{HeaderName, Message, Value, Via};

use super::route::Sender;

const COOKIE: &[u8] = b"z9hG4bK";
const BYTES: usize = 2 + 8 + 8 + 4;
const TEXT: usize = (BYTES * 4).div_ceil(3);

/// What a branch of ours says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BranchId {
    /// The shard where the client transaction lives.
    pub shard: ShardId,
    /// The client transaction there.
    pub client: SlabKey,
    /// Random, kept in the client transaction: who does not know it cannot answer.
    pub secret: u64,
    /// Hash of what the routing decision depends on; equal again means a loop.
    pub loop_hash: u32,
}

impl BranchId {
    /// Appends the value of the branch parameter.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut raw = [0u8; BYTES];
        raw[..2].copy_from_slice(&self.shard.0.to_be_bytes());
        raw[2..10].copy_from_slice(&self.client.to_bits().to_be_bytes());
        raw[10..18].copy_from_slice(&self.secret.to_be_bytes());
        raw[18..].copy_from_slice(&self.loop_hash.to_be_bytes());
        let mut text = [0u8; TEXT];
        let len = URL_SAFE_NO_PAD.encode_slice(raw, &mut text).expect("the buffer fits");
        out.extend_from_slice(COOKIE);
        out.extend_from_slice(&text[..len]);
    }

    /// Reads the value of a branch parameter; `None` when it has not the shape of ours. Whether it
    /// is ours is for the transaction's secret to say.
    pub fn decode(branch: &[u8]) -> Option<BranchId> {
        let text = branch.strip_prefix(COOKIE).filter(|text| text.len() == TEXT)?;
        let mut raw = [0u8; BYTES];
        let len = URL_SAFE_NO_PAD.decode_slice(text, &mut raw).ok()?;
        if len != BYTES {
            return None;
        }
        let shard = u16::from_be_bytes(raw[..2].try_into().expect("two bytes"));
        if shard >= SHARDS_MAX {
            return None;
        }
        Some(BranchId {
            shard: ShardId(shard),
            client: SlabKey::from_bits(u64::from_be_bytes(raw[2..10].try_into().expect("eight"))),
            secret: u64::from_be_bytes(raw[10..18].try_into().expect("eight")),
            loop_hash: u32::from_be_bytes(raw[18..].try_into().expect("four")),
        })
    }
}

/// Hash of the fields that decide where a request goes: To and From with their tags, which no proxy
/// may change (§16.6 step 1), Call-ID, CSeq number, Request-URI, Route, and in which role it was
/// sent, since an upstream's request takes another way (RFC 3261 §16.6 step 8, RFC 5393 §4.2.1). A
/// spiral changes one of them, a loop does not.
pub fn loop_hash(
    hash: &KeyedHash,
    message: Message<'_>,
    sender: Sender,
    scratch: &mut Vec<u8>,
) -> u32 {
    scratch.clear();
    let mut part = |bytes: &[u8]| {
        scratch.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        scratch.extend_from_slice(bytes);
    };
    part(message.uri());
    part(&[u8::from(sender.is_upstream())]);
    for name in [HeaderName::From, HeaderName::To] {
        part(message.header(name).map(|header| header.value).unwrap_or_default());
    }
    part(message.call_id().unwrap_or_default());
    part(&message.cseq().map_or(0, |cseq| cseq.number).to_be_bytes());
    for route in message.values(HeaderName::Route) {
        part(route.text);
    }
    (hash.of(scratch) >> 32) as u32
}

/// Whether this request has passed here before with everything that decides its way unchanged
/// (RFC 3261 §16.3 step 4, RFC 5393 §4.2). Values without room for a branch of ours are not parsed.
pub fn has_looped(message: Message<'_>, loop_hash: u32) -> bool {
    let is_same = |branch: &[u8]| {
        BranchId::decode(branch).is_some_and(|branch| branch.loop_hash == loop_hash)
    };
    let may_be_ours = |value: &Value<'_>| {
        memchr::memmem::find(value.text, COOKIE)
            .is_some_and(|at| at + COOKIE.len() + TEXT <= value.text.len())
    };
    message.top_branch().is_some_and(is_same)
        || message.has_many(HeaderName::Via)
            && message
                .values(HeaderName::Via)
                .skip(1)
                .filter(may_be_ours)
                .filter_map(|value| Via::parse(value.text).ok()?.branch)
                .any(is_same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_comes_back_as_it_was_written() {
        let branch = BranchId {
            shard: ShardId(513),
            client: SlabKey::from_bits(0x0123_4567_89ab_cdef),
            secret: u64::MAX - 5,
            loop_hash: 0xdead_beef,
        };
        let mut text = Vec::new();
        branch.encode(&mut text);
        assert!(text.starts_with(COOKIE));
        assert_eq!(BranchId::decode(&text), Some(branch));
        for len in 0..text.len() {
            assert_eq!(BranchId::decode(&text[..len]), None);
        }
    }

    #[test]
    fn foreign_branches_are_not_ours() {
        for branch in ["z9hG4bK776asdhds", "1", "", "z9hG4bK-524287-1---0123456789abcdefghi"] {
            assert_eq!(BranchId::decode(branch.as_bytes()), None, "{branch}");
        }
    }

    #[test]
    fn the_loop_hash_changes_with_all_that_decides_the_way_and_with_nothing_else() {
        const TEXT: &str = "MESSAGE sip:a@b;x=1 SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\
            Max-Forwards: 70\r\nRoute: <sip:r;lr>\r\nFrom: <sip:f@b>;tag=f1\r\n\
            To: <sip:t@b>;tag=t1\r\nCall-ID: c1\r\nCSeq: 7 MESSAGE\r\n\r\n";
        let hash = |text: &str, sender| {
            let mut parsed = crate::sip::Parsed::default();
            crate::sip::parse(text.as_bytes(), &mut parsed).unwrap();
            let key = KeyedHash::new([1; 16]);
            loop_hash(&key, parsed.view(text.as_bytes()), sender, &mut Vec::new())
        };
        let original = hash(TEXT, Sender::Stranger);
        assert_ne!(hash(TEXT, Sender::Upstream(0)), original);
        for (from, to, is_same) in [
            ("x=1", "x=2", false),
            ("sip:r", "sip:s", false),
            ("Route: <sip:r;lr>\r\n", "", false),
            ("tag=f1", "tag=f2", false),
            ("tag=t1", "tag=t2", false),
            ("c1", "c2", false),
            ("CSeq: 7", "CSeq: 8", false),
            ("MESSAGE", "INVITE", true),
            ("z9hG4bK1", "z9hG4bK2", true),
            ("70", "69", true),
        ] {
            assert!(TEXT.contains(from));
            let other = hash(&TEXT.replace(from, to), Sender::Stranger);
            assert_eq!(other == original, is_same, "{from} -> {to}");
        }
    }
}
