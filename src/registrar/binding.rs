//! One binding (RFC 3261 §10, RFC 5626 §6): an address of record, a Contact, and how to get there.
//! Compact: a fixed part and one block of bytes, since there may be millions. Absent on purpose:
//! rules.

use std::net::SocketAddr;
use std::num::NonZeroU64;

use crate::base::host::parse_ip;
use crate::base::id::{
    ClientKey, DatagramPath, FlowId, FlowRef, ListenerId, StreamPath, Transport,
};
use crate::base::limits::BINDING_BYTES_MAX;
use crate::base::metrics::RoundTrip;
use crate::base::time::Time;
use crate::base::users::UserMark;
use crate::sip::Uri;

use super::links::{LISTS, Links};

/// How a request gets to a binding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BindingFlow {
    /// On the flow that the REGISTER came by. A stream flow takes its binding along when it ends.
    Flow(FlowRef),
    /// By the values of [`Binding::path`] as Route (RFC 3327 §5.4). Without any (REGISTERed through
    /// a hop that added none, or a foreign Contact that is to be resolved): by the Contact itself,
    /// under the relay rules.
    Path,
    /// On this flow, once, which was lost; on the next one of the same client when that comes. The
    /// flow has no name if it was lost with a former run of the process.
    Suspended(StreamPath),
    /// To the Contact's own address and port over [`Binding::transport`]: it is the address that
    /// the REGISTER came from, so that no relay rule applies.
    Dial,
    /// Not at all, until somebody registers it again: its stream flow ended with a former run of the
    /// process, and its client proved nothing by which it could be known again.
    Lost,
}

/// One Contact of one address of record. What a look-up reads stands together, on two cache lines:
/// where the next one is, whose it is, whether it is in force, how to get there.
#[derive(Debug)]
#[repr(C)]
pub struct Binding {
    pub(super) links: [Links; LISTS],
    /// The bytes, one part after the other, in the order of [`Parts`].
    block: Box<[u8]>,
    parts: Parts,
    /// How long a ping and its answer took last.
    pub(super) round_trip: Option<RoundTrip>,
    pub(super) facts: Facts,
}

/// The part of a binding that is not bytes.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Facts {
    pub(super) expires_at: Time,
    pub(super) way: Way,
    pub(super) listener: ListenerId,
    pub(super) q: u16,
    pub(super) transport: Transport,
    pub(super) tenure: Tenure,
    pub(super) ob: bool,
    /// Pings in a row that were not answered.
    pub(super) missed: u8,
    /// Of the client behind a stream flow, if it proved who it is.
    pub(super) client: ClientKey,
    /// Its name in the store.
    pub(super) id: u64,
    /// Keyed hash of the address of record.
    pub(super) aor_hash: u64,
    /// Keyed hash of the canonical Contact; `None` when it is not to be found by it.
    pub(super) contact_hash: Option<NonZeroU64>,
    /// Bucket of the expiry list that it stands in: not after that of `expires_at`.
    pub(super) bucket: u32,
    pub(super) cseq: u32,
    /// The second of the process' clock in which it was registered last; 0 since a former run.
    pub(super) since: u32,
    /// Which registration of its instance it belongs to: a random number that stays while the
    /// Call-ID does (RFC 5627 §5.1). 0 without an instance.
    pub(super) registration: u32,
    /// 0: none.
    pub(super) reg_id: u32,
    /// Which user of the users file registered it last.
    pub(super) user: UserMark,
}

/// Whose a binding is, and what becomes of it when its stream flow has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tenure {
    /// Ours; it goes with its flow.
    Bound,
    /// Ours; its Contact is dialled from then on.
    Dialable,
    /// Another registrar's, which we only know of; it goes with its flow.
    Shadow,
}

impl Facts {
    /// Whether nobody but us keeps the way open: a datagram's source that is not the client's own
    /// address, of a client that did not promise to keep its flow alive (RFC 5626 §4.4.2).
    pub(super) fn needs_pings(&self) -> bool {
        matches!(self.way, Way::Datagram(_)) && self.reg_id == 0 && !self.ob
    }
}

