//! A start that cannot succeed says why in one line that a person can act on.

use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use super::support::{Server, Setup, Transport};

/// What a failed start printed, and its exit status.
fn failure(setup: Setup) -> String {
    let mut server: Server = setup.launch();
    let status = server.wait_exit(Duration::from_secs(10)).expect("an end");
    assert!(!status.success(), "{}", server.log());
    assert_eq!(status.code(), Some(1), "an exit status, not a signal: {status}");
    let log = server.log();
    assert!(!log.contains("panicked") && !log.contains("RUST_BACKTRACE"), "{log}");
    log
}

/// The only line with that word, without case.
fn line<'a>(log: &'a str, word: &str) -> &'a str {
    let lines: Vec<&str> = log.lines().filter(|line| line.to_lowercase().contains(word)).collect();
    assert_eq!(lines.len(), 1, "one line with {word:?}:\n{log}");
    lines[0]
}

#[test]
fn a_port_in_use_is_named() {
    for transport in Transport::ALL {
        let (udp, tcp) = match transport {
            Transport::Udp => (Some(UdpSocket::bind("127.0.0.1:0").expect("bind")), None),
            _ => (None, Some(TcpListener::bind("127.0.0.1:0").expect("bind"))),
        };
        let taken = match (&udp, &tcp) {
            (Some(socket), _) => socket.local_addr(),
            (_, Some(socket)) => socket.local_addr(),
            _ => unreachable!("one of them is bound"),
        };
        let taken = taken.expect("address");
        let log = failure(Setup::new().port(transport, taken.port()));
        assert!(line(&log, "in use").contains(&taken.to_string()), "{log}");
    }
}

#[test]
fn too_few_descriptors_are_named() {
    let log = failure(Setup::new().shards(2).descriptors(24));
    let log = log.to_lowercase();
    assert!(log.contains("descriptors") || log.contains("nofile"), "{log}");
    assert!(log.lines().count() <= 2, "one clear line:\n{log}");
}
