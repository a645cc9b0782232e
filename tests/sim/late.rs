//! What is read of a client after it has vanished: its bytes were there before, its shard was busy.
//! They are no sign of life, and a flow that a client has left behind gets no requests once that had
//! to be found out.

use std::time::Duration;

use sipring::base::id::{FlowId, Transport};
use sipring::base::limits::PROBE_TIME;
use sipring::engine::Input;

use crate::agenda::Happening;
use crate::checker::Checker;
use crate::lab::phone::masked_frame;
use crate::network::ConnId;
use crate::profile::Chance;
use crate::world::{End, World};

/// Longest that a shard is busy.
const BUSY: Duration = Duration::from_millis(2500);
/// What alarms and the ways between shards add to the time of a probe.
const SLACK: Duration = Duration::from_millis(250);

impl World {
    /// One in two clients that vanish has just said something, which is whole.
    pub fn leave_word(&mut self, conn: ConnId) {
        let it = &self.conns[conn];
        let is_whole = it.ready && it.up.is_empty() && !it.tainted && !it.dead;
        if !is_whole || !self.words.happens(Chance(500)) {
            return;
        }
        let bytes = match it.transport {
            Transport::Ws | Transport::Wss if self.words.happens(Chance(500)) => {
                masked_frame(0xa, b"")
            }
            Transport::Ws | Transport::Wss => masked_frame(0x1, b"\r\n\r\n"),
            _ => b"\r\n\r\n".to_vec(),
        };
        let wait = self.words.between(Duration::ZERO, BUSY);
        self.after(wait, Happening::Late { conn, bytes });
    }

    pub fn late(&mut self, conn: ConnId, mut bytes: Vec<u8>) {
        let flow = self.conns[conn].flow.filter(|flow| self.by_flow.get(flow) == Some(&conn));
        let Some(flow) = flow else { return };
        self.trace.note(self.now, &(flow, self.conns[conn].remote), "late", &bytes);
        self.input(flow.shard().index(), Input::Data { flow, bytes: &mut bytes });
    }

    /// A planted fault: what the proxy wrote, if it is a ping, is answered.
    pub fn answer_for(&mut self, conn: ConnId, written: &[u8]) {
        let bytes = match written {
            [0x89, _, payload @ ..] => masked_frame(0xa, payload),
            b"\r\n\r\n" => b"\r\n".to_vec(),
            _ => return,
        };
        self.after(Duration::from_millis(1), Happening::Late { conn, bytes });
    }

    /// The proxy wrote a message to a connection: had it to know by then that its client is not
    /// there?
    pub fn check_forsaken(&mut self, conn: ConnId, flow: FlowId, message: &[u8]) {
        let it = &self.conns[conn];
        // Nobody is asked with what has no transaction.
        let is_asking = !message.starts_with(b"SIP/2.0 ") && !message.starts_with(b"ACK ");
        if !it.dead || !is_asking || !self.buried.is_empty() {
            return;
        }
        // Who vanished before it came back is asked then, who did so later with the next request.
        let asked = it.asked_since.unwrap_or(self.now);
        let left = self.books.ways.left_behind(it.phone, End::Flow(flow));
        let known = left.map(|at| if at < it.dead_since { asked } else { at });
        let known = known.map(|at| at + PROBE_TIME + self.profile.slack() + SLACK);
        self.conns[conn].asked_since = Some(asked);
        if known.is_some_and(|known| self.now > known) && !self.profile.is_short() {
            let start = String::from_utf8_lossy(
                message.split(|it| *it == b'\r').next().unwrap_or_default(),
            );
            let text = format!("{flow} was left at {left:?}: {start}");
            self.books.fail(Checker::Forsaken, text);
        }
    }
}
