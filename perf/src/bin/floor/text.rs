//! The text of messages, as far as the floor looks at it: a number at a known place, the first Via,
//! and lines that are put in or left out so that every message is as long as the proxy would have
//! made it. Absent on purpose: parsing; what is not as the load writes it is not understood.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::{memchr, memmem};

/// What stands before the protocol's second part in each Via of ours and of the load.
static VIA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\r\nVia: SIP/2.0/"));

/// The lines that go below the request line when a request is forwarded: as long as the proxy's Via
/// and Max-Breadth.
const OWN_VIA: &[u8] =
    b"Via: SIP/2.0/FLR floor.invalid;pad=000000000000000000000000000000000000000000\r\n\
      Max-Breadth: 60\r\n";
/// As much as a request grows when its Request-URI becomes a Contact of the load's.
const OWN_TARGET: &[u8] = b"Floor: 000000000\r\n";
/// As long as the proxy's Record-Route; one for each side when the transports differ (RFC 5658).
/// Whoever obeys them comes back with as many Route lines.
const OWN_ROUTE: &[u8] =
    b"Record-Route: <sip:000000000000000000000000000000000000000000@floor.invalid:00000;lr>\r\n";
const OTHER_ROUTE: &[u8] =
    b"Record-Route: <sip:00000000000000000000000000000000000000@floor.invalid:00000;transport=ws;lr>\r\n";
/// The same when both sides have one transport: a token that names two flows.
const COMMON_ROUTE: &[u8] = b"Record-Route: <sip:00000000000000000000000000000000000000000\
      0000000000000@floor.invalid:00000;transport=ws;lr>\r\n";
/// What the first Via gets when its request came by other ways than WebSocket (RFC 3581 §4).
const STAMP: &[u8] = b"=00000;received=127.0.0.1";
/// What the proxy adds to the To of its own answers.
const TO_TAG: &[u8] = b";tag=0000000000000000";
const END: &[u8] = b"Content-Length: 0\r\n\r\n";
/// The rest of the answer to an OPTIONS.
const ABILITIES: &[u8] = b"Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, MESSAGE, NOTIFY, SUBSCRIBE, \
    INFO, UPDATE, PRACK, REFER, PUBLISH\r\nAccept: application/sdp\r\nSupported: path, outbound\r\n";
/// The rest of the answer to a REGISTER of an outbound client: two GRUUs, and what it supports.
const REGISTERED: &[u8] = b"Floor-Gruu: 00000000000000000000000000000000000000000000000000\
    0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    000000000000000000000000000000000000000000000\r\n\
    Supported: path, outbound\r\nRequire: outbound\r\nFlow-Timer: 35\r\n";

/// The number of a user: `u` and seven digits at the front.
pub fn number(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"u")?.get(..7)?;
    digits.iter().try_fold(0, |sum, digit| match digit {
        b'0'..=b'9' => Some(sum * 10 + u32::from(digit - b'0')),
        _ => None,
    })
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// REGISTER or OPTIONS, to be answered.
    Asks,
    /// Another request, to the user of that number; `is_invite`: it is answered by 100, too.
    Request {
        /// Whom it is for.
        to: u32,
        /// Whether it is an INVITE.
        is_invite: bool,
    },
    /// A response, to the user of that number.
    Response {
        /// Whom it is for.
        to: u32,
    },
    /// Something that the load does not send.
    Unknown,
}

/// Looks at the message.
pub fn kind(message: &[u8]) -> Kind {
    if message.starts_with(b"SIP/2.0 ") {
        let Some(own) = VIA.find(message) else { return Kind::Unknown };
        let rest = &message[own + 2..];
        let theirs = VIA.find(rest).and_then(|at| via_number(&rest[at..]));
        return theirs.map_or(Kind::Unknown, |to| Kind::Response { to });
    }
    if message.starts_with(b"REGISTER ") || message.starts_with(b"OPTIONS ") {
        return Kind::Asks;
    }
    let Some(space) = memchr(b' ', &message[..message.len().min(16)]) else {
        return Kind::Unknown;
    };
    let user = message.get(space + 5..).and_then(number);
    let is_invite = message.starts_with(b"INVITE ");
    user.map_or(Kind::Unknown, |to| Kind::Request { to, is_invite })
}

