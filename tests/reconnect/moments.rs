//! The registrar behind us is in the call and ends it by itself while its client is between two
//! flows: whatever the moment, and in whatever order shards hear of each other, its BYE arrives on
//! the next flow, once, and it hears the answer, once.

use std::time::Duration;

use sipring::base::id::{FlowId, Transport};
use sipring::base::rng::Rng;
use sipring::base::time::Time;
use sipring::engine::Input;

use crate::edge::{Call, Guest, config};
use crate::lab::draft::Draft;
use crate::lab::loss::{End, Known};
use crate::lab::phone::{Phone, masked_frame};
use crate::lab::text::Sip;
use crate::lab::{CORE, Lab, user_of};

/// What happens in a reconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// The flow ends, or falls silent.
    Lose,
    Connect,
    Upgrade,
    Register,
    /// The core asks for the password.
    Challenge,
    Accept,
    /// The shard of a flow that fell silent was busy: only now it reads what the client said before.
    Late,
    /// The core sends the BYE.
    HangUp,
    /// The same once more, if nobody answered (RFC 3261 §17.1.2.2, Timer E).
    Repeat,
    /// Client and core read what came.
    Look,
}

/// The acts of the client and of the registrar, in their order, and the millisecond of each.
const RECONNECT: [(u64, Act); 8] = [
    (25, Act::Lose),
    (75, Act::Connect),
    (125, Act::Upgrade),
    (175, Act::Register),
    (225, Act::Challenge),
    (275, Act::Register),
    (325, Act::Accept),
    (335, Act::Late),
];

/// A silent flow is found out a second after the client is back; then it is over.
const END: u64 = 1_400;
/// RFC 3261 §17.1.2.2: after T1, twice that and so on up to T2, for 64·T1.
const REPEATS: [u64; 10] =
    [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500];

/// When the core hangs up: every 10 ms while something happens.
fn moments() -> impl Iterator<Item = u64> {
    (0..400).chain(1_300..END).step_by(10).chain((400..1_300).step_by(100))
}

/// How the core names the client.
#[derive(Clone, Copy, Debug)]
enum Aim {
    /// By the Record-Route of the dialog, and its Contact.
    Dialog,
    /// The same, and a GRUU for a Contact (RFC 5627 §4.4).
    Gruu,
    /// By the Path that it had when the call began.
    Path,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    end: End,
    aim: Aim,
    /// By what the core sends its BYE.
    by: Transport,
    is_caller: bool,
    /// Shards, and those of the lost flow, the next one, the owner and the core.
    shards: u16,
    places: [u16; 4],
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    let places = [(1, [0; 4]), (2, [0, 1, 0, 1]), (2, [1, 1, 0, 0]), (3, [0, 1, 2, 1])];
    let aims = [
        (Aim::Dialog, Transport::Udp),
        (Aim::Dialog, Transport::Tcp),
        (Aim::Gruu, Transport::Udp),
        (Aim::Path, Transport::Udp),
    ];
    for end in [End::Reset, End::Silent] {
        for (aim, by) in aims {
            for is_caller in [true, false] {
                for (shards, places) in places {
                    cells.push(Cell { end, aim, by, is_caller, shards, places });
                }
            }
        }
    }
    cells
}

/// A call whose client is about to lose its flow.
struct Scene {
    cell: Cell,
    lab: Lab,
    call: Call,
    /// Answers REGISTER.
    registrar: Phone,
    bye: Draft,
    first: FlowId,
    is_back: bool,
    /// REGISTERs that the registrar has not answered, and how many responses the client has heard.
    asked: Vec<Sip>,
    answers: usize,
    /// What the client has heard on its next flow, and the core of its BYE.
    heard: Vec<Sip>,
    told: Vec<Sip>,
}

impl Scene {
    fn new(cell: Cell) -> Scene {
        let [from, _, owner, at] = cell.places;
        let mut lab = Lab::new(cell.shards, config());
        let registrar = Phone::connect(&mut lab, at, Transport::Udp, CORE);
        let user = user_of(owner, cell.shards, 0);
        let known = if matches!(cell.aim, Aim::Path) { Known::ByContact } else { Known::ByRegId };
        let guest = Guest::offline(&mut lab, from, &user, known);
        let mut call = Call::ring(&mut lab, guest, registrar, cell.is_caller);
        call.say_200(&mut lab);
        call.acknowledge(&mut lab);
        if cell.by == Transport::Tcp {
            call.core = Phone::connect(&mut lab, at, Transport::Tcp, "198.51.100.7:40000");
        }
        let bye = call.next(&mut lab, "BYE", false);
        let bye = match cell.aim {
            Aim::Dialog => bye,
            Aim::Gruu => bye.uri(&gruu(&call.guest)),
            Aim::Path => bye.route(std::slice::from_ref(&call.guest.path)),
        };
        Scene {
            cell,
            first: call.guest.phone.flow.expect("a stream"),
            lab,
            call,
            registrar,
            bye,
            is_back: false,
            asked: Vec::new(),
            answers: 0,
            heard: Vec::new(),
            told: Vec::new(),
        }
    }

