//! L4: one shard's whole protocol, from plaintext up, without I/O.
//!
//! **Contract: feed any number of inputs, then drain outputs to `None`, then wait for the earlier of I/O and
//! [`Engine::next_deadline`].** Inputs run to completion: no await, no callback, no re-entry. Time
//! never goes back.
//!
//! The rooms of this floor, in the order in which a request passes them: `flows` and `upgrade` (bytes
//! become messages), `dispatch` (which shard, which transaction), `admit` and `tokens` (by whom, and
//! may they), `serve` (what is asked), `targets` (where it may go), `search` (who is tried when),
//! `fork` (copies and client transactions) and `ack` (which has none), `failover` and `standing`
//! (servers that do not answer), `client` and `server` (what the machines want),
//! `lingering` and `remembered` (what is left of answered requests), `accepted` (what is of accepted
//! INVITEs),
//! `answer` (responses up and of our own), `deliver` (bytes to a flow, here or elsewhere), `linked`
//! (what other shards say), `seek` and `wait` (clients that lost their flow), `recall` (callers that
//! came back, perhaps without their call), `alarm` (timers). Beside them: `reconfigure` (another
//! configuration), `departed` (users who are gone), `farewell` (the end), `blame` (which message a
//! fault came with).

mod accepted;
mod ack;
mod admit;
mod alarm;
mod answer;
mod best;
mod blame;
mod client;
mod connect;
mod deliver;
mod departed;
mod dispatch;
mod failover;
mod farewell;
mod flow_index;
mod flows;
mod fork;
#[doc(hidden)]
pub mod fuzz;
mod index;
pub mod input;
mod lingering;
mod linked;
mod losses;
pub mod mesh;
mod options;
pub mod output;
mod pick;
mod pings;
mod recall;
mod reconfigure;
mod registrations;
mod remembered;
mod report;
mod resources;
mod search;
mod seek;
mod serve;
mod server;
mod standing;
mod storing;
mod targets;
mod tokens;
mod transactions;
mod upgrade;
mod wait;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Tokens, Verifier};
use crate::base::buf::Pool;
use crate::base::config::{Config, Persistence};
use crate::base::hash::{KeyedHash, derive_key};
use crate::base::id::{FlowId, ShardId, Transport};
use crate::base::limits::PARSED_KEPT;
use crate::base::metrics::{Counters, Gauges};
use crate::base::rng::Rng;
use crate::base::slab::SlabKey;
use crate::base::time::Time;
use crate::base::wheel::{TimerId, Wheel};
use crate::flow::sources::Sources;
use crate::flow::table::FlowTable;
use crate::flow::token::TokenKey;
use crate::proxy::target::TargetSet;
use crate::registrar::{GruuKey, Location, Registered, Tenants};
use crate::sip::{Edits, Parsed};

use alarm::Alarm;
use best::Best;
use client::Failure;
use connect::Connects;
use departed::Departing;
use index::Index;
use losses::Losses;
use mesh::Handover;
use search::Search;
use seek::{Asker, HeldTable};
use standing::Standing;
use storing::Storing;
use transactions::{ServerTransaction, StoredRequest, Transactions};
use wait::Waiting;

pub use blame::Mishap;
pub use input::{ConnectTarget, Input, Origin};
pub use mesh::LinkMessage;
pub use output::{Output, StoreChange};
pub use resources::Resources;

/// What an engine is made with. `secret` and `epoch` are equal in all shards of one process.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which shard this is.
    pub shard: ShardId,
    /// How many there are, 1 to [`crate::base::id::SHARDS_MAX`].
    pub shards: u16,
    /// How often this shard was started anew; the top 8 bits of its flows' generations.
    pub incarnation: u8,
    /// Which run of the process this is: a token of another run never names a slot.
    pub epoch: u32,
    /// Seed of this shard's random numbers (tags, branches, hash keys).
    pub seed: [u8; 32],
    /// Key of tokens, owner placement and branches.
    pub secret: [u8; 32],
    /// The configuration in force.
    pub config: Arc<Config>,
}

