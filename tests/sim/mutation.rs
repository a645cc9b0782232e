//! Faults planted between the proxy and the books, to prove that each checker can fail.

use sipring::base::event::CloseReason;
use sipring::base::id::{FlowId, Transport};
use sipring::base::metrics::Counters;
use sipring::engine::LinkMessage;
use sipring::flow::token::TokenKey;

use crate::check::serial_of;
use crate::checker::Checker;
use crate::edge::token_of;
use crate::hostile::CAPTURED;
use crate::lab::phone::masked_frame;
use crate::message::{Sip, find};
use crate::network::{ConnId, Mark};
use crate::phone::PhoneId;
use crate::wire;
use crate::world::{EPOCH, End, SECRET, World};

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Requests go to another client's flow of the same transport.
    Misdeliver,
    /// Requests go to somebody's plain flow.
    Downgrade,
    /// Final responses of the proxy to MESSAGE are lost inside of it.
    SwallowResponse,
    /// A final response to a request other than INVITE is written twice.
    DoubleFinal,
    /// Forwarded requests lack their sender's Via.
    StripVia,
    /// A letter of the body changes.
    BendBody,
    /// The proxy forgets bindings that nobody took out.
    ForgetBinding,
    /// Responses are lost between shards.
    SwallowLink,
    /// A message is counted twice.
    Miscount,
    /// The bounds are thought to be smaller than they are.
    HalveBounds,
    /// Pings of the proxy do not reach their clients.
    SwallowPing,
    /// A client that vanished answers pings of the proxy.
    AnswerForGone,
    /// Nobody tells the proxy that a connection could not be made.
    ForgetConnect,
    /// The proxy asks nobody for a password.
    OpenDoor,
    /// Somebody asserts another's identity to a server behind the proxy.
    AssertOther,
    /// Requests go to an older flow of their client, too.
    CopyToTab,
    /// Final responses are lost when their client has another flow by then.
    LoseMoved,
    /// Nothing may wait for a client.
    NoPatience,
    /// The proxy's CANCELs are lost inside of it.
    SwallowCancel,
    /// Bindings are thought to end with their flows at once.
    NoGrace,
    /// A binding is granted for longer than was asked.
    BendExpiry,
    /// A REGISTER is answered with a Contact that nobody registered.
    BendContact,
    /// The store forgets what it is given.
    LoseRecord,
    /// A client that does not read gets no requests, whatever room its queue has.
    ShunStalled,
    /// Nor does one whose queue had no room once.
    ShunCrowded,
    /// A repeated request to the proxy itself is refused after it was answered.
    ChangeMind,
    /// A registrar behind the proxy gets the Path of another client.
    SwapPath,
    /// It is told something else than that the flow is gone.
    TellOther,
    /// The proxy does not know clients again.
    ForgetClients,
    /// WebSocket flows without TLS are thought to have it.
    CallSecure,
    /// A dialog's token is good whatever the Call-ID.
    SkipCallId,
    /// It is good outside of dialogs, too.
    SkipTag,
    /// Who bears one that is not good is told something else.
    TellThief,
    /// A bearer token is good whoever signed it.
    TrustForger,
    /// It is good for ever.
    TrustOver,
    /// A flow whose token is over is not closed.
    KeepFlow,
    /// The wall clock is a day ahead.
    ClockAhead,
}

/// Each fault with the checker that must see it.
pub const FAULTS: [(Fault, Checker); 37] = [
    (Fault::Misdeliver, Checker::WrongClient),
    (Fault::Downgrade, Checker::Downgraded),
    (Fault::SwallowResponse, Checker::OneOutcome),
    (Fault::DoubleFinal, Checker::OneOutcome),
    (Fault::StripVia, Checker::Vias),
    (Fault::BendBody, Checker::Edits),
    (Fault::ForgetBinding, Checker::Reached),
    (Fault::SwallowLink, Checker::Balance),
    (Fault::Miscount, Checker::Balance),
    (Fault::HalveBounds, Checker::Bounded),
    (Fault::SwallowPing, Checker::Closed),
    (Fault::AnswerForGone, Checker::Forsaken),
    (Fault::ForgetConnect, Checker::Leak),
    (Fault::OpenDoor, Checker::Identity),
    (Fault::AssertOther, Checker::Identity),
    (Fault::CopyToTab, Checker::Moved),
    (Fault::LoseMoved, Checker::OneOutcome),
    (Fault::NoPatience, Checker::Held),
    (Fault::SwallowCancel, Checker::Rings),
    (Fault::NoGrace, Checker::Grace),
    (Fault::BendExpiry, Checker::Granted),
    (Fault::BendContact, Checker::Listed),
    (Fault::LoseRecord, Checker::Durable),
    (Fault::ShunStalled, Checker::Reached),
    (Fault::ShunCrowded, Checker::Reached),
    (Fault::ChangeMind, Checker::OneOutcome),
    (Fault::SwapPath, Checker::Path),
    (Fault::TellOther, Checker::Path),
    (Fault::ForgetClients, Checker::Path),
    (Fault::CallSecure, Checker::Lowered),
    (Fault::SkipCallId, Checker::Captured),
    (Fault::SkipTag, Checker::Captured),
    (Fault::TellThief, Checker::Captured),
    (Fault::TrustForger, Checker::Bearer),
    (Fault::TrustOver, Checker::Bearer),
    (Fault::KeepFlow, Checker::Bearer),
    (Fault::ClockAhead, Checker::Bearer),
];