    fn perform(&mut self, act: Act) {
        self.look();
        let Scene { lab, call, .. } = self;
        match act {
            Act::Lose => call.guest.lose(lab, self.cell.end),
            Act::Connect => self.connect(),
            Act::Upgrade => call.guest.phone.upgrade(lab),
            Act::Register => {
                let draft = call.guest.registration(600);
                call.guest.phone.send(lab, &draft.text());
            }
            Act::Challenge => {
                let line = "WWW-Authenticate: Digest realm=\"example.com\", nonce=\"1\"";
                let asked = self.asked.remove(0);
                self.registrar.send(lab, &asked.response(401, "core", &[line]));
            }
            Act::Accept => {
                let listed = call.guest.listed(600);
                let asked = self.asked.remove(0);
                self.registrar.send(lab, &asked.response(200, "core", &[&listed]));
            }
            Act::Late if self.cell.end == End::Silent && lab.closed(self.first).is_none() => {
                lab.data(self.first, &masked_frame(0x1, b"\r\n\r\n"));
            }
            Act::HangUp => call.core.send(lab, &self.bye.text()),
            Act::Repeat if self.told.is_empty() => call.core.send(lab, &self.bye.text()),
            Act::Late | Act::Repeat | Act::Look => {}
        }
        self.look();
    }

    fn connect(&mut self) {
        let by = Transport::Wss;
        let remote = "203.0.113.5:50000".parse().expect("an address");
        let shard = self.cell.places[1];
        let flow = Some(self.lab.connect(shard, by, remote));
        self.call.guest.phone = Phone { transport: by, remote, shard, flow };
        self.is_back = true;
    }

    /// What came is read, and the BYE answered.
    fn look(&mut self) {
        let Scene { lab, call, .. } = self;
        let heard = if self.is_back { call.guest.phone.take(lab) } else { Vec::new() };
        for message in heard {
            match message.method() {
                "" => self.answers += usize::from(message.status() != 100),
                _ => {
                    call.guest.phone.send(lab, &message.response(200, "", &[]));
                    self.heard.push(message);
                }
            }
        }
        let mut got = self.registrar.take(lab);
        if self.cell.by == Transport::Tcp {
            got.extend(call.core.take(lab));
        }
        for message in got {
            match message.method() {
                "REGISTER" => self.asked.push(message),
                "" if message.status() == 100 => {}
                _ => self.told.push(message),
            }
        }
    }

    /// Performs all acts, each in its millisecond.
    fn play(&mut self, mut agenda: Vec<(u64, Act)>) {
        agenda.sort_by_key(|(at, _)| *at);
        let start = self.lab.now;
        for (at, act) in agenda {
            let until: Time = start + Duration::from_millis(at);
            let left = until.saturating_since(self.lab.now);
            self.lab.pass(left);
            self.perform(act);
        }
    }

    /// When the core repeats a BYE that it sent at that moment.
    fn repeats(&self, sent: u64) -> Vec<(u64, Act)> {
        match self.cell.by {
            Transport::Udp => REPEATS.map(|after| (sent + after, Act::Repeat)).to_vec(),
            _ => Vec::new(),
        }
    }

    /// Once it is all over.
    fn judge(mut self, what: &dyn std::fmt::Debug) {
        let context = format!("{:?} {what:?}", self.cell);
        self.look();
        self.lab.pass(Duration::from_secs(1));
        self.look();
        let methods: Vec<&str> = self.heard.iter().map(Sip::method).collect();
        assert_eq!(methods, ["BYE"], "{context}: {:#?}\n{:#?}", self.heard, self.told);
        let statuses: Vec<u16> = self.told.iter().map(Sip::status).collect();
        assert_eq!(statuses, [200], "{context}: {:#?}", self.told);
        assert_eq!(self.answers, 2, "{context}: 401 and 200 to REGISTER");
        self.lab.finish();
        self.look();
        assert_eq!((self.heard.len(), self.told.len()), (1, 1), "{context}");
    }
}

/// The GRUU that the core gave to an instance of its own, for all that we know.
fn gruu(guest: &Guest) -> String {
    let (_, urn) = guest.params.split_once("=\"<").expect("an instance");
    let urn = urn.split('>').next().expect("its end");
    format!("sip:{}@example.com;gr={urn}", guest.user)
}

#[test]
fn a_bye_arrives_once_whenever_the_core_sends_it() {
    for cell in cells() {
        for moment in moments() {
            let mut scene = Scene::new(cell);
            let mut agenda = RECONNECT.to_vec();
            agenda.push((moment, Act::HangUp));
            agenda.extend(scene.repeats(moment));
            agenda.extend((END..2 * END).step_by(100).map(|at| (at, Act::Look)));
            scene.play(agenda);
            scene.judge(&moment);
        }
    }
}

