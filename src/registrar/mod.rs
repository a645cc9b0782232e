//! L2: registrar and location (RFC 3261 §10).
