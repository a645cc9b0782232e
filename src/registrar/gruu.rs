//! Globally routable user agent URIs (RFC 5627): names for one instance of a user, a public one that
//! shows the address of record and temporary ones that hide it. Neither needs a table: the public
//! one is the address of record with the instance in `gr`, a temporary one is its own record,
//! encrypted (a variant of RFC 5627 appendix A.2). Absent on purpose: which bindings there are.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use smallvec::SmallVec;

use crate::base::hash::{Mac, derive_key};
use crate::base::limits::BINDING_BYTES_MAX;
use crate::sip::{Scheme, Uri, unescape_into};

use super::binding::{Binding, is_same_instance, is_uuid};

/// What the user part of a temporary GRUU begins with.
const PREFIX: &[u8] = b"tgruu.";
const NONCE: usize = 12;
const TAG: usize = 16;
/// Of the record: the registration's number and the hash of the instance.
const HEAD: usize = 4 + 8;
/// Longer ones than this are put together on the heap.
const RECORD_USUAL: usize = 128;
/// Of the user part, so that what cannot be ours is not decoded.
const TEXT_MAX: usize = (NONCE + HEAD + BINDING_BYTES_MAX + TAG).div_ceil(3) * 4;

/// Makes temporary GRUUs and reads them again, alike in every shard and every run that has the
/// secret.
pub struct GruuKey {
    seal: LessSafeKey,
    instances: Mac,
}

/// Which instance of an address of record a Request-URI asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gruu {
    /// Public: the value of `gr`, unescaped.
    Public(Vec<u8>),
    /// Temporary.
    Temporary {
        /// The registration that it was made for.
        registration: u32,
        /// What [`GruuKey`] makes of its instance.
        instance: u64,
    },
}

impl Gruu {
    /// Whether it was temporary, and made for another registration than that of `last`, the newest
    /// binding of its instance (RFC 5627 §5.1, §5.3).
    pub fn is_outdated(&self, last: Option<&Binding>) -> bool {
        match self {
            Gruu::Public(_) => false,
            Gruu::Temporary { registration, .. } => {
                last.is_none_or(|last| last.registration() != *registration)
            }
        }
    }
}

impl GruuKey {
    /// From the secret of the installation, which outlives a run.
    pub fn new(secret: &[u8; 32]) -> GruuKey {
        let halves = [derive_key(secret, "gruu low"), derive_key(secret, "gruu high")].concat();
        let key = UnboundKey::new(&AES_256_GCM_SIV, &halves).expect("32 bytes are a key");
        GruuKey {
            seal: LessSafeKey::new(key),
            instances: Mac::new(derive_key(secret, "gruu instance")),
        }
    }

    /// Appends the canonical address of record that a Request-URI of ours stands for: its own, or
    /// the one that a temporary GRUU hides.
    pub fn aor_into(&self, uri: &Uri<'_>, aor: &mut Vec<u8>) {
        let is_hidden = uri.user.is_some_and(|user| user.starts_with(PREFIX));
        if !is_hidden || self.read(uri, aor).is_none() {
            uri.aor_into(aor);
        }
    }

    /// Appends the canonical address of record of the GRUU `uri` and tells which instance is
    /// meant; `None`, and nothing is appended, when it is no GRUU of ours.
    pub fn read(&self, uri: &Uri<'_>, aor: &mut Vec<u8>) -> Option<Gruu> {
        match uri.param("gr")?.filter(|value| !value.is_empty()) {
            Some(value) => {
                let mut instance = Vec::with_capacity(value.len());
                unescape_into(value, &mut instance);
                uri.aor_into(aor);
                Some(Gruu::Public(instance))
            }
            None => self.open(uri.user?, aor),
        }
    }

    /// Whether a binding is one of the instance that is asked for, apart from the registration of
    /// a temporary GRUU.
    pub fn is_of(&self, gruu: &Gruu, binding: &Binding) -> bool {
        let Some(ours) = binding.instance() else { return false };
        match gruu {
            Gruu::Public(instance) => is_same_instance(bare(ours), instance),
            Gruu::Temporary { instance, .. } => self.hash(ours) == *instance,
        }
    }

