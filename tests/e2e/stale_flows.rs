//! A client is gone: what was meant for it is answered at once, and nobody else hears it, neither a
//! newcomer in the same slot nor one with the very same addresses.

use std::time::{Duration, Instant};

use super::support::phone::{From, PATIENCE, PHONES};
use super::support::{Dialog, Draft, Incoming, Phone, Server, Setup, Transport, call, still};

const STREAMS: [Transport; 4] = [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];
/// From the detection to the answer, the time until metrics are published included: long before any
/// transaction is given up.
const AT_ONCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fin,
    Reset,
    /// It keeps the connection, but reads nothing and answers no ping.
    Silent,
}

struct Scene {
    caller: Phone,
    core: Phone,
    from_caller: Dialog,
    from_core: Dialog,
    server: Server,
}

/// The victim in two calls, one with a phone (on TLS: nobody pings it) and one with a server. His
/// contact cannot be dialled, so his binding goes with his flow.
fn scene(transport: Transport, setup: Setup) -> (Scene, Phone) {
    let core = Phone::core(Transport::Udp);
    let server = setup.start();
    let mut core = core.connect(&server, "core");
    let mut caller = Phone::connect(Transport::Tls, &server, "caller");
    caller.register_self();
    let mut victim = Phone::connect(transport, &server, "victim");
    victim.contact = "sip:v1@victim.invalid;transport=ws".to_string();
    victim.register_self();
    let contact = victim.contact.clone();
    let from_caller = call(&mut caller, "sip:victim@example.com", &mut victim, &contact).caller;
    let from_core = call(&mut core, "sip:victim@example.com", &mut victim, &contact).caller;
    (Scene { caller, core, from_caller, from_core, server }, victim)
}

/// Everybody who is alive answers pings until the proxy has noticed who is not.
fn await_end(server: &Server, metric: &str, count: u64, alive: &mut [&mut Phone]) {
    let deadline = Instant::now() + PATIENCE;
    while server.metric(metric) < count {
        assert!(Instant::now() < deadline, "{metric} stays below {count}\n{}", server.log());
        for phone in alive.iter_mut() {
            let heard = phone.incoming(Duration::from_millis(10));
            assert!(heard.is_none(), "{phone:?} heard {heard:?}");
        }
    }
}

/// A newcomer who has read everything that belongs to his own arrival (TLS session tickets come
/// late).
fn arrived(transport: Transport, server: &Server, from: From) -> Phone {
    let mut newcomer = Phone::connect_from(transport, server, "newcomer", from);
    still(&mut [&mut newcomer]);
    newcomer
}

/// Initial requests and requests within both dialogs get their answers; the newcomer hears none of
/// them.
fn judge(scene: Scene, mut newcomer: Phone, started: Instant) {
    let Scene { server, mut caller, mut core, mut from_caller, mut from_core } = scene;
    for method in ["MESSAGE", "OPTIONS"] {
        let answer = core.ask(&core.draft(method, "sip:victim@example.com"));
        assert_eq!(answer.status(), 480, "by address of record: {answer:?}");
    }
    let answer = core.ask(&from_core.draft(&core, "BYE"));
    assert_eq!(answer.status(), 430, "an upstream learns that the flow is dead: {answer:?}");
    let answer = caller.ask(&from_caller.draft(&caller, "BYE"));
    assert_eq!(answer.status(), 480, "an endpoint does not: {answer:?}");
    let took = started.elapsed();
    assert!(took < AT_ONCE, "answered after {took:?}");
    newcomer.untouched();
    newcomer.register_self();
    still(&mut [&mut newcomer, &mut caller, &mut core]);
    server.wait_metric("sipring_requests_flow_gone_total", 2, PATIENCE);
}

fn gone(transport: Transport, end: End) {
    let pings = Setup::new().limit("ping_interval", "\"1s\"").limit("pong_timeout", "\"3s\"");
    let setup = if end == End::Silent { pings } else { Setup::new() };
    let (mut scene, victim) = scene(transport, setup);
    let closed = scene.server.metric("sipring_flows_closed_total");
    let mut dead = None;
    let metric = match end {
        End::Fin => {
            victim.finish();
            "sipring_flows_closed_total"
        }
        End::Reset => {
            victim.reset();
            "sipring_flows_closed_total"
        }
        End::Silent => {
            dead = Some(victim);
            "sipring_flows_closed_pong_total"
        }
    };
    let count = if end == End::Silent { 1 } else { closed + 1 };
    await_end(&scene.server, metric, count, &mut [&mut scene.caller, &mut scene.core]);
    let started = Instant::now();
    let newcomer = arrived(transport, &scene.server, From::host(PHONES));
    judge(scene, newcomer, started);
    if let Some(mut dead) = dead {
        // Whatever it still had to read, the end is there: the proxy closed it.
        let end = std::iter::from_fn(|| dead.incoming(PATIENCE))
            .find(|incoming| matches!(incoming, Incoming::Closed));
        assert!(end.is_some());
    }
}

