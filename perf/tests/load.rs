//! Each kind of load for a moment against a real server: the proxy where its binary is built
//! (`SIPRING_BINARY`, or the target directory), else the floor, which does not know all of them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    child: Child,
    addresses: Vec<(&'static str, SocketAddr)>,
    is_proxy: bool,
    _files: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The proxy, when it is built.
fn proxy() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("SIPRING_BINARY") {
        return Some(path.into());
    }
    let own = PathBuf::from(env!("CARGO_BIN_EXE_sipring-perf"));
    let target = own.parent()?.parent()?;
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent()?.join("target");
    let candidates = [target.to_owned(), root];
    let paths =
        candidates.iter().flat_map(|t| [t.join("release/sipring"), t.join("debug/sipring")]);
    paths.into_iter().find(|path| path.exists())
}

/// Addresses that are free at this moment, on a loopback address of this process's own.
fn free_addresses() -> Vec<(&'static str, SocketAddr)> {
    let id = std::process::id();
    let host = format!("127.37.{}.{}", id / 250 % 250, id % 250 + 1);
    let listeners: Vec<(&str, TcpListener)> = ["wss", "ws", "tls", "tcp"]
        .map(|name| (name, TcpListener::bind((host.as_str(), 0)).unwrap()))
        .into();
    let mut found: Vec<(&str, SocketAddr)> =
        listeners.iter().map(|(name, it)| (*name, it.local_addr().unwrap())).collect();
    found.push(("udp", found[3].1));
    found
}

impl Server {
    fn start() -> Server {
        let files = tempfile::tempdir().unwrap();
        match proxy() {
            Some(path) => Server::start_proxy(path, files, ""),
            None => Server::start_floor(files),
        }
    }

    /// The proxy with digest, when it is built, and twenty users of each kind with the password
    /// `secret`.
    fn start_with_digest() -> Option<Server> {
        let files = tempfile::tempdir().unwrap();
        let numbers = (0..20).chain(9_000_000..9_000_020);
        let users: String = numbers.map(|number| format!("u{number:07}:secret\n")).collect();
        fs::write(files.path().join("users.txt"), users).unwrap();
        let more = "[auth]\nmethod = \"digest\"\nusers = \"users.txt\"\n";
        Some(Server::start_proxy(proxy()?, files, more))
    }

    fn start_proxy(path: PathBuf, files: tempfile::TempDir, more: &str) -> Server {
        let addresses = free_addresses();
        let mut text =
            "[node]\nname = \"load\"\ndomains = [\"example.com\"]\nshards = 1\n".to_owned();
        for (name, address) in &addresses {
            text += &format!("[[listen]]\ntransport = \"{name}\"\naddress = \"{address}\"\n");
            if matches!(*name, "wss" | "tls") {
                text += "certificate = \"self-signed\"\n";
            }
        }
        text += "[[route]]\ndomain = \"example.com\"\nto = \"location\"\n[log]\nlevel = \"warn\"\n";
        text += more;
        let config = files.path().join("sipring.toml");
        fs::write(&config, text).unwrap();
        let mut command = Command::new(path);
        command.arg("--config").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let started = Instant::now();
        while TcpStream::connect(addresses[0].1).is_err() {
            assert!(started.elapsed() < PATIENCE, "the proxy does not listen");
            assert!(child.try_wait().unwrap().is_none(), "the proxy ended at start");
            std::thread::yield_now();
        }
        Server { child, addresses, is_proxy: true, _files: files }
    }

