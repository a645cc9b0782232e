//! Whether certificate files are there, can be read, and belong together: what would happen at
//! start is tried.

use std::path::PathBuf;
use std::slice;

use crate::base::id::Transport;
use crate::io::tls::{TlsMaterial, TlsMaterialError, TlsWarning};

use super::fault::Faults;
use super::listen::Certificate;
use super::raw::At;
use super::upstream;

/// Loads one entry as the start would.
pub(super) fn check_pair(certificate: &Certificate, faults: &Faults) {
    match TlsMaterial::load(slice::from_ref(&certificate.files), None) {
        Ok(material) => {
            let own = material.warnings().iter().filter(|w| **w != TlsWarning::NoRoots);
            for warning in own {
                let hint = "sipring reads the files at start: put the new ones in place";
                faults.warning(&certificate.cert_at, warning.to_string(), hint);
            }
        }
        Err(error) if is_about_the_key(&error, certificate) => {
            let hint = "`key` is a PEM file with the unencrypted private key of `cert`";
            faults.error(&certificate.key_at, error.to_string(), hint);
        }
        Err(error) => {
            let hint = "`cert` is a PEM file: the certificate first, then its chain";
            faults.error(&certificate.cert_at, error.to_string(), hint);
        }
    }
}

fn is_about_the_key(error: &TlsMaterialError, certificate: &Certificate) -> bool {
    match error {
        TlsMaterialError::Mismatch { .. }
        | TlsMaterialError::NoKey { .. }
        | TlsMaterialError::EncryptedKey { .. }
        | TlsMaterialError::BadKey { .. } => true,
        TlsMaterialError::Read { file, .. } | TlsMaterialError::Pem { file, .. } => {
            *file == certificate.files.key && *file != certificate.files.cert
        }
        _ => false,
    }
}

/// Loads the authorities for upstreams as the start would.
pub(super) fn check_authorities(
    upstream_ca: Option<&At<PathBuf>>,
    upstreams: &[upstream::Drafted],
    faults: &Faults,
) {
    let loaded = TlsMaterial::load(&[], upstream_ca.map(|ca| ca.value.as_path()));
    match (loaded, upstream_ca) {
        (Err(error), Some(ca)) => {
            let hint = "`upstream_ca` is a PEM file with the certificates of authorities";
            faults.error(&ca.at, error.to_string(), hint);
        }
        (Ok(material), _) if material.warnings().contains(&TlsWarning::NoRoots) => {
            for draft in upstreams {
                let targets = draft.upstream.targets.iter().zip(&draft.targets_at);
                for (_, at) in targets.filter(|(target, _)| target.transport == Transport::Tls) {
                    let hint = "install ca-certificates, or set upstream_ca in [tls]";
                    faults.warning(at, TlsWarning::NoRoots.to_string(), hint);
                }
            }
        }
        _ => {}
    }
}
