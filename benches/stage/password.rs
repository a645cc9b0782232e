//! Clients that register again and again with what their password or token proved once: what a
//! digest, or a token that is known, costs in a whole transaction.

use super::super::lab::config;
use super::super::lab::digest::{Challenge, Response, Settings, with_digest};
use super::super::lab::jwt::{ISSUED, Issuer, with_bearer};
use super::super::lab::text::Sip;
use super::script::{FIRST, NUMBER, digits, frame, named, places, put, register};
use super::{Peer, Stage};

/// How a REGISTER shows whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nobody asks.
    None,
    /// Its flow has proved it before.
    Flow,
    /// A digest in every request, by the challenge at this place of two: SHA-256, MD5.
    Digest(usize),
    /// A token in every request.
    Token,
}

/// Registered clients, and the REGISTER of each of them.
pub struct Passwords {
    pub stage: Stage,
    clients: Vec<(Peer, Vec<u8>, Vec<usize>)>,
    round: u32,
}

impl Passwords {
    /// So many clients.
    pub fn new(shards: u16, count: usize, proof: Proof) -> Passwords {
        let users: String = (0..count).map(|user| format!("user{user:05}:secret\n")).collect();
        let settings = Settings { users: &users, ..Settings::default() };
        let issuer = Issuer::default();
        let config = match proof {
            Proof::None => config(),
            Proof::Token => with_bearer(config(), &issuer),
            Proof::Flow | Proof::Digest(_) => with_digest(config(), &settings),
        };
        let mut stage = Stage::with(shards, config);
        stage.tell_time(ISSUED);
        let mut clients = Vec::with_capacity(count);
        for user in 0..count {
            let peer = Peer::Flow(stage.open());
            let mut ask = |text: &str| {
                let mut answer = None;
                stage.feed(peer, &frame(text.as_bytes()));
                stage.settle(|_, bytes| answer = Some(Sip::read(&bytes[4..])));
                answer.expect("an answer")
            };
            let plain = named(&register(), FIRST - 2, user, 0);
            let mut text = register();
            if proof == Proof::Token {
                let token = issuer.token(&format!("user{user:05}"), ISSUED + 1_000_000);
                let line = format!("Authorization: Bearer {token}\r\nExpires:");
                text = register().replace("Expires:", &line);
            } else if proof != Proof::None {
                let which = if let Proof::Digest(which) = proof { which } else { 1 };
                let challenge = Challenge::all(&ask(&plain)).swap_remove(which);
                let login = (&*format!("user{user:05}"), "secret");
                let response = Response::new(&challenge, login, "REGISTER", "sip:example.com");
                let line = format!("Authorization: {}\r\nExpires:", response.value());
                let with_proof = register().replace("Expires:", &line);
                assert_eq!(ask(&named(&with_proof, FIRST - 1, user, 0)).status(), 200);
                if proof != Proof::Flow {
                    text = with_proof;
                }
            }
            let text = named(&text, FIRST, user, 0);
            assert_eq!(ask(&text).status(), 200);
            let bytes = frame(text.as_bytes());
            let numbers = places(&bytes, FIRST.to_string().as_bytes());
            clients.push((peer, bytes, numbers));
        }
        Passwords { stage, clients, round: FIRST }
    }

    /// One REGISTER and its 200. Never inlined, so that a profiler finds it.
    #[inline(never)]
    pub fn round(&mut self) {
        self.round += 1;
        let at = self.round as usize % self.clients.len();
        let (peer, bytes, numbers) = &mut self.clients[at];
        put(bytes, numbers, digits::<NUMBER>(self.round));
        self.stage.feed(*peer, bytes);
        let mut is_registered = false;
        self.stage.settle(|_, bytes| is_registered = bytes[4..].starts_with(b"SIP/2.0 200"));
        assert!(is_registered);
        self.stage.pass();
    }
}
