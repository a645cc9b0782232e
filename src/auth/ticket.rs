//! Time-limited credentials, as TURN servers have them (draft-uberti-behave-turn-rest §2.2): the
//! username is `expiry:user`, the password the base64 of its HMAC under a secret that we share with
//! whoever issues them. Nothing is kept of them: whoever has the secret can make them. Absent on
//! purpose: the digest that such a password goes into (`digest`), and what is proved (`verify`).

use aws_lc_rs::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256};
use base64::prelude::{BASE64_STANDARD, Engine as _};

use crate::base::identity::{HmacFunction, KeyId, SharedSecret};
use crate::base::limits::{SHARED_SECRET_BYTES_MIN, SHARED_SECRETS_MAX};
use crate::base::users::HashFunction;

use super::digest::Hash;

/// Digits of a time in seconds: enough for 30,000 years.
const EXPIRY_DIGITS_MAX: usize = 12;
/// Base64 of the longest HMAC.
const PASSWORD_CHARS_MAX: usize = 44;

/// The username of time-limited credentials, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket<'a> {
    /// From this second since 1970 on it is good for nothing.
    pub until: u64,
    /// Whom it is for: `user` or `user@domain`.
    pub user: &'a [u8],
}

impl<'a> Ticket<'a> {
    /// Reads a username; `None` when it is not of this kind. Such names cannot stand in a users
    /// file, where the first colon ends the name.
    pub fn read(username: &'a [u8]) -> Option<Ticket<'a>> {
        let colon = memchr::memchr(b':', username)?;
        let (expiry, user) = (&username[..colon], &username[colon + 1..]);
        let is_number = !expiry.is_empty() && expiry.iter().all(u8::is_ascii_digit);
        if !is_number || expiry.len() > EXPIRY_DIGITS_MAX || user.is_empty() {
            return None;
        }
        let until = expiry.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        Some(Ticket { until, user })
    }
}

/// The password of time-limited credentials.
pub struct Password {
    text: [u8; PASSWORD_CHARS_MAX],
    len: usize,
}

impl Password {
    /// The one that belongs to a username under that secret.
    pub fn of(function: HmacFunction, secret: &SharedSecret, username: &[u8]) -> Password {
        let algorithm = match function {
            HmacFunction::Sha1 => HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            HmacFunction::Sha256 => HMAC_SHA256,
        };
        let tag = hmac::sign(&hmac::Key::new(algorithm, &secret.bytes), username);
        let mut text = [0; PASSWORD_CHARS_MAX];
        let len = BASE64_STANDARD.encode_slice(tag.as_ref(), &mut text);
        Password { text, len: len.expect("the text of the longest HMAC fits") }
    }

    /// Its characters.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// Reads a file of secrets: one a line, the first is no better than the second. `#` begins a
/// comment line.
///
/// # Errors
/// The line, from 1, and what is wrong with it. Never shows a secret.
pub fn parse_secrets(text: &str) -> Result<Vec<SharedSecret>, (usize, String)> {
    let mut secrets: Vec<SharedSecret> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fault = |message: String| Err((at + 1, message));
        if line.len() < SHARED_SECRET_BYTES_MIN {
            return fault(format!("a secret is shorter than {SHARED_SECRET_BYTES_MIN} characters"));
        }
        if secrets.len() == SHARED_SECRETS_MAX {
            return fault(format!("there are more than {SHARED_SECRETS_MAX} secrets"));
        }
        let id = key_id(line.as_bytes());
        if secrets.iter().any(|secret| secret.id == id) {
            return fault("a secret is there twice".to_owned());
        }
        secrets.push(SharedSecret { id, bytes: line.as_bytes().into() });
    }
    if secrets.is_empty() {
        return Err((1, "there is no secret".to_owned()));
    }
    Ok(secrets)
}

/// The name of a key that vouches, from what it consists of.
pub fn key_id(key: &[u8]) -> KeyId {
    let hash = Hash::of(HashFunction::Sha256, &[key]).padded();
    KeyId(u64::from_be_bytes(std::array::from_fn(|at| hash[at])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SharedSecret {
        SharedSecret { id: KeyId(1), bytes: text.as_bytes().into() }
    }

    /// Of `printf %s 1893456000:alice | openssl dgst -sha1 -hmac 'north wind and sun' -binary |
    /// base64`, and the same with `-sha256`.
    #[test]
    fn passwords_are_those_that_openssl_computes() {
        let secret = secret("north wind and sun");
        for (function, expected) in [
            (HmacFunction::Sha1, "o1ZMqPhnNag3G6xUCfxHlDJahrA="),
            (HmacFunction::Sha256, "AqflwsiFk90sgfMEBGBlFk9K8OijS+paTXeFCvfb/cQ="),
        ] {
            let password = Password::of(function, &secret, b"1893456000:alice");
            assert_eq!(std::str::from_utf8(password.as_bytes()), Ok(expected), "{function:?}");
        }
    }

    #[test]
    fn usernames_with_an_expiry_are_told_from_others() {
        let read = |text: &'static str| Ticket::read(text.as_bytes());
        let whole = Ticket { until: 1_893_456_000, user: b"alice@example.com" };
        assert_eq!(read("1893456000:alice@example.com"), Some(whole));
        assert_eq!(read("0:a:b"), Some(Ticket { until: 0, user: b"a:b" }));
        assert_eq!(read("999999999999:a").map(|it| it.until), Some(999_999_999_999));
        for text in ["", ":", ":a", "1:", "alice", "1893456000", "x1:a", "1x:a", "+1:a", " 1:a"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read("1000000000000:a"), None, "too many digits");
    }

    #[test]
    fn a_file_of_secrets_is_judged_and_not_shown() {
        let one = "a secret of many words";
        let two = "another that will follow";
        let found = parse_secrets(&format!("# ours\n\n{one}\r\n  {two}\n")).expect("two secrets");
        let bytes: Vec<&[u8]> = found.iter().map(|secret| &*secret.bytes).collect();
        assert_eq!(bytes, [one.as_bytes(), two.as_bytes()]);
        assert_ne!(found[0].id, found[1].id);
        assert_eq!(found[0].id, parse_secrets(one).unwrap()[0].id, "wherever it stands");
        for (text, line, part) in [
            ("".to_owned(), 1, "no secret"),
            ("# none".to_owned(), 1, "no secret"),
            (format!("{one}\nshort secret\n"), 2, "shorter than 16"),
            (format!("{one}\n\n{one}\n"), 3, "twice"),
            (format!("{one}\n{two}\na third of these secrets\n"), 3, "more than 2"),
        ] {
            let (at, message) = parse_secrets(&text).expect_err(&text);
            assert!(at == line && message.contains(part), "{at}: {message}");
            assert!(!message.contains("words") && !message.contains("short secret"), "{message}");
        }
    }
}
