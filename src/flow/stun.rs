//! The one STUN request that a SIP port answers: a binding request as keep-alive (RFC 5626 §4.4.2,
//! §8; RFC 8489). It is the basic server of RFC 8489 §12: it asks for no credentials and checks none.
//! Absent on purpose: how many a source may have answered (`allowance`), and clients of RFC 3489,
//! which send no magic cookie.

use std::net::{IpAddr, SocketAddr};

use smallvec::SmallVec;

use crate::base::limits::STUN_UNKNOWN_MAX;

const HEADER: usize = 20;
/// Message types (RFC 8489 §5): a class and the method Binding.
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_INDICATION: u16 = 0x0011;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

const MAPPED_ADDRESS: u16 = 0x0001;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
const PASSWORD_ALGORITHM: u16 = 0x001d;
const USERHASH: u16 = 0x001e;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const FINGERPRINT: u16 = 0x8028;

/// Attributes of RFC 8489 that must be understood: known, and of no meaning to who checks no
/// credentials (§6.3: what is known and not expected is ignored).
const KNOWN: [u16; 11] = [
    MAPPED_ADDRESS,
    USERNAME,
    MESSAGE_INTEGRITY,
    ERROR_CODE,
    UNKNOWN_ATTRIBUTES,
    REALM,
    NONCE,
    MESSAGE_INTEGRITY_SHA256,
    PASSWORD_ALGORITHM,
    USERHASH,
    XOR_MAPPED_ADDRESS,
];
/// The first attribute that may be ignored by who does not know it (RFC 8489 §14).
const OPTIONAL: u16 = 0x8000;
/// What a CRC is masked with (RFC 8489 §14.7).
const FINGERPRINT_MASK: u32 = 0x5354_554e;

/// Whether a datagram is STUN (RFC 8489 §5): two zero bits, and the magic cookie. No SIP message is.
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER && datagram[0] < 4 && datagram[4..8] == COOKIE
}

/// What a client sends to a SIP port.
#[derive(Debug, PartialEq, Eq)]
pub enum Stun<'a> {
    /// It wants an answer.
    Request(BindingRequest<'a>),
    /// It keeps its way open and wants none.
    Indication,
}

/// A binding request.
#[derive(Debug, PartialEq, Eq)]
pub struct BindingRequest<'a> {
    /// Magic cookie and transaction ID.
    transaction: &'a [u8],
    /// Attributes that must be understood and are not, the first of them.
    unknown: SmallVec<[u16; STUN_UNKNOWN_MAX]>,
    /// It has a fingerprint, and wants one.
    has_fingerprint: bool,
}

