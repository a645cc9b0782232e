//! Entries for fuzzing: what clients show, and what stands in the files of users and keys.

use std::sync::Arc;
use std::time::Duration;

use crate::base::bearer::{Bearer, UpgradeToken};
use crate::base::config::{Auth, Config, Node, Registrar, Timers};
use crate::base::limits::{Limits, TOKEN_KEYS_MAX};
use crate::base::users::{Algorithm, HashFunction};

use super::credentials::{Credentials, unescape_into};
use super::users::{Rules, parse};
use super::{jwks, jwt};

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

/// A token: whatever it says, nobody has signed it, and whom it names is a user of ours.
pub fn jwt(bytes: &[u8]) {
    const UNIX: u64 = 1_700_000_000;
    let config = config_of(&["example.com", "example.org"]);
    for (audience, scope) in [(&["sip"][..], &["phone"][..]), (&[], &[])] {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let bearer = Bearer {
            keys: Arc::new(jwks::parse(KEYS).0),
            realm: None,
            issuer: None,
            audience: texts(audience),
            user_claim: if audience.is_empty() { "iss" } else { "sub" }.to_owned(),
            scope: texts(scope),
            authz_server: "https://id.example.com".to_owned(),
            leeway: Duration::from_secs(30),
            grace: Duration::from_secs(30),
            upgrade: UpgradeToken::Optional,
            cookie: None,
        };
        let Ok(found) = jwt::read(bytes, &bearer, &config, UNIX) else { continue };
        assert!(!found.is_signed(), "there is no such signature");
        assert!(found.guest.until > UNIX && found.guest.by_token);
        let at = memchr::memrchr(b'@', &found.guest.aor).expect("an address of record");
        assert!(at > 0 && config.is_our_domain(&found.guest.aor[at + 1..]));
    }
}

/// A file of keys: what can be used is ready for an algorithm, and a file without one is an error.
pub fn jwks(bytes: &[u8]) {
    let (set, faults) = jwks::parse(&String::from_utf8_lossy(bytes));
    assert!(set.keys.len() <= TOKEN_KEYS_MAX);
    assert_eq!(set.keys.is_empty(), faults.iter().any(|fault| fault.is_error));
    for key in &set.keys {
        assert!(!key.ways.is_empty() && set.has(key.id));
        for (algorithm, ready) in &key.ways {
            assert!(key.for_algorithm(*algorithm).is_some());
            assert!(ready.verify_sig(b"a.b", b"").is_err());
        }
    }
}

/// RFC 8037 §A.2, by the name of the samples and by none.
const KEYS: &str = "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"a\",\
    \"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}";

/// A configuration with nothing but these domains.
pub(super) fn config_of(domains: &[&str]) -> Config {
    Config {
        node: Node {
            name: "fuzz".to_owned(),
            domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        },
        listeners: Vec::new(),
        registrar: Registrar::default(),
        auth: Auth::default(),
        upstreams: Vec::new(),
        routes: Vec::new(),
        timers: Timers::default(),
        limits: Limits::default(),
    }
}
