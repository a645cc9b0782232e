//! Calls to phones whose registering connection has ended and whose Contact we dial (RFC 3261
//! §18.1.1): both ends find each other inside the dialog, as long as it lasts.

use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::lab::call::Call;
use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, Lab};

const BOB: &str = "sip:bob@example.com";
const PHONE: &str = "203.0.113.9:5070";

/// Who is called: every connection that we opened to it, one a shard at most.
struct Bob {
    connections: Vec<Phone>,
}

impl Bob {
    /// Accepts the connection that we ask for, if we do.
    fn accept(&mut self, lab: &mut Lab) {
        assert!(lab.opens.len() <= 1, "one connection is asked for at a time");
        let Some((_, _, target)) = lab.opens.first().cloned() else { return };
        assert_eq!(target.remote, PHONE.parse().expect("an address"));
        let transport = if target.secure { Transport::Tls } else { Transport::Tcp };
        let flow = lab.complete_open(0);
        let shard = flow.shard().0;
        assert!(self.connections.iter().all(|it| it.shard != shard), "it has one already");
        self.connections.push(Phone { transport, remote: target.remote, shard, flow: Some(flow) });
    }

    /// The one request that came, and the connection.
    fn hear(&mut self, lab: &mut Lab, method: &str) -> (Phone, Sip) {
        self.accept(lab);
        let heard = |at: &Phone| at.take(lab).into_iter().map(|got| (*at, got)).collect::<Vec<_>>();
        let mut all: Vec<(Phone, Sip)> = self.connections.iter().flat_map(heard).collect();
        assert_eq!(all.len(), 1, "{all:#?}");
        let (at, got) = all.remove(0);
        assert_eq!((got.method(), got.find("Route")), (method, None));
        (at, got)
    }

    /// Answers the caller's request.
    fn serve(&mut self, lab: &mut Lab, caller: &Phone, method: &str) {
        let (at, got) = self.hear(lab, method);
        at.send(lab, &got.response(200, "", &[]));
        caller.take_status(lab, 200);
    }
}

/// A phone registers and leaves; its Contact.
fn registered(lab: &mut Lab, transport: Transport) -> String {
    let contact = format!("sip:bob@{PHONE};transport={}", transport.uri_name());
    let registrant = Phone::connect(lab, 0, transport, "203.0.113.9:40000");
    registrant.register(lab, "bob", &contact);
    registrant.leave(lab, CloseReason::Peer);
    contact
}

/// An established call to such a phone.
fn call(lab: &mut Lab, caller: &Phone, transport: Transport) -> (Bob, Call) {
    let contact = registered(lab, transport);
    let from = "sip:alice@203.0.113.5:40001";
    let draft = request(caller, "INVITE", BOB, "i").line(&format!("Contact: <{from}>"));
    caller.send(lab, &draft.text());
    let mut bob = Bob { connections: Vec::new() };
    bob.accept(lab);
    let mut call = Call::answered(lab, caller, &bob.connections[0], BOB, (from, &contact), "i");
    let ack = call.by_caller(caller, "ACK").cseq(1);
    caller.send(lab, &ack.text());
    bob.hear(lab, "ACK");
    (bob, call)
}

fn every_call(mut each: impl FnMut(&mut Lab, &Phone, Bob, Call)) {
    for shards in 1..=3 {
        for transport in [Transport::Tcp, Transport::Tls] {
            for from in [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Wss] {
                let mut lab = Lab::new(shards, lab::config());
                let caller = Phone::connect(&mut lab, shards - 1, from, "203.0.113.5:40001");
                let (bob, call) = call(&mut lab, &caller, transport);
                each(&mut lab, &caller, bob, call);
                lab.finish();
            }
        }
    }
}

#[test]
fn both_ends_find_each_other() {
    every_call(|lab, caller, mut bob, mut call| {
        caller.send(lab, &call.by_caller(caller, "INFO").text());
        bob.serve(lab, caller, "INFO");
        for at in bob.connections.clone() {
            let draft = call.by_callee(&at, "INFO");
            Call::exchange(lab, &at, caller, &draft);
        }
        caller.send(lab, &call.by_caller(caller, "BYE").text());
        bob.serve(lab, caller, "BYE");
    });
}

#[test]
fn a_connection_that_ends_in_the_call_is_opened_anew() {
    every_call(|lab, caller, mut bob, mut call| {
        for at in bob.connections.drain(..) {
            at.leave(lab, CloseReason::Peer);
        }
        caller.send(lab, &call.by_caller(caller, "BYE").text());
        bob.serve(lab, caller, "BYE");
    });
}

#[test]
fn the_phone_may_speak_on_a_connection_of_its_own() {
    every_call(|lab, caller, bob, mut call| {
        let own = Phone::connect(lab, 0, bob.connections[0].transport, "203.0.113.9:40002");
        let draft = call.by_callee(&own, "BYE");
        Call::exchange(lab, &own, caller, &draft);
    });
}

#[test]
fn one_token_for_both_ends_is_for_nobody_else() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut lab = Lab::new(1, lab::config());
        let caller = Phone::connect(&mut lab, 0, transport, "203.0.113.5:40001");
        let (_, mut call) = call(&mut lab, &caller, transport);
        assert_eq!(call.callee_route().len(), 1);
        let mallory = Phone::connect(&mut lab, 0, transport, "203.0.113.66:5070");
        mallory.send(&mut lab, &call.by_callee(&mallory, "BYE").text());
        mallory.take_status(&mut lab, 403);
        caller.heard_nothing(&mut lab);
        lab.finish();
    }
}

#[test]
fn it_is_a_client_whose_identity_claims_are_not_believed() {
    let mut lab = Lab::new(1, lab::config());
    let caller = Phone::connect(&mut lab, 0, Transport::Udp, "203.0.113.5:40001");
    registered(&mut lab, Transport::Tcp);
    caller.send(&mut lab, &request(&caller, "MESSAGE", BOB, "m").text());
    let mut bob = Bob { connections: Vec::new() };
    let (at, got) = bob.hear(&mut lab, "MESSAGE");
    at.send(&mut lab, &got.response(200, "b", &["P-Asserted-Identity: <sip:boss@example.com>"]));
    let answer = caller.take_status(&mut lab, 200);
    assert_eq!(answer.find("P-Asserted-Identity"), None, "RFC 3325 §5: {answer:#?}");
    lab.finish();
}
