//! L2: flows: their table, the layers between plaintext and SIP, tokens (RFC 3261 §18, RFC 5626).
//! Keep-alive alarms are decided here by values and set by the engine.

pub mod arrival;
#[doc(hidden)]
pub mod fuzz;
pub mod keepalive;
pub mod layers;
pub mod lines;
pub mod sources;
pub mod stun;
pub mod table;
pub mod token;
pub mod vouched;
