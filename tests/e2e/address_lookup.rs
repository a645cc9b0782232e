//! Servers that rewrite Contacts to the address of the connection: with `address_lookup` their
//! requests find the client's flow, whether the URI says `ws` or `wss`; a secure one never leads to
//! an insecure flow.

use super::support::{Phone, Server, Setup, Transport, forwarded, still};

struct Scene {
    ws: Phone,
    wss: Phone,
    core: Phone,
    _server: Server,
}

fn scene(setup: Setup) -> Scene {
    let core = Phone::core(Transport::Udp);
    let server = setup.start();
    let core = core.connect(&server, "core");
    let mut ws = Phone::connect(Transport::Ws, &server, "ws");
    let mut wss = Phone::connect(Transport::Wss, &server, "wss");
    ws.register_self();
    wss.register_self();
    Scene { ws, wss, core, _server: server }
}

#[test]
fn a_websocket_client_is_found_by_its_address() {
    for shards in [1, 2] {
        let setup = Setup::new().shards(shards).core("address_lookup = true");
        let Scene { _server, mut ws, mut wss, mut core } = scene(setup);
        for (phone, tails) in [
            (&mut ws, &["sip:x@{};transport=ws", "sip:{};transport=WS"][..]),
            (
                &mut wss,
                &["sip:x@{};transport=ws", "sip:x@{};transport=wss", "sip:{};transport=ws"][..],
            ),
        ] {
            for tail in tails {
                let uri = tail.replace("{}", &phone.local.to_string());
                for dialog in [false, true] {
                    let mut draft = core.draft("NOTIFY", &uri);
                    if dialog {
                        draft = draft.set("To", "<sip:x@example.com>;tag=known-to-them");
                    }
                    core.send(&draft.build());
                    let heard = phone.request("NOTIFY");
                    forwarded(&draft.message(), &heard, phone.transport, &uri);
                    phone.answer(&heard, 200);
                    core.status(200);
                }
            }
        }
        still(&mut [&mut ws, &mut wss, &mut core]);
    }
}

#[test]
fn a_secure_uri_does_not_find_an_insecure_flow() {
    let Scene { _server, mut ws, mut wss, mut core } =
        scene(Setup::new().core("address_lookup = true"));
    for uri in ["sips:x@{};transport=ws", "sips:x@{};transport=wss", "sip:x@{};transport=wss"] {
        let uri = uri.replace("{}", &ws.local.to_string());
        let answer = core.ask(&core.draft("NOTIFY", &uri));
        assert!((400..700).contains(&answer.status()), "{uri}: {answer:?}");
    }
    ws.untouched();
    still(&mut [&mut ws, &mut wss, &mut core]);
}

#[test]
fn without_the_setting_an_address_finds_nobody() {
    let Scene { _server, mut ws, mut wss, mut core } = scene(Setup::new());
    for phone in [&ws, &wss] {
        let uri = format!("sip:x@{};transport=ws", phone.local);
        let answer = core.ask(&core.draft("NOTIFY", &uri));
        assert!((400..700).contains(&answer.status()), "{uri}: {answer:?}");
        phone.untouched();
    }
    still(&mut [&mut ws, &mut wss, &mut core]);
}
