//! The registrar is behind us (RFC 3327, RFC 5626 §5.1): whom it accepts again is the same client, and
//! its calls with the other side, which is behind us as well, go on.

use std::time::Duration;

use sipring::base::config::{Config, Route, RouteTo};
use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

use crate::client::GRACE;
use crate::lab::draft::{Draft, request};
use crate::lab::loss::{ENDS, End, KNOWN, Known, STATES, State};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;
use crate::lab::{self, CORE, Lab, user_of};

/// Everything goes to the core, which registers and calls.
pub fn config() -> Config {
    let all = Route { user: None, domain: None, methods: Vec::new(), to: RouteTo::Upstream(0) };
    lab::config_with(|config| {
        config.routes = vec![all];
        config.registrar.grace = GRACE;
    })
}

/// A client of the core.
#[derive(Clone, Debug)]
pub struct Guest {
    pub phone: Phone,
    pub user: String,
    pub contact: String,
    pub params: String,
    /// The Path that the core got last.
    pub path: String,
    serial: u32,
    cseq: u32,
}

impl Guest {
    pub fn offline(lab: &mut Lab, shard: u16, user: &str, known: Known) -> Guest {
        let params = match known {
            Known::ByRegId => ";reg-id=1;+sip.instance=\"<urn:uuid:00000000-0000-0000-0000-1>\"",
            Known::ByContact => "",
        };
        Guest {
            phone: connect(lab, shard, Transport::Wss),
            user: user.into(),
            contact: format!("sip:{user}x@y.invalid;transport=ws"),
            params: params.into(),
            path: String::new(),
            serial: lab.serial(),
            cseq: 0,
        }
    }

    /// The same identity in another place.
    pub fn twin(&self, lab: &mut Lab, by: Transport) -> Guest {
        let phone = connect(lab, 0, by);
        Guest { phone, serial: lab.serial(), cseq: 0, ..self.clone() }
    }

    /// The next REGISTER.
    pub fn registration(&mut self, expires: u32) -> Draft {
        self.cseq += 1;
        let aor = format!("<sip:{}@example.com>", self.user);
        request(&self.phone, "REGISTER", "sip:example.com", &format!("g{}", self.serial))
            .branch(&self.phone, &format!("g{}x{}", self.serial, self.cseq))
            .cseq(self.cseq)
            .from(&format!("{aor};tag=r"))
            .to(&aor)
            .line(&self.listed(expires))
            .line("Supported: path, outbound")
    }

    /// Its Contact, as it registers it and the core lists it.
    pub fn listed(&self, expires: u32) -> String {
        format!("Contact: <{}>{};expires={expires}", self.contact, self.params)
    }

    /// Sends a REGISTER; what the core got of it.
    pub fn ask(&mut self, lab: &mut Lab, core: &Phone, expires: u32) -> Sip {
        let draft = self.registration(expires);
        self.phone.send(lab, &draft.text());
        let mut got = core.take(lab);
        got.retain(|it| it.method() == "REGISTER");
        assert_eq!(got.len(), 1, "{got:#?}");
        got.remove(0)
    }

    /// A REGISTER that the core accepts.
    pub fn register(&mut self, lab: &mut Lab, core: &Phone, expires: u32) {
        let got = self.ask(lab, core, expires);
        self.path = got.header("Path").to_owned();
        let listed = self.listed(expires);
        let lines: &[&str] = if expires > 0 { &[&listed] } else { &[] };
        core.send(lab, &got.response(200, "core", lines));
    }

    /// What came besides answers to REGISTER and 100.
    pub fn take(&self, lab: &mut Lab) -> Vec<Sip> {
        let mut got = self.phone.take(lab);
        got.retain(|it| it.status() != 100 && !it.header("CSeq").ends_with("REGISTER"));
        got
    }

    pub fn heard_nothing(&self, lab: &mut Lab) {
        let got = self.take(lab);
        assert!(got.is_empty(), "{got:#?}");
    }

    pub fn lose(&self, lab: &mut Lab, end: End) {
        match end {
            End::Fin => self.phone.leave(lab, CloseReason::Peer),
            End::Reset => self.phone.leave(lab, CloseReason::Reset),
            End::Silent => lab.wire(self.phone.flow.expect("a stream")).silent = true,
        }
    }

    /// It is back on another flow, and the core takes it; a silent flow is found out.
    pub fn come_back(&mut self, lab: &mut Lab, core: &Phone, shard: u16, end: End) {
        let old = self.phone.flow.expect("a stream");
        self.phone = connect(lab, shard, self.phone.transport);
        self.register(lab, core, 600);
        if end == End::Silent {
            assert_eq!(lab.closed(old), None);
            lab.pass(Duration::from_millis(1100));
            assert_eq!(lab.closed(old), Some(CloseReason::Pong));
        }
    }
}

