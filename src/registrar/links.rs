//! Doubly linked lists through the bindings of a slab: one list an address of record, flow, Contact
//! and expiry bucket. A list's head lives in a map of [`super::location::Location`]. Links are slots
//! without generations: a binding leaves its lists before it leaves the table.

use crate::base::slab::{Slab, SlabKey};

use super::binding::Binding;

/// Which of the lists that a binding can stand in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum List {
    /// Bindings whose expiry is looked at in one bucket of time.
    Expiry,
    /// Bindings whose Contact has one canonical form.
    Contact,
    /// Bindings that go with one stream flow, or whose datagrams go to one address.
    Flow,
    /// Bindings of one address of record, newest first. Last, beside what else a look-up reads.
    Aor,
}

/// How many lists there are.
pub(super) const LISTS: usize = 4;

/// The end of a list: a key that finds nothing, because generation 0 is never given out.
pub(super) const END: SlabKey = SlabKey { index: u32::MAX, generation: 0 };

/// The slots of a binding's neighbours in one list, or that of [`END`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    previous: u32,
    next: u32,
}

impl Links {
    /// Of a binding that stands in no list.
    pub(super) const NONE: Links = Links { previous: END.index, next: END.index };
}

/// Puts the binding under `key` before `head` and returns it as the new head.
pub(super) fn push(
    bindings: &mut Slab<Binding>,
    list: List,
    head: SlabKey,
    key: SlabKey,
) -> SlabKey {
    if head != END {
        bindings.at_mut(head.index).links[list as usize].previous = key.index;
    }
    let binding = bindings.get_mut(key).expect("a living binding");
    binding.links[list as usize] = Links { previous: END.index, next: head.index };
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
    if next != END.index {
        bindings.at_mut(next).links[list as usize].previous = previous;
    }
    if previous == END.index {
        return key_at(bindings, next);
    }
    bindings.at_mut(previous).links[list as usize].next = next;
    head
}

/// The binding behind the one of `key` in a list; [`END`] behind the last.
pub(super) fn next(bindings: &Slab<Binding>, list: List, key: SlabKey) -> SlabKey {
    key_at(bindings, bindings.at(key.index).links[list as usize].next)
}

fn key_at(bindings: &Slab<Binding>, slot: u32) -> SlabKey {
    if slot == END.index { END } else { bindings.key_at(slot) }
}

/// The bindings of a list, from its head on.
pub(super) fn walk(
    bindings: &Slab<Binding>,
    list: List,
    head: SlabKey,
) -> impl Iterator<Item = (SlabKey, &Binding)> {
    let mut next = head.index;
    std::iter::from_fn(move || {
        if next == END.index {
            return None;
        }
        let (key, binding) = (bindings.key_at(next), bindings.at(next));
        next = binding.links[list as usize].next;
        Some((key, binding))
    })
}
