//! A transaction as a list of acts, learned from one run with text and played again as bytes: what
//! changes from round to round (number, users, our branch and tokens) stands at known places.

use sipring::proxy::branch::BranchId;

use super::super::lab::text::Sip;
use super::{Peer, Stage};

/// The round in which a script is learned; ten digits in every round.
pub(super) const FIRST: u32 = 1_000_000_000;
/// How a round's number and users look in the texts.
pub(super) const NUMBER: usize = 10;
const USER: usize = 5;
/// Bytes of an output that are compared with those of the first round.
const LOOKED_AT: usize = 12;

/// Who sends in an act, or hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first client.
    A,
    /// The second client.
    B,
    /// The server behind.
    Core,
}

/// One message that somebody heard while a script was learned.
pub struct Heard {
    act: usize,
    /// Which of the act's outputs.
    output: usize,
    side: Side,
    bytes: Vec<u8>,
}

/// Everything heard so far.
#[derive(Default)]
pub struct Past(Vec<Heard>);

impl Past {
    /// The last message that this side heard.
    pub fn last(&self, side: Side) -> Sip {
        let heard = self.0.iter().rev().find(|it| it.side == side).expect("it heard something");
        Sip::read(payload(side, &heard.bytes))
    }
}

/// Who sends, and what, given what was heard. Texts name the round `{n}`, the users `{a}` and
/// `{b}`.
pub type Act = (Side, Box<dyn Fn(&Past) -> String>);

/// Clients, engines and a script: each round is one transaction (or call).
pub struct Play {
    pub stage: Stage,
    users: Vec<Peer>,
    lines: Vec<Line>,
    round: u32,
}

/// One act, ready to be sent.
struct Line {
    side: Side,
    bytes: Vec<u8>,
    numbers: Vec<usize>,
    users_a: Vec<usize>,
    users_b: Vec<usize>,
    carries: Vec<Carry>,
    /// What each output that follows from it begins with, and to whom it goes.
    outputs: Vec<(Side, [u8; LOOKED_AT])>,
}

/// Bytes that go from an output into the act at `line`.
struct Carry {
    output: usize,
    from: usize,
    line: usize,
    to: usize,
    len: usize,
}

impl Play {
    /// `clients` registered users, in pairs, and the script of `acts`.
    pub fn new(mut stage: Stage, clients: usize, acts: &[Act]) -> Play {
        let users = (0..clients).map(|_| Peer::Flow(stage.open())).collect();
        let mut play = Play { stage, users, lines: Vec::new(), round: FIRST };
        for user in 0..clients {
            let text = named(&register(), FIRST - 1, user, 0);
            play.stage.feed(play.users[user], &frame(text.as_bytes()));
            let mut registered = false;
            play.stage.settle(|_, bytes| registered = bytes[4..].starts_with(b"SIP/2.0 200"));
            assert!(registered, "{text}");
        }
        play.learn(acts);
        play
    }

    /// One transaction. Never inlined, so that a profiler finds it.
    #[inline(never)]
    pub fn round(&mut self) {
        self.round += 1;
        let (a, b) = self.pair();
        for at in 0..self.lines.len() {
            let line = &mut self.lines[at];
            line.name(self.round, a, b);
            let from = self.peer(self.lines[at].side);
            self.stage.feed(from, &self.lines[at].bytes);
            let (mut count, expected) = (0, std::mem::take(&mut self.lines[at].outputs));
            let carries = std::mem::take(&mut self.lines[at].carries);
            let lines = &mut self.lines;
            self.stage.settle(|_, bytes| {
                assert_eq!(bytes[..LOOKED_AT], expected[count].1, "output {count} of act {at}");
                for carry in carries.iter().filter(|carry| carry.output == count) {
                    lines[carry.line].bytes[carry.to..][..carry.len]
                        .copy_from_slice(&bytes[carry.from..][..carry.len]);
                }
                count += 1;
            });
            assert_eq!(count, expected.len(), "outputs of act {at}");
            self.lines[at].outputs = expected;
            self.lines[at].carries = carries;
        }
        self.stage.pass();
    }

    /// Plays the acts once with texts and notes what is where.
    fn learn(&mut self, acts: &[Act]) {
        let (a, b) = self.pair();
        let mut past = Past::default();
        for (at, (side, write)) in acts.iter().enumerate() {
            let text = named(&write(&past), self.round, a, b);
            let bytes = match side {
                Side::Core => text.into_bytes(),
                Side::A | Side::B => frame(text.as_bytes()),
            };
            let mut line = Line::of(*side, bytes, a, b);
            for (to, len) in ours(&line.bytes) {
                let text = &line.bytes[to..to + len];
                let source = past.0.iter().rev().find_map(|it| Some((it, find(&it.bytes, text)?)));
                let (source, from) = source.expect("we wrote it earlier");
                let carry = Carry { output: source.output, from, line: at, to, len };
                self.lines[source.act].carries.push(carry);
            }
            self.stage.feed(self.peer(*side), &line.bytes);
            let (b, core) = (self.peer(Side::B), Peer::Core);
            self.stage.settle(|peer, bytes| {
                let side = if peer == core {
                    Side::Core
                } else if peer == b {
                    Side::B
                } else {
                    Side::A
                };
                let output = line.outputs.len();
                line.outputs.push((side, bytes[..LOOKED_AT].try_into().expect("as many")));
                past.0.push(Heard { act: at, output, side, bytes: bytes.to_vec() });
            });
            assert!(at + 1 == acts.len() || !line.outputs.is_empty(), "nothing came of act {at}");
            self.lines.push(line);
        }
        self.stage.pass();
    }

