//! One shard's location service (RFC 3261 §10): a bounded table from addresses of record to
//! bindings, also by flow and by Contact. Absent on purpose: what a REGISTER may do to it
//! (`register`), how to choose among bindings, and other shards.
//!
//! Nothing here depends on the order of a hash table: maps only find heads of lists.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;

use smallvec::SmallVec;

use crate::base::hash::{BuildHashed, KeyedHash};
use crate::base::id::ClientKey;
use crate::base::limits::CONTACT_CANDIDATES_MAX;
use crate::base::metrics::RoundTrips;
use crate::base::slab::{Slab, SlabKey};
use crate::base::time::Time;
use crate::sip::Uri;

use super::binding::{Binding, Draft, Facts};
use super::expiry::bucket_of;
use super::journal::{Change, Journal};
use super::links::{END, List, push, unlink, walk};

/// The bindings of the addresses of record that this shard owns.
///
/// Getters: [`Location::lookup`], [`Location::was_known`], [`Location::contact_match`],
/// [`Location::next_expiry`], [`Location::len`]. Events: [`Location::remove_flow`],
/// [`Location::expire`]. Bindings are added by [`super::register()`].
pub struct Location {
    pub(super) hash: KeyedHash,
    pub(super) bindings: Slab<Binding>,
    /// By hash of the address of record. An entry without bindings says that there were some once.
    pub(super) by_aor: HashMap<u64, SlabKey, BuildHashed>,
    /// By hash of the flow's name, of bindings over UDP by hash of the address that they are at (see
    /// `paths`).
    pub(super) by_flow: HashMap<u64, SlabKey, BuildHashed>,
    /// By hash of the canonical Contact.
    pub(super) by_contact: HashMap<u64, SlabKey, BuildHashed>,
    /// By client, which is a keyed hash.
    pub(super) by_client: HashMap<u64, SlabKey, BuildHashed>,
    /// By bucket (see `expiry`). A binding that was refreshed stays in its old bucket until that one is due.
    pub(super) by_expiry: BTreeMap<u32, SlabKey>,
    /// How many entries of `by_aor` have no bindings; at most `bindings_max`.
    known: usize,
    /// How many bindings only we can keep reachable (see `pings`).
    pub(super) pinged: usize,
    /// Bindings by what their last ping and its answer took.
    pub(super) round_trips: RoundTrips,
    bindings_max: usize,
    /// Until when clients that were lost with a former run are awaited.
    awaited_until: Time,
    /// Name of the next binding.
    next_id: u64,
    journal: Journal,
}

/// A canonical address of record and its keyed hash.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) aor: &'a [u8],
    pub(super) hash: u64,
}

impl Location {
    /// An empty table for at most `bindings_max` bindings, under a secret hash. As many addresses
    /// of record without bindings are remembered as known; beyond that, those that end later are
    /// forgotten.
    pub fn new(hash: KeyedHash, bindings_max: usize) -> Location {
        Location {
            next_id: hash.of(b"names of bindings"),
            journal: Journal::default(),
            hash,
            bindings: Slab::new(bindings_max),
            by_aor: HashMap::default(),
            by_flow: HashMap::default(),
            by_contact: HashMap::default(),
            by_client: HashMap::default(),
            by_expiry: BTreeMap::new(),
            known: 0,
            pinged: 0,
            awaited_until: Time::ZERO,
            round_trips: RoundTrips::default(),
            bindings_max,
        }
    }

    /// Moves the bound of bindings. Those beyond a lower one live on until they end.
    pub fn set_max(&mut self, bindings_max: usize) {
        self.bindings.set_max(bindings_max);
        self.bindings_max = bindings_max;
    }

    /// From here on [`Location::changes`] tells what changed.
    pub fn keep_journal(&mut self) {
        self.journal.keep();
    }

    /// Event: clients that were lost with a former run of the process are awaited until then.
    pub fn await_lost(&mut self, until: Time) {
        self.awaited_until = until;
    }

