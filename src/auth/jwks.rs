//! The file of keys that may sign tokens: a JWK Set (RFC 7517 §5) of RSA, EC and OKP public keys (RFC
//! 7518 §6, RFC 8037 §2). Each is made ready here, so that a check of a signature parses no key. What
//! tokens are not signed with (symmetric keys, keys for encryption, unknown types) is left out and
//! said (RFC 7517 §5). Absent on purpose: where the text comes from, certificates (`x5c`), and asking
//! an issuer for its keys.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents, VerificationAlgorithm,
};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::Deserialize;

use crate::base::bearer::{JwsAlgorithm, KeySet, SigningKey};
use crate::base::limits::{TOKEN_KEYS_MAX, TOKEN_RSA_BITS};

use super::ticket::key_id;
use super::users::LineFault;

/// A JWK Set; each key is read by itself, so that one does not spoil the others.
#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// The members of a JWK that matter.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

/// A key and the algorithms that it may be used with.
type Ways = Vec<(JwsAlgorithm, ParsedPublicKey)>;

const RSA: [(JwsAlgorithm, &RsaParameters); 6] = [
    (JwsAlgorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256),
    (JwsAlgorithm::Rs384, &RSA_PKCS1_2048_8192_SHA384),
    (JwsAlgorithm::Rs512, &RSA_PKCS1_2048_8192_SHA512),
    (JwsAlgorithm::Ps256, &RSA_PSS_2048_8192_SHA256),
    (JwsAlgorithm::Ps384, &RSA_PSS_2048_8192_SHA384),
    (JwsAlgorithm::Ps512, &RSA_PSS_2048_8192_SHA512),
];

/// Reads the whole file: the keys that can be used, and what is wrong with it.
pub fn parse(text: &str) -> (KeySet, Vec<LineFault>) {
    let mut set = KeySet::default();
    let mut faults = Vec::new();
    let hint = "a JWK Set: {\"keys\": [{\"kty\": \"EC\", \"kid\": \"1\", …}]}";
    let mut tell = |line, is_error, message: String, hint| {
        faults.push(LineFault { line, is_error, message, hint });
    };
    let found: Set = match serde_json::from_str(text) {
        Ok(found) => found,
        Err(error) => {
            let message = format!("it is no JWK Set: {error}");
            tell(error.line().max(1), true, message, hint);
            return (set, faults);
        }
    };
    if found.keys.len() > TOKEN_KEYS_MAX {
        let message = format!("there are more than {TOKEN_KEYS_MAX} keys");
        tell(1, true, message, "leave those out that sign no more");
        return (set, faults);
    }
    for (at, value) in found.keys.into_iter().enumerate() {
        let number = at + 1;
        let skipped = |why: &str| format!("key {number} is not used: {why}");
        let jwk: Jwk = match serde_json::from_value(value) {
            Ok(jwk) => jwk,
            Err(error) => {
                tell(1, false, skipped(&error.to_string()), "see RFC 7517 §4");
                continue;
            }
        };
        if jwk.d.is_some() {
            let message = format!("key {number} has its private part");
            tell(1, false, message, "leave out all but the public part: nothing else is needed");
        }
        match read(&jwk) {
            Ok(key) if set.keys.iter().any(|one| is_same(one, &key)) => {
                tell(1, false, skipped("another one has its name and algorithm"), "remove one");
            }
            Ok(key) => set.keys.push(key),
            Err(why) => tell(1, false, skipped(&why), "remove it, or give it what it lacks"),
        }
    }
    if set.keys.is_empty() {
        tell(1, true, "there is no key that can sign tokens".to_owned(), hint);
    }
    (set, faults)
}

/// Whether a token could mean either.
fn is_same(one: &SigningKey, other: &SigningKey) -> bool {
    let shares = |(algorithm, _): &(JwsAlgorithm, _)| one.for_algorithm(*algorithm).is_some();
    one.kid == other.kid
        && (one.kid.is_some() || one.id == other.id)
        && other.ways.iter().any(shares)
}

fn read(jwk: &Jwk) -> Result<SigningKey, String> {
    if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
        return Err("its `use` is not \"sig\"".to_owned());
    }
    if jwk.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
        return Err("its `key_ops` lack \"verify\"".to_owned());
    }
    let only = match &jwk.alg {
        None => None,
        Some(name) => {
            let algorithm = JwsAlgorithm::of_name(name);
            Some(algorithm.ok_or_else(|| format!("`{name}` signs no token here"))?)
        }
    };
    let (mut ways, bytes) = match jwk.kty.as_str() {
        "RSA" => rsa(jwk)?,
        "EC" => ec(jwk)?,
        "OKP" => okp(jwk)?,
        "oct" => return Err("it is symmetric: who can check with it can sign, too".to_owned()),
        other => return Err(format!("its type `{other}` is unknown")),
    };
    ways.retain(|(algorithm, _)| only.is_none_or(|only| only == *algorithm));
    if ways.is_empty() {
        return Err("its `alg` is not one of its type".to_owned());
    }
    Ok(SigningKey { id: key_id(&bytes), kid: jwk.kid.clone(), ways })
}

