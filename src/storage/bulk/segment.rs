//! One bulk file: a header, then raw bytes without framing.
//!
//! Invariant: a byte of a run is written once and never again: its page may wait in a socket's queue long after
//! everyone here forgot it. A segment goes by unlink; open handles and queued pages outlive it.
//! Lives on: any shard; the log's own shard alone hands out space.

use super::super::extent::LogId;
use crate::runtime::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use super::super::header::HEADER;

/// One bulk segment.
pub struct Segment {
    /// Whose.
    pub log: LogId,
    /// Its number within the log; never used twice.
    pub number: u32,
    /// Which life of the number.
    pub generation: u32,
    /// The file, open since before its first write.
    pub file: File,
    /// Its name, for errors and for the unlink.
    pub path: Arc<PathBuf>,
    /// Bytes that recovery found alive. Not kept up to date afterwards.
    claimed: AtomicU64,
    /// One count per shard, written by that shard alone; summed by the log's shard.
    dead: Box<[AtomicU64]>,
    /// Bytes handed out, the header included. Written by the log's shard alone.
    used: AtomicU64,
    /// No more runs come from it.
    sealed: AtomicBool,
    /// A sync of it failed.
    poisoned: AtomicBool,
    /// Somebody unlinks it.
    retired: AtomicBool,
    /// What is alive in it is to be copied elsewhere.
    emptying: AtomicBool,
}

impl Segment {
    /// A segment of which `used` bytes are handed out, seen by `shards` shards.
    pub fn new(
        log: LogId,
        number: u32,
        generation: u32,
        file: File,
        path: Arc<PathBuf>,
        shards: usize,
        used: u64,
    ) -> Self {
        let dead = (0..shards).map(|_| AtomicU64::new(0)).collect();
        let [sealed, poisoned, retired, emptying] = [false; 4].map(AtomicBool::new);
        let used = AtomicU64::new(used);
        let claimed = AtomicU64::new(0);
        Segment {
            log,
            number,
            generation,
            file,
            path,
            claimed,
            dead,
            used,
            sealed,
            poisoned,
            retired,
            emptying,
        }
    }

    /// Counts `len` bytes as dead, for `shard` alone to call with its own number.
    pub fn add_dead(&self, shard: usize, len: u64) {
        let count = &self.dead[shard];
        count.store(count.load(Ordering::Relaxed) + len, Ordering::SeqCst);
    }

    /// For recovery: `len` bytes belong to a stream that lives.
    pub fn claim(&self, len: u64) {
        self.claimed.fetch_add(len, Ordering::Relaxed);
    }

    /// Takes [`Segment::claim`] back.
    pub fn unclaim(&self, len: u64) {
        let before = self.claimed.fetch_sub(len, Ordering::Relaxed);
        debug_assert!(before >= len, "only what was claimed is taken back");
    }

    /// Bytes that recovery found alive.
    pub fn claimed(&self) -> u64 {
        self.claimed.load(Ordering::Relaxed)
    }

    /// For recovery, once every claim was made: the rest of what was handed out is dead.
    pub fn count_unclaimed_as_dead(&self, shard: usize) {
        self.add_dead(shard, (self.used() - HEADER).saturating_sub(self.claimed.load(Ordering::Relaxed)));
    }

    /// Bytes that nothing refers to.
    pub fn dead(&self) -> u64 {
        self.dead.iter().map(|count| count.load(Ordering::SeqCst)).sum()
    }

    /// Bytes handed out so far, the header included.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// For the log's shard: how far bytes are handed out.
    pub(in super::super) fn set_used(&self, used: u64) {
        debug_assert!((HEADER..=self.file.len()).contains(&used));
        self.used.store(used, Ordering::Release);
    }

    /// Hands out no more.
    pub fn seal(&self) {
        self.sealed.store(true, Ordering::SeqCst);
    }

    /// Whether it hands out no more.
    pub fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::SeqCst)
    }

    /// Takes note of a failed sync.
    pub fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
        self.seal();
    }

    /// Whether a sync of it failed.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Whether every byte that was handed out is dead and none will be handed out any more, asked for the first
    /// time: the caller then unlinks the file. Whoever counts the last byte or seals sees both, because counts
    /// and seal are written before they are looked at, in one order for all.
    pub fn retires(&self) -> bool {
        self.is_sealed() && self.dead() == self.used() - HEADER && !self.retired.swap(true, Ordering::SeqCst)
    }

    /// For the log's shard: what is alive in it is to be copied elsewhere.
    pub fn empty(&self) {
        self.emptying.store(true, Ordering::SeqCst);
    }

    /// Whether what is alive in it is to be copied elsewhere.
    pub fn is_emptying(&self) -> bool {
        self.emptying.load(Ordering::SeqCst)
    }

    /// Whether its file was, or is being, unlinked.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }
}
