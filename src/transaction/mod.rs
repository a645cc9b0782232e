//! L2: the four transaction machines (RFC 3261 §17, RFC 6026).