fn rsa(jwk: &Jwk) -> Result<(Ways, Vec<u8>), String> {
    let (n, e) = (member(&jwk.n, "n")?, member(&jwk.e, "e")?);
    let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !TOKEN_RSA_BITS.contains(&bits) {
        let (least, most) = (TOKEN_RSA_BITS.start(), TOKEN_RSA_BITS.end());
        return Err(format!("it has {bits} bits, not {least} to {most}"));
    }
    // RFC 8017 §3.1. The library finds out with the first signature, when nobody reads this.
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    if !is_odd(&n) || !is_odd(&e) || e == [1] {
        return Err("its `n` and `e` are not odd, or `e` is 1".to_owned());
    }
    let id = [&n[..], &e[..]].concat();
    let parts = RsaPublicKeyComponents { n, e };
    let ready = |(algorithm, how): (JwsAlgorithm, &'static RsaParameters)| {
        let key = parts.to_parsed_public_key(how).map_err(|_| "it is no RSA key".to_owned())?;
        Ok((algorithm, key))
    };
    let ways: Result<Ways, String> = RSA.into_iter().map(ready).collect();
    Ok((ways?, id))
}

fn ec(jwk: &Jwk) -> Result<(Ways, Vec<u8>), String> {
    let (algorithm, how, size): (_, &'static dyn VerificationAlgorithm, usize) =
        match jwk.crv.as_deref() {
            Some("P-256") => (JwsAlgorithm::Es256, &ECDSA_P256_SHA256_FIXED, 32),
            Some("P-384") => (JwsAlgorithm::Es384, &ECDSA_P384_SHA384_FIXED, 48),
            _ => return Err("its curve is neither P-256 nor P-384".to_owned()),
        };
    let (x, y) = (member(&jwk.x, "x")?, member(&jwk.y, "y")?);
    if x.len() != size || y.len() != size {
        return Err(format!("its `x` and `y` are not {size} bytes each"));
    }
    // The uncompressed form of SEC 1 §2.3.3.
    point(algorithm, how, [&[4], &x[..], &y[..]].concat())
}

fn okp(jwk: &Jwk) -> Result<(Ways, Vec<u8>), String> {
    if jwk.crv.as_deref() != Some("Ed25519") {
        return Err("its curve is not Ed25519".to_owned());
    }
    point(JwsAlgorithm::EdDsa, &ED25519, member(&jwk.x, "x")?)
}

fn point(
    algorithm: JwsAlgorithm,
    how: &'static dyn VerificationAlgorithm,
    bytes: Vec<u8>,
) -> Result<(Ways, Vec<u8>), String> {
    let key = ParsedPublicKey::new(how, &bytes);
    let key = key.map_err(|_| "it is no point of its curve".to_owned())?;
    Ok((vec![(algorithm, key)], bytes))
}

fn member(value: &Option<String>, name: &str) -> Result<Vec<u8>, String> {
    let text = value.as_ref().ok_or_else(|| format!("it lacks `{name}`"))?;
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text);
    bytes.map_err(|_| format!("its `{name}` is not base64url without padding"))
}

#[cfg(test)]
mod tests {
    use super::super::jwt::tests::{ED25519_KEY, P256_KEY, RSA_KEY};
    use super::*;

    fn read_keys(keys: &str) -> (KeySet, Vec<LineFault>) {
        parse(&format!("{{\n\"keys\": [{keys}]}}"))
    }

