//! One certificate authority for the run: the proxy's certificate, the upstream server's
//! certificate, and what TLS clients and servers of the tests need to use them.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

struct Authority {
    ca_pem: String,
    ca_der: CertificateDer<'static>,
    edge: Leaf,
    /// The proxy's next certificate.
    renewed: Leaf,
    upstream: Leaf,
}

struct Leaf {
    cert_pem: String,
    key_pem: String,
    cert_der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

const EDGE_NAMES: [&str; 6] =
    ["edge.example.com", "localhost", "127.0.0.1", "127.0.34.1", "127.0.34.2", "::1"];

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "sipring end-to-end tests");
        let key = KeyPair::generate().expect("CA key");
        let ca = CertifiedIssuer::self_signed(params, key).expect("CA certificate");
        let leaf = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
            let key = KeyPair::generate().expect("key");
            let params = CertificateParams::new(names).expect("names");
            let cert = params.signed_by(&key, &ca).expect("certificate");
            Leaf {
                cert_pem: cert.pem(),
                key_pem: key.serialize_pem(),
                cert_der: cert.der().clone(),
                key_der: key.serialize_der(),
            }
        };
        Authority {
            edge: leaf(&EDGE_NAMES),
            renewed: leaf(&EDGE_NAMES),
            upstream: leaf(&["core.example.com", "127.0.0.9"]),
            ca_pem: ca.pem(),
            ca_der: ca.der().clone(),
        }
    })
}

/// Writes `ca.pem`, `edge.pem` and `edge.key` into `folder`.
pub fn write_to(folder: &Path) {
    let authority = authority();
    for (name, text) in [
        ("ca.pem", &authority.ca_pem),
        ("edge.pem", &authority.edge.cert_pem),
        ("edge.key", &authority.edge.key_pem),
    ] {
        std::fs::write(folder.join(name), text).expect("write certificate");
    }
}

/// Puts the proxy's next certificate in the place of the one in `folder`; gives its DER form.
pub fn renew_in(folder: &Path) -> CertificateDer<'static> {
    let renewed = &authority().renewed;
    for (name, text) in [("edge.pem", &renewed.cert_pem), ("edge.key", &renewed.key_pem)] {
        std::fs::write(folder.join(name), text).expect("write certificate");
    }
    renewed.cert_der.clone()
}

/// A client that trusts our authority only.
pub fn client(versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority().ca_der.clone()).expect("root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A server with the upstream's certificate.
pub fn upstream_server() -> Arc<ServerConfig> {
    server(&authority().upstream)
}

/// A server with the proxy's certificate, for the tests of the clients themselves.
pub fn edge_server() -> Arc<ServerConfig> {
    server(&authority().edge)
}

fn server(leaf: &Leaf) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf.key_der.clone()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.cert_der.clone()], key)
        .expect("certificate");
    Arc::new(config)
}
