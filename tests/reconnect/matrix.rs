//! Whoever loses its flow, in whatever state of a call, however, and wherever it comes back: the
//! call goes on, and each request arrives on the new flow, once.

use std::time::Duration;

use crate::client::{Client, lab_of};
use crate::lab::loss::{ENDS, End, KNOWN, Known, STATES, State};
use crate::lab::{Lab, user_of};
use crate::talk::Talk;

#[derive(Clone, Copy, Debug)]
struct Cell {
    is_caller: bool,
    state: State,
    end: End,
    /// Shards, and those of the lost flow, the next one and the owners.
    shards: u16,
    from: u16,
    to: u16,
    owners: [u16; 2],
    known: Known,
}

impl Cell {
    /// Who loses its flow.
    fn lost(self, talk: &mut Talk) -> &mut Client {
        if self.is_caller { &mut talk.caller } else { &mut talk.callee }
    }
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    let places = [
        (1, 0, 0, [0, 0]),
        (2, 0, 0, [0, 1]),
        (2, 0, 0, [1, 0]),
        (2, 0, 1, [0, 1]),
        (2, 0, 1, [1, 1]),
        (3, 0, 1, [2, 2]),
        (3, 1, 2, [0, 1]),
    ];
    for is_caller in [true, false] {
        for state in STATES {
            for end in ENDS {
                for (shards, from, to, owners) in places {
                    for known in KNOWN {
                        let it = Cell { is_caller, state, end, shards, from, to, owners, known };
                        cells.push(it);
                    }
                }
            }
        }
    }
    cells
}

fn start(cell: Cell) -> (Lab, Talk) {
    let [alice, bob] = [0, 1].map(|n| user_of(cell.owners[n], cell.shards, n));
    let mut lab = lab_of(cell.shards, &[&alice, &bob]);
    let other = cell.shards - 1;
    let (a, b) = if cell.is_caller { (cell.from, other) } else { (other, cell.from) };
    let caller = Client::new(&mut lab, a, &alice, cell.known);
    let callee = Client::new(&mut lab, b, &bob, cell.known);
    caller.take(&mut lab);
    callee.take(&mut lab);
    let mut talk = Talk::ring(&mut lab, caller, callee);
    if cell.state != State::Ringing {
        talk.answer(&mut lab);
    }
    if cell.state == State::OnHold {
        talk.exchange(&mut lab, "INVITE", cell.is_caller);
    }
    (lab, talk)
}

/// The same when the client is away for a while.
fn lose(cell: Cell) -> (Lab, Talk) {
    let (mut lab, mut talk) = start(cell);
    cell.lost(&mut talk).lose(&mut lab, cell.end);
    lab.pass(Duration::from_secs(2));
    (lab, talk)
}

/// After this the books must balance and every message have arrived once.
fn talk_on(lab: &mut Lab, talk: &mut Talk, is_caller: bool) {
    for method in ["INVITE", "INFO", "MESSAGE"] {
        talk.exchange(lab, method, !is_caller);
        talk.exchange(lab, method, is_caller);
    }
    talk.exchange(lab, "BYE", !is_caller);
    lab.finish();
    talk.caller.heard_nothing(lab);
    talk.callee.heard_nothing(lab);
}

#[test]
fn a_call_goes_on_after_the_reconnect() {
    for cell in cells() {
        println!("{cell:?}");
        let (mut lab, mut talk) = lose(cell);
        cell.lost(&mut talk).come_back(&mut lab, cell.to, cell.end);
        if cell.state == State::Ringing {
            if cell.is_caller {
                let question = talk.take_question(&mut lab);
                talk.caller.send(&mut lab, &question.response(200, "", &[]));
            }
            talk.answer(&mut lab);
        }
        talk_on(&mut lab, &mut talk, cell.is_caller);
    }
}

/// What was said while the client was away reaches it when it is back: once, and nothing of it
/// before the client has proved who it is.
#[test]
fn what_was_said_meanwhile_arrives() {
    for cell in cells() {
        println!("{cell:?}");
        let (mut lab, mut talk) = lose(cell);
        if cell.state == State::Ringing {
            // Only the caller can miss something: the callee's answer.
            if cell.is_caller && cell.end != End::Silent {
                talk.say_200(&mut lab);
                talk.caller.come_back(&mut lab, cell.to, cell.end);
                talk.acknowledge(&mut lab);
                talk_on(&mut lab, &mut talk, cell.is_caller);
            }
            continue;
        }
        let (draft, peer) = match cell.is_caller {
            true => (talk.by_callee(&mut lab, "INFO"), talk.callee.clone()),
            false => (talk.by_caller(&mut lab, "INFO"), talk.caller.clone()),
        };
        peer.send(&mut lab, &draft.text());
        peer.heard_nothing(&mut lab);
        let lost = cell.lost(&mut talk);
        lost.come_back(&mut lab, cell.to, cell.end);
        let got = lost.take_method(&mut lab, "INFO");
        lost.send(&mut lab, &got.response(200, "", &[]));
        peer.take_status(&mut lab, 200);
        talk_on(&mut lab, &mut talk, cell.is_caller);
    }
}
