//! All sockets of the load and the one thread that serves them. An end is one user's side: a
//! connection, or a datagram socket. What is sent in a turn leaves at the end of it, one record and
//! one write a connection; buffers are shared and used again. Absent: SIP, beyond where a message
//! ends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::event::{Timespec, epoll};
use rustls::ClientConfig;

use crate::datagram::Datagrams;
use crate::sip;
use crate::stream::{Scratch, State, Stream, Taken, Traffic, keep};
use crate::transport::Transport;
use crate::ws::{self, Opcode};

/// Events taken from the kernel at a time.
const EVENTS_A_TURN: usize = 1024;
/// Bytes read at a time.
const INPUT_BYTES: usize = 256 * 1024;
/// Frames are masked as RFC 6455 wants it; nothing on loopback depends on the key being secret.
const MASK: [u8; 4] = [0x5a, 0xa5, 0x3c, 0xc3];

/// What the network tells. An error ends the run.
pub trait Application {
    /// SIP may be spoken at this end.
    fn on_open(&mut self, network: &mut Network, end: usize) -> Result<()>;
    /// A SIP message arrived.
    fn on_message(&mut self, network: &mut Network, end: usize, message: &[u8]) -> Result<()>;
    /// The connection is gone, and not because it was [closed](Network::close).
    fn on_closed(&mut self, network: &mut Network, end: usize, why: &anyhow::Error) -> Result<()>;
}

/// Where to, and from where.
#[derive(Clone, Debug)]
pub struct Places {
    /// The server's address for each transport, in the order of [`Transport`].
    pub servers: [SocketAddr; 5],
    /// Loopback source addresses to spread over, from 127.0.0.1 on; 0: the system's choice.
    pub sources: u8,
}

enum Link {
    Closed,
    Stream(Box<Stream>),
    Datagrams(Box<Datagrams>),
}

struct End {
    number: u32,
    transport: Transport,
    link: Link,
    /// Counts its connections, so that an event of an earlier one is known.
    generation: u32,
    out: Vec<u8>,
    is_dirty: bool,
    is_paused: bool,
    receive_buffer: Option<usize>,
}

/// The sockets.
pub struct Network {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    places: Places,
    tls: Arc<ClientConfig>,
    ends: Vec<End>,
    dirty: Vec<usize>,
    spare: Vec<Vec<u8>>,
    plain: Vec<u8>,
    scratch: Scratch,
    traffic: Traffic,
    pings: u64,
}

