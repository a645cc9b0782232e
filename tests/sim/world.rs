//! Engines, network and clients on one heap of events with virtual time. An event is what happens
//! at one moment to one engine or one client; what follows from it is on the heap again.

use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sipring::base::config::{Config, Persistence};
use sipring::base::event::Event;
use sipring::base::id::{ConnectId, FlowId, FlowKey, ListenerId, ShardId};
use sipring::base::metrics::Counters;
use sipring::base::time::Time;
use sipring::engine::{ConnectTarget, Engine, Input, LinkMessage, Origin, Output, Setup};

use crate::agenda::{Entry, Happening};
use crate::bearer::Mint;
use crate::check::{Aim, Books};
use crate::checker::Checker;
use crate::edge::Core;
use crate::mesh::Lanes;
use crate::mutation::Fault;
use crate::network::{Conn, ConnId};
use crate::phone::Phone;
use crate::profile::{Dice, Profile};
use crate::shelf::Shelf;
use crate::trace::Trace;

/// A peer as the proxy sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum End {
    Flow(FlowId),
    Datagram(SocketAddr),
}

/// Everything of one run.
pub struct World {
    pub now: Time,
    heap: BinaryHeap<Entry>,
    number: u64,
    pub profile: Profile,
    /// Chance of the network, of the clients' behaviour, of what is read late.
    pub net: Dice,
    pub mood: Dice,
    pub words: Dice,
    pub engines: Vec<Engine>,
    pub config: Arc<Config>,
    pub incarnations: Vec<u8>,
    /// What shards gave to the store.
    pub shelf: Shelf,
    pub reloads: usize,
    /// What each shard counted of them at its last event.
    waits_refused: Vec<u64>,
    /// What engines that failed had counted.
    pub buried: Vec<Counters>,
    pub conns: Vec<Conn>,
    pub by_flow: BTreeMap<FlowId, ConnId>,
    pub phones: Vec<Phone>,
    pub lanes: Lanes,
    /// What a registrar behind the proxy knows.
    pub core: Core,
    /// Where clients get tokens, once one did.
    pub mint: Option<Mint>,
    pub books: Books,
    pub trace: Trace,
    /// Things left to do for the script.
    pub acts_left: usize,
    pub is_over: bool,
    pub is_draining: bool,
    /// Shard, slots that are free, slots that were used.
    slots: Vec<(Vec<u32>, u32)>,
    generation: u32,
    pub fault: Option<Fault>,
    pub next_call: u32,
    /// Where the parties of a call are, by Call-ID and tag.
    pub ends: BTreeMap<(String, String), Aim>,
}

/// The secret of every run, and its number.
pub const SECRET: [u8; 32] = [9; 32];
pub const EPOCH: u32 = 1;

impl World {
    /// Fresh engines, nobody connected.
    pub fn new(profile: Profile, config: Config, shown: bool) -> World {
        let config = Arc::new(config);
        let mut seeds = Dice::new(profile.seed, 2);
        let shards = profile.shards;
        let engines = (0..shards)
            .map(|shard| Engine::new(Time::ZERO, setup(&config, shards, shard, 0, seeds.bytes())))
            .collect();
        let is_lenient = profile.is_short();
        let mut books = Books::default();
        books.slack = profile.slack();
        books.lenient = is_lenient;
        if profile.house.moves() {
            books.ways.keep(profile.house.grace);
        }
        books.edge.registrar = profile.house.edge;
        books.ways.has_pings = !profile.house.nat_ping.is_zero();
        World {
            now: Time::ZERO,
            heap: BinaryHeap::new(),
            number: 0,
            net: Dice::new(profile.seed, 3),
            mood: Dice::new(profile.seed, 4),
            words: Dice::new(profile.seed, 6),
            engines,
            config,
            incarnations: vec![0; usize::from(shards)],
            shelf: Shelf::default(),
            reloads: 0,
            waits_refused: vec![0; usize::from(shards)],
            buried: Vec::new(),
            conns: Vec::new(),
            by_flow: BTreeMap::new(),
            phones: Vec::new(),
            lanes: Lanes::new(shards),
            core: Core::default(),
            mint: None,
            books,
            trace: Trace::new(shown),
            acts_left: profile.acts,
            is_over: false,
            is_draining: false,
            slots: vec![(Vec::new(), 0); usize::from(shards)],
            generation: 1,
            fault: None,
            next_call: 0,
            ends: BTreeMap::new(),
            profile,
        }
    }

    pub fn after(&mut self, wait: Duration, what: Happening) {
        self.at(self.now + wait, what);
    }

    pub fn at(&mut self, at: Time, what: Happening) {
        self.number += 1;
        self.heap.push(Entry { at, number: self.number, what });
    }

