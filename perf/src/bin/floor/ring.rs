//! The ring of the floor: set up as the proxy's hot ring is, and nothing around it. Sends keep their
//! bytes here until the kernel is done with them, so that no other file has to promise that.
//! Absent on purpose: probes, fallbacks, cancellation; the process ends with its ring.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{self, BufRingEntry};
use io_uring::{IoUring, opcode, squeue};

/// Entries of the submission and the completion queue, and completions of one turn: the proxy's.
const SUBMISSIONS: u32 = 4096;
const COMPLETIONS: u32 = 32 * 1024;
const COMPLETIONS_A_TURN: usize = 256;
/// Enters in a row that run the kernel's deferred work.
const DEFERRED_ENTERS_MAX: usize = 64;

/// What an entry was for: the top half of its user data; the bottom half is an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A listener's multishot accept.
    Accept,
    /// A connection's multishot receive.
    Receive,
    /// A connection's send.
    Send,
    /// The UDP socket's multishot receive.
    DatagramIn,
    /// A datagram's send.
    DatagramOut,
}

impl Op {
    const ALL: [Op; 5] = [Op::Accept, Op::Receive, Op::Send, Op::DatagramIn, Op::DatagramOut];

    fn tag(self, index: u32) -> u64 {
        (self as u64) << 32 | u64::from(index)
    }
}

/// One completion.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// What ended or brought something.
    pub op: Op,
    /// Whose.
    pub index: u32,
    /// Not negative, or a negated errno.
    pub result: i32,
    flags: u32,
}

impl Completion {
    /// Whether the multishot that it is of stays armed.
    pub fn has_more(&self) -> bool {
        io_uring::cqueue::more(self.flags)
    }

    /// The buffer that carries its data.
    pub fn buffer(&self) -> Option<u16> {
        io_uring::cqueue::buffer_select(self.flags)
    }
}

/// The ring, and the bytes of the sends that it has under way.
pub struct Ring {
    uring: IoUring,
    waiting: VecDeque<squeue::Entry>,
    batch: Vec<Completion>,
    cursor: usize,
    /// What the kernel reads for the send of that index; empty when it has none.
    flights: Vec<Vec<u8>>,
}

impl Ring {
    /// A ring for the calling thread.
    pub fn new() -> io::Result<Ring> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .dontfork()
            .build(SUBMISSIONS)?;
        Ok(Ring {
            uring,
            waiting: VecDeque::new(),
            batch: Vec::with_capacity(COMPLETIONS_A_TURN),
            cursor: 0,
            flights: Vec::new(),
        })
    }

    /// Arms a multishot accept on a listening socket, which is never closed.
    pub fn accept(&mut self, listener: RawFd, index: u32) {
        let accept = opcode::AcceptMulti::new(types::Fd(listener)).flags(libc::SOCK_CLOEXEC);
        // SAFETY: no memory is named.
        unsafe { self.push(accept.build().user_data(Op::Accept.tag(index))) };
    }

    /// Arms a multishot receive into a group that is never freed.
    pub fn receive(&mut self, socket: RawFd, group: u16, index: u32) {
        let receive = opcode::RecvMulti::new(types::Fd(socket), group);
        // SAFETY: the memory is the group's.
        unsafe { self.push(receive.build().user_data(Op::Receive.tag(index))) };
    }

    /// Sends all of `bytes`; [`Ring::take_flight`] gives their memory back.
    pub fn send(&mut self, socket: RawFd, index: u32, bytes: Vec<u8>) {
        let position = index as usize;
        if self.flights.len() <= position {
            self.flights.resize_with(position + 1, Vec::new);
        }
        assert!(self.flights[position].is_empty() && !bytes.is_empty(), "one send at a time");
        let entry = opcode::Send::new(types::Fd(socket), bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .user_data(Op::Send.tag(index));
        self.flights[position] = bytes;
        // SAFETY: the heap memory of `bytes` stays where it is until `take_flight`, which wants the
        // completion.
        unsafe { self.push(entry) };
    }

    /// The bytes of a send that is completed.
    pub fn take_flight(&mut self, completion: &Completion) -> Vec<u8> {
        assert!(completion.op == Op::Send);
        std::mem::take(&mut self.flights[completion.index as usize])
    }

    /// Queues any entry.
    ///
    /// # Safety
    /// Descriptors and memory that it names stay valid until its completion was taken.
    pub unsafe fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: the caller's promise.
        if self.waiting.is_empty() && unsafe { self.uring.submission().push(&entry) }.is_ok() {
            return;
        }
        self.waiting.push_back(entry);
    }

    /// The user data of an entry that is built elsewhere.
    pub fn tag(op: Op, index: u32) -> u64 {
        op.tag(index)
    }

    /// Gives the queued entries to the kernel, and waits for a completion when there is none.
    pub fn enter(&mut self) -> io::Result<()> {
        loop {
            while let Some(entry) = self.waiting.front() {
                // SAFETY: promised when it was pushed.
                if unsafe { self.uring.submission().push(entry) }.is_err() {
                    break;
                }
                self.waiting.pop_front();
            }
            let is_idle = self.waiting.is_empty() && self.uring.completion().is_empty();
            match self.uring.submit_and_wait(usize::from(is_idle)) {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                    _ => return Err(error),
                },
            }
            if self.waiting.is_empty() || !self.uring.completion().is_empty() {
                return Ok(());
            }
        }
    }

    /// Lets the kernel run what it deferred.
    pub fn run_deferred(&mut self) {
        const GETEVENTS: u32 = 1;
        for _ in 0..DEFERRED_ENTERS_MAX {
            if !self.uring.submission().taskrun() {
                return;
            }
            // SAFETY: submits nothing, waits for nothing, passes no argument.
            let _ =
                unsafe { self.uring.submitter().enter::<libc::sigset_t>(0, 0, GETEVENTS, None) };
        }
    }

    /// Takes the completions of one turn.
    pub fn begin_turn(&mut self) {
        self.batch.clear();
        self.cursor = 0;
        let completions = self.uring.completion().take(COMPLETIONS_A_TURN);
        self.batch.extend(completions.map(|entry| Completion {
            op: Op::ALL[(entry.user_data() >> 32) as usize],
            index: entry.user_data() as u32,
            result: entry.result(),
            flags: entry.flags(),
        }));
    }

    /// The next completion of this turn.
    pub fn next_completion(&mut self) -> Option<Completion> {
        let completion = self.batch.get(self.cursor).copied();
        self.cursor += 1;
        completion
    }
}

