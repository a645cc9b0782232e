//! Tests: a shard whose engine panics while it serves. The engine is the real one, and so is the
//! panic: a message with [`TRAP`] makes the wrapper around it swap in a configuration that no
//! judge would let pass, whose route leads nowhere.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::protocol::Protocol;
use super::testing::{self, Running};
use crate::base::config::{Config, Route, RouteTo};
use crate::base::hash::{KeyedHash, derive_key};
use crate::base::id::Transport;
use crate::base::limits::SHARD_RESTARTS_MAX;
use crate::base::metrics::{Counters, Gauges};
use crate::base::time::Time;
use crate::engine::{Engine, Input, Output, Setup};
use crate::proxy::place::owner_of;

const LOCAL: &str = "127.0.0.1:0";
/// Behind it stands the shard that serves the message, and panics if it has received it, too.
const TRAP: &str = "X-Trap: ";
const SHARDS: u16 = 2;
const CLIENTS: usize = 24;

struct Fragile {
    engine: Engine,
    config: Arc<Config>,
    /// What a message for it has.
    trap: Vec<u8>,
}

impl Protocol for Fragile {
    fn new(now: Time, setup: Setup) -> Fragile {
        let config = Arc::clone(&setup.config);
        let trap = format!("{TRAP}{}\r\n", setup.shard.0).into_bytes();
        Fragile { engine: Engine::new(now, setup), config, trap }
    }
    fn handle(&mut self, now: Time, input: Input<'_>) {
        if let Input::Data { bytes, .. } = &input
            && memchr::memmem::find(bytes, &self.trap).is_some()
        {
            let mut config = Config::clone(&self.config);
            config.routes[0].to = RouteTo::Upstream(99);
            self.engine.handle(now, Input::Config(Arc::new(config)));
        }
        self.engine.handle(now, input);
    }
    fn handle_timeout(&mut self, now: Time) {
        self.engine.handle_timeout(now);
    }
    fn next_deadline(&self) -> Option<Time> {
        self.engine.next_deadline()
    }
    fn pop_output(&mut self) -> Option<Output> {
        self.engine.pop_output()
    }
    fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.engine.bytes(range)
    }
    fn counters(&self) -> &Counters {
        self.engine.counters()
    }
    fn gauges(&self) -> Gauges {
        self.engine.gauges()
    }
    fn unanswered(&self) -> u64 {
        self.engine.unanswered()
    }
}

fn config() -> Config {
    let mut config = testing::config(&[(Transport::Tcp, LOCAL), (Transport::Udp, LOCAL)]);
    config.routes =
        vec![Route { user: None, domain: None, methods: Vec::new(), to: RouteTo::Location }];
    config
}

/// The shard that owns `user@example.com` among [`SHARDS`].
fn owner(user: &str) -> u16 {
    let placement = KeyedHash::new(derive_key(&[7; 32], "placement"));
    owner_of(&placement, format!("{user}@example.com").as_bytes(), SHARDS).0
}

/// A phone on one connection.
struct Phone {
    user: String,
    stream: TcpStream,
}

impl Phone {
    fn connect(address: SocketAddr, user: &str) -> io::Result<Phone> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        Ok(Phone { user: user.to_owned(), stream })
    }

    fn request(&self, method: &str, uri: &str, name: &str, lines: &str) -> String {
        let (user, local) = (&self.user, self.stream.local_addr().unwrap());
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bK{name}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{user}@example.com>;tag=1\r\nTo: <{uri}>\r\n\
             Call-ID: {name}\r\nCSeq: 1 {method}\r\n{lines}Content-Length: 0\r\n\r\n"
        )
    }

    fn register(&mut self, name: &str) {
        let local = self.stream.local_addr().unwrap();
        let contact = format!(
            "Contact: <sip:{}@{local};transport=tcp>;reg-id=1;+sip.instance=\"<urn:uuid:\
             00000000-0000-1000-8000-{:012}>\"\r\nSupported: outbound, path\r\n",
            self.user,
            local.port()
        );
        let aor = format!("sip:{}@example.com", self.user);
        let text = self.request("REGISTER", &aor, name, &contact);
        self.stream
            .write_all(
                text.replace(&format!("REGISTER {aor}"), "REGISTER sip:example.com").as_bytes(),
            )
            .unwrap();
        let answer = self.receive().expect("an answer");
        assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
    }

    /// One message without a body; `None`: the flow ended.
    fn receive(&mut self) -> Option<String> {
        let (mut text, mut byte) = (Vec::new(), [0]);
        while !text.ends_with(b"\r\n\r\n") {
            match self.stream.read(&mut byte) {
                Ok(1) => text.push(byte[0]),
                Ok(_) => return None,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{}: {error}", self.user),
            }
        }
        Some(String::from_utf8(text).unwrap())
    }

    /// Whether it is still served.
    fn is_alive(&mut self, name: &str) -> bool {
        let text = self.request("OPTIONS", "sip:example.com", name, "");
        if self.stream.write_all(text.as_bytes()).is_err() {
            return false;
        }
        self.receive().inspect(|answer| assert!(answer.contains(" 200 "), "{answer}")).is_some()
    }
}

