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
        self.next_line += skip + 1;
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
