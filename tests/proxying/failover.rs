//! Upstreams with several targets (RFC 3263 §4.3, RFC 2782): which one is asked, when the next one
//! is, and that what belongs together stays with one.

use std::collections::BTreeSet;
use std::time::Duration;

use sipring::base::config::{Config, UpstreamTarget};
use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, Lab};

const HOSTS: [&str; 3] = ["198.51.100.7:5060", "198.51.100.8:5060", "198.51.100.9:5060"];

/// Three targets, tried in their order.
fn config(transport: Transport) -> Config {
    lab::config_with(|config| {
        let target = |(at, host): (usize, &&str)| UpstreamTarget {
            priority: at as u16,
            ..lab::target(transport, host)
        };
        config.upstreams[0].targets = HOSTS.iter().enumerate().map(target).collect();
    })
}

struct Scene {
    lab: Lab,
    client: Phone,
    servers: [Phone; 3],
}

fn scene_of(shards: u16, config: Config) -> Scene {
    let mut lab = Lab::new(shards, config);
    let client = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
    let servers = HOSTS.map(|host| Phone::connect(&mut lab, shards - 1, Transport::Udp, host));
    Scene { lab, client, servers }
}

fn every_scene(mut each: impl FnMut(&mut Scene)) {
    for shards in 1..=3 {
        let mut scene = scene_of(shards, config(Transport::Udp));
        each(&mut scene);
        scene.lab.finish();
    }
}

impl Scene {
    fn send(&mut self, method: &str, name: &str) -> Draft {
        let draft = request(&self.client, method, "sip:911@example.com", name);
        self.client.send(&mut self.lab, &draft.text());
        if method == "INVITE" {
            self.client.take_status(&mut self.lab, 100);
        }
        draft
    }

    fn take(&mut self, at: usize, method: &str) -> Sip {
        for (other, server) in self.servers.iter().enumerate() {
            if other != at {
                server.heard_nothing(&mut self.lab);
            }
        }
        self.servers[at].take_method(&mut self.lab, method)
    }

    fn answer(&mut self, at: usize, request: &Sip, status: u16, more: &[&str]) {
        let answer = request.response(status, &format!("t{at}"), more);
        self.servers[at].send(&mut self.lab, &answer);
    }

    /// One MESSAGE, and which server gets it; it is answered 200.
    fn asked(&mut self, name: &str) -> usize {
        self.send("MESSAGE", name);
        let mut at = None;
        for (server, phone) in self.servers.iter().enumerate() {
            for got in phone.take(&mut self.lab) {
                assert_eq!(at.replace(server), None, "one server at a time");
                phone.send(&mut self.lab, &got.response(200, "s", &[]));
            }
        }
        self.client.take_status(&mut self.lab, 200);
        at.expect("some server was asked")
    }
}

#[test]
fn a_503_is_for_us_and_the_next_target_is_asked_with_a_new_branch() {
    every_scene(|scene| {
        for method in ["INVITE", "MESSAGE"] {
            let draft = scene.send(method, method);
            let mut branches = BTreeSet::new();
            for at in 0..3 {
                let got = scene.take(at, method);
                assert!(branches.insert(got.header("Via").to_string()), "{branches:?}");
                let status = if at == 2 { 486 } else { 503 };
                scene.answer(at, &got, status, &[]);
                if method == "INVITE" {
                    let ack = scene.servers[at].take(&mut scene.lab).remove(0);
                    assert_eq!((ack.method(), ack.header("Via")), ("ACK", got.header("Via")));
                    // The next INVITE is there already; what it is is seen in the next round.
                    if at < 2 {
                        let next = scene.servers[at + 1].remote;
                        assert!(scene.lab.datagrams.iter().any(|(path, _)| path.remote == next));
                    }
                }
            }
            scene.client.take_status(&mut scene.lab, 486);
            if method == "INVITE" {
                scene.client.send(&mut scene.lab, &draft.method("ACK").text());
            }
        }
    });
}

