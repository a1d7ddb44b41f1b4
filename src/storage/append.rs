//! Appending to a stream: reserve, write, and at the end of the turn publish.
//!
//! Invariant: a byte is in the page cache before its mark is, and its mark is before anyone may read it.
//! Lives on: the shard of the stream's appender.

use super::Durability;
use super::bulk::run::Run;
use super::bulk::space::{RUN_MAX, RUN_MIN};
use super::checkpoint;
use super::core::Core;
use super::error::StoreError;
use super::journal::record::{Mark, Record};
use super::reclaim;
use super::tail::{End, Placed, Tail};
use crate::runtime::notify::answer;
use crate::runtime::{File, blocking, shard};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The one appender of a stream in its epoch. Dropping it lets go of the stream, which stays open, and gives
/// unused space back.
pub struct Appender {
    core: Rc<Core>,
    active: Rc<RefCell<Active>>,
}

/// What a shard knows about an appender, whoever holds it.
pub(super) struct Active {
    tail: Arc<Tail>,
    epoch: u64,
    run: Option<Run>,
    /// Full, and not published to their ends.
    filled: Vec<Run>,
    /// The stream's length with what is not published.
    written: u64,
    run_len: u64,
    /// Where the stream is going to end, as far as anyone said.
    end: Option<u64>,
    /// In the list of those that advanced this turn.
    queued: bool,
    /// A worker writes behind what is filled: nobody else may, and the run stays.
    lent: bool,
    /// Nobody holds it any more: it goes once what was written is published.
    dropped: bool,
    failure: Option<StoreError>,
    finished: bool,
}

/// The appenders of one shard.
#[derive(Default)]
pub(super) struct Appends {
    attached: RefCell<HashMap<u64, Rc<RefCell<Active>>>>,
    advanced: RefCell<Vec<Rc<RefCell<Active>>>>,
    /// Marked and not yet published.
    marked: RefCell<VecDeque<Marked>>,
}

/// An appender whose mark is decided.
struct Marked {
    /// The mark's sequence.
    seq: u64,
    /// The length to publish once that is in the page cache.
    to: u64,
    active: Rc<RefCell<Active>>,
}

impl Appender {
    pub(super) fn attach(core: &Rc<Core>, tail: &Arc<Tail>) -> Result<Self, StoreError> {
        core.admit()?;
        let epoch = tail.attach()?;
        let active = Rc::new(RefCell::new(Active {
            tail: tail.clone(),
            epoch,
            run: None,
            filled: Vec::new(),
            written: tail.published(),
            run_len: RUN_MIN,
            end: None,
            queued: false,
            lent: false,
            dropped: false,
            failure: None,
            finished: false,
        }));
        core.appends.attached.borrow_mut().insert(tail.uid(), active.clone());
        Ok(Appender { core: core.clone(), active })
    }

    /// The stream.
    pub fn tail(&self) -> Arc<Tail> {
        self.active.borrow().tail.clone()
    }

    /// Says that the stream is going to end at offset `end`, so that no more space is taken than that needs: most short
    /// streams say so, and what they left unused of a reservation would be many times what they have. More may come all
    /// the same.
    pub fn expect_end(&mut self, end: u64) {
        self.active.borrow_mut().end = Some(end);
    }

    /// Waits until some of `wanted` bytes can be appended, and returns how many: at least one, at most `wanted`.
    /// Waits for space to be allocated and while too much is unsynced. May be dropped at any time.
    pub async fn reserve(&mut self, wanted: usize) -> Result<usize, StoreError> {
        assert!(wanted > 0, "a reservation is for at least one byte");
        loop {
            self.active.borrow().check()?;
            if self.core.sync.is_failing() || self.active.borrow().lent {
                // Whether this stream is hit, or where a worker's bytes end, is known in a moment.
                self.core.progress.wait().await;
                continue;
            }
            self.core.admit()?;
            if self.core.sync.is_full() {
                self.core.sync.look();
                self.core.progress.wait().await;
                continue;
            }
            if let Some(room) = self.active.borrow_mut().room(&self.core) {
                return Ok(room.min(wanted as u64) as usize);
            }
            let core = &self.core;
            core.space.ahead.wait(|| core.begin_bulk_segment()).await?;
        }
    }

