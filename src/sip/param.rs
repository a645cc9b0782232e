//! Header field parameters (RFC 3261 §25.1 `generic-param`): `;name`, `;name=value`,
//! `;name="quoted"`, with white space wherever the grammar has it.

use super::cursor::Cursor;
use super::errors::{ParseError, ParseErrorKind};
use super::grammar::{TOKEN, VALUE, quoted_end};
use super::message::Span;

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Param<'a> {
    pub name: &'a [u8],
    /// Without the quotes of a quoted string, escapes as written.
    pub value: Option<&'a [u8]>,
    /// From the name to the end of the value, without the semicolon.
    pub span: Span,
}

/// Reads one parameter if a semicolon is next. That there is none is found out where it is asked:
/// every value ends so.
#[inline(always)]
pub(super) fn next_param<'a>(cursor: &mut Cursor<'a>) -> Result<Option<Param<'a>>, ParseError> {
    if !cursor.eat_separator(b';') {
        return Ok(None);
    }
    param(cursor).map(Some)
}

fn param<'a>(cursor: &mut Cursor<'a>) -> Result<Param<'a>, ParseError> {
    let start = cursor.pos;
    let name = cursor.expect(TOKEN, ParseErrorKind::Parameter)?;
    let mut end = cursor.pos;
    let mut value = None;
    if cursor.eat_separator(b'=') {
        value = Some(param_value(cursor)?);
        end = cursor.pos;
    }
    Ok(Param { name, value, span: Span::new(start, end) })
}

#[inline]
fn param_value<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], ParseError> {
    if cursor.peek() != Some(b'"') {
        return Ok(cursor.take(VALUE));
    }
    let open = cursor.pos;
    let end = quoted_end(cursor.bytes, open, cursor.bytes.len())
        .ok_or_else(|| cursor.fault(ParseErrorKind::Quote))?;
    cursor.pos = end;
    Ok(&cursor.bytes[open + 1..end - 1])
}

/// Iterates over the parameters of a value that was parsed: names, and values without quotes
/// (escapes as written).
#[derive(Clone, Debug)]
pub struct Params<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Params<'a> {
    /// Over `text`, which starts with a semicolon or is empty. Ends at the first fault.
    pub fn new(text: &'a [u8]) -> Params<'a> {
        Params { cursor: Cursor::new(text, Span::new(0, text.len())) }
    }

    /// The parameter of that name, in any case: `None` absent, `Some(None)` without a value.
    pub fn find(mut self, name: &str) -> Option<Option<&'a [u8]>> {
        self.find_map(|(found, value)| found.eq_ignore_ascii_case(name.as_bytes()).then_some(value))
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let param = next_param(&mut self.cursor).ok()??;
        Some((param.name, param.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_with_folds_and_quotes() {
        let text = b" ; a ;b=c;\r\n D = \"x;\\\"y,\" ;e= ;f=[2001:db8::1]:5";
        let found: Vec<_> = Params::new(text).collect();
        let expected: Vec<(&[u8], Option<&[u8]>)> = vec![
            (b"a", None),
            (b"b", Some(b"c")),
            (b"D", Some(b"x;\\\"y,")),
            (b"e", Some(b"")),
            (b"f", Some(b"[2001:db8::1]:5")),
        ];
        assert_eq!(found, expected);
        assert_eq!(Params::new(text).find("d"), Some(Some(&b"x;\\\"y,"[..])));
        assert_eq!(Params::new(text).find("A"), Some(None));
        assert_eq!(Params::new(text).find("z"), None);
    }

    #[test]
    fn faults_are_named_and_placed() {
        let cases: &[(&[u8], ParseErrorKind, u32)] = &[
            (b";", ParseErrorKind::Parameter, 1),
            (b";;a", ParseErrorKind::Parameter, 1),
            (b";=a", ParseErrorKind::Parameter, 1),
            (b";a=\"b", ParseErrorKind::Quote, 3),
        ];
        for (text, kind, at) in cases {
            let mut cursor = Cursor::new(text, Span::new(0, text.len()));
            let fault = next_param(&mut cursor).unwrap_err();
            assert_eq!(fault, ParseError { kind: *kind, at: *at }, "{text:?}");
        }
    }
}
