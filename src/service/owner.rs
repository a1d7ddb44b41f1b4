//! Name to owning shard: the only place that hashes.
//!
//! Invariant: the answer depends on the name, the number of shards and the data directory's hash alone, so every
//! shard asks the same owner. Lives on: any shard.

use crate::runtime::ShardId;
use crate::storage::{Key, Store};

/// The spaces of names in the store; a number here is on disk and never means something else.
pub mod space {
    /// Streams.
    pub const STREAMS: u8 = 1;
}

/// The shard that decides about `key`.
pub fn of(store: &Store, key: &Key) -> ShardId {
    store.owner_of_hash(key.hash())
}
