//! Entries for fuzzing: what clients show, and what stands in the users file.

use crate::base::users::{Algorithm, HashFunction};

use super::credentials::{Credentials, unescape_into};
use super::users::{Rules, parse};

/// Credentials: what is understood of a value is a part of it.
pub fn credentials(value: &[u8]) {
    let Ok(Some(found)) = Credentials::parse(value) else { return };
    let within = value.as_ptr_range();
    let always = [found.username, found.realm, found.nonce, found.uri, found.response];
    let maybe = [found.algorithm, found.cnonce, found.qop, found.nc];
    for part in always.into_iter().chain(maybe.into_iter().flatten()) {
        let part = part.as_ptr_range();
        assert!(within.start <= part.start && part.end <= within.end);
    }
    let mut name = Vec::new();
    unescape_into(found.username, &mut name);
    assert!(name.len() <= found.username.len());
}

/// A users file: each line that counts is a user or has a fault, in order, and whoever is a user is
/// found by address and id.
pub fn users(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let domains = ["example.com".to_owned(), "example.org".to_owned()];
    let algorithms: Vec<Algorithm> = Algorithm::ALL.into_iter().map(|(_, it)| it).collect();
    for realm in [None, Some("a realm")] {
        let (users, faults) =
            parse(&text, &Rules { domains: &domains, realm, algorithms: &algorithms });
        let is_line = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with('#');
        let errors = faults.iter().filter(|fault| fault.is_error).count();
        assert_eq!(users.len() + errors, text.lines().filter(is_line).count());
        assert!(faults.is_sorted_by_key(|fault| fault.line));
        for line in text.lines().filter(is_line) {
            let name = line.trim().split(':').next().unwrap_or_default();
            let aor =
                if name.contains('@') { name.to_owned() } else { format!("{name}@example.com") };
            let Some(user) = users.by_aor(aor.as_bytes()) else { continue };
            assert_eq!(users.aor_of(user.id), Some(&user.aor));
            assert!(user.secret(HashFunction::Md5, false).is_some());
        }
    }
}
