//! Engines, clients and a SIP server in one thread, made for being measured: the loop feeds frames
//! that are encoded already and pops outputs, nothing else. What it does besides, and is measured
//! along: some 20 numbers written into those frames, one copy of each (an engine unmasks in place),
//! and a look at the first bytes of each output. Clients mask with a key of zeros, which costs the
//! engine the same as any other and the loop nothing.

#![allow(dead_code, reason = "each program uses its part")]

pub mod password;
pub mod phones;
pub mod script;
pub mod scripts;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sipring::base::config::Config;
use sipring::base::id::{DatagramPath, FlowId, FlowKey, ShardId, Transport};
use sipring::base::time::Time;
use sipring::engine::{Engine, Input, LinkMessage, Origin, Output, Setup, StoreChange};

use super::lab;

/// Virtual time between two rounds: 64,000 transactions over UDP linger for Timer J.
const STEP: Duration = Duration::from_micros(500);

/// Who speaks or hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client's WebSocket.
    Flow(FlowId),
    /// The server behind, over UDP.
    Core,
    /// A phone, over UDP, at this port.
    Phone(u16),
}

/// Where phones are.
const PHONES: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// The engines and what is between them.
pub struct Stage {
    pub engines: Vec<Engine>,
    pub now: Time,
    /// Virtual time between two rounds.
    pub step: Duration,
    core: SocketAddr,
    slots: u32,
    datagrams: u16,
    input: Vec<u8>,
    sent: Vec<(FlowId, u32)>,
    /// Bytes of records that the store was given.
    pub stored: usize,
    links: VecDeque<(ShardId, ShardId, LinkMessage)>,
}

impl Stage {
    /// `shards` fresh engines under the laboratory's configuration, but for pings.
    pub fn new(shards: u16) -> Stage {
        Stage::with(shards, lab::config())
    }

    /// The same under that configuration.
    pub fn with(shards: u16, mut config: Config) -> Stage {
        // Clients that are not spoken to are silent here.
        config.limits.ping_interval = Duration::from_secs(24 * 3600);
        let config = Arc::new(config);
        let engine = |shard: u16| {
            let setup = Setup {
                shard: ShardId(shard),
                shards,
                incarnation: 0,
                epoch: 1,
                seed: [shard as u8 + 1; 32],
                secret: [9; 32],
                config: Arc::clone(&config),
            };
            Engine::new(Time::ZERO, setup)
        };
        Stage {
            engines: (0..shards).map(engine).collect(),
            now: Time::ZERO,
            step: STEP,
            core: lab::CORE.parse().expect("an address"),
            slots: 0,
            datagrams: 0,
            input: Vec::new(),
            sent: Vec::new(),
            stored: 0,
            links: VecDeque::new(),
        }
    }

    /// A client connects and upgrades; clients take turns among the shards.
    pub fn open(&mut self) -> FlowId {
        const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
Sec-WebSocket-Protocol: sip\r\n\r\n";
        let number = self.slots;
        self.slots += 1;
        let shard = number as usize % self.engines.len();
        let flow = FlowId::new(ShardId(shard as u16), number / self.engines.len() as u32, 1);
        let ip = Ipv4Addr::new(203, 0, 113, 5);
        let key = FlowKey {
            transport: Transport::Wss,
            local: lab::listener_address(Transport::Wss),
            remote: SocketAddr::new(ip.into(), 10_000 + number as u16),
        };
        let origin = Origin::Accepted(lab::listener_of(Transport::Wss));
        self.engines[shard].handle(self.now, Input::Opened { flow, key, origin });
        self.feed(Peer::Flow(flow), UPGRADE);
        let mut accepted = false;
        self.settle(|_, bytes| accepted |= bytes.starts_with(b"HTTP/1.1 101 "));
        assert!(accepted, "the upgrade is answered");
        flow
    }

    /// What the wall clock shows, in seconds since 1970.
    pub fn tell_time(&mut self, unix: u64) {
        for engine in &mut self.engines {
            engine.handle(self.now, Input::WallClock(Duration::from_secs(unix)));
        }
    }

    /// Bytes from a peer. Datagrams take turns among the shards.
    pub fn feed(&mut self, from: Peer, bytes: &[u8]) {
        self.input.clear();
        self.input.extend_from_slice(bytes);
        let bytes = self.input.as_mut_slice();
        match from {
            Peer::Flow(flow) => {
                self.engines[flow.shard().index()].handle(self.now, Input::Data { flow, bytes });
            }
            Peer::Core | Peer::Phone(_) => {
                let remote = match from {
                    Peer::Phone(port) => SocketAddr::new(PHONES.into(), port),
                    _ => self.core,
                };
                let path = DatagramPath {
                    listener: lab::listener_of(Transport::Udp),
                    local: lab::listener_address(Transport::Udp),
                    remote,
                };
                self.datagrams = (self.datagrams + 1) % self.engines.len() as u16;
                let shard = usize::from(self.datagrams);
                self.engines[shard].handle(self.now, Input::Datagram { path, bytes });
            }
        }
    }

    /// Pops every output, here and over the links, and shows what was written to whom.
    pub fn settle(&mut self, mut wrote: impl FnMut(Peer, &[u8])) {
        loop {
            for shard in 0..self.engines.len() {
                self.drain(shard, &mut wrote);
            }
            let Some((from, to, message)) = self.links.pop_front() else { break };
            self.engines[to.index()].handle(self.now, Input::Linked { from, message });
        }
    }

    fn drain(&mut self, shard: usize, wrote: &mut impl FnMut(Peer, &[u8])) {
        let engine = &mut self.engines[shard];
        while let Some(output) = engine.pop_output() {
            match output {
                Output::Write { flow, range } => {
                    self.sent.push((flow, range.len() as u32));
                    wrote(Peer::Flow(flow), engine.bytes(range));
                }
                Output::WriteTo { path, range } => {
                    let is_core = path.remote == self.core;
                    let to = if is_core { Peer::Core } else { Peer::Phone(path.remote.port()) };
                    wrote(to, engine.bytes(range));
                }
                Output::Link { to, message } => {
                    self.links.push_back((ShardId(shard as u16), to, message));
                }
                // A record is bytes that are there until the next input.
                Output::Store { change: StoreChange::Put { range, .. }, .. } => {
                    self.stored += range.len();
                }
                Output::Event(_) => {}
                other => panic!("{other:?}"),
            }
        }
        for (flow, bytes) in self.sent.drain(..) {
            engine.handle(self.now, Input::Sent { flow, bytes, writes: 1 });
        }
    }

    /// Time passes, and what is due happens.
    pub fn pass(&mut self) {
        self.now += self.step;
        for engine in &mut self.engines {
            if engine.next_deadline().is_some_and(|due| due <= self.now) {
                engine.handle_timeout(self.now);
            }
        }
        // Pings and the like: nobody looks at them.
        self.settle(|_, _| {});
    }
}
