//! A client, or a server behind the proxy: who it is, how it is connected, how it registers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sipring::base::id::Transport;

use crate::agenda::Happening;
use crate::check::Aim;
use crate::client::{ClientTx, Purpose, Request};
use crate::dialog::Dialog;
use crate::lab::phone::masked_frame;
use crate::message::{Sip, param};
use crate::network::{ConnId, Mark};
use crate::profile::Chance;
use crate::proof::Proof;
use crate::registrar::Wish;
use crate::server::{ServerTx, Step};
use crate::wire::Heard;
use crate::world::{End, World};

pub type PhoneId = usize;

/// How a client names itself when it registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Instance and reg-id (RFC 5626): one binding, whatever the flow.
    Outbound,
    /// A Contact that says where the client really is: it may be dialled.
    Own,
    /// A Contact that nobody can dial; kept over reconnects.
    Hidden,
    /// The same, but another one with every connection, as of a page that was loaded again.
    Fresh,
}

/// What a client waits for.
pub enum Alarm {
    Resend(u32),
    GiveUp(u32),
    Forget(u32),
    Cancel(u32),
    Answer(String, Step),
    Repeat(String, Duration),
    ForgetServer(String),
    Talk(u32),
    Ack(u32),
    Reinvite(u32),
    Connect,
    Refresh(u32),
    KeepAlive(ConnId),
    Resume(ConnId),
    CloseTab(ConnId),
}

/// A client's standing with the registrar.
pub struct Registration {
    call_id: String,
    pub cseq: u32,
    pub is_on: bool,
    /// A REGISTER waits for its answer.
    pub is_asking: bool,
    /// Refreshes of an older round are void.
    round: u32,
}

pub struct Phone {
    pub id: PhoneId,
    /// Whose instance and Contact it has.
    pub face: PhoneId,
    pub transport: Transport,
    pub ip: IpAddr,
    /// Ports used so far; the last is the one of a datagram client.
    pub ports: u16,
    is_server: bool,
    pub user: usize,
    pub style: Style,
    pub is_sips: bool,
    pub conn: Option<ConnId>,
    /// Written as soon as there is a connection.
    waiting: Vec<(String, Mark)>,
    pub contact_serial: u32,
    pub registration: Registration,
    pub proof: Proof,
    /// What waits for an answer outlives its connection.
    pub remembers: bool,
    /// What the registrar calls it (RFC 5627).
    pub gruu: Option<String>,
    /// It has left and does not come back.
    pub has_left: bool,
    pub clients: BTreeMap<u32, ClientTx>,
    pub servers: BTreeMap<String, ServerTx>,
    pub dialogs: BTreeMap<u32, Dialog>,
}

impl Phone {
    pub fn new(id: PhoneId, transport: Transport, ip: &str, user: usize, style: Style) -> Phone {
        Phone {
            id,
            face: id,
            transport,
            ip: ip.parse().expect("an address"),
            ports: 0,
            is_server: false,
            user,
            style,
            is_sips: false,
            conn: None,
            waiting: Vec::new(),
            contact_serial: 0,
            registration: Registration {
                call_id: format!("reg{id}"),
                cseq: 0,
                is_on: false,
                is_asking: false,
                round: 0,
            },
            proof: Proof::new(),
            remembers: false,
            gruu: None,
            has_left: false,
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
            dialogs: BTreeMap::new(),
        }
    }

    /// A server behind the proxy, at port 5060 of that address.
    pub fn server(id: PhoneId, transport: Transport, ip: &str) -> Phone {
        Phone { is_server: true, ..Phone::new(id, transport, ip, usize::MAX, Style::Own) }
    }

    pub fn is_server(&self) -> bool {
        self.is_server
    }

