//! The hot ring of one shard: what is queued for the kernel and what comes back from it. Built on
//! the thread that uses it (SINGLE_ISSUER binds it). Absent on purpose: what a completion means
//! (see `streams`, `datagrams`).
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::{IoUring, opcode, register, squeue, types};

use super::sys;
use crate::base::limits::{
    COMPLETIONS_A_TURN, DEFERRED_ENTERS_MAX, RING_COMPLETIONS, RING_COMPLETIONS_MIN,
    RING_SUBMISSIONS,
};

/// What an entry was for: the top 8 bits of its user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// A listener's multishot accept; the index is the listener's.
    Accept = 1,
    /// A flow's multishot receive.
    Receive,
    /// A flow's send.
    Send,
    /// A flow's connect.
    Connect,
    /// A cancellation; its own completion means nothing.
    Cancel,
    /// A UDP socket's multishot receive; the index is the socket's.
    DatagramIn,
    /// A datagram's send; the index is the send's.
    DatagramOut,
    /// The doorbell was rung.
    Wake,
}

impl Op {
    const ALL: [Op; 8] = [
        Op::Accept,
        Op::Receive,
        Op::Send,
        Op::Connect,
        Op::Cancel,
        Op::DatagramIn,
        Op::DatagramOut,
        Op::Wake,
    ];
}

/// The user data of an entry: operation 8 bits, generation 24, index 32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag(u64);

impl Tag {
    /// Builds a tag; of the generation the low 24 bits count.
    pub const fn new(op: Op, generation: u32, index: u32) -> Tag {
        Tag(((op as u64) << 56) | (((generation & GENERATION_MASK) as u64) << 32) | index as u64)
    }

    /// The operation, if it is one of ours.
    pub fn op(self) -> Option<Op> {
        Op::ALL.get(((self.0 >> 56) as usize).wrapping_sub(1)).copied()
    }

    /// The 24 bits of the slot's generation.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & GENERATION_MASK
    }

    /// Slot, listener, socket or send.
    pub const fn index(self) -> u32 {
        self.0 as u32
    }
}

/// The bits of a generation that travel in a [`Tag`].
pub const GENERATION_MASK: u32 = (1 << 24) - 1;

/// One completion.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// Whose.
    pub tag: Tag,
    /// Result: not negative, or a negated errno.
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

/// How long an enter may wait for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// At most so long.
    Most(Duration),
    /// Until there is one.
    Forever,
}

/// A ring and what did not fit into its submission queue.
pub struct Ring {
    uring: IoUring,
    /// Entries that found the queue full; they go first, in order. Bounded by what slots may have
    /// in flight.
    waiting: VecDeque<squeue::Entry>,
    batch: Vec<Completion>,
    cursor: usize,
}

