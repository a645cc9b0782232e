//! One REGISTER (RFC 3261 §10.3, RFC 3327 §5.3, RFC 5626 §6): checked in the RFC's order, then all
//! of its changes are made or none. Absent on purpose: whether the Request-URI's domain is ours,
//! authentication and whether the sender may register this address of record (steps 1, 3 and 4):
//! the caller has answered them.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use smallvec::SmallVec;

use crate::base::config::Config;
use crate::base::hash::KeyedHash;
use crate::base::id::{ClientKey, FlowId, FlowRef, StreamPath};
use crate::base::time::Time;
use crate::base::users::UserMark;
use crate::sip::{HeaderName, Message, NameAddr, Scheme, Uri};

use super::answer::{contact_line, line, number_line, push_unfolded, warning_line};
use super::binding::{Binding, Draft};
use super::contact::EXPIRES_IF_MALFORMED;
use super::gruu::{self, GruuKey};
use super::location::{Location, Owner};
use super::paths::PathClaim;
use super::plan::Plan;
use super::terms::read_contact;

/// Option tags that may stand in Require (RFC 3327, RFC 5626, RFC 5627 §5.1).
const SUPPORTED: [&[u8]; 3] = [b"path", b"outbound", b"gruu"];

/// Why a `*` is refused.
pub(super) const STAR_MISUSED: &str = "Contact * needs Expires 0 and no other";

/// What a REGISTER's circumstances are.
pub struct RegisterContext<'a> {
    /// When it came.
    pub now: Time,
    /// What it came by.
    pub source: FlowRef,
    /// The address it came from.
    pub source_ip: IpAddr,
    /// The configuration in force.
    pub config: &'a Config,
    /// Whether a URI's host and port are one of our listeners or its advertised name.
    pub names_us: &'a dyn Fn(&Uri<'_>) -> bool,
    /// A random number: how far below the highest this expiry is granted, which registration of
    /// its instance this is, and what temporary GRUUs are made with.
    pub random: u64,
    /// No binding is granted longer: its client's token ends then.
    pub longest: Option<Duration>,
    /// The second of the process' clock at which we made the nonce that the sender answered, which
    /// went to `source` alone; absent when nothing shows that it hears what is sent there.
    pub answers: Option<u32>,
    /// Which user of the users file its sender proved to be.
    pub user: UserMark,
    /// Makes client keys; absent when the sender proved nothing, or need not be found again.
    pub client_hash: Option<&'a KeyedHash>,
    /// Makes GRUUs.
    pub gruu_key: &'a GruuKey,
    /// Seconds for Flow-Timer, if the client is to be told (RFC 5626 §11.1).
    pub flow_timer: Option<u32>,
    /// It was accepted before, and its transaction is forgotten (RFC 3261 §17.2.2): it changes
    /// nothing, whatever happened since, and is told of the bindings that there are.
    pub is_repeated: bool,
}

/// What came of a REGISTER; used again for the next one.
#[derive(Default)]
pub struct Registered {
    /// The stream flow that bindings of this REGISTER go with from now on.
    pub bound: Option<FlowId>,
    /// Stream flows that no binding of the table goes with any more.
    pub released: SmallVec<[FlowId; 2]>,
    /// The clients that came by it.
    pub came: SmallVec<[Came; 1]>,
    /// The clients whose bindings it removed.
    pub left: SmallVec<[ClientKey; 1]>,
    /// The association that it was sent by, where its client was not before and shows that it is.
    pub claim: Option<PathClaim>,
    pub(super) headers: Vec<u8>,
    /// The canonical Contacts that `added` and `removed` name.
    pub(super) contacts: Vec<u8>,
    pub(super) added: SmallVec<[Range<usize>; 2]>,
    pub(super) removed: SmallVec<[Range<usize>; 2]>,
    pub(super) aor: Vec<u8>,
    /// Of the address of record, in the table that owns it.
    pub(super) aor_hash: u64,
    pub(super) path: Vec<u8>,
    pub(super) params: Vec<u8>,
    pub(super) draft: Draft,
}

/// A client that proved who it is and registered on the flow of its REGISTER.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Came {
    /// Who.
    pub client: ClientKey,
    /// The flow that its binding went with before, if that was another one and was not lost.
    pub former: Option<StreamPath>,
}

