//! The bytes of a stream, growing or ended: how far they are readable, how far durable, where they lie.
//!
//! Invariant: `first ≤ durable ≤ published ≤ reserved`. A byte below `published` was written to the page cache together
//! with the mark that finds it again, so killing the process takes back nothing that a reader saw.
//! Lives on: one `Arc`, shared by the owner, the appender's shard and every reader; the appender's shard alone
//! moves `published`, the owner alone raises the epoch.

mod epochs;
mod first;
pub mod list;
mod placed;
pub mod progress;
pub mod sync;

pub use first::OldRun;
pub use placed::{Place, Placed};

use super::error::{Damage, StoreError};
use super::extent::WINDOW;
use super::tally::Slot;
use crate::runtime::{FileRange, ShardId};
use epochs::Epochs;
use list::AppendList;
use progress::Progress;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How a stream stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It may grow.
    Open,
    /// Its producer ended it.
    Complete,
    /// Its producer vanished, or the process did; it may be reopened in a new epoch.
    Interrupted,
    /// Deleted or replaced; its bytes go as soon as that is durable.
    Gone,
}

/// How an appender ends its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// As intended.
    Complete,
    /// The producer vanished.
    Interrupted,
}

const COMPLETE: u64 = 1;
const INTERRUPTED: u64 = 2;
const GONE: u64 = 4;
/// A sync failed: only durable bytes are readable.
const FAILED: u64 = 8;

/// An appender is attached.
const ATTACHED: u64 = 1;
/// The record that supersedes this stream is durable.
const SUPERSEDED: u64 = 2;

/// A stream's bytes. See the module.
pub struct Tail {
    uid: u64,
    slot: Slot,
    key_hash: u64,
    progress: Progress,
    first: AtomicU64,
    durable: AtomicU64,
    reserved: AtomicU64,
    holders: AtomicU64,
    /// The epoch of the appender that is or was attached last; 0 before the first.
    attached_epoch: AtomicU64,
    /// Not zero: an appender of an older epoch than this has to let go.
    fence: AtomicU64,
    epochs: Epochs,
    runs: AppendList<Placed>,
    /// In the list of those that the next sync makes durable.
    listed: AtomicBool,
    /// Bytes of it in the tally.
    counted: AtomicU64,
    /// When it ended, in milliseconds since 1970; 0 while it is open.
    ended_ms: AtomicU64,
}

impl Tail {
    /// An empty open stream of a name that counts in `slot`, in epoch `first_epoch`.
    pub(super) fn new(uid: u64, first_epoch: u64, slot: Slot, key_hash: u64, shards: usize) -> Self {
        Tail {
            uid,
            slot,
            key_hash,
            progress: Progress::new(shards, 0, 0),
            first: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            holders: AtomicU64::new(0),
            attached_epoch: AtomicU64::new(0),
            fence: AtomicU64::new(0),
            epochs: Epochs::new(first_epoch),
            runs: AppendList::new(),
            listed: AtomicBool::new(false),
            counted: AtomicU64::new(0),
            ended_ms: AtomicU64::new(0),
        }
    }

    /// The stream's number, unique for the life of the data directory. A replacement has a greater one.
    pub fn uid(&self) -> u64 {
        self.uid
    }

    /// The placement hash of the stream's name.
    pub fn key_hash(&self) -> u64 {
        self.key_hash
    }

    /// Where it counts.
    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// Takes note of bytes that are in the tally now.
    pub(super) fn note_counted(&self, count: u64) {
        self.counted.fetch_add(count, Ordering::Relaxed);
    }

    /// For whoever takes `count` of them off the tally: how many are in it.
    pub(super) fn take_some_counted(&self, count: u64) -> u64 {
        let less = |counted: u64| Some(counted.saturating_sub(count));
        let before = self.counted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        before.map_or(0, |before| before.min(count))
    }

    /// For whoever takes them off the tally: how many are in it.
    pub(super) fn take_counted(&self) -> u64 {
        self.counted.swap(0, Ordering::Relaxed)
    }

    /// The readable length.
    pub fn published(&self) -> u64 {
        match self.progress.state() & FAILED {
            0 => self.progress.published(),
            _ => self.durable(),
        }
    }

