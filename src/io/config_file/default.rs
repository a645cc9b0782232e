//! The embedded configuration: what `sipring` runs without arguments.

use std::path::Path;

use super::{Loaded, read, resolve_with_system};

/// The certificate that is made at start instead of read: its name on a listener.
pub const SELF_SIGNED: &str = "self-signed";

/// Loopback only, open registration, a certificate made at start.
pub fn embedded() -> Loaded {
    let read = read("embedded", include_str!("default.toml"), Path::new(""), &resolve_with_system);
    match read {
        Ok((loaded, _)) => loaded,
        Err(faults) => panic!("the embedded configuration is faulty: {}", faults[0]),
    }
}
