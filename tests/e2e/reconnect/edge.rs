//! The registrar and the other side of the calls are behind us (RFC 3327, RFC 5626 §5.1): what the
//! core sends to a client that lost its flow, and that it has accepted again, arrives on the new
//! flow, once. `tests/reconnect` has the same without sockets, in every state of a call.

use std::thread;

use super::client::{Client, Lost, PLACES, Place, patient};
use super::talk::{SIDES, Side};
use crate::loss::{ENDS, End, KNOWN, Known};
use crate::support::call::{ask, call, call_by, serve, within};
use crate::support::link::Transport;
use crate::support::phone::{PATIENCE, Phone};
use crate::support::registrar::enroll;
use crate::support::server::Server;
use crate::support::sip::{Draft, unique};
use crate::support::{Dialog, still};

/// What the core sends after the reconnect, each in a call of its own.
const METHODS: [&str; 4] = ["BYE", "INVITE", "INFO", "MESSAGE"];
/// Somebody whom the core knows.
const FAR: &str = "sip:9far@example.com";

/// Those of one reconnect, and which side the client is.
#[derive(Clone, Copy, Debug)]
struct Cell {
    end: End,
    place: Place,
    known: Known,
    client: Side,
}

/// A call between a client and somebody behind the core.
struct Guest {
    client: Client,
    /// The client's view of the call, and the core's.
    near: Dialog,
    far: Dialog,
}

impl Guest {
    /// A client of the core that calls, or is called by its Path.
    fn new(server: &Server, core: &mut Phone, cell: Cell) -> Guest {
        let mut client = Client::connected(server, &unique("guest"), cell.known, Transport::Wss);
        let path = enroll(&mut client.phone, &client.binding, core);
        let phone = &mut client.phone;
        if cell.client == Side::Caller {
            let up = call(phone, FAR, core, FAR);
            return Guest { client, near: up.caller, far: up.callee };
        }
        let contact = phone.contact.clone();
        let invite = core.draft("INVITE", &contact).with("Route", path);
        let up = call_by(core, invite, phone, &contact);
        Guest { client, near: up.callee, far: up.caller }
    }

    /// The core asks before it has heard of the new flow: what it asked arrives there.
    fn come_back(&mut self, core: &mut Phone) -> Draft {
        let asked = ask(&mut self.far, "INFO", core);
        still(&mut [&mut *core]);
        enroll(&mut self.client.phone, &self.client.binding, core);
        asked
    }

    /// What waited, the core's next request, and what the client says itself; nothing else.
    fn talk_on(&mut self, core: &mut Phone, waited: &Draft, method: &str) {
        let phone = &mut self.client.phone;
        serve(&mut self.far, waited, core, phone);
        within(&mut self.far, method, core, phone);
        if method != "BYE" {
            for method in ["INVITE", "INFO", "BYE"] {
                within(&mut self.near, method, phone, core);
            }
        }
        still(&mut [phone]);
    }
}

/// A silent flow got what was said before anybody could know, and no flow got anything else.
fn judge(lost: Lost, end: End, waited: &Draft) {
    let heard = lost.heard();
    let calls: Vec<_> = heard.iter().map(|it| (it.method(), it.one("call-id"))).collect();
    let swallowed = ("INFO", waited.value("Call-ID"));
    let expected = if end == End::Silent { &[swallowed][..] } else { &[] };
    assert_eq!(calls, expected, "{heard:?}");
}

fn run(server: &Server, core: &mut Phone, cell: Cell) {
    println!("{:?} {cell:?}", core.transport);
    let mut guests = METHODS.map(|_| Guest::new(server, core, cell));
    let lost = guests.each_mut().map(|guest| guest.client.lose(server, cell.end));
    // Whoever comes next may get a slot that became free.
    let mut newcomer = Client::connected(server, &unique("new"), cell.known, Transport::Wss);
    enroll(&mut newcomer.phone, &newcomer.binding, core);
    guests.iter_mut().for_each(|guest| guest.client.reconnect(server, cell.place));
    let waited = guests.each_mut().map(|guest| guest.come_back(core));
    lost.iter().for_each(|flow| flow.find_out(server));
    for ((guest, waited), method) in guests.iter_mut().zip(&waited).zip(METHODS) {
        guest.talk_on(core, waited, method);
    }
    still(&mut [core, &mut newcomer.phone]);
    for (flow, waited) in lost.into_iter().zip(&waited) {
        judge(flow, cell.end, waited);
    }
}

/// All cells in which flows end that way, one after the other at one proxy.
fn run_all(transport: Transport, end: End) {
    let core = Phone::core(transport);
    let setup = patient().target(core.target());
    let server = setup.route("methods = [\"REGISTER\"]\nto = \"upstream:core\"").start();
    let mut core = core.connect(&server, "core");
    let mut moved = 0;
    for place in PLACES {
        // Each side of a call once, and each way to be known again.
        for (known, client) in KNOWN.into_iter().zip(SIDES) {
            run(&server, &mut core, Cell { end, place, known, client });
            moved += 2 * METHODS.len() as u64;
        }
    }
    // What waited and what came next bear the token of the flow that is gone.
    let counted = server.wait_metric("sipring_requests_moved_total", moved, PATIENCE);
    assert_eq!(counted, moved);
    assert_eq!(server.metric("sipring_waits_refused_total"), 0);
}

fn run_over(transport: Transport) {
    thread::scope(|scope| {
        for end in ENDS {
            scope.spawn(move || run_all(transport, end));
        }
    });
}

#[test]
fn a_core_over_udp_reaches_clients_that_came_back() {
    run_over(Transport::Udp);
}

#[test]
fn a_core_over_tcp_reaches_clients_that_came_back() {
    run_over(Transport::Tcp);
}
