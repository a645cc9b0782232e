//! L1: SIP messages: parse, edit, build (RFC 3261 §7, §19, §20, §25). Bytes in, spans out; no I/O,
//! no state.
//!
//! A message is one buffer and a [`Parsed`] index of it; [`Message`] joins the two. [`parse`]
//! checks the shape of the whole (start line, lines, what must be there once, numbers); the grammar
//! of Via, From, To, Contact and URIs is read when somebody asks, or at once by [`Message::check`].
//! What leaves is either the original bytes with [`Edits`], or built from its parts ([`response`],
//! [`ack`], [`cancel`]). Absent on purpose: SDP, MIME, dialogs, transactions.

pub mod address;
mod body;
pub mod build;
mod check;
mod cursor;
pub mod edit;
pub mod errors;
pub mod frame;
#[doc(hidden)]
pub mod fuzz;
mod grammar;
pub mod header;
mod lines;
pub mod message;
pub mod method;
mod noted;
mod param;
pub mod parse;
mod start_line;
pub mod status;
mod top_via;
#[cfg(test)]
mod torture;
pub mod uri;
mod uri_compare;
pub mod values;
pub mod via;

pub use address::NameAddr;
pub use body::{datagram_body, looks_like_sip, websocket_body};
pub use build::{ResponseParts, ViaParams, ack, cancel, response, response_room, way_of};
pub use edit::Edits;
pub use errors::{ParseError, ParseErrorKind};
pub use frame::{Frame, FrameError, Scan, next};
pub use header::HeaderName;
pub use message::{CSeq, Header, Message, Parsed, PreviousHop, Span};
pub use method::Method;
pub use param::Params;
pub use parse::parse;
pub use status::reason_phrase;
pub use uri::{Scheme, Uri, UriParams, unescape_into};
pub use values::{Value, Values, split_first};
pub use via::{Via, has_magic_cookie};
