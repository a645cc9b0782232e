//! What may differ between a message that came in and the one that goes out: Request-URI, Via,
//! Max-Forwards, Max-Breadth, Route, Record-Route, Path, Content-Length, identities that their
//! sender may not assert, and what answered a challenge of the proxy. All else is equal byte for
//! byte; of a response all but its Vias.

use crate::checker::{Checker, Violation};
use crate::message::{Sip, value_of};

const IN_REQUESTS: [&str; 11] = [
    "Via",
    "Max-Forwards",
    "Max-Breadth",
    "Route",
    "Record-Route",
    "Path",
    "Content-Length",
    "P-Asserted-Identity",
    "P-Preferred-Identity",
    "Authorization",
    "Proxy-Authorization",
];
const IN_RESPONSES: [&str; 4] =
    ["Via", "Content-Length", "P-Asserted-Identity", "P-Preferred-Identity"];

/// A forwarded request beside what its sender wrote.
pub fn compare_request(asked: &Sip, out: &Sip) -> Result<(), Violation> {
    compare_lines(asked, out, &IN_REQUESTS)?;
    if asked.method() != out.method() || !out.start().ends_with(" SIP/2.0") {
        return Err(edits(asked.start(), out.start()));
    }
    let hops = |sip: &Sip| sip.header("Max-Forwards").parse::<u32>().unwrap_or(71);
    if hops(out) + 1 != hops(asked) {
        return Err(edits(asked.header("Max-Forwards"), out.header("Max-Forwards")));
    }
    let (theirs, ours): (Vec<&str>, Vec<&str>) =
        (asked.all("Via").collect(), out.all("Via").collect());
    if ours.len() != theirs.len() + 1 {
        return Err(vias(&theirs, &ours));
    }
    same_vias(&theirs, &ours[1..])
}

/// A forwarded response beside what was answered.
pub fn compare_response(answer: &Sip, out: &Sip) -> Result<(), Violation> {
    if answer.start() != out.start() {
        return Err(edits(answer.start(), out.start()));
    }
    compare_lines(answer, out, &IN_RESPONSES)
}

/// A response has exactly the Vias of its request's sender, in order.
pub fn compare_vias(asked: &Sip, out: &Sip) -> Result<(), Violation> {
    let (theirs, ours): (Vec<&str>, Vec<&str>) =
        (asked.all("Via").collect(), out.all("Via").collect());
    same_vias(&theirs, &ours)
}

fn compare_lines(from: &Sip, out: &Sip, declared: &[&str]) -> Result<(), Violation> {
    let is_kept = |line: &&str| !declared.iter().any(|name| value_of(line, name).is_some());
    let (mut was, mut is) = (from.lines().filter(is_kept), out.lines().filter(is_kept));
    loop {
        match (was.next(), is.next()) {
            (None, None) => break,
            (was, is) if was == is => {}
            (was, is) => return Err(edits(was.unwrap_or_default(), is.unwrap_or_default())),
        }
    }
    let lengths: Vec<&str> = out.all("Content-Length").collect();
    let is_true = |length: &&str| length.parse() == Ok(out.body().len());
    if lengths.len() > 1 || !lengths.iter().all(is_true) {
        return Err(edits("Content-Length", &lengths.join(" and ")));
    }
    if from.body() != out.body() {
        let text = |sip: &Sip| String::from_utf8_lossy(sip.body()).into_owned();
        return Err(edits(&text(from), &text(out)));
    }
    Ok(())
}

/// The topmost may tell where the request came from (RFC 3261 §18.2.1, RFC 3581 §4).
fn same_vias(theirs: &[&str], ours: &[&str]) -> Result<(), Violation> {
    let plain = |via: &str| -> String {
        let is_told = |it: &&str| !it.starts_with("received=") && !it.starts_with("rport");
        via.split(';').filter(is_told).collect::<Vec<_>>().join(";")
    };
    let same = theirs.len() == ours.len()
        && theirs.iter().zip(ours).all(|(theirs, ours)| plain(theirs) == plain(ours));
    if same { Ok(()) } else { Err(vias(theirs, ours)) }
}

fn edits(was: &str, is: &str) -> Violation {
    Violation { checker: Checker::Edits, text: format!("{was:?} became {is:?}") }
}

fn vias(theirs: &[&str], ours: &[&str]) -> Violation {
    Violation { checker: Checker::Vias, text: format!("{theirs:?} became {ours:?}") }
}
