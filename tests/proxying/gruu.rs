//! Requests to GRUUs (RFC 5627 §6.1): one instance of a user, by its public name or by one that
//! hides the user, inside a dialog and outside.

use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::lab::call::Call;
use crate::lab::draft::request;
use crate::lab::phone::Phone;
use crate::lab::{self, Lab, user_of};

const CONTACT: &str = "sip:a1b2@df7jal23ls0d.invalid;transport=ws";

/// What an instance is known by after its REGISTER.
struct Gruus {
    public: String,
    temporary: String,
}

/// REGISTERs one instance of `user` and reads its GRUUs.
fn register(lab: &mut Lab, phone: &Phone, user: &str, instance: &str) -> Gruus {
    let contact = format!("<{CONTACT}>;reg-id=1;+sip.instance=\"<urn:uuid:{instance}>\"");
    let answer = phone.register_with(lab, user, &contact, "path, outbound, gruu");
    let listed = answer
        .all("Contact")
        .find(|value| value.contains(&format!("+sip.instance=\"<urn:uuid:{instance}>\"")))
        .expect("the instance");
    let param = |name: &str| {
        let (_, rest) = listed.split_once(&format!(";{name}=\"")).expect("a GRUU");
        rest.split_once('"').expect("a closing quote").0.to_owned()
    };
    Gruus { public: param("pub-gruu"), temporary: param("temp-gruu") }
}

#[test]
fn a_gruu_reaches_its_instance_from_every_shard() {
    for at in lab::placements() {
        let mut lab = Lab::new(at.shards, lab::config());
        let user = user_of(at.owner, at.shards, 0);
        let one = Phone::connect(&mut lab, at.flow, Transport::Wss, "203.0.113.5:40001");
        let two = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.6:40002");
        let sender = Phone::connect(&mut lab, at.arrival, Transport::Tcp, "203.0.113.7:40003");
        let gruus = register(&mut lab, &one, &user, "1");
        register(&mut lab, &two, &user, "2");
        for (n, uri) in [&gruus.public, &gruus.temporary].into_iter().enumerate() {
            let draft = request(&sender, "MESSAGE", uri, &format!("m{n}"));
            sender.send(&mut lab, &draft.text());
            let got = one.take_method(&mut lab, "MESSAGE");
            assert_eq!(got.uri(), CONTACT, "the Contact replaces the GRUU");
            two.heard_nothing(&mut lab);
            one.send(&mut lab, &got.response(200, "t", &[]));
            sender.take_status(&mut lab, 200);
        }
        lab.finish();
    }
}

#[test]
fn a_gruu_of_nobody_is_answered() {
    let mut lab = Lab::new(2, lab::config());
    let user = user_of(1, 2, 0);
    let phone = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
    let sender = Phone::connect(&mut lab, 0, Transport::Tcp, "203.0.113.7:40003");
    let gruus = register(&mut lab, &phone, &user, "1");
    let other = gruus.public.replace("uuid:1", "uuid:9");
    let forged = gruus.temporary.replacen("tgruu.", "tgruu.A", 1);
    let empty = format!("sip:{user}@example.com;gr");
    for (n, (uri, status)) in [(&other, 480), (&forged, 404), (&empty, 404)].into_iter().enumerate()
    {
        sender.send(&mut lab, &request(&sender, "OPTIONS", uri, &format!("o{n}")).text());
        sender.take_status(&mut lab, status);
    }
    phone.leave(&mut lab, CloseReason::Peer);
    for (n, (uri, status)) in
        [(&gruus.public, 480), (&gruus.temporary, 404)].into_iter().enumerate()
    {
        sender.send(&mut lab, &request(&sender, "OPTIONS", uri, &format!("p{n}")).text());
        sender.take_status(&mut lab, status);
    }
    lab.finish();
}

