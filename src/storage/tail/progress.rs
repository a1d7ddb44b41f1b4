//! How far a tail has come, and who is to be woken when it moves: the one protocol between shards here.
//!
//! The reader announces itself, then looks a second time; the appender moves the mark, then looks for
//! announcements. A full fence stands between the two steps on either side, so at least one of them sees the
//! other: no wake-up is lost. When nobody waits, publishing costs a store, a fence and one load per 64 shards.
//!
//! Invariant: `published` never falls, and one shard at a time publishes. Lives on: all shards.
//! This file names only `super::sync`, so that a model checker can compile it as it is.

use super::sync::{AtomicU64, Ordering, fence};

/// The published length, how the stream ended, and the shards that wait for either to change.
pub struct Progress {
    published: AtomicU64,
    state: AtomicU64,
    /// The first 64 shards; most machines have no more.
    waiting: AtomicU64,
    waiting_more: Box<[AtomicU64]>,
}

impl Progress {
    /// Progress seen by `shards` shards, with `published` bytes and in `state`.
    pub fn new(shards: usize, published: u64, state: u64) -> Self {
        let [published, state, waiting] = [published, state, 0].map(AtomicU64::new);
        let waiting_more = (1..shards.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Progress { published, state, waiting, waiting_more }
    }

    /// The readable length.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// The state. Loaded with `Acquire`: a reader that sees an end sees every byte before it.
    pub fn state(&self) -> u64 {
        self.state.load(Ordering::Acquire)
    }

    /// Announces that `shard` waits. The caller looks at [`Progress::published`] and [`Progress::state`] again
    /// before it sleeps.
    pub fn wait_from(&self, shard: usize) {
        let word = match (shard / 64).checked_sub(1) {
            None => &self.waiting,
            Some(more) => &self.waiting_more[more],
        };
        word.fetch_or(1 << (shard % 64), Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Makes bytes up to `to` readable and calls `wake` for every shard that waits.
    pub fn publish(&self, to: u64, wake: impl FnMut(usize)) {
        self.published.store(to, Ordering::Release);
        self.wake(wake);
    }

    /// Clears and sets bits of the state, and calls `wake` for every shard that waits.
    pub fn change(&self, clear: u64, set: u64, wake: impl FnMut(usize)) {
        // Bits, because the owner and the appender may both have something to say.
        self.state.fetch_and(!clear, Ordering::AcqRel);
        self.state.fetch_or(set, Ordering::AcqRel);
        self.wake(wake);
    }

    fn wake(&self, mut wake: impl FnMut(usize)) {
        fence(Ordering::SeqCst);
        for (word, waiting) in std::iter::once(&self.waiting).chain(&self.waiting_more).enumerate() {
            if waiting.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = waiting.swap(0, Ordering::AcqRel);
            while bits != 0 {
                wake(word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }
}
