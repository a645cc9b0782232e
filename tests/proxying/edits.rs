//! What a forwarded message has that it had not, and what it has not any more; all else is equal
//! byte for byte.

use sipring::base::id::Transport;

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab};

struct Scene {
    lab: Lab,
    client: Phone,
    core: Phone,
}

fn scene(transport: Transport) -> Scene {
    let mut lab = Lab::new(2, lab::config());
    let client = Phone::connect(&mut lab, 0, transport, "203.0.113.5:40001");
    client.register(&mut lab, "alice", "<sip:a@aa.invalid;transport=ws>");
    let core = Phone::connect(&mut lab, 1, Transport::Udp, CORE);
    Scene { lab, client, core }
}

/// The bytes of the datagram that went to the server.
fn datagram(lab: &mut Lab) -> Vec<u8> {
    assert_eq!(lab.datagrams.len(), 1);
    lab.datagrams.pop_front().expect("one").1
}

#[test]
fn identities_of_clients_are_removed_and_those_of_servers_kept() {
    let lines = ["P-Asserted-Identity: <sip:boss@example.com>", "P-Preferred-Identity: <sip:b@b>"];
    for transport in Transport::ALL {
        let Scene { mut lab, client, core } = scene(transport);
        let mut draft = request(&client, "MESSAGE", "sip:9@example.com", "m").line("X-Last: 1");
        for line in lines.into_iter().chain(lines) {
            draft = draft.line(line);
        }
        client.send(&mut lab, &draft.text());
        let got = core.take_method(&mut lab, "MESSAGE");
        assert_eq!(
            (got.find("P-Asserted-Identity"), got.find("P-Preferred-Identity")),
            (None, None)
        );
        assert_eq!(got.header("X-Last"), "1");
        core.send(&mut lab, &got.response(200, "c", &lines));
        let answer = client.take_status(&mut lab, 200);
        assert_eq!(answer.header("P-Asserted-Identity"), "<sip:boss@example.com>");

        let draft = request(&core, "MESSAGE", "sip:alice@example.com", "n").line(lines[0]);
        core.send(&mut lab, &draft.text());
        let got = client.take_method(&mut lab, "MESSAGE");
        assert_eq!(got.header("P-Asserted-Identity"), "<sip:boss@example.com>");
        client.send(&mut lab, &got.response(200, "c", &lines));
        let answer = core.take_status(&mut lab, 200);
        assert_eq!(answer.find("P-Asserted-Identity"), None, "RFC 3325 §5: any message");
        assert_eq!(answer.find("P-Preferred-Identity"), None);
        lab.finish();
    }
}

#[test]
fn the_senders_via_tells_where_it_came_from() {
    let table = [
        ("203.0.113.5:40001;branch=z9hG4bKa", "203.0.113.5:40001;branch=z9hG4bKa"),
        ("10.0.0.9:5060;branch=z9hG4bKa", "10.0.0.9:5060;branch=z9hG4bKa;received=203.0.113.5"),
        ("a.b;branch=z9hG4bKa;rport", "a.b;branch=z9hG4bKa;rport=40001;received=203.0.113.5"),
        ("a.b;rport;branch=z9hG4bKa", "a.b;rport=40001;branch=z9hG4bKa;received=203.0.113.5"),
        ("a.b;received=1.2.3.4;branch=z9hG4bKa", "a.b;received=203.0.113.5;branch=z9hG4bKa"),
    ];
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        for (sent, seen) in table {
            let Scene { mut lab, client, core } = scene(transport);
            let via = format!("Via: SIP/2.0/{} {sent}", transport.via_name());
            let draft = request(&client, "MESSAGE", "sip:9@example.com", "m");
            client.send(&mut lab, &draft.vias(&[&via]).text());
            let got = core.take_method(&mut lab, "MESSAGE");
            let below = got.all("Via").nth(1).expect("the sender's");
            assert_eq!(below, format!("SIP/2.0/{} {seen}", transport.via_name()));
            lab.finish();
        }
    }
    for transport in [Transport::Ws, Transport::Wss] {
        let Scene { mut lab, client, core } = scene(transport);
        let via = format!("Via: SIP/2.0/{} x.invalid;branch=z9hG4bKa;rport", transport.via_name());
        let draft = request(&client, "MESSAGE", "sip:9@example.com", "m");
        client.send(&mut lab, &draft.vias(&[&via]).text());
        let got = core.take_method(&mut lab, "MESSAGE");
        assert_eq!(format!("Via: {}", got.all("Via").nth(1).expect("two")), via);
        lab.finish();
    }
}