/// However long the client is away, the core hears what became of its BYE: the client's answer, or
/// that the flow is gone (RFC 5626 §5.3.1), and then the client never hears of it. Only one that
/// went to a flow of which nobody knew that it was dead, and that is not answered in 64·T1, ends
/// without a word (RFC 4320 §4.2), when its sender has given it up.
#[test]
fn a_bye_has_one_outcome_however_long_the_client_is_away() {
    const TIMER_F: u64 = 32_000;
    const HANG_UP: u64 = 50;
    for cell in cells() {
        for away in (0..40_000).step_by(1_000) {
            let mut scene = Scene::new(cell);
            let late = |(at, act)| (if act == Act::Lose { at } else { at + away }, act);
            let mut agenda: Vec<_> = RECONNECT.into_iter().map(late).collect();
            agenda.push((HANG_UP, Act::HangUp));
            agenda.extend(scene.repeats(HANG_UP));
            agenda.extend((0..45_000).step_by(500).map(|at| (at, Act::Look)));
            scene.play(agenda);
            let heard = scene.heard.len();
            let told: Vec<u16> = scene.told.iter().map(Sip::status).collect();
            let expired = scene.lab.count(|it| it.transactions_expired);
            let what = format!("{cell:?} {away}: {told:?}, {expired} expired");
            match cell.end {
                End::Reset if away < 4_500 => {
                    assert_eq!((heard, &told[..]), (1, &[200][..]), "{what}")
                }
                End::Reset => assert_eq!((heard, &told[..]), (0, &[430][..]), "{what}"),
                _ => match (heard, &told[..], expired) {
                    (1, [200], 0) => assert!(away < TIMER_F, "{what}"),
                    (0, [430], 0) => assert!(away >= 5_000, "{what}"),
                    outcome => {
                        assert_eq!(outcome, (0, &[][..], 1), "{what}");
                        assert!(away + 2_000 > TIMER_F, "{what}");
                    }
                },
            }
            scene.lab.finish();
            scene.look();
            assert_eq!((scene.heard.len(), scene.told.len()), (heard, told.len()), "{what}");
        }
    }
}

/// Delivers the next message of one lane between two shards, which chance chooses: only within a
/// lane there is an order. False when nothing is on its way.
fn deliver_one(lab: &mut Lab, rng: &mut Rng) -> bool {
    let mut lanes = Vec::new();
    let mut first = Vec::new();
    for (at, (from, to, message)) in lab.links.iter().enumerate() {
        let lane = (*from, *to, message.is_work());
        if !lanes.contains(&lane) {
            lanes.push(lane);
            first.push(at);
        }
    }
    if first.is_empty() {
        return false;
    }
    let at = first[rng.below(first.len() as u64) as usize];
    let (from, to, message) = lab.links.remove(at).expect("just seen");
    lab.input(to.0, Input::Linked { from, message });
    true
}

impl Scene {
    /// Lets messages between shards arrive until what the act answers is there, then some more.
    fn prepare(&mut self, act: Act, answers: usize, rng: &mut Rng) {
        let is_ready = |scene: &Scene| match act {
            Act::Challenge | Act::Accept => !scene.asked.is_empty(),
            Act::Register => scene.answers >= answers,
            _ => true,
        };
        while !is_ready(self) {
            assert!(deliver_one(&mut self.lab, rng), "{:?} waits for nothing", self.cell);
            self.look();
        }
        for _ in 0..rng.below(4) {
            deliver_one(&mut self.lab, rng);
            self.look();
        }
    }

    fn deliver_all(&mut self, rng: &mut Rng) {
        while deliver_one(&mut self.lab, rng) {
            self.look();
        }
    }
}

/// The same with all that shards say to each other in any order, from the loss on.
#[test]
fn a_bye_arrives_once_in_whatever_order_shards_hear_of_it() {
    for cell in cells().into_iter().filter(|it| it.shards > 1) {
        for seed in 0..30 {
            let mut rng = Rng::new([seed; 32]);
            let mut scene = Scene::new(cell);
            let mut acts: Vec<Act> = RECONNECT.map(|(_, act)| act).to_vec();
            acts.insert(rng.below(acts.len() as u64 + 1) as usize, Act::HangUp);
            scene.lab.hold = true;
            let mut registers = 0;
            for act in acts {
                scene.prepare(act, registers, &mut rng);
                scene.perform(act);
                registers += usize::from(act == Act::Register);
            }
            scene.deliver_all(&mut rng);
            scene.lab.hold = false;
            for _ in 0..4 {
                scene.lab.pass(Duration::from_millis(400));
                scene.look();
            }
            scene.judge(&seed);
        }
    }
}
