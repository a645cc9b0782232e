//! Entries for fuzzing: whatever the bytes, nothing panics, what was understood means the same
//! however it is written or cut, and the framing of streams agrees with the parsing of messages.

use crate::base::limits::Limits;

use super::frame::{Frame, FrameError, Scan, next};
use super::grammar::{LWS, USER, VALUE, is};
use super::{
    Edits, HeaderName, Message, NameAddr, Params, Parsed, ResponseParts, Scheme, Uri, Via,
    ViaParams, ack, cancel, datagram_body, parse, response,
};

/// Most of a message is read after so many cuts; more costs time and finds no more.
const CUTS_MAX: usize = 200;

/// One message: every part is read; what was understood is understood again after edits, and so
/// are the messages made from it. No cut of it panics, and none before its body is a message.
pub fn message(bytes: &[u8]) {
    let mut parsed = Parsed::default();
    let accepted = parse(bytes, &mut parsed).is_ok();
    let message = parsed.view(bytes);
    read_all(message);
    let _ = datagram_body(&mut parsed.clone(), bytes);
    if !accepted || message.check().is_err() {
        return;
    }
    assert!(message.cseq().is_ok() && message.top_via().is_ok());
    lines_are_all_there_is(message);
    edits_keep_the_rest(message);
    answers_are_messages(message);
    let body = message.body_span().start as usize;
    let mut cut = Parsed::default();
    for len in (0..bytes.len()).step_by(bytes.len() / CUTS_MAX + 1) {
        let outcome = parse(&bytes[..len], &mut cut);
        assert!(len >= body || outcome.is_err(), "a message although cut at {len}");
        read_all(cut.view(&bytes[..len]));
    }
}

/// Asks for everything that a message can be asked for.
pub(super) fn read_all(message: Message<'_>) {
    for header in message.headers() {
        for value in message.values(header.name) {
            let _ = Via::parse(value.text);
            if let Ok(address) = NameAddr::parse(value.text) {
                let _ = (address.tag(), address.q(), address.expires());
                if let Ok(uri) = Uri::parse(address.uri) {
                    uri.aor_into(&mut Vec::new());
                    assert!(uri.equivalent(&uri));
                }
            }
        }
    }
    let _ = (message.max_forwards(), message.expires(), message.content_length());
    let _ = (message.from(), message.to(), message.top_via(), message.cseq(), message.check());
}

/// Start line, header lines, empty line and body, one after the other, are the message.
fn lines_are_all_there_is(message: Message<'_>) {
    let mut at = message.first_header_start();
    for header in message.headers() {
        assert_eq!(header.line.start, at);
        at = header.line.end;
    }
    assert_eq!(at, message.headers_end());
    assert_eq!(at + 2, message.body_span().start);
    assert_eq!(message.body_span().end as usize, message.bytes().len());
}

/// A Via more, a Route fewer: the rest is as it was.
fn edits_keep_the_rest(message: Message<'_>) {
    const VIA: &[u8] = b"Via: SIP/2.0/WSS fuzz.invalid;branch=z9hG4bKfuzz\r\n";
    let mut edits = Edits::default();
    edits.insert(message.first_header_start(), VIA);
    // Which values go is up to their text.
    let goes = |text: &[u8]| text.len() % 2 == 1;
    for value in message.values(HeaderName::Route) {
        if goes(value.text) {
            edits.remove_value(&value);
        }
    }
    let mut out = Vec::new();
    edits.write_to(message.bytes(), &mut out);
    let mut parsed = Parsed::default();
    parse(&out, &mut parsed).expect("an edited message is a message");
    let edited = parsed.view(&out);
    let vias = |message: Message<'_>| texts(message, HeaderName::Via);
    assert_eq!(edited.top_via().expect("ours").sent_by_host, b"fuzz.invalid");
    // Of a list with a comma too many, or longer than is walked, only the start is known.
    let was = vias(message);
    assert!(vias(edited).iter().skip(1).zip(&was).all(|(one, other)| one == other));
    let routes = texts(message, HeaderName::Route);
    let kept: Vec<_> = routes.iter().filter(|text| !goes(text)).cloned().collect();
    assert!(texts(edited, HeaderName::Route).starts_with(&kept));
    let others = |message: Message<'_>| -> Vec<Vec<u8>> {
        let changed = [HeaderName::Via, HeaderName::Route];
        let rest = message.headers().filter(|header| !changed.contains(&header.name));
        rest.map(|header| header.line.of(message.bytes()).to_vec()).collect()
    };
    assert_eq!(others(edited), others(message));
    assert_eq!((edited.uri(), edited.body()), (message.uri(), message.body()));
    assert_eq!((edited.status(), edited.method()), (message.status(), message.method()));
}

fn texts(message: Message<'_>, name: HeaderName) -> Vec<Vec<u8>> {
    message.values(name).map(|value| value.text.to_vec()).collect()
}

