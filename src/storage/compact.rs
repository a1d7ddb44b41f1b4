//! Compaction: what is alive in segments that are mostly dead is copied elsewhere, so that their files can go.
//!
//! The shard that holds segments picks those to be emptied, once what is dead in them outweighs a share of what is
//! alive, and says so on the segment. Every owner then walks its names, copies the runs of theirs that lie there into
//! its own space, and writes a `Moved` record for each. When that is durable the run's place changes under its readers,
//! and the old bytes count as dead; whoever counts the last ones unlinks the file.
//!
//! A run moves only when it is final: its bytes, checksums and verified windows stay what they are. Copies are checked
//! on the way, so damage is not copied and keeps its segment. Like a mark, a `Moved` record that nobody called durable
//! is believed after a crash only if its data fits, and the old place is still there then. A run whose stream begins
//! behind it by the time its copy is done stays given up, and the copy is dead.
//!
//! Invariant: old bytes die only when the record of the new place is durable.
//! Lives on: one task per shard; copying is the workers'.

use super::Health;
use super::bulk::segment::{HEADER, Segment};
use super::checkpoint::{self, round::Untold};
use super::core::Core;
use super::error::StoreError;
use super::journal::record::{Mark, Record};
use super::names::Entry;
use super::reclaim;
use super::tail::{Place, Placed, Tail};
use crate::runtime::executor::critical;
use crate::runtime::{Moment, blocking, shard, timer};
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Names looked at between two chances for everything else on the shard.
const NAMES_PER_STEP: usize = 256;
/// Bytes a shard copies per second; twice as many while what is dead in full segments is more than one part in this many
/// of what is alive.
const BUDGET: u64 = 96 << 20;
const DEAD_MUCH: u64 = 5;
/// How long after a look at the segments the next one comes, at least.
const PAUSE: Duration = Duration::from_millis(250);
/// Bytes copied whose records are not durable yet: beyond that, the oldest of them are waited for.
const UNSETTLED_MAX: u64 = 32 << 20;
/// Segments are emptied once more than one part in this many is dead in those that are full…
const DEAD_SHARE: u64 = 8;
/// …until no more than one in this many would be…
const DEAD_LEFT: u64 = 12;
/// …and with this much alive in them together, or one part in [`ROUND_SHARE`] of all that is, they are enough at once: a
/// segment goes when the last of it was copied, so in the meantime all that is alive in them lies there twice.
const ROUND_MIN: u64 = 48 << 20;
const ROUND_SHARE: u64 = 24;

/// One shard's side.
pub struct State {
    /// How often segments were marked to be emptied, by any shard.
    rounds: Arc<AtomicU64>,
    /// Something died since the last look, and whether the task was told so.
    dirty: Cell<bool>,
    told: Cell<bool>,
    looked: Cell<Option<Moment>>,
    /// So much is dead that copying may take more.
    is_behind: Cell<bool>,
}

impl State {
    /// Shares `rounds` with all shards. Looks once, because a start may find what is dead.
    pub fn new(rounds: Arc<AtomicU64>) -> Self {
        State {
            rounds,
            dirty: Cell::new(true),
            told: Cell::new(true),
            looked: Cell::new(None),
            is_behind: Cell::new(false),
        }
    }

    /// Takes note that something died.
    pub fn note_dead(&self) {
        self.dirty.set(true);
    }

    /// Whether the task has to be told; true once.
    pub fn wants_look(&self) -> bool {
        self.dirty.get() && !self.told.replace(true)
    }
}

/// The task: looks when something died, copies when segments are to be emptied.
pub(super) async fn run(core: Rc<Core>) {
    let state = &core.compact;
    let mut seen = state.rounds.load(Ordering::Acquire);
    loop {
        let told = core.peers.told();
        if core.closing.get() || core.health.get() != Health::Serving {
            return;
        }
        let round = state.rounds.load(Ordering::Acquire);
        if round != seen {
            drop(told);
            seen = round;
            if let Err(error) = empty_segments(&core).await {
                tracing::info!(shard = core.shard.0, %error, "segments stay as they are for the time being");
            }
        } else if state.dirty.get() {
            drop(told);
            pause(&core).await;
            state.dirty.set(false);
            state.told.set(false);
            if pick(&core) {
                state.rounds.fetch_add(1, Ordering::AcqRel);
                core.peers.tell();
            }
        } else {
            told.await;
        }
    }
}

