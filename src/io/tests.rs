//! The driver over real loopback sockets, with a protocol that echoes: what must hold of every
//! flow, whatever SIP does with it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::testing::{FLOOD_PIECE, Running, config};
use crate::base::config::Config;
use crate::base::id::{ShardId, Transport};

const LOCAL: &str = "127.0.0.1:0";

fn tcp() -> Config {
    config(&[(Transport::Tcp, LOCAL)])
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn ask(stream: &mut (impl Read + Write), order: &[u8]) -> String {
    stream.write_all(order).unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap().trim().to_owned()
}

#[test]
fn bytes_come_back_and_the_peers_end_is_seen() {
    let running = Running::start(tcp(), 1);
    let mut stream = connect(running.address(0));
    for length in [1, 2047, 2048, 2049, 100_000] {
        let sent: Vec<u8> = (0..length).map(|index| (index % 50) as u8).collect();
        let mut writer = stream.try_clone().unwrap();
        let copy = sent.clone();
        let thread = std::thread::spawn(move || writer.write_all(&copy).unwrap());
        let mut got = vec![0; length];
        stream.read_exact(&mut got).unwrap();
        thread.join().unwrap();
        assert!(got == sent, "{length} bytes differ");
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
    running.await_counter("flows_closed", 1);
    assert_eq!(running.counter("closes_forced"), 0);
    running.stop().unwrap();
}

#[test]
fn the_round_trip_of_a_flow_is_told() {
    let running = Running::start(tcp(), 1);
    let mut stream = connect(running.address(0));
    let answer = ask(&mut stream, b"m");
    let took: u32 = answer.strip_prefix("took ").expect(&answer).parse().unwrap();
    assert!((1..1_000_000).contains(&took), "{answer}");
    drop(stream);
    running.stop().unwrap();
}

#[test]
fn a_slow_reader_gets_everything_in_the_end() {
    let running = Running::start(tcp(), 1);
    let mut stream = connect(running.address(0));
    const PIECES: usize = 200;
    stream.write_all(format!("f{PIECES}").as_bytes()).unwrap();
    // Long enough for the kernel's buffers to be full: the send is pending then.
    std::thread::sleep(Duration::from_millis(300));
    let mut other = connect(running.address(0));
    assert!(ask(&mut other, b"s").starts_with('0'), "others are served meanwhile");
    let mut piece = vec![0; FLOOD_PIECE];
    for number in (1..=PIECES).rev() {
        stream.read_exact(&mut piece).unwrap();
        assert!(piece.iter().all(|&byte| byte == number as u8), "piece {number} differs");
    }
    assert_eq!(running.counter("flows_closed_slow"), 0);
    running.stop().unwrap();
}

#[test]
fn a_reader_that_never_reads_is_closed_after_the_write_timeout() {
    let mut config = tcp();
    config.limits.write_timeout = Duration::from_millis(300);
    let running = Running::start(config, 1);
    let mut stream = connect(running.address(0));
    stream.write_all(b"f1000").unwrap();
    running.await_counter("flows_closed_slow", 1);
    let error = std::io::copy(&mut stream, &mut std::io::sink()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(running.counter("closes_forced"), 0);
    running.stop().unwrap();
}

#[test]
fn queued_data_goes_out_before_the_close() {
    let running = Running::start(tcp(), 1);
    for round in 0..20u8 {
        let mut stream = connect(running.address(0));
        let mut order = vec![b'q'];
        order.extend_from_slice(&[round; 1500]);
        stream.write_all(&order).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert_eq!(got, [round; 1500]);
    }
    running.stop().unwrap();
}

/// With room for one flow only, the next is taken as soon as the one before has let go of its slot.
#[test]
fn peers_that_do_not_cooperate_cannot_hold_a_slot() {
    let mut config = tcp();
    config.limits.flows_max = 1;
    let running = Running::start(config, 1);
    let await_room = || {
        let start = Instant::now();
        loop {
            let mut stream = connect(running.address(0));
            let mut answer = [0; 4];
            if stream.write_all(b"echo").is_ok() && stream.read_exact(&mut answer).is_ok() {
                return (stream, start.elapsed());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let (mut never_closes, _) = await_room();
    never_closes.write_all(b"qbye").unwrap();
    never_closes.read_exact(&mut [0; 3]).unwrap();
    assert_eq!(never_closes.read(&mut [0; 1]).unwrap(), 0, "our side is shut at once");
    let (mut never_reads, waited) = await_room();
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    assert_eq!(running.counter("closes_forced"), 0);
    never_reads.write_all(b"f500").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    never_reads.write_all(b"q").unwrap();
    let (_, waited) = await_room();
    assert!(waited > Duration::from_secs(3) && waited < Duration::from_secs(9), "{waited:?}");
    running.await_counter("closes_forced", 1);
    running.stop().unwrap();
}

#[test]
fn a_reset_ends_the_flow_and_nothing_else() {
    let running = Running::start(tcp(), 1);
    let mut other = connect(running.address(0));
    ask(&mut other, b"s");
    for _ in 0..10 {
        let mut stream = connect(running.address(0));
        ask(&mut stream, b"s");
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    running.await_counter("flows_closed", 10);
    assert!(ask(&mut other, b"s").starts_with('0'));
    running.stop().unwrap();
}

/// Descriptor and slot reuse: each client writes its own letter only and must never see another's,
/// although connections come and go all the time, some with data under way to them.
#[test]
fn a_reused_descriptor_never_gets_bytes_of_its_predecessor() {
    let running = Running::start(tcp(), 1);
    let address = running.address(0);
    let clients = (0..4u8).map(|client| {
        std::thread::spawn(move || {
            for round in 0..150u32 {
                let letter = b'A' + client + 4 * (round % 5) as u8;
                let mut stream = connect(address);
                stream.write_all(&[letter; 4000]).unwrap();
                let mut got = vec![0; if round % 3 == 0 { 4000 } else { 100 }];
                stream.read_exact(&mut got).unwrap();
                assert!(got.iter().all(|&byte| byte == letter), "round {round}");
                if round % 2 == 0 {
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                }
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    running.await_counter("flows_closed", 600);
    assert_eq!(running.counter("completions_stale"), 0);
    running.stop().unwrap();
}

#[test]
fn datagrams_of_every_size_come_back_from_where_they_went() {
    let listeners = [
        (Transport::Udp, "127.0.0.1:0"),
        (Transport::Udp, "0.0.0.0:0"),
        (Transport::Udp, "[::1]:0"),
        (Transport::Udp, "[::]:0"),
    ];
    let running = Running::start(config(&listeners), 2);
    let reached = ["127.0.0.1", "127.0.0.5", "::1", "::1"];
    for (listener, ip) in reached.into_iter().enumerate() {
        let to = SocketAddr::new(ip.parse().unwrap(), running.address(listener).port());
        let socket = UdpSocket::bind(if to.is_ipv4() { LOCAL } else { "[::1]:0" }).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut got = vec![0; 70_000];
        socket.send_to(b"hello", to).unwrap();
        let (length, from) = socket.recv_from(&mut got).unwrap();
        assert_eq!(from, to, "answered from the address that was asked");
        assert_eq!(&got[..length], format!("{to} hello").as_bytes());
        for size in [1940, 2048, 5000, 65_000] {
            let sent: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
            socket.send_to(&sent, to).unwrap();
            let (length, _) = socket.recv_from(&mut got).unwrap();
            assert!(got[..length] == sent, "{size} bytes differ");
        }
        socket.send_to(&vec![1; if to.is_ipv4() { 65_507 } else { 65_487 }], to).unwrap();
        assert_eq!(socket.recv_from(&mut got).unwrap().0, FLOOD_PIECE - 100);
    }
    assert_eq!(running.counter("datagrams_truncated"), 0);
    running.stop().unwrap();
}

#[test]
fn two_shards_answer_each_other() {
    let running = Running::start(tcp(), 2);
    // The kernel spreads connections by their source port: both shards get some.
    let mut streams: Vec<TcpStream> = (0..64).map(|_| connect(running.address(0))).collect();
    let mut seen = [false; 2];
    for stream in &mut streams {
        let shard: usize = ask(stream, b"s").split(' ').next().unwrap().parse().unwrap();
        seen[shard] = true;
        for _ in 0..20 {
            assert_eq!(ask(stream, b"l"), format!("linked from {}", 1 - shard));
        }
    }
    assert_eq!(seen, [true; 2]);
    running.stop().unwrap();
}

#[test]
fn outgoing_connections_open_or_fail() {
    let running = Running::start(tcp(), 1);
    let mut stream = connect(running.address(0));
    let there = TcpListener::bind(LOCAL).unwrap();
    let address = there.local_addr().unwrap();
    assert_eq!(ask(&mut stream, format!("c{address}").as_bytes()), format!("opened tcp {address}"));
    let (mut far, _) = there.accept().unwrap();
    assert_eq!(ask(&mut far, b""), "hello from afar");
    assert_eq!(ask(&mut far, b"echoed\n"), "echoed");
    drop(there);
    assert_eq!(ask(&mut stream, format!("c{address}").as_bytes()), "failed");
    running.stop().unwrap();
}

#[test]
fn an_outgoing_handshake_that_hangs_fails_after_the_connect_timeout() {
    let mut config = tcp();
    config.limits.connect_timeout = Duration::from_millis(200);
    let running = Running::start(config, 1);
    let mut stream = connect(running.address(0));
    let silent = TcpListener::bind(LOCAL).unwrap();
    let order = format!("ctls:{}", silent.local_addr().unwrap());
    let start = Instant::now();
    assert_eq!(ask(&mut stream, order.as_bytes()), "failed");
    assert!(start.elapsed() < Duration::from_secs(5));
    running.stop().unwrap();
}

/// A client that verifies nothing: what is tried here is the driver.
mod trusting {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::CryptoProvider;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub struct Anybody(pub CryptoProvider);

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

type SecureStream = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

fn connect_secure(address: SocketAddr) -> SecureStream {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trusting::Anybody(provider)))
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    rustls::StreamOwned::new(client, connect(address))
}

#[test]
fn tls_carries_both_ways_and_says_goodbye() {
    let running = Running::start(config(&[(Transport::Tls, LOCAL)]), 1);
    let mut stream = connect_secure(running.address(0));
    assert!(ask(&mut stream, b"s").starts_with('0'));
    for length in [1, 16_384, 50_000] {
        let sent: Vec<u8> = (0..length).map(|index| (index % 50) as u8).collect();
        stream.write_all(&sent).unwrap();
        let mut got = vec![0; length];
        stream.read_exact(&mut got).unwrap();
        assert!(got == sent, "{length} bytes differ");
    }
    const PIECES: usize = 60;
    stream.write_all(format!("f{PIECES}").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let mut piece = vec![0; FLOOD_PIECE];
    for number in (1..=PIECES).rev() {
        stream.read_exact(&mut piece).unwrap();
        assert!(piece.iter().all(|&byte| byte == number as u8), "piece {number} differs");
    }
    stream.write_all(b"qgoodbye").unwrap();
    let mut rest = Vec::new();
    // Without close_notify this would be an UnexpectedEof.
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"goodbye");
    running.await_counter("tls_handshakes", 1);
    assert_eq!(running.counter("tls_handshakes_failed"), 0);
    running.stop().unwrap();
}

#[test]
fn what_is_not_tls_gets_an_alert_and_silence_a_deadline() {
    let mut config = config(&[(Transport::Wss, LOCAL)]);
    config.limits.handshake_timeout = Duration::from_millis(300);
    let running = Running::start(config, 1);
    let mut stream = connect(running.address(0));
    stream.write_all(b"OPTIONS sip:example.com SIP/2.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.first(), Some(&21), "an alert record: {answer:?}");
    running.await_counter("tls_handshakes_failed", 1);
    let mut silent = connect(running.address(0));
    assert!(matches!(silent.read(&mut [0; 1]), Ok(0) | Err(_)));
    running.await_counter("tls_handshakes_failed", 2);
    assert_eq!(running.counter("flows_accepted"), 0, "the protocol never heard of them");
    running.stop().unwrap();
}

#[test]
fn many_handshakes_at_once_all_succeed_and_are_put_off() {
    let running = Running::start(config(&[(Transport::Tls, LOCAL), (Transport::Tcp, LOCAL)]), 1);
    let (secure, plain) = (running.address(0), running.address(1));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                for _ in 0..10 {
                    ask(&mut connect_secure(secure), b"s");
                }
            })
        })
        .collect();
    let mut living = connect(plain);
    while !clients.iter().all(|client| client.is_finished()) {
        ask(&mut living, b"s");
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    running.await_counter("tls_handshakes", 80);
    assert_eq!(running.counter("tls_handshakes_failed"), 0);
    running.stop().unwrap();
}

#[test]
fn flows_beyond_the_limit_are_refused() {
    let mut config = tcp();
    config.limits.flows_max = 3;
    let running = Running::start(config, 1);
    let mut kept: Vec<TcpStream> = (0..3).map(|_| connect(running.address(0))).collect();
    kept.iter_mut().for_each(|stream| drop(ask(stream, b"s")));
    let mut refused = connect(running.address(0));
    assert!(matches!(refused.read(&mut [0; 1]), Ok(0) | Err(_)));
    running.await_counter("flows_refused", 1);
    kept.pop();
    running.await_counter("flows_closed", 1);
    ask(&mut connect(running.address(0)), b"s");
    running.stop().unwrap();
}

#[test]
fn a_panic_ends_its_shards_flows_and_the_shard_goes_on() {
    let running = Running::start(tcp(), 1);
    let mut stream = connect(running.address(0));
    let before = ask(&mut stream, b"s");
    stream.write_all(b"pon purpose").unwrap();
    assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    let after = ask(&mut connect(running.address(0)), b"s");
    assert_ne!(before, after, "another incarnation gives other names");
    running.await_counter("shard_restarts", 1);
    // What the dead incarnation counted is kept.
    running.await_counter("flows_accepted", 2);
    running.stop().unwrap();
}

/// What came while the shard was kept from its CPU came before the deadlines that were over then.
#[test]
fn a_shard_that_was_kept_hears_first_and_judges_then() {
    let running = Running::start(tcp(), 1);
    let [mut asker, mut other] = [(), ()].map(|()| connect(running.address(0)));
    ask(&mut other, b"s");
    let keeper = TcpListener::bind(LOCAL).unwrap();
    for _ in 0..3 {
        asker.write_all(format!("k{}", keeper.local_addr().unwrap()).as_bytes()).unwrap();
        let (kept, _) = keeper.accept().unwrap();
        let since = Instant::now();
        other.write_all(b"s").unwrap();
        while since.elapsed() < Duration::from_millis(60) {
            std::thread::yield_now();
        }
        drop(kept);
        assert_eq!(ask(&mut asker, b""), "heard 1");
        ask(&mut other, b"");
    }
    running.stop().unwrap();
}

#[test]
fn a_drain_refuses_the_new_and_flushes_the_old() {
    let running = Running::start(tcp(), 2);
    let address = running.address(0);
    let mut stream = connect(address);
    ask(&mut stream, b"s");
    let start = Instant::now();
    running.stop().unwrap();
    assert!(start.elapsed() < Duration::from_secs(4));
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn guests_run_beside_the_traffic() {
    let (tell, told) = channel();
    let running = Running::start_with(tcp(), 1, move |runtime| {
        let hosted = runtime.host(
            ShardId(0),
            Box::new(move || {
                Box::pin(async move {
                    for _ in 0..3 {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        tokio_uring::no_op().await.unwrap();
                    }
                    tell.send(()).unwrap();
                })
            }),
        );
        assert!(hosted);
    });
    let mut stream = connect(running.address(0));
    let start = Instant::now();
    while told.try_recv().is_err() {
        ask(&mut stream, b"s");
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    running.stop().unwrap();
}
