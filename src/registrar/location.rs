//! One shard's location service (RFC 3261 §10): a bounded table from addresses of record to bindings, also by
//! flow and by Contact. Absent on purpose: what a REGISTER may do to it (`register`), how to choose among
//! bindings, and other shards.
//!
//! Nothing here depends on the order of a hash table: maps only find heads of lists.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::base::hash::KeyedHash;
use crate::base::id::FlowId;
use crate::base::slab::{Slab, SlabKey};
use crate::base::time::Time;
use crate::sip::Uri;

use super::binding::{Binding, Draft, Facts, Way};
use super::links::{BuildHashed, END, List, push, unlink, walk};

/// Width of an expiry bucket. A binding is out of force at its very moment; it leaves the table at most this
/// much later.
const BUCKET: Duration = Duration::from_secs(8);
/// Bindings of one canonical Contact that are looked at before it counts as ambiguous.
const CONTACT_CANDIDATES_MAX: usize = 32;

/// The bindings of the addresses of record that this shard owns.
///
/// Getters: [`Location::lookup`], [`Location::was_known`], [`Location::contact_match`],
/// [`Location::next_expiry`], [`Location::len`]. Events: [`Location::remove_flow`], [`Location::expire`].
/// Bindings are added by [`super::register()`].
pub struct Location {
    hash: KeyedHash,
    bindings: Slab<Binding>,
    /// By hash of the address of record. An entry without bindings says that there were some once.
    by_aor: HashMap<u64, SlabKey, BuildHashed>,
    /// By hash of the flow's name.
    by_flow: HashMap<u64, SlabKey, BuildHashed>,
    /// By hash of the canonical Contact.
    by_contact: HashMap<u64, SlabKey, BuildHashed>,
    /// By [`BUCKET`]. A binding that was refreshed stays in its old bucket until that one is due.
    by_expiry: BTreeMap<u64, SlabKey>,
    /// How many entries of `by_aor` have no bindings; at most `bindings_max`.
    known: usize,
    bindings_max: usize,
}

impl Location {
    /// An empty table for at most `bindings_max` bindings, under a secret hash. As many addresses of record
    /// without bindings are remembered as known; beyond that, those that end later are forgotten.
    pub fn new(hash: KeyedHash, bindings_max: usize) -> Location {
        Location {
            hash,
            bindings: Slab::new(bindings_max),
            by_aor: HashMap::default(),
            by_flow: HashMap::default(),
            by_contact: HashMap::default(),
            by_expiry: BTreeMap::new(),
            known: 0,
            bindings_max,
        }
    }