#[test]
fn when_all_refuse_the_sender_hears_500() {
    every_scene(|scene| {
        scene.send("MESSAGE", "m");
        for at in 0..3 {
            let got = scene.take(at, "MESSAGE");
            scene.answer(at, &got, 503, &[]);
        }
        scene.client.take_status(&mut scene.lab, 500);
    });
}

#[test]
fn any_other_answer_is_the_answer() {
    every_scene(|scene| {
        for status in [200, 302, 404, 480, 486, 500, 502, 504, 600] {
            scene.send("MESSAGE", &format!("m{status}"));
            let got = scene.take(0, "MESSAGE");
            scene.answer(0, &got, status, &[]);
            scene.client.take_status(&mut scene.lab, status);
        }
    });
}

#[test]
fn a_target_that_says_nothing_is_left_for_the_next_and_hears_no_more() {
    every_scene(|scene| {
        for method in ["INVITE", "MESSAGE"] {
            let draft = scene.send(method, method);
            let first = if method == "INVITE" { 0 } else { 2 };
            scene.lab.pass(Duration::from_millis(2999));
            assert!(scene.servers[first].take(&mut scene.lab).len() > 1, "it was repeated");
            if first == 2 {
                // The other two rest by now, and are asked last.
                scene.lab.pass(Duration::from_millis(1));
                let got = scene.take(0, method);
                scene.answer(0, &got, 200, &[]);
                scene.client.take_status(&mut scene.lab, 200);
                continue;
            }
            scene.lab.pass(Duration::from_millis(3001));
            scene.servers[0].heard_nothing(&mut scene.lab);
            assert!(scene.servers[1].take(&mut scene.lab).len() > 1);
            let got = scene.take(2, method);
            scene.answer(2, &got, 486, &[]);
            scene.client.take_status(&mut scene.lab, 486);
            assert_eq!(scene.servers[2].take(&mut scene.lab).len(), 1, "its ACK");
            scene.client.send(&mut scene.lab, &draft.method("ACK").text());
        }
    });
}

#[test]
fn a_provisional_response_stops_the_clock() {
    every_scene(|scene| {
        for status in [100, 180] {
            let draft = scene.send("INVITE", &format!("i{status}"));
            let got = scene.take(0, "INVITE");
            scene.answer(0, &got, status, &[]);
            scene.lab.pass(Duration::from_secs(30));
            scene.servers[1].heard_nothing(&mut scene.lab);
            scene.client.take(&mut scene.lab);
            scene.answer(0, &got, 486, &[]);
            scene.client.take_status(&mut scene.lab, 486);
            scene.take(0, "ACK");
            scene.client.send(&mut scene.lab, &draft.method("ACK").text());
        }
    });
}

#[test]
fn a_target_that_rings_late_is_cancelled() {
    every_scene(|scene| {
        let draft = scene.send("INVITE", "i");
        scene.lab.pass(Duration::from_millis(3000));
        let late = scene.servers[0].take(&mut scene.lab).remove(0);
        let got = scene.take(1, "INVITE");
        scene.answer(1, &got, 180, &[]);
        scene.client.take_status(&mut scene.lab, 180);
        scene.answer(0, &late, 180, &[]);
        let cancel = scene.take(0, "CANCEL");
        assert_eq!(cancel.header("Via"), late.header("Via"));
        scene.answer(0, &cancel, 200, &[]);
        scene.answer(0, &late, 487, &[]);
        scene.take(0, "ACK");
        scene.client.heard_nothing(&mut scene.lab);
        scene.answer(1, &got, 486, &[]);
        scene.client.take_status(&mut scene.lab, 486);
        scene.take(1, "ACK");
        scene.client.send(&mut scene.lab, &draft.method("ACK").text());
    });
}

#[test]
fn a_target_that_accepts_late_has_the_call() {
    every_scene(|scene| {
        scene.send("INVITE", "i");
        scene.lab.pass(Duration::from_millis(3000));
        let late = scene.servers[0].take(&mut scene.lab).remove(0);
        let got = scene.take(1, "INVITE");
        scene.answer(1, &got, 180, &[]);
        scene.client.take_status(&mut scene.lab, 180);
        scene.answer(0, &late, 200, &["Contact: <sip:9@198.51.100.7>"]);
        assert_eq!(scene.client.take_status(&mut scene.lab, 200).tag("To"), Some("t0"));
        let cancel = scene.take(1, "CANCEL");
        scene.answer(1, &cancel, 200, &[]);
        scene.answer(1, &got, 487, &[]);
        scene.take(1, "ACK");
        scene.client.heard_nothing(&mut scene.lab);
    });
}

