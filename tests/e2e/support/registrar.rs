//! A registrar behind the proxy (RFC 3327): the core takes a phone that registers by way of us.

use super::check::forwarded;
use super::phone::Phone;

/// The phone registers that Contact value, and the core, who gets the REGISTER next, accepts it. The
/// Path that it got.
#[track_caller]
pub fn enroll(phone: &mut Phone, contact: &str, core: &mut Phone) -> String {
    let draft = phone.register_draft(contact).with("Expires", "600");
    phone.send(&draft.build());
    let heard = core.request("REGISTER");
    forwarded(&draft.message(), &heard, core.transport, "sip:example.com");
    let path = heard.one("path").to_string();
    let ok = core.response(&heard, 200).with("Contact", format!("{contact};expires=600"));
    core.respond(&heard, &ok.with("Path", &path));
    phone.status(200);
    path
}
