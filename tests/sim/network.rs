//! Connections and datagrams between clients and the proxy, with all that can happen on the way:
//! streams are split, joined, stalled, reset, closed and forgotten. What the proxy reads and
//! writes passes the books here, at its very edge.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use sipring::base::id::{ConnectId, FlowId, FlowKey, ShardId, Transport};
use sipring::base::limits::{DUTY_FACTOR, TRUNK_FACTOR};
use sipring::base::time::Time;
use sipring::engine::Input;

use crate::agenda::Happening;
use crate::check::Peer;
use crate::checker::Checker;
use crate::lab::listener_address;
use crate::message::Sip;
use crate::phone::PhoneId;
use crate::wire::{self, Reader};
use crate::world::{End, World};

pub type ConnId = usize;

/// No request of a simulation is longer, as written.
const REQUEST_MAX: usize = 4096;

/// What the books call a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// Nothing.
    None,
    Request(u32),
    Answer(u32),
    /// The upgrade, with a token.
    Upgrade,
}

/// One connection.
pub struct Conn {
    pub phone: PhoneId,
    pub transport: Transport,
    pub remote: SocketAddr,
    pub flow: Option<FlowId>,
    /// The shard that accepts it, or the engine that wanted it.
    shard: ShardId,
    connect: Option<ConnectId>,
    /// The client still holds it.
    pub held: bool,
    /// The token that its upgrade shows.
    pub shown: Option<String>,
    /// Messages may be sent on it.
    pub ready: bool,
    /// Nothing goes either way any more, and nobody is told.
    pub dead: bool,
    /// Since when.
    pub dead_since: Time,
    /// When the proxy wrote the first request to it since.
    pub asked_since: Option<Time>,
    /// Garbage went up before: what follows it may be taken for a part of it.
    pub tainted: bool,
    /// The client does not read; what it has not taken.
    pub stalled: bool,
    pub was_stalled: bool,
    /// Some request would have found no room in its queue.
    pub was_crowded: bool,
    untaken: (u32, u16),
    /// As the engine counts: written and not taken.
    queued: (usize, usize),
    pub up: VecDeque<u8>,
    up_end: u64,
    up_taken: u64,
    up_due: bool,
    /// Where messages end in what goes up.
    pub marks: VecDeque<(u64, Mark)>,
    pub down: Vec<u8>,
    down_due: bool,
    pub reader: Reader,
}

impl World {
    /// A connection of a client, or of an engine to a server.
    pub fn new_conn(&mut self, phone: PhoneId, by: Option<(ShardId, ConnectId)>) -> ConnId {
        let it = &mut self.phones[phone];
        it.ports += 1;
        let remote = match by {
            Some(_) => it.address(),
            None => SocketAddr::new(it.ip, 40_000 + it.ports),
        };
        let transport = it.transport;
        let shard = match by {
            Some((shard, _)) => shard,
            None => ShardId(self.net.below(u64::from(self.profile.shards)) as u16),
        };
        self.conns.push(Conn {
            phone,
            transport,
            remote,
            flow: None,
            shard,
            connect: by.map(|(_, connect)| connect),
            held: true,
            shown: None,
            ready: false,
            dead: false,
            dead_since: Time::ZERO,
            asked_since: None,
            tainted: false,
            stalled: false,
            was_stalled: false,
            was_crowded: false,
            untaken: (0, 0),
            queued: (0, 0),
            up: VecDeque::new(),
            up_end: 0,
            up_taken: 0,
            up_due: false,
            marks: VecDeque::new(),
            down: Vec::new(),
            down_due: false,
            reader: Reader::new(transport),
        });
        self.conns.len() - 1
    }

    /// A client connects; it may send at once, as one that does not wait for the handshake.
    pub fn connect(&mut self, phone: PhoneId) -> ConnId {
        let conn = self.new_conn(phone, None);
        let way = self.way();
        self.after(way, Happening::Opened { conn });
        conn
    }

    pub fn way(&mut self) -> Duration {
        self.net.between(Duration::from_micros(200), self.profile.latency)
    }

    pub fn opened(&mut self, conn: ConnId) {
        if self.conns[conn].dead {
            return;
        }
        let flow = self.new_flow(self.conns[conn].shard);
        self.conns[conn].flow = Some(flow);
        self.by_flow.insert(flow, conn);
        self.books.edge.opened(End::Flow(flow));
        let Conn { transport, remote, connect, .. } = self.conns[conn];
        self.books.ways.opened(End::Flow(flow), transport);
        let told = self.plant_transport(transport);
        let mut local = listener_address(told);
        if connect.is_some() {
            local.set_port(40_000);
        }
        self.trace.note(self.now, &(flow, remote), "opened", &[]);
        self.open_flow(flow, FlowKey { transport: told, local, remote }, connect);
        if transport.is_websocket() {
            self.upgrade(conn);
        } else {
            self.conns[conn].ready = true;
            self.on_ready(conn);
        }
    }

