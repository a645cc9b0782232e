//! Header fields as phones and attackers write them: folded, compact, in any case, too many, too
//! long, doubled, quoted (RFC 3261 §7.3, §8.1.1, §20, §25.1).

use sipring::base::config::Config;
use sipring::base::id::Transport;
use sipring::base::limits::{HEADERS_ADDED_MAX, HEADERS_MAX, VALUES_MAX};

use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, CORE, Lab};

struct Scene {
    lab: Lab,
    alice: Phone,
    core: Phone,
}

fn scene(transport: Transport) -> Scene {
    let by_udp = |config: &mut Config| config.upstreams[0].udp_max = 65_535;
    let mut lab = Lab::new(1, lab::config_with(by_udp));
    let alice = Phone::connect(&mut lab, 0, transport, "203.0.113.5:40001");
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    Scene { lab, alice, core }
}

/// A request whose header lines are these, with a Content-Length for its body.
fn message(method: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} sip:9@example.com SIP/2.0\r\n{lines}Content-Length: 2\r\n\r\nhi")
}

const VIA: &str = "Via: SIP/2.0/UDP 203.0.113.5:40001;branch=z9hG4bKm;rport";
const FROM: &str = "From: <sip:a@b.example>;tag=1";
const TO: &str = "To: <sip:9@example.com>";
const CALL_ID: &str = "Call-ID: m";
const CSEQ: &str = "CSeq: 1 MESSAGE";

/// A MESSAGE with what it needs and these lines.
fn with(lines: &[&str]) -> String {
    message("MESSAGE", &[&[VIA, FROM, TO, CALL_ID, CSEQ], lines].concat())
}

/// The same with one of its lines replaced.
fn instead(line: &str, by: &str) -> String {
    let usual = [VIA, FROM, TO, CALL_ID, CSEQ];
    assert!(usual.contains(&line));
    message("MESSAGE", &usual.map(|it| if it == line { by } else { it }))
}

/// It is forwarded to the server, which sees it as `got`, and the answer comes back.
#[track_caller]
fn passes(text: &str) -> String {
    let mut seen = Vec::new();
    for transport in [Transport::Udp, Transport::Tcp, Transport::Wss] {
        let Scene { mut lab, alice, core } = scene(transport);
        alice.send(&mut lab, text);
        let toward_core = lab.datagrams.iter().find(|(path, _)| path.remote == core.remote);
        let raw = toward_core.map(|(_, bytes)| bytes.clone());
        let got = core.take_one(&mut lab);
        assert_eq!(got.body, b"hi");
        core.send(&mut lab, &got.response(200, "c", &[]));
        let statuses: Vec<u16> = alice.take(&mut lab).iter().map(Sip::status).collect();
        assert_eq!(statuses.last(), Some(&200), "{transport:?} {text:?}");
        lab.finish();
        seen.push(String::from_utf8(raw.expect("it came")).expect("UTF-8"));
    }
    seen.swap_remove(2)
}

/// 400 with that phrase, and nothing is forwarded.
#[track_caller]
fn refused(text: &str, phrase: &str) {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Wss] {
        let Scene { mut lab, alice, .. } = scene(transport);
        alice.send(&mut lab, text);
        let answers = alice.take(&mut lab);
        let starts: Vec<&str> = answers.iter().map(|answer| answer.start.as_str()).collect();
        assert_eq!(starts, [format!("SIP/2.0 400 {phrase}")], "{transport:?} {text:?}");
        assert!(lab.datagrams.is_empty());
        lab.finish();
    }
}

