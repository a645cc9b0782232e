//! What the end-to-end tests are made of: the program under test as a child process, and clients
//! that share no code with it.

pub mod call;
pub mod certificates;
pub mod check;
pub mod digest;
pub mod link;
pub mod log;
pub mod phone;
pub mod raw;
pub mod registrar;
pub mod server;
pub mod setup;
pub mod sip;

pub use call::{Dialog, call};
pub use check::{fence, forwarded, returned, still};
pub use link::{Incoming, Transport};
pub use phone::Phone;
pub use server::Server;
pub use setup::Setup;
pub use sip::{Draft, Message};
