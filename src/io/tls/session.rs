//! One TLS session of one flow (RFC 8446, RFC 5246), as server or client. Bytes of a record that
//! has not arrived whole wait in a block that the session borrows from its shard, so that an idle
//! session holds none.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{CommonState, HandshakeKind, ProtocolVersion};

use super::machine::{self, Machine, Rest};
use super::{Progress, TlsError};
use crate::base::limits::{TLS_BLOCK_KEPT_BYTES_MAX, TLS_BLOCKS_KEPT, TLS_HELD_BYTES_MAX};

/// Bytes of a record's header (RFC 8446 §5.1).
const RECORD_HEADER_BYTES: usize = 5;

/// A TLS session. Events: [`Session::start`], [`Session::receive`], [`Session::seal`],
/// [`Session::close_notify`]; each appends the bytes to send to `out`, in the order in which they
/// must leave.
pub struct Session {
    peer: Peer,
    /// A prefix of what the peer sends next; empty between records.
    pub(super) held: Vec<u8>,
    /// What the client's server_name extension said (RFC 6066 §3).
    sni: Option<Box<str>>,
    state: State,
    shared: Rc<Shared>,
}

enum Peer {
    Client(Box<UnbufferedServerConnection>),
    Server(Box<UnbufferedClientConnection>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The peer will send no more; we may.
    PeerClosed,
    /// We have sent close_notify.
    Closed,
    Failed(TlsError),
}

/// What the sessions of one shard have in common.
#[derive(Default)]
pub(super) struct Shared {
    /// Where plaintext is handed out; taken while a session uses it.
    scratch: Cell<Vec<u8>>,
    blocks: RefCell<Vec<Vec<u8>>>,
    /// How the certificate resolver, which rustls calls, tells the session that is running what the
    /// client asked for. Only this shard's thread takes the lock, so it is never contended.
    pub(super) sni: Arc<Mutex<Option<Box<str>>>>,
}

/// Calls `$call` with the rustls connection, whichever it is.
macro_rules! with_machine {
    ($peer:expr, $machine:ident => $call:expr) => {
        match $peer {
            Peer::Client($machine) => $call,
            Peer::Server($machine) => $call,
        }
    };
}

impl Session {
    pub(super) fn server(connection: UnbufferedServerConnection, shared: Rc<Shared>) -> Session {
        Session::new(Peer::Client(Box::new(connection)), shared)
    }

    pub(super) fn client(connection: UnbufferedClientConnection, shared: Rc<Shared>) -> Session {
        Session::new(Peer::Server(Box::new(connection)), shared)
    }

    fn new(peer: Peer, shared: Rc<Shared>) -> Session {
        Session { peer, held: Vec::new(), sni: None, state: State::Open, shared }
    }

    /// Feeds bytes that arrived, which are decrypted in place. Each record's plaintext is handed to
    /// `plain`, in a buffer that may be changed and is used again for the next record. Handshake
    /// messages, alerts, tickets and answers are appended to `out`; send them also when the session
    /// failed. Whatever follows a failure or the peer's close_notify is ignored.
    pub fn receive(
        &mut self,
        bytes: &mut [u8],
        out: &mut Vec<u8>,
        plain: &mut dyn FnMut(&mut [u8]),
    ) -> Progress {
        let mut scratch = self.shared.scratch.take();
        let mut rest = bytes;
        while self.state == State::Open && !rest.is_empty() {
            rest = if self.held.is_empty() {
                self.receive_in_place(rest, &mut scratch, out, plain)
            } else {
                self.receive_held(rest, &mut scratch, out, plain)
            };
        }
        self.shared.scratch.set(scratch);
        self.progress()
    }

    /// Client side: appends the first flight. Does nothing later, and nothing on the server side.
    pub fn start(&mut self, out: &mut Vec<u8>) -> Progress {
        if self.state == State::Open && self.held.is_empty() {
            self.run(&mut [], &mut Vec::new(), out, &mut |_| {});
        }
        self.progress()
    }

