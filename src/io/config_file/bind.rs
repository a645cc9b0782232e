//! Whether the configured addresses can be bound, now, by this user. Binds plainly, without
//! sharing, so that a sipring that is running already shows as "in use".

use std::net::{TcpListener, UdpSocket};

use crate::base::id::Transport;

use super::Loaded;

/// Tries every listener and the admin address; one line for each that fails, with what to do.
pub fn try_addresses(loaded: &Loaded) -> Vec<String> {
    let mut failures = Vec::new();
    let listeners = loaded.config.listeners.iter();
    let listed = listeners.map(|listener| (listener.transport.name(), listener.address));
    for (name, address) in listed.chain(loaded.control.admin.map(|address| ("admin", address))) {
        let tried = if name == Transport::Udp.name() {
            UdpSocket::bind(address).map(drop)
        } else {
            TcpListener::bind(address).map(drop)
        };
        if let Err(error) = tried {
            let hint = match error.kind() {
                std::io::ErrorKind::AddrInUse => "another program has it: see `ss -lnp`",
                std::io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need CAP_NET_BIND_SERVICE"
                }
                std::io::ErrorKind::AddrNotAvailable => "this machine has no such address",
                _ => "see the reason",
            };
            failures.push(format!("cannot bind {name} {address}: {error}\n    hint: {hint}"));
        }
    }
    failures
}
