//! Who gets which part of the log's bulk segments.
//!
//! Appenders take runs from the current segment, front to back. The next segment is allocated ahead by a worker;
//! a shard never allocates, an appender waits instead. Invariant: space is handed out once; only what was
//! reserved, never published and lies at the very end is taken back.
//! Lives on: the log's shard.

use super::super::ahead::Ahead;
use super::run::Run;
use super::segment::{HEADER, Segment};
use std::cell::RefCell;
use std::sync::Arc;

/// The shortest reservation.
pub const RUN_MIN: u64 = 16 * 1024;
/// The longest one.
pub const RUN_MAX: u64 = 4 << 20;
/// Runs begin at multiples of this: two streams never write to one cache line.
const ALIGN: u64 = 64;

/// The space of one log.
pub struct Space {
    current: RefCell<Option<Arc<Segment>>>,
    /// Segments that hold bytes, of this log and of those without a shard.
    held: RefCell<Vec<Arc<Segment>>>,
    /// Segments that were filled since [`Space::take_filled`].
    filled: RefCell<Vec<Arc<Segment>>>,
    /// The next segment.
    pub ahead: Ahead<Arc<Segment>>,
}

impl Space {
    /// Goes on in `current`, knowing what is `held` already.
    pub fn new(current: Option<Arc<Segment>>, held: Vec<Arc<Segment>>, next_number: u32) -> Self {
        let ahead = Ahead::new(next_number);
        Space { current: RefCell::new(current), held: RefCell::new(held), filled: RefCell::default(), ahead }
    }

    /// Reserves up to `wanted` bytes for the stream's position `start`; `None` when there is no segment to take
    /// them from.
    pub fn take(&self, start: u64, wanted: u64) -> Option<Run> {
        let segment = self.segment_with_room()?;
        let offset = segment.used();
        let capacity = wanted.next_multiple_of(ALIGN).min(segment.file.len() - offset);
        segment.set_used(offset + capacity);
        Some(Run::new(segment, start, offset, capacity))
    }

    /// Reserves exactly `len` bytes, leaving the rest of the current segment unused if they do not fit there; `None`
    /// when there is no segment to take them from.
    pub fn take_whole(&self, start: u64, len: u64) -> Option<Run> {
        let wanted = len.next_multiple_of(ALIGN);
        let mut segment = self.segment_with_room()?;
        if segment.file.len() - segment.used() < wanted {
            segment = self.next_segment()?;
        }
        let offset = segment.used();
        let capacity = wanted.min(segment.file.len() - offset);
        if capacity < len {
            return None;
        }
        segment.set_used(offset + capacity);
        Some(Run::new(segment, start, offset, capacity))
    }

    /// Whether the next segment should be made.
    pub fn wants_next(&self) -> bool {
        let current = self.current.borrow();
        !self.ahead.is_ready()
            && current.as_ref().is_none_or(|segment| {
                segment.is_sealed() || segment.used() - HEADER >= (segment.file.len() - HEADER) / 2
            })
    }

    fn segment_with_room(&self) -> Option<Arc<Segment>> {
        if let Some(segment) = &*self.current.borrow()
            && !segment.is_sealed()
            && segment.file.len() - segment.used() >= RUN_MIN
        {
            return Some(segment.clone());
        }
        self.next_segment()
    }

    fn next_segment(&self) -> Option<Arc<Segment>> {
        let next = self.ahead.take()?;
        self.held.borrow_mut().push(next.clone());
        if let Some(full) = self.current.borrow_mut().replace(next.clone()) {
            full.seal();
            self.filled.borrow_mut().push(full);
        }
        Some(next)
    }

    /// Takes back what a run did not use. What cannot be handed out again counts as dead on `shard`. Returns the
    /// bytes that the run keeps.
    pub fn give_back(&self, run: &Run, shard: usize) -> u64 {
        let kept = run.filled().next_multiple_of(ALIGN).min(run.capacity);
        let segment = &run.segment;
        if segment.used() == run.offset + run.capacity && !segment.is_sealed() {
            segment.set_used(run.offset + kept);
        } else {
            segment.add_dead(shard, run.capacity - kept);
        }
        kept
    }

    /// Like [`Space::give_back`] for a run that a worker may still write into: nothing of it is handed out again.
    pub fn abandon(&self, run: &Run, shard: usize) -> u64 {
        let kept = run.filled().next_multiple_of(ALIGN).min(run.capacity);
        run.segment.add_dead(shard, run.capacity - kept);
        kept
    }

    /// Hands out nothing more from a segment whose sync failed.
    pub fn abandon_poisoned(&self) {
        let mut current = self.current.borrow_mut();
        if current.as_ref().is_some_and(|segment| segment.is_poisoned()) {
            *current = None;
        }
    }

    /// Segments that were filled since the last call: wholly dead ones among them may go.
    pub fn take_filled(&self) -> Vec<Arc<Segment>> {
        self.filled.take()
    }

    /// Forgets segments that are retired; how many are left.
    pub fn forget_retired(&self) -> usize {
        let mut held = self.held.borrow_mut();
        held.retain(|segment| !segment.is_retired());
        held.len()
    }

    /// Every segment that holds bytes.
    pub fn held(&self) -> Vec<Arc<Segment>> {
        self.held.borrow().clone()
    }
}
