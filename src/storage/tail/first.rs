//! Where a stream begins: its start mark, which retention moves up by whole runs.
//!
//! Invariant: the mark never falls, a run begins there, and that run has come to the disk up to there. It moves before
//! the runs in front of it are given up: who finds a run that lies nowhere finds the mark behind it. The last run
//! stays, as its appender may be filling it.
//! Lives on: all shards; the owner's alone moves it.

use super::super::bulk::segment::Segment;
use super::{State, Tail};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A run that may go before its stream does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OldRun {
    /// Where the next one begins: where the stream begins without this one.
    pub to: u64,
    /// What it has.
    pub bytes: u64,
    /// When it or one before it was last written to, in milliseconds since 1970 and not before.
    pub written_ms: u64,
}

impl Tail {
    /// The offset of the first byte that is there. 0 unless retention took some.
    pub fn first(&self) -> u64 {
        self.first.load(Ordering::Acquire)
    }

    /// Bytes that are there: the readable length without what is gone.
    pub fn stored(&self) -> u64 {
        self.published().saturating_sub(self.first())
    }

    /// The runs that may go, oldest first: those that are filled and on disk of a stream that is open or may be again.
    /// When those were written that an earlier process wrote is not known, but when the stream ended then is.
    pub fn old_runs(&self) -> impl Iterator<Item = OldRun> {
        let (mut first, mut written_ms) = (self.first(), 0);
        let durable = self.durable();
        let from = self.runs.last_where(|run| run.start() <= first).map_or(0, |(index, _)| index);
        let (last, ended_ms) = match self.state() {
            State::Open => (self.runs.count().saturating_sub(1), None),
            State::Interrupted => (self.runs.count().saturating_sub(1), Some(self.ended_ms())),
            State::Complete | State::Gone => (0, None),
        };
        let runs = (from..last).map_while(move |index| {
            let to = self.runs.at(index + 1)?.start();
            let run = self.runs.at(index).filter(|_| to <= durable)?;
            let bytes = to.checked_sub(first)?;
            first = to;
            // One that got no byte has no time either, and goes with its neighbours.
            if bytes > 0 {
                let seconds_ms = run.written_ms().or(ended_ms)?;
                // Nothing came behind the end, so rounding up goes no further.
                written_ms = seconds_ms.min(ended_ms.unwrap_or(u64::MAX)).max(written_ms);
            }
            Some(OldRun { to, bytes, written_ms })
        });
        runs.filter(|run| run.bytes > 0)
    }

    /// When its last run was last written to, in milliseconds since 1970; `None` when that is not known.
    pub fn last_written_ms(&self) -> Option<u64> {
        self.runs.last()?.written_ms()
    }

    /// Whether the stream may begin at `to`.
    pub(in super::super) fn may_begin_at(&self, to: u64) -> bool {
        let run = self.runs.last_where(|run| run.start() <= to);
        to > self.first() && to <= self.durable() && run.is_some_and(|(_, run)| run.start() == to)
    }

    /// For the owner: the stream begins at `to` from now on, as a durable record says. Calls `count` with the segment
    /// and the length of everything that is dead by that.
    pub(in super::super) fn begin_at(&self, to: u64, mut count: impl FnMut(&Arc<Segment>, u64)) {
        let before = self.first();
        if to <= before {
            return;
        }
        self.first.store(to, Ordering::SeqCst);
        let from = self.runs.last_where(|run| run.start() < before).map_or(0, |(index, _)| index);
        let runs = (from..self.runs.count()).map_while(|index| self.runs.at(index));
        runs.take_while(|run| run.start() < to).for_each(|run| run.give_up(&mut count));
    }

    /// For recovery, before any run is added.
    pub(in super::super) fn recover_first(&self, first: u64) {
        self.first.store(first, Ordering::Release);
    }

    /// A stream goes on that had ended at `ended_ms`: what was written before, nobody knows better.
    pub(super) fn date_runs(&self, ended_ms: u64) {
        // Those of an earlier process come first.
        let undated = self.runs.iter().take_while(|run| run.written_ms().is_none());
        undated.for_each(|run| run.set_written(ended_ms));
    }
}
