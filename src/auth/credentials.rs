//! What a client shows: the value of Authorization and Proxy-Authorization (RFC 3261 §20.7, §25.1
//! `credentials`, RFC 7616 §3.4). Read, not judged. Absent on purpose: `username*` and `userhash`
//! (RFC 7616 §3.4.4), which we never offer.

use crate::base::limits::{CREDENTIALS_BYTES_MAX, CREDENTIALS_PARAMS_MAX};

/// The parameters of `Digest` credentials, as they stand between their quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// Who it claims to be; escapes as written.
    pub username: &'a [u8],
    /// Which challenge it answers.
    pub realm: &'a [u8],
    /// The nonce of that challenge.
    pub nonce: &'a [u8],
    /// What the client took the Request-URI for.
    pub uri: &'a [u8],
    /// The digest, in hexadecimal.
    pub response: &'a [u8],
    /// Absent: MD5.
    pub algorithm: Option<&'a [u8]>,
    /// The client's own nonce.
    pub cnonce: Option<&'a [u8]>,
    /// What the digest covers.
    pub qop: Option<&'a [u8]>,
    /// How often the client has used the nonce, in hexadecimal.
    pub nc: Option<&'a [u8]>,
}

/// Why a value cannot be read: the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It is no list of `name=value`, or it is too long.
    Syntax,
    /// A parameter stands there twice.
    Doubled,
    /// A parameter is missing that a digest cannot be without.
    Missing,
}

impl<'a> Credentials<'a> {
    /// Reads a header field value. `None`: of another scheme than Digest.
    pub fn parse(value: &'a [u8]) -> Result<Option<Credentials<'a>>, Malformed> {
        let mut reader = Reader { rest: value };
        let scheme = reader.token();
        if !scheme.eq_ignore_ascii_case(b"Digest") {
            return Ok(None);
        }
        if value.len() > CREDENTIALS_BYTES_MAX || !reader.space() {
            return Err(Malformed::Syntax);
        }
        let mut slots = Slots::default();
        for _ in 0..CREDENTIALS_PARAMS_MAX {
            let (name, param) = reader.param().ok_or(Malformed::Syntax)?;
            slots.put(name, param)?;
            reader.space();
            match reader.rest.split_first() {
                None => return slots.finish().map(Some),
                Some((b',', rest)) => reader.rest = rest,
                Some(_) => return Err(Malformed::Syntax),
            }
            reader.space();
        }
        Err(Malformed::Syntax)
    }
}

/// The names that matter, in the order of [`Slots`].
const NAMES: [&[u8]; 9] =
    [b"username", b"realm", b"nonce", b"uri", b"response", b"algorithm", b"cnonce", b"qop", b"nc"];

#[derive(Default)]
struct Slots<'a>([Option<&'a [u8]>; NAMES.len()]);

impl<'a> Slots<'a> {
    fn put(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Malformed> {
        let Some(at) = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)) else {
            return Ok(());
        };
        match self.0[at].replace(value) {
            None => Ok(()),
            Some(_) => Err(Malformed::Doubled),
        }
    }

    fn finish(self) -> Result<Credentials<'a>, Malformed> {
        let [username, realm, nonce, uri, response, algorithm, cnonce, qop, nc] = self.0;
        let there = |slot: Option<&'a [u8]>| slot.ok_or(Malformed::Missing);
        Ok(Credentials {
            username: there(username)?,
            realm: there(realm)?,
            nonce: there(nonce)?,
            uri: there(uri)?,
            response: there(response)?,
            algorithm,
            cnonce,
            qop,
            nc,
        })
    }
}

/// Which bytes are token characters (RFC 3261 §25.1).
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < table.len() {
        let byte = at as u8;
        table[at] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
        at += 1;
    }
    table
};

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Passes white space, folds included; says whether there was any.
    fn space(&mut self) -> bool {
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let len = self.rest.iter().take_while(|byte| is_space(byte)).count();
        self.rest = &self.rest[len..];
        len > 0
    }

    /// The longest run of token characters (RFC 3261 §25.1), perhaps empty.
    fn token(&mut self) -> &'a [u8] {
        let len = self.rest.iter().take_while(|byte| TOKEN[usize::from(**byte)]).count();
        let (token, rest) = self.rest.split_at(len);
        self.rest = rest;
        token
    }

    /// `name = value` or `name = "value"`. Clients quote what they should not and the other way
    /// round: either is taken for every parameter.
    fn param(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let name = self.token();
        self.space();
        self.rest = self.rest.strip_prefix(b"=").filter(|_| !name.is_empty())?;
        self.space();
        if self.rest.first() == Some(&b'"') {
            return Some((name, self.quoted()?));
        }
        let value = self.token();
        (!value.is_empty()).then_some((name, value))
    }

    /// What stands between the quotes. A backslash takes whatever follows.
    fn quoted(&mut self) -> Option<&'a [u8]> {
        let text = &self.rest[1..];
        let mut at = 0;
        loop {
            at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
            if text[at] == b'"' {
                self.rest = &text[at + 1..];
                return Some(&text[..at]);
            }
            at += 2;
        }
    }
}

