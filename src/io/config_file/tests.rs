//! Faulty files and what is said about them.

use super::*;
use std::net::SocketAddr;

/// The least that is accepted.
pub(super) const LEAST: &str = "\
[node]
domains = [\"example.com\"]
[[listen]]
transport = \"udp\"
address = \"127.0.0.1:5060\"
[[route]]
to = \"location\"
";

/// A resolver with one name, of both families.
pub(super) fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match host {
        "core.test" => Ok(vec![
            SocketAddr::new("::1".parse().expect("v6"), port),
            SocketAddr::new("192.0.2.9".parse().expect("v4"), port),
        ]),
        "empty.test" => Ok(Vec::new()),
        _ => Err(io::Error::other("no such name")),
    }
}

pub(super) fn judge(text: &str) -> Result<(Loaded, Vec<Fault>), Vec<Fault>> {
    read("test.toml", text, Path::new("/etc/sipring"), &resolve)
}

/// Text behind [`LEAST`], whose next line is the 8th, then severity, line, and parts of message and
/// hint.
pub(super) type Case = (&'static str, Severity, usize, &'static str, &'static str);

pub(super) fn assert_cases(cases: &[Case]) {
    for (text, severity, line, message, hint) in cases {
        let whole = format!("{LEAST}{text}");
        let faults = match judge(&whole) {
            Ok((_, faults)) | Err(faults) => faults,
        };
        let found = faults.iter().any(|fault| {
            fault.severity == *severity
                && fault.line == *line
                && fault.message.contains(message)
                && fault.hint.contains(hint)
        });
        assert!(found, "{text}\nis said to have\n{faults:#?}");
        let is_error = faults.iter().any(|fault| fault.severity == Error);
        assert_eq!(is_error, *severity == Error, "{text}\n{faults:#?}");
    }
}

use Severity::{Error, Note, Warning};

#[test]
fn the_least_file_has_every_default() {
    let (loaded, faults) = judge(LEAST).expect("it is fine");
    assert!(faults.iter().all(|fault| fault.severity == Note), "{faults:?}");
    let Loaded { config, control } = loaded;
    assert_eq!(config.node.name, "sipring");
    assert_eq!(config.limits, crate::base::limits::Limits::default());
    assert_eq!(config.timers, crate::base::config::Timers::default());
    assert_eq!(config.registrar.contacts_max, 10);
    assert_eq!(config.listeners[0].path, "/");
    assert_eq!((control.shards, control.admin, control.secret_file), (0, None, None));
    assert_eq!(control.log, LogConfig { level: LogLevel::Info, format: LogFormat::Text });
}

#[test]
fn the_embedded_default_stays_on_loopback() {
    let Loaded { config, control } = embedded();
    assert!(config.listeners.iter().all(|listener| listener.address.ip().is_loopback()));
    assert!(control.admin.is_some_and(|admin| admin.ip().is_loopback()));
    let ports: Vec<_> =
        config.listeners.iter().map(|l| (l.transport.name(), l.address.port())).collect();
    let expected = [("udp", 5060), ("tcp", 5060), ("tls", 5061), ("ws", 8080), ("wss", 8443)];
    assert_eq!(ports, expected);
    assert_eq!(config.node.domains, ["localhost", "127.0.0.1", "example.com"]);
}

#[test]
fn values_arrive() {
    let text = "\
        [node]\nname = \"edge-1\"\ndomains = [\"Example.COM\"]\nshards = 3\nsecret_file = \"k\"\n\
        [[listen]]\ntransport = \"ws\"\naddress = \"[::1]:80\"\nadvertise = \"Edge.example.com\"\n\
        path = \"/sip\"\norigins = [\"https://App.example.com\"]\n\
        tls_terminated_from = [\"10.0.0.0/8\", \"::1\"]\n\
        [registrar]\nexpires_default = 60\nexpires_min = \"10s\"\ngrace = 0\nserial_ring = 9\n\
        [[upstream]]\nname = \"core\"\ntargets = [\"sips:core.test\", \"sip:[::2];transport=TCP\"]\n\
        from = [\"192.0.2.0/24\"]\naddress_lookup = true\nudp_max = 1200\ntimeout = \"2s\"\n\
        [[route]]\nuser = '^\\+?9'\ndomain = \"none\"\nmethods = [\"INVITE\"]\nto = \"upstream:core\"\n\
        [[route]]\nto = \"reject:403\"\n\
        [timers]\nt1 = \"200ms\"\n[limits]\nflows_max = 7\nping_interval = \"20s\"\n\
        [log]\nlevel = \"debug\"\nformat = \"json\"\n[admin]\naddress = \"127.0.0.1:1\"\n";
    let (Loaded { config, control }, _) = judge(text).expect("it is fine");
    assert_eq!((config.node.name.as_str(), control.shards), ("edge-1", 3));
    assert_eq!(config.node.domains, ["example.com"]);
    assert_eq!(control.secret_file.as_deref(), Some(Path::new("/etc/sipring/k")));
    let listener = &config.listeners[0];
    let advertise = listener.advertise.as_ref().expect("advertised");
    assert_eq!((advertise.host.as_str(), advertise.port), ("edge.example.com", None));
    assert_eq!((listener.path.as_str(), listener.tls_terminated_from.len()), ("/sip", 2));
    assert_eq!(listener.origins, ["https://app.example.com"]);
    assert_eq!(config.registrar.expires_default.as_secs(), 60);
    assert_eq!(config.registrar.serial_ring.as_secs(), 9);
    let upstream = &config.upstreams[0];
    let targets: Vec<String> = upstream
        .targets
        .iter()
        .map(|t| format!("{} {} {}", t.transport.name(), t.address, t.host))
        .collect();
    let expected =
        ["tls [::1]:5061 core.test", "tls 192.0.2.9:5061 core.test", "tcp [::2]:5060 [::2]"];
    assert_eq!(targets, expected);
    assert!(upstream.address_lookup && upstream.udp_max == 1200 && upstream.from.len() == 1);
    assert_eq!(upstream.timeout.as_secs(), 2);
    assert_eq!(config.routes[0].to, crate::base::config::RouteTo::Upstream(0));
    assert!(config.routes[0].user.as_ref().is_some_and(|user| user.is_match("+91")));
    assert_eq!(config.routes[1].to, crate::base::config::RouteTo::Reject(403));
    assert_eq!(config.timers.t1.as_millis(), 200);
    assert_eq!((config.limits.flows_max, config.limits.ping_interval.as_secs()), (7, 20));
    assert_eq!(control.log, LogConfig { level: LogLevel::Debug, format: LogFormat::Json });
}

#[test]
fn keys_and_types() {
    assert_cases(&[
        ("[limits]\nflow_max = 1\n", Error, 9, "unknown key `flow_max` in [limits]", "`flows_max`"),
        ("[registrer]\n", Error, 8, "unknown key `registrer`", "`registrar`"),
        ("[zzz]\n", Error, 8, "unknown key `zzz`", "one of: node"),
        ("[upstream]\nname = \"a\"\n", Error, 8, "must be a list of tables", "[[upstream]]"),
        ("[[limits]]\n", Error, 8, "must be a table", "[limits]"),
        ("[limits]\nflows_max = \"9\"\n", Error, 9, "must be a whole number, not \"9\"", ""),
        ("[limits]\nflows_max = 0\n", Error, 9, "out of range", "from 1 to 4194304"),
        ("[limits]\nflows_max = -1\n", Error, 9, "out of range", ""),
        ("[limits]\nping_interval = \"1x\"\n", Error, 9, "must be a duration", "\"30s\""),
        ("[limits]\nping_interval = 1.5\n", Error, 9, "must be a duration", ""),
        ("[limits]\nping_interval = \"9d\"\n", Error, 9, "out of range", ""),
        ("[limits]\nping_interval = \"2m\"\n", Warning, 9, "is long", "load balancers"),
        (
            "[limits]\nmessage_bytes_max = 4096\nheader_bytes_max = 8192\n",
            Error,
            10,
            "exceeds `message_bytes_max`",
            "4096",
        ),
        ("[log]\nlevel = \"inf\"\n", Error, 9, "not a value of `level`", "`info`"),
        ("[log]\nlevel = 3\n", Error, 9, "must be a string", "quotes"),
        ("[registrar]\nforeign_contacts = \"no\"\n", Error, 9, "true or false", "quotes"),
        ("[registrar]\nservice_route = [\"sip:a;lr\"]\n", Error, 9, "loose route", "<sip:"),
        ("[registrar]\nservice_route = [\"<sip:a>\"]\n", Error, 9, "loose route", "<sip:"),
        ("[log]\nlevel = \n", Error, 9, "", ""),
        ("[log]\n[log]\n", Error, 9, "duplicate", ""),
    ]);
}

#[test]
fn the_grace_needs_somebody_who_can_be_known_again() {
    assert_cases(&[
        ("[registrar]\ngrace = \"10s\"\n", Warning, 9, "without authentication", "[auth]"),
        ("[registrar]\ngrace = \"31s\"\n", Error, 9, "out of range", "30s"),
    ]);
    let (loaded, _) = judge(LEAST).expect("it is fine");
    assert!(loaded.config.registrar.grace.is_zero());
}

#[test]
fn a_registrar_behind_us_knows_clients_again() {
    let upstream = "[[upstream]]\nname = \"core\"\ntargets = [\"sip:192.0.2.9\"]\n";
    for (route, seconds) in [
        ("methods = [\"REGISTER\"]", 7),
        ("", 7),
        ("domain = \"example.com\"", 7),
        ("domain = \"example.org\"", 0),
        ("methods = [\"INVITE\"]", 0),
        ("user = '^9'", 0),
    ] {
        for is_wanted in [true, false] {
            let grace = if is_wanted { "[registrar]\ngrace = 7\n" } else { "" };
            let text = LEAST.replace(
                "[[route]]\nto = \"location\"\n",
                &format!(
                    "[[route]]\n{route}\nto = \"upstream:core\"\n\
                     [[route]]\nmethods = [\"PUBLISH\"]\nto = \"location\"\n{upstream}{grace}"
                ),
            );
            let (loaded, _) = judge(&text).expect("it can run");
            let expected = if is_wanted { seconds } else { 0 };
            assert_eq!(loaded.config.registrar.grace.as_secs(), expected, "{text}");
        }
    }
}

#[test]
fn what_does_not_exist_yet_is_not_ignored() {
    assert_cases(&[
        ("[registrar]\nstore = \"redis://x\"\n", Error, 9, "is not supported", "file:"),
        (
            "[[listen]]\ntransport = \"tcp\"\naddress = \"127.0.0.1:1\"\n\
             proxy_protocol_from = [\"10.0.0.0/8\"]\n",
            Error,
            11,
            "not supported yet",
            "remove",
        ),
        ("[[route]]\nto = \"relay\"\n", Error, 9, "`relay` is not supported yet", "upstream"),
        (
            "[[upstream]]\nname = \"a\"\ntargets = [\"sip:192.0.2.1\"]\ntls_name = \"x\"\n",
            Error,
            11,
            "`tls_name` is not supported yet",
            "remove",
        ),
        (
            "[[upstream]]\nname = \"a\"\ntargets = [\"sip:192.0.2.1\"]\ntimeout = \"2s\"\n",
            Warning,
            11,
            "`timeout` has no effect with one target",
            "add one",
        ),
    ]);
    let off = "[auth]\nmethod = \"none\"\npin_identity = true\nalgorithms = [\"SHA-256\", \"MD5\"]\n\
        [registrar]\nstore = \"memory\"\ngrace = 0\n[[listen]]\ntransport = \"tcp\"\n\
        address = \"127.0.0.1:1\"\nproxy_protocol_from = []\n";
    let (_, faults) = judge(&format!("{LEAST}{off}")).expect("off is fine");
    assert!(faults.iter().all(|fault| fault.severity == Note), "{faults:?}");
}

#[test]
fn nodes_registrars_timers_and_admin() {
    assert_cases(&[
        ("[admin]\naddress = \"localhost\"\n", Error, 9, "not an address with a port", "9090"),
        ("[admin]\naddress = \"0.0.0.0:9090\"\n", Warning, 9, "reachable by others", "firewall"),
        ("[timers]\nt1 = \"5s\"\n", Error, 8, "`t2` is less than `t1`", ""),
        ("[timers]\nt1 = \"10ms\"\n", Warning, 9, "shorter", "500ms"),
        ("[timers]\nc = \"3m\"\n", Warning, 9, "3 minutes", "16.6"),
        ("[registrar]\nexpires_min = \"3h\"\n", Error, 9, "no expiry", "expires_max"),
        ("[registrar]\nexpires_default = \"3h\"\n", Error, 9, "not between", "30s"),
        ("[registrar]\ncontacts_max = 0\n", Error, 9, "out of range", "1 to 1000"),
        ("[registrar]\nserial_ring = 0\n", Error, 9, "out of range", "180s"),
        ("[tls]\nupstream_ca = \"no.pem\"\n", Error, 9, "/etc/sipring/no.pem", "PEM"),
    ]);
    for (text, line, message, hint) in [
        ("[[route]]\nto = \"location\"\n", 1, "`domains` in [node] is missing", "example.com"),
        ("[node]\ndomains = []\n", 2, "missing or empty", "example.com"),
        ("[node]\ndomains = [\"a b\"]\n", 2, "`a b` is not a domain", "brackets"),
        ("[node]\ndomains = [\"::1\"]\n", 2, "not a domain", "brackets"),
        ("[node]\ndomains = [\"a\"]\nname = \"a b\"\n", 3, "SIP token", "edge-1"),
        ("[node]\ndomains = [\"a\"]\nshards = 2000\n", 3, "out of range", "1024"),
        ("[node]\ndomains = [\"a\"]\n", 1, "there is no [[listen]]", "udp"),
    ] {
        let faults = judge(text).expect_err("it is refused");
        let found = faults.iter().any(|fault| {
            fault.line == line && fault.message.contains(message) && fault.hint.contains(hint)
        });
        assert!(found, "{text}\nis said to have\n{faults:#?}");
    }
}

#[test]
fn all_faults_are_told_in_the_order_of_the_file() {
    let text = "[node]\ndomain = [\"a\"]\n[[listen]]\ntransport = \"upd\"\nadress = \"x\"\n\
        [[route]]\nto = \"upstream:x\"\n[limits]\nflows_max = \"many\"\n";
    let faults = judge(text).expect_err("it is refused");
    let lines: Vec<usize> = faults.iter().filter(|f| f.severity == Error).map(|f| f.line).collect();
    assert_eq!(lines, [1, 2, 3, 4, 5, 7, 9], "{faults:#?}");
}

#[test]
fn certificates_must_be_there_and_fit_their_keys() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("write");
    };
    for name in ["a", "b"] {
        let made = rcgen::generate_simple_self_signed(vec!["example.com".to_owned()]);
        let made = made.expect("a certificate");
        write(&format!("{name}.pem"), &made.cert.pem());
        write(&format!("{name}.key"), &made.signing_key.serialize_pem());
    }
    write("text.pem", "hello\n");
    for (cert, key, line, message) in [
        ("a.pem", "a.key", 0, ""),
        ("a.pem", "b.key", 14, "not the private key"),
        ("no.pem", "a.key", 13, "cannot be read"),
        ("a.pem", "no.key", 14, "cannot be read"),
        ("text.pem", "a.key", 13, "holds no certificate"),
        ("a.pem", "text.pem", 14, "holds no private key"),
        ("a.key", "a.key", 13, "holds no certificate"),
    ] {
        let text = format!(
            "{LEAST}[[listen]]\ntransport = \"tls\"\naddress = \"127.0.0.1:1\"\n\
             certificate = \"e\"\n[[certificate]]\ncert = \"{cert}\"\nkey = \"{key}\"\nname = \"e\"\n"
        );
        match read("test.toml", &text, folder.path(), &resolve) {
            Ok((loaded, _)) => {
                assert_eq!(line, 0, "{cert} {key}");
                assert_eq!(loaded.control.certificates[0].cert, folder.path().join("a.pem"));
            }
            Err(faults) => {
                let found = faults
                    .iter()
                    .any(|fault| fault.line == line && fault.message.contains(message));
                assert!(found, "{cert} {key}: {faults:#?}");
            }
        }
    }
    let unused = format!(
        "{LEAST}[[certificate]]\nname = \"e\"\ncert = \"a.pem\"\nkey = \"a.key\"\n\
         [tls]\nupstream_ca = \"a.pem\"\n"
    );
    let (loaded, faults) =
        read("test.toml", &unused, folder.path(), &resolve).expect("only a warning");
    assert!(faults.iter().any(|fault| fault.line == 8 && fault.message.contains("no listener")));
    assert!(loaded.control.upstream_ca.is_some());
}

