//! The tables that occur once: `[node]`, `[registrar]`, `[timers]`, `[limits]`, `[tls]`, `[log]`,
//! `[admin]`. What is configurable one day and does not exist yet is refused here, by
//! name, unless it is set to off.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::config::{Node, Registrar, Timers};
use crate::base::id::{FLOW_SLOTS_MAX, SHARDS_MAX};
use crate::base::limits::{GRACE_MAX, Limits};
use crate::io::secret::{self, SecretError};
use crate::io::store::StoreFile;
use crate::sip::{NameAddr, Scheme, Uri};

use super::listen::is_host;
use super::raw::{At, Section};
use super::store;
use super::{LogConfig, LogFormat, LogLevel};

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// The grace where there are users: what their libraries take to come back, and half of what an
/// INVITE may wait.
const GRACE_USUAL: Duration = Duration::from_secs(10);

/// The `[node]` table.
pub(super) struct NodeTable {
    pub(super) node: Node,
    pub(super) shards: u16,
    pub(super) secret_file: Option<PathBuf>,
}

pub(super) fn node(section: Section<'_>, folder: &Path) -> NodeTable {
    let name = match section.string("name") {
        None => "sipring".to_owned(),
        Some(name) => {
            if !is_token(&name.value) {
                let hint = "letters, digits and - . ! % * _ + ` ' ~, for example \"edge-1\"";
                section.faults.error(&name.at, "`name` is not a SIP token", hint);
            }
            name.value
        }
    };
    let domains = domains(&section);
    let shards = section.number("shards", 0..=usize::from(SHARDS_MAX), 0).value;
    let secret_file = secret_file(&section, folder);
    section.finish();
    let shards = u16::try_from(shards).expect("the range of `shards` fits");
    NodeTable { node: Node { name, domains }, shards, secret_file }
}

fn secret_file(section: &Section<'_>, folder: &Path) -> Option<PathBuf> {
    let Some(text) = section.string("secret_file") else {
        let hint = "set secret_file = \"/var/lib/sipring/secret\"; it is made at the first start";
        section.faults.note(&section.at, "without `secret_file` each start has a new key", hint);
        return None;
    };
    let path = folder.join(&text.value);
    match secret::inspect(&path) {
        Ok(()) => {}
        Err(error @ SecretError::Io { .. }) => {
            let hint = "sipring must be able to read it, or to make it at the first start";
            section.faults.warning(&text.at, error.to_string(), hint);
        }
        Err(error) => section.faults.error(&text.at, error.to_string(), ""),
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
        let message = format!("there is no folder {} for the secret file", parent.display());
        let hint = "make it, or let systemd: StateDirectory=sipring";
        section.faults.warning(&text.at, message, hint);
    }
    Some(path)
}

fn domains(section: &Section<'_>) -> Vec<String> {
    let list = section.strings("domains");
    let hint = "name the domains that you serve: domains = [\"example.com\"]";
    if list.is_empty() {
        let at = section.place("domains").unwrap_or(section.at.clone());
        section.faults.error(&at, "`domains` in [node] is missing or empty", hint);
    }
    let mut domains: Vec<String> = Vec::with_capacity(list.len());
    for At { value, at } in list {
        let domain = value.to_ascii_lowercase();
        if !is_host(&domain) {
            let hint = "a host name without port, or an address; an IPv6 address in brackets";
            section.faults.error(&at, format!("`{value}` is not a domain"), hint);
        } else if domains.contains(&domain) {
            section.faults.warning(&at, format!("`{domain}` is named twice"), "remove one");
        } else {
            domains.push(domain);
        }
    }
    domains
}

/// Who can know clients again that lost their flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Knows {
    /// Nobody: nobody proves who it is.
    Nobody,
    /// A registrar behind us, if it asks for passwords, which its operator knows.
    Upstream,
    /// We.
    Ourselves,
}

/// Who lost its flow is known again by what it proved: else there is nobody to wait for.
fn grace(section: &Section<'_>, knows: Knows) -> Duration {
    let usual = if knows == Knows::Ourselves { GRACE_USUAL } else { Duration::ZERO };
    let grace = section.duration("grace", Duration::ZERO..=GRACE_MAX, usual);
    if knows != Knows::Nobody {
        return grace.value;
    }
    if !grace.value.is_zero() {
        let hint = "a client that comes back is known by its password: set `method` in [auth], or \
                    have a [[route]] send REGISTER to the registrar that asks for it";
        section.faults.warning(&grace.at, "`grace` has no effect without authentication", hint);
    }
    Duration::ZERO
}

