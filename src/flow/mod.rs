//! L2: flows: table, layers between plaintext and SIP, keep-alive, tokens (RFC 3261 §18, RFC 5626).

pub mod token;
