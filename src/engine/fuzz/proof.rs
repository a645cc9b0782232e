//! Peers that prove who they are (RFC 7616 §3.4), or try to: by MD5 alone, text by text, so that it
//! shares nothing with the code that judges it.

use md5::Md5;
use md5::digest::Digest;

use crate::base::choices::Choices;

use super::net::Net;
use super::settings::PASSWORDS;
use super::speech::Heard;

/// Answers a challenge: what was challenged is said again with a proof, most often by the same peer
/// in its own name.
pub(super) fn answer(net: &mut Net, choices: &mut Choices<'_>) {
    let Some((challenge, said)) = find(net, choices.byte()) else { return };
    let user = choices.below(8);
    let Some(text) = proven(&challenge, &said.text, user, net.next_proof()) else { return };
    let other = choices.below(8) == 1;
    match said.by {
        Ok(flow) => {
            let flow = if other { net.flow(choices.byte()).unwrap_or(flow) } else { flow };
            let bytes = net.framed(flow, &text, 0);
            net.say(flow, bytes);
        }
        Err(remote) => net.datagram(crate::base::id::ShardId(choices.byte().into()), remote, text),
    }
}

/// One of the challenges that were heard, the latest first, and the request that it was for.
fn find(net: &Net, number: u8) -> Option<(String, Heard)> {
    let is_challenge =
        |it: &&Heard| it.text.starts_with(b"SIP/2.0 40") && field(it, "nonce=").is_some();
    let all: Vec<&Heard> = net.heard().iter().rev().filter(is_challenge).collect();
    let heard = all.get(usize::from(number).checked_rem(all.len())?)?;
    let text = String::from_utf8_lossy(&heard.text).into_owned();
    let line = |text: &str, name: &str| {
        let found = text.split("\r\n").find(|line| line.starts_with(name));
        found.map(str::to_owned)
    };
    let (call_id, cseq) = (line(&text, "Call-ID:")?, line(&text, "CSeq:")?);
    let said = net.all_said().iter().rev().find(|it| {
        let said = String::from_utf8_lossy(&it.text);
        it.by == heard.by && said.contains(&call_id) && said.contains(&cseq)
    });
    Some((text, said?.clone()))
}

fn field(heard: &Heard, name: &str) -> Option<String> {
    value(&String::from_utf8_lossy(&heard.text), name)
}

fn value(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("{name}\""))?;
    rest.split('"').next().map(str::to_owned)
}

/// The request with a proof, as a new transaction. `user` below the number of users is that one,
/// as far as it knows its password; any other is whom From names.
fn proven(challenge: &str, request: &[u8], user: usize, number: u32) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(request);
    let (realm, nonce) = (value(challenge, "realm=")?, value(challenge, "nonce=")?);
    let mut start = text.split(' ');
    let (method, uri) = (start.next()?, start.next()?);
    let from = text.split("From: <sip:").nth(1)?.split('@').next()?;
    let (name, password) = match PASSWORDS.get(user) {
        Some((name, password)) => (*name, *password),
        None => {
            let known = PASSWORDS.iter().find(|(name, _)| *name == from);
            (from, known.map_or("guess", |(_, password)| password))
        }
    };
    let nc = format!("{:08x}", 1 + number % 4);
    let key = hash(&format!("{name}:{realm}:{password}"));
    let covered = hash(&format!("{method}:{uri}"));
    let response = hash(&format!("{key}:{nonce}:{nc}:c:auth:{covered}"));
    let header = if challenge.contains("WWW-Authenticate") { "" } else { "Proxy-" };
    let line = format!(
        "{header}Authorization: Digest username=\"{name}\", realm=\"{realm}\", nonce=\"{nonce}\", \
uri=\"{uri}\", response=\"{response}\", algorithm=MD5, cnonce=\"c\", qop=auth, nc={nc}\r\nFrom: "
    );
    let branch = format!("branch=z9hG4bKp{number}x");
    let text = text.replacen("branch=z9hG4bK", &branch, 1).replacen("From: ", &line, 1);
    let (head, rest) = text.split_once("CSeq: ")?;
    let (seq, rest) = rest.split_once(' ')?;
    let seq: u32 = seq.parse().ok()?;
    Some(format!("{head}CSeq: {} {rest}", seq.wrapping_add(1) % (1 << 31)).into_bytes())
}

fn hash(text: &str) -> String {
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::id::{ShardId, Transport};
    use crate::engine::fuzz::settings::REMOTES;
    use crate::engine::fuzz::speech;

    /// What the entry can do with passwords: a client proves who it is, and is let in.
    #[test]
    fn a_challenge_is_answered() {
        let mut net = Net::new(1, 8, 0);
        let flow = net.connect(ShardId(0), Transport::Tcp, REMOTES[0]);
        let mut none = Choices::new(b"");
        let text = speech::request(&mut none, Transport::Tcp, REMOTES[0], net.heard());
        assert!(text.starts_with(b"REGISTER "));
        let bytes = net.framed(flow, &text, 0);
        net.say(flow, bytes);
        answer(&mut net, &mut Choices::new(&[0, 7, 0]));
        assert_eq!(net.engines[0].counters().credentials_accepted, 1);
        net.pass(Duration::from_secs(1));
        net.end();
    }
}
