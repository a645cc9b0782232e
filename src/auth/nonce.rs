//! Nonces without a table (RFC 7616 §3.3, §5.4): when, 56 random bits, and a tag that covers both,
//! the realm and the flow that the challenge went to. 32 characters of base64url.
//!
//! A replay comes from somebody else than the client, or it is none: on the client's own stream
//! flow whoever repeats a header could as well leave it out. So a nonce is good on its flow only,
//! and nothing has to be counted there. Where several senders may look alike (datagrams have no
//! flow that could not be forged; behind another proxy many clients share one), [`Uses`] remembers
//! each `nc`, in bounded memory: what it had to forget is stale, never good again. Its time is in
//! milliseconds, so that forgetting one nonce takes only those along that are as old. Whatever is
//! wrong with a nonce, the right digest gets a new one (`stale=true`), so that no client fails.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

use crate::base::hash::{Mac, derive_key, is_equal_in_constant_time};
use crate::base::id::FlowRef;
use crate::base::limits::{NONCE_MEMORY_MAX, NONCES_REMEMBERED};
use crate::base::time::Time;

const WHEN: usize = 5;
const RANDOM: usize = 7;
const TAG: usize = 12;
const BYTES: usize = WHEN + RANDOM + TAG;
/// Characters of a nonce.
pub const NONCE_CHARS: usize = BYTES / 3 * 4;

const _: () = assert!(BYTES.is_multiple_of(3), "no padding");

/// Makes and checks the nonces of one run of the process.
pub struct NonceKey {
    mac: Mac,
    epoch: u32,
}

/// What a nonce of ours says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce {
    /// Milliseconds of the process' clock when it was made.
    pub made_at: u64,
    /// What tells it from all others of that millisecond: 56 bits.
    pub random: u64,
}

impl NonceKey {
    /// From the secret of the installation and the number of the run: a nonce of another run is not
    /// ours, since its clock was another.
    pub fn new(secret: &[u8; 32], epoch: u32) -> NonceKey {
        NonceKey { mac: Mac::new(derive_key(secret, "digest nonce")), epoch }
    }

    /// The nonce for a challenge of that realm to that flow.
    pub fn make(&self, now: Time, random: u64, realm: &[u8], to: FlowRef) -> [u8; NONCE_CHARS] {
        let mut bytes = [0; BYTES];
        bytes[..WHEN].copy_from_slice(&now.as_millis().to_be_bytes()[8 - WHEN..]);
        bytes[WHEN..WHEN + RANDOM].copy_from_slice(&random.to_be_bytes()[8 - RANDOM..]);
        let tag = self.tag(&bytes[..WHEN + RANDOM], realm, to);
        bytes[WHEN + RANDOM..].copy_from_slice(&tag);
        let mut text = [0; NONCE_CHARS];
        let len = BASE64_URL_SAFE_NO_PAD.encode_slice(bytes, &mut text);
        assert_eq!(len.ok(), Some(NONCE_CHARS), "the text fits exactly");
        text
    }

    /// What a nonce says; `None` when it was not made for that realm and flow in this run.
    pub fn read(&self, text: &[u8], realm: &[u8], from: FlowRef) -> Option<Nonce> {
        let mut bytes = [0; BYTES];
        if text.len() != NONCE_CHARS {
            return None;
        }
        BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (said, tag) = bytes.split_at(WHEN + RANDOM);
        if !is_equal_in_constant_time(&self.tag(said, realm, from), tag) {
            return None;
        }
        let (when, random) = said.split_at(WHEN);
        Some(Nonce { made_at: number(when), random: number(random) })
    }

    fn tag(&self, said: &[u8], realm: &[u8], flow: FlowRef) -> [u8; TAG] {
        let mut place = Place { bytes: [0; PLACE], len: 0 };
        match flow {
            FlowRef::Stream(path) => place.put(&path.flow.to_bits().to_be_bytes()),
            FlowRef::Datagram(path) => {
                place.put(&path.listener.0.to_be_bytes());
                for address in [path.local, path.remote] {
                    match address.ip() {
                        std::net::IpAddr::V4(ip) => place.put(&ip.octets()),
                        std::net::IpAddr::V6(ip) => place.put(&ip.octets()),
                    }
                    place.put(&address.port().to_be_bytes());
                }
            }
        }
        let epoch = self.epoch.to_be_bytes();
        let whole = self.mac.tag(&[&epoch, said, realm, &place.bytes[..place.len]]);
        std::array::from_fn(|at| whole[at])
    }
}

/// A listener and two IPv6 addresses with ports.
const PLACE: usize = 2 + 2 * (16 + 2);

/// The bytes of a flow's name.
struct Place {
    bytes: [u8; PLACE],
    len: usize,
}

