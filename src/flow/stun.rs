//! The one STUN request that a SIP port answers: a binding request as keep-alive (RFC 5626 §4.4.2,
//! §8; RFC 8489).

use std::net::{IpAddr, SocketAddr};

const HEADER: usize = 20;
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const XOR_MAPPED_ADDRESS: [u8; 2] = [0x00, 0x20];
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Appends the success response that tells `source` its reflexive address. False, and nothing is
/// written, for anything but a well-formed binding request.
pub fn answer(request: &[u8], source: SocketAddr, out: &mut Vec<u8>) -> bool {
    if request.len() < HEADER
        || request[..2] != BINDING_REQUEST
        || request[4..8] != COOKIE
        || usize::from(u16::from_be_bytes([request[2], request[3]])) != request.len() - HEADER
        || !request.len().is_multiple_of(4)
    {
        return false;
    }
    // RFC 8489 §14.2: port and address are XORed with the cookie and the transaction ID, which
    // follow each other.
    let mask = &request[4..HEADER];
    let mut address = [0u8; 16];
    let (family, len) = match source.ip() {
        IpAddr::V4(ip) => {
            address[..4].copy_from_slice(&ip.octets());
            (1, 4)
        }
        IpAddr::V6(ip) => {
            address.copy_from_slice(&ip.octets());
            (2, 16)
        }
    };
    let value_len = 4 + len;
    out.extend_from_slice(&BINDING_SUCCESS);
    out.extend_from_slice(&(4 + value_len as u16).to_be_bytes());
    out.extend_from_slice(mask);
    out.extend_from_slice(&XOR_MAPPED_ADDRESS);
    out.extend_from_slice(&(value_len as u16).to_be_bytes());
    out.extend_from_slice(&[0, family]);
    let port = source.port().to_be_bytes();
    out.extend_from_slice(&[port[0] ^ mask[0], port[1] ^ mask[1]]);
    out.extend(address[..len].iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Vec<u8> {
        let mut request = vec![0, 1, 0, 0];
        request.extend_from_slice(&COOKIE);
        request.extend_from_slice(&[
            0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae,
        ]);
        request
    }

    /// The mapped addresses of RFC 5769 §2.2 and §2.3, whose requests have the same transaction ID.
    #[test]
    fn the_reflexive_address_is_that_of_the_rfc_vectors() {
        let mut out = Vec::new();
        assert!(answer(&request(), "192.0.2.1:32853".parse().expect("v4"), &mut out));
        assert_eq!(out[HEADER..], [0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        out.clear();
        let v6 = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().expect("v6");
        assert!(answer(&request(), v6, &mut out));
        let mapped = [
            0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2,
            0xb9, 0xd9,
        ];
        assert_eq!(out[HEADER + 8..], mapped);
    }

    #[test]
    fn anything_else_is_not_answered() {
        let source = "192.0.2.1:1".parse().expect("an address");
        let whole = request();
        for len in 0..whole.len() {
            assert!(!answer(&whole[..len], source, &mut Vec::new()));
        }
        for at in [0, 1, 3, 4, 7] {
            let mut wrong = whole.clone();
            wrong[at] ^= 1;
            assert!(!answer(&wrong, source, &mut Vec::new()), "{at}");
        }
        // Attributes are padded to four bytes (RFC 8489 §5).
        let mut odd = whole;
        odd[3] = 3;
        odd.extend_from_slice(b"abc");
        assert!(!answer(&odd, source, &mut Vec::new()));
    }
}