    fn pair(&self) -> (usize, usize) {
        let pair = self.round as usize % (self.users.len() / 2);
        (2 * pair, 2 * pair + 1)
    }

    fn peer(&self, side: Side) -> Peer {
        let (a, b) = self.pair();
        match side {
            Side::A => self.users[a],
            Side::B => self.users[b],
            Side::Core => Peer::Core,
        }
    }
}

impl Line {
    fn of(side: Side, bytes: Vec<u8>, a: usize, b: usize) -> Line {
        let numbers = places(&bytes, FIRST.to_string().as_bytes());
        let user = |user: usize| {
            places(&bytes, format!("user{user:05}").as_bytes()).into_iter().map(|at| at + 4)
        };
        let (users_a, users_b) = (user(a).collect(), user(b).collect());
        Line { side, bytes, numbers, users_a, users_b, carries: Vec::new(), outputs: Vec::new() }
    }

    fn name(&mut self, round: u32, a: usize, b: usize) {
        put(&mut self.bytes, &self.numbers, digits::<NUMBER>(round));
        put(&mut self.bytes, &self.users_a, digits::<USER>(a as u32));
        put(&mut self.bytes, &self.users_b, digits::<USER>(b as u32));
    }
}

pub(super) fn put<const N: usize>(bytes: &mut [u8], at: &[usize], digits: [u8; N]) {
    for at in at {
        bytes[*at..*at + N].copy_from_slice(&digits);
    }
}

pub(super) fn digits<const N: usize>(mut number: u32) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
    digits
}

pub(super) fn named(text: &str, round: u32, a: usize, b: usize) -> String {
    text.replace("{n}", &round.to_string())
        .replace("{a}", &format!("user{a:05}"))
        .replace("{b}", &format!("user{b:05}"))
}

/// A REGISTER as a browser sends it.
pub fn register() -> String {
    "REGISTER sip:example.com SIP/2.0\r\n\
     Via: SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bK{n}\r\n\
     Max-Forwards: 69\r\n\
     To: <sip:{a}@example.com>\r\n\
     From: \"{a}\" <sip:{a}@example.com>;tag=rtqbclb9fn\r\n\
     Call-ID: 2rkl8nbv1q0h8mn6t5o7{a}\r\n\
     CSeq: {n} REGISTER\r\n\
     Contact: <sip:{a}@df7jal23ls0d.invalid;transport=ws>;+sip.ice;reg-id=1\
     ;+sip.instance=\"<urn:uuid:6cf85b91-6b2a-4a5c-9a5c-0000000{a}>\";expires=7200\r\n\
     Expires: 7200\r\n\
     Allow: INVITE,ACK,CANCEL,BYE,UPDATE,MESSAGE,OPTIONS,REFER,INFO,NOTIFY\r\n\
     Supported: path,gruu,outbound\r\n\
     User-Agent: Example Browser 3.13.0\r\n\
     Content-Length: 0\r\n\r\n"
        .into()
}

/// A client's frame with a key of zeros (RFC 6455 §5.2).
pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).expect("no large message here");
    assert!(len > 125, "no small one either");
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn payload(side: Side, bytes: &[u8]) -> &[u8] {
    match (side, bytes[1]) {
        (Side::Core, _) => bytes,
        (_, 126) => &bytes[4..],
        _ => &bytes[2..],
    }
}

/// Where branches and tokens of ours stand, with their lengths.
fn ours(bytes: &[u8]) -> Vec<(usize, usize)> {
    let is_end = |byte: &u8| b";,>@\r".contains(byte);
    let to_end = |at: usize| bytes[at..].iter().position(is_end).expect("an end");
    let branches = places(bytes, b"z9hG4bK").into_iter();
    let branches = branches
        .map(|at| (at, to_end(at)))
        .filter(|(at, len)| BranchId::decode(&bytes[*at..at + len]).is_some());
    let tokens = places(bytes, b":ft.").into_iter().map(|at| (at, to_end(at)));
    branches.chain(tokens).collect()
}

pub(super) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

pub(super) fn places(bytes: &[u8], what: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(what.len()).enumerate();
    windows.filter(|(_, window)| *window == what).map(|(at, _)| at).collect()
}