#[test]
fn every_header_field_that_is_looked_at_may_be_folded() {
    let text = message(
        "INVITE",
        &[
            "Via:\r\n SIP/2.0/UDP\r\n\t203.0.113.5:40001\r\n ;branch=z9hG4bKm\r\n ;\r\n rport",
            "Max-Forwards:\r\n 70",
            "Max-Breadth\t:\r\n\t60",
            "Route:\r\n <sip:192.0.2.1;lr>\r\n ,\r\n\t<sip:example.com;lr>",
            "Record-Route:\r\n <sip:192.0.2.77;lr>,\r\n <sip:192.0.2.78;lr>",
            "From:\r\n \"A\r\n B\"\r\n <sip:a@b.example>\r\n ;\r\n tag\r\n =\r\n 1",
            "To :\r\n <sip:9@example.com>",
            "Call-ID:\r\n m",
            "CSeq:\r\n 1\r\n INVITE",
            "Contact:\r\n <sip:a@192.0.2.50>\r\n ;x=y",
            "Proxy-Require:\r\n ",
            "P-Asserted-Identity:\r\n <sip:boss@example.com>\r\n ,<tel:+1>",
            "Expires:\r\n 60",
            "Subject: a\r\n b",
        ],
    );
    let got = passes(&text);
    for line in [
        "Max-Forwards:\r\n 69\r\n",
        "Record-Route:\r\n <sip:192.0.2.77;lr>,\r\n <sip:192.0.2.78;lr>\r\n",
        "From:\r\n \"A\r\n B\"\r\n <sip:a@b.example>\r\n ;\r\n tag\r\n =\r\n 1\r\n",
        "To :\r\n <sip:9@example.com>\r\nCall-ID:\r\n m\r\nCSeq:\r\n 1\r\n INVITE\r\n",
        "Contact:\r\n <sip:a@192.0.2.50>\r\n ;x=y\r\n",
        "Expires:\r\n 60\r\nSubject: a\r\n b\r\n",
    ] {
        assert!(got.contains(line), "{line:?} in {got}");
    }
    assert!(!got.contains("Asserted") && !got.contains("tel:+1"), "{got}");
    assert!(!got.contains("\r\nRoute"), "{got}");
}

#[test]
fn a_folded_list_of_extensions_is_read_whole() {
    let Scene { mut lab, alice, .. } = scene(Transport::Wss);
    alice.send(&mut lab, &with(&["Proxy-Require: one,\r\n two\r\n ,\r\n\tthree"]));
    let answer = alice.take_status(&mut lab, 420);
    assert_eq!(answer.header("Unsupported"), "one, two, three");
    lab.finish();
}

#[test]
fn names_may_be_compact_and_in_any_case() {
    let forms: [[&str; 5]; 4] = [
        ["v", "f", "t", "i", "CSeq"],
        ["V", "F", "T", "I", "CSEQ"],
        ["vIa", "fRoM", "tO", "cAlL-iD", "cSeQ"],
        ["VIA \t", "FROM ", "TO\t", "CALL-ID  ", "cseq "],
    ];
    for [via, from, to, call_id, cseq] in forms {
        let lines = [VIA, FROM, TO, CALL_ID, CSEQ].map(|line| line.split_once(':').expect("one").1);
        let names = [via, from, to, call_id, cseq];
        let lines: Vec<String> =
            names.iter().zip(lines).map(|(name, value)| format!("{name}:{value}")).collect();
        let mut all: Vec<&str> = lines.iter().map(String::as_str).collect();
        all.extend(["mAx-FORWARDS: 7", "c: text/plain", "m: <sip:a@b.example>", "k: x", "S: y"]);
        let got = passes(&message("MESSAGE", &all));
        assert!(
            got.contains("mAx-FORWARDS: 6\r\nc: text/plain\r\nm: <sip:a@b.example>\r\nk: x\r\n")
        );
        for line in &lines[1..] {
            assert!(got.contains(line.as_str()), "{line:?} in {got}");
        }
    }
}

#[test]
fn max_forwards_is_a_number_of_one_byte() {
    for (sent, seen) in [("255", "254"), ("1", "0"), ("00070", "69"), ("70 ", "69")] {
        let got = passes(&with(&[&format!("Max-Forwards: {sent}")]));
        assert!(got.contains(&format!("\r\nMax-Forwards: {seen}")), "{got}");
    }
    assert!(passes(&with(&[])).contains("\r\nMax-Forwards: 70\r\n"));
    for odd in ["256", "-1", "abc", "", "7 0", "1e2", "+7", "0x7", "7;", "99999999999999999999"] {
        refused(&with(&[&format!("Max-Forwards: {odd}")]), "Malformed Max-Forwards");
    }
}

#[test]
fn cseq_is_a_number_of_32_bits_and_the_method() {
    for number in ["0", "2147483647", "2147483648", "4294967295", "0000000000000000000001"] {
        let got = passes(&instead(CSEQ, &format!("CSeq: {number} MESSAGE")));
        assert!(got.contains(&format!("CSeq: {number} MESSAGE\r\n")));
    }
    for odd in ["4294967296", "18446744073709551616", "-1", "x", "1.0"] {
        refused(&instead(CSEQ, &format!("CSeq: {odd} MESSAGE")), "Malformed CSeq");
    }
    for odd in ["1", "MESSAGE", "1 MESSAGE x", "1MESSAGE", "", "1 MES,SAGE"] {
        refused(&instead(CSEQ, &format!("CSeq: {odd}")), "Malformed CSeq");
    }
    for odd in ["INVITE", "message", "MESSAGES", "ACK"] {
        refused(&instead(CSEQ, &format!("CSeq: 1 {odd}")), "CSeq Method Mismatch");
    }
}

