//! TLS of the floor: the proxy's library, suites, groups and single ticket, driven through the same
//! unbuffered interface. Absent on purpose: TLS 1.2, server names, rotation.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, cipher_suite, default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};

/// Bytes that a record adds to its plaintext, and plaintext bytes of one (RFC 8446 §5).
const RECORD_OVERHEAD: usize = 5 + 1 + 16;
const RECORD_PLAIN_MAX: usize = 1 << 14;

/// The configuration of all sessions, with a chain and a key in PEM files.
pub fn config(chain: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let open = |path: &Path| {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        anyhow::Ok(BufReader::new(file))
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_reader_iter(open(chain)?).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_reader(open(key)?)?;
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![kx_group::X25519],
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..default_provider()
    });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// One session.
pub struct Session {
    connection: Box<UnbufferedServerConnection>,
    /// What has come of a record that is not whole yet.
    held: Vec<u8>,
}

/// The session is over: the peer closed it, or broke it.
#[derive(Debug)]
pub struct Over;

impl Session {
    /// A session that waits for its ClientHello.
    pub fn new(config: &Arc<ServerConfig>) -> Result<Session, rustls::Error> {
        let connection = Box::new(UnbufferedServerConnection::new(Arc::clone(config))?);
        Ok(Session { connection, held: Vec::new() })
    }

    /// Opens what arrived: plaintext is appended to `plain`, records to be sent to `out`.
    pub fn open(
        &mut self,
        bytes: &mut [u8],
        out: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<(), Over> {
        if self.held.is_empty() {
            let used = self.run(bytes, out, plain)?;
            self.held.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        let used = self.run(&mut held, out, plain)?;
        held.drain(..used);
        if !held.is_empty() {
            self.held = held;
        }
        Ok(())
    }

    fn run(
        &mut self,
        tls: &mut [u8],
        out: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<usize, Over> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut tls[used..]);
            let mut is_resting = false;
            match state.map_err(|_| Over)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(|_| Over)?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(record) => encode(record, out),
                ConnectionState::TransmitTlsData(sent) => sent.done(),
                ConnectionState::PeerClosed | ConnectionState::Closed => return Err(Over),
                _ => is_resting = true,
            }
            used += discard;
            if is_resting {
                return Ok(used);
            }
        }
    }

    /// Appends `plain`, sealed, to `out`; and close_notify behind it when `is_last`.
    pub fn seal(&mut self, plain: &[u8], is_last: bool, out: &mut Vec<u8>) -> Result<(), Over> {
        loop {
            match self.connection.process_tls_records(&mut self.held).state.map_err(|_| Over)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    if !plain.is_empty() {
                        let records = plain.len() / RECORD_PLAIN_MAX + 1;
                        let room = plain.len() + records * RECORD_OVERHEAD;
                        append(out, room, |room| traffic.encrypt(plain, room))?;
                    }
                    if is_last {
                        append(out, RECORD_OVERHEAD + 2, |room| traffic.queue_close_notify(room))?;
                    }
                    return Ok(());
                }
                ConnectionState::EncodeTlsData(record) => encode(record, out),
                ConnectionState::TransmitTlsData(sent) => sent.done(),
                ConnectionState::PeerClosed => {}
                _ => return Err(Over),
            }
        }
    }
}

/// Appends what `put` writes into as much room as it asks for, `room` bytes at first.
fn append(
    out: &mut Vec<u8>,
    mut room: usize,
    mut put: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), Over> {
    let start = out.len();
    loop {
        out.resize(start + room, 0);
        match put(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(size)) => room = size.required_size,
            Err(EncryptError::EncryptExhausted) => return Err(Over),
        }
    }
}

/// Appends one record of the handshake.
fn encode<Data>(mut record: EncodeTlsData<'_, Data>, out: &mut Vec<u8>) {
    let start = out.len();
    let mut room = 0;
    loop {
        out.resize(start + room, 0);
        match record.encode(&mut out[start..]) {
            Ok(written) => return out.truncate(start + written),
            Err(EncodeError::InsufficientSize(size)) => room = size.required_size,
            Err(EncodeError::AlreadyEncoded) => unreachable!("a record is encoded once"),
        }
    }
}
