//! What is new for a client that is away waits for it, whatever it comes by; a caller that stays away
//! stops the ringing.

use std::time::{Duration, Instant};

use super::client::{Client, setup};
use super::talk::Talk;
use crate::loss::{End, Known};
use crate::support::call::SDP;
use crate::support::link::Transport;
use crate::support::server::Server;
use crate::support::sip::uri_of;
use crate::support::still;

const STREAMS: [Transport; 4] = [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];

/// An INVITE and a MESSAGE by its address of record arrive when the client is back, each once.
fn waits(server: &Server, by: Transport) {
    let names = users(by);
    let mut caller = Client::new(server, &names[0], Known::ByRegId);
    let mut callee = Client::connected(server, &names[1], Known::ByRegId, by);
    callee.log_in();
    callee.lose(server, End::Reset);
    let aor = callee.phone.aor();
    let invite = caller.phone.draft("INVITE", &aor).body("application/sdp", SDP);
    caller.phone.send(&invite.build());
    assert_eq!(caller.phone.status(100).one("call-id"), invite.value("Call-ID"));
    caller.phone.send(&caller.phone.draft("MESSAGE", &aor).body("text/plain", "hi").build());
    still(&mut [&mut caller.phone]);
    callee.reconnect_anywhere(server);
    callee.log_in();
    let mut heard = [callee.phone.next(), callee.phone.next()];
    heard.sort_by_key(|it| it.method().to_owned());
    assert_eq!(heard.each_ref().map(|it| it.method()), ["INVITE", "MESSAGE"], "{by:?}");
    for (request, status) in heard.iter().zip([486, 200]) {
        assert_eq!(request.uri(), uri_of(&callee.binding), "{request:?}");
        callee.phone.answer(request, status);
        assert_eq!(caller.phone.final_response().status(), status);
    }
    // Hop by hop (RFC 3261 §17.1.1.3).
    assert_eq!(callee.phone.request("ACK").one("call-id"), invite.value("Call-ID"));
    still(&mut [&mut callee.phone, &mut caller.phone]);
}

fn users(by: Transport) -> [String; 2] {
    ["a", "b"].map(|name| format!("{name}{}", by.name()))
}

#[test]
fn what_is_new_waits_for_clients_of_every_stream() {
    let names: Vec<String> = STREAMS.into_iter().flat_map(users).collect();
    let server = setup(&names).start();
    std::thread::scope(|scope| {
        for by in STREAMS {
            let server = &server;
            scope.spawn(move || waits(server, by));
        }
    });
    assert_eq!(server.metric("sipring_waits_refused_total"), 0);
}

#[test]
fn a_caller_that_stays_away_stops_the_ringing() {
    const GRACE: Duration = Duration::from_secs(2);
    let names = ["alice", "bob", "carol", "dave"].map(str::to_string);
    let server = setup(&names).registrar("grace", "\"2s\"").start();
    for (end, users) in [End::Fin, End::Reset].into_iter().zip(names.chunks(2)) {
        let caller = Client::new(&server, &users[0], Known::ByRegId);
        let callee = Client::new(&server, &users[1], Known::ByContact);
        let mut talk = Talk::ring(caller, callee);
        let lost_from = Instant::now();
        talk.caller.lose(&server, end);
        let cancel = talk.callee.phone.request("CANCEL");
        assert!(lost_from.elapsed() >= GRACE, "{end:?}: it might have come back");
        let reason = cancel.one("reason");
        assert!(reason.starts_with("SIP;cause=487;"), "{reason}");
        talk.callee.phone.answer(&cancel, 200);
        talk.say(487);
        talk.callee.phone.request("ACK");
        still(&mut [&mut talk.callee.phone]);
    }
}
