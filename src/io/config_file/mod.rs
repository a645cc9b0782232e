//! The configuration file: TOML in, [`Config`] for the shards and [`ControlConfig`] for everybody
//! else out, or every fault with its line and a hint. `raw` reads typed values, `tables`, `auth`,
//! `listen`, `upstream` and `route` read one kind of table each, `store` and `bearer` some keys of one,
//! `judge` looks at the whole, `default` is the embedded configuration, `bind` tries the addresses. Absent
//! on purpose: what may change while running, which `io/reload` judges.

mod auth;
mod bearer;
mod bind;
mod default;
mod fault;
#[doc(hidden)]
pub mod fuzz;
mod judge;
mod listen;
mod pem;
mod raw;
mod route;
mod store;
mod tables;
#[cfg(test)]
mod tests;
mod upstream;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::base::config::Config;
use crate::io::store::StoreFile;
use crate::io::tls::CertificateFiles;

pub use auth::{UsersError, of_lines, read_secrets, read_users};
pub use bearer::read_keys;
pub use bind::try_addresses;
pub use default::{SELF_SIGNED, embedded};
pub use fault::{Fault, Severity};

use fault::Faults;
use raw::Section;
use tables::Knows;

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the shards know.
    pub config: Config,
    /// What only the control thread needs.
    pub control: ControlConfig,
}

/// What does not decide what happens to a message.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Number of shards; 0: one per CPU that the process may use.
    pub shards: u16,
    /// Where the key of tokens is kept; without it every start makes another one.
    pub secret_file: Option<PathBuf>,
    /// Where bindings are kept; absent: in memory only.
    pub store: Option<StoreFile>,
    /// The file with the users and their passwords, if users have any.
    pub users_file: Option<PathBuf>,
    /// The file of secrets for time-limited credentials.
    pub secrets_file: Option<PathBuf>,
    /// The file of keys that may sign tokens.
    pub keys_file: Option<PathBuf>,
    /// Certificates of TLS and WSS listeners.
    pub certificates: Vec<CertificateFiles>,
    /// PEM file with the authorities that upstreams' certificates are checked against; absent: the
    /// system's.
    pub upstream_ca: Option<PathBuf>,
    /// The `[log]` table.
    pub log: LogConfig,
    /// Where metrics and health are served; absent: nowhere.
    pub admin: Option<SocketAddr>,
}

/// The `[log]` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// What is logged.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// Lines of this level and of those above it are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What stops us.
    Error,
    /// What somebody should look at.
    Warn,
    /// One line a transaction.
    Info,
    /// Flows and dropped messages too.
    Debug,
    /// Everything.
    Trace,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How the host names of upstream targets become addresses. A parameter, so that tests need no DNS.
pub type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// Reads and judges the file at `path`. Beside a good configuration stand its warnings and notes;
/// beside a bad one stands nothing: all faults are the error. Blocks on the file system and on name
/// resolution.
pub fn load(path: &Path) -> Result<(Loaded, Vec<Fault>), Vec<Fault>> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| {
        let hint = "name an existing file that this user may read".to_owned();
        vec![Fault::of_file(&name, format!("cannot read the configuration: {error}"), hint)]
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        let faults = Faults::default();
        faults.error(&(valid..valid), "the file is not UTF-8 here", "save it as UTF-8");
        faults.into_list(&name, &before)
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    read(&name, &text, folder, &resolve_with_system)
}

/// As [`load`], of a text that is already here. Relative paths in it are relative to `folder`.
pub fn read(
    name: &str,
    text: &str,
    folder: &Path,
    resolve: &Resolve,
) -> Result<(Loaded, Vec<Fault>), Vec<Fault>> {
    let faults = Faults::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        faults.error(&error.span().unwrap_or(0..0), one_line(error.message()), "");
    }
    let loaded = if errors.is_empty() {
        read_table(table.get_ref(), folder, resolve, &faults)
    } else {
        None
    };
    let is_good = !faults.has_errors();
    let list = faults.into_list(name, text);
    match loaded {
        Some(loaded) if is_good => Ok((loaded, list)),
        _ => Err(list),
    }
}

fn read_table(
    table: &DeTable<'_>,
    folder: &Path,
    resolve: &Resolve,
    faults: &Faults,
) -> Option<Loaded> {
    let root = Section::root(table, faults);
    let node = tables::node(root.section("node"), folder);
    let listens = listen::listeners(root.sections("listen"));
    let certificates = listen::certificates(root.sections("certificate"), folder);
    let mut upstreams = upstream::upstreams(root.sections("upstream"), resolve);
    let routes = route::routes(root.sections("route"), &upstreams);
    let auth = auth::auth(root.section("auth"), &node.node.domains, folder);
    let knows = match () {
        () if auth.auth.has_method() => Knows::Ourselves,
        () if route::has_registrar(&routes, &node.node.domains) => Knows::Upstream,
        () => Knows::Nobody,
    };
    let registrar = tables::registrar(root.section("registrar"), folder, knows);
    let timers = tables::timers(root.section("timers"));
    let limits = tables::limits(root.section("limits"));
    let upstream_ca = tables::tls(root.section("tls"), folder);
    let log = tables::log(root.section("log"));
    let admin = tables::admin(root.section("admin"));
    let at_nothing = 0..0;
    judge::listeners(&listens, &certificates, admin.as_ref(), faults, &at_nothing);
    judge::tokens(&auth, &listens, faults);
    judge::certificates(&certificates, upstream_ca.as_ref(), &listens, faults);
    pem::check_authorities(upstream_ca.as_ref(), &upstreams, faults);
    judge::upstreams(&mut upstreams, &listens, faults);
    judge::routes(&routes, &node, root.place("route").as_ref(), faults);
    root.finish();
    if faults.has_errors() {
        return None;
    }
    Some(Loaded {
        config: Config {
            node: node.node,
            listeners: listens.into_iter().map(|listen| listen.listener).collect(),
            registrar: registrar.registrar,
            auth: auth.auth,
            upstreams: upstreams.into_iter().map(|upstream| upstream.upstream).collect(),
            routes: routes.into_iter().filter_map(route::Drafted::into_route).collect(),
            timers,
            limits,
        },
        control: ControlConfig {
            shards: node.shards,
            secret_file: node.secret_file,
            store: registrar.store,
            users_file: auth.users_file,
            secrets_file: auth.secrets_file,
            keys_file: auth.keys_file,
            certificates: certificates.into_iter().map(|certificate| certificate.files).collect(),
            upstream_ca: upstream_ca.map(|ca| ca.value),
            log,
            admin: admin.map(|admin| admin.value),
        },
    })
}

/// getaddrinfo(3).
fn resolve_with_system(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    (host, port).to_socket_addrs().map(Iterator::collect)
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
