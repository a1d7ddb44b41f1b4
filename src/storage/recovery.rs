//! Opening a data directory: replay the journals, cut what a crash tore, settle every name, then go on.
//!
//! Works for any number of shards: logs keep their ids, names go to whoever owns them now; when the number changed, a
//! checkpoint of everything is written before anything is served. Everything found is synced before anyone is told, because a killed process leaves in
//! the page cache what a power cut would still take. Invariant: nothing is removed that a durable record needs.
//! Runs before shards serve, on any thread; blocks.

pub(super) mod anew;
mod facts;
pub(super) mod finding;
pub(super) mod format;
mod linked;
mod moved;
mod numbers;
pub(super) mod owned;
mod parts;
pub(super) mod replay;
pub(super) mod settle;

use super::ahead::{self, Place, segment_number};
use super::bulk::segment::Segment;
use super::bulk::space::RUN_MIN;
use super::checkpoint::round::{self, Rounds};
use super::checkpoint::{Manifest, directory, remove_others};
use super::error::OpenError;
use super::extent::LogId;
use super::header::{HEADER, Kind};
use super::journal::record::Record;
use super::journal::writer::{self, Position, Writer};
use super::names::SHARDS_MAX;
use super::tally::Tally;
use super::{LOCK, Options, ShardImage, Shared};
use crate::runtime::clock::Clock;
use crate::runtime::{Disk, File, Moment, ShardId};
use facts::{Facts, Shelves, side_by_side};
use finding::Finding;
use format::Format;
use moved::Moved;
use owned::{Owned, settle_names};
use replay::{LogEnd, checked_header};
use settle::Segments;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// See [`super::Store::open_all`].
pub(super) fn open_all(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
) -> Result<Vec<ShardImage>, OpenError> {
    check(options)?;
    disk.create_dir(dir).map_err(io(dir))?;
    let lock: Arc<dyn Send + Sync> = Arc::new(take_lock(&**disk, dir)?);
    let mut format = Format::open(&**disk, dir, options.shards)?;
    let place = Place { dir: dir.to_owned(), secret: format.secret, segment_size: options.segment_size };
    for name in ["checkpoint", "quarantine"] {
        let path = dir.join(name);
        disk.create_dir(&path).map_err(io(&path))?;
    }
    for &log in &format.logs {
        for kind in [Kind::Journal, Kind::Bulk] {
            let path = place.log_dir(kind, log);
            disk.create_dir(&path).map_err(io(&path))?;
        }
    }
    let tally = Tally::new(options.part_of);
    let Look { manifest, facts, mut ends, mut bulk, mut owned } =
        look(&**disk, &place, &format.logs, options.shards, &tally)?;
    for link in &owned.fallen {
        tracing::warn!(
            log = link.log.0,
            seq = link.seq,
            "bytes did not outlive the crash; what they replaced is back"
        );
    }
    let before = manifest.clone().unwrap_or_default();
    if facts.boot_max >= format.boot {
        tracing::error!(boot = format.boot, found = facts.boot_max, "FORMAT is older than the journals");
        let raised = Format::raise(&**disk, dir, facts.boot_max + 1)?;
        format = Format { shards_before: format.shards_before, ..raised };
    }
    let mut images = Vec::new();
    let useless: Vec<PathBuf> = ends.iter().flat_map(|end| end.useless.clone()).collect();
    // From here on something changes. What was found becomes durable; then the cuts do, in logs that do not say
    // yet that anything more is durable, or a mark that was not believed would be believed by the next start if
    // its log outlived the cut's. Only then garbage goes.
    sync_found(&**disk, &ends, &owned.unsynced)?;
    let mut starts = Vec::new();
    let fresh: Vec<u64> = (0..options.shards).map(|shard| fresh_bytes(&ends, shard)).collect();
    for shard in 0..options.shards {
        let at = ends.iter().position(|end| end.log.0 == shard as u16).expect("every shard has a log");
        let beginning = Beginning { shards: options.shards, boot: format.boot };
        starts.push(beginning.write(&**disk, &place, ends.swap_remove(at), &owned, shard)?);
    }
    if !facts.has_losses() {
        bulk.retire_dead(&**disk, options.shards)?;
    }
    for path in &useless {
        disk.remove(path).map_err(io(path))?;
    }
    if facts.lost_unknown == 0 {
        // With losses, a manifest may be among them, and these chunks what it named.
        remove_others(&**disk, &place, &before, None).map_err(io(&directory(&place)))?;
    }
    let mut current = manifest;
    let refused = facts.lost_unknown > 0;
    // Logs without a shard are read for ever unless a checkpoint stands in for them.
    let orphaned = ends.iter().any(|end| end.position.is_some() || !end.older.is_empty());
    let other_shards = orphaned || format.shards_before.is_some_and(|shards| shards != options.shards);
    if other_shards && !refused {
        let moved = Moved { disk: &**disk, place: &place, boot: format.boot, before: &before };
        let logs = moved.logs(&starts, &ends, &bulk);
        let floor = facts.epoch_max;
        let manifest = moved.write(&mut owned, logs, &bulk, floor)?;
        remove_others(&**disk, &place, &manifest, None).map_err(io(&directory(&place)))?;
        current = Some(manifest);
        moved.remove_journals(&mut starts, &ends)?;
    }
    let rounds = Arc::new(Rounds::new(options.shards, format.boot, current.clone(), refused));
    for &log in &format.logs {
        let path = place.log_dir(Kind::Journal, log);
        disk.sync_dir(&path).map_err(io(&path))?;
    }
    let shared = Shared::default();
    for (shard, start) in starts.into_iter().enumerate() {
        let next_chunk = current.as_ref().map_or(0, |manifest| manifest.next_chunk(LogId(shard as u16)));
        let checkpoint = round::Parts {
            rounds: rounds.clone(),
            since: if other_shards && !refused { 0 } else { fresh[shard] },
            next_chunk,
            segment_len: place.segment_len(Kind::Journal),
        };
        let (current, held, bulk_number) = bulk.of_shard(shard, options.shards);
        images.push(ShardImage {
            shard: ShardId(shard as u16),
            shards: options.shards,
            disk: disk.clone(),
            place: place.clone(),
            durability: options.durability,
            sync_interval: options.sync_interval,
            boot: format.boot,
            journal_count: start.position.older.len() + 1,
            journal: start.position,
            journal_number: start.next_number,
            checkpoint,
            shared: shared.clone(),
            bulk_current: current,
            bulk_held: held,
            bulk_number,
            names: std::mem::take(&mut owned.names[shard]),
            links: std::mem::take(&mut owned.links[shard]),
            bodies: owned.ends.take(shard),
            damaged: std::mem::take(&mut owned.damaged[shard]),
            records_damaged: if shard == 0 { facts.lost_records } else { 0 },
            ends_untold: std::mem::take(&mut owned.ends_untold[shard]),
            epoch_floor: facts.epoch_max,
            tally: tally.clone(),
            lock: lock.clone(),
        });
    }
    Ok(images)
}

