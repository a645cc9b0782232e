//! The `[[listen]]` and `[[certificate]]` tables, one by one.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::Path;

use ipnet::IpNet;

use crate::base::config::{HostPort, Listener};
use crate::base::id::Transport;
use crate::io::tls::CertificateFiles;

use super::default::SELF_SIGNED;
use super::fault::Faults;
use super::raw::{At, Section};

/// One `[[listen]]` entry with the places that judgement needs.
pub(super) struct Drafted {
    pub(super) listener: Listener,
    pub(super) at: Range<usize>,
    pub(super) address_at: Range<usize>,
    pub(super) certificate_at: Range<usize>,
}

/// One `[[certificate]]` entry with its places.
pub(super) struct Certificate {
    pub(super) files: CertificateFiles,
    pub(super) at: Range<usize>,
    pub(super) cert_at: Range<usize>,
    pub(super) key_at: Range<usize>,
}

const TRANSPORTS: [(&str, Transport); 5] = [
    ("udp", Transport::Udp),
    ("tcp", Transport::Tcp),
    ("tls", Transport::Tls),
    ("ws", Transport::Ws),
    ("wss", Transport::Wss),
];

/// Reads every entry; one that lacks its transport or address is reported and left out.
pub(super) fn listeners(sections: Vec<Section<'_>>) -> Vec<Drafted> {
    sections.into_iter().filter_map(listener).collect()
}

fn listener(section: Section<'_>) -> Option<Drafted> {
    let faults = section.faults;
    let words = "one of: udp, tcp, tls, ws, wss";
    let has_transport = section
        .required("transport", words)
        .is_some_and(|word| TRANSPORTS.iter().any(|(name, _)| *name == word.value));
    let transport = section.choice("transport", &TRANSPORTS, Transport::Udp).value;
    let hint = "write ADDRESS:PORT, for example \"0.0.0.0:5060\" or \"[::]:5060\"";
    let address_text = section.required("address", hint);
    let address = address_text.as_ref().and_then(|text| socket_address(text, hint, faults));
    let advertise = section.string("advertise").and_then(|text| advertised(&text, faults));
    let certificate = section.string("certificate");
    let path = section.string("path");
    let origins = origins(&section);
    let terminated = networks(section.strings("tls_terminated_from"), faults);
    if let Some(first) = section.strings("proxy_protocol_from").first() {
        let hint = "let the load balancer connect without PROXY protocol; remove the key";
        faults.error(&first.at, "`proxy_protocol_from` is not supported yet", hint);
    }
    if let Some(path) = path.as_ref().filter(|path| !is_request_path(&path.value)) {
        let hint = "write it as it stands in the URL, without query, for example \"/sip\"";
        faults.error(&path.at, format!("`{}` is not a request path", path.value), hint);
    }
    let mut draft = Drafted {
        at: section.at.clone(),
        address_at: address_text.map_or(section.at.clone(), |text| text.at),
        certificate_at: certificate.as_ref().map_or(section.at.clone(), |text| text.at.clone()),
        listener: Listener {
            transport,
            address: address.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
            advertise,
            path: path.map_or("/".to_owned(), |path| path.value),
            origins,
            certificate: certificate.map(|text| text.value),
            tls_terminated_from: terminated,
        },
    };
    let is_whole = has_transport && address.is_some();
    if has_transport {
        misplaced(&section, transport);
    }
    if !transport.is_secure() {
        draft.listener.certificate = None;
    }
    section.finish();
    is_whole.then_some(draft)
}

/// Keys that say nothing on this transport.
fn misplaced(section: &Section<'_>, transport: Transport) {
    let rules = [
        ("certificate", transport.is_secure(), "tls and wss"),
        ("path", transport.is_websocket(), "ws and wss"),
        ("origins", transport.is_websocket(), "ws and wss"),
        ("tls_terminated_from", transport == Transport::Ws, "ws"),
    ];
    for (key, fits, where_it_fits) in rules {
        if let Some(at) = section.place(key).filter(|_| !fits) {
            let message = format!("`{key}` means nothing on {}", transport.name());
            section.faults.error(&at, message, format!("it is for {where_it_fits}; remove it"));
        }
    }
}

fn socket_address(text: &At<String>, hint: &str, faults: &Faults) -> Option<SocketAddr> {
    let Ok(parsed) = text.value.parse::<SocketAddr>() else {
        let message = format!("`{}` is not an address with a port", text.value);
        faults.error(&text.at, message, hint);
        return None;
    };
    // A socket is of one family: peers of the other would be shown addresses that they cannot use.
    let plain = SocketAddr::new(parsed.ip().to_canonical(), parsed.port());
    if plain.is_ipv4() != parsed.is_ipv4() {
        let message = format!("`{}` is an IPv4 address written as IPv6", text.value);
        faults.error(&text.at, message, format!("write \"{plain}\""));
        return None;
    }
    Some(parsed)
}

