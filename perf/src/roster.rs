//! The users of a run: which end is whose, who is registered, and the REGISTER of each (RFC 3261
//! §10.2, RFC 5626 §4.2), shaped as JsSIP shapes it, with digest where the server wants it (RFC
//! 2617 with MD5, which is what browsers' libraries know).

use std::fmt::Write;
use std::ops::Range;

use anyhow::{Context, Result, bail};
use md5::{Digest, Md5};

use crate::flights::first_serial;
use crate::network::Network;
use crate::sip::{self, Head};
use crate::template::{Template, Values};
use crate::transport::Transport;

/// Expiry that is asked for, in seconds: longer than any run.
const EXPIRES: u32 = 7200;
/// The first sequence number; all have seven digits.
const CSEQ_FIRST: u32 = 1_000_000;
/// Numbers of users who are not browsers start here.
pub const SERVERS_FIRST: u32 = 9_000_000;
/// What ends a message without body.
const NO_BODY: &str = "Content-Length: 0\r\n\r\n";

/// How a user stands with the registrar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its end is closed or just opening.
    Away,
    /// It waits for the answer.
    Registering,
    /// It is registered, or never will be, because it is a server that others route to.
    Ready,
}

struct User {
    standing: Standing,
    cseq: u32,
    /// Whether its latest REGISTER has credentials.
    has_answered: bool,
    /// What it answers with unasked, where nonces are kept.
    kept: Option<Credentials>,
}

/// Names and secrets that all users have in common.
#[derive(Clone, Debug)]
pub struct Realm {
    /// Domain of the addresses of record.
    pub domain: String,
    /// Everybody's password.
    pub password: Option<String>,
}

/// All users; the position of each is the name of its end.
pub struct Roster {
    users: Vec<User>,
    realm: Realm,
    web: [Template; 2],
    ready: usize,
    next_numbers: [u32; 2],
    keeps_nonces: bool,
    /// Names this run in Call-IDs and branches.
    run: u64,
    text: Vec<u8>,
}

impl Roster {
    /// Without users. `first` is the number of the first browser.
    pub fn new(realm: Realm, first: u32) -> Roster {
        let web = [Transport::Ws, Transport::Wss]
            .map(|transport| register(&realm.domain, transport, "u{from}.invalid", EXPIRES));
        Roster {
            users: Vec::new(),
            realm,
            web,
            ready: 0,
            next_numbers: [first, SERVERS_FIRST + first],
            keeps_nonces: false,
            run: first_serial(),
            text: Vec::new(),
        }
    }

    /// Adds users with a closed end each.
    pub fn add(
        &mut self,
        network: &mut Network,
        transport: Transport,
        count: usize,
    ) -> Range<usize> {
        let start = self.users.len();
        let next = &mut self.next_numbers[usize::from(!transport.is_web())];
        for _ in 0..count {
            network.add(*next, transport);
            *next += 1;
            self.users.push(User {
                standing: Standing::Away,
                cseq: CSEQ_FIRST,
                has_answered: false,
                kept: None,
            });
        }
        start..self.users.len()
    }

    /// Lets users answer with the nonce of their first challenge from then on, counting its uses
    /// (RFC 2617 §3.2.2), so that the server need not ask again.
    pub fn keep_nonces(&mut self) {
        self.keeps_nonces = true;
    }

    /// Whether a user has a nonce to answer with.
    pub fn has_nonce(&self, end: usize) -> bool {
        self.users[end].kept.is_some()
    }

    /// Number of users who are registered or need not be.
    pub fn ready_count(&self) -> usize {
        self.ready
    }

    /// How a user stands.
    pub fn standing(&self, end: usize) -> Standing {
        self.users[end].standing
    }

    /// Notes how a user stands.
    pub fn set_standing(&mut self, end: usize, standing: Standing) {
        let user = &mut self.users[end];
        self.ready -= usize::from(user.standing == Standing::Ready);
        user.standing = standing;
        self.ready += usize::from(user.standing == Standing::Ready);
    }

    /// Sends the user's REGISTER.
    pub fn register(&mut self, network: &mut Network, end: usize) -> Result<()> {
        self.send_register(network, end, None)?;
        self.set_standing(end, Standing::Registering);
        Ok(())
    }

    /// The sequence number of the user's latest REGISTER.
    pub fn cseq(&self, end: usize) -> u32 {
        self.users[end].cseq
    }