    /// Writes `bytes`, at most as many as the last [`Appender::reserve`] returned and were not used since.
    /// They are published at the end of the turn. After an error none of them was appended.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let mut active = self.active.borrow_mut();
        active.check()?;
        assert!(!active.lent, "an append follows a reservation, which waits for the worker");
        let Some(run) = &mut active.run else { panic!("an append follows a reservation") };
        let begun = shard::now();
        run.write(bytes).map_err(|error| StoreError::from_io(&error, &run.segment.path))?;
        self.core.note_write(shard::now() - begun);
        active.advance(&self.core, &self.active, bytes.len());
        Ok(())
    }

    /// Whether writes take so long at present that they belong into a worker: see [`Appender::append_in_worker`].
    pub fn is_slow(&self) -> bool {
        self.core.slow_until.get().is_some_and(|until| shard::now() < until)
    }

    /// Like [`Appender::append`], with the write done by a worker, so that a disk that holds writers up holds up
    /// this stream and not its shard. Once polled, the bytes are appended even when the future is dropped; the next
    /// reservation waits for that.
    pub async fn append_in_worker(&mut self, bytes: Vec<u8>) -> Result<(), StoreError> {
        let (file, place, path) = self.active.borrow_mut().lend()?;
        let (answerer, answer) = answer();
        let (core, active) = (self.core.clone(), self.active.clone());
        shard::spawn("write in a worker", async move {
            let begun = shard::now();
            let written = blocking::run(move || (file.write_at(&bytes, place), bytes)).await;
            core.note_write(shard::now() - begun);
            let written = match written {
                Ok((Ok(()), bytes)) => Ok(bytes),
                Ok((Err(error), _)) | Err(error) => Err(StoreError::from_io(&error, &path)),
            };
            answerer.give(take_back(&core, &active, written));
            core.nudge();
        });
        answer.await.unwrap_or(Err(StoreError::Closing))
    }

    /// Reserves and appends all of `bytes`.
    pub async fn append_all(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let room = self.reserve(bytes.len()).await?;
            self.append(&bytes[..room])?;
            bytes = &bytes[room..];
        }
        Ok(())
    }

    /// The stream's length with what was appended and is not published yet.
    pub fn len(&self) -> u64 {
        self.active.borrow().written
    }

    /// Whether the stream has no bytes yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the stream. Resolves once that is committed in the store's durability class, with the length.
    /// Once polled it goes on even when it is dropped.
    pub async fn seal(self, end: End) -> Result<u64, StoreError> {
        let (answerer, answer) = answer();
        let sealing = Sealing::begin(&self.core);
        shard::spawn("seal stream", async move { answerer.give(self.seal_on_shard(end, sealing).await) });
        answer.await.unwrap_or(Err(StoreError::Closing))
    }

    /// Resolves once what was appended is committed in the store's durability class, with the length, and leaves the
    /// end to a task. For bodies: how long they are, their links say.
    pub(super) async fn commit(self) -> Result<u64, StoreError> {
        let len = self.published().await?;
        if self.core.durability == Durability::Sync {
            let tail = self.tail();
            self.core.durable(&tail, len).await?;
        }
        let sealing = Sealing::begin(&self.core);
        shard::spawn("seal body", async move {
            match self.seal_on_shard(End::Complete, sealing).await {
                Ok(_) | Err(StoreError::Gone | StoreError::Closing) => {}
                Err(error) => tracing::debug!(%error, "a body was not sealed; the next start does it"),
            }
        });
        Ok(len)
    }

    /// Publishes what was appended and lets go of the stream, which stays open: another epoch's appender may go
    /// on from the returned length.
    pub async fn detach(self) -> Result<u64, StoreError> {
        let published = self.published().await;
        self.let_go();
        published
    }

    async fn seal_on_shard(self, end: End, _sealing: Sealing) -> Result<u64, StoreError> {
        let len = self.published().await?;
        let tail = self.tail();
        if self.core.durability == Durability::Sync {
            // The record that ends a stream is only written once the bytes that it speaks of are on disk.
            self.core.durable(&tail, len).await?;
        }
        self.active.borrow().check()?;
        let at_ms = shard::current().wall().unix_millis();
        let epoch = self.active.borrow().epoch;
        let (told, seq) = self.core.decide_end(&tail, epoch, len, end, at_ms);
        let untold = checkpoint::round::State::untold(&self.core, told);
        self.core.nudge();
        self.core.committed(seq).await?;
        tail.end(end, at_ms, self.core.wake_for(&tail));
        drop(untold);
        if self.core.durability == Durability::Cache {
            // Answered and not on disk: a failed sync has to say it again, also of a stream without new bytes.
            self.core.sync.add_tail(&tail);
        }
        self.let_go();
        self.core.deliver_wakes();
        Ok(len)
    }

    /// Waits until everything that was appended is published.
    async fn published(&self) -> Result<u64, StoreError> {
        loop {
            {
                let active = self.active.borrow();
                active.check()?;
                if active.tail.published() == active.written && !active.lent {
                    return Ok(active.written);
                }
            }
            self.core.progress.wait().await;
        }
    }

    fn let_go(&self) {
        let mut active = self.active.borrow_mut();
        active.dropped = true;
        active.finish_if_idle(&self.core);
    }
}