#[test]
fn answers_over_udp_go_where_the_via_says() {
    let table = [
        ("10.0.0.9:5099;branch=z9hG4bKa;rport", "203.0.113.5:40001"),
        ("10.0.0.9:5099;branch=z9hG4bKa", "203.0.113.5:5099"),
        ("10.0.0.9;branch=z9hG4bKa", "203.0.113.5:5060"),
        ("10.0.0.9:5099;maddr=203.0.113.5;branch=z9hG4bKa", "203.0.113.5:5099"),
        ("10.0.0.9:5099;maddr=203.0.113.77;branch=z9hG4bKa;rport", "203.0.113.5:40001"),
    ];
    for (sent, to) in table {
        let Scene { mut lab, client, .. } = scene(Transport::Udp);
        let draft = request(&client, "MESSAGE", "sip:nobody@example.com", "m");
        client.send(&mut lab, &draft.vias(&[&format!("Via: SIP/2.0/UDP {sent}")]).text());
        let answers = lab.datagrams_to(to.parse().expect("an address"));
        assert_eq!(answers.len(), 1, "{sent} {:?}", lab.datagrams);
        assert!(lab.datagrams.is_empty());
        lab.finish();
    }
}

#[test]
fn what_is_absent_is_added_where_it_is_needed() {
    for from in Transport::ALL {
        let Scene { mut lab, client, core } = scene(from);
        let draft = request(&client, "MESSAGE", "sip:9@example.com", "m").max_forwards(None);
        client.send(&mut lab, &draft.text());
        let got = core.take_method(&mut lab, "MESSAGE");
        assert_eq!(got.header("Max-Forwards"), "70");
        // Without Content-Length: allowed in datagrams and WebSocket messages, not on streams.
        let bare = |text: String| text.replacen("Content-Length: 0\r\n", "", 1);
        core.send(&mut lab, &bare(got.response(200, "c", &["X: y"])));
        let answer = client.take_status(&mut lab, 200);
        let told = answer.find("Content-Length");
        assert!(from == Transport::Udp || told == Some("0"), "{answer:#?}");
        let draft = request(&core, "MESSAGE", "sip:alice@example.com", "n").body("hello");
        core.send(&mut lab, &draft.text().replacen("Content-Length: 5\r\n", "", 1));
        let got = client.take_method(&mut lab, "MESSAGE");
        assert!(from == Transport::Udp || got.find("Content-Length") == Some("5"), "{got:#?}");
        assert_eq!(got.body, b"hello");
        lab.finish();
    }
}

#[test]
fn bytes_that_are_not_ours_to_change_stay_as_they_are() {
    let Scene { mut lab, client, .. } = scene(Transport::Tcp);
    let odd = "Subject: first\r\n second\r\n\tthird \r\nX-Odd!Name:  a ,b\r\ns: short\r\n\
ACCEPT: a/b,c/d ; q=0.5\r\nAccept:e/f\r\nX-Empty:\r\nX-Utf: h\u{e9}\r\n";
    let head = |method: &str| {
        format!(
            "{method} sip:9@example.com SIP/2.0\r\nv: SIP/2.0/TCP a.invalid;branch=z9hG4bKm{method}\r\n\
MAX-FORWARDS:70\r\n{odd}f: <sip:a@b>;tag=1\r\nt: <sip:9@example.com>\r\ni: odd{method}\r\n\
CSeq: 1 {method}\r\nl: 6\r\nc: application/x\r\n\r\n"
        )
    };
    for method in ["MESSAGE", "FOO", "x-y.z%!*", "message"] {
        let mut message = head(method).into_bytes();
        message.extend_from_slice(b"\xff\x00\xfe\r\n\x80");
        client.send_bytes(&mut lab, &message);
        let got = datagram(&mut lab);
        let shown = String::from_utf8_lossy(&got).into_owned();
        assert!(got.ends_with(b"c: application/x\r\n\r\n\xff\x00\xfe\r\n\x80"), "{shown}");
        assert!(shown.contains(odd), "{shown}");
        assert!(shown.contains("\r\nMAX-FORWARDS:69\r\n"), "{shown}");
        assert!(shown.starts_with(&format!("{method} sip:9@example.com SIP/2.0\r\n")), "{shown}");
    }
    lab.finish();
}