/// A response to it, its ACK and its CANCEL can be read, and say whose they are.
fn answers_are_messages(message: Message<'_>) {
    let mut out = Vec::new();
    let mut parsed = Parsed::default();
    let mut read = |out: &mut Vec<u8>, like: &[HeaderName]| {
        parse(out, &mut parsed).expect("what we make is a message");
        let made = parsed.view(out);
        assert_eq!(made.check(), Ok(()));
        assert_eq!(made.content_length(), Ok(Some(made.body().len() as u32)));
        for &name in like {
            let values = |message: Message<'_>| message.header(name).map(|it| it.value.to_vec());
            assert_eq!(values(made), values(message), "{name:?}");
        }
        out.clear();
    };
    if !message.is_request() {
        return;
    }
    let via = message.top_via().expect("it was checked");
    let source = "[2001:db8::7]:40000".parse().expect("an address");
    let parts = ResponseParts {
        status: 400,
        to_tag: Some(b"t"),
        extra: b"Warning: 399 h \"x\"\r\n",
        via_params: ViaParams::of_source(&via, source),
        ..ResponseParts::default()
    };
    response(message, &parts, &mut out);
    let mut made = Parsed::default();
    parse(&out, &mut made).expect("a response is a message");
    assert!(made.view(&out).to().expect("a To").tag().is_some());
    read(&mut out, &[HeaderName::From, HeaderName::CallId, HeaderName::CSeq]);
    let plain = ResponseParts { status: 200, to_tag: Some(b"t"), ..ResponseParts::default() };
    response(message, &plain, &mut out);
    let answer = std::mem::take(&mut out);
    let mut answered = Parsed::default();
    parse(&answer, &mut answered).expect("a response is a message");
    ack(message, answered.view(&answer), &mut out);
    read(&mut out, &[HeaderName::From, HeaderName::CallId]);
    cancel(message, None, &mut out);
    read(&mut out, &[HeaderName::From, HeaderName::To, HeaderName::CallId]);
}

/// A stream: however it is cut, the same frames, none above the limits; a frame that can be parsed
/// has the body that its Content-Length says. The cuts follow from the bytes.
pub fn stream(bytes: &[u8]) {
    let whole = frames(bytes, |_| usize::MAX);
    let cut = frames(bytes, |at| 1 + usize::from(bytes[at]) % 37);
    assert_eq!(whole, cut);
    let byte_by_byte = frames(bytes, |_| 1);
    assert_eq!(whole, byte_by_byte);
}

#[derive(PartialEq, Eq, Debug)]
enum Told<'a> {
    Ping,
    Crlf,
    Message(&'a [u8]),
    Fault(FrameError),
}

fn frames(bytes: &[u8], piece: impl Fn(usize) -> usize) -> Vec<Told<'_>> {
    let limits = Limits { header_bytes_max: 1500, message_bytes_max: 2500, ..Limits::default() };
    let (mut start, mut end) = (0, 0);
    let mut scan = Scan::default();
    let mut told = Vec::new();
    loop {
        let held = &bytes[start..end];
        match next(held, &limits, &mut scan) {
            Ok(Frame::NeedMore { at_least }) => {
                assert!(at_least > held.len() && at_least <= limits.message_bytes_max);
                if end == bytes.len() {
                    // It may have been told already, before it could become a ping.
                    told.extend((held == b"\r\n\r").then_some(Told::Crlf));
                    return told;
                }
                end = end.saturating_add(piece(end)).min(bytes.len());
            }
            Ok(Frame::Ping) => {
                told.push(Told::Ping);
                start += 4;
            }
            Ok(Frame::Crlf) => {
                // The halves of a ping that came apart are a ping.
                if scan.completes_ping() {
                    assert_eq!(told.pop(), Some(Told::Crlf));
                    told.push(Told::Ping);
                } else {
                    told.push(Told::Crlf);
                }
                start += 2;
            }
            Ok(Frame::Message { len }) => {
                assert!(len <= limits.message_bytes_max && len <= held.len());
                agrees_with_parsing(&held[..len]);
                told.push(Told::Message(&bytes[start..start + len]));
                start += len;
            }
            Err(fault) => {
                told.push(Told::Fault(fault));
                return told;
            }
        }
    }
}

/// Two readers of one message must not differ in where it ends.
fn agrees_with_parsing(bytes: &[u8]) {
    let mut parsed = Parsed::default();
    if parse(bytes, &mut parsed).is_ok() {
        let message = parsed.view(bytes);
        assert_eq!(message.content_length(), Ok(Some(message.body().len() as u32)));
    }
}

/// Two URIs, one a line: each is written again from its parts and means the same; equality holds in
/// both directions, and equal ones have one address of record.
pub fn uri(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |&byte| byte == b'\n');
    let one = lines.next().and_then(|text| Uri::parse(text).ok());
    let other = lines.next().and_then(|text| Uri::parse(text).ok());
    let all: Vec<Uri<'_>> = one.into_iter().chain(other).collect();
    for uri in &all {
        rewritten(uri);
        canonical(uri);
        for other in &all {
            let same = uri.equivalent(other);
            assert_eq!(same, other.equivalent(uri));
            assert!(same || uri.raw != other.raw);
            assert!(!same || aor(uri) == aor(other));
        }
    }
}

fn aor(uri: &Uri<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    uri.aor_into(&mut out);
    out
}

