//! Messages that sipring makes itself: responses (RFC 3261 §8.2.6), the ACK to a final response
//! other than 2xx (§17.1.1.3), CANCEL (§9.1). Written from the parts of another message, which are
//! copied as they came.

use std::net::{IpAddr, SocketAddr};

use crate::base::decimal::write_number;
use crate::base::host::write_ip;

use super::header::HeaderName;
use super::message::Message;
use super::status::reason_phrase;
use super::via::Via;

/// What the topmost Via of a request gets about its source.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ViaParams {
    /// Value of `received`; `None` leaves the Via as it is.
    pub received: Option<IpAddr>,
    /// Value of `rport`, written only where the Via has that parameter (RFC 3581 §4).
    pub rport: Option<u16>,
}

impl ViaParams {
    /// What the Via of a request from `source` has to say: `received` when the sent-by is not that
    /// address or rport was asked for (RFC 3261 §18.2.1, RFC 3581 §4), `rport` when it was asked
    /// for.
    pub fn of_source(via: &Via<'_>, source: SocketAddr) -> ViaParams {
        let address = source.ip().to_canonical();
        let asked = via.rport.is_some();
        let differs = via.sent_by_ip().map(|ip| ip.to_canonical()) != Some(address);
        ViaParams {
            received: (asked || differs).then_some(address),
            rport: asked.then_some(source.port()),
        }
    }

    pub(super) fn write_received(address: IpAddr, out: &mut Vec<u8>) {
        out.extend_from_slice(b"received=");
        write_ip(address, false, out);
    }

    pub(super) fn write_rport(port: u16, out: &mut Vec<u8>) {
        out.extend_from_slice(b"rport=");
        write_number(u64::from(port), out);
    }
}

/// What a response has besides what it copies from its request.
#[derive(Clone, Copy, Default, Debug)]
pub struct ResponseParts<'a> {
    /// The status code.
    pub status: u16,
    /// The reason phrase; `None` takes the default one.
    pub reason: Option<&'a str>,
    /// Added to the To when it has no tag.
    pub to_tag: Option<&'a [u8]>,
    /// Whole header lines with their CRLF.
    pub extra: &'a [u8],
    /// The body; its Content-Type is in `extra`.
    pub body: &'a [u8],
    /// What the topmost Via gets.
    pub via_params: ViaParams,
}

/// Bytes that a response needs at most, whose header lines and body of our own have `extra`.
pub fn response_room(request: Message<'_>, extra: usize) -> usize {
    request.headers_end() as usize + extra + 64
}

/// Appends the response to `request`: all Via (the topmost with its parameters), From, To, Call-ID
/// and CSeq as they came, then `extra`, Content-Length and the body. What a faulty request lacks is
/// left out.
pub fn response(request: Message<'_>, parts: &ResponseParts<'_>, out: &mut Vec<u8>) {
    assert!((100..700).contains(&parts.status), "a status code");
    let reason = parts.reason.unwrap_or_else(|| reason_phrase(parts.status));
    out.reserve(response_room(request, parts.extra.len() + parts.body.len()));
    out.extend_from_slice(b"SIP/2.0 ");
    write_number(u64::from(parts.status), out);
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    copy_via(request, &parts.via_params, out);
    copy_first(request, HeaderName::From, out);
    copy_to(request, parts.to_tag, out);
    copy_first(request, HeaderName::CallId, out);
    copy_first(request, HeaderName::CSeq, out);
    out.extend_from_slice(parts.extra);
    finish(parts.body, out);
}

/// Appends the ACK for `response`, a final response other than 2xx to the INVITE `sent` (RFC 3261
/// §17.1.1.3).
pub fn ack(sent: Message<'_>, response: Message<'_>, out: &mut Vec<u8>) {
    request_line(b"ACK", sent, out);
    copy_first(response, HeaderName::To, out);
    same_transaction(b"ACK", sent, out);
    finish(b"", out);
}

/// Appends the CANCEL for the request `sent` (RFC 3261 §9.1); `reason` is the value of a Reason
/// header field (RFC 3326).
pub fn cancel(sent: Message<'_>, reason: Option<&[u8]>, out: &mut Vec<u8>) {
    request_line(b"CANCEL", sent, out);
    copy_first(sent, HeaderName::To, out);
    same_transaction(b"CANCEL", sent, out);
    if let Some(reason) = reason {
        out.extend_from_slice(b"Reason: ");
        out.extend_from_slice(reason);
        out.extend_from_slice(b"\r\n");
    }
    finish(b"", out);
}

