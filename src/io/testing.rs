//! Helpers of this folder's tests: a configuration, and a protocol that echoes.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::Subscriber;

use super::protocol::Protocol;
use super::publish::Published;
use super::supervisor::{self, Runtime, Start, StartError};
use super::tls::TlsMaterial;
use crate::base::config::{Auth, Config, Listener, Node, Registrar, Timers};
use crate::base::event::CloseReason;
use crate::base::id::{ConnectId, FlowId, ShardId, Transport};
use crate::base::limits::Limits;
use crate::base::metrics::{Counters, Gauges};
use crate::base::time::Time;
use crate::engine::{ConnectTarget, Input, LinkMessage, Origin, Output, Setup};

/// A configuration with the given listeners and nothing else.
pub fn config(listeners: &[(Transport, &str)]) -> Config {
    let listener = |(transport, address): &(Transport, &str)| Listener {
        transport: *transport,
        address: address.parse::<SocketAddr>().unwrap(),
        advertise: None,
        path: "/".to_owned(),
        origins: Vec::new(),
        certificate: None,
        tls_terminated_from: Vec::new(),
    };
    Config {
        node: Node { name: "test".to_owned(), domains: vec!["example.com".to_owned()] },
        listeners: listeners.iter().map(listener).collect(),
        registrar: Registrar::default(),
        auth: Auth::default(),
        upstreams: Vec::new(),
        routes: Vec::new(),
        timers: Timers::default(),
        limits: Limits::default(),
    }
}

/// A protocol that is simpler than SIP. Stream bytes are echoed; so are datagrams. A stream message
/// that begins with one of these bytes is an order instead:
///
/// `q` write the rest, then close · `p` panic · `l` send the rest as a link message to the next
/// shard, which answers · `c` connect to the address in the rest and report what came of it · `f`
/// flood: write 64 KiB as often as the rest says, as fast as the bound of the queue permits · `s`
/// say on which shard and flow this is · `m` say how long its round trip takes · `k` keep the shard
/// until the peer at the address in the rest hangs up, and say at the deadline that is over by then
/// how often something was heard after it.
pub struct Echo {
    setup: Setup,
    now: Time,
    outputs: VecDeque<Output>,
    arena: Vec<u8>,
    counters: Counters,
    flows: u64,
    /// Flows that wait for something, oldest first.
    waiting: VecDeque<FlowId>,
    /// Bytes that are written and not sent, and bytes that are still to be written.
    floods: BTreeMap<FlowId, (usize, usize)>,
    connects: u32,
    is_draining: bool,
    /// Who kept the shard, and how often something was heard since.
    kept: Option<(FlowId, u32)>,
}

/// What [`Echo`] floods with.
pub const FLOOD_PIECE: usize = 64 * 1024;

/// A link message to try links with.
fn link_message() -> LinkMessage {
    let flow = FlowId::from_bits(0);
    LinkMessage::FlowClosed { flow, why: CloseReason::Peer }
}

impl Echo {
    fn write(&mut self, flow: FlowId, bytes: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        self.outputs.push_back(Output::Write { flow, range: start..self.arena.len() });
    }

    fn on_data(&mut self, flow: FlowId, bytes: &[u8]) {
        let text = String::from_utf8_lossy(&bytes[1..]).into_owned();
        if let Some((_, heard)) = &mut self.kept {
            *heard += 1;
        }
        match bytes[0] {
            b'q' => {
                self.write(flow, &bytes[1..]);
                self.outputs.push_back(Output::Close { flow, why: CloseReason::Protocol });
            }
            b'p' => panic!("as ordered: {text}"),
            b'l' => {
                self.waiting.push_back(flow);
                let to = ShardId((self.setup.shard.0 + 1) % self.setup.shards);
                self.outputs.push_back(Output::Link { to, message: link_message() });
            }
            b'c' => {
                self.waiting.push_back(flow);
                self.connects += 1;
                let connect = ConnectId(self.connects);
                let (secure, address) = match text.strip_prefix("tls:") {
                    Some(address) => (true, address),
                    None => (false, text.as_str()),
                };
                let remote = address.parse().unwrap();
                let target = ConnectTarget { secure, remote, server_name: "localhost".into() };
                self.outputs.push_back(Output::Open { connect, target: Box::new(target) });
            }
            b'k' => {
                self.kept = Some((flow, 0));
                let mut peer = TcpStream::connect(&text).unwrap();
                assert_eq!(peer.read(&mut [0]).unwrap(), 0);
            }
            b'm' => self.outputs.push_back(Output::Measure { flow }),
            b'f' => {
                let count: usize = text.trim().parse().unwrap();
                self.floods.insert(flow, (0, count * FLOOD_PIECE));
                self.flood(flow);
            }
            b's' => {
                let text = format!("{} {flow}\n", self.setup.shard.0);
                self.write(flow, text.as_bytes());
            }
            _ => self.write(flow, bytes),
        }
    }