    /// The bindings of the canonical address of record `aor` that are in force and can be reached,
    /// be it once their client is back, newest first.
    pub fn lookup<'a>(
        &'a self,
        aor: &'a [u8],
        now: Time,
    ) -> impl Iterator<Item = &'a Binding> + use<'a> {
        self.reached(self.owner(aor), now)
    }

    /// The same with those that can only be registered again.
    pub fn remembered<'a>(
        &'a self,
        aor: &'a [u8],
        now: Time,
    ) -> impl Iterator<Item = &'a Binding> + use<'a> {
        self.live(self.owner(aor), now)
    }

    /// Whether nothing can be sent to a binding, neither now nor soon, until it is registered again.
    pub fn is_gone(&self, binding: &Binding, now: Time) -> bool {
        binding.is_lost() && self.awaited(binding, now).is_none()
    }

    /// Until when the client of a binding whose flow was lost may come back, if it may.
    pub fn awaited(&self, binding: &Binding, now: Time) -> Option<Time> {
        let ends = binding.expires_at();
        let until = if binding.is_lost() { ends.min(self.awaited_until) } else { ends };
        (binding.is_away() && binding.client().is_some() && until > now).then_some(until)
    }

    /// What changed since [`Location::forget_changes`], in order. A binding that is gone, or has
    /// changed its slot, is shown as `None`.
    pub fn changes(&self) -> impl Iterator<Item = (Change, Option<&Binding>)> {
        self.journal.iter().map(|change| (change, self.bindings.get(change.key)))
    }

    /// Event: what changed has been taken care of, or nobody needs it.
    pub fn forget_changes(&mut self) {
        self.journal.clear();
    }

    /// Whether `aor` has or had bindings since the start. May forget (see [`Location::new`]).
    pub fn was_known(&self, aor: &[u8]) -> bool {
        self.by_aor.contains_key(&self.hash.of(aor))
    }

    /// The one binding in force whose Contact equals `uri` by the rules of RFC 3261 §19.1.4; `None`
    /// when there is none or more than one. `canonical` is what [`super::canonical_contact`] makes
    /// of `uri`. A Contact on a host in our domains is never found this way.
    pub fn contact_match(&self, uri: &Uri<'_>, canonical: &[u8], now: Time) -> Option<&Binding> {
        let head = *self.by_contact.get(&self.contact_hash(canonical).get())?;
        let mut found = None;
        for (seen, (_, binding)) in walk(&self.bindings, List::Contact, head).enumerate() {
            let is_equal = binding.is_live(now)
                && Uri::parse(binding.contact()).is_ok_and(|contact| contact.equivalent(uri));
            if seen == CONTACT_CANDIDATES_MAX || is_equal && found.is_some() {
                return None;
            }
            if is_equal {
                found = Some(binding);
            }
        }
        found
    }

    /// The binding in force of that client.
    pub fn of_client(&self, client: ClientKey, now: Time) -> Option<&Binding> {
        let key = *self.by_client.get(&client.to_bits())?;
        self.bindings.get(key).filter(|binding| binding.is_live(now))
    }

    /// The binding of that name, if it is there.
    pub fn find(&self, key: SlabKey) -> Option<&Binding> {
        self.bindings.get(key)
    }

    /// How many bindings there are, those out of force that have not been removed yet included.
    pub fn len(&self) -> usize {
        self.bindings.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }

    /// How many bindings are found by their client.
    pub fn clients(&self) -> usize {
        self.by_client.len()
    }

    /// How many addresses of record have bindings.
    pub fn aors(&self) -> usize {
        self.by_aor.len() - self.known
    }

    /// How many more bindings there is room for.
    pub(super) fn room(&self) -> usize {
        self.bindings_max.saturating_sub(self.bindings.len())
    }

    /// The canonical address of record `aor`, to be looked up several times.
    pub(super) fn owner<'a>(&self, aor: &'a [u8]) -> Owner<'a> {
        Owner { aor, hash: self.hash.of(aor) }
    }

    /// What [`Location::lookup`] finds.
    pub(super) fn reached<'a>(
        &'a self,
        owner: Owner<'a>,
        now: Time,
    ) -> impl Iterator<Item = &'a Binding> + use<'a> {
        self.live(owner, now).filter(move |binding| !self.is_gone(binding, now))
    }

    /// What [`Location::remembered`] finds.
    pub(super) fn live<'a>(
        &'a self,
        owner: Owner<'a>,
        now: Time,
    ) -> impl Iterator<Item = &'a Binding> + use<'a> {
        self.of_aor(owner).map(|(_, binding)| binding).filter(move |it| it.is_live(now))
    }

    /// All bindings of an address of record, in force or not.
    pub(super) fn of_aor<'a>(
        &'a self,
        owner: Owner<'a>,
    ) -> impl Iterator<Item = (SlabKey, &'a Binding)> + use<'a> {
        let head = self.by_aor.get(&owner.hash).copied().unwrap_or(END);
        walk(&self.bindings, List::Aor, head).filter(move |(_, it)| it.aor() == owner.aor)
    }

    /// The hash of a canonical Contact.
    pub(super) fn contact_hash(&self, canonical: &[u8]) -> NonZeroU64 {
        NonZeroU64::new(self.hash.of(canonical)).unwrap_or(NonZeroU64::MIN)
    }

    pub(super) fn get(&self, key: SlabKey) -> &Binding {
        self.bindings.get(key).expect("a key from of_aor, used before the table changed")
    }

    /// Adds a binding under a name of its own; `None` when the table is full.
    pub(super) fn add(&mut self, draft: &Draft, facts: Facts) -> Option<SlabKey> {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let key = self.restore(draft, Facts { id, ..facts })?;
        self.journal.note(Change { id, is_new: true, key });
        Some(key)
    }

    /// Adds a binding that the store has under its name; `None` when the table is full.
    pub(super) fn restore(&mut self, draft: &Draft, facts: Facts) -> Option<SlabKey> {
        let (aor_hash, bucket) = (facts.aor_hash, bucket_of(facts.expires_at));
        let needs_pings = facts.needs_pings();
        let key = self.bindings.insert(Binding::new(draft, facts))?;
        self.pinged += usize::from(needs_pings);
        match self.by_aor.entry(aor_hash) {
            Entry::Vacant(entry) => {
                entry.insert(push(&mut self.bindings, List::Aor, END, key));
            }
            Entry::Occupied(mut entry) => {
                let head = *entry.get();
                if head == END {
                    self.known -= 1;
                }
                entry.insert(push(&mut self.bindings, List::Aor, head, key));
            }
        }
        self.enter_bucket(key, bucket);
        self.enter_flow(key);
        self.enter_contact(key);
        self.enter_client(key);
        Some(key)
    }

    /// Changes a binding in its place. Its address of record stays.
    pub(super) fn update(&mut self, key: SlabKey, draft: &Draft, facts: Facts) {
        let old = &self.get(key).facts;
        let (id, old_bucket, old_contact) = (old.id, old.bucket, old.contact_hash);
        let old_needs_pings = old.needs_pings();
        let is_same_client = old.client == facts.client;
        self.journal.note(Change { id, is_new: false, key });
        let bucket = bucket_of(facts.expires_at);
        let is_same_flow = self.get(key).is_reached_as(&facts.way, draft);
        let is_pinged_there = is_same_flow && facts.needs_pings();
        if !is_same_flow {
            self.leave_flow(key);
        }
        if old_contact != facts.contact_hash {
            self.leave_contact(key);
        }
        if !is_same_client {
            self.leave_client(key);
        }
        let contact = facts.contact_hash;
        self.pinged += usize::from(facts.needs_pings());
        self.pinged -= usize::from(old_needs_pings);
        let binding = self.bindings.get_mut(key).expect("just seen");
        binding.update(draft, Facts { id, bucket: old_bucket, ..facts });
        if !is_pinged_there {
            self.round_trips.replace(binding.round_trip.take(), None);
        }
        if !is_same_client {
            self.enter_client(key);
        }
        if !is_same_flow {
            self.enter_flow(key);
        }
        if old_contact != contact {
            self.enter_contact(key);
        }
        // A later expiry is found when the old bucket is due; only an earlier one has to move at
        // once.
        if bucket < old_bucket {
            self.leave_bucket(key);
            self.enter_bucket(key, bucket);
        }
    }

    /// Gives all bindings of an instance another registration's number.
    pub(super) fn renumber(&mut self, owner: Owner<'_>, instance: &[u8], registration: u32) {
        let all = self.of_aor(owner).filter(|(_, binding)| binding.is_of(instance));
        let keys: SmallVec<[SlabKey; 4]> = all.map(|(key, _)| key).collect();
        for key in keys {
            let facts = &mut self.bindings.get_mut(key).expect("just seen").facts;
            facts.registration = registration;
            self.journal.note(Change { id: facts.id, is_new: false, key });
        }
    }

    /// An address of record without bindings is not known any more.
    pub(super) fn forget_known(&mut self, aor: &[u8]) {
        let hash = self.hash.of(aor);
        if self.by_aor.get(&hash) == Some(&END) {
            self.by_aor.remove(&hash);
            self.known -= 1;
        }
    }

    /// Removes a binding. Its address of record stays known.
    pub(super) fn remove(&mut self, key: SlabKey) {
        self.pinged -= usize::from(self.get(key).facts.needs_pings());
        self.round_trips.replace(self.get(key).round_trip, None);
        self.leave_bucket(key);
        self.leave_flow(key);
        self.leave_contact(key);
        self.leave_client(key);
        let Facts { id, aor_hash, .. } = self.get(key).facts;
        self.journal.note(Change { id, is_new: false, key });
        let head = self.by_aor.get_mut(&aor_hash).expect("a binding's address of record is listed");
        *head = unlink(&mut self.bindings, List::Aor, *head, key);
        if *head == END {
            if self.known < self.bindings_max {
                self.known += 1;
            } else {
                self.by_aor.remove(&aor_hash);
            }
        }
        self.bindings.remove(key);
    }

    fn enter_contact(&mut self, key: SlabKey) {
        let Some(hash) = self.get(key).facts.contact_hash else { return };
        let head = self.by_contact.entry(hash.get()).or_insert(END);
        *head = push(&mut self.bindings, List::Contact, *head, key);
    }

    fn leave_contact(&mut self, key: SlabKey) {
        let Some(hash) = self.get(key).facts.contact_hash else { return };
        leave(&mut self.by_contact, &mut self.bindings, List::Contact, hash.get(), key);
    }
}

