//! A request that comes back (RFC 3261 §16.3 step 4): a loop is 482, a spiral is served.

use sipring::base::id::Transport;

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab, user_of};

/// What the server behind us sends back, its own Via on top, one hop less.
fn bounced(got: &lab::text::Sip, uri: &str, n: usize) -> String {
    let mut out = format!("{} {uri} SIP/2.0\r\n", got.method());
    out.push_str(&format!("Via: SIP/2.0/UDP {CORE};branch=z9hG4bKcore{n};rport\r\n"));
    for (name, value) in &got.headers {
        let value = match name.as_str() {
            "Max-Forwards" => (value.parse::<u32>().expect("a number") - 1).to_string(),
            _ => value.clone(),
        };
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    out
}

#[test]
fn a_request_that_the_upstream_sends_back_unchanged_ends_as_a_loop() {
    for shards in 1..=3 {
        let mut lab = Lab::new(shards, lab::config());
        let caller = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        let core = Phone::connect(&mut lab, shards - 1, Transport::Udp, CORE);
        let uri = "sip:911@example.com";
        caller.send(&mut lab, &request(&caller, "MESSAGE", uri, "m").text());
        let mut rounds = Vec::new();
        let status = loop {
            let got = core.take_one(&mut lab);
            if got.status() != 0 {
                break got.status();
            }
            core.send(&mut lab, &bounced(&got, uri, rounds.len()));
            rounds.push(got);
            assert!(rounds.len() < 5, "it turns and turns");
        };
        assert_eq!(status, 482);
        for got in rounds.iter().rev() {
            core.send(&mut lab, &got.response(482, "c", &[]));
            let _ = core.take(&mut lab);
        }
        caller.take_status(&mut lab, 482);
        lab.finish();
    }
}

#[test]
fn a_spiral_by_the_core_back_to_a_client_is_no_loop() {
    for at in lab::placements() {
        let user = user_of(at.owner, at.shards, 0);
        let mut lab = Lab::new(at.shards, lab::config());
        let caller = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.5:40001");
        let callee = Phone::connect(&mut lab, at.flow, Transport::Wss, "203.0.113.6:40002");
        callee.register(&mut lab, &user, "<sip:b@bb.invalid;transport=ws>");
        let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
        caller.send(&mut lab, &request(&caller, "MESSAGE", "sip:9@example.com", "m").text());
        let got = core.take_method(&mut lab, "MESSAGE");
        core.send(&mut lab, &bounced(&got, &format!("sip:{user}@example.com"), 0));
        let at_callee = callee.take_method(&mut lab, "MESSAGE");
        assert_eq!(at_callee.all("Via").count(), 4);
        callee.send(&mut lab, &at_callee.response(200, "c", &[]));
        let answer = core.take_status(&mut lab, 200);
        core.send(&mut lab, &got.response(200, "c", &[]));
        assert_eq!(answer.all("Via").count(), 3);
        caller.take_status(&mut lab, 200);
        lab.finish();
    }
}

#[test]
fn two_calls_of_one_path_and_a_second_request_of_one_dialog_are_no_loop() {
    let mut lab = Lab::new(1, lab::config());
    let caller = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
    let core = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
    for cseq in 1..4 {
        let draft = request(&caller, "MESSAGE", "sip:9@example.com", "m").cseq(cseq);
        caller.send(&mut lab, &draft.branch(&caller, &format!("b{cseq}")).text());
        let got = core.take_method(&mut lab, "MESSAGE");
        core.send(&mut lab, &got.response(200, "c", &[]));
        caller.take_status(&mut lab, 200);
    }
    lab.finish();
}