/// Appends a quoted string's content without the backslashes of its escapes (RFC 3261 §25.1
/// `quoted-pair`).
pub fn unescape_into(text: &[u8], out: &mut Vec<u8>) {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => *bytes.next().unwrap_or(byte),
            _ => *byte,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7616 §3.9.1.
    const RFC_7616: &[u8] = b"Digest username=\"Mufasa\",\r\n realm=\"http-auth@example.org\", \
        uri=\"/dir/index.html\", algorithm=MD5, \
        nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
        cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, \
        response=\"8ca523f5e9506fed4657c9700eebdbec\", \
        opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";

    #[test]
    fn the_example_of_the_rfc_by_parts() {
        let found = Credentials::parse(RFC_7616).unwrap().unwrap();
        assert_eq!(found.username, b"Mufasa");
        assert_eq!(found.realm, b"http-auth@example.org");
        assert_eq!((found.uri, found.qop), (&b"/dir/index.html"[..], Some(&b"auth"[..])));
        assert_eq!((found.algorithm, found.nc), (Some(&b"MD5"[..]), Some(&b"00000001"[..])));
        assert_eq!(found.response, b"8ca523f5e9506fed4657c9700eebdbec");
        assert_eq!(found.nonce.len(), 44);
        assert_eq!(found.cnonce.map(<[u8]>::len), Some(44));
    }

    #[test]
    fn order_case_space_and_quotes_do_not_matter() {
        let plain =
            b"Digest username=\"a\", realm=\"r\", nonce=\"n\", uri=\"sip:u\", response=\"x\"";
        let expected = Credentials::parse(plain).unwrap().unwrap();
        for other in [
            &b"digest RESPONSE = x , Uri=\"sip:u\",NONCE=n,realm=\"r\",username=a"[..],
            b"Digest\tx=\"\\\"y,z=\",response=\"x\",uri=\"sip:u\",nonce=\"n\",realm=r,username=\"a\"",
        ] {
            assert_eq!(Credentials::parse(other), Ok(Some(expected)));
        }
    }

    #[test]
    fn what_is_cut_off_is_never_read_as_whole() {
        let whole = Credentials::parse(RFC_7616).unwrap();
        let needed = memchr::memmem::find(RFC_7616, b", opaque").expect("it is there");
        for len in 7..RFC_7616.len() {
            let found = Credentials::parse(&RFC_7616[..len]);
            assert_eq!(found == Ok(whole), len == needed, "{len}");
            super::super::fuzz::credentials(&RFC_7616[..len]);
        }
        let cut = RFC_7616.len() - 1;
        assert_eq!(Credentials::parse(&RFC_7616[..cut]), Err(Malformed::Syntax), "an open quote");
    }

    #[test]
    fn faults_are_named() {
        let base = "Digest username=\"a\", realm=\"r\", nonce=\"n\", uri=\"u\", response=\"x\"";
        for name in ["username", "realm", "nonce", "uri", "response"] {
            let doubled = format!("{base}, {}=\"b\"", name.to_uppercase());
            assert_eq!(Credentials::parse(doubled.as_bytes()), Err(Malformed::Doubled), "{name}");
            let missing = base.replace(&format!("{name}="), "x=");
            assert_eq!(Credentials::parse(missing.as_bytes()), Err(Malformed::Missing), "{name}");
        }
        for (end, fault) in [
            (", nc=1, nc=2", Malformed::Doubled),
            (", qop=auth, qop=auth-int", Malformed::Doubled),
            (",", Malformed::Syntax),
            (",, nc=1", Malformed::Syntax),
            (" nc=1", Malformed::Syntax),
            (", nc", Malformed::Syntax),
            (", nc=", Malformed::Syntax),
            (", =1", Malformed::Syntax),
            (", cnonce=\"\\", Malformed::Syntax),
        ] {
            let text = format!("{base}{end}");
            assert_eq!(Credentials::parse(text.as_bytes()), Err(fault), "{end}");
        }
        for text in ["Digest", "Digest ", "Digest,", "Digest username"] {
            assert_eq!(Credentials::parse(text.as_bytes()), Err(Malformed::Syntax), "{text}");
        }
        for text in ["", "Basic QWxhZGRpbjpvcGVu", "Bearer x", "\"Digest\" a=b"] {
            assert_eq!(Credentials::parse(text.as_bytes()), Ok(None), "{text}");
        }
    }

    #[test]
    fn size_and_number_of_parameters_are_bounded() {
        let base = "Digest username=\"a\", realm=\"r\", nonce=\"n\", uri=\"u\", response=\"x\"";
        let with = |more: usize| base.to_owned() + &", x=y".repeat(more);
        assert!(Credentials::parse(with(CREDENTIALS_PARAMS_MAX - 5).as_bytes()).is_ok());
        let many = with(CREDENTIALS_PARAMS_MAX - 4);
        assert_eq!(Credentials::parse(many.as_bytes()), Err(Malformed::Syntax));
        let long = format!("{base}, x=\"{}\"", "y".repeat(CREDENTIALS_BYTES_MAX));
        assert_eq!(Credentials::parse(long.as_bytes()), Err(Malformed::Syntax));
    }

    #[test]
    fn escapes_are_taken_off() {
        let mut out = Vec::new();
        unescape_into(br#"a\"b\\c\"#, &mut out);
        assert_eq!(out, br#"a"b\c\"#);
    }
}