/// The number in the first Via of a request: who sent it.
pub fn sender(message: &[u8]) -> Option<u32> {
    VIA.find(message).and_then(|at| via_number(&message[at..]))
}

/// The number in the sent-by of the Via at the front.
fn via_number(via: &[u8]) -> Option<u32> {
    let after = VIA.needle().len();
    let space = memchr(b' ', via.get(after..after + 8)?)?;
    number(&via[after + space + 1..])
}

/// A message in pieces, in the order in which they are sent.
#[derive(Debug, Default)]
pub struct Pieces<'a> {
    parts: [&'a [u8]; 9],
    count: usize,
}

impl<'a> Pieces<'a> {
    /// One piece.
    pub fn whole(bytes: &'a [u8]) -> Pieces<'a> {
        let mut pieces = Pieces::default();
        pieces.push(bytes);
        pieces
    }

    fn push(&mut self, part: &'a [u8]) {
        self.parts[self.count] = part;
        self.count += 1;
    }

    /// The pieces.
    pub fn parts(&self) -> &[&'a [u8]] {
        &self.parts[..self.count]
    }
}

/// What of the way of a request decides which lines it gets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// It did not come by WebSocket.
    pub has_stamp: bool,
    /// It comes by one transport and leaves by another.
    pub crosses: bool,
}

/// The request as it is forwarded.
pub fn forwarded_request(message: &[u8], is_invite: bool, way: Way) -> Option<Pieces<'_>> {
    let (line, mut rest) = message.split_at(memchr(b'\n', message)? + 1);
    let mut pieces = Pieces::whole(line);
    pieces.push(OWN_VIA);
    let is_initial = memmem::find(line, b"@example.com").is_some();
    if is_initial {
        pieces.push(OWN_TARGET);
    }
    if is_invite {
        pieces.push(if way.crosses { OWN_ROUTE } else { COMMON_ROUTE });
        if way.crosses {
            pieces.push(OTHER_ROUTE);
        }
    }
    if let Some(at) = stamp_at(rest).filter(|_| way.has_stamp) {
        pieces.push(&rest[..at]);
        pieces.push(STAMP);
        rest = &rest[at..];
    }
    if !is_initial && let Some((start, end)) = routes(rest) {
        pieces.push(&rest[..start]);
        rest = &rest[end..];
    }
    pieces.push(rest);
    Some(pieces)
}

/// Where the Route lines begin and end: ours, which go no further.
fn routes(headers: &[u8]) -> Option<(usize, usize)> {
    const ROUTE: &[u8] = b"Route: <sip:0";
    static LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\r\nRoute: <sip:0"));
    let start = LINE.find(headers)? + 2;
    let mut end = start;
    while headers[end..].starts_with(ROUTE) {
        end += memchr(b'\n', &headers[end..])? + 1;
    }
    Some((start, end))
}

/// Where the value of a Via's `rport` is missing, when the Via is at the front.
fn stamp_at(headers: &[u8]) -> Option<usize> {
    let end = memchr(b'\r', headers)?;
    (headers.starts_with(b"Via: ") && headers[..end].ends_with(b";rport")).then_some(end)
}

/// The response without its first Via.
pub fn forwarded_response(message: &[u8]) -> Option<Pieces<'_>> {
    let start = VIA.find(message)? + 2;
    let end = start + memchr(b'\n', &message[start..])? + 1;
    let mut pieces = Pieces::whole(&message[..start]);
    pieces.push(&message[end..]);
    Some(pieces)
}

