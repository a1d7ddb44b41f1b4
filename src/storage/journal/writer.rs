//! The single appender of one log.
//!
//! Records are gathered in memory in the order in which they were decided, and leave with one positioned write
//! at the end of a turn. Their checksums are added then, because only then it is known which segment they go to.
//!
//! Invariant: `synced_seq ≤ flushed_seq < next_seq`; what is flushed is in the page cache, what is synced on disk.
//! Lives on: the log's shard.

use super::super::header::HEADER;
use super::record::{Record, encode, finish, measure};
use crate::runtime::File;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// One journal file.
pub struct Segment {
    /// Seeds the checksums of its records.
    pub generation: u32,
    /// The file, its header durable.
    pub file: File,
    /// Its path, for errors.
    pub path: Arc<PathBuf>,
}

/// Where a log goes on.
pub struct Position {
    /// In which segment.
    pub segment: Segment,
    /// At which position in the file.
    pub at: u64,
    /// With which sequence.
    pub next_seq: u64,
    /// What is known to be durable.
    pub synced_seq: u64,
    /// The segments before.
    pub older: Vec<Older>,
}

/// A segment that takes no more records.
pub struct Older {
    /// Its path.
    pub path: Arc<PathBuf>,
    /// The last sequence in it.
    pub last_seq: u64,
}

/// See the module.
pub struct Writer {
    boot: u32,
    current: Rc<Segment>,
    at: u64,
    /// Segments that were filled since the last sync.
    filled: Vec<Rc<Segment>>,
    /// All segments before the current one.
    older: Vec<Older>,
    next_seq: u64,
    flushed_seq: u64,
    synced_seq: u64,
    /// The last record that somebody waits for, which a sync mark is not.
    wanted_seq: u64,
    buffer: Vec<u8>,
    /// After a failed sync nothing more goes to the current segment.
    broken: bool,
}

impl Writer {
    /// Goes on at `position`.
    pub fn new(position: Position, boot: u32) -> Self {
        let last = position.next_seq - 1;
        Writer {
            boot,
            current: Rc::new(position.segment),
            at: position.at,
            filled: Vec::new(),
            older: position.older,
            next_seq: position.next_seq,
            flushed_seq: last,
            synced_seq: position.synced_seq,
            wanted_seq: position.synced_seq,
            buffer: Vec::with_capacity(64 * 1024),
            broken: false,
        }
    }

    /// The start of the program that writes.
    pub fn boot(&self) -> u32 {
        self.boot
    }

    /// Decides `record`; returns its sequence. It leaves with the next [`Writer::flush`].
    pub fn append(&mut self, record: &Record<'_>, key_hash: u64) -> u64 {
        let seq = self.next_seq;
        encode(record, key_hash, seq, self.synced_seq, self.boot, &mut self.buffer);
        self.next_seq += 1;
        if !matches!(record, Record::SyncMark) {
            self.wanted_seq = seq;
        }
        seq
    }

    /// Writes what was decided and fits; `next` gives the next segment when the current one is full. What does
    /// not fit waits for the next call. Returns how many records and bytes were written.
    pub fn flush(&mut self, mut next: impl FnMut() -> Option<Segment>) -> io::Result<(u64, u64)> {
        let (before, mut written) = (self.flushed_seq, 0);
        while !self.buffer.is_empty() && !self.broken {
            let (len, last_seq) = self.finish_what_fits();
            if len > 0 {
                self.current.file.write_at(&self.buffer[..len], self.at)?;
                self.buffer.drain(..len);
                self.at += len as u64;
                self.flushed_seq = last_seq;
                written += len as u64;
            } else {
                let Some(segment) = next() else { break };
                self.move_to(segment);
            }
        }
        Ok((self.flushed_seq - before, written))
    }

