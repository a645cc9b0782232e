//! One token: a JWT (RFC 7519) signed in the compact form (RFC 7515 §7.1). What it says is judged
//! before its signature is checked, since a check costs far more: nothing is believed until
//! [`Candidate::is_signed`] says so. Absent on purpose: encrypted tokens (RFC 7516), algorithms of
//! one shared key, and remembering (`tokens`).

use std::borrow::Cow;

use aws_lc_rs::signature::ParsedPublicKey;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::base::bearer::{Bearer, JwsAlgorithm, TokenFault};
use crate::base::config::Config;
use crate::base::identity::{Guest, is_user_name};
use crate::base::limits::{TOKEN_BYTES_MAX, TOKEN_CLAIMS_BYTES_MAX};
use crate::sip::{Scheme, Uri};

use super::verify::guest_aor;

/// The header parameters that decide (RFC 7515 §4.1). One that stands there twice is a fault.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    crit: Option<serde::de::IgnoredAny>,
}

type Claims = Map<String, Value>;

/// A token of which everything is right but perhaps the signature.
pub struct Candidate<'a> {
    /// Who its bearer is, if the signature is right.
    pub guest: Guest,
    key: &'a ParsedPublicKey,
    message: &'a [u8],
    signature: Vec<u8>,
}

impl Candidate<'_> {
    /// Checks the signature: 16 µs (RS256) to 52 µs (ES256), and more with larger keys.
    pub fn is_signed(&self) -> bool {
        self.key.verify_sig(self.message, &self.signature).is_ok()
    }
}

/// Reads a token and judges all that it says, at that second since 1970.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn read<'a>(
    token: &'a [u8],
    bearer: &'a Bearer,
    config: &Config,
    unix: u64,
) -> Result<Candidate<'a>, TokenFault> {
    let malformed = TokenFault::Malformed;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(malformed);
    }
    let mut parts = token.split(|byte| *byte == b'.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed);
    };
    let message = &token[..header.len() + 1 + payload.len()];
    let header = decode(header)?;
    let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| malformed)?;
    let algorithm = JwsAlgorithm::of_name(&header.alg).filter(|_| header.crit.is_none());
    let algorithm = algorithm.ok_or(TokenFault::Algorithm)?;
    let (known, key) = bearer.keys.find(header.kid.as_deref(), algorithm).ok_or(TokenFault::Key)?;
    let claims: Claims = serde_json::from_slice(&decode(payload)?).map_err(|_| malformed)?;
    let until = judge_times(&claims, bearer, unix)?;
    judge_source(&claims, bearer)?;
    let aor = user(&claims, bearer, config).ok_or(TokenFault::User)?;
    if !has_scope(&claims, &bearer.scope) {
        return Err(TokenFault::Scope);
    }
    let signature = decode(signature)?;
    let guest = Guest { aor: aor.into(), until, key: known.id, by_token: true };
    Ok(Candidate { guest, key, message, signature })
}

fn decode(part: &[u8]) -> Result<Vec<u8>, TokenFault> {
    if part.len() > TOKEN_CLAIMS_BYTES_MAX.div_ceil(3) * 4 {
        return Err(TokenFault::Malformed);
    }
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenFault::Malformed)
}

/// RFC 7519 §4.1.4 and §4.1.5; gives the second from which on it proves nothing.
fn judge_times(claims: &Claims, bearer: &Bearer, unix: u64) -> Result<u64, TokenFault> {
    let leeway = bearer.leeway.as_secs();
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => seconds(value).map(Some).ok_or(TokenFault::Malformed),
    };
    let until = time("exp")?.ok_or(TokenFault::Expired)?.saturating_add(leeway);
    if until <= unix {
        return Err(TokenFault::Expired);
    }
    match time("nbf")? {
        Some(from) if from > unix.saturating_add(leeway) => Err(TokenFault::Early),
        _ => Ok(until),
    }
}

