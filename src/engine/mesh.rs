//! What shards say to each other.

/// One message between shards.
#[derive(Debug)]
pub enum LinkMessage {
    /// Nothing yet.
    Placeholder,
}

impl LinkMessage {
    /// Whether it is new work, which may be refused when its lane is full; all else is duty and never lost.
    pub fn is_work(&self) -> bool {
        false
    }
}
