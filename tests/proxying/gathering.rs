//! What a fork's responses become (RFC 3261 §16.7): the best one, with the challenges of all; what
//! goes up at once and in which order; what comes too late.

use std::time::Duration;

use sipring::base::id::Transport;

use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, CORE, Lab, Placement, user_of};

struct Scene {
    lab: Lab,
    caller: Phone,
    phones: Vec<(Phone, Sip)>,
    draft: Draft,
}

/// Three clients of one user have a request of the caller.
fn scene(at: Placement, method: &str) -> Scene {
    let mut lab = Lab::new(at.shards, lab::config());
    let user = user_of(at.owner, at.shards, 0);
    let transports = [Transport::Wss, Transport::Udp, Transport::Tcp];
    let phones: Vec<Phone> = transports
        .into_iter()
        .zip([at.flow, at.arrival, at.owner])
        .map(|(transport, shard)| {
            let remote = format!("203.0.113.{}:40001", transport.index() + 10);
            let phone = Phone::connect(&mut lab, shard, transport, &remote);
            phone.register(&mut lab, &user, &format!("<sip:a@10.0.0.{}>", transport.index()));
            phone
        })
        .collect();
    let caller = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.9:40009");
    let draft = request(&caller, method, &format!("sip:{user}@example.com"), "i");
    caller.send(&mut lab, &draft.text());
    let got = |lab: &mut Lab, phone: Phone| (phone, phone.take_method(lab, method));
    let phones = phones.into_iter().map(|phone| got(&mut lab, phone)).collect();
    if method == "INVITE" {
        caller.take_status(&mut lab, 100);
    }
    Scene { lab, caller, phones, draft }
}

impl Scene {
    fn answer(&mut self, at: usize, status: u16, lines: &[&str]) {
        let (phone, got) = &self.phones[at];
        phone.send(&mut self.lab, &got.response(status, &format!("t{at}"), lines));
        if status >= 300 && got.method() == "INVITE" {
            phone.take_method(&mut self.lab, "ACK");
        }
    }

    fn end(&mut self) {
        if self.draft.text().starts_with("INVITE") {
            self.caller.send(&mut self.lab, &self.draft.clone().method("ACK").text());
        }
        self.lab.finish();
        self.caller.heard_nothing(&mut self.lab);
    }
}

const WWW: &str = "Digest realm=\"one\", nonce=\"n1\", qop=\"auth\"";
const PROXY: &str = "Digest realm=\"two\",nonce=\"n2\"";
const OTHER: &str = "Digest realm=\"three\"";

#[test]
fn a_challenge_carries_those_of_all_branches() {
    for at in lab::placements() {
        for method in ["INVITE", "MESSAGE"] {
            let mut scene = scene(at, method);
            scene.answer(0, 401, &[&format!("WWW-Authenticate: {WWW}"), "X-First: 1"]);
            scene.answer(1, 404, &[&format!("WWW-Authenticate: {OTHER}")]);
            let lines = [
                &format!("Proxy-Authenticate: {PROXY}"),
                &format!("www-authenticate: {OTHER}"),
                "X-Second: 2",
            ];
            scene.answer(2, 407, &lines.map(|it| it as &str));
            let answer = scene.caller.take_status(&mut scene.lab, 401);
            assert_eq!(answer.all("WWW-Authenticate").collect::<Vec<_>>(), [WWW, OTHER]);
            assert_eq!(answer.all("Proxy-Authenticate").collect::<Vec<_>>(), [PROXY]);
            assert_eq!(answer.tag("To"), Some("t0"));
            assert_eq!((answer.find("X-First"), answer.find("X-Second")), (Some("1"), None));
            assert_eq!(answer.all("Via").count(), 1);
            scene.end();
        }
    }
}

#[test]
fn challenges_are_not_added_to_what_is_no_challenge() {
    for best in [302, 603] {
        for at in lab::placements() {
            let mut scene = scene(at, "MESSAGE");
            scene.answer(0, 401, &[&format!("WWW-Authenticate: {WWW}")]);
            scene.answer(1, best, &[]);
            scene.answer(2, 407, &[&format!("Proxy-Authenticate: {PROXY}")]);
            let answer = scene.caller.take_status(&mut scene.lab, best);
            assert_eq!(answer.find("WWW-Authenticate").or(answer.find("Proxy-Authenticate")), None);
            scene.end();
        }
    }
}

