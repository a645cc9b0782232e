//! What happens in a house with rules: clients with bad intent, second tabs, names that are not
//! one's own, registrations that are refused as a whole, clients that are back without TLS, other
//! versions of the configuration.

use std::sync::Arc;
use std::time::Duration;

use sipring::base::id::Transport;
use sipring::base::time::Time;
use sipring::engine::Input;

use crate::agenda::Happening;
use crate::check::Aim;
use crate::checker::Checker;
use crate::client::{Purpose, Request};
use crate::mutation::Fault;
use crate::phone::{Alarm, Phone, PhoneId, Style};
use crate::profile::Chance;
use crate::proof::Truth;
use crate::script;
use crate::world::World;

/// Bindings leave the table at most so long after they are out of force.
const TABLE_LAG: Duration = Duration::from_secs(9);

impl World {
    /// Clients that say to be others. They come after all that are who they are.
    pub fn invite_liars(&mut self) {
        let honest = self.phones.len() as u64 - 2;
        for _ in 0..self.profile.house.liars {
            let id = self.phones.len();
            let victim = 2 + self.mood.below(honest) as usize;
            let it = &self.phones[victim];
            let (transport, style, user) = (it.transport, it.style, it.user);
            // Two of one name and one instance would be one client.
            let is_taken = self.phones.iter().any(|it| it.face == victim && it.id != victim);
            let truth = match self.mood.below(4) {
                3 if is_taken => Truth::Guesses,
                0 => Truth::Guesses,
                1 => Truth::Unknown,
                2 => Truth::Thief(victim),
                _ => Truth::Impostor(victim),
            };
            let own = (user + 1) % self.profile.users;
            let user = match truth {
                Truth::Unknown => 90 + id,
                Truth::Impostor(_) => own,
                _ => user,
            };
            let style = if style == Style::Own { Style::Hidden } else { style };
            let mut phone = Phone::new(id, transport, &format!("203.0.113.{id}"), user, style);
            phone.proof.truth = truth;
            if let Truth::Impostor(victim) = truth {
                phone.face = victim;
            }
            self.phones.push(phone);
        }
        for phone in 2..self.phones.len() {
            let remembers = self.profile.house.moves() && self.mood.happens(Chance(500));
            self.phones[phone].remembers = remembers;
        }
    }

    /// What somebody does besides.
    pub fn act_of_house(&mut self) {
        let house = self.profile.house.clone();
        let phone = 2 + self.mood.below(self.phones.len() as u64 - 2) as usize;
        if !self.is_online(phone) {
            return;
        }
        if self.mood.happens(house.masquerades) {
            self.masquerade(phone);
        }
        if self.mood.happens(house.tabs) {
            self.open_tab(phone);
        }
        if self.mood.happens(house.half_bad) {
            self.register_half_bad(phone);
        }
        if self.mood.happens(house.captures) {
            self.capture_token(phone);
        }
        // A careless client goes from one network to the next.
        let Some(conn) = self.phones[phone].conn else { return };
        if self.mood.happens(Chance(house.careless.0 / 3)) {
            self.reset(conn);
        }
    }

    /// Somebody speaks in a name that is not its own.
    fn masquerade(&mut self, phone: PhoneId) {
        let other = (self.phones[phone].user + 1) % self.profile.users;
        self.next_call += 1;
        let number = self.next_call;
        let user = self.mood.below(self.profile.users as u64) as usize;
        let uri = format!("sip:u{user}@example.com");
        let request = Request {
            method: "MESSAGE",
            uri: uri.clone(),
            from: format!("<sip:u{other}@example.com>;tag=p{number}"),
            to: format!("<{uri}>"),
            call_id: format!("mask{number}"),
            cseq: 1,
            route: Vec::new(),
            more: String::new(),
            body: "not me".into(),
            attempts: 0,
        };
        self.ask(phone, &request, Aim::Nobody, Purpose::Plain);
    }

