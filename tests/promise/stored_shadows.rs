//! The registrar is behind us, and the process ends: what it had accepted is known again in the next
//! run (RFC 3327, RFC 5626 §5.1), as long as it said and no longer.

use std::time::Duration;

use sipring::base::config::{Config, Persistence};
use sipring::base::id::{DatagramPath, ListenerId, Transport};
use sipring::engine::Input;

use crate::edge_mode::routes;
use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, CORE, Lab, listener_address, user_of};

const CLIENT: &str = "203.0.113.5:40001";
const CONTACT: &str = "sip:a@10.0.0.7:5070";

fn config() -> Config {
    lab::config_with(|config| {
        config.routes = routes();
        config.registrar.persistence = Persistence::Delayed;
    })
}

/// One run of the process, the client's flow in it, and the core.
struct Run {
    lab: Lab,
    client: Phone,
    core: Phone,
    user: String,
    cseq: u32,
}

impl Run {
    fn first(shards: u16, transport: Transport, user: &str) -> Run {
        Run::of(Lab::new(shards, config()), transport, user, 0)
    }

    /// The next run, so many seconds later, with as many shards as it likes.
    fn next(&self, shards: u16, down: u64) -> Run {
        let mut lab = Lab::with_epoch(shards, config(), 2);
        lab.restore(&self.lab, Duration::from_secs(down));
        Run::of(lab, self.client.transport, &self.user, self.cseq)
    }

    fn of(mut lab: Lab, transport: Transport, user: &str, cseq: u32) -> Run {
        let client = Phone::connect(&mut lab, 0, transport, CLIENT);
        let last = lab.shards() - 1;
        let core = Phone::connect(&mut lab, last, Transport::Udp, CORE);
        Run { lab, client, core, user: user.into(), cseq }
    }

    /// REGISTERs; the core accepts, and lists the Contact for so long. Returns the Path that it got.
    fn register(&mut self, expires: u32) -> String {
        self.cseq += 1;
        let aor = format!("<sip:{}@example.com>", self.user);
        let draft = request(&self.client, "REGISTER", "sip:example.com", "reg")
            .branch(&self.client, &format!("reg{}", self.cseq))
            .cseq(self.cseq)
            .to(&aor)
            .from(&format!("{aor};tag=r"))
            .line("Supported: path, outbound")
            .line(&format!("Contact: <{CONTACT}>;expires={expires}"));
        self.client.send(&mut self.lab, &draft.text());
        let got = self.core.take_method(&mut self.lab, "REGISTER");
        let listed = format!("Contact: <{CONTACT}>;expires={expires}");
        let lines: &[&str] = if expires > 0 { &[&listed] } else { &[] };
        self.core.send(&mut self.lab, &got.response(200, "core", lines));
        self.client.take_status(&mut self.lab, 200);
        got.header("Path").to_owned()
    }

    /// What the core hears to a request in a dialog, sent to the Contact by these Routes.
    fn within_dialog(&mut self, route: &[String]) -> Sip {
        let serial = self.lab.serial();
        let draft = request(&self.core, "INFO", CONTACT, &format!("i{serial}"));
        let draft = draft.to(&format!("<{CONTACT}>;tag=c")).route(route);
        self.core.send(&mut self.lab, &draft.text());
        for info in self.client.take(&mut self.lab) {
            assert_eq!((info.method(), info.uri()), ("INFO", CONTACT));
            self.client.send(&mut self.lab, &info.response(200, "c", &[]));
        }
        self.core.take_one(&mut self.lab)
    }

    fn bindings(&self) -> (u64, usize) {
        let bindings = self.lab.engines.iter().map(|engine| engine.gauges().bindings).sum();
        (bindings, self.lab.shelf.count_of(&format!("{}@example.com", self.user)))
    }
}

#[test]
fn a_datagram_client_of_the_core_is_found_by_its_contact_in_the_next_run() {
    for (before, after) in [(1, 1), (1, 3), (3, 2)] {
        let mut run = Run::first(before, Transport::Udp, &user_of(0, after, 1));
        let path = run.register(600);
        assert_eq!(run.bindings(), (1, 1));
        assert_eq!(run.within_dialog(&[]).status(), 200);
        let mut run = run.next(after, 100);
        assert_eq!(run.lab.count(|it| it.bindings_restored), 1);
        assert_eq!(run.bindings(), (1, 1));
        assert_eq!(run.within_dialog(&[]).status(), 200, "{before} {after}");
        assert_eq!(run.within_dialog(&[path]).status(), 200, "the Path of the former run");
        // It takes the core's word again: a refresh is the same binding, and its end is the end.
        run.register(600);
        assert_eq!(run.bindings(), (1, 1));
        run.register(0);
        assert_eq!(run.bindings(), (0, 0));
        assert_eq!(run.within_dialog(&[]).status(), 404);
        run.lab.finish();
    }
}