/// A worker is done. When the stream was taken away meanwhile, what it wrote lies where nobody looks.
fn take_back(
    core: &Core,
    active: &Rc<RefCell<Active>>,
    written: Result<Vec<u8>, StoreError>,
) -> Result<(), StoreError> {
    let mut state = active.borrow_mut();
    state.lent = false;
    let appended = written.and_then(|bytes| {
        state.check()?;
        let run = state.run.as_mut().ok_or(StoreError::Fenced)?;
        run.note_written(&bytes);
        state.advance(core, active, bytes.len());
        Ok(())
    });
    if state.dropped {
        state.finish_if_idle(core);
    }
    appended
}

/// Counted while a stream is being sealed, which may go on after whoever wanted it has let go. The store closes behind it:
/// a record that no sync mark follows would be taken for the torn end of a log, and bytes that it speaks of for torn, too.
struct Sealing(Rc<Core>);

impl Sealing {
    fn begin(core: &Rc<Core>) -> Self {
        core.sealing.set(core.sealing.get() + 1);
        Sealing(core.clone())
    }
}

impl Drop for Sealing {
    fn drop(&mut self) {
        self.0.sealing.set(self.0.sealing.get() - 1);
        self.0.nudge();
        self.0.sync.look();
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        if !self.active.borrow().finished {
            self.let_go();
        }
    }
}

impl Active {
    /// Why nothing may be appended, if so.
    fn check(&self) -> Result<(), StoreError> {
        match &self.failure {
            Some(error) => Err(error.clone()),
            None => self.tail.refuses(self.epoch).map_or(Ok(()), Err),
        }
    }

    /// Keeps everybody else from the run while a worker writes behind what is filled; where, and into what.
    fn lend(&mut self) -> Result<(File, u64, Arc<PathBuf>), StoreError> {
        self.check()?;
        assert!(!self.lent, "an append follows a reservation, which waits for the worker");
        let Some(run) = &self.run else { panic!("an append follows a reservation") };
        self.lent = true;
        Ok((run.segment.file.clone(), run.offset + run.filled(), run.segment.path.clone()))
    }

    /// Takes note of `len` more bytes in the run, to be published at the end of the turn.
    fn advance(&mut self, core: &Core, this: &Rc<RefCell<Active>>, len: usize) {
        let Some(run) = &self.run else { panic!("bytes lie in a run") };
        core.metrics.bulk_bytes.add(len as u64);
        core.count_bytes(&self.tail, len as u64);
        core.sync.add_dirty(core, &run.segment, len as u64);
        self.written += len as u64;
        if !std::mem::replace(&mut self.queued, true) {
            core.appends.advanced.borrow_mut().push(this.clone());
        }
    }

    /// Lets go unless something is still to be published or written.
    fn finish_if_idle(&mut self, core: &Core) {
        let idle = self.tail.published() == self.written && !self.lent;
        if idle || self.failure.is_some() {
            self.finish(core);
        }
    }