impl Ring {
    /// Makes a ring for the calling thread. While memory is short, the completion queue is halved.
    pub fn new() -> Result<Ring, RingError> {
        let mut completions = RING_COMPLETIONS;
        loop {
            let built = IoUring::builder()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_taskrun_flag()
                .setup_submit_all()
                .setup_cqsize(completions)
                .dontfork()
                .build(RING_SUBMISSIONS);
            match built {
                Ok(uring) => {
                    let batch = Vec::with_capacity(COMPLETIONS_A_TURN);
                    return Ok(Ring { uring, waiting: VecDeque::new(), batch, cursor: 0 });
                }
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOMEM)
                        && completions > RING_COMPLETIONS_MIN =>
                {
                    completions /= 2;
                }
                Err(error) => return Err(RingError::of_setup(&error)),
            }
        }
    }

    /// Makes a ring, asks the kernel for everything that we use, and drops it: the check at start.
    pub fn probe() -> Result<(), RingError> {
        kernel_is_new_enough()?;
        let ring = Ring::new()?;
        let mut probe = register::Probe::new();
        ring.uring.submitter().register_probe(&mut probe).map_err(|e| RingError::of_setup(&e))?;
        for (code, name) in OPCODES {
            if !probe.is_supported(code) {
                return Err(RingError::NoOperation { name });
            }
        }
        let features = ring.uring.params();
        if !features.is_feature_nodrop() || !features.is_feature_ext_arg() {
            return Err(RingError::NoOperation { name: "NODROP or EXT_ARG (features)" });
        }
        Ok(())
    }

    /// The ring itself, for registrations.
    pub fn uring(&self) -> &IoUring {
        &self.uring
    }

    /// Queues an entry; it goes to the kernel with the next [`Ring::enter`], or at once when the
    /// queue is full.
    ///
    /// # Safety
    /// Descriptors and memory that the entry names stay valid until its completion was taken.
    pub unsafe fn push(&mut self, entry: squeue::Entry) {
        if !self.waiting.is_empty() {
            self.waiting.push_back(entry);
            return;
        }
        // SAFETY: handed on to the caller.
        if unsafe { self.uring.submission().push(&entry) }.is_ok() {
            return;
        }
        // Full: submit once. When the kernel takes nothing (EBUSY: completions must be reaped
        // first), wait.
        let _ = self.uring.submit();
        // SAFETY: as above.
        if unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.waiting.push_back(entry);
        }
    }

    /// Arms a multishot accept on a listening socket that stays open until the accept has ended.
    pub fn accept(&mut self, fd: RawFd, tag: Tag) {
        let accept = opcode::AcceptMulti::new(types::Fd(fd)).flags(libc::SOCK_CLOEXEC);
        // SAFETY: no memory is named; the listener's descriptor outlives the ring.
        unsafe { self.push(accept.build().user_data(tag.0)) };
    }

    /// Arms a multishot receive into a buffer group, on a socket that stays open until it has
    /// ended.
    pub fn receive(&mut self, fd: RawFd, group: u16, tag: Tag) {
        let receive = opcode::RecvMulti::new(types::Fd(fd), group);
        // SAFETY: memory is the group's, which outlives the ring; the slot keeps the descriptor.
        unsafe { self.push(receive.build().user_data(tag.0)) };
    }

    /// Asks for the end of the operation with that tag, if it is still there.
    pub fn cancel(&mut self, target: Tag) {
        let own = Tag::new(Op::Cancel, target.generation(), target.index());
        let cancel = opcode::AsyncCancel::new(target.0);
        // SAFETY: names neither memory nor descriptor.
        unsafe { self.push(cancel.build().user_data(own.0)) };
    }

    /// Gives queued entries to the kernel and waits as told. Interruptions, timeouts and a busy
    /// kernel are no errors: what was not taken is offered again by the next call.
    pub fn enter(&mut self, wait: Wait) -> io::Result<()> {
        self.offer_waiting();
        let wait = if self.waiting.is_empty() { wait } else { Wait::No };
        let result = match wait {
            Wait::No if self.is_nothing_to_enter_for() => return Ok(()),
            Wait::No => self.uring.submit(),
            Wait::Forever => self.uring.submit_and_wait(1),
            Wait::Most(time) => {
                let time = types::Timespec::from(time);
                let arguments = types::SubmitArgs::new().timespec(&time);
                self.uring.submitter().submit_with_args(1, &arguments)
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Lets the kernel run what it deferred: it does about 20 pieces an enter, and handling
    /// completions in larger batches is a fifth cheaper.
    pub fn run_deferred(&mut self) {
        const GETEVENTS: u32 = 1;
        for _ in 0..DEFERRED_ENTERS_MAX {
            if !self.uring.submission().taskrun() {
                return;
            }
            // SAFETY: submits nothing and waits for nothing; no argument is passed.
            let _ =
                unsafe { self.uring.submitter().enter::<libc::sigset_t>(0, 0, GETEVENTS, None) };
        }
    }

    /// The next completion, in the order in which the kernel posted them.
    pub fn next_completion(&mut self) -> Option<Completion> {
        if self.cursor == self.batch.len() {
            self.batch.clear();
            self.cursor = 0;
            let completions = self.uring.completion().take(COMPLETIONS_A_TURN);
            self.batch.extend(completions.map(|entry| Completion {
                tag: Tag(entry.user_data()),
                result: entry.result(),
                flags: entry.flags(),
            }));
        }
        let completion = self.batch.get(self.cursor).copied();
        self.cursor += usize::from(completion.is_some());
        completion
    }

    /// Whether completions are left that [`Ring::next_completion`] would give without an enter.
    pub fn has_completions(&mut self) -> bool {
        self.cursor < self.batch.len() || !self.uring.completion().is_empty()
    }

    /// Whether completions ring the registered eventfd.
    pub fn set_event_enabled(&mut self, is_enabled: bool) {
        let completions = self.uring.completion();
        if is_enabled { completions.enable_eventfd() } else { completions.disable_eventfd() }
    }

    /// Cancels everything and waits until the kernel has let go of it: at most a second. False: it
    /// has not, so memory that it may write to must not be freed.
    pub fn cancel_all(&mut self) -> bool {
        self.waiting.clear();
        let _ = self.uring.submit();
        let limit = types::Timespec::new().sec(1);
        let all = types::CancelBuilder::any();
        match self.uring.submitter().register_sync_cancel(Some(limit), all) {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        }
    }

    fn offer_waiting(&mut self) {
        while let Some(entry) = self.waiting.front() {
            // SAFETY: who queued it promised that what it names stays valid.
            if unsafe { self.uring.submission().push(entry) }.is_err() {
                return;
            }
            self.waiting.pop_front();
        }
    }

    fn is_nothing_to_enter_for(&mut self) -> bool {
        let queue = self.uring.submission();
        queue.is_empty() && !queue.taskrun() && !queue.cq_overflow()
    }
}

impl Tag {
    /// The number that an entry carries.
    pub const fn to_user_data(self) -> u64 {
        self.0
    }
}

const OPCODES: [(u8, &str); 8] = [
    (opcode::AcceptMulti::CODE, "ACCEPT"),
    (opcode::RecvMulti::CODE, "RECV"),
    (opcode::Send::CODE, "SEND"),
    (opcode::RecvMsgMulti::CODE, "RECVMSG"),
    (opcode::SendMsg::CODE, "SENDMSG"),
    (opcode::Connect::CODE, "CONNECT"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    (opcode::Read::CODE, "READ"),
];

/// Why there is no ring, with what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// Older than 6.1.
    #[error(
        "this kernel ({release}) is too old: io_uring with deferred task work and multishot receive needs \
         Linux 6.1 or newer"
    )]
    KernelTooOld {
        /// As uname shows it.
        release: String,
    },
    /// `kernel.io_uring_disabled` is 1 or 2.
    #[error(
        "io_uring is switched off on this machine (kernel.io_uring_disabled = {value}): set it to 0 with \
         `sysctl kernel.io_uring_disabled=0`, or run as a member of kernel.io_uring_group when it is 1"
    )]
    Disabled {
        /// The setting.
        value: String,
    },
    /// EPERM or ENOSYS although the kernel is new enough: a filter.
    #[error(
        "io_uring is forbidden here ({error}), most likely by a container's seccomp profile: allow the \
         system calls io_uring_setup, io_uring_enter and io_uring_register \
         (docker: --security-opt seccomp=PROFILE)"
    )]
    Filtered {
        /// The system's words.
        error: String,
    },
    /// ENOMEM.
    #[error(
        "not enough memory for an io_uring: free some, or raise the locked-memory limit (now {locked} bytes; \
         `ulimit -l`, systemd: LimitMEMLOCK=) or the cgroup's memory limit"
    )]
    NoMemory {
        /// RLIMIT_MEMLOCK.
        locked: u64,
    },
    /// A part that we use is missing.
    #[error("the kernel's io_uring lacks {name}: Linux 6.1 or newer is needed")]
    NoOperation {
        /// Its name.
        name: &'static str,
    },
    /// Something else.
    #[error("io_uring cannot be set up: {error}")]
    Other {
        /// The system's words.
        error: String,
    },
}