    /// The length that is on disk.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// The length for which space is reserved.
    pub fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Acquire)
    }

    /// How it stands.
    pub fn state(&self) -> State {
        let state = self.progress.state();
        if state & GONE != 0 {
            State::Gone
        } else if state & COMPLETE != 0 {
            State::Complete
        } else if state & INTERRUPTED != 0 {
            State::Interrupted
        } else {
            State::Open
        }
    }

    /// How it ended, deleted or not.
    pub(super) fn ended(&self) -> Option<End> {
        match self.progress.state() & (COMPLETE | INTERRUPTED) {
            0 => None,
            state if state & COMPLETE != 0 => Some(End::Complete),
            _ => Some(End::Interrupted),
        }
    }

    /// When it ended, in milliseconds since 1970; 0 while it is open. An end that a crash was is told as the start
    /// that found it.
    pub fn ended_ms(&self) -> u64 {
        self.ended_ms.load(Ordering::Acquire)
    }

    /// The current epoch, from 1.
    pub fn epoch(&self) -> u64 {
        self.epochs.last().number
    }

    /// The epochs so far: each number with the offset where it began, oldest first.
    pub fn epochs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.epochs.iter().map(|epoch| (epoch.number, epoch.start))
    }

    /// Whether a reader that knows the stream as of `epoch` may go on at `offset`: always in the current epoch,
    /// in an older one only up to where that ended. An unknown epoch is refused.
    pub fn admits(&self, epoch: u64, offset: u64) -> bool {
        self.epochs.admits(epoch, offset)
    }

    /// Where `epoch` ended; the greatest number while it has not.
    pub(super) fn cut_of(&self, epoch: u64) -> u64 {
        self.epochs().find(|(number, _)| *number > epoch).map_or(u64::MAX, |(_, start)| start)
    }

    /// Announces that readers on `shard` wait for more. Look at [`Tail::published`] and [`Tail::state`] again
    /// before sleeping: the appender looks for announcements only after it moved them.
    pub fn wait_from(&self, shard: ShardId) {
        self.progress.wait_from(shard.index());
    }

    /// The contiguous piece at `from`, at most `len_max` long; `None` when nothing is readable there yet, or any
    /// more: then the stream begins behind it, see [`Tail::first`].
    pub fn range(&self, from: u64, len_max: u64) -> Option<FileRange> {
        let end = self.published();
        let (_, run) = self.runs.last_where(|run| run.start() <= from)?;
        let len = end.min(run.end()).checked_sub(from)?.min(len_max);
        let place = run.place()?;
        let at = place.offset + (from - run.start());
        (len > 0).then(|| FileRange { file: place.segment.file.clone(), offset: at, len })
    }

    /// Whether every byte of the range was written or verified since the start of the process.
    pub fn is_verified(&self, from: u64, len: u64) -> bool {
        self.pieces(from, len).all(|(run, window)| run.window(window).is_verified())
    }

    /// The cold path: reads and checks, on a worker, every window of the range that was not yet verified since
    /// the start of the process. Resolves with the number of windows read.
    pub async fn verify(self: &Arc<Self>, from: u64, len: u64) -> Result<u64, StoreError> {
        super::window::verify(self, from, len).await
    }

    /// The runs and windows that hold the range.
    pub(super) fn pieces(&self, from: u64, len: u64) -> impl Iterator<Item = (&Placed, usize)> {
        let end = from.saturating_add(len).min(self.published());
        let first = self.runs.last_where(|run| run.start() <= from).map_or(0, |(index, _)| index);
        (first..self.runs.count())
            .map_while(|index| self.runs.at(index))
            .take_while(move |run| run.start() < end)
            .flat_map(move |run| {
                let low = from.saturating_sub(run.start()) / WINDOW;
                let high = (end.min(run.end()) - run.start()).div_ceil(WINDOW);
                (low..high).map(move |window| (run, window as usize))
            })
    }

    /// The error for a window that does not match.
    pub(super) fn damage(&self, run: &Placed, window: usize) -> StoreError {
        let from = run.start() + window as u64 * WINDOW;
        StoreError::Damaged(Damage::Window { uid: self.uid, from, to: (from + WINDOW).min(run.end()) })
    }

    /// All runs, first to last. None begins before the one in front of it.
    pub(super) fn runs(&self) -> &AppendList<Placed> {
        &self.runs
    }
}

/// For recovery, before anyone else knows the stream.
impl Tail {
    pub(super) fn recover_epoch(&self, number: u64, start: u64) {
        self.epochs.push(number, start);
    }

    pub(super) fn recover(&self, len: u64, end: End, ended_ms: u64) {
        self.set_reserved(len);
        self.publish(len, |_| {});
        self.set_durable(len);
        self.end(end, ended_ms, |_| {});
    }

    pub(super) fn set_ended(&self, ended_ms: u64) {
        self.ended_ms.store(ended_ms, Ordering::Release);
    }
}

/// For the appender's shard.
impl Tail {
    /// Takes the one place of an appender in the current epoch.
    pub(super) fn attach(&self) -> Result<u64, StoreError> {
        let epoch = self.epoch();
        match self.state() {
            State::Open => {}
            State::Complete | State::Interrupted => return Err(StoreError::Ended),
            State::Gone => return Err(StoreError::Gone),
        }
        if self.holders.fetch_or(ATTACHED, Ordering::AcqRel) & ATTACHED != 0 {
            return Err(StoreError::Attached);
        }
        if self.attached_epoch.swap(epoch, Ordering::AcqRel) >= epoch {
            self.holders.fetch_and(!ATTACHED, Ordering::AcqRel);
            return Err(StoreError::Attached);
        }
        Ok(epoch)
    }