    fn start_floor(files: tempfile::TempDir) -> Server {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
        fs::write(&cert, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sipring-floor"));
        let names = ["wss", "ws", "tls", "tcp", "udp"];
        for name in names {
            command.args([format!("--{name}"), "127.0.0.1:0".to_owned()]);
        }
        command.arg("--cert").arg(cert).arg("--key").arg(key).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addresses = lines
            .map(|line| line.unwrap())
            .take_while(|line| line != "ready")
            .map(|line| {
                let (name, address) = line.split_once(' ').unwrap();
                let name = names.into_iter().find(|known| *known == name).unwrap();
                (name, address.parse().unwrap())
            })
            .collect();
        Server { child, addresses, is_proxy: false, _files: files }
    }

    /// Runs the load: its report.
    fn load(&self, line: &str) -> Value {
        self.try_load(line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Runs the load: its report, or what it complains of.
    fn try_load(&self, line: &str) -> Result<Value, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sipring-perf"));
        command.args(line.split(' ')).arg("--json");
        command.args(["--server-pid", &self.child.id().to_string()]);
        for (name, address) in &self.addresses {
            command.args([format!("--{name}"), address.to_string()]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut out, mut error) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        if !child.wait().unwrap().success() {
            return Err(error);
        }
        serde_json::from_str(&out).map_err(|fault| format!("{fault}: {out}{error}"))
    }

    /// Runs a load until its report has enough: ten times as long each time, since a machine that has
    /// other things to do may not have come to it.
    fn load_until(&self, line: &str, has_enough: impl Fn(&Value) -> bool) -> Value {
        let patience = if line.contains("--patience") { "" } else { " --patience 30" };
        let run = |time| self.load(&format!("{line}{patience} --seconds {time} --warmup 0.1"));
        let mut reports = ["0.3", "3", "30"].into_iter().map(run);
        reports.find(has_enough).unwrap_or_else(|| panic!("{line}: not enough in half a minute"))
    }

    /// The same for a load that must go without an error and get something done.
    fn clean_load_until(&self, line: &str, has_enough: impl Fn(&Value) -> bool) -> Value {
        self.load_until(line, |report| {
            assert_eq!(report["errors"], Value::Object(Default::default()), "{line}: {report}");
            let figures = [
                &report["transactions"],
                &report["server"]["us_per_transaction"],
                &report["latency_us"]["max"],
            ];
            figures.into_iter().all(is_some) && has_enough(report)
        })
    }

    /// The same without further wishes.
    fn clean_load(&self, line: &str) -> Value {
        self.clean_load_until(line, |_| true)
    }
}

/// Whether a figure is more than nothing.
fn is_some(figure: &Value) -> bool {
    figure.as_f64().is_some_and(|it| it > 0.0)
}

/// What is counted where a password is not asked for.
const UNASKED: &str = "a 200 without a challenge";

#[test]
fn requests_are_exchanged_over_every_transport() {
    let server = Server::start();
    for (from, to) in [("wss", "wss"), ("ws", "tls"), ("tcp", "udp"), ("udp", "ws"), ("tls", "tcp")]
    {
        let line = format!("relay --connections 6 --in-flight 8 --from {from} --to {to}");
        server.clean_load(&line);
    }
    server.clean_load("notify --connections 6 --in-flight 8 --body 700");
}

#[test]
fn a_rate_is_kept() {
    let server = Server::start();
    let done = |report: &Value| report["transactions"].as_f64().unwrap();
    let time = |report: &Value| report["seconds"].as_f64().unwrap();
    let report = server.clean_load_until("relay --connections 6 --rate 200", |report| {
        done(report) > 50.0 * time(report)
    });
    assert_eq!(report["target_rate"], 200.0);
    // What was late before the measurement is made up for in it.
    assert!(done(&report) < 200.0 * (time(&report) + 0.4), "{report}");
}

#[test]
fn calls_are_made() {
    let server = Server::start();
    for (from, to) in [("wss", "udp"), ("udp", "udp"), ("udp", "wss"), ("wss", "wss")] {
        server.clean_load(&format!("call --connections 6 --in-flight 4 --from {from} --to {to}"));
    }
}

#[test]
fn the_server_is_asked() {
    let server = Server::start();
    for from in ["wss", "udp", "tls"] {
        server.clean_load(&format!("options --connections 6 --in-flight 4 --from {from}"));
    }
    server.clean_load("register --connections 20 --in-flight 4");
    let line = "register --connections 20 --in-flight 4 --password secret";
    if server.is_proxy {
        server.load_until(line, |report| is_some(&report["errors"][UNASKED]));
        let error = server.try_load(&format!("{line} --keep-nonce --seconds 0.1")).unwrap_err();
        assert!(error.contains("a nonce is kept: false"), "{error}");
    }
}

#[test]
fn a_password_is_proved_and_a_wrong_one_ends_the_run() {
    let Some(server) = Server::start_with_digest() else { return };
    // What was proved on a flow holds for it: only datagrams are asked each time.
    let line = "register --from udp --peers 20 --in-flight 4 --password secret";
    server.clean_load(line);
    server.clean_load(&format!("{line} --keep-nonce"));
    let line = "register --connections 20 --in-flight 4 --password secret";
    server.load_until(line, |report| is_some(&report["errors"][UNASKED]));
    server.clean_load(&format!("{line} --keep-nonce"));
    let line = "relay --connections 4 --seconds 0.1 --warmup 0";
    let error = server.try_load(&format!("{line} --password wrong")).unwrap_err();
    assert!(error.contains("401"), "{error}");
    let error = server.try_load(line).unwrap_err();
    assert!(error.contains("password"), "{error}");
}

#[test]
fn connections_come_and_go() {
    let server = Server::start();
    let report = server.clean_load("handshake --connections 20 --in-flight 2");
    assert_eq!(report["resumed"], 0.0);
    if server.is_proxy {
        let report = server.clean_load("handshake --connections 20 --in-flight 2 --resume");
        assert!(report["resumed"].as_f64().unwrap() > 0.5, "{report}");
    }
}

#[test]
fn memory_is_read_between_two_numbers_of_connections() {
    let server = Server::start();
    let report = server.load("idle --steps 10,60 --interval 0.1");
    assert_eq!(report["connections"], 60);
    assert!(report["memory"]["pss_before"].as_u64().unwrap() > 100_000, "{report}");
    assert!(report["memory"]["per_connection"].is_f64(), "{report}");
}

#[test]
fn those_who_are_gone_are_answered_for() {
    let server = Server::start();
    if !server.is_proxy {
        return;
    }
    let line = "dead --connections 10 --apart 5 --part 0.5 --rate 200";
    for gone in ["closed", "reset"] {
        let report = server.clean_load(&format!("{line} --gone {gone}"));
        assert_eq!(report["apart"]["unanswered"], 0, "{report}");
        let answers = report["apart"]["answers"].as_object().unwrap();
        assert!(!answers.is_empty() && !answers.contains_key("200"), "{report}");
    }
    let line = "slow --connections 10 --apart 5 --part 0.5 --rate 200 --patience 5";
    let report =
        server.clean_load_until(line, |report| is_some(&report["meanwhile"]["transactions"]));
    assert!(report["memory"]["pss_after"].as_u64().unwrap() > 100_000, "{report}");
    assert!(report["apart"]["unanswered"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn those_who_lose_their_connection_come_back() {
    let server = Server::start();
    if !server.is_proxy {
        return;
    }
    let line = "storm --connections 6 --rate 200 --lost 30 --back-off 0.2";
    let report = server.clean_load_until(line, |report| is_some(&report["storm"]["transactions"]));
    assert_eq!(report["storm"]["all_are_back"], true);
}