/// Takes the binding out of its list of `heads`, and the list out of `heads` when it was the last.
pub(super) fn leave(
    heads: &mut HashMap<u64, SlabKey, BuildHashed>,
    bindings: &mut Slab<Binding>,
    list: List,
    hash: u64,
    key: SlabKey,
) {
    let head = heads.get_mut(&hash).expect("a binding stands in its list");
    *head = unlink(bindings, list, *head, key);
    if *head == END {
        heads.remove(&hash);
    }
}

#[cfg(test)]
mod tests {
    use super::super::binding::BindingFlow;
    use super::super::harness::{Desk, ROOM, canonical_aor, stream};
    use super::super::lose::Lost;
    use super::*;
    use crate::base::id::{FlowId, Transport};

    const ALICE: &str = "sip:alice@example.com";

    #[test]
    fn a_flow_takes_its_bindings_along() {
        let mut desk = Desk::new();
        let flow = desk.source.stream().unwrap();
        desk.register(ALICE, ("c", 1), "Contact: <sip:a@x.invalid>\n").unwrap();
        desk.register("sip:bob@example.com", ("d", 1), "Contact: <sip:b@x.invalid>\n").unwrap();
        desk.source = stream(2, Transport::Ws);
        desk.register(ALICE, ("e", 1), "Contact: <sip:c@x.invalid>\n").unwrap();
        assert!(desk.location.holds_flow(flow));
        let mut gone = Vec::new();
        let lost = desk.location.remove_flow(flow, None, |it| gone.push(it.aor().to_vec()));
        assert_eq!(lost.removed, 2);
        assert_eq!(gone, [b"bob@example.com".to_vec(), b"alice@example.com".to_vec()]);
        assert_eq!(desk.contacts(ALICE), ["sip:c@x.invalid"]);
        assert!(!desk.location.holds_flow(flow));
        let lost = desk.location.remove_flow(flow, None, |_| panic!("nothing left"));
        assert_eq!(lost, Lost::default());
        let reused = FlowId::new(flow.shard(), 2, 99);
        let lost = desk.location.remove_flow(reused, None, |_| panic!("another generation"));
        assert_eq!(lost, Lost::default());
    }

