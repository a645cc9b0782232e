//! The `[[upstream]]` tables: target URIs become addresses here, once, at load. Priority and weight
//! are those of RFC 2782, as parameters of the URI. Absent on purpose: SRV look-ups.

use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use crate::base::config::{HostPort, Upstream, UpstreamTarget};
use crate::base::id::Transport;
use crate::base::limits::UPSTREAM_TARGETS_MAX;

use super::Resolve;
use super::fault::Faults;
use super::listen::{host_port, networks};
use super::raw::{At, Section, suggestion};
use super::tables::is_token;

/// One `[[upstream]]` entry with the places that judgement needs.
pub(super) struct Drafted {
    pub(super) upstream: Upstream,
    /// Place of the URI of each target; a name with several addresses is there several times.
    pub(super) targets_at: Vec<Range<usize>>,
}

const TIMEOUT_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(32);

const TARGET_HINT: &str = "for example \"sip:192.0.2.10:5060;transport=udp\" (udp, tcp or tls)";

/// Reads every entry. Those with a name are kept even when their targets are faulty, so that routes
/// to them are not reported on top.
pub(super) fn upstreams(sections: Vec<Section<'_>>, resolve: &Resolve) -> Vec<Drafted> {
    let mut list: Vec<Drafted> = Vec::with_capacity(sections.len());
    for section in sections {
        let name = section.required("name", "a name of your choice for routes to use");
        if let Some(name) = &name {
            if !is_token(&name.value) {
                let hint = "letters, digits, - . _";
                section.faults.error(&name.at, "the name cannot stand in a route", hint);
            }
            if list.iter().any(|other| other.upstream.name == name.value) {
                let message = format!("two upstreams are named `{}`", name.value);
                section.faults.error(&name.at, message, "give each its own name");
            }
        }
        let draft = upstream(section, name.map_or(String::new(), |name| name.value), resolve);
        if !draft.upstream.name.is_empty() {
            list.push(draft);
        }
    }
    list
}

fn upstream(section: Section<'_>, name: String, resolve: &Resolve) -> Drafted {
    let faults = section.faults;
    let mut targets = Vec::new();
    let mut targets_at = Vec::new();
    let uris = section.strings("targets");
    if uris.is_empty() {
        let at = section.place("targets").unwrap_or(section.at.clone());
        faults.error(&at, "an upstream needs `targets`", TARGET_HINT);
    }
    for (position, uri) in uris.iter().enumerate() {
        let Some(target) = target(uri, faults) else { continue };
        let place = target.place_at(position);
        for address in addresses(uri, &target, faults, resolve) {
            let Target { transport, ref host, .. } = target;
            let is_there = |it: &UpstreamTarget| {
                it.transport == transport && it.address == address && it.host == *host
            };
            if !targets.iter().any(is_there) {
                let (host, (priority, weight)) = (host.clone(), place);
                targets.push(UpstreamTarget { transport, address, host, priority, weight });
                targets_at.push(uri.at.clone());
            }
        }
    }
    if targets.len() > UPSTREAM_TARGETS_MAX {
        let at = section.place("targets").unwrap_or(section.at.clone());
        let message = format!("{} targets, {UPSTREAM_TARGETS_MAX} at most", targets.len());
        faults.error(&at, message, "a name counts once for each of its addresses");
    }
    let from_texts = section.strings("from");
    let from_at = from_texts.first().map(|text| text.at.clone());
    let from = networks(from_texts, faults);
    if let Some(at) = from_at.filter(|_| from.iter().any(|network| network.prefix_len() == 0)) {
        let hint = "name the networks of your servers: their identity claims are believed";
        faults.warning(&at, "everybody counts as this upstream", hint);
    }
    let address_lookup = section.boolean("address_lookup", false).value;
    let udp_max = section.number("udp_max", 200..=65_507, Upstream::UDP_MAX).value;
    let timeout = section.duration("timeout", TIMEOUT_RANGE, Upstream::TIMEOUT);
    if targets.len() == 1 && timeout.value != Upstream::TIMEOUT {
        let hint = "it says when the next target is tried; add one, or remove it";
        faults.warning(&timeout.at, "`timeout` has no effect with one target", hint);
    }
    let timeout = timeout.value;
    not_yet(&section);
    section.finish();
    let upstream = Upstream { name, targets, from, address_lookup, udp_max, timeout };
    Drafted { upstream, targets_at }
}

