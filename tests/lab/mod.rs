//! N engines without I/O in one thread: flows are byte queues, links are a list, time is a number.
//! Clients here speak WebSocket and SIP by code of their own, so that a fault of the engine's
//! codecs cannot hide itself.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod balance;
pub mod call;
pub mod config;
pub mod digest;
pub mod draft;
pub mod jwt;
pub mod loss;
pub mod phone;
pub mod placement;
pub mod shelf;
pub mod text;

pub use config::*;
#[allow(unused_imports, reason = "each test binary uses its part")]
pub use placement::*;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sipring::base::config::Config;
use sipring::base::event::{CloseReason, Event, TransactionEvent};
use sipring::base::id::{ConnectId, DatagramPath, FlowId, FlowKey, ListenerId, ShardId, Transport};
use sipring::base::time::Time;
use sipring::engine::{ConnectTarget, Engine, Input, LinkMessage, Origin, Output, Setup};

/// The secret of every lab.
const SECRET: [u8; 32] = [9; 32];

/// What one flow has seen.
#[derive(Default)]
pub struct Wire {
    /// Bytes that the proxy wrote and nobody has read yet.
    pub bytes: Vec<u8>,
    /// The proxy asked for the close.
    pub closed: Option<CloseReason>,
    /// Do not tell the engine that writes were taken.
    pub stuck: bool,
    /// Do not answer pings.
    pub silent: bool,
    /// Pings that came.
    pub pings: usize,
    /// What answers the last of them.
    pub pong: Vec<u8>,
    /// How often its round-trip time was asked for.
    pub measured: usize,
}

/// The engines and everything around them.
pub struct Lab {
    pub engines: Vec<Engine>,
    pub now: Time,
    pub wires: HashMap<FlowId, Wire>,
    pub datagrams: VecDeque<(DatagramPath, Vec<u8>)>,
    /// What the log was told.
    pub events: Vec<Event>,
    pub opens: Vec<(ShardId, ConnectId, ConnectTarget)>,
    /// What shards gave to the store.
    pub shelf: shelf::Shelf,
    /// What shards said to each other stays on its way until [`Lab::release`].
    pub hold: bool,
    /// A shard failed, and what it held was lost.
    pub restarted: bool,
    /// By shard: slots that were used and are free, and the first that never was.
    slots: Vec<(Vec<u32>, u32)>,
    generation: u32,
    serial: u32,
    pub links: VecDeque<(ShardId, ShardId, LinkMessage)>,
    config: Arc<Config>,
}

impl Lab {
    /// `shards` fresh engines.
    pub fn new(shards: u16, config: Config) -> Lab {
        Lab::with_epoch(shards, config, 1)
    }

    /// The same in another run of the process.
    pub fn with_epoch(shards: u16, config: Config, epoch: u32) -> Lab {
        let config = Arc::new(config);
        let engine = |shard: u16| {
            let mut seed = [7; 32];
            seed[0] = shard as u8;
            seed[1] += epoch as u8 - 1;
            let setup = Setup {
                shard: ShardId(shard),
                shards,
                incarnation: 0,
                epoch,
                seed,
                secret: SECRET,
                config: Arc::clone(&config),
            };
            Engine::new(Time::ZERO, setup)
        };
        Lab {
            engines: (0..shards).map(engine).collect(),
            now: Time::ZERO,
            wires: HashMap::new(),
            datagrams: VecDeque::new(),
            events: Vec::new(),
            opens: Vec::new(),
            shelf: shelf::Shelf::default(),
            hold: false,
            restarted: false,
            slots: vec![(Vec::new(), 0); usize::from(shards)],
            generation: 1,
            serial: 0,
            links: VecDeque::new(),
            config,
        }
    }

    /// A shard fails with all that it knew, and is started anew. Its flows end without a word.
    pub fn restart(&mut self, shard: u16, config: Config) {
        let setup = Setup {
            shard: ShardId(shard),
            shards: self.engines.len() as u16,
            incarnation: 1,
            epoch: 1,
            seed: [77; 32],
            secret: SECRET,
            config: Arc::new(config),
        };
        self.engines[usize::from(shard)] = Engine::new(self.now, setup);
        self.restarted = true;
        self.shelf.forget_shard(shard);
        self.settle();
    }

    /// How many engines there are.
    pub fn shards(&self) -> u16 {
        self.engines.len() as u16
    }

