//! How clients prove who they are (RFC 7616 §3.4): a challenge is kept and used again with the next
//! count. Some say what they said before, some do not know the password, some repeat another's words,
//! some have tokens (`bearer`).

use crate::agenda::Happening;
use crate::bearer::Wallet;
use crate::check::Aim;
use crate::client::{Purpose, Request};
use crate::house::password;
use crate::lab::digest::{Challenge, Response};
use crate::lab::text;
use crate::message::Sip;
use crate::phone::{Alarm, PhoneId};
use crate::world::World;

/// Challenges that a client answers for one request.
const ATTEMPTS_MAX: u8 = 2;

/// What a client says of itself, and whether that is so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Truth {
    /// It is who it says.
    Honest,
    /// It does not know the password.
    Guesses,
    /// Nobody has that name.
    Unknown,
    /// It has a name of its own, and instance and Contact of that other client.
    Impostor(PhoneId),
    /// It repeats what that other client said to prove itself.
    Thief(PhoneId),
}

/// What a client proves itself with.
pub struct Proof {
    pub truth: Truth,
    challenge: Option<Challenge>,
    nc: u32,
    /// What it said last.
    last: Option<String>,
    /// It has tokens instead of a password.
    pub wallet: Option<Wallet>,
}

impl Proof {
    pub fn new() -> Proof {
        Proof { truth: Truth::Honest, challenge: None, nc: 0, last: None, wallet: None }
    }
}

impl World {
    /// Who could prove to be which user, for the books.
    pub fn note_claims(&mut self) {
        let provable = self.phones.iter().map(|it| match it.proof.truth {
            _ if it.is_server() => Some(it.aor()),
            Truth::Honest | Truth::Impostor(_) => Some(it.aor()),
            Truth::Guesses | Truth::Unknown | Truth::Thief(_) => None,
        });
        let servers = self.phones.iter().filter(|it| it.is_server()).count();
        self.books.claims.set(provable.collect(), servers);
    }

    /// The header line with which a request goes out, if any.
    pub fn credentials(&mut self, phone: PhoneId, request: &Request) -> String {
        let is_register = request.method == "REGISTER";
        let it = &self.phones[phone];
        // Whom the upgrade made known has said enough.
        let is_known = it.conn.is_some_and(|conn| self.conns[conn].shown.is_some());
        let is_asked = is_register && !is_known || request.attempts > 0 || it.conn.is_none();
        let is_initial = !request.to.contains(";tag=");
        if !self.profile.house.digest || it.is_server() || !is_asked || !is_initial {
            return String::new();
        }
        let has_wallet = it.proof.wallet.is_some();
        let value = match has_wallet {
            true => self.token(phone, request.attempts > 0).map(|token| format!("Bearer {token}")),
            false => self.prove(phone, request),
        };
        let Some(value) = value else { return String::new() };
        // JsSIP shows tokens in Authorization, whatever the method (RFC 8898 §2.1.4).
        let is_plain = is_register || has_wallet && phone.is_multiple_of(2);
        let name = if is_plain { "Authorization" } else { "Proxy-Authorization" };
        format!("{name}: {value}\r\n")
    }

    fn prove(&mut self, phone: PhoneId, request: &Request) -> Option<String> {
        let it = &self.phones[phone];
        if let Truth::Thief(victim) = it.proof.truth {
            return self.phones[victim].proof.last.clone();
        }
        let challenge = it.proof.challenge.clone()?;
        let (user, truth) = (it.user, it.proof.truth);
        let repeats = it.proof.nc > 0 && request.attempts == 0;
        let repeats = repeats && self.mood.happens(self.profile.house.replays);
        let proof = &mut self.phones[phone].proof;
        proof.nc += u32::from(!repeats);
        let (name, known) = (format!("u{user}"), password(user));
        let known = if truth == Truth::Guesses { "guess" } else { known.as_str() };
        let response = Response::new(&challenge, (&name, known), request.method, &request.uri);
        let value = response.nc(proof.nc).value();
        proof.last = Some(value.clone());
        Some(value)
    }

    /// A request was challenged: it goes out once more with a proof. False: it is given up.
    pub fn answer_challenge(
        &mut self,
        phone: PhoneId,
        request: &Request,
        aim: &Aim,
        purpose: Purpose,
        sip: &Sip,
    ) -> bool {
        let challenge = Challenge::last(&text::Sip::read(sip.bytes()));
        let it = &mut self.phones[phone];
        it.proof.challenge = Some(challenge);
        it.proof.nc = 0;
        let is_initial = !request.to.contains(";tag=");
        if request.attempts == ATTEMPTS_MAX || !is_initial || !self.is_online(phone) {
            return false;
        }
        // It may be on another connection by now.
        let mut aim = aim.clone();
        if let Aim::Register(wish) = &mut aim {
            wish.secure = self.phones[phone].transport.is_secure();
        }
        let mut request = Request { attempts: request.attempts + 1, ..request.clone() };
        request.cseq += 1;
        if purpose == Purpose::Register {
            self.phones[phone].registration.cseq = request.cseq;
        }
        let serial = self.ask(phone, &request, aim, purpose);
        if purpose == Purpose::Invite {
            self.will_cancel(phone, serial);
        }
        true
    }

    /// Nobody waits for ever.
    pub fn will_cancel(&mut self, phone: PhoneId, serial: u32) {
        let seconds = std::time::Duration::from_secs;
        let wait = self.mood.between(seconds(20), seconds(240));
        self.after(wait, Happening::Rings { phone, alarm: Alarm::Cancel(serial) });
    }
}
