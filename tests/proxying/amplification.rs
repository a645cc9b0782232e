//! Two users whose contacts lead to each other by way of a server (RFC 5393 §3): how many copies one
//! request may become, and responses that nobody asked for.

use std::collections::VecDeque;

use sipring::base::id::Transport;

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, CORE, Lab};

/// What the server does with a request for the contact `sip:USER-N@198.51.100.7`: it sends it back,
/// for USER in our domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Back {
    /// As it is: a loop.
    Same,
    /// With another Request-URI each time, so that no proxy can know it again: a spiral.
    Changed,
}

/// A proxy without state that sends everything back.
struct Mirror {
    core: Phone,
    back: Back,
    /// Requests that it got.
    copies: usize,
    /// The Max-Breadth of each.
    breadths: Vec<usize>,
}

impl Mirror {
    /// `users` with `contacts` at the mirror, each leading to the next one.
    fn new(lab: &mut Lab, users: &[&str], qs: &[&str], back: Back) -> Mirror {
        let core = Phone::connect(lab, 0, Transport::Udp, CORE);
        for (n, user) in users.iter().enumerate() {
            let next = users[(n + 1) % users.len()];
            let contacts: Vec<String> = qs
                .iter()
                .enumerate()
                .map(|(n, q)| format!("<sip:{next}-{n}@198.51.100.7>;q={q}"))
                .collect();
            core.register(lab, user, &contacts.join(", "));
        }
        Mirror { core, back, copies: 0, breadths: Vec::new() }
    }

    /// Handles everything that is on its way, until nothing is.
    fn run(&mut self, lab: &mut Lab) {
        let mut waiting: VecDeque<Sip> = VecDeque::new();
        loop {
            waiting.extend(self.core.take(lab));
            let Some(message) = waiting.pop_front() else { return };
            let text = if message.status() == 0 {
                self.copies += 1;
                assert!(self.copies < 10_000, "it never ends");
                self.breadths.push(message.header("Max-Breadth").parse().expect("a number"));
                self.sent_back(&message)
            } else {
                without_top_via(&message)
            };
            self.core.send(lab, &text);
        }
    }