    /// Lets time pass until `end`, or until an invariant is broken.
    pub fn run_until(&mut self, end: Time) {
        while self.books.violation().is_none() {
            let alarm = self.engines.iter().filter_map(Engine::next_deadline).min();
            let event = self.heap.peek().map(|entry| entry.at);
            let Some(next) = [alarm, event].into_iter().flatten().min() else { break };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if event.is_some_and(|event| event <= self.now) {
                let entry = self.heap.pop().expect("it was looked at");
                self.happen(entry.what);
            } else {
                self.ring_engines();
            }
        }
        self.now = self.now.max(end);
    }

    fn ring_engines(&mut self) {
        for shard in 0..self.engines.len() {
            if self.engines[shard].next_deadline().is_some_and(|at| at <= self.now) {
                self.trace.note(self.now, &ShardId(shard as u16), "alarm", &[]);
                self.engines[shard].handle_timeout(self.now);
                self.drain(shard);
            }
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Opened { conn } => self.opened(conn),
            Happening::ConnectFailed { shard, connect } => {
                self.input(shard.index(), Input::ConnectFailed { connect });
            }
            Happening::Arrive { conn } => self.arrive(conn),
            Happening::Late { conn, bytes } => self.late(conn, bytes),
            Happening::Read { conn } => self.read(conn),
            Happening::Sent { conn, bytes, writes } => self.sent(conn, bytes, writes),
            Happening::Hangup { conn, why } => self.hangup(conn, why),
            Happening::Lost { conn } => self.lost(conn),
            Happening::DatagramIn { remote, bytes } => self.datagram_in(remote, bytes),
            Happening::DatagramOut { remote, bytes } => self.datagram_out(remote, &bytes),
            Happening::Linked { from, to, message } => {
                self.lanes.taken(from, to, &message);
                self.trace.note(self.now, &(from, to), "link", &[]);
                self.input(to.index(), Input::Linked { from, message });
            }
            Happening::Rings { phone, alarm } => self.ring(phone, alarm),
            Happening::Act => self.act(),
            Happening::Restart { shard } => self.restart(shard),
            Happening::Stored { shard, incarnation, serial } => {
                if self.incarnations[shard.index()] == incarnation {
                    self.input(shard.index(), Input::Stored { serial });
                }
            }
            Happening::Restore { shard } => self.restore(shard),
            Happening::TokenEnds { flow } => self.token_ends(flow),
            Happening::Reload => self.reload(),
            Happening::Drain => {
                self.is_draining = true;
                self.books.drained_at = Some(self.now);
                for shard in 0..self.engines.len() {
                    self.input(shard, Input::Drain);
                }
            }
        }
    }

    /// One input, and what the engine wants done then.
    pub fn input(&mut self, shard: usize, input: Input<'_>) {
        self.engines[shard].handle(self.now, input);
        self.drain(shard);
    }

    fn drain(&mut self, shard: usize) {
        let mut refused = Vec::new();
        loop {
            while let Some(output) = self.engines[shard].pop_output() {
                self.output(shard, output, &mut refused);
            }
            let Some((to, message)) = refused.pop() else { break };
            self.engines[shard].handle(self.now, Input::LinkRefused { to, message });
        }
        self.note_refused_waits(shard);
        self.check_bounds(shard);
    }

    fn output(&mut self, shard: usize, output: Output, refused: &mut Vec<(ShardId, LinkMessage)>) {
        let from = ShardId(shard as u16);
        match output {
            Output::Write { flow, range } => {
                let bytes = self.engines[shard].bytes(range).to_vec();
                self.written(flow, bytes);
            }
            Output::WriteTo { path, range } => {
                let bytes = self.engines[shard].bytes(range).to_vec();
                self.datagram_written(path.remote, bytes);
            }
            Output::Open { connect, target } => self.wants_connection(from, connect, &target),
            Output::Close { why, .. } if self.fault_keeps_flow(why) => {}
            Output::Close { flow, why } => self.closed_by_proxy(flow, why),
            // This network does not tell; nor does every kernel.
            Output::Measure { .. } => {}
            Output::Link { to, message } => {
                if to == from {
                    self.books.fail(Checker::Bounded, format!("{from:?} links to itself"));
                }
                if self.fault_takes_link(&message) {
                    return;
                }
                let (latency, entries) = (self.profile.link_latency, self.profile.link_entries);
                let way = self.net.between(Duration::from_micros(5), latency);
                match self.lanes.send(from, to, &message, self.now + way, entries) {
                    Some(at) => self.at(at, Happening::Linked { from, to, message }),
                    None => refused.push((to, message)),
                }
            }
            Output::Store { serial, id, change } => self.store(from, serial, id, change),
            Output::Event(event) => self.event(shard, &event),
        }
    }

    fn event(&mut self, shard: usize, event: &Event) {
        let Event::Transaction(ended) = event else { return };
        if ended.status != 0 {
            return;
        }
        let text = self.engines[shard].bytes(ended.text.clone());
        let (method, rest) = text.split_at(usize::from(ended.method_len));
        let call_id = &rest[usize::from(ended.uri_len)..];
        let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        *self.books.expired.entry((words(call_id), words(method))).or_default() += 1;
    }