/// What a data directory holds: read and settled, and nothing of it changed.
pub(super) struct Look {
    pub(super) manifest: Option<Manifest>,
    pub(super) facts: Facts,
    pub(super) ends: Vec<LogEnd>,
    pub(super) bulk: Bulk,
    pub(super) owned: Owned,
}

/// Reads everything that a start needs.
pub(super) fn look(
    disk: &dyn Disk,
    place: &Place,
    logs: &[LogId],
    shards: usize,
    tally: &Tally,
) -> Result<Look, OpenError> {
    let manifest = Manifest::load(disk, place)?;
    let before = manifest.clone().unwrap_or_default();
    let phases = Phases::begin();
    let much = has_much(disk, place, logs)?;
    let replay = |log| replay::replay(disk, place, log, before.covered(log), shards);
    let (mut ends, mut found) = (Vec::new(), Vec::new());
    for replayed in side_by_side(logs.to_vec(), much, replay) {
        let (end, shelves) = replayed?;
        ends.push(end);
        found.push(shelves);
    }
    let mut shelves = Shelves::merge(found, much);
    let mut facts = shelves.take_common();
    phases.over("journals were read", facts.records);
    facts.boot_max = facts.boot_max.max(before.boot);
    for used in &before.segments {
        facts.use_bulk(LogId(used.log), used.number, used.used);
    }
    facts.epoch_max = facts.epoch_max.max(before.epoch_floor);
    for end in ends.iter().filter(|end| end.position.is_none()) {
        // A shard writes its journal before anything else, and the last segment of it stays, until a checkpoint that
        // covers the log is of fewer shards.
        let wrote = || facts.bulk_used.keys().any(|(log, _)| *log == end.log);
        let served = end.log.0 < before.shards || (before.covered(end.log).is_none() && wrote());
        if served {
            let dir = place.log_dir(Kind::Journal, end.log);
            tracing::error!(dir = %dir.display(), "there was a journal and there is none");
            facts.findings.push(Finding::NoJournal { dir });
            facts.lost_unknown += 1;
        }
    }
    let bulk = open_bulk(disk, place, logs, &before, &mut facts, shards)?;
    let notes = (&mut facts, &mut shelves);
    let ended = parts::read(disk, place, &before, &bulk.segments, shards, tally, notes)?;
    phases.over("the checkpoint was read", ended.iter().map(|names| names.len() as u64).sum());
    let names = shelves.names() as u64;
    let mut owned = settle_names(&mut facts, shelves, &bulk.segments, ended, tally);
    phases.over("names were settled", names);
    linked::settle_links(&mut facts, &mut owned, tally);
    phases.over("links were settled", owned.links.iter().map(|links| links.len() as u64).sum());
    Ok(Look { manifest, facts, ends, bulk, owned })
}

