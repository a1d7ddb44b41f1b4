//! From a checkpoint's parts to entries and facts.
//!
//! A stream that had ended, and of which no journal record after the checkpoint speaks, becomes an entry straight
//! away: most are like that, and a start is as fast as they are read. Everything else becomes facts, as if it came
//! from a journal. Invariant: both ways give the same. Runs before shards serve.

use super::super::ahead::Place;
use super::super::checkpoint::{Chunks, Manifest};
use super::super::error::OpenError;
use super::super::extent::LogId;
use super::super::header::{HEADER, Kind, whole_copies};
use super::super::journal::record::{self, Mark, Record};
use super::super::journal::scan::{Expect, Found, scan};
use super::super::journal::snapshot::{Piece, Runs, Snapshot};
use super::super::names::{Entry, Stream};
use super::super::placement::{KeyRef, owner_of};
use super::super::tail::{Placed, Tail};
use super::super::tally::{Slot, Tally};
use super::facts::{Facts, Shelves, Written, side_by_side};
use super::finding::{Finding, LostRecords};
use super::linked::ReadyLink;
use super::replay::{Whole, checked_header};
use super::settle::Segments;
use crate::runtime::Disk;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Parts with fewer records than this are read one after the other, and so few names are settled so.
pub const WORTH_THREADS: u64 = 20_000;

/// Reads all parts: entries by owner, in the order of their names within each part, and the rest into `facts`.
pub fn read(
    disk: &dyn Disk,
    place: &Place,
    manifest: &Manifest,
    segments: &Segments,
    shards: usize,
    tally: &Tally,
    (facts, shelves): (&mut Facts, &mut Shelves),
) -> Result<Vec<Vec<Entry>>, OpenError> {
    let reader = Reader { disk, place, manifest, segments, shards, tally, shelves };
    let records: u64 = manifest.parts.iter().flat_map(|part| &part.chunks).map(|chunk| chunk.1).sum();
    let parts: Vec<&Chunks> = manifest.parts.iter().collect();
    let read = side_by_side(parts, records >= WORTH_THREADS, |part| reader.part(part));
    let mut entries: Vec<Vec<Entry>> = (0..shards).map(|_| Vec::new()).collect();
    for rest in read {
        let rest = rest?;
        for (all, some) in entries.iter_mut().zip(rest.entries) {
            // Most owners have one part's names.
            if all.is_empty() { *all = some } else { all.extend(some) }
        }
        rest.counts.into_iter().for_each(|(slot, (names, bytes))| tally.count_all(slot, names, bytes));
        facts.epoch_max = facts.epoch_max.max(rest.epoch_max);
        facts.ready.extend(rest.links);
        shelves.learn_parts(rest.records, records >= WORTH_THREADS);
        rest.lost.into_iter().for_each(|lost| shelves.lose(lost));
        facts.findings.extend(rest.findings);
        facts.records += rest.read;
    }
    for &key_hash in &manifest.damaged {
        let log = LogId(owner_of(key_hash, manifest.shards.into()).0);
        shelves.of(key_hash).lost_names.entry(key_hash).or_default().push(written(manifest, log));
    }
    Ok(entries)
}

/// A part's records count as written with the last that the checkpoint covers.
fn written(manifest: &Manifest, log: LogId) -> Written {
    let seq = manifest.covered(log).map_or(0, |covered| covered.seq);
    Written { boot: manifest.boot, log, seq }
}

struct Reader<'a> {
    disk: &'a dyn Disk,
    place: &'a Place,
    manifest: &'a Manifest,
    segments: &'a Segments,
    shards: usize,
    tally: &'a Tally,
    shelves: &'a Shelves,
}