    /// Sends a REGISTER that ends the binding of a user without connection, which would outlive
    /// the run.
    pub fn unregister(&mut self, network: &mut Network, end: usize) -> Result<()> {
        let host = network.local_address(end)?.to_string();
        let mut text = register(&self.realm.domain, network.transport(end), &host, 0);
        let values = self.next_values(network, end);
        network.send(end, text.fill(&values));
        self.set_standing(end, Standing::Away);
        Ok(())
    }

    fn next_values(&mut self, network: &Network, end: usize) -> Values {
        let user = &mut self.users[end];
        user.cseq += 1;
        Values { from: network.number(end), cseq: user.cseq, id: self.run, to: 0 }
    }

    /// Sends a REGISTER, in answer to a challenge when there is one, or with a nonce that was kept.
    pub fn send_register(
        &mut self,
        network: &mut Network,
        end: usize,
        challenge: Option<&[u8]>,
    ) -> Result<()> {
        let values = self.next_values(network, end);
        let line = self.authorization(end, values.from, challenge)?;
        self.users[end].has_answered = line.is_some();
        let transport = network.transport(end);
        let mut own;
        let template = match transport {
            Transport::Ws => &mut self.web[0],
            Transport::Wss => &mut self.web[1],
            _ => {
                let host = network.local_address(end)?.to_string();
                own = register(&self.realm.domain, transport, &host, EXPIRES);
                &mut own
            }
        };
        let text = template.fill(&values);
        let Some(line) = line else {
            network.send(end, text);
            return Ok(());
        };
        self.text.clear();
        self.text.extend_from_slice(&text[..text.len() - NO_BODY.len()]);
        self.text.extend_from_slice(line.as_bytes());
        self.text.extend_from_slice(NO_BODY.as_bytes());
        network.send(end, &self.text);
        Ok(())
    }

    fn authorization(
        &mut self,
        end: usize,
        number: u32,
        challenge: Option<&[u8]>,
    ) -> Result<Option<String>> {
        let user = &mut self.users[end];
        let Some(challenge) = challenge else {
            return Ok(user.kept.as_mut().map(Credentials::answer));
        };
        let mut credentials = self.realm.credentials(number, challenge)?;
        let line = credentials.answer();
        if self.keeps_nonces {
            user.kept = Some(credentials);
        }
        Ok(Some(line))
    }

    /// Takes the answer to a first REGISTER: true when the user is registered. A refusal is an
    /// error.
    pub fn on_response(
        &mut self,
        network: &mut Network,
        end: usize,
        head: &Head<'_>,
    ) -> Result<bool> {
        match head.status {
            100..200 => {}
            200 => self.set_standing(end, Standing::Ready),
            401 if !self.users[end].has_answered => {
                self.send_register(network, end, Some(head.challenge))?
            }
            _ => bail!("REGISTER: {}", String::from_utf8_lossy(head.start)),
        }
        Ok(head.status == 200)
    }
}

impl Realm {
    /// What a user answers a challenge with (RFC 2617 §3.2.2).
    fn credentials(&self, number: u32, challenge: &[u8]) -> Result<Credentials> {
        let password = self.password.as_ref().context("the server wants a password")?;
        let value = |name| {
            let value = sip::parameter(challenge, name).with_context(|| format!("no {name}"))?;
            Ok::<_, anyhow::Error>(str::from_utf8(value)?.to_owned())
        };
        let (realm, nonce) = (value("realm")?, value("nonce")?);
        let algorithm = value("algorithm").unwrap_or_else(|_| "MD5".to_owned());
        if !algorithm.eq_ignore_ascii_case("MD5") {
            bail!("the server's last challenge is {algorithm}");
        }
        let user = format!("u{number:07}");
        let secret = digest(&[&user, &realm, password]);
        let uri = format!("sip:{}", self.domain);
        Ok(Credentials { user, realm, nonce, secret, uri, uses: 0 })
    }
}

/// What a user proves its password with.
struct Credentials {
    user: String,
    realm: String,
    nonce: String,
    /// Digest of user, realm and password.
    secret: String,
    uri: String,
    /// Requests that had the nonce.
    uses: u32,
}

impl Credentials {
    /// The Authorization line of the next request, with `qop=auth`.
    fn answer(&mut self) -> String {
        const CNONCE: &str = "6c6f6164";
        self.uses += 1;
        let Credentials { user, realm, nonce, secret, uri, uses } = self;
        let count = format!("{uses:08x}");
        let request = digest(&["REGISTER", uri]);
        let response = digest(&[secret, nonce, &count, CNONCE, "auth", &request]);
        format!(
            "Authorization: Digest algorithm=MD5, username=\"{user}\", realm=\"{realm}\", \
             nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", qop=auth, \
             cnonce=\"{CNONCE}\", nc={count}\r\n"
        )
    }
}

