//! Bytes that many small holders leave behind and that go in the order in which they came: appended
//! to pooled blocks, each stretch at its exact length, and given back a whole block at a time once
//! everything in it is over. Absent on purpose: taking out of the middle.

use std::collections::VecDeque;
use std::ops::Range;

use super::buf::Pool;
use super::limits::TRAIL_BLOCK_BYTES;

/// Where a stretch of bytes lies in its [`Trail`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// Number of its block, counted from the trail's beginning, in 32 bits that come round.
    block: u32,
    start: u32,
    end: u32,
}

impl Stretch {
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Stretches of bytes in the order in which they were left, in a bounded number of blocks.
pub struct Trail {
    blocks: VecDeque<Vec<u8>>,
    blocks_max: usize,
    /// Number of the first of `blocks`.
    first: u32,
}

impl Trail {
    /// An empty one, of at most `blocks_max` blocks of [`TRAIL_BLOCK_BYTES`].
    pub fn new(blocks_max: usize) -> Trail {
        Trail { blocks: VecDeque::new(), blocks_max, first: 0 }
    }

    /// Appends a copy of `bytes`. `None`: there is no room, or they are more than a block holds.
    pub fn push(&mut self, bytes: &[u8], pool: &mut Pool) -> Option<Stretch> {
        if bytes.len() > TRAIL_BLOCK_BYTES {
            return None;
        }
        let room = self.blocks.back().map_or(0, |block| TRAIL_BLOCK_BYTES - block.len());
        if self.blocks.is_empty() || room < bytes.len() {
            if self.blocks.len() >= self.blocks_max {
                return None;
            }
            self.blocks.push_back(pool.take(TRAIL_BLOCK_BYTES));
        }
        let number = self.first.wrapping_add(self.blocks.len() as u32 - 1);
        let block = self.blocks.back_mut()?;
        let start = block.len() as u32;
        block.extend_from_slice(bytes);
        Some(Stretch { block: number, start, end: block.len() as u32 })
    }

    /// The bytes of a stretch that is not over. Panics when it is.
    pub fn bytes(&self, stretch: Stretch) -> &[u8] {
        let at = stretch.block.wrapping_sub(self.first) as usize;
        &self.blocks[at][stretch.range()]
    }

    /// Gives the blocks before the one of `oldest` back: what lies in them is over. `None`:
    /// everything is.
    pub fn release(&mut self, oldest: Option<Stretch>, pool: &mut Pool) {
        let over = match oldest {
            Some(stretch) => stretch.block.wrapping_sub(self.first) as usize,
            None => self.blocks.len(),
        };
        for block in self.blocks.drain(..over) {
            pool.put(block);
        }
        self.first = self.first.wrapping_add(over as u32);
    }

    /// Bytes of the blocks in use.
    pub fn held_bytes(&self) -> usize {
        self.blocks.len() * TRAIL_BLOCK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_found_until_their_block_is_released() {
        let (mut trail, mut pool) = (Trail::new(8), Pool::new());
        let texts: Vec<Vec<u8>> = (0..400usize).map(|n| vec![n as u8; 300 + n]).collect();
        let mut stretches = Vec::new();
        for text in &texts {
            stretches.push(trail.push(text, &mut pool).expect("there is room"));
        }
        let blocks = pool.lent();
        assert_eq!(trail.held_bytes(), blocks as usize * TRAIL_BLOCK_BYTES);
        assert!(blocks >= 3, "{blocks}");
        for oldest in 0..texts.len() {
            trail.release(Some(stretches[oldest]), &mut pool);
            for (text, stretch) in texts.iter().zip(&stretches).skip(oldest) {
                assert_eq!(trail.bytes(*stretch), text);
            }
        }
        assert_eq!(pool.lent(), 1, "the last block alone");
        trail.release(None, &mut pool);
        assert_eq!((pool.lent(), trail.held_bytes()), (0, 0));
    }

    #[test]
    fn what_is_larger_than_a_block_and_what_is_too_much_is_refused() {
        let (mut trail, mut pool) = (Trail::new(3), Pool::new());
        assert!(trail.push(&vec![1; TRAIL_BLOCK_BYTES + 1], &mut pool).is_none());
        assert_eq!(trail.held_bytes(), 0);
        let nothing = trail.push(b"", &mut pool).expect("there is room");
        assert_eq!(trail.bytes(nothing), b"");
        let whole = vec![1; TRAIL_BLOCK_BYTES];
        // The stretch of no bytes is in the first block, which a whole one fills.
        for _ in 0..3 {
            assert!(trail.push(&whole, &mut pool).is_some());
        }
        assert!(trail.push(&whole, &mut pool).is_none());
        assert_eq!(trail.bytes(nothing), b"");
        trail.release(None, &mut pool);
        assert!(trail.push(&whole, &mut pool).is_some());
    }
}
