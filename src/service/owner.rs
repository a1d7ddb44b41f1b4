//! Name to owning shard: the only place that hashes.
//!
//! Invariant: the answer depends on the name, the number of shards and the data directory's hash alone, so every
//! shard asks the same owner. Lives on: any shard.

use super::stream::Keeper;
use crate::runtime::ShardId;
use crate::storage::{KeyRef, Store};

/// The spaces of names in the store; a number here is on disk and never means something else.
pub mod space {
    use crate::storage::{COMPANION, GROUPED};

    /// Streams.
    pub const STREAMS: u8 = 1;
    // 2 is the store's own.
    /// Containers.
    pub const CONTAINERS: u8 = 3;
    /// Blobs.
    pub const BLOBS: u8 = 4;
    /// Multipart uploads, where their blob's name is.
    pub const UPLOADS: u8 = COMPANION + BLOBS;
    /// Parts of them, there too.
    pub const PARTS: u8 = 2 * COMPANION + BLOBS;
    /// Blobs of modules, each module's in a group.
    pub const MODULE_BLOBS: u8 = GROUPED;
    /// Blobs of modules that are to be committed.
    pub const STAGED: u8 = GROUPED + 1;
    /// The document of a module.
    pub const DOCUMENTS: u8 = GROUPED + 2;
    /// Events of modules on their way into their stream.
    pub const OUTBOX: u8 = GROUPED + 3;
    /// Keys of requests of modules that were answered.
    pub const KEYS: u8 = GROUPED + 4;
    /// Modules that were registered.
    pub const MODULES: u8 = GROUPED + 5;
    /// Those whose names stand for bytes, which may lie in packs.
    pub const OF_BLOBS: [u8; 5] = [BLOBS, PARTS, MODULE_BLOBS, STAGED, DOCUMENTS];
}

/// The part of its space that `key` is counted in: streams by who keeps them.
pub fn part_of(key: KeyRef<'_>) -> u8 {
    if key.space == space::STREAMS { Keeper::of_bytes(key.bytes) as u8 } else { 0 }
}

/// The shard that decides about `key`.
pub fn of<'k>(store: &Store, key: impl Into<KeyRef<'k>>) -> ShardId {
    store.owner_of_hash(key.into().hash())
}

/// The shard that decides about a topic: topics are in no store, so its hash is not asked.
pub fn of_topic(topic: &str, shards: usize) -> ShardId {
    let hash = xxhash_rust::xxh3::xxh3_64(topic.as_bytes());
    ShardId(((u128::from(hash) * shards as u128) >> 64) as u16)
}