fn not_yet(section: &Section<'_>) {
    section.string("listen");
    section.string("tls_name");
    section.strings("relay_to");
    for key in ["listen", "tls_name", "relay_to"] {
        if let Some(at) = section.place(key) {
            let hint = "upstreams are known by `from`; remove it";
            section.faults.error(&at, format!("`{key}` is not supported yet"), hint);
        }
    }
}

/// A target URI, read.
struct Target {
    transport: Transport,
    host: String,
    port: u16,
    priority: Option<u16>,
    weight: Option<u16>,
}

impl Target {
    /// Priority and weight. Without either the targets are tried in the order of their list; a
    /// weight alone shares with all others of priority 0.
    fn place_at(&self, position: usize) -> (u16, u16) {
        let by_order = u16::try_from(position).unwrap_or(u16::MAX);
        let priority = self.priority.unwrap_or(if self.weight.is_some() { 0 } else { by_order });
        (priority, self.weight.unwrap_or(1))
    }
}

fn target(uri: &At<String>, faults: &Faults) -> Option<Target> {
    let wrong = |message: String, hint: &str| {
        faults.error(&uri.at, message, hint);
        None
    };
    let text = uri.value.as_str();
    let (is_secure, rest) = if let Some(rest) = text.strip_prefix("sips:") {
        (true, rest)
    } else if let Some(rest) = text.strip_prefix("sip:") {
        (false, rest)
    } else {
        return wrong(format!("`{text}` is not a sip: or sips: URI"), TARGET_HINT);
    };
    if rest.contains('@') || rest.contains('?') {
        return wrong(format!("`{text}` has a user or headers"), TARGET_HINT);
    }
    let mut parts = rest.split(';');
    let Some(HostPort { host, port }) = host_port(parts.next().unwrap_or("")) else {
        return wrong(format!("`{text}` has no valid host and port"), TARGET_HINT);
    };
    let mut transport = if is_secure { Transport::Tls } else { Transport::Udp };
    let (mut priority, mut weight) = (None, None);
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let name = name.to_ascii_lowercase();
        if matches!(name.as_str(), "priority" | "weight") {
            let Ok(number) = value.parse::<u16>() else {
                return wrong(format!("`{name}={value}` of a target"), "a number from 0 to 65535");
            };
            *if name == "weight" { &mut weight } else { &mut priority } = Some(number);
            continue;
        }
        if name != "transport" {
            let message = format!("parameter `{name}` of a target means nothing here");
            return wrong(message, &suggestion(&name, &["transport", "priority", "weight"]));
        }
        transport = match (value.to_ascii_lowercase().as_str(), is_secure) {
            ("udp", false) => Transport::Udp,
            ("tcp", false) => Transport::Tcp,
            ("tls", _) | ("tcp", true) => Transport::Tls,
            ("udp", true) => {
                return wrong("sips: never goes over UDP".to_owned(), "use transport=tls");
            }
            ("ws" | "wss", _) => {
                let hint = "a server behind us is reached by udp, tcp or tls";
                return wrong("WebSocket upstreams are not supported".to_owned(), hint);
            }
            (other, _) => {
                let message = format!("`{other}` is not a transport");
                return wrong(message, &suggestion(other, &["udp", "tcp", "tls"]));
            }
        };
    }
    let port = port.unwrap_or(transport.default_port());
    Some(Target { transport, host, port, priority, weight })
}

fn addresses(
    uri: &At<String>,
    target: &Target,
    faults: &Faults,
    resolve: &Resolve,
) -> Vec<SocketAddr> {
    if let Some(ip) = as_ip(&target.host) {
        return vec![SocketAddr::new(ip, target.port)];
    }
    let hint = "check the name and this machine's resolver, or write the address";
    match resolve(&target.host, target.port) {
        Ok(addresses) if addresses.is_empty() => {
            faults.error(&uri.at, format!("`{}` has no address", target.host), hint);
            addresses
        }
        Ok(addresses) => addresses,
        Err(error) => {
            faults.error(&uri.at, format!("cannot resolve `{}`: {error}", target.host), hint);
            Vec::new()
        }
    }
}