    /// For the appender when it lets go: its runs of which nothing was published end up empty where the stream ends. The
    /// next appender's begin there, and are found only if none in front of them begins later.
    pub(super) fn withdraw_unpublished(&self) {
        let end = self.progress.published();
        let from = self.runs.last_where(|run| run.start() <= end).map_or(0, |(index, _)| index + 1);
        (from..self.runs.count())
            .filter_map(|index| self.runs.at(index))
            .for_each(|run| run.withdraw_to(end));
    }

    /// Gives the place back; true when the stream was superseded meanwhile, so that the caller is the one to
    /// count its bytes as dead.
    pub(super) fn detach(&self) -> bool {
        self.holders.fetch_and(!ATTACHED, Ordering::AcqRel) & SUPERSEDED != 0
    }

    /// Whether an appender is attached.
    pub fn is_attached(&self) -> bool {
        self.holders.load(Ordering::Acquire) & ATTACHED != 0
    }

    /// Why the appender of `epoch` may not go on, if so.
    pub(super) fn refuses(&self, epoch: u64) -> Option<StoreError> {
        match self.state() {
            State::Gone => Some(StoreError::Gone),
            _ if self.fence.load(Ordering::Acquire) > epoch => Some(StoreError::Fenced),
            State::Complete => Some(StoreError::Ended),
            State::Open | State::Interrupted => None,
        }
    }

    pub(super) fn publish(&self, to: u64, mut wake: impl FnMut(ShardId)) {
        debug_assert!(to <= self.reserved());
        self.progress.publish(to, |shard| wake(ShardId(shard as u16)));
    }

    pub(super) fn end(&self, end: End, at_ms: u64, wake: impl FnMut(ShardId)) {
        // Before the state: who sees the end finds its time.
        self.set_ended(at_ms);
        let bit = match end {
            End::Complete => COMPLETE,
            End::Interrupted => INTERRUPTED,
        };
        self.change(0, bit, wake);
    }

    /// Ends the stream at what is durable: what was published beyond may be gone from the page cache.
    pub(super) fn fail(&self, at_ms: u64, wake: impl FnMut(ShardId)) {
        self.set_ended(at_ms);
        self.change(0, INTERRUPTED | FAILED, wake);
    }

    /// Whether a failed sync ended it.
    pub(super) fn has_failed(&self) -> bool {
        self.progress.state() & FAILED != 0
    }

    /// Puts the mark of being listed for the next sync, or takes it; whether it was there.
    pub(super) fn list_unsynced(&self, listed: bool) -> bool {
        self.listed.swap(listed, Ordering::AcqRel)
    }

    pub(super) fn set_durable(&self, to: u64) {
        debug_assert!(to <= self.progress.published() && to >= self.durable());
        self.durable.store(to, Ordering::Release);
    }

    pub(super) fn set_reserved(&self, to: u64) {
        self.reserved.store(to, Ordering::Release);
    }

    fn change(&self, clear: u64, set: u64, mut wake: impl FnMut(ShardId)) {
        self.progress.change(clear, set, |shard| wake(ShardId(shard as u16)));
    }
}

/// For the owner.
impl Tail {
    /// Asks the appender of an older epoch to let go; it does so within its next turn, which [`Tail::is_attached`]
    /// tells. Any shard may ask.
    pub fn fence(&self) {
        self.fence.fetch_max(self.epoch() + 1, Ordering::AcqRel);
    }

    /// Begins a new epoch at the published length. Refused while an appender is attached, as what it still has to
    /// publish would belong to both, and while not all of it is durable.
    pub(super) fn reopen(&self, wake: impl FnMut(ShardId)) -> Result<u64, StoreError> {
        match self.state() {
            State::Gone => return Err(StoreError::Gone),
            State::Complete => return Err(StoreError::Ended),
            State::Open | State::Interrupted => {}
        }
        if self.progress.state() & FAILED != 0 {
            return Err(StoreError::SyncFailed);
        }
        // The owner's journal may become durable before the appender's: what says where the epoch begins must not
        // outlive the bytes before it.
        if self.is_attached() || self.durable() < self.published() {
            return Err(StoreError::Attached);
        }
        let epoch = self.epoch() + 1;
        self.epochs.push(epoch, self.published());
        self.date_runs(self.ended_ms());
        self.change(INTERRUPTED, 0, wake);
        self.set_ended(0);
        Ok(epoch)
    }

    /// The name is deleted or replaced, as far as readers are concerned.
    pub(super) fn set_gone(&self, wake: impl FnMut(ShardId)) {
        self.change(0, GONE, wake);
    }

    /// The superseding record is durable; true when no appender is attached, so that the caller is the one to
    /// count the bytes as dead.
    pub(super) fn supersede(&self) -> bool {
        self.holders.fetch_or(SUPERSEDED, Ordering::AcqRel) & ATTACHED == 0
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tail({:#x}, {:?}, {} published)", self.uid, self.state(), self.published())
    }
}