    /// Bytes that the run still takes; a new run when it is full and there is space for one.
    fn room(&mut self, core: &Core) -> Option<u64> {
        if let Some(run) = &self.run
            && run.room() > 0
            && !run.segment.is_poisoned()
        {
            return Some(run.room());
        }
        // One byte more: room is asked for ahead of every receive, the last one too.
        let left = self.end.and_then(|end| end.checked_sub(self.written)).map(|left| left + 1);
        // What is announced and short lies in one piece, so that it leaves in one.
        let wanted = left.filter(|left| *left <= WHOLE_MAX).unwrap_or(self.run_len);
        let run = core.space.take(self.written, wanted)?;
        let placed = Placed::fresh(run.start, run.offset, self.epoch, run.segment.clone(), run.capacity);
        if !self.tail.runs().push(placed) {
            core.space.give_back(&run, core.shard.index());
            self.failure = Some(StoreError::NoSpace);
            return None;
        }
        core.metrics.live_bytes.add(run.capacity as i64);
        let room = run.room();
        self.tail.set_reserved(self.written + room);
        self.run_len = (self.run_len * 2).min(RUN_MAX);
        self.filled.extend(self.run.replace(run));
        Some(room)
    }

    /// Lets go of the stream, and of what is not published.
    fn finish(&mut self, core: &Core) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.filled.clear();
        if let Some(run) = self.run.take() {
            let placed = self.tail.runs().last().expect("a run that is filled is in the list");
            let shard = core.shard.index();
            // A worker that still writes into the run must not meet its next tenant.
            let kept = match self.lent {
                true => core.space.abandon(&run, shard),
                false => core.space.give_back(&run, shard),
            };
            core.metrics.live_bytes.add(kept as i64 - run.capacity as i64);
            if let Some(place) = placed.place() {
                place.set_claimed(kept);
            }
            reclaim::retire_if_dead(core, &run.segment);
        }
        self.tail.withdraw_unpublished();
        self.tail.set_reserved(self.tail.published().max(self.tail.durable()));
        core.appends.attached.borrow_mut().remove(&self.tail.uid());
        if self.tail.detach() {
            reclaim::bury(core, &self.tail);
        }
    }
}

impl Appends {
    pub(super) fn any_advanced(&self) -> bool {
        !self.advanced.borrow().is_empty()
    }

    /// One mark for every run that grew in this turn.
    pub(super) fn mark(&self, core: &Core) {
        if core.sync.is_failing() {
            return;
        }
        let mut advanced = self.advanced.take();
        let now_ms = shard::current().wall().unix_millis();
        for active in advanced.drain(..) {
            let mut state = active.borrow_mut();
            state.queued = false;
            // Fenced, deleted or failed meanwhile: what is not published never will be.
            if let Err(error) = state.check() {
                state.failure = Some(error);
                state.finish(core);
                continue;
            }
            let state = &mut *state;
            let mut seq = 0;
            for run in state.filled.iter().chain(&state.run) {
                seq = core.decide_mark(&state.tail, state.epoch, run, state.written, now_ms);
            }
            let marked = Marked { seq, to: state.written, active: active.clone() };
            self.marked.borrow_mut().push_back(marked);
        }
        // Given back for its capacity: a turn allocates nothing.
        self.advanced.replace(advanced);
    }

    /// Makes readable what was marked, as far as the marks are in the page cache. Not while a failed sync is dealt with,
    /// which makes marks void: what they spoke of is marked again then.
    pub(super) fn publish(&self, core: &Core) {
        if core.sync.is_failing() {
            return;
        }
        let flushed = core.journal.borrow().flushed_seq();
        let mut marked = self.marked.borrow_mut();
        while let Some(Marked { to, active, .. }) = marked.pop_front_if(|marked| marked.seq <= flushed) {
            let mut active = active.borrow_mut();
            if active.finished {
                continue;
            }
            active.tail.publish(to, core.wake_for(&active.tail));
            // Until here a failed sync may have voided their marks, and they are marked again with the rest.
            active.filled.retain(|run| run.start + run.filled() > to);
            core.sync.add_tail(&active.tail);
            if active.dropped && to == active.written {
                active.finish(core);
            }
        }
    }