/// Appends where the request went that was sent as `sent` (RFC 3261 §16.6): its Request-URI, a line
/// feed, and the values of its Route header fields, joined by `, ` and unfolded. Nothing for what is no
/// request.
pub fn way_of(sent: &[u8], out: &mut Vec<u8>) {
    let Some((line, mut rest)) = split_line(sent) else { return };
    let Some(uri) = line.split(|byte| *byte == b' ').nth(1) else { return };
    out.extend_from_slice(uri);
    out.push(b'\n');
    let routes = out.len();
    let mut is_route = false;
    while let Some((line, after)) = split_line(rest).filter(|(line, _)| !line.is_empty()) {
        rest = after;
        let is_folded = line.starts_with(b" ") || line.starts_with(b"\t");
        let value = if is_folded { Some(line).filter(|_| is_route) } else { route_value(line) };
        is_route = value.is_some();
        let Some(value) = value else { continue };
        if out.len() > routes {
            out.extend_from_slice(if is_folded { b" " } else { b", " });
        }
        out.extend_from_slice(value.trim_ascii());
    }
}

/// The first line without its end, and what follows.
fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', text)?;
    let line = &text[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &text[end + 1..]))
}

fn route_value(line: &[u8]) -> Option<&[u8]> {
    let (name, rest) = line.split_at_checked(5)?;
    let value = rest.trim_ascii_start().strip_prefix(b":")?;
    name.eq_ignore_ascii_case(b"route").then_some(value)
}

/// Request line and the one Via, the topmost of `sent`.
fn request_line(method: &[u8], sent: Message<'_>, out: &mut Vec<u8>) {
    assert!(sent.is_request(), "only a request is acknowledged or cancelled");
    out.reserve(sent.headers_end() as usize + 64);
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(sent.uri());
    out.extend_from_slice(b" SIP/2.0\r\n");
    if let Some(via) = sent.values(HeaderName::Via).next() {
        out.extend_from_slice(b"Via: ");
        out.extend_from_slice(via.text);
        out.extend_from_slice(b"\r\n");
    }
}

/// What is equal to that of `sent`: From, Call-ID, the number of the CSeq, Route.
fn same_transaction(method: &[u8], sent: Message<'_>, out: &mut Vec<u8>) {
    copy_first(sent, HeaderName::From, out);
    copy_first(sent, HeaderName::CallId, out);
    if let Ok(cseq) = sent.cseq() {
        out.extend_from_slice(b"CSeq: ");
        write_number(u64::from(cseq.number), out);
        out.push(b' ');
        out.extend_from_slice(method);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"Max-Forwards: 70\r\n");
    for header in sent.headers().filter(|header| header.name == HeaderName::Route) {
        out.extend_from_slice(header.line.of(sent.bytes()));
    }
}

/// All Via lines as they came, but for what the topmost value gets.
fn copy_via(request: Message<'_>, params: &ViaParams, out: &mut Vec<u8>) {
    let mut lines = request.headers().filter(|header| header.name == HeaderName::Via);
    let Some(top) = lines.next() else { return };
    let is_told = *params != ViaParams::default();
    match is_told.then(|| request.top_via()) {
        Some(Ok(via)) => {
            let copy = |out: &mut Vec<u8>, from: u32, to: u32| {
                out.extend_from_slice(&request.bytes()[from as usize..to as usize]);
            };
            let mut copied = top.line.start;
            for (span, text) in source_splices(&via, params).into_iter().flatten() {
                copy(out, copied, span.0);
                text.write(out);
                copied = span.1;
            }
            copy(out, copied, top.line.end);
        }
        _ => out.extend_from_slice(top.line.of(request.bytes())),
    }
    for header in lines {
        out.extend_from_slice(header.line.of(request.bytes()));
    }
}

/// What takes the place of some bytes of a Via.
#[derive(Clone, Copy)]
enum SourceText {
    Rport(u16),
    Received(IpAddr),
    /// With a semicolon before it.
    Appended(IpAddr),
}

impl SourceText {
    fn write(self, out: &mut Vec<u8>) {
        match self {
            SourceText::Rport(port) => ViaParams::write_rport(port, out),
            SourceText::Received(address) => ViaParams::write_received(address, out),
            SourceText::Appended(address) => {
                out.push(b';');
                ViaParams::write_received(address, out);
            }
        }
    }
}