/// [`BindingFlow`] without what [`Facts`] hold anyway; the rare datagram addresses stand apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Stream(FlowId),
    Suspended(FlowId),
    Datagram(Box<DatagramPath>),
    Path,
    Dial,
    Lost,
}

impl Way {
    pub(super) fn stream(&self) -> Option<FlowId> {
        match self {
            Way::Stream(flow) => Some(*flow),
            _ => None,
        }
    }
}

/// Where the parts of a block begin; the address of record begins at 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Parts {
    contact: u16,
    call_id: u16,
    params: u16,
    path: u16,
    /// The instance within the parameters; empty when there is none.
    instance: (u16, u16),
}

/// The bytes of a binding while it is being made, in a buffer that is used again.
#[derive(Default, Debug)]
pub(super) struct Draft {
    bytes: Vec<u8>,
    parts: Parts,
}

/// What a [`Draft`] is made from.
pub(super) struct DraftParts<'a> {
    pub(super) aor: &'a [u8],
    pub(super) contact: &'a [u8],
    pub(super) call_id: &'a [u8],
    /// Parameters to be shown again, each with its semicolon before it.
    pub(super) params: &'a [u8],
    /// Where the value of `+sip.instance` stands in `params`.
    pub(super) instance: Option<(usize, usize)>,
    /// Path values, each but the last with a line feed behind it.
    pub(super) path: &'a [u8],
}

impl Draft {
    /// Fills the draft. Panics when it would exceed [`BINDING_BYTES_MAX`]: that has been checked.
    pub(super) fn fill(&mut self, from: &DraftParts<'_>) {
        let parts = [from.aor, from.contact, from.call_id, from.params, from.path];
        assert!(parts.iter().map(|part| part.len()).sum::<usize>() <= BINDING_BYTES_MAX);
        self.bytes.clear();
        let mut starts = [0_u16; 5];
        for (start, part) in starts.iter_mut().zip(parts) {
            *start = self.bytes.len() as u16;
            self.bytes.extend_from_slice(part);
        }
        let [_, contact, call_id, params, path] = starts;
        let instance = from
            .instance
            .map_or((0, 0), |(start, end)| (params + start as u16, params + end as u16));
        self.parts = Parts { contact, call_id, params, path, instance };
    }
}

impl Draft {
    fn contact(&self) -> &[u8] {
        &self.bytes[usize::from(self.parts.contact)..usize::from(self.parts.call_id)]
    }
}

const _: () = assert!(BINDING_BYTES_MAX <= u16::MAX as usize);

impl Binding {
    pub(super) fn new(draft: &Draft, facts: Facts) -> Binding {
        let block = draft.bytes.as_slice().into();
        Binding { links: [Links::NONE; LISTS], block, parts: draft.parts, round_trip: None, facts }
    }

    /// Takes over bytes and facts; the block is left alone when nothing in it changed, as in a
    /// refresh.
    pub(super) fn update(&mut self, draft: &Draft, facts: Facts) {
        if *self.block != draft.bytes[..] {
            self.block = draft.bytes.as_slice().into();
        }
        self.parts = draft.parts;
        self.facts = facts;
    }

    /// The canonical address of record: `user@host`.
    pub fn aor(&self) -> &[u8] {
        &self.block[..usize::from(self.parts.contact)]
    }

    /// The Contact URI as it was registered, byte for byte.
    pub fn contact(&self) -> &[u8] {
        &self.block[usize::from(self.parts.contact)..usize::from(self.parts.call_id)]
    }

    /// The Call-ID of the REGISTER that changed it last.
    pub fn call_id(&self) -> &[u8] {
        &self.block[usize::from(self.parts.call_id)..usize::from(self.parts.params)]
    }

    /// The Contact's header field parameters but q and expires, each with its semicolon before it.
    pub fn params(&self) -> &[u8] {
        &self.block[usize::from(self.parts.params)..usize::from(self.parts.path)]
    }

    /// The Path values in their order, the first hop of a request first (RFC 3327 §5.3).
    pub fn path(&self) -> impl Iterator<Item = &[u8]> {
        let path = &self.block[usize::from(self.parts.path)..];
        path.split(|byte| *byte == b'\n').filter(|value| !value.is_empty())
    }

