//! Entry for fuzzing: bytes decide what happens to one to three engines, in which order and when.
//! `net` is the world around them, `peers` the other ends of their flows; `watch` looks at all that
//! they want done, `speech` makes up what they hear, `proof` what they say to be let in, `shelf` is the
//! store, under one of the configurations of `settings`.

mod net;
mod peers;
mod proof;
mod settings;
mod shelf;
mod speech;
mod watch;

use std::time::Duration;

use crate::base::choices::Choices;
use crate::base::event::CloseReason;
use crate::base::id::{ShardId, Transport};
use crate::base::metrics::Counters;

use net::{Fate, Net};
use settings::{REMOTES, SETTINGS};
use speech::Heard;

/// What happens in one run at most; more bytes are not looked at.
const OPERATIONS_MAX: usize = 300;
/// Flows that peers open in one run.
const FLOWS_MAX: usize = 24;

/// A run of one to three engines, each step of it by the next bytes: flows come, speak, stall and
/// go, messages of SIP's grammar with faults in them, answers to what was heard, other shards' words
/// late or refused, time, another configuration, a drain, a shard that fails. Nothing panics; no
/// output names what is not there; nothing is written after a close; tables keep within their
/// limits; and when all is quiet every message has its one outcome and nothing is left.
pub fn operations(bytes: &[u8]) {
    counted(bytes);
}

/// The same; what the engines counted, in the order of [`Counters::ROWS`].
pub fn counted(bytes: &[u8]) -> [u64; Counters::COUNT] {
    let mut choices = Choices::new(bytes);
    let shards = 1 + choices.below(3) as u16;
    let settings = choices.below(SETTINGS);
    let mut net = Net::new(shards, settings, choices.byte());
    for _ in 0..OPERATIONS_MAX {
        if choices.is_empty() {
            break;
        }
        step(&mut net, &mut choices);
        net.look();
    }
    net.end();
    let mut sums = [0; Counters::COUNT];
    for engine in &net.engines {
        sums.iter_mut().zip(engine.counters().values()).for_each(|(sum, count)| *sum += count);
    }
    sums
}

fn step(net: &mut Net, choices: &mut Choices<'_>) {
    match choices.below(20) {
        0 => connect(net, choices),
        1..=3 => request(net, choices),
        4..=6 => response(net, choices),
        7 => again(net, choices),
        8 => noise(net, choices),
        9 => datagram(net, choices),
        10 => time(net, choices),
        11 => {
            if let Some(flow) = net.flow(choices.byte()) {
                net.take_writes(flow, 1 + choices.below(4), choices.below(2) == 1);
            }
        }
        12 => {
            if let Some(flow) = net.flow(choices.byte()) {
                net.close(flow, choices.of(&[CloseReason::Peer, CloseReason::Reset]));
            }
        }
        13 | 14 => net.finish_open(choices.byte(), choices.below(3) > 0),
        15 => net.hear_link(choices.byte(), choices.of(&[Fate::Arrives, Fate::Refused])),
        16 => net.hear_all_links(),
        17 => net.configure(choices.below(SETTINGS)),
        18 => rarely(net, choices),
        _ => net.continue_flow(choices.byte(), usize::from(choices.byte())),
    }
}

fn rarely(net: &mut Net, choices: &mut Choices<'_>) {
    let shard = ShardId(choices.byte().into());
    match choices.below(8) {
        0 => net.drain_shard(shard),
        1 => net.restart(shard),
        2 => proof::answer(net, choices),
        3 => net.make_durable(choices.below(8)),
        4 => net.restore_bent(net.on(shard), choices),
        _ => net.stale(choices.byte(), choices.byte()),
    }
}

/// A connection, and its upgrade unless the bytes want it to do without.
fn connect(net: &mut Net, choices: &mut Choices<'_>) {
    if net.flows() >= FLOWS_MAX {
        return;
    }
    let transport = choices.of(&Transport::ALL[1..]);
    let shard = ShardId(choices.byte().into());
    let flow = net.connect(shard, transport, choices.of(&REMOTES));
    if transport.is_websocket() && choices.below(8) > 0 {
        net.say(flow, speech::UPGRADE.to_vec());
    }
}

