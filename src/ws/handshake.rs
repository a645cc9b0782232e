//! The upgrade from HTTP to WebSocket, server side (RFC 6455 §4.2, RFC 7118 §4). Absent on purpose:
//! extensions (offers are ignored), what tokens mean (whoever authenticates reads them from the
//! ranges given), redirects.

use std::ops::Range;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use httparse::{Error, Header, Request, Status};
use sha1::{Digest, Sha1};

use crate::base::limits::{UPGRADE_BYTES_MAX, UPGRADE_HEADERS_MAX};

/// Where a health check of a load balancer may ask, whatever the path for WebSocket is.
const HEALTH_PATH: &str = "/healthz";
/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Base64 of 20 bytes.
const ACCEPT: usize = 28;
/// RFC 7118 §4.
const SUBPROTOCOL: &[u8] = b"sip";

/// What a listener asks of an upgrade request.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The path, which a query may follow.
    pub path: &'a str,
    /// Allowed values of Origin. Empty: any, and none at all. Else a request without one is refused
    /// too: all browsers send it (RFC 6455 §10.2).
    pub origins: &'a [String],
    /// The cookie whose value is wanted (RFC 6265 §5.4).
    pub cookie: Option<&'a str>,
}

/// Where a request shows who its client is; each is empty when it does not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shown {
    /// The query, without the question mark.
    pub query: Range<usize>,
    /// The value of Authorization.
    pub authorization: Range<usize>,
    /// The value of the cookie of that name, without quotes.
    pub cookie: Range<usize>,
}

/// What became of an upgrade request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Upgrade {
    /// It is not whole yet; give all of it again with more behind it.
    NeedMore,
    /// The answer was written; frames begin behind `consumed` bytes.
    Accepted {
        /// Bytes of the request.
        consumed: usize,
        /// Where it shows who its client is.
        shown: Shown,
    },
    /// A plain `GET /healthz`. Nothing was written: the caller answers by [`write_answer`] and
    /// closes.
    Health,
    /// The answer was written; close once it is sent.
    Refused {
        /// Its status.
        status: u16,
    },
}

/// Judges the request at the front of `bytes` and appends the answer to `out`. An unfinished
/// request is read from its beginning each time, at most [`UPGRADE_BYTES_MAX`] of it.
pub fn accept(bytes: &[u8], rules: &Rules<'_>, out: &mut Vec<u8>) -> Upgrade {
    let head = &bytes[..bytes.len().min(UPGRADE_BYTES_MAX)];
    let mut headers = [httparse::EMPTY_HEADER; UPGRADE_HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    let consumed = match request.parse(head) {
        Ok(Status::Complete(consumed)) => consumed,
        Ok(Status::Partial) if bytes.len() < UPGRADE_BYTES_MAX => return Upgrade::NeedMore,
        Ok(Status::Partial) => return refuse(out, Fault::TooLarge),
        Err(Error::TooManyHeaders) => return refuse(out, Fault::TooLarge),
        Err(_) => return refuse(out, Fault::NotHttp),
    };
    match judge(&request, rules) {
        Ok(Verdict::Upgrade { key, subprotocol }) => {
            write_switch(out, key, subprotocol);
            let target = request.path.expect("a whole request has a target");
            let authorization = single(request.headers, "Authorization").unwrap_or_default();
            let cookie = rules.cookie.and_then(|name| cookie(request.headers, name));
            let shown = Shown {
                query: query_within(bytes, target),
                authorization: range_within(bytes, authorization),
                cookie: range_within(bytes, cookie.unwrap_or_default()),
            };
            Upgrade::Accepted { consumed, shown }
        }
        Ok(Verdict::Health) => Upgrade::Health,
        Err(fault) => refuse(out, fault),
    }
}

/// Appends a whole HTTP answer with a plain-text body, after which the connection is to be closed.
pub fn write_answer(out: &mut Vec<u8>, status: u16, body: &str) {
    write_answer_with(out, status, "", body);
}

/// The same of a request that this module has nothing against; `lines` are further header lines.
pub fn write_refusal(out: &mut Vec<u8>, status: u16, lines: &[u8], body: &str) {
    write_answer_with(out, status, &String::from_utf8_lossy(lines), body);
}

/// Why an upgrade is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    NotHttp,
    OldHttp,
    TooLarge,
    Method,
    Path,
    Host,
    Upgrade,
    Connection,
    Version,
    Key,
    Origin,
    Subprotocol,
}

