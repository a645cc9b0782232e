//! The life of a flow over real sockets: what it must prove, what keeps it alive, and how long its
//! round trip takes (RFC 5626 §4.4).

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::support::phone::PATIENCE;
use super::support::{Incoming, Phone, Server, Setup, Transport, still};

const STREAMS: [Transport; 4] = [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];

/// Flows of that transport whose round trip is known.
fn measured(server: &Server, transport: Transport) -> u64 {
    let label = format!("transport=\"{}\",le=\"+Inf\"", transport.name());
    server.metric_of("sipring_flows_rtt", &label)
}

/// Waits for the end of a connection; what it hears before must be answers to its own requests.
#[track_caller]
fn ends(phone: &mut Phone) {
    loop {
        match phone.incoming(PATIENCE) {
            Some(Incoming::Message(message)) if !message.is_request() => {}
            Some(Incoming::Closed) => return,
            other => panic!("{phone:?} wants its end, has {other:?}"),
        }
    }
}

#[test]
fn who_proves_nothing_in_time_is_closed_and_who_registered_or_was_served_stays() {
    let deadline = Setup::new().limit("prove_deadline", "\"2s\"").timer("t1", "\"10ms\"");
    let server = deadline.timer("t2", "\"40ms\"").start();
    let mut bob = Phone::connect(Transport::Wss, &server, "bob");
    bob.register_self();
    let connect = |transport| Phone::connect(transport, &server, "somebody");
    // Who has something to say says it at once: the next one may take its time to connect.
    let mut callers = STREAMS.map(|transport| {
        let mut caller = connect(transport);
        caller.send(&caller.draft("MESSAGE", "sip:bob@example.com").build());
        bob.serve("MESSAGE");
        assert_eq!(caller.final_response().status(), 200);
        caller
    });
    let mut members = STREAMS.map(|transport| {
        let mut member = connect(transport);
        member.register_self();
        member
    });
    let mut silent = STREAMS.map(connect);
    let mut scanners = STREAMS.map(|transport| {
        let mut scanner = connect(transport);
        assert_eq!(scanner.ask(&scanner.draft("OPTIONS", "sip:example.com")).status(), 200);
        scanner
    });
    let mut guessers = STREAMS.map(|transport| {
        let mut guesser = connect(transport);
        let answer = guesser.ask(&guesser.draft("MESSAGE", "sip:nobody@example.com"));
        assert_eq!(answer.status(), 480);
        guesser
    });
    for phone in silent.iter_mut().chain(&mut scanners).chain(&mut guessers) {
        ends(phone);
    }
    assert_eq!(server.wait_metric("sipring_flows_closed_unproven_total", 12, PATIENCE), 12);
    for phone in members.iter_mut().chain(&mut callers) {
        still(&mut [phone]);
    }
    still(&mut [&mut bob]);
}

#[test]
fn crlf_keeps_a_flow_alive_that_its_silence_would_end() {
    const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Tls];
    // Many pings fit in, so that none is late on a machine that has other things to do.
    let server = Setup::new().limit("idle_timeout", "\"4s\"").start();
    let registered = |user: &str| {
        TRANSPORTS.map(|transport| {
            let mut phone = Phone::connect(transport, &server, user);
            phone.register(&format!("<sip:{user}@{}.invalid>", transport.name()));
            phone
        })
    };
    let [mut pinging, mut silent] = ["pinging", "silent"].map(registered);
    let deadline = Instant::now() + PATIENCE;
    let mut ended = 0;
    while ended < TRANSPORTS.len() {
        assert!(Instant::now() < deadline, "a silent one lives");
        for phone in &mut pinging {
            phone.send(b"\r\n\r\n");
            let pong = phone.incoming(PATIENCE);
            assert!(matches!(pong, Some(Incoming::KeepAlive)), "{pong:?}");
        }
        let turn = Duration::from_millis(100);
        let end = silent[ended].incoming(turn);
        assert!(matches!(end, None | Some(Incoming::Closed)), "{end:?}");
        ended += usize::from(end.is_some());
    }
    pinging.iter_mut().for_each(|phone| still(&mut [phone]));
    let closed = server.wait_metric("sipring_flows_closed_idle_total", 2, PATIENCE);
    assert_eq!(closed, 2);
}

#[test]
fn the_round_trip_of_every_connection_is_known_while_it_lives() {
    let server = Setup::new().limit("ping_interval", "\"300ms\"").start();
    for transport in STREAMS {
        let mut phone = Phone::connect(transport, &server, "alice");
        phone.register_self();
        let deadline = Instant::now() + PATIENCE;
        while measured(&server, transport) == 0 {
            assert!(Instant::now() < deadline, "{transport:?}");
            // Whoever reads answers pings.
            assert!(phone.incoming(Duration::from_millis(50)).is_none());
        }
        let others = Transport::ALL.into_iter().filter(|it| *it != transport);
        assert_eq!(others.map(|it| measured(&server, it)).sum::<u64>(), 0);
        let closed = server.metric("sipring_flows_closed_total");
        phone.finish();
        server.wait_metric("sipring_flows_closed_total", closed + 1, PATIENCE);
        assert_eq!(measured(&server, transport), 0, "{transport:?}");
    }
}