/// Writes a SIP URI from its parts and reads it again.
fn rewritten(uri: &Uri<'_>) {
    if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
        return;
    }
    let mut out = if uri.scheme == Scheme::Sip { b"sip:".to_vec() } else { b"sips:".to_vec() };
    out.extend_from_slice(uri.user.unwrap_or_default());
    if let Some(password) = uri.password {
        out.push(b':');
        out.extend_from_slice(password);
    }
    if uri.user.is_some() {
        out.push(b'@');
    }
    out.extend_from_slice(uri.host);
    if let Some(port) = uri.port {
        out.extend_from_slice(format!(":{port}").as_bytes());
    }
    out.extend_from_slice(uri.params_raw);
    out.extend_from_slice(uri.headers_raw);
    let again = Uri::parse(&out).expect("a URI of the parts of a URI");
    assert_eq!(Uri { raw: uri.raw, ..again }, *uri);
    assert!(again.equivalent(uri));
    assert!(uri.params().all(|(name, _)| {
        std::str::from_utf8(name).map_or(true, |name| uri.param(name).is_some())
    }));
}

/// The canonical address of record, written as a URI, is canonical.
fn canonical(uri: &Uri<'_>) {
    if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
        return;
    }
    let canonical = aor(uri);
    let user_len = canonical.len() - aor(&Uri { user: None, ..*uri }).len();
    let mut out = b"sip:".to_vec();
    for &byte in &canonical[..user_len.saturating_sub(1)] {
        if is(USER, byte) && byte != b'%' {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out.extend_from_slice(&canonical[user_len.saturating_sub(1)..]);
    let again = Uri::parse(&out).expect("an address of record is one of a URI");
    assert_eq!(aor(&again), canonical);
}

/// One value of a list: read as an address and as a Via, written again from its parts; within a
/// list it is one value.
pub fn value(bytes: &[u8]) {
    if let Ok(address) = NameAddr::parse(bytes) {
        rewritten_address(&address);
        one_of_a_list("Contact", HeaderName::Contact, bytes, "<sip:next@fuzz.invalid>");
    }
    if let Ok(via) = Via::parse(bytes) {
        sourced(bytes, &via);
        one_of_a_list("Via", HeaderName::Via, bytes, "SIP/2.0/UDP fuzz.invalid");
    }
    for (name, _) in Params::new(bytes) {
        assert!(!name.is_empty());
    }
}

fn rewritten_address(address: &NameAddr<'_>) {
    let mut out = address.display.to_vec();
    out.push(b'<');
    out.extend_from_slice(address.uri);
    out.push(b'>');
    for (name, value) in address.params() {
        out.push(b';');
        out.extend_from_slice(name);
        let Some(value) = value else { continue };
        let quote: &[u8] = if value.iter().all(|&byte| is(VALUE, byte)) { b"" } else { b"\"" };
        out.push(b'=');
        out.extend_from_slice(&[quote, value, quote].concat());
    }
    let again = NameAddr::parse(&out).expect("an address of the parts of an address");
    assert_eq!((again.display, again.uri), (address.display, address.uri));
    assert!(again.params().eq(address.params()));
    assert_eq!((again.tag(), again.q()), (address.tag(), address.q()));
    assert_eq!(again.expires(), address.expires());
}

/// Where it came from, written into it, is what is read from it.
fn sourced(bytes: &[u8], via: &Via<'_>) {
    let source = "192.0.2.99:40404".parse().expect("an address");
    let params = ViaParams::of_source(via, source);
    let mut edits = Edits::default();
    edits.note_source(via, &params);
    let mut out = Vec::new();
    edits.write_to(bytes, &mut out);
    let again = Via::parse(&out).expect("a Via with its source is a Via");
    if params.received.is_some() {
        assert_eq!(again.received, Some(&b"192.0.2.99"[..]));
    }
    if via.rport.is_some() {
        assert_eq!(again.rport, Some(Some(&b"40404"[..])));
    }
    let rest = |via: &Via<'_>| (via.sent_by_port, via.branch.map(<[u8]>::to_vec), via.ttl);
    assert_eq!((again.sent_by_host, again.transport), (via.sent_by_host, via.transport));
    assert_eq!(rest(&again), rest(via));
}

fn one_of_a_list(name: &str, known: HeaderName, value: &[u8], last: &str) {
    let head = format!("OPTIONS sip:a SIP/2.0\r\n{name}: ");
    let bytes = [head.as_bytes(), value, b",", last.as_bytes(), b"\r\n\r\n"].concat();
    let mut parsed = Parsed::default();
    // Without what every message has this is a fault, and the index is there all the same.
    let _ = parse(&bytes, &mut parsed);
    let found = texts(parsed.view(&bytes), known);
    // White space at the ends may be a fold or a fault of lines.
    let is_plain = value.iter().all(|&byte| !b"\r\n\0".contains(&byte));
    if is_plain {
        let start = value.iter().position(|&byte| !is(LWS, byte)).unwrap_or(0);
        assert_eq!(found, [value[start..].trim_ascii_end(), last.as_bytes()]);
    }
}
