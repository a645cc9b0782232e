//! Clients whose users log in elsewhere (RFC 7519, RFC 8898): they show tokens, in requests or in the
//! upgrade, which are good for a while. Some clients renew theirs in time, some when they are refused,
//! some never; some show tokens that nobody issued. To judge is that nothing is believed of a token
//! that is forged or over, that what is good is believed, and that a flow ends with its token and
//! the grace, not before and not later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use sipring::base::bearer::Bearer;
use sipring::base::id::FlowId;
use sipring::base::time::Time;
use sipring::engine::Input;

use crate::agenda::Happening;
use crate::check::{Asked, Books};
use crate::checker::{Checker, Violation};
use crate::lab::jwt::{self, ISSUED, Issuer, Signer};
use crate::message::Sip;
use crate::mutation::Fault;
use crate::network::{ConnId, Mark};
use crate::phone::PhoneId;
use crate::profile::{Chance, Dice};
use crate::proof::Truth;
use crate::wire;
use crate::world::{End, World};

/// How long tokens are good once nobody acts any more, in seconds.
const LONG: u64 = 3600;

/// The rules of a house in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long a token is good.
    pub life: u64,
    /// How much longer it is taken.
    pub leeway: u64,
    /// How much longer its flow lives.
    pub grace: u64,
}

impl Terms {
    pub fn of(dice: &mut Dice) -> Terms {
        Terms {
            life: dice.pick(&[8, 15, 15, 40, 120]),
            leeway: dice.pick(&[0, 3, 30]),
            grace: dice.pick(&[0, 4, 20]),
        }
    }

    /// The proxy's settings.
    pub fn settings(&self) -> Bearer {
        Bearer {
            leeway: Duration::from_secs(self.leeway),
            grace: Duration::from_secs(self.grace),
            ..jwt::bearer(&issuer(1).jwks())
        }
    }
}

/// Whose key is of that number. The proxy knows the first, whose name all of them use.
fn issuer(number: u8) -> Issuer {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[number; 32]).expect("a key");
    Issuer { signer: Signer::Ed25519(pair) }
}

/// Who gives tokens to clients, and who pretends to.
pub struct Mint {
    issuer: Issuer,
    forger: Issuer,
}

impl Mint {
    pub fn new() -> Mint {
        Mint { issuer: issuer(1), forger: issuer(2) }
    }
}

/// When a client gets another token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Habit {
    /// Before the one that it has is over.
    Renews,
    /// When that one is refused.
    Waits,
    /// Never.
    Once,
}

/// What a client shows.
#[derive(Clone, Debug)]
pub struct Wallet {
    pub habit: Habit,
    /// Its token, when it was issued and until when it is good.
    held: Option<(String, u64, u64)>,
}

impl World {
    /// Seconds since 1970, by everybody's clock.
    fn unix(&self) -> u64 {
        unix(self.now)
    }

    /// An engine is told what the wall clock shows.
    pub fn tell_time(&mut self, shard: usize) {
        if self.profile.house.tokens.is_some() {
            let ahead = if self.fault == Some(Fault::ClockAhead) { 86_400 } else { 0 };
            let since = self.now.saturating_since(Time::ZERO);
            self.input(shard, Input::WallClock(Duration::from_secs(ISSUED + ahead) + since));
        }
    }

    /// Half of the clients have tokens instead of passwords; who would repeat another's words is as
    /// that one is.
    pub fn give_wallets(&mut self) {
        if self.profile.house.tokens.is_none() {
            return;
        }
        for phone in 2..self.phones.len() {
            let has_one = match self.phones[phone].proof.truth {
                Truth::Thief(victim) => self.phones[victim].proof.wallet.is_some(),
                _ => self.mood.happens(Chance(500)),
            };
            let habits = [Habit::Renews, Habit::Renews, Habit::Waits, Habit::Once];
            let habit = self.mood.pick(&habits);
            self.phones[phone].proof.wallet = has_one.then_some(Wallet { habit, held: None });
        }
        let has_wallet = |phone: &PhoneId| self.phones[*phone].proof.wallet.is_some();
        let bearers = (2..self.phones.len()).filter(has_wallet).collect();
        self.books.bearers.set(self.profile.house.tokens, bearers);
    }

