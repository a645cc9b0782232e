//! By whom a request is, and may they (RFC 3261 §22)? Who sent it is found out at the shard that
//! received it, whose flow remembers what its client has proved; what may be done is decided at the
//! shard that serves it, where the challenge is an answer of the transaction like any other.
//!
//! A stream flow is its client's own when the client's Via is the only one. What was proved on it
//! holds for it until it ends, the user is gone or has another password, or what proved it has
//! expired: nobody else can write on it. So does the word of a registrar behind us that accepted a
//! REGISTER on it. Datagrams, and what comes through another proxy, prove it each time.

use crate::auth::{Challenge, Circumstances, Verdict, bearer};
use crate::base::bearer::TokenFault;
use crate::base::id::{ClientKey, FlowId, FlowRef};
use crate::base::identity::Identity;
use crate::base::limits::WRONG_PASSWORDS_TIME;
use crate::base::slab::SlabKey;
use crate::flow::arrival::{Arrival, Standing};
use crate::proxy::admission::{self, Admission};
use crate::proxy::route::{Routing, Sender, Way};
use crate::proxy::target::Hop;
use crate::sip::{HeaderName, Message, Method, Uri};
use crate::transaction::Timer;

use super::Engine;
use super::fork::callee;
use super::targets::hop_of_flow;

/// What somebody wants to be admitted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// A REGISTER for a user of ours.
    Register,
    /// A REGISTER that another registrar judges.
    RegisterElsewhere,
    /// Anything else.
    Request {
        /// The Request-URI is in a domain of ours: the routing rules choose its target.
        to_us: bool,
    },
}

impl Engine {
    /// What is known of the sender of a request, which came in at this shard, and the nonce that
    /// it answers (see [`Arrival::answers`]).
    pub(super) fn identify(
        &mut self,
        arrival: &Arrival,
        message: Message<'_>,
    ) -> (Standing, Option<u32>) {
        if !self.config.auth.has_method() {
            return (self.vouched(arrival, message), None);
        }
        let is_never_asked = matches!(message.method(), Method::Ack | Method::Cancel);
        if is_never_asked || Sender::upstream(&self.config, arrival).is_some() {
            return (Standing::Unknown, None);
        }
        let is_direct = !message.has_many(HeaderName::Via);
        let flow = arrival.source.stream().filter(|_| is_direct && arrival.accepted);
        let standing = match self.judge(arrival, message, flow) {
            Verdict::Proven(identity, answers) => {
                if let Some(flow) = flow {
                    self.pin(flow, identity.clone());
                }
                return (Standing::Proven(identity), answers);
            }
            Verdict::PutOff if self.pinned(flow).is_none() => Standing::PutOff,
            // What was proved on the flow stands, as if this were without credentials.
            Verdict::Absent | Verdict::PutOff => match self.pinned(flow) {
                Some(Identity::Guest(guest)) if guest.until <= self.unix_secs() => {
                    Standing::Unknown
                }
                Some(identity) => Standing::Pinned(identity.clone()),
                None => self.vouched(arrival, message),
            },
            Verdict::Stale => Standing::Stale,
            Verdict::Refused => Standing::Refused,
            Verdict::BadToken(fault) => Standing::BadToken(fault),
            Verdict::Busy => Standing::Busy,
            Verdict::Malformed => Standing::Malformed,
        };
        (standing, None)
    }

    /// What the credentials of a request came to: one that is good is enough.
    fn judge(&mut self, arrival: &Arrival, message: Message<'_>, flow: Option<FlowId>) -> Verdict {
        let verdict = self.judge_tokens(message, flow);
        let (now, unix) = (self.now, self.unix_secs());
        match self.config.auth.digest() {
            Some(digest) if !matches!(verdict, Verdict::Proven(..)) => {
                let most = self.config.limits.wrong_passwords_max;
                let (address, time) = (arrival.remote.ip(), WRONG_PASSWORDS_TIME);
                let (source, shared) = (arrival.source, flow.is_none());
                let put_off = !self.guessers.has(address, most, time, now);
                let circumstances = Circumstances { now, unix, source, shared, put_off };
                let (found, wrong) =
                    self.verifier.judge(&self.config, digest, message, &circumstances);
                for _ in 0..wrong {
                    self.guessers.take(address, most, time, now);
                }
                self.counters.credentials_put_off += u64::from(found == Verdict::PutOff);
                verdict.or(found)
            }
            _ => verdict,
        }
    }

