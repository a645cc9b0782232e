//! A registrar behind the proxy (RFC 3327, RFC 5626 §5.1): it knows who is who, keeps the Path of
//! each REGISTER that it accepts, and sends its requests by it. To judge is that each of them is
//! written to the flow that registered, or to the next one of the same client, or that the
//! registrar is told at once that there is none (RFC 5626 §5.3.1).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sipring::base::time::Time;

use crate::check::{Aim, Asked, Books, Peer};
use crate::checker::{Checker, Violation};
use crate::client::{Purpose, Request};
use crate::message::{Sip, inside, param};
use crate::phone::PhoneId;
use crate::profile::Chance;
use crate::proof::Truth;
use crate::script::Destination;
use crate::world::{End, World};

/// One Contact that the registrar took.
#[derive(Clone)]
struct Enrolled {
    /// As its client wrote it, with its parameters.
    value: String,
    path: String,
    phone: PhoneId,
    /// The REGISTER.
    serial: u32,
    /// The flow that it came on.
    end: End,
    until: Time,
}

/// What the registrar knows.
#[derive(Default)]
pub struct Core {
    /// By address of record.
    enrolled: BTreeMap<String, Vec<Enrolled>>,
    /// Paths that were replaced since.
    replaced: Vec<Enrolled>,
}

impl Enrolled {
    /// RFC 5626 §6: instance and reg-id name the binding, else the Contact does.
    fn means(&self, value: &str) -> bool {
        let instance = |value: &str| param(value, "+sip.instance").map(String::from);
        match (instance(&self.value), instance(value)) {
            (Some(mine), Some(other)) => mine == other,
            _ => inside(&self.value) == inside(value),
        }
    }
}

impl Core {
    /// The token of some other client, to be mistaken for that one.
    pub fn other_token(&self, token: &str) -> Option<&str> {
        let paths = self.enrolled.values().flatten().map(|it| it.path.as_str());
        let mut tokens = paths.filter_map(token_of);
        tokens.find(|other| other.len() == token.len() && *other != token)
    }
}

/// The user part of a Path.
pub fn token_of(path: &str) -> Option<&str> {
    inside(path).strip_prefix("sip:")?.split_once('@').map(|(token, _)| token)
}

impl World {
    /// The registrar gets a REGISTER. It asks nobody for a password, but knows who has it.
    pub fn enrol(&mut self, phone: PhoneId, key: &str) {
        let Some(request) = self.phones[phone].servers.get(key).map(|tx| tx.request.clone()) else {
            return;
        };
        let serial = request.number().and_then(|it| it.parse().ok()).unwrap_or(u32::MAX);
        let asked = self.books.asked(serial);
        let known = asked.and_then(|it| Some((it.sender, it.reached?.1)));
        let Some((sender, end)) = known else { return self.answer(phone, key, 400) };
        if self.mood.happens(self.profile.deaf) {
            return;
        }
        let is_true = matches!(self.phones[sender].proof.truth, Truth::Honest | Truth::Impostor(_));
        let refuses = self.mood.happens(Chance(self.profile.refuses.0 / 3));
        if !is_true || refuses {
            let status = self.mood.pick(&[401, 403, 403, 500]);
            return self.answer(phone, key, status);
        }
        let value = request.header("Contact").to_string();
        let aor = inside(request.header("To")).to_string();
        let path = request.header("Path").to_string();
        let expires = request.header("Expires").parse().unwrap_or(0);
        let until = self.now + Duration::from_secs(expires);
        let all = self.core.enrolled.entry(aor).or_default();
        if all.iter().any(|it| it.means(&value) && it.serial > serial) {
            // RFC 3261 §10.3 step 7: overtaken.
            return self.answer(phone, key, 500);
        }
        self.core.replaced.extend(all.extract_if(.., |it| it.means(&value)));
        if expires > 0 {
            all.push(Enrolled { value, path, phone: sender, serial, end, until });
        }
        self.answer(phone, key, 200);
    }

    /// Its Contacts at that address of record (RFC 3261 §10.3 step 8).
    pub fn list_enrolled(&self, request: &Sip) -> String {
        let all = self.core.enrolled.get(inside(request.header("To")));
        let living = all.into_iter().flatten().filter(|it| it.until > self.now);
        living
            .map(|it| {
                let left = it.until.saturating_since(self.now).as_secs();
                format!("Contact: {};expires={left}\r\n", it.value)
            })
            .collect()
    }

