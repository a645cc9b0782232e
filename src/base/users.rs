//! Who may prove who they are, and by what: the users of the file that `[auth]` names, as every
//! shard sees them. Absent on purpose: reading the file and hashing passwords (`auth/users`),
//! checking what a client shows (`auth/verify`). Passwords are not kept, only what digests need.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::hash::KeyedHash;

/// A digest algorithm (RFC 7616 §3.3, RFC 8760 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithm {
    /// The hash function.
    pub function: HashFunction,
    /// The key is made anew from each nonce (`-sess`).
    pub session: bool,
}

/// A hash function of RFC 8760 §2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFunction {
    /// MD5 (RFC 1321): broken as such, and all that browsers' libraries know.
    Md5,
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-512/256 (FIPS 180-4).
    Sha512_256,
}

impl Algorithm {
    /// Every algorithm, with the name that it has in headers and in the configuration.
    pub const ALL: [(&'static str, Algorithm); 6] = [
        ("SHA-512-256", Algorithm { function: HashFunction::Sha512_256, session: false }),
        ("SHA-512-256-sess", Algorithm { function: HashFunction::Sha512_256, session: true }),
        ("SHA-256", Algorithm { function: HashFunction::Sha256, session: false }),
        ("SHA-256-sess", Algorithm { function: HashFunction::Sha256, session: true }),
        ("MD5", Algorithm { function: HashFunction::Md5, session: false }),
        ("MD5-sess", Algorithm { function: HashFunction::Md5, session: true }),
    ];

    /// The algorithm of that name, in any case.
    pub fn of_name(name: &[u8]) -> Option<Algorithm> {
        let mut all = Algorithm::ALL.into_iter();
        all.find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(_, it)| it)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let mut all = Algorithm::ALL.into_iter();
        all.find(|(_, it)| *it == self).map_or("", |(name, _)| name)
    }
}

/// Names a user as it was when it proved who it is: another password is another id, so that what
/// the old one proved ends with it. Never leaves the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserId(NonZeroU64);

impl UserId {
    /// From 64 bits that nobody outside can choose; zero is another name of 1.
    pub fn from_bits(bits: u64) -> UserId {
        UserId(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }

    /// The number.
    pub fn to_bits(self) -> u64 {
        self.0.get()
    }
}

impl UserId {
    /// A shorter name, for what is kept in great numbers.
    pub fn mark(self) -> UserMark {
        let bits = (self.to_bits() >> 32) as u32;
        UserMark(bits.clamp(1, u32::MAX - 1))
    }
}

/// By which user of the file something was done, in 32 bits: whoever has another password bears,
/// but for a chance of 2^-32, another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserMark(u32);

impl UserMark {
    /// By nobody who stands in the file.
    pub const NONE: UserMark = UserMark(0);
    /// By a user in a former run of the process: with which password nobody knows any more.
    pub const FORMER: UserMark = UserMark(u32::MAX);

    /// Whether it was a user.
    pub fn is_some(self) -> bool {
        self != UserMark::NONE
    }
}

/// Canonical addresses of record of users who are gone or have another password, in order.
pub type Departed = Arc<[Arc<[u8]>]>;

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserId(..)")
    }
}

/// What one hash function needs in the place of a password: `H(username:realm:password)`, known as
/// HA1 (RFC 7616 §3.4.2). Of MD5 the first 16 bytes count, the others are zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ha1 {
    /// Of which function.
    pub function: HashFunction,
    /// The username in it has `@domain` behind it.
    pub with_domain: bool,
    /// The hash.
    pub bytes: [u8; 32],
}

/// One user.
#[derive(Clone)]
pub struct User {
    /// See [`UserId`].
    pub id: UserId,
    /// The canonical address of record, `user@domain`: the only one that it may register.
    pub aor: Arc<[u8]>,
    /// At most one for each function and form of the username.
    pub secrets: Box<[Ha1]>,
}

impl User {
    /// What takes the password's place for a username of that form.
    pub fn secret(&self, function: HashFunction, with_domain: bool) -> Option<&[u8; 32]> {
        let fits = |ha1: &&Ha1| ha1.function == function && ha1.with_domain == with_domain;
        self.secrets.iter().find(fits).map(|ha1| &ha1.bytes)
    }

    /// Whether both have one password: no HA1 that both have differs. Another set of algorithms is
    /// no other password.
    fn has_same_password(&self, other: &User) -> bool {
        let is_same = |ha1: &Ha1| {
            other.secret(ha1.function, ha1.with_domain).is_none_or(|it| *it == ha1.bytes)
        };
        self.id == other.id || self.secrets.iter().all(is_same)
    }
}

/// All users, found by address of record and by id.
#[derive(Clone)]
pub struct Users {
    by_aor: HashMap<Arc<[u8]>, User, KeyedHash>,
    by_id: HashMap<UserId, Arc<[u8]>, KeyedHash>,
}

impl Users {
    /// A table whose hashes are under that key.
    pub fn new(key: [u8; 16]) -> Users {
        let hash = KeyedHash::new(key);
        Users { by_aor: HashMap::with_hasher(hash.clone()), by_id: HashMap::with_hasher(hash) }
    }