/// The at most two splices of a Via, in the order of their places.
fn source_splices(via: &Via<'_>, params: &ViaParams) -> [Option<((u32, u32), SourceText)>; 2] {
    let rport = match (params.rport, via.rport_span) {
        (Some(port), Some(span)) => Some(((span.start, span.end), SourceText::Rport(port))),
        _ => None,
    };
    let received = params.received.map(|address| match via.received_span {
        Some(span) => ((span.start, span.end), SourceText::Received(address)),
        None => ((via.params_end, via.params_end), SourceText::Appended(address)),
    });
    match (&rport, &received) {
        (Some((first, _)), Some((second, _))) if first.0 > second.0 => [received, rport],
        _ => [rport, received],
    }
}

fn copy_to(request: Message<'_>, tag: Option<&[u8]>, out: &mut Vec<u8>) {
    let Some(header) = request.header(HeaderName::To) else { return };
    let bytes = request.bytes();
    // To a To that cannot be read nothing is added.
    let tag = tag.filter(|_| request.to().is_ok_and(|to| to.param("tag").is_none()));
    let Some(tag) = tag else { return out.extend_from_slice(header.line.of(bytes)) };
    let end = header.value_span.end as usize;
    out.extend_from_slice(&bytes[header.line.start as usize..end]);
    out.extend_from_slice(b";tag=");
    out.extend_from_slice(tag);
    out.extend_from_slice(b"\r\n");
}

fn copy_first(message: Message<'_>, name: HeaderName, out: &mut Vec<u8>) {
    if let Some(header) = message.header(name) {
        out.extend_from_slice(header.line.of(message.bytes()));
    }
}

