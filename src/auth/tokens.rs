//! Tokens as one shard meets them: whose signature was checked once is remembered, and what a
//! stranger can have us check is bounded in time. Absent on purpose: what a token says (`jwt`), and
//! where it stands (`bearer`).

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use crate::base::allowance::Allowance;
use crate::base::bearer::{Bearer, TokenFault};
use crate::base::config::Config;
use crate::base::hash::KeyedHash;
use crate::base::identity::{Guest, Identity};
use crate::base::limits::{
    TOKEN_BYTES_MAX, TOKEN_CHECKS, TOKEN_CHECKS_SHARED, TOKEN_FAULTS_OF_FLOW, TOKENS_REMEMBERED,
};
use crate::base::time::Time;

use super::jwt;
use super::verify::Verdict;

/// The digest of a token: nobody finds two of one digest.
type TokenDigest = [u8; 32];

/// Who showed a token, as far as that bounds what is checked.
pub struct Bearing<'a> {
    /// When.
    pub now: Time,
    /// The same in seconds since 1970.
    pub unix: u64,
    /// What the sender's own stream flow has left; `None` for datagrams, and where several senders
    /// share a flow.
    pub own: Option<&'a mut Allowance>,
    /// Nobody's own stream vouches for it: a datagram, whose source may be forged, or it came through
    /// another proxy, or says so.
    pub is_shared: bool,
}

/// The tokens that a shard knows.
pub struct Tokens {
    /// Good ones, those seen lately.
    recent: HashMap<TokenDigest, Arc<Guest>, KeyedHash>,
    /// Good ones that were seen before those; the next that do not fit push all of them out.
    older: HashMap<TokenDigest, Arc<Guest>, KeyedHash>,
    streams: Allowance,
    shared: Allowance,
    checked: u64,
}

impl Tokens {
    /// None known; `hash` is for tables.
    pub fn new(hash: KeyedHash) -> Tokens {
        Tokens {
            recent: HashMap::with_hasher(hash.clone()),
            older: HashMap::with_hasher(hash),
            streams: Allowance::default(),
            shared: Allowance::default(),
            checked: 0,
        }
    }

    /// Who the bearer of a token is.
    pub fn judge(
        &mut self,
        config: &Config,
        bearer: &Bearer,
        token: &[u8],
        bearing: &mut Bearing<'_>,
    ) -> Verdict {
        let now = bearing.now;
        if token.len() > TOKEN_BYTES_MAX {
            return Verdict::BadToken(TokenFault::Malformed);
        }
        let name = name_of(token);
        if let Some(guest) = self.recall(&name).filter(|guest| guest.until > bearing.unix) {
            return Verdict::Proven(Identity::Guest(guest), None);
        }
        if bearing.own.as_ref().is_some_and(|own| !own.has(now, TOKEN_FAULTS_OF_FLOW)) {
            return Verdict::Busy;
        }
        match self.check(config, bearer, token, bearing) {
            Ok(Some(guest)) => {
                let guest = Arc::new(guest);
                self.remember(name, Arc::clone(&guest));
                Verdict::Proven(Identity::Guest(guest), None)
            }
            Ok(None) => Verdict::Busy,
            Err(fault) => {
                if let Some(own) = &mut bearing.own {
                    own.take(now, TOKEN_FAULTS_OF_FLOW);
                }
                Verdict::BadToken(fault)
            }
        }
    }

    /// Reads a token that is not known, and checks its signature; `None` when too many are checked.
    fn check(
        &mut self,
        config: &Config,
        bearer: &Bearer,
        token: &[u8],
        bearing: &Bearing<'_>,
    ) -> Result<Option<Guest>, TokenFault> {
        let candidate = jwt::read(token, bearer, config, bearing.unix)?;
        let (allowance, rate) = match bearing.is_shared {
            true => (&mut self.shared, TOKEN_CHECKS_SHARED),
            false => (&mut self.streams, TOKEN_CHECKS),
        };
        if !allowance.has(bearing.now, rate) {
            return Ok(None);
        }
        allowance.take(bearing.now, rate);
        self.checked += 1;
        match candidate.is_signed() {
            true => Ok(Some(candidate.guest)),
            false => Err(TokenFault::Signature),
        }
    }

    /// Event: the settings are others. What was good by the old ones is checked again.
    pub fn forget(&mut self) {
        self.recent.clear();
        self.older.clear();
    }

    /// How many signatures were checked since this was last asked.
    pub fn take_checked(&mut self) -> u64 {
        std::mem::take(&mut self.checked)
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn recall(&mut self, name: &TokenDigest) -> Option<Arc<Guest>> {
        if let Some(guest) = self.recent.get(name) {
            return Some(Arc::clone(guest));
        }
        let guest = self.older.remove(name)?;
        self.remember(*name, Arc::clone(&guest));
        Some(guest)
    }

    fn remember(&mut self, name: TokenDigest, guest: Arc<Guest>) {
        if self.recent.len() >= TOKENS_REMEMBERED / 2 {
            std::mem::swap(&mut self.recent, &mut self.older);
            self.recent.clear();
        }
        self.recent.insert(name, guest);
    }
}

fn name_of(token: &[u8]) -> TokenDigest {
    let digest = digest(&SHA256, token);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::identity::KeyId;

    fn guest(until: u64) -> Arc<Guest> {
        let aor = b"a@example.com"[..].into();
        Arc::new(Guest { aor, until, key: KeyId(1), by_token: true })
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let mut tokens = Tokens::new(KeyedHash::new([1; 16]));
        let name = |n: u64| name_of(&n.to_be_bytes());
        tokens.remember(name(0), guest(0));
        for n in 1..=3 * TOKENS_REMEMBERED as u64 {
            tokens.remember(name(n), guest(n));
            assert!(tokens.len() <= TOKENS_REMEMBERED);
            assert_eq!(tokens.recall(&name(0)).map(|it| it.until), Some(0), "{n}");
        }
        assert!(tokens.recall(&name(1)).is_none());
        let last = 3 * TOKENS_REMEMBERED as u64;
        assert_eq!(tokens.recall(&name(last)).map(|it| it.until), Some(last));
        tokens.forget();
        assert!(tokens.is_empty() && tokens.recall(&name(0)).is_none());
    }
}
