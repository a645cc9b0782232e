//! WebSocket frames, byte by byte (RFC 6455 §5 to §7, RFC 7118 §5).

use super::support::raw::{Raw, RawFrame, frame};
use super::support::sip::unique;
use super::support::{Draft, Message, Server, Setup, Transport};

fn options() -> Draft {
    Draft::new("OPTIONS sip:example.com SIP/2.0")
        .with("Via", format!("SIP/2.0/WS h.invalid;branch={}", unique("z9hG4bK")))
        .with("Max-Forwards", "70")
        .with("From", "<sip:raw@example.com>;tag=1")
        .with("To", "<sip:example.com>")
        .with("Call-ID", unique("raw"))
        .with("CSeq", "1 OPTIONS")
}

#[track_caller]
fn sip_status(frame: Option<RawFrame>) -> u16 {
    let frame = frame.expect("a frame");
    assert_eq!(frame.head, 0x81, "one unfragmented text frame: {frame:?}");
    Message::parse(&frame.payload).expect("SIP").status()
}

fn each(act: impl Fn(&Server, Transport)) {
    let server =
        Setup::new().limit("message_bytes_max", "16384").limit("header_bytes_max", "8192").start();
    for transport in [Transport::Ws, Transport::Wss] {
        act(&server, transport);
    }
}

#[test]
fn a_message_may_come_in_fragments_with_control_frames_between() {
    each(|server, transport| {
        let mut raw = Raw::upgraded(transport, server);
        let bytes = options().build();
        let third = bytes.len() / 3;
        raw.write(&frame(0x01, &bytes[..third]));
        raw.write(&frame(0x89, b"are you there"));
        raw.write(&frame(0x00, &bytes[third..2 * third]));
        raw.write(&frame(0x8a, b"unasked pong"));
        raw.write(&frame(0x00, b""));
        raw.write(&frame(0x80, &bytes[2 * third..]));
        let pong = raw.frame().expect("pong");
        assert_eq!(pong, RawFrame { head: 0x8a, payload: b"are you there".to_vec() });
        assert_eq!(sip_status(raw.frame()), 200);
    });
}

#[test]
fn a_message_may_come_byte_by_byte() {
    each(|server, transport| {
        let mut raw = Raw::upgraded(transport, server);
        for byte in frame(0x81, &options().build()) {
            raw.write(&[byte]);
        }
        assert_eq!(sip_status(raw.frame()), 200);
    });
}

#[test]
fn many_messages_may_come_at_once() {
    each(|server, transport| {
        let mut raw = Raw::upgraded(transport, server);
        let all: Vec<u8> = (0..40).flat_map(|_| frame(0x81, &options().build())).collect();
        raw.write(&all);
        for _ in 0..40 {
            assert_eq!(sip_status(raw.frame()), 200);
        }
    });
}

#[test]
fn a_binary_frame_is_as_good_as_a_text_frame() {
    each(|server, transport| {
        let mut raw = Raw::upgraded(transport, server);
        raw.write(&frame(0x82, &options().build()));
        let answer = raw.frame().expect("answer");
        assert!(
            answer.head == 0x81 || answer.head == 0x82,
            "text or binary, as the client: {answer:?}"
        );
        assert_eq!(Message::parse(&answer.payload).expect("SIP").status(), 200);
    });
}

#[test]
fn a_crlf_keep_alive_is_answered_with_one_crlf() {
    each(|server, transport| {
        let mut raw = Raw::upgraded(transport, server);
        raw.write(&frame(0x81, b"\r\n\r\n"));
        assert_eq!(raw.frame(), Some(RawFrame { head: 0x81, payload: b"\r\n".to_vec() }));
        raw.write(&frame(0x81, &options().build()));
        assert_eq!(sip_status(raw.frame()), 200);
    });
}

#[test]
fn what_breaks_the_protocol_closes_with_1002() {
    let mut unmasked = vec![0x81, 5];
    unmasked.extend_from_slice(b"hello");
    let rows: [(&str, Vec<u8>); 8] = [
        ("unmasked", unmasked),
        ("reserved bit", frame(0xc1, b"x")),
        ("reserved opcode", frame(0x83, b"x")),
        ("reserved control opcode", frame(0x8b, b"x")),
        ("long ping", frame(0x89, &[b'p'; 126])),
        ("fragmented ping", frame(0x09, b"x")),
        ("continuation of nothing", frame(0x80, b"x")),
        ("new message within a message", [frame(0x01, b"a"), frame(0x81, b"b")].concat()),
    ];
    each(|server, transport| {
        for (what, bytes) in &rows {
            let mut raw = Raw::upgraded(transport, server);
            raw.write(bytes);
            eprintln!("{what}");
            raw.closed(1002);
        }
    });
}

#[test]
fn text_that_is_not_utf8_closes_with_1007() {
    each(|server, transport| {
        let bytes = options().body("text/plain", b"\xff\xfe".to_vec()).build();
        let mut raw = Raw::upgraded(transport, server);
        raw.write(&frame(0x81, &bytes));
        raw.closed(1007);
        let mut raw = Raw::upgraded(transport, server);
        raw.write(&frame(0x01, &bytes[..10]));
        raw.write(&frame(0x80, &bytes[10..]));
        raw.closed(1007);
        // A character cut in two by a fragment is fine, and so are such bytes in a binary frame.
        let bytes = options().body("text/plain", "Grüße").build();
        let cut = bytes.len() - 5;
        assert!(!bytes[cut].is_ascii());
        let mut raw = Raw::upgraded(transport, server);
        raw.write(&frame(0x01, &bytes[..=cut]));
        raw.write(&frame(0x80, &bytes[cut + 1..]));
        assert_eq!(sip_status(raw.frame()), 200);
    });
}

#[test]
fn what_is_too_big_closes_with_1009() {
    each(|server, transport| {
        // The announcement is enough: nothing of it needs to come.
        for announced in
            [&[0x82u8, 0xff, 0, 0, 0, 1, 0, 0, 0, 0][..], &[0x82, 0xfe, 0xff, 0xff][..]]
        {
            let mut raw = Raw::upgraded(transport, server);
            raw.write(&[announced, &[1, 2, 3, 4]].concat());
            raw.closed(1009);
        }
        let mut raw = Raw::upgraded(transport, server);
        let part = vec![b'x'; 8000];
        raw.write(&frame(0x01, &part));
        raw.write(&frame(0x00, &part));
        raw.write(&frame(0x00, &part));
        raw.closed(1009);
    });
}

#[test]
fn a_close_is_answered_with_a_close() {
    each(|server, transport| {
        let mut raw = Raw::upgraded(transport, server);
        raw.write(&frame(0x88, &[&1000u16.to_be_bytes()[..], b"bye"].concat()));
        raw.closed(1000);
        let mut raw = Raw::upgraded(transport, server);
        raw.write(&frame(0x88, b""));
        let close = raw.frame().expect("close");
        assert_eq!(close.head, 0x88);
        raw.ended();
    });
}

#[test]
fn content_length_must_agree_with_the_frame_if_it_is_there() {
    each(|server, transport| {
        let mut raw = Raw::upgraded(transport, server);
        raw.write(&frame(0x81, &options().without_length().build()));
        assert_eq!(sip_status(raw.frame()), 200);
        for wrong in ["1", "3", "9999"] {
            let mut bytes = options().without_length().with("Content-Length", wrong).build();
            bytes.extend_from_slice(b"ab");
            raw.write(&frame(0x81, &bytes));
            assert_eq!(sip_status(raw.frame()), 400, "Content-Length {wrong} and two bytes");
        }
    });
}