/// The shortest interval that the configuration permits.
#[test]
fn a_udp_client_that_answers_no_options_loses_its_binding() {
    const INTERVAL: Duration = Duration::from_secs(5);
    let pings = Setup::new().registrar("nat_ping", "\"5s\"").registrar("nat_ping_misses", "1");
    let server = pings.start();
    let mut live = Phone::connect(Transport::Udp, &server, "live");
    let mut dead = Phone::connect(Transport::Udp, &server, "dead");
    let mut own = Phone::connect(Transport::Udp, &server, "own");
    live.register("<sip:l@10.0.0.1:5070>");
    dead.register("<sip:d@10.0.0.2:5070>");
    // Its Contact is its address, as its server sees it: nobody translates.
    own.register_self();
    let deadline = Instant::now() + 3 * INTERVAL;
    let mut answered = 0;
    while server.metric("sipring_bindings_unanswered_total") == 0 {
        assert!(Instant::now() < deadline, "{}", server.log());
        if let Some(Incoming::Message(ping)) = live.incoming(Duration::from_millis(100)) {
            assert_eq!((ping.method(), ping.uri()), ("OPTIONS", "sip:l@10.0.0.1:5070"));
            live.answer(&ping, [200, 481][answered % 2]);
            answered += 1;
        }
    }
    assert!(answered >= 1);
    server.wait_metric("sipring_pings_answered_total", answered as u64, PATIENCE);
    assert_eq!(measured(&server, Transport::Udp), 1, "of whom answers");
    assert_eq!(dead.request("OPTIONS").uri(), "sip:d@10.0.0.2:5070");
    let listed = |phone: &mut Phone| {
        let query = phone.register_draft("");
        phone.ask(&query).all("contact").count()
    };
    assert_eq!([listed(&mut live), listed(&mut dead), listed(&mut own)], [1, 0, 1]);
    own.untouched();
}

/// A binding request with these attributes (RFC 8489 §5).
fn stun_request(attributes: &[u8]) -> Vec<u8> {
    let length = (attributes.len() as u16).to_be_bytes();
    [&[0, 1], &length[..], &[0x21, 0x12, 0xa4, 0x42], b"twelve bytes", attributes].concat()
}

fn datagrams(host: &str) -> UdpSocket {
    let socket = UdpSocket::bind((host, 0)).expect("bind");
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    socket
}

#[test]
fn stun_tells_the_address_of_both_families() {
    for (server, host) in [(Setup::new(), "127.0.0.1"), (Setup::new().ipv6(), "::1")] {
        let server = server.start();
        let socket = datagrams(host);
        let request = stun_request(&[]);
        socket.send_to(&request, server.address(Transport::Udp)).expect("send");
        let mut buffer = [0; 1500];
        let length = socket.recv(&mut buffer).expect("an answer");
        assert_eq!(buffer[..2], [1, 1], "success");
        assert_eq!(buffer[4..20], request[4..20], "cookie and transaction");
        let local = socket.local_addr().expect("address");
        let octets = match local.ip() {
            std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
            std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let (family, size) = (if local.is_ipv4() { 1 } else { 2 }, octets.len());
        assert_eq!(buffer[20..26], [0, 0x20, 0, 4 + size as u8, 0, family]);
        let plain: Vec<u8> = buffer[26..length]
            .iter()
            .zip([&request[4..6], &request[4..20]].concat())
            .map(|(byte, mask)| byte ^ mask)
            .collect();
        assert_eq!(plain, [&local.port().to_be_bytes()[..], &octets].concat());
    }
}

#[test]
fn stun_names_what_it_does_not_understand() {
    let server = Setup::new().start();
    let socket = datagrams("127.0.0.1");
    // CHANGE-REQUEST of RFC 5780 would have the answer come from elsewhere.
    let request = stun_request(&[0, 3, 0, 4, 0, 0, 0, 6]);
    socket.send_to(&request, server.address(Transport::Udp)).expect("send");
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).expect("an answer");
    assert_eq!(buffer[..4], [1, 0x11, 0, 16], "an error");
    assert_eq!(buffer[4..20], request[4..20]);
    let expected = [0, 9, 0, 4, 0, 0, 4, 20, 0, 0x0a, 0, 2, 0, 3, 0, 0];
    assert_eq!(buffer[20..length], expected, "ERROR-CODE 420, UNKNOWN-ATTRIBUTES");
}

#[test]
fn one_address_gets_so_many_stun_answers_in_a_second() {
    const SENT: u64 = 40;
    let server = Setup::new().limit("stun_answers_max", "5").start();
    let socket = datagrams("127.0.0.1");
    let request = stun_request(&[]);
    for _ in 0..SENT {
        socket.send_to(&request, server.address(Transport::Udp)).expect("send");
    }
    let names = ["sipring_keepalives_received_total", "sipring_dropped_stun_excess_total"];
    server.wait_metrics(&names, SENT, PATIENCE);
    let answered = server.metric(names[0]);
    // Further seconds may have begun meanwhile.
    assert!(answered.is_multiple_of(5) && answered < SENT, "{answered} answers");
    let mut buffer = [0; 100];
    for _ in 0..answered {
        socket.recv(&mut buffer).expect("an answer");
    }
    socket.set_nonblocking(true).expect("nonblocking");
    assert!(socket.recv(&mut buffer).is_err(), "no more than counted");
    // SIP of the same address is served.
    let mut phone = Phone::connect(Transport::Udp, &server, "alice");
    phone.register_self();
}