#[test]
fn a_dialog_whose_contact_is_a_gruu_goes_on() {
    for at in lab::placements() {
        for temporary in [false, true] {
            let mut lab = Lab::new(at.shards, lab::config());
            let user = user_of(at.owner, at.shards, 0);
            let caller = Phone::connect(&mut lab, at.arrival, Transport::Wss, "203.0.113.5:40001");
            let callee = Phone::connect(&mut lab, at.flow, Transport::Wss, "203.0.113.6:40002");
            let gruus = register(&mut lab, &callee, &user, "1");
            let gruu = if temporary { &gruus.temporary } else { &gruus.public };
            let contacts = ("sip:a@aa.invalid", gruu.as_str());
            let uri = format!("sip:{user}@example.com");
            let mut call = Call::establish(&mut lab, &caller, &callee, &uri, contacts, "c");
            let info = call.by_caller(&caller, "INFO");
            let got = Call::exchange(&mut lab, &caller, &callee, &info);
            assert_eq!(got.uri(), CONTACT);
            let bye = call.by_callee(&callee, "BYE");
            Call::exchange(&mut lab, &callee, &caller, &bye);
            lab.finish();
        }
    }
}

#[test]
fn a_gruu_chooses_no_less_secure_flow_than_its_dialog_had() {
    let mut lab = Lab::new(1, lab::config());
    let caller = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
    let callee = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.6:40002");
    let gruus = register(&mut lab, &callee, "carol", "1");
    let contacts = ("sip:a@aa.invalid", gruus.public.as_str());
    let uri = "sip:carol@example.com";
    let mut call = Call::establish(&mut lab, &caller, &callee, uri, contacts, "c");
    callee.leave(&mut lab, CloseReason::Peer);
    let plain = Phone::connect(&mut lab, 0, Transport::Ws, "203.0.113.6:40003");
    register(&mut lab, &plain, "carol", "1");
    let info = call.by_caller(&caller, "INFO");
    caller.send(&mut lab, &info.text());
    caller.take_status(&mut lab, 480);
    plain.heard_nothing(&mut lab);
    lab.finish();
}

/// Only a REGISTER for the same flow with another Call-ID ends temporary GRUUs, and then those of
/// the whole instance (RFC 5627 §4.1, §5.1): flows may have Call-IDs of their own.
#[test]
fn flows_with_call_ids_of_their_own_share_their_temporary_gruus() {
    let mut lab = Lab::new(1, lab::config());
    let one = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
    let two = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.6:40002");
    let sender = Phone::connect(&mut lab, 0, Transport::Tcp, "203.0.113.7:40003");
    let register = |lab: &mut Lab, phone: &Phone, reg_id: u32, call_id: &str, cseq: u32| {
        let to = "<sip:carol@example.com>";
        let draft = request(phone, "REGISTER", "sip:example.com", &format!("{call_id}{cseq}"))
            .to(to)
            .from(&format!("{to};tag=1"))
            .call_id(call_id)
            .cseq(cseq)
            .line("Supported: path, outbound, gruu")
            .line(&format!("Contact: <{CONTACT}>;reg-id={reg_id};+sip.instance=\"<urn:uuid:1>\""));
        phone.send(lab, &draft.text());
        let answer = phone.take_status(lab, 200);
        let own = format!(";reg-id={reg_id};");
        let listed = answer.all("Contact").find(|value| value.contains(&own)).expect("its own");
        let (_, rest) = listed.split_once(";temp-gruu=\"").expect("a GRUU");
        rest.split_once('"').expect("a closing quote").0.to_owned()
    };
    let mut gruus = vec![register(&mut lab, &one, 1, "a", 1)];
    gruus.push(register(&mut lab, &two, 2, "b", 1));
    gruus.push(register(&mut lab, &one, 1, "a", 2));
    gruus.push(register(&mut lab, &two, 2, "b", 2));
    let ask = |lab: &mut Lab, uri: &str| {
        let name = format!("m{}", lab.serial());
        sender.send(lab, &request(&sender, "MESSAGE", uri, &name).text());
        let answers = sender.take(lab);
        if let Some(answer) = answers.first() {
            return answer.status();
        }
        for phone in [one, two] {
            for got in phone.take(lab) {
                phone.send(lab, &got.response(200, "t", &[]));
            }
        }
        sender.take_one(lab).status()
    };
    for (nth, gruu) in gruus.iter().enumerate() {
        assert_eq!(ask(&mut lab, gruu), 200, "the GRUU of REGISTER {nth}");
    }
    let fresh = register(&mut lab, &one, 1, "c", 1);
    let later = register(&mut lab, &two, 2, "b", 3);
    for (nth, gruu) in gruus.iter().enumerate() {
        assert_eq!(ask(&mut lab, gruu), 404, "another Call-ID ended that of REGISTER {nth}");
    }
    for gruu in [fresh, later] {
        assert_eq!(ask(&mut lab, &gruu), 200);
    }
    lab.finish();
}
