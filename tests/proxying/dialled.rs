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

fn every_scene(mut each: impl FnMut(&mut Scene)) {
    for at in lab::placements() {
        for transport in [Transport::Tcp, Transport::Tls] {
            let mut lab = Lab::new(at.shards, lab::config());
            let user = user_of(at.owner, at.shards, 0);
            let browser = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.5:40001");
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
