//! The world around the engines of a run: flows, datagrams, links, time. Every output is looked at
//! before it is done (`watch`). Absent on purpose: any I/O.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::config::Config;
use crate::base::event::CloseReason;
use crate::base::id::{ConnectId, DatagramPath, FlowId, FlowKey, ListenerId, ShardId, Transport};
use crate::base::time::Time;
use crate::engine::{ConnectTarget, Engine, Input, LinkMessage, Origin, Setup};

use super::settings::{config, local};
use super::shelf::Shelf;
use super::speech::{self, Heard};

/// Messages that are remembered of what was heard, and of what was said.
const REMEMBERED: usize = 24;
/// Alarms in a row at one point of time; more would be a shard that never rests.
const ALARMS_AT_ONCE_MAX: usize = 1000;
/// How often one shard may fail in a run.
const RESTARTS_MAX: u8 = 3;

/// What becomes of a message between shards.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Arrives,
    /// Its lane is full. Work only: duty arrives all the same.
    Refused,
}

/// Where a flow is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Open,
    /// The engine closed it.
    Closed,
    /// The peer closed it, or its shard failed.
    Gone,
}

/// One flow, from the peer's side.
pub(super) struct Wire {
    pub id: FlowId,
    pub transport: Transport,
    pub remote: SocketAddr,
    pub state: State,
    /// Lengths of the writes that were not taken yet.
    pub pending: VecDeque<u32>,
    /// The 101 was written.
    pub upgraded: bool,
    /// The payload of a ping that was written and not answered.
    pub pinged: Option<Vec<u8>>,
    /// What the peer has begun to say.
    pub rest: Vec<u8>,
}

pub(super) struct Net {
    pub engines: Vec<Engine>,
    /// What each engine was made with.
    pub born: Vec<Setup>,
    pub now: Time,
    pub wires: Vec<Wire>,
    pub by_name: HashMap<FlowId, usize>,
    pub opens: Vec<(ShardId, ConnectId, ConnectTarget)>,
    /// By sender and receiver: duty, work.
    pub links: Vec<[VecDeque<LinkMessage>; 2]>,
    /// Largest number of messages in a queue by any configuration so far.
    pub queue_max: usize,
    /// Most bindings and transactions of a shard, under the most generous configuration so far.
    pub tables_max: (usize, usize),
    pub restarts: u8,
    pub shelf: Shelf,
    proofs: u32,
    heard: VecDeque<Heard>,
    said: VecDeque<Heard>,
    config: Arc<Config>,
    manners: Manners,
    /// By shard: free slots, the next slot, the last generation.
    pub slots: Vec<(Vec<u32>, u32, u32)>,
}

/// What peers and shards do by themselves.
#[derive(Clone, Copy)]
struct Manners {
    takes_writes: bool,
    hears_links: bool,
    answers_pings: bool,
}

impl Net {
    /// Fresh engines; the lowest bits of `manners` say what does not happen by itself.
    pub fn new(shards: u16, settings: usize, manners: u8) -> Net {
        let config = Arc::new(config(settings));
        let setup = |shard: u16| Setup {
            shard: ShardId(shard),
            shards,
            incarnation: 0,
            epoch: 1,
            seed: [7 + shard as u8; 32],
            secret: [9; 32],
            config: Arc::clone(&config),
        };
        let born: Vec<Setup> = (0..shards).map(setup).collect();
        let pairs = usize::from(shards * shards);
        Net {
            engines: born.iter().map(|setup| Engine::new(Time::ZERO, setup.clone())).collect(),
            born,
            now: Time::ZERO,
            wires: Vec::new(),
            by_name: HashMap::new(),
            opens: Vec::new(),
            links: (0..pairs).map(|_| Default::default()).collect(),
            queue_max: config.limits.flow_queue_messages_max,
            tables_max: (config.limits.bindings_max, config.limits.transactions_max),
            restarts: 0,
            shelf: Shelf::default(),
            proofs: 0,
            heard: VecDeque::new(),
            said: VecDeque::new(),
            config,
            manners: Manners {
                takes_writes: manners & 1 == 0,
                hears_links: manners & 2 == 0,
                answers_pings: manners & 4 == 0,
            },
            slots: vec![(Vec::new(), 0, 0); usize::from(shards)],
        }
    }

    /// Number of flows that there ever were.
    pub fn flows(&self) -> usize {
        self.wires.len()
    }

