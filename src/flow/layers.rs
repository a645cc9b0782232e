//! What is between the plaintext of a flow and its SIP messages: nothing but framing on TCP and TLS
//! (RFC 3261 §18.3), an upgrade and then frames on WebSocket (RFC 7118). Holds bytes only while a
//! message is unfinished.

use crate::base::buf::Pool;
use crate::base::id::Transport;
use crate::sip::frame::Scan;
use crate::ws::assemble::Receiver;
use crate::ws::frame::write_message;

/// The layers of one flow.
pub enum Layer {
    /// Waiting for the whole upgrade request; what came of it.
    Upgrade(Vec<u8>),
    /// WebSocket frames. Messages go out as the client sends them: text or binary.
    WebSocket {
        /// What came of frames and fragments.
        receiver: Receiver,
        /// The client's last message was text; browsers' libraries drop what they do not send.
        text: bool,
    },
    /// A plain stream of messages.
    Stream {
        /// How far the unfinished message was looked through.
        scan: Scan,
        /// The unfinished message.
        held: Vec<u8>,
    },
    /// Lent out while its bytes are being handled.
    Lent {
        /// As in [`Layer::WebSocket`]; `None` on a plain stream, or before the upgrade.
        text: Option<bool>,
        /// Whether messages can be written.
        open: bool,
    },
}

impl Layer {
    /// The first layer of a flow.
    pub fn of(transport: Transport, accepted: bool) -> Layer {
        if transport.is_websocket() && accepted {
            Layer::Upgrade(Vec::new())
        } else {
            Layer::Stream { scan: Scan::default(), held: Vec::new() }
        }
    }

    /// Lends the layer out: what stays in place can still wrap messages.
    pub fn lend(&mut self) -> Layer {
        let stand_in = match self {
            Layer::Upgrade(_) => Layer::Lent { text: None, open: false },
            Layer::WebSocket { text, .. } => Layer::Lent { text: Some(*text), open: true },
            Layer::Stream { .. } => Layer::Lent { text: None, open: true },
            Layer::Lent { text, open } => Layer::Lent { text: *text, open: *open },
        };
        std::mem::replace(self, stand_in)
    }

    /// Appends a SIP message as it stands on the wire. False when the flow takes none yet.
    pub fn wrap(&self, message: &[u8], out: &mut Vec<u8>) -> bool {
        match self {
            Layer::WebSocket { text, .. } | Layer::Lent { text: Some(text), open: true } => {
                write_message(out, *text, message);
            }
            Layer::Stream { .. } | Layer::Lent { text: None, open: true } => {
                out.extend_from_slice(message);
            }
            Layer::Upgrade(_) | Layer::Lent { open: false, .. } => return false,
        }
        true
    }

    /// Whether messages may pass: a WebSocket flow does not begin with them.
    pub fn is_open(&self) -> bool {
        !matches!(self, Layer::Upgrade(_) | Layer::Lent { open: false, .. })
    }

    /// Whether a message, or the upgrade, has begun and is not whole.
    pub fn is_partial(&self) -> bool {
        match self {
            Layer::Upgrade(held) | Layer::Stream { held, .. } => !held.is_empty(),
            Layer::WebSocket { receiver, .. } => receiver.is_partial(),
            Layer::Lent { .. } => false,
        }
    }

    /// Gives its storage back when the flow ends.
    pub fn release(self, pool: &mut Pool) {
        match self {
            Layer::Upgrade(held) | Layer::Stream { held, .. } => pool.put(held),
            Layer::WebSocket { mut receiver, .. } => receiver.release(pool),
            Layer::Lent { .. } => {}
        }
    }
}