    /// The value of `+sip.instance` as it was registered, angle brackets included, quotes not (RFC
    /// 5626 §4.1).
    pub fn instance(&self) -> Option<&[u8]> {
        let (start, end) = self.parts.instance;
        (end > start).then(|| &self.block[usize::from(start)..usize::from(end)])
    }

    /// Where the instance stands in [`Binding::params`]; 0 and 0 when there is none.
    pub(super) fn instance_span(&self) -> (u16, u16) {
        let (start, end) = self.parts.instance;
        if end > start { (start - self.parts.params, end - self.parts.params) } else { (0, 0) }
    }

    /// The Path values, each but the last with a line feed behind it.
    pub(super) fn path_text(&self) -> &[u8] {
        &self.block[usize::from(self.parts.path)..]
    }

    /// The reg-id, 0 for none (RFC 5626 §4.2). Never without an instance.
    pub fn reg_id(&self) -> u32 {
        self.facts.reg_id
    }

    /// The preference in thousandths, 1000 when none was given (RFC 3261 §20.10).
    pub fn q(&self) -> u16 {
        self.facts.q
    }

    /// When it ends.
    pub fn expires_at(&self) -> Time {
        self.facts.expires_at
    }

    /// The CSeq number of the REGISTER that changed it last.
    pub fn cseq(&self) -> u32 {
        self.facts.cseq
    }

    /// The number of the registration that temporary GRUUs of its instance are made for (RFC 5627
    /// §5.1): another Call-ID makes another. 0 without an instance.
    pub fn registration(&self) -> u32 {
        self.facts.registration
    }

    /// Whether the Contact URI has the `ob` parameter (RFC 5626 §5.4).
    pub fn ob(&self) -> bool {
        self.facts.ob
    }

    /// What the REGISTER came over. That a binding is secure is this transport's property, not its
    /// Contact's.
    pub fn transport(&self) -> Transport {
        self.facts.transport
    }

    /// The listener that the REGISTER came to.
    pub fn listener(&self) -> ListenerId {
        self.facts.listener
    }

    /// How a request gets there.
    pub fn flow(&self) -> BindingFlow {
        match &self.facts.way {
            Way::Stream(flow) => BindingFlow::Flow(FlowRef::Stream(self.path_of(*flow))),
            Way::Suspended(flow) => BindingFlow::Suspended(self.path_of(*flow)),
            Way::Datagram(path) => BindingFlow::Flow(FlowRef::Datagram(**path)),
            Way::Path => BindingFlow::Path,
            Way::Dial => BindingFlow::Dial,
            Way::Lost if self.client().is_some() => {
                BindingFlow::Suspended(self.path_of(FlowId::NOWHERE))
            }
            Way::Lost => BindingFlow::Lost,
        }
    }

    fn path_of(&self, flow: FlowId) -> StreamPath {
        StreamPath { flow, transport: self.facts.transport, listener: self.facts.listener }
    }

    /// The client behind its flow; none if that did not prove who it is.
    pub fn client(&self) -> ClientKey {
        self.facts.client
    }

    /// Whether its flow was lost and its client may come back yet.
    pub fn is_suspended(&self) -> bool {
        matches!(self.facts.way, Way::Suspended(_))
    }

    /// The stream flow that it goes with.
    pub fn stream(&self) -> Option<FlowId> {
        self.facts.way.stream()
    }

    /// The address and port that its Contact names, to be dialled; `None` when it names a host.
    pub fn dialled(&self) -> Option<SocketAddr> {
        let uri = Uri::parse(self.contact()).ok()?;
        let port = uri.port.unwrap_or(self.transport().default_port());
        Some(SocketAddr::new(parse_ip(uri.host)?, port))
    }

    /// The address that datagrams for it are sent to, unless a Path leads there.
    pub(super) fn datagrams_to(&self) -> Option<SocketAddr> {
        match &self.facts.way {
            Way::Datagram(path) => Some(path.remote),
            Way::Dial if self.facts.transport == Transport::Udp => self.dialled(),
            _ => None,
        }
    }