async fn pause(core: &Core) {
    let state = &core.compact;
    if let Some(looked) = state.looked.get() {
        let closing = core.peers.until(|| core.closing.get());
        timer::until(looked + PAUSE, closing).await;
    }
    state.looked.set(Some(shard::now()));
}

/// Marks segments to be emptied, those with the most dead bytes first; whether there are any.
fn pick(core: &Core) -> bool {
    let held = core.space.held();
    let dead_of = |segment: &Segment| segment.dead().min(segment.used() - HEADER);
    let alive: u64 = held.iter().map(|segment| segment.used() - HEADER - dead_of(segment)).sum();
    let mut full: Vec<_> = held
        .iter()
        .filter(|segment| segment.is_sealed() && !segment.is_poisoned() && !segment.is_retired())
        .map(|segment| (dead_of(segment), segment))
        .collect();
    let mut dead: u64 = full.iter().map(|(dead, _)| dead).sum();
    if dead <= alive / DEAD_SHARE {
        return false;
    }
    full.sort_by_key(|(dead, segment)| std::cmp::Reverse(dead * 1024 / (segment.used() - HEADER).max(1)));
    core.compact.is_behind.set(dead > alive / DEAD_MUCH);
    let (mut any, mut to_copy, enough) = (false, 0, ROUND_MIN.max(alive / ROUND_SHARE));
    for (its_dead, segment) in full {
        if dead <= alive / DEAD_LEFT || its_dead == 0 || to_copy >= enough {
            break;
        }
        // One of an earlier round counts as gone, but not for what is enough: a stream that grows may keep it for long.
        if !segment.is_emptying() {
            to_copy += segment.used() - HEADER - its_dead;
            segment.empty();
        }
        dead -= its_dead;
        any = true;
    }
    any
}

/// A run that was copied; its record is decided.
struct Copied {
    seq: u64,
    len: u64,
    entry: Entry,
    start: u64,
    place: Place,
    untold: Untold,
}

/// Moves what lies in segments that are to be emptied.
async fn empty_segments(core: &Rc<Core>) -> Result<(), StoreError> {
    let mut copied = VecDeque::new();
    let walked = walk(core, &mut copied).await;
    // Also where the walk ended early: else nobody would know that the copies are there.
    settle(core, &mut copied, 0).await;
    walked
}

/// Walks all names and copies.
async fn walk(core: &Rc<Core>, copied: &mut VecDeque<Copied>) -> Result<(), StoreError> {
    let mut after = None;
    let mut due = shard::now();
    loop {
        let entries = core.durable_entries(after.as_ref(), NAMES_PER_STEP);
        let Some((last, _)) = entries.last() else { return Ok(()) };
        after = Some(last.clone());
        for entry in entries.into_iter().filter_map(|(_, entry)| entry) {
            let mut index = 0;
            while let Some(found) = next_to_move(&entry.tail, index) {
                index = found + 1;
                if core.closing.get() || core.health.get() != Health::Serving {
                    return Err(StoreError::Closing);
                }
                let Some(moved) = copy(core, &entry, found).await? else { continue };
                let budget = if core.compact.is_behind.get() { 2 * BUDGET } else { BUDGET };
                due = due.max(shard::now()) + Duration::from_nanos(moved.len * 1_000_000_000 / budget);
                copied.push_back(moved);
                settle(core, copied, UNSETTLED_MAX).await;
                timer::sleep_until(due).await;
            }
        }
        shard::yield_now().await;
    }
}

/// The next final run, from `index` on, that lies in a segment to be emptied.
fn next_to_move(tail: &Tail, index: usize) -> Option<usize> {
    if tail.has_failed() {
        return None;
    }
    let attached = tail.is_attached();
    let runs = tail.runs();
    (index..runs.count()).find(|&at| {
        let Some(run) = runs.at(at) else { return false };
        let end = match runs.at(at + 1) {
            Some(next) => next.start(),
            None if attached => return false,
            None => tail.published(),
        };
        // What was marked and never published is not worth the trouble.
        run.is_to_move() && run.len() > 0 && run.end() <= end && run.end() <= tail.durable()
    })
}

