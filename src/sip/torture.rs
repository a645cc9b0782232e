//! The torture messages of RFC 4475, bit-exact (but for the empty line that its baddn lacks),
//! against parse and check; every truncation of them. `tests/fuzz.rs` bends them.

use super::*;

macro_rules! samples {
    ($($name:literal)*) => {
        &[$(($name, include_bytes!(concat!("../../tests/data/torture/", $name, ".dat")))),*]
    };
}

/// RFC 4475 §3.1.1, and what §3.2 to §3.4 call well-formed.
const VALID: &[(&str, &[u8])] = samples! {
    "wsinv" "intmeth" "esc01" "escnull" "esc02" "lwsdisp" "longreq" "dblreq" "semiuri"
    "transports" "mpart01" "unreason" "noreason" "baddate" "badbranch" "unkscm" "novelsc"
    "unksm2" "bext01" "invut" "regaut01" "bcast" "zeromf" "cparam01" "cparam02" "regescrt"
    "sdp01" "inv2543"
};

/// What RFC 4475 calls invalid.
const INVALID: &[(&str, &[u8])] = samples! {
    "badinv01" "clerr" "ncl" "scalar02" "scalarlg" "quotbal" "ltgtruri" "lwsruri" "lwsstart"
    "trws" "escruri" "regbadct" "badaspec" "baddn" "badvers" "mismatch01" "mismatch02" "bigcode"
    "insuf" "multi01" "mcl01"
};

fn fault_of(name: &str) -> ParseErrorKind {
    use ParseErrorKind::*;
    match name {
        "badinv01" => Parameter,
        "clerr" => BodyShort,
        "ncl" => ContentLength,
        "scalar02" | "scalarlg" => CSeq,
        "quotbal" => Quote,
        "ltgtruri" | "lwsruri" | "lwsstart" => RequestUri,
        "trws" => StartLine,
        "escruri" => RequestUriHeaders,
        "regbadct" => Brackets,
        "badaspec" => Uri,
        "baddn" => DisplayName,
        "badvers" => Version,
        "mismatch01" | "mismatch02" => CSeqMethod,
        "bigcode" => Status,
        "insuf" => MissingFrom,
        "multi01" => DuplicateCSeq,
        "mcl01" => DuplicateContentLength,
        other => panic!("no verdict for {other}"),
    }
}

/// As a datagram is taken in: parse, cut the body, check the values.
fn take_in(bytes: &[u8], parsed: &mut Parsed) -> Result<(), ParseError> {
    parse(bytes, parsed)?;
    datagram_body(parsed, bytes)?;
    parsed.view(bytes).check()
}

#[test]
fn valid_messages_are_accepted() {
    let mut parsed = Parsed::default();
    for (name, bytes) in VALID {
        assert_eq!(take_in(bytes, &mut parsed), Ok(()), "{name}");
        assert!(looks_like_sip(bytes), "{name}");
    }
}

#[test]
fn invalid_messages_are_refused_by_name_and_can_be_answered() {
    let mut parsed = Parsed::default();
    for (name, bytes) in INVALID {
        let fault = take_in(bytes, &mut parsed).expect_err(name);
        assert_eq!(fault.kind, fault_of(name), "{name} at {}", fault.at);
        assert!(fault.at as usize <= bytes.len() && looks_like_sip(bytes), "{name}");
        if *name == "insuf" || bytes.starts_with(b"SIP/2.0 ") {
            continue;
        }
        let parts = ResponseParts { status: 400, to_tag: Some(b"t1"), ..Default::default() };
        let mut answer = Vec::new();
        let message = parsed.view(bytes);
        assert!(message.is_request(), "{name}");
        response(message, &parts, &mut answer);
        let mut parsed = Parsed::default();
        let again = parse(&answer, &mut parsed);
        let expected = if *name == "scalar02" { Err(ParseErrorKind::CSeq) } else { Ok(()) };
        assert_eq!(again.map_err(|fault| fault.kind), expected, "{name}");
    }
}