#[test]
fn a_cancel_ends_the_search_and_goes_to_whoever_is_asked() {
    every_scene(|scene| {
        let draft = scene.send("INVITE", "i");
        let got = scene.take(0, "INVITE");
        scene.answer(0, &got, 503, &[]);
        assert_eq!(scene.servers[0].take(&mut scene.lab).len(), 1, "the ACK");
        let got = scene.take(1, "INVITE");
        scene.answer(1, &got, 180, &[]);
        scene.client.take_status(&mut scene.lab, 180);
        scene.client.send(&mut scene.lab, &draft.clone().method("CANCEL").text());
        scene.client.take_status(&mut scene.lab, 200);
        let cancel = scene.take(1, "CANCEL");
        scene.answer(1, &cancel, 200, &[]);
        scene.answer(1, &got, 503, &[]);
        scene.take(1, "ACK");
        scene.client.take_status(&mut scene.lab, 500);
        scene.client.send(&mut scene.lab, &draft.method("ACK").text());
    });
}

#[test]
fn a_target_that_failed_rests_and_comes_back() {
    every_scene(|scene| {
        // One Call-ID and user: all of them are served by one shard.
        assert_eq!(scene.asked("a"), 0);
        scene.send("MESSAGE", "b");
        scene.lab.pass(Duration::from_secs(3));
        scene.servers[0].take(&mut scene.lab);
        let got = scene.take(1, "MESSAGE");
        scene.answer(1, &got, 200, &[]);
        scene.client.take_status(&mut scene.lab, 200);
        assert_eq!(scene.asked("c"), 1);
        let resting: u64 = scene.lab.engines.iter().map(|it| it.gauges().targets_resting).sum();
        assert_eq!(resting, 1);
        scene.lab.pass(Duration::from_secs(29));
        assert_eq!(scene.asked("d"), 1);
        scene.lab.pass(Duration::from_secs(2));
        assert_eq!(scene.asked("e"), 0);
        // A 503 alone says nothing of later requests; with Retry-After it does.
        for (name, lines, next) in [("f", vec![], 0), ("g", vec!["Retry-After: 120 (upgrade)"], 1)]
        {
            scene.send("MESSAGE", name);
            let got = scene.take(0, "MESSAGE");
            scene.answer(0, &got, 503, &lines);
            let got = scene.take(1, "MESSAGE");
            scene.answer(1, &got, 200, &[]);
            scene.client.take_status(&mut scene.lab, 200);
            assert_eq!(scene.asked(&format!("{name}2")), next);
        }
        scene.lab.pass(Duration::from_secs(119));
        assert_eq!(scene.asked("h"), 1);
        scene.lab.pass(Duration::from_secs(2));
        assert_eq!(scene.asked("i"), 0);
    });
}

#[test]
fn a_connection_that_fails_leads_to_the_next_target() {
    for shards in 1..=3 {
        for transport in [Transport::Tcp, Transport::Tls] {
            let mut scene = scene_of(shards, config(transport));
            scene.send("MESSAGE", "m");
            assert_eq!(scene.lab.opens[0].2.remote, scene.servers[0].remote);
            scene.lab.refuse_open(0);
            // The second takes the connection and drops it.
            assert_eq!(scene.lab.opens[0].2.remote, scene.servers[1].remote);
            let flow = scene.lab.complete_open(0);
            scene.lab.close(flow, CloseReason::Reset);
            assert_eq!(scene.lab.opens[0].2.remote, scene.servers[2].remote);
            let flow = scene.lab.complete_open(0);
            let (shard, remote) = (flow.shard().0, scene.servers[2].remote);
            let server = Phone { transport, remote, shard, flow: Some(flow) };
            let got = server.take_method(&mut scene.lab, "MESSAGE");
            server.send(&mut scene.lab, &got.response(200, "s", &[]));
            scene.client.take_status(&mut scene.lab, 200);
            scene.lab.finish();
        }
    }
}