    #[test]
    fn a_contact_that_can_be_dialled_outlives_its_flow() {
        for (transport, contact, is_kept) in [
            (Transport::Tcp, "<sip:a@192.0.2.1:5070>", true),
            (Transport::Tls, "<sip:a@192.0.2.1:5070>", true),
            (Transport::Tcp, "<sip:a@192.0.2.2:5070>", false),
            (Transport::Tcp, "<sip:a@192.0.2.1:5070;ob>", false),
            (Transport::Tcp, "<sip:a@192.0.2.1>;reg-id=1;+sip.instance=\"<urn:x:1>\"", false),
            (Transport::Wss, "<sip:a@192.0.2.1:5070>", false),
        ] {
            let mut desk = Desk::new();
            desk.source = stream(5, transport);
            desk.register(ALICE, ("c", 1), &format!("Contact: {contact}\n")).unwrap();
            let flow = desk.source.stream().unwrap();
            let removed = desk.location.remove_flow(flow, None, |_| {}).removed;
            assert_eq!(removed, usize::from(!is_kept), "{transport:?} {contact}");
            if is_kept {
                assert_eq!(desk.flow(ALICE), BindingFlow::Dial);
                assert!(!desk.location.holds_flow(flow));
            }
        }
    }

    #[test]
    fn a_refresh_on_another_flow_moves_the_binding() {
        let mut desk = Desk::new();
        let old = desk.source.stream().unwrap();
        desk.register(ALICE, ("c", 1), "Contact: <sip:a@x.invalid>\n").unwrap();
        desk.source = stream(2, Transport::Wss);
        desk.register(ALICE, ("c", 2), "Contact: <sip:a@x.invalid>\n").unwrap();
        assert_eq!(desk.out.released.as_slice(), [old]);
        assert_eq!((desk.out.added().count(), desk.out.removed().count()), (1, 0));
        desk.register(ALICE, ("c", 3), "Contact: <sip:a@x.invalid>\n").unwrap();
        assert_eq!((desk.out.added().count(), desk.out.removed().count()), (0, 0));
        let lost = desk.location.remove_flow(old, None, |_| panic!("it has moved"));
        assert_eq!(lost, Lost::default());
        assert_eq!(desk.flow(ALICE), BindingFlow::Flow(desk.source));
    }

