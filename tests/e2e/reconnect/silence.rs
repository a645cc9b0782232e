//! A client goes silent, and nobody of its identity comes: pings find it out, and from then on what
//! is for it waits.

use std::time::Duration;

use super::client::{Client, Place, setup};
use super::talk::{SIDES, Side, Talk};
use crate::loss::{End, Known};
use crate::support::server::Server;
use crate::support::still;

fn users(side: Side) -> [String; 2] {
    ["a", "b"].map(|name| format!("{name}{side:?}").to_lowercase())
}

/// The other side answers its pings until the proxy has given the silent one up.
fn wait(talk: &mut Talk, server: &Server, is_over: impl Fn() -> bool, alive: Side) {
    let turn = Duration::from_millis(50);
    // Whoever looks for the end of the flow later fails when it does not come.
    let most = Duration::from_secs(10).as_millis() / turn.as_millis();
    for _ in 0..most {
        if is_over() {
            return;
        }
        let heard = talk.side(alive).phone.incoming(turn);
        assert!(heard.is_none(), "{heard:?}");
    }
    panic!("nobody finds it out\n{}", server.log());
}

/// A client that rings for it, or talks to it, goes silent.
fn run(server: &Server, lost: Side, is_ringing: bool) {
    let [caller, callee] = users(lost);
    let caller = Client::new(server, &caller, Known::ByRegId);
    let callee = Client::new(server, &callee, Known::ByContact);
    let mut talk = Talk::ring(caller, callee);
    if !is_ringing {
        talk.answer();
    }
    let gone = talk.side(lost).lose(server, End::Silent);
    wait(&mut talk, server, || gone.is_over(server), lost.other());
    let asked = match is_ringing {
        true => {
            talk.say(200);
            None
        }
        false => Some(talk.ask(lost.other(), "INFO")),
    };
    still(&mut [&mut talk.side(lost.other()).phone]);
    talk.side(lost).come_back(server, Place::OtherShard, &gone);
    match asked {
        Some(asked) => talk.serve(&asked),
        None => talk.acknowledge(),
    }
    talk.exchange(lost.other(), "INVITE");
    talk.exchange(lost, "BYE");
    talk.still();
    assert!(gone.heard().is_empty(), "nothing was written to it");
}

#[test]
fn pings_find_out_who_is_silent() {
    let names: Vec<String> = SIDES.into_iter().flat_map(users).collect();
    let server =
        setup(&names).limit("ping_interval", "\"1s\"").limit("pong_timeout", "\"4s\"").start();
    std::thread::scope(|scope| {
        scope.spawn(|| run(&server, Side::Caller, true));
        scope.spawn(|| run(&server, Side::Callee, false));
    });
}