#[test]
fn what_is_single_is_not_there_twice() {
    let twice = [
        ("From: <sip:a@b.example>;tag=1", "Multiple From"),
        ("f: <sip:c@d.example>;tag=2", "Multiple From"),
        ("To: <sip:9@example.com>", "Multiple To"),
        ("t: <sip:9@example.com>", "Multiple To"),
        ("Call-ID: m", "Multiple Call-ID"),
        ("i: other", "Multiple Call-ID"),
        ("CSeq: 1 MESSAGE", "Multiple CSeq"),
        ("cseq: 2 MESSAGE", "Multiple CSeq"),
        ("Max-Forwards: 70\r\nMAX-FORWARDS: 70", "Multiple Max-Forwards"),
    ];
    for (line, phrase) in twice {
        refused(&with(&[line]), phrase);
    }
    refused(
        &instead(FROM, "From: <sip:a@b.example>;tag=1, <sip:c@d.example>"),
        "Malformed Address",
    );
    refused(&instead(TO, "To: <sip:9@example.com>,<sip:9@example.com>"), "Malformed Address");
    refused(&instead(CALL_ID, "Call-ID:"), "Missing Call-ID");
}

#[test]
fn quoted_strings_must_end_where_they_are_read() {
    refused(&instead(FROM, "From: \"a <sip:a@b.example>;tag=1"), "Unterminated Quoted String");
    refused(&instead(TO, "To: \"a\\\" <sip:9@example.com>"), "Unterminated Quoted String");
    refused(&with(&["Contact: \"a, <sip:a@b.example>"]), "Unterminated Quoted String");
    refused(&with(&["Route: \"a <sip:192.0.2.1;lr>"]), "Bad Route");
    refused(&with(&["Route: <sip:192.0.2.1;lr>, <sip:192.0.2.1;lr"]), "Bad Route");
    refused(
        &instead(VIA, "Via: SIP/2.0/UDP h;branch=z9hG4bKm;x=\"y"),
        "Unterminated Quoted String",
    );
    // Nobody here reads these.
    let got = passes(&with(&["Subject: \"a", "X: \\", "User-Agent: (a", "Date: \"never"]));
    assert!(got.contains("Subject: \"a\r\nX: \\\r\nUser-Agent: (a\r\nDate: \"never\r\n"));
}

#[test]
fn commas_within_quotes_and_brackets_separate_nothing() {
    let route =
        "Route: \"x, <sip:a> y\" <sip:192.0.2.1;lr>;p=\"1,2\" , \"\\\", z\" <sip:example.com;lr>";
    let got = passes(&with(&[route]));
    assert!(!got.contains("Route"), "both are ours: {got}");
    let via = "Via: SIP/2.0/UDP 203.0.113.5:40001;x=\"a,b\";branch=z9hG4bKm;rport , SIP/2.0/UDP h;y=\",\"";
    let got = passes(&instead(VIA, via));
    assert!(
        got.contains(";x=\"a,b\";branch=z9hG4bKm;rport")
            && got.contains(" , SIP/2.0/UDP h;y=\",\"")
    );
    let from = "From: \"<sip:not@this>, \\\"either\\\"\" <sip:a@b.example>;tag=1";
    assert!(passes(&instead(FROM, from)).contains(from));

    let Scene { mut lab, alice, .. } = scene(Transport::Tcp);
    let contacts = "\"One, the \\\"first\\\" <sip:x>\" <sip:one@one.invalid;a=b,c>;q=0.9, \
        Two<sip:two@two.invalid>,\r\n <sip:three@three.invalid?a=b%2Cc>;x=\",\"";
    let answer = alice.register(&mut lab, "alice", contacts);
    let listed: Vec<&str> = answer.all("Contact").collect();
    assert_eq!(listed.len(), 3, "{listed:?}");
    for uri in [
        "<sip:one@one.invalid;a=b,c>",
        "<sip:two@two.invalid>",
        "<sip:three@three.invalid?a=b%2Cc>",
    ] {
        assert!(listed.iter().any(|contact| contact.contains(uri)), "{uri} in {listed:?}");
    }
    lab.finish();
}