impl Place {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// The number in at most 8 bytes, the highest first.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

impl Nonce {
    /// Seconds since it was made.
    pub fn age_secs(&self, now: Time) -> u64 {
        now.as_millis().saturating_sub(self.made_at) / 1000
    }

    /// The second of the process' clock in which it was made.
    pub fn made_in_second(&self) -> u32 {
        (self.made_at / 1000) as u32
    }
}

/// How far below the highest `nc` one may still come late (datagrams overtake each other).
const LATE: u32 = 32;
/// So many that chance rarely fills one set long before the others.
const WAYS: usize = 16;
const SETS: usize = NONCES_REMEMBERED / WAYS;

const _: () = assert!(SETS * size_of::<Set>() <= NONCE_MEMORY_MAX, "the memory is bounded");

/// Which `nc` of which nonces were used: a cache in which whatever is forgotten leaves its time
/// behind, so that nothing as old is taken for unused.
#[derive(Default)]
pub struct Uses {
    /// Empty before the first use: most shards never need it.
    sets: Vec<Set>,
    /// Nonces made before this millisecond may have been used at a shard that failed since.
    since: u64,
}

#[derive(Clone, Copy, Default)]
struct Set {
    /// Nonces made before this millisecond that are not in the set may have been used.
    forgotten_before: u64,
    ways: [Use; WAYS],
}

#[derive(Clone, Copy, Default)]
struct Use {
    random: u64,
    made_at: u64,
    /// The highest `nc` seen; 0: a free place.
    highest: u32,
    /// Bit n: `highest - n` was seen.
    seen: u32,
}

impl Uses {
    /// Remembers what is used from now on; who remembered what was before is gone.
    pub fn since(now: Time) -> Uses {
        Uses { sets: Vec::new(), since: now.as_millis() }
    }

