//! What happens in a run: who is there, and what somebody does next, drawn from the seed. At the
//! end everybody leaves and time passes, so that whatever is left is a leak.

use std::time::Duration;

use sipring::base::config::{Config, Upstream, UpstreamTarget};
use sipring::base::id::Transport;
use sipring::base::time::Time;
use sipring::engine::Resources;

use crate::agenda::Happening;
use crate::check::Aim;
use crate::checker::Checker;
use crate::client::{Purpose, Request};
use crate::lab;
use crate::mutation::Fault;
use crate::phone::{Alarm, Phone, PhoneId, Style};
use crate::profile::{Chance, Profile};
use crate::world::World;

const CORE: &str = "198.51.100.7";
const TCP_CORE: &str = "198.51.100.8";

/// Longer than any transaction lives: timer C, its CANCEL, and the waits after both.
const CALLS_END: Duration = Duration::from_secs(185 + 32 * 4);
/// Longer than a plain stream may be silent, twice: its peer may be gone without a word.
const FLOWS_END: Duration = Duration::from_secs(2 * 900);

/// To whom a request goes, and how.
#[derive(Clone, Debug)]
pub struct Destination {
    pub uri: String,
    pub route: Vec<String>,
    pub aim: Aim,
}

impl Destination {
    pub fn new(uri: &str, aim: Aim) -> Destination {
        Destination { uri: uri.into(), route: Vec::new(), aim }
    }
}

/// Two servers behind the proxy, by UDP for numbers that begin with 9 and by TCP for those with 8;
/// all else is the location service's.
pub fn plain_config(profile: &Profile) -> Config {
    let mut config = lab::config();
    let core = |transport, host: &str| Upstream {
        name: host.into(),
        targets: vec![UpstreamTarget {
            transport,
            address: format!("{host}:5060").parse().expect("an address"),
            host: host.into(),
            ..config.upstreams[0].targets[0].clone()
        }],
        from: vec![format!("{host}/32").parse().expect("a network")],
        ..config.upstreams[0].clone()
    };
    let upstreams = vec![core(Transport::Udp, CORE), core(Transport::Tcp, TCP_CORE)];
    config.upstreams = upstreams;
    let mut by_tcp = config.routes[0].clone();
    by_tcp.user = Some(regex::Regex::new("^8").expect("an expression"));
    by_tcp.to = sipring::base::config::RouteTo::Upstream(1);
    config.routes.insert(0, by_tcp);
    if profile.tight {
        config.limits.transactions_max = 4 + (profile.seed % 9) as usize;
        config.limits.bindings_max = profile.phones - 1;
        config.limits.flow_queue_messages_max = 2;
        config.limits.flow_queue_bytes_max = 2048;
        config.registrar.contacts_max = 2;
    } else if profile.narrow {
        config.limits.flow_queue_messages_max = 1 + (profile.seed % 3) as usize;
    }
    config
}

/// The same under the rules of the house.
fn config(profile: &Profile) -> Config {
    profile.house.furnish(plain_config(profile), profile.users, 0)
}

/// One run of a seed.
pub fn run(profile: Profile, fault: Option<Fault>, shown: bool) -> World {
    let mut config = config(&profile);
    if fault == Some(Fault::ForgetClients) {
        config.registrar.grace = Duration::ZERO;
    }
    if fault == Some(Fault::OpenDoor) {
        config.auth = sipring::base::config::Auth::default();
    }
    let mut world = World::new(profile, config, shown);
    world.fault = fault;
    world.books.ways.is_impatient = fault == Some(Fault::NoPatience);
    world.populate();
    world.invite_liars();
    world.give_wallets();
    (0..world.engines.len()).for_each(|shard| world.tell_time(shard));
    if world.profile.house.digest {
        world.note_claims();
    }
    world.arrive_all();
    world.after(Duration::from_secs(2), Happening::Act);
    world.plan_failures();
    let acting = world.profile.pause * world.profile.acts as u32 + Duration::from_secs(3);
    world.pass(acting);
    world.is_over = true;
    world.pass(CALLS_END);
    world.leave();
    world
}

