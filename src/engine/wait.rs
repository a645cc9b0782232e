//! Where clients are that lost their flow, at the shard that owns their address of record: who asks
//! waits here until the client registers again or its grace is over. Bounded for each client and
//! for the shard, in count and in bytes.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::base::event::CloseReason;
use crate::base::hash::KeyedHash;
use crate::base::id::{ClientKey, FlowId, FlowRef, ShardId, StreamPath};
use crate::base::limits::{
    PROBE_TIME, WAIT_BRIEF, WAITER_BYTES_MAX, WAITER_BYTES_OF_CLIENT_MAX, WAITERS_MAX,
    WAITERS_OF_CLIENT_MAX,
};
use crate::base::slab::{Slab, SlabKey};
use crate::base::time::Time;
use crate::base::wheel::TimerId;
use crate::flow::keepalive;
use crate::registrar::{BindingFlow, Came};
use crate::ws::frame::{Opcode, write_frame};

use super::Engine;
use super::alarm::Alarm;
use super::mesh::LinkMessage;
use super::output::Output;
use super::seek::{Asker, Found, Seek};

/// The keep-alive that a stream's peer answers (RFC 5626 §3.5.1).
const PING: &[u8] = b"\r\n\r\n";

/// One question that is not answered yet.
#[derive(Debug)]
struct Waiter {
    from: ShardId,
    seek: Seek,
    timer: Option<TimerId>,
}

/// All questions of one shard.
pub(super) struct Waiting {
    waiters: Slab<Waiter>,
    by_client: HashMap<ClientKey, SmallVec<[SlabKey; 2]>, KeyedHash>,
    bytes: usize,
}

