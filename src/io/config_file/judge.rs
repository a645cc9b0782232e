//! What only shows when the tables are seen together: ports that two want, certificates that do not
//! fit, routes that are never reached.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use crate::base::config::{Listener, RouteTo, UpstreamTarget};
use crate::base::id::Transport;

use super::auth::AuthTable;
use super::default::SELF_SIGNED;
use super::fault::Faults;
use super::listen::{self, Certificate};
use super::raw::{At, suggestion};
use super::route;
use super::tables::NodeTable;
use super::upstream;

pub(super) fn listeners(
    listens: &[listen::Drafted],
    certificates: &[Certificate],
    admin: Option<&At<SocketAddr>>,
    faults: &Faults,
    at_nothing: &Range<usize>,
) {
    if listens.is_empty() && !faults.has_errors() {
        let hint = "add [[listen]] with transport = \"udp\" and address = \"0.0.0.0:5060\"";
        faults.error(at_nothing, "there is no [[listen]]", hint);
    }
    if listens.len() > usize::from(u16::MAX) {
        faults.error(at_nothing, "too many listeners", "65535 at most");
    }
    for draft in listens {
        needs_certificate(draft, certificates, faults);
        let listener = &draft.listener;
        if listener.address.ip().is_unspecified() && listener.advertise.is_none() {
            let message = format!(
                "{} {} is a wildcard without `advertise`: peers are shown the address that each \
                 flow came in on",
                listener.transport.name(),
                listener.address
            );
            let hint = "behind NAT or a load balancer set advertise = \"edge.example.com\"";
            faults.warning(&draft.address_at, message, hint);
        }
        if listener.transport == Transport::Wss && listener.origins.is_empty() {
            let hint = "set origins = [\"https://app.example.com\"] to admit your pages only";
            faults.note(&draft.at, "pages of any origin may connect here", hint);
        }
    }
    ports(listens, admin, faults);
}

fn needs_certificate(draft: &listen::Drafted, certificates: &[Certificate], faults: &Faults) {
    let listener = &draft.listener;
    if !listener.transport.is_secure() {
        return;
    }
    let names: Vec<&str> =
        certificates.iter().map(|certificate| certificate.files.name.as_str()).collect();
    match &listener.certificate {
        None => {
            let message = format!("{} needs a `certificate`", listener.transport.name());
            let hint = match names.first() {
                Some(name) => format!("set certificate = \"{name}\""),
                None => "add a [[certificate]] and name it here".to_owned(),
            };
            faults.error(&draft.at, message, hint);
        }
        Some(name) if name == SELF_SIGNED || names.contains(&name.as_str()) => {}
        Some(name) => {
            let hint = if names.is_empty() {
                format!("add a [[certificate]] with name = \"{name}\"")
            } else {
                suggestion(name, &names)
            };
            faults.error(&draft.certificate_at, format!("there is no certificate `{name}`"), hint);
        }
    }
}

