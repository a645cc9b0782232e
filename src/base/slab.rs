//! A table whose keys go stale: the key of a slot that was emptied and used again finds nothing.

/// Entries of one page; growing adds a page and moves nothing.
const PAGE: usize = 256;
/// End of the list of free slots.
const NONE: u32 = u32::MAX;

/// The name of one entry: its slot and which use of the slot is meant. Generation 0 is never given
/// out, so that a key of zero bits finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlabKey {
    /// The slot.
    pub index: u32,
    /// Which use of the slot.
    pub generation: u32,
}

impl SlabKey {
    /// The key as one number.
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The key that [`SlabKey::to_bits`] gave. Any value is well formed; the table says whether it
    /// finds anything.
    pub const fn from_bits(bits: u64) -> SlabKey {
        SlabKey { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// A bounded table of `T` in pages. Slots of removed entries are used again, the last freed first;
/// pages stay until the table goes.
pub struct Slab<T> {
    pages: Vec<Vec<Entry<T>>>,
    /// First of the free slots, linked by `Entry::next_free`.
    free: u32,
    len: usize,
    max: usize,
}

/// The generation stands before the value, on the cache line of the value's first fields.
#[repr(C)]
struct Entry<T> {
    /// Of the entry in it, or of the next one when it is empty.
    generation: u32,
    /// Meaningful while `value` is `None`.
    next_free: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    /// An empty table for at most `max` entries. Panics when `max` exceeds what an index can name.
    pub fn new(max: usize) -> Slab<T> {
        assert!(max < NONE as usize);
        Slab { pages: Vec::new(), free: NONE, len: 0, max }
    }

    /// Moves the bound. What is beyond a lower one stays until it is taken out. Panics when `max`
    /// exceeds what an index can name.
    pub fn set_max(&mut self, max: usize) {
        assert!(max < NONE as usize);
        self.max = max;
    }

    /// Puts `value` in a free slot. `None`, and the value is dropped, when the table is full.
    pub fn insert(&mut self, value: T) -> Option<SlabKey> {
        if self.len >= self.max {
            return None;
        }
        if self.free == NONE {
            self.append_slot();
        }
        let index = self.free;
        let entry = self.entry_mut(index).expect("a free slot exists");
        entry.value = Some(value);
        let (next, generation) = (entry.next_free, entry.generation);
        self.free = next;
        self.len += 1;
        Some(SlabKey { index, generation })
    }

    /// The entry of that key, unless it is stale.
    pub fn get(&self, key: SlabKey) -> Option<&T> {
        let entry = self.entry(key.index)?;
        entry.value.as_ref().filter(|_| entry.generation == key.generation)
    }

    /// The entry of that key, unless it is stale.
    pub fn get_mut(&mut self, key: SlabKey) -> Option<&mut T> {
        let entry = self.entry_mut(key.index)?;
        entry.value.as_mut().filter(|_| entry.generation == key.generation)
    }

    /// Takes the entry of that key out, unless it is stale. From here on the key finds nothing.
    pub fn remove(&mut self, key: SlabKey) -> Option<T> {
        let next_free = self.free;
        let entry = self.entry_mut(key.index)?;
        if entry.generation != key.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1).max(1);
        entry.next_free = next_free;
        self.free = key.index;
        self.len -= 1;
        Some(value)
    }

    /// The entry in that slot, whatever its generation. Panics when the slot is empty: for links
    /// within one structure, which never dangle.
    pub(crate) fn at(&self, index: u32) -> &T {
        let entry = self.entry(index);
        entry.and_then(|entry| entry.value.as_ref()).expect("a link names a living entry")
    }

    /// As [`Slab::at`].
    pub(crate) fn at_mut(&mut self, index: u32) -> &mut T {
        let entry = self.entry_mut(index);
        entry.and_then(|entry| entry.value.as_mut()).expect("a link names a living entry")
    }

    /// The key of whatever is or comes next in that slot. Panics when there never was such a slot.
    pub(crate) fn key_at(&self, index: u32) -> SlabKey {
        let generation = self.entry(index).expect("a slot that was used").generation;
        SlabKey { index, generation }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing more can be put in.
    pub fn is_full(&self) -> bool {
        self.len == self.max
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (SlabKey, &T)> {
        self.iter_from(0)
    }

    /// The entries from slot `start` on, in the order of their slots: for walks that pause.
    pub fn iter_from(&self, start: u32) -> impl Iterator<Item = (SlabKey, &T)> {
        let (page, offset) = place(start);
        let entries = self.pages.iter().skip(page).flatten().skip(offset);
        entries.zip(page * PAGE + offset..).filter_map(|(entry, index)| {
            let key = SlabKey { index: index as u32, generation: entry.generation };
            entry.value.as_ref().map(|value| (key, value))
        })
    }

    fn append_slot(&mut self) {
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        let page_count = self.pages.len();
        let page = self.pages.last_mut().expect("just pushed");
        self.free = ((page_count - 1) * PAGE + page.len()) as u32;
        page.push(Entry { generation: 1, next_free: NONE, value: None });
    }

    fn entry(&self, index: u32) -> Option<&Entry<T>> {
        let (page, offset) = place(index);
        self.pages.get(page)?.get(offset)
    }

    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        let (page, offset) = place(index);
        self.pages.get_mut(page)?.get_mut(offset)
    }
}

fn place(index: u32) -> (usize, usize) {
    (index as usize / PAGE, index as usize % PAGE)
}

#[cfg(test)]
mod tests {
    use super::super::rng::Rng;
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slab = Slab::new(10);
        let old = slab.insert("old").unwrap();
        assert_eq!(slab.remove(old), Some("old"));
        let new = slab.insert("new").unwrap();
        assert_eq!(new.index, old.index);
        assert_eq!(slab.get(old), None);
        assert_eq!(slab.get_mut(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.get(new), Some(&"new"));
        for bits in [0, u64::MAX, u64::from(u32::MAX), 1 << 32 | 999] {
            assert_eq!(slab.get(SlabKey::from_bits(bits)), None);
        }
        assert_eq!(SlabKey::from_bits(new.to_bits()), new);
    }

    #[test]
    fn a_full_table_refuses_until_something_leaves() {
        let mut slab = Slab::new(PAGE + 1);
        let keys: Vec<_> = (0..=PAGE).map(|i| slab.insert(i).unwrap()).collect();
        assert_eq!(slab.insert(0), None);
        slab.remove(keys[5]);
        assert_eq!(slab.insert(0).unwrap().index, 5);
        assert_eq!(slab.insert(0), None);
        assert_eq!(slab.pages.len(), 2);
    }

    #[test]
    fn a_bound_may_move_while_entries_live() {
        let mut slab = Slab::new(3);
        let keys: Vec<_> = (0..3).map(|i| slab.insert(i).unwrap()).collect();
        slab.set_max(1);
        assert_eq!(slab.insert(9), None);
        assert_eq!(slab.get(keys[2]), Some(&2));
        slab.remove(keys[0]);
        slab.remove(keys[1]);
        assert_eq!(slab.insert(9), None);
        slab.remove(keys[2]);
        assert!(slab.insert(9).is_some());
        slab.set_max(2);
        assert!(slab.insert(9).is_some());
    }

    #[test]
    fn it_behaves_as_a_list_of_live_entries() {
        let mut rng = Rng::new([4; 32]);
        let mut slab = Slab::new(700);
        let mut model: Vec<(SlabKey, u64)> = Vec::new();
        for step in 0..20_000 {
            if rng.below(100) < 52 {
                match slab.insert(step) {
                    Some(key) => model.push((key, step)),
                    None => assert_eq!(model.len(), 700),
                }
            } else if !model.is_empty() {
                let (key, value) = model.swap_remove(rng.below(model.len() as u64) as usize);
                assert_eq!(slab.remove(key), Some(value));
                assert_eq!(slab.remove(key), None);
            }
            assert_eq!(slab.len(), model.len());
        }
        model.sort_by_key(|(key, _)| key.index);
        assert!(slab.iter().eq(model.iter().map(|(key, value)| (*key, value))));
        let tail = model.iter().filter(|(key, _)| key.index >= 300);
        assert!(slab.iter_from(300).eq(tail.map(|(key, value)| (*key, value))));
        assert_eq!(slab.iter_from(100_000).count(), 0);
    }
}
