//! What becomes of bindings whose flow ended: they go with it, are dialled, or wait for their client,
//! which may come back on another flow. Absent on purpose: what waits for it meanwhile.

use crate::base::id::{FlowId, FlowRef, StreamPath};
use crate::base::slab::SlabKey;
use crate::base::time::Time;

use super::binding::{Binding, BindingFlow, Facts, Tenure, Way};
use super::expiry::bucket_of;
use super::links::{self, List};
use super::location::{Location, Owner};

/// What a client whose flow was lost is given.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    /// Now.
    pub now: Time,
    /// When it counts as gone.
    pub until: Time,
    /// Bindings of one address of record that may wait.
    pub most: usize,
}

/// What became of the bindings of a flow that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// How many went with it.
    pub removed: usize,
    /// How many wait for their client.
    pub suspended: usize,
}

impl Location {
    /// Event: a stream flow ended. Its bindings go with it; those whose Contact can be dialled stay
    /// and are dialled from now on, those whose client may come back stay for the `grace`. Each is
    /// shown to `gone` before. Takes time by the bindings of that flow.
    pub fn remove_flow(
        &mut self,
        flow: FlowId,
        grace: Option<Grace>,
        mut gone: impl FnMut(&Binding),
    ) -> Lost {
        let mut lost = Lost::default();
        let mut next = self.flow_head(flow);
        while let Some(binding) = self.bindings.get(next) {
            let key = next;
            next = links::next(&self.bindings, List::Flow, key);
            if binding.stream() != Some(flow) {
                continue;
            }
            gone(binding);
            if binding.facts.tenure == Tenure::Dialable {
                self.leave_flow(key);
                self.bindings.get_mut(key).expect("just seen").facts.way = Way::Dial;
            } else if let Some(grace) = grace.filter(|grace| self.may_wait(key, grace)) {
                self.suspend(key, flow, grace.until);
                lost.suspended += 1;
            } else {
                self.remove(key);
                lost.removed += 1;
            }
        }
        lost
    }

    /// Whether the binding's client is known and may come back in time, and not too many others of
    /// its address of record may.
    fn may_wait(&self, key: SlabKey, grace: &Grace) -> bool {
        let binding = self.get(key);
        binding.client().is_some()
            && binding.is_live(grace.now)
            && self.waiting_of(binding) < grace.most
    }

    /// How many bindings of that one's address of record wait for their clients.
    fn waiting_of(&self, binding: &Binding) -> usize {
        let owner = Owner { aor: binding.aor(), hash: binding.facts.aor_hash };
        self.of_aor(owner).filter(|(_, it)| it.is_suspended()).count()
    }

    fn suspend(&mut self, key: SlabKey, flow: FlowId, until: Time) {
        self.leave_flow(key);
        let facts = &mut self.bindings.get_mut(key).expect("a living binding").facts;
        facts.way = Way::Suspended(flow);
        facts.expires_at = facts.expires_at.min(until);
        let (bucket, old) = (bucket_of(facts.expires_at), facts.bucket);
        if bucket < old {
            self.leave_bucket(key);
            self.enter_bucket(key, bucket);
        }
    }

    pub(super) fn enter_client(&mut self, key: SlabKey) {
        let client = self.get(key).client();
        if client.is_some() {
            self.by_client.insert(client.to_bits(), key);
        }
    }

    pub(super) fn leave_client(&mut self, key: SlabKey) {
        let client = self.get(key).client().to_bits();
        if self.by_client.get(&client) == Some(&key) {
            self.by_client.remove(&client);
        }
    }
}

/// The flow that this client's binding went with before.
pub(super) fn former(binding: &Binding, facts: &Facts) -> Option<StreamPath> {
    match binding.flow() {
        BindingFlow::Flow(FlowRef::Stream(path))
            if binding.client() == facts.client && facts.way.stream() != Some(path.flow) =>
        {
            Some(path)
        }
        _ => None,
    }
}
