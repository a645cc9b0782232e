//! A phone's side of digest authentication with MD5, as browsers' libraries have it: the last
//! challenge counts (RFC 7616 §3.4).

use md5::digest::Digest as _;

use super::phone::Phone;
use super::sip::{Draft, Message};

/// The value of Authorization or Proxy-Authorization that answers a 401 or 407.
#[track_caller]
pub fn answer(refused: &Message, user: &str, password: &str, method: &str, uri: &str) -> String {
    let name = match refused.status() {
        401 => "www-authenticate",
        407 => "proxy-authenticate",
        _ => panic!("no challenge: {refused:?}"),
    };
    let challenge = refused.all(name).last().expect("a challenge");
    let param = |name: &str| {
        let (_, rest) = challenge.split_once(&format!("{name}=\"")).expect("a parameter");
        rest.split('"').next().expect("a value")
    };
    assert!(challenge.contains("algorithm=MD5"), "{challenge}");
    let (realm, nonce) = (param("realm"), param("nonce"));
    let ha1 = md5(&format!("{user}:{realm}:{password}"));
    let ha2 = md5(&format!("{method}:{uri}"));
    let response = md5(&format!("{ha1}:{nonce}:00000001:c0ffee:auth:{ha2}"));
    format!(
        "Digest algorithm=MD5, username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", \
         uri=\"{uri}\", response=\"{response}\", qop=auth, cnonce=\"c0ffee\", nc=00000001"
    )
}

/// Registers as a phone with a password does; returns the header value that it used.
#[track_caller]
pub fn log_in(phone: &mut Phone, password: &str) -> String {
    let contact = format!("<{}>", phone.contact);
    let (value, response) = try_log_in(phone, &contact, password);
    assert_eq!(response.status(), 200, "{response:?}");
    value
}

/// REGISTER of a Contact value, 401, REGISTER with credentials: the header value that it used, and
/// the answer.
#[track_caller]
pub fn try_log_in(phone: &mut Phone, contact: &str, password: &str) -> (String, Message) {
    let draft = phone.register_draft(contact);
    let refused = phone.ask(&draft);
    let value = answer(&refused, &phone.user, password, "REGISTER", "sip:example.com");
    let draft = phone.register_draft(contact).with("Authorization", &value);
    let response = phone.ask(&draft);
    (value, response)
}

/// The same request once more, with credentials for the challenge that it got.
#[track_caller]
pub fn again(phone: &Phone, draft: &Draft, refused: &Message, password: &str) -> Draft {
    let (method, uri) = (draft.message().method().to_owned(), draft.message().uri().to_owned());
    let value = answer(refused, &phone.user, password, &method, &uri);
    draft
        .clone()
        .set("Via", phone.via())
        .set("CSeq", format!("2 {method}"))
        .with("Proxy-Authorization", value)
}

fn md5(text: &str) -> String {
    md5::Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
