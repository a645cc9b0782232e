//! Flow tokens (RFC 5626 §5.2, §5.3): the user part of our Record-Route and Path URIs, which names
//! the flow that a later request is for. Absent on purpose: what a token permits (the proxy
//! decides) and whether its flow lives (that shard's table knows).
//!
//! `ft.` and base64url of: version and kind 1 byte, both ends' forms 1, epoch 4, the caller's and the
//! callee's client key 8 each (unless none), the caller's end, the callee's end, tag 12. The tag
//! covers all of that and, for a dialog, the Call-ID.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

use crate::base::hash::{Mac, derive_key, is_equal_in_constant_time};
use crate::base::id::{
    ClientKey, DatagramPath, FlowId, FlowRef, ListenerId, StreamPath, Transport,
};

/// What every token begins with. All characters of a token are `unreserved` in a user part (RFC
/// 3261 §25.1).
pub const PREFIX: &[u8] = b"ft.";

const VERSION: u8 = 1;
const TAG: usize = 12;
const EPOCH: usize = 4;
const CLIENT_KEY: usize = 8;
/// An IPv6 address with scope and port.
const ADDRESS_MAX: usize = 16 + 4 + 2;
const END_MAX: usize = 2 + 2 * ADDRESS_MAX;
const BYTES_MIN: usize = 2 + EPOCH + TAG;
const BYTES_MAX: usize = 2 + EPOCH + 2 * CLIENT_KEY + 2 * END_MAX + TAG;

const KIND_PATH: u8 = 1;
const WITH_CALLER_KEY: u8 = 2;
const WITH_CALLEE_KEY: u8 = 4;

const END_STREAM: u8 = 1;
const END_DIALLED: u8 = 4;
const END_DATAGRAM: u8 = 8;
const LOCAL_IS_V6: u8 = 1;
const REMOTE_IS_V6: u8 = 2;

/// Which requests a token is good for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TokenKind {
    /// In a Record-Route: requests of the one dialog whose Call-ID the tag covers.
    Dialog,
    /// In a Path (RFC 3327): new requests to the client behind the flow.
    Path,
}

/// What an authentic token says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Claims {
    /// What it is good for.
    pub kind: TokenKind,
    /// Who sent the request that the token was put in, if it is a client of ours; in a Path, who
    /// registered. Of datagram addresses all but the IPv6 flow label is kept.
    pub caller: Option<FlowRef>,
    /// Who received it, if it is a client of ours; `None`: the rest of the route set or the
    /// Request-URI leads there.
    pub callee: Option<FlowRef>,
    /// The address that was dialled to reach the receiver, if `callee` is none. It leads to a
    /// connection that we open, never to one that somebody opened to us.
    pub dialled: Option<(Transport, SocketAddr)>,
    /// Names the caller over its connections.
    pub caller_key: ClientKey,
    /// Names the callee over its connections.
    pub callee_key: ClientKey,
}

impl Claims {
    /// The same in another run: no stream flow of this one is meant.
    fn outdated(self) -> Claims {
        let outdated = |end: FlowRef| match end {
            FlowRef::Stream(path) => FlowRef::Stream(StreamPath { flow: FlowId::NOWHERE, ..path }),
            datagram => datagram,
        };
        Claims { caller: self.caller.map(outdated), callee: self.callee.map(outdated), ..self }
    }
}

/// Why a user part is not a token that may be followed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum TokenError {
    /// Does not begin like a token: not ours to judge.
    NotAToken,
    /// Broken, made or changed by somebody else, or of a dialog with another Call-ID.
    Forged,
    /// Authentic, but of another run of the process: the stream flows that it names are dead, and
    /// shown as [`FlowId::NOWHERE`]; client keys still hold.
    Epoch(Box<Claims>),
}

/// Makes and checks the tokens of one run of the process.
pub struct TokenKey {
    mac: Mac,
    epoch: u32,
}

impl TokenKey {
    /// From the secret of the installation, which outlives a run, and the number of the run.
    pub fn new(secret: &[u8; 32], epoch: u32) -> TokenKey {
        TokenKey { mac: Mac::new(derive_key(secret, "flow token")), epoch }
    }

