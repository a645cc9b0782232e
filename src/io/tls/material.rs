//! Certificates, keys and trusted roots, as they come from files (PEM, RFC 7468) or are made at
//! start. Reading takes time and may fail with something for a person to mend, so that it is the
//! control thread's work; the result goes to every shard.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate;
use super::context::PROVIDER;
use super::ticket::TicketKeys;

/// What a certificate made at start is for when nobody says so.
pub const SELF_SIGNED_HOSTS: [&str; 4] = ["localhost", "127.0.0.1", "::1", "example.com"];

/// How long a certificate made at start is valid: what browsers accept at most.
const SELF_SIGNED_VALID: Duration = Duration::from_secs(397 * DAY);
/// How far before its end a certificate is warned about.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * DAY);
const DAY: u64 = 24 * 3600;

/// One `[[certificate]]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// What listeners call it.
    pub name: String,
    /// PEM file of the chain, our own certificate first.
    pub cert: PathBuf,
    /// PEM file of its private key (PKCS #8, SEC 1 or PKCS #1).
    pub key: PathBuf,
}

/// Everything that contexts are made from. It may go to other threads; nothing in it changes once
/// it is there.
#[derive(Clone)]
pub struct TlsMaterial {
    pub(super) certificates: Vec<Certificate>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) tickets: TicketKeys,
    warnings: Vec<TlsWarning>,
    self_signed_pem: Option<String>,
}

/// A certificate chain with its key.
#[derive(Clone)]
pub(super) struct Certificate {
    pub(super) name: String,
    pub(super) key: Arc<CertifiedKey>,
    /// DNS names of its subjectAltName, lower case.
    pub(super) dns_names: Vec<String>,
    not_before: i64,
    not_after: i64,
}

/// Why material could not be had. The message says what to mend.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TlsMaterialError {
    #[error("{}: cannot be read: {fault}", file.display())]
    Read { file: PathBuf, fault: io::Error },
    #[error("{}: not PEM: {fault}", file.display())]
    Pem { file: PathBuf, fault: pem::Error },
    #[error("{}: holds no certificate; a line \"-----BEGIN CERTIFICATE-----\" is expected", file.display())]
    NoCertificate { file: PathBuf },
    #[error("{}: the certificate cannot be used: {fault}", file.display())]
    BadCertificate { file: PathBuf, fault: String },
    #[error(
        "{}: holds no private key; a line \"-----BEGIN PRIVATE KEY-----\" is expected",
        file.display()
    )]
    NoKey { file: PathBuf },
    #[error(
        "{}: the private key is encrypted; decrypt it: openssl pkey -in {0} -out plain.pem",
        file.display()
    )]
    EncryptedKey { file: PathBuf },
    #[error("{}: the private key cannot be used: {fault}", file.display())]
    BadKey { file: PathBuf, fault: String },
    #[error(
        "{}: not the private key of the first certificate in {}; our own certificate must come \
         before its issuers",
        key.display(), cert.display()
    )]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("two certificates are named \"{name}\"")]
    Duplicate { name: String },
    #[error("a certificate cannot be made: {fault}")]
    Generate { fault: String },
    #[error("the system gives no random bytes")]
    Random,
}

/// Something about the material that works now and that a person should know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum TlsWarning {
    #[error("certificate \"{name}\" expired {days} days ago; clients will refuse it")]
    Expired { name: String, days: u64 },
    #[error("certificate \"{name}\" expires in {days} days")]
    ExpiresSoon { name: String, days: u64 },
    #[error("certificate \"{name}\" is not valid yet: check it and the clock")]
    NotYetValid { name: String },
    #[error(
        "no trusted roots were found on this system: outgoing TLS will fail; install \
         ca-certificates or set a CA file"
    )]
    NoRoots,
}

impl TlsMaterial {
    /// Reads certificates and keys, and the roots to verify servers with: those in `upstream_ca`,
    /// or the system's. Ticket keys are new; see [`TlsMaterial::keep_tickets_of`].
    ///
    /// # Errors
    /// The first file that cannot be used, and why.
    pub fn load(
        certificates: &[CertificateFiles],
        upstream_ca: Option<&Path>,
    ) -> Result<TlsMaterial, TlsMaterialError> {
        for (position, files) in certificates.iter().enumerate() {
            if certificates[..position].iter().any(|other| other.name == files.name) {
                return Err(TlsMaterialError::Duplicate { name: files.name.clone() });
            }
        }
        let certificates = certificates.iter().map(Certificate::load).collect::<Result<_, _>>()?;
        let roots = match upstream_ca {
            Some(file) => roots_in(file)?,
            None => system_roots(),
        };
        TlsMaterial::new(certificates, roots)
    }

