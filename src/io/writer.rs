//! What waits to be written to one flow: at most one send is with the kernel; everything written
//! meanwhile waits as plaintext and goes, sealed, with the next. A writer exists only while there
//! is something to write.

use crate::base::limits::{WRITER_BYTES_KEPT, WRITERS_KEPT};

/// The output of one flow.
#[derive(Debug, Default)]
pub struct Writer {
    /// With the kernel, untouched until the completion.
    pub flight: Vec<u8>,
    /// What of `flight` the engine wrote.
    pub flight_count: Written,
    /// TLS bytes that are sealed already (handshake, tickets, alerts); they go before `plain`.
    pub sealed: Vec<u8>,
    /// What the engine wrote since the last send began.
    pub plain: Vec<u8>,
    /// The same, counted.
    pub plain_count: Written,
}

/// An amount of the engine's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Plaintext bytes.
    pub bytes: u32,
    /// Whole writes.
    pub writes: u16,
}

impl Writer {
    /// Adds one write of the engine. False: the counts are full, nothing was added.
    pub fn write(&mut self, bytes: &[u8], bytes_max: usize) -> bool {
        if self.plain.len() + bytes.len() > bytes_max || self.plain_count.writes == u16::MAX {
            return false;
        }
        self.plain.extend_from_slice(bytes);
        self.plain_count.bytes += bytes.len() as u32;
        self.plain_count.writes += 1;
        true
    }

    /// Whether nothing waits for the next send.
    pub fn is_idle(&self) -> bool {
        self.sealed.is_empty() && self.plain.is_empty()
    }

    /// Begins the next send: `flight` holds what is sealed already, the counts have moved; answers
    /// whether there is plaintext to seal behind it. Without TLS `plain` moves, too.
    pub fn begin(&mut self, is_secure: bool) -> bool {
        self.flight.clear();
        std::mem::swap(&mut self.flight, &mut self.sealed);
        self.flight_count = std::mem::take(&mut self.plain_count);
        if is_secure {
            return !self.plain.is_empty();
        }
        if self.flight.is_empty() {
            std::mem::swap(&mut self.flight, &mut self.plain);
        } else {
            self.flight.append(&mut self.plain);
        }
        false
    }

    /// Forgets what waits; what is with the kernel stays.
    pub fn drop_waiting(&mut self) {
        self.sealed.clear();
        self.plain.clear();
        self.plain_count = Written::default();
    }
}

/// Writers that wait to be used again, with their memory.
#[derive(Debug, Default)]
pub struct WriterPool {
    // Boxed as they are in the slots, so that nothing is copied or allocated on the way.
    #[allow(clippy::vec_box)]
    kept: Vec<Box<Writer>>,
}

impl WriterPool {
    /// An empty writer.
    pub fn take(&mut self) -> Box<Writer> {
        self.kept.pop().unwrap_or_default()
    }

    /// Takes a writer back, unless there are enough; memory beyond the usual goes to the allocator.
    pub fn give_back(&mut self, mut writer: Box<Writer>) {
        if self.kept.len() == WRITERS_KEPT {
            return;
        }
        writer.drop_waiting();
        writer.flight.clear();
        writer.flight_count = Written::default();
        for buffer in [&mut writer.flight, &mut writer.sealed, &mut writer.plain] {
            buffer.shrink_to(WRITER_BYTES_KEPT);
        }
        self.kept.push(writer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_of_a_turn_are_one_send_and_counted() {
        let mut writer = Writer::default();
        assert!(writer.write(b"one ", 100) && writer.write(b"two", 100));
        assert!(!writer.begin(false));
        assert_eq!(writer.flight, b"one two");
        assert_eq!(writer.flight_count, Written { bytes: 7, writes: 2 });
        assert!(writer.is_idle());
        assert!(writer.write(b"three", 5) && !writer.write(b"!", 5));
        writer.begin(false);
        assert_eq!((&writer.flight[..], writer.flight_count.writes), (&b"three"[..], 1));
    }

    #[test]
    fn sealed_bytes_go_first_and_count_as_nothing() {
        let mut writer = Writer::default();
        writer.sealed.extend_from_slice(b"ticket");
        assert!(writer.write(b"plain", 100));
        assert!(writer.begin(true));
        assert_eq!(writer.flight, b"ticket");
        assert_eq!(writer.flight_count, Written { bytes: 5, writes: 1 });
        assert_eq!(writer.plain, b"plain");
    }

    #[test]
    fn a_writer_that_comes_back_is_empty_and_small() {
        let mut pool = WriterPool::default();
        let mut writer = pool.take();
        assert!(writer.write(&vec![7; 1 << 20], 1 << 21));
        writer.begin(false);
        pool.give_back(writer);
        let writer = pool.take();
        assert!(writer.is_idle() && writer.flight.is_empty());
        assert!(writer.flight.capacity() <= WRITER_BYTES_KEPT);
    }
}
