//! Whoever loses its flow, in whatever state of a call, however, and wherever it comes back: the
//! call goes on, and each request arrives on the new flow, once. All cells share one proxy and run
//! at the same time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::client::{Client, Lost, PLACES, Place, setup};
use super::talk::{Asked, SIDES, Side, Talk};
use crate::loss::{ENDS, End, KNOWN, Known};
use crate::support::phone::PATIENCE;
use crate::support::server::Server;
use crate::support::still;

/// Cells that run at the same time.
const THREADS: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ringing,
    Answered,
    OnHold,
}

const STATES: [State; 3] = [State::Ringing, State::Answered, State::OnHold];

#[derive(Clone, Copy, Debug)]
struct Cell {
    lost: Side,
    state: State,
    end: End,
    place: Place,
    known: Known,
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for lost in SIDES {
        for state in STATES {
            for end in ENDS {
                for place in PLACES {
                    for known in KNOWN {
                        cells.push(Cell { lost, state, end, place, known });
                    }
                }
            }
        }
    }
    cells
}

/// The users of a cell: who calls, who is called, and somebody else.
fn users(cell: usize) -> [String; 3] {
    ["a", "b", "c"].map(|name| format!("{name}{cell}"))
}

impl Cell {
    fn run(self, number: usize, server: &Server) {
        let [caller, callee, other] = users(number);
        let caller = Client::new(server, &caller, self.known);
        let callee = Client::new(server, &callee, self.known);
        let mut talk = Talk::ring(caller, callee);
        if self.state != State::Ringing {
            talk.answer();
        }
        if self.state == State::OnHold {
            talk.hold(self.lost);
        }
        let lost = talk.side(self.lost).lose(server, self.end);
        // Whoever comes next may get the slot that became free.
        let mut newcomer = Client::new(server, &other, self.known);
        talk.side(self.lost).reconnect(server, self.place);
        let asked = self.speak(&mut talk);
        talk.side(self.lost).log_in();
        lost.find_out(server);
        self.go_on(&mut talk, asked.as_ref());
        self.talk_on(&mut talk);
        still(&mut [&mut newcomer.phone]);
        talk.still();
        self.judge_lost(lost, asked.as_ref());
    }

    /// What is said while the client is away: a request in the dialog, or the answer to its INVITE.
    fn speak(self, talk: &mut Talk) -> Option<Asked> {
        let asked = match (self.state, self.lost) {
            (State::Ringing, Side::Callee) => return None,
            (State::Ringing, Side::Caller) => {
                talk.say(180);
                talk.say(200);
                None
            }
            _ => Some(talk.ask(self.lost.other(), "INFO")),
        };
        // The proxy has taken it: it answers in order.
        still(&mut [&mut talk.side(self.lost.other()).phone]);
        asked
    }

    /// It arrives on the new flow.
    fn go_on(self, talk: &mut Talk, asked: Option<&Asked>) {
        match (self.state, self.lost) {
            (State::Ringing, Side::Callee) => {
                talk.say(180);
                talk.hear(180);
                talk.answer();
            }
            // A 2xx its sender repeats until it hears the ACK, over every transport (RFC 3261
            // §13.3.1.4); a 180 is unreliable, and says nothing after it (§13.2.2.1).
            (State::Ringing, Side::Caller) if self.end == End::Silent => talk.answer(),
            (State::Ringing, Side::Caller) => talk.acknowledge(),
            _ => talk.serve(asked.expect("a request waits")),
        }
    }

    fn talk_on(self, talk: &mut Talk) {
        for from in [self.lost.other(), self.lost] {
            for method in ["INVITE", "INFO", "MESSAGE"] {
                talk.exchange(from, method);
            }
            talk.exchange_apart(from, "MESSAGE");
        }
        talk.exchange(self.lost.other(), "BYE");
    }

    /// The flow that was lost got what was said before anybody could know, and nothing else.
    fn judge_lost(self, lost: Lost, asked: Option<&Asked>) {
        let heard = lost.heard();
        let starts: Vec<&str> = heard.iter().map(|it| it.start.as_str()).collect();
        match (self.end, self.state, self.lost) {
            (End::Fin | End::Reset, ..) | (_, State::Ringing, Side::Callee) => {
                assert!(heard.is_empty(), "{heard:?}");
            }
            (End::Silent, State::Ringing, Side::Caller) => {
                let [first, second] = starts[..] else { panic!("{heard:?}") };
                assert!(first.starts_with("SIP/2.0 180 "), "{heard:?}");
                assert!(second.starts_with("SIP/2.0 200 "), "{heard:?}");
            }
            (End::Silent, ..) => {
                let asked = asked.expect("a request waited");
                assert_eq!(starts.len(), 1, "{heard:?}");
                assert_eq!((heard[0].method(), heard[0].one("call-id")), ("INFO", asked.call_id()));
            }
        }
    }
}

#[test]
fn a_call_follows_its_client_in_every_cell() {
    let cells = cells();
    assert_eq!(cells.len(), 72);
    let names: Vec<String> = (0..cells.len()).flat_map(users).collect();
    let server = setup(&names).start();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((number, cell)) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|n| Some((n, cells.get(n)?)))
                {
                    let run = AssertUnwindSafe(|| cell.run(number, &server));
                    if catch_unwind(run).is_err() {
                        failed.lock().expect("nobody panics here").push((number, *cell));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics here");
    assert!(failed.is_empty(), "{} of {} cells: {failed:#?}", failed.len(), cells.len());
    println!("{} cells in {:?}", cells.len(), started.elapsed());
    // Every request to who was lost bears the token of the flow that is gone: INVITE, INFO, MESSAGE
    // and BYE, and one that waited where the call was up. None was written to anybody twice but for
    // those that a silent flow swallowed.
    let up = cells.iter().filter(|cell| cell.state != State::Ringing).count() as u64;
    let moved = 4 * cells.len() as u64 + up;
    server.wait_metric("sipring_requests_moved_total", moved, PATIENCE);
    let count = |name: &str| server.metric(&format!("sipring_{name}_total"));
    assert_eq!((count("requests_moved"), count("waits_refused")), (moved, 0));
}
