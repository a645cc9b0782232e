//! A client loses its connection and comes back on another: its calls follow it, over real sockets,
//! and nobody else gets anything of them. `tests/reconnect` has the same without sockets, with what
//! only virtual time can show.

mod client;
mod edge;
mod impostors;
mod matrix;
mod memory;
mod pending;
mod restarts;
mod silence;
mod talk;