    /// The same page once more: another connection registers the same Contact while the first one
    /// lives on for a while.
    pub fn open_tab(&mut self, phone: PhoneId) {
        let it = &self.phones[phone];
        let Some(first) = it.conn.filter(|_| it.style != Style::Own) else { return };
        self.phones[phone].registration.is_asking = false;
        self.choose_transport(phone);
        self.phones[phone].conn = Some(self.connect(phone));
        let wait = self.mood.between(Duration::from_secs(1), Duration::from_secs(60));
        self.after(wait, Happening::Rings { phone, alarm: Alarm::CloseTab(first) });
    }

    /// Some do not care whether they come with TLS or without, and may come otherwise than before.
    pub fn choose_transport(&mut self, phone: PhoneId) {
        let it = &self.phones[phone];
        let has_choice = !it.is_sips && it.style != Style::Own;
        if !has_choice || !self.mood.happens(self.profile.house.careless) {
            return;
        }
        let it = &mut self.phones[phone];
        it.transport = match it.transport {
            Transport::Ws => Transport::Wss,
            Transport::Wss => Transport::Ws,
            Transport::Tcp => Transport::Tls,
            Transport::Tls => Transport::Tcp,
            Transport::Udp => Transport::Udp,
        };
    }

    /// Two Contacts, one of them for too short a time: neither is registered (RFC 3261 §10.3).
    fn register_half_bad(&mut self, phone: PhoneId) {
        self.next_call += 1;
        let number = self.next_call;
        let it = &self.phones[phone];
        let (aor, contact) = (it.aor(), it.contact());
        let more = format!(
            "Contact: <sip:c{phone}@half{number}.invalid>;expires=600, <{contact}>;expires=1\r\n"
        );
        let request = Request {
            method: "REGISTER",
            uri: "sip:example.com".into(),
            from: format!("<{aor}>;tag=h{number}"),
            to: format!("<{aor}>"),
            call_id: format!("half{number}"),
            cseq: 1,
            route: Vec::new(),
            more,
            body: String::new(),
            attempts: 0,
        };
        self.ask(phone, &request, Aim::Nobody, Purpose::Plain);
    }

    /// A client by the name that the registrar gave it.
    pub fn gruu_of_somebody(&mut self) -> (String, Aim) {
        let pick = self.mood.below(self.phones.len() as u64) as usize;
        match self.phones[pick].gruu.clone() {
            Some(gruu) => (gruu, Aim::Gruu(pick)),
            None => ("sip:nobody@example.com".into(), Aim::Nobody),
        }
    }

    /// Another version of the configuration, in which the users stand in other places.
    pub fn reload(&mut self) {
        self.reloads += 1;
        let house = self.profile.house.clone();
        let config = script::plain_config(&self.profile);
        let config = house.furnish(config, self.profile.users, self.reloads % 3);
        let departed = self.config.auth.departed(&config.auth);
        self.config = Arc::new(config);
        self.trace.note(self.now, &self.reloads, "reload", &[]);
        for shard in 0..self.engines.len() {
            self.input(shard, Input::Config(Arc::clone(&self.config)));
            self.input(shard, Input::Departed(Arc::clone(&departed)));
        }
    }

    /// Bindings end with their flow and the grace: there are no more than the books know of.
    pub fn check_grace(&mut self) {
        if self.books.lenient {
            return;
        }
        let bindings: u64 = self.engines.iter().map(|engine| engine.gauges().bindings).sum();
        let since =
            Time::from_nanos(self.now.as_nanos().saturating_sub(TABLE_LAG.as_nanos() as u64));
        let since = if self.fault == Some(Fault::NoGrace) { self.now + TABLE_LAG } else { since };
        let most = self.books.registrar.count_since(since);
        if bindings > most as u64 {
            let text = format!("{bindings} bindings where {most} may be");
            self.books.fail(Checker::Grace, text);
        }
    }
}
