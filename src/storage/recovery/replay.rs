//! From journal files to [facts](super::facts), and to where each log goes on.
//!
//! Invariant: only a valid record is taken for one, and which of them are void is known before any is. Reading changes
//! nothing; what has to go is listed and goes later. Runs before shards serve.

use super::super::ahead::{Place, segment_number};
use super::super::checkpoint::Covered;
use super::super::error::{OpenError, Unreadable};
use super::super::extent::LogId;
use super::super::header::{HEADER, Header, Kind};
use super::super::journal::record::key_in;
use super::super::journal::scan::{Expect, Found, Survey, scan, survey, zeros};
use super::super::journal::writer::Older;
use super::facts::{Facts, Shelves, Written};
use super::finding::LostRecords;
use super::{io, list};
use crate::runtime::Disk;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a log goes on, and what has to be done before.
pub struct LogEnd {
    /// Which log.
    pub log: LogId,
    /// The segment to go on in, with the position; `None` when there is none yet.
    pub position: Option<(PathBuf, Header, u64)>,
    /// The sequence to go on with.
    pub next_seq: u64,
    /// What the log itself says is durable.
    pub settled_seq: u64,
    /// The number of the next segment file.
    pub next_number: u32,
    /// Segments that hold records nobody said are durable, and where those lie in the file.
    pub unsynced: BTreeMap<PathBuf, Range<u64>>,
    /// Segments behind a torn tail, or never used.
    pub useless: Vec<PathBuf>,
    /// The segments before that one.
    pub older: Vec<Older>,
    /// Bytes of records that no checkpoint covers.
    pub fresh_bytes: u64,
}

impl LogEnd {
    /// Of a log that nobody wrote to.
    pub fn none(log: LogId) -> Self {
        LogEnd {
            log,
            position: None,
            next_seq: 1,
            settled_seq: 0,
            next_number: 0,
            unsynced: BTreeMap::new(),
            useless: Vec::new(),
            older: Vec::new(),
            fresh_bytes: 0,
        }
    }
}

struct SegmentFile {
    number: u32,
    path: PathBuf,
    header: Header,
    survey: Survey,
    blank: bool,
}

/// Reads the journal of `log`, from behind what is `covered` by a checkpoint.
pub fn replay(
    disk: &dyn Disk,
    place: &Place,
    log: LogId,
    covered: Option<&Covered>,
    shards: usize,
) -> Result<(LogEnd, Shelves), OpenError> {
    let (mut reader, mut shelves) = (Whole::default(), Shelves::new(shards));
    let (segments, mut useless, next_number) = look_at(disk, place, log, &mut reader, shelves.common())?;
    let next_number = next_number.max(covered.map_or(0, |covered| covered.journal_next));
    let covered = covered.map_or(0, |covered| covered.seq);
    let settled = segments.iter().map(|segment| segment.survey.settled_seq);
    let settled_seq = settled.max().unwrap_or(0).max(covered);
    let first_seq = segments.iter().find_map(|segment| segment.survey.first_seq);
    let aborts: Vec<_> = segments.iter().flat_map(|segment| segment.survey.aborts.clone()).collect();
    let next_seq = first_seq.unwrap_or(u64::MAX).min(covered + 1);
    let mut end = LogEnd { next_seq, settled_seq, next_number, ..LogEnd::none(log) };
    let (mut boot, mut torn_off) = (0, false);
    for (index, segment) in segments.iter().enumerate() {
        if torn_off {
            useless.push(segment.path.clone());
            continue;
        }
        let content = reader.file(disk, &segment.path)?.get(HEADER as usize..).unwrap_or_default();
        let next_seq = segments[index + 1..].iter().find_map(|next| next.survey.first_seq);
        let generation = segment.header.generation;
        let expect = Expect { generation, first_seq: end.next_seq, boot, synced_seq: settled_seq, next_seq };
        for found in scan(content, expect) {
            match found {
                Found::Record { header, .. } if header.seq <= covered => {}
                Found::Record { at, header, record, mended } => {
                    end.fresh_bytes += header.record_len() as u64;
                    shelves.common().records += 1;
                    if mended {
                        shelves.common().note_mended(&segment.path, at, &header);
                    }
                    let void = aborts.iter().any(|&(from, to)| (from..=to).contains(&header.seq));
                    let unsynced = header.seq > settled_seq;
                    if unsynced {
                        let at = HEADER + at as u64;
                        let end_at = at + header.record_len() as u64;
                        match end.unsynced.get_mut(&segment.path) {
                            Some(place) => place.end = end_at,
                            None => drop(end.unsynced.insert(segment.path.clone(), at..end_at)),
                        }
                    }
                    let written = Written { boot: header.boot, log, seq: header.seq };
                    shelves.learn(written, unsynced, void, header.key_hash, record);
                }
                Found::Damaged { to_seq, .. } if to_seq <= covered + 1 => {}
                Found::Damaged { from_seq, to_seq, header, at } => {
                    let from_seq = from_seq.max(covered + 1);
                    let header = header.filter(|header| header.seq == from_seq);
                    let void = |seq| aborts.iter().any(|&(from, to)| (from..=to).contains(&seq));
                    if !(from_seq..to_seq).all(void) {
                        let path = segment.path.display();
                        tracing::error!(%path, at, from_seq, to_seq, "journal records are damaged");
                        let written = header.map_or(0, |header| header.boot);
                        let written = Written { boot: written, log, seq: from_seq };
                        let key = header.and_then(|header| key_in(&header, &content[at..]));
                        let header = header.map(|header| (header.kind, header.key_hash));
                        let next = segments.get(index + 1);
                        let missing = next
                            .filter(|next| next.number > segment.number + 1)
                            .map(|_| place.segment_path(Kind::Journal, log, segment.number + 1));
                        shelves.lose(LostRecords {
                            path: segment.path.clone(),
                            at: HEADER + at as u64,
                            written,
                            from_seq,
                            count: to_seq - from_seq,
                            header,
                            key,
                            missing,
                        });
                    }
                }
                Found::Tail { valid_len, next_seq, boot: last_boot, torn } => {
                    end.position = Some((segment.path.clone(), segment.header, HEADER + valid_len as u64));
                    end.older.push(Older { path: Arc::new(segment.path.clone()), last_seq: next_seq - 1 });
                    end.next_seq = next_seq;
                    boot = last_boot;
                    torn_off = torn;
                    if torn {
                        let path = segment.path.display();
                        tracing::info!(%path, valid_len, "cut a torn journal tail");
                        let at = HEADER + valid_len as u64;
                        shelves.common().torn.push((segment.path.clone(), at));
                    }
                }
            }
        }
    }
    end.next_seq = end.next_seq.max(covered + 1);
    end.older.pop();
    end.useless = useless;
    Ok((end, shelves))
}

