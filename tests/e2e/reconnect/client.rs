//! A WSS client with a password that loses its connection in some way and comes back on another.

use std::time::{Duration, Instant};

use crate::loss::{End, Known};
use crate::support::digest::try_log_in;
use crate::support::link::{Incoming, Link, Transport};
use crate::support::log::Flow;
use crate::support::phone::{PATIENCE, Phone};
use crate::support::sip::{Message, unique};
use crate::support::{Server, Setup};

/// Everybody's.
pub const PASSWORD: &str = "secret";

/// Where it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    SameShard,
    OtherShard,
}

pub const PLACES: [Place; 2] = [Place::SameShard, Place::OtherShard];

/// A proxy with two shards which waits as long as it may for clients that it lost.
pub fn patient() -> Setup {
    Setup::new()
        .shards(2)
        .registrar("grace", "\"30s\"")
        .limit("ping_interval", "\"55s\"")
        .log_level("debug")
}

/// The same where these users have the password.
pub fn setup(users: &[String]) -> Setup {
    let lines: String = users.iter().map(|user| format!("{user}:{PASSWORD}\n")).collect();
    patient().users(&lines, "")
}

/// One client.
#[derive(Debug)]
pub struct Client {
    pub phone: Phone,
    pub flow: Flow,
    /// Its Contact as it registers it.
    pub binding: String,
}

/// The connection that a client had.
pub struct Lost {
    link: Option<Link>,
    end: End,
    flow: Flow,
    /// What the proxy had printed when the connection was lost.
    printed: usize,
}

impl Client {
    /// Connects over WSS and registers.
    #[track_caller]
    pub fn new(server: &Server, user: &str, known: Known) -> Client {
        let mut client = Client::connected(server, user, known, Transport::Wss);
        client.log_in();
        client
    }

    /// The same before it registers, over any stream.
    #[track_caller]
    pub fn connected(server: &Server, user: &str, known: Known, by: Transport) -> Client {
        let printed = server.printed();
        let phone = Phone::connect(by, server, user);
        let flow = server.opened(printed, phone.local);
        let params = match known {
            Known::ByRegId => format!(";reg-id=1;+sip.instance=\"<urn:uuid:{}>\"", unique("i")),
            Known::ByContact => String::new(),
        };
        let binding = format!("<{}>{params}", phone.contact);
        Client { phone, flow, binding }
    }

    /// REGISTER, 401, REGISTER, 200. Nothing else may come before: who it is, is not known yet.
    #[track_caller]
    pub fn log_in(&mut self) {
        let (_, answer) = try_log_in(&mut self.phone, &self.binding, PASSWORD);
        assert_eq!(answer.status(), 200, "{self:?}: {answer:?}");
    }

    /// Its flow ends; the proxy has heard of it, unless that cannot be heard.
    #[track_caller]
    pub fn lose(&mut self, server: &Server, end: End) -> Lost {
        let printed = server.printed();
        let link = self.phone.detach();
        let link = match end {
            End::Fin => {
                link.finish();
                Some(link)
            }
            End::Reset => {
                link.reset();
                None
            }
            End::Silent => Some(link),
        };
        let lost = Lost { link, end, flow: self.flow.clone(), printed };
        if end != End::Silent {
            lost.await_end(server);
        }
        lost
    }

    /// It is back on a flow of that shard and registers; a silent flow is found out.
    #[track_caller]
    pub fn come_back(&mut self, server: &Server, place: Place, lost: &Lost) {
        self.reconnect(server, place);
        self.log_in();
        lost.find_out(server);
    }

    /// Another connection, not registered yet. The kernel chooses the shard, until it chose well.
    #[track_caller]
    pub fn reconnect(&mut self, server: &Server, place: Place) {
        let before = self.flow.shard;
        for _ in 0..50 {
            self.reconnect_anywhere(server);
            if (self.flow.shard == before) == (place == Place::SameShard) {
                return;
            }
            drop(self.phone.detach());
        }
        panic!("{self:?} never gets to that shard");
    }

    /// The same on the shard that the kernel chooses.
    #[track_caller]
    pub fn reconnect_anywhere(&mut self, server: &Server) {
        let printed = server.printed();
        self.phone.reconnect();
        self.flow = server.opened(printed, self.phone.local);
    }

    /// The same identity in another place; its connection is its own.
    #[track_caller]
    pub fn twin(&self, server: &Server, by: Transport) -> Client {
        let mut twin = Client::connected(server, &self.phone.user, Known::ByContact, by);
        twin.phone.contact.clone_from(&self.phone.contact);
        twin.binding.clone_from(&self.binding);
        twin
    }
}

impl Lost {
    /// Whether the proxy has closed it.
    pub fn is_over(&self, server: &Server) -> bool {
        server.closed_by(self.printed, &self.flow, Duration::ZERO).is_some()
    }

    /// Waits until the proxy knows that it is silent, once its client has registered on another.
    #[track_caller]
    pub fn find_out(&self, server: &Server) {
        if self.end == End::Silent {
            self.await_end(server);
        }
    }

    /// Waits until the proxy has closed it, for the reason that it must have.
    #[track_caller]
    fn await_end(&self, server: &Server) {
        let why = server.closed(self.printed, &self.flow);
        let expected = match self.end {
            End::Fin => "peer",
            End::Reset => "reset",
            End::Silent => "pong",
        };
        assert_eq!(why, expected, "{:?}", self.flow);
    }

    /// What was written to it after the client had turned away, to its end.
    #[track_caller]
    pub fn heard(self) -> Vec<Message> {
        let mut heard = Vec::new();
        let Some(mut link) = self.link else { return heard };
        loop {
            match link.receive(Instant::now() + PATIENCE) {
                Some(Incoming::Message(message)) => heard.push(message),
                Some(Incoming::KeepAlive) => {}
                Some(Incoming::Closed) => return heard,
                None => panic!("{:?} is open", self.flow),
            }
        }
    }
}