fn advertised(text: &At<String>, faults: &Faults) -> Option<HostPort> {
    let parsed = host_port(&text.value);
    if parsed.is_none() {
        let hint = "a host name or address with an optional port: \"edge.example.com:443\"";
        faults.error(&text.at, format!("`{}` cannot be advertised", text.value), hint);
    }
    if parsed.as_ref().is_some_and(|parsed| is_wildcard(&parsed.host)) {
        let hint = "advertise the name or address that clients and servers reach";
        faults.error(&text.at, "a wildcard address cannot be reached", hint);
    }
    parsed
}

fn is_wildcard(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

fn origins(section: &Section<'_>) -> Vec<String> {
    let mut origins = Vec::new();
    for At { value, at } in section.strings("origins") {
        let origin = value.to_ascii_lowercase();
        let rest = origin.split_once("://").map(|(_, rest)| rest);
        let is_origin = origin == "null" || rest.is_some_and(|rest| host_port(rest).is_some());
        if !is_origin {
            let hint = "scheme, host and port as browsers send it: \"https://app.example.com\"";
            section.faults.error(&at, format!("`{value}` is not an Origin"), hint);
        }
        origins.push(origin);
    }
    origins
}

pub(super) fn networks(list: Vec<At<String>>, faults: &Faults) -> Vec<IpNet> {
    let mut networks = Vec::with_capacity(list.len());
    for At { value, at } in list {
        let network =
            value.parse::<IpNet>().ok().or_else(|| value.parse::<IpAddr>().ok().map(IpNet::from));
        let Some(network) = network else {
            let hint = "an address or a network: \"192.0.2.7\", \"10.0.0.0/8\", \"2001:db8::/32\"";
            faults.error(&at, format!("`{value}` is not a network"), hint);
            continue;
        };
        if network.addr() != network.network() {
            let message = format!("`{value}` has bits behind its prefix");
            faults.warning(&at, message, format!("it is read as {}", network.trunc()));
        }
        networks.push(network.trunc());
    }
    networks
}

/// Reads every entry; one that lacks a key is reported and left out.
pub(super) fn certificates(sections: Vec<Section<'_>>, folder: &Path) -> Vec<Certificate> {
    let mut list: Vec<Certificate> = Vec::with_capacity(sections.len());
    for section in sections {
        let name = section.required("name", "a name of your choice for listeners to use");
        let cert = section.required("cert", "the PEM file with the certificate and its chain");
        let key = section.required("key", "the PEM file with the private key");
        if let Some(name) = &name
            && list.iter().any(|other| other.files.name == name.value)
        {
            let message = format!("two certificates are named `{}`", name.value);
            section.faults.error(&name.at, message, "give each its own name");
        }
        if let Some(name) = name.as_ref().filter(|name| name.value == SELF_SIGNED) {
            let message = format!("the name `{SELF_SIGNED}` is taken");
            let hint = "it stands for a certificate that is made at start: choose another name";
            section.faults.error(&name.at, message, hint);
        }
        if let (Some(name), Some(cert), Some(key)) = (name, cert, key) {
            list.push(Certificate {
                at: section.at.clone(),
                cert_at: cert.at,
                key_at: key.at,
                files: CertificateFiles {
                    name: name.value,
                    cert: folder.join(cert.value),
                    key: folder.join(key.value),
                },
            });
        }
        section.finish();
    }
    list
}

/// `host`, `host:port`, `address:port`, `[v6]:port`. `None` when it is neither.
pub(super) fn host_port(text: &str) -> Option<HostPort> {
    let split = match text.rfind(']') {
        Some(end) => end + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(split);
    let port = match rest.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse::<u16>().ok().filter(|port| *port > 0)?)
        }
        Some(_) => return None,
        None if rest.is_empty() => None,
        None => return None,
    };
    is_host(host).then(|| HostPort { host: host.to_ascii_lowercase(), port })
}

/// RFC 3261 §25.1 `host`: a name, an IPv4 address or an IPv6 address in brackets.
pub(super) fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn is_request_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#')
}

