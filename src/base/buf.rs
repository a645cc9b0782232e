//! Pooled blocks: what must outlive the call that brought it (a partial frame, a request until its
//! final response) is copied once into one of these. One pool a shard; no locks.

use super::limits::{BLOCK_CLASSES, BLOCKS_KEPT};

/// Free blocks by size class, at most [`BLOCKS_KEPT`] of each.
pub struct Pool {
    kept: [Vec<Vec<u8>>; BLOCK_CLASSES.len()],
    allocated: u64,
    lent: i64,
}

impl Pool {
    /// An empty pool, whose lists of kept blocks never have to grow.
    pub fn new() -> Pool {
        Pool { kept: BLOCKS_KEPT.map(Vec::with_capacity), allocated: 0, lent: 0 }
    }

    /// An empty block for at least `capacity` bytes. More than the largest class is a plain
    /// allocation.
    pub fn take(&mut self, capacity: usize) -> Vec<u8> {
        self.lent += 1;
        let class = class_for(capacity);
        if let Some(block) = class.and_then(|class| self.kept[class].pop()) {
            return block;
        }
        self.allocated += 1;
        Vec::with_capacity(class.map_or(capacity, |class| BLOCK_CLASSES[class]))
    }

    /// A block with a copy of `bytes`.
    pub fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut block = self.take(bytes.len());
        block.extend_from_slice(bytes);
        block
    }

    /// Takes a block back, wherever it came from. It is freed when its class is full, and when it
    /// is smaller than the smallest class or more than twice as large as the class that it would
    /// serve.
    pub fn put(&mut self, mut block: Vec<u8>) {
        let Some(class) = class_of(block.capacity()) else { return };
        self.lent -= 1;
        if block.capacity() <= 2 * BLOCK_CLASSES[class]
            && self.kept[class].len() < BLOCKS_KEPT[class]
        {
            block.clear();
            self.kept[class].push(block);
        }
    }

    /// Makes room for `more` bytes behind those in `block`, which moves to a larger class when it
    /// must. `most` is how long it can ever become: room is never made beyond that in advance.
    pub fn grow(&mut self, block: &mut Vec<u8>, more: usize, most: usize) {
        let needed = block.len().checked_add(more).expect("a length within memory");
        if needed <= block.capacity() {
            return;
        }
        // Capacities double, so that growing by small steps stays linear.
        let capacity = needed.max((2 * block.capacity()).min(most));
        let mut larger = self.take(capacity);
        larger.extend_from_slice(block);
        self.put(std::mem::replace(block, larger));
    }

    /// How often a block had to be allocated since the start.
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Blocks taken and not put back. Blocks travel between shards: only the sum of all their pools
    /// tells how many are in use, one pool's number may be negative.
    pub fn lent(&self) -> i64 {
        self.lent
    }

    /// Bytes of the blocks that wait for reuse.
    pub fn kept_bytes(&self) -> usize {
        self.kept.iter().flatten().map(Vec::capacity).sum()
    }
}

/// The least class of at least `bytes`.
fn class_for(bytes: usize) -> Option<usize> {
    BLOCK_CLASSES.iter().position(|size| *size >= bytes)
}

/// The largest class of at most `bytes`; looked for from below, as most blocks are small.
fn class_of(bytes: usize) -> Option<usize> {
    let above = BLOCK_CLASSES.iter().position(|size| *size > bytes);
    above.unwrap_or(BLOCK_CLASSES.len()).checked_sub(1)
}

impl Default for Pool {
    fn default() -> Pool {
        Pool::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_returns_to_its_class_and_is_used_again() {
        let mut pool = Pool::new();
        for capacity in [0, 1, 1024, 1025, 4096, 5000, 65536] {
            let block = pool.copy(&vec![7; capacity]);
            assert!(block.capacity() >= capacity && block.len() == capacity);
            let (address, allocated) = (block.as_ptr(), pool.allocated());
            pool.put(block);
            let again = pool.take(capacity);
            assert_eq!((again.as_ptr(), again.len()), (address, 0));
            assert_eq!(pool.allocated(), allocated);
            pool.put(again);
        }
    }

    #[test]
    fn odd_sizes_are_freed() {
        let mut pool = Pool::new();
        for capacity in [0, 100, 255, 600, 2 * 65536 + 1, 10 << 20] {
            pool.put(Vec::with_capacity(capacity));
            assert_eq!(pool.kept_bytes(), 0, "{capacity}");
        }
        assert!(pool.take(1 << 20).capacity() >= 1 << 20);
    }

    #[test]
    fn no_more_than_the_bound_is_kept() {
        let mut pool = Pool::new();
        for (size, kept) in BLOCK_CLASSES.into_iter().zip(BLOCKS_KEPT) {
            let before = pool.kept_bytes();
            for _ in 0..kept + 3 {
                pool.put(Vec::with_capacity(size));
            }
            assert_eq!(pool.kept_bytes() - before, size * kept);
        }
    }

    #[test]
    fn growing_keeps_the_bytes_and_returns_the_smaller_block() {
        let mut pool = Pool::new();
        let mut block = Vec::new();
        for step in 0..200_000_u32 {
            pool.grow(&mut block, 1, 200_000);
            block.push(step as u8);
        }
        assert!(block.iter().enumerate().all(|(i, byte)| *byte == i as u8));
        assert_eq!(block.capacity(), 200_000);
        let doublings: usize = (10..=17).map(|shift| 1 << shift).sum();
        assert_eq!(pool.kept_bytes(), BLOCK_CLASSES[0] + doublings);
    }
}
