//! Entries for fuzzing: frames against a decoder of their own, upgrades against what HTTP asks of
//! every answer. What a receiver tells is written down without its buffers, for the tests of
//! `assemble` as well.

use crate::base::buf::Pool;
use crate::base::limits::UPGRADE_BYTES_MAX;

use super::assemble::{Event, OVERHEAD, Payload, Receiver};
use super::frame::{CloseCode, Fault};
use super::handshake::{Rules, Upgrade, accept};

/// Frames: whatever the bytes, and however they are cut, a receiver tells what the RFC says of
/// them, within the bounds of memory. The cuts follow from the bytes.
pub fn frames(bytes: &[u8]) {
    const MAX: usize = 3000;
    let expected = reference(bytes, MAX);
    assert_eq!(transcript(bytes, MAX, |_| usize::MAX), expected);
    assert_eq!(transcript(bytes, MAX, |at| 1 + usize::from(bytes[at]) % 23), expected);
}

/// RFC 6455 §5 once more, without a thought for memory or speed: byte by byte, and every fault as
/// soon as its byte is there.
fn reference(bytes: &[u8], max: usize) -> Vec<Told> {
    let mut told = Vec::new();
    if let Err(fault) = reference_frames(&mut bytes.iter().copied(), max, &mut told) {
        told.extend(fault.map(Told::Fault));
    }
    told
}

/// Reads frames to the end of `bytes` (`None`), a fault, or the close frame.
fn reference_frames(
    bytes: &mut impl Iterator<Item = u8>,
    max: usize,
    told: &mut Vec<Told>,
) -> Result<(), Option<Fault>> {
    let mut message: Option<(bool, Vec<u8>)> = None;
    loop {
        let first = bytes.next().ok_or(None)?;
        let (fin, opcode) = (first >= 0x80, first & 15);
        if first & 0x70 != 0 {
            return Err(Some(Fault::ReservedBit));
        }
        if matches!(opcode, 3..=7 | 11..=15) {
            return Err(Some(Fault::ReservedOpcode));
        }
        if opcode >= 8 && !fin {
            return Err(Some(Fault::FragmentedControl));
        }
        let second = bytes.next().ok_or(None)?;
        if second < 0x80 {
            return Err(Some(Fault::Unmasked));
        }
        let len = reference_len(second - 0x80, opcode >= 8, bytes)?;
        let mut mask = [0; 4];
        for byte in &mut mask {
            *byte = bytes.next().ok_or(None)?;
        }
        let so_far = message.as_ref().map_or(0, |(_, payload)| payload.len() as u64);
        match (opcode, &message) {
            (0, None) => return Err(Some(Fault::UnexpectedContinuation)),
            (1 | 2, Some(_)) => return Err(Some(Fault::ExpectedContinuation)),
            (0..=2, _) if len > max as u64 - so_far => return Err(Some(Fault::TooBig)),
            _ => {}
        }
        let mut payload = Vec::new();
        for at in 0..len as usize {
            payload.push(bytes.next().ok_or(None)? ^ mask[at % 4]);
        }
        match opcode {
            8 => {
                told.push(Told::Close(reference_close(&payload)?));
                return Ok(());
            }
            9 => told.push(Told::Ping(payload)),
            10 => told.push(Told::Pong(payload)),
            _ => {
                let (text, so_far) = message.get_or_insert((opcode == 1, Vec::new()));
                so_far.extend(payload);
                if *text && fin && String::from_utf8(so_far.clone()).is_err() {
                    return Err(Some(Fault::Utf8));
                }
            }
        }
        if fin && opcode < 3 {
            let (text, payload) = message.take().expect("just added to");
            told.push(Told::Message { text, payload });
        }
    }
}

/// RFC 6455 §5.2, §5.5: the length, in as few bytes as it needs.
fn reference_len(
    short: u8,
    is_control: bool,
    bytes: &mut impl Iterator<Item = u8>,
) -> Result<u64, Option<Fault>> {
    if is_control && short > 125 {
        return Err(Some(Fault::LongControl));
    }
    let field = match short {
        126 => 2,
        127 => 8,
        _ => return Ok(u64::from(short)),
    };
    let mut len = 0;
    for _ in 0..field {
        len = len << 8 | u64::from(bytes.next().ok_or(None)?);
    }
    let least = if field == 2 { 126 } else { 65_536 };
    if len < least || len > i64::MAX as u64 { Err(Some(Fault::Length)) } else { Ok(len) }
}

