//! L1: WebSocket: upgrade and frames (RFC 6455, RFC 7118). Bytes in, bytes out; no I/O.
