//! L5: sockets, threads, clocks, TLS. The only folder with I/O, async or unsafe.

pub mod tls;
