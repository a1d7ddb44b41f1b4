//! Writing a checkpoint while the shards serve.
//!
//! A round has four steps. Shard 0 calls it. Every shard says up to where its journal is durable and told in memory:
//! that much the checkpoint will cover. Once all have said so, every shard writes its part from its names; whatever
//! it finds there is at least what the covered records said, once the names that it had decided are durable. When all parts are durable, shard 0 commits the
//! manifest, and every shard drops the journal segments that are covered now.
//!
//! What shards tell each other here are a few words in shared atomics; a shard that has news unparks the others,
//! which look at the start of their turn. Invariant: every shard answers every round, if only to say that it cannot;
//! a round that one shard cannot join changes nothing.
//! Lives on: one task per shard.

use super::super::Health;
use super::super::core::Core;
use super::super::error::StoreError;

use super::super::names::Entry;
use super::super::tail::Tail;
use super::part::{Chunk, PartWriter, Unready};
use super::{Chunks, Covered, Manifest, Used, directory, remove_all, remove_others};
use crate::runtime::file::Syncing;
use crate::runtime::{blocking, shard, timer};
use arc_swap::ArcSwapOption;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

/// Names looked at between two chances for everything else on the shard.
const NAMES_PER_STEP: usize = 128;
/// How often streams that are not yet durable are looked at.
const POLL: Duration = Duration::from_millis(5);
/// How long a part waits for them.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the shards of one store share about checkpoints.
pub struct Rounds {
    /// The checkpoint that counts, or counted at the start.
    manifest: ArcSwapOption<Manifest>,
    boot: u32,
    /// Somebody's journal is long.
    wanted: AtomicBool,
    /// The round that runs or ran last.
    round: AtomicU32,
    /// The last one that is over, and the last one of them that was committed.
    over: AtomicU32,
    committed: AtomicU32,
    /// The last one whose manifest may be on disk, whether or not writing it succeeded.
    attempted: AtomicU32,
    said: Box<[ArcSwapOption<Said>]>,
    /// Shards that will change nothing any more, and once more when they are content with what is stored.
    finishing: AtomicU32,
    refused: bool,
}

/// What a shard said in a round.
struct Said {
    round: u32,
    what: What,
}

enum What {
    /// Up to where its journal will be covered.
    Noted,
    /// Its part is durable.
    Written(Part),
    /// It cannot.
    Failed,
}

/// One shard's contribution.
struct Part {
    covered: Covered,
    chunks: Vec<(u32, u64)>,
    segments: Vec<Used>,
    damaged: Vec<u64>,
    epoch_floor: u64,
}

impl Rounds {
    /// For `shards` shards that start from `manifest`. With `refused`, no checkpoint is written in this life: a start
    /// that lost records it cannot tell the names of keeps everything for a repair.
    pub fn new(shards: usize, boot: u32, manifest: Option<Manifest>, refused: bool) -> Self {
        let number = manifest.as_ref().map_or(0, |manifest| manifest.number);
        let [round, over, committed, attempted] = [number; 4].map(AtomicU32::new);
        Rounds {
            manifest: ArcSwapOption::from_pointee(manifest),
            boot,
            wanted: AtomicBool::new(false),
            round,
            over,
            committed,
            attempted,
            said: (0..shards).map(|_| ArcSwapOption::empty()).collect(),
            finishing: AtomicU32::new(0),
            refused,
        }
    }

    fn has_all(&self, round: u32, said: impl Fn(&What) -> bool) -> bool {
        let in_round = |slot: &ArcSwapOption<Said>| {
            slot.load().as_ref().is_some_and(|last| last.round == round && said(&last.what))
        };
        self.said.iter().all(in_round)
    }

    fn has_failed(&self, round: u32) -> bool {
        let failed = |slot: &ArcSwapOption<Said>| {
            let last = slot.load();
            // A shard that is gone said so once, for all rounds.
            last.as_ref().is_some_and(|last| last.round >= round && matches!(last.what, What::Failed))
        };
        self.said.iter().any(failed)
    }
}

/// One shard's side.
pub struct State {
    rounds: Arc<Rounds>,
    round: Cell<u32>,
    /// Journal bytes written since what the last checkpoint covers.
    since: Cell<u64>,
    /// At how many of them the next one is wanted.
    wanted_at: Cell<u64>,
    threshold: u64,
    next_chunk: Cell<u32>,
    /// Sequences of records that may be durable and are not told in memory: ends of streams, moves of runs.
    untold: RefCell<BTreeSet<u64>>,
}