/// A NumericDate (RFC 7519 §2), which may have a fraction.
fn seconds(value: &Value) -> Option<u64> {
    let whole = value.as_u64();
    whole.or_else(|| value.as_f64().filter(|it| (0.0..1e15).contains(it)).map(|it| it as u64))
}

/// RFC 7519 §4.1.1 and §4.1.3: a token with an audience is for nobody else.
fn judge_source(claims: &Claims, bearer: &Bearer) -> Result<(), TokenFault> {
    let is_issuer = match &bearer.issuer {
        Some(issuer) => claims.get("iss").and_then(Value::as_str) == Some(issuer),
        None => true,
    };
    let is_for_us = match claims.get("aud") {
        None => bearer.audience.is_empty(),
        Some(value) => texts(value).any(|text| bearer.audience.iter().any(|it| it == text)),
    };
    if is_issuer && is_for_us { Ok(()) } else { Err(TokenFault::Foreign) }
}

/// A string, or the strings of a list.
fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let list = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    value.as_str().into_iter().chain(list)
}

/// RFC 8693 §4.2: words in one string; some issuers write a list.
fn has_scope(claims: &Claims, wanted: &[String]) -> bool {
    let scope = claims.get("scope");
    let has = |word: &String| {
        let mut words = scope.into_iter().flat_map(texts).flat_map(|text| text.split(' '));
        words.any(|it| it == word)
    };
    wanted.iter().all(has)
}