/// Journals with fewer bytes than this are read one after the other.
const WORTH_THREADS: u64 = 32 << 20;

/// Whether there is enough in the journals to be worth threads.
fn has_much(disk: &dyn Disk, place: &Place, logs: &[LogId]) -> Result<bool, OpenError> {
    let mut files = 0;
    for &log in logs {
        files += list(disk, &place.log_dir(Kind::Journal, log))?.len() as u64;
    }
    Ok(files * place.segment_len(Kind::Journal) >= WORTH_THREADS)
}

/// Tells what a start spends its time on.
struct Phases {
    clock: Clock,
    since: Cell<Moment>,
}

impl Phases {
    fn begin() -> Self {
        let clock = Clock::machine();
        Phases { since: Cell::new(clock.now()), clock }
    }

    fn over(&self, phase: &'static str, count: u64) {
        let now = self.clock.now();
        let took = now - self.since.replace(now);
        tracing::info!(phase, count, ms = took.as_millis() as u64, "starting");
    }
}

/// The names in a directory; none in one that is not there.
fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, OpenError> {
    match disk.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(io(dir)),
    }
}

/// Names the file in an error of the system.
pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> OpenError {
    move |error| OpenError::Io(path.to_owned(), error)
}

const SEGMENT_SIZE_MIN: u64 = 64 << 10;
const SEGMENT_SIZE_MAX: u64 = 16 << 30;

fn check(options: &Options) -> Result<(), OpenError> {
    if !(1..=SHARDS_MAX).contains(&options.shards) {
        return Err(OpenError::Option { name: "shards", accepted: "1 to 1024" });
    }
    let size = options.segment_size;
    if !(SEGMENT_SIZE_MIN..=SEGMENT_SIZE_MAX).contains(&size) || !size.is_multiple_of(4096) {
        let accepted = "64KiB to 16GiB, in multiples of 4KiB";
        return Err(OpenError::Option { name: "segment_size", accepted });
    }
    Ok(())
}

fn take_lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Send + Sync>, OpenError> {
    let path = dir.join(LOCK);
    disk.lock(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => OpenError::Locked(dir.to_owned()),
        _ => OpenError::Io(path, error),
    })
}

/// The bulk files, and the next number of each log.
pub(super) struct Bulk {
    pub(super) segments: Segments,
    numbers: BTreeMap<LogId, u32>,
    /// Files that no mark ever named: made ahead.
    unused: Vec<PathBuf>,
}

