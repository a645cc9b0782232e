//! Which shard serves a request. Computed before any routing rule, from fields that
//! retransmissions, CANCEL and ACK repeat (RFC 3261 §9.1, §17.1.1.3), so that they find their
//! transaction wherever they arrive.

use crate::base::config::Config;
use crate::base::hash::KeyedHash;
use crate::base::id::ShardId;
use crate::registrar::GruuKey;
use crate::sip::{Message, Method, Uri};

use super::naming;

/// The shard that owns an address of record (canonical bytes) among `shards`.
pub fn owner_of(hash: &KeyedHash, aor: &[u8], shards: u16) -> ShardId {
    shard_of(hash.of(aor), shards)
}

/// The same from the hash of the address of record.
pub fn shard_of(aor: u64, shards: u16) -> ShardId {
    ShardId((aor % u64::from(shards)) as u16)
}

/// The shard that a request is handed to. A Request-URI of ours: the owner of that address of
/// record. REGISTER: the owner of its To. All else: by Call-ID, which spreads one busy peer over
/// all shards and keeps every message of a call on one.
pub fn home(
    config: &Config,
    hash: &KeyedHash,
    message: Message<'_>,
    gruus: &GruuKey,
    shards: u16,
    scratch: &mut Vec<u8>,
) -> ShardId {
    if shards == 1 {
        return ShardId(0);
    }
    scratch.clear();
    if message.method() == Method::Register {
        if let Ok(to) = message.to()
            && let Ok(uri) = Uri::parse(to.uri)
        {
            uri.aor_into(scratch);
            return owner_of(hash, scratch, shards);
        }
    } else if let Ok(uri) = Uri::parse(message.uri())
        && uri.user.is_some()
        && naming::is_our_uri(config, &uri)
    {
        gruus.aor_into(&uri, scratch);
        return owner_of(hash, scratch, shards);
    }
    owner_of(hash, message.call_id().unwrap_or_default(), shards)
}

/// The shard that knows who is at the host and port of a foreign URI: the contact index and the
/// directory of accepted flows live there.
pub fn index_shard(hash: &KeyedHash, uri: &Uri<'_>, shards: u16, scratch: &mut Vec<u8>) -> ShardId {
    scratch.clear();
    index_key(uri, scratch);
    owner_of(hash, scratch, shards)
}

/// Appends what [`index_shard`] hashes: host in lower case and port, as `host:port`. Without a port
/// 5060, whatever the scheme: a Contact is indexed without it.
pub fn index_key(uri: &Uri<'_>, out: &mut Vec<u8>) {
    out.extend(uri.host.iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    naming::write_number(u64::from(uri.port.unwrap_or(5060)), out);
}