#[test]
fn what_nobody_looks_at_passes_byte_for_byte() {
    let lines = [
        "Date: Fri, 32 Foo 10000 25:61:61 EST",
        "X-Empty:",
        "X-Empty-Too: ",
        "x-LOWER-upper \t : \t spaces \t ",
        "-.!%*_+`'~: ;;,,;;,;",
        "Subject: \u{feff}大停電 \u{202e}",
        "X-Tabs:\ta\tb\r\n\tc\r\n d",
        "X-Control: \u{1}\u{2}\u{8}\u{b}\u{1b}\u{7f}",
        "Via-Not: SIP/2.0/UDP h",
        "Contact-Not: \"",
        "P-Asserted-Identity-Not: <sip:a@b>",
        "Content-Type: ;;;",
        "Content-Type: again",
        "User-Agent: <script>",
        "Authorization: NoOneKnowsThisScheme opaque-data=here, Digest x=\"y",
        "Require: nothing-that-exists",
        "Supported: \"\"",
        "Timestamp: -1e999",
        "Session-Expires: many",
        "Event:",
    ];
    let got = passes(&with(&lines));
    let all: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    assert!(got.contains(&all), "{got}");
}

#[test]
fn as_many_header_lines_as_there_may_be() {
    // With Via, From, To, Call-ID, CSeq and Content-Length.
    let most = HEADERS_MAX - HEADERS_ADDED_MAX - 6;
    assert!(most > 200);
    for count in [200, most - 1, most] {
        assert_eq!(passes(&with(&vec!["X: y"; count])).matches("\r\nX: y").count(), count);
    }
    for count in [most + 1, HEADERS_MAX, 2000] {
        refused(&with(&vec!["X: y"; count]), "Too Many Header Fields");
    }
}

#[test]
fn long_values_pass_up_to_the_bound_of_a_stream() {
    for line in [
        format!("X: {}", "x".repeat(20_000)),
        format!("Subject: {}", "x\r\n ".repeat(5_000)),
        format!("Contact: <sip:{}@b.example>", "x".repeat(20_000)),
        format!("{}: y", "X".repeat(20_000)),
    ] {
        assert!(passes(&with(&[&line])).contains(&line));
    }
    for (line, long) in [(FROM, 'a'), (CALL_ID, 'i'), (VIA, 'b')] {
        let by = match long {
            'a' => format!("From: <sip:{}@b.example>;tag={}", "a".repeat(9_000), "t".repeat(9_000)),
            'i' => format!("Call-ID: {}", "i".repeat(18_000)),
            _ => format!("Via: SIP/2.0/UDP h;branch=z9hG4bK{};rport", "b".repeat(18_000)),
        };
        assert!(passes(&instead(line, &by)).len() > 18_000);
    }
    // A datagram and a WebSocket message are whole already; a stream would have to be held.
    let long = with(&[&format!("X: {}", "x".repeat(40_000))]);
    for (transport, is_refused) in
        [(Transport::Udp, false), (Transport::Wss, false), (Transport::Tcp, true)]
    {
        let Scene { mut lab, alice, core } = scene(transport);
        alice.send(&mut lab, &long);
        assert_eq!(core.take(&mut lab).len(), usize::from(!is_refused));
        let statuses: Vec<u16> = alice.take(&mut lab).iter().map(Sip::status).collect();
        assert_eq!(statuses, if is_refused { vec![513] } else { vec![] });
        lab.finish();
    }
}

#[test]
fn more_values_of_a_kind_than_are_walked() {
    let vias = vec!["SIP/2.0/UDP h;branch=z9hG4bKx"; 2 * VALUES_MAX].join(", ");
    let got = passes(&with(&[&format!("Via: {vias}")]));
    assert_eq!(got.matches("z9hG4bKx").count(), 2 * VALUES_MAX);
    let contacts = vec!["<sip:a@b.example>"; 2 * VALUES_MAX].join(",");
    refused(&with(&[&format!("Contact: {contacts}")]), "Too Many Header Field Values");
    let routes = vec!["<sip:192.0.2.1;lr>"; 2 * VALUES_MAX].join(",");
    refused(&with(&[&format!("Route: {routes}")]), "Too Many Header Field Values");
}