    /// Which of the clients on a flow sent a request: that of whom From names, since each has proved
    /// to be there, else of who proved to be its sender.
    pub(super) fn client_of(&self, arrival: &Arrival, message: Message<'_>) -> ClientKey {
        let Some(flow) = arrival.source.stream() else { return arrival.client };
        let of = |aor: &[u8]| {
            let user = ClientKey::of_user(self.placement.of(aor));
            self.flows.client_of(flow, user.of_aor())
        };
        let named = from_aor(message).and_then(|aor| of(&aor));
        named.unwrap_or_else(|| match arrival.aor(&self.config) {
            Some(aor) => of(aor).unwrap_or_default(),
            None => arrival.client,
        })
    }

    /// Who the client of a flow proved to be last.
    fn pinned(&self, flow: Option<FlowId>) -> Option<&Identity> {
        self.flows.get(flow?)?.identity.as_ref()
    }

    /// What a registrar behind us has said of the flow's client, if it is that who speaks; of
    /// several clients, of the one that From names.
    fn vouched(&self, arrival: &Arrival, message: Message<'_>) -> Standing {
        let named = || Some(admission::vouched(&self.placement, &from_aor(message)?));
        let vouched = arrival.source.stream().and_then(|flow| self.flows.vouched(flow, named));
        match vouched {
            Some(aor) if !message.has_many(HeaderName::Via) => Standing::Vouched(aor),
            _ => Standing::Unknown,
        }
    }

    /// Seconds since 1970. Before anybody said so, all that can expire has expired.
    pub(super) fn unix_secs(&self) -> u64 {
        let now = self.now;
        self.wall_clock.map_or(u64::MAX, |(at, unix)| (unix + now.saturating_since(at)).as_secs())
    }

    /// Whether a request may go on; if not, it has been answered.
    pub(super) fn admit(
        &mut self,
        tx: SlabKey,
        message: Message<'_>,
        arrival: &Arrival,
        sender: Sender,
        routing: &Routing,
        errand: Errand,
    ) -> bool {
        let has_method = self.config.auth.has_method();
        let in_dialog = match errand {
            Errand::Request { .. } if !has_method => routing.way != Way::Initial,
            // Whoever has a dialog may not therefore speak to all our users in any name.
            Errand::Request { to_us } => {
                (routing.is_party || self.is_owner(arrival, routing))
                    && !(to_us && self.leaves_dialog(message, routing.way))
            }
            _ => false,
        };
        if sender.is_upstream() || in_dialog {
            return true;
        }
        let standing = &arrival.standing;
        let aor = arrival.aor(&self.config).map(|aor| &**aor);
        let is_user = aor.is_some();
        let admission = match errand {
            Errand::Register => admission::register(&self.config, message, standing, aor),
            // Whose it is, that registrar finds out.
            Errand::RegisterElsewhere => Admission::Admitted,
            Errand::Request { .. } => {
                let hash = &self.placement;
                let is_claimed = !routing.is_party && self.claims_other(message, routing);
                admission::request(&self.config, message, standing, aor, is_claimed, hash)
            }
        };
        match standing {
            Standing::Proven(_) => self.counters.credentials_accepted += 1,
            Standing::Stale => self.counters.credentials_stale += 1,
            Standing::Refused | Standing::BadToken(_) | Standing::Malformed => {
                self.counters.credentials_refused += 1;
            }
            Standing::Unknown | Standing::Pinned(_) | Standing::Vouched(_) => {}
            Standing::Busy | Standing::PutOff => {}
        }
        match admission {
            Admission::Admitted => true,
            Admission::Challenged { stale } => {
                let is_outlived = matches!(standing, Standing::Pinned(_)) && !is_user;
                self.counters.credentials_outlived += u64::from(is_outlived);
                let (status, name) = match errand {
                    Errand::Request { .. } => (407, HeaderName::ProxyAuthenticate),
                    _ => (401, HeaderName::WwwAuthenticate),
                };
                let random = self.rng.next_u64();
                let to = arrival.source;
                let challenge = Challenge { name, stale, now: self.now, random, to };
                let fault = match standing {
                    Standing::BadToken(fault) => Some(*fault),
                    _ => None,
                };
                self.challenge(tx, message, status, &challenge, fault);
                false
            }
            Admission::Refused(reject) => {
                self.counters.identities_refused += u64::from(is_user);
                self.answer_uncounted(tx, message, &reject);
                false
            }
        }
    }