/// Why a REGISTER is refused. Its header lines, Warning among them, are [`Registered::headers`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reject {
    /// The status of the answer.
    pub status: u16,
    /// Its reason phrase where the usual one says too little.
    pub phrase: Option<&'static str>,
}

impl Registered {
    /// Whole header lines for the answer, be it 200 or a refusal.
    pub fn headers(&self) -> &[u8] {
        &self.headers
    }

    /// The canonical address of record; empty when the REGISTER was refused before it was read.
    pub fn aor(&self) -> &[u8] {
        &self.aor
    }

    /// Canonical Contacts (see [`super::canonical_contact`]) of bindings that are new, or reached
    /// on another flow than before; without those that a Path leads to.
    pub fn added(&self) -> impl Iterator<Item = &[u8]> {
        self.added.iter().map(|range| &self.contacts[range.clone()])
    }

    /// Canonical Contacts of bindings that are gone.
    pub fn removed(&self) -> impl Iterator<Item = &[u8]> {
        self.removed.iter().map(|range| &self.contacts[range.clone()])
    }

    pub(super) fn owner(&self) -> Owner<'_> {
        Owner { aor: &self.aor, hash: self.aor_hash }
    }

    pub(super) fn clear(&mut self) {
        self.bound = None;
        self.came.clear();
        self.left.clear();
        self.released.clear();
        self.claim = None;
        self.headers.clear();
        self.contacts.clear();
        self.added.clear();
        self.removed.clear();
        self.aor.clear();
        self.path.clear();
    }
}

/// Applies a REGISTER to the table that owns its address of record. On success the answer is 200
/// with [`Registered::headers`]; on [`Reject`] nothing has changed. 401: its nonce proves who it is,
/// but not where; it is to be challenged again.
pub fn register(
    location: &mut Location,
    request: Message<'_>,
    context: &RegisterContext<'_>,
    out: &mut Registered,
) -> Result<(), Reject> {
    out.clear();
    check_require(request, context, out)?;
    let sender = Sender::read(request, context, out)?;
    out.aor_hash = location.owner(&out.aor).hash;
    if context.is_repeated {
        let is_outbound = sender.has_reg_id(out)? && sender.supports_outbound;
        answer(location, &sender, is_outbound, out);
        return Ok(());
    }
    let plan = match sender.contacts(out)? {
        Contacts::None => Plan::default(),
        Contacts::All => Plan::remove_all(&sender, location, out)?,
        Contacts::Listed => Plan::of_contacts(&sender, location, out)?,
    };
    let is_outbound = plan.has_reg_id() && sender.supports_outbound;
    plan.commit(&sender, location, out);
    answer(location, &sender, is_outbound, out);
    Ok(())
}

/// A refusal whose Warning says why.
pub(super) fn reject(
    context: &RegisterContext<'_>,
    status: u16,
    why: &'static str,
    out: &mut Registered,
) -> Reject {
    warning_line(&context.config.node.name, why, &mut out.headers);
    let phrase = (status == 400).then_some(why);
    Reject { status, phrase }
}

/// What a REGISTER says besides its Contacts.
pub(super) struct Sender<'a> {
    pub(super) request: Message<'a>,
    pub(super) context: &'a RegisterContext<'a>,
    pub(super) call_id: &'a [u8],
    pub(super) cseq: u32,
    /// Nobody stands between the client and us: one Via.
    pub(super) is_direct: bool,
    pub(super) has_path: bool,
    /// Of the To, which names the address of record.
    to: Uri<'a>,
    supports_gruu: bool,
    pub(super) supports_outbound: bool,
    /// A reg-id counts: the client's first hop keeps its flow (RFC 5626 §6).
    pub(super) takes_outbound: bool,
    /// Of the Expires header field.
    pub(super) expires: Option<u32>,
    /// Another registrar has accepted it.
    pub(super) shadow: bool,
}

/// The kinds of Contact that a REGISTER has.
enum Contacts {
    /// A query.
    None,
    /// `*`.
    All,
    /// Addresses.
    Listed,
}

