//! How much there is: the names of each space and their bytes, over all shards.
//!
//! Invariant: a name counts from the decision that puts it until its deletion is committed. So the count never shows
//! room that a failed sync could take away again, and whoever was told of a deletion finds its room. A byte counts
//! from its write until the record that supersedes or trims it is durable, which is when its space is dead.
//! Lives on: one `Arc`, shared by all shards. Counts order nothing, so all of it is relaxed.

use super::names::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
pub struct Tally {
    /// By the number of the space.
    spaces: Box<[Count]>,
}

#[derive(Default)]
struct Count {
    names: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    /// Nothing yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Tally { spaces: (0..=u8::MAX).map(|_| Count::default()).collect() })
    }

    /// How many names `space` has.
    pub fn names(&self, space: u8) -> u64 {
        self.of(space).names.load(Ordering::Relaxed)
    }

    /// How many bytes the names of `space` have.
    pub fn bytes(&self, space: u8) -> u64 {
        self.of(space).bytes.load(Ordering::Relaxed)
    }

    /// For recovery: a name that stands, with all its bytes.
    pub(super) fn count(&self, entry: &Entry) {
        let bytes = entry.tail.stored();
        self.take_name(entry.key().space, u64::MAX);
        self.add_bytes(entry.key().space, bytes);
        entry.tail.note_counted(bytes);
    }

    /// For recovery: takes [`Tally::count`] back.
    pub(super) fn uncount(&self, entry: &Entry) {
        self.give_name(entry.key().space);
        self.take_bytes(entry.key().space, entry.tail.take_counted());
    }

    /// For recovery: as many names with as many bytes, which their streams have noted.
    pub(super) fn count_all(&self, space: u8, names: u64, bytes: u64) {
        self.of(space).names.fetch_add(names, Ordering::Relaxed);
        self.add_bytes(space, bytes);
    }

    pub(super) fn add_bytes(&self, space: u8, count: u64) {
        self.of(space).bytes.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn take_bytes(&self, space: u8, count: u64) {
        let before = self.of(space).bytes.fetch_sub(count, Ordering::Relaxed);
        debug_assert!(before >= count, "only what was counted is taken off");
    }

    /// Takes room for one more name unless there are `max`. In one step, so that no two takers share the last room.
    pub(super) fn take_name(&self, space: u8, max: u64) -> bool {
        let more = |count| if count < max { Some(count + 1) } else { None };
        self.of(space).names.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Gives back what [`Tally::take_name`] took.
    pub(super) fn give_name(&self, space: u8) {
        let before = self.of(space).names.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "only what was taken is given back");
    }

    fn of(&self, space: u8) -> &Count {
        &self.spaces[usize::from(space)]
    }
}