impl World {
    /// What is written instead.
    pub fn plant_write(&mut self, flow: FlowId, bytes: Vec<u8>) -> Vec<(FlowId, Vec<u8>)> {
        let Some(fault) = self.fault else { return vec![(flow, bytes)] };
        let Some(conn) = self.by_flow.get(&flow).copied() else { return vec![(flow, bytes)] };
        let transport = self.conns[conn].transport;
        if fault == Fault::SwallowPing && transport.is_websocket() && bytes.starts_with(&[0x89]) {
            return Vec::new();
        }
        if fault == Fault::AnswerForGone && self.conns[conn].dead {
            self.answer_for(conn, &bytes);
        }
        let sip = wire::written(transport, &bytes).and_then(Sip::read);
        let Some(sip) = sip else { return vec![(flow, bytes)] };
        let is_request = sip.status() == 0;
        let other = |plain: bool| {
            let is_other = |it: &crate::network::Conn| {
                it.flow != Some(flow)
                    && it.transport.is_websocket() == transport.is_websocket()
                    && if plain { !it.transport.is_secure() } else { it.transport == transport }
            };
            let mut flows = self.by_flow.iter();
            flows.find(|(_, conn)| is_other(&self.conns[**conn])).map(|(flow, _)| *flow)
        };
        match fault {
            Fault::Misdeliver if is_request => vec![(other(false).unwrap_or(flow), bytes)],
            Fault::Downgrade if is_request && transport.is_secure() => {
                vec![(other(true).unwrap_or(flow), bytes)]
            }
            Fault::SwallowResponse if sip.status() >= 200 && sip.cseq().1 == "MESSAGE" => {
                Vec::new()
            }
            Fault::DoubleFinal if sip.status() >= 200 && sip.cseq().1 == "MESSAGE" => {
                vec![(flow, bytes.clone()), (flow, bytes)]
            }
            Fault::ForgetBinding if sip.status() == 200 && sip.call_id().starts_with("reg") => {
                self.take_out(conn);
                vec![(flow, bytes)]
            }
            Fault::ShunStalled if is_request && self.conns[conn].stalled => Vec::new(),
            Fault::ShunCrowded if is_request && self.conns[conn].was_crowded => Vec::new(),
            Fault::CopyToTab if is_request && sip.number().is_some() => {
                let phone = self.conns[conn].phone;
                let is_tab = |it: &crate::network::Conn| it.phone == phone && it.flow != Some(flow);
                let mut flows = self.by_flow.iter();
                let tab = flows.find(|(_, conn)| is_tab(&self.conns[**conn]));
                let copies = [Some(flow), tab.map(|(flow, _)| *flow)];
                copies.into_iter().flatten().map(|flow| (flow, bytes.clone())).collect()
            }
            Fault::LoseMoved if sip.status() >= 200 && self.came_on_another(flow, &sip) => {
                Vec::new()
            }
            Fault::SwallowCancel if sip.method() == "CANCEL" && sip.number().is_none() => {
                Vec::new()
            }
            _ => vec![(flow, self.bend(fault, bytes))],
        }
    }

    fn came_on_another(&self, flow: FlowId, sip: &Sip) -> bool {
        let asked = serial_of(sip.branch()).and_then(|serial| self.books.asked(serial));
        let from = asked.and_then(|asked| asked.reached);
        from.is_some_and(|(_, from)| matches!(from, End::Flow(_)) && from != End::Flow(flow))
    }

    /// A REGISTER that the books do not know.
    fn take_out(&mut self, conn: ConnId) {
        let it = &self.phones[self.conns[conn].phone];
        let (via, aor) = (it.via("z9hG4bK-g"), it.aor());
        let text = format!(
            "REGISTER sip:example.com SIP/2.0\r\nVia: {via}\r\nFrom: <{aor}>;tag=g\r\nTo: <{aor}>\r\n\
Call-ID: g{conn}\r\nCSeq: 1 REGISTER\r\nContact: *\r\nExpires: 0\r\nContent-Length: 0\r\n\r\n"
        );
        let frame = masked_frame(0x1, text.as_bytes());
        let is_websocket = self.conns[conn].transport.is_websocket();
        self.push(conn, if is_websocket { &frame } else { text.as_bytes() }, Mark::None);
    }

    /// What is sent instead.
    pub fn plant_datagram(&mut self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        match self.fault {
            Some(Fault::SwallowCancel) if bytes.starts_with(b"CANCEL ") => None,
            Some(Fault::ChangeMind) => Some(self.change_mind(bytes)),
            Some(fault) => Some(self.bend(fault, bytes)),
            None => Some(bytes),
        }
    }

