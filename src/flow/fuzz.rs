//! Entries for fuzzing: tokens that nobody but we can make, and STUN answers that are well-formed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::base::choices::Choices;
use crate::base::id::{
    ClientKey, DatagramPath, FlowId, FlowRef, ListenerId, StreamPath, Transport,
};

use super::stun::Stun;
use super::token::{Claims, PREFIX, TokenError, TokenKey, TokenKind};

const SECRET: [u8; 32] = [0x5a; 32];
const CALL_ID: &[u8] = b"fuzz@call.invalid";

/// Tokens: the bytes as a user part are never one of ours; as claims and what is done to their
/// token they are understood when nothing was changed, and refused when anything was.
pub fn token(bytes: &[u8]) {
    // A key that never made a token: a fuzzer remembers those that it saw being compared.
    let unused = TokenKey::new(&[0xc3; 32], 7);
    let prefixed = [PREFIX, bytes].concat();
    for user in [bytes, &prefixed] {
        assert!(unused.decode(user, CALL_ID).is_err(), "a token that nobody made");
    }
    let key = TokenKey::new(&SECRET, 7);
    let mut choices = Choices::new(bytes);
    let claims = claims(&mut choices);
    let mut token = Vec::new();
    key.encode(&claims, CALL_ID, &mut token);
    assert_eq!(key.decode(&token, CALL_ID), Ok(claims));
    assert!(token.len() <= 161 && token.iter().all(|byte| is_unreserved(*byte)));
    assert!(matches!(TokenKey::new(&SECRET, 8).decode(&token, CALL_ID), Err(TokenError::Epoch(_))));
    let stranger = TokenKey::new(&[0xa5; 32], 7);
    assert_eq!(stranger.decode(&token, CALL_ID), Err(TokenError::Forged));
    let elsewhere = key.decode(&token, b"other@call.invalid");
    assert_eq!(elsewhere.is_ok(), claims.kind == TokenKind::Path);
    while !choices.is_empty() {
        let mut changed = token.clone();
        let at = choices.below(changed.len());
        match choices.below(4) {
            0 => changed[at] ^= 1 << choices.below(8),
            1 => changed.truncate(at),
            2 => changed.insert(at, choices.byte()),
            _ => changed[at] = choices.byte(),
        }
        assert!(changed == token || key.decode(&changed, CALL_ID).is_err(), "{changed:?}");
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
}

fn claims(choices: &mut Choices<'_>) -> Claims {
    let kind = choices.of(&[TokenKind::Dialog, TokenKind::Path]);
    let mut key = || ClientKey::from_bits(u64::from(choices.byte()) << choices.below(57));
    let (caller_key, callee_key) = (key(), key());
    let (caller, callee) = (end(choices), end(choices));
    let is_dialled = callee.is_none() && choices.below(2) == 1;
    let dialled = is_dialled.then(|| (Transport::Tls, ([192, 0, 2, 7], 5061).into()));
    Claims { kind, caller, callee, dialled, caller_key, callee_key }
}

fn end(choices: &mut Choices<'_>) -> Option<FlowRef> {
    let form = choices.below(4);
    let listener = ListenerId(u16::from_be_bytes([choices.byte(), choices.byte()]));
    match form {
        0 => None,
        1 | 2 => {
            let flow = FlowId::from_bits(number(choices) as u64);
            let transport = choices.of(&Transport::ALL);
            Some(FlowRef::Stream(StreamPath { flow, transport, listener }))
        }
        _ => {
            let (local, remote) = (address(choices), address(choices));
            Some(FlowRef::Datagram(DatagramPath { listener, local, remote }))
        }
    }
}

fn address(choices: &mut Choices<'_>) -> SocketAddr {
    let is_v6 = choices.below(2) == 1;
    let port = u16::from_be_bytes([choices.byte(), choices.byte()]);
    let ip = number(choices);
    let ip: IpAddr =
        if is_v6 { Ipv6Addr::from(ip).into() } else { Ipv4Addr::from(ip as u32).into() };
    SocketAddr::new(ip, port)
}

fn number(choices: &mut Choices<'_>) -> u128 {
    choices.take(16).iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// The most that an answer is larger than its request: an XOR-MAPPED-ADDRESS of IPv6.
const STUN_GROWTH_MAX: usize = 24;

/// A datagram that may be a STUN request (RFC 8489 §5, §14): no answer, or one that is whole, not
/// much larger, and names its source or what was not understood. The first bytes say who sends it.
pub fn stun(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let source = address(&mut choices);
    for message in [bytes, choices.take(bytes.len())] {
        let Some(Stun::Request(request)) = Stun::read(message) else { continue };
        assert!(message.len() >= 20 && message.len() % 4 == 0, "padded to 4 (RFC 8489 §5)");
        let mut answer = b"before".to_vec();
        request.write_answer(source, &mut answer);
        let answer = &answer[6..];
        assert!(answer.len() <= message.len() + STUN_GROWTH_MAX, "{} bytes", answer.len());
        let (header, mut rest) = answer.split_at(20);
        assert_eq!(header[4..], message[4..20]);
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        assert_eq!((length, length % 4), (rest.len(), 0));
        let mut kinds = Vec::new();
        while let [a, b, c, d, after @ ..] = rest {
            let kind = u16::from_be_bytes([*a, *b]);
            let (value, _) = after.split_at(usize::from(u16::from_be_bytes([*c, *d])));
            if kind == 0x0020 {
                assert_eq!(unmasked(value, &header[4..]), source);
            }
            rest = &after[value.len().next_multiple_of(4)..];
            kinds.push(kind);
        }
        // The fingerprint is there or not; before it one of two answers.
        let expected: [&[u16]; 2] = [&[0x0020], &[0x0009, 0x000a]];
        let is_success = header[..2] == [1, 1];
        assert_eq!(
            kinds.strip_suffix(&[0x8028]).unwrap_or(&kinds),
            expected[usize::from(!is_success)]
        );
    }
}

/// The address in the value of an XOR-MAPPED-ADDRESS.
fn unmasked(value: &[u8], mask: &[u8]) -> SocketAddr {
    let plain: Vec<u8> = value[4..].iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
    let ip: IpAddr = match (value[1], <[u8; 4]>::try_from(&*plain)) {
        (1, Ok(v4)) => v4.into(),
        (2, Err(_)) => <[u8; 16]>::try_from(&*plain).expect("16 bytes").into(),
        other => panic!("{other:?}"),
    };
    SocketAddr::new(ip, u16::from_be_bytes([value[2] ^ mask[0], value[3] ^ mask[1]]))
}