/// Appends the answer to a request: 100 to an INVITE, 200 to what asks. `has_stamp`: it did not
/// come by WebSocket.
pub fn answer(request: &[u8], has_stamp: bool, out: &mut Vec<u8>) {
    let is_final = !request.starts_with(b"INVITE ");
    out.extend_from_slice(if is_final { b"SIP/2.0 200 OK\r\n" } else { b"SIP/2.0 100 Trying\r\n" });
    let head = memmem::find(request, b"\r\n\r\n").map_or(request, |end| &request[..end + 2]);
    let mut rest = memchr(b'\n', head).map_or(&head[..0], |end| &head[end + 1..]);
    let mut has_via = false;
    let mut is_outbound = false;
    while let Some(end) = memchr(b'\n', rest) {
        let (line, next) = rest.split_at(end + 1);
        rest = next;
        match line {
            [b'V', b'i', b'a', b':', ..] => {
                let text = &line[..line.len() - 2];
                out.extend_from_slice(text);
                if has_stamp && !has_via && text.ends_with(b";rport") {
                    out.extend_from_slice(STAMP);
                }
                has_via = true;
                out.extend_from_slice(b"\r\n");
            }
            [b'T', b'o', b':', ..] if is_final => {
                out.extend_from_slice(&line[..line.len() - 2]);
                out.extend_from_slice(TO_TAG);
                out.extend_from_slice(b"\r\n");
            }
            [b'F', b'r', b'o', b'm', ..] | [b'T', b'o', b':', ..] | [b'C', b'S', ..] => {
                out.extend_from_slice(line);
            }
            [b'C', b'a', b'l', b'l', ..] => out.extend_from_slice(line),
            [b'C', b'o', b'n', b't', b'a', ..] if request[0] == b'R' => {
                is_outbound = memmem::find(line, b";reg-id=").is_some();
                out.extend_from_slice(line);
            }
            _ => {}
        }
    }
    if request[0] == b'O' {
        out.extend_from_slice(ABILITIES);
    } else if is_outbound {
        out.extend_from_slice(REGISTERED);
    }
    out.extend_from_slice(END);
}

/// Bytes of the first message on a stream, or `None` while it is incomplete.
pub fn message_length(bytes: &[u8]) -> Option<usize> {
    static LENGTH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\r\nContent-Length:"));
    let head = memmem::find(bytes, b"\r\n\r\n")? + 4;
    let mut body = 0;
    if let Some(at) = LENGTH.find(&bytes[..head]) {
        let value = bytes[at + LENGTH.needle().len()..head].iter().skip_while(|it| **it == b' ');
        body = value
            .take_while(|it| it.is_ascii_digit())
            .fold(0usize, |sum, digit| (sum * 10 + usize::from(digit - b'0')).min(MESSAGE_MAX));
    }
    (bytes.len() >= head + body).then_some(head + body)
}

