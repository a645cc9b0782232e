//! SIP as text: a reader and a writer for tests that share nothing with the program's codec.

/// One message, taken apart line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sip {
    /// The start line.
    pub start: String,
    /// Header lines in order: name as written, value trimmed.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Sip {
    /// Reads one whole message, folded lines joined and bytes that are no UTF-8 replaced; panics
    /// with the bytes when it is none.
    pub fn read(bytes: &[u8]) -> Sip {
        let end = bytes
            .windows(4)
            .position(|at| at == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("no end of headers in {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8_lossy(&bytes[..end]);
        let head = head.replace("\r\n ", " ").replace("\r\n\t", " ");
        let mut lines = head.split("\r\n");
        let start = lines.next().expect("a start line").to_string();
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?}"));
                (name.trim().to_string(), value.trim().to_string())
            })
            .collect();
        Sip { start, headers, body: bytes[end + 4..].to_vec() }
    }

    /// Status of a response; 0 for a request.
    pub fn status(&self) -> u16 {
        match self.start.strip_prefix("SIP/2.0 ") {
            Some(rest) => rest[..3].parse().expect("a status"),
            None => 0,
        }
    }

    /// Method of a request; empty for a response.
    pub fn method(&self) -> &str {
        if self.status() != 0 {
            return "";
        }
        self.start.split(' ').next().expect("a method")
    }

    /// Request-URI.
    pub fn uri(&self) -> &str {
        self.start.split(' ').nth(1).expect("a Request-URI")
    }

    /// First value of a header; panics when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// First value of a header.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All header lines of a name.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let name = name.to_string();
        self.headers
            .iter()
            .filter(move |(it, _)| it.eq_ignore_ascii_case(&name))
            .map(|(_, value)| value.as_str())
    }

    /// The tag of a From or To value.
    pub fn tag(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.header(name).split_once(";tag=")?;
        Some(rest.split(';').next().expect("split gives one"))
    }

    /// A response to this request with the same Via, From, To, Call-ID, CSeq and Record-Route.
    pub fn response(&self, status: u16, tag: &str, more: &[&str]) -> String {
        let mut out = format!("SIP/2.0 {status} Whatever\r\n");
        for (name, value) in &self.headers {
            let copied = ["Via", "v", "From", "f", "Call-ID", "i", "CSeq", "Record-Route"];
            if copied.iter().any(|it| it.eq_ignore_ascii_case(name)) {
                out.push_str(&format!("{name}: {value}\r\n"));
            } else if ["To", "t"].iter().any(|it| it.eq_ignore_ascii_case(name)) {
                let has_tag = value.contains(";tag=") || tag.is_empty();
                let tag = if has_tag { String::new() } else { format!(";tag={tag}") };
                out.push_str(&format!("{name}: {value}{tag}\r\n"));
            }
        }
        for line in more {
            out.push_str(line);
            out.push_str("\r\n");
        }
        out.push_str("Content-Length: 0\r\n\r\n");
        out
    }

    /// The URIs of Record-Route, in order, one a value.
    pub fn record_route(&self) -> Vec<String> {
        self.all("Record-Route")
            .flat_map(|line| line.split(','))
            .map(|value| value.trim().to_string())
            .collect()
    }
}
