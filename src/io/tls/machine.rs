//! Turning the crank of rustls' unbuffered state machine, for servers and clients alike. What
//! rustls demands and this file keeps: bytes that it did not discard are presented again, with more
//! behind them; a record to send is taken before its state object is dropped; after an error it
//! never sees input again.

use rustls::CommonState;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};

use super::TlsError;

/// Bytes that a record adds to its plaintext, at most: header 5, explicit nonce of TLS 1.2 8,
/// content type 1, tag 16.
const RECORD_OVERHEAD: usize = 5 + 8 + 1 + 16;
/// Plaintext bytes of one record (RFC 8446 §5.1).
const RECORD_PLAIN_MAX: usize = 1 << 14;
/// Room for a KeyUpdate answer that rides in front of the data.
const KEY_UPDATE_ROOM: usize = 32;

/// The two rustls connections, which share their methods in name only.
pub(super) trait Machine {
    type Data;
    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &CommonState;
}

impl Machine for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }
    fn common(&self) -> &CommonState {
        self
    }
}

impl Machine for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }
    fn common(&self) -> &CommonState {
        self
    }
}

/// Where a machine came to rest.
pub(super) struct Rest {
    /// Bytes at the front of the input that are done with.
    pub(super) used: usize,
    /// The peer's close_notify was among them.
    pub(super) peer_closed: bool,
}

/// Runs until more input is needed. Records to send go to `out`; plaintext is copied to `scratch`,
/// because rustls only lends it, and handed to `plain` there.
pub(super) fn run<M: Machine>(
    machine: &mut M,
    tls: &mut [u8],
    scratch: &mut Vec<u8>,
    out: &mut Vec<u8>,
    plain: &mut dyn FnMut(&mut [u8]),
) -> Result<Rest, rustls::Error> {
    let mut rest = Rest { used: 0, peer_closed: false };
    loop {
        let UnbufferedStatus { discard, state } = machine.process(&mut tls[rest.used..]);
        let mut resting = false;
        let mut discard = discard;
        match state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    scratch.clear();
                    scratch.extend_from_slice(record.payload);
                    plain(scratch);
                }
            }
            ConnectionState::EncodeTlsData(record) => encode(record, out),
            ConnectionState::TransmitTlsData(sent) => sent.done(),
            ConnectionState::PeerClosed => rest.peer_closed = true,
            // Early data is never offered, so that the remaining states all mean: nothing to do.
            _ => resting = true,
        }
        rest.used += discard;
        if resting {
            return Ok(rest);
        }
    }
}

/// Takes what the machine still wants to send after an error: its alert. It must not look for input
/// again: handshake messages that it remembers refer to bytes that are gone.
pub(super) fn drain<M: Machine>(machine: &mut M, out: &mut Vec<u8>) {
    while machine.common().wants_write() {
        match machine.process(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(record)) => encode(record, out),
            _ => return,
        }
    }
}

/// Seals `plaintext` behind `out`. `held` are the bytes that [`run`] left.
pub(super) fn seal<M: Machine>(
    machine: &mut M,
    held: &mut [u8],
    plaintext: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), TlsError> {
    let records = plaintext.len() / RECORD_PLAIN_MAX + 1;
    let room = plaintext.len() + records * RECORD_OVERHEAD + KEY_UPDATE_ROOM;
    write(machine, held, room, out, |traffic, room| traffic.encrypt(plaintext, room))
}

/// Appends close_notify to `out`.
pub(super) fn close_notify<M: Machine>(
    machine: &mut M,
    held: &mut [u8],
    out: &mut Vec<u8>,
) -> Result<(), TlsError> {
    let room = RECORD_OVERHEAD + 2 + KEY_UPDATE_ROOM;
    write(machine, held, room, out, |traffic, room| traffic.queue_close_notify(room))
}

/// Reaches the state in which application data may be written, and lets `put` write with `room`
/// bytes at first, then with what it asks for.
fn write<M: Machine>(
    machine: &mut M,
    held: &mut [u8],
    mut room: usize,
    out: &mut Vec<u8>,
    mut put: impl FnMut(&mut WriteTraffic<'_, M::Data>, &mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), TlsError> {
    loop {
        // The held bytes and not an empty slice: of a handshake message that is still incomplete
        // the machine remembers where it lies in them.
        match machine.process(held).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let start = out.len();
                loop {
                    out.resize(start + room, 0);
                    match put(&mut traffic, &mut out[start..]) {
                        Ok(written) => {
                            out.truncate(start + written);
                            return Ok(());
                        }
                        Err(EncryptError::InsufficientSize(size)) => room = size.required_size,
                        Err(EncryptError::EncryptExhausted) => {
                            out.truncate(start);
                            return Err(TlsError::Exhausted);
                        }
                    }
                }
            }
            Ok(ConnectionState::EncodeTlsData(record)) => encode(record, out),
            Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
            Ok(ConnectionState::PeerClosed) => {}
            Ok(ConnectionState::Closed) => return Err(TlsError::Closed),
            Ok(_) => return Err(TlsError::Handshaking),
            Err(error) => return Err(TlsError::from(&error)),
        }
    }
}

/// Appends one record. The first try has no room at all, and learns how much it takes.
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
