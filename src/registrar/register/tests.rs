//! REGISTERs of RFC 3665 and of the rules, one after the other.

use super::super::harness::{Desk, stream};
use super::*;
use crate::base::id::Transport;

const ALICE: &str = "sip:alice@example.com";

/// RFC 3665 §2.1 and §2.2: a new registration, then two more Contacts.
#[test]
fn rfc_3665_new_registration_and_update() {
    let mut desk = Desk::new();
    let first = "REGISTER sips:biloxi.example.com SIP/2.0\n\
        Via: SIP/2.0/TLS client.biloxi.example.com:5061;branch=z9hG4bKnashd92\n\
        Max-Forwards: 70\nFrom: Bob <sips:bob@biloxi.example.com>;tag=ja743ks76zlflH\n\
        To: Bob <sips:bob@biloxi.example.com>\nCall-ID: 1j9FpLxk3uxtm8tn@biloxi.example.com\n\
        CSeq: 2 REGISTER\nContact: <sips:bob@client.biloxi.example.com>\n\
        Content-Length: 0\n\n";
    desk.register_raw(first).unwrap();
    assert_eq!(desk.out.aor(), b"bob@biloxi.example.com");
    assert_eq!(desk.listed(), ["<sips:bob@client.biloxi.example.com>;expires=3600"]);

    let update = first.replace("CSeq: 2", "CSeq: 3").replace(
        "Contact: <sips:bob@client.biloxi.example.com>",
        "Contact: mailto:bob@biloxi.example.com",
    );
    desk.register_raw(&update).unwrap();
    assert_eq!(
        desk.listed(),
        [
            "<mailto:bob@biloxi.example.com>;expires=3600",
            "<sips:bob@client.biloxi.example.com>;expires=3600"
        ]
    );
}

/// RFC 3665 §2.3: no Contact asks for the list.
#[test]
fn rfc_3665_query_changes_nothing() {
    let mut desk = Desk::new();
    desk.register(ALICE, ("c", 1), "").unwrap();
    assert_eq!(desk.listed(), [""; 0]);
    desk.register(ALICE, ("c", 2), "Contact: <sip:a@h1.invalid>;q=0.7;expires=100\n").unwrap();
    desk.pass(40);
    desk.register(ALICE, ("other", 1), "Expires: 0\n").unwrap();
    assert_eq!(desk.listed(), ["<sip:a@h1.invalid>;q=0.7;expires=60"]);
    assert_eq!(desk.out.bound, None);
}

/// RFC 3665 §2.4 and RFC 3261 §10.3 step 6.
#[test]
fn contact_star_removes_everything_or_fails() {
    let mut desk = Desk::new();
    desk.register(ALICE, ("c", 5), "Contact: <sip:a@h1>, <sip:a@h2>\n").unwrap();
    for (call, lines, status) in [
        (("c", 6), "Contact: *\n", 400),
        (("c", 6), "Contact: *\nExpires: 10\n", 400),
        (("c", 6), "Contact: *, <sip:a@h1>\nExpires: 0\n", 400),
        (("c", 6), "Contact: <sip:a@h1>\nContact: *\nExpires: 0\n", 400),
        (("c", 6), "Contact: *, *\nExpires: 0\n", 400),
        (("c", 5), "Contact: *\nExpires: 0\n", 500),
    ] {
        assert_eq!(desk.refused(ALICE, call, lines), status, "{lines}");
    }
    desk.register(ALICE, ("c", 6), "Contact: *\nExpires: 0\n").unwrap();
    assert_eq!(desk.listed(), [""; 0]);
    assert_eq!(desk.location.len(), 0);
    assert!(desk.out.removed().eq([&b"a@h2"[..], b"a@h1"]));
    assert_eq!(desk.out.released.as_slice(), [stream(1, Transport::Wss).stream().unwrap()]);
    desk.register(ALICE, ("new", 1), "Contact: *\nExpires: 0\n").unwrap();
}

#[test]
fn contact_star_of_another_call_removes_too() {
    let mut desk = Desk::new();
    desk.register(ALICE, ("c", 5), "Contact: <sip:a@h1>\n").unwrap();
    desk.register(ALICE, ("d", 1), "Contact: *\nExpires: 0\n").unwrap();
    assert!(desk.location.is_empty());
}

#[test]
fn require_is_checked_first() {
    let mut desk = Desk::new();
    let lines = "Require: path, foo\nRequire: outbound, BAR\nContact: *\n";
    assert_eq!(desk.refused("sip:x@elsewhere.example", ("c", 1), lines), 420);
    assert!(desk.headers().starts_with("Unsupported: foo\r\nUnsupported: BAR\r\nWarning: "));
    let lines = "Require: Path, outbound\nContact: <sip:a@h>\n";
    desk.register(ALICE, ("c", 1), lines).unwrap();
}

#[test]
fn a_path_that_could_be_no_route_is_refused() {
    let mut desk = Desk::new();
    for path in ["<sip:a@>", "<sip:a%zz@h>", "h", "\"a <sip:h;lr>"] {
        let lines = format!("Supported: path\nContact: <sip:a@h>\nPath: <sip:p;lr>, {path}\n");
        assert_eq!(desk.refused(ALICE, ("c", 1), &lines), 400, "{path}");
    }
}