    /// Whether the sender proves to be the user whose client alone a dialog token names.
    fn is_owner(&self, arrival: &Arrival, routing: &Routing) -> bool {
        let aor = arrival.aor(&self.config).filter(|_| routing.owner.is_some());
        let user = aor.map(|aor| ClientKey::of_user(self.placement.of(aor)).of_aor());
        user.is_some() && user == routing.owner
    }

    /// Whether the sender shows the token of one user and bears another name. Whoever bears that
    /// user's own is asked for the password anyway, if there is one here: of users of a registrar
    /// behind us there is none.
    fn claims_other(&self, message: Message<'_>, routing: &Routing) -> bool {
        let Some(owner) = routing.owner else { return false };
        let user = |aor: Vec<u8>| ClientKey::of_user(self.placement.of(&aor)).of_aor();
        from_aor(message).map(user) != Some(owner)
    }

    /// Whether a request for us that has a dialog token goes to somebody else than the dialog's other
    /// end: where the rules say, or to an instance of which the end has no flow.
    fn leaves_dialog(&self, message: Message<'_>, way: Way) -> bool {
        let end = match way {
            Way::Outgoing | Way::Stale => return true,
            Way::Flow(end, _) => end,
            Way::Initial | Way::Dialled(..) => return false,
        };
        let Ok(uri) = Uri::parse(message.uri()) else { return false };
        let mut aor = Vec::new();
        let Some(gruu) = self.gruus.read(&uri, &mut aor) else { return false };
        let all = self.location.lookup(&aor, self.now).filter(|it| self.gruus.is_of(&gruu, it));
        let mut reached = all.filter_map(|it| Some((it.client(), hop_of_flow(it)?))).peekable();
        let is_end = |(client, hop): (ClientKey, Hop)| {
            callee(hop).is_some_and(|flow| flow.same_peer(end.flow))
                || client.is_some() && client == end.client
        };
        reached.peek().is_some() && !reached.any(is_end)
    }

    /// A REGISTER whose sender is known answers a nonce that is too old for what it changes.
    pub(super) fn challenge_again(&mut self, tx: SlabKey, message: Message<'_>, to: FlowRef) {
        let (name, random) = (HeaderName::WwwAuthenticate, self.rng.next_u64());
        let challenge = Challenge { name, stale: true, now: self.now, random, to };
        self.challenge(tx, message, 401, &challenge, None);
    }

    /// RFC 3261 §26.3.2.4: said once for each request that comes, and not again by a timer, or we
    /// could be made to send more than was sent to us to whomever a forged source names. One header
    /// field a method (RFC 8898 §2.2); passwords go last, since browsers' libraries keep the last
    /// challenge and know no tokens.
    fn challenge(
        &mut self,
        tx: SlabKey,
        message: Message<'_>,
        status: u16,
        challenge: &Challenge,
        fault: Option<TokenFault>,
    ) {
        let mut lines = std::mem::take(&mut self.scratch.lines);
        lines.clear();
        if let Some(settings) = self.config.auth.bearer() {
            let name = challenge.name;
            bearer::challenge(&self.config, settings, message, name, fault, &mut lines);
        }
        if let Some(digest) = self.config.auth.digest() {
            self.verifier.challenge(&self.config, digest, message, challenge, &mut lines);
        }
        self.counters.requests_challenged += 1;
        self.answer(tx, message, status, None, &lines);
        self.scratch.lines = lines;
        let transaction = self.transactions.server.get_mut(tx);
        if let Some(id) = transaction.and_then(|it| it.timers.take(Timer::G)) {
            self.wheel.cancel(id);
        }
    }
}

/// The canonical address of record that From names; `None` when it cannot be read.
fn from_aor(message: Message<'_>) -> Option<Vec<u8>> {
    let from = Uri::parse(message.from().ok()?.uri).ok()?;
    let mut aor = Vec::new();
    from.aor_into(&mut aor);
    Some(aor)
}
