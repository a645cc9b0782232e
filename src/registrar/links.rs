//! Doubly linked lists through the bindings of a slab: one list an address of record, flow, Contact
//! and expiry bucket. A list's head lives in a map of [`super::location::Location`].

use crate::base::slab::{Slab, SlabKey};

use super::binding::Binding;

/// Which of the lists that a binding can stand in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum List {
    /// Bindings of one address of record, newest first.
    Aor,
    /// Bindings that go with one stream flow.
    Flow,
    /// Bindings whose Contact has one canonical form.
    Contact,
    /// Bindings whose expiry is looked at in one bucket of time.
    Expiry,
}

/// How many lists there are.
pub(super) const LISTS: usize = 4;

/// The end of a list: a key that finds nothing, because generation 0 is never given out.
pub(super) const END: SlabKey = SlabKey { index: u32::MAX, generation: 0 };

/// A binding's neighbours in one list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    pub(super) previous: SlabKey,
    pub(super) next: SlabKey,
}

impl Links {
    /// Of a binding that stands in no list.
    pub(super) const NONE: Links = Links { previous: END, next: END };
}

/// Puts the binding under `key` before `head` and returns it as the new head.
pub(super) fn push(
    bindings: &mut Slab<Binding>,
    list: List,
    head: SlabKey,
    key: SlabKey,
) -> SlabKey {
    if let Some(first) = bindings.get_mut(head) {
        first.links[list as usize].previous = key;
    }
    let binding = bindings.get_mut(key).expect("a living binding");
    binding.links[list as usize] = Links { previous: END, next: head };
    key
}

/// Takes the binding under `key` out of the list that begins at `head` and returns the head that
/// remains.
pub(super) fn unlink(
    bindings: &mut Slab<Binding>,
    list: List,
    head: SlabKey,
    key: SlabKey,
) -> SlabKey {
    let binding = bindings.get_mut(key).expect("a living binding");
    let Links { previous, next } =
        std::mem::replace(&mut binding.links[list as usize], Links::NONE);
    if let Some(after) = bindings.get_mut(next) {
        after.links[list as usize].previous = previous;
    }
    match bindings.get_mut(previous) {
        Some(before) => {
            before.links[list as usize].next = next;
            head
        }
        None => next,
    }
}

/// The bindings of a list, from its head on.
pub(super) fn walk(
    bindings: &Slab<Binding>,
    list: List,
    head: SlabKey,
) -> impl Iterator<Item = (SlabKey, &Binding)> {
    let mut next = head;
    std::iter::from_fn(move || {
        let key = next;
        let binding = bindings.get(key)?;
        next = binding.links[list as usize].next;
        Some((key, binding))
    })
}