#[test]
fn addresses_of_record_are_canonical_and_ours() {
    let mut desk = Desk::new();
    for to in [ALICE, "sip:%61lice@EXAMPLE.com:5060;transport=tcp", "sips:alice@example.com"] {
        desk.register(to, ("c", desk.location.len() as u32 + 1), "").unwrap();
        assert_eq!(desk.out.aor(), b"alice@example.com", "{to}");
    }
    for (to, status) in [
        ("sip:a@elsewhere.example", 404),
        ("sip:example.com", 404),
        ("tel:+12015550123", 400),
        ("im:a@example.com", 400),
    ] {
        assert_eq!(desk.refused(to, ("c", 1), "Contact: <sip:a@h>\n"), status, "{to}");
    }
    desk.register("sip:%61lice@example.com", ("c", 1), "Contact: <sip:a@h>\n").unwrap();
    assert_eq!(desk.contacts(ALICE), ["sip:a@h"]);
    assert_eq!(desk.contacts("sip:Alice@example.com"), [""; 0]);
}

#[test]
fn parameters_come_back_as_they_were_registered() {
    let mut desk = Desk::new();
    let lines = "Supported: path, outbound\nContact: \"A\" <sip:x@y.invalid;transport=ws>\
        ;+sip.ice;reg-id=1;+sip.instance=\"<urn:uuid:1>\";expires=600;methods=\"INVITE,BYE\"\n";
    desk.register(ALICE, ("c", 1), lines).unwrap();
    assert_eq!(
        desk.headers(),
        "Contact: <sip:x@y.invalid;transport=ws>;+sip.ice;reg-id=1;+sip.instance=\"<urn:uuid:1>\"\
         ;methods=\"INVITE,BYE\";expires=600\r\nSupported: path, outbound\r\n\
         Require: outbound\r\nFlow-Timer: 120\r\n"
    );
    desk.register(ALICE, ("c", 2), &lines.replace(", outbound", "")).unwrap();
    assert!(!desk.headers().contains("Require"));
    assert_eq!(desk.listed().len(), 1);
}

#[test]
fn path_is_kept_and_shown_again() {
    let mut desk = Desk::new();
    let lines = "Path: <sip:P3.example.com;lr>,<sip:P1.example.com;lr>\nPath: <sip:p0;lr>\n\
        Contact: <sip:a@192.0.2.4>\n";
    assert_eq!(desk.refused(ALICE, ("c", 1), lines), 420);
    assert!(desk.headers().contains("Unsupported: path\r\n"));
    desk.register(ALICE, ("c", 1), &format!("Supported: path\n{lines}")).unwrap();
    let headers = desk.headers();
    let paths: Vec<_> = headers.lines().filter_map(|l| l.strip_prefix("Path: ")).collect();
    let expected = ["<sip:P3.example.com;lr>", "<sip:P1.example.com;lr>", "<sip:p0;lr>"];
    assert_eq!(paths, expected);
    let binding = desk.location.lookup(b"alice@example.com", desk.now).next().unwrap();
    assert!(binding.path().eq(expected.map(str::as_bytes)));
}

#[test]
fn a_first_hop_without_outbound_is_refused_only_when_it_must() {
    const VIAS: &str = "Via: SIP/2.0/UDP p;branch=z9hG4bK2\n";
    const REG_ID: &str = "Contact: <sip:a@h>;reg-id=1;+sip.instance=\"<urn:uuid:1>\"\n";
    const NO_INSTANCE: &str = "Contact: <sip:a@h>;reg-id=1\n";
    const OUTBOUND: &str = "Supported: path, outbound\n";
    for (lines, status, reg_id) in [
        (format!("{OUTBOUND}{REG_ID}"), 200, 1),
        (format!("{VIAS}{OUTBOUND}{REG_ID}"), 439, 0),
        (format!("{VIAS}{OUTBOUND}{NO_INSTANCE}"), 200, 0),
        (format!("{VIAS}{REG_ID}"), 200, 0),
        (format!("{VIAS}{OUTBOUND}Path: <sip:p;lr>\n{REG_ID}"), 439, 0),
        (format!("{VIAS}{OUTBOUND}Path: <sip:p;lr;ob>\n{REG_ID}"), 200, 1),
        (format!("{VIAS}{OUTBOUND}Path: <sip:q;lr>, <sip:p;lr;ob>\n{REG_ID}"), 200, 1),
    ] {
        let mut desk = Desk::new();
        let got = desk.register(ALICE, ("c", 1), &lines).map_or_else(|r| r.status, |()| 200);
        assert_eq!(got, status, "{lines}");
        assert_eq!(desk.headers().contains("Require: outbound"), status == 200 && reg_id > 0);
        let binding = desk.location.lookup(b"alice@example.com", desk.now).next();
        assert_eq!(binding.map(Binding::reg_id), (status == 200).then_some(reg_id), "{lines}");
    }
}

#[test]
fn every_truncation_of_a_register_is_answered_or_unparsable() {
    let text = "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/WSS x.invalid;branch=z9hG4bK1\r\n\
        From: <sip:a@example.com>;tag=1\r\nTo: <sip:a@example.com>\r\nCall-ID: c\r\n\
        CSeq: 1 REGISTER\r\nSupported: path, outbound\r\nPath: <sip:p;lr;ob>\r\nExpires: 60\r\n\
        Contact: \"x\" <sip:a@b.invalid;ob>;q=0.5;reg-id=1;+sip.instance=\"<urn:uuid:1>\"\r\n";
    for end in 0..=text.len() {
        let text = format!("{}\r\n\r\n", &text[..end]);
        let mut parsed = crate::sip::Parsed::default();
        if crate::sip::parse(text.as_bytes(), &mut parsed).is_ok() {
            let _ = Desk::new().register_raw(&text.replace("\r\n", "\n"));
        }
    }
}
