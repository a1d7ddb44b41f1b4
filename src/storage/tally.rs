//! How much there is: the names of each space and their bytes, over all shards. A service may have some names of a
//! space counted apart, in a part of it; those of a space that has no parts are in part 0.
//!
//! Invariant: a name counts from the decision that puts it until its deletion is committed. So the count never shows
//! room that a failed sync could take away again, and whoever was told of a deletion finds its room. A byte counts
//! from its write until the record that supersedes or trims it is durable, which is when its space is dead.
//! Lives on: one `Arc`, shared by all shards. Counts order nothing, so all of it is relaxed.

use super::names::Entry;
use super::placement::KeyRef;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
pub struct Tally {
    counts: Box<[Count]>,
    part_of: PartOf,
}

/// Which part of its space a name is counted in, below 4. A name's part is always the same.
pub type PartOf = fn(KeyRef<'_>) -> u8;

/// The most parts of a space.
const PARTS_MAX: u8 = 4;

/// A space, or a part of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Slot(u16);

impl Slot {
    fn of(space: u8, part: u8) -> Self {
        assert!(part < PARTS_MAX, "a space has at most {PARTS_MAX} parts");
        Slot(u16::from(part) << 8 | u16::from(space))
    }

    /// The space that this is, or is a part of.
    pub(super) fn space(self) -> u8 {
        self.0.to_le_bytes()[0]
    }
}

#[derive(Default)]
struct Count {
    names: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    /// Nothing yet.
    pub(super) fn new(part_of: PartOf) -> Arc<Self> {
        let counts = (0..u16::from(PARTS_MAX) << 8).map(|_| Count::default()).collect();
        Arc::new(Tally { counts, part_of })
    }

    /// How many names this part of `space` has.
    pub fn names(&self, space: u8, part: u8) -> u64 {
        self.of(Slot::of(space, part)).names.load(Ordering::Relaxed)
    }

    /// How many bytes the names of this part of `space` have.
    pub fn bytes(&self, space: u8, part: u8) -> u64 {
        self.of(Slot::of(space, part)).bytes.load(Ordering::Relaxed)
    }

    /// Where a name counts.
    pub(super) fn slot(&self, key: KeyRef<'_>) -> Slot {
        Slot::of(key.space, (self.part_of)(key))
    }

    /// For recovery: a name that stands, with all its bytes.
    pub(super) fn count(&self, entry: &Entry) {
        let bytes = entry.tail.stored();
        self.take_name(entry.tail.slot(), u64::MAX);
        self.add_bytes(entry.tail.slot(), bytes);
        entry.tail.note_counted(bytes);
    }

    /// For recovery: takes [`Tally::count`] back.
    pub(super) fn uncount(&self, entry: &Entry) {
        self.give_name(entry.tail.slot());
        self.take_bytes(entry.tail.slot(), entry.tail.take_counted());
    }

    /// For recovery: as many names with as many bytes, which their streams have noted.
    pub(super) fn count_all(&self, slot: Slot, names: u64, bytes: u64) {
        self.of(slot).names.fetch_add(names, Ordering::Relaxed);
        self.add_bytes(slot, bytes);
    }

    pub(super) fn add_bytes(&self, slot: Slot, count: u64) {
        self.of(slot).bytes.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn take_bytes(&self, slot: Slot, count: u64) {
        let before = self.of(slot).bytes.fetch_sub(count, Ordering::Relaxed);
        debug_assert!(before >= count, "only what was counted is taken off");
    }

    /// Takes room for one more name unless there are `max`. In one step, so that no two takers share the last room.
    pub(super) fn take_name(&self, slot: Slot, max: u64) -> bool {
        let more = |count| if count < max { Some(count + 1) } else { None };
        self.of(slot).names.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Gives back what [`Tally::take_name`] took.
    pub(super) fn give_name(&self, slot: Slot) {
        let before = self.of(slot).names.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "only what was taken is given back");
    }

    fn of(&self, slot: Slot) -> &Count {
        &self.counts[usize::from(slot.0)]
    }
}