    /// The bindings of the canonical address of record `aor` that are in force, newest first.
    pub fn lookup<'a>(
        &'a self,
        aor: &'a [u8],
        now: Time,
    ) -> impl Iterator<Item = &'a Binding> + use<'a> {
        self.of_aor(aor).map(|(_, binding)| binding).filter(move |binding| binding.is_live(now))
    }

    /// Whether `aor` has or had bindings since the start. May forget (see [`Location::new`]).
    pub fn was_known(&self, aor: &[u8]) -> bool {
        self.by_aor.contains_key(&self.hash.of(aor))
    }

    /// The one binding in force whose Contact equals `uri` by the rules of RFC 3261 §19.1.4; `None` when there
    /// is none or more than one. `canonical` is what [`super::canonical_contact`] makes of `uri`. A Contact on
    /// a host in our domains is never found this way.
    pub fn contact_match(&self, uri: &Uri<'_>, canonical: &[u8], now: Time) -> Option<&Binding> {
        let head = *self.by_contact.get(&self.hash.of(canonical))?;
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

    /// Event: a stream flow ended. Its bindings go with it, each shown to `gone` before; those whose Contact can
    /// be dialled stay and are dialled from now on. Returns how many went. Takes time by the bindings of that flow.
    pub fn remove_flow(&mut self, flow: FlowId, mut gone: impl FnMut(&Binding)) -> usize {
        let mut removed = 0;
        let mut next = self.flow_head(flow);
        while let Some(binding) = self.bindings.get(next) {
            let key = next;
            next = binding.links[List::Flow as usize].next;
            if binding.stream() != Some(flow) {
                continue;
            }
            if binding.facts.dialable {
                self.leave_flow(key);
                self.bindings.get_mut(key).expect("just seen").facts.way = Way::Dial;
            } else {
                gone(binding);
                self.remove(key);
                removed += 1;
            }
        }
        removed
    }

    /// Event: `now` may have passed [`Location::next_expiry`]. Looks at no more than `max` bindings; each that is
    /// out of force is shown to `gone` and removed. Returns how many were; [`Location::next_expiry`] stays in the
    /// past while there is more to do.
    pub fn expire(&mut self, now: Time, max: usize, mut gone: impl FnMut(&Binding)) -> usize {
        let mut removed = 0;
        for _ in 0..max {
            let Some((&bucket, &key)) = self.by_expiry.first_key_value() else { break };
            if end_of(bucket) > now {
                break;
            }
            let binding = self.bindings.get(key).expect("a bucket holds living bindings");
            if binding.is_live(now) {
                let later = bucket_of(binding.expires_at());
                self.leave_bucket(key);
                self.enter_bucket(key, later);
            } else {
                gone(binding);
                self.remove(key);
                removed += 1;
            }
        }
        removed
    }

    /// When [`Location::expire`] wants to be called next. May be early, never late by more than 8 seconds.
    pub fn next_expiry(&self) -> Option<Time> {
        self.by_expiry.first_key_value().map(|(&bucket, _)| end_of(bucket))
    }

    /// How many bindings there are, those out of force that have not been removed yet included.
    pub fn len(&self) -> usize {
        self.bindings.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }

    /// How many addresses of record have bindings.
    pub fn aors(&self) -> usize {
        self.by_aor.len() - self.known
    }

    /// Whether a binding of this table goes with `flow`.
    pub fn holds_flow(&self, flow: FlowId) -> bool {
        let head = self.flow_head(flow);
        walk(&self.bindings, List::Flow, head).any(|(_, binding)| binding.stream() == Some(flow))
    }

    /// How many more bindings there is room for.
    pub(super) fn room(&self) -> usize {
        self.bindings_max - self.bindings.len()
    }

    /// All bindings of `aor`, in force or not.
    pub(super) fn of_aor<'a>(
        &'a self,
        aor: &'a [u8],
    ) -> impl Iterator<Item = (SlabKey, &'a Binding)> + use<'a> {
        let head = self.by_aor.get(&self.hash.of(aor)).copied().unwrap_or(END);
        walk(&self.bindings, List::Aor, head).filter(move |(_, binding)| binding.aor() == aor)
    }

    pub(super) fn hash_of(&self, bytes: &[u8]) -> u64 {
        self.hash.of(bytes)
    }

    pub(super) fn get(&self, key: SlabKey) -> &Binding {
        self.bindings.get(key).expect("a key from of_aor, used before the table changed")
    }

    /// Adds a binding; `None` when the table is full.
    pub(super) fn add(&mut self, draft: &Draft, facts: Facts) -> Option<SlabKey> {
        let (aor_hash, bucket) = (facts.aor_hash, bucket_of(facts.expires_at));
        let key = self.bindings.insert(Binding::new(draft, facts))?;
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
        Some(key)
    }

    /// Changes a binding in its place. Its address of record stays.
    pub(super) fn update(&mut self, key: SlabKey, draft: &Draft, facts: Facts) {
        let old = &self.get(key).facts;
        let (old_bucket, old_contact) = (old.bucket, old.contact_hash);
        let bucket = bucket_of(facts.expires_at);
        let is_same_flow = self.get(key).stream() == facts.way.stream();
        if !is_same_flow {
            self.leave_flow(key);
        }
        if old_contact != facts.contact_hash {
            self.leave_contact(key);
        }
        let contact = facts.contact_hash;
        let binding = self.bindings.get_mut(key).expect("just seen");
        binding.update(draft, Facts { bucket: old_bucket, ..facts });
        if !is_same_flow {
            self.enter_flow(key);
        }
        if old_contact != contact {
            self.enter_contact(key);
        }
        // A later expiry is found when the old bucket is due; only an earlier one has to move at once.
        if bucket < old_bucket {
            self.leave_bucket(key);
            self.enter_bucket(key, bucket);
        }
    }

    /// Removes a binding. Its address of record stays known.
    pub(super) fn remove(&mut self, key: SlabKey) {
        self.leave_bucket(key);
        self.leave_flow(key);
        self.leave_contact(key);
        let aor_hash = self.get(key).facts.aor_hash;
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

    fn enter_bucket(&mut self, key: SlabKey, bucket: u64) {
        let head = self.by_expiry.entry(bucket).or_insert(END);
        *head = push(&mut self.bindings, List::Expiry, *head, key);
        self.bindings.get_mut(key).expect("a living binding").facts.bucket = bucket;
    }

    fn leave_bucket(&mut self, key: SlabKey) {
        let bucket = self.get(key).facts.bucket;
        let head = self.by_expiry.get_mut(&bucket).expect("a binding stands in a bucket");
        *head = unlink(&mut self.bindings, List::Expiry, *head, key);
        if *head == END {
            self.by_expiry.remove(&bucket);
        }
    }

    fn flow_head(&self, flow: FlowId) -> SlabKey {
        self.by_flow.get(&self.flow_hash(flow)).copied().unwrap_or(END)
    }

    fn flow_hash(&self, flow: FlowId) -> u64 {
        self.hash.of(&flow.to_bits().to_le_bytes())
    }

    fn enter_flow(&mut self, key: SlabKey) {
        let Some(flow) = self.get(key).stream() else { return };
        let head = self.by_flow.entry(self.hash.of(&flow.to_bits().to_le_bytes())).or_insert(END);
        *head = push(&mut self.bindings, List::Flow, *head, key);
    }

    fn leave_flow(&mut self, key: SlabKey) {
        let Some(flow) = self.get(key).stream() else { return };
        let hash = self.flow_hash(flow);
        leave(&mut self.by_flow, &mut self.bindings, List::Flow, hash, key);
    }

    fn enter_contact(&mut self, key: SlabKey) {
        let Some(hash) = self.get(key).facts.contact_hash else { return };
        let head = self.by_contact.entry(hash).or_insert(END);
        *head = push(&mut self.bindings, List::Contact, *head, key);
    }

    fn leave_contact(&mut self, key: SlabKey) {
        let Some(hash) = self.get(key).facts.contact_hash else { return };
        leave(&mut self.by_contact, &mut self.bindings, List::Contact, hash, key);
    }
}

/// Takes the binding out of its list of `heads`, and the list out of `heads` when it was the last.
fn leave(
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

/// The bucket in which a binding that ends at `at` is looked at.
fn bucket_of(at: Time) -> u64 {
    at.as_nanos() / BUCKET.as_nanos() as u64
}

/// The moment when everything in `bucket` that was not refreshed is out of force.
fn end_of(bucket: u64) -> Time {
    Time::from_nanos((bucket + 1).saturating_mul(BUCKET.as_nanos() as u64))
}
