//! Output memory that is kept for the next send, so that connections without anything to send have
//! none.

/// Pieces that are kept, and bytes of one.
const PIECES_MAX: usize = 4096;
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// The pieces, all empty.
#[derive(Default)]
pub struct Spares(Vec<Vec<u8>>);

impl Spares {
    /// A piece, of no memory when none is kept.
    pub fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// Keeps a piece unless it is too large, or too many are kept.
    pub fn keep(&mut self, mut memory: Vec<u8>) {
        memory.clear();
        if (1..=PIECE_BYTES_MAX).contains(&memory.capacity()) && self.0.len() < PIECES_MAX {
            self.0.push(memory);
        }
    }
}