    #[test]
    fn who_was_bound_stays_known_within_bounds() {
        let mut desk = Desk::new();
        let aor = canonical_aor(ALICE);
        assert!(!desk.location.was_known(&aor));
        desk.register(ALICE, ("c", 1), "Contact: <sip:a@h>\n").unwrap();
        desk.register(ALICE, ("c", 2), "Contact: *\nExpires: 0\n").unwrap();
        assert!(desk.location.was_known(&aor));
        assert_eq!(desk.location.aors(), 0);
        desk.register(ALICE, ("c", 3), "Contact: <sip:a@h>\n").unwrap();
        assert_eq!((desk.location.aors(), desk.location.len()), (1, 1));
        for user in 0..3 * ROOM {
            let to = format!("sip:{user}@example.com");
            desk.register(&to, ("c", 1), "Contact: <sip:a@h>\n").unwrap();
            desk.register(&to, ("c", 2), "Contact: *\nExpires: 0\n").unwrap();
        }
        assert_eq!(desk.location.by_aor.len(), ROOM + 1);
        assert!(desk.location.was_known(b"0@example.com"));
        assert!(!desk.location.was_known(b"59@example.com"));
    }

    #[test]
    fn a_request_uri_finds_the_one_contact_it_equals() {
        let mut desk = Desk::new();
        desk.register(ALICE, ("c", 1), "Contact: <sip:a@x.invalid;transport=ws>\n").unwrap();
        let bob = "sip:bob@example.com";
        desk.register(bob, ("c", 1), "Contact: <sip:b@x.invalid>, <sip:b@x.invalid;user=phone>\n")
            .unwrap();
        for (uri, expected) in [
            ("sip:a@x.invalid;transport=ws", Some("sip:a@x.invalid;transport=ws")),
            ("sip:%61@X.invalid;transport=WS", Some("sip:a@x.invalid;transport=ws")),
            ("sip:a@x.invalid", None),
            ("sip:a@x.invalid:5060;transport=ws", None),
            ("sip:b@x.invalid", Some("sip:b@x.invalid")),
            ("sip:b@x.invalid;user=phone", Some("sip:b@x.invalid;user=phone")),
            ("sip:b@x.invalid;user=ip", None),
        ] {
            assert_eq!(desk.contact_match(uri).as_deref(), expected, "{uri}");
        }
        // Two addresses of record with one Contact: nobody can say who is meant.
        desk.register(bob, ("d", 1), "Contact: <sip:a@x.invalid;transport=ws>\n").unwrap();
        assert_eq!(desk.contact_match("sip:a@x.invalid;transport=ws"), None);
        // A Contact in our domain would catch requests for its user.
        desk.register(bob, ("e", 1), "Contact: <sip:carol@example.com:5090>\n").unwrap();
        assert_eq!(desk.contact_match("sip:carol@example.com:5090"), None);
        assert_eq!(desk.out.added().count(), 0);
    }

    #[test]
    fn many_contacts_of_one_form_are_ambiguous_not_slow() {
        let mut desk = Desk::new();
        desk.location = Location::new(KeyedHash::new([1; 16]), 1_000);
        for user in 0..CONTACT_CANDIDATES_MAX + 1 {
            let line = format!("Contact: <sip:a@x.invalid;method=M{user}>\n");
            desk.register(&format!("sip:{user}@example.com"), ("c", 1), &line).unwrap();
        }
        assert_eq!(desk.contact_match("sip:a@x.invalid;method=M0"), None);
    }
}
