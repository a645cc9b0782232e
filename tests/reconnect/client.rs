//! A client with a password that comes back.

use std::time::Duration;

use sipring::base::event::CloseReason;
use sipring::base::id::{FlowId, Transport};

use crate::lab::digest::{Challenge, Response, Settings, with_digest};
use crate::lab::draft::{Draft, request};
use crate::lab::loss::{End, Known};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, Lab, user_of};

/// How long clients may take to come back in these tests.
pub const GRACE: Duration = Duration::from_secs(10);

/// A configuration where these users have the password `secret`.
pub fn config(users: &[&str]) -> sipring::base::config::Config {
    let users: String = users.iter().map(|name| format!("{name}:secret\n")).collect();
    let settings = Settings { users: &users, ..Settings::default() };
    let mut config = with_digest(lab::config(), &settings);
    config.registrar.grace = GRACE;
    config
}

pub fn lab_of(shards: u16, users: &[&str]) -> Lab {
    Lab::new(shards, config(users))
}

/// One client.
#[derive(Clone, Debug)]
pub struct Client {
    pub phone: Phone,
    pub user: String,
    pub contact: String,
    pub params: String,
    pub password: String,
    call_id: String,
    cseq: u32,
}

impl Client {
    /// A client that connects to the shard and registers.
    pub fn new(lab: &mut Lab, shard: u16, user: &str, known: Known) -> Client {
        Client::over(lab, shard, user, known, Transport::Wss)
    }

    pub fn over(lab: &mut Lab, shard: u16, user: &str, known: Known, by: Transport) -> Client {
        let mut client = Client::offline(lab, shard, user, known, by);
        client.log_in(lab);
        client
    }

    /// The same before it registers.
    pub fn offline(lab: &mut Lab, shard: u16, user: &str, known: Known, by: Transport) -> Client {
        let remote = address(lab);
        let phone = Phone::connect(lab, shard, by, &remote);
        let params = match known {
            Known::ByRegId => {
                format!(";reg-id=1;+sip.instance=\"<urn:uuid:00000000-0000-0000-0000-{user}>\"")
            }
            Known::ByContact => String::new(),
        };
        Client {
            phone,
            user: user.into(),
            contact: format!("sip:{user}x@y.invalid;transport=ws"),
            params,
            password: "secret".into(),
            call_id: format!("reg{}", lab.serial()),
            cseq: 0,
        }
    }

    pub fn flow(&self) -> FlowId {
        self.phone.flow.expect("a connection")
    }

    /// One REGISTER; its answer, which stays on the wire as all that came with it.
    fn register(&mut self, lab: &mut Lab, proof: Option<&str>, expires: u32) -> Sip {
        let draft = self.registration(lab, proof, expires);
        self.phone.send(lab, &draft.text());
        let cseq = format!("{} REGISTER", self.cseq);
        let mut all = self.phone.peek(lab).into_iter();
        all.find(|it| it.header("CSeq") == cseq).expect("an answer to the REGISTER")
    }

    fn registration(&mut self, lab: &mut Lab, proof: Option<&str>, expires: u32) -> Draft {
        self.cseq += 1;
        let aor = format!("<sip:{}@example.com>", self.user);
        let contact = format!("Contact: <{}>{};expires={expires}", self.contact, self.params);
        let name = format!("r{}", lab.serial());
        let mut draft = request(&self.phone, "REGISTER", "sip:example.com", &name)
            .call_id(&self.call_id)
            .from(&format!("{aor};tag=f"))
            .to(&aor)
            .cseq(self.cseq)
            .line(&contact)
            .line("Supported: path, outbound");
        if let Some(proof) = proof {
            draft = draft.line(proof);
        }
        draft
    }

    /// REGISTER, 401, REGISTER; gives back the last answer.
    pub fn try_log_in(&mut self, lab: &mut Lab) -> Sip {
        self.log_in_for(lab, 600)
    }

    fn log_in_for(&mut self, lab: &mut Lab, expires: u32) -> Sip {
        let first = self.register(lab, None, expires);
        if first.status() != 401 {
            return first;
        }
        let proof = self.authorization(&first);
        self.register(lab, Some(&proof), expires)
    }

    fn authorization(&self, refused: &Sip) -> String {
        let challenge = Challenge::last(refused);
        let login = (self.user.as_str(), self.password.as_str());
        let proof = Response::new(&challenge, login, "REGISTER", "sip:example.com").value();
        format!("Authorization: {proof}")
    }

