//! Reading a REGISTER's Contact values (RFC 3261 §10.2.1, §20.10, RFC 5626 §4.2) and comparing
//! Contacts. Absent on purpose: what becomes of them.

use smallvec::SmallVec;

use crate::base::decimal::write_number;
use crate::base::hash::KeyedHash;
use crate::base::id::ClientKey;
use crate::base::limits::BINDING_BYTES_MAX;
use crate::sip::{NameAddr, ParseError, Scheme, Uri};

use super::answer::push_unfolded;
use super::binding::Binding;
use super::client::client_key;

/// What a malformed `expires` counts as (RFC 3261 §20.10).
pub(super) const EXPIRES_IF_MALFORMED: u32 = 3600;
/// Largest reg-id (RFC 5626 §4.2).
const REG_ID_MAX: u32 = (1 << 31) - 1;
/// Parameters that the registrar writes itself: a GRUU that the client suggests is ignored (RFC
/// 5627 §5.1).
const NOT_KEPT: [&[u8]; 4] = [b"expires", b"q", b"pub-gruu", b"temp-gruu"];
/// The preference of a Contact without q.
pub(super) const Q_MAX: u16 = 1000;

/// Header field parameters, of which few clients write more than fit.
type Params<'a> = SmallVec<[(&'a [u8], Option<&'a [u8]>); 8]>;

/// One Contact value, understood.
#[derive(Clone, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) address: NameAddr<'a>,
    /// The header field parameters, as written.
    params: Params<'a>,
    pub(super) uri: Uri<'a>,
    /// Of the `expires` parameter; `None` when there is none.
    pub(super) expires: Option<u32>,
    pub(super) q: u16,
    pub(super) instance: Option<&'a [u8]>,
    /// 0: none, or none that counts.
    pub(super) reg_id: u32,
}

/// Why a Contact value cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ContactError {
    /// The value or its URI is not of the grammar.
    Syntax(ParseError),
    /// The q is not of RFC 3261 §25.1's `qvalue`.
    Q,
    /// It is longer than a binding may be.
    Length,
}

impl<'a> Wanted<'a> {
    /// Reads one Contact value other than `*`.
    pub(super) fn parse(value: &'a [u8]) -> Result<Wanted<'a>, ContactError> {
        if value.len() > BINDING_BYTES_MAX {
            return Err(ContactError::Length);
        }
        let mut params = Params::new();
        let address = NameAddr::parse_with(value, |name, value| params.push((name, value)))
            .map_err(ContactError::Syntax)?;
        let uri = Uri::parse(address.uri).map_err(ContactError::Syntax)?;
        let mut wanted =
            Wanted { address, params, uri, expires: None, q: Q_MAX, instance: None, reg_id: 0 };
        for &(name, value) in &wanted.params {
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            match name.len() {
                1 if is("q") => wanted.q = address.q().ok_or(ContactError::Q)?,
                6 if is("reg-id") => wanted.reg_id = value.and_then(decimal).unwrap_or_default(),
                7 if is("expires") => wanted.expires = Some(seconds(value.unwrap_or_default())),
                13 if is("+sip.instance") => wanted.instance = value,
                _ => {}
            }
        }
        // A reg-id without an instance is ignored (RFC 5626 §6), as is one out of range.
        if wanted.instance.is_none() || wanted.reg_id > REG_ID_MAX {
            wanted.reg_id = 0;
        }
        Ok(wanted)
    }

    /// The client that has this Contact of the canonical address of record `aor`.
    pub(super) fn client(&self, hash: &KeyedHash, aor: &[u8]) -> ClientKey {
        let flow = self.instance.filter(|_| self.reg_id != 0).map(|it| (it, self.reg_id));
        client_key(hash, aor, flow, self.address.uri)
    }

    /// Whether this Contact means the binding: equal instance and reg-id (RFC 5626 §6), or equal
    /// URIs (RFC 3261 §10.3 step 7). With a reg-id the URI says nothing about bindings that have
    /// one too.
    pub(super) fn means(&self, binding: &Binding) -> bool {
        match self.instance.filter(|_| self.reg_id != 0) {
            Some(instance) if binding.reg_id() != 0 => {
                binding.is_of_instance(instance, self.reg_id)
            }
            _ => is_same_uri(self.address.uri, &self.uri, binding.contact()),
        }
    }

    /// Writes the parameters that the registrar shows again: all but q, expires and GRUUs, as
    /// written, each with its semicolon before it. Returns where the instance stands in them.
    pub(super) fn params_into(&self, out: &mut Vec<u8>) -> Option<(usize, usize)> {
        let mut instance = None;
        for &(name, value) in &self.params {
            if NOT_KEPT.iter().any(|known| name.eq_ignore_ascii_case(known)) {
                continue;
            }
            out.push(b';');
            out.extend_from_slice(name);
            let Some(value) = value else { continue };
            let quote: &[u8] = if self.is_quoted(value) { b"\"" } else { b"" };
            out.push(b'=');
            out.extend_from_slice(quote);
            let start = out.len();
            push_unfolded(value, out);
            if name.eq_ignore_ascii_case(b"+sip.instance") {
                instance = Some((start, out.len()));
            }
            out.extend_from_slice(quote);
        }
        instance
    }

    /// Whether a parameter's value was written in quotes, which its slice leaves out.
    fn is_quoted(&self, value: &[u8]) -> bool {
        let raw = self.address.params_raw;
        let at = value.as_ptr().addr() - raw.as_ptr().addr();
        at > 0 && raw[at - 1] == b'"'
    }

    /// Whether an earlier value of one request means the same as this one.
    pub(super) fn repeats(&self, other: &Wanted<'_>) -> bool {
        if self.reg_id != 0 && other.reg_id != 0 {
            return self.reg_id == other.reg_id && self.instance == other.instance;
        }
        self.uri.equivalent(&other.uri)
    }
}

/// Writes the form under which a Contact is indexed: user, host and port, the user unescaped, the
/// host in lower case, parameters dropped. Equal URIs have equal forms; URIs of one form still have
/// to be compared, since they may differ in parameters. False, and nothing is written, for URIs
/// that are not SIP.
pub fn canonical_contact(uri: &Uri<'_>, out: &mut Vec<u8>) -> bool {
    if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
        return false;
    }
    uri.aor_into(out);
    if let Some(port) = uri.port {
        out.push(b':');
        write_number(u64::from(port), out);
    }
    true
}

