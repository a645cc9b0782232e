//! Phones that are dialled (RFC 3261 §18.1.1): one that registered its own address over TCP or TLS
//! is called there when its connection is gone, and its dialogs find it again.

use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, Lab, user_of};

const BROWSER: &str = "sip:b@bb.invalid;transport=ws";

struct Scene {
    lab: Lab,
    browser: Phone,
    user: String,
    contact: String,
    transport: Transport,
}

fn every_scene(each: impl FnMut(&mut Scene)) {
    every_scene_from(Some(Transport::Wss), "203.0.113.5:40001", each);
}

/// The caller is at that address, over that transport or the phone's.
fn every_scene_from(by: Option<Transport>, address: &str, mut each: impl FnMut(&mut Scene)) {
    for at in lab::placements() {
        for transport in [Transport::Tcp, Transport::Tls] {
            let mut lab = Lab::new(at.shards, lab::config());
            let user = user_of(at.owner, at.shards, 0);
            let browser = Phone::connect(&mut lab, at.arrival, by.unwrap_or(transport), address);
            let phone = Phone::connect(&mut lab, at.flow, transport, "203.0.113.6:40002");
            let contact = format!("sip:p@203.0.113.6:5080;transport={}", transport.uri_name());
            phone.register(&mut lab, &user, &format!("<{contact}>"));
            phone.leave(&mut lab, CloseReason::Peer);
            let mut scene = Scene { lab, browser, user, contact, transport };
            each(&mut scene);
            scene.lab.finish();
        }
    }
}

impl Scene {
    /// The phone's end of the connection that is asked for.
    fn open(&mut self) -> Phone {
        assert_eq!(self.lab.opens.len(), 1, "it is dialled");
        let target = self.lab.opens[0].2.clone();
        assert_eq!(target.remote, "203.0.113.6:5080".parse().expect("an address"));
        assert_eq!(target.secure, self.transport == Transport::Tls);
        let flow = self.lab.complete_open(0);
        let (transport, remote) = (self.transport, target.remote);
        Phone { transport, remote, shard: flow.shard().0, flow: Some(flow) }
    }

    /// The phone's end of what was just sent: each shard has a connection of its own.
    fn reached(&mut self, phone: Phone) -> Phone {
        if self.lab.opens.is_empty() { phone } else { self.open() }
    }

    /// The browser calls; the phone's end, its INVITE, and the browser's route set.
    fn call(&mut self) -> (Phone, Sip, Vec<String>) {
        let draft = self.invite();
        self.browser.send(&mut self.lab, &draft.text());
        let phone = self.open();
        let invite = phone.take_method(&mut self.lab, "INVITE");
        self.browser.take_status(&mut self.lab, 100);
        let contact = format!("Contact: <{}>", self.contact);
        phone.send(&mut self.lab, &invite.response(200, "p", &[&contact]));
        let mut route = self.browser.take_status(&mut self.lab, 200).record_route();
        route.reverse();
        let ack = self.by_browser("ACK", 1, &route);
        self.browser.send(&mut self.lab, &ack.text());
        let phone = self.reached(phone);
        phone.take_method(&mut self.lab, "ACK");
        (phone, invite, route)
    }

    fn invite(&self) -> Draft {
        let uri = format!("sip:{}@example.com", self.user);
        let contact = format!("Contact: <{BROWSER}>");
        request(&self.browser, "INVITE", &uri, "c").line(&contact)
    }

    fn by_browser(&self, method: &str, cseq: u32, route: &[String]) -> Draft {
        self.invite()
            .method(method)
            .uri(&self.contact)
            .branch(&self.browser, &format!("b{cseq}{method}"))
            .to(&format!("<sip:{}@example.com>;tag=p", self.user))
            .route(route)
            .cseq(cseq)
    }

    fn by_phone(&self, phone: &Phone, method: &str, invite: &Sip) -> Draft {
        request(phone, method, BROWSER, "p")
            .branch(phone, &format!("p{method}{}", phone.remote.port()))
            .call_id("c@lab")
            .from(&format!("<sip:{}@example.com>;tag=p", self.user))
            .to("<sip:sender@example.org>;tag=fc")
            .route(&invite.record_route())
    }