    /// Bytes of a client; `mark` is the message that ends with them.
    pub fn push(&mut self, conn: ConnId, bytes: &[u8], mark: Mark) {
        let it = &mut self.conns[conn];
        if it.dead || !it.held {
            return;
        }
        it.up.extend(bytes);
        it.up_end += bytes.len() as u64;
        if mark != Mark::None {
            it.marks.push_back((it.up_end, mark));
        }
        if !std::mem::replace(&mut it.up_due, true) {
            let way = self.way();
            self.after(way, Happening::Arrive { conn });
        }
    }

    pub fn arrive(&mut self, conn: ConnId) {
        self.conns[conn].up_due = false;
        let is_alive = |flow: &FlowId| !self.conns[conn].dead && self.by_flow.contains_key(flow);
        let Some(flow) = self.conns[conn].flow.filter(is_alive) else { return };
        let most = self.conns[conn].up.len();
        if most == 0 {
            return;
        }
        let is_split = most > 1 && self.net.happens(self.profile.stream_split);
        let len = if is_split { 1 + self.net.below(most as u64) as usize } else { most };
        let it = &mut self.conns[conn];
        let mut bytes: Vec<u8> = it.up.drain(..len).collect();
        it.up_taken += len as u64;
        if !it.up.is_empty() {
            it.up_due = true;
            let way = self.net.between(Duration::ZERO, Duration::from_millis(20));
            self.after(way, Happening::Arrive { conn });
        }
        let known_until = self.books.bearers.end_of(End::Flow(flow));
        while let Some((end, mark)) = self.conns[conn].marks.front().copied() {
            if end > self.conns[conn].up_taken {
                break;
            }
            self.conns[conn].marks.pop_front();
            match mark {
                Mark::None => {}
                // Behind garbage it may be taken for a part of that.
                Mark::Answer(_) if self.conns[conn].tainted => {}
                Mark::Answer(number) => {
                    self.books.on_answer_in(number, End::Flow(flow), self.now);
                }
                Mark::Upgrade => {
                    let token = self.conns[conn].shown.as_deref().unwrap_or_default();
                    self.books.bearers.on_upgrade_in(token, End::Flow(flow), self.now);
                }
                Mark::Request(serial) => {
                    if self.conns[conn].tainted {
                        self.books.bearers.doubt(End::Flow(flow));
                    }
                    self.books.on_request_in(serial, End::Flow(flow), self.now);
                    if self.conns[conn].tainted {
                        self.books.excuse(serial);
                    }
                }
            }
        }
        if self.books.bearers.end_of(End::Flow(flow)) != known_until {
            self.watch_token(flow);
        }
        self.trace.note(self.now, &(flow, self.conns[conn].remote), "-->", &bytes);
        self.input(flow.shard().index(), Input::Data { flow, bytes: &mut bytes });
    }

    /// The proxy writes to a flow.
    pub fn written(&mut self, flow: FlowId, bytes: Vec<u8>) {
        let len = bytes.len();
        let planted = self.plant_write(flow, bytes);
        if planted.is_empty() {
            self.swallow(flow, len);
        }
        for (flow, bytes) in planted {
            self.written_truly(flow, &bytes);
        }
    }

    /// A planted fault: as if it had been written.
    fn swallow(&mut self, flow: FlowId, len: usize) {
        let conn = self.by_flow[&flow];
        self.conns[conn].queued.0 += len;
        self.conns[conn].queued.1 += 1;
        self.after(Duration::ZERO, Happening::Sent { conn, bytes: len as u32, writes: 1 });
    }