    /// Takes one use of a nonce; `false` when it was taken before, or may have been.
    pub fn take(&mut self, nonce: Nonce, nc: u32) -> bool {
        if nc == 0 {
            return false;
        }
        if self.sets.is_empty() {
            self.sets.resize(SETS, Set { forgotten_before: self.since, ..Set::default() });
        }
        let at = nonce.random as usize % SETS;
        self.sets[at].take(nonce, nc)
    }
}

impl Set {
    fn take(&mut self, nonce: Nonce, nc: u32) -> bool {
        let is_it = |it: &&mut Use| {
            it.highest != 0 && it.random == nonce.random && it.made_at == nonce.made_at
        };
        if let Some(found) = self.ways.iter_mut().find(is_it) {
            return found.take(nc);
        }
        if nonce.made_at < self.forgotten_before {
            return false;
        }
        let oldest = self.ways.iter_mut().min_by_key(|it| (it.highest != 0, it.made_at));
        let place = oldest.expect("a set has places");
        if place.highest != 0 {
            self.forgotten_before = self.forgotten_before.max(place.made_at.saturating_add(1));
        }
        *place = Use { random: nonce.random, made_at: nonce.made_at, highest: nc, seen: 1 };
        true
    }
}

impl Use {
    fn take(&mut self, nc: u32) -> bool {
        if nc > self.highest {
            let ahead = nc - self.highest;
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = nc;
            return true;
        }
        let behind = self.highest - nc;
        if behind >= LATE || self.seen >> behind & 1 == 1 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::id::{DatagramPath, FlowId, ListenerId, ShardId, StreamPath, Transport};

    const REALM: &[u8] = b"example.com";

    fn stream(slot: u32, generation: u32) -> FlowRef {
        let flow = FlowId::new(ShardId(1), slot, generation);
        FlowRef::Stream(StreamPath { flow, transport: Transport::Wss, listener: ListenerId(0) })
    }

    fn datagram(local: &str, remote: &str) -> FlowRef {
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        FlowRef::Datagram(DatagramPath { listener: ListenerId(2), local, remote })
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_nonce_is_good_for_its_realm_and_flow_and_run_only() {
        let key = NonceKey::new(&[9; 32], 1);
        for flow in [
            stream(3, 1),
            datagram("192.0.2.1:5060", "198.51.100.1:40000"),
            datagram("[2001:db8::1]:5060", "[2001:db8::2]:40000"),
        ] {
            let text = key.make(at(100), 77, REALM, flow);
            assert!(text.iter().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(c)));
            let nonce = key.read(&text, REALM, flow).expect("it is ours");
            assert_eq!(nonce.made_in_second(), 100);
            assert_eq!(nonce, Nonce { made_at: 100_000, random: 77 });
            assert_eq!((nonce.age_secs(at(160)), nonce.age_secs(at(5))), (60, 0));
            assert_eq!(key.read(&text, b"example.org", flow), None);
            assert_eq!(NonceKey::new(&[9; 32], 2).read(&text, REALM, flow), None);
            assert_eq!(NonceKey::new(&[8; 32], 1).read(&text, REALM, flow), None);
            for other in [
                stream(3, 2),
                stream(4, 1),
                datagram("192.0.2.1:5060", "198.51.100.1:40001"),
                datagram("192.0.2.1:5060", "198.51.100.2:40000"),
                datagram("192.0.2.2:5060", "198.51.100.1:40000"),
            ] {
                assert_eq!(key.read(&text, REALM, other), None, "{other:?}");
            }
        }
    }

    #[test]
    fn forged_and_cut_nonces_are_not_ours() {
        let key = NonceKey::new(&[9; 32], 1);
        let text = key.make(at(100), 77, REALM, stream(3, 1));
        for len in 0..text.len() {
            assert_eq!(key.read(&text[..len], REALM, stream(3, 1)), None);
            let mut forged = text;
            forged[len] = if forged[len] == b'A' { b'B' } else { b'A' };
            assert_eq!(key.read(&forged, REALM, stream(3, 1)), None, "{len}");
        }
        assert_eq!(key.read(&[&text[..], b"A"].concat(), REALM, stream(3, 1)), None);
    }

    #[test]
    fn a_count_is_taken_once_and_may_come_late() {
        let mut uses = Uses::default();
        let nonce = Nonce { made_at: 5, random: 1 };
        let other = Nonce { made_at: 5, random: 1 + SETS as u64 };
        for (nonce, nc, taken) in [
            (nonce, 0, false),
            (nonce, 1, true),
            (nonce, 1, false),
            (other, 1, true),
            (nonce, 4, true),
            (nonce, 3, true),
            (nonce, 3, false),
            (nonce, 2, true),
            (nonce, 4, false),
            (nonce, 40, true),
            (nonce, 8, false),
            (nonce, 9, true),
            (nonce, 9, false),
            (nonce, u32::MAX, true),
            (nonce, u32::MAX, false),
            (nonce, 40, false),
            (other, 2, true),
        ] {
            assert_eq!(uses.take(nonce, nc), taken, "{nc} of {nonce:?}");
        }
    }

    #[test]
    fn what_was_forgotten_is_never_taken_again() {
        let mut uses = Uses::default();
        let of_one_set = |n: u64, made_at: u64| Nonce { made_at, random: 7 + n * SETS as u64 };
        for n in 0..WAYS as u64 + 2 {
            assert!(uses.take(of_one_set(n, 10 + n), 1), "{n}");
        }
        for n in 0..WAYS as u64 + 2 {
            assert!(!uses.take(of_one_set(n, 10 + n), 1), "{n} was used");
        }
        assert!(!uses.take(of_one_set(99, 11), 1), "as old as what was forgotten");
        assert!(uses.take(of_one_set(99, 12), 1), "younger");
        assert!(!uses.take(of_one_set(99, 12), 1));
        let elsewhere = Nonce { made_at: 1, random: 8 };
        assert!(uses.take(elsewhere, 1), "other sets have forgotten nothing");
    }

    /// Any order of uses: nothing is taken twice.
    #[test]
    fn nothing_is_taken_twice_whatever_the_order() {
        let mut rng = crate::base::rng::Rng::new([4; 32]);
        let mut uses = Uses::default();
        let mut taken = std::collections::HashSet::new();
        for round in 0..20_000_u64 {
            let nonce = Nonce {
                made_at: round / 100 + rng.below(3),
                random: 3 + rng.below(3) * SETS as u64,
            };
            let nc = 1 + rng.below(40) as u32;
            if uses.take(nonce, nc) {
                assert!(taken.insert((nonce.made_at, nonce.random, nc)));
            }
        }
        assert!(taken.len() > 1000, "{}", taken.len());
    }

    /// Each nonce answered once, up to half a second after it was made, at 100,000 a second: no
    /// client is asked a second time, and a repeat at once or at the end is none the better.
    #[test]
    fn a_hundred_thousand_fresh_nonces_a_second_are_taken_once_each() {
        const A_MILLISECOND: u64 = 100;
        let mut rng = crate::base::rng::Rng::new([5; 32]);
        let mut answers: Vec<(u64, Nonce)> = (0..2_000 * A_MILLISECOND)
            .map(|n| {
                let made_at = n / A_MILLISECOND;
                let random = rng.next_u64() >> 8;
                (made_at + rng.below(500), Nonce { made_at, random })
            })
            .collect();
        answers.sort_by_key(|it| it.0);
        let mut uses = Uses::default();
        for &(_, nonce) in &answers {
            assert!(uses.take(nonce, 1), "{nonce:?} was never used");
            assert!(!uses.take(nonce, 1), "{nonce:?} was used");
        }
        for &(_, nonce) in &answers {
            assert!(!uses.take(nonce, 1), "{nonce:?} was used");
        }
    }
}
