//! Group commit: one task per shard that makes what was written durable.
//!
//! Sync class: as soon as something is unsynced, data and journal are synced side by side; every mark carries
//! checksums, so recovery finds out about a mark that reached the disk before its data. Cache class: every
//! interval the data first, then the journal. Either way a sync mark follows when nothing more is to do, so that
//! the next start can tell damage from a torn tail.
//!
//! A failed sync is final. Its segments are given up, an abort record goes to a fresh journal segment and is
//! synced before anything else is decided; if that fails too, the shard is read-only.
//!
//! Invariant: `durable` moves only after both syncs that it stands for returned. Lives on: one shard.

use super::bulk::segment::Segment;
use super::core::Core;
use super::error::StoreError;
use super::journal::record::{Mark, Record};
use super::journal::writer;
use super::tail::{End, Placed, State, Tail};
use super::{Durability, Health};
use crate::runtime::executor::critical;
use crate::runtime::file::Syncing;
use crate::runtime::notify::Notify;
use crate::runtime::{blocking, shard, timer};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

/// Unsynced bytes of a shard at which appenders wait.
pub const UNSYNCED_MAX: u64 = 64 << 20;
/// Writeback begins when this much gathered since it last did: what one commit has to wait for.
const COMMIT_MAX: u64 = 4 << 20;
/// The same in the cache class, where nobody waits for a commit.
const WRITEBACK_AT: u64 = 8 << 20;

/// What is not durable yet.
#[derive(Default)]
pub(super) struct SyncState {
    segments: RefCell<Vec<Arc<Segment>>>,
    tails: RefCell<Vec<Arc<Tail>>>,
    unsynced: Cell<u64>,
    gathered: Cell<u64>,
    voids: RefCell<Vec<(u64, u64)>>,
    /// The last of the marks that were decided again after a failed sync: until they are in the page cache, what
    /// is published is not marked.
    marked_again: Cell<u64>,
    failing: Cell<bool>,
    broke: Cell<bool>,
    /// The next pass does not wait out the interval.
    hurried: Cell<bool>,
    wake: Notify,
}

impl SyncState {
    /// Takes note of bytes written to a bulk segment.
    pub(super) fn add_dirty(&self, core: &Core, segment: &Arc<Segment>, len: u64) {
        let mut segments = self.segments.borrow_mut();
        if !segments.iter().any(|known| Arc::ptr_eq(known, segment)) {
            segments.push(segment.clone());
        }
        drop(segments);
        self.add_unsynced(core, len);
    }

    pub(super) fn add_unsynced(&self, core: &Core, len: u64) {
        self.set_unsynced(core, self.unsynced.get() + len);
        self.gathered.set(self.gathered.get() + len);
        let limit = match core.durability {
            Durability::Sync => COMMIT_MAX,
            Durability::Cache => WRITEBACK_AT,
        };
        if self.gathered.get() >= limit {
            self.gathered.set(0);
            self.start_writeback();
        }
    }

    fn set_unsynced(&self, core: &Core, len: u64) {
        self.unsynced.set(len);
        core.metrics.unsynced_bytes.set(len as i64);
    }

    fn start_writeback(&self) {
        let segments = self.segments.borrow().clone();
        shard::spawn("start writeback", async move {
            // Advice: when it fails, the sync does the work.
            let _ = blocking::run(move || {
                segments.iter().for_each(|segment| segment.file.start_writeback(0, segment.used()));
            })
            .await;
        });
    }

    /// Takes note that a tail's durable length trails its published one.
    pub(super) fn add_tail(&self, tail: &Arc<Tail>) {
        if !tail.list_unsynced(true) {
            self.tails.borrow_mut().push(tail.clone());
        }
    }

    /// Whether appenders have to wait.
    pub(super) fn is_full(&self) -> bool {
        self.unsynced.get() >= UNSYNCED_MAX
    }

    /// Bytes written and not synced.
    pub(super) fn unsynced(&self) -> u64 {
        self.unsynced.get()
    }

    /// Whether a failed sync is being dealt with.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.get() || self.broke.get()
    }

    /// The journal could not be written.
    pub(super) fn journal_broke(&self) {
        self.broke.set(true);
        self.look();
    }

    /// Has the sync task look again.
    pub(super) fn look(&self) {
        self.wake.notify_all();
    }

    /// Has the next pass begin without waiting out the interval, which only makes what is done with it come sooner.
    pub(super) fn hurry(&self) {
        if !self.hurried.replace(true) {
            self.look();
        }
    }

    /// Why the record with this sequence is void, if it is.
    pub(super) fn void(&self, seq: u64) -> Option<StoreError> {
        let voids = self.voids.borrow();
        voids.iter().any(|&(from, to)| (from..=to).contains(&seq)).then_some(StoreError::SyncFailed)
    }
}

/// What one pass makes durable.
struct Pass {
    seq: u64,
    journal: Vec<Rc<writer::Segment>>,
    segments: Vec<Arc<Segment>>,
    tails: Vec<(Arc<Tail>, u64)>,
    unsynced: u64,
}