    #[test]
    fn keys_of_every_kind_are_made_ready() {
        let (set, faults) = read_keys(&format!("{RSA_KEY},{P256_KEY},{ED25519_KEY}"));
        assert_eq!(faults, []);
        let ways = |at: usize| -> Vec<JwsAlgorithm> {
            set.keys[at].ways.iter().map(|(algorithm, _)| *algorithm).collect()
        };
        assert_eq!(ways(0), RSA.map(|(algorithm, _)| algorithm));
        assert_eq!((ways(1), ways(2)), (vec![JwsAlgorithm::Es256], vec![JwsAlgorithm::EdDsa]));
        let ids: Vec<_> = set.keys.iter().map(|key| key.id).collect();
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && set.has(ids[2]));
        let one = RSA_KEY.replace("{", "{\"kid\":\"a\",\"use\":\"sig\",\"alg\":\"PS256\",");
        let (set, faults) = read_keys(&one);
        assert_eq!((faults, set.keys[0].ways.len()), (Vec::new(), 1));
        assert_eq!(set.keys[0].id, ids[0], "a key by another name is the same key");
        assert!(set.find(Some("a"), JwsAlgorithm::Ps256).is_some());
        assert!(set.find(Some("a"), JwsAlgorithm::Rs256).is_none(), "it says which algorithm");
        assert!(set.find(Some("b"), JwsAlgorithm::Ps256).is_none());
        assert!(set.find(None, JwsAlgorithm::Ps256).is_some(), "there is no other");
    }

    #[test]
    fn a_token_without_a_key_name_must_leave_no_choice() {
        let named = |kid: &str, key: &str| key.replace("{", &format!("{{\"kid\":\"{kid}\","));
        let other = ED25519_KEY.replace("11qYAYKxCrfVS", "21qYAYKxCrfVS");
        let keys = [named("a", ED25519_KEY), named("b", P256_KEY), named("c", &other)];
        let (set, _) = read_keys(&keys[..2].join(","));
        assert!(set.find(None, JwsAlgorithm::EdDsa).is_some());
        let (set, faults) = read_keys(&keys.join(","));
        assert_eq!((set.keys.len(), faults), (3, Vec::new()));
        assert!(set.find(None, JwsAlgorithm::EdDsa).is_none());
        assert!(set.find(None, JwsAlgorithm::Es256).is_some());
    }

    #[test]
    fn what_cannot_sign_is_left_out_and_said() {
        let short = "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}";
        let with = |key: &str, member: &str| key.replace("{", &format!("{{{member},"));
        for (key, part) in [
            ("{\"kty\":\"oct\",\"k\":\"AAAA\"}".to_owned(), "symmetric"),
            ("{\"kty\":\"XYZ\"}".to_owned(), "type `XYZ` is unknown"),
            ("{\"kid\":\"a\"}".to_owned(), "missing field `kty`"),
            ("7".to_owned(), "key 2 is not used"),
            (short.to_owned(), "it has 17 bits"),
            ("{\"kty\":\"RSA\",\"n\":\"\",\"e\":\"AQAB\"}".to_owned(), "it has 0 bits"),
            (RSA_KEY.replace("\"AQAB\"", "\"AAEAAQ\""), "no RSA key"),
            (RSA_KEY.replace("\"AQAB\"", "\"AQ\""), "are not odd"),
            (RSA_KEY.replace("\"AQAB\"", "\"Ag\""), "are not odd"),
            (RSA_KEY.replace("yuXpoQ", "yuXpoA"), "are not odd"),
            (with(RSA_KEY, "\"use\":\"enc\""), "`use`"),
            (with(RSA_KEY, "\"key_ops\":[\"encrypt\"]"), "`key_ops`"),
            (with(RSA_KEY, "\"alg\":\"HS256\""), "`HS256` signs no token"),
            (with(RSA_KEY, "\"alg\":\"none\""), "`none` signs no token"),
            (with(RSA_KEY, "\"alg\":\"ES256\""), "not one of its type"),
            (P256_KEY.replace("P-256", "P-521"), "neither P-256 nor P-384"),
            (P256_KEY.replace("P-256", "P-384"), "not 48 bytes"),
            (P256_KEY.replace("\"y\"", "\"z\""), "it lacks `y`"),
            (P256_KEY.replace("x_FEzRu9", "x_FEzRu8"), "no point"),
            (ED25519_KEY.replace("Ed25519", "X25519"), "not Ed25519"),
            (ED25519_KEY.replace("HURo", "HURo="), "not base64url"),
            (ED25519_KEY.to_owned(), "another one has its name"),
        ] {
            let (set, faults) = read_keys(&format!("{ED25519_KEY},{key}"));
            assert_eq!((set.keys.len(), faults.len()), (1, 1), "{key}: {faults:?}");
            assert!(!faults[0].is_error && faults[0].message.contains(part), "{faults:?}");
            let (_, faults) = read_keys(&key);
            assert_eq!(
                faults.last().is_some_and(|it| it.is_error),
                part != "another one has its name"
            );
        }
        let private = with(ED25519_KEY, "\"d\":\"nWGxne_9WmC6hEr0\"");
        let (set, faults) = read_keys(&private);
        assert!(set.keys.len() == 1 && faults[0].message.contains("private"), "{faults:?}");
        assert!(!faults[0].message.contains("nWGx"));
    }

    #[test]
    fn what_is_no_set_is_an_error_with_its_line() {
        for (text, line) in [("", 1), ("{\n\n", 3), ("[]", 1), ("{\"keys\": 7}", 1)] {
            let (set, faults) = parse(text);
            assert!(set.keys.is_empty() && faults.len() == 1, "{text}");
            assert!(faults[0].is_error && faults[0].line == line, "{text}: {faults:?}");
        }
        let many = vec!["{}"; TOKEN_KEYS_MAX + 1].join(",");
        let (_, faults) = read_keys(&many);
        assert!(faults.len() == 1 && faults[0].message.contains("more than 64"));
    }
}