impl Network {
    /// Without ends.
    pub fn new(places: Places, tls: Arc<ClientConfig>) -> Result<Network> {
        Ok(Network {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS_A_TURN),
            places,
            tls,
            ends: Vec::new(),
            dirty: Vec::new(),
            spare: Vec::new(),
            plain: Vec::new(),
            scratch: Scratch { input: vec![0; INPUT_BYTES], output: Vec::new() },
            traffic: Traffic::default(),
            pings: 0,
        })
    }

    /// A new end for that user, closed yet: its name.
    pub fn add(&mut self, number: u32, transport: Transport) -> usize {
        self.ends.push(End {
            number,
            transport,
            link: Link::Closed,
            generation: 0,
            out: Vec::new(),
            is_dirty: false,
            is_paused: false,
            receive_buffer: None,
        });
        self.ends.len() - 1
    }

    /// Opens an end that is closed; [`Application::on_open`] follows for a connection, a datagram
    /// socket may be used at once.
    pub fn open(&mut self, end: usize) -> Result<()> {
        let it = &mut self.ends[end];
        let server = self.places.servers[it.transport as usize];
        let source = (self.places.sources > 0 && server.is_ipv4()).then(|| {
            let last = 1 + (end % usize::from(self.places.sources)) as u8;
            SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0)
        });
        it.generation = it.generation.wrapping_add(1);
        let data = epoll::EventData::new_u64(u64::from(it.generation) << 32 | end as u64);
        use epoll::EventFlags as On;
        let flags = On::IN | On::OUT | On::RDHUP | On::ET;
        if it.transport.is_datagram() {
            let datagrams = Datagrams::open(server, source)?;
            epoll::add(&self.epoll, datagrams.socket(), data, flags)?;
            it.link = Link::Datagrams(Box::new(datagrams));
            return Ok(());
        }
        let tls = it.transport.has_tls().then_some(&self.tls);
        let stream =
            Stream::connect(server, source, tls, it.receive_buffer).context("connecting")?;
        epoll::add(&self.epoll, stream.socket(), data, flags)?;
        it.link = Link::Stream(Box::new(stream));
        Ok(())
    }

    /// Closes the socket; what has not been sent is lost.
    pub fn close(&mut self, end: usize) {
        let it = &mut self.ends[end];
        it.link = Link::Closed;
        it.out.clear();
    }

    /// The connection of an end, while there is one.
    pub fn stream(&self, end: usize) -> Option<&Stream> {
        match &self.ends[end].link {
            Link::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    /// Connections of this end that are opened later have so small a receive buffer in the kernel:
    /// the server soon notices that nobody reads.
    pub fn shrink(&mut self, end: usize, receive_buffer: usize) {
        self.ends[end].receive_buffer = Some(receive_buffer);
    }

    /// Stops reading at an end, for good.
    pub fn pause(&mut self, end: usize) {
        self.ends[end].is_paused = true;
    }

    /// Number of the user at this end.
    pub fn number(&self, end: usize) -> u32 {
        self.ends[end].number
    }

    /// The transport of this end.
    pub fn transport(&self, end: usize) -> Transport {
        self.ends[end].transport
    }

    /// The address that an open end sends from.
    pub fn local_address(&self, end: usize) -> Result<SocketAddr> {
        Ok(match &self.ends[end].link {
            Link::Closed => return Err(anyhow!("the end is closed")),
            Link::Stream(stream) => stream.socket().local_addr()?,
            Link::Datagrams(datagrams) => datagrams.socket().local_addr()?,
        })
    }

    /// Bytes that the sockets took and gave so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Pings answered so far.
    pub fn pings(&self) -> u64 {
        self.pings
    }

    /// Sends a message at the end of this turn. A closed end loses it.
    pub fn send(&mut self, end: usize, message: &[u8]) {
        let opcode = self.ends[end].transport.is_web().then_some(Opcode::Text);
        self.queue(end, opcode, message);
    }

    fn queue(&mut self, end: usize, opcode: Option<Opcode>, bytes: &[u8]) {
        let it = &mut self.ends[end];
        if let Link::Datagrams(datagrams) = &mut it.link {
            datagrams.push(bytes);
        } else {
            if it.out.capacity() == 0 {
                it.out = self.spare.pop().unwrap_or_default();
            }
            match opcode {
                Some(opcode) => ws::write_frame(opcode, bytes, MASK, &mut it.out),
                None => it.out.extend_from_slice(bytes),
            }
        }
        if !it.is_dirty {
            it.is_dirty = true;
            self.dirty.push(end);
        }
    }

    /// Waits for sockets to become ready, but not longer than `patience`, and tells `app` what they
    /// gave.
    pub fn turn(&mut self, app: &mut dyn Application, patience: Duration) -> Result<()> {
        let patience = Timespec::try_from(patience)?;
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&patience))
        {
            Err(rustix::io::Errno::INTR) => {}
            count => drop(count?),
        }
        for event in &events {
            let (data, flags) = (event.data.u64(), event.flags);
            let (end, generation) = (data as u32 as usize, (data >> 32) as u32);
            if self.ends[end].generation != generation {
                continue;
            }
            if let Err(error) = self.ready(app, end, flags) {
                self.close(end);
                app.on_closed(self, end, &error)?;
            }
        }
        self.events = events;
        Ok(())
    }

    /// Sends what the turn produced.
    pub fn flush(&mut self, app: &mut dyn Application) -> Result<()> {
        while let Some(end) = self.dirty.pop() {
            let it = &mut self.ends[end];
            it.is_dirty = false;
            let sent = match &mut it.link {
                Link::Closed => Ok(()),
                Link::Stream(_) if it.out.is_empty() => Ok(()),
                Link::Stream(stream) => stream.send(&it.out, &mut self.scratch, &mut self.traffic),
                Link::Datagrams(datagrams) => datagrams.flush(&mut self.traffic),
            };
            it.out.clear();
            if it.out.capacity() > 0 {
                self.spare.push(std::mem::take(&mut it.out));
            }
            if let Err(error) = sent {
                self.close(end);
                app.on_closed(self, end, &error)?;
            }
        }
        Ok(())
    }

    /// An error that is returned is the connection's.
    fn ready(
        &mut self,
        app: &mut dyn Application,
        end: usize,
        flags: epoll::EventFlags,
    ) -> Result<()> {
        let it = &mut self.ends[end];
        match &mut it.link {
            Link::Closed => return Ok(()),
            Link::Datagrams(datagrams) => {
                datagrams.flush(&mut self.traffic)?;
                return self.read_datagrams(app, end);
            }
            Link::Stream(stream) if stream.state == State::Connecting => {
                if stream.connected(&mut self.scratch, &mut self.traffic)? {
                    self.secured(app, end)?;
                }
            }
            Link::Stream(stream) if flags.contains(epoll::EventFlags::OUT) => {
                stream.resume(&mut self.traffic)?;
            }
            Link::Stream(_) => {}
        }
        let ends = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        if flags.intersects(epoll::EventFlags::IN | ends) && !self.ends[end].is_paused {
            self.read_stream(app, end, flags.intersects(ends))?;
        }
        Ok(())
    }

    fn read_datagrams(&mut self, app: &mut dyn Application, end: usize) -> Result<()> {
        let mut input = std::mem::take(&mut self.scratch.input);
        let mut result = Ok(());
        while result.is_ok() {
            let Link::Datagrams(datagrams) = &mut self.ends[end].link else { break };
            match datagrams.receive(&mut input, &mut self.traffic) {
                Ok(Some(length)) => result = app.on_message(self, end, &input[..length]),
                Ok(None) => break,
                Err(error) => result = Err(error),
            }
        }
        self.scratch.input = input;
        result
    }

    /// `to_end`: the end of the connection is known to be near, and must be read, too.
    fn read_stream(&mut self, app: &mut dyn Application, end: usize, to_end: bool) -> Result<()> {
        loop {
            let mut plain = std::mem::take(&mut self.plain);
            plain.clear();
            let Link::Stream(stream) = &mut self.ends[end].link else {
                self.plain = plain;
                return Ok(());
            };
            plain.extend_from_slice(&stream.rest);
            let was_secured = stream.is_secured();
            let taken = stream.read(&mut plain, &mut self.scratch, &mut self.traffic);
            let is_secured = stream.is_secured();
            let mut result = match is_secured && !was_secured {
                true => self.secured(app, end),
                false => Ok(()),
            };
            if result.is_ok() && !matches!(taken, Ok(Taken::Nothing)) {
                result = self.deliver(app, end, &plain);
            }
            self.plain = plain;
            result?;
            match taken? {
                Taken::Some => {}
                Taken::Last if to_end => {}
                Taken::Last | Taken::Nothing => return Ok(()),
                Taken::End => return Err(anyhow!("the server closed the connection")),
            }
        }
    }

    /// TCP and TLS are there.
    fn secured(&mut self, app: &mut dyn Application, end: usize) -> Result<()> {
        let End { transport, number, ref mut link, .. } = self.ends[end];
        let Link::Stream(stream) = link else { return Ok(()) };
        if transport.is_web() {
            stream.state = State::Upgrading;
            let host = self.places.servers[transport as usize].to_string();
            let mut upgrade = Vec::new();
            ws::write_upgrade(&host, number, &mut upgrade);
            self.queue(end, None, &upgrade);
            return Ok(());
        }
        stream.state = State::Open;
        app.on_open(self, end)
    }

    /// Hands what is complete of `plain` to the application, and keeps the rest.
    fn deliver(&mut self, app: &mut dyn Application, end: usize, plain: &[u8]) -> Result<()> {
        let mut used = 0;
        while used < plain.len() {
            let Link::Stream(stream) = &mut self.ends[end].link else { return Ok(()) };
            let bytes = &plain[used..];
            let length = if stream.state == State::Upgrading {
                let length = ws::read_upgrade(bytes)?;
                if length.is_some() {
                    stream.state = State::Open;
                    app.on_open(self, end)?;
                }
                length
            } else if self.ends[end].transport.is_web() {
                self.deliver_frame(app, end, bytes)?
            } else {
                let length = sip::message_length(bytes)?;
                if let Some(length) = length.filter(|length| *length > sip::CRLF) {
                    app.on_message(self, end, &bytes[..length])?;
                }
                length
            };
            let Some(length) = length else { break };
            used += length;
        }
        if let Link::Stream(stream) = &mut self.ends[end].link {
            keep(&mut stream.rest, &plain[used..]);
        }
        Ok(())
    }

    fn deliver_frame(
        &mut self,
        app: &mut dyn Application,
        end: usize,
        bytes: &[u8],
    ) -> Result<Option<usize>> {
        let Some(frame) = ws::read_frame(bytes)? else { return Ok(None) };
        let length = frame.payload.end;
        let payload = &bytes[frame.payload];
        match frame.opcode {
            Opcode::Text | Opcode::Binary => {
                if payload.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
                    app.on_message(self, end, payload)?;
                }
            }
            Opcode::Ping => {
                self.pings += 1;
                self.queue(end, Some(Opcode::Pong), payload);
            }
            Opcode::Pong => {}
            Opcode::Close => return Err(anyhow!("the server closed the WebSocket")),
        }
        Ok(Some(length))
    }
}