    /// Makes a certificate named `name` for `hosts` (DNS names and addresses; none:
    /// [`SELF_SIGNED_HOSTS`]) with a new P-256 key. Servers are verified with the system's roots.
    ///
    /// # Errors
    /// A host is no name, or the system gives no randomness.
    pub fn self_signed(name: &str, hosts: &[String]) -> Result<TlsMaterial, TlsMaterialError> {
        let hosts = match hosts {
            [] => SELF_SIGNED_HOSTS.map(String::from).to_vec(),
            hosts => hosts.to_vec(),
        };
        let made = self_sign(hosts)
            .map_err(|fault| TlsMaterialError::Generate { fault: fault.to_string() })?;
        let certificate =
            Certificate::new(name, vec![made.cert.der().clone()], made.signing_key.into())
                .map_err(|fault| TlsMaterialError::Generate { fault: fault.to_string() })?;
        let mut material = TlsMaterial::new(vec![certificate], system_roots())?;
        material.self_signed_pem = Some(made.cert.pem());
        Ok(material)
    }

    fn new(
        certificates: Vec<Certificate>,
        roots: RootCertStore,
    ) -> Result<TlsMaterial, TlsMaterialError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut warnings: Vec<_> = certificates.iter().filter_map(|one| one.warning(now)).collect();
        if roots.is_empty() {
            warnings.push(TlsWarning::NoRoots);
        }
        Ok(TlsMaterial {
            certificates,
            roots: Arc::new(roots),
            tickets: TicketKeys::generate().map_err(|_| TlsMaterialError::Random)?,
            warnings,
            self_signed_pem: None,
        })
    }

    /// The certificate that [`TlsMaterial::self_signed`] made, so that it can be shown or saved.
    pub fn certificate_pem(&self) -> Option<&str> {
        self.self_signed_pem.as_deref()
    }

    /// What a person should know about this material.
    pub fn warnings(&self) -> &[TlsWarning] {
        &self.warnings
    }

    /// On reload: goes on with the ticket keys of `old`, so that clients can still resume.
    pub fn keep_tickets_of(&mut self, old: &TlsMaterial) {
        self.tickets = old.tickets.clone();
    }

    /// Every [`super::ticket::ROTATE_EVERY`]: new tickets get a new key, the current key still
    /// opens. Contexts made before keep the old keys; make new ones.
    ///
    /// # Errors
    /// [`TlsMaterialError::Random`]; the keys stay as they were.
    pub fn rotate_tickets(&mut self) -> Result<(), TlsMaterialError> {
        self.tickets = self.tickets.rotated().map_err(|_| TlsMaterialError::Random)?;
        Ok(())
    }
}

impl Certificate {
    /// `chain` begins with our own certificate, to which `key` must belong.
    pub(super) fn new(
        name: &str,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Certificate, Error> {
        let facts = chain.first().and_then(|own| certificate::facts(own));
        let key = CertifiedKey::from_der(chain, key, &PROVIDER)?;
        let facts = facts.ok_or(Error::NoCertificatesPresented)?;
        Ok(Certificate {
            name: name.to_owned(),
            key: Arc::new(key),
            dns_names: facts.names,
            not_before: facts.not_before,
            not_after: facts.not_after,
        })
    }

    fn load(files: &CertificateFiles) -> Result<Certificate, TlsMaterialError> {
        let chain = certificates_in(&files.cert)?;
        let key = key_in(&files.key)?;
        Certificate::new(&files.name, chain, key).map_err(|fault| match fault {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsMaterialError::Mismatch { cert: files.cert.clone(), key: files.key.clone() }
            }
            Error::InvalidCertificate(_) | Error::NoCertificatesPresented => {
                TlsMaterialError::BadCertificate {
                    file: files.cert.clone(),
                    fault: fault.to_string(),
                }
            }
            fault => TlsMaterialError::BadKey { file: files.key.clone(), fault: fault.to_string() },
        })
    }

    /// `now` is the time since 1970.
    fn warning(&self, now: Duration) -> Option<TlsWarning> {
        let name = self.name.clone();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let days = self.not_after.abs_diff(now) / DAY;
        if now < self.not_before {
            Some(TlsWarning::NotYetValid { name })
        } else if now > self.not_after {
            Some(TlsWarning::Expired { name, days })
        } else if days < EXPIRES_SOON.as_secs() / DAY {
            Some(TlsWarning::ExpiresSoon { name, days })
        } else {
            None
        }
    }
}

fn self_sign(hosts: Vec<String>) -> Result<rcgen::CertifiedKey<rcgen::KeyPair>, rcgen::Error> {
    let mut params = rcgen::CertificateParams::new(hosts)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let today = rcgen::date_time_ymd(1970, 1, 1) + now;
    // The client's clock may be behind ours.
    params.not_before = today - Duration::from_secs(DAY);
    params.not_after = params.not_before + SELF_SIGNED_VALID;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "sipring self-signed");
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let signing_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let cert = params.self_signed(&signing_key)?;
    Ok(rcgen::CertifiedKey { cert, signing_key })
}

fn certificates_in(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsMaterialError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read(file)?)
        .collect::<Result<_, _>>()
        .map_err(|fault| TlsMaterialError::Pem { file: file.into(), fault })?;
    if found.is_empty() {
        return Err(TlsMaterialError::NoCertificate { file: file.into() });
    }
    Ok(found)
}

