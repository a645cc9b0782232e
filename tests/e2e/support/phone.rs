//! A blocking SIP phone (or server) for tests: one API over UDP, TCP, TLS, WS and WSS. Nothing
//! happens between calls: no keep-alive, no retransmission, no answer that the test did not ask
//! for.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use super::certificates;
use super::link::{Incoming, Io, Link, Transport, connect_tcp};
use super::server::Server;
use super::sip::{Draft, Message, response_to, unique};

/// How long anything may take that must come, on a machine that has other things to do.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing must come, where no later message can serve as the proof.
pub const SILENCE: Duration = Duration::from_millis(150);
/// Where phones live.
pub const PHONES: &str = "127.0.0.1";
/// Where attackers live: an address of their own, because a host may well name its own ports.
pub const ATTACKERS: &str = "127.0.0.2";
/// Where the servers behind the proxy live.
pub const CORE: &str = "127.0.0.9";

/// Settings of a connection.
#[derive(Clone, Copy)]
pub struct From {
    /// Local address; port 0 takes any.
    pub local: SocketAddr,
    /// A small receive buffer and small segments, so that the kernels hold little on the way.
    pub slow: bool,
    /// Offer TLS 1.2 only.
    pub tls12: bool,
}

impl From {
    /// Any port of that address.
    pub fn host(host: &str) -> From {
        From {
            local: SocketAddr::new(host.parse().expect("address"), 0),
            slow: false,
            tls12: false,
        }
    }
}

/// A phone, or a server with a listener of its own.
pub struct Phone {
    /// User part of its address of record.
    pub user: String,
    /// What it speaks.
    pub transport: Transport,
    /// Its address as the proxy sees it.
    pub local: SocketAddr,
    /// The proxy's listener.
    pub proxy: SocketAddr,
    /// Host of its Via: a random `.invalid` name for WebSocket clients.
    pub sent_by: String,
    /// Its Contact URI in requests and responses that create dialogs.
    pub contact: String,
    links: Vec<Link>,
    /// Connections of a server that have ended: normal there.
    ended: Vec<usize>,
    listener: Option<TcpListener>,
    call_id: String,
    cseq: u32,
}

impl Phone {
    /// Connects from 127.0.0.1.
    pub fn connect(transport: Transport, server: &Server, user: &str) -> Phone {
        Phone::connect_from(transport, server, user, From::host(PHONES))
    }

    /// Connects as `from` says.
    pub fn connect_from(transport: Transport, server: &Server, user: &str, from: From) -> Phone {
        Phone::connect_to(transport, server.address(transport), user, from)
    }

    /// Connects to an address.
    pub fn connect_to(transport: Transport, proxy: SocketAddr, user: &str, from: From) -> Phone {
        let (link, local) = open(transport, proxy, from);
        let sent_by = match transport.is_web() {
            true => format!("{}.invalid", unique("h")),
            false => local.to_string(),
        };
        let contact = match transport.is_web() {
            true => format!("sip:{}@{sent_by};transport=ws", unique("c")),
            false => format!("sip:{user}@{local};transport={}", transport.uri()),
        };
        Phone {
            user: user.to_string(),
            transport,
            local,
            proxy,
            sent_by,
            contact,
            links: vec![link],
            ended: Vec::new(),
            listener: None,
            call_id: unique("reg"),
            cseq: 0,
        }
    }

    /// A server behind the proxy, not yet listening or connected: its address can go into the
    /// configuration.
    pub fn core(transport: Transport) -> Core {
        let address = SocketAddr::new(CORE.parse().expect("address"), 0);
        if transport == Transport::Udp {
            let socket = UdpSocket::bind(address).expect("bind");
            let local = socket.local_addr().expect("address");
            return Core { transport, address: local, socket: Some(socket), listener: None };
        }
        let listener = TcpListener::bind(address).expect("bind");
        listener.set_nonblocking(true).expect("nonblocking");
        let local = listener.local_addr().expect("address");
        Core { transport, address: local, socket: None, listener: Some(listener) }
    }

    /// Its address of record.
    pub fn aor(&self) -> String {
        format!("sip:{}@example.com", self.user)
    }

    /// A request with everything that RFC 3261 §8.1.1 demands.
    pub fn draft(&self, method: &str, uri: &str) -> Draft {
        let draft = Draft::new(format!("{method} {uri} SIP/2.0"))
            .with("Via", self.via())
            .with("Max-Forwards", "70")
            .with(
                "From",
                format!("\"Test, {0}\" <{1}>;tag={2}", self.user, self.aor(), unique("f")),
            )
            .with("To", format!("<{uri}>"))
            .with("Call-ID", unique("call"))
            .with("CSeq", format!("1 {method}"));
        match method {
            "INVITE" | "SUBSCRIBE" | "UPDATE" => {
                draft.with("Contact", format!("<{}>", self.contact))
            }
            _ => draft,
        }
    }