#[test]
fn a_body_that_is_no_text_reaches_a_browser_in_a_binary_frame() {
    for transport in [Transport::Ws, Transport::Wss] {
        let Scene { mut lab, client, core } = scene(transport);
        let draft = request(&core, "MESSAGE", "sip:alice@example.com", "m").body("a?b");
        let bytes: Vec<u8> =
            draft.text().bytes().map(|byte| if byte == b'?' { 0xff } else { byte }).collect();
        core.send_bytes(&mut lab, &bytes);
        let wire = std::mem::take(&mut lab.wire(client.flow.expect("one")).bytes);
        let frames = lab::phone::frames(&wire);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].0, 0x2, "binary: a browser fails the connection otherwise");
        assert!(frames[0].1.ends_with(b"a\xffb"));
        core.send(&mut lab, &request(&core, "MESSAGE", "sip:alice@example.com", "n").text());
        let wire = std::mem::take(&mut lab.wire(client.flow.expect("one")).bytes);
        assert_eq!(lab::phone::frames(&wire)[0].0, 0x1, "text, as the client sends");
        lab.finish();
    }
}

#[test]
fn several_values_on_a_line_are_taken_one_by_one() {
    for joined in [true, false] {
        let Scene { mut lab, client, core } = scene(Transport::Wss);
        let draft = request(&client, "MESSAGE", "sip:9@example.com", "m");
        let own = ["<sip:192.0.2.1:8443;transport=ws;lr>", "<sip:example.com;lr>"];
        let route = if joined { vec![own.join(" ,\r\n ")] } else { own.map(String::from).to_vec() };
        client.send(&mut lab, &draft.route(&route).text());
        let got = core.take_method(&mut lab, "MESSAGE");
        assert_eq!(got.find("Route"), None);
        let two =
            "SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bKx;rport, SIP/2.0/TCP a;branch=z9hG4bKy";
        let draft = request(&core, "MESSAGE", "sip:alice@example.com", "n");
        core.send(&mut lab, &draft.vias(&[&format!("Via: {two}")]).text());
        let got = client.take_method(&mut lab, "MESSAGE");
        let below = got.all("Via").nth(1).expect("what was sent");
        assert!(below.ends_with(", SIP/2.0/TCP a;branch=z9hG4bKy"), "{below}");
        client.send(&mut lab, &got.response(200, "c", &[]));
        let answer = core.take_status(&mut lab, 200);
        assert_eq!(answer.header("Via"), below);
        lab.finish();
    }
}

#[test]
fn our_via_is_taken_off_wherever_it_stands_on_its_line() {
    let Scene { mut lab, client, core } = scene(Transport::Wss);
    core.send(&mut lab, &request(&core, "MESSAGE", "sip:alice@example.com", "n").text());
    let got = client.take_method(&mut lab, "MESSAGE");
    let vias: Vec<&str> = got.all("Via").collect();
    let joined = format!("v: {}", vias.join(","));
    let answer = got.response(200, "c", &[&joined]);
    let lines: Vec<&str> = answer.split("\r\n").filter(|line| !line.starts_with("Via:")).collect();
    client.send(&mut lab, &lines.join("\r\n"));
    let answer = core.take_status(&mut lab, 200);
    assert_eq!(answer.header("v"), vias[1]);
    lab.finish();
}