    /// The bytes at the start of the buffer that the segment still takes, with checksums, and their last sequence.
    fn finish_what_fits(&mut self) -> (usize, u64) {
        let room = (self.current.file.len() - self.at) as usize;
        let (mut end, mut last_seq) = (0, self.flushed_seq);
        while end < self.buffer.len() {
            let (len, seq) = measure(&self.buffer[end..]);
            if end + len > room {
                break;
            }
            finish(&mut self.buffer[end..], self.current.generation);
            (end, last_seq) = (end + len, seq);
        }
        (end, last_seq)
    }

    fn move_to(&mut self, segment: Segment) {
        self.older.push(Older { path: self.current.path.clone(), last_seq: self.flushed_seq });
        self.filled.push(std::mem::replace(&mut self.current, Rc::new(segment)));
        self.at = HEADER;
    }

    /// The segments that hold unsynced records.
    pub fn unsynced_segments(&self) -> Vec<Rc<Segment>> {
        self.filled.iter().chain([&self.current]).cloned().collect()
    }

    /// Takes note that everything up to `seq` is durable, in segments that [`Writer::unsynced_segments`] gave.
    pub fn synced(&mut self, seq: u64, segments: &[Rc<Segment>]) {
        debug_assert!((self.synced_seq..=self.flushed_seq).contains(&seq));
        self.synced_seq = seq;
        self.filled.retain(|filled| !segments.iter().any(|synced| Rc::ptr_eq(filled, synced)));
    }

    /// Forgets the segments that hold nothing after `seq`, which is durable: they may be removed.
    pub fn take_covered(&mut self, seq: u64) -> Vec<Arc<PathBuf>> {
        debug_assert!(seq <= self.synced_seq);
        let covered = self.older.extract_if(.., |older| older.last_seq <= seq);
        covered.map(|older| older.path).collect()
    }

    /// After a failed sync: writes nothing more until [`Writer::restart`].
    pub fn stop(&mut self) {
        self.broken = true;
    }

    /// Goes on in a fresh segment with the sequence after all that was decided; what was not yet synced is void,
    /// and an abort record about it is the first one there. Returns its range, both ends included.
    pub fn restart(&mut self, segment: Segment) -> (u64, u64) {
        assert!(self.broken, "only a failed sync gives a segment up");
        let (from, to) = (self.synced_seq + 1, self.next_seq - 1);
        self.buffer.clear();
        self.filled.clear();
        self.older.push(Older { path: self.current.path.clone(), last_seq: to });
        self.current = Rc::new(segment);
        self.at = HEADER;
        self.flushed_seq = to;
        self.broken = false;
        self.append(&Record::Abort { from, to }, 0);
        (from, to)
    }

    /// Ends the writer, everything decided being written and synced.
    pub fn into_position(self) -> Position {
        assert!(self.buffer.is_empty() && self.filled.is_empty(), "nothing is left to write or to sync");
        let Ok(segment) = Rc::try_unwrap(self.current) else { panic!("nobody else holds the segment") };
        let synced_seq = self.next_seq - 1;
        Position { segment, at: self.at, next_seq: self.next_seq, synced_seq, older: self.older }
    }

    /// The sequence that the next record will have.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The last sequence in the page cache.
    pub fn flushed_seq(&self) -> u64 {
        self.flushed_seq
    }

    /// The last durable sequence.
    pub fn synced_seq(&self) -> u64 {
        self.synced_seq
    }

    /// Whether something in the page cache waits for a sync.
    pub fn wants_sync(&self) -> bool {
        self.synced_seq < self.wanted_seq.min(self.flushed_seq)
    }

    /// Whether something waits for the next flush.
    pub fn wants_flush(&self) -> bool {
        !self.buffer.is_empty() && !self.broken
    }

    /// Bytes that wait for the next flush.
    pub fn pending_len(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes that the current segment still takes.
    pub fn room(&self) -> u64 {
        (self.current.file.len() - self.at).saturating_sub(self.buffer.len() as u64)
    }

    /// Bytes that a segment takes.
    pub fn capacity(&self) -> u64 {
        self.current.file.len() - HEADER
    }

    /// The current segment's path, for errors.
    pub fn path(&self) -> &Arc<PathBuf> {
        &self.current.path
    }
}
