//! The configuration of a program under test: what is not said has a default, ports are free ones.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::certificates;
use super::link::Transport;
use super::phone::CORE;
use super::server::{Server, free_port};

/// A configuration in the making. Defaults: one shard, all five transports on 127.0.0.1, domain
/// example.com, one upstream `core` that is whoever sends from 127.0.0.9, everything else goes to
/// the location service; long transaction timers, so that no retransmission and no late 100
/// (RFC 4320 §4.1) confuses a count; a short drain.
pub struct Setup {
    shards: usize,
    keeps_secret: bool,
    host: &'static str,
    from: Vec<String>,
    limits: BTreeMap<&'static str, String>,
    timers: BTreeMap<&'static str, String>,
    registrar: BTreeMap<&'static str, String>,
    origins: Vec<&'static str>,
    path: &'static str,
    targets: Vec<String>,
    core_settings: String,
    routes: Vec<String>,
    users: Option<String>,
    jwks: Option<String>,
    auth: String,
    log_level: &'static str,
    domains: Vec<&'static str>,
    descriptors: Option<u32>,
    notify: Option<PathBuf>,
    ports: BTreeMap<Transport, u16>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            shards: 1,
            keeps_secret: false,
            host: "127.0.0.1",
            from: vec![format!("{CORE}/32")],
            limits: BTreeMap::from([("drain_timeout", "\"300ms\"".to_string())]),
            timers: BTreeMap::from([("t1", "\"30s\"".to_string()), ("t2", "\"60s\"".to_string())]),
            registrar: BTreeMap::from([("grace", "\"0s\"".to_string())]),
            origins: Vec::new(),
            path: "/",
            targets: Vec::new(),
            core_settings: String::new(),
            routes: Vec::new(),
            users: None,
            jwks: None,
            auth: String::new(),
            log_level: "info",
            domains: vec!["example.com"],
            descriptors: None,
            notify: None,
            ports: BTreeMap::new(),
        }
    }
}

impl Setup {
    pub fn new() -> Setup {
        Setup::default()
    }

    pub fn shards(mut self, shards: usize) -> Setup {
        self.shards = shards;
        self
    }

    /// Tokens of one run hold in the next one, too.
    pub fn keeps_secret(mut self) -> Setup {
        self.keeps_secret = true;
        self
    }

    /// Listen on [::1] instead of 127.0.0.1.
    pub fn ipv6(self) -> Setup {
        self.host("::1")
    }

    /// Listen on that address instead of 127.0.0.1.
    pub fn host(mut self, host: &'static str) -> Setup {
        self.host = host;
        self
    }

    /// Those networks are the upstream `core`, instead of 127.0.0.9.
    pub fn from(mut self, networks: &[&str]) -> Setup {
        self.from = networks.iter().map(|network| network.to_string()).collect();
        self
    }

    /// A key of `[limits]` with its TOML value.
    pub fn limit(mut self, key: &'static str, value: &str) -> Setup {
        self.limits.insert(key, value.to_string());
        self
    }

    /// A key of `[timers]` with its TOML value.
    pub fn timer(mut self, key: &'static str, value: &str) -> Setup {
        self.timers.insert(key, value.to_string());
        self
    }

    /// A key of `[registrar]` with its TOML value.
    pub fn registrar(mut self, key: &'static str, value: &str) -> Setup {
        self.registrar.insert(key, value.to_string());
        self
    }