fn connect(lab: &mut Lab, shard: u16, by: Transport) -> Phone {
    let remote = format!("203.0.113.5:{}", 40_000 + lab.serial());
    Phone::connect(lab, shard, by, &remote)
}

/// What the core heard, 100 left out.
pub fn heard(core: &Phone, lab: &mut Lab) -> Vec<Sip> {
    let mut got = core.take(lab);
    got.retain(|it| it.status() != 100);
    got
}

fn one(mut got: Vec<Sip>) -> Sip {
    assert_eq!(got.len(), 1, "{got:#?}");
    got.remove(0)
}

/// A call between a client and somebody behind the core.
pub struct Call {
    pub guest: Guest,
    pub core: Phone,
    is_caller: bool,
    invite: Sip,
    answer: Option<Sip>,
    cseq: u32,
}

const CORE_CONTACT: &str = "sip:far@198.51.100.7";

impl Call {
    /// A client that registers, INVITE and 180.
    pub fn ring(lab: &mut Lab, mut guest: Guest, core: Phone, is_caller: bool) -> Call {
        guest.register(lab, &core, 600);
        guest.take(lab);
        let contact = if is_caller { &guest.contact } else { CORE_CONTACT };
        let draft = match is_caller {
            true => request(&guest.phone, "INVITE", "sip:far@example.com", "call")
                .from(&format!("<sip:{}@example.com>;tag=fcall", guest.user)),
            false => request(&core, "INVITE", &guest.contact, "call")
                .route(std::slice::from_ref(&guest.path)),
        };
        let draft = draft.line(&format!("Contact: <{contact}>"));
        let (caller, callee) = if is_caller { (guest.phone, core) } else { (core, guest.phone) };
        caller.send(lab, &draft.text());
        let invite = callee.take_method(lab, "INVITE");
        let call = Call { guest, core, is_caller, invite, answer: None, cseq: 1 };
        call.say(lab, !is_caller, &call.response(180));
        assert_eq!(one(call.hear(lab, is_caller)).status(), 180);
        call
    }

    fn say(&self, lab: &mut Lab, by_guest: bool, text: &str) {
        let phone = if by_guest { &self.guest.phone } else { &self.core };
        phone.send(lab, text);
    }

    fn hear(&self, lab: &mut Lab, by_guest: bool) -> Vec<Sip> {
        if by_guest { self.guest.take(lab) } else { heard(&self.core, lab) }
    }

    fn contact(&self, of_guest: bool) -> &str {
        if of_guest { &self.guest.contact } else { CORE_CONTACT }
    }

    fn response(&self, status: u16) -> String {
        let contact = format!("Contact: <{}>", self.contact(!self.is_caller));
        self.invite.response(status, "callee", &[&contact])
    }

    pub fn say_200(&self, lab: &mut Lab) {
        self.say(lab, !self.is_caller, &self.response(200));
    }

    /// The caller has the 200; its ACK arrives.
    pub fn acknowledge(&mut self, lab: &mut Lab) {
        let answer = one(self.hear(lab, self.is_caller));
        assert_eq!(answer.status(), 200, "{answer:#?}");
        self.answer = Some(answer);
        let ack = self.next(lab, "ACK", self.is_caller).cseq(1);
        self.say(lab, self.is_caller, &ack.text());
        assert_eq!(one(self.hear(lab, !self.is_caller)).method(), "ACK");
    }

    /// The next request of the client, or of the other side.
    pub fn next(&mut self, lab: &mut Lab, method: &str, by_guest: bool) -> Draft {
        self.cseq += 1;
        let phone = if by_guest { self.guest.phone } else { self.core };
        let draft = request(&phone, method, self.contact(!by_guest), "call")
            .branch(&phone, &format!("n{}", lab.serial()))
            .cseq(self.cseq);
        let (near, far) = ("<sip:a@example.com>;tag=fcall", "<sip:b@example.com>;tag=callee");
        if by_guest != self.is_caller {
            return draft.from(far).to(near).route(&self.invite.record_route());
        }
        let answer = self.answer.as_ref().expect("it was answered");
        let mut route = answer.record_route();
        route.reverse();
        draft.from(near).to(far).route(&route)
    }

    /// One request and its 200, once each; a re-INVITE with its ACK.
    pub fn exchange(&mut self, lab: &mut Lab, method: &str, by_guest: bool) {
        let draft = self.next(lab, method, by_guest);
        self.say(lab, by_guest, &draft.text());
        self.finish(lab, draft, method, by_guest);
    }

