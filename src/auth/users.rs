//! The users file, as text: one user a line, `user[@domain]:password`, or with what digests need in
//! the place of a password `user@domain:realm:HA1-MD5[:HA1-SHA-256]` (HA1 is RFC 7616 §3.4.2's
//! `H(username:realm:password)` in hexadecimal). `#` begins a comment line. Absent on purpose:
//! where the text comes from, and password hashes that no digest can use (bcrypt and the like).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::identity::is_user_name;
use crate::base::limits::{USER_LINE_BYTES_MAX, USERS_MAX};
use crate::base::users::{Algorithm, Ha1, HashFunction, User, UserId, Users};

use super::digest::{Hash, read_hex};

/// What a line is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Our domains, in lower case; the first is that of bare users.
    pub domains: &'a [String],
    /// The realm of all challenges; `None`: each user's domain.
    pub realm: Option<&'a str>,
    /// What is offered.
    pub algorithms: &'a [Algorithm],
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFault {
    /// Which, from 1.
    pub line: usize,
    /// The line cannot be used; otherwise it is probably not what was meant.
    pub is_error: bool,
    /// What is wrong. Never shows a secret.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

/// Reads the whole file. Faults are in the order of lines; the users are those of the good lines.
pub fn parse(text: &str, rules: &Rules<'_>) -> (Users, Vec<LineFault>) {
    let digest = Hash::of(HashFunction::Sha256, &[text.as_bytes()]).padded();
    let mut reading = Reading {
        rules,
        users: Users::new(std::array::from_fn(|at| digest[at])),
        faults: Vec::new(),
        lacking: BTreeMap::new(),
    };
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Err(Wrong { message, hint }) = reading.line(at + 1, line) {
            reading.faults.push(LineFault { line: at + 1, is_error: true, message, hint });
        }
    }
    reading.finish()
}

struct Reading<'a> {
    rules: &'a Rules<'a>,
    users: Users,
    faults: Vec<LineFault>,
    /// By algorithm name: the first line without a secret for it, and how many there are.
    lacking: BTreeMap<&'static str, (usize, usize)>,
}

struct Wrong {
    message: String,
    hint: &'static str,
}

fn wrong<T>(message: impl Into<String>, hint: &'static str) -> Result<T, Wrong> {
    Err(Wrong { message: message.into(), hint })
}

const FORMS: &str = "write user:password, user@domain:password, or \
    user@domain:realm:HA1-MD5:HA1-SHA-256";

