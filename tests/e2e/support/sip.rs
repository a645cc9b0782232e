//! SIP messages as the test's clients read and write them: plain text, independent of the crate's
//! own codec, so that a fault there cannot hide itself. Strict on what it reads: what this reader
//! refuses, a phone may refuse.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a message was framed when it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// UDP, TCP or TLS: no frame.
    Bare,
    /// A WebSocket text message.
    Text,
    /// A WebSocket binary message.
    Binary,
}

/// One header field line as it stood in the message.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// The bytes of the line without its CRLF.
    pub line: Vec<u8>,
    /// Lower-case long form of the name.
    pub name: String,
    /// The trimmed value.
    pub value: String,
}

/// A received or parsed message.
#[derive(Clone)]
pub struct Message {
    /// Everything, as it came.
    pub raw: Vec<u8>,
    /// Request line or status line.
    pub start: String,
    /// Header field lines in order.
    pub headers: Vec<Header>,
    /// What follows the empty line.
    pub body: Vec<u8>,
    /// How it was framed.
    pub frame: Frame,
    /// On which of the receiver's connections it came.
    pub link: usize,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({:?})\n{}", self.frame, String::from_utf8_lossy(&self.raw))
    }
}

impl Message {
    /// Reads one whole message. The body is everything after the empty line; a Content-Length must
    /// agree.
    pub fn parse(bytes: &[u8]) -> Result<Message, String> {
        let end = find(bytes, b"\r\n\r\n").ok_or("no empty line")?;
        let mut lines: Vec<Vec<u8>> = Vec::new();
        for line in split_crlf(&bytes[..end]) {
            match line.first() {
                Some(b' ' | b'\t') => {
                    let last = lines.last_mut().ok_or("folded first line")?;
                    last.extend_from_slice(b"\r\n");
                    last.extend_from_slice(line);
                }
                _ => lines.push(line.to_vec()),
            }
        }
        if lines.is_empty() {
            return Err("empty".into());
        }
        let start = String::from_utf8(lines.remove(0)).map_err(|_| "start line is not UTF-8")?;
        if !(start.starts_with("SIP/2.0 ") || start.ends_with(" SIP/2.0")) {
            return Err(format!("not a SIP start line: {start:?}"));
        }
        let headers = lines.into_iter().map(header_of).collect::<Result<Vec<_>, _>>()?;
        let message = Message {
            raw: bytes.to_vec(),
            start,
            headers,
            body: bytes[end + 4..].to_vec(),
            frame: Frame::Bare,
            link: 0,
        };
        let lengths: Vec<_> = message.all("content-length").collect();
        match lengths[..] {
            [] => {}
            [one] if one.parse() == Ok(message.body.len()) => {}
            _ => return Err(format!("Content-Length {lengths:?}, body {}", message.body.len())),
        }
        Ok(message)
    }

    /// Takes the first whole message off a stream buffer (RFC 3261 §18.3: Content-Length is
    /// mandatory there).
    pub fn take(buffer: &mut Vec<u8>) -> Result<Option<Message>, String> {
        let Some(end) = find(buffer, b"\r\n\r\n") else { return Ok(None) };
        let head = &buffer[..end];
        let length = split_crlf(head)
            .into_iter()
            .skip(1)
            .filter_map(|line| header_of(line.to_vec()).ok())
            .find(|header| header.name == "content-length")
            .ok_or_else(|| format!("no Content-Length:\n{}", String::from_utf8_lossy(head)))?
            .value
            .parse::<usize>()
            .map_err(|_| "bad Content-Length")?;
        let whole = end + 4 + length;
        if buffer.len() < whole {
            return Ok(None);
        }
        let message = Message::parse(&buffer[..whole])?;
        buffer.drain(..whole);
        Ok(Some(message))
    }

    /// Values of all lines of that name (lower case), unsplit.
    pub fn all<'s, 'n>(&'s self, name: &'n str) -> impl Iterator<Item = &'s str> + use<'s, 'n> {
        self.headers.iter().filter(move |h| h.name == name).map(|h| h.value.as_str())
    }

    /// Value of the only line of that name. Panics when there is none or more than one.
    #[track_caller]
    pub fn one(&self, name: &str) -> &str {
        let values: Vec<_> = self.all(name).collect();
        assert_eq!(values.len(), 1, "one {name} in {self:?}");
        values[0]
    }

    /// Comma-separated values of all lines of that name.
    pub fn values(&self, name: &str) -> Vec<String> {
        self.all(name).flat_map(split_values).collect()
    }

    /// Whether the message is a request.
    pub fn is_request(&self) -> bool {
        !self.start.starts_with("SIP/2.0 ")
    }

    /// Method of the request line; empty for a response.
    pub fn method(&self) -> &str {
        if self.is_request() { self.start.split(' ').next().unwrap_or("") } else { "" }
    }

    /// Request-URI.
    #[track_caller]
    pub fn uri(&self) -> &str {
        assert!(self.is_request(), "a request: {self:?}");
        self.start.split(' ').nth(1).unwrap_or("")
    }

    /// Status of a response, 0 for a request.
    pub fn status(&self) -> u16 {
        if self.is_request() {
            return 0;
        }
        self.start.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// Number and method of CSeq.
    #[track_caller]
    pub fn cseq(&self) -> (u32, String) {
        let mut parts = self.one("cseq").split_whitespace();
        let number = parts.next().and_then(|n| n.parse().ok()).expect("CSeq number");
        (number, parts.next().expect("CSeq method").to_string())
    }
}