    /// The rest of an exchange whose request has been sent.
    pub fn finish(&mut self, lab: &mut Lab, draft: Draft, method: &str, by_guest: bool) {
        let got = one(self.hear(lab, !by_guest));
        assert_eq!(got.method(), method, "{got:#?}");
        let contact = format!("Contact: <{}>", self.contact(!by_guest));
        self.say(lab, !by_guest, &got.response(200, "", &[&contact]));
        assert_eq!(one(self.hear(lab, by_guest)).status(), 200);
        if method == "INVITE" {
            let phone = if by_guest { self.guest.phone } else { self.core };
            let ack = draft.method("ACK").branch(&phone, &format!("k{}", lab.serial()));
            self.say(lab, by_guest, &ack.text());
            assert_eq!(one(self.hear(lab, !by_guest)).method(), "ACK");
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    is_caller: bool,
    state: State,
    end: End,
    known: Known,
    /// Shards, and those of the lost flow, the next one, the owner and the core's datagrams.
    shards: u16,
    places: [u16; 4],
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    let places = [(1, [0; 4]), (2, [0, 1, 0, 1]), (2, [0, 0, 1, 0]), (3, [0, 1, 2, 1])];
    for is_caller in [true, false] {
        for state in STATES {
            for end in ENDS {
                for known in KNOWN {
                    for (shards, places) in places {
                        cells.push(Cell { is_caller, state, end, known, shards, places });
                    }
                }
            }
        }
    }
    cells
}

fn start(cell: Cell) -> (Lab, Call) {
    let [from, _, owner, core] = cell.places;
    let mut lab = Lab::new(cell.shards, config());
    let core = Phone::connect(&mut lab, core, Transport::Udp, CORE);
    let user = user_of(owner, cell.shards, 0);
    let guest = Guest::offline(&mut lab, from, &user, cell.known);
    let mut call = Call::ring(&mut lab, guest, core, cell.is_caller);
    if cell.state != State::Ringing {
        call.say_200(&mut lab);
        call.acknowledge(&mut lab);
    }
    if cell.state == State::OnHold {
        call.exchange(&mut lab, "INVITE", true);
    }
    (lab, call)
}

fn talk_on(lab: &mut Lab, call: &mut Call) {
    for method in ["INVITE", "INFO", "MESSAGE"] {
        call.exchange(lab, method, false);
        call.exchange(lab, method, true);
    }
    call.exchange(lab, "BYE", false);
    lab.finish();
    call.guest.heard_nothing(lab);
    assert!(heard(&call.core, lab).is_empty());
}

/// A caller that is back while it rings is asked whether it knows (see the engine's `recall`).
fn say_yes(lab: &mut Lab, call: &Call) {
    let got = call.guest.take(lab);
    let what: Vec<_> = got.iter().map(|it| (it.status(), it.method())).collect();
    assert_eq!(what, [(180, ""), (0, "INFO")], "{got:#?}");
    call.guest.phone.send(lab, &got[1].response(200, "", &[]));
}

#[test]
fn a_call_through_the_core_goes_on_after_the_reconnect() {
    for cell in cells() {
        println!("{cell:?}");
        let (mut lab, mut call) = start(cell);
        call.guest.lose(&mut lab, cell.end);
        lab.pass(Duration::from_secs(2));
        let core = call.core;
        call.guest.come_back(&mut lab, &core, cell.places[1], cell.end);
        if cell.state == State::Ringing {
            if cell.is_caller {
                say_yes(&mut lab, &call);
            }
            call.say_200(&mut lab);
            call.acknowledge(&mut lab);
        }
        talk_on(&mut lab, &mut call);
    }
}

/// What the core sends meanwhile waits until it has taken the client back; then it comes once, and
/// after the answer to the REGISTER.
#[test]
fn what_the_core_sends_meanwhile_arrives_on_the_next_flow() {
    for cell in cells().into_iter().filter(|it| it.state != State::Ringing) {
        for method in ["INVITE", "INFO", "BYE"] {
            println!("{cell:?} {method}");
            let (mut lab, mut call) = start(cell);
            call.guest.lose(&mut lab, cell.end);
            let draft = call.next(&mut lab, method, false);
            call.core.send(&mut lab, &draft.text());
            lab.pass(Duration::from_secs(2));
            let core = call.core;
            call.guest.come_back(&mut lab, &core, cell.places[1], cell.end);
            let got = call.guest.phone.peek(&mut lab);
            assert_eq!(got[0].header("CSeq"), "2 REGISTER", "{got:#?}");
            call.finish(&mut lab, draft, method, false);
            if method != "BYE" {
                talk_on(&mut lab, &mut call);
            }
        }
    }
}

/// A caller's answer comes while it is away.
#[test]
fn an_answer_waits_for_a_caller_of_the_core() {
    for cell in cells() {
        if !cell.is_caller || cell.state != State::Ringing || cell.end == End::Silent {
            continue;
        }
        println!("{cell:?}");
        let (mut lab, mut call) = start(cell);
        call.guest.lose(&mut lab, cell.end);
        call.say_200(&mut lab);
        lab.pass(Duration::from_secs(2));
        let core = call.core;
        call.guest.come_back(&mut lab, &core, cell.places[1], cell.end);
        call.acknowledge(&mut lab);
        talk_on(&mut lab, &mut call);
    }
}
