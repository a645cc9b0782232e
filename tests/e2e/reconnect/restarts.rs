//! The process is killed in the middle of calls and starts again with what its store knows: clients
//! that connect again and register find their calls as they were.

use super::client::{Client, Place, setup};
use super::talk::{SIDES, Side, Talk};
use crate::loss::{End, Known};
use crate::support::phone::PATIENCE;
use crate::support::server::Server;
use crate::support::still;

fn start(users: &[&str]) -> Server {
    let users: Vec<String> = users.iter().map(|user| user.to_string()).collect();
    setup(&users)
        .keeps_secret()
        .registrar("store", "\"file:bindings\"")
        .registrar("store_delay", "\"10ms\"")
        .start()
}

/// A call that is up, and in the store who is in it.
fn answered(server: &Server, known: Known) -> Talk {
    let caller = Client::new(server, "alice", known);
    let callee = Client::new(server, "bob", known);
    let mut talk = Talk::ring(caller, callee);
    talk.answer();
    server.wait_metric("sipring_store_records", 2, PATIENCE);
    talk
}

/// One side is back, in the run of now.
fn come_back(talk: &mut Talk, server: &Server, side: Side) {
    let client = talk.side(side);
    client.reconnect_anywhere(server);
    client.log_in();
}

#[test]
fn calls_go_on_after_a_kill() {
    goes_on_after(Server::kill);
}

/// Who is sent away with 1012 is awaited by the next run as who lost its flow.
#[test]
fn calls_go_on_after_an_orderly_restart() {
    goes_on_after(|server| {
        server.terminate();
        let status = server.wait_exit(PATIENCE).expect("it ends");
        assert!(status.success(), "{status}\n{}", server.log());
    });
}

fn goes_on_after(end: impl Fn(&mut Server)) {
    for known in [Known::ByRegId, Known::ByContact] {
        let mut server = start(&["alice", "bob", "carol", "dave"]);
        let mut talk = answered(&server, known);
        end(&mut server);
        server.start_again();
        server.wait_metric("sipring_bindings_restored_total", 2, PATIENCE);
        // Slots and names of before are used by others.
        let mut strangers = ["carol", "dave"].map(|user| Client::new(&server, user, known));
        SIDES.into_iter().for_each(|side| drop(talk.side(side).phone.detach()));
        // Who is back first need not wait for the other to speak: what it says does.
        come_back(&mut talk, &server, Side::Caller);
        let asked = talk.ask(Side::Caller, "INFO");
        still(&mut [&mut talk.caller.phone]);
        come_back(&mut talk, &server, Side::Callee);
        talk.serve(&asked);
        for from in SIDES {
            for method in ["INVITE", "INFO", "MESSAGE"] {
                talk.exchange(from, method);
            }
            talk.exchange_apart(from, "MESSAGE");
        }
        talk.exchange(Side::Callee, "BYE");
        talk.still();
        strangers.iter_mut().for_each(|it| still(&mut [&mut it.phone]));
        server.wait_metric("sipring_store_records", 4, PATIENCE);
    }
}

/// The callee was away when the process died: the next run does not know how long, only whom.
#[test]
fn a_client_that_was_away_at_the_kill_finds_its_call() {
    for known in [Known::ByRegId, Known::ByContact] {
        let mut server = start(&["alice", "bob"]);
        let mut talk = answered(&server, known);
        talk.callee.lose(&server, End::Fin);
        server.wait_metric("sipring_bindings_suspended_total", 1, PATIENCE);
        server.kill();
        server.start_again();
        server.wait_metric("sipring_bindings_restored_total", 2, PATIENCE);
        drop(talk.caller.phone.detach());
        SIDES.into_iter().for_each(|side| come_back(&mut talk, &server, side));
        talk.exchange(Side::Caller, "INVITE");
        // In this run it is known again as in any other.
        let lost = talk.side(Side::Callee).lose(&server, End::Reset);
        let asked = talk.ask(Side::Caller, "INFO");
        still(&mut [&mut talk.caller.phone]);
        talk.callee.come_back(&server, Place::OtherShard, &lost);
        talk.serve(&asked);
        talk.exchange(Side::Caller, "BYE");
        talk.still();
    }
}
