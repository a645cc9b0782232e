//! Byte classes of the grammar (RFC 3261 §25.1), and the comparisons that it asks for. Where phones
//! are known to write more than the grammar allows, the class says so.

/// `token`: `1*(alphanum / "-" / "." / "!" / "%" / "*" / "_" / "+" / "`" / "'" / "~")`.
pub(super) const TOKEN: u8 = 1;
/// What may stand in an unquoted parameter value. Wider than `token / host`: whatever cannot be a
/// separator.
pub(super) const VALUE: u8 = 2;
/// What may stand in a URI at all. Wider than RFC 3986: all but controls, space and `<` `>` `"`.
pub(super) const URI: u8 = 4;
/// `user` and `password`, `%` included. Wider: `#` (dialled unescaped by phones), `[ ] ^ { | }` and
/// UTF-8.
pub(super) const USER: u8 = 8;
/// `hostname` and `IPv4address`. Wider: `_`.
pub(super) const HOST: u8 = 16;
/// `scheme` after its first letter.
pub(super) const SCHEME: u8 = 32;
/// Linear white space, the CR and LF of folds included.
pub(super) const LWS: u8 = 64;
/// An unquoted display name: token characters, and UTF-8 as many phones write it.
pub(super) const DISPLAY: u8 = 128;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        let alnum = byte.is_ascii_alphanumeric();
        let mut class = 0;
        if alnum || contains(b"-.!%*_+`'~", byte) {
            class |= TOKEN | DISPLAY;
        }
        if byte > b' ' && byte != 0x7f {
            if !contains(b"\";,<>", byte) {
                class |= VALUE;
            }
            if !contains(b"<>\"", byte) {
                class |= URI;
            }
        }
        if alnum || byte >= 0x80 || contains(b"-_.!~*'()%&=+$,;?/#[]^{|}", byte) {
            class |= USER;
        }
        if alnum || contains(b"-._", byte) {
            class |= HOST;
        }
        if alnum || contains(b"+-.", byte) {
            class |= SCHEME;
        }
        if contains(b" \t\r\n", byte) {
            class |= LWS;
        }
        if byte >= 0x80 {
            class |= DISPLAY;
        }
        table[at] = class;
        at += 1;
    }
    table
}

const fn contains(set: &[u8], byte: u8) -> bool {
    let mut at = 0;
    while at < set.len() {
        if set[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

/// Whether `byte` is of one of the classes in `class`.
#[inline(always)]
pub(super) fn is(class: u8, byte: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// Whether all of `text` is of `class`, and there is any.
#[inline]
pub(super) fn all(class: u8, text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is(class, byte))
}

/// A number of decimal digits only. `None`: anything else, or beyond 64 bits, which is saturated.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for &byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
    }
    Some(value)
}

/// The value of a hexadecimal digit.
pub(super) fn hex(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

/// The end of the quoted string that opens at `at`: the offset after its closing quote. `None`: it
/// does not end before `end`. A backslash takes whatever follows (RFC 3261 §25.1 `quoted-pair`).
pub(super) fn quoted_end(bytes: &[u8], at: usize, end: usize) -> Option<usize> {
    let mut pos = at + 1;
    while pos < end {
        let found = pos + memchr::memchr2(b'"', b'\\', &bytes[pos..end])?;
        if bytes[found] == b'"' {
            return Some(found + 1);
        }
        pos = found + 2;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_the_grammar() {
        for byte in 0..=255u8 {
            let expected = byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte);
            assert_eq!(is(TOKEN, byte), expected, "{byte}");
        }
    }

    #[test]
    fn numbers() {
        let cases: &[(&[u8], Option<u64>)] = &[
            (b"0", Some(0)),
            (b"0068", Some(68)),
            (b"99999999999999999999999", Some(u64::MAX)),
            (b"", None),
            (b"-1", None),
            (b"+1", None),
            (b"1 2", None),
        ];
        for (text, expected) in cases {
            assert_eq!(number(text), *expected);
        }
    }

    #[test]
    fn quoted_strings_end_at_their_own_quote() {
        let cases: &[(&[u8], Option<usize>)] = &[
            (b"\"\"", Some(2)),
            (b"\"a\" b", Some(3)),
            (b"\"a\\\"b\"", Some(6)),
            (b"\"\\\\\"x", Some(4)),
            (b"\"\\\"", None),
            (b"\"\\", None),
            (b"\"", None),
        ];
        for (text, expected) in cases {
            assert_eq!(quoted_end(text, 0, text.len()), *expected, "{text:?}");
        }
    }
}