    fn flood(&mut self, flow: FlowId) {
        let Some((unsent, left)) = self.floods.get(&flow).copied() else { return };
        if unsent == 0 && left > 0 {
            self.floods.insert(flow, (FLOOD_PIECE, left - FLOOD_PIECE));
            let number = left / FLOOD_PIECE;
            self.write(flow, &vec![number as u8; FLOOD_PIECE]);
        }
    }
}

impl Protocol for Echo {
    fn new(now: Time, setup: Setup) -> Echo {
        Echo {
            setup,
            now,
            outputs: VecDeque::new(),
            arena: Vec::new(),
            counters: Counters::default(),
            flows: 0,
            waiting: VecDeque::new(),
            floods: BTreeMap::new(),
            connects: 0,
            is_draining: false,
            kept: None,
        }
    }

    fn handle(&mut self, now: Time, input: Input<'_>) {
        assert!(now >= self.now, "time went back");
        self.now = now;
        if self.outputs.is_empty() {
            self.arena.clear();
        }
        match input {
            Input::Opened { flow, key, origin } => {
                self.flows += 1;
                if let Origin::Connected(_) = origin {
                    self.counters.flows_opened += 1;
                    let asker = self.waiting.pop_front().unwrap();
                    let text = format!("opened {} {}\n", key.transport.name(), key.remote);
                    self.write(asker, text.as_bytes());
                    self.write(flow, b"hello from afar\n");
                } else {
                    self.counters.flows_accepted += 1;
                }
            }
            Input::Data { flow, bytes } => self.on_data(flow, bytes),
            Input::Sent { flow, bytes, writes } => {
                assert!(bytes > 0 && writes > 0);
                if let Some((unsent, _)) = self.floods.get_mut(&flow) {
                    *unsent -= bytes as usize;
                    self.flood(flow);
                }
            }
            Input::Closed { flow, why } => {
                self.flows -= 1;
                self.counters.flows_closed += 1;
                self.counters.flows_closed_slow += u64::from(why == CloseReason::Slow);
                self.floods.remove(&flow);
            }
            Input::RoundTrip { flow, took } => {
                self.write(flow, format!("took {}\n", took.as_micros()).as_bytes());
            }
            Input::ConnectFailed { .. } => {
                self.counters.connects_failed += 1;
                let asker = self.waiting.pop_front().unwrap();
                self.write(asker, b"failed\n");
            }
            Input::Datagram { path, bytes } => {
                let start = self.arena.len();
                let text = format!("{} ", path.local);
                self.arena.extend_from_slice(&bytes[..bytes.len().min(FLOOD_PIECE - 100)]);
                if bytes.len() < 1000 {
                    self.arena.splice(start..start, text.bytes());
                }
                let range = start..self.arena.len();
                self.outputs.push_back(Output::WriteTo { path, range });
            }
            Input::Linked { from, message } => match self.waiting.pop_front() {
                Some(flow) => self.write(flow, format!("linked from {}\n", from.0).as_bytes()),
                None => self.outputs.push_back(Output::Link { to: from, message }),
            },
            Input::LinkRefused { .. } => self.counters.refused_link_full += 1,
            Input::Config(config) => self.setup.config = config,
            Input::Dismiss { .. }
            | Input::WallClock(_)
            | Input::Departed(_)
            | Input::Restored { .. }
            | Input::Stored { .. } => {}
            Input::Drain => self.is_draining = true,
        }
    }