#[test]
fn short_tortuous_invite() {
    let bytes = VALID[0].1;
    let mut parsed = Parsed::default();
    assert_eq!(take_in(bytes, &mut parsed), Ok(()));
    let message = parsed.view(bytes);
    assert_eq!(message.max_forwards(), Ok(Some(68)));
    assert_eq!(message.cseq(), Ok(CSeq { number: 9, method: Method::Invite }));
    let to = message.to().unwrap();
    assert_eq!(
        (to.uri, to.tag()),
        (&b"sip:vivekg@chair-dnrc.example.com"[..], Some(&b"1918181833n"[..]))
    );
    let from = message.from().unwrap();
    assert_eq!(
        (from.display, from.tag()),
        (&b"\"J Rosenberg \\\\\\\"\""[..], Some(&b"98asjd8"[..]))
    );
    let vias: Vec<Via> =
        message.values(HeaderName::Via).map(|value| Via::parse(value.text).unwrap()).collect();
    let seen: Vec<_> =
        vias.iter().map(|via| (via.transport, via.sent_by_host, via.branch)).collect();
    assert_eq!(seen[0], (&b"UDP"[..], &b"192.0.2.2"[..], Some(&b"390skdjuw"[..])));
    assert_eq!(seen[1], (&b"TCP"[..], &b"spindle.example.com"[..], Some(&b"z9hG4bK9ikj8"[..])));
    assert_eq!(seen[2], (&b"UDP"[..], &b"192.168.255.111"[..], Some(&b"z9hG4bK30239"[..])));
    assert_eq!(seen.len(), 3);
    let contact = message.values(HeaderName::Contact).next().unwrap();
    let contact = NameAddr::parse(contact.text).unwrap();
    assert_eq!((contact.q(), contact.param("newparam")), (Some(330), Some(Some(&b"newvalue"[..]))));
    assert_eq!(contact.param("secondparam"), Some(None));
    assert_eq!(message.body().len(), 150);
}

#[test]
fn extra_octets_of_a_datagram_are_not_seen() {
    let bytes = VALID.iter().find(|(name, _)| *name == "dblreq").unwrap().1;
    let mut parsed = Parsed::default();
    assert_eq!(take_in(bytes, &mut parsed), Ok(()));
    let message = parsed.view(bytes);
    assert!(message.body().is_empty() && message.bytes().ends_with(b"Content-Length: 0\r\n\r\n"));
}

#[test]
fn percent_is_no_escape_in_a_method_or_name() {
    let bytes = VALID.iter().find(|(name, _)| *name == "esc02").unwrap().1;
    let mut parsed = Parsed::default();
    assert_eq!(take_in(bytes, &mut parsed), Ok(()));
    let message = parsed.view(bytes);
    assert_eq!(message.method(), Method::Other(b"RE%47IST%45R"));
    assert_eq!(message.count(HeaderName::Contact), 2);
}

#[test]
fn truncations_are_refused_or_harmless() {
    let mut parsed = Parsed::default();
    for (name, bytes) in VALID.iter().chain(INVALID) {
        let body = {
            let _ = parse(bytes, &mut parsed);
            parsed.view(bytes).body_span().start as usize
        };
        for len in 0..bytes.len() {
            let outcome = parse(&bytes[..len], &mut parsed);
            fuzz::read_all(parsed.view(&bytes[..len]));
            assert!(len >= body || outcome.is_err(), "{name} cut at {len}");
        }
    }
}

#[test]
fn streams_deliver_the_same_messages() {
    let limits = crate::base::limits::Limits::default();
    for (name, bytes) in VALID.iter().filter(|(name, _)| *name != "inv2543") {
        let mut scan = Scan::default();
        let mut framed = None;
        for len in 1..=bytes.len() {
            match next(&bytes[..len], &limits, &mut scan).expect(name) {
                Frame::NeedMore { at_least } => assert!(at_least > len, "{name}"),
                Frame::Message { len: found } => {
                    assert_eq!(found, len);
                    framed = Some(found);
                    break;
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        let mut parsed = Parsed::default();
        take_in(bytes, &mut parsed).unwrap();
        assert_eq!(framed, Some(parsed.view(bytes).bytes().len()), "{name}");
    }
}
