//! Bytes as decisions: what a fuzzer varies decides what a test does next. Once they are used up
//! every decision is the first one, so that any bytes are a whole run. Absent on purpose:
//! randomness (`rng`).

/// Decisions still to be made.
#[derive(Clone, Copy, Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Decisions by these bytes.
    pub fn new(bytes: &'a [u8]) -> Choices<'a> {
        Choices(bytes)
    }

    /// Whether all bytes are used up.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte; 0 when none is left.
    pub fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    /// A number below `n`, of one byte. Panics when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    /// One of them. Panics when there is none.
    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// So many bytes, or what is left.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_follow_the_bytes_and_never_end() {
        let mut choices = Choices::new(&[7, 5, b'a', b'b', b'c']);
        assert_eq!((choices.byte(), choices.below(3)), (7, 2));
        assert_eq!((choices.take(2), choices.take(9)), (&b"ab"[..], &b"c"[..]));
        assert!(choices.is_empty());
        assert_eq!((choices.byte(), choices.of(&[4, 5]), choices.take(1)), (0, 4, &b""[..]));
    }
}
