//! Whose name a request may bear, and what a proof is good for: the books' part of RFC 3261 §22,
//! RFC 3325 and RFC 7616. Nothing that somebody says in a name that it cannot prove goes on.

use std::collections::BTreeSet;

use crate::check::{Asked, Books, Peer};
use crate::checker::{Checker, Violation};
use crate::message::{Sip, inside};
use crate::world::End;

/// Who could prove what, and what was said to prove it.
#[derive(Default)]
pub struct Claims {
    /// By phone the one address of record that it may bear; empty where nobody has to prove it.
    provable: Vec<Option<String>>,
    /// Nonces and counts that the proxy has seen, and from whom.
    said: BTreeSet<(End, String, String)>,
    /// These are believed whatever they assert.
    servers: usize,
}

impl Claims {
    /// The first `servers` phones are servers behind the proxy.
    pub fn set(&mut self, provable: Vec<Option<String>>, servers: usize) {
        self.provable = provable;
        self.servers = servers;
    }

    /// Whether somebody knows no password.
    pub fn guesses(&self, sender: usize) -> bool {
        self.provable.get(sender).is_some_and(Option::is_none)
    }

    /// Whether the digest in a request was said before. Nobody but its client can write on a stream:
    /// there the same words are as good as before.
    pub fn is_said_before(&mut self, from: End, sip: &Sip) -> bool {
        let is_shared = matches!(from, End::Datagram(_));
        let is_digest = |value: &&str| is_shared && value.starts_with("Digest ");
        let Some(value) = credentials(sip).filter(is_digest) else { return false };
        let param = |name: &str| {
            let rest = value.split_once(name).map_or("", |(_, rest)| rest);
            rest.split([',', '"']).next().unwrap_or_default().to_string()
        };
        !self.said.insert((from, param(" nonce=\""), param(" nc=")))
    }

    /// Whether its sender may bear the name in From.
    pub fn is_own_name(&self, asked: &Asked) -> bool {
        let Some(own) = self.provable.get(asked.sender) else { return true };
        own.as_deref() == Some(inside(asked.sip.header("From")))
    }
}

fn credentials(sip: &Sip) -> Option<&str> {
    sip.find("Authorization").or_else(|| sip.find("Proxy-Authorization"))
}

impl Books {
    /// May a request go on in the names that it bears?
    pub fn judge_names(&self, asked: &Asked, sip: &Sip, to: Peer) -> Result<(), Violation> {
        let wrong = |why: &str| {
            let text = format!("{why}: {} of phone {} to {to:?}", sip.start(), asked.sender);
            Err(Violation { checker: Checker::Identity, text })
        };
        let is_free = matches!(asked.sip.method(), "ACK" | "CANCEL");
        if self.claims.provable.is_empty() || is_free {
            return Ok(());
        }
        let is_initial = asked.sip.tag("To").is_empty();
        if is_initial && !self.claims.is_own_name(asked) {
            return wrong("in a name that is not its own");
        }
        if is_initial && asked.replayed && !self.lenient {
            return wrong("with a proof that was said before");
        }
        if is_initial && self.lacks_token(asked) {
            let violation = wrong("without a token that is good");
            return violation.map_err(|it| Violation { checker: Checker::Bearer, ..it });
        }
        if credentials(sip).is_some() {
            return wrong("with the proof that was for us");
        }
        let own = self.claims.provable[asked.sender].as_deref();
        let is_server = asked.sender < self.claims.servers;
        let asserted = |value: &str| to.is_server && own == Some(inside(value));
        if !is_server && !sip.all("P-Asserted-Identity").all(asserted) {
            return wrong("with an identity that nobody proved");
        }
        Ok(())
    }

    /// May a REGISTER be granted?
    pub fn judge_grant(&self, asked: &Asked, status: u16) -> Result<(), Violation> {
        let is_granted = asked.sip.method() == "REGISTER" && (200..300).contains(&status);
        let is_right = self.claims.is_own_name(asked) && (!asked.replayed || self.lenient);
        if !is_granted || is_right || self.claims.provable.is_empty() || asked.forgotten {
            return Ok(());
        }
        let text = format!("{status} for a REGISTER of phone {}", asked.sender);
        Err(Violation { checker: Checker::Identity, text })
    }
}