fn open_bulk(
    disk: &dyn Disk,
    place: &Place,
    logs: &[LogId],
    before: &Manifest,
    facts: &mut Facts,
    shards: usize,
) -> Result<Bulk, OpenError> {
    let mut bulk = Bulk { segments: Segments::new(), numbers: BTreeMap::new(), unused: Vec::new() };
    for covered in before.logs.iter().filter(|covered| covered.bulk_next > 0) {
        bulk.take_number(LogId(covered.log), covered.bulk_next - 1);
    }
    // A number that a mark names is taken, even if its file is long gone.
    for &(log, number) in facts.bulk_used.keys() {
        bulk.take_number(log, number);
    }
    for &log in logs {
        let dir = place.log_dir(Kind::Bulk, log);
        let names = list(disk, &dir)?;
        for number in names.iter().filter_map(|name| segment_number(Kind::Bulk, name)) {
            bulk.take_number(log, number);
            let path = place.segment_path(Kind::Bulk, log, number);
            let Some(&used) = facts.bulk_used.get(&(log, number)).filter(|&&used| used > HEADER) else {
                bulk.unused.push(path);
                continue;
            };
            let file = disk.open(&path).map_err(io(&path))?;
            let mut page = vec![0; HEADER as usize];
            file.read_at(&mut page, 0).map_err(io(&path))?;
            let header = checked_header(place, Kind::Bulk, log, number, &page, &path)?;
            facts.note_header(&path, &header, &page, Some((log, number)));
            facts.note_length(&path, &page, file.len(), Some((log, number)));
            // Bytes behind the last mark were never published. What goes on there begins on a page of its own.
            let used = used.next_multiple_of(4096).min(file.len()).max(HEADER);
            let segment = Segment::new(log, number, header.generation, file, Arc::new(path), shards, used);
            bulk.segments.insert((log, number), Arc::new(segment));
        }
    }
    Ok(bulk)
}

impl Bulk {
    fn take_number(&mut self, log: LogId, number: u32) {
        let next = self.numbers.entry(log).or_default();
        *next = (*next).max(number + 1);
    }

    /// Counts what nothing refers to, and removes files in which nothing is left.
    fn retire_dead(&mut self, disk: &dyn Disk, shards: usize) -> Result<(), OpenError> {
        let mut gone: Vec<PathBuf> = std::mem::take(&mut self.unused);
        let mut dirs = BTreeSet::new();
        for ((log, _), segment) in &self.segments {
            let shard = usize::from(log.0) % shards;
            segment.count_unclaimed_as_dead(shard);
            if segment.dead() == segment.used() - HEADER {
                gone.push(segment.path.to_path_buf());
            }
        }
        self.segments.retain(|_, segment| segment.dead() < segment.used() - HEADER);
        for path in gone {
            disk.remove(&path).map_err(io(&path))?;
            dirs.extend(path.parent().map(Path::to_owned));
        }
        dirs.iter().try_for_each(|dir| disk.sync_dir(dir).map_err(io(dir)))
    }

    /// What `shard` goes on in, what it holds with the logs it adopts, and the next number of its log.
    fn of_shard(&self, shard: usize, shards: usize) -> (Option<Arc<Segment>>, Vec<Arc<Segment>>, u32) {
        let adopted = |log: LogId| usize::from(log.0) % shards == shard;
        let mut held: Vec<_> = self
            .segments
            .iter()
            .filter(|((log, _), _)| adopted(*log))
            .map(|(_, segment)| segment.clone())
            .collect();
        held.sort_by_key(|segment| (segment.log, segment.number));
        let own = LogId(shard as u16);
        let current = held.iter().rfind(|segment| segment.log == own).cloned();
        let current = current.filter(|segment| segment.file.len() - segment.used() >= RUN_MIN);
        for segment in &held {
            if current.as_ref().is_none_or(|current| !Arc::ptr_eq(current, segment)) {
                segment.seal();
            }
        }
        (current, held, self.numbers.get(&own).copied().unwrap_or(0))
    }
}

/// Makes durable what was found and nobody said is. It is written again, byte for byte, before it is synced: if a
/// sync of the killed process failed unseen, the kernel holds these bytes for clean, and a sync alone would
/// succeed without storing them.
fn sync_found(
    disk: &dyn Disk,
    ends: &[LogEnd],
    unsynced: &[(Arc<Segment>, Range<u64>)],
) -> Result<(), OpenError> {
    let mut segments: Vec<&Arc<Segment>> = Vec::new();
    for (segment, place) in unsynced {
        write_again(&segment.file, place).map_err(io(&segment.path))?;
        // There are few, and each is synced once however many streams it holds.
        if !segments.iter().any(|known| Arc::ptr_eq(known, segment)) {
            segments.push(segment);
        }
    }
    for segment in segments {
        sync_now(&segment.file).map_err(io(&segment.path))?;
    }
    for (path, place) in ends.iter().flat_map(|end| &end.unsynced) {
        let file = disk.open(path).map_err(io(path))?;
        write_again(&file, place).map_err(io(path))?;
        sync_now(&file).map_err(io(path))?;
    }
    Ok(())
}

