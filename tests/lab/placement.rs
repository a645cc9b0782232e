//! Which shard has what of a client.

use sipring::base::hash::{KeyedHash, derive_key};
use sipring::proxy::place::owner_of;

use super::SECRET;

/// The shard that owns an address of record.
pub fn owner(aor: &str, shards: u16) -> u16 {
    let placement = KeyedHash::new(derive_key(&SECRET, "placement"));
    owner_of(&placement, aor.as_bytes(), shards).0
}

/// The `n`th user of the domain that this shard owns.
pub fn user_of(owner: u16, shards: u16, n: usize) -> String {
    (0..)
        .map(|n| format!("user{n}"))
        .filter(|user| self::owner(&format!("{user}@example.com"), shards) == owner)
        .nth(n)
        .expect("every shard owns somebody")
}

/// Where everything about one client stands.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    pub shards: u16,
    /// The shard that has the client's flow.
    pub flow: u16,
    /// The shard that owns its address of record.
    pub owner: u16,
    /// The shard that receives what is sent to it.
    pub arrival: u16,
}

/// Every placement on one to three shards.
pub fn placements() -> impl Iterator<Item = Placement> {
    (1..=3u16).flat_map(|shards| {
        (0..shards.pow(3)).map(move |n| Placement {
            shards,
            flow: n % shards,
            owner: n / shards % shards,
            arrival: n / shards / shards,
        })
    })
}
