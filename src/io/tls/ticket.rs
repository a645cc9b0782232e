//! Session tickets (RFC 8446 §4.6.1, RFC 5077): the session's secrets, sealed under a key that all
//! shards share, so that a client may resume on any of them and nothing is stored. No lock: keys
//! never change in place. Rotation makes new [`TicketKeys`], which still open what the key before
//! sealed.
//!
//! A ticket is: key name (16 bytes), nonce (12), sealed state, tag (16). AES-256-GCM-SIV (RFC
//! 8452), because nonces are random and the number of tickets under one key is not ours to bound.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;

/// How often the control thread should rotate. A ticket can be opened for one to two of these.
pub const ROTATE_EVERY: Duration = Duration::from_secs(6 * 3600);

/// What clients are told (RFC 8446 §4.6.1 ticket_lifetime): the time for which a ticket surely
/// opens.
const LIFETIME: Duration = ROTATE_EVERY;
const KEY_NAME_BYTES: usize = 16;
/// Ours have some 200 bytes; what is longer is not ours.
const TICKET_BYTES_MAX: usize = 2048;

/// The key that seals, and the one before it. Cloning shares the keys.
#[derive(Clone)]
pub struct TicketKeys {
    current: Arc<TicketKey>,
    previous: Option<Arc<TicketKey>>,
}

struct TicketKey {
    name: [u8; KEY_NAME_BYTES],
    aead: RandomizedNonceKey,
}

impl TicketKeys {
    /// One new random key.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<TicketKeys, Unspecified> {
        Ok(TicketKeys { current: Arc::new(TicketKey::generate()?), previous: None })
    }

    /// The keys that come after these: a new one seals, the current one still opens, the previous
    /// one is gone.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn rotated(&self) -> Result<TicketKeys, Unspecified> {
        Ok(TicketKeys {
            current: Arc::new(TicketKey::generate()?),
            previous: Some(Arc::clone(&self.current)),
        })
    }
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let TicketKey { name, aead } = &*self.current;
        let mut sealed = plain.to_vec();
        let nonce = aead.seal_in_place_append_tag(Aad::from(name), &mut sealed).ok()?;
        let ticket = [&name[..], nonce.as_ref(), &sealed].concat();
        (ticket.len() <= TICKET_BYTES_MAX).then_some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<KEY_NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| key.name == *name)?;
        let mut state = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.aead.open_in_place(nonce, Aad::from(name), &mut state).ok()?.len();
        state.truncate(length);
        Some(state)
    }
}

impl TicketKey {
    fn generate() -> Result<TicketKey, Unspecified> {
        let mut name = [0; KEY_NAME_BYTES];
        rand::fill(&mut name)?;
        let mut secret = [0; 32];
        rand::fill(&mut secret)?;
        Ok(TicketKey { name, aead: RandomizedNonceKey::new(&AES_256_GCM_SIV, &secret)? })
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_under_its_key_and_the_next_and_then_no_more() {
        let first = TicketKeys::generate().unwrap();
        let second = first.rotated().unwrap();
        let third = second.rotated().unwrap();
        let ticket = first.encrypt(b"state").unwrap();
        assert_eq!(first.decrypt(&ticket).unwrap(), b"state");
        assert_eq!(second.decrypt(&ticket).unwrap(), b"state");
        assert_eq!(third.decrypt(&ticket), None);
        assert_eq!(first.decrypt(&second.encrypt(b"state").unwrap()), None);
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_opens() {
        let keys = TicketKeys::generate().unwrap();
        let ticket = keys.encrypt(b"state").unwrap();
        for length in 0..ticket.len() {
            assert_eq!(keys.decrypt(&ticket[..length]), None, "{length}");
        }
        for bit in 0..ticket.len() * 8 {
            let mut forged = ticket.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys.decrypt(&forged), None, "{bit}");
        }
        assert_eq!(keys.decrypt(&vec![0; TICKET_BYTES_MAX + 1]), None);
    }

    #[test]
    fn what_is_too_long_to_open_is_not_sealed() {
        let keys = TicketKeys::generate().unwrap();
        assert_eq!(keys.encrypt(&[0; TICKET_BYTES_MAX]), None);
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", TicketKeys::generate().unwrap()), "TicketKeys { .. }");
    }
}