/// What recovery knows about a shard's side.
pub struct Parts {
    /// Shared by all.
    pub rounds: Arc<Rounds>,
    /// Bytes of its journal that no checkpoint covers.
    pub since: u64,
    /// The number of its next chunk.
    pub next_chunk: u32,
    /// Bytes of a journal segment.
    pub segment_len: u64,
}

impl State {
    pub(in super::super) fn new(parts: Parts) -> Self {
        let round = Cell::new(parts.rounds.round.load(Ordering::Acquire));
        State {
            rounds: parts.rounds,
            round,
            since: Cell::new(parts.since),
            wanted_at: Cell::new(parts.segment_len),
            threshold: parts.segment_len,
            next_chunk: Cell::new(parts.next_chunk),
            untold: RefCell::default(),
        }
    }

    /// Takes note of the journal's growth.
    pub(in super::super) fn add_journal_bytes(&self, core: &Core, bytes: u64) {
        self.since.set(self.since.get() + bytes);
        if self.since.get() >= self.wanted_at.get() && core.health.get() == Health::Serving {
            self.wanted_at.set(self.since.get() + self.threshold);
            self.want(core);
        }
    }

    fn want(&self, core: &Core) {
        if !self.rounds.refused {
            self.rounds.wanted.store(true, Ordering::Release);
            core.peers.tell();
        }
    }

    /// The record with this sequence is decided, and told in memory only when the returned value is dropped: until
    /// then no checkpoint covers it.
    pub(in super::super) fn untold(core: &Rc<Core>, seq: u64) -> Untold {
        core.checkpoint.untold.borrow_mut().insert(seq);
        Untold { core: core.clone(), seq }
    }

    fn say(&self, core: &Core, round: u32, what: What) {
        self.rounds.said[core.shard.index()].store(Some(Arc::new(Said { round, what })));
        core.peers.tell();
    }
}

/// See [`State::untold`].
pub struct Untold {
    core: Rc<Core>,
    seq: u64,
}

impl Drop for Untold {
    fn drop(&mut self) {
        self.core.checkpoint.untold.borrow_mut().remove(&self.seq);
    }
}

/// The task: takes part in rounds until the store is closed. Shard 0 calls them.
pub(in super::super) async fn run(core: Rc<Core>) {
    let state = &core.checkpoint;
    loop {
        let looked = core.peers.told();
        let round = state.rounds.round.load(Ordering::Acquire);
        if round > state.round.get() {
            drop(looked);
            state.round.set(round);
            take_part(&core, round).await;
        } else if core.closing.get() {
            state.say(&core, u32::MAX, What::Failed);
            return;
        } else if core.shard.0 == 0 && state.rounds.wanted.swap(false, Ordering::AcqRel) {
            state.rounds.round.store(round + 1, Ordering::Release);
            core.peers.tell();
        } else {
            looked.await;
        }
    }
}

async fn take_part(core: &Rc<Core>, round: u32) {
    let (state, begun) = (&core.checkpoint, shard::now());
    let since = state.since.get();
    let chunk_before = state.next_chunk.get();
    let written = match write_part(core, round).await {
        Ok((part, bytes)) => {
            state.say(core, round, What::Written(part));
            bytes
        }
        Err(error) => {
            tracing::info!(shard = core.shard.0, round, %error, "no checkpoint this time");
            state.say(core, round, What::Failed);
            0
        }
    };
    if core.shard.0 == 0 {
        lead(core, round).await;
    }
    core.peers.until(|| state.rounds.over.load(Ordering::Acquire) >= round).await;
    let committed = state.rounds.committed.load(Ordering::Acquire) == round;
    if committed {
        state.since.set(state.since.get() - since);
        // So that checkpoints are no more than twice what journals are, and the next start does not read much more.
        state.wanted_at.set(state.threshold.max(written / 2));
        core.metrics.checkpoints.inc();
        core.metrics.checkpoint_latency.record(shard::now() - begun);
    } else {
        state.wanted_at.set(state.since.get() + state.threshold);
        core.metrics.checkpoints_abandoned.inc();
    }
    // Until one is committed, whatever was attempted since the last commit may be what the next start reads.
    let attempted = state.rounds.attempted.load(Ordering::Acquire);
    if attempted == state.rounds.committed.load(Ordering::Acquire) {
        clean_up(core, chunk_before).await;
    }
}

