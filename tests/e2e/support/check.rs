//! What a proxy may change and what it may not, checked on bytes; and the fence that shows absence.

use super::link::Transport;
use super::phone::Phone;
use super::sip::{Frame, Header, Message, param, unique};

/// Header fields that a proxy may change in a request (RFC 3261 §16.6, RFC 3325, RFC 5393).
const EDITED: [&str; 9] = [
    "via",
    "max-forwards",
    "max-breadth",
    "route",
    "record-route",
    "path",
    "content-length",
    "p-asserted-identity",
    "p-preferred-identity",
];

/// `got` is the request `sent`, forwarded once by a proxy over `transport` to the registered URI:
/// only the declared edits, everything else equal byte for byte and in order.
#[track_caller]
pub fn forwarded(sent: &Message, got: &Message, transport: Transport, uri: &str) {
    let context = || format!("\n--- sent {sent:?}\n--- got {got:?}");
    assert_eq!(got.start, format!("{} {uri} SIP/2.0", sent.method()), "start line{}", context());
    let (before, after) = (sent.values("via"), got.values("via"));
    assert_eq!(after.len(), before.len() + 1, "one Via more{}", context());
    let top = format!("SIP/2.0/{} ", transport.via());
    assert!(after[0].starts_with(&top), "top Via names {transport:?}{}", context());
    let branch = param(&after[0], "branch").unwrap_or("");
    assert!(branch.starts_with("z9hG4bK") && branch.len() > 20, "our branch{}", context());
    assert_eq!(bare_via(&after[1]), bare_via(&before[0]), "sender's Via{}", context());
    assert_eq!(after[2..], before[1..], "older Vias{}", context());
    let hops = sent.all("max-forwards").next().map_or(70, |hops| hops.parse::<u8>().unwrap() - 1);
    assert_eq!(got.one("max-forwards"), hops.to_string(), "Max-Forwards{}", context());
    assert_eq!(fixed(sent), fixed(got), "other header fields{}", context());
    assert_eq!(got.body, sent.body, "body{}", context());
    framed(sent, got, transport);
}

/// Content-Length and WebSocket frame are as they must be.
#[track_caller]
fn framed(sent: &Message, got: &Message, transport: Transport) {
    let lengths: Vec<_> = got.all("content-length").collect();
    match transport {
        Transport::Tcp | Transport::Tls => {
            assert_eq!(lengths, [got.body.len().to_string()], "Content-Length: {got:?}")
        }
        _ => {
            let before: Vec<_> = sent.all("content-length").collect();
            let absent = before.is_empty() && lengths.len() <= 1;
            assert!(absent || lengths == before, "Content-Length: {got:?}");
        }
    }
    let frame = match transport.is_web() {
        false => Frame::Bare,
        true if std::str::from_utf8(&got.raw).is_ok() => Frame::Text,
        true => Frame::Binary,
    };
    assert_eq!(got.frame, frame, "{got:?}");
}

/// `got` is the response `answered`, returned by a proxy to the sender of `request`: our Via
/// popped, the rest equal byte for byte and in order.
#[track_caller]
pub fn returned(request: &Message, answered: &Message, got: &Message) {
    let context = || format!("\n--- answered {answered:?}\n--- got {got:?}");
    assert_eq!(got.start, answered.start, "status line{}", context());
    let (mine, vias) = (request.values("via"), got.values("via"));
    assert_eq!(vias.len(), mine.len(), "our Via popped{}", context());
    assert_eq!(bare_via(&vias[0]), bare_via(&mine[0]), "sender's Via{}", context());
    let rest = |message: &Message| -> Vec<Vec<u8>> {
        let keep = |h: &&Header| h.name != "via" && h.name != "content-length";
        message.headers.iter().filter(keep).map(|h| h.line.clone()).collect()
    };
    assert_eq!(rest(answered), rest(got), "other header fields{}", context());
    assert_eq!(got.body, answered.body, "body{}", context());
}

fn fixed(message: &Message) -> Vec<String> {
    let kept = message.headers.iter().filter(|h| !EDITED.contains(&h.name.as_str()));
    kept.map(|h| format!("{:?}", String::from_utf8_lossy(&h.line))).collect()
}

/// A Via value without what the next hop adds to it (RFC 3261 §18.2.1, RFC 3581 §4).
fn bare_via(value: &str) -> String {
    let mut bare: Vec<&str> = Vec::new();
    for part in value.split(';') {
        let name = part.split('=').next().unwrap_or("").trim().to_ascii_lowercase();
        match name.as_str() {
            "received" => {}
            "rport" => bare.push("rport"),
            _ => bare.push(part),
        }
    }
    bare.join(";")
}

/// Shows that nothing else came: `sender` sends each receiver a message of its own, which must be
/// the next that it hears, and must hear exactly the answer.
#[track_caller]
pub fn fence(sender: &mut Phone, receivers: &mut [&mut Phone]) {
    for receiver in receivers {
        let body = unique("fence");
        let draft = sender.draft("MESSAGE", &receiver.aor()).body("text/plain", body.clone());
        sender.send(&draft.build());
        let heard = receiver.next();
        assert_eq!(heard.method(), "MESSAGE", "{receiver:?} heard {heard:?}");
        assert_eq!(String::from_utf8_lossy(&heard.body), body, "{receiver:?} heard {heard:?}");
        receiver.answer(&heard, 200);
        let answer = sender.next();
        assert_eq!(answer.status(), 200, "{sender:?} heard {answer:?}");
        assert_eq!(answer.one("call-id"), draft.value("Call-ID"), "{sender:?} heard {answer:?}");
    }
}

/// Shows that a phone heard nothing since: the answer to an OPTIONS of its own is the next thing.
#[track_caller]
pub fn still(phones: &mut [&mut Phone]) {
    for phone in phones {
        let options = phone.draft("OPTIONS", "sip:example.com");
        phone.send(&options.build());
        let answer = phone.next();
        assert_eq!(answer.status(), 200, "{phone:?} heard {answer:?}");
        assert_eq!(answer.one("call-id"), options.value("Call-ID"), "{phone:?} heard {answer:?}");
    }
}
