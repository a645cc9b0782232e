//! The peers at the other ends of flows: what they say, and in which pieces; when they read, and
//! when they leave.

use crate::base::event::CloseReason;
use crate::engine::Input;

use super::net::{Net, State};

impl Net {
    /// SIP as it stands on the wire of that flow; `form` says as which frames.
    pub(super) fn framed(&mut self, flow: usize, text: &[u8], form: u8) -> Vec<u8> {
        self.remember(Ok(flow), text);
        if !self.wires[flow].transport.is_websocket() {
            return text.to_vec();
        }
        let opcode = if form.is_multiple_of(2) { 1 } else { 2 };
        if form % 8 < 6 {
            return frame(0x80 | opcode, text);
        }
        let (one, other) = text.split_at(text.len() / 2);
        [frame(opcode, one), frame(0x80, other)].concat()
    }

    /// Bytes of the peer, behind what it had begun to say.
    pub(super) fn say(&mut self, flow: usize, bytes: Vec<u8>) {
        let wire = &mut self.wires[flow];
        let mut bytes = [std::mem::take(&mut wire.rest), bytes].concat();
        if wire.state != State::Gone && !bytes.is_empty() {
            let (shard, flow) = (wire.id.shard(), wire.id);
            self.tell(shard.index(), Input::Data { flow, bytes: &mut bytes });
        }
    }

    /// The first bytes now, the rest with what the peer says next.
    pub(super) fn say_later(&mut self, flow: usize, mut bytes: Vec<u8>, cut: usize) {
        let rest = bytes.split_off(cut.min(bytes.len()));
        self.say(flow, bytes);
        self.wires[flow].rest = rest;
    }

    /// A little more of what some peer has begun to say.
    pub(super) fn continue_flow(&mut self, number: u8, len: usize) {
        let Some(flow) = self.flow(number) else { return };
        let mut bytes = std::mem::take(&mut self.wires[flow].rest);
        let rest = bytes.split_off((len + 1).min(bytes.len()));
        self.say(flow, bytes);
        self.wires[flow].rest = rest;
    }

    /// The peer reads: whole writes, and of the next one perhaps a part.
    pub(super) fn take_writes(&mut self, flow: usize, count: usize, partly: bool) {
        let wire = &mut self.wires[flow];
        let count = count.min(wire.pending.len());
        let mut bytes: u32 = wire.pending.drain(..count).sum();
        if let Some(next) = wire.pending.front_mut().filter(|_| partly) {
            bytes += *next / 2;
            *next -= *next / 2;
        }
        if bytes > 0 {
            let (shard, flow) = (wire.id.shard(), wire.id);
            self.tell(shard.index(), Input::Sent { flow, bytes, writes: count as u16 });
        }
    }

    /// The peer leaves.
    pub(super) fn close(&mut self, flow: usize, why: CloseReason) {
        let wire = &mut self.wires[flow];
        if wire.state != State::Open {
            return;
        }
        wire.state = State::Gone;
        wire.pending.clear();
        let id = wire.id;
        self.slots[id.shard().index()].0.push(id.slot());
        self.tell(id.shard().index(), Input::Closed { flow: id, why });
    }

    /// The engine closed a flow: its slot is free.
    pub(super) fn closed(&mut self, flow: usize) {
        let wire = &mut self.wires[flow];
        wire.state = State::Closed;
        wire.pending.clear();
        self.slots[wire.id.shard().index()].0.push(wire.id.slot());
    }

    pub(super) fn take_all_writes(&mut self, shard: usize) {
        for at in 0..self.wires.len() {
            let wire = &self.wires[at];
            if wire.id.shard().index() == shard && !wire.pending.is_empty() {
                self.take_writes(at, usize::MAX, false);
            }
        }
    }

    /// Each by a pong with its payload (RFC 6455 §5.5.3).
    pub(super) fn answer_pings(&mut self, shard: usize) {
        for at in 0..self.wires.len() {
            let wire = &mut self.wires[at];
            let is_whole = wire.rest.is_empty() && wire.state == State::Open;
            let is_due = wire.id.shard().index() == shard && is_whole;
            if let Some(payload) = wire.pinged.take_if(|_| is_due) {
                self.say(at, frame(0x8a, &payload));
            }
        }
    }
}

/// A client's frame (RFC 6455 §5.2): first byte, then whatever length, then masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
