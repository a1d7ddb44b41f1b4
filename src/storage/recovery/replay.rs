//! From journal files to facts: which names stand, which marks streams have, and where each log goes on.
//!
//! Invariant: a fact comes from a valid record that no abort declares void. Reading changes nothing; what has to
//! go is listed and goes later. Runs before shards serve.

use super::super::ahead::{Place, segment_number};
use super::super::error::{OpenError, Unreadable};
use super::super::extent::LogId;
use super::super::header::{HEADER, Header, Kind};
use super::super::journal::record::{self, Mark, Record, is_mark};
use super::super::journal::scan::{Expect, Found, Survey, scan, survey};
use super::super::placement::Key;
use super::io;
use crate::runtime::Disk;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::PathBuf;

/// When and where a record was written: later ones of the same name are greater within one log, and by start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// The start of the program.
    pub boot: u32,
    /// Whose journal.
    pub log: LogId,
    /// Where in it.
    pub seq: u64,
}

impl Written {
    /// Whether this was certainly written after `other`, both being about one name.
    pub fn is_after(&self, other: &Written) -> bool {
        self.boot > other.boot || (self.log == other.log && self.seq > other.seq)
    }
}

/// The latest that is known about a name.
pub struct NameFact {
    /// Greater is later.
    pub version: u64,
    /// Its record.
    pub written: Written,
    /// What it stands for, unless it was deleted.
    pub stands: Option<Stands>,
}

/// What a name stands for.
pub struct Stands {
    /// When it was put.
    pub created_ms: u64,
    /// The log of its first appender.
    pub home: LogId,
    /// The service's part.
    pub attributes: Vec<u8>,
}

/// A mark, and whether its data has to be looked at before it is believed.
pub struct MarkFact {
    /// Its record.
    pub written: Written,
    /// No record says that it is durable.
    pub unsynced: bool,
    /// What it says.
    pub mark: Mark<'static>,
}

/// Everything the journals say.
#[derive(Default)]
pub struct Facts {
    /// Names by key.
    pub names: BTreeMap<Key, NameFact>,
    /// Marks by stream.
    pub marks: HashMap<u64, Vec<MarkFact>>,
    /// The first epoch of each stream.
    pub first_epochs: HashMap<u64, u64>,
    /// The highest number of any epoch, of streams that are gone too.
    pub epoch_max: u64,
    /// The latest start of the program that a record is of.
    pub boot_max: u32,
    /// Later epochs by stream: number and cut.
    pub epochs: HashMap<u64, BTreeMap<u64, u64>>,
    /// Lost records about names, by placement hash.
    pub lost_names: HashMap<u64, Vec<Written>>,
    /// Lost marks, by placement hash.
    pub lost_marks: HashMap<u64, Vec<Written>>,
    /// Lost records of which not even the header is whole.
    pub lost_unknown: u64,
    /// All lost records, those included that a later one stands in for.
    pub lost_records: u64,
    /// The highest end of a mark in each bulk segment, void ones included.
    pub bulk_used: HashMap<(LogId, u32), u64>,
}

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
    /// How many segments stay.
    pub segment_count: usize,
}

struct SegmentFile {
    path: PathBuf,
    header: Header,
    survey: Survey,
    blank: bool,
}

/// Reads the journal of `log` into `facts`.
pub fn replay(disk: &dyn Disk, place: &Place, log: LogId, facts: &mut Facts) -> Result<LogEnd, OpenError> {
    let (segments, mut useless, next_number) = look_at(disk, place, log)?;
    let settled_seq = segments.iter().map(|segment| segment.survey.settled_seq).max().unwrap_or(0);
    let aborts: Vec<_> = segments.iter().flat_map(|segment| segment.survey.aborts.clone()).collect();
    let mut end = LogEnd {
        log,
        position: None,
        next_seq: 1,
        settled_seq,
        next_number,
        unsynced: BTreeMap::new(),
        useless: Vec::new(),
        segment_count: 0,
    };
    let (mut boot, mut torn_off) = (0, false);
    for (index, segment) in segments.iter().enumerate() {
        if torn_off {
            useless.push(segment.path.clone());
            continue;
        }
        let content = read_content(disk, &segment.path)?;
        let next_seq = segments[index + 1..].iter().find_map(|next| next.survey.first_seq);
        let generation = segment.header.generation;
        let expect = Expect { generation, first_seq: end.next_seq, boot, synced_seq: settled_seq, next_seq };
        for found in scan(&content, expect) {
            match found {
                Found::Record { at, header, record, mended } => {
                    if mended {
                        let path = segment.path.display();
                        tracing::warn!(%path, at, seq = header.seq, "a bit of a record's header is wrong");
                    }
                    let void = aborts.iter().any(|&(from, to)| (from..=to).contains(&header.seq));
                    let unsynced = header.seq > settled_seq;
                    if unsynced {
                        let at = HEADER + at as u64;
                        let place = end.unsynced.entry(segment.path.clone()).or_insert(at..at);
                        place.end = at + header.record_len() as u64;
                    }
                    let written = Written { boot: header.boot, log, seq: header.seq };
                    facts.learn(written, unsynced, void, record);
                }
                Found::Damaged { from_seq, to_seq, header, at } => {
                    let void = |seq| aborts.iter().any(|&(from, to)| (from..=to).contains(&seq));
                    if !(from_seq..to_seq).all(void) {
                        let path = segment.path.display();
                        tracing::error!(%path, at, from_seq, to_seq, "journal records are damaged");
                        facts.lose(log, header, to_seq - from_seq);
                    }
                }
                Found::Tail { valid_len, next_seq, boot: last_boot, torn } => {
                    end.position = Some((segment.path.clone(), segment.header, HEADER + valid_len as u64));
                    end.next_seq = next_seq;
                    boot = last_boot;
                    torn_off = torn;
                    if torn {
                        let path = segment.path.display();
                        tracing::info!(%path, valid_len, "cut a torn journal tail");
                    }
                }
            }
        }
        end.segment_count += 1;
    }
    end.useless = useless;
    Ok(end)
}

