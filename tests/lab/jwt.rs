//! An issuer of tokens (RFC 7519), of its own: what it shares with the program is the cryptography.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use sipring::auth::jwks;
use sipring::base::bearer::{Bearer, UpgradeToken};
use sipring::base::config::Config;

/// When the tokens of these tests are issued: seconds since 1970.
pub const ISSUED: u64 = 1_800_000_000;

/// A key that signs.
pub enum Signer {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    /// A fresh key of each kind.
    pub fn ed25519() -> Signer {
        Signer::Ed25519(Ed25519KeyPair::generate().expect("a key"))
    }

    pub fn p256() -> Signer {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Signer::P256(pair.expect("a key"))
    }

    pub fn rsa() -> Signer {
        Signer::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")))
    }

    /// The public key as a JWK (RFC 7517 §4).
    pub fn jwk(&self, kid: &str) -> String {
        let members = match self {
            Signer::Ed25519(pair) => {
                let x = base64url(pair.public_key());
                format!("\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"{x}\"")
            }
            Signer::P256(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
                format!("\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"{x}\",\"y\":\"{y}\"")
            }
            Signer::Rsa(pair) => {
                // RFC 8017 §A.1.1: two headers and a zero come before 256 bytes of modulus.
                let n = base64url(&pair.public_key().as_ref()[9..265]);
                format!("\"kty\":\"RSA\",\"n\":\"{n}\",\"e\":\"AQAB\"")
            }
        };
        format!("{{\"kid\":\"{kid}\",{members}}}")
    }

    /// A token with these claims, for the key by that name; `algorithm` decides how it is signed.
    pub fn sign(&self, algorithm: &str, kid: &str, claims: &str) -> String {
        let header = format!("{{\"typ\":\"at+jwt\",\"alg\":\"{algorithm}\",\"kid\":\"{kid}\"}}");
        let message = format!("{}.{}", base64url(header), base64url(claims));
        let bytes = message.as_bytes();
        let random = SystemRandom::new();
        let signature = match self {
            Signer::Ed25519(pair) => pair.sign(bytes).as_ref().to_vec(),
            Signer::P256(pair) => pair.sign(&random, bytes).expect("it signs").as_ref().to_vec(),
            Signer::Rsa(pair) => {
                let how = if algorithm == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let how: &'static dyn aws_lc_rs::signature::RsaEncoding = how;
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(how, &random, bytes, &mut signature).expect("it signs");
                signature
            }
        };
        format!("{message}.{}", base64url(signature))
    }
}

/// An issuer with one key.
pub struct Issuer {
    pub signer: Signer,
}

impl Default for Issuer {
    fn default() -> Issuer {
        Issuer { signer: Signer::ed25519() }
    }
}

impl Issuer {
    /// Its JWK Set.
    pub fn jwks(&self) -> String {
        format!("{{\"keys\":[{}]}}", self.signer.jwk("k"))
    }

    /// A token for a user, good until that second.
    pub fn token(&self, user: &str, until: u64) -> String {
        self.signer.sign("EdDSA", "k", &claims(user, until))
    }
}

/// The claims of a good token.
pub fn claims(user: &str, until: u64) -> String {
    format!(
        "{{\"iss\":\"https://id.example.com\",\"aud\":[\"sip\",\"web\"],\"sub\":\"{user}\",\
         \"exp\":{until},\"scope\":\"openid phone\"}}"
    )
}

/// The settings of bearer authentication with these keys.
pub fn bearer(jwks: &str) -> Bearer {
    let (keys, faults) = jwks::parse(jwks);
    assert_eq!(faults, [], "{jwks}");
    Bearer {
        keys: Arc::new(keys),
        realm: None,
        issuer: Some("https://id.example.com".into()),
        audience: vec!["sip".into()],
        user_claim: "sub".into(),
        scope: vec!["phone".into()],
        authz_server: "https://id.example.com".into(),
        leeway: Duration::from_secs(30),
        grace: Duration::from_secs(20),
        upgrade: UpgradeToken::Optional,
        cookie: Some("session".into()),
    }
}

/// The configuration with bearer authentication.
pub fn with_bearer(mut config: Config, issuer: &Issuer) -> Config {
    config.auth.bearer = Some(Box::new(bearer(&issuer.jwks())));
    config
}