    /// Where it listens (servers), or sends datagrams from.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, if self.is_server { 5060 } else { 40_000 + self.ports })
    }

    pub fn aor(&self) -> String {
        match self.is_server {
            true => format!("sip:core{}@core.example.org", self.id),
            false => format!("sip:u{}@example.com", self.user),
        }
    }

    /// The URI of its Contact.
    pub fn contact(&self) -> String {
        let (id, serial) = (self.face, self.contact_serial);
        let scheme = if self.is_sips { "sips" } else { "sip" };
        let transport = match self.transport {
            Transport::Udp => "",
            Transport::Tls if self.is_sips => "",
            other => &format!(";transport={}", other.uri_name()),
        };
        match self.style {
            _ if self.is_server => format!("sip:core{id}@{}{transport}", self.address()),
            Style::Own => format!("{scheme}:c{id}@{}{transport}", self.address()),
            _ if self.transport.is_websocket() => {
                format!("{scheme}:c{id}@h{serial}x{id}.invalid{transport}")
            }
            _ => format!("{scheme}:c{id}@10.0.{serial}.{id}:5060{transport}"),
        }
    }

    pub fn via(&self, branch: &str) -> String {
        let name = self.transport.via_name();
        match self.style {
            _ if self.transport.is_websocket() => {
                format!("SIP/2.0/{name} h{}.invalid;branch={branch}", self.id)
            }
            Style::Own => format!("SIP/2.0/{name} {};branch={branch};rport", self.address()),
            _ => format!("SIP/2.0/{name} 10.0.0.{}:5060;branch={branch};rport", self.id),
        }
    }
}

impl World {
    /// Everybody comes: servers listen, clients connect and register.
    pub fn arrive_all(&mut self) {
        for phone in 0..self.phones.len() {
            if !self.phones[phone].is_server() {
                let soon = self.mood.between(Duration::ZERO, Duration::from_millis(500));
                self.after(soon, Happening::Rings { phone, alarm: Alarm::Connect });
            }
        }
    }

    /// A new connection, or for datagrams a new port; then a REGISTER.
    pub fn come_back(&mut self, phone: PhoneId) {
        let it = &mut self.phones[phone];
        if it.has_left || it.conn.is_some() {
            return;
        }
        if it.style == Style::Fresh {
            it.contact_serial += 1;
        }
        if it.transport == Transport::Udp {
            let old = End::Datagram(it.address());
            it.ports += 1;
            self.books.registrar.doubt(Some(old), self.now);
            return self.register(phone, None);
        }
        self.choose_transport(phone);
        self.phones[phone].conn = Some(self.connect(phone));
    }

    /// A connection can carry messages.
    pub fn on_ready(&mut self, conn: ConnId) {
        self.conns[conn].ready = true;
        let phone = self.conns[conn].phone;
        let waiting = std::mem::take(&mut self.phones[phone].waiting);
        for (text, mark) in waiting {
            self.push(conn, text.as_bytes(), mark);
        }
        if self.phones[phone].is_server() {
            return;
        }
        let alarm = Alarm::KeepAlive(conn);
        self.after(Duration::from_secs(120), Happening::Rings { phone, alarm });
        self.register(phone, None);
    }

    /// A client hears of something on its connection.
    pub fn hear(&mut self, conn: ConnId, heard: Heard) {
        let phone = self.conns[conn].phone;
        match heard {
            Heard::Upgraded => {
                self.check_welcome(conn);
                self.on_ready(conn);
            }
            Heard::Ping(payload) if self.conns[conn].transport.is_websocket() => {
                self.push(conn, &masked_frame(0xa, &payload), Mark::None);
            }
            Heard::Ping(_) => self.push(conn, b"\r\n", Mark::None),
            Heard::End => self.hang_up_soon(conn),
            Heard::Message(bytes) => match Sip::read(&bytes) {
                Some(sip) => self.receive(phone, Some(conn), &sip),
                None => self.hang_up_soon(conn),
            },
        }
    }

    fn hang_up_soon(&mut self, conn: ConnId) {
        self.hang_up(conn);
        self.on_lost(conn);
    }

