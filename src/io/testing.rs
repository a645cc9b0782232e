//! Helpers of this folder's tests: a configuration, and a protocol that echoes.

use std::net::SocketAddr;

use crate::base::config::{Auth, Config, Listener, Node, Registrar, Strangers, Timers};
use crate::base::id::Transport;
use crate::base::limits::Limits;

/// A configuration with the given listeners and nothing else.
pub fn config(listeners: &[(Transport, &str)]) -> Config {
    let listener = |(transport, address): &(Transport, &str)| Listener {
        transport: *transport,
        address: address.parse::<SocketAddr>().unwrap(),
        advertise: None,
        path: "/".to_owned(),
        origins: Vec::new(),
        certificate: None,
        tls_terminated_from: Vec::new(),
    };
    Config {
        node: Node { name: "test".to_owned(), domains: vec!["example.com".to_owned()] },
        listeners: listeners.iter().map(listener).collect(),
        registrar: Registrar::default(),
        auth: Auth { strangers: Strangers::Route },
        upstreams: Vec::new(),
        routes: Vec::new(),
        timers: Timers::default(),
        limits: Limits::default(),
    }
}