    /// Appends the token of `claims`: at most 182 characters, 57 with two stream ends, 78 when
    /// both have keys. The Call-ID
    /// is ignored for a Path.
    pub fn encode(&self, claims: &Claims, call_id: &[u8], out: &mut Vec<u8>) {
        let mut writer = Writer { bytes: [0; BYTES_MAX], len: 0 };
        let path = if claims.kind == TokenKind::Path { KIND_PATH } else { 0 };
        let keys = [(claims.caller_key, WITH_CALLER_KEY), (claims.callee_key, WITH_CALLEE_KEY)];
        let present = keys.into_iter().filter(|(key, _)| key.is_some());
        let bits = present.clone().fold(0, |bits, (_, bit)| bits | bit);
        writer.put(&[VERSION << 4 | path | bits, form(claims.caller) << 4 | far_form(claims)]);
        writer.put(&self.epoch.to_be_bytes());
        for (key, _) in present {
            writer.put(&key.to_bits().to_be_bytes());
        }
        writer.put_end(claims.caller);
        match claims.dialled.filter(|_| claims.callee.is_none()) {
            Some((transport, remote)) => writer.put_dialled(transport, remote),
            None => writer.put_end(claims.callee),
        }
        let tag = self.tag(claims.kind, writer.written(), call_id);
        writer.put(&tag);

        out.extend_from_slice(PREFIX);
        let start = out.len();
        out.resize(start + writer.len.div_ceil(3) * 4, 0);
        let encoded = BASE64_URL_SAFE_NO_PAD.encode_slice(writer.written(), &mut out[start..]);
        out.truncate(start + encoded.expect("room for whole groups"));
    }

    /// What the token in this user part says, for a request with this Call-ID.
    pub fn decode(&self, user: &[u8], call_id: &[u8]) -> Result<Claims, TokenError> {
        let text = user.strip_prefix(PREFIX).ok_or(TokenError::NotAToken)?;
        let mut bytes = [0; BYTES_MAX + 3];
        let len = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes);
        let len = len.map_err(|_| TokenError::Forged)?;
        if !(BYTES_MIN..=BYTES_MAX).contains(&len) {
            return Err(TokenError::Forged);
        }
        let (body, tag) = bytes[..len].split_at(len - TAG);
        let kind = if body[0] & KIND_PATH != 0 { TokenKind::Path } else { TokenKind::Dialog };
        if !is_equal_in_constant_time(&self.tag(kind, body, call_id), tag) {
            return Err(TokenError::Forged);
        }
        let (claims, epoch) = parse(body, kind).ok_or(TokenError::Forged)?;
        if epoch == self.epoch {
            Ok(claims)
        } else {
            Err(TokenError::Epoch(Box::new(claims.outdated())))
        }
    }

    fn tag(&self, kind: TokenKind, body: &[u8], call_id: &[u8]) -> [u8; TAG] {
        let call_id = if kind == TokenKind::Dialog { call_id } else { &[] };
        let whole = self.mac.tag(&[body, call_id]);
        std::array::from_fn(|i| whole[i])
    }
}

/// How the end is written: four bits.
fn form(end: Option<FlowRef>) -> u8 {
    match end {
        None => 0,
        Some(FlowRef::Stream(_)) => END_STREAM,
        Some(FlowRef::Datagram(path)) => {
            let local = if path.local.is_ipv6() { LOCAL_IS_V6 } else { 0 };
            let remote = if path.remote.is_ipv6() { REMOTE_IS_V6 } else { 0 };
            END_DATAGRAM | local | remote
        }
    }
}

/// How the receiver's end is written.
fn far_form(claims: &Claims) -> u8 {
    match (claims.callee, claims.dialled) {
        (None, Some((_, remote))) if remote.is_ipv6() => END_DIALLED | REMOTE_IS_V6,
        (None, Some(_)) => END_DIALLED,
        (callee, _) => form(callee),
    }
}

/// The claims and the epoch in a body whose tag was right. `None` when it is not of this version.
fn parse(body: &[u8], kind: TokenKind) -> Option<(Claims, u32)> {
    let mut reader = Reader(body);
    let [head, forms] = reader.take()?;
    if head & !(KIND_PATH | WITH_CALLER_KEY | WITH_CALLEE_KEY) != VERSION << 4 {
        return None;
    }
    let epoch = u32::from_be_bytes(reader.take()?);
    let caller_key = reader.key(head & WITH_CALLER_KEY != 0)?;
    let callee_key = reader.key(head & WITH_CALLEE_KEY != 0)?;
    let caller = reader.end(forms >> 4)?;
    let (callee, dialled) = match forms & 0xf {
        form if form & !REMOTE_IS_V6 == END_DIALLED => {
            (None, Some(reader.dialled(form & REMOTE_IS_V6 != 0)?))
        }
        form => (reader.end(form)?, None),
    };
    let claims = Claims { kind, caller, callee, dialled, caller_key, callee_key };
    reader.0.is_empty().then_some((claims, epoch))
}

struct Writer {
    bytes: [u8; BYTES_MAX],
    len: usize,
}