    /// Another configuration, for all shards, and who departs by it.
    pub fn reload(&mut self, config: Config) {
        let former = std::mem::replace(&mut self.config, Arc::new(config));
        let departed = former.auth.departed(&self.config.auth);
        for shard in 0..self.engines.len() as u16 {
            self.input(shard, Input::Config(Arc::clone(&self.config)));
            self.input(shard, Input::Departed(Arc::clone(&departed)));
        }
    }

    /// A number that was not used before in this lab, for branches and Call-IDs.
    pub fn serial(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }

    /// A connection from `remote` to the listener of `transport`, accepted by `shard`.
    /// Slots that became free are used first, so that stale names meet new flows.
    pub fn connect(&mut self, shard: u16, transport: Transport, remote: SocketAddr) -> FlowId {
        let key = FlowKey { transport, local: listener_address(transport), remote };
        self.connect_at(shard, listener_of(transport), key)
    }

    /// The same to a listener that the test added.
    pub fn connect_at(&mut self, shard: u16, listener: ListenerId, key: FlowKey) -> FlowId {
        let flow = self.new_flow(shard);
        let origin = Origin::Accepted(listener);
        self.input(shard, Input::Opened { flow, key, origin });
        flow
    }

    fn new_flow(&mut self, shard: u16) -> FlowId {
        let (free, next) = &mut self.slots[usize::from(shard)];
        let slot = free.pop().unwrap_or_else(|| {
            *next += 1;
            *next - 1
        });
        let flow = FlowId::new(ShardId(shard), slot, self.generation);
        self.generation += 1;
        self.wires.insert(flow, Wire::default());
        flow
    }

    /// Completes a connection that an engine asked for.
    pub fn complete_open(&mut self, at: usize) -> FlowId {
        let (shard, connect, target) = self.opens.remove(at);
        let flow = self.new_flow(shard.0);
        let transport = if target.secure { Transport::Tls } else { Transport::Tcp };
        let local = SocketAddr::new(listener_address(transport).ip(), 40000);
        let key = FlowKey { transport, local, remote: target.remote };
        self.input(shard.0, Input::Opened { flow, key, origin: Origin::Connected(connect) });
        flow
    }

    /// Has a connection that an engine asked for fail.
    pub fn refuse_open(&mut self, at: usize) {
        let (shard, connect, _) = self.opens.remove(at);
        self.input(shard.0, Input::ConnectFailed { connect });
    }

    /// Bytes from the peer.
    pub fn data(&mut self, flow: FlowId, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        self.input(flow.shard().0, Input::Data { flow, bytes: &mut bytes });
    }

    /// The peer is gone.
    pub fn close(&mut self, flow: FlowId, why: CloseReason) {
        self.slots[flow.shard().index()].0.push(flow.slot());
        self.input(flow.shard().0, Input::Closed { flow, why });
    }

    /// Why the proxy closed a flow, if it did.
    pub fn closed(&self, flow: FlowId) -> Option<CloseReason> {
        self.wires[&flow].closed
    }

    /// The wire of a flow.
    pub fn wire(&mut self, flow: FlowId) -> &mut Wire {
        self.wires.get_mut(&flow).expect("its wire")
    }

    /// A datagram from `remote` that the kernel gave to `shard`.
    pub fn datagram(&mut self, shard: u16, remote: SocketAddr, bytes: &[u8]) {
        let path = DatagramPath {
            listener: listener_of(Transport::Udp),
            local: listener_address(Transport::Udp),
            remote,
        };
        let mut bytes = bytes.to_vec();
        self.input(shard, Input::Datagram { path, bytes: &mut bytes });
    }

    /// One input, and everything that follows from it at this point of time.
    pub fn input(&mut self, shard: u16, input: Input<'_>) {
        self.engines[usize::from(shard)].handle(self.now, input);
        self.settle();
    }