/// Copies one run and decides the record about it. Nothing when it is damaged, or not to be moved any more.
async fn copy(core: &Rc<Core>, entry: &Entry, index: usize) -> Result<Option<Copied>, StoreError> {
    let tail = &entry.tail;
    let run = tail.runs().at(index).expect("runs stay");
    let (Some((len, crcs)), Some(from)) = (run.filled(), run.place()) else { return Ok(None) };
    core.admit()?;
    let to = loop {
        if core.sync.is_full() {
            core.sync.look();
            core.progress.wait().await;
            continue;
        }
        if let Some(reserved) = core.space.take_whole(run.start(), len) {
            break reserved;
        }
        core.space.ahead.wait(|| core.begin_bulk_segment()).await?;
    };
    core.metrics.live_bytes.add(to.capacity as i64);
    let (source, target, offset) = (from.clone(), to.segment.clone(), to.offset);
    let expected = crcs.clone();
    let written = blocking::run(move || copy_windows(&source, &target, offset, len, &expected)).await;
    if !matches!(written, Ok(Ok(true))) {
        if matches!(written, Ok(Ok(false))) {
            run.set_stuck();
            core.metrics.windows_damaged.inc();
            tracing::error!(path = %from.segment.path.display(), offset = from.offset, "damage is not copied");
        }
        // Nothing refers to the copy.
        reclaim::count_dead(core, &to.segment, to.capacity);
        return match written {
            Ok(Err(error)) | Err(error) => Err(StoreError::from_io(&error, &to.segment.path)),
            Ok(Ok(_)) => Ok(None),
        };
    }
    core.sync.add_dirty(core, &to.segment, len);
    core.metrics.compacted_bytes.add(len);
    let segment = &to.segment;
    let mark = Mark {
        uid: tail.uid(),
        epoch: run.epoch,
        start: run.start(),
        total: run.start() + len,
        end: None,
        log: segment.log,
        segment: segment.number,
        generation: segment.generation,
        offset: to.offset,
        len,
        crcs: crcs.into(),
    };
    let seq = core.decide(&Record::Moved(mark), tail.key_hash());
    core.nudge();
    let place = Place::new(to.segment.clone(), to.offset, to.capacity);
    let untold = checkpoint::round::State::untold(core, seq);
    Ok(Some(Copied { seq, len, entry: entry.clone(), start: run.start(), place, untold }))
}

/// Copies window by window; false when one of them is not what it should be. Blocks.
fn copy_windows(from: &Place, to: &Segment, offset: u64, len: u64, crcs: &[u32]) -> std::io::Result<bool> {
    let mut bytes = vec![0; super::extent::WINDOW.min(len) as usize];
    for (&crc, at) in crcs.iter().zip((0..len).step_by(super::extent::WINDOW as usize)) {
        let piece = (len - at).min(super::extent::WINDOW) as usize;
        from.segment.file.read_exact_at(&mut bytes[..piece], from.offset + at)?;
        if crc32fast::hash(&bytes[..piece]) != crc {
            return Ok(false);
        }
        to.file.write_at(&bytes[..piece], offset + at)?;
    }
    Ok(true)
}

/// Where the records are durable, the runs lie where they say from now on. Waits for those that are not until no more
/// than `left` bytes are left.
async fn settle(core: &Rc<Core>, copied: &mut VecDeque<Copied>, left: u64) {
    loop {
        let looked = core.progress.wait();
        let synced = core.journal.borrow().synced_seq();
        let serves = core.health.get() == Health::Serving;
        while let Some(moved) =
            copied.pop_front_if(|moved| moved.seq <= synced || !serves || core.sync.void(moved.seq).is_some())
        {
            let Copied { seq, entry, start, place, untold, .. } = moved;
            if core.sync.void(seq).is_some() || seq > synced {
                // Void: what was copied is garbage, and the next start finds it so.
                continue;
            }
            if let Some((_, run)) = entry.tail.runs().last_where(|run| run.start() <= start) {
                critical(|| move_run(core, run, place));
            }
            drop(untold);
        }
        if copied.iter().map(|moved| moved.len).sum::<u64>() <= left {
            return;
        }
        core.sync.hurry();
        looked.await;
    }
}

fn move_run(core: &Core, run: &Placed, place: Place) {
    run.move_to(place, |segment, len| reclaim::count_dead(core, segment, len));
}