/// The canonical address of record that the token is for: its claim is `user`, `user@domain`, or a
/// SIP URI. `None` when nobody can have it here.
fn user(claims: &Claims, bearer: &Bearer, config: &Config) -> Option<Vec<u8>> {
    let name = claims.get(&bearer.user_claim)?.as_str()?;
    let is_uri = ["sip:", "sips:"].iter().any(|scheme| {
        name.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    if !is_uri {
        return guest_aor(config, name).map(|aor| aor.to_vec());
    }
    let uri = Uri::parse(name.as_bytes()).ok()?;
    let is_ours = matches!(uri.scheme, Scheme::Sip | Scheme::Sips)
        && uri.user.is_some()
        && config.is_our_domain(uri.host);
    let mut aor = Vec::new();
    uri.aor_into(&mut aor);
    let at = memchr::memrchr(b'@', &aor).filter(|_| is_ours)?;
    std::str::from_utf8(&aor[..at]).is_ok_and(is_user_name).then_some(aor)
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::fuzz::config_of;
    use super::super::jwks;
    use super::*;
    use crate::base::bearer::{KeySet, UpgradeToken};

    /// RFC 7515 §A.2.1.
    pub const RSA_KEY: &str = "{\"kty\":\"RSA\",\"n\":\"\
        ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4\
        d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5re\
        xMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxX\
        FvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ\",\"e\":\"AQAB\"}";
    /// RFC 7515 §A.3.1.
    pub const P256_KEY: &str = "{\"kty\":\"EC\",\"crv\":\"P-256\",\
        \"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\
        \"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}";
    /// RFC 8037 §A.2.
    pub const ED25519_KEY: &str = "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\
        \"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}";

    /// The claims of RFC 7515 §A.2 and §A.3: of joe, until 1300819380.
    const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvb\
        S9pc19yb290Ijp0cnVlfQ";
    /// RFC 7515 §A.2.1.
    const RSA_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AA\
        uHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75v\
        RK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7\
        noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    /// RFC 7515 §A.3.1.
    const P256_SIGNATURE: &str =
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    /// RFC 8037 §A.4, whose payload is no JSON.
    const ED25519_TOKEN: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
        hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    /// Before the claims expire.
    const THEN: u64 = 1_300_000_000;

    fn keys(text: &str) -> KeySet {
        jwks::parse(&format!("{{\"keys\":[{text}]}}")).0
    }

    fn bearer() -> Bearer {
        Bearer {
            keys: Arc::new(keys(&format!("{RSA_KEY},{P256_KEY},{ED25519_KEY}"))),
            realm: None,
            issuer: Some("joe".into()),
            audience: Vec::new(),
            user_claim: "iss".into(),
            scope: Vec::new(),
            authz_server: "https://id.example.com".into(),
            leeway: Duration::from_secs(30),
            grace: Duration::from_secs(30),
            upgrade: UpgradeToken::Optional,
            cookie: None,
        }
    }

    fn rfc_token(header: &str, signature: &str) -> String {
        format!("{}.{CLAIMS}.{signature}", BASE64_URL_SAFE_NO_PAD.encode(header))
    }

    fn judge(token: &str, bearer: &Bearer, unix: u64) -> Result<bool, TokenFault> {
        let config = config_of(&["example.com", "example.org"]);
        read(token.as_bytes(), bearer, &config, unix).map(|candidate| candidate.is_signed())
    }

    #[test]
    fn the_examples_of_the_rfcs() {
        let bearer = bearer();
        for token in [
            rfc_token("{\"alg\":\"RS256\"}", RSA_SIGNATURE),
            rfc_token("{\"alg\":\"ES256\"}", P256_SIGNATURE),
        ] {
            assert_eq!(judge(&token, &bearer, THEN), Ok(true), "{token}");
            let config = config_of(&["example.com"]);
            let found = read(token.as_bytes(), &bearer, &config, THEN).expect("it is good").guest;
            assert_eq!((&*found.aor, found.until), (&b"joe@example.com"[..], 1_300_819_410));
            let end = token.len() - 10;
            let other = if token.as_bytes()[end] == b'A' { "B" } else { "A" };
            let mut bent = token.clone();
            bent.replace_range(end..=end, other);
            assert_eq!(judge(&bent, &bearer, THEN), Ok(false), "another signature");
        }
        let (message, signature) = ED25519_TOKEN.rsplit_once('.').expect("three parts");
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        let (_, key) = bearer.keys.find(None, JwsAlgorithm::EdDsa).expect("it is there");
        assert!(key.verify_sig(message.as_bytes(), &signature).is_ok());
        assert!(key.verify_sig(&message.as_bytes()[1..], &signature).is_err());
    }

    /// A token with these, whose signature is nobody's.
    fn unsigned(header: &str, claims: &str) -> String {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.AAAA", part(header), part(claims))
    }

    #[test]
    fn faults_are_named_before_a_signature_is_checked() {
        use TokenFault::*;
        let mut bearer = bearer();
        bearer.audience = vec!["sip".into(), "edge".into()];
        bearer.user_claim = "sub".into();
        bearer.scope = vec!["phone".into()];
        let good = "{\"iss\":\"joe\",\"aud\":\"sip\",\"sub\":\"ann\",\"exp\":1300000001,\
            \"scope\":\"a phone\"}";
        let ed = "{\"alg\":\"EdDSA\"}";
        assert_eq!(judge(&unsigned(ed, good), &bearer, THEN), Ok(false));
        for (header, fault) in [
            ("{\"alg\":\"none\"}", Algorithm),
            ("{\"alg\":\"HS256\"}", Algorithm),
            ("{\"alg\":\"HS256\",\"kid\":\"a\"}", Algorithm),
            ("{\"alg\":\"eddsa\"}", Algorithm),
            ("{\"alg\":\"ES512\"}", Algorithm),
            ("{\"alg\":\"EdDSA\",\"crit\":[\"b64\"],\"b64\":false}", Algorithm),
            ("{\"alg\":\"ES384\"}", Key),
            ("{\"alg\":\"EdDSA\",\"kid\":\"nobody\"}", Key),
            ("{\"alg\":\"EdDSA\",\"alg\":\"none\"}", Malformed),
            ("{\"alg\":7}", Malformed),
            ("{\"typ\":\"JWT\"}", Malformed),
            ("[]", Malformed),
            ("", Malformed),
        ] {
            assert_eq!(judge(&unsigned(header, good), &bearer, THEN), Err(fault), "{header}");
        }
        for (from, to, fault) in [
            ("1300000001", "1299999970", Expired),
            ("\"exp\"", "\"iat\"", Expired),
            ("1300000001", "\"1300000001\"", Malformed),
            ("1300000001", "-1", Malformed),
            ("1300000001", "null", Malformed),
            ("\"scope\"", "\"nbf\":1300000031,\"scope\"", Early),
            ("\"joe\"", "\"jo\"", Foreign),
            ("\"joe\"", "[\"joe\"]", Foreign),
            ("\"aud\"", "\"azp\"", Foreign),
            ("\"sip\"", "\"SIP\"", Foreign),
            ("\"sip\"", "[]", Foreign),
            ("\"sub\"", "\"name\"", User),
            ("\"ann\"", "7", User),
            ("\"ann\"", "\"\"", User),
            ("\"ann\"", "\"a b\"", User),
            ("\"ann\"", "\"ann@example.net\"", User),
            ("\"ann\"", "\"sip:ann@example.net\"", User),
            ("\"ann\"", "\"sip:example.com\"", User),
            ("\"ann\"", "\"sip:a%20b@example.com\"", User),
            ("phone", "phones", Scope),
            ("\"a phone\"", "null", Scope),
            ("{", "[{", Malformed),
        ] {
            let claims = good.replacen(from, to, 1);
            assert_eq!(judge(&unsigned(ed, &claims), &bearer, THEN), Err(fault), "{claims}");
        }
        for (from, to) in [
            ("1300000001", "1299999971"),
            ("1300000001", "1300000001.5"),
            ("\"scope\"", "\"nbf\":1300000030,\"scope\""),
            ("\"sip\"", "[\"x\",\"edge\"]"),
            ("\"a phone\"", "[\"phone\"]"),
        ] {
            let claims = good.replacen(from, to, 1);
            assert_eq!(judge(&unsigned(ed, &claims), &bearer, THEN), Ok(false), "{claims}");
        }
        assert_eq!(judge(&unsigned(ed, good), &bearer, u64::MAX), Err(Expired), "no clock");
        bearer.audience.clear();
        assert_eq!(judge(&unsigned(ed, good), &bearer, THEN), Err(Foreign), "not for us");
    }

    #[test]
    fn users_are_named_in_three_ways() {
        let config = config_of(&["example.com", "example.org"]);
        let bearer = Bearer { user_claim: "sub".into(), ..bearer() };
        for (name, aor) in [
            ("ann", "ann@example.com"),
            ("ann@Example.ORG", "ann@example.org"),
            ("sip:ann@example.org", "ann@example.org"),
            ("SIPS:a%6en@EXAMPLE.com:5061;user=phone", "ann@example.com"),
            ("auth0|7", "auth0|7@example.com"),
        ] {
            let claims = Claims::from_iter([("sub".to_owned(), Value::from(name))]);
            let found = user(&claims, &bearer, &config);
            assert_eq!(found.as_deref(), Some(aor.as_bytes()), "{name}");
        }
    }

    #[test]
    fn what_is_cut_or_huge_is_malformed() {
        let bearer = bearer();
        let whole = rfc_token("{\"alg\":\"ES256\"}", P256_SIGNATURE);
        for len in 0..whole.len() {
            let found = judge(&whole[..len], &bearer, THEN);
            assert!(matches!(found, Ok(false) | Err(TokenFault::Malformed)), "{len}: {found:?}");
        }
        let huge = format!("{whole}{}", "A".repeat(TOKEN_BYTES_MAX));
        for token in [&*huge, &format!("{whole}."), &format!("{whole}.A.A"), "..", "a.b.c", "é.é.é"]
        {
            assert_eq!(judge(token, &bearer, THEN), Err(TokenFault::Malformed), "{token}");
        }
    }
}