    /// A client as the registrar finds it: mostly by the Path that is in force, at times by one
    /// that is not any more.
    pub fn by_path(&mut self) -> Option<Destination> {
        let now = self.now;
        let is_old = !self.core.replaced.is_empty() && self.mood.happens(Chance(200));
        let living = self.core.enrolled.values().flatten().filter(|it| it.until > now);
        let all: Vec<&Enrolled> = match is_old {
            true => self.core.replaced.iter().collect(),
            false => living.collect(),
        };
        if all.is_empty() {
            return None;
        }
        let it = all[self.mood.below(all.len() as u64) as usize];
        let uri = inside(&it.value).to_string();
        Some(Destination { uri, route: vec![it.path.clone()], aim: Aim::Path(it.end, it.phone) })
    }

    /// What happens besides where the registrar is behind the proxy.
    pub fn act_of_edge(&mut self) {
        let clients = self.phones.len() as u64 - 2;
        let phone = 2 + self.mood.below(clients) as usize;
        if !self.is_online(phone) {
            return;
        }
        if self.mood.happens(self.profile.house.tabs) {
            self.open_tab(phone);
        }
        if self.mood.happens(self.profile.house.masquerades) {
            self.forge_path(phone);
        }
    }

    /// A client has got hold of a Path, which is for servers.
    fn forge_path(&mut self, phone: PhoneId) {
        let Some(Destination { uri, route, .. }) = self.by_path() else { return };
        self.next_call += 1;
        let number = self.next_call;
        let request = Request {
            method: "MESSAGE",
            from: format!("<{}>;tag=e{number}", self.phones[phone].aor()),
            to: format!("<{uri}>"),
            uri,
            call_id: format!("path{number}"),
            cseq: 1,
            route,
            more: String::new(),
            body: "by another's Path".into(),
            attempts: 0,
        };
        self.ask(phone, &request, Aim::Nobody, Purpose::Plain);
    }
}

/// What the books know of a registrar behind the proxy.
#[derive(Default)]
pub struct Edge {
    /// Which server it is, if one is.
    pub registrar: Option<PhoneId>,
    living: BTreeSet<End>,
}

impl Edge {
    pub fn opened(&mut self, end: End) {
        self.living.insert(end);
    }

    pub fn ended(&mut self, end: End) {
        self.living.remove(&end);
    }

    /// Whether something can be written to it. A datagram's address does not end.
    pub fn is_living(&self, end: End) -> bool {
        matches!(end, End::Datagram(_)) || self.living.contains(&end)
    }
}

impl Books {
    /// A REGISTER goes to the registrar with one Path (RFC 3327 §5.1), of a URI that is a loose
    /// router.
    pub fn judge_enrolment(&self, sip: &Sip, to: Peer) -> Result<(), Violation> {
        let paths: Vec<&str> = sip.all("Path").collect();
        let is_path = |value: &&str| {
            let uri = inside(value);
            token_of(value).is_some() && uri.split(';').any(|it| it == "lr")
        };
        let is_there = to.phone == self.edge.registrar && to.phone.is_some();
        if is_there && paths.len() == 1 && paths.iter().all(is_path) {
            return Ok(());
        }
        let text = format!("{} with {paths:?} to {to:?}", sip.start());
        Err(Violation { checker: Checker::Path, text })
    }

    /// The proxy's own refusal of a request by a Path: the flow is gone, and so is its client.
    pub fn judge_told(
        &self,
        asked: &Asked,
        status: u16,
        answer: Option<usize>,
        sip: &Sip,
        now: Time,
    ) -> Result<(), Violation> {
        let (Aim::Path(end, phone), Some((reached, _))) = (&asked.aim, asked.reached) else {
            return Ok(());
        };
        let is_full = sip.header("Warning").contains("does not read");
        // Cancelled, or draining.
        let is_other = matches!(status, 487 | 503);
        let is_own = status >= 300 && answer.is_none() && asked.written.is_empty();
        if !is_own || is_full || is_other || self.lenient || asked.forgotten || asked.excused {
            return Ok(());
        }
        let request = asked.sip.start();
        let wrong = |why: &str| {
            let text = format!("{status}: {why}: {request} for phone {phone} at {end:?}");
            Err(Violation { checker: Checker::Path, text })
        };
        if status != 430 {
            return wrong("no 430");
        }
        if self.edge.is_living(*end) {
            return wrong("its flow lives");
        }
        match self.ways.surely_at(*phone, *end, (reached, now), self.slack) {
            Some(next) if self.edge.is_living(next) => wrong(&format!("it is back at {next:?}")),
            _ => Ok(()),
        }
    }
}