fn key_in(file: &Path) -> Result<PrivateKeyDer<'static>, TlsMaterialError> {
    let text = read(file)?;
    let says = |words: &[u8]| memchr::memmem::find(&text, words).is_some();
    // RFC 5958 §3 and the older form with a DEK-Info header.
    if says(b"BEGIN ENCRYPTED PRIVATE KEY") || says(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsMaterialError::EncryptedKey { file: file.into() });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|fault| match fault {
        pem::Error::NoItemsFound => TlsMaterialError::NoKey { file: file.into() },
        fault => TlsMaterialError::Pem { file: file.into(), fault },
    })
}

fn roots_in(file: &Path) -> Result<RootCertStore, TlsMaterialError> {
    let mut roots = RootCertStore::empty();
    for root in certificates_in(file)? {
        roots.add(root).map_err(|fault| TlsMaterialError::BadCertificate {
            file: file.into(),
            fault: fault.to_string(),
        })?;
    }
    Ok(roots)
}

/// What the system trusts, less what cannot be parsed: one odd root must not take all of them away.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn read(file: &Path) -> Result<Vec<u8>, TlsMaterialError> {
    std::fs::read(file).map_err(|fault| TlsMaterialError::Read { file: file.into(), fault })
}

const _: () = {
    const fn crosses_threads<T: Send + Sync>() {}
    crosses_threads::<TlsMaterial>();
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_named_with_what_to_mend() {
        let folder = tempfile::tempdir().unwrap();
        let made = [(); 2].map(|()| self_sign(vec!["example.com".into()]).unwrap());
        let key = made[0].signing_key.serialize_pem();
        let sealed =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let bad_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let bad_cert = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (cert, key, file, says) in [
            (made[0].cert.pem().as_str(), Some(key.as_str()), "", ""),
            (&made[1].cert.pem(), Some(&key), "k.pem", "not the private key of"),
            ("", Some(&key), "c.pem", "BEGIN CERTIFICATE"),
            (bad_cert, Some(&key), "c.pem", "cannot be used"),
            ("-----BEGIN CERTIFICATE-----\nAA", Some(&key), "c.pem", "not PEM"),
            (&made[0].cert.pem(), Some(""), "k.pem", "BEGIN PRIVATE KEY"),
            (&made[0].cert.pem(), Some(sealed), "k.pem", "openssl pkey -in"),
            (&made[0].cert.pem(), Some(bad_key), "k.pem", "cannot be used"),
            (&made[0].cert.pem(), None, "k.pem", "cannot be read"),
        ] {
            let files = CertificateFiles {
                name: "edge".into(),
                cert: folder.path().join("c.pem"),
                key: folder.path().join("k.pem"),
            };
            std::fs::write(&files.cert, cert).unwrap();
            match key {
                Some(key) => std::fs::write(&files.key, key).unwrap(),
                None => std::fs::remove_file(&files.key).unwrap(),
            }
            let ca = folder.path().join("ca.pem");
            std::fs::write(&ca, made[0].cert.pem()).unwrap();
            let loaded = TlsMaterial::load(&[files], Some(&ca)).map(|_| ());
            let message = loaded.err().map(|fault| fault.to_string()).unwrap_or_default();
            assert!(message.contains(file) && message.contains(says), "{says}: {message:?}");
            assert_eq!(message.is_empty(), says.is_empty(), "{message}");
        }
    }

    #[test]
    fn one_name_names_one_certificate() {
        let files = CertificateFiles { name: "a".into(), cert: "c".into(), key: "k".into() };
        let fault = TlsMaterial::load(&[files.clone(), files], None).err().unwrap();
        assert_eq!(fault.to_string(), "two certificates are named \"a\"");
    }

    #[test]
    fn a_self_signed_certificate_is_for_its_hosts_and_can_be_shown() {
        let material = TlsMaterial::self_signed("default", &[]).unwrap();
        assert_eq!(material.certificates[0].dns_names, ["localhost", "example.com"]);
        let shown = CertificateDer::from_pem_slice(material.certificate_pem().unwrap().as_bytes());
        assert_eq!(shown.unwrap(), material.certificates[0].key.cert[0]);
        let named = TlsMaterial::self_signed("default", &["sip.test".into()]).unwrap();
        assert_eq!(named.certificates[0].dns_names, ["sip.test"]);
        assert!(TlsMaterial::self_signed("default", &["bücher".into()]).is_err());
    }

    #[test]
    fn a_certificate_is_warned_about_around_its_validity() {
        let material = TlsMaterial::self_signed("edge", &[]).unwrap();
        let certificate = &material.certificates[0];
        let name = String::from("edge");
        let (from, until) = (certificate.not_before as u64, certificate.not_after as u64);
        for (now, expected) in [
            (from - 1, Some(TlsWarning::NotYetValid { name: name.clone() })),
            (from, None),
            (until - 14 * DAY, None),
            (until - 14 * DAY + 1, Some(TlsWarning::ExpiresSoon { name: name.clone(), days: 13 })),
            (until, Some(TlsWarning::ExpiresSoon { name: name.clone(), days: 0 })),
            (until + 3 * DAY, Some(TlsWarning::Expired { name, days: 3 })),
        ] {
            assert_eq!(certificate.warning(Duration::from_secs(now)), expected, "{now}");
        }
    }
}
