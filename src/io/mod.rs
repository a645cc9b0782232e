//! L5: sockets, threads, clocks, TLS. The only folder with I/O, async or unsafe.

pub mod config_file;
pub mod log;
pub mod secret;
pub mod tls;
