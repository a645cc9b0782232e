//! A client comes back over another transport than it had.

use std::time::Duration;

use crate::client::{Client, lab_of, of_user, users_of};
use crate::lab::Lab;
use crate::lab::loss::{End, Known};
use crate::lab::text::Sip;
use crate::talk::Talk;
use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

/// A caller and a callee, the one whose transport matters registered over it.
fn call_over(shards: u16, by: Transport, who: Who) -> (Lab, Talk) {
    let users: [String; 2] = users_of(shards);
    let mut lab = lab_of(shards, &[&users[0], &users[1]]);
    let by_of = |it: Who| if it == who { by } else { Transport::Wss };
    let caller = Client::over(&mut lab, 0, &users[0], Known::ByRegId, by_of(Who::Caller));
    let callee = Client::over(&mut lab, shards - 1, &users[1], Known::ByRegId, by_of(Who::Callee));
    caller.take(&mut lab);
    callee.take(&mut lab);
    let talk = Talk::ring(&mut lab, caller, callee);
    (lab, talk)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Caller,
    Callee,
}

impl Who {
    fn of(self, talk: &mut Talk) -> &mut Client {
        match self {
            Who::Caller => &mut talk.caller,
            Who::Callee => &mut talk.callee,
        }
    }
}

/// What began over a plain transport was never promised to go over TLS: a client that was on a
/// secure flow in between gets it on a plain one.
#[test]
fn what_began_in_the_clear_may_end_so() {
    let ways = [(Transport::Tcp, Transport::Tls), (Transport::Ws, Transport::Wss)];
    for who in [Who::Caller, Who::Callee] {
        for (shards, (plain, secure)) in [1, 2, 3].into_iter().flat_map(|n| ways.map(|it| (n, it)))
        {
            let (mut lab, mut talk) = call_over(shards, plain, who);
            for by in [secure, plain] {
                who.of(&mut talk).lose(&mut lab, End::Reset);
                if by == plain && who == Who::Caller {
                    talk.say_200(&mut lab);
                }
                who.of(&mut talk).connect(&mut lab, shards - 1, by);
                who.of(&mut talk).log_in(&mut lab);
                if by == secure {
                    who.of(&mut talk).take(&mut lab);
                }
            }
            if who == Who::Callee {
                talk.say_200(&mut lab);
            }
            talk.acknowledge(&mut lab);
            talk.exchange(&mut lab, "BYE", who == Who::Callee);
            lab.finish();
        }
    }
}

/// And what began over TLS ends there: on a plain flow its client gets nothing of it, whatever it was
/// on in between.
#[test]
fn what_began_over_tls_never_goes_in_the_clear() {
    for shards in [1, 2, 3] {
        for ways in [&[Transport::Ws][..], &[Transport::Wss, Transport::Ws]] {
            let (mut lab, mut talk) = call_over(shards, Transport::Wss, Who::Caller);
            for by in ways {
                talk.caller.lose(&mut lab, End::Reset);
                talk.caller.connect(&mut lab, 0, *by);
                talk.caller.log_in(&mut lab);
                if by.is_secure() {
                    talk.caller.take(&mut lab);
                }
            }
            talk.say_200(&mut lab);
            talk.caller.heard_nothing(&mut lab);
        }
    }
}

/// A secure flow that fell silent is found out, too, when its client comes on a plain one first: its
/// calls wait for the next secure one, not for the end of a keep-alive.
#[test]
fn a_secure_flow_that_a_plain_one_follows_is_asked() {
    for who in [Who::Caller, Who::Callee] {
        for shards in [1, 2, 3] {
            let (mut lab, mut talk) = call_over(shards, Transport::Wss, who);
            talk.answer(&mut lab);
            let client = who.of(&mut talk);
            let old = client.flow();
            client.lose(&mut lab, End::Silent);
            client.connect(&mut lab, 0, Transport::Ws);
            client.log_in(&mut lab);
            lab.pass(Duration::from_millis(1100));
            assert_eq!(lab.closed(old), Some(CloseReason::Pong));
            client.lose(&mut lab, End::Reset);
            client.connect(&mut lab, shards - 1, Transport::Wss);
            client.log_in(&mut lab);
            talk.exchange(&mut lab, "BYE", who == Who::Callee);
            lab.finish();
        }
    }
}

/// Its Via says what it travels by (RFC 3261 §18.1.1, RFC 7118 §5.2), and the branch is the one that
/// the response is known by.
#[test]
fn a_request_that_moves_to_another_transport_says_so() {
    let ways = [
        (Transport::Tcp, Transport::Wss),
        (Transport::Ws, Transport::Tcp),
        (Transport::Tls, Transport::Wss),
        (Transport::Wss, Transport::Tls),
    ];
    for (shards, (before, after)) in [1, 2].into_iter().flat_map(|it| ways.map(|way| (it, way))) {
        let users: [String; 2] = users_of(shards);
        let mut lab = lab_of(shards, &[&users[0], &users[1]]);
        let caller = Client::new(&mut lab, 0, &users[0], Known::ByRegId);
        let mut callee = Client::over(&mut lab, 0, &users[1], Known::ByRegId, before);
        caller.send(&mut lab, &of_user(&caller, "MESSAGE", &callee.user, "n").text());
        let first = callee.take_method(&mut lab, "MESSAGE");
        callee.lose(&mut lab, End::Reset);
        callee.connect(&mut lab, shards - 1, after);
        callee.log_in(&mut lab);
        let again = callee.take_method(&mut lab, "MESSAGE");
        let via = |sip: &Sip| -> (String, String) {
            let via = sip.header("Via").to_owned();
            let (way, branch) = via.split_once(";branch=").expect("a branch");
            (way.to_owned(), branch.to_owned())
        };
        let ((was, branch), (is, branch_again)) = (via(&first), via(&again));
        assert!(was.starts_with(&format!("SIP/2.0/{} ", before.via_name())), "{was}");
        let port = if after == Transport::Tls { 5061 } else { 8443 };
        match after {
            Transport::Tcp => assert_eq!(is, "SIP/2.0/TCP 192.0.2.1:5060"),
            _ => assert_eq!(is, format!("SIP/2.0/{} 192.0.2.1:{port}", after.via_name())),
        }
        assert_eq!(branch, branch_again);
        callee.send(&mut lab, &again.response(200, "t", &[]));
        caller.take_status(&mut lab, 200);
        lab.finish();
    }
}