    /// Adds a user; `false` when the address of record, or by chance the id, is taken.
    pub fn insert(&mut self, user: User) -> bool {
        if self.by_aor.contains_key(&user.aor) || self.by_id.contains_key(&user.id) {
            return false;
        }
        self.by_id.insert(user.id, Arc::clone(&user.aor));
        self.by_aor.insert(Arc::clone(&user.aor), user);
        true
    }

    /// The user with that canonical address of record.
    pub fn by_aor(&self, aor: &[u8]) -> Option<&User> {
        self.by_aor.get(aor)
    }

    /// The canonical address of record of the user with that id; `None` once the user is gone or
    /// has another password.
    pub fn aor_of(&self, id: UserId) -> Option<&Arc<[u8]>> {
        self.by_id.get(&id)
    }

    /// Who is gone or has another password when `next` takes this one's place; `None`: there are no
    /// users any more.
    pub fn departed(&self, next: Option<&Users>) -> Departed {
        let stays = |user: &User| {
            let other = next.and_then(|next| next.by_aor(&user.aor));
            other.is_some_and(|other| user.has_same_password(other))
        };
        let gone = self.by_aor.values().filter(|user| !stays(user));
        let mut gone: Vec<Arc<[u8]>> = gone.map(|user| Arc::clone(&user.aor)).collect();
        gone.sort_unstable();
        gone.into()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_aor.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_aor.is_empty()
    }
}

/// How many, and nothing of their secrets.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(aor: &str, id: u64) -> User {
        let md5 = Ha1 { function: HashFunction::Md5, with_domain: false, bytes: [7; 32] };
        User { id: UserId::from_bits(id), aor: aor.as_bytes().into(), secrets: Box::new([md5]) }
    }

    #[test]
    fn users_are_found_by_address_and_by_id() {
        let mut users = Users::new([1; 16]);
        assert!(users.insert(user("alice@example.com", 5)));
        assert!(!users.insert(user("alice@example.com", 6)), "one of a name");
        assert!(!users.insert(user("bob@example.com", 5)), "one of an id");
        let alice = users.by_aor(b"alice@example.com").expect("she is there");
        assert_eq!(alice.secret(HashFunction::Md5, false), Some(&[7; 32]));
        assert_eq!(alice.secret(HashFunction::Md5, true), None);
        assert_eq!(alice.secret(HashFunction::Sha256, false), None);
        assert_eq!(users.aor_of(alice.id).map(|aor| &**aor), Some(&b"alice@example.com"[..]));
        assert_eq!(users.aor_of(UserId::from_bits(6)), None);
        assert_eq!((users.len(), users.by_aor(b"bob@example.com").is_some()), (1, false));
    }

    #[test]
    fn who_is_gone_or_has_another_password_departs() {
        type Line<'a> = (&'a str, u64, &'a [(HashFunction, u8)]);
        let of = |all: &[Line<'_>]| {
            let mut users = Users::new([1; 16]);
            for (aor, id, secrets) in all {
                let ha1 = |(function, byte): &(HashFunction, u8)| Ha1 {
                    function: *function,
                    with_domain: false,
                    bytes: [*byte; 32],
                };
                let (id, aor) = (UserId::from_bits(*id), aor.as_bytes().into());
                let secrets = secrets.iter().map(ha1).collect();
                assert!(users.insert(User { id, aor, secrets }));
            }
            users
        };
        use HashFunction::{Md5, Sha256};
        let old = of(&[
            ("d@x", 1, &[(Md5, 1)]),
            ("c@x", 2, &[(Md5, 1), (Sha256, 2)]),
            ("b@x", 3, &[(Md5, 1), (Sha256, 2)]),
            ("a@x", 4, &[(Md5, 1)]),
        ]);
        let next = of(&[
            ("a@x", 4, &[(Md5, 1)]),
            ("b@x", 13, &[(Md5, 1)]),
            ("c@x", 12, &[(Md5, 1), (Sha256, 3)]),
            ("e@x", 5, &[(Md5, 1)]),
        ]);
        let names = |departed: Departed| -> Vec<String> {
            departed.iter().map(|aor| String::from_utf8(aor.to_vec()).unwrap()).collect()
        };
        assert_eq!(names(old.departed(Some(&next))), ["c@x", "d@x"]);
        assert_eq!(names(old.departed(Some(&old))), [""; 0]);
        assert_eq!(names(old.departed(None)), ["a@x", "b@x", "c@x", "d@x"]);
    }

    #[test]
    fn a_mark_is_never_that_of_nobody_or_of_a_former_run() {
        for bits in [1, u64::MAX, 1 << 32, u64::from(u32::MAX)] {
            let mark = UserId::from_bits(bits).mark();
            assert!(mark.is_some() && mark != UserMark::FORMER, "{bits:x}");
        }
    }

    #[test]
    fn nothing_of_a_secret_is_shown() {
        let mut users = Users::new([1; 16]);
        users.insert(user("alice@example.com", 0xabcdef));
        assert_eq!(format!("{users:?} {:?}", UserId::from_bits(9)), "Users(1) UserId(..)");
    }

    #[test]
    fn names_of_algorithms_go_both_ways() {
        for (name, algorithm) in Algorithm::ALL {
            assert_eq!(Algorithm::of_name(name.to_lowercase().as_bytes()), Some(algorithm));
            assert_eq!(algorithm.name(), name);
        }
        assert_eq!(Algorithm::of_name(b"MD4"), None);
    }
}
