//! How connections end: closed in order, reset, gone without a word, or closed by the proxy, which
//! may do that to nobody who behaves.

use std::collections::VecDeque;
use std::time::Duration;

use sipring::base::event::CloseReason;
use sipring::base::id::FlowId;
use sipring::engine::Input;

use crate::agenda::Happening;
use crate::checker::Checker;
use crate::network::ConnId;
use crate::world::{End, World};

impl World {
    /// The client closes in order: what it wrote arrives before.
    pub fn hang_up(&mut self, conn: ConnId) {
        let it = &mut self.conns[conn];
        if !std::mem::take(&mut it.held) || it.dead {
            return;
        }
        let wait = self.profile.latency + Duration::from_millis(30);
        self.after(wait, Happening::Hangup { conn, why: CloseReason::Peer });
    }

    /// The connection breaks: what is on its way is lost.
    pub fn reset(&mut self, conn: ConnId) {
        if !self.conns[conn].held || self.conns[conn].dead {
            return;
        }
        let way = self.way();
        self.after(way, Happening::Hangup { conn, why: CloseReason::Reset });
        self.cut(conn);
    }

    /// Nothing goes either way from here on. The client notices, the proxy does not, nor has it
    /// always read all that came before.
    pub fn vanish(&mut self, conn: ConnId) {
        self.leave_word(conn);
        self.cut(conn);
    }

    /// Nothing goes either way from here on. The client notices, the proxy does not.
    pub fn cut(&mut self, conn: ConnId) {
        let it = &mut self.conns[conn];
        if !std::mem::replace(&mut it.dead, true) {
            it.dead_since = self.now;
        }
        it.up = VecDeque::new();
        it.marks.clear();
        it.down = Vec::new();
        if it.held {
            let way = self.way();
            self.after(way, Happening::Lost { conn });
        }
    }

    pub fn hangup(&mut self, conn: ConnId, why: CloseReason) {
        let Some(flow) = self.conns[conn].flow else {
            self.conns[conn].dead = true;
            return;
        };
        if !self.conns[conn].up.is_empty() && !self.conns[conn].dead {
            let soon = Duration::from_millis(1);
            return self.after(soon, Happening::Hangup { conn, why });
        }
        if self.by_flow.contains_key(&flow) {
            self.trace.note(self.now, &(flow, why), "closed", &[]);
            self.forget_flow(flow);
            self.free_slot(flow);
            self.input(flow.shard().index(), Input::Closed { flow, why });
        }
        self.conns[conn].up = VecDeque::new();
    }

    /// The proxy knows this flow no more.
    pub fn forget_flow(&mut self, flow: FlowId) {
        self.by_flow.remove(&flow);
        self.books.on_ended(End::Flow(flow), self.now);
    }

    pub fn closed_by_proxy(&mut self, flow: FlowId, why: CloseReason) {
        let Some(conn) = self.by_flow.get(&flow).copied() else {
            let text = format!("a second close of {flow}");
            return self.books.fail(Checker::WrongClient, text);
        };
        self.trace.note(self.now, &(flow, why), "closes", &[]);
        self.check_close(flow, conn, why);
        self.forget_flow(flow);
        self.free_slot(flow);
        // What was written goes out before.
        let wait = self.profile.latency + Duration::from_millis(1);
        self.after(wait, Happening::Lost { conn });
    }

    /// Nobody who behaves loses a connection to the proxy's judgement.
    fn check_close(&mut self, flow: FlowId, conn: ConnId, why: CloseReason) {
        let end = End::Flow(flow);
        let it = &self.conns[conn];
        let behaves = !it.dead && it.held && !it.tainted && !it.was_stalled;
        let is_short = (self.profile.tight || self.profile.narrow) && why == CloseReason::Slow;
        let is_server = self.phones[it.phone].is_server();
        let is_judged = match why {
            CloseReason::Pong | CloseReason::Slow | CloseReason::Timeout => true,
            CloseReason::Protocol => !self.books.bearers.is_unwelcome(end),
            CloseReason::Expired => !self.books.bearers.may_end(end, self.now),
            CloseReason::Idle => !is_server,
            // An older tab may never have got in.
            CloseReason::Unproven => {
                let is_latest = self.phones[it.phone].conn == Some(conn);
                is_latest && self.phones[it.phone].registration.is_on
            }
            _ => false,
        };
        if behaves && is_judged && !is_short {
            let text = format!("{why:?} for connection {conn} of phone {}", it.phone);
            self.books.fail(Checker::Closed, text);
        }
    }

    pub fn lost(&mut self, conn: ConnId) {
        self.conns[conn].dead = true;
        if std::mem::take(&mut self.conns[conn].held) {
            self.on_lost(conn);
        }
    }
}