    /// The REGISTER that follows a challenge, to be sent later.
    pub fn prove(&mut self, lab: &mut Lab) -> Draft {
        let refused = self.register(lab, None, 600);
        assert_eq!(refused.status(), 401, "{refused:#?}");
        let proof = self.authorization(&refused);
        self.registration(lab, Some(&proof), 600)
    }

    /// Unregisters.
    pub fn leave(&mut self, lab: &mut Lab) {
        let answer = self.log_in_for(lab, 0);
        assert_eq!(answer.status(), 200, "{answer:#?}");
    }

    pub fn log_in(&mut self, lab: &mut Lab) {
        let answer = self.try_log_in(lab);
        assert_eq!(answer.status(), 200, "{answer:#?}");
    }

    /// What came besides answers to REGISTER, and besides a 100 that tells the sender of another
    /// request than INVITE that it is being looked after (RFC 4320 §4.1).
    pub fn take(&self, lab: &mut Lab) -> Vec<Sip> {
        let is_news = |it: &Sip| {
            let cseq = it.header("CSeq");
            !cseq.ends_with("REGISTER") && (cseq.ends_with("INVITE") || it.status() != 100)
        };
        self.phone.take(lab).into_iter().filter(is_news).collect()
    }

    /// The same identity in another place: what it registers is its own.
    pub fn twin(&self, lab: &mut Lab) -> Client {
        let call_id = format!("reg{}", lab.serial());
        Client { call_id, cseq: 0, ..self.clone() }
    }

    pub fn take_one(&self, lab: &mut Lab) -> Sip {
        let mut all = self.take(lab);
        assert_eq!(all.len(), 1, "one message for {self:?}: {all:#?}");
        all.remove(0)
    }

    pub fn take_method(&self, lab: &mut Lab, method: &str) -> Sip {
        let got = self.take_one(lab);
        assert_eq!(got.method(), method, "{got:#?}");
        got
    }

    pub fn take_status(&self, lab: &mut Lab, status: u16) -> Sip {
        let got = self.take_one(lab);
        assert_eq!(got.status(), status, "{got:#?}");
        got
    }

    pub fn heard_nothing(&self, lab: &mut Lab) {
        let got = self.take(lab);
        assert!(got.is_empty(), "{self:?}: {got:#?}");
    }

    pub fn send(&self, lab: &mut Lab, text: &str) {
        self.phone.send(lab, text);
    }

    /// Its flow ends.
    pub fn lose(&self, lab: &mut Lab, end: End) {
        match end {
            End::Fin => self.phone.leave(lab, CloseReason::Peer),
            End::Reset => self.phone.leave(lab, CloseReason::Reset),
            End::Silent => lab.wire(self.flow()).silent = true,
        }
    }

    /// It is back on another flow and registers; a silent flow is found out.
    pub fn come_back(&mut self, lab: &mut Lab, shard: u16, end: End) {
        let old = self.flow();
        self.connect(lab, shard, self.phone.transport);
        self.log_in(lab);
        if end == End::Silent {
            assert_eq!(lab.closed(old), None);
            lab.pass(Duration::from_millis(1100));
            assert_eq!(lab.closed(old), Some(CloseReason::Pong));
        }
    }

    /// Another connection, not registered yet.
    pub fn connect(&mut self, lab: &mut Lab, shard: u16, by: Transport) {
        let remote = address(lab);
        self.phone = Phone::connect(lab, shard, by, &remote);
    }
}

fn address(lab: &mut Lab) -> String {
    format!("203.0.113.5:{}", 40_000 + lab.serial())
}

/// A request outside a dialog.
pub fn of_user(sender: &Client, method: &str, user: &str, name: &str) -> Draft {
    request(&sender.phone, method, &format!("sip:{user}@example.com"), name)
        .from(&format!("<sip:{}@example.com>;tag=f{name}", sender.user))
}

/// Users of all shards in turn.
pub fn users_of<const N: usize>(shards: u16) -> [String; N] {
    std::array::from_fn(|n| user_of(n as u16 % shards, shards, n))
}

/// The first two of these users, on the first and on the last shard.
pub fn pair(lab: &mut Lab, users: &[String], known: Known) -> [Client; 2] {
    let last = lab.shards() - 1;
    [(0, &users[0]), (last, &users[1])].map(|(shard, user)| {
        let client = Client::new(lab, shard, user, known);
        client.take(lab);
        client
    })
}

/// A lab with them.
pub fn two(shards: u16, known: Known) -> (Lab, Client, Client) {
    let users: [String; 2] = users_of(shards);
    let mut lab = lab_of(shards, &[&users[0], &users[1]]);
    let [caller, callee] = pair(&mut lab, &users, known);
    (lab, caller, callee)
}