impl Waiting {
    pub fn new(hash: KeyedHash) -> Waiting {
        let by_client = HashMap::with_hasher(hash);
        Waiting { waiters: Slab::new(WAITERS_MAX), by_client, bytes: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// How many bytes wait for their answers.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is room for one more.
    fn admits(&self, seek: &Seek) -> bool {
        let bytes = seek.bytes as usize;
        let others = self.by_client.get(&seek.client).map_or(&[][..], |keys| keys);
        let sizes = others.iter().filter_map(|key| self.waiters.get(*key));
        let of_client: usize = sizes.map(|waiter| waiter.seek.bytes as usize).sum();
        others.len() < WAITERS_OF_CLIENT_MAX
            && (others.is_empty() || of_client + bytes <= WAITER_BYTES_OF_CLIENT_MAX)
            && self.bytes + bytes <= WAITER_BYTES_MAX
            && self.waiters.len() < WAITERS_MAX
    }

    fn remove(&mut self, key: SlabKey) -> Option<Waiter> {
        let waiter = self.waiters.remove(key)?;
        self.bytes -= waiter.seek.bytes as usize;
        let client = waiter.seek.client;
        if let Some(keys) = self.by_client.get_mut(&client) {
            keys.retain(|it| *it != key);
            if keys.is_empty() {
                self.by_client.remove(&client);
            }
        }
        Some(waiter)
    }
}

/// What is known of a client.
enum Whereabouts {
    /// On this flow.
    Here(StreamPath),
    /// Nowhere, until then at most.
    Suspended(Time),
    /// Gone, or never there.
    Unknown,
}

impl Engine {
    /// Something at a shard is for a client that lost its flow.
    pub(super) fn on_seek(&mut self, from: ShardId, seek: Seek) {
        let mut found = self.whereabouts(seek.client);
        // The shard that asks has heard of the end of the flow before us.
        if matches!(found, Whereabouts::Here(path) if path.flow == seek.lost) {
            self.unbind_flow(seek.lost);
            found = self.whereabouts(seek.client);
        }
        match found {
            Whereabouts::Here(path) => self.answer_seek(from, &seek, Some(path)),
            // To a process that ends nobody comes back.
            Whereabouts::Suspended(until) if !self.draining => self.wait(from, seek, until),
            Whereabouts::Suspended(_) | Whereabouts::Unknown => {
                self.answer_seek(from, &seek, None);
            }
        }
    }

    fn whereabouts(&self, client: ClientKey) -> Whereabouts {
        let Some(binding) = self.location.of_client(client, self.now) else {
            return Whereabouts::Unknown;
        };
        match binding.flow() {
            BindingFlow::Flow(FlowRef::Stream(path)) => Whereabouts::Here(path),
            _ => match self.location.awaited(binding, self.now) {
                Some(until) => Whereabouts::Suspended(until),
                None => Whereabouts::Unknown,
            },
        }
    }

    fn wait(&mut self, from: ShardId, seek: Seek, until: Time) {
        if !self.waiting.admits(&seek) {
            self.counters.waits_refused += 1;
            return self.answer_seek(from, &seek, None);
        }
        let until = if seek.brief { until.min(self.now + WAIT_BRIEF) } else { until };
        let waiter = Waiter { from, seek, timer: None };
        let key = self.waiting.waiters.insert(waiter).expect("there is room");
        let timer = self.wheel.arm(until, Alarm::Wait(key));
        self.waiting.waiters.get_mut(key).expect("just added").timer = Some(timer);
        self.waiting.bytes += seek.bytes as usize;
        self.waiting.by_client.entry(seek.client).or_default().push(key);
        self.counters.waits += 1;
    }

    /// Nobody came.
    pub(super) fn on_wait_over(&mut self, key: SlabKey) {
        let Some(Waiter { from, seek, .. }) = self.waiting.remove(key) else { return };
        self.answer_seek(from, &seek, None);
    }

    fn answer_seek(&mut self, to: ShardId, seek: &Seek, path: Option<StreamPath>) {
        // What was promised to go over TLS goes over TLS, wherever the client is by now.
        let path = path.filter(|path| !seek.secure || path.transport.is_secure());
        self.counters.waits_found += u64::from(path.is_some());
        let found = Found { client: seek.client, asker: seek.asker, path };
        if to == self.shard {
            self.on_found(found);
        } else {
            self.outputs.push_back(Output::Link { to, message: LinkMessage::Found(found) });
        }
    }

    /// Clients registered on a flow: it learns who they are. If one had another flow that lives as
    /// far as anybody knows, that is asked; when it does not answer it is closed, and what was for
    /// it follows. When it does, it keeps its dialogs.
    pub(super) fn on_came(&mut self, source: FlowRef, came: &[Came]) {
        let FlowRef::Stream(path) = source else { return };
        for Came { client, former } in came {
            self.tell_flow(path.flow, LinkMessage::Client { flow: path.flow, client: *client });
            if let Some(former) = former {
                self.tell_flow(former.flow, LinkMessage::Probe { flow: former.flow });
            }
        }
    }

    /// What waited for clients goes on: they are there.
    pub(super) fn wake(&mut self, source: FlowRef, came: &[Came]) {
        let FlowRef::Stream(path) = source else { return };
        for Came { client, .. } in came {
            self.answer_waiters(*client, Some(path));
        }
    }

    /// What waited for clients that somebody took out is answered: they do not come back.
    pub(super) fn await_no_longer(&mut self, left: &[ClientKey]) {
        for client in left {
            if self.location.of_client(*client, self.now).is_none() {
                self.answer_waiters(*client, None);
            }
        }
    }

    fn answer_waiters(&mut self, client: ClientKey, path: Option<StreamPath>) {
        for key in self.waiting.by_client.remove(&client).unwrap_or_default() {
            let Some(Waiter { from, seek, timer }) = self.waiting.remove(key) else { continue };
            if let Some(timer) = timer {
                self.wheel.cancel(timer);
            }
            self.answer_seek(from, &seek, path);
        }
    }

    /// Tells the shard of a flow something about it.
    fn tell_flow(&mut self, flow: FlowId, message: LinkMessage) {
        let to = flow.shard();
        if to == self.shard {
            self.on_linked(to, message);
        } else {
            self.outputs.push_back(Output::Link { to, message });
        }
    }

    /// The client of a flow of ours is on another one, too. Does this one live?
    pub(super) fn probe(&mut self, flow: FlowId) {
        let Some(found) = self.flows.get_mut(flow) else { return };
        let is_websocket = found.path.transport.is_websocket();
        let payload = found.on_probe_sent(self.now);
        let timer = self.wheel.arm(self.now + PROBE_TIME, Alarm::Probe(flow));
        if let Some(old) = found.timer.replace(timer) {
            self.wheel.cancel(old);
        }
        self.counters.flows_probed += 1;
        self.write_raw(flow, |out| match is_websocket {
            true => write_frame(out, Opcode::Ping, &payload),
            false => out.extend_from_slice(PING),
        });
    }

    /// Time is up for a flow that was asked.
    pub(super) fn on_probe_over(&mut self, name: FlowId) {
        let Some(flow) = self.flows.get_mut(name) else { return };
        flow.timer = None;
        if flow.is_probed() {
            return self.close(name, CloseReason::Pong);
        }
        let look = keepalive::first_look(flow, &self.config.limits);
        flow.timer = Some(self.wheel.arm(self.now + look, Alarm::Flow(name)));
    }
}

const _: () = assert!(size_of::<Asker>() <= 12);