    /// Whether `way`, with the Contact of `draft`, leads to the same flow or address as its own.
    pub(super) fn is_reached_as(&self, way: &Way, draft: &Draft) -> bool {
        self.facts.way == *way && (*way != Way::Dial || self.contact() == draft.contact())
    }

    /// Whether its flow was lost with a former run of the process.
    pub fn is_lost(&self) -> bool {
        self.facts.way == Way::Lost
    }

    /// Whether its flow was lost, in this run or a former one.
    pub fn is_away(&self) -> bool {
        self.is_suspended() || self.is_lost()
    }

    /// Whether it is still in force.
    pub fn is_live(&self, now: Time) -> bool {
        self.facts.expires_at > now
    }

    /// Whether it can be found by its Contact ([`super::Location::contact_match`]).
    pub fn is_indexed(&self) -> bool {
        self.facts.contact_hash.is_some()
    }

    /// Whether it is the shadow of a binding that a registrar behind us holds.
    pub fn is_shadow(&self) -> bool {
        self.facts.tenure == Tenure::Shadow
    }

    /// Whether it is a binding of that instance.
    pub fn is_of(&self, instance: &[u8]) -> bool {
        self.instance().is_some_and(|ours| is_same_instance(ours, instance))
    }

    /// Whether it is the binding of that instance and reg-id (RFC 5626 §6).
    pub(super) fn is_of_instance(&self, instance: &[u8], reg_id: u32) -> bool {
        self.facts.reg_id == reg_id && self.is_of(instance)
    }
}

/// Instances are URNs: those with a UUID compare without case (RFC 4122 §3), others byte by byte.
pub(super) fn is_same_instance(one: &[u8], other: &[u8]) -> bool {
    one == other || is_uuid(one) && one.eq_ignore_ascii_case(other)
}

/// Whether an instance, in angle brackets or not, is a URN of a UUID, whose case means nothing.
pub(super) fn is_uuid(instance: &[u8]) -> bool {
    const UUID: &[u8] = b"urn:uuid:";
    let urn = instance.strip_prefix(b"<").unwrap_or(instance);
    urn.get(..UUID.len()).is_some_and(|start| start.eq_ignore_ascii_case(UUID))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_gives_its_parts_back() {
        let params = b";reg-id=1;+sip.instance=\"<urn:uuid:A>\"";
        let from = DraftParts {
            aor: b"alice@example.com",
            contact: b"sip:x@y.invalid;transport=ws",
            call_id: b"1@y",
            params,
            instance: Some((25, params.len() - 1)),
            path: b"<sip:a;lr>\n<sip:b;lr>",
        };
        let mut draft = Draft::default();
        draft.fill(&from);
        let binding = Binding::new(&draft, facts());
        assert_eq!(binding.aor(), from.aor);
        assert_eq!(binding.contact(), from.contact);
        assert_eq!(binding.call_id(), from.call_id);
        assert_eq!(binding.params(), from.params);
        assert_eq!(binding.instance(), Some(&b"<urn:uuid:A>"[..]));
        assert!(binding.path().eq([&b"<sip:a;lr>"[..], b"<sip:b;lr>"]));
        assert!(binding.is_of_instance(b"<URN:uuid:a>", 1));
        assert!(!binding.is_of_instance(b"<urn:uuid:a>", 2));
    }

    #[test]
    fn the_fixed_part_stays_small() {
        assert!(size_of::<Binding>() <= 152, "{}", size_of::<Binding>());
    }

    fn facts() -> Facts {
        Facts {
            id: 0,
            aor_hash: 0,
            contact_hash: None,
            expires_at: Time::ZERO,
            bucket: 0,
            way: Way::Dial,
            client: ClientKey::NONE,
            cseq: 1,
            since: 0,
            registration: 0,
            reg_id: 1,
            q: 1000,
            listener: ListenerId(0),
            transport: Transport::Wss,
            ob: false,
            tenure: Tenure::Bound,
            missed: 0,
            user: UserMark::NONE,
        }
    }
}
