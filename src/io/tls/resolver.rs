//! Which certificate a client is shown (RFC 6066 §3, RFC 9525 §6.3): one whose subjectAltName has
//! the name that the client asked for, exactly or by wildcard, and whose key the client can verify;
//! else the listener's own.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::material::Certificate;

/// The certificates of one listener.
pub(super) struct Resolver {
    default: Arc<CertifiedKey>,
    /// By DNS name; the listener's own certificate first. A wildcard stands under its `*.` name.
    by_name: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// Where the session that is running finds the name that was asked for.
    asked: Arc<Mutex<Option<Box<str>>>>,
}

impl Resolver {
    pub(super) fn new<'a>(
        default: &'a Certificate,
        all: impl IntoIterator<Item = &'a Certificate>,
        asked: Arc<Mutex<Option<Box<str>>>>,
    ) -> Resolver {
        let mut by_name: HashMap<Box<str>, Vec<Arc<CertifiedKey>>> = HashMap::new();
        let others = all.into_iter().filter(|other| other.name != default.name);
        for certificate in std::iter::once(default).chain(others) {
            for name in &certificate.dns_names {
                by_name.entry(name.as_str().into()).or_default().push(Arc::clone(&certificate.key));
            }
        }
        Resolver { default: Arc::clone(&default.key), by_name, asked }
    }

    /// `name` is lower case.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> &Arc<CertifiedKey> {
        let verifiable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let exact = name.and_then(|name| self.by_name.get(name));
        // A wildcard is the whole leftmost label (RFC 9525 §6.3).
        let wildcard = name
            .and_then(|name| name.split_once('.'))
            .and_then(|(_, parent)| self.by_name.get(format!("*.{parent}").as_str()));
        let mut fitting = [exact, wildcard].into_iter().flatten().flatten();
        fitting.find(verifiable).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = name.map(Box::from);
        Some(Arc::clone(self.choose(name, hello.signature_schemes())))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("names", &self.by_name.keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_chooses_exact_then_wildcard_then_default() {
        let edge = certificate("edge", &["edge.example.com"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let wild =
            certificate("wild", &["*.example.com", "b.test"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let same = certificate("same", &["edge.example.com"], &rcgen::PKCS_ED25519);
        let all = [wild, edge, same];
        let resolver = Resolver::new(&all[1], &all, Arc::default());
        let p256 = &[SignatureScheme::ECDSA_NISTP256_SHA256][..];
        let ed25519 = &[SignatureScheme::ED25519][..];
        for (name, schemes, expected) in [
            (None, p256, "edge"),
            (Some("edge.example.com"), p256, "edge"),
            (Some("edge.example.com"), ed25519, "same"),
            (Some("a.example.com"), p256, "wild"),
            (Some("a.b.example.com"), p256, "edge"),
            (Some("example.com"), p256, "edge"),
            (Some("b.test"), p256, "wild"),
            (Some("b.test"), ed25519, "edge"),
            (Some("localhost"), p256, "edge"),
        ] {
            let chosen = resolver.choose(name, schemes);
            let found = all.iter().find(|one| Arc::ptr_eq(&one.key, chosen)).unwrap();
            assert_eq!(found.name, expected, "{name:?}");
        }
    }

    fn certificate(
        name: &str,
        hosts: &[&str],
        algorithm: &'static rcgen::SignatureAlgorithm,
    ) -> Certificate {
        let hosts: Vec<String> = hosts.iter().map(|host| host.to_string()).collect();
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let cert = rcgen::CertificateParams::new(hosts).unwrap().self_signed(&key).unwrap();
        Certificate::new(name, vec![cert.der().clone()], key.into()).unwrap()
    }
}