impl Reading<'_> {
    fn line(&mut self, number: usize, line: &str) -> Result<(), Wrong> {
        if line.len() > USER_LINE_BYTES_MAX {
            return wrong("the line is too long", "1024 bytes at most");
        }
        if self.users.len() == USERS_MAX {
            return wrong("too many users", "a million at most");
        }
        let Some((name, secret)) = line.split_once(':') else {
            return wrong("there is no `:`", FORMS);
        };
        let (user, domain) = self.name(name)?;
        let aor = format!("{user}@{domain}");
        let realm = self.rules.realm.unwrap_or(&domain);
        let secrets = match self.ha1_fields(secret) {
            Some(fields) if !name.contains('@') => {
                let message =
                    format!("`{name}` with HA1 needs its domain ({} fields)", fields.len());
                return wrong(message, "write user@domain:realm:HA1-MD5:HA1-SHA-256");
            }
            Some(fields) => self.kept(number, &fields, realm)?,
            None if secret.is_empty() => return wrong("the password is empty", FORMS),
            None => self.hashed(&user, &aor, realm, secret),
        };
        let id = id_of(&aor, &secrets);
        let user = User { id, aor: Arc::from(aor.as_bytes()), secrets: secrets.into() };
        if !self.users.insert(user) {
            return wrong(format!("`{aor}` is there twice"), "remove one of the lines");
        }
        Ok(())
    }

    /// User and domain, canonical.
    fn name(&self, name: &str) -> Result<(String, String), Wrong> {
        let Some(first) = self.rules.domains.first() else {
            return wrong("there is no domain for users", "name one in [node] domains");
        };
        let (user, domain) = match name.rsplit_once('@') {
            Some((user, domain)) => (user, domain.to_ascii_lowercase()),
            None => (name, first.clone()),
        };
        if !is_user_name(user) {
            let hint = "a user is what stands before the @ of its SIP address, without escapes";
            return wrong("the user's name is empty or has space, quotes or < >", hint);
        }
        if !self.rules.domains.contains(&domain) {
            let message = format!("`{domain}` is not a domain of ours");
            return wrong(message, "name it in [node] domains, or write the user without domain");
        }
        Ok((user.to_owned(), domain))
    }

    /// The fields behind the user when they are meant as HA1: a realm of ours stands first, or
    /// something of HA1's shape second. A password may contain colons, too.
    fn ha1_fields<'t>(&self, secret: &'t str) -> Option<Vec<&'t str>> {
        let fields: Vec<&str> = secret.split(':').collect();
        let (realm, ha1) = (fields.first()?, fields.get(1)?);
        let is_ours = match self.rules.realm {
            Some(ours) => ours == *realm,
            None => self.rules.domains.iter().any(|domain| domain == realm),
        };
        let is_shaped = read_hex(HashFunction::Md5, ha1.as_bytes()).is_some();
        (is_ours || is_shaped).then_some(fields)
    }

    /// The secrets of a line with HA1. They hold for the bare user and for `user@domain` alike: who
    /// made them knows which of the two went into them.
    fn kept(&mut self, number: usize, fields: &[&str], realm: &str) -> Result<Vec<Ha1>, Wrong> {
        if fields[0] != realm {
            let message = format!("the realm `{}` is never offered to this user", fields[0]);
            return wrong(message, "HA1 holds for one realm: the `realm` of [auth], or the domain");
        }
        if fields.len() > 3 {
            return wrong("there are too many fields", FORMS);
        }
        let kinds = [(HashFunction::Md5, "MD5", 32), (HashFunction::Sha256, "SHA-256", 64)];
        let mut secrets = Vec::new();
        for ((function, name, digits), text) in kinds.into_iter().zip(&fields[1..]) {
            let Some(hash) = read_hex(function, text.as_bytes()) else {
                let message = format!("HA1-{name} must be exactly {digits} hexadecimal digits");
                return wrong(message, FORMS);
            };
            for with_domain in [false, true] {
                secrets.push(Ha1 { function, with_domain, bytes: hash.padded() });
            }
        }
        for algorithm in self.rules.algorithms {
            if !secrets.iter().any(|ha1| ha1.function == algorithm.function) {
                self.lacking.entry(algorithm.name()).or_insert((number, 0)).1 += 1;
            }
        }
        Ok(secrets)
    }

    /// The secrets of a password, for every function that is offered, and both forms of the name.
    fn hashed(&self, user: &str, aor: &str, realm: &str, password: &str) -> Vec<Ha1> {
        let mut secrets: Vec<Ha1> = Vec::new();
        for function in self.rules.algorithms.iter().map(|algorithm| algorithm.function) {
            if secrets.iter().any(|ha1| ha1.function == function) {
                continue;
            }
            for (with_domain, name) in [(false, user), (true, aor)] {
                let parts = [name.as_bytes(), realm.as_bytes(), password.as_bytes()];
                let bytes = Hash::of(function, &parts).padded();
                secrets.push(Ha1 { function, with_domain, bytes });
            }
        }
        secrets
    }

    fn finish(mut self) -> (Users, Vec<LineFault>) {
        for (algorithm, (line, count)) in self.lacking {
            let message = format!("{count} user(s) from here on have no HA1 for {algorithm}");
            let hint = "clients that choose it cannot log in: add it, or do not offer it";
            self.faults.push(LineFault { line, is_error: false, message, hint });
        }
        self.faults.sort_by_key(|fault| fault.line);
        (self.users, self.faults)
    }
}

