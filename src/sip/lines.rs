//! Header lines as bytes (RFC 3261 §7.3.1, §25.1): where one ends, folds and faults considered, and
//! where its name and value are.

use super::errors::{ParseError, ParseErrorKind};
use super::grammar::{LWS, is, place_in_word, quoted_end, word};

/// Where the line ends that is looked through from `from` and belongs to the header field at
/// `start`: the offset of its CRLF. The fault is a bare CR or LF or a NUL, or that there is no end.
#[inline]
pub(super) fn line_end(bytes: &[u8], start: usize, from: usize) -> Result<usize, ParseError> {
    let mut pos = from;
    loop {
        let Some(found) = memchr::memchr3(b'\r', b'\n', 0, &bytes[pos..]) else {
            return Err(ParseError::new(ParseErrorKind::Unterminated, bytes.len()));
        };
        let at = pos + found;
        match bytes[at] {
            b'\r' if bytes.get(at + 1) == Some(&b'\n') => return Ok(at),
            b'\r' if at + 1 == bytes.len() => {
                return Err(ParseError::new(ParseErrorKind::Unterminated, at));
            }
            b'\r' => return Err(ParseError::new(ParseErrorKind::BareCr, at)),
            b'\n' => return Err(ParseError::new(ParseErrorKind::BareLf, at)),
            _ if is_quoted_pair(&bytes[start..=at]) => pos = at + 1,
            _ => return Err(ParseError::new(ParseErrorKind::Nul, at)),
        }
    }
}

/// Whether the last byte of `line` is the second one of a quoted pair within a quoted string, where
/// alone the grammar has NUL.
#[cold]
fn is_quoted_pair(line: &[u8]) -> bool {
    let last = line.len() - 1;
    if last == 0 || line[last - 1] != b'\\' {
        return false;
    }
    let mut from = 0;
    while let Some(open) = memchr::memchr(b'"', &line[from..last]) {
        match quoted_end(line, from + open, last) {
            Some(end) => from = end,
            None => {
                let inside = &line[from + open + 1..last];
                return inside.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1;
            }
        }
    }
    false
}

/// Where the line after the fault at `at` starts: after the next CRLF that is no fold.
#[cold]
pub(super) fn after_line(bytes: &[u8], at: usize) -> usize {
    let mut pos = at;
    while let Some(found) = memchr::memchr(b'\n', &bytes[pos..]) {
        let end = pos + found;
        pos = end + 1;
        let folded = matches!(bytes.get(pos), Some(b' ' | b'\t'));
        if end > at && bytes[end - 1] == b'\r' && !folded {
            return pos;
        }
    }
    bytes.len()
}

/// Splits the header line from `start` to the end of `bytes`, whose first eight bytes are `first`:
/// length of its name, offset of its value. White space may stand before the colon (RFC 3261 §7.3.1
/// `HCOLON`).
#[inline]
pub(super) fn split_line(bytes: &[u8], start: usize, first: u64) -> Option<(usize, usize)> {
    let mut colon = start + place_in_word(first, b':');
    if colon == start + 8 {
        bytes.get(colon..)?;
        colon += place_in_word(word(bytes, colon), b':');
    }
    if colon == start + 16 {
        colon += bytes.get(colon..)?.iter().position(|&byte| byte == b':')?;
    }
    if colon >= bytes.len() {
        return None;
    }
    let mut name_end = colon;
    while name_end > start && matches!(bytes[name_end - 1], b' ' | b'\t') {
        name_end -= 1;
    }
    let name_len = name_end - start;
    if name_len == 0 || name_len > usize::from(u16::MAX) {
        return None;
    }
    let mut value = colon + 1;
    while value < bytes.len() && bytes[value] <= b' ' && is(LWS, bytes[value]) {
        value += 1;
    }
    Some((name_len, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_faults() {
        use ParseErrorKind::*;
        let cases: &[(&[u8], Result<usize, ParseErrorKind>)] = &[
            (b"ab\r\n", Ok(2)),
            (b"\r\n", Ok(0)),
            (b"ab", Err(Unterminated)),
            (b"ab\r", Err(Unterminated)),
            (b"a\rb\r\n", Err(BareCr)),
            (b"a\nb\r\n", Err(BareLf)),
            (b"a\0b\r\n", Err(Nul)),
            (b"\"\\\0\"\r\n", Ok(4)),
            (b"\"\" \\\0\"\r\n", Err(Nul)),
        ];
        for (bytes, expected) in cases {
            let end = line_end(bytes, 0, 0).map_err(|fault| fault.kind);
            assert_eq!(end, *expected, "{bytes:?}");
        }
    }

    #[test]
    fn the_line_after_a_fault_is_no_fold_of_it() {
        let bytes = b"a\0b\nc\r\n d\r\nnext: 1\r\n";
        assert_eq!(&bytes[after_line(bytes, 1)..], b"next: 1\r\n");
        assert_eq!(after_line(b"a\0b\r\n c", 1), 7);
    }

    #[test]
    fn names_and_values() {
        let cases: [(&[u8], _); 12] = [
            (b"To:a", Some((2, 3))),
            (b"To \t: \r\n a", Some((2, 9))),
            (b"Content-Length: 5", Some((14, 16))),
            (b"abcdefgh:", Some((8, 9))),
            (b"abcdefghijklmno:", Some((15, 16))),
            (b"abcdefghijklmnop: x", Some((16, 18))),
            (b"abcdefghijklmnop", None),
            (b"To:", Some((2, 3))),
            (b"To", None),
            (b":a", None),
            (b"  :a", None),
            (b"abcdefghij", None),
        ];
        for (line, expected) in cases {
            // Whatever follows the line must not be taken for a part of it.
            let all = [line, &b"\r\n:::"[..]].concat();
            assert_eq!(split_line(&all[..line.len()], 0, word(&all, 0)), expected, "{line:?}");
        }
    }
}
