//! Where a name belongs: the hash that is fixed for the life of a data directory.
//!
//! Invariant: the hash never changes, its name stands in `FORMAT`; only the number of shards does.
//! Lives on: any thread.

use crate::runtime::ShardId;
use std::fmt;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// The hash's name as written in `FORMAT`.
pub const HASH_NAME: &str = "xxh3-64";

/// A name as the store keeps it: the space of its service and the bytes that are unique within. Ordered by
/// space, then by bytes, so that one prefix is one range.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    /// Which service's names.
    pub space: u8,
    /// The name within, at most [`Key::BYTES_MAX`] long. Copies share it.
    pub bytes: Arc<[u8]>,
}

impl Key {
    /// The longest name.
    pub const BYTES_MAX: usize = 4096;

    /// A name. Panics when it is too long: the service checks what users send.
    pub fn new(space: u8, bytes: &[u8]) -> Self {
        assert!(bytes.len() <= Self::BYTES_MAX, "a key is at most {} bytes long", Self::BYTES_MAX);
        Key { space, bytes: bytes.into() }
    }

    /// Its placement hash.
    pub fn hash(&self) -> u64 {
        placement_hash(self.space, &self.bytes)
    }

    /// The name as whoever has its bytes elsewhere knows it.
    pub fn as_ref(&self) -> KeyRef<'_> {
        KeyRef { space: self.space, bytes: &self.bytes }
    }
}

/// A name whose bytes are somebody else's. In the same order as [`Key`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRef<'a> {
    /// Which service's names.
    pub space: u8,
    /// The name within, at most [`Key::BYTES_MAX`] long.
    pub bytes: &'a [u8],
}

impl<'a> KeyRef<'a> {
    /// The name with bytes of its own.
    pub fn to_key(self) -> Key {
        Key::new(self.space, self.bytes)
    }

    /// Its placement hash.
    pub fn hash(self) -> u64 {
        placement_hash(self.space, self.bytes)
    }

    /// What all names of its group begin with; `None` for a name of no group.
    pub(super) fn group(self) -> Option<&'a [u8]> {
        (GROUPED..COMPANION).contains(&self.space).then(|| group_in(self.bytes))
    }

    /// Whether no other name has this placement hash, but by chance: what is said of the hash is said of the name.
    pub(super) fn is_alone(self) -> bool {
        self.space < GROUPED
    }
}

impl<'a> From<&'a Key> for KeyRef<'a> {
    fn from(key: &'a Key) -> Self {
        key.as_ref()
    }
}

impl fmt::Debug for KeyRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:\"{}\"", self.space, self.bytes.escape_ascii())
    }
}

/// Spaces from here to [`COMPANION`] are of groups: what is before the first NUL of a name is its group, and all names of
/// a group, of whichever of these spaces, belong to one owner. So one record can change several of them, and one shard
/// lists them. A lost record costs its group.
pub const GROUPED: u8 = 32;

/// Spaces from here on are of companions: names that belong to the owner of another one, which is a name of the space
/// with the lower number. A companion's bytes are that name's, then its own, then in one byte how many are its own,
/// that byte included.
pub const COMPANION: u8 = 64;

/// The hash that places a name.
pub fn placement_hash(space: u8, key: &[u8]) -> u64 {
    let (space, key) = match key.last() {
        Some(&own) if space >= COMPANION => {
            (space % COMPANION, &key[..key.len().saturating_sub(usize::from(own))])
        }
        _ if space >= GROUPED => (GROUPED, group_in(key)),
        _ => (space, key),
    };
    let mut hasher = Xxh3::new();
    hasher.update(&[space]);
    hasher.update(key);
    hasher.digest()
}

/// What the names of a group begin with, out of one of them.
fn group_in(name: &[u8]) -> &[u8] {
    memchr::memchr(0, name).map_or(name, |end| &name[..end])
}

/// Which of `shards` shards decides over names with this hash.
pub fn owner_of(hash: u64, shards: usize) -> ShardId {
    debug_assert!((1..=usize::from(u16::MAX)).contains(&shards));
    // Multiply-shift instead of a remainder: as even, and without a division.
    ShardId(((u128::from(hash) * shards as u128) >> 64) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches any change of the hash: every data directory in the field depends on these numbers.
    #[test]
    fn the_hash_is_what_it_was() {
        assert_eq!(placement_hash(1, b""), xxhash_rust::xxh3::xxh3_64(&[1]));
        assert_eq!(placement_hash(1, b"build-42"), xxhash_rust::xxh3::xxh3_64(b"\x01build-42"));
    }

    #[test]
    fn a_companion_is_where_the_name_is() {
        let name = placement_hash(4, b"photos\0cat");
        assert_eq!(placement_hash(COMPANION + 4, b"photos\0catxyz\x04"), name);
        assert_eq!(placement_hash(2 * COMPANION + 4, b"photos\0cat\x01"), name);
        assert_ne!(placement_hash(4, b"photos\0catxyz\x04"), name);
        assert_eq!(placement_hash(COMPANION, b"\xff"), placement_hash(0, b""), "a wrong length is no panic");
    }

    #[test]
    fn a_group_is_in_one_place() {
        let group = placement_hash(GROUPED, b"event-1\0a");
        assert_eq!(placement_hash(GROUPED + 5, b"event-1\0b\0c"), group);
        assert_eq!(placement_hash(GROUPED, b"event-1"), group);
        assert_ne!(placement_hash(GROUPED, b"event-2\0a"), group);
        assert_ne!(placement_hash(GROUPED - 1, b"event-1\0a"), placement_hash(GROUPED - 1, b"event-1\0b"));
    }

    #[test]
    fn every_shard_owns_about_its_share() {
        let mut counts = [0u32; 3];
        for number in 0..3000u32 {
            counts[owner_of(placement_hash(0, &number.to_le_bytes()), 3).index()] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
