//! What the service manager is told (sd_notify(3)), when there is one.

use sd_notify::NotifyState;
use tracing::warn;

/// The process serves, or goes on serving after a reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read again; `ready` follows, whatever comes of it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "cannot notify systemd"),
    }
}

/// The drain has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot notify systemd");
    }
}