/// Receive buffers of which the kernel picks one for each receive. Their memory is never freed.
pub struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    size: usize,
    mask: u16,
    tail: u16,
}

impl Buffers {
    /// Registers `count` (a power of two) buffers of `size` bytes as `group`.
    pub fn new(ring: &Ring, group: u16, count: u16, size: usize) -> io::Result<Buffers> {
        assert!(count.is_power_of_two());
        let entries = map(usize::from(count) * size_of::<BufRingEntry>())?.cast();
        let memory = map(usize::from(count) * size)?;
        // SAFETY: the mapping holds `count` entries and is never unmapped.
        unsafe {
            let submitter = ring.uring.submitter();
            submitter.register_buf_ring_with_flags(entries as u64, count, group, 0)?;
        }
        let mut buffers = Buffers { entries, memory, size, mask: count - 1, tail: 0 };
        (0..count).for_each(|id| buffers.give_back(id));
        buffers.publish();
        Ok(buffers)
    }

    /// A buffer that a completion named.
    ///
    /// # Safety
    /// It was named and is not given back while the slice lives; there is no other slice of it.
    pub unsafe fn bytes<'a>(&self, id: u16) -> &'a mut [u8] {
        assert!(id <= self.mask);
        // SAFETY: inside the mapping by the assertion; exclusive by the caller's promise.
        unsafe {
            let start = self.memory.add(usize::from(id) * self.size);
            std::slice::from_raw_parts_mut(start, self.size)
        }
    }

    /// Returns a buffer; the kernel sees it after [`Buffers::publish`].
    pub fn give_back(&mut self, id: u16) {
        assert!(id <= self.mask);
        // SAFETY: both indices are below the number of entries and buffers that were mapped; the
        // kernel reads an entry only after the tail passed it.
        unsafe {
            let entry = &mut *self.entries.add(usize::from(self.tail & self.mask));
            entry.set_addr(self.memory.add(usize::from(id) * self.size) as u64);
            entry.set_len(self.size as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given back.
    pub fn publish(&self) {
        // SAFETY: the tail lies in the first entry of the mapping; the kernel only reads it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Anonymous memory that nobody has touched, for the life of the process.
fn map(length: usize) -> io::Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
    if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(base.cast()) }
}

/// Acknowledgements of that socket ride on answers, as the proxy has it.
pub fn delay_acknowledgements(socket: RawFd) {
    let off = 0i32;
    let length = size_of::<i32>() as libc::socklen_t;
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_QUICKACK);
    // SAFETY: pointer and length name a living i32. A refusal costs a few packets.
    unsafe { libc::setsockopt(socket, level, name, (&raw const off).cast(), length) };
}

/// Takes ownership of a descriptor that accept has just given us.
pub fn own(descriptor: i32) -> std::os::fd::OwnedFd {
    assert!(descriptor >= 0);
    // SAFETY: it came from the kernel and nobody else knows it.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(descriptor) }
}