    fn handle_timeout(&mut self, _now: Time) {
        if let Some((flow, heard)) = self.kept.take() {
            self.write(flow, format!("heard {heard}\n").as_bytes());
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        self.kept.map(|_| self.now + Duration::from_millis(1))
    }

    fn pop_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.arena[range]
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn gauges(&self) -> Gauges {
        let mut gauges = Gauges::default();
        gauges.flows[Transport::Tcp.index()] = self.flows;
        gauges
    }

    fn unanswered(&self) -> u64 {
        u64::from(!self.is_draining)
    }
}

/// Keeps what is logged.
#[derive(Clone, Default)]
pub struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    /// A sink and what fills it with lines as people read them.
    pub fn subscriber() -> (Sink, impl Subscriber) {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone());
        (sink, subscriber.finish())
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// A whole process of [`Echo`]s in threads of this one.
pub struct Running {
    /// The configuration, ports resolved.
    pub config: Config,
    /// Each shard's numbers.
    pub published: Vec<Arc<Published>>,
    /// What its control thread logged.
    pub log: Sink,
    drain: Sender<()>,
    thread: JoinHandle<Result<(), StartError>>,
}

impl Running {
    /// Starts one and waits until it takes traffic.
    pub fn start(config: Config, shards: u16) -> Running {
        Running::start_with(config, shards, |_| {})
    }

    /// The same with another protocol.
    pub fn start_protocol<P: Protocol>(config: Config, shards: u16) -> Running {
        Running::launch::<P>(config, shards, |_| {})
    }

    /// The same; `admin` is called on the control thread.
    pub fn start_with(
        config: Config,
        shards: u16,
        admin: impl FnOnce(&Runtime) + Send + 'static,
    ) -> Running {
        Running::launch::<Echo>(config, shards, admin)
    }

    fn launch<P: Protocol>(
        config: Config,
        shards: u16,
        admin: impl FnOnce(&Runtime) + Send + 'static,
    ) -> Running {
        let (drain, asked) = channel();
        let (tell, up) = channel();
        let (publish, numbers) = channel();
        let (log, subscriber) = Sink::subscriber();
        let thread = std::thread::spawn(move || {
            let _log = tracing::subscriber::set_default(subscriber);
            let tls = TlsMaterial::self_signed("test", &[]).unwrap();
            let admin = move |runtime: Runtime| {
                publish.send(runtime.published.clone()).unwrap();
                admin(&runtime);
                async move {
                    let mut interval = tokio::time::interval(Duration::from_millis(10));
                    while asked.try_recv() == Err(TryRecvError::Empty) {
                        interval.tick().await;
                    }
                    runtime.drain();
                }
            };
            let ready = move |config: &Config| tell.send(config.clone()).unwrap();
            let start = Start { config, shards, tls, secret: [7; 32], store: None, reload: None };
            supervisor::run_protocol::<P, _>(start, admin, ready)
        });
        let config = up.recv().expect("it starts");
        Running { config, published: numbers.recv().unwrap(), log, drain, thread }
    }

    /// The address of a listener.
    pub fn address(&self, listener: usize) -> SocketAddr {
        self.config.listeners[listener].address
    }

    /// The sum of one counter over all shards.
    pub fn counter(&self, name: &str) -> u64 {
        let position = Counters::ROWS.iter().position(|(row, _)| *row == name).unwrap();
        Published::total(&self.published).0[position]
    }

    /// Waits until a counter has a value, which it has to within ten seconds.
    pub fn await_counter(&self, name: &str, value: u64) {
        let start = Instant::now();
        while self.counter(name) != value {
            let seen = self.counter(name);
            assert!(start.elapsed() < Duration::from_secs(10), "{name}: {seen}, not {value}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for an end that nobody asked for.
    pub fn await_end(self) -> Result<(), StartError> {
        self.thread.join().unwrap()
    }

    /// Drains and waits for the end.
    pub fn stop(self) -> Result<(), StartError> {
        // A process that failed has no admin task any more.
        let _ = self.drain.send(());
        self.thread.join().unwrap()
    }
}