    /// A client's connection is gone, and all that it waited for on it.
    pub fn on_lost(&mut self, conn: ConnId) {
        let phone = self.conns[conn].phone;
        self.conns[conn].held = false;
        let it = &mut self.phones[phone];
        if !it.remembers {
            it.clients.retain(|_, tx| tx.conn != Some(conn));
            it.servers.retain(|_, tx| tx.conn != Some(conn));
        }
        if it.conn != Some(conn) {
            return;
        }
        it.conn = None;
        it.registration.is_on = false;
        it.registration.is_asking = false;
        if self.mood.happens(Chance(300)) && !self.phones[phone].remembers {
            self.phones[phone].dialogs.clear();
        }
        if !self.phones[phone].is_server() && !self.phones[phone].has_left {
            // Some come back when nobody waits for them any more.
            let grace = self.profile.house.grace;
            let is_slow = !grace.is_zero() && self.mood.happens(Chance(300));
            let most = if is_slow { grace * 3 } else { Duration::from_secs(4) };
            let wait = self.mood.between(Duration::from_millis(5), most);
            self.after(wait, Happening::Rings { phone, alarm: Alarm::Connect });
        }
    }

    /// Where the proxy reaches this phone by the flow that it uses at the moment, or by `conn`.
    pub fn place_of(&self, phone: PhoneId, conn: Option<ConnId>) -> Aim {
        let it = &self.phones[phone];
        if it.is_server() {
            return Aim::Server(phone);
        }
        match conn.or(it.conn).and_then(|conn| self.conns[conn].flow) {
            Some(flow) => Aim::Peer(End::Flow(flow), phone),
            None if it.transport == Transport::Udp => Aim::Peer(End::Datagram(it.address()), phone),
            None => Aim::Nobody,
        }
    }

    /// Writes one message, on that connection or on the one there is.
    pub fn transmit(&mut self, phone: PhoneId, conn: Option<ConnId>, text: &str, mark: Mark) {
        let planted = self.fault.map(|_| self.plant_request(phone, text));
        let text = planted.as_deref().unwrap_or(text);
        let it = &self.phones[phone];
        self.trace.note(
            self.now,
            &format_args!("phone {phone} {:?}", it.transport),
            "says",
            text.as_bytes(),
        );
        if it.transport == Transport::Udp {
            let from = it.address();
            return self.send_datagram(from, text.as_bytes());
        }
        let is_usable = |conn: &ConnId| self.conns[*conn].ready && self.conns[*conn].held;
        let found = conn.filter(is_usable).or(it.conn.filter(is_usable));
        match found {
            Some(conn) if self.conns[conn].transport.is_websocket() => {
                let frame = masked_frame(0x1, text.as_bytes());
                self.push(conn, &frame, mark);
            }
            Some(conn) => self.push(conn, text.as_bytes(), mark),
            None if it.is_server() => {
                self.phones[phone].waiting.push((text.into(), mark));
                if self.phones[phone].conn.is_none() {
                    self.phones[phone].conn = Some(self.connect(phone));
                }
            }
            None => {}
        }
    }

    /// Whether it could send something now.
    pub fn is_online(&self, phone: PhoneId) -> bool {
        let it = &self.phones[phone];
        let is_ready = |conn: ConnId| self.conns[conn].ready && self.conns[conn].held;
        it.transport == Transport::Udp || it.is_server() || it.conn.is_some_and(is_ready)
    }

    /// Sends a REGISTER; `Some(0)` takes the binding out.
    pub fn register(&mut self, phone: PhoneId, expires: Option<u32>) {
        let expires = expires.unwrap_or(self.profile.expires);
        let it = &mut self.phones[phone];
        if it.registration.is_asking || it.is_server() {
            return;
        }
        it.registration.is_asking = true;
        it.registration.cseq += 1;
        it.registration.round += 1;
        let (contact, aor) = (it.contact(), it.aor());
        let instance = (it.style == Style::Outbound).then(|| format!("urn:uuid:{}", it.face));
        let params = match &instance {
            Some(instance) => format!(";reg-id=1;+sip.instance=\"<{instance}>\""),
            None => String::new(),
        };
        let wish = Wish {
            user: it.user,
            contact: contact.clone(),
            instance,
            expires,
            secure: it.transport.is_secure(),
            dialable: it.style == Style::Own,
        };
        let gruu = if self.profile.house.digest { ", gruu" } else { "" };
        let request = Request {
            method: "REGISTER",
            uri: "sip:example.com".into(),
            from: format!("<{aor}>;tag=r{}", it.id),
            to: format!("<{aor}>"),
            call_id: it.registration.call_id.clone(),
            cseq: it.registration.cseq,
            route: Vec::new(),
            more: format!(
                "Contact: <{contact}>{params}\r\nExpires: {expires}\r\n\
Supported: path, outbound{gruu}\r\n"
            ),
            body: String::new(),
            attempts: 0,
        };
        self.ask(phone, &request, Aim::Register(wish), Purpose::Register);
    }

