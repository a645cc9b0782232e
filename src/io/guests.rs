//! Guests: asynchronous tasks that a shard hosts beside its driver, such as work of a start or a
//! reload. The driver blocks in its ring, so a guest runs only when the driver steps aside: it lets
//! the runtime park once, at most every [`GUEST_INTERVAL`], and only while there are guests.
//! Without guests nothing of this costs anything.
//!
//! The ring's eventfd ends the runtime's park as soon as a completion arrives. (The descriptor of a
//! ring with deferred task work cannot be polled itself: nothing runs the work that would make it
//! readable.)
#![allow(unsafe_code)]

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ring::{Ring, Wait};
use super::sys;
use crate::base::limits::GUEST_INTERVAL;
use crate::base::time::Time;

/// Makes a guest's task on the shard's own thread.
pub type Guest = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// The guests of one shard.
#[derive(Default)]
pub struct Guests {
    count: Rc<Cell<usize>>,
    /// Rung by the ring; made for the first guest.
    event: Option<AsyncFd<OwnedFd>>,
    /// When they had their last turn.
    last: Time,
}

impl Guests {
    /// Takes a guest in. It counts until its task has ended.
    pub fn invite(&mut self, ring: &mut Ring, guest: Guest) -> io::Result<()> {
        if self.event.is_none() {
            let event = sys::event_fd_nonblocking()?;
            ring.uring().submitter().register_eventfd(event.as_raw_fd())?;
            ring.set_event_enabled(false);
            // SAFETY: an OwnedFd answers with the same descriptor as long as it lives.
            let event = unsafe { AsyncFd::register_with_interest(event, Interest::READABLE) };
            self.event = Some(event.map_err(io::Error::from)?);
        }
        self.count.set(self.count.get() + 1);
        let present = Present(Rc::clone(&self.count));
        tokio_uring::spawn(async move {
            guest().await;
            drop(present);
        });
        Ok(())
    }

    /// When they want their next turn; `None` without guests.
    pub fn next_deadline(&self) -> Option<Time> {
        (self.count.get() > 0).then(|| self.last + GUEST_INTERVAL)
    }

    /// Lets the runtime run, for at most `idle`, or until a completion arrives; only once through
    /// when `idle` is zero.
    pub async fn host(&mut self, ring: &mut Ring, now: Time, idle: Duration) -> io::Result<()> {
        self.last = now;
        let Some(event) = &self.event else { return Ok(()) };
        ring.set_event_enabled(true);
        ring.enter(Wait::No)?;
        if idle.is_zero() || ring.has_completions() {
            // The runtime must park even so: only then does it submit what its guests asked for.
            sys::signal(event.get_ref());
        }
        if let Ok(ready) = tokio::time::timeout(idle.max(PARK_MIN), event.readable()).await {
            ready?.clear_ready();
            sys::clear_signal(event.get_ref());
        }
        ring.set_event_enabled(false);
        Ok(())
    }
}

/// The least time for which the runtime may park: one tick of its clock.
const PARK_MIN: Duration = Duration::from_millis(1);

struct Present(Rc<Cell<usize>>);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
