//! Whether certificate files are there, can be read, and belong together.

use std::path::{Path, PathBuf};

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::fault::Faults;
use super::listen::Certificate;
use super::raw::At;

/// Reads both files of an entry and checks that the key is the certificate's.
pub(super) fn check_pair(certificate: &Certificate, faults: &Faults) {
    let files = &certificate.files;
    let chain = chain(&files.cert);
    let key = PrivateKeyDer::from_pem_file(&files.key);
    if let Err(message) = &chain {
        let hint = "`cert` is a PEM file: the certificate first, then its chain";
        faults.error(&certificate.cert_at, message, hint);
    }
    if let Err(error) = &key {
        let message = describe(&files.key, error, "private key");
        let hint = "`key` is a PEM file with an unencrypted private key";
        faults.error(&certificate.key_at, message, hint);
    }
    let (Ok(chain), Ok(key)) = (chain, key) else { return };
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    if let Err(error) = rustls::sign::CertifiedKey::from_der(chain, key, &provider) {
        let message = match error {
            rustls::Error::InconsistentKeys(_) => {
                "the key does not belong to the certificate".to_owned()
            }
            other => format!("the certificate cannot be used: {other}"),
        };
        let hint = "the first certificate in `cert` must be the one that `key` was made for";
        faults.error(&certificate.key_at, message, hint);
    }
}

/// Reads the file with the authorities for upstreams.
pub(super) fn check_authorities(ca: &At<PathBuf>, faults: &Faults) {
    let hint = "`upstream_ca` is a PEM file with the certificates of authorities";
    let added = chain(&ca.value).and_then(|certificates| {
        let mut roots = rustls::RootCertStore::empty();
        match roots.add_parsable_certificates(certificates) {
            (0, _) => Err(format!("no authority in {} can be used", ca.value.display())),
            _ => Ok(()),
        }
    });
    if let Err(message) = added {
        faults.error(&ca.at, message, hint);
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(chain) if chain.is_empty() => {
            Err(describe(path, &pem::Error::NoItemsFound, "certificate"))
        }
        Ok(chain) => Ok(chain),
        Err(error) => Err(describe(path, &error, "certificate")),
    }
}

fn describe(path: &Path, error: &pem::Error, what: &str) -> String {
    let path = path.display();
    match error {
        pem::Error::Io(error) => format!("cannot read {path}: {error}"),
        pem::Error::NoItemsFound => format!("there is no {what} in {path}"),
        other => format!("{path} is not a PEM file: {other}"),
    }
}