/// The `[registrar]` table.
pub(super) struct RegistrarTable {
    pub(super) registrar: Registrar,
    pub(super) store: Option<StoreFile>,
}

pub(super) fn registrar(section: Section<'_>, folder: &Path, knows: Knows) -> RegistrarTable {
    let default = Registrar::default();
    let second = Duration::from_secs(1);
    let min = section.duration("expires_min", second..=YEAR, default.expires_min);
    let max = section.duration("expires_max", second..=YEAR, default.expires_max);
    let usual = section.duration("expires_default", second..=YEAR, default.expires_default);
    if min.value > max.value {
        let hint = "expires_min must not be more than expires_max";
        section.faults.error(&min.at, "no expiry would be acceptable", hint);
    } else if !(min.value..=max.value).contains(&usual.value) {
        let hint = format!("use {:?} to {:?}", min.value, max.value);
        let message = "`expires_default` is not between `expires_min` and `expires_max`";
        section.faults.error(&usual.at, message, hint);
    }
    let contacts_max = section.number("contacts_max", 1..=1000, default.contacts_max).value;
    let serial_ring = section
        .duration("serial_ring", second..=Duration::from_secs(180), default.serial_ring)
        .value;
    let (nat_ping, nat_ping_misses) = nat_ping(&section);
    let foreign_contacts = section.boolean("foreign_contacts", default.foreign_contacts).value;
    let sips_to_sip_contact =
        section.boolean("sips_to_sip_contact", default.sips_to_sip_contact).value;
    let require_path = section.boolean("require_path", default.require_path).value;
    let grace = grace(&section, knows);
    let (store, persistence) = store::read(&section, folder);
    let service_route = service_route(&section);
    section.finish();
    let registrar = Registrar {
        expires_default: usual.value,
        expires_min: min.value,
        expires_max: max.value,
        contacts_max,
        serial_ring,
        nat_ping,
        nat_ping_misses,
        grace,
        foreign_contacts,
        service_route,
        sips_to_sip_contact,
        require_path,
        persistence,
    };
    RegistrarTable { registrar, store }
}

fn nat_ping(section: &Section<'_>) -> (Duration, usize) {
    let default = Registrar::default();
    let interval = section.duration("nat_ping", Duration::ZERO..=HOUR, default.nat_ping);
    let misses = section.number("nat_ping_misses", 0..=100, default.nat_ping_misses);
    if !interval.value.is_zero() && interval.value < Duration::from_secs(5) {
        let hint = "use 20s to 30s: address translators keep a UDP mapping for 30 s or longer";
        section.faults.error(&interval.at, "`nat_ping` is too short", hint);
    } else if interval.value > Duration::from_secs(60) {
        let hint = "use 20s to 30s, as RFC 5626 §4.4.2: many address translators forget sooner";
        section.faults.warning(&interval.at, "`nat_ping` is long", hint);
    }
    if misses.value > 0 && interval.value.is_zero() {
        let hint = "set nat_ping = \"30s\", or remove it";
        section.faults.warning(&misses.at, "`nat_ping_misses` has no effect", hint);
    }
    (interval.value, misses.value)
}

/// RFC 3608 §5: each value is a name-addr whose URI is a loose route.
fn service_route(section: &Section<'_>) -> Vec<String> {
    let values = section.strings("service_route");
    let mut routes = Vec::with_capacity(values.len());
    for value in values {
        let address = NameAddr::parse(value.value.as_bytes()).ok();
        let uri = address.and_then(|address| Uri::parse(address.uri).ok());
        let is_sip = |uri: &Uri<'_>| matches!(uri.scheme, Scheme::Sip | Scheme::Sips);
        let is_route = value.value.starts_with('<')
            && uri.is_some_and(|uri| is_sip(&uri) && uri.param("lr").is_some());
        if is_route {
            routes.push(value.value);
        } else {
            let hint = "write it as \"<sip:proxy.example.com;lr>\"";
            section.faults.error(&value.at, "`service_route` is not a loose route", hint);
        }
    }
    routes
}

pub(super) fn timers(section: Section<'_>) -> Timers {
    let default = Timers::default();
    let minute = Duration::from_secs(60);
    let t1 = section.duration("t1", MILLISECOND..=minute, default.t1);
    let t2 = section.duration("t2", MILLISECOND..=minute, default.t2);
    let t4 = section.duration("t4", MILLISECOND..=minute, default.t4);
    let c = section.duration("c", Duration::from_secs(1)..=DAY, default.c);
    if t2.value < t1.value {
        section.faults.error(&t2.at, "`t2` is less than `t1`", "T2 caps what T1 doubles up to");
    }
    if t1.value < Duration::from_millis(100) {
        let hint = "RFC 3261 §17.1.1.1 recommends 500ms";
        section.faults.warning(&t1.at, "`t1` is shorter than any real network needs", hint);
    }
    if c.value <= Duration::from_secs(180) {
        let hint = "RFC 3261 §16.6 step 11 demands more than 3 minutes, else calls that ring end";
        section.faults.warning(&c.at, "Timer C is 3 minutes or less", hint);
    }
    section.finish();
    Timers { t1: t1.value, t2: t2.value, t4: t4.value, c: c.value }
}

