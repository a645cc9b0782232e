//! The program under test as a child process: a configuration on free ports, its log kept for the
//! moment when a test fails, its metrics, and its end. Only this child is ever signalled.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::link::Transport;
use super::log::{self, Flow, Log};
use super::phone::PATIENCE;

/// How long the start may take.
const START: Duration = Duration::from_secs(30);
/// How long the end may take beyond the drain timeout.
const END: Duration = Duration::from_secs(20);

/// A running proxy. Dropping it ends it, and wants it to end well.
pub struct Server {
    command: Command,
    child: Child,
    exited: Option<ExitStatus>,
    addresses: BTreeMap<Transport, SocketAddr>,
    /// Where metrics and health are.
    pub admin: SocketAddr,
    log: Arc<Log>,
    lines: Mutex<Receiver<()>>,
    config: String,
    shards: usize,
    folder: TempDir,
}

/// What came of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    Taken,
    Refused,
}

impl Server {
    /// Starts it and does not wait. `folder` holds what its configuration names.
    pub fn spawn(
        mut command: Command,
        addresses: BTreeMap<Transport, SocketAddr>,
        admin: SocketAddr,
        config: String,
        shards: usize,
        folder: TempDir,
    ) -> Server {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let log = Arc::<Log>::default();
        let (child, lines) = spawn(&mut command, &log);
        Server {
            command,
            child,
            exited: None,
            addresses,
            admin,
            log,
            lines,
            config,
            shards,
            folder,
        }
    }

    /// Waits until it says that it is ready.
    #[track_caller]
    pub fn await_ready(&mut self) {
        if let Err(why) = self.wait_ready() {
            panic!("sipring did not get ready: {why}\n{}\n{}", self.config, self.log());
        }
    }

