//! A start that cannot succeed says why in one line that a person can act on; `check` says it before.

use std::net::{TcpListener, UdpSocket};
use std::process::Command;
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

fn check(text: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("folder");
    super::support::certificates::write_to(folder.path());
    let file = folder.path().join("sipring.toml");
    std::fs::write(&file, text).expect("write");
    let output = Command::new(env!("CARGO_BIN_EXE_sipring")).arg("check").arg(&file).output();
    let output = output.expect("run");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn check_accepts_what_is_right_and_names_what_is_wrong() {
    let good = "[node]\nname = \"edge-1\"\ndomains = [\"example.com\"]\n\n\
        [[listen]]\ntransport = \"udp\"\naddress = \"127.0.0.1:0\"\n\n\
        [[listen]]\ntransport = \"wss\"\naddress = \"127.0.0.1:0\"\ncertificate = \"edge\"\n\n\
        [[certificate]]\nname = \"edge\"\ncert = \"edge.pem\"\nkey = \"edge.key\"\n\n\
        [[route]]\ndomain = \"example.com\"\nto = \"location\"\n";
    let (fine, text) = check(good);
    assert!(fine, "{text}");
    let rows = [
        ("domains", "domain", &["domains", ":3"][..]),
        ("transport = \"wss\"", "transport = \"xss\"", &["xss"]),
        ("certificate = \"edge\"", "certificate = \"egde\"", &["egde"]),
        ("\"location\"", "\"upstream:none\"", &["none"]),
        ("\"edge.key\"", "\"missing.key\"", &["missing.key"]),
        ("127.0.0.1:0", "127.0.0.1", &["127.0.0.1"]),
    ];
    for (right, wrong, words) in rows {
        let (fine, text) = check(&good.replace(right, wrong));
        assert!(!fine, "{wrong}: {text}");
        for word in words {
            assert!(text.contains(word), "{wrong}: {word} in {text}");
        }
        assert!(text.contains("sipring.toml"), "{wrong}: names the file: {text}");
    }
}