/// One key a field of [`Limits`]: a new field does not compile without its line here.
pub(super) fn limits(section: Section<'_>) -> Limits {
    let default = Limits::default();
    let size = |key, range: RangeInclusive<usize>, default| section.number(key, range, default);
    let time = |key, default| section.duration(key, 100 * MILLISECOND..=DAY, default).value;
    let message = size("message_bytes_max", 2048..=16 << 20, default.message_bytes_max);
    let header = size("header_bytes_max", 1024..=1 << 20, default.header_bytes_max);
    if header.value > message.value {
        let hint = format!("use at most {}", message.value);
        section.faults.error(&header.at, "`header_bytes_max` exceeds `message_bytes_max`", hint);
    }
    let limits = Limits {
        message_bytes_max: message.value,
        header_bytes_max: header.value,
        flows_max: size("flows_max", 1..=FLOW_SLOTS_MAX as usize, default.flows_max).value,
        transactions_max: size("transactions_max", 16..=1 << 24, default.transactions_max).value,
        bindings_max: size("bindings_max", 1..=1 << 28, default.bindings_max).value,
        flow_queue_bytes_max: size(
            "flow_queue_bytes_max",
            4096..=64 << 20,
            default.flow_queue_bytes_max,
        )
        .value,
        flow_queue_messages_max: size(
            "flow_queue_messages_max",
            1..=1 << 16,
            default.flow_queue_messages_max,
        )
        .value,
        handshake_timeout: time("handshake_timeout", default.handshake_timeout),
        message_timeout: time("message_timeout", default.message_timeout),
        write_timeout: time("write_timeout", default.write_timeout),
        ping_interval: time("ping_interval", default.ping_interval),
        pong_timeout: time("pong_timeout", default.pong_timeout),
        idle_timeout: time("idle_timeout", default.idle_timeout),
        prove_deadline: time("prove_deadline", default.prove_deadline),
        stun_answers_max: size("stun_answers_max", 0..=1 << 20, default.stun_answers_max).value,
        wrong_passwords_max: size("wrong_passwords_max", 1..=1 << 20, default.wrong_passwords_max)
            .value,
        connect_timeout: time("connect_timeout", default.connect_timeout),
        drain_timeout: time("drain_timeout", default.drain_timeout),
        drain_spread: section
            .duration("drain_spread", Duration::ZERO..=HOUR, default.drain_spread)
            .value,
    };
    if limits.ping_interval > Duration::from_secs(55) {
        let at = section.place("ping_interval").unwrap_or(section.at.clone());
        let hint = "load balancers and NATs drop idle connections after 30 to 60 s";
        section.faults.warning(&at, "`ping_interval` is long", hint);
    }
    section.finish();
    limits
}

pub(super) fn tls(section: Section<'_>, folder: &Path) -> Option<At<PathBuf>> {
    let ca = section.string("upstream_ca");
    section.finish();
    ca.map(|ca| At { value: folder.join(ca.value), at: ca.at })
}

