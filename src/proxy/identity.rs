//! Identities at the border of trust (RFC 3325): what strangers assert stays behind, what we know
//! ourselves is asserted toward servers behind us, and what a sender wants hidden does not get out.

use crate::base::config::Config;
use crate::sip::{Edits, HeaderName, Message, Method};

/// Between whom a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Border {
    /// Who sent it may assert identities (§4).
    pub from_trusted: bool,
    /// Who gets it belongs to those who may.
    pub to_trusted: bool,
}

/// Takes off what the sender may not assert (§5, §9.1), and what it may but wants hidden from those
/// outside (§7).
pub fn withhold(message: Message<'_>, border: Border, edits: &mut Edits) {
    if border.from_trusted && border.to_trusted {
        return;
    }
    for name in [HeaderName::PAssertedIdentity, HeaderName::PPreferredIdentity] {
        if message.header(name).is_none() || border.from_trusted && !is_private(message) {
            continue;
        }
        for header in message.headers().filter(|header| header.name == name) {
            edits.remove(header.line);
        }
    }
}

/// Whether Privacy asks for `id` (§9.3).
fn is_private(message: Message<'_>) -> bool {
    let mut fields = message.headers().filter(|header| {
        header.name == HeaderName::Other && header.raw_name.eq_ignore_ascii_case(b"Privacy")
    });
    fields.any(|header| {
        let mut values = header.value.split(|byte| matches!(byte, b';' | b','));
        values.any(|value| value.trim_ascii().eq_ignore_ascii_case(b"id"))
    })
}

/// Says who the sender is, whose canonical address of record is `aor` (§5). Methods are those of
/// §9.1.
pub fn assert(message: Message<'_>, aor: &[u8], edits: &mut Edits) {
    if matches!(message.method(), Method::Ack | Method::Cancel | Method::Register) {
        return;
    }
    edits.insert_with(message.headers_end(), |out| {
        out.extend_from_slice(b"P-Asserted-Identity: <sip:");
        write_aor(aor, out);
        out.extend_from_slice(b">\r\n");
    });
}

/// The address of record with the escapes that a URI needs (RFC 3261 §25.1 `user`).
fn write_aor(aor: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let at = memchr::memrchr(b'@', aor).unwrap_or(aor.len());
    for byte in &aor[..at] {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(byte) {
            out.push(*byte);
        } else {
            let digit = |nibble: u8| DIGITS[usize::from(nibble)];
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out.extend_from_slice(&aor[at..]);
}

/// Takes off the credentials that answered a challenge of ours: they are for nobody else (RFC 3261
/// §22.3).
pub fn remove_credentials(config: &Config, message: Message<'_>, edits: &mut Edits) {
    let names = [HeaderName::ProxyAuthorization, HeaderName::Authorization];
    // What a REGISTER says in Authorization is for the registrar behind us that it goes to.
    let names = if message.method() == Method::Register { &names[..1] } else { &names };
    for name in names {
        if message.header(*name).is_none() {
            continue;
        }
        for header in message.headers().filter(|it| it.name == *name) {
            if crate::auth::is_for_us(config, *name, header.value) {
                edits.remove(header.line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Parsed, parse};

    const TRUSTED: Border = Border { from_trusted: true, to_trusted: true };
    const OUT: Border = Border { from_trusted: true, to_trusted: false };
    const IN: Border = Border { from_trusted: false, to_trusted: true };
    const OUTSIDE: Border = Border { from_trusted: false, to_trusted: false };

    fn edited(lines: &str, edit: impl Fn(Message<'_>, &mut Edits)) -> String {
        let text = format!("MESSAGE sip:a@b SIP/2.0\r\n{lines}\r\n");
        let mut parsed = Parsed::default();
        // Only its lines matter here.
        let _ = parse(text.as_bytes(), &mut parsed);
        let mut edits = Edits::default();
        edit(parsed.view(text.as_bytes()), &mut edits);
        let mut out = Vec::new();
        edits.write_to(text.as_bytes(), &mut out);
        let out = String::from_utf8(out).unwrap();
        out["MESSAGE sip:a@b SIP/2.0\r\n".len()..out.len() - 2].to_owned()
    }

    #[test]
    fn identities_cross_the_border_as_rfc_3325_says() {
        let asserted = "P-Asserted-Identity: <sip:x@y>\r\nP-Asserted-Identity: <tel:+1>\r\n";
        let preferred = "P-Preferred-Identity: <sip:x@y>\r\n";
        let both = format!("{asserted}{preferred}");
        let hidden = format!("Privacy: header;id\r\n{asserted}");
        let shown = format!("privacy: none\r\n{asserted}");
        for (lines, border, expected) in [
            (&*both, TRUSTED, &*both),
            (&both, OUT, &both),
            (&both, IN, ""),
            (&both, OUTSIDE, ""),
            (&hidden, TRUSTED, &hidden),
            (&hidden, OUT, "Privacy: header;id\r\n"),
            (&hidden, IN, "Privacy: header;id\r\n"),
            (&shown, OUT, &shown),
        ] {
            let found = edited(lines, |message, edits| withhold(message, border, edits));
            assert_eq!(found, expected, "{border:?} of {lines}");
        }
    }

    #[test]
    fn a_name_is_escaped_where_a_uri_needs_it() {
        let found = edited("", |message, edits| {
            assert(message, "z\u{f6}e b@r+1@example.com".as_bytes(), edits);
        });
        assert_eq!(found, "P-Asserted-Identity: <sip:z%C3%B6e%20b%40r+1@example.com>\r\n");
    }
}