/// Shard 0: waits for the parts and commits them.
async fn lead(core: &Rc<Core>, round: u32) {
    let rounds = core.checkpoint.rounds.clone();
    let written = |what: &What| matches!(what, What::Written(_));
    core.peers.until(|| rounds.has_failed(round) || rounds.has_all(round, written)).await;
    if !rounds.has_failed(round) && rounds.has_all(round, written) {
        let manifest = manifest(&rounds, round, core.shards);
        rounds.attempted.store(round, Ordering::Release);
        let (disk, place, stored) = (core.disk.clone(), core.place.clone(), manifest.clone());
        match blocking::run(move || stored.store(&*disk, &place)).await.and_then(|stored| stored) {
            Ok(()) => {
                rounds.manifest.store(Some(Arc::new(manifest)));
                rounds.committed.store(round, Ordering::Release);
            }
            // One copy may be there, so the next start may read either checkpoint: both are kept whole.
            Err(error) => tracing::warn!(round, %error, "the checkpoint's manifest could not be written"),
        }
    }
    rounds.over.store(round, Ordering::Release);
    core.peers.tell();
}

fn manifest(rounds: &Rounds, number: u32, shards: usize) -> Manifest {
    let mut manifest = Manifest { number, boot: rounds.boot, shards: shards as u16, ..Manifest::default() };
    for (shard, slot) in rounds.said.iter().enumerate() {
        let said = slot.load();
        let Some(Said { what: What::Written(part), .. }) = said.as_deref() else { continue };
        manifest.logs.push(part.covered);
        manifest.segments.extend(&part.segments);
        manifest.damaged.extend(&part.damaged);
        manifest.epoch_floor = manifest.epoch_floor.max(part.epoch_floor);
        manifest.parts.push(Chunks { shard: shard as u16, chunks: part.chunks.clone() });
    }
    // Logs without a shard were covered for good when the number of shards changed.
    if let Some(before) = rounds.manifest.load().as_ref() {
        manifest.epoch_floor = manifest.epoch_floor.max(before.epoch_floor);
        let orphans = before.logs.iter().filter(|covered| usize::from(covered.log) >= shards);
        manifest.logs.extend(orphans);
    }
    manifest
}

/// Writes this shard's part and waits until all that it says is durable. Also returns its bytes.
async fn write_part(core: &Rc<Core>, round: u32) -> Result<(Part, u64), StoreError> {
    let state = &core.checkpoint;
    if core.health.get() != Health::Serving || core.sync.is_failing() || state.rounds.refused {
        return Err(StoreError::SyncFailed);
    }
    let covered = Covered {
        log: core.log.0,
        seq: core.told_seq(),
        journal_next: core.journal_ahead.next_number(),
        bulk_next: core.space.ahead.next_number(),
    };
    let segments = core.space.held();
    let segments = segments.iter().map(|segment| Used {
        log: segment.log.0,
        number: segment.number,
        used: segment.used(),
    });
    let segments = segments.collect();
    state.say(core, round, What::Noted);
    let noted = |what: &What| matches!(what, What::Noted | What::Written(_));
    core.peers.until(|| state.rounds.has_failed(round) || state.rounds.has_all(round, noted)).await;
    // Streams are appended to before their names are durable, and another shard may just have said that it covers the
    // marks of one: its name was decided here before, so it is in the part once all that is decided is durable.
    let decided = core.index.borrow().last_decided();
    core.synced(decided).await?;

    let mut writer = PartWriter::new(core.place.clone(), core.log, state.rounds.boot, state.next_chunk.get());
    let mut awaited: Vec<Awaited> = Vec::new();
    let mut stored = Stored::default();
    let mut after = None;
    loop {
        if state.rounds.has_failed(round) || core.health.get() != Health::Serving {
            return Err(StoreError::Closing);
        }
        let entries = core.durable_entries(after.as_ref(), NAMES_PER_STEP);
        let Some((last, _)) = entries.last() else { break };
        after = Some(last.clone());
        for entry in entries.into_iter().filter_map(|(_, entry)| entry) {
            let total = add(&mut writer, &entry).await?;
            if entry.tail.durable() < total {
                awaited.push(Awaited { tail: entry.tail.clone(), epoch: entry.tail.epoch(), total });
            }
            if writer.has_chunk() {
                stored.add(core, &mut writer).await?;
            }
        }
        shard::yield_now().await;
    }
    write_links(core, round, &mut writer, &mut stored).await?;
    stored.add(core, &mut writer).await?;
    stored.synced().await?;
    let (chunks, next_chunk, bytes) = writer.into_chunks();
    state.next_chunk.set(next_chunk);
    let (disk, dir) = (core.disk.clone(), directory(&core.place));
    let synced = blocking::run(move || disk.sync_dir(&dir)).await.and_then(|synced| synced);
    synced.map_err(|error| StoreError::from_io(&error, &Arc::new(directory(&core.place))))?;
    durable(core, &awaited).await?;
    let (mut damaged, epoch_floor) = core.index.borrow().losses();
    damaged.extend(core.links.borrow().losses());
    Ok((Part { covered, chunks, segments, damaged, epoch_floor }, bytes))
}

