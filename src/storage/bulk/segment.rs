//! One bulk file: a header, then raw bytes without framing.
//!
//! Header (4 KiB, written once before the first run, twice: at 0 and at 2048; little-endian):
//! `magic "MPBULK\0\1" | version u32 | log u32 | number u32 | generation u32 | len u64 | crc32 u32 | zero u32`.
//!
//! Invariant: a byte of a run is written once and never again: its page may wait in a socket's queue long after
//! everyone here forgot it. A segment goes by unlink; open handles and queued pages outlive it.
//! Lives on: any shard; the log's own shard alone hands out space.

use super::super::extent::LogId;
use crate::runtime::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes that the header takes.
pub const HEADER: u64 = 4096;

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
    /// One count per shard, written by that shard alone; summed by the log's shard.
    dead: Box<[AtomicU64]>,
    /// Bytes handed out, the header included. Written by the log's shard alone.
    used: AtomicU64,
    /// No more runs come from it.
    sealed: AtomicBool,
    /// A sync of it failed.
    poisoned: AtomicBool,
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
        let (sealed, poisoned) = (AtomicBool::new(false), AtomicBool::new(false));
        Segment { log, number, generation, file, path, dead, used: AtomicU64::new(used), sealed, poisoned }
    }

    /// Counts `len` bytes as dead, for `shard` alone to call with its own number.
    pub fn add_dead(&self, shard: usize, len: u64) {
        let count = &self.dead[shard];
        count.store(count.load(Ordering::Relaxed) + len, Ordering::Release);
    }

    /// Bytes that nothing refers to.
    pub fn dead(&self) -> u64 {
        self.dead.iter().map(|count| count.load(Ordering::Acquire)).sum()
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
        self.sealed.store(true, Ordering::Release);
    }

    /// Whether it hands out no more.
    pub fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
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

    /// Whether every byte that was handed out is dead, and none will be handed out any more.
    pub fn is_wholly_dead(&self) -> bool {
        self.is_sealed() && self.dead() == self.used() - HEADER
    }
}