    /// The answer to a REGISTER; status 0 when there was none.
    pub fn on_registered(&mut self, phone: PhoneId, status: u16, sip: Option<&Sip>) {
        let it = &mut self.phones[phone];
        it.registration.is_asking = false;
        let contact = it.contact();
        let listed = sip.and_then(|sip| {
            let lines: Vec<&str> = sip.all("Contact").flat_map(|line| line.split(", ")).collect();
            let mine = lines.into_iter().find(|line| line.contains(&contact))?;
            param(mine, "expires")?.parse::<u64>().ok()
        });
        let gruu = sip.and_then(|sip| {
            let lines = sip.all("Contact").flat_map(|line| line.split(", "));
            let mine = lines.into_iter().find(|line| line.contains(&contact))?;
            let kind =
                if it.registration.cseq.is_multiple_of(3) { "temp-gruu" } else { "pub-gruu" };
            let (_, value) = mine.split_once(&format!(";{kind}=\""))?;
            Some(value.split('"').next()?.to_string())
        });
        it.gruu = gruu.or(it.gruu.take());
        it.registration.is_on = (200..300).contains(&status) && listed.is_some();
        let wait = match listed {
            _ if it.has_left => return,
            Some(seconds) if status == 200 => Duration::from_secs(seconds) / 2,
            _ => self.mood.between(Duration::from_secs(2), Duration::from_secs(20)),
        };
        let alarm = Alarm::Refresh(self.phones[phone].registration.round);
        self.after(wait, Happening::Rings { phone, alarm });
    }

    /// A client's alarm.
    pub fn ring(&mut self, phone: PhoneId, alarm: Alarm) {
        match alarm {
            Alarm::Resend(serial) => self.resend(phone, serial),
            Alarm::GiveUp(serial) => self.give_up(phone, serial),
            Alarm::Forget(serial) => {
                self.phones[phone].clients.remove(&serial);
            }
            Alarm::Cancel(serial) => self.cancel(phone, serial),
            Alarm::Answer(key, step) => self.answer_step(phone, &key, step),
            Alarm::Repeat(key, wait) => self.repeat(phone, key, wait),
            Alarm::ForgetServer(key) => {
                self.phones[phone].servers.remove(&key);
            }
            Alarm::Talk(dialog) => self.talk(phone, dialog),
            Alarm::Ack(dialog) => self.acknowledge(phone, dialog),
            Alarm::Reinvite(dialog) => self.reinvite(phone, dialog),
            Alarm::Connect => self.come_back(phone),
            Alarm::Refresh(round) => {
                let it = &self.phones[phone];
                if it.registration.round == round && !it.has_left && self.is_online(phone) {
                    self.register(phone, None);
                }
            }
            Alarm::KeepAlive(conn) => self.keep_alive(phone, conn),
            Alarm::Resume(conn) => self.resume(conn),
            Alarm::CloseTab(conn) => self.hang_up(conn),
        }
    }

    /// RFC 5626 §3.5.1, by clients whose connection is plain.
    fn keep_alive(&mut self, phone: PhoneId, conn: ConnId) {
        if self.phones[phone].conn != Some(conn) {
            return;
        }
        if !self.conns[conn].transport.is_websocket() {
            self.push(conn, b"\r\n\r\n", Mark::None);
        }
        let alarm = Alarm::KeepAlive(conn);
        self.after(Duration::from_secs(120), Happening::Rings { phone, alarm });
    }

    /// A message for this phone.
    pub fn receive(&mut self, phone: PhoneId, conn: Option<ConnId>, sip: &Sip) {
        if sip.status() != 0 {
            self.on_response(phone, sip);
        } else {
            self.on_request(phone, conn, sip);
        }
    }
}