    /// The token that a client shows in a request, or in an upgrade; `is_refused`: the one that it
    /// has was not taken.
    pub fn token(&mut self, phone: PhoneId, is_refused: bool) -> Option<String> {
        let (terms, now) = (self.profile.house.tokens?, self.unix());
        let it = &self.phones[phone];
        let (truth, user) = (it.proof.truth, it.user);
        let Wallet { habit, held } = it.proof.wallet.clone()?;
        if let Truth::Thief(victim) = truth {
            // Whoever has a token that is good is its user.
            let held = self.phones[victim].proof.wallet.as_ref()?.held.as_ref()?;
            return (held.2 + terms.leeway <= now).then(|| held.0.clone());
        }
        if let Some((token, since, until)) = held {
            let is_kept = match habit {
                Habit::Renews => now < since.midpoint(until),
                Habit::Waits => !is_refused || now < until,
                Habit::Once => true,
            };
            if is_kept {
                return Some(token);
            }
        }
        let life = if self.is_over && habit != Habit::Once { LONG } else { terms.life };
        let is_genuine = matches!(truth, Truth::Honest | Truth::Impostor(_));
        let mint = self.mint.get_or_insert_with(Mint::new);
        let signer = if is_genuine { &mint.issuer } else { &mint.forger };
        let (name, until) = (format!("u{user}"), now + life);
        let token = signer.token(&name, until);
        self.books.bearers.issued(&token, if is_genuine { until + terms.leeway } else { 0 });
        let wallet = self.phones[phone].proof.wallet.as_mut()?;
        wallet.held = Some((token.clone(), now, until));
        Some(token)
    }

    /// A client's first bytes on a WebSocket; some show their token there, and in SIP when they are
    /// asked.
    pub fn upgrade(&mut self, conn: ConnId) {
        let phone = self.conns[conn].phone;
        let has_wallet = self.phones[phone].proof.wallet.is_some();
        let shows = has_wallet && self.mood.happens(Chance(500));
        match shows.then(|| self.token(phone, false)).flatten() {
            Some(token) => {
                let bytes = wire::upgrade_with(&token, phone.is_multiple_of(2));
                self.conns[conn].shown = Some(token);
                self.push(conn, &bytes, Mark::Upgrade);
            }
            None => self.push(conn, wire::UPGRADE, Mark::None),
        }
    }

    /// The proxy let a WebSocket in.
    pub fn check_welcome(&mut self, conn: ConnId) {
        let flow = self.conns[conn].flow;
        if flow.is_some_and(|flow| self.books.bearers.is_unwelcome(End::Flow(flow))) {
            let text = format!("connection {conn} with a token that is not good");
            self.books.fail(Checker::Bearer, text);
        }
    }

    /// A planted fault: a request with a good token in place of the one that it shows, if nobody
    /// issued that, or if that is over.
    pub fn renewed(&mut self, phone: PhoneId, text: &str, sip: &Sip, is_forged: bool) -> String {
        let now = self.unix();
        let until = token_in(sip).and_then(|token| self.books.bearers.tokens.get(token));
        let is_meant = until.is_some_and(|until| *until <= now && (*until == 0) == is_forged);
        let Some(mint) = self.mint.as_ref().filter(|_| is_meant) else { return text.into() };
        let good = mint.issuer.token(&format!("u{}", self.phones[phone].user), now + LONG);
        text.replace(token_in(sip).unwrap_or_default(), &good)
    }

    /// A flow's client proved who it is by a token: when that and the grace are over, so is the flow.
    pub fn watch_token(&mut self, flow: FlowId) {
        if let Some(end) = self.books.bearers.end_of(End::Flow(flow)) {
            // An engine reads its clock in whole seconds.
            let wait = Duration::from_secs(end.saturating_sub(self.unix()) + 1);
            let wait = wait + Duration::from_millis(1);
            self.after(wait, Happening::TokenEnds { flow });
        }
    }

    pub fn token_ends(&mut self, flow: FlowId) {
        let end = self.books.bearers.end_of(End::Flow(flow));
        let is_over = end.is_some_and(|end| end < self.unix());
        if is_over && self.by_flow.contains_key(&flow) {
            let text = format!("{flow} outlives its token, which ended at {end:?}");
            self.books.fail(Checker::Bearer, text);
        }
    }
}

fn unix(now: Time) -> u64 {
    ISSUED + now.as_secs()
}