/// RFC 6455 §5.5.1, §7.4.
fn reference_close(payload: &[u8]) -> Result<Option<CloseCode>, Option<Fault>> {
    let (high, low, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Some(Fault::CloseFrame)),
        [high, low, reason @ ..] => (*high, *low, reason),
    };
    let code = u16::from(high) * 256 + u16::from(low);
    if code < 1000
        || [1004, 1005, 1006].contains(&code)
        || (1015..3000).contains(&code)
        || code > 4999
    {
        return Err(Some(Fault::CloseFrame));
    }
    if String::from_utf8_lossy(reason).into_owned().as_bytes() != reason {
        return Err(Some(Fault::Utf8));
    }
    Ok(Some(CloseCode(code)))
}

/// An upgrade request: a whole HTTP answer or none, and the same verdict whatever comes behind what
/// it was made from.
pub fn upgrade(bytes: &[u8]) {
    for origins in [&[][..], &["https://app.example.com".to_string()]] {
        let rules = Rules { path: "/ws", origins, cookie: Some("a") };
        let mut answer = b"before".to_vec();
        let verdict = accept(bytes, &rules, &mut answer);
        is_an_answer(&verdict, &answer[6..], bytes);
        for cut in (0..bytes.len().min(UPGRADE_BYTES_MAX)).step_by(bytes.len() / 100 + 1) {
            let mut answer = Vec::new();
            let early = accept(&bytes[..cut], &rules, &mut answer);
            is_an_answer(&early, &answer, &bytes[..cut]);
            assert!(early == Upgrade::NeedMore || early == verdict, "cut at {cut}: {early:?}");
        }
    }
}

fn is_an_answer(verdict: &Upgrade, answer: &[u8], request: &[u8]) {
    let text = std::str::from_utf8(answer).expect("an answer is text");
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        assert!(text.is_empty() && matches!(verdict, Upgrade::NeedMore | Upgrade::Health));
        assert!(*verdict == Upgrade::Health || request.len() < UPGRADE_BYTES_MAX);
        return;
    };
    let lines: Vec<&str> = head.split("\r\n").collect();
    assert!(lines.iter().all(|line| !line.contains(['\r', '\n', '\0'])), "{text:?}");
    let has = |wanted: &str| lines.iter().filter(|line| **line == wanted).count() == 1;
    match verdict {
        Upgrade::Accepted { consumed, shown } => {
            let ends = [shown.query.end, shown.authorization.end, shown.cookie.end];
            assert!(*consumed <= request.len() && ends.iter().all(|end| end <= consumed));
            assert!(request[..*consumed].ends_with(b"\n"));
            assert!(lines[0] == "HTTP/1.1 101 Switching Protocols" && body.is_empty());
            assert!(has("Upgrade: websocket") && has("Connection: Upgrade"));
            assert_eq!(lines.len(), 5);
            assert!(lines[4].eq_ignore_ascii_case("Sec-WebSocket-Protocol: sip"));
        }
        Upgrade::Refused { status } => {
            assert!(lines[0].starts_with(&format!("HTTP/1.1 {status} ")) && *status >= 400);
            assert!(has("Connection: close") && has(&format!("Content-Length: {}", body.len())));
        }
        other => panic!("{other:?} with an answer"),
    }
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
            frames(&bytes);
            messages += transcript(&bytes, 1000, |_| usize::MAX).len();
            let mut raw = vec![0; rng.below(60) as usize];
            rng.fill(&mut raw);
            frames(&raw);
        }
        assert!(messages > 3_000);
    }

    #[test]
    fn the_reference_tells_a_wrong_receiver() {
        let fragments = [
            client_frame(false, Opcode::Text, b"He"),
            client_frame(true, Opcode::Ping, b"p"),
            client_frame(true, Opcode::Continuation, b"llo"),
        ];
        let bytes = fragments.concat();
        let text = |payload: &[u8]| Told::Message { text: true, payload: payload.to_vec() };
        let expected = [Told::Ping(b"p".to_vec()), text(b"Hello")];
        assert_eq!(reference(&bytes, 5), expected);
        assert_eq!(reference(&bytes, 4), [Told::Ping(b"p".to_vec()), Told::Fault(Fault::TooBig)]);
        // Every bit counts but those of mask bytes that no payload byte meets.
        for at in (0..bytes.len()).filter(|at| ![4, 5, 11, 12, 13, 20].contains(at)) {
            for bit in 0..8 {
                let mut wrong = bytes.clone();
                wrong[at] ^= 1 << bit;
                assert_ne!(reference(&wrong, 5), expected, "bit {bit} of byte {at}");
            }
        }
    }
}
