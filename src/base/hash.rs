//! Keyed hashing: tables that a peer cannot fill with collisions, and authentication codes for what
//! we hand out. Absent on purpose: passwords and digests (RFC 8760), which need other functions.

use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher24};

/// SipHash-1-3 under a secret key, for tables and for placement of owners.
#[derive(Clone)]
pub struct KeyedHash {
    key: SipHasher13,
}

impl KeyedHash {
    /// The function of this key.
    pub fn new(key: [u8; 16]) -> KeyedHash {
        KeyedHash { key: SipHasher13::new_with_key(&key) }
    }

    /// The hash of `bytes`.
    pub fn of(&self, bytes: &[u8]) -> u64 {
        self.key.hash(bytes)
    }
}

impl BuildHasher for KeyedHash {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        self.key
    }
}

/// The hasher of tables whose keys are keyed hashes already, of 64 or 128 bits: taken as they are.
#[derive(Default)]
pub struct Hashed(u64);

/// See [`Hashed`].
pub type BuildHashed = BuildHasherDefault<Hashed>;

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("the key is one number");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

/// The hasher of tables whose keys are names that we give ourselves, of 64 bits: one multiplication
/// under a secret. A peer may hold on to some of the names that it was given, but sees none of them
/// and nothing of the secret, so that it cannot tell which would meet in a table.
#[derive(Clone, Debug)]
pub struct NameHash {
    secret: u64,
}

/// See [`NameHash`].
pub struct Named(u64);

impl NameHash {
    /// The function that belongs to a keyed one.
    pub fn new(tables: &KeyedHash) -> NameHash {
        NameHash { secret: tables.of(b"names") }
    }
}

impl BuildHasher for NameHash {
    type Hasher = Named;

    fn build_hasher(&self) -> Named {
        Named(self.secret)
    }
}

impl Hasher for Named {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("the key is one number");
    }

    fn write_u64(&mut self, name: u64) {
        // An odd number whose bits look like chance: the fraction of the golden ratio.
        let product = u128::from(self.0 ^ name) * 0x9e37_79b9_7f4a_7c15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

/// Bytes before each part that say how long it is.
const LENGTH: usize = 8;
/// What is longer is hashed part by part.
const GATHERED: usize = 192;

/// SipHash-2-4 with a tag of 128 bits, as a message authentication code.
#[derive(Clone)]
pub struct Mac {
    key: SipHasher24,
}

impl Mac {
    /// The code of this key.
    pub fn new(key: [u8; 16]) -> Mac {
        Mac { key: SipHasher24::new_with_key(&key) }
    }

    /// The tag of `parts`. Each part counts with its length: moving a byte from one part to the
    /// next gives another tag.
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut hasher = self.key;
        // One long stretch costs a fraction of many short ones.
        let mut gathered = [0; GATHERED];
        let len: usize = parts.iter().map(|part| LENGTH + part.len()).sum();
        match gathered.get_mut(..len) {
            Some(whole) => {
                let mut rest = &mut whole[..];
                for part in parts {
                    let (length, after) = rest.split_at_mut(LENGTH);
                    length.copy_from_slice(&(part.len() as u64).to_le_bytes());
                    let (place, after) = after.split_at_mut(part.len());
                    place.copy_from_slice(part);
                    rest = after;
                }
                hasher.write(whole);
            }
            None => {
                for part in parts {
                    hasher.write(&(part.len() as u64).to_le_bytes());
                    hasher.write(part);
                }
            }
        }
        hasher.finish128().as_bytes()
    }

    /// Whether `tag` is the tag of `parts`, in a time that does not depend on where they differ.
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8; 16]) -> bool {
        is_equal_in_constant_time(&self.tag(parts), tag)
    }
}

