//! A client's side of digest authentication (RFC 7616 §3.4), of its own: what it shares with the
//! program are the hash functions.

use std::sync::Arc;
use std::time::Duration;

use md5::Md5;
use md5::digest::Digest as _;
use sha2::{Sha256, Sha512_256};
use sipring::auth::ticket::parse_secrets;
use sipring::auth::users::{Rules, parse};
use sipring::base::config::{AuthMethod, Config, Digest};
use sipring::base::identity::{HmacFunction, SharedSecrets};
use sipring::base::users::Algorithm;

use super::text::Sip;

/// What tests change of the settings.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    pub users: &'a str,
    pub realm: Option<&'a str>,
    pub algorithms: &'a [&'a str],
    pub auth_int: bool,
    pub nonce_lifetime: Duration,
    /// What stands in the file of shared secrets; empty: there is none.
    pub secrets: &'a str,
    pub hmac: HmacFunction,
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Settings {
            users: "",
            realm: None,
            algorithms: &["SHA-256", "MD5"],
            auth_int: false,
            nonce_lifetime: Duration::from_secs(3600),
            secrets: "",
            hmac: HmacFunction::Sha1,
        }
    }
}

impl Settings<'_> {
    fn shared_secrets(&self) -> Option<Arc<SharedSecrets>> {
        let secrets = Some(self.secrets).filter(|text| !text.is_empty());
        let secrets = secrets.map(|text| parse_secrets(text).expect("secrets"))?;
        Some(Arc::new(SharedSecrets { hmac: self.hmac, secrets }))
    }
}

/// The configuration with digest authentication.
pub fn with_digest(mut config: Config, settings: &Settings<'_>) -> Config {
    let named = |name: &&str| Algorithm::of_name(name.as_bytes()).expect("an algorithm");
    let algorithms: Vec<Algorithm> = settings.algorithms.iter().map(named).collect();
    let rules =
        Rules { domains: &config.node.domains, realm: settings.realm, algorithms: &algorithms };
    let (users, faults) = parse(settings.users, &rules);
    assert!(faults.iter().all(|fault| !fault.is_error), "{faults:?}");
    config.auth.method = AuthMethod::Digest(Box::new(Digest {
        realm: settings.realm.map(str::to_owned),
        algorithms,
        auth_int: settings.auth_int,
        nonce_lifetime: settings.nonce_lifetime,
        users: Arc::new(users),
        shared_secrets: settings.shared_secrets(),
    }));
    config
}

/// One challenge, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    pub realm: String,
    pub nonce: String,
    pub algorithm: String,
    pub qop: String,
    pub stale: bool,
}

impl Challenge {
    /// Every challenge of a 401 or 407, in order.
    pub fn all(answer: &Sip) -> Vec<Challenge> {
        let name = match answer.status() {
            401 => "WWW-Authenticate",
            407 => "Proxy-Authenticate",
            _ => panic!("no challenge: {answer:#?}"),
        };
        let digests = answer.all(name).filter(|value| value.starts_with("Digest "));
        digests.map(Challenge::read).collect()
    }

    /// What JsSIP and SIP.js take: the last.
    pub fn last(answer: &Sip) -> Challenge {
        Challenge::all(answer).pop().expect("a challenge")
    }

    fn read(value: &str) -> Challenge {
        let params = value.strip_prefix("Digest ").expect("a digest");
        let param = |name: &str| {
            let (_, rest) = params.split_once(&format!("{name}="))?;
            Some(match rest.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next()?.to_owned(),
                None => rest.split(',').next()?.to_owned(),
            })
        };
        let there = |name: &str| param(name).unwrap_or_else(|| panic!("no {name} in {value}"));
        Challenge {
            realm: there("realm"),
            nonce: there("nonce"),
            algorithm: there("algorithm"),
            qop: there("qop"),
            stale: param("stale").is_some_and(|stale| stale == "true"),
        }
    }
}

/// The answer to a challenge; every field can be changed before it is written.
#[derive(Clone, Debug)]
pub struct Response {
    pub username: String,
    pub password: String,
    pub challenge: Challenge,
    pub method: String,
    pub uri: String,
    pub nc: u32,
    pub cnonce: String,
    pub qop: String,
    pub body: String,
}

impl Response {
    /// Of a user to a challenge, for one request.
    pub fn new(challenge: &Challenge, login: (&str, &str), method: &str, uri: &str) -> Response {
        Response {
            username: login.0.to_owned(),
            password: login.1.to_owned(),
            challenge: challenge.clone(),
            method: method.to_owned(),
            uri: uri.to_owned(),
            nc: 1,
            cnonce: "0a4f113b".to_owned(),
            qop: "auth".to_owned(),
            body: String::new(),
        }
    }

    pub fn nc(self, nc: u32) -> Response {
        Response { nc, ..self }
    }

    /// The digest itself.
    pub fn digest(&self) -> String {
        let Response { username, password, challenge, method, uri, nc, cnonce, qop, body } = self;
        let Challenge { realm, nonce, algorithm, .. } = challenge;
        let (function, session) = match algorithm.strip_suffix("-sess") {
            Some(function) => (function, true),
            None => (algorithm.as_str(), false),
        };
        let hash = |text: String| hash(function, &text);
        let mut a1 = hash(format!("{username}:{realm}:{password}"));
        if session {
            a1 = hash(format!("{a1}:{nonce}:{cnonce}"));
        }
        let a2 = match qop.as_str() {
            "auth-int" => hash(format!("{method}:{uri}:{}", hash(body.clone()))),
            _ => hash(format!("{method}:{uri}")),
        };
        hash(format!("{a1}:{nonce}:{nc:08x}:{cnonce}:{qop}:{a2}"))
    }

    /// The value of Authorization or Proxy-Authorization.
    pub fn value(&self) -> String {
        let Response { username, challenge, uri, nc, cnonce, qop, .. } = self;
        let Challenge { realm, nonce, algorithm, .. } = challenge;
        let response = self.digest();
        format!(
            "Digest username=\"{username}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\", algorithm={algorithm}, cnonce=\"{cnonce}\", qop={qop}, \
             nc={nc:08x}"
        )
    }
}

fn hash(function: &str, text: &str) -> String {
    let bytes = match function {
        "MD5" => Md5::digest(text).to_vec(),
        "SHA-256" => Sha256::digest(text).to_vec(),
        "SHA-512-256" => Sha512_256::digest(text).to_vec(),
        other => panic!("{other}"),
    };
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
