//! The floor against scripted clients: what it is told to move arrives at whom it is for, whole, on
//! every transport, and at nobody else.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tungstenite::{ClientRequestBuilder, Message, WebSocket};

/// How long something that must come may take; and how long nothing may come.
const PATIENCE: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_millis(100);

type Tls = StreamOwned<ClientConnection, TcpStream>;

struct Floor {
    child: Child,
    addresses: Vec<(String, SocketAddr)>,
    certificate: CertificateDer<'static>,
    _files: tempfile::TempDir,
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Floor {
    fn start() -> Floor {
        let files = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sipring-floor"));
        for transport in ["--wss", "--ws", "--tls", "--tcp", "--udp"] {
            command.args([transport, "127.0.0.1:0"]);
        }
        command.arg("--cert").arg(cert).arg("--key").arg(key).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addresses = lines
            .map(|line| line.unwrap())
            .take_while(|line| line != "ready")
            .map(|line| {
                let (transport, address) = line.split_once(' ').unwrap();
                (transport.to_owned(), address.parse().unwrap())
            })
            .collect();
        Floor { child, addresses, certificate: made.cert.der().clone(), _files: files }
    }

    fn address(&self, transport: &str) -> SocketAddr {
        self.addresses.iter().find(|(name, _)| name == transport).unwrap().1
    }

    fn tcp(&self, transport: &str) -> TcpStream {
        let stream = TcpStream::connect(self.address(transport)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn tls(&self, transport: &str) -> Tls {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::from(self.address(transport).ip());
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        StreamOwned::new(session, self.tcp(transport))
    }

    fn wss(&self, number: u32) -> WebSocket<Tls> {
        upgrade(self.tls("wss"), number)
    }

    fn udp(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.address("udp")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

fn upgrade<S: Read + Write>(stream: S, number: u32) -> WebSocket<S> {
    let uri = format!("ws://127.0.0.1/u{number:07}").parse().unwrap();
    let request = ClientRequestBuilder::new(uri).with_sub_protocol("sip");
    tungstenite::client(request, stream).expect("the upgrade succeeds").0
}

fn next<S: Read + Write>(client: &mut WebSocket<S>) -> String {
    client.read().unwrap().into_text().unwrap().as_str().to_owned()
}

fn request(method: &str, to: Option<u32>, transport: &str, from: u32, body: &str) -> String {
    let user = to.map_or(String::new(), |to| format!("u{to:07}@"));
    format!(
        "{method} sip:{user}example.com SIP/2.0\r\n\
         Via: SIP/2.0/{transport} u{from:07}.invalid;branch=z9hG4bK{from};rport\r\n\
         From: <sip:u{from:07}@example.com>;tag=f\r\nTo: <sip:{user}example.com>\r\n\
         Call-ID: c{from}\r\nCSeq: 1 {method}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The response to a request as it arrived: its Vias, in order.
fn response(request: &str) -> String {
    let vias = request.lines().filter(|line| line.starts_with("Via: "));
    let vias: String = vias.map(|line| format!("{line}\r\n")).collect();
    format!("SIP/2.0 200 OK\r\n{vias}CSeq: 1 X\r\nContent-Length: 0\r\n\r\n")
}

#[test]
fn a_message_finds_its_client_over_wss_and_its_response_the_way_back() {
    let floor = Floor::start();
    let (mut a, mut b) = (floor.wss(1), floor.wss(2));
    a.send(Message::text(request("REGISTER", None, "WSS", 1, ""))).unwrap();
    assert!(next(&mut a).starts_with("SIP/2.0 200 OK\r\nVia: SIP/2.0/WSS u0000001.invalid;"));
    // Longer than a receive buffer and a short frame; a TLS record of its own in several pieces.
    let body = "x".repeat(5000);
    let sent = request("MESSAGE", Some(2), "WSS", 1, &body);
    a.send(Message::text(sent.clone())).unwrap();
    let got = next(&mut b);
    assert!(got.starts_with("MESSAGE sip:u0000002@example.com SIP/2.0\r\nVia: SIP/2.0/FLR "));
    assert!(got.ends_with(&body) && got.len() > sent.len());
    b.send(Message::text(response(&got))).unwrap();
    let back = next(&mut a);
    assert_eq!(back.matches("Via: ").count(), 1);
    assert!(back.starts_with("SIP/2.0 200 OK\r\nVia: SIP/2.0/WSS u0000001.invalid;"));
    a.send(Message::Ping("p".into())).unwrap();
    assert_eq!(a.read().unwrap(), Message::Pong("p".into()));
    a.close(None).unwrap();
    while a.read().is_ok() {}
    assert!(!a.can_read());
}

#[test]
fn a_call_from_udp_is_told_to_wait_and_found_by_number() {
    let floor = Floor::start();
    let udp = floor.udp();
    let mut b = upgrade(floor.tcp("ws"), 3);
    let mut bytes = [0; 2048];
    let mut receive = || {
        let length = udp.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    udp.send(request("INVITE", Some(3), "UDP", 9_000_000, "v=0").as_bytes()).unwrap();
    assert!(receive().starts_with("SIP/2.0 100 Trying\r\nVia: SIP/2.0/UDP u9000000.invalid;"));
    let got = next(&mut b);
    b.send(Message::text(response(&got))).unwrap();
    assert!(receive().starts_with("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP u9000000.invalid;"));
    b.send(Message::text(request("BYE", Some(9_000_000), "WS", 3, ""))).unwrap();
    assert!(receive().starts_with("BYE sip:u9000000@example.com SIP/2.0\r\nVia: SIP/2.0/FLR "));
    udp.send(request("OPTIONS", None, "UDP", 9_000_000, "").as_bytes()).unwrap();
    assert!(receive().contains("\r\nAllow: "));
}

#[test]
fn streams_are_cut_wherever_they_are_torn() {
    let floor = Floor::start();
    let mut a = floor.tcp("tcp");
    let mut b = floor.tls("tls");
    let register = request("REGISTER", None, "TLS", 5, "");
    b.write_all(register.as_bytes()).unwrap();
    assert!(read_message(&mut b).starts_with("SIP/2.0 200 OK\r\n"));
    let both = request("MESSAGE", Some(5), "TCP", 4, "one")
        + &request("MESSAGE", Some(5), "TCP", 4, "two");
    for piece in both.as_bytes().chunks(97) {
        a.write_all(piece).unwrap();
    }
    let first = read_message(&mut b);
    assert!(first.ends_with("\r\n\r\none"), "{first}");
    assert!(read_message(&mut b).ends_with("\r\n\r\ntwo"));
    b.write_all(response(&first).as_bytes()).unwrap();
    assert!(read_message(&mut a).starts_with("SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP u0000004."));
}

#[test]
fn a_number_that_has_left_is_nobody_even_when_its_place_is_taken() {
    let floor = Floor::start();
    let mut a = floor.wss(10);
    let mut b = floor.wss(11);
    b.close(None).unwrap();
    while b.read().is_ok() {}
    b.get_mut().sock.shutdown(std::net::Shutdown::Both).unwrap();
    let mut c = floor.wss(12);
    a.send(Message::text(request("MESSAGE", Some(11), "WSS", 10, "lost"))).unwrap();
    a.send(Message::text(request("MESSAGE", Some(12), "WSS", 10, "found"))).unwrap();
    assert!(next(&mut c).ends_with("found"));
    c.get_mut().sock.set_read_timeout(Some(SILENCE)).unwrap();
    match c.read() {
        Err(tungstenite::Error::Io(error)) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        other => panic!("{other:?}"),
    }
    // The newest connection of a number has it; the end of an older one changes nothing.
    let mut newer = floor.wss(12);
    drop(c);
    a.send(Message::text(request("MESSAGE", Some(12), "WSS", 10, "again"))).unwrap();
    assert!(next(&mut newer).ends_with("again"));
}

#[test]
fn who_ends_tcp_without_a_word_is_told_the_end_of_tls() {
    let floor = Floor::start();
    let mut a = floor.tls("tls");
    a.write_all(request("REGISTER", None, "TLS", 6, "").as_bytes()).unwrap();
    assert!(read_message(&mut a).starts_with("SIP/2.0 200 OK\r\n"));
    a.sock.shutdown(std::net::Shutdown::Write).unwrap();
    // Without close_notify this would be an UnexpectedEof.
    assert_eq!(a.read(&mut [0]).unwrap(), 0);
}

/// One message with a body of three bytes or none.
fn read_message(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut one = [0];
        stream.read_exact(&mut one).unwrap();
        bytes.push(one[0]);
    }
    let mut text = String::from_utf8(bytes).unwrap();
    if text.contains("Content-Length: 3\r\n") {
        let mut body = [0; 3];
        stream.read_exact(&mut body).unwrap();
        text.push_str(str::from_utf8(&body).unwrap());
    }
    text
}