/// Has one shard panic: connections go to any, so some are tried. An error says that nobody listens
/// any more.
fn spring_trap(address: SocketAddr) -> io::Result<()> {
    for attempt in 0..64 {
        let shard = attempt % SHARDS;
        let user = (0..).map(|n| format!("trap{n}")).find(|user| owner(user) == shard).unwrap();
        let mut phone = Phone::connect(address, &user)?;
        let uri = format!("sip:{user}@example.com");
        let lines = format!("{TRAP}{shard}\r\nAuthorization: Digest response=\"abc\"\r\n");
        let text = phone.request("MESSAGE", &uri, &format!("trap{attempt}"), &lines);
        phone.stream.write_all(text.as_bytes())?;
        if phone.receive().is_none() {
            return Ok(());
        }
    }
    panic!("nobody stepped into the trap");
}

#[test]
fn a_panic_of_the_engine_costs_one_shards_flows_and_nothing_else() {
    let running = Running::start_protocol::<Fragile>(config(), SHARDS);
    let address = running.address(0);
    let connect = |n: usize| Phone::connect(address, &format!("user{n}")).unwrap();
    let mut phones: Vec<Phone> = (0..CLIENTS).map(connect).collect();
    for (n, phone) in phones.iter_mut().enumerate() {
        phone.register(&format!("r{n}"));
    }
    // A request in each shard that waits for an answer when the panic comes.
    let datagrams = UdpSocket::bind(LOCAL).unwrap();
    datagrams.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for shard in 0..SHARDS {
        let phone = phones.iter().position(|phone| owner(&phone.user) == shard).unwrap();
        send_message(&datagrams, &running, &phones[phone].user, &format!("w{shard}"));
        let heard = phones[phone].receive().unwrap();
        assert!(heard.starts_with("MESSAGE "), "{heard}");
    }
    spring_trap(address).unwrap();
    running.await_counter("shard_restarts", 1);
    let (mut ended, mut alive) = (0, 0);
    for (n, phone) in phones.iter_mut().enumerate() {
        if phone.is_alive(&format!("o{n}")) {
            alive += 1;
            continue;
        }
        // At once: no pause, no second try.
        ended += 1;
        *phone = connect(n);
        phone.register(&format!("again{n}"));
    }
    // Flows of the shard that failed, and those of the other whose binding it owned; the chance
    // that 24 connections are all of one kind is one in a million.
    assert!(ended > 0 && alive > 0, "{ended} ended, {alive} live");
    for (n, phone) in phones.iter_mut().enumerate() {
        send_message(&datagrams, &running, &phone.user, &format!("m{n}"));
        let heard = phone.receive().unwrap();
        assert!(heard.starts_with("MESSAGE ") && heard.contains(&format!("Call-ID: m{n}\r\n")));
    }
    running.await_counter("requests_lost", 2);
    // Control looks after its shards several times a second.
    let start = Instant::now();
    while !running.log.text().contains("shard failed") {
        assert!(start.elapsed() < Duration::from_secs(10), "no line");
        std::thread::sleep(Duration::from_millis(5));
    }
    let log = running.log.text();
    let line = log.lines().find(|line| line.contains("shard failed")).expect("a line");
    for part in ["ERROR", "index out of bounds", "lost=2", "MESSAGE sip:trap", "X-Trap: "] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!log.contains("abc"), "credentials are in {log}");
    running.stop().unwrap();
}

fn send_message(from: &UdpSocket, running: &Running, user: &str, name: &str) {
    let local = from.local_addr().unwrap();
    let text = format!(
        "MESSAGE sip:{user}@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{name}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:x@example.org>;tag=1\r\nTo: <sip:{user}@example.com>\r\n\
         Call-ID: {name}\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n"
    );
    from.send_to(text.as_bytes(), running.address(1)).unwrap();
}

#[test]
fn a_shard_that_fails_again_and_again_ends_the_process_with_a_reason() {
    let running = Running::start_protocol::<Fragile>(config(), SHARDS);
    let address = running.address(0);
    // Both shards may fail by turns: the one that exceeds its bound ends it all.
    for _ in 0..=usize::from(SHARDS) * SHARD_RESTARTS_MAX {
        if spring_trap(address).is_err() {
            break;
        }
    }
    let error = running.await_end().unwrap_err().to_string();
    assert!(error.contains("it failed 17 times within an hour: index out of bounds"), "{error}");
}