/// 64 bits that change with the user's secrets and that nobody can choose who does not know them.
fn id_of(aor: &str, secrets: &[Ha1]) -> UserId {
    let mut parts: Vec<&[u8]> = vec![aor.as_bytes()];
    parts.extend(secrets.iter().map(|ha1| ha1.bytes.as_slice()));
    let hash = Hash::of(HashFunction::Sha256, &parts).padded();
    UserId::from_bits(u64::from_be_bytes(std::array::from_fn(|at| hash[at])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: &str = "939e7578ed9e3c518a452acee763bce9";

    fn read(text: &str) -> (Users, Vec<LineFault>) {
        read_with(text, None, &["SHA-256", "MD5"])
    }

    fn read_with(text: &str, realm: Option<&str>, names: &[&str]) -> (Users, Vec<LineFault>) {
        let domains = ["example.com".to_owned(), "example.org".to_owned()];
        let algorithms: Vec<Algorithm> =
            names.iter().map(|name| Algorithm::of_name(name.as_bytes()).unwrap()).collect();
        parse(text, &Rules { domains: &domains, realm, algorithms: &algorithms })
    }

    #[test]
    fn passwords_are_hashed_for_both_forms_of_the_name() {
        let text = "# staff\n\n  alice:wonder:land \nbob@Example.ORG:builder\r\n";
        let (users, faults) = read(text);
        assert_eq!(faults, []);
        assert_eq!(users.len(), 2);
        let alice = users.by_aor(b"alice@example.com").expect("a bare user is of the first domain");
        let of = |name: &str, realm: &str, password: &str, function| {
            Hash::of(function, &[name.as_bytes(), realm.as_bytes(), password.as_bytes()]).padded()
        };
        for function in [HashFunction::Md5, HashFunction::Sha256] {
            let expected = of("alice", "example.com", "wonder:land", function);
            assert_eq!(alice.secret(function, false), Some(&expected), "{function:?}");
            let expected = of("alice@example.com", "example.com", "wonder:land", function);
            assert_eq!(alice.secret(function, true), Some(&expected), "{function:?}");
        }
        assert_eq!(alice.secret(HashFunction::Sha512_256, false), None);
        let bob = users.by_aor(b"bob@example.org").expect("his domain is in lower case");
        let expected = of("bob", "example.org", "builder", HashFunction::Md5);
        assert_eq!(bob.secret(HashFunction::Md5, false), Some(&expected));
        let (users, _) = read_with("bob@example.org:builder", Some("sip"), &["MD5"]);
        let bob = users.by_aor(b"bob@example.org").unwrap();
        let expected = of("bob", "sip", "builder", HashFunction::Md5);
        assert_eq!(bob.secret(HashFunction::Md5, false), Some(&expected), "the realm set for all");
    }

    #[test]
    fn ha1_is_kept_as_it_is() {
        let text = format!("a@example.com:example.com:{}:{}", MD5.to_uppercase(), MD5.repeat(2));
        let (users, faults) = read(&text);
        assert_eq!(faults, []);
        let user = users.by_aor(b"a@example.com").unwrap();
        let md5 = read_hex(HashFunction::Md5, MD5.as_bytes()).unwrap().padded();
        assert_eq!(user.secret(HashFunction::Md5, false), Some(&md5));
        assert_eq!(user.secret(HashFunction::Md5, true), Some(&md5));
        assert!(user.secret(HashFunction::Sha256, false).is_some());
    }

    #[test]
    fn every_fault_has_its_line_and_shows_no_secret() {
        let sha = MD5.repeat(2);
        for (line, expected) in [
            ("secretword".to_owned(), "there is no `:`"),
            ("alice:".to_owned(), "the password is empty"),
            (":secretword".to_owned(), "the user's name is empty"),
            ("al ice:secretword".to_owned(), "the user's name is empty or has space"),
            ("a@elsewhere.example:secretword".to_owned(), "`elsewhere.example` is not a domain"),
            (format!("a@example.com:example.com:{}", &MD5[1..]), "HA1-MD5 must be exactly 32"),
            (format!("a@example.com:example.com:{MD5}0"), "HA1-MD5 must be exactly 32"),
            (format!("a@example.com:example.com:{MD5}:{}", &sha[1..]), "HA1-SHA-256 must be"),
            (format!("a@example.com:example.com:{MD5}:{sha}:x"), "there are too many fields"),
            (format!("a@example.com:example.org:{MD5}"), "the realm `example.org` is never"),
            (format!("a@example.com:other:{MD5}"), "the realm `other` is never offered"),
            (format!("a:example.com:{MD5}"), "`a` with HA1 needs its domain"),
            (format!("a:{}", "x".repeat(USER_LINE_BYTES_MAX)), "the line is too long"),
        ] {
            let (users, faults) = read(&format!("good:secretword\n{line}\n"));
            assert_eq!(users.len(), 1, "{line}");
            assert_eq!((faults.len(), faults[0].line, faults[0].is_error), (1, 2, true), "{line}");
            assert!(faults[0].message.starts_with(expected), "{line}: {}", faults[0].message);
            let shown = format!("{} {}", faults[0].message, faults[0].hint);
            assert!(!shown.contains("secretword") && !shown.contains(&MD5[1..]), "{shown}");
        }
        let (users, faults) = read("a:x\nb:y\nA@example.com:z\na@EXAMPLE.com:w\n");
        assert_eq!(users.len(), 3, "users differ by case, domains do not");
        assert_eq!((faults.len(), faults[0].line), (1, 4));
        assert_eq!(faults[0].message, "`a@example.com` is there twice");
    }

    #[test]
    fn users_whom_an_offered_algorithm_locks_out_are_told_of() {
        let text = format!("a@example.com:example.com:{MD5}\nb@example.com:example.com:{MD5}\n");
        let (users, faults) = read(&text);
        assert_eq!((users.len(), faults.len()), (2, 1));
        assert_eq!((faults[0].line, faults[0].is_error), (1, false));
        assert!(faults[0].message.contains("2 user(s)"), "{}", faults[0].message);
        assert_eq!(read_with(&text, None, &["MD5"]).1, []);
    }

    #[test]
    fn another_password_is_another_id() {
        let id = |text: &str| read(text).0.by_aor(b"a@example.com").unwrap().id;
        assert_eq!(id("a:x"), id("b:y\na:x"));
        assert_ne!(id("a:x"), id("a:y"));
    }
}
