//! A contiguous reservation that one appender fills.
//!
//! Invariant: every byte of it is written at most once before it is published, and its checksums cover exactly
//! what was written. Lives on: the appender's shard; neither shared nor cloned.

use super::super::extent::{Extent, WINDOW};
use super::segment::Segment;
use crc32fast::Hasher;
use std::io;
use std::sync::Arc;

/// See the module.
pub struct Run {
    /// The file.
    pub segment: Arc<Segment>,
    /// The stream's position of the first byte.
    pub start: u64,
    /// The file's position of the first byte.
    pub offset: u64,
    /// Bytes reserved.
    pub capacity: u64,
    filled: u64,
    /// One per window that has bytes; the last one as far as they go.
    crcs: Vec<u32>,
    window: Hasher,
}

impl Run {
    /// An empty run at the stream's position `start`.
    pub fn new(segment: Arc<Segment>, start: u64, offset: u64, capacity: u64) -> Self {
        let crcs = Vec::with_capacity(Extent::window_count(capacity));
        Run { segment, start, offset, capacity, filled: 0, crcs, window: Hasher::new() }
    }

    /// Bytes that still fit.
    pub fn room(&self) -> u64 {
        self.capacity - self.filled
    }

    /// Bytes written.
    pub fn filled(&self) -> u64 {
        self.filled
    }

    /// CRC-32 of each window of what is written.
    pub fn crcs(&self) -> &[u32] {
        &self.crcs
    }

    /// Appends with one positioned write. After an error nothing was appended.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(bytes.len() as u64 <= self.room(), "an append stays within what was reserved");
        self.segment.file.write_at(bytes, self.offset + self.filled)?;
        self.fold(bytes);
        Ok(())
    }

    /// Takes note of bytes that somebody else wrote right behind what is filled.
    pub fn note_written(&mut self, bytes: &[u8]) {
        assert!(bytes.len() as u64 <= self.room(), "an append stays within what was reserved");
        self.fold(bytes);
    }

    fn fold(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let within = self.filled % WINDOW;
            if within == 0 {
                self.window = Hasher::new();
                self.crcs.push(0);
            }
            let (now, rest) = bytes.split_at(bytes.len().min((WINDOW - within) as usize));
            self.window.update(now);
            *self.crcs.last_mut().expect("a window was begun") = self.window.clone().finalize();
            self.filled += now.len() as u64;
            bytes = rest;
        }
    }
}
