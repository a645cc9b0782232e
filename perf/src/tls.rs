//! TLS as the load needs it: TLS 1.3, X25519, AES-128-GCM, and any certificate is good: the peer is
//! the program under test on this machine. Records are opened in place and sealed into the buffer
//! that is written. Absent: early data, key updates of our own.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
    UnbufferedClientConnection,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, HandshakeKind, NamedGroup, SignatureScheme,
};

/// Tickets that are kept; more are forgotten.
const TICKETS_MAX: usize = 65_536;

/// What a record adds to its content, with room to spare (RFC 8446 §5.2).
const RECORD_OVERHEAD: usize = 32;
/// Content of a record at most.
const RECORD_MAX: usize = 16 * 1024;

/// The configuration that clients share. `resumes`: a handshake uses a ticket of an earlier one.
pub fn config(resumes: bool) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..aws_lc_rs::default_provider()
    });
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.resumption = match resumes {
        true => Resumption::store(Arc::new(Tickets::default())),
        false => Resumption::disabled(),
    };
    Ok(Arc::new(config))
}

/// One client's side of one connection.
pub struct Session {
    connection: UnbufferedClientConnection,
    is_open: bool,
}

impl Session {
    /// A session that has not said anything yet.
    pub fn new(config: Arc<ClientConfig>, peer: IpAddr) -> Result<Session> {
        let connection = UnbufferedClientConnection::new(config, ServerName::from(peer))?;
        Ok(Session { connection, is_open: false })
    }

    /// Whether data may be sealed.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether a ticket spared the handshake its certificate.
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Takes records from the front of `input` and adds their content to `plain`, and what the
    /// handshake has to say to `reply`: how many bytes are used up, and whether the peer has
    /// ended the session.
    pub fn take_in(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<(usize, bool)> {
        let mut used = 0;
        loop {
            let status = self.connection.process_tls_records(&mut input[used..]);
            let mut discard = status.discard;
            let mut goes_on = true;
            let mut is_ended = false;
            match status.state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let start = reply.len();
                    reply.resize(start + 1024, 0);
                    let length = match data.encode(&mut reply[start..]) {
                        Err(EncodeError::InsufficientSize(short)) => {
                            reply.resize(start + short.required_size, 0);
                            data.encode(&mut reply[start..])?
                        }
                        length => length?,
                    };
                    reply.truncate(start + length);
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(_) => {
                    self.is_open = true;
                    goes_on = false;
                }
                ConnectionState::BlockedHandshake => goes_on = false,
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    (goes_on, is_ended) = (false, true);
                }
                state => bail!("TLS: unexpected {state:?}"),
            }
            used += discard;
            if !goes_on {
                return Ok((used, is_ended));
            }
        }
    }

    /// Adds `plain`, sealed, to `out`. To be called once the session [is open](Self::is_open).
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let status = self.connection.process_tls_records(&mut []);
        let ConnectionState::WriteTraffic(mut traffic) = status.state? else {
            bail!("TLS: data cannot be sent at this time");
        };
        for content in plain.chunks(RECORD_MAX) {
            let start = out.len();
            out.resize(start + content.len() + RECORD_OVERHEAD, 0);
            let length = match traffic.encrypt(content, &mut out[start..]) {
                Err(EncryptError::InsufficientSize(short)) => {
                    out.resize(start + short.required_size, 0);
                    traffic.encrypt(content, &mut out[start..])?
                }
                length => length?,
            };
            out.truncate(start + length);
        }
        Ok(())
    }
}

/// Tickets of the one server there is, each used once (RFC 8446 §C.4): as many as connections are
/// under way.
#[derive(Debug, Default)]
struct Tickets(Mutex<Vec<Tls13ClientSessionValue>>);

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _server: ServerName<'static>, _group: NamedGroup) {}

    fn kx_hint(&self, _server: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _server: ServerName<'static>, _value: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _server: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _server: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.len() < TICKETS_MAX {
            tickets.push(value);
        }
    }

    fn take_tls13_ticket(&self, _server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// Believes every certificate, but checks that the server holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