#[test]
fn challenges_beyond_the_bounds_are_left_out_and_the_answer_goes_up() {
    let long = format!("WWW-Authenticate: Digest realm=\"{}\"", "x".repeat(9000));
    let many = vec!["Proxy-Authenticate: Digest realm=\"r\""; 120];
    for (lines, kept) in [(vec![long.as_str()], 1), (many, 240)] {
        let at = Placement { shards: 1, flow: 0, owner: 0, arrival: 0 };
        let mut scene = scene(at, "MESSAGE");
        for phone in 0..3 {
            scene.answer(phone, 407, &lines);
        }
        let answer = scene.caller.take_status(&mut scene.lab, 407);
        let challenges =
            answer.all("WWW-Authenticate").count() + answer.all("Proxy-Authenticate").count();
        assert_eq!(challenges, kept);
        scene.end();
    }
}

#[test]
fn every_provisional_but_100_goes_up_at_once_and_in_order() {
    for at in lab::placements() {
        let mut scene = scene(at, "INVITE");
        scene.answer(0, 100, &[]);
        scene.caller.heard_nothing(&mut scene.lab);
        for (phone, status) in [(0, 180), (1, 183), (0, 181), (2, 199), (1, 182)] {
            scene.answer(phone, status, &["X-Any: 1"]);
            let got = scene.caller.take_status(&mut scene.lab, status);
            assert_eq!((got.tag("To"), got.header("X-Any")), (Some(&*format!("t{phone}")), "1"));
        }
        // All at once on the links: each branch keeps its order.
        scene.lab.hold = true;
        for phone in 0..3 {
            for status in [180, 183, 200] {
                scene.answer(phone, status, &[]);
            }
        }
        scene.lab.release();
        let heard = scene.caller.take(&mut scene.lab);
        for phone in 0..3 {
            let tag = format!("t{phone}");
            let of = |it: &&Sip| it.tag("To") == Some(&tag);
            let statuses: Vec<u16> = heard.iter().filter(of).map(Sip::status).collect();
            let is_whole = statuses == [180, 183, 200];
            assert!(is_whole || statuses.ends_with(&[200]) && statuses.is_sorted(), "{statuses:?}");
        }
        assert_eq!(heard.iter().filter(|it| it.status() == 200).count(), 3);
        for (phone, _) in &scene.phones {
            phone.take(&mut scene.lab);
        }
        scene.lab.finish();
    }
}

#[test]
fn what_comes_after_the_final_answer_goes_nowhere_and_is_counted() {
    for at in lab::placements() {
        for method in ["INVITE", "MESSAGE"] {
            let mut scene = scene(at, method);
            scene.answer(0, 200, &[]);
            scene.caller.take_status(&mut scene.lab, 200);
            let absorbed = scene.lab.count(|it| it.responses_absorbed);
            scene.answer(1, 180, &[]);
            let (phone, _) = scene.phones[1];
            for got in phone.take(&mut scene.lab) {
                phone.send(&mut scene.lab, &got.response(200, "c", &[]));
            }
            scene.answer(1, 487, &[]);
            scene.answer(2, 486, &[]);
            scene.caller.heard_nothing(&mut scene.lab);
            let more = scene.lab.count(|it| it.responses_absorbed) - absorbed;
            assert_eq!(more, if method == "INVITE" { 4 } else { 3 });
            scene.lab.finish();
            let stray = scene.lab.count(|it| it.dropped_stray_response);
            let (phone, got) = scene.phones[2].clone();
            if phone.transport == Transport::Tcp {
                phone.send(&mut scene.lab, &got.response(200, "late", &[]));
                assert_eq!(scene.lab.count(|it| it.dropped_stray_response), stray + 1);
            }
            scene.caller.heard_nothing(&mut scene.lab);
        }
    }
}

#[test]
fn an_only_503_is_500_and_any_other_5xx_is_better() {
    let table = [([503, 503, 503], 500), ([503, 504, 503], 504), ([503, 408, 503], 408)];
    for (finals, best) in table {
        for at in lab::placements() {
            let mut scene = scene(at, "INVITE");
            for (phone, status) in finals.into_iter().enumerate() {
                scene.answer(phone, status, &[]);
            }
            scene.caller.take_status(&mut scene.lab, best);
            scene.end();
        }
    }
}

#[test]
fn timer_c_before_any_provisional_is_408() {
    for shards in 1..=3 {
        let mut lab =
            Lab::new(shards, lab::config_with(|config| config.timers.t1 = Duration::from_secs(4)));
        let caller = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        let core = Phone::connect(&mut lab, shards - 1, Transport::Udp, CORE);
        let invite = request(&caller, "INVITE", "sip:911@example.com", "i");
        caller.send(&mut lab, &invite.text());
        caller.take_status(&mut lab, 100);
        lab.pass(Duration::from_millis(184_900));
        caller.heard_nothing(&mut lab);
        lab.pass(Duration::from_millis(200));
        caller.take_status(&mut lab, 408);
        caller.send(&mut lab, &invite.method("ACK").text());
        assert!(core.take(&mut lab).iter().all(|it| it.method() == "INVITE"), "RFC 3261 §9.1");
        lab.finish();
    }
}