async fn write_links(
    core: &Rc<Core>,
    round: u32,
    writer: &mut PartWriter,
    stored: &mut Stored,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        if core.checkpoint.rounds.has_failed(round) || core.health.get() != Health::Serving {
            return Err(StoreError::Closing);
        }
        let links = core.durable_links(after.as_ref(), NAMES_PER_STEP);
        let Some((last, _)) = links.last() else { return Ok(()) };
        after = Some(last.clone());
        for link in links.into_iter().filter_map(|(_, link)| link) {
            writer.add_link(&link);
            if writer.has_chunk() {
                stored.add(core, writer).await?;
            }
        }
        shard::yield_now().await;
    }
}

/// Adds one name, coming back to it while its appender changes it.
async fn add(writer: &mut PartWriter, entry: &Entry) -> Result<u64, StoreError> {
    let mut cuts = Vec::new();
    loop {
        match writer.add(entry, &cuts) {
            Ok(total) => return Ok(total),
            Err(Unready::Busy) => shard::yield_now().await,
            Err(Unready::Recut(recut)) => {
                let cut = blocking::run(move || recut.checksum()).await.and_then(|cut| cut);
                cuts.push(cut.map_err(|error| StoreError::Io(error.kind(), Arc::default()))?);
            }
            Err(Unready::Failed) => return Err(StoreError::SyncFailed),
        }
    }
}

/// Chunks that are written and maybe not durable. While the disk syncs one, the next comes together.
#[derive(Default)]
struct Stored {
    /// Oldest first, at most [`SYNCS_MAX`].
    syncing: VecDeque<(Arc<PathBuf>, Syncing)>,
}

/// Chunks of one part that are synced at once.
const SYNCS_MAX: usize = 4;

impl Stored {
    /// Writes what has come together, if anything.
    async fn add(&mut self, core: &Core, writer: &mut PartWriter) -> Result<(), StoreError> {
        let Some(chunk) = writer.take_chunk() else { return Ok(()) };
        let path = chunk.path.clone();
        let disk = core.disk.clone();
        let write = move |chunk: Chunk| chunk.write(&*disk);
        let file = blocking::run(move || write(chunk)).await.and_then(|file| file);
        let file = file.map_err(|error| StoreError::from_io(&error, &path))?;
        while self.syncing.len() >= SYNCS_MAX {
            self.next().await?;
        }
        let mut syncing = file.sync_data();
        // Asked once, so that it begins.
        let begun = std::future::poll_fn(|cx| Poll::Ready(syncing.as_mut().poll(cx))).await;
        match begun {
            Poll::Ready(synced) => synced.map_err(|error| StoreError::from_io(&error, &path)),
            Poll::Pending => {
                self.syncing.push_back((path, syncing));
                Ok(())
            }
        }
    }

    /// Waits for the oldest.
    async fn next(&mut self) -> Result<(), StoreError> {
        let Some((path, syncing)) = self.syncing.pop_front() else { return Ok(()) };
        syncing.await.map_err(|error| StoreError::from_io(&error, &path))
    }

    /// Waits until all are durable.
    async fn synced(mut self) -> Result<(), StoreError> {
        while !self.syncing.is_empty() {
            self.next().await?;
        }
        Ok(())
    }
}

/// A stream that is in the part with more than is durable of it.
struct Awaited {
    tail: Arc<Tail>,
    /// Its epoch at that time.
    epoch: u64,
    total: u64,
}