/// The task: runs until the store is closed and everything is durable. Bytes that the end of the turn has yet to mark
/// are left to it, as it has this look again: a pass for them alone would make nothing durable that anyone waits for.
pub(super) async fn run(core: Rc<Core>) {
    loop {
        let looked = core.sync.wake.wait();
        if core.sync.broke.get() {
            drop(looked);
            fail(&core, begin(&core), Vec::new()).await;
        } else if core.wants_sync() && !core.appends.any_advanced() {
            drop(looked);
            linger(&core).await;
            pass(&core).await;
        } else if core.closing.get() && core.is_settled() {
            return;
        } else {
            looked.await;
        }
        if core.health.get() == Health::ReadOnly {
            return;
        }
    }
}

/// In the cache class, waits out the interval unless much is unsynced or the store closes.
async fn linger(core: &Core) {
    if core.durability == Durability::Sync {
        return;
    }
    let deadline = shard::now() + core.sync_interval;
    let goes_on = || core.closing.get() || core.sync.broke.get() || core.sync.hurried.get();
    while !goes_on() && core.sync.unsynced() < UNSYNCED_MAX / 2 {
        if timer::until(deadline, core.sync.wake.wait()).await.is_none() {
            return;
        }
    }
}

async fn pass(core: &Rc<Core>) {
    let pass = begin(core);
    let begun = shard::now();
    let data = || pass.segments.iter().map(|segment| segment.file.sync_data());
    let journal = || pass.journal.iter().map(|segment| segment.file.sync_data());
    let mut results = match core.durability {
        Durability::Sync => all(data().chain(journal()).collect()).await,
        Durability::Cache => all(data().collect()).await,
    };
    if core.durability == Durability::Cache && results.iter().all(Result::is_ok) {
        results.extend(all(journal().collect()).await);
    }
    core.metrics.sync_latency.record(shard::now() - begun);
    if results.iter().all(Result::is_ok) && !core.sync.broke.get() {
        critical(|| succeed(core, pass));
        core.deliver_wakes();
    } else {
        let failed = pass.segments.iter().zip(&results).filter(|(_, result)| result.is_err());
        let failed = failed.map(|(segment, _)| segment.clone()).collect();
        fail(core, pass, failed).await;
    }
}

fn begin(core: &Core) -> Pass {
    core.sync.hurried.set(false);
    let journal = core.journal.borrow();
    // What is published has its mark in the journal: both happen in one step at the end of a turn.
    let marked = journal.flushed_seq() >= core.sync.marked_again.get();
    let tails = if marked { core.sync.tails.take() } else { Vec::new() };
    Pass {
        seq: journal.flushed_seq(),
        journal: journal.unsynced_segments(),
        segments: core.sync.segments.take(),
        tails: tails
            .into_iter()
            .map(|tail| {
                tail.list_unsynced(false);
                let to = tail.published();
                (tail, to)
            })
            .collect(),
        unsynced: core.sync.unsynced(),
    }
}

fn succeed(core: &Rc<Core>, pass: Pass) {
    core.journal.borrow_mut().synced(pass.seq, &pass.journal);
    for (tail, to) in &pass.tails {
        tail.set_durable(*to);
    }
    core.sync.set_unsynced(core, core.sync.unsynced() - pass.unsynced);
    core.settle_synced();
    core.settle_synced_links();
    if !core.wants_sync() {
        core.decide(&Record::SyncMark, 0);
    }
    core.nudge();
}

/// Deals with a failed sync: gives up what it covered and starts over in a fresh journal segment.
async fn fail(core: &Rc<Core>, pass: Pass, failed: Vec<Arc<Segment>>) {
    core.sync.failing.set(true);
    core.metrics.sync_failures.inc();
    core.metrics.poisoned_segments.add(failed.len() as i64 + 1);
    core.health.set(Health::Degraded);
    tracing::error!(
        log = core.log.0,
        data_segments = failed.len(),
        "a sync failed; its segments are given up"
    );
    core.journal.borrow_mut().stop();
    failed.iter().for_each(|segment| segment.poison());
    core.space.abandon_poisoned();
    let tails = give_up(core, pass);
    let settled = start_over(core).await;
    critical(|| {
        match settled {
            Ok(range) => core.sync.voids.borrow_mut().push(range),
            Err(ref error) => {
                tracing::error!(log = core.log.0, %error, "the abort could not be synced: read-only from now on");
                let mut journal = core.journal.borrow_mut();
                journal.stop();
                core.sync.voids.borrow_mut().push((journal.synced_seq() + 1, journal.next_seq() - 1));
                core.health.set(Health::ReadOnly);
            }
        }
        core.sync.failing.set(false);
        core.sync.broke.set(false);
        core.roll_back();
        core.roll_back_links();
        tails.iter().for_each(|tail| core.mark_again(tail));
        core.sync.marked_again.set(core.journal.borrow().next_seq() - 1);
        core.appends.restart(core);
    });
    core.nudge();
    core.sync.look();
    core.deliver_wakes();
}