/// A URI's host as an address, brackets taken off.
fn as_ip(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::Severity::{Error, Warning};
    use super::super::tests::{LEAST, judge};

    #[test]
    fn upstreams() {
        let target =
            |uri: &str| format!("{LEAST}[[upstream]]\nname = \"a\"\ntargets = [\"{uri}\"]\n");
        for (uri, message, hint) in [
            ("192.0.2.1", "not a sip: or sips: URI", "sip:192"),
            ("sip:bob@192.0.2.1", "has a user", "sip:192"),
            ("sip:", "no valid host", ""),
            ("sip:192.0.2.1:99999", "no valid host", ""),
            ("sip:192.0.2.1;transport=ws", "WebSocket", "tls"),
            ("sip:192.0.2.1;transport=upd", "`upd` is not a transport", "`udp`"),
            ("sips:192.0.2.1;transport=udp", "never goes over UDP", "tls"),
            ("sip:192.0.2.1;lr", "parameter `lr`", "transport"),
            ("sip:192.0.2.1;wieght=1", "parameter `wieght`", "`weight`"),
            ("sip:192.0.2.1;weight=many", "`weight=many`", "65535"),
            ("sip:192.0.2.1;priority=65536", "`priority=65536`", "65535"),
            ("sip:nowhere.test", "cannot resolve `nowhere.test`: no such name", "resolver"),
            ("sip:empty.test", "no address", ""),
            ("sip:[2001:db8::1]", "no udp listener can reach [2001:db8::1]:5060 (IPv6)", "udp"),
        ] {
            let faults = judge(&target(uri)).expect_err("it is refused");
            assert_eq!(
                faults.iter().filter(|fault| fault.severity == Error).count(),
                1,
                "{faults:?}"
            );
            let fault = faults.iter().find(|fault| fault.severity == Error).expect("one");
            assert!(fault.message.contains(message) && fault.hint.contains(hint), "{uri}: {fault}");
            assert_eq!(fault.line, 10, "{uri}: {fault}");
        }
        let (loaded, _) = judge(&target("sip:core.test")).expect("one family is enough");
        let targets = &loaded.config.upstreams[0].targets;
        assert_eq!((targets.len(), targets[0].address.is_ipv4()), (1, true));
        let text = format!(
            "{LEAST}[[upstream]]\nname = \"a\"\ntargets = [\"sip:192.0.2.1\", \"sip:192.0.2.2\", \
             \"sip:192.0.2.3;weight=5\", \"sip:192.0.2.4;Priority=7;weight=0;transport=tcp\"]\n"
        );
        let (loaded, _) = judge(&text).expect("it is fine");
        let places = loaded.config.upstreams[0].targets.iter().map(|it| (it.priority, it.weight));
        assert_eq!(places.collect::<Vec<_>>(), [(0, 1), (1, 1), (0, 5), (7, 0)]);
        let many: Vec<String> = (1..=33).map(|n| format!("\"sip:192.0.2.{n}\"")).collect();
        let many = format!("{LEAST}[[upstream]]\nname = \"a\"\ntargets = [{}]\n", many.join(", "));
        let faults = judge(&many).expect_err("too many");
        assert!(faults.iter().any(|fault| fault.message == "33 targets, 32 at most"), "{faults:?}");
        let base = "[[upstream]]\nname = \"a\"\ntargets = [\"sip:192.0.2.1\"]\n";
        for (more, severity, line, message) in [
            (base, Error, 12, "two upstreams are named `a`"),
            ("from = [\"x\"]\n", Error, 11, "not a network"),
            ("from = [\"0.0.0.0/0\"]\n", Warning, 11, "everybody counts"),
            ("udp_max = 1\n", Error, 11, "out of range"),
            ("timeout = \"10ms\"\n", Error, 11, "out of range"),
            ("[[upstream]]\nname = \"b\"\n", Error, 11, "needs `targets`"),
            ("[[upstream]]\nname = \"b c\"\ntargets = [\"sip:192.0.2.1\"]\n", Error, 12, "route"),
        ] {
            let faults = match judge(&format!("{LEAST}{base}{more}")) {
                Ok((_, faults)) | Err(faults) => faults,
            };
            let found = faults.iter().any(|fault| {
                fault.severity == severity && fault.line == line && fault.message.contains(message)
            });
            assert!(found, "{more}\nis said to have\n{faults:#?}");
        }
    }
}
