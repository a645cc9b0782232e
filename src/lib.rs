//! sipring: a SIP/WebSocket edge proxy and registrar for Linux, on io_uring.
//!
//! Rooms, from the bottom: `base` (values), `sip` and `ws` (codecs), `flow`, `transaction`,
//! `registrar`, `auth` (state machines), `proxy` (RFC 3261 §16), `engine` (one shard's protocol, no
//! I/O), `io` and `admin` (the world). Imports go downward only; `tests/tidy` enforces it.

pub mod admin;
pub mod auth;
pub mod base;
pub mod engine;
pub mod flow;
pub mod io;
pub mod proxy;
pub mod registrar;
pub mod sip;
pub mod transaction;
pub mod ws;