#[test]
fn a_large_request_has_both_ways_to_each_target() {
    every_scene(|scene| {
        let draft = request(&scene.client, "MESSAGE", "sip:911@example.com", "m");
        scene.client.send(&mut scene.lab, &draft.body(&"x".repeat(1400)).text());
        scene.lab.refuse_open(0);
        let got = scene.take(0, "MESSAGE");
        scene.answer(0, &got, 503, &[]);
        assert_eq!(scene.lab.opens[0].2.remote, scene.servers[1].remote);
        scene.lab.refuse_open(0);
        let got = scene.take(1, "MESSAGE");
        scene.answer(1, &got, 200, &[]);
        scene.client.take_status(&mut scene.lab, 200);
    });
}

#[test]
fn requests_are_shared_by_weight_and_those_of_one_call_id_stay_together() {
    for shards in 1..=3 {
        let config = lab::config_with(|config| {
            config.upstreams[0].targets =
                HOSTS[..2].iter().map(|host| lab::target(Transport::Udp, host)).collect();
        });
        let mut scene = scene_of(shards, config);
        let mut shares = [0; 3];
        for name in 0..60 {
            let first = scene.asked(&format!("m{name}"));
            shares[first] += 1;
            let again = request(&scene.client, "MESSAGE", "sip:911@example.com", "x")
                .call_id(&format!("m{name}@lab"))
                .branch(&scene.client, &format!("again{name}"));
            scene.client.send(&mut scene.lab, &again.text());
            let got = scene.take(first, "MESSAGE");
            scene.answer(first, &got, 200, &[]);
            scene.client.take_status(&mut scene.lab, 200);
        }
        assert!(shares[0] >= 15 && shares[1] >= 15, "{shares:?}");
        scene.lab.finish();
    }
}

#[test]
fn a_dialog_stays_with_the_target_that_has_it_though_all_share_a_name() {
    for shards in 1..=3 {
        let named = lab::config_with(|it| {
            *it = config(Transport::Udp);
            it.upstreams[0].targets.iter_mut().for_each(|target| target.host = "core.test".into());
        });
        let mut scene = scene_of(shards, named);
        let invite = scene.send("INVITE", "i");
        let got = scene.take(0, "INVITE");
        scene.answer(0, &got, 503, &[]);
        scene.servers[0].take(&mut scene.lab);
        let got = scene.take(1, "INVITE");
        scene.answer(1, &got, 200, &["Contact: <sip:9@core.test>"]);
        let mut route = scene.client.take_status(&mut scene.lab, 200).record_route();
        route.reverse();
        for (cseq, method) in [(1, "ACK"), (2, "INFO"), (3, "BYE")] {
            let draft = invite
                .clone()
                .method(method)
                .uri("sip:9@core.test")
                .branch(&scene.client, &format!("d{cseq}"))
                .to("<sip:911@example.com>;tag=t1")
                .route(&route)
                .cseq(cseq);
            scene.client.send(&mut scene.lab, &draft.text());
            let got = scene.take(1, method);
            if method != "ACK" {
                scene.answer(1, &got, 200, &[]);
                scene.client.take_status(&mut scene.lab, 200);
            }
        }
        // The server's own requests reach the client, whatever address they come from.
        for at in [1, 2] {
            let draft = request(&scene.servers[at], "INFO", "sip:b@bb.invalid", &format!("s{at}"))
                .call_id("i@lab")
                .from("<sip:911@example.com>;tag=t1")
                .to("<sip:sender@example.org>;tag=fi")
                .route(&got.record_route());
            scene.servers[at].send(&mut scene.lab, &draft.text());
            let info = scene.client.take_method(&mut scene.lab, "INFO");
            scene.client.send(&mut scene.lab, &info.response(200, "", &[]));
            scene.servers[at].take_status(&mut scene.lab, 200);
        }
        scene.lab.finish();
    }
}
