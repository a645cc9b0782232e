//! The kinds of load, one a file.

pub mod apart;
pub mod ask;
pub mod call;
pub mod handshake;
pub mod idle;
pub mod register;
pub mod relay;
pub mod run;
pub mod sdp;
pub mod storm;