impl Writer {
    fn written(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn put_end(&mut self, end: Option<FlowRef>) {
        match end {
            None => {}
            Some(FlowRef::Stream(path)) => {
                self.put(&path.flow.to_bits().to_be_bytes());
                self.put(&[path.transport as u8]);
                self.put(&path.listener.0.to_be_bytes());
            }
            Some(FlowRef::Datagram(path)) => {
                self.put(&path.listener.0.to_be_bytes());
                self.put_address(path.local);
                self.put_address(path.remote);
            }
        }
    }

    fn put_dialled(&mut self, transport: Transport, remote: SocketAddr) {
        self.put(&[transport as u8]);
        self.put_address(remote);
    }

    fn put_address(&mut self, address: SocketAddr) {
        match address {
            SocketAddr::V4(v4) => self.put(&v4.ip().octets()),
            SocketAddr::V6(v6) => {
                self.put(&v6.ip().octets());
                self.put(&v6.scope_id().to_be_bytes());
            }
        }
        self.put(&address.port().to_be_bytes());
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn key(&mut self, is_there: bool) -> Option<ClientKey> {
        let bits = if is_there { u64::from_be_bytes(self.take()?) } else { 0 };
        Some(ClientKey::from_bits(bits))
    }

    fn end(&mut self, form: u8) -> Option<Option<FlowRef>> {
        match form {
            0 => Some(None),
            END_STREAM => {
                let flow = FlowId::from_bits(u64::from_be_bytes(self.take()?));
                let [transport] = self.take()?;
                let transport = *Transport::ALL.get(usize::from(transport))?;
                let listener = ListenerId(u16::from_be_bytes(self.take()?));
                Some(Some(FlowRef::Stream(StreamPath { flow, transport, listener })))
            }
            form if form & !(LOCAL_IS_V6 | REMOTE_IS_V6) == END_DATAGRAM => {
                let listener = ListenerId(u16::from_be_bytes(self.take()?));
                let local = self.address(form & LOCAL_IS_V6 != 0)?;
                let remote = self.address(form & REMOTE_IS_V6 != 0)?;
                Some(Some(FlowRef::Datagram(DatagramPath { listener, local, remote })))
            }
            _ => None,
        }
    }

    fn dialled(&mut self, is_v6: bool) -> Option<(Transport, SocketAddr)> {
        let [transport] = self.take()?;
        let transport = *Transport::ALL.get(usize::from(transport))?;
        let is_dialled = matches!(transport, Transport::Tcp | Transport::Tls | Transport::Udp);
        is_dialled.then_some((transport, self.address(is_v6)?))
    }

    fn address(&mut self, is_v6: bool) -> Option<SocketAddr> {
        if is_v6 {
            let ip = Ipv6Addr::from(self.take::<16>()?);
            let scope = u32::from_be_bytes(self.take()?);
            let port = u16::from_be_bytes(self.take()?);
            Some(SocketAddrV6::new(ip, port, 0, scope).into())
        } else {
            let ip = Ipv4Addr::from(self.take::<4>()?);
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be_bytes(self.take()?)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::ShardId;
    use crate::base::rng::Rng;

    const CALL_ID: &[u8] = b"a84b4c76e66710@pc33.example.com";

    fn key(epoch: u32) -> TokenKey {
        TokenKey::new(&[9; 32], epoch)
    }

    fn stream(flow: FlowId, transport: Transport) -> Option<FlowRef> {
        Some(FlowRef::Stream(StreamPath { flow, transport, listener: ListenerId(3) }))
    }

    fn ends() -> Vec<Option<FlowRef>> {
        let datagram = |local: &str, remote: &str| {
            let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
            Some(FlowRef::Datagram(DatagramPath { listener: ListenerId(513), local, remote }))
        };
        vec![
            None,
            stream(FlowId::new(ShardId(1023), 77, 0x0100_0001), Transport::Wss),
            stream(FlowId::from_bits(u64::MAX), Transport::Tcp),
            datagram("192.0.2.1:5060", "198.51.100.2:65535"),
            datagram("[2001:db8::1]:5060", "[2001:db8::2]:40000"),
            datagram("[fe80::1%3]:5060", "[fe80::2%4]:40000"),
            datagram("[::]:5060", "198.51.100.2:1"),
        ]
    }

    fn every_claim() -> Vec<Claims> {
        let mut all = Vec::new();
        for kind in [TokenKind::Dialog, TokenKind::Path] {
            for caller in ends() {
                for callee in ends() {
                    for keys in [[0, 0], [u64::MAX - 5, 0], [0, 1 << 40], [1, u64::MAX]] {
                        let [caller_key, callee_key] = keys.map(ClientKey::from_bits);
                        let dialled = None;
                        all.push(Claims { kind, caller, callee, dialled, caller_key, callee_key });
                    }
                }
                for remote in ["192.0.2.7:5060", "[2001:db8::7]:65535"] {
                    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
                        let remote = remote.parse().expect("an address");
                        let dialled = Some((transport, remote));
                        let (caller_key, callee_key) = (ClientKey::from_bits(3), ClientKey::NONE);
                        let callee = None;
                        all.push(Claims { kind, caller, callee, dialled, caller_key, callee_key });
                    }
                }
            }
        }
        all
    }

    fn encode(claims: &Claims) -> Vec<u8> {
        let mut out = b"before".to_vec();
        key(1).encode(claims, CALL_ID, &mut out);
        out.split_off(6)
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for claims in every_claim() {
            let token = encode(&claims);
            assert_eq!(key(1).decode(&token, CALL_ID), Ok(claims));
            assert!(token.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c)));
            assert!(token.len() <= 182);
        }
    }

    #[test]
    fn two_streams_make_a_short_token() {
        let caller = ends()[1];
        let (caller_key, callee_key) = (ClientKey::NONE, ClientKey::NONE);
        let (kind, callee, dialled) = (TokenKind::Dialog, caller, None);
        let plain = Claims { kind, caller, callee, dialled, caller_key, callee_key };
        assert_eq!(encode(&plain).len(), 57);
        let key = ClientKey::from_bits(7);
        assert_eq!(encode(&Claims { caller_key: key, callee_key: key, ..plain }).len(), 78);
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        for claims in every_claim() {
            let token = encode(&claims);
            for bit in 0..token.len() * 8 {
                let mut wrong = token.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                let refused = key(1).decode(&wrong, CALL_ID).unwrap_err();
                assert_eq!(refused == TokenError::NotAToken, bit < 24);
                assert!(!matches!(refused, TokenError::Epoch(_)));
            }
        }
    }

    #[test]
    fn truncated_and_lengthened_tokens_are_refused() {
        for claims in every_claim() {
            let token = encode(&claims);
            for len in 0..token.len() {
                assert!(key(1).decode(&token[..len], CALL_ID).is_err());
            }
            for more in [&b"A"[..], b"AA", b"AAAA", &[b'A'; 300], b"="] {
                assert!(key(1).decode(&[&token, more].concat(), CALL_ID).is_err());
            }
        }
    }

    #[test]
    fn a_dialog_token_is_for_one_call_id_and_a_path_token_for_any() {
        for claims in every_claim() {
            let token = encode(&claims);
            for other in [&b""[..], b"another", &CALL_ID[1..], &CALL_ID.to_ascii_uppercase()] {
                let expected = match claims.kind {
                    TokenKind::Dialog => Err(TokenError::Forged),
                    TokenKind::Path => Ok(claims),
                };
                assert_eq!(key(1).decode(&token, other), expected);
            }
        }
    }

    #[test]
    fn another_epoch_is_told_from_another_secret() {
        for claims in every_claim() {
            let token = encode(&claims);
            assert_eq!(
                key(2).decode(&token, CALL_ID),
                Err(TokenError::Epoch(Box::new(claims.outdated())))
            );
            let ends = [claims.outdated().caller, claims.outdated().callee];
            let named = ends.iter().flatten().filter_map(|end| end.stream());
            assert!(named.into_iter().all(|flow| flow == FlowId::NOWHERE));
            let stranger = TokenKey::new(&[8; 32], 1);
            assert_eq!(stranger.decode(&token, CALL_ID), Err(TokenError::Forged));
        }
    }

    #[test]
    fn an_authentic_body_of_another_version_or_form_is_refused() {
        let key = key(1);
        let mut wrong = [[VERSION << 4, 0], [VERSION << 4, 0x30], [VERSION << 4, 0x0f]];
        wrong[0][0] = (VERSION + 1) << 4;
        for head in wrong {
            let body = [&head[..], &1_u32.to_be_bytes()].concat();
            let tag = key.tag(TokenKind::Dialog, &body, CALL_ID);
            let text = BASE64_URL_SAFE_NO_PAD.encode([&body[..], &tag].concat());
            let token = [PREFIX, text.as_bytes()].concat();
            assert_eq!(key.decode(&token, CALL_ID), Err(TokenError::Forged));
        }
    }

    #[test]
    fn other_users_are_not_judged() {
        for user in [&b""[..], b"ft", b"alice", b"FT.AAAA", b"1000"] {
            assert_eq!(key(1).decode(user, CALL_ID), Err(TokenError::NotAToken));
        }
        for user in [&b"ft."[..], b"ft.smith", b"ft.\xff\0"] {
            assert_eq!(key(1).decode(user, CALL_ID), Err(TokenError::Forged));
        }
        let mut rng = Rng::new([6; 32]);
        for _ in 0..5_000 {
            let mut user = vec![0; rng.below(250) as usize];
            rng.fill(&mut user);
            if rng.below(2) == 0 {
                user = [PREFIX, BASE64_URL_SAFE_NO_PAD.encode(&user).as_bytes()].concat();
            }
            assert!(key(1).decode(&user, CALL_ID).is_err());
        }
    }
}
