//! One user on a WebSocket and on a secure WebSocket at once.

use super::support::sip::param;
use super::support::{Phone, Server, Setup, Transport, forwarded, returned, still};

struct Both {
    ws: Phone,
    wss: Phone,
    core: Phone,
    _server: Server,
}

/// Alice twice, the second with `wss_scheme` in her Contact, and a TLS server that may send `sips:`
/// requests.
fn both(setup: Setup, wss_scheme: &str) -> Both {
    let core = Phone::core(Transport::Tls);
    let server = setup.start();
    let core = core.connect(&server, "core");
    let mut ws = Phone::connect(Transport::Ws, &server, "alice");
    let mut wss = Phone::connect(Transport::Wss, &server, "alice");
    wss.contact = wss.contact.replacen("sip:", wss_scheme, 1);
    ws.register_self();
    wss.register_self();
    Both { ws, wss, core, _server: server }
}

#[test]
fn both_connections_get_one_copy_each() {
    for shards in [1, 2] {
        let Both { _server, mut ws, mut wss, mut core } = both(Setup::new().shards(shards), "sip:");
        let draft = core.draft("MESSAGE", "sip:alice@example.com").body("text/plain", "to both");
        core.send(&draft.build());
        let at_ws = ws.request("MESSAGE");
        let at_wss = wss.request("MESSAGE");
        let (ws_contact, wss_contact) = (ws.contact.clone(), wss.contact.clone());
        forwarded(&draft.message(), &at_ws, Transport::Ws, &ws_contact);
        forwarded(&draft.message(), &at_wss, Transport::Wss, &wss_contact);
        let branch = |heard: &super::support::Message| {
            param(&heard.values("via")[0], "branch").map(str::to_string)
        };
        assert_ne!(branch(&at_ws), branch(&at_wss), "two branches, two client transactions");
        let answer = wss.response(&at_wss, 200);
        wss.respond(&at_wss, &answer);
        returned(&draft.message(), &answer.message(), &core.status(200));
        ws.answer(&at_ws, 200);
        still(&mut [&mut ws, &mut wss, &mut core]);
    }
}

#[test]
fn a_sips_request_reaches_the_secure_contact_only() {
    for shards in [1, 2] {
        let Both { _server, mut ws, mut wss, mut core } =
            both(Setup::new().shards(shards), "sips:");
        for method in ["MESSAGE", "NOTIFY", "OPTIONS"] {
            let draft = core.draft(method, "sips:alice@example.com");
            core.send(&draft.build());
            let heard = wss.request(method);
            let contact = wss.contact.clone();
            forwarded(&draft.message(), &heard, Transport::Wss, &contact);
            wss.answer(&heard, 200);
            core.status(200);
        }
        ws.untouched();
        still(&mut [&mut ws, &mut wss, &mut core]);
    }
}

#[test]
fn a_sips_request_is_refused_when_no_contact_is_secure() {
    let Both { _server, mut ws, mut wss, mut core } = both(Setup::new(), "sip:");
    let answer = core.ask(&core.draft("MESSAGE", "sips:alice@example.com"));
    assert_eq!(answer.status(), 480, "{answer:?}");
    assert!(answer.one("warning").starts_with("380 "), "RFC 5630 §5.3: {answer:?}");
    ws.untouched();
    wss.untouched();
    still(&mut [&mut ws, &mut wss, &mut core]);
}

#[test]
fn a_sip_contact_over_tls_may_be_good_enough_for_sips() {
    let setup = Setup::new().registrar("sips_to_sip_contact", "true");
    let Both { _server, mut ws, mut wss, mut core } = both(setup, "sip:");
    let draft = core.draft("MESSAGE", "sips:alice@example.com");
    core.send(&draft.build());
    let heard = wss.request("MESSAGE");
    let contact = wss.contact.clone();
    forwarded(&draft.message(), &heard, Transport::Wss, &contact);
    wss.answer(&heard, 200);
    core.status(200);
    ws.untouched();
    still(&mut [&mut ws, &mut wss, &mut core]);
}
