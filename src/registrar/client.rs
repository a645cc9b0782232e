//! Who a client is over its connections: the key under which it is found again. Absent on purpose:
//! what is done for a client that was lost (the engine's `seek` and `wait`), and whether somebody is
//! who it says.

use smallvec::SmallVec;

use crate::base::hash::KeyedHash;
use crate::base::id::ClientKey;
use crate::sip::{HeaderName, Message};

use super::contact::Wanted;

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

/// The key that a REGISTER asks to be known by, proved or not: none if it has no Contact or several.
/// `aor` is its canonical address of record. A key finds a binding, and only who proved to be that
/// user has one under it.
pub fn claimed_client(hash: &KeyedHash, aor: &[u8], register: Message<'_>) -> ClientKey {
    let mut values = register.values(HeaderName::Contact);
    let (Some(value), None) = (values.next(), values.next()) else { return ClientKey::NONE };
    let Ok(wanted) = Wanted::parse(value.text) else { return ClientKey::NONE };
    wanted.client(hash, aor)
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
    fn a_register_claims_the_key_that_its_binding_would_get() {
        let hash = KeyedHash::new([3; 16]);
        let (one, two) = ("<sip:x@y.invalid;transport=ws>", "<sip:z@y.invalid>");
        let urn = std::str::from_utf8(URN).unwrap();
        let with_flow = format!("{two};reg-id=1;+sip.instance=\"{urn}\"");
        for (contact, expected) in [
            (one.to_owned(), key(AOR, None, CONTACT)),
            (with_flow, key(AOR, Some((URN, 1)), CONTACT)),
            (format!("{one}, {two}"), ClientKey::NONE),
            ("*".to_owned(), ClientKey::NONE),
            ("<".to_owned(), ClientKey::NONE),
        ] {
            let text = format!(
                "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
                 To: <sip:alice@example.com>\r\nFrom: <sip:alice@example.com>;tag=1\r\n\
                 Call-ID: 1\r\nCSeq: 1 REGISTER\r\nContact: {contact}\r\n\r\n"
            );
            let mut parsed = crate::sip::Parsed::default();
            crate::sip::parse(text.as_bytes(), &mut parsed).unwrap();
            let claimed = claimed_client(&hash, AOR, parsed.view(text.as_bytes()));
            assert_eq!(claimed, expected, "{contact}");
        }
    }

    #[test]
    fn the_upper_half_is_that_of_the_address_of_record() {
        let hash = KeyedHash::new([3; 16]);
        assert_eq!(u64::from(key(AOR, None, CONTACT).of_aor()), hash.of(AOR) >> 32);
    }
}
