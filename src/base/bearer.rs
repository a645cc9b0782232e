//! Bearer tokens that are JSON Web Tokens (RFC 7519, RFC 8898), as every shard sees them: what is
//! asked of one, which keys may sign it, and why one is refused. Absent on purpose: reading tokens
//! (`auth/jwt`) and the file of keys (`auth/jwks`), and whatever opaque tokens would need (RFC 7662).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::ParsedPublicKey;

use super::identity::KeyId;

/// The settings of bearer authentication.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// Who may sign tokens.
    pub keys: Arc<KeySet>,
    /// What challenges name as the realm; absent: the domain of the user.
    pub realm: Option<String>,
    /// What `iss` must be; absent: anything.
    pub issuer: Option<String>,
    /// One of these must be in `aud`; empty: tokens have none (RFC 7519 §4.1.3).
    pub audience: Vec<String>,
    /// Which claim names the user.
    pub user_claim: String,
    /// All of these must be in `scope` (RFC 8693 §4.2).
    pub scope: Vec<String>,
    /// Where clients get tokens: an https URI that challenges name (RFC 8898 §4).
    pub authz_server: String,
    /// How far the issuer's clock may be from ours, in whole seconds.
    pub leeway: Duration,
    /// How long a flow may go on after the token that it came by has expired, in whole seconds.
    pub grace: Duration,
    /// What becomes of tokens in WebSocket upgrades.
    pub upgrade: UpgradeToken,
    /// The cookie whose value is a token.
    pub cookie: Option<String>,
}

/// The `upgrade_token` setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeToken {
    /// They are not looked at.
    Ignored,
    /// A token binds the flow to its user; without one SIP asks who it is.
    Optional,
    /// An upgrade without a token gets 401.
    Required,
}

/// A signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1). There is neither `none` nor an HMAC: a
/// public key is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwsAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl JwsAlgorithm {
    /// Every algorithm with its `alg`; Ed25519 has two (RFC 9864 §2.2).
    pub const ALL: [(&'static str, JwsAlgorithm); 10] = [
        ("RS256", JwsAlgorithm::Rs256),
        ("RS384", JwsAlgorithm::Rs384),
        ("RS512", JwsAlgorithm::Rs512),
        ("PS256", JwsAlgorithm::Ps256),
        ("PS384", JwsAlgorithm::Ps384),
        ("PS512", JwsAlgorithm::Ps512),
        ("ES256", JwsAlgorithm::Es256),
        ("ES384", JwsAlgorithm::Es384),
        ("EdDSA", JwsAlgorithm::EdDsa),
        ("Ed25519", JwsAlgorithm::EdDsa),
    ];

    /// The algorithm of that `alg`; case counts.
    pub fn of_name(name: &str) -> Option<JwsAlgorithm> {
        let mut all = JwsAlgorithm::ALL.into_iter();
        all.find(|(known, _)| *known == name).map(|(_, it)| it)
    }
}

/// A public key that may sign tokens.
#[derive(Clone)]
pub struct SigningKey {
    /// Its name among the keys that vouch: of the key itself, whatever it is called.
    pub id: KeyId,
    /// How tokens name it (RFC 7517 §4.5).
    pub kid: Option<String>,
    /// The algorithms that it may be used with, each with the key made ready for it.
    pub ways: Vec<(JwsAlgorithm, ParsedPublicKey)>,
}

impl SigningKey {
    /// The key made ready for an algorithm; `None` when it is not for that one.
    pub fn for_algorithm(&self, algorithm: JwsAlgorithm) -> Option<&ParsedPublicKey> {
        self.ways.iter().find(|(it, _)| *it == algorithm).map(|(_, key)| key)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid.as_deref().unwrap_or("without a name"))
    }
}

/// The keys of one issuer (RFC 7517 §5).
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    /// At most [`super::limits::TOKEN_KEYS_MAX`].
    pub keys: Vec<SigningKey>,
}

impl KeySet {
    /// Whether it has that key.
    pub fn has(&self, id: KeyId) -> bool {
        self.keys.iter().any(|key| key.id == id)
    }

    /// The key that a token names, made ready for its algorithm. A token that names none must leave
    /// no choice.
    pub fn find(
        &self,
        kid: Option<&str>,
        algorithm: JwsAlgorithm,
    ) -> Option<(&SigningKey, &ParsedPublicKey)> {
        let fit = |key| SigningKey::for_algorithm(key, algorithm).map(|ready| (key, ready));
        let is_it = |key: &&SigningKey| kid.is_none() || key.kid.as_deref() == kid;
        let mut fitting = self.keys.iter().filter(is_it).filter_map(fit);
        let found = fitting.next()?;
        (kid.is_some() || fitting.next().is_none()).then_some(found)
    }
}

/// Why a token is refused: its bearer's fault, or its issuer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// It is no signed JWT, is too long, or says something twice.
    Malformed,
    /// Its algorithm is none of ours (`none` and HMACs never are), or it has an extension that must
    /// be understood (`crit`, RFC 7515 §4.1.11).
    Algorithm,
    /// No key of ours is the one that it names, or that one is for another algorithm.
    Key,
    /// The signature is not of that key.
    Signature,
    /// It has expired, or never would.
    Expired,
    /// It is not valid yet.
    Early,
    /// It is another issuer's, or for another audience.
    Foreign,
    /// It names nobody who could be a user of ours.
    User,
    /// It does not have the scope that is asked for.
    Scope,
}

impl TokenFault {
    /// The value of `error` in a challenge (RFC 8898 §4).
    pub const fn error(self) -> &'static str {
        match self {
            TokenFault::Scope => "invalid_scope",
            _ => "invalid_token",
        }
    }
}