/// A comparison by RFC 3261 §19.1.4 that is quick for the usual case of equal bytes.
fn is_same_uri(text: &[u8], uri: &Uri<'_>, contact: &[u8]) -> bool {
    text == contact || Uri::parse(contact).is_ok_and(|contact| contact.equivalent(uri))
}

/// `delta-seconds`: what exceeds 32 bits is their largest number, what is malformed an hour.
fn seconds(text: &[u8]) -> u32 {
    match text {
        [] => EXPIRES_IF_MALFORMED,
        _ if !text.iter().all(u8::is_ascii_digit) => EXPIRES_IF_MALFORMED,
        _ => decimal(text).unwrap_or(u32::MAX),
    }
}

/// A decimal number of 32 bits.
fn decimal(text: &[u8]) -> Option<u32> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u32::from(byte - b'0'));
    text.iter().try_fold(0_u32, |number, byte| number.checked_mul(10)?.checked_add(digit(byte)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_and_expires_are_optional_and_checked() {
        for (params, expected) in [
            ("", Ok((1000, None))),
            (";q=0.25;expires=0", Ok((250, Some(0)))),
            (";q=0;expires=99999999999", Ok((0, Some(u32::MAX)))),
            (";expires=1h", Ok((1000, Some(3600)))),
            (";expires", Ok((1000, Some(3600)))),
            (";q=1.1", Err(ContactError::Q)),
            (";q", Err(ContactError::Q)),
        ] {
            let text = format!("<sip:a@b>{params}");
            let wanted = Wanted::parse(text.as_bytes());
            assert_eq!(wanted.map(|wanted| (wanted.q, wanted.expires)), expected, "{params}");
        }
    }

    #[test]
    fn a_contact_longer_than_a_binding_is_not_read() {
        let value = |params: usize| format!("<sip:a@b>{}", ";x".repeat(params)).into_bytes();
        assert!(Wanted::parse(&value(BINDING_BYTES_MAX / 2 - 5)).is_ok());
        let longer = value(BINDING_BYTES_MAX / 2);
        assert_eq!(Wanted::parse(&longer).err(), Some(ContactError::Length));
    }

    #[test]
    fn a_contact_value_is_understood() {
        let text = b"\"A, B\" <sip:a@b.invalid;transport=ws>;+sip.ice;reg-id=1;expires=60;q=0.7\
            ;+sip.instance=\"<urn:uuid:1>\"";
        let wanted = Wanted::parse(text).unwrap();
        assert_eq!(wanted.address.uri, b"sip:a@b.invalid;transport=ws");
        assert_eq!((wanted.expires, wanted.q, wanted.reg_id), (Some(60), 700, 1));
        assert_eq!(wanted.instance, Some(&b"<urn:uuid:1>"[..]));
    }

    #[test]
    fn a_reg_id_counts_only_with_an_instance_and_in_range() {
        for (params, reg_id) in [
            (";reg-id=2;+sip.instance=\"<urn:x:1>\"", 2),
            (";reg-id=2", 0),
            (";reg-id=0;+sip.instance=\"<urn:x:1>\"", 0),
            (";reg-id=2147483648;+sip.instance=\"<urn:x:1>\"", 0),
            (";reg-id=x;+sip.instance=\"<urn:x:1>\"", 0),
            (";reg-id;+sip.instance=\"<urn:x:1>\"", 0),
        ] {
            let text = format!("<sip:a@b>{params}");
            assert_eq!(Wanted::parse(text.as_bytes()).unwrap().reg_id, reg_id, "{params}");
        }
    }

    #[test]
    fn every_truncation_of_a_contact_is_read_or_refused() {
        let text = b"\"A\" <sip:%61@[::1]:5060;x=y>;q=0.7;+sip.instance=\"<urn:uuid:1>\";expires=7";
        for end in 0..text.len() {
            if let Ok(wanted) = Wanted::parse(&text[..end]) {
                assert!(wanted.q <= Q_MAX);
            }
        }
    }

    #[test]
    fn a_canonical_contact_keeps_user_host_and_port() {
        for (uri, expected) in [
            ("sip:alice@Example.COM", Some("alice@example.com")),
            ("sips:%61lice@example.com:5061;transport=tls", Some("alice@example.com:5061")),
            ("sip:a@[2001:DB8::1]:5060", Some("a@[2001:db8::1]:5060")),
            ("tel:+1-201-555-0123", None),
            ("mailto:a@b.example", None),
        ] {
            let mut out = Vec::new();
            let is_sip = canonical_contact(&Uri::parse(uri.as_bytes()).unwrap(), &mut out);
            assert_eq!(is_sip.then_some(out.as_slice()), expected.map(str::as_bytes), "{uri}");
        }
    }
}