    /// A Via value with a fresh branch.
    pub fn via(&self) -> String {
        let rport = if self.transport == Transport::Udp { ";rport" } else { "" };
        let (name, branch) = (self.transport.via(), unique("z9hG4bK"));
        format!("SIP/2.0/{name} {}{rport};branch={branch}", self.sent_by)
    }

    /// A REGISTER of this phone's address of record; one Call-ID, rising CSeq.
    pub fn register_draft(&mut self, contact: &str) -> Draft {
        self.cseq += 1;
        let secure = contact.starts_with("<sips:");
        let scheme = if secure { "sips" } else { "sip" };
        let aor = format!("<{scheme}:{}@example.com>", self.user);
        let draft = Draft::new(format!("REGISTER {scheme}:example.com SIP/2.0"))
            .with("Via", self.via())
            .with("Max-Forwards", "70")
            .with("From", format!("{aor};tag={}", unique("f")))
            .with("To", aor)
            .with("Call-ID", &self.call_id)
            .with("CSeq", format!("{} REGISTER", self.cseq))
            .with("Supported", "path, outbound");
        if contact.is_empty() { draft } else { draft.with("Contact", contact) }
    }

    /// Registers that Contact value (with its angle brackets and parameters) and wants 200.
    #[track_caller]
    pub fn register(&mut self, contact: &str) -> Message {
        let draft = self.register_draft(contact).with("Expires", "600");
        let response = self.ask(&draft);
        assert_eq!(response.status(), 200, "REGISTER {contact}: {response:?}");
        response
    }

    /// Registers its own Contact.
    #[track_caller]
    pub fn register_self(&mut self) -> Message {
        let contact = format!("<{}>", self.contact);
        self.register(&contact)
    }

    /// Sends bytes as one message.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap_or_else(|error| panic!("{self:?} sends: {error}"));
    }

    /// Sends bytes as one message; a proxy that closed the connection is no fault.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.links[0].send(bytes)
    }

    /// Sends a request and returns its final response, which must be the next thing that comes but
    /// for a 100.
    #[track_caller]
    pub fn ask(&mut self, draft: &Draft) -> Message {
        self.send(&draft.build());
        self.final_response()
    }

    /// The next message, within [`PATIENCE`].
    #[track_caller]
    pub fn next(&mut self) -> Message {
        match self.incoming(PATIENCE) {
            Some(Incoming::Message(message)) => message,
            other => panic!("{self:?} wants a message, has {other:?}"),
        }
    }

    /// The next message, which must be a request of that method.
    #[track_caller]
    pub fn request(&mut self, method: &str) -> Message {
        let message = self.next();
        assert_eq!(message.method(), method, "{self:?} wants {method}, has {message:?}");
        message
    }

    /// The next message, which must be a response with that status.
    #[track_caller]
    pub fn status(&mut self, status: u16) -> Message {
        let message = self.next();
        assert_eq!(message.status(), status, "{self:?} wants {status}, has {message:?}");
        message
    }

    /// The next message but for 100s, which must be a final response.
    #[track_caller]
    pub fn final_response(&mut self) -> Message {
        loop {
            let message = self.next();
            match message.status() {
                100 => continue,
                200.. => return message,
                _ => panic!("{self:?} wants a final response, has {message:?}"),
            }
        }
    }

    /// What comes within `time`, if anything.
    pub fn incoming(&mut self, time: Duration) -> Option<Incoming> {
        let deadline = Instant::now() + time;
        if self.listener.is_none() && self.links.len() == 1 {
            return self.links[0].receive(deadline);
        }
        loop {
            self.accept();
            for index in (0..self.links.len())
                .filter(|index| !self.ended.contains(index))
                .collect::<Vec<_>>()
            {
                let turn = Instant::now() + Duration::from_millis(2);
                match self.links[index].receive(turn) {
                    None => {}
                    Some(Incoming::Message(mut message)) => {
                        message.link = index;
                        return Some(Incoming::Message(message));
                    }
                    Some(Incoming::Closed) => self.ended.push(index),
                    Some(other) => return Some(other),
                }
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok((tcp, _)) = listener.accept() {
            tcp.set_nonblocking(false).expect("blocking");
            tcp.set_nodelay(true).expect("nodelay");
            let tls = (self.transport == Transport::Tls).then(certificates::upstream_server);
            self.links.push(Link::stream(Io::accepted(tcp, tls)));
        }
    }

    /// Nothing comes for [`SILENCE`].
    #[track_caller]
    pub fn silent(&mut self) {
        let incoming = self.incoming(SILENCE);
        assert!(incoming.is_none(), "{self:?} wants silence, has {incoming:?}");
    }

    /// Not one byte waits unread.
    #[track_caller]
    pub fn untouched(&self) {
        let unread: usize = self.links.iter().map(Link::unread).sum();
        assert_eq!(unread, 0, "{self:?} has unread bytes");
    }

    /// Sends a response on the connection that its request came by. The To tag is the phone's own
    /// and constant.
    #[track_caller]
    pub fn respond(&mut self, request: &Message, draft: &Draft) {
        let sent = self.links[request.link].send(&draft.build());
        sent.unwrap_or_else(|error| panic!("{self:?} responds: {error}"));
    }

    /// A response of this phone; 2xx and 101 to 199 of INVITE carry its Contact.
    pub fn response(&self, request: &Message, status: u16) -> Draft {
        let draft = response_to(request, status, &format!("t-{}", self.user));
        match request.method() == "INVITE" && status > 100 && status < 300 {
            true => draft.with("Contact", format!("<{}>", self.contact)),
            false => draft,
        }
    }

    /// Answers with a response that has nothing special.
    #[track_caller]
    pub fn answer(&mut self, request: &Message, status: u16) {
        let response = self.response(request, status);
        self.respond(request, &response);
    }

    /// The next message must be a request of that method; answers it 200 and returns it.
    #[track_caller]
    pub fn serve(&mut self, method: &str) -> Message {
        let request = self.request(method);
        self.answer(&request, 200);
        request
    }

    /// The first connection.
    pub fn link(&mut self) -> &mut Link {
        &mut self.links[0]
    }

    /// Takes its connection away as it is. It has none until it connects again.
    pub fn detach(&mut self) -> Link {
        self.links.pop().expect("a connection")
    }

    /// Connects again, from another port: the same user agent, with the names that it had.
    pub fn reconnect(&mut self) {
        assert!(self.links.is_empty(), "{self:?} has a connection");
        let (link, local) = open(self.transport, self.proxy, From::host(PHONES));
        self.local = local;
        self.links.push(link);
    }

    /// Closes by FIN, without a closing handshake of TLS or WebSocket.
    pub fn finish(self) {
        self.links.iter().for_each(Link::finish);
    }

    /// Closes by RST.
    pub fn reset(self) {
        self.links.into_iter().for_each(Link::reset);
    }
}

impl std::fmt::Debug for Phone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} {})", self.user, self.transport.via(), self.local)
    }
}