impl Fault {
    /// Status, further header lines, and the sentence in the body.
    fn answer(self) -> (u16, &'static str, &'static str) {
        match self {
            Fault::NotHttp => (400, "", "This is not an HTTP request."),
            Fault::OldHttp => (400, "", "A WebSocket upgrade needs HTTP/1.1."),
            Fault::TooLarge => (431, "", "The request is too large."),
            Fault::Method => (405, "Allow: GET\r\n", "A WebSocket upgrade is a GET request."),
            Fault::Path => (404, "", "There is no WebSocket at this path."),
            Fault::Host => (400, "", "The Host header is missing or given twice."),
            Fault::Upgrade => {
                (400, "", "This is a WebSocket endpoint: the Upgrade header must name websocket.")
            }
            Fault::Connection => (400, "", "The Connection header must name Upgrade."),
            Fault::Version => (
                426,
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
                "Sec-WebSocket-Version must be 13.",
            ),
            Fault::Key => (400, "", "Sec-WebSocket-Key must be 16 bytes in base64, given once."),
            Fault::Origin => (403, "", "This Origin is not allowed."),
            Fault::Subprotocol => (400, "", "Sec-WebSocket-Protocol must offer sip (RFC 7118)."),
        }
    }
}

enum Verdict<'a> {
    Upgrade {
        key: &'a [u8],
        /// As the client wrote it.
        subprotocol: &'a [u8],
    },
    Health,
}

fn judge<'a>(request: &Request<'_, 'a>, rules: &Rules<'_>) -> Result<Verdict<'a>, Fault> {
    let headers = &*request.headers;
    if request.method != Some("GET") {
        return Err(Fault::Method);
    }
    let path = path_of(request.path.unwrap_or_default());
    let wants_upgrade = values(headers, "Upgrade").next().is_some();
    if path == HEALTH_PATH && !wants_upgrade {
        return Ok(Verdict::Health);
    }
    if path != rules.path {
        return Err(Fault::Path);
    }
    if request.version != Some(1) {
        return Err(Fault::OldHttp);
    }
    single(headers, "Host").ok_or(Fault::Host)?;
    token_in(headers, "Upgrade", b"websocket").ok_or(Fault::Upgrade)?;
    token_in(headers, "Connection", b"upgrade").ok_or(Fault::Connection)?;
    if single(headers, "Sec-WebSocket-Version") != Some(b"13") {
        return Err(Fault::Version);
    }
    let key = single(headers, "Sec-WebSocket-Key").filter(|key| is_key(key)).ok_or(Fault::Key)?;
    if !is_allowed_origin(headers, rules.origins) {
        return Err(Fault::Origin);
    }
    let subprotocol = token_in(headers, "Sec-WebSocket-Protocol", SUBPROTOCOL);
    Ok(Verdict::Upgrade { key, subprotocol: subprotocol.ok_or(Fault::Subprotocol)? })
}

/// The path of a request target in origin form or absolute form (RFC 9112 §3.2).
fn path_of(target: &str) -> &str {
    let target = target.split('?').next().unwrap_or_default();
    if target.starts_with('/') {
        return target;
    }
    let authority = target.split_once("://").map_or("", |(_, rest)| rest);
    authority.find('/').map_or("/", |slash| &authority[slash..])
}

/// Where the query of `target`, a part of `bytes`, is within them.
fn query_within(bytes: &[u8], target: &str) -> Range<usize> {
    let start = target.as_ptr().addr() - bytes.as_ptr().addr();
    let end = start + target.len();
    let question = target.find('?').map_or(end, |at| start + at + 1);
    question..end
}

/// Where `part` of `bytes` is within them; somewhere empty for one that is empty.
fn range_within(bytes: &[u8], part: &[u8]) -> Range<usize> {
    if part.is_empty() {
        return 0..0;
    }
    let start = part.as_ptr().addr() - bytes.as_ptr().addr();
    start..start + part.len()
}

/// The value of the first cookie of that name (RFC 6265 §4.2.1), without the quotes that it may
/// stand in. Of several the one whose path is the longest comes first (§5.4).
fn cookie<'a>(headers: &[Header<'a>], name: &str) -> Option<&'a [u8]> {
    let pairs = values(headers, "Cookie").flat_map(|value| value.split(|byte| *byte == b';'));
    let value = pairs
        .map(<[u8]>::trim_ascii)
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Some(inner.unwrap_or(value))
}