    /// Origins that WS and WSS accept.
    pub fn origins(mut self, origins: &[&'static str]) -> Setup {
        self.origins = origins.to_vec();
        self
    }

    /// Path of WS and WSS.
    pub fn path(mut self, path: &'static str) -> Setup {
        self.path = path;
        self
    }

    /// A target of the upstream `core`; users that begin with 9 are routed there.
    pub fn target(mut self, target: String) -> Setup {
        self.targets.push(target);
        self
    }

    /// A further line for the upstream `core`.
    pub fn core(mut self, line: &str) -> Setup {
        self.core_settings.push_str(line);
        self.core_settings.push('\n');
        self
    }

    /// A `[[route]]` before the usual ones.
    pub fn route(mut self, lines: &str) -> Setup {
        self.routes.push(format!("[[route]]\n{lines}\n"));
        self
    }

    /// Digest authentication with the lines of a users file, and further lines of `[auth]`.
    pub fn users(mut self, users: &str, auth: &str) -> Setup {
        self.users = Some(users.to_string());
        self.auth = format!("[auth]\nmethod = \"digest\"\nusers = \"users.txt\"\n{auth}\n");
        self
    }

    /// Bearer authentication with a file of keys, and further lines of `[auth]`.
    pub fn bearer(mut self, jwks: &str, auth: &str) -> Setup {
        self.jwks = Some(jwks.to_string());
        self.auth = format!(
            "[auth]\nmethod = \"bearer\"\njwks_file = \"jwks.json\"\n\
             authz_server = \"https://id.example.com\"\nissuer = \"https://id.example.com\"\n\
             audience = \"sip\"\nleeway = 0\n{auth}\n"
        );
        self
    }

    /// `[log] level`.
    pub fn log_level(mut self, level: &'static str) -> Setup {
        self.log_level = level;
        self
    }

    /// A further domain, whose users are found by the location service.
    pub fn domain(mut self, domain: &'static str) -> Setup {
        self.domains.push(domain);
        self
    }

    /// Limit of open descriptors of the child.
    pub fn descriptors(mut self, count: u32) -> Setup {
        self.descriptors = Some(count);
        self
    }

    /// Where a service manager hears (NOTIFY_SOCKET).
    pub fn notify(mut self, socket: PathBuf) -> Setup {
        self.notify = Some(socket);
        self
    }

    /// A fixed port for that transport.
    pub fn port(mut self, transport: Transport, port: u16) -> Setup {
        self.ports.insert(transport, port);
        self
    }

    /// Starts and waits until it says that it is ready.
    pub fn start(self) -> Server {
        let mut server = self.launch();
        server.await_ready();
        server
    }

    /// Starts and does not wait.
    pub fn launch(self) -> Server {
        let folder = tempfile::tempdir().expect("temporary folder");
        certificates::write_to(folder.path());
        let ports: BTreeMap<Transport, u16> = Transport::ALL
            .iter()
            .map(|t| (*t, self.ports.get(t).copied().unwrap_or_else(free_port)))
            .collect();
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let config = self.config(&ports, admin);
        let file = folder.path().join("sipring.toml");
        std::fs::write(&file, &config).expect("write configuration");
        if let Some(users) = &self.users {
            let file = folder.path().join("users.txt");
            std::fs::write(&file, users).expect("write users");
            let private = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&file, private).expect("protect users");
        }
        if let Some(jwks) = &self.jwks {
            std::fs::write(folder.path().join("jwks.json"), jwks).expect("write keys");
        }
        let program = env!("CARGO_BIN_EXE_sipring");
        let mut command = match self.descriptors {
            None => Command::new(program),
            Some(count) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {count} && exec \"$0\" \"$@\""), program]);
                shell
            }
        };
        command.arg("--config").arg(&file).env("SSL_CERT_FILE", folder.path().join("ca.pem"));
        if let Some(socket) = &self.notify {
            command.env("NOTIFY_SOCKET", socket);
        }
        let ip: IpAddr = self.host.parse().expect("address");
        let addresses = ports.into_iter().map(|(t, port)| (t, SocketAddr::new(ip, port))).collect();
        Server::spawn(command, addresses, admin, config, self.shards, folder)
    }

    fn config(&self, ports: &BTreeMap<Transport, u16>, admin: SocketAddr) -> String {
        let is_ipv6 = self.host.contains(':');
        let host = if is_ipv6 { format!("[{}]", self.host) } else { self.host.to_string() };
        let mut text = format!(
            "[node]\nname = \"edge-1\"\ndomains = {:?}\nshards = {}\n",
            self.domains, self.shards
        );
        text += if self.keeps_secret { "secret_file = \"secret\"\n\n" } else { "\n" };
        for (transport, port) in ports {
            text += &format!("[[listen]]\ntransport = \"{}\"\n", transport.name());
            text += &format!("address = \"{host}:{port}\"\n");
            if transport.is_secure() {
                text += "certificate = \"edge\"\n";
            }
            if transport.is_web() {
                text += &format!("path = \"{}\"\norigins = {:?}\n", self.path, self.origins);
            }
        }
        text += "\n[[certificate]]\nname = \"edge\"\ncert = \"edge.pem\"\nkey = \"edge.key\"\n";
        for (name, table) in
            [("limits", &self.limits), ("timers", &self.timers), ("registrar", &self.registrar)]
        {
            text += &format!("\n[{name}]\n");
            for (key, value) in table {
                text += &format!("{key} = {value}\n");
            }
        }
        let targets = match self.targets.is_empty() {
            true if is_ipv6 => vec!["sip:[::1]:9;transport=udp".to_string()],
            true => vec![format!("sip:{CORE}:9;transport=udp")],
            false => self.targets.clone(),
        };
        text += &format!("\n[[upstream]]\nname = \"core\"\ntargets = {targets:?}\n");
        text += &format!("from = {:?}\n{}\n", self.from, self.core_settings);
        for route in &self.routes {
            text += route;
        }
        text += "[[route]]\nuser = \"^9\"\nto = \"upstream:core\"\n";
        for domain in &self.domains {
            text += &format!("[[route]]\ndomain = \"{domain}\"\nto = \"location\"\n");
        }
        text += &self.auth;
        text +=
            &format!("\n[log]\nlevel = \"{}\"\n\n[admin]\naddress = \"{admin}\"\n", self.log_level);
        text
    }
}
