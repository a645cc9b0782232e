//! The clients of these tests against a trivial server of their own, so that a failure elsewhere is
//! the proxy's.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use tungstenite::handshake::server::{Request, Response};

use super::support::certificates;
use super::support::link::Io;
use super::support::phone::{From, PATIENCE, PHONES};
use super::support::sip::{Frame, Message, param, response_to, split_values, uri_of};
use super::support::{Draft, Incoming, Phone, Transport};

/// Answers every request 200, over any transport; ends with its client.
fn answering(transport: Transport) -> SocketAddr {
    if transport == Transport::Udp {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let address = socket.local_addr().expect("address");
        std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                if &buffer[..length] == b"end" {
                    return;
                }
                let request = Message::parse(&buffer[..length]).expect("SIP");
                let answer = response_to(&request, 200, "fake").build();
                socket.send_to(&answer, from).expect("send");
            }
        });
        return address;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        let (tcp, _) = listener.accept().expect("accept");
        let tls = transport.is_secure().then(certificates::edge_server);
        let io = Io::accepted(tcp, tls);
        match transport.is_web() {
            false => serve_stream(io),
            true => serve_web(io),
        }
    });
    address
}

fn serve_stream(mut io: Io) {
    use std::io::{Read, Write};
    let (mut pending, mut buffer) = (Vec::new(), [0; 777]);
    loop {
        while let Some(request) = Message::take(&mut pending).expect("SIP") {
            io.write_all(&response_to(&request, 200, "fake").build()).expect("write");
            io.flush().expect("flush");
        }
        match io.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => pending.extend_from_slice(&buffer[..length]),
        }
    }
}

#[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
fn serve_web(io: Io) {
    let echo = |_: &Request, mut response: Response| {
        let sip = "sip".parse().expect("a header value");
        response.headers_mut().insert("Sec-WebSocket-Protocol", sip);
        Ok(response)
    };
    let Ok(mut socket) = tungstenite::accept_hdr(io, echo) else { return };
    while let Ok(message) = socket.read() {
        if message.is_close() {
            continue;
        }
        let request = Message::parse(&message.into_data()).expect("SIP");
        let answer = response_to(&request, 200, "fake").build();
        let answer = match std::str::from_utf8(&answer) {
            Ok(text) => tungstenite::Message::text(text),
            Err(_) => tungstenite::Message::binary(answer),
        };
        socket.send(answer).expect("send");
    }
}

#[test]
fn a_phone_talks_over_every_transport() {
    for transport in Transport::ALL {
        for tls12 in [false, true] {
            let address = answering(transport);
            let from = From { tls12, ..From::host(PHONES) };
            let mut phone = Phone::connect_to(transport, address, "alice", from);
            for body in ["", "x", "Grüße"] {
                let draft = phone.draft("MESSAGE", "sip:bob@example.com").body("text/plain", body);
                let answer = phone.ask(&draft);
                assert_eq!(answer.status(), 200);
                assert_eq!(answer.one("call-id"), draft.value("Call-ID"));
                assert_eq!(answer.values("via"), [draft.value("Via")]);
                assert_eq!(param(answer.one("to"), "tag"), Some("fake"));
                let frame = if transport.is_web() { Frame::Text } else { Frame::Bare };
                assert_eq!(answer.frame, frame);
            }
            phone.silent();
            phone.untouched();
            if transport == Transport::Udp {
                phone.send(b"end");
                continue;
            }
            phone.link().finish();
            let end = phone.incoming(PATIENCE);
            assert!(matches!(end, Some(Incoming::Closed)), "{end:?}");
        }
    }
}

#[test]
fn a_phone_may_reset_and_come_back_from_the_same_address() {
    for transport in [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let server = std::thread::spawn(move || {
            for _ in 0..2 {
                let (tcp, _) = listener.accept().expect("accept");
                let tls = transport.is_secure().then(certificates::edge_server);
                let io = Io::accepted(tcp, tls);
                if transport.is_web() { serve_web(io) } else { serve_stream(io) }
            }
        });
        let mut first = Phone::connect_to(transport, address, "alice", From::host(PHONES));
        assert_eq!(first.ask(&first.draft("OPTIONS", "sip:example.com")).status(), 200);
        let local = first.local;
        first.reset();
        let from = From { local, ..From::host(PHONES) };
        let mut second = Phone::connect_to(transport, address, "bob", from);
        assert_eq!(second.local, local);
        assert_eq!(second.ask(&second.draft("OPTIONS", "sip:example.com")).status(), 200);
        second.reset();
        server.join().expect("server");
    }
}

#[test]
fn a_server_phone_accepts_connections_and_answers_each_on_its_own() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let core = Phone::core(transport);
        let address = core.address;
        let mut core = core.connect_to(answering(transport), "core");
        let versions = [&rustls::version::TLS13];
        let clients = (0..2).map(|_| {
            let tcp = super::support::link::connect_tcp(From::host(PHONES).local, address, false);
            (tcp.expect("connect"), certificates::client(&versions))
        });
        let clients: Vec<_> = clients.collect();
        let threads: Vec<_> = clients
            .into_iter()
            .map(|(tcp, tls)| {
                std::thread::spawn(move || {
                    use std::io::Write;
                    let tls = (transport == Transport::Tls).then_some(tls);
                    let mut io = Io::connect(tcp, tls).expect("handshake");
                    let draft = Draft::new("OPTIONS sip:core@example.com SIP/2.0")
                        .with("Via", "SIP/2.0/TCP a;branch=z9hG4bK1")
                        .with("From", "<sip:a@b>;tag=1")
                        .with("To", "<sip:a@b>")
                        .with("Call-ID", super::support::sip::unique("c"))
                        .with("CSeq", "1 OPTIONS");
                    io.write_all(&draft.build()).expect("write");
                    let mut link = super::support::link::Link::stream(io);
                    match link.receive(std::time::Instant::now() + PATIENCE) {
                        Some(Incoming::Message(m)) => {
                            assert_eq!(m.one("call-id"), draft.value("Call-ID"))
                        }
                        other => panic!("{other:?}"),
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            core.serve("OPTIONS");
        }
        threads.into_iter().for_each(|thread| thread.join().expect("client"));
    }
}

#[test]
fn the_reader_reads_what_it_should() {
    assert_eq!(split_values("a, \"b, \\\" c\" <x,y>;p , d"), ["a", "\"b, \\\" c\" <x,y>;p", "d"]);
    assert_eq!(uri_of("\"A\" <sip:a@b;x=y>;z"), "sip:a@b;x=y");
    assert_eq!(uri_of("sip:a@b;x=y"), "sip:a@b");
    assert_eq!(param("<sip:a;tag=no>;Tag=yes", "tag"), Some("yes"));
    assert_eq!(param("SIP/2.0/UDP a;rport;branch=z", "rport"), Some(""));
    let draft =
        Draft::new("INFO sip:a SIP/2.0").with("X", "1\r\n 2").with("x", "3").body("a/b", "cd");
    let message = draft.message();
    assert_eq!(message.all("x").collect::<Vec<_>>(), ["1\r\n 2", "3"]);
    let mut buffer = [draft.build(), draft.build()].concat();
    let whole = buffer.len();
    for cut in 0..whole / 2 {
        assert!(Message::take(&mut buffer[..cut].to_vec()).expect("SIP").is_none());
    }
    assert!(Message::take(&mut buffer).expect("SIP").is_some());
    assert!(Message::take(&mut buffer).expect("SIP").is_some());
    assert!(buffer.is_empty());
}
