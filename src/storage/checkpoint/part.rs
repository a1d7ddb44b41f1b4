//! From entries to chunks: what a shard's part of a checkpoint says.
//!
//! Invariant: a chunk holds whole records, at most a little more than [`CHUNK_LEN`]; the part speaks of a stream
//! only as far as its checksums reach, and the caller waits until that much is durable.
//! Lives on: the owner's shard, or the thread that opens the store.

use super::super::ahead::Place;
use super::super::error::StoreError;
use super::super::extent::{LogId, WINDOW};
use super::super::header::{HEADER, Header, Kind};
use super::super::journal::record::{Record, encode, finish};
use super::super::journal::snapshot::{Piece, Runs, Snapshot};
use super::super::links::{Link, record_of};
use super::super::names::Entry;
use super::super::tail::{self, Placed, Tail};
use crate::runtime::{Disk, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A chunk is written when it has grown to this.
const CHUNK_LEN: usize = 4 << 20;
/// Runs that one record holds.
const RUNS_LEN: usize = 256 << 10;

/// Gathers the records of one part.
pub struct PartWriter {
    place: Place,
    shard: LogId,
    boot: u32,
    number: u32,
    seq: u64,
    seq_before: u64,
    buffer: Vec<u8>,
    chunks: Vec<(u32, u64)>,
    bytes: u64,
}

/// A chunk to be written.
pub struct Chunk {
    /// Where.
    pub path: Arc<PathBuf>,
    header: Header,
    content: Vec<u8>,
}

/// Why a stream cannot be written down now.
pub enum Unready {
    /// Its appender was changing the checksums; a moment later it will not be.
    Busy,
    /// The last window of a run is longer than what belongs to the stream: the checksum of the part that does is
    /// needed, see [`Recut::checksum`].
    Recut(Recut),
    /// A failed sync ended it.
    Failed,
}

/// A window of which only the first part counts.
pub struct Recut {
    /// The stream's position of the run.
    start: u64,
    place: Arc<tail::Place>,
    at: u64,
    len: u64,
}

/// The checksum of a run's last window, cut.
pub struct Cut {
    start: u64,
    len: u64,
    crc: u32,
}

impl Recut {
    /// Reads what counts. Blocks.
    pub fn checksum(&self) -> io::Result<Cut> {
        let crc = super::super::window::checksum(&self.place.segment, self.place.offset + self.at, self.len)?;
        Ok(Cut { start: self.start, len: self.at + self.len, crc })
    }
}

impl PartWriter {
    /// A part of `shard` whose first chunk gets `number`.
    pub fn new(place: Place, shard: LogId, boot: u32, number: u32) -> Self {
        let (buffer, chunks) = (Vec::new(), Vec::new());
        PartWriter { place, shard, boot, number, seq: 0, seq_before: 0, buffer, chunks, bytes: 0 }
    }

    /// Adds a name with its stream. Returns how long the stream is in the part: that much has to be durable before
    /// the part counts.
    pub fn add(&mut self, entry: &Entry, cuts: &[Cut]) -> Result<u64, Unready> {
        let tail = &*entry.tail;
        // In this order: a stream that had ended has its last run; one that was let go grows no more.
        let end = tail.ended();
        let attached = tail.is_attached();
        if tail.has_failed() {
            return Err(Unready::Failed);
        }
        let pieces = pieces_of(tail, attached, cuts)?;
        let total = pieces.last().map_or(tail.published(), |piece| piece.start + piece.len);
        let first_epoch = tail.epochs().next().map_or(1, |(number, _)| number);
        let epoch = tail.epoch();
        let mut runs = Vec::new();
        for piece in &pieces {
            match runs.last_mut() {
                Some(last) if Runs::encoded_len(last) < RUNS_LEN => last.push(piece),
                _ => runs.push({
                    let mut one = Runs::default();
                    one.push(piece);
                    one
                }),
            }
        }
        let mut runs = runs.into_iter();
        let snapshot = Snapshot {
            uid: tail.uid(),
            first_epoch,
            epoch,
            created_ms: entry.created_ms,
            start: tail.first(),
            total,
            home: entry.home,
            space: entry.key().space,
            end,
            more: epoch != first_epoch || runs.len() > 1,
            key: entry.key().bytes.into(),
            attributes: entry.attributes().into(),
            runs: runs.next().unwrap_or_default(),
        };
        // Before the stream that it is about, whose reader needs it.
        if end.is_some() && tail.ended_ms() > 0 {
            let ended = Record::Ended { uid: tail.uid(), epoch, at_ms: tail.ended_ms() };
            self.record(&ended, tail.key_hash());
        }
        self.record(&Record::Stream(snapshot), tail.key_hash());
        for runs in runs {
            self.record(&Record::Runs { uid: tail.uid(), runs }, tail.key_hash());
        }
        for (epoch, cut) in tail.epochs().skip(1) {
            self.record(&Record::Epoch { uid: tail.uid(), epoch, cut }, tail.key_hash());
        }
        Ok(total)
    }

    /// Adds a link. Its bodies are durable.
    pub fn add_link(&mut self, link: &Link) {
        self.record(&Record::Link(record_of(link)), link.key().hash());
    }

    fn record(&mut self, record: &Record<'_>, key_hash: u64) {
        self.seq += 1;
        let at = self.buffer.len();
        encode(record, key_hash, self.seq, self.seq - 1, self.boot, &mut self.buffer);
        let generation = self.place.header(Kind::Checkpoint, self.shard, self.number).generation;
        finish(&mut self.buffer[at..], generation);
    }

    /// Whether a chunk has come together.
    pub fn has_chunk(&self) -> bool {
        self.buffer.len() >= CHUNK_LEN
    }

    /// What has come together, if anything.
    pub fn take_chunk(&mut self) -> Option<Chunk> {
        if self.buffer.is_empty() {
            return None;
        }
        let header = self.place.header(Kind::Checkpoint, self.shard, self.number);
        let path = Arc::new(self.place.segment_path(Kind::Checkpoint, self.shard, self.number));
        self.chunks.push((self.number, self.seq - std::mem::replace(&mut self.seq_before, self.seq)));
        self.bytes += self.buffer.len() as u64;
        self.number += 1;
        Some(Chunk { path, header, content: std::mem::take(&mut self.buffer) })
    }

    /// The part's chunks so far, the number of the next, and the bytes.
    pub fn into_chunks(self) -> (Vec<(u32, u64)>, u32, u64) {
        assert!(self.buffer.is_empty(), "every chunk was taken");
        (self.chunks, self.number, self.bytes)
    }
}

impl Chunk {
    /// Writes it to a file of its own; the caller syncs that. Blocks.
    pub fn write(&self, disk: &dyn Disk) -> io::Result<File> {
        let file = disk.create(&self.path, HEADER + self.content.len() as u64)?;
        file.write_at(&self.header.encode(), 0)?;
        file.write_at(&self.content, HEADER)?;
        Ok(file)
    }
}

/// The runs of a stream, each as far as it belongs to the stream.
fn pieces_of(tail: &Tail, attached: bool, cuts: &[Cut]) -> Result<Vec<Piece<'static>>, Unready> {
    let mut pieces: Vec<Piece<'static>> = Vec::new();
    let mut runs = tail.runs().iter().peekable();
    while let Some(run) = runs.next() {
        let Some(place) = run.place() else { continue };
        // Before its length: a run that is withdrawn in between has none, and is not taken for one at its new start.
        let start = run.start();
        let (len, crcs) = run.filled().ok_or(Unready::Busy)?;
        // Behind a cut lie bytes that were marked and never published. A producer that has begun no run of its own yet
        // does not make them good.
        let end = match runs.peek() {
            Some(next) => next.start(),
            None if attached && run.epoch == tail.epoch() => u64::MAX,
            None => tail.published().min(tail.cut_of(run.epoch)),
        };
        let kept = len.min(end.saturating_sub(start));
        if kept == 0 {
            // An appender that published nothing left a run without bytes of the stream, and another one went on in
            // the same place.
            if end == start {
                continue;
            }
            break;
        }
        let crcs = if kept == len { crcs } else { recut(run, &place, kept, crcs, cuts)? };
        pieces.push(Piece {
            epoch: run.epoch,
            start,
            log: place.segment.log,
            segment: place.segment.number,
            generation: place.segment.generation,
            offset: place.offset,
            len: kept,
            crcs: crcs.iter().flat_map(|crc| crc.to_le_bytes()).collect::<Vec<_>>().into(),
        });
        // Its appender is filling runs at this moment: what is behind waits for the next checkpoint, in the journal.
        if runs.peek().is_some_and(|next| start + kept < next.start()) {
            break;
        }
    }
    Ok(pieces)
}

/// The checksums of the first `kept` bytes of a run that has more.
fn recut(
    run: &Placed,
    place: &Arc<tail::Place>,
    kept: u64,
    mut crcs: Vec<u32>,
    cuts: &[Cut],
) -> Result<Vec<u32>, Unready> {
    let at = (kept - 1) / WINDOW * WINDOW;
    crcs.truncate((at / WINDOW) as usize);
    let known = cuts.iter().find(|cut| cut.start == run.start() && cut.len == kept);
    let Some(cut) = known else {
        return Err(Unready::Recut(Recut { start: run.start(), place: place.clone(), at, len: kept - at }));
    };
    crcs.push(cut.crc);
    Ok(crcs)
}

impl From<Unready> for StoreError {
    fn from(unready: Unready) -> Self {
        match unready {
            Unready::Busy | Unready::Recut(_) => StoreError::Attached,
            Unready::Failed => StoreError::SyncFailed,
        }
    }
}