    /// Where it listens for that transport.
    pub fn address(&self, transport: Transport) -> SocketAddr {
        self.addresses[&transport]
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// How much it printed so far: where to look for what it prints next.
    pub fn printed(&self) -> usize {
        self.log.len()
    }

    /// Waits for a line with that part among those since it had `printed` so much: the log has a
    /// thread of its own, which may be later than what it tells of.
    #[track_caller]
    pub fn told(&self, printed: usize, part: &str) -> String {
        let find = |line: &str| line.contains(part).then(|| line.to_string());
        let found = self.log.find(printed, PATIENCE, find);
        found.unwrap_or_else(|| panic!("no {part}\n{}", self.log()))
    }

    /// The flow that the connection from `remote` became, made since it had `printed` so much. The
    /// log must be at `debug`.
    #[track_caller]
    pub fn opened(&self, printed: usize, remote: SocketAddr) -> Flow {
        let found = self.log.find(printed, PATIENCE, |line| log::opened(line, remote));
        found.unwrap_or_else(|| panic!("no flow of {remote}\n{}", self.log()))
    }

    /// Waits for the end of a flow that was opened since then, and says why it ended.
    #[track_caller]
    pub fn closed(&self, printed: usize, flow: &Flow) -> String {
        let why = self.closed_by(printed, flow, PATIENCE);
        why.unwrap_or_else(|| panic!("{flow:?} lives\n{}", self.log()))
    }

    /// The same, if that is told in time.
    pub fn closed_by(&self, printed: usize, flow: &Flow, within: Duration) -> Option<String> {
        self.log.find(printed, within, |line| log::closed(line, flow))
    }

    /// Process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START;
        loop {
            if let Some((200, _)) = http(self.admin, "/readyz") {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("not ready in time".into());
            }
            // A line of its log is a sign of progress, the end of its log the sign of its end.
            match self.lines.get_mut().expect("lines").recv_timeout(Duration::from_millis(20)) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.exited = Some(self.child.wait().expect("wait"));
                    return Err(format!("it ended: {:?}", self.exited));
                }
            }
        }
    }

    /// Sum over all shards of a metric; 0 when it is not there yet.
    pub fn metric(&self, name: &str) -> u64 {
        self.metric_of(name, "")
    }

    /// The same of the series whose labels have that text.
    pub fn metric_of(&self, name: &str, label: &str) -> u64 {
        let (status, text) = http(self.admin, "/metrics").expect("metrics");
        assert_eq!(status, 200, "{text}");
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(key, _)| key.split('{').next() == Some(name) && key.contains(label))
            .map(|(_, value)| value.parse::<f64>().expect("a number") as u64)
            .sum()
    }

    /// The configuration file.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// Where the configuration and the certificates are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts another text in the place of the configuration file, and SIGHUP; waits until it is in
    /// force in all shards, or was refused.
    #[track_caller]
    pub fn reload(&mut self, config: &str) -> Reloaded {
        let count = |server: &Server, result: &str| {
            server.metric_of("sipring_reloads_total", &format!("result=\"{result}\""))
        };
        let (taken, refused) = (count(self, "taken"), count(self, "refused"));
        let shards = self.metric("sipring_reconfigured_total");
        std::fs::write(self.folder.path().join("sipring.toml"), config).expect("write");
        self.signal("-HUP");
        let deadline = Instant::now() + START;
        loop {
            if count(self, "refused") > refused {
                return Reloaded::Refused;
            }
            let all = self.metric_of("sipring_reconfigured_total", "shard=");
            if count(self, "taken") > taken && all >= shards + self.shards as u64 {
                self.config = config.to_string();
                return Reloaded::Taken;
            }
            assert!(Instant::now() < deadline, "no reload\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a metric is at least that. Metrics are published several times a second.
    #[track_caller]
    pub fn wait_metric(&self, name: &str, least: u64, within: Duration) -> u64 {
        self.wait_metrics(&[name], least, within)
    }

    /// The same for the sum of several.
    #[track_caller]
    pub fn wait_metrics(&self, names: &[&str], least: u64, within: Duration) -> u64 {
        let deadline = Instant::now() + within;
        loop {
            let value = names.iter().map(|name| self.metric(name)).sum();
            if value >= least {
                return value;
            }
            assert!(Instant::now() < deadline, "{names:?}: {value}, not {least}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Proportional set size of the process in bytes. It counts files that others map, too, by how
    /// many do.
    pub fn memory(&self) -> u64 {
        self.rollup("Pss:")
    }

    /// Memory of the process that is its own, in bytes.
    pub fn own_memory(&self) -> u64 {
        self.rollup("Anonymous:")
    }

    fn rollup(&self, name: &str) -> u64 {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid()));
        let rollup = rollup.expect("smaps_rollup");
        let line = rollup.lines().find(|line| line.starts_with(name)).expect(name);
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("kB") * 1024
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        // A child that ended by itself is found out by whoever waits for it.
        let _ = Command::new("kill").args([name, &pid]).stderr(Stdio::null()).status();
    }

    /// Ends it without a word to it (SIGKILL).
    pub fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.exited = Some(self.child.wait().expect("wait"));
    }

    /// Starts it again on the same configuration, after its end.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.launch_again();
        self.await_ready();
    }

    /// The same without waiting.
    pub fn launch_again(&mut self) {
        assert!(self.exited.take().is_some(), "it runs still");
        (self.child, self.lines) = spawn(&mut self.command, &self.log);
    }

    /// Waits for the end of the process: its pipes close with it.
    pub fn wait_exit(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        while self.exited.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.get_mut().expect("lines").recv_timeout(left) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.exited = Some(self.child.wait().expect("wait"));
                }
                Err(RecvTimeoutError::Timeout) => return None,
            }
        }
        self.exited
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        let awaited = self.exited.is_some();
        let mut status = self.exited;
        if status.is_none() {
            self.terminate();
            status = self.wait_exit(END);
        }
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if failed {
            let log = self.log();
            let tail = log.len().saturating_sub(8000);
            let tail = (tail..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(log.len());
            eprintln!("--- sipring ({}) said:\n{}", self.folder.path().display(), &log[tail..]);
            return;
        }
        let status = status.unwrap_or_else(|| panic!("sipring did not end\n{}", self.log()));
        assert!(!self.log().contains("panicked at"), "sipring panicked\n{}", self.log());
        // Whoever waited for the end has judged it.
        assert!(awaited || status.success(), "{status}\n{}", self.log());
    }
}

/// Starts the command; what it prints goes to the log, each line with a sign.
fn spawn(command: &mut Command, log: &Arc<Log>) -> (Child, Mutex<Receiver<()>>) {
    let mut child = command.spawn().expect("start sipring");
    let (sender, lines) = channel();
    let out = child.stdout.take().expect("stdout");
    let err = child.stderr.take().expect("stderr");
    let streams: [Box<dyn Read + Send>; 2] = [Box::new(out), Box::new(err)];
    for stream in streams {
        let (log, sender) = (Arc::clone(log), sender.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                log.add(&String::from_utf8_lossy(&line));
                let _ = sender.send(());
            }
        });
    }
    (child, Mutex::new(lines))
}

/// A plain HTTP GET; `None` when nobody answers.
pub fn http(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut tcp = TcpStream::connect(address).ok()?;
    tcp.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_string()))
}

/// A port that nobody uses, below the range that the kernel gives to clients, never given twice in
/// a run.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    let start = (u32::from(COUNT) * (std::process::id() % 97) / 97) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        let local = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        if TcpListener::bind(local).is_ok() && UdpSocket::bind(local).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}
