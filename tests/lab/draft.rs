//! A request in the making: fields with usual values, lines added and left out.

use super::phone::Phone;

/// One request of a test.
#[derive(Clone, Debug)]
pub struct Draft {
    method: String,
    uri: String,
    via: Vec<String>,
    from: String,
    to: String,
    call_id: String,
    cseq: u32,
    lines: Vec<String>,
    route: Vec<String>,
    max_forwards: Option<u32>,
    body: String,
}

/// A request of `sender`, its branch, From tag and Call-ID made of `name`.
pub fn request(sender: &Phone, method: &str, uri: &str, name: &str) -> Draft {
    Draft {
        method: method.into(),
        uri: uri.into(),
        via: vec![sender.via(name)],
        from: format!("<sip:sender@example.org>;tag=f{name}"),
        to: format!("<{uri}>"),
        call_id: format!("{name}@lab"),
        cseq: 1,
        lines: Vec::new(),
        route: Vec::new(),
        max_forwards: Some(70),
        body: String::new(),
    }
}

impl Draft {
    /// Another branch, for a later request of the same dialog.
    pub fn branch(mut self, sender: &Phone, branch: &str) -> Draft {
        self.via = vec![sender.via(branch)];
        self
    }

    /// Whole Via lines, topmost first.
    pub fn vias(mut self, via: &[&str]) -> Draft {
        self.via = via.iter().map(|via| (*via).into()).collect();
        self
    }

    pub fn from(mut self, from: &str) -> Draft {
        self.from = from.into();
        self
    }

    pub fn to(mut self, to: &str) -> Draft {
        self.to = to.into();
        self
    }

    pub fn call_id(mut self, call_id: &str) -> Draft {
        self.call_id = call_id.into();
        self
    }

    pub fn cseq(mut self, cseq: u32) -> Draft {
        self.cseq = cseq;
        self
    }

    /// One more header line.
    pub fn line(mut self, line: &str) -> Draft {
        self.lines.push(line.into());
        self
    }

    /// Route values, one line each.
    pub fn route(mut self, values: &[String]) -> Draft {
        self.route = values.to_vec();
        self
    }

    pub fn max_forwards(mut self, value: Option<u32>) -> Draft {
        self.max_forwards = value;
        self
    }

    pub fn body(mut self, body: &str) -> Draft {
        self.body = body.into();
        self
    }

    pub fn method(mut self, method: &str) -> Draft {
        self.method = method.into();
        self
    }

    pub fn uri(mut self, uri: &str) -> Draft {
        self.uri = uri.into();
        self
    }

    /// The message.
    pub fn text(&self) -> String {
        let mut out = format!("{} {} SIP/2.0\r\n", self.method, self.uri);
        let mut line = |text: &str| {
            out.push_str(text);
            out.push_str("\r\n");
        };
        self.via.iter().for_each(|via| line(via));
        if let Some(hops) = self.max_forwards {
            line(&format!("Max-Forwards: {hops}"));
        }
        self.route.iter().for_each(|value| line(&format!("Route: {value}")));
        line(&format!("From: {}", self.from));
        line(&format!("To: {}", self.to));
        line(&format!("Call-ID: {}", self.call_id));
        line(&format!("CSeq: {} {}", self.cseq, self.method));
        self.lines.iter().for_each(|text| line(text));
        line(&format!("Content-Length: {}", self.body.len()));
        line("");
        out.push_str(&self.body);
        out
    }
}