    /// One of the flows, the latest first; most often one that is open.
    pub fn flow(&self, number: u8) -> Option<usize> {
        let is_open = |at: &usize| self.wires[*at].state == State::Open || number % 16 == 15;
        let all: Vec<usize> = (0..self.wires.len()).rev().filter(is_open).collect();
        all.get(usize::from(number).checked_rem(all.len())?).copied()
    }

    pub fn ends(&self, flow: usize) -> (Transport, SocketAddr) {
        (self.wires[flow].transport, self.wires[flow].remote)
    }

    /// What engines wrote, the oldest first.
    pub fn heard(&self) -> &VecDeque<Heard> {
        &self.heard
    }

    pub fn heard_one(&self, number: u8) -> Option<&Heard> {
        speech::pick(&self.heard, number)
    }

    /// What peers said, the oldest first.
    pub fn all_said(&self) -> &VecDeque<Heard> {
        &self.said
    }

    /// A number for a request that comes with a proof.
    pub fn next_proof(&mut self) -> u32 {
        self.proofs += 1;
        self.proofs
    }

    pub fn said(&self, number: u8) -> Option<&Heard> {
        speech::pick(&self.said, number)
    }

    pub fn hear(&mut self, by: Result<usize, SocketAddr>, text: &[u8]) {
        if self.heard.len() == REMEMBERED {
            self.heard.pop_front();
        }
        self.heard.push_back(Heard { by, text: text.to_vec() });
    }

    pub fn remember(&mut self, by: Result<usize, SocketAddr>, text: &[u8]) {
        if self.said.len() == REMEMBERED {
            self.said.pop_front();
        }
        self.said.push_back(Heard { by, text: text.to_vec() });
    }

    pub fn on(&self, shard: ShardId) -> usize {
        shard.index() % self.engines.len()
    }

    /// A connection from `remote`; its number among the flows.
    pub fn connect(&mut self, shard: ShardId, transport: Transport, remote: SocketAddr) -> usize {
        let origin = Origin::Accepted(ListenerId(transport.index() as u16));
        self.open(self.on(shard), transport, local(transport), remote, origin)
    }

    fn open(
        &mut self,
        shard: usize,
        transport: Transport,
        local: SocketAddr,
        remote: SocketAddr,
        origin: Origin,
    ) -> usize {
        let (free, next, generation) = &mut self.slots[shard];
        // Slots that became free come first, so that stale names meet new flows.
        let slot = free.pop().unwrap_or_else(|| {
            *next += 1;
            *next - 1
        });
        *generation += 1;
        let incarnation = u32::from(self.born[shard].incarnation);
        let id = FlowId::new(ShardId(shard as u16), slot, incarnation << 24 | *generation);
        let wire = Wire {
            id,
            transport,
            remote,
            state: State::Open,
            pending: VecDeque::new(),
            upgraded: false,
            pinged: None,
            rest: Vec::new(),
        };
        self.wires.push(wire);
        self.by_name.insert(id, self.wires.len() - 1);
        let key = FlowKey { transport, local, remote };
        self.tell(shard, Input::Opened { flow: id, key, origin });
        self.wires.len() - 1
    }

    /// A connection that an engine asked for is made, or fails.
    pub fn finish_open(&mut self, number: u8, succeeds: bool) {
        let Some(at) = usize::from(number).checked_rem(self.opens.len()) else { return };
        let (shard, connect, target) = self.opens.remove(at);
        if succeeds {
            let transport = if target.secure { Transport::Tls } else { Transport::Tcp };
            let mut from = local(transport);
            from.set_port(50_000);
            let origin = Origin::Connected(connect);
            self.open(shard.index(), transport, from, target.remote, origin);
        } else {
            self.tell(shard.index(), Input::ConnectFailed { connect });
        }
    }

    pub fn datagram(&mut self, shard: ShardId, remote: SocketAddr, mut bytes: Vec<u8>) {
        self.remember(Err(remote), &bytes);
        let listener = ListenerId(Transport::Udp.index() as u16);
        let path = DatagramPath { listener, local: local(Transport::Udp), remote };
        self.tell(self.on(shard), Input::Datagram { path, bytes: &mut bytes });
    }

    /// What was under way when the engine closed a flow comes late.
    pub fn stale(&mut self, number: u8, what: u8) {
        let Some(wire) = self.flow(15).map(|flow| &self.wires[flow]) else { return };
        if wire.state != State::Closed {
            return;
        }
        let flow = wire.id;
        let input = match (what % 3, number) {
            (0, why) if why % 2 == 0 => Input::Closed { flow, why: CloseReason::Peer },
            (0, _) => Input::Closed { flow, why: CloseReason::Reset },
            (1, bytes) => Input::Sent { flow, bytes: bytes.into(), writes: 1 },
            _ => Input::Data { flow, bytes: &mut [0x81, 0x80, 0, 0, 0, 0] },
        };
        self.engines[flow.shard().index()].handle(self.now, input);
        self.settle(flow.shard().index());
    }

