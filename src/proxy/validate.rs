//! Request validation (RFC 3261 §16.3), in its order. What fails is the peer's fault and becomes an
//! answer.

use crate::sip::{HeaderName, Message, Method, Scheme, Uri};

/// An answer other than forwarding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Final status, 400 to 699.
    pub status: u16,
    /// Reason phrase when the standard one says too little.
    pub phrase: Option<&'static str>,
    /// Text of the Warning header field with its code (399 unless an RFC names another), if any.
    pub warning: Option<(u16, &'static str)>,
    /// Whole header lines with CRLF.
    pub headers: Vec<u8>,
}

impl Reject {
    /// An answer with the standard phrase.
    pub fn new(status: u16) -> Reject {
        Reject { status, phrase: None, warning: None, headers: Vec::new() }
    }

    /// The same with a Warning 399 that says why.
    pub fn because(status: u16, why: &'static str) -> Reject {
        Reject { warning: Some((399, why)), ..Reject::new(status) }
    }

    /// The same with a Warning of a registered code (RFC 3261 §20.43, RFC 5630 §5.3).
    pub fn warn(status: u16, code: u16, why: &'static str) -> Reject {
        Reject { warning: Some((code, why)), ..Reject::new(status) }
    }

    /// The same with another reason phrase.
    pub fn phrase(status: u16, phrase: &'static str) -> Reject {
        Reject { phrase: Some(phrase), ..Reject::new(status) }
    }

    /// The same with one more header line (without CRLF).
    pub fn with_header(mut self, line: &[u8]) -> Reject {
        self.headers.extend_from_slice(line);
        self.headers.extend_from_slice(b"\r\n");
        self
    }

    /// Ask to come back: 500 or 480 with Retry-After in seconds (RFC 3261 §20.33).
    pub fn retry_after(status: u16, seconds: u32, why: &'static str) -> Reject {
        let line = number_line(b"Retry-After: ", u64::from(seconds));
        Reject::because(status, why).with_header(&line)
    }
}

fn number_line(name: &[u8], number: u64) -> Vec<u8> {
    let mut line = name.to_vec();
    super::naming::write_number(number, &mut line);
    line
}

/// Extensions that we understand in Proxy-Require: none (RFC 3261 §16.3 step 5).
const PROXY_EXTENSIONS: [&[u8]; 0] = [];

/// Checks a request that opens a transaction, after parsing. `to_us` tells that it is for ourselves
/// (an OPTIONS naming us, a REGISTER for a domain of ours): Max-Forwards 0 does not stop it.
pub fn validate(
    message: Message<'_>,
    uri: &Uri<'_>,
    to_us: bool,
    looped: bool,
) -> Result<(), Reject> {
    if matches!(uri.scheme, Scheme::Other(_)) {
        return Err(Reject::new(416));
    }
    if !to_us && message.max_forwards().ok().flatten() == Some(0) {
        return Err(Reject::new(483));
    }
    if looped {
        return Err(Reject::new(482));
    }
    proxy_require(message)
}

/// Unknown extensions are listed all in Unsupported (RFC 3261 §16.3 step 5). ACK and CANCEL carry
/// none that matter (§8.2.2.3).
fn proxy_require(message: Message<'_>) -> Result<(), Reject> {
    if matches!(message.method(), Method::Ack | Method::Cancel) {
        return Ok(());
    }
    let mut line = Vec::new();
    for value in message.values(HeaderName::ProxyRequire) {
        if PROXY_EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(value.text)) {
            continue;
        }
        line.extend_from_slice(if line.is_empty() { b"Unsupported: ".as_slice() } else { b", " });
        line.extend_from_slice(value.text);
    }
    if line.is_empty() { Ok(()) } else { Err(Reject::new(420).with_header(&line)) }
}
