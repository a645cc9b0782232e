//! The messages of RFC 4475 and RFC 5118 against parse and check, by the table that the engine and
//! the program are run by, too; every truncation of them; seeded noise. `tests/fuzz.rs` bends them
//! further.

use super::*;

#[path = "../../tests/torture/table.rs"]
mod table;

use table::{Outcome, SAMPLES};

/// As a datagram is taken in: parse, cut the body, check the values.
fn take_in(bytes: &[u8], parsed: &mut Parsed) -> Result<(), ParseError> {
    parse(bytes, parsed)?;
    datagram_body(parsed, bytes)?;
    parsed.view(bytes).check()
}

fn bytes_of(name: &str) -> Vec<u8> {
    SAMPLES.iter().find(|sample| sample.name == name).expect("in the table").bytes()
}

/// Those that have no fault.
fn valid() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let samples = SAMPLES.iter().filter(|sample| sample.parser.is_ok());
    samples.map(|sample| (sample.name, sample.bytes()))
}

#[test]
fn the_table_has_every_message_once() {
    let of = |rfc: &str| {
        let samples = SAMPLES.iter().filter(|sample| sample.section.starts_with(rfc));
        samples.filter(|sample| !sample.is_mended).map(|sample| sample.name).collect::<Vec<_>>()
    };
    let (old, new) = (of("RFC 4475 "), of("RFC 5118 "));
    assert_eq!((old.len(), new.len()), (49, 12));
    let mut names = [old, new].concat();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 61);
}

#[test]
fn faults_are_found_by_name_and_can_be_answered() {
    let mut parsed = Parsed::default();
    for sample in SAMPLES {
        let (name, bytes) = (sample.name, sample.bytes());
        assert!(looks_like_sip(&bytes), "{name}");
        let found = take_in(&bytes, &mut parsed);
        assert_eq!(found.map_err(|fault| fault.kind.phrase()), sample.parser, "{name}");
        let Err(fault) = found else { continue };
        assert!(fault.at as usize <= bytes.len(), "{name} at {}", fault.at);
        let message = parsed.view(&bytes);
        if matches!(sample.datagram, Outcome::Dropped(_)) {
            continue;
        }
        assert!(message.is_request(), "{name}");
        let parts = ResponseParts { status: 400, to_tag: Some(b"t1"), ..Default::default() };
        let mut answer = Vec::new();
        response(message, &parts, &mut answer);
        let mut parsed = Parsed::default();
        let again = parse(&answer, &mut parsed);
        let expected = if name == "scalar02" { Err(ParseErrorKind::CSeq) } else { Ok(()) };
        assert_eq!(again.map_err(|fault| fault.kind), expected, "{name}");
    }
}

#[test]
fn short_tortuous_invite() {
    let bytes = bytes_of("wsinv");
    let mut parsed = Parsed::default();
    assert_eq!(take_in(&bytes, &mut parsed), Ok(()));
    let message = parsed.view(&bytes);
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
    let bytes = bytes_of("dblreq");
    let mut parsed = Parsed::default();
    assert_eq!(take_in(&bytes, &mut parsed), Ok(()));
    let message = parsed.view(&bytes);
    assert!(message.body().is_empty() && message.bytes().ends_with(b"Content-Length: 0\r\n\r\n"));
}

#[test]
fn percent_is_no_escape_in_a_method_or_name() {
    let bytes = bytes_of("esc02");
    let mut parsed = Parsed::default();
    assert_eq!(take_in(&bytes, &mut parsed), Ok(()));
    let message = parsed.view(&bytes);
    assert_eq!(message.method(), Method::Other(b"RE%47IST%45R"));
    assert_eq!(message.count(HeaderName::Contact), 2);
}

#[test]
fn truncations_are_refused_or_harmless() {
    let mut parsed = Parsed::default();
    for sample in SAMPLES {
        let (name, bytes) = (sample.name, sample.bytes());
        let body = {
            let _ = parse(&bytes, &mut parsed);
            parsed.view(&bytes).body_span().start as usize
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
    for (name, bytes) in valid().filter(|(name, _)| *name != "inv2543") {
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
        take_in(&bytes, &mut parsed).unwrap();
        assert_eq!(framed, Some(parsed.view(&bytes).bytes().len()), "{name}");
    }
}

#[test]
fn noise_never_panics_nor_divides_framing_from_parsing() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let salt = b"\r\n \t:;,<>\"\\@%?=[]*0aZ\0\xff";
    let samples: Vec<Vec<u8>> = SAMPLES.iter().map(|sample| sample.bytes()).collect();
    for _ in 0..4000 {
        let mut bytes = samples[random(samples.len())].clone();
        for _ in 0..1 + random(6) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = salt[random(salt.len())],
                1 => bytes.insert(at, salt[random(salt.len())]),
                2 => {
                    let end = (at + random(20)).min(bytes.len());
                    bytes.drain(at..end);
                }
                _ => {
                    let end = (at + random(60)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    let to = random(bytes.len());
                    bytes.splice(to..to, piece);
                }
            }
            if bytes.is_empty() {
                bytes.push(b'x');
            }
        }
        fuzz::message(&bytes);
        agree(&bytes);
    }
}

/// Where a stream's message ends and what the parser reads in it are one matter: if they differed,
/// one message could hide another from one of the two.
fn agree(bytes: &[u8]) {
    let limits = crate::base::limits::Limits::default();
    let Ok(Frame::Message { len }) = next(bytes, &limits, &mut Scan::default()) else { return };
    let mut parsed = Parsed::default();
    if parse(&bytes[..len], &mut parsed).is_ok() {
        let message = parsed.view(&bytes[..len]);
        assert_eq!(message.content_length(), Ok(Some(message.body().len() as u32)));
        assert!(message.bytes().len() == len, "{:?}", String::from_utf8_lossy(bytes));
    }
}
