//! The configuration of a lab, to be changed by tests.

use std::net::SocketAddr;

use sipring::base::config::{
    Auth, Config, Listener, Node, Registrar, Route, RouteTo, Timers, Upstream, UpstreamTarget,
};
use sipring::base::id::{ListenerId, Transport};
use sipring::base::limits::Limits;

/// Where the lab's listeners are, one a transport.
pub fn listener_address(transport: Transport) -> SocketAddr {
    let port = match transport {
        Transport::Udp | Transport::Tcp => 5060,
        Transport::Tls => 5061,
        Transport::Ws => 8080,
        Transport::Wss => 8443,
    };
    SocketAddr::new("192.0.2.1".parse().expect("an address"), port)
}

/// The listener of a transport.
pub fn listener_of(transport: Transport) -> ListenerId {
    ListenerId(transport.index() as u16)
}

/// The server behind the proxy, reached by UDP, whose network (198.51.100.0/24) counts as upstream.
pub const CORE: &str = "198.51.100.7:5060";

/// A target of an upstream, by its address.
pub fn target(transport: Transport, address: &str) -> UpstreamTarget {
    let address: SocketAddr = address.parse().expect("an address");
    UpstreamTarget { transport, address, host: address.ip().to_string(), priority: 0, weight: 1 }
}

/// A configuration with one listener a transport, the domain example.com, and an upstream for
/// numbers that begin with 9.
pub fn config() -> Config {
    let listener = |transport: Transport| Listener {
        transport,
        address: listener_address(transport),
        advertise: None,
        path: "/".into(),
        origins: Vec::new(),
        certificate: None,
        tls_terminated_from: Vec::new(),
    };
    let core = Upstream {
        name: "core".into(),
        targets: vec![target(Transport::Udp, CORE)],
        from: vec!["198.51.100.0/24".parse().expect("a network")],
        address_lookup: false,
        udp_max: Upstream::UDP_MAX,
        timeout: Upstream::TIMEOUT,
    };
    let by_number = regex::Regex::new("^9").expect("an expression");
    Config {
        node: Node { name: "lab".into(), domains: vec!["example.com".into()] },
        listeners: Transport::ALL.into_iter().map(listener).collect(),
        registrar: Registrar::default(),
        auth: Auth::default(),
        upstreams: vec![core],
        routes: vec![
            Route {
                user: Some(by_number),
                domain: Some("example.com".into()),
                methods: Vec::new(),
                to: RouteTo::Upstream(0),
            },
            Route {
                user: None,
                domain: Some("example.com".into()),
                methods: Vec::new(),
                to: RouteTo::Location,
            },
        ],
        timers: Timers::default(),
        limits: Limits::default(),
    }
}

/// The same with some changes.
pub fn config_with(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = config();
    change(&mut config);
    config
}

/// A configuration whose upstream is reached over that transport at the same address.
pub fn config_by(transport: Transport) -> Config {
    config_with(|config| config.upstreams[0].targets[0].transport = transport)
}
