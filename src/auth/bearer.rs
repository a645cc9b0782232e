//! The scheme `Bearer` (RFC 6750, RFC 8898): where a request or an upgrade shows a token, and the
//! challenge that asks for one. Absent on purpose: tokens in bodies (RFC 6750 §2.2), and what a token
//! says.

use crate::base::bearer::{Bearer, TokenFault};
use crate::base::config::Config;
use crate::base::limits::CREDENTIALS_CHECKED_MAX;
use crate::sip::{HeaderName, Message};

use super::tokens::{Bearing, Tokens};
use super::verify::{Verdict, domain_of};

/// The token of credentials of this scheme (RFC 6750 §2.1); `None` for those of another one.
pub fn token_of(credentials: &[u8]) -> Option<&[u8]> {
    let credentials = credentials.trim_ascii();
    let end = credentials.iter().position(u8::is_ascii_whitespace)?;
    let (scheme, token) = credentials.split_at(end);
    scheme.eq_ignore_ascii_case(b"Bearer").then(|| token.trim_ascii_start())
}

/// The token in the query of a URI (RFC 6750 §2.3), which is never escaped: all of its characters
/// are unreserved (RFC 3986 §2.3).
pub fn token_in_query(query: &[u8]) -> Option<&[u8]> {
    let mut parts = query.split(|byte| *byte == b'&');
    parts.find_map(|part| part.strip_prefix(b"access_token="))
}

/// Checks the tokens of a request. JsSIP shows them in Authorization whatever the method, as RFC
/// 8898 §2.1.4 has it; a proxy asks for Proxy-Authorization (§2.3).
pub fn judge(
    tokens: &mut Tokens,
    config: &Config,
    bearer: &Bearer,
    message: Message<'_>,
    bearing: &mut Bearing<'_>,
) -> Verdict {
    let mut verdict = Verdict::Absent;
    let mut checked = 0;
    for name in [HeaderName::Authorization, HeaderName::ProxyAuthorization] {
        if message.header(name).is_none() {
            continue;
        }
        for header in message.headers().filter(|header| header.name == name) {
            let Some(token) = token_of(header.value) else { continue };
            checked += 1;
            if checked > CREDENTIALS_CHECKED_MAX {
                return verdict;
            }
            verdict = verdict.or(tokens.judge(config, bearer, token, bearing));
            if matches!(verdict, Verdict::Proven(..)) {
                return verdict;
            }
        }
    }
    verdict
}

/// Appends the challenge, a header line (RFC 8898 §4).
pub fn challenge(
    config: &Config,
    bearer: &Bearer,
    message: Message<'_>,
    name: HeaderName,
    fault: Option<TokenFault>,
    out: &mut Vec<u8>,
) {
    let realm = bearer.realm.as_deref().unwrap_or_else(|| domain_of(config, message));
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    write_challenge(bearer, realm, fault, out);
}

/// Appends the challenge of a WebSocket upgrade, a header line of HTTP (RFC 6750 §3).
pub fn challenge_upgrade(
    config: &Config,
    bearer: &Bearer,
    fault: Option<TokenFault>,
    out: &mut Vec<u8>,
) {
    let first = config.node.domains.first().map_or("", String::as_str);
    out.extend_from_slice(b"WWW-Authenticate: ");
    write_challenge(bearer, bearer.realm.as_deref().unwrap_or(first), fault, out);
}

fn write_challenge(bearer: &Bearer, realm: &str, fault: Option<TokenFault>, out: &mut Vec<u8>) {
    for part in ["Bearer realm=\"", realm, "\", authz_server=\"", &bearer.authz_server, "\""] {
        out.extend_from_slice(part.as_bytes());
    }
    if !bearer.scope.is_empty() {
        out.extend_from_slice(b", scope=\"");
        for (at, word) in bearer.scope.iter().enumerate() {
            out.extend_from_slice(if at == 0 { b"" } else { b" " });
            out.extend_from_slice(word.as_bytes());
        }
        out.push(b'"');
    }
    if let Some(fault) = fault {
        for part in [", error=\"", fault.error(), "\""] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_credentials() {
        for (text, token) in [
            ("Bearer a.b.c", Some("a.b.c")),
            ("bearer  a.b.c ", Some("a.b.c")),
            ("BEARER\r\n a.b.c", Some("a.b.c")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearera.b.c", None),
            ("Digest username=\"Bearer\"", None),
            ("", None),
        ] {
            assert_eq!(token_of(text.as_bytes()), token.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn tokens_are_found_in_queries() {
        for (text, token) in [
            ("access_token=a.b.c", Some("a.b.c")),
            ("x=1&access_token=a.b.c&y=2", Some("a.b.c")),
            ("access_token=", Some("")),
            ("access_token=a&access_token=b", Some("a")),
            ("xaccess_token=a", None),
            ("ACCESS_TOKEN=a", None),
            ("access_token", None),
            ("", None),
        ] {
            assert_eq!(token_in_query(text.as_bytes()), token.map(str::as_bytes), "{text}");
        }
    }
}