    fn sent_back(&self, got: &Sip) -> String {
        let (user, _) = got.uri()["sip:".len()..].split_once('-').expect("a contact of ours");
        let change = match self.back {
            Back::Same => String::new(),
            Back::Changed => format!(";n={}", self.copies),
        };
        let via = self.core.via(&format!("mirror{}", self.copies));
        let mut out =
            format!("{} sip:{user}@example.com{change} SIP/2.0\r\n{via}\r\n", got.method());
        for (name, value) in &got.headers {
            let hops = || value.parse::<u32>().expect("a number") - 1;
            let value = if name == "Max-Forwards" { hops().to_string() } else { value.clone() };
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        out + "\r\n"
    }
}

fn without_top_via(response: &Sip) -> String {
    let mut out = format!("{}\r\n", response.start);
    for (name, value) in response.headers.iter().skip(1) {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out + "\r\n"
}

/// A client that calls, and a server behind us.
const CLIENT: (Transport, &str) = (Transport::Wss, "203.0.113.5:40001");
const SERVER: (Transport, &str) = (Transport::Udp, "198.51.100.20:5060");

/// How many copies one request becomes, and what its sender hears.
fn copies(
    shards: u16,
    (transport, remote): (Transport, &str),
    users: &[&str],
    qs: &[&str],
    back: Back,
) -> (usize, u16, Mirror) {
    let mut lab = Lab::new(shards, lab::config());
    let mut mirror = Mirror::new(&mut lab, users, qs, back);
    let caller = Phone::connect(&mut lab, shards - 1, transport, remote);
    let uri = format!("sip:{}@example.com", users[0]);
    caller.send(&mut lab, &request(&caller, "MESSAGE", &uri, "m").text());
    mirror.run(&mut lab);
    let status = caller.take_one(&mut lab).status();
    lab.finish();
    assert_eq!(mirror.core.take(&mut lab), [], "everything was answered at once");
    (mirror.copies, status, mirror)
}

/// All that may become of a request that each user's `ways` contacts multiply, in so many rounds.
fn rounds(ways: usize, rounds: u32) -> usize {
    (1..=rounds).map(|round| ways.pow(round)).sum()
}

/// A server's request is known again when it is back at its first user. A client's is one round
/// later: what the mirror sends in a server's role may take another way than what a client sends.
#[test]
fn a_loop_of_users_ends_where_it_began() {
    for shards in 1..=3 {
        for users in [vec!["anna", "bert"], vec!["anna", "bert", "carl"]] {
            for qs in [vec!["1"], vec!["1", "1"], vec!["1", "0.5"], vec!["1", "1", "0.5"]] {
                for (sender, more) in [(SERVER, 0), (CLIENT, 1)] {
                    let (copies, status, _) = copies(shards, sender, &users, &qs, Back::Same);
                    let expected = rounds(qs.len(), users.len() as u32 + more);
                    assert_eq!((copies, status), (expected, 482), "{users:?} {qs:?} {sender:?}");
                }
            }
        }
    }
    assert_eq!((rounds(2, 2), rounds(3, 4)), (6, 120));
}

/// Copies that a request with that breadth becomes, when each of `ways` comes back: it is shared out
/// until it is less than a fork needs.
fn bound(breadth: usize, ways: usize) -> usize {
    let share = |at: usize| breadth / ways + usize::from(at < breadth % ways);
    if breadth < ways {
        0
    } else {
        ways + (0..ways).map(|at| bound(share(at), ways)).sum::<usize>()
    }
}

#[test]
fn a_spiral_that_nobody_can_know_again_is_bounded_by_its_breadth() {
    for shards in 1..=3 {
        for (ways, expected) in [(2, 118), (3, 57), (4, 68), (10, 10)] {
            let (copies, status, mirror) =
                copies(shards, CLIENT, &["anna", "bert"], &vec!["1"; ways], Back::Changed);
            assert_eq!((copies, status), (expected, 440), "{ways} ways");
            assert_eq!(expected, bound(60, ways), "RFC 5393 §5.3.3, from 60 on");
            let ends: usize = mirror.breadths.iter().filter(|it| **it < ways).sum();
            assert_eq!(ends, 60, "the ends together have what the beginning had");
        }
    }
}

#[test]
fn a_spiral_that_does_not_fork_is_bounded_by_its_hops() {
    for shards in 1..=3 {
        let (copies, status, mirror) =
            copies(shards, CLIENT, &["anna", "bert"], &["1"], Back::Changed);
        assert_eq!((copies, status), (35, 483), "69, 67 … 1");
        assert!(mirror.breadths.iter().all(|breadth| *breadth == 60), "no hop costs breadth");
    }
}

#[test]
fn a_breadth_that_does_not_suffice_for_a_group_is_440() {
    for (line, expected) in [(0, None), (1, None), (2, None), (3, Some(1)), (7, Some(3))] {
        for method in ["MESSAGE", "INVITE"] {
            let mut lab = Lab::new(2, lab::config());
            let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
            let contacts = "<sip:a@198.51.100.7>, <sip:b@198.51.100.7>, <sip:c@198.51.100.7>";
            core.register(&mut lab, "alice", contacts);
            let caller = Phone::connect(&mut lab, 1, Transport::Wss, "203.0.113.5:40001");
            let draft = request(&caller, method, "sip:alice@example.com", "m");
            let draft = draft.line(&format!("Max-Breadth: {line}"));
            caller.send(&mut lab, &draft.text());
            let got = core.take(&mut lab);
            let heard: Vec<u16> = caller.take(&mut lab).iter().map(Sip::status).collect();
            match expected {
                None => assert_eq!((heard.last(), got.len()), (Some(&440), 0)),
                Some(first) => {
                    let mut shares: Vec<u32> =
                        got.iter().map(|it| it.header("Max-Breadth").parse().unwrap()).collect();
                    shares.sort_unstable_by(|a, b| b.cmp(a));
                    assert_eq!((shares.len(), shares[0], shares.iter().sum()), (3, first, line));
                }
            }
        }
    }
}

#[test]
fn every_copy_has_one_max_breadth_and_none_above_60() {
    for (lines, expected) in [
        (vec![], "60"),
        (vec!["Max-Breadth: 60"], "60"),
        (vec!["max-breadth: 7"], "7"),
        (vec!["Max-Breadth: 61"], "60"),
        (vec!["Max-Breadth: 4000000000000"], "60"),
        (vec!["Max-Breadth: none"], "60"),
        (vec!["Max-Breadth: 9", "X: y", "Max-Breadth: 50"], "9"),
    ] {
        let mut lab = Lab::new(1, lab::config());
        let caller = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
        let draft = request(&caller, "MESSAGE", "sip:911@example.com", "m");
        let draft = lines.iter().fold(draft, |draft, line| draft.line(line));
        caller.send(&mut lab, &draft.text());
        let got = core.take_method(&mut lab, "MESSAGE");
        assert_eq!(got.all("Max-Breadth").collect::<Vec<_>>(), [expected], "{lines:?}");
        core.send(&mut lab, &got.response(200, "c", &[]));
        caller.take_status(&mut lab, 200);
        lab.finish();
    }
}

#[test]
fn responses_that_nobody_asked_for_go_nowhere_and_are_counted() {
    const FORGED: u64 = 200;
    for shards in 1..=3 {
        let mut lab = Lab::new(shards, lab::config());
        let victim = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.66:5060");
        let caller = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        let core = Phone::connect(&mut lab, shards - 1, Transport::Udp, CORE);
        caller.send(&mut lab, &request(&caller, "INVITE", "sip:911@example.com", "i").text());
        caller.take_status(&mut lab, 100);
        let real = core.take_method(&mut lab, "INVITE");
        let branch = real.header("Via").split("branch=").nth(1).expect("a branch").to_owned();
        let branch = branch.split(';').next().expect("one").to_owned();
        for n in 0..FORGED {
            let shard = (n % u64::from(shards)) as u16;
            let from: Phone = [victim, core][n as usize % 2].at_shard(shard);
            let top = match n % 4 {
                0 => "203.0.113.66;branch=z9hG4bKforeign".to_owned(),
                1 => format!("192.0.2.1:5060;branch=z9hG4bK{n}"),
                2 => format!("192.0.2.1;branch={}{n:03}", &branch[..branch.len() - 3]),
                _ => format!("192.0.2.1;branch={}", branch.to_uppercase()),
            };
            let status = [180, 200, 486, 603][n as usize / 4 % 4];
            from.send(
                &mut lab,
                &format!(
                    "SIP/2.0 {status} X\r\nVia: SIP/2.0/UDP {top}\r\nVia: SIP/2.0/UDP \
203.0.113.66:5060;branch=z9hG4bKv\r\nFrom: <sip:a@a>;tag=1\r\nTo: <sip:b@b>;tag=2\r\n\
Call-ID: i@lab\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
                ),
            );
        }
        victim.heard_nothing(&mut lab);
        caller.heard_nothing(&mut lab);
        core.heard_nothing(&mut lab);
        assert_eq!(lab.count(|it| it.dropped_stray_response), FORGED);
        assert_eq!(lab.count(|it| it.responses_forwarded), 0);
        core.send(&mut lab, &real.response(200, "c", &[]));
        caller.take_status(&mut lab, 200);
        lab.finish();
    }
}