/// Ends the streams whose unsynced bytes may be lost; returns all that had some. What is not lost stays dirty.
fn give_up(core: &Core, pass: Pass) -> Vec<Arc<Tail>> {
    let mut tails: Vec<_> = pass.tails.into_iter().map(|(tail, _)| tail).collect();
    tails.append(&mut core.sync.tails.borrow_mut());
    core.appends.fail_poisoned(core);
    for tail in &tails {
        tail.list_unsynced(false);
        let poisoned = |run: &Placed| run.place().is_some_and(|place| place.segment.is_poisoned());
        if tail.runs().iter().any(|run| run.end() > tail.durable() && poisoned(run)) {
            core.fail(tail);
        }
    }
    let mut segments = core.sync.segments.borrow_mut();
    segments.extend(pass.segments);
    segments.retain(|segment| !segment.is_poisoned());
    core.sync.set_unsynced(core, 0);
    tails
}

/// Writes and syncs the abort record in a fresh segment.
async fn start_over(core: &Rc<Core>) -> Result<(u64, u64), StoreError> {
    core.journal_ahead.wait(|| core.begin_journal_segment()).await?;
    let segment = core.journal_ahead.take().ok_or(StoreError::NoSpace)?;
    let (range, flushed, segments) = {
        let mut journal = core.journal.borrow_mut();
        let range = journal.restart(segment);
        let flushed = journal.flush(|| None);
        (range, flushed, journal.unsynced_segments())
    };
    let path = core.journal.borrow().path().clone();
    flushed.map_err(|error| StoreError::from_io(&error, &path))?;
    let seq = core.journal.borrow().flushed_seq();
    let synced = all(segments.iter().map(|segment| segment.file.sync_data()).collect()).await;
    for result in synced {
        result.map_err(|error| StoreError::from_io(&error, &path))?;
    }
    core.journal.borrow_mut().synced(seq, &segments);
    Ok(range)
}

impl Core {
    /// Whether something is to be synced.
    fn wants_sync(&self) -> bool {
        !self.sync.segments.borrow().is_empty() || self.journal.borrow().wants_sync()
    }

    /// Whether no stream is on its way to an end, or to a mark.
    fn is_settled(&self) -> bool {
        self.sealing.get() == 0 && !self.appends.any_advanced()
    }

    /// See [`super::Store::close`].
    pub(super) async fn close(self: &Rc<Self>) -> Result<(), StoreError> {
        self.closing.set(true);
        self.peers.look_again();
        self.nudge();
        self.sync.look();
        while self.wants_sync() || self.journal.borrow().pending_len() > 0 || !self.is_settled() {
            if self.health.get() == Health::ReadOnly {
                return Err(StoreError::ReadOnly);
            }
            self.progress.wait().await;
        }
        // The last sync mark says that all of it is durable, and becomes durable itself.
        let path = self.journal.borrow().path().clone();
        let segments = self.journal.borrow().unsynced_segments();
        for result in all(segments.iter().map(|segment| segment.file.sync_data()).collect()).await {
            result.map_err(|error| StoreError::from_io(&error, &path))?;
        }
        Ok(())
    }

    /// Waits until the stream is durable up to `len`.
    pub(super) async fn durable(&self, tail: &Tail, len: u64) -> Result<(), StoreError> {
        while tail.durable() < len {
            if tail.has_failed() {
                return Err(StoreError::SyncFailed);
            }
            if self.health.get() == Health::ReadOnly {
                return Err(StoreError::ReadOnly);
            }
            self.progress.wait().await;
        }
        Ok(())
    }

    /// Says again what marks that are void said about a stream.
    fn mark_again(&self, tail: &Arc<Tail>) {
        if self.health.get() == Health::ReadOnly {
            return;
        }
        if tail.has_failed() {
            self.decide_end(tail, tail.epoch(), tail.durable(), End::Interrupted, tail.ended_ms());
            return;
        }
        let (durable, published) = (tail.durable(), tail.published());
        for run in tail.runs().iter().filter(|run| run.end() > durable && run.start() < published) {
            let Some(place) = run.place() else { continue };
            let (len, crcs) = run.filled().expect("its appender is on this shard, and it was marked");
            let segment = &place.segment;
            self.sync.add_dirty(self, segment, 0);
            let mark = Mark {
                uid: tail.uid(),
                epoch: run.epoch,
                start: run.start(),
                total: run.end(),
                end: None,
                log: segment.log,
                segment: segment.number,
                generation: segment.generation,
                offset: place.offset,
                len,
                crcs: crcs.into(),
            };
            self.decide(&Record::Mark(mark), tail.key_hash());
        }
        let end = match tail.state() {
            State::Complete => Some(End::Complete),
            State::Interrupted => Some(End::Interrupted),
            State::Open | State::Gone => None,
        };
        if let Some(end) = end {
            self.decide_end(tail, tail.epoch(), published, end, tail.ended_ms());
        }
        self.sync.add_tail(tail);
    }
}

/// Waits for all of them, side by side.
async fn all(mut syncing: Vec<Syncing>) -> Vec<io::Result<()>> {
    let mut results: Vec<Option<io::Result<()>>> = syncing.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (syncing, result) in syncing.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(done) = syncing.as_mut().poll(cx)
            {
                *result = Some(done);
            }
        }
        if results.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}
