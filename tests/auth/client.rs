//! A client with a password.

use crate::lab::digest::{Challenge, Response, Settings, with_digest};
use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, Lab, user_of};

/// Users whose password is `secret`.
pub fn users(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name}:secret\n")).collect()
}

/// A lab where these users have passwords.
pub fn lab_of(shards: u16, names: &[&str]) -> Lab {
    lab_with(shards, &Settings { users: &users(names), ..Settings::default() })
}

/// A lab with these settings.
pub fn lab_with(shards: u16, settings: &Settings<'_>) -> Lab {
    Lab::new(shards, with_digest(lab::config(), settings))
}

/// Two users of the shard.
pub fn two_of(owner: u16, shards: u16) -> (String, String) {
    (user_of(owner, shards, 0), user_of(owner, shards, 1))
}

/// A REGISTER for a user, without credentials.
pub fn register(phone: &Phone, user: &str, name: &str, cseq: u32) -> Draft {
    let aor = format!("sip:{user}@example.com");
    request(phone, "REGISTER", "sip:example.com", &format!("{name}r{cseq}"))
        .call_id(&format!("{name}@lab"))
        .from(&format!("<{aor}>;tag=f"))
        .to(&format!("<{aor}>"))
        .cseq(cseq)
        .line(&format!("Contact: <sip:{user}@df7jal23ls0d.invalid;transport=ws>"))
}

/// A request in a user's name.
pub fn of_user(phone: &Phone, user: &str, method: &str, uri: &str, name: &str) -> Draft {
    request(phone, method, uri, name).from(&format!("<sip:{user}@example.com>;tag=f{name}"))
}

/// What proves that a REGISTER is the user's.
pub fn authorization(challenge: &Challenge, user: &str) -> String {
    let response = Response::new(challenge, (user, "secret"), "REGISTER", "sip:example.com");
    format!("Authorization: {}", response.value())
}

/// What proves that another request is.
pub fn proxy_authorization(challenge: &Challenge, user: &str, method: &str, uri: &str) -> String {
    let response = Response::new(challenge, (user, "secret"), method, uri);
    format!("Proxy-Authorization: {}", response.value())
}

/// Registers as browsers' libraries do: REGISTER, 401, REGISTER, 200. Gives the challenge back.
pub fn log_in(lab: &mut Lab, phone: &Phone, user: &str) -> Challenge {
    let name = format!("login{}", lab.serial());
    phone.send(lab, &register(phone, user, &name, 1).text());
    let challenge = Challenge::last(&phone.take_status(lab, 401));
    let again = register(phone, user, &name, 2).line(&authorization(&challenge, user));
    phone.send(lab, &again.text());
    phone.take_status(lab, 200);
    challenge
}

/// Sends a request and gives back the one message that comes.
pub fn ask(lab: &mut Lab, phone: &Phone, draft: &Draft) -> Sip {
    phone.send(lab, &draft.text());
    phone.take_one(lab)
}

/// A server is told whose the phone is, which may not speak in anybody else's name.
pub fn speaks_for(lab: &mut Lab, phone: &Phone, core: &Phone, user: &str, other: &str) {
    let message = |name: &str| of_user(phone, name, "MESSAGE", "sip:900@example.com", name);
    phone.send(lab, &message(user).text());
    let got = core.take_one(lab);
    assert_eq!(got.header("P-Asserted-Identity"), format!("<sip:{user}@example.com>"));
    core.send(lab, &got.response(200, "c", &[]));
    phone.take_status(lab, 200);
    assert_eq!(ask(lab, phone, &message(other)).status(), 407);
}