#[test]
fn the_secret_file_is_looked_at_and_not_made() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let judge = |file: &str| {
        let text = LEAST.replace("[node]\n", &format!("[node]\nsecret_file = \"{file}\"\n"));
        match read("test.toml", &text, folder.path(), &resolve) {
            Ok((_, faults)) | Err(faults) => faults,
        }
    };
    assert!(judge("secret").iter().all(|fault| fault.severity == Note));
    assert!(!folder.path().join("secret").exists());
    let faults = judge("nowhere/secret");
    assert!(faults.iter().any(|f| f.severity == Warning && f.message.contains("no folder")));
    std::fs::write(folder.path().join("short"), "abc").expect("write");
    let faults = judge("short");
    assert!(faults.iter().any(|f| f.severity == Error && f.line == 2), "{faults:?}");
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("sipring.toml");
    let faults = load(&path).expect_err("it is not there");
    assert!(faults[0].message.contains("cannot read") && faults[0].line == 0);
    std::fs::write(&path, b"[node]\nname = \"\xff\"\n").expect("write");
    let faults = load(&path).expect_err("it is not UTF-8");
    assert_eq!((faults[0].line, faults[0].column), (2, 9));
    std::fs::write(&path, LEAST).expect("write");
    load(&path).expect("it is fine");
}

#[test]
fn no_truncation_of_a_file_panics() {
    let text = include_str!("default.toml");
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
        let _ = judge(&text[..end]);
    }
}

#[test]
fn addresses_that_are_taken_are_told() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("an address");
    let text = LEAST.replace("127.0.0.1:5060", &address.to_string());
    let (loaded, _) = judge(&text).expect("it is fine");
    let failures = try_addresses(&loaded);
    assert_eq!(failures.len(), 1);
    assert!(failures[0].contains("cannot bind udp") && failures[0].contains("ss -lnp"));
    drop(taken);
    assert_eq!(try_addresses(&loaded), [""; 0]);
}
