//! Who a client is over its connections: the key under which it is found again. Absent on purpose:
//! what is done for a client that was lost (the engine's `seek` and `wait`).

use smallvec::SmallVec;

use crate::base::hash::KeyedHash;
use crate::base::id::ClientKey;

/// The key of the client that has proved to be the user of the canonical address of record `aor`
/// (nobody else may register it), by its instance and reg-id (RFC 5626 §4.2), or without a reg-id
/// by its Contact URI as it wrote it. `hash` is keyed by the installation's secret: who does not
/// know that can make no two clients meet.
pub fn client_key(
    hash: &KeyedHash,
    aor: &[u8],
    flow: Option<(&[u8], u32)>,
    contact: &[u8],
) -> ClientKey {
    let mut own: SmallVec<[u8; 256]> = SmallVec::new();
    let (name, number) = flow.unwrap_or((contact, 0));
    own.extend_from_slice(&number.to_be_bytes());
    own.extend_from_slice(&(aor.len() as u64).to_be_bytes());
    own.extend_from_slice(aor);
    match flow {
        // A UUID is one in any case (RFC 4122 §3); of other instances it is no fault to differ.
        Some(_) => own.extend(name.iter().map(u8::to_ascii_lowercase)),
        None => own.extend_from_slice(name),
    }
    ClientKey::new(hash.of(aor), hash.of(&own))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AOR: &[u8] = b"alice@example.com";
    const URN: &[u8] = b"<urn:uuid:0C67446E-F1A1-11D9-94D3-000A95A0E128>";
    const CONTACT: &[u8] = b"sip:x@y.invalid;transport=ws";

    fn key(aor: &[u8], flow: Option<(&[u8], u32)>, contact: &[u8]) -> ClientKey {
        client_key(&KeyedHash::new([3; 16]), aor, flow, contact)
    }

    #[test]
    fn every_part_of_a_client_tells_it_from_others() {
        let all = [
            key(AOR, Some((URN, 1)), CONTACT),
            key(AOR, Some((URN, 2)), CONTACT),
            key(AOR, Some((b"<urn:uuid:1>", 1)), CONTACT),
            key(b"bob@example.com", Some((URN, 1)), CONTACT),
            key(AOR, None, CONTACT),
            key(AOR, None, b"sip:z@y.invalid;transport=ws"),
            key(b"bob@example.com", None, CONTACT),
            key(b"alice@example.co", None, b"msip:x@y.invalid;transport=ws"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(one.is_some() && all[at + 1..].iter().all(|other| other != one), "{at}");
        }
        let other = client_key(&KeyedHash::new([4; 16]), AOR, None, CONTACT);
        assert_ne!(other, key(AOR, None, CONTACT));
    }

    #[test]
    fn a_new_contact_of_the_same_instance_is_the_same_client() {
        let lower = URN.to_ascii_lowercase();
        assert_eq!(key(AOR, Some((URN, 1)), CONTACT), key(AOR, Some((&lower, 1)), b"sip:new@z"));
    }

    #[test]
    fn the_upper_half_is_that_of_the_address_of_record() {
        let hash = KeyedHash::new([3; 16]);
        assert_eq!(u64::from(key(AOR, None, CONTACT).of_aor()), hash.of(AOR) >> 32);
    }
}