#[test]
fn after_fin_requests_are_answered_and_nobody_else_hears_them() {
    STREAMS.into_iter().for_each(|transport| gone(transport, End::Fin));
}

#[test]
fn after_reset_requests_are_answered_and_nobody_else_hears_them() {
    STREAMS.into_iter().for_each(|transport| gone(transport, End::Reset));
}

#[test]
fn a_silently_dead_client_is_found_out_by_ping() {
    [Transport::Ws, Transport::Wss].into_iter().for_each(|transport| gone(transport, End::Silent));
}

#[test]
fn a_newcomer_with_the_same_addresses_is_not_the_one_who_left() {
    for transport in STREAMS {
        for shards in [1, 2] {
            let (scene, victim) = scene(transport, Setup::new().shards(shards));
            let closed = scene.server.metric("sipring_flows_closed_total");
            let local = victim.local;
            victim.reset();
            scene.server.wait_metric("sipring_flows_closed_total", closed + 1, PATIENCE);
            let started = Instant::now();
            let from = From { local, ..From::host(PHONES) };
            let newcomer = arrived(transport, &scene.server, from);
            assert_eq!(newcomer.local, local);
            judge(scene, newcomer, started);
        }
    }
}

#[test]
fn a_newcomer_with_the_address_of_a_registered_contact_hears_nothing() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let core = Phone::core(Transport::Udp);
        let server = Setup::new().start();
        let mut core = core.connect(&server, "core");
        let mut victim = Phone::connect(transport, &server, "victim");
        victim.register_self();
        let local = victim.local;
        let closed = server.metric("sipring_flows_closed_total");
        victim.reset();
        server.wait_metric("sipring_flows_closed_total", closed + 1, PATIENCE);
        let from = From { local, ..From::host(PHONES) };
        let mut newcomer = arrived(transport, &server, from);
        // This Contact could be dialled; nobody listens there.
        let answer = core.ask(&core.draft("MESSAGE", "sip:victim@example.com"));
        assert_eq!(answer.status(), 480, "{answer:?}");
        newcomer.untouched();
        still(&mut [&mut newcomer, &mut core]);
    }
}

#[test]
fn an_idle_tcp_client_is_closed_and_its_binding_goes() {
    let core = Phone::core(Transport::Udp);
    let server = Setup::new().limit("idle_timeout", "\"2s\"").start();
    let mut core = core.connect(&server, "core");
    let mut phone = Phone::connect(Transport::Tcp, &server, "idle");
    phone.register("<sip:i@idle.invalid;transport=tcp>");
    let end = phone.incoming(PATIENCE);
    assert!(matches!(end, Some(Incoming::Closed)), "{end:?}");
    server.wait_metric("sipring_bindings_flow_closed_total", 1, PATIENCE);
    let answer = core.ask(&core.draft("MESSAGE", "sip:idle@example.com"));
    assert_eq!(answer.status(), 480, "{answer:?}");
}

#[test]
fn a_request_under_way_when_its_client_dies_is_answered() {
    for transport in STREAMS {
        for shards in [1, 2] {
            let (scene, mut victim) = scene(transport, Setup::new().shards(shards));
            let Scene { server: _server, mut caller, mut core, mut from_caller, mut from_core } =
                scene;
            let message = core.draft("MESSAGE", "sip:victim@example.com");
            let invite = caller.draft("INVITE", "sip:victim@example.com");
            let core_info = from_core.draft(&core, "INFO");
            let caller_info = from_caller.draft(&caller, "INFO");
            core.send(&message.build());
            victim.request("MESSAGE");
            caller.send(&invite.build());
            let ringing = victim.request("INVITE");
            caller.status(100);
            victim.answer(&ringing, 180);
            caller.status(180);
            core.send(&core_info.build());
            caller.send(&caller_info.build());
            victim.request("INFO");
            victim.request("INFO");
            let started = Instant::now();
            victim.reset();
            let to_core = statuses(&mut core, [&message, &core_info]);
            assert_eq!(to_core, [480, 430], "by address of record, and by token");
            let to_caller = statuses(&mut caller, [&invite, &caller_info]);
            assert_eq!(to_caller, [480, 480], "an endpoint never hears 430");
            assert!(started.elapsed() < AT_ONCE, "after {:?}", started.elapsed());
        }
    }
}

/// The final statuses of two requests, whichever comes first.
fn statuses(phone: &mut Phone, drafts: [&Draft; 2]) -> [u16; 2] {
    let answers = [phone.final_response(), phone.final_response()];
    drafts.map(|draft| {
        let call_id = draft.value("Call-ID");
        let answer = answers.iter().find(|answer| answer.one("call-id") == call_id);
        answer.unwrap_or_else(|| panic!("{answers:?}")).status()
    })
}