fn header_of(line: Vec<u8>) -> Result<Header, String> {
    let colon = line
        .iter()
        .position(|&b| b == b':')
        .ok_or_else(|| format!("no colon in {:?}", String::from_utf8_lossy(&line)))?;
    let name = String::from_utf8_lossy(&line[..colon]).trim().to_ascii_lowercase();
    let name = match name.as_str() {
        "v" => "via",
        "f" => "from",
        "t" => "to",
        "i" => "call-id",
        "m" => "contact",
        "l" => "content-length",
        "c" => "content-type",
        "k" => "supported",
        other => other,
    }
    .to_string();
    let value = String::from_utf8_lossy(&line[colon + 1..]).trim().to_string();
    Ok(Header { line, name, value })
}

/// First position of `needle`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn split_crlf(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while let Some(at) = find(rest, b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    lines
}

/// Splits at commas that are neither quoted nor in angle brackets.
pub fn split_values(line: &str) -> Vec<String> {
    let (mut values, mut current) = (Vec::new(), String::new());
    let (mut quoted, mut escaped, mut angle) = (false, false, false);
    for c in line.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => angle = true,
            '>' if !quoted => angle = false,
            ',' if !quoted && !angle => {
                values.push(std::mem::take(&mut current).trim().to_string());
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    values.push(current.trim().to_string());
    values
}

/// The URI of a name-addr or addr-spec value.
pub fn uri_of(value: &str) -> &str {
    match (value.find('<'), value.find('>')) {
        (Some(open), Some(close)) if open < close => &value[open + 1..close],
        _ => value.split(';').next().unwrap_or("").trim(),
    }
}

/// A header field parameter: what stands behind the URI, or for a Via behind the sent-by.
pub fn param<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let params = match value.rfind('>') {
        Some(close) => &value[close + 1..],
        None => value,
    };
    params.split(';').skip(1).find_map(|pair| {
        let (key, text) = pair.split_once('=').unwrap_or((pair, ""));
        key.trim().eq_ignore_ascii_case(name).then_some(text.trim())
    })
}

/// `prefix` with something that no other test of this run has.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{:x}x{number:x}", std::process::id())
}

/// A message in the making: start line, header fields in order, body.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Request line or status line.
    pub start: String,
    /// Name and value of each line.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// Whether [`Draft::build`] adds a Content-Length.
    pub length: bool,
}

impl Draft {
    /// A message without header fields.
    pub fn new(start: impl Into<String>) -> Draft {
        Draft { start: start.into(), headers: Vec::new(), body: Vec::new(), length: true }
    }

    /// Appends a line.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Draft {
        self.headers.push((name.to_string(), value.into()));
        self
    }

    /// Replaces the only line of that name, or appends it.
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Draft {
        match self.headers.iter_mut().find(|(key, _)| key.eq_ignore_ascii_case(name)) {
            Some(header) => header.1 = value.into(),
            None => self.headers.push((name.to_string(), value.into())),
        }
        self
    }

    /// Takes all lines of that name away.
    pub fn without(mut self, name: &str) -> Draft {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self
    }

    /// Sets the body and its type.
    pub fn body(mut self, kind: &str, body: impl Into<Vec<u8>>) -> Draft {
        self.body = body.into();
        self.set("Content-Type", kind)
    }

    /// Leaves Content-Length out.
    pub fn without_length(mut self) -> Draft {
        self.length = false;
        self
    }

    /// Value of the first line of that name.
    #[track_caller]
    pub fn value(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        &found.unwrap_or_else(|| panic!("{name} in {self:?}")).1
    }

    /// The bytes.
    pub fn build(&self) -> Vec<u8> {
        let mut out = self.start.clone().into_bytes();
        out.extend_from_slice(b"\r\n");
        for (name, value) in &self.headers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if self.length {
            out.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }

    /// The same as a received message, for comparisons.
    pub fn message(&self) -> Message {
        Message::parse(&self.build()).expect("a draft is a message")
    }
}

/// A response to `request` as RFC 3261 §8.2.6 wants it: Via, From, To, Call-ID, CSeq and
/// Record-Route copied.
pub fn response_to(request: &Message, status: u16, to_tag: &str) -> Draft {
    let mut draft = Draft::new(format!("SIP/2.0 {status} {}", phrase(status)));
    for header in &request.headers {
        match header.name.as_str() {
            "via" => draft = draft.with("Via", &header.value),
            "record-route" if status < 300 => draft = draft.with("Record-Route", &header.value),
            "from" | "call-id" | "cseq" => {
                let name = String::from_utf8_lossy(&header.line);
                let name = name.split(':').next().unwrap_or("").to_string();
                draft = draft.with(&name, &header.value);
            }
            "to" if status > 100 && param(&header.value, "tag").is_none() => {
                draft = draft.with("To", format!("{};tag={to_tag}", header.value));
            }
            "to" => draft = draft.with("To", &header.value),
            _ => {}
        }
    }
    draft
}

fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing, says the test",
        200 => "OK, says the test",
        486 => "Busy, says the test",
        487 => "Request Terminated",
        603 => "Decline, says the test",
        _ => "As the test wants it",
    }
}