    /// A connection for an engine; servers behind the proxy listen, clients do not.
    fn wants_connection(&mut self, shard: ShardId, connect: ConnectId, target: &ConnectTarget) {
        let server = self.phones.iter().position(|it| {
            it.is_server() && it.address() == target.remote && !it.transport.is_secure()
        });
        let wait = self.net.between(Duration::from_micros(100), self.profile.latency * 2);
        let refused = self.net.happens(self.profile.reset);
        match server {
            Some(phone) if !target.secure && !refused => {
                let conn = self.new_conn(phone, Some((shard, connect)));
                self.after(wait, Happening::Opened { conn });
            }
            _ if self.fault == Some(Fault::ForgetConnect) => {}
            _ => self.after(wait, Happening::ConnectFailed { shard, connect }),
        }
    }

    /// A name for a flow of that shard. Slots that became free are used first, so that stale names
    /// meet new flows.
    pub fn new_flow(&mut self, shard: ShardId) -> FlowId {
        let (free, used) = &mut self.slots[shard.index()];
        let slot = free.pop().unwrap_or_else(|| {
            *used += 1;
            *used - 1
        });
        self.generation += 1;
        let incarnation = u32::from(self.incarnations[shard.index()]) << 24;
        FlowId::new(shard, slot, incarnation | self.generation & 0x00ff_ffff)
    }

    pub fn free_slot(&mut self, flow: FlowId) {
        self.slots[flow.shard().index()].0.push(flow.slot());
    }

    /// Tells an engine of a flow.
    pub fn open_flow(&mut self, flow: FlowId, key: FlowKey, from: Option<ConnectId>) {
        let origin = match from {
            Some(connect) => Origin::Connected(connect),
            None => Origin::Accepted(ListenerId(key.transport.index() as u16)),
        };
        self.input(flow.shard().index(), Input::Opened { flow, key, origin });
    }

    /// A shard fails with all that it knew; its flows end without a word, and another takes its
    /// place.
    fn restart(&mut self, shard: u16) {
        let at = usize::from(shard);
        self.trace.note(self.now, &ShardId(shard), "restart", &[]);
        self.check_durable(shard);
        self.incarnations[at] += 1;
        let seed = self.mood.bytes();
        let setup = setup(&self.config, self.profile.shards, shard, self.incarnations[at], seed);
        let old = std::mem::replace(&mut self.engines[at], Engine::new(self.now, setup));
        self.buried.push(old.counters().clone());
        self.books.on_restart(self.now);
        let flows: Vec<(FlowId, ConnId)> = self
            .by_flow
            .iter()
            .filter(|(flow, _)| flow.shard().0 == shard)
            .map(|(flow, conn)| (*flow, *conn))
            .collect();
        self.slots[at] = (Vec::new(), 0);
        for (flow, conn) in flows {
            self.forget_flow(flow);
            self.cut(conn);
        }
        self.tell_time(at);
        if self.is_draining {
            self.engines[at].handle(self.now, Input::Drain);
        }
        self.drain(at);
        if self.profile.house.persistence != Persistence::None {
            let shard = ShardId(shard);
            self.after(Duration::from_millis(1), Happening::Restore { shard });
        }
    }

    /// Who was refused a place among those that wait is answered as if nobody came back.
    fn note_refused_waits(&mut self, shard: usize) {
        let refused = self.engines[shard].counters().waits_refused;
        if refused > self.waits_refused[shard] {
            self.books.ways.refused(self.now);
        }
        self.waits_refused[shard] = refused;
    }

    fn check_bounds(&mut self, shard: usize) {
        let gauges = self.engines[shard].gauges();
        let limits = &self.config.limits;
        let (transactions, bindings) = (limits.transactions_max as u64, limits.bindings_max as u64);
        let fits = gauges.server_transactions <= transactions
            && gauges.client_transactions <= 2 * transactions
            && gauges.bindings <= bindings;
        if !fits {
            self.books.fail(Checker::Bounded, format!("{gauges:?}"));
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What was counted, failed engines included.
    pub fn counted(&self) -> Counters {
        let mut sum = [0; Counters::COUNT];
        let living = self.engines.iter().map(Engine::counters);
        for counters in living.chain(&self.buried) {
            for (total, value) in sum.iter_mut().zip(counters.values()) {
                *total += value;
            }
        }
        Counters::from_values(sum)
    }
}

fn setup(config: &Arc<Config>, shards: u16, shard: u16, incarnation: u8, seed: [u8; 32]) -> Setup {
    Setup {
        shard: ShardId(shard),
        shards,
        incarnation,
        epoch: EPOCH,
        seed,
        secret: SECRET,
        config: Arc::clone(config),
    }
}
