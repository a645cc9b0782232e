//! The floor's turn: take what completed, cut messages, give each to the connection or address of
//! the number that it names, and send once a connection. Absent on purpose: clocks, timers, limits
//! other than those of its arrays, and any look at a message beyond `text`.
#![allow(unsafe_code)]

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use rustls::ServerConfig;

use crate::connection::{Connection, Layer};
use crate::connections::Connections;
use crate::datagrams::Datagrams;
use crate::ring::{self, Buffers, Completion, Op, Ring};
use crate::spares::Spares;
use crate::text::{self, Kind, Pieces};
use crate::tls::Session;
use crate::ways::{Place, Ways};
use crate::ws::{self, Front};

/// Receive buffers of all connections, and the bytes of one: the proxy's.
const BUFFERS: u16 = 1024;
const BUFFER_BYTES: usize = 2048;
const GROUP: u16 = 0;

/// A listening socket and what is spoken on it.
pub struct Listening {
    pub socket: TcpListener,
    pub layer: Layer,
    pub is_secure: bool,
}

/// Everything.
pub struct Floor {
    ring: Ring,
    buffers: Buffers,
    listeners: Vec<Listening>,
    tls: Arc<ServerConfig>,
    datagrams: Option<Datagrams>,
    connections: Connections,
    ways: Ways,
    /// Connections whose receive has ended although they have not.
    starved: Vec<u32>,
    /// Connections that have ended, to be freed at the end of the turn once the kernel lets go.
    ended: Vec<u32>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
    answer: Vec<u8>,
    spares: Spares,
}

impl Floor {
    /// A floor for the calling thread.
    pub fn new(
        listeners: Vec<Listening>,
        udp: Option<std::net::UdpSocket>,
        tls: Arc<ServerConfig>,
    ) -> io::Result<Floor> {
        let ring = Ring::new()?;
        Ok(Floor {
            buffers: Buffers::new(&ring, GROUP, BUFFERS, BUFFER_BYTES)?,
            datagrams: udp.map(|socket| Datagrams::new(&ring, socket)).transpose()?,
            ring,
            listeners,
            tls,
            connections: Connections::default(),
            ways: Ways::new(),
            starved: Vec::new(),
            ended: Vec::new(),
            plain: Vec::new(),
            sealed: Vec::new(),
            answer: Vec::new(),
            spares: Spares::default(),
        })
    }

    /// Runs for ever.
    pub fn run(&mut self) -> io::Result<()> {
        for (index, listening) in self.listeners.iter().enumerate() {
            self.ring.accept(listening.socket.as_raw_fd(), index as u32);
        }
        loop {
            self.ring.begin_turn();
            while let Some(completion) = self.ring.next_completion() {
                self.on_completion(&completion);
            }
            self.end_turn();
            self.ring.enter()?;
            self.ring.run_deferred();
        }
    }

    fn on_completion(&mut self, completion: &Completion) {
        match completion.op {
            Op::Accept => self.on_accept(completion),
            Op::Receive => self.on_receive(completion),
            Op::Send => self.on_sent(completion),
            Op::DatagramIn => self.on_datagram(completion),
            Op::DatagramOut => {
                self.datagrams.iter_mut().for_each(|udp| udp.on_sent(completion));
            }
        }
    }

