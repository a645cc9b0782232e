//! Tests only: a table, a configuration and a client that REGISTERs at it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::config::{Auth, Config, Node, Registrar, Timers};
use crate::base::hash::KeyedHash;
use crate::base::id::{DatagramPath, FlowId, FlowRef, ListenerId, ShardId, StreamPath, Transport};
use crate::base::limits::Limits;
use crate::base::time::Time;
use crate::base::users::UserMark;
use crate::sip::{Parsed, Uri, parse};

use super::binding::BindingFlow;
use super::contact::canonical_contact;
use super::gruu::GruuKey;
use super::location::Location;
use super::register::{RegisterContext, Registered, Reject, register};

/// Bindings that the table holds.
pub(super) const ROOM: usize = 20;

/// A registrar for `example.com` and `biloxi.example.com` at `192.0.2.100:5060`.
pub(super) struct Desk {
    pub(super) location: Location,
    pub(super) config: Config,
    pub(super) now: Time,
    pub(super) random: u64,
    pub(super) gruu_key: GruuKey,
    pub(super) source: FlowRef,
    pub(super) source_ip: &'static str,
    /// When the nonce was made that it answers.
    pub(super) answers: Option<u32>,
    /// Who proved to be whom.
    pub(super) user: UserMark,
    /// Each REGISTER was accepted before.
    pub(super) is_repeated: bool,
    pub(super) out: Registered,
}

impl Desk {
    pub(super) fn new() -> Desk {
        let now = Time::ZERO + Duration::from_secs(1_000);
        Desk {
            location: Location::new(KeyedHash::new([1; 16]), ROOM),
            config: config(),
            now,
            random: 0,
            gruu_key: GruuKey::new(&[3; 32]),
            source: stream(1, Transport::Wss),
            source_ip: "192.0.2.1",
            answers: None,
            user: UserMark::NONE,
            is_repeated: false,
            out: Registered::default(),
        }
    }

    /// One REGISTER for the To URI `aor` with these Call-ID and CSeq; `lines` are more header
    /// lines, each with a line feed behind it.
    pub(super) fn register(
        &mut self,
        aor: &str,
        call: (&str, u32),
        lines: &str,
    ) -> Result<(), Reject> {
        let via = format!("Via: SIP/2.0/TCP {};branch=z9hG4bK1\n", self.source_ip);
        self.register_raw(&format!(
            "REGISTER sip:example.com SIP/2.0\n{via}From: <{aor}>;tag=1\nTo: <{aor}>\n\
             Call-ID: {}\nCSeq: {} REGISTER\n{lines}\n",
            call.0, call.1
        ))
    }

    /// A whole REGISTER with bare line feeds.
    pub(super) fn register_raw(&mut self, text: &str) -> Result<(), Reject> {
        let text = text.replace('\n', "\r\n");
        let mut parsed = Parsed::default();
        parse(text.as_bytes(), &mut parsed).unwrap();
        let context = RegisterContext {
            now: self.now,
            source: self.source,
            source_ip: self.source_ip.parse().unwrap(),
            config: &self.config,
            names_us: &|uri| uri.host == b"192.0.2.100" && uri.port.unwrap_or(5060) == 5060,
            random: self.random,
            longest: None,
            answers: self.answers,
            user: self.user,
            client_hash: None,
            gruu_key: &self.gruu_key,
            flow_timer: Some(120),
            is_repeated: self.is_repeated,
        };
        register(&mut self.location, parsed.view(text.as_bytes()), &context, &mut self.out)
    }

    /// The status of a refusal that left everything as it was.
    #[track_caller]
    pub(super) fn refused(&mut self, aor: &str, call: (&str, u32), lines: &str) -> u16 {
        let before = self.contacts(aor);
        let reject = self.register(aor, call, lines).unwrap_err();
        assert_eq!(self.contacts(aor), before);
        assert!(self.headers().contains("Warning: 399 edge-1 \""), "{}", self.headers());
        reject.status
    }

    pub(super) fn headers(&self) -> String {
        String::from_utf8(self.out.headers().to_vec()).unwrap()
    }

    /// The Contact lines of the last answer, without their name.
    pub(super) fn listed(&self) -> Vec<String> {
        let headers = self.headers();
        let lines = headers.lines().filter_map(|line| line.strip_prefix("Contact: "));
        lines.map(str::to_owned).collect()
    }

    /// The Contact URIs in force of a To URI, newest first.
    pub(super) fn contacts(&self, aor: &str) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        self.location
            .lookup(&canonical_aor(aor), self.now)
            .map(|binding| text(binding.contact()))
            .collect()
    }

    /// How requests get to the newest binding.
    pub(super) fn flow(&self, aor: &str) -> BindingFlow {
        self.location.lookup(&canonical_aor(aor), self.now).next().unwrap().flow()
    }

    /// The Contact URI of the only binding in force whose Contact equals `uri`.
    pub(super) fn contact_match(&self, uri: &str) -> Option<String> {
        let uri = Uri::parse(uri.as_bytes()).unwrap();
        let mut canonical = Vec::new();
        canonical_contact(&uri, &mut canonical);
        let binding = self.location.contact_match(&uri, &canonical, self.now)?;
        Some(String::from_utf8(binding.contact().to_vec()).unwrap())
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

pub(super) fn canonical_aor(uri: &str) -> Vec<u8> {
    let mut aor = Vec::new();
    Uri::parse(uri.as_bytes()).unwrap().aor_into(&mut aor);
    aor
}

/// A stream flow in slot `slot`.
pub(super) fn stream(slot: u32, transport: Transport) -> FlowRef {
    let flow = FlowId::new(ShardId(0), slot, 1);
    FlowRef::Stream(StreamPath { flow, transport, listener: ListenerId(3) })
}

/// A datagram association with `remote`.
pub(super) fn datagram(remote: &str) -> FlowRef {
    let local: SocketAddr = "192.0.2.100:5060".parse().unwrap();
    let remote = remote.parse().unwrap();
    FlowRef::Datagram(DatagramPath { listener: ListenerId(0), local, remote })
}

fn config() -> Config {
    let domains = ["example.com", "biloxi.example.com"].map(str::to_owned).to_vec();
    Config {
        node: Node { name: "edge-1".to_owned(), domains },
        listeners: Vec::new(),
        registrar: Registrar { contacts_max: 4, ..Registrar::default() },
        auth: Auth::default(),
        upstreams: Vec::new(),
        routes: Vec::new(),
        timers: Timers::default(),
        limits: Limits::default(),
    }
}
