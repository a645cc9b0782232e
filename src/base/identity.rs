//! Who somebody proved to be: a user of the users file, or a guest whose credential itself says so.
//! Absent on purpose: how that is proved (`auth`), and what it permits (`proxy`).

use std::fmt;
use std::sync::Arc;

use super::users::{UserId, UserMark};

/// Who a sender is. Cheap to clone: it travels with messages across shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Somebody in the users file.
    Listed(UserId),
    /// Somebody for whom a key of ours vouches.
    Guest(Arc<Guest>),
}

impl Identity {
    /// Which user of the file it is, if it is one.
    pub fn mark(&self) -> UserMark {
        match self {
            Identity::Listed(id) => id.mark(),
            Identity::Guest(_) => UserMark::NONE,
        }
    }
}

/// Somebody in no file: a key in the configuration vouches for the name, until a certain time.
#[derive(Clone, PartialEq, Eq)]
pub struct Guest {
    /// The canonical address of record: the only one that it may register.
    pub aor: Arc<[u8]>,
    /// From this second since 1970 on it proves nothing.
    pub until: u64,
    /// Who vouches: what it proved ends when the configuration has that key no more.
    pub key: KeyId,
    /// A bearer token says so: its flow and its bindings do not outlive it for long.
    pub by_token: bool,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guest({})", String::from_utf8_lossy(&self.aor))
    }
}

/// Names a key that vouches for guests. Never leaves the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(pub u64);

/// A secret that we share with whoever issues credentials. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedSecret {
    /// Its name among the keys.
    pub id: KeyId,
    /// Its bytes.
    pub bytes: Box<[u8]>,
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

/// What time-limited credentials are computed with: their username is `expiry:user`, their password
/// the base64 of its HMAC, as TURN servers have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSecrets {
    /// Which HMAC (RFC 2104).
    pub hmac: HmacFunction,
    /// Each is good, so that one can be replaced while the other is in use.
    pub secrets: Vec<SharedSecret>,
}

/// A hash function under an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacFunction {
    /// SHA-1: what TURN servers and those who issue credentials for them use.
    Sha1,
    /// SHA-256.
    Sha256,
}

/// Whether a name can be the user of an address of record of ours: it has no space, nothing that
/// ends a quoted string, and no brackets.
pub fn is_user_name(name: &str) -> bool {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || "\"\\<>".contains(c);
    !name.is_empty() && !name.contains(is_odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_secret_is_shown() {
        let secret = SharedSecret { id: KeyId(7), bytes: b"very secret"[..].into() };
        assert_eq!(format!("{secret:?}"), "SharedSecret(..)");
    }

    #[test]
    fn names_of_users() {
        for name in ["alice", "+49301234", "zoë", "a:b", "a;b=c", "a@b"] {
            assert!(is_user_name(name), "{name}");
        }
        for name in ["", "a b", "a\u{7f}", "a\"", "a\\", "<a", "a>"] {
            assert!(!is_user_name(name), "{name}");
        }
    }
}