    fn exchange(&mut self, from: Phone, to: Phone, draft: &Draft) {
        from.send(&mut self.lab, &draft.text());
        let got = to.take_one(&mut self.lab);
        assert_eq!(got.find("Route"), None, "{got:#?}");
        to.send(&mut self.lab, &got.response(200, "", &[]));
        from.take_status(&mut self.lab, 200);
    }
}

#[test]
fn a_dialog_with_a_dialled_phone_works_in_both_directions() {
    every_scene(|scene| {
        let (phone, invite, route) = scene.call();
        let browser = scene.browser;
        let info = scene.by_browser("INFO", 2, &route);
        scene.exchange(browser, phone, &info);
        let info = scene.by_phone(&phone, "INFO", &invite);
        scene.exchange(phone, browser, &info);
        let bye = scene.by_browser("BYE", 3, &route);
        scene.exchange(browser, phone, &bye);
        assert!(scene.lab.opens.is_empty(), "the connection is used again");
    });
}

#[test]
fn a_caller_on_the_dialled_phones_host_is_not_taken_for_it() {
    every_scene_from(None, "203.0.113.6:40001", |scene| {
        let (phone, invite, route) = scene.call();
        let browser = scene.browser;
        let info = scene.by_browser("INFO", 2, &route);
        scene.exchange(browser, phone, &info);
        let bye = scene.by_phone(&phone, "BYE", &invite);
        scene.exchange(phone, browser, &bye);
    });
}

#[test]
fn a_dialled_phone_whose_connection_ends_is_dialled_again() {
    every_scene(|scene| {
        let (phone, _, route) = scene.call();
        phone.leave(&mut scene.lab, CloseReason::Peer);
        let bye = scene.by_browser("BYE", 2, &route);
        scene.browser.send(&mut scene.lab, &bye.text());
        let phone = scene.open();
        let got = phone.take_method(&mut scene.lab, "BYE");
        phone.send(&mut scene.lab, &got.response(200, "", &[]));
        scene.browser.take_status(&mut scene.lab, 200);
    });
}

#[test]
fn the_phone_may_come_back_on_a_connection_of_its_own() {
    every_scene(|scene| {
        let (phone, invite, _) = scene.call();
        let back = Phone::connect(&mut scene.lab, 0, scene.transport, "203.0.113.6:40009");
        let info = scene.by_phone(&back, "INFO", &invite);
        scene.exchange(back, scene.browser, &info);
        phone.heard_nothing(&mut scene.lab);
    });
}

#[test]
fn what_is_for_a_dialled_phone_never_takes_a_connection_that_somebody_made() {
    every_scene(|scene| {
        let (phone, _, route) = scene.call();
        phone.leave(&mut scene.lab, CloseReason::Peer);
        // Somebody else, at the very address that the phone registered.
        let thief = Phone::connect(&mut scene.lab, 0, scene.transport, "203.0.113.6:5080");
        let bye = scene.by_browser("BYE", 2, &route);
        scene.browser.send(&mut scene.lab, &bye.text());
        let phone = scene.open();
        let got = phone.take_method(&mut scene.lab, "BYE");
        phone.send(&mut scene.lab, &got.response(200, "", &[]));
        scene.browser.take_status(&mut scene.lab, 200);
        thief.heard_nothing(&mut scene.lab);
    });
}

#[test]
fn the_token_of_a_dialled_phone_is_good_for_its_own_dialog_only() {
    every_scene(|scene| {
        let (phone, _, route) = scene.call();
        for wrong in [
            scene.by_browser("INFO", 2, &route).call_id("another"),
            scene.by_browser("INFO", 3, &route).to("<sip:x@example.com>"),
        ] {
            scene.browser.send(&mut scene.lab, &wrong.text());
            scene.browser.take_status(&mut scene.lab, 403);
        }
        phone.heard_nothing(&mut scene.lab);
    });
}

#[test]
fn a_dialled_phone_asserts_no_identity() {
    every_scene(|scene| {
        let draft = scene.invite();
        scene.browser.send(&mut scene.lab, &draft.text());
        let phone = scene.open();
        let invite = phone.take_method(&mut scene.lab, "INVITE");
        scene.browser.take_status(&mut scene.lab, 100);
        let lines = ["P-Asserted-Identity: <sip:boss@example.com>"];
        phone.send(&mut scene.lab, &invite.response(486, "p", &lines));
        let answer = scene.browser.take_status(&mut scene.lab, 486);
        assert_eq!(answer.find("P-Asserted-Identity"), None, "{answer:#?}");
        phone.take_method(&mut scene.lab, "ACK");
        scene.browser.send(&mut scene.lab, &draft.method("ACK").text());
    });
}