    /// What answers a second copy of an OPTIONS refuses.
    fn change_mind(&self, bytes: Vec<u8>) -> Vec<u8> {
        let sip = Sip::read(&bytes);
        let sip = sip.filter(|sip| sip.status() == 200 && sip.cseq().1 == "OPTIONS");
        let asked = sip.and_then(|sip| self.books.asked(serial_of(sip.branch())?));
        let is_again =
            asked.is_some_and(|asked| asked.finals > 0 && self.books.drained_at.is_none());
        if is_again { replace_first(bytes, b"200 OK", b"503 No") } else { bytes }
    }

    /// Changes bytes of one length to others of it, so that frames stay whole.
    fn bend(&self, fault: Fault, bytes: Vec<u8>) -> Vec<u8> {
        let (what, with): (&[u8], &[u8]) = match fault {
            Fault::SwapPath => return self.swap_path(bytes),
            Fault::TellOther => (b"SIP/2.0 430 ", b"SIP/2.0 404 "),
            Fault::TellThief => (b"SIP/2.0 403 ", b"SIP/2.0 404 "),
            Fault::StripVia => (b";branch=z9hG4bK-s", b";branch=z9hG4bK-t"),
            Fault::BendBody => (b"\r\n\r\nhi", b"\r\n\r\nho"),
            Fault::AssertOther => (b"Identity: <sip:u", b"Identity: <sip:v"),
            Fault::BendExpiry => (b";expires=", b";expires=9"),
            Fault::BendContact => (b"\r\nContact: <sip:c", b"\r\nContact: <sip:d"),
            _ => return bytes,
        };
        replace_first(bytes, what, with)
    }

    fn swap_path(&self, bytes: Vec<u8>) -> Vec<u8> {
        let path = Sip::read(&bytes).and_then(|sip| Some(sip.find("Path")?.to_string()));
        let token = path.as_deref().and_then(token_of);
        match token.and_then(|token| Some((token, self.core.other_token(token)?))) {
            Some((token, other)) => replace_first(bytes, token.as_bytes(), other.as_bytes()),
            None => bytes,
        }
    }

    pub fn plant_transport(&self, transport: Transport) -> Transport {
        match (self.fault, transport) {
            (Some(Fault::CallSecure), Transport::Ws) => Transport::Wss,
            _ => transport,
        }
    }

    /// What a client says, as an engine would understand it that looks less closely.
    pub fn plant_request(&mut self, phone: PhoneId, text: &str) -> String {
        let sip = Sip::read(text.as_bytes()).filter(|sip| sip.status() == 0);
        let Some((fault, sip)) = self.fault.zip(sip) else { return text.into() };
        let is_captured = sip.tag("From").starts_with(CAPTURED);
        match fault {
            Fault::SkipCallId if is_captured => sealed_anew(text, &sip),
            Fault::SkipTag if is_captured && sip.tag("To").is_empty() => {
                let to = sip.header("To");
                text.replacen(&format!("To: {to}"), &format!("To: {to};tag=y"), 1)
            }
            Fault::TrustForger | Fault::TrustOver => {
                self.renewed(phone, text, &sip, fault == Fault::TrustForger)
            }
            _ => text.into(),
        }
    }

    pub fn fault_keeps_flow(&self, why: CloseReason) -> bool {
        self.fault == Some(Fault::KeepFlow) && why == CloseReason::Expired
    }

    pub fn fault_takes_link(&self, message: &LinkMessage) -> bool {
        self.fault == Some(Fault::SwallowLink) && matches!(message, LinkMessage::Response(_))
    }

    pub fn fault_halves_bounds(&self) -> bool {
        self.fault == Some(Fault::HalveBounds)
    }

    pub fn plant_count(&self, total: &mut Counters) {
        total.requests_received += u64::from(self.fault == Some(Fault::Miscount));
    }
}

/// The tokens of another dialog, whose Call-ID begins that of the request, as if they were of its own.
fn sealed_anew(text: &str, sip: &Sip) -> String {
    let key = TokenKey::new(&SECRET, EPOCH);
    let (ours, theirs) = (sip.call_id(), sip.call_id().rsplit_once('.'));
    let mut text = text.to_string();
    for token in sip.all("Route").filter_map(token_of) {
        let claims = theirs.and_then(|(it, _)| key.decode(token.as_bytes(), it.as_bytes()).ok());
        let mut sealed = Vec::new();
        if let Some(claims) = claims {
            key.encode(&claims, ours.as_bytes(), &mut sealed);
            text = text.replace(token, &String::from_utf8_lossy(&sealed));
        }
    }
    text
}

/// Writes `with` over the first `what`, and over what follows if it is longer.
fn replace_first(mut bytes: Vec<u8>, what: &[u8], with: &[u8]) -> Vec<u8> {
    if let Some(at) = find(&bytes, what) {
        bytes[at..at + with.len()].copy_from_slice(with);
    }
    bytes
}