/// UDP has ports of its own; everything else, the admin server included, shares those of TCP.
fn ports(listens: &[listen::Drafted], admin: Option<&At<SocketAddr>>, faults: &Faults) {
    let mut taken: Vec<(bool, SocketAddr, &'static str)> = Vec::with_capacity(listens.len() + 1);
    let listed = listens.iter().map(|draft| {
        let listener = &draft.listener;
        let is_udp = listener.transport == Transport::Udp;
        (is_udp, listener.address, listener.transport.name(), &draft.address_at)
    });
    let all = listed.chain(admin.map(|admin| (false, admin.value, "admin", &admin.at)));
    for (is_udp, address, name, at) in all {
        if address.port() == 0 {
            continue;
        }
        let rivals = taken.iter().filter(|(udp, other, _)| {
            *udp == is_udp && other.port() == address.port() && other.is_ipv4() == address.is_ipv4()
        });
        for (_, other, rival) in rivals {
            if *other == address {
                let message = format!("{name} and {rival} both want {address}");
                let hint = "tcp, tls, ws, wss and admin share the TCP ports: choose another port";
                faults.error(at, message, hint);
            } else if other.ip().is_unspecified() || address.ip().is_unspecified() {
                let message = format!("{name} on {address} overlaps {rival} on {other}");
                let hint = "the more specific address gets its own traffic; is that meant?";
                faults.warning(at, message, hint);
            }
        }
        taken.push((is_udp, address, name));
    }
}

pub(super) fn certificates(
    certificates: &[Certificate],
    upstream_ca: Option<&At<PathBuf>>,
    listens: &[listen::Drafted],
    faults: &Faults,
) {
    for certificate in certificates {
        let files = &certificate.files;
        let is_used = listens
            .iter()
            .any(|draft| draft.listener.certificate.as_deref() == Some(files.name.as_str()));
        if !is_used {
            let message = format!("no listener uses the certificate `{}`", files.name);
            faults.warning(&certificate.at, message, "name it in a [[listen]], or remove it");
        }
        super::pem::check_pair(certificate, faults);
    }
    let made =
        listens.iter().find(|draft| draft.listener.certificate.as_deref() == Some(SELF_SIGNED));
    if let Some(draft) = made.filter(|_| !certificates.is_empty() || upstream_ca.is_some()) {
        let message = format!("`{SELF_SIGNED}` is alone: with it no file is read");
        let hint = "use certificates from files for every listener, or remove the files";
        faults.error(&draft.certificate_at, message, hint);
    }
}

/// A datagram leaves from a UDP listener's socket of its family: a UDP target without one is out of
/// reach. Of a name with several addresses those that can be reached are kept.
pub(super) fn upstreams(
    upstreams: &mut [upstream::Drafted],
    listens: &[listen::Drafted],
    faults: &Faults,
) {
    let is_reachable = |target: &UpstreamTarget| {
        target.transport != Transport::Udp
            || listens.iter().any(|draft| {
                draft.listener.transport == Transport::Udp
                    && draft.listener.address.is_ipv4() == target.address.is_ipv4()
            })
    };
    for draft in upstreams {
        let targets = std::mem::take(&mut draft.upstream.targets);
        let places = std::mem::take(&mut draft.targets_at);
        let (kept, lost): (Vec<_>, Vec<_>) =
            targets.into_iter().zip(places).partition(|(target, _)| is_reachable(target));
        for (target, at) in &lost {
            if kept.iter().all(|(_, kept_at)| kept_at != at) {
                let family = if target.address.is_ipv4() { "IPv4" } else { "IPv6" };
                let message = format!("no udp listener can reach {} ({family})", target.address);
                let hint = "add a [[listen]] with transport = \"udp\" of that family";
                faults.error(at, message, hint);
            }
        }
        (draft.upstream.targets, draft.targets_at) = kept.into_iter().unzip();
    }
}

/// Tokens that others can read, and cookies that others can have sent.
pub(super) fn tokens(auth: &AuthTable, listens: &[listen::Drafted], faults: &Faults) {
    if auth.auth.bearer.is_none() {
        return;
    }
    let listeners = || listens.iter().map(|draft| &draft.listener);
    let is_open = |one: &&Listener| {
        !one.transport.is_secure()
            && !one.address.ip().is_loopback()
            && one.tls_terminated_from.is_empty()
    };
    if let Some(open) = listeners().find(is_open) {
        let message = format!("tokens over {} can be read on the way", open.transport.name());
        let hint = "who reads one can use it until it expires (RFC 8898 §5): tls and wss are safe";
        faults.note(&auth.method_at, message, hint);
    }
    let Some(at) = &auth.cookie_at else { return };
    let mut web = listeners().filter(|one| one.transport.is_websocket()).peekable();
    if web.peek().is_none() {
        let message = "`upgrade_cookie` has no effect: there is no ws or wss listener";
        faults.warning(at, message, "add one, or remove it");
    }
    let is_unsafe = |one: &&Listener| {
        one.origins.is_empty() || one.origins.iter().any(|origin| origin == "null")
    };
    if let Some(open) = web.find(is_unsafe) {
        let name = open.transport.name();
        let message = format!(
            "`upgrade_cookie` lets any page act for its visitors on {name} {} (cross-site \
             WebSocket hijacking)",
            open.address
        );
        let hint = "name your pages: origins = [\"https://app.example.com\"], without \"null\"";
        faults.error(at, message, hint);
    }
}

pub(super) fn routes(
    routes: &[route::Drafted],
    node: &NodeTable,
    table_at: Option<&Range<usize>>,
    faults: &Faults,
) {
    if routes.is_empty() && table_at.is_none() {
        let hint = "add [[route]] with to = \"location\" to reach registered users";
        faults.warning(&(0..0), "without [[route]] every request is answered 404", hint);
    }
    for (position, route) in routes.iter().enumerate() {
        let earlier = routes[..position].iter().position(|earlier| takes_all_of(earlier, route));
        if let Some(earlier) = earlier {
            let message = format!(
                "this route is never reached: route {} takes all that it would match",
                earlier + 1
            );
            faults.warning(&route.at, message, "put the narrower route first");
        }
        let Some(domain) = &route.domain else { continue };
        let is_ours = node.node.domains.contains(&domain.value);
        if route.to == Some(RouteTo::Location) && !is_ours {
            let message = format!("nobody can register in `{}`", domain.value);
            let domains: Vec<&str> = node.node.domains.iter().map(String::as_str).collect();
            let hint = format!(
                "it is not among the domains of [node]; {}",
                suggestion(&domain.value, &domains)
            );
            faults.warning(&domain.at, message, hint);
        }
    }
}

/// Whether nothing that `later` matches gets past `earlier`.
fn takes_all_of(earlier: &route::Drafted, later: &route::Drafted) -> bool {
    let user = match (&earlier.user, &later.user) {
        (None, _) => true,
        (Some(earlier), Some(later)) => earlier.as_str() == later.as_str(),
        (Some(_), None) => false,
    };
    let domain = match (&earlier.domain, &later.domain) {
        (None, _) => true,
        (Some(earlier), Some(later)) => earlier.value == later.value,
        (Some(_), None) => false,
    };
    let methods = earlier.methods.is_empty()
        || (!later.methods.is_empty()
            && later.methods.iter().all(|method| earlier.methods.contains(method)));
    earlier.to.is_some() && user && domain && methods
}
