//! Entry for fuzzing: Contacts that are equal have one canonical form.

use crate::sip::{NameAddr, Uri};

use super::canonical_contact;
use super::contact::Wanted;

/// Two Contact values, one a line: what is understood of one is within its bounds, it is written
/// again so that it means the same, and equal ones are found under one form.
pub fn contact(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |&byte| byte == b'\n');
    let one = lines.next().and_then(|text| Wanted::parse(text).ok());
    let other = lines.next().and_then(|text| Wanted::parse(text).ok());
    for wanted in one.iter().chain(&other) {
        written_again(wanted);
    }
    let (Some(one), Some(other)) = (one, other) else { return };
    assert_eq!(one.repeats(&other), other.repeats(&one));
    if one.uri.equivalent(&other.uri) {
        assert_eq!(form(&one.uri), form(&other.uri));
    }
}

fn form(uri: &Uri<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    canonical_contact(uri, &mut out).then_some(out)
}

/// As the registrar shows it in its 200 (RFC 3261 §10.3 step 8).
fn written_again(wanted: &Wanted<'_>) {
    assert!(wanted.q <= 1000 && wanted.reg_id < 1 << 31 && wanted.repeats(wanted));
    let mut out = [b"<", wanted.address.uri, b">"].concat();
    let params = out.len();
    if let Some((start, end)) = wanted.params_into(&mut out) {
        assert!(params < start && start <= end && end <= out.len());
    }
    let again = NameAddr::parse(&out).expect("a Contact of the parts of a Contact");
    assert_eq!(again.uri, wanted.address.uri);
    let kept =
        |name: &[u8]| !["q", "expires"].iter().any(|it| name.eq_ignore_ascii_case(it.as_bytes()));
    let names = wanted.address.params().map(|(name, _)| name).filter(|name| kept(name));
    assert!(again.params().map(|(name, _)| name).eq(names));
}
