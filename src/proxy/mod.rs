//! L3: proxy behaviour (RFC 3261 §16), one file a section.
