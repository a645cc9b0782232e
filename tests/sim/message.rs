//! SIP as the simulator's clients read it: lines found when they are asked for. Nothing here
//! panics: what comes out of the proxy may be what a bent message became.

use std::rc::Rc;

/// One message.
#[derive(Clone)]
pub struct Sip {
    bytes: Rc<[u8]>,
    /// Start line and header lines, each with its end.
    head: Rc<str>,
}

impl Sip {
    /// `None` when it is no SIP message, whole and with a text for a header section.
    pub fn read(bytes: &[u8]) -> Option<Sip> {
        let head = find(bytes, b"\r\n\r\n")? + 2;
        let head = std::str::from_utf8(&bytes[..head]).ok()?;
        let sip = Sip { bytes: bytes.into(), head: head.into() };
        sip.start().contains("SIP/2.0").then_some(sip)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn body(&self) -> &[u8] {
        &self.bytes[self.head.len() + 2..]
    }

    pub fn start(&self) -> &str {
        self.head.split("\r\n").next().unwrap_or_default()
    }

    /// Header lines without their ends.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.head.split("\r\n").skip(1).filter(|line| !line.is_empty())
    }

    /// Values of a header, one a line.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines().filter_map(move |line| value_of(line, name))
    }

    pub fn find(&self, name: &str) -> Option<&str> {
        self.lines().find_map(|line| value_of(line, name))
    }

    /// The first value, empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.find(name).unwrap_or_default()
    }

    /// Status of a response; 0 for a request.
    pub fn status(&self) -> u16 {
        let code = self.start().strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3));
        code.and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// Method of a request; empty for a response.
    pub fn method(&self) -> &str {
        if self.status() != 0 { "" } else { self.start().split(' ').next().unwrap_or_default() }
    }

    pub fn uri(&self) -> &str {
        self.start().split(' ').nth(1).unwrap_or_default()
    }

    /// Number and method.
    pub fn cseq(&self) -> (u32, &str) {
        let (number, method) = self.header("CSeq").split_once(' ').unwrap_or_default();
        (number.parse().unwrap_or(0), method)
    }

    pub fn call_id(&self) -> &str {
        self.header("Call-ID")
    }

    /// The tag of a From or To value; empty when it has none.
    pub fn tag(&self, name: &str) -> &str {
        let rest = self.header(name).split_once(";tag=").map_or("", |(_, rest)| rest);
        rest.split(';').next().unwrap_or_default()
    }

    /// The branch of the topmost Via.
    pub fn branch(&self) -> &str {
        param(self.header("Via"), "branch").unwrap_or_default()
    }

    /// What the simulator wrote into it.
    pub fn number(&self) -> Option<&str> {
        self.find("X-Sim")
    }

    /// Record-Route values in order.
    pub fn record_route(&self) -> Vec<String> {
        self.all("Record-Route")
            .flat_map(|line| line.split(','))
            .map(|it| it.trim().into())
            .collect()
    }

    /// The URI of the first Contact.
    pub fn contact(&self) -> &str {
        inside(self.header("Contact"))
    }
}

/// The value of a `;name=value` parameter behind the value proper.
pub fn param<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    value.split(';').skip(1).find_map(|it| it.trim().strip_prefix(name)?.strip_prefix('='))
}

/// What stands between angle brackets.
pub fn inside(value: &str) -> &str {
    let start = value.find('<').map_or(0, |at| at + 1);
    let rest = &value[start..];
    &rest[..rest.find('>').unwrap_or(rest.len())]
}

/// The value, if the line is of that header.
pub fn value_of<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.get(name.len()..)?;
    let value = rest.strip_prefix(':')?;
    line[..name.len()].eq_ignore_ascii_case(name).then_some(value.trim())
}

pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, what)
}

/// A response to this request; `more` are whole lines.
pub fn response(request: &Sip, status: u16, tag: &str, more: &str, body: &str) -> String {
    let mut out = format!("SIP/2.0 {status} Whatever\r\n");
    for line in request.lines() {
        let is = |name| value_of(line, name).is_some();
        if is("To") && !line.contains(";tag=") && !tag.is_empty() {
            out.push_str(line);
            out.push_str(";tag=");
            out.push_str(tag);
        } else if ["Via", "From", "To", "Call-ID", "CSeq", "Record-Route"].into_iter().any(is) {
            out.push_str(line);
        } else {
            continue;
        }
        out.push_str("\r\n");
    }
    out.push_str(more);
    out.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    out
}