/// One shard's protocol state. See the module's contract.
///
/// Events: [`Engine::handle`], [`Engine::handle_timeout`]. Polls: [`Engine::pop_output`]. Getters:
/// [`Engine::next_deadline`], [`Engine::bytes`], [`Engine::counters`], [`Engine::gauges`],
/// [`Engine::resources`], [`Engine::is_quiet`], [`Engine::unanswered`].
pub struct Engine {
    now: Time,
    shard: ShardId,
    shards: u16,
    incarnation: u8,
    config: Arc<Config>,
    /// The last one under which other names or sources were ours: transactions that are older live
    /// where it placed them.
    former: Option<Arc<Config>>,
    /// Keyed by the process' secret: equal in every shard. Decides owners, keys and loop hashes.
    placement: KeyedHash,
    tokens: TokenKey,
    verifier: Verifier,
    /// Whose tokens were good.
    shown_tokens: Tokens,
    gruus: GruuKey,
    rng: Rng,
    flows: FlowTable,
    transactions: Transactions,
    location: Location,
    index: Index,
    connects: Connects,
    /// What waits here for clients that lost their flow.
    held: HeldTable,
    /// Who waits, anywhere, for such clients of ours.
    waiting: Waiting,
    /// Who was at an address for datagrams before who is there.
    tenants: Tenants,
    standing: Standing,
    wheel: Wheel<Alarm>,
    /// When the next binding expires, if an alarm is set for it.
    expiry_alarm: Option<(Time, TimerId)>,
    pings: pings::Pings,
    /// What each source of STUN requests may have answered.
    sources: Sources,
    /// Whose passwords were wrong.
    guessers: Sources,
    outputs: VecDeque<Output>,
    /// Bytes that queued outputs name; emptied when all outputs were popped.
    arena: Vec<u8>,
    /// What must wait until the transaction at hand is back in its table.
    deferred: VecDeque<Deferred>,
    pool: Pool,
    parsed_kept: Vec<Parsed>,
    #[expect(clippy::vec_box, reason = "transactions hold boxes, which come and go as they are")]
    requests_kept: Vec<Box<StoredRequest>>,
    #[expect(clippy::vec_box, reason = "transactions hold boxes, which come and go as they are")]
    bests_kept: Vec<Box<Best>>,
    #[expect(clippy::vec_box, reason = "links carry boxes, which come and go as they are")]
    handovers_kept: Vec<Box<Handover>>,
    #[expect(clippy::vec_box, reason = "transactions hold boxes, which come and go as they are")]
    searches_kept: Vec<Box<Search>>,
    scratch: Scratch,
    storing: Storing,
    departing: Departing,
    losses: Losses,
    counters: Counters,
    draining: bool,
    /// When we were told last what the wall clock shows, and the time since 1970 that it showed.
    wall_clock: Option<(Time, Duration)>,
}

/// Storage that every message uses again.
#[derive(Default)]
struct Scratch {
    edits: Edits,
    key: Vec<u8>,
    lines: Vec<u8>,
    targets: TargetSet,
    registered: Registered,
}

/// Something that happened while a transaction was out of its table, or that may happen again while
/// it is handled: a queue instead of recursion, whose depth peers would decide.
#[derive(Clone, Copy, Debug)]
enum Deferred {
    /// A branch cannot reach its target.
    Failed(SlabKey, Failure),
    /// A flow is gone. Telling its transactions may close the next one.
    Gone(FlowId),
    /// A client lost its flow: where is it?
    Seek(Asker),
}

impl Engine {
    /// A fresh shard at time `now`; one that was started anew begins when its former self ended.
    pub fn new(now: Time, setup: Setup) -> Engine {
        assert!(setup.shard.0 < setup.shards, "a shard's number is below their count");
        let mut rng = Rng::new(setup.seed);
        let mut table_key = [0; 16];
        rng.fill(&mut table_key);
        let tables = KeyedHash::new(table_key);
        let limits = &setup.config.limits;
        Engine {
            now,
            shard: setup.shard,
            shards: setup.shards,
            incarnation: setup.incarnation,
            former: None,
            placement: KeyedHash::new(derive_key(&setup.secret, "placement")),
            tokens: TokenKey::new(&setup.secret, setup.epoch),
            verifier: Verifier::new(&setup.secret, setup.epoch, now),
            shown_tokens: Tokens::new(tables.clone()),
            gruus: GruuKey::new(&setup.secret),
            rng,
            flows: FlowTable::default(),
            transactions: Transactions::new(limits.transactions_max, &tables),
            location: location(&setup, tables.clone()),
            index: Index::new(tables.clone()),
            connects: Connects::new(tables.clone()),
            held: seek::held_table(),
            waiting: Waiting::new(tables.clone()),
            tenants: Tenants::new(tables.clone()),
            standing: Standing::new(tables.clone()),
            wheel: Wheel::new(now),
            expiry_alarm: None,
            pings: pings::Pings::default(),
            sources: Sources::new(tables.clone()),
            guessers: Sources::new(tables.clone()),
            outputs: told_of_restart(now, &setup),
            arena: Vec::new(),
            deferred: VecDeque::new(),
            pool: Pool::new(),
            parsed_kept: Vec::new(),
            requests_kept: Vec::new(),
            bests_kept: Vec::new(),
            handovers_kept: Vec::new(),
            searches_kept: Vec::new(),
            scratch: Scratch::default(),
            departing: Departing::default(),
            losses: Losses::default(),
            storing: Storing::new(setup.config.registrar.persistence, setup.incarnation, now),
            counters: Counters::default(),
            draining: false,
            wall_clock: None,
            config: setup.config,
        }
    }

