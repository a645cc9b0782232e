//! What is played: one script a kind of transaction.

use super::script::{Act, Past, Side, register};

/// A kind of transaction: the name that its figures have, and its script.
pub type Kind = (&'static str, fn() -> Vec<Act>);

/// All of them.
pub const KINDS: [Kind; 6] = [
    ("message wss to wss", message),
    ("notify udp to wss", notify),
    ("call udp to wss", call),
    ("register again wss", register_again),
    ("options udp", options),
    ("miss wss", miss),
];

const TYPICAL: &str = "Allow: INVITE,ACK,CANCEL,BYE,UPDATE,MESSAGE,OPTIONS,REFER,INFO,NOTIFY\r\n\
Supported: outbound\r\nUser-Agent: Example Browser 3.13.0\r\n";

fn act(side: Side, write: impl Fn(&Past) -> String + 'static) -> Act {
    (side, Box::new(write))
}

/// A request of a client over WSS: about 590 bytes.
fn of_client(method: &str, uri: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bK{{n}}\r\n\
         Max-Forwards: 69\r\nTo: <{uri}>\r\nFrom: \"{{a}}\" <sip:{{a}}@example.com>;tag=f3k9vq1l0s\r\n\
         Call-ID: 7k1m5qf2s9{{n}}\r\nCSeq: 4711 {method}\r\n\
         Contact: <sip:{{a}}@df7jal23ls0d.invalid;transport=ws;ob>\r\n{TYPICAL}\
         Content-Type: text/plain\r\nContent-Length: 66\r\n\r\n\
         Watson, come here. I want to see you, if it is not too much asked."
    )
}

/// A request of the server behind, over UDP.
fn of_core(method: &str, uri: &str, more: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\n\
         Via: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bK{{n}}{method};rport\r\n\
         Max-Forwards: 70\r\nTo: <{uri}>\r\nFrom: <sip:voicemail@example.com>;tag=as58f4ae2b\r\n\
         Call-ID: 1b6aa6c0{{n}}@198.51.100.7\r\nCSeq: 102 {method}\r\n\
         Contact: <sip:voicemail@198.51.100.7:5060>\r\n{TYPICAL}{more}"
    )
}

fn sdp(more: &str) -> String {
    let sdp = "v=0\r\no=- 2890844526 2890844526 IN IP4 198.51.100.8\r\ns=-\r\n\
               c=IN IP4 198.51.100.8\r\nt=0 0\r\nm=audio 49172 RTP/SAVPF 111 0 8 101\r\n\
               a=rtpmap:111 opus/48000/2\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
               a=fingerprint:sha-256 4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B\r\n\
               a=setup:actpass\r\na=ice-ufrag:8hhY\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\n";
    format!("{more}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len())
}

/// The client's 200 to what it heard last.
fn ok(side: Side) -> Act {
    act(side, move |past| past.last(side).response(200, "8dk3l1hg7f", &[]))
}

/// MESSAGE from client to client, and its 200.
pub fn message() -> Vec<Act> {
    vec![act(Side::A, |_| of_client("MESSAGE", "sip:{b}@example.com")), ok(Side::B)]
}

/// The same with a body of that many bytes, and nobody answers.
pub fn unanswered(body: usize) -> Vec<Act> {
    let of_client = |method| of_client(method, "sip:{b}@example.com");
    let head =
        of_client("MESSAGE").split_once("Content-Length").expect("it has a body").0.to_owned();
    let body = "x".repeat(body);
    vec![act(Side::A, move |_| format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()))]
}

/// NOTIFY from the server behind to a client, and its 200.
pub fn notify() -> Vec<Act> {
    let body = "Event: message-summary\r\nSubscription-State: active\r\n\
                Content-Type: application/simple-message-summary\r\nContent-Length: 45\r\n\r\n\
                Messages-Waiting: yes\r\nVoice-Message: 4/8 (0)";
    vec![act(Side::Core, move |_| of_core("NOTIFY", "sip:{b}@example.com", body)), ok(Side::B)]
}

/// A call from the server behind to a client: INVITE, 180, 200, ACK, BYE, 200.
pub fn call() -> Vec<Act> {
    vec![
        act(Side::Core, |_| of_core("INVITE", "sip:{b}@example.com", &sdp(""))),
        act(Side::B, |past| past.last(Side::B).response(180, "8dk3l1hg7f", &[CONTACT])),
        act(Side::B, |past| past.last(Side::B).response(200, "8dk3l1hg7f", &[CONTACT])),
        act(Side::Core, |past| in_dialog(past, "ACK", 102)),
        act(Side::Core, |past| in_dialog(past, "BYE", 103)),
        ok(Side::B),
    ]
}

const CONTACT: &str = "Contact: <sip:{b}@df7jal23ls0d.invalid;transport=ws;ob>";

/// A request of the caller in the dialog that its INVITE's 200 made.
fn in_dialog(past: &Past, method: &str, cseq: u32) -> String {
    let answer = past.last(Side::Core);
    let routes = answer.record_route().into_iter().rev().collect::<Vec<_>>().join(",");
    let to = answer.header("To");
    format!(
        "{method} sip:{{b}}@df7jal23ls0d.invalid;transport=ws;ob SIP/2.0\r\n\
         Via: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bK{{n}}{method};rport\r\n\
         Max-Forwards: 70\r\nRoute: {routes}\r\nTo: {to}\r\n\
         From: <sip:voicemail@example.com>;tag=as58f4ae2b\r\n\
         Call-ID: 1b6aa6c0{{n}}@198.51.100.7\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n"
    )
}

/// A REGISTER that refreshes a binding.
pub fn register_again() -> Vec<Act> {
    vec![act(Side::A, |_| register())]
}

/// An OPTIONS for ourselves, over UDP.
pub fn options() -> Vec<Act> {
    let end = "Content-Length: 0\r\n\r\n";
    vec![act(Side::Core, move |_| of_core("OPTIONS", "sip:example.com", end))]
}

/// A MESSAGE to somebody who never registered.
pub fn miss() -> Vec<Act> {
    vec![act(Side::A, |_| of_client("MESSAGE", "sip:nobody@example.com"))]
}
