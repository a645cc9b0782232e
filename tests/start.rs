//! From the command line to the end: what is printed, what systemd and probes are told, what
//! SIGTERM does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A process that does not outlive its test.
struct Sipring(Child);

impl Drop for Sipring {
    fn drop(&mut self) {
        // It may have ended already, as it should.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const CONFIG: &str = "\
[node]
domains = [\"example.com\"]
shards = 1
secret_file = \"secret\"
[[listen]]
transport = \"udp\"
address = \"127.0.0.1:0\"
[[listen]]
transport = \"wss\"
address = \"127.0.0.1:0\"
certificate = \"self-signed\"
[[route]]
to = \"location\"
[limits]
flows_max = 1000
[admin]
address = \"127.0.0.1:0\"
";

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the admin port is open");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("it is sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("it is answered");
    response
}

/// The first word behind `name` in a line of what is printed at start.
fn address_of(name: &str, lines: &[String]) -> String {
    let line = lines.iter().find(|line| line.trim_start().starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {lines:?}"));
    line.split_whitespace().nth(1).expect("an address").to_owned()
}

fn start(folder: &Path, notify: &Path) -> (Sipring, Vec<String>) {
    let config = folder.join("sipring.toml");
    std::fs::write(&config, CONFIG).expect("the folder is ours");
    let mut child = Command::new(env!("CARGO_BIN_EXE_sipring"))
        .arg("--config")
        .arg(&config)
        .env("NOTIFY_SOCKET", notify)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let mut lines = Vec::new();
    for line in out.lines().map_while(Result::ok) {
        let is_last = line.trim_start().starts_with("admin");
        lines.push(line);
        if is_last {
            break;
        }
    }
    (Sipring(child), lines)
}

#[test]
fn it_starts_tells_everybody_and_ends_in_order() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let notify = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&notify).expect("bind");
    systemd.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let (mut sipring, lines) = start(folder.path(), &notify);
    let heard = || {
        let mut bytes = [0; 64];
        let length = systemd.recv(&mut bytes).expect("systemd is told");
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    };
    assert_eq!(heard(), "READY=1");
    let admin = address_of("admin", &lines);
    assert!(!address_of("udp", &lines).ends_with(":0") && !admin.ends_with(":0"), "{lines:?}");
    assert!(get(&admin, "/readyz").starts_with("HTTP/1.1 200 "));
    assert!(get(&admin, "/healthz").starts_with("HTTP/1.1 200 "));
    let metrics = get(&admin, "/metrics");
    assert!(metrics.contains("\nsipring_requests_received_total{shard=\"0\"} 0\n"), "{metrics}");
    assert_eq!(std::fs::read(folder.path().join("secret")).expect("it was made").len(), 32);

    let id = sipring.0.id().to_string();
    let killed = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
    assert!(killed.success());
    assert_eq!(heard(), "STOPPING=1");
    assert_eq!(sipring.0.wait().expect("it ends").code(), Some(0));
    let mut log = String::new();
    let mut err = sipring.0.stderr.take().expect("piped");
    err.read_to_string(&mut log).expect("the log is UTF-8");
    assert!(log.contains("ready") && log.contains("draining"), "{log}");
}

#[test]
fn an_admin_port_that_is_taken_is_an_error_of_the_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("an address").to_string();
    let text = CONFIG.replace(
        "[admin]\naddress = \"127.0.0.1:0\"",
        &format!("[admin]\naddress = \"{address}\""),
    );
    let config = folder.path().join("sipring.toml");
    std::fs::write(&config, text).expect("the folder is ours");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sipring"));
    let output = command.arg("--config").arg(&config).output().expect("it starts");
    let err = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains(&format!("cannot bind admin {address}")), "{err}");
}