fn finish(body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"Content-Length: ");
    write_number(body.len() as u64, out);
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::super::{Parsed, parse};
    use super::*;

    const INVITE: &str = "INVITE sip:b@h SIP/2.0\r\nv: SIP/2.0/UDP a ;rport;branch=z9hG4bK1,\r\n \
        SIP/2.0/TCP b;branch=z9hG4bK2\r\nMax-Forwards: 9\r\nRoute: <sip:r;lr>\r\n\
        f: <sip:a@x>;tag=1\r\nVia: SIP/2.0/TCP c\r\nRoute: <sip:s;lr>\r\nTo: sip:b@h \r\n\
        Call-ID: i\r\nCSeq: 0007 \r\n INVITE\r\nContent-Length: 4\r\n\r\nbody";

    fn built(message: &str, build: impl FnOnce(Message<'_>, &mut Vec<u8>)) -> String {
        let mut parsed = Parsed::default();
        parse(message.as_bytes(), &mut parsed).unwrap();
        let mut out = Vec::new();
        build(parsed.view(message.as_bytes()), &mut out);
        let mut again = Parsed::default();
        assert_eq!(parse(&out, &mut again), Ok(()));
        assert_eq!(again.view(&out).check(), Ok(()));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn responses_copy_what_they_must() {
        let parts = ResponseParts {
            status: 486,
            to_tag: Some(b"t"),
            extra: b"X: y\r\n",
            body: b"no",
            via_params: ViaParams { received: Some("::1".parse().unwrap()), rport: Some(5070) },
            ..ResponseParts::default()
        };
        let text = built(INVITE, |request, out| response(request, &parts, out));
        let expected = "SIP/2.0 486 Busy Here\r\n\
            v: SIP/2.0/UDP a ;rport=5070;branch=z9hG4bK1;received=::1,\r\n \
            SIP/2.0/TCP b;branch=z9hG4bK2\r\nVia: SIP/2.0/TCP c\r\nf: <sip:a@x>;tag=1\r\n\
            To: sip:b@h;tag=t\r\nCall-ID: i\r\nCSeq: 0007 \r\n INVITE\r\nX: y\r\n\
            Content-Length: 2\r\n\r\nno";
        assert_eq!(text, expected);
    }

    #[test]
    fn responses_keep_a_tag_and_take_a_reason() {
        let request = INVITE.replace("sip:b@h \r\n", "<sip:b@h>;tag=old\r\n");
        let parts = ResponseParts {
            status: 200,
            reason: Some("Fine"),
            to_tag: Some(b"new"),
            ..ResponseParts::default()
        };
        let text = built(&request, |request, out| response(request, &parts, out));
        assert!(
            text.starts_with("SIP/2.0 200 Fine\r\nv: SIP/2.0/UDP a ;rport;branch=z9hG4bK1,\r\n")
        );
        assert!(text.contains("To: <sip:b@h>;tag=old\r\n") && !text.contains("new"));
    }

    #[test]
    fn acks_belong_to_their_invite() {
        let answer = "SIP/2.0 486 No\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\
            From: <sip:a@x>;tag=1\r\nTo: <sip:b@h>;tag=2\r\nCall-ID: i\r\nCSeq: 7 INVITE\r\n\
            Content-Length: 0\r\n\r\n";
        let mut parsed = Parsed::default();
        parse(answer.as_bytes(), &mut parsed).unwrap();
        let answer = parsed.view(answer.as_bytes());
        let text = built(INVITE, |sent, out| ack(sent, answer, out));
        let expected = "ACK sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP a ;rport;branch=z9hG4bK1\r\n\
            To: <sip:b@h>;tag=2\r\nf: <sip:a@x>;tag=1\r\nCall-ID: i\r\nCSeq: 7 ACK\r\n\
            Max-Forwards: 70\r\nRoute: <sip:r;lr>\r\nRoute: <sip:s;lr>\r\n\
            Content-Length: 0\r\n\r\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn cancels_belong_to_their_request() {
        let text = built(INVITE, |sent, out| cancel(sent, Some(b"SIP;cause=200"), out));
        let expected = "CANCEL sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP a ;rport;branch=z9hG4bK1\r\n\
            To: sip:b@h \r\nf: <sip:a@x>;tag=1\r\nCall-ID: i\r\nCSeq: 7 CANCEL\r\n\
            Max-Forwards: 70\r\nRoute: <sip:r;lr>\r\nRoute: <sip:s;lr>\r\nReason: SIP;cause=200\r\n\
            Content-Length: 0\r\n\r\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_way_is_the_request_uri_and_every_route() {
        let way = |sent: &str| {
            let mut out = Vec::new();
            way_of(sent.as_bytes(), &mut out);
            String::from_utf8(out).unwrap()
        };
        let folded = INVITE.replace("To: sip", "rOUTE \t: <sip:t>,\r\n <sip:u>\r\nTo: sip");
        let sent = folded.replace("Call-ID", "Route-X: x\r\n y\r\nRout: z\r\nCall-ID");
        let sent = sent.replace("body", "Route: <sip:body>\r\n");
        assert_eq!(way(&sent), "sip:b@h\n<sip:r;lr>, <sip:s;lr>, <sip:t>, <sip:u>");
        let mut parsed = Parsed::default();
        assert_eq!(parse(sent.as_bytes(), &mut parsed), Ok(()));
        let whole = parsed.view(sent.as_bytes());
        let values: Vec<&[u8]> = whole.values(HeaderName::Route).map(|value| value.text).collect();
        let parts = [whole.uri(), &values.join(b", ".as_slice())];
        assert_eq!(way(&sent).into_bytes(), parts.join(b"\n".as_slice()));
        assert_eq!(way("BYE sip:b@h SIP/2.0\r\nTo: <sip:b@h>\r\n\r\n"), "sip:b@h\n");
        assert_eq!((way(""), way("\r\n")), (String::new(), String::new()));
    }

    #[test]
    fn sources() {
        let of = |text: &'static str, source: &str| {
            ViaParams::of_source(&Via::parse(text.as_bytes()).unwrap(), source.parse().unwrap())
        };
        let address = Some("192.0.2.1".parse().unwrap());
        let none = ViaParams::default();
        assert_eq!(of("SIP/2.0/UDP 192.0.2.1", "192.0.2.1:9"), none);
        assert_eq!(of("SIP/2.0/UDP 192.0.2.1", "[::ffff:192.0.2.1]:9"), none);
        assert_eq!(of("SIP/2.0/UDP [2001:db8::1]", "[2001:db8:0::1]:9"), none);
        let noted = ViaParams { received: address, rport: None };
        assert_eq!(of("SIP/2.0/UDP host", "192.0.2.1:9"), noted);
        let asked = ViaParams { received: address, rport: Some(9) };
        assert_eq!(of("SIP/2.0/UDP 192.0.2.1;rport", "192.0.2.1:9"), asked);
    }
}