    /// Encrypts `plaintext`, of any length, into as many records as it takes, and appends them to
    /// `out`.
    ///
    /// # Errors
    /// [`TlsError::Handshaking`] before the session is established, [`TlsError::Closed`] after
    /// [`Session::close_notify`], the session's own error after it failed. Nothing of `plaintext`
    /// is sent then.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        match self.state {
            State::Failed(error) => return Err(error),
            State::Closed => return Err(TlsError::Closed),
            State::Open | State::PeerClosed if self.is_handshaking() => {
                return Err(TlsError::Handshaking);
            }
            State::Open | State::PeerClosed => {}
        }
        let held = &mut self.held;
        let sealed =
            with_machine!(&mut self.peer, m => machine::seal(&mut **m, held, plaintext, out));
        if let Err(error) = sealed {
            self.fail(error, out);
        }
        sealed
    }

    /// Appends close_notify (RFC 8446 §6.1), once; nothing can be sealed or received after it. A
    /// session that is still handshaking or has failed sends none.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) {
        if !matches!(self.state, State::Open | State::PeerClosed) {
            return;
        }
        if !self.is_handshaking() {
            let held = &mut self.held;
            // A refusal means that the keys are exhausted: then there is no way to say goodbye.
            let _ = with_machine!(&mut self.peer, m => machine::close_notify(&mut **m, held, out));
        }
        self.state = State::Closed;
        self.release();
    }

    /// Whether application data cannot flow yet.
    pub fn is_handshaking(&self) -> bool {
        self.common().is_handshaking()
    }

    /// Server side: the name that the client asked for, lower case, as soon as its ClientHello has
    /// arrived.
    pub fn sni(&self) -> Option<&str> {
        self.sni.as_deref()
    }

    /// Whether an earlier session was resumed (RFC 8446 §2.2, RFC 5077); known once established.
    pub fn is_resumed(&self) -> bool {
        self.common().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// `TLSv1.2` or `TLSv1.3`, as soon as it is agreed.
    pub fn version(&self) -> Option<&'static str> {
        match self.common().protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            _ => None,
        }
    }

    /// Bytes held of a record or handshake message that has not arrived whole; 0 between records.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    fn common(&self) -> &CommonState {
        with_machine!(&self.peer, m => m.common())
    }

    fn progress(&self) -> Progress {
        match self.state {
            State::Failed(error) => Progress::Failed(error),
            State::PeerClosed | State::Closed => Progress::PeerClosed,
            State::Open if self.is_handshaking() => Progress::Handshaking,
            State::Open => Progress::Established,
        }
    }

    /// Processes what lies in the caller's buffer and holds back what is incomplete.
    fn receive_in_place<'b>(
        &mut self,
        bytes: &'b mut [u8],
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
        plain: &mut dyn FnMut(&mut [u8]),
    ) -> &'b mut [u8] {
        let used = self.run(bytes, scratch, out, plain);
        let rest = &mut bytes[used..];
        if self.state != State::Open || rest.is_empty() {
            return &mut [];
        }
        let fits = rest.len().min(TLS_HELD_BYTES_MAX);
        self.held = self.shared.take_block();
        self.held.extend_from_slice(&rest[..fits]);
        &mut rest[fits..]
    }

    /// Adds just what completes the held record, and processes that.
    fn receive_held<'b>(
        &mut self,
        bytes: &'b mut [u8],
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
        plain: &mut dyn FnMut(&mut [u8]),
    ) -> &'b mut [u8] {
        let wanted = missing(&self.held).unwrap_or(bytes.len());
        let fits = wanted.min(bytes.len()).min(TLS_HELD_BYTES_MAX - self.held.len());
        if fits == 0 {
            self.fail(TlsError::TooLarge, out);
            return &mut [];
        }
        let (now, rest) = bytes.split_at_mut(fits);
        self.held.extend_from_slice(now);
        // A header alone lets rustls refuse what is no TLS; any other part of a record tells it
        // nothing.
        if missing(&self.held).is_some() && self.held.len() != RECORD_HEADER_BYTES {
            return rest;
        }
        let mut held = std::mem::take(&mut self.held);
        let used = self.run(&mut held, scratch, out, plain);
        held.drain(..used.min(held.len()));
        self.held = held;
        if self.held.is_empty() || self.state != State::Open {
            self.release();
        }
        rest
    }

    /// Runs rustls over `tls`, follows what it found, and says how many bytes are done with.
    fn run(
        &mut self,
        tls: &mut [u8],
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
        plain: &mut dyn FnMut(&mut [u8]),
    ) -> usize {
        let handshaking = self.is_handshaking();
        let ran =
            with_machine!(&mut self.peer, m => machine::run(&mut **m, tls, scratch, out, plain));
        if handshaking && let Peer::Client(_) = self.peer {
            let asked = self.shared.sni.lock().unwrap_or_else(PoisonError::into_inner).take();
            // A second ClientHello (RFC 8446 §4.1.2) asks for the same name.
            self.sni = asked.or(self.sni.take());
        }
        match ran {
            Ok(Rest { used, peer_closed }) => {
                if peer_closed {
                    self.state = State::PeerClosed;
                }
                used
            }
            Err(error) => {
                self.fail(TlsError::from(&error), out);
                tls.len()
            }
        }
    }

    /// Latches `error`, and sends the alert that goes with it if rustls has one.
    fn fail(&mut self, error: TlsError, out: &mut Vec<u8>) {
        self.state = State::Failed(error);
        with_machine!(&mut self.peer, m => machine::drain(&mut **m, out));
        self.release();
    }

    /// Gives the block back.
    fn release(&mut self) {
        self.shared.give_block(std::mem::take(&mut self.held));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.release();
    }
}

impl Shared {
    fn take_block(&self) -> Vec<u8> {
        self.blocks.borrow_mut().pop().unwrap_or_default()
    }

    fn give_block(&self, mut block: Vec<u8>) {
        let mut blocks = self.blocks.borrow_mut();
        if (1..=TLS_BLOCK_KEPT_BYTES_MAX).contains(&block.capacity())
            && blocks.len() < TLS_BLOCKS_KEPT
        {
            block.clear();
            blocks.push(block);
        }
    }
}

/// Bytes that the record at the front of `held` lacks. `None` when it is whole: then rustls keeps
/// it because the handshake message in it goes on in the next record.
fn missing(held: &[u8]) -> Option<usize> {
    let Some(&[high, low]) = held.get(3..RECORD_HEADER_BYTES) else {
        return Some(RECORD_HEADER_BYTES - held.len());
    };
    let whole = RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
    match whole.saturating_sub(held.len()) {
        0 => None,
        lacking => Some(lacking),
    }
}

const _: () = {
    assert!(size_of::<Session>() <= 72);
    // The largest record fits, so that a flow with whole records always makes progress.
    assert!(TLS_HELD_BYTES_MAX > RECORD_HEADER_BYTES + (1 << 14) + 2048);
};
