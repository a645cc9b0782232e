//! L2: who is that (RFC 3261 §22, RFC 7616, RFC 8760)? [`credentials`] reads what a client shows,
//! [`digest`] computes what it should have shown, [`nonce`] makes what it must answer to and
//! remembers what was answered, [`users`] reads the file of passwords, [`ticket`] makes those that
//! are in no file, [`Verifier`] puts them together. Tokens (RFC 8898): [`bearer`] finds them,
//! [`jwt`] reads one, [`jwks`] the file of keys that may sign it, [`Tokens`] remembers it. Absent on
//! purpose: what an identity permits (the proxy decides), and any I/O.

pub mod bearer;
pub mod credentials;
pub mod digest;
#[doc(hidden)]
pub mod fuzz;
pub mod jwks;
pub mod jwt;
pub mod nonce;
pub mod ticket;
pub mod tokens;
pub mod users;
pub mod verify;

pub use credentials::Credentials;
pub use tokens::{Bearing, Tokens};
pub use verify::{Challenge, Circumstances, Verdict, Verifier, is_for_us};
