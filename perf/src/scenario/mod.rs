//! The kinds of load, one a file.

pub mod relay;
pub mod run;