impl<'a> Sender<'a> {
    fn read(
        request: Message<'a>,
        context: &'a RegisterContext<'a>,
        out: &mut Registered,
    ) -> Result<Sender<'a>, Reject> {
        let (Some(call_id), Ok(cseq)) = (request.call_id(), request.cseq()) else {
            return Err(reject(context, 400, "Malformed Call-ID or CSeq", out));
        };
        for value in request.values(HeaderName::Path) {
            // It becomes the Route of requests for this binding (RFC 3327 §5.3).
            if NameAddr::parse(value.text).and_then(|address| Uri::parse(address.uri)).is_err() {
                return Err(reject(context, 400, "Malformed Path", out));
            }
            if !out.path.is_empty() {
                out.path.push(b'\n');
            }
            push_unfolded(value.text, &mut out.path);
        }
        let has_path = !out.path.is_empty();
        let supported = Supported::read(request);
        if has_path && !supported.path {
            line("Unsupported", b"path", &mut out.headers);
            return Err(reject(context, 420, "Path without Supported: path", out));
        }
        let to = read_aor(request, context, out)?;
        let is_direct = !request.has_many(HeaderName::Via);
        Ok(Sender {
            request,
            context,
            call_id,
            cseq: cseq.number,
            is_direct,
            has_path,
            to,
            supports_gruu: supported.gruu,
            supports_outbound: supported.outbound,
            takes_outbound: is_direct || first_hop_has_ob(&out.path),
            expires: request.expires().unwrap_or(Some(EXPIRES_IF_MALFORMED)),
            shadow: false,
        })
    }

    /// Who registers at another registrar; `None` when that is not the client itself, or for an
    /// address of record that is not of ours.
    pub(super) fn of_shadow(
        request: Message<'a>,
        context: &'a RegisterContext<'a>,
        out: &mut Registered,
    ) -> Option<Sender<'a>> {
        let (call_id, cseq) = (request.call_id()?, request.cseq().ok()?);
        let is_first_hop = !request.has_many(HeaderName::Via);
        if !is_first_hop || request.header(HeaderName::Path).is_some() {
            return None;
        }
        let to = read_aor(request, context, out).ok()?;
        let supported = Supported::read(request);
        Some(Sender {
            request,
            context,
            call_id,
            cseq: cseq.number,
            is_direct: true,
            has_path: false,
            to,
            supports_gruu: supported.gruu,
            supports_outbound: supported.outbound,
            takes_outbound: true,
            expires: None,
            shadow: true,
        })
    }

    /// RFC 3261 §10.3 step 6.
    fn contacts(&self, out: &mut Registered) -> Result<Contacts, Reject> {
        let mut values = self.request.values(HeaderName::Contact);
        let Some(first) = values.next() else { return Ok(Contacts::None) };
        if first.text != b"*" {
            return Ok(Contacts::Listed);
        }
        if values.next().is_some() || self.expires != Some(0) {
            return Err(reject(self.context, 400, STAR_MISUSED, out));
        }
        Ok(Contacts::All)
    }

    /// Whether a Contact has a reg-id that counts.
    fn has_reg_id(&self, out: &mut Registered) -> Result<bool, Reject> {
        for value in self.request.values(HeaderName::Contact).filter(|it| it.text != b"*") {
            if read_contact(self, value.text, out)?.reg_id != 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The address of record as the client wrote it, when it asks for GRUUs (RFC 5627 §5.2).
    fn gruu_aor(&self) -> Option<&Uri<'a>> {
        self.supports_gruu.then_some(&self.to)
    }

    /// Another for each Contact and, but for a chance of 2^-64, for each REGISTER.
    fn seed(&self, index: usize) -> [u8; 12] {
        let mut seed = [0; 12];
        seed[..8].copy_from_slice(&self.context.random.to_be_bytes());
        seed[8..].copy_from_slice(&(index as u32).to_be_bytes());
        seed
    }

    /// Whether a REGISTER of ours may change the binding: another Call-ID, or a higher CSeq (RFC
    /// 3261 §10.3 steps 6 and 7).
    pub(super) fn may_change(&self, binding: &Binding) -> bool {
        binding.call_id() != self.call_id || self.cseq > binding.cseq()
    }

    /// Whether a later REGISTER of the same Call-ID made the binding what it is, as long as that
    /// lasts.
    pub(super) fn is_overtaken(&self, binding: &Binding) -> bool {
        let is_later = binding.call_id() == self.call_id && self.cseq < binding.cseq();
        is_later && binding.is_live(self.context.now)
    }
}