/// All values of a header, in the order of its lines.
fn values<'a>(headers: &[Header<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.iter().filter(move |line| line.name.eq_ignore_ascii_case(name));
    lines.map(|line| line.value.trim_ascii())
}

/// The value of a header that is given once.
fn single<'a>(headers: &[Header<'a>], name: &str) -> Option<&'a [u8]> {
    let mut values = values(headers, name);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// The entry of a comma-separated header, which may have several lines, that equals `token` but for
/// case; as it was written.
fn token_in<'a>(headers: &[Header<'a>], name: &str, token: &[u8]) -> Option<&'a [u8]> {
    let entries = values(headers, name).flat_map(|value| value.split(|byte| *byte == b','));
    entries.map(<[u8]>::trim_ascii).find(|entry| entry.eq_ignore_ascii_case(token))
}

/// Whether it decodes to 16 bytes (RFC 6455 §4.2.1); the unused bits of its last digit are not
/// looked at.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_digit)
}

fn is_allowed_origin(headers: &[Header<'_>], origins: &[String]) -> bool {
    let Some(origin) = single(headers, "Origin") else {
        return origins.is_empty();
    };
    origins.is_empty()
        || origins.iter().any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(origin))
}

fn write_switch(out: &mut Vec<u8>, key: &[u8], subprotocol: &[u8]) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(&accept_value(key));
    out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
    out.extend_from_slice(subprotocol);
    out.extend_from_slice(b"\r\n\r\n");
}

/// RFC 6455 §4.2.2 (5.4).
fn accept_value(key: &[u8]) -> [u8; ACCEPT] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut value = [0; ACCEPT];
    let written = BASE64_STANDARD.encode_slice(digest, &mut value);
    assert_eq!(written, Ok(ACCEPT));
    value
}

fn refuse(out: &mut Vec<u8>, fault: Fault) -> Upgrade {
    let (status, lines, body) = fault.answer();
    write_answer_with(out, status, lines, body);
    Upgrade::Refused { status }
}