fn write_again(file: &File, place: &Range<u64>) -> std::io::Result<()> {
    let len_max = (place.end - place.start).min(256 * 1024) as usize;
    let mut piece = vec![0; len_max];
    for at in place.clone().step_by(len_max.max(1)) {
        let piece = &mut piece[..(place.end - at).min(len_max as u64) as usize];
        file.read_exact_at(piece, at)?;
        file.write_at(piece, at)?;
    }
    Ok(())
}

/// What every log says first in this start.
struct Beginning {
    shards: usize,
    boot: u32,
}

/// Where a log goes on.
struct Start {
    position: Position,
    next_number: u32,
}

/// Bytes of journal records that no checkpoint covers, as far as `shard` will write on that log.
fn fresh_bytes(ends: &[LogEnd], shard: usize) -> u64 {
    ends.iter().filter(|end| usize::from(end.log.0) == shard).map(|end| end.fresh_bytes).sum()
}

impl Beginning {
    /// Writes and syncs the start and the epochs that it begins.
    fn write(
        &self,
        disk: &dyn Disk,
        place: &Place,
        end: LogEnd,
        owned: &Owned,
        shard: usize,
    ) -> Result<Start, OpenError> {
        let log = end.log;
        let (position, mut next_number) = go_on(disk, place, end)?;
        let mut writer = Writer::new(position, self.boot);
        writer.append(&Record::Boot { shards: self.shards as u16 }, 0);
        for fallen in owned.fallen.iter().chain(&owned.unmoved).filter(|fallen| fallen.log == log) {
            writer.append(&Record::Abort { from: fallen.seq, to: fallen.seq }, 0);
        }
        for raised in &owned.raised[shard] {
            if let Some(mark) = &raised.mark {
                writer.append(&Record::Mark(mark.clone()), raised.key_hash);
            }
            let record = Record::Epoch { uid: raised.uid, epoch: raised.epoch, cut: raised.cut };
            writer.append(&record, raised.key_hash);
        }
        let mut fault = None;
        let flushed = writer.flush(|| {
            let made = make_journal(disk, place, log, next_number);
            next_number += 1;
            made.map_err(|error| fault = Some(error)).ok()
        });
        if let Some(error) = fault {
            return Err(error);
        }
        let path = writer.path().clone();
        flushed.map_err(io(&path))?;
        let segments = writer.unsynced_segments();
        for segment in &segments {
            sync_now(&segment.file).map_err(io(&segment.path))?;
        }
        writer.synced(writer.flushed_seq(), &segments);
        drop(segments);
        Ok(Start { position: writer.into_position(), next_number })
    }
}

/// Where the log goes on; makes its first segment if it has none.
fn go_on(disk: &dyn Disk, place: &Place, end: LogEnd) -> Result<(Position, u32), OpenError> {
    let (next_seq, synced_seq) = (end.next_seq, end.settled_seq.min(end.next_seq - 1));
    if let Some((path, header, at)) = end.position {
        let file = disk.open(&path).map_err(io(&path))?;
        // A file that was cut short is full.
        let at = at.min(file.len());
        let segment = writer::Segment { generation: header.generation, file, path: Arc::new(path) };
        let position = Position { segment, at, next_seq, synced_seq, older: end.older };
        return Ok((position, end.next_number));
    }
    let segment = make_journal(disk, place, end.log, end.next_number)?;
    Ok((Position { segment, at: HEADER, next_seq, synced_seq, older: end.older }, end.next_number + 1))
}

fn make_journal(
    disk: &dyn Disk,
    place: &Place,
    log: LogId,
    number: u32,
) -> Result<writer::Segment, OpenError> {
    let header = place.header(Kind::Journal, log, number);
    let path = place.segment_path(Kind::Journal, log, number);
    let made = ahead::make(disk, &path, place.segment_len(Kind::Journal), &header);
    let file = made.map_err(io(&path))?;
    sync_now(&file).map_err(io(&path))?;
    Ok(writer::Segment { generation: header.generation, file, path: Arc::new(path) })
}

/// Syncs on a thread without a ring, where the sync is over when it is first asked.
pub(super) fn sync_now(file: &File) -> std::io::Result<()> {
    let mut syncing = file.sync_data();
    match Pin::new(&mut syncing).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(std::io::Error::new(
            std::io::ErrorKind::Unsupported,
            "a sync before shards serve has to be over at once",
        )),
    }
}