    /// Lets time pass, alarm by alarm.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.engines.iter().filter_map(Engine::next_deadline).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            for engine in &mut self.engines {
                engine.handle_timeout(self.now);
            }
            self.settle();
        }
        self.now = end;
    }

    /// Lets what was held on the links arrive, in order.
    pub fn release(&mut self) {
        self.hold = false;
        self.settle();
    }

    /// Lets that many of what is held arrive, in order; what they bring about is held.
    pub fn release_first(&mut self, count: usize) {
        for _ in 0..count {
            let Some((from, to, message)) = self.links.pop_front() else { break };
            self.engines[to.index()].handle(self.now, Input::Linked { from, message });
            self.settle();
        }
    }

    /// The same of all, but duty overtakes work: the two lanes of a link are not ordered.
    pub fn release_duty_first(&mut self) {
        let (work, duty): (Vec<_>, Vec<_>) =
            self.links.drain(..).partition(|(_, _, message)| message.is_work());
        self.links.extend(duty);
        self.release();
        self.links.extend(work);
        self.settle();
    }

    /// The work lanes were full: work that was held goes back to where it came from.
    pub fn refuse_work(&mut self) {
        self.hold = false;
        let held: Vec<_> = self.links.drain(..).collect();
        for (from, to, message) in held {
            if message.is_work() {
                self.engines[from.index()].handle(self.now, Input::LinkRefused { to, message });
            } else {
                self.links.push_back((from, to, message));
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            let mut busy = true;
            while busy {
                busy = false;
                for shard in 0..self.engines.len() {
                    busy |= self.drain(shard);
                }
            }
            if self.hold {
                break;
            }
            let Some((from, to, message)) = self.links.pop_front() else { break };
            self.engines[to.index()].handle(self.now, Input::Linked { from, message });
        }
    }

    /// Does what an engine wants done; says whether that made it want more.
    fn drain(&mut self, shard: usize) -> bool {
        let mut sent = Vec::new();
        let mut pongs = Vec::new();
        while let Some(output) = self.engines[shard].pop_output() {
            match output {
                Output::Write { flow, range } => {
                    let bytes = self.engines[shard].bytes(range);
                    let wire = self.wires.get_mut(&flow).expect("writes go to flows that exist");
                    assert!(wire.closed.is_none(), "a write after the close of {flow}");
                    if let Some(pong) = pong_to(bytes) {
                        wire.pings += 1;
                        pongs.extend((!wire.silent).then(|| (flow, pong.clone())));
                        wire.pong = pong;
                    } else {
                        wire.bytes.extend_from_slice(bytes);
                    }
                    if !wire.stuck {
                        sent.push((flow, bytes.len() as u32));
                    }
                }
                Output::WriteTo { path, range } => {
                    let bytes = self.engines[shard].bytes(range).to_vec();
                    self.datagrams.push_back((path, bytes));
                }
                Output::Open { connect, target } => {
                    self.opens.push((ShardId(shard as u16), connect, *target));
                }
                Output::Measure { flow } => {
                    let wire = self.wires.get_mut(&flow).expect("a flow that exists");
                    wire.measured += 1;
                }
                Output::Close { flow, why } => {
                    self.wires.get_mut(&flow).expect("a flow that exists").closed = Some(why);
                    self.slots[shard].0.push(flow.slot());
                }
                Output::Link { to, message } => {
                    assert_ne!(to.index(), shard, "nobody links to himself");
                    self.links.push_back((ShardId(shard as u16), to, message));
                }
                Output::Store { serial, id, change } => self.store(shard, serial, id, change),
                Output::Event(event) => self.events.push(event),
            }
        }
        let more = !sent.is_empty() || !pongs.is_empty();
        for (flow, bytes) in sent {
            self.engines[shard].handle(self.now, Input::Sent { flow, bytes, writes: 1 });
        }
        for (flow, mut pong) in pongs {
            self.engines[shard].handle(self.now, Input::Data { flow, bytes: &mut pong });
        }
        more
    }

    /// Datagrams that went to `remote`, as text, in order; they are taken out.
    pub fn datagrams_to(&mut self, remote: SocketAddr) -> Vec<text::Sip> {
        let (mine, others) = self.datagrams.drain(..).partition(|(path, _)| path.remote == remote);
        self.datagrams = others;
        let mine: VecDeque<(DatagramPath, Vec<u8>)> = mine;
        mine.into_iter().map(|(_, bytes)| text::Sip::read(&bytes)).collect()
    }

    /// The transactions whose end the log was told.
    pub fn ended(&self) -> impl Iterator<Item = &TransactionEvent> {
        self.events.iter().filter_map(|event| match event {
            Event::Transaction(transaction) => Some(transaction),
            _ => None,
        })
    }

    /// The sum of a counter over all shards.
    pub fn count(&self, of: impl Fn(&sipring::base::metrics::Counters) -> u64) -> u64 {
        self.engines.iter().map(|engine| of(engine.counters())).sum()
    }
}

/// What a client answers to a ping of the proxy: a frame with the same payload (RFC 6455 §5.5.3), or
/// half of it on a plain stream (RFC 5626 §3.5.1).
fn pong_to(bytes: &[u8]) -> Option<Vec<u8>> {
    match bytes {
        [0x89, _, payload @ ..] => Some(phone::masked_frame(0xa, payload)),
        b"\r\n\r\n" => Some(b"\r\n".to_vec()),
        _ => None,
    }
}
