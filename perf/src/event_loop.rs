//! All clients of one run, and the one thread that serves them: opens them, a window at a time, and
//! tells each when its socket is ready.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConfig;
use socket2::{Domain, Protocol, Socket, Type};

use crate::Population;
use crate::client::{Client, State};
use crate::sip::User;
use crate::tls;

/// Events taken from the kernel at a time.
const EVENTS_A_TURN: usize = 1024;

/// The clients; the position of each is its poll token, and its user's number less the first one's.
pub struct Clients {
    population: Population,
    poll: Poll,
    events: Events,
    config: Arc<ClientConfig>,
    clients: Vec<Client>,
    registered: usize,
    closed: usize,
}

/// What happened while the connections were held.
pub struct Totals {
    /// Connections that the server ended.
    pub closed: usize,
    /// Pings answered.
    pub pings: u64,
}

impl Clients {
    /// None yet.
    pub fn new(population: Population) -> Result<Clients> {
        ensure!(population.connections > 0 && population.window > 0, "nothing to do");
        Ok(Clients {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_A_TURN),
            config: tls::config()?,
            clients: Vec::with_capacity(population.connections),
            registered: 0,
            closed: 0,
            population,
        })
    }

    /// Opens every connection and waits until every user is registered: how long that took.
    pub fn register_all(&mut self) -> Result<Duration> {
        let started = Instant::now();
        let deadline = started + Duration::from_secs(self.population.deadline);
        while self.registered < self.population.connections {
            self.open_window()?;
            self.turn(deadline)?;
            ensure!(self.closed == 0, "the server closed a connection before all were registered");
            ensure!(
                Instant::now() < deadline,
                "{} of {} registered in {} s",
                self.registered,
                self.population.connections,
                self.population.deadline
            );
        }
        Ok(started.elapsed())
    }

    /// Serves the connections for that long, or until the last is closed.
    pub fn hold(&mut self, time: Duration) -> Result<Totals> {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline && self.closed < self.clients.len() {
            self.turn(deadline)?;
        }
        Ok(Totals { closed: self.closed, pings: self.clients.iter().map(Client::pings).sum() })
    }

    fn open_window(&mut self) -> Result<()> {
        let Population { connections, window, .. } = self.population;
        while self.clients.len() < connections && self.clients.len() - self.registered < window {
            let client = self.open(self.clients.len()).context("opening a connection")?;
            self.clients.push(client);
        }
        Ok(())
    }

    fn open(&self, index: usize) -> Result<Client> {
        let Population { server, first, sources, ref domain, .. } = self.population;
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if sources > 1 {
            let last = 1 + (index % usize::from(sources)) as u8;
            let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&server.into()) {
            Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(error.into()),
            _ => {}
        }
        let user = User::new(first + index, domain);
        let stream = TcpStream::from_std(socket.into());
        let mut client = Client::new(stream, server, self.config.clone(), user)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(client.socket(), Token(index), both)?;
        Ok(client)
    }

    /// Waits for sockets to become ready, but not past `deadline`, and lets their clients act.
    fn turn(&mut self, deadline: Instant) -> Result<()> {
        let patience = deadline.saturating_duration_since(Instant::now());
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        for event in &self.events {
            let Token(index) = event.token();
            let client = &mut self.clients[index];
            let before = client.state();
            if before == State::Closed {
                continue;
            }
            client.ready().with_context(|| format!("client {index} ({before:?})"))?;
            let after = client.state();
            if before != State::Registered && after == State::Registered {
                self.registered += 1;
            }
            if after == State::Closed {
                self.closed += 1;
                self.poll.registry().deregister(client.socket())?;
            }
        }
        Ok(())
    }
}

/// `connect(2)` on a non-blocking socket: under way.
const EINPROGRESS: i32 = 115;
