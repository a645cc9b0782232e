//! A reading position within one value of a message (RFC 3261 §25.1). Offsets are those of the
//! whole buffer, so spans that it yields can be edited.

use super::errors::{ParseError, ParseErrorKind};
use super::grammar::{LWS, TOKEN, is, run};
use super::message::Span;

/// `bytes[pos..end]` is what remains to be read; `pos <= end <= bytes.len()`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub pos: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8], span: Span) -> Cursor<'a> {
        let end = span.end as usize;
        // One slicing here spares the checks of every step.
        Cursor { bytes: &bytes[..end], pos: span.start as usize, end }
    }

    #[inline(always)]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    pub fn at_end(&self) -> bool {
        self.pos >= self.end
    }

    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.pos.min(self.end)..]
    }

    /// Passes white space, folds included (`SWS`).
    #[inline(always)]
    pub fn skip_lws(&mut self) {
        while self.peek().is_some_and(|byte| byte <= b' ' && is(LWS, byte)) {
            self.pos += 1;
        }
    }

    /// Passes `byte` if it is next.
    #[inline(always)]
    pub fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.pos += usize::from(found);
        found
    }

    /// Passes `byte` and the white space around it if it is next (`SEMI`, `EQUAL`, `SLASH`,
    /// `COLON`, `COMMA`).
    #[inline(always)]
    pub fn eat_separator(&mut self, byte: u8) -> bool {
        self.skip_lws();
        let found = self.eat(byte);
        if found {
            self.skip_lws();
        }
        found
    }

    /// The longest run of `class`, perhaps empty.
    #[inline(always)]
    pub fn take(&mut self, class: u8) -> &'a [u8] {
        let rest = self.rest();
        // Tokens, which are names for the most part, are too short for steps of four.
        let len = match class {
            TOKEN => rest.iter().position(|&byte| !is(TOKEN, byte)).unwrap_or(rest.len()),
            _ => run(class, rest),
        };
        self.pos += len;
        &rest[..len]
    }

    /// The longest run of `class`, at least one byte.
    #[inline(always)]
    pub fn expect(&mut self, class: u8, kind: ParseErrorKind) -> Result<&'a [u8], ParseError> {
        let found = self.take(class);
        if found.is_empty() { Err(self.fault(kind)) } else { Ok(found) }
    }

    #[cold]
    pub fn fault(&self, kind: ParseErrorKind) -> ParseError {
        ParseError::new(kind, self.pos)
    }
}