impl RingError {
    pub(super) fn of_setup(error: &io::Error) -> RingError {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        let disabled = disabled.unwrap_or_default();
        match error.raw_os_error() {
            Some(libc::EPERM) if !matches!(disabled.trim(), "" | "0") => {
                RingError::Disabled { value: disabled.trim().to_owned() }
            }
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => {
                RingError::Filtered { error: error.to_string() }
            }
            Some(libc::ENOMEM) => RingError::NoMemory { locked: sys::locked_memory_limit() },
            Some(libc::EINVAL) => RingError::KernelTooOld { release: kernel_release() },
            _ => RingError::Other { error: error.to_string() },
        }
    }
}

fn kernel_release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

fn kernel_is_new_enough() -> Result<(), RingError> {
    let release = kernel_release();
    match parse_release(&release) {
        Some(version) if version < (6, 1) => Err(RingError::KernelTooOld { release }),
        _ => Ok(()),
    }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_keeps_its_parts() {
        for (index, op) in Op::ALL.into_iter().enumerate() {
            let tag = Tag::new(op, 0xff12_3456, u32::MAX - index as u32);
            assert_eq!(tag.op(), Some(op));
            assert_eq!((tag.generation(), tag.index()), (0x12_3456, u32::MAX - index as u32));
        }
        assert_eq!(Tag(0).op(), None);
        assert_eq!(Tag(u64::MAX).op(), None);
    }

    #[test]
    fn this_kernel_passes_the_probe() {
        assert_eq!(Ring::probe(), Ok(()));
    }

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(parse_release("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(parse_release("5.4.0"), Some((5, 4)));
        assert_eq!(parse_release("unknown"), None);
    }

    #[test]
    fn more_entries_than_the_queue_holds_all_complete() {
        let mut ring = Ring::new().unwrap();
        let count = RING_SUBMISSIONS * 3 + 7;
        for index in 0..count {
            ring.cancel(Tag::new(Op::Receive, 1, index));
        }
        let mut seen = 0;
        while seen < count {
            ring.enter(Wait::Most(Duration::from_secs(5))).unwrap();
            ring.run_deferred();
            while let Some(completion) = ring.next_completion() {
                assert_eq!(completion.tag.op(), Some(Op::Cancel));
                assert_eq!(completion.result, -libc::ENOENT);
                seen += 1;
            }
        }
        assert!(!ring.has_completions());
    }

    #[test]
    fn errors_name_their_cure() {
        let of = |code| RingError::of_setup(&io::Error::from_raw_os_error(code)).to_string();
        assert!(of(libc::ENOSYS).contains("seccomp"));
        assert!(of(libc::EPERM).contains("io_uring"));
        assert!(of(libc::ENOMEM).contains("LimitMEMLOCK"));
        assert!(of(libc::EINVAL).contains("6.1"));
    }
}