/// Nobody is at the address that the phone registered (RFC 3261 §21.4.18): it is the callee who is
/// unavailable, not we who are broken.
#[test]
fn a_phone_that_cannot_be_dialled_is_unavailable() {
    every_scene(|scene| {
        for method in ["MESSAGE", "INVITE"] {
            let draft = scene.invite().method(method).branch(&scene.browser, method);
            scene.browser.send(&mut scene.lab, &draft.text());
            if method == "INVITE" {
                scene.browser.take_status(&mut scene.lab, 100);
            }
            assert_eq!(scene.lab.opens.len(), 1, "it is dialled");
            scene.lab.refuse_open(0);
            scene.browser.take_status(&mut scene.lab, 480);
        }
        let ack = scene.invite().method("ACK").branch(&scene.browser, "INVITE");
        scene.browser.send(&mut scene.lab, &ack.text());
    });
}

/// In its dialog as well: whom a token names as dialled is a client.
#[test]
fn a_phone_that_has_gone_since_it_was_dialled_is_unavailable() {
    every_scene(|scene| {
        let (phone, _, route) = scene.call();
        phone.leave(&mut scene.lab, CloseReason::Peer);
        let bye = scene.by_browser("BYE", 2, &route);
        scene.browser.send(&mut scene.lab, &bye.text());
        scene.lab.refuse_open(0);
        scene.browser.take_status(&mut scene.lab, 480);
    });
}

#[test]
fn a_phone_whose_connection_ends_with_a_request_on_it_is_unavailable() {
    every_scene(|scene| {
        let draft = scene.invite().method("MESSAGE");
        scene.browser.send(&mut scene.lab, &draft.text());
        let phone = scene.open();
        phone.take_method(&mut scene.lab, "MESSAGE");
        phone.leave(&mut scene.lab, CloseReason::Reset);
        scene.browser.take_status(&mut scene.lab, 480);
    });
}

/// The connection that is dialled is one way to the instance of several (RFC 5626 §7).
#[test]
fn the_other_flow_of_the_instance_gets_what_the_phone_did_not_take() {
    const INSTANCE: &str = "+sip.instance=\"<urn:uuid:2>\"";
    for at in lab::placements() {
        for transport in [Transport::Tcp, Transport::Tls] {
            let mut lab = Lab::new(at.shards, lab::config());
            let user = user_of(at.owner, at.shards, 0);
            let other = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.6:40003");
            other.register(&mut lab, &user, &format!("<sip:o@oo.invalid>;{INSTANCE}"));
            let phone = Phone::connect(&mut lab, at.flow, transport, "203.0.113.6:40002");
            phone.register(&mut lab, &user, &format!("<sip:p@203.0.113.6:5080>;{INSTANCE}"));
            phone.leave(&mut lab, CloseReason::Peer);
            let caller = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.5:40001");
            for method in ["MESSAGE", "INVITE"] {
                let draft = request(&caller, method, &format!("sip:{user}@example.com"), method);
                caller.send(&mut lab, &draft.text());
                let trying = caller.take(&mut lab);
                assert!(trying.iter().all(|it| it.status() == 100), "{trying:#?}");
                other.heard_nothing(&mut lab);
                lab.refuse_open(0);
                caller.heard_nothing(&mut lab);
                let got = other.take_method(&mut lab, method);
                assert_eq!(got.uri(), "sip:o@oo.invalid");
                other.send(&mut lab, &got.response(200, "o", &[]));
                caller.take_status(&mut lab, 200);
            }
            lab.finish();
        }
    }
}

#[test]
fn a_server_that_cannot_be_reached_is_a_fault_behind_us() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut lab = Lab::new(1, lab::config_by(transport));
        let caller = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        let draft = request(&caller, "MESSAGE", "sip:911@example.com", "m");
        caller.send(&mut lab, &draft.text());
        lab.refuse_open(0);
        caller.take_status(&mut lab, 500);
        lab.finish();
    }
}