/// A server behind the proxy that has an address but no connection yet.
pub struct Core {
    /// What it speaks.
    pub transport: Transport,
    /// Where it listens.
    pub address: SocketAddr,
    socket: Option<UdpSocket>,
    listener: Option<TcpListener>,
}

impl Core {
    /// As in `targets`.
    pub fn target(&self) -> String {
        format!("sip:{};transport={}", self.address, self.transport.uri())
    }

    /// Starts it: over TCP and TLS with a connection of its own to the proxy, besides its listener.
    pub fn connect(self, server: &Server, user: &str) -> Phone {
        let proxy = server.address(self.transport);
        self.connect_to(proxy, user)
    }

    /// The same, to an address.
    pub fn connect_to(self, proxy: SocketAddr, user: &str) -> Phone {
        let (link, local) = match self.socket {
            Some(socket) => (Link::Udp { socket, peer: proxy }, self.address),
            None => open(self.transport, proxy, From::host(CORE)),
        };
        Phone {
            user: user.to_string(),
            transport: self.transport,
            local,
            proxy,
            sent_by: self.address.to_string(),
            contact: format!("sip:{user}@{};transport={}", self.address, self.transport.uri()),
            links: vec![link],
            ended: Vec::new(),
            listener: self.listener,
            call_id: unique("reg"),
            cseq: 0,
        }
    }
}

fn open(transport: Transport, proxy: SocketAddr, from: From) -> (Link, SocketAddr) {
    let local = match (proxy.ip(), from.local.ip()) {
        (IpAddr::V6(_), IpAddr::V4(_)) => SocketAddr::new("::1".parse().expect("address"), 0),
        _ => from.local,
    };
    if transport == Transport::Udp {
        let socket = UdpSocket::bind(local).expect("bind UDP");
        let local = socket.local_addr().expect("address");
        return (Link::Udp { socket, peer: proxy }, local);
    }
    let tcp = connect_tcp(local, proxy, from.slow)
        .unwrap_or_else(|error| panic!("{} to {proxy}: {error}", transport.via()));
    let local = tcp.local_addr().expect("address");
    let versions: &[_] = match from.tls12 {
        true => &[&rustls::version::TLS12],
        false => &[&rustls::version::TLS13, &rustls::version::TLS12],
    };
    let tls = transport.is_secure().then(|| certificates::client(versions));
    let io = Io::connect(tcp, tls)
        .unwrap_or_else(|error| panic!("{} handshake with {proxy}: {error}", transport.via()));
    let link = if transport.is_web() { Link::upgrade(io, "/", None) } else { Link::stream(io) };
    (link, local)
}
