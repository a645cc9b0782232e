//! The TLS room (RFC 8446, RFC 5246): between the bytes of a stream socket and the plaintext that
//! the engine sees.
//!
//! [`TlsMaterial`] is what the control thread reads from files: certificates, trusted roots, ticket
//! keys. Each shard turns it into a [`TlsContext`] of its own, which makes one [`Session`] for
//! every flow. A session is fed received bytes, hands out plaintext, and appends what must be sent
//! to the caller's buffer; it does no I/O.
//!
//! Decisions:
//! - TLS 1.2 and 1.3; X25519 first, X25519MLKEM768 accepted. As a server rustls follows the
//!   client's order of groups and cipher suites, so ours only decides what we offer ourselves.
//! - No ALPN (RFC 7301): a server without it ignores the extension, so that browsers (`http/1.1`),
//!   SIP phones (`sip` or nothing) and curl (`h2`, `http/1.1`) all connect, and what a listener
//!   speaks is its configuration.
//! - One ticket a handshake, no stored sessions; every shard can open every ticket (see
//!   [`ticket`]).
//! - Outgoing sessions verify the peer's DNS or IP subjectAltName; none of them is resumed.
//!
//! Absent on purpose: client certificates in either direction, SIP URI identities (RFC 5922 §7.1),
//! early data, OCSP stapling, key logging.

mod certificate;
mod context;
mod machine;
mod material;
mod resolver;
mod session;
pub mod ticket;

pub use context::{TlsContext, TlsContextError};
pub use material::{
    CertificateFiles, SELF_SIGNED_HOSTS, TlsMaterial, TlsMaterialError, TlsWarning,
};
pub use session::Session;

use rustls::{CertificateError, Error};

/// What a session has come to after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The handshake needs more bytes from the peer.
    Handshaking,
    /// Application data may flow both ways.
    Established,
    /// The peer has sent close_notify, or we have: nothing more will be read. While it was the peer
    /// who closed, data can still be sealed (RFC 8446 §6.1). Reported by every later call.
    PeerClosed,
    /// Over. What must still be sent (an alert) was appended. Reported by every later call.
    Failed(TlsError),
}

/// Why a session failed or refused a call. Each value is one metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TlsError {
    /// Not TLS, or a record or message that cannot be parsed.
    #[error("malformed TLS")]
    Malformed,
    /// No version, cipher suite, group or signature scheme in common.
    #[error("no TLS parameters in common")]
    Incompatible,
    /// A well-formed message that the protocol forbids here.
    #[error("TLS protocol violation")]
    Misbehaved,
    /// A record that does not decrypt.
    #[error("record does not decrypt")]
    Decrypt,
    /// The peer sent a fatal alert with this number (RFC 8446 §6).
    #[error("peer sent alert {0}")]
    Alert(u8),
    /// The server's certificate chain ends at nobody we trust.
    #[error("certificate of an unknown issuer")]
    UnknownIssuer,
    /// The server's certificate is for another name or address.
    #[error("certificate for another name")]
    WrongName,
    /// The server's certificate has expired or is not valid yet.
    #[error("certificate outside its validity period")]
    Expired,
    /// Any other fault of the server's certificate.
    #[error("bad certificate")]
    BadCertificate,
    /// A handshake message split over more bytes than we keep.
    #[error("handshake too large")]
    TooLarge,
    /// The name to connect to is neither a DNS name nor an address.
    #[error("not a server name")]
    BadServerName,
    /// There is no trusted root to verify a server with.
    #[error("no trusted roots")]
    NoRoots,
    /// Data cannot be sealed before the handshake is done.
    #[error("handshake not complete")]
    Handshaking,
    /// We have sent close_notify.
    #[error("session closed")]
    Closed,
    /// The keys have protected as many records as they may (TLS 1.2; RFC 8446 §5.5).
    #[error("keys exhausted")]
    Exhausted,
    /// The library or the system's randomness failed.
    #[error("internal TLS failure")]
    Internal,
}

impl TlsError {
    /// The label in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            TlsError::Malformed => "malformed",
            TlsError::Incompatible => "incompatible",
            TlsError::Misbehaved => "misbehaved",
            TlsError::Decrypt => "decrypt",
            TlsError::Alert(_) => "alert",
            TlsError::UnknownIssuer => "unknown_issuer",
            TlsError::WrongName => "wrong_name",
            TlsError::Expired => "expired",
            TlsError::BadCertificate => "bad_certificate",
            TlsError::TooLarge => "too_large",
            TlsError::BadServerName => "bad_server_name",
            TlsError::NoRoots => "no_roots",
            TlsError::Handshaking => "handshaking",
            TlsError::Closed => "closed",
            TlsError::Exhausted => "exhausted",
            TlsError::Internal => "internal",
        }
    }
}

impl From<&Error> for TlsError {
    fn from(error: &Error) -> TlsError {
        match error {
            Error::InvalidMessage(_) | Error::PeerSentOversizedRecord => TlsError::Malformed,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => TlsError::Incompatible,
            Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerMisbehaved(_) => TlsError::Misbehaved,
            Error::DecryptError => TlsError::Decrypt,
            Error::AlertReceived(alert) => TlsError::Alert(u8::from(*alert)),
            Error::InvalidCertificate(fault) => certificate_fault(fault),
            Error::NoCertificatesPresented | Error::UnsupportedNameType => TlsError::BadCertificate,
            _ => TlsError::Internal,
        }
    }
}

fn certificate_fault(fault: &CertificateError) -> TlsError {
    match fault {
        // A bad signature: the issuer bears the name of one we trust, but has another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsError::UnknownIssuer,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TlsError::WrongName
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => TlsError::Expired,
        _ => TlsError::BadCertificate,
    }
}

#[cfg(test)]
mod tests;
