//! A registrar behind the proxy (RFC 3327, RFC 5626 §5.1): Path leads back to the client's flow,
//! and to nothing once that flow is dead.

use super::support::phone::PATIENCE;
use super::support::registrar::enroll;
use super::support::sip::uri_of;
use super::support::{Phone, Server, Setup, Transport, forwarded, still};

struct Scene {
    alice: Phone,
    core: Phone,
    path: String,
    server: Server,
}

fn registered(shards: usize) -> Scene {
    let core = Phone::core(Transport::Udp);
    let setup = Setup::new().shards(shards).target(core.target());
    let server = setup.route("methods = [\"REGISTER\"]\nto = \"upstream:core\"").start();
    let mut core = core.connect(&server, "core");
    let mut alice = Phone::connect(Transport::Wss, &server, "alice");
    let contact = format!("<{}>", alice.contact);
    let path = enroll(&mut alice, &contact, &mut core);
    let uri = uri_of(&path);
    assert!(uri.contains('@') && uri.contains(";lr") && uri.contains(";ob"), "{path}");
    assert!(uri.contains(&core.proxy.to_string()), "it faces the upstream: {path}");
    Scene { alice, core, path, server }
}

#[test]
fn a_request_with_the_path_arrives_on_the_flow() {
    for shards in [1, 2] {
        let Scene { mut alice, mut core, path, server: _server } = registered(shards);
        let draft = core.draft("MESSAGE", &alice.contact).with("Route", &path);
        core.send(&draft.build());
        let heard = alice.request("MESSAGE");
        assert_eq!(heard.all("route").count(), 0, "{heard:?}");
        let contact = alice.contact.clone();
        forwarded(&draft.message(), &heard, Transport::Wss, &contact);
        alice.answer(&heard, 200);
        core.status(200);
    }
}

#[test]
fn a_path_whose_flow_is_dead_gets_430() {
    let Scene { alice, mut core, path, server } = registered(1);
    let contact = alice.contact.clone();
    let closed = server.metric("sipring_flows_closed_total");
    alice.reset();
    server.wait_metric("sipring_flows_closed_total", closed + 1, PATIENCE);
    let mut newcomer = Phone::connect(Transport::Wss, &server, "newcomer");
    let answer = core.ask(&core.draft("MESSAGE", &contact).with("Route", &path));
    assert_eq!(answer.status(), 430, "RFC 5626 §5.3.1: {answer:?}");
    newcomer.untouched();
    still(&mut [&mut newcomer]);
}

#[test]
fn a_path_is_not_for_strangers() {
    let Scene { mut alice, core: _core, path, server } = registered(1);
    let mut mallory = Phone::connect(Transport::Wss, &server, "mallory");
    let draft = mallory.draft("MESSAGE", &alice.contact).with("Route", &path);
    assert_eq!(mallory.ask(&draft).status(), 403);
    still(&mut [&mut alice]);
}

/// RFC 3327 §5.2, RFC 3261 §21.4.15: where the core cannot do without, nor can its clients.
#[test]
fn a_client_without_path_hears_421_where_the_core_needs_it() {
    let core = Phone::core(Transport::Udp);
    let setup = Setup::new().shards(2).target(core.target()).registrar("require_path", "true");
    let server = setup.route("methods = [\"REGISTER\"]\nto = \"upstream:core\"").start();
    let mut core = core.connect(&server, "core");
    for transport in [Transport::Wss, Transport::Tcp, Transport::Udp] {
        let mut alice = Phone::connect(transport, &server, "alice");
        let draft = alice.register_draft("<sip:a@a.invalid>");
        let refused = alice.ask(&draft.set("Supported", "outbound"));
        assert_eq!(refused.status(), 421, "{refused:?}");
        assert_eq!(refused.values("require"), ["path"], "{refused:?}");
        let draft = alice.register_draft("<sip:a@a.invalid>");
        alice.send(&draft.set("Supported", "outbound, path").build());
        let heard = core.request("REGISTER");
        assert_eq!(heard.values("require"), ["path"], "{heard:?}");
        assert_eq!(heard.all("path").count(), 1, "{heard:?}");
        core.answer(&heard, 200);
        alice.status(200);
    }
}
