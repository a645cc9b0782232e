//! L1: SIP messages: parse, edit, build (RFC 3261 §7, §19, §20, §25). Bytes in, spans out; no I/O, no state.