/// What one part holds.
struct Rest {
    entries: Vec<Vec<Entry>>,
    links: Vec<ReadyLink>,
    /// By owner.
    records: Vec<Vec<(Written, u64, Record<'static>)>>,
    lost: Vec<LostRecords>,
    findings: Vec<Finding>,
    read: u64,
    epoch_max: u64,
    /// When the stream ended that comes next.
    ended: Option<Record<'static>>,
    /// Names and bytes of the entries by where they count.
    counts: BTreeMap<Slot, (u64, u64)>,
    /// Bytes of the entries by segment: told at the end, as all parts have runs in the same segments.
    claims: BTreeMap<(LogId, u32), u64>,
}

impl Reader<'_> {
    fn part(&self, part: &Chunks) -> Result<Rest, OpenError> {
        let mut rest = Rest {
            entries: (0..self.shards).map(|_| Vec::new()).collect(),
            links: Vec::new(),
            records: (0..self.shards).map(|_| Vec::new()).collect(),
            lost: Vec::new(),
            findings: Vec::new(),
            read: 0,
            epoch_max: 0,
            ended: None,
            counts: BTreeMap::new(),
            claims: BTreeMap::new(),
        };
        let count: u64 = part.chunks.iter().map(|chunk| chunk.1).sum();
        if usize::from(self.manifest.shards) == self.shards {
            // Then all of them have one owner. A record takes memory of its own anyway, so this is no more of it.
            rest.entries[usize::from(part.shard) % self.shards].reserve(count.min(1 << 24) as usize);
        }
        let (mut first_seq, mut whole) = (1, Whole::default());
        for &(number, records) in &part.chunks {
            let chunk = self.place.segment_path(Kind::Checkpoint, LogId(part.shard), number);
            let read = whole.file(self.disk, &chunk);
            self.chunk(LogId(part.shard), number, (read, chunk), first_seq..first_seq + records, &mut rest)?;
            first_seq += records;
        }
        for (segment, len) in &rest.claims {
            self.segments[segment].claim(*len);
        }
        Ok(rest)
    }

    fn chunk(
        &self,
        log: LogId,
        number: u32,
        (read, path): (Result<&[u8], OpenError>, PathBuf),
        Range { start: first_seq, end: next_seq }: Range<u64>,
        rest: &mut Rest,
    ) -> Result<(), OpenError> {
        let (bytes, missing) = match read {
            Ok(bytes) => (bytes, None),
            Err(OpenError::Io(_, error)) if error.kind() == std::io::ErrorKind::NotFound => {
                (&[][..], Some(path.clone()))
            }
            Err(error) => return Err(error),
        };
        let header = checked_header(self.place, Kind::Checkpoint, log, number, bytes, &path)?;
        let whole = whole_copies(&header, bytes);
        if missing.is_none() && whole != [true, true] {
            rest.findings.push(Finding::Header { path: path.clone(), whole, bulk: None });
        }
        let content = bytes.get(HEADER as usize..).unwrap_or_default();
        let expect = Expect {
            generation: header.generation,
            first_seq,
            boot: 0,
            synced_seq: next_seq - 1,
            next_seq: Some(next_seq),
        };
        for found in scan(content, expect) {
            match found {
                Found::Record { at, header, record, mended } => {
                    rest.read += 1;
                    if mended {
                        let (path, at) = (path.clone(), HEADER + at as u64);
                        let record::Header { seq, kind, .. } = header;
                        rest.findings.push(Finding::Mended { path, at, seq, kind });
                    }
                    self.take(log, header.key_hash, record, rest);
                }
                Found::Damaged { at, from_seq, to_seq, header } => {
                    tracing::error!(path = %path.display(), at, from_seq, to_seq, "records of a checkpoint are damaged");
                    rest.lost.push(LostRecords {
                        path: path.clone(),
                        at: HEADER + at as u64,
                        written: written(self.manifest, log),
                        from_seq,
                        count: to_seq - from_seq,
                        header: header.map(|header| (header.kind, header.key_hash)),
                        key: header.and_then(|header| record::key_in(&header, &content[at..])),
                        missing: missing.clone(),
                    });
                }
                // A chunk that was cut short is told as damage up to its last record.
                Found::Tail { next_seq: reached, .. } => debug_assert!(reached >= next_seq),
            }
        }
        Ok(())
    }

