//! Configurations that a run may start with or change to, and the addresses in it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::auth::users::{Rules, parse};
use crate::base::config::{
    Auth, AuthMethod, Config, Digest, HostPort, Listener, Node, Persistence, Registrar, Route,
    RouteTo, Strangers, Timers, Upstream, UpstreamTarget,
};
use crate::base::id::Transport;
use crate::base::limits::Limits;
use crate::base::users::Algorithm;

/// Number of configurations.
pub(super) const SETTINGS: usize = 10;

/// The server behind the proxy.
pub(super) const CORE: SocketAddr = address([198, 51, 100, 7], 5060);

/// Where peers are; two behind one NAT.
pub(super) const REMOTES: [SocketAddr; 5] = [
    address([203, 0, 113, 1], 40_001),
    address([203, 0, 113, 1], 40_002),
    address([203, 0, 113, 2], 5060),
    CORE,
    address([198, 51, 100, 7], 41_000),
];

/// Users and their passwords.
pub(super) const PASSWORDS: [(&str, &str); 2] = [("u0", "x"), ("u1", "y")];

const fn address(ip: [u8; 4], port: u16) -> SocketAddr {
    let [a, b, c, d] = ip;
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port)
}

/// Where a listener is.
pub(super) fn local(transport: Transport) -> SocketAddr {
    let port = match transport {
        Transport::Udp | Transport::Tcp => 5060,
        Transport::Tls => 5061,
        Transport::Ws => 8080,
        Transport::Wss => 8443,
    };
    address([192, 0, 2, 1], port)
}

/// The configuration of that number. Listeners are the same in all, as they must be.
pub(super) fn config(number: usize) -> Config {
    let mut config = plain();
    let core = &mut config.upstreams[0];
    match number {
        0 => {}
        1 => {
            core.targets[0].transport = Transport::Tcp;
            core.address_lookup = true;
        }
        2 => {
            core.targets[0].transport = Transport::Tls;
            config.auth.strangers = Strangers::Reject;
            config.limits = tight();
        }
        3 => {
            let shown = HostPort { host: "edge.example.net".into(), port: None };
            config.listeners.iter_mut().for_each(|it| it.advertise = Some(shown.clone()));
            let bounds = Registrar { contacts_max: 2, ..Registrar::default() };
            config.registrar =
                Registrar { foreign_contacts: true, sips_to_sip_contact: true, ..bounds };
            config.limits.flow_queue_messages_max = 1;
        }
        4 => {
            config.upstreams.clear();
            config.routes.remove(0);
            config.limits.transactions_max = 4;
        }
        5 => {
            core.address_lookup = true;
            core.from = Vec::new();
            config.timers.c = Duration::from_secs(1);
            config.limits.idle_timeout = Duration::from_secs(5);
            config.routes[1].to = RouteTo::Reject(603);
        }
        6 => {
            config.auth.method = digest(&config.node.domains);
            config.limits.wrong_passwords_max = 2;
        }
        8 => {
            config.auth.method = digest(&config.node.domains);
            config.registrar.grace = Duration::from_secs(10);
        }
        9 => {
            config.auth.method = digest(&config.node.domains);
            config.registrar.grace = Duration::from_secs(30);
            config.registrar.persistence = Persistence::Synchronous;
        }
        _ => {
            // The core is the registrar, and clients behind NAT are pinged.
            let methods = vec!["REGISTER".into()];
            let registrar = Route { user: None, methods, ..config.routes[0].clone() };
            config.routes.insert(0, registrar);
            config.registrar.nat_ping = Duration::from_secs(5);
            config.registrar.nat_ping_misses = 2;
            config.limits.bindings_max = 3;
        }
    }
    config
}

fn digest(domains: &[String]) -> AuthMethod {
    let algorithms: Vec<Algorithm> = Algorithm::ALL.into_iter().map(|(_, it)| it).collect();
    let rules = Rules { domains, realm: None, algorithms: &algorithms };
    let users = PASSWORDS.map(|(name, password)| format!("{name}:{password}\n")).concat();
    AuthMethod::Digest(Box::new(Digest {
        realm: None,
        auth_int: true,
        nonce_lifetime: Duration::from_secs(60),
        users: Arc::new(parse(&users, &rules).0),
        shared_secrets: None,
        algorithms,
    }))
}

fn tight() -> Limits {
    Limits {
        message_bytes_max: 1200,
        header_bytes_max: 900,
        transactions_max: 6,
        bindings_max: 3,
        flow_queue_bytes_max: 500,
        flow_queue_messages_max: 2,
        stun_answers_max: 1,
        ..Limits::default()
    }
}

fn plain() -> Config {
    let listener = |transport: Transport| Listener {
        transport,
        address: local(transport),
        advertise: None,
        path: "/".into(),
        origins: Vec::new(),
        certificate: None,
        tls_terminated_from: Vec::new(),
    };
    let target = UpstreamTarget {
        transport: Transport::Udp,
        address: CORE,
        host: CORE.ip().to_string(),
        priority: 0,
        weight: 1,
    };
    let core = Upstream {
        name: "core".into(),
        targets: vec![target],
        from: vec!["198.51.100.0/24".parse().expect("a network")],
        address_lookup: false,
        udp_max: Upstream::UDP_MAX,
        timeout: Upstream::TIMEOUT,
    };
    let by_number = regex::Regex::new("^9").expect("an expression");
    let route =
        |user, to| Route { user, domain: Some("example.com".into()), methods: Vec::new(), to };
    Config {
        node: Node { name: "fuzz".into(), domains: vec!["example.com".into()] },
        listeners: Transport::ALL.into_iter().map(listener).collect(),
        registrar: Registrar::default(),
        auth: Auth::default(),
        upstreams: vec![core],
        routes: vec![route(Some(by_number), RouteTo::Upstream(0)), route(None, RouteTo::Location)],
        timers: Timers::default(),
        limits: Limits::default(),
    }
}