    fn written_truly(&mut self, flow: FlowId, bytes: &[u8]) {
        let Some(conn) = self.by_flow.get(&flow).copied() else {
            let text = format!("a write to {flow}, which is closed");
            return self.books.fail(Checker::WrongClient, text);
        };
        self.trace.note(self.now, &(flow, self.conns[conn].remote), "<--", bytes);
        if let Some(message) = wire::written(self.conns[conn].transport, bytes) {
            self.out(End::Flow(flow), message);
            self.check_forsaken(conn, flow, message);
        }
        let it = &mut self.conns[conn];
        it.queued.0 += bytes.len();
        it.queued.1 += 1;
        it.down.extend_from_slice(bytes);
        let is_server = self.phones[self.conns[conn].phone].is_server();
        self.check_queue(conn, bytes.len(), is_server);
        self.note_room(conn, flow);
        let it = &mut self.conns[conn];
        if it.stalled || it.dead {
            it.untaken.0 += bytes.len() as u32;
            it.untaken.1 += 1;
            return;
        }
        let bytes = bytes.len() as u32;
        let soon = Duration::from_micros(self.net.below(300));
        self.after(soon, Happening::Sent { conn, bytes, writes: 1 });
        if !std::mem::replace(&mut self.conns[conn].down_due, true) {
            let way = self.way();
            self.after(way, Happening::Read { conn });
        }
    }

    fn check_queue(&mut self, conn: ConnId, last: usize, is_server: bool) {
        let limits = &self.config().limits;
        let share = if is_server { TRUNK_FACTOR } else { 1 };
        let share = if self.fault_halves_bounds() { 0 } else { share };
        let (bytes, writes) = self.conns[conn].queued;
        let fits = bytes <= limits.flow_queue_bytes_max * DUTY_FACTOR * share + last + 64
            && writes <= limits.flow_queue_messages_max * DUTY_FACTOR * share + 1;
        if !fits {
            let text = format!("{bytes} bytes in {writes} writes wait for {conn}");
            self.books.fail(Checker::Bounded, text);
        }
    }

    /// Tells the books whether the next request finds room in the queue, as the engine will judge.
    fn note_room(&mut self, conn: ConnId, flow: FlowId) {
        let limits = &self.config.limits;
        let (bytes, writes) = self.conns[conn].queued;
        let has_room = writes == 0
            || writes < limits.flow_queue_messages_max
                && bytes + REQUEST_MAX <= limits.flow_queue_bytes_max;
        self.conns[conn].was_crowded |= !has_room;
        self.books.registrar.has_room(End::Flow(flow), has_room, self.now);
    }

    pub fn out(&mut self, end: End, message: &[u8]) {
        let Some(sip) = Sip::read(message) else {
            let text = String::from_utf8_lossy(message).into_owned();
            return self.books.fail(Checker::Edits, format!("no SIP: {text}"));
        };
        let (phone, transport) = match end {
            End::Flow(flow) => {
                let conn = &self.conns[self.by_flow[&flow]];
                (Some(conn.phone), conn.transport)
            }
            End::Datagram(remote) => (self.phone_at(remote), Transport::Udp),
        };
        let is_server = phone.is_some_and(|phone| self.phones[phone].is_server());
        self.books.on_out(&sip, Peer { end, phone, is_server, transport }, self.now);
    }

    /// Whose address it is, or was.
    pub fn phone_at(&self, remote: SocketAddr) -> Option<PhoneId> {
        self.phones.iter().position(|it| it.transport == Transport::Udp && it.ip == remote.ip())
    }

    pub fn sent(&mut self, conn: ConnId, bytes: u32, writes: u16) {
        let Some(flow) = self.conns[conn].flow.filter(|flow| self.by_flow.contains_key(flow))
        else {
            return;
        };
        let queued = &mut self.conns[conn].queued;
        queued.0 -= bytes as usize;
        queued.1 -= usize::from(writes);
        self.note_room(conn, flow);
        self.input(flow.shard().index(), Input::Sent { flow, bytes, writes });
    }

    pub fn read(&mut self, conn: ConnId) {
        let it = &mut self.conns[conn];
        it.down_due = false;
        if it.stalled || it.dead {
            return;
        }
        let bytes = std::mem::take(&mut it.down);
        for heard in self.conns[conn].reader.read(&bytes) {
            self.hear(conn, heard);
        }
    }

    /// A client stops reading. What the proxy writes stays where it is.
    pub fn stall(&mut self, conn: ConnId) {
        self.conns[conn].stalled = true;
        self.conns[conn].was_stalled = true;
    }

    pub fn resume(&mut self, conn: ConnId) {
        if !std::mem::take(&mut self.conns[conn].stalled) || self.conns[conn].dead {
            return;
        }
        let (bytes, writes) = std::mem::take(&mut self.conns[conn].untaken);
        if writes > 0 {
            self.after(Duration::ZERO, Happening::Sent { conn, bytes, writes });
        }
        self.conns[conn].down_due = true;
        self.after(Duration::ZERO, Happening::Read { conn });
    }
}