/// A message on a flow, whole, or in two pieces of which the second comes with a later step.
fn message(net: &mut Net, choices: &mut Choices<'_>, flow: usize, mut text: Vec<u8>) {
    speech::bend(choices, &mut text, net.heard());
    let bytes = net.framed(flow, &text, choices.byte());
    let cut = choices.below(8);
    if cut == 1 {
        net.say_later(flow, bytes, usize::from(choices.byte()));
    } else {
        net.say(flow, bytes);
    }
}

fn request(net: &mut Net, choices: &mut Choices<'_>) {
    let sender = choices.byte();
    // A datagram's sender is one of the addresses, a stream's its flow.
    if sender.is_multiple_of(4) {
        let remote = choices.of(&REMOTES);
        let shard = ShardId(choices.byte().into());
        let mut text = speech::request(choices, Transport::Udp, remote, net.heard());
        speech::bend(choices, &mut text, net.heard());
        net.datagram(shard, remote, text);
    } else if let Some(flow) = net.flow(sender / 4) {
        let (transport, remote) = net.ends(flow);
        let text = speech::request(choices, transport, remote, net.heard());
        message(net, choices, flow, text);
    }
}

/// An answer to a request that came out, most often by the one who got it.
fn response(net: &mut Net, choices: &mut Choices<'_>) {
    let Some(Heard { by, text }) = net.heard_one(choices.byte()).cloned() else { return };
    let Some(answer) = speech::response(choices, &text) else { return };
    let other = choices.below(8) == 1;
    match by {
        Ok(flow) => {
            let flow = if other { net.flow(choices.byte()).unwrap_or(flow) } else { flow };
            message(net, choices, flow, answer);
        }
        Err(remote) => {
            let remote = if other { choices.of(&REMOTES) } else { remote };
            let mut answer = answer;
            speech::bend(choices, &mut answer, net.heard());
            net.datagram(ShardId(choices.byte().into()), remote, answer);
        }
    }
}

/// What a peer said before, once more, perhaps as the CANCEL or the ACK of it.
fn again(net: &mut Net, choices: &mut Choices<'_>) {
    let method = choices.of(&["", "CANCEL", "ACK", "BYE"]);
    let Some(said) = net.said(choices.byte()).cloned() else { return };
    let text = speech::with_method(&said.text, method);
    match said.by {
        Ok(flow) => {
            let bytes = net.framed(flow, &text, 0);
            net.say(flow, bytes);
        }
        Err(remote) => net.datagram(ShardId(choices.byte().into()), remote, text),
    }
}

/// Bytes of the fuzzer's own on a flow.
fn noise(net: &mut Net, choices: &mut Choices<'_>) {
    let Some(flow) = net.flow(choices.byte()) else { return };
    let len = choices.below(40);
    let bytes = choices.take(len).to_vec();
    let form = choices.byte();
    if form % 4 == 3 && !bytes.is_empty() {
        return net.say(flow, bytes);
    }
    let known: [&[u8]; 4] = [b"\r\n\r\n", b"\r\n", &[0x8a, 0x80, 1, 2, 3, 4], b"\x88\x80\0\0\0\0"];
    net.say(flow, known[usize::from(form / 4) % 4].to_vec());
}

fn datagram(net: &mut Net, choices: &mut Choices<'_>) {
    let (shard, remote) = (ShardId(choices.byte().into()), choices.of(&REMOTES));
    let len = choices.below(40);
    let bytes = match choices.below(3) {
        0 => [&b"\0\x01\0\0\x21\x12\xa4\x42"[..], &[7; 12]].concat(),
        1 => b"\r\n\r\n".to_vec(),
        _ => choices.take(len).to_vec(),
    };
    net.datagram(shard, remote, bytes);
}

fn time(net: &mut Net, choices: &mut Choices<'_>) {
    let step = [1, 20, 500, 4_000, 11_000, 33_000, 190_000, 3_700_000];
    net.pass(Duration::from_millis(choices.of(&step)));
}