impl<'a> Stun<'a> {
    /// Reads a datagram. `None`, which means silence (RFC 8489 §6.3): not well-formed, another
    /// method, a response, or a fingerprint that is not that of the message.
    pub fn read(message: &'a [u8]) -> Option<Stun<'a>> {
        let is_whole = is_stun(message)
            && message.len().is_multiple_of(4)
            && usize::from(number(&message[2..4])) == message.len() - HEADER;
        if !is_whole {
            return None;
        }
        let (unknown, has_fingerprint) = read_attributes(message)?;
        match number(message) {
            BINDING_INDICATION => Some(Stun::Indication),
            BINDING_REQUEST => {
                let transaction = &message[4..HEADER];
                let request = BindingRequest { transaction, unknown, has_fingerprint };
                Some(Stun::Request(request))
            }
            _ => None,
        }
    }
}

/// Unknown attributes and whether there is a fingerprint; `None` when they are not well-formed. What
/// follows a message integrity is not protected by it and is ignored, but for a fingerprint (RFC
/// 8489 §14.5), which is the last.
fn read_attributes(message: &[u8]) -> Option<(SmallVec<[u16; STUN_UNKNOWN_MAX]>, bool)> {
    let mut unknown = SmallVec::new();
    let (mut at, mut is_protected) = (HEADER, false);
    while let Some(head) = message.get(at..at + 4) {
        let (kind, length) = (number(head), usize::from(number(&head[2..])));
        let value = message.get(at + 4..at + 4 + length)?;
        let next = at + 4 + length.next_multiple_of(4);
        if kind == FINGERPRINT {
            let is_right = next == message.len() && value == fingerprint(&message[..at]);
            return is_right.then_some((unknown, true));
        }
        let is_foreign = kind < OPTIONAL && !KNOWN.contains(&kind) && !is_protected;
        if is_foreign && unknown.len() < STUN_UNKNOWN_MAX && !unknown.contains(&kind) {
            unknown.push(kind);
        }
        is_protected |= matches!(kind, MESSAGE_INTEGRITY | MESSAGE_INTEGRITY_SHA256);
        at = next;
    }
    (at == message.len()).then_some((unknown, false))
}

impl BindingRequest<'_> {
    /// Appends the answer: what the source's address looks like from here, or 420 (Unknown
    /// Attribute) with those that are not understood. A 420 has no reason phrase: an answer should
    /// not be much larger than what anybody may have asked in another's name.
    pub fn write_answer(&self, source: SocketAddr, out: &mut Vec<u8>) {
        let start = out.len();
        let is_understood = self.unknown.is_empty();
        let kind = if is_understood { BINDING_SUCCESS } else { BINDING_ERROR };
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(self.transaction);
        if is_understood {
            self.write_address(source, out);
        } else {
            write_head(ERROR_CODE, 4, out);
            out.extend_from_slice(&[0, 0, 4, 20]);
            write_head(UNKNOWN_ATTRIBUTES, 2 * self.unknown.len(), out);
            out.extend(self.unknown.iter().flat_map(|kind| kind.to_be_bytes()));
            out.resize(start + (out.len() - start).next_multiple_of(4), 0);
        }
        let fingerprint_len = if self.has_fingerprint { 8 } else { 0 };
        let length = (out.len() - start - HEADER + fingerprint_len) as u16;
        out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
        if self.has_fingerprint {
            let value = fingerprint(&out[start..]);
            write_head(FINGERPRINT, value.len(), out);
            out.extend_from_slice(&value);
        }
    }

    /// XOR-MAPPED-ADDRESS (RFC 8489 §14.2): port and address are masked with the cookie and the
    /// transaction ID, which follow each other.
    fn write_address(&self, source: SocketAddr, out: &mut Vec<u8>) {
        let mut octets = [0; 16];
        let (family, address) = match source.ip() {
            IpAddr::V4(ip) => {
                octets[..4].copy_from_slice(&ip.octets());
                (1, &octets[..4])
            }
            IpAddr::V6(ip) => {
                octets.copy_from_slice(&ip.octets());
                (2, &octets[..])
            }
        };
        let mask = self.transaction;
        let port = source.port().to_be_bytes();
        write_head(XOR_MAPPED_ADDRESS, 4 + address.len(), out);
        out.extend_from_slice(&[0, family, port[0] ^ mask[0], port[1] ^ mask[1]]);
        out.extend(address.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    }
}

fn write_head(kind: u16, length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(length as u16).to_be_bytes());
}

/// The value of the fingerprint that follows `message`, whose length counts it already.
fn fingerprint(message: &[u8]) -> [u8; 4] {
    (crc32fast::hash(message) ^ FINGERPRINT_MASK).to_be_bytes()
}