    /// Event: something happened.
    pub fn handle(&mut self, now: Time, input: Input<'_>) {
        self.begin(now);
        match input {
            Input::Opened { flow, key, origin } => self.on_opened(flow, key, origin),
            Input::Data { flow, bytes } => self.on_data(flow, bytes),
            Input::Sent { flow, bytes, writes } => self.on_sent(flow, bytes, writes),
            Input::Closed { flow, why } => self.on_closed(flow, why),
            Input::RoundTrip { flow, took } => self.flows.on_round_trip(flow, took),
            Input::ConnectFailed { connect } => self.on_connect_failed(connect),
            Input::Datagram { path, bytes } => self.on_datagram(path, bytes),
            Input::Linked { from, message } => self.on_linked(from, message),
            Input::LinkRefused { message, .. } => self.on_link_refused(message),
            Input::Restored { id, expires_at, record } => self.on_restored(id, expires_at, record),
            Input::Stored { serial } => self.on_stored(serial),
            Input::Config(config) => self.reconfigure(config),
            Input::Departed(users) => self.on_departed(users),
            Input::WallClock(unix) => self.wall_clock = Some((self.now, unix)),
            Input::Drain => self.draining = true,
            Input::Dismiss { most } => self.dismiss(most),
        }
        self.run_deferred();
    }

    /// Event: `now` may have passed [`Engine::next_deadline`].
    pub fn handle_timeout(&mut self, now: Time) {
        self.begin(now);
        self.run_alarms();
        self.run_deferred();
    }

    /// Getter: when [`Engine::handle_timeout`] wants to be called; `None` when nothing is armed.
    pub fn next_deadline(&self) -> Option<Time> {
        self.wheel.next_deadline()
    }

    /// Poll: the next thing to do.
    pub fn pop_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Getter: bytes that an output named; valid until all outputs were popped and the next input
    /// comes.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.arena[range]
    }

    /// Getter: what was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Getter: how full the tables are.
    pub fn gauges(&self) -> Gauges {
        let mut flows = self.flows.by_transport();
        flows[Transport::Udp.index()] = 0;
        let mut round_trips = self.flows.round_trips();
        round_trips[Transport::Udp.index()] = self.location.round_trips();
        Gauges {
            flows,
            bindings: self.location.len() as u64,
            aors: self.location.aors() as u64,
            server_transactions: self.transactions.servers() as u64,
            client_transactions: self.transactions.client.len() as u64,
            round_trips,
            targets_resting: self.standing.resting(self.now),
        }
    }

    /// Getter: whether no transaction still waits for an answer, so that a draining process may
    /// end.
    pub fn is_quiet(&self) -> bool {
        self.unanswered() == 0
    }

    /// Getter: how many requests still wait for an answer that somebody can hear.
    pub fn unanswered(&self) -> u64 {
        let waits = |tx: &ServerTransaction| tx.context.sent == 0 && !tx.orphaned;
        self.transactions.server.iter().filter(|(_, tx)| waits(tx)).count() as u64
    }

    fn begin(&mut self, now: Time) {
        self.now = self.now.max(now);
        if self.outputs.is_empty() {
            self.arena.clear();
        }
    }

    fn run_deferred(&mut self) {
        while let Some(deferred) = self.deferred.pop_front() {
            match deferred {
                Deferred::Failed(client, failure) => self.on_branch_failed(client, failure),
                Deferred::Gone(flow) => self.on_flow_gone(flow),
                Deferred::Seek(asker) => self.seek(asker),
            }
        }
    }

    fn take_parsed(&mut self) -> Parsed {
        self.parsed_kept.pop().unwrap_or_default()
    }

    fn keep_parsed(&mut self, parsed: Parsed) {
        if parsed.has_storage() && self.parsed_kept.len() < PARSED_KEPT {
            self.parsed_kept.push(parsed);
        }
    }
}

fn location(setup: &Setup, hash: KeyedHash) -> Location {
    let mut location = Location::new(hash, setup.config.limits.bindings_max);
    if setup.config.registrar.persistence != Persistence::None {
        location.keep_journal();
    }
    location
}

/// A shard that was started anew first tells all others so.
fn told_of_restart(at: Time, setup: &Setup) -> VecDeque<Output> {
    let incarnation = setup.incarnation;
    let others = (0..setup.shards).map(ShardId).filter(|other| *other != setup.shard);
    let tell = |to| Output::Link { to, message: LinkMessage::Restarted { incarnation, at } };
    if incarnation == 0 { VecDeque::new() } else { others.map(tell).collect() }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("shard", &self.shard).finish_non_exhaustive()
    }
}