fn write_answer_with(out: &mut Vec<u8>, status: u16, lines: &str, body: &str) {
    let answer = format!(
        "HTTP/1.1 {status} {}\r\n{lines}Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}\n",
        reason(status),
        body.len() + 1,
    );
    out.extend_from_slice(answer.as_bytes());
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    const START: &str = "GET /?access_token=abc HTTP/1.1\r\n";
    const HOST: &str = "Host: edge.example.com:8443\r\n";
    const UPGRADE: &str = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n";
    const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const SIP: &str = "Sec-WebSocket-Protocol: sip\r\n";
    const ORIGIN: &str = "Origin: https://App.example.com\r\n";
    const DEFLATE: &str =
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

    /// As Chromium sends it.
    fn sample() -> String {
        [START, HOST, UPGRADE, VERSION, KEY, SIP, ORIGIN, DEFLATE, "\r\n"].concat()
    }

    fn judge_one(request: &str, path: &str, origins: &[&str]) -> (Upgrade, String) {
        let origins: Vec<String> = origins.iter().map(|origin| origin.to_string()).collect();
        let mut out = b"kept ".to_vec();
        let upgrade = accept(
            request.as_bytes(),
            &Rules { path, origins: &origins, cookie: Some("session") },
            &mut out,
        );
        (upgrade, String::from_utf8(out).unwrap().strip_prefix("kept ").unwrap().to_string())
    }

    fn status_of(request: &str) -> u16 {
        match judge_one(request, "/", &[]).0 {
            Upgrade::Refused { status } => status,
            Upgrade::Accepted { .. } => 101,
            other => panic!("{other:?}: {request}"),
        }
    }

    #[test]
    fn the_known_answer_of_the_rfc() {
        // RFC 6455 §1.3.
        assert_eq!(&accept_value(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_browser_is_accepted_and_its_first_frame_stays() {
        let request = sample();
        let (upgrade, answer) = judge_one(&(request.clone() + "\u{1}frame"), "/", &[]);
        let query = 6..START.len() - " HTTP/1.1\r\n".len();
        assert_eq!(&request[query.clone()], "access_token=abc");
        let shown = Shown { query, ..Shown::default() };
        assert_eq!(upgrade, Upgrade::Accepted { consumed: request.len(), shown });
        assert_eq!(
            answer,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: sip\r\n\r\n"
        );
    }

    #[test]
    fn what_shows_who_the_client_is_is_found() {
        let cases = [
            ("Cookie: session=a.b.c\r\n", "a.b.c", ""),
            ("cookie: x=1; session=a.b.c; y=2\r\n", "a.b.c", ""),
            ("Cookie: x=1\r\nCookie: session=\"a.b.c\"\r\n", "a.b.c", ""),
            ("Cookie: session=a;session=b\r\n", "a", ""),
            ("Cookie: session=\r\n", "", ""),
            ("Cookie: xsession=a; Session=b; session\r\n", "", ""),
            ("Authorization: Bearer a.b.c\r\n", "", "Bearer a.b.c"),
            ("Authorization: a\r\nAuthorization: b\r\n", "", ""),
        ];
        for (lines, cookie, authorization) in cases {
            let request = sample().replace(DEFLATE, lines);
            let Upgrade::Accepted { shown, .. } = judge_one(&request, "/", &[]).0 else {
                panic!("refused: {request}");
            };
            assert_eq!(&request[shown.cookie], cookie, "{lines}");
            assert_eq!(&request[shown.authorization], authorization, "{lines}");
        }
    }

    #[test]
    fn every_truncation_needs_more_and_writes_nothing() {
        let request = sample();
        for cut in 0..request.len() {
            let (upgrade, answer) = judge_one(&request[..cut], "/", &[]);
            assert_eq!((upgrade, answer.as_str()), (Upgrade::NeedMore, ""), "{cut}");
        }
    }

    #[test]
    fn spellings_that_are_equal_are_accepted() {
        let cases = [
            (UPGRADE, "uPGRADE: h2c , WebSocket\r\nConnection: UPGRADE\r\n"),
            (UPGRADE, "Upgrade:websocket\r\nConnection: close\r\nconnection: upgrade\r\n"),
            (SIP, "Sec-WebSocket-Protocol: msrp,  sip ,xmpp\r\n"),
            (SIP, "Sec-WebSocket-Protocol: msrp\r\nsec-websocket-protocol: sip\r\n"),
            (DEFLATE, ""),
            (START, "GET / HTTP/1.1\r\n"),
            (START, "GET http://edge.example.com/?a?b HTTP/1.1\r\n"),
            (START, "\r\nGET / HTTP/1.1\r\n"),
        ];
        for (line, other) in cases {
            assert_eq!(status_of(&sample().replace(line, other)), 101, "{other}");
        }
        let answer =
            judge_one(&sample().replace(SIP, "Sec-WebSocket-Protocol: x, SIP\r\n"), "/", &[]).1;
        assert!(answer.contains("Sec-WebSocket-Protocol: SIP\r\n"));
    }

    #[test]
    fn each_fault_has_its_status_and_says_what_it_is() {
        let cases = [
            (START, "POST / HTTP/1.1\r\n", 405, "GET"),
            (START, "GET /other HTTP/1.1\r\n", 404, "path"),
            (START, "GET /healthz HTTP/1.1\r\n", 404, "path"),
            (START, "GET / HTTP/1.0\r\n", 400, "HTTP/1.1"),
            (START, "REGISTER sip:example.com SIP/2.0\r\n", 400, "HTTP"),
            (START, "\u{16}\u{3}\u{1}\u{2}", 400, "HTTP"),
            (HOST, "", 400, "Host"),
            (UPGRADE, "Connection: Upgrade\r\n", 400, "Upgrade"),
            (UPGRADE, "Upgrade: websocketx\r\nConnection: Upgrade\r\n", 400, "Upgrade"),
            (UPGRADE, "Upgrade: websocket\r\n", 400, "Connection"),
            (VERSION, "", 426, "13"),
            (VERSION, "Sec-WebSocket-Version: 8\r\n", 426, "13"),
            (VERSION, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8\r\n", 426, "13"),
            (KEY, "", 400, "Key"),
            (KEY, "Sec-WebSocket-Key: c2hvcnQ=\r\n", 400, "Key"),
            (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=!\r\n", 400, "Key"),
            (SIP, "", 400, "Protocol"),
            (SIP, "Sec-WebSocket-Protocol: sipx, xsip, s ip\r\n", 400, "Protocol"),
        ];
        for (line, other, status, word) in cases {
            let request = sample().replace(line, other);
            assert_eq!(status_of(&request), status, "{other}");
            let answer = judge_one(&request, "/", &[]).1;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")) && body.contains(word),
                "{answer}"
            );
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
            assert!(head.contains("Connection: close"));
            assert_eq!(head.contains("Sec-WebSocket-Version: 13"), status == 426);
        }
        assert_eq!(status_of(&sample().replace(KEY, &[KEY, KEY].concat())), 400);
    }

    #[test]
    fn the_path_is_compared_whole() {
        let request = sample().replace("GET /?", "GET /ws/sip?");
        assert!(matches!(judge_one(&request, "/ws/sip", &[]).0, Upgrade::Accepted { .. }));
        for path in ["/", "/ws", "/ws/sip/", "/WS/sip"] {
            assert_eq!(judge_one(&request, path, &[]).0, Upgrade::Refused { status: 404 });
        }
    }

    #[test]
    fn origins_are_compared_whole_and_without_case() {
        let cases: [(&str, &[&str], bool); 7] = [
            (ORIGIN, &["https://other.example", "HTTPS://app.EXAMPLE.com"], true),
            (ORIGIN, &["https://app.example.co"], false),
            (ORIGIN, &["https://app.example.com:443"], false),
            (ORIGIN, &[], true),
            ("", &[], true),
            ("", &["https://app.example.com"], false),
            ("Origin: null\r\n", &["https://app.example.com"], false),
        ];
        for (line, origins, is_allowed) in cases {
            let upgrade = judge_one(&sample().replace(ORIGIN, line), "/", origins).0;
            assert_eq!(matches!(upgrade, Upgrade::Accepted { .. }), is_allowed, "{line}");
            assert!(is_allowed || upgrade == Upgrade::Refused { status: 403 });
        }
    }

    #[test]
    fn a_health_check_is_left_to_the_caller() {
        let (upgrade, answer) = judge_one("GET /healthz?x HTTP/1.0\r\n\r\n", "/", &[]);
        assert_eq!((upgrade, answer.as_str()), (Upgrade::Health, ""));
        let mut out = Vec::new();
        write_answer(&mut out, 503, "draining");
        let answer = String::from_utf8(out).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(answer.ends_with("Content-Length: 9\r\nConnection: close\r\n\r\ndraining\n"));
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let pad =
            |len: usize| sample().replace(HOST, &[HOST, "X: ", &"a".repeat(len), "\r\n"].concat());
        let room = UPGRADE_BYTES_MAX - pad(0).len();
        assert_eq!(status_of(&pad(room)), 101);
        assert_eq!(status_of(&pad(room + 1)), 431);
        assert_eq!(status_of(&pad(room + 1)[..UPGRADE_BYTES_MAX]), 431);
        assert_eq!(
            judge_one(&pad(room + 1)[..UPGRADE_BYTES_MAX - 1], "/", &[]).0,
            Upgrade::NeedMore
        );
        let many =
            sample().replace(HOST, &[HOST, &"A: b\r\n".repeat(UPGRADE_HEADERS_MAX)].concat());
        assert_eq!(status_of(&many), 431);
    }

    #[test]
    fn noise_never_panics() {
        let mut rng = Rng::new([1; 32]);
        let rules = Rules { path: "/", origins: &[], cookie: Some("a") };
        for _ in 0..20_000 {
            let mut request = sample().into_bytes();
            for _ in 0..=rng.below(4) {
                let at = rng.below(request.len() as u64) as usize;
                match rng.below(3) {
                    0 => request[at] = rng.next_u32() as u8,
                    1 => request.truncate(at.max(1)),
                    _ => request.insert(at, b",\r\n :?\0\xff"[rng.below(8) as usize]),
                }
            }
            let mut out = Vec::new();
            if let Upgrade::Accepted { consumed, shown } = accept(&request, &rules, &mut out) {
                let Shown { query, authorization, cookie } = shown;
                let ends = [query.end, authorization.end, cookie.end];
                assert!(consumed <= request.len() && ends.iter().all(|end| *end <= consumed));
            }
        }
    }
}