    fn take(&self, log: LogId, key_hash: u64, record: Record<'_>, rest: &mut Rest) {
        if let Record::Ended { uid, epoch, at_ms } = record {
            rest.ended = Some(Record::Ended { uid, epoch, at_ms });
            return;
        }
        if let Record::Link(link) = &record
            && !self.shelves.touches(key_hash)
        {
            rest.links.push(ReadyLink::of(link, written(self.manifest, log)));
            return;
        }
        if let Record::Stream(snapshot) = &record {
            rest.epoch_max = rest.epoch_max.max(snapshot.epoch);
            let ended = rest.ended.take();
            if !self.shelves.touches(key_hash)
                && let Some(entry) = self.entry(snapshot, key_hash, &ended, &mut rest.claims)
            {
                let stored = entry.tail.stored();
                entry.tail.note_counted(stored);
                let (names, bytes) = rest.counts.entry(entry.tail.slot()).or_default();
                *names += 1;
                *bytes += stored;
                rest.entries[owner_of(key_hash, self.shards).index()].push(entry);
                return;
            }
            let ended = ended.map(|ended| (written(self.manifest, log), key_hash, ended));
            rest.records[owner_of(key_hash, self.shards).index()].extend(ended);
        }
        if let Some(record) = into_owned(record) {
            let record = (written(self.manifest, log), key_hash, record);
            rest.records[owner_of(key_hash, self.shards).index()].push(record);
        }
    }

    /// The entry that the snapshot says, if nothing about it needs a second look.
    fn entry(
        &self,
        snapshot: &Snapshot<'_>,
        key_hash: u64,
        ended: &Option<Record<'_>>,
        claims: &mut BTreeMap<(LogId, u32), u64>,
    ) -> Option<Entry> {
        let end = snapshot.end.filter(|_| !snapshot.more)?;
        let Some(Record::Ended { uid, epoch, at_ms }) = *ended else { return None };
        if (uid, epoch) != (snapshot.uid, snapshot.epoch) {
            return None;
        }
        let slot = self.tally.slot(KeyRef { space: snapshot.space, bytes: &snapshot.key });
        let tail = Tail::new(snapshot.uid, snapshot.first_epoch, slot, key_hash, self.shards);
        // Looked at whole before anything is claimed.
        let mut len = snapshot.start;
        for piece in snapshot.runs.iter() {
            let segment = self.segments.get(&(piece.log, piece.segment))?;
            if piece.start != len || piece.generation != segment.generation {
                return None;
            }
            len += piece.len;
        }
        if len != snapshot.total {
            return None;
        }
        tail.recover_first(snapshot.start);
        for piece in snapshot.runs.iter() {
            let segment = &self.segments[&(piece.log, piece.segment)];
            let Piece { start, offset, epoch, len, .. } = piece;
            if !tail.runs().push(Placed::recovered(start, offset, epoch, segment.clone(), len, piece.crcs()))
            {
                return None;
            }
            *claims.entry((piece.log, piece.segment)).or_default() += len;
        }
        tail.recover(len, end, at_ms);
        let Snapshot { space, created_ms, home, ref key, ref attributes, .. } = *snapshot;
        let stream = Stream { created_ms, home, tail: Arc::new(tail) };
        Some(Entry::new(KeyRef { space, bytes: key }, attributes, stream))
    }
}

fn into_owned(record: Record<'_>) -> Option<Record<'static>> {
    match record {
        Record::Stream(snapshot) => Some(Record::Stream(Snapshot {
            key: Cow::Owned(snapshot.key.into_owned()),
            attributes: Cow::Owned(snapshot.attributes.into_owned()),
            runs: snapshot.runs.into_owned(),
            ..snapshot
        })),
        Record::Runs { uid, runs } => Some(Record::Runs { uid, runs: runs.into_owned() }),
        Record::Epoch { uid, epoch, cut } => Some(Record::Epoch { uid, epoch, cut }),
        Record::Link(link) => Some(Record::Link(link.into_owned())),
        Record::Links(_)
        | Record::Boot { .. }
        | Record::Name { .. }
        | Record::Delete { .. }
        | Record::Mark(_)
        | Record::Moved(_)
        | Record::Trim { .. }
        | Record::Ended { .. }
        | Record::SyncMark
        | Record::Abort { .. } => None,
    }
}

/// The marks that say what `runs` of stream `uid` say.
pub fn marks(uid: u64, runs: &Runs<'_>) -> impl Iterator<Item = Mark<'static>> {
    runs.iter().map(move |piece| Mark {
        uid,
        epoch: piece.epoch,
        start: piece.start,
        total: piece.start + piece.len,
        end: None,
        log: piece.log,
        segment: piece.segment,
        generation: piece.generation,
        offset: piece.offset,
        len: piece.len,
        crcs: piece.crcs().collect::<Vec<_>>().into(),
    })
}