#[test]
fn what_the_core_granted_ends_when_it_said_whatever_time_we_were_away() {
    for down in [0, 400, 700] {
        let mut run = Run::first(1, Transport::Udp, "alice");
        run.register(600);
        let mut run = run.next(1, down);
        let left = 600_u64.saturating_sub(down);
        if left > 0 {
            run.lab.pass(Duration::from_secs(left - 20));
            assert_eq!(run.within_dialog(&[]).status(), 200, "{down}");
            run.lab.pass(Duration::from_secs(40));
        }
        assert_eq!(run.bindings(), (0, 0), "{down}");
        assert_eq!(run.within_dialog(&[]).status(), 404);
        run.lab.finish();
    }
}

/// Its flow went with the process. Nobody who comes by the same address hears what is for it.
#[test]
fn a_stream_client_of_the_core_is_not_found_before_it_registers_again() {
    for transport in [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss] {
        for (before, after) in [(1, 2), (3, 1)] {
            let mut run = Run::first(before, transport, &user_of(0, after, 1));
            let path = run.register(600);
            assert_eq!(run.within_dialog(&[]).status(), 200, "{transport:?}");
            let mut run = run.next(after, 5);
            let newcomer = run.client;
            assert_eq!(run.within_dialog(&[]).status(), 404, "{transport:?}");
            assert_eq!(run.within_dialog(&[path]).status(), 430, "its edge has no flow for it");
            newcomer.heard_nothing(&mut run.lab);
            let path = run.register(600);
            assert_eq!(run.bindings(), (1, 1), "the same one");
            assert_eq!(run.within_dialog(&[]).status(), 200, "{transport:?}");
            assert_eq!(run.within_dialog(&[path]).status(), 200, "{transport:?}");
            run.lab.finish();
        }
    }
}

/// A datagram client's flow is two addresses, and does not end with the process (RFC 5626 §5.3.1). It
/// is another flow when we are elsewhere, and nobody but a server may use a Path.
#[test]
fn the_path_of_a_datagram_client_is_good_in_the_next_run_as_long_as_we_are_where_we_were() {
    let mut run = Run::first(1, Transport::Udp, "alice");
    let path = run.register(600);
    let mut moved = config();
    moved.listeners[0].address.set_port(5062);
    let mut rotated = config();
    rotated.listeners.rotate_left(2);
    for (config, at, status) in [(config(), 0, 200), (moved, 0, 430), (rotated, 3, 200)] {
        let mut lab = Lab::with_epoch(1, config, 2);
        lab.restore(&run.lab, Duration::from_secs(5));
        let (listener, local) = (ListenerId(at), listener_address(Transport::Udp));
        let say = |lab: &mut Lab, from: &str, text: &str| {
            let remote = from.parse().expect("an address");
            let path = DatagramPath { listener, local, remote };
            lab.input(0, Input::Datagram { path, bytes: &mut text.to_owned().into_bytes() });
            let sent: Vec<_> = lab.datagrams.iter().map(|(path, _)| path.listener).collect();
            assert!(sent.iter().all(|it| *it == listener), "{sent:?}");
        };
        let route = std::slice::from_ref(&path);
        let draft = request(&run.core, "MESSAGE", CONTACT, "m").route(route);
        say(&mut lab, CORE, &draft.text());
        if status == 200 {
            let got = run.client.take_method(&mut lab, "MESSAGE");
            assert_eq!((got.uri(), got.find("Route")), (CONTACT, None));
            say(&mut lab, CLIENT, &got.response(200, "c", &[]));
        }
        run.core.take_status(&mut lab, status);
        let thief = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.66:50000");
        let draft = request(&thief, "MESSAGE", CONTACT, "t").route(route);
        thief.send(&mut lab, &draft.text());
        assert!(thief.take_one(&mut lab).status() >= 400);
        run.client.heard_nothing(&mut lab);
        lab.finish();
    }
}
