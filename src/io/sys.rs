//! The few system calls that no crate wraps as we need them: limits, affinity, eventfd, randomness.
//! None of them blocks.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::SockRef;

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Sets a socket option whose value is an `int`.
pub fn set_option(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the pointer and length name a living i32.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) })?;
    Ok(())
}

/// The smoothed round-trip time of a connection (tcp(7), `tcpi_rtt`); `None` before the first.
pub fn round_trip(fd: RawFd) -> Option<Duration> {
    // SAFETY: all-zero is a valid tcp_info.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    let (level, value) = (libc::IPPROTO_TCP, (&raw mut info).cast());
    // SAFETY: the pointers name a living tcp_info and its length, of which no more is written.
    let read = unsafe { libc::getsockopt(fd, level, libc::TCP_INFO, value, &raw mut length) };
    (read == 0 && info.tcpi_rtt > 0).then(|| Duration::from_micros(u64::from(info.tcpi_rtt)))
}

/// Runs `f` on the socket options of a descriptor that the caller keeps open.
pub fn with_socket<R>(fd: RawFd, f: impl FnOnce(SockRef<'_>) -> R) -> R {
    // SAFETY: the caller keeps the descriptor open for the duration of the call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    f(SockRef::from(&borrowed))
}

/// Takes ownership of a descriptor that the kernel has just given us (accept).
pub fn own(fd: RawFd) -> OwnedFd {
    assert!(fd >= 0);
    // SAFETY: the caller received it from the kernel and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Soft and hard limit of open descriptors.
pub fn descriptor_limits() -> io::Result<(u64, u64)> {
    // SAFETY: all-zero is a valid rlimit, and the pointer is to it.
    let mut limit: libc::rlimit = unsafe { zeroed() };
    // SAFETY: as above.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Raises the soft limit of open descriptors to the hard one; answers what it is now.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = descriptor_limits()?;
    if soft < hard {
        let limit = libc::rlimit { rlim_cur: hard, rlim_max: hard };
        // SAFETY: the pointer is to a living rlimit.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    }
    Ok(hard)
}

/// Limit of locked memory in bytes, for messages.
pub fn locked_memory_limit() -> u64 {
    // SAFETY: all-zero is a valid rlimit, and the pointer is to it.
    let mut limit: libc::rlimit = unsafe { zeroed() };
    // SAFETY: as above.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    limit.rlim_cur
}

/// The CPUs that this thread may run on, in ascending order.
pub fn affinity() -> Vec<usize> {
    // SAFETY: all-zero is a valid set; the size is that of the set.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: as above.
    if unsafe { libc::sched_getaffinity(0, size, &raw mut set) } != 0 {
        return Vec::new();
    }
    // SAFETY: every index is below CPU_SETSIZE.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Binds this thread to one CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    assert!(cpu < libc::CPU_SETSIZE as usize);
    // SAFETY: all-zero is a valid set, the index is below its size, the size is that of the set.
    unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        libc::CPU_SET(cpu, &mut set);
        check(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set))?;
    }
    Ok(())
}

/// A counter that wakes whoever reads it. Blocking, so that a ring arms a poll instead of failing
/// with EAGAIN.
pub fn event_fd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
    Ok(own(fd))
}

/// The same for an epoll: reads of it never wait.
pub fn event_fd_nonblocking() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    Ok(own(fd))
}

/// Adds one to an eventfd. Cannot wait: that takes 2^64 unread wakes.
pub fn signal(fd: &OwnedFd) {
    let one = 1u64;
    // SAFETY: the pointer is to 8 living bytes.
    unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
}

/// Empties a non-blocking eventfd.
pub fn clear_signal(fd: &OwnedFd) {
    let mut value = 0u64;
    // SAFETY: the pointer is to 8 living bytes.
    unsafe { libc::read(fd.as_raw_fd(), (&raw mut value).cast(), size_of::<u64>()) };
}

/// Random bytes of the system.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &mut bytes[done..];
        // SAFETY: pointer and length are of a living slice.
        let count = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(count) {
            Ok(count) => done += count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Anonymous, zeroed memory in whole pages, touched by nobody yet; unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: *mut u8,
    length: usize,
}

impl Mapping {
    /// Maps `length` bytes.
    pub fn new(length: usize) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { base: base.cast(), length })
    }

    /// Where it begins: page-aligned, valid while the mapping lives.
    pub fn base(&self) -> *mut u8 {
        self.base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what mmap gave; whoever holds pointers into it ended before (see the
        // owners).
        unsafe { libc::munmap(self.base.cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_a_round_trip_time_and_a_datagram_socket_none() {
        let listener = std::net::TcpListener::bind("127.0.0.34:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        for end in [&client, &server] {
            let took = round_trip(end.as_raw_fd()).unwrap();
            assert!(took < Duration::from_secs(1), "{took:?}");
        }
        assert_eq!(round_trip(listener.as_raw_fd()), None);
        let datagrams = std::net::UdpSocket::bind("127.0.0.34:0").unwrap();
        assert_eq!(round_trip(datagrams.as_raw_fd()), None);
    }

    #[test]
    fn an_event_fd_counts() {
        let fd = event_fd_nonblocking().unwrap();
        signal(&fd);
        signal(&fd);
        let mut value = 0u64;
        // SAFETY: 8 living bytes.
        let read = unsafe { libc::read(fd.as_raw_fd(), (&raw mut value).cast(), 8) };
        assert_eq!((read, value), (8, 2));
        clear_signal(&fd);
    }

    #[test]
    fn the_affinity_set_is_not_empty_and_limits_are_ordered() {
        assert!(!affinity().is_empty());
        let (soft, hard) = descriptor_limits().unwrap();
        assert!(soft <= hard);
    }

    #[test]
    fn random_bytes_differ() {
        let (mut a, mut b) = ([0u8; 32], [0u8; 32]);
        random(&mut a).unwrap();
        random(&mut b).unwrap();
        assert_ne!(a, b);
    }
}
