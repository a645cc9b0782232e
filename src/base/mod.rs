//! L0: values without protocol. Time, names, limits, counters, buffers, timers. Knows nothing of
//! SIP, sockets or clocks.

pub mod allowance;
pub mod bearer;
pub mod buf;
pub mod choices;
pub mod config;
pub mod decimal;
pub mod event;
pub mod hash;
pub mod host;
pub mod id;
pub mod identity;
pub mod limits;
pub mod metrics;
pub mod rng;
pub mod slab;
pub mod time;
pub mod trail;
pub mod users;
pub mod wheel;