/// Waits until what the part says about open streams is durable, wherever their appenders are.
async fn durable(core: &Core, awaited: &[Awaited]) -> Result<(), StoreError> {
    let deadline = shard::now() + PATIENCE;
    for Awaited { tail, epoch, total } in awaited {
        loop {
            // Taken over and cut in front of that, the stream may be as long by now with other bytes.
            let is_cut = tail.cut_of(*epoch) < *total;
            if tail.durable() >= *total && !is_cut {
                break;
            }
            let lost = is_cut || tail.has_failed() || (!tail.is_attached() && tail.published() < *total);
            if lost || shard::now() >= deadline || core.closing.get() {
                return Err(StoreError::Attached);
            }
            timer::sleep(POLL).await;
        }
    }
    Ok(())
}

/// Removes what the checkpoint that counts made superfluous: journal segments and chunks.
async fn clean_up(core: &Rc<Core>, chunk_before: u32) {
    let Some(manifest) = core.checkpoint.rounds.manifest.load_full() else {
        return remove_chunks(core, Manifest::default()).await;
    };
    let covered = manifest.covered(core.log).map_or(0, |covered| covered.seq);
    let segments = core.journal.borrow_mut().take_covered(covered);
    let count = segments.len();
    if count > 0 {
        let disk = core.disk.clone();
        let removed = blocking::run(move || remove_all(&*disk, &segments)).await.and_then(|removed| removed);
        core.metrics.segments.of(crate::observe::metrics::File::Journal).add(-(count as i64));
        // They stay as garbage then, and the next start removes them.
        if let Err(error) = removed {
            tracing::warn!(log = core.log.0, %error, "covered journal segments could not be removed");
        }
    }
    if chunk_before != core.checkpoint.next_chunk.get() {
        remove_chunks(core, Manifest::clone(&manifest)).await;
    }
}

async fn remove_chunks(core: &Rc<Core>, manifest: Manifest) {
    let (disk, place, log) = (core.disk.clone(), core.place.clone(), core.log);
    let removed = blocking::run(move || remove_others(&*disk, &place, &manifest, Some(log))).await;
    if let Err(error) = removed.and_then(|removed| removed) {
        tracing::warn!(shard = core.shard.0, %error, "old checkpoint chunks could not be removed");
    }
}

impl Core {
    /// Up to where the journal is durable and everything that it says is told in memory.
    fn told_seq(&self) -> u64 {
        let synced = self.journal.borrow().synced_seq();
        let untold = self.checkpoint.untold.borrow();
        let told = untold.first().map_or(synced, |&first| synced.min(first - 1));
        // What the next start may have to fall back from stays in the journal.
        self.links.borrow().first_fickle(synced).map_or(told, |first| told.min(first - 1))
    }

    /// Has a checkpoint written; false when there is none because a shard could not join.
    pub(in super::super) async fn checkpoint(&self) -> bool {
        let state = &self.checkpoint;
        if state.rounds.refused || self.closing.get() {
            return false;
        }
        let after = state.rounds.round.load(Ordering::Acquire);
        state.want(self);
        self.peers.until(|| state.rounds.over.load(Ordering::Acquire) > after || self.closing.get()).await;
        state.rounds.committed.load(Ordering::Acquire) > after
    }

    /// This shard changes nothing any more. Once all shards say so, a last checkpoint is written unless the journals
    /// are short; resolves when it is, or after `patience`.
    pub(in super::super) async fn finish(&self, patience: Duration) {
        let state = &self.checkpoint;
        if state.rounds.refused {
            return;
        }
        let (rounds, all) = (state.rounds.clone(), self.shards as u32);
        rounds.finishing.fetch_add(1, Ordering::AcqRel);
        self.peers.tell();
        let last = async {
            self.peers.until(|| rounds.finishing.load(Ordering::Acquire) >= all).await;
            if state.since.get() >= state.threshold / 16 {
                self.checkpoint().await;
            }
            // Others may need one: everybody stays until all are content.
            rounds.finishing.fetch_add(1, Ordering::AcqRel);
            self.peers.tell();
            self.peers.until(|| rounds.finishing.load(Ordering::Acquire) >= 2 * all).await;
        };
        if timer::until(shard::now() + patience, last).await.is_none() {
            tracing::info!(shard = self.shard.0, "no last checkpoint: another shard takes long");
        }
    }
}
