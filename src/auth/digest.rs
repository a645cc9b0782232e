//! The digest that a client must have computed (RFC 7616 §3.4, RFC 8760 §2). Absent on purpose:
//! digests without qop (RFC 2069): nothing would count how often a nonce was used.
//!
//! The functions are those of RustCrypto: aws-lc-rs has no MD5, and allocates for each of its
//! contexts, which costs more than hashing texts this short.

use md5::Md5;
use md5::digest::Digest;
use sha2::{Sha256, Sha512_256};

use crate::base::users::{Algorithm, HashFunction};

/// A hash: 16 bytes of MD5, 32 of the others.
#[derive(Clone, Copy)]
pub struct Hash {
    bytes: [u8; 32],
    len: usize,
}

impl Hash {
    /// The hash of the parts with a colon between them, as digests have it everywhere.
    pub fn of(function: HashFunction, parts: &[&[u8]]) -> Hash {
        match function {
            HashFunction::Md5 => run::<Md5>(parts),
            HashFunction::Sha256 => run::<Sha256>(parts),
            HashFunction::Sha512_256 => run::<Sha512_256>(parts),
        }
    }

    /// One that was kept.
    pub fn from_bytes(function: HashFunction, bytes: [u8; 32]) -> Hash {
        Hash { bytes, len: len_of(function) }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Its bytes, zeros behind those of MD5.
    pub fn padded(&self) -> [u8; 32] {
        self.bytes
    }

    fn hex(&self) -> Hex {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = Hex { text: [0; 64], len: 2 * self.len };
        for (pair, byte) in hex.text.chunks_exact_mut(2).zip(self.as_bytes()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        hex
    }
}

struct Hex {
    text: [u8; 64],
    len: usize,
}

impl Hex {
    fn text(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// Bytes of a function's hashes.
pub fn len_of(function: HashFunction) -> usize {
    if function == HashFunction::Md5 { 16 } else { 32 }
}

/// What is longer is hashed part by part: texts of a usual digest fit.
const GATHERED: usize = 256;

fn run<D: Digest>(parts: &[&[u8]]) -> Hash {
    let mut gathered = [0; GATHERED];
    let len = parts.iter().map(|part| part.len() + 1).sum::<usize>();
    let done = match gathered.get_mut(..len) {
        Some(text) => {
            let mut rest = &mut text[..];
            for part in parts {
                let (place, after) = rest.split_at_mut(part.len());
                place.copy_from_slice(part);
                after[0] = b':';
                rest = &mut after[1..];
            }
            D::digest(&text[..len.saturating_sub(1)])
        }
        None => {
            let mut state = D::new();
            for (at, part) in parts.iter().enumerate() {
                if at > 0 {
                    state.update(b":");
                }
                state.update(part);
            }
            state.finalize()
        }
    };
    let mut bytes = [0; 32];
    bytes[..done.len()].copy_from_slice(&done);
    Hash { bytes, len: done.len() }
}

/// Reads a hash in hexadecimal, of exactly that function's length, in either case.
pub fn read_hex(function: HashFunction, text: &[u8]) -> Option<Hash> {
    let len = len_of(function);
    if text.len() != 2 * len {
        return None;
    }
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(Hash { bytes, len })
}

/// What the digest covers (RFC 7616 §3.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qop<'a> {
    /// Method and URI.
    Auth,
    /// The body, too.
    AuthInt(&'a [u8]),
}

impl Qop<'_> {
    /// As it stands in headers.
    pub fn name(&self) -> &'static str {
        match self {
            Qop::Auth => "auth",
            Qop::AuthInt(_) => "auth-int",
        }
    }
}

/// What goes into a response besides the password.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The request's method.
    pub method: &'a [u8],
    /// `uri`, as the client wrote it.
    pub uri: &'a [u8],
    /// The server's nonce.
    pub nonce: &'a [u8],
    /// Eight hexadecimal digits.
    pub nc: &'a [u8],
    /// The client's nonce.
    pub cnonce: &'a [u8],
    /// What is covered.
    pub qop: Qop<'a>,
}

/// The response that who knows HA1 computes (RFC 7616 §3.4.1).
pub fn response(algorithm: Algorithm, ha1: Hash, exchange: &Exchange<'_>) -> Hash {
    let function = algorithm.function;
    let Exchange { method, uri, nonce, nc, cnonce, qop } = *exchange;
    let key = if algorithm.session {
        Hash::of(function, &[ha1.hex().text(), nonce, cnonce])
    } else {
        ha1
    };
    let covered = match qop {
        Qop::Auth => Hash::of(function, &[method, uri]),
        Qop::AuthInt(body) => {
            Hash::of(function, &[method, uri, Hash::of(function, &[body]).hex().text()])
        }
    };
    let (key, covered) = (key.hex(), covered.hex());
    let name = qop.name().as_bytes();
    Hash::of(function, &[key.text(), nonce, nc, cnonce, name, covered.text()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn algorithm(name: &str) -> Algorithm {
        Algorithm::of_name(name.as_bytes()).expect("a name")
    }

    fn ha1(algorithm: Algorithm, user: &str, realm: &str, password: &str) -> Hash {
        Hash::of(algorithm.function, &[user.as_bytes(), realm.as_bytes(), password.as_bytes()])
    }

    fn hex(hash: Hash) -> String {
        String::from_utf8(hash.hex().text().to_vec()).unwrap()
    }

    #[test]
    fn a_hash_is_of_the_text_however_long_it_is() {
        for len in [0, 1, GATHERED - 3, GATHERED - 2, GATHERED - 1, 1000] {
            let part = vec![b'x'; len];
            let whole = [&part[..], b":y"].concat();
            for function in [HashFunction::Md5, HashFunction::Sha256, HashFunction::Sha512_256] {
                let (parts, whole) =
                    (Hash::of(function, &[&part, b"y"]), Hash::of(function, &[&whole]));
                assert_eq!(parts.as_bytes(), whole.as_bytes(), "{len}");
            }
        }
    }

    /// RFC 7616 §3.9.1.
    #[test]
    fn the_examples_of_rfc_7616() {
        let exchange = Exchange {
            method: b"GET",
            uri: b"/dir/index.html",
            nonce: b"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            nc: b"00000001",
            cnonce: b"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
            qop: Qop::Auth,
        };
        for (name, expected) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let algorithm = algorithm(name);
            let ha1 = ha1(algorithm, "Mufasa", "http-auth@example.org", "Circle of Life");
            assert_eq!(hex(response(algorithm, ha1, &exchange)), expected, "{name}");
        }
    }

    /// RFC 7616 §3.9.2, with the response of erratum 4897: the text's own is SHA-512 cut to 256
    /// bits, which is another function.
    #[test]
    fn the_example_of_rfc_7616_with_sha_512_256() {
        let exchange = Exchange {
            method: b"GET",
            uri: b"/doe.json",
            nonce: b"5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
            nc: b"00000001",
            cnonce: b"NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v",
            qop: Qop::Auth,
        };
        let algorithm = algorithm("SHA-512-256");
        let ha1 = ha1(algorithm, "J\u{e4}s\u{f8}n Doe", "api@example.org", "Secret, or not?");
        assert_eq!(
            hex(response(algorithm, ha1, &exchange)),
            "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"
        );
    }

    /// RFC 2617 §3.5.
    #[test]
    fn the_example_of_rfc_2617() {
        let exchange = Exchange {
            method: b"GET",
            uri: b"/dir/index.html",
            nonce: b"dcd98b7102dd2f0e8b11d0f600bfb0c093",
            nc: b"00000001",
            cnonce: b"0a4f113b",
            qop: Qop::Auth,
        };
        let algorithm = algorithm("MD5");
        let ha1 = ha1(algorithm, "Mufasa", "testrealm@host.com", "Circle Of Life");
        assert_eq!(hex(ha1), "939e7578ed9e3c518a452acee763bce9");
        assert_eq!(hex(response(algorithm, ha1, &exchange)), "6629fae49393a05397450978507c4ef1");
    }

    /// The definitions of RFC 7616 §3.4.2 and §3.4.3, written out by hand.
    #[test]
    fn sessions_and_bodies_go_into_the_digest() {
        let exchange = Exchange {
            method: b"MESSAGE",
            uri: b"sip:b@example.com",
            nonce: b"n",
            nc: b"0000000a",
            cnonce: b"c",
            qop: Qop::AuthInt(b"hello"),
        };
        for name in ["MD5-sess", "SHA-256-sess", "SHA-512-256-sess"] {
            let algorithm = algorithm(name);
            let of = |text: &str| hex(Hash::of(algorithm.function, &[text.as_bytes()]));
            let key = of(&format!("{}:n:c", of("a:r:p")));
            let covered = of(&format!("MESSAGE:sip:b@example.com:{}", of("hello")));
            let expected = of(&format!("{key}:n:0000000a:c:auth-int:{covered}"));
            let found = response(algorithm, ha1(algorithm, "a", "r", "p"), &exchange);
            assert_eq!(hex(found), expected, "{name}");
            let other = Exchange { qop: Qop::AuthInt(b"hellp"), ..exchange };
            assert_ne!(hex(response(algorithm, ha1(algorithm, "a", "r", "p"), &other)), expected);
        }
    }

    #[test]
    fn hexadecimal_must_have_exactly_the_length_of_the_function() {
        let text = b"939E7578ed9e3c518a452acee763bce9";
        let read = |text: &[u8]| read_hex(HashFunction::Md5, text).map(hex);
        assert_eq!(read(text).as_deref(), Some("939e7578ed9e3c518a452acee763bce9"));
        assert_eq!(read(&text[1..]), None);
        assert_eq!(read(&[&text[..], b"0"].concat()), None);
        assert_eq!(read(b"g39e7578ed9e3c518a452acee763bce9"), None);
        assert!(read_hex(HashFunction::Sha256, text).is_none());
        assert!(read_hex(HashFunction::Sha256, &text.repeat(2)).is_some());
    }
}