    /// After a failed sync: those whose bytes may be lost fail, the others are to be marked again.
    pub(super) fn restart(&self, core: &Core) {
        self.marked.borrow_mut().clear();
        let attached: Vec<_> = self.attached.borrow().values().cloned().collect();
        for active in attached {
            let mut state = active.borrow_mut();
            if state.tail.has_failed() {
                state.failure = Some(StoreError::SyncFailed);
                state.finish(core);
            } else if state.written > state.tail.published() && !std::mem::replace(&mut state.queued, true) {
                self.advanced.borrow_mut().push(active.clone());
            }
        }
    }

    /// After a failed sync: streams with bytes in a segment that was given up fail, published or not.
    pub(super) fn fail_poisoned(&self, core: &Core) {
        for active in self.attached.borrow().values() {
            let state = active.borrow();
            let mut runs = state.filled.iter().chain(&state.run);
            if state.written > state.tail.durable() && runs.any(|run| run.segment.is_poisoned()) {
                core.fail(&state.tail);
            }
        }
    }

    /// Takes the stream from its appender, which learns about it with its next call.
    pub(super) fn fence(&self, core: &Core, tail: &Tail) {
        let Some(active) = self.attached.borrow().get(&tail.uid()).cloned() else { return };
        let mut active = active.borrow_mut();
        active.failure.get_or_insert(StoreError::Fenced);
        active.finish(core);
    }
}

/// A write that takes longer was held up by the kernel.
const SLOW_WRITE: Duration = Duration::from_millis(20);
/// Up to this length the rest of a stream that is announced is reserved whole.
const WHOLE_MAX: u64 = 256 * 1024;
/// How long writes go to workers after a slow one.
const SLOW_FOR: Duration = Duration::from_secs(1);

impl Core {
    fn note_write(&self, took: Duration) {
        self.metrics.write_latency.record(took);
        if took >= SLOW_WRITE {
            self.slow_until.set(Some(shard::now() + SLOW_FOR));
        }
    }

    fn decide_mark(&self, tail: &Tail, epoch: u64, run: &Run, total: u64, now_ms: u64) -> u64 {
        let placed = tail.runs().last_where(|placed| placed.start() <= run.start);
        let (_, placed) = placed.expect("a run that is filled is in the list");
        placed.set_filled(run.filled(), run.crcs());
        placed.set_written(now_ms);
        let mark = Mark {
            uid: tail.uid(),
            epoch,
            start: run.start,
            total: total.min(run.start + run.filled()),
            end: None,
            log: run.segment.log,
            segment: run.segment.number,
            generation: run.segment.generation,
            offset: run.offset,
            len: run.filled(),
            crcs: run.crcs().into(),
        };
        self.decide(&Record::Mark(mark), tail.key_hash())
    }

    /// Says that an open stream ended by a failed sync, at what is durable of it.
    pub(super) fn fail(&self, tail: &Tail) {
        tail.fail(shard::current().wall().unix_millis(), self.wake_for(tail));
    }

    /// Says when a stream ended that recovery found without an end: when an earlier start found it so, or now.
    pub(super) fn tell_end(&self, tail: &Tail) {
        let at_ms = match tail.ended_ms() {
            0 => shard::current().wall().unix_millis(),
            known => known,
        };
        tail.set_ended(at_ms);
        self.decide(&Record::Ended { uid: tail.uid(), epoch: tail.epoch(), at_ms }, tail.key_hash());
    }

    /// How long the stream is, how it ended and when. The time comes first: where the end is, it is too. Returns the
    /// sequences of both.
    pub(super) fn decide_end(&self, tail: &Tail, epoch: u64, total: u64, end: End, at_ms: u64) -> (u64, u64) {
        let told = self.decide(&Record::Ended { uid: tail.uid(), epoch, at_ms }, tail.key_hash());
        let mark = Mark {
            uid: tail.uid(),
            epoch,
            start: total,
            total,
            end: Some(end),
            log: self.log,
            segment: 0,
            generation: 0,
            offset: 0,
            len: 0,
            crcs: (&[][..]).into(),
        };
        (told, self.decide(&Record::Mark(mark), tail.key_hash()))
    }
}