/// What the books know of tokens.
#[derive(Default)]
pub struct Bearers {
    /// How long a flow outlives what its token proves.
    grace: u64,
    phones: BTreeSet<usize>,
    /// From which second on a token proves nothing; of forged ones the first.
    tokens: BTreeMap<String, u64>,
    /// The same of who last proved to be there.
    flows: BTreeMap<End, u64>,
    /// Nobody knows what the proxy took for a request there.
    doubted: BTreeSet<End>,
    /// Their upgrade bore a token that was not good.
    unwelcome: BTreeSet<End>,
}

impl Bearers {
    pub fn set(&mut self, terms: Option<Terms>, phones: BTreeSet<usize>) {
        self.grace = terms.map_or(0, |terms| terms.grace);
        self.phones = phones;
    }

    fn issued(&mut self, token: &str, until: u64) {
        self.tokens.insert(token.into(), until);
    }

    /// Whether a token is good.
    fn proves(&self, token: &str, now: Time) -> Option<u64> {
        self.tokens.get(token).copied().filter(|until| *until > unix(now))
    }

    /// A request of a client reached the proxy: if it, or its flow, bears a token that is good, for
    /// how many seconds something may be granted.
    pub fn hear(&mut self, phone: usize, from: End, sip: &Sip, now: Time) -> Option<u32> {
        if !self.phones.contains(&phone) || matches!(sip.method(), "ACK" | "CANCEL") {
            return None;
        }
        let until = match token_in(sip) {
            Some(token) => {
                let until = self.proves(token, now)?;
                if matches!(from, End::Flow(_)) {
                    self.flows.insert(from, until);
                }
                until
            }
            None => self.flows.get(&from).copied().filter(|until| *until > unix(now))?,
        };
        Some((until + self.grace - unix(now)) as u32)
    }

    /// The proxy got an upgrade with that token.
    pub fn on_upgrade_in(&mut self, token: &str, from: End, now: Time) {
        match self.proves(token, now) {
            Some(until) => {
                self.flows.insert(from, until);
            }
            None => {
                self.unwelcome.insert(from);
            }
        }
    }

    pub fn doubt(&mut self, end: End) {
        self.doubted.insert(end);
    }

    pub fn ended(&mut self, end: End) {
        self.flows.remove(&end);
        self.doubted.remove(&end);
    }

    /// Whether the proxy must refuse the upgrade there.
    pub fn is_unwelcome(&self, end: End) -> bool {
        self.unwelcome.contains(&end)
    }

    /// When a flow ends at the latest, if that is sure.
    pub fn end_of(&self, end: End) -> Option<u64> {
        let until = self.flows.get(&end).filter(|_| !self.doubted.contains(&end));
        until.map(|until| until + self.grace)
    }

    /// Whether the proxy may close a flow for its token.
    pub fn may_end(&self, end: End, now: Time) -> bool {
        self.doubted.contains(&end) || self.end_of(end).is_some_and(|it| it <= unix(now))
    }
}

/// The token that a request shows (RFC 8898 §2.1.4, §2.3).
fn token_in(sip: &Sip) -> Option<&str> {
    let names = ["Authorization", "Proxy-Authorization"];
    names.into_iter().find_map(|name| sip.find(name)?.strip_prefix("Bearer "))
}

impl Books {
    /// Whether a client that has tokens bore none that is good.
    pub fn lacks_token(&self, asked: &Asked) -> bool {
        self.bearers.phones.contains(&asked.sender) && !asked.proved && !asked.forgotten
    }

    /// A proof that is good is enough, and a REGISTER needs one.
    pub fn judge_proof(
        &self,
        asked: &Asked,
        status: u16,
        answer: Option<usize>,
    ) -> Result<(), Violation> {
        let wrong = |why: &str| {
            let text = format!("{status} {why}: {} of phone {}", asked.sip.start(), asked.sender);
            Err(Violation { checker: Checker::Bearer, text })
        };
        let is_register = asked.sip.method() == "REGISTER";
        if is_register && (200..300).contains(&status) && self.lacks_token(asked) {
            return wrong("without a token that is good");
        }
        let is_judged = asked.proves && answer.is_none() && !asked.excused && !asked.forgotten;
        let is_refusal = matches!(status, 401 | 407) && self.claims.is_own_name(asked);
        if is_judged && is_refusal {
            return wrong("though it bore a token that is good");
        }
        Ok(())
    }
}