    fn end_turn(&mut self) {
        let mut dirty = self.connections.take_dirty();
        dirty.drain(..).for_each(|index| self.send(index));
        self.connections.reuse_dirty(dirty);
        self.buffers.publish();
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.arm(&mut self.ring);
        }
        for index in std::mem::take(&mut self.starved) {
            if let Some(connection) = self.connections.get(index)
                && !connection.is_gone
            {
                connection.is_receiving = true;
                self.ring.receive(connection.socket(), GROUP, index);
            }
        }
        for index in std::mem::take(&mut self.ended) {
            self.connections.release(index);
        }
    }

    fn on_accept(&mut self, completion: &Completion) {
        let Listening { socket, layer, is_secure } = &self.listeners[completion.index as usize];
        if !completion.has_more() {
            self.ring.accept(socket.as_raw_fd(), completion.index);
        }
        if completion.result < 0 {
            return;
        }
        let socket = ring::own(completion.result);
        ring::delay_acknowledgements(socket.as_raw_fd());
        let session =
            is_secure.then(|| Session::new(&self.tls).expect("the default fragment size"));
        let mut connection = Box::new(Connection::new(socket, *layer, session));
        connection.is_receiving = true;
        let socket = connection.socket();
        let index = self.connections.insert(connection);
        self.ring.receive(socket, GROUP, index);
    }

    fn on_receive(&mut self, completion: &Completion) {
        let index = completion.index;
        let connection = self.connection(index);
        connection.is_receiving = completion.has_more();
        let is_gone = connection.is_gone;
        if let Some(id) = completion.buffer() {
            if completion.result > 0 && !is_gone {
                // SAFETY: the completion names it, and it is given back below, after the last use.
                let bytes = unsafe { self.buffers.bytes(id) };
                self.take_in(index, &mut bytes[..completion.result as usize]);
            }
            self.buffers.give_back(id);
        }
        if completion.result > 0 || completion.result == -libc::ENOBUFS {
            if !completion.has_more() {
                self.starved.push(index);
            }
        } else if completion.result == 0 && self.connection(index).session.is_some() {
            // Whoever ends TCP without a word is still owed a close_notify (RFC 8446 §6.1).
            self.connection(index).is_closing = true;
            self.connections.mark_dirty(index);
        } else {
            self.end(index);
        }
        self.settle(index);
    }

    /// Takes TLS off.
    fn take_in(&mut self, index: u32, bytes: &mut [u8]) {
        let Some(mut session) = self.connection(index).session.take() else {
            return self.on_plain(index, bytes);
        };
        let (mut plain, mut sealed) =
            (std::mem::take(&mut self.plain), std::mem::take(&mut self.sealed));
        let opened = session.open(bytes, &mut sealed, &mut plain);
        let connection = self.connection(index);
        connection.session = Some(session);
        if !sealed.is_empty() {
            connection.sealed.extend_from_slice(&sealed);
            self.connections.mark_dirty(index);
        }
        if !plain.is_empty() {
            self.on_plain(index, &mut plain);
        }
        if opened.is_err() {
            self.connection(index).is_closing = true;
            self.connections.mark_dirty(index);
        }
        plain.clear();
        sealed.clear();
        (self.plain, self.sealed) = (plain, sealed);
    }

    /// Cuts plaintext into messages.
    fn on_plain(&mut self, index: u32, bytes: &mut [u8]) {
        let mut input = std::mem::take(&mut self.connection(index).input);
        let used = if input.is_empty() {
            let used = self.cut(index, bytes);
            input.extend_from_slice(&bytes[used..]);
            0
        } else {
            input.extend_from_slice(bytes);
            self.cut(index, &mut input)
        };
        input.drain(..used);
        if input.len() > text::MESSAGE_MAX + 16 {
            self.end(index);
        } else if !input.is_empty() {
            self.connection(index).input = input;
        }
    }

    /// Handles what is whole: how many bytes that was.
    fn cut(&mut self, index: u32, bytes: &mut [u8]) -> usize {
        let mut used = 0;
        loop {
            if self.connection(index).is_closing || self.connection(index).is_gone {
                return bytes.len();
            }
            let rest = &mut bytes[used..];
            let length = match self.connection(index).layer {
                Layer::Upgrade => self.upgrade(index, rest),
                Layer::Frames => self.frame(index, rest),
                Layer::Stream => self.message(index, rest),
            };
            match length {
                Some(length) => used += length,
                None => return used,
            }
        }
    }

    fn upgrade(&mut self, index: u32, bytes: &[u8]) -> Option<usize> {
        match ws::upgrade(bytes) {
            Ok(None) => None,
            Ok(Some(upgrade)) => {
                let connection = self.connection(index);
                connection.layer = Layer::Frames;
                ws::accept(&upgrade, &mut connection.output);
                self.connections.mark_dirty(index);
                upgrade.number.into_iter().for_each(|number| self.name(index, number));
                Some(upgrade.length)
            }
            Err(ws::NoUpgrade) => {
                self.end(index);
                None
            }
        }
    }

    fn frame(&mut self, index: u32, bytes: &mut [u8]) -> Option<usize> {
        let frame = match ws::front(bytes) {
            Front::Frame(frame) => frame,
            Front::Incomplete => return None,
            Front::Foreign => {
                self.end(index);
                return None;
            }
        };
        let payload = &mut bytes[frame.start..frame.end];
        ws::unmask(payload, frame.key);
        match frame.opcode {
            ws::PING | ws::CLOSE => {
                const PONG: u8 = 10;
                let connection = self.connection(index);
                let opcode = if frame.opcode == ws::PING { PONG } else { ws::CLOSE };
                connection.is_closing |= frame.opcode == ws::CLOSE;
                ws::write_header(opcode, payload.len(), &mut connection.output);
                connection.output.extend_from_slice(payload);
                self.connections.mark_dirty(index);
            }
            0x1 | 0x2 => self.on_message(Place::Connection(index), payload),
            _ => {}
        }
        Some(frame.end)
    }

    fn message(&mut self, index: u32, bytes: &[u8]) -> Option<usize> {
        if bytes.starts_with(b"\r\n") {
            return Some(2);
        }
        let length = text::message_length(bytes)?;
        self.on_message(Place::Connection(index), &bytes[..length]);
        Some(length)
    }

    fn on_datagram(&mut self, completion: &Completion) {
        let Some(datagrams) = &mut self.datagrams else { return };
        // SAFETY: given back below, after the last use.
        let Some((from, bytes)) = (unsafe { datagrams.take(completion) }) else { return };
        self.on_message(Place::Address(from), bytes);
        self.datagrams.iter_mut().for_each(|udp| udp.give_back(completion));
    }

    /// Relays or answers one message. What is for nobody is dropped.
    fn on_message(&mut self, from: Place, message: &[u8]) {
        let has_stamp = match from {
            Place::Connection(index) => !self.connection(index).is_websocket(),
            Place::Address(_) => true,
        };
        let kind = text::kind(message);
        if matches!(kind, Kind::Asks | Kind::Request { .. }) {
            self.learn(from, message);
        }
        match kind {
            Kind::Asks => self.answer(from, message, has_stamp),
            Kind::Request { to, is_invite } => {
                if is_invite {
                    self.answer(from, message, has_stamp);
                }
                let way = text::Way { has_stamp, crosses: self.crosses(from, to) };
                if let Some(pieces) = text::forwarded_request(message, is_invite, way) {
                    self.relay(to, &pieces);
                }
            }
            Kind::Response { to } => {
                if let Some(pieces) = text::forwarded_response(message) {
                    self.relay(to, &pieces);
                }
            }
            Kind::Unknown => {}
        }
    }

    /// Remembers where the sender of a request is, unless a connection has its number.
    fn learn(&mut self, from: Place, message: &[u8]) {
        match from {
            Place::Connection(index) if self.connection(index).number.is_none() => {
                text::sender(message).into_iter().for_each(|number| self.name(index, number));
            }
            Place::Connection(_) => {}
            Place::Address(_) => {
                text::sender(message).into_iter().for_each(|number| self.ways.set(number, from));
            }
        }
    }

    fn name(&mut self, index: u32, number: u32) {
        self.connection(index).number = Some(number);
        self.ways.set(number, Place::Connection(index));
    }

    fn answer(&mut self, to: Place, request: &[u8], has_stamp: bool) {
        let mut answer = std::mem::take(&mut self.answer);
        text::answer(request, has_stamp, &mut answer);
        self.write(Some(to), &Pieces::whole(&answer));
        answer.clear();
        self.answer = answer;
    }

    /// Whether one of the two is on UDP and the other is not.
    fn crosses(&self, from: Place, to: u32) -> bool {
        let to = self.ways.of(to);
        matches!(from, Place::Connection(_)) != matches!(to, Some(Place::Connection(_)))
    }

    fn relay(&mut self, to: u32, pieces: &Pieces<'_>) {
        self.write(self.ways.of(to), pieces);
    }

    fn write(&mut self, to: Option<Place>, pieces: &Pieces<'_>) {
        match to {
            None => {}
            Some(Place::Address(address)) => {
                if let Some(datagrams) = &mut self.datagrams {
                    datagrams.send(&mut self.ring, address, pieces.parts());
                }
            }
            Some(Place::Connection(index)) => {
                let connection = self.connections.at(index);
                if connection.is_closing || connection.is_gone {
                    return;
                }
                if connection.output.capacity() == 0 {
                    connection.output = self.spares.take();
                }
                connection.write(pieces.parts());
                self.connections.mark_dirty(index);
            }
        }
    }

    fn send(&mut self, index: u32) {
        let mut flight = self.spares.take();
        let connection = self.connection(index);
        connection.is_dirty = false;
        let mut is_whole = true;
        if !connection.is_sending && !connection.is_gone {
            is_whole = connection.fill(&mut flight);
            if is_whole && !flight.is_empty() {
                connection.is_sending = true;
                let socket = connection.socket();
                let output = std::mem::take(&mut connection.output);
                self.spares.keep(output);
                return self.ring.send(socket, index, flight);
            }
            is_whole &= !connection.is_closing;
        }
        self.spares.keep(flight);
        if !is_whole {
            self.end(index);
            self.settle(index);
        }
    }

    fn on_sent(&mut self, completion: &Completion) {
        let flight = self.ring.take_flight(completion);
        let index = completion.index;
        let is_taken = usize::try_from(completion.result) == Ok(flight.len());
        self.spares.keep(flight);
        let connection = self.connection(index);
        connection.is_sending = false;
        let has_more = !connection.output.is_empty() || !connection.sealed.is_empty();
        if !is_taken || (connection.is_closing && !has_more) {
            self.end(index);
        } else if has_more {
            self.connections.mark_dirty(index);
        }
        self.settle(index);
    }

    /// Ends a connection: nothing goes to it or comes from it any more.
    fn end(&mut self, index: u32) {
        let connection = self.connection(index);
        if std::mem::replace(&mut connection.is_gone, true) {
            return;
        }
        connection.shut();
        let number = connection.number.take();
        number.into_iter().for_each(|number| self.ways.clear(number, index));
    }

    /// Frees a connection that has ended once nothing of it is with the kernel, at the end of the
    /// turn, when no list of this turn names it any more.
    fn settle(&mut self, index: u32) {
        let connection = self.connection(index);
        if connection.is_gone && !connection.is_receiving && !connection.is_sending {
            self.ended.push(index);
        }
    }

    fn connection(&mut self, index: u32) -> &mut Connection {
        self.connections.at(index)
    }
}
