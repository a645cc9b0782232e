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
    !text.is_empty() && run(class, text) == text.len()
}

/// How many bytes of `text` from the first on are of the one class `class`. Four at once: runs are
/// long enough for that to take half the steps.
#[inline]
pub(super) fn run(class: u8, text: &[u8]) -> usize {
    let mut len = 0;
    while let Some(four) = text[len..].first_chunk::<4>() {
        let common = four.iter().fold(class, |common, &byte| common & CLASSES[usize::from(byte)]);
        if common == 0 {
            break;
        }
        len += 4;
    }
    while len < text.len() && is(class, text[len]) {
        len += 1;
    }
    len
}

/// A number of decimal digits only. `None`: anything else. What is beyond 64 bits is saturated.
#[inline]
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // Beyond 19 digits a multiplication could overflow.
        value = match value {
            0..=0xff_ffff_ffff_ffff => value * 10 + u64::from(digit),
            _ => value.saturating_mul(10).saturating_add(u64::from(digit)),
        };
    }
    Some(value)
}

/// Eight bytes from `at` on, zeros beyond the end.
#[inline(always)]
pub(super) fn word(bytes: &[u8], at: usize) -> u64 {
    match bytes[at..].first_chunk() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => {
            let mut chunk = [0; 8];
            let rest = &bytes[at..];
            chunk[..rest.len()].copy_from_slice(rest);
            u64::from_le_bytes(chunk)
        }
    }
}

/// The place of the first byte of `word` that equals `byte`; 8 when there is none.
#[inline(always)]
pub(super) fn place_in_word(word: u64, byte: u8) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let zeroed = word ^ (ONES * byte as u64);
    // The lowest bit that is set is exact; borrows only disturb those above it.
    let found = zeroed.wrapping_sub(ONES) & !zeroed & (ONES << 7);
    (found.trailing_zeros() / 8) as usize
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
    fn words() {
        assert_eq!(word(b"abcdefghi", 1), u64::from_le_bytes(*b"bcdefghi"));
        assert_eq!(word(b"abc", 1), u64::from_le_bytes(*b"bc\0\0\0\0\0\0"));
        assert_eq!(word(b"abc", 3), 0);
        for at in 0..8 {
            let mut bytes = [b';'; 8];
            bytes[at..].fill(b':');
            assert_eq!(place_in_word(u64::from_le_bytes(bytes), b':'), at);
        }
        assert_eq!(place_in_word(0, b':'), 8);
        assert_eq!(place_in_word(u64::from_le_bytes(*b"\xba;9\0\xffx \r"), b':'), 8);
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
