//! L3: proxy behaviour (RFC 3261 §16), one file a section: names and placement of a request,
//! validation (§16.3), route pre-processing (§16.4), targets (§16.5), forwarding (§16.6) and how wide
//! (RFC 5393), responses (§16.7), and who may say what (§22, RFC 3325). All of it decides and edits;
//! nothing here sends, waits or remembers. Relaying to foreign hosts is absent.

pub mod admission;
pub mod branch;
pub mod breadth;
pub mod context;
pub mod forward;
pub mod identity;
pub mod naming;
pub mod place;
pub mod received;
pub mod renew;
pub mod response;
pub mod route;
pub mod source;
pub mod target;
pub mod upstream;
pub mod validate;

pub use validate::Reject;