/// RFC 3261 §10.3 step 2, §8.2.2.3.
fn check_require(
    request: Message<'_>,
    context: &RegisterContext<'_>,
    out: &mut Registered,
) -> Result<(), Reject> {
    for value in request.values(HeaderName::Require) {
        if !SUPPORTED.iter().any(|tag| tag.eq_ignore_ascii_case(value.text)) {
            line("Unsupported", value.text, &mut out.headers);
        }
    }
    match out.headers.is_empty() {
        true => Ok(()),
        false => Err(reject(context, 420, "Required extension not supported", out)),
    }
}

/// RFC 3261 §10.3 step 5. Gives back the URI of the To.
fn read_aor<'a>(
    request: Message<'a>,
    context: &RegisterContext<'_>,
    out: &mut Registered,
) -> Result<Uri<'a>, Reject> {
    let to = request.to().ok();
    let Some(uri) = to.and_then(|to| Uri::parse(to.uri).ok()) else {
        return Err(reject(context, 400, "Malformed To", out));
    };
    if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
        return Err(reject(context, 400, "To Needs a SIP URI", out));
    }
    let has_user = uri.user.is_some_and(|user| !user.is_empty());
    if !has_user || !context.config.is_our_domain(uri.host) {
        return Err(reject(context, 404, "Not an address of record of ours", out));
    }
    uri.aor_into(&mut out.aor);
    Ok(uri)
}

/// Whether the hop nearest to the client says that it keeps the client's flow. RFC 5626 §6 looks at
/// the first Path value, but a Path grows at its top (RFC 3327 §5.2), so that the nearest hop's is
/// the last: either will do, since a needless 439 stops clients for good.
fn first_hop_has_ob(path: &[u8]) -> bool {
    let has_ob = |value: &[u8]| {
        let uri = NameAddr::parse(value).ok().and_then(|address| Uri::parse(address.uri).ok());
        uri.is_some_and(|uri| uri.param("ob").is_some())
    };
    let mut values = path.split(|byte| *byte == b'\n');
    let first = values.next().unwrap_or_default();
    has_ob(first) || values.next_back().is_some_and(has_ob)
}

/// The option tags of Supported that matter here.
#[derive(Default)]
struct Supported {
    path: bool,
    outbound: bool,
    gruu: bool,
}

impl Supported {
    fn read(request: Message<'_>) -> Supported {
        let mut supported = Supported::default();
        for value in request.values(HeaderName::Supported) {
            let is = |tag: &[u8]| value.text.eq_ignore_ascii_case(tag);
            supported.path |= is(b"path");
            supported.outbound |= is(b"outbound");
            supported.gruu |= is(b"gruu");
        }
        supported
    }
}

/// RFC 3261 §10.3 step 8: all current bindings, and what RFC 3327, RFC 3608, RFC 5626 and RFC 5627
/// add.
fn answer(location: &Location, sender: &Sender<'_>, is_outbound: bool, out: &mut Registered) {
    let now = sender.context.now;
    let aor = sender.gruu_aor();
    let owner = Owner { aor: &out.aor, hash: out.aor_hash };
    let bindings = location.reached(owner, now).filter(|it| !it.is_away());
    for (index, binding) in bindings.enumerate() {
        let gruus = |out: &mut Vec<u8>| {
            if let Some(aor) = aor {
                let seed = sender.seed(index);
                gruu::params_into(sender.context.gruu_key, aor, binding, seed, out);
            }
        };
        contact_line(binding, now, gruus, &mut out.headers);
    }
    for value in &sender.context.config.registrar.service_route {
        line("Service-Route", value.as_bytes(), &mut out.headers);
    }
    for value in sender.request.values(HeaderName::Path) {
        line("Path", value.text, &mut out.headers);
    }
    line("Supported", b"path, outbound", &mut out.headers);
    if is_outbound {
        line("Require", b"outbound", &mut out.headers);
        if let Some(timer) = sender.context.flow_timer {
            number_line("Flow-Timer", u64::from(timer), &mut out.headers);
        }
    }
}

#[cfg(test)]
mod tests;