pub(super) fn log(section: Section<'_>) -> LogConfig {
    let levels = [
        ("off", LogLevel::Off),
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let level = section.choice("level", &levels, LogLevel::Info).value;
    let format = section.choice("format", &formats, LogFormat::Text).value;
    section.finish();
    LogConfig { level, format }
}

pub(super) fn admin(section: Section<'_>) -> Option<At<SocketAddr>> {
    let hint = "write ADDRESS:PORT, for example \"127.0.0.1:9090\"";
    let text = section.string("address");
    let address = text.and_then(|text| match text.value.parse::<SocketAddr>() {
        Ok(value) => Some(At { value, at: text.at }),
        Err(_) => {
            let message = format!("`{}` is not an address with a port", text.value);
            section.faults.error(&text.at, message, hint);
            None
        }
    });
    if let Some(At { value, at }) = address.as_ref().filter(|at| !at.value.ip().is_loopback()) {
        let hint = "it has no authentication: use 127.0.0.1, or let a firewall guard it";
        section.faults.warning(at, format!("admin is reachable by others on {value}"), hint);
    }
    section.finish();
    address
}

/// RFC 3261 §25.1 `token`.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LEAST, assert_cases, judge};
    use super::super::{Loaded, Severity};
    use super::*;
    use Severity::{Error, Note, Warning};

    fn loaded(text: &str) -> Loaded {
        let (loaded, faults) = judge(&format!("{LEAST}{text}")).expect("it is fine");
        assert!(faults.iter().all(|fault| fault.severity == Note), "{faults:#?}");
        loaded
    }

    #[test]
    fn pings_of_datagram_clients() {
        let registrar = |text: &str| loaded(&format!("[registrar]\n{text}")).config.registrar;
        let usual = registrar("");
        assert_eq!((usual.nat_ping, usual.nat_ping_misses), (Duration::ZERO, 0));
        for (text, seconds, misses) in [
            ("nat_ping = \"30s\"\n", 30, 0),
            ("nat_ping = 5\nnat_ping_misses = 100\n", 5, 100),
            ("nat_ping = \"1m\"\nnat_ping_misses = 3\n", 60, 3),
            ("nat_ping = 0\nnat_ping_misses = 0\n", 0, 0),
        ] {
            let it = registrar(text);
            assert_eq!((it.nat_ping.as_secs(), it.nat_ping_misses), (seconds, misses), "{text}");
        }
        assert_cases(&[
            ("[registrar]\nnat_ping = \"4s\"\n", Error, 9, "too short", "20s"),
            ("[registrar]\nnat_ping = \"61m\"\n", Error, 9, "out of range", "3600s"),
            ("[registrar]\nnat_ping = \"2m\"\n", Warning, 9, "`nat_ping` is long", "4.4.2"),
            ("[registrar]\nnat_ping = true\n", Error, 9, "must be a duration", "\"30s\""),
            ("[registrar]\nnat_pings = \"30s\"\n", Error, 9, "unknown key", "`nat_ping`"),
            ("[registrar]\nnat_ping_misses = 3\n", Warning, 9, "no effect", "nat_ping = "),
            (
                "[registrar]\nnat_ping = \"30s\"\nnat_ping_misses = 101\n",
                Error,
                10,
                "out of range",
                "0 to 100",
            ),
            (
                "[registrar]\nnat_ping = \"30s\"\nnat_ping_misses = \"3\"\n",
                Error,
                10,
                "must be a whole number",
                "",
            ),
        ]);
    }

    #[test]
    fn what_a_flow_has_to_do_in_time() {
        let limits = loaded(
            "[limits]\nhandshake_timeout = \"3s\"\nmessage_timeout = \"4s\"\nwrite_timeout = \"5s\"\n\
             ping_interval = \"6s\"\npong_timeout = \"7s\"\nidle_timeout = \"8m\"\n\
             prove_deadline = \"9m\"\nstun_answers_max = 10\nwrong_passwords_max = 9\n\
             connect_timeout = \"11s\"\n\
             drain_timeout = \"12s\"\ndrain_spread = 0\n",
        )
        .config
        .limits;
        let expected = Limits {
            handshake_timeout: Duration::from_secs(3),
            message_timeout: Duration::from_secs(4),
            write_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(6),
            pong_timeout: Duration::from_secs(7),
            idle_timeout: Duration::from_secs(480),
            prove_deadline: Duration::from_secs(540),
            stun_answers_max: 10,
            wrong_passwords_max: 9,
            connect_timeout: Duration::from_secs(11),
            drain_timeout: Duration::from_secs(12),
            drain_spread: Duration::ZERO,
            ..Limits::default()
        };
        assert_eq!(limits, expected);
        assert_cases(&[
            ("[limits]\nprove_deadline = 0\n", Error, 9, "out of range", "100ms"),
            ("[limits]\nprove_deadline = \"2d\"\n", Error, 9, "out of range", "86400s"),
            ("[limits]\nprove_dedline = \"1m\"\n", Error, 9, "unknown key", "`prove_deadline`"),
            ("[limits]\npong_timeout = \"50ms\"\n", Error, 9, "out of range", "100ms"),
            ("[limits]\nidle_timeout = \"15\"\n", Error, 9, "must be a duration", "\"30s\""),
            ("[limits]\nstun_answers_max = -1\n", Error, 9, "out of range", "0 to 1048576"),
            ("[limits]\nwrong_passwords_max = 0\n", Error, 9, "out of range", "1 to 1048576"),
            ("[limits]\ndrain_spread = \"2h\"\n", Error, 9, "out of range", "3600s"),
        ]);
    }
}
