//! Flow tokens (RFC 5626 §5.2): only the very token that the proxy gave, in the dialog that it was
//! given for, moves a request.

use super::support::call::within;
use super::support::phone::{ATTACKERS, From};
use super::support::sip::{unique, uri_of};
use super::support::{Dialog, Phone, Server, Setup, Transport, call, still};

struct Scene {
    alice: Phone,
    bob: Phone,
    mallory: Phone,
    dialog: Dialog,
    server: Server,
}

/// Alice calls Bob, both on WSS; Mallory overheard everything.
fn scene(shards: usize) -> Scene {
    let server = Setup::new().shards(shards).start();
    let mut alice = Phone::connect(Transport::Wss, &server, "alice");
    let mut bob = Phone::connect(Transport::Wss, &server, "bob");
    alice.register_self();
    bob.register_self();
    let mallory = Phone::connect_from(Transport::Tcp, &server, "mallory", From::host(ATTACKERS));
    let contact = bob.contact.clone();
    let dialog = call(&mut alice, "sip:bob@example.com", &mut bob, &contact).caller;
    Scene { alice, bob, mallory, dialog, server }
}

/// The route with another user part.
fn with_token(route: &str, token: &str) -> String {
    let (head, host) = route.split_once('@').expect("a token");
    let scheme = head.rsplit_once(':').expect("a scheme").0;
    format!("{scheme}:{token}@{host}")
}

fn token_of(route: &str) -> String {
    let uri = uri_of(route);
    uri.split_once(':').and_then(|(_, rest)| rest.split_once('@')).expect("a token").0.to_string()
}

#[test]
fn a_token_with_any_character_changed_is_refused() {
    let Scene { server, mut alice, mut bob, mut mallory, mut dialog } = scene(1);
    let genuine = dialog.routes.clone();
    let token = token_of(&genuine[0]);
    // The last character may carry bits that no decoder looks at.
    for at in 0..token.len() - 1 {
        let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
        let forged = format!("{}{other}{}", &token[..at], &token[at + 1..]);
        dialog.routes = genuine.iter().map(|route| with_token(route, &forged)).collect();
        let bye = dialog.draft(&mallory, "BYE");
        assert_eq!(mallory.ask(&bye).status(), 403, "character {at} changed");
    }
    dialog.routes = genuine;
    still(&mut [&mut bob]);
    within(&mut dialog, "BYE", &mut alice, &mut bob);
    server.wait_metric(
        "sipring_requests_token_refused_total",
        token.len() as u64 - 1,
        super::support::phone::PATIENCE,
    );
}

#[test]
fn a_token_of_another_call_is_refused() {
    for shards in [1, 2] {
        let Scene { server: _server, mut alice, mut bob, mut mallory, mut dialog } = scene(shards);
        let genuine = dialog.call_id.clone();
        dialog.call_id = unique("another");
        for method in ["BYE", "INFO", "INVITE"] {
            let mut draft = dialog.draft(&mallory, method);
            if method == "INVITE" {
                draft = draft.with("Contact", format!("<{}>", mallory.contact));
            }
            let answer = mallory.ask(&draft);
            assert_eq!(answer.status(), 403, "{answer:?}");
            if method == "INVITE" {
                let ack = draft.set("CSeq", format!("{} ACK", dialog.cseq));
                let start = ack.start.replacen("INVITE", "ACK", 1);
                let ack = super::support::Draft { start, ..ack }.set("To", answer.one("to"));
                mallory.send(&ack.build());
            }
        }
        still(&mut [&mut mallory, &mut bob]);
        dialog.call_id = genuine;
        within(&mut dialog, "BYE", &mut alice, &mut bob);
    }
}

#[test]
fn a_token_does_not_start_a_dialog() {
    let Scene { server: _server, mut alice, mut bob, mut mallory, mut dialog } = scene(1);
    let draft = dialog.draft(&mallory, "MESSAGE").set("To", "<sip:bob@example.com>");
    let status = mallory.ask(&draft).status();
    assert_eq!(status, 403);
    still(&mut [&mut bob]);
    within(&mut dialog, "BYE", &mut alice, &mut bob);
}

#[test]
fn a_token_made_of_nothing_is_refused() {
    let Scene { server: _server, alice: _alice, mut bob, mut mallory, mut dialog } = scene(1);
    let long = "A".repeat(3000);
    for token in ["A", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "%00%00", long.as_str()] {
        dialog.routes = dialog.routes.iter().map(|route| with_token(route, token)).collect();
        let answer = mallory.ask(&dialog.draft(&mallory, "BYE"));
        assert_eq!(answer.status(), 403, "{answer:?}");
    }
    still(&mut [&mut bob]);
}