    /// Appends the user part of a new temporary GRUU. `seed` should differ each time; if it ever
    /// does not, only equal records look equal. The nonce tells nothing of it: GRUUs of one answer
    /// are as unlike as any others (RFC 5627 §5.1).
    pub(super) fn seal(&self, binding: &Binding, seed: [u8; NONCE], out: &mut Vec<u8>) {
        let Some(instance) = binding.instance() else { return };
        let whole = self.instances.tag(&[b"nonce", &seed]);
        let nonce: [u8; NONCE] = std::array::from_fn(|i| whole[i]);
        let mut record: SmallVec<[u8; RECORD_USUAL]> = SmallVec::from_slice(&nonce);
        record.extend_from_slice(&binding.registration().to_be_bytes());
        record.extend_from_slice(&self.hash(instance).to_be_bytes());
        record.extend_from_slice(binding.aor());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let place = &mut record[NONCE..];
        let tag = self.seal.seal_in_place_separate_tag(nonce, Aad::from(PREFIX), place);
        record.extend_from_slice(tag.expect("far below what the cipher takes").as_ref());
        out.extend_from_slice(PREFIX);
        let start = out.len();
        out.resize(start + record.len().div_ceil(3) * 4, 0);
        let encoded = BASE64_URL_SAFE_NO_PAD.encode_slice(&record, &mut out[start..]);
        out.truncate(start + encoded.expect("room for whole groups"));
    }

    fn open(&self, user: &[u8], aor: &mut Vec<u8>) -> Option<Gruu> {
        let text = user.strip_prefix(PREFIX).filter(|text| text.len() <= TEXT_MAX)?;
        let mut record = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = record.split_at_mut_checked(NONCE)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let open = self.seal.open_in_place(nonce, Aad::from(PREFIX), sealed).ok()?;
        let (registration, rest) = open.split_first_chunk()?;
        let (instance, owner) = rest.split_first_chunk()?;
        aor.extend_from_slice(owner);
        Some(Gruu::Temporary {
            registration: u32::from_be_bytes(*registration),
            instance: u64::from_be_bytes(*instance),
        })
    }

    /// Equal for instances that are the same.
    fn hash(&self, instance: &[u8]) -> u64 {
        let mut canonical: SmallVec<[u8; RECORD_USUAL]> = SmallVec::from_slice(instance);
        if is_uuid(instance) {
            canonical.make_ascii_lowercase();
        }
        let tag = self.instances.tag(&[&canonical]);
        u64::from_be_bytes(std::array::from_fn(|i| tag[i]))
    }
}

/// Appends `;pub-gruu` and `;temp-gruu` of a binding with an instance (RFC 5627 §5.2), in the form
/// of the address of record that the client wrote.
pub(super) fn params_into(
    key: &GruuKey,
    aor: &Uri<'_>,
    binding: &Binding,
    seed: [u8; NONCE],
    out: &mut Vec<u8>,
) {
    let Some(instance) = binding.instance() else { return };
    let scheme: &[u8] = if aor.scheme == Scheme::Sips { b"sips:" } else { b"sip:" };
    out.extend_from_slice(b";pub-gruu=\"");
    out.extend_from_slice(scheme);
    out.extend_from_slice(aor.user.unwrap_or_default());
    out.push(b'@');
    out.extend_from_slice(aor.host);
    out.extend_from_slice(b";gr=");
    escape_into(bare(instance), out);
    out.extend_from_slice(b"\";temp-gruu=\"");
    out.extend_from_slice(scheme);
    key.seal(binding, seed, out);
    out.push(b'@');
    out.extend_from_slice(aor.host);
    out.extend_from_slice(b";gr\"");
}

/// The URN without its angle brackets.
fn bare(instance: &[u8]) -> &[u8] {
    let inner = instance.strip_prefix(b"<").and_then(|rest| rest.strip_suffix(b">"));
    inner.unwrap_or(instance)
}

