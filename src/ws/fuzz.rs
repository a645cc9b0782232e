//! What a receiver tells, written down without its buffers: for fuzzing and for the tests of
//! `assemble`.

use crate::base::buf::Pool;

use super::assemble::{Event, OVERHEAD, Payload, Receiver};
use super::frame::{CloseCode, Fault};

/// Entry for fuzzing: whatever the bytes, and however they are cut, the same is told, within the
/// bounds of memory. The cuts follow from the bytes.
pub fn fuzz_frames(bytes: &[u8]) {
    const MAX: usize = 3000;
    let whole = transcript(bytes, MAX, |_| usize::MAX);
    let cut = transcript(bytes, MAX, |at| 1 + usize::from(bytes[at]) % 23);
    assert_eq!(whole, cut);
}

/// All that a receiver tells about `bytes`, which it gets in pieces of the length that `piece` says
/// for a position.
pub(super) fn transcript(bytes: &[u8], max: usize, piece: impl Fn(usize) -> usize) -> Vec<Told> {
    let mut pool = Pool::new();
    let mut receiver = Receiver::new();
    let mut told = Vec::new();
    let mut at = 0;
    while at < bytes.len() && !told.last().is_some_and(Told::is_last) {
        let end = at.saturating_add(piece(at)).min(bytes.len());
        let mut input = bytes[at..end].to_vec();
        let mut rest = input.as_mut_slice();
        loop {
            match receiver.next(&mut pool, max, &mut rest) {
                Ok(Some(event)) => told.push(Told::event(event, &mut pool)),
                Ok(None) => break,
                Err(fault) => told.push(Told::Fault(fault)),
            }
            if told.last().is_some_and(Told::is_last) {
                break;
            }
        }
        assert!(receiver.held_bytes() <= (max + OVERHEAD).next_power_of_two());
        at = end;
    }
    receiver.release(&mut pool);
    told
}

/// An event or fault, without its buffers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Told {
    Message { text: bool, payload: Vec<u8> },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<CloseCode>),
    Fault(Fault),
}

impl Told {
    pub fn event(event: Event<'_>, pool: &mut Pool) -> Told {
        let mut copy = |payload: Payload<'_>| {
            let bytes = payload.to_vec();
            payload.give_back(pool);
            bytes
        };
        match event {
            Event::Message { text, payload } => Told::Message { text, payload: copy(payload) },
            Event::Ping(payload) => Told::Ping(copy(payload)),
            Event::Pong(payload) => Told::Pong(copy(payload)),
            Event::Close { code } => Told::Close(code),
        }
    }

    fn is_last(&self) -> bool {
        matches!(self, Told::Close(_) | Told::Fault(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::ws::frame::Opcode;
    use crate::ws::frame::tests::client_frame;

    #[test]
    fn noise_is_told_the_same_however_it_is_cut() {
        let mut rng = Rng::new([2; 32]);
        let opcodes =
            [Opcode::Text, Opcode::Binary, Opcode::Continuation, Opcode::Ping, Opcode::Pong];
        let mut messages = 0;
        for _ in 0..3_000 {
            let mut bytes = Vec::new();
            for _ in 0..rng.below(12) {
                let opcode = opcodes[rng.below(5) as usize];
                let len_max = if opcode.is_control() { 127 } else { 400 };
                let payload = vec![rng.next_u32() as u8 >> 1; rng.below(len_max) as usize];
                bytes.extend(client_frame(rng.below(4) > 0, opcode, &payload));
            }
            if rng.below(2) == 0 && !bytes.is_empty() {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << rng.below(8);
            }
            fuzz_frames(&bytes);
            messages += transcript(&bytes, 1000, |_| usize::MAX).len();
            let mut raw = vec![0; rng.below(60) as usize];
            rng.fill(&mut raw);
            fuzz_frames(&raw);
        }
        assert!(messages > 3_000);
    }
}
