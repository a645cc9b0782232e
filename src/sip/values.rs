//! Values of header fields that are lists (RFC 3261 §7.3.1): over commas and over lines, with
//! quoted strings and angle brackets respected.

use super::grammar::{LWS, is, quoted_end};
use super::header::HeaderName;
use super::message::{Line, Message, Span};
use crate::base::limits::VALUES_MAX;

/// One value of a list.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    /// Without the white space around it. Empty where a comma has nothing beside it, which no
    /// grammar allows.
    pub text: &'a [u8],
    /// Where `text` is.
    pub span: Span,
    /// Its header line.
    pub line: Span,
    /// How many values are before it in its line.
    pub index_in_line: u16,
    /// Whether no value follows in its line.
    pub last_in_line: bool,
    /// Where the value before it in its line ends (its comma follows); of the first value its own
    /// start.
    pub(super) before: u32,
    /// Where the value after it in its line starts; of the last value its own end.
    pub(super) after: u32,
}

/// Iterates over the values of one header name, at most `VALUES_MAX`. A header field without a
/// value yields none.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    message: Message<'a>,
    name: HeaderName,
    /// The line being read and where its next value starts; `None` before the next line is looked
    /// for.
    reading: Option<(Line, u32)>,
    /// The first line that was not read yet.
    next_line: usize,
    index_in_line: u16,
    before: u32,
    given: usize,
}

impl<'a> Values<'a> {
    pub(super) fn new(message: Message<'a>, name: HeaderName) -> Values<'a> {
        let parsed = message.parsed;
        let next_line = match message.line(name) {
            Some(_) if name != HeaderName::Other => usize::from(parsed.first[name as usize]),
            Some(_) => 0,
            None => parsed.lines.len(),
        };
        Values { message, name, reading: None, next_line, index_in_line: 0, before: 0, given: 0 }
    }

    fn next_line(&mut self) -> Option<(Line, u32)> {
        let lines = self.message.parsed.lines.get(self.next_line..)?;
        let skip =
            lines.iter().position(|line| line.name == self.name && !line.value.is_empty())?;
        let line = lines[skip];
        let is_repeated = self.message.parsed.may_repeat(self.name);
        self.next_line = if is_repeated { self.next_line + skip + 1 } else { usize::MAX };
        self.index_in_line = 0;
        self.before = line.value.start;
        Some((line, line.value.start))
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        if self.given == VALUES_MAX {
            return None;
        }
        let (line, from) = match self.reading.take() {
            Some(reading) => reading,
            None => self.next_line()?,
        };
        let bytes = self.message.bytes;
        let start = from as usize;
        let line_end = line.value.end as usize;
        let comma = value_end(bytes, start, line_end);
        let last_in_line = comma == line_end;
        let trimmed = start + trimmed_len(&bytes[start..comma]);
        let span = Span::new(start, trimmed);
        let mut after = span.end;
        if !last_in_line {
            let skip = bytes[comma + 1..line_end].iter().position(|&byte| !is(LWS, byte));
            after = skip.map_or(line.value.end, |skip| (comma + 1 + skip) as u32);
            self.reading = Some((line, after));
        }
        let value = Value {
            text: span.of(bytes),
            span,
            line: line.span,
            index_in_line: self.index_in_line,
            last_in_line,
            before: self.before,
            after,
        };
        self.given += 1;
        self.index_in_line += 1;
        self.before = span.end;
        Some(value)
    }
}

/// The first value of a list without its header's name, and what follows its comma.
pub fn split_first(list: &[u8]) -> (&[u8], &[u8]) {
    let end = value_end(list, 0, list.len());
    let rest = list.get(end + 1..).unwrap_or_default();
    (list[..end].trim_ascii(), rest.trim_ascii_start())
}

/// Where the value that starts at `from` ends: its comma, or `end`. A quoted string or bracket that
/// does not end takes the rest.
fn value_end(bytes: &[u8], from: usize, end: usize) -> usize {
    let mut pos = from;
    while let Some(found) = memchr::memchr3(b',', b'"', b'<', &bytes[pos..end]) {
        let at = pos + found;
        let next = match bytes[at] {
            b',' => return at,
            b'"' => quoted_end(bytes, at, end),
            _ => memchr::memchr(b'>', &bytes[at..end]).map(|close| at + close + 1),
        };
        match next {
            Some(next) => pos = next,
            None => return end,
        }
    }
    end
}

fn trimmed_len(text: &[u8]) -> usize {
    text.iter().rposition(|&byte| !is(LWS, byte)).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::super::{Parsed, parse};
    use super::*;

    fn texts(name: HeaderName, lines: &str) -> Vec<String> {
        let bytes = format!("A sip:a SIP/2.0\r\n{lines}\r\n");
        let mut parsed = Parsed::default();
        // Without the mandatory header fields this is an error, and the index is there all the
        // same.
        let _ = parse(bytes.as_bytes(), &mut parsed);
        let message = parsed.view(bytes.as_bytes());
        let text = |value: Value<'_>| String::from_utf8(value.text.to_vec()).unwrap();
        message.values(name).map(text).collect()
    }

    #[test]
    fn commas_lines_quotes_and_brackets() {
        let cases: &[(&str, &[&str])] = &[
            ("m: <sip:a>\r\n", &["<sip:a>"]),
            ("m: <sip:a> ,\r\n <sip:b>\r\nX: y\r\nContact:*\r\n", &["<sip:a>", "<sip:b>", "*"]),
            (
                "m: \"a,\\\",b\" <sip:c,d>;x=\"y,z\", sip:e\r\n",
                &["\"a,\\\",b\" <sip:c,d>;x=\"y,z\"", "sip:e"],
            ),
            ("m:\r\nm: \r\n", &[]),
            ("m: ,a,,b,\r\n", &["", "a", "", "b", ""]),
            ("m: \"a, b\r\n", &["\"a, b"]),
            ("m: <a, b\r\n", &["<a, b"]),
            ("X: a, b\r\n", &[]),
        ];
        for (lines, expected) in cases {
            assert_eq!(texts(HeaderName::Contact, lines), *expected, "{lines:?}");
        }
    }

    #[test]
    fn other_names_are_walked_too() {
        assert_eq!(texts(HeaderName::Other, "To: x\r\nXx: a, b\r\nYy: c\r\n"), ["a", "b", "c"]);
    }

    #[test]
    fn places_in_the_line() {
        let bytes = b"A sip:a SIP/2.0\r\nRoute: <a> , <b>\r\nRoute: <c>\r\n\r\n";
        let mut parsed = Parsed::default();
        let _ = parse(bytes, &mut parsed);
        let places: Vec<_> = parsed
            .view(bytes)
            .values(HeaderName::Route)
            .map(|value| {
                assert_eq!(value.span.of(bytes), value.text);
                (value.line.of(bytes).len(), value.index_in_line, value.last_in_line)
            })
            .collect();
        assert_eq!(places, [(18, 0, false), (18, 1, true), (12, 0, true)]);
    }

    #[test]
    fn no_more_than_the_limit() {
        let line = format!("m: {}\r\n", vec!["a"; 2 * VALUES_MAX].join(","));
        assert_eq!(texts(HeaderName::Contact, &line).len(), VALUES_MAX);
    }
}
