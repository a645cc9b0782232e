//! The measure of benches that may run beside other programs: CPU time of this thread. A busy
//! neighbour still shows in shared caches; the best of several runs counts.

use std::time::Duration;

use criterion::Bencher;

/// Times `work` by the CPU.
pub fn iter(b: &mut Bencher<'_>, mut work: impl FnMut()) {
    b.iter_custom(|rounds| {
        let begun = time();
        for _ in 0..rounds {
            work();
        }
        time() - begun
    });
}

fn time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[allow(unsafe_code)]
    // SAFETY: the pointer is to a timespec that lives through the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
