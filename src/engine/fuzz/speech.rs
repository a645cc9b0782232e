//! What peers say: requests, answers to what was heard, and faults put into both. Text by text, so
//! that it shares nothing with the codec that reads it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::base::choices::Choices;
use crate::base::id::Transport;

/// A message and its flow, or its address for datagrams.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub by: Result<usize, SocketAddr>,
    pub text: Vec<u8>,
}

/// What browsers send first.
pub(super) const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sip\r\n\r\n";

const METHODS: [&str; 12] = [
    "REGISTER",
    "INVITE",
    "MESSAGE",
    "ACK",
    "CANCEL",
    "BYE",
    "OPTIONS",
    "INVITE",
    "SUBSCRIBE",
    "NOTIFY",
    "PRACK",
    "X-FUZZ",
];

const URIS: [&str; 12] = [
    "sip:u0@example.com",
    "sip:u1@example.com",
    "sips:u1@example.com",
    "sip:900@example.com",
    "sip:example.com",
    "sip:x0@df7jal.invalid;transport=ws",
    "sip:x1@203.0.113.1:40001;transport=tcp",
    "tel:+49900",
    "sip:192.0.2.1",
    "sip:x1@203.0.113.1:40001",
    "sip:core@198.51.100.7:5060;transport=tcp",
    "sip:somebody@elsewhere.invalid",
];

const LINES: [&str; 16] = [
    "",
    "Max-Forwards: 70\r\n",
    "Max-Forwards: 0\r\n",
    "Max-Breadth: 1\r\n",
    "Supported: path, outbound, gruu\r\n",
    "Require: nothing\r\n",
    "Proxy-Require: nothing\r\n",
    "Path: <sip:198.51.100.7;lr;ob>\r\n",
    "Route: <sip:192.0.2.1;lr>\r\n",
    "Route: <sip:198.51.100.7:5060;lr;transport=tcp>\r\n",
    "Record-Route: <sip:p.invalid;lr>\r\n",
    "P-Asserted-Identity: <sip:boss@example.com>\r\n",
    "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
    "Via: SIP/2.0/TCP further.invalid;branch=z9hG4bKf, SIP/2.0/UDP last.invalid\r\n",
    "Contact: <sip:x9@h9.invalid>;q=0.5, sip:x8@h8.invalid;expires=0\r\n",
    "Subject:\r\n folded\r\n",
];

/// What gets into the middle of messages.
const SPICE: [&str; 24] = [
    "\r\n",
    "\r\n ",
    ",",
    ";",
    "<",
    ">",
    "\"",
    "\\",
    "\0",
    "=",
    "?",
    "%00",
    "[::1]",
    "65536",
    "4294967296",
    "-1",
    ";rport",
    ";received=1.2.3.4",
    ";maddr=10.0.0.1",
    ";tag=",
    ";lr",
    "sips:",
    "ft.AAAA",
    "é",
];

/// A request of one of few users, so that transactions, dialogs and bindings meet.
pub(super) fn request(
    choices: &mut Choices<'_>,
    transport: Transport,
    remote: SocketAddr,
    heard: &VecDeque<Heard>,
) -> Vec<u8> {
    let method = choices.of(&METHODS);
    let (from, to) = (choices.below(3), choices.below(3));
    let name = choices.below(4);
    let uri = choices.of(&URIS);
    let mut uri = if method == "REGISTER" { "sip:example.com" } else { uri }.to_owned();
    let mut lines = String::new();
    let mut tag = if choices.below(4) == 3 { ";tag=b" } else { "" };
    // In the dialog of something heard: its route, either way round, and its Contact.
    if let Some(dialog) = pick(heard, choices.byte()).filter(|_| choices.below(3) == 2) {
        let text = String::from_utf8_lossy(&dialog.text).into_owned();
        let mut route: Vec<&str> =
            values(&text, "Record-Route").chain(values(&text, "Path")).collect();
        if choices.below(2) == 1 {
            route.reverse();
        }
        lines.extend(route.iter().map(|value| format!("Route: {value}\r\n")));
        let contact = values(&text, "Contact").next().and_then(|it| it.split(['<', '>']).nth(1));
        uri = contact.map_or(uri, str::to_owned);
        tag = ";tag=b";
    }
    for _ in 0..choices.below(4) {
        lines.push_str(choices.of(&LINES));
    }
    let expires = choices.of(&["", "Expires: 0\r\n", "Expires: 60\r\n", "Expires: 600\r\n"]);
    let contact = match choices.below(6) {
        0 => String::new(),
        1 => "Contact: *\r\n".into(),
        2 => format!("Contact: <sip:x{from}@{remote}>\r\n"),
        3 => format!(
            "Contact: <sips:x{from}@df7jal.invalid;transport=ws>;\
+sip.instance=\"<urn:uuid:{from}>\";reg-id=1\r\n"
        ),
        _ => format!("Contact: <sip:x{from}@df7jal.invalid;transport=ws>;q=0.{name}\r\n"),
    };
    let rport = choices.of(&["", ";rport", ";rport;alias"]);
    let branch = choices.below(8);
    let sent_by =
        if transport.is_websocket() { "df7jal.invalid".into() } else { remote.to_string() };
    let body = choices.of(&["", "", "v=0\r\n"]);
    let seq = 1 + choices.below(3);
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{} {sent_by};branch=z9hG4bK{branch}{rport}\r\n{lines}\
From: <sip:u{from}@example.com>;tag=a\r\nTo: <sip:u{to}@example.com>{tag}\r\nCall-ID: c{name}\r\n\
CSeq: {seq} {method}\r\n{contact}{expires}Content-Length: {}\r\n\r\n{body}",
        transport.via_name(),
        body.len(),
    )
    .into_bytes()
}