/// Bytes of one message at most; a connection with more in its buffer is closed.
pub const MESSAGE_MAX: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &[u8] = b"INVITE sip:u9000001@example.com SIP/2.0\r\n\
        Via: SIP/2.0/WSS u0000123.invalid;branch=z9hG4bK1;rport\r\n\
        From: <sip:u0000123@example.com>;tag=1\r\nTo: <sip:u9000001@example.com>\r\n\
        Call-ID: a\r\nCSeq: 1 INVITE\r\nContent-Length: 2\r\n\r\nhi";

    #[test]
    fn a_request_is_known_by_its_uri_and_a_response_by_its_second_via() {
        assert_eq!(kind(INVITE), Kind::Request { to: 9_000_001, is_invite: true });
        assert_eq!(sender(INVITE), Some(123));
        let response = b"SIP/2.0 200 OK\r\nVia: SIP/2.0/FLR floor.invalid;pad=0\r\n\
            Via: SIP/2.0/WS u0000007.invalid;branch=z9hG4bK1\r\n\r\n";
        assert_eq!(kind(response), Kind::Response { to: 7 });
        let forwarded = forwarded_response(response).unwrap();
        let expected =
            b"SIP/2.0 200 OK\r\nVia: SIP/2.0/WS u0000007.invalid;branch=z9hG4bK1\r\n\r\n";
        assert_eq!(forwarded.parts().concat(), expected);
        assert_eq!(kind(b"OPTIONS sip:example.com SIP/2.0\r\n\r\n"), Kind::Asks);
        for text in
            [&b"SIP/2.0 200 OK\r\nVia: SIP/2.0/WS u0000007.invalid\r\n\r\n"[..], b"\r\n", b""]
        {
            assert_eq!(kind(text), Kind::Unknown);
        }
        assert_eq!(number(b"u000012x"), None);
        assert_eq!(number(b"u000012"), None);
    }

    #[test]
    fn what_is_put_in_is_as_long_as_what_the_proxy_puts_in() {
        // As the proxy writes it on 127.0.0.1 and ports of five digits.
        let proxys = [
            "Via: SIP/2.0/WSS 127.0.0.1:28443;branch=z9hG4bKAAAAAAABAAAAADOGEZelLhppgzDK7g\r\n\
             Max-Breadth: 60\r\n",
            "Record-Route: <sip:ft.EAjkA6G-AAB_AAAlYeR_AAAlZY_TJFEgLVxAH4aoJsU@127.0.0.1:25060;lr>\r\n",
            "Record-Route: <sip:ft.EBDkA6G-AAAAAAAAAAEEAAP6oMvvmY1-xYulH7s@127.0.0.1:28443;\
             transport=ws;lr>\r\n",
            "=25060;received=127.0.0.1",
            ";pub-gruu=\"sip:u0000001@example.com;gr=urn:uuid:00000000-0000-4000-8000-000000000001\";\
             temp-gruu=\"sip:tgruu.xm5lgYLLEVgAAAAA2An-OPejCHXmXtzt98WpkJYGvSPp-800vKoaJZn-0-4NwBMy\
             XFVSiu_kLu3VaWYu@example.com;gr\"\
             Supported: path, outbound\r\nRequire: outbound\r\nFlow-Timer: 35\r\n",
        ];
        let ours = [OWN_VIA, OWN_ROUTE, OTHER_ROUTE, STAMP, REGISTERED];
        for (proxys, ours) in proxys.iter().zip(ours) {
            assert_eq!(proxys.len(), ours.len(), "{proxys}");
        }
        let grown =
            "sip:u0000002@u0000002.invalid;transport=ws".len() - "sip:u0000002@example.com".len();
        assert_eq!(OWN_TARGET.len(), grown);
    }

    #[test]
    fn a_forwarded_request_gets_its_lines_and_loses_its_routes() {
        let way = Way { has_stamp: true, crosses: true };
        let forwarded = forwarded_request(INVITE, true, way).unwrap().parts().concat();
        let own = [OWN_VIA, OWN_TARGET, OWN_ROUTE, OTHER_ROUTE, STAMP].concat().len();
        assert_eq!(forwarded.len(), INVITE.len() + own);
        assert_eq!(memmem::find_iter(&forwarded, b"Via: ").count(), 2);
        assert!(memmem::find(&forwarded, b";rport=00000;received=127.0.0.1\r\nFrom:").is_some());
        let common = forwarded_request(INVITE, true, Way::default()).unwrap().parts().concat();
        let record = common.len() - INVITE.len() - OWN_VIA.len() - OWN_TARGET.len();
        // Between that of two WSS clients, 110, and that of two UDP users, 114.
        assert_eq!(record, 112);
        let plain = forwarded_request(INVITE, false, Way::default()).unwrap().parts().concat();
        assert_eq!(plain.len(), INVITE.len() + OWN_VIA.len() + OWN_TARGET.len());
        let routes = [OWN_ROUTE, OTHER_ROUTE].concat();
        let routes = String::from_utf8(routes).unwrap().replace("Record-Route", "Route");
        let bye = |routes: &str| {
            format!(
                "BYE sip:u9000001@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP u0000123.invalid;rport\r\n\
                 {routes}To: <sip:b>\r\n\r\n"
            )
        };
        let pieces =
            |text: &str| forwarded_request(text.as_bytes(), false, way).unwrap().parts().concat();
        assert_eq!(pieces(&bye(&routes)), pieces(&bye("")));
    }

    #[test]
    fn an_answer_copies_what_names_the_transaction() {
        let mut out = Vec::new();
        answer(INVITE, false, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "SIP/2.0 100 Trying\r\nVia: SIP/2.0/WSS u0000123.invalid;branch=z9hG4bK1;rport\r\n\
             From: <sip:u0000123@example.com>;tag=1\r\nTo: <sip:u9000001@example.com>\r\n\
             Call-ID: a\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
        );
        let mut out = Vec::new();
        answer(b"OPTIONS sip:example.com SIP/2.0\r\nTo: <sip:a>\r\nX: y\r\n\r\n", true, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("SIP/2.0 200 OK\r\nTo: <sip:a>;tag=0000000000000000\r\nAllow: "));
        assert!(text.ends_with("\r\nContent-Length: 0\r\n\r\n") && !text.contains("X: y"));
    }

    #[test]
    fn every_truncation_of_a_message_waits_for_more() {
        assert_eq!(message_length(INVITE), Some(INVITE.len()));
        for end in 0..INVITE.len() {
            assert_eq!(message_length(&INVITE[..end]), None, "{end}");
        }
        assert_eq!(message_length(b"ACK sip:a SIP/2.0\r\n\r\nBYE"), Some(21));
    }
}