/// Whether two secrets of one length are equal, in a time that depends on the length only. Panics
/// when the lengths differ: they are ours.
pub fn is_equal_in_constant_time(one: &[u8], other: &[u8]) -> bool {
    assert_eq!(one.len(), other.len());
    let difference = one.iter().zip(other).fold(0, |found, (a, b)| found | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// The key of one purpose, from the secret of the installation. Keys of different labels tell
/// nothing about each other or about the secret.
pub fn derive_key(secret: &[u8; 32], label: &str) -> [u8; 16] {
    let (low, high) = secret.split_at(16);
    let half = |key: &[u8], side: u8| -> [u8; 16] {
        let key = key.try_into().expect("a half of 32 bytes");
        Mac::new(key).tag(&[&[side], label.as_bytes()])
    };
    let (low, high) = (half(low, 0), half(high, 1));
    std::array::from_fn(|i| low[i] ^ high[i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn siphash_2_4_128_matches_its_reference_vector() {
        // Of the authors' vectors_sip128: key 00..0f, empty message. Our framing adds nothing for
        // no parts.
        let mac = Mac::new(std::array::from_fn(|i| i as u8));
        let reference = 0xa3817f04ba25a8e6_6df67214c7550293_u128.to_be_bytes();
        assert_eq!(mac.tag(&[]), reference);
    }

    #[test]
    fn a_table_finds_what_was_put_under_its_key() {
        let hash = KeyedHash::new([7; 16]);
        let mut table: HashMap<Box<[u8]>, u32, KeyedHash> = HashMap::with_hasher(hash.clone());
        for i in 0..100_u32 {
            table.insert(i.to_le_bytes().into(), i);
        }
        assert!((0..100_u32).all(|i| table[i.to_le_bytes().as_slice()] == i));
        assert_eq!(hash.of(b"a"), KeyedHash::new([7; 16]).of(b"a"));
        assert_ne!(hash.of(b"a"), KeyedHash::new([8; 16]).of(b"a"));
    }

    #[test]
    fn names_spread_over_both_ends_of_a_hash_whatever_they_differ_in() {
        let hash = NameHash::new(&KeyedHash::new([7; 16]));
        // Slots of one generation, generations of one slot, and slots far apart.
        for shift in [0, 8, 32, 42] {
            let hashes: Vec<u64> =
                (0..1 << 12).map(|name: u64| hash.hash_one(1 + (name << shift))).collect();
            for side in [0, 57] {
                let mut seen = [0u32; 128];
                hashes.iter().for_each(|hash| seen[(hash >> side) as usize % 128] += 1);
                assert!(seen.iter().all(|count| *count < 96), "{shift} {side} {seen:?}");
            }
        }
        let other = NameHash::new(&KeyedHash::new([8; 16]));
        assert_ne!(hash.hash_one(5u64), other.hash_one(5u64));
        assert_eq!(BuildHashed::default().hash_one(5u128 << 64 | 7), 7);
    }

    #[test]
    fn a_tag_covers_every_part_and_its_place() {
        let mac = Mac::new([1; 16]);
        let tag = mac.tag(&[b"ab", b"c"]);
        assert!(mac.verify(&[b"ab", b"c"], &tag));
        for parts in [&[&b"a"[..], b"bc"][..], &[b"abc"], &[b"ab", b"c", b""], &[b"ab", b"d"]] {
            assert!(!mac.verify(parts, &tag));
        }
        for bit in 0..128 {
            let mut wrong = tag;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!mac.verify(&[b"ab", b"c"], &wrong));
        }
    }

    #[test]
    fn a_tag_is_of_the_bytes_however_long_they_are() {
        let mac = Mac::new([1; 16]);
        for len in [0, 1, GATHERED - LENGTH - 1, GATHERED - LENGTH, GATHERED - LENGTH + 1, 1000] {
            let part = vec![7; len];
            let mut hasher = SipHasher24::new_with_key(&[1; 16]);
            hasher.write(&(len as u64).to_le_bytes());
            hasher.write(&part);
            assert_eq!(mac.tag(&[&part]), hasher.finish128().as_bytes(), "{len}");
        }
    }

    #[test]
    fn derived_keys_differ_by_label_and_by_each_half_of_the_secret() {
        let secret = [5; 32];
        let key = derive_key(&secret, "token");
        assert_eq!(key, derive_key(&secret, "token"));
        assert_ne!(key, derive_key(&secret, "nonce"));
        for i in [0, 31] {
            let mut other = secret;
            other[i] ^= 1;
            assert_ne!(key, derive_key(&other, "token"));
        }
        assert_ne!(derive_key(&[0; 32], "a"), [0; 16]);
    }
}