#[cfg(test)]
mod tests {
    use super::super::Severity::{Error, Note, Warning};
    use super::super::tests::assert_cases;
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for (text, expected) in [
            ("edge.example.com:443", Some(("edge.example.com", Some(443)))),
            ("Edge.example.com", Some(("edge.example.com", None))),
            ("192.0.2.1:5060", Some(("192.0.2.1", Some(5060)))),
            ("[2001:db8::1]:5061", Some(("[2001:db8::1]", Some(5061)))),
            ("[2001:db8::1]", Some(("[2001:db8::1]", None))),
            ("2001:db8::1", None),
            ("[nonsense]:1", None),
            ("host:", None),
            ("host:0", None),
            ("host:65536", None),
            ("host:12x", None),
            ("-host", None),
            ("a..b", None),
            ("a b", None),
            ("", None),
        ] {
            let expected = expected
                .map(|(host, port): (&str, Option<u16>)| HostPort { host: host.to_owned(), port });
            assert_eq!(host_port(text), expected, "{text}");
        }
    }

    #[test]
    fn request_paths() {
        for (path, expected) in [
            ("/", true),
            ("/sip/ws", true),
            ("", false),
            ("ws", false),
            ("/a?b", false),
            ("/ a", false),
        ] {
            assert_eq!(is_request_path(path), expected, "{path}");
        }
    }

    #[test]
    fn listeners() {
        assert_cases(&[
            ("[[listen]]\naddress = \"127.0.0.1:1\"\n", Error, 8, "`transport` is missing", "wss"),
            ("[[listen]]\ntransport = \"udp\"\n", Error, 8, "`address` is missing", "0.0.0.0"),
            (
                "[[listen]]\ntransport = \"quic\"\naddress = \"[::1]:1\"\n",
                Error,
                9,
                "`quic`",
                "tls",
            ),
            ("[[listen]]\ntransport = \"udp\"\naddress = \"::1:50\"\n", Error, 10, "port", "[::]"),
            ("[[listen]]\ntransport = \"udp\"\naddress = \"a:50\"\n", Error, 10, "port", ""),
            (
                "[[listen]]\ntransport = \"udp\"\naddress = \"[::ffff:192.0.2.1]:5060\"\n",
                Error,
                10,
                "IPv4 address written as IPv6",
                "192.0.2.1:5060",
            ),
            (
                "[[listen]]\ntransport = \"udp\"\naddress = \"[fe80::1%lo]:1\"\n",
                Error,
                10,
                "port",
                "",
            ),
            (
                "[[listen]]\ntransport = \"udp\"\naddress = \"127.0.0.1:5060\"\n",
                Error,
                10,
                "udp and udp both want 127.0.0.1:5060",
                "another port",
            ),
            (
                "[[listen]]\ntransport = \"tcp\"\naddress = \"127.0.0.1:5060\"\n\
                 [[listen]]\ntransport = \"ws\"\naddress = \"127.0.0.1:5060\"\n",
                Error,
                13,
                "ws and tcp both want",
                "share the TCP ports",
            ),
            (
                "[[listen]]\ntransport = \"tcp\"\naddress = \"127.0.0.1:80\"\n\
                 [admin]\naddress = \"127.0.0.1:80\"\n",
                Error,
                12,
                "admin and tcp both want",
                "",
            ),
            (
                "[[listen]]\ntransport = \"udp\"\naddress = \"0.0.0.0:5060\"\nadvertise = \"a\"\n",
                Warning,
                10,
                "overlaps",
                "specific",
            ),
            (
                "[[listen]]\ntransport = \"tcp\"\naddress = \"[::]:1\"\n",
                Warning,
                10,
                "wildcard without `advertise`",
                "advertise",
            ),
            (
                "[[listen]]\ntransport = \"tcp\"\naddress = \"[::]:1\"\nadvertise = \"a b\"\n",
                Error,
                11,
                "cannot be advertised",
                ":443",
            ),
            (
                "[[listen]]\ntransport = \"tcp\"\naddress = \"[::]:1\"\nadvertise = \"0.0.0.0:1\"\n",
                Error,
                11,
                "cannot be reached",
                "",
            ),
            (
                "[[listen]]\ntransport = \"tls\"\naddress = \"127.0.0.1:1\"\n",
                Error,
                8,
                "tls needs a `certificate`",
                "add a [[certificate]]",
            ),
            (
                "[[listen]]\ntransport = \"wss\"\naddress = \"127.0.0.1:1\"\ncertificate = \"e\"\n",
                Error,
                11,
                "there is no certificate `e`",
                "name = \"e\"",
            ),
            (
                "[[listen]]\ntransport = \"wss\"\naddress = \"127.0.0.1:1\"\n\
                 certificate = \"self-signed\"\n",
                Note,
                8,
                "any origin",
                "origins",
            ),
            (
                "[[listen]]\ntransport = \"tcp\"\naddress = \"127.0.0.1:1\"\ncertificate = \"e\"\n",
                Error,
                11,
                "`certificate` means nothing on tcp",
                "tls and wss",
            ),
            (
                "[[listen]]\ntransport = \"tls\"\naddress = \"127.0.0.1:1\"\npath = \"/\"\n",
                Error,
                11,
                "`path` means nothing on tls",
                "ws",
            ),
            (
                "[[listen]]\ntransport = \"ws\"\naddress = \"127.0.0.1:1\"\npath = \"ws?a\"\n",
                Error,
                11,
                "not a request path",
                "/sip",
            ),
            (
                "[[listen]]\ntransport = \"ws\"\naddress = \"127.0.0.1:1\"\norigins = [\"a.com\"]\n",
                Error,
                11,
                "not an Origin",
                "https://",
            ),
            (
                "[[listen]]\ntransport = \"ws\"\naddress = \"127.0.0.1:1\"\n\
                 tls_terminated_from = [\"10.0.0.300\"]\n",
                Error,
                11,
                "not a network",
                "10.0.0.0/8",
            ),
            (
                "[[listen]]\ntransport = \"ws\"\naddress = \"127.0.0.1:1\"\n\
                 tls_terminated_from = [\"10.0.0.1/8\"]\n",
                Warning,
                11,
                "bits behind its prefix",
                "10.0.0.0/8",
            ),
        ]);
    }
}
