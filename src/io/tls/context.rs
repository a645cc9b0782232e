//! What one shard needs to make TLS sessions: a server configuration for each TLS or WSS listener,
//! one client configuration, and the buffers that its sessions share. Nothing here is shared
//! between shards but certificates, roots and ticket keys, which never change. A reload makes a new
//! context; sessions of the old one live on.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;

use super::TlsError;
use super::material::{Certificate, TlsMaterial};
use super::resolver::Resolver;
use super::session::{Session, Shared};
use crate::base::config::{Config, Listener};
use crate::base::id::ListenerId;

/// Makes sessions for one shard.
pub struct TlsContext {
    /// By listener; `None` for those that speak no TLS.
    servers: Vec<Option<Arc<ServerConfig>>>,
    client: Arc<ClientConfig>,
    has_roots: bool,
    shared: Rc<Shared>,
}

/// Why the configuration cannot be served with the material at hand.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsContextError {
    /// A listener names a certificate that was not loaded.
    #[error("listener {listener}: there is no [[certificate]] named \"{name}\"")]
    UnknownCertificate {
        /// Transport and address.
        listener: String,
        /// The name.
        name: String,
    },
    /// A listener needs a certificate and there is none at all.
    #[error("listener {listener}: TLS needs a certificate; add a [[certificate]] and name it here")]
    NoCertificate {
        /// Transport and address.
        listener: String,
    },
}

impl TlsContext {
    /// Prepares sessions for the listeners of `config`. A listener that names no certificate shows
    /// the first one.
    ///
    /// # Errors
    /// A listener's certificate is not in `material`.
    pub fn new(material: &TlsMaterial, config: &Config) -> Result<TlsContext, TlsContextError> {
        let shared = Rc::new(Shared::default());
        let server = |listener: &Listener| {
            let secure = listener.transport.is_secure();
            secure.then(|| server_config(material, listener, &shared)).transpose()
        };
        Ok(TlsContext {
            servers: config.listeners.iter().map(server).collect::<Result<_, _>>()?,
            client: Arc::new(client_config(material)),
            has_roots: !material.roots.is_empty(),
            shared,
        })
    }

    /// A session for a connection that `listener` accepted. Panics when that listener speaks no
    /// TLS.
    pub fn accept(&self, listener: ListenerId) -> Session {
        let config = self.servers[listener.index()].as_ref().expect("a listener of TLS or WSS");
        let connection = UnbufferedServerConnection::new(Arc::clone(config))
            .expect("the default fragment size is valid");
        Session::server(connection, Rc::clone(&self.shared))
    }

    /// A session for a connection that we open. `server_name` is what the target's URI says, a DNS
    /// name or an IP address (with or without brackets); the server must prove it. Empty stands for
    /// `remote`. A DNS name is also sent as server_name (RFC 6066 §3), an address is not.
    ///
    /// # Errors
    /// [`TlsError::BadServerName`], [`TlsError::NoRoots`].
    pub fn connect(&self, server_name: &str, remote: IpAddr) -> Result<Session, TlsError> {
        if !self.has_roots {
            return Err(TlsError::NoRoots);
        }
        let bare = server_name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let name = match bare.unwrap_or(server_name) {
            "" => ServerName::IpAddress(remote.into()),
            name => ServerName::try_from(name.strip_suffix('.').unwrap_or(name))
                .map_err(|_| TlsError::BadServerName)?
                .to_owned(),
        };
        let connection = UnbufferedClientConnection::new(Arc::clone(&self.client), name)
            .map_err(|error| TlsError::from(&error))?;
        Ok(Session::client(connection, Rc::clone(&self.shared)))
    }
}

fn server_config(
    material: &TlsMaterial,
    listener: &Listener,
    shared: &Shared,
) -> Result<Arc<ServerConfig>, TlsContextError> {
    let certificate = listeners_certificate(material, listener)?;
    let resolver = Resolver::new(certificate, &material.certificates, Arc::clone(&shared.sni));
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has suites for both versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(material.tickets.clone());
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

fn listeners_certificate<'a>(
    material: &'a TlsMaterial,
    listener: &Listener,
) -> Result<&'a Certificate, TlsContextError> {
    let described = || format!("{} {}", listener.transport.name(), listener.address);
    match &listener.certificate {
        None => (material.certificates.first())
            .ok_or_else(|| TlsContextError::NoCertificate { listener: described() }),
        Some(name) => {
            (material.certificates.iter().find(|one| one.name == *name)).ok_or_else(|| {
                TlsContextError::UnknownCertificate { listener: described(), name: name.clone() }
            })
        }
    }
}

fn client_config(material: &TlsMaterial) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has suites for both versions")
        .with_root_certificates(Arc::clone(&material.roots))
        .with_no_client_auth();
    // Connections to upstreams are few and long; a store of sessions would be a lock between them.
    config.resumption = Resumption::disabled();
    config
}

/// AWS-LC with the groups and suites in the order of their cost: X25519MLKEM768 is 18 µs dearer
/// than X25519.
pub(super) static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        kx_groups: vec![
            kx_group::X25519,
            kx_group::X25519MLKEM768,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        ..default_provider()
    })
});