/// An answer to a request; `None` when it is none, or an ACK.
pub(super) fn response(choices: &mut Choices<'_>, request: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(request);
    if text.starts_with("SIP/") || text.starts_with("ACK ") {
        return None;
    }
    let status = choices
        .of(&[200, 180, 100, 200, 404, 486, 302, 401, 408, 430, 500, 503, 603, 183, 487, 699]);
    let mut out = format!("SIP/2.0 {status} Whatever\r\n");
    let copied = ["via", "from", "call-id", "cseq", "record-route", "path"];
    for line in text.split("\r\n").skip(1).take_while(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
        if copied.contains(&name.as_str()) {
            out.push_str(&format!("{line}\r\n"));
        } else if name == "to" {
            let tag =
                if line.contains(";tag=") { "" } else { choices.of(&[";tag=b", ";tag=c", ""]) };
            out.push_str(&format!("{line}{tag}\r\n"));
        }
    }
    out.push_str(choices.of(&[
        "Contact: <sip:y@yy.invalid;transport=ws>\r\n",
        "",
        "Require: 100rel\r\nRSeq: 1\r\n",
    ]));
    let body = choices.of(&["", "", "v=0\r\n"]);
    let form = choices.byte();
    let length = ["Content-Length", "Content-Length", "X-Length"][usize::from(form) % 3];
    if form % 16 == 14 {
        // A registrar lists what it was asked for (RFC 3261 §10.3 step 8).
        out.extend(values(&text, "Contact").map(|it| format!("Contact: {it};expires=600\r\n")));
    }
    out.push_str(&format!("{length}: {}\r\n\r\n{body}", body.len()));
    if form % 16 == 15 {
        // As if the proxy had asked for itself: its Via and no other.
        let mut vias = 0;
        out = out
            .split_inclusive("\r\n")
            .filter(|line| {
                vias += usize::from(line.starts_with("Via:"));
                vias < 2 || !line.starts_with("Via:")
            })
            .collect();
    }
    Some(out.into_bytes())
}

/// The same request with another method in start line and CSeq; unchanged for "".
pub(super) fn with_method(text: &[u8], method: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(text).into_owned();
    match text.split_once(' ') {
        Some((old, rest)) if !method.is_empty() && !old.starts_with("SIP/") => {
            let rest = rest.replace(&format!(" {old}\r\n"), &format!(" {method}\r\n"));
            format!("{method} {rest}").into_bytes()
        }
        _ => text.into_bytes(),
    }
}

/// Puts up to three faults into a message; most often none.
pub(super) fn bend(choices: &mut Choices<'_>, text: &mut Vec<u8>, heard: &VecDeque<Heard>) {
    for _ in 0..choices.byte().saturating_sub(192) / 16 {
        let at = (choices.below(256) * text.len() / 200).min(text.len());
        match choices.below(6) {
            0 => text.truncate(at),
            1 => {
                let end = (at + choices.below(40)).min(text.len());
                text.drain(at..end);
            }
            2 | 3 => {
                text.splice(at..at, choices.of(&SPICE).bytes());
            }
            4 => {
                // A piece of what an engine wrote itself: branches, tokens, tags.
                let Some(other) = pick(heard, choices.byte()) else { continue };
                let from = choices.below(256) * other.text.len() / 256;
                let end = (from + choices.below(200)).min(other.text.len());
                text.splice(at..at, other.text[from..end].iter().copied());
            }
            _ if at < text.len() => text[at] = choices.byte(),
            _ => {}
        }
    }
}

/// One of what was heard, the latest first.
pub(super) fn pick(heard: &VecDeque<Heard>, number: u8) -> Option<&Heard> {
    let at = usize::from(number).checked_rem(heard.len())?;
    heard.get(heard.len() - 1 - at)
}

/// The values of a header, quotes not respected.
fn values<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .filter(move |(found, _)| found.eq_ignore_ascii_case(name))
        .flat_map(|(_, list)| list.split(','))
        .map(str::trim)
}