    /// One message between shards, of those at the heads of their lanes.
    pub fn hear_link(&mut self, number: u8, fate: Fate) {
        let lanes: Vec<(usize, usize)> = (0..self.links.len())
            .flat_map(|pair| [(pair, 0), (pair, 1)])
            .filter(|(pair, lane)| !self.links[*pair][*lane].is_empty())
            .collect();
        let Some(at) = usize::from(number).checked_rem(lanes.len()) else { return };
        let (pair, lane) = lanes[at];
        let Some(message) = self.links[pair][lane].pop_front() else { return };
        let (from, to) = (pair / self.engines.len(), pair % self.engines.len());
        if fate == Fate::Refused && message.is_work() {
            self.tell(from, Input::LinkRefused { to: ShardId(to as u16), message });
        } else {
            self.tell(to, Input::Linked { from: ShardId(from as u16), message });
        }
    }

    pub fn hear_all_links(&mut self) {
        while self.links.iter().flatten().any(|lane| !lane.is_empty()) {
            self.hear_link(0, Fate::Arrives);
        }
    }

    /// Another configuration for all shards.
    pub fn configure(&mut self, settings: usize) {
        let before = std::mem::replace(&mut self.config, Arc::new(config(settings)));
        let departed = before.auth.departed(&self.config.auth);
        let limits = &self.config.limits;
        self.queue_max = self.queue_max.max(limits.flow_queue_messages_max);
        let (bindings, transactions) = self.tables_max;
        self.tables_max =
            (bindings.max(limits.bindings_max), transactions.max(limits.transactions_max));
        for shard in 0..self.engines.len() {
            self.tell(shard, Input::Config(Arc::clone(&self.config)));
            self.tell(shard, Input::Departed(Arc::clone(&departed)));
        }
    }

    pub fn drain_shard(&mut self, shard: ShardId) {
        self.tell(self.on(shard), Input::Drain);
    }

    /// A shard fails with all that it knew and is started anew; what is on the links stays there.
    pub fn restart(&mut self, shard: ShardId) {
        let shard = self.on(shard);
        if self.restarts == RESTARTS_MAX {
            return;
        }
        self.restarts += 1;
        for wire in self.wires.iter_mut().filter(|it| it.id.shard().index() == shard) {
            wire.state = State::Gone;
            wire.pending.clear();
        }
        self.opens.retain(|(asked, ..)| asked.index() != shard);
        self.slots[shard] = (Vec::new(), 0, 0);
        let setup = &mut self.born[shard];
        setup.incarnation += 1;
        setup.config = Arc::clone(&self.config);
        self.engines[shard] = Engine::new(self.now, setup.clone());
        self.settle(shard);
        self.restore(shard);
    }

    /// Lets time pass, alarm by alarm.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut at_once = 0;
        loop {
            let next = self.engines.iter().filter_map(Engine::next_deadline).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            at_once = if next > self.now { 0 } else { at_once + 1 };
            assert!(at_once < ALARMS_AT_ONCE_MAX, "alarms without end at {:?}", self.now);
            self.now = self.now.max(next);
            for shard in 0..self.engines.len() {
                self.engines[shard].handle_timeout(self.now);
                self.settle(shard);
            }
        }
        self.now = end;
    }

    /// One input, and what follows from it by itself.
    pub fn tell(&mut self, shard: usize, input: Input<'_>) {
        self.engines[shard].handle(self.now, input);
        self.settle(shard);
    }

    /// Takes the outputs, and does what happens by itself.
    fn settle(&mut self, shard: usize) {
        self.watch(shard);
        if self.manners.answers_pings {
            self.answer_pings(shard);
        }
        if self.manners.takes_writes {
            self.take_all_writes(shard);
        }
        if self.manners.hears_links {
            self.hear_all_links();
        }
    }

    /// From here on everything happens by itself, and no connection is made.
    pub fn behave(&mut self) {
        self.manners = Manners { takes_writes: true, hears_links: true, answers_pings: true };
        for shard in 0..self.engines.len() {
            self.settle(shard);
        }
        while !self.opens.is_empty() {
            self.finish_open(0, false);
        }
        self.make_durable(usize::MAX);
    }
}
