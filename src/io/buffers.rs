//! A registered group of receive buffers: the kernel picks one for each receive, we give it back
//! after reading.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::ring::Ring;
use super::sys::Mapping;

/// A group of buffers of one size. Must outlive the ring that it is registered with (or the ring's
/// operations, see [`Ring::cancel_all`]).
pub struct Buffers {
    entries: Mapping,
    memory: Mapping,
    group: u16,
    size: usize,
    mask: u16,
    tail: u16,
}

impl Buffers {
    /// Makes `count` (a power of two) buffers of `size` bytes and registers them as `group`. Their
    /// memory is touched only when the kernel first writes to it.
    pub fn new(ring: &Ring, group: u16, count: u16, size: usize) -> io::Result<Buffers> {
        assert!(count.is_power_of_two());
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * size)?;
        // SAFETY: the mapping holds `count` entries and lives as long as the ring (the owner's
        // promise).
        unsafe {
            let submitter = ring.uring().submitter();
            submitter.register_buf_ring_with_flags(entries.base() as u64, count, group, 0)?;
        }
        let mut buffers = Buffers { entries, memory, group, size, mask: count - 1, tail: 0 };
        (0..count).for_each(|id| buffers.give_back(id));
        buffers.publish();
        Ok(buffers)
    }

    /// The number under which receives name it.
    pub fn group(&self) -> u16 {
        self.group
    }

    /// The first `length` bytes of a buffer that a completion named.
    ///
    /// # Safety
    /// The buffer is ours from its completion until [`Buffers::give_back`]; the caller makes one
    /// slice of it at a time and drops it before giving back.
    pub unsafe fn bytes<'a>(&self, id: u16, length: usize) -> &'a mut [u8] {
        assert!(id <= self.mask && length <= self.size);
        // SAFETY: inside the mapping by the assertion; exclusive by the caller's promise.
        unsafe {
            let start = self.memory.base().add(usize::from(id) * self.size);
            std::slice::from_raw_parts_mut(start, length)
        }
    }

    /// Bytes of one buffer.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Returns a buffer; the kernel sees it after [`Buffers::publish`].
    pub fn give_back(&mut self, id: u16) {
        assert!(id <= self.mask);
        // SAFETY: the index is masked to the entries that were mapped; the kernel reads an entry
        // only after the tail passed it.
        let entry = unsafe {
            let first = self.entries.base().cast::<BufRingEntry>();
            &mut *first.add(usize::from(self.tail & self.mask))
        };
        // SAFETY: the id is below the number of buffers mapped.
        let start = unsafe { self.memory.base().add(usize::from(id) * self.size) };
        entry.set_addr(start as u64);
        entry.set_len(self.size as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given back.
    pub fn publish(&self) {
        // SAFETY: the tail lies in the first entry of a living mapping; the kernel only reads it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.base().cast()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }

    /// Keeps the memory for ever: for a ring that would not let go of it.
    pub fn leak(self) {
        std::mem::forget(self);
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::{Op, Tag, Wait};
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    #[test]
    fn buffers_go_round_more_often_than_there_are() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        let mut ring = Ring::new().unwrap();
        let mut buffers = Buffers::new(&ring, 7, 4, 4096).unwrap();
        ring.receive(ours.as_raw_fd(), buffers.group(), Tag::new(Op::Receive, 1, 0));
        for round in 0..40u8 {
            peer.write_all(&[round; 100]).unwrap();
            let mut got = 0;
            while got < 100 {
                ring.enter(Wait::Forever).unwrap();
                while let Some(completion) = ring.next_completion() {
                    assert!(completion.has_more() && completion.result > 0);
                    let id = completion.buffer().unwrap();
                    // SAFETY: named by a completion, given back below.
                    let bytes = unsafe { buffers.bytes(id, completion.result as usize) };
                    assert!(bytes.iter().all(|&byte| byte == round));
                    got += bytes.len();
                    buffers.give_back(id);
                    buffers.publish();
                }
            }
        }
        assert!(ring.cancel_all());
        drop(ring);
    }
}
