//! L2: authentication (RFC 8760): its place; nothing is checked yet.