/// The log's segments in order, those without any content, and the next number.
fn look_at(
    disk: &dyn Disk,
    place: &Place,
    log: LogId,
) -> Result<(Vec<SegmentFile>, Vec<PathBuf>, u32), OpenError> {
    let dir = place.log_dir(Kind::Journal, log);
    let names = disk.list(&dir).map_err(io(&dir))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment_number(Kind::Journal, name)).collect();
    numbers.sort_unstable();
    let mut segments = Vec::new();
    for &number in &numbers {
        let path = place.segment_path(Kind::Journal, log, number);
        let bytes = disk.read(&path).map_err(io(&path))?;
        let header = checked_header(place, Kind::Journal, log, number, &bytes, &path)?;
        let content = bytes.get(HEADER as usize..).unwrap_or_default();
        let blank = content.iter().all(|&byte| byte == 0);
        segments.push(SegmentFile { path, header, survey: survey(content, header.generation), blank });
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

fn read_content(disk: &dyn Disk, path: &std::path::Path) -> Result<Vec<u8>, OpenError> {
    let mut bytes = disk.read(path).map_err(io(path))?;
    bytes.drain(..bytes.len().min(HEADER as usize));
    Ok(bytes)
}

impl Facts {
    /// Whether a record is lost that may have been about bytes which look dead without it.
    pub fn has_losses(&self) -> bool {
        self.lost_unknown > 0 || self.lost_names.values().any(|lost| !lost.is_empty())
    }

    fn learn(&mut self, written: Written, unsynced: bool, void: bool, record: Record<'_>) {
        self.boot_max = self.boot_max.max(written.boot);
        if let Record::Mark(mark) = &record {
            let used = self.bulk_used.entry((mark.log, mark.segment)).or_default();
            *used = (*used).max(mark.offset.saturating_add(mark.len));
        }
        if void {
            return;
        }
        match record {
            Record::Name { uid, epoch, created_ms, home, space, key, attributes } => {
                self.first_epochs.insert(uid, epoch);
                self.epoch_max = self.epoch_max.max(epoch);
                let stands = Stands { created_ms, home, attributes: attributes.into_owned() };
                self.name(space, key, uid, written, Some(stands));
            }
            Record::Delete { version, space, key } => self.name(space, key, version, written, None),
            Record::Mark(mark) => self.mark(written, unsynced, mark),
            Record::Epoch { uid, epoch, cut } => {
                self.epoch_max = self.epoch_max.max(epoch);
                self.epochs.entry(uid).or_default().insert(epoch, cut);
            }
            Record::Boot { .. } | Record::SyncMark | Record::Abort { .. } => {}
        }
    }

    fn name(
        &mut self,
        space: u8,
        key: Cow<'_, [u8]>,
        version: u64,
        written: Written,
        stands: Option<Stands>,
    ) {
        let key = Key { space, bytes: key.into_owned().into() };
        let fact = NameFact { version, written, stands };
        match self.names.get_mut(&key) {
            Some(known) if known.version >= version => {}
            Some(known) => *known = fact,
            None => drop(self.names.insert(key, fact)),
        }
    }

    fn mark(&mut self, written: Written, unsynced: bool, mark: Mark<'_>) {
        let mark = Mark { crcs: Cow::Owned(mark.crcs.into_owned()), ..mark };
        let marks = self.marks.entry(mark.uid).or_default();
        let fact = MarkFact { written, unsynced, mark };
        // A later mark of the same run says all that an earlier one said, once it needs no proof.
        match marks.last_mut() {
            Some(last) if !unsynced && last.mark.is_of_run(&fact.mark) && written.log == last.written.log => {
                *last = fact;
            }
            _ => marks.push(fact),
        }
    }

    fn lose(&mut self, log: LogId, header: Option<record::Header>, count: u64) {
        self.lost_records += count;
        let known = u64::from(header.is_some());
        self.lost_unknown += count.saturating_sub(known);
        if let Some(header) = header.filter(|header| !record::is_about_the_log(header.kind)) {
            let written = Written { boot: header.boot, log, seq: header.seq };
            let lost = if is_mark(header.kind) { &mut self.lost_marks } else { &mut self.lost_names };
            lost.entry(header.key_hash).or_default().push(written);
        }
    }
}