impl World {
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(end);
    }

    fn populate(&mut self) {
        self.phones.push(Phone::server(0, Transport::Udp, CORE));
        self.phones.push(Phone::server(1, Transport::Tcp, TCP_CORE));
        for id in 2..2 + self.profile.phones {
            let transport = self.mood.pick(&Transport::ALL);
            let styles = match transport {
                Transport::Ws | Transport::Wss => &[Style::Outbound, Style::Hidden, Style::Fresh],
                _ => &[Style::Outbound, Style::Hidden, Style::Own],
            };
            let style = self.mood.pick(styles);
            let user = (id - 2) % self.profile.users;
            let mut phone = Phone::new(id, transport, &format!("203.0.113.{id}"), user, style);
            phone.is_sips = transport.is_secure() && self.mood.happens(Chance(250));
            // The way to the registrar is not secure.
            phone.is_sips &= self.profile.house.edge.is_none();
            self.phones.push(phone);
        }
    }

    fn plan_failures(&mut self) {
        let end = self.profile.pause * self.profile.acts as u32;
        for _ in 0..self.profile.restarts {
            let shard = self.mood.below(u64::from(self.profile.shards)) as u16;
            let at = self.mood.between(Duration::from_secs(2), end);
            self.after(at, Happening::Restart { shard });
        }
        for _ in 0..self.profile.house.reloads {
            let at = self.mood.between(Duration::from_secs(2), end);
            self.after(at, Happening::Reload);
        }
        if self.profile.drains {
            self.after(end * 3 / 4, Happening::Drain);
        }
    }

    fn somebody(&mut self) -> PhoneId {
        self.mood.below(self.phones.len() as u64) as usize
    }

    fn client(&mut self) -> PhoneId {
        2 + self.mood.below(self.phones.len() as u64 - 2) as usize
    }

    /// Somebody does something.
    pub fn act(&mut self) {
        if self.acts_left == 0 {
            return;
        }
        self.acts_left -= 1;
        let wait = self.mood.between(Duration::from_millis(1), self.profile.pause);
        self.after(wait, Happening::Act);
        let profile = self.profile.clone();
        if self.mood.happens(profile.reset) {
            self.lose_somebody(World::reset);
        }
        if self.mood.happens(profile.hang_up) {
            self.lose_somebody(|world, conn| {
                world.hang_up(conn);
                world.on_lost(conn);
            });
        }
        if self.mood.happens(profile.vanish) {
            self.lose_somebody(World::vanish);
        }
        if self.mood.happens(profile.stall) {
            self.stall_somebody();
        }
        if self.mood.happens(profile.garbage) {
            let phone = self.client();
            self.send_garbage(phone);
        }
        if self.mood.happens(profile.forgery) {
            let phone = self.client();
            self.forge(phone);
        }
        if self.profile.house.digest {
            self.act_of_house();
            self.check_grace();
        } else if self.profile.house.edge.is_some() {
            self.act_of_edge();
            self.check_grace();
        }
        match self.mood.below(20) {
            0..9 => self.somebody_calls(),
            9..15 => self.somebody_writes(),
            15 => self.options(),
            16 => {
                let phone = self.client();
                self.come_and_go(phone);
            }
            17 => {
                let phone = self.client();
                if self.is_online(phone) {
                    self.register(phone, None);
                }
            }
            _ => self.notify(),
        }
    }

    /// Unregisters; a refresh that comes later registers again.
    fn come_and_go(&mut self, phone: PhoneId) {
        let it = &self.phones[phone];
        if it.transport == Transport::Udp && self.mood.happens(Chance(500)) {
            // Its address was translated anew.
            self.phones[phone].registration.is_asking = false;
            self.phones[phone].clients.clear();
            return self.come_back(phone);
        }
        if self.is_online(phone) {
            self.register(phone, Some(0));
        }
    }

    fn lose_somebody(&mut self, lose: fn(&mut World, usize)) {
        let phone = self.somebody();
        if let Some(conn) = self.phones[phone].conn {
            lose(self, conn);
        }
    }

    fn stall_somebody(&mut self) {
        let phone = self.client();
        let Some(conn) = self.phones[phone].conn else { return };
        self.stall(conn);
        let wait = self.mood.between(Duration::from_millis(100), Duration::from_secs(20));
        self.after(wait, Happening::Rings { phone, alarm: Alarm::Resume(conn) });
    }

    /// Somebody to send to.
    fn destination(&mut self, from: PhoneId) -> Option<Destination> {
        let is_secure = self.phones[from].transport.is_secure();
        let core = self.profile.house.edge;
        if core == Some(from) {
            return self.by_path();
        }
        let (uri, aim) = match self.mood.below(12) {
            0 if !self.phones[from].is_server() => ("sip:9001@example.com".into(), Aim::Server(0)),
            1 if !self.phones[from].is_server() => ("sip:8001@example.com".into(), Aim::Server(1)),
            2 => ("sip:nobody@example.com".into(), core.map_or(Aim::Nobody, Aim::Server)),
            4 if self.profile.house.digest => self.gruu_of_somebody(),
            kind => {
                let users = self.profile.users;
                let mut user = self.mood.below(users as u64) as usize;
                // Who has several tabs would be both ends of one dialog.
                if self.profile.house.digest && self.phones[from].user == user {
                    user = (user + 1) % users;
                }
                let scheme = if kind == 3 && is_secure && core.is_none() { "sips" } else { "sip" };
                let aim = core.map_or(Aim::User(user), Aim::Server);
                (format!("{scheme}:u{user}@example.com"), aim)
            }
        };
        Some(Destination::new(&uri, aim))
    }

    fn somebody_calls(&mut self) {
        let phone = self.somebody();
        if self.is_online(phone)
            && let Some(to) = self.destination(phone)
        {
            self.call(phone, &to);
        }
    }

    fn somebody_writes(&mut self) {
        let phone = self.somebody();
        if self.is_online(phone)
            && let Some(to) = self.destination(phone)
        {
            let body =
                if self.mood.happens(Chance(200)) { "x".repeat(900) } else { "hi é\r\n".into() };
            self.ask_plain(phone, "MESSAGE", &to, &body);
        }
    }

    fn notify(&mut self) {
        if let Some(core) = self.profile.house.edge {
            if let Some(to) = self.by_path() {
                self.ask_plain(core, "NOTIFY", &to, "");
            }
            return;
        }
        let phone = self.mood.below(2) as usize;
        let user = self.mood.below(self.profile.users as u64) as usize;
        let to = Destination::new(&format!("sip:u{user}@example.com"), Aim::User(user));
        self.ask_plain(phone, "NOTIFY", &to, "");
    }

    fn options(&mut self) {
        let phone = self.client();
        if self.is_online(phone) {
            self.ask_plain(phone, "OPTIONS", &Destination::new("sip:example.com", Aim::Proxy), "");
        }
    }

    /// A request outside of dialogs.
    pub fn ask_plain(
        &mut self,
        phone: PhoneId,
        method: &'static str,
        to: &Destination,
        body: &str,
    ) {
        let Destination { uri, route, aim } = to.clone();
        self.next_call += 1;
        let number = self.next_call;
        let request = Request {
            method,
            from: format!("<{}>;tag=p{number}", self.phones[phone].aor()),
            to: format!("<{uri}>"),
            uri,
            call_id: format!("plain{number}"),
            cseq: 1,
            route,
            more: String::new(),
            body: body.into(),
            attempts: 0,
        };
        self.ask(phone, &request, aim, Purpose::Plain);
    }

    /// Everybody goes, and time passes until the last timer has rung.
    pub fn leave(&mut self) {
        self.leave_all();
        self.pass(CALLS_END + FLOWS_END);
        self.finish();
    }

    /// Half of the clients take their bindings out; all of them go.
    fn leave_all(&mut self) {
        for phone in 0..self.phones.len() {
            self.phones[phone].has_left = true;
            if self.is_online(phone) && self.mood.happens(Chance(500)) {
                self.register(phone, Some(0));
            }
        }
        self.pass(Duration::from_secs(40));
        for conn in 0..self.conns.len() {
            if self.conns[conn].held {
                self.phones[self.conns[conn].phone].conn = None;
                self.hang_up(conn);
            }
        }
    }

    /// Everything is over: the books are closed.
    fn finish(&mut self) {
        if self.books.violation().is_some() {
            return;
        }
        self.books.finish();
        for engine in &self.engines {
            let gauges = engine.gauges();
            let left = [
                gauges.server_transactions,
                gauges.client_transactions,
                gauges.bindings,
                gauges.aors,
                gauges.flows.iter().sum(),
            ];
            if left != [0; 5] {
                self.books.fail(Checker::Leak, format!("{engine:?}: {gauges:?}"));
            }
        }
        self.check_resources();
        let mut total = self.counted();
        self.plant_count(&mut total);
        let has_failed = !self.buried.is_empty();
        for row in lab::balance::outcomes(&total) {
            let balances = row.came == row.sum() || has_failed && row.came >= row.sum();
            if !balances {
                self.books.fail(Checker::Balance, format!("{row:?}"));
            }
        }
    }

    /// Nothing is left in any inner table. Blocks that a failed shard had are not counted.
    fn check_resources(&mut self) {
        let mut blocks = 0;
        for shard in 0..self.engines.len() {
            let held = self.engines[shard].resources();
            blocks += held.blocks;
            if (Resources { blocks: 0, ..held }) != Resources::default() {
                self.books.fail(Checker::Leak, format!("shard {shard}: {held:?}"));
            }
        }
        if blocks != 0 && self.buried.is_empty() {
            self.books.fail(Checker::Leak, format!("{blocks} blocks are in use"));
        }
    }

    /// Virtual time that has passed.
    pub fn elapsed(&self) -> Duration {
        self.now.saturating_since(Time::ZERO)
    }
}