/// The value of a URI parameter (RFC 3261 §25.1, `pvalue`), which also stands in quotes here.
fn escape_into(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let is_odd = |byte: &u8| {
        !matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' | b'!' | b'~'
            | b'*' | b'\'' | b'(' | b')' | b'[' | b']' | b'/' | b':' | b'&' | b'+' | b'$')
    };
    let mut rest = text;
    while let Some(at) = rest.iter().position(is_odd) {
        out.extend_from_slice(&rest[..at]);
        let digits = [rest[at] >> 4, rest[at] & 0xf].map(|digit| HEX[usize::from(digit)]);
        out.extend_from_slice(&[b'%', digits[0], digits[1]]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::super::harness::{Desk, canonical_aor};
    use super::*;

    const ALICE: &str = "sip:alice@Example.com";
    const INSTANCE: &str = "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6";

    fn contact(host: &str, more: &str) -> String {
        format!(
            "Supported: path, gruu\nContact: <sip:a@{host}>;+sip.instance=\"<{INSTANCE}>\"{more}\n"
        )
    }

    /// The GRUU in that parameter of the only Contact listed.
    fn listed(desk: &Desk, name: &str) -> String {
        let listed = desk.listed();
        assert_eq!(listed.len(), 1, "{listed:?}");
        let start = format!(";{name}=\"");
        let (_, rest) = listed[0].split_once(&start).unwrap_or_else(|| panic!("{listed:?}"));
        rest.split_once('"').unwrap().0.to_owned()
    }

    /// The address of record that a URI stands for, and whether its GRUU finds a binding.
    fn read(desk: &Desk, uri: &str) -> Option<(String, usize, bool)> {
        let uri = Uri::parse(uri.as_bytes()).unwrap();
        let mut aor = Vec::new();
        let gruu = desk.gruu_key.read(&uri, &mut aor)?;
        let meant = || {
            let bindings = desk.location.lookup(&aor, desk.now);
            bindings.filter(|binding| desk.gruu_key.is_of(&gruu, binding))
        };
        let is_outdated = gruu.is_outdated(meant().next());
        Some((String::from_utf8(aor.clone()).unwrap(), meant().count(), is_outdated))
    }

    #[test]
    fn an_instance_gets_a_public_and_a_temporary_gruu_when_it_asks() {
        let mut desk = Desk::new();
        desk.register(ALICE, ("c", 1), &contact("h", "")).unwrap();
        assert_eq!(listed(&desk, "pub-gruu"), format!("sip:alice@Example.com;gr={INSTANCE}"));
        let temporary = listed(&desk, "temp-gruu");
        assert!(temporary.starts_with("sip:tgruu."), "{temporary}");
        assert!(temporary.ends_with("@Example.com;gr"), "{temporary}");
        assert!(!temporary.contains("alice"));
        for gruu in [listed(&desk, "pub-gruu"), temporary] {
            assert_eq!(read(&desk, &gruu), Some(("alice@example.com".into(), 1, false)));
        }
        assert!(!desk.headers().contains("gruu\r\n"), "no option tag (RFC 5627 §5.2)");

        desk.register(ALICE, ("c", 2), &contact("h", "").replace("path, gruu", "path")).unwrap();
        assert!(!desk.headers().contains("gruu"), "{}", desk.headers());
        desk.register(ALICE, ("d", 1), "Supported: gruu\nContact: *\nExpires: 0\n").unwrap();
        desk.register(ALICE, ("d", 2), "Supported: gruu\nContact: <sip:a@h>\n").unwrap();
        assert!(!desk.headers().contains("gruu="), "without an instance there is none");
    }

    #[test]
    fn what_a_client_suggests_is_ignored() {
        let mut desk = Desk::new();
        let more = ";pub-gruu=\"sip:x@y;gr=1\";temp-gruu=\"sip:z@y;gr\"";
        desk.register(ALICE, ("c", 1), &contact("h", more)).unwrap();
        assert!(!desk.headers().contains("x@y") && !desk.headers().contains("z@y"));
        assert_eq!(listed(&desk, "pub-gruu"), format!("sip:alice@Example.com;gr={INSTANCE}"));
    }

    #[test]
    fn temporary_gruus_differ_and_live_while_the_call_id_does() {
        let mut desk = Desk::new();
        let mut temporary = Vec::new();
        for cseq in 1..4 {
            desk.random = u64::from(cseq) << 32 | 7;
            desk.register(ALICE, ("c", cseq), &contact("h", "")).unwrap();
            temporary.push(listed(&desk, "temp-gruu"));
        }
        assert!(temporary[0] != temporary[1] && temporary[1] != temporary[2]);
        for gruu in &temporary {
            assert!(!read(&desk, gruu).unwrap().2);
        }
        desk.random = 99 << 32;
        desk.register(ALICE, ("d", 1), &contact("h", "")).unwrap();
        for gruu in &temporary {
            assert!(read(&desk, gruu).unwrap().2, "another Call-ID ends them");
        }
        let last = listed(&desk, "temp-gruu");
        desk.register(ALICE, ("d", 2), &contact("h", ";expires=0")).unwrap();
        assert_eq!(read(&desk, &last), Some(("alice@example.com".into(), 0, true)));
        desk.random = 100 << 32;
        desk.register(ALICE, ("d", 3), &contact("h", "")).unwrap();
        assert!(read(&desk, &last).unwrap().2, "its registration had ended");
    }

    #[test]
    fn temporary_gruus_of_one_answer_have_nothing_in_common() {
        let mut desk = Desk::new();
        desk.register(ALICE, ("c", 1), &contact("h", "")).unwrap();
        desk.register(ALICE, ("d", 1), &contact("i", "").replace("f81d4fae", "00000000")).unwrap();
        let start = ";temp-gruu=\"sip:tgruu.";
        let sealed = |line: &String| line.split_once(start).unwrap().1.as_bytes()[..16].to_vec();
        let nonces: Vec<Vec<u8>> = desk.listed().iter().map(sealed).collect();
        assert_eq!(nonces.len(), 2);
        assert_ne!(nonces[0][..8], nonces[1][..8]);
    }

    #[test]
    fn a_public_gruu_means_one_instance_in_any_case_of_a_uuid() {
        let mut desk = Desk::new();
        desk.register(ALICE, ("c", 1), &contact("h", "")).unwrap();
        let other = contact("i", "").replace("f81d4fae", "00000000");
        desk.register(ALICE, ("d", 1), &other).unwrap();
        assert_eq!(desk.location.lookup(&canonical_aor(ALICE), desk.now).count(), 2);
        for (instance, count) in [
            (INSTANCE, 1),
            (&INSTANCE.to_uppercase(), 1),
            (&INSTANCE.replace("f81d4fae", "11111111"), 0),
            ("urn%3Auuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", 1),
        ] {
            let uri = format!("sip:alice@example.com;gr={instance}");
            assert_eq!(read(&desk, &uri), Some(("alice@example.com".into(), count, false)));
        }
    }

    #[test]
    fn forged_and_truncated_gruus_are_none() {
        let mut desk = Desk::new();
        desk.register(ALICE, ("c", 1), &contact("h", "")).unwrap();
        let gruu = listed(&desk, "temp-gruu");
        let end = gruu.find('@').unwrap();
        for cut in "sip:".len() + 1..end {
            assert_eq!(read(&desk, &format!("{}@example.com;gr", &gruu[..cut])), None);
        }
        let at = "sip:tgruu.".len();
        for flipped in at..end - 1 {
            let mut bytes = gruu.clone().into_bytes();
            bytes[flipped] = if bytes[flipped] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(bytes).unwrap();
            assert!(forged == gruu || read(&desk, &forged).is_none(), "{forged}");
        }
        desk.gruu_key = GruuKey::new(&[4; 32]);
        assert_eq!(read(&desk, &gruu), None);
        assert_eq!(read(&desk, "sip:alice@example.com;gr"), None);
    }

    #[test]
    fn a_contact_is_not_the_address_of_record_nor_its_gruu() {
        let mut desk = Desk::new();
        desk.register(ALICE, ("c", 1), &contact("h", "")).unwrap();
        let temporary = listed(&desk, "temp-gruu");
        for (uri, status) in [
            ("sip:alice@example.com", 403),
            ("sips:%61lice@EXAMPLE.com", 403),
            (&format!("sip:alice@example.com;gr={INSTANCE}"), 403),
            (&temporary, 403),
            ("tel:+1", 403),
        ] {
            let lines = contact("x", "").replace("sip:a@x", uri);
            assert_eq!(desk.refused(ALICE, ("c", 2), &lines), status, "{uri}");
        }
        desk.register(ALICE, ("c", 2), "Contact: <sip:bob@example.com>\n").unwrap();
        let with_headers = "Contact: <sip:alice@example.com?Route=%3Csip:h%3E>\n";
        desk.register(ALICE, ("c", 3), with_headers).unwrap();
    }

    #[test]
    fn an_instance_that_is_no_urn_is_escaped() {
        let mut out = Vec::new();
        escape_into(b"a\"b;c\\ %", &mut out);
        assert_eq!(out, b"a%22b%3Bc%5C%20%25");
    }
}