/// MD5 of the parts with colons between them, in hexadecimal digits.
fn digest(parts: &[&str]) -> String {
    let mut out = String::with_capacity(32);
    for byte in Md5::digest(parts.join(":").as_bytes()) {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

fn register(domain: &str, transport: Transport, host: &str, expires: u32) -> Template {
    let (token, parameter) = (transport.token(), transport.parameter());
    // A client with a connection asks for outbound, one without is reached at its address.
    let (outbound, supported) = match transport.is_datagram() {
        true => ("", ""),
        false => (
            ";+sip.ice;reg-id=1;\
             +sip.instance=\"<urn:uuid:8f4e7c1a-52d0-4b6e-9a3c-00000{from}>\"",
            ",gruu,outbound",
        ),
    };
    Template::new(&format!(
        "REGISTER sip:{domain} SIP/2.0\r\n\
         Via: SIP/2.0/{token} u{{from}}.invalid;branch=z9hG4bKr{{from}}{{cseq}}{{id}};rport\r\n\
         Max-Forwards: 69\r\n\
         To: <sip:u{{from}}@{domain}>\r\n\
         From: <sip:u{{from}}@{domain}>;tag=r{{from}}\r\n\
         Call-ID: r{{from}}{{id}}\r\n\
         CSeq: {{cseq}} REGISTER\r\n\
         Contact: <sip:u{{from}}@{host};transport={parameter}>{outbound};expires={expires}\r\n\
         Expires: {expires}\r\n\
         Allow: INVITE,ACK,CANCEL,BYE,UPDATE,MESSAGE,OPTIONS,REFER,INFO,NOTIFY,SUBSCRIBE\r\n\
         Supported: path{supported}\r\n\
         User-Agent: sipring-perf\r\n\
         {NO_BODY}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_register_is_complete_and_its_own() {
        let mut template = register("example.com", Transport::Wss, "u{from}.invalid", EXPIRES);
        let mut seen = HashSet::new();
        for from in 0..1000 {
            let values = Values { from, cseq: CSEQ_FIRST, ..Values::default() };
            let text = String::from_utf8(template.fill(&values).to_vec()).unwrap();
            let head = Head::read(text.as_bytes()).unwrap();
            assert_eq!(head.to, format!("<sip:u{from:07}@example.com>").as_bytes());
            assert_eq!((head.method(), head.vias, head.body), (&b"REGISTER"[..], 1, &b""[..]));
            for name in ["Call-ID: ", "Contact: ", "Via: ", "From: "] {
                let line = text.lines().find(|line| line.starts_with(name)).unwrap();
                assert!(seen.insert(line.to_owned()), "{line}");
            }
        }
    }

    /// The example of RFC 2617 §3.5 has another method; its parts are tried one by one.
    #[test]
    fn a_challenge_is_answered_as_the_rfc_says() {
        let secret = digest(&["Mufasa", "testrealm@host.com", "Circle Of Life"]);
        assert_eq!(secret, "939e7578ed9e3c518a452acee763bce9");
        let nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093";
        let request = digest(&["GET", "/dir/index.html"]);
        let response = digest(&[&secret, nonce, "00000001", "0a4f113b", "auth", &request]);
        assert_eq!(response, "6629fae49393a05397450978507c4ef1");
        let realm = Realm { domain: "example.com".into(), password: Some("secret".into()) };
        let mut kept = realm.credentials(7, br#"Digest realm="r", nonce="n", qop="auth""#).unwrap();
        let (line, next) = (kept.answer(), kept.answer());
        assert!(
            line.contains(r#"username="u0000007", realm="r", nonce="n", uri="sip:example.com""#)
        );
        assert!(line.contains("nc=00000001") && next.contains("nc=00000002"));
        let proof = |line: &str| line.split("response=").nth(1).map(|rest| rest[..34].to_owned());
        assert_ne!(proof(&line), proof(&next));
        let other = br#"Digest realm="r", nonce="n", algorithm=SHA-256"#;
        assert!(realm.credentials(7, other).is_err());
        let nobody = Realm { password: None, ..realm };
        assert!(nobody.credentials(7, br#"Digest realm="r", nonce="n""#).is_err());
    }
}