/// The log's segments in order, those without any content, and the next number.
fn look_at(
    disk: &dyn Disk,
    place: &Place,
    log: LogId,
    reader: &mut Whole,
    facts: &mut Facts,
) -> Result<(Vec<SegmentFile>, Vec<PathBuf>, u32), OpenError> {
    let dir = place.log_dir(Kind::Journal, log);
    let names = list(disk, &dir)?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment_number(Kind::Journal, name)).collect();
    numbers.sort_unstable();
    let mut segments = Vec::new();
    for &number in &numbers {
        let path = place.segment_path(Kind::Journal, log, number);
        let bytes = reader.file(disk, &path)?;
        let header = checked_header(place, Kind::Journal, log, number, bytes, &path)?;
        let content = bytes.get(HEADER as usize..).unwrap_or_default();
        let blank = zeros(content) == content.len();
        let survey = if blank { Survey::default() } else { survey(content, header.generation) };
        if facts.note_length(&path, bytes, bytes.len() as u64, None) {
            // What stood behind the cut, nobody can tell.
            facts.lost_unknown += 1;
        }
        if !blank {
            facts.note_header(&path, &header, bytes, None);
        }
        segments.push(SegmentFile { number, path, header, survey, blank });
    }
    // Made ahead and never written to. A blank one in the middle lost its content and stays for the scan.
    let used = segments.iter().rposition(|segment| !segment.blank).map_or(0, |last| last + 1);
    let useless = segments.drain(used..).map(|segment| segment.path).collect();
    Ok((segments, useless, numbers.last().map_or(0, |last| last + 1)))
}

/// The header of a segment file: what is written there, or what must have been when both copies are damaged.
pub fn checked_header(
    place: &Place,
    kind: Kind,
    log: LogId,
    number: u32,
    bytes: &[u8],
    path: &std::path::Path,
) -> Result<Header, OpenError> {
    let expected = place.header(kind, log, number);
    match Header::decode(kind, bytes) {
        Some(found) if found != expected => {
            Err(OpenError::Unreadable { path: path.to_owned(), why: Unreadable::Header })
        }
        Some(_) | None => Ok(expected),
    }
}

/// Reads whole files, one after the other into the same memory: fresh memory for each costs more than the reading.
#[derive(Default)]
pub struct Whole {
    bytes: Vec<u8>,
    /// What is there.
    path: PathBuf,
}

impl Whole {
    /// All bytes of a file that nobody changes meanwhile. Blocks.
    pub fn file(&mut self, disk: &dyn Disk, path: &std::path::Path) -> Result<&[u8], OpenError> {
        if self.path != path {
            self.path = PathBuf::new();
            let file = disk.open(path).map_err(io(path))?;
            self.bytes.resize(file.len() as usize, 0);
            file.read_exact_at(&mut self.bytes, 0).map_err(io(path))?;
            self.path = path.to_owned();
        }
        Ok(&self.bytes)
    }
}