fn number(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 §2.1: a request of ICE, with SOFTWARE, PRIORITY, ICE-CONTROLLED, USERNAME,
    /// MESSAGE-INTEGRITY and FINGERPRINT.
    const SAMPLE_REQUEST: &str = "\
        000100582112a442b7e7a701bc34d686fa87dfae8022001053 54554e207465737420636c69656e74\
        002400046e0001ff80290008932ff9b151263b360006000965 76746a3a68367659202020\
        000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2 80280004e57a3bcf";
    /// RFC 5769 §2.2 and §2.3: the answers, with SOFTWARE, XOR-MAPPED-ADDRESS, MESSAGE-INTEGRITY and
    /// FINGERPRINT.
    const SAMPLE_V4: &str = "\
        0101003c2112a442b7e7a701bc34d686fa87dfae8022000b74 65737420766563746f7220\
        002000080001a147e112a643000800142b91f599fd9e90c38c 7489f92af9ba53f06be7d7\
        80280004c07d4c96";
    const SAMPLE_V6: &str = "\
        010100482112a442b7e7a701bc34d686fa87dfae8022000b74 65737420766563746f7220\
        002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9 00080014a382954e4be67bf11784c97c\
        8292c275bfe3ed4180280004c8fb0b4c";
    const V4: &str = "192.0.2.1:32853";
    const V6: &str = "[2001:db8:1234:5678:11:2233:4455:6677]:32853";

    fn bytes(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let digit = |at: &u8| char::from(*at).to_digit(16).expect("a digit") as u8;
        digits.chunks(2).map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect()
    }

    /// A request with these attributes and the transaction ID of the samples.
    fn request(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut request = bytes(SAMPLE_REQUEST)[..HEADER].to_vec();
        for (kind, value) in attributes {
            write_head(*kind, value.len(), &mut request);
            request.extend_from_slice(value);
            request.resize(request.len().next_multiple_of(4), 0x20);
        }
        let length = (request.len() - HEADER) as u16;
        request[2..4].copy_from_slice(&length.to_be_bytes());
        request
    }

    fn with_fingerprint(mut request: Vec<u8>) -> Vec<u8> {
        let length = (request.len() - HEADER + 8) as u16;
        request[2..4].copy_from_slice(&length.to_be_bytes());
        let value = fingerprint(&request);
        write_head(FINGERPRINT, 4, &mut request);
        request.extend_from_slice(&value);
        request
    }

    fn answer(request: &[u8], source: &str) -> Option<Vec<u8>> {
        let Some(Stun::Request(request)) = Stun::read(request) else { return None };
        let mut out = b"before".to_vec();
        request.write_answer(source.parse().expect("an address"), &mut out);
        Some(out.split_off(6))
    }

    /// The attribute of that kind, its head included.
    fn attribute(message: &[u8], kind: u16) -> Option<Vec<u8>> {
        let mut at = HEADER;
        while at < message.len() {
            let next = at + 4 + usize::from(number(&message[at + 2..]));
            if number(&message[at..]) == kind {
                return Some(message[at..next].to_vec());
            }
            at = next.next_multiple_of(4);
        }
        None
    }

    #[test]
    fn the_reflexive_address_is_that_of_the_rfc_vectors() {
        for (source, sample) in [(V4, SAMPLE_V4), (V6, SAMPLE_V6)] {
            let sample = bytes(sample);
            let answer = answer(&request(&[]), source).expect("an answer");
            assert_eq!(answer[..2], sample[..2]);
            assert_eq!(answer[4..HEADER], sample[4..HEADER]);
            assert_eq!(answer[HEADER..], attribute(&sample, XOR_MAPPED_ADDRESS).expect("it has"));
            assert_eq!(usize::from(number(&answer[2..])), answer.len() - HEADER);
        }
    }

    #[test]
    fn fingerprints_are_those_of_the_rfc_vectors() {
        for sample in [SAMPLE_REQUEST, SAMPLE_V4, SAMPLE_V6] {
            let sample = bytes(sample);
            let (message, expected) = sample.split_at(sample.len() - 8);
            assert_eq!(fingerprint(message), expected[4..]);
        }
        for source in [V4, V6] {
            let plain = answer(&request(&[]), source).expect("an answer");
            let answer = answer(&with_fingerprint(request(&[])), source).expect("an answer");
            assert_eq!(answer[HEADER..answer.len() - 8], plain[HEADER..]);
            let value = attribute(&answer, FINGERPRINT).expect("one, when asked with one");
            assert_eq!(value[4..], fingerprint(&answer[..answer.len() - 8]));
            assert_eq!(usize::from(number(&answer[2..])), answer.len() - HEADER);
        }
    }

    /// PRIORITY (RFC 8445) must be understood; SOFTWARE and ICE-CONTROLLED need not be.
    #[test]
    fn what_must_be_understood_and_is_not_gets_420() {
        let answer = answer(&bytes(SAMPLE_REQUEST), V4).expect("an answer");
        assert_eq!(number(&answer), BINDING_ERROR);
        assert_eq!(answer[4..HEADER], bytes(SAMPLE_REQUEST)[4..HEADER]);
        assert_eq!(attribute(&answer, ERROR_CODE).expect("a code"), [0, 9, 0, 4, 0, 0, 4, 20]);
        let unknown = attribute(&answer, UNKNOWN_ATTRIBUTES).expect("a list");
        assert_eq!(unknown, [0, 0x0a, 0, 2, 0, 0x24]);
        assert_eq!(attribute(&answer, XOR_MAPPED_ADDRESS), None);
        let value = attribute(&answer, FINGERPRINT).expect("one");
        assert_eq!(value[4..], fingerprint(&answer[..answer.len() - 8]));
        assert_eq!(usize::from(number(&answer[2..])), answer.len() - HEADER);
    }

    #[test]
    fn what_is_known_or_optional_or_unprotected_is_ignored() {
        for attributes in [
            &[(USERNAME, &b"evtj:h6vY"[..]), (REALM, b"x"), (NONCE, b"yy")][..],
            &[(MAPPED_ADDRESS, &[0, 1, 0, 0, 1, 2, 3, 4][..])],
            &[(0x8022, &b"a client"[..]), (0xc057, b"abc")],
            &[(MESSAGE_INTEGRITY, &[0; 20][..]), (0x0024, &[0; 4])],
        ] {
            let answer = answer(&request(attributes), V4).expect("an answer");
            assert_eq!(number(&answer), BINDING_SUCCESS, "{attributes:x?}");
        }
    }

    #[test]
    fn the_list_of_unknown_attributes_has_a_bound() {
        let values: Vec<(u16, &[u8])> = (0x3000..0x3100).map(|kind| (kind, &b""[..])).collect();
        let unknown = |attributes: &[(u16, &[u8])]| {
            let answer = answer(&request(attributes), V4).expect("an answer");
            attribute(&answer, UNKNOWN_ATTRIBUTES).expect("a list")
        };
        let list = unknown(&values);
        assert_eq!(list.len(), 4 + 2 * STUN_UNKNOWN_MAX);
        assert_eq!(list[4..8], [0x30, 0, 0x30, 1]);
        assert_eq!(unknown(&[(0x3000, b""), (0x3000, b"")])[4..], [0x30, 0], "each once");
    }

    #[test]
    fn an_indication_keeps_the_way_open_and_is_not_answered() {
        let mut indication = request(&[]);
        indication[1] = 0x11;
        assert_eq!(Stun::read(&indication), Some(Stun::Indication));
    }

    #[test]
    fn anything_else_is_not_answered() {
        let whole = with_fingerprint(request(&[(USERNAME, b"user")]));
        assert!(matches!(Stun::read(&whole), Some(Stun::Request(_))));
        for len in 0..whole.len() {
            assert_eq!(Stun::read(&whole[..len]), None, "{len}");
        }
        // Every bit counts: those of the header, or they break the fingerprint. Without its name
        // it is none.
        let name = whole.len() - 8..whole.len() - 6;
        for at in (0..whole.len()).filter(|at| !name.contains(at)) {
            let mut wrong = whole.clone();
            wrong[at] ^= 0x80;
            assert_eq!(Stun::read(&wrong), None, "{at}");
        }
        // A response, another method, a length that is not a multiple of four, or too long a value.
        let plain = request(&[(USERNAME, b"user")]);
        for (at, value) in [(0, 1), (1, 3), (3, 7), (HEADER + 3, 5)] {
            let mut wrong = plain.clone();
            wrong[at] = value;
            assert_eq!(Stun::read(&wrong), None, "{at}");
        }
        // A fingerprint is the last attribute.
        let mut early = whole.clone();
        early.extend_from_slice(&[0x80, 0x22, 0, 0]);
        early[3] += 4;
        assert_eq!(Stun::read(&early), None);
    }
}
