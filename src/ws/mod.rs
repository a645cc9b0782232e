//! L1: WebSocket: upgrade and frames (RFC 6455, RFC 7118). Bytes in, bytes out; no I/O.

pub mod assemble;
pub mod frame;
#[doc(hidden)]
pub mod fuzz;
pub mod handshake;
pub mod mask;
