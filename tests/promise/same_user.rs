//! One user on WS and on WSS at once, and what `sips:` permits (RFC 5630 §5.3).

use sipring::base::id::Transport;

use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, CORE, Lab, Placement, user_of};

struct Both {
    lab: Lab,
    ws: Phone,
    wss: Phone,
    core: Phone,
    user: String,
}

fn both(at: Placement, wss_contact: &str, sips_to_sip: bool) -> Both {
    let change = |config: &mut sipring::base::config::Config| {
        config.registrar.sips_to_sip_contact = sips_to_sip;
    };
    let mut lab = Lab::new(at.shards, lab::config_with(change));
    let user = user_of(at.owner, at.shards, 0);
    let ws = Phone::connect(&mut lab, at.flow, Transport::Ws, "203.0.113.5:40001");
    let wss = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.5:40002");
    ws.register(&mut lab, &user, "<sip:a@aa.invalid;transport=ws>");
    wss.register(&mut lab, &user, wss_contact);
    let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
    Both { lab, ws, wss, core, user }
}

#[test]
fn ws_and_wss_get_one_copy_each() {
    for at in lab::placements() {
        for method in ["MESSAGE", "INVITE"] {
            let Both { mut lab, ws, wss, core, user } =
                both(at, "<sip:b@bb.invalid;transport=ws>", false);
            let uri = format!("sip:{user}@example.com");
            core.send(&mut lab, &request(&core, method, &uri, "m").text());
            let (one, two) = (ws.take_method(&mut lab, method), wss.take_method(&mut lab, method));
            assert_eq!(one.uri(), "sip:a@aa.invalid;transport=ws");
            assert_eq!(two.uri(), "sip:b@bb.invalid;transport=ws");
            let trying = core.take(&mut lab);
            assert_eq!(trying.len(), usize::from(method == "INVITE"));
            ws.send(&mut lab, &one.response(486, "a", &[]));
            core.heard_nothing(&mut lab);
            wss.send(&mut lab, &two.response(200, "b", &[]));
            core.take_status(&mut lab, 200);
            lab.finish();
        }
    }
}

#[test]
fn a_sips_request_never_reaches_the_ws_client() {
    let contacts =
        [("<sips:b@bb.invalid;transport=ws>", false), ("<sip:b@bb.invalid;transport=ws>", true)];
    for at in lab::placements() {
        for (contact, sips_to_sip) in contacts {
            for method in ["MESSAGE", "INVITE"] {
                let Both { mut lab, ws, wss, core, user } = both(at, contact, sips_to_sip);
                let uri = format!("sips:{user}@example.com");
                core.send(&mut lab, &request(&core, method, &uri, "m").text());
                let got = wss.take_method(&mut lab, method);
                assert!(contact.contains(got.uri()), "{got:#?}");
                wss.send(&mut lab, &got.response(200, "b", &[]));
                assert_eq!(core.take(&mut lab).last().expect("an answer").status(), 200);
                ws.heard_nothing(&mut lab);
                lab.finish();
            }
        }
    }
}

#[test]
fn a_sips_request_for_somebody_on_ws_alone_is_refused() {
    for at in lab::placements() {
        for (transport, contact) in [
            (Transport::Ws, "<sip:a@aa.invalid;transport=ws>"),
            (Transport::Ws, "<sip:a@aa.invalid;transport=wss>"),
            (Transport::Tcp, "<sip:a@203.0.113.5:40001;transport=tls>"),
            (Transport::Udp, "<sip:a@203.0.113.5:40001>"),
            (Transport::Wss, "<sip:a@aa.invalid;transport=ws>"),
        ] {
            let mut lab = Lab::new(at.shards, lab::config());
            let user = user_of(at.owner, at.shards, 0);
            let client = Phone::connect(&mut lab, at.flow, transport, "203.0.113.5:40001");
            client.register(&mut lab, &user, contact);
            let core = Phone::connect(&mut lab, at.arrival, Transport::Udp, CORE);
            let uri = format!("sips:{user}@example.com");
            core.send(&mut lab, &request(&core, "MESSAGE", &uri, "m").text());
            let answer = core.take_status(&mut lab, 480);
            assert_eq!(answer.header("Warning"), "380 lab \"SIPS Not Allowed\"");
            client.heard_nothing(&mut lab);
            lab.finish();
        }
    }
}
